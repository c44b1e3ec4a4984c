//! Contexts, like those of Go: cancellation of many pieces of work at once, with a reason and a
//! deadline. They also replace the broadcast of Go's `close(done)`.
//!
//! A context holds no thread, no timer and no reactor. Its deadline is a number that
//! [`Context::err`] compares with the clock. A reactor that waits for the deadline
//! ([`Handle::done`]) arms it in its own timers.
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | [`Context`]: a node of the tree and the clock of its deadline |
//! | `tree.rs` | the tree: the end of a node ends all nodes below it, and no thread waits |
//! | `cause.rs` | the cause of an end |
//! | `cancel.rs` | cancellers |
//! | `hook.rs` | a bell at a context, for a reactor |
//! | `done.rs` | the end of a context as a source |
//! | `after_cancel.rs` | a callback after the end |
//! | `models.rs` | the loom models |

mod after_cancel;
#[cfg(all(loom, test))]
mod bell_models;
mod cancel;
mod cause;
mod done;
mod hook;
#[cfg(all(loom, test))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
mod tree;

use std::any::TypeId;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::after_cancel::AfterCancel;
pub use self::cancel::{CancelGuard, Canceller};
use self::cause::Reason;
pub use self::cause::{Cause, ContextError};
pub use self::done::Done;
#[cfg(all(loom, test))]
use self::hook::Hook;
use self::tree::{Limit, Node};
use crate::driver::Clock;
#[cfg(doc)]
use crate::reactor::Handle;
use crate::sys::{PointInTime, Time};

/// A cancellation token with deadlines, like Go's `context.Context`. It ends once: when it is
/// cancelled, or when its deadline passes. All contexts that were made from it end with it.
///
/// A context is `Send + Sync`, and clones are the same context. Give a clone to each piece of work,
/// on any thread. The work asks for the end ([`err`](Self::err)), waits for the end in a `select!`
/// ([`Handle::done`]), or leaves a callback for the end ([`Handle::after_cancel`]).
///
/// ```
/// use pollmux::{channel, context::ContextError, select, Context, Reactor};
/// use std::time::{Duration, Instant};
///
/// let (context, canceller) = Context::background().with_cancel();
/// let workers: Vec<_> = (0..3)
///     .map(|_| {
///         let context = context.clone();
///         std::thread::spawn(move || -> std::io::Result<()> {
///             let reactor = Reactor::new()?;
///             let done = reactor.done(&context);
///             select! { reactor;
///                 recv(done) -> cause => assert_eq!(cause.error(), ContextError::Cancelled),
///             }
///             Ok(())
///         })
///     })
///     .collect();
/// canceller.cancel(); // one for all
/// for worker in workers {
///     worker.join().unwrap()?;
/// }
/// # std::io::Result::Ok(())
/// ```
///
/// # The clock
/// A deadline holds though no reactor turns. It is on `CLOCK_MONOTONIC`. A context made from
/// [`Handle::context`] has its deadline on the reactor's clock, which may be virtual.
///
/// # Cost
/// - To make a context: two allocations. To make and drop one takes constant time on the average.
///   Now and then a drop visits all siblings.
/// - To ask: a load, and a clock reading where there is a deadline.
/// - To cancel: linear in the number of contexts below, and an allocation for each with children or
///   waiters. No syscall, except one `write` for each sleeping reactor that waits.
/// - Memory: a parent keeps at most as many dropped children as live ones, and 16 more.
///
/// # Threads
/// No call waits for another thread, even for one that was stopped inside a call of this type. A
/// thread that is stopped while it cancels delays the end of contexts below that it has not
/// reached. It also delays the wake-ups that it owes.
#[derive(Clone)]
pub struct Context {
    clock: Clock,
    /// `None`: a root, which never ends.
    node: Option<Arc<Node>>,
}

impl Default for Context {
    /// [`Context::background`].
    fn default() -> Context {
        Context::background()
    }
}

impl Context {
    /// Returns the root that never ends and has no deadline, on `CLOCK_MONOTONIC`. Allocates
    /// nothing.
    ///
    /// For code that runs in virtual time as well take [`Handle::context`].
    pub fn background() -> Context {
        Context::on_clock(Clock::Monotonic)
    }

    /// Returns a root whose descendants have their deadlines on this clock.
    ///
    /// ```
    /// use pollmux::{driver::Driver, Context, Sim};
    /// use std::time::{Duration, Instant};
    ///
    /// let sim = Sim::new();
    /// let hour = Duration::from_secs(3600);
    /// let (context, _canceller) = Context::on_clock(sim.clock()).with_timeout(hour);
    /// assert_eq!(context.err(), None);
    /// sim.advance(Duration::from_secs(3600)); // no reactor turns
    /// assert!(context.err().is_some());
    /// ```
    pub fn on_clock(clock: Clock) -> Context {
        Context { clock, node: None }
    }

    fn child(&self, limit: Option<Limit>) -> Context {
        // Ends the context if its deadline has passed.
        self.err();
        let own = limit.filter(|limit| limit.at < Time::MAX);
        let inherited = self.node.as_ref().and_then(|node| node.limit.as_ref());
        let limit = match (own, inherited) {
            (Some(own), Some(inherited)) if own.at < inherited.at => Some(own),
            (own, inherited) => inherited.cloned().or(own),
        };
        let node = match &self.node {
            Some(parent) => parent.child(limit),
            None => Arc::new(Node::new(None, limit, None)),
        };
        Context { clock: self.clock.clone(), node: Some(node) }
    }

    /// Makes a child, and its canceller.
    ///
    /// Dropping the canceller cancels nothing; [`Canceller::drop_guard`] does.
    ///
    /// ```
    /// use pollmux::{context::ContextError, Context};
    ///
    /// let (parent, canceller) = Context::background().with_cancel();
    /// let (child, _) = parent.with_cancel();
    /// assert!(canceller.cancel());
    /// assert_eq!(child.err(), Some(ContextError::Cancelled));
    /// ```
    pub fn with_cancel(&self) -> (Context, Canceller) {
        self.cancellable(None)
    }

    /// Makes a child that ends `timeout` from now at the latest. With zero the child has ended
    /// already. A timeout that overflows the clock is no deadline.
    ///
    /// ```
    /// use pollmux::{Context, Time};
    /// use std::time::Duration;
    ///
    /// let (request, _canceller) = Context::background().with_timeout(Duration::from_secs(60));
    /// let (query, _canceller) = request.with_timeout(Duration::from_secs(600));
    /// assert!(query.deadline() <= request.deadline()); // the parent ends first
    /// assert!(request.deadline() > Some(Time::now()));
    /// assert_eq!(request.without_cancel().deadline(), None); // for the clean-up
    /// ```
    pub fn with_timeout(&self, timeout: Duration) -> (Context, Canceller) {
        self.limited(self.clock.now() + timeout, None)
    }

    /// Makes a child that ends at `t` at the latest, a [`Time`] on the context's clock or an
    /// [`Instant`]. If this context has an earlier deadline, the child has that one.
    ///
    /// # Panics
    /// When `t` is an `Instant` and the context's clock is a virtual one that started at
    /// [`Time::ZERO`]: an `Instant` is no point on that clock. Give a `Time` of the clock, or use
    /// [`with_timeout`](Self::with_timeout).
    ///
    /// ```
    /// use pollmux::{context::ContextError, Context, Time};
    ///
    /// let (context, canceller) = Context::background().with_deadline(Time::now()); // is over
    /// assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
    /// assert!(!canceller.cancel()); // too late
    /// ```
    #[track_caller]
    pub fn with_deadline(&self, t: impl PointInTime + 'static) -> (Context, Canceller) {
        self.limited(self.time_of(t), None)
    }

    /// Makes a child [with a timeout](Self::with_timeout). When that is over, the child's
    /// [`cause`](Self::cause) has `reason`.
    ///
    /// ```
    /// use pollmux::Context;
    /// use std::time::Duration;
    ///
    /// let root = Context::background();
    /// let (context, _canceller) = root.with_timeout_cause(Duration::ZERO, "the server is slow");
    /// assert_eq!(context.cause().unwrap().to_string(), "the server is slow");
    /// ```
    pub fn with_timeout_cause(
        &self,
        timeout: Duration,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Context, Canceller) {
        self.limited(self.clock.now() + timeout, Some(reason.into().into()))
    }

    /// Makes a child [with a deadline](Self::with_deadline). When that has passed, the child's
    /// [`cause`](Self::cause) has `reason`.
    ///
    /// # Panics
    /// As `with_deadline` does.
    #[track_caller]
    pub fn with_deadline_cause(
        &self,
        t: impl PointInTime + 'static,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Context, Canceller) {
        self.limited(self.time_of(t), Some(reason.into().into()))
    }

    #[track_caller]
    fn time_of<T: PointInTime + 'static>(&self, t: T) -> Time {
        let is_point = TypeId::of::<T>() != TypeId::of::<Instant>() || self.clock.has_instants();
        assert!(
            is_point,
            "pollmux: the context's clock is virtual and starts at Time::ZERO, where an Instant \
             has no place: \
             give a Time of that clock, or use with_timeout"
        );
        t.into()
    }

    fn limited(&self, at: Time, reason: Option<Reason>) -> (Context, Canceller) {
        self.cancellable(Some(Limit {
            at,
            cause: Cause::new(ContextError::DeadlineExceeded, reason).into(),
        }))
    }

    fn cancellable(&self, limit: Option<Limit>) -> (Context, Canceller) {
        let context = self.child(limit);
        (context.clone(), Canceller { context })
    }

    /// Returns a root on the same clock, which does not end with this context, and has no deadline.
    /// For work that goes on after the end, such as the clean-up.
    pub fn without_cancel(&self) -> Context {
        Context::on_clock(self.clock.clone())
    }

    /// Returns the end of the context, and `None` before that. From the end on the answer is always
    /// the same. Costs a load, and a clock reading where there is a deadline.
    pub fn err(&self) -> Option<ContextError> {
        self.node.as_ref()?.settle(&self.clock)
    }

    /// Returns the end of the context with the reason that was given, and `None` before the end.
    pub fn cause(&self) -> Option<Cause> {
        let node = self.node.as_ref()?;
        node.settle(&self.clock)?;
        node.cause()
    }

    /// Fails if the context has ended: `context.check()?` between two pieces of work.
    ///
    /// # Errors
    /// The [`cause`](Self::cause) of the end.
    ///
    /// ```
    /// use pollmux::Context;
    ///
    /// fn work(context: &Context) -> std::io::Result<u32> {
    ///     let mut done = 0;
    ///     while done < 3 {
    ///         context.check()?;
    ///         done += 1;
    ///     }
    ///     Ok(done)
    /// }
    /// let (context, canceller) = Context::background().with_cancel();
    /// assert_eq!(work(&context)?, 3);
    /// canceller.cancel();
    /// assert!(work(&context).is_err());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn check(&self) -> Result<(), Cause> {
        self.cause().map_or(Ok(()), Err)
    }

    /// Returns the earliest deadline of this context and of those that it was made from. `None` if
    /// there is no deadline.
    pub fn deadline(&self) -> Option<Time> {
        self.limit().map(|limit| limit.at)
    }

    /// The clock that deadlines are on.
    ///
    /// ```
    /// use pollmux::{Context, driver::Clock};
    ///
    /// assert!(Context::background().clock().is_same(&Clock::Monotonic));
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    fn limit(&self) -> Option<&Limit> {
        self.node.as_ref()?.limit.as_ref()
    }

    fn cancel(&self, reason: Option<Reason>) -> bool {
        let cause = Arc::new(Cause::new(ContextError::Cancelled, reason));
        self.node.as_ref().is_some_and(|node| node.cancel(&cause, self.clock.now()))
    }
}

impl_debug!([] Context, |it| err: it.err(), deadline: it.deadline());

//! Contexts: one word for many, "stop", with a reason and a deadline. Go's `context`, and the broadcast that Go gets from `close(done)`.
//!
//! A context is a node of a tree: what ends it ends all below it. It holds no thread, no timer and no reactor: a deadline is a number that
//! [`Context::err`] compares with the clock, and whoever waits for it ([`Handle::done`]) arms it where it waits.
//!
//! # The tree
//! A node holds its parent, so a cancellation reaches the node through nodes that nobody else holds
//! any more. The parent knows the node by a `Weak` in the list of what hangs there: children and
//! bells, in the order of registration. Every node has the earliest deadline of its path, so a child
//! whose parent ends earlier has no deadline of its own.
//!
//! - **The first to end a node wins**: `end` is one word that is set once, with the cause.
//! - **A deadline that has passed was first**, even if nobody looked: a canceller compares the
//!   deadline with the clock, and so does a thread that asks.
//! - Such an end need not be handed down: the nodes below have passed their deadlines as well, and
//!   whoever waits there has armed them.
//! - **A cancellation goes down without recursion.** It ends a node, closes its list, and goes on
//!   with the children that were in the list. Then it tolls all bells, and only then it wakes the
//!   reactors (`wake/mod.rs`): each one once, and the reactor finds all that concern it.
//!
//! # A thread that stands still
//! No operation waits for another thread, because that thread may stand still. There is no lock to
//! wait for: an end is an exchange of a pointer, and so are adding to a list and closing one
//! (`channel/registry.rs`).
//!
//! **A cancellation misses nothing.** The canceller ends the node first and closes its list then. A
//! thread that hangs something up adds it first and looks at `end` then.
//! - It was added before the list was closed: the canceller finds it in the list.
//! - It comes too late: the node has ended before the list was closed. So the thread finds the end,
//!   rings its own bell, or ends its own child.
//! - It was added between the two: both do it. An end is set once, and a bell that is rung twice
//!   costs one more look.
//!
//! A canceller that stands still delays only what is below the node and was not reached yet. Those
//! contexts are open until they are reached, and a bell that was not tolled is not heard. `err()` of
//! such a context does not look at its ancestors: that would cost a load for each. A deadline holds
//! all the same, and another cancellation, of the same node or another one, does not wait.
//!
//! The loom models are in `context/models.rs`.

#[cfg(all(loom, test))]
mod models;

use std::any::TypeId;
use std::cell::Cell;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::channel::{Entry, Once, Registry};
use crate::driver::Clock;
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sources::{Blocking, Source};
use crate::sys::Time;
use crate::wake::{Bell, Probe, Request};

/// What a piece of work is told to stop by: it ends once, when it is cancelled or its deadline passes, and with it all that were made from it.
///
/// `Send + Sync`; clones are the same context. Give one to whatever works for you, on any thread. It asks ([`err`](Self::err)), or waits for the end in a
/// `select!` ([`Handle::done`]), or leaves something to be done then ([`Handle::after_cancel`]).
///
/// ```
/// use pollmux::{Context, ContextError, Reactor, channel, select};
/// use std::time::{Duration, Instant};
///
/// let (context, canceller) = Context::background().with_cancel();
/// let workers: Vec<_> = (0..3)
///     .map(|_| {
///         let context = context.clone();
///         std::thread::spawn(move || -> std::io::Result<()> {
///             let reactor = Reactor::new()?;
///             let done = reactor.done(&context);
///             select! { reactor; recv(done) -> cause => assert_eq!(cause.error(), ContextError::Cancelled) }
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
/// Deadlines hold though no reactor turns. They are on `CLOCK_MONOTONIC`, or, for contexts made from [`Handle::context`], on the reactor's clock, which may be virtual.
///
/// # Cost
/// - Making a context: two allocations. Making one and dropping it take constant time, on the
///   average: now and then a drop visits all siblings.
/// - Asking: a load, and a clock reading where there is a deadline.
/// - Cancelling: linear in the number of contexts below, and an allocation for each that has
///   children or waiters. No syscall, except one `write` for each sleeping reactor that waits.
/// - Memory: a parent keeps at most as many dropped children as it has live ones, and 16 more.
///
/// # Threads
/// No call waits for another thread, even for one that was stopped inside a call of this type. A
/// thread that is stopped while it cancels delays the end of the contexts below that it has not
/// reached, and the wake-ups that it owes.
#[derive(Clone)]
pub struct Context {
    clock: Clock,
    /// `None`: a root, which never ends.
    node: Option<Arc<Node>>,
}

/// Why a context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// It, or one that it was made from, was cancelled.
    Cancelled,
    /// Its deadline has passed, or that of one that it was made from.
    DeadlineExceeded,
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ContextError::Cancelled => "the context was cancelled",
            ContextError::DeadlineExceeded => "the context's deadline has passed",
        })
    }
}

impl Error for ContextError {}

impl From<ContextError> for io::Error {
    /// [`TimedOut`](io::ErrorKind::TimedOut) for a deadline, [`Other`](io::ErrorKind::Other) for a cancellation.
    fn from(error: ContextError) -> io::Error {
        io::Error::new(kind(error), error)
    }
}

fn kind(error: ContextError) -> io::ErrorKind {
    match error {
        ContextError::Cancelled => io::ErrorKind::Other,
        ContextError::DeadlineExceeded => io::ErrorKind::TimedOut,
    }
}

type Reason = Arc<dyn Error + Send + Sync>;

/// How a context has ended: by what, and the reason if one was given.
#[derive(Clone, Debug)]
pub struct Cause {
    error: ContextError,
    reason: Option<Reason>,
}

impl Cause {
    fn new(error: ContextError, reason: Option<Reason>) -> Cause {
        Cause { error, reason }
    }

    /// Cancelled, or out of time.
    pub fn error(&self) -> ContextError {
        self.error
    }

    /// What was given to [`CauseCanceller::cancel`], or for the deadline.
    pub fn reason(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.reason.as_deref()
    }

    /// The reason, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.reason.as_deref()?.downcast_ref()
    }
}

impl fmt::Display for Cause {
    /// The reason, or what [`error`](Self::error) says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => reason.fmt(f),
            None => self.error.fmt(f),
        }
    }
}

impl Error for Cause {
    /// The reason that was given.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.as_deref().map(|reason| reason as &(dyn Error + 'static))
    }
}

impl From<Cause> for io::Error {
    /// Of the kind that [`ContextError`] is converted to.
    fn from(cause: Cause) -> io::Error {
        io::Error::new(kind(cause.error), cause)
    }
}

/// One context of the tree.
struct Node {
    /// `None`: below a root, or born ended.
    place: Option<Place>,
    limit: Option<Limit>,
    /// Empty: open.
    end: Once<Cause>,
    /// Closed by the canceller, and left open by the deadline.
    list: Registry<Hanging>,
}

/// Where a node hangs.
struct Place {
    parent: Arc<Node>,
    entry: Arc<Entry<Hanging>>,
}

/// What hangs at a node, in the order in which it ends.
enum Hanging {
    Child(Weak<Node>),
    Bell(Arc<Bell>),
}

/// The earliest deadline on the way from the root, and what it ends a context with.
#[derive(Clone)]
struct Limit {
    at: Time,
    cause: Arc<Cause>,
}

impl Node {
    fn new(place: Option<Place>, limit: Option<Limit>, end: Option<Arc<Cause>>) -> Node {
        Node { place, limit, end: Once::new(end), list: Registry::new() }
    }

    /// Makes a child. A child of a node that has ended is born ended and not part of the tree.
    fn child(self: &Arc<Node>, limit: Option<Limit>) -> Arc<Node> {
        if let Some(cause) = self.end.get_arc() {
            return Arc::new(Node::new(None, limit, Some(cause)));
        }
        let mut hung = None;
        let child = Arc::new_cyclic(|child| {
            let entry = Entry::new(Hanging::Child(child.clone()));
            hung = Some(entry.clone());
            Node::new(Some(Place { parent: self.clone(), entry }), limit, None)
        });
        hung.map(|entry| self.list.add(entry));
        // Cancelled meanwhile: the canceller may have missed the child. (A deadline is its own.)
        if self.ended() == Some(ContextError::Cancelled) {
            self.end.get_arc().map(|cause| child.end.set(cause));
        }
        child
    }

    /// How the node has ended, as far as any thread has noticed.
    #[inline]
    fn ended(&self) -> Option<ContextError> {
        self.end.get().map(|cause| cause.error)
    }

    /// How the node has ended by now. Writes a deadline down that has passed.
    fn settle(&self, clock: &Clock) -> Option<ContextError> {
        let limit = match (self.ended(), &self.limit) {
            (None, Some(limit)) => limit,
            (ended, _) => return ended,
        };
        if clock.now() < limit.at {
            return None;
        }
        self.expire();
        self.ended()
    }

    /// The deadline has passed: ends the node by it, unless another thread was first.
    fn expire(&self) {
        if let Some(limit) = &self.limit {
            self.end.set(limit.cause.clone());
        }
    }

    /// Ends the node and all below it, and wakes who waits for them. `now` is on their clock.
    /// Returns true if this call ended the node, and not its deadline.
    fn cancel(self: &Arc<Node>, cause: &Arc<Cause>, now: Time) -> bool {
        let mut bells = Vec::new();
        // Breadth first, so that the order is the same every time.
        let mut below = VecDeque::new();
        let won = self.cancel_one(cause, now, &mut below, &mut bells);
        while let Some(child) = below.pop_front() {
            if let Some(child) = Weak::upgrade(&child) {
                child.cancel_one(cause, now, &mut below, &mut bells);
            }
        }
        let tolled: Vec<_> = bells.iter().map(|bell| bell.toll()).collect();
        bells.iter().zip(tolled).for_each(|(bell, asked)| bell.wake(asked));
        won
    }

    fn cancel_one(
        &self,
        cause: &Arc<Cause>,
        now: Time,
        below: &mut VecDeque<Weak<Node>>,
        bells: &mut Vec<Arc<Bell>>,
    ) -> bool {
        let overdue = self.limit.as_ref().filter(|limit| limit.at <= now);
        if !self.end.set(overdue.map_or(cause, |limit| &limit.cause).clone()) {
            return false;
        }
        for entry in self.list.close() {
            match entry.value() {
                Hanging::Child(child) => below.push_back(child.clone()),
                Hanging::Bell(bell) => bells.push(bell.clone()),
            }
        }
        overdue.is_none()
    }

    /// Has the bell rung when the node is cancelled; at once if it has ended. Returns what takes the
    /// bell down.
    fn hang(&self, bell: &Arc<Bell>) -> Option<Arc<Entry<Hanging>>> {
        if self.end.get().is_some() {
            bell.ring();
            return None;
        }
        let entry = Entry::new(Hanging::Bell(bell.clone()));
        self.list.add(entry.clone());
        // Ended meanwhile: the canceller may have missed the bell.
        if self.end.get().is_some() {
            bell.ring();
        }
        Some(entry)
    }

    fn take_down(&self, entry: &Entry<Hanging>) {
        self.list.take_off(entry);
    }

    fn cause(&self) -> Option<Cause> {
        self.end.get().cloned()
    }
}

impl Drop for Node {
    /// Leaves the parent. A chain that goes with it goes link by link: as recursion a long one would
    /// end the stack.
    fn drop(&mut self) {
        let mut next = self.place.take();
        while let Some(Place { parent, entry }) = next {
            parent.take_down(&entry);
            let Some(mut parent) = Arc::into_inner(parent) else { return };
            next = parent.place.take();
        }
    }
}

impl Default for Context {
    /// [`Context::background`].
    fn default() -> Context {
        Context::background()
    }
}

impl Context {
    /// The root that never ends and has no deadline. On `CLOCK_MONOTONIC`. Allocates nothing.
    ///
    /// For code that is to run in virtual time as well take [`Handle::context`].
    pub fn background() -> Context {
        Context::on_clock(Clock::Monotonic)
    }

    /// A root whose descendants' deadlines are on this clock.
    ///
    /// ```
    /// use pollmux::{Context, Driver, Sim};
    /// use std::time::{Duration, Instant};
    ///
    /// let sim = Sim::new();
    /// let (context, _canceller) = Context::on_clock(sim.clock()).with_timeout(Duration::from_secs(3600));
    /// assert_eq!(context.err(), None);
    /// sim.advance(Duration::from_secs(3600)); // no reactor turns
    /// assert!(context.err().is_some());
    /// ```
    pub fn on_clock(clock: Clock) -> Context {
        Context { clock, node: None }
    }

    fn child(&self, limit: Option<Limit>) -> Context {
        // What has ended by its deadline is to be found ended.
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

    /// A child, and what cancels it.
    ///
    /// Dropping the canceller cancels nothing; [`Canceller::drop_guard`] does.
    ///
    /// ```
    /// use pollmux::{Context, ContextError};
    ///
    /// let (parent, canceller) = Context::background().with_cancel();
    /// let (child, _) = parent.with_cancel();
    /// assert!(canceller.cancel());
    /// assert_eq!(child.err(), Some(ContextError::Cancelled));
    /// ```
    pub fn with_cancel(&self) -> (Context, Canceller) {
        self.cancellable(None)
    }

    /// A child, and what cancels it with a reason.
    ///
    /// ```
    /// use pollmux::Context;
    ///
    /// let (context, canceller) = Context::background().with_cancel_cause();
    /// let (child, _) = context.with_cancel();
    /// canceller.cancel("the disk is full");
    /// assert_eq!(child.cause().unwrap().to_string(), "the disk is full");
    /// ```
    pub fn with_cancel_cause(&self) -> (Context, CauseCanceller) {
        let context = self.child(None);
        (context.clone(), CauseCanceller { context })
    }

    /// A child that ends `timeout` from now at the latest. Zero: it has ended already. What is too long to count is no deadline.
    pub fn with_timeout(&self, timeout: Duration) -> (Context, Canceller) {
        self.limited(self.clock.now() + timeout, None)
    }

    /// A child that ends at `t` at the latest, a [`Time`] on the context's clock or an [`Instant`](std::time::Instant). If this context ends before `t`, so does the child, which then has no deadline of its own.
    ///
    /// # Panics
    /// When `t` is an `Instant` and the context's clock is a virtual one that started at
    /// [`Time::ZERO`]: an `Instant` is no point on that clock. Give a `Time` of the clock, or use
    /// [`with_timeout`](Self::with_timeout).
    ///
    /// ```
    /// use pollmux::{Context, ContextError, Time};
    ///
    /// let (context, canceller) = Context::background().with_deadline(Time::now()); // is over
    /// assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
    /// assert!(!canceller.cancel()); // too late
    /// ```
    #[track_caller]
    pub fn with_deadline(&self, t: impl Into<Time> + 'static) -> (Context, Canceller) {
        self.limited(self.time_of(t), None)
    }

    /// [`with_timeout`](Self::with_timeout) with a reason, for when it is over.
    pub fn with_timeout_cause(
        &self,
        timeout: Duration,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Context, Canceller) {
        self.limited(self.clock.now() + timeout, Some(reason.into().into()))
    }

    /// [`with_deadline`](Self::with_deadline) with a reason, for when it is over.
    ///
    /// # Panics
    /// As `with_deadline` does.
    #[track_caller]
    pub fn with_deadline_cause(
        &self,
        t: impl Into<Time> + 'static,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Context, Canceller) {
        self.limited(self.time_of(t), Some(reason.into().into()))
    }

    #[track_caller]
    fn time_of<T: Into<Time> + 'static>(&self, t: T) -> Time {
        let is_point = TypeId::of::<T>() != TypeId::of::<Instant>() || self.clock.has_instants();
        assert!(
            is_point,
            "pollmux: the context's clock is virtual and starts at Time::ZERO, where an Instant has no place: \
             give a Time of that clock, or use with_timeout"
        );
        t.into()
    }

    fn limited(&self, at: Time, reason: Option<Reason>) -> (Context, Canceller) {
        self.cancellable(Some(Limit { at, cause: Cause::new(ContextError::DeadlineExceeded, reason).into() }))
    }

    fn cancellable(&self, limit: Option<Limit>) -> (Context, Canceller) {
        let context = self.child(limit);
        (context.clone(), Canceller { context })
    }

    /// A root on the same clock: it does not end with this one, and has no deadline. For what must be done after the end.
    pub fn without_cancel(&self) -> Context {
        Context::on_clock(self.clock.clone())
    }

    /// Whether, and how, it has ended; once it says so it says the same for ever. A load, and a clock reading where there is a deadline.
    pub fn err(&self) -> Option<ContextError> {
        self.node.as_ref()?.settle(&self.clock)
    }

    /// [`err`](Self::err) with the reason that was given.
    pub fn cause(&self) -> Option<Cause> {
        let node = self.node.as_ref()?;
        node.settle(&self.clock)?;
        node.cause()
    }

    /// Goes on, `Ok(())`, or gives the cause: `context.check()?` between two pieces of work.
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

    /// When it ends at the latest: the earliest deadline of this context and those that it was made from. `None`: there is none.
    pub fn deadline(&self) -> Option<Time> {
        self.limit().map(|limit| limit.at)
    }

    /// The clock that deadlines are on.
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

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("err", &self.err())
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

/// Cancels a [`Context`], from any thread. Clones cancel the same one.
#[derive(Clone, Debug)]
pub struct Canceller {
    context: Context,
}

impl Canceller {
    /// Ends the context and all that were made from it. Returns whether it was this call that did: false when the context had ended already.
    ///
    /// Linear in the number of contexts below it; at most one syscall for each reactor that sleeps and waits for one of them.
    pub fn cancel(&self) -> bool {
        self.context.cancel(None)
    }

    /// Cancels when it is dropped.
    ///
    /// ```
    /// use pollmux::Context;
    ///
    /// let (context, canceller) = Context::background().with_cancel();
    /// {
    ///     let _guard = canceller.drop_guard();
    ///     // .. whatever this block leaves by
    /// }
    /// assert!(context.err().is_some());
    /// ```
    pub fn drop_guard(self) -> CancelGuard {
        CancelGuard { canceller: Some(self) }
    }
}

/// Cancels a [`Context`] when it is dropped; made by [`Canceller::drop_guard`].
#[must_use = "dropping the guard cancels the context"]
#[derive(Debug)]
pub struct CancelGuard {
    canceller: Option<Canceller>,
}

impl CancelGuard {
    /// Cancels nothing any more, and gives the canceller back.
    pub fn disarm(mut self) -> Canceller {
        match self.canceller.take() {
            Some(canceller) => canceller,
            None => unreachable!("only this and drop take it"),
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
    }
}

/// Cancels a [`Context`] and says why; made by [`Context::with_cancel_cause`].
#[derive(Clone, Debug)]
pub struct CauseCanceller {
    context: Context,
}

impl CauseCanceller {
    /// [`Canceller::cancel`] with a reason: an error, or a text. It is the [`cause`](Context::cause) of all contexts that this call ends.
    pub fn cancel(&self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.context.cancel(Some(reason.into().into()))
    }

    /// A canceller without a reason.
    pub fn plain(&self) -> Canceller {
        Canceller { context: self.context.clone() }
    }
}

/// A bell that hangs at a context, until this is dropped.
struct Watch {
    context: Context,
    bell: Arc<Bell>,
    entry: Option<Arc<Entry<Hanging>>>,
}

impl Watch {
    fn new(context: &Context, bell: Bell) -> Watch {
        let bell = Arc::new(bell);
        let entry = context.node.as_ref().and_then(|node| node.hang(&bell));
        Watch { context: context.clone(), bell, entry }
    }

    /// Whether the context has ended, but for a deadline that nobody has noticed.
    #[inline]
    fn is_ended(&self) -> bool {
        self.context.node.as_ref().is_some_and(|node| node.ended().is_some())
    }

    /// It has ended, as the reactor found: if nobody has cancelled it, by its deadline.
    fn settle(&self) {
        if let (Some(node), false) = (&self.context.node, self.is_ended()) {
            node.expire();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(node), Some(entry)) = (&self.context.node, &self.entry) {
            node.take_down(entry);
        }
    }
}

/// The end of a [`Context`], as a source; made by [`Handle::done`].
///
/// It gives the [`Cause`], in every `select!` from the end on, as Go's closed channel does. (`wait` reports it until it has been taken once.)
pub struct Done {
    // In this order: nobody rings for a slot that is free.
    watch: Watch,
    /// Ready when rung, armed for the deadline.
    slot: Slot,
    /// It has been taken, and `wait` need not report it any more.
    over: Cell<bool>,
    /// Times that it has been taken.
    ends: Cell<u32>,
}

impl Handle {
    /// A root for contexts whose deadlines are on this reactor's clock.
    ///
    /// ```
    /// use pollmux::{ContextError, Reactor, Sim, select};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let (context, _canceller) = reactor.context().with_timeout(Duration::from_secs(7 * 86400));
    /// let done = reactor.done(&context);
    /// select! { reactor; recv(done) -> cause => assert_eq!(cause.error(), ContextError::DeadlineExceeded) }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn context(&self) -> Context {
        Context::on_clock(self.core.clock.source())
    }

    /// The end of `context` as a source of this reactor. Its deadline, if it has one, is armed here.
    ///
    /// Make it once, before the loop. No syscall; two allocations.
    ///
    /// # Panics
    /// When the context has a deadline on another clock than the reactor's: nobody could wait for that. [`Handle::context`] has the right one.
    ///
    /// ```
    /// use pollmux::{Context, Reactor, select};
    ///
    /// let reactor = Reactor::new()?;
    /// let (context, canceller) = Context::background().with_cancel();
    /// let (work, inbox) = reactor.channel::<u32>(4)?;
    /// let done = reactor.done(&context);
    /// std::thread::spawn(move || {
    ///     work.send(1).unwrap();
    ///     canceller.cancel();
    /// });
    /// loop {
    ///     select! { reactor;
    ///         recv(inbox) -> job => if let Ok(job) = job { println!("job {job}") },
    ///         recv(done) -> cause => {
    ///             println!("{cause}");
    ///             break;
    ///         }
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn done(&self, context: &Context) -> Done {
        self.check_clock(context);
        let slot = Slot::new(self, SourceKind::Context);
        let watch = Watch::new(context, Bell::new(slot.notify().clone(), slot.number()));
        if !self.is_closed() {
            if context.node.is_some() {
                slot.register_channel(watch.bell.clone());
            }
            if let (Some(limit), false) = (context.limit(), slot.is_ready()) {
                slot.be_exact();
                slot.arm(limit.at);
            }
        }
        Done { watch, slot, over: Cell::new(false), ends: Cell::new(0) }
    }

    #[track_caller]
    fn check_clock(&self, context: &Context) {
        if context.deadline().is_some() {
            let same = self.core.clock.source().is_same(&context.clock);
            assert!(
                same,
                "pollmux: the context's deadline is on another clock than the reactor's: see Handle::context"
            );
        }
    }
}

impl Done {
    /// The context.
    pub fn context(&self) -> &Context {
        &self.watch.context
    }

    /// Lets the deadline be told late, by `slack` at the most, as
    /// [`Timer::slack`](crate::Timer::slack) does. Without it the deadline is exact, also in a
    /// reactor with [slack](crate::Builder::slack): [`Context::err`] is.
    pub fn slack(self, slack: Duration) -> Done {
        self.slot.set_slack(slack);
        self
    }

    /// Gives it the key that [`wait`](Handle::wait) reports it by.
    pub fn with_key(self, key: u64) -> Done {
        self.slot.set_key(key);
        self
    }

    /// The key that [`wait`](Handle::wait) reports it by. Without [`with_key`](Self::with_key) a unique one of 2^63 or more.
    pub fn key(&self) -> u64 {
        self.slot.key()
    }
}

impl Source for Done {
    type Item = Cause;

    #[inline]
    fn is_ready(&self) -> bool {
        self.watch.is_ended() || self.slot.is_due()
    }

    fn try_take(&self) -> Option<Cause> {
        if !self.is_ready() {
            return None;
        }
        let node = self.watch.context.node.as_ref()?;
        if !self.over.replace(true) {
            self.watch.settle();
            self.slot.stop();
            self.slot.channel_ended();
            self.slot.count();
        }
        self.slot.end_taken(&self.ends);
        node.cause()
    }

    fn before_block(&self, _: &mut Blocking<'_>) -> io::Result<()> {
        self.watch.bell.ask(Request::Wake);
        Ok(())
    }

    fn after_block(&self) {
        self.watch.bell.unask();
    }

    #[inline]
    fn belongs_to(&self, handle: &Handle) -> bool {
        self.slot.belongs_to(handle)
    }

    fn token(&self) -> Option<u64> {
        Some(self.slot.token())
    }

    fn needs_no_look(&self) -> bool {
        true
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Done")
            .field("context", &self.watch.context)
            .field("ready", &self.is_ready())
            .field("inert", &self.slot.is_inert())
            .finish()
    }
}

/// Something that a reactor is to do when a [`Context`] has ended; made by [`Handle::after_cancel`].
///
/// Dropping it is [`stop`](Self::stop); [`detach`](Self::detach) leaves it alone.
#[must_use = "dropping it stops it: keep it, or detach() it"]
pub struct AfterCancel {
    /// It has the closure, and the closure what hangs at the context.
    slot: Slot,
    context: Context,
}

impl Handle {
    /// Has `f` run on this reactor once `context` has ended, by whatever it ends: inside a `select!`, `wait` or `turn`, which then goes on waiting. If the context
    /// has ended already that is the next turn. Go's `AfterFunc`.
    ///
    /// It runs before a message is received that was sent after the cancellation. `f` may do as it likes, also wait on the reactor. It goes with the reactor if the context does not end before.
    /// Allocates the closure and what hangs at the context; running it does not. [`sources`](Self::sources) lists it as a callback.
    ///
    /// # Panics
    /// When the context has a deadline on another clock than the reactor's, as [`done`](Self::done) does.
    ///
    /// ```
    /// use pollmux::{Context, Reactor, select};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::new()?;
    /// let (context, canceller) = Context::background().with_cancel();
    /// let cleanup = reactor.after_cancel(&context, |_| println!("cancelled"));
    /// canceller.cancel();
    /// select! { reactor; default => {} } // a turn
    /// assert!(!cleanup.stop()); // it has run
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn after_cancel(&self, context: &Context, f: impl FnOnce(&Handle) + 'static) -> AfterCancel {
        self.check_clock(context);
        // A deadline that has passed is a cancellation like another, and those come in the order of these calls.
        context.err();
        let slot = Slot::new(self, SourceKind::Callback);
        slot.notify().prepare_callback(slot.number());
        // From here on a canceller, if it comes first, makes the call due.
        let watch = Watch::new(context, Bell::for_callback(slot.notify().clone(), slot.number()));
        let limit = context.limit().filter(|_| !watch.is_ended() && !self.is_closed());
        let bell = watch.bell.clone();
        let mut last = Some((watch, f));
        slot.set_call_once(
            bell,
            Box::new(move |firing| {
                let Some((watch, f)) = last.take() else { return };
                watch.settle();
                drop(watch);
                f(firing.handle());
            }),
        );
        if let Some(limit) = limit {
            slot.be_exact();
            slot.arm(limit.at);
        }
        AfterCancel { slot, context: context.clone() }
    }
}

impl AfterCancel {
    /// Takes the closure away. True when that prevented it from running: it had neither begun nor been stopped.
    pub fn stop(&self) -> bool {
        self.slot.drop_call()
    }

    /// Lets the closure run late after a deadline, by `slack` at the most, as [`Done::slack`] does.
    pub fn slack(self, slack: Duration) -> AfterCancel {
        self.slot.set_slack(slack);
        self
    }

    /// Whether the closure has neither run nor been stopped.
    pub fn is_pending(&self) -> bool {
        self.slot.has_call()
    }

    /// Leaves it to the reactor.
    pub fn detach(self) {
        self.slot.detach_call();
    }
}

impl fmt::Debug for AfterCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterCancel")
            .field("context", &self.context)
            .field("pending", &self.is_pending())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::driver::{Driver, Sim};
    use crate::reactor::Reactor;

    /// Children and bells.
    fn hanging(context: &Context) -> (usize, usize) {
        let (mut children, mut bells) = (0, 0);
        context.node.as_ref().expect("a node").list.each(|hanging| match hanging {
            Hanging::Child(_) => children += 1,
            Hanging::Bell(_) => bells += 1,
        });
        (children, bells)
    }

    /// Go's TestCancelRemoves.
    #[test]
    fn children_and_bells_that_are_dropped_leave_the_tree() -> io::Result<()> {
        let reactor = Reactor::with_driver(Sim::new())?;
        let (root, _canceller) = reactor.context().with_cancel();
        let child = root.with_cancel();
        let (done, after) = (reactor.done(&root), reactor.after_cancel(&root, |_| ()));
        assert_eq!(hanging(&root), (1, 2));
        let grandchild = child.0.with_timeout(Duration::from_secs(1));
        drop(child);
        assert_eq!(hanging(&root), (1, 2), "the grandchild keeps its path");
        drop(grandchild);
        assert_eq!(hanging(&root), (0, 2));
        drop(done);
        assert!(after.stop());
        drop(after);
        assert_eq!(hanging(&root), (0, 0));
        Ok(())
    }

    #[test]
    fn what_has_been_cancelled_holds_nothing() -> io::Result<()> {
        let reactor = Reactor::with_driver(Sim::new())?;
        let (root, canceller) = reactor.context().with_cancel();
        let (child, _child) = root.with_cancel();
        let _done = (reactor.done(&root), reactor.done(&child));
        canceller.cancel();
        assert_eq!((hanging(&root), hanging(&child)), ((0, 0), (0, 0)));
        let (late, _late) = root.with_cancel();
        let _done = reactor.done(&late);
        assert_eq!((hanging(&root), hanging(&late)), ((0, 0), (0, 0)));
        Ok(())
    }

    #[test]
    fn what_is_below_no_root_but_the_background_is_in_no_list() {
        let (context, _canceller) = Context::background().with_cancel();
        assert!(context.node.is_some_and(|node| node.place.is_none()));
    }

    // A thread that stands still with the lock of a node. Nobody may wait for it.

    /// A test waits so long for what must not wait at all.
    const LONG: Duration = Duration::from_secs(180);

    /// Runs `work` on a thread. At its call of `stop` another thread comes to hold the lock of
    /// `context`, and holds it until `work` is over.
    fn beside_a_stopped_thread(context: &Context, work: impl FnOnce(Context, &dyn Fn()) + Send + 'static) {
        use std::sync::mpsc;
        let ((say, said), (go, going)) = (mpsc::channel(), mpsc::channel());
        let theirs = context.clone();
        let worker = std::thread::spawn(move || {
            work(theirs, &|| {
                say.send(()).unwrap();
                going.recv().unwrap();
            });
            say.send(()).unwrap();
        });
        said.recv_timeout(LONG).expect("prepares");
        let lock = locked(context);
        go.send(()).unwrap();
        said.recv_timeout(LONG).expect("waits for a thread that stands still, or has failed");
        drop(lock);
        worker.join().unwrap();
    }

    fn locked(context: &Context) -> impl Drop {
        context.node.as_ref().expect("a node").list.lock()
    }

    fn cancellable() -> (Context, Canceller) {
        Context::background().with_cancel()
    }

    #[test]
    fn asking_waits_for_nobody() {
        let (context, _canceller) = Context::background().with_timeout(Duration::ZERO);
        beside_a_stopped_thread(&context, move |context, stop| {
            stop();
            assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
        });
        let (context, canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            canceller.cancel();
            stop();
            assert_eq!(context.cause().unwrap().error(), ContextError::Cancelled);
            assert!(context.check().is_err());
        });
    }

    #[test]
    fn making_a_child_waits_for_nobody() {
        let (context, canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            stop();
            let (child, _child) = context.with_cancel();
            assert_eq!(child.err(), None);
            assert!(canceller.cancel());
            assert_eq!(child.err(), Some(ContextError::Cancelled));
            assert!(context.with_cancel().0.err().is_some(), "born ended");
        });
    }

    #[test]
    fn dropping_a_child_waits_for_nobody() {
        let (context, _canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            let children: Vec<_> = (0..100).map(|_| context.with_cancel()).collect();
            stop();
            drop(children);
        });
        assert_eq!(hanging(&context), (0, 0));
    }

    #[test]
    fn making_and_dropping_done_wait_for_nobody() {
        let (context, _canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            let reactor = Reactor::new().unwrap();
            let done = reactor.done(&context);
            stop();
            drop(reactor.done(&context));
            drop(done);
        });
        assert_eq!(hanging(&context), (0, 0));
    }

    #[test]
    fn making_and_stopping_after_cancel_wait_for_nobody() {
        let (context, _canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            let reactor = Reactor::new().unwrap();
            let (one, two) = (reactor.after_cancel(&context, |_| {}), reactor.after_cancel(&context, |_| {}));
            stop();
            assert!(one.stop());
            drop(two);
            reactor.after_cancel(&context, |_| {}).detach();
            drop(reactor);
        });
        assert_eq!(hanging(&context), (0, 0));
    }

    #[test]
    fn a_deadline_ends_a_wait_beside_a_stopped_thread() {
        let sim = Sim::new();
        let root = Context::on_clock(sim.clock());
        let (context, _canceller) = root.with_timeout(Duration::from_secs(1));
        beside_a_stopped_thread(&context, move |context, stop| {
            let reactor = Reactor::with_driver(sim).unwrap();
            let done = reactor.done(&context);
            stop();
            let cause = reactor.recv(&done).unwrap();
            assert_eq!(cause.error(), ContextError::DeadlineExceeded);
        });
    }

    #[test]
    fn a_cancellation_wakes_loops_beside_a_stopped_thread() {
        let (context, canceller) = cancellable();
        beside_a_stopped_thread(&context, move |context, stop| {
            let (child, _child) = context.with_cancel();
            let loops = [context, child].map(|context| {
                let (ready, is_ready) = std::sync::mpsc::channel();
                let thread = std::thread::spawn(move || {
                    let reactor = Reactor::new().unwrap();
                    let done = reactor.done(&context);
                    ready.send(()).unwrap();
                    reactor.recv(&done).unwrap().error()
                });
                is_ready.recv().unwrap();
                thread
            });
            stop();
            assert!(canceller.cancel());
            assert!(!canceller.cancel());
            for each in loops {
                assert_eq!(each.join().unwrap(), ContextError::Cancelled);
            }
        });
    }

    /// The canceller has ended the root and not reached what hangs there.
    #[test]
    fn a_stopped_canceller_delays_only_what_it_has_not_reached() -> io::Result<()> {
        let (root, canceller) = cancellable();
        let (below, cancel_below) = root.with_cancel();
        let (deadline, _) = root.with_timeout(Duration::ZERO);
        let cause = Arc::new(Cause::new(ContextError::Cancelled, None));
        assert!(root.node.as_ref().is_some_and(|node| node.end.set(cause)));

        let reactor = Reactor::new()?;
        assert!(root.err().is_some() && root.cause().is_some());
        assert!(root.with_cancel().0.err().is_some(), "born ended");
        assert!(reactor.recv(&reactor.done(&root)).is_ok());
        let ran = std::rc::Rc::new(Cell::new(false));
        let after = ran.clone();
        reactor.after_cancel(&root, move |_| after.set(true)).detach();
        reactor.try_wait(&mut crate::reactor::Events::with_capacity(1))?;
        assert!(ran.get());
        assert!(!canceller.cancel(), "it is the other's");

        assert_eq!(deadline.err(), Some(ContextError::DeadlineExceeded));
        assert_eq!(below.err(), None, "not reached");
        let done = reactor.done(&below);
        assert!(cancel_below.cancel());
        assert!(reactor.recv(&done).is_ok());
        Ok(())
    }
}

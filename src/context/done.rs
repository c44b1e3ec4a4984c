//! The end of a context as a source.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use super::hook::Hook;
use super::{Cause, Context};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sources::{BeforeSleep, Internals, Source, common};
use crate::wake::{Bell, Probe, Request};

/// The end of a [`Context`], as a source. Made by [`Handle::done`].
///
/// The item is the [`Cause`]. From the end on every `select!` gives it, as with Go's closed
/// channel. (`wait` reports the source until the cause was taken once.)
///
/// ```
/// use pollmux::{Events, Reactor, Source};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (context, canceller) = reactor.context().with_timeout(Duration::from_secs(60));
/// let done = reactor.done(&context).slack(Duration::from_millis(1)).with_key(7);
/// assert!(!done.is_ready() && done.context().deadline().is_some());
/// canceller.cancel();
/// let mut events = Events::new();
/// reactor.wait(&mut events)?;
/// assert!(events.iter().map(|event| event.key()).eq([7]));
/// println!("{}", done.try_take().unwrap());
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the source ends the wait for the context"]
pub struct Done {
    // The bell is dropped before the slot, so that no ring reaches a free slot.
    hook: Hook,
    /// The slot, which a ring makes ready, and which is armed for the deadline.
    slot: Slot,
    /// True if the cause has been taken, and `wait` need not report the source any more.
    over: Cell<bool>,
    /// The number of times that the cause has been taken.
    ends: Cell<u32>,
}

impl Handle {
    /// Returns a root for contexts whose deadlines are on this reactor's clock.
    ///
    /// ```
    /// use pollmux::{context::ContextError, select, Reactor, Sim};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let (context, _canceller) = reactor.context().with_timeout(Duration::from_secs(7 * 86400));
    /// let done = reactor.done(&context);
    /// select! { reactor;
    ///     recv(done) -> cause => assert_eq!(cause.error(), ContextError::DeadlineExceeded),
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn context(&self) -> Context {
        Context::on_clock(self.core.clock.source())
    }

    /// Makes a source of the end of `context`, and arms its deadline, if there is one. Make the
    /// source once, before the loop.
    ///
    /// # Panics
    /// When the context has a deadline on another clock than the reactor's. [`Handle::context`] has
    /// the right clock.
    ///
    /// # Cost
    /// Two allocations, and no syscall.
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
        let hook = Hook::new(context, Bell::new(slot.notify().clone(), slot.number()));
        if !self.is_closed() {
            if context.node.is_some() {
                slot.register_channel(hook.bell.clone());
            }
            if let (Some(limit), false) = (context.limit(), slot.is_ready()) {
                slot.be_exact();
                slot.arm(limit.at);
            }
        }
        Done { hook, slot, over: Cell::new(false), ends: Cell::default() }
    }

    #[track_caller]
    pub(super) fn check_clock(&self, context: &Context) {
        if context.deadline().is_some() {
            let same = self.core.clock.source().is_same(&context.clock);
            assert!(
                same,
                "pollmux: the context's deadline is on another clock than the reactor's: see \
                 Handle::context"
            );
        }
    }
}

impl Done {
    /// The context.
    pub fn context(&self) -> &Context {
        &self.hook.context
    }

    /// Lets the source be up to `slack` late after the deadline, as
    /// [`Timer::slack`](crate::Timer::slack) does. Without slack of its own the source is exact,
    /// also in a reactor with [slack](crate::Builder::slack), because [`Context::err`] is exact.
    pub fn slack(self, slack: Duration) -> Done {
        self.slot.set_slack(slack);
        self
    }
}

common!([] Done, |it| context: it.hook.context, ready: it.is_ready());

impl Source for Done {
    type Item = Cause;

    #[inline]
    fn is_ready(&self) -> bool {
        self.hook.is_ended() || self.slot.is_due()
    }

    fn try_take(&self) -> Option<Cause> {
        if !self.is_ready() {
            return None;
        }
        let node = self.hook.context.node.as_ref()?;
        if !self.over.replace(true) {
            self.hook.settle();
            self.slot.stop();
            self.slot.channel_ended();
            self.slot.count();
        }
        self.slot.end_taken(&self.ends);
        node.cause()
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.hook.bell.ask(Request::Wake);
        Ok(())
    }

    fn after_sleep(&self) {
        self.hook.bell.unask();
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot).without_look()
    }
}

//! The [`Source`] trait, which a `select!` waits for, and the sources of this crate.
//!
//! | source | made by | gives |
//! |---|---|---|
//! | [`Timer`] | [`Handle::after`], [`Handle::at`] | the time it was due at |
//! | [`Ticker`] | [`Handle::every`] | a [`Tick`] |
//! | [`Inbox`] | [`Handle::channel`], [`Handle::register`] | a message, or the end |
//! | [`Outbox`] | [`Handle::register`] | room, in a `send` case |
//! | [`Notified`], [`FnSource`] | [`Handle::notifier`] | `()`, or another crate's messages |
//! | [`Fd`] | [`Handle::fd`] | readiness |
//! | [`Signals`] | [`Handle::signals`] | a [`Signal`] |
//! | [`ChildProcess`] | [`Handle::register`] | the exit status |
//! | [`OsTimer`] | [`Handle::wall_timer`] and others | a time on its own clock |
//! | [`Done`](crate::context::Done) | [`Handle::done`] | the cause of a context's end |
//! | [`never()`] | | nothing, ever |

// The docs of `Handle` have its methods in this order.
mod timer;

mod ticker;

mod callback;
mod child;
mod fd;
mod foreign_inbox;
mod inbox;
mod internals;
#[cfg(all(loom, test))]
mod models;
mod never;
mod notifier;
mod os_timer;
mod outbox;
mod register;
mod signals;

use std::io;
use std::rc::Rc;

pub use self::callback::Callback;
pub use self::child::ChildProcess;
pub use self::fd::Fd;
pub use self::foreign_inbox::ForeignInbox;
pub use self::inbox::Inbox;
#[doc(hidden)]
pub use self::internals::Internals;
pub(crate) use self::internals::{End, common, keyed};
pub use self::never::{Never, never};
pub(crate) use self::notifier::Receives;
pub use self::notifier::{FnSource, Notified, Notifier, NotifyingSender};
pub use self::os_timer::{BootClock, ClockSet, MonotonicClock, OsClock, OsTimer, WallClock};
pub(crate) use self::outbox::Offer;
pub use self::outbox::{Outbox, OutboxPointer, Outgoing, Sending};
pub use self::register::{IntoSource, RegisterError};
pub use self::signals::{Signal, SignalRaiser, Signals};
pub use self::ticker::{MissedTickBehavior, Tick, Ticker, ZeroPeriod};
pub use self::timer::Timer;
pub use crate::reactor::BeforeSleep;

use crate::channel::Glance;
use crate::reactor::Handle;

/// A source of items that a `select!` can wait for.
///
/// All methods run on the reactor's thread. One `select!` turn makes these calls:
/// 1. `is_ready` of every case.
/// 2. If some are ready: `try_take` of one of them. The turn is over when that gives an item.
/// 3. Otherwise `before_sleep` of every case, a `SeqCst` fence, and `is_ready` of every case again.
/// 4. The sleep, if no case is ready. Then `after_sleep` of every case, and the turn begins anew.
///
/// A source of your own asks to be woken in [`before_sleep`](Source::before_sleep): by a deadline,
/// or by staying awake. Or a message to another case wakes the loop.
///
/// ```
/// use pollmux::{select, sources::BeforeSleep, Handle, Reactor, Source, Time};
/// use std::{cell::Cell, io, time::Duration};
///
/// /// Ready at every full second of the reactor's clock.
/// struct FullSeconds(Handle, Cell<Time>);
///
/// impl Source for FullSeconds {
///     type Item = Time;
///     fn is_ready(&self) -> bool {
///         self.0.now() >= self.1.get()
///     }
///     fn try_take(&self) -> Option<Time> {
///         self.is_ready().then(|| self.1.replace(self.1.get() + Duration::from_secs(1)))
///     }
///     fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
///         blocking.wake_at(self.1.get());
///         Ok(())
///     }
/// }
///
/// let reactor = Reactor::with_driver(pollmux::Sim::new())?;
/// let seconds = FullSeconds(reactor.handle(), Cell::new(Time::ZERO));
/// for expected in 0..3 {
///     select! { reactor;
///         recv(seconds) -> t => assert_eq!(t.as_nanos(), expected * 1_000_000_000),
///     }
/// }
/// # io::Result::Ok(())
/// ```
///
/// # A source that keeps the loop busy
/// `is_ready` and `try_take` must agree. A source that is ready and gives nothing keeps the loop
/// awake. So does a source that gives its end in every turn.
///
/// [`SourceInfo::spinning`](crate::reactor::SourceInfo::spinning) and
/// [`Stats::spinning`](crate::reactor::Stats::spinning) report only the sources of this crate,
/// because no other source is registered with the reactor. If a loop is busy and neither names a
/// source, look at your own sources.
///
/// # What later versions may change
/// A source that compiles with this version compiles with every later one that semver calls
/// compatible:
/// - `Item`, [`is_ready`](Self::is_ready) and [`try_take`](Self::try_take) stay the only required
///   items. A new method has a default, with which a source of today stays right.
/// - No method changes its signature, or loses its default. `dyn Source<Item = T>` stays possible.
/// - Two more methods are hidden, for the sources of this crate. They may change in every version:
///   neither call nor implement them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a source that a reactor can wait for",
    label = "not a source",
    note = "the receiver of a channel, `ForeignEvents` or a `Child`: register it first: \
            `reactor.register(rx)?`",
    note = "a socket, a pipe or another file: `reactor.fd(io, Interest::READABLE)?`",
    note = "a point in time or a duration: `reactor.at(t)`, `reactor.after(d)`, \
            `reactor.every(d)?`, or the case `default(d)`",
    note = "a `Context`: `reactor.done(&context)`; a `Result`: unwrap it, or add `?`",
    note = "a sender: register it, and use it in a case `send(outbox, value)`",
    note = "the channel of another crate: `reactor.notifier()` makes a bell for it",
    note = "a future: poll it elsewhere, and send its output through a channel"
)]
pub trait Source {
    /// The value that the pattern of a case is matched with.
    type Item;

    /// Returns true if [`try_take`](Source::try_take) would give an item now.
    fn is_ready(&self) -> bool;

    /// Takes an item. After `None` the turn goes on as if the source had not been ready.
    fn try_take(&self) -> Option<Self::Item>;

    /// Called just before the reactor sleeps. Arrange to be woken: set a
    /// [deadline](BeforeSleep::wake_at), ask to [stay awake](BeforeSleep::stay_awake), or publish a
    /// request to the thread that makes the source ready. Withdraw the request in
    /// [`after_sleep`](Source::after_sleep).
    ///
    /// # Errors
    /// An error ends the `select!` or the wait, which fails with the error. The default never
    /// fails.
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        let _ = blocking;
        Ok(())
    }

    /// Called after the sleep, or after the decision not to sleep. So too if a source or the driver
    /// panics in between.
    fn after_sleep(&self) {}

    /// Returns true if this reactor can wait for the source. For a source of your own the default
    /// returns true.
    #[inline]
    fn belongs_to(&self, handle: &Handle) -> bool {
        self.internals().belongs_to(handle)
    }

    /// [`is_ready`](Source::is_ready) without a read of memory that senders write often.
    #[doc(hidden)]
    #[inline(always)]
    fn glance(&self) -> Glance {
        Glance::sure(self.is_ready())
    }

    /// The facts that the selects ask a source of this crate for.
    #[doc(hidden)]
    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::default()
    }

    /// The address by which a [`Selected`](crate::Selected) knows the source, behind every pointer.
    #[doc(hidden)]
    fn address(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }
}

/// Forwards everything to the source behind a pointer.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<S: Source + ?Sized> Source for $pointer {
            type Item = S::Item;
            #[inline(always)] // also where what it forwards to is large
            fn is_ready(&self) -> bool {
                (**self).is_ready()
            }
            #[inline(always)]
            fn try_take(&self) -> Option<S::Item> {
                (**self).try_take()
            }
            fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
                (**self).before_sleep(blocking)
            }
            fn after_sleep(&self) {
                (**self).after_sleep();
            }
            #[inline(always)]
            fn belongs_to(&self, handle: &Handle) -> bool {
                (**self).belongs_to(handle)
            }
            #[inline(always)]
            fn glance(&self) -> Glance {
                (**self).glance()
            }
            #[inline(always)]
            fn internals(&self) -> Internals<'_> {
                (**self).internals()
            }
            fn address(&self) -> *const () {
                (**self).address()
            }
        }
    )*};
}

forward!(&S, &mut S, Box<S>, Rc<S>);

/// `None` is never ready: Go's nil channel.
impl<S: Source> Source for Option<S> {
    type Item = S::Item;
    #[inline]
    fn is_ready(&self) -> bool {
        self.as_ref().is_some_and(S::is_ready)
    }
    #[inline]
    fn try_take(&self) -> Option<S::Item> {
        self.as_ref()?.try_take()
    }
    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.as_ref().map_or(Ok(()), |source| source.before_sleep(blocking))
    }
    fn after_sleep(&self) {
        if let Some(source) = self {
            source.after_sleep();
        }
    }
    #[inline]
    fn belongs_to(&self, handle: &Handle) -> bool {
        self.as_ref().is_none_or(|source| source.belongs_to(handle))
    }
    #[inline(always)]
    fn glance(&self) -> Glance {
        self.as_ref().map_or(Glance::default(), S::glance)
    }
    #[inline]
    fn internals(&self) -> Internals<'_> {
        let absent = || Internals::default().without_look();
        self.as_ref().map_or_else(absent, S::internals)
    }
    fn address(&self) -> *const () {
        self.as_ref().map_or(std::ptr::from_ref(self).cast(), S::address)
    }
}

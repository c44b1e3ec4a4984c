//! A single-threaded reactor on epoll and kqueue: it waits for **channels, timers, tickers and fds
//! in one `select!`**, and re-arms timers without allocating and without a syscall.
//!
//! ```
//! use pollmux::{Reactor, channel, select};
//! use std::time::Duration;
//!
//! let reactor = Reactor::new()?;
//! let (events, inbox) = channel::bounded::<u32>(64); // the sender goes to any thread
//! let inbox = reactor.register(inbox)?;
//! let heartbeat = reactor.every(Duration::from_millis(20))?;
//! std::thread::spawn(move || (1..=3).for_each(|n| events.send(n).unwrap()));
//!
//! loop {
//!     select! { reactor;
//!         recv(inbox) -> event => match event {
//!             Ok(event) => {
//!                 println!("event {event}");
//!                 heartbeat.restart(); // the next beat is 20 ms from now
//!             }
//!             Err(_) => break, // every sender is gone
//!         },
//!         recv(heartbeat) -> tick => {
//!             println!("heartbeat, due {:?}, {} missed", tick.scheduled, tick.missed);
//!         }
//!     }
//! }
//! # std::io::Result::Ok(())
//! ```
//!
//! # Layers
//! Each imports only from those below it; a test sees to that.
//!
//! | module | what it is |
//! |---|---|
//! | [`select!`], [`Select`] | the macro, and the set made at run time; both pick fairly |
//! | [`Context`] | cancellation, causes and deadlines in a tree; [`Handle::done`] waits for one |
//! | [`SimWorld`], [`sim`] | reactors in one virtual time, with links that delay and lose |
//! | [`Source`]: timers | [`Timer`], [`Ticker`], [`OsTimer`]; and [`Callback`]s |
//! | [`Source`]: channels | [`Inbox`], [`Outbox`], [`Notified`] |
//! | [`Source`]: the system | [`Fd`], [`Signals`], [`ChildProcess`] |
//! | [`Source`]: others | [`never()`], `Option`s, your own |
//! | [`channel`] | bounded, unbounded and rendezvous channels; sends into a buffer are lock-free |
//! | [`Reactor`], [`Handle`] | timer queue, ready list, [`Handle::wait`], [`Handle::sources`] |
//! | [`Remote`], [`Reactor::embed`] | requests from other threads; the reactor in another loop |
//! | [`Driver`] | [`Native`], [`Sim`] (virtual time), `MioDriver`, `PollingDriver`, or your own |
//! | [`sys`] | epoll or kqueue, timers, signals, processes, clocks: every syscall |
//!
//! # Features
//! None is on by default; each adds the dependency of its name.
//!
//! | feature | what it adds |
//! |---|---|
//! | `mio` | `MioDriver`, a driver on a `mio::Poll`; [`Embedded`] is a `mio::event::Source` |
//! | `polling` | `PollingDriver`, a driver on a `polling::Poller` |
//!
//! # Guarantees
//! - A timer is never early. `stop()` and `reset()` leave no stale value behind. A dropped timer is
//!   gone.
//! - After warm-up (the same number of timers and messages was reached once) nothing allocates in
//!   `reset`, `stop`, `restart`, [`select!`], [`Handle::wait`], `send` and `recv`.
//! - A reset to a later time and a turn that finds something make no syscall. [`Handle::stats`]
//!   counts all there are.
//! - No wake-up is lost, and each sleep costs one at the most.

pub mod channel;
mod context;
mod driver;
mod reactor;
mod select;
pub mod sim;
mod sources;
mod sync;
pub mod sys;
mod wake;

pub use crate::context::{AfterCancel, CancelGuard, Canceller, Cause, Context, ContextError, Done};
#[cfg(feature = "mio")]
pub use crate::driver::MioDriver;
#[cfg(feature = "polling")]
pub use crate::driver::PollingDriver;
pub use crate::driver::{
    Clock, Deadline, Driver, DriverEvents, DriverQueue, EventsId, Native, ReadyFds, Sim, Syscalls,
    VirtualClock, Wait, Wake,
};
pub use crate::reactor::{
    Builder, Embedded, Event, Events, EventsIter, Firing, Handle, PostError, Reactor, Remote,
    SourceInfo, SourceKind, SourceOrigin, Sources, Spin, Stats, TimerError, TimerId, TryPostError,
};
pub use crate::select::{Select, Selected};
pub use crate::sim::{
    Deadlock, Link, LinkStats, Member, MemberDriver, SimWorld, WaitingMember, WorldHandle,
    WorldStats,
};
pub use crate::sources::{
    Attached, Blocking, BootClock, Callback, ChildProcess, ClockSet, DriverInbox, Fd, Foreign,
    Inbox, MissedTickBehavior, MonotonicClock, Never, Notified, Notifier, OsClock, OsTimer, Outbox,
    Outgoing, Register, RegisterError, Signal, Signals, Source, Tick, Ticker, Timer, WallClock,
    ZeroPeriod, never,
};
pub use crate::sys::Time;

#[doc(hidden)]
pub use crate::select::private as __private;

/// The README's example, which must run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// A panic that is caught leaves nothing of these half done: each call completes or takes back what
/// it began.
mod unwind {
    use std::panic::{RefUnwindSafe, UnwindSafe};

    use crate::channel::{IntoIter, Iter, Permit, Receiver, Sender, TryIter};
    use crate::*;

    macro_rules! unwind_safe {
        ($([$($bounds:tt)*] $type:ty,)*) => {$(
            impl<$($bounds)*> UnwindSafe for $type {}
            impl<$($bounds)*> RefUnwindSafe for $type {}
        )*};
    }

    unwind_safe! {
        [T] Sender<T>,
        [T] Receiver<T>,
        [T] Iter<'_, T>,
        [T] TryIter<'_, T>,
        [T] IntoIter<T>,
        [T] Permit<'_, T>,
        [T] Inbox<T>,
        [T] Outbox<T>,
        [] Notifier,
        [] Notified,
        [] Remote,
        [] Context,
        [] Canceller,
        [] CancelGuard,
        [] Cause,
        [] Done,
        [] AfterCancel,
        [] Reactor,
        [] Handle,
        [] Embedded,
        [] Timer,
        [] Ticker,
        [] Callback,
        [C: OsClock] OsTimer<C>,
        [] Signals,
        [] Select<'_>,
        [] Events,
        [] Sim,
        [] SimWorld,
        [] WorldHandle,
        [R] Member<R>,
        [T] Link<T>,
    }
}

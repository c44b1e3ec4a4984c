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
//! # Where to find it
//!
//! | task | items |
//! |---|---|
//! | make a loop | [`Reactor::new`], [`select!`]; [`Builder`] for its settings |
//! | wait for many sources, or a changing set | [`Handle::wait`], [`Events`], [`Key`]; [`Select`] |
//! | do something later or again and again | [`Timer`], [`Ticker`], [`Callback`], [`OsTimer`] |
//! | talk to other threads | [`channel`], [`Inbox`], [`Outbox`], [`Remote`], [`Notifier`] |
//! | wait for the system | [`Fd`], [`Signals`], [`ChildProcess`] |
//! | stop a piece of work, or many | [`Context`], [`Handle::done`] |
//! | test a loop in virtual time | [`Sim`], [`SimWorld`], [`sim`] |
//! | run inside another loop | [`Reactor::embed`], [`Embedded`] |
//! | wait through another poller | [`driver`] |
//! | write a source | [`Source`], [`sources`] |
//! | find a leak, count syscalls | [`Handle::sources`], [`Handle::stats`], [`reactor`] |
//! | measure the system alone | [`sys`] |
//!
//! # Features
//! None is on by default; each adds the dependency of its name.
//!
//! | feature | what it adds |
//! |---|---|
//! | `mio` | `driver::MioDriver`, on a `mio::Poll`; [`Embedded`] is a `mio::event::Source` |
//! | `polling` | `driver::PollingDriver`, on a `polling::Poller` |
//!
//! # Guarantees
//! - A timer is never early. `stop()` and `reset()` leave no stale value behind. A dropped timer is
//!   gone.
//! - After warm-up (the same number of timers and messages was reached once) nothing allocates in
//!   `reset`, `stop`, `restart`, [`select!`], [`Handle::wait`], `send` and `recv`.
//! - A reset to a later time and a turn that finds something make no syscall. [`Handle::stats`]
//!   counts all there are.
//! - No wake-up is lost, and each sleep costs one at the most.
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(epoll, kqueue, linux, apple, flat))))]

/// Implements `Debug` or `Display` by one expression:
/// `impl_fmt!(Display, [T] SendError<T>, |it, f| f.write_str(it.text()))`.
macro_rules! impl_fmt {
    ($trait:ident, [$($params:tt)*] $type:ty, |$it:pat_param, $f:ident| $body:expr) => {
        impl<$($params)*> std::fmt::$trait for $type {
            fn fmt(&self, $f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $it = self;
                $body
            }
        }
    };
}

/// Implements `Debug` by some values of a type, which are not all that it has:
/// `impl_debug!([T] Link<T>, |it| from: it.from(), to: it.to())`.
macro_rules! impl_debug {
    (
        [$($params:tt)*] $name:ident $(<$($arg:tt),+>)?,
        |$it:ident| $($field:ident: $value:expr),+ $(,)?
    ) => {
        impl_fmt!(Debug, [$($params)*] $name $(<$($arg),+>)?, |$it, f| f
            .debug_struct(stringify!($name))
            $(.field(stringify!($field), &$value))+
            .finish_non_exhaustive());
    };
}

pub mod channel;
pub mod context;
pub mod driver;
pub mod reactor;
mod select;
pub mod sim;
pub mod sources;
mod sync;
pub mod sys;
mod wake;

#[doc(inline)]
pub use crate::context::{Canceller, Context};
#[doc(inline)]
pub use crate::reactor::{
    Builder, CallbackContext, Embedded, Event, Events, Handle, Key, Priority, Reactor, Remote,
};
pub use crate::select::{Select, Selected};
#[doc(inline)]
pub use crate::sim::{Sim, SimWorld};
#[doc(inline)]
pub use crate::sources::{
    Callback, ChildProcess, Fd, Inbox, MissedTickBehavior, Notified, Notifier, OsTimer, Outbox,
    Signal, Signals, Source, Tick, Ticker, Timer, never,
};
#[doc(inline)]
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
    use std::os::fd::AsFd;
    use std::panic::{RefUnwindSafe, UnwindSafe};

    use crate::channel::{Receiver, Sender};
    use crate::context::{AfterCancel, Cause, Done};
    use crate::driver::{Native, foreign};
    use crate::reactor::BeforeSleep;
    use crate::sim::Link;
    use crate::sources::{FnSource, ForeignInbox, OsClock, Receives, RegisterError, SignalRaiser};
    use crate::*;

    macro_rules! unwind_safe {
        ($([$($bounds:tt)*] $type:ty,)*) => {$(
            impl<$($bounds)*> UnwindSafe for $type {}
            impl<$($bounds)*> RefUnwindSafe for $type {}
        )*};
    }

    unwind_safe! {
        [T] Sender<T>, [T] Receiver<T>, [T] Inbox<T>, [T] Outbox<T>,
        [] Notifier, [] Notified, [] Timer, [] Ticker, [] Callback, [C: OsClock] OsTimer<C>,
        [] Signals, [] SignalRaiser, [] ChildProcess, [E] ForeignInbox<E>, [S] RegisterError<S>,
        [] Select<'_>, [] Selected<'_>, [] Context, [] Cause, [] Done, [] AfterCancel,
        [] Handle, [] Remote, [] Events, [] BeforeSleep<'_>,
        [] Native, [E] foreign::Queue<E>, [E] foreign::Events<E>, [] sys::SignalSet,
        [] Sim, [T] Link<T>,
    }

    #[cfg(feature = "polling")]
    unwind_safe! { [] crate::driver::PollingDriver, }

    // These hold a value of the user's.
    impl<T: AsFd + UnwindSafe> UnwindSafe for Fd<T> {}
    impl<T: AsFd + RefUnwindSafe> RefUnwindSafe for Fd<T> {}
    impl<F: Receives + UnwindSafe> UnwindSafe for FnSource<F> {}
    impl<F: Receives + RefUnwindSafe> RefUnwindSafe for FnSource<F> {}
}

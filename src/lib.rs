//! A single-threaded reactor on epoll and kqueue. It waits for **channels, timers, tickers and fds
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
//! # Tasks
//!
//! | task | items | guide |
//! |---|---|---|
//! | make a loop | [`Reactor::new`], [`select!`] | [a first loop] |
//! | wait for thousands of sources | [`Handle::wait`], [`Key`], [`Select`] | [ways to wait] |
//! | reset a heartbeat | [`Ticker::restart`] | [timers](guide::timers#reset-a-heartbeat) |
//! | put a timeout off | [`Timer::reset`] | [timers] |
//! | call a closure later | [`Handle::call_after`] | [timers] |
//! | get messages from other threads | [`Handle::channel`], [`Inbox`] | [channels] |
//! | send from a loop, push back | [`Outbox`] | [a full channel] |
//! | reach the loop without a message | [`Remote`], [`Notifier`] | [channels] |
//! | a TCP server with idle timeouts | [`Fd`], [`Handle::fd_nonblocking`] | [a TCP server] |
//! | end on Ctrl-C, run programs | [`Signals`], [`ChildProcess`] | [signals and children] |
//! | stop much work at once | [`Context`], [`Handle::done`] | [cancellation] |
//! | test a retry in virtual time | [`Sim`] | [virtual time] |
//! | test several loops and a network | [`SimWorld`] | [virtual time] |
//! | run inside tokio, mio, calloop, GLib | [`Reactor::embed`] | [embedding] |
//! | wait through another poller | [`driver::Driver`] | [drivers] |
//! | write a source | [`Source`] | |
//! | find a leak or a busy loop | [`Handle::sources`], [`Handle::stats`] | [finding faults] |
//! | fewer wake-ups, or less lateness | [`Builder`] | [costs and settings] |
//! | timers on the time of day | [`Handle::wall_timer`], [`OsTimer`] | [timers] |
//! | measure the system alone | [`sys`] | |
//!
//! [a first loop]: guide::first_loop
//! [ways to wait]: guide::waiting
//! [timers]: guide::timers
//! [channels]: guide::channels
//! [a full channel]: guide::channels#a-full-channel
//! [a TCP server]: guide::tcp_server
//! [signals and children]: guide::signals_and_children
//! [cancellation]: guide::cancellation
//! [virtual time]: guide::virtual_time
//! [embedding]: guide::embedding
//! [drivers]: guide::drivers
//! [finding faults]: guide::finding_faults
//! [costs and settings]: guide::costs
//!
//! Coming from [Go](guide::from_go), [crossbeam-channel](guide::from_crossbeam),
//! [tokio](guide::from_tokio), [calloop](guide::from_calloop) or [mio](guide::from_mio)? The
//! [guide] has a page for each.
//!
//! # Guarantees
//! - A timer is never early. `stop()` and `reset()` leave no stale value behind. A dropped timer is
//!   gone.
//! - After warm-up (the same number of timers and messages was reached once) nothing allocates in
//!   `reset`, `stop`, `restart`, [`select!`], [`Handle::wait`], `send` and `recv`.
//! - A reset to a later time and a turn that finds something make no syscall. [`Handle::stats`]
//!   counts all syscalls of the reactor.
//! - No wake-up is lost. A sleep costs at most one wake-up.
//!
//! # Features
//! None is on by default. Each adds the dependency of its name.
//!
//! | feature | what it adds |
//! |---|---|
//! | `mio` | `driver::MioDriver`, on a `mio::Poll`; [`Embedded`] is a `mio::event::Source` |
//! | `polling` | `driver::PollingDriver`, on a `polling::Poller` |
//!
//! # Platforms
//! Linux and Android by epoll. FreeBSD, macOS, NetBSD, OpenBSD and DragonFly by kqueue, 64-bit. The
//! API is the same. The tests run on Linux, on both backends; for the other systems only the types
//! are checked. There is no Windows. Rust 1.85 or later.
//!
//! # Licence
//! MIT or Apache-2.0, as you like.

// One form for all docs: `# Errors`, `# Panics`, `# Cost`, in this order.
#![deny(clippy::missing_errors_doc)]
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

// The docs of `Handle` have its methods in this order.
pub mod sources;

mod select;

pub mod reactor;

pub mod channel;
pub mod context;
pub mod driver;
#[cfg(any(doc, doctest))] // documentation only
pub mod guide;
pub mod sim;
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

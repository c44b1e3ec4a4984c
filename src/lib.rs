//! A single-threaded reactor on epoll and kqueue: it waits for **channels, timers and tickers in one `select!`**, and re-arms timers
//! without allocating and without a syscall.
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
//!         recv(heartbeat) -> tick => println!("heartbeat, due {:?}, {} missed", tick.scheduled, tick.missed),
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
//! | [`select!`], [`Select`] | the macro and the set made at run time; picking fairly among what is ready |
//! | [`Source`] and its implementations | [`Timer`], [`Ticker`], [`Inbox`], [`Outbox`], [`Notified`], [`never()`], `Option`s, your own |
//! | [`channel`] | bounded, unbounded and rendezvous channels; sends into a buffer are lock-free |
//! | [`Reactor`], [`Handle`] | timer queue, ready list, wake protocol, [`Handle::wait`], [`Reactor::embed`] |
//! | [`Driver`] | [`Native`], [`Sim`] (virtual time), or your own |
//! | [`sys`] | epoll, timerfd and eventfd, or kqueue; clocks: every syscall |
//!
//! # Guarantees
//! - A timer is never early. `stop()` and `reset()` leave no stale value behind. A dropped timer is gone.
//! - After warm-up (the same number of timers and messages was reached once) nothing allocates in `reset`, `stop`, `restart`,
//!   [`select!`], [`Handle::wait`], `send` and `recv`.
//! - A reset to a later time and a turn that finds something make no syscall. [`Handle::stats`] counts all there are.
//! - No wake-up is lost, and each sleep costs one at the most.

pub mod channel;
mod driver;
mod reactor;
mod select;
mod sources;
mod sync;
pub mod sys;

pub use crate::driver::{Clock, Driver, Native, Sim, Syscalls, VirtualClock, Wait, Wake};
pub use crate::reactor::{Embedded, Event, Events, EventsIter, Handle, Reactor, Stats};
pub use crate::select::{Select, Selected};
pub use crate::sources::{
    Attached, Blocking, Foreign, Inbox, Never, Notified, Notifier, Outbox, Outgoing, Register, RegisterError,
    Source, Tick, Ticker, Timer, ZeroPeriod, never,
};
pub use crate::sys::Time;

#[doc(hidden)]
pub use crate::select::private as __private;

/// The README's example, which must run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

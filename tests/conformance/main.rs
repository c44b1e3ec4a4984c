//! Conformance: the behaviours that crossbeam-channel, std's mpsc and Go test in their own
//! channels, timers and selects, one test each, written anew for this crate. Each names the test it
//! comes from.
//!
//! # Where this crate differs by design
//! - **One receiver a channel.** What needs several on one channel is left out: competing receivers
//!   in the mpmc tests, clones of a receiver, same_channel.rs (a `Sender` says nothing of identity
//!   either), Go's FIFO of waiting receivers. The mpmc tests are here with many senders;
//!   `linearizable`, where every thread has both ends, as "what a send has published is there";
//!   `recv_race` of `after` and `tick` with several cases of one `select!`.
//! - **Errors for Go's panics.** A send after the receiver went gives the value back. There is no
//!   `close`, and so no closing twice, of nil, or of a channel with senders waiting; the last
//!   sender's drop takes its place. A ticker of period zero is the error `ZeroPeriod` (a panic in
//!   Go, always ready in crossbeam). Times below zero cannot be written.
//! - **No zero values.** A `Timer` or `Ticker` always has its reactor, so Go's tests of
//!   uninitialised ones (TestZeroTimerStopPanics, TestZeroTimerResetPanics, TestIssue5745,
//!   TestTickerStopWithDirectInitialization, TestManualTicker) do not compile here. `stop` of a
//!   timer that was never armed is false.
//! - **A timer is no channel.** It has no `len`, `capacity` or `recv_timeout` and is not cloned
//!   (`stress_clone`); their place is taken by `deadline()`, by `select!` with `default` and
//!   `default(timeout)`, and by references. It gives the time it was due at, as Go's does;
//!   crossbeam's tick leaves the grid when it is received late, ours keeps it, as Go's does.
//! - **The value of a send case is evaluated once the case was chosen, or never** (crossbeam's
//!   rule; Go evaluates all of them, in source order).
//! - **Senders that wait for room in a buffer are served in no particular order** (in Go FIFO);
//!   those of a rendezvous in the order they came. Messages are FIFO in both.
//! - **Nothing to peek at, no flavours that upgrade**: std's tests of those are here as far as
//!   another behaviour is in them.
//! - **No garbage collection**: Go's TestTimerGC and TestTickerGC are here as "a dropped timer
//!   frees its slot".
//! - What std's and crossbeam's suites repeat for another message type, another capacity, or for
//!   std's sync and async channels, is here once.
#![cfg(in_repository)]

mod common;

mod after;
mod channels_bounded;
mod channels_unbounded;
mod context;
mod destruction;
mod flavors;
mod go_sleep;
mod go_tick;
mod golang;
mod iter;
mod mpsc;
mod never;
mod ready;
mod rendezvous;
mod select_macro;
mod select_recv;
mod select_send;
mod support;
mod thread_locals;
mod tick;

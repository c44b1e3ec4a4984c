//! Conformance tests: the behaviours that crossbeam-channel, std's mpsc and Go test in their own
//! channels, timers and selects. Each behaviour has one test, written anew for this crate. Each
//! test names its origin.
//!
//! # Differences by design
//!
//! - **One receiver a channel.** Behaviours that need several receivers on one channel are left
//!   out. These are the competing receivers in the mpmc tests, clones of a receiver, and Go's FIFO
//!   of waiting receivers. The tests of same_channel.rs are left out, because a `Sender` does not
//!   compare channels either. The mpmc tests run with many senders. `linearizable` gives every
//!   thread both ends; here the receiver sees each completed send. `recv_race` of `after` and
//!   `tick` has several cases of one `select!`.
//! - **Errors for Go's panics.** A send after the receiver's drop returns the value. There is no
//!   `close`; the drop of the last sender takes its place. So no test closes a channel twice, a nil
//!   channel, or a channel with blocked senders. A ticker of period zero is the error `ZeroPeriod`
//!   (a panic in Go, always ready in crossbeam). Negative times do not compile.
//! - **No zero values.** A `Timer` or `Ticker` always has its reactor. Go's tests of uninitialised
//!   timers do not compile here (TestZeroTimerStopPanics, TestZeroTimerResetPanics, TestIssue5745,
//!   TestTickerStopWithDirectInitialization, TestManualTicker). `stop` of a timer that was never
//!   armed returns false.
//! - **A timer is no channel.** A timer has no `len`, `capacity` or `recv_timeout` and is not
//!   cloned (`stress_clone`). The tests use `deadline()`, `select!` with `default` and
//!   `default(timeout)`, and references instead. A timer gives its deadline, as Go's timer does.
//!   crossbeam's tick leaves the grid when a tick is received late. Ours keeps the grid, as Go's
//!   does.
//! - **A send case evaluates its value only after the case was chosen** (crossbeam's rule). Go
//!   evaluates all values, in source order.
//! - **Senders that wait for room in a buffer are served in no particular order** (in Go FIFO).
//!   Rendezvous senders are served in the order of their arrival. Messages are FIFO in both.
//! - **No peeking, no upgrade of flavours.** Of std's tests of these features, only the other
//!   behaviours in them are here.
//! - **No garbage collection.** Go's TestTimerGC and TestTickerGC are here as "a dropped timer
//!   frees its slot".
//! - std's and crossbeam's suites repeat tests for other message types, other capacities, and std's
//!   sync and async channels. Here each behaviour has one test.
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

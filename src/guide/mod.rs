//! The guide: one page a task, each with examples that run.
//!
//! Read [a first loop](first_loop) first. The other pages stand alone.
//!
//! | page | question |
//! |---|---|
//! | [A first loop](first_loop) | How do I write a loop? |
//! | [Ways to wait](waiting) | `select!`, `wait`, `Select` or callbacks: which one do I take? |
//! | [Timers and tickers](timers) | How do I reset a heartbeat, or put a timeout off? |
//! | [Channels](channels) | How do other threads talk to the loop? |
//! | [A TCP server](tcp_server) | How do I close idle connections, and push back? |
//! | [Signals and children](signals_and_children) | How do I end on Ctrl-C, and run programs? |
//! | [Cancellation](cancellation) | How do I stop much work at once? |
//! | [Testing in virtual time](virtual_time) | How do I test a retry in a millisecond? |
//! | [Embedding](embedding) | How do I run the reactor inside another loop? |
//! | [Drivers of your own](drivers) | How does the reactor wait through another poller? |
//! | [Finding faults](finding_faults) | Who leaks timers, and why is the loop busy? |
//! | [Costs and settings](costs) | What does a call cost, and which setting helps? |
//!
//! Coming from another world: [Go](from_go), [crossbeam-channel](from_crossbeam),
//! [tokio](from_tokio), [calloop](from_calloop), [mio](from_mio).

// The pages name the items of the crate as its users do.
use crate::*;

#[doc = include_str!("first_loop.md")]
pub mod first_loop {}

#[doc = include_str!("waiting.md")]
pub mod waiting {}

#[doc = include_str!("timers.md")]
pub mod timers {}

#[doc = include_str!("channels.md")]
pub mod channels {}

#[doc = include_str!("tcp_server.md")]
pub mod tcp_server {}

#[doc = include_str!("signals_and_children.md")]
pub mod signals_and_children {}

#[doc = include_str!("cancellation.md")]
pub mod cancellation {}

#[doc = include_str!("virtual_time.md")]
pub mod virtual_time {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("drivers.md")]
pub mod drivers {}

#[doc = include_str!("finding_faults.md")]
pub mod finding_faults {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("from_go.md")]
pub mod from_go {}

#[doc = include_str!("from_crossbeam.md")]
pub mod from_crossbeam {}

#[doc = include_str!("from_tokio.md")]
pub mod from_tokio {}

#[doc = include_str!("from_calloop.md")]
pub mod from_calloop {}

#[doc = include_str!("from_mio.md")]
pub mod from_mio {}

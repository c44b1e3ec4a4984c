//! What the tests of pollmux share: a process of its own for a test, watchdogs, virtual time,
//! drivers that follow a script, a counting allocator, CPU time, a storm of signals.

#![allow(missing_debug_implementations, missing_docs)]

pub mod cpu;
pub mod storm;
pub mod time;
pub mod warm;
pub mod watch;

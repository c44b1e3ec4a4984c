//! What the tests of pollmux share: a process of its own for a test, watchdogs, virtual time,
//! drivers that follow a script, a counting allocator, CPU time, a storm of signals.

#![allow(missing_debug_implementations, missing_docs)]

pub mod cpu;
pub mod storm;
pub mod time;
pub mod warm;
pub mod watch;

/// `n` rounds of a race, times `POLLMUX_ROUNDS` if that is set: more of them find rarer faults.
pub fn rounds(n: u64) -> u64 {
    let times =
        std::env::var("POLLMUX_ROUNDS").map(|times| times.parse::<u64>().expect("a number"));
    n * times.unwrap_or(1)
}

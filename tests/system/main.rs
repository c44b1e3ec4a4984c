//! Tests beyond one thread: processes, signals, clocks, stopped threads.
#![cfg(in_repository)]

mod child;
mod clocks;
mod faults;
mod fork;
mod signals;
mod stalls;
mod strace;

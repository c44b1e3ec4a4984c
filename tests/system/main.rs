//! What reaches beyond the thread of a test: processes, signals, clocks, stopped threads.
#![cfg(in_repository)]

mod child;
mod clocks;
mod faults;
mod fork;
mod signals;
mod stalls;
mod strace;

//! What reaches beyond the thread of a test: processes, signals, clocks, stopped threads.

mod child;
mod clocks;
mod fork;
mod interrupted;
mod signals;
mod stalls;
mod strace;

//! Tests of the public types: one module for each type or promise.
#![cfg(in_repository)]

mod allocations;
mod bounded;
mod callbacks;
mod channels;
mod context;
mod due;
mod dynamic;
mod embed;
mod errors;
mod fd_io;
mod fds;
mod guards;
mod lifecycle;
mod manual_signals;
mod notifier;
mod os_timer;
mod permits;
mod poller;
mod promises;
mod regressions;
mod remote;
mod room;
mod scale;
mod select;
mod sim;
mod slack;
mod sources_list;
mod spin;
mod tickers;
mod timer_table;
mod timers;
mod traits;
mod wait;
mod wakers;

//! Helpers for the tests of pollmux.
//!
//! Tests get child processes, watchdogs, virtual time, threads beside a test, a counting allocator
//! and a storm of signals. Drivers may have scripts, hooks or faults. Values count their drops.

use std::any::Any;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod alloc;
mod aside;
mod cpu;
mod driver;
mod drops;
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod faults;
pub mod faulty;
mod fds;
mod hooks;
mod process;
mod random;
mod sections;
pub mod storm;
pub mod thread;
mod time;

pub use alloc::{allocates_nothing, allocations, bytes, frees};
pub use aside::{Aside, aside, later};
pub use cpu::{thread_cpu_time, timed};
pub use driver::{
    CountedWakes, Counting, Script, refusing_fds, scripted, scripted_reactor, with_counted_wakes,
    without_fds,
};
pub use drops::{Counted, Drops, OnDrop};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub use faults::{Fault, Faults};
pub use faulty::{build, build_on, exact, on, reactor};
#[cfg(target_os = "linux")]
pub use fds::pidfd;
pub use fds::{allow_fds, set_fd_limit, set_nonblocking};
pub use hooks::{Hooked, Hooks, OnWait, Waiting, on_wait};
pub use process::{
    Watchdog, again, close, no_new_processes, run_alone, spawn, test_name, watchdog,
};
pub use random::Random;
pub use sections::sections;
pub use storm::Storm;
pub use time::{
    Bell, HOUR, at, keys, ms, ready_keys, secs, simulated, simulated_from, sleep, sometimes, turn,
    wait_keys, wait_keys_for,
};

/// Returns the number in an environment variable, or `default` if the variable is not set.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Multiplies the rounds of a race by `POLLMUX_ROUNDS`, if that is set. More rounds find rarer
/// faults.
pub fn rounds(n: u64) -> u64 {
    n * setting("POLLMUX_ROUNDS", 1)
}

/// Returns the text of a caught panic.
pub fn text(cause: Box<dyn Any + Send>) -> String {
    match cause.downcast::<String>() {
        Ok(text) => *text,
        Err(cause) => cause.downcast_ref::<&str>().map_or("?".into(), |text| text.to_string()),
    }
}

/// Returns the text of the panic of `f`.
#[track_caller]
pub fn panic_text<R>(f: impl FnOnce() -> R) -> String {
    let Err(cause) = catch_unwind(AssertUnwindSafe(f)) else { panic!("no panic") };
    text(cause)
}

/// Runs `f`, which must panic with `text`.
#[track_caller]
pub fn panics_with(text: &str, f: impl FnOnce()) {
    assert_eq!(panic_text(f), text);
}

/// Returns two connected non-blocking sockets.
pub fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

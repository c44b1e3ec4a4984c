//! The thin OS layer. All syscalls and clocks of the crate are in this module, with the same types
//! and methods on every system.
//!
//! | type | epoll | kqueue | use |
//! |---|---|---|---|
//! | [`Poller`] | epoll | kqueue | waits for many fds at once, and can be waited for itself |
//! | [`PollerTimer`] | timerfd | `EVFILT_TIMER` | one deadline of a poller |
//! | [`Waker`] | eventfd | `EVFILT_USER`, or a pipe | wakes a `Poller` from another thread |
//! | [`TimerFd`] | timerfd | a kqueue of its own | one deadline as an fd, on any [`TimerClock`] |
//! | [`ProcessFd`] | pidfd | a kqueue of its own | the end of a process as an fd |
//! | [`SignalSet`] | a handler and an eventfd | a handler and a pipe | signals as an fd |
//! | [`PollEvents`], [`PollEvent`] | `epoll_event` | `kevent` | the findings of a wait |
//! | [`Interest`], [`Mode`] | flags | filters and flags | the events to wait for, and how often |
//! | [`Readiness`] | flags | filters and flags | the events that were found |
//!
//! The contract of both backends:
//! - Every fd is close-on-exec. A failed creation leaks nothing.
//! - One method is one syscall, except where its docs say otherwise. Nothing here allocates after
//!   construction and registration.
//! - `Poller::wait` fails with [`Interrupted`](std::io::ErrorKind::Interrupted) and never restarts
//!   a wait. Any other call that is interrupted is made again, 16 times at most.
//! - An fd is in a poller once: with one id, in one mode, and at most one event a wait.
//! - A `PollerTimer` and a `Waker` belong to the poller that they are made with. They need no read,
//!   and a new `arm` or `wake` is a new event.
//! - A change takes effect at once, also for a present wait of another thread.
//!
//! A child made by `fork` shares its parent's pollers, timers and wakers on epoll. On kqueue it has
//! none: each call fails with an error that names the fork, and a drop closes nothing. (A
//! [`Reactor`](crate::Reactor) is inert in a forked child on both.)
#![allow(unsafe_code)]

use std::io;

#[cfg(epoll)]
mod epoll;
#[cfg(kqueue)]
mod kqueue;

#[cfg(epoll)]
use self::epoll as backend;
#[cfg(kqueue)]
use self::kqueue as backend;

pub(crate) mod blocking;
pub(crate) mod closing;
pub(crate) mod errors;
pub(crate) mod fence;
pub(crate) mod fork;
mod instant;
mod interest;
#[cfg(any(kqueue, test))]
#[cfg_attr(not(kqueue), allow(dead_code))] // tested everywhere
mod kevent;
mod poller;
mod process;
mod signal;
mod time;
mod timer;
pub(crate) mod tsc;
mod waker;

use self::interest::Watch;
pub use self::interest::{Interest, Mode, Readiness};
pub use self::poller::{PollEvent, PollEvents, Poller};
pub use self::process::ProcessFd;
pub use self::signal::SignalSet;
pub use self::time::{BootTime, PointInTime, Time};
pub use self::timer::{Expiry, PollerTimer, TimerClock, TimerFd};
pub use self::waker::Waker;

pub(crate) use self::poller::TimeoutSlack;
pub(crate) use self::process::{is_no_child, is_no_process, is_unwaited, try_wait};
pub(crate) use self::signal::names as signals;
pub(crate) use self::time::{coarse_now, coarse_resolution, nanos};

/// Implements `Debug` for a type that is an fd: `Poller { fd: 3 }`.
macro_rules! shows_fd {
    ($type:ident) => {
        impl_fmt!(Debug, [] $type, |it, f| {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&it.as_fd());
            f.debug_struct(stringify!($type)).field("fd", &fd).finish()
        });
    };
}
use shows_fd;

/// Implements `AsFd` for a type by the field that has the fd.
macro_rules! has_fd {
    ($type:ident, $($field:tt).+) => {
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.$($field).+.as_fd()
            }
        }
    };
}
use has_fd;

/// Makes loom models: tests whose bodies run in every interleaving of their threads.
#[cfg(all(loom, test))]
macro_rules! models {
    ($($(#[$doc:meta])* fn $name:ident() $body:block)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() {
            loom::model(|| $body);
        }
    )*};
}
#[cfg(all(loom, test))]
pub(crate) use models;

/// The number of interrupted attempts in a row that is an error. A kernel only interrupts waits,
/// but a filter of syscalls may interrupt every attempt.
const INTERRUPTIONS: u32 = 16;

/// Calls `f`, and repeats an interrupted call up to [`INTERRUPTIONS`] times. A signal handler may
/// call this.
#[inline]
fn uninterrupted<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut left = INTERRUPTIONS;
    loop {
        match f() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && left > 0 => left -= 1,
            done => return done,
        }
    }
}

/// Makes the system call of this name, and repeats an interrupted call. An error that the kernel
/// itself does not have names the call.
#[inline]
fn call(name: &str, mut f: impl FnMut() -> libc::c_int) -> io::Result<libc::c_int> {
    uninterrupted(|| check(f())).map_err(|error| errors::of_call(error, name))
}

/// Returns the result of a libc call, or its error if the call returned -1.
#[inline]
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

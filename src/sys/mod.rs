//! The thin OS layer: everything in the crate that is a syscall or a clock is in this module, with the same types and methods on every system.
//!
//! | type | epoll | kqueue | what it is |
//! |---|---|---|---|
//! | [`Poller`] | epoll | kqueue | waits for many fds at once, and can be waited for itself |
//! | [`OsTimer`] | timerfd | `EVFILT_TIMER` | one deadline of a poller |
//! | [`Waker`] | eventfd | `EVFILT_USER`, or a pipe | wakes a `Poller` from another thread |
//! | [`Events`], [`Event`] | `epoll_event` | `kevent` | what a wait found |
//! | [`Interest`], [`Mode`] | flags | filters and flags | what to wait for, and how often to be told |
//!
//! The contract of a backend, kept by each that is chosen below:
//! - Every fd is close-on-exec; a failed creation leaks nothing.
//! - One method is one syscall, except where its docs say so. Nothing here allocates after construction and registration.
//! - `Poller::wait` says [`Interrupted`](std::io::ErrorKind::Interrupted) and never restarts a wait.
//! - An fd is in a poller once: with one id, in one mode, and at most one event a wait.
//! - An `OsTimer` and a `Waker` belong to the poller that they are made with, need no read, and a new `arm` or `wake` is a new event.
//! - A change takes effect at once, also for a wait that is under way in another thread.
#![allow(unsafe_code)]

pub(crate) mod fence;
mod time;
pub(crate) mod tsc;

#[cfg(epoll)]
mod epoll;
#[cfg(epoll)]
mod eventfd;
#[cfg(epoll)]
mod timerfd;

#[cfg(any(kqueue, test))]
#[cfg_attr(not(kqueue), allow(dead_code))] // tested everywhere
mod kevent;
#[cfg(kqueue)]
mod kqueue;

#[cfg(kqueue)]
pub use self::kqueue::{Event, Events, OsTimer, Poller, Waker};
#[cfg(epoll)]
pub use self::{
    epoll::{Event, Events, Poller},
    eventfd::Waker,
    timerfd::OsTimer,
};

pub use self::time::Time;
pub(crate) use self::time::{coarse_now, coarse_resolution, nanos};

/// What to wait for on an fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing but errors and hang-ups, which always count.
    pub const NONE: Interest = Interest(0);
    /// Something to read, or the end of it.
    pub const READABLE: Interest = Interest(1);
    /// Room to write.
    pub const WRITABLE: Interest = Interest(2);
    /// Either.
    pub const BOTH: Interest = Interest(3);

    /// Whether this includes [`Interest::READABLE`].
    pub const fn is_readable(self) -> bool {
        self.0 & Self::READABLE.0 != 0
    }

    /// Whether this includes [`Interest::WRITABLE`].
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE.0 != 0
    }
}

/// How often an fd that is ready is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Once for every change.
    Edge,
    /// By every wait, while it stays ready.
    Level,
    /// Once, until it is modified.
    OneShot,
}

/// The result of a libc call that says -1 for an error.
#[inline]
fn check(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// A duration as the kernel takes it; what does not fit saturates.
#[inline]
fn timespec(d: std::time::Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(d.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: d.subsec_nanos() as _,
    }
}

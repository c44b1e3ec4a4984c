//! The thin OS layer: everything in the crate that is a syscall or a clock is in this module, with the same types and methods on every system.
//!
//! | type | epoll | what it is |
//! |---|---|---|
//! | [`Poller`] | epoll | waits for many fds at once, and can be waited for itself |
//! | [`OsTimer`] | timerfd | one deadline as an fd, ns-exact |
//! | [`Waker`] | eventfd | wakes a `Poller` from another thread |
//! | [`Events`], [`Event`] | `epoll_event` | what a wait found |
//! | [`Interest`], [`Mode`] | flags | what to wait for, and how often to be told |
//!
//! The contract of a backend, kept by each file that is chosen below:
//! - Every fd is close-on-exec; a failed creation leaks nothing.
//! - One method is one syscall, except where its docs say so. Nothing here allocates after construction.
//! - `Poller::wait` says [`Interrupted`](std::io::ErrorKind::Interrupted) and never restarts a wait.
//! - An `OsTimer` and a `Waker` registered with [`Mode::Edge`] need no read, and a new `arm` or `wake` is a new event.
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

#[cfg(epoll)]
pub use self::{
    epoll::{Event, Events, Poller},
    eventfd::Waker,
    timerfd::OsTimer,
};

#[cfg(not(epoll))]
compile_error!("pollmux runs on Linux and Android; build.rs has the list");

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

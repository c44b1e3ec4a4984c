//! The thin OS layer: everything in the crate that is a syscall or a clock is in this module, with
//! the same types and methods on every system.
//!
//! | type | epoll | kqueue | what it is |
//! |---|---|---|---|
//! | [`Poller`] | epoll | kqueue | waits for many fds at once, and can be waited for itself |
//! | [`PollerTimer`] | timerfd | `EVFILT_TIMER` | one deadline of a poller |
//! | [`Waker`] | eventfd | `EVFILT_USER`, or a pipe | wakes a `Poller` from another thread |
//! | [`TimerFd`] | timerfd | a kqueue of its own | one deadline as an fd, on any [`OsClock`] |
//! | [`ProcessFd`] | pidfd | a kqueue of its own | the end of a process as an fd |
//! | [`SignalSet`] | a handler and an eventfd | a handler and a pipe | signals as an fd |
//! | [`PollEvents`], [`PollEvent`] | `epoll_event` | `kevent` | what a wait found |
//! | [`Interest`], [`Mode`] | flags | filters and flags | the events to wait for, and how often |
//! | [`Readiness`] | flags | filters and flags | the events that were found |
//!
//! The contract of a backend, kept by each that is chosen below:
//! - Every fd is close-on-exec; a failed creation leaks nothing.
//! - One method is one syscall, except where its docs say so. Nothing here allocates after
//!   construction and registration.
//! - `Poller::wait` says [`Interrupted`](std::io::ErrorKind::Interrupted) and never restarts a
//!   wait.
//! - An fd is in a poller once: with one id, in one mode, and at most one event a wait.
//! - An `PollerTimer` and a `Waker` belong to the poller that they are made with, need no read, and a
//!   new `arm` or `wake` is a new event.
//! - A change takes effect at once, also for a wait that is under way in another thread.
//!
//! A child made by `fork` has its parent's pollers, timers and wakers on epoll, where both
//! processes use the same kernel objects. On kqueue it has none: each call fails with an error that
//! names the fork, and a drop closes nothing. (A [`Reactor`](crate::Reactor) is inert in a forked
//! child on both.)
#![allow(unsafe_code)]

use std::ops::{BitAnd, BitOr};

pub(crate) mod blocking;
pub(crate) mod closing;
pub(crate) mod errors;
pub(crate) mod fence;
pub(crate) mod fork;
#[cfg(any(feature = "mio", feature = "polling"))]
pub(crate) mod others;
mod time;
pub(crate) mod tsc;

#[cfg(epoll)]
mod epoll;
#[cfg(epoll)]
mod eventfd;
#[cfg(epoll)]
mod pidfd;
mod process;
mod signal;
#[cfg(epoll)]
mod timerfd;
#[cfg(epoll)]
mod timespec;

#[cfg(any(kqueue, test))]
#[cfg_attr(not(kqueue), allow(dead_code))] // tested everywhere
mod kevent;
#[cfg(kqueue)]
mod kqueue;

#[cfg(kqueue)]
pub use self::kqueue::{
    Event as PollEvent, Events as PollEvents, OsTimer as PollerTimer, Poller, ProcessFd, TimerFd,
    Waker,
};
#[cfg(epoll)]
pub use self::{
    epoll::{Event as PollEvent, Events as PollEvents, Poller},
    eventfd::Waker,
    pidfd::ProcessFd,
    timerfd::{OsTimer as PollerTimer, TimerFd},
};

#[cfg(epoll)]
pub(crate) use self::epoll::TimeoutSlack;
#[cfg(epoll)]
use self::eventfd::Flag;
#[cfg(kqueue)]
use self::kqueue::Flag;
#[cfg(kqueue)]
pub(crate) use self::kqueue::TimeoutSlack;

pub(crate) use self::process::{is_no_child, is_unwaited};
pub use self::signal::SignalSet;
pub use self::time::{BootTime, Time};
pub(crate) use self::time::{coarse_now, coarse_resolution, nanos};

/// The clock of a [`TimerFd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OsClock {
    /// `CLOCK_MONOTONIC`: stands still while the machine is suspended.
    Monotonic,
    /// `CLOCK_BOOTTIME`: counts suspend.
    Boottime,
    /// `CLOCK_REALTIME`: the time of day, which may be set.
    Wall,
}

/// What [`TimerFd::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing has happened since the last read.
    Pending,
    /// The deadline has passed.
    Expired,
    /// Somebody has set the clock, which only Linux tells. The kernel forgets an expiry when it
    /// tells so: arm again.
    ClockSet,
}

/// What to wait for on an fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Nothing but errors and hang-ups, which always count on epoll. In edge and one-shot mode the
    /// end of the peer's input counts as well. A kqueue tells nothing of a file without interest.
    pub const NONE: Interest = Interest(0);
    /// Something to read, or the end of it.
    pub const READABLE: Interest = Interest(1);
    /// Room to write.
    pub const WRITABLE: Interest = Interest(2);
    /// Either.
    pub const BOTH: Interest = Interest(3);
    /// Out-of-band data, or whatever else the file calls urgent. Linux only: elsewhere a
    /// registration with it fails with `Unsupported`.
    pub const PRIORITY: Interest = Interest(4);

    /// Whether this includes [`Interest::READABLE`].
    pub const fn is_readable(self) -> bool {
        self.0 & Self::READABLE.0 != 0
    }

    /// Whether this includes [`Interest::WRITABLE`].
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE.0 != 0
    }

    /// Whether this includes [`Interest::PRIORITY`].
    pub const fn is_priority(self) -> bool {
        self.0 & Self::PRIORITY.0 != 0
    }

    /// Whether all of `other` is in this.
    pub const fn contains(self, other: Interest) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this is one thing, not several or none.
    pub(crate) const fn is_single(self) -> bool {
        self.0.count_ones() == 1
    }

    /// This and `other`.
    pub const fn and(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl BitOr for Interest {
    type Output = Interest;
    fn bitor(self, other: Interest) -> Interest {
        self.and(other)
    }
}

/// What an fd was found to be ready for: a set.
///
/// ```
/// use pollmux::sys::Readiness;
///
/// let ready = Readiness::READABLE | Readiness::READ_CLOSED;
/// assert!(ready.is_readable() && ready.is_read_closed() && !ready.is_writable());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Readiness = Readiness(0);
    /// Data to read, or the end of it, or an error to be fetched.
    pub const READABLE: Readiness = Readiness(1);
    /// Room to write, or an error to be fetched.
    pub const WRITABLE: Readiness = Readiness(2);
    /// Urgent data.
    pub const PRIORITY: Readiness = Readiness(4);
    /// Nothing will come: the peer closed its writing half, or everything.
    pub const READ_CLOSED: Readiness = Readiness(8);
    /// Nothing can be sent any more: both halves are closed.
    pub const WRITE_CLOSED: Readiness = Readiness(16);
    /// The file has an error to be fetched.
    pub const ERROR: Readiness = Readiness(32);
    /// Everything.
    pub const ALL: Readiness = Readiness(63);

    /// Whether a read would not block.
    pub const fn is_readable(self) -> bool {
        self.0 & Self::READABLE.0 != 0
    }

    /// Whether a write would not block.
    pub const fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE.0 != 0
    }

    /// Whether there is urgent data.
    pub const fn is_priority(self) -> bool {
        self.0 & Self::PRIORITY.0 != 0
    }

    /// Whether the peer will send nothing more. What it has sent may still be there to read.
    pub const fn is_read_closed(self) -> bool {
        self.0 & Self::READ_CLOSED.0 != 0
    }

    /// Whether nothing can be sent any more.
    pub const fn is_write_closed(self) -> bool {
        self.0 & Self::WRITE_CLOSED.0 != 0
    }

    /// Whether the peer closed its writing half, or the whole connection.
    pub(crate) const fn is_hang_up(self) -> bool {
        self.is_read_closed() || self.is_write_closed()
    }

    /// Whether there is an error to be fetched.
    pub const fn is_error(self) -> bool {
        self.0 & Self::ERROR.0 != 0
    }

    /// Whether this is the empty set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in this.
    pub const fn contains(self, other: Readiness) -> bool {
        self.0 & other.0 == other.0
    }

    /// This and `other`.
    pub(crate) const fn and(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }

    /// What is in this but not in `other`.
    pub const fn without(self, other: Readiness) -> Readiness {
        Readiness(self.0 & !other.0)
    }
}

impl BitOr for Readiness {
    type Output = Readiness;
    fn bitor(self, other: Readiness) -> Readiness {
        Readiness(self.0 | other.0)
    }
}

impl BitAnd for Readiness {
    type Output = Readiness;
    fn bitand(self, other: Readiness) -> Readiness {
        Readiness(self.0 & other.0)
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Readiness::READABLE, "readable"),
            (Readiness::WRITABLE, "writable"),
            (Readiness::PRIORITY, "priority"),
            (Readiness::READ_CLOSED, "read closed"),
            (Readiness::WRITE_CLOSED, "write closed"),
            (Readiness::ERROR, "error"),
        ];
        let set = names.iter().filter(|(one, _)| self.contains(*one)).map(|(_, name)| *name);
        write!(f, "Readiness({})", set.collect::<Vec<_>>().join(" | "))
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

/// Numbers of signals, which differ between systems, and their names.
pub(crate) mod signals {
    pub(crate) use libc::{
        SIGALRM as ALARM, SIGCHLD as CHILD, SIGHUP as HANGUP, SIGINT as INTERRUPT, SIGPIPE as PIPE,
        SIGQUIT as QUIT, SIGTERM as TERMINATE, SIGUSR1 as USER1, SIGUSR2 as USER2,
        SIGWINCH as WINDOW_CHANGE,
    };

    /// The name of a signal that programs wait for.
    pub(crate) fn name(signal: i32) -> Option<&'static str> {
        Some(match signal {
            HANGUP => "SIGHUP",
            INTERRUPT => "SIGINT",
            QUIT => "SIGQUIT",
            TERMINATE => "SIGTERM",
            USER1 => "SIGUSR1",
            USER2 => "SIGUSR2",
            CHILD => "SIGCHLD",
            ALARM => "SIGALRM",
            WINDOW_CHANGE => "SIGWINCH",
            PIPE => "SIGPIPE",
            _ => return None,
        })
    }
}

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_place;
#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as errno_place;
#[cfg(any(apple, target_os = "freebsd"))]
use libc::__error as errno_place;

/// The calling thread's `errno`, for a signal handler to leave as it was.
fn errno() -> libc::c_int {
    // SAFETY: the place is the thread's own and always there.
    unsafe { *errno_place() }
}

fn set_errno(errno: libc::c_int) {
    // SAFETY: as above.
    unsafe { *errno_place() = errno };
}

/// Returns true if the kernel lacks a call (`ENOSYS`), or a sandbox forbids it (`EPERM`).
#[cfg(epoll)]
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// The greatest number of seconds that is sure to fit into a `libc::timespec`.
const LAST_SECOND: u64 =
    if size_of::<libc::timespec>() < 16 { i32::MAX as u64 } else { i64::MAX as u64 };

/// A duration as libc takes it; what does not fit saturates. Raw syscalls take a `Timespec`
/// instead.
#[inline]
fn timespec(d: std::time::Duration) -> libc::timespec {
    let mut spec = no_time();
    // The types of the two differ, and on musl the name of the first one is deprecated.
    (spec.tv_sec, spec.tv_nsec) = (d.as_secs().min(LAST_SECOND) as _, d.subsec_nanos() as _);
    spec
}

/// A `timespec` of zero. On some systems it has padding, and no literal makes one.
#[inline]
fn no_time() -> libc::timespec {
    // SAFETY: a timespec is numbers, for all of which zero is a value.
    unsafe { std::mem::zeroed() }
}

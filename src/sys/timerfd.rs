//! The kernel timer on Linux: a timerfd, one-shot and absolute.
//!
//! Quirks handled here:
//! - `it_value = 0` disarms, even with `TFD_TIMER_ABSTIME`: a deadline of zero is armed as 1 ns.
//! - Registered edge-triggered, a one-shot expiry needs no `read`: each `settime` gives at most one event, and setting it again takes a
//!   pending unread expiry away. (A *periodic* timerfd re-arms only in `read`; there is none here.)
//! - A deadline in the past is delivered by an interrupt of its own, so a look right after `arm` may miss it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{Interest, Mode, Poller, Time, check};

/// A kernel timer: a timerfd on `CLOCK_MONOTONIC` here.
///
/// It belongs to one [`Poller`], where each expiry is an event under its id that needs no reading.
///
/// ```
/// use pollmux::{Time, sys::{Events, OsTimer, Poller}};
/// use std::time::Duration;
///
/// let poller = Poller::new()?;
/// let timer = OsTimer::new(&poller, 1)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut Events::with_capacity(4), None)?;
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct OsTimer {
    fd: OwnedFd,
}

impl OsTimer {
    /// Creates a disarmed timer of `poller` that is reported under `id`. Two syscalls; fails with the system's error, for instance `EMFILE`.
    pub fn new(poller: &Poller, id: u64) -> io::Result<OsTimer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        poller.register(&fd, id, Interest::READABLE, Mode::Edge)?;
        Ok(OsTimer { fd })
    }

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes away an expiry nobody saw. One syscall.
    ///
    /// [`Time::MAX`] disarms. To arm and then wait, [`Poller::arm_and_wait`] is cheaper where one syscall can do both.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        let value = match deadline {
            Time::MAX => Duration::ZERO,
            deadline => deadline.max(Time::from_nanos(1)) - Time::ZERO,
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: super::timespec(value) };
        // SAFETY: the fd is open, `spec` is valid for the length of the call, and a null old value is allowed.
        check(unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut())
        })?;
        Ok(())
    }

    /// Takes the deadline, or an expiry nobody saw, away. One syscall.
    pub fn disarm(&self) -> io::Result<()> {
        self.arm(Time::MAX)
    }
}

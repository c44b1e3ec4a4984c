//! The kernel timer on Linux: a timerfd, one-shot and absolute.
//!
//! Quirks handled here:
//! - `it_value = 0` disarms, even with `TFD_TIMER_ABSTIME`: a deadline of zero is armed as 1 ns.
//! - Registered edge-triggered, a one-shot expiry needs no `read`: each `settime` gives at most one event, and setting it again takes a
//!   pending unread expiry away. (A *periodic* timerfd re-arms only in `read`; there is none here.)
//! - On the wall clock (`TFD_TIMER_CANCEL_ON_SET`) a jump of the clock is an event, too, and `read` says `ECANCELED` then; it drops an expiry that was
//!   there. `settime` may say `ECANCELED` as well, *after* having armed.
//! - A deadline in the past is delivered by an interrupt of its own, so a look right after `arm` may miss it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{OsClock, Time, check};

/// A kernel timer that is an fd: a timerfd here.
///
/// Register it edge-triggered with a [`Poller`](super::Poller). It need not be read, except on the wall clock.
///
/// ```
/// use pollmux::{Time, sys::{Events, Interest, Mode, OsTimer, Poller}};
/// use std::time::Duration;
///
/// let (poller, timer) = (Poller::new()?, OsTimer::new()?);
/// poller.register(&timer, 1, Interest::READABLE, Mode::Edge)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut Events::with_capacity(4), None)?;
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct OsTimer {
    fd: OwnedFd,
    flags: libc::c_int,
}

/// What [`OsTimer::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing has happened since the last read.
    Pending,
    /// The deadline has passed.
    Expired,
    /// Somebody has set the clock. The kernel forgets an expiry when it tells so: arm again.
    ClockSet,
}

impl OsTimer {
    /// A disarmed timer on `CLOCK_MONOTONIC` (non-blocking, close-on-exec). One syscall; fails with the system's error, for instance `EMFILE`.
    pub fn new() -> io::Result<OsTimer> {
        OsTimer::on(OsClock::Monotonic)
    }

    /// A disarmed timer on some clock. One syscall; fails as [`new`](Self::new) does, and with [`io::ErrorKind::Unsupported`] where the system has no such timers.
    pub fn on(clock: OsClock) -> io::Result<OsTimer> {
        let (clock, flags) = match clock {
            OsClock::Monotonic => (libc::CLOCK_MONOTONIC, libc::TFD_TIMER_ABSTIME),
            OsClock::Boottime => (libc::CLOCK_BOOTTIME, libc::TFD_TIMER_ABSTIME),
            OsClock::Wall => (libc::CLOCK_REALTIME, libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET),
        };
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(OsTimer { fd: unsafe { OwnedFd::from_raw_fd(fd) }, flags })
    }

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes away an expiry nobody saw. One syscall.
    ///
    /// `deadline` counts from the origin of the timer's own clock: for the wall clock from 1970. [`Time::MAX`] disarms.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        let value = match deadline {
            Time::MAX => Duration::ZERO,
            deadline => deadline.max(Time::from_nanos(1)) - Time::ZERO,
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: super::timespec(value) };
        // SAFETY: the fd is open, `spec` is valid for the length of the call, and a null old value is allowed.
        let armed = check(unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), self.flags, &spec, std::ptr::null_mut())
        });
        match armed {
            // The clock has been set since the last call, which says so only after it has armed.
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
            armed => armed.map(drop),
        }
    }

    /// Takes the deadline, or an expiry nobody saw, away. One syscall.
    pub fn disarm(&self) -> io::Result<()> {
        self.arm(Time::MAX)
    }

    /// Says what has happened since the last read, or the last arming. One syscall. Only the wall clock needs it: an edge-triggered event of another clock is an expiry.
    pub fn read(&self) -> io::Result<Expiry> {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is valid for its 8 bytes.
        let read = unsafe {
            libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast::<libc::c_void>(), count.len())
        };
        if read > 0 {
            return Ok(Expiry::Expired);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(Expiry::Pending),
            Some(libc::ECANCELED) => Ok(Expiry::ClockSet),
            _ => Err(error),
        }
    }
}

impl AsFd for OsTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

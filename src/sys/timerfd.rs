//! Kernel timers on Linux: a timerfd, one-shot and absolute; as an fd of its own, or as that of a
//! poller.
//!
//! Quirks handled here:
//! - `it_value = 0` disarms, even with `TFD_TIMER_ABSTIME`: a deadline of zero is armed as 1 ns.
//! - Registered edge-triggered, a one-shot expiry needs no `read`: each `settime` gives at most one
//!   event, and setting it again takes a pending unread expiry away. (A *periodic* timerfd re-arms
//!   only in `read`; there is none here.)
//! - On the wall clock (`TFD_TIMER_CANCEL_ON_SET`) a jump of the clock is an event, too, and `read`
//!   says `ECANCELED` then; it drops an expiry that was there. `settime` may say `ECANCELED` as
//!   well, *after* having armed.
//! - No signal interrupts `settime`, but a filter of syscalls may say `EINTR`: it has *not* armed.
//! - A deadline in the past is delivered by an interrupt of its own, so a look right after `arm`
//!   may miss it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::errors::of_creation;
use super::timespec::timerfd_settime;
use super::{Expiry, Interest, Mode, OsClock, Poller, Time, check};

/// Attempts to arm that may be interrupted, one after the other, before that is an error.
const INTERRUPTIONS: u32 = 16;

/// What an error calls a timer.
const KERNEL_TIMER: &str = "a kernel timer";

/// A kernel timer on `CLOCK_MONOTONIC`: a timerfd here.
///
/// It belongs to one [`Poller`], where each expiry is an event under its id that needs no reading.
///
/// ```
/// use pollmux::{Time, sys::{PollEvents, PollerTimer, Poller}};
/// use std::time::Duration;
///
/// let poller = Poller::new()?;
/// let timer = PollerTimer::new(&poller, 1)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut PollEvents::with_capacity(4), None)?;
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct OsTimer {
    timer: TimerFd,
}

impl OsTimer {
    /// Creates a disarmed timer of `poller` that is reported under `id`. Two syscalls. Fails as
    /// [`Poller::new`] does.
    pub fn new(poller: &Poller, id: u64) -> io::Result<OsTimer> {
        let timer = TimerFd::new(OsClock::Monotonic)?;
        let registered = poller.register(&timer, id, Interest::READABLE, Mode::Edge);
        registered.map_err(|error| of_creation(error, KERNEL_TIMER))?;
        Ok(OsTimer { timer })
    }

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes
    /// away an expiry nobody saw. One syscall.
    ///
    /// [`Time::MAX`] disarms. To arm and then wait, [`Poller::arm_and_wait`] is cheaper where one
    /// syscall can do both.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        self.timer.arm(deadline)
    }

    /// Takes the deadline, or an expiry nobody saw, away. One syscall.
    pub fn disarm(&self) -> io::Result<()> {
        self.timer.disarm()
    }
}

/// A kernel timer that is an fd, on any [`OsClock`]: a timerfd here.
///
/// Register it edge-triggered with a [`Poller`], and [`read`](Self::read) it when there is an
/// event.
///
/// ```
/// use pollmux::{Time, sys::{PollEvents, Expiry, Interest, Mode, OsClock, Poller, TimerFd}};
/// use std::time::Duration;
///
/// let (poller, timer) = (Poller::new()?, TimerFd::new(OsClock::Monotonic)?);
/// poller.register(&timer, 1, Interest::READABLE, Mode::Edge)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut PollEvents::with_capacity(4), None)?;
/// assert_eq!(timer.read()?, Expiry::Expired);
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct TimerFd {
    fd: OwnedFd,
    flags: libc::c_int,
}

impl TimerFd {
    /// A disarmed timer (close-on-exec). One syscall. Fails as [`Poller::new`] does, and with
    /// [`io::ErrorKind::Unsupported`] where the system has no timers on `clock`.
    pub fn new(clock: OsClock) -> io::Result<TimerFd> {
        let (clock, flags) = match clock {
            OsClock::Monotonic => (libc::CLOCK_MONOTONIC, libc::TFD_TIMER_ABSTIME),
            OsClock::Boottime => (libc::CLOCK_BOOTTIME, libc::TFD_TIMER_ABSTIME),
            OsClock::Wall => {
                (libc::CLOCK_REALTIME, libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET)
            }
        };
        // SAFETY: the call takes no pointers.
        let fd =
            check(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
                .map_err(|error| of_creation(error, KERNEL_TIMER))?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(TimerFd { fd: unsafe { OwnedFd::from_raw_fd(fd) }, flags })
    }

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes
    /// away an expiry nobody saw. One syscall.
    ///
    /// `deadline` counts from the origin of the timer's own clock: for the wall clock from 1970.
    /// [`Time::MAX`] disarms.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        let value = match deadline {
            Time::MAX => Duration::ZERO,
            deadline => deadline.max(Time::from_nanos(1)) - Time::ZERO,
        };
        match timerfd_settime(self.fd.as_fd(), self.flags, value) {
            Err(error) => self.arm_again(value, error),
            Ok(()) => Ok(()),
        }
    }

    /// After an attempt to arm has failed.
    #[cold]
    fn arm_again(&self, value: Duration, mut error: io::Error) -> io::Result<()> {
        for _ in 0..INTERRUPTIONS {
            match error.raw_os_error() {
                // The clock has been set since the last call, which says so only after it has
                // armed.
                Some(libc::ECANCELED) => return Ok(()),
                Some(libc::EINTR) => {}
                _ => break,
            }
            match timerfd_settime(self.fd.as_fd(), self.flags, value) {
                Ok(()) => return Ok(()),
                Err(next) => error = next,
            }
        }
        if error.raw_os_error() == Some(libc::EINTR) {
            // Of another kind than an interrupted wait, which has armed.
            let text = "timerfd_settime was interrupted again and again: the timer is not armed";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        Err(error)
    }

    /// Takes the deadline, or an expiry nobody saw, away. One syscall.
    pub fn disarm(&self) -> io::Result<()> {
        self.arm(Time::MAX)
    }

    /// Whether an event of this timer says everything, so that it need not be read: here on all
    /// clocks but the wall clock.
    pub(crate) fn needs_no_read(&self) -> bool {
        self.flags & libc::TFD_TIMER_CANCEL_ON_SET == 0
    }

    /// Says what has happened since the last read, or the last arming. One syscall.
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

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

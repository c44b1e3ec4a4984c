//! Kernel timers on Linux: a one-shot, absolute timerfd, as an fd of its own or as the timer of a
//! poller.
//!
//! Quirks handled here:
//! - `it_value = 0` disarms, even with `TFD_TIMER_ABSTIME`: a deadline of zero is armed as 1 ns.
//! - An edge-triggered one-shot expiry needs no `read`: each `settime` gives at most one event, and
//!   a new `settime` clears a pending unread expiry. (A *periodic* timerfd re-arms only in `read`.
//!   There is none here.)
//! - On the wall clock (`TFD_TIMER_CANCEL_ON_SET`) a jump of the clock is an event, too. `read`
//!   then gives `ECANCELED`, and drops an expiry that was pending. `settime` may give `ECANCELED`
//!   as well, *after* having armed.
//! - No signal interrupts `settime`, but a filter of syscalls may answer `EINTR`: the timer is
//!   *not* armed then.
//! - A separate interrupt delivers a deadline in the past, so a poll right after `arm` may miss the
//!   expiry.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::super::{Expiry, Time, TimerClock, Watch, call, errors, has_fd, uninterrupted};
use super::Poller;
use super::timespec::timerfd_settime;

#[derive(Debug)]
pub(crate) struct Timer {
    timer: TimerFd,
}

impl Timer {
    pub(crate) fn new(poller: &Poller, id: u64) -> io::Result<Timer> {
        let timer = TimerFd::new(TimerClock::Monotonic)?;
        poller.register(timer.as_fd(), Watch::for_edges(id))?;
        Ok(Timer { timer })
    }

    #[inline(always)] // see Notify::wake
    pub(crate) fn arm(&self, deadline: Time) -> io::Result<()> {
        self.timer.arm(deadline)
    }
}

#[derive(Debug)]
pub(crate) struct TimerFd {
    file: File,
    flags: libc::c_int,
}

impl TimerFd {
    pub(crate) fn new(clock: TimerClock) -> io::Result<TimerFd> {
        let (clock, flags) = match clock {
            TimerClock::Monotonic => (libc::CLOCK_MONOTONIC, libc::TFD_TIMER_ABSTIME),
            TimerClock::Boottime => (libc::CLOCK_BOOTTIME, libc::TFD_TIMER_ABSTIME),
            TimerClock::Wall => {
                (libc::CLOCK_REALTIME, libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET)
            }
        };
        // SAFETY: the call takes no pointers.
        let fd = call("timerfd_create", || unsafe {
            libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
        })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(TimerFd { file: unsafe { OwnedFd::from_raw_fd(fd) }.into(), flags })
    }

    #[inline(always)] // see Notify::wake
    pub(crate) fn arm(&self, deadline: Time) -> io::Result<()> {
        let value = match deadline {
            Time::MAX => Duration::ZERO,
            deadline => deadline.max(Time::from_nanos(1)) - Time::ZERO,
        };
        match timerfd_settime(self.file.as_fd(), self.flags, value) {
            Err(error) => self.arm_again(value, error),
            Ok(()) => Ok(()),
        }
    }

    /// Handles a failed attempt to arm.
    #[cold]
    fn arm_again(&self, value: Duration, first: io::Error) -> io::Result<()> {
        let mut first = Some(first);
        let armed = uninterrupted(|| match first.take() {
            Some(error) => Err(error),
            None => timerfd_settime(self.file.as_fd(), self.flags, value),
        });
        let on_set = self.flags & libc::TFD_TIMER_CANCEL_ON_SET != 0;
        match armed {
            // The clock has been set since the last call. `settime` reports that only after it has
            // armed.
            Err(error) if on_set && error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
            armed => armed.map_err(|error| errors::of_call(error, "timerfd_settime")),
        }
    }

    pub(crate) fn needs_no_read(&self) -> bool {
        self.flags & libc::TFD_TIMER_CANCEL_ON_SET == 0
    }

    pub(crate) fn read(&self) -> io::Result<Expiry> {
        let read = uninterrupted(|| (&self.file).read(&mut [0; 8]));
        let Err(error) = read else { return Ok(Expiry::Expired) };
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(Expiry::Pending),
            Some(libc::ECANCELED) => Ok(Expiry::ClockSet),
            _ => Err(error),
        }
    }
}

has_fd!(TimerFd, file);

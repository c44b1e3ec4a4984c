//! Kernel timers: one of a poller, and one that is an fd.

use std::io;
use std::os::fd::AsFd;

use super::errors::{of_arm, of_creation};
use super::{Poller, Time, backend, has_fd, shows_fd};

/// The clock of a [`TimerFd`], which has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimerClock {
    /// `CLOCK_MONOTONIC`: stands still while the machine is suspended.
    Monotonic,
    /// `CLOCK_BOOTTIME`: counts suspend.
    Boottime,
    /// `CLOCK_REALTIME`: the time of day, which may be set.
    Wall,
}

/// The answer of [`TimerFd::read`]. [`TimerFd`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing has happened since the last read.
    Pending,
    /// The deadline has passed.
    Expired,
    /// The clock was set, which only Linux reports. The kernel then forgets an expiry: arm again.
    ClockSet,
}

fn made<T>(timer: io::Result<T>) -> io::Result<T> {
    timer.map_err(|error| of_creation(error, "a kernel timer"))
}

/// A kernel timer on the clock of [`Time`]: a timerfd, or an `EVFILT_TIMER`.
///
/// A timer belongs to one [`Poller`], where each expiry is an event under its id that needs no
/// reading.
///
/// ```
/// use pollmux::{Time, sys::{PollEvents, Poller, PollerTimer}};
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
#[must_use = "dropping the timer stops it"]
pub struct PollerTimer(pub(super) backend::Timer);

impl PollerTimer {
    /// Creates a disarmed timer of `poller` that is reported under `id`. Two syscalls, none on
    /// kqueue.
    ///
    /// # Errors
    /// The errors of [`Poller::new`].
    pub fn new(poller: &Poller, id: u64) -> io::Result<PollerTimer> {
        made(backend::Timer::new(&poller.kernel, id)).map(PollerTimer)
    }

    /// Arms the timer for `deadline`. A past deadline fires at once, and [`Time::MAX`] disarms. The
    /// call replaces an armed deadline, and takes away an expiry that nobody saw. One syscall.
    ///
    /// To arm and then wait, [`Poller::arm_and_wait`] is cheaper where one syscall can do both.
    ///
    /// # Errors
    /// The system's error.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        self.0.arm(deadline).map_err(of_arm)
    }

    /// Takes the deadline away, or an expiry that nobody saw. One syscall.
    ///
    /// # Errors
    /// The system's error.
    pub fn disarm(&self) -> io::Result<()> {
        self.arm(Time::MAX)
    }
}

/// A kernel timer that is an fd, on any [`TimerClock`] that the system has timers on: a timerfd, or
/// a kqueue with an `EVFILT_TIMER`.
///
/// Register it edge-triggered with a [`Poller`], and [`read`](Self::read) it when there is an
/// event.
///
#[cfg_attr(flat, doc = "```no_run")]
#[cfg_attr(not(flat), doc = "```")]
/// use pollmux::{Time, sys::{Expiry, Interest, Mode, TimerClock, PollEvents, Poller, TimerFd}};
/// use std::time::Duration;
///
/// let (poller, timer) = (Poller::new()?, TimerFd::new(TimerClock::Monotonic)?);
/// poller.register(&timer, 1, Interest::READABLE, Mode::Edge)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut PollEvents::with_capacity(4), None)?;
/// assert_eq!(timer.read()?, Expiry::Expired);
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the timer stops it"]
pub struct TimerFd(backend::TimerFd);

impl TimerFd {
    /// Creates a disarmed timer (close-on-exec). One syscall, two on kqueue.
    ///
    /// # Errors
    /// The errors of [`Poller::new`], and [`io::ErrorKind::Unsupported`] where the system has no
    /// such timers on `clock`.
    pub fn new(clock: TimerClock) -> io::Result<TimerFd> {
        made(backend::TimerFd::new(clock)).map(TimerFd)
    }

    /// Arms the timer for `deadline`. A past deadline fires at once, and [`Time::MAX`] disarms. The
    /// call replaces an armed deadline, and takes away an expiry that nobody saw. One syscall.
    ///
    /// `deadline` counts from the origin of the timer's own clock: for the wall clock from 1970.
    ///
    /// # Errors
    /// The system's error.
    #[inline]
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        self.0.arm(deadline).map_err(of_arm)
    }

    /// Takes the deadline away, or an expiry that nobody saw. One syscall.
    ///
    /// # Errors
    /// The system's error.
    pub fn disarm(&self) -> io::Result<()> {
        self.arm(Time::MAX)
    }

    /// Returns true if an event of this timer needs no read: on epoll, on all clocks but the wall
    /// clock.
    pub(crate) fn needs_no_read(&self) -> bool {
        self.0.needs_no_read()
    }

    /// Returns the event since the last read, or since the last arming. One syscall. On kqueue one
    /// more if the kernel was too early: then the call arms the timer again.
    ///
    /// # Errors
    /// The system's error.
    pub fn read(&self) -> io::Result<Expiry> {
        self.0.read()
    }
}

shows_fd!(TimerFd);
has_fd!(TimerFd, 0);

//! Kernel timers, for clocks other than that of the reactor's queue.
//!
//! A [`Timer`](super::Timer) shares the reactor's one kernel timer and costs no syscall to reset.
//! An [`OsTimer`] is an fd of its own, and each of its calls is a syscall. In return it has a clock
//! of its own. The slot has the found events, and the handle has the armed deadline. A timer that
//! is not armed gets no event. Arming takes away an expiry that the kernel has not delivered, and
//! stopping takes away an expiry that the kernel has delivered.

mod simulated;

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::simulated::Simulated;
use super::{Internals, Source, common};
use crate::driver::{Clock, VirtualClock};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::errors::of_creation;
use crate::sys::{self, BootTime, Expiry, Interest, Mode, Time, nanos};

/// A clock that an [`OsTimer`] can be on: [`MonotonicClock`], [`BootClock`] or [`WallClock`].
///
/// ```
/// use pollmux::sources::{BootClock, MonotonicClock, OsClock, WallClock};
/// use pollmux::OsTimer;
/// use std::time::Duration;
///
/// /// Arms timers on any clock.
/// fn in_a_minute<C: OsClock>(timer: &OsTimer<C>) -> std::io::Result<bool> {
///     timer.reset(Duration::from_secs(60))
/// }
///
/// struct Timers(OsTimer<MonotonicClock>, OsTimer<BootClock>, OsTimer<WallClock>);
/// # let reactor = pollmux::Reactor::with_driver(pollmux::Sim::new())?;
/// # if !pollmux::sys::Poller::NESTS { return Ok(()); } // no such timers on this poller
/// # let timers = Timers(reactor.os_timer()?, reactor.boot_timer()?, reactor.wall_timer()?);
/// # assert!(!in_a_minute(&timers.0)? && !in_a_minute(&timers.1)? && !in_a_minute(&timers.2)?);
/// # assert!(timers.0.stop()? && timers.1.stop()? && timers.2.stop()?);
/// # std::io::Result::Ok(())
/// ```
#[diagnostic::on_unimplemented(
    message = "an `OsTimer` cannot be on the clock `{Self}`",
    label = "no clock of the system",
    note = "the clocks are `MonotonicClock` (`reactor.os_timer()?`), `BootClock` \
            (`reactor.boot_timer()?`) and `WallClock` (`reactor.wall_timer()?`)"
)]
pub trait OsClock: sealed::Clock {}

mod sealed {
    use super::*;

    pub trait Clock: 'static {
        type Time: Copy + fmt::Debug;
        type Item;
        const CLOCK: sys::TimerClock;
        fn now() -> Self::Time;
        /// Returns the time of this clock in virtual time.
        fn virtual_now(clock: &VirtualClock) -> Self::Time;
        fn after(now: Self::Time, d: Duration) -> Self::Time;
        /// Returns the ns since the clock's origin.
        fn nanos(t: Self::Time) -> u64;
        /// Returns the item of a deadline that has come, or of a clock that was set.
        fn item(scheduled: Result<Self::Time, ClockSet>) -> Option<Self::Item>;
    }
}

/// `CLOCK_MONOTONIC`, the clock of all other timers. It stands still while the machine is
/// suspended. [`OsClock`] has an example.
#[derive(Clone, Copy, Debug)]
pub enum MonotonicClock {}

/// `CLOCK_BOOTTIME`, which goes on while the machine is suspended. A timer does not wake the
/// machine. It fires when the machine has woken up. [`OsClock`] has an example.
#[derive(Clone, Copy, Debug)]
pub enum BootClock {}

/// The time of day, which people and daemons set. [`ClockSet`] reports that. [`OsClock`] has an
/// example.
#[derive(Clone, Copy, Debug)]
pub enum WallClock {}

/// The item of a wall timer whose clock was set while it was armed. The timer is still armed for
/// the same time of day. Reset the timer if you meant a span of time.
///
/// [`Sim::set_wall_clock`](crate::Sim::set_wall_clock) has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockSet;

impl_fmt!(Display, [] ClockSet, |_, f| f.write_str("the clock was set"));
impl Error for ClockSet {}

macro_rules! clock {
    ($($name:ident: $time:ident, $clock:expr;)*) => {$(
        impl OsClock for $name {}
        impl sealed::Clock for $name {
            type Time = $time;
            type Item = $time;
            const CLOCK: sys::TimerClock = $clock;
            fn now() -> $time {
                $time::now()
            }
            fn virtual_now(clock: &VirtualClock) -> $time {
                $time::from_nanos(clock.now().as_nanos())
            }
            fn after(now: $time, d: Duration) -> $time {
                now + d
            }
            fn nanos(t: $time) -> u64 {
                t.as_nanos()
            }
            fn item(scheduled: Result<$time, ClockSet>) -> Option<$time> {
                scheduled.ok()
            }
        }
    )*};
}

clock! {
    MonotonicClock: Time, sys::TimerClock::Monotonic;
    BootClock: BootTime, sys::TimerClock::Boottime;
}

impl OsClock for WallClock {}
impl sealed::Clock for WallClock {
    type Time = SystemTime;
    type Item = Result<SystemTime, ClockSet>;
    const CLOCK: sys::TimerClock = sys::TimerClock::Wall;
    fn now() -> SystemTime {
        SystemTime::now()
    }
    fn virtual_now(clock: &VirtualClock) -> SystemTime {
        clock.wall_now()
    }
    fn after(now: SystemTime, d: Duration) -> SystemTime {
        // A sum that a `SystemTime` cannot hold is "never": the latest that the kernel takes.
        now.checked_add(d).unwrap_or(UNIX_EPOCH + Duration::from_nanos(u64::MAX))
    }
    fn nanos(t: SystemTime) -> u64 {
        t.duration_since(UNIX_EPOCH).map_or(0, nanos)
    }
    fn item(scheduled: Result<SystemTime, ClockSet>) -> Option<Self::Item> {
        Some(scheduled)
    }
}

/// A one-shot kernel timer with a clock of its own: a timerfd, or a small kqueue inside the
/// reactor's.
///
/// Made by [`Handle::os_timer`], [`Handle::boot_timer`] and [`Handle::wall_timer`], unarmed. As a
/// [`Source`] it gives the time it was due at, however late the loop receives that. On the wall
/// clock it also gives `Err(`[`ClockSet`]`)`, each time that the clock was set while it was armed.
///
/// As a [`Timer`](super::Timer) it is never early, gives at most one value for each arm, and no
/// stale value after a [`stop`](Self::stop) or a [`reset`](Self::reset). Those two cost one syscall
/// each. For frequent deadlines use a `Timer`.
///
/// A loop that never sleeps finds the timer due up to a
/// [poll interval](crate::Builder::poll_interval) late.
///
/// **In virtual time** the timer is on the reactor's clock, as other timers are, and its calls cost
/// no syscall. Boot time is the same as monotonic time there. The test sets the wall clock by
/// [`Sim::set_wall_clock`](crate::Sim::set_wall_clock), and the code under test reads
/// [`Handle::wall_now`]. The fd of such a timer is never readable.
///
#[cfg_attr(flat, doc = "```no_run")]
#[cfg_attr(not(flat), doc = "```")]
/// use pollmux::{Reactor, select};
/// use std::time::{Duration, SystemTime};
///
/// let reactor = Reactor::new()?;
/// let alarm = reactor.wall_timer()?;
/// alarm.reset_at(SystemTime::now() + Duration::from_millis(5))?;
/// select! { reactor;
///     recv(alarm) -> rings => match rings {
///         Ok(scheduled) => assert!(SystemTime::now() >= scheduled),
///         Err(set) => println!("{set}"),
///     },
/// }
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the timer stops it"]
pub struct OsTimer<C: OsClock = MonotonicClock> {
    timer: sys::TimerFd,
    /// In virtual time the slot is armed, and not the fd.
    simulated: Option<Simulated>,
    slot: Slot,
    /// The deadline that was armed, and not received.
    armed: Cell<Option<C::Time>>,
    /// The clock was set, and the timer could not be armed again.
    lost: Cell<bool>,
    clock: PhantomData<C>,
}

impl Handle {
    /// Makes a kernel timer on `CLOCK_MONOTONIC`, unarmed.
    ///
    /// # Errors
    /// - [`io::ErrorKind::Unsupported`] when the reactor's driver cannot wait for fds, and is not
    ///   in virtual time.
    /// - When the reactor has been dropped.
    /// - The errors of [`Reactor::new`] when fds or memory are short.
    ///
    /// # Cost
    /// Two syscalls, on kqueue three.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// # if !pollmux::sys::Poller::NESTS { return Ok(()); } // no such timer on this poller
    /// let timer = reactor.os_timer()?;
    /// timer.reset(Duration::from_secs(1))?;
    /// assert_eq!(reactor.recv(&timer)?.as_nanos(), 1_000_000_000);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// [`Reactor::new`]: crate::Reactor::new
    #[track_caller]
    pub fn os_timer(&self) -> io::Result<OsTimer> {
        OsTimer::new(self)
    }

    /// Makes a kernel timer that counts the time in which the machine is suspended
    /// (`CLOCK_BOOTTIME`), unarmed. Costs as much as [`os_timer`](Self::os_timer).
    ///
    /// # Errors
    /// The errors of [`os_timer`](Self::os_timer), and [`io::ErrorKind::Unsupported`] where the
    /// system has no such clock.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// # if !pollmux::sys::Poller::NESTS { return Ok(()); } // no such timer on this poller
    /// let lease = reactor.boot_timer()?; // expires during a suspend, too
    /// lease.reset(Duration::from_secs(60))?;
    /// assert!(lease.deadline().is_some());
    /// select! { reactor; recv(lease) -> due => println!("expired at {due:?}") }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn boot_timer(&self) -> io::Result<OsTimer<BootClock>> {
        OsTimer::new(self)
    }

    /// Makes a kernel timer for times of day (`CLOCK_REALTIME`), unarmed. On Linux it also reports
    /// that the clock was set. Costs as much as [`os_timer`](Self::os_timer).
    ///
    /// # Errors
    /// The errors of [`os_timer`](Self::os_timer), and [`io::ErrorKind::Unsupported`] where the
    /// system has no such timer.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// # if !pollmux::sys::Poller::NESTS { return Ok(()); } // no such timer on this poller
    /// let alarm = reactor.wall_timer()?;
    /// alarm.reset_at(reactor.wall_now() + Duration::from_secs(3_600))?;
    /// select! { reactor;
    ///     recv(alarm) -> rings => match rings {
    ///         Ok(scheduled) => assert!(reactor.wall_now() >= scheduled),
    ///         Err(set) => println!("{set}"),
    ///     },
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn wall_timer(&self) -> io::Result<OsTimer<WallClock>> {
        OsTimer::new(self)
    }
}

impl<C: OsClock> OsTimer<C> {
    #[track_caller]
    fn new(handle: &Handle) -> io::Result<OsTimer<C>> {
        if handle.is_closed() {
            return Err(handle.core.gone());
        }
        let clock = handle.core.clock.source();
        // A virtual clock needs no kernel's.
        let simulates = matches!(clock, Clock::Virtual(_));
        let timer =
            sys::TimerFd::new(if simulates { sys::TimerClock::Monotonic } else { C::CLOCK })?;
        let slot = Slot::new(handle, SourceKind::OsTimer);
        let simulated = if let Clock::Virtual(clock) = clock {
            Some(Simulated::new::<C>(clock, handle, &slot))
        } else {
            let registered = slot.register_fd(timer.as_fd(), Interest::READABLE, Mode::Edge);
            registered.map_err(|error| of_creation(error, "a kernel timer"))?;
            None
        };
        Ok(OsTimer {
            timer,
            simulated,
            slot,
            armed: Cell::new(None),
            lost: Cell::new(false),
            clock: PhantomData,
        })
    }

    /// Arms the timer for `d` from now on its clock. Zero is due at once. Returns true if the call
    /// took a pending deadline away, or an expiry that nobody had received. One syscall.
    ///
    /// # Errors
    /// The errors of [`reset_at`](Self::reset_at).
    pub fn reset(&self, d: Duration) -> io::Result<bool> {
        self.reset_at(C::after(self.now(), d))
    }

    /// Arms the timer for `t`. A past time is due at once. Returns as [`reset`](Self::reset) does.
    /// One syscall.
    ///
    /// # Errors
    /// When other code has changed the fd, or a filter of syscalls refuses the call. Then the timer
    /// stays as it was.
    pub fn reset_at(&self, t: impl Into<C::Time>) -> io::Result<bool> {
        let t = t.into();
        self.slot.check_process()?;
        if self.slot.is_inert() {
            self.stop_counting();
            return Ok(false);
        }
        if let Some(simulated) = &self.simulated {
            let was = self.stop_counting();
            self.armed.set(Some(t));
            simulated.arm::<C>(&self.slot, t);
            return Ok(was);
        }
        let due = self.arm(t)?;
        let was = self.stop_counting();
        self.armed.set(Some(t));
        if due {
            self.slot.make_ready();
        }
        Ok(was)
    }

    /// The time on the timer's clock.
    fn now(&self) -> C::Time {
        match &self.simulated {
            Some(simulated) => C::virtual_now(&simulated.clock),
            None => C::now(),
        }
    }

    /// Arms the timer. The kernel gets deadlines in the future only. A deadline that is due makes
    /// the slot ready here, for a turn that does not look at the fd.
    fn arm(&self, t: C::Time) -> io::Result<bool> {
        let due = C::nanos(t) <= C::nanos(C::now());
        self.timer.arm(if due { Time::MAX } else { Time::from_nanos(C::nanos(t)) })?;
        self.slot.expect_fd(self.timer.as_fd())?;
        Ok(due)
    }

    /// Disarms the timer. Returns true if the call took a pending deadline away, or an expiry that
    /// nobody had received. One syscall.
    ///
    /// # Errors
    /// The errors of [`reset_at`](Self::reset_at). Then the timer stays as it was.
    pub fn stop(&self) -> io::Result<bool> {
        self.slot.check_process()?;
        if self.simulated.is_none() {
            self.timer.disarm()?;
        }
        Ok(self.stop_counting())
    }

    fn stop_counting(&self) -> bool {
        self.lost.set(false);
        self.slot.stop();
        if let Some(simulated) = &self.simulated {
            simulated.stop();
        }
        self.armed.take().is_some()
    }

    /// Returns the deadline that is pending, or that has passed and was not received.
    /// [`stop`](Self::stop) would take this deadline away. [`Handle::boot_timer`] has an example.
    pub fn deadline(&self) -> Option<C::Time> {
        self.armed.get()
    }

    /// The meaning of an event of the kernel. (An error counts as the end of the wait: the deadline
    /// is looked at.)
    fn expiry(&self) -> Expiry {
        if self.timer.needs_no_read() {
            Expiry::Expired
        } else {
            self.timer.read().unwrap_or(Expiry::Pending)
        }
    }
}

common!([C: OsClock] OsTimer<C>, |it|
    clock: C::CLOCK,
    deadline: it.deadline(),
    expired: it.is_ready());

impl<C: OsClock> Source for OsTimer<C> {
    type Item = C::Item;

    #[inline]
    fn is_ready(&self) -> bool {
        match &self.simulated {
            None => self.slot.is_ready(),
            Some(simulated) => simulated.is_ready::<C>(&self.slot),
        }
    }

    fn try_take(&self) -> Option<C::Item> {
        if let Some(simulated) = &self.simulated {
            let item = C::item(simulated.try_take::<C>(&self.slot, self.armed.get()?)?)?;
            if !simulated.is_armed() {
                self.armed.set(None);
            }
            return Some(item);
        }
        if !self.slot.is_ready() {
            return None;
        }
        let Some(scheduled) = self.armed.get() else {
            // The driver had found it before it was stopped, and says so afterwards.
            self.slot.stop();
            return None;
        };
        if self.expiry() == Expiry::ClockSet || self.lost.get() {
            // Taken before it is armed again: that may make it ready at once.
            self.slot.try_take();
            let due = self.arm(scheduled);
            self.lost.set(due.is_err());
            // An unarmed timer is told again until it is armed.
            if due.unwrap_or(true) {
                self.slot.make_ready();
            }
            return C::item(Err(ClockSet));
        }
        self.slot.try_take();
        if C::nanos(C::now()) < C::nanos(scheduled) {
            return None; // An event for no reason.
        }
        self.armed.set(None);
        C::item(Ok(scheduled))
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        let internals = Internals::of(&self.slot);
        if self.simulated.is_some() { internals.without_look() } else { internals }
    }
}

impl<C: OsClock> Drop for OsTimer<C> {
    fn drop(&mut self) {
        // Closing the fd would take it out as well, unless a fork holds a copy of it.
        if self.simulated.is_none() {
            let _ = self.slot.deregister_fd(self.timer.as_fd());
        }
    }
}

impl<C: OsClock> AsFd for OsTimer<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

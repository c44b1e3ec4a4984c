//! One-shot timers.

use std::time::Duration;

use super::{Internals, Source, common};
use crate::reactor::{Handle, Slot, SourceKind, TimerId};
use crate::sys::{PointInTime, Time};

/// A one-shot timer, to be reset and stopped as often as you like.
///
/// As a [`Source`] it gives the [`Time`] it was due at, however late that is received. One arm
/// gives at most one value; after [`stop`](Self::stop) or [`reset`](Self::reset) no older value can
/// come, so there is nothing to drain. Never early. Dropping the timer stops it and frees its slot.
/// A timer whose reactor is gone is inert: it never fires, and its calls return false.
///
/// The methods cost: to a later deadline two stores; to an earlier one a move in the heap, and at
/// most one `timerfd_settime` when the loop next blocks. They never allocate once the reactor has
/// held as many timers before. 48 bytes a timer, besides this handle of 16.
///
/// # Suspend, stops and steps of the clock
/// A timer counts on `CLOCK_MONOTONIC` (macOS: `CLOCK_UPTIME_RAW`), as [`Time`] and `Instant` do.
/// - **Suspend.** On Linux and macOS this clock stands still while the machine is suspended. After
///   an hour of suspend a timer fires an hour later than a clock on the wall would say. To count
///   the suspend, use [`boot_timer`](Handle::boot_timer) (Linux). It fires when the machine wakes
///   up, and does not wake the machine. The other systems' clocks are described in their
///   `clock_gettime(2)`.
/// - **A stopped process** (`SIGSTOP`, a debugger, a frozen container). The clock goes on. A timer
///   whose deadline has passed meanwhile is due at once when the process goes on, and gives that
///   deadline.
/// - **A step of the time of day** (`date`, NTP, `settimeofday`) changes no timer. For deadlines by
///   the time of day use [`wall_timer`](Handle::wall_timer), which on Linux also tells that the
///   clock was set. NTP may make this clock faster or slower by 0.05 %.
///
/// A reactor in virtual time ([`Sim`](crate::Sim)) has a clock of its own, to which nothing of this
/// happens.
#[must_use = "dropping the timer stops it"]
pub struct Timer {
    slot: Slot,
}

impl Handle {
    /// A timer that fires `d` from now. Zero is due at once: the next `select!` sees it. A duration
    /// that overflows the clock never fires.
    ///
    /// ```
    /// use pollmux::{Reactor, select};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::new()?;
    /// let (start, d) = (Instant::now(), Duration::from_millis(3));
    /// let timer = reactor.after(d);
    /// select! { reactor; recv(timer) -> due => assert!(reactor.now() >= due) }
    /// assert!(start.elapsed() >= d);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn after(&self, d: Duration) -> Timer {
        let timer = self.timer();
        timer.reset(d);
        timer
    }

    /// A timer that fires at `t`, a [`Time`] or an [`Instant`](std::time::Instant). A past time is
    /// due at once.
    #[track_caller]
    pub fn at(&self, t: impl PointInTime) -> Timer {
        let timer = self.timer();
        timer.reset_at(t);
        timer
    }

    /// A timer that is not armed: it fires after a [`reset`](Timer::reset).
    #[track_caller]
    pub fn timer(&self) -> Timer {
        Timer { slot: Slot::new(self, SourceKind::Timer) }
    }
}

impl Timer {
    /// Arms the timer for `d` from the real now. Returns true when that took a pending deadline or
    /// an expiry nobody had received away.
    #[inline]
    pub fn reset(&self, d: Duration) -> bool {
        self.slot.arm_after(d)
    }

    /// Arms the timer for `t`, a [`Time`] or an [`Instant`](std::time::Instant). Returns as
    /// [`reset`](Self::reset) does.
    ///
    /// Does not read the clock: the cheapest way to postpone a deadline.
    #[inline]
    pub fn reset_at(&self, t: impl PointInTime) -> bool {
        self.slot.arm(t.into())
    }

    /// Disarms the timer. Returns true when that took a pending deadline or an expiry nobody had
    /// received away.
    #[inline]
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// The deadline that is pending, or that has passed and was not received:
    /// [`stop`](Self::stop) would take this deadline away. [`Time::MAX`] is "never".
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// Lets the timer fire late, by `slack` at the most, for the sake of sharing a wake-up with
    /// others: see [`Builder::slack`](crate::Builder::slack), which this replaces for this timer.
    /// Zero is exact.
    pub fn slack(self, slack: Duration) -> Timer {
        self.slot.set_slack(slack);
        self
    }

    /// Names the timer for [`Handle::stop_timer`] and for [`Remote`](crate::Remote) on other
    /// threads.
    pub fn id(&self) -> TimerId {
        self.slot.timer_id(false)
    }
}

common!([] Timer, |it| deadline: it.deadline(), expired: it.is_ready());

impl Source for Timer {
    type Item = Time;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_due()
    }

    #[inline]
    fn try_take(&self) -> Option<Time> {
        self.slot.try_take()
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot).without_look()
    }
}

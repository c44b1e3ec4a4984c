//! One-shot timers.

use std::time::Duration;

use super::{Internals, Source, common};
use crate::reactor::{Handle, Slot, SourceKind, TimerId};
use crate::sys::{PointInTime, Time};

/// A one-shot timer, to be reset and stopped as often as you like.
///
/// As a [`Source`] it gives the [`Time`] it was due at, however late the loop receives that. The
/// timer is never early. One arm gives at most one value. After [`stop`](Self::stop) or
/// [`reset`](Self::reset) no older value can come, so there is nothing to drain.
///
/// Dropping the timer stops it and frees its slot. A timer whose reactor is gone is inert: it never
/// fires, and its calls return false.
///
/// ```
/// use pollmux::{Reactor, Sim, Source, Time, select};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let timer = reactor.after(ms(100)).slack(ms(5)); // up to 5 ms late, to share a wake-up
/// assert!(timer.reset(ms(200))); // a deadline was pending
/// assert!(timer.stop());
/// assert!(!timer.stop()); // nothing was pending
/// assert_eq!(timer.deadline(), None);
///
/// timer.reset_at(Time::ZERO + ms(300));
/// select! { reactor; recv(timer) -> due => assert_eq!(due, Time::ZERO + ms(300)) }
/// assert!(timer.try_take().is_none()); // one arm, one value
///
/// timer.reset(ms(400));
/// assert_eq!(reactor.stop_timer(timer.id()), Ok(true)); // by its id
/// let timer = timer.with_key(7); // for `wait`
/// assert_eq!(timer.key(), 7);
/// # std::io::Result::Ok(())
/// ```
///
/// # Cost
/// A timer takes some 45 bytes in the reactor, and 16 in this handle. No method allocates once the
/// reactor has held as many timers before.
/// - A reset to a later deadline is two stores.
/// - A reset to an earlier one moves an entry in the heap. When the loop next blocks it makes at
///   most one `timerfd_settime`.
///
/// # Suspend, stops and steps of the clock
/// A timer counts on `CLOCK_MONOTONIC` (macOS: `CLOCK_UPTIME_RAW`), as [`Time`] and `Instant` do.
/// - **Suspend.** On Linux and macOS this clock stands still while the machine is suspended. After
///   an hour of suspend a timer fires an hour later than a clock on the wall would say. To count
///   the suspend, use [`boot_timer`](Handle::boot_timer) (Linux). That timer fires when the machine
///   wakes up, and does not wake the machine. The `clock_gettime(2)` of other systems describes
///   their clocks.
/// - **A stopped process** (`SIGSTOP`, a debugger, a frozen container). The clock goes on. A timer
///   whose deadline has passed meanwhile is due at once when the process goes on, and gives that
///   deadline.
/// - **A step of the time of day** (`date`, NTP, `settimeofday`) changes no timer. For deadlines by
///   the time of day use [`wall_timer`](Handle::wall_timer), which on Linux also tells that the
///   clock was set. NTP may make this clock faster or slower by 0.05 %.
///
/// A reactor in virtual time ([`Sim`](crate::Sim)) has a clock of its own. Nothing of this happens
/// to that clock.
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
        Timer { slot: Slot::armed_after(self, SourceKind::Timer, d) }
    }

    /// A timer that fires at `t`, a [`Time`] or an [`Instant`](std::time::Instant). A past time is
    /// due at once.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let noon = reactor.now() + Duration::from_secs(12 * 3_600);
    /// let timer = reactor.at(noon);
    /// assert_eq!(reactor.recv(&timer)?, noon);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn at(&self, t: impl PointInTime) -> Timer {
        Timer { slot: Slot::armed(self, SourceKind::Timer, t.into()) }
    }

    /// A timer that is not armed. It fires after a [`reset`](Timer::reset).
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let (tx, inbox) = reactor.channel(1)?;
    /// let quiet = reactor.timer(); // counts from the first message on
    /// tx.send("hello").unwrap();
    /// loop {
    ///     select! { reactor;
    ///         recv(inbox) -> _ => drop(quiet.reset(Duration::from_secs(1))),
    ///         recv(quiet) -> _ => break,
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn timer(&self) -> Timer {
        Timer { slot: Slot::new(self, SourceKind::Timer) }
    }
}

impl Timer {
    /// Arms the timer for `d` from the real now. Returns true if the call took a pending deadline
    /// away, or an expiry that nobody had received.
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

    /// Disarms the timer. Returns true if the call took a pending deadline away, or an expiry that
    /// nobody had received.
    #[inline]
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// Returns the deadline that is pending, or that has passed and was not received.
    /// [`stop`](Self::stop) would take this deadline away. [`Time::MAX`] is "never".
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// Lets the timer fire up to `slack` late, so that it shares a wake-up with others. Zero is
    /// exact. For this timer it replaces [`Builder::slack`](crate::Builder::slack).
    pub fn slack(self, slack: Duration) -> Timer {
        self.slot.set_slack(slack);
        self
    }

    /// Returns the name of the timer for [`Handle::stop_timer`], and for a
    /// [`Remote`](crate::Remote) on other threads.
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

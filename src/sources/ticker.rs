//! Tickers: timers that fire periodically.
//!
//! Between two ticks the ticker is armed for the next one. An expired ticker is armed again when
//! its tick is taken. So at most one tick is pending, and an unused ticker costs no wake-ups.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::time::Duration;

use super::{Internals, Source, common};
use crate::reactor::{Handle, Slot, SourceKind, TimerId};
use crate::sys::{PointInTime, Time};

/// A timer that fires every period, on a grid that does not drift.
///
/// As a [`Source`] it gives [`Tick`]s. When the loop is late the ticks in between are dropped and
/// counted, and the next tick is on the grid again.
/// [`missed_tick_behavior`](Self::missed_tick_behavior) has other ways. Dropping the ticker stops
/// it. A ticker whose reactor is gone is inert.
///
/// [`restart`](Self::restart) puts the next tick off, which makes a heartbeat of the ticker:
///
/// ```
/// use pollmux::{Reactor, Sim, Time, select};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let sim = Sim::new();
/// let reactor = Reactor::with_driver(sim.clone())?;
/// let heartbeat = reactor.every(ms(100))?;
/// sim.advance(ms(60));
/// assert!(heartbeat.restart()); // a tick was pending
/// assert_eq!(heartbeat.deadline(), Some(Time::ZERO + ms(160)));
/// heartbeat.restart_at(reactor.now()); // the next tick is due at once
/// select! { reactor; recv(heartbeat) -> tick => assert_eq!(tick.scheduled, Time::ZERO + ms(60)) }
///
/// heartbeat.reset(ms(50))?; // another period, from now on
/// assert_eq!(heartbeat.period(), ms(50));
/// assert!(heartbeat.stop()); // until `restart`, `reset` or `resume`
/// assert_eq!(heartbeat.deadline(), None);
/// assert_eq!(reactor.reset_timer(heartbeat.id(), ms(20)), Ok(false)); // by its id
///
/// let poll = reactor.every(ms(100))?.slack(ms(10)); // up to 10 ms late, to share a wake-up
/// poll.set_missed_tick_behavior(pollmux::MissedTickBehavior::Burst);
/// # std::io::Result::Ok(())
/// ```
///
/// # Suspend, stops and steps of the clock
/// The clock is that of [`Timer`](crate::Timer), whose page has the details.
/// - **Suspend.** On Linux and macOS the clock stands still, and so does the grid. No tick is
///   missed. Each tick comes later than a clock on the wall would say, by the length of the
///   suspend.
/// - **A stopped process** (`SIGSTOP`, a debugger). The clock goes on. When the process goes on,
///   one tick is due at once: that of the first point of the grid that was missed. Its
///   [`missed`](Tick::missed) counts the others, and the next tick is on the grid. `Burst` gives
///   all of them at once, and `Delay` begins a new grid.
/// - **A step of the time of day** changes nothing.
///
/// # A late loop
/// ```
/// use pollmux::{Reactor, Sim, Time, select};
/// use std::time::Duration;
///
/// let sim = Sim::new();
/// let reactor = Reactor::with_driver(sim.clone())?;
/// let ticker = reactor.every(Duration::from_millis(100))?;
/// sim.advance(Duration::from_millis(350)); // the loop is late: 100, 200 and 300 have passed
/// select! { reactor; recv(ticker) -> tick => {
///     assert_eq!(tick.scheduled, Time::ZERO + Duration::from_millis(100));
///     assert_eq!(tick.missed, 2);
/// }}
/// select! { reactor;
///     recv(ticker) -> tick => assert_eq!(tick.scheduled, Time::ZERO + Duration::from_millis(400)),
/// }
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the ticker stops it"]
pub struct Ticker {
    slot: Slot,
    behavior: Cell<MissedTickBehavior>,
}

/// The item of a [`Ticker`], which has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tick {
    /// The time at which the tick was due. When the loop is late, this is the first point of the
    /// grid that was missed.
    pub scheduled: Time,
    /// The number of points of the grid that have passed since, and that get no tick.
    pub missed: u64,
}

/// The treatment of ticks that a late loop has missed. The names, and `Delay`'s tolerance, are
/// tokio's.
///
/// With a period of 100, and a loop that receives the tick of 100 at 350:
///
/// | | first tick | then |
/// |---|---|---|
/// | `Skip` | 100, missed 2 | 400, 500, .. |
/// | `Burst` | 100, missed 0 | 200 and 300 at once, 400, 500, .. |
/// | `Delay` | 100, missed 2 | 450, 550, .. |
///
/// ```
/// use pollmux::{MissedTickBehavior, Reactor, Sim, Time};
/// use std::time::Duration;
///
/// let ms = Duration::from_millis;
/// let sim = Sim::new();
/// let reactor = Reactor::with_driver(sim.clone())?;
/// let ticker = reactor.every(ms(100))?.missed_tick_behavior(MissedTickBehavior::Delay);
/// sim.advance(ms(350));
/// assert_eq!(reactor.recv(&ticker)?.missed, 2);
/// assert_eq!(reactor.recv(&ticker)?.scheduled, Time::ZERO + ms(450));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MissedTickBehavior {
    /// Drops and counts them, and keeps the grid, as Go does. The default.
    #[default]
    Skip,
    /// Delivers each of them at once, until the ticker has caught up with the grid.
    Burst,
    /// Drops and counts them, and begins a new grid where the late tick is received. A tick counts
    /// as on time if it is up to 5 ms late, and by less than a period.
    Delay,
}

/// ns: tokio's tolerance.
const ON_TIME: u64 = 5_000_000;

/// The error of a ticker whose period is zero.
///
/// ```
/// use pollmux::{Reactor, sources::ZeroPeriod};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// assert_eq!(reactor.every(Duration::ZERO).unwrap_err(), ZeroPeriod);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZeroPeriod;

impl_fmt!(Display, [] ZeroPeriod, |_, f| f.write_str("the period of a ticker must not be zero"));
impl Error for ZeroPeriod {}

impl From<ZeroPeriod> for io::Error {
    fn from(error: ZeroPeriod) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Handle {
    /// A ticker whose first tick is one `period` from now.
    ///
    /// # Errors
    /// [`ZeroPeriod`] if the period is zero.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let second = reactor.every(Duration::from_secs(1))?;
    /// for n in 1..=3 {
    ///     select! { reactor;
    ///         recv(second) -> tick => assert_eq!(tick.scheduled.as_nanos(), n * 1_000_000_000),
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn every(&self, period: Duration) -> Result<Ticker, ZeroPeriod> {
        let ticker = Ticker::new(self, period)?;
        ticker.restart();
        Ok(ticker)
    }

    /// A ticker whose first tick is at `first`, and then every `period`: the grid goes through that
    /// point. `every_at(reactor.now(), period)` ticks at once.
    ///
    /// # Errors
    /// [`ZeroPeriod`] if the period is zero.
    ///
    /// ```
    /// use pollmux::{Reactor, select};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let poll = reactor.every_at(reactor.now(), Duration::from_secs(60))?;
    /// // Now, and again in a minute.
    /// select! { reactor;
    ///     recv(poll) -> tick => assert_eq!(tick.missed, 0),
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn every_at(
        &self,
        first: impl PointInTime,
        period: Duration,
    ) -> Result<Ticker, ZeroPeriod> {
        let ticker = Ticker::new(self, period)?;
        ticker.restart_at(first);
        Ok(ticker)
    }
}

impl Ticker {
    #[track_caller]
    fn new(handle: &Handle, period: Duration) -> Result<Ticker, ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        let slot = Slot::new(handle, SourceKind::Ticker);
        slot.set_period(period);
        Ok(Ticker { slot, behavior: Cell::default() })
    }

    /// Starts anew with another period: the next tick is one `period` from the real now. Drops a
    /// tick that nobody has received. Returns true if a tick was pending, as
    /// [`Timer::reset`](super::Timer::reset) does.
    ///
    /// # Errors
    /// [`ZeroPeriod`] if the period is zero. Then nothing has changed.
    #[inline]
    pub fn reset(&self, period: Duration) -> Result<bool, ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        self.slot.set_period(period);
        Ok(self.slot.arm_after(period))
    }

    /// Starts anew with the same period: the next tick is one period from the real now. Returns as
    /// [`reset`](Self::reset) does.
    ///
    /// A loop with a heartbeat calls it at every event.
    ///
    /// # Cost
    /// A clock reading and two stores. No allocation, and no syscall.
    #[inline]
    pub fn restart(&self) -> bool {
        self.slot.arm_after(self.period())
    }

    /// Starts anew with the same period: the next tick is at `t`, and the grid goes through it.
    /// With [`now`](Handle::now) the next tick is due at once.
    pub fn restart_at(&self, t: impl PointInTime) -> bool {
        self.slot.arm(t.into())
    }

    /// Stops ticking, until [`restart`](Self::restart), [`reset`](Self::reset) or
    /// [`resume`](Self::resume). Returns true if a tick was pending, armed or not received.
    #[inline]
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// Ticks again after a [`stop`](Self::stop), on the grid of before. The next tick is at the
    /// first point of the grid from now on. Points that passed meanwhile do not count as missed.
    ///
    /// Returns false, and does nothing, if the ticker is not stopped.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim, Time, select};
    /// use std::time::Duration;
    ///
    /// let ms = Duration::from_millis;
    /// let sim = Sim::new();
    /// let reactor = Reactor::with_driver(sim.clone())?;
    /// let ticker = reactor.every(ms(100))?;
    /// ticker.stop();
    /// sim.advance(ms(250));
    /// assert!(ticker.resume());
    /// select! { reactor;
    ///     recv(ticker) -> tick => {
    ///         assert_eq!((tick.scheduled, tick.missed), (Time::ZERO + ms(300), 0));
    ///     }
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn resume(&self) -> bool {
        if self.deadline().is_some() || self.slot.is_inert() {
            return false;
        }
        let (last, now) = (self.slot.last_deadline(), self.slot.clock_now());
        let next = match now.as_nanos().checked_sub(last.as_nanos()) {
            Some(since) if since % self.slot.period() != 0 => {
                skip(last.as_nanos(), self.slot.period(), now.as_nanos()).1
            }
            Some(_) => now.as_nanos(),
            None => last.as_nanos(),
        };
        self.slot.arm(Time::from_nanos(next));
        true
    }

    /// Returns the time at which the next tick is due, or was due if it was not received. `None` if
    /// the ticker is stopped.
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// The period.
    #[inline]
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.slot.period())
    }

    /// Sets the treatment of missed ticks, from the next tick received on. [`MissedTickBehavior`]
    /// has an example.
    pub fn missed_tick_behavior(self, behavior: MissedTickBehavior) -> Ticker {
        self.set_missed_tick_behavior(behavior);
        self
    }

    /// [`missed_tick_behavior`](Self::missed_tick_behavior), for a ticker that is in use.
    pub fn set_missed_tick_behavior(&self, behavior: MissedTickBehavior) {
        self.behavior.set(behavior);
    }

    /// Lets ticks be up to `slack` late, so that they share a wake-up with others. The grid stays.
    /// Zero is exact. For this ticker it replaces [`Builder::slack`](crate::Builder::slack).
    pub fn slack(self, slack: Duration) -> Ticker {
        self.slot.set_slack(slack);
        self
    }

    /// Returns the name of the ticker for [`Handle::stop_timer`], and for a
    /// [`Remote`](crate::Remote) on other threads.
    pub fn id(&self) -> TimerId {
        self.slot.timer_id(true)
    }
}

/// Returns how many points of the grid after `scheduled` have passed at `now`, and the next point.
fn skip(scheduled: u64, period: u64, now: u64) -> (u64, u64) {
    let missed = now.saturating_sub(scheduled) / period;
    (missed, scheduled.saturating_add(period.saturating_mul(missed.saturating_add(1))))
}

impl MissedTickBehavior {
    /// The number of ticks dropped when the tick of `scheduled` is received at `now`, and the time
    /// of the next tick.
    fn next(self, scheduled: u64, period: u64, now: u64) -> (u64, u64) {
        let late = now.saturating_sub(scheduled);
        match self {
            MissedTickBehavior::Skip => skip(scheduled, period, now),
            MissedTickBehavior::Burst => (0, scheduled.saturating_add(period)),
            MissedTickBehavior::Delay if late > ON_TIME || late >= period => {
                (late / period, now.saturating_add(period))
            }
            MissedTickBehavior::Delay => (0, scheduled.saturating_add(period)),
        }
    }
}

common!([] Ticker, |it| period: it.period(), deadline: it.deadline(), expired: it.is_ready());

impl Source for Ticker {
    type Item = Tick;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_due()
    }

    fn try_take(&self) -> Option<Tick> {
        let scheduled = self.slot.try_take()?;
        let now = self.slot.clock_now();
        let behavior = self.behavior.get();
        let (missed, next) =
            behavior.next(scheduled.as_nanos(), self.slot.period(), now.as_nanos());
        self.slot.arm(Time::from_nanos(next));
        Some(Tick { scheduled, missed })
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot).without_look()
    }
}

#[cfg(test)]
mod tests {
    use super::{MissedTickBehavior, skip};

    #[test]
    fn the_grid_is_kept() {
        assert_eq!(skip(100, 10, 100), (0, 110));
        assert_eq!(skip(100, 10, 109), (0, 110));
        assert_eq!(skip(100, 10, 110), (1, 120));
        assert_eq!(skip(100, 10, 135), (3, 140));
        // A tick that is taken with an earlier reading of the clock has missed no point.
        assert_eq!(skip(100, 10, 95), (0, 110));
        assert_eq!(skip(u64::MAX - 5, 10, u64::MAX - 1), (0, u64::MAX));
        assert_eq!(skip(0, 1, u64::MAX), (u64::MAX, u64::MAX));
    }

    #[test]
    fn burst_catches_up_and_delay_restarts() {
        assert_eq!(MissedTickBehavior::Burst.next(100, 100, 350), (0, 200));
        assert_eq!(MissedTickBehavior::Delay.next(100, 100, 350), (2, 450));
        // A tick within 5 ms keeps the grid, as in tokio.
        let ms = 1_000_000;
        assert_eq!(MissedTickBehavior::Delay.next(100 * ms, 100 * ms, 105 * ms), (0, 200 * ms));
        assert_eq!(MissedTickBehavior::Delay.next(100 * ms, 100 * ms, 106 * ms), (0, 206 * ms));
        assert_eq!(MissedTickBehavior::Delay.next(100, 1, u64::MAX), (u64::MAX - 100, u64::MAX));
        assert_eq!(MissedTickBehavior::Burst.next(u64::MAX - 1, 10, u64::MAX), (0, u64::MAX));
    }
}

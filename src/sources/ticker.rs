//! Tickers: timers that come again.
//!
//! Between two ticks the ticker is armed for the next one. When it has expired it stays so until the tick is taken, and only then is it
//! armed again: at most one tick is ever pending, and a ticker nobody looks at costs no wake-ups.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use super::Source;
use crate::reactor::{Handle, Slot, period_nanos};
use crate::sys::Time;

/// A timer that fires every period, on a grid that does not drift.
///
/// As a [`Source`] it gives [`Tick`]s. When the loop is late the ticks in between are dropped and counted, and the next one is on
/// the grid again. Dropping the ticker stops it; a ticker whose reactor is gone is inert.
///
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
/// select! { reactor; recv(ticker) -> tick => assert_eq!(tick.scheduled, Time::ZERO + Duration::from_millis(400)) }
/// # std::io::Result::Ok(())
/// ```
pub struct Ticker {
    slot: Slot,
    /// ns, not zero.
    period: Cell<u64>,
}

/// What a [`Ticker`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tick {
    /// When the tick was due: the first point of the grid that was missed, however late it is received.
    pub scheduled: Time,
    /// How many further points of the grid have passed since, for which there will be no tick.
    pub missed: u64,
}

/// A ticker's period was zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZeroPeriod;

impl fmt::Display for ZeroPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the period of a ticker must not be zero")
    }
}

impl Error for ZeroPeriod {}

impl From<ZeroPeriod> for io::Error {
    fn from(error: ZeroPeriod) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl Handle {
    /// A ticker whose first tick is one `period` from now. Fails with [`ZeroPeriod`] when the period is zero.
    pub fn every(&self, period: Duration) -> Result<Ticker, ZeroPeriod> {
        let ticker = Ticker { slot: Slot::new(self), period: Cell::new(1) };
        ticker.reset(period)?;
        Ok(ticker)
    }
}

impl Ticker {
    /// Starts anew with another period: the next tick is one `period` from the real now, and a tick nobody has received is dropped.
    ///
    /// Returns whether a tick was pending, as [`Timer::reset`](super::Timer::reset) does. A zero period is an error and changes nothing.
    #[inline]
    pub fn reset(&self, period: Duration) -> Result<bool, ZeroPeriod> {
        if period.is_zero() {
            return Err(ZeroPeriod);
        }
        self.period.set(period_nanos(period));
        Ok(self.slot.arm_after(period))
    }

    /// Starts anew with the same period: the next tick is one period from the real now. The call for every event of a loop with a heartbeat: a clock
    /// reading and two stores, no allocation, no syscall.
    #[inline]
    pub fn restart(&self) -> bool {
        self.slot.arm_after(self.period())
    }

    /// Stops ticking, until [`restart`](Self::restart) or [`reset`](Self::reset). Returns whether a tick was pending, armed or not received.
    #[inline]
    pub fn stop(&self) -> bool {
        self.slot.stop()
    }

    /// When the next tick is due, or was and nobody has received it; `None` when stopped.
    pub fn deadline(&self) -> Option<Time> {
        self.slot.deadline()
    }

    /// The period.
    #[inline]
    pub fn period(&self) -> Duration {
        Duration::from_nanos(self.period.get())
    }

    /// Gives the ticker the key that [`wait`](Handle::wait) reports it by.
    pub fn with_key(self, key: u64) -> Ticker {
        self.slot.set_key(key);
        self
    }

    /// The key that [`wait`](Handle::wait) reports the ticker by. Without [`with_key`](Self::with_key) a unique one of 2^63 or more.
    pub fn key(&self) -> u64 {
        self.slot.key()
    }
}

/// Points of the grid from `scheduled` that have passed at `now`, besides `scheduled` itself, and the one after them.
fn skip(scheduled: u64, period: u64, now: u64) -> (u64, u64) {
    let missed = now.saturating_sub(scheduled) / period;
    (missed, scheduled.saturating_add(period.saturating_mul(missed.saturating_add(1))))
}

impl Source for Ticker {
    type Item = Tick;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn try_take(&self) -> Option<Tick> {
        let scheduled = self.slot.try_take()?;
        let now = self.slot.clock_now();
        let (missed, next) = skip(scheduled.as_nanos(), self.period.get(), now.as_nanos());
        self.slot.arm(Time::from_nanos(next));
        Some(Tick { scheduled, missed })
    }

    #[inline]
    fn belongs_to(&self, handle: &Handle) -> bool {
        self.slot.belongs_to(handle)
    }

    fn token(&self) -> Option<u64> {
        Some(self.slot.token())
    }
}

impl fmt::Debug for Ticker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticker")
            .field("period", &self.period())
            .field("deadline", &self.deadline())
            .field("expired", &self.is_ready())
            .field("inert", &self.slot.is_inert())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::skip;

    #[test]
    fn the_grid_is_kept() {
        assert_eq!(skip(100, 10, 100), (0, 110));
        assert_eq!(skip(100, 10, 109), (0, 110));
        assert_eq!(skip(100, 10, 110), (1, 120));
        assert_eq!(skip(100, 10, 135), (3, 140));
        // Taken before it was due (a clock read earlier in the turn): nothing is missed.
        assert_eq!(skip(100, 10, 95), (0, 110));
        assert_eq!(skip(u64::MAX - 5, 10, u64::MAX - 1), (0, u64::MAX));
        assert_eq!(skip(0, 1, u64::MAX), (u64::MAX, u64::MAX));
    }
}

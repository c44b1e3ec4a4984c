//! Spinning before sleeping, for a message that comes in a moment and for a deadline that is met to
//! the microsecond.
//!
//! To fall asleep and be woken costs some 10 µs. A loop that waits awake saves that, if a message
//! comes in that time. The earlier spins decide: each success gives credit for [`CREDIT`] more
//! spins. A loop without credit tries again now and then, and less often after each failure.

use std::cell::Cell;
use std::thread;
use std::time::Duration;

use super::counters::{Count, add};
use crate::driver::WakeWindow;
use crate::sys::{Time, nanos};

/// The time for which a reactor looks for messages before it sleeps, for
/// [`Builder::spin`](crate::Builder::spin).
///
/// ```
/// use pollmux::{Reactor, reactor::Spin};
/// use std::time::Duration;
///
/// let quiet = Reactor::builder().spin(Spin::Off).build()?;
/// let eager = Reactor::builder().spin(Duration::from_micros(50)).build()?; // always
/// # drop((quiet, eager));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spin {
    /// Sleeps at once, unless a deadline is within 2 µs.
    Off,
    /// Up to 20 µs, while that has paid lately. Off where the thread that makes the reactor may use
    /// one core only. The default.
    ///
    /// While the next deadline is far, the spin also leaves the core to other threads now and then
    /// (`sched_yield`). One of these may be about to send.
    #[default]
    Adaptive,
    /// This long before each sleep, also on one core. For threads pinned to a core of their own.
    For(Duration),
}

impl From<Duration> for Spin {
    fn from(d: Duration) -> Spin {
        if d.is_zero() { Spin::Off } else { Spin::For(d) }
    }
}

/// The time in ns that a peer needs to be woken and to answer, and a little more.
const LIMIT: u64 = 20_000;
/// Spins that may fail after a successful one.
const CREDIT: u32 = 16;
/// Sleeps between two attempts without credit: at first, and at most.
const PAUSE: u32 = 16;
const LONGEST_PAUSE: u32 = 1 << 12;
/// Looks before the first rest, and between two rests.
pub(crate) const LOOKS: u32 = 32;
/// A time slice in ns. A thread that rests may be away for so long, so there are no rests when a
/// timer is due within this time.
pub(crate) const TIME_SLICE: u64 = 10_000_000;
/// The last stretch to a deadline, in ns. The turn itself spins it, so that the code that runs at
/// the deadline has run just before, and is in the cache.
pub(crate) const LAST_STRETCH: u64 = 5_000;

/// The last ns before a deadline, in which only the clock is looked at.
pub(crate) const REHEARSED_BEFORE: u64 = 1_000;

/// The settings of spinning, and its successes so far.
#[derive(Debug)]
pub(crate) struct Spinner {
    /// The longest spin for messages in ns; 0 for never.
    pub(crate) limit: u64,
    pub(crate) adaptive: bool,
    /// The longest spin for a deadline, in ns.
    pub(crate) precise: u64,
    /// A timer that is met by spinning was rehearsed.
    pub(crate) rehearsed: Cell<bool>,
    credit: Cell<u32>,
    /// Sleeps until the next attempt, and the number from which that count began.
    until_attempt: Cell<u32>,
    pause: Cell<u32>,
    pub(crate) saved: Count,
}

impl Spinner {
    /// Makes a spinner. On a virtual clock no message comes by itself, and on one core no message
    /// can come while we look.
    pub(crate) fn new(spin: Spin, precise: Duration, virtual_clock: bool) -> Spinner {
        let several_cores = || thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        let limit = match spin {
            _ if virtual_clock => 0,
            Spin::Adaptive if several_cores() => LIMIT,
            Spin::For(d) => nanos(d),
            Spin::Adaptive | Spin::Off => 0,
        };
        Spinner {
            limit,
            adaptive: spin == Spin::Adaptive,
            precise: if virtual_clock { 0 } else { nanos(precise) },
            rehearsed: Cell::new(false),
            credit: Cell::new(0),
            until_attempt: Cell::new(PAUSE),
            pause: Cell::new(PAUSE),
            saved: Cell::new(0),
        }
    }

    /// Returns true if a look for work precedes this sleep. Counts the sleep, unless a deadline may
    /// be met by spinning: then the look itself counts it.
    #[inline]
    pub(crate) fn begins(&self) -> bool {
        self.precise > 0 || self.attempts()
    }

    /// Returns the number of sleeps that spinning made unnecessary.
    pub(crate) fn saved(&self) -> u64 {
        self.saved.get()
    }

    /// Returns true if a deadline is met by spinning. A deadline with enough slack is not.
    pub(crate) fn is_met(&self, WakeWindow { earliest, latest }: WakeWindow) -> bool {
        self.precise > 0
            && latest != Time::MAX
            && latest - earliest < Duration::from_nanos(self.precise)
    }

    /// Returns the time to wake up for a deadline that is to be met by spinning.
    #[inline]
    pub(crate) fn ahead(&self, deadline: WakeWindow) -> WakeWindow {
        if !self.is_met(deadline) {
            return deadline;
        }
        let WakeWindow { earliest, latest } = deadline;
        let ahead = Duration::from_nanos(self.precise);
        WakeWindow { earliest: earliest - ahead, latest: latest - ahead }
    }

    /// Returns true if a spin for messages precedes this sleep.
    #[inline]
    pub(crate) fn attempts(&self) -> bool {
        if self.limit == 0 || !self.adaptive || self.credit.get() > 0 {
            return self.limit > 0;
        }
        self.until_attempt.set(self.until_attempt.get() - 1);
        if self.until_attempt.get() > 0 {
            return false;
        }
        self.until_attempt.set(self.pause.get());
        true
    }

    /// Returns true if a spin precedes the next sleep, and will probably find a message.
    pub(crate) fn spins_soon(&self) -> bool {
        self.limit > 0 && (!self.adaptive || self.credit.get() > 0)
    }

    pub(crate) fn succeeded(&self) {
        add(&self.saved, 1);
        self.credit.set(CREDIT);
        self.pause.set(PAUSE);
        self.until_attempt.set(PAUSE);
    }

    pub(crate) fn failed(&self) {
        match self.credit.get() {
            0 => {
                self.pause.set((self.pause.get() * 2).min(LONGEST_PAUSE));
                self.until_attempt.set(self.pause.get());
            }
            credit => self.credit.set(credit - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive() -> Spinner {
        Spinner { limit: LIMIT, ..Spinner::new(Spin::Adaptive, Duration::ZERO, false) }
    }

    #[test]
    fn failed_spins_become_rare_until_one_succeeds() {
        let spinner = adaptive();
        let attempts = |sleeps: u32| {
            let attempt = || spinner.attempts().then(|| spinner.failed()).is_some();
            (0..sleeps).filter(|_| attempt()).count()
        };
        assert_eq!(attempts(PAUSE - 1), 0);
        assert_eq!(attempts(1), 1);
        // 32, 64, 128, .. sleeps apart.
        assert_eq!(attempts(PAUSE * 2 * ((1 << 5) - 1)), 5);
        let rare = attempts(1_000_000);
        assert!(rare < 300, "{rare} attempts");
        spinner.succeeded();
        assert_eq!(attempts(CREDIT), CREDIT as usize);
        assert_eq!(attempts(PAUSE), 1);
    }

    #[test]
    fn virtual_time_and_off_never_spin() {
        assert!(!Spinner::new(Spin::Adaptive, Duration::from_micros(50), true).begins());
        assert!(!Spinner::new(Spin::Off, Duration::ZERO, false).begins());
        assert!(!Spinner::new(Duration::ZERO.into(), Duration::ZERO, false).begins());
        assert!(Spinner::new(Spin::Off, Duration::from_micros(50), false).begins());
    }

    #[test]
    fn a_precise_deadline_ends_the_sleep_early() {
        let spinner = Spinner::new(Spin::Off, Duration::from_nanos(50), false);
        let at = Time::from_nanos;
        let deadline = |earliest, latest| WakeWindow { earliest: at(earliest), latest: at(latest) };
        assert_eq!(spinner.ahead(deadline(100, 100)), deadline(50, 50));
        assert_eq!(spinner.ahead(deadline(20, 60)), deadline(0, 10));
        assert_eq!(spinner.ahead(deadline(100, 150)), deadline(100, 150));
        let never = WakeWindow::from(Time::MAX);
        assert_eq!(spinner.ahead(never), never);
    }
}

//! The time as a turn sees it: read precisely at most once a turn, and not at all while nothing can
//! be due.

use std::cell::Cell;
use std::time::Duration;

use crate::driver::{Clock, VirtualClock};
use crate::sys::tsc::TscClock;
use crate::sys::{Time, coarse_now, coarse_resolution, nanos};

/// ns: how far the coarse clock may be behind when the loop wakes up.
const LAG_AFTER_SLEEP: u64 = 100_000_000;

#[derive(Debug)]
pub(crate) struct TurnClock {
    source: Source,
    /// The turn's reading of the clock, if it has one.
    turn: Cell<Option<Time>>,
    /// ns: the last precise reading. What was due then is due now, however far a coarse reading
    /// lags behind.
    last: Cell<u64>,
}

#[derive(Debug)]
enum Source {
    /// A coarse reading is usually less than `lag` behind, in ns; `allowed` is what it is taken to
    /// be now.
    Monotonic {
        tsc: TscClock,
        lag: u64,
        allowed: Cell<u64>,
    },
    Virtual(VirtualClock),
}

/// A point of time to measure from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    /// A count of the CPU's counter, or ns.
    at: u64,
    is_count: bool,
}

impl TurnClock {
    pub(crate) fn new(clock: Clock) -> TurnClock {
        let source = match clock {
            // Twice the resolution: a tick that comes late makes the coarse clock lag by more than
            // one.
            Clock::Monotonic => {
                let lag = nanos(coarse_resolution()).saturating_mul(2);
                Source::Monotonic { tsc: TscClock::new(), lag, allowed: Cell::new(lag) }
            }
            Clock::Virtual(clock) => Source::Virtual(clock),
        };
        TurnClock { source, turn: Cell::new(None), last: Cell::new(0) }
    }

    /// The clock behind this.
    pub(crate) fn source(&self) -> Clock {
        match &self.source {
            Source::Monotonic { .. } => Clock::Monotonic,
            Source::Virtual(clock) => Clock::Virtual(clock.clone()),
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self.source, Source::Virtual(_))
    }

    /// Begins a turn, which has no reading yet.
    #[inline]
    pub(crate) fn forget_reading(&self) {
        self.turn.set(None);
    }

    /// Returns true if the time is `deadline` (ns) or later. Reads the clock precisely, for the
    /// turn too, only when that is close.
    #[inline]
    pub(crate) fn is_due(&self, deadline: u64) -> bool {
        if let Source::Monotonic { allowed, .. } = &self.source {
            if self.last.get() < deadline
                && coarse_now().as_nanos().saturating_add(allowed.get()) < deadline
            {
                return false;
            }
        }
        self.refresh().as_nanos() >= deadline
    }

    /// Notes that the loop has slept, perhaps for a deadline. On a machine that is short of CPUs
    /// the coarse clock may lag by several ticks then. A loop that trusts it would sleep again
    /// before a due timer.
    #[inline]
    pub(crate) fn slept(&self) {
        if let Source::Monotonic { lag, allowed, .. } = &self.source {
            allowed.set((*lag).max(LAG_AFTER_SLEEP));
        }
    }

    /// A select or a wait begins that has not slept.
    #[inline]
    pub(crate) fn awake(&self) {
        if let Source::Monotonic { lag, allowed, .. } = &self.source {
            allowed.set(*lag);
        }
    }

    /// Returns true if `deadline` (ns) had passed at the turn's reading. Without a reading nothing
    /// was due when the turn began.
    #[inline]
    pub(crate) fn was_due(&self, deadline: u64) -> bool {
        self.turn.get().is_some_and(|now| now.as_nanos() >= deadline)
    }

    /// The turn's reading; made when it is first asked for.
    #[inline]
    pub(crate) fn now(&self) -> Time {
        self.turn.get().unwrap_or_else(|| self.refresh())
    }

    /// Reads the clock precisely, and leaves the turn's reading as it is.
    #[inline]
    pub(crate) fn read(&self) -> Time {
        match &self.source {
            Source::Monotonic { .. } => Time::now(),
            Source::Virtual(clock) => clock.now(),
        }
    }

    /// Reads the clock, for the turn too.
    #[inline]
    pub(crate) fn refresh(&self) -> Time {
        let now = self.read();
        self.turn.set(Some(now));
        self.last.set(now.as_nanos());
        now
    }

    /// The real now to count `d` from. Zero is due at once, so a reading that may be late will not
    /// do for it.
    #[inline]
    pub(crate) fn count_from(&self, d: Duration) -> Time {
        if d.is_zero() { self.refresh() } else { self.now_or_later() }
    }

    /// [`count_from`](Self::count_from), where that needs no reading of the system's clock.
    #[inline]
    pub(crate) fn quick_count_from(&self, d: Duration) -> Option<Time> {
        match &self.source {
            Source::Monotonic { tsc, .. } if !d.is_zero() => tsc.quick_now_or_later(),
            _ => None,
        }
    }

    /// [`count_from`](Self::count_from), where [`quick_count_from`](Self::quick_count_from) gives
    /// nothing.
    #[inline]
    pub(crate) fn count_by_reading(&self, d: Duration) -> Time {
        match &self.source {
            Source::Monotonic { tsc, .. } if !tsc.counts() && !d.is_zero() => Time::now(),
            _ => self.count_otherwise(d),
        }
    }

    #[inline(never)]
    fn count_otherwise(&self, d: Duration) -> Time {
        self.count_from(d)
    }

    /// A mark of the present. A third of a reading of the clock.
    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        match &self.source {
            Source::Monotonic { tsc, .. } if tsc.is_sure() => {
                Mark { at: tsc.count(), is_count: true }
            }
            _ => Mark { at: self.now_or_later().as_nanos(), is_count: false },
        }
    }

    /// Returns true if so many ns have passed since the mark. May be true up to 0.3 % too early.
    #[inline]
    pub(crate) fn has_passed(&self, Mark { at, is_count }: Mark, ns: u64) -> bool {
        let passed = match &self.source {
            Source::Monotonic { tsc, .. } if is_count => tsc.nanos_since(at),
            _ => self.now_or_later().as_nanos().saturating_sub(at),
        };
        passed >= ns
    }

    /// The real now to count a new deadline from: exact, or up to some 30 ns late.
    #[inline]
    pub(crate) fn now_or_later(&self) -> Time {
        match &self.source {
            Source::Monotonic { tsc, .. } => tsc.now_or_later(),
            Source::Virtual(clock) => clock.now(),
        }
    }
}

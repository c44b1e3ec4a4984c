//! How full the ring of an unbounded channel is, and for how long: the rule by which it shrinks.
//!
//! A ring of more than 64 KiB that was less than an eighth full for a second is replaced by one
//! that is four times as large as what was used, or by the largest one up to 64 KiB. The time is
//! read only when something rare happens, so that neither `send` nor `recv` does anything for this:
//! - A receiver finds the channel empty, or its reactor sleeps.
//! - A sender finds the ring full by the head that was seen last (`State::advance`), and not full
//!   by the real head. Mostly that is once a lap.
//!
//! While a ring is *watched* the senders are given a head that lies back so far that the ring looks
//! full to them when some *window* of slots is used. So whoever uses more than the window comes
//! here, and is seen.
//!
//! Nobody waits for the lock of this. Who finds it taken goes on without the rule, until the next
//! such event. Who brings the tail to a smaller ring has the lock: one thread at a time.

use std::time::Duration;

use crate::sys::{Time, coarse_now};

/// Memory that was nearly empty for so long shrinks.
pub(crate) const LONG: Duration = Duration::from_secs(1);
/// Memory of at most so many bytes never shrinks.
pub(crate) const KEPT: usize = 64 << 10;

/// A virtual clock of a reactor.
pub(crate) type VirtualNow = Box<dyn Fn() -> Time + Send + Sync>;

/// See the module's text.
pub(super) struct Usage {
    /// The clock of the channel's reactor, if that is a virtual one.
    pub(super) clock: Option<VirtualNow>,
    /// The number of the ring that is watched, since when, and the most slots that may have been
    /// used meanwhile.
    watched: Option<(usize, Time)>,
    window: u64,
}

/// The outcome of a look at a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    /// Come again when so many slots are used; `None`: when the ring is full.
    pub(super) window: Option<u64>,
    /// A ring with this many slots is enough from now on.
    pub(super) enough: Option<u64>,
}

impl Usage {
    pub(super) fn new() -> Usage {
        Usage { clock: None, watched: None, window: 0 }
    }

    /// A look at the ring of this number: of so many slots as many are used. `least` is the
    /// smallest window.
    pub(super) fn look(&mut self, ring: usize, slots: u64, used: u64, least: u64) -> Watch {
        if used >= slots / 8 {
            self.watched = None;
            return Watch { window: None, enough: None };
        }
        let now = self.clock.as_ref().map_or_else(coarse_now, |now| now());
        let window = (2 * used).max(least);
        let (mut since, mut enough) = (now, None);
        match self.watched {
            Some((watched, begun)) if watched == ring => {
                // Early on the burst may not be quite over.
                let early = now < begun + LONG / 2;
                self.window = if early { window } else { self.window.max(window) };
                if now < begun + LONG {
                    since = begun;
                } else {
                    enough = Some(2 * self.window);
                    self.window = window;
                }
            }
            _ => self.window = window,
        }
        self.watched = Some((ring, since));
        Watch { window: Some(window), enough }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn usage() -> (Arc<AtomicU64>, Usage) {
        let clock = Arc::new(AtomicU64::new(0));
        let (mut usage, read) = (Usage::new(), clock.clone());
        usage.clock = Some(Box::new(move || Time::from_nanos(read.load(Ordering::Relaxed))));
        (clock, usage)
    }

    #[test]
    fn a_second_below_an_eighth_is_enough() {
        let (clock, mut usage) = usage();
        let mut look = |ms: u64, used| {
            clock.store(ms * 1_000_000, Ordering::Relaxed);
            usage.look(5, 1_024, used, 16).enough
        };
        assert_eq!(look(0, 127), None);
        assert_eq!(look(400, 20), None);
        assert_eq!(look(600, 100), None);
        assert_eq!(look(999, 3), None);
        assert_eq!(look(1_000, 3), Some(400), "four times what was used at last");
        assert_eq!(look(1_999, 0), None);
        assert_eq!(look(2_000, 0), Some(32), "what was used before counts no more");
    }

    #[test]
    fn an_eighth_begins_the_second_again() {
        let (clock, mut usage) = usage();
        let mut look = |ms: u64, ring, used| {
            clock.store(ms * 1_000_000, Ordering::Relaxed);
            usage.look(ring, 1_024, used, 16)
        };
        look(0, 5, 0);
        assert_eq!(look(500, 5, 128), Watch { window: None, enough: None });
        assert_eq!(look(1_000, 5, 0), Watch { window: Some(16), enough: None });
        assert_eq!(look(1_999, 5, 127), Watch { window: Some(254), enough: None });
        assert_eq!(look(2_500, 6, 0).enough, None, "another ring");
    }
}

//! The rule by which the ring of an unbounded channel shrinks.
//!
//! A ring of more than 64 KiB that was less than an eighth full for a second is replaced. The new
//! ring is four times as large as the used part, or is the largest ring up to 64 KiB. The time is
//! read only at rare events, so that neither `send` nor `recv` does any work for this rule:
//! - A receiver finds the channel empty, or its reactor sleeps.
//! - A sender finds the ring full by the head that was seen last (`State::advance`), and not full
//!   by the real head. Mostly that happens once a lap.
//!
//! While a ring is *observed*, the senders are given a head that lies far back. With that head the
//! ring looks full to them when a *window* of slots is used. So a sender that uses more than the
//! window comes here, and its use is noted.
//!
//! Nobody waits for the lock of [`Usage`]. A thread that finds it taken goes on without the rule,
//! until the next such event. The thread that brings the tail to a smaller ring has the lock: one
//! thread at a time.

use std::time::Duration;

use super::state::{BASE, LEVEL, POSITION, RING, SIDE, State, UNIT, UNITS, behind, ring, slots};
use crate::sync::{MutexGuard, Ordering};
use crate::sys::{Time, coarse_now};

/// The time after which memory that was nearly empty shrinks.
pub(crate) const LONG: Duration = Duration::from_secs(1);
/// The size in bytes up to which memory never shrinks.
pub(crate) const KEPT: usize = 64 << 10;

/// A virtual clock of a reactor.
pub(crate) type VirtualNow = Box<dyn Fn() -> Time + Send + Sync>;

/// The observation of a ring. The module's text describes it.
pub(super) struct Usage {
    /// The clock of the channel's reactor, if that is a virtual one.
    pub(super) clock: Option<VirtualNow>,
    /// The number of the observed ring, the time of its first look, and the most slots that may
    /// have been used since then.
    observed: Option<(usize, Time)>,
    window: u64,
}

/// The outcome of a look at a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    /// Look again when so many slots are used; `None`: when the ring is full.
    pub(super) window: Option<u64>,
    /// A ring with this many slots is enough from now on.
    pub(super) enough: Option<u64>,
}

impl Usage {
    pub(super) fn new() -> Usage {
        Usage { clock: None, observed: None, window: 0 }
    }

    /// Looks at the ring of this number, of whose `slots` as many as `used` are used. `least` is
    /// the smallest window.
    pub(super) fn look(&mut self, ring: usize, slots: u64, used: u64, least: u64) -> Observation {
        if used >= slots / 8 {
            self.observed = None;
            return Observation { window: None, enough: None };
        }
        let now = self.clock.as_ref().map_or_else(coarse_now, |now| now());
        let window = (2 * used).max(least);
        let (mut since, mut enough) = (now, None);
        match self.observed {
            Some((observed, begun)) if observed == ring => {
                // Early in the second the burst may not be quite over.
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
        self.observed = Some((ring, since));
        Observation { window: Some(window), enough }
    }
}

/// A ring that is to replace a larger one. It is removed if the tail does not go there.
pub(super) struct Smaller<'a> {
    state: &'a State,
    /// The ring's number and the base of its side, as the tail's word has them.
    pub(super) rings: usize,
    is_used: bool,
    _guard: MutexGuard<'a, Usage>,
}

impl Smaller<'_> {
    /// Returns the bits above the position of a word that goes to the new ring.
    pub(super) fn upper(&self, word: u64) -> u64 {
        word & !POSITION & !(UNITS * UNIT) | (self.rings as u64 * UNIT)
    }

    /// Keeps the new ring: the tail has gone there.
    pub(super) fn keep(mut self) {
        self.is_used = true;
    }
}

impl Drop for Smaller<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            // SAFETY: the tail is not on this side, and nobody else brings it there while we have
            // the lock.
            #[allow(unsafe_code)]
            unsafe {
                self.state.rings.remove(self.rings & RING);
            }
        }
    }
}

impl State {
    /// Looks at the usage when a sender finds the ring full by the head that was seen last, and not
    /// by the real head. Returns the head to be seen by the next senders. Also returns the smaller
    /// ring if there is to be one.
    pub(super) fn look_at_usage(&self, word: u64, head: u64) -> (u64, Option<Smaller<'_>>) {
        let (from, used) = (ring(word), behind(head, word & POSITION));
        if from & LEVEL <= self.rings.kept {
            return (head, None);
        }
        let observation = self.observe(from, used);
        let smaller = observation.enough.and_then(|enough| self.prepare_smaller(from, enough));
        (self.head_for(from, head, observation), smaller)
    }

    /// Looks for how long the ring has been nearly empty.
    #[cfg(not(all(loom, test)))]
    pub(super) fn observe(&self, ring: usize, used: u64) -> Observation {
        let least = (slots(self.rings.kept) / 8).max(1);
        match self.usage.try_lock() {
            Some(mut usage) => usage.look(ring, slots(ring), used, least),
            None => Observation { window: Some((2 * used).max(least)), enough: None },
        }
    }

    /// In the models there is no time. Rings shrink at once where the model asks for that.
    #[cfg(all(loom, test))]
    pub(super) fn observe(&self, ring: usize, used: u64) -> Observation {
        let shrinks = self.shrinks.load(std::sync::atomic::Ordering::Relaxed);
        let enough = (shrinks && 2 * used < slots(ring)).then_some(2 * used);
        Observation { window: shrinks.then_some(used), enough }
    }

    /// Returns a head that makes the ring look full when the window of the observation is used.
    pub(super) fn head_for(&self, ring: usize, head: u64, observation: Observation) -> u64 {
        let slots = slots(ring);
        let back = slots.saturating_sub(observation.window.unwrap_or(slots));
        (head & POSITION).wrapping_sub(back) & POSITION
    }

    /// Makes a ring of at least so many slots on the other side, if that is smaller than this ring.
    /// This ring is the tail's, and the receiver reads it. One thread at a time calls this.
    pub(super) fn prepare_smaller(&self, from: usize, enough: u64) -> Option<Smaller<'_>> {
        let kept = self.rings.kept;
        let to = (kept..from & LEVEL).find(|&level| slots(level) >= enough)?;
        let guard = self.usage.try_lock()?;
        // Otherwise the other side may be in use. While we have the lock nobody goes to that side.
        if self.rings.reading() != from || ring(self.front.tail.load(Ordering::SeqCst)) != from {
            return None;
        }
        let ring = (from ^ SIDE) & SIDE | to;
        self.rings.prepare(ring);
        Some(Smaller { state: self, rings: to << BASE | ring, is_used: false, _guard: guard })
    }

    /// Sets the clock of a reactor in virtual time, which then measures how long a ring is nearly
    /// empty.
    pub(super) fn follow(&self, clock: Option<VirtualNow>) {
        if let Some(mut usage) = self.usage.try_lock() {
            usage.clock = clock;
        }
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
        assert_eq!(look(500, 5, 128), Observation { window: None, enough: None });
        assert_eq!(look(1_000, 5, 0), Observation { window: Some(16), enough: None });
        assert_eq!(look(1_999, 5, 127), Observation { window: Some(254), enough: None });
        assert_eq!(look(2_500, 6, 0).enough, None, "another ring");
    }
}

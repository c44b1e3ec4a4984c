//! The part of the timer queue that a turn reads without a borrow. The rest is the
//! [heap](super::heap).

use std::cell::Cell;

use super::counters::Count;
use super::heap::NEVER;

/// In `unlisted`: stale entries stand before some that are due.
const BEHIND: u32 = 1;
/// In `unlisted`: one source at an end that has been taken.
const ENDED: u32 = 2;

/// The first deadline, the slack, and the state of the queue.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    /// The heap's first key, ns: nothing is due before it.
    pub(crate) next_due: Cell<u64>,
    /// Sources may be ready that the ready list has not got: [`BEHIND`], so that each source is
    /// asked for its own deadline, and one [`ENDED`] for each source at its end.
    unlisted: Cell<u32>,
    /// The value of `next_due` when stale keys were put right before blocking.
    pub(crate) cleaned_for: Cell<u64>,
    /// Arms so far.
    seq: Count,
    /// ns: of the timers that have none of their own.
    pub(crate) slack: Cell<u64>,
    /// A timer has slack.
    pub(crate) slacked: Cell<bool>,
    /// ns: no timer has less.
    pub(crate) least_slack: Cell<u64>,
    /// The sleep that the turn comes from was put off for the sake of some slack.
    pub(crate) put_off: Cell<bool>,
}

impl TimerQueue {
    /// A queue whose timers have `slack`, ns.
    pub(crate) fn new(slack: u64) -> TimerQueue {
        TimerQueue {
            next_due: Cell::new(NEVER),
            unlisted: Cell::new(0),
            cleaned_for: Cell::new(NEVER),
            seq: Cell::new(0),
            slack: Cell::new(slack),
            slacked: Cell::new(slack > 0),
            least_slack: Cell::new(slack),
            put_off: Cell::new(false),
        }
    }

    /// The number of the next arm.
    #[inline]
    pub(crate) fn next_seq(&self) -> u64 {
        let seq = self.seq.get() + 1;
        self.seq.set(seq);
        seq
    }

    /// Returns true if due timers may be missing in the ready list.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.unlisted.get() & BEHIND != 0
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.unlisted.set(self.unlisted.get() & !BEHIND | if behind { BEHIND } else { 0 });
    }

    /// Returns true if sources may be ready that the ready list has not got.
    #[inline]
    pub(crate) fn has_unlisted(&self) -> bool {
        self.unlisted.get() != 0
    }

    /// Counts a source whose end has been taken.
    pub(crate) fn count_end(&self) {
        self.unlisted.set(self.unlisted.get() + ENDED);
    }

    /// A source whose end was taken has gone.
    pub(crate) fn forget_end(&self) {
        self.unlisted.set(self.unlisted.get() - ENDED);
    }
}

//! The part of the timer queue that a turn reads without a borrow. The rest is the
//! [heap](super::heap).

use std::cell::Cell;

use super::heap::{NEVER, STALE};

thread_local! {
    /// The arms of this thread so far, by all its reactors. A reactor has one thread. So an arm to
    /// a later time reads no line of the reactor, which other work may have driven from the cache.
    static ARMS: Cell<u64> = const { Cell::new(STALE) };
}

/// The number of the next arm, with the mark of a re-arm that leaves the entry in its place.
#[inline]
pub(crate) fn next_seq() -> u64 {
    let seq = ARMS.get() + 1;
    ARMS.set(seq);
    seq
}

/// The first deadline, the slack, and the state of the queue.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    /// The heap's first key, ns: nothing is due before it.
    pub(crate) next_due: Cell<u64>,
    /// Due timers may be missing in the ready list, so that each source is asked for its own
    /// deadline: stale entries stand before them.
    behind: Cell<bool>,
    /// The value of `next_due` when stale keys were put right before blocking.
    pub(crate) cleaned_for: Cell<u64>,
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
            behind: Cell::new(false),
            cleaned_for: Cell::new(NEVER),
            slack: Cell::new(slack),
            slacked: Cell::new(slack > 0),
            least_slack: Cell::new(slack),
            put_off: Cell::new(false),
        }
    }

    /// Returns true if due timers may be missing in the ready list.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.get()
    }

    pub(crate) fn set_behind(&self, behind: bool) {
        self.behind.set(behind);
    }
}

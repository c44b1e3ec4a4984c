//! Memory that a burst has left goes after a second: rule 27 of the design.
//!
//! | memory | after a burst |
//! |---|---|
//! | records of sources (`slots/`), the timer queue (`heap/`) | shrink by the rule below |
//! | lists of channels and fds, of callbacks made due | 24 bytes a slot: shrink with the records |
//! | the ready list, the list of calls, the list of ends | none: they go through the records |
//! | the mailbox of posts | an unbounded channel: shrinks by itself (`channel/usage.rs`) |
//! | the callbacks of a batch (`parts/callbacks.rs`) | at most 32 bytes for each of a batch |
//! | call sites (`parts/sites.rs`) | at most 65,535 of them |
//! | marks of senders (`wake/marks.rs`) | stay: a bit for each slot that was a channel's |
//! | requests of other threads (`asks.rs`) | stay: 90 bytes for each timer that had one at once |
//! | the last request of each timer (`asks.rs`) | stay: 8 bytes for each slot with a given id |
//!
//! Other threads read the rest at any time, so nobody can tell when it may go.
//!
//! The rule: more than 64 KiB that were less than an eighth full for a second shrink to twice the
//! used part. They do so in pieces of 512 parts of 4 KiB a turn. Nobody measures memory that is
//! small or full. Where a source goes, or a timer fires, and little is used, the flag `untidy` is
//! set. Then each turn comes here, until the second is over.

use super::core::Core;
use super::parts::usage::{FEW, Measure};

/// Parts that are freed in one turn.
const PIECE: usize = 512;

impl Core {
    /// The next turns look for memory that may go.
    #[cold]
    pub(super) fn set_untidy(&self) {
        self.memory.untidy.set(true);
        self.turn_work.set(true);
    }

    /// Lets memory go that a burst has left a second ago, or a piece of it.
    #[cold]
    #[inline(never)]
    pub(super) fn tidy(&self) {
        let untidy = self.mailbox.rest();
        self.tidy_table();
        self.memory.untidy.set(untidy || self.table.borrow().is_sparse());
    }

    fn tidy_table(&self) {
        let (now, mut measures) = (self.clock.now(), self.memory.measures.get());
        let table = &mut *self.table.borrow_mut();
        let (usage, most) = (table.heap.usage(), table.heap.most_used());
        if let Some(enough) = measures.heap.look(now, usage, most, || table.heap.measure()) {
            if table.heap.shrink(enough, PIECE) {
                measures.heap = Measure::default();
            }
        }
        let (usage, most) = (table.slots.usage(), table.slots.most_used());
        if let Some(enough) = measures.slots.look(now, usage, most, || table.slots.measure()) {
            if table.slots.shrink(enough, PIECE) {
                measures.slots = Measure::default();
                self.channels.borrow_mut().shrink();
                self.fds.shrink();
                self.callbacks.rung.borrow_mut().shrink_to(FEW);
                self.mailbox.admitted.borrow_mut().shrink_to(FEW);
            }
        }
        self.memory.measures.set(measures);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::FEW;
    use crate::reactor::parts::channels::Channels;
    use crate::reactor::parts::fds::Fds;

    #[test]
    fn lists_shrink_to_what_is_registered() {
        let mut channels = Channels::of(2 * FEW);
        channels.unasked.reserve(9 * FEW);
        channels.unsure.reserve(9 * FEW);
        channels.marked.reserve(9 * FEW);
        channels.shrink();
        let Channels { unasked, unsure, marked, .. } = channels;
        let fds = Fds::of_yielding_driver();
        fds.told.borrow_mut().reserve(9 * FEW);
        fds.shrink();
        let left = [unasked.capacity(), unsure.capacity(), marked.capacity()];
        assert_eq!((left, fds.told.borrow().capacity()), ([2 * FEW; 3], FEW));
    }
}

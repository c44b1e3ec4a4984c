//! Memory that a burst has left goes after a second: rule 27 of the design.
//!
//! | memory | after a burst |
//! |---|---|
//! | records of sources (`slots/`), the timer queue (`heap/`) | shrink by the rule below |
//! | lists of channels and fds, of callbacks made due | 24 bytes a slot: shrink with the records |
//! | the ready list, the list of calls, the list of ends | none: they go through the records |
//! | the mailbox of posts | an unbounded channel: shrinks by itself (`channel/usage.rs`) |
//! | the callbacks of a batch (`calls.rs`) | at most 32 bytes for each that a batch may call |
//! | call sites (`origins.rs`) | at most 65,535 of them |
//! | marks of senders (`wake/marks.rs`) | stay: a bit for each slot that was a channel's |
//! | requests of other threads (`asks.rs`) | stay: 90 bytes for each timer that had one at once |
//! | the last request of each timer (`asks.rs`) | stay: 8 bytes for each slot with a given id |
//!
//! What stays is read by other threads at any time, so nobody can tell when it may go.
//!
//! The rule: more than 64 KiB that were less than an eighth full for a second shrink to twice the
//! used part. They do so in pieces of 512 parts of 4 KiB a turn. Nobody watches memory that is
//! small or full. Where a source goes, or a timer fires, and little is used, the flag `untidy` is
//! set. Then each turn comes here, until the second is over.

use super::Core;
use super::core::Table;
use crate::channel::usage::{KEPT, LONG};
use crate::sys::Time;

/// Parts that are freed in one turn.
const PIECE: usize = 512;
/// As many parts of 4 KiB are never too many.
const FEW_PARTS: usize = KEPT / 4_096;
/// Entries of a list that are never too many.
pub(super) const FEW: usize = KEPT / size_of::<(u64, u32)>();

/// One memory, watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    since: Option<Time>,
    /// The second is over: as many parts are enough.
    enough: Option<usize>,
}

/// The memories of a reactor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watches {
    slots: Watch,
    heap: Watch,
}

/// Returns true if less than an eighth of so many parts is used.
#[inline]
pub(super) fn is_sparse((parts, used): (usize, usize)) -> bool {
    parts > FEW_PARTS && used * 8 < parts
}

impl Watch {
    /// A look at a memory of so many parts, of which as many are used now, and at most `most` since
    /// `watch` began to measure. Returns how many are enough, if the others may go.
    fn look(
        &mut self,
        now: Time,
        usage: (usize, usize),
        most: usize,
        watch: impl FnOnce(),
    ) -> Option<usize> {
        match self.since {
            _ if self.enough.is_some() => {}
            Some(since) if is_sparse((usage.0, most)) => {
                if usage.1 * 2 < most && now < since + LONG / 2 {
                    // The burst has just ended.
                    watch();
                }
                self.enough = (now >= since + LONG).then_some(2 * most);
            }
            _ => {
                watch();
                self.since = is_sparse(usage).then_some(now);
            }
        }
        self.enough
    }
}

impl Table {
    /// Returns true if the memory of a burst is there.
    pub(super) fn is_sparse(&self) -> bool {
        is_sparse(self.slots.usage()) || is_sparse(self.heap.usage())
    }
}

impl Core {
    /// The next turns look for memory that may go.
    #[cold]
    pub(super) fn set_untidy(&self) {
        self.untidy.set(true);
        self.errands.set(true);
    }

    /// Lets memory go that a burst has left a second ago, or a piece of it.
    #[cold]
    #[inline(never)]
    pub(super) fn tidy(&self) {
        let mut untidy = false;
        if let Some(mailbox) = &*self.mailbox.borrow() {
            mailbox.rest();
            untidy = mailbox.is_large();
        }
        self.tidy_table();
        self.untidy.set(untidy || self.table.borrow().is_sparse());
    }

    fn tidy_table(&self) {
        let (now, mut watches) = (self.clock.now(), self.watches.get());
        let table = &mut *self.table.borrow_mut();
        let (usage, most) = (table.heap.usage(), table.heap.most_used());
        if let Some(enough) = watches.heap.look(now, usage, most, || table.heap.watch()) {
            if table.heap.shrink(enough, PIECE) {
                watches.heap = Watch::default();
            }
        }
        let (usage, most) = (table.slots.usage(), table.slots.most_used());
        if let Some(enough) = watches.slots.look(now, usage, most, || table.slots.watch()) {
            if table.slots.shrink(enough, PIECE) {
                watches.slots = Watch::default();
                self.channels.borrow_mut().shrink();
                self.fds.shrink();
                self.rung.borrow_mut().shrink_to(FEW);
                self.admitted.borrow_mut().shrink_to(FEW);
            }
        }
        self.watches.set(watches);
    }
}

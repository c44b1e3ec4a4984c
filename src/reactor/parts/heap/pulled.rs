//! Timers that were pulled earlier in a large heap.
//!
//! Moving one entry waits for memory three times in turn: for the record, for its entry, and for
//! the parent of the entry. So a pull only writes the record and notes its slot. A full list is
//! settled, and an expiry settles the list: all entries are read before any entry moves, so the
//! reads wait at the same time. A pull is short for the same reason: the CPU begins the next pull
//! while the first one waits for its record.

use super::{ARITY, Heap, LARGE, NEVER, STALE};
use crate::reactor::parts::slots::{NONE, Node, Owner, Slots, State};

/// The number of slots that are noted at most.
const MOST: usize = if cfg!(test) { 5 } else { 64 };

/// Slots whose records may be earlier than their entries.
#[derive(Debug)]
pub(super) struct Pulled {
    slots: [u32; MOST],
    len: usize,
    /// No later than the earliest of their deadlines.
    first: u64,
}

impl Pulled {
    pub(super) const fn new() -> Pulled {
        Pulled { slots: [0; MOST], len: 0, first: NEVER }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> &[u32] {
        &self.slots[..self.len]
    }
}

impl Heap {
    /// Gives an `Armed` record of a large heap an earlier deadline, and notes that. Returns false,
    /// and does nothing, if the heap is small or the list is full.
    #[inline]
    pub(crate) fn pull(&mut self, node: &Node, slot: u32, deadline: u64, seq: u64) -> bool {
        let len = self.pulled.len;
        if self.len < LARGE || len >= MOST {
            return false;
        }
        self.pulled.slots[len] = slot;
        self.pulled.len = len + 1;
        self.pulled.first = self.pulled.first.min(deadline);
        node.deadline.set(deadline);
        node.seq.set(seq | STALE);
        true
    }

    /// Moves the entries of all pulled records.
    #[inline]
    pub(super) fn settle<O: Owner>(&mut self, slots: &Slots<O>) {
        if self.pulled.len > 0 {
            self.move_pulled(slots);
        }
    }

    #[cold]
    #[inline(never)]
    fn move_pulled<O: Owner>(&mut self, slots: &Slots<O>) {
        let Pulled { slots: all, len, .. } = std::mem::replace(&mut self.pulled, Pulled::new());
        // A chunk may have gone, with a slot that was freed.
        let node = |slot: u32| slots.chunk_of(slot).map(|chunk| chunk.node(slot));
        let places = all.map(|slot| node(slot).map_or(NONE, |node| node.pos.get()) as usize);
        let mut keys = 0;
        for &place in places[..len].iter().filter(|&&place| place < self.len) {
            keys ^= self.key(place) ^ self.key(place.saturating_sub(1) / ARITY);
        }
        std::hint::black_box(keys);
        for &slot in &all[..len] {
            // The record may have been put off or stopped since, or be another one. A stopped
            // record moves, too: the timer may be armed again between its deadline and its key.
            let is_there = |state| matches!(state, State::Armed | State::Stopped);
            let Some(node) = node(slot).filter(|node| is_there(node.state.get())) else { continue };
            self.move_earlier(slots, node, slot);
        }
    }
}

//! An entry of the queue, and the blocks that entries are stored in.

use super::STALE;
use crate::reactor::parts::slots::{Owner, Slots};

/// Entries in a block: few in unit tests, so that these come to the ends of blocks.
pub(super) const BLOCK: usize = if cfg!(test) { 16 } else { 256 };

/// The slot of a hole.
const HOLE: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) key: u64,
    slot: u32,
}

impl Entry {
    #[inline]
    pub(super) fn new(key: u64, slot: u32) -> Entry {
        Entry { key, slot }
    }

    #[inline]
    pub(super) fn slot(self) -> u32 {
        self.slot
    }

    #[inline]
    pub(super) fn is_hole(self) -> bool {
        self.slot == HOLE
    }

    /// Makes a hole of this entry.
    #[inline]
    pub(super) fn make_hole(&mut self) {
        self.slot = HOLE;
    }

    /// The number of the arm that set the key. `None` for a hole, and for an entry whose record was
    /// armed again: among equal keys such an entry may stand anywhere.
    pub(super) fn seq<O: Owner>(self, slots: &Slots<O>) -> Option<u64> {
        let seq = (!self.is_hole()).then(|| slots.node(self.slot).seq.get());
        seq.filter(|seq| seq & STALE == 0)
    }
}

/// The storage grows by blocks, so that growing never copies what is there. Keys and slots stand
/// apart: eight keys fill a cache line, and most comparisons need no slot.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Block {
    pub(super) keys: [u64; BLOCK],
    slots: [u32; BLOCK],
}

/// A block, where it stays.
pub(super) type OwnBlock = Box<Block>;

impl Block {
    pub(super) fn new() -> OwnBlock {
        Box::new(Block { keys: [0; BLOCK], slots: [0; BLOCK] })
    }

    #[inline]
    pub(super) fn get(&self, place: usize) -> Entry {
        Entry { key: self.keys[place], slot: self.slots[place] }
    }

    #[inline]
    pub(super) fn set(&mut self, place: usize, entry: Entry) {
        (self.keys[place], self.slots[place]) = (entry.key, entry.slot);
    }

    /// Makes a hole of an entry: one store, which waits for no load.
    #[inline]
    pub(super) fn make_hole(&mut self, place: usize) {
        self.slots[place] = HOLE;
    }
}

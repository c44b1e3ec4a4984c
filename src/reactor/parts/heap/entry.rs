//! An entry of the queue, and the blocks that entries are stored in.

/// Entries in a block: few in unit tests, so that these come to the ends of blocks.
pub(super) const BLOCK: usize = if cfg!(test) { 16 } else { 256 };

/// Set in the `slot` of a hole; the other bits are the high half of its sequence then, so that ties
/// keep their order.
pub(super) const HOLE: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) key: u64,
    /// The low half of the sequence, and the slot below it. One word: what was written in halves a
    /// moment ago is slow to read as a whole.
    low: u64,
}

impl Entry {
    #[inline]
    pub(super) fn new(key: u64, slot: u32, seq: u64) -> Entry {
        Entry { key, low: seq << 32 | u64::from(slot) }
    }

    #[inline]
    pub(super) fn slot(self) -> u32 {
        self.low as u32
    }

    /// The low half of the sequence.
    #[inline]
    pub(super) fn seq(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// Sorts by key, then by the low half of the sequence.
    #[inline]
    pub(super) fn order(self) -> u128 {
        u128::from(self.key) << 64 | u128::from(self.low)
    }

    #[inline]
    pub(super) fn is_hole(self) -> bool {
        self.slot() & HOLE != 0
    }

    /// Makes a hole of the entry of a record with this sequence. Compiles to a store of the slot:
    /// no load has to wait for memory.
    #[inline]
    pub(super) fn make_hole(&mut self, seq: u64) {
        let half = HOLE | (seq >> 32) as u32;
        self.low = self.low & !u64::from(u32::MAX) | u64::from(half);
    }
}

/// The storage grows by blocks, so that growing never copies what is there.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Block(pub(super) [Entry; BLOCK]);

/// A block, where it stays.
pub(super) type OwnBlock = Box<Block>;

impl Block {
    pub(super) fn new() -> OwnBlock {
        Box::new(Block([Entry::default(); BLOCK]))
    }
}

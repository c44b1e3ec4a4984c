//! An entry of the queue, and the blocks that entries are stored in.

/// Entries in a block: few in unit tests, so that these come to the ends of blocks.
pub(super) const BLOCK: usize = if cfg!(test) { 16 } else { 256 };

/// Set in the `slot` of a hole; the other bits are the high half of its sequence then, so that ties
/// keep their order.
pub(super) const HOLE: u32 = 1 << 31;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) slot: u32,
    /// The low half of the sequence.
    pub(super) seq: u32,
}

impl Entry {
    #[inline]
    pub(super) fn new(key: u64, slot: u32, seq: u64) -> Entry {
        Entry { key, slot, seq: seq as u32 }
    }

    /// Sorts by key, then by the low half of the sequence.
    #[inline]
    pub(super) fn order(self) -> u128 {
        let low = u64::from(self.seq) << 32 | u64::from(self.slot);
        u128::from(self.key) << 64 | u128::from(low)
    }

    #[inline]
    pub(super) fn is_hole(self) -> bool {
        self.slot & HOLE != 0
    }

    /// Makes a hole of the entry of a record with this sequence: a store, and no load that may have
    /// to wait for memory.
    #[inline]
    pub(super) fn make_hole(&mut self, seq: u64) {
        self.slot = HOLE | (seq >> 32) as u32;
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

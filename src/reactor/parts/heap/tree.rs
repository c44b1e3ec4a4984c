//! The 4-ary heap of entries that do not fit into the run.

use super::entry::{BLOCK, Entry, HOLE};
use super::{Heap, SWEEP_STEP};
use crate::reactor::parts::slots::{Owner, Slots};

pub(super) const ARITY: usize = 4;
/// Physical index of the root, which puts the four children of every entry at a multiple of four.
pub(super) const ROOT: usize = ARITY - 1;

impl Heap {
    /// Puts an entry into the heap.
    #[inline]
    pub(super) fn push<O: Owner>(&mut self, slots: &Slots<O>, entry: Entry) {
        let index = self.len;
        if index + ROOT >= self.blocks.len() * BLOCK {
            self.grow();
        }
        self.len += 1;
        self.most = self.most.max(self.len);
        self.sift_up(slots, index, entry);
        self.trim();
    }

    /// Gives the heap one more block.
    #[cold]
    #[inline(never)]
    pub(super) fn grow(&mut self) {
        let block = self.take_block();
        self.blocks.push(block);
    }

    /// Takes the root of the heap out.
    pub(super) fn remove_root<O: Owner>(&mut self, slots: &Slots<O>) {
        self.holes -= usize::from(self.get(0).is_hole());
        self.len -= 1;
        if self.len > 0 {
            let last = self.get(self.len);
            self.sift_down(slots, 0, last);
            self.trim();
        }
    }

    /// Takes holes off the end: one may have come there when an entry rose past it.
    pub(super) fn trim(&mut self) {
        while self.holes > 0 && self.len > 0 && self.get(self.len - 1).is_hole() {
            self.len -= 1;
            self.holes -= 1;
        }
    }

    /// Fills holes among the next few leaves with entries from the end. (Below a hole that is no
    /// leaf the heap is in order as it is.)
    pub(super) fn sweep<O: Owner>(&mut self, slots: &Slots<O>) {
        for _ in 0..SWEEP_STEP {
            let first_leaf = (self.len + ARITY - 2) / ARITY;
            if self.sweep > self.len || self.sweep <= first_leaf {
                self.sweep = self.len;
            }
            self.sweep -= 1;
            if self.get(self.sweep).is_hole() {
                self.holes -= 1;
                self.len -= 1;
                let last = self.get(self.len);
                self.place(slots, self.sweep, last);
                self.trim();
            }
        }
    }

    /// Puts `entry`, whose record is not elsewhere in the heap, where it belongs, starting from
    /// `index`.
    pub(super) fn place<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        if index > 0 && self.before(slots, entry, self.get((index - 1) / ARITY)) {
            self.sift_up(slots, index, entry);
        } else {
            self.sift_down(slots, index, entry);
        }
    }

    pub(super) fn sift_up<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
        while index > 0 {
            let up = (index - 1) / ARITY;
            let parent = self.get(up);
            if !self.before(slots, entry, parent) {
                break;
            }
            self.set(slots, index, parent);
            index = up;
        }
        self.set(slots, index, entry);
    }

    pub(super) fn sift_down<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
        loop {
            let first = ARITY * index + 1;
            if first >= self.len {
                break;
            }
            let (least, child) = if first + ARITY <= self.len && self.half.is_some() {
                self.least_of_four(first)
            } else {
                self.least_child(slots, first)
            };
            if !self.before(slots, child, entry) {
                break;
            }
            self.set(slots, index, child);
            index = least;
        }
        self.set(slots, index, entry);
    }

    /// The least of a full set of children, while all sequences have one high half: without a
    /// branch that depends on them.
    #[inline]
    pub(super) fn least_of_four(&self, first: usize) -> (usize, Entry) {
        let at = first + ROOT;
        let [a, b, c, d] = *self.blocks[at / BLOCK].0[at % BLOCK..].first_chunk().unwrap();
        let (i, ab) = if b.order() < a.order() { (1, b) } else { (0, a) };
        let (j, cd) = if d.order() < c.order() { (3, d) } else { (2, c) };
        if cd.order() < ab.order() { (first + j, cd) } else { (first + i, ab) }
    }

    /// The least of the children from `first` on.
    #[inline]
    pub(super) fn least_child<O: Owner>(&self, slots: &Slots<O>, first: usize) -> (usize, Entry) {
        let (mut least, mut child) = (first, self.get(first));
        for other in first + 1..self.len.min(first + ARITY) {
            let candidate = self.get(other);
            if self.before(slots, candidate, child) {
                (least, child) = (other, candidate);
            }
        }
        (least, child)
    }

    #[inline]
    pub(super) fn before<O: Owner>(&self, slots: &Slots<O>, a: Entry, b: Entry) -> bool {
        if self.half.is_some() { a.order() < b.order() } else { is_before(slots, a, b) }
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Entry {
        let at = index + ROOT;
        self.blocks[at / BLOCK].0[at % BLOCK]
    }

    #[inline]
    pub(super) fn entry(&mut self, index: usize) -> &mut Entry {
        let at = index + ROOT;
        &mut self.blocks[at / BLOCK].0[at % BLOCK]
    }

    #[inline]
    pub(super) fn set<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        *self.entry(index) = entry;
        if !entry.is_hole() {
            slots.node(entry.slot()).pos.set(index as u32);
        }
    }
}

/// [`Heap::before`] when the sequences have different high halves.
#[cold]
#[inline(never)]
fn is_before<O: Owner>(slots: &Slots<O>, a: Entry, b: Entry) -> bool {
    // Reads the records of a tie only: they are in no cache.
    a.key < b.key || (a.key == b.key && sequence(slots, a) < sequence(slots, b))
}

/// The full sequence of an entry.
pub(super) fn sequence<O: Owner>(slots: &Slots<O>, entry: Entry) -> u64 {
    let half = if entry.is_hole() {
        u64::from(entry.slot() & !HOLE)
    } else {
        slots.node(entry.slot()).seq.get() >> 32
    };
    half << 32 | u64::from(entry.seq())
}

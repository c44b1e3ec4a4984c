//! The 8-ary heap of entries that do not fit into the run.
//!
//! Entries are in the order of their keys. Among equal keys, entries that are not
//! [stale](super::STALE) are in the order of their arms, and a stale entry may stand anywhere: it
//! gets a new key when it is the first. So an entry does not rise past a stale parent with the same
//! key, unless it must also pass an entry above that parent: fresh entries below the parent may
//! have been armed first. An entry that sinks goes below a stale child for the same reason.

use super::entry::{BLOCK, Entry};
use super::{Heap, SWEEP_STEP};
use crate::reactor::parts::slots::{Owner, Slots};

pub(super) const ARITY: usize = 8;
/// Physical index of the root, which puts the keys of all children of an entry into one cache line.
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
        if index > 0 && self.rises(slots, index, entry) {
            self.sift_up(slots, index, entry);
        } else {
            self.sift_down(slots, index, entry);
        }
    }

    /// Moves the entry of a record up, from its place at `index`, to where its new key belongs.
    #[inline]
    pub(super) fn raise<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        if index > 0 && self.rises(slots, index, entry) {
            self.sift_up(slots, index, entry);
        } else {
            let at = index + ROOT;
            self.blocks[at / BLOCK].keys[at % BLOCK] = entry.key;
        }
    }

    pub(super) fn sift_up<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
        while index > 0 && self.rises(slots, index, entry) {
            let up = (index - 1) / ARITY;
            self.set(slots, index, self.get(up));
            index = up;
        }
        self.set(slots, index, entry);
    }

    /// Returns true if an entry that is at `index` goes before its parent.
    #[inline]
    fn rises<O: Owner>(&self, slots: &Slots<O>, index: usize, entry: Entry) -> bool {
        let parent = self.key((index - 1) / ARITY);
        entry.key < parent || (entry.key == parent && self.rises_in_tie(slots, index, entry))
    }

    /// [`rises`](Self::rises) past a parent with the same key: if an ancestor with this key was
    /// armed later.
    #[cold]
    #[inline(never)]
    fn rises_in_tie<O: Owner>(&self, slots: &Slots<O>, mut index: usize, entry: Entry) -> bool {
        let Some(seq) = entry.seq(slots) else { return false };
        while index > 0 {
            index = (index - 1) / ARITY;
            let ancestor = self.get(index);
            if ancestor.key != entry.key {
                break;
            }
            if let Some(other) = ancestor.seq(slots) {
                return seq < other;
            }
        }
        false
    }

    pub(super) fn sift_down<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
        loop {
            let first = ARITY * index + 1;
            if first >= self.len {
                break;
            }
            let full = if first + ARITY <= self.len { self.least_of_all(first) } else { None };
            let (least, key) = full.unwrap_or_else(|| self.least_child(slots, first));
            if key > entry.key || (key == entry.key && !self.sinks_in_tie(slots, least, entry)) {
                break;
            }
            self.set(slots, index, self.get(least));
            index = least;
        }
        self.set(slots, index, entry);
    }

    /// Returns true if an entry goes below the least of its children, which has the same key.
    #[cold]
    #[inline(never)]
    fn sinks_in_tie<O: Owner>(&self, slots: &Slots<O>, child: usize, entry: Entry) -> bool {
        let child = self.get(child).seq(slots);
        entry.seq(slots).is_some_and(|seq| child.is_none_or(|child| child < seq))
    }

    /// The least of a full set of children, without a branch that depends on their keys. `None` if
    /// two keys are equal.
    #[inline]
    fn least_of_all(&self, first: usize) -> Option<(usize, u64)> {
        let at = first + ROOT;
        let keys: &[u64; ARITY] = self.blocks[at / BLOCK].keys[at % BLOCK..].first_chunk().unwrap();
        let mut tied = false;
        let mut lesser = |(i, a): (usize, u64), (j, b): (usize, u64)| {
            tied |= a == b;
            if b < a { (j, b) } else { (i, a) }
        };
        let [a, b, c, d] = [0, 2, 4, 6].map(|i| lesser((i, keys[i]), (i + 1, keys[i + 1])));
        let (ab, cd) = (lesser(a, b), lesser(c, d));
        let (i, key) = lesser(ab, cd);
        (!tied).then_some((first + i, key))
    }

    /// The least of the children from `first` on. Of equal keys a stale one comes first, then the
    /// one that was armed first.
    #[inline(never)]
    fn least_child<O: Owner>(&self, slots: &Slots<O>, first: usize) -> (usize, u64) {
        let children = first..self.len.min(first + ARITY);
        let key = children.clone().map(|child| self.key(child)).min().expect("a child");
        let mut tied = children.filter(|&child| self.key(child) == key);
        let least = tied.next().expect("the least");
        let Some(second) = tied.next() else { return (least, key) };
        // All records are read, and then compared: so the reads wait for memory at the same time.
        let mut seqs = [(u64::MAX, first); ARITY];
        for (seq, child) in seqs.iter_mut().zip([least, second].into_iter().chain(tied)) {
            *seq = (self.get(child).seq(slots).unwrap_or(0), child);
        }
        (seqs.into_iter().min().expect("the first").1, key)
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Entry {
        let at = index + ROOT;
        self.blocks[at / BLOCK].get(at % BLOCK)
    }

    #[inline]
    pub(super) fn key(&self, index: usize) -> u64 {
        let at = index + ROOT;
        self.blocks[at / BLOCK].keys[at % BLOCK]
    }

    #[inline]
    pub(super) fn make_hole(&mut self, index: usize) {
        let at = index + ROOT;
        self.blocks[at / BLOCK].make_hole(at % BLOCK);
    }

    #[inline]
    pub(super) fn set<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        let at = index + ROOT;
        self.blocks[at / BLOCK].set(at % BLOCK, entry);
        if !entry.is_hole() {
            slots.node(entry.slot()).pos.set(index as u32);
        }
    }
}

/// Returns true if `a` comes before `b` at the front of the queue, where a stale entry is to go
/// first.
#[inline]
pub(super) fn goes_first<O: Owner>(slots: &Slots<O>, a: Entry, b: Entry) -> bool {
    // `None` is before every number.
    a.key < b.key || (a.key == b.key && a.seq(slots) < b.seq(slots))
}

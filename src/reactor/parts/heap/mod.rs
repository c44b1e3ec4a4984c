//! The timer queue: a 4-ary heap with lazy deadlines.
//!
//! An entry is 16 bytes, four children fill a cache line, and the record holds the true deadline.
//! Re-arming *later* writes the record only and leaves a stale key in the heap; re-arming *earlier*
//! moves the entry up at once; stopping leaves a zombie. Stale keys and zombies are put right when
//! they reach the root, a bounded number at a time: the price is a wake-up that comes too early now
//! and then, never one that comes too late.
//!
//! Removing an entry from the middle of a large heap means several cache misses, so a dropped timer
//! leaves a *hole*: its entry keeps its key and its place and points to no record. Holes go when
//! they reach the root or the end; when they are more than half of all, every removal fills a few
//! of those among the leaves.
//!
//! Invariants (`verify`, run by the tests):
//! - no child sorts before its parent, by (key, sequence at the time the key was set);
//! - a record's deadline and sequence are at or after its entry's;
//! - `pos` of each record in the heap is the index of its entry;
//! - the last entry is not a hole, and no more than half of a large heap are holes once a sweep is
//!   over.
//!
//! Sequences are 64 bits, entries hold the low 32. The high half is the record's own: a re-arm
//! across a boundary of 2^32 arms is not done lazily, so record and entry always share it.

#[cfg(test)]
mod tests;

use super::ready::Ready;
use super::slots::{Flag, NONE, Owner, Slots, State};

/// "Never", as a key.
pub(crate) const NEVER: u64 = u64::MAX;

const ARITY: usize = 4;
/// Physical index of the root, which puts the four children of every entry at a multiple of four.
const ROOT: usize = ARITY - 1;
const BLOCK: usize = 256;

/// Set in the `slot` of a hole; the other bits are the high half of its sequence then, so that ties
/// keep their order.
const HOLE: u32 = 1 << 31;
/// Heaps smaller than this are not worth sweeping.
const SWEEP_MIN: usize = 256;
/// The number of leaves that a removal looks at while there are too many holes.
const SWEEP_STEP: usize = 8;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Entry {
    key: u64,
    slot: u32,
    seq: u32,
}

impl Entry {
    fn is_hole(self) -> bool {
        self.slot & HOLE != 0
    }
}

/// The heap's storage grows by blocks, so that growing never copies what is there.
#[derive(Debug)]
#[repr(align(64))]
struct Block([Entry; BLOCK]);

#[derive(Debug)]
pub(crate) struct Heap {
    blocks: Vec<Box<Block>>,
    len: usize,
    /// The high half of the sequences of all entries, while it is the same for all: then ties need
    /// no look at the records.
    half: Option<u32>,
    holes: usize,
    /// The sweep looks at the leaves before this index next.
    sweep: usize,
    /// The most entries since the last call of [`measure`](Heap::measure).
    most: usize,
}

/// As many blocks are kept for ever: 64 KiB.
const KEPT: usize = (64 << 10) / size_of::<Block>();

/// The work of [`Heap::expire`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Expired {
    /// Records that became ready.
    pub(crate) fired: u32,
    /// Stale keys and zombies put right.
    pub(crate) cleaned: u32,
    /// Deadlines among the fired that are later than the one before.
    pub(crate) steps: u32,
    /// The last deadline that fired.
    last: u64,
}

impl Heap {
    pub(crate) const fn new() -> Heap {
        Heap { blocks: Vec::new(), len: 0, half: None, holes: 0, sweep: 0, most: 0 }
    }

    /// The earliest key, [`NEVER`] if there is none. At or before the earliest deadline.
    #[inline]
    pub(crate) fn first(&self) -> u64 {
        if self.len == 0 { NEVER } else { self.get(0).key }
    }

    /// Returns the most entries that one call may touch: some 0.4 ms, by what the cache misses of a
    /// heap of this size cost.
    pub(crate) fn budget(&self) -> u32 {
        match self.len {
            0..8_192 => 4_096,
            8_192..65_536 => 2_048,
            65_536..524_288 => 1_024,
            _ => 512,
        }
    }

    /// Puts an `Idle` record in.
    pub(crate) fn insert<O: Owner>(
        &mut self,
        slots: &Slots<O>,
        slot: u32,
        deadline: u64,
        seq: u64,
    ) {
        let node = slots.node(slot);
        debug_assert_eq!(node.state.get(), State::Idle);
        node.state.set(State::Armed);
        node.deadline.set(deadline);
        node.seq.set(seq);
        let index = self.len;
        if index + ROOT >= self.blocks.len() * BLOCK {
            self.blocks.push(Box::new(Block([Entry::default(); BLOCK])));
        }
        self.len += 1;
        self.most = self.most.max(self.len);
        let half = (seq >> 32) as u32;
        if index == 0 {
            self.half = Some(half);
        } else if self.half != Some(half) {
            self.half = None;
        }
        self.sift_up(slots, index, Entry { key: deadline, slot, seq: seq as u32 });
        self.trim();
    }

    /// Gives an `Armed` or `Stopped` record another deadline: a store where that is enough, else
    /// the entry moves.
    pub(crate) fn rearm<O: Owner>(&mut self, slots: &Slots<O>, slot: u32, deadline: u64, seq: u64) {
        let node = slots.node(slot);
        let (index, same_half) = (node.pos.get() as usize, (node.seq.get() ^ seq) >> 32 == 0);
        node.state.set(State::Armed);
        node.deadline.set(deadline);
        node.seq.set(seq);
        if !same_half {
            self.half = None;
        }
        if deadline < self.get(index).key || !same_half {
            self.place(slots, index, Entry { key: deadline, slot, seq: seq as u32 });
            self.trim();
        }
    }

    /// Returns the number of blocks, and of those that are used.
    #[inline]
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.blocks.len(), (self.len + ROOT).div_ceil(BLOCK))
    }

    /// Returns the most blocks that were used at once since the last call of
    /// [`measure`](Self::measure).
    pub(crate) fn most_used(&self) -> usize {
        (self.most.max(self.len) + ROOT).div_ceil(BLOCK)
    }

    /// Begins to measure how many blocks are used.
    pub(crate) fn measure(&mut self) {
        self.most = self.len;
    }

    /// Frees up to `most` blocks, so that `enough` are left. Returns true if that is done.
    pub(crate) fn shrink(&mut self, enough: usize, most: usize) -> bool {
        let used = (self.len + ROOT).div_ceil(BLOCK);
        let enough = enough.max(KEPT).max(used);
        let len = self.blocks.len().saturating_sub(most).max(enough);
        self.blocks.truncate(len);
        if len > enough {
            return false;
        }
        self.blocks.shrink_to(enough);
        true
    }

    /// Takes an `Armed` or `Stopped` record out and makes it `Idle`.
    pub(crate) fn remove<O: Owner>(&mut self, slots: &Slots<O>, slot: u32) {
        let node = slots.node(slot);
        let index = node.pos.replace(NONE) as usize;
        node.state.set(State::Idle);
        let half = (node.seq.get() >> 32) as u32 & !HOLE;
        self.entry(index).slot = HOLE | half;
        self.holes += 1;
        self.trim();
        if self.holes > self.len / 2 && self.len > SWEEP_MIN {
            self.sweep(slots);
        }
    }

    /// Takes the root out.
    fn remove_root<O: Owner>(&mut self, slots: &Slots<O>) {
        let root = self.get(0);
        if root.is_hole() {
            self.holes -= 1;
        } else {
            let node = slots.node(root.slot);
            node.pos.set(NONE);
            node.state.set(State::Idle);
        }
        self.len -= 1;
        if self.len > 0 {
            let last = self.get(self.len);
            self.sift_down(slots, 0, last);
            self.trim();
        }
    }

    /// Takes holes off the end: one may have come there when an entry rose past it.
    fn trim(&mut self) {
        while self.len > 0 && self.get(self.len - 1).is_hole() {
            self.len -= 1;
            self.holes -= 1;
        }
    }

    /// Fills holes among the next few leaves with entries from the end. (Below a hole that is no
    /// leaf the heap is in order as it is.)
    fn sweep<O: Owner>(&mut self, slots: &Slots<O>) {
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

    /// Moves what is due at `now` to the ready list, or the list of calls, in deadline order, and
    /// puts stale keys and zombies at the root right, those that are not due yet too. Touches at
    /// most `budget` entries: what is left stays at the root.
    pub(crate) fn expire<O: Owner>(
        &mut self,
        slots: &Slots<O>,
        ready: &mut Ready,
        calls: &mut Ready,
        now: u64,
        budget: u32,
    ) -> Expired {
        let mut done = Expired::default();
        while self.len > 0 && done.fired + done.cleaned < budget {
            let root = self.get(0);
            if root.is_hole() {
                self.remove_root(slots);
                done.cleaned += 1;
                continue;
            }
            let node = slots.node(root.slot);
            if node.state.get() == State::Stopped {
                self.remove_root(slots);
                done.cleaned += 1;
            } else if node.deadline.get() != root.key || node.seq.get() as u32 != root.seq {
                let fresh = Entry { key: node.deadline.get(), seq: node.seq.get() as u32, ..root };
                self.sift_down(slots, 0, fresh);
                done.cleaned += 1;
            } else if root.key <= now && root.key != NEVER {
                self.remove_root(slots);
                let list = if node.is(Flag::Callback) { &mut *calls } else { &mut *ready };
                list.push(slots, root.slot);
                if done.fired > 0 && root.key > done.last {
                    done.steps += 1;
                }
                done.last = root.key;
                done.fired += 1;
            } else {
                break;
            }
        }
        done
    }

    /// The latest time to wake up at: the least of all deadlines plus their slack, which is `slack`
    /// or their own, and no less than `least`. Looks at a bounded number of entries, and may
    /// therefore say too early, never too late; where all have the same slack it looks at few and
    /// is exact.
    pub(crate) fn latest<O: Owner>(&self, slots: &Slots<O>, slack: u64, least: u64) -> u64 {
        /// Entries that are expected to fit into one window of slack, and their children.
        const LOOK: usize = 128;
        let mut open = [0usize; LOOK];
        let mut count = usize::from(self.len > 0);
        let (mut latest, mut looked) = (NEVER, 0);
        while count > 0 {
            count -= 1;
            let index = open[count];
            let entry = self.get(index);
            let bound = entry.key.saturating_add(least);
            if bound >= latest {
                continue;
            }
            looked += 1;
            let first = ARITY * index + 1;
            let children = first..self.len.min(first + ARITY).max(first);
            if looked > LOOK || count + children.len() > LOOK {
                // Nothing here or below can wait for less.
                latest = bound;
                continue;
            }
            if !entry.is_hole() {
                let node = slots.node(entry.slot);
                if node.state.get() == State::Armed {
                    let own = slots
                        .chunk(entry.slot)
                        .slacks
                        .get(entry.slot)
                        .filter(|_| node.is(Flag::Slack));
                    let slack = own.map_or(slack, |own| own.get());
                    latest = latest.min(node.deadline.get().saturating_add(slack));
                }
            }
            for child in children {
                open[count] = child;
                count += 1;
            }
        }
        latest
    }

    /// Puts `entry`, whose record is not elsewhere in the heap, where it belongs, starting from
    /// `index`.
    fn place<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        if index > 0 && self.before(slots, entry, self.get((index - 1) / ARITY)) {
            self.sift_up(slots, index, entry);
        } else {
            self.sift_down(slots, index, entry);
        }
    }

    fn sift_up<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
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

    fn sift_down<O: Owner>(&mut self, slots: &Slots<O>, mut index: usize, entry: Entry) {
        loop {
            let first = ARITY * index + 1;
            if first >= self.len {
                break;
            }
            let (mut least, mut child) = (first, self.get(first));
            for other in first + 1..self.len.min(first + ARITY) {
                let candidate = self.get(other);
                if self.before(slots, candidate, child) {
                    (least, child) = (other, candidate);
                }
            }
            if !self.before(slots, child, entry) {
                break;
            }
            self.set(slots, index, child);
            index = least;
        }
        self.set(slots, index, entry);
    }

    #[inline]
    fn before<O: Owner>(&self, slots: &Slots<O>, a: Entry, b: Entry) -> bool {
        if a.key != b.key {
            a.key < b.key
        } else if self.half.is_some() {
            a.seq < b.seq
        } else {
            sequence(slots, a) < sequence(slots, b)
        }
    }

    #[inline]
    fn get(&self, index: usize) -> Entry {
        let at = index + ROOT;
        self.blocks[at / BLOCK].0[at % BLOCK]
    }

    #[inline]
    fn entry(&mut self, index: usize) -> &mut Entry {
        let at = index + ROOT;
        &mut self.blocks[at / BLOCK].0[at % BLOCK]
    }

    #[inline]
    fn set<O: Owner>(&mut self, slots: &Slots<O>, index: usize, entry: Entry) {
        *self.entry(index) = entry;
        if !entry.is_hole() {
            slots.node(entry.slot).pos.set(index as u32);
        }
    }

    /// Panics unless the invariants hold. O(n).
    #[cfg(test)]
    pub(crate) fn verify<O: Owner>(&self, slots: &Slots<O>) {
        let holes = (0..self.len).filter(|&index| self.get(index).is_hole()).count();
        assert_eq!(holes, self.holes);
        assert!(self.len == 0 || !self.get(self.len - 1).is_hole());
        for index in 0..self.len {
            let entry = self.get(index);
            if index > 0 {
                let parent = self.get((index - 1) / ARITY);
                assert!(!self.before(slots, entry, parent), "{entry:?} is below {parent:?}");
            }
            if entry.is_hole() {
                continue;
            }
            let node = slots.node(entry.slot);
            assert!(
                matches!(node.state.get(), State::Armed | State::Stopped),
                "slot {}: {node:?}",
                entry.slot
            );
            assert_eq!(node.pos.get() as usize, index);
            let armed = (node.deadline.get(), node.seq.get());
            assert!(
                armed >= (entry.key, sequence(slots, entry)) || node.state.get() == State::Stopped
            );
            assert!(self.half.is_none_or(|half| u64::from(half) == node.seq.get() >> 32));
        }
    }
}

/// The full sequence of an entry.
#[inline]
fn sequence<O: Owner>(slots: &Slots<O>, entry: Entry) -> u64 {
    let half = if entry.is_hole() {
        u64::from(entry.slot & !HOLE)
    } else {
        slots.node(entry.slot).seq.get() >> 32
    };
    half << 32 | u64::from(entry.seq)
}

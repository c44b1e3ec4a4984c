//! The timer queue: a sorted [run](run) and an 8-ary heap, with lazy deadlines.
//!
//! An entry whose deadline is the latest of the run goes to the end of the run. Timeouts of one
//! length do, because they come in the order of their deadlines. The other entries go to the heap.
//! The first entry of the queue is the first of the run or the root of the heap. Adding an entry to
//! the run, and taking its first entry, moves no other entry.
//!
//! An entry is 12 bytes: a key and a slot. The keys of eight children fill a cache line. The record
//! holds the true deadline, and the number of the arm that decides between equal keys. Re-arming
//! *later* writes the record only and leaves a stale key in the queue. Re-arming *earlier* moves
//! the entry. Stopping leaves a zombie, an entry of a stopped record. The queue corrects stale keys
//! and zombies when they are the first, a bounded number at a time. So a wake-up may come too early
//! now and then, but never too late.
//!
//! Removing an entry from the middle of a large heap means several cache misses, so a dropped timer
//! leaves a *hole*: its entry keeps its key and its place and points to no record. Holes go when
//! they reach the root or an end. When more than half of the entries are holes, every removal fills
//! a few holes among the leaves, or moves a few entries of the run together.
//!
//! Each 32nd entry that goes to the heap takes the last entry of the run with it. So a few timers
//! of an hour do not keep timers of a second out of the run for long.
//!
//! Invariants (`verify`, run by the tests):
//! - no key of a child is before that of its parent, and no key of the run before the one in front;
//! - of two entries with equal keys that are not [`STALE`], one above or in front of the other, the
//!   first one was armed first;
//! - a record's deadline is at or after its entry's key, and equal to it unless stale;
//! - `pos` of each record in the queue is the index of its entry in the heap, or [`IN_RUN`] and its
//!   number in the run;
//! - the last entry of the heap is not a hole, and no more than half of a large heap, or run, are
//!   holes once a sweep is over.

mod entry;
mod pulled;
mod run;
#[cfg(test)]
mod tests;
mod tree;

use self::entry::{BLOCK, Block, Entry, OwnBlock};
use self::pulled::Pulled;
use self::run::Run;
use self::tree::{ARITY, ROOT, goes_first};
use super::ready::Ready;
use super::slots::{Flag, NONE, Node, Owner, Slots, State};

/// "Never", as a key.
pub(crate) const NEVER: u64 = u64::MAX;

/// Set in the `seq` of a record that was armed again while its entry kept key and place.
pub(crate) const STALE: u64 = 1 << 63;

/// Set in the `pos` of a record whose entry is in the run.
const IN_RUN: u32 = 1 << 31;
/// After this many entries for the heap, the last entry of the run goes to the heap, too.
const MISSES: u32 = 32;

/// The number of entries from which on a heap is larger than the near caches.
const LARGE: usize = if cfg!(test) { 4 } else { 1 << 14 };
/// Heaps and runs smaller than this are not worth sweeping.
const SWEEP_MIN: usize = if cfg!(test) { 8 } else { 256 };
/// The number of leaves that a removal looks at while there are too many holes.
const SWEEP_STEP: usize = 8;

#[derive(Debug)]
pub(crate) struct Heap {
    /// The blocks of the heap.
    blocks: Vec<OwnBlock>,
    len: usize,
    run: Run,
    /// The number of entries for the heap since the run last lost its end to the heap.
    misses: u32,
    /// Records that were pulled earlier, and whose entries have not moved.
    pulled: Pulled,
    /// Blocks that are not in use.
    spare: Vec<OwnBlock>,
    holes: usize,
    /// The sweep looks at the leaves before this index next.
    sweep: usize,
    /// The most entries of the heap since the last call of [`measure`](Heap::measure).
    most: usize,
}

/// The number of blocks that the ends of heap and run may need beside their full blocks.
const AHEAD: usize = 3;
/// The number of blocks that the queue never frees: 64 KiB.
const KEPT: usize = (64 << 10) / size_of::<Block>();

/// The work of [`Heap::expire`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Expired {
    /// Records that became ready.
    pub(crate) fired: u32,
    /// Stale keys and zombies that were corrected.
    pub(crate) cleaned: u32,
    /// Deadlines among the fired that are later than the one before.
    pub(crate) steps: u32,
    /// The last deadline that fired.
    last: u64,
}

/// Writes the deadline of an arm into its record.
#[inline]
fn write(node: &Node, deadline: u64, seq: u64) {
    node.state.set(State::Armed);
    node.deadline.set(deadline);
    node.seq.set(seq);
}

impl Heap {
    pub(crate) fn new() -> Heap {
        Heap {
            blocks: Vec::new(),
            len: 0,
            run: Run::new(),
            misses: 0,
            pulled: Pulled::new(),
            spare: Vec::new(),
            holes: 0,
            sweep: 0,
            most: 0,
        }
    }

    /// Returns the earliest key, or [`NEVER`] without entries. The key is at or before the earliest
    /// deadline.
    #[inline]
    pub(crate) fn first(&self) -> u64 {
        let root = if self.len == 0 { NEVER } else { self.key(0) };
        root.min(self.run.first().map_or(NEVER, |first| first.key)).min(self.pulled.first())
    }

    /// The number of entries.
    fn entries(&self) -> usize {
        self.len + self.run.len()
    }

    /// Returns the most entries that one call may touch: some 0.4 ms, by what the cache misses of a
    /// heap of this size cost.
    pub(crate) fn budget(&self) -> u32 {
        match self.entries() {
            0..8_192 => 4_096,
            8_192..65_536 => 2_048,
            65_536..524_288 => 1_024,
            _ => 512,
        }
    }

    /// Puts the `Idle` record of a slot in.
    #[inline]
    pub(crate) fn insert<O: Owner>(
        &mut self,
        slots: &Slots<O>,
        node: &Node,
        slot: u32,
        deadline: u64,
        seq: u64,
    ) {
        debug_assert_eq!(node.state.get(), State::Idle);
        write(node, deadline, seq & !STALE);
        let entry = Entry::new(deadline, slot);
        if self.run.has_place() && self.fits(slots, entry) {
            node.pos.set(IN_RUN | self.run.push_last(entry));
        } else {
            self.insert_other(slots, node, entry);
        }
    }

    /// [`insert`](Self::insert) of an entry that needs more than a place behind the last one.
    #[inline(never)]
    fn insert_other<O: Owner>(&mut self, slots: &Slots<O>, node: &Node, entry: Entry) {
        self.enter(slots, node, entry);
    }

    /// Puts the entry of a record into the run or into the heap.
    #[inline]
    fn enter<O: Owner>(&mut self, slots: &Slots<O>, node: &Node, entry: Entry) {
        if self.fits(slots, entry) {
            self.append(node, entry);
        } else {
            self.enter_otherwise(slots, node, entry);
        }
    }

    /// [`enter`](Self::enter) of an entry that goes to the heap, or takes the last entry of the run
    /// there.
    #[inline(never)]
    fn enter_otherwise<O: Owner>(&mut self, slots: &Slots<O>, node: &Node, entry: Entry) {
        self.misses += 1;
        if self.misses >= MISSES {
            self.enter_shortened(slots, node, entry);
        } else {
            self.push(slots, entry);
        }
    }

    /// [`enter`](Self::enter) after the last entry of the run has gone to the heap.
    #[cold]
    #[inline(never)]
    fn enter_shortened<O: Owner>(&mut self, slots: &Slots<O>, node: &Node, entry: Entry) {
        self.misses = 0;
        if let Some(last) = self.run.pop(&mut self.spare) {
            self.push(slots, last);
        }
        if self.fits(slots, entry) { self.append(node, entry) } else { self.push(slots, entry) }
    }

    /// Returns true if an entry may go to the end of the run.
    #[inline]
    fn fits<O: Owner>(&self, slots: &Slots<O>, entry: Entry) -> bool {
        let Some(last) = self.run.last() else { return true };
        last.key < entry.key || (last.key == entry.key && follows(slots, last, entry))
    }

    /// Puts the entry of a record at the end of the run.
    #[inline]
    fn append(&mut self, node: &Node, entry: Entry) {
        if self.run.needs_block() {
            return self.append_to_block(node, entry);
        }
        node.pos.set(IN_RUN | self.run.push(entry));
    }

    /// [`append`](Self::append) to a run whose blocks are full.
    #[cold]
    #[inline(never)]
    fn append_to_block(&mut self, node: &Node, entry: Entry) {
        let is_sparse = self.blocks.len() > 2 * self.heap_blocks();
        if self.spare.is_empty() && is_sparse {
            self.spare.extend(self.blocks.pop());
        }
        let block = self.take_block();
        self.run.grow(block);
        node.pos.set(IN_RUN | self.run.push(entry));
    }

    /// Takes a block that is not in use.
    ///
    /// The same entries may need more blocks later, because the run begins elsewhere and has holes.
    /// So this makes blocks ahead.
    fn take_block(&mut self) -> OwnBlock {
        let filled = (self.len + ROOT + self.run.places()) / BLOCK + 1;
        let enough = (2 * filled - 1).min(KEPT).max(filled) + AHEAD;
        if self.spare.is_empty() || self.usage().0 < filled + AHEAD {
            let missing = enough.saturating_sub(self.usage().0).max(1);
            self.spare.reserve(enough);
            self.spare.extend((0..missing).map(|_| Block::new()));
            self.blocks.reserve(enough.saturating_sub(self.blocks.len()));
            self.run.reserve(enough);
        }
        self.spare.pop().expect("a block was made")
    }

    /// Gives an `Armed` or `Stopped` record another deadline: a store where that is enough, else
    /// the entry moves.
    pub(crate) fn rearm<O: Owner>(
        &mut self,
        slots: &Slots<O>,
        node: &Node,
        slot: u32,
        deadline: u64,
        seq: u64,
    ) {
        let is_earlier = deadline < node.deadline.get();
        write(node, deadline, seq | STALE);
        if self.len < LARGE {
            self.move_earlier(slots, node, slot);
        } else if is_earlier && !self.pull(node, slot, deadline, seq) {
            // The list is full. The heap may be small when it has been emptied.
            self.settle(slots);
            self.move_earlier(slots, node, slot);
        }
    }

    /// Moves the entry of a record if the record is earlier.
    #[inline]
    fn move_earlier<O: Owner>(&mut self, slots: &Slots<O>, node: &Node, slot: u32) {
        let (pos, deadline, seq) = (node.pos.get(), node.deadline.get(), node.seq.get());
        let entry = Entry::new(deadline, slot);
        if pos & IN_RUN == 0 {
            let index = pos as usize;
            if deadline < self.key(index) {
                node.seq.set(seq & !STALE);
                // The entry only moves up. A look at its children would cost a cache miss.
                self.raise(slots, index, entry);
                self.trim();
            }
        } else if deadline < self.run.get(pos).key {
            node.seq.set(seq & !STALE);
            self.run.remove(pos, &mut self.spare);
            self.enter(slots, node, entry);
            self.run.tidy(slots, &mut self.spare);
        }
    }

    /// Returns the number of blocks, and of those that are used.
    #[inline]
    pub(crate) fn usage(&self) -> (usize, usize) {
        let run = self.run.blocks();
        (self.blocks.len() + run + self.spare.len(), self.heap_blocks() + run)
    }

    /// The number of blocks that the heap uses.
    fn heap_blocks(&self) -> usize {
        (self.len + ROOT).div_ceil(BLOCK)
    }

    /// Returns the most blocks that were used at once since the last call of
    /// [`measure`](Self::measure).
    pub(crate) fn most_used(&self) -> usize {
        (self.most.max(self.len) + ROOT).div_ceil(BLOCK) + self.run.most_blocks()
    }

    /// Begins to measure how many blocks are used.
    pub(crate) fn measure(&mut self) {
        self.most = self.len;
        self.run.measure();
    }

    /// Frees up to `most` blocks, so that `enough` are left. Returns true if that is done.
    pub(crate) fn shrink(&mut self, enough: usize, most: usize) -> bool {
        let (blocks, used) = self.usage();
        let enough = enough.max(KEPT).max(used);
        let mut excess = blocks.saturating_sub(enough);
        let is_last = excess <= most;
        excess = excess.min(most);
        let spare = excess.min(self.spare.len());
        self.spare.truncate(self.spare.len() - spare);
        self.blocks.truncate(self.blocks.len() - (excess - spare));
        if is_last {
            self.spare.shrink_to(enough);
            self.blocks.shrink_to(enough);
        }
        is_last
    }

    /// Takes an `Armed` or `Stopped` record out and makes it `Idle`.
    pub(crate) fn remove<O: Owner>(&mut self, slots: &Slots<O>, slot: u32) {
        let node = slots.node(slot);
        let pos = node.pos.replace(NONE);
        node.state.set(State::Idle);
        if pos & IN_RUN != 0 {
            self.run.remove(pos, &mut self.spare);
            return self.run.tidy(slots, &mut self.spare);
        }
        self.make_hole(pos as usize);
        self.holes += 1;
        self.trim();
        if self.holes > self.len / 2 && self.len > SWEEP_MIN {
            self.sweep(slots);
        }
    }

    /// Moves the records that are due at `now` to the ready list or the list of calls, in deadline
    /// order. Corrects stale keys and zombies at the root, also those that are not due yet. Touches
    /// at most `budget` entries. The rest stays in the queue.
    pub(crate) fn expire<O: Owner>(
        &mut self,
        slots: &Slots<O>,
        ready: &mut Ready,
        calls: &mut Ready,
        now: u64,
        budget: u32,
    ) -> Expired {
        let mut done = Expired::default();
        self.settle(slots);
        while done.fired + done.cleaned < budget {
            let Some((first, in_run)) = self.first_entry(slots) else { break };
            if first.is_hole() {
                self.remove_first(slots, in_run);
                done.cleaned += 1;
                continue;
            }
            let node = slots.node(first.slot());
            let (deadline, is_stale) = (node.deadline.get(), node.seq.get() & STALE != 0);
            if node.state.get() == State::Stopped {
                self.remove_first(slots, in_run);
                node.pos.set(NONE);
                node.state.set(State::Idle);
                done.cleaned += 1;
            } else if is_stale {
                self.renew_first(slots, in_run, node, Entry::new(deadline, first.slot()));
                done.cleaned += 1;
            } else if deadline <= now && deadline != NEVER {
                self.remove_first(slots, in_run);
                let list = if node.is(Flag::Callback) { &mut *calls } else { &mut *ready };
                list.push_node(slots, first.slot(), node);
                if done.fired > 0 && deadline > done.last {
                    done.steps += 1;
                }
                done.last = deadline;
                done.fired += 1;
            } else {
                break;
            }
        }
        done
    }

    /// The first entry of all, and if it is the run's.
    #[inline]
    fn first_entry<O: Owner>(&self, slots: &Slots<O>) -> Option<(Entry, bool)> {
        let first = self.run.first();
        if self.len == 0 {
            return first.map(|first| (first, true));
        }
        let root = self.get(0);
        let first = first.filter(|&first| goes_first(slots, first, root));
        Some(first.map_or((root, false), |first| (first, true)))
    }

    /// Takes the first entry out: the run's or the heap's.
    #[inline]
    fn remove_first<O: Owner>(&mut self, slots: &Slots<O>, in_run: bool) {
        if in_run { self.run.remove_first(&mut self.spare) } else { self.remove_root(slots) }
    }

    /// Puts the first entry, whose key is stale, where it belongs.
    fn renew_first<O: Owner>(&mut self, slots: &Slots<O>, in_run: bool, node: &Node, entry: Entry) {
        node.seq.set(node.seq.get() & !STALE);
        if in_run {
            self.run.remove_first(&mut self.spare);
            self.enter(slots, node, entry);
        } else if self.run.last().is_some() && self.fits(slots, entry) {
            self.remove_root(slots);
            self.append(node, entry);
        } else {
            self.sift_down(slots, 0, entry);
        }
    }

    /// Returns the latest time to wake up at: the least sum of a deadline and its slack. A timer
    /// without its own slack has `slack`. No slack is less than `least`. This looks at a bounded
    /// number of entries, so the result may be too early, but never too late. If all timers have
    /// the same slack, the result is exact.
    pub(crate) fn latest<O: Owner>(&mut self, slots: &Slots<O>, slack: u64, least: u64) -> u64 {
        /// Entries that are expected to fit into one window of slack, and their children.
        const LOOK: usize = 128;
        self.settle(slots);
        let slack_of = |entry: Entry| {
            let node = slots.node(entry.slot());
            let slacks = &slots.chunk(entry.slot()).slacks;
            let own = slacks.get(entry.slot()).filter(|_| node.is(Flag::Slack));
            own.map_or(slack, |own| own.get())
        };
        // When this entry's record wants to be woken up.
        let wanted = |entry: Entry| {
            let node = (!entry.is_hole()).then(|| slots.node(entry.slot()));
            let armed = node.filter(|node| node.state.get() == State::Armed);
            armed.map_or(NEVER, |node| node.deadline.get().saturating_add(slack_of(entry)))
        };
        let mut latest = NEVER;
        for (looked, entry) in self.run.iter().enumerate() {
            let bound = entry.key.saturating_add(least);
            if looked == LOOK || bound >= latest {
                // Nothing here or behind can wait for less.
                latest = latest.min(bound);
                break;
            }
            latest = latest.min(wanted(entry));
        }
        let mut open = [0usize; LOOK];
        let mut count = usize::from(self.len > 0);
        let mut looked = 0;
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
            latest = latest.min(wanted(entry));
            for child in children {
                open[count] = child;
                count += 1;
            }
        }
        latest
    }
}

/// Returns true if `entry` may stand behind `last` in the run, which has the same key: if it was
/// armed later. Nothing is known of the entries in front of a stale one.
#[cold]
#[inline(never)]
fn follows<O: Owner>(slots: &Slots<O>, last: Entry, entry: Entry) -> bool {
    let (last, seq) = (last.seq(slots), entry.seq(slots));
    last.is_some() && last < seq
}

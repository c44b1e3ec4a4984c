//! The sorted run: a queue of entries that came in the order of their keys.
//!
//! ```text
//!   begin            gap          gap                end
//!     │ entries, holes │ (nothing)  │ entries, holes   │
//!   remove_first                                     push, pop
//! ```
//! An entry that is taken out of the middle leaves a hole. When more than half are holes, a sweep
//! goes from the end to the beginning and moves the entries that it meets to the end, a few at a
//! time. The places that they leave are the gap. When the sweep has reached the beginning, the run
//! begins behind the gap.

use std::collections::VecDeque;

use super::{BLOCK, Block, Entry, IN_RUN, SWEEP_MIN, SWEEP_STEP};
use crate::reactor::parts::slots::{Owner, Slots};

/// Places are numbered modulo this. A place has the number modulo [`BLOCK`] in its block.
const NUMBERS: u32 = IN_RUN;

type Spare = Vec<Box<Block>>;

#[derive(Debug)]
pub(super) struct Run {
    /// Those with places of the run; one more while the run is empty.
    blocks: VecDeque<Box<Block>>,
    begin: u32,
    end: u32,
    holes: usize,
    gap: Option<(u32, u32)>,
}

/// The number of places from one to the other.
#[inline]
fn distance(from: u32, to: u32) -> usize {
    (to.wrapping_sub(from) % NUMBERS) as usize
}

#[inline]
fn next(number: u32) -> u32 {
    (number + 1) % NUMBERS
}

#[inline]
fn previous(number: u32) -> u32 {
    number.wrapping_sub(1) % NUMBERS
}

impl Run {
    pub(super) const fn new() -> Run {
        Run { blocks: VecDeque::new(), begin: 0, end: 0, holes: 0, gap: None }
    }

    /// The number of entries, holes included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        distance(self.begin, self.end) - self.gap.map_or(0, |(from, to)| distance(from, to))
    }

    /// The number of blocks.
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The block and the place of this number.
    #[inline]
    fn find(&self, number: u32) -> (usize, usize) {
        let begin = self.begin - self.begin % BLOCK as u32;
        let at = distance(begin, number);
        (at / BLOCK, at % BLOCK)
    }

    /// The entry that a record's `pos` names, or the place with this number.
    #[inline]
    pub(super) fn get(&self, pos: u32) -> Entry {
        let (block, place) = self.find(pos % NUMBERS);
        self.blocks[block].0[place]
    }

    #[inline]
    fn entry(&mut self, pos: u32) -> &mut Entry {
        let (block, place) = self.find(pos % NUMBERS);
        &mut self.blocks[block].0[place]
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Entry> {
        (self.begin != self.end).then(|| self.get(self.begin))
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Entry> {
        (self.begin != self.end).then(|| self.get(previous(self.end)))
    }

    /// Returns true if [`push`](Self::push) wants one more block first.
    #[inline]
    pub(super) fn needs_block(&self) -> bool {
        self.find(self.end).0 == self.blocks.len()
    }

    /// Takes one more block.
    pub(super) fn grow(&mut self, block: Box<Block>) {
        self.blocks.push_back(block);
    }

    /// Puts an entry at the end. Returns its number.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let number = self.end;
        *self.entry(number) = entry;
        self.end = next(number);
        number
    }

    /// Takes the last entry out. Gives up where there are many holes.
    pub(super) fn pop(&mut self, spare: &mut Spare) -> Option<Entry> {
        for _ in 0..SWEEP_STEP {
            let last = self.last()?;
            self.remove_last(spare);
            if !last.is_hole() {
                return Some(last);
            }
        }
        None
    }

    /// Takes the first place away.
    #[inline]
    pub(super) fn remove_first(&mut self, spare: &mut Spare) {
        self.holes -= usize::from(self.get(self.begin).is_hole());
        let begin = next(self.begin);
        let gap = self.gap.filter(|&(from, _)| from == begin);
        if begin % BLOCK as u32 == 0 || begin == self.end || gap.is_some() {
            self.begin_at(gap.map_or(begin, |(_, to)| to), spare);
        } else {
            self.begin = begin;
        }
    }

    /// Begins at another place, behind the gap if there is one there.
    #[cold]
    #[inline(never)]
    fn begin_at(&mut self, begin: u32, spare: &mut Spare) {
        self.gap = self.gap.filter(|&(_, to)| to != begin);
        let before = self.find(begin).0.min(self.blocks.len());
        spare.extend(self.blocks.drain(..before));
        self.begin = begin;
        self.settle(spare);
    }

    /// Takes the last place away.
    fn remove_last(&mut self, spare: &mut Spare) {
        self.end = previous(self.end);
        self.holes -= usize::from(self.get(self.end).is_hole());
        if let Some((from, _)) = self.gap.take_if(|&mut (_, to)| to == self.end) {
            self.end = from;
        }
        self.settle(spare);
    }

    /// Gives back the blocks behind the end. An empty run keeps one.
    fn settle(&mut self, spare: &mut Spare) {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        let used = self.find(previous(self.end)).0 + 1;
        let used = if self.begin == self.end { 1 } else { used };
        while self.blocks.len() > used {
            spare.extend(self.blocks.pop_back());
        }
    }

    /// Makes a hole of the entry that a record's `pos` names. The record has this sequence.
    pub(super) fn remove(&mut self, pos: u32, seq: u64, spare: &mut Spare) {
        let entry = self.entry(pos);
        *entry = entry.hole(seq);
        self.holes += 1;
        if self.holes == self.len() {
            (self.end, self.gap, self.holes) = (self.begin, None, 0);
            return self.settle(spare);
        }
        for _ in 0..SWEEP_STEP {
            if self.last().is_some_and(Entry::is_hole) {
                self.remove_last(spare);
            } else if self.first().is_some_and(Entry::is_hole) {
                self.remove_first(spare);
            } else {
                break;
            }
        }
    }

    /// Goes on with the sweep, or begins one if there are too many holes.
    #[inline]
    pub(super) fn tidy<O: Owner>(&mut self, slots: &Slots<O>, spare: &mut Spare) {
        let len = self.len();
        if self.gap.is_some() || (self.holes > len / 2 && len > SWEEP_MIN) {
            self.sweep(slots, spare);
        }
    }

    #[cold]
    #[inline(never)]
    fn sweep<O: Owner>(&mut self, slots: &Slots<O>, spare: &mut Spare) {
        let (mut from, mut to) = self.gap.unwrap_or((self.end, self.end));
        for _ in 0..SWEEP_STEP {
            if from == self.begin {
                return self.begin_at(to, spare);
            }
            from = previous(from);
            let entry = self.get(from);
            if entry.is_hole() {
                self.holes -= 1;
            } else {
                to = previous(to);
                *self.entry(to) = entry;
                slots.node(entry.slot()).pos.set(IN_RUN | to);
            }
            self.gap = Some((from, to));
        }
    }

    /// The entries, holes included, with their numbers.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, Entry)> {
        let mut at = self.begin;
        std::iter::from_fn(move || {
            at = self.gap.filter(|&(from, _)| from == at).map_or(at, |(_, to)| to);
            let number = (at != self.end).then_some(at)?;
            at = next(at);
            Some((number, self.get(number)))
        })
    }

    /// The entries, holes included.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.numbered().map(|(_, entry)| entry)
    }

    /// Panics unless the counts are right. O(n).
    #[cfg(test)]
    pub(super) fn verify(&self) {
        assert_eq!(self.iter().filter(|entry| entry.is_hole()).count(), self.holes);
        assert_eq!(self.iter().count(), self.len());
    }
}

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

use super::entry::{BLOCK, Entry, OwnBlock};
use super::{IN_RUN, SWEEP_MIN, SWEEP_STEP};
use crate::reactor::parts::slots::{Owner, Slots};

/// Places are numbered modulo this. A place has the number modulo [`BLOCK`] in its block.
const NUMBERS: u32 = IN_RUN;

type Spare = Vec<OwnBlock>;

#[derive(Debug)]
pub(super) struct Run {
    /// The blocks with places of the run, and perhaps one block more.
    blocks: VecDeque<OwnBlock>,
    begin: u32,
    end: u32,
    /// The entries at the two ends, unless the run is empty.
    first: Entry,
    last: Entry,
    holes: usize,
    gap: Option<(u32, u32)>,
    /// The most blocks since the last call of [`measure`](Run::measure).
    most: usize,
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
    pub(super) fn new() -> Run {
        let none = Entry::default();
        let blocks = VecDeque::new();
        Run { blocks, begin: 0, end: 0, first: none, last: none, holes: 0, gap: None, most: 0 }
    }

    /// The number of entries, holes included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        distance(self.begin, self.end) - self.gap.map_or(0, |(from, to)| distance(from, to))
    }

    /// The number of places, the gap included.
    pub(super) fn places(&self) -> usize {
        distance(self.begin, self.end)
    }

    /// The number of blocks.
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The most blocks at once since the last call of [`measure`](Self::measure).
    pub(super) fn most_blocks(&self) -> usize {
        self.most
    }

    /// Begins to measure the number of blocks.
    pub(super) fn measure(&mut self) {
        self.most = self.blocks.len();
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
        self.blocks[block].get(place)
    }

    #[inline]
    fn set(&mut self, number: u32, entry: Entry) {
        let (block, place) = self.find(number);
        self.blocks[block].set(place, entry);
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Entry> {
        (self.begin != self.end).then_some(self.first)
    }

    #[inline]
    pub(super) fn last(&self) -> Option<Entry> {
        (self.begin != self.end).then_some(self.last)
    }

    /// Returns true if [`push`](Self::push) wants one more block first.
    #[inline]
    pub(super) fn needs_block(&self) -> bool {
        self.end % BLOCK as u32 == 0 && self.find(self.end).0 == self.blocks.len()
    }

    /// Gives the run one more block.
    pub(super) fn grow(&mut self, block: OwnBlock) {
        self.blocks.push_back(block);
        self.most = self.most.max(self.blocks.len());
    }

    /// Makes room for so many blocks.
    pub(super) fn reserve(&mut self, blocks: usize) {
        self.blocks.reserve(blocks.saturating_sub(self.blocks.len()));
    }

    /// Returns true if the run is not empty and ends within a block.
    #[inline]
    pub(super) fn has_place(&self) -> bool {
        self.begin != self.end && self.end % BLOCK as u32 != 0
    }

    /// [`push`](Self::push) to a run that [`has a place`](Self::has_place).
    #[inline]
    pub(super) fn push_last(&mut self, entry: Entry) -> u32 {
        let number = self.end;
        self.last = entry;
        self.set(number, entry);
        self.end = next(number);
        number
    }

    /// Puts an entry at the end. Returns its number.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        let number = self.end;
        if number == self.begin {
            self.first = entry;
        }
        self.last = entry;
        self.set(number, entry);
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
        self.holes -= usize::from(self.first.is_hole());
        let begin = next(self.begin);
        if begin % BLOCK as u32 == 0 || self.gap.is_some() {
            self.begin_at(begin, spare);
        } else {
            self.begin = begin;
        }
        if self.begin != self.end {
            self.first = self.get(self.begin);
        }
    }

    /// Begins at another place, or behind the gap if that is there.
    #[cold]
    #[inline(never)]
    fn begin_at(&mut self, begin: u32, spare: &mut Spare) {
        let gap = self.gap.take_if(|&mut (from, _)| from == begin);
        let begin = gap.map_or(begin, |(_, to)| to);
        let before = self.find(begin).0.min(self.blocks.len());
        spare.extend(self.blocks.drain(..before));
        self.begin = begin;
    }

    /// Takes the last place away.
    fn remove_last(&mut self, spare: &mut Spare) {
        self.end = previous(self.end);
        self.holes -= usize::from(self.last.is_hole());
        if let Some((from, _)) = self.gap.take_if(|&mut (_, to)| to == self.end) {
            self.end = from;
        }
        self.settle(spare);
    }

    /// Gives back the blocks behind the end, but for one.
    fn settle(&mut self, spare: &mut Spare) {
        let used = self.find(self.end).0 + 1;
        while self.blocks.len() > used {
            spare.extend(self.blocks.pop_back());
        }
        if self.begin != self.end {
            (self.first, self.last) = (self.get(self.begin), self.get(previous(self.end)));
        }
    }

    /// Makes a hole of the entry that a record's `pos` names.
    pub(super) fn remove(&mut self, pos: u32, spare: &mut Spare) {
        let number = pos % NUMBERS;
        self.holes += 1;
        if number == self.begin {
            self.first.make_hole();
            self.remove_first(spare);
        } else if number == previous(self.end) {
            self.last.make_hole();
            self.remove_last(spare);
        } else {
            let (block, place) = self.find(number);
            self.blocks[block].make_hole(place);
        }
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
        for _ in 0..SWEEP_STEP {
            if self.gap.is_none() && self.last.is_hole() {
                // The last place is never the gap's.
                self.remove_last(spare);
                continue;
            }
            if self.begin == self.end {
                return;
            }
            let (mut from, mut to) = self.gap.unwrap_or((self.end, self.end));
            from = previous(from);
            let entry = self.get(from);
            if entry.is_hole() {
                self.holes -= 1;
            } else {
                to = previous(to);
                self.set(to, entry);
                slots.node(entry.slot()).pos.set(IN_RUN | to);
            }
            self.gap = Some((from, to));
            if from == self.begin {
                self.begin_at(from, spare);
                return self.settle(spare);
            }
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

    /// Begins an empty run so many places before the numbers start again at zero.
    #[cfg(test)]
    pub(super) fn begin_before_zero(&mut self, left: u32) {
        assert_eq!((self.begin, self.blocks.len()), (self.end, 0));
        (self.begin, self.end) = (NUMBERS - left, NUMBERS - left);
    }

    #[cfg(test)]
    pub(super) fn is_sweeping(&self) -> bool {
        self.gap.is_some()
    }

    /// Panics unless the counts are right. O(n).
    #[cfg(test)]
    pub(super) fn verify(&self) {
        assert_eq!(self.iter().filter(|entry| entry.is_hole()).count(), self.holes);
        assert_eq!(self.iter().count(), self.len());
        assert_eq!(self.iter().next(), self.first());
        assert_eq!(self.iter().last(), self.last());
    }
}

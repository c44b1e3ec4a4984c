//! Marks: one bit for each slot of a reactor, set by any thread, taken by the reactor.
//!
//! Setting a mark twice is the same as setting the mark once. So every sender sets the whole mark,
//! and never relies on another sender, which may stop in the middle. The bits form three levels: a
//! bit of a word, a bit for the word in its group's summary, and a bit for the group in `any`. A
//! sender sets the lowest level first, and the reactor clears the highest level first. Either the
//! reactor finds the bit, or the sender's later steps set the higher levels for the next look.
//!
//! A mark is a hint, after which the reactor looks at the channel. So a late mark for a reused slot
//! does no harm.

use std::sync::OnceLock;

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

/// The words of a group, and the bits of a word. The models need fewer.
const WORDS: usize = if cfg!(all(loom, test)) { 1 } else { 64 };
const BITS: usize = 64;
const GROUP: usize = WORDS * BITS;
/// Segment `k` has `2^(k + 1)` groups: enough for 2^32 slots.
const SEGMENTS: usize = if cfg!(all(loom, test)) { 1 } else { 20 };

pub(crate) struct Marks {
    /// A bit for each group, modulo 64, that may have marks.
    any: AtomicU64,
    /// The number of groups up to the highest one that was prepared.
    groups: AtomicUsize,
    /// The group of the lowest slots, which are the most used.
    first: Group,
    /// The other groups, made when a slot of theirs is first prepared.
    segments: [OnceLock<Box<[Group]>>; SEGMENTS],
}

struct Group {
    /// A bit for each word that may have marks.
    summary: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Group {
    fn new() -> Group {
        Group { summary: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// Returns the segment of a group behind the first, and its place in that segment.
fn place(group: usize) -> (usize, usize) {
    let segment = (usize::BITS - 1 - (group + 1).leading_zeros()) as usize;
    (segment - 1, group + 1 - (1 << segment))
}

/// Sets bits that are mostly set already. Loads first, and makes a read-modify-write only where a
/// bit is missing.
#[inline]
fn set(word: &AtomicU64, bits: u64) {
    if word.load(Ordering::SeqCst) & bits != bits {
        word.fetch_or(bits, Ordering::SeqCst);
    }
}

impl Marks {
    pub(crate) fn new() -> Marks {
        Marks {
            any: AtomicU64::new(0),
            groups: AtomicUsize::new(1),
            first: Group::new(),
            segments: [const { OnceLock::new() }; SEGMENTS],
        }
    }

    /// Makes the memory for a slot's mark, so that no sender allocates. Only the reactor calls
    /// this.
    pub(crate) fn prepare(&self, slot: u32) {
        let number = slot as usize / GROUP;
        if number < self.groups.load(Ordering::Relaxed) {
            return;
        }
        for segment in 0..=place(number).0 {
            self.segments[segment]
                .get_or_init(|| std::iter::repeat_with(Group::new).take(2 << segment).collect());
        }
        self.groups.store(number + 1, Ordering::Relaxed);
    }

    #[inline]
    fn group(&self, number: usize) -> Option<&Group> {
        if number == 0 {
            return Some(&self.first);
        }
        let (segment, at) = place(number);
        self.segments[segment].get().map(|groups| &groups[at])
    }

    /// Sets the mark of a slot that was [prepared](Self::prepare).
    #[inline]
    pub(crate) fn mark(&self, slot: u32) {
        let slot = slot as usize;
        let number = slot / GROUP;
        let Some(group) = self.group(number) else { return };
        let (word, bit) = (slot % GROUP / BITS, slot % BITS);
        group.words[word].fetch_or(1 << bit, Ordering::SeqCst);
        set(&group.summary, 1 << word);
        set(&self.any, 1 << (number % 64));
    }

    /// Returns true if a mark may be there.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.any.load(Ordering::SeqCst) != 0
    }

    /// Takes all marks, and calls `each` with their slots.
    #[inline]
    pub(crate) fn take(&self, mut each: impl FnMut(u32)) {
        let any = self.any.swap(0, Ordering::SeqCst);
        if any & 1 != 0 {
            self.first.take(0, &mut each);
        }
        if any == 1 && self.groups.load(Ordering::Relaxed) <= 64 {
            return;
        }
        let groups = self.groups.load(Ordering::Relaxed);
        if groups > 1 {
            let is_marked = |number: &usize| any >> (number % 64) & 1 != 0;
            for number in (1..groups).filter(is_marked) {
                if let Some(group) = self.group(number) {
                    group.take(number * GROUP, &mut each);
                }
            }
        }
    }
}

impl Group {
    #[inline]
    fn take(&self, base: usize, each: &mut impl FnMut(u32)) {
        let mut summary = self.summary.swap(0, Ordering::SeqCst);
        while summary != 0 {
            let word = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            let mut bits = self.words[word % WORDS].swap(0, Ordering::SeqCst);
            while bits != 0 {
                let slot = base + word * BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                each(slot as u32);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_marked_slot_is_taken_once() {
        let marks = Marks::new();
        let slots = [0, 1, 63, 64, 4_095, 4_096, 12_287, 12_288, 300_000, 5_000_000];
        for slot in slots {
            marks.prepare(slot);
            marks.mark(slot);
            marks.mark(slot);
        }
        assert!(marks.is_marked());
        let mut taken = Vec::new();
        marks.take(|slot| taken.push(slot));
        taken.sort_unstable();
        assert_eq!(taken, slots);
        assert!(!marks.is_marked());
        marks.take(|slot| panic!("slot {slot} was taken twice"));
    }

    #[test]
    fn no_mark_of_several_threads_is_lost() {
        let marks = Marks::new();
        (0..10_000).step_by(4_096).for_each(|slot| marks.prepare(slot));
        let mut seen = vec![false; 10_000];
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let marks = &marks;
                    scope.spawn(move || (n..10_000).step_by(4).for_each(|slot| marks.mark(slot)))
                })
                .collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                marks.take(|slot| seen[slot as usize] = true);
            }
        });
        marks.take(|slot| seen[slot as usize] = true);
        assert!(seen.iter().all(|&seen| seen));
    }
}

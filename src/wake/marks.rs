//! Marks: one bit for each slot of a reactor, set by any thread, taken by the reactor.
//!
//! Setting a mark twice is setting it once, so every sender sets the whole mark itself and never
//! relies on another sender, which may stand still in the middle. The bits form three levels:
//! a bit of a word, a bit for the word in its group's summary, a bit for the group in `any`.
//! A sender sets them from below; the reactor clears them from above. Either the reactor finds the
//! bit, or the sender's later steps leave a trace on the levels above for the next look.
//!
//! A mark is a hint: the reactor asks the channel. So a late mark for a reused slot does no harm.

use std::sync::OnceLock;

use crate::sync::{AtomicU64, Ordering};

/// Words of a group, and bits of a word. loom gets by with less.
const WORDS: usize = if cfg!(all(loom, test)) { 1 } else { 64 };
const BITS: usize = 64;
const GROUP: usize = WORDS * BITS;
/// Segment `k` has `2^k` groups: enough for 2^32 slots.
const SEGMENTS: usize = if cfg!(all(loom, test)) { 1 } else { 21 };

pub(crate) struct Marks {
    /// A bit for each group, modulo 64, that may have marks.
    any: AtomicU64,
    /// Groups, made when a slot of theirs is first prepared.
    segments: [OnceLock<Box<[Group]>>; SEGMENTS],
}

struct Group {
    /// A bit for each word that may have marks.
    summary: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The segment of a group, and its place there.
#[inline]
fn place(group: usize) -> (usize, usize) {
    let segment = (usize::BITS - 1 - (group + 1).leading_zeros()) as usize;
    (segment, group + 1 - (1 << segment))
}

/// Sets bits that are mostly set already: a load, and a read-modify-write only where one is missing.
#[inline]
fn set(word: &AtomicU64, bits: u64) {
    if word.load(Ordering::SeqCst) & bits != bits {
        word.fetch_or(bits, Ordering::SeqCst);
    }
}

impl Marks {
    pub(crate) fn new() -> Marks {
        Marks { any: AtomicU64::new(0), segments: [const { OnceLock::new() }; SEGMENTS] }
    }

    /// Makes the memory for a slot's mark, so that no sender allocates.
    pub(crate) fn prepare(&self, slot: u32) {
        let (segment, _) = place(slot as usize / GROUP);
        self.segments[segment].get_or_init(|| {
            let group =
                || Group { summary: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) };
            std::iter::repeat_with(group).take(1 << segment).collect()
        });
    }

    /// Sets the mark of a slot that was [prepared](Self::prepare).
    pub(crate) fn mark(&self, slot: u32) {
        let slot = slot as usize;
        let number = slot / GROUP;
        let (segment, at) = place(number);
        let Some(groups) = self.segments[segment].get() else { return };
        let (group, word, bit) = (&groups[at], slot % GROUP / BITS, slot % BITS);
        set(&group.words[word], 1 << bit);
        set(&group.summary, 1 << word);
        set(&self.any, 1 << (number % 64));
    }

    /// Returns true if a mark may be there.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.any.load(Ordering::SeqCst) != 0
    }

    /// Takes all marks away and calls `each` with their slots.
    pub(crate) fn take(&self, mut each: impl FnMut(u32)) {
        let any = self.any.swap(0, Ordering::SeqCst);
        for segment in 0..SEGMENTS {
            // Segments are made in any order: one of high slots may be there without the lower ones.
            let Some(groups) = self.segments[segment].get() else { continue };
            for (at, group) in groups.iter().enumerate() {
                let number = at + (1 << segment) - 1;
                if any >> (number % 64) & 1 == 0 || group.summary.load(Ordering::SeqCst) == 0 {
                    continue;
                }
                let mut summary = group.summary.swap(0, Ordering::SeqCst);
                while summary != 0 {
                    let word = summary.trailing_zeros() as usize;
                    summary &= summary - 1;
                    let mut bits = group.words[word].swap(0, Ordering::SeqCst);
                    while bits != 0 {
                        let slot = number * GROUP + word * BITS + bits.trailing_zeros() as usize;
                        bits &= bits - 1;
                        each(slot as u32);
                    }
                }
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
    fn marks_of_several_threads_all_come() {
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

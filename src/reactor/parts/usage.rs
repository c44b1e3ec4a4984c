//! When memory that a burst has left may go (`tidy.rs`).

use std::cell::Cell;

use crate::channel::usage::{KEPT, LONG};
use crate::sys::Time;

/// As many parts of 4 KiB are never too many.
const FEW_PARTS: usize = KEPT / 4_096;
/// Entries of a list that are never too many.
pub(crate) const FEW: usize = KEPT / size_of::<(u64, u32)>();

/// One memory, watched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measure {
    since: Option<Time>,
    /// The second is over: as many parts are enough.
    enough: Option<usize>,
}

/// The memories of a reactor that may shrink.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measures {
    pub(crate) slots: Measure,
    pub(crate) heap: Measure,
}

/// Returns true if less than an eighth of so many parts is used.
#[inline]
pub(crate) fn is_sparse((parts, used): (usize, usize)) -> bool {
    parts > FEW_PARTS && used * 8 < parts
}

impl Measure {
    /// A look at a memory of so many parts, of which as many are used now, and at most `most` since
    /// `watch` began to measure. Returns how many are enough, if the others may go.
    pub(crate) fn look(
        &mut self,
        now: Time,
        usage: (usize, usize),
        most: usize,
        watch: impl FnOnce(),
    ) -> Option<usize> {
        match self.since {
            _ if self.enough.is_some() => {}
            Some(since) if is_sparse((usage.0, most)) => {
                if usage.1 * 2 < most && now < since + LONG / 2 {
                    // The burst has just ended.
                    watch();
                }
                self.enough = (now >= since + LONG).then_some(2 * most);
            }
            _ => {
                watch();
                self.since = is_sparse(usage).then_some(now);
            }
        }
        self.enough
    }
}

/// The memory of a reactor that may have to go.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) measures: Cell<Measures>,
    /// The next turns look for it.
    pub(crate) untidy: Cell<bool>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_an_early_look_at_less_measures_anew() {
        // After ms, of 800 parts: used now, and at most; is it measured anew?
        let looks = [
            (0, 10, 700, true),
            (100, 30, 50, false),
            (499, 10, 50, true),
            (500, 10, 50, false),
            (999, 40, 50, false),
        ];
        let mut measure = Measure::default();
        for (ms, used, most, anew) in looks {
            let (now, mut measured) = (Time::from_nanos(ms * 1_000_000), false);
            assert_eq!(measure.look(now, (800, used), most, || measured = true), None);
            assert_eq!(measured, anew, "after {ms} ms");
        }
        let end = Time::from_nanos(1_000_000_000);
        assert_eq!(measure.look(end, (800, 10), 50, || ()), Some(100));
    }
}

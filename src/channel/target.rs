//! The party that is told of a channel's next message.
//!
//! The receiver moves: from a reactor to a thread, to another reactor. A sender may stall
//! while it tells the old party. So the receiver never overwrites an entry that a sender may read.
//! The receiver writes into an entry that nobody reads, and then names that entry.

use std::sync::{Arc, OnceLock};

use crate::sync::{AtomicUsize, Ordering, RwLock, yield_to_others};
use crate::wake::{Asked, Notify, RequestCell};

/// A party that waits for messages, and the slot that its reactor knows the channel by.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) notify: Arc<Notify>,
    pub(crate) slot: u32,
}

impl Target {
    fn is(&self, other: &Target) -> bool {
        Arc::ptr_eq(&self.notify, &other.notify) && self.slot == other.slot
    }
}

/// The parties that a channel tells. The module's text describes them. Only the receiver sets them.
#[repr(C)]
pub(super) struct Targets {
    /// The party that is told now: `NOBODY`, `FIRST`, or the number of an entry and 2.
    current: AtomicUsize,
    /// The first party, which most channels keep: read without a lock.
    first: OnceLock<Target>,
    entries: Entry,
}

const NOBODY: usize = 0;
const FIRST: usize = 1;

struct Entry {
    target: RwLock<Option<Target>>,
    next: OnceLock<Box<Entry>>,
}

impl Entry {
    fn new(target: Option<Target>) -> Entry {
        Entry { target: RwLock::new(target), next: OnceLock::new() }
    }
}

impl Targets {
    /// The length of the part that most senders read.
    #[cfg(all(test, not(loom)))]
    pub(super) const HOT: usize = std::mem::offset_of!(Targets, entries);

    pub(super) fn new() -> Targets {
        Targets {
            current: AtomicUsize::new(NOBODY),
            first: OnceLock::new(),
            entries: Entry::new(None),
        }
    }

    /// Tells the party what it asked for. Waits for no lock.
    #[inline(always)]
    pub(super) fn answer(&self, asked: Asked, cell: &RequestCell) {
        // Most channels keep their first party.
        match self.first.get() {
            Some(target) if self.current.load(Ordering::SeqCst) == FIRST => {
                target.notify.answer(asked, cell, target.slot);
            }
            _ => self.answer_another(asked, cell),
        }
    }

    #[cold]
    #[inline(never)]
    fn answer_another(&self, asked: Asked, cell: &RequestCell) {
        self.with(|target| target.notify.answer(asked, cell, target.slot));
    }

    /// Calls `f` with the party, if there is one. Waits for no lock.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(&Target) -> R) -> Option<R> {
        loop {
            match self.current.load(Ordering::SeqCst) {
                NOBODY => return None,
                FIRST => return self.first.get().map(f),
                number => {
                    if let Ok(guard) = self.entry(number - 2).target.try_read() {
                        return guard.as_ref().map(f);
                    }
                    // The receiver writes this entry, so `current` names another one by now.
                    yield_to_others();
                }
            }
        }
    }

    fn entry(&self, number: usize) -> &Entry {
        let mut entry = &self.entries;
        for _ in 0..number {
            let Some(next) = entry.next.get() else { break };
            entry = next;
        }
        entry
    }

    /// Names the party that is told from now on. Waits for nobody. Only the receiver calls it.
    pub(super) fn set(&self, target: Option<Target>) {
        let Some(target) = target else { return self.current.store(NOBODY, Ordering::SeqCst) };
        let first = self.first.get_or_init(|| target.clone());
        if first.is(&target) {
            return self.current.store(FIRST, Ordering::SeqCst);
        }
        let current = self.current.load(Ordering::Relaxed);
        let (mut number, mut entry) = (0, &self.entries);
        loop {
            if current == number + 2 {
                if entry
                    .target
                    .try_read()
                    .is_ok_and(|now| now.as_ref().is_some_and(|now| now.is(&target)))
                {
                    return;
                }
            } else if let Ok(mut place) = entry.target.try_write() {
                let before = place.replace(target);
                drop(place);
                self.current.store(number + 2, Ordering::SeqCst);
                return drop(before);
            }
            number += 1;
            if entry.next.get().is_none() {
                // Only we add entries: at most one for each sender that is stalled in an entry.
                let _ = entry.next.set(Box::new(Entry::new(Some(target))));
                return self.current.store(number + 2, Ordering::SeqCst);
            }
            let Some(next) = entry.next.get() else { return };
            entry = next;
        }
    }
}

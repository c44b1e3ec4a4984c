//! Lists that any thread adds to, takes from and closes, without waiting for another thread.
//!
//! A context keeps its children and callbacks in a [`Registry`], and the cause of its end in a
//! [`Once`]. They are here because they deal with raw pointers, as the rings of channels do.
//!
//! # The list
//! A registry is a chain of entries, the newest one first. The chain owns a count of each entry's
//! `Arc`: `head` owns the first entry's, and each entry's `next` owns that of the entry behind it.
//! - *Add*: exchanges `head` for the new entry, unless the registry is closed.
//! - *Take off*: marks the entry as gone. The entry stays in the chain until a thread sweeps.
//! - *Close*: exchanges `head` for a pointer that is no entry. So either an entry was added before
//!   and the closer finds it, or its owner finds the registry closed. There is no third case, and
//!   no lock that a third thread could hold.
//!
//! # Sweeping
//! When more entries are gone than are left, a thread that takes an entry off unlinks the entries
//! that are gone. That thread needs the broom, which is a lock that nobody waits for. The first
//! entry stays: only `add` and `close` change `head`.
//!
//! A closer may come while a sweeper is stalled with the broom. Then the closer walks the same
//! chain beside the sweeper, and takes no count from the chain:
//! - The sweeper unlinks, makes a fence, and looks whether the registry is closed. The closer
//!   closes, makes a fence, and walks. So either the closer does not find the unlinked entries, or
//!   the sweeper finds the registry closed.
//! - A sweeper that finds the registry closed frees nothing. The entries that it has unlinked lie
//!   under the broom until the registry is dropped. The same is true of the chain that the closer
//!   has walked.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicPtr, AtomicUsize, Mutex, Ordering, fence};

/// A value that is set once. The first thread to set it wins, and nobody waits for it.
pub(crate) struct Once<T> {
    /// The value, from `Arc::into_raw`, or null. The pointer changes once.
    value: AtomicPtr<T>,
    owns: PhantomData<Arc<T>>,
}

impl<T> Once<T> {
    pub(crate) fn new(value: Option<Arc<T>>) -> Once<T> {
        let value = value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        Once { value: AtomicPtr::new(value), owns: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // SeqCst: a reactor that is about to sleep looks here (`wake/mod.rs`, step 4).
        let value = self.value.load(Ordering::SeqCst);
        // SAFETY: null, or from `Arc::into_raw`. This object keeps that count until it is dropped.
        unsafe { value.as_ref() }
    }

    pub(crate) fn get_arc(&self) -> Option<Arc<T>> {
        self.get().map(|value| {
            let value: *const T = value;
            // SAFETY: the pointer is from `Arc::into_raw`, and this object keeps its count.
            unsafe { Arc::increment_strong_count(value) };
            // SAFETY: this is the count made above.
            unsafe { Arc::from_raw(value) }
        })
    }

    /// Returns true if this call has set the value.
    pub(crate) fn set(&self, value: Arc<T>) -> bool {
        let new = Arc::into_raw(value).cast_mut();
        let old = ptr::null_mut();
        if self.value.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return true;
        }
        // SAFETY: from `into_raw` above, and it was not stored.
        drop(unsafe { Arc::from_raw(new) });
        false
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        let value = self.value.load(Ordering::Acquire);
        if !value.is_null() {
            // SAFETY: from `Arc::into_raw`, and nobody uses this object any more.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

/// A value in a [`Registry`].
pub(crate) struct Entry<T> {
    value: T,
    gone: AtomicBool,
    /// The next older entry. Written by the thread that adds, then by the sweeper.
    next: AtomicPtr<Entry<T>>,
}

impl<T> Entry<T> {
    pub(crate) fn new(value: T) -> Arc<Entry<T>> {
        let next = AtomicPtr::new(ptr::null_mut());
        Arc::new(Entry { value, gone: AtomicBool::new(false), next })
    }

    pub(crate) fn value(&self) -> &T {
        &self.value
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn next(&self) -> *mut Entry<T> {
        let next = self.next.load(Ordering::Acquire);
        #[cfg(all(loom, test))]
        assert!(next != closed(), "this entry was freed");
        next
    }
}

/// Lets the models see that an entry is used after it was freed.
#[cfg(all(loom, test))]
impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        self.next.store(closed(), Ordering::Relaxed);
    }
}

/// A list that any thread changes without waiting. The module's text describes it.
pub(crate) struct Registry<T> {
    /// The newest entry, null, or `closed()`.
    head: AtomicPtr<Entry<T>>,
    /// A lower bound of the number of entries in the chain.
    linked: AtomicUsize,
    /// The number of entries that are gone, or about to go.
    gone: AtomicUsize,
    /// A thread wanted to sweep, and has not got the broom.
    asked: AtomicBool,
    /// The chain that the closer has walked beside a sweeper.
    walked: AtomicPtr<Entry<T>>,
    /// The right to unlink, and the entries that were unlinked while the registry was closed.
    broom: Mutex<Vec<Arc<Entry<T>>>>,
    owns: PhantomData<Arc<Entry<T>>>,
}

/// The number of entries that may be gone before a thread sweeps.
const LITTER: usize = if cfg!(all(loom, test)) { 0 } else { 16 };

/// The pointer that says "closed". No entry has this address.
fn closed<T>() -> *mut Entry<T> {
    ptr::without_provenance_mut(1)
}

impl<T> Registry<T> {
    pub(crate) fn new() -> Registry<T> {
        Registry {
            head: AtomicPtr::new(ptr::null_mut()),
            linked: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            walked: AtomicPtr::new(ptr::null_mut()),
            broom: Mutex::new(Vec::new()),
            owns: PhantomData,
        }
    }

    /// Adds an entry that is in no registry. Returns false if this one is closed.
    pub(crate) fn add(&self, entry: Arc<Entry<T>>) -> bool {
        // Counted first: a sweeper takes away no more than was counted.
        self.linked.fetch_add(1, Ordering::Relaxed);
        let new = Arc::into_raw(entry).cast_mut();
        let mut head = self.head.load(Ordering::SeqCst);
        while head != closed() {
            // SAFETY: from `into_raw` above, and not in the chain yet.
            unsafe { &*new }.next.store(head, Ordering::Relaxed);
            match self.head.compare_exchange(head, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        // SAFETY: from `into_raw` above, and it was not stored.
        drop(unsafe { Arc::from_raw(new) });
        false
    }

    /// Takes an entry off that was added here, once.
    ///
    /// Now and then this call sweeps: constant time for each entry, over all calls together.
    pub(crate) fn take_off(&self, entry: &Entry<T>) {
        // Counted first, as in `add`.
        self.gone.fetch_add(1, Ordering::Relaxed);
        entry.gone.store(true, Ordering::Release);
        while self.is_littered() {
            // Exchanges: the thread that clears the flag sees which entries are gone.
            self.asked.swap(true, Ordering::SeqCst);
            // Either the sweeper sees that we have asked, or we find the broom free.
            fence(Ordering::SeqCst);
            let Some(mut broom) = self.broom.try_lock() else { return };
            self.asked.swap(false, Ordering::SeqCst);
            let swept = self.sweep();
            fence(Ordering::SeqCst);
            if self.head.load(Ordering::SeqCst) == closed() {
                broom.extend(swept);
                return;
            }
            drop(broom);
            drop(swept); // without the broom
            fence(Ordering::SeqCst);
            if !self.asked.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn is_littered(&self) -> bool {
        let gone = self.gone.load(Ordering::Relaxed);
        gone > LITTER && gone > self.linked.load(Ordering::Relaxed) / 2
    }

    /// Unlinks the entries that are gone. The caller has the broom.
    fn sweep(&self) -> Vec<Arc<Entry<T>>> {
        let mut swept = Vec::new();
        let mut at = self.head.load(Ordering::SeqCst);
        if at == closed() {
            return swept;
        }
        // SAFETY: null, or an entry of the chain. Nobody frees one without the broom.
        while let Some(here) = unsafe { at.as_ref() } {
            let next = here.next();
            // SAFETY: as above.
            let Some(after) = (unsafe { next.as_ref() }) else { break };
            if after.is_gone() {
                here.next.store(after.next(), Ordering::Release);
                // SAFETY: the count that `here.next` owned. `after` keeps its own `next`, because
                // a closer may stand there.
                swept.push(unsafe { Arc::from_raw(next) });
            } else {
                at = next;
            }
        }
        self.linked.fetch_sub(swept.len(), Ordering::Relaxed);
        self.gone.fetch_sub(swept.len(), Ordering::Relaxed);
        swept
    }

    /// Closes the registry. Returns the entries that are not gone, the oldest first.
    pub(crate) fn close(&self) -> Vec<Arc<Entry<T>>> {
        let chain = self.head.swap(closed(), Ordering::SeqCst);
        let mut entries = Vec::new();
        if chain == closed() {
            return entries;
        }
        fence(Ordering::SeqCst);
        let broom = self.broom.try_lock();
        let mut at = chain;
        while !at.is_null() {
            // SAFETY: an entry of the chain that nobody frees: this thread has the broom, or the
            // sweeper finds the registry closed.
            let next = unsafe { &*at }.next();
            if broom.is_none() {
                // SAFETY: as above. The chain keeps its count.
                unsafe { Arc::increment_strong_count(at) };
            }
            // SAFETY: the count made above, or, with the broom, the chain's, which ends here.
            entries.push(unsafe { Arc::from_raw(at) });
            at = next;
        }
        if broom.is_none() {
            self.walked.store(chain, Ordering::Release);
        }
        drop(broom);
        entries.retain(|entry| !entry.is_gone());
        entries.reverse();
        entries
    }
}

impl<T> Drop for Registry<T> {
    fn drop(&mut self) {
        let mut at = self.head.load(Ordering::Acquire);
        if at == closed() {
            at = self.walked.load(Ordering::Acquire);
        }
        while !at.is_null() {
            // SAFETY: the chain's count, and nobody uses the chain any more.
            let entry = unsafe { Arc::from_raw(at) };
            at = entry.next();
        }
    }
}

/// For tests: a thread that is stalled with the broom, and a look at the entries.
#[cfg(all(test, not(loom)))]
impl<T> Registry<T> {
    pub(crate) fn lock(&self) -> impl Drop {
        self.broom.lock()
    }

    /// Calls `f` with each entry that is not gone, the newest first.
    pub(crate) fn each(&self, mut f: impl FnMut(&T)) {
        let _broom = self.broom.lock();
        let mut at = self.head.load(Ordering::SeqCst);
        if at == closed() {
            return;
        }
        // SAFETY: null, or an entry of the chain, and this thread has the broom.
        while let Some(entry) = unsafe { at.as_ref() } {
            if !entry.is_gone() {
                f(&entry.value);
            }
            at = entry.next();
        }
    }
}

/// Entries that count their drops.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicUsize as Count, Ordering::SeqCst};

    use super::*;

    /// Counts its drops, by its number.
    pub(crate) struct Counted(pub(crate) usize, pub(crate) Counts);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1[self.0].fetch_add(1, SeqCst);
        }
    }

    type Counts = Arc<Vec<Count>>;
    type Entries = Vec<Arc<Entry<Counted>>>;

    /// Makes a registry with `n` entries, and counts of drops for one more.
    pub(crate) fn filled(n: usize) -> (Arc<Registry<Counted>>, Entries, Counts) {
        let counts: Counts = Arc::new((0..=n).map(|_| Count::new(0)).collect());
        let registry = Arc::new(Registry::new());
        let new = |number| Entry::new(Counted(number, counts.clone()));
        let entries: Vec<_> = (0..n).map(new).collect();
        assert!(entries.iter().all(|entry| registry.add(entry.clone())));
        (registry, entries, counts)
    }

    pub(crate) fn close(registry: &Registry<Counted>) -> Vec<usize> {
        registry.close().iter().map(|entry| entry.value().0).collect()
    }

    pub(crate) fn each_is_freed_once(counts: &Counts, n: usize) {
        assert!(counts[..n].iter().all(|count| count.load(SeqCst) == 1));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::testing::*;
    use super::*;

    fn dropped(counts: &[AtomicUsize]) -> usize {
        counts.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    #[test]
    fn close_gives_the_rest_in_order() {
        let (registry, entries, counts) = filled(10);
        [3, 9, 0].iter().for_each(|at| registry.take_off(&entries[*at]));
        assert_eq!(close(&registry), [1, 2, 4, 5, 6, 7, 8]);
        assert!(close(&registry).is_empty());
        assert!(!registry.add(Entry::new(Counted(0, counts.clone()))), "closed");
        assert_eq!(dropped(&counts), 1);
        drop(entries);
        assert_eq!(dropped(&counts), 11, "a closed registry keeps nothing");
    }

    #[test]
    fn entries_that_are_gone_are_freed() {
        const N: usize = 2_000;
        let (registry, entries, counts) = filled(N);
        for (n, entry) in entries.into_iter().enumerate() {
            registry.take_off(&entry);
            drop(entry);
            let (left, kept) = (N - n - 1, N - dropped(&counts));
            assert!(kept <= 2 * left + LITTER + 2, "{kept} for {left}");
        }
        drop(registry);
        each_is_freed_once(&counts, N);
    }

    #[test]
    fn close_needs_no_broom() {
        let (registry, entries, counts) = filled(100);
        let broom = registry.broom.lock();
        (0..60).for_each(|at| registry.take_off(&entries[at]));
        // The sweeper is stalled after it has unlinked, and goes on when the registry is closed.
        let swept = registry.sweep();
        assert_eq!(swept.len(), 60);
        assert_eq!(close(&registry), (60..100).collect::<Vec<_>>());
        drop((broom, swept, entries));
        assert_eq!(dropped(&counts), 60);
        drop(registry);
        each_is_freed_once(&counts, 100);
    }

    #[test]
    fn concurrent_sweeps_and_closes_free_each_entry_once() {
        for round in 0..if cfg!(miri) { 5 } else { 300 } {
            const N: usize = 300;
            let (registry, mut entries, counts) = filled(N);
            let staying = entries.split_off(2 * N / 3);
            let going = entries.split_off(N / 3);
            let found = thread::scope(|scope| {
                let registry = &*registry;
                for part in [entries, going] {
                    scope.spawn(move || part.iter().for_each(|entry| registry.take_off(entry)));
                }
                let closer = scope.spawn(move || {
                    (0..round * 30).for_each(|_| std::hint::spin_loop());
                    close(registry)
                });
                closer.join().unwrap()
            });
            assert!((2 * N / 3..N).all(|number| found.contains(&number)));
            drop((registry, staying));
            each_is_freed_once(&counts, N);
        }
    }
}

//! The table of sets that the signal handler walks. No thread waits for a stopped handler.
//!
//! The kernel may stop a handler between any two instructions, for any time. So the table is made
//! of slots that are never freed, only reused, and each slot counts the handlers inside. The last
//! party to leave closes the set's fd: the owner, or a late handler.
//!
//! | state | meaning | next |
//! |---|---|---|
//! | `FREE` | no set has the slot | `claim`: `CLAIMED` |
//! | `CLAIMED` | one thread fills in the slot | `LIVE` |
//! | `LIVE` + n | a set; n handlers are inside | enter, leave: n; `retire`: `CLOSING` + n + 1 |
//! | `CLOSING` + n | no set; no handler enters | leave: n - 1; the last one closes: `FREE` |
//!
//! **No signal is lost between a handler and the end of the set.** A handler sets its bit in
//! `pending` and then leaves by a read-modify-write of `state`. `retire` changes `state` by such an
//! operation and then sweeps `pending`. One of the two operations on `state` comes first:
//! - If the handler is first, its bit happens before the sweep, which finds the bit.
//! - If the owner is first, the handler sees `CLOSING` as it leaves, and takes its bit back. If the
//!   sweep has already taken the bit, the owner is responsible for the signal.
//!
//! Taking a bit is one atomic operation, so exactly one of the two is responsible.
//!
//! **No signal is lost between two sets.** A handler that walks the table may pass a slot before a
//! set is made there. Then it may reach the slot of an older set that has gone meanwhile. So
//! `births` counts each new set once handlers see the set. A handler that has reached no set walks
//! again if that number has changed. Each repetition has a new set as its cause. A walk reaches
//! only the sets that were made before it. So a late handler does not give a new set a signal that
//! an older set has taken long ago.
//!
//! **The sets that have a signal.** `arrived` counts the handlers by signal. `taken` is the value
//! of `arrived` that the last successful `take` had seen. If `taken` has reached `arrived`, another
//! set has taken the signal whose bit is left over. `fresh` has the signals that a set has not
//! taken since it was made. Only such a set may have missed a signal that an older set has not
//! taken.

use std::ptr;

use super::atomics::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// The bound of the numbers of signals, which begin at 1. A word holds a set of signals.
#[cfg(not(all(loom, test)))]
pub(super) const COUNT: usize = 65;
#[cfg(all(loom, test))]
pub(super) const COUNT: usize = 3;

const FREE: usize = 0;
const CLAIMED: usize = 1 << 28;
const LIVE: usize = 1 << 29;
const CLOSING: usize = 1 << 30;

/// Returns the bit of a signal in a set.
pub(super) const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Returns the signals of a set, the lowest first.
pub(super) fn numbers(mut signals: u64) -> impl Iterator<Item = i32> {
    std::iter::from_fn(move || {
        let lowest = signals.trailing_zeros() as i32 + 1;
        signals &= signals.wrapping_sub(1);
        (lowest <= 64).then_some(lowest)
    })
}

/// A value that a handler raises, and that the last party to leave drops.
pub(super) trait Raise {
    fn raise(&self);
}

/// All slots, and the counts of arrived and taken signals.
pub(super) struct Table<F> {
    pub(super) head: AtomicPtr<Slot<F>>,
    pub(super) births: AtomicU64,
    pub(super) arrived: [AtomicU64; COUNT],
    pub(super) taken: [AtomicU64; COUNT],
}

/// The slot of one set.
pub(super) struct Slot<F> {
    state: AtomicUsize,
    /// The process that made the set. In a forked child the sets of its parent do not count.
    process: AtomicU64,
    /// The set's number in `births`.
    birth: AtomicU64,
    /// The signals that the set watches.
    signals: AtomicU64,
    /// The signals that have come and were not taken.
    pending: AtomicU64,
    fresh: AtomicU64,
    flag: UnsafeCell<Option<F>>,
    /// The next slot, which never changes once the slot is in the table.
    next: *const Slot<F>,
}

// SAFETY: `next` points to a slot that is never freed. `flag` is written only by the thread that
// has the slot `CLAIMED`, or that was the last to leave; it is read only by threads inside.
unsafe impl<F: Send + Sync> Send for Slot<F> {}
// SAFETY: as above.
unsafe impl<F: Send + Sync> Sync for Slot<F> {}

impl<F: Raise + 'static> Table<F> {
    /// Claims a slot with this flag, for a set that watches no signal yet. The caller holds the
    /// lock.
    pub(super) fn claim(&self, flag: F, process: u64) -> &'static Slot<F> {
        let free = self.iter().find(|slot| {
            let (order, failed) = (Ordering::Acquire, Ordering::Relaxed);
            slot.state.compare_exchange(FREE, CLAIMED, order, failed).is_ok()
        });
        let slot = free.unwrap_or_else(|| self.add_slot());
        slot.process.store(process, Ordering::Release);
        slot.birth.store(self.births() + 1, Ordering::Relaxed);
        slot.pending.store(0, Ordering::Relaxed);
        slot.fresh.store(0, Ordering::Relaxed);
        slot.flag.with_mut(|place| {
            // SAFETY: this thread has `CLAIMED` the slot, so no other thread reads or writes the
            // flag.
            unsafe { *place = Some(flag) }
        });
        slot.state.store(LIVE, Ordering::Release);
        slot
    }

    /// Adds a slot, which is never freed. There are as many slots as there were sets at one time.
    fn add_slot(&self) -> &'static Slot<F> {
        let head = self.head.load(Ordering::Acquire);
        let slot = Box::leak(Box::new(Slot {
            state: AtomicUsize::new(CLAIMED),
            process: AtomicU64::new(0),
            birth: AtomicU64::new(0),
            signals: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            flag: UnsafeCell::new(None),
            next: head,
        }));
        // Only the holder of the lock writes here.
        self.head.store(slot, Ordering::Release);
        slot
    }

    fn iter(&self) -> impl Iterator<Item = &'static Slot<F>> {
        let mut next: *const Slot<F> = self.head.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: the pointers in the table are null or of slots that are never freed.
            let slot = unsafe { next.as_ref() }?;
            next = slot.next;
            Some(slot)
        })
    }

    /// Makes the set in `slot` watch `signal`, before the handler is installed.
    pub(super) fn watch(&self, slot: &Slot<F>, signal: i32) {
        slot.fresh.fetch_or(bit(signal), Ordering::Relaxed);
        slot.signals.fetch_or(bit(signal), Ordering::Release);
        self.births.fetch_add(1, Ordering::Release);
    }

    /// Returns true if a set of `process` watches `signal`, other than the one in `but`. The caller
    /// holds the lock, because only the holder makes and ends sets.
    pub(super) fn is_watched(&self, signal: i32, process: u64, but: Option<&Slot<F>>) -> bool {
        self.iter().any(|slot| {
            let other = but.is_none_or(|but| !ptr::eq(but, slot));
            other && slot.is_watching(signal, process)
        })
    }

    /// Notes that `signal` has come. Called once by each handler.
    pub(super) fn arrive(&self, signal: i32) {
        self.arrived[signal as usize].fetch_add(1, Ordering::AcqRel);
    }

    /// Gives the signal to every set of `process` that watches it. Without such a set the error has
    /// the number of births before the walk, and the caller repeats the call after another birth. A
    /// handler may call this, because it takes no lock.
    pub(super) fn deliver(&self, signal: i32, process: u64) -> Result<(), u64> {
        let mut births = self.births();
        loop {
            let mut told = false;
            for slot in self.iter() {
                told |= slot.tell(signal, process, births);
            }
            let now = self.births();
            if told || now == births {
                return if told { Ok(()) } else { Err(now) };
            }
            births = now;
        }
    }

    pub(super) fn births(&self) -> u64 {
        self.births.load(Ordering::Acquire)
    }

    /// Returns true if sets have taken every arrival of this signal.
    pub(super) fn is_taken(&self, signal: i32) -> bool {
        let arrived = self.arrived[signal as usize].load(Ordering::Acquire);
        self.taken[signal as usize].load(Ordering::Acquire) >= arrived
    }

    /// Gives the signal to those sets of `process` that may have missed it. The caller holds the
    /// lock.
    pub(super) fn hand_on(&self, signal: i32, process: u64) {
        for slot in self.iter() {
            if slot.fresh.load(Ordering::Acquire) & bit(signal) != 0 {
                slot.tell(signal, process, u64::MAX);
            }
        }
    }

    /// Takes the lowest signal that has come to the set in `slot`. Only one caller gets each
    /// signal.
    pub(super) fn take(&self, slot: &Slot<F>) -> Option<i32> {
        loop {
            let signal = numbers(slot.pending.load(Ordering::Acquire)).next()?;
            // Both happen before the take, which does not cover later arrivals.
            slot.fresh.fetch_and(!bit(signal), Ordering::AcqRel);
            let arrived = self.arrived[signal as usize].load(Ordering::Acquire);
            if slot.pending.fetch_and(!bit(signal), Ordering::AcqRel) & bit(signal) != 0 {
                self.taken[signal as usize].fetch_max(arrived, Ordering::AcqRel);
                return Some(signal);
            }
        }
    }
}

impl<F: Raise> Slot<F> {
    pub(super) fn signals(&self) -> u64 {
        self.signals.load(Ordering::Acquire)
    }

    pub(super) fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }

    /// Returns the flag to the owner of the set.
    pub(super) fn flag(&self) -> &F {
        self.flag.with(|flag| {
            // SAFETY: no thread writes the flag while the set lives.
            unsafe { (*flag).as_ref() }.expect("a set has its flag until it is retired")
        })
    }

    fn is_watching(&self, signal: i32, process: u64) -> bool {
        let live = self.state.load(Ordering::Acquire) & LIVE != 0;
        live && self.signals() & bit(signal) != 0 && self.process.load(Ordering::Acquire) == process
    }

    /// Gives the signal to the set in this slot, if the set belongs to `process`, watches `signal`,
    /// and is no newer than `births`. Returns true if the set gets the signal, or if the thread
    /// that ended the set is responsible for it.
    fn tell(&self, signal: i32, process: u64, births: u64) -> bool {
        // This check avoids a write to shared memory. In a forked child it also keeps the handler
        // out of the parent's slots, which are not counted there.
        if !self.is_watching(signal, process) || !self.enter() {
            return false;
        }
        // The slot may have been reused between the check and the entry.
        let watches = self.signals() & bit(signal) != 0 && self.process() == process;
        let told = watches && self.birth.load(Ordering::Relaxed) <= births;
        if told {
            self.pending.fetch_or(bit(signal), Ordering::AcqRel);
            self.flag.with(|flag| {
                // SAFETY: `flag` is written only while no thread is inside, and this thread is
                // inside.
                if let Some(flag) = unsafe { (*flag).as_ref() } {
                    flag.raise();
                }
            });
        }
        self.leave(signal, told)
    }

    fn enter(&self) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        while state & LIVE != 0 {
            let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
            match self.state.compare_exchange_weak(state, state + 1, order, failed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    fn leave(&self, signal: i32, told: bool) -> bool {
        let mut state = self.state.load(Ordering::Acquire);
        while state & CLOSING == 0 {
            let (order, failed) = (Ordering::AcqRel, Ordering::Acquire);
            match self.state.compare_exchange_weak(state, state - 1, order, failed) {
                Ok(_) => return told,
                Err(now) => state = now,
            }
        }
        let bit = bit(signal);
        let back = told && self.pending.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        self.leave_closing();
        told && !back
    }

    /// Ends the set, and returns the signals that were not taken. The caller is responsible for
    /// them. Closes the fd, or leaves that to the last handler inside.
    pub(super) fn retire(&self) -> u64 {
        // Counts this thread as inside, so that the slot is not reused before the sweep.
        self.state.fetch_add(CLOSING - LIVE + 1, Ordering::AcqRel);
        let left = self.pending.swap(0, Ordering::AcqRel);
        self.leave_closing();
        left
    }

    fn leave_closing(&self) {
        if self.state.fetch_sub(1, Ordering::AcqRel) == CLOSING | 1 {
            self.close();
        }
    }

    /// Closes the fd and frees the slot. Only the last thread inside calls this.
    fn close(&self) {
        // SAFETY: no other thread is inside, and none can enter.
        let flag = self.flag.with_mut(|flag| unsafe { (*flag).take() });
        // Release, so that a handler that sees no signals also sees that the set is gone.
        self.signals.store(0, Ordering::Release);
        // The slot is free before the fd is closed. So a child that is forked now finds a set with
        // its fd, or no set.
        self.state.store(FREE, Ordering::Release);
        drop(flag);
    }

    /// Ends a set of the parent in a forked child. The counted handlers run in the parent.
    pub(super) fn abandon(&self) {
        self.close();
    }
}

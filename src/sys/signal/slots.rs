//! The table of sets that the signal handler walks. No thread waits for a handler that stands
//! still.
//!
//! The kernel may stop a handler between any two instructions, for any time. So the table is made
//! of slots that are never freed, only reused, and each slot counts the handlers inside. The last
//! party to leave closes the set's fd: the owner, or a handler that stood still.
//!
//! | state | means | next |
//! |---|---|---|
//! | `FREE` | nobody has the slot | `claim`: `CLAIMED` |
//! | `CLAIMED` | one thread fills in the slot | `LIVE` |
//! | `LIVE` + n | a set; n handlers are inside | enter, leave: n; `retire`: `CLOSING` + n + 1 |
//! | `CLOSING` + n | the set is gone; nobody enters | leave: n - 1; the last one closes: `FREE` |
//!
//! **No signal falls between a handler and the end of the set.** A handler sets its bit in
//! `pending` and then leaves by a read-modify-write of `state`. `retire` changes `state` by such an
//! operation and then sweeps `pending`. One of the two operations on `state` comes first:
//! - The handler's: its bit happens before the sweep, which finds the bit.
//! - The owner's: the handler sees `CLOSING` as it leaves and takes its bit back. If the sweep was
//!   faster the bit is gone, and the owner answers for the signal.
//!
//! Taking a bit is one atomic operation, so exactly one of the two answers.
//!
//! **No signal is missed between two sets.** A handler that walks the table may pass a slot before
//! a set is made there. Then it may reach the slot of an older set that has gone meanwhile. So
//! `births` counts each new set once handlers see it. A handler that told no set walks again if
//! that number has changed. Each repetition has a new set as its cause. A walk tells only the sets
//! that were born before it. So a handler that stood still does not tell a young set of a signal
//! that an older set has taken long ago.
//!
//! **The sets that were told.** `arrived` counts the handlers by signal. `taken` is the value of
//! `arrived` that the last successful `take` had seen. If `taken` has reached `arrived`, another
//! set has given the signal whose bit is left over. `fresh` has the signals that a set has not
//! taken since it was made. Only such a set may have missed a signal that an older set has not
//! taken.

use std::ptr;

use super::atomics::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// Signals are numbered from 1. A set of them is a word.
#[cfg(not(all(loom, test)))]
pub(super) const COUNT: usize = 65;
#[cfg(all(loom, test))]
pub(super) const COUNT: usize = 3;

const FREE: usize = 0;
const CLAIMED: usize = 1 << 28;
const LIVE: usize = 1 << 29;
const CLOSING: usize = 1 << 30;

/// The signal's place in a set.
pub(super) const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signals of a set, from the lowest.
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

/// All slots, and what has come and been taken.
pub(super) struct Table<F> {
    pub(super) head: AtomicPtr<Slot<F>>,
    pub(super) births: AtomicU64,
    pub(super) arrived: [AtomicU64; COUNT],
    pub(super) taken: [AtomicU64; COUNT],
}

/// The place of one set.
pub(super) struct Slot<F> {
    state: AtomicUsize,
    /// The process that made the set. In a forked child its parent's sets are nobody's.
    process: AtomicU64,
    /// The set's number in `births`.
    birth: AtomicU64,
    /// The signals that the set watches.
    signals: AtomicU64,
    /// Signals that have come.
    pending: AtomicU64,
    fresh: AtomicU64,
    flag: UnsafeCell<Option<F>>,
    /// Never changes once the slot is in the table.
    next: *const Slot<F>,
}

// SAFETY: `next` points to a slot that is never freed. `flag` is written only by the thread that
// has the slot `CLAIMED`, or that was the last to leave; it is read only by threads inside.
unsafe impl<F: Send + Sync> Send for Slot<F> {}
// SAFETY: as above.
unsafe impl<F: Send + Sync> Sync for Slot<F> {}

impl<F: Raise + 'static> Table<F> {
    /// A slot with this flag, of a set that watches nothing yet. The caller holds the lock.
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
            // SAFETY: the slot is `CLAIMED` by this thread, so nobody else reads or writes here.
            unsafe { *place = Some(flag) }
        });
        slot.state.store(LIVE, Ordering::Release);
        slot
    }

    /// One more slot, which is never freed. There are as many as there were sets at a time.
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

    /// The set in `slot` watches `signal`, too, from now on. Before the handler is installed.
    pub(super) fn watch(&self, slot: &Slot<F>, signal: i32) {
        slot.fresh.fetch_or(bit(signal), Ordering::Relaxed);
        slot.signals.fetch_or(bit(signal), Ordering::Release);
        self.births.fetch_add(1, Ordering::Release);
    }

    /// Returns true if a set of `process` watches `signal`, other than the one in `but`. Only to
    /// the holder of the lock the answer means something: only the holder makes and ends sets.
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

    /// Tells every set of `process` that watches `signal`. Says how many births it knows of if
    /// there was none; with each birth after that the caller asks again. For a handler: takes no
    /// lock.
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

    /// Returns true if all that has come of this signal was taken by some set.
    pub(super) fn is_taken(&self, signal: i32) -> bool {
        let arrived = self.arrived[signal as usize].load(Ordering::Acquire);
        self.taken[signal as usize].load(Ordering::Acquire) >= arrived
    }

    /// Tells those sets of `process` of which it is not known that they were. The caller holds the
    /// lock.
    pub(super) fn hand_on(&self, signal: i32, process: u64) {
        for slot in self.iter() {
            if slot.fresh.load(Ordering::Acquire) & bit(signal) != 0 {
                slot.tell(signal, process, u64::MAX);
            }
        }
    }

    /// Takes the lowest signal that has come to the set in `slot`. Each is given to one caller.
    pub(super) fn take(&self, slot: &Slot<F>) -> Option<i32> {
        loop {
            let signal = numbers(slot.pending.load(Ordering::Acquire)).next()?;
            // Both before the signal is taken: what comes after that is not covered by it.
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

    /// The flag, for the owner of the set.
    pub(super) fn flag(&self) -> &F {
        self.flag.with(|flag| {
            // SAFETY: as long as the set lives nobody writes here.
            unsafe { (*flag).as_ref() }.expect("a set has its flag until it is retired")
        })
    }

    fn is_watching(&self, signal: i32, process: u64) -> bool {
        let live = self.state.load(Ordering::Acquire) & LIVE != 0;
        live && self.signals() & bit(signal) != 0 && self.process.load(Ordering::Acquire) == process
    }

    /// Tells the set here, if it is one of `process` that watches `signal`, and no younger than
    /// `births`. Returns true if the set will have the signal, or whoever ended the set answers for
    /// it.
    fn tell(&self, signal: i32, process: u64, births: u64) -> bool {
        // A look before the write to memory that all threads share. In a forked child it also keeps
        // the handler out of the slots of the parent, which nobody counts there.
        if !self.is_watching(signal, process) || !self.enter() {
            return false;
        }
        // The slot may have been reused between the look and the entry.
        let watches = self.signals() & bit(signal) != 0 && self.process() == process;
        let told = watches && self.birth.load(Ordering::Relaxed) <= births;
        if told {
            self.pending.fetch_or(bit(signal), Ordering::AcqRel);
            self.flag.with(|flag| {
                // SAFETY: `flag` is written only when nobody is inside, and this thread is.
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

    /// Ends the set, and says which signals it leaves behind. The caller answers for those. Closes
    /// the fd, or leaves that to the last handler inside.
    pub(super) fn retire(&self) -> u64 {
        // Counts this thread as inside, so that nobody reuses the slot before the sweep.
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

    /// Closes the fd and gives the slot back. For the last thread that was inside.
    fn close(&self) {
        // SAFETY: nobody is inside and nobody can enter, so this thread is the only one here.
        let flag = self.flag.with_mut(|flag| unsafe { (*flag).take() });
        // Release: a handler that sees no signals here also sees that the set is gone.
        self.signals.store(0, Ordering::Release);
        // The slot is free before the fd is: a child that is forked now finds either a set that has
        // its fd, or none.
        self.state.store(FREE, Ordering::Release);
        drop(flag);
    }

    /// Ends a set of another process, in a forked child. The handlers that it counts run there.
    pub(super) fn abandon(&self) {
        self.close();
    }
}

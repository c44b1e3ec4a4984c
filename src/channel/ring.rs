//! The slots of a buffered channel: one ring of a power of two of them, which an unbounded channel replaces by one of twice the size when it is full.
//!
//! A slot is written by the sender that claimed its position and read by the receiver; its stamp says for which position it holds a value.
//! A stamp is never taken back: the next lap's position makes it stale.
//!
//! # Growing
//! Which ring a position is in is a part of the word that claims it (`State`), the *level*: each level's ring has twice the slots of the one below. The
//! first sender to claim in a level says where it starts; the receiver goes over to it there and frees the ring that it leaves, which nobody can have
//! claimed a slot in any more. So a channel keeps one ring, at most twice as large as it was ever full, and allocates only when it is fuller than ever.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use super::state::{FIRST_LEVEL, LEVELS, MAX_CAPACITY, Place};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell, relax};

/// Set in every stamp, so that a fresh slot (0) has none.
const WRITTEN: u64 = 1 << 63;
/// No position: the level has not begun.
const NOWHERE: u64 = u64::MAX;

struct Slot<T> {
    stamp: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// A ring of slots. Storage only: who may touch which slot when is up to `State`'s positions.
struct Ring<T> {
    slots: Box<[Slot<T>]>,
    mask: u64,
    /// The first position in this ring; `NOWHERE` until it was claimed.
    start: AtomicU64,
}

/// The rings of a channel: one for a bounded one, a series for an unbounded one, of which the receiver has freed the first ones.
pub(super) struct Storage<T> {
    levels: [AtomicPtr<Ring<T>>; LEVELS],
    /// The level that the receiver reads; nobody else looks at it.
    reading: AtomicUsize,
}

// SAFETY: a value is moved in by one thread and out by another, never shared: a slot is written only by the one sender that claimed its position and
// read only by the one receiver, after it has seen the stamp.
unsafe impl<T: Send> Send for Storage<T> {}
// SAFETY: as above; and a ring is freed only by the receiver, when no claimed position is in it.
unsafe impl<T: Send> Sync for Storage<T> {}

impl<T> Ring<T> {
    fn new(capacity: usize, start: u64) -> Ring<T> {
        assert!(
            capacity <= MAX_CAPACITY,
            "pollmux: a channel of {capacity} is more than the {MAX_CAPACITY} there can be"
        );
        let len = capacity.next_power_of_two();
        let fits = len.checked_mul(size_of::<Slot<T>>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
        assert!(fits, "pollmux: a channel of {capacity} does not fit into memory");
        Ring { slots: fresh(len), mask: len as u64 - 1, start: AtomicU64::new(start) }
    }

    #[inline]
    fn slot(&self, position: u64) -> &Slot<T> {
        &self.slots[(position & self.mask) as usize]
    }
}

/// `len` slots that hold nothing. Asks for zeroed memory, which for many costs nothing until it is used.
#[cfg(not(all(loom, test)))]
fn fresh<T>(len: usize) -> Box<[Slot<T>]> {
    use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
    let Ok(layout) = Layout::array::<Slot<T>>(len) else { unreachable!("the caller has checked the size") };
    // SAFETY: the layout is not empty: `len` is at least 1 and a slot has a stamp.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the memory is fresh, of the right size and alignment for the slice, and allocated as a `Box` allocates it. All zeroes is a valid slot: an
    // atomic 0 and an uninitialised value.
    unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(memory.cast::<Slot<T>>(), len)) }
}

#[cfg(all(loom, test))]
fn fresh<T>(len: usize) -> Box<[Slot<T>]> {
    (0..len)
        .map(|_| Slot { stamp: AtomicU64::new(0), value: UnsafeCell::new(MaybeUninit::uninit()) })
        .collect()
}

impl<T> Storage<T> {
    /// One ring for `capacity`.
    pub(super) fn bounded(capacity: usize) -> Storage<T> {
        Storage::with(capacity)
    }

    /// A small ring, to be replaced by larger ones.
    pub(super) fn unbounded() -> Storage<T> {
        Storage::with(FIRST_LEVEL)
    }

    fn with(first: usize) -> Storage<T> {
        let ring = Box::into_raw(Box::new(Ring::new(first, 0)));
        let level = |i| AtomicPtr::new(if i == 0 { ring } else { ptr::null_mut() });
        Storage { levels: std::array::from_fn(level), reading: AtomicUsize::new(0) }
    }

    /// Makes the ring of `level`, if nobody has yet. A sender that comes late, when the level is past, makes one that nobody uses.
    #[cold]
    pub(super) fn prepare(&self, level: usize) {
        let Some(place) = self.levels.get(level) else {
            panic!("pollmux: an unbounded channel holds too many messages")
        };
        if !place.load(Ordering::Acquire).is_null() {
            return;
        }
        let ring = Box::into_raw(Box::new(Ring::new(FIRST_LEVEL << level, NOWHERE)));
        if place.compare_exchange(ptr::null_mut(), ring, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `ring` came from `into_raw` above and nobody else has seen it.
            drop(unsafe { Box::from_raw(ring) });
        }
    }

    /// # Safety
    /// The ring must exist and not be freed while the reference lives: the caller has claimed a position in this level that was not received, or it is the receiver,
    /// and this is the level that it reads or the next one, which has begun.
    #[inline]
    unsafe fn ring(&self, level: usize) -> &Ring<T> {
        // SAFETY: by the caller's promise the pointer is that of a live ring.
        unsafe { &*self.levels[level].load(Ordering::Acquire) }
    }

    /// Moves `value` into the place that the caller has claimed.
    #[inline]
    pub(super) fn write(&self, place: Place, value: T) {
        // SAFETY: `State::claim` gave the caller a position in this level, after `prepare` had made its ring; the receiver does not free it before
        // it has received that position.
        let ring = unsafe { self.ring(place.level) };
        if place.first_of_level {
            ring.start.store(place.position, Ordering::Release);
        }
        let slot = ring.slot(place.position);
        // SAFETY: the position is the caller's alone, and was claimed only after the receiver had taken the value one lap before it out
        // (acquired through `head`). Whatever the slot's bytes are, no value is overwritten.
        slot.value.with_mut(|to| unsafe { (*to).write(value) });
        slot.stamp.store(place.position | WRITTEN, Ordering::Release);
    }

    /// Whether the value of `position`, the receiver's head, is there. Only the receiver calls it.
    #[inline]
    pub(super) fn is_written(&self, position: u64) -> bool {
        // SAFETY: the level that the receiver reads.
        let ring = unsafe { self.ring(self.reading.load(Ordering::Relaxed)) };
        ring.slot(position).stamp.load(Ordering::Acquire) == position | WRITTEN
    }

    /// Waits for the value of `position`, the receiver's head, which has been claimed in `level` or below. Only the receiver calls it.
    #[cold]
    pub(super) fn await_written(&self, position: u64, level: usize) {
        let mut round = 0;
        while !self.is_written(position) {
            let reading = self.reading.load(Ordering::Relaxed);
            // SAFETY: a level above the one that is read has been claimed in, so the next one has a ring, which only we could free.
            if reading < level && unsafe { self.ring(reading + 1) }.start.load(Ordering::Acquire) == position
            {
                self.reading.store(reading + 1, Ordering::Relaxed);
                let left = self.levels[reading].swap(ptr::null_mut(), Ordering::AcqRel);
                // SAFETY: every position of the ring left was received, so every sender that had one has written it and is gone from it; no
                // sender can claim one any more, for the word's level never goes back.
                drop(unsafe { Box::from_raw(left) });
                continue;
            }
            relax(round);
            round += 1;
        }
    }

    /// Moves the value of `position` out. Only the receiver calls it, once for each position, after `is_written` said yes.
    #[inline]
    pub(super) fn take(&self, position: u64) -> T {
        debug_assert!(self.is_written(position));
        // SAFETY: the level that the receiver reads.
        let ring = unsafe { self.ring(self.reading.load(Ordering::Relaxed)) };
        // SAFETY: `is_written` has acquired the sender's write; the receiver is alone and moves its head past this position, so the value is
        // read once; and no sender writes the slot before it has seen that head.
        ring.slot(position).value.with_mut(|from| unsafe { (*from).assume_init_read() })
    }
}

impl<T> Drop for Storage<T> {
    /// Frees the rings. The values are gone: the receiver has received or dropped them.
    fn drop(&mut self) {
        for level in &self.levels {
            let ring = level.load(Ordering::Acquire);
            if !ring.is_null() {
                // SAFETY: the pointer came from `into_raw`, was not freed, and nobody else is left.
                drop(unsafe { Box::from_raw(ring) });
            }
        }
    }
}

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

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

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

/// A ring of slots, in one piece with what there is to know of it. Storage only: who may touch which slot when is up to `State`'s positions.
#[repr(C)]
struct Ring<T> {
    mask: u64,
    /// The first position in this ring; `NOWHERE` until it was claimed.
    start: AtomicU64,
    /// A power of two of them, behind this.
    slots: [Slot<T>; 0],
}

/// The rings of a channel: one for a bounded one, a series for an unbounded one, of which the receiver has freed the first ones.
pub(super) struct Storage<T> {
    /// The level that the receiver reads; nobody else looks at it.
    reading: AtomicUsize,
    first: AtomicPtr<Ring<T>>,
    /// The levels above the first; none for a bounded channel.
    above: Box<[AtomicPtr<Ring<T>>]>,
}

// SAFETY: a value is moved in by one thread and out by another, never shared: a slot is written only by the one sender that claimed its position and
// read only by the one receiver, after it has seen the stamp.
unsafe impl<T: Send> Send for Storage<T> {}
// SAFETY: as above; and a ring is freed only by the receiver, when no claimed position is in it.
unsafe impl<T: Send> Sync for Storage<T> {}

impl<T> Ring<T> {
    /// Memory for a ring of `len` slots; `None` if there is no such amount.
    fn layout(len: usize) -> Option<Layout> {
        let slots = Layout::array::<Slot<T>>(len).ok()?;
        let (ring, _) = Layout::new::<Ring<T>>().extend(slots).ok()?;
        Some(ring.pad_to_align())
    }

    /// A ring with nothing in it. It asks for zeroed memory, which for many slots costs nothing until it is used.
    fn allocate(capacity: usize, start: u64) -> NonNull<Ring<T>> {
        assert!(
            capacity <= MAX_CAPACITY,
            "pollmux: a channel of {capacity} is more than the {MAX_CAPACITY} there can be"
        );
        let len = capacity.next_power_of_two();
        let Some(layout) = Ring::<T>::layout(len) else {
            panic!("pollmux: a channel of {capacity} does not fit into memory")
        };
        // SAFETY: the layout is not empty: there is a mask in it.
        let Some(ring) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        let ring = ring.cast::<Ring<T>>();
        // SAFETY: the memory is fresh and has room for a `Ring` at its beginning, aligned as the layout says. A slot of zeroes is a valid slot, an atomic 0 and an
        // uninitialised value, but for loom's.
        unsafe {
            ring.write(Ring { mask: len as u64 - 1, start: AtomicU64::new(start), slots: [] });
            #[cfg(all(loom, test))]
            for position in 0..len as u64 {
                let value = UnsafeCell::new(MaybeUninit::uninit());
                Ring::slot(ring, position).write(Slot { stamp: AtomicU64::new(0), value });
            }
        }
        ring
    }

    /// # Safety
    /// The ring must be from `allocate`, not freed, and nobody may use it any more.
    unsafe fn free(ring: NonNull<Ring<T>>) {
        // SAFETY: by the caller's promise it is a live ring.
        let mask = unsafe { ring.as_ref() }.mask;
        #[cfg(all(loom, test))]
        for position in 0..=mask {
            // SAFETY: the slot was made in `allocate`, and this is its end. A value in it is not dropped.
            unsafe { Ring::slot(ring, position).drop_in_place() };
        }
        let Some(layout) = Ring::<T>::layout(mask as usize + 1) else { unreachable!("it was allocated") };
        // SAFETY: allocated with the same layout, for it had the same length.
        unsafe { dealloc(ring.as_ptr().cast::<u8>(), layout) };
    }

    /// The place of a position.
    ///
    /// # Safety
    /// The ring must be from `allocate`, and not freed.
    #[inline(always)]
    unsafe fn slot(ring: NonNull<Ring<T>>, position: u64) -> NonNull<Slot<T>> {
        // SAFETY: the ring is live. Its slots begin where the array of none says, and there are `mask + 1` of them in the same piece of memory.
        unsafe {
            let slots = NonNull::new_unchecked(&raw mut (*ring.as_ptr()).slots).cast::<Slot<T>>();
            slots.add((position & (*ring.as_ptr()).mask) as usize)
        }
    }
}

impl<T> Storage<T> {
    /// One ring for `capacity`.
    pub(super) fn bounded(capacity: usize) -> Storage<T> {
        Storage::with(capacity, 0)
    }

    /// A small ring, to be replaced by larger ones.
    pub(super) fn unbounded() -> Storage<T> {
        Storage::with(FIRST_LEVEL, LEVELS - 1)
    }

    fn with(first: usize, above: usize) -> Storage<T> {
        let none = || AtomicPtr::new(ptr::null_mut());
        Storage {
            reading: AtomicUsize::new(0),
            first: AtomicPtr::new(Ring::allocate(first, 0).as_ptr()),
            above: std::iter::repeat_with(none).take(above).collect(),
        }
    }

    /// Where the ring of `level` is, or is to be. Mostly it is the first.
    #[inline(always)]
    fn level(&self, level: usize) -> &AtomicPtr<Ring<T>> {
        if level == 0 { &self.first } else { &self.above[level - 1] }
    }

    /// Makes the ring of `level`, if nobody has yet. A sender that comes late, when the level is past, makes one that nobody uses.
    #[cold]
    pub(super) fn prepare(&self, level: usize) {
        assert!(level <= self.above.len(), "pollmux: an unbounded channel holds too many messages");
        let place = self.level(level);
        if !place.load(Ordering::Acquire).is_null() {
            return;
        }
        let ring = Ring::allocate(FIRST_LEVEL << level, NOWHERE);
        if place
            .compare_exchange(ptr::null_mut(), ring.as_ptr(), Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: allocated above, and nobody else has seen it.
            unsafe { Ring::free(ring) };
        }
    }

    /// # Safety
    /// The ring must exist and not be freed while it is used: the caller has claimed a position in this level that was not received, or it is the receiver,
    /// and this is the level that it reads or the next one, which has begun.
    #[inline(always)]
    unsafe fn ring(&self, level: usize) -> NonNull<Ring<T>> {
        // SAFETY: by the caller's promise there is a ring.
        unsafe { NonNull::new_unchecked(self.level(level).load(Ordering::Acquire)) }
    }

    /// The slot of `position` in the ring of `level`.
    ///
    /// # Safety
    /// As for [`ring`](Self::ring), for as long as the slot is used.
    #[inline(always)]
    unsafe fn slot(&self, level: usize, position: u64) -> &Slot<T> {
        // SAFETY: the ring is live, and so are its slots, which are only ever shared: what changes in them are atomics and cells.
        unsafe { Ring::slot(self.ring(level), position).as_ref() }
    }

    /// Moves `value` into the place that the caller has claimed.
    #[inline]
    pub(super) fn write(&self, place: Place, value: T) {
        if place.first_of_level {
            // SAFETY: `State::claim` gave the caller a position in this level, after `prepare` had made its ring; the receiver does not free it before it has
            // received that position.
            unsafe { self.ring(place.level).as_ref() }.start.store(place.position, Ordering::Release);
        }
        // SAFETY: as above.
        let slot = unsafe { self.slot(place.level, place.position) };
        // SAFETY: the position is the caller's alone, and was claimed only after the receiver had taken the value one lap before it out
        // (acquired through `head`). Whatever the slot's bytes are, no value is overwritten.
        slot.value.with_mut(|to| unsafe { (*to).write(value) });
        slot.stamp.store(place.position | WRITTEN, Ordering::Release);
    }

    /// Whether the value of `position`, the receiver's head, is there. Only the receiver calls it.
    #[inline]
    pub(super) fn is_written(&self, position: u64) -> bool {
        // SAFETY: the level that the receiver reads.
        let slot = unsafe { self.slot(self.reading.load(Ordering::Relaxed), position) };
        slot.stamp.load(Ordering::Acquire) == position | WRITTEN
    }

    /// Waits for the value of `position`, the receiver's head, which has been claimed in `level` or below. Only the receiver calls it.
    #[cold]
    pub(super) fn await_written(&self, position: u64, level: usize) {
        let mut round = 0;
        while !self.is_written(position) {
            let reading = self.reading.load(Ordering::Relaxed);
            // SAFETY: a level above the one that is read has been claimed in, so the next one has a ring, which only we could free.
            let start = |level| unsafe { self.ring(level).as_ref() }.start.load(Ordering::Acquire);
            if reading < level && start(reading + 1) == position {
                self.reading.store(reading + 1, Ordering::Relaxed);
                if let Some(left) = NonNull::new(self.level(reading).swap(ptr::null_mut(), Ordering::AcqRel))
                {
                    // SAFETY: every position of the ring left was received, so every sender that had one has written it and is gone from it; no
                    // sender can claim one any more, for the word's level never goes back.
                    unsafe { Ring::free(left) };
                }
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
        let slot = unsafe { self.slot(self.reading.load(Ordering::Relaxed), position) };
        // SAFETY: `is_written` has acquired the sender's write; the receiver is alone and moves its head past this position, so the value is
        // read once; and no sender writes the slot before it has seen that head.
        slot.value.with_mut(|from| unsafe { (*from).assume_init_read() })
    }
}

impl<T> Drop for Storage<T> {
    /// Frees the rings. The values are gone: the receiver has received or dropped them.
    fn drop(&mut self) {
        for level in std::iter::once(&self.first).chain(&self.above) {
            if let Some(ring) = NonNull::new(level.load(Ordering::Acquire)) {
                // SAFETY: it was not freed, or it would not be here, and nobody else is left.
                unsafe { Ring::free(ring) };
            }
        }
    }
}

//! The slots of a bounded channel: a power of two of them, at least as many as the capacity.
//!
//! A slot is written by the sender that claimed its position and read by the receiver; its stamp says for which position it holds a value.
//! A stamp is never taken back: the next lap's position makes it stale.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::state::MAX_CAPACITY;
use crate::sync::{AtomicU64, Ordering, UnsafeCell};

/// Set in every stamp, so that a fresh slot (0) has none.
const WRITTEN: u64 = 1 << 63;

struct Slot<T> {
    stamp: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// Storage only: who may touch which slot when is up to `State`'s positions.
pub(super) struct Ring<T> {
    slots: Box<[Slot<T>]>,
    mask: u64,
}

// SAFETY: a value is moved in by one thread and out by another, never shared: a slot is written only by the one sender that claimed its position and
// read only by the one receiver, after it has seen the stamp.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    pub(super) fn new(capacity: usize) -> Ring<T> {
        assert!(
            capacity <= MAX_CAPACITY,
            "pollmux: a channel of {capacity} is more than the {MAX_CAPACITY} there can be"
        );
        let len = capacity.next_power_of_two();
        let fits = len.checked_mul(size_of::<Slot<T>>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
        assert!(fits, "pollmux: a channel of {capacity} does not fit into memory");
        let slot = || Slot { stamp: AtomicU64::new(0), value: UnsafeCell::new(MaybeUninit::uninit()) };
        let slots: Box<[Slot<T>]> = (0..len).map(|_| slot()).collect();
        Ring { slots, mask: len as u64 - 1 }
    }

    #[inline]
    fn slot(&self, position: u64) -> &Slot<T> {
        &self.slots[(position & self.mask) as usize]
    }

    /// Moves `value` into the slot that the caller has claimed.
    #[inline]
    pub(super) fn write(&self, position: u64, value: T) {
        let slot = self.slot(position);
        // SAFETY: `State::claim` gave this position to the caller alone, and only after the receiver had taken the value one lap before it out
        // (acquired through `head`). Whatever the slot's bytes are, no value is overwritten.
        slot.value.with_mut(|place| unsafe { (*place).write(value) });
        slot.stamp.store(position | WRITTEN, Ordering::Release);
    }

    /// Whether the value of `position` is there.
    #[inline]
    pub(super) fn is_written(&self, position: u64) -> bool {
        self.slot(position).stamp.load(Ordering::Acquire) == position | WRITTEN
    }

    /// Moves the value of `position` out. Only the receiver calls it, once for each position, after `is_written` said yes.
    #[inline]
    pub(super) fn take(&self, position: u64) -> T {
        debug_assert!(self.is_written(position));
        // SAFETY: `is_written` has acquired the sender's write; the receiver is alone and moves its head past this position, so the value is
        // read once; and no sender writes the slot before it has seen that head.
        self.slot(position).value.with_mut(|place| unsafe { (*place).assume_init_read() })
    }
}

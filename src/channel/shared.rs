//! The values in the slots of a buffered channel, and who drops those that nobody receives.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::Arc;

use super::Sender;
use super::ring::{Rings, Shape, Slot, Stamp, TAKEN, WRITTEN};
use super::state::State;
use crate::sync::Ordering;

/// The values of a channel. Both ends hold `Shared`, so that the last end drops the values that
/// nobody else has dropped. (Each end also has the state, one pointer nearer.)
pub(super) struct Shared<T> {
    state: Arc<State>,
    values: PhantomData<T>,
}

// SAFETY: a value is moved in by one thread and out by another, never shared. A slot is written
// only by the one sender that claimed its position, and read only by the receiver, or by that
// sender, whoever changes its stamp.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Marks a type that no two threads use at a time. The compiler's error says so in words.
pub(super) type NotShared = PhantomData<Alone>;

/// Not `Sync`: the impl below replaces the automatic one, and its condition never holds.
pub(super) enum Alone {}

/// An end of a channel that many threads may use.
#[diagnostic::on_unimplemented(
    message = "a channel has one receiver, on one thread at a time",
    label = "would share the receiver between threads",
    note = "give each thread a channel of its own, or bring the channel of another crate and a \
            `Notifier` as its bell: the docs of `pollmux::channel` have an example"
)]
#[allow(dead_code)] // Rust 1.85 sees no use in the condition below
pub trait ForManyThreads<'a> {}

// The compiler names `Sender` as the alternative.
impl<T> ForManyThreads<'_> for Sender<T> {}

// SAFETY: the condition never holds: the trait is private, and implemented for `Sender` only.
unsafe impl Sync for Alone where for<'a> Alone: ForManyThreads<'a> {}

impl<T> Shared<T> {
    /// Makes the slots of a new channel, whose rings are made for this type.
    pub(super) fn new(capacity: Option<usize>) -> Shared<T> {
        let rings = match capacity {
            Some(capacity) => Rings::bounded::<T>(capacity),
            None => Rings::unbounded::<T>(),
        };
        Shared { state: Arc::new(State::new(capacity, rings)), values: PhantomData }
    }

    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns the slot of `position` in the ring of this number.
    ///
    /// # Safety
    /// As for [`Rings::ring`], for as long as the slot is used.
    #[inline(always)]
    pub(super) unsafe fn slot(&self, ring: usize, position: u64) -> &Slot<T> {
        // SAFETY: the state is ours. The rest is as the caller promises.
        unsafe { Shared::slot_in(&self.state, ring, position) }
    }

    /// [`slot`](Self::slot) of a caller that has the state at hand, and saves a line of memory.
    ///
    /// # Safety
    /// As for [`slot`](Self::slot). The state must be that of a channel of `T`.
    #[inline(always)]
    pub(super) unsafe fn slot_in(state: &State, ring: usize, position: u64) -> &Slot<T> {
        let shape = Shape::of::<T>();
        // SAFETY: the rings were made with the shape of this type. A slot is only ever shared: what
        // changes in it are atomics and cells.
        unsafe { Rings::place(state.rings().ring(ring), shape, position).cast().as_ref() }
    }

    /// Moves the value of a slot out.
    ///
    /// # Safety
    /// The slot's stamp must have been seen to be written, and nobody else may take the value.
    #[inline(always)]
    pub(super) unsafe fn read(&self, ring: usize, position: u64) -> T {
        // SAFETY: the position is not past the head, so its ring is live. The stamp has acquired
        // the sender's write, and by the caller's promise the value is read once.
        unsafe { self.slot(ring, position).value.with_mut(|from| (*from).assume_init_read()) }
    }

    /// Takes a value out of a channel without a receiver, if the value is there and nobody else
    /// takes it.
    ///
    /// # Safety
    /// The receiver must be gone or going, and the position not received.
    pub(super) unsafe fn take_left(&self, ring: usize, position: u64) -> Option<T> {
        // SAFETY: the receiver frees no ring any more.
        let stamp = unsafe { &self.slot(ring, position).stamp };
        let (written, taken) = (position | WRITTEN, position | TAKEN);
        stamp.compare_exchange(written, taken, Ordering::AcqRel, Ordering::Acquire).ok()?;
        // SAFETY: the exchange makes us the only one.
        Some(unsafe { self.read(ring, position) })
    }

    /// Drops the values in the channel that nobody else drops, also while the drop of one value
    /// unwinds. Returns true if there are unwritten positions.
    ///
    /// # Safety
    /// The receiver must be gone or going, and call it at most once at a time.
    pub(super) unsafe fn drop_left(&self) -> bool {
        struct Rest<'a, T> {
            shared: &'a Shared<T>,
            next: u64,
            unwritten: bool,
        }
        impl<T> Rest<'_, T> {
            fn run(&mut self) {
                let state = &self.shared.state;
                let (tail, claimed) = state.claimed();
                while self.next != tail {
                    let position = self.next;
                    self.next = state.after(position);
                    // SAFETY: the receiver is going: we act for it, and take what nobody else does.
                    let left = unsafe {
                        let (stamp, ring) = state.rings().find(position, claimed);
                        self.unwritten |= stamp == Stamp::Unwritten;
                        if stamp == Stamp::Written {
                            self.shared.take_left(ring, position)
                        } else {
                            None
                        }
                    };
                    drop(left);
                }
            }
        }
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.run();
            }
        }
        if !std::mem::needs_drop::<T>() {
            return false;
        }
        let mut rest = Rest { shared: self, next: self.state.head_position(), unwritten: false };
        rest.run();
        rest.unwritten
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: both ends are gone.
        unsafe { self.drop_left() };
    }
}

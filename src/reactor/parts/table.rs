//! The records of a reactor, and the lists and the timer queue that hold them.

use super::heap::Heap;
use super::priority::Priority;
use super::ready::Ready;
use super::sites::Sites;
use super::slots::{Chunk, Flag, Owner, Slots, State};
use super::usage::is_sparse;
use std::rc::Rc;

/// The parts of a reactor that go by records.
pub(crate) struct Table<O: Owner> {
    pub(crate) slots: Slots<O>,
    pub(crate) heap: Heap,
    /// The sources that have an item to give.
    pub(crate) ready: Ready,
    /// The callbacks that are due.
    pub(crate) callbacks: Ready,
    /// The channels and contexts whose end has been taken.
    pub(crate) ended: Ready,
    /// Tokens of the channels in `ready` that tell once that they are ready, and of some that are
    /// gone.
    pub(crate) once: Vec<u64>,
    pub(crate) sites: Sites,
}

impl<O: Owner> Table<O> {
    pub(crate) fn new() -> Table<O> {
        Table {
            slots: Slots::new(),
            heap: Heap::new(),
            ready: Ready::new(),
            callbacks: Ready::new(),
            ended: Ready::of(State::Ended),
            once: Vec::new(),
            sites: Sites::default(),
        }
    }

    /// Clears all lists, and returns the chunks. The sources that still have a chunk find
    /// themselves `Idle`.
    pub(crate) fn clear(&mut self) -> Vec<Rc<Chunk<O>>> {
        self.heap = Heap::new();
        self.empty_lists();
        self.slots.clear()
    }

    /// Clears the pending arm or expiry of all sources. Frees nothing.
    pub(crate) fn make_idle(&mut self) {
        self.empty_lists();
        self.slots.idle();
    }

    fn empty_lists(&mut self) {
        (self.ready, self.callbacks) = (Ready::new(), Ready::new());
        self.ended = Ready::of(State::Ended);
        self.once = Vec::new();
    }

    /// Returns the list that a record is in while it is `Ready`, and the records.
    #[inline]
    fn list_of(&mut self, slot: u32) -> (&mut Ready, &Slots<O>) {
        let is_callback = self.slots.node(slot).is(Flag::Callback);
        (if is_callback { &mut self.callbacks } else { &mut self.ready }, &self.slots)
    }

    /// Takes a `Ready` record out of the list that it is in.
    #[inline]
    pub(crate) fn unready(&mut self, slot: u32) {
        let (list, slots) = self.list_of(slot);
        list.remove(slots, slot);
    }

    /// Makes a source ready, or a callback due. A deadline that it has as well is cleared. (The
    /// heap's first key may be too early afterwards, which costs only an early wake-up.)
    #[inline]
    pub(crate) fn raise(&mut self, slot: u32) {
        if matches!(self.slots.node(slot).state.get(), State::Armed | State::Stopped) {
            self.heap.remove(&self.slots, slot);
        }
        if self.slots.node(slot).is_callback_or_once() {
            return self.raise_another(slot);
        }
        self.ready.push(&self.slots, slot);
    }

    /// [`raise`](Self::raise) of a callback, or of a channel that tells once.
    #[cold]
    #[inline(never)]
    fn raise_another(&mut self, slot: u32) {
        let (list, slots) = self.list_of(slot);
        list.push(slots, slot);
        if !slots.node(slot).is(Flag::Callback) {
            if self.once.len() == self.once.capacity() {
                self.once.retain(|&token| self.slots.resolve(token).is_some());
            }
            self.once.push(self.slots.chunk(slot).token(slot));
        }
    }

    /// Returns the ready sources of the highest priority, then the others. Of equal sources the one
    /// that has waited longest comes first.
    pub(crate) fn by_priority(&self) -> impl Iterator<Item = u32> {
        let priority = |slot: u32| self.slots.chunk(slot).priority(slot);
        let of =
            move |level| self.ready.iter(&self.slots).filter(move |&slot| priority(slot) == level);
        Priority::ALL.into_iter().flat_map(of)
    }

    /// Returns true if the memory of a burst is still held.
    pub(crate) fn is_sparse(&self) -> bool {
        is_sparse(self.slots.usage()) || is_sparse(self.heap.usage())
    }
}

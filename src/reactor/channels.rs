//! The registered channels, as the ready list sees them.
//!
//! A registered channel is always one of these, so that a wait finds every channel that has something without looking at the others:
//! - in the ready list, because it had something when last looked at;
//! - asked for its mark, or marked and not collected yet;
//! - *unasked*: only `select!` has used it lately, which looks for itself. A wait asks all of these for their marks first.

use std::sync::Arc;

use super::notify::{Call, Notify, Probe, make_room};
use super::slots::{Flag, State};
use super::{Core, Slot, Table};

/// The lists that the module's text speaks of.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// Tokens of the unasked ones, and of some that are gone.
    unasked: Vec<u64>,
    /// The marks collected last, kept for its capacity.
    marks: Vec<u64>,
    /// How many channels are registered: the lists have room for all of them, so that only a registration allocates.
    watched: usize,
}

impl Channels {
    /// A channel that is in none of the lists: asks it for its mark, or leaves it unasked. It becomes ready if it has something after all.
    fn settle(&mut self, table: &mut Table, slot: u32, probe: &dyn Probe, marking: bool) {
        let node = table.slots.node(slot);
        if !marking {
            if !node.is(Flag::Unasked) {
                node.set(Flag::Unasked, true);
                self.remember(table, slot);
            }
        } else if probe.arm(Call::Mark) {
            table.raise(slot);
        }
    }

    /// For one more registered channel.
    fn make_room(&mut self, notify: &Notify) {
        self.watched += 1;
        make_room(&mut self.unasked, self.watched);
        make_room(&mut self.marks, self.watched);
        notify.make_room(self.watched);
    }

    /// For one registered channel less.
    pub(super) fn unwatch(&mut self) {
        self.watched -= 1;
    }

    fn remember(&mut self, table: &Table, slot: u32) {
        if self.unasked.len() == self.unasked.capacity() {
            self.unasked.retain(|&token| table.slots.resolve(token).is_some());
        }
        self.unasked.push(table.slots.chunk(slot).token(slot));
    }

    fn ask_all(&mut self, table: &mut Table) {
        for token in self.unasked.drain(..) {
            let Some(slot) = table.slots.resolve(token) else { continue };
            let node = table.slots.node(slot);
            node.set(Flag::Unasked, false);
            let Some(probe) = table.slots.chunk(slot).probe(slot) else { continue };
            if node.state.get() != State::Ready && probe.arm(Call::Mark) {
                table.raise(slot);
            }
        }
    }
}

impl Table {
    /// Makes a source ready, or a callback due, that may have a deadline as well, which is then taken away. (`next_due` may be too early afterwards, which only wakes early.)
    pub(super) fn raise(&mut self, slot: u32) {
        if matches!(self.slots.node(slot).state.get(), State::Armed | State::Stopped) {
            self.heap.remove(&self.slots, slot);
        }
        let list = if self.slots.node(slot).is(Flag::Call) { &mut self.calls } else { &mut self.ready };
        list.push(&self.slots, slot);
    }
}

impl Core {
    /// Brings the ready list up to date with what senders have marked, for a wait (`Mark`) or for a `select!` (`Wake`).
    #[inline]
    pub(crate) fn collect(&self, call: Call) {
        let marking = call == Call::Mark;
        self.marking.set(marking);
        if marking || self.notify.is_marked() {
            self.collect_marks(marking);
        }
    }

    fn collect_marks(&self, marking: bool) {
        let channels = &mut *self.channels.borrow_mut();
        if marking && !channels.unasked.is_empty() {
            channels.ask_all(&mut self.table.borrow_mut());
        }
        if !self.notify.is_marked() {
            return;
        }
        let mut marks = std::mem::take(&mut channels.marks);
        self.notify.collect(&mut marks);
        let table = &mut *self.table.borrow_mut();
        for token in marks.drain(..) {
            let Some(slot) = table.slots.resolve(token) else { continue };
            let Some(probe) = table.slots.chunk(slot).probe(slot) else { continue };
            if table.slots.node(slot).state.get() == State::Ready {
                continue;
            }
            if probe.is_ready() {
                table.raise(slot);
            } else {
                channels.settle(table, slot, &*probe, marking);
            }
        }
        channels.marks = marks;
    }
}

impl Slot {
    /// Registers the channel that this slot stands for: it is asked for its mark, or ready at once.
    pub(crate) fn watch(&self, probe: Arc<dyn Probe>) {
        let core = self.core();
        // Marks of registrations that were taken back go now, so that they cannot pile up.
        core.collect(Call::Mark);
        core.channels.borrow_mut().make_room(&core.notify);
        let ready = probe.arm(Call::Mark);
        self.chunk.set_probe(self.slot, probe);
        if ready {
            self.make_ready();
        }
    }

    /// The channel is at its end: nothing will come, and it is not to be reported any more.
    pub(crate) fn unwatch(&self) {
        if self.is_ready() {
            self.core().table.borrow_mut().unready(self.slot);
        }
        self.forget();
    }

    /// No channel is registered under this slot any more.
    pub(crate) fn forget(&self) {
        if self.chunk.forget(self.slot) {
            self.core().channels.borrow_mut().unwatch();
        }
    }

    /// The channel, which was ready, was found empty.
    pub(crate) fn drained(&self) {
        let core = self.core();
        let Some(probe) = self.chunk.probe(self.slot) else { return };
        if core.closed.get() {
            return;
        }
        let table = &mut *core.table.borrow_mut();
        table.ready.remove(&table.slots, self.slot);
        core.channels.borrow_mut().settle(table, self.slot, &*probe, core.marking.get());
    }
}

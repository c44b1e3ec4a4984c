//! The registered channels, as the ready list sees them.
//!
//! A registered channel is always one of these, so that a wait finds every channel that has something without looking at the others:
//! - in the ready list, because it had something when last looked at;
//! - asked for its mark, or marked and not collected yet;
//! - *unasked*: only `select!` has used it lately, which looks for itself. A wait asks all of these for their marks first.

use std::sync::Arc;

use super::slots::{Flag, State};
use super::{Core, Slot, Table};
use crate::wake::{Look, Probe, Request};

/// The lists of the module's text.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// Tokens of the unasked channels, and of some that are gone.
    unasked: Vec<u64>,
    /// Tokens of channels that were asked while something was coming, and whose senders may have
    /// missed the request (there is no membarrier): they are looked at again in a moment.
    unsure: Vec<u64>,
    /// How many channels are registered: the list has room for all, so that only a registration
    /// allocates.
    registered: usize,
}

impl Channels {
    /// Asks a channel that is in none of the lists for its mark, or leaves it unasked. The channel
    /// becomes ready if it has something after all.
    fn settle(&mut self, table: &mut Table, slot: u32, probe: &dyn Probe, marking: bool) {
        let node = table.slots.node(slot);
        if !marking {
            probe.silence();
            if !node.is(Flag::Unasked) {
                node.set(Flag::Unasked, true);
                self.remember(table, slot);
            }
        } else {
            self.ask(table, slot, probe);
        }
    }

    fn ask(&mut self, table: &mut Table, slot: u32, probe: &dyn Probe) {
        match probe.arm(Request::Mark) {
            Look::Quiet => {}
            Look::Coming => self.unsure.push(table.slots.chunk(slot).token(slot)),
            Look::Ready => {
                probe.silence();
                table.raise(slot);
            }
        }
    }

    /// Makes room for one more registered channel.
    fn make_room(&mut self) {
        self.registered += 1;
        self.unasked.reserve(self.registered.saturating_sub(self.unasked.len()));
    }

    /// Counts one registered channel less.
    pub(super) fn unregister(&mut self) {
        self.registered -= 1;
    }

    fn remember(&mut self, table: &Table, slot: u32) {
        if self.unasked.len() == self.unasked.capacity() {
            self.unasked.retain(|&token| table.slots.resolve(token).is_some());
        }
        self.unasked.push(table.slots.chunk(slot).token(slot));
    }

    fn ask_all(&mut self, table: &mut Table) {
        // Taken out while it is gone through: asking may add to the other list.
        let mut unasked = std::mem::take(&mut self.unasked);
        for token in unasked.drain(..) {
            let Some(slot) = table.slots.resolve(token) else { continue };
            let node = table.slots.node(slot);
            node.set(Flag::Unasked, false);
            let Some(probe) = table.slots.chunk(slot).probe(slot) else { continue };
            if node.state.get() != State::Ready {
                self.ask(table, slot, &*probe);
            }
        }
        self.unasked = unasked;
    }

    /// Looks again at the channels whose senders may have missed the request.
    fn look_again(&mut self, table: &mut Table) {
        self.unsure.retain(|&token| {
            let Some(slot) = table.slots.resolve(token) else { return false };
            let Some(probe) = table.slots.chunk(slot).probe(slot) else { return false };
            if table.slots.node(slot).state.get() == State::Ready {
                return false;
            }
            let look = probe.look();
            if look == Look::Ready {
                probe.silence();
                table.raise(slot);
            }
            look == Look::Coming
        });
    }
}

impl Table {
    /// Makes a source ready, or a callback due, that may have a deadline as well, which is then
    /// taken away. (`next_due` may be too early afterwards, which only wakes early.)
    pub(super) fn raise(&mut self, slot: u32) {
        if matches!(self.slots.node(slot).state.get(), State::Armed | State::Stopped) {
            self.heap.remove(&self.slots, slot);
        }
        let list = if self.slots.node(slot).is(Flag::Call) { &mut self.calls } else { &mut self.ready };
        list.push(&self.slots, slot);
    }
}

impl Core {
    /// Brings the ready list up to date with the senders' marks, for a wait (`Mark`) or for a
    /// `select!` (`Wake`).
    #[inline]
    pub(crate) fn collect(&self, request: Request) {
        let marking = request == Request::Mark;
        self.marking.set(marking);
        if marking || self.notify.is_marked() {
            self.collect_marks(marking);
        }
    }

    fn collect_marks(&self, marking: bool) {
        let channels = &mut *self.channels.borrow_mut();
        if marking && !(channels.unasked.is_empty() && channels.unsure.is_empty()) {
            let table = &mut *self.table.borrow_mut();
            channels.look_again(table);
            channels.ask_all(table);
        }
        if !self.notify.is_marked() {
            return;
        }
        let table = &mut *self.table.borrow_mut();
        self.notify.take_marks(|slot| {
            // A late mark may be for a slot that is free, or another source's, by now.
            let Some(probe) = table.slots.chunk_of(slot).and_then(|chunk| chunk.probe(slot)) else { return };
            if table.slots.node(slot).state.get() == State::Ready {
                return;
            }
            if probe.look() == Look::Ready {
                probe.silence();
                table.raise(slot);
            } else {
                channels.settle(table, slot, &*probe, marking);
            }
        });
    }

    /// Returns true if a source, or a registered channel, has to be looked at again in a moment.
    pub(super) fn is_unsure(&self) -> bool {
        self.napping.get() || self.marking.get() && !self.channels.borrow().unsure.is_empty()
    }
}

impl Slot {
    /// Registers the channel that this slot stands for: it is asked for its mark, or ready at once.
    pub(crate) fn register_channel(&self, probe: Arc<dyn Probe>) {
        let core = self.core();
        core.notify.prepare(self.slot);
        let channels = &mut *core.channels.borrow_mut();
        channels.make_room();
        self.chunk.set_probe(self.slot, probe.clone());
        let table = &mut *core.table.borrow_mut();
        channels.ask(table, self.slot, &*probe);
        if self.is_ready() && core.embedded.get() {
            core.leave_to_next_turn();
        }
    }

    /// The channel is at its end: nothing will come, and it is not to be reported any more.
    pub(crate) fn channel_ended(&self) {
        if self.is_ready() {
            self.core().table.borrow_mut().unready(self.slot);
        }
        self.forget_channel();
    }

    /// No channel is registered under this slot any more.
    pub(crate) fn forget_channel(&self) {
        if self.chunk.forget(self.slot) {
            self.core().channels.borrow_mut().unregister();
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

//! The registered channels, as the ready list sees them.
//!
//! A registered channel is always one of these, so that a wait finds every channel that has
//! something without looking at the others:
//! - in the ready list, because it had something when last looked at;
//! - asked for its mark, or marked and not collected yet;
//! - *unasked*: only `select!` has used it lately, which looks for itself. A wait asks all of these
//!   for their marks first.

use std::sync::Arc;

use super::core::Table;
use super::slots::{Flag, NONE, State};
use super::tidy::FEW;
use super::{Core, Slot};
use crate::driver::Clock;
use crate::wake::{Look, Probe, Request};

/// The lists of the module's text.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// Tokens of the unasked channels, and of some that are gone.
    unasked: Vec<u64>,
    /// Tokens of channels that were asked while something was coming, and whose senders may have
    /// missed the request (there is no membarrier): they are looked at again in a moment.
    unsure: Vec<u64>,
    /// Marks that were taken, while they are put in order.
    marked: Vec<(u64, u32)>,
    /// How many channels are registered: the lists have room for all, so that only a registration
    /// allocates.
    registered: usize,
}

impl Channels {
    /// Asks a channel that is in none of the lists for its mark, or leaves it unasked. The channel
    /// becomes ready if it has something after all.
    fn settle(&mut self, table: &mut Table, slot: u32, marking: bool) {
        if marking { self.ask_now(table, slot) } else { self.leave_unasked(table, slot) }
    }

    fn leave_unasked(&mut self, table: &mut Table, slot: u32) {
        let node = table.slots.node(slot);
        table.slots.chunk(slot).with_probe(slot, |probe| probe.silence());
        if !node.is(Flag::Unasked) {
            node.set(Flag::Unasked, true);
            self.remember(table, slot);
        }
    }

    /// Asks a channel for its mark. It becomes ready if it has something after all.
    fn ask(&mut self, table: &mut Table, slot: u32) {
        self.ask_now(table, slot);
    }

    /// [`ask`](Self::ask), for the way of a channel that was drained.
    #[inline(always)]
    fn ask_now(&mut self, table: &mut Table, slot: u32) {
        let ask = |probe: &dyn Probe| {
            let look = probe.ask_and_look(Request::Mark);
            if look == Look::Ready {
                probe.silence();
            }
            look
        };
        let look = table.slots.chunk(slot).with_probe(slot, ask);
        self.found(table, slot, look.unwrap_or(Look::Quiet));
    }

    /// A channel was looked at, and asked if it had nothing.
    #[inline]
    fn found(&mut self, table: &mut Table, slot: u32, look: Look) {
        match look {
            Look::Ready => table.raise(slot),
            Look::Coming => self.unsure.push(table.slots.chunk(slot).token(slot)),
            Look::Quiet => {}
        }
    }

    /// Looks at the channel of a slot that was marked: a late mark may be for a slot that is free,
    /// or another source's, by now.
    #[inline(always)]
    fn look_at_marked(&mut self, table: &mut Table, slot: u32, marking: bool) {
        let Some(chunk) = table.slots.chunk_of(slot) else { return };
        if chunk.node(slot).state.get() == State::Ready {
            return;
        }
        let request = marking.then_some(Request::Mark);
        match chunk.with_probe(slot, |probe| probe.look_or_ask(request)) {
            Some(Look::Ready) => table.raise(slot),
            Some(look) if marking => self.found(table, slot, look),
            Some(_) => self.leave_unasked(table, slot),
            None => {}
        }
    }

    /// Looks at the channels that were marked, in the order in which they were.
    #[inline(never)]
    fn look_at_several(&mut self, table: &mut Table, marking: bool) {
        let mut marked = std::mem::take(&mut self.marked);
        for (order, slot) in &mut marked {
            let chunk = table.slots.chunk_of(*slot);
            *order =
                chunk.and_then(|chunk| chunk.with_probe(*slot, |probe| probe.order())).unwrap_or(0);
        }
        marked.sort_unstable();
        marked.drain(..).for_each(|(_, slot)| self.look_at_marked(table, slot, marking));
        self.marked = marked;
    }

    /// Makes room for one more registered channel.
    fn make_room(&mut self) {
        self.registered += 1;
        self.unasked.reserve(self.registered.saturating_sub(self.unasked.len()));
        self.marked.reserve(self.registered);
    }

    /// Counts one registered channel less.
    pub(super) fn unregister(&mut self) {
        self.registered -= 1;
    }

    /// Gives back what the lists have for channels that are gone.
    pub(super) fn shrink(&mut self) {
        let enough = self.registered.max(FEW);
        // (A list that is longer than that still names channels that are gone.)
        self.unasked.shrink_to(enough);
        self.unsure.shrink_to(enough);
        self.marked.shrink_to(enough);
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
            if node.state.get() != State::Ready {
                self.ask(table, slot);
            }
        }
        self.unasked = unasked;
    }

    /// Looks again at the channels whose senders may have missed the request.
    fn look_again(&mut self, table: &mut Table) {
        self.unsure.retain(|&token| {
            let Some(slot) = table.slots.resolve(token) else { return false };
            if table.slots.node(slot).state.get() == State::Ready {
                return false;
            }
            let chunk = table.slots.chunk(slot);
            let look = chunk.with_probe(slot, |probe| probe.look_or_ask(None));
            if look == Some(Look::Ready) {
                table.raise(slot);
            }
            look == Some(Look::Coming)
        });
    }
}

impl Table {
    /// Makes a source ready, or a callback due, that may have a deadline as well, which is then
    /// taken away. (`next_due` may be too early afterwards, which only wakes early.)
    #[inline]
    pub(super) fn raise(&mut self, slot: u32) {
        if matches!(self.slots.node(slot).state.get(), State::Armed | State::Stopped) {
            self.heap.remove(&self.slots, slot);
        }
        let list =
            if self.slots.node(slot).is(Flag::Call) { &mut self.calls } else { &mut self.ready };
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
        // Most often there is one mark.
        let (mut only, mut several) = (NONE, false);
        let marked = &mut channels.marked;
        self.notify.take_marks(|slot| {
            if only == NONE {
                only = slot;
                return;
            }
            if !several {
                several = true;
                marked.push((0, only));
            }
            marked.push((0, slot));
        });
        if several {
            channels.look_at_several(table, marking);
        } else if only != NONE {
            channels.look_at_marked(table, only, marking);
        }
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
        if let Clock::Virtual(clock) = core.clock.source() {
            probe.follow(Box::new(move || clock.now()));
        }
        self.chunk.set_probe(self.slot, probe);
        channels.ask(&mut core.table.borrow_mut(), self.slot);
        if self.is_ready() && core.embedded.get() {
            core.leave_to_next_turn();
        }
    }

    /// The end of the channel has been taken: nothing will come. A wait reports it no more.
    pub(crate) fn channel_ended(&self) {
        self.forget_channel();
        let core = self.core();
        if core.closed.get() {
            return;
        }
        let table = &mut *core.table.borrow_mut();
        match self.node().state.get() {
            State::Ready => table.unready(self.slot),
            State::Armed | State::Stopped => {
                table.heap.remove(&table.slots, self.slot);
                core.next_due.set(table.heap.first());
            }
            State::Ended => return,
            State::Idle | State::Free => {}
        }
        table.ended.push(&table.slots, self.slot);
        core.count_end();
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
        if core.closed.get() {
            return;
        }
        let table = &mut *core.table.borrow_mut();
        table.ready.remove(&table.slots, self.slot);
        core.channels.borrow_mut().settle(table, self.slot, core.marking.get());
    }
}

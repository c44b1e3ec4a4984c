//! The registered channels, as the ready list sees them.
//!
//! While there are few, they are *near*: a wait looks at each of them, as a `select!` looks at its
//! cases, and asks for a wake-up only before it sleeps. So a message costs no mark, and no request.
//!
//! Each of the others is one of these, so that a wait finds every channel that has something
//! without looking at the rest:
//! - in the ready list, because it had something when last looked at;
//! - asked for its mark, or marked and not collected yet;
//! - *unasked*: only `select!` has used it lately, which looks for itself. A wait asks all of these
//!   for their marks first.
//!
//! More than [`NEAR`] channels are not near. When half as many are left, each becomes near again at
//! its next message. In an embedded reactor none is near, because an outer loop sleeps for it and
//! looks at nothing. Neither is a rendezvous, because its senders look for who waits. And while a
//! wait sleeps, whose driver may call us, no channel comes near: nobody would ask for a wake-up.

use std::cell::Cell;
use std::sync::Arc;

use super::slots::{Flag, Node, Owner, State};
use super::table::Table;
use super::usage::FEW;
use crate::channel;
use crate::wake::{Look, Probe, Request};

/// The most channels that are looked at one by one.
const NEAR: usize = 12;

/// A channel that is near.
struct Near {
    slot: u32,
    probe: Arc<dyn Probe>,
    /// The same, if it is a channel with a buffer.
    buffer: Option<Arc<channel::State>>,
}

impl Near {
    /// Returns true if a look may find something.
    #[inline(always)]
    fn has_news(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| buffer.has_news())
    }
}

/// The lists of the module's text.
#[derive(Default)]
pub(crate) struct Channels {
    near: Vec<Near>,
    /// No channel may be near.
    apart: bool,
    /// A wait sleeps, and has asked the channels that are near for a wake-up.
    asked: Cell<bool>,
    /// Tokens of the unasked channels, and of some that are gone.
    pub(crate) unasked: Vec<u64>,
    /// Tokens of channels that were asked while something was coming, and whose senders may have
    /// missed the request (there is no membarrier): they are looked at again in a moment.
    pub(crate) unsure: Vec<u64>,
    /// Marks that were taken, while they are put in order.
    pub(crate) marked: Vec<(u64, u32)>,
    /// The number of registered channels: the lists have room for all, so that only a registration
    /// allocates.
    registered: usize,
}

impl Channels {
    /// Registers a channel: near, or asked for its mark. It is ready if it has something.
    pub(crate) fn register<O: Owner>(
        &mut self,
        table: &mut Table<O>,
        slot: u32,
        probe: Arc<dyn Probe>,
    ) {
        self.make_room();
        if self.registered > NEAR {
            self.part(table);
        }
        table.slots.chunk(slot).set_probe(slot, probe);
        if self.registered > NEAR || !self.bring_near(table, slot) {
            self.ask(table, slot);
        } else {
            self.look_near(table);
        }
    }

    /// No channel is registered under this slot any more.
    pub(crate) fn unregister(&mut self, node: &Node, slot: u32) {
        self.registered -= 1;
        if node.is(Flag::Near) {
            node.set(Flag::Near, false);
            self.near.retain(|near| near.slot != slot);
        }
    }

    /// From now on no channel is near, or (`false`) channels may be.
    pub(crate) fn keep_apart<O: Owner>(&mut self, table: &mut Table<O>, apart: bool) {
        self.apart = apart;
        if apart {
            self.part(table);
        }
    }

    /// Makes a channel near that is in none of the lists. Returns false if it cannot be.
    #[cold]
    #[inline(never)]
    fn bring_near<O: Owner>(&mut self, table: &Table<O>, slot: u32) -> bool {
        let chunk = table.slots.chunk(slot);
        if self.apart || self.asked.get() {
            return false;
        }
        let probe = chunk.probe(slot).filter(|probe| probe.may_be_near());
        let Some(probe) = probe else { return false };
        probe.silence();
        chunk.node(slot).set(Flag::Near, true);
        let buffer = probe.clone().typed().and_then(|typed| typed.downcast().ok());
        self.near.push(Near { slot, probe, buffer });
        true
    }

    /// Makes no channel near. The list keeps its memory for those that come near again.
    fn part<O: Owner>(&mut self, table: &mut Table<O>) {
        let mut near = std::mem::take(&mut self.near);
        for Near { slot, .. } in near.drain(..) {
            let node = table.slots.node(slot);
            node.set(Flag::Near, false);
            match node.state.get() {
                State::Ready => {}
                _ if self.asked.get() => self.ask(table, slot),
                _ => self.leave_unasked(table, slot),
            }
        }
        self.near = near;
    }

    /// Lists that count so many registered channels, and have none.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn of(registered: usize) -> Channels {
        Channels { registered, ..Channels::default() }
    }

    /// Looks at the channels that are near, and makes those ready that have something.
    #[inline(always)]
    pub(crate) fn look_near<O: Owner>(&self, table: &mut Table<O>) {
        for near in &self.near {
            if !near.has_news() {
                continue;
            }
            let node = table.slots.node(near.slot);
            if node.state.get() != State::Ready && near.probe.look() == Look::Ready {
                if node.state.get() == State::Idle {
                    table.ready.push(&table.slots, near.slot);
                } else {
                    table.raise(near.slot);
                }
            }
        }
    }

    /// The looks at the channels that are near and not ready.
    pub(crate) fn looks_near<O: Owner>(&self, table: &Table<O>) -> impl Iterator<Item = Look> {
        self.quiet_near(table).map(|probe| probe.look())
    }

    /// Asks the channels that are near for a wake-up. A fence and a look must follow.
    pub(crate) fn ask_near<O: Owner>(&self, table: &Table<O>) {
        self.asked.set(true);
        self.quiet_near(table).for_each(|probe| probe.ask(Request::Wake));
    }

    fn quiet_near<O: Owner>(&self, table: &Table<O>) -> impl Iterator<Item = &dyn Probe> {
        let is_quiet = |slot| table.slots.node(slot).state.get() != State::Ready;
        self.near.iter().filter(move |near| is_quiet(near.slot)).map(|near| &*near.probe)
    }

    /// Takes back what [`ask_near`](Self::ask_near) has asked for.
    pub(crate) fn unask_near(&self) {
        self.asked.set(false);
        self.near.iter().for_each(|near| near.probe.request().unask());
    }

    /// Forgets every channel: the reactor is gone.
    pub(crate) fn clear(&mut self) {
        self.near = Vec::new();
    }

    /// A channel that is not near was drained, and is in none of the lists: it is brought near,
    /// asked for its mark, or left unasked. It becomes ready if it has something after all.
    #[inline]
    pub(crate) fn settle<O: Owner>(&mut self, table: &mut Table<O>, slot: u32, marking: bool) {
        if self.registered <= NEAR / 2 && self.bring_near(table, slot) {
            return;
        }
        if marking { self.ask_now(table, slot) } else { self.leave_unasked(table, slot) }
    }

    pub(crate) fn leave_unasked<O: Owner>(&mut self, table: &Table<O>, slot: u32) {
        let node = table.slots.node(slot);
        table.slots.chunk(slot).with_probe(slot, |probe| probe.silence());
        if !node.is(Flag::Unasked) {
            node.set(Flag::Unasked, true);
            self.remember(table, slot);
        }
    }

    /// Asks a channel for its mark. It becomes ready if it has something after all.
    pub(crate) fn ask<O: Owner>(&mut self, table: &mut Table<O>, slot: u32) {
        self.ask_now(table, slot);
    }

    /// [`ask`](Self::ask), for the way of a channel that was drained.
    #[inline(always)]
    pub(crate) fn ask_now<O: Owner>(&mut self, table: &mut Table<O>, slot: u32) {
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
    pub(crate) fn found<O: Owner>(&mut self, table: &mut Table<O>, slot: u32, look: Look) {
        match look {
            Look::Ready => table.raise(slot),
            Look::Coming => self.unsure.push(table.slots.chunk(slot).token(slot)),
            Look::Quiet => {}
        }
    }

    /// Looks at the channel of a slot that was marked: a late mark may be for a slot that is free,
    /// or another source's, by now.
    #[inline(always)]
    pub(crate) fn look_at_marked<O: Owner>(
        &mut self,
        table: &mut Table<O>,
        slot: u32,
        marking: bool,
    ) {
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
    pub(crate) fn look_at_several<O: Owner>(&mut self, table: &mut Table<O>, marking: bool) {
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
        self.near.reserve(self.registered.min(NEAR).saturating_sub(self.near.len()));
        self.unasked.reserve(self.registered.saturating_sub(self.unasked.len()));
        self.marked.reserve(self.registered);
    }

    /// Gives back what the lists have for channels that are gone.
    pub(crate) fn shrink(&mut self) {
        let enough = self.registered.max(FEW);
        // (A list that is longer than that still names channels that are gone.)
        self.unasked.shrink_to(enough);
        self.unsure.shrink_to(enough);
        self.marked.shrink_to(enough);
    }

    pub(crate) fn remember<O: Owner>(&mut self, table: &Table<O>, slot: u32) {
        if self.unasked.len() == self.unasked.capacity() {
            self.unasked.retain(|&token| table.slots.resolve(token).is_some());
        }
        self.unasked.push(table.slots.chunk(slot).token(slot));
    }

    pub(crate) fn ask_all<O: Owner>(&mut self, table: &mut Table<O>) {
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
    pub(crate) fn look_again<O: Owner>(&mut self, table: &mut Table<O>) {
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

//! The registered channels, in the lists by which a wait finds those that are ready.
//!
//! While there are few channels, they are *near*. A wait looks at each near channel, as a `select!`
//! looks at its cases, and asks for a wake-up only before it sleeps. So a message costs no mark and
//! no request.
//!
//! Every other channel is in one of these states. So a wait finds every channel that has a message
//! without looking at the rest:
//! - in the ready list, because it had a message at the last look;
//! - asked for its mark, or marked and not collected yet;
//! - *unasked*: only `select!` has used the channel lately, and `select!` looks for itself. A wait
//!   first asks all unasked channels for their marks.
//!
//! If there are more than [`NEAR`] channels, none of them is near. When half as many are left, each
//! becomes near again at its next message. In an embedded reactor no channel is near, because an
//! outer loop sleeps for it and looks at no channel. A rendezvous is never near, because its
//! senders look for a waiting receiver. While a wait sleeps, its driver may call us. No channel
//! becomes near then, because nobody would ask it for a wake-up.

use std::cell::Cell;
use std::sync::Arc;

use super::slots::{Flag, Node, Owner, State};
use super::table::Table;
use super::usage::FEW;
use crate::channel;
use crate::wake::{Look, Probe, Request};

/// The most channels that are looked at one by one: as many as a word has bits.
const NEAR: usize = u32::BITS as usize;

/// A channel that is near.
struct Near {
    slot: u32,
    probe: Arc<dyn Probe>,
    /// The channel's state by its type, if the channel has a buffer that never grows.
    bounded: Option<Arc<channel::State>>,
    /// The channel's state by its type, if the channel has a buffer that grows and shrinks.
    growing: Option<Arc<channel::State>>,
}

impl Near {
    fn new(slot: u32, probe: Arc<dyn Probe>) -> Near {
        let buffer = probe.clone().typed().and_then(|typed| typed.downcast().ok());
        let (bounded, growing) = match buffer {
            Some(buffer) if channel::State::is_bounded(&buffer) => (Some(buffer), None),
            buffer => (None, buffer),
        };
        Near { slot, probe, bounded, growing }
    }

    /// Returns true if a look may find a message, the end, or memory to give back.
    #[inline(always)]
    fn has_news(&self) -> bool {
        match &self.bounded {
            Some(bounded) => !bounded.is_quiet(),
            None => self.growing.as_ref().is_none_or(|growing| growing.has_news()),
        }
    }

    /// [`Probe::look`] at a channel that has news, by the type of the channel.
    #[inline(always)]
    fn look(&self) -> Look {
        match &self.bounded {
            Some(bounded) => bounded.look_at_news(),
            None => self.probe.look(),
        }
    }
}

/// The lists of the registered channels. The module's text describes them.
#[derive(Default)]
pub(crate) struct Channels {
    near: Vec<Near>,
    /// The index in `near` at which the next look begins.
    first: Cell<u32>,
    /// No channel may be near.
    apart: bool,
    /// A wait sleeps, and has asked the channels that are near for a wake-up.
    asked: Cell<bool>,
    /// Tokens of the unasked channels, and of some that are gone.
    pub(crate) unasked: Vec<u64>,
    /// Tokens of channels that were asked while a message was coming, and whose senders may have
    /// missed the request (there is no membarrier). These channels are looked at again in a moment.
    pub(crate) unsure: Vec<u64>,
    /// Marks that were taken. They are sorted here.
    pub(crate) marked: Vec<(u64, u32)>,
    /// The number of registered channels: the lists have room for all, so that only a registration
    /// allocates.
    registered: usize,
}

impl Channels {
    /// Registers a channel: it becomes near, or is asked for its mark. It is ready if it has a
    /// message.
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

    /// Notes that no channel is registered under this slot any more.
    pub(crate) fn unregister(&mut self, node: &Node, slot: u32) {
        self.registered -= 1;
        if node.is(Flag::Near) {
            node.set(Flag::Near, false);
            self.near.retain(|near| near.slot != slot);
        }
    }

    /// Lets no channel be near from now on, or (`false`) lets channels be near again.
    pub(crate) fn keep_apart<O: Owner>(&mut self, table: &mut Table<O>, apart: bool) {
        self.apart = apart;
        if apart {
            self.part(table);
        }
    }

    /// Makes a channel near that is in none of the lists. Returns false if the channel cannot be
    /// near.
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
        self.near.push(Near::new(slot, probe));
        true
    }

    /// Lets no channel be near. The near ones are asked for their marks, or are left unasked.
    /// The list keeps its memory for those that come near again.
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

    /// Makes lists that count so many registered channels, and are empty.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn of(registered: usize) -> Channels {
        Channels { registered, ..Channels::default() }
    }

    /// Looks at the channels that are near, and makes those ready that have a message or their end.
    pub(crate) fn look_near<O: Owner>(&self, table: &mut Table<O>) {
        self.take_near(table, self.near_news());
    }

    /// Returns a bit for each channel that is near and may have a message or its end.
    #[inline(always)]
    pub(crate) fn near_news(&self) -> u32 {
        let mut news = 0;
        for (index, near) in self.near.iter().enumerate() {
            // No branch: which channel has a message is hard to predict.
            news |= u32::from(near.has_news()) << index;
        }
        news
    }

    /// Looks closely at the near channels of these bits, and makes those ready that have a message
    /// or their end.
    #[inline(always)]
    pub(crate) fn take_near<O: Owner>(&self, table: &mut Table<O>, news: u32) {
        let first = self.first.replace(0);
        let mut news = news.rotate_right(first);
        while news != 0 {
            let index = news.trailing_zeros().wrapping_add(first) % u32::BITS;
            let near = &self.near[index as usize];
            news &= news - 1;
            let node = table.slots.node(near.slot);
            if node.state.get() == State::Ready || near.look() != Look::Ready {
                continue;
            }
            if node.state.get() == State::Idle {
                table.ready.push_node(&table.slots, near.slot, node);
            } else {
                table.raise(near.slot);
            }
        }
    }

    /// Begins the next look at the channel of this slot, the first one of a batch that had no room
    /// for all. So channels that are always ready keep their order, and have equal shares.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_first_at(&self, slot: u32) {
        let first = self.near.iter().position(|near| near.slot == slot);
        self.first.set(first.unwrap_or(0) as u32);
    }

    /// Looks at the channels that are near and not ready. Returns the outcomes.
    pub(crate) fn looks_near<O: Owner>(&self, table: &Table<O>) -> impl Iterator<Item = Look> {
        self.quiet_near(table).map(|probe| probe.look())
    }

    /// Returns true if a channel is near.
    #[inline]
    pub(crate) fn has_near(&self) -> bool {
        !self.near.is_empty()
    }

    /// Returns true if a wait has to look at a channel, or to ask one.
    #[inline]
    pub(crate) fn has_listed(&self) -> bool {
        self.near.len() | self.unasked.len() | self.unsure.len() != 0
    }

    /// Lets no channel become near until [`unask_near`](Self::unask_near).
    #[inline]
    pub(crate) fn begin_asking(&self) {
        self.asked.set(true);
    }

    /// Asks the channels that are near for a wake-up, after [`begin_asking`](Self::begin_asking). A
    /// fence and a look must follow.
    pub(crate) fn ask_near<O: Owner>(&self, table: &Table<O>) {
        self.quiet_near(table).for_each(|probe| probe.ask(Request::Wake));
    }

    fn quiet_near<O: Owner>(&self, table: &Table<O>) -> impl Iterator<Item = &dyn Probe> {
        let is_quiet = |slot| table.slots.node(slot).state.get() != State::Ready;
        self.near.iter().filter(move |near| is_quiet(near.slot)).map(|near| &*near.probe)
    }

    /// Takes the requests of [`ask_near`](Self::ask_near) back.
    pub(crate) fn unask_near(&self) {
        self.asked.set(false);
        self.near.iter().for_each(|near| near.probe.request().unask());
    }

    /// Forgets every channel: the reactor is gone.
    pub(crate) fn clear(&mut self) {
        self.near = Vec::new();
    }

    /// Handles a drained channel that is not near and in none of the lists. The channel is brought
    /// near, asked for its mark, or left unasked. It becomes ready if it has a message after all.
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

    /// Asks a channel for its mark. The channel becomes ready if it has a message after all.
    pub(crate) fn ask<O: Owner>(&mut self, table: &mut Table<O>, slot: u32) {
        self.ask_now(table, slot);
    }

    /// [`ask`](Self::ask), for the path of a drained channel.
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

    /// Handles the outcome of a look at a channel, which was asked if it had no message.
    #[inline]
    pub(crate) fn found<O: Owner>(&mut self, table: &mut Table<O>, slot: u32, look: Look) {
        match look {
            Look::Ready => table.raise(slot),
            Look::Coming => self.unsure.push(table.slots.chunk(slot).token(slot)),
            Look::Quiet => {}
        }
    }

    /// Looks at the channel of a slot that was marked. A late mark may be for a slot that is free
    /// by now, or belongs to another source.
    #[inline(always)]
    pub(crate) fn look_at_marked<O: Owner>(
        &mut self,
        table: &mut Table<O>,
        slot: u32,
        marking: bool,
    ) {
        let Some(chunk) = table.slots.chunk_of(slot) else { return };
        let node = chunk.node(slot);
        let state = node.state.get();
        if state == State::Ready {
            return;
        }
        let request = marking.then_some(Request::Mark);
        match chunk.with_probe(slot, |probe| probe.look_or_ask(request)) {
            Some(Look::Ready) if state == State::Idle && !node.is_callback_or_once() => {
                table.ready.push_node(&table.slots, slot, node);
            }
            Some(Look::Ready) => table.raise(slot),
            Some(look) if marking => self.found(table, slot, look),
            Some(_) => self.leave_unasked(table, slot),
            None => {}
        }
    }

    /// Looks at the channels that were marked, in the order of their marks.
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

    /// Gives back the memory that the lists have for channels that are gone.
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
        // Taken out during the walk, because an ask may add to the other list.
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

//! The slot of a registered channel.

use std::sync::Arc;

use super::Slot;
use crate::driver::Clock;
use crate::reactor::parts::channels::Channels;
use crate::reactor::parts::slots::{Flag, State};
use crate::wake::Probe;

impl Slot {
    /// Registers the channel that this slot stands for: it is asked for its mark, or ready at once.
    pub(crate) fn register_channel(&self, probe: Arc<dyn Probe>) {
        let core = self.core();
        core.notify.prepare(self.slot);
        if let Clock::Virtual(clock) = core.clock.source() {
            probe.follow(Box::new(move || clock.now()));
        }
        let channels = &mut *core.channels.borrow_mut();
        channels.register(&mut core.table.borrow_mut(), self.slot, probe);
        self.tell_outer_of_channel(channels);
    }

    /// [`register_channel`](Self::register_channel) of one that tells once that it is ready.
    pub(crate) fn register_to_be_told(&self, probe: Arc<dyn Probe>) {
        self.node().set(Flag::Once, true);
        let fds = &self.core().fds;
        fds.told_once.set(fds.told_once.get() + 1);
        fds.has_told.set(true);
        self.register_channel(probe);
    }

    /// Asks the channel, which tells once, for news after a report.
    pub(crate) fn ask_again(&self) {
        let core = self.core();
        if core.closed.get() {
            return;
        }
        if self.is_ready() {
            let table = &mut *core.table.borrow_mut();
            table.unready(self.slot);
            table.once.retain(|&token| token != self.token());
        }
        let channels = &mut *core.channels.borrow_mut();
        channels.ask(&mut core.table.borrow_mut(), self.slot);
        self.tell_outer_of_channel(channels);
    }

    /// The channel was looked at: an outer loop hears of what was found.
    fn tell_outer_of_channel(&self, channels: &Channels) {
        let core = self.core();
        if core.outer.embedded.get() && (self.is_ready() || !channels.unsure.is_empty()) {
            core.request_turn();
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
                core.timers.next_due.set(table.heap.first());
            }
            State::Ended => return,
            State::Idle | State::Free => {}
        }
        table.ended.push(&table.slots, self.slot);
    }

    /// No channel is registered under this slot any more.
    pub(crate) fn forget_channel(&self) {
        if self.chunk.forget(self.slot) {
            self.core().channels.borrow_mut().unregister(self.node(), self.slot);
        }
    }

    /// The channel, which was ready, was found empty.
    pub(crate) fn drained(&self) {
        let core = self.core();
        if core.closed.get() {
            return;
        }
        let table = &mut *core.table.borrow_mut();
        table.ready.remove_node(&table.slots, self.node());
        if !self.node().is(Flag::Near) {
            core.channels.borrow_mut().settle(table, self.slot, core.marking.get());
        }
    }
}

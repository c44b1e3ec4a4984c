//! A slot of the reactor, as a source owns it. The files beside this one have what single kinds of
//! sources do with theirs.

mod callback;
mod channel;
mod fd;

use std::cell::Cell;
use std::io;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Handle};
use super::parts::counters::add;
use super::parts::priority::Priority;
use super::parts::sites::{Site, SourceKind};
use super::parts::slots::{Chunk, Flag, Node, PATIENCE, Slots, State};
use super::parts::table::Table;
use super::parts::timer_id::TimerId;
use super::parts::timers::next_seq;
use crate::sys::{Time, nanos};
use crate::wake::Notify;

/// A slot of the reactor, owned: the part that timers, tickers and inboxes have in common. 16
/// bytes. Freed when dropped.
pub(crate) struct Slot {
    pub(in crate::reactor) chunk: Rc<Chunk<Core>>,
    pub(in crate::reactor) slot: u32,
}

/// The place of a source in the lists of its reactor. A slot that is another source's by now counts
/// as not ready.
pub(crate) struct Listed {
    chunk: Rc<Chunk<Core>>,
    token: u64,
}

impl Listed {
    pub(crate) fn token(&self) -> u64 {
        self.token
    }

    /// Returns true if the source is in the ready list, due, or at its end.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        let slot = self.token as u32;
        let node = self.chunk.node(slot);
        let is_listed = matches!(node.state.get(), State::Ready | State::Ended);
        (is_listed || self.chunk.owner.is_overdue(node)) && self.chunk.token(slot) == self.token
    }
}

impl Slot {
    /// A slot for a source that the caller's caller makes.
    #[track_caller]
    pub(crate) fn new(handle: &Handle, kind: SourceKind) -> Slot {
        let core = &handle.core;
        if core.closed.get() {
            return Slot::inert(core);
        }
        let Table { slots, sites, .. } = &mut *core.table.borrow_mut();
        let (chunk, slot) = slots.allocate(core, sites.of((Location::caller(), kind)));
        Slot { chunk, slot }
    }

    /// A slot that is armed for `t`, for a source that the caller's caller makes:
    /// [`new`](Self::new) and [`arm`](Self::arm) in one pass.
    #[track_caller]
    #[inline(never)]
    pub(crate) fn armed(handle: &Handle, kind: SourceKind, t: Time) -> Slot {
        if handle.core.closed.get() {
            return Slot::inert(&handle.core);
        }
        Slot::arm_new(&handle.core, (Location::caller(), kind), t)
    }

    /// A new slot of a reactor that is not closed, armed for `t`.
    #[inline(always)]
    fn arm_new(core: &Rc<Core>, site: Site, t: Time) -> Slot {
        let Table { slots, sites, heap, .. } = &mut *core.table.borrow_mut();
        let (chunk, slot) = slots.allocate(core, sites.of(site));
        heap.insert(slots, chunk.node(slot), slot, t.as_nanos(), next_seq());
        core.came_in(t.as_nanos());
        Slot { chunk, slot }
    }

    /// [`armed`](Self::armed) for `d` from the real now.
    #[track_caller]
    #[inline]
    pub(crate) fn armed_after(handle: &Handle, kind: SourceKind, d: Duration) -> Slot {
        Slot::armed(handle, kind, handle.core.clock.count_from(d) + d)
    }

    /// A slot of a reactor that is gone: in a chunk of its own, which nothing looks at.
    #[cold]
    pub(in crate::reactor) fn inert(core: &Rc<Core>) -> Slot {
        let (chunk, slot) = Slots::new().allocate(core, Default::default());
        Slot { chunk, slot }
    }

    #[inline]
    pub(in crate::reactor) fn node(&self) -> &Node {
        self.chunk.node(self.slot)
    }

    #[inline]
    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.chunk.owner
    }

    /// Returns true if an expiry or a message was not taken yet.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.node().state.get() == State::Ready
    }

    /// Returns true if a timer has expired, also if the queue has not got to it.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_ready() || self.core().is_overdue(self.node())
    }

    pub(crate) fn is_inert(&self) -> bool {
        self.core().closed.get()
    }

    pub(crate) fn key(&self) -> u64 {
        self.chunk.key(self.slot)
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.chunk.set_key(self.slot, key);
    }

    /// Sets the priority of the source in a wait.
    pub(crate) fn set_priority(&self, priority: Priority) {
        self.core().set_priority(&self.chunk, self.slot, priority);
    }

    #[inline]
    pub(crate) fn token(&self) -> u64 {
        self.chunk.token(self.slot)
    }

    /// Returns the place of the source in the lists of its reactor.
    pub(crate) fn listed(&self) -> Listed {
        Listed { chunk: self.chunk.clone(), token: self.token() }
    }

    /// Returns the slot's number, which its next user has, too.
    pub(crate) fn number(&self) -> u32 {
        self.slot
    }

    pub(crate) fn timer_id(&self, ticker: bool) -> TimerId {
        self.core().timer_id(self.token(), ticker)
    }

    /// Returns the deadline that `stop` would take away: pending, or expired and not taken.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let pending = matches!(self.node().state.get(), State::Armed | State::Ready);
        pending.then(|| self.last_deadline())
    }

    /// The deadline that was armed last, pending or not.
    pub(crate) fn last_deadline(&self) -> Time {
        Time::from_nanos(self.node().deadline.get())
    }

    pub(crate) fn belongs_to(&self, handle: &Handle) -> bool {
        Rc::ptr_eq(self.core(), &handle.core)
    }

    /// The exact time.
    pub(crate) fn clock_now(&self) -> Time {
        self.core().clock.refresh()
    }

    /// ns.
    #[inline]
    pub(crate) fn period(&self) -> u64 {
        self.chunk.periods.get(self.slot).map_or(0, |period| period.get())
    }

    pub(crate) fn set_period(&self, period: Duration) {
        self.chunk.periods.of(self.slot).set(nanos(period));
    }

    /// Lets the timer fire late by as much, to share wake-ups. Holds from the next sleep on.
    pub(crate) fn set_slack(&self, slack: Duration) {
        let core = self.core();
        self.chunk.slacks.of(self.slot).set(nanos(slack));
        self.node().set(Flag::Slack, true);
        core.timers.slacked.set(true);
        core.timers.least_slack.set(core.timers.least_slack.get().min(nanos(slack)));
        if let Some(deadline) = self.deadline() {
            core.tell_outer(deadline.as_nanos());
        }
    }

    /// Takes away the reactor's slack from this timer.
    pub(crate) fn be_exact(&self) {
        if self.core().timers.slack.get() > 0 {
            self.set_slack(Duration::ZERO);
        }
    }

    /// Arms for `t`, and takes away what was pending. Returns true if something was. Two stores for
    /// a later deadline.
    #[inline]
    pub(crate) fn arm(&self, t: Time) -> bool {
        Core::arm(&self.chunk, self.slot, t)
    }

    /// Arms for `d` from the real now.
    #[inline]
    pub(crate) fn arm_after(&self, d: Duration) -> bool {
        match self.core().clock.quick_count_from(d) {
            Some(now) => self.arm(now + d),
            None => self.arm_after_reading(d),
        }
    }

    /// [`arm_after`](Self::arm_after) with a reading of the clock.
    #[inline(never)]
    fn arm_after_reading(&self, d: Duration) -> bool {
        self.arm(self.core().clock.count_by_reading(d) + d)
    }

    /// Takes away what is pending. Returns true if something was.
    #[inline]
    pub(crate) fn stop(&self) -> bool {
        Core::stop(&self.chunk, self.slot)
    }

    /// Makes an idle slot ready without a timer.
    pub(crate) fn make_ready(&self) {
        let core = self.core();
        let table = &mut *core.table.borrow_mut();
        if self.node().state.get() == State::Idle && !core.closed.get() {
            table.ready.push(&table.slots, self.slot);
            if core.outer.embedded.get() {
                core.request_turn();
            }
        }
    }

    /// Counts a value that was given.
    pub(crate) fn count(&self) {
        self.node().count();
        self.progressed();
    }

    /// Notes that an inbox in the ready list has given a message and has more.
    #[inline]
    pub(crate) fn received(&self) {
        self.node().pos.set(PATIENCE);
    }

    /// Counts in `times` that the end was given. A loop that goes on asking for it spins.
    #[cold]
    pub(crate) fn end_taken(&self, times: &Cell<u32>) {
        if times.get() < PATIENCE {
            times.set(times.get() + 1);
            if times.get() == PATIENCE {
                let spinning = &self.core().counters.spinning;
                self.node().set(Flag::Spinning, true);
                add(spinning, 1);
            }
        }
    }

    /// Takes the expiry of a due slot: returns its deadline, and leaves the slot `Idle`.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Time> {
        self.is_due().then(|| self.take())
    }

    #[inline]
    pub(in crate::reactor) fn take(&self) -> Time {
        self.core().take(self.node(), self.slot)
    }

    /// Fails in a forked child.
    pub(crate) fn check_process(&self) -> io::Result<()> {
        self.core().check_process()
    }

    /// Returns the party that senders wake.
    pub(crate) fn notify(&self) -> &Arc<Notify> {
        &self.core().notify
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        Core::drop_slot(&self.chunk, self.slot);
    }
}

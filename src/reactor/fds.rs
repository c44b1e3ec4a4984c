//! The user's fds in the reactor. The driver waits for them under the token of their slot, and the
//! slot remembers the findings.
//!
//! A driver without edges refuses [`Mode::Edge`](crate::sys::Mode::Edge). The reactor then asks for
//! one report, and for the next one when the source is no longer ready. For
//! [`Mode::Level`](crate::sys::Mode::Level) it asks every driver for one report, and for the next
//! one when the source has been taken. So a ready file keeps no loop awake that does not ask for
//! it.

use std::io;
use std::os::fd::RawFd;
use std::panic::Location;

use super::core::{Core, ReactorTable};
use super::parts::counters::add;
use super::parts::slots::{PATIENCE, State};
use crate::driver::{Driver, ReadyFds, Wait};
use crate::wake::Look;

impl Core {
    /// Lets the driver look, if fds are there and it is time to.
    pub(super) fn poll_fds(&self) {
        let is_early = |at| !self.clock.has_passed(at, self.fds.interval);
        if !self.fds.are_registered() || self.fds.looked_at.get().is_some_and(is_early) {
            return;
        }
        // A driver that fails says so again when the loop blocks, to a caller that can hear it.
        let polled = if self.outer.embedded.get() {
            self.look_for_outer(!self.notify.is_asleep())
        } else {
            self.drive(None, Wait::Poll)
        };
        if self.outer.embedded.get() && (polled.is_err() || !self.has_taken_nothing()) {
            self.request_turn_after_poll();
        }
    }

    /// [`poll_fds`](Self::poll_fds), unless the driver has looked in this turn, and the turn has
    /// slept if it has come here again. A turn right after a sleep does not look either, so a loop
    /// that sleeps each time reads no clock for that. On a virtual clock others may have run since.
    #[inline]
    pub(super) fn poll_fds_of_turn(&self) {
        if self.fds.may_be_looked_at(self.counters.turns.get()) || self.clock.is_virtual() {
            self.poll_fds();
        }
    }

    /// Before a select or a wait says that nothing is ready: lets the driver look, if fds are there
    /// and it has not in this turn. Whether it has now. (When embedded the outer loop looks.)
    #[inline]
    pub(crate) fn looks_once_more(&self) -> bool {
        let owed =
            self.fds.are_registered() && self.fds.looked_in.get() != self.counters.turns.get();
        // A failure is as in `poll_fds`.
        owed && !self.outer.embedded.get() && self.drive(None, Wait::Poll).is_ok()
    }

    /// The driver has looked just now, in a sleep or not.
    #[inline(always)]
    pub(super) fn looked(&self, slept: bool) {
        if self.fds.are_registered() {
            self.fds.looked(self.clock.mark(), self.counters.turns.get(), slept);
        }
    }

    /// The line that made the source of this fd.
    #[cold]
    pub(super) fn holder_of(&self, fd: RawFd) -> Option<&'static Location<'static>> {
        let table = self.table.borrow();
        let slot = table.slots.iter().find(|&slot| {
            let watched = table.slots.chunk(slot).fds.get(slot);
            watched.is_some_and(|watched| watched.number.get() == fd as u32 + 1)
        })?;
        table.sites.location(table.slots.node(slot).site.get())
    }

    /// The line that made the source of this token.
    #[cold]
    pub(crate) fn made_at(&self, token: u64) -> Option<&'static Location<'static>> {
        let table = self.table.borrow();
        let slot = table.slots.resolve(token)?;
        table.sites.location(table.slots.node(slot).site.get())
    }

    /// Returns true if the driver may find something that nobody sends.
    #[inline]
    pub(crate) fn has_registered_fds(&self) -> bool {
        self.fds.are_registered()
    }

    /// [`looks_once_more`](Self::looks_once_more) where an fd is asked about, or where the driver
    /// lets others run when it looks.
    #[inline]
    pub(crate) fn looks_at_last(&self, asks_fds: bool) -> bool {
        (asks_fds || self.clock.is_virtual()) && self.looks_once_more()
    }

    /// Ends a sleep of no time. A driver that shares its time with others lets them run.
    pub(super) fn yield_turn(&self) -> io::Result<()> {
        if !self.clock.is_virtual() || !self.fds.are_registered() {
            return Ok(());
        }
        self.drive(Some(self.clock.now_or_later().into()), Wait::Block)
    }

    /// Remembers what the driver found. An id whose slot is gone, or is another's by now, is
    /// nobody's.
    #[inline(never)]
    pub(super) fn deliver(&self, ready: &mut ReadyFds) {
        let table = &mut *self.table.borrow_mut();
        ready.take_each(|id, readiness| {
            let Some((chunk, slot)) = table.slots.find(id) else { return };
            let Some(fd) = chunk.fds.get(slot) else { return };
            fd.found.set(fd.found.get() | readiness);
            if !fd.is_ready() {
                return;
            }
            let node = chunk.node(slot);
            if node.state.get() == State::Idle {
                table.ready.push_node(&table.slots, slot, node);
            }
            if !fd.untold().is_empty() {
                node.pos.set(1);
            }
        });
    }

    /// Lets the driver look for an outer loop that may wait for edges. That loop hears of nothing
    /// that was there before, and on kqueue of no wake-up while an older one stands behind a full
    /// batch. So the driver looks again until something is ready, which asks for the next turn, and
    /// until a wake-up that has come (`woken`) was taken.
    pub(super) fn look_for_outer(&self, mut woken: bool) -> io::Result<()> {
        let flags =
            || self.driving.try_borrow_mut().map_or((false, false), |mut d| d.ready.take_flags());
        flags();
        // Each fd is ready once, unless something new comes.
        for _ in 0..=self.fds.registered.get() {
            self.drive(None, Wait::Poll)?;
            let (more, seen) = flags();
            woken &= !seen;
            self.fds.more.set(more);
            if !more || self.has_ready() && !woken {
                break;
            }
        }
        Ok(())
    }

    /// The last look for an outer loop may have left something.
    pub(super) fn has_more_fds(&self) -> bool {
        self.fds.more.get()
    }

    /// Takes the files out of the poller that left while the driver was waiting.
    #[cold]
    pub(super) fn let_leave(&self, driver: &mut dyn Driver) {
        self.fds.has_leaving.set(false);
        for mut file in self.fds.leaving.take() {
            let id = file.id;
            // There is nobody to tell, as in a drop.
            let _ = file.with(|fd| driver.deregister(fd, id));
        }
    }

    /// The last report that a ready source had left has come. It has told what it tells once, or
    /// it spins.
    #[cold]
    pub(super) fn use_up(&self, table: &ReactorTable, slot: u32) {
        let chunk = table.slots.chunk(slot);
        let node = chunk.node(slot);
        if let Some(fd) = chunk.fds.get(slot).filter(|fd| fd.tell()) {
            node.pos.set(PATIENCE - 1);
            if !fd.is_ready() {
                self.fds.told.borrow_mut().push(chunk.token(slot));
                self.fds.has_told.set(true);
            }
        } else if node.pos.replace(0) == 0 {
            add(&self.counters.spinning, 1);
        }
    }

    /// Takes what has told everything out of the ready list.
    #[inline]
    pub(crate) fn take_out_told(&self) {
        if self.fds.has_told.get() {
            self.take_out_all_told();
        }
    }

    #[cold]
    #[inline(never)]
    fn take_out_all_told(&self) {
        let table = &mut *self.table.borrow_mut();
        for token in self.fds.told.borrow_mut().drain(..) {
            let Some(slot) = table.slots.resolve(token) else { continue };
            let chunk = table.slots.chunk(slot);
            let told = chunk.fds.get(slot).is_some_and(|fd| fd.is_told() && !fd.is_ready());
            if told && chunk.node(slot).state.get() == State::Ready {
                table.ready.remove(&table.slots, slot);
            }
        }
        self.take_out_told_channels(table);
        self.fds.has_told.set(self.fds.told_once.get() > 0);
    }

    /// Takes the channels out that have told that they are ready, or are not ready any more.
    fn take_out_told_channels(&self, table: &mut ReactorTable) {
        let mut once = std::mem::take(&mut table.once);
        once.retain(|&token| {
            let Some((chunk, slot)) = table.slots.find(token) else { return false };
            if chunk.node(slot).state.get() != State::Ready {
                return false;
            }
            let look = chunk.with_probe(slot, |probe| (probe.is_told(), probe.look()));
            if let Some((false, Look::Ready)) = look {
                return true;
            }
            table.ready.remove(&table.slots, slot);
            if let Some((false, _)) = look {
                self.channels.borrow_mut().ask(table, slot);
            }
            false
        });
        once.append(&mut table.once);
        table.once = once;
    }
}

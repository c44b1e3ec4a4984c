//! Fds of the user, as the reactor sees them: the driver waits for them under the token of their slot, and what it finds is remembered there.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::slots::State;
use super::{Core, Driving, Slot, closed};
use crate::driver::{ReadyFds, Wait};
use crate::sys::{Interest, Mode, Readiness, nanos};

/// How many fds there are, and when they were looked at.
#[derive(Debug)]
pub(crate) struct Fds {
    watched: Cell<usize>,
    /// ns: a loop that never blocks looks at its fds as often.
    interval: u64,
    /// ns: when a busy loop looks next.
    next_look: Cell<u64>,
}

impl Fds {
    pub(crate) fn new(interval: Duration) -> Fds {
        Fds { watched: Cell::new(0), interval: nanos(interval), next_look: Cell::new(0) }
    }

    #[inline]
    pub(crate) fn are_watched(&self) -> bool {
        self.watched.get() > 0
    }

    fn looked(&self, now: u64) {
        self.next_look.set(now.saturating_add(self.interval));
    }
}

impl Core {
    /// Lets the driver look, if fds are there and it is time to.
    pub(super) fn poll_fds(&self) {
        if !self.fds.are_watched() || self.clock.now_or_later().as_nanos() < self.fds.next_look.get() {
            return;
        }
        // A driver that fails says so again when the loop blocks, to a caller that can hear it.
        let _ = self.drive(None, Wait::Poll);
    }

    /// The driver has looked just now.
    #[inline]
    pub(super) fn looked(&self) {
        if self.fds.are_watched() {
            self.fds.looked(self.clock.now_or_later().as_nanos());
        }
    }

    /// Remembers what the driver found. An id whose slot is gone, or is another's by now, is nobody's.
    #[cold]
    pub(super) fn deliver(&self, ready: &mut ReadyFds) {
        let table = &mut *self.table.borrow_mut();
        for (id, readiness) in ready.drain() {
            let Some(slot) = table.slots.resolve(id) else { continue };
            let chunk = table.slots.chunk(slot);
            let Some(found) = chunk.readiness.get(slot) else { continue };
            found.set(found.get() | readiness);
            if chunk.node(slot).state.get() == State::Idle {
                table.ready.push(&table.slots, slot);
            }
        }
    }
}

impl Slot {
    /// Waits for `fd` from now on. One syscall.
    pub(crate) fn watch_fd(&self, fd: BorrowedFd<'_>, interest: Interest, mode: Mode) -> io::Result<()> {
        let core = self.core();
        self.chunk.readiness.of(self.slot).set(Readiness::NONE);
        self.with_driver(|driving, id| {
            driving.driver.as_mut().ok_or_else(closed)?.register(fd, id, interest, mode)?;
            driving.ready.make_room(core.fds.watched.get() + 1);
            Ok(())
        })?;
        core.fds.watched.set(core.fds.watched.get() + 1);
        core.errands.set(true);
        Ok(())
    }

    /// Waits for `fd` no longer. One syscall. What was found is forgotten.
    pub(crate) fn unwatch_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let core = self.core();
        if self.is_inert() {
            return Ok(());
        }
        core.fds.watched.set(core.fds.watched.get() - 1);
        core.settle_errands();
        self.with_driver(|driving, id| driving.driver.as_mut().ok_or_else(closed)?.deregister(fd, id))
    }

    fn with_driver<R>(&self, f: impl FnOnce(&mut Driving, u64) -> io::Result<R>) -> io::Result<R> {
        match self.core().driving.try_borrow_mut() {
            Ok(mut driving) => f(&mut driving, self.token()),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "the reactor's driver is waiting at this moment",
            )),
        }
    }
}

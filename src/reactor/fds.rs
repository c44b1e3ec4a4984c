//! Fds of the user, as the reactor sees them: the driver waits for them under the token of their slot, and what it finds is remembered there.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::slots::State;
use super::{Core, Driving, Slot, closed};
use crate::driver::{ReadyFds, Wait};
use crate::sys::{Interest, Mode, Readiness, nanos};

/// What is remembered of one fd.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// What it was found to be ready for and not found out not to be any more.
    found: Cell<Readiness>,
    /// What of that makes its source ready.
    wanted: Cell<Readiness>,
}

/// What of an fd's readiness the one who asked for `interest` can do something about.
fn wanted(interest: Interest) -> Readiness {
    let mut wanted = Readiness::NONE;
    if interest.is_readable() {
        wanted = wanted | Readiness::READABLE;
    }
    if interest.is_writable() {
        wanted = wanted | Readiness::WRITABLE;
    }
    if interest.is_priority() {
        wanted = wanted | Readiness::PRIORITY;
    }
    // Who asks for nothing else is told of the end.
    if wanted.is_empty() {
        Readiness::ERROR | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED
    } else {
        wanted
    }
}

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
    #[inline(never)]
    pub(super) fn deliver(&self, ready: &mut ReadyFds) {
        let table = &mut *self.table.borrow_mut();
        for (id, readiness) in ready.drain() {
            let Some(slot) = table.slots.resolve(id) else { continue };
            let chunk = table.slots.chunk(slot);
            let Some(fd) = chunk.fds.get(slot) else { continue };
            fd.found.set(fd.found.get() | readiness);
            let ready = !(fd.found.get() & fd.wanted.get()).is_empty();
            if ready && chunk.node(slot).state.get() == State::Idle {
                table.ready.push(&table.slots, slot);
            }
        }
    }
}

impl Slot {
    /// Waits for `fd` from now on. One syscall.
    pub(crate) fn watch_fd(&self, fd: BorrowedFd<'_>, interest: Interest, mode: Mode) -> io::Result<()> {
        let core = self.core();
        self.forget_readiness(Readiness::ALL);
        self.want(interest);
        self.with_driver(|driving, id| {
            driving.driver.as_mut().ok_or_else(closed)?.register(fd, id, interest, mode)?;
            driving.ready.make_room(core.fds.watched.get() + 1);
            Ok(())
        })?;
        core.fds.watched.set(core.fds.watched.get() + 1);
        core.errands.set(true);
        Ok(())
    }

    fn watched_fd(&self) -> &Watched {
        self.chunk.fds.of(self.slot)
    }

    /// What the fd was found to be ready for.
    pub(crate) fn readiness(&self) -> Readiness {
        self.watched_fd().found.get()
    }

    /// The fd was found not to be ready for this.
    pub(crate) fn forget_readiness(&self, readiness: Readiness) {
        let fd = self.watched_fd();
        fd.found.set(fd.found.get().without(readiness));
        if (fd.found.get() & fd.wanted.get()).is_empty() && self.is_ready() {
            self.stop();
        }
    }

    /// Asks the driver anew, about this. One syscall. What was found is forgotten, and reported again if it still is so.
    pub(crate) fn rewatch_fd(&self, fd: BorrowedFd<'_>, interest: Interest, mode: Mode) -> io::Result<()> {
        if self.is_inert() {
            return Err(closed());
        }
        self.with_driver(|driving, id| {
            driving.driver.as_mut().ok_or_else(closed)?.modify(fd, id, interest, mode)
        })?;
        self.forget_readiness(Readiness::ALL);
        Ok(())
    }

    /// What makes the source ready from now on, of what is found.
    pub(crate) fn want(&self, interest: Interest) {
        let fd = self.watched_fd();
        fd.wanted.set(wanted(interest));
        if (fd.found.get() & fd.wanted.get()).is_empty() {
            self.forget_readiness(Readiness::NONE);
        } else {
            self.make_ready();
        }
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

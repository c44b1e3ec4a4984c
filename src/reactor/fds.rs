//! Fds of the user, as the reactor sees them: the driver waits for them under the token of their slot, and what it finds is remembered there.
//!
//! A driver that has no edges refuses [`Mode::Edge`]. It is asked for one report then, and for the next one when the source has been found not to be ready any more. So is every driver
//! for [`Mode::Level`], and for the next one when the source has been taken: a file that stays ready keeps no loop awake that does not ask for it.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::slots::State;
use super::{Core, Driving, Slot, closed};
use crate::driver::{EventsId, ReadyFds, Wait};
use crate::sys::{Interest, Mode, Readiness, nanos};

/// What is remembered of one fd.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// What it was found to be ready for and not found out not to be any more.
    found: Cell<Readiness>,
    /// What of that makes its source ready.
    wanted: Cell<Readiness>,
    /// The driver reports it once, and is asked anew when it has been found not to be ready any more, or, in [`Mode::Level`], been taken.
    once: Cell<bool>,
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
    // The end is something to read, and to write. Who asks for neither is told of it as well.
    if !interest.is_readable() && !interest.is_writable() {
        wanted = wanted | Readiness::ERROR | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED;
    }
    wanted
}

/// How many fds there are, and when they were looked at.
#[derive(Debug)]
pub(crate) struct Fds {
    watched: Cell<usize>,
    /// ns: a loop that never blocks looks at its fds as often.
    interval: u64,
    /// ns: when a busy loop looks next.
    next_look: Cell<u64>,
    /// The turn of the last look.
    looked_in: Cell<u64>,
}

impl Fds {
    pub(crate) fn new(interval: Duration) -> Fds {
        Fds {
            watched: Cell::new(0),
            interval: nanos(interval),
            next_look: Cell::new(0),
            looked_in: Cell::new(0),
        }
    }

    /// For a driver that is asked before the reactor says that nothing is ready, and not otherwise,
    /// though no fd is registered.
    pub(crate) fn of_yielding_driver() -> Fds {
        let fds = Fds::new(Duration::MAX);
        fds.watched.set(1);
        fds.next_look.set(u64::MAX);
        fds
    }

    #[inline]
    pub(crate) fn are_watched(&self) -> bool {
        self.watched.get() > 0
    }

    fn looked(&self, now: u64, turn: u64) {
        self.looked_in.set(turn);
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
        let polled = self.drive(None, Wait::Poll);
        if self.embedded.get() && (polled.is_err() || !self.has_taken_nothing()) {
            self.looked_past_the_outer_loop();
        }
    }

    /// Before a select or a wait says that nothing is ready: lets the driver look, if fds are there and it has not in this turn. Whether it has now. (When embedded
    /// the outer loop looks.)
    #[inline]
    pub(crate) fn looks_once_more(&self) -> bool {
        let owed = self.fds.are_watched() && self.fds.looked_in.get() != self.turns.get();
        owed && !self.embedded.get() && self.drive(None, Wait::Poll).is_ok() // a failure is as in `poll_fds`
    }

    /// The driver has looked just now.
    #[inline]
    pub(super) fn looked(&self) {
        if self.fds.are_watched() {
            self.fds.looked(self.clock.now_or_later().as_nanos(), self.turns.get());
        }
    }

    /// Returns true if the driver may find something that nobody sends.
    #[inline]
    pub(crate) fn is_any_watched(&self) -> bool {
        self.fds.are_watched()
    }

    /// [`looks_once_more`](Self::looks_once_more) where an fd is asked about, or where the driver
    /// lets others run when it looks.
    #[inline]
    pub(crate) fn looks_at_last(&self, asks_fds: bool) -> bool {
        (asks_fds || self.clock.is_virtual()) && self.looks_once_more()
    }

    /// Ends a sleep of no time. A driver that shares its time with others lets them run.
    pub(super) fn yield_turn(&self) -> io::Result<()> {
        if !self.clock.is_virtual() || !self.fds.are_watched() {
            return Ok(());
        }
        self.drive(Some(self.clock.now_or_later().into()), Wait::Block)
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
        self.start_watching(wanted(interest), |driving, id| {
            let driver = driving.driver.as_mut().ok_or_else(closed)?;
            // Reported again and again, in level mode, it would keep a loop awake that does not ask for it.
            let mut once = mode == Mode::Level;
            if !once {
                match driver.register(fd, id, interest, mode) {
                    Err(error) if mode == Mode::Edge && error.kind() == io::ErrorKind::Unsupported => {
                        once = true
                    }
                    registered => registered?,
                }
            }
            if once {
                driver.register(fd, id, interest, Mode::OneShot)?;
            }
            self.watched_fd().once.set(once);
            Ok(())
        })
    }

    /// Becomes ready when the driver says so, without an fd, from now on. Fails with `InvalidInput` when the driver does not have these events.
    pub(crate) fn watch_driver(&self, events: EventsId) -> io::Result<()> {
        self.start_watching(Readiness::READABLE, |driving, _| {
            let driver = driving.driver.as_mut().ok_or_else(closed)?;
            let ours = driver.has_events(events);
            ours.then_some(()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "these are the events of another driver than the reactor's",
                )
            })
        })
    }

    fn start_watching(
        &self,
        wanted: Readiness,
        register: impl FnOnce(&mut Driving, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let core = self.core();
        self.watched_fd().wanted.set(wanted);
        self.forget_readiness(Readiness::ALL);
        self.with_driver(|driving, id| {
            register(driving, id)?;
            driving.ready.make_room(core.fds.watched.get() + 1);
            Ok(())
        })?;
        core.fds.watched.set(core.fds.watched.get() + 1);
        core.errands.set(true);
        Ok(())
    }

    fn stop_watching(&self) {
        let core = self.core();
        core.fds.watched.set(core.fds.watched.get() - 1);
        core.settle_errands();
    }

    /// The driver says so no longer.
    pub(crate) fn unwatch_driver(&self) {
        if !self.is_inert() {
            self.stop_watching();
        }
    }

    /// As if the driver had said so now.
    pub(crate) fn found_by_driver(&self) {
        self.watched_fd().found.set(Readiness::READABLE);
        self.make_ready();
    }

    /// Whether what the driver has reported of this fd it reports again only when it has been [asked to](Self::rewatch_fd): it has no edges, or the mode is [`Mode::Level`].
    #[inline]
    pub(crate) fn is_told_once(&self) -> bool {
        self.watched_fd().once.get()
    }

    /// The fd is not ready any more, and is to be reported when it is again: nothing has to be done for that but under a driver without edges.
    #[inline]
    pub(crate) fn expect_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_told_once() { self.rewatch_fd(fd, Interest::READABLE, Mode::Edge) } else { Ok(()) }
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
        let mode = if self.is_told_once() { Mode::OneShot } else { mode };
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
        if self.is_inert() {
            return Ok(());
        }
        self.stop_watching();
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

//! The slot of an fd, or of a driver's own events.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Slot;
use crate::driver::foreign::EventsId;
use crate::reactor::core::{Driving, busy, closed};
use crate::reactor::parts::fds::{FdRecord, once_only, wanted};
use crate::reactor::parts::slots::{PATIENCE, State};
use crate::sys::closing::Leaving;
use crate::sys::{Interest, Mode, Readiness, errors};

impl Slot {
    /// Registers `fd` with the driver. One syscall.
    pub(crate) fn register_fd(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let wanted = wanted(interest);
        let once_only = once_only(mode, wanted);
        let watched = self.start_registration(wanted, once_only, |driving, id| {
            let driver = driving.driver.as_mut().ok_or_else(closed)?;
            // Reported again and again, in level mode, it would keep a loop awake that does not ask
            // for it.
            let mut once = mode == Mode::Level;
            if !once {
                match driver.register(fd, id, interest, mode) {
                    Err(error)
                        if mode == Mode::Edge && error.kind() == io::ErrorKind::Unsupported =>
                    {
                        once = true
                    }
                    registered => registered?,
                }
            }
            if once {
                driver.register(fd, id, interest, Mode::OneShot)?;
            }
            self.fd_record().once.set(once);
            self.fd_record().number.set(fd.as_raw_fd() as u32 + 1);
            Ok(())
        });
        watched.map_err(|error| {
            let fd = fd.as_raw_fd();
            errors::of_registration(error, fd, self.core().holder_of(fd))
        })
    }

    /// Becomes ready when the driver says so, without an fd, from now on. Fails with `InvalidInput`
    /// when the driver does not have these events.
    pub(crate) fn register_events(&self, events: EventsId) -> io::Result<()> {
        self.start_registration(Readiness::READABLE, Readiness::NONE, |driving, _| {
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

    fn start_registration(
        &self,
        wanted: Readiness,
        once_only: Readiness,
        register: impl FnOnce(&mut Driving, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let core = self.core();
        self.fd_record().want(wanted, once_only);
        let watched = core.fds.registered.get() + 1;
        let registered = self.with_driver(|driving, id| {
            register(driving, id)?;
            driving.ready.make_room(watched);
            Ok(())
        });
        registered.inspect_err(|_| self.fd_record().reset())?;
        let mut told = core.fds.told.borrow_mut();
        let more = watched.saturating_sub(told.len());
        told.reserve(more);
        core.fds.registered.set(watched);
        Ok(())
    }

    fn end_registration(&self) {
        let core = self.core();
        self.fd_record().reset();
        core.fds.registered.set(core.fds.registered.get() - 1);
    }

    /// Stops waiting for the driver's events.
    pub(crate) fn deregister_events(&self) {
        if !self.is_inert() {
            self.end_registration();
        }
    }

    /// Makes the source ready, as a report of the driver would.
    pub(crate) fn found_by_driver(&self) {
        self.fd_record().found.set(Readiness::READABLE);
        self.make_ready();
    }

    /// Returns true if the driver reports this fd again only after a
    /// [new registration](Self::reregister_fd): the driver has no edges, or the mode is
    /// [`Mode::Level`].
    #[inline]
    pub(crate) fn is_told_once(&self) -> bool {
        self.fd_record().once.get()
    }

    /// Expects the next readiness of an fd that is not ready any more. Only a driver without edges
    /// has to be asked.
    #[inline]
    pub(crate) fn expect_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_told_once() {
            self.reregister_fd(fd, Interest::READABLE, Mode::Edge)
        } else {
            Ok(())
        }
    }

    #[inline]
    fn fd_record(&self) -> &FdRecord {
        self.chunk.fds.of(self.slot)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.fd_record().found.get()
    }

    /// Clears a readiness that the fd no longer has.
    #[inline]
    pub(crate) fn forget_readiness(&self, readiness: Readiness) {
        let fd = self.fd_record();
        let found = fd.found.get().without(readiness);
        fd.found.set(found);
        let node = self.node();
        if (found & fd.wanted.get()).is_empty() && node.state.get() == State::Ready {
            let table = &mut *self.core().table.borrow_mut();
            table.ready.remove_node(&table.slots, node);
        }
    }

    /// Changes the registration. One syscall. The readiness that was found is cleared; the driver
    /// reports it again if it still holds.
    pub(crate) fn reregister_fd(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        if self.is_inert() {
            return Err(self.core().gone());
        }
        let mode = if self.is_told_once() { Mode::OneShot } else { mode };
        self.with_driver(|driving, id| {
            let driver = driving.driver.as_mut().ok_or_else(closed)?;
            let changed = driver.modify(fd, id, interest, mode);
            changed.map_err(|error| {
                errors::of_change(error, fd.as_raw_fd(), self.core().made_at(self.token()))
            })
        })?;
        self.forget_readiness(Readiness::ALL);
        Ok(())
    }

    /// Sets the readiness that makes the source ready from now on.
    pub(crate) fn want(&self, interest: Interest, mode: Mode) {
        let fd = self.fd_record();
        let wanted = wanted(interest);
        fd.want(wanted, once_only(mode, wanted));
        if fd.is_ready() {
            self.make_ready();
            self.progressed();
        } else if self.is_ready() {
            self.stop();
        }
    }

    /// An operation has met `WouldBlock`: the file has not ended there.
    pub(crate) fn note_open(&self, interest: Interest) {
        self.fd_record().note_open(interest);
    }

    /// Lets the fd report again what it reports once.
    pub(crate) fn retell(&self) {
        self.fd_record().told.set(Readiness::NONE);
    }

    /// The source reports what the fd is ready for to a select. Nothing is done about it yet.
    pub(crate) fn report_fd(&self) {
        let core = self.core();
        let fd = self.fd_record();
        self.node().count();
        fd.tell();
        if fd.is_ready() {
            core.count_report(&core.table.borrow(), self.slot);
        } else {
            self.stop();
        }
    }

    /// Notes that the loop has handled a report of the source, so the source does not spin.
    #[inline]
    pub(crate) fn progressed(&self) {
        let node = self.node();
        if node.state.get() == State::Ready {
            // The first report includes the readiness that is reported once only.
            let tells_all = |fd: &FdRecord| !fd.untold().is_empty();
            let patience =
                if self.chunk.fds.get(self.slot).is_some_and(tells_all) { 1 } else { PATIENCE };
            node.pos.set(patience);
        }
    }

    /// Deregisters `fd`. One syscall. The readiness that was found is cleared.
    ///
    /// While the driver waits it cannot be told: then it is when that wait is over, which is soon.
    pub(crate) fn deregister_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_inert() {
            return Ok(());
        }
        self.end_registration();
        self.fd_record().number.set(0);
        let core = self.core();
        let Ok(mut driving) = core.driving.try_borrow_mut() else {
            core.fds.leaving.borrow_mut().push(Leaving::new(fd, self.token()));
            core.fds.has_leaving.set(true);
            core.request_turn();
            return Ok(());
        };
        driving.driver.as_mut().ok_or_else(closed)?.deregister(fd, self.token())
    }

    /// The file of an [unwatched](Self::deregister_fd) fd has been closed. If the driver could not
    /// be told, no other file gets its number before it was.
    pub(crate) fn closed_fd(&self) {
        if self.core().fds.has_leaving() {
            self.core().fds.leaving.borrow_mut().iter_mut().for_each(Leaving::park);
        }
    }

    fn with_driver<R>(&self, f: impl FnOnce(&mut Driving, u64) -> io::Result<R>) -> io::Result<R> {
        self.check_process()?;
        match self.core().driving.try_borrow_mut() {
            Ok(mut driving) => f(&mut driving, self.token()),
            Err(_) => Err(busy()),
        }
    }
}

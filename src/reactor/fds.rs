//! Fds of the user, as the reactor sees them: the driver waits for them under the token of their
//! slot, and what it finds is remembered there.
//!
//! A driver that has no edges refuses [`Mode::Edge`]. It is asked for one report then, and for the
//! next one when the source has been found not to be ready any more. So is every driver for
//! [`Mode::Level`], and for the next one when the source has been taken: a file that stays ready
//! keeps no loop awake that does not ask for it.
//!
//! Longer than 500 lines: registration, reports and removal keep the books of one
//! set of fds, which the driver shares.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::Location;
use std::time::Duration;

use super::core::{Driving, Table};
use super::slots::{PATIENCE, State};
use super::tidy::FEW;
use super::{Core, Slot, busy, closed};
use crate::driver::foreign::EventsId;
use crate::driver::{Driver, ReadyFds, Wait};
use crate::sys::closing::Leaving;
use crate::sys::{Interest, Mode, Readiness, errors, nanos};

/// What is remembered of one fd.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// What it was found to be ready for and not found out not to be any more.
    found: Cell<Readiness>,
    /// What of that makes its source ready.
    wanted: Cell<Readiness>,
    /// The part of `wanted` that its source reports once: the ends that nobody asked for, and
    /// everything in [`Mode::OneShot`].
    once_only: Cell<Readiness>,
    /// The part of `once_only` that its source has reported.
    told: Cell<Readiness>,
    /// The driver reports it once, and is asked anew when it has been found not to be ready any
    /// more, or, in [`Mode::Level`], been taken.
    once: Cell<bool>,
    /// The number of the fd, plus one; 0 while none is registered.
    number: Cell<u32>,
}

impl Watched {
    /// The source has something to report.
    fn is_ready(&self) -> bool {
        !(self.found.get() & self.wanted.get()).without(self.told.get()).is_empty()
    }

    /// The part of that which the source reports once, and now.
    fn untold(&self) -> Readiness {
        (self.found.get() & self.once_only.get()).without(self.told.get())
    }

    /// Notes that the source reports it. Returns true if there was something untold.
    fn tell(&self) -> bool {
        let untold = self.untold();
        self.told.set(self.told.get() | untold);
        !untold.is_empty()
    }

    /// The source has reported something for the last time that is still there.
    pub(super) fn is_told(&self) -> bool {
        !(self.found.get() & self.told.get()).is_empty()
    }

    /// The reports that are left until [`Core::use_up`] is called. What is told once is told by
    /// the first one.
    fn patience(&self) -> u32 {
        if self.untold().is_empty() { PATIENCE } else { 1 }
    }

    /// Asks for `wanted`, of which `once_only` is reported once. What was told of that stays told.
    fn want(&self, wanted: Readiness, once_only: Readiness) {
        self.wanted.set(wanted);
        self.once_only.set(once_only);
        self.told.set(self.told.get() & once_only);
    }

    /// Forgets everything: the slot may be another source's next.
    fn reset(&self) {
        self.found.set(Readiness::NONE);
        self.want(Readiness::NONE, Readiness::NONE);
        self.once.set(false);
    }
}

/// The ends of a file, which the poller tells unasked.
const ENDS: Readiness =
    Readiness::NONE.and(Readiness::ERROR).and(Readiness::READ_CLOSED).and(Readiness::WRITE_CLOSED);

/// The part of `wanted` that is reported once: everything in one-shot mode, and the ends of a file
/// that is neither read nor written.
fn once_only(interest: Interest, mode: Mode, wanted: Readiness) -> Readiness {
    match mode {
        Mode::OneShot => wanted,
        _ if interest.is_readable() || interest.is_writable() => Readiness::NONE,
        _ => ENDS,
    }
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
        wanted = wanted | ENDS;
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
    /// The last look for an outer loop may have left fds for want of room.
    more: Cell<bool>,
    /// Tokens of sources that are in the ready list and have told everything: the next report
    /// takes them out. There is room for every fd.
    told: RefCell<Vec<u64>>,
    has_told: Cell<bool>,
    /// Files that were to be taken out of the poller while the driver was waiting.
    leaving: RefCell<Vec<Leaving>>,
    has_leaving: Cell<bool>,
}

impl Fds {
    pub(crate) fn new(interval: Duration) -> Fds {
        Fds {
            watched: Cell::new(0),
            interval: nanos(interval),
            next_look: Cell::new(0),
            looked_in: Cell::new(0),
            more: Cell::new(false),
            told: RefCell::default(),
            has_told: Cell::new(false),
            leaving: RefCell::default(),
            has_leaving: Cell::new(false),
        }
    }

    /// The driver has to take files out of its poller.
    #[inline]
    pub(super) fn has_leaving(&self) -> bool {
        self.has_leaving.get()
    }

    /// For a reactor that goes: closes what it kept open.
    pub(super) fn close(&self) {
        drop(self.leaving.take());
    }

    /// Gives back what the list has for fds that are gone.
    pub(super) fn shrink(&self) {
        self.told.borrow_mut().shrink_to(self.watched.get().max(FEW));
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
        if !self.fds.are_watched()
            || self.clock.now_or_later().as_nanos() < self.fds.next_look.get()
        {
            return;
        }
        // A driver that fails says so again when the loop blocks, to a caller that can hear it.
        let polled = if self.embedded.get() {
            self.look_for_outer(!self.notify.is_asleep())
        } else {
            self.drive(None, Wait::Poll)
        };
        if self.embedded.get() && (polled.is_err() || !self.has_taken_nothing()) {
            self.looked_past_the_outer_loop();
        }
    }

    /// Before a select or a wait says that nothing is ready: lets the driver look, if fds are there
    /// and it has not in this turn. Whether it has now. (When embedded the outer loop looks.)
    #[inline]
    pub(crate) fn looks_once_more(&self) -> bool {
        let owed = self.fds.are_watched() && self.fds.looked_in.get() != self.turns.get();
        // A failure is as in `poll_fds`.
        owed && !self.embedded.get() && self.drive(None, Wait::Poll).is_ok()
    }

    /// The driver has looked just now.
    #[inline]
    pub(super) fn looked(&self) {
        if self.fds.are_watched() {
            self.fds.looked(self.clock.now_or_later().as_nanos(), self.turns.get());
        }
    }

    /// The line that made the source of this fd.
    #[cold]
    fn holder_of(&self, fd: RawFd) -> Option<&'static Location<'static>> {
        let table = self.table.borrow();
        let slot = table.slots.iter().find(|&slot| {
            let watched = table.slots.chunk(slot).fds.get(slot);
            watched.is_some_and(|watched| watched.number.get() == fd as u32 + 1)
        })?;
        table.origins.site(table.slots.node(slot).origin.get()).map(|site| site.0)
    }

    /// The line that made the source of this token.
    #[cold]
    pub(crate) fn made_at(&self, token: u64) -> Option<&'static Location<'static>> {
        let table = self.table.borrow();
        let slot = table.slots.resolve(token)?;
        table.origins.site(table.slots.node(slot).origin.get()).map(|site| site.0)
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

    /// Remembers what the driver found. An id whose slot is gone, or is another's by now, is
    /// nobody's.
    #[inline(never)]
    pub(super) fn deliver(&self, ready: &mut ReadyFds) {
        let table = &mut *self.table.borrow_mut();
        for (id, readiness) in ready.drain() {
            let Some(slot) = table.slots.resolve(id) else { continue };
            let chunk = table.slots.chunk(slot);
            let Some(fd) = chunk.fds.get(slot) else { continue };
            fd.found.set(fd.found.get() | readiness);
            if !fd.is_ready() {
                continue;
            }
            if chunk.node(slot).state.get() == State::Idle {
                table.ready.push(&table.slots, slot);
            }
            if !fd.untold().is_empty() {
                chunk.node(slot).pos.set(1);
            }
        }
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
        for _ in 0..=self.fds.watched.get() {
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
    pub(super) fn use_up(&self, table: &Table, slot: u32) {
        let chunk = table.slots.chunk(slot);
        let node = chunk.node(slot);
        if let Some(fd) = chunk.fds.get(slot).filter(|fd| fd.tell()) {
            node.pos.set(PATIENCE - 1);
            if !fd.is_ready() {
                self.fds.told.borrow_mut().push(chunk.token(slot));
                self.fds.has_told.set(true);
            }
        } else if node.pos.replace(0) == 0 {
            self.spinning.set(self.spinning.get() + 1);
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
        self.fds.has_told.set(false);
    }
}

impl Slot {
    /// Waits for `fd` from now on. One syscall.
    pub(crate) fn watch_fd(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let wanted = wanted(interest);
        let once_only = once_only(interest, mode, wanted);
        let watched = self.start_watching(wanted, once_only, |driving, id| {
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
            self.watched_fd().once.set(once);
            self.watched_fd().number.set(fd.as_raw_fd() as u32 + 1);
            Ok(())
        });
        watched.map_err(|error| {
            let fd = fd.as_raw_fd();
            errors::of_registration(error, fd, self.core().holder_of(fd))
        })
    }

    /// Becomes ready when the driver says so, without an fd, from now on. Fails with `InvalidInput`
    /// when the driver does not have these events.
    pub(crate) fn watch_driver(&self, events: EventsId) -> io::Result<()> {
        self.start_watching(Readiness::READABLE, Readiness::NONE, |driving, _| {
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
        once_only: Readiness,
        register: impl FnOnce(&mut Driving, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let core = self.core();
        self.watched_fd().want(wanted, once_only);
        let watched = core.fds.watched.get() + 1;
        let registered = self.with_driver(|driving, id| {
            register(driving, id)?;
            driving.ready.make_room(watched);
            Ok(())
        });
        registered.inspect_err(|_| self.watched_fd().reset())?;
        let mut told = core.fds.told.borrow_mut();
        let more = watched.saturating_sub(told.len());
        told.reserve(more);
        core.fds.watched.set(watched);
        core.errands.set(true);
        Ok(())
    }

    fn stop_watching(&self) {
        let core = self.core();
        self.watched_fd().reset();
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

    /// Whether what the driver has reported of this fd it reports again only when it has been
    /// [asked to](Self::rewatch_fd): it has no edges, or the mode is [`Mode::Level`].
    #[inline]
    pub(crate) fn is_told_once(&self) -> bool {
        self.watched_fd().once.get()
    }

    /// The fd is not ready any more, and is to be reported when it is again: nothing has to be done
    /// for that but under a driver without edges.
    #[inline]
    pub(crate) fn expect_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_told_once() {
            self.rewatch_fd(fd, Interest::READABLE, Mode::Edge)
        } else {
            Ok(())
        }
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

    /// Asks the driver anew, about this. One syscall. What was found is forgotten, and reported
    /// again if it still is so.
    pub(crate) fn rewatch_fd(
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
            driving.driver.as_mut().ok_or_else(closed)?.modify(fd, id, interest, mode)
        })?;
        self.forget_readiness(Readiness::ALL);
        Ok(())
    }

    /// What makes the source ready from now on, of what is found.
    pub(crate) fn want(&self, interest: Interest, mode: Mode) {
        let fd = self.watched_fd();
        let wanted = wanted(interest);
        fd.want(wanted, once_only(interest, mode, wanted));
        if fd.is_ready() {
            self.make_ready();
            self.progressed();
        } else if self.is_ready() {
            self.stop();
        }
    }

    /// The fd is to report again what it reports once.
    pub(crate) fn retell(&self) {
        self.watched_fd().told.set(Readiness::NONE);
    }

    /// The source reports what the fd is ready for to a select. Nothing is done about it yet.
    pub(crate) fn report_fd(&self) {
        let core = self.core();
        let fd = self.watched_fd();
        self.node().count();
        fd.tell();
        if fd.is_ready() {
            core.count_report(&core.table.borrow(), self.slot);
        } else {
            self.stop();
        }
    }

    /// Something was done about what the source reports: it does not spin.
    pub(crate) fn progressed(&self) {
        if self.is_ready() {
            let patience = self.chunk.fds.get(self.slot).map_or(PATIENCE, Watched::patience);
            self.node().pos.set(patience);
        }
    }

    /// Waits for `fd` no longer. One syscall. What was found is forgotten.
    ///
    /// While the driver waits it cannot be told: then it is when that wait is over, which is soon.
    pub(crate) fn unwatch_fd(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.is_inert() {
            return Ok(());
        }
        self.stop_watching();
        self.watched_fd().number.set(0);
        let core = self.core();
        let Ok(mut driving) = core.driving.try_borrow_mut() else {
            core.fds.leaving.borrow_mut().push(Leaving::new(fd, self.token()));
            core.fds.has_leaving.set(true);
            core.leave_to_next_turn();
            return Ok(());
        };
        driving.driver.as_mut().ok_or_else(closed)?.deregister(fd, self.token())
    }

    /// The file of an [unwatched](Self::unwatch_fd) fd has been closed. If the driver could not
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

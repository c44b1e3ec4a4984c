//! The registered fds: their readiness, and what was reported.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::clock::Mark;
use super::usage::FEW;
use crate::sys::closing::Leaving;
use crate::sys::{Interest, Mode, Readiness, nanos};

/// The state of one registered fd.
#[derive(Debug, Default)]
pub(crate) struct FdRecord {
    /// The readiness that was found and not cleared.
    pub(crate) found: Cell<Readiness>,
    /// The part of `found` that makes the source ready.
    pub(crate) wanted: Cell<Readiness>,
    /// The part of `wanted` that its source reports once: the ends that nobody asked for, and
    /// everything in [`Mode::OneShot`].
    pub(crate) once_only: Cell<Readiness>,
    /// The part of `once_only` that its source has reported.
    pub(crate) told: Cell<Readiness>,
    /// The driver reports the fd once. It is asked anew when the fd is no longer ready, or, in
    /// [`Mode::Level`], when the report was taken.
    pub(crate) once: Cell<bool>,
    /// The number of the fd, plus one; 0 while none is registered.
    pub(crate) number: Cell<u32>,
}

impl FdRecord {
    /// Returns true if the source has something to report.
    pub(crate) fn is_ready(&self) -> bool {
        !(self.found.get() & self.wanted.get()).without(self.told.get()).is_empty()
    }

    /// Returns the readiness that the source reports once and has not reported.
    pub(crate) fn untold(&self) -> Readiness {
        (self.found.get() & self.once_only.get()).without(self.told.get())
    }

    /// Notes a report of the source. Returns true if something was untold.
    pub(crate) fn tell(&self) -> bool {
        let untold = self.untold();
        self.told.set(self.told.get() | untold);
        !untold.is_empty()
    }

    /// Returns true if something that is reported once was reported and still holds.
    pub(crate) fn is_told(&self) -> bool {
        !(self.found.get() & self.told.get()).is_empty()
    }

    /// Sets `wanted`, of which `once_only` is reported once. A report of that stays a report, also
    /// when something else is wanted in between: who stops reading is not told of an end again.
    pub(crate) fn want(&self, wanted: Readiness, once_only: Readiness) {
        self.wanted.set(wanted);
        self.once_only.set(once_only);
    }

    /// The file has not ended in the direction that `interest` names. If it is read or written, an
    /// end that is found afterwards is a new one, as that of a pipe's next writer.
    pub(crate) fn note_open(&self, interest: Interest) {
        let ended = match interest {
            Interest::READABLE => Readiness::READ_CLOSED,
            Interest::WRITABLE => Readiness::WRITE_CLOSED,
            _ => return,
        };
        if self.once_only.get().is_empty() {
            self.told.set(self.told.get().without(ended | Readiness::ERROR));
        }
    }

    /// Clears everything: the slot may be another source's next.
    pub(crate) fn reset(&self) {
        self.found.set(Readiness::NONE);
        self.want(Readiness::NONE, Readiness::NONE);
        self.told.set(Readiness::NONE);
        self.once.set(false);
    }
}

/// The ends of a file, which the poller tells unasked.
const ENDS: Readiness =
    Readiness::NONE.and(Readiness::ERROR).and(Readiness::READ_CLOSED).and(Readiness::WRITE_CLOSED);

/// The part of `wanted` that is reported once: everything in one-shot mode, and the ends of a file
/// that is neither read nor written.
pub(crate) fn once_only(mode: Mode, wanted: Readiness) -> Readiness {
    if mode == Mode::OneShot { wanted } else { wanted & ENDS }
}

/// Returns the readiness that a user with this interest can act on.
pub(crate) fn wanted(interest: Interest) -> Readiness {
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
    // The end counts as data to read, and as room to write. Without both interests it is told, too.
    if !interest.is_readable() && !interest.is_writable() {
        wanted = wanted | ENDS;
    }
    wanted
}

/// The number of fds, and the turn of the last look at them.
#[derive(Debug, Default)]
pub(crate) struct Fds {
    pub(crate) registered: Cell<usize>,
    /// ns: a loop that never blocks looks at its fds as often.
    pub(crate) interval: u64,
    /// The last look, from which a busy loop counts the interval to the next one. `None`: the next
    /// one is due.
    pub(crate) looked_at: Cell<Option<Mark>>,
    /// The turn of the last look; 0 if the turn has stayed awake since, where a sleep looks.
    pub(crate) looked_in: Cell<u64>,
    /// The last turn that begins without a look: the turn of the last look, or the turn after it if
    /// that look was a sleep.
    seen_until: Cell<u64>,
    /// The last look for an outer loop may have left fds for want of room.
    pub(crate) more: Cell<bool>,
    /// Tokens of sources that are in the ready list and have told everything: the next report
    /// takes them out. There is room for every fd.
    pub(crate) told: RefCell<Vec<u64>>,
    /// `told` names sources, or there are channels that tell once.
    pub(crate) has_told: Cell<bool>,
    /// The number of channels that tell once that they are ready: outboxes.
    pub(crate) told_once: Cell<usize>,
    /// Files that were to be taken out of the poller while the driver was waiting.
    pub(crate) leaving: RefCell<Vec<Leaving>>,
    pub(crate) has_leaving: Cell<bool>,
}

impl Fds {
    pub(crate) fn new(interval: Duration) -> Fds {
        Fds { interval: nanos(interval), ..Fds::default() }
    }

    /// The driver has to take files out of its poller.
    #[inline]
    pub(crate) fn has_leaving(&self) -> bool {
        self.has_leaving.get()
    }

    /// For a reactor that goes: closes what it kept open.
    pub(crate) fn close(&self) {
        drop(self.leaving.take());
    }

    /// Gives back what the list has for fds that are gone.
    pub(crate) fn shrink(&self) {
        self.told.borrow_mut().shrink_to(self.registered.get().max(FEW));
    }

    /// For a driver that is asked before the reactor says that nothing is ready, and not otherwise,
    /// though no fd is registered.
    pub(crate) fn of_yielding_driver() -> Fds {
        let fds = Fds::new(Duration::MAX);
        fds.registered.set(1);
        fds.looked_at.set(Some(Mark::default()));
        fds
    }

    #[inline]
    pub(crate) fn are_registered(&self) -> bool {
        self.registered.get() > 0
    }

    /// Notes a look, which was a sleep or not.
    #[inline]
    pub(crate) fn looked(&self, at: Mark, turn: u64, slept: bool) {
        self.looked_in.set(turn);
        self.seen_until.set(turn + u64::from(slept && self.interval > 0));
        self.looked_at.set(Some(at));
    }

    /// Returns true if the turn begins with a look, if it is time for one.
    #[inline]
    pub(crate) fn may_be_looked_at(&self, turn: u64) -> bool {
        self.are_registered() && self.seen_until.get() < turn
    }

    /// The turn goes on and has not slept: its last look does not count any more.
    #[inline]
    pub(crate) fn stayed_awake(&self) {
        self.looked_in.set(0);
        self.seen_until.set(0);
    }
}

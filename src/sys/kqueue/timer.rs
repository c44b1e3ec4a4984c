//! The kernel timer of a kqueue: `EVFILT_TIMER`, one-shot.
//!
//! Quirks handled here and in `../kevent.rs`:
//! - No system but macOS takes a monotonic deadline: what is asked for is the time that is left, rounded up, so that it ends late by what passes
//!   between the reading of the clock and the call.
//! - Adding it again restarts it and takes a pending expiry away; on DragonFly it does not, and is deleted in between.
//! - It is gone when it has fired, so to delete it may fail with `ENOENT`, which is what was wanted.

use std::io;
use std::sync::{Arc, OnceLock};

use super::super::Time;
use super::super::kevent::{EV_DELETE, Filter, Timers};
use super::abi::{self, Kevent, Raw};
use super::{Poller, Queue};

/// A kernel timer: an `EVFILT_TIMER` on the clock of [`Time`] here.
///
/// It belongs to one [`Poller`], where each expiry is an event under its id that needs no reading.
///
/// ```
/// use pollmux::{Time, sys::{Events, OsTimer, Poller}};
/// use std::time::Duration;
///
/// let poller = Poller::new()?;
/// let timer = OsTimer::new(&poller, 1)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut Events::with_capacity(4), None)?;
/// assert!(Time::now() >= deadline);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct OsTimer {
    queue: Arc<Queue>,
    ident: usize,
    id: u64,
}

/// The most changes that arm a timer.
const STEPS: usize = 3;

impl OsTimer {
    /// Creates a disarmed timer of `poller` that is reported under `id`. No syscall here, two on epoll.
    pub fn new(poller: &Poller, id: u64) -> io::Result<OsTimer> {
        let queue = poller.queue.clone();
        let ident = {
            let book = &mut *queue.book();
            book.free_timers.pop().unwrap_or_else(|| {
                book.timers.push(u64::MAX);
                book.timers.len() - 1
            })
        };
        Ok(OsTimer { queue, ident, id })
    }

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes away an expiry nobody saw. One syscall.
    ///
    /// [`Time::MAX`] disarms. To arm and then wait, [`Poller::arm_and_wait`] is cheaper where one syscall can do both.
    pub fn arm(&self, deadline: Time) -> io::Result<()> {
        if deadline == Time::MAX {
            return self.disarm();
        }
        self.armed_by(deadline, |changes| self.queue.change(changes))
    }

    /// Takes the deadline, or an expiry nobody saw, away. One syscall.
    pub fn disarm(&self) -> io::Result<()> {
        self.set(Time::MAX);
        let delete = Kevent {
            ident: self.ident,
            filter: Filter::Timer,
            flags: EV_DELETE,
            fflags: 0,
            data: 0,
            id: self.id,
        };
        match self.queue.change(&[Raw::new(delete)]) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn is_of(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }

    /// Hands the changes that arm the timer to `apply`. If that fails the deadline is what it was; unless it was interrupted, while it waited.
    pub(super) fn armed_by(
        &self,
        deadline: Time,
        apply: impl FnOnce(&[Raw]) -> io::Result<()>,
    ) -> io::Result<()> {
        let former = self.set(deadline);
        let (changes, n) = changes(self.ident, self.id, deadline);
        let applied = apply(&changes[..n]);
        if applied.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.set(former);
        }
        applied
    }

    fn set(&self, deadline: Time) -> Time {
        let former = std::mem::replace(&mut self.queue.book().timers[self.ident], deadline.as_nanos());
        Time::from_nanos(former)
    }
}

impl Drop for OsTimer {
    fn drop(&mut self) {
        // Whatever fails, an event of a timer that is not armed is not reported.
        let _ = self.disarm();
        self.queue.book().free_timers.push(self.ident);
    }
}

/// Arms the timer again that has fired too early.
pub(super) fn arm(queue: &Queue, ident: usize, id: u64, deadline: Time) -> io::Result<()> {
    let (changes, n) = changes(ident, id, deadline);
    queue.change(&changes[..n])
}

fn changes(ident: usize, id: u64, deadline: Time) -> ([Raw; STEPS], usize) {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    let timers = *TIMERS.get_or_init(|| Timers::of(abi::SYSTEM, &abi::release()));
    let (mut changes, steps) = ([Raw::EMPTY; STEPS], timers.steps());
    let data = timers.data(deadline.as_nanos(), Time::now().as_nanos());
    for (change, &flags) in changes.iter_mut().zip(steps) {
        *change = Raw::new(Kevent { ident, filter: Filter::Timer, flags, fflags: timers.fflags, data, id });
    }
    (changes, steps.len())
}

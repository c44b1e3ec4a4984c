//! The kernel timer of a kqueue: `EVFILT_TIMER`, one-shot.
//!
//! Quirks handled here and in `../kevent.rs`:
//! - No system but macOS takes a monotonic deadline: what is asked for is the time that is left,
//!   rounded up, so that it ends late by what passes between the reading of the clock and the call.
//! - Adding it again restarts it and takes a pending expiry away; on DragonFly it does not, and is
//!   deleted in between.
//! - It is gone when it has fired, so to delete it may fail with `ENOENT`, which is what was
//!   wanted.

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
/// use pollmux::{Time, sys::{PollEvents, PollerTimer, Poller}};
/// use std::time::Duration;
///
/// let poller = Poller::new()?;
/// let timer = PollerTimer::new(&poller, 1)?;
/// let deadline = Time::now() + Duration::from_millis(2);
/// timer.arm(deadline)?;
/// poller.wait(&mut PollEvents::with_capacity(4), None)?;
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
pub(super) const STEPS: usize = 3;

impl OsTimer {
    /// Creates a disarmed timer of `poller` that is reported under `id`. No syscall here, two on
    /// epoll.
    pub fn new(poller: &Poller, id: u64) -> io::Result<OsTimer> {
        timers(); // asked here, because to ask allocates
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

    /// Fires once at `deadline`, or at once if that is past; replaces what was armed, and takes
    /// away an expiry nobody saw. One syscall.
    ///
    /// [`Time::MAX`] disarms. To arm and then wait, [`Poller::arm_and_wait`] is cheaper where one
    /// syscall can do both.
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

    /// Hands the changes that arm the timer to `apply`. If that fails the deadline is what it was;
    /// unless it was interrupted, while it waited.
    pub(super) fn armed_by(
        &self,
        deadline: Time,
        apply: impl FnOnce(&[Raw]) -> io::Result<()>,
    ) -> io::Result<()> {
        let former = self.set(deadline);
        let (changes, n) = changes(timers(), self.ident, self.id, deadline);
        let applied = apply(&changes[..n]);
        if applied.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            self.set(former);
        }
        applied
    }

    fn set(&self, deadline: Time) -> Time {
        let former =
            std::mem::replace(&mut self.queue.book().timers[self.ident], deadline.as_nanos());
        Time::from_nanos(former)
    }
}

impl Drop for OsTimer {
    fn drop(&mut self) {
        // The book may have been locked by another thread when the process forked.
        if !self.queue.kq.is_here() {
            return;
        }
        // Whatever fails, an event of a timer that is not armed is not reported.
        let _ = self.disarm();
        self.queue.book().free_timers.push(self.ident);
    }
}

/// Arms the timer again that has fired too early.
pub(super) fn arm(queue: &Queue, ident: usize, id: u64, deadline: Time) -> io::Result<()> {
    let (changes, n) = changes(timers(), ident, id, deadline);
    queue.change(&changes[..n])
}

/// How the system here is asked.
pub(super) fn timers() -> Timers {
    static TIMERS: OnceLock<Timers> = OnceLock::new();
    *TIMERS.get_or_init(|| Timers::of(abi::SYSTEM, &abi::release()))
}

fn changes(timers: Timers, ident: usize, id: u64, deadline: Time) -> ([Raw; STEPS], usize) {
    let (mut changes, steps) = ([Raw::EMPTY; STEPS], timers.steps());
    let data = timers.data(deadline.as_nanos(), Time::now().as_nanos());
    for (change, &flags) in changes.iter_mut().zip(steps) {
        *change = Raw::new(Kevent {
            ident,
            filter: Filter::Timer,
            flags,
            fflags: timers.fflags,
            data,
            id,
        });
    }
    (changes, steps.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::PollEvents as Events;
    use std::time::Duration;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn look(poller: &Poller, events: &mut Events) -> usize {
        poller.wait(events, Some(Duration::ZERO)).unwrap();
        events.len()
    }

    /// What is asked of systems that count in ms, and of those that do not restart a timer, does
    /// the same on one that could do better.
    #[test]
    fn each_way_to_arm_replaces_the_deadline_and_takes_an_expiry_away() {
        let here = timers();
        for restarts in [true, false] {
            for (fflags, unit_ns) in [(here.fflags, here.unit_ns), (0, 1_000_000)] {
                let timers = Timers { fflags, unit_ns, restarts, ..here };
                let poller = Poller::new().unwrap();
                let timer = OsTimer::new(&poller, 3).unwrap();
                let mut events = Events::with_capacity(4);
                let arm = |after| {
                    let deadline = Time::now() + after;
                    timer.set(deadline);
                    let (changes, n) = changes(timers, timer.ident, timer.id, deadline);
                    timer.queue.change(&changes[..n]).unwrap();
                    deadline
                };
                for _ in 0..3 {
                    arm(ms(100_000));
                    let earlier = arm(ms(2));
                    poller.wait(&mut events, None).unwrap();
                    assert!(Time::now() >= earlier && events.len() == 1, "{timers:?}");
                    assert_eq!(look(&poller, &mut events), 0);
                    arm(ms(1));
                    std::thread::sleep(ms(5)); // it is due
                    arm(ms(100_000));
                    assert_eq!(look(&poller, &mut events), 0, "{timers:?}");
                }
            }
        }
    }

    /// A kernel that rounds down, or one that was asked for less than the whole time.
    #[test]
    fn a_timer_that_fires_too_early_is_armed_again_and_not_reported() {
        let poller = Poller::new().unwrap();
        let timer = OsTimer::new(&poller, 3).unwrap();
        let mut events = Events::with_capacity(4);
        for timeout in [None, Some(ms(10_000))] {
            let deadline = Time::now() + ms(20);
            timer.set(deadline);
            arm(&timer.queue, timer.ident, timer.id, Time::now() + ms(1)).unwrap();
            poller.wait(&mut events, timeout).unwrap();
            assert!(Time::now() >= deadline);
            assert_eq!(events.iter().map(|event| event.id()).collect::<Vec<_>>(), [3]);
        }
        // Whoever only looks, or waits for less, sees nothing.
        for timeout in [ms(0), ms(2)] {
            let deadline = Time::now() + ms(100_000);
            timer.set(deadline);
            arm(&timer.queue, timer.ident, timer.id, Time::ZERO).unwrap();
            std::thread::sleep(ms(2)); // it has fired
            poller.wait(&mut events, Some(timeout)).unwrap();
            assert!(events.is_empty());
        }
        // Nor does one that was disarmed when its event was on the way.
        timer.arm(Time::now()).unwrap();
        std::thread::sleep(ms(2)); // it has fired
        timer.set(Time::MAX);
        assert_eq!(look(&poller, &mut events), 0);
    }

    #[test]
    fn a_timer_that_is_gone_leaves_its_place_to_the_next() {
        let poller = Poller::new().unwrap();
        for _ in 0..10 {
            let timers = [OsTimer::new(&poller, 3).unwrap(), OsTimer::new(&poller, 4).unwrap()];
            timers.iter().for_each(|timer| timer.arm(Time::ZERO).unwrap());
        }
        assert_eq!(poller.queue.book().timers, [u64::MAX; 2]);
    }

    #[test]
    fn an_arm_that_fails_leaves_the_deadline_as_it_was() {
        let poller = Poller::new().unwrap();
        let timer = OsTimer::new(&poller, 3).unwrap();
        let deadline = Time::now() + ms(2);
        timer.arm(deadline).unwrap();
        let fails = |_: &[Raw]| Err(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(timer.armed_by(Time::now() + ms(100_000), fails).is_err());
        let mut events = Events::with_capacity(4);
        poller.wait(&mut events, None).unwrap();
        assert!(Time::now() >= deadline);
        // An interrupted wait has armed.
        let interrupted = |_: &[Raw]| Err(io::Error::from_raw_os_error(libc::EINTR));
        assert!(timer.armed_by(deadline, interrupted).is_err());
        assert_eq!(timer.set(Time::MAX), deadline);
    }
}

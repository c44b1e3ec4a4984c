//! The kernel timer of a kqueue: `EVFILT_TIMER`, one-shot.
//!
//! Quirks handled here and in `../kevent.rs`:
//! - Only macOS takes a monotonic deadline. The other systems get the remaining time, rounded up.
//!   So the timer is late by the time between the reading of the clock and the call.
//! - Adding the timer again restarts it and takes a pending expiry away. DragonFly does neither, so
//!   there the timer is deleted first.
//! - A timer that has fired is gone, so its deletion may fail with `ENOENT`, which does no harm.

use std::io;
use std::sync::OnceLock;

use super::super::Time;
use super::super::kevent::{EV_DELETE, Filter, Timers};
use super::Poller;
use super::abi::{self, Kevent, Raw};

#[derive(Debug)]
pub(crate) struct Timer {
    poller: Poller,
    ident: usize,
    id: u64,
}

/// The most changes that arm a timer.
pub(super) const STEPS: usize = 3;

impl Timer {
    pub(crate) fn new(poller: &Poller, id: u64) -> io::Result<Timer> {
        timers(); // the first call allocates
        let ident = {
            let book = &mut *poller.book();
            book.free_timers.pop().unwrap_or_else(|| {
                book.timers.push(u64::MAX);
                book.timers.len() - 1
            })
        };
        Ok(Timer { poller: poller.clone(), ident, id })
    }

    pub(crate) fn arm(&self, deadline: Time) -> io::Result<()> {
        if deadline == Time::MAX {
            return self.disarm();
        }
        self.armed_by(deadline, |changes| self.poller.change(changes))
    }

    fn disarm(&self) -> io::Result<()> {
        self.set(Time::MAX);
        let delete = Kevent {
            ident: self.ident,
            filter: Filter::Timer,
            flags: EV_DELETE,
            fflags: 0,
            data: 0,
            id: self.id,
        };
        abi::change_if_there(&self.poller.queue.kq, Raw::new(delete))
    }

    pub(super) fn is_of(&self, poller: &Poller) -> bool {
        self.poller.is(poller)
    }

    /// Hands the changes that arm the timer to `apply`. If `apply` fails, the former deadline
    /// stays. An interrupted wait has armed the timer.
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
            std::mem::replace(&mut self.poller.book().timers[self.ident], deadline.as_nanos());
        Time::from_nanos(former)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The book may have been locked by another thread when the process forked.
        if !self.poller.is_here() {
            return;
        }
        // After a failure, too, no event of a disarmed timer is reported.
        let _ = self.disarm();
        self.poller.book().free_timers.push(self.ident);
    }
}

/// Arms a timer again that has fired too early.
pub(super) fn arm(poller: &Poller, ident: usize, id: u64, deadline: Time) -> io::Result<()> {
    let (changes, n) = changes(timers(), ident, id, deadline);
    poller.change(&changes[..n])
}

/// Returns the properties of the timers of this system.
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
    use crate::sys::kqueue::Events;
    use std::time::Duration;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn look(poller: &Poller, events: &mut Events) -> usize {
        poller.wait(events, Some(Duration::ZERO)).unwrap();
        events.len()
    }

    /// The methods for systems that count in ms, or that do not restart a timer, also work on other
    /// systems.
    #[test]
    fn each_arm_replaces_deadline_and_pending_expiry() {
        let here = timers();
        for restarts in [true, false] {
            for (fflags, unit_ns) in [(here.fflags, here.unit_ns), (0, 1_000_000)] {
                let timers = Timers { fflags, unit_ns, restarts, ..here };
                let poller = Poller::new().unwrap();
                let timer = Timer::new(&poller, 3).unwrap();
                let mut events = Events::with_capacity(4);
                let arm = |after| {
                    let deadline = Time::now() + after;
                    timer.set(deadline);
                    let (changes, n) = changes(timers, timer.ident, timer.id, deadline);
                    timer.poller.change(&changes[..n]).unwrap();
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

    /// A timer is early if the kernel rounds down, or if the backend asked for a part of the time.
    #[test]
    fn an_early_expiry_is_re_armed_not_reported() {
        let poller = Poller::new().unwrap();
        let timer = Timer::new(&poller, 3).unwrap();
        let mut events = Events::with_capacity(4);
        for timeout in [None, Some(ms(10_000))] {
            let deadline = Time::now() + ms(20);
            timer.set(deadline);
            arm(&timer.poller, timer.ident, timer.id, Time::now() + ms(1)).unwrap();
            poller.wait(&mut events, timeout).unwrap();
            assert!(Time::now() >= deadline);
            assert_eq!(events.iter().map(|event| event.id()).collect::<Vec<_>>(), [3]);
        }
        // A poll, or a shorter wait, finds no event.
        for timeout in [ms(0), ms(2)] {
            let deadline = Time::now() + ms(100_000);
            timer.set(deadline);
            arm(&timer.poller, timer.ident, timer.id, Time::ZERO).unwrap();
            std::thread::sleep(ms(2)); // it has fired
            poller.wait(&mut events, Some(timeout)).unwrap();
            assert_eq!(events.len(), 0);
        }
        // A timer that is disarmed after its expiry has no event.
        timer.arm(Time::now()).unwrap();
        std::thread::sleep(ms(2)); // it has fired
        timer.set(Time::MAX);
        assert_eq!(look(&poller, &mut events), 0);
    }

    #[test]
    fn a_new_timer_reuses_a_dropped_timers_place() {
        let poller = Poller::new().unwrap();
        for _ in 0..10 {
            let timers = [Timer::new(&poller, 3).unwrap(), Timer::new(&poller, 4).unwrap()];
            timers.iter().for_each(|timer| timer.arm(Time::ZERO).unwrap());
        }
        assert_eq!(poller.book().timers, [u64::MAX; 2]);
    }

    #[test]
    fn a_failed_arm_keeps_the_deadline() {
        let poller = Poller::new().unwrap();
        let timer = Timer::new(&poller, 3).unwrap();
        let deadline = Time::now() + ms(2);
        timer.arm(deadline).unwrap();
        let fails = |_: &[Raw]| Err(io::Error::from_raw_os_error(libc::ENOMEM));
        assert!(timer.armed_by(Time::now() + ms(100_000), fails).is_err());
        let mut events = Events::with_capacity(4);
        poller.wait(&mut events, None).unwrap();
        assert!(Time::now() >= deadline);
        // An interrupted wait has armed the timer.
        let interrupted = |_: &[Raw]| Err(io::Error::from_raw_os_error(libc::EINTR));
        assert!(timer.armed_by(deadline, interrupted).is_err());
        assert_eq!(timer.set(Time::MAX), deadline);
    }
}

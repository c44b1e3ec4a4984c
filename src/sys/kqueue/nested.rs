//! Objects that are an fd on Linux and a filter on kqueue. Each is a small kqueue with one filter,
//! and another poller waits for that kqueue.
//!
//! Quirks handled here:
//! - The outer kqueue reports an event of the inner kqueue once, when it comes. So a timer is read,
//!   and deleted before it is armed anew. The end of a process stays.
//! - No system has timers on a clock that counts suspend. Some have timers on the wall clock
//!   (`../kevent.rs`), and none reports that the clock was set.
//! - The kernel may report an ended process as missing (`ESRCH`), even if it has not been waited
//!   for. Then a timer that is due at once stands for the end.
//! - The end of a process is reported a moment before `waitpid` has its status.
//! - No poller can wait for the kqueues of some libraries (cfg `flat`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::fork::PollerFd;
use super::super::kevent::{EV_ADD, EV_DELETE, EV_ONESHOT, Filter};
use super::super::process::{is_unwaited, refused};
use super::super::{Expiry, Time, TimerClock, has_fd, nanos};
use super::abi::{self, Kevent, NOTE_EXIT, Raw, change, change_if_there};
use super::timer::{STEPS, timers};

/// Makes an inner kqueue.
fn nested() -> io::Result<PollerFd> {
    if !super::NESTS {
        let text = "a kqueue of this library cannot wait for another one";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    abi::kqueue()
}

/// Takes a pending event. Returns false if there is none.
fn take(kq: &PollerFd) -> io::Result<bool> {
    Ok(abi::at_once(kq, &[], &mut [Raw::EMPTY])? > 0)
}

fn timer(flags: u32, fflags: u32, data: i64) -> Raw {
    Raw::new(Kevent { ident: 0, filter: Filter::Timer, flags, fflags, data, id: 0 })
}

#[derive(Debug)]
pub(crate) struct TimerFd {
    kq: PollerFd,
    /// The flag for a time of day in `data`.
    wall: Option<u32>,
    /// The deadline in ns, or `u64::MAX` if the timer is not armed.
    deadline: AtomicU64,
}

impl TimerFd {
    pub(crate) fn new(clock: TimerClock) -> io::Result<TimerFd> {
        let wall = match clock {
            TimerClock::Monotonic => None,
            TimerClock::Boottime => {
                return Err(unsupported("this system has no timers that count suspend"));
            }
            TimerClock::Wall => match timers().wall {
                None => return Err(unsupported("this system has no timers on the wall clock")),
                wall => wall,
            },
        };
        Ok(TimerFd { kq: nested()?, wall, deadline: AtomicU64::new(u64::MAX) })
    }

    pub(crate) fn arm(&self, deadline: Time) -> io::Result<()> {
        if deadline == Time::MAX {
            return self.disarm();
        }
        self.deadline.store(deadline.as_nanos(), Ordering::Relaxed);
        let timers = timers();
        let (fflags, data) = match self.wall {
            // Some systems refuse a time before 1970 or the boot. A past time is armed as due at
            // once.
            Some(_) if deadline.as_nanos() <= self.now() => (timers.fflags, 1),
            Some(wall) => (timers.fflags | wall, timers.wall_data(deadline.as_nanos())),
            None => (timers.fflags, timers.data(deadline.as_nanos(), self.now())),
        };
        // The deletion cannot fail, and makes the last change a new event for the outer poller.
        const ADD: u32 = EV_ADD | EV_ONESHOT;
        let changes: [Raw; STEPS] = [ADD, EV_DELETE, ADD].map(|flags| timer(flags, fflags, data));
        change(&self.kq, &changes)
    }

    fn disarm(&self) -> io::Result<()> {
        self.deadline.store(u64::MAX, Ordering::Relaxed);
        change_if_there(&self.kq, timer(EV_DELETE, 0, 0))
    }

    pub(crate) fn needs_no_read(&self) -> bool {
        false
    }

    pub(crate) fn read(&self) -> io::Result<Expiry> {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if !take(&self.kq)? || deadline == u64::MAX {
            return Ok(Expiry::Pending);
        }
        if self.now() < deadline {
            self.arm(Time::from_nanos(deadline))?;
            return Ok(Expiry::Pending);
        }
        self.deadline.store(u64::MAX, Ordering::Relaxed);
        Ok(Expiry::Expired)
    }

    /// Returns the ns on the timer's clock.
    fn now(&self) -> u64 {
        match self.wall {
            Some(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos),
            None => Time::now().as_nanos(),
        }
    }
}

#[cold]
fn unsupported(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, text)
}

has_fd!(TimerFd, kq);

#[derive(Debug)]
pub(crate) struct ProcessFd {
    kq: PollerFd,
    ended: AtomicBool,
}

impl ProcessFd {
    pub(crate) fn new(pid: u32) -> io::Result<ProcessFd> {
        let kq = nested()?;
        let process = Kevent {
            ident: pid as usize,
            filter: Filter::Process,
            flags: EV_ADD,
            fflags: NOTE_EXIT,
            data: 0,
            id: 0,
        };
        match change(&kq, &[Raw::new(process)]) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) && is_zombie(pid) => {
                change(&kq, &[timer(EV_ADD | EV_ONESHOT, timers().fflags, 1)])?;
            }
            Err(error) if is_refusal(&error) => return Err(refused("EVFILT_PROC", &error)),
            added => added?,
        }
        Ok(ProcessFd { kq, ended: AtomicBool::new(false) })
    }

    /// Returns `None`, because no call sends a signal through a kqueue.
    pub(crate) fn signal(&self, _: i32) -> Option<io::Result<()>> {
        None
    }

    pub(crate) fn is_ending(&self) -> bool {
        if !self.ended.load(Ordering::Relaxed) && take(&self.kq).unwrap_or(false) {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.ended.load(Ordering::Relaxed)
    }
}

/// Returns true for an error of a sandbox, which says nothing about the process.
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::ENOTSUP];
    error.raw_os_error().is_some_and(|errno| refusals.contains(&errno))
}

/// Returns true if `pid`, which does not run according to the kernel, is a child that was not
/// waited for. On a system that cannot tell, the result is true.
fn is_zombie(pid: u32) -> bool {
    cfg!(target_os = "openbsd") || is_unwaited(pid)
}

has_fd!(ProcessFd, kq);

#[cfg(all(test, not(flat)))]
mod tests {
    use super::*;
    use crate::sys::Watch;
    use crate::sys::kqueue::{Events, Poller};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A timer is early if the kernel rounds down, or if the backend asked for a part of the time.
    #[test]
    fn reading_an_early_timer_re_arms_it() {
        let (poller, timer) =
            (Poller::new().unwrap(), TimerFd::new(TimerClock::Monotonic).unwrap());
        poller.register(timer.as_fd(), Watch::for_edges(1)).unwrap();
        let mut events = Events::with_capacity(4);
        let mut wait = || {
            poller.wait(&mut events, None).unwrap();
            assert_eq!(events.len(), 1);
            timer.read().unwrap()
        };
        loop {
            let deadline = Time::now() + ms(20);
            timer.arm(deadline).unwrap();
            let now = Time::now().as_nanos();
            let data = timers().data(now + 1, now);
            change(&timer.kq, &[super::timer(EV_ADD | EV_ONESHOT, timers().fflags, data)]).unwrap();
            let early = wait();
            if early == Expiry::Pending {
                assert_eq!(wait(), Expiry::Expired);
            }
            assert!(Time::now() >= deadline);
            // If the thread was preempted, the deadline has passed before the read. Then the test
            // repeats.
            if early == Expiry::Pending {
                break;
            }
        }
    }

    #[test]
    fn checking_for_a_zombie_keeps_its_status() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exit 3"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        is_zombie(child.id()); // the child still runs
        drop(child.stdin.take());
        let end = ProcessFd::new(child.id()).unwrap();
        while !end.is_ending() {
            std::thread::yield_now();
        }
        assert!(is_zombie(child.id()) && is_zombie(child.id()));
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(!is_zombie(child.id()));
    }
}

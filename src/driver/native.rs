//! The default driver: the system's poller with one kernel timer and one waker in it.
//!
//! The timer is armed inside the call that blocks, and only when the deadline asked for is before the one that is armed: a stale early
//! wake-up costs a turn, a `settime` costs more. Timer and waker are edge-triggered and never read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Clock, Driver, Syscalls, Wait, Wake};
use crate::sys::{Events, Interest, Mode, OsTimer, Poller, Time, Waker};

const TIMER: u64 = 0;
const WAKER: u64 = 1;

/// Waits through the system's own poller: epoll, a timerfd and an eventfd on Linux.
#[derive(Debug)]
pub struct Native {
    poller: Poller,
    timer: OsTimer,
    waker: Arc<Waker>,
    events: Events,
    /// What the kernel timer will fire at; `MAX` when it is not armed or has been seen to fire.
    armed: Time,
    syscalls: Syscalls,
}

impl Native {
    /// Creates the three fds and registers two of them: five syscalls. When one fails nothing is left behind.
    pub fn new() -> io::Result<Native> {
        let (poller, timer, waker) = (Poller::new()?, OsTimer::new()?, Waker::new()?);
        poller.register(&timer, TIMER, Interest::READABLE, Mode::Edge)?;
        poller.register(&waker, WAKER, Interest::READABLE, Mode::Edge)?;
        Ok(Native {
            poller,
            timer,
            waker: Arc::new(waker),
            events: Events::with_capacity(16),
            armed: Time::MAX,
            syscalls: Syscalls::default(),
        })
    }

    #[inline(always)] // see Notify::call
    fn arm(&mut self, deadline: Option<Time>) -> io::Result<()> {
        match deadline {
            Some(deadline) if deadline < self.armed => {
                self.syscalls.arms += 1;
                self.timer.arm(deadline)?;
                self.armed = deadline;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[inline(always)] // see Notify::call
    fn look(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poller.wait(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if self.events.iter().any(|event| event.id() == TIMER) {
            self.armed = Time::MAX;
        }
        Ok(())
    }
}

impl Driver for Native {
    fn wait(&mut self, arm: Option<Time>, how: Wait) -> io::Result<()> {
        match how {
            Wait::Block => {
                self.arm(arm)?;
                self.syscalls.waits += 1;
                self.look(None)
            }
            Wait::Poll => {
                self.syscalls.polls += 1;
                self.look(Some(Duration::ZERO))
            }
            Wait::Arm => self.arm(arm),
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Monotonic
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.poller.as_fd())
    }

    fn syscalls(&self) -> Syscalls {
        self.syscalls
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        Waker::wake(self)
    }
}

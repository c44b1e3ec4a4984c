//! The default driver: the system's poller with one kernel timer and one waker in it.
//!
//! The timer is armed inside the call that blocks, and only when the deadline asked for is before the one that is armed: a stale early
//! wake-up costs a turn, a `settime` costs more. Neither timer nor waker is ever read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Clock, Driver, Syscalls, Wait, Wake};
use crate::sys::{Events, OsTimer, Poller, Time, Waker};

const TIMER: u64 = 0;
const WAKER: u64 = 1;

/// Waits through the system's own poller: epoll with a timerfd and an eventfd, or a kqueue.
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
    /// On epoll three fds and five syscalls, on kqueue one fd and three. When one fails nothing is left behind.
    pub fn new() -> io::Result<Native> {
        let poller = Poller::new()?;
        let (timer, waker) = (OsTimer::new(&poller, TIMER)?, Waker::new(&poller, WAKER)?);
        Ok(Native {
            poller,
            timer,
            waker: Arc::new(waker),
            events: Events::with_capacity(16),
            armed: Time::MAX,
            syscalls: Syscalls::default(),
        })
    }

    /// Whether the kernel timer has to be set for `deadline`; says so only if the caller then sets it.
    #[inline(always)] // see Notify::call
    fn earlier(&mut self, deadline: Option<Time>) -> Option<Time> {
        let deadline = deadline.filter(|&deadline| deadline < self.armed)?;
        self.syscalls.arms += 1;
        self.armed = deadline;
        Some(deadline)
    }

    /// Waits as `wait` does. It is inlined for each way to wait, so that an error is made and looked at in one place.
    #[inline(always)] // see Notify::call
    fn look(&mut self, wait: impl FnOnce(&mut Native) -> io::Result<()>) -> io::Result<()> {
        match wait(self) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                // Whatever is armed now, the next deadline is armed again.
                self.armed = Time::MAX;
                return Err(error);
            }
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
                self.syscalls.waits += 1;
                let Some(deadline) = self.earlier(arm) else {
                    return self.look(|this| this.poller.wait(&mut this.events, None));
                };
                self.syscalls.joined += u64::from(Poller::ARMS_IN_WAIT);
                self.look(|this| this.poller.arm_and_wait(&this.timer, deadline, &mut this.events, None))
            }
            Wait::Poll => {
                self.syscalls.polls += 1;
                self.look(|this| this.poller.wait(&mut this.events, Some(Duration::ZERO)))
            }
            Wait::Arm => match self.earlier(arm) {
                Some(deadline) => self.timer.arm(deadline).inspect_err(|_| self.armed = Time::MAX),
                None => Ok(()),
            },
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

//! A driver that wraps another driver, for tests that change some of its methods.

#![allow(missing_debug_implementations)] // Closures and hooks have none.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use pollmux::driver::{Clock, Driver, ReadyFds, Syscalls, Wait, Wake, WakeWindow, foreign};
use pollmux::sys::{Interest, Mode};

/// The arguments of [`Driver::wait`].
pub struct Waiting<'a> {
    /// The end of the wait.
    pub deadline: Option<WakeWindow>,
    /// Blocks or polls.
    pub how: Wait,
    /// The list for ready fds.
    pub ready: &'a mut ReadyFds,
}

impl Waiting<'_> {
    /// Returns true if the wait may sleep.
    pub fn blocks(&self) -> bool {
        self.how == Wait::Block
    }

    /// Lets `driver` wait.
    pub fn by(&mut self, driver: &mut impl Driver) -> io::Result<()> {
        driver.wait(self.deadline, self.how, self.ready)
    }
}

/// The methods in which a [`Hooked`] driver differs from its inner driver. By default none differs.
#[allow(missing_docs)] // Each is the method of `Driver` with that name.
pub trait Hooks<D: Driver> {
    fn wait(&mut self, driver: &mut D, mut waiting: Waiting<'_>) -> io::Result<()> {
        waiting.by(driver)
    }
    fn arm(&mut self, driver: &mut D, deadline: WakeWindow) -> io::Result<()> {
        driver.arm(deadline)
    }
    fn waker(&self, driver: &D) -> Arc<dyn Wake> {
        driver.waker()
    }
    fn register(
        &mut self,
        driver: &mut D,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        driver.register(fd, id, interest, mode)
    }
    fn deregister(&mut self, driver: &mut D, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        driver.deregister(fd, id)
    }
    fn has_events(&self, driver: &D, events: foreign::EventsId) -> bool {
        driver.has_events(events)
    }
    fn syscalls(&self, driver: &D) -> Syscalls {
        driver.syscalls()
    }
}

/// A driver that forwards each call to its inner driver, except for its hooks.
pub struct Hooked<D, H>(pub D, pub H);

/// The hook of [`on_wait`].
pub struct OnWait<F>(F);

/// Returns a driver whose waits call `wait`.
pub fn on_wait<D, F>(driver: D, wait: F) -> Hooked<D, OnWait<F>>
where
    D: Driver,
    F: FnMut(&mut D, Waiting<'_>) -> io::Result<()>,
{
    Hooked(driver, OnWait(wait))
}

impl<D, F> Hooks<D> for OnWait<F>
where
    D: Driver,
    F: FnMut(&mut D, Waiting<'_>) -> io::Result<()>,
{
    fn wait(&mut self, driver: &mut D, waiting: Waiting<'_>) -> io::Result<()> {
        (self.0)(driver, waiting)
    }
}

impl<D: Driver, H: Hooks<D>> Driver for Hooked<D, H> {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        self.1.wait(&mut self.0, Waiting { deadline, how, ready })
    }
    fn arm(&mut self, deadline: WakeWindow) -> io::Result<()> {
        self.1.arm(&mut self.0, deadline)
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.1.waker(&self.0)
    }
    fn clock(&self) -> Clock {
        self.0.clock()
    }
    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.1.register(&mut self.0, fd, id, interest, mode)
    }
    fn modify(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        self.0.modify(fd, id, interest, mode)
    }
    fn deregister(&mut self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        self.1.deregister(&mut self.0, fd, id)
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_fd()
    }
    fn has_events(&self, events: foreign::EventsId) -> bool {
        self.1.has_events(&self.0, events)
    }
    fn yields(&self) -> bool {
        self.0.yields()
    }
    fn syscalls(&self) -> Syscalls {
        self.1.syscalls(&self.0)
    }
}

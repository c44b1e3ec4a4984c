//! Drivers that follow a script, or count the calls of their wakers.

#![allow(missing_debug_implementations)] // Closures have none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pollmux::sys::{Interest, Mode};
use pollmux::{
    Reactor, Sim,
    driver::{Driver, Native, Syscalls, Wake, WakeWindow},
};

use crate::{Hooked, Hooks, Waiting};

type Step = Box<dyn FnOnce() -> io::Result<()>>;

/// The events of each sleep of a driver, written down beforehand.
#[derive(Clone)]
pub struct Script {
    steps: Rc<RefCell<VecDeque<Step>>>,
    sleeps: Rc<Cell<u64>>,
    asked: Rc<RefCell<Vec<Option<WakeWindow>>>>,
    wakes: Arc<Counting>,
}

/// A waker that counts how often it is called.
pub struct Counting {
    waker: Arc<dyn Wake>,
    count: AtomicU64,
}

impl Counting {
    fn of(driver: &impl Driver) -> Arc<Counting> {
        Arc::new(Counting { waker: driver.waker(), count: AtomicU64::new(0) })
    }

    /// The number of times.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Wake for Counting {
    fn wake(&self) -> io::Result<()> {
        // Counted afterwards: who sees the count finds the reactor woken.
        self.waker.wake()?;
        self.count.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// A reactor that follows a script on a virtual clock, that clock, and the script.
pub fn scripted_reactor() -> (Sim, Reactor, Script) {
    let sim = Sim::new();
    let (driver, script) = scripted(&sim);
    (sim, Reactor::with_driver(driver).unwrap(), script)
}

/// A reactor whose driver waits for no fds.
pub fn without_fds() -> Reactor {
    refusing_fds(|| io::ErrorKind::Unsupported.into())
}

/// A reactor whose driver refuses each fd with this error.
pub fn refusing_fds(error: impl Fn() -> io::Error + 'static) -> Reactor {
    Reactor::with_driver(Hooked(Native::new().unwrap(), Refusing(error))).unwrap()
}

struct Refusing<F>(F);

impl<F: Fn() -> io::Error> Hooks<Native> for Refusing<F> {
    fn register(
        &mut self,
        _: &mut Native,
        _: BorrowedFd<'_>,
        _: u64,
        _: Interest,
        _: Mode,
    ) -> io::Result<()> {
        Err((self.0)())
    }
}

/// A driver on `sim`'s clock and the script that it follows.
pub fn scripted(sim: &Sim) -> (Hooked<Sim, Script>, Script) {
    let script = Script {
        steps: Rc::default(),
        sleeps: Rc::default(),
        asked: Rc::default(),
        wakes: Counting::of(sim),
    };
    (Hooked(sim.clone(), script.clone()), script)
}

impl Script {
    /// Plans a step for the next sleep that has none yet. An error is the driver's.
    pub fn on_sleep(&self, step: impl FnOnce() -> io::Result<()> + 'static) {
        self.steps.borrow_mut().push_back(Box::new(step));
    }

    /// The next sleep fails.
    pub fn fail(&self, text: &'static str) {
        self.on_sleep(move || Err(io::Error::other(text)));
    }

    /// The number of sleeps of the reactor.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Returns the deadlines of the sleeps since the last call.
    pub fn take_deadlines(&self) -> Vec<Option<WakeWindow>> {
        self.asked.take()
    }

    /// The number of calls of the waker.
    pub fn wakes(&self) -> u64 {
        self.wakes.count()
    }
}

impl Hooks<Sim> for Script {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() {
            self.sleeps.set(self.sleeps.get() + 1);
            self.asked.borrow_mut().push(waiting.deadline);
            let step = self.steps.borrow_mut().pop_front();
            if let Some(step) = step {
                step()?;
            }
        }
        waiting.by(sim)
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.wakes.clone()
    }

    fn syscalls(&self, _: &Sim) -> Syscalls {
        let mut syscalls = Syscalls::default();
        syscalls.waits = self.sleeps.get();
        syscalls
    }
}

/// Gives out a waker whose calls are counted.
pub struct Overheard(Arc<Counting>);

/// The native driver, and the waker that it gives.
pub fn overheard() -> (Hooked<Native, Overheard>, Arc<Counting>) {
    let native = Native::new().unwrap();
    let wakes = Counting::of(&native);
    (Hooked(native, Overheard(wakes.clone())), wakes)
}

impl Hooks<Native> for Overheard {
    fn waker(&self, _: &Native) -> Arc<dyn Wake> {
        self.0.clone()
    }
}

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

/// The planned actions of a driver's sleeps, one for each sleep.
#[derive(Clone)]
pub struct Script {
    steps: Rc<RefCell<VecDeque<Step>>>,
    sleeps: Rc<Cell<u64>>,
    asked: Rc<RefCell<Vec<Option<WakeWindow>>>>,
    wakes: Arc<Counting>,
}

/// A waker that counts its calls.
pub struct Counting {
    waker: Arc<dyn Wake>,
    count: AtomicU64,
}

impl Counting {
    fn of(driver: &impl Driver) -> Arc<Counting> {
        Arc::new(Counting { waker: driver.waker(), count: AtomicU64::new(0) })
    }

    /// Returns the number of calls.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Wake for Counting {
    fn wake(&self) -> io::Result<()> {
        // Count after the wake-up: a thread that sees the count finds the reactor woken.
        self.waker.wake()?;
        self.count.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Returns a virtual clock, a reactor that follows a script on it, and the script.
pub fn scripted_reactor() -> (Sim, Reactor, Script) {
    let sim = Sim::new();
    let (driver, script) = scripted(&sim);
    (sim, Reactor::with_driver(driver).unwrap(), script)
}

/// Returns a reactor whose driver supports no fds.
pub fn without_fds() -> Reactor {
    refusing_fds(|| io::ErrorKind::Unsupported.into())
}

/// Returns a reactor whose driver refuses each fd with this error.
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

/// Returns a driver on `sim`'s clock, and the script that it follows.
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
    /// Plans an action for the next sleep without one. An error of the action is the driver's
    /// error.
    pub fn on_sleep(&self, step: impl FnOnce() -> io::Result<()> + 'static) {
        self.steps.borrow_mut().push_back(Box::new(step));
    }

    /// Makes the next sleep fail.
    pub fn fail(&self, text: &'static str) {
        self.on_sleep(move || Err(io::Error::other(text)));
    }

    /// Returns the number of sleeps of the reactor.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Returns the deadlines of the sleeps since the last call.
    pub fn take_deadlines(&self) -> Vec<Option<WakeWindow>> {
        self.asked.take()
    }

    /// Returns the number of calls of the waker.
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

/// A hook whose waker counts its calls.
pub struct CountedWakes(Arc<Counting>);

/// Returns the native driver, and its waker, which counts its calls.
pub fn with_counted_wakes() -> (Hooked<Native, CountedWakes>, Arc<Counting>) {
    let native = Native::new().unwrap();
    let wakes = Counting::of(&native);
    (Hooked(native, CountedWakes(wakes.clone())), wakes)
}

impl Hooks<Native> for CountedWakes {
    fn waker(&self, _: &Native) -> Arc<dyn Wake> {
        self.0.clone()
    }
}

//! Drivers that follow a script, or count the calls of their wakers.

#![allow(missing_debug_implementations)] // Closures have none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pollmux::{
    Reactor, Sim,
    driver::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow},
};

type Step = Box<dyn FnOnce() -> io::Result<()>>;

/// [`Sim`], with what happens during each sleep written down beforehand.
pub struct Scripted {
    sim: Sim,
    script: Script,
    wakes: Arc<Counting>,
}

/// The other end of a [`Scripted`] driver.
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
    /// How often.
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

/// A reactor with a [`Scripted`] driver on a virtual clock, that clock, and the script.
pub fn scripted_reactor() -> (Sim, Reactor, Script) {
    let sim = Sim::new();
    let (driver, script) = scripted(&sim);
    (sim, Reactor::with_driver(driver).unwrap(), script)
}

/// A driver on `sim`'s clock and the script that it follows.
pub fn scripted(sim: &Sim) -> (Scripted, Script) {
    let wakes = Arc::new(Counting { waker: sim.waker(), count: AtomicU64::new(0) });
    let script = Script {
        steps: Rc::default(),
        sleeps: Rc::default(),
        asked: Rc::default(),
        wakes: wakes.clone(),
    };
    (Scripted { sim: sim.clone(), script: script.clone(), wakes }, script)
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

    /// How often the reactor has slept.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.get()
    }

    /// Returns the deadlines of the sleeps since the last call.
    pub fn take_deadlines(&self) -> Vec<Option<WakeWindow>> {
        self.asked.take()
    }

    /// How often somebody has called the waker.
    pub fn wakes(&self) -> u64 {
        self.wakes.count()
    }
}

impl Driver for Scripted {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        if how == Wait::Block {
            self.script.sleeps.set(self.script.sleeps.get() + 1);
            self.script.asked.borrow_mut().push(deadline);
            let step = self.script.steps.borrow_mut().pop_front();
            if let Some(step) = step {
                step()?;
            }
        }
        self.sim.wait(deadline, how, ready)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wakes.clone()
    }

    fn clock(&self) -> Clock {
        self.sim.clock()
    }

    fn syscalls(&self) -> Syscalls {
        Syscalls { waits: self.script.sleeps.get(), ..Syscalls::default() }
    }
}

/// [`Native`], with the calls of its waker counted.
pub struct Overheard {
    native: Native,
    wakes: Arc<Counting>,
}

/// The native driver, and the waker that it gives.
pub fn overheard() -> (Overheard, Arc<Counting>) {
    let native = Native::new().unwrap();
    let wakes = Arc::new(Counting { waker: native.waker(), count: AtomicU64::new(0) });
    (Overheard { native, wakes: wakes.clone() }, wakes)
}

impl Driver for Overheard {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        self.native.wait(deadline, how, ready)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wakes.clone()
    }

    fn clock(&self) -> Clock {
        self.native.clock()
    }

    fn syscalls(&self) -> Syscalls {
        self.native.syscalls()
    }
}

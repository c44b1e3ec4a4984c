//! What several test files need: a watchdog, children of the test binary, drivers that follow a
//! script or count, pauses of random length.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::Location;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use pollmux::{
    Sim,
    driver::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow},
};

/// Ends the process when the test that holds this hangs. A lost wake-up shows as that and as
/// nothing else.
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

const PATIENCE: Duration = Duration::from_secs(600);

/// A [`Watchdog`] that barks after ten minutes: on a machine with much else to do ten thousand
/// rounds between threads take several.
#[track_caller]
pub fn dog() -> Watchdog {
    let place = Location::caller();
    let (alive, gone) = channel::<()>();
    std::thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = gone.recv_timeout(PATIENCE) {
            // Not `eprintln!`, which the test harness would keep to itself.
            let _ = writeln!(
                io::stderr(),
                "the test at {place} has hung for {PATIENCE:?}: most likely a lost wake-up"
            );
            std::process::abort();
        }
    });
    Watchdog(alive)
}

const CHILD: &str = "POLLMUX_TEST_CHILD";

/// The calling test, as the test program knows it. Its thread has that name.
pub fn test_name() -> String {
    std::thread::current().name().expect("the thread of a test has a name").to_owned()
}

/// A command that runs the test `name` again, in a process of its own.
pub fn again(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}

/// Runs the rest of the calling test in a process of its own, where nothing else changes fds,
/// limits, memory or signal handlers.
#[macro_export]
macro_rules! alone {
    () => {
        let Some(_dog) = $crate::watch::go_on_alone() else { return };
    };
}

/// Runs the calling test in a process of its own, and fails if it fails there. In that process this
/// returns a watchdog at once.
#[track_caller]
pub fn go_on_alone() -> Option<Watchdog> {
    let name = test_name();
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return Some(dog());
    }
    let mut command = again(&name);
    command.env(CHILD, &name).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(&mut command).wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "the child of {name} failed: {}\n{out}\n{err}", child.status);
    // A wrong name would run no test at all and succeed.
    assert!(out.contains("1 passed"), "{name} is not the name of the test:\n{out}");
    None
}

static BIRTHS: RwLock<()> = RwLock::new(());

/// Begins a process, when [`no_births`] allows it.
pub fn spawn(command: &mut Command) -> Child {
    let _birth = BIRTHS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Lets no process begin meanwhile. A new process has all files of this one until it runs its
/// program, and what is closed meanwhile is open still.
pub fn no_births() -> RwLockWriteGuard<'static, ()> {
    BIRTHS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a file for good: no new process has it, either.
pub fn close(file: impl Sized) {
    let _alone = no_births();
    drop(file);
}

/// xorshift64: reproducible, and good enough to vary timings.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Nothing, a few spins, or now and then a sleep that lets the other side fall asleep. No
    /// yields: on a busy machine each costs a time slice.
    pub fn pause(&mut self) {
        match self.below(64) {
            0 => std::thread::sleep(Duration::from_micros(self.below(120))),
            1..32 => (0..self.below(200)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

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
    /// What happens during the next sleep that has nothing planned yet. An error is the driver's.
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

    /// What the sleeps since the last call of this were to end at.
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

//! Reactors for the tests, and the faults that `POLLMUX_TEST_FAULTS=SEED` puts into their drivers.
//!
//! A driver may have each of these faults by its contract, and a reactor survives them:
//! - a wait that ends for no reason, early, late, or interrupted (an error, or none);
//! - an fd that a wait leaves to the next one;
//! - events of unknown ids and of dropped fds;
//! - a waker that fails twice in a row, or wakes once more;
//! - an interrupted arm.

#![allow(missing_debug_implementations)] // As in `hooks.rs`.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pollmux::driver::{Clock, Driver, Native, Wait, Wake, WakeWindow};
use pollmux::reactor::Builder;
use pollmux::sys::{Interest, Mode, Readiness};
use pollmux::{Reactor, Sim};

use crate::{Hooked, Hooks, Random, Waiting};

thread_local! {
    /// True if this thread's reactors have no faults.
    static EXACT: Cell<bool> = const { Cell::new(false) };
    /// The number of reactors that the thread has made.
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// From now on the reactors of this thread have no faults, because of `reason`.
pub fn exact(reason: &str) {
    assert!(!reason.is_empty());
    EXACT.set(true);
}

/// Returns the seed of the faults, if there are any. Each reactor of a test has the same seed in
/// every run.
fn seed() -> Option<u64> {
    let seed = std::env::var("POLLMUX_TEST_FAULTS").ok().filter(|_| !EXACT.get())?;
    let seed: u64 = seed.parse().expect("POLLMUX_TEST_FAULTS is a number");
    let made = MADE.replace(MADE.get() + 1);
    let key = (seed, thread::current().name().map(str::to_owned), made);
    Some(BuildHasherDefault::<DefaultHasher>::default().hash_one(key))
}

/// Returns a reactor on the system's poller.
#[track_caller]
pub fn reactor() -> Reactor {
    build(Reactor::builder())
}

/// Returns a reactor on the system's poller, with these settings.
#[track_caller]
pub fn build(builder: Builder) -> Reactor {
    match seed() {
        None => builder.build(),
        Some(seed) => builder.build_with(faulty(Native::new().unwrap(), Faults::new(seed))),
    }
    .unwrap()
}

/// Returns a reactor on a virtual clock.
#[track_caller]
pub fn on(sim: Sim) -> Reactor {
    build_on(Reactor::builder(), sim)
}

/// Returns a reactor on a virtual clock, with these settings.
#[track_caller]
pub fn build_on(builder: Builder, sim: Sim) -> Reactor {
    match seed() {
        None => builder.build_with(sim),
        Some(seed) => builder.build_with(faulty(sim, Faults::new(seed))),
    }
    .unwrap()
}

/// Returns a driver with faults.
pub fn faulty<D: Driver>(driver: D, mut faults: Faults) -> Hooked<D, Faults> {
    if let Choices::Seeded(random) = &mut faults.choices {
        let random = Mutex::new((Random::new(random.below(u64::MAX)), 0));
        faults.wake = Some(Arc::new(FaultyWaker { waker: driver.waker(), random }));
    }
    Hooked(driver, faults)
}

/// The source of the choices of faults. Zero chooses no fault.
enum Choices {
    Seeded(Random),
    /// No faults when these bytes are used up.
    Bytes(Rc<RefCell<VecDeque<u8>>>),
}

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        match self {
            Choices::Seeded(random) => random.below(n),
            Choices::Bytes(bytes) => u64::from(bytes.borrow_mut().pop_front().unwrap_or(0)) % n,
        }
    }

    /// Returns true in one of `n` calls on average.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }
}

/// The faults of one driver.
pub struct Faults {
    choices: Choices,
    /// The ids of registered fds, and of some dropped fds.
    live: HashSet<u64>,
    dead: Vec<u64>,
    /// Events that the last wait has left to the next wait.
    held: Vec<(u64, Readiness)>,
    /// The number of failures in a row.
    failed: u32,
    wake: Option<Arc<FaultyWaker>>,
    /// Virtual waits end late by less than this, in ns.
    late: u64,
    /// Waits may fail with errors that their callers see.
    fails: bool,
}

impl Faults {
    /// Returns the faults of this seed.
    pub fn new(seed: u64) -> Faults {
        Faults::of(Choices::Seeded(Random::new(seed)))
    }

    /// Returns the faults that these bytes choose. The waker has none, because its calls have no
    /// order.
    pub fn by(bytes: Rc<RefCell<VecDeque<u8>>>) -> Faults {
        Faults::of(Choices::Bytes(bytes))
    }

    /// Virtual waits end late by less than this, in ns.
    pub fn late(self, late: u64) -> Faults {
        Faults { late, ..self }
    }

    /// Waits may fail with errors that their callers see.
    pub fn failing(self, fails: bool) -> Faults {
        Faults { fails, ..self }
    }

    fn of(choices: Choices) -> Faults {
        Faults {
            choices,
            live: HashSet::new(),
            dead: Vec::new(),
            held: Vec::new(),
            failed: 0,
            wake: None,
            late: 0,
            fails: false,
        }
    }

    /// Reports unregistered fds.
    fn invent(&mut self, waiting: &mut Waiting<'_>) {
        let (slot, dead) = (self.choices.below(16), self.dead.len() as u64);
        let id = match self.choices.below(4) {
            0 if dead > 0 => self.dead[self.choices.below(dead) as usize],
            1 => u64::MAX - slot,
            2 => self.choices.below(4) << 32 | slot,
            _ => self.choices.below(u64::MAX),
        };
        if !self.live.contains(&id) {
            waiting.ready.push(id, Readiness::READABLE | Readiness::WRITABLE);
        }
    }

    /// Lets `driver` wait for a part of the time.
    fn wait_early<D: Driver>(
        &mut self,
        driver: &mut D,
        waiting: &mut Waiting<'_>,
    ) -> io::Result<()> {
        let now = driver.clock().now();
        let Some(deadline) = waiting.deadline.filter(|deadline| deadline.latest > now) else {
            return Ok(());
        };
        let early = now + (deadline.latest - now) / (1 + self.choices.below(8) as u32);
        driver.wait(Some(early.into()), waiting.how, waiting.ready)
    }

    /// Waits, and leaves some fds to the next wait.
    fn wait_by<D: Driver>(&mut self, driver: &mut D, waiting: &mut Waiting<'_>) -> io::Result<()> {
        if !self.held.is_empty() {
            waiting.how = Wait::Poll;
            waiting.deadline = None;
        }
        waiting.by(driver)?;
        if self.held.is_empty() && waiting.ready.len() > 1 && self.choices.once_in(2) {
            let keep = 1 + self.choices.below(waiting.ready.len() as u64 - 1) as usize;
            let mut found: Vec<_> = waiting.ready.drain().collect();
            self.held = found.split_off(keep);
            found.into_iter().for_each(|(id, readiness)| waiting.ready.push(id, readiness));
            waiting.ready.leave_some();
        } else {
            self.held.drain(..).for_each(|(id, readiness)| waiting.ready.push(id, readiness));
        }
        Ok(())
    }

    fn be_late(&mut self, clock: &Clock) {
        match clock {
            Clock::Virtual(clock) => {
                let late = self.choices.below(self.late.max(1));
                clock.advance_to(clock.now() + Duration::from_nanos(late));
            }
            _ => thread::sleep(Duration::from_micros(self.choices.below(300))),
        }
    }
}

fn interrupted() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

impl<D: Driver> Hooks<D> for Faults {
    fn wait(&mut self, driver: &mut D, mut waiting: Waiting<'_>) -> io::Result<()> {
        let blocks = waiting.blocks();
        match if blocks { self.choices.below(12) } else { 0 } {
            11 => {}
            10 => return Err(interrupted()),
            9 if self.fails => return Err(io::Error::other("a planned failure")),
            6..9 => self.wait_early(driver, &mut waiting)?,
            _ => self.wait_by(driver, &mut waiting)?,
        }
        if blocks && self.choices.once_in(8) {
            self.be_late(&driver.clock());
        }
        if self.choices.once_in(4) {
            self.invent(&mut waiting);
        }
        if self.choices.once_in(8) { Err(interrupted()) } else { Ok(()) }
    }

    fn arm(&mut self, driver: &mut D, deadline: WakeWindow) -> io::Result<()> {
        self.failed = if self.failed < 2 && self.choices.once_in(3) { self.failed + 1 } else { 0 };
        if self.failed > 0 { Err(interrupted()) } else { driver.arm(deadline) }
    }

    fn waker(&self, driver: &D) -> Arc<dyn Wake> {
        self.wake.as_ref().map_or_else(|| driver.waker(), |wake| wake.clone())
    }

    fn register(
        &mut self,
        driver: &mut D,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        driver.register(fd, id, interest, mode)?;
        self.live.insert(id);
        Ok(())
    }

    fn deregister(&mut self, driver: &mut D, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        self.live.remove(&id);
        self.dead.push(id);
        if self.dead.len() > 16 {
            self.dead.remove(0);
        }
        driver.deregister(fd, id)
    }
}

/// Fails at most twice in a row, and at times wakes once more.
struct FaultyWaker {
    waker: Arc<dyn Wake>,
    random: Mutex<(Random, u32)>,
}

impl Wake for FaultyWaker {
    fn wake(&self) -> io::Result<()> {
        let (fails, again) = {
            let (random, failed) = &mut *self.random.lock().unwrap();
            *failed = if *failed < 2 && random.below(4) == 0 { *failed + 1 } else { 0 };
            (*failed > 0, random.below(8) == 0)
        };
        if fails {
            return Err(io::ErrorKind::WouldBlock.into()); // allocates nothing
        }
        if again {
            self.waker.wake()?;
        }
        self.waker.wake()
    }
}

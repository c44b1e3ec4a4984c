//! The usage of the process and of the loop's thread, and a driver that measures its waits.
//!
//! CPU clocks are read by syscalls: two a wait, four in the loop that tells expiry apart. They are
//! counted as CPU time, not in `stats()`.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use pollmux::{
    Reactor,
    driver::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow},
    reactor::Stats,
};

use crate::common;

/// [`Native`], timed: what its waits took of the clock, and of the CPU.
pub struct Timed {
    native: Native,
    times: Rc<Times>,
}

/// The time that a loop has spent, by place.
#[derive(Debug, Default)]
pub struct Times {
    /// In the driver, asleep or not.
    pub waited: Cell<Duration>,
    /// CPU time of the driver: `epoll_wait` and `timerfd_settime`.
    pub driver: Cell<Duration>,
    /// CPU time of the reactor's `wait`, the driver's in it: only of a loop that says so, by
    /// [`Times::expiring`].
    pub reactor: Cell<Duration>,
}

impl Timed {
    pub fn new(times: Rc<Times>) -> io::Result<Timed> {
        Ok(Timed { native: Native::new()?, times })
    }
}

fn add(sum: &Cell<Duration>, more: Duration) {
    sum.set(sum.get() + more);
}

impl Times {
    /// Runs `wait`, in which the reactor waits and moves what is due to its ready list.
    pub fn expiring<R>(&self, wait: impl FnOnce() -> R) -> R {
        let start = ThreadTime::now();
        let result = wait();
        add(&self.reactor, start.elapsed());
        result
    }
}

impl Driver for Timed {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        let (start, cpu) = (Instant::now(), ThreadTime::now());
        let result = self.native.wait(deadline, how, ready);
        add(&self.times.driver, cpu.elapsed());
        add(&self.times.waited, start.elapsed());
        result
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.native.waker()
    }
    fn clock(&self) -> Clock {
        self.native.clock()
    }
    fn syscalls(&self) -> Syscalls {
        self.native.syscalls()
    }
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub turns: u64,
    pub stats: Stats,
    /// Allocated now.
    pub bytes: usize,
    /// Allocations of the loop's thread so far, and those that this reading made.
    allocations: u64,
    own: u64,
    /// Resident, in KiB, where the system tells by a file.
    pub rss: Option<u64>,
    /// Open, where the system tells by a folder.
    pub fds: Option<usize>,
    at: Instant,
    cpu: ThreadTime,
    waited: Duration,
    driver: Duration,
    reactor: Duration,
}

/// Between two [`Reading`]s.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub turns: u64,
    pub stats: Stats,
    pub allocations: u64,
    pub wall: Duration,
    /// CPU time of the loop's thread.
    pub cpu: Duration,
    /// In the driver, asleep or not.
    pub waited: Duration,
    /// CPU time in the driver.
    pub driver: Duration,
    /// CPU time in the reactor's `wait` but not in the driver; zero of a loop that does not say.
    pub expiry: Duration,
}

impl Reading {
    fn take(turns: u64, reactor: &Reactor, times: &Times) -> Reading {
        let (bytes, allocations) = (common::bytes(), common::allocations());
        let (rss, fds) = (rss(), open_fds());
        Reading {
            turns,
            stats: reactor.stats(),
            bytes,
            allocations,
            own: common::allocations() - allocations,
            rss,
            fds,
            at: Instant::now(),
            cpu: ThreadTime::now(),
            waited: times.waited.get(),
            driver: times.driver.get(),
            reactor: times.reactor.get(),
        }
    }

    pub fn since(&self, earlier: &Reading) -> Spent {
        let driver = self.driver - earlier.driver;
        Spent {
            turns: self.turns - earlier.turns,
            stats: self.stats - earlier.stats,
            allocations: self.allocations - earlier.allocations - earlier.own,
            wall: self.at - earlier.at,
            cpu: self.cpu.duration_since(earlier.cpu),
            waited: self.waited - earlier.waited,
            driver,
            expiry: (self.reactor - earlier.reactor).saturating_sub(driver),
        }
    }
}

impl Spent {
    /// Neither running nor asleep: the core was somebody else's.
    pub fn stolen(&self) -> Duration {
        self.wall.saturating_sub(self.waited + self.cpu.saturating_sub(self.driver))
    }

    /// `part` in percent of the time that passed.
    pub fn percent(&self, part: Duration) -> f64 {
        100.0 * part.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// A turn's share of `count`.
    pub fn per_turn(&self, count: f64) -> f64 {
        count / self.turns.max(1) as f64
    }
}

/// Readings in even distances. The loop tells of each turn; the room for all is made beforehand.
pub struct Log<'a> {
    reactor: &'a Reactor,
    times: Rc<Times>,
    turns: u64,
    windows: u64,
    readings: RefCell<Vec<Reading>>,
    next: Cell<u64>,
}

impl<'a> Log<'a> {
    /// One reading now, and one at the end of each of `windows` parts of `turns`.
    pub fn new(reactor: &'a Reactor, times: Rc<Times>, turns: u64, windows: u64) -> Log<'a> {
        let readings = RefCell::new(Vec::with_capacity(windows as usize + 1));
        let log = Log { reactor, times, turns, windows, readings, next: Cell::new(0) };
        log.turned(0);
        log
    }

    /// `turns` have been made.
    pub fn turned(&self, turns: u64) {
        if turns == self.next.get() {
            self.read(turns);
        }
    }

    /// There will be no more turns than these.
    pub fn end(&self, turns: u64) {
        if self.readings.borrow().last().is_some_and(|last| last.turns < turns) {
            self.read(turns);
        }
    }

    fn read(&self, turns: u64) {
        let reading = Reading::take(turns, self.reactor, &self.times);
        let mut readings = self.readings.borrow_mut();
        readings.push(reading);
        self.next.set(self.turns * readings.len() as u64 / self.windows);
    }

    pub fn into_readings(self) -> Vec<Reading> {
        self.readings.into_inner()
    }
}

fn rss() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Without the one that looks.
fn open_fds() -> Option<usize> {
    let folder = ["/proc/self/fd", "/dev/fd"].iter().find_map(|path| fs::read_dir(path).ok())?;
    folder.count().checked_sub(1)
}

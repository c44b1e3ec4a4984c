//! Measures the process and the loop's thread. A driver measures its waits.
//!
//! Reading a CPU clock is a syscall. A wait costs two of these syscalls, and four in the loop that
//! measures expiry. They count as CPU time, but `stats()` does not count them.

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

/// The driver [`Native`] that also measures the wall time and the CPU time of its waits.
pub struct Timed {
    native: Native,
    times: Rc<Times>,
}

/// The times of a loop.
#[derive(Debug, Default)]
pub struct Times {
    /// The wall time in the driver.
    pub waited: Cell<Duration>,
    /// The CPU time of the driver: `epoll_wait` and `timerfd_settime`.
    pub driver: Cell<Duration>,
    /// The CPU time of the reactor's `wait`, with the driver's time. Only a loop that calls
    /// [`Times::expiring`] has this time.
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
    /// Runs `wait`, and measures its CPU time. In `wait` the reactor also expires due timers.
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

/// All values at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    pub turns: u64,
    pub stats: Stats,
    /// The allocated bytes.
    pub bytes: usize,
    /// The allocations of the loop's thread so far.
    allocations: u64,
    /// The allocations of this reading.
    own: u64,
    /// The resident memory in KiB, if the system has a file with this number.
    pub rss: Option<u64>,
    /// The number of open fds, if the system has a folder of fds.
    pub fds: Option<usize>,
    at: Instant,
    cpu: ThreadTime,
    waited: Duration,
    driver: Duration,
    reactor: Duration,
}

/// The differences between two [`Reading`]s.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub turns: u64,
    pub stats: Stats,
    pub allocations: u64,
    pub wall: Duration,
    /// The CPU time of the loop's thread.
    pub cpu: Duration,
    /// The wall time in the driver.
    pub waited: Duration,
    /// The CPU time in the driver.
    pub driver: Duration,
    /// The CPU time in the reactor's `wait` without the driver, or zero if not measured.
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
    /// Returns the time in which the thread neither ran nor slept, but waited for a core.
    pub fn stolen(&self) -> Duration {
        self.wall.saturating_sub(self.waited + self.cpu.saturating_sub(self.driver))
    }

    /// Returns `part` in percent of the wall time.
    pub fn percent(&self, part: Duration) -> f64 {
        100.0 * part.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// Returns `count` divided by the number of turns.
    pub fn per_turn(&self, count: f64) -> f64 {
        count / self.turns.max(1) as f64
    }
}

/// Takes readings at regular numbers of turns. The loop calls `record` in each turn. The memory for
/// all readings is allocated at the start.
pub struct Log<'a> {
    reactor: &'a Reactor,
    times: Rc<Times>,
    turns: u64,
    windows: u64,
    readings: RefCell<Vec<Reading>>,
    next: Cell<u64>,
}

impl<'a> Log<'a> {
    /// Takes a reading now, and plans a reading at the end of each of `windows` parts of `turns`.
    pub fn new(reactor: &'a Reactor, times: Rc<Times>, turns: u64, windows: u64) -> Log<'a> {
        let readings = RefCell::new(Vec::with_capacity(windows as usize + 1));
        let log = Log { reactor, times, turns, windows, readings, next: Cell::new(0) };
        log.record(0);
        log
    }

    /// Takes a reading if one is planned after this number of turns.
    pub fn record(&self, turns: u64) {
        if turns == self.next.get() {
            self.read(turns);
        }
    }

    /// Takes the last reading of a loop that ends early, after `turns` turns.
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

/// Returns the number of open fds, without the fd that reads the folder.
fn open_fds() -> Option<usize> {
    let folder = ["/proc/self/fd", "/dev/fd"].iter().find_map(|path| fs::read_dir(path).ok())?;
    folder.count().checked_sub(1)
}

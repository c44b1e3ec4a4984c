//! The state that all parts and threads of the soak share: the seed, the end and the violations.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::Time;

/// The time after which a missing answer is lost, on any machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The most lateness of a clock reading from which a deadline counts.
pub const READING: Duration = Duration::from_micros(1);
/// The number of violations that are printed. Further violations are only counted.
const SHOWN: usize = 20;

/// One run of the soak. All threads have clones.
#[derive(Clone)]
pub struct Run(Arc<Inner>);

struct Inner {
    seed: u64,
    begin: Instant,
    over: AtomicBool,
    /// The number of live tokens.
    tokens: Arc<AtomicI64>,
    violations: Mutex<Vec<String>>,
    count: AtomicU64,
}

impl Run {
    pub fn new(seed: u64) -> Run {
        Run(Arc::new(Inner {
            seed,
            begin: Instant::now(),
            over: AtomicBool::new(false),
            tokens: Arc::default(),
            violations: Mutex::default(),
            count: AtomicU64::new(0),
        }))
    }

    pub fn elapsed(&self) -> Duration {
        self.0.begin.elapsed()
    }

    /// Returns true if the parts must not start new work.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    /// Makes the parts start no new work.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    /// Returns the generator of random numbers for the thread or part with the number `user`.
    pub fn random(&self, user: u64) -> Random {
        let mut random = Random(self.0.seed ^ user.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    /// Returns a value that is counted until its drop.
    pub fn token(&self) -> Token {
        self.0.tokens.fetch_add(1, Ordering::Relaxed);
        Token(self.0.tokens.clone())
    }

    pub fn live_tokens(&self) -> i64 {
        self.0.tokens.load(Ordering::Relaxed)
    }

    /// Reports a violation unless `holds`.
    pub fn check(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.violated(text());
        }
    }

    /// Reports a violation.
    pub fn violated(&self, text: String) {
        let mut all = self.0.violations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.0.count.fetch_add(1, Ordering::Relaxed);
        if all.len() < SHOWN {
            eprintln!("violation after {:.1} s: {text}", self.elapsed().as_secs_f64());
            all.push(text);
        }
    }

    pub fn violations(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Checks that a deadline has passed, and returns the lateness.
    pub fn check_due(&self, name: &str, deadline: Time) -> Duration {
        let now = Time::now();
        let early = || format!("{name} is early by {:?}", deadline.duration_since(now));
        self.check(now >= deadline, early);
        now.duration_since(deadline)
    }

    /// Blocks a thread until `is_there` returns true. After [`LIMIT`] reports a violation and
    /// returns false.
    pub fn await_or_fail(&self, name: &str, is_there: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        while !is_there() {
            if begin.elapsed() > LIMIT {
                self.violated(format!("{name} did not come within {LIMIT:?}"));
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

/// A value that must be dropped exactly once.
pub struct Token(Arc<AtomicI64>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A generator of random numbers: SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Returns a duration below `limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.below(limit.as_nanos() as u64))
    }
}

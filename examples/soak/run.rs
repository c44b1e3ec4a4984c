//! The seed, the end and the violations, which all parts and threads of the soak share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::Time;

/// By then an answer has come, however busy the machine is, or the answer is lost.
pub const LIMIT: Duration = Duration::from_secs(60);
/// The lateness that a reading of the clock may have, from which a deadline is counted.
pub const READING: Duration = Duration::from_micros(1);
/// Violations that are told one by one. The others are counted.
const SHOWN: usize = 20;

/// One run of the soak, for every thread.
#[derive(Clone)]
pub struct Run(Arc<Inner>);

struct Inner {
    seed: u64,
    begin: Instant,
    over: AtomicBool,
    /// Tokens that live now.
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

    /// Returns true once nothing new shall begin.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    /// A generator of its own for each thread and part, from the one seed.
    pub fn random(&self, who: u64) -> Random {
        let mut random = Random(self.0.seed ^ who.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    /// A value that is counted for as long as it lives.
    pub fn token(&self) -> Token {
        self.0.tokens.fetch_add(1, Ordering::Relaxed);
        Token(self.0.tokens.clone())
    }

    pub fn live_tokens(&self) -> i64 {
        self.0.tokens.load(Ordering::Relaxed)
    }

    /// Notes a violation unless `holds`.
    pub fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    pub fn violated(&self, what: String) {
        let mut all = self.0.violations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.0.count.fetch_add(1, Ordering::Relaxed);
        if all.len() < SHOWN {
            eprintln!("violation after {:.1} s: {what}", self.elapsed().as_secs_f64());
            all.push(what);
        }
    }

    pub fn violations(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Checks a deadline that is said to have passed, and returns how late the caller is.
    pub fn check_due(&self, what: &str, deadline: Time) -> Duration {
        let now = Time::now();
        let early = || format!("{what} is early by {:?}", deadline.duration_since(now));
        self.check(now >= deadline, early);
        now.duration_since(deadline)
    }

    /// Waits, on a thread of its own, until `is_there`; a violation after [`LIMIT`].
    pub fn await_or_fail(&self, what: &str, is_there: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        while !is_there() {
            if begin.elapsed() > LIMIT {
                self.violated(format!("{what} did not come within {LIMIT:?}"));
                return false;
            }
            thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

/// A value that must be dropped once.
pub struct Token(Arc<AtomicI64>);

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A duration below `limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        Duration::from_nanos(self.below(limit.as_nanos() as u64))
    }
}

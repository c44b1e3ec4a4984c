//! Measures the memory and the fds of the process, and the lateness of its deadlines.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::time::Duration;

use crate::common;
use crate::run::Run;

const MIB: usize = 1 << 20;
// The most growth of a reading over the greatest reading of the warm-up. Queues fill up while a
// thread pauses.
const MORE_BYTES: usize = 8 * MIB;
const MORE_RSS: usize = 48 * MIB;
const MORE_FDS: usize = 64;
/// The most heap bytes that may remain after all drops, for buffers of the standard library.
const LEFT_BYTES: usize = 128 * 1024;

/// The memory and the fds of the process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// The allocated bytes.
    pub bytes: usize,
    /// The resident bytes, or zero if the system has no file with this number.
    pub rss: usize,
    /// The number of open fds, or zero if the system has no folder of fds.
    pub fds: usize,
}

impl Held {
    pub fn now() -> Held {
        Held { bytes: common::bytes(), rss: rss().unwrap_or(0), fds: fds().unwrap_or(0) }
    }

    fn max(self, other: Held) -> Held {
        Held {
            bytes: self.bytes.max(other.bytes),
            rss: self.rss.max(other.rss),
            fds: self.fds.max(other.fds),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / MIB as f64;
        write!(
            f,
            "{:.1} MiB heap, {:.1} MiB resident, {} fds",
            mib(self.bytes),
            mib(self.rss),
            self.fds
        )
    }
}

fn rss() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn fds() -> Option<usize> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Compares the resources of the process with its resources before.
pub struct Meter {
    start: Held,
    /// The greatest values of the warm-up.
    warm: Held,
    /// The greatest values of all.
    most: Held,
}

impl Meter {
    pub fn new() -> Meter {
        Meter { start: Held::now(), warm: Held::default(), most: Held::default() }
    }

    pub fn read(&mut self, run: &Run, is_warm: bool) -> Held {
        let now = Held::now();
        self.most = self.most.max(now);
        // On a slow machine the first reading comes late, and still belongs to the warm-up.
        if !is_warm || self.warm.bytes == 0 {
            self.warm = self.warm.max(now);
            return now;
        }
        let is_flat = now.bytes <= self.warm.bytes + MORE_BYTES
            && now.rss <= self.warm.rss + MORE_RSS
            && now.fds <= self.warm.fds + MORE_FDS;
        run.check(is_flat, || format!("the process grows: {now}, {} in the warm-up", self.warm));
        now
    }

    /// Returns the greatest values so far.
    pub fn most(&self) -> Held {
        self.most
    }

    /// Checks that no resource is left. Returns the greatest values of the run.
    pub fn finish(self, run: &Run) -> Held {
        let (now, start) = (Held::now(), self.start);
        run.check(now.fds <= start.fds, || format!("{} fds are left open", now.fds - start.fds));
        run.check(now.bytes <= start.bytes + LEFT_BYTES, || {
            format!("{} bytes of heap are left", now.bytes - start.bytes)
        });
        run.check(run.live_tokens() == 0, || {
            format!("{} values were never dropped, or dropped twice", run.live_tokens())
        });
        self.most
    }
}

/// The lateness of deadlines: a histogram in ns with eight buckets for each power of two.
#[derive(Default)]
pub struct Lateness {
    counts: RefCell<Vec<u64>>,
}

impl Lateness {
    pub fn note(&self, late: Duration) {
        let ns = (late.as_nanos() as u64).max(8);
        let power = ns.ilog2();
        let bucket = (power * 8) as usize + ((ns >> (power - 3)) & 7) as usize;
        let mut counts = self.counts.borrow_mut();
        if counts.len() <= bucket {
            counts.resize(bucket + 1, 0);
        }
        counts[bucket] += 1;
    }

    /// Returns the upper bound of the bucket that contains the quantile `share`.
    pub fn quantile(&self, share: f64) -> Duration {
        let counts = self.counts.borrow();
        let mut left = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        for (bucket, &count) in counts.iter().enumerate() {
            left = left.saturating_sub(count);
            if left == 0 {
                let (power, part) = (bucket as u32 / 8, bucket as u64 % 8);
                return Duration::from_nanos((9 + part) << power.saturating_sub(3));
            }
        }
        Duration::ZERO
    }
}

//! What several benches need.
#![allow(dead_code)] // no bench uses all of it

pub mod raw;

use std::ffi::OsString;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};

/// How much a bench that is not criterion's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Shows that everything runs: `cargo test -p pollmux-benches --benches`, which does not pass
    /// `--bench`.
    Trial,
    Quick,
    Full,
}

impl Scale {
    pub fn new(quick: bool) -> Scale {
        match quick {
            true => Scale::Quick,
            false if std::env::args().any(|arg| arg == "--bench") => Scale::Full,
            false => {
                println!("A trial run, which measures nothing: `cargo bench` does, or --quick.\n");
                Scale::Trial
            }
        }
    }

    /// The value for this scale.
    pub fn of<T>(self, trial: T, quick: T, full: T) -> T {
        match self {
            Scale::Trial => trial,
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }
}

/// The command line without the flags that are meant for cargo's own harness.
pub fn arguments() -> impl Iterator<Item = OsString> {
    const HARNESS: [&str; 5] = ["--bench", "--test", "--nocapture", "--show-output", "--exact"];
    std::env::args_os().filter(|arg| !HARNESS.iter().any(|flag| arg == flag))
}

/// A tokio runtime on the calling thread, with timers.
pub fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a tokio runtime")
}

/// The middle one; NaN of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// With the unit that suits.
pub fn readable(d: Duration) -> String {
    match d.as_micros() {
        us @ 0..1_000 => format!("{us} µs"),
        us @ 1_000..1_000_000 => format!("{} ms", us / 1_000),
        us => format!("{} s", us / 1_000_000),
    }
}

pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// A group whose benches are short and many.
pub fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900));
    group
}

/// 0 to n - 1, in an order that is the same each time.
pub fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut x = 0x2545_f491_4f6c_dd1du64;
    for i in (1..n).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        order.swap(i, (x % (i as u64 + 1)) as usize);
    }
    order
}

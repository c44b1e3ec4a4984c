//! The pause before a program is started again.

use std::time::Duration;

/// Twice as long after each failure, up to a bound. No jitter: the pauses are always the same.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
    /// A run of this length was a good one: the pauses begin again with the first.
    pub stable: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration, stable: Duration) -> Backoff {
        Backoff { first, most, stable, failures: 0 }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause after a run that took `ran` and failed.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= self.stable {
            self.failures = 0;
        }
        let times = 2u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.failures += 1;
        self.first.saturating_mul(times).min(self.most)
    }
}

//! The pause before the supervisor starts a program again.

use std::time::Duration;

/// A pause that doubles with each failure, up to a bound. It has no jitter.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub most: Duration,
    /// A run of at least this length was good. After it the pauses begin with `first` again.
    pub stable: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, most: Duration, stable: Duration) -> Backoff {
        Backoff { first, most, stable, failures: 0 }
    }

    /// Returns the number of failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Returns the pause after a run that failed after `ran`.
    pub fn next(&mut self, ran: Duration) -> Duration {
        if ran >= self.stable {
            self.failures = 0;
        }
        let times = 2u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.failures += 1;
        self.first.saturating_mul(times).min(self.most)
    }
}

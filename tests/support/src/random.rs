//! Reproducible pseudo-random numbers.

use std::time::Duration;

/// xorshift64: reproducible, and good enough to vary timings.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the generator of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Does nothing, spins a little, or at times sleeps so that the other side falls asleep.
    /// There are no yields: on a busy machine each yield costs a time slice.
    pub fn pause(&mut self) {
        match self.below(64) {
            0 => std::thread::sleep(Duration::from_micros(self.below(120))),
            1..32 => (0..self.below(200)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

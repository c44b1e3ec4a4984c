//! Numbers that look random, the same in every run.

use std::time::Duration;

/// xorshift64: reproducible, and good enough to vary timings.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Nothing, a few spins, or now and then a sleep that lets the other side fall asleep. No
    /// yields: on a busy machine each costs a time slice.
    pub fn pause(&mut self) {
        match self.below(64) {
            0 => std::thread::sleep(Duration::from_micros(self.below(120))),
            1..32 => (0..self.below(200)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

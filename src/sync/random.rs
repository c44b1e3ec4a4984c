//! The random generator of the crate, which is fair and reproducible, but not secret.

use std::cell::Cell;

/// The generator splitmix64 by Vigna. Any seed is good, also zero and similar seeds.
#[derive(Debug, Default)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) const fn new(seed: u64) -> Random {
        Random(Cell::new(seed))
    }

    /// Restarts the generator with a seed.
    pub(crate) fn seed(&self, seed: u64) {
        self.0.set(seed);
    }

    /// Returns the next number, uniform among all.
    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Returns the next number, uniform in `0..n`.
    pub(crate) fn below(&self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

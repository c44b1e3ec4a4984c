//! What several files of this suite use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollmux::{Reactor, Sim, Source, select};

/// Longer than any machine is slow: for what must come.
pub const LONG: Duration = Duration::from_secs(60);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn reactor() -> Reactor {
    ::support::reactor()
}

/// A reactor on a virtual clock, and the clock.
pub fn sim() -> (Reactor, Sim) {
    let sim = Sim::new();
    (::support::on(sim.clone()), sim)
}

/// What the source gives next.
pub fn next<S: Source>(reactor: &Reactor, source: &S) -> S::Item {
    select! { reactor; recv(source) -> item => item }
}

/// What the source gives now.
pub fn poll<S: Source>(reactor: &Reactor, source: &S) -> Option<S::Item> {
    select! { reactor; recv(source) -> item => Some(item), default => None }
}

/// What the source gives within `timeout`.
pub fn within<S: Source>(reactor: &Reactor, source: &S, timeout: Duration) -> Option<S::Item> {
    select! { reactor; recv(source) -> item => Some(item), default(timeout) => None }
}

/// Counts its drops.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

/// Makes [`Counted`] messages and knows how many have been dropped.
#[derive(Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub fn new() -> Drops {
        Drops::default()
    }

    pub fn message(&self) -> Counted {
        Counted(self.0.clone())
    }

    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A small generator of numbers that look random, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new() -> Numbers {
        Numbers(0x9e37_79b9_7f4a_7c15)
    }

    /// One below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

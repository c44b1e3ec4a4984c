//! Helpers for several files of this suite.

use std::time::Duration;

use pollmux::{Reactor, Sim, Source, select};

pub use ::support::{Counted, Drops, Random, ms, reactor};

/// A timeout for events that must come. No machine is slower than this.
pub const LONG: Duration = Duration::from_secs(60);

/// Returns a reactor on a virtual clock, and the clock.
pub fn sim() -> (Reactor, Sim) {
    let (sim, reactor) = ::support::simulated();
    (reactor, sim)
}

/// Blocks until the source is ready, and returns its item.
pub fn next<S: Source>(reactor: &Reactor, source: &S) -> S::Item {
    select! { reactor; recv(source) -> item => item }
}

/// Returns the source's item if the source is ready now.
pub fn poll<S: Source>(reactor: &Reactor, source: &S) -> Option<S::Item> {
    select! { reactor; recv(source) -> item => Some(item), default => None }
}

/// Returns the source's item if the source becomes ready within `timeout`.
pub fn within<S: Source>(reactor: &Reactor, source: &S, timeout: Duration) -> Option<S::Item> {
    select! { reactor; recv(source) -> item => Some(item), default(timeout) => None }
}

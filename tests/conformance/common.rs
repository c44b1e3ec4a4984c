//! What several files of this suite use.

use std::time::Duration;

use pollmux::{Reactor, Sim, Source, select};

pub use ::support::{Counted, Drops, Random, ms, reactor};

/// Longer than any machine is slow: for what must come.
pub const LONG: Duration = Duration::from_secs(60);

/// A reactor on a virtual clock, and the clock.
pub fn sim() -> (Reactor, Sim) {
    let (sim, reactor) = ::support::simulated();
    (reactor, sim)
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

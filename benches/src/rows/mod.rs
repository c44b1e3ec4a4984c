//! What is measured: a file for each group of rows.

use crate::row::Family;

mod channels;
mod rearm;
mod threads;
mod turn;

/// All families, in the order of the report.
pub fn all() -> Vec<Family> {
    [rearm::families(), turn::families(), channels::families(), threads::families()]
        .into_iter()
        .flatten()
        .collect()
}

/// A tokio runtime on the calling thread, with timers.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a tokio runtime")
}

//! The work that is measured: a file for each group of rows.

use crate::row::Family;

mod chain;
mod channels;
pub mod counted;
mod http;
mod kernel;
pub mod lateness;
mod micro;
pub mod million;
mod rearm;
mod threads;
pub mod trips;
mod turn;

/// Returns all families, in the order of the report.
pub fn all() -> Vec<Family> {
    [
        rearm::families(),
        turn::families(),
        kernel::families(),
        million::families(),
        chain::families(),
        micro::families(),
        channels::families(),
        threads::families(),
        trips::families(),
        lateness::families(),
        http::families(),
        counted::families(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Makes a tokio runtime on the calling thread, with timers.
fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a tokio runtime")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let all = super::all();
        let rows: Vec<_> = all.iter().flat_map(|family| &family.rows).collect();
        let names: BTreeSet<_> = rows.iter().map(|spec| &spec.work).collect();
        assert_eq!(names.len(), rows.len());
        for spec in rows {
            assert!(spec.about.ends_with('.'), "{}: {}", spec.work, spec.about);
        }
    }
}

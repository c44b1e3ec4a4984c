//! The counters behind [`Stats`](crate::reactor::Stats).

use std::cell::Cell;

pub(crate) type Count = Cell<u64>;

/// The reactor's own counts. The driver counts its syscalls.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Count,
    pub(crate) wakes: Count,
    pub(crate) expired: Count,
    pub(crate) cleaned: Count,
    pub(crate) called: Count,
    pub(crate) coalesced: Count,
    pub(crate) stale: Count,
    pub(crate) spinning: Count,
}

#[inline]
pub(crate) fn add(count: &Count, n: u64) {
    count.set(count.get() + n);
}

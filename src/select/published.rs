//! The looks of a `select!` that is about to sleep, and the requests that it publishes.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::AnyCases;
use crate::reactor::{BeforeSleep, Looks};

impl Looks for &dyn AnyCases {
    fn closely(&self) -> bool {
        self.ready() != 0
    }
    fn glance(&self) -> bool {
        (**self).glance().ready() != 0
    }
}

/// Cases that may have published their requests. The drop withdraws the requests.
pub(super) struct Published<'a, C: AnyCases + ?Sized> {
    cases: &'a C,
    /// The requests are published. If not, the requests that exist are those of an outer select,
    /// whose driver has called us. They stay.
    begun: Cell<bool>,
}

impl<'a, C: AnyCases + ?Sized> Published<'a, C> {
    pub(super) fn new(cases: &'a C, begun: bool) -> Published<'a, C> {
        Published { cases, begun: Cell::new(begun) }
    }

    pub(super) fn publish(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.begun.set(true);
        self.cases.before_sleep(blocking)
    }

    /// Withdraws the requests. Returns a bit for each case that was chosen.
    #[inline]
    pub(super) fn withdraw(self) -> u32 {
        let chosen = if self.begun.take() { self.cases.after_sleep() } else { 0 };
        std::mem::forget(self); // nothing is left to be withdrawn
        chosen
    }
}

impl<C: AnyCases + ?Sized> Drop for Published<'_, C> {
    #[cold]
    fn drop(&mut self) {
        if self.begun.get() {
            // The thread unwinds already: a second panic would abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.cases.after_sleep()));
        }
    }
}

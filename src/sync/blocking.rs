//! The guard that forbids a thread to block.
//!
//! A simulated world runs one member at a time, so a member that blocks outside of its reactor
//! would stop the world. The world's threads set a guard here, and every call that would block asks
//! the guard.

use std::cell::RefCell;
use std::io;
use std::panic::Location;
use std::rc::Rc;

/// A guard of a thread that must not block.
pub(crate) trait Guard {
    /// Rejects a call that would block at this line. Panics, or returns if the thread must not
    /// panic.
    fn call(&self, call: &str, at: &'static Location<'static>);
    /// Rejects the sleep of a reactor that was made at this line. Returns the error of the wait.
    fn sleep(&self, made_at: &'static Location<'static>) -> io::Error;
    /// Handles a panic that would abort the process. Does not return if the guard can stop the
    /// thread.
    fn strand(&self);
}

thread_local! {
    static GUARD: RefCell<Option<Rc<dyn Guard>>> = const { RefCell::new(None) };
}

/// Returns the guard of the calling thread. A thread whose locals are destroyed has none.
fn guard() -> Option<Rc<dyn Guard>> {
    GUARD.try_with(|place| place.borrow().clone()).ok().flatten()
}

/// Sets or removes the guard of the calling thread.
pub(crate) fn set_guard(guard: Option<Rc<dyn Guard>>) {
    let before = GUARD.try_with(|place| place.replace(guard));
    drop(before);
}

/// Asks the guard whether the calling thread may block outside of a reactor. Returns true if the
/// thread must neither block nor panic, because it unwinds. Then the call gives up at once.
///
/// # Panics
/// When the thread may not block.
#[cold]
#[must_use]
#[track_caller]
pub(crate) fn forbid_blocking(call: &str) -> bool {
    match guard() {
        Some(guard) => {
            guard.call(call, Location::caller());
            true
        }
        None => false,
    }
}

/// Asks the guard whether a reactor on real time, made at this line, may sleep. The cost is one
/// read of a thread-local.
#[inline]
pub(crate) fn forbid_sleep(made_at: &'static Location<'static>) -> io::Result<()> {
    let is_free = GUARD.try_with(|place| place.borrow().is_none()).unwrap_or(true);
    if is_free { Ok(()) } else { refuse_sleep(made_at) }
}

#[cold]
fn refuse_sleep(made_at: &'static Location<'static>) -> io::Result<()> {
    guard().map_or(Ok(()), |guard| Err(guard.sleep(made_at)))
}

/// Asks the guard to stop the thread before a panic that would abort the process, because the
/// thread unwinds already. Returns if the guard cannot.
#[cold]
pub(crate) fn strand() {
    if let Some(guard) = guard() {
        guard.strand();
    }
}

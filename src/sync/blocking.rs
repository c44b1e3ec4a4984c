//! The guard that forbids a thread to block.
//!
//! A simulated world runs one member at a time: a member that blocked outside of its reactor would
//! stop all of them. Its threads set a guard here, and every call that would block asks the guard.

use std::cell::RefCell;
use std::io;
use std::panic::Location;
use std::rc::Rc;

/// The reason that a thread may not block.
pub(crate) trait Guard {
    /// The call would block, at this line. Panics, or returns when the thread must not panic.
    fn call(&self, call: &str, at: &'static Location<'static>);
    /// A reactor that was made at this line would sleep. Returns the error that it gives instead.
    fn sleep(&self, made_at: &'static Location<'static>) -> io::Error;
    /// A panic would abort the process. Does not return if the thread is the guard's to stop.
    fn strand(&self);
}

thread_local! {
    static GUARD: RefCell<Option<Rc<dyn Guard>>> = const { RefCell::new(None) };
}

/// The guard of the calling thread. A thread whose locals are destroyed has none.
fn guard() -> Option<Rc<dyn Guard>> {
    GUARD.try_with(|place| place.borrow().clone()).ok().flatten()
}

/// Sets, or takes away, the guard of the calling thread.
pub(crate) fn set_guard(guard: Option<Rc<dyn Guard>>) {
    let before = GUARD.try_with(|place| place.replace(guard));
    drop(before);
}

/// Asks the guard: the calling thread is about to block outside of a reactor. Returns true if it
/// must not, and must not panic either, because it unwinds: the call gives up at once.
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

/// Asks the guard: a reactor on real time, made at this line, is about to sleep. One read of a
/// thread-local.
#[inline]
pub(crate) fn forbid_sleep(made_at: &'static Location<'static>) -> io::Result<()> {
    let is_free = GUARD.try_with(|place| place.borrow().is_none()).unwrap_or(true);
    if is_free { Ok(()) } else { refuse_sleep(made_at) }
}

#[cold]
fn refuse_sleep(made_at: &'static Location<'static>) -> io::Result<()> {
    guard().map_or(Ok(()), |guard| Err(guard.sleep(made_at)))
}

/// Called before a panic that would abort the process, because the thread unwinds already: returns
/// if nothing can be done about that.
#[cold]
pub(crate) fn strand() {
    if let Some(guard) = guard() {
        guard.strand();
    }
}

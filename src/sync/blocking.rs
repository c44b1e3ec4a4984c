//! The hook that forbids a thread to block.
//!
//! A simulated world runs one member at a time: a member that blocked outside of its reactor would
//! stop all of them. Its threads set a hook here, and every call that would block runs the hook.

use std::cell::RefCell;

/// Called with the name of the call that would block.
pub(crate) type Hook = Box<dyn Fn(&str)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Sets, or takes away, the hook of the calling thread.
pub(crate) fn set_blocking_hook(hook: Option<Hook>) {
    // A thread that is torn down has no hook any more.
    let before = HOOK.try_with(|place| place.replace(hook));
    drop(before);
}

/// Runs the hook: the calling thread is about to block outside of a reactor.
///
/// # Panics
/// When the thread may not block.
#[cold]
#[track_caller]
pub(crate) fn forbid_blocking(call: &str) {
    let _ = HOOK.try_with(|hook| {
        if let Some(hook) = &*hook.borrow() {
            hook(call);
        }
    });
}

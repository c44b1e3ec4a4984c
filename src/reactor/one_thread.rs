//! Handles and sources stay on the thread of their reactor, and the compiler says so in words.
//!
//! Both hold an `Rc`, so they are not `Send` anyway. The compiler would name this `Rc` and the
//! private type in it. The impls below have a condition that never holds. So they allow nothing,
//! and the compiler complains of the condition instead.

#![allow(unsafe_code)]

use super::core::Handle;
use super::remote::Remote;
use super::slot::Slot;

/// A type that works on every thread.
///
/// The lifetime keeps the conditions below from being refused as always false.
#[diagnostic::on_unimplemented(
    message = "a reactor, its handles and its sources stay on the reactor's thread",
    label = "would use a reactor on another thread",
    note = "what other threads may use: a `Remote` (`let remote = reactor.remote()`, and there \
            `remote.post(|handle| ..)`), a `Sender`, a `Notifier` or a `Context`",
    note = "for a loop on the other thread: move the ends of channels there, and make the reactor \
            there (a `Builder` may be moved, too)"
)]
pub trait OnAnyThread<'a> {}

// The compiler names it as the alternative.
impl OnAnyThread<'_> for Remote {}

// SAFETY: the condition never holds: the trait is private, and implemented for `Remote` only.
#[doc(hidden)]
unsafe impl Send for Handle where for<'a> Handle: OnAnyThread<'a> {}
// SAFETY: as above.
#[doc(hidden)]
unsafe impl Sync for Handle where for<'a> Handle: OnAnyThread<'a> {}
// SAFETY: as above.
unsafe impl Send for Slot where for<'a> Slot: OnAnyThread<'a> {}
// SAFETY: as above.
unsafe impl Sync for Slot where for<'a> Slot: OnAnyThread<'a> {}

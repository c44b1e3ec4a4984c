//! Registrations: how a value becomes a source of a reactor.

use std::error::Error;
use std::fmt;
use std::io;

#[cfg(doc)]
use super::Inbox;
#[cfg(doc)]
use crate::channel::Receiver;
use crate::reactor::{Handle, Key, Slot, SourceKind};
use crate::sync::Mutex;
use crate::sys::errors::{remedy, with_remedy};

/// A value that can be registered with a reactor, and its registered form.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be registered with a reactor",
    label = "not a `Receiver`, `Sender`, `Child` or `ForeignEvents`",
    note = "a socket, a pipe or another file: `reactor.fd(io, Interest::READABLE)?`",
    note = "the channel of another crate: `reactor.notifier()` makes a bell for it",
    note = "a timer, a ticker, an inbox and whatever else is a `Source` already: use it as it is"
)]
pub trait IntoSource: Sized {
    /// The registered form: a source of the reactor.
    type Registered;

    /// Called by [`Handle::register`] and [`Handle::register_with`].
    #[track_caller]
    fn register(
        self,
        handle: &Handle,
        key: Option<u64>,
    ) -> Result<Self::Registered, RegisterError<Self>>;
}

/// A registration that failed: the reason, and the value that was to be registered.
///
/// The error is `Sync` when the value is `Send`. So `register(..)?` works in functions that return
/// a `Box<dyn Error + Send + Sync>` or an `anyhow::Result`.
pub struct RegisterError<S> {
    // Never locked: with it the error is `Sync`, and lends nothing.
    source: Mutex<S>,
    error: io::Error,
}

impl Handle {
    /// Makes `source` a source of this reactor: a [`Receiver`] becomes an [`Inbox`]. A failed
    /// registration gives it back.
    ///
    /// No syscall; allocates at most once per 128 sources.
    #[track_caller]
    pub fn register<S: IntoSource>(&self, source: S) -> Result<S::Registered, RegisterError<S>> {
        source.register(self, None)
    }

    /// [`register`](Self::register) under the key that [`wait`](Self::wait) reports the source by:
    /// a `u64`, a pair of kind and index, or a [`Key`](crate::Key).
    #[track_caller]
    pub fn register_with<S: IntoSource>(
        &self,
        key: impl Into<Key>,
        source: S,
    ) -> Result<S::Registered, RegisterError<S>> {
        source.register(self, Some(key.into().get()))
    }

    /// A slot for `source`, which is about to be registered. Fails if the reactor has been dropped.
    #[track_caller]
    pub(super) fn slot_for<S>(
        &self,
        source: S,
        kind: SourceKind,
        key: Option<u64>,
    ) -> Result<(S, Slot), RegisterError<S>> {
        if self.is_closed() {
            return Err(RegisterError::new(source, self.core.gone()));
        }
        let slot = Slot::new(self, kind);
        if let Some(key) = key {
            slot.set_key(key);
        }
        Ok((source, slot))
    }
}

impl<S> RegisterError<S> {
    pub(crate) fn new(source: S, error: io::Error) -> RegisterError<S> {
        RegisterError { source: Mutex::new(source), error }
    }

    /// Gives back the value that was to be registered.
    pub fn into_inner(self) -> S {
        self.source.into_inner()
    }

    /// The reason.
    pub fn error(&self) -> &io::Error {
        &self.error
    }
}

impl_debug!([S] RegisterError<S>, |it| error: it.error);

impl<S> fmt::Display for RegisterError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the registration failed: {}", self.error)?;
        remedy(&self.error).map_or(Ok(()), |remedy| write!(f, ": {remedy}"))
    }
}

impl<S> Error for RegisterError<S> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl<S> From<RegisterError<S>> for io::Error {
    fn from(failed: RegisterError<S>) -> io::Error {
        with_remedy(failed.error)
    }
}

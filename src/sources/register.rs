//! Registrations, which make a value a source of a reactor.

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
///
/// | value | registered form |
/// |---|---|
/// | [`Receiver`] | [`Inbox`] |
/// | [`Sender`](crate::channel::Sender) | [`Outbox`](crate::Outbox) |
/// | [`Child`](std::process::Child) | [`ChildProcess`](crate::ChildProcess) |
/// | [`foreign::Events`](crate::driver::foreign::Events) | [`ForeignInbox`](super::ForeignInbox) |
///
/// ```
/// use pollmux::sources::{IntoSource, RegisterError};
/// use pollmux::{Handle, Reactor, channel};
///
/// /// Registers a job and its answer together.
/// fn register_all<S: IntoSource>(
///     handle: &Handle,
///     sources: Vec<S>,
/// ) -> Result<Vec<S::Registered>, RegisterError<S>> {
///     sources.into_iter().map(|source| handle.register(source)).collect()
/// }
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded::<u32>(1);
/// let inboxes = register_all(&reactor, vec![rx])?;
/// tx.send(7).unwrap();
/// assert_eq!(inboxes[0].try_recv(), Ok(7));
/// # std::io::Result::Ok(())
/// ```
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

    /// Registers the value. [`Handle::register`] and [`Handle::register_with`] call this.
    ///
    /// # Errors
    /// When the reactor has been dropped, and as the value's own implementation says. The error
    /// gives the value back.
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
///
/// ```
/// use pollmux::{Reactor, channel};
///
/// let reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// drop(reactor);
/// let (tx, rx) = channel::bounded(1);
/// let failed = handle.register(rx).unwrap_err();
/// println!("{}", failed.error());
/// let rx = failed.into_inner(); // nothing is lost
/// tx.send(7).unwrap();
/// assert_eq!(rx.recv(), Ok(7));
/// # std::io::Result::Ok(())
/// ```
pub struct RegisterError<S> {
    // The lock only makes the error `Sync`. No code takes it.
    source: Mutex<S>,
    error: io::Error,
}

impl Handle {
    /// Makes `source` a source of this reactor: a [`Receiver`] becomes an [`Inbox`].
    ///
    /// # Errors
    /// When the reactor has been dropped. A [`Child`](std::process::Child) has more reasons:
    /// [`ChildProcess`](crate::ChildProcess). The error gives the value back.
    ///
    /// # Cost
    /// Allocates at most once per 128 sources. No syscall for the end of a channel.
    ///
    /// ```
    /// use pollmux::{Reactor, channel, select};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, rx) = channel::bounded(1);
    /// let (inbox, outbox) = (reactor.register(rx)?, reactor.register(tx)?);
    /// select! { reactor; send(outbox, 7) -> sent => sent.unwrap() }
    /// select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(7)) }
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn register<S: IntoSource>(&self, source: S) -> Result<S::Registered, RegisterError<S>> {
        source.register(self, None)
    }

    /// [Registers](Self::register) `source` with the key that [`wait`](Self::wait) reports the
    /// source by: a `u64`, a pair of kind and index, or a [`Key`](crate::Key).
    ///
    /// # Errors
    /// The errors of [`register`](Self::register).
    ///
    /// ```
    /// use pollmux::{Reactor, channel};
    ///
    /// let reactor = Reactor::new()?;
    /// let (_tx, rx) = channel::bounded::<u32>(1);
    /// let inbox = reactor.register_with((2, 30), rx)?; // kind 2, index 30
    /// assert_eq!(inbox.key(), 2 << 32 | 30);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn register_with<S: IntoSource>(
        &self,
        key: impl Into<Key>,
        source: S,
    ) -> Result<S::Registered, RegisterError<S>> {
        source.register(self, Some(key.into().get()))
    }

    /// Makes a slot for `source`, which is about to be registered. Fails if the reactor is gone.
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

    /// The reason of the failure.
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

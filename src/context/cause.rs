//! The cause of the end of a context.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The kind of the end of a context.
///
/// ```
/// use pollmux::{Context, context::ContextError};
/// use std::{io, time::Duration};
///
/// let (context, _canceller) = Context::background().with_timeout(Duration::ZERO);
/// assert_eq!(context.err(), Some(ContextError::DeadlineExceeded));
/// let error = io::Error::from(ContextError::DeadlineExceeded);
/// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// The context, or one that it was made from, was cancelled.
    Cancelled,
    /// The deadline of the context, or of one that it was made from, has passed.
    DeadlineExceeded,
}

impl_fmt!(Display, [] ContextError, |it, f| f.write_str(match it {
    ContextError::Cancelled => "the context was cancelled",
    ContextError::DeadlineExceeded => "the context's deadline has passed",
}));

impl Error for ContextError {}

impl From<ContextError> for io::Error {
    /// [`TimedOut`](io::ErrorKind::TimedOut) for a deadline, [`Other`](io::ErrorKind::Other) for a
    /// cancellation.
    fn from(error: ContextError) -> io::Error {
        io::Error::new(kind(error), error)
    }
}

fn kind(error: ContextError) -> io::ErrorKind {
    match error {
        ContextError::Cancelled => io::ErrorKind::Other,
        ContextError::DeadlineExceeded => io::ErrorKind::TimedOut,
    }
}

pub(super) type Reason = Arc<dyn Error + Send + Sync>;

/// The cause of the end of a context: its kind, and the reason if one was given.
///
/// ```
/// use pollmux::{Context, context::ContextError};
/// use std::io;
///
/// let (context, canceller) = Context::background().with_cancel();
/// canceller.cancel_with(io::Error::from(io::ErrorKind::StorageFull));
/// let cause = context.cause().unwrap();
/// assert_eq!(cause.error(), ContextError::Cancelled);
/// assert!(cause.reason().is_some());
/// let reason = cause.downcast_ref::<io::Error>().unwrap();
/// assert_eq!(reason.kind(), io::ErrorKind::StorageFull);
/// ```
#[derive(Clone, Debug)]
pub struct Cause {
    pub(super) error: ContextError,
    reason: Option<Reason>,
}

impl Cause {
    pub(super) fn new(error: ContextError, reason: Option<Reason>) -> Cause {
        Cause { error, reason }
    }

    /// The kind of the end: cancelled, or out of time.
    pub fn error(&self) -> ContextError {
        self.error
    }

    /// The reason that was given to [`Canceller::cancel_with`](super::Canceller::cancel_with), or
    /// for the deadline.
    pub fn reason(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.reason.as_deref()
    }

    /// The reason, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.reason.as_deref()?.downcast_ref()
    }
}

impl fmt::Display for Cause {
    /// The reason, or else the [`error`](Self::error).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => reason.fmt(f),
            None => self.error.fmt(f),
        }
    }
}

impl Error for Cause {
    /// The reason that was given.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.as_deref().map(|reason| reason as &(dyn Error + 'static))
    }
}

impl From<Cause> for io::Error {
    /// Of the kind that [`ContextError`] is converted to.
    fn from(cause: Cause) -> io::Error {
        io::Error::new(kind(cause.error), cause)
    }
}

//! The errors of sends and receives. An error of a send holds the value.

use std::error::Error;

/// The error of a receive: every sender is gone, and the channel is empty.
///
/// ```
/// use pollmux::channel::{self, RecvError};
///
/// let (tx, rx) = channel::bounded::<u32>(1);
/// drop(tx);
/// assert_eq!(rx.recv(), Err(RecvError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecvError;

/// The error of [`try_recv`](super::Receiver::try_recv). [`Receiver`](super::Receiver) has an
/// example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// Every sender is gone, and the channel is empty.
    Disconnected,
}

/// The error of [`recv_timeout`](super::Receiver::recv_timeout). [`Receiver`](super::Receiver) has
/// an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecvTimeoutError {
    /// No message came in time.
    Timeout,
    /// Every sender is gone, and the channel is empty.
    Disconnected,
}

/// The error of a send: the receiver is gone. Holds the value.
///
/// ```
/// use pollmux::channel::{self, SendError};
///
/// let (tx, rx) = channel::bounded(1);
/// drop(rx);
/// let Err(SendError(value)) = tx.send("hello") else { unreachable!() };
/// assert_eq!(value, "hello");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendError<T>(pub T);

/// The error of [`try_send`](super::Sender::try_send). Holds the value.
///
/// ```
/// use pollmux::channel;
///
/// let (tx, _rx) = channel::bounded(1);
/// tx.try_send(1).unwrap();
/// let full = tx.try_send(2).unwrap_err();
/// assert!(full.is_full() && !full.is_disconnected());
/// assert_eq!(full.into_inner(), 2);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrySendError<T> {
    /// There is no room now.
    Full(T),
    /// The receiver is gone.
    Disconnected(T),
}

/// The error of [`send_timeout`](super::Sender::send_timeout). Holds the value.
/// [`Sender`](super::Sender) has an example.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// The receiver is gone.
    Disconnected(T),
}

impl<T> SendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl RecvTimeoutError {
    /// The error for a last look, after the timeout, that found no message.
    pub(super) fn of(error: TryRecvError) -> RecvTimeoutError {
        match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        }
    }
}

const NO_SENDERS: &str = "the channel is empty and every sender is gone";
const NO_RECEIVER: &str = "the receiver of the channel is gone";

/// An error of a receive that ends for another reason than `RecvError`, too.
macro_rules! recv_error {
    ($error:ident, $other:ident, $text:literal) => {
        impl From<RecvError> for $error {
            fn from(_: RecvError) -> Self {
                $error::Disconnected
            }
        }

        impl_fmt!(Display, [] $error, |it, f| f.write_str(match it {
            $error::$other => $text,
            $error::Disconnected => NO_SENDERS,
        }));
        impl Error for $error {}
    };
}

/// An error of a send that ends for another reason than `SendError`, too.
macro_rules! send_error {
    ($error:ident, $other:ident, $is_other:ident, $when:literal, $text:literal) => {
        impl<T> $error<T> {
            /// The value that was not sent.
            pub fn into_inner(self) -> T {
                match self {
                    $error::$other(value) | $error::Disconnected(value) => value,
                }
            }

            #[doc = $when]
            pub fn $is_other(&self) -> bool {
                matches!(self, $error::$other(_))
            }

            /// Returns true if the receiver is gone.
            pub fn is_disconnected(&self) -> bool {
                matches!(self, $error::Disconnected(_))
            }
        }

        impl<T> From<SendError<T>> for $error<T> {
            fn from(error: SendError<T>) -> Self {
                $error::Disconnected(error.0)
            }
        }

        impl_fmt!(Display, [T] $error<T>, |it, f| f.write_str(
            if it.$is_other() { $text } else { NO_RECEIVER }
        ));
        impl_fmt!(Debug, [T] $error<T>, |it, f| f.write_str(match it {
            $error::$other(_) => concat!(stringify!($other), "(..)"),
            $error::Disconnected(_) => "Disconnected(..)",
        }));
        impl<T> Error for $error<T> {}
    };
}

recv_error!(TryRecvError, Empty, "the channel is empty");
recv_error!(RecvTimeoutError, Timeout, "nothing came through the channel in time");
send_error!(
    TrySendError,
    Full,
    is_full,
    "Returns true if there was no room.",
    "the channel is full"
);
send_error!(
    SendTimeoutError,
    Timeout,
    is_timeout,
    "Returns true if the time ran out.",
    "the channel was full all the time"
);

impl_fmt!(Display, [] RecvError, |_, f| f.write_str(NO_SENDERS));
impl_fmt!(Display, [T] SendError<T>, |_, f| f.write_str(NO_RECEIVER));
impl_fmt!(Debug, [T] SendError<T>, |_, f| f.write_str("SendError(..)"));
impl Error for RecvError {}
impl<T> Error for SendError<T> {}

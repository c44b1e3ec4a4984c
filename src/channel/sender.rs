//! The sending end of a channel, for users.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rendezvous::Rendezvous;
use super::state::{Refused, State};
use super::tail::Tail;
use super::{SendError, SendTimeoutError, TrySendError, deadline_after, measures};
use crate::sync::{Backoff, forbid_blocking, pause};

pub(super) enum Sending<T> {
    Buffer(Tail<T>),
    Rendezvous(Arc<Rendezvous<T>>),
}

/// The divisor of the pause at a full channel: a sender spins one hint for each `SHARE` slots of
/// capacity. That is a small part of the time in which the receiver takes all messages.
const SHARE: usize = 32;
/// The longest pause, in hints: 1 to 3 µs.
const LONGEST: usize = 64;

/// The sending end of a channel, for any thread. Clone the sender for more.
///
/// ```
/// use pollmux::channel;
/// use std::{thread, time::Duration};
///
/// let (tx, rx) = channel::bounded(2);
/// let threads: Vec<_> = (1..=3)
///     .map(|n| {
///         let tx = tx.clone();
///         thread::spawn(move || tx.send(n).unwrap()) // waits for room
///     })
///     .collect();
/// assert_eq!(rx.iter().take(3).sum::<i32>(), 6);
/// threads.into_iter().for_each(|thread| thread.join().unwrap());
///
/// tx.try_send(4).unwrap();
/// tx.try_send(5).unwrap();
/// assert!(tx.is_full() && !tx.is_empty());
/// assert_eq!((tx.len(), tx.capacity()), (2, Some(2)));
/// let late = tx.send_timeout(6, Duration::from_millis(1)).unwrap_err();
/// assert!(late.is_timeout());
/// drop(rx);
/// assert!(tx.is_disconnected());
/// assert_eq!(tx.send(7).unwrap_err().into_inner(), 7);
/// ```
pub struct Sender<T> {
    pub(super) flavor: Sending<T>,
}

/// Sends without waiting. Returns `Ok` from the caller if the send succeeds, else evaluates to the
/// refusal. As a function, this would add seven instructions to each send.
macro_rules! refusal {
    ($sender:expr, $value:expr) => {
        match &$sender.flavor {
            Sending::Buffer(tail) => match tail.try_send($value) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
            Sending::Rendezvous(meeting) => match meeting.try_send($value) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            },
        }
    };
}

impl<T> Sender<T> {
    pub(super) fn of_buffer(tail: Tail<T>) -> Sender<T> {
        Sender { flavor: Sending::Buffer(tail) }
    }

    pub(super) fn of_rendezvous(end: Arc<Rendezvous<T>>) -> Sender<T> {
        Sender { flavor: Sending::Rendezvous(end) }
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// When the channel is full, or the receiver is gone. The error gives the value back.
    ///
    /// # Cost
    /// No allocation, unless an unbounded channel grows or shrinks. No syscall, except one `write`
    /// when the receiver's reactor sleeps.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let (refused, value) = refusal!(self, value);
        match refused {
            Refused::Full => Err(TrySendError::Full(value)),
            Refused::Closed => Err(TrySendError::Disconnected(value)),
        }
    }

    /// Sends the value that `make` gives, if there is room in a buffer. `make` runs only when the
    /// send is sure. It must not panic, because its place is claimed.
    pub(crate) fn try_send_with(&self, make: impl FnOnce() -> T) -> Result<(), Refused> {
        match &self.flavor {
            Sending::Buffer(tail) => tail.try_send_with(make),
            Sending::Rendezvous(_) => Err(Refused::Full),
        }
    }

    /// Sends, and waits for room as long as it takes.
    ///
    /// Do not call `send` on the thread that receives: at a full channel it would wait for ever.
    ///
    /// # Errors
    /// When the receiver is gone, or goes meanwhile. The error gives the value back.
    #[track_caller]
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let (refused, value) = refusal!(self, value);
        match refused {
            Refused::Closed => Err(SendError(value)),
            Refused::Full => {
                self.send_blocking(value, None).map_err(|error| SendError(error.into_inner()))
            }
        }
    }

    /// Sends, and waits for room for at most `timeout`.
    ///
    /// # Errors
    /// When there is no room in time, or the receiver is gone. The error gives the value back.
    #[track_caller]
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(value)) => Err(SendTimeoutError::Disconnected(value)),
            Err(TrySendError::Full(value)) => self.send_blocking(value, deadline_after(timeout)),
        }
    }

    #[track_caller]
    #[cold]
    fn send_blocking(
        &self,
        value: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        let state = match &self.flavor {
            Sending::Buffer(tail) => tail.state(),
            Sending::Rendezvous(meeting) => return meeting.send(value, deadline),
        };
        let mut value = Some(value);
        let mut attempt = || {
            let Some(unsent) = value.take() else { return Ok(true) };
            match self.try_send(unsent) {
                Ok(()) => Ok(true),
                Err(TrySendError::Full(unsent)) => {
                    value = Some(unsent);
                    Ok(false)
                }
                Err(TrySendError::Disconnected(unsent)) => {
                    Err(SendTimeoutError::Disconnected(unsent))
                }
            }
        };
        // A receiver that works frees a slot every 10 ns or more. A sender that looks for each free
        // slot takes the receiver's cache line away each time.
        let share = state.capacity().map_or(0, |capacity| capacity / SHARE);
        pause(share.min(LONGEST) as u32);
        let mut backoff = Backoff::new();
        while backoff.pause() {
            if attempt()? {
                return Ok(());
            }
        }
        while !attempt()? {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                attempt()?; // as in `recv_until`
                break;
            }
            if forbid_blocking("send") {
                break;
            }
            if state.wait_for_room(deadline, &mut attempt)? {
                return Ok(());
            }
        }
        match value {
            Some(unsent) => Err(SendTimeoutError::Timeout(unsent)),
            None => Ok(()),
        }
    }

    /// Returns true if the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Sending::Buffer(tail) => tail.state().is_closed(),
            Sending::Rendezvous(end) => end.meeting().is_closed(),
        }
    }

    /// Returns true if no message waits and none is being written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn buffer(&self) -> Option<&State> {
        match &self.flavor {
            Sending::Buffer(tail) => Some(tail.state()),
            Sending::Rendezvous(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn tail(&self) -> &Tail<T> {
        match &self.flavor {
            Sending::Buffer(tail) => tail,
            Sending::Rendezvous(_) => panic!("a rendezvous has no tail"),
        }
    }
}

measures!(Sender);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        let flavor = match &self.flavor {
            Sending::Buffer(tail) => {
                tail.state().add_sender();
                Sending::Buffer(tail.clone())
            }
            Sending::Rendezvous(meeting) => {
                meeting.meeting().add_sender();
                Sending::Rendezvous(meeting.clone())
            }
        };
        Sender { flavor }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        match &self.flavor {
            Sending::Buffer(tail) => tail.state().drop_sender(),
            Sending::Rendezvous(end) => end.meeting().drop_sender(),
        }
    }
}

//! Channels: many senders on any threads, one receiver, registered with a reactor or used bare.
//!
//! ```
//! use pollmux::channel;
//!
//! let (tx, rx) = channel::bounded(2);
//! std::thread::spawn(move || (0..5).for_each(|i| tx.send(i).unwrap()));
//! assert_eq!(rx.iter().sum::<i32>(), 10);
//! ```
//!
//! For many receivers on one channel bring another crate's. A channel is FIFO. When every sender is gone the receiver still gets
//! what is in the buffer, then an error for ever; when the receiver is gone a send gives its value back.
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | the two ends, blocking and timing out |
//! | `state.rs` | what the ends share whatever `T` is: indices, the flag that asks for a wake-up, blocked senders |
//! | `ring.rs` | the slots of a bounded channel |
//! | `models.rs` | the loom models of both |

mod errors;
#[cfg(all(loom, test))]
mod models;
mod ring;
mod state;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::errors::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};

use self::ring::Ring;
use self::state::State;
pub(crate) use self::state::Target;
use crate::reactor::notify::{Call, Probe};
use crate::sync::{relax, thread};

/// How often an end looks again before its thread blocks: the other side is often just about to come.
const SPINS: u32 = if cfg!(all(loom, test)) { 0 } else { 24 };

/// A channel that holds at most `capacity` messages.
///
/// Allocates its slots at once and nothing afterwards.
///
/// # Panics
/// When `capacity` is zero (a rendezvous, not available yet), or when that many slots do not fit into memory (more than 2^47, or
/// more than `isize::MAX` bytes).
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(
        capacity > 0,
        "pollmux: channel::bounded(0), a rendezvous, is not available yet; use a capacity of 1 or more"
    );
    let (state, ring) = (Arc::new(State::new(capacity)), Arc::new(Ring::new(capacity)));
    let sender = Sender { state: state.clone(), ring: ring.clone() };
    (sender, Receiver { state, ring, not_sync: PhantomData })
}

/// The sending end: clone it for more, use it from any thread.
pub struct Sender<T> {
    state: Arc<State>,
    ring: Arc<Ring<T>>,
}

/// The receiving end. It can move to another thread but not be shared: a channel has one receiver.
///
/// To wait for it together with timers and other channels register it: [`Handle::register`](crate::Handle::register).
pub struct Receiver<T> {
    state: Arc<State>,
    ring: Arc<Ring<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Sender<T> {
    /// Sends without waiting; gives the value back when the channel is full or the receiver gone.
    ///
    /// No allocation. No syscall, except one `write` when the receiver's reactor sleeps.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self.state.claim() {
            Ok(position) => {
                self.ring.write(position, value);
                self.state.published();
                Ok(())
            }
            Err(state::Refused::Full) => Err(TrySendError::Full(value)),
            Err(state::Refused::Closed) => Err(TrySendError::Disconnected(value)),
        }
    }

    /// Sends, and waits for room as long as it takes. Gives the value back when the receiver is gone or goes.
    ///
    /// Do not use it on the thread that receives: where it would wait it waits for ever.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(value)) => Err(SendError(value)),
            Err(TrySendError::Full(value)) => match self.send_blocking(value, None) {
                Ok(()) => Ok(()),
                Err(SendTimeoutError::Timeout(value) | SendTimeoutError::Disconnected(value)) => {
                    Err(SendError(value))
                }
            },
        }
    }

    /// Sends, and waits for room for at most `timeout`.
    pub fn send_timeout(&self, value: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Disconnected(value)) => Err(SendTimeoutError::Disconnected(value)),
            Err(TrySendError::Full(value)) => self.send_blocking(value, deadline_after(timeout)),
        }
    }

    #[cold]
    fn send_blocking(&self, value: T, deadline: Option<Instant>) -> Result<(), SendTimeoutError<T>> {
        let mut value = Some(value);
        let mut attempt = || {
            let Some(unsent) = value.take() else { return Ok(true) };
            match self.try_send(unsent) {
                Ok(()) => Ok(true),
                Err(TrySendError::Full(unsent)) => {
                    value = Some(unsent);
                    Ok(false)
                }
                Err(TrySendError::Disconnected(unsent)) => Err(SendTimeoutError::Disconnected(unsent)),
            }
        };
        for round in 0..SPINS {
            relax(round);
            if attempt()? {
                return Ok(());
            }
        }
        while !attempt()? {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            if self.state.wait_for_room(deadline, &mut attempt)? {
                return Ok(());
            }
        }
        match value {
            Some(unsent) => Err(SendTimeoutError::Timeout(unsent)),
            None => Ok(()),
        }
    }

    /// How many messages wait in the channel.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a `try_send` would find no room.
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// How many messages the channel holds at most.
    pub fn capacity(&self) -> usize {
        self.state.capacity()
    }

    /// Whether the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        self.state.is_closed()
    }
}

impl<T> Receiver<T> {
    /// Receives without waiting. No allocation; no syscall, unless a sender waits for room.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let head = self.state.head();
        if !self.ring.is_written(head) {
            self.await_claimed(head)?;
        }
        let value = self.ring.take(head);
        self.state.taken(head);
        Ok(value)
    }

    /// Nothing is written at the head: nothing is there, or a sender is in the middle of writing it.
    #[cold]
    fn await_claimed(&self, head: u64) -> Result<(), TryRecvError> {
        self.state.check_claimed()?;
        let mut round = 0;
        while !self.ring.is_written(head) {
            relax(round);
            round += 1;
        }
        Ok(())
    }

    /// Receives, and waits as long as it takes. Fails when the channel is empty and every sender gone.
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// Receives, and waits for at most `timeout`.
    #[inline]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self.try_recv() {
            Ok(value) => Ok(value),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => self.recv_until(deadline_after(timeout)),
        }
    }

    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let mut round = 0;
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if round < SPINS => relax(round),
                Err(TryRecvError::Empty) => {
                    let left =
                        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                            Some(Duration::ZERO) => return Err(RecvTimeoutError::Timeout),
                            left => left,
                        };
                    self.state.set_target(Target::Thread(thread::current()));
                    if !self.state.arm(Call::Mark) {
                        park(left);
                    }
                }
            }
            round += 1;
        }
    }

    /// What comes until every sender is gone, waiting for it.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// What is there now.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    /// How many messages wait in the channel.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a `try_send` would find no room.
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// How many messages the channel holds at most.
    pub fn capacity(&self) -> usize {
        self.state.capacity()
    }

    /// Whether every sender is gone. What they sent may still be here.
    pub fn is_disconnected(&self) -> bool {
        self.state.is_gone()
    }

    /// Whether `try_recv` would give something: a message, or the error of a channel whose senders are gone.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ring.is_written(self.state.head()) || self.state.is_ready()
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }
}

/// `None`, for ever, when the deadline is further away than an `Instant` reaches.
fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

fn park(left: Option<Duration>) {
    #[cfg(not(all(loom, test)))]
    if let Some(left) = left {
        return thread::park_timeout(left);
    }
    let _ = left;
    thread::park();
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.state.add_sender();
        Sender { state: self.state.clone(), ring: self.ring.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.state.drop_sender();
    }
}

impl<T> Drop for Receiver<T> {
    /// Drops what is in the channel.
    fn drop(&mut self) {
        self.state.close();
        // No sender can claim a slot any more; those that have one are waited for.
        while self.try_recv().is_ok() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

/// Made by [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

/// Made by [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// Made by `Receiver::into_iter`.
#[derive(Debug)]
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

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
//! | `ring.rs` | the slots of a bounded or unbounded channel |
//! | `rendezvous.rs` | channels of capacity zero |
//! | `permit.rs` | send cases: room that is taken before the value exists |
//! | `models.rs` | the loom models |

mod errors;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod permit;
mod rendezvous;
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
pub use self::permit::{Chosen, Permit};

pub(crate) use self::permit::Waiting;
use self::rendezvous::Rendezvous;
use self::ring::Storage;
pub(crate) use self::state::Target;
use self::state::{Refused, State};
use crate::driver::forbid_blocking;
use crate::reactor::notify::{Call, Notify, Probe};
use crate::sync::{Backoff, thread};

/// A channel that holds at most `capacity` messages. With a capacity of zero it is a rendezvous: a message goes over when both ends are there.
///
/// Allocates its slots at once and nothing afterwards.
///
/// An end of a rendezvous is there while it blocks, in `send`, `recv` or a `select!`: `try_send` succeeds only while the receiver does, `try_recv` only
/// while a sender does. (A receiver in [`Handle::wait`](crate::Handle::wait) is not there for a `try_send`; a sender that blocks is reported.)
///
/// # Panics
/// When `capacity` is 2^47 or more (on 32-bit systems 2^31 or more), or that many slots are more
/// than `isize::MAX` bytes.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    if capacity == 0 {
        return rendezvous();
    }
    buffered(State::new(Some(capacity)), Storage::bounded(capacity))
}

/// A channel that holds as many messages as there is memory for; a send never waits.
///
/// It grows when it is fuller than ever, to twice its slots, and keeps those: no allocation below the high-water mark, and at most twice the memory above it.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    buffered(State::new(None), Storage::unbounded())
}

/// Not a part of [`bounded`]: it has a message on its stack, however large.
#[inline(never)]
fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    let meeting = Arc::new(Rendezvous::new());
    ends(Flavor::Rendezvous(meeting.clone()), Flavor::Rendezvous(meeting))
}

fn buffered<T>(state: State, storage: Storage<T>) -> (Sender<T>, Receiver<T>) {
    let (state, storage) = (Arc::new(state), Arc::new(storage));
    ends(Flavor::Buffer(state.clone(), storage.clone()), Flavor::Buffer(state, storage))
}

fn ends<T>(sender: Flavor<T>, receiver: Flavor<T>) -> (Sender<T>, Receiver<T>) {
    (Sender { flavor: sender }, Receiver { flavor: receiver, not_sync: PhantomData })
}

/// What both ends hold.
enum Flavor<T> {
    Buffer(Arc<State>, Arc<Storage<T>>),
    Rendezvous(Arc<Rendezvous<T>>),
}

/// The sending end: clone it for more, use it from any thread.
pub struct Sender<T> {
    flavor: Flavor<T>,
}

/// The receiving end. It can move to another thread but not be shared: a channel has one receiver.
///
/// To wait for it together with timers and other channels register it: [`Handle::register`](crate::Handle::register).
///
/// Dropping it drops the messages that are still in the channel. When the drop of one of them
/// panics, the others are dropped all the same, and then the panic goes on. **When a second one
/// panics meanwhile the process aborts**, as with any panic while another one unwinds. So does a
/// first one when the receiver goes in a thread that unwinds.
pub struct Receiver<T> {
    flavor: Flavor<T>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Sender<T> {
    /// Sends without waiting; gives the value back when the channel is full or the receiver gone.
    ///
    /// No allocation, unless an unbounded channel is fuller than ever. No syscall, except one `write` when the receiver's reactor sleeps.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let refused = match &self.flavor {
            Flavor::Buffer(state, storage) => match state.claim(|level| storage.prepare(level)) {
                Ok(place) => {
                    storage.write(place, value);
                    state.published();
                    return Ok(());
                }
                Err(refused) => (refused, value),
            },
            Flavor::Rendezvous(meeting) => match meeting.try_send(value) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
        };
        match refused {
            (Refused::Full, value) => Err(TrySendError::Full(value)),
            (Refused::Closed, value) => Err(TrySendError::Disconnected(value)),
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
            Err(TrySendError::Full(value)) => {
                self.send_blocking(value, None).map_err(|error| SendError(error.into_inner()))
            }
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
        let state = match &self.flavor {
            Flavor::Buffer(state, _) => state,
            Flavor::Rendezvous(meeting) => return meeting.send(value, deadline),
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
                Err(TrySendError::Disconnected(unsent)) => Err(SendTimeoutError::Disconnected(unsent)),
            }
        };
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
            forbid_blocking("send");
            if state.wait_for_room(deadline, &mut attempt)? {
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
        self.flavor.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a `try_send` would find no room. A rendezvous is always full, and always empty.
    pub fn is_full(&self) -> bool {
        self.flavor.is_full()
    }

    /// How many messages the channel holds at most; `None` is without a limit.
    pub fn capacity(&self) -> Option<usize> {
        self.flavor.capacity()
    }

    /// Whether the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.is_closed(),
            Flavor::Rendezvous(meeting) => meeting.is_closed(),
        }
    }
}

impl<T> Receiver<T> {
    /// Receives without waiting. No allocation; no syscall, unless a sender waits for room.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.try_recv_as(None)
    }

    /// `party` is the reactor that the receiver is registered with.
    #[inline(always)]
    pub(crate) fn try_recv_as(&self, party: Option<&Arc<Notify>>) -> Result<T, TryRecvError> {
        let (state, storage) = match &self.flavor {
            Flavor::Buffer(state, storage) => (state, storage),
            Flavor::Rendezvous(meeting) => return meeting.try_recv(party),
        };
        let head = state.head();
        if !storage.is_written(head) {
            // Nothing is there, or a sender is in the middle of writing it.
            storage.await_written(head, state.check_claimed()?);
        }
        let value = storage.take(head);
        state.taken(head);
        Ok(value)
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
        let state = match &self.flavor {
            Flavor::Buffer(state, _) => state,
            Flavor::Rendezvous(meeting) => return meeting.recv(deadline),
        };
        let mut backoff = Backoff::new();
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if backoff.pause() => {}
                Err(TryRecvError::Empty) => {
                    let left =
                        match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                            // What came in time may have come after the look above, where the thread was kept from its core.
                            Some(Duration::ZERO) => return self.try_recv().map_err(RecvTimeoutError::of),
                            left => left,
                        };
                    forbid_blocking("recv");
                    state.set_target(Target::Thread(thread::current()));
                    if !state.arm(Call::Mark) {
                        park(left);
                    }
                }
            }
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

    /// What is there now, but at most `n`: a bounded share of the turn for a channel that is never empty.
    pub fn drain(&self, n: usize) -> std::iter::Take<TryIter<'_, T>> {
        self.try_iter().take(n)
    }

    /// How many messages wait in the channel.
    pub fn len(&self) -> usize {
        self.flavor.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a `try_send` would find no room. A rendezvous is always full, and always empty.
    pub fn is_full(&self) -> bool {
        self.flavor.is_full()
    }

    /// How many messages the channel holds at most; `None` is without a limit.
    pub fn capacity(&self) -> Option<usize> {
        self.flavor.capacity()
    }

    /// Whether every sender is gone. What they sent may still be here.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.is_gone(),
            Flavor::Rendezvous(meeting) => meeting.is_gone(),
        }
    }

    /// Whether `try_recv` would give something: a message, or the error of a channel whose senders are gone.
    #[inline(always)]
    pub(crate) fn is_ready(&self, party: Option<&Arc<Notify>>) -> bool {
        match &self.flavor {
            Flavor::Buffer(state, storage) => storage.is_written(state.head()) || state.is_ready(),
            Flavor::Rendezvous(meeting) => meeting.is_receivable(party),
        }
    }

    /// What a reactor asks of the channel.
    pub(crate) fn probe(&self) -> Arc<dyn Probe> {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.clone(),
            Flavor::Rendezvous(meeting) => meeting.board(),
        }
    }

    /// Says which reactor is to be told of messages, and by which token; `None` for none.
    pub(crate) fn set_reactor(&self, reactor: Option<(Arc<Notify>, u64)>) {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.set_target(match reactor {
                Some((notify, token)) => Target::Reactor { notify, token },
                None => Target::None,
            }),
            Flavor::Rendezvous(meeting) => meeting.register(reactor),
        }
    }

    /// Before a reactor that selects on this channel sleeps.
    pub(crate) fn before_sleep(&self, party: &Arc<Notify>) {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.ask(Call::Wake),
            Flavor::Rendezvous(meeting) => meeting.wait_here(party),
        }
    }

    /// After it slept. Whether a sender has chosen this channel.
    pub(crate) fn after_sleep(&self, party: &Arc<Notify>) -> bool {
        match &self.flavor {
            Flavor::Buffer(state, _) => {
                state.unask();
                false
            }
            Flavor::Rendezvous(meeting) => meeting.withdraw(party),
        }
    }

    #[cfg(all(loom, test))]
    pub(crate) fn state(&self) -> &Arc<State> {
        match &self.flavor {
            Flavor::Buffer(state, _) => state,
            Flavor::Rendezvous(_) => panic!("a rendezvous has no state"),
        }
    }
}

impl<T> Flavor<T> {
    fn len(&self) -> usize {
        match self {
            Flavor::Buffer(state, _) => state.len(),
            Flavor::Rendezvous(_) => 0,
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Flavor::Buffer(state, _) => state.is_full(),
            Flavor::Rendezvous(_) => true,
        }
    }

    fn capacity(&self) -> Option<usize> {
        match self {
            Flavor::Buffer(state, _) => state.capacity(),
            Flavor::Rendezvous(_) => Some(0),
        }
    }
}

impl<T> Clone for Flavor<T> {
    fn clone(&self) -> Flavor<T> {
        match self {
            Flavor::Buffer(state, storage) => Flavor::Buffer(state.clone(), storage.clone()),
            Flavor::Rendezvous(meeting) => Flavor::Rendezvous(meeting.clone()),
        }
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
        match &self.flavor {
            Flavor::Buffer(state, _) => state.add_sender(),
            Flavor::Rendezvous(meeting) => meeting.add_sender(),
        }
        Sender { flavor: self.flavor.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        match &self.flavor {
            Flavor::Buffer(state, _) => state.drop_sender(),
            Flavor::Rendezvous(meeting) => meeting.drop_sender(),
        }
    }
}

impl<T> Drop for Receiver<T> {
    /// Drops what is in the channel.
    fn drop(&mut self) {
        /// Empties the channel, also while the drop of one of its messages unwinds.
        struct Rest<'a, T>(&'a Receiver<T>);
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                while self.0.try_recv().is_ok() {}
            }
        }
        match &self.flavor {
            Flavor::Buffer(state, _) => {
                state.close();
                // No sender can claim a slot any more; those that have one are waited for.
                let rest = Rest(self);
                while self.try_recv().is_ok() {}
                drop(rest);
            }
            Flavor::Rendezvous(meeting) => meeting.close(),
        }
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

// Longer than 500 lines: it is the public face of channels, both ends and their docs.

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
//! For many receivers on one channel bring another crate's. When every sender is gone the receiver
//! still gets what is in the buffer, then an error for ever. When the receiver is gone a send gives
//! its value back.
//!
//! # Order
//! A send that has returned before another send begins is received first. So the messages of one
//! thread keep their order. Of two sends that overlap in time either may be received first.
//!
//! # A sender that does not run
//! The scheduler may stop a sender in the middle of a send. Its message is then *coming*. Nobody
//! waits for that sender: the receiver takes the messages behind it, sleeps, and ends on time.
//! - `try_recv`, `default` and the other waits without time never miss a message whose send has
//!   returned.
//! - The slots behind the stopped send are not free before that send goes on. So `len()` may be
//!   more than zero though `try_recv` finds nothing, and `is_full()` true though messages were
//!   taken.
//! - A message that is still being written when the receiver goes is dropped by its sender.
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | the two ends, blocking and timing out |
//! | `state.rs` | what the ends share whatever `T` is: positions, detours, the receiver's request |
//! | `ring.rs` | the slots of a bounded or unbounded channel, and the ends that know their type |
//! | `usage.rs` | how full the ring of an unbounded channel is: when it shrinks |
//! | `target.rs` | who is told of the next message |
//! | `room.rs` | who waits for room |
//! | `rendezvous.rs` | channels of capacity zero |
//! | `meeting.rs` | what the two ends of those share whatever `T` is |
//! | `registry.rs` | what hangs at a context: a list that any thread changes without waiting |
//! | `permit.rs` | send cases: room that is taken before the value exists |
//! | `models.rs`, `rendezvous_models.rs` | the loom models |

mod errors;
mod meeting;
#[cfg(all(loom, test))]
pub(crate) mod models;
mod permit;
mod registry;
mod rendezvous;
#[cfg(all(loom, test))]
mod rendezvous_models;
mod ring;
mod room;
mod state;
mod target;
pub(crate) mod usage;

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
pub(crate) use self::registry::{Entry, Once, Registry};
use self::rendezvous::Rendezvous;
use self::ring::{Head, Tail};
pub(crate) use self::state::Refused;
use self::state::State;
pub(crate) use self::target::Target;
use crate::sync::{Backoff, Ordering, fence, forbid_blocking, settle_fence};
use crate::wake::{Look, Notify, Probe, Request};

/// A channel that holds at most `capacity` messages. With a capacity of zero it is a rendezvous: a
/// message goes over when both ends are there.
///
/// Allocates its slots at once and nothing afterwards.
///
/// An end of a rendezvous is there while it blocks: in `send`, in `recv`, in a `select!` or in
/// [`Handle::wait`](crate::Handle::wait). An embedded reactor blocks between its turns. `try_send`
/// succeeds only while the receiver blocks, `try_recv` only while a sender does.
///
/// **Nobody is bound.** A send case is chosen before its value exists, and the evaluation may take
/// long or fail. Meanwhile the receiver's timeouts and other cases go on. So for a send *case* `Ok`
/// means: the next receive gets the value. It does not mean that a receive has returned. `Err`
/// comes only when the receiver is gone. The first `try_recv` that meets a send case is `Empty`,
/// and asks for the value. `send` returns when the receiver has taken the value.
///
/// # Panics
/// When `capacity` is 2^47 or more (on 32-bit systems 2^31 or more), or that many slots are more
/// than `isize::MAX` bytes.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    if capacity == 0 {
        return rendezvous();
    }
    buffered(Some(capacity))
}

/// A channel that holds as many messages as there is memory for; a send never waits.
///
/// It grows when it is full, to twice its slots. Then it takes at most twice the memory of the
/// messages that it has held at once.
///
/// **It shrinks.** When more than 64 KiB of slots were less than an eighth full for a second, a
/// smaller piece of memory replaces them: about four times what was used, and at least 32 to
/// 64 KiB. Up to 64 KiB nothing is ever given back. So a channel that stays below allocates
/// nothing once it was as full before.
///
/// The time is looked at only when the receiver finds the channel empty, when its reactor sleeps,
/// or, while messages are always there, about once for as many messages as there are slots. So an
/// end that nobody uses keeps its memory. In a reactor in virtual time the second is one of that.
/// A message that is on its way keeps the slots before it, until it was received.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    buffered(None)
}

/// Not a part of [`bounded`]: it has a message on its stack, however large.
#[inline(never)]
fn rendezvous<T>() -> (Sender<T>, Receiver<T>) {
    let meeting = Arc::new(Rendezvous::new());
    let sender = Sender { flavor: Sending::Rendezvous(meeting.clone()) };
    (sender, Receiver { flavor: Receiving::Rendezvous(meeting), not_sync: PhantomData })
}

fn buffered<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let (tail, head) = ring::ends(capacity);
    let sender = Sender { flavor: Sending::Buffer(tail) };
    (sender, Receiver { flavor: Receiving::Buffer(head), not_sync: PhantomData })
}

enum Sending<T> {
    Buffer(Tail<T>),
    Rendezvous(Arc<Rendezvous<T>>),
}

enum Receiving<T> {
    Buffer(Head<T>),
    Rendezvous(Arc<Rendezvous<T>>),
}

/// The sending end: clone it for more, use it from any thread.
pub struct Sender<T> {
    flavor: Sending<T>,
}

/// The receiving end. It can move to another thread but not be shared: a channel has one receiver.
///
/// To wait for it together with timers and other channels register it:
/// [`Handle::register`](crate::Handle::register).
///
/// Dropping it drops the messages that are still in the channel. When the drop of one of them
/// panics, the others are dropped all the same, and then the panic goes on. **When a second one
/// panics meanwhile the process aborts**, as with any panic while another one unwinds. So does a
/// first one when the receiver goes in a thread that unwinds.
pub struct Receiver<T> {
    flavor: Receiving<T>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Sender<T> {
    /// Sends without waiting; gives the value back when the channel is full or the receiver gone.
    ///
    /// No allocation, unless an unbounded channel grows or shrinks. No syscall, except one `write`
    /// when the receiver's reactor sleeps.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let refused = match &self.flavor {
            Sending::Buffer(tail) => match tail.try_send(value) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
            Sending::Rendezvous(meeting) => match meeting.try_send(value) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            },
        };
        match refused {
            (Refused::Full, value) => Err(TrySendError::Full(value)),
            (Refused::Closed, value) => Err(TrySendError::Disconnected(value)),
        }
    }

    /// [`try_send`](Self::try_send) of a value that is made when it is sure to be sent, into a
    /// buffer. `make` must not panic: its place is claimed.
    pub(crate) fn try_send_with(&self, make: impl FnOnce() -> T) -> Result<(), Refused> {
        match &self.flavor {
            Sending::Buffer(tail) => tail.try_send_with(make),
            Sending::Rendezvous(_) => Err(Refused::Full),
        }
    }

    /// Sends, and waits for room as long as it takes. Gives the value back when the receiver is
    /// gone or goes.
    ///
    /// Do not use it on the thread that receives: where it would wait it waits for ever.
    #[track_caller]
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

    /// Whether the receiver is gone.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Sending::Buffer(tail) => tail.state().is_closed(),
            Sending::Rendezvous(end) => end.meeting().is_closed(),
        }
    }
}

#[cfg(all(loom, test))]
impl<T> Sender<T> {
    fn tail(&self) -> &Tail<T> {
        match &self.flavor {
            Sending::Buffer(tail) => tail,
            Sending::Rendezvous(_) => panic!("a rendezvous has no tail"),
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
        match &self.flavor {
            Receiving::Buffer(head) => head.try_recv(),
            Receiving::Rendezvous(meeting) => meeting.try_recv(party),
        }
    }

    /// Receives, and waits as long as it takes. Fails when the channel is empty and every sender
    /// gone.
    #[track_caller]
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// Receives, and waits for at most `timeout`.
    #[track_caller]
    #[inline]
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        match self.try_recv() {
            Ok(value) => Ok(value),
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            Err(TryRecvError::Empty) => self.recv_until(deadline_after(timeout)),
        }
    }

    #[track_caller]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let state = match &self.flavor {
            Receiving::Buffer(head) => head.state(),
            Receiving::Rendezvous(meeting) => return meeting.recv(deadline),
        };
        let mut backoff = Backoff::new();
        let mut nap = Nap::new();
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if backoff.pause() => {}
                Err(TryRecvError::Empty) => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        // A message may have come in time, and after the look above, where the
                        // thread was kept from its core.
                        return self.try_recv().map_err(RecvTimeoutError::of);
                    }
                    if forbid_blocking("recv") {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    self.sleep(state, deadline, &mut nap);
                }
            }
        }
    }

    /// Sleeps as a thread until a message comes, or until `deadline`: steps 1 to 7 of a receiver
    /// (`wake/mod.rs`). May return early.
    fn sleep(&self, state: &State, deadline: Option<Instant>, nap: &mut Nap) {
        let here = Notify::of_thread();
        state.set_target(Some(Target { notify: here.clone(), slot: 0 }));
        here.sleep();
        state.ask(Request::Wake);
        fence(Ordering::SeqCst);
        let mut look = state.look();
        let sure = look != Look::Coming || settle_fence();
        if look == Look::Coming && sure {
            look = state.look();
        }
        if look != Look::Ready {
            let limit = if sure { None } else { Instant::now().checked_add(nap.next()) };
            here.park([deadline, limit].into_iter().flatten().min());
        }
        here.awake();
        state.unask();
    }

    /// What comes until every sender is gone, waiting for it.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// What is there now.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    /// What is there now, but at most `n`: a bounded share of the turn for a channel that is never
    /// empty.
    pub fn drain(&self, n: usize) -> std::iter::Take<TryIter<'_, T>> {
        self.try_iter().take(n)
    }

    /// Whether every sender is gone. What they sent may still be here.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().is_gone(),
            Receiving::Rendezvous(end) => end.meeting().is_gone(),
        }
    }

    /// Returns true if `try_recv` would give something: a message, or the error of a channel whose
    /// senders are gone.
    #[inline(always)]
    pub(crate) fn is_ready(&self, party: Option<&Arc<Notify>>) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => head.is_ready(),
            Receiving::Rendezvous(end) => end.meeting().is_receivable(party),
        }
    }

    /// Returns true if a message was claimed and not written: it may be there after a fence.
    pub(crate) fn is_coming(&self) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => !head.state().is_quiet(),
            Receiving::Rendezvous(_) => false,
        }
    }

    /// The channel, as a reactor sees it.
    pub(crate) fn probe(&self) -> Arc<dyn Probe> {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().clone(),
            Receiving::Rendezvous(end) => end.meeting().clone(),
        }
    }

    /// Lets an unbounded channel that is empty, and has been nearly empty for a second, shrink.
    #[inline]
    pub(crate) fn rest(&self) {
        if let Receiving::Buffer(head) = &self.flavor {
            head.rest();
        }
    }

    /// Returns true if [`rest`](Self::rest) may do something.
    pub(crate) fn is_large(&self) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().rings().is_large(),
            Receiving::Rendezvous(_) => false,
        }
    }

    /// Says which reactor is to be told of messages; `None` for none.
    pub(crate) fn set_target(&self, target: Option<Target>) {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().set_target(target),
            Receiving::Rendezvous(end) => end.meeting().set_target(target),
        }
    }

    /// Before a reactor that selects on this channel sleeps.
    pub(crate) fn before_sleep(&self, party: &Arc<Notify>) {
        match &self.flavor {
            Receiving::Buffer(head) => {
                head.rest();
                head.state().ask(Request::Wake);
            }
            Receiving::Rendezvous(end) => end.meeting().wait_here(party),
        }
    }

    /// Makes sure that the next receive gives a value or the end, if there is one: a rendezvous
    /// takes the value of a sender that blocks. Returns false if there is none.
    pub(crate) fn hold(&self, party: &Arc<Notify>) -> bool {
        match &self.flavor {
            Receiving::Buffer(_) => true,
            Receiving::Rendezvous(end) => end.hold(Some(party)),
        }
    }

    /// After it slept. Returns true if a sender has laid a value down at a rendezvous.
    pub(crate) fn after_sleep(&self, party: &Arc<Notify>) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => {
                head.state().unask();
                false
            }
            Receiving::Rendezvous(end) => end.meeting().leave(party),
        }
    }

    #[cfg(all(loom, test))]
    pub(crate) fn state(&self) -> &Arc<State> {
        match &self.flavor {
            Receiving::Buffer(head) => head.state(),
            Receiving::Rendezvous(_) => panic!("a rendezvous has no state"),
        }
    }
}

/// The measures that both ends tell of a channel.
macro_rules! measures {
    ($end:ident, $flavor:ident) => {
        impl<T> $end<T> {
            /// How many messages wait in the channel. Messages that a sender is writing count.
            pub fn len(&self) -> usize {
                match &self.flavor {
                    $flavor::Buffer(end) => end.state().len(),
                    $flavor::Rendezvous(_) => 0,
                }
            }

            /// Returns true if a `try_send` would find no room. A rendezvous is always full, and
            /// always empty.
            pub fn is_full(&self) -> bool {
                match &self.flavor {
                    $flavor::Buffer(end) => end.state().is_full(),
                    $flavor::Rendezvous(_) => true,
                }
            }

            /// How many messages the channel holds at most; `None` is without a limit.
            pub fn capacity(&self) -> Option<usize> {
                match &self.flavor {
                    $flavor::Buffer(end) => end.state().capacity(),
                    $flavor::Rendezvous(_) => Some(0),
                }
            }
        }
    };
}

measures!(Sender, Sending);
measures!(Receiver, Receiving);

impl<T> Sender<T> {
    /// Returns true if no message waits and none is being written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
    /// Returns true if a `try_recv` would find no message. A message that a sender is writing is
    /// not there yet, although [`len`](Self::len) counts it.
    pub fn is_empty(&self) -> bool {
        // In this order: a channel with something in it is not at its end.
        self.len() == 0 || !self.is_ready(None)
    }
}

/// How long to sleep where a wake-up is not sure: 50 µs, then twice as long each time, up to 1 ms.
#[derive(Debug)]
pub(crate) struct Nap(Duration);

impl Default for Nap {
    fn default() -> Nap {
        Nap::new()
    }
}

impl Nap {
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(1);

    pub(crate) fn new() -> Nap {
        Nap(Nap::SHORTEST)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let nap = self.0;
        self.0 = (nap * 2).min(Nap::LONGEST);
        nap
    }
}

/// `None`, for ever, when the deadline is further away than an `Instant` reaches.
fn deadline_after(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

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

impl<T> Drop for Receiver<T> {
    /// Drops what is in the channel. Waits for nobody: a message that is still being written is
    /// dropped by its sender.
    fn drop(&mut self) {
        // The head of a buffered channel closes it by its own drop.
        if let Receiving::Rendezvous(meeting) = &self.flavor {
            meeting.close();
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
    #[track_caller]
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
    #[track_caller]
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Sending, bounded, unbounded};

    #[test]
    fn a_message_that_is_being_written_is_not_there_yet() {
        for (tx, rx) in [bounded::<u32>(4), unbounded()] {
            let Sending::Buffer(tail) = &tx.flavor else { panic!("a buffer") };
            assert!(tail.state().claim().is_ok(), "a sender that stops here");
            assert_eq!((rx.len(), rx.is_empty(), tx.is_empty()), (1, true, false));
            tx.send(7).unwrap();
            assert_eq!((rx.len(), rx.is_empty()), (2, false));
            assert_eq!(rx.try_recv(), Ok(7));
            assert!(rx.is_empty() && rx.try_recv().is_err());
        }
        let (tx, rx) = bounded::<u32>(4);
        drop(tx);
        assert!(rx.is_empty(), "an end is no message");
    }
}

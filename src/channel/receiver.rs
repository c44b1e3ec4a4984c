//! The receiving end of a channel, for users and reactors.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::head::Head;
use super::rendezvous::Rendezvous;
use super::shared::NotShared;
use super::state::State;
use super::target::Target;
use super::{Glance, Nap, RecvError, RecvTimeoutError, TryRecvError, deadline_after, measures};
use crate::sync::{Backoff, Ordering, fence, forbid_blocking, settle_fence};
use crate::wake::{Look, Notify, Probe, Request};

pub(super) enum Receiving<T> {
    Buffer(Head<T>),
    Rendezvous(Arc<Rendezvous<T>>),
}

/// The receiving end of a channel. It can move to another thread but not be shared: a channel has
/// one receiver. The [module](crate::channel#many-receivers) says how several loops share their
/// jobs.
///
/// To wait for a receiver together with timers and other channels, register it:
/// [`Handle::register`](crate::Handle::register).
///
/// ```
/// use pollmux::channel::{self, RecvTimeoutError, TryRecvError};
/// use std::time::Duration;
///
/// let (tx, rx) = channel::bounded(8);
/// assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
/// assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
/// (0..6).for_each(|n| tx.send(n).unwrap());
/// assert_eq!(rx.recv(), Ok(0));
/// assert_eq!(rx.drain(2).collect::<Vec<_>>(), [1, 2]); // at most 2
/// assert_eq!((rx.len(), rx.is_empty(), rx.is_full()), (3, false, false));
/// assert_eq!(rx.try_iter().count(), 3); // those that are there
/// drop(tx);
/// assert!(rx.is_disconnected());
/// assert_eq!(rx.iter().count(), 0); // until every sender is gone
/// ```
///
/// # Dropping
/// The drop of the receiver drops the messages in the channel. When the drop of a message panics,
/// the others are dropped all the same, and then the panic goes on. **When a second drop panics
/// meanwhile the process aborts**, as with any panic while another one unwinds. So does a first
/// panic when the receiver goes in a thread that unwinds.
pub struct Receiver<T> {
    pub(super) flavor: Receiving<T>,
    not_sync: NotShared,
}

impl<T> Receiver<T> {
    pub(super) fn of_buffer(head: Head<T>) -> Receiver<T> {
        Receiver { flavor: Receiving::Buffer(head), not_sync: PhantomData }
    }

    pub(super) fn of_rendezvous(end: Arc<Rendezvous<T>>) -> Receiver<T> {
        Receiver { flavor: Receiving::Rendezvous(end), not_sync: PhantomData }
    }

    /// Receives without waiting. No allocation, and no syscall unless a sender waits for room.
    ///
    /// # Errors
    /// When there is no message now, or when every sender is gone and the channel is empty.
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.try_recv_as(None)
    }

    /// Receives without waiting. `party` is the reactor that the receiver is registered with.
    #[inline(always)]
    pub(crate) fn try_recv_as(&self, party: Option<&Arc<Notify>>) -> Result<T, TryRecvError> {
        match &self.flavor {
            Receiving::Buffer(head) => head.try_recv(),
            Receiving::Rendezvous(meeting) => meeting.try_recv(party),
        }
    }

    /// Receives, and waits as long as it takes.
    ///
    /// # Errors
    /// When every sender is gone and the channel is empty.
    #[track_caller]
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        let next = match &self.flavor {
            Receiving::Buffer(head) => head.take_next(),
            Receiving::Rendezvous(_) => None,
        };
        match next {
            Some(value) => Ok(value),
            None => self.recv_until(None).map_err(|_| RecvError),
        }
    }

    /// Receives, and waits for at most `timeout`.
    ///
    /// # Errors
    /// When there is no message in time, or when every sender is gone and the channel is empty.
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
    #[inline(never)]
    fn recv_until(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let head = match &self.flavor {
            Receiving::Buffer(head) => head,
            Receiving::Rendezvous(meeting) => return meeting.recv(deadline),
        };
        if head.glance().is_in_doubt() {
            head.watch();
        }
        let mut backoff = Backoff::behind_watch();
        let mut nap = Nap::default();
        loop {
            match self.try_recv() {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if backoff.pause() => {}
                Err(TryRecvError::Empty) => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        // The thread may have been kept from its core after the look above. A
                        // message may have come in time meanwhile.
                        return self.try_recv().map_err(RecvTimeoutError::of);
                    }
                    if forbid_blocking("recv") {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    self.sleep(head.state(), deadline, &mut nap);
                }
            }
        }
    }

    /// Sleeps as a thread until a message comes, or until `deadline`: steps 1 to 7 of a receiver
    /// (`wake/mod.rs`). May return early.
    pub(super) fn sleep(&self, state: &State, deadline: Option<Instant>, nap: &mut Nap) {
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

    /// Iterates over the messages until every sender is gone, and waits for each.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }

    /// Iterates over the messages that are there now.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    /// Iterates over at most `n` of the messages that are there now: a bounded share of the turn
    /// for a channel that is never empty.
    pub fn drain(&self, n: usize) -> std::iter::Take<TryIter<'_, T>> {
        self.try_iter().take(n)
    }

    /// Returns true if every sender is gone. The channel may still have messages.
    pub fn is_disconnected(&self) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().is_gone(),
            Receiving::Rendezvous(end) => end.meeting().is_gone(),
        }
    }

    /// Returns true if `try_recv` would give a message, or the error of a channel whose senders are
    /// gone.
    #[inline(always)]
    pub(crate) fn is_ready(&self, party: Option<&Arc<Notify>>) -> bool {
        self.is_ready_or(party, || {})
    }

    /// [`is_ready`](Self::is_ready) that calls `coming` if a message is claimed and not written.
    /// That message may be there after a fence.
    #[inline(always)]
    pub(crate) fn is_ready_or(&self, party: Option<&Arc<Notify>>, coming: impl FnOnce()) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => head.is_ready_or(coming),
            Receiving::Rendezvous(end) => end.meeting().is_receivable(party),
        }
    }

    /// [`is_ready`](Self::is_ready) without a read of the tail.
    #[inline(always)]
    pub(crate) fn glance(&self, party: Option<&Arc<Notify>>) -> Glance {
        match &self.flavor {
            Receiving::Buffer(head) => head.glance(),
            Receiving::Rendezvous(end) => Glance::sure(end.meeting().is_receivable(party)),
        }
    }

    /// Returns the channel as its reactor sees it.
    pub(crate) fn probe(&self) -> Arc<dyn Probe> {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().clone(),
            Receiving::Rendezvous(end) => end.meeting().clone(),
        }
    }

    /// Shrinks an unbounded channel that is empty and has been nearly empty for a second.
    #[inline]
    pub(crate) fn rest(&self) {
        if let Receiving::Buffer(head) = &self.flavor {
            head.rest();
        }
    }

    /// Returns true if [`rest`](Self::rest) may shrink the channel.
    pub(crate) fn is_large(&self) -> bool {
        self.buffer().is_some_and(|state| state.rings().is_large())
    }

    /// Sets the reactor that is told of messages; `None` for none.
    pub(crate) fn set_target(&self, target: Option<Target>) {
        match &self.flavor {
            Receiving::Buffer(head) => head.state().set_target(target),
            Receiving::Rendezvous(end) => end.meeting().set_target(target),
        }
    }

    /// Asks for a wake-up, before a reactor that selects on this channel sleeps.
    pub(crate) fn before_sleep(&self, party: &Arc<Notify>) {
        match &self.flavor {
            Receiving::Buffer(head) => {
                head.rest();
                head.state().ask(Request::Wake);
            }
            Receiving::Rendezvous(end) => end.meeting().wait_here(party),
        }
    }

    /// Holds a value or the end for the next receive, if there is one. At a rendezvous this takes
    /// the value of a sender that blocks. Returns false if there is none.
    pub(crate) fn hold(&self, party: &Arc<Notify>) -> bool {
        match &self.flavor {
            Receiving::Buffer(_) => true,
            Receiving::Rendezvous(end) => end.hold(Some(party)),
        }
    }

    /// Ends the wait of that sleep. Returns true if a sender has laid a value down at a rendezvous.
    pub(crate) fn after_sleep(&self, party: &Arc<Notify>) -> bool {
        match &self.flavor {
            Receiving::Buffer(head) => {
                head.state().unask();
                false
            }
            Receiving::Rendezvous(end) => end.meeting().leave(party),
        }
    }

    /// Returns true if a `try_recv` would find no message. A message that a sender is writing is
    /// not there yet, although [`len`](Self::len) counts it.
    pub fn is_empty(&self) -> bool {
        // The length comes first: a channel with a message in it is not at its end.
        self.len() == 0 || !self.is_ready(None)
    }

    /// Returns the state of the channel, if it has a buffer.
    pub(crate) fn buffer(&self) -> Option<&Arc<State>> {
        match &self.flavor {
            Receiving::Buffer(head) => Some(head.state()),
            Receiving::Rendezvous(_) => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn state(&self) -> &Arc<State> {
        self.buffer().expect("a rendezvous has no state")
    }
}

measures!(Receiver);

impl<T> Drop for Receiver<T> {
    /// Drops the messages in the channel. Waits for no sender: a sender that is still writing a
    /// message drops that message.
    fn drop(&mut self) {
        // The head of a buffered channel closes it by its own drop.
        if let Receiving::Rendezvous(meeting) = &self.flavor {
            meeting.close();
        }
    }
}

/// The iterator of [`Receiver::iter`]. [`Receiver`] has an example.
#[derive(Debug)]
pub struct Iter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;
    #[track_caller]
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

/// The iterator of [`Receiver::try_iter`]. [`Receiver`] has an example.
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

/// The iterator of `Receiver::into_iter`.
///
/// ```
/// let (tx, rx) = pollmux::channel::bounded(2);
/// tx.send(1).unwrap();
/// drop(tx);
/// for message in rx { // until every sender is gone
///     assert_eq!(message, 1);
/// }
/// ```
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

//! Inboxes: receivers of channels that a reactor waits for.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use super::{BeforeSleep, End, Internals, IntoSource, RegisterError, Source, common};
use crate::channel::{self, Glance, Receiver, RecvError, Sender, Target, TryRecvError};
use crate::reactor::{Handle, Key, Slot, SourceKind};

/// The receiver of a channel, registered with a reactor.
///
/// As a [`Source`] it gives `Result<T, RecvError>`: a message, or an error once every sender is
/// gone and the channel is empty. That error comes for ever. Dropping the inbox drops the messages
/// in the channel, and senders get their values back.
///
/// ```
/// use pollmux::channel::{RecvError, TryRecvError};
/// use pollmux::{Reactor, select};
///
/// let reactor = Reactor::new()?;
/// let (tx, inbox) = reactor.channel(2)?;
/// assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
/// tx.send(1).unwrap();
/// tx.send(2).unwrap();
/// assert_eq!((inbox.len(), inbox.capacity()), (2, Some(2)));
/// assert!(inbox.is_full() && !inbox.is_empty());
///
/// select! { reactor; recv(inbox) -> message => assert_eq!(message, Ok(1)) }
/// assert_eq!(inbox.try_iter().collect::<Vec<_>>(), [2]);
/// drop(tx);
/// assert!(inbox.is_disconnected());
/// select! { reactor; recv(inbox) -> message => assert_eq!(message, Err(RecvError)) }
///
/// let receiver = inbox.into_inner(); // for another thread or reactor
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the inbox closes its channel"]
pub struct Inbox<T> {
    // The receiver is dropped first, so that senders find the channel closed before the slot is
    // free.
    receiver: Receiver<T>,
    slot: Slot,
    /// True if the error of the end has been taken, and `wait` need not report the end any more.
    over: Cell<bool>,
    /// The number of times that a select has taken the end.
    ends: Cell<u32>,
    /// True if a sender has put a value at the rendezvous during the last sleep.
    chosen: Cell<bool>,
}

impl Handle {
    /// Makes a [bounded channel](channel::bounded) whose receiver is registered.
    ///
    /// # Errors
    /// When the reactor has been dropped.
    ///
    /// # Panics
    /// As [`channel::bounded`] does.
    ///
    /// ```
    /// use pollmux::Reactor;
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, inbox) = reactor.channel(8)?; // room for 8 messages
    /// tx.send("hello").unwrap();
    /// assert_eq!(reactor.recv(&inbox)?, Ok("hello"));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn channel<T>(&self, capacity: usize) -> io::Result<(Sender<T>, Inbox<T>)> {
        let (sender, receiver) = channel::bounded(capacity);
        Ok((sender, self.register(receiver)?))
    }

    /// Makes a [`channel`](Self::channel) with the key that [`wait`](Self::wait) reports its inbox
    /// by.
    ///
    /// # Errors
    /// When the reactor has been dropped.
    ///
    /// # Panics
    /// As [`channel::bounded`] does.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, _inbox) = reactor.channel_with(7, 8)?;
    /// tx.send("hello").unwrap();
    /// let mut events = Events::new();
    /// reactor.wait(&mut events)?;
    /// assert!(events.iter().map(|event| event.key()).eq([7]));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn channel_with<T>(
        &self,
        key: impl Into<Key>,
        capacity: usize,
    ) -> io::Result<(Sender<T>, Inbox<T>)> {
        let (sender, receiver) = channel::bounded(capacity);
        Ok((sender, self.register_with(key, receiver)?))
    }
}

impl<T> IntoSource for Receiver<T> {
    type Registered = Inbox<T>;

    #[track_caller]
    fn register(self, handle: &Handle, key: Option<u64>) -> Result<Inbox<T>, RegisterError<Self>> {
        let (receiver, slot) = handle.slot_for(self, SourceKind::Inbox, key)?;
        receiver.set_target(Some(Target { notify: slot.notify().clone(), slot: slot.number() }));
        slot.register_channel(receiver.probe());
        let (over, ends, chosen) = Default::default();
        Ok(Inbox { receiver, slot, over, ends, chosen })
    }
}

impl<T> Inbox<T> {
    /// Receives without waiting, and without a turn of the reactor.
    ///
    /// # Errors
    /// When there is no message now, or when every sender is gone and the channel is empty.
    #[inline(always)]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let received = self.receiver.try_recv_as(Some(self.slot.notify()));
        if matches!(received, Err(TryRecvError::Disconnected)) {
            if !self.over.replace(true) {
                self.slot.channel_ended();
            }
        } else if self.slot.is_ready() {
            if self.receiver.is_ready(Some(self.slot.notify())) {
                self.slot.received();
            } else {
                self.slot.drained();
            }
        }
        received
    }

    /// Returns an iterator that takes the messages that are there now.
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter(self)
    }

    /// Returns an iterator that takes at most `n` messages: a bounded share of the turn for a
    /// channel that is never empty.
    ///
    /// The next [`wait`](crate::Handle::wait) reports the rest, behind the ready sources that did
    /// not fit in this batch. So a flooded channel delays each other one by `n` messages a batch:
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    ///
    /// let reactor = Reactor::new()?;
    /// let channels = [0, 1].map(|key| reactor.channel_with(key, 8).unwrap());
    /// (0..5).for_each(|n| channels[0].0.send(n).unwrap());
    /// channels[1].0.send(9).unwrap();
    ///
    /// let (mut events, mut order) = (Events::new(), Vec::new());
    /// while order.len() < 6 {
    ///     reactor.wait(&mut events)?;
    ///     for event in &events {
    ///         let (_, inbox) = &channels[event.key() as usize];
    ///         order.extend(inbox.drain(2).map(|message| (event.key(), message)));
    ///     }
    /// }
    /// assert_eq!(order, [(0, 0), (0, 1), (1, 9), (0, 2), (0, 3), (0, 4)]);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn drain(&self, n: usize) -> std::iter::Take<TryIter<'_, T>> {
        self.try_iter().take(n)
    }

    /// The number of messages in the channel. Messages that a sender is writing count.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Returns true if a `try_recv` would find no message. A message that a sender is writing is
    /// not there yet, although [`len`](Self::len) counts it.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Returns true if a `try_send` would find no room.
    pub fn is_full(&self) -> bool {
        self.receiver.is_full()
    }

    /// The number of messages that the channel holds at most; `None` is without a limit.
    pub fn capacity(&self) -> Option<usize> {
        self.receiver.capacity()
    }

    /// Returns true if every sender is gone. The channel may still have messages.
    pub fn is_disconnected(&self) -> bool {
        self.receiver.is_disconnected()
    }

    /// Takes the receiver back, with its messages, for use on another thread or reactor.
    pub fn into_inner(self) -> Receiver<T> {
        self.receiver.set_target(None);
        self.receiver
    }
}

common!([T] Inbox<T>, |it| len: it.len(), capacity: it.capacity());

impl<T> Source for Inbox<T> {
    type Item = Result<T, RecvError>;

    #[inline(always)]
    fn is_ready(&self) -> bool {
        let coming = || self.slot.core().note_coming();
        self.receiver.is_ready_or(Some(self.slot.notify()), coming)
    }

    #[inline(always)]
    fn try_take(&self) -> Option<Self::Item> {
        match self.try_recv() {
            Ok(message) => Some(Ok(message)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.slot.end_taken(&self.ends);
                Some(Err(RecvError))
            }
        }
    }

    #[inline(always)]
    fn glance(&self) -> Glance {
        self.receiver.glance(Some(self.slot.notify()))
    }

    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.receiver.before_sleep(self.slot.notify());
        Ok(())
    }

    fn after_sleep(&self) {
        self.chosen.set(self.receiver.after_sleep(self.slot.notify()));
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        // A select must ask the receiver of a rendezvous, which offers itself during a sleep.
        let is_rendezvous = self.capacity() == Some(0);
        Internals::of(&self.slot).without_look().unlisted_if(is_rendezvous).with_end(self)
    }
}

impl<T> End for Inbox<T> {
    fn buffer(&self) -> Option<Arc<channel::State>> {
        self.receiver.buffer().cloned()
    }

    fn is_chosen(&self) -> bool {
        self.chosen.get()
    }

    fn hold(&self) -> bool {
        self.receiver.hold(self.slot.notify())
    }
}

/// The iterator of [`Inbox::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T>(&'a Inbox<T>);

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }
}

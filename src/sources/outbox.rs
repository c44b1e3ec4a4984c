//! Outboxes: senders that a `select!` can send through.

use std::cell::{Cell, OnceCell};
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use super::{BeforeSleep, End, Internals, IntoSource, RegisterError, Source, common};
use crate::channel::{Chosen, RoomRequest, Sender, TrySendError, Waiting};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::wake::Bell;

/// The sender of a channel, registered with a reactor: for `send(outbox, value)` cases, and for a
/// loop that is to be told of room.
///
/// The case is ready when there is room, and when the receiver is gone. Then its result gives the
/// value back. While the reactor sleeps the case counts as a sender that waits. It does not hold up
/// other senders.
///
/// At a rendezvous `Ok` means that the next receive gets the value:
/// [`bounded`](crate::channel::bounded).
///
/// ```
/// use pollmux::{Reactor, channel, select};
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded(1);
/// let outbox = reactor.register(tx)?;
/// for n in 0..2 {
///     select! { reactor;
///         send(outbox, n) -> sent => assert!(n == 0 && sent.is_ok()),
///         default => assert_eq!(n, 1), // full
///     }
/// }
/// assert_eq!(rx.try_recv(), Ok(0));
/// # std::io::Result::Ok(())
/// ```
///
/// # Room as an event
/// A [`try_send`](Self::try_send) that finds the channel full asks for room. A later
/// [`wait`](Handle::wait) reports the outbox by its key when there is room, or when the receiver is
/// gone. So a server pushes back: it keeps the job, stops reading from the client that sent it, and
/// goes on with both at the event.
///
/// **Room is reported once.** No wait reports the outbox again until another `try_send` has found
/// the channel full, so send at the event until that happens. If the loop left the batch before it
/// came to the event, the next wait reports the outbox again. An event is skipped when another
/// sender has taken the room. Then the request stays.
///
/// A rendezvous has no room to wait for, and asks for none: use a send case.
///
/// ```
/// use pollmux::channel;
/// use pollmux::{Events, Reactor, reactor::SourceKind};
///
/// const WORKER: u32 = 1;
///
/// let reactor = Reactor::new()?;
/// let (jobs, work) = channel::bounded(2);
/// let worker = reactor.register_with((WORKER, 0), jobs)?;
/// let thread = std::thread::spawn(move || work.into_iter().sum::<u64>());
///
/// let (mut events, mut next) = (Events::new(), 1);
/// loop {
///     // Sends until the worker has no room.
///     while next <= 1_000 && worker.try_send(next).is_ok() {
///         next += 1;
///     }
///     if next > 1_000 {
///         break;
///     }
///     // Here a server has stopped reading, and serves its other clients.
///     reactor.wait(&mut events)?;
///     for event in &events {
///         assert_eq!((event.split_key(), event.kind()), ((WORKER, 0), SourceKind::Outbox));
///     }
/// }
/// drop(worker);
/// assert_eq!(thread.join().unwrap(), 500_500);
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the outbox drops its sender"]
pub struct Outbox<T> {
    // The request is dropped before the slot, so that no ring reaches a free slot.
    request: Asking,
    sender: Sender<T>,
    slot: Slot,
}

/// The request for room. The first send that finds the channel full makes it.
struct Asking(OnceCell<Arc<RoomRequest>>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.get().inspect(|request| request.withdraw());
    }
}

impl<T> IntoSource for Sender<T> {
    type Registered = Outbox<T>;

    #[track_caller]
    fn register(self, handle: &Handle, key: Option<u64>) -> Result<Outbox<T>, RegisterError<Self>> {
        let (sender, slot) = handle.slot_for(self, SourceKind::Outbox, key)?;
        Ok(Outbox { request: Asking(OnceCell::new()), sender, slot })
    }
}

impl<T> Outbox<T> {
    /// Sends without waiting, as [`Sender::try_send`] does.
    ///
    /// If the channel is full, the outbox also asks to be told of room: see
    /// [above](Self#room-as-an-event). `outbox.sender().try_send(..)` does not ask.
    ///
    /// # Errors
    /// When the channel is full, or the receiver is gone. The error gives the value back.
    ///
    /// # Cost
    /// A request for room costs one membarrier, and two allocations the first time. A second
    /// request before the answer costs nothing.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let sent = self.sender.try_send(value);
        if let Err(TrySendError::Full(_)) = sent {
            self.ask_for_room();
        }
        sent
    }

    #[cold]
    fn ask_for_room(&self) {
        if self.slot.is_inert() {
            return;
        }
        if let Some(request) = self.request.0.get() {
            // Room that was found and not reported is gone again.
            if request.open() || self.slot.is_ready() {
                self.slot.ask_again();
            }
            return;
        }
        let bell = Bell::new(self.slot.notify().clone(), self.slot.number());
        if let Some(request) = self.sender.room_request(bell) {
            let request = self.request.0.get_or_init(|| request);
            self.slot.register_to_be_told(request.clone());
        }
    }

    /// The sender, to be cloned or asked.
    ///
    /// ```
    /// use pollmux::{Reactor, channel};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, _rx) = channel::bounded::<u32>(8);
    /// let outbox = reactor.register(tx)?;
    /// let for_a_thread = outbox.sender().clone();
    /// assert_eq!(for_a_thread.capacity(), Some(8));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sender(&self) -> &Sender<T> {
        &self.sender
    }

    /// Takes the sender back.
    ///
    /// ```
    /// use pollmux::{Reactor, channel};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, rx) = channel::bounded(1);
    /// let outbox = reactor.register(tx)?;
    /// let tx = outbox.into_inner(); // for another thread or reactor
    /// std::thread::spawn(move || tx.send(7));
    /// assert_eq!(rx.recv(), Ok(7));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn into_inner(self) -> Sender<T> {
        self.sender
    }
}

common!([T] Outbox<T>, |it| sender: it.sender);

/// The forms of an outbox in a send case: a reference to it, or to references, boxes and options of
/// it.
///
/// A reference to a reference lends for as long as the inner one, so a case may make the outer one
/// itself.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no outbox: a `send` case cannot send through it",
    label = "not an outbox",
    note = "the sender of a channel: register it first: `let outbox = reactor.register(tx)?`",
    note = "the receiver of a channel: register it, and use it in a case `recv(inbox)`",
    note = "a `Result`: unwrap it, or add `?`"
)]
pub trait Outgoing<'o> {
    /// The messages.
    type Message: 'o;
    /// The outbox; `None` is never ready.
    fn outbox(self) -> Option<&'o Outbox<Self::Message>>;
}

impl<'o, T> Outgoing<'o> for &'o Outbox<T> {
    type Message = T;
    #[inline]
    fn outbox(self) -> Option<&'o Outbox<T>> {
        Some(self)
    }
}

macro_rules! forward {
    ($([$($param:tt)+] $pointer:ty, |$it:ident| $outbox:expr;)*) => {$(
        impl<'o, 's, $($param)+> Outgoing<'o> for $pointer
        where
            &'s S: Outgoing<'o>,
        {
            type Message = <&'s S as Outgoing<'o>>::Message;
            #[inline]
            fn outbox(self) -> Option<&'o Outbox<Self::Message>> {
                let $it = self;
                $outbox
            }
        }
    )*};
}

forward! {
    [S: ?Sized] &'_ &'s S, |it| (*it).outbox();
    [S: ?Sized] &'s &mut S, |it| (**it).outbox();
    [S: ?Sized] &'s Box<S>, |it| (**it).outbox();
    [S: ?Sized] &'s std::rc::Rc<S>, |it| (**it).outbox();
    [S] &'s Option<S>, |it| it.as_ref()?.outbox();
}

/// A pointer to an outbox, for the send cases of a [`Select`](crate::Select): a reference, a box or
/// an `Rc`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` points to no outbox: a send case cannot send through it",
    label = "not a reference to an outbox, and no `Rc` of one",
    note = "an outbox: `select.send(&outbox)`",
    note = "the sender of a channel: register it first: `let outbox = reactor.register(tx)?`"
)]
pub trait OutboxPointer<T>: Deref<Target = Outbox<T>> {}

#[diagnostic::do_not_recommend]
impl<T, P: Deref<Target = Outbox<T>>> OutboxPointer<T> for P {}

/// The source of a send case: ready when there is room. The item is the [chosen](Chosen) permit to
/// send.
#[doc(hidden)]
#[derive(Debug)]
pub struct Sending<'a, T> {
    outbox: Option<&'a Outbox<T>>,
    offer: Offer,
}

impl<'a, T> Sending<'a, T> {
    /// The send case of this outbox.
    #[inline]
    pub fn new(outbox: impl Outgoing<'a, Message = T>) -> Sending<'a, T> {
        Sending { outbox: outbox.outbox(), offer: Offer::default() }
    }
}

impl<'a, T> Source for Sending<'a, T> {
    type Item = Chosen<'a, T>;

    #[inline]
    fn is_ready(&self) -> bool {
        self.outbox.is_some_and(|outbox| self.offer.is_ready(outbox))
    }

    #[inline]
    fn try_take(&self) -> Option<Chosen<'a, T>> {
        self.offer.try_take(self.outbox?)
    }

    fn before_sleep(&self, blocking: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.outbox.inspect(|outbox| self.offer.before_sleep(outbox, blocking));
        Ok(())
    }

    fn after_sleep(&self) {
        self.outbox.inspect(|outbox| self.offer.after_sleep(outbox));
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        let absent = || Internals::default().without_look();
        self.outbox.map_or_else(absent, |outbox| self.offer.internals(outbox))
    }
}

impl<T> Drop for Sending<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.outbox.inspect(|outbox| self.offer.give_up(outbox));
    }
}

/// The request of a send case at its channel, and the permit that answers it.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The request that is at the channel during the present sleep.
    waiting: Cell<Waiting>,
    /// True if the receiver has chosen the case, which then has a permit.
    chosen: Cell<bool>,
}

impl Offer {
    #[inline]
    pub(crate) fn is_ready<T>(&self, outbox: &Outbox<T>) -> bool {
        outbox.sender.is_ready(outbox.slot.notify(), self.waiting.get())
    }

    #[inline]
    pub(crate) fn try_take<'a, T>(&self, outbox: &'a Outbox<T>) -> Option<Chosen<'a, T>> {
        self.chosen.set(false);
        outbox.sender.try_permit(outbox.slot.notify(), self.waiting.take()).map(Chosen::new)
    }

    pub(crate) fn before_sleep<T>(&self, outbox: &Outbox<T>, blocking: &mut BeforeSleep<'_>) {
        self.give_up(outbox);
        let (waiting, sure) = outbox.sender.before_sleep(outbox.slot.notify());
        self.waiting.set(waiting);
        if !sure {
            blocking.nap();
        }
    }

    pub(crate) fn after_sleep<T>(&self, outbox: &Outbox<T>) {
        // After a panic, or in a second call, there is no permit to be given back twice.
        if self.chosen.get() {
            return;
        }
        let waiting = self.waiting.take();
        if outbox.sender.after_sleep(outbox.slot.notify(), waiting) {
            self.waiting.set(waiting);
            self.chosen.set(true);
        }
    }

    /// Gives back the permit of a case that the receiver has chosen and the select has not taken.
    #[inline]
    pub(crate) fn give_up<T>(&self, outbox: &Outbox<T>) {
        if self.chosen.replace(false) {
            self.waiting.take();
            outbox.sender.give_up();
        }
    }

    /// Returns the facts about a send case with this offer.
    #[inline]
    pub(crate) fn internals<'a, T>(&'a self, outbox: &'a Outbox<T>) -> Internals<'a> {
        Internals::of(&outbox.slot).without_look().unlisted_if(true).with_end(self)
    }
}

impl End for Offer {
    fn is_chosen(&self) -> bool {
        self.chosen.get()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::channel::bounded;
    use crate::reactor::{Events, Reactor};
    use crate::sys::{Interest, Mode, PollEvents, Poller};

    /// If the list is locked, the outbox cannot add its bell. Then the loop looks again in a
    /// moment.
    #[test]
    fn a_locked_list_loses_no_room() {
        for is_embedded in [false, cfg!(not(flat))] {
            let reactor = Reactor::new().unwrap();
            let embedded = is_embedded.then(|| reactor.embed().unwrap());
            let (tx, rx) = bounded(1);
            let outbox = reactor.register_with(7, tx.clone()).unwrap();
            outbox.try_send(0).unwrap();
            let list = tx.hold_room();
            assert!(outbox.try_send(1).is_err());
            let mut events = Events::new();
            reactor.try_wait(&mut events).unwrap();
            assert!(events.is_empty());
            if let Some(embedded) = &embedded {
                assert_eq!([(); 2].map(|()| embedded.turn().unwrap()), [0; 2]);
            }
            rx.try_recv().unwrap();
            if let Some(embedded) = embedded {
                let (poller, mut ups) = (Poller::new().unwrap(), PollEvents::with_capacity(1));
                poller.register(&embedded, 0, Interest::READABLE, Mode::Level).unwrap();
                let mut found = 0;
                while found == 0 {
                    poller.wait(&mut ups, None).unwrap();
                    found = embedded.turn().unwrap();
                }
            }
            reactor.wait(&mut events).unwrap();
            assert!(events.iter().map(|event| event.key()).eq([7]));
            drop(list);
        }
    }
}

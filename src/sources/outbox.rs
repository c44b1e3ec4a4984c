//! Outboxes: senders that a `select!` can send through.

use std::cell::Cell;
use std::io;
use std::ops::Deref;

use super::{BeforeSleep, End, Internals, IntoSource, RegisterError, Source, common};
use crate::channel::{Chosen, Sender, TrySendError, Waiting};
use crate::reactor::{Handle, Slot, SourceKind};

/// The sender of a channel, registered with a reactor, for `send(outbox, value)` cases.
///
/// The case is ready when there is room, and when the receiver is gone: then its result gives the
/// value back. While the reactor sleeps it counts as a sender that waits; the others are not held
/// up by it.
///
/// [`wait`](Handle::wait) does not report an outbox. The key that [`with_key`](Self::with_key) sets
/// only stands in [`sources`](Handle::sources).
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
#[must_use = "dropping the outbox drops its sender"]
pub struct Outbox<T> {
    sender: Sender<T>,
    /// For the list of what is live, and to reach the reactor by.
    slot: Slot,
}

impl<T> IntoSource for Sender<T> {
    type Registered = Outbox<T>;

    /// The key is not used: `wait` does not report outboxes.
    #[track_caller]
    fn register(self, handle: &Handle, _: Option<u64>) -> Result<Outbox<T>, RegisterError<Self>> {
        let (sender, slot) = handle.slot_for(self, SourceKind::Outbox, None)?;
        Ok(Outbox { sender, slot })
    }
}

impl<T> Outbox<T> {
    /// Sends without waiting, as [`Sender::try_send`] does.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(value)
    }

    /// The sender, to be cloned or asked.
    pub fn sender(&self) -> &Sender<T> {
        &self.sender
    }

    /// Takes the sender back.
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

/// A pointer to an outbox, for the send cases of a [`Select`](crate::Select): a reference, an `Rc`.
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

/// What a send case has left at its channel.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The request left at the channel for the sleep that goes on.
    waiting: Cell<Waiting>,
    /// The receiver has chosen the case, which has a permit now.
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
        // A panic in between, or a second call, finds nothing to be withdrawn twice.
        if self.chosen.get() {
            return;
        }
        let waiting = self.waiting.take();
        if outbox.sender.after_sleep(outbox.slot.notify(), waiting) {
            self.waiting.set(waiting);
            self.chosen.set(true);
        }
    }

    /// Gives back the permit of a case that was chosen by the receiver, and not taken.
    #[inline]
    pub(crate) fn give_up<T>(&self, outbox: &Outbox<T>) {
        if self.chosen.replace(false) {
            self.waiting.take();
            outbox.sender.give_up();
        }
    }

    /// The facts about a send case with this offer.
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

//! Send cases: a `select!` chooses to send before the value exists.

use std::sync::Arc;

use super::sender::Sending;
use super::state::Refused;
use super::{SendError, Sender};
use crate::wake::Notify;

/// Room for one message. A send case that was chosen gives a permit. The `select!` macro evaluates
/// the value and calls [`send`](Self::send).
///
/// A permit that is dropped gives the room back. So the expression of the value may panic, return
/// or use `?`. Other senders cannot take the permit, and do not wait for it: it is no place in the
/// order of messages.
///
/// ```
/// use pollmux::{Reactor, channel, select};
///
/// let reactor = Reactor::new()?;
/// let (tx, rx) = channel::bounded::<u32>(1);
/// let outbox = reactor.register(tx)?;
/// let mut parse = |text: &str| -> Result<(), std::num::ParseIntError> {
///     select! { reactor; send(outbox, text.parse()?) -> sent => sent.unwrap() }
///     Ok(())
/// };
/// assert!(parse("seven").is_err()); // the room is free again
/// assert!(parse("7").is_ok());
/// assert_eq!(rx.try_recv(), Ok(7));
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the permit gives the room back"]
pub struct Permit<'a, T> {
    sender: &'a Sender<T>,
    /// The channel is closed, so the permit holds no room.
    closed: bool,
}

impl<'a, T> Permit<'a, T> {
    /// Leaves the permit behind, to be picked up by [`kept`](Self::kept). Returns true if the
    /// channel is closed.
    pub(crate) fn keep(self) -> bool {
        std::mem::ManuallyDrop::new(self).closed
    }

    /// Picks up a permit that was left behind.
    pub(crate) fn kept(sender: &'a Sender<T>, closed: bool) -> Permit<'a, T> {
        Permit { sender, closed }
    }

    /// Sends. Never waits. At a rendezvous `Ok` means that the next receive gets the value.
    ///
    /// # Errors
    /// When the receiver is gone. The error gives the value back.
    pub fn send(self, value: T) -> Result<(), SendError<T>> {
        let this = std::mem::ManuallyDrop::new(self);
        if this.closed {
            return Err(SendError(value));
        }
        match &this.sender.flavor {
            Sending::Buffer(tail) => tail.send_permitted(value).map_err(SendError),
            Sending::Rendezvous(end) => end.lay(value).map_err(SendError),
        }
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        match &self.sender.flavor {
            Sending::Buffer(tail) => tail.state().return_permit(),
            Sending::Rendezvous(end) => end.meeting().give_back(),
        }
    }
}

/// A permit on its way to its case in the `select!`. It has no destructor: with one, the outbox
/// would count as borrowed while the cases run.
#[derive(Debug)]
#[must_use = "dropping the permit loses its room for ever"]
#[doc(hidden)]
pub struct Chosen<'a, T>(std::mem::ManuallyDrop<Permit<'a, T>>);

impl<'a, T> Chosen<'a, T> {
    pub(crate) fn new(permit: Permit<'a, T>) -> Chosen<'a, T> {
        Chosen(std::mem::ManuallyDrop::new(permit))
    }

    /// Returns the permit, which gives the room back unless it is used.
    #[inline]
    pub fn redeem(self) -> Permit<'a, T> {
        std::mem::ManuallyDrop::into_inner(self.0)
    }
}

impl_debug!([T] Permit<'_, T>, |it| closed: it.closed);

/// The registration that a sleeping reactor's send case leaves at its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Waiting {
    #[default]
    Nothing,
    ForRoom,
    /// The number of its offer at a rendezvous.
    Offer(u64),
}

impl<T> Sender<T> {
    /// Returns true if there is a permit, or the news that the receiver is gone.
    pub(crate) fn is_ready(&self, party: &Arc<Notify>, waiting: Waiting) -> bool {
        match &self.flavor {
            Sending::Buffer(tail) => tail.state().is_closed() || tail.state().has_permit(),
            Sending::Rendezvous(end) => end.meeting().is_sendable(party, offer(waiting)),
        }
    }

    pub(crate) fn try_permit(
        &self,
        party: &Arc<Notify>,
        waiting: Waiting,
    ) -> Option<Permit<'_, T>> {
        let taken = match &self.flavor {
            Sending::Buffer(tail) => tail.state().claim_permit(),
            Sending::Rendezvous(end) => end.meeting().claim_permit(party, offer(waiting)),
        };
        match taken {
            Ok(()) => Some(Permit { sender: self, closed: false }),
            Err(Refused::Closed) => Some(Permit { sender: self, closed: true }),
            Err(Refused::Full) => None,
        }
    }

    /// Gives back the permit of a case that the receiver has chosen.
    pub(crate) fn give_up(&self) {
        drop(Permit { sender: self, closed: false });
    }

    /// Registers a reactor with a send case on this channel, before it sleeps. The second value is
    /// true if a wake-up is sure.
    pub(crate) fn before_sleep(&self, party: &Arc<Notify>) -> (Waiting, bool) {
        match &self.flavor {
            Sending::Buffer(tail) => (Waiting::ForRoom, tail.state().ask_for_room(party)),
            Sending::Rendezvous(end) => match end.meeting().offer(party, None) {
                Some(number) => (Waiting::Offer(number), true),
                None => (Waiting::Nothing, false),
            },
        }
    }

    /// Takes the registration back after that sleep. Returns true if the receiver has chosen the
    /// case.
    pub(crate) fn after_sleep(&self, party: &Arc<Notify>, waiting: Waiting) -> bool {
        match (&self.flavor, waiting) {
            (Sending::Buffer(tail), Waiting::ForRoom) => {
                tail.state().unask_for_room(party);
                false
            }
            (Sending::Rendezvous(end), Waiting::Offer(number)) => {
                end.meeting().end_offer(party, number)
            }
            _ => false,
        }
    }
}

fn offer(waiting: Waiting) -> Option<u64> {
    match waiting {
        Waiting::Offer(number) => Some(number),
        _ => None,
    }
}

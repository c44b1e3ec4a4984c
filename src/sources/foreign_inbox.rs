//! The driver's own events, as a source: what somebody else's poller found for somebody else's
//! sources.

use std::fmt;
use std::io;

use super::{Internals, IntoSource, RegisterError, Source, keyed};
use crate::driver::foreign::Events;
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::Readiness;

/// Events that the reactor's driver finds besides those of the reactor: registered
/// [`Events`]. A source of `E`s, each given once, in order.
///
/// While there are some that nobody has taken the driver looks for no more: take them all before
/// the loop sleeps for anything else.
#[must_use = "dropping the inbox drops the events of the driver"]
pub struct ForeignInbox<E> {
    events: Events<E>,
    slot: Slot,
}

/// Fails with [`io::ErrorKind::InvalidInput`] when the events are another driver's than the
/// reactor's, and with `AlreadyExists` when they are registered already.
impl<E> IntoSource for Events<E> {
    type Registered = ForeignInbox<E>;

    #[track_caller]
    fn register(
        self,
        handle: &Handle,
        key: Option<u64>,
    ) -> Result<ForeignInbox<E>, RegisterError<Self>> {
        if handle.is_closed() {
            return Err(RegisterError::new(self, handle.core.gone()));
        }
        if let Some(id) = self.bound_to() {
            let at = handle.core.made_at(id).map_or(String::new(), |at| format!(", at {at}"));
            let text =
                format!("the driver's events are registered already{at}: drop that source first");
            return Err(RegisterError::new(
                self,
                io::Error::new(io::ErrorKind::AlreadyExists, text),
            ));
        }
        let slot = Slot::new(handle, SourceKind::ForeignInbox);
        if let Some(key) = key {
            slot.set_key(key);
        }
        if let Err(error) = slot.register_events(self.id()) {
            return Err(RegisterError::new(self, error));
        }
        self.bind(slot.token());
        if self.len() > 0 {
            slot.found_by_driver();
        }
        Ok(ForeignInbox { events: self, slot })
    }
}

impl<E> ForeignInbox<E> {
    /// How many events there are to be taken now.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes those that are there now, without a turn of the reactor.
    pub fn try_iter(&self) -> impl Iterator<Item = E> + '_ {
        std::iter::from_fn(|| self.try_take())
    }
}

keyed!([E] ForeignInbox<E>, slot);

impl<E> Source for ForeignInbox<E> {
    type Item = E;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn try_take(&self) -> Option<E> {
        if !self.slot.is_ready() {
            return None;
        }
        let event = self.events.pop();
        if self.events.len() == 0 {
            self.slot.forget_readiness(Readiness::ALL);
        }
        if event.is_some() {
            self.slot.count();
        }
        event
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot)
    }
}

impl<E> Drop for ForeignInbox<E> {
    fn drop(&mut self) {
        self.slot.deregister_events();
        self.events.unbind();
    }
}

impl<E> fmt::Debug for ForeignInbox<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignInbox")
            .field("len", &self.len())
            .field("inert", &self.slot.is_inert())
            .finish_non_exhaustive()
    }
}

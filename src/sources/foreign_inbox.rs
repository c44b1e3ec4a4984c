//! A source of the foreign events that the reactor's driver finds for other code.

use std::io;

use super::{Internals, IntoSource, RegisterError, Source, common};
use crate::driver::foreign::Events;
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::Readiness;

/// The events that the reactor's driver finds for others: registered [`Events`]. A source of `E`s,
/// each given once, in order.
///
/// While events wait here, the driver looks for no more. Take them all before the loop sleeps for
/// anything else. The example of [`Queue`](crate::driver::foreign::Queue) has one.
#[must_use = "dropping the inbox drops the events of the driver"]
pub struct ForeignInbox<E> {
    events: Events<E>,
    slot: Slot,
}

/// The registration fails with [`io::ErrorKind::InvalidInput`] when the events belong to another
/// driver than the reactor's. It fails with `AlreadyExists` when they are registered already.
impl<E> IntoSource for Events<E> {
    type Registered = ForeignInbox<E>;

    #[track_caller]
    fn register(
        self,
        handle: &Handle,
        key: Option<u64>,
    ) -> Result<ForeignInbox<E>, RegisterError<Self>> {
        let (events, slot) = handle.slot_for(self, SourceKind::ForeignInbox, key)?;
        if let Some(id) = events.bound_to() {
            let at = handle.core.made_at(id).map_or(String::new(), |at| format!(", at {at}"));
            let text =
                format!("the driver's events are registered already{at}: drop that source first");
            let error = io::Error::new(io::ErrorKind::AlreadyExists, text);
            return Err(RegisterError::new(events, error));
        }
        if let Err(error) = slot.register_events(events.id()) {
            return Err(RegisterError::new(events, error));
        }
        events.bind(slot.token());
        if events.len() > 0 {
            slot.found_by_driver();
        }
        Ok(ForeignInbox { events, slot })
    }
}

impl<E> ForeignInbox<E> {
    /// The number of events that can be taken now.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns true if there is no event to take.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an iterator that takes the events that are there now, without a turn of the reactor.
    pub fn try_iter(&self) -> impl Iterator<Item = E> + '_ {
        std::iter::from_fn(|| self.try_take())
    }
}

common!([E] ForeignInbox<E>, |it| len: it.len());

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

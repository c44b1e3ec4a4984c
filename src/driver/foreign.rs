//! Events of a driver's own: what its poller found for somebody else, on the way to a
//! [`Source`](crate::Source).
//!
//! The driver keeps one end, the user registers the other. The list is bounded by the driver, which
//! looks for more only when it is empty: until then the rest waits in the kernel, where no edge is
//! lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::ReadyFds;
use crate::sys::Readiness;

/// The driver's end: it puts in what its poller found that is not the reactor's. Made by the
/// driver, which says in [`Driver::has_events`](super::Driver::has_events) that it has it.
///
/// Bounded if the driver keeps to this: while [`is_empty`](Self::is_empty) says no, it does not ask
/// the foreign poller for more, but waits for the reactor's own events only.
pub struct Queue<E> {
    shared: Rc<Shared<E>>,
}

/// The user's end: [registered](crate::Handle::register) with the reactor on that driver it is a
/// source of `E`s, a [`ForeignInbox`](crate::sources::ForeignInbox).
///
/// Register it before the first wait and before [`embed`](crate::Reactor::embed); what comes
/// earlier waits. When it is dropped, or never asked for, the driver drops its events.
#[must_use = "dropping the events leaves them to no source"]
pub struct Events<E> {
    shared: Rc<Shared<E>>,
}

/// Names a [`Queue`] while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventsId(usize);

struct Shared<E> {
    list: RefCell<VecDeque<E>>,
    /// That of the source, once it is registered.
    id: Cell<Option<u64>>,
}

impl<E> Shared<E> {
    fn id(self: &Rc<Self>) -> EventsId {
        EventsId(Rc::as_ptr(self).addr())
    }
}

impl<E> Queue<E> {
    /// An empty queue that allocates for `capacity` events now, and no more until there are more at
    /// once.
    pub fn with_capacity(capacity: usize) -> Queue<E> {
        let list = RefCell::new(VecDeque::with_capacity(capacity));
        Queue { shared: Rc::new(Shared { list, id: Cell::new(None) }) }
    }

    /// The user's end. There may be several, of which one at a time can be registered.
    pub fn events(&self) -> Events<E> {
        Events { shared: self.shared.clone() }
    }

    /// Puts an event in and makes the source ready. Without anybody to take it, ever, the event is
    /// dropped.
    pub fn push(&self, event: E, ready: &mut ReadyFds) {
        if Rc::strong_count(&self.shared) == 1 {
            return;
        }
        self.shared.list.borrow_mut().push_back(event);
        if let Some(id) = self.shared.id.get() {
            ready.push(id, Readiness::READABLE);
        }
    }

    /// Returns true if all have been taken.
    pub fn is_empty(&self) -> bool {
        self.shared.list.borrow().is_empty()
    }

    /// For [`Driver::has_events`](super::Driver::has_events).
    pub fn id(&self) -> EventsId {
        self.shared.id()
    }
}

impl<E> Events<E> {
    pub(crate) fn id(&self) -> EventsId {
        self.shared.id()
    }

    /// The source that some end of this queue is registered as.
    pub(crate) fn bound_to(&self) -> Option<u64> {
        self.shared.id.get()
    }

    /// Events go to the source with this id from now on.
    pub(crate) fn bind(&self, id: u64) {
        self.shared.id.set(Some(id));
    }

    /// The source is gone, and what it has not taken.
    pub(crate) fn unbind(&self) {
        self.shared.id.set(None);
        // Dropped when nothing is borrowed.
        drop(self.shared.list.take());
    }

    pub(crate) fn pop(&self) -> Option<E> {
        self.shared.list.borrow_mut().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.shared.list.borrow().len()
    }
}

impl<E> Drop for Events<E> {
    fn drop(&mut self) {
        // The last one, beside the driver's end.
        if Rc::strong_count(&self.shared) <= 2 {
            drop(self.shared.list.take());
        }
    }
}

impl_debug!([E] Queue<E>, |it| len: it.shared.list.borrow().len());
impl_debug!([E] Events<E>, |it| len: it.len());

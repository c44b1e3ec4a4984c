//! Foreign events, which a driver's poller finds for other code, and which become a
//! [`Source`](crate::Source).
//!
//! The driver keeps one end of a queue, and the user registers the other end. The driver bounds the
//! queue: it polls for more events only when the queue is empty. Until then the other events wait
//! in the kernel, which loses no edge.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::ReadyFds;
use crate::sys::Readiness;

/// The driver's end of the events for others. The driver makes the queue, and pushes the events
/// that do not belong to the reactor. [`Driver::has_events`](super::Driver::has_events) returns
/// true for this queue.
///
/// The driver bounds the queue. While [`is_empty`](Self::is_empty) is false it must not ask the
/// foreign poller for more, and waits for the reactor's own events only.
///
/// ```
/// use pollmux::driver::foreign::{EventsId, Queue};
/// use pollmux::driver::{Clock, Driver, Native, ReadyFds, Wait, Wake, WakeWindow};
/// use pollmux::{Reactor, select};
/// use std::{io, sync::Arc};
///
/// /// A driver that finds a number in every wait.
/// struct Numbers(Native, Queue<u32>, u32);
///
/// impl Driver for Numbers {
///     fn wait(
///         &mut self,
///         deadline: Option<WakeWindow>,
///         how: Wait,
///         ready: &mut ReadyFds,
///     ) -> io::Result<()> {
///         if self.1.is_empty() {
///             self.2 += 1;
///             self.1.push(self.2, ready);
///             return Ok(());
///         }
///         self.0.wait(deadline, how, ready)
///     }
///     fn waker(&self) -> Arc<dyn Wake> {
///         self.0.waker()
///     }
///     fn clock(&self) -> Clock {
///         self.0.clock()
///     }
///     fn has_events(&self, events: EventsId) -> bool {
///         events == self.1.id()
///     }
/// }
///
/// let queue = Queue::with_capacity(16);
/// let events = queue.events();
/// let reactor = Reactor::with_driver(Numbers(Native::new()?, queue, 0))?;
/// let numbers = reactor.register(events)?;
/// for expected in 1..=3 {
///     select! { reactor; recv(numbers) -> number => assert_eq!(number, expected) }
/// }
/// # io::Result::Ok(())
/// ```
pub struct Queue<E> {
    shared: Rc<Shared<E>>,
}

/// The user's end of the events for others. [Register](crate::Handle::register) it with the reactor
/// on that driver: then it is a source of `E`s, a [`ForeignInbox`](crate::sources::ForeignInbox).
///
/// Register it before the first wait and before [`embed`](crate::Reactor::embed). Earlier events
/// wait. When it is dropped, or never made, the driver drops its events. [`Queue`] has an example.
#[must_use = "dropping the events leaves them to no source"]
pub struct Events<E> {
    shared: Rc<Shared<E>>,
}

/// The name of a [`Queue`] while that lives. [`Queue`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventsId(usize);

struct Shared<E> {
    list: RefCell<VecDeque<E>>,
    /// The id of the registered source.
    id: Cell<Option<u64>>,
}

impl<E> Shared<E> {
    fn id(self: &Rc<Self>) -> EventsId {
        EventsId(Rc::as_ptr(self).addr())
    }
}

impl<E> Queue<E> {
    /// Makes an empty queue. Allocates for `capacity` events now, and then only when more events
    /// wait at once.
    pub fn with_capacity(capacity: usize) -> Queue<E> {
        let list = RefCell::new(VecDeque::with_capacity(capacity));
        Queue { shared: Rc::new(Shared { list, id: Cell::new(None) }) }
    }

    /// Makes a user's end. There may be several, and one at a time can be registered.
    pub fn events(&self) -> Events<E> {
        Events { shared: self.shared.clone() }
    }

    /// Adds an event and makes the source ready. Drops the event if there is no user's end.
    pub fn push(&self, event: E, ready: &mut ReadyFds) {
        if Rc::strong_count(&self.shared) == 1 {
            return;
        }
        self.shared.list.borrow_mut().push_back(event);
        if let Some(id) = self.shared.id.get() {
            ready.push(id, Readiness::READABLE);
        }
    }

    /// Returns true if all events have been taken.
    pub fn is_empty(&self) -> bool {
        self.shared.list.borrow().is_empty()
    }

    /// The name of the queue, for [`Driver::has_events`](super::Driver::has_events).
    pub fn id(&self) -> EventsId {
        self.shared.id()
    }
}

impl<E> Events<E> {
    pub(crate) fn id(&self) -> EventsId {
        self.shared.id()
    }

    /// Returns the id of the source that has an end of this queue.
    pub(crate) fn bound_to(&self) -> Option<u64> {
        self.shared.id.get()
    }

    /// Sends events to the source with this id from now on.
    pub(crate) fn bind(&self, id: u64) {
        self.shared.id.set(Some(id));
    }

    /// Forgets the source, which is gone, and drops the remaining events.
    pub(crate) fn unbind(&self) {
        self.shared.id.set(None);
        // The list is dropped while no cell is borrowed.
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
        // This is the last end beside the driver's.
        if Rc::strong_count(&self.shared) <= 2 {
            drop(self.shared.list.take());
        }
    }
}

impl_debug!([E] Queue<E>, |it| len: it.shared.list.borrow().len());
impl_debug!([E] Events<E>, |it| len: it.len());

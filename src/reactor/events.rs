//! The buffer of a wait, and its events.

use super::core::{Core, Handle};
use super::key::Key;
use super::parts::sites::{KindNumber, SourceKind};
use super::parts::slots::{Chunk, Flag, State};
use crate::sys::Readiness;

/// The buffer that [`Handle::wait`] fills. It allocates once, when it is made.
///
/// ```
/// use pollmux::{Events, Reactor};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let timers = [1, 2, 3].map(|key| reactor.after(Duration::ZERO).with_key(key));
/// let mut events = Events::with_capacity(2); // at most 2 a wait
/// reactor.wait(&mut events)?;
/// assert!(events.len() == 2 && !events.is_empty());
/// let mut keys = Vec::new();
/// for event in events.iter() {
///     timers[2].stop(); // skips its event, if it is still to come
///     keys.push(event.key());
/// }
/// assert_eq!(keys, [1, 2]);
/// # std::io::Result::Ok(())
/// ```
pub struct Events {
    pub(super) tokens: Vec<u64>,
    pub(super) capacity: usize,
    pub(super) from: Option<Handle>,
}

/// A source that was ready when the wait ended, and is still ready.
///
/// ```
/// use pollmux::{Events, Reactor, reactor::SourceKind};
///
/// let reactor = Reactor::new()?;
/// let (tx, inbox) = reactor.channel_with((3, 4), 1)?;
/// tx.send("hello").unwrap();
/// let mut events = Events::new();
/// reactor.wait(&mut events)?;
/// for event in &events {
///     assert_eq!((event.kind(), event.split_key()), (SourceKind::Inbox, (3, 4)));
///     assert_eq!(event.key(), inbox.key());
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    key: u64,
    readiness: Readiness,
    kind: KindNumber,
}

impl Event {
    /// The key of the source, which `with_key` or `register_with` has set.
    #[inline]
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The kind and the index of the [`key`](Self::key): see [`Key`]. The kind is 2^31 or more if
    /// you gave the source no key.
    #[inline]
    pub fn split_key(&self) -> (u32, u32) {
        Key::from(self.key).into()
    }

    /// The kind of the source. An event of a [`SourceKind::Outbox`] means that there is room, or
    /// that the receiver is gone.
    #[inline]
    pub fn kind(&self) -> SourceKind {
        self.kind.kind()
    }

    /// The readiness of an [`Fd`](crate::Fd) when the iterator comes to the event, as
    /// [`Fd::readiness`](crate::Fd::readiness) gives it. [`Readiness::READABLE`] for signals, a
    /// child and an OS timer, which have fds of their own. [`Readiness::NONE`] for other sources.
    ///
    /// ```
    /// use pollmux::{Events, Reactor, sys::Interest};
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::new()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let stream = reactor.fd(ours, Interest::BOTH)?.with_key(7);
    /// theirs.write_all(b"hello")?;
    ///
    /// let mut events = Events::new();
    /// reactor.wait(&mut events)?;
    /// for event in &events {
    ///     assert_eq!(event.key(), 7);
    ///     if event.is_readable() {
    ///         println!("{} bytes", stream.try_io(|mut stream| stream.read(&mut [0; 64]))?);
    ///     }
    ///     assert!(event.is_writable());
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// Returns true if the [`readiness`](Self::readiness) says that a read would not block.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.readiness.is_readable()
    }

    /// Returns true if the [`readiness`](Self::readiness) says that a write would not block.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.readiness.is_writable()
    }
}

impl Events {
    /// The capacity of [`new`](Self::new).
    const CAPACITY: usize = 1_024;

    /// Makes a buffer for at most 1,024 events a wait.
    pub fn new() -> Events {
        Events::with_capacity(Self::CAPACITY)
    }

    /// Makes a buffer for at most `capacity` events a wait. Zero counts as one.
    pub fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.max(1);
        Events { tokens: Vec::with_capacity(capacity), capacity, from: None }
    }

    /// Iterates over the events of the last wait. Skips sources that were stopped, reset, drained
    /// or dropped meanwhile.
    pub fn iter(&self) -> Iter<'_> {
        Iter { tokens: self.tokens.iter(), from: self.from.as_ref(), prints: false }
    }

    /// Returns the number of events of the last wait, with those that the iterator would skip.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns true if the last wait found nothing.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl Default for Events {
    /// [`Events::new`].
    fn default() -> Events {
        Events::new()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The iterator of [`Events::iter`]. It looks at each source when it comes to it, so the code for
/// one event may stop another. [`Events`] has an example.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    tokens: std::slice::Iter<'a, u64>,
    from: Option<&'a Handle>,
    /// The events are printed and not handled: an outbox goes on asking to be told of room.
    prints: bool,
}

impl Iterator for Iter<'_> {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        let core = &self.from?.core;
        self.tokens.by_ref().find_map(|&token| event(core, token, self.prints))
    }
}

/// Returns the event of this token, unless its source has nothing to tell any more.
fn event(core: &Core, token: u64, prints: bool) -> Option<Event> {
    let table = core.table.borrow();
    let (chunk, slot) = table.slots.find(token)?;
    let node = chunk.node(slot);
    let is_plain = node.state.get() == State::Ready && !node.is(Flag::Once);
    if !is_plain && !tells(chunk, slot, prints) {
        return None;
    }
    let kind = node.site.get().kind_number();
    let readiness = chunk.fds.get(slot).map_or(Readiness::NONE, |fd| fd.found.get());
    Some(Event { key: chunk.key(slot), readiness, kind })
}

/// A source that is not ready, or tells something once: returns true if the user comes to an event.
#[cold]
#[inline(never)]
fn tells(chunk: &Chunk<Core>, slot: u32, prints: bool) -> bool {
    if chunk.node(slot).state.get() != State::Ready {
        // A nested wait may have taken it out of the ready list.
        return chunk.fds.get(slot).is_some_and(|fd| fd.is_told());
    }
    prints || chunk.with_probe(slot, |probe| probe.tell()) != Some(false)
}

impl_fmt!(Debug, [] Events, |it, f| {
    f.debug_list().entries(Iter { prints: true, ..it.iter() }).finish()
});

//! Keys that are made of a kind and an index.

/// The key of a source, for [`wait`](crate::Handle::wait): a number, or two in one.
///
/// A loop with many sources of a few kinds makes each key of both. The kind selects the code for
/// the event, and the index names the client. Every method that takes a key takes such a pair, a
/// `u64` or a `Key`, and [`Event::split_key`](crate::Event::split_key) gives the pair back.
///
/// As a `u64` the kind is in the upper 32 bits, so an index alone is a key of kind 0. Keep kinds
/// below 2^31. Sources without a key of yours have keys above that.
///
/// ```
/// use pollmux::{Events, Key, Reactor};
/// use std::time::Duration;
///
/// const STOP: u32 = 0;
/// const IDLE: u32 = 1;
///
/// let reactor = Reactor::with_driver(pollmux::Sim::new())?;
/// let clients: Vec<_> =
///     (0..3).map(|i| reactor.after(Duration::from_secs(1)).with_key((IDLE, i))).collect();
/// let stop = reactor.after(Duration::from_secs(2)).with_key((STOP, 0));
///
/// let (mut events, mut idle) = (Events::new(), Vec::new());
/// 'serving: loop {
///     reactor.wait(&mut events)?;
///     for event in &events {
///         match event.split_key() {
///             (STOP, _) => break 'serving,
///             (IDLE, client) => {
///                 clients[client as usize].stop();
///                 idle.push(client);
///             }
///             _ => unreachable!("no other kind was given"),
///         }
///     }
/// }
/// assert_eq!(idle, [0, 1, 2]);
/// let key = Key::from(stop.key());
/// assert_eq!((key, key.kind(), key.index()), (Key::new(STOP, 0), STOP, 0));
/// assert_eq!(Key::new(1, 2).get(), 1 << 32 | 2);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    // In this order: keys compare as their numbers do.
    kind: u32,
    index: u32,
}

impl Key {
    /// Makes a key of a kind and an index.
    pub const fn new(kind: u32, index: u32) -> Key {
        Key { kind, index }
    }

    /// The kind.
    pub const fn kind(self) -> u32 {
        self.kind
    }

    /// The index.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The key as a number, with the kind in the upper 32 bits.
    pub const fn get(self) -> u64 {
        (self.kind as u64) << 32 | self.index as u64
    }
}

impl From<u64> for Key {
    fn from(key: u64) -> Key {
        Key { kind: (key >> 32) as u32, index: key as u32 }
    }
}

impl From<(u32, u32)> for Key {
    fn from((kind, index): (u32, u32)) -> Key {
        Key { kind, index }
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> u64 {
        key.get()
    }
}

impl From<Key> for (u32, u32) {
    fn from(key: Key) -> (u32, u32) {
        (key.kind, key.index)
    }
}

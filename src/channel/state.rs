//! The part of a buffered channel that both ends share and that knows no message type.
//!
//! # Positions
//! Every message has a position, counted from 0 modulo 2^48. `tail` is the next position that a
//! sender claims. `head` is the first position that was not received. One word holds the tail, two
//! flags and 14 more bits, so that claims, closing and changes of those bits exclude each other:
//!
//! ```text
//!   63      62    61 .. 48                                         47 .. 0
//!   closed  gone  bounded: permits given out; unbounded: rings     tail
//! ```
//! - Bounded: full is `tail - head + permits == capacity`. A *permit* is room for one message
//!   without a place in the order: its owner can send for sure, and holds nobody else up.
//! - Unbounded: 7 bits are the number of the ring that the tail is in (`ring.rs`): its side and its
//!   level. The level says how large the ring is. 5 bits are the base, the first level of the side.
//!   A claim that finds the ring full goes to the next level. A claim in a ring that was nearly
//!   empty for a second goes to a smaller ring on the other side. A receiver that finds such a
//!   channel empty does so, too (`usage.rs`).
//!
//! # Detours
//! A sender may stall between its claim and its stamp: its message is *coming*. The receiver
//! waits for no message that is coming. It takes the first written message behind them, *out of
//! turn*, and leaves a mark in that slot. The head stays where it is until the message there was
//! taken. Then the head passes all messages that were taken behind it.
//!
//! So the order is that of sends that do not overlap in time: a send that has returned before
//! another one began is received before it. To see that, let q be the position that a look has
//! found. The look, or one before it, has read the tail, and q was claimed before that. Every send
//! that returned before q's send began has stored its stamp before q was claimed. So the look sees
//! all those stamps; it goes through the positions in order and takes the first written one. Of
//! sends that overlap either may come first.
//!
//! # Who waits for what
//! - The receiver waits for stamps, through `request`; the protocol is in `wake/mod.rs`.
//! - Senders wait for `head` to move, in `room`. The receiver stores `head` and then reads how many
//!   wait. A sender registers and then reads `head`. One of them must see the other, which takes a
//!   full fence on both sides. The receiver's fence is in every `recv`, so it is the light side of
//!   an asymmetric fence (`sys/fence.rs`). The sender's fence precedes a sleep.

use std::num::NonZeroU64;

use super::detour::Detour;
use super::pace::Pace;
use super::ring::Rings;
use super::room::Room;
use super::target::{Target, Targets};
use super::usage::Usage;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, Padded, init_fences};
use crate::wake::{Asked, RequestCell};

/// The receiver is gone: nothing can be claimed any more.
pub(super) const CLOSED: u64 = 1 << 63;
/// Every sender is gone: no more messages will come.
pub(super) const GONE: u64 = 1 << 62;
pub(super) const POSITION: u64 = (1 << 48) - 1;
/// In the head: messages behind it were taken out of turn. No stamp has this bit. So the comparison
/// of a stamp with the head fails, and the slow path is taken.
pub(super) const DETOUR: u64 = 1 << 48;

/// One permit, or one level.
pub(super) const UNIT: u64 = 1 << 48;
pub(super) const UNITS: u64 = (1 << 14) - 1;

/// The largest capacity: half of the positions, so that "behind" and "ahead" differ.
pub(super) const MAX_CAPACITY: usize =
    if usize::BITS >= 64 { (POSITION >> 1) as usize } else { usize::MAX >> 1 };

/// The slots of the first ring of an unbounded channel; each level doubles them.
pub(super) const FIRST_LEVEL: usize = if cfg!(all(loom, test)) { 1 } else { 32 };
pub(super) const LEVELS: usize = if cfg!(all(loom, test)) { 4 } else { 32 };
pub(super) const LEVEL_BITS: u32 = if cfg!(all(loom, test)) { 2 } else { 6 };
/// The level in the number of a ring. (Not fewer bits: a shift takes its count modulo 64.)
pub(super) const LEVEL: usize = (1 << LEVEL_BITS) - 1;
/// The side in the number of a ring.
pub(super) const SIDE: usize = 1 << LEVEL_BITS;
/// The number of a ring: side and level.
pub(super) const RING: usize = SIDE | LEVEL;
/// The lowest bit of the base, above the number.
pub(super) const BASE: u32 = LEVEL_BITS + 1;

/// The shared part of a buffered channel. The module's text describes it.
///
/// One channel of many has none of its lines in the cache. So the order of the fields keeps what a
/// message needs in three lines: what senders write, what the receiver writes, and what stays.
#[repr(C)]
pub(crate) struct State {
    /// The words that senders write, and those that they read after that.
    pub(super) front: Front,
    /// The receiver's request for news of the next message.
    pub(super) request: RequestCell,
    pub(super) targets: Targets,
    pub(super) senders: AtomicUsize,
    /// Keeps the words of the two sides apart.
    _apart: Padded<()>,
    /// The words that the receiver writes, and those that it reads after that.
    pub(super) back: Back,
    pub(super) room: Room,
    /// Begins the line of what stays.
    _stays: Padded<()>,
    /// `None`: unbounded.
    pub(super) capacity: Option<NonZeroU64>,
    pub(super) rings: Rings,
    /// The memory of detours. Only the receiver locks it.
    pub(super) detour: Mutex<Detour>,
    /// The most slots that were used of late, for the rule by which a ring shrinks.
    pub(super) usage: Mutex<Usage>,
    #[cfg(all(loom, test))]
    pub(super) shrinks: std::sync::atomic::AtomicBool,
}

#[repr(C)]
pub(super) struct Back {
    /// The head, and the bit of a detour.
    pub(super) head: AtomicU64,
    pub(super) pace: Pace,
}

pub(super) struct Front {
    pub(super) tail: AtomicU64,
    /// A `head` that some sender has read. A sender reads the receiver's line only when the channel
    /// looks full by this value.
    pub(super) head_seen: AtomicU64,
}

/// The reason why a position was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

pub(super) fn behind(head: u64, tail: u64) -> u64 {
    tail.wrapping_sub(head) & POSITION
}

pub(super) fn is_ahead(position: u64, head: u64) -> bool {
    behind(position, head) > POSITION >> 1
}

/// Returns the 14 bits between flags and tail.
#[inline]
pub(super) fn units(word: u64) -> u64 {
    (word / UNIT) & UNITS
}

/// Returns the number of the tail's ring in the word of an unbounded channel.
#[inline]
pub(super) fn ring(word: u64) -> usize {
    units(word) as usize & RING
}

#[inline]
pub(super) fn slots(ring: usize) -> u64 {
    (FIRST_LEVEL as u64) << (ring & LEVEL)
}

/// Returns the first level of the tail's side, in the bits between flags and tail.
pub(super) fn base(rings: usize) -> usize {
    rings >> BASE
}

impl State {
    pub(super) fn new(capacity: Option<usize>, rings: Rings) -> State {
        init_fences();
        State {
            front: Front { tail: AtomicU64::new(0), head_seen: AtomicU64::new(0) },
            request: RequestCell::new(),
            targets: Targets::new(),
            senders: AtomicUsize::new(1),
            _apart: Padded(()),
            back: Back { head: AtomicU64::new(0), pace: Pace::default() },
            room: Room::new(),
            _stays: Padded(()),
            capacity: capacity.and_then(|n| NonZeroU64::new(n as u64)),
            rings,
            detour: Mutex::default(),
            usage: Mutex::new(Usage::new()),
            #[cfg(all(loom, test))]
            shrinks: false.into(),
        }
    }

    #[inline(always)]
    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Returns the position behind this one.
    pub(super) fn after(&self, position: u64) -> u64 {
        (position + 1) & POSITION
    }

    /// Returns the tail, and its rings: the number of its ring, and the base of that side.
    pub(super) fn claimed(&self) -> (u64, usize) {
        let word = self.front.tail.load(Ordering::SeqCst);
        (word & POSITION, self.rings_of(word))
    }

    #[inline]
    pub(super) fn rings_of(&self, word: u64) -> usize {
        if self.capacity.is_some() { 0 } else { units(word) as usize }
    }

    #[inline]
    pub(super) fn ring_of(&self, word: u64) -> usize {
        if self.capacity.is_some() { 0 } else { ring(word) }
    }

    #[inline(always)]
    pub(super) fn is_full_at(&self, word: u64, head: u64) -> bool {
        let used = behind(head, word & POSITION);
        match self.capacity {
            Some(capacity) => used + units(word) >= capacity.get(),
            None => used >= slots(ring(word)),
        }
    }

    /// Returns true if a message would be refused because there is no room.
    pub(super) fn is_full(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        self.capacity.is_some() && self.is_full_at(word, self.back.head.load(Ordering::SeqCst))
    }

    /// Returns true if [`claim_permit`](Self::claim_permit) would not say "full": there is room,
    /// and fewer permits are out than can be counted.
    pub(super) fn has_permit(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        self.capacity.is_none()
            || units(word) < UNITS && !self.is_full_at(word, self.back.head.load(Ordering::SeqCst))
    }

    /// Takes step 5 of a sender, after its stamp and the publishing fence.
    #[inline(always)]
    pub(super) fn asked(&self) -> Asked {
        self.request.read()
    }

    /// Wakes `n` threads and every reactor that waits for room. Waits for nobody.
    #[cold]
    #[inline(never)]
    pub(super) fn wake_senders(&self, n: usize) {
        self.room.wake(n);
    }

    /// Returns the head, with the bit of a detour.
    #[inline(always)]
    pub(super) fn head(&self) -> u64 {
        self.back.head.load(Ordering::Relaxed)
    }

    /// Returns the first position that was not received.
    pub(super) fn head_position(&self) -> u64 {
        self.back.head.load(Ordering::Acquire) & POSITION
    }

    /// Returns true if there is no message, none is coming, and a sender is there.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        // The head never has the bit of the end.
        (self.front.tail.load(Ordering::SeqCst) ^ self.head()) & (POSITION | GONE) == 0
    }

    pub(crate) fn is_bounded(&self) -> bool {
        self.capacity.is_some()
    }

    /// Returns true if a look may find a message, the end, or memory to give back.
    #[inline(always)]
    pub(crate) fn has_news(&self) -> bool {
        !self.is_quiet() || self.rings.is_large()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & GONE != 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Names the party that is told of messages. Later requests are answered there.
    ///
    /// Takes back the request of the party before. A sender that is stalled may be about to tell
    /// that party, and then takes the request away. So that request must not serve the next party,
    /// too.
    pub(super) fn set_target(&self, target: Option<Target>) {
        self.request.silence();
        if target.is_none() && self.capacity.is_none() {
            self.follow(None);
        }
        self.targets.set(target);
    }

    /// Takes a `Request::Wake` back, after the sleep.
    #[inline]
    pub(super) fn unask(&self) {
        self.request.unask();
    }

    pub(super) fn len(&self) -> usize {
        // Reads the tail first. A head that is read later may be past the tail. In the other order
        // the tail could be ahead by all messages that came in between.
        let word = self.front.tail.load(Ordering::SeqCst);
        if word & CLOSED != 0 {
            return 0;
        }
        let tail = word & POSITION;
        let head = self.back.head.load(Ordering::SeqCst);
        let len = behind(head, tail);
        if len > POSITION >> 1 {
            0
        } else {
            len.min(self.capacity.map_or(len, NonZeroU64::get)) as usize
        }
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity.map(|n| n.get() as usize)
    }
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn the_words_of_a_message_share_three_lines() {
        let line = |offset: usize| offset / 64;
        let [front, back] = [offset_of!(State, front), offset_of!(State, back)].map(line);
        let targets = offset_of!(State, targets);
        let read_by_senders = [offset_of!(State, request), targets, targets + Targets::HOT - 1];
        assert_eq!(read_by_senders.map(line), [front; 3]);
        assert_eq!(line(offset_of!(State, room)), back);
        let stays =
            [offset_of!(State, capacity), offset_of!(State, rings) + size_of::<Rings>() - 1];
        assert_eq!(line(stays[0]), line(stays[1]));
        assert!(front < back && back < line(stays[0]));
        assert!(line(offset_of!(State, usage)) > line(stays[1]));
    }
}

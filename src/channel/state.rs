//! The part of a buffered channel that both ends share and that knows no message type.
//!
//! # Positions
//! Every message has a position, counted from 0 modulo 2^48. `tail` is the next one to be claimed
//! by a sender; `head` is the first one that was not received. One word holds the tail, two flags
//! and 14 bits more, so that claiming, closing and what those bits say exclude each other:
//!
//! ```text
//!   63      62    61 .. 48                                         47 .. 0
//!   closed  gone  bounded: permits given out; unbounded: rings     tail
//! ```
//! - Bounded: full is `tail - head + permits == capacity`. A *permit* is room for one message
//!   without a place in the order: its owner can send for sure, and holds nobody else up.
//! - Unbounded: 7 bits are the number of the ring that the tail is in (`ring.rs`), its side and its
//!   level. The level says how large the ring is. 5 bits are the base, the first level of the side.
//!   A claim that finds the ring full goes to the next level. A claim in a ring that was nearly
//!   empty for a second goes to a smaller ring on the other side, and so does a receiver that finds
//!   such a channel empty (`usage.rs`).
//!
//! # Detours
//! A sender may stand still between its claim and its stamp: its message is *coming*. The receiver
//! waits for none of those. It takes the first written message behind them, *out of turn*, and
//! leaves a mark in that slot. The head stays where it is until the message there was taken, and
//! then passes all that was taken behind it.
//!
//! So the order is that of sends that do not overlap in time: a send that has returned before
//! another one began is received before it. To see that, let q be the position that a look has
//! found. The look reads the tail first, and q was claimed before that. Every send that returned
//! before q's send began has stored its stamp before q was claimed. So the look sees all those
//! stamps; it goes through the positions in order and takes the first written one. Of sends that
//! overlap either may come first.
//!
//! # Who waits for what
//! - The receiver waits for stamps, through `request`; the protocol is in `wake/mod.rs`.
//! - Senders wait for `head` to move, in `room`. The receiver stores `head` and then reads
//!   how many wait; a sender registers and then reads `head`: one of them must see the other,
//!   which takes a full fence on both sides. The receiver's is in every `recv`, so it is the light
//!   side of an asymmetric fence (`sys/fence.rs`); the sender's precedes a sleep.
//!
//! Longer than 500 lines: nearly all of it is one type, whose words are changed
//! together and whose orderings are argued in one place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::{Rings, Written};
use super::room::{Kind, Left, Room};
use super::target::{Target, Targets};
use super::usage::{Usage, VirtualNow, Watch};
use crate::sync::{
    AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Padded, fence, heavy_fence, init_fences,
    light_fence, wait_briefly,
};
use crate::sys::Time;
use crate::wake::{Asked, Look, Notify, Probe, Request, RequestCell};

/// The receiver is gone: nothing can be claimed any more.
const CLOSED: u64 = 1 << 63;
/// Every sender is gone: nothing more will come.
const GONE: u64 = 1 << 62;
const POSITION: u64 = (1 << 48) - 1;
/// In the head: messages behind it were taken out of turn. No stamp has this bit, so a comparison
/// of the head's stamp with the head fails, and the slow way is taken.
const DETOUR: u64 = 1 << 48;

/// One permit, or one level.
const UNIT: u64 = 1 << 48;
const UNITS: u64 = (1 << 14) - 1;

/// The largest capacity: half of the positions, so that "behind" and "ahead" differ.
pub(super) const MAX_CAPACITY: usize =
    if usize::BITS >= 64 { (POSITION >> 1) as usize } else { usize::MAX >> 1 };

/// How many slots the first ring of an unbounded channel has; each level doubles them.
pub(super) const FIRST_LEVEL: usize = if cfg!(all(loom, test)) { 1 } else { 32 };
pub(super) const LEVELS: usize = if cfg!(all(loom, test)) { 4 } else { 32 };
const LEVEL_BITS: u32 = if cfg!(all(loom, test)) { 2 } else { 6 };
/// The level in the number of a ring. (Not fewer bits: a shift takes its count modulo 64.)
pub(super) const LEVEL: usize = (1 << LEVEL_BITS) - 1;
/// The side in the number of a ring.
pub(super) const SIDE: usize = 1 << LEVEL_BITS;
/// The number of a ring: side and level.
pub(super) const RING: usize = SIDE | LEVEL;
/// Where the base is, above the number.
const BASE: u32 = LEVEL_BITS + 1;

/// See the module's text.
pub(crate) struct State {
    /// The words that senders write.
    front: Padded<Front>,
    /// The head, and the bit of a detour. The receiver writes it.
    head: Padded<AtomicU64>,
    /// `None`: unbounded.
    capacity: Option<u64>,
    /// The receiver's request for news of the next message.
    request: RequestCell,
    rings: Rings,
    targets: Targets,
    senders: AtomicUsize,
    room: Room,
    /// Only the receiver looks at it.
    detour: Mutex<Detour>,
    /// How full the ring was.
    usage: Mutex<Usage>,
    #[cfg(all(loom, test))]
    pub(super) shrinks: std::sync::atomic::AtomicBool,
}

struct Front {
    tail: AtomicU64,
    /// A `head` that some sender has read. Only when the channel looks full by it is the receiver's
    /// line read.
    head_seen: AtomicU64,
}

/// How many unwritten positions a detour remembers.
const HOLES: usize = 6;

/// The receiver's memory of the positions behind the head.
struct Detour {
    /// Messages that were taken out of turn.
    taken: usize,
    /// The positions before this one are taken, or are holes.
    ahead: u64,
    /// Positions that were found unwritten, the lowest first.
    holes: [u64; HOLES],
    len: usize,
}

/// The outcome of the receiver's search.
pub(super) enum Found {
    Message(Written),
    /// Every sender is gone, and the channel is empty.
    End,
    /// Nothing, and nothing is coming.
    Nothing,
    /// Only claimed positions without a message.
    Coming,
}

/// Why a position was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// A claimed position, and where its slot is: the right to write it, once.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: u64,
    /// The number of the ring.
    pub(super) ring: usize,
    /// True for the first position of a ring, but for the channel's first ring.
    pub(super) first_of_ring: bool,
}

/// A ring that is to replace a larger one. It goes again if the tail does not go there.
struct Smaller<'a> {
    state: &'a State,
    /// Its number and the base of its side, as the tail's word has them.
    rings: usize,
    is_used: bool,
    _guard: MutexGuard<'a, Usage>,
}

impl Smaller<'_> {
    /// The bits above the position of a word that goes there.
    fn upper(&self, word: u64) -> u64 {
        word & !POSITION & !(UNITS * UNIT) | (self.rings as u64 * UNIT)
    }

    /// The tail has gone there.
    fn keep(mut self) {
        self.is_used = true;
    }
}

impl Drop for Smaller<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            // SAFETY: the tail is not on this side, and nobody else brings it there while we have
            // the lock.
            #[allow(unsafe_code)]
            unsafe {
                self.state.rings.remove(self.rings & RING);
            }
        }
    }
}

fn behind(head: u64, tail: u64) -> u64 {
    tail.wrapping_sub(head) & POSITION
}

/// Returns true if a position comes after the head.
pub(super) fn is_ahead(position: u64, head: u64) -> bool {
    behind(position, head) > POSITION >> 1
}

/// The 14 bits between flags and tail.
#[inline]
fn units(word: u64) -> u64 {
    (word / UNIT) & UNITS
}

/// The number of the tail's ring in the word of an unbounded channel.
#[inline]
fn ring(word: u64) -> usize {
    units(word) as usize & RING
}

/// How many slots a ring has.
#[inline]
fn slots(ring: usize) -> u64 {
    (FIRST_LEVEL as u64) << (ring & LEVEL)
}

/// The first level of the tail's side, in the bits between flags and tail.
pub(super) fn base(rings: usize) -> usize {
    rings >> BASE
}

impl State {
    pub(super) fn new(capacity: Option<usize>, rings: Rings) -> State {
        init_fences();
        State {
            front: Padded(Front { tail: AtomicU64::new(0), head_seen: AtomicU64::new(0) }),
            head: Padded(AtomicU64::new(0)),
            capacity: capacity.map(|n| n as u64),
            request: RequestCell::new(),
            rings,
            targets: Targets::new(),
            senders: AtomicUsize::new(1),
            room: Room::new(),
            detour: Mutex::new(Detour { taken: 0, ahead: 0, holes: [0; HOLES], len: 0 }),
            usage: Mutex::new(Usage::new()),
            #[cfg(all(loom, test))]
            shrinks: false.into(),
        }
    }

    #[inline(always)]
    pub(super) fn rings(&self) -> &Rings {
        &self.rings
    }

    /// The position behind this one.
    pub(super) fn after(&self, position: u64) -> u64 {
        (position + 1) & POSITION
    }

    /// The tail, and its rings: the number of its ring, and the base of that side.
    pub(super) fn claimed(&self) -> (u64, usize) {
        let word = self.front.tail.load(Ordering::SeqCst);
        (word & POSITION, self.rings_of(word))
    }

    #[inline]
    fn rings_of(&self, word: u64) -> usize {
        if self.capacity.is_some() { 0 } else { units(word) as usize }
    }

    #[inline]
    fn ring_of(&self, word: u64) -> usize {
        if self.capacity.is_some() { 0 } else { ring(word) }
    }

    // The senders' side.

    /// Claims the next position. The compare-and-swap makes the message known, as coming, to a
    /// receiver that is about to sleep.
    ///
    /// An unbounded channel that is full goes to the next level, after its ring was made.
    #[inline]
    pub(super) fn claim(&self) -> Result<Place, Refused> {
        self.advance(|_| 1)
    }

    /// Claims the next position with a permit, which is used up.
    pub(super) fn claim_permitted(&self) -> Result<Place, Refused> {
        if self.capacity.is_none() {
            return self.claim();
        }
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let next = (word & !POSITION | (word + 1) & POSITION) - UNIT;
            match self.front.tail.compare_exchange_weak(
                word,
                next,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    if units(word) == UNITS {
                        self.call_for_permit();
                    }
                    return Ok(Place { position: word & POSITION, ring: 0, first_of_ring: false });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes a permit. An unbounded channel gives them without counting.
    pub(super) fn take_permit(&self) -> Result<(), Refused> {
        match self.capacity {
            None if self.is_closed() => Err(Refused::Closed),
            None => Ok(()),
            Some(_) => self.advance(|word| if units(word) == UNITS { 0 } else { UNIT }).map(|_| ()),
        }
    }

    /// Gives an unused permit back: there is room for somebody else.
    pub(super) fn return_permit(&self) {
        if self.capacity.is_some() {
            self.front.tail.fetch_sub(UNIT, Ordering::SeqCst);
            self.call_for_permit();
        }
    }

    /// After the number of permits went down: a send case may wait for that.
    #[cold]
    #[inline(never)]
    fn call_for_permit(&self) {
        fence(Ordering::SeqCst);
        if self.room.is_awaited_now() {
            self.call_senders(1);
        }
    }

    /// Adds `step(word)` to the word if the channel is open and has room; a step of 0 is "full"
    /// too.
    #[inline(always)]
    fn advance(&self, step: impl Fn(u64) -> u64) -> Result<Place, Refused> {
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let add = step(word);
            // Acquire, here and below: the receiver has read the slot's last value before the
            // sender writes the next.
            if add == 0 || self.is_full_at(word, self.front.head_seen.load(Ordering::Acquire)) {
                return self.advance_slowly(step);
            }
            match self.add(word, word & !POSITION, add) {
                Ok(next) => {
                    let (position, ring) = (word & POSITION, self.ring_of(next));
                    return Ok(Place { position, ring, first_of_ring: false });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Adds a step to a word, which gets these bits above the position.
    #[inline(always)]
    fn add(&self, word: u64, upper: u64, step: u64) -> Result<u64, u64> {
        let position = word & POSITION;
        // A step in the lower bits wraps within them, one in the upper bits is added to them.
        let next = if step < UNIT {
            upper | ((position + step) & POSITION)
        } else {
            (upper + step) | position
        };
        self.front
            .tail
            .compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed)
            .map(|_| next)
    }

    /// [`advance`](Self::advance) of a channel that looks full by the head that was seen last. An
    /// unbounded one goes to another ring if it has to.
    #[cold]
    #[inline(never)]
    fn advance_slowly(&self, step: impl Fn(u64) -> u64) -> Result<Place, Refused> {
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let head = self.head.load(Ordering::Acquire);
            let full = self.is_full_at(word, head);
            let (seen, smaller) = match self.capacity {
                None if !full => self.look_at_usage(word, head),
                _ => (head, None),
            };
            self.front.head_seen.store(seen, Ordering::Release);
            let add = step(word);
            let (upper, moves) = if let Some(smaller) = &smaller {
                (smaller.upper(word), true)
            } else if !full && add != 0 {
                (word & !POSITION, false)
            } else {
                let again = self.front.tail.load(Ordering::Acquire);
                if again != word {
                    word = again;
                    continue;
                }
                if self.capacity.is_some() {
                    return Err(Refused::Full);
                }
                self.rings.prepare(ring(word) + 1);
                ((word & !POSITION) + UNIT, true)
            };
            match self.add(word, upper, add) {
                Ok(next) => {
                    if let Some(smaller) = smaller {
                        smaller.keep();
                    }
                    let (position, ring) = (word & POSITION, self.ring_of(next));
                    return Ok(Place { position, ring, first_of_ring: moves });
                }
                Err(now) => word = now,
            }
        }
    }

    /// A sender has found that the ring is full by the head that was seen last, and not by the real
    /// one. Returns the head to be seen by the next senders. If the ring is to be replaced by a
    /// smaller one, also that one.
    fn look_at_usage(&self, word: u64, head: u64) -> (u64, Option<Smaller<'_>>) {
        let (from, used) = (ring(word), behind(head, word & POSITION));
        if from & LEVEL <= self.rings.kept_level() {
            return (head, None);
        }
        let watch = self.watch(from, used);
        let smaller = watch.enough.and_then(|enough| self.prepare_smaller(from, enough));
        (self.head_for(from, head, watch), smaller)
    }

    /// Looks how long the ring has been nearly empty.
    #[cfg(not(all(loom, test)))]
    fn watch(&self, ring: usize, used: u64) -> Watch {
        let least = (slots(self.rings.kept_level()) / 8).max(1);
        match self.usage.try_lock() {
            Some(mut usage) => usage.look(ring, slots(ring), used, least),
            None => Watch { window: Some((2 * used).max(least)), enough: None },
        }
    }

    /// In the models there is no time: rings shrink at once where the model wants it.
    #[cfg(all(loom, test))]
    fn watch(&self, ring: usize, used: u64) -> Watch {
        let shrinks = self.shrinks.load(std::sync::atomic::Ordering::Relaxed);
        let enough = (shrinks && 2 * used < slots(ring)).then_some(2 * used);
        Watch { window: shrinks.then_some(used), enough }
    }

    /// A head that makes the ring look full when the window of the watch is used.
    fn head_for(&self, ring: usize, head: u64, watch: Watch) -> u64 {
        let back = watch.window.map_or(0, |window| slots(ring).saturating_sub(window));
        (head & POSITION).wrapping_sub(back) & POSITION
    }

    /// Makes a ring of at least so many slots on the other side, if that is smaller than this one,
    /// which is the tail's and read by the receiver. One thread at a time does that.
    fn prepare_smaller(&self, from: usize, enough: u64) -> Option<Smaller<'_>> {
        let kept = self.rings.kept_level();
        let to = (kept..from & LEVEL).find(|&level| slots(level) >= enough)?;
        let guard = self.usage.try_lock()?;
        // Otherwise the other side may be in use. While we have the lock nobody goes there.
        if self.rings.reading() != from || ring(self.front.tail.load(Ordering::SeqCst)) != from {
            return None;
        }
        let ring = (from ^ SIDE) & SIDE | to;
        self.rings.prepare(ring);
        Some(Smaller { state: self, rings: to << BASE | ring, is_used: false, _guard: guard })
    }

    /// The receiver has found the channel empty: its ring shrinks if that is large, and was nearly
    /// empty for long.
    ///
    /// # Safety
    /// Only the receiver may call it.
    #[allow(unsafe_code)]
    #[inline]
    pub(super) unsafe fn rest(&self) {
        if self.rings.is_large() {
            // SAFETY: the caller's promise.
            unsafe { self.rest_large() }
        }
    }

    /// # Safety
    /// Only the receiver may call it.
    #[allow(unsafe_code)]
    #[cold]
    #[inline(never)]
    unsafe fn rest_large(&self) {
        let word = self.front.tail.load(Ordering::SeqCst);
        let (head, from) = (self.head(), ring(word));
        // A head with a detour is another one.
        if head != word & POSITION || word & CLOSED != 0 || self.rings.reading() != from {
            return;
        }
        let watch = self.watch(from, 0);
        self.front.head_seen.store(self.head_for(from, head, watch), Ordering::Release);
        let smaller = watch.enough.and_then(|enough| self.prepare_smaller(from, enough));
        let Some(smaller) = smaller else { return };
        let (rings, next) = (smaller.rings, smaller.upper(word) | head);
        if self.front.tail.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        {
            smaller.keep();
            // SAFETY: the caller is the receiver. The tail is in this ring now, and is the head.
            unsafe {
                self.rings.set_start(rings & RING, head);
                self.rings.enter(head, rings);
            }
        }
    }

    /// Measures by this clock, of a reactor in virtual time, for how long a ring is nearly empty.
    pub(super) fn follow(&self, clock: Option<VirtualNow>) {
        if let Some(mut usage) = self.usage.try_lock() {
            usage.clock = clock;
        }
    }

    /// Returns true if the channel was full when its word was `word` and its head `head`.
    #[inline(always)]
    fn is_full_at(&self, word: u64, head: u64) -> bool {
        let used = behind(head, word & POSITION);
        match self.capacity {
            Some(capacity) => used + units(word) >= capacity,
            None => used >= slots(ring(word)),
        }
    }

    /// Returns true if a message would be refused because there is no room.
    pub(super) fn is_full(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        self.capacity.is_some() && self.is_full_at(word, self.head.load(Ordering::SeqCst))
    }

    /// Returns true if [`take_permit`](Self::take_permit) would not say "full": there is room, and
    /// fewer permits are out than can be counted.
    pub(super) fn has_permit(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        self.capacity.is_none()
            || units(word) < UNITS && !self.is_full_at(word, self.head.load(Ordering::SeqCst))
    }

    /// Step 5 of a sender, after its stamp and the publishing fence.
    #[inline(always)]
    pub(super) fn asked(&self) -> Asked {
        self.request.read()
    }

    /// Steps 6 to 8 of a sender. Returns false if it has to drop its message: the receiver is gone.
    #[inline]
    pub(super) fn answer(&self, asked: Asked) -> bool {
        if asked.is_to_drop() {
            return false;
        }
        self.targets.answer(asked, &self.request);
        true
    }

    /// Returns true if the message of a position was received in turn. For a sender that was asked
    /// to drop its message: the request comes after the last receive, so the head is the last one.
    /// (A message that was received out of turn says so in its stamp.)
    pub(super) fn is_received(&self, position: u64) -> bool {
        is_ahead(self.head_position(), position)
    }

    /// Waits until there may be room, or until `deadline`. Tries before it sleeps; returns true if
    /// that attempt succeeded.
    pub(super) fn wait_for_room<E>(
        &self,
        deadline: Option<Instant>,
        attempt: &mut impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let here = Notify::of_thread();
        here.sleep();
        let entered = self.room.enter(Kind::Thread, &here);
        let sure = heavy_fence() && entered;
        let attempted = attempt();
        if matches!(attempted, Ok(false)) {
            // The receiver may have missed us, once: look again in a moment.
            let unsure = (!sure).then(|| Instant::now() + Duration::from_millis(1));
            here.park([deadline, unsure].into_iter().flatten().min());
        }
        here.awake();
        let left = if entered { self.room.leave(Kind::Thread, &here) } else { Left::Unwoken };
        // A wake-up for a slot that we do not need any more, or one that comes when we are gone, is
        // another waiter's.
        if left == Left::InUse || left == Left::Woken && matches!(attempted, Ok(true)) {
            self.call_senders(1);
        }
        attempted
    }

    /// Asks for a wake-up when there is room, for a reactor that is about to sleep. A look at the
    /// room must follow. Returns false if the wake-up is not sure: then look again in a moment.
    pub(super) fn ask_for_room(&self, notify: &Arc<Notify>) -> bool {
        let entered = self.room.enter(Kind::Reactor, notify);
        heavy_fence() && entered
    }

    /// Takes one [`ask_for_room`](Self::ask_for_room) back, if it was not answered.
    pub(super) fn unask_for_room(&self, notify: &Arc<Notify>) {
        self.room.leave(Kind::Reactor, notify);
    }

    /// Wakes `n` threads and every reactor that waits for room. Waits for nobody.
    #[cold]
    #[inline(never)]
    fn call_senders(&self, n: usize) {
        self.room.call(n);
    }

    pub(super) fn add_sender(&self) {
        let before = self.senders.fetch_add(1, Ordering::Relaxed);
        // 2^63 clones without a drop are a leak that has eaten all memory long since.
        assert!(before < usize::MAX >> 1, "pollmux: too many senders");
    }

    pub(super) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.front.tail.fetch_or(GONE, Ordering::SeqCst);
            let asked = self.request.read_after_swap();
            if asked.is_some() {
                self.answer(asked);
            }
        }
    }

    // The receiver's side.

    /// The head, with the bit of a detour.
    #[inline(always)]
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// The first position that was not received.
    pub(super) fn head_position(&self) -> u64 {
        self.head.load(Ordering::Acquire) & POSITION
    }

    /// After the message at `head` was taken out, without a detour: its slot is free, and a sender
    /// that waits for it is woken.
    #[inline(always)]
    pub(super) fn taken(&self, head: u64) {
        self.move_head((head + 1) & POSITION, 1);
    }

    #[inline(always)]
    fn move_head(&self, head: u64, freed: usize) {
        self.head.store(head, Ordering::Release);
        light_fence();
        if self.room.is_awaited() {
            self.call_senders(freed);
        }
    }

    /// Returns true if there is nothing, and nothing coming.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        (word ^ self.head()) & POSITION == 0 && word & GONE == 0
    }

    /// Finds the message to receive next. Waits for no sender, but for one microsecond for the
    /// message at the head.
    ///
    /// # Safety
    /// Only the receiver may call it.
    #[allow(unsafe_code)]
    #[inline(never)]
    pub(super) unsafe fn find(&self) -> Found {
        // "Empty" and "gone" are read at once: between two readings a last message could come.
        let word = self.front.tail.load(Ordering::SeqCst);
        let (head, tail, claimed) = (self.head() & POSITION, word & POSITION, self.rings_of(word));
        if head == tail {
            // SAFETY: the caller is the receiver.
            unsafe { self.rest() };
            return if word & GONE != 0 { Found::End } else { Found::Nothing };
        }
        // SAFETY: the caller is the receiver; these are its head and the rings of a tail.
        let written = || unsafe {
            self.rings.enter(head, claimed);
            self.rings.written(head, claimed)
        };
        if let Some(written) = written() {
            return Found::Message(written);
        }
        let detour = &mut *self.detour.lock();
        // SAFETY: as above.
        if detour.taken == 0 && wait_briefly(100, || unsafe { self.rings.is_written(head) }) {
            if let Some(written) = written() {
                return Found::Message(written);
            }
        }
        if detour.taken == 0 {
            (detour.ahead, detour.len) = (head, 0);
        }
        // SAFETY: as above.
        let written = unsafe { detour.first_written(&self.rings, head, tail, claimed) };
        written.map_or(Found::Coming, Found::Message)
    }

    /// After the message of `written` was taken out.
    ///
    /// # Safety
    /// Only the receiver may call it.
    #[allow(unsafe_code)]
    pub(super) unsafe fn received(&self, written: Written) {
        let (_, claimed) = self.claimed();
        let head = self.head() & POSITION;
        let detour = &mut *self.detour.lock();
        if written.position != head {
            // SAFETY: the caller is the receiver and has taken the message.
            unsafe { self.rings.set_taken(&written) };
            detour.taken += 1;
            detour.fill(written.position);
            self.head.store(head | DETOUR, Ordering::Release);
            return;
        }
        let (mut next, mut freed) = (self.after(head), 1);
        // SAFETY: the caller is the receiver.
        unsafe {
            self.rings.enter(next, claimed);
            while detour.taken > 0 && self.rings.is_taken(next, claimed) {
                detour.taken -= 1;
                (next, freed) = (self.after(next), freed + 1);
                self.rings.enter(next, claimed);
            }
        }
        detour.pass(head, next);
        self.move_head(if detour.taken > 0 { next | DETOUR } else { next }, freed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & GONE != 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Refuses every later claim, wakes all senders that wait, and asks senders to drop messages
    /// that they have not written yet. Only the receiver calls it, when it goes.
    pub(super) fn close(&self) {
        self.front.tail.fetch_or(CLOSED, Ordering::SeqCst);
        self.targets.set(None);
        self.request.ask(Request::Drop);
        fence(Ordering::SeqCst);
        self.call_senders(usize::MAX >> 1);
    }

    /// Names the party to be told of messages; what is asked for afterwards is answered there.
    ///
    /// Takes the request of the party before back: a sender that stands still may be about to tell
    /// that party, and then takes its request away. So it must not be the next party's, too.
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
        // The tail first: a head read later may be past it, never the other way round by more than
        // what came in between.
        let word = self.front.tail.load(Ordering::SeqCst);
        if word & CLOSED != 0 {
            return 0;
        }
        let tail = word & POSITION;
        let head = self.head.load(Ordering::SeqCst);
        let len = behind(head, tail);
        if len > POSITION >> 1 { 0 } else { len.min(self.capacity.unwrap_or(len)) as usize }
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity.map(|n| n as usize)
    }
}

impl Detour {
    /// The first written message before `tail`, of the positions that were not received.
    ///
    /// # Safety
    /// Only the receiver may call it, with its head and the rings of a tail it has read.
    #[allow(unsafe_code)]
    unsafe fn first_written(
        &mut self,
        rings: &Rings,
        head: u64,
        tail: u64,
        claimed: usize,
    ) -> Option<Written> {
        let end = behind(head, tail);
        let holes = self.holes[..self.len].iter().take_while(|&&hole| behind(head, hole) < end);
        // SAFETY: the positions are from the head up to the tail; the rest is the caller's promise.
        let first = holes.filter_map(|&hole| unsafe { rings.written(hole, claimed) }).next();
        if let Some(written) = first {
            return Some(written);
        }
        let mut position = self.ahead;
        while behind(head, position) < end {
            // SAFETY: as above.
            if let Some(written) = unsafe { rings.written(position, claimed) } {
                return Some(written);
            }
            if position == self.ahead {
                // SAFETY: as above.
                if unsafe { rings.is_taken(position, claimed) } {
                    self.ahead = (position + 1) & POSITION;
                } else if self.len < HOLES {
                    self.holes[self.len] = position;
                    self.len += 1;
                    self.ahead = (position + 1) & POSITION;
                }
            }
            position = (position + 1) & POSITION;
        }
        None
    }

    /// A message was taken at this position: it is a hole no more.
    fn fill(&mut self, position: u64) {
        if let Some(at) = self.holes[..self.len].iter().position(|&hole| hole == position) {
            self.holes.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }

    /// The head goes from one position to another.
    fn pass(&mut self, from: u64, to: u64) {
        let passed = behind(from, to);
        let left =
            self.holes[..self.len].iter().take_while(|&&hole| behind(from, hole) < passed).count();
        self.holes.copy_within(left..self.len, 0);
        self.len -= left;
        if behind(from, self.ahead) < passed {
            self.ahead = to;
        }
    }
}

impl Probe for State {
    #[inline]
    fn look(&self) -> Look {
        // SAFETY: a registered channel is asked by its reactor, on the thread of its receiver.
        #[allow(unsafe_code)]
        unsafe {
            if self.is_quiet() {
                self.rest();
                return Look::Quiet;
            }
            if self.rings.is_written(self.head()) {
                return Look::Ready;
            }
            match self.find() {
                Found::Message(_) | Found::End => Look::Ready,
                Found::Nothing => Look::Quiet,
                Found::Coming => Look::Coming,
            }
        }
    }

    fn ask(&self, request: Request) {
        self.request.ask(request);
    }

    fn silence(&self) {
        self.request.silence();
    }

    fn order(&self) -> u64 {
        self.request.order()
    }

    fn follow(&self, clock: Box<dyn Fn() -> Time + Send + Sync>) {
        self.follow(Some(clock));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wake::Wake;

    struct Nothing;

    impl Wake for Nothing {
        fn wake(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn party() -> Arc<Notify> {
        let party = Arc::new(Notify::new(Arc::new(Nothing)));
        party.prepare(0);
        party
    }

    #[test]
    fn a_sender_that_tells_the_old_party_takes_no_later_request_away() {
        let (_tx, rx) = crate::channel::ring::ends::<u64>(Some(1));
        let state = rx.state();
        let (old, new) = (party(), party());
        let to = |notify: &Arc<Notify>| Some(Target { notify: notify.clone(), slot: 0 });
        state.set_target(to(&old));
        state.ask(Request::Mark);
        let asked = state.asked();
        // The sender stands still here, and the receiver moves.
        state.set_target(None);
        state.set_target(to(&new));
        state.ask(Request::Wake);
        old.answer(asked, &state.request, 0);
        assert!(state.asked().is_some());
    }
}

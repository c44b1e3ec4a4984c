//! What the two ends of a channel share, whatever the messages are.
//!
//! # Positions
//! Every message has a position, counted from 0 modulo 2^48. `tail` is the next one to be claimed by a sender; `head` is the next one to be received.
//! One word holds the tail, two flags and 14 bits more, so that claiming, closing and what those bits say exclude each other:
//!
//! ```text
//!   63      62    61 .. 48                                         47 .. 0
//!   closed  gone  bounded: permits given out; unbounded: level     tail
//! ```
//! - Bounded: full is `tail - head + permits == capacity`. A *permit* is room for one message without a place in the order: who has one can send
//!   for sure, and holds nobody else up.
//! - Unbounded: the level says how large the ring is that the tail is in (`ring.rs`); a claim that finds it full goes to the next level.
//!
//! # Who waits for what
//! - The receiver waits for `tail` to move, through `armed`; the protocol is written down in `reactor/notify.rs`.
//! - Senders wait for `head` to move, under `room`. The receiver stores `head` and then reads `blocked`; a sender raises `blocked` and then
//!   reads `head`: one of them must see the other, which takes a full fence on both sides. The receiver's is in every
//!   `recv`, so it is the light side of an asymmetric fence (`sys/fence.rs`); the sender's precedes a sleep.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::TryRecvError;
use crate::reactor::notify::{Armed, Asked, Call, Notify, Probe};
use crate::sync::{
    AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, Padded, fence, heavy_fence,
    init_fences, light_fence, thread,
};

/// The receiver is gone: nothing can be claimed any more.
const CLOSED: u64 = 1 << 63;
/// Every sender is gone: nothing more will come.
const GONE: u64 = 1 << 62;
const POSITION: u64 = (1 << 48) - 1;

/// One permit, or one level.
const UNIT: u64 = 1 << 48;
const UNITS: u64 = (1 << 14) - 1;

/// The largest capacity: half of the positions, so that "behind" and "ahead" differ.
pub(super) const MAX_CAPACITY: usize =
    if usize::BITS >= 64 { (POSITION >> 1) as usize } else { usize::MAX >> 1 };

/// How many slots the first ring of an unbounded channel has; each level doubles them.
pub(super) const FIRST_LEVEL: usize = if cfg!(all(loom, test)) { 1 } else { 32 };
pub(super) const LEVELS: usize = if cfg!(all(loom, test)) { 4 } else { 40 };

/// See the module's text.
pub(crate) struct State {
    /// What senders write.
    front: Padded<Front>,
    /// What the receiver writes.
    head: Padded<AtomicU64>,
    /// `None`: unbounded.
    capacity: Option<u64>,
    /// Whether the receiver wants to hear of the next message.
    armed: Armed,
    /// How it wants to hear of it: through the reactor it was registered with first, while `at_first` says so, else as `target` says.
    /// Only a sender that took `armed` looks, and the receiver when it moves.
    first: OnceLock<(Arc<Notify>, u64)>,
    at_first: AtomicBool,
    target: Mutex<Target>,
    senders: AtomicUsize,
    /// How many senders wait under `room` and have not been called. Written under `room`.
    blocked: AtomicUsize,
    room: Mutex<Room>,
    called: Condvar,
}

struct Front {
    tail: AtomicU64,
    /// A `head` that some sender has read. Only when the channel looks full by it is the receiver's line read.
    head_seen: AtomicU64,
}

/// Who is woken when a message comes.
pub(crate) enum Target {
    /// Nobody yet.
    None,
    /// A thread in a blocking `recv`.
    Thread(thread::Thread),
    /// A reactor, which knows the channel by the token.
    Reactor { notify: Arc<Notify>, token: u64 },
}

struct Room {
    /// Senders that wait and have not been called.
    waiting: usize,
    /// Calls that no sender has answered yet.
    calls: usize,
    /// Reactors that sleep with a send case. All of them are called, and forgotten, when there is room: one alone might choose another case.
    reactors: Vec<Arc<Notify>>,
}

/// Why a position was not claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

/// A claimed position, and where its slot is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) level: usize,
    /// Whether it is the first position of its level, the first one excepted.
    pub(super) first_of_level: bool,
}

fn behind(head: u64, tail: u64) -> u64 {
    tail.wrapping_sub(head) & POSITION
}

/// The 14 bits between flags and tail.
#[inline]
fn units(word: u64) -> u64 {
    (word / UNIT) & UNITS
}

/// The level in the word of an unbounded channel.
#[inline]
fn level(word: u64) -> usize {
    units(word) as usize
}

impl State {
    pub(super) fn new(capacity: Option<usize>) -> State {
        init_fences();
        State {
            front: Padded(Front { tail: AtomicU64::new(0), head_seen: AtomicU64::new(0) }),
            head: Padded(AtomicU64::new(0)),
            capacity: capacity.map(|n| n as u64),
            armed: Armed::new(),
            first: OnceLock::new(),
            at_first: AtomicBool::new(false),
            target: Mutex::new(Target::None),
            senders: AtomicUsize::new(1),
            blocked: AtomicUsize::new(0),
            room: Mutex::new(Room { waiting: 0, calls: 0, reactors: Vec::new() }),
            called: Condvar::new(),
        }
    }

    // The senders' side.

    /// Claims the next position. The compare-and-swap is what makes the message known to a receiver that is about to sleep.
    ///
    /// An unbounded channel that is full goes to the next level, after `prepare` has made its ring.
    #[inline]
    pub(super) fn claim(&self, prepare: impl Fn(usize)) -> Result<Place, Refused> {
        self.advance(prepare, |_| 1)
    }

    /// Claims the next position with a permit, which is used up.
    pub(super) fn claim_permitted(&self, prepare: impl Fn(usize)) -> Result<Place, Refused> {
        if self.capacity.is_none() {
            return self.claim(prepare);
        }
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let next = (word & !POSITION | (word + 1) & POSITION) - UNIT;
            match self.front.tail.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(Place { position: word & POSITION, level: 0, first_of_level: false }),
                Err(now) => word = now,
            }
        }
    }

    /// Takes a permit. An unbounded channel gives them without counting.
    pub(super) fn take_permit(&self) -> Result<(), Refused> {
        match self.capacity {
            None if self.is_closed() => Err(Refused::Closed),
            None => Ok(()),
            Some(_) => self.advance(|_| (), |word| if units(word) == UNITS { 0 } else { UNIT }).map(|_| ()),
        }
    }

    /// Gives an unused permit back: there is room for somebody else.
    pub(super) fn return_permit(&self) {
        if self.capacity.is_some() {
            self.front.tail.fetch_sub(UNIT, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if self.blocked.load(Ordering::SeqCst) != 0 {
                self.call_sender();
            }
        }
    }

    /// Adds `step(word)` to the word if the channel is open and has room; a step of 0 is "full" too.
    #[inline(always)]
    fn advance(&self, prepare: impl Fn(usize), step: impl Fn(u64) -> u64) -> Result<Place, Refused> {
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let position = word & POSITION;
            // Acquire, here and below: the receiver has read the slot's last value before the sender writes the next.
            let mut full = self.is_full_at(word, self.front.head_seen.load(Ordering::Acquire));
            if full {
                let head = self.head.load(Ordering::Acquire);
                self.front.head_seen.store(head, Ordering::Release);
                full = self.is_full_at(word, head);
            }
            let step = step(word);
            let (upper, grows) = if !full && step != 0 {
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
                prepare(level(word) + 1);
                ((word & !POSITION) + UNIT, true)
            };
            // A step in the lower bits wraps within them, one in the upper bits is added to them.
            let next =
                if step < UNIT { upper | ((position + step) & POSITION) } else { (upper + step) | position };
            match self.front.tail.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    let level = if self.capacity.is_some() { 0 } else { level(next) };
                    return Ok(Place { position, level, first_of_level: grows });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Whether the channel was full when its word was `word` and its head `head`.
    #[inline(always)]
    fn is_full_at(&self, word: u64, head: u64) -> bool {
        let used = behind(head, word & POSITION);
        match self.capacity {
            Some(capacity) => used + units(word) >= capacity,
            None => used >= (FIRST_LEVEL as u64) << level(word),
        }
    }

    /// Whether a permit would be refused because there is no room.
    pub(super) fn is_full(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        self.capacity.is_some() && self.is_full_at(word, self.head.load(Ordering::SeqCst))
    }

    /// After the claimed slot is written: wakes the receiver if it asked for that.
    #[inline]
    pub(super) fn published(&self) {
        if let Some(asked) = self.armed.read() {
            self.call_receiver(asked);
        }
    }

    /// Steps 3 and 4 of the wake protocol (`reactor/notify.rs`).
    #[inline(never)]
    fn call_receiver(&self, asked: Asked) {
        let Some(mark) = self.armed.take(asked) else { return };
        if self.at_first.load(Ordering::SeqCst) {
            if let Some((notify, token)) = self.first.get() {
                return notify.call(mark, *token);
            }
        }
        match &*self.target.lock() {
            Target::None => {}
            Target::Thread(thread) => thread.unpark(),
            Target::Reactor { notify, token } => notify.call(mark, *token),
        }
    }

    /// Registers the calling sender as waiting, tries once more, and sleeps until it is called or `deadline`.
    ///
    /// Returns whether the attempt succeeded. The attempt runs under the lock.
    pub(super) fn wait_for_room<E>(
        &self,
        deadline: Option<Instant>,
        attempt: &mut impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut room = self.room.lock();
        self.set_waiting(&mut room, |waiting| waiting + 1);
        let sure = heavy_fence();
        let attempted = attempt();
        if !matches!(attempted, Ok(false)) {
            self.set_waiting(&mut room, |waiting| waiting - 1);
            return attempted;
        }
        // Without its fence the receiver may have missed us, once: look again in a moment.
        let unsure = (!sure).then(|| Instant::now() + Duration::from_millis(1));
        let limit = [deadline, unsure].into_iter().flatten().min();
        loop {
            if room.calls > 0 {
                room.calls -= 1;
                return Ok(false);
            }
            let timed_out;
            (room, timed_out) = sleep(&self.called, room, limit);
            if timed_out && room.calls == 0 {
                self.set_waiting(&mut room, |waiting| waiting - 1);
                return Ok(false);
            }
        }
    }

    fn set_waiting(&self, room: &mut Room, f: impl FnOnce(usize) -> usize) {
        room.waiting = f(room.waiting);
        self.count_blocked(room);
    }

    fn count_blocked(&self, room: &Room) {
        self.blocked.store(room.waiting + room.reactors.len(), Ordering::SeqCst);
    }

    /// Asks for a wake-up when there is room, for a reactor that is about to sleep. A look at the room must follow. Returns what `heavy_fence` does.
    pub(crate) fn ask_for_room(&self, notify: &Arc<Notify>) -> bool {
        let mut room = self.room.lock();
        room.reactors.push(notify.clone());
        self.count_blocked(&room);
        drop(room);
        heavy_fence()
    }

    /// Takes one [`ask_for_room`](Self::ask_for_room) back, if it was not answered.
    pub(crate) fn unask_for_room(&self, notify: &Arc<Notify>) {
        let mut room = self.room.lock();
        if let Some(at) = room.reactors.iter().position(|other| Arc::ptr_eq(other, notify)) {
            room.reactors.swap_remove(at);
            self.count_blocked(&room);
        }
    }

    pub(super) fn add_sender(&self) {
        let before = self.senders.fetch_add(1, Ordering::Relaxed);
        // 2^63 clones without a drop are a leak that has eaten all memory long since.
        assert!(before < usize::MAX >> 1, "pollmux: too many senders");
    }

    pub(super) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.front.tail.fetch_or(GONE, Ordering::SeqCst);
            self.published();
        }
    }

    // The receiver's side.

    /// The position to receive next.
    #[inline]
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// After the message at `head` was taken out: its slot is free, and a sender that waits for it is called.
    #[inline]
    pub(super) fn taken(&self, head: u64) {
        self.head.store((head + 1) & POSITION, Ordering::Release);
        light_fence();
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.call_sender();
        }
    }

    /// Calls one thread and every reactor that waits for room.
    #[cold]
    #[inline(never)]
    fn call_sender(&self) {
        let mut room = self.room.lock();
        let call = room.waiting > 0;
        if call {
            room.calls += 1;
            room.waiting -= 1;
        }
        room.reactors.drain(..).for_each(|notify| notify.wake());
        self.count_blocked(&room);
        drop(room);
        if call {
            self.called.notify_one();
        }
    }

    /// The level up to which positions have been claimed, if one has that was not received. "Empty" and "gone" are read at once: between two readings a last message could come.
    #[inline]
    pub(super) fn check_claimed(&self) -> Result<usize, TryRecvError> {
        let word = self.front.tail.load(Ordering::SeqCst);
        if word & POSITION != self.head() {
            Ok(if self.capacity.is_some() { 0 } else { level(word) })
        } else if word & GONE != 0 {
            Err(TryRecvError::Disconnected)
        } else {
            Err(TryRecvError::Empty)
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & GONE != 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.front.tail.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Refuses every later claim, and calls all senders that wait.
    pub(super) fn close(&self) {
        self.front.tail.fetch_or(CLOSED, Ordering::SeqCst);
        self.set_target(Target::None);
        let mut room = self.room.lock();
        room.calls += room.waiting;
        room.reactors.drain(..).for_each(|notify| notify.wake());
        self.set_waiting(&mut room, |_| 0);
        drop(room);
        self.called.notify_all();
    }

    /// Says how the receiver wants to hear of messages; what is asked for afterwards is answered there.
    pub(crate) fn set_target(&self, target: Target) {
        match target {
            Target::Reactor { notify, token } if self.first.set((notify.clone(), token)).is_ok() => {
                self.at_first.store(true, Ordering::SeqCst);
            }
            target => {
                self.at_first.store(false, Ordering::SeqCst);
                *self.target.lock() = target;
            }
        }
    }

    /// Step 2 of the wake protocol (`reactor/notify.rs`): asks to be told of the next message. A fence and a look at the tail must follow.
    #[inline]
    pub(crate) fn ask(&self, call: Call) {
        self.armed.ask(call);
    }

    /// Takes a `Call::Wake` back, after the sleep.
    #[inline]
    pub(crate) fn unask(&self) {
        self.armed.unask();
    }

    pub(super) fn len(&self) -> usize {
        // The tail first: a head read later may be past it, never the other way round by more than what came in between.
        let tail = self.front.tail.load(Ordering::SeqCst) & POSITION;
        let head = self.head.load(Ordering::SeqCst);
        let len = behind(head, tail);
        if len > POSITION >> 1 { 0 } else { len.min(self.capacity.unwrap_or(len)) as usize }
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity.map(|n| n as usize)
    }
}

impl Probe for State {
    #[inline]
    fn is_ready(&self) -> bool {
        let word = self.front.tail.load(Ordering::SeqCst);
        word & POSITION != self.head() || word & GONE != 0
    }

    fn arm(&self, call: Call) -> bool {
        self.ask(call);
        fence(Ordering::SeqCst);
        self.is_ready()
    }
}

/// Waits on `condvar` until notified or `limit`; the second value says that the time is over.
fn sleep<'a>(
    condvar: &Condvar,
    room: MutexGuard<'a, Room>,
    limit: Option<Instant>,
) -> (MutexGuard<'a, Room>, bool) {
    #[cfg(not(all(loom, test)))]
    if let Some(limit) = limit {
        let left = limit.saturating_duration_since(Instant::now());
        let (room, _) = condvar.wait_timeout(room, left).unwrap_or_else(|poisoned| poisoned.into_inner());
        return (room, Instant::now() >= limit);
    }
    let _ = limit;
    (condvar.wait(room).unwrap_or_else(|poisoned| poisoned.into_inner()), false)
}

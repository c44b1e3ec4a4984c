//! What the two ends of a channel share, whatever the messages are.
//!
//! # Positions
//! Every message has a position, counted from 0 modulo 2^48. `tail` is the next one to be claimed by a sender, in one word with two flags, so that
//! claiming and closing exclude each other; `head` is the next one to be received. Full is `tail - head == capacity`.
//!
//! # Who waits for what
//! - The receiver waits for `tail` to move, through `armed`; the protocol is written down in `reactor/notify.rs`.
//! - Senders wait for `head` to move, under `room`. The receiver stores `head` and then reads `blocked`; a sender raises `blocked` and then
//!   reads `head`: one of them must see the other, which takes a full fence on both sides. The receiver's is in every
//!   `recv`, so it is the light side of an asymmetric fence (`sys/fence.rs`); the sender's precedes a sleep.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::TryRecvError;
use crate::reactor::notify::{Call, Notify, Probe};
use crate::sync::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, Padded, fence,
    full_fence, heavy_fence, init_fences, light_fence, thread,
};

/// The receiver is gone: nothing can be claimed any more.
const CLOSED: u64 = 1 << 63;
/// Every sender is gone: nothing more will come.
const GONE: u64 = 1 << 62;
/// No [`Call`] is asked for.
const SILENT: u8 = 0;
const POSITION: u64 = (1 << 48) - 1;

/// The largest capacity: half of the positions, so that "behind" and "ahead" differ.
pub(super) const MAX_CAPACITY: usize =
    if usize::BITS >= 64 { (POSITION >> 1) as usize } else { usize::MAX >> 1 };

/// See the module's text.
pub(crate) struct State {
    /// What senders write.
    front: Padded<Front>,
    /// What the receiver writes.
    head: Padded<AtomicU64>,
    capacity: u64,
    /// Whether the receiver wants to hear of the next message: `SILENT` or a [`Call`].
    armed: AtomicU8,
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
}

/// Why a position was not claimed.
pub(super) enum Refused {
    Full,
    Closed,
}

fn behind(head: u64, tail: u64) -> u64 {
    tail.wrapping_sub(head) & POSITION
}

impl State {
    pub(super) fn new(capacity: usize) -> State {
        init_fences();
        State {
            front: Padded(Front { tail: AtomicU64::new(0), head_seen: AtomicU64::new(0) }),
            head: Padded(AtomicU64::new(0)),
            capacity: capacity as u64,
            armed: AtomicU8::new(SILENT),
            first: OnceLock::new(),
            at_first: AtomicBool::new(false),
            target: Mutex::new(Target::None),
            senders: AtomicUsize::new(1),
            blocked: AtomicUsize::new(0),
            room: Mutex::new(Room { waiting: 0, calls: 0 }),
            called: Condvar::new(),
        }
    }

    // The senders' side.

    /// Claims the next position. The compare-and-swap is what makes the message known to a receiver that is about to sleep.
    #[inline]
    pub(super) fn claim(&self) -> Result<u64, Refused> {
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let position = word & POSITION;
            // Acquire, here and below: the receiver has read the slot's last value before the sender writes the next.
            if behind(self.front.head_seen.load(Ordering::Acquire), position) >= self.capacity {
                let head = self.head.load(Ordering::Acquire);
                self.front.head_seen.store(head, Ordering::Release);
                if behind(head, position) >= self.capacity {
                    let again = self.front.tail.load(Ordering::Acquire);
                    if again == word {
                        return Err(Refused::Full);
                    }
                    word = again;
                    continue;
                }
            }
            let next = word & !POSITION | (position + 1) & POSITION;
            match self.front.tail.compare_exchange_weak(word, next, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Ok(position),
                Err(now) => word = now,
            }
        }
    }

    /// After the claimed slot is written: wakes the receiver if it asked for that.
    #[inline]
    pub(super) fn published(&self) {
        full_fence();
        let armed = self.armed.load(Ordering::SeqCst);
        if armed != SILENT {
            self.call_receiver(armed);
        }
    }

    /// Steps 3 and 4 of the wake protocol (`reactor/notify.rs`).
    #[inline(never)]
    fn call_receiver(&self, armed: u8) {
        let mark = armed == Call::Mark as u8;
        if mark && self.armed.compare_exchange(armed, SILENT, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
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
        self.blocked.store(room.waiting, Ordering::SeqCst);
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

    #[cold]
    #[inline(never)]
    fn call_sender(&self) {
        let mut room = self.room.lock();
        if room.waiting > 0 {
            room.calls += 1;
            self.set_waiting(&mut room, |waiting| waiting - 1);
            drop(room);
            self.called.notify_one();
        }
    }

    /// Whether a position has been claimed that was not received. "Empty" and "gone" are read at once: between two readings a last message could come.
    #[inline]
    pub(super) fn check_claimed(&self) -> Result<(), TryRecvError> {
        let word = self.front.tail.load(Ordering::SeqCst);
        if word & POSITION != self.head() {
            Ok(())
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
        // Only we set it, and a call that marks wakes too.
        if self.armed.load(Ordering::Relaxed) < call as u8 {
            self.armed.store(call as u8, Ordering::Relaxed);
        }
    }

    /// Takes a `Call::Wake` back, after the sleep.
    #[inline]
    pub(crate) fn unask(&self) {
        // Senders leave that one alone.
        if self.armed.load(Ordering::Relaxed) == Call::Wake as u8 {
            self.armed.store(SILENT, Ordering::Relaxed);
        }
    }

    pub(super) fn len(&self) -> usize {
        // The tail first: a head read later may be past it, never the other way round by more than what came in between.
        let tail = self.front.tail.load(Ordering::SeqCst) & POSITION;
        let head = self.head.load(Ordering::SeqCst);
        let len = behind(head, tail);
        if len > POSITION >> 1 { 0 } else { len.min(self.capacity) as usize }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
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

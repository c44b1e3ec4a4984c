//! The senders' side of a buffered channel: a position is claimed, and its slot is written.
//!
//! A send takes these steps: [`Tail::try_send`] claims a position by one compare-and-swap of the
//! tail (`state.rs`), which gives a [`Place`]. [`Place::write`] uses the place up: it writes the
//! value, stores the stamp, and answers the receiver's request.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ring::WRITTEN;
use super::room::{Left, Waiter};
use super::shared::Shared;
use super::state::{CLOSED, GONE, POSITION, Refused, State, UNIT, UNITS, is_ahead, ring, units};
use crate::sync::{Ordering, STAMP, claim_fence, fence, heavy_fence, publish_fence};
use crate::wake::{Asked, Notify};

/// The senders' end of a buffered channel.
pub(super) struct Tail<T> {
    state: Arc<State>,
    shared: Arc<Shared<T>>,
}

/// A step of the tail from a position, and the place of that position's slot.
struct Step {
    position: u64,
    /// The number of the ring.
    ring: usize,
    /// True for the first position of a ring, but for the channel's first ring.
    first_of_ring: bool,
}

/// A claimed position: the step was one past it. Only a claim makes one, and a write uses it up.
struct Claimed(Step);

/// A claimed position of this channel: the right to write its slot, once.
///
/// A place that is dropped unwritten stays *coming* for ever.
struct Place<'a, T> {
    tail: &'a Tail<T>,
    claimed: Claimed,
}

/// A message that this sender has written, and of which it has not told the receiver yet.
struct Sent<'a, T> {
    tail: &'a Tail<T>,
    position: u64,
    ring: usize,
}

impl<T> Tail<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Tail<T> {
        Tail { state: shared.state().clone(), shared }
    }

    #[inline(always)]
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    #[inline(always)]
    fn place(&self, claimed: Claimed) -> Place<'_, T> {
        Place { tail: self, claimed }
    }

    #[inline(always)]
    pub(super) fn try_send(&self, value: T) -> Result<(), (Refused, T)> {
        match self.state().claim() {
            Ok(claimed) => {
                self.place(claimed).write(value);
                Ok(())
            }
            Err(refused) => Err((refused, value)),
        }
    }

    /// Sends the value that `make` gives if there is room. `make` must not panic: its place is
    /// claimed.
    pub(super) fn try_send_with(&self, make: impl FnOnce() -> T) -> Result<(), Refused> {
        self.state().claim().map(|claimed| self.place(claimed).write(make()))
    }

    /// Sends `value` with a permit, which is used up.
    #[inline]
    pub(super) fn send_permitted(&self, value: T) -> Result<(), T> {
        match self.state().claim_with_permit() {
            Ok(claimed) => {
                self.place(claimed).write(value);
                Ok(())
            }
            Err(_) => Err(value),
        }
    }
}

impl<'a, T> Place<'a, T> {
    /// Steps 2 to 7 of a sender (`wake/mod.rs`).
    #[inline(always)]
    fn write(self, value: T) {
        self.put(value).tell();
    }

    #[inline(always)]
    fn put(self, value: T) -> Sent<'a, T> {
        let Place { tail, claimed: Claimed(step) } = self;
        let Step { position, ring, first_of_ring } = step;
        claim_fence();
        if first_of_ring {
            // SAFETY: the claim gave us a position in this ring, after `prepare` had made it; the
            // receiver does not free the ring before it has received that position.
            let ring = unsafe { tail.state().rings().ring(ring).as_ref() };
            ring.start.store(position, Ordering::Release);
        }
        // SAFETY: as above.
        let slot = unsafe { Shared::<T>::slot_in(tail.state(), ring, position) };
        // SAFETY: the position is ours alone, and was claimed only after the receiver had taken the
        // value one lap before it out (acquired through `head`). Whatever the slot's bytes are, no
        // value is overwritten.
        slot.value.with_mut(|to| unsafe { (*to).write(value) });
        slot.stamp.store(position | WRITTEN, STAMP);
        Sent { tail, position, ring }
    }
}

impl<T> Sent<'_, T> {
    #[inline(always)]
    fn tell(self) {
        publish_fence();
        let Sent { tail, position, ring } = self;
        let asked = tail.state().asked();
        if asked.is_some() {
            answer(tail, position, ring, asked);
        }
    }
}

/// Answers the receiver's request after a message was written.
// Not a method of `Sent`, which every send would then store to memory.
#[inline(never)]
fn answer<T>(tail: &Tail<T>, position: u64, ring: usize, asked: Asked) {
    // The receiver may have taken the message and then gone. Then the message is not ours any more.
    if tail.state().answer(asked) || tail.state().is_received(position) {
        return;
    }
    // SAFETY: only a receiver that goes asks for a drop. The position was not received.
    drop(unsafe { tail.shared.take_left(ring, position) });
}

impl<T> Clone for Tail<T> {
    fn clone(&self) -> Tail<T> {
        Tail { state: self.state.clone(), shared: self.shared.clone() }
    }
}

/// A send that is stalled between its claim and its write, for tests.
#[cfg(test)]
pub(super) struct Standing<T> {
    tail: Tail<T>,
    claimed: Claimed,
}

#[cfg(test)]
impl<T> Tail<T> {
    pub(super) fn begin(&self) -> Standing<T> {
        Standing { tail: self.clone(), claimed: self.state().claim().expect("room") }
    }
}

#[cfg(test)]
impl<T> Standing<T> {
    #[cfg(not(loom))]
    pub(super) fn position(&self) -> u64 {
        self.claimed.0.position
    }

    pub(super) fn finish(self, value: T) {
        self.tail.place(self.claimed).write(value);
    }
}

impl State {
    /// Claims the next position. The compare-and-swap makes the message known, as coming, to a
    /// receiver that is about to sleep.
    ///
    /// An unbounded channel that is full goes to the next level, after its ring was made.
    #[inline]
    fn claim(&self) -> Result<Claimed, Refused> {
        self.advance(|_| 1).map(Claimed)
    }

    /// Claims the next position with a permit, which is used up.
    fn claim_with_permit(&self) -> Result<Claimed, Refused> {
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
                        self.wake_for_permit();
                    }
                    let position = word & POSITION;
                    return Ok(Claimed(Step { position, ring: 0, first_of_ring: false }));
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes a permit. An unbounded channel gives permits without counting.
    pub(super) fn claim_permit(&self) -> Result<(), Refused> {
        match self.capacity {
            None if self.is_closed() => Err(Refused::Closed),
            None => Ok(()),
            Some(_) => self.advance(|word| if units(word) == UNITS { 0 } else { UNIT }).map(|_| ()),
        }
    }

    /// Gives an unused permit back. Another sender then has room.
    pub(super) fn return_permit(&self) {
        if self.capacity.is_some() {
            self.front.tail.fetch_sub(UNIT, Ordering::SeqCst);
            self.wake_for_permit();
        }
    }

    /// Wakes send cases after the number of permits went down: they may wait for a permit.
    #[cold]
    #[inline(never)]
    fn wake_for_permit(&self) {
        fence(Ordering::SeqCst);
        if self.room.is_awaited_now() {
            self.wake_senders(1);
        }
    }

    /// Adds `step(word)` to the word if the channel is open and has room. A step of 0 means "full",
    /// too.
    #[inline(always)]
    fn advance(&self, step: impl Fn(u64) -> u64) -> Result<Step, Refused> {
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
                    return Ok(Step { position, ring, first_of_ring: false });
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
    /// unbounded channel goes to another ring if it has to.
    #[cold]
    #[inline(never)]
    fn advance_slowly(&self, step: impl Fn(u64) -> u64) -> Result<Step, Refused> {
        let mut word = self.front.tail.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return Err(Refused::Closed);
            }
            let head = self.back.head.load(Ordering::Acquire);
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
                    return Ok(Step { position, ring, first_of_ring: moves });
                }
                Err(now) => word = now,
            }
        }
    }

    /// Steps 6 to 8 of a sender. Returns false if it has to drop its message: the receiver is gone.
    #[inline]
    fn answer(&self, asked: Asked) -> bool {
        if asked.is_to_drop() {
            return false;
        }
        self.targets.answer(asked, &self.request);
        true
    }

    /// Returns true if the message of a position was received in turn.
    /// For a sender that was asked to drop its message: the request comes after the last receive,
    /// so the head is the last one.
    /// (The stamp of a message that was received out of turn says so.)
    fn is_received(&self, position: u64) -> bool {
        is_ahead(self.head_position(), position)
    }

    /// Waits until there may be room, or until `deadline`. Makes an attempt before it sleeps.
    /// Returns true if that attempt succeeded.
    pub(super) fn wait_for_room<E>(
        &self,
        deadline: Option<Instant>,
        attempt: &mut impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let here = Notify::of_thread();
        let waiter = Waiter::Thread(here.clone());
        here.sleep();
        let entered = self.room.enter(waiter.clone());
        let sure = heavy_fence() && entered;
        let attempted = attempt();
        if matches!(attempted, Ok(false)) {
            // The receiver may have missed our registration, once: look again in a moment.
            let unsure = (!sure).then(|| Instant::now() + Duration::from_millis(1));
            here.park([deadline, unsure].into_iter().flatten().min());
        }
        here.awake();
        let left = if entered { self.room.leave(&waiter) } else { Left::Unwoken };
        // A wake-up for a slot that we do not need any more belongs to another waiter. So does a
        // wake-up that comes when we are gone.
        if left == Left::InUse || left == Left::Woken && matches!(attempted, Ok(true)) {
            self.wake_senders(1);
        }
        attempted
    }

    /// Asks for a wake-up when there is room, for a reactor that is about to sleep. A look at the
    /// room must follow. Returns false if the wake-up is not sure: then look again in a moment.
    pub(super) fn ask_for_room(&self, notify: &Arc<Notify>) -> bool {
        let entered = self.room.enter(Waiter::Reactor(notify.clone()));
        heavy_fence() && entered
    }

    /// Takes a request of [`ask_for_room`](Self::ask_for_room) back, if it was not answered.
    pub(super) fn unask_for_room(&self, notify: &Arc<Notify>) {
        self.room.leave(&Waiter::Reactor(notify.clone()));
    }

    pub(super) fn add_sender(&self) {
        let before = self.senders.fetch_add(1, Ordering::Relaxed);
        // 2^63 clones without a drop are a leak that has used up all memory before.
        assert!(before < usize::MAX >> 1, "pollmux: too many senders");
    }

    pub(super) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.front.tail.fetch_or(GONE, Ordering::SeqCst);
            let asked = self.request.read();
            if asked.is_some() {
                self.answer(asked);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::ends;
    use super::*;

    /// A sender that is stalled between its stamp and its look at the request. Meanwhile the
    /// receiver takes the message, and goes.
    #[test]
    fn a_late_sender_leaves_a_received_message_alone() {
        for capacity in [Some(1), None] {
            let (tail, head) = ends(capacity);
            let value = Arc::new(());
            let claimed = tail.state().claim().expect("room");
            let sent = tail.place(claimed).put(value.clone());
            let received = head.try_recv().expect("it was sent");
            drop(head);
            sent.tell();
            assert_eq!(Arc::strong_count(&value), 2, "dropped by both");
            drop(received);
        }
    }
}

//! The receiver's side of a buffered channel: it finds a message and takes it out of its slot.
//!
//! [`Head::try_recv`] takes the message at the head if that message is written. Otherwise a
//! [`Reader`] searches behind the head for the first written message: a detour (`state.rs`). The
//! search gives a [`Written`], which is used up when the message is taken out.
#![allow(unsafe_code)]

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use super::detour::{Detour, Place};
use super::ring::{Stamp, WRITTEN};
use super::shared::{NotShared, Shared};
use super::state::{CLOSED, DETOUR, GONE, POSITION, RING, State, behind, ring};
use super::{Glance, TryRecvError};
use crate::sync::{
    MutexGuard, Ordering, WATCH, fence, light_fence, pause, settle_fence, wait_briefly, watch,
};
use crate::sys::Time;
use crate::wake::{Look, Probe, RequestCell};

/// The receiver's end of a buffered channel. A channel has one, and `Head` is not `Sync`.
pub(super) struct Head<T> {
    state: Arc<State>,
    shared: Arc<Shared<T>>,
    not_sync: NotShared,
}

/// The right to do what only the receiver may do. It does not leave the receiver's thread.
pub(super) struct Reader<'a> {
    state: &'a State,
    not_send: PhantomData<*mut ()>,
}

/// A written message that the receiver has found, and the right to take the message out once.
pub(super) struct Written<'a> {
    reader: Reader<'a>,
    position: u64,
    /// The number of the message's ring.
    ring: usize,
    /// The memory of detours, if the search has locked it.
    detour: Option<MutexGuard<'a, Detour>>,
}

/// The outcome of the receiver's search.
pub(super) enum Found<'a> {
    Message(Written<'a>),
    /// Every sender is gone, and the channel is empty.
    End,
    /// There is no message, and no position is claimed.
    Nothing,
    /// There are only claimed positions without a message.
    Coming,
}

/// The positions that are claimed and not received, and the rings that hold them.
pub(super) struct Span {
    pub(super) head: u64,
    pub(super) tail: u64,
    /// The number of the tail's ring, and the base of the side of that ring.
    claimed: usize,
}

impl<T> Head<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Head<T> {
        Head { state: shared.state().clone(), shared, not_sync: PhantomData }
    }

    #[inline(always)]
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    #[inline(always)]
    fn reader(&self) -> Reader<'_> {
        // SAFETY: we are the receiver, of which there is one, and it is not shared. Each function
        // here makes one reader and uses it up.
        unsafe { self.state.reader() }
    }

    #[inline(always)]
    fn is_written(&self, head: u64) -> bool {
        let reading = self.state().rings().read_by_receiver();
        // SAFETY: we are the receiver, and this is the ring that it reads.
        let slot = unsafe { Shared::<T>::slot_in(self.state(), reading, head) };
        slot.stamp.load(Ordering::Acquire) == head | WRITTEN
    }

    #[inline(always)]
    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.take_next().map_or_else(|| self.try_recv_slow(), Ok)
    }

    /// Takes the message at the head if it is there, and the head has no detour.
    #[inline(always)]
    pub(super) fn take_next(&self) -> Option<T> {
        let state = self.state();
        let head = state.head();
        let reading = state.rings().read_by_receiver();
        // SAFETY: we are the receiver, and this is the ring that it reads.
        let slot = unsafe { Shared::<T>::slot_in(state, reading, head) };
        // A head with a detour has a bit that no stamp has, so the comparison fails.
        if slot.stamp.load(Ordering::Acquire) != head | WRITTEN {
            return None;
        }
        // SAFETY: the stamp has acquired the sender's write. Only we take: there is one receiver,
        // which is not shared, and no sender writes the slot before it has seen the next head.
        let value = slot.value.with_mut(|from| unsafe { (*from).assume_init_read() });
        // SAFETY: the message at the head is out, and the head has no detour.
        unsafe { self.reader().pass_head(head) };
        Some(value)
    }

    #[inline(never)]
    fn try_recv_slow(&self) -> Result<T, TryRecvError> {
        match self.reader().find() {
            Found::Message(written) => {
                // SAFETY: the message was found in this channel, and `written` is the right to take
                // it. That right ends below.
                let value = unsafe { self.shared.read(written.ring, written.position) };
                written.pass();
                Ok(value)
            }
            Found::End => Err(TryRecvError::Disconnected),
            Found::Nothing | Found::Coming => Err(TryRecvError::Empty),
        }
    }

    /// Lets the ring shrink, after the channel was found empty.
    #[inline]
    pub(super) fn rest(&self) {
        self.reader().rest();
    }

    /// Returns true if `try_recv` would give a message or the end. Calls `coming` if a message is
    /// claimed and not written.
    #[inline(always)]
    pub(super) fn is_ready_or(&self, coming: impl FnOnce()) -> bool {
        self.is_written(self.state().head())
            || (!self.state().is_quiet() || self.reader().catches_up())
                && match self.look_slow() {
                    Look::Ready => true,
                    Look::Quiet => false,
                    Look::Coming => {
                        coming();
                        false
                    }
                }
    }

    /// Looks at the slot of the next message, and not at the tail. Every sender writes the tail for
    /// every message, and a read takes its cache line away from them.
    ///
    /// The outcome is in doubt if the message is not there. Then only the tail says if there is a
    /// message out of turn, or the end. At the end of a stream, and on a detour, this look reads
    /// the tail at once.
    #[inline(always)]
    pub(super) fn glance(&self) -> Glance {
        let is_written = self.is_written(self.state().head());
        if is_written { Glance::sure(true) } else { self.glance_slow() }
    }

    #[inline(never)]
    fn glance_slow(&self) -> Glance {
        if self.state().head() & DETOUR != 0 || self.reader().catches_up() {
            return Glance::sure(self.look_slow() == Look::Ready);
        }
        Glance::DOUBT
    }

    /// Waits for the message at the head, for at most [`WATCH`] ns, without a look at the tail.
    #[inline(never)]
    pub(super) fn watch(&self) {
        let head = self.state().head();
        if head & DETOUR == 0 {
            watch(WATCH, || self.is_written(head));
        }
    }

    #[inline(never)]
    fn look_slow(&self) -> Look {
        match self.reader().find() {
            Found::Message(_) | Found::End => Look::Ready,
            Found::Nothing => Look::Quiet,
            Found::Coming => Look::Coming,
        }
    }
}

impl<T> Drop for Head<T> {
    /// Closes the channel and drops its messages. Waits for no sender: a sender that has claimed a
    /// position and not written its message drops that message itself.
    fn drop(&mut self) {
        self.reader().close();
        // SAFETY: we are the receiver, and going.
        let drop_left = || unsafe { self.shared.drop_left() };
        if drop_left() {
            // A sender that stores its stamp after this fence sees the request and drops its
            // message. What it stored before is visible now. Without the fence the drop of the last
            // end does the rest.
            settle_fence();
            drop_left();
        }
    }
}

impl State {
    /// # Safety
    /// The caller must be the receiver, or its reactor on the same thread. It must not make another
    /// reader while this one, or a [`Written`] of it, is there.
    #[inline(always)]
    unsafe fn reader(&self) -> Reader<'_> {
        Reader { state: self, not_send: PhantomData }
    }
}

impl<'a> Reader<'a> {
    /// Frees the slot of the message at the head, and wakes a sender that waits for it.
    ///
    /// # Safety
    /// The message must be out, and `head` be the head, without a detour.
    #[inline(always)]
    unsafe fn pass_head(&self, head: u64) {
        self.move_head((head + 1) & POSITION, 1);
    }

    #[inline(always)]
    fn move_head(&self, head: u64, freed: usize) {
        self.state.back.head.store(head, Ordering::Release);
        light_fence();
        if self.state.room.is_awaited() {
            self.state.wake_senders(freed);
        }
    }

    fn span(&self, word: u64) -> Span {
        let head = self.state.head() & POSITION;
        Span { head, tail: word & POSITION, claimed: self.state.rings_of(word) }
    }

    /// Returns the stamp of a position in the span, and its ring.
    pub(super) fn stamp(&self, span: &Span, position: u64) -> (Stamp, usize) {
        if behind(span.head, position) >= behind(span.head, span.tail) {
            return (Stamp::Unwritten, 0);
        }
        // SAFETY: we are the receiver, and these are the rings of a tail.
        unsafe { self.state.rings.find(position, span.claimed) }
    }

    /// Returns the stamp of a position that is in the span and not before `earlier`, and its ring.
    pub(super) fn stamp_behind(
        &self,
        span: &Span,
        earlier: Option<Place>,
        position: u64,
    ) -> (Stamp, usize) {
        let first = match earlier {
            // The ring holds a position from the head on, so it was not freed.
            Some(place) if behind(span.head, place.position) <= behind(span.head, position) => {
                place.ring
            }
            _ => self.state.rings.read_by_receiver(),
        };
        // SAFETY: we are the receiver, and these are the rings of a tail. A position is in no ring
        // before that of an earlier one.
        unsafe { self.state.rings.find_from(first, position, span.claimed) }
    }

    /// Returns the ring of a position in the span, if the position is written.
    pub(super) fn written(&self, span: &Span, position: u64) -> Option<(u64, usize)> {
        let (stamp, ring) = self.stamp(span, position);
        (stamp == Stamp::Written).then_some((position, ring))
    }

    /// Pauses, after the channel was found empty, if this is the end of a stream. Returns true if
    /// there are messages now, or messages that are coming.
    #[inline(always)]
    fn catches_up(&self) -> bool {
        let head = self.state.head();
        !cfg!(all(loom, test)) && self.state.back.pace.ends_stream(head) && self.pause()
    }

    #[cold]
    #[inline(never)]
    fn pause(&self) -> bool {
        self.state.back.pace.pause(|hints| {
            pause(hints);
            behind(
                self.state.head() & POSITION,
                self.state.front.tail.load(Ordering::SeqCst) & POSITION,
            )
        })
    }

    /// Finds the message to receive next. Waits at most 100 looks, 1 to 5 µs, for the message at
    /// the head, and otherwise for no sender.
    #[inline(never)]
    fn find(self) -> Found<'a> {
        let state = self.state;
        // On a detour the tail, which senders write, is read only when no position that was claimed
        // at the last look has a message.
        let mut locked = (state.head() & DETOUR != 0).then(|| state.detour.lock());
        if let Some(detour) = &mut locked {
            let known = self.span(detour.word);
            if let Some((position, ring)) = detour.first_written(&self, &known) {
                return Found::Message(Written { reader: self, position, ring, detour: locked });
            }
        }
        // "Empty" and "gone" are read at once: between two readings a last message could come.
        let word = state.front.tail.load(Ordering::SeqCst);
        if locked.as_ref().is_some_and(|detour| detour.word == word) {
            return Found::Coming;
        }
        let span = self.span(word);
        let head = span.head;
        if head == span.tail {
            if word & GONE == 0 && self.catches_up() {
                return self.find();
            }
            self.rest();
            return if word & GONE != 0 { Found::End } else { Found::Nothing };
        }
        let at_head = || {
            // SAFETY: we are the receiver; these are its head and the rings of a tail.
            unsafe { state.rings.enter(head, span.claimed) };
            self.written(&span, head)
        };
        let mut found = at_head();
        if found.is_none() {
            let detour = &mut **locked.get_or_insert_with(|| state.detour.lock());
            if detour.taken == 0 && wait_briefly(100, || self.is_head_written(head)) {
                found = at_head();
            }
            if found.is_none() {
                if detour.taken == 0 {
                    detour.begin(head);
                }
                detour.word = word;
                found = detour.first_written(&self, &span);
            }
        }
        found.map_or(Found::Coming, |(position, ring)| {
            Found::Message(Written { reader: self, position, ring, detour: locked })
        })
    }

    #[inline(always)]
    fn is_head_written(&self, head: u64) -> bool {
        // SAFETY: we are the receiver.
        unsafe { self.state.rings.is_written(head) }
    }

    /// Shrinks the ring, after the channel was found empty, if the ring is large and was nearly
    /// empty for long.
    #[inline]
    fn rest(&self) {
        if self.state.rings.is_large() {
            self.rest_large();
        }
    }

    #[cold]
    #[inline(never)]
    fn rest_large(&self) {
        let state = self.state;
        let word = state.front.tail.load(Ordering::SeqCst);
        let (head, from) = (state.head(), ring(word));
        // A head with a detour is another one.
        if head != word & POSITION || word & CLOSED != 0 || state.rings.reading() != from {
            return;
        }
        let observation = state.observe(from, 0);
        state.front.head_seen.store(state.head_for(from, head, observation), Ordering::Release);
        let smaller = observation.enough.and_then(|enough| state.prepare_smaller(from, enough));
        let Some(smaller) = smaller else { return };
        let (rings, next) = (smaller.rings, smaller.upper(word) | head);
        if state
            .front
            .tail
            .compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
        {
            smaller.keep();
            // SAFETY: we are the receiver. The tail is in this ring now, and is the head.
            unsafe {
                state.rings.set_start(rings & RING, head);
                state.rings.enter(head, rings);
            }
        }
    }

    /// Closes the channel for a receiver that is going. Refuses every later claim, wakes all
    /// senders that wait, and asks senders to drop messages that they have not written yet.
    fn close(&self) {
        self.state.front.tail.fetch_or(CLOSED, Ordering::SeqCst);
        self.state.targets.set(None);
        self.state.request.ask_to_drop();
        fence(Ordering::SeqCst);
        self.state.wake_senders(usize::MAX >> 1);
    }
}

impl Written<'_> {
    /// Moves the head after the message was taken out, or notes that it was taken out of turn.
    fn pass(self) {
        let Written { reader, position, ring, detour } = self;
        let state = reader.state;
        let head = state.head() & POSITION;
        let detour = &mut *detour.unwrap_or_else(|| state.detour.lock());
        if position != head {
            // SAFETY: we are the receiver and have taken the message.
            unsafe { state.rings.set_taken(ring, position) };
            detour.taken += 1;
            detour.fill(position);
            state.back.head.store(head | DETOUR, Ordering::Release);
            return;
        }
        let span = reader.span(state.front.tail.load(Ordering::SeqCst));
        let (mut next, mut freed) = (state.after(head), 1);
        loop {
            // SAFETY: we are the receiver. All positions before this one are received, and these
            // are the rings of a tail.
            unsafe { state.rings.enter(next, span.claimed) };
            if detour.taken == 0 || reader.stamp(&span, next).0 != Stamp::Taken {
                break;
            }
            detour.taken -= 1;
            (next, freed) = (state.after(next), freed + 1);
        }
        detour.pass(head, next);
        reader.move_head(if detour.taken > 0 { next | DETOUR } else { next }, freed);
    }
}

impl Probe for State {
    fn typed(self: Arc<Self>) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(self)
    }

    #[inline]
    fn look(&self) -> Look {
        if self.is_quiet() {
            if !self.rings.is_large() {
                return Look::Quiet;
            }
        } else if self.probing().is_head_written(self.head()) {
            return Look::Ready;
        }
        self.look_closely()
    }

    fn request(&self) -> &RequestCell {
        &self.request
    }

    fn follow(&self, clock: Box<dyn Fn() -> Time + Send + Sync>) {
        self.follow(Some(clock));
    }
}

impl State {
    /// The reader of a probe.
    #[inline(always)]
    fn probing(&self) -> Reader<'_> {
        // SAFETY: a probe does not leave the thread of its receiver. Its reactor, or a `Select` of
        // that receiver, lets go of it before the receiver moves. (A thread that sleeps without a
        // reactor is the receiver.)
        unsafe { self.reader() }
    }

    /// [`Probe::look`] at a channel that [has news](Self::has_news).
    #[inline(always)]
    pub(crate) fn look_at_news(&self) -> Look {
        if self.probing().is_head_written(self.head()) {
            return Look::Ready;
        }
        self.look_closely()
    }

    #[inline(never)]
    fn look_closely(&self) -> Look {
        let reader = self.probing();
        if self.is_quiet() {
            reader.rest();
            return Look::Quiet;
        }
        match reader.find() {
            Found::Message(_) | Found::End => Look::Ready,
            Found::Nothing => Look::Quiet,
            Found::Coming => Look::Coming,
        }
    }
}

//! The slots of a buffered channel: a ring of a power of two of them, which an unbounded channel
//! replaces by a ring of twice the size when the ring is full.
//!
//! # Two parts
//! [`Rings`] knows positions and stamps, and not the type of the messages: a reactor that asks for
//! news holds this part. [`Tail`] and [`Head`] are the ends that know the type.
//!
//! # Stamps
//! A slot is written by the sender that claimed its position, and read by the receiver. Its stamp
//! says for which position it holds a value, or held one that was taken out of turn. A stamp is
//! never taken back: the position of the next lap makes it stale.
//!
//! # Growing
//! The word that claims a position names its ring (`State`), by the *level*: the ring of each level
//! has twice the slots of the one below. The first sender to claim in a ring says where it starts.
//! The receiver goes over to the ring there and frees the ring that it leaves, in which nobody can
//! have a position any more. So a channel keeps one ring, at most twice as large as it was ever
//! full since the ring shrank last.
//!
//! # Shrinking
//! A smaller ring replaces a larger one in the same way (`usage.rs` says when). Each level has a
//! ring on each of two *sides*. Growing stays on its side, and shrinking goes to the other side. A
//! ring may shrink only while the receiver reads the ring that the tail is in: then it has left the
//! other side. So every ring that is in use has a number of its own, level and side, and the tail's
//! word says the order: from the ring that is read up to the top of its side, then from the *base*
//! of the tail's side up to the tail's ring.
//!
//! A late sender may make a ring on a side that was left: it has prepared a growth that cannot
//! happen any more. Nobody uses that ring. The receiver frees it when it leaves that side again.
//!
//! Longer than 500 lines: `Rings` and both ends keep one promise about stamps and
//! claims, which the `unsafe` blocks rely on; the tests look at private fields.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::TryRecvError;
use super::state::{
    FIRST_LEVEL, Found, LEVEL, LEVELS, MAX_CAPACITY, Place, Refused, SIDE, State, base, is_ahead,
};
use super::usage::KEPT;
use crate::sync::{
    AtomicPtr, AtomicU64, AtomicUsize, Ordering, STAMP, UnsafeCell, claim_fence, publish_fence,
    settle_fence,
};
use crate::wake::Asked;

/// Set in the stamp of a slot that holds a value. A fresh slot (0) has no flag.
const WRITTEN: u64 = 1 << 63;
/// Set in the stamp of a slot whose value is out, though the head is not past it.
const TAKEN: u64 = 1 << 62;
/// No position: the level has not begun.
const NOWHERE: u64 = u64::MAX;

#[repr(C)]
struct Slot<T> {
    /// First, so that it can be found without the type.
    stamp: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The head of a ring. Its slots follow in the same piece of memory.
#[repr(C)]
struct Ring {
    mask: u64,
    /// The first position in this ring; `NOWHERE` until it was claimed.
    start: AtomicU64,
}

/// How the slots of a channel lie in memory: what is left of the type.
#[derive(Clone, Copy)]
struct Shape {
    /// How far behind the ring's head its slots begin.
    slots_at: usize,
    stride: usize,
    align: usize,
    /// loom's atomics and cells are no zeroes: this makes and drops a slot of them.
    #[cfg(all(loom, test))]
    model: (fn(NonNull<u8>), fn(NonNull<u8>)),
}

/// A slot of the head position or of one behind it, and the ring that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    /// Claimed at the most.
    Unwritten,
    Written,
    Taken,
}

/// A written message that the receiver has found: the right to take it out, once.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) position: u64,
    ring: usize,
}

/// The rings of a channel, without the type of its messages: one ring for a bounded channel, a
/// series for an unbounded one, of which the receiver has freed the first ones.
pub(super) struct Rings {
    /// The number of the ring that the receiver reads. A sender looks at it before it shrinks.
    reading: AtomicUsize,
    first: AtomicPtr<Ring>,
    /// The rings with other numbers than 0; none for a bounded channel.
    above: Box<[AtomicPtr<Ring>]>,
    shape: Shape,
    /// The highest level whose ring never shrinks.
    kept: usize,
}

impl Shape {
    fn of<T>() -> Shape {
        #[cfg(all(loom, test))]
        fn make<T>(at: NonNull<u8>) {
            let (stamp, value) = (AtomicU64::new(0), UnsafeCell::new(MaybeUninit::uninit()));
            // SAFETY: `Rings::allocate` calls it once for each slot of fresh memory of this shape.
            unsafe { at.cast::<Slot<T>>().write(Slot { stamp, value }) };
        }
        #[cfg(all(loom, test))]
        fn unmake<T>(at: NonNull<u8>) {
            // SAFETY: `Rings::free` calls it once for each slot that `make` made.
            unsafe { at.cast::<Slot<T>>().drop_in_place() };
        }
        Shape {
            slots_at: size_of::<Ring>().next_multiple_of(align_of::<Slot<T>>()),
            stride: size_of::<Slot<T>>(),
            align: align_of::<Slot<T>>(),
            #[cfg(all(loom, test))]
            model: (make::<T>, unmake::<T>),
        }
    }

    /// The memory of a ring of `len` slots; `None` if there is no such amount.
    fn layout(&self, len: usize) -> Option<Layout> {
        let size = self.stride.checked_mul(len)?.checked_add(self.slots_at)?;
        Layout::from_size_align(size, self.align.max(align_of::<Ring>())).ok()
    }
}

impl Rings {
    /// One ring for `capacity`.
    pub(super) fn bounded<T>(capacity: usize) -> Rings {
        Rings::with(Shape::of::<T>(), capacity, 0)
    }

    /// A small ring, to be replaced by larger ones.
    pub(super) fn unbounded<T>() -> Rings {
        Rings::with(Shape::of::<T>(), FIRST_LEVEL, SIDE + LEVELS - 1)
    }

    fn with(shape: Shape, first: usize, above: usize) -> Rings {
        let none = || AtomicPtr::new(ptr::null_mut());
        Rings {
            reading: AtomicUsize::new(0),
            first: AtomicPtr::new(Rings::allocate(shape, first, 0).as_ptr()),
            above: std::iter::repeat_with(none).take(above).collect(),
            shape,
            kept: if above == 0 { usize::MAX } else { Rings::kept(&shape) },
        }
    }

    fn kept(shape: &Shape) -> usize {
        let is_small = |level: usize| (FIRST_LEVEL << level).saturating_mul(shape.stride) <= KEPT;
        if cfg!(all(loom, test)) {
            0
        } else {
            (1..LEVELS).take_while(|&level| is_small(level)).count()
        }
    }

    /// The highest level whose ring never shrinks.
    pub(super) fn kept_level(&self) -> usize {
        self.kept
    }

    /// Returns true if the ring that the receiver reads may shrink.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.reading.load(Ordering::Relaxed) & LEVEL > self.kept
    }

    /// The number of the ring that the receiver reads. It has left all earlier ones.
    pub(super) fn reading(&self) -> usize {
        self.reading.load(Ordering::Acquire)
    }

    /// A ring with nothing in it. It asks for zeroed memory, which for many slots costs nothing
    /// until it is used.
    fn allocate(shape: Shape, capacity: usize, start: u64) -> NonNull<Ring> {
        assert!(
            capacity <= MAX_CAPACITY,
            "pollmux: a channel of {capacity} is more than the {MAX_CAPACITY} there can be"
        );
        let len = capacity.next_power_of_two();
        let Some(layout) = shape.layout(len) else {
            panic!("pollmux: a channel of {capacity} does not fit into memory")
        };
        // SAFETY: the layout is not empty: there is a mask in it.
        let Some(ring) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let ring = ring.cast::<Ring>();
        // SAFETY: the memory is fresh and has room for a `Ring` at its beginning, aligned as the
        // layout says. A slot of zeroes is a valid slot, but for loom's, which are made here.
        unsafe {
            ring.write(Ring { mask: len as u64 - 1, start: AtomicU64::new(start) });
            #[cfg(all(loom, test))]
            for position in 0..len as u64 {
                (shape.model.0)(Rings::place(ring, shape, position));
            }
        }
        ring
    }

    /// # Safety
    /// The ring must be from `allocate` with this shape, not freed, and nobody may use it any more.
    unsafe fn free(ring: NonNull<Ring>, shape: Shape) {
        // SAFETY: by the caller's promise it is a live ring.
        let mask = unsafe { ring.as_ref() }.mask;
        #[cfg(all(loom, test))]
        for position in 0..=mask {
            // SAFETY: the slot is in the ring and was made in `allocate`. This is its end.
            (shape.model.1)(unsafe { Rings::place(ring, shape, position) });
        }
        let Some(layout) = shape.layout(mask as usize + 1) else {
            unreachable!("it was allocated")
        };
        // SAFETY: the head was made in `allocate`, with the same layout, for it had the same
        // length.
        unsafe {
            ring.drop_in_place();
            dealloc(ring.as_ptr().cast::<u8>(), layout);
        }
    }

    /// The slot of a position, without its type.
    ///
    /// # Safety
    /// The ring must be from `allocate` with this shape, and not freed.
    #[inline(always)]
    unsafe fn place(ring: NonNull<Ring>, shape: Shape, position: u64) -> NonNull<u8> {
        // SAFETY: the ring is live. Its `mask + 1` slots begin at `slots_at`, in the same memory.
        unsafe {
            let index = (position & (*ring.as_ptr()).mask) as usize;
            ring.cast::<u8>().add(shape.slots_at + index * shape.stride)
        }
    }

    /// The place of the ring of this number. Mostly it is the first.
    #[inline(always)]
    fn place_of(&self, ring: usize) -> &AtomicPtr<Ring> {
        if ring == 0 { &self.first } else { &self.above[ring - 1] }
    }

    /// Makes the ring of this number, if nobody has yet. A sender that comes late, when the number
    /// is past, makes a ring that nobody uses.
    #[cold]
    pub(super) fn prepare(&self, ring: usize) {
        let level = ring & LEVEL;
        assert!(level < LEVELS, "pollmux: an unbounded channel holds too many messages");
        let place = self.place_of(ring);
        if !place.load(Ordering::Acquire).is_null() {
            return;
        }
        let ring = Rings::allocate(self.shape, FIRST_LEVEL << level, NOWHERE);
        let (none, ours) = (ptr::null_mut(), ring.as_ptr());
        if place.compare_exchange(none, ours, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: allocated above, and nobody else has seen it.
            unsafe { Rings::free(ring, self.shape) };
        }
    }

    /// # Safety
    /// The ring must exist and not be freed while it is used: the caller has claimed a position in
    /// this ring that was not received; or it is the receiver, and the ring is the one that it
    /// reads, or a later one that the tail's word has named.
    #[inline(always)]
    unsafe fn ring(&self, ring: usize) -> NonNull<Ring> {
        // SAFETY: by the caller's promise there is a ring.
        unsafe { NonNull::new_unchecked(self.place_of(ring).load(Ordering::Acquire)) }
    }

    /// The stamp of the slot that `position` has in the ring of this number.
    ///
    /// # Safety
    /// As for [`ring`](Self::ring), for as long as the stamp is used.
    #[inline(always)]
    unsafe fn stamp(&self, ring: usize, position: u64) -> &AtomicU64 {
        // SAFETY: the ring is live, and a slot begins with its stamp.
        unsafe { Rings::place(self.ring(ring), self.shape, position).cast::<AtomicU64>().as_ref() }
    }

    /// The ring behind this one, up to the tail's, which `claimed` names with the base of its side.
    fn next(ring: usize, claimed: usize) -> Option<usize> {
        if (ring ^ claimed) & SIDE != 0 {
            return Some(claimed & SIDE | base(claimed));
        }
        (ring & LEVEL < claimed & LEVEL).then_some(ring + 1)
    }

    // The receiver's side. None of these waits for a sender.

    /// Goes over to the rings that begin at `head` or before, up to `claimed`, the rings of the
    /// tail. Frees the rings that are left.
    ///
    /// # Safety
    /// Only the receiver may call it, with its head and the rings of a tail it has read.
    pub(super) unsafe fn enter(&self, head: u64, claimed: usize) {
        loop {
            let reading = self.reading.load(Ordering::Relaxed);
            let Some(next) = Rings::next(reading, claimed) else { return };
            // SAFETY: the tail has gone past the ring that is read, so the next one is there, and
            // only we could free it.
            let ring = unsafe { self.ring(next).as_ref() };
            // A ring's first message may be found before its start is: then the head is past it.
            let start = ring.start.load(Ordering::Acquire);
            if start == NOWHERE || is_ahead(start, head) {
                return;
            }
            // SAFETY: every position of the ring was received, so its senders have written them
            // and are gone from the ring. Nobody can claim another one: the tail does not come back
            // to this number before we have left it, and then with a new ring.
            unsafe { self.remove(reading) };
            if (reading ^ next) & SIDE != 0 {
                for level in 0..LEVELS {
                    // SAFETY: late senders have made these, for words that the tail had before it
                    // left the side. Nobody has claimed or can claim a position in them: the tail
                    // comes back to the side only after the store below.
                    unsafe { self.remove(reading & SIDE | level) };
                }
            }
            // Release: a sender that reads this may come back to the numbers that are free now.
            self.reading.store(next, Ordering::Release);
        }
    }

    /// Frees the ring of this number, if there is one.
    ///
    /// # Safety
    /// Nobody may have a position in it that was not received, or claim one.
    pub(super) unsafe fn remove(&self, ring: usize) {
        let left = self.place_of(ring).swap(ptr::null_mut(), Ordering::AcqRel);
        if let Some(left) = NonNull::new(left) {
            // SAFETY: by the caller's promise nobody uses it, and nobody else finds it.
            unsafe { Rings::free(left, self.shape) };
        }
    }

    /// Says where a ring starts that the receiver has made the tail's.
    ///
    /// # Safety
    /// Only the receiver may call it, for the ring of the tail, before it enters that ring.
    pub(super) unsafe fn set_start(&self, ring: usize, position: u64) {
        // SAFETY: by the caller's promise the ring is there and not past.
        unsafe { self.ring(ring).as_ref() }.start.store(position, Ordering::Relaxed);
    }

    /// Returns true if the message of `head`, the receiver's, is there.
    ///
    /// # Safety
    /// Only the receiver may call it.
    #[inline(always)]
    pub(super) unsafe fn is_written(&self, head: u64) -> bool {
        // SAFETY: the ring that the receiver reads.
        let stamp = unsafe { self.stamp(self.reading.load(Ordering::Relaxed), head) };
        stamp.load(Ordering::Acquire) == head | WRITTEN
    }

    /// The stamp of a position from the head up to the tail, and its ring, if it has a stamp.
    ///
    /// # Safety
    /// Only the receiver may call it, with the rings of the tail.
    unsafe fn find(&self, position: u64, claimed: usize) -> (Stamp, usize) {
        let reading = self.reading.load(Ordering::Relaxed);
        let mut next = Some(reading);
        while let Some(ring) = next {
            // SAFETY: from the ring that is read up to the tail's the word of the tail names all.
            match unsafe { self.stamp(ring, position) }.load(Ordering::Acquire) {
                stamp if stamp == position | WRITTEN => return (Stamp::Written, ring),
                stamp if stamp == position | TAKEN => return (Stamp::Taken, ring),
                _ => next = Rings::next(ring, claimed),
            }
        }
        (Stamp::Unwritten, reading)
    }

    /// The message of a position from the head up to the tail: found, or none.
    ///
    /// # Safety
    /// As for [`find`](Self::find).
    pub(super) unsafe fn written(&self, position: u64, claimed: usize) -> Option<Written> {
        // SAFETY: by the caller's promise.
        match unsafe { self.find(position, claimed) } {
            (Stamp::Written, ring) => Some(Written { position, ring }),
            _ => None,
        }
    }

    /// Returns true if the message of this position was taken out of turn.
    ///
    /// # Safety
    /// As for [`find`](Self::find).
    pub(super) unsafe fn is_taken(&self, position: u64, claimed: usize) -> bool {
        // SAFETY: by the caller's promise.
        unsafe { self.find(position, claimed) }.0 == Stamp::Taken
    }

    /// Writes down that the message of `written` was taken out of turn.
    ///
    /// # Safety
    /// Only the receiver may call it, for a message that it has found and taken out.
    pub(super) unsafe fn set_taken(&self, written: &Written) {
        // SAFETY: the position is not past the head, so its ring is live.
        let stamp = unsafe { self.stamp(written.ring, written.position) };
        stamp.store(written.position | TAKEN, Ordering::Relaxed);
    }
}

impl Drop for Rings {
    /// Frees the rings. The values are gone.
    fn drop(&mut self) {
        for place in std::iter::once(&self.first).chain(&self.above) {
            if let Some(ring) = NonNull::new(place.load(Ordering::Acquire)) {
                // SAFETY: it was not freed, or it would not be here, and nobody else is left.
                unsafe { Rings::free(ring, self.shape) };
            }
        }
    }
}

/// The senders' end of a buffered channel.
pub(super) struct Tail<T> {
    state: Arc<State>,
    shared: Arc<Shared<T>>,
}

/// The receiver's end of a buffered channel. There is one, and it is not `Sync`.
pub(super) struct Head<T> {
    state: Arc<State>,
    shared: Arc<Shared<T>>,
    not_sync: PhantomData<Cell<()>>,
}

/// Both ends hold this, so that the last one drops what nobody else has dropped. (Each end has the
/// state, too, one pointer nearer.)
struct Shared<T> {
    state: Arc<State>,
    values: PhantomData<T>,
}

// SAFETY: a value is moved in by one thread and out by another, never shared. A slot is written
// only by the one sender that claimed its position, and read only by the receiver, or by that
// sender, whoever changes its stamp.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// The two ends of a channel with this state, whose rings were made for this type.
pub(super) fn ends<T>(capacity: Option<usize>) -> (Tail<T>, Head<T>) {
    let rings = match capacity {
        Some(capacity) => Rings::bounded::<T>(capacity),
        None => Rings::unbounded::<T>(),
    };
    let state = Arc::new(State::new(capacity, rings));
    let shared = Arc::new(Shared { state: state.clone(), values: PhantomData });
    let tail = Tail { state: state.clone(), shared: shared.clone() };
    (tail, Head { state, shared, not_sync: PhantomData })
}

impl<T> Shared<T> {
    /// The slot of `position` in the ring of this number.
    ///
    /// # Safety
    /// As for [`Rings::ring`], for as long as the slot is used.
    #[inline(always)]
    unsafe fn slot(&self, ring: usize, position: u64) -> &Slot<T> {
        let shape = Shape::of::<T>();
        // SAFETY: the rings were made with the shape of this type. A slot is only ever shared: what
        // changes in it are atomics and cells.
        unsafe { Rings::place(self.state.rings().ring(ring), shape, position).cast().as_ref() }
    }

    /// Moves the value of a slot out.
    ///
    /// # Safety
    /// The slot's stamp must have been seen to be written, and nobody else may take the value.
    #[inline(always)]
    unsafe fn read(&self, ring: usize, position: u64) -> T {
        // SAFETY: the position is not past the head, so its ring is live. The stamp has acquired
        // the sender's write, and by the caller's promise the value is read once.
        unsafe { self.slot(ring, position).value.with_mut(|from| (*from).assume_init_read()) }
    }

    /// Takes the value of a channel without a receiver out, if it is there and nobody else takes
    /// it.
    ///
    /// # Safety
    /// The receiver must be gone or going, and the position not received.
    unsafe fn take_left(&self, ring: usize, position: u64) -> Option<T> {
        // SAFETY: the receiver frees no ring any more.
        let stamp = unsafe { &self.slot(ring, position).stamp };
        let (written, taken) = (position | WRITTEN, position | TAKEN);
        stamp.compare_exchange(written, taken, Ordering::AcqRel, Ordering::Acquire).ok()?;
        // SAFETY: the exchange makes us the only one.
        Some(unsafe { self.read(ring, position) })
    }

    /// Drops the values that are in the channel and nobody else drops, also while one's drop
    /// unwinds. Returns true if there are unwritten positions.
    ///
    /// # Safety
    /// The receiver must be gone or going, and call it at most once at a time.
    unsafe fn drop_left(&self) -> bool {
        struct Rest<'a, T> {
            shared: &'a Shared<T>,
            next: u64,
            unwritten: bool,
        }
        impl<T> Rest<'_, T> {
            fn run(&mut self) {
                let state = &self.shared.state;
                let (tail, claimed) = state.claimed();
                while self.next != tail {
                    let position = self.next;
                    self.next = state.after(position);
                    // SAFETY: the receiver is going: we act for it, and take what nobody else does.
                    let left = unsafe {
                        let (stamp, ring) = state.rings().find(position, claimed);
                        self.unwritten |= stamp == Stamp::Unwritten;
                        if stamp == Stamp::Written {
                            self.shared.take_left(ring, position)
                        } else {
                            None
                        }
                    };
                    drop(left);
                }
            }
        }
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.run();
            }
        }
        if !std::mem::needs_drop::<T>() {
            return false;
        }
        let mut rest = Rest { shared: self, next: self.state.head_position(), unwritten: false };
        rest.run();
        rest.unwritten
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: both ends are gone.
        unsafe { self.drop_left() };
    }
}

impl<T> Tail<T> {
    #[inline(always)]
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Sends `value` if there is room.
    #[inline(always)]
    pub(super) fn try_send(&self, value: T) -> Result<(), (Refused, T)> {
        match self.state().claim() {
            Ok(place) => {
                self.write(place, value);
                Ok(())
            }
            Err(refused) => Err((refused, value)),
        }
    }

    /// Sends what `make` gives if there is room. `make` must not panic: its place is claimed.
    pub(super) fn try_send_with(&self, make: impl FnOnce() -> T) -> Result<(), Refused> {
        let place = self.state().claim()?;
        self.write(place, make());
        Ok(())
    }

    /// Sends `value` with a permit, which is used up.
    #[inline]
    pub(super) fn send_permitted(&self, value: T) -> Result<(), T> {
        match self.state().claim_permitted() {
            Ok(place) => {
                self.write(place, value);
                Ok(())
            }
            Err(_) => Err(value),
        }
    }

    /// Steps 2 to 7 of a sender (`wake/mod.rs`).
    #[inline(always)]
    fn write(&self, place: Place, value: T) {
        let Place { position, ring, first_of_ring } = place;
        claim_fence();
        if first_of_ring {
            // SAFETY: the claim gave us a position in this ring, after `prepare` had made it; the
            // receiver does not free the ring before it has received that position.
            let ring = unsafe { self.state().rings().ring(ring).as_ref() };
            ring.start.store(position, Ordering::Release);
        }
        // SAFETY: as above.
        let slot = unsafe { self.shared.slot(ring, position) };
        // SAFETY: the position is ours alone, and was claimed only after the receiver had taken the
        // value one lap before it out (acquired through `head`). Whatever the slot's bytes are, no
        // value is overwritten.
        slot.value.with_mut(|to| unsafe { (*to).write(value) });
        slot.stamp.store(position | WRITTEN, STAMP);
        publish_fence();
        let asked = self.state().asked();
        if asked.is_some() {
            self.answer(asked, position, ring);
        }
    }

    #[inline(never)]
    fn answer(&self, asked: Asked, position: u64, ring: usize) {
        // The receiver may have taken the message and then have gone: it is not ours any more.
        if self.state().answer(asked) || self.state().is_received(position) {
            return;
        }
        // SAFETY: the receiver is gone, and the position was not received.
        drop(unsafe { self.shared.take_left(ring, position) });
    }
}

/// A send in two parts, for tests of a sender that stands still between them.
#[cfg(test)]
impl<T> Tail<T> {
    pub(super) fn begin(&self) -> Place {
        self.state().claim().expect("room")
    }

    pub(super) fn finish(&self, place: Place, value: T) {
        self.write(place, value);
    }
}

impl<T> Clone for Tail<T> {
    fn clone(&self) -> Tail<T> {
        Tail { state: self.state.clone(), shared: self.shared.clone() }
    }
}

impl<T> Head<T> {
    #[inline(always)]
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Returns true if the message of the head is there.
    #[inline(always)]
    fn is_written(&self, head: u64) -> bool {
        let reading = self.state().rings().reading.load(Ordering::Relaxed);
        // SAFETY: we are the receiver, and this is the ring that it reads.
        let slot = unsafe { self.shared.slot(reading, head) };
        slot.stamp.load(Ordering::Acquire) == head | WRITTEN
    }

    #[inline(always)]
    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        let state = self.state();
        let head = state.head();
        let reading = state.rings().reading.load(Ordering::Relaxed);
        // SAFETY: we are the receiver, and this is the ring that it reads.
        let slot = unsafe { self.shared.slot(reading, head) };
        // A head with a detour has a bit that no stamp has.
        if slot.stamp.load(Ordering::Acquire) != head | WRITTEN {
            return self.try_recv_slow();
        }
        // SAFETY: the stamp has acquired the sender's write. Only we take: there is one receiver,
        // which is not shared, and no sender writes the slot before it has seen the next head.
        let value = slot.value.with_mut(|from| unsafe { (*from).assume_init_read() });
        state.taken(head);
        Ok(value)
    }

    #[inline(never)]
    fn try_recv_slow(&self) -> Result<T, TryRecvError> {
        // SAFETY: we are the receiver.
        match unsafe { self.state().find() } {
            Found::Message(written) => {
                // SAFETY: it was found, and only we take.
                let value = unsafe { self.shared.read(written.ring, written.position) };
                // SAFETY: we are the receiver, and the value is out.
                unsafe { self.state().received(written) };
                Ok(value)
            }
            Found::End => Err(TryRecvError::Disconnected),
            Found::Nothing | Found::Coming => Err(TryRecvError::Empty),
        }
    }

    /// After the channel was found empty: the ring may shrink.
    #[inline]
    pub(super) fn rest(&self) {
        // SAFETY: we are the receiver.
        unsafe { self.state().rest() };
    }

    /// Returns true if `try_recv` would give a message or the end.
    #[inline(always)]
    pub(super) fn is_ready(&self) -> bool {
        self.is_written(self.state().head()) || self.is_ready_slow()
    }

    #[inline]
    fn is_ready_slow(&self) -> bool {
        // SAFETY: we are the receiver.
        !self.state().is_quiet()
            && matches!(unsafe { self.state().find() }, Found::Message(_) | Found::End)
    }
}

impl<T> Drop for Head<T> {
    /// Closes the channel and drops what is in it. Waits for nobody: a sender that has claimed a
    /// position and not written its message drops that message itself.
    fn drop(&mut self) {
        self.state().close();
        // SAFETY: we are the receiver, and going.
        if unsafe { self.shared.drop_left() } {
            // A sender that stores its stamp after this fence sees the request and drops its
            // message. What it stored before is visible now. Without the fence the drop of the last
            // end does the rest.
            settle_fence();
            // SAFETY: as above.
            unsafe { self.shared.drop_left() };
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::Time;

    /// So large that a ring of 128 slots may shrink.
    type Large = [u64; 64];

    #[derive(Clone, Debug)]
    enum Op {
        Send(u64),
        Receive(u64),
        /// A sender claims a position, and stands still.
        Begin,
        /// The nth of those goes on.
        Finish(usize),
        /// ms
        Advance(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..12_u64).prop_map(Op::Send),
            2 => (0..700_u64).prop_map(Op::Send),
            4 => (0..12_u64).prop_map(Op::Receive),
            3 => (0..900_u64).prop_map(Op::Receive),
            1 => Just(Op::Begin),
            2 => any::<usize>().prop_map(Op::Finish),
            3 => (0..1_500_u64).prop_map(Op::Advance),
        ]
    }

    /// A channel on a clock, and what it must hold.
    struct Pair {
        tail: Tail<Large>,
        head: Head<Large>,
        clock: Arc<AtomicU64>,
        /// Written messages that were not received, by their positions.
        written: BTreeMap<u64, u64>,
        standing: Vec<(Place, u64)>,
        next: u64,
        /// Times that the tail went to a smaller ring.
        shrinks: usize,
    }

    impl Pair {
        fn new() -> Pair {
            let (tail, head) = ends(None);
            let clock = Arc::new(AtomicU64::new(0));
            let read = clock.clone();
            let now = move || Time::from_nanos(read.load(Ordering::Relaxed));
            head.state().follow(Some(Box::new(now)));
            let (written, standing) = (BTreeMap::new(), Vec::new());
            Pair { tail, head, clock, written, standing, next: 0, shrinks: 0 }
        }

        fn ring(&self) -> usize {
            self.head.state().claimed().1 & LEVEL
        }

        fn apply(&mut self, op: Op) {
            let before = self.ring();
            match op {
                Op::Send(n) => {
                    for _ in 0..n {
                        assert!(self.tail.try_send([self.next; 64]).is_ok());
                        self.written.insert(self.next, self.next);
                        self.next += 1;
                        self.shrinks += usize::from(self.ring() < before);
                    }
                }
                Op::Receive(n) => (0..n).for_each(|_| self.receive()),
                Op::Begin => {
                    let place = self.tail.begin();
                    assert_eq!(place.position, self.next);
                    self.standing.push((place, self.next));
                    self.next += 1;
                }
                Op::Finish(n) if !self.standing.is_empty() => {
                    let (place, value) = self.standing.swap_remove(n % self.standing.len());
                    self.written.insert(place.position, value);
                    self.tail.finish(place, [value; 64]);
                }
                Op::Finish(_) => {}
                Op::Advance(ms) => {
                    self.clock.fetch_add(ms * 1_000_000, Ordering::Relaxed);
                }
            }
            self.shrinks += usize::from(self.ring() < before);
        }

        fn receive(&mut self) {
            let expected = self.written.pop_first().map(|(_, value)| value);
            let received = self.head.try_recv().ok();
            assert!(received.is_none_or(|value| value.iter().all(|&part| part == value[0])));
            assert_eq!(received.map(|value| value[0]), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 150,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_channel_that_shrinks_behaves_like_a_queue(
            ops in proptest::collection::vec(op(), 1..60),
        ) {
            let mut pair = Pair::new();
            ops.into_iter().for_each(|op| pair.apply(op));
            while !pair.standing.is_empty() {
                pair.apply(Op::Finish(0));
            }
            // And now it shrinks for sure.
            pair.apply(Op::Send(700));
            pair.apply(Op::Receive(2_000_000_u64.min(pair.written.len() as u64 + 1)));
            // By what was used in the last second; by what was used since; and a look at the ring.
            for _ in 0..3 {
                pair.apply(Op::Advance(1_000));
                pair.apply(Op::Receive(1));
            }
            prop_assert!(pair.shrinks > 0);
            prop_assert!(!pair.head.state().rings().is_large());
            let rings = pair.head.state().rings();
            let places = std::iter::once(&rings.first).chain(&rings.above);
            let kept = places.filter(|place| !place.load(Ordering::Relaxed).is_null());
            prop_assert_eq!(kept.count(), 1);
        }
    }

    /// A sender that stands still between its stamp and its look at the request. Meanwhile the
    /// receiver takes the message, and goes.
    #[test]
    fn a_late_sender_leaves_a_received_message_alone() {
        for capacity in [Some(1), None] {
            let (tail, head) = ends(capacity);
            let value = Arc::new(());
            assert!(tail.try_send(value.clone()).is_ok());
            let received = head.try_recv().expect("it was sent");
            drop(head);
            tail.answer(tail.state().asked(), 0, 0);
            assert_eq!(Arc::strong_count(&value), 2, "dropped by both");
            drop(received);
        }
    }

    #[test]
    fn a_ring_shrinks_past_a_sender_that_stands_still() {
        let mut pair = Pair::new();
        pair.apply(Op::Send(600));
        pair.apply(Op::Receive(600));
        pair.apply(Op::Begin);
        // Always a message there: only senders see it.
        pair.apply(Op::Send(3));
        for _ in 0..40 {
            pair.apply(Op::Send(20));
            pair.apply(Op::Receive(20));
            pair.apply(Op::Advance(100));
            if pair.shrinks > 0 {
                break;
            }
        }
        // It holds the slots behind it: those count as used.
        pair.apply(Op::Finish(0));
        for _ in 0..60 {
            pair.apply(Op::Receive(20));
            pair.apply(Op::Send(20));
            pair.apply(Op::Advance(100));
        }
        assert!(pair.shrinks > 0);
        let left = pair.written.len() as u64;
        pair.apply(Op::Receive(left + 1));
        assert!(!pair.head.state().rings().is_large());
    }
}

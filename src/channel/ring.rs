//! The slots of a buffered channel: a ring whose length is a power of two. An unbounded channel
//! replaces a full ring by a ring of twice the size.
//!
//! [`Rings`] knows positions and stamps, but not the type of the messages. A reactor that asks for
//! news holds this part. `tail.rs` and `head.rs` have the ends that know the type.
//!
//! # Stamps
//! A slot is written by the sender that claimed its position, and read by the receiver. Its stamp
//! says for which position it holds a value, or held one that was taken out of turn. A stamp is
//! never taken back: the position of the next lap makes it stale.
//!
//! # Growing
//! The word that claims a position names its ring (`State`) by the *level*: the ring of each level
//! has twice the slots of the level below. The first sender to claim in a ring stores where the
//! ring starts. At that position the receiver goes over to the ring, and frees the ring that it
//! leaves. Nobody can have a position in the old ring any more. So a channel keeps one ring. It is
//! at most twice as large as the channel was ever full since the ring last shrank.
//!
//! # Shrinking
//! A smaller ring replaces a larger one in the same way (`usage.rs` says when). Each level has a
//! ring on each of two *sides*. Growing stays on its side, and shrinking goes to the other side. A
//! ring may shrink only while the receiver reads the ring that the tail is in: then the receiver
//! has left the other side. So every ring in use has a number of its own, level and side. The
//! tail's word says the order. The first rings go from the ring that is read up to the top of its
//! side. The others go from the *base* of the tail's side up to the tail's ring.
//!
//! A late sender may make a ring on a side that was left: it has prepared a growth that cannot
//! happen any more. Nobody uses that ring. The receiver frees it when it leaves that side again.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use super::state::{FIRST_LEVEL, LEVEL, LEVELS, MAX_CAPACITY, SIDE, base, is_ahead};
use super::usage::KEPT;
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// Set in the stamp of a slot that holds a value. A fresh slot (0) has no flag.
pub(super) const WRITTEN: u64 = 1 << 63;
/// Set in the stamp of a slot whose value is out, though the head is not past it.
pub(super) const TAKEN: u64 = 1 << 62;
/// No position: the level has not begun.
const NOWHERE: u64 = u64::MAX;

#[repr(C)]
pub(super) struct Slot<T> {
    /// The stamp. It comes first, so that it can be found without the type.
    pub(super) stamp: AtomicU64,
    pub(super) value: UnsafeCell<MaybeUninit<T>>,
}

/// The header of a ring. Its slots follow in the same piece of memory.
#[repr(C)]
pub(super) struct Ring {
    mask: u64,
    /// The first position in this ring; `NOWHERE` until it was claimed, and in a channel's first
    /// ring.
    pub(super) start: AtomicU64,
    #[cfg(all(loom, test))]
    born: crate::sync::Born,
}

/// The layout of a channel's slots in memory. Nothing else of the type is known here.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    stride: usize,
    /// The distance from the ring's head to its slots.
    slots_at: u32,
    align: u32,
    /// loom's atomics and cells cannot be zeroed memory. These functions make and drop such a slot.
    #[cfg(all(loom, test))]
    model: (fn(NonNull<u8>), fn(NonNull<u8>)),
}

/// The state of a position, the head or one behind it, by its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// The position is unclaimed, or claimed and not written.
    Unwritten,
    Written,
    Taken,
}

/// The rings of a channel, without the type of its messages. A bounded channel has one ring. An
/// unbounded channel has a series of rings, of which the receiver has freed the first ones.
pub(super) struct Rings {
    /// The number of the ring that the receiver reads. A sender looks at it before it shrinks.
    reading: AtomicUsize,
    first: AtomicPtr<Ring>,
    /// The rings with other numbers than 0; none for a bounded channel.
    above: Box<[AtomicPtr<Ring>]>,
    shape: Shape,
    /// The highest level whose ring never shrinks.
    pub(super) kept: usize,
}

impl Shape {
    pub(super) fn of<T>() -> Shape {
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
            stride: size_of::<Slot<T>>(),
            // An alignment is at most 2^29.
            slots_at: size_of::<Ring>().next_multiple_of(align_of::<Slot<T>>()) as u32,
            align: align_of::<Slot<T>>() as u32,
            #[cfg(all(loom, test))]
            model: (make::<T>, unmake::<T>),
        }
    }

    /// Returns the memory layout of a ring of `len` slots; `None` if there is no such amount.
    fn layout(&self, len: usize) -> Option<Layout> {
        let size = self.stride.checked_mul(len)?.checked_add(self.slots_at as usize)?;
        Layout::from_size_align(size, (self.align as usize).max(align_of::<Ring>())).ok()
    }
}

impl Rings {
    /// Makes one ring for `capacity`.
    pub(super) fn bounded<T>(capacity: usize) -> Rings {
        Rings::with(Shape::of::<T>(), capacity, 0)
    }

    /// Makes a small ring, which larger rings replace later.
    pub(super) fn unbounded<T>() -> Rings {
        Rings::with(Shape::of::<T>(), FIRST_LEVEL, SIDE + LEVELS - 1)
    }

    fn with(shape: Shape, first: usize, above: usize) -> Rings {
        let none = || AtomicPtr::new(ptr::null_mut());
        Rings {
            reading: AtomicUsize::new(0),
            first: AtomicPtr::new(Rings::allocate(shape, first).as_ptr()),
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

    /// Returns true if the ring that the receiver reads may shrink.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.read_by_receiver() & LEVEL > self.kept
    }

    /// Returns the number of the ring that the receiver reads. It has left all earlier ones.
    pub(super) fn reading(&self) -> usize {
        self.reading.load(Ordering::Acquire)
    }

    /// [`reading`](Self::reading), for the receiver itself.
    #[inline(always)]
    pub(super) fn read_by_receiver(&self) -> usize {
        self.reading.load(Ordering::Relaxed)
    }

    /// Makes an empty ring. Asks for zeroed memory, which costs nothing for many slots until it is
    /// used.
    fn allocate(shape: Shape, capacity: usize) -> NonNull<Ring> {
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
            ring.write(Ring {
                mask: len as u64 - 1,
                start: AtomicU64::new(NOWHERE),
                #[cfg(all(loom, test))]
                born: crate::sync::Born::new(),
            });
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

    /// Returns the slot of a position, without its type.
    ///
    /// # Safety
    /// The ring must be from `allocate` with this shape, and not freed.
    #[inline(always)]
    pub(super) unsafe fn place(ring: NonNull<Ring>, shape: Shape, position: u64) -> NonNull<u8> {
        // SAFETY: the ring is live. Its `mask + 1` slots begin at `slots_at`, in the same memory.
        unsafe {
            #[cfg(all(loom, test))]
            (*ring.as_ptr()).born.used();
            let index = (position & (*ring.as_ptr()).mask) as usize;
            ring.cast::<u8>().add(shape.slots_at as usize + index * shape.stride)
        }
    }

    /// Returns the place of the ring of this number. Mostly it is the first ring.
    #[inline(always)]
    fn place_of(&self, ring: usize) -> &AtomicPtr<Ring> {
        if ring == 0 { &self.first } else { &self.above[ring - 1] }
    }

    /// Makes the ring of this number, if no thread has made it yet. A sender that comes late, when
    /// the number is past, makes a ring that nobody uses.
    #[cold]
    pub(super) fn prepare(&self, ring: usize) {
        let level = ring & LEVEL;
        assert!(level < LEVELS, "pollmux: an unbounded channel holds too many messages");
        let place = self.place_of(ring);
        if !place.load(Ordering::Acquire).is_null() {
            return;
        }
        let ring = Rings::allocate(self.shape, FIRST_LEVEL << level);
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
    pub(super) unsafe fn ring(&self, ring: usize) -> NonNull<Ring> {
        // SAFETY: by the caller's promise there is a ring.
        unsafe { NonNull::new_unchecked(self.place_of(ring).load(Ordering::Acquire)) }
    }

    /// Returns the stamp of the slot that `position` has in the ring of this number.
    ///
    /// # Safety
    /// As for [`ring`](Self::ring), for as long as the stamp is used.
    #[inline(always)]
    unsafe fn stamp(&self, ring: usize, position: u64) -> &AtomicU64 {
        // SAFETY: the ring is live, and a slot begins with its stamp.
        unsafe { Rings::place(self.ring(ring), self.shape, position).cast::<AtomicU64>().as_ref() }
    }

    /// Returns the ring behind this one, up to the tail's ring. `claimed` names that ring and the
    /// base of its side.
    fn next(ring: usize, claimed: usize) -> Option<usize> {
        if (ring ^ claimed) & SIDE != 0 {
            return Some(claimed & SIDE | base(claimed));
        }
        (ring & LEVEL < claimed & LEVEL).then_some(ring + 1)
    }

    // The receiver's side. None of these waits for a sender.

    /// Goes over to the rings that begin at `head` or before, up to `claimed`, the rings of the
    /// tail. Frees the rings that are left behind.
    ///
    /// # Safety
    /// Only the receiver may call it, with its head and the rings of a tail it has read.
    pub(super) unsafe fn enter(&self, head: u64, claimed: usize) {
        loop {
            let reading = self.read_by_receiver();
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
            #[cfg(all(loom, test))]
            // SAFETY: it is freed below.
            unsafe { left.as_ref() }.born.freed();
            // SAFETY: by the caller's promise nobody uses it, and nobody else finds it.
            unsafe { Rings::free(left, self.shape) };
        }
    }

    /// Stores the start of a ring that the receiver has made the tail's.
    ///
    /// # Safety
    /// Only the receiver may call it, for the ring of the tail, before it enters that ring.
    pub(super) unsafe fn set_start(&self, ring: usize, position: u64) {
        // SAFETY: by the caller's promise the ring is there and not past.
        unsafe { self.ring(ring).as_ref() }.start.store(position, Ordering::Relaxed);
    }

    /// Returns true if the message of the receiver's head is there.
    ///
    /// # Safety
    /// Only the receiver may call it.
    #[inline(always)]
    pub(super) unsafe fn is_written(&self, head: u64) -> bool {
        // SAFETY: the ring that the receiver reads.
        let stamp = unsafe { self.stamp(self.read_by_receiver(), head) };
        stamp.load(Ordering::Acquire) == head | WRITTEN
    }

    /// Returns the stamp of a position from the head up to the tail, and its ring, if it has a
    /// stamp.
    ///
    /// # Safety
    /// Only the receiver may call it, with the rings of the tail.
    pub(super) unsafe fn find(&self, position: u64, claimed: usize) -> (Stamp, usize) {
        // SAFETY: the caller's promise.
        unsafe { self.find_from(self.read_by_receiver(), position, claimed) }
    }

    /// [`find`](Self::find) of a position that is in no ring before `first`.
    ///
    /// # Safety
    /// As for `find`. `first` must be the ring that is read, or a later one up to the tail's.
    pub(super) unsafe fn find_from(
        &self,
        first: usize,
        position: u64,
        claimed: usize,
    ) -> (Stamp, usize) {
        let mut next = Some(first);
        while let Some(ring) = next {
            // SAFETY: from the ring that is read up to the tail's the word of the tail names all.
            match unsafe { self.stamp(ring, position) }.load(Ordering::Acquire) {
                stamp if stamp == position | WRITTEN => return (Stamp::Written, ring),
                stamp if stamp == position | TAKEN => return (Stamp::Taken, ring),
                _ => next = Rings::next(ring, claimed),
            }
        }
        (Stamp::Unwritten, first)
    }

    /// Notes that the message of this position was taken out of turn.
    ///
    /// # Safety
    /// Only the receiver may call it, for a message that it has found in this ring and taken out.
    pub(super) unsafe fn set_taken(&self, ring: usize, position: u64) {
        // SAFETY: the position is not past the head, so its ring is live.
        unsafe { self.stamp(ring, position) }.store(position | TAKEN, Ordering::Relaxed);
    }

    /// The number of rings.
    #[cfg(all(test, not(loom)))]
    pub(super) fn count(&self) -> usize {
        let places = std::iter::once(&self.first).chain(&self.above);
        places.filter(|place| !place.load(Ordering::Relaxed).is_null()).count()
    }
}

impl Drop for Rings {
    /// Frees the rings. The values were dropped or taken before.
    fn drop(&mut self) {
        for place in std::iter::once(&self.first).chain(&self.above) {
            if let Some(ring) = NonNull::new(place.load(Ordering::Acquire)) {
                // SAFETY: it was not freed, or it would not be here, and nobody else is left.
                unsafe { Rings::free(ring, self.shape) };
            }
        }
    }
}

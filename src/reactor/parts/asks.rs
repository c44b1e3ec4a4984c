//! Requests of other threads for a reactor's timers. Requests for one timer coalesce.
//!
//! A request goes through the mailbox of posts as a *place*, which names the request's *note*. A
//! later request for the same slot replaces the note and leaves the place where it is in the
//! mailbox. So memory is bounded by the timers that have requests, and not by the requests.
//!
//! | word | says | changed by |
//! |---|---|---|
//! | `latest` of a slot | the last place of this slot in the mailbox, or none | compare-and-swap |
//! | `content` of a place | its note and a version; closed: the loop took it | compare-and-swap |
//!
//! # Memory
//! The table grows with the timers that have requests at one time, and with the slots whose ids are
//! given out. It does not grow with the number of requests. It stays until the reactor goes,
//! because a thread may look at any place, note or word at any time.
//!
//! # Order
//! A request may join a place if no closure of its thread lies behind that place. `closures` counts
//! the closures that are in the mailbox for sure. A place knows the count from before its push. If
//! the count is still the same, every closure of the joining thread was pushed before the place.
//!
//! A thread that puts a new place reads `latest`, pushes, and then exchanges what it has read for
//! its place. So a named place is behind every place that was named when its thread began. A thread
//! whose exchange fails names none: nobody can join a place with a completed request behind it.
//!
//! # Stalled threads
//! There are no locks. A place is pushed before it is named, so the loop finds every request that
//! has joined. No step of another thread changes that. Words that name a reused place or note carry
//! a number that does not come back, so an exchange for an old one fails.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// The bits of an index; the rest of a word is a number that grows.
const INDEX_BITS: u32 = 24;
const INDEX: u64 = (1 << INDEX_BITS) - 1;
/// No index.
const NIL: u64 = INDEX;
/// In the content of a place: the loop has taken it.
const CLOSED: u64 = 1 << 63;
/// The numbers that fit above an index, below [`CLOSED`].
const NUMBERS: u64 = (1 << (63 - INDEX_BITS)) - 1;

fn word(number: u64, index: u64) -> u64 {
    (number & NUMBERS) << INDEX_BITS | index
}

fn index(word: u64) -> u64 {
    word & INDEX
}

fn number(word: u64) -> u64 {
    (word & !CLOSED) >> INDEX_BITS
}

/// One request or several ones for the same slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// The timer: slot and generation.
    pub(crate) token: u64,
    pub(crate) ticker: bool,
    /// When the last reset wants the timer to fire, ns.
    pub(crate) at: u64,
    /// The time of the last reset, ns; a ticker's period.
    pub(crate) d: u64,
    /// There is a reset: `at` and `d` are set.
    pub(crate) has_reset: bool,
    pub(crate) has_stop: bool,
    /// The last request is a stop.
    pub(crate) stops: bool,
    /// Requests for this token.
    pub(crate) count: u64,
    /// Requests for this token that came after its first stop.
    pub(crate) after_stop: u64,
    /// Requests for earlier timers in the same slot: those timers have been dropped.
    pub(crate) dead: u64,
}

impl Ask {
    pub(crate) fn stop(token: u64, ticker: bool) -> Ask {
        Ask { token, ticker, has_stop: true, stops: true, count: 1, ..Ask::default() }
    }

    pub(crate) fn reset(token: u64, ticker: bool, at: u64, d: u64) -> Ask {
        Ask { token, ticker, at, d, has_reset: true, count: 1, ..Ask::default() }
    }

    fn slot(&self) -> u32 {
        self.token as u32
    }

    /// This and then `later`, which is for the same slot.
    fn then(self, later: Ask) -> Ask {
        let dead = self.dead + later.dead;
        if self.token < later.token {
            // A slot is used again after its timer was dropped.
            return Ask { dead: dead + self.count, ..later };
        }
        if self.token > later.token {
            return Ask { dead: dead + later.count, ..self };
        }
        Ask {
            at: if later.has_reset { later.at } else { self.at },
            d: if later.has_reset { later.d } else { self.d },
            has_reset: self.has_reset || later.has_reset,
            has_stop: self.has_stop || later.has_stop,
            count: self.count + later.count,
            after_stop: if self.has_stop {
                self.after_stop + later.count
            } else {
                later.after_stop
            },
            dead,
            ..later
        }
    }
}

/// A place in the mailbox, as a post.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceId(u64);

/// See the module's text. Reused, and not freed before the reactor's last
/// [`Remote`](crate::Remote).
struct Place(AtomicU64);

impl Default for Place {
    fn default() -> Place {
        Place(AtomicU64::new(CLOSED))
    }
}

/// An [`Ask`], readable while it is being replaced: who reads it verifies the place afterwards.
struct Note([AtomicU64; 8]);

impl Default for Note {
    fn default() -> Note {
        Note(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Note {
    fn write(&self, ask: Ask, epoch: u64, life: u64) {
        let flags = [ask.ticker, ask.has_reset, ask.has_stop, ask.stops];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u64::from(flag));
        let counts = ask.count.min(u64::from(u32::MAX)) << 32 | flags;
        let values = [ask.token, ask.at, ask.d, counts, ask.after_stop, ask.dead, epoch, life];
        for (field, value) in self.0.iter().zip(values) {
            field.store(value, Ordering::Relaxed);
        }
    }

    /// The ask, the count of closures before its place, and the life of its place.
    fn read(&self) -> (Ask, u64, u64) {
        let [token, at, d, counts, after_stop, dead, epoch, life] =
            std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed));
        let flag = |bit: u32| counts >> bit & 1 != 0;
        let ask = Ask {
            token,
            at,
            d,
            after_stop,
            dead,
            count: counts >> 32,
            ticker: flag(3),
            has_reset: flag(2),
            has_stop: flag(1),
            stops: flag(0),
        };
        (ask, epoch, life)
    }
}

struct Record<T> {
    content: T,
    /// The next one in the list of free records.
    next: AtomicU64,
    #[cfg(all(loom, test))]
    born: crate::sync::Born,
}

impl<T: Default> Record<T> {
    fn new() -> Record<T> {
        Record {
            content: T::default(),
            next: AtomicU64::new(NIL),
            #[cfg(all(loom, test))]
            born: crate::sync::Born::new(),
        }
    }
}

/// Segment `k` of a pool has `FIRST << k` records: fewer than [`NIL`] in all.
const FIRST: usize = if cfg!(all(loom, test)) { 2 } else { 16 };
const SEGMENTS: usize = if cfg!(all(loom, test)) { 3 } else { 20 };

/// Records that any thread takes and gives back. They do not move and are not freed.
struct Pool<T> {
    segments: [AtomicPtr<Record<T>>; SEGMENTS],
    /// Records that were ever taken.
    fresh: AtomicUsize,
    /// The list of free records: the first one, and a number that grows.
    free: AtomicU64,
}

/// The segment of a record, and its place there.
fn place_of(index: usize) -> (usize, usize) {
    let segment = (index / FIRST + 1).ilog2() as usize;
    (segment, index - FIRST * ((1 << segment) - 1))
}

impl<T: Default> Pool<T> {
    fn new() -> Pool<T> {
        Pool {
            segments: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            fresh: AtomicUsize::new(0),
            free: AtomicU64::new(NIL),
        }
    }

    /// The content of a record that was taken at some time.
    fn get(&self, index: u64) -> &T {
        &self.record(index).content
    }

    fn record(&self, index: u64) -> &Record<T> {
        let (segment, at) = place_of(index as usize);
        let records = self.segments[segment].load(Ordering::Acquire);
        debug_assert!(!records.is_null());
        // SAFETY: who has an index has it from `take`, which has made the segment:
        // `FIRST << segment` records, of which `at` is one. Segments are not freed before the pool
        // is dropped.
        let record = unsafe { &*records.add(at) };
        #[cfg(all(loom, test))]
        record.born.used();
        record
    }

    /// Takes a record. Allocates when more are in use than ever. `None` when 16 million are.
    fn take(&self) -> Option<u64> {
        let mut free = self.free.load(Ordering::Acquire);
        while index(free) != NIL {
            let next = index(self.record(index(free)).next.load(Ordering::Relaxed));
            let after = word(number(free) + 1, next);
            match self.free.compare_exchange(free, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(index(free)),
                Err(now) => free = now,
            }
        }
        let fresh = self.fresh.fetch_add(1, Ordering::Relaxed);
        let (segment, _) = place_of(fresh);
        if segment >= SEGMENTS {
            self.fresh.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.prepare(segment);
        Some(fresh as u64)
    }

    /// Makes a segment, if nobody has yet.
    fn prepare(&self, segment: usize) {
        let place = &self.segments[segment];
        if !place.load(Ordering::Acquire).is_null() {
            return;
        }
        let records: Box<[_]> =
            std::iter::repeat_with(Record::<T>::new).take(FIRST << segment).collect();
        let ours = Box::into_raw(records).cast::<Record<T>>();
        if place
            .compare_exchange(ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: from `into_raw` above, of this length, and nobody else has seen it.
            unsafe { Pool::free_segment(ours, segment) };
        }
    }

    /// Gives a record back.
    fn give(&self, record: u64) {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            self.record(record).next.store(index(free), Ordering::Relaxed);
            let with = word(number(free) + 1, record);
            match self.free.compare_exchange(free, with, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => free = now,
            }
        }
    }
}

impl<T> Pool<T> {
    /// # Safety
    /// The records must be of this segment's length and from [`Box::into_raw`], and nobody may use
    /// them any more.
    unsafe fn free_segment(records: *mut Record<T>, segment: usize) {
        // SAFETY: by the caller's promise this was a box.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(records, FIRST << segment)) });
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        for (segment, records) in self.segments.iter().enumerate() {
            if let Some(records) = NonNull::new(records.load(Ordering::Acquire)) {
                // SAFETY: `prepare` has put it there, and nobody else has the pool.
                unsafe { Pool::free_segment(records.as_ptr(), segment) };
            }
        }
    }
}

/// Segment `k` has the words of `BLOCK << k` slots.
const BLOCK: usize = 128;
const BLOCKS: usize = 25;

/// The requests for the timers of one reactor. See the module's text.
pub(crate) struct Asks {
    /// The last place of each slot whose id was given out.
    latest: [OnceLock<Box<[AtomicU64]>>; BLOCKS],
    places: Pool<Place>,
    notes: Pool<Note>,
    /// Closures that are in the mailbox for sure.
    closures: AtomicU64,
    /// Numbers for words that name no place.
    blanks: AtomicU64,
}

fn block_of(slot: u32) -> (usize, usize) {
    let slot = slot as usize;
    let block = (slot / BLOCK + 1).ilog2() as usize;
    (block, slot - BLOCK * ((1 << block) - 1))
}

/// A new place, on its way into the mailbox.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) place: PlaceId,
    slot: u32,
    /// The word that named the slot's last place before.
    before: u64,
}

impl Asks {
    pub(crate) fn new() -> Asks {
        Asks {
            latest: [const { OnceLock::new() }; BLOCKS],
            places: Pool::new(),
            notes: Pool::new(),
            closures: AtomicU64::new(0),
            blanks: AtomicU64::new(0),
        }
    }

    /// Makes the memory for a slot, so that its requests can coalesce. Only the reactor calls it,
    /// when it gives out an id.
    pub(crate) fn prepare(&self, slot: u32) {
        let (block, _) = block_of(slot);
        let none = || AtomicU64::new(NIL);
        self.latest[block]
            .get_or_init(|| std::iter::repeat_with(none).take(BLOCK << block).collect());
    }

    fn latest(&self, slot: u32) -> Option<&AtomicU64> {
        let (block, at) = block_of(slot);
        self.latest[block].get().map(|words| &words[at])
    }

    /// A closure has been put into the mailbox.
    pub(crate) fn closure_pushed(&self) {
        self.closures.fetch_add(1, Ordering::SeqCst);
    }

    /// Joins a request with the last one for its slot, or makes a place for it. The caller then
    /// puts the place into the mailbox and calls [`placed`](Self::placed). Tells the reactor in any
    /// case.
    ///
    /// Fails when 16 million places are in use: the request then goes into the mailbox as it is,
    /// and [`forget`](Self::forget) follows.
    pub(crate) fn join(&self, ask: Ask) -> Result<Option<Placed>, Ask> {
        let Some(latest) = self.latest(ask.slot()) else { return Err(ask) };
        let epoch = self.closures.load(Ordering::SeqCst);
        let before = latest.load(Ordering::SeqCst);
        let Some(note) = self.notes.take() else { return Err(ask) };
        if index(before) != NIL && self.replace(before, note, ask, epoch) {
            return Ok(None);
        }
        let Some(place) = self.places.take() else {
            self.notes.give(note);
            return Err(ask);
        };
        let content = &self.places.get(place).0;
        let life = number(content.load(Ordering::Relaxed)).wrapping_add(1) & NUMBERS;
        self.notes.get(note).write(ask, epoch, life);
        // Release: the note is written.
        content.store(word(life, note), Ordering::SeqCst);
        Ok(Some(Placed { place: PlaceId(word(life, place)), slot: ask.slot(), before }))
    }

    /// Joins a place. Returns false if the loop has taken it, or a closure lies behind it.
    fn replace(&self, named: u64, note: u64, ask: Ask, epoch: u64) -> bool {
        let content = &self.places.get(index(named)).0;
        let mut now = content.load(Ordering::SeqCst);
        loop {
            if now & CLOSED != 0 {
                return false;
            }
            let (earlier, then, life) = self.notes.get(index(now)).read();
            if then != epoch || life != number(named) || earlier.slot() != ask.slot() {
                return false;
            }
            self.notes.get(note).write(earlier.then(ask), epoch, life);
            let with = word(number(now) + 1, note);
            // If the exchange succeeds, the note that was read was not replaced meanwhile.
            match content.compare_exchange(now, with, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    self.notes.give(index(now));
                    return true;
                }
                Err(other) => now = other,
            }
        }
    }

    /// The place is in the mailbox: later requests may join it.
    pub(crate) fn placed(&self, placed: &Placed) {
        let Some(latest) = self.latest(placed.slot) else { return };
        let PlaceId(named) = placed.place;
        if latest
            .compare_exchange(placed.before, named, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
        {
            self.forget(placed.slot);
        }
    }

    /// No request may join an earlier place of this slot.
    pub(crate) fn forget(&self, slot: u32) {
        if let Some(latest) = self.latest(slot) {
            latest.swap(self.blank(), Ordering::SeqCst);
        }
    }

    /// A word that names no place, and does not come back.
    fn blank(&self) -> u64 {
        word(self.blanks.fetch_add(1, Ordering::Relaxed) + 1, NIL)
    }

    /// Takes what a place of the mailbox asks for. Only the reactor calls it, once for each place;
    /// and a thread whose place was refused by the mailbox.
    pub(crate) fn take(&self, PlaceId(named): PlaceId) -> Ask {
        let place = index(named);
        let content = self.places.get(place).0.fetch_or(CLOSED, Ordering::SeqCst);
        let (ask, ..) = self.notes.get(index(content)).read();
        if let Some(latest) = self.latest(ask.slot()) {
            let _ =
                latest.compare_exchange(named, self.blank(), Ordering::SeqCst, Ordering::Relaxed);
        }
        self.notes.give(index(content));
        self.places.give(place);
        ask
    }
}

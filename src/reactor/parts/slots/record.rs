//! The record of one source, and the block of records that it lives in.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::reactor::parts::fds::FdRecord;
use crate::reactor::parts::priority::Priority;
use crate::reactor::parts::sites::SiteId;
use crate::wake::{Bell, Probe};

/// "No slot", "no heap position".
pub(crate) const NONE: u32 = u32::MAX;

pub(super) const CHUNK: usize = 128;

/// The number of reports of a ready source without any use of it, after which the source counts as
/// spinning. Also the number of times that an end is taken before its source counts so.
pub(crate) const PATIENCE: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free,
    /// Nothing is pending.
    Idle,
    /// In the heap, with a deadline.
    Armed,
    /// In the heap, but stopped. The entry is removed when it reaches the root. A reset revives the
    /// record.
    Stopped,
    /// In the ready list, or in the list of calls: an expiry not yet taken, or a channel that is
    /// not empty.
    Ready,
    /// In the list of ends: its end has been taken. `wait` reports the end no more, and a `Select`
    /// gives it for ever.
    Ended,
}

/// The properties of a source, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// The user gave the source a key.
    Keyed = 1,
    /// The channel has no request (`channels.rs`).
    Unasked = 2,
    /// The expiry is a closure to be called, not an item to be taken.
    Callback = 4,
    /// The timer has a slack of its own.
    Slack = 8,
    /// The slot has no owner: the reactor frees it when nothing is pending.
    Detached = 16,
    /// The closure is called at most once. For a channel: it tells once that it is ready.
    Once = 32,
    /// The end was taken [`PATIENCE`] times.
    Spinning = 64,
    /// Each wait looks at the channel (`channels.rs`).
    Near = 128,
}

/// The record of a source: 32 bytes, within one cache line.
#[derive(Debug)]
#[repr(align(32))]
pub(crate) struct Node {
    /// A time in ns. Armed: the true deadline, at or after the heap's key. Ready: the time at which
    /// it was due. Otherwise the last deadline.
    pub(crate) deadline: Cell<u64>,
    /// Armed: the number of the arm among all arms, with a mark if the heap's key is of an earlier
    /// arm. Ready: the neighbours in the ready list
    /// (`ready.rs`).
    pub(crate) seq: Cell<u64>,
    /// Armed, Stopped: the index in the heap. Free: the next free slot. Ready: the reports that are
    /// left until the source counts as spinning; zero means that it does.
    pub(crate) pos: Cell<u32>,
    pub(super) generation: Cell<u32>,
    /// The number of items given, or of calls. The count stops at the greatest number.
    pub(super) fired: Cell<u32>,
    /// The kind and the creation site.
    pub(crate) site: Cell<SiteId>,
    pub(crate) state: Cell<State>,
    pub(super) flags: Cell<u8>,
}

impl Node {
    #[inline]
    pub(crate) fn is(&self, flag: Flag) -> bool {
        self.flags.get() & flag as u8 != 0
    }

    /// Returns true if the flag [`Flag::Callback`] or [`Flag::Once`] is set.
    #[inline]
    pub(crate) fn is_callback_or_once(&self) -> bool {
        self.flags.get() & (Flag::Callback as u8 | Flag::Once as u8) != 0
    }

    /// Makes a `Free` record `Idle`, for a new source. Returns the next free slot.
    #[inline]
    pub(super) fn begin(&self, site: SiteId) -> u32 {
        self.fired.set(0);
        self.site.set(site);
        self.state.set(State::Idle);
        self.flags.set(0);
        self.pos.replace(NONE)
    }

    #[inline]
    pub(crate) fn set(&self, flag: Flag, on: bool) {
        let others = self.flags.get() & !(flag as u8);
        self.flags.set(if on { others | flag as u8 } else { others });
    }

    #[inline]
    pub(crate) fn count(&self) {
        self.fired.set(self.fired.get().saturating_add(1));
    }

    /// Counts a report of a ready source. Returns how many reports are left: zero for the last one,
    /// -1 after that.
    #[inline]
    pub(crate) fn count_down(&self) -> i32 {
        let left = self.pos.get().wrapping_sub(1);
        self.pos.set(left);
        left as i32
    }

    pub(crate) fn fired(&self) -> u32 {
        self.fired.get()
    }
}

/// A field that few sources need. A chunk has it for all of its slots, or for none.
pub(crate) struct Column<T>(OnceCell<Box<[T; CHUNK]>>);

impl<T: Default> Column<T> {
    pub(super) const fn new() -> Column<T> {
        Column(OnceCell::new())
    }

    /// Returns the field of `slot`. Allocates when a field of the chunk is first asked for.
    pub(crate) fn of(&self, slot: u32) -> &T {
        let column = self.0.get_or_init(Column::make);
        &column[slot as usize % CHUNK]
    }

    /// Makes the fields where they stay: an array would be made on the stack and copied.
    #[cold]
    #[inline(never)]
    fn make() -> Box<[T; CHUNK]> {
        let fields: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
        fields.try_into().unwrap_or_else(|_| unreachable!("a field for each slot"))
    }

    /// Returns the field of `slot`, if a field of the chunk was ever asked for.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.0.get().map(|column| &column[slot as usize % CHUNK])
    }
}

/// The reactor as a source reaches it through its chunk.
pub(crate) trait Owner {
    type Callback;
}

#[cfg(test)]
impl Owner for () {
    type Callback = ();
}

/// A block of records. A source reaches the rest of the reactor through `owner`.
pub(crate) struct Chunk<O: Owner> {
    pub(crate) owner: Rc<O>,
    pub(super) nodes: [Node; CHUNK],
    /// The first free slot.
    pub(super) free: Cell<u32>,
    /// The number of slots that are not free.
    pub(super) used: Cell<u32>,
    /// All slots were used since the list of free slots was in order.
    pub(super) was_full: Cell<bool>,
    /// The greatest generation of the chunk's slots.
    pub(super) newest: Cell<u32>,
    /// The neighbours in the list of partly used chunks, or of idle chunks.
    pub(super) prev: Cell<u32>,
    pub(super) next: Cell<u32>,
    pub(super) keys: Column<Cell<u64>>,
    pub(crate) priorities: Column<Cell<Priority>>,
    pub(super) probes: Column<RefCell<Option<Arc<dyn Probe>>>>,
    /// The periods of tickers, in ns.
    pub(crate) periods: Column<Cell<u64>>,
    /// The slacks of timers that have their own, in ns.
    pub(crate) slacks: Column<Cell<u64>>,
    /// The records of sources that are fds.
    pub(crate) fds: Column<FdRecord>,
    /// The closures of callbacks, while they are not running.
    pub(super) callbacks: Column<Cell<Option<O::Callback>>>,
    /// The bells that make callbacks due.
    pub(crate) bells: Column<RefCell<Option<Arc<Bell>>>>,
}

impl<O: Owner> Chunk<O> {
    /// Makes a chunk of free slots from `base` on.
    pub(super) fn new(owner: &Rc<O>, base: u32, generation: u32) -> Rc<Chunk<O>> {
        let node = |i: usize| Node {
            deadline: Cell::new(0),
            seq: Cell::new(0),
            pos: Cell::new(if i + 1 < CHUNK { base + i as u32 + 1 } else { NONE }),
            generation: Cell::new(generation),
            fired: Cell::new(0),
            site: Cell::default(),
            state: Cell::new(State::Free),
            flags: Cell::new(0),
        };
        Rc::new(Chunk {
            owner: owner.clone(),
            nodes: std::array::from_fn(node),
            free: Cell::new(base),
            used: Cell::new(0),
            was_full: Cell::new(false),
            newest: Cell::new(generation),
            prev: Cell::new(NONE),
            next: Cell::new(NONE),
            keys: Column::new(),
            priorities: Column::new(),
            probes: Column::new(),
            periods: Column::new(),
            slacks: Column::new(),
            fds: Column::new(),
            callbacks: Column::new(),
            bells: Column::new(),
        })
    }

    /// Puts the slots of an idle chunk in order, so that a loop over new sources goes through
    /// memory in one direction.
    pub(super) fn sort_free(&self) {
        let base = self.free.get() / CHUNK as u32 * CHUNK as u32;
        let next = (base + 1..base + CHUNK as u32).chain([NONE]);
        self.nodes.iter().zip(next).for_each(|(node, next)| node.pos.set(next));
        self.free.set(base);
    }

    /// Makes a chunk of slots that are free and stay free.
    pub(super) fn blank(owner: &Rc<O>) -> Rc<Chunk<O>> {
        Chunk::new(owner, 0, 0)
    }

    #[inline]
    pub(crate) fn node(&self, slot: u32) -> &Node {
        &self.nodes[slot as usize % CHUNK]
    }

    #[inline]
    pub(crate) fn set_key(&self, slot: u32, key: u64) {
        self.keys.of(slot).set(key);
        self.node(slot).set(Flag::Keyed, true);
    }

    /// Returns the user's key. Without one it returns a key made of slot and generation with the
    /// top bit set, which differs from every key below 2^63.
    pub(crate) fn key(&self, slot: u32) -> u64 {
        if self.node(slot).is(Flag::Keyed) {
            self.keys.of(slot).get()
        } else {
            self.token(slot) | 1 << 63
        }
    }

    pub(crate) fn priority(&self, slot: u32) -> Priority {
        self.priorities.get(slot).map_or(Priority::Normal, Cell::get)
    }

    pub(crate) fn set_probe(&self, slot: u32, probe: Arc<dyn Probe>) {
        *self.probes.of(slot).borrow_mut() = Some(probe);
    }

    pub(crate) fn probe(&self, slot: u32) -> Option<Arc<dyn Probe>> {
        self.probes.get(slot)?.borrow().clone()
    }

    /// Removes the probe. Returns true if there was a probe.
    pub(crate) fn forget(&self, slot: u32) -> bool {
        self.probes.get(slot).is_some_and(|probe| probe.borrow_mut().take().is_some())
    }

    /// Calls `f` with the channel that is registered under this slot, if there is one.
    #[inline]
    pub(crate) fn with_probe<R>(&self, slot: u32, f: impl FnOnce(&dyn Probe) -> R) -> Option<R> {
        self.probes.get(slot)?.borrow().as_deref().map(f)
    }

    /// Returns true if there is a closure that does not run now.
    pub(crate) fn has_callback(&self, slot: u32) -> bool {
        let Some(place) = self.callbacks.get(slot) else { return false };
        let call = place.take();
        let has = call.is_some();
        place.set(call);
        has
    }

    /// Takes the closure of a callback, unless it runs.
    #[inline]
    pub(crate) fn take_callback(&self, slot: u32) -> Option<O::Callback> {
        self.callbacks.get(slot)?.take()
    }

    /// Stores the closure of a callback that has none.
    #[inline]
    pub(crate) fn put_callback(&self, slot: u32, call: Option<O::Callback>) {
        let before = self.callbacks.of(slot).replace(call);
        debug_assert!(before.is_none());
        // Without this the compiler would look for a closure to drop.
        std::mem::forget(before);
    }

    /// Returns the bell that makes the callback due.
    pub(crate) fn bell(&self, slot: u32) -> Option<Arc<Bell>> {
        self.bells.get(slot)?.borrow().clone()
    }

    /// Takes the bell out.
    pub(crate) fn take_bell(&self, slot: u32) -> Option<Arc<Bell>> {
        self.bells.get(slot)?.borrow_mut().take()
    }

    /// Takes all closures.
    pub(crate) fn take_callbacks(&self) -> impl Iterator<Item = O::Callback> + '_ {
        (0..CHUNK as u32).filter_map(|slot| self.take_callback(slot))
    }

    /// Packs slot and generation into one word.
    #[inline]
    pub(crate) fn token(&self, slot: u32) -> u64 {
        u64::from(self.node(slot).generation.get()) << 32 | u64::from(slot)
    }
}

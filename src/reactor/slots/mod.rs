//! The slots of a reactor: one small record for each live source, found by index, told apart by
//! generation.
//!
//! Records live in chunks that never move, so a source keeps its chunk and reaches its own record
//! without a look-up. All fields are `Cell`s: the record belongs to one thread. A freed slot is
//! reused with the next generation; one whose generations are used up is retired, so no id ever
//! comes back.
//!
//! ```text
//!            create                arm                 expire / message
//!   Free ────────────► Idle ────────────► Armed ──────────────────────► Ready
//!     ▲                 ▲ ▲     stop │      ▲ rearm                       │
//!     │                 │ └───────┐  ▼      │                             │
//!     │                 │         Stopped ──┘                             │
//!     └── drop          └───────────────────────── take / stop ───────────┘
//! ```
//! # Memory
//! A chunk is taken from before another one is made, those with live sources first. An *idle* chunk
//! has none. When more than 64 KiB of chunks have been less than an eighth used for a second, idle
//! chunks go, until twice what was used is left. Others take their numbers later, with
//! generations that were never used. A chunk stays while one of its 128 slots is live, and 12 bytes
//! stay for its number until the chunks with higher numbers have gone, too.
//!
//! Armed and Stopped records have an entry in the heap (a Stopped one is a zombie there), Ready
//! ones are in the ready list. A channel whose end has been taken is Ended for the rest of its
//! life, and in the list of ends.
//!
//! Longer than 500 lines: the life of a record is one state machine, and its chunks
//! and generations are part of that.

#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::calls::Call;
use super::fds::Watched;
use super::origins::Origin;
use crate::wake::{Bell, Probe};

/// "No slot", "no heap position".
pub(crate) const NONE: u32 = u32::MAX;

const CHUNK: usize = 128;

/// Reports of a ready source that nobody does anything about, after which the source counts as
/// spinning. Also the number of times that an end is taken before its source does.
pub(crate) const PATIENCE: u32 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    Free,
    /// Nothing pending.
    Idle,
    /// In the heap, with a deadline.
    Armed,
    /// In the heap, but stopped: removed when it reaches the root, revived by a reset.
    Stopped,
    /// In the ready list, or in the list of calls: an expiry not yet taken, or a channel that is
    /// not empty.
    Ready,
    /// In the list of ends: its end has been taken, which `wait` reports no more, and a `Select`
    /// gives for ever.
    Ended,
}

/// What a record says of its source, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Flag {
    /// The user gave it a key.
    Keyed = 1,
    /// It is among the channels that nothing has been asked of (`channels.rs`).
    Unasked = 2,
    /// Its expiry is a closure to be called, not an item to be taken.
    Call = 4,
    /// It has a slack of its own.
    Slack = 8,
    /// Nobody owns it any more: it goes when nothing is pending.
    Detached = 16,
    /// It is called once at the most: its closure does not come back.
    Once = 32,
    /// Its end was taken [`PATIENCE`] times.
    Spinning = 64,
}

/// What the reactor keeps of a source: 32 bytes.
#[derive(Debug)]
pub(crate) struct Node {
    /// ns. Armed: the true deadline, at or after the heap's key. Ready: the time it was due at.
    /// Otherwise the last one.
    pub(crate) deadline: Cell<u64>,
    /// Armed: when it was armed, as a count of all arms. Ready: its neighbours in the ready list
    /// (`ready.rs`).
    pub(crate) seq: Cell<u64>,
    /// Armed, Stopped: the index in the heap. Free: the next free slot. Ready: the reports that
    /// are left until it counts as spinning; zero means that it does.
    pub(crate) pos: Cell<u32>,
    generation: Cell<u32>,
    /// How often it gave an item, or was called; stays at the greatest number.
    fired: Cell<u32>,
    /// What it is and who made it.
    pub(crate) origin: Cell<Origin>,
    pub(crate) state: Cell<State>,
    flags: Cell<u8>,
}

impl Node {
    #[inline]
    pub(crate) fn is(&self, flag: Flag) -> bool {
        self.flags.get() & flag as u8 != 0
    }

    pub(crate) fn set(&self, flag: Flag, on: bool) {
        let others = self.flags.get() & !(flag as u8);
        self.flags.set(if on { others | flag as u8 } else { others });
    }

    #[inline]
    pub(crate) fn count(&self) {
        self.fired.set(self.fired.get().saturating_add(1));
    }

    /// Counts a report of a ready source. Returns how many are left: zero for the last one, -1
    /// after that.
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

/// A field that few sources need: there for none of a chunk, or for all.
pub(crate) struct Column<T>(OnceCell<Box<[T; CHUNK]>>);

impl<T: Default> Column<T> {
    const fn new() -> Column<T> {
        Column(OnceCell::new())
    }

    /// The field of `slot`; allocates the first time that one of the chunk is asked for.
    pub(crate) fn of(&self, slot: u32) -> &T {
        let column = self.0.get_or_init(|| Box::new(std::array::from_fn(|_| T::default())));
        &column[slot as usize % CHUNK]
    }

    /// The field of `slot`, if a field of the chunk was ever asked for.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&T> {
        self.0.get().map(|column| &column[slot as usize % CHUNK])
    }
}

/// A list of chunks, through their links.
#[derive(Clone, Copy)]
struct Chunks {
    first: u32,
    last: u32,
}

impl Chunks {
    const NONE: Chunks = Chunks { first: NONE, last: NONE };
}

/// A block of records; `owner` is what a source reaches the rest of the reactor by.
pub(crate) struct Chunk<O> {
    pub(crate) owner: Rc<O>,
    nodes: [Node; CHUNK],
    /// The first free slot.
    free: Cell<u32>,
    /// How many slots are not free.
    used: Cell<u32>,
    /// No slot has a greater generation.
    newest: Cell<u32>,
    /// The neighbours in the list of chunks that are partly used, or in that of idle ones.
    prev: Cell<u32>,
    next: Cell<u32>,
    keys: Column<Cell<u64>>,
    probes: Column<RefCell<Option<Arc<dyn Probe>>>>,
    /// ns: of tickers.
    pub(crate) periods: Column<Cell<u64>>,
    /// ns: of timers that have one of their own.
    pub(crate) slacks: Column<Cell<u64>>,
    /// Of sources that are fds.
    pub(crate) fds: Column<Watched>,
    /// The closures of callbacks, while they are not running.
    pub(crate) calls: Column<RefCell<Option<Call>>>,
    /// The bells that make callbacks due.
    pub(crate) bells: Column<RefCell<Option<Arc<Bell>>>>,
}

impl<O> Chunk<O> {
    /// A chunk of free slots from `base` on.
    fn new(owner: &Rc<O>, base: u32, generation: u32) -> Rc<Chunk<O>> {
        let node = |i: usize| Node {
            deadline: Cell::new(0),
            seq: Cell::new(0),
            pos: Cell::new(if i + 1 < CHUNK { base + i as u32 + 1 } else { NONE }),
            generation: Cell::new(generation),
            fired: Cell::new(0),
            origin: Cell::default(),
            state: Cell::new(State::Free),
            flags: Cell::new(0),
        };
        Rc::new(Chunk {
            owner: owner.clone(),
            nodes: std::array::from_fn(node),
            free: Cell::new(base),
            used: Cell::new(0),
            newest: Cell::new(generation),
            prev: Cell::new(NONE),
            next: Cell::new(NONE),
            keys: Column::new(),
            probes: Column::new(),
            periods: Column::new(),
            slacks: Column::new(),
            fds: Column::new(),
            calls: Column::new(),
            bells: Column::new(),
        })
    }

    /// A chunk of slots that are free and stay so.
    fn blank(owner: &Rc<O>) -> Rc<Chunk<O>> {
        Chunk::new(owner, 0, 0)
    }

    #[inline]
    pub(crate) fn node(&self, slot: u32) -> &Node {
        &self.nodes[slot as usize % CHUNK]
    }

    pub(crate) fn set_key(&self, slot: u32, key: u64) {
        self.keys.of(slot).set(key);
        self.node(slot).set(Flag::Keyed, true);
    }

    /// The user's key, or one made of slot and generation with the top bit set, which no key below
    /// 2^63 is equal to.
    pub(crate) fn key(&self, slot: u32) -> u64 {
        if self.node(slot).is(Flag::Keyed) {
            self.keys.of(slot).get()
        } else {
            self.token(slot) | 1 << 63
        }
    }

    pub(crate) fn set_probe(&self, slot: u32, probe: Arc<dyn Probe>) {
        *self.probes.of(slot).borrow_mut() = Some(probe);
    }

    /// Takes the probe away; whether there was one.
    pub(crate) fn forget(&self, slot: u32) -> bool {
        self.probes.get(slot).is_some_and(|probe| probe.borrow_mut().take().is_some())
    }

    /// Calls `f` with the channel that is registered under this slot, if there is one.
    #[inline]
    pub(crate) fn with_probe<R>(&self, slot: u32, f: impl FnOnce(&dyn Probe) -> R) -> Option<R> {
        self.probes.get(slot)?.borrow().as_deref().map(f)
    }

    /// Whether there is a closure, which does not run.
    pub(crate) fn has_call(&self, slot: u32) -> bool {
        self.calls.get(slot).is_some_and(|call| call.borrow().is_some())
    }

    /// The closure of a callback, unless it runs.
    pub(crate) fn take_call(&self, slot: u32) -> Option<Call> {
        self.calls.get(slot)?.borrow_mut().take()
    }

    /// The bell that makes the callback due.
    pub(crate) fn bell(&self, slot: u32) -> Option<Arc<Bell>> {
        self.bells.get(slot)?.borrow().clone()
    }

    /// Takes the bell away.
    pub(crate) fn take_bell(&self, slot: u32) -> Option<Arc<Bell>> {
        self.bells.get(slot)?.borrow_mut().take()
    }

    /// All closures.
    pub(crate) fn take_calls(&self) -> impl Iterator<Item = Call> + '_ {
        (0..CHUNK as u32).filter_map(|slot| self.take_call(slot))
    }

    /// Slot and generation in one word.
    #[inline]
    pub(crate) fn token(&self, slot: u32) -> u64 {
        u64::from(self.node(slot).generation.get()) << 32 | u64::from(slot)
    }
}

/// All records of a reactor.
pub(crate) struct Slots<O> {
    /// By their numbers; the chunk that has gone is `blank`.
    chunks: Vec<Rc<Chunk<O>>>,
    /// The chunks with free slots and others.
    partial: Chunks,
    /// The chunks with free slots only, roughly those with low numbers first.
    idle: Chunks,
    idle_len: usize,
    /// The fewest idle chunks since the last call of [`watch`](Slots::watch).
    idle_least: usize,
    /// Stands for every chunk that has gone. Nobody takes its slots.
    blank: Option<Rc<Chunk<O>>>,
    /// The numbers of chunks that have gone.
    vacant: Vec<u32>,
    /// A new chunk begins with this generation.
    generation: u32,
    live: usize,
}

/// As many chunks are kept for ever: 64 KiB.
const KEPT: usize = (64 << 10) / size_of::<[Node; CHUNK]>();

impl<O> Slots<O> {
    pub(crate) fn new() -> Slots<O> {
        Slots {
            chunks: Vec::new(),
            partial: Chunks::NONE,
            idle: Chunks::NONE,
            idle_len: 0,
            idle_least: 0,
            blank: None,
            vacant: Vec::new(),
            generation: 0,
            live: 0,
        }
    }

    /// A slot that nobody uses, made `Idle`. Allocates one chunk when there is none.
    pub(crate) fn take(&mut self, owner: &Rc<O>, origin: Origin) -> u32 {
        if self.partial.first == NONE {
            self.use_idle(owner);
        }
        let chunk = &*self.chunks[self.partial.first as usize];
        let slot = chunk.free.get();
        let node = chunk.node(slot);
        debug_assert_eq!(node.state.get(), State::Free);
        node.state.set(State::Idle);
        node.flags.set(0);
        node.fired.set(0);
        node.origin.set(origin);
        chunk.free.set(node.pos.replace(NONE));
        chunk.used.set(chunk.used.get() + 1);
        self.live += 1;
        if chunk.free.get() == NONE {
            self.unlink_full();
        }
        slot
    }

    /// The first chunk of the list has no free slot any more.
    #[cold]
    fn unlink_full(&mut self) {
        self.unlink(self.partial.first, |slots| &mut slots.partial);
    }

    /// Takes slots from an idle chunk, or from a new one.
    #[cold]
    fn use_idle(&mut self, owner: &Rc<O>) {
        let number = if self.idle.first == NONE {
            self.grow(owner)
        } else {
            let number = self.idle.first;
            self.unlink(number, |slots| &mut slots.idle);
            self.idle_len -= 1;
            self.idle_least = self.idle_least.min(self.idle_len);
            number
        };
        self.link_first(number, |slots| &mut slots.partial);
    }

    fn link_first(&mut self, number: u32, list: impl Fn(&mut Self) -> &mut Chunks) {
        let first = std::mem::replace(&mut list(self).first, number);
        let chunk = &self.chunks[number as usize];
        chunk.prev.set(NONE);
        chunk.next.set(first);
        match first {
            NONE => list(self).last = number,
            first => self.chunks[first as usize].prev.set(number),
        }
    }

    fn unlink(&mut self, number: u32, list: impl Fn(&mut Self) -> &mut Chunks) {
        let chunk = &self.chunks[number as usize];
        let (prev, next) = (chunk.prev.get(), chunk.next.get());
        match prev {
            NONE => list(self).first = next,
            prev => self.chunks[prev as usize].next.set(next),
        }
        match next {
            NONE => list(self).last = prev,
            next => self.chunks[next as usize].prev.set(prev),
        }
    }

    /// Makes a chunk, and returns its number.
    #[cold]
    fn grow(&mut self, owner: &Rc<O>) -> u32 {
        let number = self.vacant.pop().unwrap_or(self.chunks.len() as u32);
        let base = number as usize * CHUNK;
        // The timer queue needs the top bit.
        assert!(base < (1 << 31) - CHUNK, "pollmux: more than {base} live sources in one reactor");
        let chunk = Chunk::new(owner, base as u32, self.generation);
        if number as usize == self.chunks.len() {
            self.chunks.push(chunk);
        } else {
            self.chunks[number as usize] = chunk;
        }
        number
    }

    /// Gives a slot back; nothing refers to it any more. Returns true if its chunk is idle now.
    pub(crate) fn free(&mut self, slot: u32) -> bool {
        let chunk = &*self.chunks[slot as usize / CHUNK];
        let node = chunk.node(slot);
        debug_assert_eq!(node.state.get(), State::Idle);
        node.state.set(State::Free);
        let generation = node.generation.get().saturating_add(1);
        node.generation.set(generation);
        self.live -= 1;
        if generation == u32::MAX {
            return false;
        }
        chunk.newest.set(chunk.newest.get().max(generation));
        node.pos.set(chunk.free.replace(slot));
        let (was_full, used) = (node.pos.get() == NONE, chunk.used.get() - 1);
        chunk.used.set(used);
        if was_full || used == 0 {
            self.relink(slot / CHUNK as u32, was_full, used == 0);
        }
        used == 0
    }

    /// A chunk has a free slot again, or only such ones.
    #[cold]
    fn relink(&mut self, number: u32, was_full: bool, is_idle: bool) {
        if is_idle {
            if !was_full {
                self.unlink(number, |slots| &mut slots.partial);
            }
            // Those with high numbers go first.
            if self.idle.last != NONE && number > self.idle.last {
                let last = std::mem::replace(&mut self.idle.last, number);
                let chunk = &self.chunks[number as usize];
                chunk.prev.set(last);
                chunk.next.set(NONE);
                self.chunks[last as usize].next.set(number);
            } else {
                self.link_first(number, |slots| &mut slots.idle);
            }
            self.idle_len += 1;
        } else {
            self.link_first(number, |slots| &mut slots.partial);
        }
    }

    /// How many chunks there are, and how many of them are used.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let len = self.chunks.len() - self.vacant.len();
        (len, len - self.idle_len)
    }

    /// How many chunks were used at once since the last call of [`watch`](Self::watch).
    pub(crate) fn most_used(&self) -> usize {
        self.chunks.len() - self.vacant.len() - self.idle_least.min(self.idle_len)
    }

    /// Begins to measure how many chunks are used.
    pub(crate) fn watch(&mut self) {
        self.idle_least = self.idle_len;
    }

    /// Frees up to `most` idle chunks, so that about `enough` are left. Returns true when done.
    pub(crate) fn shrink(&mut self, enough: usize, most: usize) -> bool {
        /// Slots that were used more often keep their chunk: generations do not come back.
        const OLD: u32 = 1 << 31;
        let enough = enough.max(KEPT);
        for _ in 0..most {
            let number = self.idle.last;
            if number == NONE || self.chunks.len() - self.vacant.len() <= enough {
                break;
            }
            let chunk = self.chunks[number as usize].clone();
            self.unlink(number, |slots| &mut slots.idle);
            self.idle_len -= 1;
            if chunk.newest.get() >= OLD {
                // Used before others are, and never looked at here again.
                self.link_first(number, |slots| &mut slots.partial);
                continue;
            }
            self.generation = self.generation.max(chunk.newest.get() + 1);
            let blank = self.blank.get_or_insert_with(|| Chunk::blank(&chunk.owner));
            self.chunks[number as usize] = blank.clone();
            self.vacant.push(number);
        }
        if self.idle.last != NONE && self.chunks.len() - self.vacant.len() > enough {
            return false;
        }
        self.forget_last();
        true
    }

    /// Forgets the numbers of chunks that have gone and were the last ones.
    fn forget_last(&mut self) {
        let Some(blank) = &self.blank else { return };
        while self.chunks.last().is_some_and(|last| Rc::ptr_eq(last, blank)) {
            self.chunks.pop();
        }
        let len = self.chunks.len();
        self.vacant.retain(|&number| (number as usize) < len);
        self.chunks.shrink_to(len.max(KEPT));
        self.vacant.shrink_to(len);
    }

    #[inline]
    pub(crate) fn chunk(&self, slot: u32) -> &Rc<Chunk<O>> {
        &self.chunks[slot as usize / CHUNK]
    }

    /// The chunk of a slot that may not exist.
    pub(crate) fn chunk_of(&self, slot: u32) -> Option<&Rc<Chunk<O>>> {
        self.chunks.get(slot as usize / CHUNK)
    }

    #[inline]
    pub(crate) fn node(&self, slot: u32) -> &Node {
        self.chunk(slot).node(slot)
    }

    /// The slot of `token`, if it still is what the token was made for.
    pub(crate) fn resolve(&self, token: u64) -> Option<u32> {
        self.find(token).map(|(_, slot)| slot)
    }

    /// [`resolve`](Self::resolve), with the chunk that the slot is in.
    #[inline]
    pub(crate) fn find(&self, token: u64) -> Option<(&Chunk<O>, u32)> {
        let slot = token as u32;
        let chunk = self.chunks.get(slot as usize / CHUNK)?;
        let live = chunk.token(slot) == token && chunk.node(slot).state.get() != State::Free;
        live.then_some((chunk, slot))
    }

    /// All slots in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let all = 0..(self.chunks.len() * CHUNK) as u32;
        all.filter(|&slot| self.node(slot).state.get() != State::Free)
    }

    /// How many slots are in use.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Takes away what is pending, of all sources.
    pub(crate) fn idle(&self) {
        let nodes = self.chunks.iter().flat_map(|chunk| &chunk.nodes);
        nodes
            .filter(|node| node.state.get() != State::Free)
            .for_each(|node| node.state.set(State::Idle));
    }

    /// Forgets everything; the sources that still have their chunk find themselves `Idle`.
    pub(crate) fn clear(&mut self) -> Vec<Rc<Chunk<O>>> {
        (self.partial, self.idle) = (Chunks::NONE, Chunks::NONE);
        (self.idle_len, self.idle_least, self.live) = (0, 0, 0);
        self.vacant = Vec::new();
        self.blank = None;
        for chunk in &self.chunks {
            chunk.nodes.iter().for_each(|node| node.state.set(State::Idle));
        }
        std::mem::take(&mut self.chunks)
    }
}

//! The slots of a reactor: one small record for each live source. A record is found by its index,
//! and a generation tells the users of a slot apart.
//!
//! Records live in chunks that never move, so a source keeps its chunk and reaches its own record
//! without a look-up. All fields are `Cell`s: the record belongs to one thread. A freed slot is
//! reused with the next generation. A slot whose generations are used up is retired, so no id is
//! ever used again.
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
//! A new chunk is made only when no other chunk has a free slot. Chunks with live sources are used
//! first. An *idle* chunk has no live source. Idle chunks are freed when there are more than 64 KiB
//! of chunks, and less than an eighth of them were used for a second. The freeing ends when twice
//! the used number is left. Later chunks take the freed numbers, with generations that were never
//! used. A chunk stays while one of its 128 slots is live. 12 bytes stay for its number until the
//! chunks with higher numbers are freed, too.
//!
//! Armed and Stopped records have an entry in the heap (a Stopped record is a zombie there). Ready
//! records are in the ready list. A channel whose end has been taken is Ended for the rest of its
//! life, and in the list of ends.

#[cfg(test)]
mod tests;

mod record;

use std::rc::Rc;

use self::record::CHUNK;
pub(crate) use self::record::{Chunk, Flag, NONE, Node, Owner, PATIENCE, State};
use super::sites::SiteId;

/// A list of chunks, through their links.
#[derive(Clone, Copy)]
struct Chunks {
    first: u32,
    last: u32,
}

impl Chunks {
    const NONE: Chunks = Chunks { first: NONE, last: NONE };
}

/// All records of a reactor.
pub(crate) struct Slots<O: Owner> {
    /// The chunks by their numbers. `blank` stands for a chunk that was freed.
    chunks: Vec<Rc<Chunk<O>>>,
    /// The chunks that have both free and used slots.
    partial: Chunks,
    /// The chunks without used slots. Roughly, chunks with low numbers come first.
    idle: Chunks,
    idle_len: usize,
    /// The fewest idle chunks since the last call of [`measure`](Slots::measure).
    idle_least: usize,
    /// Stands for every chunk that was freed. Nobody takes its slots.
    blank: Option<Rc<Chunk<O>>>,
    /// The numbers of the chunks that were freed.
    vacant: Vec<u32>,
    /// The generation that a new chunk begins with.
    generation: u32,
    live: usize,
}

/// The number of chunks that are kept for ever: 64 KiB.
const KEPT: usize = (64 << 10) / size_of::<[Node; CHUNK]>();

impl<O: Owner> Slots<O> {
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

    /// Takes a free slot, and makes it `Idle`. Returns its chunk and its number. Allocates a chunk
    /// when there is no free slot.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, owner: &Rc<O>, site: SiteId) -> (Rc<Chunk<O>>, u32) {
        if self.partial.first == NONE {
            self.use_idle(owner);
        }
        let chunk = self.chunks[self.partial.first as usize].clone();
        let slot = chunk.free.get();
        let node = chunk.node(slot);
        debug_assert_eq!(node.state.get(), State::Free);
        let next_free = node.begin(site);
        chunk.free.set(next_free);
        chunk.used.set(chunk.used.get() + 1);
        self.live += 1;
        if next_free == NONE {
            self.unlink_full();
        }
        (chunk, slot)
    }

    /// Takes the first chunk out of its list: it has no free slot any more.
    #[cold]
    #[inline(never)]
    fn unlink_full(&mut self) {
        self.chunks[self.partial.first as usize].was_full.set(true);
        self.unlink(self.partial.first, |slots| &mut slots.partial);
    }

    /// Takes slots from an idle chunk, or from a new one.
    #[cold]
    #[inline(never)]
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

    /// Gives a slot of a chunk back that nothing refers to any more. Returns true if the chunk is
    /// idle now.
    #[inline]
    pub(crate) fn free(&mut self, chunk: &Chunk<O>, slot: u32) -> bool {
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
        let next_free = chunk.free.replace(slot);
        node.pos.set(next_free);
        let (was_full, used) = (next_free == NONE, chunk.used.get() - 1);
        chunk.used.set(used);
        if was_full || used == 0 {
            self.relink(slot / CHUNK as u32, was_full, used == 0);
        }
        used == 0
    }

    /// Links a chunk that has a free slot again, or that has only free slots now.
    #[cold]
    #[inline(never)]
    fn relink(&mut self, number: u32, was_full: bool, is_idle: bool) {
        if is_idle {
            if !was_full {
                self.unlink(number, |slots| &mut slots.partial);
            }
            let chunk = &self.chunks[number as usize];
            if chunk.was_full.take() {
                chunk.sort_free();
            }
            // Chunks with high numbers are freed first.
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

    /// Returns the number of chunks, and the number of used chunks.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let len = self.chunks.len() - self.vacant.len();
        (len, len - self.idle_len)
    }

    /// Returns the most chunks that were used at once since the last call of
    /// [`measure`](Self::measure).
    pub(crate) fn most_used(&self) -> usize {
        self.chunks.len() - self.vacant.len() - self.idle_least.min(self.idle_len)
    }

    /// Begins to measure how many chunks are used.
    pub(crate) fn measure(&mut self) {
        self.idle_least = self.idle_len;
    }

    /// Frees up to `most` idle chunks, so that about `enough` are left. Returns true when done.
    pub(crate) fn shrink(&mut self, enough: usize, most: usize) -> bool {
        /// The generation from which on slots keep their chunk, because generations are never used
        /// again.
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
                // The slots of this chunk are used before others, and the chunk is not looked at
                // here again.
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

    /// Forgets the numbers of freed chunks at the end.
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

    /// Returns the chunk of a slot that may not exist.
    pub(crate) fn chunk_of(&self, slot: u32) -> Option<&Rc<Chunk<O>>> {
        self.chunks.get(slot as usize / CHUNK)
    }

    #[inline]
    pub(crate) fn node(&self, slot: u32) -> &Node {
        self.chunk(slot).node(slot)
    }

    /// Returns the slot of `token`, if the slot still belongs to the source that the token was made
    /// for.
    pub(crate) fn resolve(&self, token: u64) -> Option<u32> {
        self.find(token).map(|(_, slot)| slot)
    }

    /// [`resolve`](Self::resolve), with the slot's chunk.
    #[inline]
    pub(crate) fn find(&self, token: u64) -> Option<(&Chunk<O>, u32)> {
        let slot = token as u32;
        let chunk = self.chunks.get(slot as usize / CHUNK)?;
        let live = chunk.token(slot) == token && chunk.node(slot).state.get() != State::Free;
        live.then_some((chunk, slot))
    }

    /// Returns all slots in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let all = 0..(self.chunks.len() * CHUNK) as u32;
        all.filter(|&slot| self.node(slot).state.get() != State::Free)
    }

    /// Returns the number of slots in use.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Clears the pending arm or expiry of all sources.
    pub(crate) fn idle(&self) {
        let nodes = self.chunks.iter().flat_map(|chunk| &chunk.nodes);
        nodes
            .filter(|node| node.state.get() != State::Free)
            .for_each(|node| node.state.set(State::Idle));
    }

    /// Clears all lists. The sources that still have their chunk find themselves `Idle`.
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

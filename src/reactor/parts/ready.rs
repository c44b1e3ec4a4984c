//! The ready list: the sources that have an item to give, in the order in which they became ready.
//!
//! The list is intrusive: the links of a record are in its `seq`, which is free while the record is
//! `Ready`. So a source is in the list at most once, and enters and leaves in constant time. The
//! list never allocates.

use super::slots::{NONE, Node, Owner, PATIENCE, Slots, State};

/// A doubly linked list through the records.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The state of the records in the list.
    state: State,
    head: u32,
    tail: u32,
    len: usize,
    /// The `pos` of a record that enters.
    mark: u32,
    /// The number of records that have entered so far. A record that is put last enters again.
    entered: u64,
}

#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

fn links<O: Owner>(slots: &Slots<O>, slot: u32) -> Links {
    links_of(slots.node(slot))
}

fn links_of(node: &Node) -> Links {
    let packed = node.seq.get();
    Links { prev: (packed >> 32) as u32, next: packed as u32 }
}

fn set_links<O: Owner>(slots: &Slots<O>, slot: u32, links: Links) {
    slots.node(slot).seq.set(u64::from(links.prev) << 32 | u64::from(links.next));
}

impl Ready {
    pub(crate) const fn new() -> Ready {
        Ready::of(State::Ready)
    }

    /// Makes a list of records in this state.
    pub(crate) const fn of(state: State) -> Ready {
        Ready { state, head: NONE, tail: NONE, len: 0, mark: PATIENCE, entered: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of records that have entered so far.
    pub(crate) fn entered(&self) -> u64 {
        self.entered
    }

    /// Returns the records that have entered last, at most `n`, the newest first.
    pub(crate) fn newest<O: Owner>(&self, slots: &Slots<O>, n: u64) -> impl Iterator<Item = u32> {
        let is_slot = |slot: u32| (slot != NONE).then_some(slot);
        let before = move |&slot: &u32| is_slot(links(slots, slot).prev);
        std::iter::successors(is_slot(self.tail), before).take(n as usize)
    }

    /// Returns the record that has waited longest.
    pub(crate) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Returns the record that came behind `slot`.
    pub(crate) fn after<O: Owner>(&self, slots: &Slots<O>, slot: u32) -> Option<u32> {
        Ready::behind(slots.node(slot))
    }

    /// Returns the record that came behind this one.
    #[inline(always)]
    pub(crate) fn behind(node: &Node) -> Option<u32> {
        let next = node.seq.get() as u32;
        (next != NONE).then_some(next)
    }

    /// Returns all records. The one that has waited longest comes first.
    pub(crate) fn iter<O: Owner>(&self, slots: &Slots<O>) -> impl Iterator<Item = u32> {
        std::iter::successors(self.first(), move |&slot| self.after(slots, slot))
    }

    /// Begins a batch. [`is_first_new`](Self::is_first_new) tells later records from those that are
    /// there now.
    pub(crate) fn begin_batch(&mut self) {
        // The mark is never zero, because zero means a source that spins.
        self.mark = self.mark.checked_add(1).unwrap_or(1);
    }

    /// Returns true if the first record has entered since the last batch began.
    pub(crate) fn is_first_new<O: Owner>(&self, slots: &Slots<O>) -> bool {
        self.first().is_some_and(|slot| slots.node(slot).pos.get() == self.mark)
    }

    /// Puts the first `n` records last.
    #[cold]
    #[inline(never)]
    pub(crate) fn rotate<O: Owner>(&mut self, slots: &Slots<O>, n: usize) {
        if n == 0 || n >= self.len {
            return;
        }
        let first = self.head;
        let last = (1..n).fold(first, |slot, _| links(slots, slot).next);
        let head = links(slots, last).next;
        set_links(slots, head, Links { prev: NONE, ..links(slots, head) });
        set_links(slots, self.tail, Links { next: first, ..links(slots, self.tail) });
        set_links(slots, first, Links { prev: self.tail, ..links(slots, first) });
        set_links(slots, last, Links { next: NONE, ..links(slots, last) });
        (self.head, self.tail) = (head, last);
        self.entered += n as u64;
    }

    /// Puts a record of the list last, with the reports that it has left.
    pub(crate) fn put_last<O: Owner>(&mut self, slots: &Slots<O>, slot: u32) {
        let patience = slots.node(slot).pos.get();
        self.remove(slots, slot);
        self.push(slots, slot);
        slots.node(slot).pos.set(patience);
    }

    /// Puts a record last, and gives it the state of the list.
    #[inline]
    pub(crate) fn push<O: Owner>(&mut self, slots: &Slots<O>, slot: u32) {
        self.push_node(slots, slot, slots.node(slot));
    }

    /// [`push`](Self::push) of a slot whose record is known.
    #[inline]
    pub(crate) fn push_node<O: Owner>(&mut self, slots: &Slots<O>, slot: u32, node: &Node) {
        debug_assert!(!matches!(node.state.get(), State::Ready | State::Ended));
        node.state.set(self.state);
        node.pos.set(self.mark);
        node.seq.set(u64::from(self.tail) << 32 | u64::from(NONE));
        match self.tail {
            NONE => self.head = slot,
            tail => set_links(slots, tail, Links { next: slot, ..links(slots, tail) }),
        }
        self.tail = slot;
        self.len += 1;
        self.entered += 1;
    }

    /// Takes a record out and makes it `Idle`.
    #[inline]
    pub(crate) fn remove<O: Owner>(&mut self, slots: &Slots<O>, slot: u32) {
        self.remove_node(slots, slots.node(slot));
    }

    /// [`remove`](Self::remove) of a slot whose record is known.
    #[inline]
    pub(crate) fn remove_node<O: Owner>(&mut self, slots: &Slots<O>, node: &Node) {
        debug_assert_eq!(node.state.get(), self.state);
        node.state.set(State::Idle);
        let Links { prev, next } = links_of(node);
        match prev {
            NONE => self.head = next,
            prev => set_links(slots, prev, Links { next, ..links(slots, prev) }),
        }
        match next {
            NONE => self.tail = prev,
            next => set_links(slots, next, Links { prev, ..links(slots, next) }),
        }
        self.len -= 1;
    }
}

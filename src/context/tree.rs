//! The tree of contexts: the end of a node ends all nodes below.
//!
//! A node holds its parent, so a cancellation reaches the node through nodes that nobody else holds
//! any more. The parent knows the node by a `Weak` in the list of what hangs there: children and
//! bells, in the order of registration. Every node has the earliest deadline of its path, so a
//! child whose parent ends earlier has no deadline of its own.
//!
//! - **The first to end a node wins**: `end` is one word that is set once, with the cause.
//! - **A deadline that has passed was first**, even if no thread looked. A canceller compares the
//!   deadline with the clock, and so does a thread that asks.
//! - Such an end need not be handed down. The nodes below have passed their deadlines as well, and
//!   the loops that wait there have armed them.
//! - **A cancellation goes down without recursion.** It ends a node, closes its list, and goes on
//!   with the children that were in the list. Then it tolls all bells, and only then it wakes the
//!   reactors (`wake/mod.rs`): each one once, and the reactor finds all that concern it.
//!
//! # A thread that stands still
//! No operation waits for another thread, because that thread may stand still. There is no lock. An
//! end is an exchange of a pointer, and so are the changes of a list (`channel/registry.rs`).
//!
//! **A cancellation misses nothing.** The canceller ends the node first and closes its list then. A
//! thread that hangs something up adds it first and looks at `end` then.
//! - It was added before the list was closed: the canceller finds it in the list.
//! - It comes too late: the node has ended before the list was closed. So the thread finds the end,
//!   rings its own bell, or ends its own child.
//! - It was added between the two: both do it. An end is set once, and a bell that is rung twice
//!   costs one more look.
//!
//! A canceller that stands still delays only what is below the node and was not reached yet. Those
//! contexts are open until they are reached, and a bell that was not tolled is not heard. `err()`
//! of such a context does not look at its ancestors: that would cost a load for each. A deadline
//! holds all the same, and another cancellation, of the same node or another one, does not wait.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::cause::{Cause, ContextError};
use crate::channel::{Entry, Once, Registry};
use crate::driver::Clock;
use crate::sys::Time;
use crate::wake::Bell;

/// One context of the tree.
pub(super) struct Node {
    /// `None`: below a root, or born ended.
    pub(super) place: Option<Place>,
    pub(super) limit: Option<Limit>,
    /// Empty: open.
    pub(super) end: Once<Cause>,
    /// Closed by the canceller, and left open by the deadline.
    pub(super) list: Registry<Hanging>,
}

/// The parent and the entry of a node.
pub(super) struct Place {
    parent: Arc<Node>,
    entry: Arc<Entry<Hanging>>,
}

/// A child or a bell at a node, in the order in which they end.
pub(super) enum Hanging {
    Child(Weak<Node>),
    Bell(Arc<Bell>),
}

/// The earliest deadline on the way from the root, and what it ends a context with.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) at: Time,
    pub(super) cause: Arc<Cause>,
}

impl Node {
    pub(super) fn new(place: Option<Place>, limit: Option<Limit>, end: Option<Arc<Cause>>) -> Node {
        Node { place, limit, end: Once::new(end), list: Registry::new() }
    }

    /// Makes a child. A child of a node that has ended is born ended and not part of the tree.
    pub(super) fn child(self: &Arc<Node>, limit: Option<Limit>) -> Arc<Node> {
        if let Some(cause) = self.end.get_arc() {
            return Arc::new(Node::new(None, limit, Some(cause)));
        }
        let mut hung = None;
        let child = Arc::new_cyclic(|child| {
            let entry = Entry::new(Hanging::Child(child.clone()));
            hung = Some(entry.clone());
            Node::new(Some(Place { parent: self.clone(), entry }), limit, None)
        });
        hung.map(|entry| self.list.add(entry));
        // Cancelled meanwhile: the canceller may have missed the child. (A deadline is its own.)
        if self.ended() == Some(ContextError::Cancelled) {
            self.end.get_arc().map(|cause| child.end.set(cause));
        }
        child
    }

    /// The end of the node, if any thread has noticed an end.
    #[inline]
    pub(super) fn ended(&self) -> Option<ContextError> {
        self.end.get().map(|cause| cause.error)
    }

    /// The end of the node by now. Ends a node whose deadline has passed.
    pub(super) fn settle(&self, clock: &Clock) -> Option<ContextError> {
        let limit = match (self.ended(), &self.limit) {
            (None, Some(limit)) => limit,
            (ended, _) => return ended,
        };
        if clock.now() < limit.at {
            return None;
        }
        self.expire();
        self.ended()
    }

    /// The deadline has passed: ends the node by it, unless another thread was first.
    pub(super) fn expire(&self) {
        if let Some(limit) = &self.limit {
            self.end.set(limit.cause.clone());
        }
    }

    /// Ends the node and all below it, and wakes who waits for them. `now` is on their clock.
    /// Returns true if this call ended the node, and not its deadline.
    pub(super) fn cancel(self: &Arc<Node>, cause: &Arc<Cause>, now: Time) -> bool {
        let mut bells = Vec::new();
        // Breadth first, so that the order is the same every time.
        let mut below = VecDeque::new();
        let won = self.cancel_one(cause, now, &mut below, &mut bells);
        while let Some(child) = below.pop_front() {
            if let Some(child) = Weak::upgrade(&child) {
                child.cancel_one(cause, now, &mut below, &mut bells);
            }
        }
        let tolled: Vec<_> = bells.iter().map(|bell| bell.toll()).collect();
        for (bell, asked) in bells.iter().zip(tolled) {
            bell.wake(asked);
        }
        won
    }

    fn cancel_one(
        &self,
        cause: &Arc<Cause>,
        now: Time,
        below: &mut VecDeque<Weak<Node>>,
        bells: &mut Vec<Arc<Bell>>,
    ) -> bool {
        let overdue = self.limit.as_ref().filter(|limit| limit.at <= now);
        if !self.end.set(overdue.map_or(cause, |limit| &limit.cause).clone()) {
            return false;
        }
        for entry in self.list.close() {
            match entry.value() {
                Hanging::Child(child) => below.push_back(child.clone()),
                Hanging::Bell(bell) => bells.push(bell.clone()),
            }
        }
        overdue.is_none()
    }

    /// Has the bell rung when the node is cancelled; at once if it has ended. Returns what takes
    /// the bell down.
    pub(super) fn hang(&self, bell: &Arc<Bell>) -> Option<Arc<Entry<Hanging>>> {
        if self.end.get().is_some() {
            bell.ring();
            return None;
        }
        let entry = Entry::new(Hanging::Bell(bell.clone()));
        self.list.add(entry.clone());
        // Ended meanwhile: the canceller may have missed the bell.
        if self.end.get().is_some() {
            bell.ring();
        }
        Some(entry)
    }

    pub(super) fn take_down(&self, entry: &Entry<Hanging>) {
        self.list.take_off(entry);
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        self.end.get().cloned()
    }
}

impl Drop for Node {
    /// Leaves the parent. A chain that goes with it goes link by link: as recursion a long one
    /// would end the stack.
    fn drop(&mut self) {
        let mut next = self.place.take();
        while let Some(Place { parent, entry }) = next {
            parent.take_down(&entry);
            let Some(mut parent) = Arc::into_inner(parent) else { return };
            next = parent.place.take();
        }
    }
}

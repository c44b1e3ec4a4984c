//! The tree of contexts: the end of a node ends all nodes below.
//!
//! A node holds its parent, so a cancellation also reaches the node through nodes that no context
//! holds any more. The parent has a list of children and bells, in the order of registration, with
//! a `Weak` for each child. Every node has the earliest deadline of its path, so a child whose
//! parent ends earlier has no deadline of its own.
//!
//! - **The first to end a node wins**: `end` is one word that is set once, with the cause.
//! - **A deadline that has passed was first**, even if no thread noticed it. A canceller compares
//!   the deadline with the clock, and so does a thread that asks.
//! - An end by a deadline need not reach the nodes below. They have passed their deadlines as well,
//!   and the loops that wait for them have armed those deadlines.
//! - **A cancellation uses no recursion.** It ends a node, closes its list, and goes on with the
//!   children of the list. Then it tolls all bells. At last it wakes each reactor once
//!   (`wake/mod.rs`), and the reactor finds all of its bells.
//!
//! # Stopped threads
//! No operation waits for another thread, because that thread may be stopped. There is no lock. An
//! end is an exchange of a pointer, and so is each change of a list (`channel/registry.rs`).
//!
//! **A cancellation misses no child and no bell.** The canceller ends the node first, and then
//! closes its list. A thread adds its child or bell first, and then looks at `end`.
//! - If the thread adds it before the list is closed, the canceller finds it in the list.
//! - If the list is closed already, the node has ended. So the thread finds the end, and rings its
//!   own bell or ends its own child.
//! - Between the two, both threads do so. An end is set once, and a second ring of a bell costs one
//!   more look.
//!
//! A stopped canceller delays only the nodes and bells below that it has not reached. Those
//! contexts stay open until the canceller reaches them. `err()` of such a context does not look at
//! its ancestors, because that would cost a load for each. Deadlines hold all the same, and other
//! cancellations do not wait.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::cause::{Cause, ContextError};
use crate::channel::{Entry, Once, Registry};
use crate::driver::Clock;
use crate::sys::Time;
use crate::wake::Bell;

/// One context of the tree.
pub(super) struct Node {
    /// The place at the parent. `None` for a child of a root, and for a child of an ended node.
    pub(super) place: Option<Place>,
    pub(super) limit: Option<Limit>,
    /// The cause of the end, which is empty while the node is open.
    pub(super) end: Once<Cause>,
    /// The children and bells. A canceller closes the list, and a deadline leaves it open.
    pub(super) list: Registry<Hanging>,
}

/// The parent and the entry of a node.
pub(super) struct Place {
    parent: Arc<Node>,
    entry: Arc<Entry<Hanging>>,
}

/// A child or a bell in the list of a node.
pub(super) enum Hanging {
    Child(Weak<Node>),
    Bell(Arc<Bell>),
}

/// The earliest deadline on the path from the root, and the cause of an end by that deadline.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) at: Time,
    pub(super) cause: Arc<Cause>,
}

impl Node {
    pub(super) fn new(place: Option<Place>, limit: Option<Limit>, end: Option<Arc<Cause>>) -> Node {
        Node { place, limit, end: Once::new(end), list: Registry::new() }
    }

    /// Makes a child. A child of an ended node has ended, and is not in the list.
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
        // If the node was cancelled meanwhile, the canceller may have missed the child. (A deadline
        // is the
        // child's own.)
        if self.ended() == Some(ContextError::Cancelled) {
            self.end.get_arc().map(|cause| child.end.set(cause));
        }
        child
    }

    /// Returns the end of the node, if any thread has noticed it.
    #[inline]
    pub(super) fn ended(&self) -> Option<ContextError> {
        self.end.get().map(|cause| cause.error)
    }

    /// Ends a node whose deadline has passed, and returns the end of the node.
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

    /// Ends the node by its deadline, which has passed, unless another thread was first.
    pub(super) fn expire(&self) {
        if let Some(limit) = &self.limit {
            self.end.set(limit.cause.clone());
        }
    }

    /// Ends the node and all nodes below, and wakes their reactors. `now` is on the clock of the
    /// nodes. Returns true if this call ended the node, and not its deadline.
    pub(super) fn cancel(self: &Arc<Node>, cause: &Arc<Cause>, now: Time) -> bool {
        let mut bells = Vec::new();
        // The nodes end in breadth-first order, which is always the same.
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

    /// Adds a bell that rings when the node is cancelled. Rings at once if the node has ended.
    /// Returns the entry, which removes the bell.
    pub(super) fn hang(&self, bell: &Arc<Bell>) -> Option<Arc<Entry<Hanging>>> {
        if self.end.get().is_some() {
            bell.ring();
            return None;
        }
        let entry = Entry::new(Hanging::Bell(bell.clone()));
        self.list.add(entry.clone());
        // If the node has ended meanwhile, the canceller may have missed the bell.
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
    /// Takes the node out of the parent's list. A chain of unused parents is dropped in a loop,
    /// because the recursion of a long chain would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.place.take();
        while let Some(Place { parent, entry }) = next {
            parent.take_down(&entry);
            let Some(mut parent) = Arc::into_inner(parent) else { return };
            next = parent.place.take();
        }
    }
}

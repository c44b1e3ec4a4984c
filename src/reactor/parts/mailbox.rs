//! The posts of other threads, and the order between posts and messages.
//!
//! Posts go through an unbounded channel, so that no poster holds up the loop or others. A poster
//! writes its post into the channel, and then publishes in [`Notify`](crate::wake::Notify) that
//! there is one.

use std::cell::{Cell, RefCell};

use super::counters::Count;
use crate::channel::{self, Receiver, Sender};

/// A queue of posts, and what a turn may still run of them.
pub(crate) struct Mailbox<P> {
    /// For every [`Remote`](crate::Remote).
    pub(crate) sender: Sender<P>,
    /// `None` when the reactor is gone.
    pub(crate) receiver: RefCell<Option<Receiver<P>>>,
    /// The most posts that a batch runs.
    pub(crate) batch: usize,
    /// The most posts that may wait when [`Remote::try_post`](crate::Remote::try_post) adds one.
    pub(crate) limit: usize,
    /// Posts that were taken so far.
    pub(crate) done: Count,
    /// The last batch has left posts.
    pub(crate) left: Cell<bool>,
    /// Channels wait until as many posts were taken (`callbacks.rs`).
    pub(crate) gate: Cell<Option<u64>>,
    /// The tokens of the channels that need not wait for more posts, sorted.
    pub(crate) admitted: RefCell<Vec<u64>>,
    /// The turn in which a channel had to wait for posts; 0: that was seen.
    pub(crate) held: Cell<u64>,
}

impl<P> Mailbox<P> {
    /// An empty queue.
    pub(crate) fn new(batch: usize, limit: usize) -> Mailbox<P> {
        let (sender, receiver) = channel::unbounded();
        Mailbox {
            sender,
            receiver: RefCell::new(Some(receiver)),
            batch: batch.max(1),
            limit,
            done: Cell::new(0),
            left: Cell::new(false),
            gate: Cell::new(None),
            admitted: RefCell::default(),
            held: Cell::new(0),
        }
    }

    /// The first post, if it is there.
    pub(crate) fn take(&self) -> Option<P> {
        self.receiver.borrow().as_ref().and_then(|receiver| receiver.try_recv().ok())
    }

    /// Returns true if the queue has memory that may have to go.
    pub(crate) fn is_large(&self) -> bool {
        self.receiver.borrow().as_ref().is_some_and(Receiver::is_large)
    }

    /// Lets memory go that a burst has left. Returns true if there may be more.
    pub(crate) fn rest(&self) -> bool {
        self.receiver.borrow().as_ref().is_some_and(|receiver| {
            receiver.rest();
            receiver.is_large()
        })
    }
}

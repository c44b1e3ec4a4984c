//! A bell at a context, for a reactor that waits for the end.

use std::sync::Arc;

use super::Context;
use super::tree::Hanging;
use crate::channel::Entry;
use crate::wake::Bell;

/// A bell that hangs at a context, until this is dropped.
pub(super) struct EndBell {
    pub(super) context: Context,
    pub(super) bell: Arc<Bell>,
    entry: Option<Arc<Entry<Hanging>>>,
}

impl EndBell {
    pub(super) fn new(context: &Context, bell: Bell) -> EndBell {
        let bell = Arc::new(bell);
        let entry = context.node.as_ref().and_then(|node| node.hang(&bell));
        EndBell { context: context.clone(), bell, entry }
    }

    /// Returns true if the context has ended, but for a deadline that nobody has noticed.
    #[inline]
    pub(super) fn is_ended(&self) -> bool {
        self.context.node.as_ref().is_some_and(|node| node.ended().is_some())
    }

    /// It has ended, as the reactor found: if nobody has cancelled it, by its deadline.
    pub(super) fn settle(&self) {
        if let (Some(node), false) = (&self.context.node, self.is_ended()) {
            node.expire();
        }
    }
}

impl Drop for EndBell {
    fn drop(&mut self) {
        if let (Some(node), Some(entry)) = (&self.context.node, &self.entry) {
            node.take_down(entry);
        }
    }
}

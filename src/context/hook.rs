//! A bell at a context, for a reactor that waits for the end.

use std::sync::Arc;

use super::Context;
use super::tree::Hanging;
use crate::channel::Entry;
use crate::wake::Bell;

/// A bell in the list of a context, which the drop removes.
pub(super) struct Hook {
    pub(super) context: Context,
    pub(super) bell: Arc<Bell>,
    entry: Option<Arc<Entry<Hanging>>>,
}

impl Hook {
    pub(super) fn new(context: &Context, bell: Bell) -> Hook {
        let bell = Arc::new(bell);
        let entry = context.node.as_ref().and_then(|node| node.hang(&bell));
        Hook { context: context.clone(), bell, entry }
    }

    /// Returns true if a thread has ended the context. A deadline that no thread has noticed does
    /// not
    /// count.
    #[inline]
    pub(super) fn is_ended(&self) -> bool {
        self.context.node.as_ref().is_some_and(|node| node.ended().is_some())
    }

    /// Ends the context by its deadline, which the reactor has noticed, unless it was cancelled.
    pub(super) fn settle(&self) {
        if let (Some(node), false) = (&self.context.node, self.is_ended()) {
            node.expire();
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let (Some(node), Some(entry)) = (&self.context.node, &self.entry) {
            node.take_down(entry);
        }
    }
}

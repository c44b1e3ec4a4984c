//! A bell at a context, for a reactor that waits for the end.

use std::sync::Arc;

use super::Context;
use super::tree::Hanging;
use crate::channel::Entry;
use crate::wake::Bell;

/// A bell that hangs at a context, until this is dropped.
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

    /// Returns true if the context has ended, but for a deadline that nobody has noticed.
    #[inline]
    pub(super) fn is_ended(&self) -> bool {
        self.context.node.as_ref().is_some_and(|node| node.ended().is_some())
    }

    /// Ends the context, whose end the reactor found: by its deadline, if nobody has cancelled it.
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

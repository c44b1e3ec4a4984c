//! A message on its way, and the drops that it may cause.

use std::panic::{self, AssertUnwindSafe};

/// The fate of a message that was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Fate {
    Arrives,
    /// The message arrives, in the order of its link.
    IsNext,
    Lost,
}

/// A message on its way through a link.
pub(in crate::sim) struct Delivery {
    pub(in crate::sim) link: usize,
    pub(in crate::sim) settle: Box<dyn FnOnce(Fate) + Send>,
}

impl Delivery {
    /// Delivers or loses the message. Catches a panic of the message's drop.
    pub(in crate::sim) fn settle(self, fate: Fate) {
        quietly(|| (self.settle)(fate));
    }
}

/// Calls `f` and catches its panic, which the panic hook has printed.
pub(in crate::sim) fn quietly(f: impl FnOnce()) {
    if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(f)) {
        // The drop of the payload may panic, too.
        std::mem::forget(cause);
    }
}

//! Values that count their drops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A message that counts its drop.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Makes [`Counted`] messages and counts their drops.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    /// Returns a counter without drops.
    pub fn new() -> Drops {
        Drops::default()
    }

    /// Makes a message.
    pub fn message(&self) -> Counted {
        Counted(self.0.clone())
    }

    /// Returns the number of dropped messages.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Calls a closure when it is dropped.
#[allow(missing_debug_implementations)]
pub struct OnDrop<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

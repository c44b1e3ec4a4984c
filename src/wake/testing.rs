//! A party that counts its wake-ups, for unit tests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Notify, Wake};

#[derive(Default)]
pub(crate) struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Counting {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Returns the shared end of a reactor, and its waker.
pub(crate) fn party() -> (Arc<Notify>, Arc<Counting>) {
    let wakes = Arc::<Counting>::default();
    (Arc::new(Notify::new(wakes.clone())), wakes)
}

//! The wakers of members.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Id;
use crate::driver::Wake;

/// The members that were woken since somebody looked.
#[derive(Default)]
pub(super) struct Woken(pub(super) Mutex<Vec<Id>>);

/// A member's waker.
pub(in crate::sim) struct Flag {
    pub(super) set: AtomicBool,
    pub(super) id: Id,
    pub(super) list: Arc<Woken>,
}

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        if !self.set.swap(true, Ordering::AcqRel) {
            self.list.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
        Ok(())
    }
}

//! The wakers of members.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Id;
use crate::driver::Wake;
use crate::sync::Mutex;

/// The members that were woken since the last choice.
#[derive(Default)]
pub(super) struct Woken(pub(super) Mutex<Vec<Id>>);

/// The waker of a member.
pub(in crate::sim) struct Flag {
    pub(super) set: AtomicBool,
    pub(super) id: Id,
    pub(super) list: Arc<Woken>,
}

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        if !self.set.swap(true, Ordering::AcqRel) {
            self.list.0.lock().push(self.id);
        }
        Ok(())
    }
}

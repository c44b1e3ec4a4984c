//! How other threads reach a sleeping reactor: the only part of it that is `Send + Sync`.
//!
//! # The wake protocol
//! Each channel has a word `armed`, set by the reactor and taken by the first sender that sees it; the reactor has a flag `sleeping`.
//!
//! | reactor, about to block | sender |
//! |---|---|
//! | 1. `sleeping = true` | 1. claims the tail (a `SeqCst` RMW): the message is published as "to come" |
//! | 2. for each channel: sets `armed`, if it is not | 2. reads `armed`; not set: done, nothing else to do |
//! | 3. a `SeqCst` fence | 3. if a mark was asked for: takes `armed`, pushes the mark |
//! | 4. for each channel: reads the tail; and reads the marks; something: stay awake | 4. takes `sleeping`; it was true: wakes the driver |
//! | 5. sleeps in the driver | |
//!
//! The sender's steps are `SeqCst` and so in one order with the fence. One that claims before the fence is seen in step 4. One that claims
//! after it sees `sleeping` and `armed`, unless another sender has taken them, which then wakes the reactor, or has woken it. Taking `sleeping` clears it: **no
//! lost wake-up, one wake-up a sleep**. A sender whose receiver is awake pays one load.
//!
//! A `select!` looks at its few channels itself: it asks for a [`Call::Wake`], which senders leave in place and the reactor takes back when it is awake.
//! A wait for thousands must cost what is ready: it asks for a [`Call::Mark`], which says *which* channel to look at, and which the sender that
//! answers it takes away. The loom models of this table are in `channel/models.rs`.

use std::sync::Arc;

use crate::driver::Wake;
use crate::sync::{AtomicBool, Mutex, Ordering, full_fence};

/// The shared end of a reactor.
pub(crate) struct Notify {
    sleeping: AtomicBool,
    /// Whether `marks` has any, to be read without the lock.
    marked: AtomicBool,
    /// Tokens of the channels whose `Call::Mark` was taken: at most one for each arming.
    marks: Mutex<Vec<u64>>,
    waker: Arc<dyn Wake>,
}

/// How a channel's next message is to be made known. The greater one includes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Call {
    /// Wake the receiver if it sleeps.
    Wake = 1,
    /// Leave the channel's mark, too.
    Mark = 2,
}

/// What a reactor asks of a channel whose receiver is registered with it.
pub(crate) trait Probe: Send + Sync {
    /// There is a message, or the news that none will come.
    fn is_ready(&self) -> bool;
    /// Asks to be told when the next message comes, with a fence. Returns whether the channel is ready already.
    fn arm(&self, call: Call) -> bool;
}

impl Notify {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Notify {
        Notify {
            sleeping: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            marks: Mutex::new(Vec::new()),
            waker,
        }
    }

    /// Step 1 of the reactor. The caller goes on with [`fence`](crate::sync::fence).
    pub(crate) fn sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
    }

    /// Ends what [`sleep`](Self::sleep) began. Returns whether the reactor was woken since: once at the most, by one call of the driver's waker.
    pub(crate) fn awake(&self) -> bool {
        !self.take_sleeping()
    }

    /// A compare-and-swap that fails stores nothing: a late sender cannot undo a later `sleep`.
    #[inline]
    fn take_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
            && self.sleeping.compare_exchange(true, false, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// A part of step 4 of the reactor.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    /// Steps 3 and 4 of a sender that took `armed`.
    pub(crate) fn call(&self, mark: bool, token: u64) {
        if mark {
            self.mark(token);
        }
        self.wake();
    }

    fn mark(&self, token: u64) {
        self.marks.lock().push(token);
        self.marked.store(true, Ordering::SeqCst);
        full_fence();
    }

    /// Step 4 of a sender. Also raised by the reactor itself when an outer loop sleeps for it.
    pub(crate) fn wake(&self) {
        if self.take_sleeping() {
            // The waker's only error is a closed or full counter, and neither can be: it owns its fd and handles a full one.
            let _ = self.waker.wake();
        }
    }

    /// Moves the marks to `into`, which is empty and keeps its capacity for the next time.
    pub(crate) fn collect(&self, into: &mut Vec<u64>) {
        debug_assert!(into.is_empty());
        self.marked.store(false, Ordering::SeqCst);
        full_fence();
        std::mem::swap(&mut *self.marks.lock(), into);
    }
}

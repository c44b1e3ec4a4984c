//! How other threads reach a sleeping reactor: the only part of it that is `Send + Sync`.
//!
//! # The wake protocol
//! Each channel has a flag `armed`, set by the reactor and taken by the first sender that sees it; the reactor has a flag `sleeping`.
//!
//! | reactor, about to block | sender |
//! |---|---|
//! | 1. `sleeping = true` | 1. claims the tail (an RMW): the message is published as "to come" |
//! | 2. for each channel: `armed = true`, if it is not | 2. reads `armed`; false: done, nothing else to do |
//! | 3. for each channel: reads the tail; not empty: stay awake | 3. takes `armed`; pushes the channel's mark |
//! | 4. reads the marks; some: stay awake | 4. takes `sleeping`; it was true: wakes the driver |
//! | 5. sleeps in the driver | |
//!
//! All of these are `SeqCst`. A sender whose step 2 reads false comes before the reactor's step 2, so step 3 sees its tail. One that takes
//! `armed` and finds `sleeping` false comes before step 1, so step 3 sees its tail too (or step 4 its mark). All others wake the reactor, and only the first of
//! them, because taking `sleeping` clears it: **no lost wake-up, one wake-up a sleep**. A sender whose receiver is awake pays one load.
//!
//! Marks say *which* channels to look at, so that a wait for thousands costs what is ready. The loom models of this table are in
//! `channel/models.rs`.

use std::sync::Arc;

use crate::driver::Wake;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, full_fence};

/// The shared end of a reactor.
pub(crate) struct Notify {
    sleeping: AtomicBool,
    /// Whether `marks` has any, to be read without the lock.
    marked: AtomicBool,
    /// Tokens of the channels whose `armed` was taken: at most one for each arming.
    marks: Mutex<Vec<u64>>,
    waker: Arc<dyn Wake>,
    wakes: AtomicU64,
}

/// What a reactor asks of a channel whose receiver is registered with it.
pub(crate) trait Probe: Send + Sync {
    /// There is a message, or the news that none will come.
    fn is_ready(&self) -> bool;
    /// Asks for a mark when the next message comes. Returns whether the channel is ready already.
    fn arm(&self) -> bool;
}

impl Notify {
    pub(crate) fn new(waker: Arc<dyn Wake>) -> Notify {
        Notify {
            sleeping: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            marks: Mutex::new(Vec::new()),
            waker,
            wakes: AtomicU64::new(0),
        }
    }

    /// Step 1 of the reactor.
    pub(crate) fn sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        full_fence();
    }

    /// Ends what [`sleep`](Self::sleep) began. Returns whether nobody has woken the reactor since.
    pub(crate) fn awake(&self) -> bool {
        self.sleeping.swap(false, Ordering::SeqCst)
    }

    /// Step 4 of the reactor.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    /// The second half of step 3 of a sender.
    pub(crate) fn mark(&self, token: u64) {
        self.marks.lock().push(token);
        self.marked.store(true, Ordering::SeqCst);
        full_fence();
    }

    /// Step 4 of a sender. Also raised by the reactor itself when an outer loop sleeps for it.
    pub(crate) fn wake(&self) {
        if self.sleeping.load(Ordering::SeqCst) && self.sleeping.swap(false, Ordering::SeqCst) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
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

    /// How often the driver was woken: each is one syscall of the native one.
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

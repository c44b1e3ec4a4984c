//! The word in which a receiver asks for news of the next message.

use super::Notify;
use crate::sync::{AtomicU8, AtomicU64, Ordering, full_fence};

/// What a receiver asks of its senders. The greater request includes the smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    /// Wake the receiver if it sleeps.
    Wake = 1,
    /// Leave a mark for the channel, too.
    Mark = 2,
    /// The receiver is gone: drop your own message.
    Drop = 3,
}

/// A receiver's request. Only the receiver writes it, and every sender that reads it answers it.
pub(crate) struct RequestCell {
    asked: AtomicU8,
    /// The number of the first mark since the request for marks was made; 0 for none.
    order: AtomicU64,
}

/// No request.
const SILENT: u8 = 0;

impl RequestCell {
    pub(crate) fn new() -> RequestCell {
        RequestCell { asked: AtomicU8::new(SILENT), order: AtomicU64::new(0) }
    }

    /// Step 2 of the receiver. A fence and a look at the channel must follow.
    #[inline]
    pub(crate) fn ask(&self, request: Request) {
        if self.asked.load(Ordering::Relaxed) < request as u8 {
            self.order.store(0, Ordering::Relaxed);
            self.asked.store(request as u8, Ordering::Release);
        }
    }

    /// Takes a [`Request::Wake`] back, after the sleep. A mark stays requested.
    #[inline]
    pub(crate) fn unask(&self) {
        if self.asked.load(Ordering::Relaxed) == Request::Wake as u8 {
            self.asked.store(SILENT, Ordering::Relaxed);
        }
    }

    /// Takes every request back.
    #[inline]
    pub(crate) fn silence(&self) {
        if self.asked.load(Ordering::Relaxed) != SILENT {
            self.asked.store(SILENT, Ordering::Relaxed);
        }
    }

    /// Step 5 of a sender whose publication is a `SeqCst` read-modify-write.
    #[inline]
    pub(crate) fn read(&self) -> Option<Request> {
        full_fence();
        self.read_published()
    }

    /// Returns true if there is a request: the first half of [`read_published`](Self::read_published).
    #[inline(always)]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) != SILENT
    }

    /// Step 5 of a sender that has passed [`publish_fence`](crate::sync::publish_fence).
    #[inline]
    pub(crate) fn read_published(&self) -> Option<Request> {
        match self.asked.load(Ordering::SeqCst) {
            SILENT => None,
            1 => Some(Request::Wake),
            2 => Some(Request::Mark),
            _ => Some(Request::Drop),
        }
    }

    /// Step 6 of a sender that was asked for a mark. The first mark decides the order.
    #[inline]
    pub(super) fn number_mark(&self, notify: &Notify) {
        if self.order.load(Ordering::Relaxed) == 0 {
            let number = notify.next_mark();
            let _ = self.order.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The order of the mark among the marks of the reactor.
    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }
}

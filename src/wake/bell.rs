//! Bells: channels whose only message is that their source may be ready.

use std::sync::Arc;

use super::{Asked, Look, Notify, Probe, RequestCell};
use crate::sync::{AtomicBool, Ordering};

/// A flag that any thread raises and one reactor reads.
///
/// The `SeqCst` swap of the flag is the publication, as a buffered channel's stamp is.
pub(crate) struct Bell {
    rung: AtomicBool,
    /// True if ringing makes a callback due, and not a source ready.
    for_callback: bool,
    request: RequestCell,
    notify: Arc<Notify>,
    slot: u32,
}

impl Bell {
    /// Makes a bell for the source in this slot of the reactor.
    pub(crate) fn new(notify: Arc<Notify>, slot: u32) -> Bell {
        let rung = AtomicBool::new(false);
        Bell { rung, for_callback: false, request: RequestCell::new(), notify, slot }
    }

    /// Makes a bell that makes the callback in this slot due.
    pub(crate) fn for_callback(notify: Arc<Notify>, slot: u32) -> Bell {
        Bell { for_callback: true, ..Bell::new(notify, slot) }
    }

    /// Rings the bell. Returns false if the wake-up has failed: the next ring then tries again.
    #[inline]
    pub(crate) fn ring(&self) -> bool {
        self.wake(self.toll())
    }

    /// Rings without the wake-up. [`wake`](Self::wake) must follow with the value that this
    /// returns.
    ///
    /// A thread that rings many bells tolls all of them first, so that a woken reactor finds all. A
    /// bell that was rung already is tolled again, because the thread that rang the bell may stop
    /// before its wake-up. That needs the swap, too: the hearer sees all operations before the
    /// swap.
    #[inline]
    pub(crate) fn toll(&self) -> Asked {
        self.rung.swap(true, Ordering::SeqCst);
        let asked = self.request.read();
        if self.for_callback {
            self.notify.mark_callback(&self.request, self.slot);
        } else if asked.is_for_mark() {
            self.notify.mark(&self.request, self.slot);
        }
        asked
    }

    /// Makes the wake-up, the second half of [`ring`](Self::ring).
    #[inline(always)] // see Notify::answer
    pub(crate) fn wake(&self, asked: Asked) -> bool {
        if !self.for_callback && !asked.is_some() {
            return true;
        }
        // As in `Notify::answer`: a request whose wake-up has failed stays.
        let woken = self.notify.wake();
        if woken && asked.is_for_mark() {
            self.request.answered(asked);
        }
        woken
    }

    /// Returns true if the bell was rung, and silences it.
    #[inline]
    pub(crate) fn hear(&self) -> bool {
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::SeqCst)
    }

    /// Returns true if the bell was rung and not heard.
    #[inline]
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    pub(crate) fn unask(&self) {
        self.request.unask();
    }
}

impl Probe for Bell {
    #[inline]
    fn look(&self) -> Look {
        if self.is_rung() { Look::Ready } else { Look::Quiet }
    }

    fn request(&self) -> &RequestCell {
        &self.request
    }
}

//! The word in which a receiver asks for a wake-up or a mark, and the look at a channel.

use std::any::Any;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, fence, settle_fence};
use crate::sys::Time;

/// A receiver's request to its senders. The greater request includes the smaller one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    /// Wake the receiver if it sleeps.
    Wake = 1,
    /// Leave a mark for the channel, too.
    Mark = 2,
}

/// The word after the receiver is gone, which asks each sender to drop its message.
const DROP: u64 = 3;

/// A receiver's request, and a number that grows with each request.
///
/// A sender that has answered a request for a mark in full takes that request away, and no other.
/// The number tells a late sender that its request is an older one.
pub(crate) struct RequestCell {
    asked: AtomicU64,
    /// The number of the last mark of the channel.
    order: AtomicU64,
}

/// The word without a request.
const SILENT: u64 = 0;
/// The bits of the request's kind. The other bits are its number.
const KIND: u64 = 3;
const NEXT: u64 = 4;

/// The word that a sender has read in a [`RequestCell`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked(u64);

impl Asked {
    /// Returns true if there is a request.
    #[inline(always)]
    pub(crate) fn is_some(self) -> bool {
        self.0 & KIND != SILENT
    }

    #[inline(always)]
    pub(crate) fn is_for_mark(self) -> bool {
        self.0 & KIND == Request::Mark as u64
    }

    /// Returns true if the receiver is gone.
    #[inline(always)]
    pub(crate) fn is_to_drop(self) -> bool {
        self.0 & KIND == DROP
    }
}

impl RequestCell {
    pub(crate) fn new() -> RequestCell {
        RequestCell { asked: AtomicU64::new(SILENT), order: AtomicU64::new(0) }
    }

    /// Asks for news: step 2 of the receiver. A fence and a look at the channel must follow.
    ///
    /// A request for a mark always gets a new number, because a sender may be about to take the
    /// last request away. A request for a wake-up does not replace a request for a mark of the same
    /// party: a sender that takes the latter away has woken the party.
    #[inline]
    pub(crate) fn ask(&self, request: Request) {
        let asked = self.asked.load(Ordering::Relaxed);
        if request != Request::Wake || asked & KIND == SILENT {
            self.put(asked, (asked & !KIND).wrapping_add(NEXT) | request as u64);
        }
    }

    /// Asks every sender to drop its own message, for ever. Only a receiver that is going calls
    /// this.
    // No load comes first, because loom would then forget the senders' loads.
    pub(crate) fn ask_to_drop(&self) {
        self.asked.fetch_or(DROP, Ordering::Release);
    }

    /// Takes a [`Request::Wake`] back, after the sleep. A mark stays requested.
    #[inline]
    pub(crate) fn unask(&self) {
        let asked = self.asked.load(Ordering::Relaxed);
        // Senders change only requests for marks.
        if asked & KIND == Request::Wake as u64 {
            self.put(asked, asked & !KIND);
        }
    }

    /// Takes every request back.
    #[inline]
    pub(crate) fn silence(&self) {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked & KIND != SILENT {
            self.put(asked, asked & !KIND);
        }
    }

    /// Stores a word. A sender may take a request for a mark away at the same time; the store then
    /// wins.
    #[inline(always)]
    #[cfg(not(all(loom, test)))]
    fn put(&self, _: u64, word: u64) {
        self.asked.store(word, Ordering::Release);
    }

    /// Stores a word by an exchange. loom lets a plain store come between the halves of another
    /// thread's exchange.
    #[cfg(all(loom, test))]
    fn put(&self, mut before: u64, word: u64) {
        while let Err(now) =
            self.asked.compare_exchange(before, word, Ordering::Release, Ordering::Relaxed)
        {
            before = now;
        }
    }

    /// Reads the request: step 5 of a sender. The sender has passed
    /// [`publish_fence`](crate::sync::publish_fence), or its publication is a `SeqCst`
    /// read-modify-write.
    #[inline(always)]
    pub(crate) fn read(&self) -> Asked {
        Asked(self.asked.load(Ordering::SeqCst))
    }

    /// Takes step 6 of a sender that was asked for a mark.
    #[inline]
    pub(super) fn number_mark(&self, number: u64) {
        self.order.store(number, Ordering::Relaxed);
    }

    /// Takes step 8 of a sender that has set the mark and made sure of the wake-up. Later senders
    /// need not set and wake again.
    #[inline]
    pub(super) fn answered(&self, asked: Asked) {
        let silent = asked.0 & !KIND;
        let _ = self.asked.compare_exchange(asked.0, silent, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Returns the place of the mark in the order of the reactor's marks.
    pub(crate) fn order(&self) -> u64 {
        self.order.load(Ordering::Relaxed)
    }
}

/// The outcome of a look at a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The channel has no message.
    Quiet,
    /// A sender has claimed a position and not written its message.
    Coming,
    /// The channel has a message, or has ended.
    Ready,
}

/// A registered channel as its reactor sees it.
///
/// Called on the receiver's thread only: not `Send`, so that a `dyn Probe` stays there.
pub(crate) trait Probe {
    /// Looks at the channel. Never waits for a sender.
    fn look(&self) -> Look;
    /// Returns the receiver's request to the senders.
    fn request(&self) -> &RequestCell;
    /// Returns true if a wait may look at the channel instead of asking for its mark.
    fn may_be_near(&self) -> bool {
        true
    }
    /// Returns the channel by its type, if a look by the type is faster.
    fn typed(self: Arc<Self>) -> Option<Arc<dyn Any + Send + Sync>> {
        None
    }
    /// Asks senders for news. A fence and a look must follow.
    fn ask(&self, request: Request) {
        self.request().ask(request);
    }
    /// Takes every request back.
    fn silence(&self) {
        self.request().silence();
    }
    /// Returns the number of the last mark.
    fn order(&self) -> u64 {
        self.request().order()
    }
    /// Tells the channel the clock of its reactor, which is in virtual time.
    fn follow(&self, _clock: Box<dyn Fn() -> Time + Send + Sync>) {}

    /// Notes that the user gets the event of a channel that tells once that it is ready. Returns
    /// false if the channel is not ready any more.
    fn tell(&self) -> bool {
        true
    }
    /// Returns true if such a channel has told its event.
    fn is_told(&self) -> bool {
        false
    }

    /// Looks, and takes every request back if the channel is ready. Asks `request`, if there is
    /// one, of a channel that is not ready: the receiver's steps 2 to 5.
    ///
    /// [`Look::Coming`] means that the senders may have missed the request: look again in a moment.
    #[inline]
    fn look_or_ask(&self, request: Option<Request>) -> Look {
        let mut look = self.look();
        if let (Some(request), false) = (request, look == Look::Ready) {
            look = self.ask_and_look(request);
        }
        if look == Look::Ready {
            self.silence();
        }
        look
    }

    /// Asks, and looks: the receiver's steps 2 to 5.
    ///
    /// [`Look::Coming`] means that the senders may have missed the request: look again in a moment.
    #[inline]
    fn ask_and_look(&self, request: Request) -> Look {
        self.ask(request);
        fence(Ordering::SeqCst);
        match self.look() {
            Look::Coming if settle_fence() => match self.look() {
                Look::Coming => Look::Quiet,
                look => look,
            },
            look => look,
        }
    }
}

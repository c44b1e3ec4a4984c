//! Tickets: the right to deal with a party that blocks.
//!
//! The word of a party holds the number of the open ticket, which is even and never used again. Or
//! the word holds an odd number, which names the offer that closed the ticket: `offer << 1 | 1`, or
//! 1 for no certain offer. So a party that wakes up knows at once which of its offers was chosen.

use std::sync::Arc;

use super::Notify;
use crate::sync::Ordering;

/// The ticket is closed, and no offer was chosen.
pub(super) const VOID: u64 = 1;

/// The number before the first ticket of a new party. The numbers of two parties differ.
pub(super) fn first_of_party() -> u64 {
    static PARTIES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    // A party refuses a claim of another party's ticket.
    PARTIES.fetch_add(1, std::sync::atomic::Ordering::Relaxed) << 40
}

/// The right to deal with a party that blocks, and may block at several channels at once.
///
/// The first to [`claim`](Self::claim) the ticket deals with the party.
pub(crate) struct Ticket {
    party: Arc<Notify>,
    number: u64,
}

impl Ticket {
    /// Issues a ticket for the sleep that `party` is about to begin, or has begun.
    ///
    /// The new ticket is closed if it was claimed or voided meanwhile.
    pub(crate) fn issue(party: &Arc<Notify>) -> Ticket {
        Ticket { party: party.clone(), number: party.ticket() }
    }

    /// Claims the ticket for an offer, or for no certain offer (0).
    pub(crate) fn claim(&self, offer: u64) -> bool {
        self.party.claim(self.number, offer)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.party.is_open(self.number)
    }

    pub(crate) fn is_of(&self, party: &Arc<Notify>) -> bool {
        Arc::ptr_eq(&self.party, party)
    }

    pub(crate) fn party(&self) -> &Arc<Notify> {
        &self.party
    }
}

impl Notify {
    /// Opens a ticket for the sleep that begins.
    #[inline]
    pub(crate) fn open_ticket(&self) {
        let number = self.opened.load(Ordering::Relaxed).wrapping_add(1);
        self.opened.store(number, Ordering::Relaxed);
        self.ticket.store(number << 1, Ordering::Release);
    }

    /// Voids the ticket. Returns true if no party had claimed it.
    pub(crate) fn void_ticket(&self) -> bool {
        let number = self.ticket();
        number & 1 == 0
            && self
                .ticket
                .compare_exchange(number, VOID, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Returns the number of the ticket. An odd number is no open ticket.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket.load(Ordering::Acquire)
    }

    pub(crate) fn is_open(&self, number: u64) -> bool {
        number & 1 == 0 && self.ticket() == number
    }

    /// Claims the ticket of this number for an offer, or for no certain offer (0).
    pub(crate) fn claim(&self, number: u64, offer: u64) -> bool {
        let closed = offer << 1 | 1;
        number & 1 == 0
            && self
                .ticket
                .compare_exchange(number, closed, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }

    /// Returns true if this offer has closed the last ticket.
    pub(crate) fn is_claimed_by(&self, offer: u64) -> bool {
        self.ticket() == offer << 1 | 1
    }

    /// Opens the sleep that has begun to every registered channel, or ends that openness.
    pub(crate) fn set_everywhere(&self, everywhere: bool) {
        self.everywhere.store(everywhere, Ordering::SeqCst);
        if !everywhere {
            self.void_ticket();
        }
    }

    /// Returns true if the party blocks for every channel that is registered with it.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.everywhere.load(Ordering::SeqCst)
    }
}

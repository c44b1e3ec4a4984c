//! Tickets: the right to deal with a party that blocks.

use std::sync::Arc;

use super::Notify;
use crate::sync::Ordering;

/// The right to deal with a party that blocks, and may block at several channels at once.
///
/// The first to [`claim`](Self::claim) the ticket deals with the party.
pub(crate) struct Ticket {
    party: Arc<Notify>,
    number: u64,
}

impl Ticket {
    /// A ticket for the sleep that `party` is about to begin, or has begun.
    ///
    /// A ticket that was claimed or voided meanwhile comes out closed.
    pub(crate) fn issue(party: &Arc<Notify>) -> Ticket {
        let number = party.ticket.load(Ordering::Acquire) & !1;
        Ticket { party: party.clone(), number }
    }

    pub(crate) fn claim(&self) -> bool {
        let (open, closed) = (self.number, self.number + 1);
        self.party.ticket.compare_exchange(open, closed, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.party.ticket.load(Ordering::Acquire) == self.number
    }

    pub(crate) fn is_of(&self, party: &Arc<Notify>) -> bool {
        Arc::ptr_eq(&self.party, party)
    }

    pub(crate) fn party(&self) -> &Arc<Notify> {
        &self.party
    }
}

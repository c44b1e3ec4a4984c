//! Channels without a buffer: a message goes from one party to the other while both are there.
//!
//! A party is *there* while it blocks: in `send`, in `recv`, or in a `select!`. It may then wait at several channels at once and must be taken by one
//! only, so it has a *ticket* (`reactor/notify.rs`): whoever wants to deal with it takes the ticket by a compare-and-swap, under the lock of the channel
//! where they met. What follows is between the two:
//!
//! | the receiver | the sender | what happens |
//! |---|---|---|
//! | comes | blocks in `send` | the receiver takes the ticket and the value, and wakes the sender |
//! | blocks | comes with a value | the sender takes the ticket, puts the value down, and wakes the receiver |
//! | blocks | comes with a send case | the sender takes the ticket and has a permit; the receiver sleeps on until the value is there or refused |
//! | comes | blocks with a send case | the receiver takes the ticket, wakes the sender, and waits until the value is there or refused |
//!
//! The value of a send case is evaluated after the choice, and may not come to be (a panic, a `?`): then it is refused, and the receiver looks for
//! another. One party does not deal with itself: two cases of one `select!` never meet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::Target;
use super::{RecvTimeoutError, Refused, SendTimeoutError, TryRecvError};
use crate::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering, fence, forbid_blocking};
use crate::wake::{Look, Notify, Probe, Request, Ticket};

/// What the receiver's reactor sees of a meeting without its lock: whether somebody waits.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// A sender waits, a value was put down, or every sender is gone. Written under the lock.
    something: AtomicBool,
    /// The receiver wants a mark when that becomes true.
    armed: AtomicBool,
}

/// See the module's text.
pub(crate) struct Rendezvous<T> {
    meeting: Mutex<Meeting<T>>,
    /// A value that the receiver waits for was put down or refused.
    answered: Condvar,
    senders: AtomicUsize,
}

struct Meeting<T> {
    closed: bool,
    gone: bool,
    /// Senders that block here, in the order in which they came.
    offers: VecDeque<Offer<T>>,
    /// The receiver, while it blocks.
    receiver: Option<Ticket>,
    /// What is under way between the receiver and the sender it was matched with.
    deal: Deal<T>,
    /// The number of the last offer.
    last: u64,
    /// Picks among several offers of one party.
    random: u64,
    /// The reactor that the receiver is registered with, and its token there.
    registered: Option<Target>,
    board: Arc<Board>,
}

type Guard<'a, T> = MutexGuard<'a, Meeting<T>>;

struct Offer<T> {
    number: u64,
    ticket: Ticket,
    /// `None`: a send case, whose value is evaluated when it is chosen.
    value: Option<T>,
}

enum Deal<T> {
    None,
    /// The receiver is bound to a sender that evaluates its value; with the number of the sender's offer if it was the receiver that came.
    Pending(Option<u64>, Option<Arc<Notify>>),
    /// The value is there.
    Done(T),
}

impl<T> Meeting<T> {
    /// Takes the receiver's ticket, if it is there and is not `party` itself.
    fn take_receiver(&mut self, party: Option<&Arc<Notify>>) -> Option<Arc<Notify>> {
        let there =
            self.receiver.as_ref().is_some_and(|ticket| !party.is_some_and(|party| ticket.is_of(party)));
        if !there {
            return None;
        }
        self.receiver.take().filter(Ticket::claim).map(|ticket| ticket.party().clone())
    }

    fn has_offer(&self, party: Option<&Arc<Notify>>) -> bool {
        self.offers
            .iter()
            .any(|offer| offer.is_open() && !party.is_some_and(|party| offer.ticket.is_of(party)))
    }

    /// One of the offers of the party whose first one is at `first`, each with the same chance: a `select!` may have several send cases here.
    fn one_of_equals(&mut self, first: usize) -> usize {
        let party = self.offers[first].ticket.party().clone();
        let (mut seen, mut chosen) = (0, first);
        for at in first..self.offers.len() {
            if self.offers[at].ticket.is_of(&party) {
                seen += 1;
                // xorshift, after Marsaglia.
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                if self.random % seen == 0 {
                    chosen = at;
                }
            }
        }
        chosen
    }

    fn remove(&mut self, number: u64) -> Option<Offer<T>> {
        let at = self.offers.iter().position(|offer| offer.number == number)?;
        self.offers.remove(at)
    }

    fn push(&mut self, ticket: Ticket, value: Option<T>) -> u64 {
        self.last += 1;
        self.offers.push_back(Offer { number: self.last, ticket, value });
        self.tell();
        self.last
    }

    /// Brings the board up to date, and tells a receiver that waits by marks.
    fn tell(&mut self) {
        let something = !matches!(self.deal, Deal::None) || self.has_offer(None) || self.gone;
        self.board.something.store(something, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if something && self.board.armed.swap(false, Ordering::SeqCst) {
            if let Some(target) = &self.registered {
                target.notify.answer(Request::Mark, target.slot);
            }
        }
    }
}

impl<T> Offer<T> {
    fn is_open(&self) -> bool {
        self.ticket.is_open()
    }
}

impl<T> Rendezvous<T> {
    pub(super) fn new() -> Rendezvous<T> {
        let meeting = Meeting {
            closed: false,
            gone: false,
            offers: VecDeque::with_capacity(4),
            receiver: None,
            deal: Deal::None,
            last: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            registered: None,
            board: Arc::default(),
        };
        Rendezvous { meeting: Mutex::new(meeting), answered: Condvar::new(), senders: AtomicUsize::new(1) }
    }

    // Senders.

    pub(super) fn try_send(&self, value: T) -> Result<(), (Refused, T)> {
        let mut meeting = self.meeting.lock();
        if meeting.closed {
            return Err((Refused::Closed, value));
        }
        let Some(receiver) = meeting.take_receiver(None) else { return Err((Refused::Full, value)) };
        meeting.deal = Deal::Done(value);
        meeting.tell();
        drop(meeting);
        receiver.wake();
        Ok(())
    }

    #[track_caller]
    pub(super) fn send(&self, value: T, deadline: Option<Instant>) -> Result<(), SendTimeoutError<T>> {
        let value = match self.try_send(value) {
            Ok(()) => return Ok(()),
            Err((Refused::Closed, value)) => return Err(SendTimeoutError::Disconnected(value)),
            Err((Refused::Full, value)) => value,
        };
        let waits = deadline.is_none_or(|deadline| Instant::now() < deadline);
        if waits && forbid_blocking("send") {
            return Err(SendTimeoutError::Timeout(value));
        }
        let here = Notify::of_thread();
        let mut meeting = self.meeting.lock();
        // The receiver may have come meanwhile.
        if let Some(receiver) = meeting.take_receiver(None) {
            meeting.deal = Deal::Done(value);
            meeting.tell();
            drop(meeting);
            receiver.wake();
            return Ok(());
        }
        here.open_ticket();
        here.sleep();
        let number = meeting.push(Ticket::issue(&here), Some(value));
        loop {
            let taken = !meeting.offers.iter().any(|offer| offer.number == number);
            let over = meeting.closed || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if taken || over {
                here.awake();
                let (closed, left) = (meeting.closed, meeting.remove(number));
                meeting.tell();
                return match left.and_then(|offer| offer.value) {
                    None => Ok(()),
                    Some(value) if closed => Err(SendTimeoutError::Disconnected(value)),
                    Some(value) => Err(SendTimeoutError::Timeout(value)),
                };
            }
            drop(meeting);
            here.park(deadline);
            meeting = self.meeting.lock();
            here.sleep();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.meeting.lock().closed
    }

    pub(super) fn add_sender(&self) {
        self.senders.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut meeting = self.meeting.lock();
            meeting.gone = true;
            meeting.tell();
            if let Some(receiver) = &meeting.receiver {
                receiver.party().wake();
            }
        }
    }

    // Send cases; `party` is the reactor.

    pub(super) fn is_sendable(&self, party: &Arc<Notify>, offer: Option<u64>) -> bool {
        let meeting = self.meeting.lock();
        let chosen = offer.is_some() && matches!(meeting.deal, Deal::Pending(number, _) if number == offer);
        chosen
            || meeting.closed
            || meeting.receiver.as_ref().is_some_and(|ticket| ticket.is_open() && !ticket.is_of(party))
    }

    /// A permit: either the receiver that is there, or the one that took our offer while we slept.
    pub(super) fn take_permit(&self, party: &Arc<Notify>, offer: Option<u64>) -> Result<(), Refused> {
        let mut meeting = self.meeting.lock();
        if meeting.closed {
            return Err(Refused::Closed);
        }
        if offer.is_some() && matches!(meeting.deal, Deal::Pending(number, _) if number == offer) {
            return Ok(());
        }
        let Some(receiver) = meeting.take_receiver(Some(party)) else { return Err(Refused::Full) };
        meeting.deal = Deal::Pending(None, Some(receiver));
        Ok(())
    }

    /// Uses a permit (`Some`) or gives it back.
    pub(super) fn answer(&self, value: Option<T>) {
        let mut meeting = self.meeting.lock();
        let deal = match value {
            Some(value) => Deal::Done(value),
            None => Deal::None,
        };
        let before = std::mem::replace(&mut meeting.deal, deal);
        meeting.tell();
        drop(meeting);
        self.answered.notify_all();
        if let Deal::Pending(_, Some(receiver)) = before {
            receiver.wake();
        }
    }

    /// Offers to send, before the reactor sleeps. The offer's number.
    pub(super) fn offer(&self, party: &Arc<Notify>) -> u64 {
        self.meeting.lock().push(Ticket::issue(party), None)
    }

    /// Takes the offer back, after the sleep. Whether it was taken, and a permit is ours.
    pub(super) fn withdraw_offer(&self, party: &Arc<Notify>, number: u64) -> bool {
        let mut meeting = self.meeting.lock();
        party.void_ticket();
        meeting.remove(number);
        meeting.tell();
        matches!(meeting.deal, Deal::Pending(taken, _) if taken == Some(number))
    }

    // The receiver.

    /// Takes a value that was put down, or one from a sender that waits. `party` is the reactor, `None` a thread, which is alone.
    pub(super) fn try_recv(&self, party: Option<&Arc<Notify>>) -> Result<T, TryRecvError> {
        let (mut meeting, received) = self.receive(self.meeting.lock(), party);
        meeting.tell();
        received
    }

    fn receive<'a>(
        &'a self,
        meeting: Guard<'a, T>,
        party: Option<&Arc<Notify>>,
    ) -> (Guard<'a, T>, Result<T, TryRecvError>) {
        let (mut meeting, settled) = self.settled(meeting);
        if let Some(value) = settled {
            return (meeting, Ok(value));
        }
        let mut passed = 0;
        while let Some(offer) = meeting.offers.get(passed) {
            if party.is_some_and(|party| offer.ticket.is_of(party)) {
                passed += 1;
                continue;
            }
            let at = meeting.one_of_equals(passed);
            let Some(offer) = meeting.offers.remove(at) else { break };
            if !offer.ticket.claim() {
                continue;
            }
            let sender = offer.ticket.party().clone();
            if let Some(value) = offer.value {
                sender.wake();
                return (meeting, Ok(value));
            }
            meeting.deal = Deal::Pending(Some(offer.number), None);
            sender.wake();
            let settled;
            (meeting, settled) = self.settled(meeting);
            if let Some(value) = settled {
                return (meeting, Ok(value));
            }
            passed = 0;
        }
        let error = if meeting.gone { TryRecvError::Disconnected } else { TryRecvError::Empty };
        (meeting, Err(error))
    }

    /// Waits while a sender evaluates the value that the receiver is bound to; `None` if there is none, or it was refused.
    fn settled<'a>(&'a self, mut meeting: Guard<'a, T>) -> (Guard<'a, T>, Option<T>) {
        while let Deal::Pending(..) = meeting.deal {
            meeting = self.answered.wait(meeting).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        match std::mem::replace(&mut meeting.deal, Deal::None) {
            Deal::Done(value) => (meeting, Some(value)),
            _ => (meeting, None),
        }
    }

    #[track_caller]
    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let here = Notify::of_thread();
        let mut meeting = self.meeting.lock();
        loop {
            here.void_ticket();
            meeting.receiver = None;
            let received;
            (meeting, received) = self.receive(meeting, None);
            match received {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(RecvTimeoutError::Timeout);
            }
            if forbid_blocking("recv") {
                return Err(RecvTimeoutError::Timeout);
            }
            here.open_ticket();
            here.sleep();
            meeting.receiver = Some(Ticket::issue(&here));
            drop(meeting);
            here.park(deadline);
            meeting = self.meeting.lock();
            here.awake();
        }
    }

    /// Whether `try_recv` would give something.
    pub(super) fn is_receivable(&self, party: Option<&Arc<Notify>>) -> bool {
        let meeting = self.meeting.lock();
        !matches!(meeting.deal, Deal::None) || meeting.has_offer(party) || meeting.gone
    }

    /// Offers to receive, before the reactor sleeps.
    pub(super) fn wait_here(&self, party: &Arc<Notify>) {
        self.meeting.lock().receiver = Some(Ticket::issue(party));
    }

    /// Takes that back, after the sleep. Whether a sender took it up: the value is there, or will be in a moment.
    pub(super) fn withdraw(&self, party: &Arc<Notify>) -> bool {
        let mut meeting = self.meeting.lock();
        party.void_ticket();
        meeting.receiver = None;
        !matches!(meeting.deal, Deal::None)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.meeting.lock().gone
    }

    /// The receiver goes: every sender that waits gets its value back, and what was put down is dropped.
    pub(super) fn close(&self) {
        let mut meeting = self.meeting.lock();
        let unread;
        (meeting, unread) = self.settled(meeting);
        meeting.closed = true;
        meeting.registered = None;
        meeting.offers.iter().for_each(|offer| offer.ticket.party().wake());
        drop(meeting);
        drop(unread);
    }

    pub(super) fn board(&self) -> Arc<Board> {
        self.meeting.lock().board.clone()
    }

    pub(super) fn register(&self, registered: Option<Target>) {
        self.meeting.lock().registered = registered;
    }
}

impl Probe for Board {
    fn look(&self) -> Look {
        if self.something.load(Ordering::SeqCst) { Look::Ready } else { Look::Quiet }
    }

    fn ask(&self, request: Request) {
        if request == Request::Mark {
            self.armed.store(true, Ordering::SeqCst);
        }
    }

    fn silence(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }
}

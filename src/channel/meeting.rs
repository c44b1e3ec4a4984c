//! The part of a rendezvous that both ends share and that knows no message type.
//!
//! # The place
//! One word says what lies at the place of the channel, and which ends are gone:
//!
//! ```text
//!   63 .. 4                              3     2       1 .. 0
//!   the offer that a promise was made to gone  closed  free, promised or laid
//! ```
//! - *Free*: the place is empty.
//! - *Promised*: a sender has the right to lay one value down, and need not do so.
//! - *Laid*: the next receive gets the value.
//!
//! Only the owner of a promise goes from promised to laid or free, and only the receiver from laid
//! to free. So the owner of a step is always known, and no step needs a lock.
//!
//! # Who is here
//! A receiver that blocks has the number of its [ticket](crate::wake::Ticket) in `here`. A receiver
//! in a wait for all its channels sets a flag in its [`Notify`] instead. Senders that block stand
//! in a list of offers, under a lock.
//!
//! # The lock
//! Nobody waits for the lock, because its holder may stall:
//! - A receiver that does not get the lock treats the list as empty, and notes that it has asked.
//!   The thread that gives the lock back then tells the receiver. A look at the place needs no
//!   lock, so the receiver misses no value whose `send` has returned.
//! - A sender that does not get the lock naps and tries again. An offer that cannot be taken out is
//!   left as litter: its ticket is void, so nobody accepts it.
//! - Wakers are called, and tickets dropped, without the lock. Nothing is allocated under it.
//!
//! Longer than 500 lines: all of it changes one word, and the orderings of that word are argued
//! together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::state::Refused;
use super::target::{Target, Targets};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Random, fence};
use crate::wake::{Look, Notify, Probe, Request, RequestCell, Ticket};

const FREE: u64 = 0;
const PROMISED: u64 = 1;
const LAID: u64 = 2;
const STATE: u64 = 3;
/// The receiver is gone.
const CLOSED: u64 = 1 << 2;
/// Every sender is gone.
const GONE: u64 = 1 << 3;
const ENDS: u64 = CLOSED | GONE;
const OFFER: u64 = 1 << 4;

/// In `here`: the receiver does not block in this channel. No ticket has an odd number.
const NOWHERE: u64 = 1;

/// The number of receives that may pass a waiting send case before that case gets a promise.
const PATIENCE: u32 = 4;

/// The shared part of a rendezvous. The module's text describes it.
pub(super) struct Meeting {
    word: AtomicU64,
    /// The ticket of the receiver's sleep, or `NOWHERE`. Written by the receiver.
    here: AtomicU64,
    /// The receiver holds a value that it has taken for a later receive. Written by the receiver.
    held: AtomicBool,
    /// The receiver's request for news.
    request: RequestCell,
    targets: Targets,
    senders: AtomicUsize,
    /// The number of offers. Written under the lock.
    offers: AtomicUsize,
    /// The receiver has asked for the lock and not got it.
    asked: AtomicBool,
    /// Offers were left in the list that no receiver accepts.
    littered: AtomicBool,
    list: Mutex<List>,
}

pub(super) struct List {
    /// The offers, in the order in which the senders came.
    offers: VecDeque<Offer>,
    /// Receives that have passed a send case since the last promise.
    passed: u32,
    /// Picks among several offers of one party.
    random: Random,
}

pub(super) type Guard<'a> = MutexGuard<'a, List>;

/// A sender that blocks.
pub(super) struct Offer {
    number: u64,
    ticket: Ticket,
    /// The cell that holds the sender's value. `None`: a send case, whose value does not exist yet.
    pub(super) value: Option<usize>,
    /// The sender has been told that the receiver is gone.
    told: bool,
}

/// The outcome of the receiver's look at the list.
pub(super) enum Found {
    Nothing,
    /// An offer with a value. The value is the receiver's now. The sender must be woken.
    Value(usize, Offer),
    /// A send case that has got the promise. The sender must be woken.
    Promised(Offer),
    /// An offer that no receiver can accept any more.
    Litter(Offer),
}

impl Offer {
    pub(super) fn wake(&self) {
        self.ticket.party().wake();
    }
}

impl List {
    /// Returns one of the offers of the party whose first offer is at `first`, each with the same
    /// chance. A `select!` may have several send cases here.
    fn one_of_equals(&mut self, first: usize) -> usize {
        let (mut seen, mut chosen) = (1, first);
        for at in first + 1..self.offers.len() {
            if self.offers[at].ticket.is_of(self.offers[first].ticket.party()) {
                seen += 1;
                if self.random.below(seen) == 0 {
                    chosen = at;
                }
            }
        }
        chosen
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.offers.iter().position(|offer| offer.number == number)
    }
}

impl Meeting {
    pub(super) fn new() -> Meeting {
        let offers = VecDeque::with_capacity(4);
        Meeting {
            word: AtomicU64::new(FREE),
            here: AtomicU64::new(NOWHERE),
            held: AtomicBool::new(false),
            request: RequestCell::new(),
            targets: Targets::new(),
            senders: AtomicUsize::new(1),
            offers: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            littered: AtomicBool::new(false),
            list: Mutex::new(List { offers, passed: 0, random: Random::new(0) }),
        }
    }

    // The place.

    fn word(&self) -> u64 {
        self.word.load(Ordering::SeqCst)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word() & CLOSED != 0
    }

    pub(super) fn is_gone(&self) -> bool {
        self.word() & GONE != 0
    }

    pub(super) fn is_laid(&self) -> bool {
        self.word() & STATE == LAID
    }

    /// Promises the place, if it is free, to an offer, or to no certain offer (0).
    fn promise(&self, offer: u64) -> bool {
        let promised =
            |word| (word & STATE == FREE).then_some(word & ENDS | PROMISED | (offer * OFFER));
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, promised).is_ok()
    }

    fn is_promised_to(&self, offer: u64) -> bool {
        self.word() & !ENDS == PROMISED | (offer * OFFER)
    }

    /// Lays a value down: the owner of the promise has put it at the place. Returns false if the
    /// receiver is gone.
    pub(super) fn lay(&self) -> bool {
        let laid = |word| (word & CLOSED == 0).then_some(word & ENDS | LAID);
        let is_open = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, laid).is_ok();
        if is_open {
            self.tell();
        }
        is_open
    }

    /// Gives the promise back. Only its owner calls this.
    pub(super) fn give_back(&self) {
        self.clear();
        fence(Ordering::SeqCst);
        // A send case that found the place promised may wait for this.
        if self.offers.load(Ordering::SeqCst) > 0 {
            self.tell();
        }
    }

    /// Makes the place free: called by the owner of the promise, or by the receiver of the value.
    pub(super) fn clear(&self) {
        self.word.fetch_and(ENDS, Ordering::SeqCst);
    }

    /// Tells the receiver that there is news, if it has asked for news.
    fn tell(&self) {
        let asked = self.request.read();
        if asked.is_some() {
            self.targets.answer(asked, &self.request);
        }
    }

    // The list.

    /// Locks the list for the receiver, or notes that the receiver is to be told when it may try
    /// again.
    fn list_or_ask(&self) -> Option<Guard<'_>> {
        if let Some(list) = self.list.lock_briefly() {
            return Some(list);
        }
        self.asked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let list = self.list.try_lock();
        if list.is_some() {
            // Relaxed: the thread that gives the list back next sees what we did with the list.
            self.asked.store(false, Ordering::Relaxed);
        }
        list
    }

    /// Gives the list back, and does the work that others could not do while it was locked.
    pub(super) fn release(&self, list: Guard<'_>) {
        self.drop_list(list);
        // Either we see the work that others have left, or they find the lock free.
        fence(Ordering::SeqCst);
        if self.asked.load(Ordering::SeqCst) && self.asked.swap(false, Ordering::SeqCst) {
            self.tell();
        }
        self.tell_of_the_end();
    }

    fn drop_list(&self, list: Guard<'_>) {
        self.offers.store(list.offers.len(), Ordering::SeqCst);
        drop(list);
    }

    /// Wakes every sender that waits, if the receiver is gone.
    fn tell_of_the_end(&self) {
        while self.is_closed() && self.offers.load(Ordering::SeqCst) > 0 {
            let Some(mut list) = self.list.try_lock() else { return };
            let Some(offer) = list.offers.iter_mut().find(|offer| !offer.told) else { return };
            offer.told = true;
            let party = offer.ticket.party().clone();
            drop(list);
            party.wake();
            fence(Ordering::SeqCst);
        }
    }

    /// Adds an offer of `party`, whose ticket is open. Returns its number, or `None` if the list is
    /// in use.
    pub(super) fn offer(&self, party: &Arc<Notify>, value: Option<usize>) -> Option<u64> {
        // Numbers differ in the whole process: a ticket says which offer has closed it.
        static OFFERS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = OFFERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let offer = Offer { number, ticket: Ticket::issue(party), value, told: false };
        let mut list = self.list.lock_briefly()?;
        let mut larger = VecDeque::new();
        while list.offers.len() == list.offers.capacity() {
            let room = list.offers.len() * 2 + 4;
            if larger.capacity() < room {
                self.release(list);
                larger = VecDeque::with_capacity(room);
                list = self.list.lock_briefly()?;
                continue;
            }
            larger.extend(list.offers.drain(..));
            std::mem::swap(&mut list.offers, &mut larger);
        }
        list.offers.push_back(offer);
        let littered = self.littered.load(Ordering::Relaxed);
        let litter = littered.then(|| list.offers.iter().position(|offer| !offer.ticket.is_open()));
        let litter = litter.map(|found| found.and_then(|at| list.offers.remove(at)));
        if let Some(None) = litter {
            self.littered.store(false, Ordering::Relaxed);
        }
        self.release(list);
        let asked = self.request.read();
        // A receiver that blocks here is found by the sender's own look, which follows. A send case
        // is no news while the place is promised: the end of the promise is. A send case is no news
        // for its own reactor either: a reactor does not meet itself, and the mark would end each
        // sleep of the case.
        let is_news = value.is_some() || asked.is_for_mark() && !self.is_received_by(party);
        if asked.is_some() && is_news {
            self.targets.answer(asked, &self.request);
        }
        drop((litter, larger));
        Some(number)
    }

    fn is_received_by(&self, party: &Arc<Notify>) -> bool {
        self.targets.with(|target| Arc::ptr_eq(&target.notify, party)) == Some(true)
    }

    /// Takes an offer back, or leaves it as litter. Its ticket is closed.
    pub(super) fn withdraw(&self, number: u64) {
        if self.offers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let Some(mut list) = self.list.lock_briefly() else {
            return self.littered.store(true, Ordering::Relaxed);
        };
        let offer = list.position(number).and_then(|at| list.offers.remove(at));
        self.release(list);
        drop(offer);
    }

    // The senders.

    /// Calls `f` with the receiver and its ticket, if it blocks here and is not `party` itself.
    fn with_receiver(
        &self,
        party: Option<&Arc<Notify>>,
        f: impl FnOnce(&Notify, u64) -> bool,
    ) -> bool {
        let here = self.here.load(Ordering::SeqCst);
        let met = self.targets.with(|Target { notify, .. }| {
            if party.is_some_and(|party| Arc::ptr_eq(party, notify)) {
                return false;
            }
            if here != NOWHERE {
                return f(notify, here);
            }
            let waits = self.request.read().is_for_mark() && notify.is_everywhere();
            waits && f(notify, notify.ticket())
        });
        met == Some(true)
    }

    /// Takes a promise, if the receiver blocks here. The receiver's ticket stays open.
    fn claim_promise(&self, party: Option<&Arc<Notify>>) -> Result<(), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed);
        }
        let here = self.with_receiver(party, |receiver, ticket| receiver.is_open(ticket));
        if here && self.promise(0) { Ok(()) } else { Err(Refused::Full) }
    }

    /// Takes a promise and the receiver's ticket.
    pub(super) fn claim_receiver(&self) -> Result<(), Refused> {
        self.claim_promise(None)?;
        if self.with_receiver(None, |receiver, ticket| receiver.claim(ticket, 0)) {
            return Ok(());
        }
        self.give_back();
        Err(Refused::Full)
    }

    /// Returns true if `claim_permit` would not say "full".
    pub(super) fn is_sendable(&self, party: &Arc<Notify>, offer: Option<u64>) -> bool {
        let word = self.word();
        word & CLOSED != 0
            || offer.is_some_and(|offer| self.is_promised_to(offer))
            || word & STATE == FREE
                && self.with_receiver(Some(party), |receiver, ticket| receiver.is_open(ticket))
    }

    /// Takes a permit: the promise that our offer has got while we slept, or a new one.
    pub(super) fn claim_permit(
        &self,
        party: &Arc<Notify>,
        offer: Option<u64>,
    ) -> Result<(), Refused> {
        if offer.is_some_and(|offer| self.is_promised_to(offer)) && !self.is_closed() {
            return Ok(());
        }
        self.claim_promise(Some(party))
    }

    /// Ends an offer of a reactor, after its sleep. Returns true if the receiver has chosen it.
    pub(super) fn end_offer(&self, party: &Notify, number: u64) -> bool {
        party.void_ticket();
        let chosen = party.is_claimed_by(number);
        if !chosen {
            self.withdraw(number);
        }
        chosen
    }

    pub(super) fn add_sender(&self) {
        let before = self.senders.fetch_add(1, Ordering::Relaxed);
        assert!(before < usize::MAX >> 1, "pollmux: too many senders");
    }

    pub(super) fn drop_sender(&self) {
        if self.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.word.fetch_or(GONE, Ordering::SeqCst);
            self.tell();
        }
    }

    // The receiver. Nothing here waits for a sender.

    /// Looks for an offer to accept. `party` is the reactor of the receiver; a thread is alone.
    pub(super) fn accept(&self, party: Option<&Arc<Notify>>) -> Found {
        if self.offers.load(Ordering::SeqCst) == 0 {
            return Found::Nothing;
        }
        let Some(mut list) = self.list_or_ask() else { return Found::Nothing };
        let found = self.accept_from(&mut list, party);
        self.drop_list(list);
        // A sender is woken after this fence: it sees its ticket closed, or we see that it sleeps.
        fence(Ordering::SeqCst);
        found
    }

    fn accept_from(&self, list: &mut List, party: Option<&Arc<Notify>>) -> Found {
        let (mut case, mut with_value) = (None, None);
        for (at, offer) in list.offers.iter().enumerate() {
            if !offer.ticket.is_open() {
                return list.offers.remove(at).map_or(Found::Nothing, Found::Litter);
            }
            if party.is_some_and(|party| offer.ticket.is_of(party)) {
                continue;
            }
            if offer.value.is_some() {
                with_value = Some(at);
                break;
            }
            case = case.or(Some(at));
        }
        // A waiting value goes first. But a send case is passed only a limited number of times.
        if let Some(first) = case.filter(|_| with_value.is_none() || list.passed >= PATIENCE) {
            let at = list.one_of_equals(first);
            let number = list.offers[at].number;
            if self.promise(number) {
                // Promise first: a sender that finds its ticket claimed then has the promise for
                // sure.
                let claimed = list.offers[at].ticket.claim(number);
                let Some(offer) = list.offers.remove(at) else { return Found::Nothing };
                if claimed {
                    list.passed = 0;
                    return Found::Promised(offer);
                }
                self.clear();
                return Found::Litter(offer);
            }
        }
        let Some(at) = with_value else { return Found::Nothing };
        list.passed = if case.is_some() { list.passed.saturating_add(1) } else { 0 };
        let Some(offer) = list.offers.remove(at) else { return Found::Nothing };
        match offer.value {
            Some(value) if offer.ticket.claim(offer.number) => Found::Value(value, offer),
            _ => Found::Litter(offer),
        }
    }

    /// Returns true if a receive would give a value or the end, or make a promise.
    #[inline(never)]
    pub(super) fn is_receivable(&self, party: Option<&Arc<Notify>>) -> bool {
        let word = self.word();
        if word & STATE == LAID || word & GONE != 0 || self.is_held() {
            return true;
        }
        if self.offers.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let Some(list) = self.list_or_ask() else { return false };
        let free = self.word() & STATE == FREE;
        list.offers.iter().any(|offer| {
            let own = party.is_some_and(|party| offer.ticket.is_of(party));
            !own && (free || offer.value.is_some()) && offer.ticket.is_open()
        })
    }

    /// Offers to receive, before the party sleeps. A fence and a look must follow.
    pub(super) fn wait_here(&self, party: &Notify) {
        self.here.store(party.ticket(), Ordering::SeqCst);
        self.request.ask(Request::Wake);
    }

    /// Takes the offer to receive back, after the sleep. Returns true if there is a value.
    pub(super) fn leave(&self, party: &Notify) -> bool {
        party.void_ticket();
        self.here.store(NOWHERE, Ordering::SeqCst);
        self.request.unask();
        self.is_laid()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn set_target(&self, target: Option<Target>) {
        // A late sender takes away only the request of the party before this one (`state.rs`).
        self.request.silence();
        self.targets.set(target);
    }

    /// Closes the channel for a receiver that goes. Returns true if there is a value, which the
    /// receiver has to drop.
    pub(super) fn close(&self) -> bool {
        self.targets.set(None);
        let before = self.word.fetch_or(CLOSED, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.tell_of_the_end();
        before & STATE == LAID
    }
}

/// For tests: a sender that is stalled with the list.
#[cfg(all(test, not(loom)))]
impl Meeting {
    pub(super) fn lock(&self) -> Guard<'_> {
        self.list.lock()
    }

    pub(super) fn offers(&self) -> usize {
        self.offers.load(Ordering::SeqCst)
    }
}

impl Probe for Meeting {
    fn look(&self) -> Look {
        // A list that is in use is no news: the thread that gives it back tells us.
        if self.is_receivable(None) { Look::Ready } else { Look::Quiet }
    }

    fn request(&self) -> &RequestCell {
        &self.request
    }

    fn may_be_near(&self) -> bool {
        false
    }
}

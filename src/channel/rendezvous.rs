//! Channels without a buffer: a message goes from one party to the other while both are there.
//!
//! A party is *there* while it blocks: in `send`, in `recv`, in a `select!` or in a wait. It may
//! block at several channels at once, and must be chosen by one of them only. So it has a *ticket*
//! (`wake/ticket.rs`), which goes to the first that claims it. **Nobody is bound**: no party waits
//! for a value that another party evaluates.
//!
//! The receiver *waits* when it blocks and the place is free. An *empty* offer has no value yet.
//!
//! | event | then |
//! |---|---|
//! | `try_send`, `send`; the receiver waits | claims the ticket, lays the value, wakes it: Ok |
//! | `send`, else | adds an offer with its value, wakes a receiver that blocks here, sleeps |
//! | a send case; the receiver waits | gets the promise. The receiver's ticket stays open |
//! | a send case, else | adds an offer without a value, and sleeps with its `select!` |
//! | the receiver comes; a value is laid | takes the value: free |
//! | the receiver comes; an offer with a value | claims and takes it, also if a promise is out |
//! | the receiver comes; only empty offers, a free place | promises it to one, and is not ready |
//! | the receiver ends its wait, for whatever reason | its ticket is void |
//! | a permit is used | lays the value down, wakes the receiver: Ok, "the next receive gets it" |
//! | a permit is dropped | the place is free. The receiver is told if there are offers |
//! | the receiver is dropped | closed. The laid value is dropped, the offers are woken |
//!
//! A party does not deal with itself: two cases of one `select!` never meet. `meeting.rs` has the
//! part that the ends share, and says why nobody waits for a lock.

use std::sync::Arc;
use std::time::Instant;

use super::meeting::{Found, Meeting};
use super::{Nap, Once, RecvTimeoutError, Refused, SendTimeoutError, Target, TryRecvError};
use crate::sync::{AtomicBool, Mutex, Ordering, fence, forbid_blocking};
use crate::wake::{Notify, Ticket};

/// A channel without a buffer. The module's text describes it.
pub(crate) struct Rendezvous<T> {
    meeting: Arc<Meeting>,
    /// The value at the place. Only the owner of a promise, or of a laid value, locks it.
    place: Mutex<Option<T>>,
    /// A value that the receiver has taken for a later receive. Only the receiver locks it.
    held: Mutex<Option<T>>,
    values: Values<T>,
}

/// The values of senders that block.
struct Values<T> {
    /// Each level has twice the cells of the one below.
    levels: [Once<Box<[Value<T>]>>; LEVELS],
}

const LEVELS: usize = 28;
const FIRST_LEVEL: usize = 4;

struct Value<T> {
    /// A sender has this cell, or the receiver has not emptied it yet.
    used: AtomicBool,
    /// The value. Only the thread that has the cell locks it.
    value: Mutex<Option<T>>,
}

impl<T> Values<T> {
    fn new() -> Values<T> {
        Values { levels: std::array::from_fn(|_| Once::new(None)) }
    }

    /// Makes the cells of a level. Waits for no other sender that does the same.
    #[cold]
    fn prepare(&self, level: usize) {
        let empty = || Value { used: AtomicBool::new(false), value: Mutex::new(None) };
        // If another sender was faster, its cells stay and ours are freed.
        let _ =
            self.levels[level].set(Arc::new((0..FIRST_LEVEL << level).map(|_| empty()).collect()));
    }

    /// Puts a value into a free cell. Allocates when more senders block than ever before.
    fn put(&self, value: T) -> usize {
        for (level, cells) in self.levels.iter().enumerate() {
            if cells.get().is_none() {
                self.prepare(level);
            }
            for (at, cell) in cells.get().into_iter().flat_map(|cells| cells.iter()).enumerate() {
                let free = !cell.used.load(Ordering::Relaxed);
                if free && !cell.used.swap(true, Ordering::Acquire) {
                    *cell.value.lock() = Some(value);
                    return (FIRST_LEVEL << level) - FIRST_LEVEL + at;
                }
            }
        }
        unreachable!("more senders block than there can be threads")
    }

    /// Takes the value of a cell. The cell is free then.
    fn take(&self, index: usize) -> Option<T> {
        let number = index / FIRST_LEVEL + 1;
        let level = number.ilog2() as usize;
        let cell = &self.levels[level].get()?[index + FIRST_LEVEL - (FIRST_LEVEL << level)];
        let value = cell.value.lock().take();
        cell.used.store(false, Ordering::Release);
        value
    }
}

impl<T> Rendezvous<T> {
    pub(super) fn new() -> Rendezvous<T> {
        let values = Values::new();
        // Uses fewer steps in the models of channels. The first cells have a model of their own.
        #[cfg(all(loom, test))]
        values.prepare(0);
        Rendezvous {
            meeting: Arc::new(Meeting::new()),
            place: Mutex::new(None),
            held: Mutex::new(None),
            values,
        }
    }

    pub(super) fn meeting(&self) -> &Arc<Meeting> {
        &self.meeting
    }

    // The senders.

    /// Lays a value down. The caller owns the promise, which is used up.
    pub(super) fn lay(&self, value: T) -> Result<(), T> {
        *self.place.lock() = Some(value);
        if self.meeting.lay() {
            return Ok(());
        }
        // The place is still ours: the receiver takes only a value that is laid.
        let value = self.place.lock().take();
        self.meeting.clear();
        value.map_or(Ok(()), Err)
    }

    // Out of line: the code of buffered channels stays short.
    #[inline(never)]
    pub(super) fn try_send(&self, value: T) -> Result<(), (Refused, T)> {
        match self.meeting.claim_receiver() {
            Ok(()) => self.lay(value).map_err(|value| (Refused::Closed, value)),
            Err(refused) => Err((refused, value)),
        }
    }

    #[track_caller]
    pub(super) fn send(
        &self,
        value: T,
        deadline: Option<Instant>,
    ) -> Result<(), SendTimeoutError<T>> {
        let value = match self.try_send(value) {
            Ok(()) => return Ok(()),
            Err((Refused::Closed, value)) => return Err(SendTimeoutError::Disconnected(value)),
            Err((Refused::Full, value)) => value,
        };
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if !is_over() && forbid_blocking("send") {
            return Err(SendTimeoutError::Timeout(value));
        }
        let here = Notify::of_thread();
        here.open_ticket();
        let ticket = Ticket::issue(&here);
        let cell = self.values.put(value);
        let mut nap = Nap::default();
        let mut offer = None;
        loop {
            here.sleep();
            // A missing offer means that another sender is stalled with the list. Then a nap is
            // due.
            offer = offer.or_else(|| self.meeting.offer(&here, Some(cell)));
            fence(Ordering::SeqCst);
            if !ticket.is_open() {
                here.awake();
                return Ok(()); // the receiver empties the cell
            }
            let closed = self.meeting.is_closed();
            if closed || is_over() {
                here.awake();
                // Claimed at the last moment: the receiver empties the cell.
                let value = if here.void_ticket() { self.values.take(cell) } else { None };
                if let Some(number) = offer {
                    self.meeting.withdraw(number);
                }
                return match value {
                    None => Ok(()),
                    Some(value) if closed => Err(SendTimeoutError::Disconnected(value)),
                    Some(value) => Err(SendTimeoutError::Timeout(value)),
                };
            }
            let limit = if offer.is_some() { None } else { Instant::now().checked_add(nap.next()) };
            here.park([deadline, limit].into_iter().flatten().min());
            here.awake();
        }
    }

    // The receiver.

    /// Takes the held or laid value, or the value of a sender that blocks. Waits for nobody.
    // Out of line: the code of buffered channels stays short.
    #[inline(never)]
    pub(super) fn try_recv(&self, party: Option<&Arc<Notify>>) -> Result<T, TryRecvError> {
        if let Some(value) = self.take_held() {
            return Ok(value);
        }
        self.receive(party)
    }

    fn take_held(&self) -> Option<T> {
        if !self.meeting.is_held() {
            return None;
        }
        let value = self.held.lock().take()?;
        self.meeting.set_held(false);
        Some(value)
    }

    fn take_laid(&self) -> Option<T> {
        if !self.meeting.is_laid() {
            return None;
        }
        let value = self.place.lock().take();
        self.meeting.clear();
        value
    }

    fn receive(&self, party: Option<&Arc<Notify>>) -> Result<T, TryRecvError> {
        // "Gone" is read first: a last value is laid before the last sender goes.
        let gone = self.meeting.is_gone();
        loop {
            if let Some(value) = self.take_laid() {
                return Ok(value);
            }
            match self.meeting.accept(party) {
                Found::Value(cell, offer) => {
                    let value = self.values.take(cell);
                    offer.wake();
                    if let Some(value) = value {
                        return Ok(value);
                    }
                }
                Found::Promised(offer) => offer.wake(),
                Found::Litter(offer) => drop(offer),
                Found::Nothing if gone => return Err(TryRecvError::Disconnected),
                Found::Nothing => return Err(TryRecvError::Empty),
            }
        }
    }

    /// Takes a value for a later receive, if there is one. Returns true if the next receive gives a
    /// value or the end.
    // Out of line: the code of buffered channels stays short.
    #[inline(never)]
    pub(super) fn hold(&self, party: Option<&Arc<Notify>>) -> bool {
        if self.meeting.is_held() || self.meeting.is_laid() {
            return true;
        }
        match self.receive(party) {
            Ok(value) => {
                *self.held.lock() = Some(value);
                self.meeting.set_held(true);
                true
            }
            Err(error) => error == TryRecvError::Disconnected,
        }
    }

    #[track_caller]
    pub(super) fn recv(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let here = Notify::of_thread();
        let mut has_offered = false;
        loop {
            match self.try_recv(None) {
                Ok(value) => return Ok(value),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) => {}
            }
            // Offers to receive also when the deadline is past. Else no `try_send` ever meets this
            // receive.
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_over && has_offered {
                // A last look, as for a channel with a buffer.
                return self.try_recv(None).map_err(RecvTimeoutError::of);
            }
            has_offered = true;
            if !is_over && forbid_blocking("recv") {
                return Err(RecvTimeoutError::Timeout);
            }
            self.meeting.set_target(Some(Target { notify: here.clone(), slot: 0 }));
            here.open_ticket();
            here.sleep();
            self.meeting.wait_here(&here);
            fence(Ordering::SeqCst);
            if !self.meeting.is_receivable(None) {
                here.park(deadline);
            }
            here.awake();
            self.meeting.leave(&here);
        }
    }

    /// Closes the channel for a receiver that goes. Every sender that waits gets its value back,
    /// and a value at the place is dropped.
    pub(super) fn close(&self) {
        let laid = if self.meeting.close() { self.place.lock().take() } else { None };
        let held = self.held.lock().take();
        drop((laid, held));
    }
}

#[cfg(all(loom, test))]
mod models {
    use loom::thread;

    use super::*;

    /// Mutation: `Values::prepare` stores its cells in any case. A value is lost.
    #[test]
    fn two_senders_make_the_first_cells() {
        loom::model(|| {
            let values = Arc::new(Values::new());
            let theirs = values.clone();
            let other = thread::spawn(move || theirs.put(1));
            let (ours, theirs) = (values.put(2), other.join().unwrap());
            assert_ne!(ours, theirs);
            assert_eq!((values.take(ours), values.take(theirs)), (Some(2), Some(1)));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::permit::Waiting;
    use super::super::receiver::Receiving;
    use super::super::{Receiver, SendError, Sender, bounded};
    use super::*;
    use crate::wake::testing::party;
    use crate::wake::{Look, Probe, Request};

    fn channel() -> (Sender<u32>, Receiver<u32>, Arc<Meeting>) {
        let (tx, rx) = bounded(0);
        let meeting = match &rx.flavor {
            Receiving::Rendezvous(end) => end.meeting().clone(),
            Receiving::Buffer(_) => unreachable!(),
        };
        (tx, rx, meeting)
    }

    fn await_offer(meeting: &Meeting) {
        while meeting.offers() == 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn a_list_in_use_holds_up_no_receiver() {
        let (tx, rx, meeting) = channel();
        let (loop_, wakes) = party();
        let blocked = thread::spawn(move || tx.send(7));
        await_offer(&meeting);
        let list = meeting.lock();
        assert_eq!(rx.try_recv_as(Some(&loop_)), Err(TryRecvError::Empty));
        assert!(!rx.is_ready(Some(&loop_)) && !rx.hold(&loop_));
        assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        // A loop that goes to sleep is told when the list is free.
        rx.set_target(Some(Target { notify: loop_.clone(), slot: 0 }));
        loop_.open_ticket();
        loop_.sleep();
        rx.before_sleep(&loop_);
        assert!(!rx.is_ready(Some(&loop_)));
        meeting.release(list);
        assert_eq!(wakes.count(), 1);
        assert!(loop_.awake());
        rx.after_sleep(&loop_);
        // A loop that waits by marks is told, too.
        let list = meeting.lock();
        loop_.sleep();
        loop_.prepare(0);
        assert_eq!(meeting.ask_and_look(Request::Mark), Look::Quiet);
        meeting.release(list);
        assert!(loop_.is_marked());
        assert_eq!(wakes.count(), 2);
        assert_eq!(rx.try_recv(), Ok(7));
        assert_eq!(blocked.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_locked_list_blocks_no_permit_or_value() {
        let (tx, rx, meeting) = channel();
        let ((sender, _), (receiver, wakes)) = (party(), party());
        rx.set_target(Some(Target { notify: receiver.clone(), slot: 0 }));
        receiver.open_ticket();
        receiver.sleep();
        rx.before_sleep(&receiver);
        let list = meeting.lock();
        drop(tx.try_permit(&sender, Waiting::Nothing).unwrap());
        assert!(tx.is_ready(&sender, Waiting::Nothing));
        tx.try_permit(&sender, Waiting::Nothing).unwrap().send(7).unwrap();
        assert_eq!(wakes.count(), 1);
        assert!(rx.after_sleep(&receiver));
        assert_eq!(rx.try_recv(), Ok(7));
        receiver.open_ticket();
        rx.before_sleep(&receiver);
        assert_eq!(tx.try_send(8), Ok(()));
        rx.after_sleep(&receiver);
        assert_eq!(rx.try_recv(), Ok(8));
        drop((tx, rx));
        drop(list);
    }

    #[test]
    fn a_locked_list_blocks_no_end_of_receiver() {
        let (tx, rx, meeting) = channel();
        let other = tx.clone();
        let blocked = thread::spawn(move || other.send(7));
        await_offer(&meeting);
        let list = meeting.lock();
        drop(rx);
        meeting.release(list);
        assert_eq!(blocked.join().unwrap(), Err(SendError(7)));
        assert_eq!(tx.send(8), Err(SendError(8)));
    }

    #[test]
    fn a_locked_list_blocks_no_send_or_timeout() {
        let (tx, rx, meeting) = channel();
        let (loop_, _) = party();
        loop_.open_ticket();
        let (offer, sure) = tx.before_sleep(&loop_);
        assert!(sure);
        let list = meeting.lock();
        assert_eq!(tx.before_sleep(&loop_), (Waiting::Nothing, false));
        assert!(!tx.after_sleep(&loop_, offer));
        let timeout = Duration::from_millis(1);
        assert_eq!(tx.send_timeout(1, timeout), Err(SendTimeoutError::Timeout(1)));
        meeting.release(list);
        // The offer that the case has left is inert. The next offer removes it.
        assert_eq!(meeting.offers(), 1);
        assert!(!rx.is_ready(None));
        assert_eq!(tx.send_timeout(2, timeout), Err(SendTimeoutError::Timeout(2)));
        assert_eq!(meeting.offers(), 0);
        assert_eq!(Arc::strong_count(&loop_), 1);
    }

    #[test]
    fn every_index_has_a_cell_of_its_own() {
        let values = Values::new();
        let indices: Vec<_> = (0..100).map(|n| values.put(n)).collect();
        assert_eq!(indices, (0..100).collect::<Vec<_>>());
        for index in indices.into_iter().rev() {
            assert_eq!(values.take(index), Some(index));
        }
        assert_eq!(values.put(1), 0);
    }
}

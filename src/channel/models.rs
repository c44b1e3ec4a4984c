//! The loom models of channels: every interleaving of a few threads, up to a number of preemptions.
//!
//! `wake/models.rs` says how to run the models. A lost wake-up shows as a deadlock, which loom
//! reports. A slot that two threads touch at once shows as a causality violation. `Sleeper` is the
//! reactor's protocol here: the steps of `wake/mod.rs` in the order in which `Core::block`,
//! `Core::collect` and `Embedded::turn` take them.
//!
//! Longer than 500 lines: the models share their threads and helpers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::thread;

use super::permit::Waiting;
use super::rendezvous_models::Loop;
use super::{Receiver, Sender, Target, TryRecvError, bounded, unbounded};
use crate::sync::{Ordering, fence, settle_fence, without_membarrier};
use crate::wake::models::{Bed, Joined, SLOT, models, party, spawn};
use crate::wake::{Look, Notify, Probe, Request};

/// The reactor's side of the protocol, with some registered channels.
pub(super) struct Sleeper<T> {
    pub(super) receivers: Vec<Receiver<T>>,
    pub(super) notify: Arc<Notify>,
    pub(super) bed: Arc<Bed>,
    /// Channels in the ready list.
    ready: VecDeque<usize>,
    /// Channels whose senders may have missed the request.
    unsure: Vec<usize>,
    /// The number of sleeps begun, also those that ended at once.
    begun: usize,
}

impl<T> Sleeper<T> {
    pub(super) fn new(receiver: Receiver<T>) -> Sleeper<T> {
        Sleeper::of(vec![receiver])
    }

    pub(super) fn of(receivers: Vec<Receiver<T>>) -> Sleeper<T> {
        let (notify, bed) = party();
        for (n, receiver) in receivers.iter().enumerate() {
            let slot = SLOT + n as u32;
            notify.prepare(slot);
            receiver.set_target(Some(Target { notify: notify.clone(), slot }));
        }
        Sleeper { receivers, notify, bed, ready: VecDeque::new(), unsure: Vec::new(), begun: 0 }
    }

    /// The steps of a `select!` with a case for each channel.
    pub(super) fn select(&mut self) -> Result<T, TryRecvError> {
        loop {
            let mut ends = 0;
            for receiver in &self.receivers {
                match receiver.try_recv() {
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => ends += 1,
                    received => return received,
                }
            }
            if ends == self.receivers.len() {
                return Err(TryRecvError::Disconnected);
            }
            let open = || self.receivers.iter().filter(|receiver| !receiver.is_disconnected());
            self.begun += 1;
            self.notify.sleep();
            open().for_each(|receiver| receiver.state().ask(Request::Wake));
            fence(Ordering::SeqCst);
            let look = || {
                let looks = self.receivers.iter().map(|receiver| receiver.state().look());
                let looks: Vec<Look> = looks.collect();
                match () {
                    _ if looks.iter().zip(&self.receivers).any(|(&look, r)| {
                        look == Look::Ready && !(r.is_disconnected() && r.is_empty())
                    }) =>
                    {
                        Look::Ready
                    }
                    _ if self.receivers.iter().filter(|r| r.is_disconnected()).count() > ends => {
                        Look::Ready
                    }
                    _ if looks.contains(&Look::Coming) => Look::Coming,
                    _ => Look::Quiet,
                }
            };
            match look() {
                Look::Ready => {}
                Look::Quiet => self.bed.sleep(),
                // Refused: a nap, which may end early.
                Look::Coming if !settle_fence() => thread::yield_now(),
                Look::Coming if look() != Look::Ready => self.bed.sleep(),
                Look::Coming => {}
            }
            self.notify.awake();
            self.receivers.iter().for_each(|receiver| receiver.state().unask());
        }
    }

    /// The steps of `wait`, which looks at a channel only when there is a mark.
    pub(super) fn wait(&mut self) -> Result<T, TryRecvError> {
        if self.begun == 0 {
            (0..self.receivers.len()).for_each(|n| self.ask(n));
        }
        loop {
            while let Some(&n) = self.ready.front() {
                match self.receivers[n].try_recv() {
                    Err(TryRecvError::Empty) => {
                        self.ready.pop_front();
                        self.ask(n);
                    }
                    received => return received,
                }
            }
            self.begun += 1;
            self.notify.sleep();
            fence(Ordering::SeqCst);
            if !self.notify.is_marked() {
                if self.unsure.is_empty() { self.bed.sleep() } else { thread::yield_now() }
            }
            self.notify.awake();
            self.collect();
        }
    }

    fn ask(&mut self, n: usize) {
        match self.receivers[n].state().look_or_ask(Some(Request::Mark)) {
            Look::Ready => self.ready.push_back(n),
            Look::Coming => self.unsure.push(n),
            Look::Quiet => {}
        }
    }

    fn collect(&mut self) {
        let mut marked: Vec<usize> = std::mem::take(&mut self.unsure);
        if self.notify.is_marked() {
            self.notify.take_marks(|slot| marked.push((slot - SLOT) as usize));
        }
        for n in marked {
            if !self.ready.contains(&n) && !self.unsure.contains(&n) {
                self.ask(n);
            }
        }
    }

    /// The steps of `Embedded::turn` after the outer loop found the fd readable; ends asleep.
    fn turn(&mut self) {
        self.notify.awake();
        self.collect();
        self.notify.sleep();
        fence(Ordering::SeqCst);
        if !self.ready.is_empty() || self.notify.is_marked() {
            self.notify.wake();
        }
    }

    fn wakes(&self) -> usize {
        self.bed.wakes.load(Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct Counted(pub(super) Arc<Count>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Threads that each call `send` with a sender and a number.
pub(super) fn each<R: 'static>(
    tx: &Sender<u32>,
    send: fn(Sender<u32>, u32) -> R,
) -> [Joined<R>; 2] {
    [1, 2].map(|n| {
        let tx = tx.clone();
        spawn(move || send(tx, n))
    })
}

pub(super) fn spawn_senders(tx: Sender<u32>, values: &'static [&'static [u32]]) -> Vec<Joined<()>> {
    let sender = |values: &'static [u32]| {
        let tx = tx.clone();
        spawn(move || values.iter().for_each(|&value| tx.try_send(value).unwrap()))
    };
    values.iter().map(|values| sender(values)).collect()
}

/// Takes as many values by `step` as are `expected`; each must come once. Keeps a sender all the
/// time, because the end of the last sender would wake the receiver, too.
fn take_all(
    kept: Sender<u32>,
    mut step: impl FnMut() -> Result<u32, TryRecvError>,
    expected: &[u32],
) {
    let mut expected = expected.to_vec();
    while !expected.is_empty() {
        let value = step().unwrap();
        let at = expected.iter().position(|&v| v == value).expect("a value came twice");
        expected.remove(at);
    }
    drop(kept);
}

/// Looks until a value comes, which must be there before the end of the channel.
fn receive(rx: &Receiver<u32>) -> u32 {
    loop {
        match rx.try_recv() {
            Ok(value) => return value,
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(TryRecvError::Disconnected) => panic!("a value was lost"),
        }
    }
}

/// Sends while another sender sends. One slot takes one of the two messages.
fn one_slot(send: fn(&Sender<u32>) -> bool) {
    let (tx, rx) = bounded(1);
    let other = tx.clone();
    let competitor = thread::spawn(move || other.try_send(1).is_ok());
    let here = send(&tx);
    assert!(competitor.join().unwrap() != here, "one slot, one message");
    assert_eq!(rx.try_recv(), Ok(if here { 2 } else { 1 }));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    assert!(tx.try_send(3).is_ok());
}

/// One model of one sender or two, for a `select!`, for a `wait`, and for a `select!` without
/// membarrier.
macro_rules! send_against_sleep {
    ($($name:ident: $model:path, $step:ident, $channel:expr, $values:expr;)*) => {$(
        #[test]
        fn $name() {
            $model(|| {
                let (tx, rx) = $channel;
                let mut sleeper = Sleeper::new(rx);
                let values: &'static [&'static [u32]] = $values;
                let kept = tx.clone();
                let senders = spawn_senders(tx, values);
                take_all(kept, || sleeper.$step(), &values.concat());
                if senders.len() == 1 {
                    assert!(sleeper.wakes() <= sleeper.begun, "more wake-ups than sleeps");
                }
                senders.into_iter().for_each(|sender| sender.join().unwrap());
            });
        }
    )*};
}

send_against_sleep! {
    one_sender_against_a_select: loom::model, select, bounded(2), &[&[1, 2]];
    two_senders_against_a_select: loom::model, select, bounded(2), &[&[1], &[2]];
    one_sender_against_a_wait: loom::model, wait, bounded(2), &[&[1, 2]];
    two_senders_against_a_wait: loom::model, wait, bounded(2), &[&[1], &[2]];
    one_sender_against_a_select_without_membarrier:
        without_membarrier, select, bounded(2), &[&[1, 2]];
    two_senders_against_a_wait_without_membarrier:
        without_membarrier, wait, bounded(2), &[&[1], &[2]];
    the_first_of_a_level_against_a_select: loom::model, select, unbounded(), &[&[1, 2]];
    the_first_of_a_level_against_a_wait: loom::model, wait, unbounded(), &[&[1, 2]];
}

models! {
    fn a_select_and_a_wait_by_turns_lose_nothing() {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let kept = tx.clone();
        let _senders = spawn_senders(tx, &[&[1, 2]]);
        assert_eq!(sleeper.wait(), Ok(1));
        assert_eq!(sleeper.select(), Ok(2));
        drop(kept);
        assert_eq!(sleeper.wait(), Err(TryRecvError::Disconnected));
    }
}

/// A sender is stalled for ever. The message of another sender is received all the same.
fn a_sender_that_stands_still(step: fn(&mut Sleeper<u32>) -> Result<u32, TryRecvError>) {
    loom::model(move || {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let place = tx.tail().begin();
        let other = tx.clone();
        let sender = thread::spawn(move || other.try_send(2).unwrap());
        assert_eq!(step(&mut sleeper), Ok(2));
        assert_eq!(sleeper.receivers[0].try_recv(), Err(TryRecvError::Empty));
        sender.join().unwrap();
        // The stopped sender goes on after all.
        let kept = tx.clone();
        let sender = thread::spawn(move || {
            place.finish(1);
            drop(tx);
        });
        assert_eq!(step(&mut sleeper), Ok(1));
        drop(kept);
        assert_eq!(step(&mut sleeper), Err(TryRecvError::Disconnected));
        sender.join().unwrap();
    });
}

#[test]
fn a_select_passes_a_stalled_sender() {
    a_sender_that_stands_still(Sleeper::select);
}

#[test]
fn a_wait_passes_a_stalled_sender() {
    a_sender_that_stands_still(Sleeper::wait);
}

models! {
    fn a_sender_that_goes_on_is_received_in_its_own_order() {
        let (tx, rx) = bounded(4);
        let place = tx.tail().begin();
        let behind = tx.clone();
        behind.try_send(10).unwrap();
        let sender = thread::spawn(move || {
            place.finish(1);
            tx.try_send(2).unwrap();
        });
        let seen = [(); 3].map(|()| receive(&rx));
        let at = |value| seen.iter().position(|&v| v == value).unwrap();
        assert!(at(1) < at(2), "out of order: {seen:?}");
        sender.join().unwrap();
        drop(behind);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }

    fn a_finished_send_is_never_missed() {
        let (tx, rx) = bounded(2);
        let done = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let (other, told) = (tx.clone(), done.clone());
        let _slow = spawn(move || tx.try_send(1).unwrap());
        let _quick = spawn(move || {
            other.try_send(2).unwrap();
            told.store(true, Ordering::Release);
        });
        if done.load(Ordering::Acquire) {
            assert!(rx.try_recv().is_ok(), "a message was missed whose send has returned");
        }
    }
}

#[test]
fn two_channels_on_one_reactor() {
    for step in [Sleeper::select, Sleeper::wait] {
        loom::model(move || {
            let ((tx_a, rx_a), (tx_b, rx_b)) = (bounded(1), bounded(1));
            let mut sleeper = Sleeper::of(vec![rx_a, rx_b]);
            // Kept to the end, so that the messages are the only news.
            let kept = (tx_a.clone(), tx_b.clone());
            let a = thread::spawn(move || tx_a.try_send(1).unwrap());
            let b = thread::spawn(move || tx_b.try_send(2).unwrap());
            let mut seen = [step(&mut sleeper).unwrap(), step(&mut sleeper).unwrap()];
            seen.sort_unstable();
            assert_eq!(seen, [1, 2]);
            a.join().unwrap();
            b.join().unwrap();
            drop(kept);
        });
    }
}

models! {
    fn a_receiver_that_moves_while_a_message_is_coming() {
        let (tx, rx) = bounded(1);
        let first = Sleeper::new(rx);
        first.receivers[0].state().ask_and_look(Request::Mark);
        let kept = tx.clone();
        let sender = thread::spawn(move || tx.try_send(1).unwrap());
        let rx = first.receivers.into_iter().next().unwrap();
        rx.set_target(None);
        let mut second = Sleeper::new(rx);
        assert_eq!(second.select(), Ok(1));
        sender.join().unwrap();
        drop(kept);
    }

    fn a_permits_sender_against_a_wait() {
        let (tx, rx) = bounded(1);
        let mut sleeper = Sleeper::new(rx);
        let _kept = tx.clone();
        let _sender = spawn(move || {
            let (notify, _) = party();
            let permit = tx.try_permit(&notify, Waiting::default()).unwrap();
            permit.send(1).unwrap();
        });
        assert_eq!(sleeper.wait(), Ok(1));
    }

    fn the_last_senders_drop_against_a_select() {
        let (tx, rx) = bounded::<u32>(1);
        let mut sleeper = Sleeper::new(rx);
        let other = tx.clone();
        let _dropper = spawn(move || drop(other));
        drop(tx);
        assert_eq!(sleeper.select(), Err(TryRecvError::Disconnected));
    }

    fn an_embedded_turn_against_send() {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        sleeper.ask(0);
        sleeper.turn();
        let _kept = tx.clone();
        let _senders = spawn_senders(tx, &[&[1, 2]]);
        let mut received = Vec::new();
        while received.len() < 2 {
            sleeper.bed.sleep(); // the outer loop
            sleeper.turn();
            while let Ok(value) = sleeper.receivers[0].try_recv() {
                received.push(value);
            }
            // The drained channel asks for its mark again. Messages that came meanwhile are for the
            // next turn.
            sleeper.ready.clear();
            sleeper.ask(0);
            if !sleeper.ready.is_empty() {
                sleeper.notify.wake();
            }
        }
        assert_eq!(received, [1, 2]);
    }

    /// A sender uses the head that another sender has read, and must not write too early.
    fn a_head_handed_on_between_two_senders() {
        let (tx, rx) = bounded(1);
        tx.try_send(0).unwrap();
        let senders = each(&tx, |tx, value| tx.try_send(value).is_ok().then_some(value));
        let mut received = vec![rx.try_recv().unwrap()];
        received.extend(rx.try_recv().ok());
        let mut accepted: Vec<u32> =
            senders.into_iter().filter_map(|s| s.join().unwrap()).collect();
        received.extend(rx.try_recv().ok());
        accepted.insert(0, 0);
        received.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(received, accepted, "what was accepted is received");
    }

    fn two_senders_against_one_slot() {
        one_slot(|tx| tx.try_send(2).is_ok());
    }

    fn a_slot_is_used_again_only_after_it_was_read() {
        let (tx, rx) = bounded(1);
        let _sender = spawn(move || {
            (1..=2).for_each(|value| {
                while tx.try_send(value).is_err() {
                    thread::yield_now()
                }
            })
        });
        assert_eq!([receive(&rx), receive(&rx)], [1, 2]);
    }

    fn a_blocked_sender_against_recv() {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || tx.send(2).unwrap());
        assert_eq!(rx.try_recv(), Ok(1));
        // Nothing else is received: the one recv must have called the sender.
        sender.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
    }

    fn a_blocked_sender_against_the_receivers_drop() {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || tx.send(2));
        drop(rx);
        assert_eq!(sender.join().unwrap(), Err(super::SendError(2)));
    }

    fn a_bare_recv_against_send() {
        let (tx, rx) = bounded(1);
        let kept = tx.clone();
        // Not joined: loom takes a late `unpark` for the end of a `join`.
        thread::spawn(move || tx.try_send(1).unwrap());
        assert_eq!(rx.recv(), Ok(1));
        drop(kept);
        assert!(rx.recv().is_err());
    }

    fn every_value_is_dropped_once_when_the_receiver_goes_while_a_sender_sends() {
        let drops = Arc::new(Count::new(0));
        let (tx, rx) = bounded(2);
        // The drop of the last end would drop a forgotten message.
        let kept = tx.clone();
        let value = Counted(drops.clone());
        let sender = thread::spawn(move || drop(tx.try_send(value)));
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(Relaxed), 1);
        drop(kept);
        assert_eq!(drops.load(Relaxed), 1);
    }

    /// Mutation: `Sent::answer` does not ask `is_received`. Both ends drop the message.
    fn a_late_sender_leaves_a_received_message_to_its_receiver() {
        let drops = Arc::new(Count::new(0));
        std::mem::forget(drops.clone()); // for a second drop
        let (tx, rx) = bounded(1);
        let value = Counted(drops.clone());
        let receiver = thread::spawn(move || rx.try_recv());
        let sent = tx.try_send(value);
        let received = receiver.join().unwrap();
        assert_eq!(drops.load(Relaxed), usize::from(sent.is_ok() && received.is_err()));
        drop((sent, received));
        assert_eq!(drops.load(Relaxed), 1);
    }

    /// Mutation: `State::set_target` leaves the request of the party before in place. A late sender
    /// takes the request away, and the receiver sleeps beside a message.
    fn a_receiver_that_moves_to_a_thread_against_a_late_sender() {
        let (tx, rx) = bounded(2);
        let reactor = Sleeper::new(rx);
        reactor.receivers[0].state().ask_and_look(Request::Mark);
        let _kept = tx.clone();
        // Not joined, as in `a_bare_recv_against_send`.
        thread::spawn(move || (1..=2).for_each(|value| tx.try_send(value).unwrap()));
        let rx = reactor.receivers.into_iter().next().unwrap();
        rx.set_target(None);
        assert_eq!([rx.recv(), rx.recv()], [Ok(1), Ok(2)]);
    }

    fn two_blocked_senders_against_two_receives() {
        let (tx, rx) = bounded(1);
        tx.try_send(0).unwrap();
        let _senders = each(&tx, |tx, value| tx.send(value).unwrap());
        let _ = [receive(&rx), receive(&rx)];
        // Two slots have become free: both senders end, though nothing more is received.
    }

    fn an_unbounded_channel_grows_while_two_senders_send() {
        let (tx, rx) = unbounded();
        let senders = spawn_senders(tx, &[&[1, 2], &[3]]);
        let mut received = [(); 3].map(|()| receive(&rx));
        assert!(received.iter().filter(|&&value| value < 3).is_sorted(), "out of order");
        received.sort_unstable();
        assert_eq!(received, [1, 2, 3]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }
}

/// Makes an unbounded channel that has grown to a ring of four slots and is empty again. From now
/// on it shrinks where it may.
fn grown() -> (Sender<u32>, Receiver<u32>) {
    let (tx, rx) = unbounded();
    (0..3).for_each(|_| tx.try_send(0).unwrap());
    (0..3).for_each(|_| assert_eq!(rx.try_recv(), Ok(0)));
    rx.state().shrinks.store(true, Relaxed);
    (tx, rx)
}

/// Looks twice while these threads send, and then takes the rest: each value comes once.
fn receive_all(rx: &Receiver<u32>, senders: Vec<Joined<()>>, expected: &[u32]) {
    let mut received: Vec<u32> = (0..2).filter_map(|_| rx.try_recv().ok()).collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    received.extend(std::iter::from_fn(|| rx.try_recv().ok()));
    received.sort_unstable();
    assert_eq!(received, expected);
}

models! {
    fn a_receiver_shrinks_while_two_senders_send() {
        let (tx, rx) = grown();
        let senders = spawn_senders(tx, &[&[1], &[2]]);
        receive_all(&rx, senders, &[1, 2]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert!(!rx.state().rings().is_large());
    }

    fn a_ring_shrinks_and_grows_while_one_sender_sends() {
        let (tx, rx) = grown();
        let senders = spawn_senders(tx, &[&[1, 2, 3]]);
        receive_all(&rx, senders, &[1, 2, 3]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }

    fn a_sender_shrinks_past_a_sender_that_stands_still() {
        let (tx, rx) = grown();
        let place = tx.tail().begin();
        let before = rx.state().claimed().1;
        let others = spawn_senders(tx.clone(), &[&[2, 3]]);
        receive_all(&rx, others, &[2, 3]);
        assert_ne!(rx.state().claimed().1, before, "no sender has shrunk the ring");
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        let sender = spawn(move || {
            place.finish(1);
            drop(tx);
        });
        receive_all(&rx, vec![sender], &[1]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }

    /// Two threads send one value each. Both may find the ring full, and grow or shrink it.
    fn two_senders_shrink_and_grow_past_a_sender_that_stands_still() {
        let (tx, rx) = grown();
        let place = tx.tail().begin();
        let senders = spawn_senders(tx.clone(), &[&[2], &[3]]);
        place.finish(1);
        drop(tx);
        receive_all(&rx, senders, &[1, 2, 3]);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    }

    fn a_receiver_goes_while_a_sender_shrinks_the_ring() {
        let (tx, rx) = unbounded::<Arc<u32>>();
        let value = Arc::new(0);
        (0..3).for_each(|_| tx.try_send(value.clone()).unwrap());
        (0..3).for_each(|_| drop(rx.try_recv().unwrap()));
        rx.state().shrinks.store(true, Relaxed);
        let place = tx.tail().begin();
        let (other, sent) = (tx.clone(), value.clone());
        let sender = thread::spawn(move || (0..2).for_each(|_| drop(other.try_send(sent.clone()))));
        let _ = rx.try_recv();
        drop(rx);
        place.finish(value.clone());
        sender.join().unwrap();
        drop(tx);
        assert_eq!(Arc::strong_count(&value), 1, "a value was lost, or dropped twice");
    }

    fn a_permit_against_a_competing_sender() {
        one_slot(|tx| {
            // The owner of the permit can send, whatever the other thread does.
            let permit = tx.try_permit(&party().0, Waiting::default());
            permit.map(|permit| permit.send(2).unwrap()).is_some()
        });
    }

    fn a_returned_permit_calls_a_blocked_sender() {
        let (tx, rx) = bounded(1);
        let other = tx.clone();
        let (notify, _) = party();
        let permit = tx.try_permit(&notify, Waiting::default()).unwrap();
        let blocked = thread::spawn(move || other.send(1).unwrap());
        drop(permit);
        blocked.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(1));
    }

    fn a_send_case_that_sleeps_against_recv() {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || Loop::new().send(&[&tx], 2));
        assert_eq!(rx.try_recv(), Ok(1));
        sender.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
    }
}

//! The loom models of channels without a buffer. `models.rs` says how to run them.
//!
//! Most models name a mutation that breaks them, so that a reader knows what the model is for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::thread;

use super::models::{Counted, each};
use super::permit::{Permit, Waiting};
use super::{Receiver, Sender, Target, TryRecvError, bounded};
use crate::sync::{Ordering, fence};
use crate::wake::models::{Bed, models, party, spawn};
use crate::wake::{Look, Notify, Request};

/// A loop: the steps of a `select!` of a few cases, without timers.
pub(super) struct Loop {
    notify: Arc<Notify>,
    bed: Arc<Bed>,
}

impl Loop {
    pub(super) fn new() -> Loop {
        let (notify, bed) = party();
        Loop { notify, bed }
    }

    /// Receives from one of the channels. Returns its index, and the value. With `impatient` there
    /// is at most one turn, without a sleep.
    fn recv<T>(
        &self,
        channels: &[&Receiver<T>],
        impatient: bool,
    ) -> Option<(usize, Result<T, TryRecvError>)> {
        for channel in channels {
            channel.set_target(Some(Target { notify: self.notify.clone(), slot: 0 }));
        }
        loop {
            for (at, channel) in channels.iter().enumerate() {
                match channel.try_recv_as(Some(&self.notify)) {
                    Err(TryRecvError::Empty) => {}
                    received => return Some((at, received)),
                }
            }
            self.notify.open_ticket();
            self.notify.sleep();
            channels.iter().for_each(|channel| channel.before_sleep(&self.notify));
            fence(Ordering::SeqCst);
            if !impatient && !channels.iter().any(|channel| channel.is_ready(Some(&self.notify))) {
                self.bed.sleep();
            }
            self.notify.awake();
            for channel in channels {
                channel.after_sleep(&self.notify);
            }
            if impatient {
                return None;
            }
        }
    }

    /// The steps of `wait`, which looks at the channel only when there is a mark.
    fn wait<T>(&self, channel: &Receiver<T>) -> T {
        self.notify.prepare(0);
        channel.set_target(Some(Target { notify: self.notify.clone(), slot: 0 }));
        let probe = channel.probe();
        loop {
            while probe.ask_and_look(Request::Mark) == Look::Ready {
                if let Ok(value) = channel.try_recv_as(Some(&self.notify)) {
                    return value;
                }
            }
            self.notify.open_ticket();
            self.notify.sleep();
            self.notify.set_everywhere(true);
            fence(Ordering::SeqCst);
            if !self.notify.is_marked() {
                self.bed.sleep();
            }
            self.notify.awake();
            self.notify.set_everywhere(false);
            self.notify.take_marks(|_| {});
        }
    }

    fn permit<'a, T>(&self, channels: &[&'a Sender<T>]) -> (usize, Permit<'a, T>) {
        let mut waiting = vec![Waiting::default(); channels.len()];
        loop {
            for (at, channel) in channels.iter().enumerate() {
                if channel.is_ready(&self.notify, waiting[at]) {
                    if let Some(permit) =
                        channel.try_permit(&self.notify, std::mem::take(&mut waiting[at]))
                    {
                        return (at, permit);
                    }
                }
            }
            self.notify.open_ticket();
            self.notify.sleep();
            let mut sure = true;
            for (channel, waiting) in channels.iter().zip(&mut waiting) {
                let (left, is_sure) = channel.before_sleep(&self.notify);
                (*waiting, sure) = (left, sure && is_sure);
            }
            fence(Ordering::SeqCst);
            let ready = channels
                .iter()
                .zip(&waiting)
                .any(|(channel, &left)| channel.is_ready(&self.notify, left));
            match (ready, sure) {
                (true, _) => {}
                (false, true) => self.bed.sleep(),
                (false, false) => thread::yield_now(), // a nap
            }
            self.notify.awake();
            let mut chosen = 0;
            for (channel, waiting) in channels.iter().zip(&mut waiting) {
                if channel.after_sleep(&self.notify, *waiting) {
                    chosen += 1;
                } else {
                    *waiting = Waiting::default();
                }
            }
            assert!(chosen <= 1, "a party was chosen twice");
        }
    }

    /// Sends through one of the channels. Returns its index.
    pub(super) fn send<T: std::fmt::Debug>(&self, channels: &[&Sender<T>], value: T) -> usize {
        let (at, permit) = self.permit(channels);
        permit.send(value).unwrap();
        at
    }
}

models! {
    /// Mutation: `Meeting::lay` does not tell. The receiver sleeps for ever.
    fn a_promise_against_a_timeout_and_then_a_receive() {
        let (tx, rx) = bounded(0);
        // The end of the last sender would wake the receiver, too.
        let kept = tx.clone();
        let _sender = spawn(move || Loop::new().send(&[&tx], 1));
        let receiver = Loop::new();
        let early = receiver.recv(&[&rx], true);
        if early.is_none() {
            assert_eq!(receiver.recv(&[&rx], false), Some((0, Ok(1))));
        }
        drop(kept);
        assert_eq!(receiver.recv(&[&rx], false), Some((0, Err(TryRecvError::Disconnected))));
    }

    /// Mutation: `Meeting::lay` does not look whether the channel is closed. The value stays at the
    /// place.
    fn a_promise_against_the_receivers_drop() {
        let drops = Arc::new(Count::new(0));
        let value = Counted(drops.clone());
        let (tx, rx) = bounded(0);
        let _kept = tx.clone();
        let sender = thread::spawn(move || {
            let (_, permit) = Loop::new().permit(&[&tx]);
            permit.send(value).is_ok()
        });
        let early = Loop::new().recv(&[&rx], true);
        drop(rx);
        let sent = sender.join().unwrap();
        assert!(sent || early.is_none(), "received, and given back");
        drop(early);
        assert_eq!(drops.load(Relaxed), 1);
    }

    /// Mutation: `Meeting::accept` claims the ticket before the place is promised. A sender that is
    /// awake in between thinks that it was not chosen.
    fn two_send_cases_against_one_receiver() {
        let (tx, rx) = bounded(0);
        let senders = each(&tx, |tx, value| Loop::new().send(&[&tx], value));
        drop(tx);
        let receiver = Loop::new();
        let mut sum = 0;
        while let Some((_, Ok(value))) = receiver.recv(&[&rx], false) {
            sum += value;
        }
        assert_eq!(sum, 3);
        senders.into_iter().for_each(|sender| assert!(sender.join().unwrap() < 3));
    }

    /// Mutation: `Meeting::end_offer` says that nothing was chosen. The promise is lost, and both
    /// sleep.
    fn selects_on_both_sides_with_two_channels() {
        let ((a_tx, a_rx), (b_tx, b_rx)) = (bounded(0), bounded(0));
        let sender = thread::spawn(move || (Loop::new().send(&[&a_tx, &b_tx], 1), a_tx, b_tx));
        let receiver = Loop::new();
        let Some((from, Ok(1))) = receiver.recv(&[&a_rx, &b_rx], false) else {
            panic!("nothing came")
        };
        let (at, ..) = sender.join().unwrap();
        assert_eq!(at, from);
        for channel in [&a_rx, &b_rx] {
            assert_eq!(channel.try_recv(), Err(TryRecvError::Disconnected));
        }
    }

    /// Mutation: `Meeting::end_offer` looks at the place, and not at the ticket. A promise that the
    /// other receiver is about to take back counts as a second choice.
    fn one_send_case_against_two_receivers() {
        let ((a_tx, a_rx), (b_tx, b_rx)) = (bounded(0), bounded(0));
        let receivers = [a_rx, b_rx].map(|rx| {
            thread::spawn(move || match Loop::new().recv(&[&rx], false) {
                Some((_, Ok(value))) => value,
                _ => 0,
            })
        });
        let at = Loop::new().send(&[&a_tx, &b_tx], 1);
        drop((a_tx, b_tx));
        let received = receivers.map(|receiver| receiver.join().unwrap());
        assert_eq!(received, if at == 0 { [1, 0] } else { [0, 1] });
    }

    /// Mutation: `Meeting::give_back` does not tell. The second sender and the receiver sleep for
    /// ever.
    fn a_permit_that_is_dropped_while_a_second_offer_waits() {
        let (tx, rx) = bounded(0);
        let other = tx.clone();
        let _refuses = spawn(move || {
            let party = Loop::new();
            drop(party.permit(&[&other]).1);
        });
        let _sends = spawn(move || Loop::new().send(&[&tx], 2));
        let receiver = Loop::new();
        assert_eq!(receiver.recv(&[&rx], false), Some((0, Ok(2))));
        // The first sender may not have had its turn, so it gets one.
        assert_eq!(receiver.recv(&[&rx], false), Some((0, Err(TryRecvError::Disconnected))));
    }

    /// Mutation: `Meeting::release` does not look at `asked`. The receiver sleeps beside an offer.
    fn a_blocking_send_beside_an_offer_that_is_withdrawn() {
        let (tx, rx) = bounded(0);
        let (one, other) = (tx.clone(), tx.clone());
        let sender = thread::spawn(move || one.send(1).unwrap());
        let passer_by = thread::spawn(move || {
            let party = Loop::new();
            party.notify.open_ticket();
            let (waiting, _) = other.before_sleep(&party.notify);
            if other.after_sleep(&party.notify, waiting) {
                other.give_up();
            }
        });
        assert_eq!(Loop::new().recv(&[&rx], false), Some((0, Ok(1))));
        passer_by.join().unwrap();
        drop((sender, tx));
    }

    /// Mutation: `Meeting::offer` does not tell. The receiver sleeps beside an offer.
    fn two_blocking_sends_against_a_receiver() {
        let (tx, rx) = bounded(0);
        let senders = each(&tx, |tx, value| tx.send(value).unwrap());
        drop(tx);
        let receiver = Loop::new();
        let (first, second) = (receiver.recv(&[&rx], false), receiver.recv(&[&rx], false));
        let (Some((_, Ok(first))), Some((_, Ok(second)))) = (first, second) else { panic!("lost") };
        assert_eq!(first + second, 3);
        drop(senders);
    }

    /// Mutation: `Meeting::tell_of_the_end` is not called by `release`. The sender sleeps for ever.
    fn two_blocking_sends_against_the_receivers_drop() {
        let (tx, rx) = bounded(0);
        let other = tx.clone();
        let sender = thread::spawn(move || other.send(1).unwrap_err().into_inner());
        let _closer = spawn(move || drop(rx));
        assert_eq!(tx.send(2).unwrap_err().into_inner(), 2);
        assert_eq!(sender.join().unwrap(), 1);
    }

    /// Mutation: `Meeting::offer` tells only of values. The wait is not told of a send case.
    fn a_wait_against_a_send_case() {
        let (tx, rx) = bounded(0);
        let _sender = spawn(move || {
            let at = Loop::new().send(&[&tx], 1);
            std::mem::forget(tx);
            at
        });
        assert_eq!(Loop::new().wait(&rx), 1);
    }

    /// Mutation: `Meeting::with_receiver` ignores a party that blocks everywhere. The send never
    /// comes through, and the wait sleeps for ever.
    fn a_wait_against_try_send() {
        let (tx, rx) = bounded(0);
        let _sender = spawn(move || {
            while tx.try_send(1).is_err() {
                thread::yield_now();
            }
            std::mem::forget(tx);
        });
        assert_eq!(Loop::new().wait(&rx), 1);
    }

    /// Mutation: `Meeting::set_target` leaves the request of the party before in place. A late
    /// sender takes it away, and the receiver sleeps beside a value.
    fn a_receiver_that_moves_to_a_thread_against_a_late_offer() {
        let (tx, rx) = bounded(0);
        let reactor = Loop::new();
        reactor.notify.prepare(0);
        rx.set_target(Some(Target { notify: reactor.notify.clone(), slot: 0 }));
        rx.probe().ask_and_look(Request::Mark);
        let _kept = tx.clone();
        // Not joined: loom takes a late `unpark` for the end of a `join`.
        thread::spawn(move || (1..=2).for_each(|value| tx.send(value).unwrap()));
        rx.set_target(None);
        assert_eq!([rx.recv(), rx.recv()], [Ok(1), Ok(2)]);
    }

    fn a_rendezvous_of_a_send_case_and_a_receive_case() {
        let (tx, rx) = bounded(0);
        let _sender = spawn(move || Loop::new().send(&[&tx], 1));
        let receiver = Loop::new();
        assert_eq!(receiver.recv(&[&rx], false), Some((0, Ok(1))));
        assert_eq!(receiver.recv(&[&rx], false), Some((0, Err(TryRecvError::Disconnected))));
    }

    fn a_rendezvous_of_a_bare_send_and_a_receive_case() {
        let (tx, rx) = bounded(0);
        let sender = thread::spawn(move || tx.send(1).unwrap());
        assert_eq!(Loop::new().recv(&[&rx], false), Some((0, Ok(1))));
        drop(sender);
    }

    fn a_rendezvous_of_a_send_case_and_a_bare_recv() {
        let (tx, rx) = bounded(0);
        thread::spawn(move || Loop::new().send(&[&tx], 1));
        assert_eq!(rx.recv(), Ok(1));
    }

    fn a_send_case_whose_value_is_not_made_leaves_the_receiver_waiting_for_the_next() {
        let (tx, rx) = bounded(0);
        let _sender = spawn(move || {
            let party = Loop::new();
            drop(party.permit(&[&tx]).1);
            party.send(&[&tx], 2);
        });
        assert_eq!(Loop::new().recv(&[&rx], false), Some((0, Ok(2))));
    }

    fn a_party_at_two_rendezvous_is_taken_once() {
        let ((tx_a, rx_a), (tx_b, rx_b)) = (bounded::<u32>(0), bounded::<u32>(0));
        let a = thread::spawn(move || tx_a.try_send(1).is_ok());
        let b = thread::spawn(move || tx_b.try_send(2).is_ok());
        let (notify, _) = party();
        notify.open_ticket();
        notify.sleep();
        for rx in [&rx_a, &rx_b] {
            rx.set_target(Some(Target { notify: notify.clone(), slot: 0 }));
            rx.before_sleep(&notify);
        }
        let (sent_a, sent_b) = (a.join().unwrap(), b.join().unwrap());
        assert!(!(sent_a && sent_b), "one sleep, one deal");
        notify.awake();
        assert_eq!((rx_a.after_sleep(&notify), rx_b.after_sleep(&notify)), (sent_a, sent_b));
        assert_eq!(rx_a.try_recv().is_ok(), sent_a);
        assert_eq!(rx_b.try_recv().is_ok(), sent_b);
    }
}

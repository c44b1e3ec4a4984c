//! The loom models: every interleaving of a few threads, up to a number of preemptions.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --lib models`. A lost wake-up shows as a deadlock, which loom reports; a slot that two
//! threads touch at once as a causality violation. The reactor is its protocol here (`Sleeper`): steps 1 to 5 of
//! `reactor/notify.rs` in the order in which `Core::block`, `Core::collect` and `Embedded::turn` take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::thread;

use super::permit::Waiting;
use super::{Receiver, Sender, TryRecvError, bounded, unbounded};
use crate::reactor::models::Bed;
use crate::reactor::notify::{Bell, Call, Notify, Probe};
use crate::sync::{Ordering, fence};

const TOKEN: u64 = 7;

/// The reactor's side of the protocol, with one registered channel.
struct Sleeper<T> {
    receiver: Receiver<T>,
    notify: Arc<Notify>,
    bed: Arc<Bed>,
    /// Sleeps begun, whether or not they came to anything.
    begun: usize,
}

impl<T> Sleeper<T> {
    fn new(receiver: Receiver<T>) -> Sleeper<T> {
        let bed = Bed::new();
        let notify = Arc::new(Notify::new(bed.clone()));
        receiver.set_reactor(Some((notify.clone(), TOKEN)));
        Sleeper { receiver, notify, bed, begun: 0 }
    }

    /// What a `select!` with this one case does.
    fn select(&mut self) -> Result<T, TryRecvError> {
        loop {
            match self.receiver.try_recv() {
                Err(TryRecvError::Empty) => {}
                received => return received,
            }
            self.begun += 1;
            self.notify.sleep();
            self.receiver.state().ask(Call::Wake);
            fence(Ordering::SeqCst);
            if !self.receiver.is_ready(None) {
                self.bed.sleep();
            }
            self.notify.awake();
            self.receiver.state().unask();
        }
    }

    /// What `wait` does: it looks at the channel only when the mark says so.
    fn wait(&mut self) -> Result<T, TryRecvError> {
        let mut ready = self.receiver.state().arm(Call::Mark);
        loop {
            if ready {
                match self.receiver.try_recv() {
                    Err(TryRecvError::Empty) => ready = self.receiver.state().arm(Call::Mark),
                    received => return received,
                }
                continue;
            }
            self.notify.sleep();
            fence(Ordering::SeqCst);
            if !self.notify.is_marked() {
                self.bed.sleep();
            }
            self.notify.awake();
            ready = self.collect();
        }
    }

    fn collect(&mut self) -> bool {
        if !self.notify.is_marked() {
            return false;
        }
        let mut marks = Vec::new();
        self.notify.collect(&mut marks);
        marks.iter().for_each(|&token| assert_eq!(token, TOKEN));
        !marks.is_empty() && (self.receiver.is_ready(None) || self.receiver.state().arm(Call::Mark))
    }

    /// What `Embedded::turn` does when the outer loop found the fd readable; ends asleep.
    fn turn(&mut self) -> bool {
        self.notify.awake();
        let ready = self.collect();
        self.notify.sleep();
        fence(Ordering::SeqCst);
        if ready || self.notify.is_marked() {
            self.notify.wake();
        }
        ready
    }

    fn wakes(&self) -> usize {
        self.bed.wakes.load(Relaxed)
    }
}

fn spawn_senders(tx: Sender<u32>, values: &'static [&'static [u32]]) -> Vec<thread::JoinHandle<()>> {
    let spawn = |values: &'static [u32]| {
        let tx = tx.clone();
        thread::spawn(move || values.iter().for_each(|&value| tx.try_send(value).unwrap()))
    };
    values.iter().map(|values| spawn(values)).collect()
}

/// Takes everything by `step` until the senders are gone; each value must come once.
fn drain(mut step: impl FnMut() -> Result<u32, TryRecvError>, mut expected: Vec<u32>) {
    loop {
        match step() {
            Ok(value) => {
                let at = expected.iter().position(|&v| v == value).expect("a value came twice");
                expected.remove(at);
            }
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => unreachable!(),
        }
    }
    assert_eq!(expected, [], "a value was lost");
}

#[test]
fn send_against_park_in_a_select() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1, 2]]);
        drain(|| sleeper.select(), vec![1, 2]);
        assert!(sleeper.wakes() <= sleeper.begun, "more wake-ups than sleeps");
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn two_senders_against_park_in_a_select() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1], &[2]]);
        drain(|| sleeper.select(), vec![1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn send_against_park_in_a_wait() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1, 2]]);
        drain(|| sleeper.wait(), vec![1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn two_senders_against_park_in_a_wait() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1], &[2]]);
        drain(|| sleeper.wait(), vec![1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_select_after_a_wait_and_a_wait_after_a_select_lose_nothing() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1, 2]]);
        assert_eq!(sleeper.wait(), Ok(1));
        assert_eq!(sleeper.select(), Ok(2));
        assert_eq!(sleeper.wait(), Err(TryRecvError::Disconnected));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn the_last_senders_drop_against_park() {
    loom::model(|| {
        let (tx, rx) = bounded::<u32>(1);
        let mut sleeper = Sleeper::new(rx);
        let other = tx.clone();
        let dropper = thread::spawn(move || drop(other));
        drop(tx);
        assert_eq!(sleeper.select(), Err(TryRecvError::Disconnected));
        dropper.join().unwrap();
    });
}

#[test]
fn an_embedded_turn_against_send() {
    loom::model(|| {
        let (tx, rx) = bounded(2);
        let mut sleeper = Sleeper::new(rx);
        sleeper.receiver.state().arm(Call::Mark);
        sleeper.turn();
        let senders = spawn_senders(tx, &[&[1, 2]]);
        let mut received = Vec::new();
        while received.len() < 2 {
            sleeper.bed.sleep(); // the outer loop
            sleeper.turn();
            while let Ok(value) = sleeper.receiver.try_recv() {
                received.push(value);
            }
            // The drained channel asks for its mark again; what came meanwhile is found by the turn that is owed then.
            if sleeper.receiver.state().arm(Call::Mark) {
                sleeper.notify.call(true, TOKEN);
            }
        }
        assert_eq!(received, [1, 2]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn two_senders_against_one_slot() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        let other = tx.clone();
        let sender = thread::spawn(move || other.try_send(1).is_ok());
        let here = tx.try_send(2).is_ok();
        let there = sender.join().unwrap();
        assert!(here != there, "one slot, one message");
        assert_eq!(rx.try_recv(), Ok(if here { 2 } else { 1 }));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert!(tx.try_send(3).is_ok());
    });
}

#[test]
fn a_slot_is_used_again_only_after_it_was_read() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        let sender = thread::spawn(move || {
            (1..=2).for_each(|value| {
                while tx.try_send(value).is_err() {
                    thread::yield_now()
                }
            })
        });
        let mut expected = 1;
        while expected <= 2 {
            match rx.try_recv() {
                Ok(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                Err(_) => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_blocked_sender_against_recv() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || tx.send(2).unwrap());
        assert_eq!(rx.try_recv(), Ok(1));
        // Nothing else is received: the one recv must have called the sender.
        sender.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
    });
}

#[test]
fn a_blocked_sender_against_the_receivers_drop() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || tx.send(2));
        drop(rx);
        assert_eq!(sender.join().unwrap(), Err(super::SendError(2)));
    });
}

#[test]
fn a_bare_recv_against_send() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        // Not joined: loom takes a late `unpark` for the end of a `join`.
        thread::spawn(move || tx.try_send(1).unwrap());
        assert_eq!(rx.recv(), Ok(1));
        assert!(rx.recv().is_err());
    });
}

#[test]
fn every_value_is_dropped_once_when_the_receiver_goes_while_a_sender_sends() {
    struct Counted(Arc<Count>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    loom::model(|| {
        let drops = Arc::new(Count::new(0));
        let (tx, rx) = bounded(2);
        let value = Counted(drops.clone());
        let sender = thread::spawn(move || drop(tx.try_send(value)));
        drop(rx);
        sender.join().unwrap();
        assert_eq!(drops.load(Relaxed), 1);
    });
}

/// Another party with a bed.
pub(crate) fn party() -> (Arc<Notify>, Arc<Bed>) {
    let bed = Bed::new();
    (Arc::new(Notify::new(bed.clone())), bed)
}

/// What a `select!` with one send case does; `None`: the value was not made.
fn select_send(sender: &Sender<u32>, notify: &Arc<Notify>, bed: &Bed, value: Option<u32>) {
    let mut waiting = Waiting::default();
    loop {
        if sender.is_ready(notify, waiting) {
            if let Some(permit) = sender.try_permit(notify, std::mem::take(&mut waiting)) {
                if let Some(value) = value {
                    permit.send(value).unwrap();
                }
                return;
            }
        }
        notify.open_ticket();
        notify.sleep();
        (waiting, _) = sender.before_sleep(notify);
        fence(Ordering::SeqCst);
        if !sender.is_ready(notify, waiting) {
            bed.sleep();
        }
        notify.awake();
        if !sender.after_sleep(notify, waiting) {
            waiting = Waiting::default();
        }
    }
}

/// What a `select!` with one receive case at a rendezvous does.
fn select_recv(receiver: &Receiver<u32>, notify: &Arc<Notify>, bed: &Bed) -> Result<u32, TryRecvError> {
    loop {
        match receiver.try_recv_as(Some(notify)) {
            Err(TryRecvError::Empty) => {}
            received => return received,
        }
        notify.open_ticket();
        notify.sleep();
        receiver.before_sleep(notify);
        fence(Ordering::SeqCst);
        if !receiver.is_ready(Some(notify)) {
            bed.sleep();
        }
        notify.awake();
        receiver.after_sleep(notify);
    }
}

#[test]
fn an_unbounded_channel_grows_while_two_senders_send() {
    loom::model(|| {
        let (tx, rx) = unbounded();
        let senders = spawn_senders(tx, &[&[1, 2], &[3]]);
        let mut expected = vec![1, 2, 3];
        let mut last_of_first = 0;
        while !expected.is_empty() {
            match rx.try_recv() {
                Ok(value) => {
                    let at = expected.iter().position(|&v| v == value).expect("a value came twice");
                    expected.remove(at);
                    if value < 3 {
                        assert!(value > last_of_first, "out of order");
                        last_of_first = value;
                    }
                }
                Err(TryRecvError::Empty) => thread::yield_now(),
                Err(TryRecvError::Disconnected) => panic!("a value was lost"),
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn a_permit_against_a_competing_sender() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        let other = tx.clone();
        let competitor = thread::spawn(move || other.try_send(1).is_ok());
        let (notify, _) = party();
        let permit = tx.try_permit(&notify, Waiting::default());
        let permitted = permit.is_some();
        if let Some(permit) = permit {
            // Whoever has the permit can send, whatever the other does.
            permit.send(2).unwrap();
        }
        assert!(competitor.join().unwrap() != permitted, "one slot, one message");
        assert_eq!(rx.try_recv(), Ok(if permitted { 2 } else { 1 }));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn a_returned_permit_calls_a_blocked_sender() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        let other = tx.clone();
        let (notify, _) = party();
        let permit = tx.try_permit(&notify, Waiting::default()).unwrap();
        let blocked = thread::spawn(move || other.send(1).unwrap());
        drop(permit);
        blocked.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

#[test]
fn a_send_case_that_sleeps_against_recv() {
    loom::model(|| {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let sender = thread::spawn(move || {
            let (notify, bed) = party();
            select_send(&tx, &notify, &bed, Some(2));
        });
        assert_eq!(rx.try_recv(), Ok(1));
        sender.join().unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
    });
}

#[test]
fn a_rendezvous_of_a_send_case_and_a_receive_case() {
    loom::model(|| {
        let (tx, rx) = bounded(0);
        let sender = thread::spawn(move || {
            let (notify, bed) = party();
            select_send(&tx, &notify, &bed, Some(1));
        });
        let (notify, bed) = party();
        assert_eq!(select_recv(&rx, &notify, &bed), Ok(1));
        assert_eq!(select_recv(&rx, &notify, &bed), Err(TryRecvError::Disconnected));
        sender.join().unwrap();
    });
}

#[test]
fn a_rendezvous_of_a_bare_send_and_a_receive_case() {
    loom::model(|| {
        let (tx, rx) = bounded(0);
        let sender = thread::spawn(move || tx.send(1).unwrap());
        let (notify, bed) = party();
        assert_eq!(select_recv(&rx, &notify, &bed), Ok(1));
        drop(sender);
    });
}

#[test]
fn a_rendezvous_of_a_send_case_and_a_bare_recv() {
    loom::model(|| {
        let (tx, rx) = bounded(0);
        thread::spawn(move || {
            let (notify, bed) = party();
            select_send(&tx, &notify, &bed, Some(1));
        });
        assert_eq!(rx.recv(), Ok(1));
    });
}

#[test]
fn a_send_case_whose_value_is_not_made_leaves_the_receiver_waiting_for_the_next() {
    loom::model(|| {
        let (tx, rx) = bounded(0);
        let sender = thread::spawn(move || {
            let (notify, bed) = party();
            select_send(&tx, &notify, &bed, None);
            select_send(&tx, &notify, &bed, Some(2));
        });
        let (notify, bed) = party();
        assert_eq!(select_recv(&rx, &notify, &bed), Ok(2));
        sender.join().unwrap();
    });
}

#[test]
fn a_party_at_two_rendezvous_is_taken_once() {
    loom::model(|| {
        let ((tx_a, rx_a), (tx_b, rx_b)) = (bounded::<u32>(0), bounded::<u32>(0));
        let a = thread::spawn(move || tx_a.try_send(1).is_ok());
        let b = thread::spawn(move || tx_b.try_send(2).is_ok());
        let (notify, _) = party();
        notify.open_ticket();
        notify.sleep();
        rx_a.before_sleep(&notify);
        rx_b.before_sleep(&notify);
        let (sent_a, sent_b) = (a.join().unwrap(), b.join().unwrap());
        assert!(!(sent_a && sent_b), "one sleep, one deal");
        notify.awake();
        assert_eq!((rx_a.after_sleep(&notify), rx_b.after_sleep(&notify)), (sent_a, sent_b));
        assert_eq!(rx_a.try_recv().is_ok(), sent_a);
        assert_eq!(rx_b.try_recv().is_ok(), sent_b);
    });
}

#[test]
fn a_bell_against_park_and_what_was_done_before_it_rang_is_seen() {
    loom::model(|| {
        let (notify, bed) = party();
        let bell = Arc::new(Bell::new(notify.clone(), TOKEN));
        let foreign = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let ringers: Vec<_> = (0..2)
            .map(|_| {
                let (bell, foreign) = (bell.clone(), foreign.clone());
                thread::spawn(move || {
                    foreign.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                })
            })
            .collect();
        let mut seen = 0;
        while seen < 2 {
            if bell.hear() {
                seen = foreign.load(Ordering::Relaxed);
                continue;
            }
            notify.sleep();
            bell.ask(Call::Wake);
            fence(Ordering::SeqCst);
            if !bell.is_ready() {
                bed.sleep();
            }
            notify.awake();
            bell.unask();
        }
        ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
    });
}

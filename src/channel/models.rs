//! The loom models: every interleaving of a few threads, up to a number of preemptions.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --lib models`. A lost wake-up shows as a deadlock, which loom reports; a slot that two
//! threads touch at once as a causality violation. The reactor is its protocol here (`Sleeper`): steps 1 to 5 of
//! `reactor/notify.rs` in the order in which `Core::block`, `Core::collect` and `Embedded::turn` take them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::{Receiver, Sender, Target, TryRecvError, bounded};
use crate::driver::Wake;
use crate::reactor::notify::{Call, Notify, Probe};
use crate::sync::{Ordering, fence};

const TOKEN: u64 = 7;

/// A driver that can only sleep and be woken.
struct Bed {
    woken: Mutex<bool>,
    changed: Condvar,
    wakes: Count,
}

impl Wake for Bed {
    fn wake(&self) -> std::io::Result<()> {
        self.wakes.fetch_add(1, Relaxed);
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
        Ok(())
    }
}

impl Bed {
    fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

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
        let bed = Arc::new(Bed { woken: Mutex::new(false), changed: Condvar::new(), wakes: Count::new(0) });
        let notify = Arc::new(Notify::new(bed.clone()));
        receiver.state().set_target(Target::Reactor { notify: notify.clone(), token: TOKEN });
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
            if !self.receiver.is_ready() {
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
        !marks.is_empty() && (self.receiver.is_ready() || self.receiver.state().arm(Call::Mark))
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

//! The loom models of ends that give up, move, or go while the other end is late.
//! `models.rs` says how to run the models.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::thread;

use super::models::{Sleeper, spawn_senders};
use super::registry::{Entry, Once, Registry};
use super::{Nap, Receiver, TryRecvError, bounded};
use crate::sync::{AtomicBool, Born, Ordering};
use crate::wake::models::{Bed, Joined, models, party, spawn};
use crate::wake::{Probe, Request, Wake};

/// A timer of the sleeping party. It fires at any time.
fn timer(bed: &Arc<Bed>) -> Joined<()> {
    let bed = bed.clone();
    spawn(move || bed.wake().unwrap())
}

fn a_sleep_that_ends_early(step: fn(&mut Sleeper<u32>) -> Result<u32, TryRecvError>) {
    loom::model(move || {
        let (tx, rx) = bounded(1);
        let mut sleeper = Sleeper::new(rx);
        let _kept = tx.clone();
        let _timer = timer(&sleeper.bed);
        let _senders = spawn_senders(tx, &[&[1]]);
        assert_eq!(step(&mut sleeper), Ok(1));
    });
}

#[test]
fn a_timer_ends_a_select_beside_a_send() {
    a_sleep_that_ends_early(Sleeper::select);
}

#[test]
fn a_timer_ends_a_wait_beside_a_send() {
    a_sleep_that_ends_early(Sleeper::wait);
}

/// A `recv_timeout` whose time is over after one sleep.
fn give_up(rx: &Receiver<u32>) -> Option<u32> {
    rx.try_recv().ok().or_else(|| {
        rx.sleep(rx.state(), Some(Instant::now()), &mut Nap::default());
        rx.try_recv().ok()
    })
}

models! {
    fn a_receiver_gives_up_while_a_sender_commits() {
        let (tx, rx) = bounded(2);
        let _kept = tx.clone();
        // Not joined: loom takes a late `unpark` for the end of a `join`.
        thread::spawn(move || (1..=2).for_each(|value| tx.try_send(value).unwrap()));
        let mut received: Vec<u32> = give_up(&rx).into_iter().collect();
        // The request of the sleep that was given up belongs to no sleep any more.
        while received.len() < 2 {
            received.push(rx.recv().unwrap());
        }
        assert_eq!(received, [1, 2]);
    }
}

/// A sender gets a wake-up that it does not need, or leaves its registration behind. The message is
/// received before the sender leaves, or after that.
fn a_wake_up_that_another_sender_needs(is_received_early: bool) {
    loom::model(move || {
        let (tx, rx) = bounded(1);
        let receive = || assert_eq!(rx.try_recv(), Ok(1));
        let mut other = None;
        let mut attempt = || {
            tx.try_send(1).unwrap();
            let tx = tx.clone();
            other = Some(thread::spawn(move || tx.send(2).unwrap()));
            thread::yield_now();
            if is_received_early {
                // The receive wakes the waiter that came first: this thread.
                receive();
            }
            Ok::<_, ()>(true)
        };
        assert_eq!(tx.tail().state().wait_for_room(None, &mut attempt), Ok(true));
        if !is_received_early {
            receive();
        }
        other.unwrap().join().unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
    });
}

/// Mutation: `wait_for_room` keeps a wake-up that it does not need.
#[test]
fn an_unused_wake_up_is_passed_on() {
    a_wake_up_that_another_sender_needs(true);
}

/// Mutation: `wait_for_room` passes no wake-up on where the list is in use.
#[test]
fn a_registration_that_stays_costs_no_wake_up() {
    a_wake_up_that_another_sender_needs(false);
}

models! {
    /// Mutation: a sender that gives up leaves its registration, and the wake-up goes there.
    fn a_sender_that_gives_up_keeps_no_wake_up() {
        let (tx, rx) = bounded(1);
        tx.try_send(0).unwrap();
        let impatient = tx.clone();
        let impatient = thread::spawn(move || {
            let mut attempt = || Ok::<_, ()>(impatient.try_send(1).is_ok());
            let tail = impatient.tail().state();
            // The sleep ends at once, as all sleeps with a deadline do here.
            tail.wait_for_room(Some(Instant::now()), &mut attempt) == Ok(true)
                || attempt() == Ok(true)
        });
        let _patient = spawn(move || tx.send(2).unwrap());
        assert_eq!(rx.try_recv(), Ok(0));
        if impatient.join().unwrap() {
            while rx.try_recv().is_err() {
                thread::yield_now();
            }
        }
        // The slot is free again, or the patient sender has it. In both cases that thread ends.
    }

    fn a_receiver_that_is_out_of_time_misses_no_finished_send() {
        let (tx, rx) = bounded(1);
        let _kept = tx.clone();
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let sender = thread::spawn(move || {
            tx.try_send(1).unwrap();
            told.store(true, Ordering::Release);
        });
        let was_sent = done.load(Ordering::Acquire);
        let received = rx.recv_timeout(Duration::ZERO);
        assert!(!was_sent || received == Ok(1));
        sender.join().unwrap();
        assert!(received.or_else(|_| rx.try_recv()) == Ok(1));
    }

    /// From one reactor to another one and to a third, while a sender answers the first.
    fn a_receiver_that_moves_twice_against_a_late_sender() {
        let (tx, rx) = bounded(1);
        let kept = tx.clone();
        let first = Sleeper::new(rx);
        first.receivers[0].state().ask_and_look(Request::Mark);
        let senders = spawn_senders(tx, &[&[1]]);
        let rx = first.receivers.into_iter().next().unwrap();
        rx.set_target(None);
        let second = Sleeper::new(rx);
        second.receivers[0].state().ask_and_look(Request::Wake);
        let rx = second.receivers.into_iter().next().unwrap();
        rx.set_target(None);
        let mut third = Sleeper::new(rx);
        assert_eq!(third.wait(), Ok(1));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        drop(kept);
    }

    fn a_receiver_that_moves_between_reactors_takes_all() {
        let (tx, rx) = bounded(2);
        let kept = tx.clone();
        let mut first = Sleeper::new(rx);
        let senders = spawn_senders(tx, &[&[1, 2]]);
        assert_eq!(first.wait(), Ok(1));
        let rx = first.receivers.into_iter().next().unwrap();
        rx.set_target(None);
        let mut second = Sleeper::new(rx);
        assert_eq!(second.wait(), Ok(2));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        drop(kept);
    }

    /// Mutation: a head with a detour is stored with `Relaxed`. The sender that reads it writes a
    /// slot whose message may not be out yet.
    fn a_sender_that_sees_a_detour_waits_for_the_slot() {
        let (tx, rx) = bounded(4);
        tx.try_send(0).unwrap();
        let place = tx.tail().begin();
        tx.try_send(2).unwrap();
        // The last place is the slot that 0 was in.
        let sender = thread::spawn(move || (3..=4).filter(|&n| tx.try_send(n).is_ok()).count());
        assert_eq!([rx.try_recv(), rx.try_recv()], [Ok(0), Ok(2)]);
        let sent = sender.join().unwrap();
        place.finish(1);
        let rest: Vec<u32> = std::iter::from_fn(|| rx.try_recv().ok()).collect();
        assert_eq!(rest, [1, 3, 4][..1 + sent]);
    }

    /// The send that was accepted last, before the last sender went, is received.
    fn the_end_comes_after_the_last_message() {
        let (tx, rx) = bounded(1);
        let other = tx.clone();
        let sender = thread::spawn(move || tx.try_send(1).unwrap());
        let dropper = thread::spawn(move || drop(other));
        let mut sleeper = Sleeper::new(rx);
        assert_eq!(sleeper.select(), Ok(1));
        assert_eq!(sleeper.select(), Err(TryRecvError::Disconnected));
        sender.join().unwrap();
        dropper.join().unwrap();
    }

    fn a_value_that_is_set_once_is_whole() {
        let once = Arc::new(Once::new(None));
        let there = [(); 2].map(|()| {
            let once = once.clone();
            thread::spawn(move || once.set(Arc::new(Born::new())))
        });
        if let Some(value) = once.get() {
            value.used();
        }
        let won = there.map(|there| there.join().unwrap());
        assert!(won[0] != won[1]);
    }

    fn the_entries_of_a_closed_registry_are_whole() {
        let registry = Arc::new(Registry::new());
        let there = [(); 2].map(|()| {
            let registry = registry.clone();
            thread::spawn(move || registry.add(Entry::new(Born::new())))
        });
        let found = registry.close();
        found.iter().for_each(|entry| entry.value().used());
        let added = there.map(|there| there.join().unwrap());
        assert_eq!(found.len(), added.into_iter().filter(|&added| added).count());
    }

    /// A sleeping send case is told that the receiver is gone.
    fn a_send_case_that_sleeps_against_the_receivers_drop() {
        let (tx, rx) = bounded(1);
        tx.try_send(1).unwrap();
        let _sender = spawn(move || {
            let (notify, bed) = party();
            while !tx.is_disconnected() {
                notify.sleep();
                let (waiting, sure) = tx.before_sleep(&notify);
                assert!(sure);
                if !tx.is_ready(&notify, waiting) {
                    bed.sleep();
                }
                notify.awake();
                tx.after_sleep(&notify, waiting);
            }
        });
        drop(rx);
    }
}

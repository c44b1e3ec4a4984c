//! The loom models of the fences' modes. `models.rs` says how to run them.
//!
//! The other models have full fences on both sides. Here the frequent side has only what it has in
//! the build: a compiler fence with membarrier, or nothing where membarrier is missing or refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::thread;

use super::models::{Counted, Sleeper, spawn_senders};
use super::rendezvous_models::Loop;
use super::{TryRecvError, bounded, unbounded};
use crate::sync::{AtomicBool, Fences, Ordering, with_fences};

/// One test of a model for each kind of fences.
macro_rules! with_each_kind_of_fences {
    ($($name:ident: $model:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn asymmetric() {
                with_fences(Fences::Asymmetric, || ($model)(Fences::Asymmetric));
            }

            #[test]
            fn symmetric() {
                with_fences(Fences::Symmetric, || ($model)(Fences::Symmetric));
            }

            #[test]
            fn refused() {
                with_fences(Fences::Refused, || ($model)(Fences::Refused));
            }
        }
    )*};
}

with_each_kind_of_fences! {
    a_blocked_sender_against_recv: blocked_sender;
    a_send_case_against_recv: send_case;
    a_select_against_a_send: |_| sleep_against_send(Sleeper::select);
    a_wait_against_a_send: |_| sleep_against_send(Sleeper::wait);
    a_bare_recv_against_a_send: bare_recv;
    a_send_against_the_receivers_drop: drop_of_the_receiver;
}

/// Mutations: no `light_fence` after the head was moved; no `heavy_fence` in `wait_for_room`.
fn blocked_sender(_: Fences) {
    let (tx, rx) = bounded(1);
    tx.try_send(1).unwrap();
    let sender = thread::spawn(move || tx.send(2).unwrap());
    assert_eq!(rx.try_recv(), Ok(1));
    sender.join().unwrap();
    assert_eq!(rx.try_recv(), Ok(2));
}

/// Mutation: no `heavy_fence` in `ask_for_room`.
fn send_case(_: Fences) {
    let (tx, rx) = bounded(1);
    tx.try_send(1).unwrap();
    let sender = thread::spawn(move || Loop::new().send(&[&tx], 2));
    assert_eq!(rx.try_recv(), Ok(1));
    sender.join().unwrap();
    assert_eq!(rx.try_recv(), Ok(2));
}

/// Mutations: no `claim_fence`; no second look after `settle_fence`; no nap where that refuses.
fn sleep_against_send(step: fn(&mut Sleeper<u32>) -> Result<u32, TryRecvError>) {
    let (tx, rx) = unbounded();
    let mut sleeper = Sleeper::new(rx);
    let _kept = tx.clone();
    let _senders = spawn_senders(tx, &[&[1, 2]]);
    assert_eq!([step(&mut sleeper), step(&mut sleeper)], [Ok(1), Ok(2)]);
}

fn bare_recv(_: Fences) {
    let (tx, rx) = bounded(1);
    let _kept = tx.clone();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = done.clone();
    thread::spawn(move || {
        tx.try_send(1).unwrap();
        drop(tx);
        done.store(true, Ordering::Release);
    });
    assert_eq!(rx.recv(), Ok(1));
    // Not joined: loom takes a late `unpark` for the end of a `join`.
    while !is_done.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

/// Mutation: no `settle_fence` in the drop of the receiver.
fn drop_of_the_receiver(fences: Fences) {
    let drops = Arc::new(Count::new(0));
    let (tx, rx) = bounded(1);
    let kept = tx.clone();
    let value = Counted(drops.clone());
    let sender = thread::spawn(move || drop(tx.try_send(value)));
    drop(rx);
    sender.join().unwrap();
    assert!(fences != Fences::Asymmetric || drops.load(Relaxed) == 1);
    // Without membarrier the drop of the last end does the rest.
    drop(kept);
    assert_eq!(drops.load(Relaxed), 1);
}

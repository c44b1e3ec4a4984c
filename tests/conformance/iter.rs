//! Iterators over received messages: crossbeam-channel's tests/iter.rs.

use pollmux::channel;
use support::thread;

use crate::common::reactor;

/// crossbeam-channel tests/iter.rs: nested_recv_iter
#[test]
fn iter_ends_when_every_sender_is_dropped() {
    let (tx, rx) = channel::unbounded();
    let (total_tx, total_rx) = channel::unbounded();
    let receiver = thread::spawn(move || total_tx.send(rx.iter().sum::<i32>()).unwrap());
    for n in [3, 1, 2] {
        tx.send(n).unwrap();
    }
    assert!(total_rx.try_recv().is_err());
    drop(tx);
    assert_eq!(total_rx.recv(), Ok(6));
    receiver.join().unwrap();
}

/// crossbeam-channel tests/iter.rs: recv_iter_break
#[test]
fn leaving_the_loop_keeps_the_remaining_messages() {
    let (tx, rx) = channel::unbounded();
    (0..10).for_each(|n| tx.send(n).unwrap());
    for n in &rx {
        if n == 3 {
            break;
        }
    }
    assert_eq!(rx.len(), 6);
    assert_eq!(rx.recv(), Ok(4));
}

/// crossbeam-channel tests/iter.rs: recv_try_iter
#[test]
fn try_iter_ends_when_empty_and_can_resume() {
    let (tx, rx) = channel::unbounded();
    let mut iter = rx.try_iter();
    assert_eq!(iter.next(), None);
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert_eq!((iter.next(), iter.next(), iter.next()), (Some(1), Some(2), None));
    tx.send(3).unwrap();
    drop(tx);
    assert_eq!((iter.next(), iter.next()), (Some(3), None));
}

/// crossbeam-channel tests/iter.rs: recv_into_iter_owned
#[test]
fn into_iter_owns_the_receiver() {
    let (tx, rx) = channel::unbounded();
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    let mut iter = rx.into_iter();
    assert_eq!((iter.next(), iter.next()), (Some(1), Some(2)));
    assert!(!tx.is_disconnected());
    drop(iter);
    assert!(tx.is_disconnected());
}

/// crossbeam-channel tests/iter.rs: recv_into_iter_borrowed
#[test]
fn into_iter_of_a_reference_leaves_the_receiver() {
    let (tx, rx) = channel::unbounded();
    tx.send(1).unwrap();
    let mut iter = (&rx).into_iter();
    assert_eq!(iter.next(), Some(1));
    tx.send(2).unwrap();
    assert_eq!(rx.recv(), Ok(2));
    drop(tx);
    assert_eq!((&rx).into_iter().next(), None);
}

/// crossbeam-channel tests/iter.rs: recv_try_iter, for a registered receiver and with a limit
#[test]
fn drain_takes_at_most_its_limit() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(8).unwrap();
    (0..8).for_each(|n| tx.send(n).unwrap());
    assert!(inbox.drain(3).eq(0..3));
    assert!(inbox.drain(100).eq(3..8));
    assert_eq!(inbox.try_iter().next(), None);
}

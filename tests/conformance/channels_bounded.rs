//! Channels with a limit: crossbeam-channel's tests/array.rs, and what Go says of buffered
//! channels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pollmux::channel::{self, SendTimeoutError, TryRecvError, TrySendError};
use pollmux::select;
use support::thread;

use crate::common::{ms, next, reactor};
use crate::flavors::{buffered, every_kind, limited};
use crate::support::aside;

every_kind!(Bounded);
buffered!(Bounded);
limited!(Bounded);

/// crossbeam-channel tests/array.rs: smoke
#[test]
fn messages_come_out_in_the_order_they_went_in() {
    let (tx, rx) = channel::bounded(3);
    // Several laps, and each starting point in the ring.
    for lap in 0..10 {
        for n in 0..3 {
            tx.send((lap, n)).unwrap();
        }
        for n in 0..3 {
            assert_eq!(rx.recv(), Ok((lap, n)));
        }
        tx.send((lap, 9)).unwrap();
        assert_eq!(rx.try_recv(), Ok((lap, 9)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }
}

/// crossbeam-channel tests/array.rs: capacity
#[test]
fn the_capacity_is_the_one_asked_for() {
    // Also where the ring behind it is larger.
    for capacity in 0..10 {
        let (tx, rx) = channel::bounded::<()>(capacity);
        assert_eq!((tx.capacity(), rx.capacity()), (Some(capacity), Some(capacity)));
        assert_eq!((0..20).filter(|_| tx.try_send(()).is_ok()).count(), capacity);
    }
}

/// crossbeam-channel tests/array.rs: len_empty_full
#[test]
fn both_ends_know_how_full_the_channel_is() {
    let (tx, rx) = channel::bounded(2);
    let look = || {
        assert_eq!(
            (tx.len(), tx.is_empty(), tx.is_full()),
            (rx.len(), rx.is_empty(), rx.is_full())
        );
        (rx.len(), rx.is_empty(), rx.is_full())
    };
    assert_eq!(look(), (0, true, false));
    tx.send(()).unwrap();
    assert_eq!(look(), (1, false, false));
    tx.send(()).unwrap();
    assert_eq!(look(), (2, false, true));
    rx.recv().unwrap();
    assert_eq!(look(), (1, false, false));
}

/// crossbeam-channel tests/array.rs: try_send
#[test]
fn try_send_tells_full_from_disconnected_and_gives_the_value_back() {
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.try_send(1), Ok(()));
    assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(rx.try_recv(), Ok(1));
    assert_eq!(tx.try_send(3), Ok(()));
    drop(rx);
    assert_eq!(tx.try_send(4), Err(TrySendError::Disconnected(4)));
}

/// crossbeam-channel tests/array.rs: send
#[test]
fn send_waits_for_room() {
    let (tx, rx) = channel::bounded(1);
    tx.send(1).unwrap();
    let received = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            tx.send(2).unwrap();
            assert!(received.load(Ordering::SeqCst), "sent while the channel was full");
        });
        thread::sleep(ms(30));
        received.store(true, Ordering::SeqCst);
        assert_eq!(rx.recv(), Ok(1));
        assert_eq!(rx.recv(), Ok(2));
    });
}

/// crossbeam-channel tests/array.rs: send_timeout_nonfull_expired
#[test]
fn a_send_without_time_still_uses_the_room_there_is() {
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.send_timeout(1, Duration::ZERO), Ok(()));
    assert_eq!(tx.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
    assert_eq!(rx.try_recv(), Ok(1));
}

/// crossbeam-channel tests/array.rs: recv_in_send
#[test]
fn the_value_of_a_send_case_may_receive_from_that_channel() {
    let reactor = reactor();
    let (tx, rx) = channel::bounded(2);
    tx.send(1).unwrap();
    let outbox = reactor.register(tx).unwrap();
    select! { reactor;
        send(outbox, rx.recv().unwrap() + 1) -> sent => assert!(sent.is_ok()),
    }
    assert_eq!(rx.try_recv(), Ok(2));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

/// crossbeam-channel tests/array.rs: panic_on_drop
#[test]
fn a_message_that_panics_when_dropped_is_not_dropped_again() {
    struct Bomb<'a>(&'a AtomicBool);
    impl Drop for Bomb<'_> {
        fn drop(&mut self) {
            assert!(!self.0.swap(true, Ordering::SeqCst), "dropped twice");
            panic!("first drop");
        }
    }
    let dropped = AtomicBool::new(false);
    let (tx, rx) = channel::bounded(2);
    assert!(tx.send(Bomb(&dropped)).is_ok());
    let result = catch_unwind(AssertUnwindSafe(|| drop(rx)));
    assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"first drop"));
    // The channel is closed none the less, and its other end can go.
    assert!(tx.is_disconnected());
    drop(tx);
}

/// Go runtime/chan_test.go: TestChan, a full buffer with a sender waiting behind it
#[test]
fn a_sender_that_waits_comes_behind_what_is_in_the_buffer() {
    let (tx, rx) = channel::bounded(2);
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| tx.send(3).unwrap());
        thread::sleep(ms(20));
        assert_eq!([rx.recv(), rx.recv(), rx.recv()], [Ok(1), Ok(2), Ok(3)]);
    });
}

/// Go memory model: a send comes before its receive
#[test]
fn a_message_carries_what_was_written_before_it() {
    const COUNT: usize = 2_000;
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<Box<usize>>(1).unwrap();
    let _sender = aside(move || (0..COUNT).for_each(|n| tx.send(Box::new(n)).unwrap()));
    for n in 0..COUNT {
        assert_eq!(*next(&reactor, &inbox).unwrap(), n);
    }
}

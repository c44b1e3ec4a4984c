//! Bounded channels: crossbeam-channel's tests/array.rs, and Go's rules for buffered channels.

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
fn messages_are_received_in_order() {
    let (tx, rx) = channel::bounded(3);
    // Several laps, which start at each place in the ring.
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
fn the_capacity_is_exact() {
    // The ring may have more slots than the capacity.
    for capacity in 0..10 {
        let (tx, rx) = channel::bounded::<()>(capacity);
        assert_eq!((tx.capacity(), rx.capacity()), (Some(capacity), Some(capacity)));
        assert_eq!((0..20).filter(|_| tx.try_send(()).is_ok()).count(), capacity);
    }
}

/// crossbeam-channel tests/array.rs: len_empty_full
#[test]
fn both_ends_report_the_same_length() {
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
fn try_send_distinguishes_full_from_disconnected() {
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
fn send_blocks_until_there_is_room() {
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
fn a_send_with_zero_timeout_uses_free_room() {
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.send_timeout(1, Duration::ZERO), Ok(()));
    assert_eq!(tx.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
    assert_eq!(rx.try_recv(), Ok(1));
}

/// crossbeam-channel tests/array.rs: recv_in_send
#[test]
fn a_send_value_may_receive_from_its_channel() {
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
fn a_panicking_message_is_dropped_once() {
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
    // The channel is closed despite the panic, and its other end can be dropped.
    assert!(tx.is_disconnected());
    drop(tx);
}

/// Go runtime/chan_test.go: TestChan, a full buffer and a blocked sender
#[test]
fn a_blocked_send_comes_after_buffered_messages() {
    let (tx, rx) = channel::bounded(2);
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| tx.send(3).unwrap());
        thread::sleep(ms(20));
        assert_eq!([rx.recv(), rx.recv(), rx.recv()], [Ok(1), Ok(2), Ok(3)]);
    });
}

/// Go memory model: a send happens before its receive
#[test]
fn a_message_publishes_writes_made_before_its_send() {
    const COUNT: usize = 2_000;
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<Box<usize>>(1).unwrap();
    let _sender = aside(move || (0..COUNT).for_each(|n| tx.send(Box::new(n)).unwrap()));
    for n in 0..COUNT {
        assert_eq!(*next(&reactor, &inbox).unwrap(), n);
    }
}

//! Unbounded channels: crossbeam-channel's tests/list.rs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pollmux::channel::{self, RecvTimeoutError, TryRecvError};
use pollmux::select;

use crate::common::{Random, reactor};
use crate::flavors::{buffered, every_kind};

every_kind!(Unbounded);
buffered!(Unbounded);

/// crossbeam-channel tests/list.rs: smoke
#[test]
fn messages_keep_their_order_at_every_length() {
    let (tx, rx) = channel::unbounded();
    let (mut sent, mut received) = (0, 0);
    // The channel grows to several sizes and is drained in between.
    for size in [1, 7, 40, 3, 500, 2_000, 10] {
        for _ in 0..size {
            tx.send(sent).unwrap();
            sent += 1;
        }
        while sent - received > size / 3 {
            assert_eq!(rx.try_recv(), Ok(received));
            received += 1;
        }
    }
    while received < sent {
        assert_eq!(rx.recv(), Ok(received));
        received += 1;
    }
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

/// crossbeam-channel tests/list.rs: capacity
#[test]
fn an_unbounded_channel_has_no_capacity() {
    let (tx, rx) = channel::unbounded::<()>();
    assert_eq!((tx.capacity(), rx.capacity()), (None, None));
}

/// crossbeam-channel tests/list.rs: len_empty_full
#[test]
fn an_unbounded_channel_is_never_full() {
    let (tx, rx) = channel::unbounded();
    for n in 0..1_000 {
        assert_eq!((tx.len(), tx.is_empty(), tx.is_full()), (n, n == 0, false));
        assert_eq!((rx.len(), rx.is_empty(), rx.is_full()), (n, n == 0, false));
        tx.send(()).unwrap();
    }
    rx.drain(999).for_each(drop);
    assert_eq!((rx.len(), rx.is_empty()), (1, false));
    rx.recv().unwrap();
    assert_eq!((rx.len(), rx.is_empty()), (0, true));
}

/// crossbeam-channel tests/list.rs: recv_timeout_nonempty_expired
#[test]
fn a_recv_with_zero_timeout_takes_a_message() {
    let (tx, rx) = channel::unbounded();
    tx.send(7).unwrap();
    assert_eq!(rx.recv_timeout(Duration::ZERO), Ok(7));
    assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
}

/// crossbeam-channel tests/list.rs: try_send, send, send_timeout
#[test]
fn a_send_never_blocks_or_fails_as_full() {
    let (tx, rx) = channel::unbounded();
    for n in (0..3_000).step_by(3) {
        assert_eq!(tx.try_send(n), Ok(()));
        assert_eq!(tx.send(n + 1), Ok(()));
        assert_eq!(tx.send_timeout(n + 2, Duration::ZERO), Ok(()));
    }
    assert!(rx.try_iter().eq(0..3_000));
}

/// crossbeam-channel tests/list.rs: len
#[test]
fn len_is_sends_minus_receives() {
    let (tx, rx) = channel::unbounded();
    let (mut numbers, mut len) = (Random::new(1), 0);
    for _ in 0..2_000 {
        let n = numbers.below(8) as usize;
        if numbers.below(2) == 0 {
            (0..n).for_each(|_| tx.send(()).unwrap());
            len += n;
        } else {
            len -= rx.drain(n).count();
        }
        assert_eq!((tx.len(), rx.len()), (len, len));
    }
}

/// crossbeam-channel tests/list.rs: fairness_duplicates
#[test]
fn send_cases_on_one_outbox_are_chosen_equally() {
    const COUNT: usize = 5_000;
    let reactor = reactor();
    let (tx, rx) = channel::unbounded();
    let outbox = reactor.register(tx).unwrap();
    for _ in 0..COUNT {
        select! { reactor;
            send(outbox, 0) -> sent => sent.unwrap(),
            send(outbox, 1) -> sent => sent.unwrap(),
            send(outbox, 2) -> sent => sent.unwrap(),
            send(outbox, 3) -> sent => sent.unwrap(),
            send(outbox, 4) -> sent => sent.unwrap(),
        }
    }
    let mut hits = [0; 5];
    rx.try_iter().for_each(|n: usize| hits[n] += 1);
    assert_eq!(hits.iter().sum::<usize>(), COUNT);
    assert!(hits.iter().all(|&n| n >= COUNT / 10), "{hits:?}");
}

/// crossbeam-channel tests/list.rs: recv_in_send
#[test]
fn a_send_value_may_use_its_own_channel() {
    let reactor = reactor();
    let (tx, rx) = channel::unbounded();
    let outbox = reactor.register(tx).unwrap();
    select! { reactor;
        send(outbox, { outbox.try_send(1).unwrap(); rx.recv().unwrap() + 1 }) -> sent => {
            assert!(sent.is_ok());
        }
    }
    assert_eq!(rx.try_recv(), Ok(2));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
}

/// crossbeam-channel tests/list.rs: channel_through_channel
#[test]
fn a_sender_travels_through_its_own_channel() {
    struct Reply(channel::Sender<Reply>);
    let (tx, rx) = channel::unbounded();
    tx.send(Reply(tx.clone())).unwrap();
    drop(tx);
    for _ in 0..1_000 {
        let Reply(tx) = rx.recv().unwrap();
        // The only sender leaves the channel and enters it again.
        assert!(!rx.is_disconnected());
        tx.send(Reply(tx.clone())).unwrap();
    }
    drop(rx.recv());
    assert_eq!(rx.try_recv().err(), Some(TryRecvError::Disconnected));
}

/// crossbeam-channel tests/list.rs: stack_overflow
#[test]
fn large_messages_are_not_stored_on_the_stack() {
    // 100 messages need 2 MiB of storage. A debug build copies each message through several frames.
    const LARGE: usize = 16 << 10;
    let small_stack = thread::Builder::new().stack_size(1 << 20);
    let thread = small_stack.spawn(|| {
        let (tx, rx) = channel::unbounded::<[u8; LARGE]>();
        for n in 0..100 {
            tx.send([n; LARGE]).unwrap();
        }
        for n in 0..100 {
            assert_eq!(rx.recv().unwrap()[LARGE - 1], n);
        }
    });
    thread.unwrap().join().unwrap();
}

/// Go runtime/chan_test.go: TestSelfSelect, one thread both sends to and receives from a channel
#[test]
fn one_select_may_use_both_ends() {
    const COUNT: usize = 1_000;
    let reactor = reactor();
    let (tx, rx) = channel::unbounded();
    let (outbox, inbox) = (reactor.register(tx).unwrap(), reactor.register(rx).unwrap());
    let (mut sent, mut received) = (0, 0);
    while received < COUNT {
        let more = (sent < COUNT).then_some(&outbox);
        select! { reactor;
            send(more, sent) -> result => { result.unwrap(); sent += 1; }
            recv(inbox) -> n => { assert_eq!(n, Ok(received)); received += 1; }
        }
    }
    assert_eq!(sent, COUNT);
}

/// crossbeam-channel src/flavors/list.rs: discard_all_messages, with concurrent senders
#[test]
fn concurrent_senders_notice_a_dropped_receiver() {
    let (tx, rx) = channel::unbounded();
    let began = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (tx, began) = (tx.clone(), &began);
            scope.spawn(move || {
                while tx.send(()).is_ok() {
                    began.store(true, Ordering::SeqCst);
                }
            });
        }
        while !began.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        rx.recv().unwrap();
        drop(rx);
    });
    assert!(tx.is_disconnected());
    assert_eq!(tx.len(), 0);
}

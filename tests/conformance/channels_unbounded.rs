//! Channels without a limit: crossbeam-channel's tests/list.rs.

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
fn the_order_is_kept_however_much_is_in_the_channel() {
    let (tx, rx) = channel::unbounded();
    let (mut sent, mut received) = (0, 0);
    // Grows through several sizes, and is emptied in between.
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
fn there_is_no_capacity() {
    let (tx, rx) = channel::unbounded::<()>();
    assert_eq!((tx.capacity(), rx.capacity()), (None, None));
}

/// crossbeam-channel tests/list.rs: len_empty_full
#[test]
fn it_is_empty_or_not_and_never_full() {
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
fn a_recv_without_time_still_takes_what_is_there() {
    let (tx, rx) = channel::unbounded();
    tx.send(7).unwrap();
    assert_eq!(rx.recv_timeout(Duration::ZERO), Ok(7));
    assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
}

/// crossbeam-channel tests/list.rs: try_send, send, send_timeout
#[test]
fn no_kind_of_send_ever_waits_or_finds_the_channel_full() {
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
fn the_length_is_what_was_sent_less_what_was_received() {
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
fn send_cases_on_the_same_outbox_are_chosen_equally() {
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
fn the_value_of_a_send_case_may_use_the_channel_it_is_sent_to() {
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
        // The only sender there is comes out of the channel and goes in again.
        assert!(!rx.is_disconnected());
        tx.send(Reply(tx.clone())).unwrap();
    }
    drop(rx.recv());
    assert_eq!(rx.try_recv().err(), Some(TryRecvError::Disconnected));
}

/// crossbeam-channel tests/list.rs: stack_overflow
#[test]
fn storage_for_large_messages_does_not_go_through_the_stack() {
    // 100 of them make a storage of 2 MiB; the message itself is copied through several frames in a
    // debug build.
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

/// Go runtime/chan_test.go: TestSelfSelect, a channel that one party both sends to and receives
/// from
#[test]
fn one_select_may_send_to_and_receive_from_the_same_channel() {
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

/// crossbeam-channel src/flavors/list.rs: discard_all_messages, with senders under way
#[test]
fn senders_in_full_flight_find_out_that_the_receiver_went() {
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

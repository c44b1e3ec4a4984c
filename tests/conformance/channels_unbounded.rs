//! Channels without a limit: crossbeam-channel's tests/list.rs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::channel::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use pollmux::select;

use crate::common::{Drops, LONG, Numbers, ms, reactor};

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

/// crossbeam-channel tests/list.rs: try_recv
#[test]
fn try_recv_tells_empty_from_disconnected() {
    let (tx, rx) = channel::unbounded();
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    thread::spawn(move || tx.send(7).unwrap()).join().unwrap();
    assert_eq!(rx.try_recv(), Ok(7));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

/// crossbeam-channel tests/list.rs: recv
#[test]
fn recv_waits_for_a_message_and_then_for_the_end() {
    let (tx, rx) = channel::unbounded();
    let sender = thread::spawn(move || {
        thread::sleep(ms(20));
        tx.send(7).unwrap();
        thread::sleep(ms(20));
    });
    assert_eq!(rx.recv(), Ok(7));
    assert_eq!(rx.recv(), Err(RecvError));
    sender.join().unwrap();
}

/// crossbeam-channel tests/list.rs: recv_timeout
#[test]
fn recv_timeout_waits_its_time_and_no_longer_than_for_a_message() {
    let (tx, rx) = channel::unbounded();
    let start = Instant::now();
    assert_eq!(rx.recv_timeout(ms(20)), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= ms(20));
    let sender = thread::spawn(move || {
        thread::sleep(ms(20));
        tx.send(7).unwrap();
    });
    assert_eq!(rx.recv_timeout(LONG), Ok(7));
    assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    assert!(start.elapsed() < LONG);
    sender.join().unwrap();
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

/// crossbeam-channel tests/list.rs: send_after_disconnect
#[test]
fn every_send_after_the_receiver_gives_its_value_back() {
    let (tx, rx) = channel::unbounded();
    tx.send(1).unwrap();
    drop(rx);
    assert!(tx.is_disconnected());
    assert_eq!(tx.send(2), Err(SendError(2)));
    assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
    assert_eq!(tx.send_timeout(4, ms(1)), Err(SendTimeoutError::Disconnected(4)));
}

/// crossbeam-channel tests/list.rs: recv_after_disconnect
#[test]
fn what_was_sent_before_the_last_sender_went_is_received_before_the_error() {
    const COUNT: usize = 200;
    let (tx, rx) = channel::unbounded();
    (0..COUNT).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    assert!(rx.is_disconnected());
    (0..COUNT).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
    assert_eq!(rx.recv(), Err(RecvError));
    assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

/// crossbeam-channel tests/list.rs: len
#[test]
fn the_length_is_what_was_sent_less_what_was_received() {
    let (tx, rx) = channel::unbounded();
    let (mut numbers, mut len) = (Numbers::new(), 0);
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

/// crossbeam-channel tests/list.rs: disconnect_wakes_receiver
#[test]
fn a_receiver_that_waits_hears_of_the_last_senders_end() {
    let (tx, rx) = channel::unbounded::<()>();
    let receiver = thread::spawn(move || assert_eq!(rx.recv(), Err(RecvError)));
    thread::sleep(ms(30));
    drop(tx);
    receiver.join().unwrap();
}

/// crossbeam-channel tests/list.rs: spsc
#[test]
fn a_pair_of_threads_keeps_the_order() {
    const COUNT: usize = 50_000;
    let (tx, rx) = channel::unbounded();
    let receiver = thread::spawn(move || {
        (0..COUNT).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
        assert_eq!(rx.recv(), Err(RecvError));
    });
    (0..COUNT).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    receiver.join().unwrap();
}

/// crossbeam-channel tests/list.rs: mpmc
#[test]
fn of_many_senders_everything_arrives_once_and_in_each_ones_order() {
    const COUNT: usize = 10_000;
    const SENDERS: usize = 4;
    let (tx, rx) = channel::unbounded();
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let tx = tx.clone();
            scope.spawn(move || (0..COUNT).for_each(|n| tx.send((sender, n)).unwrap()));
        }
        drop(tx);
        let mut seen = [0; SENDERS];
        for (sender, n) in &rx {
            assert_eq!(n, seen[sender]);
            seen[sender] += 1;
        }
        assert_eq!(seen, [COUNT; SENDERS]);
    });
}

/// crossbeam-channel tests/list.rs: stress_oneshot
#[test]
fn a_channel_for_one_message_works_every_time() {
    for n in 0..500 {
        let (tx, rx) = channel::unbounded();
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(rx.recv(), Ok(n)));
            scope.spawn(move || tx.send(n).unwrap());
        });
    }
}

/// crossbeam-channel tests/list.rs: stress_iter
#[test]
fn requests_and_responses_between_two_channels_do_not_get_stuck() {
    const COUNT: usize = 1_000;
    let (request_tx, request_rx) = channel::unbounded();
    let (response_tx, response_rx) = channel::unbounded();
    let worker = thread::spawn(move || {
        let mut count = 0;
        while count < COUNT {
            count += request_rx.try_iter().sum::<usize>();
            // A worker that is ahead must not fill the memory.
            if response_tx.len() < 100 {
                let _ = response_tx.send(count);
            }
        }
    });
    for _ in response_rx.iter().take(COUNT) {
        request_tx.send(1).unwrap();
    }
    worker.join().unwrap();
}

/// crossbeam-channel tests/list.rs: stress_timeout_two_threads
#[test]
fn nothing_is_lost_or_doubled_between_timeouts() {
    const COUNT: usize = 50;
    let (tx, rx) = channel::unbounded();
    let sender = thread::spawn(move || {
        for n in 0..COUNT {
            if n % 2 == 0 {
                thread::sleep(ms(3));
            }
            tx.send(n).unwrap();
        }
    });
    for n in 0..COUNT {
        loop {
            match rx.recv_timeout(ms(1)) {
                Ok(got) => break assert_eq!(got, n),
                Err(error) => assert_eq!(error, RecvTimeoutError::Timeout),
            }
        }
    }
    sender.join().unwrap();
}

/// crossbeam-channel tests/list.rs: drops
#[test]
fn every_message_is_dropped_once_received_or_not() {
    let mut numbers = Numbers::new();
    for _ in 0..30 {
        let steps = numbers.below(1_000) as usize;
        let left = numbers.below(1_000) as usize;
        let drops = Drops::new();
        let (tx, rx) = channel::unbounded();
        thread::scope(|scope| {
            scope.spawn(|| (0..steps + left).for_each(|_| tx.send(drops.message()).unwrap()));
            (0..steps).for_each(|_| drop(rx.recv().unwrap()));
        });
        assert_eq!(drops.count(), steps);
        drop(rx);
        assert_eq!(drops.count(), steps + left);
    }
}

/// crossbeam-channel tests/list.rs: linearizable
#[test]
fn what_a_send_has_published_is_there_for_a_try_recv() {
    const COUNT: usize = 3_000;
    const SENDERS: usize = 4;
    let (tx, rx) = channel::unbounded();
    let (done_tx, done_rx) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            let (tx, done_tx) = (tx.clone(), done_tx.clone());
            scope.spawn(move || {
                for n in 0..COUNT {
                    tx.send(n).unwrap();
                    done_tx.send(()).unwrap();
                }
            });
        }
        drop(done_tx);
        for () in done_rx {
            rx.try_recv().unwrap();
        }
    });
}

/// crossbeam-channel tests/list.rs: fairness
#[test]
fn two_channels_that_are_not_empty_are_received_from_equally() {
    const COUNT: usize = 4_000;
    let reactor = reactor();
    let (a_tx, a) = channel::unbounded();
    let (b_tx, b) = channel::unbounded();
    let (a, b) = (reactor.register(a).unwrap(), reactor.register(b).unwrap());
    for _ in 0..COUNT {
        a_tx.send(()).unwrap();
        b_tx.send(()).unwrap();
    }
    let mut hits = [0; 2];
    for _ in 0..COUNT {
        select! { reactor;
            recv(a) -> _ => hits[0] += 1,
            recv(b) -> _ => hits[1] += 1,
        }
    }
    assert!(hits.iter().all(|&n| n >= COUNT / 4), "{hits:?}");
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

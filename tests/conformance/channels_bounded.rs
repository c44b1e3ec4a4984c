//! Channels with a limit: crossbeam-channel's tests/array.rs, and what Go says of buffered
//! channels.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::channel::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use pollmux::select;

use crate::common::{Drops, LONG, Numbers, ms, next, reactor};

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
    for capacity in 1..10 {
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

/// crossbeam-channel tests/array.rs: try_recv
#[test]
fn try_recv_tells_empty_from_disconnected() {
    let (tx, rx) = channel::bounded(100);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    let sender = thread::spawn(move || tx.send(7).unwrap());
    sender.join().unwrap();
    assert_eq!(rx.try_recv(), Ok(7));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

/// crossbeam-channel tests/array.rs: recv
#[test]
fn recv_waits_for_a_message_and_then_for_the_end() {
    let (tx, rx) = channel::bounded(100);
    let sender = thread::spawn(move || {
        thread::sleep(ms(30));
        tx.send(7).unwrap();
        thread::sleep(ms(30));
        tx.send(8).unwrap();
        thread::sleep(ms(30));
    });
    assert_eq!(rx.recv(), Ok(7));
    assert_eq!(rx.recv(), Ok(8));
    assert_eq!(rx.recv(), Err(RecvError));
    assert_eq!(rx.recv(), Err(RecvError));
    sender.join().unwrap();
}

/// crossbeam-channel tests/array.rs: recv_timeout
#[test]
fn recv_timeout_waits_its_time_and_no_longer_than_for_a_message() {
    let (tx, rx) = channel::bounded(100);
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

/// crossbeam-channel tests/array.rs: send_timeout
#[test]
fn send_timeout_waits_its_time_and_no_longer_than_for_room() {
    let (tx, rx) = channel::bounded(1);
    tx.send(1).unwrap();
    let start = Instant::now();
    assert_eq!(tx.send_timeout(2, ms(20)), Err(SendTimeoutError::Timeout(2)));
    assert!(start.elapsed() >= ms(20));
    let receiver = thread::spawn(move || {
        thread::sleep(ms(20));
        assert_eq!(rx.recv(), Ok(1));
        assert_eq!(rx.recv(), Ok(3));
    });
    assert_eq!(tx.send_timeout(3, LONG), Ok(()));
    receiver.join().unwrap();
    assert_eq!(tx.send_timeout(4, LONG), Err(SendTimeoutError::Disconnected(4)));
    assert!(start.elapsed() < LONG);
}

/// crossbeam-channel tests/array.rs: send_timeout_nonfull_expired
#[test]
fn a_send_without_time_still_uses_the_room_there_is() {
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.send_timeout(1, Duration::ZERO), Ok(()));
    assert_eq!(tx.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::Timeout(2)));
    assert_eq!(rx.try_recv(), Ok(1));
}

/// crossbeam-channel tests/array.rs: send_after_disconnect
#[test]
fn every_send_after_the_receiver_gives_its_value_back() {
    let (tx, rx) = channel::bounded(100);
    tx.send(1).unwrap();
    drop(rx);
    assert!(tx.is_disconnected());
    assert_eq!(tx.send(2), Err(SendError(2)));
    assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
    assert_eq!(tx.send_timeout(4, ms(1)), Err(SendTimeoutError::Disconnected(4)));
}

/// crossbeam-channel tests/array.rs: recv_after_disconnect
#[test]
fn what_was_sent_before_the_last_sender_went_is_received_before_the_error() {
    let (tx, rx) = channel::bounded(100);
    for n in 1..=3 {
        tx.send(n).unwrap();
    }
    drop(tx);
    assert!(rx.is_disconnected());
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(rx.try_recv(), Ok(2));
    assert_eq!(rx.recv_timeout(ms(1)), Ok(3));
    assert_eq!(rx.recv(), Err(RecvError));
}

/// crossbeam-channel tests/array.rs: len
#[test]
fn the_length_is_never_more_than_the_capacity() {
    const COUNT: usize = 10_000;
    const CAPACITY: usize = 10;
    let (tx, rx) = channel::bounded(CAPACITY);
    thread::scope(|scope| {
        let other = tx.clone();
        scope.spawn(move || {
            for n in 0..COUNT {
                other.send(n).unwrap();
                assert!(other.len() <= CAPACITY);
            }
        });
        for n in 0..COUNT {
            assert!(rx.len() <= CAPACITY);
            assert_eq!(rx.recv(), Ok(n));
        }
    });
    assert_eq!((tx.len(), rx.len()), (0, 0));
}

/// crossbeam-channel tests/array.rs: disconnect_wakes_sender
#[test]
fn a_sender_that_waits_hears_of_the_receivers_end() {
    let (tx, rx) = channel::bounded(1);
    tx.send(1).unwrap();
    // Two, so that one wake-up is not enough.
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let tx = tx.clone();
            thread::spawn(move || assert_eq!(tx.send(n), Err(SendError(n))))
        })
        .collect();
    thread::sleep(ms(30));
    drop(rx);
    waiting.into_iter().for_each(|thread| thread.join().unwrap());
}

/// crossbeam-channel tests/array.rs: disconnect_wakes_receiver
#[test]
fn a_receiver_that_waits_hears_of_the_last_senders_end() {
    let (tx, rx) = channel::bounded::<()>(1);
    let receiver = thread::spawn(move || assert_eq!(rx.recv(), Err(RecvError)));
    let other = tx.clone();
    drop(tx);
    thread::sleep(ms(30));
    assert!(!receiver.is_finished());
    drop(other);
    receiver.join().unwrap();
}

/// crossbeam-channel tests/array.rs: spsc
#[test]
fn a_pair_of_threads_keeps_the_order() {
    const COUNT: usize = 20_000;
    let (tx, rx) = channel::bounded(3);
    let receiver = thread::spawn(move || {
        (0..COUNT).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
        assert_eq!(rx.recv(), Err(RecvError));
    });
    (0..COUNT).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    receiver.join().unwrap();
}

/// crossbeam-channel tests/array.rs: mpmc
#[test]
fn of_many_senders_everything_arrives_once_and_in_each_ones_order() {
    const COUNT: usize = 5_000;
    const SENDERS: usize = 4;
    let (tx, rx) = channel::bounded(3);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let tx = tx.clone();
            scope.spawn(move || (0..COUNT).for_each(|n| tx.send((sender, n)).unwrap()));
        }
        drop(tx);
        let mut seen = [0; SENDERS];
        for (sender, n) in rx.iter() {
            assert_eq!(n, seen[sender]);
            seen[sender] += 1;
        }
        assert_eq!(seen, [COUNT; SENDERS]);
    });
}

/// crossbeam-channel tests/array.rs: stress_oneshot
#[test]
fn a_channel_for_one_message_works_every_time() {
    for n in 0..500 {
        let (tx, rx) = channel::bounded(1);
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(rx.recv(), Ok(n)));
            scope.spawn(move || tx.send(n).unwrap());
        });
    }
}

/// crossbeam-channel tests/array.rs: stress_iter
#[test]
fn requests_and_responses_between_two_channels_do_not_get_stuck() {
    const COUNT: usize = 1_000;
    let (request_tx, request_rx) = channel::bounded(2);
    let (response_tx, response_rx) = channel::bounded(100);
    let worker = thread::spawn(move || {
        let mut count = 0;
        loop {
            for step in request_rx.try_iter() {
                count += step;
                if count == COUNT {
                    return;
                }
            }
            let _ = response_tx.try_send(count);
        }
    });
    for _ in response_rx.iter().take(COUNT) {
        request_tx.send(1).unwrap();
    }
    worker.join().unwrap();
}

/// crossbeam-channel tests/array.rs: stress_timeout_two_threads
#[test]
fn nothing_is_lost_or_doubled_between_timeouts() {
    const COUNT: usize = 50;
    let (tx, rx) = channel::bounded(2);
    let receiver = thread::spawn(move || {
        for n in 0..COUNT {
            if n % 2 == 0 {
                thread::sleep(ms(3));
            }
            loop {
                if let Ok(got) = rx.recv_timeout(ms(1)) {
                    assert_eq!(got, n);
                    break;
                }
            }
        }
    });
    for n in 0..COUNT {
        if n % 3 == 0 {
            thread::sleep(ms(3));
        }
        while tx.send_timeout(n, ms(1)).is_err() {}
    }
    receiver.join().unwrap();
}

/// crossbeam-channel tests/array.rs: drops
#[test]
fn every_message_is_dropped_once_received_or_not() {
    let mut numbers = Numbers::new();
    for _ in 0..30 {
        let steps = numbers.below(1_000) as usize;
        let left = numbers.below(50) as usize;
        let drops = Drops::new();
        let (tx, rx) = channel::bounded(50);
        thread::scope(|scope| {
            scope.spawn(|| (0..steps).for_each(|_| tx.send(drops.message()).unwrap()));
            (0..steps).for_each(|_| drop(rx.recv().unwrap()));
        });
        (0..left).for_each(|_| tx.send(drops.message()).unwrap());
        assert_eq!(drops.count(), steps);
        drop(tx);
        drop(rx);
        assert_eq!(drops.count(), steps + left);
    }
}

/// crossbeam-channel tests/array.rs: linearizable
#[test]
fn what_a_send_has_published_is_there_for_a_try_recv() {
    const COUNT: usize = 2_000;
    const SENDERS: usize = 4;
    let (tx, rx) = channel::bounded(SENDERS);
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
        // As many sends are over as we have been told of: other senders, which are in the middle of
        // theirs, must not hide that.
        for () in done_rx {
            rx.try_recv().unwrap();
        }
    });
}

/// crossbeam-channel tests/array.rs: fairness
#[test]
fn two_full_channels_are_received_from_equally() {
    const COUNT: usize = 4_000;
    let reactor = reactor();
    let (a_tx, a) = reactor.channel(COUNT).unwrap();
    let (b_tx, b) = reactor.channel(COUNT).unwrap();
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

/// crossbeam-channel tests/array.rs: fairness_duplicates
#[test]
fn cases_on_the_same_inbox_are_chosen_equally() {
    const COUNT: usize = 5_000;
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(COUNT).unwrap();
    (0..COUNT).for_each(|_| tx.send(()).unwrap());
    let mut hits = [0; 5];
    for _ in 0..COUNT {
        select! { reactor;
            recv(inbox) -> _ => hits[0] += 1,
            recv(inbox) -> _ => hits[1] += 1,
            recv(inbox) -> _ => hits[2] += 1,
            recv(inbox) -> _ => hits[3] += 1,
            recv(inbox) -> _ => hits[4] += 1,
        }
    }
    assert!(hits.iter().all(|&n| n >= COUNT / 10), "{hits:?}");
    assert!(inbox.is_empty());
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

/// crossbeam-channel tests/array.rs: channel_through_channel
#[test]
fn a_receiver_travels_through_its_own_kind_of_channel() {
    const COUNT: usize = 500;
    type Parcel = Box<dyn std::any::Any + Send>;
    let (tx, rx) = channel::bounded::<Parcel>(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut tx = tx;
            for _ in 0..COUNT {
                let (next_tx, next_rx) = channel::bounded::<Parcel>(1);
                tx.send(Box::new(Some(next_rx))).unwrap();
                tx = next_tx;
            }
        });
        scope.spawn(move || {
            let mut rx = rx;
            for _ in 0..COUNT {
                let mut parcel = rx.recv().unwrap();
                rx = parcel
                    .downcast_mut::<Option<channel::Receiver<Parcel>>>()
                    .unwrap()
                    .take()
                    .unwrap();
            }
            assert!(rx.recv().is_err());
        });
    });
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

/// Go test/chan/nonblock.go: a buffered channel that was received from has room at once
#[test]
fn a_recv_from_a_full_channel_makes_room_for_the_next_try_send() {
    let (tx, rx) = channel::bounded(2);
    tx.send(0).unwrap();
    for n in 1..1_000 {
        tx.try_send(n).unwrap();
        assert!(tx.try_send(0).is_err());
        assert_eq!(rx.try_recv(), Ok(n - 1));
    }
}

/// Go test/fixedbugs/bug273.go: makechan out of range
#[test]
fn a_capacity_beyond_memory_panics_before_anything_is_allocated() {
    let text = |capacity| {
        let panic = catch_unwind(|| drop(channel::bounded::<u64>(capacity))).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    for capacity in [usize::MAX, usize::MAX / 2] {
        assert!(text(capacity).contains(&capacity.to_string()), "{}", text(capacity));
    }
}

/// Go memory model: a send comes before its receive
#[test]
fn a_message_carries_what_was_written_before_it() {
    const COUNT: usize = 2_000;
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<Box<usize>>(1).unwrap();
    let sender = thread::spawn(move || (0..COUNT).for_each(|n| tx.send(Box::new(n)).unwrap()));
    for n in 0..COUNT {
        assert_eq!(*next(&reactor, &inbox).unwrap(), n);
    }
    sender.join().unwrap();
}

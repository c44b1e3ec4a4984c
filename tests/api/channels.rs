//! Checks bounded channels: order, endings, timeouts, and moves of an end between reactors. No
//! wake-up may be lost, and a refused value returns to its sender.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel::{
    self, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError,
};
use pollmux::{Events, Inbox, Reactor, Sim, Source, select, sources::BeforeSleep};
use support::{
    HOUR, Random, Script, ms, panic_text, rounds, scripted_reactor, thread, watchdog,
    with_counted_wakes,
};

/// Checks that the messages of each producer are in order and complete.
struct Order(Vec<u64>);

impl Order {
    fn of(producers: usize) -> Order {
        Order(vec![0; producers])
    }

    #[track_caller]
    fn check(&mut self, (producer, n): (usize, u64)) {
        assert_eq!(
            n, self.0[producer],
            "a message of producer {producer} is lost, doubled or out of order"
        );
        self.0[producer] += 1;
    }

    #[track_caller]
    fn complete(&self, each: u64) {
        assert!(self.0.iter().all(|&seen| seen == each), "{:?} of {each}", self.0);
    }
}

/// Starts `producers` threads. Each thread sends `each` numbered messages and ends.
fn produce(tx: Sender<(usize, u64)>, producers: usize, each: u64, pauses: bool) {
    for producer in 0..producers {
        let tx = tx.clone();
        thread::spawn(move || {
            let mut random = Random::new(producer as u64 + 1);
            for n in 0..each {
                tx.send((producer, n)).unwrap();
                if pauses {
                    random.pause();
                }
            }
        });
    }
}

/// Counts the drops of each value.
#[derive(Clone)]
struct Drops(Arc<Vec<AtomicU32>>);

struct Counted {
    id: usize,
    drops: Drops,
}

impl Drops {
    fn of(values: usize) -> Drops {
        Drops(Arc::new((0..values).map(|_| AtomicU32::new(0)).collect()))
    }

    fn value(&self, id: usize) -> Counted {
        Counted { id, drops: self.clone() }
    }

    fn counts(&self) -> Vec<u32> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    #[track_caller]
    fn once_each(&self) {
        assert!(self.counts().iter().all(|&count| count == 1), "{:?}", self.counts());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.0[self.id].fetch_add(1, Ordering::Relaxed);
    }
}

// Order.

#[test]
fn one_producers_messages_stay_in_order() {
    let _watchdog = watchdog();
    let each = rounds(250);
    for capacity in [1, 2, 3, 5, 64, 100] {
        let (tx, rx) = channel::bounded(capacity);
        produce(tx, 1, each, false);
        let mut order = Order::of(1);
        rx.iter().for_each(|message| order.check(message));
        order.complete(each);

        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(capacity).unwrap();
        produce(tx, 1, each, false);
        let mut order = Order::of(1);
        while let Ok(message) = select! { reactor; recv(inbox) -> message => message } {
            order.check(message);
        }
        order.complete(each);
    }
}

#[test]
fn each_producers_messages_stay_in_order() {
    let _watchdog = watchdog();
    let each = rounds(250);
    for capacity in [1, 3, 128] {
        let (tx, rx) = channel::bounded(capacity);
        produce(tx, 4, each, false);
        let mut order = Order::of(4);
        rx.into_iter().for_each(|message| order.check(message));
        order.complete(each);
    }
}

// Endings.

#[test]
fn a_receiver_drains_then_always_returns_the_error() {
    let (tx, rx) = channel::bounded(4);
    (0..4).for_each(|n| tx.send(n).unwrap());
    let other = tx.clone();
    drop(tx);
    assert!(
        !rx.is_disconnected(),
        "the receiver is disconnected although a clone of the sender lives"
    );
    drop(other);
    assert!(rx.is_disconnected() && rx.len() == 4);
    assert_eq!(
        (rx.recv(), rx.try_recv(), rx.recv_timeout(HOUR), rx.iter().next()),
        (Ok(0), Ok(1), Ok(2), Some(3))
    );
    for _ in 0..3 {
        assert_eq!(rx.recv(), Err(RecvError));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx.recv_timeout(HOUR), Err(RecvTimeoutError::Disconnected));
        assert_eq!((rx.iter().next(), rx.try_iter().next()), (None, None));
    }
}

#[test]
fn an_inbox_drains_then_always_returns_the_error() {
    let reactor = support::on(Sim::new());
    let (tx, inbox) = reactor.channel(4).unwrap();
    (0..3).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    for n in 0..3 {
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
    }
    for _ in 0..3 {
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Err(RecvError)) }
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Err(RecvError)),
            default => panic!("a disconnected inbox is not ready"),
        }
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
    }
}

#[test]
fn sends_to_a_dropped_receiver_return_the_value() {
    let reactor = support::on(Sim::new());
    let ways_to_drop: [fn(Receiver<u32>, &Reactor); 3] = [
        |rx, _| drop(rx),
        |rx, reactor| drop(reactor.register(rx).unwrap()),
        |rx, reactor| drop(reactor.register(rx).unwrap().into_inner()),
    ];
    for drop_receiver in ways_to_drop {
        for held in 0..=2 {
            let (tx, rx) = channel::bounded(2);
            (0..held).for_each(|n| tx.send(n).unwrap());
            assert!(!tx.is_disconnected());
            drop_receiver(rx, &reactor);
            assert!(tx.is_disconnected());
            for _ in 0..3 {
                // A full channel reports the disconnection, too.
                assert_eq!(tx.send(7), Err(SendError(7)));
                assert_eq!(tx.try_send(8), Err(TrySendError::Disconnected(8)));
                assert_eq!(tx.send_timeout(9, HOUR), Err(SendTimeoutError::Disconnected(9)));
            }
            assert_eq!(tx.clone().send(10).unwrap_err().into_inner(), 10);
        }
    }
}

#[test]
fn dropping_the_receiver_returns_blocked_senders_values() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(1);
    tx.send(1_000).unwrap();
    let senders: Vec<_> = (0..8)
        .map(|n| {
            let tx = tx.clone();
            thread::spawn(move || match n % 2 {
                0 => tx.send(n).unwrap_err().into_inner(),
                _ => match tx.send_timeout(n, Duration::MAX).unwrap_err() {
                    SendTimeoutError::Disconnected(n) => n,
                    SendTimeoutError::Timeout(_) => {
                        panic!("a send with an endless timeout timed out")
                    }
                },
            })
        })
        .collect();
    // Gives the threads time to block in `send`, which nothing reports. A thread that does not
    // block yet gets its value back, too.
    thread::sleep(ms(60));
    drop(rx);
    let back: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    assert_eq!(back, (0..8).collect::<Vec<_>>());
}

#[test]
fn every_ending_drops_each_value_once() {
    let endings: [fn(&Drops); 9] = [
        // The values are received.
        |drops| {
            let (tx, rx) = channel::bounded(3);
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            assert_eq!(rx.try_iter().count(), 3);
        },
        // The values stay in the channel, and the receiver is dropped last.
        |drops| {
            let (tx, rx) = channel::bounded(3);
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            drop(tx);
            assert_eq!(drops.counts(), [0; 3]);
            drop(rx);
        },
        // The values stay in the channel, and the sender is dropped last. The receiver's drop drops
        // the values.
        |drops| {
            let (tx, rx) = channel::bounded(3);
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            drop(rx);
            assert_eq!(drops.counts(), [1; 3]);
            drop(tx);
        },
        // The values return to the sender: the channel is full, the timeout expires, or the
        // receiver is dropped.
        |drops| {
            let (tx, rx) = channel::bounded(1);
            assert!(tx.try_send(drops.value(0)).is_ok());
            assert!(
                tx.try_send(drops.value(1)).is_err_and(|e| e.is_full() && e.into_inner().id == 1)
            );
            assert!(tx.send_timeout(drops.value(2), ms(1)).is_err_and(|e| e.is_timeout()));
            drop(rx);
        },
        |drops| {
            let (tx, rx) = channel::bounded(1);
            drop(rx);
            assert!(tx.try_send(drops.value(0)).is_err_and(|e| e.is_disconnected()));
            assert!(tx.send(drops.value(1)).is_err_and(|e| e.into_inner().id == 1));
            assert!(tx.send_timeout(drops.value(2), HOUR).is_err_and(|e| e.into_inner().id == 2));
        },
        // Some values are received and some stay, and the ring wraps around.
        |drops| {
            let (tx, rx) = channel::bounded(2);
            assert!(tx.send(drops.value(0)).is_ok() && tx.send(drops.value(1)).is_ok());
            assert!(rx.recv().is_ok_and(|value| value.id == 0));
            assert!(tx.send(drops.value(2)).is_ok());
            drop((tx, rx));
        },
        // The inbox is dropped with values.
        |drops| {
            let reactor = support::on(Sim::new());
            let (tx, inbox) = reactor.channel(3).unwrap();
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            select! { reactor; recv(inbox) -> value => assert_eq!(value.unwrap().id, 0) }
            drop(inbox);
        },
        // The reactor is dropped before its inbox.
        |drops| {
            let reactor = support::on(Sim::new());
            let (tx, inbox) = reactor.channel(3).unwrap();
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            drop(reactor);
            assert_eq!(drops.counts(), [0; 3]);
            assert_eq!(inbox.try_recv().map(|value| value.id), Ok(0));
            drop(inbox);
        },
        // The registration fails.
        |drops| {
            let reactor = support::on(Sim::new());
            let handle = reactor.handle();
            drop(reactor);
            let (tx, rx) = channel::bounded(3);
            (0..3).for_each(|id| assert!(tx.try_send(drops.value(id)).is_ok()));
            let failed = handle.register(rx).unwrap_err();
            assert_eq!(drops.counts(), [0; 3]);
            drop(failed);
        },
    ];
    for (n, ending) in endings.into_iter().enumerate() {
        let drops = Drops::of(3);
        ending(&drops);
        assert!(drops.counts() == [1; 3], "ending {n}: {:?}", drops.counts());
    }
}

#[test]
fn dropping_the_receiver_amid_sends_drops_values_once() {
    let _watchdog = watchdog();
    let (senders, each) = (3, 40);
    for round in 0..rounds(50) as usize {
        let drops = Drops::of(senders * each);
        let (tx, rx) = channel::bounded(1 + round % 5);
        thread::scope(|scope| {
            for sender in 0..senders {
                let (tx, drops) = (tx.clone(), drops.clone());
                scope.spawn(move || {
                    for id in sender * each..(sender + 1) * each {
                        match id % 3 {
                            0 => drop(tx.send(drops.value(id))),
                            1 => drop(tx.try_send(drops.value(id))),
                            _ => drop(tx.send_timeout(drops.value(id), Duration::from_micros(50))),
                        }
                    }
                });
            }
            drop(tx);
            assert!(
                rx.iter()
                    .take(round % 60)
                    .all(|value| value.drops.0[value.id].load(Ordering::Relaxed) == 0)
            );
            drop(rx);
        });
        drops.once_each();
    }
}

// Room.

/// A receive from a full channel makes room at once. Compare test/chan/nonblock.go of Go.
#[test]
fn a_recv_makes_room_for_try_send() {
    for capacity in [1, 2, 3, 7, 64] {
        let (tx, rx) = channel::bounded(capacity);
        (0..capacity).for_each(|n| tx.try_send(n).unwrap());
        for n in 0..capacity * 5 {
            assert_eq!(tx.try_send(usize::MAX), Err(TrySendError::Full(usize::MAX)));
            assert_eq!(rx.recv(), Ok(n));
            tx.try_send(n + capacity).unwrap();
        }
    }
}

#[test]
fn a_recv_makes_room_for_another_thread() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(1);
    let (go, gone) = channel::bounded::<()>(1);
    let _sender = support::aside(move || {
        for n in 0..500 {
            gone.recv().unwrap();
            // The receiver took the last message before it sent `go`, so the channel has room.
            tx.try_send(n).unwrap();
        }
    });
    for n in 0..500 {
        go.send(()).unwrap();
        assert_eq!(rx.recv(), Ok(n));
    }
}

#[test]
fn a_recv_wakes_a_blocked_sender() {
    let _watchdog = watchdog();
    let reactor = support::on(Sim::new());
    for registered in [false, true] {
        let (tx, rx) = channel::bounded(1);
        tx.send(0).unwrap();
        let sender = thread::spawn(move || (1..4).for_each(|n| tx.send(n).unwrap()));
        // Gives the sender time to block, so that the receive must wake it up.
        thread::sleep(ms(30));
        if registered {
            let inbox = reactor.register(rx).unwrap();
            for n in 0..4 {
                while inbox.is_empty() {
                    thread::yield_now();
                }
                select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
                thread::sleep(ms(5)); // gives the sender time to block again
            }
        } else {
            for n in 0..4 {
                assert_eq!(rx.recv(), Ok(n));
                thread::sleep(ms(5));
            }
        }
        sender.join().unwrap();
    }
}

#[test]
fn blocked_senders_all_pass_through_one_slot() {
    let _watchdog = watchdog();
    for registered in [false, true] {
        let (tx, rx) = channel::bounded(1);
        let (senders, each) = (8, 200);
        produce(tx, senders, each, false);
        let mut order = Order::of(senders);
        if registered {
            let reactor = support::reactor();
            let inbox = reactor.register(rx).unwrap();
            while let Ok(message) = select! { reactor; recv(inbox) -> message => message } {
                order.check(message);
            }
        } else {
            rx.iter().for_each(|message| order.check(message));
        }
        order.complete(each);
    }
}

#[test]
fn timed_out_senders_take_no_others_wake_up() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(1);
    let (patient, each) = (4, 300);
    let sent = Arc::new(AtomicU32::new(0));
    produce(tx.clone(), patient, each, false);
    for seed in 0..4 {
        let (tx, sent) = (tx.clone(), sent.clone());
        thread::spawn(move || {
            let mut random = Random::new(seed);
            for _ in 0..each {
                match tx.send_timeout((patient, 0), Duration::from_micros(random.below(60))) {
                    Ok(()) => sent.fetch_add(1, Ordering::Relaxed),
                    Err(SendTimeoutError::Timeout(_)) => 0,
                    Err(SendTimeoutError::Disconnected(_)) => {
                        panic!("the receiver is disconnected")
                    }
                };
            }
        });
    }
    drop(tx);
    let (mut order, mut impatient) = (Order::of(patient), 0);
    let mut random = Random::new(99);
    for (producer, n) in &rx {
        if producer == patient {
            impatient += 1;
        } else {
            order.check((producer, n));
        }
        random.pause();
    }
    order.complete(each);
    assert_eq!(impatient, sent.load(Ordering::Relaxed));
}

// Timeouts.

#[test]
fn a_timeout_is_never_early() {
    let (tx, rx) = channel::bounded(1);
    let (full, _keep) = channel::bounded(1);
    full.send(0).unwrap();
    for timeout in [0, 1, 50, 999, 1_000, 3_500, 20_000].map(Duration::from_micros) {
        let start = Instant::now();
        assert_eq!(rx.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= timeout, "recv: {:?} for {timeout:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(full.send_timeout(1, timeout), Err(SendTimeoutError::Timeout(1)));
        assert!(start.elapsed() >= timeout, "send: {:?} for {timeout:?}", start.elapsed());
    }
    // A timeout leaves the channel unchanged.
    tx.send(5).unwrap();
    assert_eq!(rx.recv_timeout(Duration::ZERO), Ok(5));
}

#[test]
fn a_ready_channel_ignores_the_timeout() {
    let (tx, rx) = channel::bounded(1);
    for timeout in [Duration::ZERO, HOUR, Duration::MAX] {
        assert_eq!(tx.send_timeout(3, timeout), Ok(()));
        assert_eq!(rx.recv_timeout(timeout), Ok(3));
    }
}

#[test]
fn a_huge_timeout_never_expires() {
    let _watchdog = watchdog();
    for timeout in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 40)] {
        let (tx, rx) = channel::bounded(1);
        let sender = thread::spawn(move || {
            thread::sleep(ms(15)); // gives the receiver time to sleep
            tx.send(1).unwrap();
            tx.send_timeout(2, timeout).unwrap();
        });
        assert_eq!(rx.recv_timeout(timeout), Ok(1));
        thread::sleep(ms(15)); // gives the sender time to sleep if the channel is full
        assert_eq!(rx.recv_timeout(timeout), Ok(2));
        sender.join().unwrap();
        assert_eq!(rx.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected));

        let (tx, rx) = channel::bounded(1);
        tx.send(0).unwrap();
        let sender = thread::spawn(move || tx.send_timeout(1, timeout));
        thread::sleep(ms(15)); // gives the sender time to block
        assert_eq!((rx.recv(), rx.recv()), (Ok(0), Ok(1)));
        assert_eq!(sender.join().unwrap(), Ok(()));
    }
}

#[test]
fn a_message_ends_a_wait_with_a_timeout() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(1);
    thread::spawn(move || {
        thread::sleep(ms(10)); // gives the receiver time to sleep
        tx.send(4)
    });
    assert_eq!(rx.recv_timeout(HOUR), Ok(4));
    assert_eq!(rx.recv_timeout(HOUR), Err(RecvTimeoutError::Disconnected));
}

// Iterators and counts.

#[test]
fn iterators_stop_when_empty_or_disconnected() {
    let (tx, rx) = channel::bounded(8);
    assert_eq!(rx.try_iter().next(), None);
    (0..5).for_each(|n| tx.send(n).unwrap());
    let mut now = rx.try_iter();
    assert_eq!((now.next(), now.next()), (Some(0), Some(1)));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [2, 3, 4]);
    tx.send(5).unwrap();
    assert_eq!(now.next(), Some(5), "the iterator did not poll the channel again");
    (6..9).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    let mut seen = Vec::new();
    for n in &rx {
        seen.push(n);
        if n == 7 {
            break;
        }
    }
    seen.extend(rx);
    assert_eq!(seen, [6, 7, 8]);

    let reactor = support::on(Sim::new());
    let (tx, inbox) = reactor.channel(4).unwrap();
    tx.send('a').unwrap();
    tx.send('b').unwrap();
    assert_eq!(inbox.try_iter().collect::<String>(), "ab");
    assert_eq!(inbox.try_iter().next(), None);
}

#[test]
fn both_ends_report_the_same_exact_counts() {
    let reactor = support::on(Sim::new());
    for capacity in (1..=20).chain([100, 1_000]) {
        let (tx, rx) = channel::bounded(capacity);
        let inbox = reactor.register(rx).unwrap();
        let check = |held: usize| {
            let state =
                (tx.len(), tx.is_empty(), tx.is_full(), tx.capacity(), tx.is_disconnected());
            assert_eq!(state, (held, held == 0, held == capacity, Some(capacity), false));
            let state = (
                inbox.len(),
                inbox.is_empty(),
                inbox.is_full(),
                inbox.capacity(),
                inbox.is_disconnected(),
            );
            assert_eq!(state, (held, held == 0, held == capacity, Some(capacity), false));
        };
        for _lap in 0..3 {
            for held in 0..capacity {
                check(held);
                tx.try_send(held).unwrap();
            }
            check(capacity);
            assert!(tx.try_send(0).is_err_and(|error| error.is_full()), "more than {capacity} fit");
            for taken in 0..capacity {
                assert_eq!(inbox.try_recv(), Ok(taken));
                check(capacity - taken - 1);
            }
            assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
            // Makes the next lap begin in the middle of the ring.
            tx.try_send(7).unwrap();
            assert_eq!(inbox.try_recv(), Ok(7));
        }
        let rx = inbox.into_inner();
        tx.send(1).unwrap();
        assert_eq!(
            (rx.len(), rx.is_empty(), rx.is_full(), rx.capacity(), rx.is_disconnected()),
            (1, false, capacity == 1, Some(capacity), false)
        );
        drop(tx);
        assert!(rx.is_disconnected() && rx.len() == 1);
    }
}

#[test]
fn counts_never_exceed_the_capacity() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(3);
    let each = rounds(1_250);
    produce(tx.clone(), 2, each, false);
    let mut received = 0;
    while received < 2 * each as usize {
        assert!(tx.len() <= 3 && rx.len() <= 3);
        received += rx.try_iter().take(2).count();
    }
    assert!(rx.is_empty() && tx.is_empty());
}

// Types of messages.

#[test]
fn messages_of_any_size_need_no_clone() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(3);
    (0..3).for_each(|_| tx.try_send(()).unwrap());
    assert!(tx.try_send(()).is_err());
    assert_eq!(rx.try_iter().count(), 3);

    let (tx, rx) = channel::bounded(2);
    let sender = thread::spawn(move || (0..20).for_each(|n| tx.send([n; 8_192]).unwrap()));
    for n in 0..20u8 {
        assert!(rx.recv().unwrap().iter().all(|&byte| byte == n));
    }
    sender.join().unwrap();

    let (tx, rx) = channel::bounded::<Box<dyn FnOnce() -> u32 + Send>>(2);
    let word = String::from("seven");
    assert!(tx.send(Box::new(move || word.len() as u32)).is_ok());
    assert_eq!(rx.recv().unwrap()(), 5);

    #[repr(align(256))]
    #[derive(Debug, PartialEq)]
    struct Aligned(u8);
    let (tx, rx) = channel::bounded(3);
    (0..3).for_each(|n| tx.send(Aligned(n)).unwrap());
    rx.try_iter().enumerate().for_each(|(n, got)| {
        assert_eq!(got, Aligned(n as u8));
        assert_eq!(&raw const got as usize % 256, 0);
    });
}

#[test]
fn channels_can_be_sent_through_channels() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded::<(u32, Sender<u32>)>(1);
    let server =
        thread::spawn(move || rx.into_iter().for_each(|(n, reply)| reply.send(n * 2).unwrap()));
    for n in 0..200 {
        let (reply, answer) = channel::bounded(1);
        tx.send((n, reply)).unwrap();
        assert_eq!(answer.recv(), Ok(n * 2));
    }
    drop(tx);
    server.join().unwrap();
    // A receiver with messages in it may be a message, too.
    let (tx, rx) = channel::bounded::<Receiver<u32>>(1);
    let (inner, end) = channel::bounded(2);
    inner.send(3).unwrap();
    tx.send(end).unwrap();
    drop((tx, inner));
    assert_eq!(rx.recv().unwrap().iter().collect::<Vec<_>>(), [3]);
}

#[test]
fn channel_ends_are_send_and_senders_sync() {
    fn sender<T: Send + Sync + Clone + std::fmt::Debug + 'static>(_: &T) {}
    fn receiver<T: Send + std::fmt::Debug + 'static>(_: &T) {}
    // A message must be `Send`, and need not be `Sync` or `Clone`.
    let (tx, rx) = channel::bounded::<Cell<u8>>(1);
    sender(&tx);
    receiver(&rx);
    receiver(&rx.into_iter());
    sender(&SendError(1));
}

#[test]
fn channel_errors_describe_themselves_for_any_message_type() {
    struct NotDebug;
    let (tx, rx) = channel::bounded(1);
    tx.send(NotDebug).unwrap();
    let full = tx.try_send(NotDebug).unwrap_err();
    assert_eq!(
        (full.to_string(), format!("{full:?}")),
        ("the channel is full".into(), "Full(..)".into())
    );
    let late = tx.send_timeout(NotDebug, Duration::ZERO).unwrap_err();
    assert!(late.to_string().contains("full"), "{late}");
    drop(rx);
    let gone = tx.send(NotDebug).unwrap_err();
    assert!(gone.to_string().contains("receiver") && gone.to_string().contains("gone"), "{gone}");
    assert!(matches!(TrySendError::from(gone), TrySendError::Disconnected(NotDebug)));
    assert!(RecvError.to_string().contains("every sender is gone"));
    assert_eq!(TryRecvError::from(RecvError), TryRecvError::Disconnected);
    assert_ne!(TryRecvError::Empty.to_string(), TryRecvError::Disconnected.to_string());
}

/// Compare test/fixedbugs/bug273.go of Go: makechan out of range.
#[test]
fn an_impossible_capacity_panics_with_the_number() {
    for capacity in [usize::MAX, usize::MAX / 2] {
        let bytes = panic_text(|| drop(channel::bounded::<u8>(capacity)));
        let words = panic_text(|| drop(channel::bounded::<u64>(capacity)));
        for text in [bytes, words] {
            assert!(text.contains("pollmux") && text.contains(&capacity.to_string()), "{text}");
        }
    }
    let text = panic_text(|| drop(channel::bounded::<[u64; 1 << 20]>(usize::MAX >> 18)));
    assert!(text.contains("pollmux") && text.contains("memory"), "{text}");
}

/// The two checks have different messages, so this test needs no allocation.
#[test]
#[cfg(target_pointer_width = "64")]
fn capacities_above_the_maximum_panic() {
    let panics =
        |capacity: usize| panic_text(|| drop(channel::bounded::<[u64; 1 << 20]>(capacity)));
    let most = (1 << 47) - 1;
    for capacity in [most + 1, most + 2, usize::MAX] {
        let text = panics(capacity);
        assert!(text.contains(&format!("{capacity} is more than the {most}")), "{text}");
    }
    let text = panics(most);
    assert!(text.contains(&format!("{most} does not fit into memory")), "{text}");
}

// Bare and registered ends.

#[test]
fn bare_and_registered_ends_behave_the_same() {
    /// Returns the results of a fixed series of operations.
    fn results_of(
        tx: Sender<u32>,
        try_recv: &dyn Fn() -> Result<u32, TryRecvError>,
    ) -> Vec<String> {
        let mut results = vec![format!("{:?}", try_recv())];
        for n in 0..5 {
            results.push(format!("{:?}", tx.try_send(n).map_err(|error| error.into_inner())));
        }
        results.extend((0..2).map(|_| format!("{:?}", try_recv())));
        results.push(format!("{:?}", tx.send(9)));
        drop(tx);
        results.extend((0..4).map(|_| format!("{:?}", try_recv())));
        results
    }
    let (tx, rx) = channel::bounded(3);
    let bare = results_of(tx, &|| rx.try_recv());
    let reactor = support::on(Sim::new());
    let (tx, inbox) = reactor.channel(3).unwrap();
    assert_eq!(results_of(tx, &|| inbox.try_recv()), bare);
    let (tx, inbox) = reactor.channel(3).unwrap();
    let by_select = results_of(tx, &|| {
        select! { reactor;
            recv(inbox) -> got => got.map_err(TryRecvError::from),
            default => Err(TryRecvError::Empty),
        }
    });
    assert_eq!(by_select, bare);
}

#[test]
fn a_receiver_can_move_to_another_reactor() {
    let _watchdog = watchdog();
    let (tx, rx) = channel::bounded(8);
    let first = support::reactor();
    let second = support::reactor();
    tx.send(0).unwrap();
    let inbox = first.register(rx).unwrap();
    tx.send(1).unwrap();
    select! { first; recv(inbox) -> got => assert_eq!(got, Ok(0)) }
    let mut rx = inbox.into_inner();
    assert_eq!((first.stats().live, rx.len()), (0, 1));
    tx.send(2).unwrap();
    assert_eq!((rx.recv(), rx.recv()), (Ok(1), Ok(2)));
    for round in 0..rounds(13) {
        for reactor in [&second, &first] {
            // The receiver blocks in a select, a wait and a bare `recv`, and each must be woken up.
            let later = |n| {
                let tx = tx.clone();
                // Usually the receiver sleeps when this message comes.
                support::later(Duration::from_micros(300), move || tx.send(n).unwrap())
            };
            let inbox = reactor.register(rx).unwrap();
            let sender = later(round);
            select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(round)) }
            drop(sender);
            let mut events = Events::with_capacity(1);
            let sender = later(round + 1);
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.iter().next().map(|event| event.key()), Some(inbox.key()));
            assert_eq!(inbox.try_recv(), Ok(round + 1));
            drop(sender);
            rx = inbox.into_inner();
            let sender = later(round + 2);
            assert_eq!(rx.recv(), Ok(round + 2));
            drop(sender);
        }
    }
    drop(tx);
    assert_eq!(rx.recv(), Err(RecvError));
    // A later registration also finds the disconnection.
    let inbox = second.register(rx).unwrap();
    select! { second; recv(inbox) -> got => assert_eq!(got, Err(RecvError)) }
}

#[test]
fn a_moving_receiver_misses_no_message() {
    let _watchdog = watchdog();
    for capacity in [1, 16] {
        let (tx, mut rx) = channel::bounded(capacity);
        let (producers, each) = (3, rounds(750));
        produce(tx, producers, each, true);
        let mut order = Order::of(producers);
        let home = support::reactor();
        let mut random = Random::new(capacity as u64);
        // No wait takes so many messages that it could meet the disconnection.
        let total = producers as u64 * each;
        let mut left = total;
        while left > 0 {
            let take = (1 + random.below(12)).min(left);
            left -= take;
            rx = match random.below(4) {
                0 => {
                    (0..take).for_each(|_| order.check(rx.recv().unwrap()));
                    rx
                }
                1 => {
                    let inbox = home.register(rx).unwrap();
                    for _ in 0..take {
                        select! { home; recv(inbox) -> message => order.check(message.unwrap()) }
                    }
                    inbox.into_inner()
                }
                2 => {
                    let inbox = home.register(rx).unwrap();
                    let mut events = Events::with_capacity(1);
                    let mut taken = 0;
                    while taken < take {
                        home.wait(&mut events).unwrap();
                        for message in inbox.try_iter().take((take - taken) as usize) {
                            order.check(message);
                            taken += 1;
                        }
                    }
                    inbox.into_inner()
                }
                _ => {
                    let elsewhere = thread::spawn(move || {
                        let reactor = support::reactor();
                        let inbox = reactor.register(rx).unwrap();
                        let messages: Vec<_> = (0..take)
                            .map(
                                |_| select! { reactor; recv(inbox) -> message => message.unwrap() },
                            )
                            .collect();
                        (inbox.into_inner(), messages)
                    });
                    let (rx, messages) = elsewhere.join().unwrap();
                    messages.into_iter().for_each(|message| order.check(message));
                    rx
                }
            };
        }
        order.complete(each);
        assert_eq!(rx.recv(), Err(RecvError));
    }
}

// Wake-ups.

/// Answers each number with the next number, in a reactor of its own.
fn echo(questions: Receiver<u64>, answers: Sender<u64>) {
    let reactor = support::reactor();
    let inbox = reactor.register(questions).unwrap();
    while let Ok(n) = select! { reactor; recv(inbox) -> n => n } {
        answers.send(n + 1).unwrap();
    }
}

#[test]
fn two_reactors_exchange_messages_without_loss() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (ask, questions) = channel::bounded(1);
    let (answers, inbox) = reactor.channel(1).unwrap();
    let _other = support::aside(move || echo(questions, answers));
    let never = reactor.every(HOUR).unwrap();
    for n in 0..rounds(1_250) {
        ask.send(n).unwrap();
        select! { reactor;
            recv(inbox) -> answer => assert_eq!(answer, Ok(n + 1)),
            recv(never) -> _ => unreachable!(),
        }
    }
    drop(ask);
    select! { reactor; recv(inbox) -> end => assert_eq!(end, Err(RecvError)) }
}

#[test]
fn selects_with_a_ticker_lose_no_wake_up() {
    let _watchdog = watchdog();
    let each = rounds(750);
    for (producers, capacity) in [(1, 1), (1, 64), (4, 1), (4, 64)] {
        let reactor = support::reactor();
        let (tx, inbox) = reactor.channel(capacity).unwrap();
        // The ticker's period is long, so that a tick cannot hide a lost wake-up.
        let ticker = reactor.every(HOUR).unwrap();
        produce(tx, producers, each, true);
        let mut order = Order::of(producers);
        loop {
            select! { reactor;
                recv(inbox) -> message => match message {
                    Ok(message) => { order.check(message); ticker.restart(); }
                    Err(RecvError) => break,
                },
                recv(ticker) -> _ => unreachable!(),
            }
        }
        order.complete(each);
    }
}

#[test]
fn a_busy_ticker_hides_no_channel_wake_up() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, left) = reactor.channel(2).unwrap();
    produce(tx, 2, 5_000, true);
    let (tx, right) = reactor.channel(2).unwrap();
    produce(tx, 2, 5_000, true);
    let ticker = reactor.every(Duration::from_micros(200)).unwrap();
    let (mut lefts, mut rights) = (Order::of(2), Order::of(2));
    let (mut left, mut right) = (Some(left), Some(right));
    while left.is_some() || right.is_some() {
        select! { reactor;
            recv(left) -> message => match message {
                Ok(message) => lefts.check(message),
                Err(RecvError) => left = None,
            },
            recv(right) -> message => match message {
                Ok(message) => rights.check(message),
                Err(RecvError) => right = None,
            },
            // The ticker arms the kernel's timer again and again. The last part runs without the
            // ticker, so that a lost wake-up shows.
            recv(ticker) -> _ => if lefts.0[0] > 4_000 { ticker.stop(); },
        }
    }
    lefts.complete(5_000);
    rights.complete(5_000);
}

#[test]
fn a_wait_loses_no_wake_up() {
    let _watchdog = watchdog();
    for producers in [1, 4] {
        let reactor = support::reactor();
        // Each producer has its own channel, so that several marks are set at once.
        let inboxes: Vec<_> = (0..producers)
            .map(|n| {
                let (tx, rx) = channel::bounded(4);
                produce(tx, 1, 6_000, true);
                reactor.register_with(n, rx).unwrap()
            })
            .collect();
        let mut orders: Vec<_> = (0..producers).map(|_| Order::of(1)).collect();
        let mut open = producers;
        let mut events = Events::with_capacity(2);
        while open > 0 {
            reactor.wait(&mut events).unwrap();
            assert!(!events.is_empty());
            for event in &events {
                let n = event.key() as usize;
                loop {
                    match inboxes[n].try_recv() {
                        Ok(message) => orders[n].check(message),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            open -= 1;
                            break;
                        }
                    }
                }
            }
        }
        orders.iter().for_each(|order| order.complete(6_000));
    }
}

#[test]
fn alternating_select_and_wait_loses_no_wake_up() {
    let _watchdog = watchdog();
    let each = rounds(2_000);
    let reactor = support::reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    produce(tx, 2, each, true);
    let mut order = Order::of(2);
    let mut events = Events::with_capacity(1);
    let mut random = Random::new(5);
    loop {
        let by_select = random.below(2) == 0;
        if !by_select {
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.iter().next().map(|event| event.key()), Some(inbox.key()));
            // Leaves the messages for the next round half of the time.
            if random.below(2) == 0 {
                inbox.try_iter().for_each(|message| order.check(message));
            }
        }
        if by_select || inbox.is_disconnected() {
            match select! { reactor; recv(inbox) -> message => message } {
                Ok(message) => order.check(message),
                Err(RecvError) => break,
            }
        }
    }
    order.complete(each);
}

#[test]
fn a_bare_recv_loses_no_wake_up() {
    let _watchdog = watchdog();
    let each = rounds(375);
    for (producers, capacity) in [(1, 1), (4, 1), (4, 64)] {
        let (tx, rx) = channel::bounded(capacity);
        produce(tx, producers, each, true);
        let mut order = Order::of(producers);
        let mut random = Random::new(7);
        loop {
            let received = match random.below(2) {
                0 => rx.recv().map_err(RecvTimeoutError::from),
                _ => rx.recv_timeout(Duration::MAX),
            };
            match received {
                Ok(message) => order.check(message),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("a receive with an endless timeout timed out")
                }
            }
        }
        order.complete(each);
    }
}

#[test]
fn dropping_the_last_sender_wakes_every_receiver() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut events = Events::with_capacity(1);
    for round in 0..rounds(150) {
        let (tx, rx) = channel::bounded::<u8>(1);
        let other = tx.clone();
        let spins = round % 50 * 40;
        let mut threads = Vec::new();
        for tx in [tx, other] {
            threads.push(thread::spawn(move || {
                (0..spins).for_each(|_| std::hint::spin_loop());
                drop(tx);
            }));
        }
        match round % 3 {
            0 => assert_eq!(rx.recv(), Err(RecvError)),
            1 => {
                let inbox = reactor.register(rx).unwrap();
                select! { reactor; recv(inbox) -> end => assert_eq!(end, Err(RecvError)) }
            }
            _ => {
                let inbox = reactor.register(rx).unwrap();
                reactor.wait(&mut events).unwrap();
                assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

// The number of wake-ups.

#[test]
fn many_messages_cause_one_wake_up() {
    let (_, reactor, script) = scripted_reactor();
    let (tx, first) = reactor.channel(64).unwrap();
    let (ty, second) = reactor.channel(64).unwrap();
    let mut events = Events::with_capacity(8);
    for round in 1..=20 {
        let (to_first, to_second) = (tx.clone(), ty.clone());
        script.on_sleep(move || {
            (0..10).for_each(|n| to_first.send(n).and(to_second.send(n)).unwrap());
            Ok(())
        });
        if round % 2 == 0 {
            select! { reactor;
                recv(first) -> n => assert_eq!(n, Ok(0)),
                recv(second) -> n => assert_eq!(n, Ok(0)),
            }
        } else {
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), 2);
        }
        assert_eq!((script.sleeps(), script.wakes(), reactor.stats().wakes), (round, round, round));
        // The reactor is awake, so a send causes no wake-up.
        tx.send(10).unwrap();
        assert!(first.try_iter().count() >= 10);
        assert!(second.try_iter().count() >= 9);
        assert_eq!(script.wakes(), round);
    }
}

#[test]
fn an_ignored_channel_wakes_a_select_once() {
    let (_, reactor, script) = scripted_reactor();
    costs_spurious_turns(&reactor, &script, 0);
    // With many channels, the reactor finds messages by their marks.
    let (_, reactor, script) = scripted_reactor();
    let far: Vec<_> = (0..40).map(|_| reactor.channel::<u32>(1).unwrap()).collect();
    costs_spurious_turns(&reactor, &script, 1);
    drop(far);
}

fn costs_spurious_turns(reactor: &Reactor, script: &Script, spurious: u64) {
    let (quiet, inbox) = reactor.channel::<u32>(4).unwrap();
    let (noise, ignored) = reactor.channel(64).unwrap();
    for _ in 0..20 {
        let noise = noise.clone();
        script.on_sleep(move || {
            noise.send(1).unwrap();
            Ok(())
        });
    }
    let quiet_one = quiet.clone();
    script.on_sleep(move || {
        quiet_one.send(7).unwrap();
        Ok(())
    });
    // The timer ends the sleeps that no message ends.
    let timer = reactor.every(Duration::from_secs(1)).unwrap();
    let mut ticks = 0;
    let got = loop {
        select! { reactor;
            recv(inbox) -> got => break got,
            recv(timer) -> _ => ticks += 1,
        }
    };
    assert_eq!(got, Ok(7));
    // The first message of the ignored channel may wake the reactor, and its next messages do not.
    // The quiet channel's message does.
    assert_eq!((script.sleeps(), script.wakes(), ticks), (21, 1 + spurious, 20 - spurious));
    // The ignored channel loses no message.
    assert_eq!(ignored.len(), 20);
    let mut events = Events::with_capacity(4);
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.iter().next().map(|event| event.key()), Some(ignored.key()));
    drop(quiet);
}

#[test]
fn an_ignored_flood_does_not_wake_a_select() {
    support::exact("counts waits");
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (noise, ignored) = reactor.channel(1 << 16).unwrap();
    let flood = thread::spawn(move || {
        for n in 0..20_000 {
            noise.send(n).unwrap();
            if n % 100 == 0 {
                thread::yield_now();
            }
        }
    });
    let timer = reactor.after(ms(100));
    let before = reactor.stats();
    select! { reactor; recv(timer) -> _ => {} }
    let during = reactor.stats() - before;
    // The timer, the flood's first message, and a signal or a stale event may cost a wait each.
    assert!(during.waits <= 3, "{during}");
    assert!(during.wakes <= 1, "{during}");
    flood.join().unwrap();
    assert_eq!(ignored.try_iter().count(), 20_000);
}

#[test]
fn messages_to_an_awake_reactor_cost_no_syscall() {
    let reactor = support::reactor();
    let (tx, inbox): (_, Inbox<u32>) = reactor.channel(16).unwrap();
    let before = reactor.stats();
    for n in 0..1_000 {
        tx.send(n).unwrap();
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
    }
    let during = reactor.stats() - before;
    assert_eq!((during.turns, during.syscalls()), (1_000, 0), "{during}");
}

/// A source that is never ready and counts the announced sleeps.
#[derive(Default)]
struct AnnouncedSleeps(Cell<u64>);

impl Source for AnnouncedSleeps {
    type Item = ();
    fn is_ready(&self) -> bool {
        false
    }
    fn try_take(&self) -> Option<()> {
        None
    }
    fn before_sleep(&self, _: &mut BeforeSleep<'_>) -> io::Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[test]
fn many_producers_cause_one_wake_up_per_sleep() {
    let _watchdog = watchdog();
    // If a sender loses its core before its wake-up, another sender wakes the reactor as well. That
    // extra wake-up does not happen in each of many runs.
    let (mut runs, mut last) = (0, (0, 0));
    while runs < 50 {
        let (driver, wakes) = with_counted_wakes();
        let reactor = Reactor::with_driver(driver).unwrap();
        // A sender may also wake the reactor from a sleep that its message cancelled. So the test
        // counts announced sleeps, and not real sleeps.
        let sleeps = AnnouncedSleeps::default();
        let (tx, inbox) = reactor.channel(64).unwrap();
        produce(tx, 4, 6_000, true);
        while select! { reactor;
            recv(inbox) -> message => message,
            recv(sleeps) -> () => unreachable!(),
        }
        .is_ok()
        {}
        // Runs without a wake-up do not count: the receiver was too slow to sleep.
        if wakes.count() > 0 {
            (runs, last) = (runs + 1, (wakes.count(), sleeps.0.get()));
            if last.0 <= last.1 {
                return;
            }
        }
    }
    panic!(
        "each of {runs} runs had too many wake-ups; the last had {} in {} sleeps",
        last.0, last.1
    );
}

#[test]
fn messages_behind_a_panicking_drop_are_dropped() {
    struct Message<'a>(bool, &'a AtomicUsize);
    impl Drop for Message<'_> {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
            assert!(!self.0, "a drop panics on purpose");
        }
    }
    let drops = AtomicUsize::new(0);
    let (tx, rx) = channel::bounded(8);
    for n in 0..8 {
        assert!(tx.send(Message(n == 2, &drops)).is_ok());
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(rx))).is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 8);
    assert!(tx.try_send(Message(false, &drops)).is_err());
}

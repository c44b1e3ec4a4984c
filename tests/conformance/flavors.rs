//! Tests that several kinds of channel share: crossbeam-channel's tests/array.rs, tests/list.rs and
//! tests/zero.rs. Each function names the test there.
//!
//! The file of each kind runs the tests through `every_kind!`, `buffered!` and `limited!`.

use std::time::Instant;

use pollmux::Source;
use pollmux::channel::{
    self, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError,
};
use pollmux::select;
use support::thread;

use crate::common::{Drops, LONG, Random, ms, reactor};
use crate::support::{aside, later};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bounded,
    Unbounded,
    Rendezvous,
}

impl Kind {
    /// Makes a channel of this kind. Only bounded channels use `capacity`.
    fn channel<T>(self, capacity: usize) -> (Sender<T>, Receiver<T>) {
        match self {
            Kind::Bounded => channel::bounded(capacity),
            Kind::Unbounded => channel::unbounded(),
            Kind::Rendezvous => channel::bounded(0),
        }
    }

    /// Returns how many operations take as long as `n` operations of an unbounded channel.
    fn count(self, n: usize) -> usize {
        match self {
            Kind::Unbounded => n,
            Kind::Bounded => n / 2,
            Kind::Rendezvous => n / 6,
        }
    }
}

macro_rules! run {
    ($kind:ident: $($case:ident)*) => {$(
        #[test]
        fn $case() {
            crate::flavors::$case(crate::flavors::Kind::$kind);
        }
    )*};
}

macro_rules! every_kind {
    ($kind:ident) => {
        crate::flavors::run! { $kind:
            recv_blocks_until_a_message_or_disconnection
            recv_timeout_ends_at_message_or_timeout
            dropping_the_last_sender_wakes_a_blocked_receiver
            one_sender_thread_keeps_its_order
            concurrent_sends_arrive_once_in_per_sender_order
            a_channel_for_one_message_delivers_it
            requests_and_responses_between_two_channels_never_deadlock
            timeouts_lose_and_duplicate_no_message
        }
    };
}

/// Tests for kinds with a buffer.
macro_rules! buffered {
    ($kind:ident) => {
        crate::flavors::run! { $kind:
            try_recv_distinguishes_empty_from_disconnected
            sends_to_a_dropped_receiver_return_their_value
            buffered_messages_are_received_before_disconnection
            every_message_is_dropped_once
            a_completed_send_is_visible_to_try_recv
            select_chooses_two_ready_channels_equally
        }
    };
}

/// Tests for kinds that may be full.
macro_rules! limited {
    ($kind:ident) => {
        crate::flavors::run! { $kind:
            send_timeout_ends_at_room_or_timeout
            len_never_exceeds_the_capacity
            dropping_the_receiver_wakes_all_blocked_senders
            cases_on_one_inbox_are_chosen_equally
            a_receiver_can_be_sent_through_a_channel
        }
    };
}

pub(crate) use {buffered, every_kind, limited, run};

/// recv
pub fn recv_blocks_until_a_message_or_disconnection(kind: Kind) {
    let (tx, rx) = kind.channel(100);
    let _sender = later(ms(30), move || {
        tx.send(7).unwrap();
        thread::sleep(ms(30));
        tx.send(8).unwrap();
        thread::sleep(ms(30));
    });
    assert_eq!([rx.recv(), rx.recv()], [Ok(7), Ok(8)]);
    assert_eq!([rx.recv(), rx.recv()], [Err(RecvError); 2]);
}

/// recv_timeout
pub fn recv_timeout_ends_at_message_or_timeout(kind: Kind) {
    let (tx, rx) = kind.channel(100);
    let start = Instant::now();
    assert_eq!(rx.recv_timeout(ms(20)), Err(RecvTimeoutError::Timeout));
    assert!(start.elapsed() >= ms(20));
    let _sender = later(ms(20), move || tx.send(7).unwrap());
    assert_eq!(rx.recv_timeout(LONG), Ok(7));
    assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    assert!(start.elapsed() < LONG);
}

/// disconnect_wakes_receiver
pub fn dropping_the_last_sender_wakes_a_blocked_receiver(kind: Kind) {
    let (tx, rx) = kind.channel::<()>(1);
    let receiver = thread::spawn(move || assert_eq!(rx.recv(), Err(RecvError)));
    let other = tx.clone();
    drop(tx);
    thread::sleep(ms(30));
    assert!(!receiver.is_finished());
    drop(other);
    receiver.join().unwrap();
}

/// spsc
pub fn one_sender_thread_keeps_its_order(kind: Kind) {
    let count = kind.count(50_000);
    let (tx, rx) = kind.channel(3);
    let _receiver = aside(move || {
        (0..count).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
        assert_eq!(rx.recv(), Err(RecvError));
    });
    (0..count).for_each(|n| tx.send(n).unwrap());
    drop(tx);
}

/// mpmc
pub fn concurrent_sends_arrive_once_in_per_sender_order(kind: Kind) {
    const SENDERS: usize = 4;
    let count = kind.count(10_000);
    let (tx, rx) = kind.channel(3);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let tx = tx.clone();
            scope.spawn(move || (0..count).for_each(|n| tx.send((sender, n)).unwrap()));
        }
        drop(tx);
        let mut seen = [0; SENDERS];
        for (sender, n) in &rx {
            assert_eq!(n, seen[sender]);
            seen[sender] += 1;
        }
        assert_eq!(seen, [count; SENDERS]);
    });
}

/// stress_oneshot
pub fn a_channel_for_one_message_delivers_it(kind: Kind) {
    for n in 0..500 {
        let (tx, rx) = kind.channel(1);
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(rx.recv(), Ok(n)));
            scope.spawn(move || tx.send(n).unwrap());
        });
    }
}

/// stress_iter
pub fn requests_and_responses_between_two_channels_never_deadlock(kind: Kind) {
    let count = kind.count(3_000);
    let (request_tx, request_rx) = kind.channel(2);
    let (response_tx, response_rx) = kind.channel(100);
    let _worker = aside(move || {
        let mut sum = 0;
        while sum < count {
            sum += request_rx.try_iter().sum::<usize>();
            // Limit the responses, so that a fast worker does not fill the memory.
            if response_tx.len() < 100 {
                let _ = response_tx.try_send(sum);
            }
            thread::yield_now();
        }
    });
    for _ in response_rx.iter().take(count) {
        request_tx.send(1).unwrap();
    }
}

/// stress_timeout_two_threads
pub fn timeouts_lose_and_duplicate_no_message(kind: Kind) {
    const COUNT: usize = 50;
    let (tx, rx) = kind.channel(2);
    let _sender = aside(move || {
        for n in 0..COUNT {
            if n % 2 == 0 {
                thread::sleep(ms(3));
            }
            while tx.send_timeout(n, ms(1)).is_err() {}
        }
    });
    for n in 0..COUNT {
        if n % 3 == 0 {
            thread::sleep(ms(3));
        }
        loop {
            match rx.recv_timeout(ms(1)) {
                Ok(got) => break assert_eq!(got, n),
                Err(error) => assert_eq!(error, RecvTimeoutError::Timeout),
            }
        }
    }
    assert_eq!(rx.recv(), Err(RecvError));
}

/// try_recv
pub fn try_recv_distinguishes_empty_from_disconnected(kind: Kind) {
    let (tx, rx) = kind.channel(100);
    assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    thread::spawn(move || tx.send(7).unwrap()).join().unwrap();
    assert_eq!(rx.try_recv(), Ok(7));
    assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
}

/// send_after_disconnect
pub fn sends_to_a_dropped_receiver_return_their_value(kind: Kind) {
    let (tx, rx) = kind.channel(100);
    tx.send(1).unwrap();
    drop(rx);
    assert!(tx.is_disconnected());
    assert_eq!(tx.send(2), Err(SendError(2)));
    assert_eq!(tx.try_send(3), Err(TrySendError::Disconnected(3)));
    assert_eq!(tx.send_timeout(4, ms(1)), Err(SendTimeoutError::Disconnected(4)));
}

/// recv_after_disconnect
pub fn buffered_messages_are_received_before_disconnection(kind: Kind) {
    const COUNT: usize = 201;
    let (tx, rx) = kind.channel(COUNT);
    (0..COUNT).for_each(|n| tx.send(n).unwrap());
    drop(tx);
    assert!(rx.is_disconnected());
    for n in (0..COUNT).step_by(3) {
        assert_eq!(rx.recv(), Ok(n));
        assert_eq!(rx.try_recv(), Ok(n + 1));
        assert_eq!(rx.recv_timeout(ms(1)), Ok(n + 2));
    }
    assert_eq!(rx.recv(), Err(RecvError));
    assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

/// drops
pub fn every_message_is_dropped_once(kind: Kind) {
    const CAPACITY: usize = 50;
    let mut numbers = Random::new(1);
    for round in 0..30 {
        let steps = numbers.below(1_000) as usize;
        let most = if kind == Kind::Bounded { CAPACITY } else { 1_000 };
        let left = numbers.below(most as u64) as usize;
        let drops = Drops::new();
        let (tx, rx) = kind.channel(CAPACITY);
        thread::scope(|scope| {
            scope.spawn(|| (0..steps + left).for_each(|_| tx.send(drops.message()).unwrap()));
            (0..steps).for_each(|_| drop(rx.recv().unwrap()));
        });
        assert_eq!(drops.count(), steps);
        // Drop the sender or the receiver first, by turns.
        let tx = (round % 2 == 0).then_some(tx);
        drop(rx);
        assert_eq!(drops.count(), steps + left);
        drop(tx);
        assert_eq!(drops.count(), steps + left);
    }
}

/// linearizable
pub fn a_completed_send_is_visible_to_try_recv(kind: Kind) {
    const SENDERS: usize = 4;
    let count = kind.count(4_000);
    let (tx, rx) = kind.channel(SENDERS);
    let (done_tx, done_rx) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..SENDERS {
            let (tx, done_tx) = (tx.clone(), done_tx.clone());
            scope.spawn(move || {
                for n in 0..count {
                    tx.send(n).unwrap();
                    done_tx.send(()).unwrap();
                }
            });
        }
        drop(done_tx);
        // Each `()` tells of one completed send. Other senders are in the middle of a send and must
        // not hide the completed message.
        for () in done_rx {
            rx.try_recv().unwrap();
        }
    });
}

/// fairness
pub fn select_chooses_two_ready_channels_equally(kind: Kind) {
    const COUNT: usize = 4_000;
    let reactor = reactor();
    let [(a_tx, a), (b_tx, b)] = [kind.channel(COUNT), kind.channel(COUNT)];
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

/// Sends until the channel is full, and returns the number of messages.
fn fill(tx: &Sender<usize>) -> usize {
    (0..).take_while(|&n| tx.try_send(n).is_ok()).count()
}

/// send_timeout
pub fn send_timeout_ends_at_room_or_timeout(kind: Kind) {
    let (tx, rx) = kind.channel(1);
    let filled = fill(&tx);
    let start = Instant::now();
    assert_eq!(tx.send_timeout(7, ms(20)), Err(SendTimeoutError::Timeout(7)));
    assert!(start.elapsed() >= ms(20));
    assert_eq!(tx.send_timeout(7, ms(0)), Err(SendTimeoutError::Timeout(7)));
    let receiver = ::support::later(ms(20), move || {
        (0..filled).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
        assert_eq!(rx.recv(), Ok(8));
    });
    assert_eq!(tx.send_timeout(8, LONG), Ok(()));
    drop(receiver);
    assert_eq!(tx.send_timeout(9, LONG), Err(SendTimeoutError::Disconnected(9)));
    assert!(start.elapsed() < LONG);
}

/// len
pub fn len_never_exceeds_the_capacity(kind: Kind) {
    let count = kind.count(20_000);
    let (tx, rx) = kind.channel(10);
    let capacity = rx.capacity().unwrap();
    thread::scope(|scope| {
        let other = tx.clone();
        scope.spawn(move || {
            for n in 0..count {
                other.send(n).unwrap();
                assert!(other.len() <= capacity);
            }
        });
        for n in 0..count {
            assert!(rx.len() <= capacity);
            assert_eq!(rx.recv(), Ok(n));
        }
    });
    assert_eq!((tx.len(), rx.len()), (0, 0));
}

/// disconnect_wakes_sender
pub fn dropping_the_receiver_wakes_all_blocked_senders(kind: Kind) {
    let (tx, rx) = kind.channel(1);
    fill(&tx);
    // Several senders are blocked, so one wake-up is not enough.
    let _waiting: Vec<_> = (0..3)
        .map(|n| {
            let tx = tx.clone();
            aside(move || assert_eq!(tx.send(n), Err(SendError(n))))
        })
        .collect();
    thread::sleep(ms(30));
    drop(rx);
}

/// fairness_duplicates
pub fn cases_on_one_inbox_are_chosen_equally(kind: Kind) {
    let count = kind.count(12_000);
    let reactor = reactor();
    let (tx, rx) = kind.channel(count);
    let inbox = reactor.register(rx).unwrap();
    let sender = thread::spawn(move || {
        (0..count).for_each(|n| tx.send(n).unwrap());
        tx
    });
    let mut hits = [0; 5];
    let mut take = |case: usize, n| {
        assert_eq!(n, Ok(hits.iter().sum()));
        hits[case] += 1;
    };
    for _ in 0..count {
        // Wait for the message first: a `select!` that sleeps until a send makes no choice.
        while !inbox.is_ready() {
            thread::yield_now();
        }
        select! { reactor;
            recv(inbox) -> n => take(0, n),
            recv(inbox) -> n => take(1, n),
            recv(inbox) -> n => take(2, n),
            recv(inbox) -> n => take(3, n),
            recv(inbox) -> n => take(4, n),
        }
    }
    assert!(hits.iter().all(|&n| n >= count / 10), "{hits:?}");
    assert!(inbox.is_empty());
    sender.join().unwrap();
}

/// channel_through_channel
pub fn a_receiver_can_be_sent_through_a_channel(kind: Kind) {
    struct Next(Receiver<Next>);
    let count = kind.count(2_000);
    let (tx, rx) = kind.channel(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut tx = tx;
            for _ in 0..count {
                let (next_tx, next_rx) = kind.channel(1);
                tx.send(Next(next_rx)).unwrap();
                tx = next_tx;
            }
        });
        let (mut rx, mut received) = (rx, 0);
        while let Ok(Next(next)) = rx.recv() {
            rx = next;
            received += 1;
        }
        assert_eq!(received, count);
    });
}

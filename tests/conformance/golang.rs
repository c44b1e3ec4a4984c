//! Go's own tests of channels and select: test/chan/*.go, runtime/chan_test.go and others.
//! crossbeam-channel has them in tests/golang.rs.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pollmux::channel::{self, Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError};
use pollmux::{Inbox, Outbox, Reactor, never, select};

use crate::common::{LONG, ms, reactor};
use crate::support::{inbox, outbox, watched};
use support::{allocations, thread};

fn no_value() -> i32 {
    panic!("evaluated the value of an absent outbox")
}

/// Go test/chan/doubleselect.go
#[test]
fn a_value_is_sent_to_one_case() {
    const COUNT: u32 = 5_000;
    watched(|| {
        let channels: Vec<_> = (0..4).map(|_| channel::bounded(0)).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let _sender = ::support::aside(move || {
            let reactor = reactor();
            let to: Vec<Outbox<u32>> =
                senders.into_iter().map(|tx| reactor.register(tx).unwrap()).collect();
            for n in 0..COUNT {
                select! { reactor;
                    send(to[0], n) -> sent => sent.unwrap(),
                    send(to[1], n) -> sent => sent.unwrap(),
                    send(to[2], n) -> sent => sent.unwrap(),
                    send(to[3], n) -> sent => sent.unwrap(),
                }
            }
        });
        let (merge, merged) = channel::bounded(0);
        let _readers: Vec<_> = receivers
            .into_iter()
            .map(|rx: Receiver<u32>| {
                let merge = merge.clone();
                ::support::aside(move || rx.iter().for_each(|n| merge.send(n).unwrap()))
            })
            .collect();
        drop(merge);
        let mut seen = vec![false; COUNT as usize];
        for n in &merged {
            assert!(!std::mem::replace(&mut seen[n as usize], true), "{n} was sent twice");
        }
        assert!(seen.into_iter().all(|seen| seen), "a value was lost");
    });
}

/// Go test/chan/fifo.go: AsynchFifo
#[test]
fn cases_keep_a_buffer_in_fifo_order() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 10);
        let from = reactor.register(rx).unwrap();
        for n in 0..10 {
            select! { reactor; send(to, n) -> sent => sent.unwrap() }
        }
        for n in 0..10 {
            select! { reactor; recv(from) -> got => assert_eq!(got, Ok(n)) }
        }
    });
}

/// Go test/chan/fifo.go: SynchFifo (Chain)
#[test]
fn a_chain_of_threads_runs_in_order() {
    watched(|| {
        let reactor = reactor();
        let (messages_tx, messages) = channel::bounded(0);
        let (first, mut before) = channel::bounded::<()>(0);
        let _chain: Vec<_> = (0..10)
            .map(|n| {
                let (after, next) = channel::bounded(0);
                let before = std::mem::replace(&mut before, next);
                let tx = messages_tx.clone();
                ::support::aside(move || {
                    before.recv().unwrap();
                    tx.send(n).unwrap();
                    after.send(()).unwrap();
                })
            })
            .collect();
        let messages = reactor.register(messages).unwrap();
        let end = reactor.register(before).unwrap();
        first.send(()).unwrap();
        let mut got = Vec::new();
        loop {
            select! { reactor;
                recv(messages) -> n => got.push(n.unwrap()),
                recv(end) -> done => break done.unwrap(),
            }
        }
        assert!(got.into_iter().eq(0..10));
    });
}

/// Go test/chan/nonblock.go
#[test]
fn default_does_not_block_and_meets_blocked_threads() {
    watched(|| {
        let reactor = reactor();
        for capacity in [0, 1] {
            let (to, rx) = outbox(&reactor, capacity);
            let (tx, from) = inbox(&reactor, capacity);
            select! { reactor; recv(from) -> _ => panic!("received without a send"), default => {} }
            let sender = thread::spawn(move || tx.send("hello"));
            let got = loop {
                select! { reactor;
                    recv(from) -> word => break word,
                    default => thread::yield_now(),
                }
            };
            assert_eq!(got, Ok("hello"));
            sender.join().unwrap().unwrap();
            for _ in 0..capacity {
                select! { reactor;
                    send(to, 0) -> sent => sent.unwrap(),
                    default => panic!("no room was found"),
                }
            }
            select! { reactor; send(to, 1) -> _ => panic!("sent to a full channel"), default => {} }
            let receiver = thread::spawn(move || rx.iter().nth(capacity));
            loop {
                select! { reactor;
                    send(to, 2) -> sent => break sent.unwrap(),
                    default => thread::yield_now(),
                }
            }
            assert_eq!(receiver.join().unwrap(), Some(2));
        }
    });
}

/// Go test/chan/select.go: nil arms
#[test]
fn a_none_case_is_never_ready() {
    watched(|| {
        // The loop sends 60 values on one channel and 40 on another. A channel with no values left
        // is `None`.
        let reactor = reactor();
        let (to_a, a) = outbox(&reactor, 1);
        let (to_b, b) = outbox(&reactor, 1);
        let (a, b) = (reactor.register(a).unwrap(), reactor.register(b).unwrap());
        let counter = Cell::new(0_u32);
        let get = || counter.replace(counter.get() + 1);
        let (mut left_a, mut left_b, mut got) = (60, 40, Vec::new());
        while left_a + left_b > 0 || got.len() < 100 {
            let to_a = (left_a > 0).then_some(&to_a);
            let to_b = (left_b > 0).then_some(&to_b);
            select! { reactor;
                send(to_a, get()) -> sent => { sent.unwrap(); left_a -= 1 }
                send(to_b, get()) -> sent => { sent.unwrap(); left_b -= 1 }
                recv(a) -> n => got.push(n.unwrap()),
                recv(b) -> n => got.push(n.unwrap()),
            }
        }
        assert_eq!(counter.get(), 100, "a value was evaluated without a send");
        got.sort_unstable();
        assert!(got.into_iter().eq(0..100));
    });
}

/// Go test/chan/select4.go (a nil channel beside one that is ready), select.go
#[test]
fn none_cases_leave_default_and_timeout() {
    watched(|| {
        let reactor = reactor();
        let to: Option<Outbox<i32>> = None;
        let from: Option<&Inbox<i32>> = None;
        for _ in 0..50 {
            select! { reactor;
                send(to, no_value()) -> _ => panic!(),
                recv(from) -> _ => panic!(),
                recv(never::<i32>()) -> _ => panic!(),
                default => {}
            }
        }
        let start = std::time::Instant::now();
        select! { reactor;
            send(to, 1) -> _ => panic!(),
            recv(from) -> _ => panic!(),
            default(ms(15)) => assert!(start.elapsed() >= ms(15)),
        }
        let (tx, closed) = inbox::<i32>(&reactor, 1);
        drop(tx);
        select! { reactor;
            recv(from) -> _ => panic!(),
            recv(closed) -> n => assert_eq!(n, Err(RecvError)),
        }
    });
}

/// Go test/chan/select.go: a select of nil channels only blocks for ever
#[test]
fn a_select_of_none_cases_sleeps() {
    watched(|| {
        let (reactor, clock) = crate::common::sim();
        let from: Option<Inbox<i32>> = None;
        let (heartbeat, mut beats) = (reactor.every(ms(10)).unwrap(), 0);
        while beats < 100 {
            select! { reactor; recv(from) -> _ => panic!(), recv(heartbeat) -> _ => beats += 1 }
        }
        assert_eq!(clock.now() - pollmux::Time::ZERO, ms(1_000));
        drop(heartbeat);
        let kind = select! { reactor; recv(from) -> _ => panic!(), error -> e => e.kind() };
        assert_eq!(
            kind,
            std::io::ErrorKind::Deadlock,
            "the select did not report that it would sleep for ever"
        );
    });
}

/// Go test/chan/select2.go: select does not allocate
#[test]
fn many_selects_do_not_allocate() {
    const COUNT: u32 = 20_000;
    watched(|| {
        let (reactor, other) = (reactor(), Arc::new(AtomicUsize::new(usize::MAX)));
        let (tx, rx) = channel::bounded(1);
        let (back_tx, back) = inbox::<u32>(&reactor, 0);
        let (to, unused) = (reactor.register(tx).unwrap(), inbox::<u8>(&reactor, 1));
        let counted = other.clone();
        let receiver = thread::spawn(move || {
            let reactor = ::support::reactor();
            let from = reactor.register(rx).unwrap();
            let (to, _rx) = outbox::<u32>(&reactor, 0);
            let turn = |n| {
                select! { reactor;
                    recv(from) -> got => assert_eq!(got, Ok(n)),
                    send(to, n) -> _ => panic!("sent without a receiver"),
                }
            };
            (0..1_000).for_each(turn);
            let before = allocations();
            (1_000..COUNT).for_each(turn);
            counted.store((allocations() - before) as usize, Ordering::SeqCst);
            drop(back_tx);
        });
        let turn = |n| {
            select! { reactor;
                send(to, n) -> sent => sent.unwrap(),
                recv(back) -> _ => panic!("received from `back`"),
                recv(unused.1) -> _ => panic!("received from `unused`"),
            }
        };
        (0..1_000).for_each(turn);
        let before = allocations();
        (1_000..COUNT).for_each(turn);
        let mine = allocations() - before;
        receiver.join().unwrap();
        assert_eq!(
            (mine, other.load(Ordering::SeqCst)),
            (0, 0),
            "allocations by the sender, by the receiver"
        );
    });
}

/// Go test/chan/select2.go, with a rendezvous and with timers
#[test]
fn blocking_rendezvous_selects_do_not_allocate() {
    const COUNT: u32 = 10_000;
    watched(|| {
        let (tx, rx) = channel::bounded(0);
        let run = |party: &dyn Fn(u32)| {
            (0..1_000).for_each(party);
            let before = allocations();
            (1_000..COUNT).for_each(party);
            allocations() - before
        };
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let reactor = reactor();
                let to = reactor.register(tx).unwrap();
                run(&|n| {
                    select! { reactor;
                        send(to, n) -> sent => sent.unwrap(),
                        default(LONG) => panic!(),
                    }
                })
            });
            let reactor = reactor();
            let from = reactor.register(rx).unwrap();
            let timer = reactor.after(LONG);
            let mine = run(&|n| {
                timer.reset(LONG);
                select! { reactor;
                    recv(from) -> got => assert_eq!(got, Ok(n)),
                    recv(timer) -> _ => panic!(),
                }
            });
            assert_eq!((sender.join().unwrap(), mine), (0, 0));
        });
    });
}

/// Go test/chan/select3.go
#[test]
fn select_blocks_exactly_when_no_case_is_ready() {
    /// Returns true if a select with these cases finds a ready case within 3 ms. A ready case must
    /// be found with `default` too.
    fn ready(reactor: &Reactor, to: Option<&Outbox<i32>>, from: Option<&Inbox<i32>>) -> bool {
        let at_once = select! { reactor;
            send(to, 0) -> _ => true,
            recv(from) -> _ => true,
            default => false,
        };
        if at_once {
            return true;
        }
        select! { reactor;
            send(to, 0) -> _ => true,
            recv(from) -> _ => true,
            default(ms(3)) => false,
        }
    }
    watched(|| {
        let reactor = reactor();
        // nil
        assert!(!ready(&reactor, None, None));
        // empty, unbuffered
        let (tx, from) = inbox(&reactor, 0);
        let to = reactor.register(tx).unwrap();
        assert!(!ready(&reactor, Some(&to), None));
        assert!(!ready(&reactor, None, Some(&from)));
        assert!(!ready(&reactor, Some(&to), Some(&from)));
        // empty, buffered
        let (tx, from) = inbox(&reactor, 2);
        let to = reactor.register(tx).unwrap();
        assert!(!ready(&reactor, None, Some(&from)));
        assert!(ready(&reactor, Some(&to), None));
        // half full
        assert!(ready(&reactor, Some(&to), None));
        // full
        assert!(!ready(&reactor, Some(&to), None));
        assert!(ready(&reactor, None, Some(&from)));
        // closed by the senders: the messages that are left, then the error
        drop(to);
        assert!(ready(&reactor, None, Some(&from)));
        assert_eq!(from.try_recv(), Err(TryRecvError::Disconnected));
        assert!(ready(&reactor, None, Some(&from)));
        // closed by the receiver
        let (to, rx) = outbox(&reactor, 1);
        to.try_send(1).unwrap();
        assert!(!ready(&reactor, Some(&to), None));
        drop(rx);
        assert!(ready(&reactor, Some(&to), None));
    });
}

/// Go test/chan/select4.go
#[test]
fn a_none_outbox_does_not_evaluate_its_value() {
    watched(|| {
        let reactor = reactor();
        let (tx, from) = inbox(&reactor, 1);
        tx.send(42).unwrap();
        let to: Option<Outbox<i32>> = None;
        let evaluated = Cell::new(false);
        select! { reactor;
            send(to, { evaluated.set(true); 0 }) -> _ => panic!(),
            recv(from) -> n => assert_eq!(n, Ok(42)),
        }
        assert!(!evaluated.get());
    });
}

/// Go test/chan/select5.go, fixedbugs/issue4313.go: the order of evaluation
#[test]
fn operands_are_evaluated_left_to_right_before_choice() {
    watched(|| {
        let reactor = reactor();
        let order = RefCell::new(Vec::new());
        fn note<'a, S>(order: &RefCell<Vec<u32>>, n: u32, source: &'a S) -> &'a S {
            order.borrow_mut().push(n);
            source
        }
        let (a, b) = (inbox(&reactor, 1), inbox(&reactor, 1));
        let (to, rx) = outbox(&reactor, 1);
        to.try_send(0).unwrap();
        for ready in ["a", "b", "to"] {
            match ready {
                "a" => a.0.send(1).unwrap(),
                "b" => b.0.send(1).unwrap(),
                _ => assert_eq!(rx.try_recv(), Ok(0)),
            }
            let chosen = select! { reactor;
                recv(note(&order, 0, &a.1)) -> _ => "a",
                send(*note(&order, 1, &to), { order.borrow_mut().push(10); 5 }) -> _ => "to",
                recv(note(&order, 2, &b.1)) -> _ => "b",
            };
            assert_eq!(chosen, ready);
            // Unlike in Go, the value is evaluated after the choice.
            assert!(
                order
                    .take()
                    .into_iter()
                    .eq([0, 1, 2].into_iter().chain((ready == "to").then_some(10)))
            );
        }
    });
}

/// Go test/chan/select6.go: a receiver that gives up does not disturb the other waiters
#[test]
fn a_case_not_chosen_withdraws_its_offer() {
    watched(|| {
        let reactor = reactor();
        let (tx1, first) = inbox::<bool>(&reactor, 0);
        let (tx2, second) = inbox::<bool>(&reactor, 0);
        for _ in 0..50 {
            let waker = {
                let tx2 = tx2.clone();
                thread::spawn(move || tx2.send(true).unwrap())
            };
            select! { reactor;
                recv(first) -> _ => panic!("received from the first channel"),
                recv(second) -> n => assert_eq!(n, Ok(true)),
            }
            waker.join().unwrap();
            // The offer at the first channel is withdrawn, so `try_send` finds no receiver.
            assert_eq!(tx1.try_send(false), Err(TrySendError::Full(false)));
        }
        let helper = thread::spawn(move || tx1.send(true));
        select! { reactor; recv(first) -> n => assert_eq!(n, Ok(true)) }
        helper.join().unwrap().unwrap();
    });
}

/// Go test/chan/select7.go: each kind of receive against each kind of send
#[test]
fn every_send_meets_every_receive() {
    type Send = fn(Sender<u32>);
    type Recv = fn(Receiver<u32>) -> u32;
    let sends: [Send; 3] = [
        |tx| tx.send(7).unwrap(),
        |tx| {
            let reactor = reactor();
            let to = reactor.register(tx).unwrap();
            select! { reactor; send(to, 7) -> sent => sent.unwrap() }
        },
        |tx| {
            let reactor = reactor();
            let to = reactor.register(tx).unwrap();
            let (other, _rx) = outbox(&reactor, 0);
            select! { reactor;
                send(other, 8) -> _ => panic!(),
                send(to, 7) -> sent => sent.unwrap(),
            }
        },
    ];
    let receives: [Recv; 4] = [
        |rx| rx.recv().unwrap(),
        |rx| {
            let reactor = reactor();
            let from = reactor.register(rx).unwrap();
            select! { reactor; recv(from) -> n => n.unwrap() }
        },
        |rx| {
            let reactor = reactor();
            let (from, (_tx, other)) = (reactor.register(rx).unwrap(), inbox::<u32>(&reactor, 0));
            select! { reactor; recv(other) -> _ => panic!(), recv(from) -> n => n.unwrap() }
        },
        |rx| {
            let reactor = reactor();
            let from = reactor.register(rx).unwrap();
            let mut events = pollmux::Events::with_capacity(1);
            loop {
                reactor.wait(&mut events).unwrap();
                if let Ok(n) = from.try_recv() {
                    return n;
                }
            }
        },
    ];
    watched(move || {
        for (send, receive) in
            sends.iter().flat_map(|send| receives.map(|receive| (*send, receive)))
        {
            for capacity in [0, 1] {
                for sender_first in [false, true] {
                    let (tx, rx) = channel::bounded(capacity);
                    let nap = |long| thread::sleep(if long { ms(2) } else { Duration::ZERO });
                    let _sender = ::support::aside(move || {
                        nap(!sender_first);
                        send(tx);
                    });
                    nap(sender_first);
                    assert_eq!(receive(rx), 7);
                }
            }
        }
    });
}

/// Go test/chan/zerosize.go
#[test]
fn zero_sized_messages_are_counted() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox::<[u64; 0]>(&reactor, 3);
        let from = reactor.register(rx).unwrap();
        for _ in 0..3 {
            select! { reactor;
                send(to, []) -> sent => sent.unwrap(),
                default => panic!("no room was found"),
            }
        }
        select! { reactor; send(to, []) -> _ => panic!("sent to a full channel"), default => {} }
        drop(to);
        for _ in 0..3 {
            select! { reactor; recv(from) -> nothing => assert_eq!(nothing, Ok([])) }
        }
        select! { reactor; recv(from) -> end => assert_eq!(end, Err(RecvError)) }
    });
}

/// Go test/chan/sieve1.go
#[test]
fn the_sieve_finds_the_primes() {
    /// Passes on the numbers that `prime` does not divide, with one select for both ends.
    fn filter(prime: u32, rx: Receiver<u32>, tx: Sender<u32>) {
        let reactor = reactor();
        let (from, to) = (reactor.register(rx).unwrap(), reactor.register(tx).unwrap());
        let mut held = None;
        loop {
            let (from, to) = (held.is_none().then_some(&from), held.is_some().then_some(&to));
            select! { reactor;
                recv(from) -> n => match n {
                    Ok(n) if n % prime == 0 => {}
                    Ok(n) => held = Some(n),
                    Err(RecvError) => return,
                },
                send(to, held.take().unwrap()) -> sent => if sent.is_err() { return },
            }
        }
    }
    watched(|| {
        let (tx, mut rx) = channel::bounded(0);
        let mut threads = vec![thread::spawn(move || {
            // `send` fails when the first filter ends.
            let _ = (2..).try_for_each(|n| tx.send(n));
        })];
        let mut primes = Vec::new();
        for _ in 0..25 {
            let prime = rx.recv().unwrap();
            primes.push(prime);
            let (tx, next) = channel::bounded(0);
            let from = std::mem::replace(&mut rx, next);
            threads.push(thread::spawn(move || filter(prime, from, tx)));
        }
        drop(rx);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let expected = [
            2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83,
            89, 97,
        ];
        assert_eq!(primes, expected);
    });
}

/// Go runtime/chan_test.go: TestNonblockRecvRace
#[test]
fn default_racing_a_disconnection_finds_the_message() {
    watched(|| {
        for _ in 0..1_000 {
            let reactor = reactor();
            let (tx, from) = inbox(&reactor, 1);
            tx.send(1).unwrap();
            let _closer = ::support::aside(move || drop(tx));
            select! { reactor;
                recv(from) -> n => assert_eq!(n, Ok(1)),
                default => panic!("the message was missed"),
            }
        }
    });
}

/// Go runtime/chan_test.go: TestNonblockSelectRace
#[test]
fn default_racing_a_send_finds_a_ready_channel() {
    watched(|| {
        let reactor = reactor();
        for _ in 0..2_000 {
            let (tx1, first) = inbox(&reactor, 1);
            let (tx2, second) = inbox::<i32>(&reactor, 1);
            tx1.send(1).unwrap();
            let racer = thread::spawn(move || {
                // This send comes before, during or after the select.
                let _ = tx2.try_send(2);
                tx1
            });
            select! { reactor;
                recv(first) -> n => assert_eq!(n, Ok(1)),
                recv(second) -> n => assert!(n == Ok(2) || n == Err(RecvError)),
                default => panic!("the ready first channel was missed"),
            }
            racer.join().unwrap();
        }
    });
}

/// Go runtime/chan_test.go: TestNonblockSelectRace2
#[test]
fn default_racing_a_drop_finds_a_disconnected_channel() {
    watched(|| {
        let reactor = reactor();
        for _ in 0..2_000 {
            let (tx1, first) = inbox::<i32>(&reactor, 1);
            let (tx2, second) = inbox::<i32>(&reactor, 0);
            drop(tx1);
            let _racer = ::support::aside(move || drop(tx2));
            select! { reactor;
                recv(second) -> n => assert_eq!(n, Err(RecvError)),
                recv(first) -> n => assert_eq!(n, Err(RecvError)),
                default => panic!("the disconnected first channel was missed"),
            }
        }
    });
}

/// Go runtime/chan_test.go: TestSelfSelect
#[test]
fn two_selects_on_both_ends_meet_each_other() {
    const COUNT: u32 = 1_000;
    watched(|| {
        for capacity in [0, 10] {
            // Each thread has a sender of both channels and the receiver of one channel.
            let (tx1, rx1) = channel::bounded(capacity);
            let (tx2, rx2) = channel::bounded(capacity);
            let party = |id: u32,
                         own: Sender<(u32, u32)>,
                         other: Sender<(u32, u32)>,
                         rx: Receiver<(u32, u32)>| {
                move || {
                    let reactor = reactor();
                    let own = reactor.register(own).unwrap();
                    let other = reactor.register(other).unwrap();
                    let from = reactor.register(rx).unwrap();
                    let (mut to_self, mut sent, mut from_self, mut received) = (0, 0, 0, 0);
                    while sent < COUNT || received < COUNT {
                        let other = (sent < COUNT).then_some(&other);
                        select! { reactor;
                            send(own, (id, to_self)) -> result => { result.unwrap(); to_self += 1 }
                            send(other, (id, sent)) -> result => { result.unwrap(); sent += 1 }
                            recv(from) -> message => {
                                let (who, n) = message.unwrap();
                                let next = if who == id { &mut from_self } else { &mut received };
                                assert_eq!(n, *next);
                                *next += 1;
                            }
                        }
                    }
                    assert!(capacity > 0 || to_self == 0, "a select received its own offer");
                }
            };
            let _other = ::support::aside(party(1, tx1.clone(), tx2.clone(), rx1));
            party(2, tx2, tx1, rx2)();
        }
    });
}

/// Go runtime/chan_test.go: TestSelectStress
#[test]
fn sends_and_selects_over_four_channels_agree() {
    const COUNT: usize = 1_000;
    watched(|| {
        let channels: Vec<_> = [0, 0, 2, 3].map(channel::bounded::<usize>).into_iter().collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let mut threads = Vec::new();
        // One thread per channel sends without a reactor.
        for tx in senders.clone() {
            threads.push(thread::spawn(move || (0..COUNT).for_each(|n| tx.send(n).unwrap())));
        }
        // Another thread sends as many values to each channel by selects. A finished channel is
        // `None`.
        threads.push(thread::spawn(move || {
            let reactor = reactor();
            let to: Vec<_> = senders.into_iter().map(|tx| reactor.register(tx).unwrap()).collect();
            let mut sent = [0; 4];
            while sent != [COUNT; 4] {
                let open = |n: usize| (sent[n] < COUNT).then_some(&to[n]);
                let (a, b, c, d) = (open(0), open(1), open(2), open(3));
                let n = select! { reactor;
                    send(d, sent[3]) -> result => { result.unwrap(); 3 }
                    send(c, sent[2]) -> result => { result.unwrap(); 2 }
                    send(b, sent[1]) -> result => { result.unwrap(); 1 }
                    send(a, sent[0]) -> result => { result.unwrap(); 0 }
                };
                sent[n] += 1;
            }
        }));
        let reactor = reactor();
        let mut from: Vec<_> =
            receivers.into_iter().map(|rx| Some(reactor.register(rx).unwrap())).collect();
        let mut received = [0; 4];
        while from.iter().any(Option::is_some) {
            let (n, got) = select! { reactor;
                recv(from[0]) -> got => (0, got),
                recv(from[1]) -> got => (1, got),
                recv(from[2]) -> got => (2, got),
                recv(from[3]) -> got => (3, got),
            };
            match got {
                Ok(_) => received[n] += 1,
                Err(RecvError) => from[n] = None,
            }
        }
        assert_eq!(received, [2 * COUNT; 4]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Go runtime/chan_test.go: TestSelectFairness
#[test]
fn two_ready_cases_have_equal_chances() {
    const TRIALS: u32 = 10_000;
    watched(|| {
        let reactor = reactor();
        let (c1_tx, c1) = inbox::<u8>(&reactor, TRIALS as usize + 1);
        let (c2_tx, c2) = inbox::<u8>(&reactor, TRIALS as usize + 1);
        (0..=TRIALS).for_each(|_| {
            c1_tx.send(1).unwrap();
            c2_tx.send(2).unwrap();
        });
        let (_out, quiet) = inbox::<u8>(&reactor, 0);
        let (full, _rx) = outbox(&reactor, 0);
        let mut hits = [0_u32; 3];
        for _ in 0..TRIALS {
            let n = select! { reactor;
                recv(quiet) -> _ => panic!(),
                recv(c1) -> n => n.unwrap(),
                send(full, 0) -> _ => panic!(),
                recv(c2) -> n => n.unwrap(),
            };
            hits[usize::from(n)] += 1;
        }
        // Go's bound: a fair coin deviates this far once in a million runs.
        let far = (f64::from(hits[1]) / f64::from(TRIALS) - 0.5).abs();
        assert!(far <= 4.891_676 / (2.0 * f64::from(TRIALS).sqrt()), "{hits:?}");
    });
}

/// Go runtime/chan_test.go: TestPseudoRandomSend
#[test]
fn two_send_cases_are_chosen_at_random() {
    const COUNT: usize = 100;
    watched(|| {
        for capacity in [0, COUNT] {
            let (tx, rx) = channel::bounded(capacity);
            let receiver = thread::spawn(move || rx.iter().collect::<Vec<u32>>());
            let reactor = reactor();
            let to = reactor.register(tx).unwrap();
            for _ in 0..COUNT {
                select! { reactor;
                    send(to, 0) -> sent => sent.unwrap(),
                    send(to, 1) -> sent => sent.unwrap(),
                }
            }
            drop(to);
            let got = receiver.join().unwrap();
            let ones = got.iter().sum::<u32>() as usize;
            assert_eq!(got.len(), COUNT);
            assert!((COUNT / 10..=COUNT - COUNT / 10).contains(&ones), "{ones} ones");
        }
    });
}

/// Go runtime/chan_test.go: TestSelectDuplicateChannel
#[test]
fn a_channel_named_twice_wakes_other_waiters() {
    watched(|| {
        let (c_tx, c) = channel::bounded::<u32>(0);
        let (d_tx, d) = channel::bounded::<u32>(0);
        let (e_tx, e) = channel::bounded::<u32>(0);
        // One thread waits at three cases, two of them on the same channel.
        let _first = ::support::aside(move || {
            let reactor = reactor();
            let (c, d) = (reactor.register(c).unwrap(), reactor.register(d).unwrap());
            let e_tx = reactor.register(e_tx).unwrap();
            let got = select! { reactor;
                recv(c) -> n => n,
                recv(d) -> n => n,
                recv(c) -> n => n,
            };
            assert_eq!(got, Ok(8));
            select! { reactor; send(e_tx, 9) -> sent => sent.unwrap() }
            // Then the thread waits at that channel again.
            select! { reactor; recv(c) -> n => assert_eq!(n, Ok(7)) }
        });
        thread::sleep(ms(2));
        d_tx.send(8).unwrap();
        assert_eq!(e.recv(), Ok(9));
        c_tx.send(7).unwrap();
    });
}

/// Go runtime/chan_test.go: TestChan (each capacity: messages, then the end)
#[test]
fn select_receives_all_messages_then_one_error() {
    watched(|| {
        for capacity in [0, 1, 7, 64] {
            let reactor = reactor();
            let (tx, from) = inbox(&reactor, capacity);
            let _senders: Vec<_> = (0..4_usize)
                .map(|_| {
                    let tx = tx.clone();
                    ::support::aside(move || (0..500_usize).for_each(|n| tx.send(n).unwrap()))
                })
                .collect();
            drop(tx);
            let mut seen = vec![0; 500];
            loop {
                select! { reactor; recv(from) -> n => match n {
                    Ok(n) => seen[n] += 1,
                    Err(RecvError) => break,
                }}
            }
            assert!(seen.iter().all(|&n| n == 4));
        }
    });
}

/// Go test/closedchan.go
#[test]
fn a_disconnected_channel_never_blocks_a_select() {
    watched(|| {
        let reactor = reactor();
        for capacity in [0, 2] {
            let (tx, from) = inbox::<i32>(&reactor, capacity);
            drop(tx);
            let (to, rx) = outbox(&reactor, capacity);
            drop(rx);
            for _ in 0..10 {
                select! { reactor; recv(from) -> n => assert_eq!(n, Err(RecvError)) }
                select! { reactor; send(to, 1) -> sent => assert_eq!(sent, Err(SendError(1))) }
                select! { reactor; recv(from) -> n => assert!(n.is_err()), default => panic!() }
                select! { reactor;
                    send(to, 1) -> sent => assert!(sent.is_err()),
                    default => panic!(),
                }
            }
        }
    });
}

/// Go test/chan/goroutines.go
#[test]
fn a_value_passes_a_long_daisy_chain() {
    watched(|| {
        let (first, mut left) = channel::bounded(0);
        let _links: Vec<_> = (0..100)
            .map(|n| {
                let (tx, right) = channel::bounded(0);
                let rx = std::mem::replace(&mut left, right);
                ::support::aside(move || {
                    if n % 2 == 0 {
                        return tx.send(rx.recv().unwrap() + 1).unwrap();
                    }
                    let reactor = reactor();
                    let (from, to) = (reactor.register(rx).unwrap(), reactor.register(tx).unwrap());
                    let n: u32 = select! { reactor; recv(from) -> n => n.unwrap() };
                    select! { reactor; send(to, n + 1) -> sent => sent.unwrap() }
                })
            })
            .collect();
        first.send(0).unwrap();
        assert_eq!(left.recv(), Ok(100));
    });
}

/// Go runtime/proc_test.go: TestTimerFairness
#[test]
fn a_busy_channel_does_not_starve_a_timer() {
    watched(|| {
        let reactor = reactor();
        let (tx, busy) = inbox(&reactor, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let feeder =
            thread::spawn(move || while !stopped.load(Ordering::Relaxed) && tx.send(()).is_ok() {});
        let timer = reactor.timer();
        let mut messages = 0_u64;
        loop {
            select! { reactor;
                recv(busy) -> _ => {
                    messages += 1;
                    // Arm the timer only when the feeder runs.
                    if messages == 100 {
                        timer.reset(ms(20));
                    }
                }
                recv(timer) -> due => {
                    assert!(reactor.now() >= due);
                    break;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        drop(busy);
        feeder.join().unwrap();
    });
}

/// Go runtime/proc_test.go: TestTimerFairness2
#[test]
fn a_loop_that_never_sleeps_sees_timers() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let own = reactor.register(rx).unwrap();
        let deadline = reactor.after(ms(10));
        let ticker = reactor.every(ms(2)).unwrap();
        let (mut turns, mut ticks, mut over) = (0_u64, 0, false);
        while turns < 100 || ticks < 5 || !over {
            // The loop holds both ends of a channel for one message, so one end is always ready.
            select! { reactor;
                send(to, 0) -> sent => { sent.unwrap(); turns += 1 }
                recv(own) -> n => { n.unwrap(); turns += 1 }
                recv(ticker) -> _ => ticks += 1,
                recv(deadline) -> _ => over = true,
            }
        }
    });
}

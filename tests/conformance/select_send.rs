//! `send` cases of `select!`: crossbeam-channel's tests/select.rs for senders, and the rules of
//! permits.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel::{self, RecvError, SendError, Sender, TryRecvError, TrySendError};
use pollmux::{Outbox, Reactor, select};
use support::thread;

use crate::common::{Drops, LONG, ms, reactor};
use crate::support::{aside, inbox, later, outbox, until, watched};

fn no_value() -> i32 {
    panic!("no value")
}

/// crossbeam-channel tests/select.rs: smoke1, sending
#[test]
fn select_sends_to_the_channel_with_room() {
    watched(|| {
        let reactor = reactor();
        let (full, full_rx) = outbox(&reactor, 1);
        let (free, free_rx) = outbox(&reactor, 1);
        full.try_send(0).unwrap();
        select! { reactor;
            send(full, 1) -> _ => panic!("sent to a full channel"),
            send(free, 2) -> sent => assert_eq!(sent, Ok(())),
        }
        assert_eq!((full_rx.try_recv(), free_rx.try_recv()), (Ok(0), Ok(2)));
        assert_eq!(
            (full_rx.try_recv(), free_rx.try_recv()),
            (Err(TryRecvError::Empty), Err(TryRecvError::Empty))
        );
    });
}

/// crossbeam-channel tests/select.rs: default, sending to an unbounded channel
#[test]
fn an_unbounded_channel_always_has_room() {
    watched(|| {
        let reactor = reactor();
        let (tx, rx) = channel::unbounded();
        let endless = reactor.register(tx).unwrap();
        for n in 0..1_000 {
            select! { reactor;
                send(endless, n) -> sent => assert_eq!(sent, Ok(())),
                default => panic!("no room was found"),
            }
        }
        assert!(rx.try_iter().eq(0..1_000));
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending
#[test]
fn a_dropped_receiver_returns_the_value() {
    watched(|| {
        let reactor = reactor();
        for capacity in [0, 1] {
            let (orphan, rx) = outbox(&reactor, capacity);
            let (full, _full_rx) = outbox(&reactor, 0);
            drop(rx);
            for n in 0..3 {
                select! { reactor;
                    send(full, 100) -> _ => panic!("sent without a receiver"),
                    send(orphan, n) -> sent => assert_eq!(sent, Err(SendError(n))),
                }
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending (preflight: a disconnection comes
/// before room)
#[test]
fn room_of_a_disconnected_channel_is_unused() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (orphan, rx) = outbox(&reactor, 4);
        orphan.try_send(drops.message()).unwrap();
        drop(rx);
        assert_eq!(drops.count(), 1, "the receiver's drop must drop its messages");
        select! { reactor; send(orphan, drops.message()) -> sent => {
            assert!(sent.is_err());
            assert_eq!(drops.count(), 1, "the value must come back");
        }}
        assert_eq!(drops.count(), 2);
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending
#[test]
fn dropping_the_receiver_ends_a_senders_sleep() {
    watched(|| {
        for capacity in [0, 1] {
            let reactor = reactor();
            let (leaving, rx) = outbox(&reactor, capacity);
            let (full, _full_rx) = outbox(&reactor, 0);
            (0..capacity).for_each(|n| leaving.try_send(n).unwrap());
            let start = Instant::now();
            let _leaver = later(ms(30), move || drop(rx));
            select! { reactor;
                send(full, 0) -> _ => panic!("sent without a receiver"),
                send(leaving, 7) -> sent => assert_eq!(sent, Err(SendError(7))),
                default(LONG) => panic!("the disconnection did not wake the select"),
            }
            assert!(start.elapsed() >= ms(30));
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending (the receiver is an inbox of another
/// reactor)
#[test]
fn dropping_an_inbox_releases_its_senders() {
    watched(|| {
        let reactor = reactor();
        let (leaving, rx) = outbox(&reactor, 0);
        let _leaver = aside(move || {
            let reactor = ::support::reactor();
            let inbox = reactor.register(rx).unwrap();
            select! { reactor;
                recv(inbox) -> n => assert_eq!(n, Ok(1)),
            }
            drop(inbox);
        });
        for n in 1..3 {
            select! { reactor;
                send(leaving, n) -> sent => assert_eq!(sent.is_ok(), n == 1),
                default(LONG) => panic!("the sender was not released"),
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: default, sending
#[test]
fn a_full_channel_leaves_default() {
    watched(|| {
        let reactor = reactor();
        let (bounded, rx) = outbox(&reactor, 1);
        let (meeting, _rx) = outbox(&reactor, 0);
        let turn = |n| {
            select! { reactor;
                send(bounded, n) -> sent => sent.is_ok(),
                send(meeting, n) -> _ => panic!("sent without a receiver"),
                default => false,
            }
        };
        assert!(turn(1));
        assert!(!turn(2));
        assert_eq!(rx.try_recv(), Ok(1));
        assert!(turn(3));
        assert_eq!(rx.try_recv(), Ok(3));
    });
}

/// crossbeam-channel tests/select_macro.rs: default
#[test]
fn a_case_not_chosen_evaluates_no_value() {
    watched(|| {
        let reactor = reactor();
        let (full, _rx) = outbox::<i32>(&reactor, 0);
        let (tx, messages) = inbox(&reactor, 1);
        tx.send(()).unwrap();
        let asked = Cell::new(0);
        let ask = || asked.replace(asked.get() + 1);
        select! { reactor;
            send(full, ask()) -> _ => panic!(),
            recv(messages) -> _ => {}
        }
        select! { reactor; send(full, ask()) -> _ => panic!(), default => {} }
        select! { reactor; send(full, ask()) -> _ => panic!(), default(ms(1)) => {} }
        assert_eq!(asked.get(), 0);
        let (free, rx) = outbox(&reactor, 1);
        select! { reactor; send(free, ask()) -> sent => assert_eq!(sent, Ok(())) }
        assert_eq!((asked.get(), rx.try_recv()), (1, Ok(0)));
    });
}

/// crossbeam-channel tests/select.rs: timeout, sending
#[test]
fn a_send_may_succeed_after_a_timeout() {
    watched(|| {
        let reactor = reactor();
        let (bounded, rx) = outbox(&reactor, 1);
        bounded.try_send(0).unwrap();
        let start = Instant::now();
        select! { reactor;
            send(bounded, 1) -> _ => panic!("sent to a full channel"),
            default(ms(25)) => assert!(start.elapsed() >= ms(25)),
        }
        let _receiver = later(ms(15), move || {
            assert_eq!(rx.recv(), Ok(0));
            assert_eq!(rx.recv(), Ok(2));
        });
        select! { reactor;
            send(bounded, 2) -> sent => assert_eq!(sent, Ok(())),
            default(LONG) => panic!("no room was found"),
        }
    });
}

/// crossbeam-channel tests/select.rs: timeout at a rendezvous
#[test]
fn an_expired_offer_is_withdrawn() {
    watched(|| {
        let reactor = reactor();
        let (meeting, rx) = outbox(&reactor, 0);
        select! { reactor;
            send(meeting, 1) -> _ => panic!("sent without a receiver"),
            default(ms(5)) => {}
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert!(rx.recv_timeout(ms(5)).is_err());
    });
}

/// crossbeam-channel tests/select.rs: unblocks, sending
#[test]
fn a_receiver_at_any_case_ends_the_sleep() {
    watched(|| {
        let reactor = reactor();
        let (meeting, rx0) = outbox(&reactor, 0);
        let (bounded, rx1) = outbox(&reactor, 1);
        bounded.try_send(100).unwrap();
        let (go, rounds) = channel::bounded(0);
        let receiver = thread::spawn(move || {
            let mut got = Vec::new();
            for round in &rounds {
                thread::sleep(ms(3));
                got.push(if round % 2 == 0 { rx0.recv() } else { rx1.recv() });
            }
            (got, rx0, rx1)
        });
        for n in 0..6 {
            go.send(n).unwrap();
            select! { reactor;
                send(meeting, n) -> sent => assert_eq!((sent, n % 2), (Ok(()), 0)),
                send(bounded, n) -> sent => assert_eq!((sent, n % 2), (Ok(()), 1)),
                default(LONG) => panic!("the select was not woken"),
            }
        }
        drop(go);
        let (got, ..) = receiver.join().unwrap();
        assert_eq!(got, [Ok(0), Ok(100), Ok(2), Ok(1), Ok(4), Ok(3)]);
    });
}

/// crossbeam-channel tests/select.rs: both_ready, sending and receiving
#[test]
fn a_turn_either_sends_or_receives() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let (tx, from) = inbox(&reactor, 1);
        tx.send(1).unwrap();
        let mut done = [false; 2];
        for turn in 1..=2 {
            select! { reactor;
                send(to, 2) -> sent => done[0] = sent.is_ok(),
                recv(from) -> n => done[1] = n == Ok(1),
            }
            assert_eq!(rx.len() + 1 - from.len(), turn, "a turn must run one case");
        }
        assert_eq!(done, [true; 2]);
        select! { reactor;
            send(to, 3) -> _ => panic!("sent to a full channel"),
            recv(from) -> _ => panic!("received from an empty channel"),
            default => {}
        }
    });
}

/// crossbeam-channel tests/select.rs: duplicate_operations, sending
#[test]
fn one_outbox_may_have_many_cases() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 256);
        for _ in 0..256 {
            select! { reactor;
                send(to, 0) -> sent => sent.unwrap(),
                send(to, 1) -> sent => sent.unwrap(),
                send(to, 2) -> sent => sent.unwrap(),
            }
        }
        let mut hits = [0; 3];
        rx.try_iter().for_each(|case: usize| hits[case] += 1);
        assert_eq!(hits.iter().sum::<u32>(), 256);
        assert!(hits.iter().all(|&n| n > 0), "{hits:?}");
    });
}

/// crossbeam-channel tests/select.rs: duplicate_operations, blocking on a rendezvous
#[test]
fn equal_rendezvous_offers_are_accepted_once() {
    watched(|| {
        let (tx, rx) = channel::bounded(0);
        let _sender = aside(move || {
            let reactor = reactor();
            let meeting = reactor.register(tx).unwrap();
            for n in 0..200 {
                select! { reactor;
                    send(meeting, n) -> sent => sent.unwrap(),
                    send(meeting, n) -> sent => sent.unwrap(),
                }
            }
        });
        assert!(rx.iter().eq(0..200));
    });
}

/// crossbeam-channel tests/select.rs: nesting, sending
#[test]
fn arms_and_values_may_select_again() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 8);
        select! { reactor; send(to, 0) -> sent => {
            sent.unwrap();
            select! { reactor; send(to, {
                select! { reactor; send(to, 1) -> sent => sent.unwrap() }
                2
            }) -> sent => sent.unwrap() }
        }}
        // A permit reserves no place in the order, so the inner value comes first.
        assert!(rx.try_iter().eq(0..3));
    });
}

/// crossbeam-channel tests/select.rs: loop_try, sending
#[test]
fn a_default_loop_meets_a_blocked_receiver() {
    watched(|| {
        let reactor = reactor();
        for round in 0..20 {
            let (meeting, rx) = outbox(&reactor, 0);
            let waiting = thread::spawn(move || {
                if round % 2 == 0 {
                    thread::sleep(ms(1));
                }
                if round % 4 < 2 {
                    return rx.recv();
                }
                let reactor = ::support::reactor();
                let inbox = reactor.register(rx).unwrap();
                select! { reactor; recv(inbox) -> n => n }
            });
            let mut sent = false;
            while !sent {
                select! { reactor;
                    send(meeting, round) -> result => sent = result.is_ok(),
                    default => thread::yield_now(),
                }
            }
            assert_eq!(waiting.join().unwrap(), Ok(round));
        }
    });
}

/// crossbeam-channel tests/select.rs: two parties that do not block
#[test]
fn two_default_loops_never_meet() {
    watched(|| {
        let reactor = reactor();
        let (meeting, rx) = outbox(&reactor, 0);
        let other = reactor.register(rx).unwrap();
        for _ in 0..100 {
            select! { reactor; send(meeting, 0) -> _ => panic!("a poll was met"), default => {} }
            select! { reactor; recv(other) -> _ => panic!("a poll was met"), default => {} }
            assert_eq!(meeting.try_send(0), Err(TrySendError::Full(0)));
            assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_send
#[test]
fn sends_to_two_channels_lose_nothing() {
    const COUNT: u32 = 4_000;
    watched(|| {
        let reactor = reactor();
        let (meeting, rx0) = outbox(&reactor, 0);
        let (bounded, rx1) = outbox(&reactor, 3);
        let receivers = [rx0, rx1].map(|rx| thread::spawn(move || rx.iter().collect::<Vec<_>>()));
        let mut expected = [Vec::new(), Vec::new()];
        for n in 0..COUNT {
            select! { reactor;
                send(meeting, n) -> sent => { sent.unwrap(); expected[0].push(n) }
                send(bounded, n) -> sent => { sent.unwrap(); expected[1].push(n) }
            }
        }
        drop((meeting, bounded));
        assert_eq!(receivers.map(|receiver| receiver.join().unwrap()), expected);
    });
}

/// crossbeam-channel tests/select.rs: stress_mixed
#[test]
fn two_reactors_send_and_receive_in_select() {
    const COUNT: u32 = 3_000;
    for capacity in [0, 1, 4] {
        watched(move || {
            let (tx1, rx1) = channel::bounded(capacity);
            let (tx2, rx2) = channel::bounded(capacity);
            let party = |tx: Sender<u32>, rx| {
                move || {
                    let reactor = reactor();
                    let (to, from) = (reactor.register(tx).unwrap(), reactor.register(rx).unwrap());
                    let (mut sent, mut received) = (0, 0);
                    while sent < COUNT || received < COUNT {
                        // A finished direction leaves its case out.
                        let to = (sent < COUNT).then_some(&to);
                        let from = (received < COUNT).then_some(&from);
                        select! { reactor;
                            send(to, sent) -> result => {
                                result.unwrap();
                                sent += 1;
                            }
                            recv(from) -> n => {
                                assert_eq!(n, Ok(received));
                                received += 1;
                            }
                        }
                    }
                }
            };
            let _other = aside(party(tx1, rx2));
            party(tx2, rx1)();
        });
    }
}

/// crossbeam-channel tests/select.rs: stress_timeout, sending
#[test]
fn timeouts_racing_accepts_lose_nothing() {
    const COUNT: u64 = 200;
    watched(|| {
        let reactor = reactor();
        let (meeting, rx) = outbox(&reactor, 0);
        let receiver = thread::spawn(move || {
            (0..COUNT)
                .map(|n| {
                    thread::sleep(Duration::from_micros(n * 41 % 700));
                    rx.recv().unwrap()
                })
                .collect::<Vec<_>>()
        });
        let mut next = 0;
        while next < COUNT {
            let start = Instant::now();
            let timeout = Duration::from_micros(300);
            select! { reactor;
                send(meeting, next) -> sent => {
                    sent.unwrap();
                    next += 1;
                }
                default(timeout) => assert!(start.elapsed() >= timeout),
            }
        }
        assert!(receiver.join().unwrap().into_iter().eq(0..COUNT));
    });
}

/// crossbeam-channel tests/zero.rs, Go runtime/chan_test.go: TestSelfSelect (a select does not meet
/// itself)
#[test]
fn a_select_does_not_meet_itself() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 0);
        let from = reactor.register(rx).unwrap();
        for _ in 0..50 {
            select! { reactor;
                send(to, 1) -> _ => panic!("the select met itself"),
                recv(from) -> _ => panic!("the select met itself"),
                default => {}
            }
        }
        select! { reactor;
            send(to, 1) -> _ => panic!("the select met itself"),
            recv(from) -> _ => panic!("the select met itself"),
            default(ms(20)) => {}
        }
        let sender = to.sender().clone();
        let helper = thread::spawn(move || sender.send(2));
        select! { reactor;
            send(to, 1) -> _ => panic!("the select met itself"),
            recv(from) -> n => assert_eq!(n, Ok(2)),
        }
        helper.join().unwrap().unwrap();
    });
}

/// crossbeam-channel tests/select.rs: both sides of one buffered channel
#[test]
fn one_select_may_fill_and_drain_a_buffer() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let from = reactor.register(rx).unwrap();
        let mut log = Vec::new();
        for n in 0..6 {
            select! { reactor;
                send(to, n) -> sent => { sent.unwrap(); log.push(('s', n)) }
                recv(from) -> n => log.push(('r', n.unwrap())),
            }
        }
        assert_eq!(log, [('s', 0), ('r', 0), ('s', 2), ('r', 2), ('s', 4), ('r', 4)]);
    });
}

/// crossbeam-channel tests/select.rs: two parties with the same two channels
#[test]
fn an_offer_at_two_channels_is_accepted_once() {
    watched(|| {
        for round in 0..100 {
            let reactor = reactor();
            let (first, rx1) = outbox(&reactor, 0);
            let (second, rx2) = outbox(&reactor, 0);
            let taken = Arc::new(AtomicUsize::new(0));
            let receivers = [rx1, rx2].map(|rx| {
                let taken = taken.clone();
                thread::spawn(move || {
                    if rx.recv().is_ok() {
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                })
            });
            if round % 2 == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            select! { reactor;
                send(first, 1) -> sent => sent.unwrap(),
                send(second, 2) -> sent => sent.unwrap(),
            }
            drop((first, second));
            receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
            assert_eq!(taken.load(Ordering::SeqCst), 1);
        }
    });
}

/// crossbeam-channel tests/select.rs: two senders and one receiver that waits at both channels
#[test]
fn a_receiver_at_two_channels_gets_one_value() {
    watched(|| {
        for _ in 0..100 {
            let reactor = reactor();
            let (tx1, inbox1) = inbox(&reactor, 0);
            let (tx2, inbox2) = inbox(&reactor, 0);
            let senders = [tx1, tx2].map(|tx| thread::spawn(move || tx.send(()).is_ok()));
            select! { reactor;
                recv(inbox1) -> n => assert_eq!(n, Ok(())),
                recv(inbox2) -> n => assert_eq!(n, Ok(())),
            }
            drop((inbox1, inbox2));
            let sent = senders.map(|sender| sender.join().unwrap());
            assert_eq!(
                sent.iter().filter(|&&sent| sent).count(),
                1,
                "the other sender must get its value back"
            );
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_send (a send case and a bare receive)
#[test]
fn a_send_case_meets_a_bare_receive() {
    watched(|| {
        for capacity in [0, 2] {
            let reactor = reactor();
            let (to, rx) = outbox(&reactor, capacity);
            let receiver = thread::spawn(move || {
                (0..500).for_each(|n| {
                    if n % 100 == 0 {
                        thread::sleep(ms(1));
                    }
                    assert_eq!(rx.recv(), Ok(n));
                });
                rx.recv()
            });
            for n in 0..500 {
                if n % 70 == 0 {
                    thread::sleep(ms(1));
                }
                select! { reactor; send(to, n) -> sent => sent.unwrap() }
            }
            drop(to);
            assert_eq!(receiver.join().unwrap(), Err(RecvError));
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_mixed (a send case and a recv case)
#[test]
fn a_send_case_meets_a_recv_case() {
    watched(|| {
        for capacity in [0, 2] {
            let (tx, rx) = channel::bounded(capacity);
            let sender = thread::spawn(move || {
                let reactor = reactor();
                let to = reactor.register(tx).unwrap();
                for n in 0..1_000 {
                    if n % 90 == 0 {
                        thread::sleep(ms(1));
                    }
                    select! { reactor; send(to, n) -> sent => sent.unwrap() }
                }
            });
            let reactor = reactor();
            let from = reactor.register(rx).unwrap();
            for n in 0..1_000 {
                if n % 130 == 0 {
                    thread::sleep(ms(1));
                }
                select! { reactor; recv(from) -> got => assert_eq!(got, Ok(n)) }
            }
            sender.join().unwrap();
            select! { reactor; recv(from) -> got => assert_eq!(got, Err(RecvError)) }
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_mixed (a send and a recv case, both with a timeout)
#[test]
fn short_timeouts_agree_on_each_send() {
    watched(|| {
        let (tx, rx) = channel::bounded(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sender = thread::spawn(move || {
            let reactor = reactor();
            let to = reactor.register(tx).unwrap();
            let mut sent = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                select! { reactor;
                    send(to, sent) -> result => if result.is_ok() { sent += 1 } else { break },
                    default(Duration::from_micros(1 + sent % 90)) => {}
                }
            }
            sent
        });
        let reactor = reactor();
        let from = reactor.register(rx).unwrap();
        let mut received = 0;
        while received < 1_000 {
            select! { reactor;
                recv(from) -> n => {
                    assert_eq!(n, Ok(received));
                    received += 1;
                }
                default(Duration::from_micros(1 + received % 70)) => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        // The last send may succeed or fail. Both parties must agree on it.
        loop {
            select! { reactor;
                recv(from) -> n => match n {
                    Ok(n) => { assert_eq!(n, received); received += 1 }
                    Err(RecvError) => break,
                },
            }
        }
        assert_eq!(sender.join().unwrap(), received);
    });
}

/// DESIGN 3.12, after crossbeam-channel tests/select_macro.rs: panic_sender
#[test]
fn a_panicking_value_returns_its_room() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        ::support::panic_text(|| {
            select! { reactor; send(to, no_value()) -> _ => {} }
        });
        assert!(rx.is_empty());
        assert_eq!(to.try_send(1), Ok(()), "the room was not returned");
        assert_eq!(to.try_send(2), Err(TrySendError::Full(2)), "the room was returned twice");
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

/// DESIGN 3.12
#[test]
fn a_value_that_fails_returns_its_room() {
    fn send_parsed(
        reactor: &Reactor,
        to: &Outbox<i32>,
        text: &str,
    ) -> Result<(), std::num::ParseIntError> {
        select! { reactor; send(to, text.parse()?) -> sent => sent.unwrap() }
        Ok(())
    }
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        for _ in 0..3 {
            assert!(send_parsed(&reactor, &to, "eleven").is_err());
        }
        assert!(send_parsed(&reactor, &to, "11").is_ok());
        assert_eq!(rx.try_recv(), Ok(11));
    });
}

/// DESIGN 3.12
#[test]
fn a_value_that_breaks_returns_its_room() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 2);
        let mut rounds = 0;
        loop {
            rounds += 1;
            select! { reactor; send(to, match rounds {
                1..=3 => continue,
                9 => break,
                n => n,
            }) -> sent => sent.unwrap() }
            rx.try_recv().unwrap();
        }
        assert_eq!(rounds, 9);
        assert!(rx.is_empty());
        assert_eq!([to.try_send(1), to.try_send(2)], [Ok(()), Ok(())]);
        assert_eq!(to.try_send(3), Err(TrySendError::Full(3)));
    });
}

/// DESIGN 3.12
#[test]
fn a_value_that_returns_returns_its_room() {
    fn send_len(reactor: &Reactor, to: &Outbox<usize>, text: &str) -> &'static str {
        select! { reactor;
            send(to, if text.is_empty() { return "gave up" } else { text.len() }) -> _ => "sent",
        }
    }
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        (0..5).for_each(|_| assert_eq!(send_len(&reactor, &to, ""), "gave up"));
        assert_eq!(send_len(&reactor, &to, "text"), "sent");
        assert_eq!(rx.try_recv(), Ok(4));
    });
}

/// DESIGN 3.12, at a rendezvous
#[test]
fn a_receiver_waits_on_after_a_refused_value() {
    watched(|| {
        for recv_case in [false, true] {
            let reactor = reactor();
            let (meeting, rx) = outbox(&reactor, 0);
            let receiver = thread::spawn(move || {
                if !recv_case {
                    return [rx.recv(), rx.recv()];
                }
                let reactor = ::support::reactor();
                let inbox = reactor.register(rx).unwrap();
                [(); 2].map(|()| select! { reactor; recv(inbox) -> n => n })
            });
            for round in 0..10 {
                ::support::panic_text(|| {
                    if round % 3 == 0 {
                        thread::sleep(ms(1)); // the receiver sleeps first
                    }
                    select! { reactor; send(meeting, no_value()) -> _ => {} }
                });
            }
            select! { reactor; send(meeting, 1) -> sent => assert_eq!(sent, Ok(())) }
            // After the last sender's refused value and its drop the receiver gets an error.
            ::support::panic_text(|| {
                select! { reactor; send(meeting, no_value()) -> _ => {} }
            });
            drop(meeting);
            assert_eq!(receiver.join().unwrap(), [Ok(1), Err(RecvError)]);
        }
    });
}

/// DESIGN 3.12, at a rendezvous
#[test]
fn a_refused_value_frees_the_receiver_for_others() {
    watched(|| {
        let (tx, rx) = channel::bounded(0);
        let other = tx.clone();
        let _breaker = aside(move || {
            let reactor = reactor();
            let meeting = reactor.register(tx).unwrap();
            let mut broken = 0;
            while broken < 200 {
                broken += 1;
                select! { reactor; send(meeting, if broken > 0 { continue } else { 0 }) -> _ => {} }
            }
        });
        let _keeper = aside(move || (1..=100).for_each(|n| other.send(n).unwrap()));
        assert!(rx.iter().eq(1..=100));
    });
}

/// DESIGN 3.12
#[test]
fn no_sender_takes_a_permits_room() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let thief = to.sender().clone();
        select! { reactor;
            send(to, {
                assert_eq!(thief.try_send(9), Err(TrySendError::Full(9)), "room was taken");
                assert!(thief.is_full() && thief.is_empty());
                1
            }) -> sent => assert_eq!(sent, Ok(())),
        }
        assert!(rx.try_iter().eq([1]));
    });
}

/// DESIGN 3.12
#[test]
fn a_permit_blocks_no_other_sender() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 3);
        let other = to.sender().clone();
        let messages = reactor.register(rx).unwrap();
        select! { reactor;
            send(to, {
                // While the permit is held, another thread sends, and this thread receives the
                // message.
                let other = other.clone();
                thread::spawn(move || {
                    other.send(1).unwrap();
                    other.send(2).unwrap();
                    assert_eq!(other.try_send(3), Err(TrySendError::Full(3)));
                })
                .join()
                .unwrap();
                select! { reactor; recv(messages) -> n => assert_eq!(n, Ok(1)) }
                4
            }) -> sent => assert_eq!(sent, Ok(())),
        }
        assert!(messages.try_iter().eq([2, 4]));
    });
}

/// DESIGN 3.12
#[test]
fn returned_room_wakes_a_blocked_sender() {
    watched(|| {
        for case in [false, true] {
            let reactor = reactor();
            let (to, rx) = outbox(&reactor, 1);
            let other = to.sender().clone();
            let waiting = Arc::new(AtomicBool::new(false));
            let flag = waiting.clone();
            let sender = move || {
                flag.store(true, Ordering::SeqCst);
                if case {
                    let reactor = ::support::reactor();
                    let to = reactor.register(other).unwrap();
                    select! { reactor; send(to, 7) -> sent => sent.unwrap() }
                } else {
                    other.send(7).unwrap();
                }
            };
            let waiter = 'given_up: {
                select! { reactor;
                    send(to, {
                        let waiter = thread::spawn(sender);
                        until(|| waiting.load(Ordering::SeqCst));
                        thread::sleep(ms(20)); // by now the sender sleeps, most likely
                        assert!(rx.is_empty());
                        if waiter.is_finished() { 0 } else { break 'given_up waiter }
                    }) -> _ => panic!("the other sender found room in a full channel"),
                }
            };
            assert_eq!(rx.recv_timeout(LONG), Ok(7));
            waiter.join().unwrap();
        }
    });
}

/// DESIGN 3.12
#[test]
fn a_receiver_dropped_during_evaluation_returns_the_value() {
    watched(|| {
        let reactor = reactor();
        for capacity in [1, 3] {
            let drops = Drops::new();
            let (to, rx) = outbox(&reactor, capacity);
            select! { reactor;
                send(to, {
                    drop(rx);
                    drops.message()
                }) -> sent => assert!(sent.is_err()),
            }
            assert_eq!(drops.count(), 1);
        }
    });
}

/// DESIGN 3.12
#[test]
fn a_late_rendezvous_value_is_received_or_returned() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (meeting, rx) = outbox(&reactor, 0);
        let receiver = thread::spawn(move || rx.recv_timeout(ms(20)).is_ok());
        let sent = select! { reactor;
            send(meeting, {
                thread::sleep(ms(40)); // longer than the receiver's timeout
                drops.message()
            }) -> sent => sent.is_ok(),
        };
        // The parties may meet in time or not. Both know the result, and the value exists once.
        assert_eq!(receiver.join().unwrap(), sent);
        assert_eq!(drops.count(), 1);
    });
}

/// crossbeam-channel tests/mpsc.rs and select.rs: several competing senders
#[test]
fn competing_senders_of_every_kind_lose_nothing() {
    const COUNT: u32 = 500;
    watched(|| {
        for capacity in [0, 1, 3] {
            let (tx, rx) = channel::bounded(capacity);
            let _threads: Vec<_> = (0..4_u32)
                .map(|id| {
                    let tx = tx.clone();
                    aside(move || match id {
                        0 | 1 => (0..COUNT).for_each(|n| tx.send((id, n)).unwrap()),
                        _ => {
                            let reactor = reactor();
                            let to = reactor.register(tx).unwrap();
                            for n in 0..COUNT {
                                select! { reactor; send(to, (id, n)) -> sent => sent.unwrap() }
                            }
                        }
                    })
                })
                .collect();
            drop(tx);
            let mut next = [0; 4];
            for (id, n) in &rx {
                assert_eq!(n, next[id as usize], "the messages of a sender were reordered");
                next[id as usize] += 1;
            }
            assert_eq!(next, [COUNT; 4]);
        }
    });
}

/// crossbeam-channel tests/select.rs: competing senders, some of which return their permits
#[test]
fn competing_returned_permits_keep_the_room_exact() {
    const COUNT: u32 = 400;
    watched(|| {
        for capacity in [0, 1, 2] {
            let (tx, rx) = channel::bounded(capacity);
            let threads: Vec<_> = (0..3_u32)
                .map(|id| {
                    let tx = tx.clone();
                    thread::spawn(move || {
                        let reactor = reactor();
                        let to = reactor.register(tx).unwrap();
                        let (mut n, mut tries) = (0, id);
                        while n < COUNT {
                            tries += 1;
                            select! { reactor;
                                send(
                                    to,
                                    if tries % 3 == 0 { continue } else { (id, n) },
                                ) -> sent => sent.unwrap(),
                            }
                            n += 1;
                        }
                    })
                })
                .collect();
            let mut next = [0; 3];
            for _ in 0..3 * COUNT {
                let (id, n) = rx.recv().unwrap();
                assert_eq!(n, next[id as usize]);
                next[id as usize] += 1;
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            // The channel has as much room as at the start.
            (0..capacity).for_each(|_| tx.try_send((0, 0)).unwrap());
            assert!(tx.try_send((0, 0)).is_err_and(|refused| refused.is_full()));
        }
    });
}

/// crossbeam-channel tests/select.rs: fairness_send2
#[test]
fn outboxes_with_room_have_equal_chances() {
    const COUNT: usize = 5_000;
    watched(|| {
        let reactor = reactor();
        let (a, rx_a) = outbox(&reactor, COUNT);
        let (b, rx_b) = outbox(&reactor, COUNT);
        let (c, rx_c) = outbox(&reactor, COUNT);
        let (orphan, _) = outbox(&reactor, 1);
        let mut refused = 0;
        for _ in 0..COUNT {
            select! { reactor;
                send(a, ()) -> sent => sent.unwrap(),
                send(b, ()) -> sent => sent.unwrap(),
                send(c, ()) -> sent => sent.unwrap(),
                send(orphan, ()) -> sent => {
                    assert_eq!(sent, Err(SendError(())));
                    refused += 1;
                }
            }
        }
        let hits = [rx_a.len(), rx_b.len(), rx_c.len(), refused];
        assert_eq!(hits.iter().sum::<usize>(), COUNT);
        assert!(hits.iter().all(|&n| n >= COUNT / 4 / 2), "{hits:?}");
    });
}

/// crossbeam-channel tests/select.rs: linearizable_default, sending
#[test]
fn default_never_beats_free_room() {
    watched(|| {
        let reactor = reactor();
        let (steady, rx) = outbox(&reactor, 1);
        let (noisy, noise) = outbox(&reactor, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let other = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // The noisy channel changes while the other channel stays ready.
                let _ = noise.try_recv();
            }
        });
        let mut missed = 0;
        for n in 0..20_000 {
            let mut sent = false;
            while !sent {
                select! { reactor;
                    send(noisy, n) -> result => result.unwrap(),
                    send(steady, n) -> result => sent = result.is_ok(),
                    default => {
                        missed += 1;
                        sent = true;
                        steady.try_send(n).unwrap();
                    }
                }
            }
            assert_eq!(rx.try_recv(), Ok(n));
        }
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        assert_eq!(missed, 0, "free room was missed");
    });
}

/// crossbeam-channel tests/select.rs: channel_through_channel (a request with a reply channel)
#[test]
fn a_reply_comes_through_a_sent_channel() {
    watched(|| {
        let (requests, rx) = channel::bounded::<(u32, Sender<u32>)>(0);
        let _server = aside(move || {
            let reactor = reactor();
            let inbox = reactor.register(rx).unwrap();
            loop {
                let (n, reply) = select! { reactor; recv(inbox) -> request => match request {
                    Ok(request) => request,
                    Err(RecvError) => break,
                }};
                let reply = reactor.register(reply).unwrap();
                select! { reactor; send(reply, n * n) -> sent => sent.unwrap() }
            }
        });
        let reactor = reactor();
        let to = reactor.register(requests).unwrap();
        for n in 0..200 {
            let (reply, answer) = inbox(&reactor, n as usize % 2);
            select! { reactor; send(to, (n, reply)) -> sent => assert!(sent.is_ok()) }
            select! { reactor; recv(answer) -> square => assert_eq!(square, Ok(n * n)) }
        }
        drop(to);
    });
}

/// crossbeam-channel tests/select.rs: a sender that is dropped by its own arm
#[test]
fn an_arm_may_drop_the_last_sender() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let mut to = Some(to);
        select! { reactor; send(to, 1) -> sent => {
            sent.unwrap();
            to = None;
        }}
        assert!(to.is_none());
        assert_eq!([rx.recv(), rx.recv()], [Ok(1), Err(RecvError)]);
    });
}

/// crossbeam-channel tests/select.rs: send and try_send of one sender
#[test]
fn bare_sends_and_cases_keep_order() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 8);
        to.try_send(0).unwrap();
        select! { reactor; send(to, 1) -> sent => sent.unwrap() }
        to.sender().send(2).unwrap();
        select! { reactor; send(to, 3) -> sent => sent.unwrap() }
        to.into_inner().send(4).unwrap();
        assert!(rx.iter().eq(0..5));
    });
}

/// crossbeam-channel tests/select.rs: values are dropped once
#[test]
fn every_send_value_is_dropped_once() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (to, rx) = outbox(&reactor, 2);
        for _ in 0..2 {
            select! { reactor; send(to, drops.message()) -> sent => assert!(sent.is_ok()) }
        }
        select! { reactor; send(to, drops.message()) -> _ => panic!(), default => {} }
        assert_eq!(drops.count(), 0, "the value for the full channel was evaluated");
        drop(rx.recv());
        assert_eq!(drops.count(), 1);
        drop(rx);
        assert_eq!(drops.count(), 2);
        select! { reactor; send(to, drops.message()) -> sent => {
            assert_eq!(drops.count(), 2);
            drop(sent);
            assert_eq!(drops.count(), 3);
        }}
    });
}

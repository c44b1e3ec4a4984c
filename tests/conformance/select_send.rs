//! `send` cases of `select!`: the behaviours of crossbeam-channel's tests/select.rs for senders,
//! and what a permit adds to them.

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
fn the_one_with_room_is_sent_to() {
    watched(|| {
        let reactor = reactor();
        let (full, full_rx) = outbox(&reactor, 1);
        let (free, free_rx) = outbox(&reactor, 1);
        full.try_send(0).unwrap();
        select! { reactor;
            send(full, 1) -> _ => panic!("there is no room here"),
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
                default => panic!("no room"),
            }
        }
        assert!(rx.try_iter().eq(0..1_000));
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending
#[test]
fn a_channel_without_a_receiver_gives_the_value_back() {
    watched(|| {
        let reactor = reactor();
        for capacity in [0, 1] {
            let (orphan, rx) = outbox(&reactor, capacity);
            let (full, _full_rx) = outbox(&reactor, 0);
            drop(rx);
            for n in 0..3 {
                select! { reactor;
                    send(full, 100) -> _ => panic!("nobody receives here"),
                    send(orphan, n) -> sent => assert_eq!(sent, Err(SendError(n))),
                }
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending (preflight: the end beats room)
#[test]
fn room_in_a_channel_without_a_receiver_is_not_used() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (orphan, rx) = outbox(&reactor, 4);
        orphan.try_send(drops.message()).unwrap();
        drop(rx);
        assert_eq!(drops.count(), 1, "what was in the channel went with the receiver");
        select! { reactor; send(orphan, drops.message()) -> sent => {
            assert!(sent.is_err());
            assert_eq!(drops.count(), 1, "the value came back");
        }}
        assert_eq!(drops.count(), 2);
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending
#[test]
fn the_receiver_that_goes_ends_the_sleep_of_a_sender() {
    watched(|| {
        for capacity in [0, 1] {
            let reactor = reactor();
            let (leaving, rx) = outbox(&reactor, capacity);
            let (full, _full_rx) = outbox(&reactor, 0);
            (0..capacity).for_each(|n| leaving.try_send(n).unwrap());
            let start = Instant::now();
            let _leaver = later(ms(30), move || drop(rx));
            select! { reactor;
                send(full, 0) -> _ => panic!("nobody receives here"),
                send(leaving, 7) -> sent => assert_eq!(sent, Err(SendError(7))),
                default(LONG) => panic!("nobody said that the receiver is gone"),
            }
            assert!(start.elapsed() >= ms(30));
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected, sending (the receiver is an inbox of another
/// reactor)
#[test]
fn an_inbox_or_a_reactor_that_goes_releases_its_senders() {
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
                default(LONG) => panic!("not released"),
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
                send(meeting, n) -> _ => panic!("nobody is there"),
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

/// crossbeam-channel tests/select_macro.rs: default, and what it must not do
#[test]
fn the_value_of_a_case_that_is_not_chosen_is_not_evaluated() {
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
fn a_sender_times_out_and_then_finds_room() {
    watched(|| {
        let reactor = reactor();
        let (bounded, rx) = outbox(&reactor, 1);
        bounded.try_send(0).unwrap();
        let start = Instant::now();
        select! { reactor;
            send(bounded, 1) -> _ => panic!("it is full"),
            default(ms(25)) => assert!(start.elapsed() >= ms(25)),
        }
        let _receiver = later(ms(15), move || {
            assert_eq!(rx.recv(), Ok(0));
            assert_eq!(rx.recv(), Ok(2));
        });
        select! { reactor;
            send(bounded, 2) -> sent => assert_eq!(sent, Ok(())),
            default(LONG) => panic!("there is room"),
        }
    });
}

/// crossbeam-channel tests/select.rs: timeout at a rendezvous
#[test]
fn an_offer_that_timed_out_is_withdrawn() {
    watched(|| {
        let reactor = reactor();
        let (meeting, rx) = outbox(&reactor, 0);
        select! { reactor;
            send(meeting, 1) -> _ => panic!("nobody is there"),
            default(ms(5)) => {}
        }
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        assert!(rx.recv_timeout(ms(5)).is_err());
    });
}

/// crossbeam-channel tests/select.rs: unblocks, sending
#[test]
fn a_receiver_at_any_case_ends_the_sleep_of_a_sender() {
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
                default(LONG) => panic!("not woken"),
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
            assert_eq!(rx.len() + 1 - from.len(), turn, "one of them a turn");
        }
        assert_eq!(done, [true; 2]);
        select! { reactor;
            send(to, 3) -> _ => panic!("it is full"),
            recv(from) -> _ => panic!("it is empty"),
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
fn many_offers_of_one_party_are_accepted_once() {
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
        // The permit of the outer case is no place in the order: the inner value is first.
        assert!(rx.try_iter().eq(0..3));
    });
}

/// crossbeam-channel tests/select.rs: loop_try, sending
#[test]
fn who_tries_to_send_in_a_loop_meets_who_waits() {
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

/// crossbeam-channel tests/select.rs: two who try
#[test]
fn two_who_only_try_do_not_meet_at_a_rendezvous() {
    watched(|| {
        let reactor = reactor();
        let (meeting, rx) = outbox(&reactor, 0);
        let other = reactor.register(rx).unwrap();
        for _ in 0..100 {
            select! { reactor; send(meeting, 0) -> _ => panic!("nobody blocks"), default => {} }
            select! { reactor; recv(other) -> _ => panic!("nobody blocks"), default => {} }
            assert_eq!(meeting.try_send(0), Err(TrySendError::Full(0)));
            assert_eq!(other.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_send
#[test]
fn a_sender_between_two_channels_loses_nothing() {
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
fn two_reactors_send_and_receive_in_one_select() {
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
                        // Who has done its part leaves the case out.
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
fn offers_that_time_out_while_they_are_accepted_lose_nothing() {
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

/// crossbeam-channel tests/zero.rs, Go runtime/chan_test.go: TestSelfSelect (a party does not meet
/// itself)
#[test]
fn the_two_sides_of_one_select_do_not_meet() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 0);
        let from = reactor.register(rx).unwrap();
        for _ in 0..50 {
            select! { reactor;
                send(to, 1) -> _ => panic!("it met itself"),
                recv(from) -> _ => panic!("it met itself"),
                default => {}
            }
        }
        select! { reactor;
            send(to, 1) -> _ => panic!("it met itself"),
            recv(from) -> _ => panic!("it met itself"),
            default(ms(20)) => {}
        }
        let sender = to.sender().clone();
        let helper = thread::spawn(move || sender.send(2));
        select! { reactor;
            send(to, 1) -> _ => panic!("it met itself"),
            recv(from) -> n => assert_eq!(n, Ok(2)),
        }
        helper.join().unwrap().unwrap();
    });
}

/// crossbeam-channel tests/select.rs: both sides of one buffered channel
#[test]
fn one_select_may_fill_and_drain_the_same_buffer() {
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
fn an_offer_at_several_channels_is_accepted_at_one() {
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

/// crossbeam-channel tests/select.rs: two senders meet one receiver that waits at both channels
#[test]
fn a_receiver_at_several_channels_is_given_one_value() {
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
                "the other one gets its value back"
            );
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_send (a send case against a bare receive)
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

/// crossbeam-channel tests/select.rs: stress_mixed (a send case against a recv case)
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

/// crossbeam-channel tests/select.rs: stress_mixed (a send with a timeout against a recv case with
/// one)
#[test]
fn two_impatient_parties_agree_on_what_was_sent() {
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
        // What was under way when the sender stopped was received or not, but both say the same.
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
fn a_value_that_panics_gives_its_room_back() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        ::support::panic_text(|| {
            select! { reactor; send(to, no_value()) -> _ => {} }
        });
        assert!(rx.is_empty());
        assert_eq!(to.try_send(1), Ok(()), "the room is there again");
        assert_eq!(to.try_send(2), Err(TrySendError::Full(2)), "and not twice");
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

/// DESIGN 3.12
#[test]
fn a_value_that_leaves_by_a_question_mark_gives_its_room_back() {
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
fn a_value_that_breaks_or_continues_gives_its_room_back() {
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
fn a_value_that_returns_gives_its_room_back() {
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
fn a_receiver_that_was_promised_a_value_and_gets_none_waits_on() {
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
            // The last sender breaks its promise and goes: that is the end, not a hang.
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
fn a_receiver_whose_promise_was_broken_is_free_for_others() {
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
fn a_permit_is_not_stolen() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 1);
        let thief = to.sender().clone();
        select! { reactor;
            send(to, {
                assert_eq!(thief.try_send(9), Err(TrySendError::Full(9)), "the room is taken");
                assert!(thief.is_full() && thief.is_empty());
                1
            }) -> sent => assert_eq!(sent, Ok(())),
        }
        assert!(rx.try_iter().eq([1]));
    });
}

/// DESIGN 3.12
#[test]
fn a_permit_holds_nobody_up() {
    watched(|| {
        let reactor = reactor();
        let (to, rx) = outbox(&reactor, 3);
        let other = to.sender().clone();
        let messages = reactor.register(rx).unwrap();
        select! { reactor;
            send(to, {
                // Another thread sends, and this one receives it, while the permit is out.
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
fn room_that_is_given_back_wakes_a_sender_that_waits_for_it() {
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
                        thread::sleep(ms(20)); // now it sleeps, most likely
                        assert!(rx.is_empty());
                        if waiter.is_finished() { 0 } else { break 'given_up waiter }
                    }) -> _ => panic!("the other one found room where there was none"),
                }
            };
            assert_eq!(rx.recv_timeout(LONG), Ok(7));
            waiter.join().unwrap();
        }
    });
}

/// DESIGN 3.12
#[test]
fn a_receiver_that_goes_while_the_value_is_made_gives_it_back() {
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
fn a_receiver_that_goes_while_a_promise_is_made_to_it_waits_for_the_value() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (meeting, rx) = outbox(&reactor, 0);
        let receiver = thread::spawn(move || rx.recv_timeout(ms(20)).is_ok());
        let sent = select! { reactor;
            send(meeting, {
                thread::sleep(ms(40)); // beyond the time the receiver has
                drops.message()
            }) -> sent => sent.is_ok(),
        };
        // Whether they met in time is up to the machine; but both know it, and the value exists
        // once.
        assert_eq!(receiver.join().unwrap(), sent);
        assert_eq!(drops.count(), 1);
    });
}

/// crossbeam-channel tests/mpsc.rs and select.rs: several competing senders
#[test]
fn senders_of_every_kind_compete_and_lose_nothing() {
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
                assert_eq!(n, next[id as usize], "each sender's messages are in order");
                next[id as usize] += 1;
            }
            assert_eq!(next, [COUNT; 4]);
        }
    });
}

/// crossbeam-channel tests/select.rs: several competing senders, some of which change their mind
#[test]
fn permits_that_are_given_back_under_competition_leave_the_room_right() {
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
            // As much room as in the beginning.
            (0..capacity).for_each(|_| tx.try_send((0, 0)).unwrap());
            assert!(tx.try_send((0, 0)).is_err_and(|refused| refused.is_full()));
        }
    });
}

/// crossbeam-channel tests/select.rs: fairness_send2
#[test]
fn outboxes_with_room_have_the_same_chance() {
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
fn default_never_wins_over_room_that_nobody_takes() {
    watched(|| {
        let reactor = reactor();
        let (steady, rx) = outbox(&reactor, 1);
        let (noisy, noise) = outbox(&reactor, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let other = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // This case comes and goes while the other one stays ready.
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
        assert_eq!(missed, 0, "there was room all the time");
    });
}

/// crossbeam-channel tests/select.rs: channel_through_channel (a request with a way back)
#[test]
fn an_answer_comes_back_through_a_channel_that_was_sent() {
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
fn bare_sends_and_cases_take_turns_in_order() {
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
fn every_value_is_dropped_once_whatever_became_of_it() {
    watched(|| {
        let reactor = reactor();
        let drops = Drops::new();
        let (to, rx) = outbox(&reactor, 2);
        for _ in 0..2 {
            select! { reactor; send(to, drops.message()) -> sent => assert!(sent.is_ok()) }
        }
        select! { reactor; send(to, drops.message()) -> _ => panic!(), default => {} }
        assert_eq!(drops.count(), 0, "the one for the full channel never was");
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

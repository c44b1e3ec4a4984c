//! `recv` cases of `select!`: the behaviours of crossbeam-channel's tests/select.rs for receivers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel::{self, Receiver, RecvError, Sender, TryRecvError};
use pollmux::select;
use support::thread;

use crate::common::{LONG, ms, reactor};
use crate::support::{aside, inbox, later, watched};

/// crossbeam-channel tests/select.rs: smoke1
#[test]
fn select_receives_from_the_ready_channel() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 4);
        let (tx2, inbox2) = inbox(&reactor, 4);
        tx1.send(1).unwrap();
        select! { reactor;
            recv(inbox1) -> n => assert_eq!(n, Ok(1)),
            recv(inbox2) -> _ => panic!("received from an empty channel"),
        }
        tx2.send(2).unwrap();
        select! { reactor;
            recv(inbox1) -> _ => panic!("received from an empty channel"),
            recv(inbox2) -> n => assert_eq!(n, Ok(2)),
        }
    });
}

/// crossbeam-channel tests/select.rs: smoke2
#[test]
fn the_last_of_five_cases_is_found() {
    watched(|| {
        let reactor = reactor();
        let (_tx1, inbox1) = inbox::<()>(&reactor, 1);
        let (_tx2, inbox2) = inbox::<u8>(&reactor, 1);
        let (_tx3, inbox3) = inbox::<String>(&reactor, 1);
        let (_tx4, inbox4) = inbox::<Vec<u64>>(&reactor, 1);
        let (tx5, inbox5) = inbox(&reactor, 1);
        tx5.send("here").unwrap();
        select! { reactor;
            recv(inbox1) -> _ => panic!(),
            recv(inbox2) -> _ => panic!(),
            recv(inbox3) -> _ => panic!(),
            recv(inbox4) -> _ => panic!(),
            recv(inbox5) -> word => assert_eq!(word, Ok("here")),
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected
#[test]
fn a_disconnected_channel_is_always_ready() {
    watched(|| {
        let reactor = reactor();
        let (_open, quiet) = inbox::<i32>(&reactor, 1);
        let (tx, over) = inbox::<i32>(&reactor, 1);
        drop(tx);
        for _ in 0..3 {
            select! { reactor;
                recv(quiet) -> _ => panic!("the quiet channel was ready"),
                recv(over) -> n => assert_eq!(n, Err(RecvError)),
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected
#[test]
fn dropping_the_last_sender_ends_the_sleep() {
    watched(|| {
        for capacity in [0, 1] {
            let reactor = reactor();
            let (tx, ending) = inbox::<i32>(&reactor, capacity);
            let (_open, quiet) = inbox::<i32>(&reactor, capacity);
            let other = tx.clone();
            let start = Instant::now();
            let _leaver = aside(move || {
                drop(other);
                thread::sleep(ms(30));
                drop(tx);
            });
            select! { reactor;
                recv(quiet) -> _ => panic!("the quiet channel was ready"),
                recv(ending) -> n => assert_eq!(n, Err(RecvError)),
                default(LONG) => panic!("the disconnection did not wake the select"),
            }
            assert!(start.elapsed() >= ms(30), "the select ended before the last drop");
        }
    });
}

/// crossbeam-channel tests/select.rs: disconnected (one channel ends, the other stays open)
#[test]
fn a_loop_continues_with_the_open_channel() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 8);
        let (tx2, inbox2) = inbox(&reactor, 8);
        tx1.send(1).unwrap();
        drop(tx1);
        let later = thread::spawn(move || (10..20).for_each(|n| tx2.send(n).unwrap()));
        let (mut first, mut second) = (Some(inbox1), Some(inbox2));
        let mut got = Vec::new();
        while first.is_some() || second.is_some() {
            select! { reactor;
                recv(first) -> n => match n {
                    Ok(n) => got.push(n),
                    Err(RecvError) => first = None,
                },
                recv(second) -> n => match n {
                    Ok(n) => got.push(n),
                    Err(RecvError) => second = None,
                },
            }
        }
        later.join().unwrap();
        got.sort_unstable();
        assert_eq!(got, [1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    });
}

/// crossbeam-channel tests/select.rs: default
#[test]
fn default_runs_only_without_ready_cases() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 1);
        let (_tx2, inbox2) = inbox::<i32>(&reactor, 1);
        let ran = select! { reactor;
            recv(inbox1) -> _ => false,
            recv(inbox2) -> _ => false,
            default => true,
        };
        assert!(ran);
        tx1.send(3).unwrap();
        select! { reactor;
            recv(inbox2) -> _ => panic!(),
            recv(inbox1) -> n => assert_eq!(n, Ok(3)),
            default => panic!("a message was missed"),
        }
    });
}

/// crossbeam-channel tests/select.rs: default (when disconnected)
#[test]
fn a_disconnection_beats_default() {
    watched(|| {
        let reactor = reactor();
        let (tx, over) = inbox::<i32>(&reactor, 1);
        drop(tx);
        select! { reactor;
            recv(over) -> n => assert_eq!(n, Err(RecvError)),
            default => panic!("the disconnection was missed"),
        }
        select! { reactor;
            recv(over) -> n => assert_eq!(n, Err(RecvError)),
            default(LONG) => panic!("the disconnection was missed"),
        }
    });
}

/// crossbeam-channel tests/select.rs: default (default_only)
#[test]
fn default_alone_runs_after_its_timeout() {
    watched(|| {
        let reactor = reactor();
        assert_eq!(select! { reactor; default => 7 }, 7);
        let start = Instant::now();
        select! { reactor; default(ms(25)) => {} }
        assert!(start.elapsed() >= ms(25));
    });
}

/// crossbeam-channel tests/select.rs: timeout
#[test]
fn a_timeout_is_not_early_nor_loses_messages() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 1);
        let (_open, quiet) = inbox::<i32>(&reactor, 1);
        let start = Instant::now();
        select! { reactor;
            recv(messages) -> _ => panic!("received before the send"),
            recv(quiet) -> _ => panic!(),
            default(ms(30)) => assert!(start.elapsed() >= ms(30)),
        }
        let sender = thread::spawn(move || {
            thread::sleep(ms(20));
            tx.send(5).unwrap();
            tx
        });
        select! { reactor;
            recv(messages) -> n => assert_eq!(n, Ok(5)),
            recv(quiet) -> _ => panic!(),
            default(LONG) => panic!("the message was missed"),
        }
        drop(sender.join().unwrap());
    });
}

/// crossbeam-channel tests/select.rs: timeout (zero)
#[test]
fn a_zero_timeout_is_default() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 1);
        let timed_out = select! { reactor;
            recv(messages) -> _ => false,
            default(Duration::ZERO) => true,
        };
        assert!(timed_out);
        tx.send(1).unwrap();
        select! { reactor;
            recv(messages) -> n => assert_eq!(n, Ok(1)),
            default(Duration::ZERO) => panic!("a message was missed"),
        }
    });
}

/// crossbeam-channel tests/select.rs: timeout (overflow)
#[test]
fn an_overflowing_timeout_waits_for_a_message() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 1);
        let _sender = later(ms(10), move || tx.send(1).unwrap());
        select! { reactor;
            recv(messages) -> n => assert_eq!(n, Ok(1)),
            default(Duration::MAX) => panic!("an infinite timeout expired"),
        }
    });
}

/// crossbeam-channel tests/select.rs: default_when_disconnected with a timeout
#[test]
fn a_disconnection_ends_a_timeout() {
    watched(|| {
        let reactor = reactor();
        let (tx, ending) = inbox::<i32>(&reactor, 2);
        let _leaver = later(ms(10), move || drop(tx));
        select! { reactor;
            recv(ending) -> n => assert_eq!(n, Err(RecvError)),
            default(LONG) => panic!("the disconnection was missed"),
        }
    });
}

/// crossbeam-channel tests/select.rs: unblocks
#[test]
fn a_message_to_any_case_ends_the_sleep() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 0);
        let (tx2, inbox2) = inbox(&reactor, 4);
        for round in 0..6 {
            let (tx1, tx2) = (tx1.clone(), tx2.clone());
            let _sender = later(ms(5), move || {
                if round % 2 == 0 { tx1.send(round).unwrap() } else { tx2.send(round).unwrap() }
            });
            select! { reactor;
                recv(inbox1) -> n => assert_eq!((n, round % 2), (Ok(round), 0)),
                recv(inbox2) -> n => assert_eq!((n, round % 2), (Ok(round), 1)),
                default(LONG) => panic!("the select was not woken"),
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: both_ready
#[test]
fn each_turn_takes_one_ready_case() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 1);
        let (tx2, inbox2) = inbox(&reactor, 1);
        tx1.send(1).unwrap();
        tx2.send(2).unwrap();
        let mut sum = 0;
        for left in [1, 0] {
            select! { reactor;
                recv(inbox1) -> n => sum += n.unwrap(),
                recv(inbox2) -> n => sum += n.unwrap(),
            }
            assert_eq!(
                inbox1.len() + inbox2.len(),
                left,
                "a case that is not chosen must not receive"
            );
        }
        assert_eq!(sum, 3);
    });
}

/// crossbeam-channel tests/select.rs: preflight1, preflight2
#[test]
fn buffered_messages_come_before_the_disconnection() {
    watched(|| {
        let reactor = reactor();
        let (tx, rx) = channel::unbounded();
        thread::spawn(move || (0..3).for_each(|n| tx.send(n).unwrap())).join().unwrap();
        let buffered = reactor.register(rx).unwrap();
        let mut got = Vec::new();
        for _ in 0..5 {
            select! { reactor; recv(buffered) -> n => got.push(n) }
        }
        assert_eq!(got, [Ok(0), Ok(1), Ok(2), Err(RecvError), Err(RecvError)]);
    });
}

/// crossbeam-channel tests/select.rs: preflight3
#[test]
fn a_drained_channel_reports_its_disconnection() {
    watched(|| {
        let reactor = reactor();
        let (tx, rx) = channel::bounded(4);
        tx.send(()).unwrap();
        drop(tx);
        assert_eq!(rx.try_recv(), Ok(()));
        let over = reactor.register(rx).unwrap();
        select! { reactor; recv(over) -> n => assert_eq!(n, Err(RecvError)) }
    });
}

/// crossbeam-channel tests/select.rs: duplicate_operations
#[test]
fn one_inbox_may_have_many_cases() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 256);
        (0..256).for_each(|n| tx.send(n).unwrap());
        let mut hits = [0; 3];
        for expected in 0..256 {
            let (case, n) = select! { reactor;
                recv(messages) -> n => (0, n),
                recv(messages) -> n => (1, n),
                recv(messages) -> n => (2, n),
            };
            assert_eq!(n, Ok(expected), "each message once, in order");
            hits[case] += 1;
        }
        // One of three cases stays at zero with a probability below 1e-44.
        assert!(hits.iter().all(|&n| n > 0), "{hits:?}");
        drop(tx);
        select! { reactor;
            recv(messages) -> n => assert_eq!(n, Err(RecvError)),
            recv(messages) -> n => assert_eq!(n, Err(RecvError)),
        }
    });
}

/// crossbeam-channel tests/select.rs: duplicate_operations, blocking
#[test]
fn many_cases_of_one_rendezvous_take_one_value() {
    watched(|| {
        let reactor = reactor();
        let (tx, meeting) = inbox(&reactor, 0);
        let _sender = aside(move || {
            for n in 0..50 {
                if n % 10 == 0 {
                    // At times the receiver is asleep before the send.
                    thread::sleep(ms(2));
                }
                tx.send(n).unwrap();
            }
        });
        for expected in 0..50 {
            select! { reactor;
                recv(meeting) -> n => assert_eq!(n, Ok(expected)),
                recv(meeting) -> n => assert_eq!(n, Ok(expected)),
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: duplicate_operations; Go runtime/chan_test.go:
/// TestPseudoRandomSend, receiving
#[test]
fn equal_cases_of_a_rendezvous_are_even() {
    const COUNT: usize = 200;
    watched(|| {
        let reactor = reactor();
        let (tx, meeting) = inbox(&reactor, 0);
        // Sender and receiver come first by turns. Mostly the receiver sleeps before the send.
        let sender = thread::spawn(move || {
            for n in 0..COUNT {
                if n % 2 == 0 {
                    thread::sleep(Duration::from_micros(300));
                }
                tx.send(()).unwrap();
            }
        });
        let mut hits = [0; 2];
        for _ in 0..COUNT {
            select! { reactor;
                recv(meeting) -> n => { n.unwrap(); hits[0] += 1 }
                recv(meeting) -> n => { n.unwrap(); hits[1] += 1 }
            }
        }
        sender.join().unwrap();
        // About 7 standard deviations from the middle.
        assert!(hits.iter().all(|&n| n >= COUNT / 4), "{hits:?}");
    });
}

/// crossbeam-channel tests/select.rs: nesting
#[test]
fn an_arm_may_select_from_its_channels() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 4);
        (0..4).for_each(|n| tx.send(n).unwrap());
        select! { reactor; recv(messages) -> n => {
            assert_eq!(n, Ok(0));
            select! { reactor; recv(messages) -> n => {
                assert_eq!(n, Ok(1));
                select! { reactor; recv(messages) -> n => {
                    assert_eq!(n, Ok(2));
                    select! { reactor; recv(messages) -> n => assert_eq!(n, Ok(3)) }
                }}
            }}
        }}
        assert!(messages.is_empty());
    });
}

/// crossbeam-channel tests/select.rs: loop_try
#[test]
fn a_default_loop_meets_a_blocked_sender() {
    watched(|| {
        for round in 0..20 {
            let (tx, rx) = channel::bounded(0);
            let _waiting = aside(move || {
                if round % 2 == 0 {
                    thread::sleep(ms(1));
                }
                tx.send(round).unwrap();
            });
            let reactor = reactor();
            let meeting = reactor.register(rx).unwrap();
            loop {
                select! { reactor;
                    recv(meeting) -> n => {
                        assert_eq!(n, Ok(round));
                        break;
                    }
                    default => thread::yield_now(),
                }
            }
        }
    });
}

/// crossbeam-channel tests/select.rs: stress_recv
#[test]
fn streams_arrive_complete_and_in_order() {
    const COUNT: u32 = 5_000;
    watched(|| {
        let reactor = reactor();
        let (tx1, rx1) = channel::unbounded();
        let (tx2, inbox2) = inbox(&reactor, 5);
        let (tx3, inbox3) = inbox(&reactor, 0);
        let inbox1 = reactor.register(rx1).unwrap();
        // The threads return their senders, so that no channel disconnects before all messages are
        // read.
        let stream = |tx: Sender<u32>| {
            thread::spawn(move || {
                (0..COUNT).for_each(|n| tx.send(n).unwrap());
                tx
            })
        };
        let streams = [stream(tx1), stream(tx2), stream(tx3)];
        let mut next = [0; 3];
        for _ in 0..3 * COUNT {
            let (channel, n) = select! { reactor;
                recv(inbox1) -> n => (0, n),
                recv(inbox2) -> n => (1, n),
                recv(inbox3) -> n => (2, n),
            };
            assert_eq!(n, Ok(next[channel]));
            next[channel] += 1;
        }
        assert_eq!(next, [COUNT; 3]);
        streams.into_iter().for_each(|stream| drop(stream.join().unwrap()));
    });
}

/// crossbeam-channel tests/select.rs: stress_timeout
#[test]
fn timeouts_racing_messages_lose_none() {
    const COUNT: u64 = 200;
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 0);
        let (tx2, inbox2) = inbox(&reactor, 2);
        let sender = thread::spawn(move || {
            for n in 0..COUNT {
                thread::sleep(Duration::from_micros(n * 37 % 900));
                if n % 2 == 0 { tx1.send(n).unwrap() } else { tx2.send(n).unwrap() }
            }
            (tx1, tx2)
        });
        let mut got = Vec::new();
        while got.len() < COUNT as usize {
            let start = Instant::now();
            let timeout = Duration::from_micros(400);
            select! { reactor;
                recv(inbox1) -> n => got.push(n.unwrap()),
                recv(inbox2) -> n => got.push(n.unwrap()),
                default(timeout) => assert!(start.elapsed() >= timeout),
            }
        }
        drop(sender.join().unwrap());
        got.sort_unstable();
        assert!(got.into_iter().eq(0..COUNT));
    });
}

/// crossbeam-channel tests/select.rs: channel_through_channel
#[test]
fn receivers_can_be_sent_through_channels() {
    struct Link(Receiver<Link>);
    watched(|| {
        const COUNT: usize = 200;
        let (first, rx) = channel::bounded(1);
        let walker = thread::spawn(move || {
            let reactor = reactor();
            let mut next = reactor.register(rx).unwrap();
            let mut links = 0;
            loop {
                let link = select! { reactor; recv(next) -> link => link };
                match link {
                    Ok(Link(rx)) => next = reactor.register(rx).unwrap(),
                    Err(RecvError) => break links,
                }
                links += 1;
            }
        });
        let mut tx: Sender<Link> = first;
        for n in 0..COUNT {
            let (next, rx) = channel::bounded(n % 2);
            tx.send(Link(rx)).unwrap_or_else(|_| panic!("the walker ended early"));
            tx = next;
        }
        drop(tx);
        assert_eq!(walker.join().unwrap(), COUNT);
    });
}

/// crossbeam-channel tests/select.rs: linearizable_default
#[test]
fn default_never_beats_an_earlier_message() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 1);
        let (noise, noisy) = inbox(&reactor, 1);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // The noisy channel changes while the other channel stays ready.
                    let _ = noise.try_send(0);
                }
            });
            for n in 0..20_000 {
                tx.try_send(n).unwrap();
                let got = loop {
                    select! { reactor;
                        recv(noisy) -> _ => {}
                        recv(messages) -> n => break n,
                        default => {
                            stop.store(true, Ordering::Relaxed);
                            panic!("a message was missed");
                        }
                    }
                };
                assert_eq!(got, Ok(n));
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

/// crossbeam-channel tests/select.rs: fairness1
#[test]
fn channels_timers_and_disconnections_have_equal_chances() {
    const COUNT: usize = 5_000;
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, COUNT);
        let (tx2, rx2) = channel::unbounded();
        let inbox2 = reactor.register(rx2).unwrap();
        let (gone, over) = inbox::<()>(&reactor, 1);
        let timer = reactor.timer();
        drop(gone);
        let mut hits = [0; 4];
        for n in 0..COUNT {
            tx1.send(n).unwrap();
            tx2.send(n).unwrap();
            timer.reset(Duration::ZERO);
            select! { reactor;
                recv(inbox1) -> _ => hits[0] += 1,
                recv(inbox2) -> _ => hits[1] += 1,
                recv(over) -> _ => hits[2] += 1,
                recv(timer) -> _ => hits[3] += 1,
            }
        }
        // crossbeam's bound: each case has at least half of its share. The expected count is 1,250,
        // with a deviation of 31.
        assert!(hits.iter().all(|&n| n >= COUNT / 4 / 2), "{hits:?}");
    });
}

/// crossbeam-channel tests/select.rs: fairness2
#[test]
fn rendezvous_and_buffered_channels_are_all_served() {
    const COUNT: usize = 3_000;
    watched(|| {
        let reactor = reactor();
        let (tx1, rx1) = channel::unbounded::<()>();
        let inbox1 = reactor.register(rx1).unwrap();
        let (tx2, inbox2) = inbox::<()>(&reactor, 1);
        let (tx3, inbox3) = inbox::<()>(&reactor, 0);
        let senders = [
            thread::spawn(move || while tx1.len() > 8 || tx1.send(()).is_ok() {}),
            thread::spawn(move || while tx2.send(()).is_ok() {}),
            thread::spawn(move || while tx3.send(()).is_ok() {}),
        ];
        let mut hits = [0; 3];
        for turn in 0.. {
            select! { reactor;
                recv(inbox1) -> _ => hits[0] += 1,
                recv(inbox2) -> _ => hits[1] += 1,
                recv(inbox3) -> _ => hits[2] += 1,
            }
            if turn >= COUNT && hits.iter().all(|&n| n >= COUNT / 50) {
                break;
            }
        }
        drop((inbox1, inbox2, inbox3));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// crossbeam-channel tests/select.rs: recv (bare senders and a case)
#[test]
fn bare_sends_meet_a_rendezvous_case() {
    watched(|| {
        let reactor = reactor();
        let (tx, meeting) = inbox(&reactor, 0);
        let (_open, quiet) = inbox::<u32>(&reactor, 0);
        let _senders: Vec<_> = (0..3_u32)
            .map(|id| {
                let tx = tx.clone();
                aside(move || (0..300).for_each(|n| tx.send(id * 1_000 + n).unwrap()))
            })
            .collect();
        drop(tx);
        let mut next = [0; 3];
        loop {
            let message = select! { reactor;
                recv(quiet) -> _ => panic!("received from the quiet channel"),
                recv(meeting) -> message => message,
            };
            let Ok(message) = message else { break };
            let next = &mut next[message as usize / 1_000];
            assert_eq!(message % 1_000, *next);
            *next += 1;
        }
        assert_eq!(next, [300; 3]);
    });
}

/// crossbeam-channel tests/select.rs: one channel used with select and without it
#[test]
fn bare_receives_and_cases_may_alternate() {
    watched(|| {
        let reactor = reactor();
        let (tx, messages) = inbox(&reactor, 8);
        (0..6).for_each(|n| tx.send(n).unwrap());
        assert_eq!(messages.try_recv(), Ok(0));
        select! { reactor; recv(messages) -> n => assert_eq!(n, Ok(1)) }
        assert!(messages.drain(2).eq([2, 3]));
        select! { reactor; recv(messages) -> n => assert_eq!(n, Ok(4)) }
        let bare = messages.into_inner();
        assert_eq!(bare.recv(), Ok(5));
        assert_eq!(bare.try_recv(), Err(TryRecvError::Empty));
    });
}

/// crossbeam-channel tests/select.rs: a receiver that moves to another thread
#[test]
fn a_receiver_can_move_between_reactors() {
    watched(|| {
        let (tx, rx) = channel::bounded(4);
        let producer = thread::spawn(move || (0..400).for_each(|n| tx.send(n).unwrap()));
        let mut rx = rx;
        for stage in 0..4 {
            // Each thread reads a part with its own reactor and passes the receiver on.
            rx = thread::spawn(move || {
                let reactor = ::support::reactor();
                let part = reactor.register(rx).unwrap();
                for n in stage * 100..(stage + 1) * 100 {
                    select! { reactor; recv(part) -> got => assert_eq!(got, Ok(n)) }
                }
                part.into_inner()
            })
            .join()
            .unwrap();
        }
        producer.join().unwrap();
        assert_eq!(rx.recv(), Err(RecvError));
    });
}

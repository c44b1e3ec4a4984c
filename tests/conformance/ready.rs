//! Reports of ready sources without a receive: crossbeam-channel's tests/ready.rs, with `wait` and
//! keys.

use std::cell::Cell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pollmux::channel::{self, RecvError, TryRecvError};
use pollmux::{Events, Inbox, Reactor, Sim, select};
use support::thread;

use crate::common::{LONG, ms, reactor, sim};
use crate::support::{aside, inbox, later, until, watched};

use ::support::{keys, ready_keys, wait_keys, wait_keys_for};

fn events() -> Events {
    Events::with_capacity(8)
}

/// Makes an inbox with a key, and its first sender.
fn keyed<T>(reactor: &Reactor, key: u64, capacity: usize) -> (channel::Sender<T>, Inbox<T>) {
    let (tx, rx) = channel::bounded(capacity);
    (tx, reactor.register_with(key, rx).unwrap())
}

/// crossbeam-channel tests/ready.rs: smoke1
#[test]
fn the_key_names_the_ready_source() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = keyed(&reactor, 1, 4);
        let (tx2, inbox2) = keyed(&reactor, 2, 4);
        tx1.send("one").unwrap();
        assert_eq!(wait_keys(&reactor), [1]);
        assert_eq!(inbox1.try_recv(), Ok("one"));
        tx2.send("two").unwrap();
        assert_eq!(wait_keys(&reactor), [2]);
        assert_eq!(inbox2.try_recv(), Ok("two"));
    });
}

/// crossbeam-channel tests/ready.rs: smoke2
#[test]
fn a_ready_source_is_found_among_many() {
    watched(|| {
        let reactor = reactor();
        let channels: Vec<_> = (0..500).map(|key| keyed(&reactor, key, 1)).collect();
        for n in [499, 0, 250] {
            channels[n].0.send(n).unwrap();
            assert_eq!(wait_keys(&reactor), [n as u64]);
            assert_eq!(channels[n].1.try_recv(), Ok(n));
        }
        assert!(ready_keys(&reactor).is_empty());
    });
}

/// crossbeam-channel tests/ready.rs: disconnected
#[test]
fn a_disconnection_is_reported_until_received() {
    watched(|| {
        let reactor = reactor();
        let (tx, ending) = keyed::<()>(&reactor, 1, 1);
        let (_tx, _quiet) = keyed::<()>(&reactor, 2, 1);
        drop(tx);
        for _ in 0..3 {
            assert_eq!(ready_keys(&reactor), [1]);
        }
        assert_eq!(ending.try_recv(), Err(TryRecvError::Disconnected));
        // A received disconnection does not keep a loop busy that waits for other channels.
        assert!(ready_keys(&reactor).is_empty());
        assert_eq!(ending.try_recv(), Err(TryRecvError::Disconnected));
    });
}

/// crossbeam-channel tests/ready.rs: disconnected, blocking
#[test]
fn dropping_the_last_sender_ends_a_wait() {
    watched(|| {
        for capacity in [0, 1] {
            let reactor = reactor();
            let mut events = events();
            let (tx, ending) = keyed::<()>(&reactor, 7, capacity);
            let start = Instant::now();
            let _leaver = later(ms(20), move || drop(tx));
            reactor.wait(&mut events).unwrap();
            assert!(start.elapsed() >= ms(20));
            assert_eq!(keys(&events), [7]);
            assert_eq!(ending.try_recv(), Err(TryRecvError::Disconnected));
        }
    });
}

/// crossbeam-channel tests/ready.rs: default
#[test]
fn try_wait_reports_only_ready_sources() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 2);
        let mut events = events();
        reactor.try_wait(&mut events).unwrap();
        assert!(events.is_empty() && events.iter().next().is_none());
        tx.send(()).unwrap();
        reactor.try_wait(&mut events).unwrap();
        assert_eq!((events.len(), keys(&events)), (1, vec![1]));
        inbox.try_recv().unwrap();
        reactor.try_wait(&mut events).unwrap();
        assert!(events.is_empty());
    });
}

/// crossbeam-channel tests/ready.rs: timeout
#[test]
fn a_wait_timeout_is_never_early() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 2);
        let mut events = events();
        let start = Instant::now();
        reactor.wait_timeout(&mut events, ms(25)).unwrap();
        assert!(start.elapsed() >= ms(25) && events.is_empty());
        let _sender = later(ms(10), move || tx.send(3).unwrap());
        reactor.wait_timeout(&mut events, LONG).unwrap();
        assert_eq!(keys(&events), [1]);
        assert_eq!(inbox.try_recv(), Ok(3));
    });
}

/// crossbeam-channel tests/ready.rs: timeout (zero and overflow)
#[test]
fn a_timeout_may_be_zero_or_infinite() {
    watched(|| {
        let reactor = reactor();
        let (tx, _inbox) = keyed(&reactor, 1, 2);
        assert_eq!(wait_keys_for(&reactor, Duration::ZERO), []);
        let sender = ::support::later(ms(5), move || tx.send(3).unwrap());
        assert_eq!(wait_keys_for(&reactor, Duration::MAX), [1]);
        drop(sender);
        assert_eq!(
            wait_keys_for(&reactor, Duration::ZERO),
            [1],
            "a ready source comes before an expired timeout"
        );
    });
}

/// crossbeam-channel tests/ready.rs: unblocks
#[test]
fn a_message_to_any_channel_ends_a_wait() {
    watched(|| {
        let reactor = reactor();
        let channels: Vec<_> = (0..3).map(|key| keyed(&reactor, key, 1)).collect();
        for round in 0..9 {
            let n = round % 3;
            let tx = channels[n].0.clone();
            let _sender = later(ms(3), move || tx.send(round).unwrap());
            assert_eq!(wait_keys(&reactor), [n as u64]);
            assert_eq!(channels[n].1.try_recv(), Ok(round));
        }
    });
}

/// crossbeam-channel tests/ready.rs: both_ready
#[test]
fn all_ready_sources_are_reported_together() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = keyed(&reactor, 1, 1);
        let (tx2, _inbox2) = keyed(&reactor, 2, 1);
        let (_tx3, _inbox3) = keyed::<i32>(&reactor, 3, 1);
        let _timer = reactor.after(Duration::ZERO).with_key(4);
        tx1.send(1).unwrap();
        tx2.send(2).unwrap();
        let mut found = ready_keys(&reactor);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 4]);
        inbox1.try_recv().unwrap();
        let mut found = ready_keys(&reactor);
        found.sort_unstable();
        assert_eq!(found, [2, 4], "the other sources must stay ready");
    });
}

/// crossbeam-channel tests/ready.rs: preflight1, preflight2
#[test]
fn wait_reports_messages_then_the_disconnection() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 4);
        thread::spawn(move || (0..2).for_each(|n| tx.send(n).unwrap())).join().unwrap();
        let mut got = Vec::new();
        while !ready_keys(&reactor).is_empty() {
            got.push(inbox.try_recv());
        }
        assert_eq!(got, [Ok(0), Ok(1), Err(TryRecvError::Disconnected)]);
    });
}

/// crossbeam-channel tests/ready.rs: a channel that is ready before its registration
#[test]
fn messages_before_registration_are_reported() {
    watched(|| {
        let reactor = reactor();
        let (tx, rx) = channel::bounded(1);
        tx.send(1).unwrap();
        let inbox = reactor.register_with(5, rx).unwrap();
        assert_eq!(ready_keys(&reactor), [5]);
        let rx = inbox.into_inner();
        assert!(ready_keys(&reactor).is_empty(), "a deregistered inbox was reported");
        let (other, _clock) = sim();
        let _inbox = other.register_with(6, rx).unwrap();
        assert_eq!((ready_keys(&other), ready_keys(&reactor)), (vec![6], vec![]));
        drop(tx);
    });
}

/// crossbeam-channel tests/ready.rs: readiness is not consumed
#[test]
fn a_source_is_reported_until_drained() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 4);
        (0..3).for_each(|n| tx.send(n).unwrap());
        for n in 0..3 {
            assert_eq!(ready_keys(&reactor), [1]);
            assert_eq!(inbox.try_recv(), Ok(n));
        }
        assert!(ready_keys(&reactor).is_empty());
        let timer = reactor.after(Duration::ZERO).with_key(2);
        for _ in 0..3 {
            assert_eq!(ready_keys(&reactor), [2]);
        }
        select! { reactor; recv(timer) -> _ => {} }
        assert!(ready_keys(&reactor).is_empty());
    });
}

/// crossbeam-channel tests/ready.rs: loop_try (a rendezvous)
#[test]
fn a_blocked_rendezvous_sender_is_reported() {
    watched(|| {
        let reactor = reactor();
        let mut events = events();
        let (tx, inbox) = keyed(&reactor, 1, 0);
        let _sender = aside(move || {
            for n in 0..100 {
                if n % 10 == 0 {
                    thread::sleep(ms(1));
                }
                tx.send(n).unwrap();
            }
        });
        for n in 0..100 {
            reactor.wait(&mut events).unwrap();
            assert_eq!(keys(&events), [1]);
            assert_eq!(inbox.try_recv(), Ok(n));
        }
        reactor.wait(&mut events).unwrap();
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Disconnected));
    });
}

/// crossbeam-channel tests/ready.rs: loop_try (a send case)
#[test]
fn a_blocked_rendezvous_case_is_reported() {
    watched(|| {
        let reactor = reactor();
        let mut events = events();
        let (tx, inbox) = keyed(&reactor, 1, 0);
        let _sender = aside(move || {
            let reactor = ::support::reactor();
            let to = reactor.register(tx).unwrap();
            for n in 0..100 {
                select! { reactor; send(to, n) -> sent => sent.unwrap() }
            }
        });
        for n in 0..100 {
            // The other reactor may wake up and offer again. In between there is no sender.
            let got = loop {
                reactor.wait(&mut events).unwrap();
                match inbox.try_recv() {
                    Err(TryRecvError::Empty) => {}
                    got => break got,
                }
            };
            assert_eq!(got, Ok(n));
        }
    });
}

/// crossbeam-channel tests/ready.rs: an offer that is withdrawn
#[test]
fn a_sender_that_timed_out_is_not_reported() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 0);
        let (gave_up, done) = channel::bounded(1);
        let sender = thread::spawn(move || {
            assert!(tx.send_timeout(1, ms(5)).is_err());
            gave_up.send(tx).unwrap();
        });
        let tx = done.recv().unwrap();
        let mut events = events();
        reactor.wait_timeout(&mut events, ms(5)).unwrap();
        // The channel may be reported once more, but a receive finds it empty.
        assert_eq!(inbox.try_recv(), Err(TryRecvError::Empty));
        assert!(ready_keys(&reactor).is_empty());
        let other = thread::spawn(move || tx.send(2));
        reactor.wait(&mut events).unwrap();
        assert_eq!(inbox.try_recv(), Ok(2));
        sender.join().unwrap();
        other.join().unwrap().unwrap();
    });
}

/// crossbeam-channel tests/ready.rs: stress_recv
#[test]
fn messages_to_many_channels_are_all_found() {
    const COUNT: u32 = 2_000;
    watched(|| {
        let reactor = reactor();
        let mut events = Events::with_capacity(2);
        let (tx0, inbox0) = keyed(&reactor, 0, 1);
        let (tx1, inbox1) = keyed(&reactor, 1, 64);
        let (tx2, rx2) = channel::unbounded();
        let (tx3, inbox3) = keyed(&reactor, 3, 0);
        let inboxes = [inbox0, inbox1, reactor.register_with(2, rx2).unwrap(), inbox3];
        let _senders = [tx0, tx1, tx2, tx3]
            .map(|tx| aside(move || (0..COUNT).for_each(|n| tx.send(n).unwrap())));
        let mut next = [0; 4];
        let mut over = 0;
        while over < 4 {
            reactor.wait(&mut events).unwrap();
            for event in &events {
                let n = event.key() as usize;
                // Take a few messages at a time, so that some are often left.
                for _ in 0..3 {
                    match inboxes[n].try_recv() {
                        Ok(value) => {
                            assert_eq!(value, next[n]);
                            next[n] += 1;
                        }
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Disconnected) => {
                            over += 1;
                            break;
                        }
                    }
                }
            }
        }
        assert_eq!(next, [COUNT; 4]);
    });
}

/// crossbeam-channel tests/ready.rs: stress_timeout
#[test]
fn waits_racing_messages_lose_none() {
    const COUNT: u64 = 200;
    watched(|| {
        let reactor = reactor();
        let mut events = events();
        let (tx, inbox) = keyed(&reactor, 1, 2);
        let _sender = aside(move || {
            for n in 0..COUNT {
                thread::sleep(Duration::from_micros(n * 29 % 500));
                tx.send(n).unwrap();
            }
        });
        let mut next = 0;
        while next < COUNT {
            let start = Instant::now();
            reactor.wait_timeout(&mut events, Duration::from_micros(200)).unwrap();
            if events.is_empty() {
                assert!(start.elapsed() >= Duration::from_micros(200));
            }
            for n in inbox.try_iter() {
                assert_eq!(n, next);
                next += 1;
            }
        }
    });
}

/// crossbeam-channel tests/ready.rs: channel_through_channel
#[test]
fn a_received_channel_can_be_waited_for() {
    watched(|| {
        let reactor = reactor();
        let mut events = events();
        let (tx, outer) = keyed(&reactor, 0, 1);
        let _sender = aside(move || {
            for n in 1..=100_u64 {
                let (inner, rx) = channel::bounded((n % 3) as usize);
                tx.send((n, rx)).unwrap();
                inner.send(n).unwrap();
            }
        });
        for expected in 1..=100 {
            let inner = loop {
                reactor.wait(&mut events).unwrap();
                if let Ok((n, rx)) = outer.try_recv() {
                    assert_eq!(n, expected);
                    break reactor.register_with(n, rx).unwrap();
                }
            };
            while inner.try_recv() != Ok(expected) {
                reactor.wait(&mut events).unwrap();
            }
        }
    });
}

/// crossbeam-channel tests/ready.rs: linearizable_default
#[test]
fn try_wait_finds_earlier_messages() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 1);
        let (noise, noisy) = keyed(&reactor, 2, 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let other = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = noise.try_send(());
            }
        });
        let mut missed = 0;
        let mut events = events();
        for n in 0..20_000 {
            tx.try_send(n).unwrap();
            reactor.try_wait(&mut events).unwrap();
            missed += u32::from(!events.iter().any(|event| event.key() == 1));
            assert_eq!(inbox.try_recv(), Ok(n));
            let _ = noisy.try_recv();
        }
        stop.store(true, Ordering::Relaxed);
        other.join().unwrap();
        assert_eq!(missed, 0);
    });
}

/// crossbeam-channel tests/ready.rs: fairness1
#[test]
fn sources_that_do_not_fit_take_turns() {
    watched(|| {
        let reactor = reactor();
        let channels: Vec<_> = (0..5).map(|key| keyed(&reactor, key, 1)).collect();
        let _timer = reactor.after(Duration::ZERO).with_key(5);
        channels.iter().for_each(|(tx, _)| tx.send(()).unwrap());
        let mut events = Events::with_capacity(2);
        let mut hits = [0; 6];
        for _ in 0..30 {
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), 2);
            events.iter().for_each(|event| hits[event.key() as usize] += 1);
        }
        assert_eq!(hits, [10; 6], "sources that did not fit must come first next time");
    });
}

/// crossbeam-channel tests/ready.rs: fairness2 (a busy channel and a timer)
#[test]
fn a_busy_channel_does_not_hide_a_timer() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 1);
        tx.send(()).unwrap();
        let timer = reactor.timer().with_key(2);
        let mut events = Events::with_capacity(1);
        let mut turns = 0;
        loop {
            reactor.wait(&mut events).unwrap();
            if keys(&events) == [2] {
                break;
            }
            inbox.try_recv().unwrap();
            tx.send(()).unwrap();
            turns += 1;
            // Arm the timer only now, so that the loop is busy when the timer is due.
            if turns == 100 {
                timer.reset(ms(5));
            }
        }
    });
}

/// crossbeam-channel tests/ready.rs: order
#[test]
fn timers_are_reported_by_deadline_then_arming() {
    watched(|| {
        let (reactor, clock) = sim();
        let timers: Vec<_> = [30, 10, 20, 10, 30]
            .iter()
            .zip(0..)
            .map(|(&delay, key)| reactor.after(ms(delay)).with_key(key))
            .collect();
        clock.advance(ms(40));
        assert_eq!(ready_keys(&reactor), [1, 3, 2, 0, 4]);
        // A timer that is armed again goes behind timers with the same deadline.
        timers.iter().for_each(|timer| assert!(timer.reset(ms(10))));
        timers[0].reset(ms(10));
        clock.advance(ms(10));
        assert_eq!(ready_keys(&reactor), [1, 2, 3, 4, 0]);
    });
}

/// crossbeam-channel tests/ready.rs: handling one event changes other sources
#[test]
fn stopped_drained_and_dropped_sources_are_skipped() {
    watched(|| {
        let reactor = reactor();
        let first = reactor.after(Duration::ZERO).with_key(1);
        let stopped = reactor.after(Duration::ZERO).with_key(2);
        let put_off = reactor.after(Duration::ZERO).with_key(3);
        let dropped = Cell::new(Some(reactor.after(Duration::ZERO).with_key(4)));
        let (tx, drained) = keyed(&reactor, 5, 1);
        tx.send(()).unwrap();
        let last = reactor.after(Duration::ZERO).with_key(6);
        let mut events = events();
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 6);
        let mut seen = Vec::new();
        for event in &events {
            seen.push(event.key());
            if event.key() == 1 {
                assert!(stopped.stop() && put_off.reset(LONG));
                drop(dropped.take());
                drained.try_recv().unwrap();
                // A new timer may get the slot of the dropped timer, but not its event.
                dropped.set(Some(reactor.after(LONG).with_key(7)));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 6]);
        drop((first, last));
    });
}

/// crossbeam-channel tests/ready.rs: keys
#[test]
fn keys_are_chosen_or_unique() {
    watched(|| {
        let reactor = reactor();
        let (tx1, inbox1) = inbox(&reactor, 1);
        let (tx2, inbox2) = inbox(&reactor, 1);
        let timer = reactor.after(Duration::ZERO);
        let (notifier, notified) = reactor.notifier();
        tx1.send(()).unwrap();
        tx2.send(()).unwrap();
        notifier.notify();
        let mut expected = vec![inbox1.key(), inbox2.key(), timer.key(), notified.key()];
        let mut found = ready_keys(&reactor);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        expected.dedup();
        assert!(expected.len() == 4 && expected.iter().all(|&key| key >= 1 << 63));
        // The user may give the same key twice.
        let _a = reactor.after(Duration::ZERO).with_key(3);
        let _b = reactor.after(Duration::ZERO).with_key(3);
        assert_eq!(ready_keys(&reactor).iter().filter(|&&key| key == 3).count(), 2);
    });
}

/// crossbeam-channel tests/ready.rs: readiness and select
#[test]
fn wait_and_select_may_alternate() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 4);
        let (to_thread, orders) = channel::bounded::<()>(0);
        let sender = thread::spawn(move || {
            for n in 0.. {
                if orders.recv().is_err() {
                    break;
                }
                thread::sleep(Duration::from_micros(n % 3 * 300));
                tx.send(n).unwrap();
            }
        });
        for n in 0..200 {
            to_thread.send(()).unwrap();
            if n % 5 < 2 {
                select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(n)) }
            } else {
                assert_eq!(wait_keys(&reactor), [1]);
                assert_eq!(inbox.try_recv(), Ok(n));
            }
        }
        drop(to_thread);
        sender.join().unwrap();
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Err(RecvError)) }
    });
}

/// crossbeam-channel tests/ready.rs: a ready channel and its capacity
#[test]
fn a_wait_takes_nothing_from_a_channel() {
    watched(|| {
        let reactor = reactor();
        let (tx, inbox) = keyed(&reactor, 1, 1);
        tx.send(1).unwrap();
        let blocked = Arc::new(AtomicBool::new(false));
        let flag = blocked.clone();
        let sender = thread::spawn(move || {
            flag.store(true, Ordering::SeqCst);
            tx.send(2).unwrap();
        });
        until(|| blocked.load(Ordering::SeqCst));
        (0..100).for_each(|_| assert_eq!(ready_keys(&reactor), [1]));
        assert!(!sender.is_finished(), "sent to a full channel");
        assert_eq!(inbox.try_recv(), Ok(1));
        sender.join().unwrap();
        assert_eq!(ready_keys(&reactor), [1]);
        assert_eq!(inbox.try_recv(), Ok(2));
    });
}

/// DESIGN 2: `wait` fails as a select does, and loses nothing
#[test]
fn a_failed_wait_loses_nothing() {
    watched(|| {
        let sim = Sim::new();
        let reactor = ::support::on(sim.clone());
        let (tx, inbox) = keyed(&reactor, 1, 1);
        let mut events = events();
        let failed = reactor.wait(&mut events).unwrap_err();
        assert_eq!((failed.kind(), events.len()), (ErrorKind::Deadlock, 0));
        tx.send(1).unwrap();
        reactor.wait(&mut events).unwrap();
        assert_eq!(keys(&events), [1]);
        let handle = reactor.handle();
        drop(reactor);
        assert_eq!(events.iter().count(), 0, "sources of a dropped reactor must not be ready");
        assert_eq!(handle.wait(&mut events).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(inbox.try_recv(), Ok(1), "the message must stay in the channel");
    });
}

//! Checks that no operation allocates after warm-up. Each test repeats a group of operations until
//! the reactor is warm, then repeats the group and counts allocations.
//!
//! The counter belongs to the thread, so parallel tests and the other ends of channels do not
//! disturb it. A warm reactor has held the same number of timers, sources and messages before.

use std::cell::Cell;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pollmux::{
    Context, Events, Inbox, Priority, Reactor, Select, Tick, Ticker, Time, Timer, channel,
    reactor::Stats, select, sys::Interest,
};
use support::{allocates_nothing, allocations, simulated, thread};

const FAR: Duration = Duration::from_secs(3600);

fn reactor() -> Reactor {
    Reactor::new().expect("a reactor")
}

fn far_timers(reactor: &Reactor, n: u64) -> Vec<Timer> {
    (0..n).map(|i| reactor.after(FAR + Duration::from_secs(i))).collect()
}

fn ticker(reactor: &Reactor, period: Duration) -> Ticker {
    reactor.every(period).expect("a period")
}

/// Checks [`allocates_nothing`] for an operation that may sleep, and accepts one success in ten
/// attempts. Returns the number of rounds. A busy machine can delay a thread's first sleep, and
/// with that sleep its allocations, for many rounds.
#[track_caller]
fn allocates_nothing_asleep(rounds: u64, mut operation: impl FnMut(u64)) -> u64 {
    for attempt in 1..=10 {
        let end = 2 * attempt * rounds;
        (end - 2 * rounds..end - rounds).for_each(&mut operation);
        let before = allocations();
        (end - rounds..end).for_each(&mut operation);
        if allocations() == before {
            return end;
        }
    }
    panic!("each of ten attempts allocated");
}

/// Repeats [`allocates_nothing`] until the counter `count` of the reactor grows. A thread without a
/// CPU finds every timer due already, and then does not call the kernel.
#[track_caller]
fn allocates_nothing_until(
    reactor: &Reactor,
    count: fn(Stats) -> u64,
    rounds: u64,
    mut operation: impl FnMut(u64),
) {
    let (begin, before) = (Instant::now(), count(reactor.stats()));
    while count(reactor.stats()) == before {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "the reactor's counter did not grow within a minute"
        );
        allocates_nothing(rounds, &mut operation);
    }
}

fn waits(stats: Stats) -> u64 {
    stats.waits
}

fn wakes(stats: Stats) -> u64 {
    stats.wakes
}

#[test]
fn allocations_are_counted() {
    let before = allocations();
    let mut vec = black_box(Vec::<u64>::with_capacity(1));
    assert_eq!(allocations() - before, 1);
    vec.reserve_exact(100);
    assert_eq!(allocations() - before, 2);
    let caught =
        std::panic::catch_unwind(|| allocates_nothing(1, |_| drop(black_box(Box::new(1)))));
    assert!(caught.is_err(), "`allocates_nothing` accepted an operation that allocates");
}

#[test]
fn timer_reset_allocates_nothing() {
    let reactor = reactor();
    let timers = far_timers(&reactor, 300);
    allocates_nothing(20, |round| {
        for (i, timer) in timers.iter().enumerate() {
            // Each round re-arms later, earlier, equally or to zero, in a new order.
            let d = FAR / ((i as u32 * 7 + round as u32) % 5 + 1);
            black_box(timer.reset(if i % 50 == 0 { Duration::ZERO } else { d }));
        }
        select! { reactor; recv(timers[0]) -> _ => {}, default => {} }
    });
}

#[test]
fn timer_reset_at_allocates_nothing() {
    let reactor = reactor();
    let timers = far_timers(&reactor, 300);
    let (base, instant) = (Time::now() + FAR, Instant::now() + FAR);
    allocates_nothing(20, |round| {
        let step = Duration::from_secs(round % 3 * 100);
        for (i, timer) in timers.iter().enumerate() {
            black_box(if i % 2 == 0 {
                timer.reset_at(base + step)
            } else {
                timer.reset_at(instant - step)
            });
        }
    });
}

/// Two readings of a clock may be out of order by a few ns.
#[test]
fn arming_out_of_order_allocates_nothing() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> = (0..200).map(|_| reactor.timer()).collect();
    allocates_nothing(20, |round| {
        for (i, timer) in timers.iter().enumerate() {
            let at = if round < 20 { i } else { i ^ 1 };
            timer.reset(Duration::from_nanos(1_000 + at as u64));
        }
        sim.advance(Duration::from_secs(1));
        for timer in &timers {
            select! { reactor; recv(timer) -> _ => {} }
        }
    });
}

#[test]
fn stop_and_reset_allocate_nothing() {
    let reactor = reactor();
    let timers = far_timers(&reactor, 300);
    allocates_nothing(20, |_| {
        timers.iter().for_each(|timer| assert!(timer.stop()));
        timers.iter().for_each(|timer| assert!(!timer.reset(FAR)));
        timers
            .iter()
            .step_by(2)
            .for_each(|timer| assert!(timer.stop() && !timer.reset(Duration::ZERO)));
        select! { reactor; recv(timers[0]) -> _ => {}, default => {} }
        timers.iter().step_by(2).skip(1).for_each(|timer| assert!(timer.reset(FAR)));
        timers[0].reset(FAR);
    });
}

#[test]
fn ticker_restart_and_reset_allocate_nothing() {
    let reactor = reactor();
    let ticker = ticker(&reactor, FAR);
    allocates_nothing(2_000, |round| {
        black_box(ticker.restart());
        if round % 10 == 0 {
            black_box(ticker.reset(FAR / 2).expect("a period"));
            ticker.stop();
        }
    });
}

#[test]
fn taking_ticks_allocates_nothing() {
    let (sim, reactor) = simulated();
    let tickers: Vec<Ticker> =
        (1..=64).map(|i| reactor.every(Duration::from_millis(i)).expect("a period")).collect();
    let mut ticks = 0;
    allocates_nothing(500, |_| {
        sim.advance(Duration::from_millis(3));
        select! { reactor;
            recv(tickers[0]) -> tick => ticks += 1 + tick.missed,
            recv(tickers[1]) -> tick => ticks += 1 + tick.missed,
            recv(tickers[63]) -> tick => ticks += 1 + tick.missed,
        }
    });
    assert!(ticks >= 1_000, "{ticks} ticks");
}

#[test]
fn sleeping_until_a_tick_allocates_nothing() {
    let reactor = reactor();
    let ticker = ticker(&reactor, Duration::from_micros(200));
    allocates_nothing_until(&reactor, waits, 100, |_| {
        let Tick { scheduled, .. } = select! { reactor; recv(ticker) -> tick => tick };
        assert!(scheduled <= Time::now());
    });
}

#[test]
fn sleeping_until_a_timer_allocates_nothing() {
    let reactor = reactor();
    let timer = reactor.timer();
    allocates_nothing_until(&reactor, waits, 100, |_| {
        timer.reset(Duration::from_micros(200));
        select! { reactor; recv(timer) -> due => assert!(due <= Time::now()) }
    });
}

#[test]
fn select_of_a_message_allocates_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<u64>(64).expect("a channel");
    let (_other_tx, other) = reactor.channel::<u64>(64).expect("a channel");
    let heartbeat = ticker(&reactor, FAR);
    allocates_nothing(2_000, |round| {
        tx.try_send(round).expect("room");
        select! { reactor;
            recv(inbox) -> message => {
                assert_eq!(message, Ok(round));
                heartbeat.restart();
            },
            recv(other) -> _ => unreachable!(),
            recv(heartbeat) -> _ => unreachable!(),
        }
    });
}

#[test]
fn ready_fds_allocate_nothing() {
    let reactor = reactor();
    let pairs: Vec<_> = (0..20)
        .map(|key| {
            let (theirs, ours) = UnixStream::pair().expect("a pair");
            let ours = reactor.fd_nonblocking(ours, Interest::READABLE).expect("an fd");
            (theirs, ours.with_key(key))
        })
        .collect();
    let take = |key: usize| {
        assert_eq!(pairs[key].1.try_io(|mut io| io.read(&mut [0; 8])).expect("bytes"), 5);
        assert!(pairs[key].1.try_io(|mut io| io.read(&mut [0; 8])).is_err());
    };
    let mut events = Events::new();
    allocates_nothing(50, |_| {
        pairs.iter().for_each(|pair| (&pair.0).write_all(b"hello").expect("room"));
        select! { reactor; recv(pairs[0].1) -> _ => take(0) }
        let mut left = pairs.len() - 1;
        while left > 0 {
            reactor.wait(&mut events).expect("a wait");
            events.iter().for_each(|event| take(event.key() as usize));
            left -= events.len();
        }
    });
}

#[test]
fn resetting_and_calling_callbacks_allocates_nothing() {
    let (sim, reactor) = simulated();
    let called = Rc::new(Cell::new(0));
    let callbacks: Vec<_> = (1..=64)
        .map(|ms| {
            let called = called.clone();
            reactor.call_after(Duration::from_millis(ms), move |_| called.set(called.get() + 1))
        })
        .collect();
    let mut events = Events::new();
    allocates_nothing(200, |_| {
        sim.advance(Duration::from_millis(65));
        reactor.try_wait(&mut events).expect("a wait");
        for (ms, callback) in (1..).zip(&callbacks) {
            assert!(!callback.reset(Duration::from_millis(ms)));
        }
    });
    assert_eq!(called.get(), 64 * 400);
}

#[test]
fn select_with_default_allocates_nothing() {
    let reactor = reactor();
    let (_tx, inbox) = reactor.channel::<u64>(64).expect("a channel");
    let timer = reactor.after(FAR);
    let mut defaults = 0;
    allocates_nothing(2_000, |_| {
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            recv(timer) -> _ => unreachable!(),
            default => defaults += 1,
        }
    });
    assert_eq!(defaults, 4_000);
}

#[test]
fn sleeping_until_a_select_timeout_allocates_nothing() {
    let reactor = reactor();
    let (_tx, inbox) = reactor.channel::<u64>(64).expect("a channel");
    let heartbeat = ticker(&reactor, FAR);
    allocates_nothing_until(&reactor, waits, 100, |_| {
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            recv(heartbeat) -> _ => unreachable!(),
            default(Duration::from_micros(200)) => {},
        }
    });
}

#[test]
fn a_wake_up_from_another_thread_allocates_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<u64>(4).expect("a channel");
    let (ask, asked) = mpsc::sync_channel::<u64>(4);
    let sender = thread::spawn(move || {
        asked.iter().for_each(|n| {
            thread::sleep(Duration::from_micros(300)); // gives the reactor time to sleep
            tx.send(n).expect("a receiver");
        });
    });
    allocates_nothing_until(&reactor, wakes, 100, |round| {
        ask.send(round).expect("the other thread");
        select! { reactor; recv(inbox) -> message => assert_eq!(message, Ok(round)) }
    });
    drop(ask);
    sender.join().expect("no panic");
}

#[test]
fn waiting_for_channels_allocates_nothing() {
    let reactor = reactor();
    let channels: Vec<_> = (0..300)
        .map(|key| {
            let (tx, rx) = channel::bounded::<u64>(4);
            (tx, reactor.register_with(key, rx).expect("an open reactor"))
        })
        .collect();
    let mut events = Events::with_capacity(64);
    allocates_nothing(20, |round| {
        for (tx, _) in channels.iter().skip(round as usize % 2) {
            tx.try_send(round).expect("room");
        }
        let mut left = channels.len() as u64 - round % 2;
        while left > 0 {
            if left % 2 == 0 { reactor.wait(&mut events) } else { reactor.try_wait(&mut events) }
                .expect("a wait");
            assert!(!events.is_empty());
            for event in &events {
                left -= channels[event.key() as usize].1.try_iter().count() as u64;
            }
        }
        reactor.try_wait(&mut events).expect("a wait");
        assert!(events.is_empty());
    });
}

#[test]
fn receiving_after_dropping_other_channels_allocates_nothing() {
    let reactor = reactor();
    let make = || {
        let (tx, rx) = channel::bounded::<u64>(4);
        (tx, reactor.register(rx).expect("an open reactor"))
    };
    let mut events = Events::with_capacity(32);
    let mut receive = |channels: &[(channel::Sender<u64>, Inbox<u64>)]| {
        for _ in 0..3 {
            channels.iter().for_each(|(tx, _)| tx.try_send(1).expect("room"));
            reactor.wait(&mut events).expect("a wait");
            assert_eq!(events.iter().count(), channels.len());
            channels.iter().for_each(|(_, inbox)| assert_eq!(inbox.try_iter().count(), 1));
            reactor.try_wait(&mut events).expect("a wait");
        }
    };
    let few = [0; 4].map(|_| make());
    for round in 0..3 {
        // So many channels make `wait` use its path for large sets.
        let others = [0; 20].map(|_| make());
        receive(&others);
        drop(others);
        let before = allocations();
        receive(&few);
        assert!(round == 0 || allocations() == before, "round {round}");
    }
}

#[test]
fn wait_with_priorities_allocates_nothing() {
    let reactor = reactor();
    let priorities = [Priority::High, Priority::Normal, Priority::Low].into_iter().cycle();
    let timers: Vec<Timer> = (0..300)
        .zip(priorities)
        .map(|(key, priority)| reactor.timer().with_key(key).with_priority(priority))
        .collect();
    // The first two sizes fill each batch, and the last has room for all events.
    for room in [1, 7, 300] {
        let mut events = Events::with_capacity(room);
        allocates_nothing(20, |_| {
            timers.iter().for_each(|timer| assert!(!timer.reset(Duration::ZERO)));
            let mut left = timers.len();
            while left > 0 {
                reactor.wait(&mut events).expect("a wait");
                left -= events.iter().filter(|e| timers[e.key() as usize].stop()).count();
            }
        });
    }
}

#[test]
fn sleeping_until_many_timers_allocates_nothing() {
    let reactor = reactor();
    let timers: Vec<Timer> = (0..300).map(|key| reactor.timer().with_key(key)).collect();
    let mut events = Events::with_capacity(64);
    allocates_nothing_until(&reactor, waits, 20, |_| {
        timers.iter().for_each(|timer| {
            timer.reset(Duration::from_micros(500));
        });
        let mut left = timers.len();
        while left > 0 {
            reactor.wait_timeout(&mut events, FAR).expect("a wait");
            for event in &events {
                assert!(timers[event.key() as usize].stop());
                left -= 1;
            }
        }
    });
}

#[test]
fn alternating_wait_and_select_allocates_nothing() {
    let reactor = reactor();
    let channels: Vec<_> =
        (0..200).map(|_| reactor.channel::<u64>(4).expect("a channel")).collect();
    let mut events = Events::with_capacity(256);
    allocates_nothing(20, |round| {
        for (tx, inbox) in &channels {
            tx.try_send(round).expect("room");
            select! { reactor; recv(inbox) -> message => assert_eq!(message, Ok(round)) }
        }
        channels.iter().for_each(|(tx, _)| tx.try_send(round).expect("room"));
        reactor.wait(&mut events).expect("a wait");
        assert_eq!(events.len(), channels.len());
        channels.iter().for_each(|(_, inbox)| assert_eq!(inbox.try_recv(), Ok(round)));
    });
}

#[test]
fn send_and_receive_allocate_nothing() {
    let (tx, rx) = channel::bounded::<u64>(16);
    allocates_nothing(2_000, |round| {
        tx.try_send(round).expect("room");
        tx.send(round).expect("a receiver");
        tx.send_timeout(round, FAR).expect("room");
        assert_eq!(
            (rx.try_recv(), rx.recv(), rx.recv_timeout(FAR)),
            (Ok(round), Ok(round), Ok(round))
        );
        assert!(rx.try_recv().is_err());
    });
}

#[test]
fn timeouts_of_channel_calls_allocate_nothing() {
    let (tx, rx) = channel::bounded::<u64>(2);
    let soon = Duration::from_micros(100);
    allocates_nothing_asleep(20, |round| {
        assert!(rx.recv_timeout(soon).is_err());
        tx.try_send(round).expect("room");
        tx.try_send(round).expect("room");
        assert!(tx.try_send(round).is_err());
        assert!(tx.send_timeout(round, soon).is_err());
        assert_eq!(rx.try_iter().count(), 2);
    });
}

#[test]
fn inbox_try_recv_allocates_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<u64>(16).expect("a channel");
    allocates_nothing(2_000, |round| {
        tx.send(round).expect("a receiver");
        assert_eq!(inbox.try_recv(), Ok(round));
        assert!(inbox.try_recv().is_err());
    });
}

/// Sends a message there and back through two bare channels whose ends both block. The counted side
/// sends, sleeps and receives.
#[test]
fn a_blocking_receive_allocates_nothing() {
    let (to_other, other) = channel::bounded::<u64>(1);
    let (back, here) = channel::bounded::<u64>(1);
    let echo = thread::spawn(move || {
        other.iter().for_each(|n| {
            thread::sleep(Duration::from_micros(200));
            back.send(n).expect("a receiver");
        });
    });
    allocates_nothing_asleep(100, |round| {
        to_other.send(round).expect("a receiver");
        assert_eq!(here.recv(), Ok(round));
    });
    drop(to_other);
    echo.join().expect("no panic");
}

#[test]
fn a_blocking_send_allocates_nothing() {
    let (tx, rx) = channel::bounded::<u64>(1);
    let slow = thread::spawn(move || {
        rx.iter().fold(0, |sum, n| {
            thread::sleep(Duration::from_micros(200));
            sum + n
        })
    });
    let rounds = allocates_nothing_asleep(100, |round| tx.send(round).expect("a receiver"));
    drop(tx);
    assert_eq!(slow.join().expect("no panic"), (0..rounds).sum::<u64>());
}

#[test]
fn recreated_timers_allocate_nothing() {
    let reactor = reactor();
    let mut timers: Vec<Timer> = Vec::with_capacity(1_000);
    let mut tickers: Vec<Ticker> = Vec::with_capacity(1_000);
    allocates_nothing(5, |round| {
        timers.extend((0..1_000).map(|i| reactor.after(FAR / (i % 13 + 1))));
        tickers.extend((0..1_000).map(|_| ticker(&reactor, FAR)));
        assert_eq!(reactor.stats().live, 2_000);
        // Even rounds drop the timers from the front. Odd rounds stop and drop from the back.
        if round % 2 == 0 {
            timers.drain(..);
        }
        while let Some(timer) = timers.pop() {
            timer.stop();
        }
        tickers.clear();
        assert_eq!(reactor.stats().live, 0);
    });
}

#[test]
#[cfg_attr(flat, ignore = "no kqueue can be waited for")]
fn embedded_turns_allocate_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel::<u64>(16).expect("a channel");
    let timer = reactor.after(FAR);
    let embedded = reactor.embed().expect("an fd");
    allocates_nothing(500, |round| {
        tx.send(round).expect("a receiver");
        timer.reset(FAR / (round as u32 % 3 + 1));
        assert_eq!(embedded.turn().expect("a turn"), 1);
        select! { reactor;
            recv(inbox) -> message => assert_eq!(message, Ok(round)),
            default => unreachable!(),
        }
        assert_eq!(embedded.turn().expect("a turn"), 0);
    });
}

#[test]
fn a_warm_unbounded_channel_allocates_nothing() {
    let reactor = reactor();
    let (tx, rx) = channel::unbounded::<u64>();
    let inbox = reactor.register(rx).expect("an inbox");
    allocates_nothing(20, |round| {
        // Only the first round of the warm-up reaches the high-water mark.
        (0..1_000 - round).for_each(|n| tx.send(n).expect("a receiver"));
        for n in 0..1_000 - round {
            select! { reactor; recv(inbox) -> message => assert_eq!(message, Ok(n)) }
        }
    });
}

#[test]
fn a_growing_unbounded_channel_allocates_seldom() {
    let (tx, rx) = channel::unbounded::<u64>();
    let before = allocations();
    (0..1 << 16).for_each(|n| tx.send(n).expect("a receiver"));
    let made = allocations() - before;
    assert!((11..=24).contains(&made), "{made} allocations to grow from 32 to 65,536");
    assert_eq!(rx.try_iter().count(), 1 << 16);
}

#[test]
fn send_cases_allocate_nothing() {
    let reactor = reactor();
    let (tx, rx) = channel::bounded::<u64>(2);
    let outbox = reactor.register(tx).expect("an outbox");
    allocates_nothing(1_000, |round| {
        select! { reactor; send(outbox, round) -> sent => assert!(sent.is_ok()) }
        select! { reactor;
            send(outbox, round) -> sent => assert!(sent.is_ok()),
            default => unreachable!(),
        }
        select! { reactor; send(outbox, round) -> _ => unreachable!(), default => {} }
        assert_eq!((rx.try_recv(), rx.try_recv()), (Ok(round), Ok(round)));
    });
}

#[test]
fn room_events_allocate_nothing() {
    let (_sim, reactor) = simulated();
    let channels: Vec<_> = (0..50)
        .map(|_| {
            let (tx, rx) = channel::bounded::<u64>(1);
            (reactor.register(tx).expect("an outbox"), rx)
        })
        .collect();
    let mut events = Events::new();
    allocates_nothing(100, |round| {
        for (outbox, rx) in &channels {
            assert!(outbox.try_send(round).is_ok() && outbox.try_send(round).is_err());
            reactor.try_wait(&mut events).expect("a wait");
            assert!(rx.try_recv().is_ok());
        }
        reactor.wait(&mut events).expect("a wait");
        assert_eq!(events.iter().count(), channels.len());
    });
}

#[test]
fn a_rendezvous_allocates_nothing() {
    let (tx, rx) = channel::bounded::<u64>(0);
    // A party that finds the other one waiting does not sleep, perhaps throughout the warm-up. This
    // send sleeps for certain. The receiver prepares its sleep in each call and needs no such help.
    assert!(
        tx.send_timeout(0, Duration::from_millis(1)).is_err(),
        "no receiver waits for the message"
    );
    let other =
        thread::spawn(move || allocates_nothing(500, |round| assert_eq!(rx.recv(), Ok(round))));
    allocates_nothing(500, |round| tx.send(round).expect("a receiver"));
    other.join().expect("the receiver allocated");
}

#[test]
fn a_select_set_allocates_nothing() {
    let reactor = reactor();
    let ends: Vec<_> = (0..100).map(|_| reactor.channel::<u64>(1).expect("a channel")).collect();
    let timer = reactor.after(FAR);
    let (notifier, notified) = reactor.notifier();
    let mut select = Select::new(&reactor);
    for (_, inbox) in &ends {
        select.recv(inbox);
    }
    select.recv(&timer);
    let bell = select.recv(&notified);
    allocates_nothing(1_000, |round| {
        let (tx, inbox) = &ends[round as usize % 100];
        tx.send(round).expect("a receiver");
        let chosen = select.wait().expect("a case");
        assert_eq!(chosen.index() as u64, round % 100);
        assert_eq!(chosen.recv(inbox), Some(Ok(round)));
        notifier.notify();
        let chosen = select.wait().expect("a case");
        assert_eq!(chosen.index(), bell);
        assert_eq!(chosen.recv(&notified), Some(()));
    });
}

#[test]
fn selecting_and_checking_a_context_allocates_nothing() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(4).expect("a channel");
    let (context, _canceller) = Context::background().with_timeout(FAR);
    let done = reactor.done(&context);
    let _after = reactor.after_cancel(&context, |_| ());
    allocates_nothing(1_000, |round| {
        assert!(context.err().is_none() && context.check().is_ok());
        tx.send(round).expect("room");
        select! { reactor;
            recv(inbox) -> n => assert_eq!(n, Ok(round)),
            recv(done) -> _ => unreachable!(),
        }
    });
}

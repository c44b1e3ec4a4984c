//! One-shot timers: never early, no stale value, in order, cheap to postpone, and no call stalls.
//! Time is virtual wherever wall time is not the subject.

use std::io;
use std::time::{Duration, Instant};

use pollmux::{Events, Reactor, Source, Time, Timer, reactor::Spin, select};

use support::{
    Bell, HOUR, at, keys, ms, ready_keys, rounds, simulated, simulated_from, sometimes, thread,
    thread_cpu_time,
};

/// The most entries of the timer queue that one call handles. A call handles fewer entries of a
/// large queue, so that it stays short there too.
const MAX_ENTRIES_PER_CALL: u64 = 4_096;

/// Polls the timer by a `select!` with `default`.
fn poll(reactor: &Reactor, timer: &Timer) -> Option<Time> {
    select! { reactor; recv(timer) -> due => Some(due), default => None }
}

/// Polls the timer by `try_wait` and `try_take`.
fn poll_by_wait(reactor: &Reactor, timer: &Timer) -> Option<Time> {
    let reported = ready_keys(reactor).contains(&timer.key());
    let taken = timer.try_take();
    assert_eq!(reported, taken.is_some(), "the timer is reported if and only if it has a value");
    taken
}

// Never early; due at once; never due.

#[test]
fn a_virtual_clock_that_starts_now_accepts_instants() {
    let start = Time::now();
    let (sim, reactor) = simulated_from(start);
    let timer = reactor.at(Instant::from(start + ms(1_000)));
    let due = reactor.recv(&timer).unwrap();
    // The conversion through an `Instant` may add time, and never takes time away.
    assert!(due >= start + ms(1_000) && due < start + ms(1_001), "{due:?} from {start:?}");
    assert_eq!(sim.now(), due);
}

#[test]
fn a_real_timer_is_never_early() {
    // Wall time is the subject: the kernel's timer and two conversions between clocks lie between
    // arming and receiving.
    let reactor = support::reactor();
    let timer = reactor.timer();
    let mut events = Events::with_capacity(4);
    let rounds =
        [(0, 300), (1, 300), (999, 300), (1_000, 300), (30_000, 50), (99_999, 50), (500_001, 20)];
    let long = [
        (999_999, 10),
        (1_000_000, 10),
        (1_000_001, 10),
        (2_500_000, 5),
        (10_000_000, 3),
        (15_600_001, 2),
    ];
    for (nanos, times) in rounds.into_iter().chain(long) {
        let d = Duration::from_nanos(nanos);
        for _ in 0..times {
            let start = Instant::now();
            assert!(!timer.reset(d));
            select! { reactor; recv(timer) -> due => {
                assert!(start.elapsed() >= d, "reset({d:?}) after {:?}", start.elapsed());
                assert!(Time::now() >= due && reactor.now() >= due);
            }}

            let target = Instant::now() + d;
            assert!(!timer.reset_at(target));
            reactor.wait(&mut events).unwrap();
            assert!(Instant::now() >= target, "reset_at, {d:?} ahead, by wait");
            assert!(timer.try_take().is_some());

            let start = Instant::now();
            let after = reactor.after(d);
            while poll(&reactor, &after).is_none() {}
            assert!(start.elapsed() >= d, "after({d:?}), polled, after {:?}", start.elapsed());

            let target = Time::now() + d;
            let at = reactor.at(target);
            select! { reactor;
                recv(at) -> due => assert_eq!(due, target),
                default(ms(60_000)) => panic!("at did not fire"),
            }
            assert!(Time::now() >= target);
        }
    }
}

#[test]
fn a_virtual_timer_is_exact() {
    let (sim, reactor) = simulated();
    let timer = reactor.timer();
    for d in [1, 2, 999, 1_000, 999_999, 1_000_000, 1_000_001, 1 << 32, (1 << 53) + 1, 1 << 60] {
        let start = sim.now();
        timer.reset(Duration::from_nanos(d));
        sim.advance(Duration::from_nanos(d - 1));
        assert_eq!(poll(&reactor, &timer), None, "1 ns before {d} ns");
        assert_eq!(poll_by_wait(&reactor, &timer), None, "1 ns before {d} ns");
        select! { reactor; recv(timer) -> due => assert_eq!(due, start + Duration::from_nanos(d)) }
        assert_eq!(sim.now(), start + Duration::from_nanos(d));
    }
}

#[test]
fn zero_or_past_deadlines_are_due_at_once() {
    let past = Instant::now();
    let (_sim, virtual_time) = simulated_from(Time::now() + ms(1));
    for reactor in [support::reactor(), virtual_time] {
        let timer = reactor.timer();
        // Many rounds, because a clock that is 30 ns late now and then must be found.
        for _ in 0..rounds(12_500) {
            assert!(poll(&reactor, &reactor.after(Duration::ZERO)).is_some(), "after(0)");
            assert!(poll(&reactor, &reactor.at(reactor.now())).is_some(), "at(now)");
            assert!(poll(&reactor, &reactor.at(past)).is_some(), "at(an Instant in the past)");
            assert_eq!(poll(&reactor, &reactor.at(Time::ZERO)), Some(Time::ZERO));
            timer.reset(Duration::ZERO);
            assert!(poll(&reactor, &timer).is_some(), "reset(0)");
            timer.reset_at(past);
            assert!(poll(&reactor, &timer).is_some(), "reset_at(an Instant in the past)");
            timer.reset(ms(1_000_000));
            timer.reset(Duration::ZERO);
            assert!(poll(&reactor, &timer).is_some(), "postponed, then reset(0)");
        }
        for _ in 0..1_000 {
            timer.reset(Duration::ZERO);
            assert!(poll_by_wait(&reactor, &timer).is_some(), "reset(0), by try_wait");
        }
    }
}

#[test]
fn stopped_timers_do_not_hide_a_zero_timer() {
    let (sim, reactor) = simulated();
    let stopped: Vec<Timer> = (0..2_000).map(|_| reactor.after(ms(10))).collect();
    stopped.iter().for_each(|timer| assert!(timer.stop()));
    sim.advance(ms(20));
    let timer = reactor.after(Duration::ZERO);
    assert_eq!(poll(&reactor, &timer), Some(at(20)));
}

#[test]
fn a_duration_that_overflows_never_fires() {
    let durations = [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_secs(1 << 40),
        Duration::from_nanos(u64::MAX),
    ];
    for start in [Time::ZERO, at(1), Time::from_nanos(1 << 63), Time::from_nanos(u64::MAX - 1)] {
        for d in durations {
            let (sim, reactor) = simulated_from(start);
            let armed = reactor.after(ms(0));
            let by_reset = reactor.timer();
            assert!(!by_reset.reset(d));
            assert!(armed.reset(d));
            let by_reset_at = reactor.timer();
            by_reset_at.reset_at(start + d);
            let timers = [
                armed,
                by_reset,
                by_reset_at,
                reactor.after(d),
                reactor.at(start + d),
                reactor.at(Time::MAX),
            ];
            // A second saturated deadline must not overflow either.
            timers.iter().for_each(|timer| assert!(timer.reset(d)));
            sim.advance(Duration::MAX);
            assert_eq!(sim.now(), Time::MAX);
            for timer in &timers {
                assert_eq!(timer.deadline(), Some(Time::MAX));
                assert_eq!(poll(&reactor, timer), None, "{d:?} from {start:?}");
                assert!(timer.reset(d), "a reset at the end of the clock");
            }
            assert_eq!(ready_keys(&reactor), []);
            assert!(timers.iter().all(Timer::stop));
        }
    }
}

#[test]
fn an_instant_that_overflows_never_fires() {
    let reactor = support::reactor();
    let far = Instant::now()
        .checked_add(Duration::from_secs(1 << 40))
        .expect("an Instant reaches further");
    let timer = reactor.at(far);
    assert_eq!(timer.deadline(), Some(Time::MAX));
    assert!(timer.reset_at(far));
    assert_eq!(poll(&reactor, &timer), None);
}

#[test]
fn a_timer_for_never_ends_no_sleep() {
    support::exact("counts arms");
    let (sim, reactor) = simulated();
    let never = reactor.after(Duration::MAX);
    let timer = reactor.after(ms(5));
    select! { reactor;
        recv(never) -> _ => unreachable!(),
        recv(timer) -> due => assert_eq!(due, at(5)),
    }
    let failed = select! { reactor;
        recv(never) -> _ => unreachable!(),
        recv(timer) -> _ => unreachable!(),
        error -> e => e.kind(),
    };
    assert_eq!((failed, sim.now()), (io::ErrorKind::Deadlock, at(5)));

    // The same through the kernel's timer.
    let reactor = support::reactor();
    let (never, timer) = (reactor.after(Duration::MAX), reactor.after(ms(3)));
    select! { reactor; recv(never) -> _ => unreachable!(), recv(timer) -> _ => {} }
    let before = reactor.stats();
    let timed_out = select! { reactor; recv(never) -> _ => false, default(ms(3)) => true };
    assert!(timed_out && (reactor.stats() - before).arms <= 1);
}

#[test]
fn a_huge_timeout_saturates() {
    let (sim, reactor) = simulated_from(at(1));
    let timer = reactor.after(ms(7));
    select! { reactor;
        recv(timer) -> due => assert_eq!(due, at(8)),
        default(Duration::MAX) => unreachable!(),
    }
    assert_eq!(sim.now(), at(8));
    let mut events = Events::with_capacity(1);
    timer.reset(ms(1));
    reactor.wait_timeout(&mut events, Duration::MAX).unwrap();
    assert_eq!((keys(&events), sim.now()), (vec![timer.key()], at(9)));
}

#[test]
fn a_huge_ticker_period_saturates() {
    for period in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
        let (sim, reactor) = simulated_from(at(1));
        let ticker = reactor.every(period).unwrap();
        assert_eq!(ticker.deadline(), Some(Time::MAX));
        assert!(ticker.restart());
        assert_eq!(ticker.reset(period), Ok(true));
        sim.advance(Duration::MAX);
        assert!(select! { reactor; recv(ticker) -> _ => false, default => true });
    }
    // The first tick is within reach of the clock. The second tick is not.
    for period in [1 << 63, (1 << 63) + 1, u64::MAX - 1] {
        let (sim, reactor) = simulated();
        let ticker = reactor.every(Duration::from_nanos(period)).unwrap();
        let tick = select! { reactor; recv(ticker) -> tick => tick };
        assert_eq!((tick.scheduled, tick.missed), (Time::from_nanos(period), 0));
        assert_eq!(ticker.deadline(), Some(Time::MAX));
        sim.advance(Duration::MAX);
        assert!(select! { reactor; recv(ticker) -> _ => false, default => true });
        assert!(ticker.restart());
    }
    // Almost 2^64 periods pass at once.
    let (sim, reactor) = simulated();
    let ticker = reactor.every(Duration::from_nanos(1)).unwrap();
    sim.advance(Duration::MAX);
    let tick = select! { reactor; recv(ticker) -> tick => tick };
    assert_eq!((tick.scheduled, tick.missed), (Time::from_nanos(1), u64::MAX - 1));
    assert!(select! { reactor; recv(ticker) -> _ => false, default => true });
}

#[test]
fn reset_counts_from_its_call() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(10));
    select! { reactor; recv(timer) -> _ => {
        assert_eq!(reactor.now(), at(10));
        sim.advance(ms(500)); // the arm is slow
        assert_eq!(reactor.now(), at(10), "the turn reads the clock once");
        timer.reset(ms(10));
        assert_eq!(timer.deadline(), Some(at(520)));
        assert_eq!(reactor.after(ms(10)).deadline(), Some(at(520)));
    }}
    select! { reactor; recv(timer) -> due => assert_eq!((due, sim.now()), (at(520), at(520))) }
}

// Results of stop and reset; no stale value.

/// The state of a timer before the call under test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    NeverArmed,
    Armed,
    /// The deadline has passed, but no turn has polled.
    DueUnseen,
    /// A turn has found the expiry. The value was not taken.
    Expired,
    Taken,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Stop,
    ResetEarlier,
    ResetLater,
    ResetAt,
    ResetAtPast,
}

#[test]
fn stop_and_reset_results_hold_in_every_state() {
    use Before::*;
    use Call::*;
    for before in [NeverArmed, Armed, DueUnseen, Expired, Taken, Stopped] {
        for call in [Stop, ResetEarlier, ResetLater, ResetAt, ResetAtPast] {
            for receive in [poll, poll_by_wait] {
                let case = format!("{before:?}, then {call:?}");
                let (sim, reactor) = simulated_from(at(1_000));
                let timer = reactor.timer();
                if before != NeverArmed {
                    assert!(!timer.reset(ms(100)));
                }
                match before {
                    NeverArmed | Armed => {}
                    DueUnseen => sim.advance(ms(100)),
                    Expired => {
                        sim.advance(ms(100));
                        assert_eq!(ready_keys(&reactor), [timer.key()]);
                    }
                    Taken => {
                        sim.advance(ms(100));
                        assert_eq!(receive(&reactor, &timer), Some(at(1_100)));
                    }
                    Stopped => assert!(timer.stop()),
                }
                let now = sim.now();
                let (took, deadline) = match call {
                    Stop => (timer.stop(), None),
                    ResetEarlier => (timer.reset(ms(40)), Some(now + ms(40))),
                    ResetLater => (timer.reset(ms(400)), Some(now + ms(400))),
                    ResetAt => (timer.reset_at(now + ms(70)), Some(now + ms(70))),
                    ResetAtPast => (timer.reset_at(at(3)), Some(at(3))),
                };
                assert_eq!(took, matches!(before, Armed | DueUnseen | Expired), "{case}");
                assert_eq!(timer.deadline(), deadline, "{case}");
                let mut received = Vec::new();
                for _ in 0..100 {
                    received.extend(receive(&reactor, &timer).map(|due| (sim.now(), due)));
                    sim.advance(ms(10));
                }
                let expected: Vec<_> =
                    deadline.map(|due| (due.max(now), due)).into_iter().collect();
                assert_eq!(received, expected, "{case}");
                // One arm gives one value, so a stop finds nothing.
                assert!(!timer.stop(), "{case}");
            }
        }
    }
}

#[test]
fn a_second_stop_returns_false() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1));
    assert!(timer.stop());
    assert!(!timer.stop());
    timer.reset(ms(1));
    sim.advance(ms(1));
    assert!(timer.stop());
    assert!(!timer.stop());
}

#[test]
fn one_arm_gives_one_value() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1));
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &timer), Some(at(1)));
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &timer), None);
    assert_eq!(poll_by_wait(&reactor, &timer), None);
    assert_eq!((timer.try_take(), timer.deadline()), (None, None));
}

#[test]
fn a_late_value_is_the_scheduled_time() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1));
    sim.advance(ms(86_400_000));
    assert_eq!(poll(&reactor, &timer), Some(at(1)));
}

#[test]
fn deadline_is_set_until_the_value_is_taken() {
    let (sim, reactor) = simulated();
    let timer = reactor.timer();
    assert_eq!(timer.deadline(), None);
    timer.reset(ms(5));
    assert_eq!(timer.deadline(), Some(at(5)));
    timer.reset(ms(9)); // later: leaves the queue's entry alone
    assert_eq!(timer.deadline(), Some(at(9)));
    sim.advance(ms(50));
    assert_eq!(timer.deadline(), Some(at(9)), "the timer is due and not received");
    assert_eq!(ready_keys(&reactor), [timer.key()]);
    assert_eq!(timer.deadline(), Some(at(9)), "the timer has expired and is not received");
    timer.try_take();
    assert_eq!(timer.deadline(), None);
    timer.reset(ms(5));
    timer.stop();
    assert_eq!(timer.deadline(), None);
}

#[test]
fn an_arm_may_stop_a_simultaneous_timer() {
    let (sim, reactor) = simulated();
    let (a, b) = (reactor.after(ms(10)), reactor.after(ms(10)));
    select! { reactor; biased;
        recv(a) -> _ => assert!(b.stop()),
        recv(b) -> _ => unreachable!(),
    }
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &b), None);

    // In a fair select, the arm that runs first stops the other timer.
    for _ in 0..64 {
        a.reset(ms(10));
        b.reset(ms(10));
        select! { reactor; recv(a) -> _ => assert!(b.stop()), recv(b) -> _ => assert!(a.stop()) }
        sim.advance(ms(10));
        assert!(select! { reactor; recv(a) -> _ => false, recv(b) -> _ => false, default => true });
    }
}

#[test]
fn an_arm_may_reset_a_simultaneous_timer() {
    let (sim, reactor) = simulated();
    let (a, b) = (reactor.after(ms(10)), reactor.after(ms(10)));
    select! { reactor; biased;
        recv(a) -> _ => assert!(b.reset(ms(5))),
        recv(b) -> _ => unreachable!(),
    }
    assert_eq!(poll(&reactor, &b), None);
    select! { reactor; recv(a) -> _ => unreachable!(), recv(b) -> due => assert_eq!(due, at(15)) }
    assert_eq!(sim.now(), at(15));
}

#[test]
fn stop_or_reset_removes_a_reported_event() {
    for reset in [false, true] {
        for first_handles in [false, true] {
            let (sim, reactor) = simulated();
            let (a, b) = (reactor.after(ms(10)).with_key(1), reactor.after(ms(10)).with_key(2));
            let c = reactor.after(ms(10)).with_key(3);
            sim.advance(ms(10));
            let mut events = Events::with_capacity(8);
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), 3);
            let mut seen = Vec::new();
            for event in &events {
                seen.push(event.key());
                if event.key() == 1 && first_handles {
                    assert!(if reset { b.reset(ms(5)) } else { b.stop() });
                }
                if event.key() == 2 && !first_handles {
                    assert!(if reset { c.reset(ms(5)) } else { c.stop() });
                }
            }
            assert_eq!(seen, if first_handles { [1, 3] } else { [1, 2] });
            for timer in [&a, &b, &c] {
                timer.try_take();
            }
            sim.advance(ms(5));
            let later = if first_handles { 2 } else { 3 };
            assert_eq!(ready_keys(&reactor), if reset { vec![later] } else { vec![] });
        }
    }
}

#[test]
fn a_timer_that_outlives_its_reactor_is_inert() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let (armed, expired, idle) = (reactor.after(ms(5)), reactor.after(ms(1)), reactor.timer());
    sim.advance(ms(1));
    assert!(!ready_keys(&reactor).is_empty());
    drop(reactor);
    for timer in [armed, expired, idle, handle.after(ms(0)), handle.timer()] {
        assert!(!timer.is_ready());
        assert!(!timer.stop());
        assert!(!timer.reset(ms(0)));
        assert!(!timer.reset_at(Time::ZERO));
        assert_eq!((timer.deadline(), timer.try_take()), (None, None));
    }
}

// Dropping stops a timer and frees its slot.

#[test]
fn a_dropped_timer_frees_its_slot() {
    let (sim, reactor) = simulated();
    let kept = reactor.after(ms(1)).with_key(1);
    let armed = reactor.after(ms(1)).with_key(2);
    let expired = reactor.after(ms(0)).with_key(3);
    let stopped = reactor.after(ms(1)).with_key(4);
    stopped.stop();
    let unarmed = reactor.timer().with_key(5);
    assert_eq!(ready_keys(&reactor), [3]);
    assert_eq!(reactor.stats().live, 5);
    drop((armed, expired, stopped, unarmed));
    assert_eq!(reactor.stats().live, 1);
    sim.advance(ms(1));
    assert_eq!(ready_keys(&reactor), [1]);
    drop(kept);
    assert_eq!((reactor.stats().live, ready_keys(&reactor)), (0, vec![]));
}

#[test]
fn a_million_dropped_timers_leave_nothing() {
    let (sim, reactor) = simulated();
    let _far = reactor.after(Duration::from_secs(1 << 30));
    for i in 0..1_000_000u64 {
        let timer = reactor.after(Duration::from_nanos(i % 1_000));
        match i % 4 {
            0 => {}
            1 => assert!(timer.stop()),
            2 => assert!(timer.reset(ms(1))),
            _ => {
                sim.advance(Duration::from_nanos(1_000));
                assert!(poll(&reactor, &timer).is_some());
            }
        }
        drop(timer);
        assert_eq!(reactor.stats().live, 1);
    }
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), []);
    // The queue has no entry of a dropped timer, so no call cleans an entry.
    let before = reactor.stats();
    sim.advance(ms(10));
    assert_eq!((ready_keys(&reactor), (reactor.stats() - before).cleaned), (vec![], 0));
}

#[test]
fn a_million_resets_make_one_entry() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(1));
    for i in 0..1_000_000u64 {
        // Resets to later and to earlier, stops, and resets of a stopped timer.
        match i % 8 {
            7 => assert!(timer.reset(ms(1))),
            5 => assert!(timer.stop()),
            6 => assert!(!timer.reset(ms(3))),
            _ => assert!(timer.reset(ms(2 + i % 8))),
        }
    }
    assert_eq!(reactor.stats().live, 1);
    sim.advance(ms(100));
    assert_eq!(ready_keys(&reactor), [timer.key()]);
    let stats = reactor.stats();
    assert_eq!((stats.expired, stats.live), (1, 1));
    assert!(stats.cleaned <= 1, "{stats}");
}

// The costs of re-arming.

#[test]
fn re_arming_later_never_arms_the_kernel() {
    support::exact("counts arms");
    let reactor = support::reactor();
    let bell = Bell::new(&reactor);
    let timer = reactor.after(ms(100_000));
    bell.sleep(&reactor);
    let before = reactor.stats();
    assert_eq!(before.arms, 1);
    for i in 0..1_000 {
        assert!(timer.reset(ms(200_000 + i)));
        assert!(timer.reset_at(Instant::now() + ms(300_000 + i)));
    }
    bell.sleep(&reactor);
    assert!(timer.reset(ms(400_000)));
    bell.sleep(&reactor);
    let after = reactor.stats() - before;
    assert!(after.waits >= 2);
    assert_eq!(after.arms, 0);
}

#[test]
fn re_arming_earlier_arms_the_kernel_once() {
    support::exact("counts arms");
    let reactor = support::reactor();
    let bell = Bell::new(&reactor);
    let timer = reactor.after(ms(1_000_000));
    let (tx, inbox) = reactor.channel(1).unwrap();
    bell.sleep(&reactor);
    for round in 1..4 {
        let before = reactor.stats();
        for i in 0..100 {
            assert!(timer.reset(ms(1_000_000 - round * 100_000 - i * 100)));
        }
        tx.send(()).unwrap();
        select! { reactor; recv(inbox) -> _ => {}, recv(timer) -> _ => unreachable!() }
        assert_eq!((reactor.stats() - before).syscalls(), 0, "no turn has blocked");
        bell.sleep(&reactor);
        assert_eq!((reactor.stats() - before).arms, 1);
        bell.sleep(&reactor);
        assert_eq!((reactor.stats() - before).arms, 1, "the kernel's timer is armed already");
    }
}

#[test]
fn postponing_during_a_sleep_costs_one_wake_up() {
    support::exact("counts arms");
    // Real time: the kernel's timer fires before the new deadline.
    let costs = || {
        let reactor = support::build(Reactor::builder().spin(Spin::Off));
        let (tx, inbox) = reactor.channel(1).unwrap();
        let timer = reactor.after(ms(30));
        let sender = thread::spawn(move || {
            thread::sleep(ms(3));
            tx.send(()).unwrap();
        });
        select! { reactor;
            recv(inbox) -> sent => { sent.unwrap(); timer.reset(ms(60)); }
            recv(timer) -> _ => { timer.reset(ms(60)); }
        }
        let due = timer.deadline().unwrap();
        select! { reactor; recv(timer) -> at => assert!(at == due && Time::now() >= due) }
        sender.join().unwrap();
        // The loop sleeps until the message, the first deadline and the second deadline. A timeout
        // may end the last sleep, without an arm.
        reactor.stats().waits == 3 && (1..=2).contains(&reactor.stats().arms)
    };
    assert!(sometimes(costs));
}

#[test]
fn stopping_never_arms_the_kernel() {
    support::exact("counts arms");
    let reactor = support::reactor();
    let bell = Bell::new(&reactor);
    let timers: Vec<Timer> = (0..100).map(|i| reactor.after(ms(100_000 + i))).collect();
    bell.sleep(&reactor);
    let before = reactor.stats();
    assert!(timers.iter().all(Timer::stop));
    bell.sleep(&reactor);
    drop(timers);
    bell.sleep(&reactor);
    assert_eq!((reactor.stats() - before).arms, 0);
}

#[test]
fn a_due_timer_never_arms_the_kernel() {
    support::exact("counts arms");
    let reactor = support::reactor();
    let timer = reactor.timer();
    for _ in 0..100 {
        timer.reset_at(Time::ZERO);
        select! { reactor; recv(timer) -> due => assert_eq!(due, Time::ZERO) }
    }
    assert_eq!(reactor.stats().syscalls(), 0);
}

#[test]
fn a_remote_zero_reset_never_arms_the_kernel() {
    support::exact("counts arms");
    let reactor = support::reactor();
    let (remote, timer) = (reactor.remote(), reactor.timer());
    for _ in 0..100 {
        remote.reset(timer.id(), Duration::ZERO).unwrap();
        select! { reactor; recv(timer) -> _ => {} }
    }
    assert_eq!(reactor.stats().arms, 0);
}

// Order, and bounded work.

/// Waits with this capacity and takes each value, until no timer is due. Returns the keys in order.
fn drain(reactor: &Reactor, timers: &[Timer], capacity: usize) -> Vec<u64> {
    let mut events = Events::with_capacity(capacity);
    let mut order = Vec::new();
    loop {
        reactor.try_wait(&mut events).unwrap();
        if events.is_empty() {
            return order;
        }
        for event in &events {
            order.push(event.key());
            let timer = timers.iter().find(|timer| timer.key() == event.key()).unwrap();
            assert!(timer.try_take().is_some());
        }
    }
}

#[test]
fn wait_reports_due_timers_in_deadline_order() {
    // 600 timers are more than one call handles. The capacity is one, fewer and more than are due.
    for capacity in [1, 7, 100, 1_000] {
        let (sim, reactor) = simulated();
        let deadline = |i: u64| i * 7_919 % 40;
        let timers: Vec<Timer> =
            (0..600).map(|i| reactor.after(ms(deadline(i))).with_key(i)).collect();
        sim.advance(ms(100));
        let mut expected: Vec<u64> = (0..600).collect();
        expected.sort_by_key(|&i| (deadline(i), i));
        assert_eq!(drain(&reactor, &timers, capacity), expected);
    }
}

#[test]
fn equal_deadlines_keep_the_order_of_resets() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> = (0..6).map(|i| reactor.after(ms(10 - i)).with_key(i)).collect();
    for i in [3, 0, 5] {
        assert!(timers[i].reset_at(at(20))); // later: leaves the queue's entry alone
    }
    timers[1].stop();
    assert!(!timers[1].reset_at(at(20))); // armed again in its old entry
    assert!(timers[4].reset_at(at(30)));
    assert!(timers[4].reset_at(at(20))); // later, then earlier again
    assert!(timers[3].reset_at(at(20))); // the same deadline again: now the last of the six
    let fresh = reactor.at(at(20)).with_key(6);
    sim.advance(ms(25));
    let timers: Vec<Timer> = timers.into_iter().chain([fresh]).collect();
    assert_eq!(drain(&reactor, &timers, 16), [2, 0, 5, 1, 4, 3, 6]);
}

#[test]
fn blocking_wait_ends_at_each_deadline() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> =
        (0..200).map(|i| reactor.after(ms(i * 31 % 50 + 1)).with_key(i)).collect();
    timers.iter().step_by(3).for_each(|timer| assert!(timer.reset(ms(60 + timer.key() % 2))));
    let mut events = Events::with_capacity(64);
    let mut fired = 0;
    while fired < timers.len() {
        reactor.wait(&mut events).unwrap();
        assert!(!events.is_empty());
        for event in &events {
            // Each timer fires at its exact deadline, also when a stale entry ended the sleep.
            assert_eq!(timers[event.key() as usize].try_take(), Some(sim.now()));
            fired += 1;
        }
    }
    assert_eq!(sim.now(), at(61));
}

/// Polls by `try_recv` and `select!` in turns until `done`. Returns the CPU time of the worst call.
/// A call may clean only a bounded number of entries.
fn worst_call(reactor: &Reactor, timer: &Timer, done: impl Fn() -> bool) -> Duration {
    let mut worst = Duration::ZERO;
    let mut calls = 0;
    while !done() {
        let (before, start) = (reactor.stats(), thread_cpu_time());
        if calls % 2 == 0 {
            let _ = reactor.try_recv(timer).unwrap();
        } else {
            select! { reactor; recv(timer) -> _ => {}, default => {} }
        }
        worst = worst.max(thread_cpu_time() - start);
        let during = reactor.stats() - before;
        assert!(during.cleaned + during.expired <= MAX_ENTRIES_PER_CALL, "{during}");
        calls += 1;
        assert!(calls < 100_000, "the calls make no progress: {}", reactor.stats());
    }
    worst
}

#[test]
fn many_postponed_timers_never_stall_a_call() {
    let live = rounds(250_000);
    let limit = if cfg!(debug_assertions) { ms(10) } else { ms(1) };
    let mut best = Duration::MAX;
    // CPU time of this thread, in the best of many attempts. An interrupt counts as time of a call.
    let is_fast = || {
        let (sim, reactor) = simulated();
        let timers: Vec<Timer> = (0..live)
            .map(|i| reactor.after(Duration::from_nanos(1_000 + i * 7_919 % live)))
            .collect();
        for (i, timer) in timers.iter().enumerate() {
            assert!(timer.reset(Duration::from_nanos(1_000_000_000 + i as u64 * 104_729 % live)));
        }
        sim.advance(ms(100)); // after all old deadlines, before all new ones
        let start = reactor.stats();
        let worst = worst_call(&reactor, &timers[0], || (reactor.stats() - start).cleaned >= live);
        assert_eq!((reactor.stats() - start).expired, 0);
        best = best.min(worst);
        // Dropping the reactor first is faster: the timers need not leave the queue one by one.
        drop(reactor);
        best < limit
    };
    assert!(sometimes(is_fast), "the worst call of the best attempt took {best:?}");
}

#[test]
fn many_stopped_timers_are_cleaned_in_pieces() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> =
        (0..20_000).map(|i| reactor.after(Duration::from_nanos(i % 777))).collect();
    let last = reactor.after(ms(1));
    assert!(timers.iter().all(Timer::stop));
    sim.advance(ms(1));
    worst_call(&reactor, &last, || reactor.stats().cleaned == 20_000);
    // The first call finds the last timer, by its own deadline.
    assert_eq!((reactor.stats().expired, last.deadline()), (1, None));
}

#[test]
fn many_due_timers_fire_in_pieces_and_once() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> = (0..20_000).map(|i| reactor.after(ms(1)).with_key(i)).collect();
    sim.advance(ms(1));
    let mut events = Events::with_capacity(20_000);
    let mut next = 0;
    while next < 20_000 {
        let before = reactor.stats();
        reactor.try_wait(&mut events).unwrap();
        assert!(!events.is_empty() && (reactor.stats() - before).expired <= MAX_ENTRIES_PER_CALL);
        for event in &events {
            assert_eq!(event.key(), next);
            assert_eq!(timers[next as usize].try_take(), Some(at(1)));
            next += 1;
        }
    }
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn timers_left_after_many_drops_keep_their_order() {
    let (sim, reactor) = simulated();
    let deadline = |i: u64| 1 + i * 7 % 5;
    let timers: Vec<Timer> =
        (0..20_000).map(|i| reactor.after(ms(deadline(i))).with_key(i)).collect();
    // Most timers are dropped, neither in order nor by deadline.
    let (kept, dropped): (Vec<Timer>, Vec<Timer>) =
        timers.into_iter().partition(|timer| (timer.key() * 2_654_435_761) >> 7 & 15 == 0);
    assert!(kept.len() > 500 && dropped.len() > 10_000);
    drop(dropped);
    assert_eq!(reactor.stats().live, kept.len());
    let mut expected: Vec<u64> = kept.iter().map(Timer::key).collect();
    expected.sort_by_key(|&i| (deadline(i), i));
    let mut order = Vec::new();
    let mut events = Events::with_capacity(1_000);
    while order.len() < kept.len() {
        let before = reactor.stats();
        reactor.wait(&mut events).unwrap();
        let during = reactor.stats() - before;
        assert!(during.expired <= MAX_ENTRIES_PER_CALL * 2, "{during}");
        for event in &events {
            let at = kept.binary_search_by_key(&event.key(), Timer::key).unwrap();
            assert!(
                kept[at].try_take().is_some_and(|due| due == support::at(deadline(event.key())))
            );
            order.push(event.key());
        }
    }
    assert_eq!((order, sim.now()), (expected, at(5)));
}

#[test]
fn stale_entries_never_delay_a_blocking_select() {
    let (sim, reactor) = simulated();
    let timers: Vec<Timer> =
        (0..5_000).map(|i| reactor.after(Duration::from_nanos(1 + i))).collect();
    timers.iter().for_each(|timer| assert!(timer.reset(ms(1_000))));
    let timer = reactor.after(ms(1));
    select! { reactor; recv(timer) -> due => assert_eq!(due, at(1)) }
    assert_eq!(sim.now(), at(1));
}

// A timer that is always due.

#[test]
fn zero_resets_in_an_arm_fire_next_turn() {
    let (_sim, reactor) = simulated();
    let timer = reactor.after(Duration::ZERO);
    for _ in 0..1_000 {
        let fired = select! { reactor;
            recv(timer) -> _ => { assert!(!timer.reset(Duration::ZERO)); true }
            default => false
        };
        assert!(fired);
    }
    let mut events = Events::with_capacity(4);
    for _ in 0..1_000 {
        reactor.try_wait(&mut events).unwrap();
        // The batch ends although its timer is due again.
        let mut reported = 0;
        for event in &events {
            assert_eq!(event.key(), timer.key());
            assert!(timer.try_take().is_some());
            timer.reset(Duration::ZERO);
            reported += 1;
        }
        assert_eq!(reported, 1);
    }
}

#[test]
fn a_repeated_zero_timer_starves_no_source() {
    let (sim, reactor) = simulated();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let zero = reactor.after(Duration::ZERO);
    let other = reactor.after(Duration::from_micros(50));
    tx.send(1).unwrap();
    let (mut message, mut expiry) = (false, false);
    let mut turns = 0;
    while !(message && expiry) {
        select! { reactor;
            recv(zero) -> _ => { zero.reset(Duration::ZERO); }
            recv(inbox) -> got => { assert_eq!(got, Ok(1)); message = true; }
            recv(other) -> due => { assert_eq!(due, Time::from_nanos(50_000)); expiry = true; }
        }
        sim.advance(Duration::from_micros(1));
        turns += 1;
        assert!(turns < 1_000, "message {message}, expiry {expiry}");
    }

    // A `wait` with room for one event also reports each of the three sources.
    tx.send(2).unwrap();
    other.reset(Duration::ZERO);
    let mut events = Events::with_capacity(1);
    let (mut message, mut expiry) = (false, false);
    for _ in 0..4 {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            if event.key() == zero.key() {
                zero.try_take();
                zero.reset(Duration::ZERO);
            } else if event.key() == inbox.key() {
                message |= inbox.try_recv() == Ok(2);
            } else {
                expiry |= other.try_take().is_some();
            }
        }
    }
    assert!(message && expiry);
}

#[test]
fn a_repeated_zero_timer_starves_no_real_timer() {
    // Real time: a virtual clock stands still while the zero timer is due.
    let reactor = support::reactor();
    let (zero, other) = (reactor.after(Duration::ZERO), reactor.timer());
    let mut zeros = 0;
    loop {
        select! { reactor;
            recv(zero) -> _ => {
                zero.reset(Duration::ZERO);
                zeros += 1;
                // The other timer comes due only after the zero timer has fired many times.
                if zeros == 100 {
                    other.reset(ms(5));
                }
            }
            recv(other) -> _ => break
        }
    }
    assert_eq!(reactor.stats().syscalls(), 0, "a loop that has work makes no syscall");
}

// Long runs, and the clock of a turn.

#[test]
fn ten_years_of_hourly_heartbeats_are_exact() {
    const HOURS: u64 = 10 * 365 * 24;
    let hour = Duration::from_secs(3_600);
    let (sim, reactor) = simulated();
    let heartbeat = reactor.after(hour);
    let election = reactor.after(hour * 2);
    let ticker = reactor.every(hour).unwrap();
    let (mut beats, mut ticks) = (0, 0);
    while beats < HOURS || ticks < HOURS {
        select! { reactor;
            recv(heartbeat) -> due => {
                beats += 1;
                assert_eq!(due, Time::ZERO + Duration::from_secs(3_600 * beats));
                assert_eq!(due, sim.now());
                assert!(!heartbeat.reset(hour));
                assert!(election.reset(hour * 2));
            }
            recv(ticker) -> tick => {
                ticks += 1;
                let due = Time::ZERO + Duration::from_secs(3_600 * ticks);
                assert_eq!((tick.scheduled, tick.missed), (due, 0));
            }
            recv(election) -> _ => panic!("the postponed election timer fired"),
        }
    }
    assert_eq!(sim.now(), Time::ZERO + Duration::from_secs(3_600 * HOURS));
    assert_eq!(reactor.stats().live, 3);
}

#[test]
fn only_fresh_now_moves_within_a_turn() {
    let (sim, reactor) = simulated();
    let timer = reactor.after(HOUR);
    select! { reactor;
        recv(timer) -> scheduled => {
            for n in 1..4 {
                sim.advance(ms(10));
                assert_eq!(reactor.now(), scheduled);
                assert_eq!(reactor.fresh_now(), scheduled + n * ms(10));
            }
            // A deadline counts from the real now, not from the time of the turn.
            timer.reset(ms(1));
        }
    }
    assert_eq!(timer.deadline(), Some(Time::ZERO + HOUR + ms(31)));
    let handle = reactor.handle();
    drop(reactor);
    assert_eq!(handle.fresh_now(), sim.now());
}

#[test]
fn a_microsecond_deadline_needs_no_kernel_timer() {
    let reactor = Reactor::builder().spin(Spin::Off).build().unwrap();
    let timer = reactor.timer();
    for _ in 0..100 {
        timer.reset(Duration::from_micros(1));
        let at = timer.deadline().unwrap();
        select! { reactor; recv(timer) -> due => assert_eq!(due, at) }
        assert!(Time::now() >= at);
    }
    assert_eq!(reactor.stats().arms, 0);
}

//! Scale: years of virtual time, `Duration::MAX`, and a hundred thousand timers due at one instant.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{
    Callback, Events, MissedTickBehavior, Reactor, Select, Sim, Source, Tick, Ticker, Time, Timer,
    channel, reactor::Spin, select,
};

use support::{
    at, keys, ms, ready_keys, secs, simulated, simulated_from, sometimes, timed, watchdog,
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;

// Years of virtual time.

#[test]
fn ten_years_of_virtual_time_are_exact() {
    let (sim, reactor) = simulated();
    // Some periods are odd, so most instants have one tick and a few instants have many.
    let periods = [
        6 * HOUR,
        7 * HOUR + 1,
        DAY,
        DAY + 1,
        7 * DAY,
        30 * DAY,
        100_003 * MINUTE,
        YEAR / 4,
        YEAR,
        10 * YEAR,
    ];
    let tickers: Vec<Ticker> = (0..)
        .zip(periods)
        .map(|(n, period)| reactor.every(secs(period)).unwrap().with_key(n))
        .collect();
    // An election timer that is postponed every six hours and never fires, one that fires every
    // day, and a daily callback.
    let (postponed, daily) =
        (reactor.after(secs(12 * HOUR)).with_key(100), reactor.after(secs(DAY)).with_key(101));
    let _daily = reactor.call_after(secs(DAY), |cx| {
        cx.reset_at(cx.scheduled() + secs(DAY));
    });
    let mut counts = [0u64; 10];
    let mut elections = 0;
    let mut events = Events::with_capacity(16);
    while counts[9] == 0 || sim.now() < Time::ZERO + secs(10 * YEAR) {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            let Some(ticker) = tickers.get(event.key() as usize) else {
                assert_eq!(event.key(), 101, "the postponed timer fired");
                elections += 1;
                assert_eq!(daily.try_take(), Some(Time::ZERO + secs(DAY * elections)));
                daily.reset(secs(DAY));
                continue;
            };
            let n = event.key() as usize;
            counts[n] += 1;
            let due = Time::ZERO + secs(periods[n] * counts[n]);
            assert_eq!(
                (ticker.try_take(), sim.now()),
                (Some(Tick { scheduled: due, missed: 0 }), due)
            );
            if n == 0 {
                assert!(postponed.reset(secs(12 * HOUR)));
            }
        }
    }
    assert_eq!(counts, periods.map(|period| 10 * YEAR / period));
    assert_eq!((elections, reactor.stats().called), (3_650, 3_650));
    assert_eq!(reactor.stats().live, tickers.len() + 3);
}

#[test]
fn a_heartbeat_with_slack_stays_exact_for_months() {
    let sim = Sim::new();
    let reactor = Reactor::builder().slack(secs(2)).build_with(sim.clone()).unwrap();
    let heartbeat = reactor.every(secs(MINUTE)).unwrap();
    for n in 1..=YEAR / MINUTE / 4 {
        let tick = select! { reactor; recv(heartbeat) -> tick => tick };
        assert_eq!(tick, Tick { scheduled: Time::ZERO + secs(MINUTE * n), missed: 0 });
        assert_eq!(sim.now() - tick.scheduled, secs(2));
    }
}

#[test]
fn a_hundred_thousand_ticks_are_exact() {
    let (sim, reactor) = simulated();
    let heartbeat = reactor.every(secs(1)).unwrap();
    let mut last = Time::ZERO;
    for _ in 0..100_000 {
        select! { reactor; recv(heartbeat) -> tick => {
            last += secs(1);
            assert_eq!((tick.scheduled, tick.missed, sim.now()), (last, 0, last));
        }}
    }
    assert_eq!(sim.now(), Time::ZERO + secs(100_000));
}

// `Duration::MAX` and `Time::MAX` in every place that takes a duration or a time.

/// Checks that none of these sources fires before `Time::MAX` or at it. Stops all of them.
fn assert_never_due(
    sim: &Sim,
    reactor: &Reactor,
    timers: &[Timer],
    tickers: &[Ticker],
    callbacks: &[Callback],
) {
    for advance in [ms(1), secs(1 << 30), Duration::MAX, Duration::MAX] {
        sim.advance(advance);
        assert_eq!(ready_keys(reactor), []);
        assert_eq!(reactor.stats().called, 0);
    }
    assert_eq!(sim.now(), Time::MAX);
    let deadlines = timers.iter().map(Timer::deadline);
    let deadlines = deadlines.chain(tickers.iter().map(Ticker::deadline));
    assert!(
        deadlines
            .chain(callbacks.iter().map(Callback::deadline))
            .all(|deadline| deadline == Some(Time::MAX))
    );
    assert!(timers.iter().all(Timer::stop) && tickers.iter().all(Ticker::stop));
    assert!(callbacks.iter().all(Callback::stop));
}

#[test]
fn the_longest_duration_never_fires() {
    for start in [Time::ZERO, at(1), Time::from_nanos(u64::MAX / 2), Time::from_nanos(u64::MAX - 1)]
    {
        let (sim, reactor) = simulated_from(start);
        let far = Duration::MAX;
        let timers = [
            reactor.after(far),
            reactor.at(Time::MAX),
            reactor.timer(),
            reactor.timer(),
            reactor.after(ms(0)),
        ];
        timers[2].reset(far);
        timers[3].reset_at(Time::MAX);
        assert!(timers[4].reset(far) && timers[4].reset_at(Time::MAX) && timers[4].reset(far));
        let tickers = [
            reactor.every(far).unwrap(),
            reactor.every_at(Time::MAX, ms(1)).unwrap(),
            reactor
                .every_at(Time::MAX, far)
                .unwrap()
                .missed_tick_behavior(MissedTickBehavior::Burst),
            reactor.every(ms(1)).unwrap(),
            reactor.every(ms(1)).unwrap().missed_tick_behavior(MissedTickBehavior::Delay),
        ];
        assert_eq!(tickers[3].reset(far), Ok(true));
        assert!(tickers[3].restart());
        assert!(tickers[4].restart_at(Time::MAX));
        let call = |_: &pollmux::CallbackContext<'_>| unreachable!("never");
        let callbacks = [
            reactor.call_after(far, call),
            reactor.call_at(Time::MAX, call),
            reactor.call_after(ms(0), call),
            reactor.call_after(ms(0), call),
        ];
        assert!(callbacks[2].reset(far) && callbacks[3].reset_at(Time::MAX));
        // The same by id, from this thread and by a remote.
        let by_id = [reactor.after(ms(0)), reactor.after(ms(0)), reactor.after(ms(0))];
        assert_eq!(reactor.reset_timer(by_id[0].id(), far), Ok(true));
        assert_eq!(reactor.reset_timer_at(by_id[1].id(), Time::MAX), Ok(true));
        reactor.remote().reset(by_id[2].id(), far).unwrap();
        let (expired, period) = (by_id[2].id(), reactor.every(ms(1)).unwrap());
        reactor.remote().reset(period.id(), far).unwrap();
        assert_eq!(ready_keys(&reactor), [], "the remote's request runs first");
        assert!(reactor.is_live(expired));
        assert_eq!(period.period(), Duration::from_nanos(u64::MAX));
        let timers: Vec<Timer> = timers.into_iter().chain(by_id).collect();
        let tickers: Vec<Ticker> = tickers.into_iter().chain([period]).collect();
        assert_never_due(&sim, &reactor, &timers, &tickers, &callbacks);
    }
}

#[test]
fn the_second_tick_may_be_out_of_reach() {
    use MissedTickBehavior::*;
    for behavior in [Skip, Burst, Delay] {
        let (sim, reactor) = simulated_from(at(5));
        let ticker = reactor.every_at(at(5), Duration::MAX).unwrap().missed_tick_behavior(behavior);
        select! { reactor;
            recv(ticker) -> tick => assert_eq!(tick, Tick { scheduled: at(5), missed: 0 }),
        }
        assert_never_due(&sim, &reactor, &[], &[ticker], &[]);
    }
    // A callback resets itself to `Duration::MAX`.
    let (_sim, reactor) = simulated();
    let callback = reactor.call_after(ms(1), |cx| assert!(!cx.reset(Duration::MAX)));
    reactor.sleep_blocking(secs(100 * YEAR)).unwrap();
    assert_eq!((reactor.stats().called, callback.deadline()), (1, Some(Time::MAX)));
}

#[test]
fn a_wait_with_the_longest_timeout_ends_early() {
    let (sim, reactor) = simulated_from(at(1));
    let timer = reactor.after(ms(1)).with_key(7);
    let far = Duration::MAX;
    select! { reactor;
        recv(timer) -> due => assert_eq!(due, at(2)),
        default(far) => unreachable!(),
    }
    timer.reset(ms(1));
    let mut events = Events::with_capacity(1);
    reactor.wait_timeout(&mut events, far).unwrap();
    assert_eq!((keys(&events), timer.try_take(), sim.now()), (vec![7], Some(at(3)), at(3)));
    timer.reset(ms(1));
    let mut set = Select::new(&reactor);
    set.recv(&timer);
    assert_eq!(set.wait_timeout(far).unwrap().unwrap().recv(&timer), Some(at(4)));

    // Nothing is due, so the virtual clock does not move.
    let called = Rc::new(Cell::new(0));
    let count = called.clone();
    let _callback = reactor.call_after(ms(1), move |_| count.set(count.get() + 1));
    let deadlock =
        |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Deadlock);
    deadlock(reactor.sleep_blocking(far));
    assert_eq!((called.get(), sim.now()), (1, at(5)), "a callback runs during the sleep");
    deadlock(reactor.wait_timeout(&mut events, far));
    deadlock(select! { reactor;
        recv(timer) -> _ => unreachable!(),
        default(far) => unreachable!(),
        error -> error => Err(error),
    });
    // A clock at `Time::MAX` ends every wait.
    sim.advance(far);
    reactor.wait_timeout(&mut events, far).unwrap();
    assert!(events.is_empty());
    reactor.sleep_blocking(far).unwrap();
    assert!(select! { reactor; recv(timer) -> _ => false, default(far) => true });
    timer.reset(ms(0));
    deadlock(select! { reactor; recv(timer) -> _ => unreachable!(), error -> error => Err(error) });
}

#[test]
fn the_longest_slack_and_precision_do_no_harm() {
    let far = Duration::MAX;
    let (sim, reactor) = simulated();
    let timer = reactor.after(ms(10)).slack(far);
    let ticker = reactor.every(ms(7)).unwrap().slack(far);
    let callback = reactor.call_after(ms(8), |_| {}).slack(far);
    reactor.sleep_blocking(ms(20)).unwrap();
    assert!(timer.is_ready() && ticker.is_ready() && callback.deadline().is_none());
    assert_eq!(sim.now(), at(20));
    // With this precision the loop never sleeps before a deadline. Without a deadline the loop
    // sleeps.
    let _watchdog = watchdog();
    let reactor =
        Reactor::builder().precise(far).slack(Duration::ZERO).spin(Spin::Off).build().unwrap();
    let timer = reactor.after(ms(3));
    select! { reactor; recv(timer) -> due => assert!(Time::now() >= due) }
    assert_eq!(reactor.stats().waits, 0);
    // Without a deadline the loop has no reason to spin. The attempt is repeated if the message
    // came before the sleep.
    let sleeps = || {
        let (tx, inbox) = reactor.channel(1).unwrap();
        let sender = support::thread::spawn(move || {
            std::thread::sleep(ms(60));
            tx.send(1).unwrap();
        });
        select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(1)) }
        sender.join().unwrap();
        reactor.stats().waits > 0
    };
    assert!(sometimes(sleeps), "the loop spins without a deadline");
    // Slack and precision together do no harm.
    let reactor = Reactor::builder().precise(far).slack(far).build().unwrap();
    let (timer, exact) = (reactor.after(ms(1)), reactor.after(ms(2)).slack(Duration::ZERO));
    select! { reactor; recv(exact) -> due => assert!(Time::now() >= due) }
    assert!(timer.is_ready());
}

#[test]
fn channels_accept_the_longest_timeout() {
    let _watchdog = watchdog();
    let far = Duration::MAX;
    let (tx, rx) = channel::bounded(1);
    assert_eq!(tx.send_timeout(1, far), Ok(()));
    assert_eq!(rx.recv_timeout(far), Ok(1));
    // Calls that block.
    tx.send(2).unwrap();
    let sender = support::thread::spawn(move || tx.send_timeout(3, far).map(|()| tx));
    assert_eq!((rx.recv_timeout(far), rx.recv_timeout(far)), (Ok(2), Ok(3)));
    let tx = sender.join().unwrap().unwrap();
    let receiver = support::thread::spawn(move || rx.recv_timeout(far));
    tx.send_timeout(4, far).unwrap();
    assert_eq!(receiver.join().unwrap(), Ok(4));
    let (tx, rx) = channel::bounded(0);
    let receiver = support::thread::spawn(move || rx.recv_timeout(far));
    tx.send_timeout(5, far).unwrap();
    assert_eq!(receiver.join().unwrap(), Ok(5));
}

// A hundred thousand at one instant. (`timers.rs` creates, resets and drops a million timers.)

const MANY: u64 = 100_000;

/// Checks that no call takes 1 ms of this thread's CPU time, in the best of three runs. An
/// interrupt counts as time of a call. Checked in release builds only.
fn no_call_takes_a_millisecond(run: impl Fn() -> Duration) {
    let limit = if cfg!(debug_assertions) { Duration::MAX } else { ms(1) };
    let worst: Vec<Duration> = (0..3).map(|_| run()).collect();
    assert!(worst.iter().any(|&worst| worst < limit), "{worst:?}");
}

#[test]
fn many_simultaneous_timers_fire_once_without_a_stall() {
    no_call_takes_a_millisecond(|| {
        let (sim, reactor) = simulated();
        let timers: Vec<Timer> = (0..MANY).map(|n| reactor.after(ms(1)).with_key(n)).collect();
        sim.advance(ms(1));
        let mut events = Events::with_capacity(4_096);
        let (mut next, mut worst) = (0, Duration::ZERO);
        while next < MANY {
            let (result, time) = timed(|| reactor.wait(&mut events));
            result.unwrap();
            worst = worst.max(time);
            assert!(!events.is_empty());
            for event in &events {
                assert_eq!(event.key(), next, "the keys are in arming order");
                assert_eq!(timers[next as usize].try_take(), Some(at(1)));
                next += 1;
            }
        }
        assert_eq!((ready_keys(&reactor), reactor.stats().expired), (vec![], MANY));
        worst
    });
}

#[test]
fn many_simultaneous_callbacks_run_once_without_a_stall() {
    no_call_takes_a_millisecond(|| {
        let (sim, reactor) = simulated();
        let next = Rc::new(Cell::new(0));
        let _callbacks: Vec<Callback> = (0..MANY)
            .map(|n| {
                let next = next.clone();
                reactor.call_after(ms(1), move |_| {
                    assert_eq!(next.replace(n + 1), n, "the callbacks run in arming order")
                })
            })
            .collect();
        sim.advance(ms(1));
        let mut events = Events::with_capacity(1);
        let (mut worst, mut turns) = (Duration::ZERO, 0);
        while next.get() < MANY {
            let (result, time) = timed(|| reactor.try_wait(&mut events));
            result.unwrap();
            worst = worst.max(time);
            turns += 1;
            assert!(turns <= MANY, "the turns make no progress");
        }
        assert_eq!(reactor.stats().called, MANY);
        worst
    });
}

#[test]
fn a_sleep_runs_callbacks_due_before_its_end() {
    let (sim, reactor) = simulated();
    let callbacks: Vec<Callback> = (0..20_000).map(|_| reactor.call_after(ms(1), |_| {})).collect();
    reactor.sleep_blocking(ms(1)).unwrap();
    // One turn calls only a batch. Callbacks that the sleep had no time for run in the next turns.
    let mut events = Events::with_capacity(1);
    while reactor.stats().called < 20_000 {
        let before = reactor.stats().called;
        reactor.try_wait(&mut events).unwrap();
        assert!(reactor.stats().called > before);
    }
    assert_eq!(sim.now(), at(1));
    assert!(callbacks.iter().all(|callback| callback.deadline().is_none()));
    // A longer sleep has time for all callbacks.
    callbacks.iter().for_each(|callback| assert!(!callback.reset(ms(1))));
    reactor.sleep_blocking(ms(2)).unwrap();
    assert_eq!((reactor.stats().called, sim.now()), (40_000, at(3)));
}

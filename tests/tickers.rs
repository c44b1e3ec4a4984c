//! Tickers: the grid is kept whatever the loop does and however the tick is received, missed ticks are counted, and a reset or restart begins
//! a new grid with nothing left of the old one. Time is virtual except in one test.

#[path = "common/time.rs"]
mod time;

use std::io;
use std::time::Duration;

use pollmux::{Events, Reactor, Source, Tick, Ticker, Time, ZeroPeriod, select};
use proptest::prelude::*;

use self::time::{at, keys, ms, ready_keys, simulated, simulated_from};

/// Every way to receive a tick without waiting for one.
const PATHS: [fn(&Reactor, &Ticker) -> Option<Tick>; 5] = [
    |reactor, ticker| select! { reactor; recv(ticker) -> tick => Some(tick), default => None },
    |reactor, ticker| select! { reactor; biased; recv(ticker) -> tick => Some(tick), default => None },
    |reactor, ticker| select! { reactor; recv(ticker) -> tick => Some(tick), default(Duration::ZERO) => None },
    |reactor, ticker| ready_keys(reactor).contains(&ticker.key()).then(|| ticker.try_take().unwrap()),
    |reactor, ticker| {
        let mut events = Events::with_capacity(4);
        reactor.wait_timeout(&mut events, Duration::ZERO).unwrap();
        keys(&events).contains(&ticker.key()).then(|| ticker.try_take().unwrap())
    },
];

/// Every way to wait for a tick.
const BLOCKING_PATHS: [fn(&Reactor, &Ticker) -> Tick; 3] = [
    |reactor, ticker| select! { reactor; recv(ticker) -> tick => tick },
    |reactor, ticker| {
        select! { reactor;
            recv(ticker) -> tick => tick,
            default(Duration::from_secs(1 << 30)) => unreachable!()
        }
    },
    |reactor, ticker| {
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert_eq!(keys(&events), [ticker.key()]);
        ticker.try_take().unwrap()
    },
];

fn poll(reactor: &Reactor, ticker: &Ticker) -> Option<Tick> {
    PATHS[0](reactor, ticker)
}

fn tick(scheduled: Time, missed: u64) -> Tick {
    Tick { scheduled, missed }
}

// Item 8: the grid.

#[test]
fn the_first_tick_is_one_period_from_now() {
    let (sim, reactor) = simulated_from(at(7));
    let ticker = reactor.every(ms(10)).unwrap();
    assert_eq!((ticker.period(), ticker.deadline()), (ms(10), Some(at(17))));
    assert_eq!(poll(&reactor, &ticker), None);
    sim.advance(ms(10) - Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &ticker), None, "1 ns early");
    sim.advance(Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(17), 0)));
    assert_eq!(poll(&reactor, &ticker), None);
}

#[test]
fn a_late_loop_gets_the_first_missed_instant_and_the_count_of_the_others() {
    for receive in PATHS {
        let (sim, reactor) = simulated();
        let ticker = reactor.every(ms(100)).unwrap();
        for (advance, expected) in [(99, None), (1, Some(tick(at(100), 0))), (199, Some(tick(at(200), 0)))] {
            sim.advance(ms(advance));
            assert_eq!(receive(&reactor, &ticker), expected, "at {:?}", sim.now());
        }
        // 299 now; the tick of 300 and those of 400 to 900 pass.
        sim.advance(ms(650));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(300), 6)));
        assert_eq!(receive(&reactor, &ticker), None, "at most one is pending");
        assert_eq!(ticker.deadline(), Some(at(1_000)), "on the grid again");
        // Exactly on a grid point: that one has passed, too.
        sim.advance(ms(1_200 - 949));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(1_000), 2)));
        assert_eq!(ticker.deadline(), Some(at(1_300)));
    }
}

#[test]
fn what_passes_between_expiry_and_receipt_counts_as_missed() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    sim.advance(ms(25));
    assert_eq!(ready_keys(&reactor), [ticker.key()], "still one");
    assert_eq!(ticker.deadline(), Some(at(10)));
    assert_eq!(ticker.try_take(), Some(tick(at(10), 2)));
    assert_eq!(ticker.try_take(), None);
    assert_eq!(ticker.deadline(), Some(at(40)));
}

#[test]
fn a_slow_arm_does_not_shift_the_grid() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    for n in 1..=1_000 {
        select! { reactor; recv(ticker) -> got => {
            assert_eq!(got, tick(at(10 * n), 0));
            sim.advance(ms(9));
        }}
    }
}

#[test]
fn ticks_do_not_drift_on_any_path_that_waits() {
    for receive in BLOCKING_PATHS {
        let (sim, reactor) = simulated_from(Time::from_nanos(123_456_789));
        let (start, period) = (sim.now(), 1_000_003);
        let ticker = reactor.every(Duration::from_nanos(period)).unwrap();
        let mut grid = 0;
        for n in 0..10_000u64 {
            let got = receive(&reactor, &ticker);
            grid += 1;
            assert_eq!(got.scheduled, start + Duration::from_nanos(period * grid));
            grid += got.missed;
            // Mostly quick, now and then slower than three periods.
            sim.advance(Duration::from_nanos(n * 7_919 % period + if n % 10 == 0 { 3 * period } else { 0 }));
        }
        assert!(grid > 12_000);
    }
}

#[test]
fn ticks_do_not_drift_on_any_path_that_polls() {
    for receive in PATHS {
        let (sim, reactor) = simulated_from(Time::from_nanos(987_654_321));
        let (start, period) = (sim.now(), 999_983);
        let ticker = reactor.every(Duration::from_nanos(period)).unwrap();
        let mut grid = 0;
        for n in 0..20_000u64 {
            sim.advance(Duration::from_nanos(n * 104_729 % (2 * period)));
            let passed = (sim.now() - start).as_nanos() as u64 / period;
            match receive(&reactor, &ticker) {
                Some(got) => {
                    assert_eq!(got.scheduled, start + Duration::from_nanos(period * (grid + 1)));
                    grid += 1 + got.missed;
                    assert_eq!(grid, passed, "each point of the grid is ticked or counted");
                }
                None => assert_eq!(grid, passed),
            }
        }
        assert!(grid > 15_000);
    }
}

#[test]
fn ticks_do_not_drift_by_the_wall_clock_and_are_never_early() {
    // Real time: the kernel's timer is late by something every time, and that must not add up.
    let reactor = Reactor::new().unwrap();
    let ticker = reactor.every(ms(1)).unwrap();
    let first = ticker.deadline().unwrap();
    let mut grid = 0;
    for n in 0..60 {
        let got = BLOCKING_PATHS[n % 3](&reactor, &ticker);
        assert!(Time::now() >= got.scheduled);
        assert_eq!(got.scheduled, first + ms(1) * grid);
        grid += 1 + got.missed as u32;
    }
}

#[test]
fn many_tickers_keep_their_own_grids() {
    let (sim, reactor) = simulated();
    let tickers: Vec<Ticker> = (1..=40).map(|n| reactor.every(ms(n)).unwrap().with_key(n)).collect();
    let mut events = Events::with_capacity(64);
    let mut ticks = 0;
    while sim.now() < at(1_000) {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            let got = tickers[event.key() as usize - 1].try_take().unwrap();
            assert_eq!(got, tick(sim.now(), 0));
            assert!((sim.now() - Time::ZERO).as_millis() as u64 % event.key() == 0);
            ticks += 1;
        }
    }
    assert_eq!(ticks, (1..=40).map(|n| 1_000 / n).sum::<u64>());
}

// Item 9: reset and restart.

/// What has happened to a ticker of 100 ms before the call under test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Armed,
    /// A tick is due, but no turn has looked.
    DueUnseen,
    /// A turn has found the tick; nobody has taken it.
    Expired,
    /// The tick was taken, the next one is armed.
    Taken,
    Stopped,
    StoppedWhenExpired,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Stop,
    Restart,
    ResetShorter,
    ResetLonger,
    ResetZero,
}

#[test]
fn the_table_of_stop_restart_and_reset_results_holds_and_no_stale_tick_comes() {
    use Before::*;
    use Call::*;
    for before in [Armed, DueUnseen, Expired, Taken, Stopped, StoppedWhenExpired] {
        for call in [Stop, Restart, ResetShorter, ResetLonger, ResetZero] {
            for receive in PATHS {
                let case = format!("{before:?}, then {call:?}");
                let (sim, reactor) = simulated_from(at(1_000));
                let ticker = reactor.every(ms(100)).unwrap();
                if !matches!(before, Armed | Stopped) {
                    // Late by half a period, so that the old grid differs from a new one.
                    sim.advance(ms(150));
                }
                match before {
                    Armed | DueUnseen => {}
                    Expired => assert_eq!(ready_keys(&reactor), [ticker.key()]),
                    Taken => assert_eq!(receive(&reactor, &ticker), Some(tick(at(1_100), 0))),
                    Stopped => assert!(ticker.stop()),
                    StoppedWhenExpired => {
                        assert_eq!(ready_keys(&reactor), [ticker.key()]);
                        assert!(ticker.stop());
                    }
                }
                let (now, was, period) = (sim.now(), ticker.deadline(), ticker.period());
                let pending = matches!(before, Armed | DueUnseen | Expired | Taken);
                assert_eq!(was.is_some(), pending, "{case}");
                let expected = match call {
                    Stop => {
                        assert_eq!(ticker.stop(), pending, "{case}");
                        None
                    }
                    Restart => {
                        assert_eq!(ticker.restart(), pending, "{case}");
                        Some((now + ms(100), ms(100)))
                    }
                    ResetShorter => {
                        assert_eq!(ticker.reset(ms(40)), Ok(pending), "{case}");
                        Some((now + ms(40), ms(40)))
                    }
                    ResetLonger => {
                        assert_eq!(ticker.reset(ms(300)), Ok(pending), "{case}");
                        Some((now + ms(300), ms(300)))
                    }
                    ResetZero => {
                        assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod), "{case}");
                        assert_eq!(ticker.period(), period, "{case}");
                        was.map(|was| (was, period))
                    }
                };
                assert_eq!(ticker.deadline(), expected.map(|(first, _)| first), "{case}");
                let mut received = Vec::new();
                while sim.now() < now + ms(1_000) {
                    received.extend(receive(&reactor, &ticker).map(|tick| tick.scheduled));
                    sim.advance(ms(10));
                }
                let end = sim.now();
                let grid: Vec<Time> = expected
                    .into_iter()
                    .flat_map(|(first, period)| {
                        (0..).map(move |n| first + period * n).take_while(|&t| t < end)
                    })
                    .collect();
                assert_eq!(received, grid, "{case}");
            }
        }
    }
}

#[test]
fn restart_begins_the_grid_at_the_real_now_even_in_a_slow_arm() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    select! { reactor; recv(ticker) -> got => {
        assert_eq!(got, tick(at(10), 0));
        sim.advance(ms(33));
        assert!(ticker.restart(), "the next tick was armed");
        assert_eq!(ticker.deadline(), Some(at(53)));
        sim.advance(ms(4));
        assert_eq!(ticker.reset(ms(20)), Ok(true));
        assert_eq!((ticker.deadline(), ticker.period()), (Some(at(67)), ms(20)));
    }}
    select! { reactor; recv(ticker) -> got => assert_eq!((got, sim.now()), (tick(at(67), 0), at(67))) }
    select! { reactor; recv(ticker) -> got => assert_eq!(got, tick(at(87), 0)) }
}

#[test]
fn a_heartbeat_restarted_by_every_message_never_ticks() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    for _ in 0..10_000 {
        sim.advance(ms(9));
        assert_eq!(poll(&reactor, &ticker), None);
        assert!(ticker.restart());
    }
    sim.advance(ms(10));
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(90_010), 0)));
}

#[test]
fn in_one_batch_of_wait_a_restart_or_stop_takes_the_other_tick_away() {
    for stop in [false, true] {
        let (sim, reactor) = simulated();
        let (a, b) = (reactor.every(ms(10)).unwrap().with_key(1), reactor.every(ms(10)).unwrap().with_key(2));
        sim.advance(ms(10));
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 2);
        let mut seen = Vec::new();
        for event in &events {
            seen.push(event.key());
            assert!(if stop { b.stop() } else { b.restart() });
        }
        assert_eq!(seen, [1]);
        assert_eq!(a.try_take(), Some(tick(at(10), 0)));
        assert_eq!(b.try_take(), None);
        sim.advance(ms(10));
        // `b` was armed first: `a` when its tick was taken.
        assert_eq!(ready_keys(&reactor), if stop { vec![1] } else { vec![2, 1] });
    }
}

#[test]
fn a_stopped_ticker_ticks_again_after_restart_or_reset() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    assert!(ticker.stop());
    assert!(!ticker.stop());
    assert_eq!((ticker.deadline(), ticker.period()), (None, ms(10)));
    sim.advance(ms(1_005));
    assert_eq!(poll(&reactor, &ticker), None);
    assert!(!ticker.restart());
    select! { reactor; recv(ticker) -> got => assert_eq!(got, tick(at(1_015), 0)) }
    assert!(ticker.stop());
    assert_eq!(ticker.reset(ms(7)), Ok(false));
    select! { reactor; recv(ticker) -> got => assert_eq!(got, tick(at(1_022), 0)) }
    select! { reactor; recv(ticker) -> got => assert_eq!(got, tick(at(1_029), 0)) }
}

#[test]
fn a_stopped_ticker_is_nothing_to_wait_for() {
    let (_sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    ticker.stop();
    let failed = select! { reactor; recv(ticker) -> _ => unreachable!(), error -> e => e.kind() };
    assert_eq!(failed, io::ErrorKind::Deadlock);
}

#[test]
fn a_ticker_stopped_in_its_own_arm_does_not_tick_again() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    select! { reactor; recv(ticker) -> _ => assert!(ticker.stop()) }
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &ticker), None);
}

#[test]
fn a_zero_period_is_an_error_that_leaks_nothing() {
    let (_sim, reactor) = simulated();
    assert_eq!(reactor.every(Duration::ZERO).unwrap_err(), ZeroPeriod);
    assert_eq!(reactor.stats().live, 0);
    assert_eq!(ZeroPeriod.to_string(), "the period of a ticker must not be zero");

    let as_io = |period| -> io::Result<Ticker> { Ok(reactor.every(period)?) };
    let error = as_io(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(error.get_ref().and_then(|inner| inner.downcast_ref()), Some(&ZeroPeriod));
    assert!(as_io(Duration::from_nanos(1)).is_ok());
}

#[test]
fn a_failed_reset_changes_nothing() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(15));
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    assert_eq!(ticker.deadline(), Some(at(10)), "the pending tick is kept");
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(10), 0)));
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    select! { reactor; recv(ticker) -> got => assert_eq!(got, tick(at(20), 0)) }
    ticker.stop();
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    assert_eq!(ticker.deadline(), None, "still stopped");
    assert!(!ticker.restart());
    assert_eq!(ticker.deadline(), Some(at(30)), "with the old period");
}

#[test]
fn a_ticker_nobody_looks_at_wakes_nobody() {
    let (_sim, reactor) = simulated();
    let unseen = reactor.every(ms(1)).unwrap();
    let timer = reactor.after(ms(10_000));
    let before = reactor.stats();
    select! { reactor; recv(timer) -> due => assert_eq!(due, at(10_000)) }
    assert!((reactor.stats() - before).expired <= 2, "its first tick and the timer: {}", reactor.stats());
    assert_eq!(unseen.try_take(), Some(tick(at(1), 9_999)));
}

#[test]
fn a_dropped_ticker_frees_its_slot_and_never_ticks() {
    let (sim, reactor) = simulated();
    for n in 0..100_000u64 {
        let ticker = reactor.every(ms(1)).unwrap();
        sim.advance(ms(n % 3));
        assert_eq!(reactor.stats().live, 1);
        drop(ticker);
    }
    assert_eq!(reactor.stats().live, 0);
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_ticker_that_outlives_its_reactor_is_inert() {
    let (sim, reactor) = simulated();
    let handle = reactor.handle();
    let ticker = reactor.every(ms(1)).unwrap();
    sim.advance(ms(1));
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    drop(reactor);
    for ticker in [ticker, handle.every(ms(1)).unwrap()] {
        assert!(!ticker.is_ready());
        assert!(!ticker.restart());
        assert!(!ticker.stop());
        assert_eq!(ticker.reset(ms(1)), Ok(false));
        assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
        assert_eq!((ticker.deadline(), ticker.try_take()), (None, None));
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Advance(u64),
    Receive(usize),
    /// A turn finds what is due; nobody takes it.
    Look,
    Restart,
    Reset(u64),
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..40u64).prop_map(Op::Advance),
        4 => (0..PATHS.len()).prop_map(Op::Receive),
        2 => Just(Op::Look),
        1 => Just(Op::Restart),
        1 => (0..12u64).prop_map(Op::Reset),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// A ticker is a next instant and a period, nothing else.
    #[test]
    fn a_ticker_behaves_like_a_next_instant_and_a_period(ops in proptest::collection::vec(op(), 1..100)) {
        let (sim, reactor) = simulated();
        let ticker = reactor.every(Duration::from_nanos(5)).unwrap();
        let (mut now, mut period, mut next) = (0, 5, Some(5));
        for op in ops {
            match op {
                Op::Advance(d) => {
                    now += d;
                    sim.advance(Duration::from_nanos(d));
                }
                Op::Receive(path) => {
                    let got = PATHS[path](&reactor, &ticker).map(|tick| (tick.scheduled.as_nanos(), tick.missed));
                    let due = next.filter(|&next| next <= now);
                    prop_assert_eq!(got, due.map(|due| (due, (now - due) / period)));
                    if let Some(due) = due {
                        next = Some(due + ((now - due) / period + 1) * period);
                    }
                }
                Op::Look => {
                    let reported = !ready_keys(&reactor).is_empty();
                    prop_assert_eq!(reported, next.is_some_and(|next| next <= now));
                }
                Op::Restart => {
                    prop_assert_eq!(ticker.restart(), next.is_some());
                    next = Some(now + period);
                }
                Op::Reset(0) => prop_assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod)),
                Op::Reset(n) => {
                    prop_assert_eq!(ticker.reset(Duration::from_nanos(n)), Ok(next.is_some()));
                    (period, next) = (n, Some(now + n));
                }
                Op::Stop => {
                    prop_assert_eq!(ticker.stop(), next.is_some());
                    next = None;
                }
            }
            prop_assert_eq!(ticker.deadline().map(Time::as_nanos), next);
            prop_assert_eq!(ticker.period(), Duration::from_nanos(period));
        }
    }
}

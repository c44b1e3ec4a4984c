//! Tickers keep their grid whatever the loop does and however a tick is received. Missed ticks are
//! counted. A reset or restart begins a new grid and drops the pending tick. Time is virtual except
//! in two tests.

use std::io;
use std::time::Duration;

use pollmux::{
    Events, Handle, MissedTickBehavior, Reactor, Select, Source, Tick, Ticker, Time, select,
    sources::ZeroPeriod,
};
use proptest::prelude::*;

use support::{at, keys, ms, ready_keys, simulated, simulated_from};

/// Every way to receive a tick without waiting for one.
const PATHS: [fn(&Reactor, &Ticker) -> Option<Tick>; 7] = [
    |reactor, ticker| select! { reactor; recv(ticker) -> tick => Some(tick), default => None },
    |reactor, ticker| {
        select! { reactor; biased;
            recv(ticker) -> tick => Some(tick),
            default => None,
        }
    },
    |reactor, ticker| {
        select! { reactor;
            recv(ticker) -> tick => Some(tick),
            default(Duration::ZERO) => None,
        }
    },
    |reactor, ticker| {
        ready_keys(reactor).contains(&ticker.key()).then(|| ticker.try_take().unwrap())
    },
    |reactor, ticker| {
        let mut events = Events::with_capacity(4);
        reactor.wait_timeout(&mut events, Duration::ZERO).unwrap();
        keys(&events).contains(&ticker.key()).then(|| ticker.try_take().unwrap())
    },
    |reactor, ticker| {
        receive_by_set(reactor, ticker, |select| select.try_wait().unwrap().map(|_| ()))
    },
    |reactor, ticker| {
        receive_by_set(reactor, ticker, |select| {
            select.wait_timeout(Duration::ZERO).unwrap().map(|_| ())
        })
    },
];

/// Receives a tick through a set of one case. `wait` waits for the set.
fn receive_by_set(
    reactor: &Handle,
    ticker: &Ticker,
    wait: impl FnOnce(&mut Select<'_>) -> Option<()>,
) -> Option<Tick> {
    let mut select = Select::new(reactor);
    select.recv(ticker);
    wait(&mut select).map(|()| ticker.try_take().unwrap())
}

/// Every way to wait for a tick.
const BLOCKING_PATHS: [fn(&Reactor, &Ticker) -> Tick; 4] = [
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
    |reactor, ticker| {
        let mut select = Select::new(reactor);
        select.recv(ticker);
        select.wait().unwrap().recv(ticker).unwrap()
    },
];

fn poll(reactor: &Reactor, ticker: &Ticker) -> Option<Tick> {
    PATHS[0](reactor, ticker)
}

fn tick(scheduled: Time, missed: u64) -> Tick {
    Tick { scheduled, missed }
}

// The grid.

#[test]
fn the_first_tick_is_one_period_from_now() {
    let (sim, reactor) = simulated_from(at(7));
    let ticker = reactor.every(ms(10)).unwrap();
    assert_eq!((ticker.period(), ticker.deadline()), (ms(10), Some(at(17))));
    assert_eq!(poll(&reactor, &ticker), None);
    sim.advance(ms(10) - Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &ticker), None, "the tick is 1 ns early");
    sim.advance(Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(17), 0)));
    assert_eq!(poll(&reactor, &ticker), None);
}

#[test]
fn a_late_loop_gets_the_first_missed_tick() {
    for receive in PATHS {
        let (sim, reactor) = simulated();
        let ticker = reactor.every(ms(100)).unwrap();
        for (advance, expected) in
            [(99, None), (1, Some(tick(at(100), 0))), (199, Some(tick(at(200), 0)))]
        {
            sim.advance(ms(advance));
            assert_eq!(receive(&reactor, &ticker), expected, "at {:?}", sim.now());
        }
        // The time is 299. The ticks of 300 and of 400 to 900 pass.
        sim.advance(ms(650));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(300), 6)));
        assert_eq!(receive(&reactor, &ticker), None, "at most one tick is pending");
        assert_eq!(ticker.deadline(), Some(at(1_000)), "the next tick is on the grid");
        // The clock stops on a grid point. That tick has passed, too.
        sim.advance(ms(1_200 - 949));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(1_000), 2)));
        assert_eq!(ticker.deadline(), Some(at(1_300)));
    }
}

#[test]
fn ticks_between_expiry_and_receive_count_as_missed() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(10));
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    sim.advance(ms(25));
    assert_eq!(ready_keys(&reactor), [ticker.key()], "the tick is still pending");
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
fn waiting_for_ticks_does_not_drift() {
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
            // Most rounds are quick. Every tenth takes more than three periods.
            sim.advance(Duration::from_nanos(
                n * 7_919 % period + if n % 10 == 0 { 3 * period } else { 0 },
            ));
        }
        assert!(grid > 12_000);
    }
}

#[test]
fn polling_for_ticks_does_not_drift() {
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
                    assert_eq!(grid, passed, "each grid point is received or counted");
                }
                None => assert_eq!(grid, passed),
            }
        }
        assert!(grid > 15_000);
    }
}

#[test]
fn real_ticks_are_never_early_and_never_drift() {
    // Real time: the kernel's timer is late each time, and the lateness must not add up.
    let reactor = support::reactor();
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
    let tickers: Vec<Ticker> =
        (1..=40).map(|n| reactor.every(ms(n)).unwrap().with_key(n)).collect();
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

// Reset and restart.

/// The state of a ticker of 100 ms before the call under test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Armed,
    /// A tick is due, but no turn has polled.
    DueUnseen,
    /// A turn has found the tick. The tick was not taken.
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
fn stop_restart_and_reset_leave_no_stale_tick() {
    use Before::*;
    use Call::*;
    for before in [Armed, DueUnseen, Expired, Taken, Stopped, StoppedWhenExpired] {
        for call in [Stop, Restart, ResetShorter, ResetLonger, ResetZero] {
            for receive in PATHS {
                let case = format!("{before:?}, then {call:?}");
                let (sim, reactor) = simulated_from(at(1_000));
                let ticker = reactor.every(ms(100)).unwrap();
                if !matches!(before, Armed | Stopped) {
                    // Late by half a period, so that a new grid differs from the old grid.
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
fn restart_in_a_slow_arm_begins_at_now() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    select! { reactor; recv(ticker) -> got => {
        assert_eq!(got, tick(at(10), 0));
        sim.advance(ms(33));
        assert!(ticker.restart(), "the next tick is armed");
        assert_eq!(ticker.deadline(), Some(at(53)));
        sim.advance(ms(4));
        assert_eq!(ticker.reset(ms(20)), Ok(true));
        assert_eq!((ticker.deadline(), ticker.period()), (Some(at(67)), ms(20)));
    }}
    select! { reactor;
        recv(ticker) -> got => assert_eq!((got, sim.now()), (tick(at(67), 0), at(67))),
    }
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
fn stop_or_restart_removes_a_reported_event() {
    for stop in [false, true] {
        let (sim, reactor) = simulated();
        let (a, b) = (
            reactor.every(ms(10)).unwrap().with_key(1),
            reactor.every(ms(10)).unwrap().with_key(2),
        );
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
        // `b` is armed before `a`, which is armed when its tick is taken.
        assert_eq!(ready_keys(&reactor), if stop { vec![1] } else { vec![2, 1] });
    }
}

#[test]
fn restart_or_reset_revives_a_stopped_ticker() {
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
fn waiting_for_a_stopped_ticker_is_a_deadlock() {
    let (_sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    ticker.stop();
    let failed = select! { reactor; recv(ticker) -> _ => unreachable!(), error -> e => e.kind() };
    assert_eq!(failed, io::ErrorKind::Deadlock);
}

#[test]
fn a_ticker_stopped_in_its_arm_stays_stopped() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    select! { reactor; recv(ticker) -> _ => assert!(ticker.stop()) }
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &ticker), None);
}

#[test]
fn a_zero_period_is_an_error() {
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
    assert_eq!(ticker.deadline(), None, "the ticker is still stopped");
    assert!(!ticker.restart());
    assert_eq!(ticker.deadline(), Some(at(30)), "the period is the old one");
}

#[test]
fn an_unused_ticker_ends_no_sleep() {
    let (_sim, reactor) = simulated();
    let unseen = reactor.every(ms(1)).unwrap();
    let timer = reactor.after(ms(10_000));
    let before = reactor.stats();
    select! { reactor; recv(timer) -> due => assert_eq!(due, at(10_000)) }
    assert!(
        (reactor.stats() - before).expired <= 2,
        "more than the first tick and the timer expired: {}",
        reactor.stats()
    );
    assert_eq!(unseen.try_take(), Some(tick(at(1), 9_999)));
}

#[test]
fn a_dropped_ticker_frees_its_slot() {
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

// `Burst` and `Delay`.

/// All ticks that are pending now. Each turn gives one tick.
fn drain(reactor: &Reactor, ticker: &Ticker) -> Vec<Tick> {
    std::iter::from_fn(|| poll(reactor, ticker)).collect()
}

fn scheduled(ticks: &[Tick]) -> Vec<Time> {
    assert!(ticks.iter().all(|tick| tick.missed == 0));
    ticks.iter().map(|tick| tick.scheduled).collect()
}

#[test]
fn each_missed_tick_behavior_holds_on_every_path() {
    use MissedTickBehavior::*;
    let then = |n: &[u64]| n.iter().map(|&n| at(n)).collect::<Vec<_>>();
    for (behavior, missed, following) in [
        (Skip, 2, then(&[400, 500])),
        (Burst, 0, then(&[200, 300, 400, 500])),
        (Delay, 2, then(&[450, 550])),
    ] {
        for poll in PATHS {
            for receive in BLOCKING_PATHS {
                let (sim, reactor) = simulated();
                let ticker = reactor.every(ms(100)).unwrap().missed_tick_behavior(behavior);
                sim.advance(ms(350));
                assert_eq!(poll(&reactor, &ticker), Some(tick(at(100), missed)), "{behavior:?}");
                let next: Vec<Tick> =
                    following.iter().map(|_| receive(&reactor, &ticker)).collect();
                assert_eq!(scheduled(&next), following, "{behavior:?}");
                assert_eq!(sim.now(), *following.last().unwrap());
            }
        }
    }
}

#[test]
fn a_burst_delivers_one_tick_a_turn() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(1)).unwrap().missed_tick_behavior(MissedTickBehavior::Burst);
    sim.advance(Duration::from_micros(5_000_500));
    let before = reactor.stats();
    let ticks = drain(&reactor, &ticker);
    assert_eq!(scheduled(&ticks), (1..=5_000).map(at).collect::<Vec<_>>());
    assert_eq!((reactor.stats() - before).turns, 5_001, "each turn gives one tick");
    assert_eq!(ticker.deadline(), Some(at(5_001)));
    select! { reactor;
        recv(ticker) -> got => assert_eq!((got, sim.now()), (tick(at(5_001), 0), at(5_001))),
    }
}

#[test]
fn an_endless_burst_starves_no_other_source() {
    let (sim, reactor) = simulated();
    let nano = Duration::from_nanos(1);
    let burst = reactor.every(nano).unwrap().missed_tick_behavior(MissedTickBehavior::Burst);
    let other = reactor.every(ms(500)).unwrap();
    sim.advance(ms(1_000));
    let (mut bursts, mut others) = (0, 0);
    for _ in 0..1_000 {
        let before = reactor.stats();
        select! { reactor;
            recv(burst) -> got => {
                bursts += 1;
                assert_eq!(got, tick(Time::ZERO + nano * bursts, 0));
                assert_eq!(burst.try_take(), None, "the next tick belongs to the next turn");
            }
            recv(other) -> _ => others += 1,
        }
        assert!((reactor.stats() - before).expired <= 2);
    }
    assert_eq!((bursts, others), (999, 1));
    let mut events = Events::with_capacity(10);
    reactor.wait(&mut events).unwrap();
    assert_eq!(events.len(), 1);
    // Stopping or restarting the ticker ends the burst at once.
    assert!(burst.stop());
    assert_eq!(poll(&reactor, &burst), None);
    assert!(!burst.restart());
    assert_eq!(poll(&reactor, &burst), None);
    sim.advance(nano * 3);
    assert_eq!(scheduled(&drain(&reactor, &burst)), [1, 2, 3].map(|n| at(1_000) + nano * n));
}

#[test]
fn a_delay_begins_a_grid_at_the_receive() {
    for receive in PATHS {
        let (sim, reactor) = simulated();
        let ticker =
            reactor.every(ms(100)).unwrap().missed_tick_behavior(MissedTickBehavior::Delay);
        sim.advance(ms(170));
        assert_eq!(ready_keys(&reactor), [ticker.key()]);
        sim.advance(ms(20));
        // A turn found the tick at 170. The tick is received at 190.
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(100), 0)));
        assert_eq!(ticker.deadline(), Some(at(290)));
        sim.advance(ms(500));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(290), 4)));
        assert_eq!(ticker.deadline(), Some(at(790)));
        sim.advance(ms(100));
        assert_eq!(receive(&reactor, &ticker), Some(tick(at(790), 0)), "the tick is on time");
        assert_eq!(ticker.deadline(), Some(at(890)));
    }
}

#[test]
fn delay_tolerates_5_ms_below_a_whole_period() {
    let nano = Duration::from_nanos(1);
    // The period, the lateness, and true if the grid is kept.
    let cases = [
        (ms(100), ms(0), true),
        (ms(100), ms(5), true),
        (ms(100), ms(5) + nano, false),
        (ms(5), ms(5), false),
        (ms(5), ms(5) - nano, true),
        (ms(5) + nano, ms(5), true),
        (ms(2), ms(2) - nano, true),
        (ms(2), ms(2), false),
        (ms(2), ms(5), false),
        (nano, nano * 3, false),
    ];
    for (period, late, kept) in cases {
        let (sim, reactor) = simulated();
        let ticker = reactor.every(period).unwrap().missed_tick_behavior(MissedTickBehavior::Delay);
        sim.advance(period + late);
        let missed = (late.as_nanos() / period.as_nanos()) as u64;
        let case = format!("{period:?} late by {late:?}");
        assert_eq!(poll(&reactor, &ticker), Some(tick(Time::ZERO + period, missed)), "{case}");
        let next = if kept { Time::ZERO + period * 2 } else { sim.now() + period };
        assert_eq!(ticker.deadline(), Some(next), "{case}");
    }
}

#[test]
fn a_new_behavior_applies_from_the_next_receive() {
    use MissedTickBehavior::*;
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(35));
    assert_eq!(ready_keys(&reactor), [ticker.key()], "the tick expired under `Skip`");
    ticker.set_missed_tick_behavior(Burst);
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(10), 0)));
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(20), 0)));
    ticker.set_missed_tick_behavior(Skip);
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(30), 0)));
    sim.advance(ms(30)); // 65
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(40), 2)));
    ticker.set_missed_tick_behavior(Delay);
    sim.advance(ms(12)); // 77
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(70), 0)));
    assert_eq!(ticker.deadline(), Some(at(87)));
    // `stop`, `restart` and `reset` keep the behaviour.
    ticker.stop();
    ticker.restart(); // 87
    assert_eq!(ticker.reset(ms(20)), Ok(true)); // 97
    sim.advance(ms(50)); // 127
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(97), 1)));
    assert_eq!(ticker.deadline(), Some(at(147)));
}

#[test]
fn skip_and_burst_do_not_drift() {
    use MissedTickBehavior::*;
    for behavior in [Skip, Burst] {
        for receive in BLOCKING_PATHS {
            let (sim, reactor) = simulated_from(Time::from_nanos(31_415_926));
            let (start, period) = (sim.now(), 1_000_003);
            let ticker =
                reactor.every(Duration::from_nanos(period)).unwrap().missed_tick_behavior(behavior);
            let mut grid = 0;
            for n in 0..10_000u64 {
                let got = receive(&reactor, &ticker);
                grid += 1;
                assert_eq!(got.scheduled, start + Duration::from_nanos(period * grid));
                assert!(sim.now() >= got.scheduled && (behavior == Skip || got.missed == 0));
                grid += got.missed;
                sim.advance(Duration::from_nanos(
                    n * 104_729 % period + if n % 16 == 0 { 5 * period } else { 0 },
                ));
            }
        }
    }
}

// Grids through a given point: `every_at`, `restart_at`, `resume`.

#[test]
fn every_at_keeps_a_grid_through_its_instant() {
    for receive in PATHS {
        let (sim, reactor) = simulated_from(at(1_000));
        let now = reactor.every_at(at(1_000), ms(100)).unwrap();
        assert_eq!((now.deadline(), now.period()), (Some(at(1_000)), ms(100)));
        assert_eq!(receive(&reactor, &now), Some(tick(at(1_000), 0)));
        assert_eq!(now.deadline(), Some(at(1_100)));

        let future = reactor.every_at(at(1_070), ms(1_000_000)).unwrap();
        assert_eq!(receive(&reactor, &future), None);
        sim.advance(ms(70));
        assert_eq!(receive(&reactor, &future), Some(tick(at(1_070), 0)));
        assert_eq!(future.deadline(), Some(at(1_001_070)));

        // The grid goes through `first`, which was missed first. The ticks after `first` are
        // counted.
        let past = reactor.every_at(at(505), ms(100)).unwrap();
        assert_eq!(past.deadline(), Some(at(505)));
        assert_eq!(receive(&reactor, &past), Some(tick(at(505), 5)));
        assert_eq!(past.deadline(), Some(at(1_105)));

        let burst = reactor
            .every_at(at(905), ms(100))
            .unwrap()
            .missed_tick_behavior(MissedTickBehavior::Burst);
        assert_eq!(receive(&reactor, &burst), Some(tick(at(905), 0)));
        assert_eq!(receive(&reactor, &burst), Some(tick(at(1_005), 0)));
        assert_eq!((receive(&reactor, &burst), burst.deadline()), (None, Some(at(1_105))));

        let delay = reactor
            .every_at(at(905), ms(100))
            .unwrap()
            .missed_tick_behavior(MissedTickBehavior::Delay);
        assert_eq!(receive(&reactor, &delay), Some(tick(at(905), 1)));
        assert_eq!(delay.deadline(), Some(at(1_170)));
    }
    let (_sim, reactor) = simulated();
    assert_eq!(reactor.every_at(at(5), Duration::ZERO).unwrap_err(), ZeroPeriod);
    assert_eq!(reactor.stats().live, 0);
    let never = reactor.every_at(Time::MAX, ms(1)).unwrap();
    assert_eq!((never.deadline(), poll(&reactor, &never)), (Some(Time::MAX), None));
}

#[test]
fn every_at_accepts_an_instant() {
    let reactor = support::reactor();
    let first = std::time::Instant::now() + ms(2);
    let ticker = reactor.every_at(first, ms(1_000)).unwrap();
    select! { reactor; recv(ticker) -> _ => assert!(std::time::Instant::now() >= first) }
}

#[test]
fn restart_at_moves_the_grid() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(15));
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    assert!(ticker.restart_at(at(18)));
    assert_eq!(poll(&reactor, &ticker), None, "the tick of 10 is dropped");
    sim.advance(ms(15)); // 30
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(18), 1)));
    assert_eq!(ticker.deadline(), Some(at(38)));
    assert!(ticker.restart_at(at(5)), "a grid from the past is due at once");
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(5), 2)));
    assert_eq!(ticker.deadline(), Some(at(35)));
    ticker.stop();
    assert!(!ticker.restart_at(reactor.now()));
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(30), 0)), "a grid from now is due at once");
    assert!(ticker.restart_at(Time::MAX));
    sim.advance(ms(1_000));
    assert_eq!(poll(&reactor, &ticker), None);
    assert!(ticker.restart());
}

#[test]
fn resume_continues_at_the_next_grid_point() {
    // The times of the stop, of the resume and of the next tick. The grid is 100, 200, ..
    for (stopped, resumed, next) in [
        (0, 0, 100),
        (0, 99, 100),
        (0, 100, 100), // the grid point is due at once
        (0, 101, 200),
        (50, 250, 300),
        (50, 300, 300),
        (150, 160, 200), // the stop drops the pending tick
        (150, 199, 200),
        (99, 1_000_000_001, 1_000_000_100),
    ] {
        for find in [false, true] {
            let (sim, reactor) = simulated();
            let ticker = reactor.every(ms(100)).unwrap();
            sim.advance(ms(stopped));
            if find {
                assert_eq!(ready_keys(&reactor).len(), usize::from(stopped >= 100));
            }
            assert!(ticker.stop());
            sim.advance(ms(resumed - stopped));
            assert_eq!((poll(&reactor, &ticker), ticker.deadline()), (None, None));
            assert!(ticker.resume());
            let case = format!("stopped at {stopped}, resumed at {resumed}");
            assert_eq!(ticker.deadline(), Some(at(next)), "{case}");
            select! { reactor;
                recv(ticker) -> got => {
                    assert_eq!((got, sim.now()), (tick(at(next), 0), at(next)), "{case}");
                }
            }
            select! { reactor;
                recv(ticker) -> got => assert_eq!(got, tick(at(next + 100), 0), "{case}"),
            }
        }
    }
}

#[test]
fn resume_of_a_running_ticker_changes_nothing() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(100)).unwrap();
    assert!(!ticker.resume());
    sim.advance(ms(130));
    assert!(!ticker.resume(), "a tick is due");
    assert_eq!(ready_keys(&reactor), [ticker.key()]);
    assert!(!ticker.resume(), "a tick is pending");
    assert_eq!(poll(&reactor, &ticker), Some(tick(at(100), 0)));
    assert!(!ticker.resume());
    ticker.stop();
    assert!(ticker.resume());
    assert!(!ticker.resume(), "the ticker is running again");
    assert_eq!(ticker.deadline(), Some(at(200)));
}

#[test]
fn resume_keeps_the_last_grid() {
    let (sim, reactor) = simulated();
    let ticker = reactor.every(ms(100)).unwrap();
    sim.advance(ms(30));
    ticker.restart(); // 130, 230, ..
    ticker.stop();
    sim.advance(ms(250)); // 280
    assert!(ticker.resume());
    assert_eq!(ticker.deadline(), Some(at(330)));
    assert_eq!(ticker.reset(ms(7)), Ok(true)); // 287, 294, ..
    ticker.stop();
    sim.advance(ms(20)); // 300
    assert!(ticker.resume());
    assert_eq!(ticker.deadline(), Some(at(301)));
    ticker.restart_at(at(1_000)); // 1000, 1007, ..
    ticker.stop();
    assert!(ticker.resume());
    assert_eq!(ticker.deadline(), Some(at(1_000)), "a grid begins at its first point");
    // Under `Delay` a late tick has moved the grid. The time is 300, so the first tick is at 400.
    let delayed = reactor.every(ms(100)).unwrap().missed_tick_behavior(MissedTickBehavior::Delay);
    sim.advance(ms(150)); // 450
    assert_eq!(poll(&reactor, &delayed), Some(tick(at(400), 0)));
    delayed.stop();
    sim.advance(ms(200)); // 650; 550, 650, ..
    delayed.resume();
    assert_eq!(delayed.deadline(), Some(at(650)));
}

#[test]
fn resume_of_a_dead_ticker_is_harmless() {
    for period in [Duration::MAX, Duration::from_nanos(u64::MAX - 1)] {
        let (sim, reactor) = simulated_from(at(1));
        let ticker = reactor.every(period).unwrap();
        ticker.stop();
        sim.advance(ms(10));
        assert!(ticker.resume());
        assert_eq!(ticker.deadline(), Some(Time::MAX));
        ticker.stop();
        sim.advance(Duration::MAX);
        assert!(ticker.resume());
        assert_eq!(poll(&reactor, &ticker), None);
    }
    let (_sim, reactor) = simulated();
    let (stopped, armed) = (reactor.every(ms(1)).unwrap(), reactor.every(ms(1)).unwrap());
    stopped.stop();
    drop(reactor);
    for ticker in [stopped, armed] {
        assert!(!ticker.resume());
        assert!(!ticker.restart_at(at(0)));
        assert_eq!(ticker.deadline(), None);
    }
}

#[test]
fn huge_periods_never_overflow_or_tick_twice() {
    use MissedTickBehavior::*;
    for behavior in [Skip, Burst, Delay] {
        for period in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1, u64::MAX / 2] {
            let (sim, reactor) = simulated_from(Time::from_nanos(1));
            let ticker = reactor
                .every_at(at(0), Duration::from_nanos(period))
                .unwrap()
                .missed_tick_behavior(behavior);
            assert_eq!(poll(&reactor, &ticker), Some(tick(at(0), 0)), "{behavior:?}, {period}");
            let second = Time::from_nanos(period);
            assert_eq!(
                ticker.deadline(),
                Some(second),
                "{behavior:?}, {period}: 1 ns late keeps the grid"
            );
            sim.advance(Duration::MAX);
            let got = poll(&reactor, &ticker);
            if second == Time::MAX {
                assert_eq!(got, None);
                continue;
            }
            assert_eq!(got.map(|tick| tick.scheduled), Some(second), "{behavior:?}, {period}");
            // The clock holds 2^63 - 1 twice, so `Burst` gives a third tick.
            let third =
                (behavior == Burst && period == u64::MAX / 2).then(|| Time::from_nanos(period * 2));
            assert_eq!(poll(&reactor, &ticker).map(|tick| tick.scheduled), third);
            assert_eq!(poll(&reactor, &ticker), None);
            assert_eq!(ticker.deadline(), Some(Time::MAX));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Advance(u64),
    Receive(usize),
    /// A turn finds the due tick. The tick is not taken.
    Poll,
    Restart,
    Reset(u64),
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..40u64).prop_map(Op::Advance),
        4 => (0..PATHS.len()).prop_map(Op::Receive),
        2 => Just(Op::Poll),
        1 => Just(Op::Restart),
        1 => (0..12u64).prop_map(Op::Reset),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The model of a ticker is a next instant and a period.
    #[test]
    fn tickers_match_a_model_of_instant_and_period(
        ops in proptest::collection::vec(op(), 1..100),
    ) {
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
                    let got = PATHS[path](&reactor, &ticker)
                        .map(|tick| (tick.scheduled.as_nanos(), tick.missed));
                    let due = next.filter(|&next| next <= now);
                    prop_assert_eq!(got, due.map(|due| (due, (now - due) / period)));
                    if let Some(due) = due {
                        next = Some(due + ((now - due) / period + 1) * period);
                    }
                }
                Op::Poll => {
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

//! Tickers, and `stop` and `reset` of timers that may have fired, as Go specifies them:
//! time/tick_test.go.

use std::time::{Duration, Instant};

use pollmux::{Source, Time, Timer, never, select, sources::ZeroPeriod};

use crate::common::{LONG, Random, ms, next, poll, reactor, sim, within};
use support::thread_cpu_time;

fn at(n: u64) -> Time {
    Time::ZERO + ms(n)
}

/// Go time/tick_test.go: TestTicker
#[test]
fn ticks_keep_the_period_before_and_after_reset() {
    let reactor = reactor();
    let start = Instant::now();
    let ticker = reactor.every(ms(10)).unwrap();
    for n in 1..=5 {
        next(&reactor, &ticker);
        assert!(start.elapsed() >= ms(10) * n);
    }
    let reset = Instant::now();
    assert_eq!(ticker.reset(ms(20)), Ok(true));
    for n in 1..=5 {
        next(&reactor, &ticker);
        assert!(reset.elapsed() >= ms(20) * n);
    }
    assert!(ticker.stop());
    assert_eq!(within(&reactor, &ticker, ms(50)), None);
}

/// Go time/tick_test.go: TestTeardown
#[test]
fn a_stopped_and_dropped_ticker_frees_its_slot() {
    let reactor = reactor();
    for n in 0..3 {
        let ticker = reactor.every(ms(2)).unwrap();
        next(&reactor, &ticker);
        assert!(ticker.stop());
        assert!(!ticker.stop());
        assert_eq!(reactor.stats().live, 1, "slots leaked in round {n}");
    }
}

/// Go time/tick_test.go: TestTick, TestNewTickerLtZeroDuration
#[test]
fn a_zero_period_is_an_error() {
    let reactor = reactor();
    assert_eq!(reactor.every(Duration::ZERO).err(), Some(ZeroPeriod));
    assert_eq!(reactor.stats().live, 0);
    assert!(reactor.every(Duration::from_nanos(1)).is_ok());
}

/// Go time/tick_test.go: TestTickerResetLtZeroDuration
#[test]
fn a_reset_to_zero_fails_and_changes_nothing() {
    let (reactor, _) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    assert_eq!((ticker.period(), ticker.deadline()), (ms(10), Some(at(10))));
    assert_eq!(next(&reactor, &ticker).scheduled, at(10));
}

/// Go time/tick_test.go: TestLongAdjustTimers
#[test]
fn resetting_many_timers_is_not_quadratic() {
    const TIMERS: usize = 30_000;
    let (reactor, _) = sim();
    let mut numbers = Random::new(1);
    let begin = thread_cpu_time();
    let timers: Vec<_> =
        (0..TIMERS).map(|_| reactor.after(ms(1_000 + numbers.below(1_000)))).collect();
    // Move the deadlines later, then earlier, in random order, with turns in between.
    for base in [2_000, 10] {
        for (n, timer) in timers.iter().enumerate() {
            assert!(timer.reset(ms(base + numbers.below(900))));
            if n % 100 == 0 {
                poll(&reactor, &never::<()>());
            }
        }
    }
    assert!(timers.iter().all(Timer::stop));
    // A quadratic cost would be about 1e9 steps, minutes in a debug build.
    assert!(thread_cpu_time() - begin < LONG / 2);
}

/// Go time/tick_test.go: TestAfterTimes
#[test]
fn a_late_timer_gives_its_deadline() {
    let (reactor, sim) = sim();
    for _ in 0..10 {
        let due = sim.now() + ms(10);
        let timer = reactor.after(ms(10));
        sim.advance(ms(500));
        assert_eq!(poll(&reactor, &timer), Some(due));
    }
}

/// Go time/tick_test.go: TestTickTimes
#[test]
fn a_late_tick_gives_its_scheduled_time() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    for n in 0..10 {
        sim.advance(ms(505));
        let tick = next(&reactor, &ticker);
        assert!(sim.now() - tick.scheduled >= ms(490), "{n}: {tick:?}");
        assert_eq!(tick.scheduled.as_nanos() % 10_000_000, 0);
    }
}

// The table of TestChan: the results of `stop` and `reset` in each state of a timer.

/// Go time/tick_test.go: TestChan, a timer never armed (in Go: NewTimer and Stop)
#[test]
fn an_idle_timers_stop_and_reset_return_false() {
    let (reactor, _) = sim();
    let timer = reactor.timer();
    assert_eq!(timer.deadline(), None);
    assert!(!timer.stop());
    assert_eq!(within(&reactor, &timer, ms(100)), None);
    assert!(!timer.reset(ms(10)));
    assert_eq!(next(&reactor, &timer), at(110));
}

/// Go time/tick_test.go: TestChan, an armed timer
#[test]
fn an_armed_timers_stop_and_reset_return_true() {
    let (reactor, _) = sim();
    let timer = reactor.after(ms(10));
    assert!(timer.stop());
    assert!(!timer.stop());
    assert_eq!(within(&reactor, &timer, ms(100)), None);
    assert!(!timer.reset(ms(10)));
    assert!(timer.reset(ms(20)));
    assert!(timer.reset(ms(5)));
    assert_eq!(next(&reactor, &timer), at(105));
    assert_eq!(within(&reactor, &timer, ms(100)), None);
}

/// Go time/tick_test.go: TestChan, stop of a timer that expired and was not received
#[test]
fn stop_discards_an_unreceived_expiry() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(10));
    sim.advance(ms(20));
    // The timer is due, with and without a turn since then.
    for looked in [false, true] {
        if looked {
            poll(&reactor, &never::<()>());
            assert!(timer.is_ready());
        }
        assert!(timer.stop());
        assert_eq!(poll(&reactor, &timer), None);
        assert!(!timer.stop());
        timer.reset_at(Time::ZERO);
    }
}

/// Go time/tick_test.go: TestChan, reset of a timer that expired and was not received (issues
/// 11513, 14038)
#[test]
fn reset_discards_an_unreceived_expiry() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(10));
    sim.advance(ms(20));
    poll(&reactor, &never::<()>());
    assert!(timer.is_ready());
    assert!(timer.reset(ms(10)));
    assert_eq!(poll(&reactor, &timer), None);
    assert_eq!(next(&reactor, &timer), at(30));
    assert!(!timer.reset(LONG));
    assert_eq!(poll(&reactor, &timer), None);
}

/// Go time/tick_test.go: TestChan, a timer that was received
#[test]
fn a_received_timers_stop_and_reset_return_false() {
    let (reactor, _) = sim();
    let timer = reactor.after(ms(10));
    next(&reactor, &timer);
    assert_eq!(timer.deadline(), None);
    assert!(!timer.stop());
    assert!(!timer.reset(ms(10)));
    next(&reactor, &timer);
    assert!(!timer.reset(ms(10)));
    assert_eq!(next(&reactor, &timer), at(30));
}

/// Go time/sleep.go: NewTimer of zero or less is ready in the select that follows (maybeRunChan)
#[test]
fn a_zero_reset_is_due_at_once() {
    let reactor = reactor();
    let timer = reactor.timer();
    for _ in 0..100 {
        timer.reset(Duration::ZERO);
        assert!(poll(&reactor, &timer).is_some());
        timer.reset_at(Time::ZERO);
        assert_eq!(poll(&reactor, &timer), Some(Time::ZERO));
    }
}

/// Go time/tick_test.go: TestChan, stop of a ticker with a pending tick
#[test]
fn stop_discards_a_pending_tick() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(35));
    poll(&reactor, &never::<()>());
    assert!(ticker.is_ready());
    assert!(ticker.stop());
    assert!(!ticker.stop());
    assert_eq!(ticker.deadline(), None);
    // A stopped ticker is not disconnected; it stays silent.
    assert_eq!(within(&reactor, &ticker, LONG), None);
}

/// Go time/tick_test.go: TestChan, reset of a ticker with a pending tick
#[test]
fn reset_discards_a_pending_tick_and_starts_now() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(35));
    poll(&reactor, &never::<()>());
    assert_eq!(ticker.reset(ms(20)), Ok(true));
    assert_eq!(poll(&reactor, &ticker), None);
    let ticks = [(); 2].map(|()| next(&reactor, &ticker));
    assert_eq!(ticks.map(|tick| (tick.scheduled, tick.missed)), [(at(55), 0), (at(75), 0)]);
    // `restart` keeps the current period.
    sim.advance(ms(5));
    assert!(ticker.restart());
    assert_eq!(next(&reactor, &ticker).scheduled, at(100));
}

/// Go time/tick.go: Reset is legal after Stop
#[test]
fn a_stopped_ticker_can_be_restarted() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    assert!(ticker.stop());
    sim.advance(ms(35));
    assert!(!ticker.restart());
    assert_eq!(next(&reactor, &ticker).scheduled, at(45));
    assert!(ticker.stop());
    assert_eq!(ticker.reset(ms(3)), Ok(false));
    assert_eq!(next(&reactor, &ticker).scheduled, at(48));
}

/// Go time/tick_test.go: TestTicker, in a loop that restarts its heartbeat after every message
/// (issue 33184)
#[test]
fn a_heartbeat_restarted_in_time_never_ticks() {
    let (reactor, sim) = sim();
    let heartbeat = reactor.every(ms(100)).unwrap();
    let message = reactor.every(ms(99)).unwrap();
    for _ in 0..100 {
        select! { reactor;
            recv(message) -> _ => assert!(heartbeat.restart()),
            recv(heartbeat) -> _ => panic!("the heartbeat ticked"),
        }
    }
    message.stop();
    assert_eq!(next(&reactor, &heartbeat).scheduled, at(9_900 + 100));
    assert_eq!(sim.now(), at(10_000));
}

//! Tickers, and stopping and resetting whatever may have fired, as Go promises them:
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
fn ticks_come_at_their_rate_and_after_a_reset_at_the_new_one() {
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
fn a_ticker_is_torn_down_after_a_tick() {
    let reactor = reactor();
    for n in 0..3 {
        let ticker = reactor.every(ms(2)).unwrap();
        next(&reactor, &ticker);
        assert!(ticker.stop());
        assert!(!ticker.stop());
        assert_eq!(reactor.stats().live, 1, "{n} were left");
    }
}

/// Go time/tick_test.go: TestTick, TestNewTickerLtZeroDuration
#[test]
fn a_ticker_of_zero_is_an_error() {
    let reactor = reactor();
    assert_eq!(reactor.every(Duration::ZERO).err(), Some(ZeroPeriod));
    assert_eq!(reactor.stats().live, 0);
    assert!(reactor.every(Duration::from_nanos(1)).is_ok());
}

/// Go time/tick_test.go: TestTickerResetLtZeroDuration
#[test]
fn a_reset_to_zero_is_an_error_and_changes_nothing() {
    let (reactor, _) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    assert_eq!(ticker.reset(Duration::ZERO), Err(ZeroPeriod));
    assert_eq!((ticker.period(), ticker.deadline()), (ms(10), Some(at(10))));
    assert_eq!(next(&reactor, &ticker).scheduled, at(10));
}

/// Go time/tick_test.go: TestLongAdjustTimers
#[test]
fn moving_every_one_of_many_timers_is_not_quadratic() {
    const TIMERS: usize = 30_000;
    let (reactor, _) = sim();
    let mut numbers = Random::new(1);
    let begin = thread_cpu_time();
    let timers: Vec<_> =
        (0..TIMERS).map(|_| reactor.after(ms(1_000 + numbers.below(1_000)))).collect();
    // Later, then earlier, each in a random order of deadlines, with turns in between.
    for base in [2_000, 10] {
        for (n, timer) in timers.iter().enumerate() {
            assert!(timer.reset(ms(base + numbers.below(900))));
            if n % 100 == 0 {
                poll(&reactor, &never::<()>());
            }
        }
    }
    assert!(timers.iter().all(Timer::stop));
    // Quadratic would be a thousand million steps, minutes in a debug build.
    assert!(thread_cpu_time() - begin < LONG / 2);
}

/// Go time/tick_test.go: TestAfterTimes
#[test]
fn a_timer_received_late_tells_when_it_was_due() {
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
fn a_tick_received_late_tells_when_it_was_due() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    for n in 0..10 {
        sim.advance(ms(505));
        let tick = next(&reactor, &ticker);
        assert!(sim.now() - tick.scheduled >= ms(490), "{n}: {tick:?}");
        assert_eq!(tick.scheduled.as_nanos() % 10_000_000, 0);
    }
}

// The table of TestChan: what stop and reset say and leave of a timer, by the state it is in.

/// Go time/tick_test.go: TestChan, a timer never armed (in Go: NewTimer and Stop)
#[test]
fn of_a_timer_never_armed_stop_and_reset_are_false() {
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
fn of_an_armed_timer_stop_and_reset_are_true() {
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

/// Go time/tick_test.go: TestChan, a timer that expired and was not received, stopped
#[test]
fn stop_takes_an_expiry_that_nobody_received() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(10));
    sim.advance(ms(20));
    // Expired, whether the reactor has looked at the clock since or not.
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

/// Go time/tick_test.go: TestChan, a timer that expired and was not received, reset (issues 11513,
/// 14038)
#[test]
fn reset_leaves_nothing_of_an_expiry_that_nobody_received() {
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
fn of_a_received_timer_stop_and_reset_are_false() {
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
fn a_reset_to_zero_or_the_past_is_seen_by_the_next_select_with_default() {
    let reactor = reactor();
    let timer = reactor.timer();
    for _ in 0..100 {
        timer.reset(Duration::ZERO);
        assert!(poll(&reactor, &timer).is_some());
        timer.reset_at(Time::ZERO);
        assert_eq!(poll(&reactor, &timer), Some(Time::ZERO));
    }
}

/// Go time/tick_test.go: TestChan, a ticker that has a tick pending, stopped
#[test]
fn a_stopped_ticker_drops_the_tick_that_was_pending() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(35));
    poll(&reactor, &never::<()>());
    assert!(ticker.is_ready());
    assert!(ticker.stop());
    assert!(!ticker.stop());
    assert_eq!(ticker.deadline(), None);
    // It is silent for good, not closed.
    assert_eq!(within(&reactor, &ticker, LONG), None);
}

/// Go time/tick_test.go: TestChan, a ticker that has a tick pending, reset
#[test]
fn a_ticker_that_is_reset_drops_the_tick_that_was_pending_and_counts_from_now() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    sim.advance(ms(35));
    poll(&reactor, &never::<()>());
    assert_eq!(ticker.reset(ms(20)), Ok(true));
    assert_eq!(poll(&reactor, &ticker), None);
    let ticks = [(); 2].map(|()| next(&reactor, &ticker));
    assert_eq!(ticks.map(|tick| (tick.scheduled, tick.missed)), [(at(55), 0), (at(75), 0)]);
    // With the period it has.
    sim.advance(ms(5));
    assert!(ticker.restart());
    assert_eq!(next(&reactor, &ticker).scheduled, at(100));
}

/// Go time/tick.go: Reset is legal after Stop
#[test]
fn a_stopped_ticker_starts_again() {
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

/// Go time/tick_test.go: TestTicker, in a loop that restarts its heartbeat for every message (issue
/// 33184)
#[test]
fn a_heartbeat_that_is_restarted_in_time_never_beats() {
    let (reactor, sim) = sim();
    let heartbeat = reactor.every(ms(100)).unwrap();
    let message = reactor.every(ms(99)).unwrap();
    for _ in 0..100 {
        select! { reactor;
            recv(message) -> _ => assert!(heartbeat.restart()),
            recv(heartbeat) -> _ => panic!("a beat"),
        }
    }
    message.stop();
    assert_eq!(next(&reactor, &heartbeat).scheduled, at(9_900 + 100));
    assert_eq!(sim.now(), at(10_000));
}

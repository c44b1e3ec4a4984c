//! Tickers: crossbeam-channel's tests/tick.rs, with `every` in a `select!`. The clock is virtual
//! where wall time is not the subject.

use std::time::Instant;

use pollmux::{Events, Source, Tick, Time, select, sources::ZeroPeriod};

use crate::common::{ms, next, poll, reactor, sim, within};

fn tick(at_ms: u64, missed: u64) -> Tick {
    Tick { scheduled: Time::ZERO + ms(at_ms), missed }
}

/// crossbeam-channel tests/tick.rs: fire
#[test]
fn a_ticker_ticks_repeatedly_and_never_early() {
    let reactor = reactor();
    let start = Instant::now();
    let ticker = reactor.every(ms(5)).unwrap();
    let mut last = None;
    for n in 1..=4 {
        let tick = next(&reactor, &ticker);
        assert!(start.elapsed() >= ms(5) * n);
        assert!(last < Some(tick.scheduled));
        last = Some(tick.scheduled);
    }
}

/// crossbeam-channel tests/tick.rs: intervals
#[test]
fn a_late_receiver_keeps_the_grid() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(50)).unwrap();
    assert_eq!(next(&reactor, &ticker), tick(50, 0));
    sim.advance(ms(10));
    assert_eq!(next(&reactor, &ticker), tick(100, 0));
    sim.advance(ms(120));
    // The ticks of 150 and 200 are late; 250 is in the future.
    assert_eq!(next(&reactor, &ticker), tick(150, 1));
    assert_eq!(next(&reactor, &ticker), tick(250, 0));
    assert_eq!(next(&reactor, &ticker), tick(300, 0));
    assert_eq!(sim.now(), Time::ZERO + ms(300));
}

/// crossbeam-channel tests/tick.rs: capacity, len_empty_full
#[test]
fn at_most_one_tick_is_pending() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(50)).unwrap();
    sim.advance(ms(50) * 1_000);
    assert_eq!(poll(&reactor, &ticker), Some(tick(50, 999)));
    assert_eq!(poll(&reactor, &ticker), None);
    assert_eq!(ticker.deadline(), Some(Time::ZERO + ms(50) * 1_001));
}

/// crossbeam-channel tests/tick.rs: try_recv
#[test]
fn a_ticker_is_not_ready_between_ticks() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(200)).unwrap();
    assert_eq!(poll(&reactor, &ticker), None);
    for n in 1..4 {
        sim.advance(ms(100));
        assert_eq!(poll(&reactor, &ticker), None);
        sim.advance(ms(100));
        assert_eq!(poll(&reactor, &ticker), Some(tick(200 * n, 0)));
        assert_eq!(poll(&reactor, &ticker), None);
    }
}

/// crossbeam-channel tests/tick.rs: recv
#[test]
fn a_wait_lasts_until_the_next_tick() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(50)).unwrap();
    next(&reactor, &ticker);
    sim.advance(ms(20));
    next(&reactor, &ticker);
    assert_eq!(sim.now(), Time::ZERO + ms(100));
    assert_eq!(poll(&reactor, &ticker), None);
}

/// crossbeam-channel tests/tick.rs: recv_timeout
#[test]
fn a_timeout_between_ticks_changes_no_tick() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(200)).unwrap();
    assert_eq!(within(&reactor, &ticker, ms(100)), None);
    assert_eq!(within(&reactor, &ticker, ms(200)), Some(tick(200, 0)));
    assert_eq!(within(&reactor, &ticker, ms(100)), None);
    assert_eq!(within(&reactor, &ticker, ms(200)), Some(tick(400, 0)));
    assert_eq!(sim.now(), Time::ZERO + ms(400));
}

/// crossbeam-channel tests/tick.rs: recv_two
#[test]
fn two_tickers_keep_their_own_periods() {
    let (reactor, sim) = sim();
    let (fast, slow) = (reactor.every(ms(50)).unwrap(), reactor.every(ms(75)).unwrap());
    let mut hits = [0; 2];
    while sim.now() < Time::ZERO + ms(74 * 50) {
        select! { reactor;
            recv(fast) -> tick => { assert_eq!(tick.missed, 0); hits[0] += 1; }
            recv(slow) -> tick => { assert_eq!(tick.missed, 0); hits[1] += 1; }
        }
    }
    assert_eq!(hits, [74, 49]);
}

/// crossbeam-channel tests/tick.rs: recv_race, with cases instead of threads
#[test]
fn each_tick_goes_to_one_case() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(50)).unwrap();
    let mut hits = [0; 2];
    for _ in 0..100 {
        select! { reactor;
            recv(ticker) -> _ => hits[0] += 1,
            recv(ticker) -> _ => hits[1] += 1,
        }
    }
    assert_eq!(sim.now(), Time::ZERO + ms(50) * 100);
    assert!(hits.iter().all(|&n| n >= 10), "{hits:?}");
}

/// crossbeam-channel tests/tick.rs: stress_default
#[test]
fn a_pending_tick_beats_the_default() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(1)).unwrap();
    for n in 1..1_000 {
        sim.advance(ms(1));
        select! { reactor;
            recv(ticker) -> got => assert_eq!(got, tick(n, 0)),
            default => panic!("a pending tick was missed"),
        }
    }
}

/// crossbeam-channel tests/tick.rs: select
#[test]
fn one_loop_serves_ticker_timer_and_channel() {
    let (reactor, sim) = sim();
    let (tx, inbox) = reactor.channel(10).unwrap();
    let ticker = reactor.every(ms(10)).unwrap();
    let end = reactor.after(ms(95));
    let (mut ticks, mut messages) = (0, 0);
    loop {
        select! { reactor;
            recv(ticker) -> got => {
                ticks += 1;
                assert_eq!(got, tick(10 * ticks, 0));
                tx.send(()).unwrap();
            }
            recv(inbox) -> got => { messages += 1; assert_eq!(got, Ok(())); }
            recv(end) -> due => break assert_eq!(due, sim.now()),
        }
    }
    assert_eq!((ticks, messages), (9, 9));
}

/// crossbeam-channel tests/tick.rs: ready
#[test]
fn wait_reports_a_ticker_at_each_tick() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap().with_key(7);
    let mut events = Events::with_capacity(4);
    for n in 1..=5 {
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.iter().map(|event| event.key()).collect::<Vec<_>>(), [7]);
        assert_eq!(ticker.try_take(), Some(tick(10 * n, 0)));
        assert_eq!(events.iter().count(), 0);
    }
    assert_eq!(sim.now(), Time::ZERO + ms(50));
}

/// crossbeam-channel tests/tick.rs: fairness
#[test]
fn two_due_tickers_are_chosen_equally() {
    const COUNT: usize = 2_000;
    let (reactor, sim) = sim();
    let (a, b) = (reactor.every(ms(1)).unwrap(), reactor.every(ms(1)).unwrap());
    let mut hits = [0; 2];
    for _ in 0..COUNT {
        sim.advance(ms(1));
        select! { reactor;
            recv(a) -> _ => hits[0] += 1,
            recv(b) -> _ => hits[1] += 1,
        }
    }
    assert!(hits.iter().all(|&n| n >= COUNT / 4), "{hits:?}");
}

/// crossbeam-channel tests/tick.rs: fairness_duplicates
#[test]
fn cases_on_the_same_ticker_are_chosen_equally() {
    const COUNT: usize = 2_000;
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(1)).unwrap();
    let mut hits = [0; 5];
    for _ in 0..COUNT {
        sim.advance(ms(1));
        select! { reactor;
            recv(ticker) -> _ => hits[0] += 1,
            recv(ticker) -> _ => hits[1] += 1,
            recv(ticker) -> _ => hits[2] += 1,
            recv(ticker) -> _ => hits[3] += 1,
            recv(ticker) -> _ => hits[4] += 1,
        }
    }
    assert!(hits.iter().all(|&n| n >= COUNT / 10), "{hits:?}");
}

/// crossbeam-channel tests/select.rs: linearizable_default, with a ticker that is reset in its own
/// arm
#[test]
fn an_arm_may_reset_its_own_ticker() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(10)).unwrap();
    for period in [20, 30, 40] {
        select! { reactor;
            recv(ticker) -> _ => { assert_eq!(ticker.reset(ms(period)), Ok(true)); }
        }
    }
    assert_eq!(next(&reactor, &ticker), tick(10 + 20 + 30 + 40, 0));
    assert_eq!(ticker.reset(ms(0)), Err(ZeroPeriod));
    assert_eq!(next(&reactor, &ticker).scheduled, sim.now());
}

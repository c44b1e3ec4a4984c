//! One-shot timers: crossbeam-channel's tests/after.rs, with `after`, `at` and `Timer` in a
//! `select!`. The clock is virtual where wall time is not the subject.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pollmux::{Events, Source, Time, select};

use crate::common::{LONG, ms, next, poll, reactor, sim, within};

/// crossbeam-channel tests/after.rs: fire
#[test]
fn a_timer_fires_once_and_never_early() {
    let reactor = reactor();
    let start = Instant::now();
    let timer = reactor.after(ms(20));
    let due = next(&reactor, &timer);
    assert!(start.elapsed() >= ms(20));
    assert!(due >= Time::from(start) + ms(20) - Duration::from_micros(1) && due <= Time::now());
    assert_eq!(within(&reactor, &timer, ms(40)), None);
    // The timer fires again after a reset.
    let again = Instant::now();
    assert!(!timer.reset(ms(10)));
    next(&reactor, &timer);
    assert!(again.elapsed() >= ms(10));
}

/// crossbeam-channel tests/after.rs: capacity, len_empty_full
#[test]
fn deadline_is_none_once_received() {
    let (reactor, sim) = sim();
    let due = Some(Time::ZERO + ms(50));
    let timer = reactor.after(ms(50));
    assert_eq!((timer.deadline(), timer.is_ready()), (due, false));
    sim.advance(ms(100));
    assert_eq!(poll(&reactor, &pollmux::never::<()>()), None);
    assert_eq!((timer.deadline(), timer.is_ready()), (due, true));
    assert_eq!(poll(&reactor, &timer), due);
    assert_eq!((timer.deadline(), timer.is_ready()), (None, false));
}

/// crossbeam-channel tests/after.rs: try_recv
#[test]
fn a_timer_gives_one_value_at_its_time() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(200));
    assert_eq!(poll(&reactor, &timer), None);
    sim.advance(ms(200) - Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &timer), None);
    sim.advance(Duration::from_nanos(1));
    assert_eq!(poll(&reactor, &timer), Some(Time::ZERO + ms(200)));
    sim.advance(ms(200));
    assert_eq!(poll(&reactor, &timer), None);
}

/// crossbeam-channel tests/after.rs: recv
#[test]
fn a_wait_lasts_until_the_deadline() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(50));
    assert_eq!(next(&reactor, &timer), Time::ZERO + ms(50));
    assert_eq!(sim.now(), Time::ZERO + ms(50));
    assert_eq!(poll(&reactor, &timer), None);
}

/// crossbeam-channel tests/after.rs: recv_timeout
#[test]
fn a_timeout_before_the_timer_leaves_it_pending() {
    let (reactor, sim) = sim();
    let timer = reactor.after(ms(200));
    assert_eq!(within(&reactor, &timer, ms(100)), None);
    assert_eq!(sim.now(), Time::ZERO + ms(100));
    assert_eq!(within(&reactor, &timer, ms(200)), Some(Time::ZERO + ms(200)));
    assert_eq!(sim.now(), Time::ZERO + ms(200));
    assert_eq!(within(&reactor, &timer, ms(200)), None);
}

/// crossbeam-channel tests/after.rs: recv_two
#[test]
fn two_timers_with_equal_delays_both_fire() {
    let reactor = reactor();
    let (a, b) = (reactor.after(ms(20)), reactor.after(ms(20)));
    let (mut hits, both) = ([0; 2], 2);
    while hits.iter().sum::<usize>() < both {
        select! { reactor;
            recv(a) -> _ => hits[0] += 1,
            recv(b) -> _ => hits[1] += 1,
        }
    }
    assert_eq!(hits, [1, 1]);
}

/// crossbeam-channel tests/after.rs: recv_race, with cases instead of threads
#[test]
fn a_firing_goes_to_one_case() {
    let (reactor, _) = sim();
    let timer = reactor.after(ms(50));
    let hits = Cell::new(0);
    let hit = || hits.set(hits.get() + 1);
    for _ in 0..3 {
        select! { reactor;
            recv(timer) -> _ => hit(),
            recv(timer) -> _ => hit(),
            default(ms(100)) => {}
        }
    }
    assert_eq!(hits.get(), 1);
}

/// crossbeam-channel tests/after.rs: stress_default
#[test]
fn a_zero_timer_beats_default() {
    let reactor = reactor();
    for _ in 0..1_000 {
        let timer = reactor.after(Duration::ZERO);
        select! { reactor;
            recv(timer) -> _ => {}
            default => panic!("a due timer was missed"),
        }
    }
}

/// crossbeam-channel tests/after.rs: select
#[test]
fn each_of_a_thousand_timers_fires_once() {
    const COUNT: usize = 1_000;
    let (reactor, sim) = sim();
    let timers: Vec<_> = (0..COUNT).map(|n| reactor.after(ms(n as u64 % 7))).collect();
    let mut hits = vec![0; COUNT];
    let end = reactor.after(LONG);
    for pair in (0..COUNT).step_by(2) {
        for _ in 0..2 {
            select! { reactor;
                recv(timers[pair]) -> _ => hits[pair] += 1,
                recv(timers[pair + 1]) -> _ => hits[pair + 1] += 1,
                recv(end) -> _ => panic!("a timer was lost"),
            }
        }
    }
    assert!(hits.iter().all(|&n| n == 1));
    assert!(timers.iter().all(|timer| !timer.is_ready() && timer.deadline().is_none()));
    assert_eq!(sim.now(), Time::ZERO + ms(6));
}

/// crossbeam-channel tests/after.rs: ready
#[test]
fn wait_reports_due_timers_in_deadline_order() {
    let (reactor, sim) = sim();
    let delays = [30, 10, 20, 10, 40];
    let timers: Vec<_> = delays
        .iter()
        .enumerate()
        .map(|(key, &n)| reactor.after(ms(n)).with_key(key as u64))
        .collect();
    sim.advance(ms(35));
    let mut events = Events::with_capacity(8);
    let mut keys = || {
        reactor.wait(&mut events).unwrap();
        ::support::keys(&events)
    };
    // Equal deadlines are reported in arming order.
    assert_eq!(keys(), [1, 3, 2, 0]);
    // The timers stay ready until their values are taken.
    assert_eq!(keys(), [1, 3, 2, 0]);
    timers[..4].iter().for_each(|timer| assert!(timer.try_take().is_some()));
    assert_eq!(keys(), [4]);
    assert_eq!(sim.now(), Time::ZERO + ms(40));
}

/// crossbeam-channel tests/after.rs: fairness
#[test]
fn two_due_timers_are_chosen_equally() {
    const COUNT: usize = 2_000;
    let (reactor, sim) = sim();
    for delay in [ms(0), ms(1)] {
        let (a, b) = (reactor.timer(), reactor.timer());
        let mut hits = [0; 2];
        for _ in 0..COUNT {
            a.reset(delay);
            b.reset(delay);
            sim.advance(delay);
            select! { reactor;
                recv(a) -> _ => hits[0] += 1,
                recv(b) -> _ => hits[1] += 1,
            }
        }
        assert!(hits.iter().all(|&n| n >= COUNT / 4), "{hits:?}");
    }
}

/// crossbeam-channel tests/after.rs: fairness_duplicates
#[test]
fn cases_on_the_same_timer_are_chosen_equally() {
    const COUNT: usize = 2_000;
    let (reactor, _) = sim();
    let timer = reactor.timer();
    let mut hits = [0; 5];
    for _ in 0..COUNT {
        timer.reset(ms(1));
        select! { reactor;
            recv(timer) -> _ => hits[0] += 1,
            recv(timer) -> _ => hits[1] += 1,
            recv(timer) -> _ => hits[2] += 1,
            recv(timer) -> _ => hits[3] += 1,
            recv(timer) -> _ => hits[4] += 1,
        }
    }
    assert!(hits.iter().all(|&n| n >= COUNT / 10), "{hits:?}");
}

/// crossbeam-channel src/channel.rs: at
#[test]
fn at_accepts_past_times_and_instants() {
    let reactor = reactor();
    assert_eq!(poll(&reactor, &reactor.at(Time::ZERO)), Some(Time::ZERO));
    let now = Instant::now();
    let past = now.checked_sub(ms(100)).unwrap_or(now);
    assert!(poll(&reactor, &reactor.at(past)).is_some());
    let end = now + ms(30);
    next(&reactor, &reactor.at(end));
    assert!(Instant::now() >= end);
}

/// crossbeam-channel tests/select.rs: timeout, with timers as timeouts
#[test]
fn the_earlier_of_two_timers_wins() {
    let (reactor, _) = sim();
    let (late, early) = (reactor.after(ms(500)), reactor.after(ms(100)));
    select! { reactor;
        recv(late) -> _ => panic!("the later timer won"),
        recv(early) -> due => assert_eq!(due, Time::ZERO + ms(100)),
    }
    // The other timer fires later, at its own time.
    assert_eq!(next(&reactor, &late), Time::ZERO + ms(500));
}

/// crossbeam-channel tests/select.rs: both_ready, with a timer and a channel that is never empty
#[test]
fn a_busy_channel_does_not_hide_a_timer() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.timer();
    let mut messages = 0;
    loop {
        let _ = tx.try_send(());
        select! { reactor;
            recv(inbox) -> _ => {
                messages += 1;
                // Arm the timer only now, so that the loop is busy when the timer is due.
                if messages == 100 {
                    timer.reset(ms(5));
                }
            }
            recv(timer) -> _ => break,
        }
    }
}

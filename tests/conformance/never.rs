//! Sources that are never ready: crossbeam-channel's tests/never.rs, and Go's nil channels and
//! timers.

use std::cell::Cell;
use std::io::ErrorKind;

use pollmux::{Source, Time, Timer, never, select};

use crate::common::{ms, next, poll, reactor, sim, within};

/// crossbeam-channel tests/never.rs: smoke
#[test]
fn a_ready_case_beats_never() {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let never = never::<i32>();
    for n in 0..100 {
        tx.send(n).unwrap();
        select! { reactor;
            biased;
            recv(never) -> _ => panic!("never came"),
            recv(inbox) -> got => assert_eq!(got, Ok(n)),
        }
    }
}

/// crossbeam-channel tests/never.rs: optional
#[test]
fn select_ignores_an_absent_source() {
    let (reactor, _) = sim();
    let timer = reactor.after(ms(1));
    let mut chosen: Option<&Timer> = None;
    select! { reactor;
        recv(chosen) -> _ => panic!("the source is absent"),
        default(ms(5)) => {}
    }
    chosen = Some(&timer);
    assert_eq!(poll(&reactor, &chosen), Some(Time::ZERO + ms(1)));
}

/// crossbeam-channel tests/never.rs: tick_n
#[test]
fn a_ticker_can_be_disabled_between_ticks() {
    let (reactor, sim) = sim();
    let ticker = reactor.every(ms(100)).unwrap();
    let mut left = 3;
    let mut tick = || {
        let source = (left > 0).then_some(&ticker);
        let ticked = within(&reactor, &source, ms(200)).is_some();
        left -= usize::from(ticked);
        ticked
    };
    assert_eq!([tick(), tick(), tick(), tick(), tick()], [true, true, true, false, false]);
    assert_eq!(sim.now(), Time::ZERO + ms(700));
}

/// crossbeam-channel tests/never.rs: try_recv
#[test]
fn never_is_not_ready() {
    let reactor = reactor();
    let never = never::<()>();
    assert!(!never.is_ready());
    assert_eq!(never.try_take(), None);
    assert_eq!(poll(&reactor, &never), None);
}

/// crossbeam-channel tests/never.rs: recv_timeout
#[test]
fn never_times_out() {
    let (reactor, sim) = sim();
    assert_eq!(within(&reactor, &never::<()>(), ms(100)), None);
    assert_eq!(sim.now(), Time::ZERO + ms(100));
}

/// Go test/chan/select3.go: a select of nil channels only blocks for ever
#[test]
fn a_select_of_absent_sources_blocks() {
    let (reactor, _) = sim();
    let absent = None::<Timer>;
    // In virtual time a wait for ever is an error.
    select! { reactor;
        recv(absent) -> _ => panic!("the source is absent"),
        recv(never::<i32>()) -> _ => panic!("never came"),
        error -> error => assert_eq!(error.kind(), ErrorKind::Deadlock),
    }
}

/// Go test/chan/select3.go: sending to a nil channel blocks
#[test]
fn a_send_case_without_outbox_is_never_chosen() {
    let (reactor, _) = sim();
    let absent = None::<pollmux::Outbox<()>>;
    let evaluated = Cell::new(false);
    let timer = reactor.after(ms(1));
    select! { reactor;
        send(absent, evaluated.set(true)) -> _ => panic!("sent without an outbox"),
        recv(timer) -> due => assert_eq!(due, Time::ZERO + ms(1)),
    }
    assert!(!evaluated.get());
}

/// Go language: a nil channel variable may be set between two turns of the loop
#[test]
fn an_arm_may_set_an_absent_source() {
    let (reactor, sim) = sim();
    let start = reactor.after(ms(10));
    let mut late: Option<Timer> = None;
    let mut order = Vec::new();
    while order.len() < 2 {
        select! { reactor;
            recv(start) -> due => { order.push(due); late = Some(reactor.after(ms(20))); }
            recv(late) -> due => { order.push(due); late = None; }
        }
    }
    assert_eq!(order, [Time::ZERO + ms(10), Time::ZERO + ms(30)]);
    assert!(late.is_none());
    let last = reactor.after(ms(1));
    assert_eq!(next(&reactor, &last), sim.now());
}

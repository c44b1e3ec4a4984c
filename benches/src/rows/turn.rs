//! A turn on one thread: a send, a select, and a heartbeat of 500 ms put off.

use std::hint::black_box;
use std::time::Duration;

use pollmux::{Reactor, select};

use super::tokio_runtime;
use crate::measure::{Contestant, Meter};
use crate::native::{self, Peer};
use crate::row::{Bound, Family, row};

const BEAT: Duration = Duration::from_millis(500);
const CAPACITY: usize = 64;

const WITH: [&str; 4] = [
    "crossbeam select! + a new after",
    "tokio select! + Sleep::reset",
    "calloop + re-armed timer",
    "Go select + Ticker.Reset",
];
const WITHOUT: [&str; 4] =
    ["crossbeam recv_timeout", "kanal recv_timeout", "flume recv_timeout", "std recv_timeout"];

pub fn families() -> Vec<Family> {
    let ours = "pollmux select! + restart";
    vec![Family::new(
        |_| contestants(),
        [
            row(
                "turn/heartbeat",
                "A turn: send, select, and `restart` a heartbeat of 500 ms.",
                ours,
                &WITH,
            )
            .ratios(2.3, 4.0),
            row(
                "turn/recv_timeout",
                "The same turn beside a send and a bare `recv_timeout`, which has no heartbeat.",
                ours,
                &WITHOUT,
            )
            .goal(Bound::Ratio(1.0)),
        ],
    )]
}

fn contestants() -> Vec<Contestant> {
    let mut all = in_rust();
    all.push(native::contestant(Peer::Go, &WITH[3..], "turn", 1));
    all
}

/// Returns all contestants but other programs.
pub fn in_rust() -> Vec<Contestant> {
    vec![
        pollmux(),
        crossbeam(),
        tokio(),
        calloop(),
        timeouts("crossbeam recv_timeout", crossbeam_channel::bounded(CAPACITY), |(tx, rx)| {
            tx.send(black_box(1u64)).expect("a receiver");
            black_box(rx.recv_timeout(BEAT).expect("a message"));
        }),
        timeouts("kanal recv_timeout", kanal::bounded(CAPACITY), |(tx, rx)| {
            tx.send(black_box(1u64)).expect("a receiver");
            black_box(rx.recv_timeout(BEAT).expect("a message"));
        }),
        timeouts("flume recv_timeout", flume::bounded(CAPACITY), |(tx, rx)| {
            tx.send(black_box(1u64)).expect("a receiver");
            black_box(rx.recv_timeout(BEAT).expect("a message"));
        }),
        timeouts("std recv_timeout", std::sync::mpsc::sync_channel(CAPACITY), |(tx, rx)| {
            tx.send(black_box(1u64)).expect("a receiver");
            black_box(rx.recv_timeout(BEAT).expect("a message"));
        }),
    ]
}

fn timeouts<C: 'static>(name: &str, ends: C, turn: impl Fn(&C) + 'static) -> Contestant {
    Contestant::ops(name, move || turn(&ends))
}

fn pollmux() -> Contestant {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    let heartbeat = reactor.every(BEAT).expect("a period");
    let handle = reactor.handle();
    Contestant::on("pollmux select! + restart", &handle, move || {
        tx.send(black_box(1)).expect("a receiver");
        select! { reactor;
            recv(inbox) -> event => {
                heartbeat.restart();
                black_box(event.expect("a sender"));
            },
            recv(heartbeat) -> _tick => { black_box(inbox.try_recv().expect("a sender")); },
        }
    })
}

fn crossbeam() -> Contestant {
    let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
    Contestant::ops(WITH[0], move || {
        tx.send(black_box(1)).expect("a receiver");
        crossbeam_channel::select! {
            recv(rx) -> event => { black_box(event.expect("a sender")); },
            recv(crossbeam_channel::after(BEAT)) -> _ => {},
        }
    })
}

fn tokio() -> Contestant {
    let runtime = tokio_runtime();
    Contestant::new(WITH[1], move |run| {
        runtime.block_on(async {
            let (tx, mut rx) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
            let sleep = tokio::time::sleep(BEAT);
            tokio::pin!(sleep);
            let mut meter = Meter::new(run);
            while meter.goes_on() {
                tx.try_send(black_box(1)).expect("room");
                tokio::select! {
                    event = rx.recv() => {
                        black_box(event.expect("a sender"));
                        sleep.as_mut().reset(tokio::time::Instant::now() + BEAT);
                    }
                    () = sleep.as_mut() => {}
                }
            }
            meter.sample()
        })
    })
}

/// A calloop contestant. A timer of calloop is re-armed by another registration.
fn calloop() -> Contestant {
    use calloop::timer::{TimeoutAction, Timer};
    let mut events = calloop::EventLoop::<u64>::try_new().expect("a loop");
    let handle = events.handle();
    let (tx, rx) = calloop::channel::sync_channel(CAPACITY);
    let taken = handle.insert_source(rx, |event, (), got| {
        if let calloop::channel::Event::Msg(message) = event {
            *got += message;
        }
    });
    taken.map_err(|error| error.error).expect("a registration");
    let arm = move || {
        let timer = Timer::from_duration(BEAT);
        handle.insert_source(timer, |_, _, _| TimeoutAction::Drop).expect("a registration")
    };
    let mut heartbeat = Some(arm());
    let of = events.handle();
    Contestant::ops(WITH[2], move || {
        tx.send(black_box(1u64)).expect("a receiver");
        let mut got = 0;
        events.dispatch(Some(Duration::ZERO), &mut got).expect("a turn");
        assert_eq!(got, 1);
        of.remove(heartbeat.replace(arm()).expect("a heartbeat"));
    })
}

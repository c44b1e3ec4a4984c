//! Throughput: producers that send as fast as they can, and one receiver.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use pollmux::{Reactor, channel, select};

use super::tokio_runtime;
use crate::counting::allocations;
use crate::measure::{Contestant, Meter, Run, Sample};
use crate::native::{self, Peer};
use crate::row::{Family, row};

const CAPACITY: usize = 1_024;
/// The period of the tickers in the selects.
const PERIOD: Duration = Duration::from_millis(100);
/// Messages before the clock starts.
const WARM: u64 = 8 * 1_024;

const BARE: [&str; 6] = ["crossfire", "crossbeam", "flume", "kanal", "std", "Go select + ticker"];
const SELECTS: [&str; 2] = ["crossbeam select! + tick", "tokio select! + interval"];
const UNBOUNDED: [&str; 4] =
    ["crossfire unbounded", "crossbeam unbounded", "flume unbounded", "std unbounded"];

pub fn families() -> Vec<Family> {
    [1, 2, 4, 16].into_iter().map(family).collect()
}

fn family(producers: usize) -> Family {
    let peers = [&BARE[..], &SELECTS].concat();
    let plural = if producers == 1 { "" } else { "s" };
    let about = |how: &str| format!("{producers} producer{plural}, ns a message: {how}.");
    let rows = [
        row(
            format!("threads/select/{producers}"),
            about("`select!` with a live ticker, capacity 1,024; most peers use a bare `recv`"),
            "pollmux select! + ticker",
            &peers,
        )
        .ratios(0.65, 1.0),
        row(
            format!("threads/recv/{producers}"),
            about("a bare `recv`, capacity 1,024"),
            "pollmux recv",
            &BARE,
        )
        .ratios(0.65, 1.0),
        row(
            format!("threads/drain/{producers}"),
            about("`select!` with a ticker, then up to 63 more messages in the same turn"),
            "pollmux select! + drain",
            &peers,
        ),
        row(
            format!("threads/unbounded/{producers}"),
            about("`select!` with a live ticker, unbounded; the peers use a bare `recv`"),
            "pollmux unbounded select!",
            &UNBOUNDED,
        )
        .ratios(0.65, 1.0),
        row(
            format!("threads/unbounded-recv/{producers}"),
            about("a bare `recv`, unbounded"),
            "pollmux unbounded recv",
            &UNBOUNDED,
        )
        .ratios(0.65, 1.0),
    ];
    Family::new(move |_| contestants(producers), rows).slices((30, 100), (9, 31))
}

/// Measures ns a message while producers send as fast as they can. The producers end when `consume`
/// has dropped the receiver. Their allocations count.
fn flooded<S: Clone + Send>(
    (run, producers): (Run, usize),
    sender: S,
    send: impl Fn(&S, u64) -> bool + Copy + Send,
    consume: impl FnOnce(&mut Meter),
) -> Sample {
    let mut meter = Meter::warmed(run, WARM);
    let (made, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..producers {
            let (sender, made, sent) = (sender.clone(), &made, &sent);
            scope.spawn(move || {
                let mut n = 0;
                while n < WARM / 16 && send(&sender, black_box(n)) {
                    n += 1;
                }
                let before = allocations();
                while send(&sender, black_box(n)) {
                    n += 1;
                }
                made.fetch_add(allocations() - before, Ordering::Relaxed);
                sent.fetch_add(n, Ordering::Relaxed);
            });
        }
        drop(sender);
        consume(&mut meter);
    });
    let mut sample = meter.sample();
    let by_senders = made.into_inner() as f64 / sent.into_inner().max(1) as f64;
    sample.allocs = sample.allocs.map(|allocs| allocs + by_senders);
    sample
}

/// Makes a contestant whose receiver blocks in `recv`.
macro_rules! bare {
    ($name:literal, $producers:ident, $make:expr) => {
        Contestant::new($name, move |run| {
            let (tx, rx) = $make;
            flooded(
                (run, $producers),
                tx,
                |tx, n| tx.send(n).is_ok(),
                move |meter| {
                    while meter.goes_on() {
                        black_box(rx.recv().expect("a sender"));
                    }
                },
            )
        })
    };
}

/// Makes a contestant that receives through a `select!`, and may drain the other messages.
fn selects(
    name: &str,
    producers: usize,
    drains: bool,
    make: impl Fn() -> (channel::Sender<u64>, channel::Receiver<u64>) + 'static,
) -> Contestant {
    Contestant::new(name, move |run| {
        let (tx, rx) = make();
        let mut syscalls = 0;
        let mut sample = flooded(
            (run, producers),
            tx,
            |tx, n| tx.send(n).is_ok(),
            |meter| {
                let reactor = Reactor::new().expect("a reactor");
                let inbox = reactor.register(rx).expect("an open reactor");
                let ticker = reactor.every(PERIOD).expect("a period");
                let mut received = 0u64;
                if drains {
                    while meter.goes_on() {
                        select! { reactor;
                            recv(inbox) -> n => {
                                black_box(n.expect("a sender"));
                                for n in inbox.drain(63) {
                                    black_box(n);
                                    meter.goes_on();
                                }
                            },
                            recv(ticker) -> tick => { black_box(tick); },
                        }
                    }
                } else {
                    while meter.goes_on() {
                        received += 1;
                        select! { reactor;
                            recv(inbox) -> n => { black_box(n.expect("a sender")); },
                            recv(ticker) -> tick => { black_box(tick); },
                        }
                    }
                }
                syscalls = reactor.stats().syscalls() * 1_000_000 / received.max(1);
            },
        );
        sample.syscalls = (!drains).then_some(syscalls as f64 / 1e6);
        sample
    })
}

fn contestants(producers: usize) -> Vec<Contestant> {
    vec![
        selects("pollmux select! + ticker", producers, false, || channel::bounded(CAPACITY)),
        bare!("pollmux recv", producers, channel::bounded::<u64>(CAPACITY)),
        bare!("crossfire", producers, crossfire::mpsc::bounded_blocking::<u64>(CAPACITY)),
        bare!("crossbeam", producers, crossbeam_channel::bounded::<u64>(CAPACITY)),
        bare!("flume", producers, flume::bounded::<u64>(CAPACITY)),
        bare!("kanal", producers, kanal::bounded::<u64>(CAPACITY)),
        bare!("std", producers, std::sync::mpsc::sync_channel::<u64>(CAPACITY)),
        crossbeam_select(producers),
        tokio_select(producers),
        native::contestant(Peer::Go, &BARE[5..], "threads", producers),
        selects("pollmux select! + drain", producers, true, || channel::bounded(CAPACITY)),
        selects("pollmux unbounded select!", producers, false, channel::unbounded),
        bare!("pollmux unbounded recv", producers, channel::unbounded::<u64>()),
        bare!("crossfire unbounded", producers, crossfire::mpsc::unbounded_blocking::<u64>()),
        bare!("crossbeam unbounded", producers, crossbeam_channel::unbounded::<u64>()),
        bare!("flume unbounded", producers, flume::unbounded::<u64>()),
        bare!("std unbounded", producers, std::sync::mpsc::channel::<u64>()),
    ]
}

fn crossbeam_select(producers: usize) -> Contestant {
    Contestant::new(SELECTS[0], move |run| {
        let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
        flooded(
            (run, producers),
            tx,
            |tx, n| tx.send(n).is_ok(),
            move |meter| {
                let ticker = crossbeam_channel::tick(PERIOD);
                while meter.goes_on() {
                    crossbeam_channel::select! {
                        recv(rx) -> n => { black_box(n.expect("a sender")); },
                        recv(ticker) -> tick => { let _ = black_box(tick); },
                    }
                }
            },
        )
    })
}

fn tokio_select(producers: usize) -> Contestant {
    Contestant::new(SELECTS[1], move |run| {
        let (tx, mut rx) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
        flooded(
            (run, producers),
            tx,
            |tx, n| tx.blocking_send(n).is_ok(),
            move |meter| {
                tokio_runtime().block_on(async {
                    let start = tokio::time::Instant::now() + PERIOD;
                    let mut ticker = tokio::time::interval_at(start, PERIOD);
                    while meter.goes_on() {
                        tokio::select! {
                            n = rx.recv() => { black_box(n.expect("a sender")); },
                            tick = ticker.tick() => { black_box(tick); },
                        }
                    }
                });
            },
        )
    })
}

//! What it costs to bring a message to another thread: M msg/s from 1 and 4 producers, and the time
//! of a round trip, beside the peers.
//!
//! `cargo bench -p pollmux-benches --bench threads` takes about a minute and a half, `-- --quick`
//! ten seconds; a filter may follow (`-- producer`, `-- 'round trip'`).
//!
//! The contestants take turns in slices of a few tens of milliseconds. A ratio is that of two
//! slices of one round, and the median of the rounds' ratios counts: the machine drifts, so **only
//! those ratios count**.
//!
//! The two threads of a round trip are kept on a core each, where there are two. Reactors are made
//! before that: one that finds a single core usable does not spin.

mod common;

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Scale, median, raw, tokio_runtime, verdict};
use hdrhistogram::Histogram;
use pollmux::{Reactor, channel, reactor::Spin, select};

#[derive(Parser)]
#[command(about = "Messages between threads: how many, and how fast there and back")]
struct Args {
    /// Ten seconds instead of a minute and a half
    #[arg(long)]
    quick: bool,
    /// The period of the tickers in the selects, in ms
    #[arg(long, default_value_t = 100, value_name = "MILLIS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    period: u64,
    /// Only the parts whose name contains this: "1 producer", "4 producers", "round trip"
    filter: Option<String>,
}

fn main() {
    let args = Args::parse_from(common::arguments());
    let scale = Scale::new(args.quick);
    let period = Duration::from_millis(args.period);
    let chosen =
        |part: &str| args.filter.as_ref().is_none_or(|filter| part.contains(filter.as_str()));
    println!("selects have a live ticker of {period:?}");
    for (part, producers) in [("1 producer", 1), ("4 producers", 4)] {
        if chosen(part) {
            throughput(part, producers, scale, period);
        }
    }
    if chosen("round trip") {
        round_trips(scale, period);
    }
}

/// The slices of all contestants, round by round, beginning with another one each time.
fn in_turn<T, R>(contestants: &[T], rounds: usize, mut run: impl FnMut(&T) -> R) -> Vec<Vec<R>> {
    let mut all: Vec<Vec<R>> = contestants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for i in 0..contestants.len() {
            let i = (i + round) % contestants.len();
            all[i].push(run(&contestants[i]));
        }
    }
    all
}

/// The median of `these` over `those`, round by round.
fn ratio(these: &[f64], those: &[f64]) -> f64 {
    median(these.iter().zip(those).map(|(this, that)| this / that))
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

// Throughput.

const CAPACITY: usize = 1_024;

/// M msg/s of one slice.
type Rate = fn(Task) -> f64;

#[derive(Clone, Copy)]
struct Task {
    producers: usize,
    slice: Duration,
    period: Duration,
}

const POLLMUX_SELECT: usize = 0;
const CROSSFIRE: usize = 2;
const CROSSBEAM_SELECT: usize = 5;
const RATES: [(&str, Rate); 7] = [
    ("pollmux select! + ticker", pollmux_select),
    ("pollmux bare recv", pollmux_bare),
    ("crossfire mpsc bare recv", crossfire_bare),
    ("std sync_channel bare recv", std_bare),
    ("crossbeam bare recv", crossbeam_bare),
    ("crossbeam select! + tick", crossbeam_select),
    ("tokio select! + interval", tokio_select),
];

/// Counts the messages of one slice.
struct Meter {
    slice: Duration,
    received: u64,
    /// After the warm-up: when, and how many messages had come.
    begin: Option<(Instant, u64)>,
    rate: f64,
}

/// Messages between two looks at the clock.
const LOOK: u64 = 1_024;

impl Meter {
    fn new(slice: Duration) -> Meter {
        Meter { slice, received: 0, begin: None, rate: 0.0 }
    }

    /// Whether to receive another message.
    #[inline(always)]
    fn goes_on(&mut self) -> bool {
        self.received += 1;
        self.received % LOOK != 0 || self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        let now = Instant::now();
        let Some((begin, before)) = self.begin else {
            if self.received >= 8 * LOOK {
                self.begin = Some((now, self.received));
            }
            return true;
        };
        let spent = now - begin;
        self.rate = (self.received - before) as f64 / spent.as_secs_f64() / 1e6;
        spent < self.slice
    }
}

/// The rate of `consume` while producers send as fast as they can. They end when it has dropped the
/// receiver.
fn flooded<S: Clone + Send>(
    task: Task,
    sender: S,
    send: impl Fn(&S, u64) -> bool + Copy + Send,
    consume: impl FnOnce(&mut Meter),
) -> f64 {
    let mut meter = Meter::new(task.slice);
    thread::scope(|scope| {
        for _ in 0..task.producers {
            let sender = sender.clone();
            scope.spawn(move || (0..).take_while(|n| send(&sender, black_box(*n))).count());
        }
        drop(sender);
        consume(&mut meter);
    });
    meter.rate
}

fn pollmux_select(task: Task) -> f64 {
    let (tx, rx) = channel::bounded::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        |meter| {
            let reactor = Reactor::new().expect("a reactor");
            let inbox = reactor.register(rx).expect("an open reactor");
            let ticker = reactor.every(task.period).expect("a period");
            while meter.goes_on() {
                select! { reactor;
                    recv(inbox) -> n => { black_box(n.expect("a sender")); },
                    recv(ticker) -> tick => { black_box(tick); },
                }
            }
        },
    )
}

fn pollmux_bare(task: Task) -> f64 {
    let (tx, rx) = channel::bounded::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        move |meter| {
            while meter.goes_on() {
                black_box(rx.recv().expect("a sender"));
            }
        },
    )
}

fn crossfire_bare(task: Task) -> f64 {
    let (tx, rx) = crossfire::mpsc::bounded_blocking::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        move |meter| {
            while meter.goes_on() {
                black_box(rx.recv().expect("a sender"));
            }
        },
    )
}

fn std_bare(task: Task) -> f64 {
    let (tx, rx) = std::sync::mpsc::sync_channel::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        move |meter| {
            while meter.goes_on() {
                black_box(rx.recv().expect("a sender"));
            }
        },
    )
}

fn crossbeam_bare(task: Task) -> f64 {
    let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        move |meter| {
            while meter.goes_on() {
                black_box(rx.recv().expect("a sender"));
            }
        },
    )
}

fn crossbeam_select(task: Task) -> f64 {
    let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.send(n).is_ok(),
        move |meter| {
            let ticker = crossbeam_channel::tick(task.period);
            while meter.goes_on() {
                crossbeam_channel::select! {
                    recv(rx) -> n => { black_box(n.expect("a sender")); },
                    recv(ticker) -> tick => { let _ = black_box(tick); },
                }
            }
        },
    )
}

fn tokio_select(task: Task) -> f64 {
    let (tx, mut rx) = tokio::sync::mpsc::channel::<u64>(CAPACITY);
    flooded(
        task,
        tx,
        |tx, n| tx.blocking_send(n).is_ok(),
        move |meter| {
            tokio_runtime().block_on(async {
                let mut ticker = tokio::time::interval_at(
                    tokio::time::Instant::now() + task.period,
                    task.period,
                );
                while meter.goes_on() {
                    tokio::select! {
                        n = rx.recv() => { black_box(n.expect("a sender")); },
                        tick = ticker.tick() => { black_box(tick); },
                    }
                }
            });
        },
    )
}

fn throughput(part: &str, producers: usize, scale: Scale, period: Duration) {
    let (rounds, slice) = scale.of((1, 2), (5, 60), (31, 120));
    let task = Task { producers, slice: Duration::from_millis(slice), period };
    let rates = in_turn(&RATES, rounds, |(_, rate)| rate(task));

    println!("\n{part}, capacity {CAPACITY}, {rounds} rounds");
    println!("{:32}{:>10}{:>10}{:>10}{:>14}", "M msg/s", "median", "least", "most", "x crossfire");
    for ((name, _), here) in RATES.iter().zip(&rates) {
        println!(
            "{name:32}{:>10.2}{:>10.2}{:>10.2}{:>14.2}",
            median(here.iter().copied()),
            least(here),
            most(here),
            ratio(here, &rates[CROSSFIRE])
        );
    }
    let select = ratio(&rates[POLLMUX_SELECT], &rates[CROSSFIRE]);
    println!(
        "gate: select! {select:.2} x bare crossfire against 0.6: {}, stretch 1.0: {};  \
         {:.1} x crossbeam's select!",
        verdict(select >= 0.6),
        verdict(select >= 1.0),
        ratio(&rates[POLLMUX_SELECT], &rates[CROSSBEAM_SELECT])
    );
}

// Round trips.

/// One slice, which leaves ns a round trip in the stopwatch.
type Trip = fn(&mut Stopwatch);

const RAW: usize = 0;
const STD: usize = 1;
const PARKED: usize = 3;
const CROSSBEAM: usize = 5;
const SPINNING: usize = 8;
const TRIPS: [(&str, Trip); 9] = [
    ("parked: raw eventfd + epoll_wait", raw_trip),
    ("parked: std sync_channel", std_trip),
    ("parked: tokio select! + interval", tokio_trip),
    ("parked: pollmux select! + ticker", |watch| pollmux_select_trip(watch, Spin::Off)),
    ("spinning: two atomics", atomics_trip),
    ("spinning: crossbeam", crossbeam_trip),
    ("spinning: kanal", kanal_trip),
    ("spinning: pollmux bare recv", pollmux_bare_trip),
    ("spinning: pollmux select! + ticker", |watch| pollmux_select_trip(watch, Spin::Adaptive)),
];

/// The room of each channel: more than ever is in it.
const FEW: usize = 8;
/// Round trips between two looks at the clock. A batch that an interrupt hits is far off; the
/// median of the batches is not.
const BATCH: u32 = 64;

/// Times round trips for a slice.
struct Stopwatch {
    slice: Duration,
    /// Of the tickers.
    period: Duration,
    /// Whether to keep the threads on their cores.
    pins: bool,
    /// ns a round trip, of batches.
    nanos: Histogram<u64>,
}

/// Where a thread of a round trip is to run.
#[derive(Clone, Copy)]
struct Seat(Option<usize>);

impl Seat {
    fn take(self) {
        if let Some(core) = self.0 {
            raw::pin_to(core);
        }
    }
}

impl Stopwatch {
    fn new(slice: Duration, period: Duration, pins: bool) -> Stopwatch {
        // Up to a second, to 0.1 %.
        let nanos =
            Histogram::new_with_max(1_000_000_000, 3).expect("bounds that hdrhistogram takes");
        Stopwatch { slice, period, pins, nanos }
    }

    /// Calls `trip` on the calling thread for a slice.
    fn run(&mut self, mut trip: impl FnMut()) {
        Seat(self.pins.then_some(0)).take();
        // More than an adaptive spin needs to find out that it pays.
        (0..4 * BATCH).for_each(|_| trip());
        let begin = Instant::now();
        let mut last = begin;
        while last - begin < self.slice {
            (0..BATCH).for_each(|_| trip());
            let now = Instant::now();
            self.nanos.saturating_record((now - last).as_nanos() as u64 / u64::from(BATCH));
            last = now;
        }
    }

    /// Runs both sides, each on a thread of its own. `here` calls [`run`](Self::run) and then ends
    /// the other side.
    fn pair(&mut self, here: impl FnOnce(&mut Stopwatch) + Send, there: impl FnOnce(Seat) + Send) {
        let seat = Seat(self.pins.then_some(1));
        thread::scope(|scope| {
            scope.spawn(move || there(seat));
            scope.spawn(|| here(self));
        });
    }
}

fn raw_trip(watch: &mut Stopwatch) {
    let ((epoll_here, here), (epoll_there, there)) = (raw::pair(raw::EDGE), raw::pair(raw::EDGE));
    let (here, there, stop) = (&here, &there, &AtomicBool::new(false));
    watch.pair(
        move |watch| {
            let mut events = raw::events();
            watch.run(|| {
                raw::write(there);
                while raw::wait(&epoll_here, &mut events, -1) != 1 {} // a signal ends it with -1
            });
            stop.store(true, Ordering::SeqCst);
            raw::write(there);
        },
        move |seat| {
            seat.take();
            let mut events = raw::events();
            while !stop.load(Ordering::SeqCst) {
                while raw::wait(&epoll_there, &mut events, -1) != 1 {}
                raw::write(here);
            }
        },
    );
}

fn atomics_trip(watch: &mut Stopwatch) {
    const STOP: u64 = u64::MAX;
    let (ping, pong) = (&AtomicU64::new(0), &AtomicU64::new(0));
    watch.pair(
        move |watch| {
            let mut n = 0;
            watch.run(|| {
                n += 1;
                ping.store(n, Ordering::Release);
                while pong.load(Ordering::Acquire) != n {
                    spin_loop();
                }
            });
            ping.store(STOP, Ordering::Release);
        },
        move |seat| {
            seat.take();
            let mut seen = 0;
            while seen != STOP {
                let n = ping.load(Ordering::Acquire);
                if n == seen {
                    spin_loop();
                } else {
                    seen = n;
                    pong.store(n, Ordering::Release);
                }
            }
        },
    );
}

/// Both sides of channels that are used bare: `$make` gives a pair of ends with `send` and `recv`.
macro_rules! bare_trip {
    ($name:ident, $make:expr) => {
        fn $name(watch: &mut Stopwatch) {
            let ((to_there, there), (to_here, here)) = ($make, $make);
            watch.pair(
                move |watch| {
                    watch.run(|| {
                        to_there.send(7).expect("a receiver");
                        black_box(here.recv().expect("a sender"));
                    });
                },
                move |seat| {
                    seat.take();
                    while let Ok(n) = there.recv() {
                        to_here.send(n).expect("a receiver");
                    }
                },
            );
        }
    };
}

bare_trip!(std_trip, std::sync::mpsc::sync_channel::<u64>(FEW));
bare_trip!(crossbeam_trip, crossbeam_channel::bounded::<u64>(FEW));
bare_trip!(kanal_trip, kanal::bounded::<u64>(FEW));
bare_trip!(pollmux_bare_trip, channel::bounded::<u64>(FEW));

/// Receives through a `select!` with a live ticker.
fn receive(
    reactor: &Reactor,
    inbox: &pollmux::Inbox<u64>,
    ticker: &pollmux::Ticker,
) -> Result<u64, channel::RecvError> {
    loop {
        select! { reactor;
            recv(inbox) -> n => return n,
            recv(ticker) -> tick => { black_box(tick); },
        }
    }
}

fn pollmux_select_trip(watch: &mut Stopwatch, spin: Spin) {
    let ((to_there, there), (to_here, here)) =
        (channel::bounded::<u64>(FEW), channel::bounded::<u64>(FEW));
    let period = watch.period;
    let side = move |rx| {
        let reactor = Reactor::builder().spin(spin).build().expect("a reactor");
        let inbox = reactor.register(rx).expect("an open reactor");
        let ticker = reactor.every(period).expect("a period");
        (reactor, inbox, ticker)
    };
    watch.pair(
        move |watch| {
            let (reactor, inbox, ticker) = side(here);
            watch.run(|| {
                to_there.send(7).expect("a receiver");
                black_box(receive(&reactor, &inbox, &ticker).expect("a sender"));
            });
            drop(to_there);
        },
        move |seat| {
            let (reactor, inbox, ticker) = side(there);
            seat.take();
            while let Ok(n) = receive(&reactor, &inbox, &ticker) {
                to_here.send(n).expect("a receiver");
            }
        },
    );
}

fn tokio_trip(watch: &mut Stopwatch) {
    use tokio::sync::mpsc;
    use tokio::time::{Instant, Interval, interval_at};
    let ((to_there, mut there), (to_here, mut here)) =
        (mpsc::channel::<u64>(FEW), mpsc::channel::<u64>(FEW));
    let period = watch.period;

    async fn receive(rx: &mut mpsc::Receiver<u64>, ticker: &mut Interval) -> Option<u64> {
        loop {
            tokio::select! {
                n = rx.recv() => return n,
                tick = ticker.tick() => { black_box(tick); },
            }
        }
    }
    let side = move || {
        let runtime = tokio_runtime();
        let ticker = {
            let _inside = runtime.enter();
            interval_at(Instant::now() + period, period)
        };
        (runtime, ticker)
    };
    watch.pair(
        move |watch| {
            let (runtime, mut ticker) = side();
            watch.run(|| {
                to_there.try_send(7).expect("room");
                black_box(runtime.block_on(receive(&mut here, &mut ticker)).expect("a sender"));
            });
            drop(to_there);
        },
        move |seat| {
            let (runtime, mut ticker) = side();
            seat.take();
            runtime.block_on(async {
                while let Some(n) = receive(&mut there, &mut ticker).await {
                    to_here.try_send(n).expect("room");
                }
            });
        },
    );
}

fn round_trips(scale: Scale, period: Duration) {
    let (rounds, slice) = scale.of((1, 1), (5, 30), (31, 60));
    let slice = Duration::from_millis(slice);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let slices = |rounds, slice, pins| {
        in_turn(&TRIPS, rounds, |(_, trip)| {
            let mut watch = Stopwatch::new(slice, period, pins);
            trip(&mut watch);
            watch.nanos.value_at_quantile(0.5) as f64
        })
    };
    // On threads that may run anywhere: how many cores there are is asked once in a process, by the
    // first that wants to know.
    slices(1, Duration::from_millis(1), false);
    let trips = slices(rounds, slice, cores > 1);

    println!("\nround trip, {rounds} rounds{}", if cores > 1 { "" } else { ", on one core" });
    println!(
        "{:36}{:>9}{:>9}{:>9}{:>9}{:>13}",
        "ns", "median", "least", "most", "x raw", "x crossbeam"
    );
    for ((name, _), nanos) in TRIPS.iter().zip(&trips) {
        println!(
            "{name:36}{:>9.0}{:>9.0}{:>9.0}{:>9.2}{:>13.2}",
            median(nanos.iter().copied()),
            least(nanos),
            most(nanos),
            ratio(nanos, &trips[RAW]),
            ratio(nanos, &trips[CROSSBEAM])
        );
    }
    let parked = ratio(&trips[PARKED], &trips[RAW]);
    let spinning = ratio(&trips[SPINNING], &trips[CROSSBEAM]);
    let nanos = median(trips[SPINNING].iter().copied());
    println!(
        "gates: parked {parked:.2} x raw against 1.1: {}, stretch 1.0: {};  {:.2} x std",
        verdict(parked <= 1.1),
        verdict(parked <= 1.0),
        ratio(&trips[PARKED], &trips[STD])
    );
    println!(
        "       spinning {spinning:.2} x crossbeam against 1.0: {}, stretch {nanos:.0} ns \
         against 400: {}",
        verdict(spinning <= 1.0),
        verdict(nanos <= 400.0)
    );
}

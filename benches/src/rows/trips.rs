//! Round trips to another thread: a message there and a message back. Each thread is kept on a
//! core. Reactors are made before that, because a reactor that may use one core only does not spin.

use std::cell::Cell;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pollmux::{Reactor, channel, reactor::Spin, select};

use super::tokio_runtime;
use crate::measure::{Contestant, Run, Sample, median};
use crate::native::{self, Peer};
use crate::raw;
use crate::row::{Bound, Family, row};

/// The capacity of each channel. It is never full.
const FEW: usize = 8;
/// The period of the tickers in the selects.
const PERIOD: Duration = Duration::from_millis(100);
/// Round trips between two looks at the clock. A batch that an interrupt hits is far off, but the
/// median of the batches is not.
const BATCH: u32 = 64;

/// Two goroutines, each locked to a thread.
const GO_THREADS: &str = "Go, two threads";
/// Two goroutines as Go runs them: both on one thread, in all but 0.01 % of the trips. That is a
/// switch within a thread, and no round trip between threads.
const GO_ONE_THREAD: &str = "Go, one thread";

pub fn families() -> Vec<Family> {
    let spinning = ["crossbeam", "crossfire", "kanal", "flume", GO_THREADS];
    vec![
        Family::new(
            |_| contestants(),
            [
                row(
                    "trip/spinning",
                    "A round trip to another thread, both spin; `select!` with a live ticker.",
                    "pollmux select! + ticker",
                    &spinning,
                )
                .gate(Bound::Ratio(1.0))
                .goal(Bound::Value(250.0))
                .beside(&["two atomics", GO_ONE_THREAD]),
                row(
                    "trip/spinning-recv",
                    "The same with a bare `recv`.",
                    "pollmux recv",
                    &spinning,
                )
                .gate(Bound::Ratio(1.0))
                .goal(Bound::Value(250.0))
                .beside(&["two atomics", GO_ONE_THREAD]),
                row(
                    "trip/parked",
                    "A round trip to another thread, both sleep.",
                    "pollmux select! + ticker, Spin::Off",
                    &["raw eventfd + epoll_wait"],
                )
                .gate(Bound::Ratio(1.0 / 1.1))
                .goal(Bound::Ratio(1.0))
                .beside(&["futex", "std", "tokio select! + interval", "calloop"]),
            ],
        )
        .slices((25, 60), (9, 31)),
    ]
}

fn contestants() -> Vec<Contestant> {
    vec![
        trip("pollmux select! + ticker", |watch| pollmux_select(watch, Spin::Adaptive)),
        trip("pollmux recv", pollmux_recv),
        trip("crossbeam", crossbeam),
        trip("crossfire", crossfire),
        trip("kanal", kanal),
        trip("flume", flume),
        native::contestant(Peer::Go, &[GO_THREADS], "trip", 2),
        native::contestant(Peer::Go, &[GO_ONE_THREAD], "trip", 1),
        trip("two atomics", atomics),
        trip("pollmux select! + ticker, Spin::Off", |watch| pollmux_select(watch, Spin::Off)),
        trip("raw eventfd + epoll_wait", raw_trip),
        trip("futex", parked_threads),
        trip("std", std),
        trip("tokio select! + interval", tokio),
        trip("calloop", calloop),
    ]
}

/// Returns the contestants that show the best time that the kernel and the cores allow.
pub fn floor() -> Vec<Contestant> {
    vec![
        trip("round trip, parked: eventfd + epoll_wait", raw_trip),
        trip("round trip, parked: futex", parked_threads),
        trip("round trip, spinning: two atomics", atomics),
    ]
}

fn trip(name: &str, run: impl Fn(&mut Stopwatch) + 'static) -> Contestant {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // The first slice of each contestant may run on any core. The number of cores is read once in a
    // process, by the first reactor that needs it.
    let pins = Cell::new(false);
    Contestant::new(name, move |how| {
        let Run::For(slice) = how else { panic!("a round trip is measured by time") };
        let mut watch = Stopwatch { slice, pins: pins.replace(cores > 1), nanos: Vec::new() };
        run(&mut watch);
        Sample::of(median(watch.nanos).expect("a batch"))
    })
}

/// Times round trips for a slice.
struct Stopwatch {
    slice: Duration,
    /// Keeps the threads on their cores.
    pins: bool,
    /// The ns of a round trip, in batches.
    nanos: Vec<f64>,
}

/// The core that a thread of a round trip runs on.
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
    /// Calls `trip` on the calling thread for a slice.
    fn run(&mut self, mut trip: impl FnMut()) {
        Seat(self.pins.then_some(0)).take();
        // More trips than an adaptive spin needs to find out that it pays.
        (0..4 * BATCH).for_each(|_| trip());
        let begin = Instant::now();
        let mut last = begin;
        while last - begin < self.slice {
            (0..BATCH).for_each(|_| trip());
            let now = Instant::now();
            self.nanos.push((now - last).as_nanos() as f64 / f64::from(BATCH));
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

/// std parks a thread by a futex.
fn parked_threads(watch: &mut Stopwatch) {
    const STOP: u64 = u64::MAX;
    let (ping, pong) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let (tell, told) = std::sync::mpsc::channel::<thread::Thread>();
    let (tell_here, told_here) = std::sync::mpsc::channel::<thread::Thread>();
    watch.pair(
        move |watch| {
            tell.send(thread::current()).expect("a thread there");
            let there = told_here.recv().expect("a thread there");
            let mut n = 0;
            watch.run(|| {
                n += 1;
                ping.store(n, Ordering::SeqCst);
                there.unpark();
                while pong.load(Ordering::SeqCst) != n {
                    thread::park();
                }
            });
            ping.store(STOP, Ordering::SeqCst);
            there.unpark();
        },
        move |seat| {
            seat.take();
            tell_here.send(thread::current()).expect("a thread here");
            let here = told.recv().expect("a thread here");
            let mut seen = 0;
            loop {
                let n = ping.load(Ordering::SeqCst);
                if n == STOP {
                    break;
                } else if n == seen {
                    thread::park();
                } else {
                    seen = n;
                    pong.store(n, Ordering::SeqCst);
                    here.unpark();
                }
            }
        },
    );
}

fn atomics(watch: &mut Stopwatch) {
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

/// Makes a contestant of channels that are used bare: `$make` gives a pair of ends with `send` and
/// `recv`.
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
                    drop(to_there);
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

bare_trip!(std, std::sync::mpsc::sync_channel::<u64>(FEW));
bare_trip!(crossbeam, crossbeam_channel::bounded::<u64>(FEW));
bare_trip!(crossfire, crossfire::mpsc::bounded_blocking::<u64>(FEW));
bare_trip!(kanal, kanal::bounded::<u64>(FEW));
bare_trip!(flume, flume::bounded::<u64>(FEW));
bare_trip!(pollmux_recv, channel::bounded::<u64>(FEW));

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

fn pollmux_select(watch: &mut Stopwatch, spin: Spin) {
    let ((to_there, there), (to_here, here)) =
        (channel::bounded::<u64>(FEW), channel::bounded::<u64>(FEW));
    let side = move |rx| {
        let reactor = Reactor::builder().spin(spin).build().expect("a reactor");
        let inbox = reactor.register(rx).expect("an open reactor");
        let ticker = reactor.every(PERIOD).expect("a period");
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

fn tokio(watch: &mut Stopwatch) {
    use tokio::sync::mpsc;
    use tokio::time::{Instant, Interval, interval_at};
    let ((to_there, mut there), (to_here, mut here)) =
        (mpsc::channel::<u64>(FEW), mpsc::channel::<u64>(FEW));

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
            interval_at(Instant::now() + PERIOD, PERIOD)
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

fn calloop(watch: &mut Stopwatch) {
    use calloop::channel::{Channel, Event, sync_channel};
    let ((to_there, there), (to_here, here)) = (sync_channel::<u64>(FEW), sync_channel::<u64>(FEW));

    /// Makes a loop for one side. Its data is `None` at the end.
    fn side(rx: Channel<u64>) -> calloop::EventLoop<'static, Option<Option<u64>>> {
        let events = calloop::EventLoop::try_new().expect("a loop");
        let taken = events.handle().insert_source(rx, |event, (), got| {
            *got = Some(if let Event::Msg(n) = event { Some(n) } else { None });
        });
        taken.map_err(|error| error.error).expect("a registration");
        events
    }
    fn receive(events: &mut calloop::EventLoop<'static, Option<Option<u64>>>) -> Option<u64> {
        let mut got = None;
        while got.is_none() {
            events.dispatch(None, &mut got).expect("a turn");
        }
        got.flatten()
    }
    watch.pair(
        move |watch| {
            let mut events = side(here);
            watch.run(|| {
                to_there.send(7).expect("a receiver");
                black_box(receive(&mut events).expect("a sender"));
            });
            drop(to_there);
        },
        move |seat| {
            let mut events = side(there);
            seat.take();
            while let Some(n) = receive(&mut events) {
                to_here.send(n).expect("a receiver");
            }
        },
    );
}

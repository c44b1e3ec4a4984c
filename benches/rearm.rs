//! What re-arming costs: one timer, a turn with a heartbeat, and a thousand or a million live
//! timers; tokio and crossbeam in the same run.
//!
//! `cargo bench -p pollmux-benches --bench rearm` (a filter may follow: `-- turn`). The machine
//! drifts: compare within one run.

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use pollmux::{Reactor, Time, Timer, select};

use common::{group, shuffled, tokio_runtime};

const FAR: Duration = Duration::from_secs(1_000);

/// `reset_at` to a later given time, and its relatives, with one live timer.
fn one_timer(c: &mut Criterion) {
    let mut group = group(c, "one timer");
    let reactor = Reactor::new().expect("a reactor");
    let timer = reactor.after(FAR);
    let (base_time, base_instant) = (Time::now() + FAR, Instant::now() + FAR);
    let step = Duration::from_nanos(1);

    group.bench_function("pollmux reset_at(Time) later", |b| {
        let mut t = base_time;
        b.iter(|| {
            t += step;
            black_box(timer.reset_at(t))
        });
    });
    group.bench_function("pollmux reset_at(Instant) later", |b| {
        let mut t = base_instant + FAR;
        b.iter(|| {
            t += step;
            black_box(timer.reset_at(t))
        });
    });
    group.bench_function("pollmux reset(d)", |b| b.iter(|| black_box(timer.reset(FAR + FAR))));
    group.bench_function("pollmux stop + reset(d)", |b| {
        b.iter(|| (timer.stop(), black_box(timer.reset(FAR))))
    });
    let ticker = reactor.every(FAR).expect("a period");
    group.bench_function("pollmux Ticker::restart", |b| b.iter(|| black_box(ticker.restart())));

    tokio_runtime().block_on(async {
        let sleep = tokio::time::sleep(FAR);
        tokio::pin!(sleep);
        // A sleep is in the wheel only after it was polled once.
        std::future::poll_fn(|cx| {
            let _ = std::future::Future::poll(sleep.as_mut(), cx);
            std::task::Poll::Ready(())
        })
        .await;
        let mut t = tokio::time::Instant::now() + FAR;
        group.bench_function("tokio Sleep::reset, instant given", |b| {
            b.iter(|| {
                t += step;
                sleep.as_mut().reset(black_box(t));
            });
        });
        group.bench_function("tokio Sleep::reset, clock read", |b| {
            b.iter(|| sleep.as_mut().reset(black_box(tokio::time::Instant::now() + FAR)));
        });
    });
    group.finish();
}

/// A turn on one thread: send, select, and a heartbeat of 500 ms put off.
fn turn(c: &mut Criterion) {
    let mut group = group(c, "turn");
    let beat = Duration::from_millis(500);
    {
        let reactor = Reactor::new().expect("a reactor");
        let (tx, inbox) = reactor.channel::<u64>(64).expect("a channel");
        let heartbeat = reactor.every(beat).expect("a period");
        group.bench_function("pollmux send + select! + restart", |b| {
            b.iter(|| {
                tx.send(black_box(1)).expect("a receiver");
                select! { reactor;
                    recv(inbox) -> event => {
                        heartbeat.restart();
                        black_box(event.expect("a sender"));
                    },
                    recv(heartbeat) -> _tick => {},
                }
            });
        });
    }
    {
        let (tx, rx) = crossbeam_channel::bounded::<u64>(64);
        group.bench_function("crossbeam send + select!, a new after each turn", |b| {
            b.iter(|| {
                tx.send(black_box(1)).expect("a receiver");
                crossbeam_channel::select! {
                    recv(rx) -> event => { black_box(event.expect("a sender")); },
                    recv(crossbeam_channel::after(beat)) -> _ => {},
                }
            });
        });
    }
    let runtime = tokio_runtime();
    group.bench_function("tokio send + select! + Sleep::reset", |b| {
        b.iter_custom(|iters| {
            runtime.block_on(async {
                let (tx, mut rx) = tokio::sync::mpsc::channel::<u64>(64);
                let sleep = tokio::time::sleep(beat);
                tokio::pin!(sleep);
                let start = Instant::now();
                for _ in 0..iters {
                    tx.try_send(black_box(1)).expect("room");
                    tokio::select! {
                        event = rx.recv() => {
                            black_box(event.expect("a sender"));
                            sleep.as_mut().reset(tokio::time::Instant::now() + beat);
                        }
                        () = sleep.as_mut() => {}
                    }
                }
                start.elapsed()
            })
        });
    });
    group.finish();
}

/// Insert, reset later at random and cancel, with `n` live timers.
fn many(c: &mut Criterion, n: usize) {
    let mut group = group(c, &format!("{n} live timers"));
    group.sample_size(10);
    let order = shuffled(n);
    let spread =
        |i: usize| FAR + Duration::from_micros((i as u64).wrapping_mul(0x9e37_79b9) % 100_000_000);

    for (what, delay) in [
        ("equal", Box::new(|_| FAR) as Box<dyn Fn(usize) -> Duration>),
        ("random", Box::new(spread)),
    ] {
        group.bench_function(format!("pollmux insert, {what}"), |b| {
            let reactor = Reactor::new().expect("a reactor");
            let mut timers: Vec<Timer> = Vec::with_capacity(n);
            b.iter_custom(|iters| {
                each(iters, n, |rounds| {
                    timers.clear();
                    let start = Instant::now();
                    timers.extend((0..rounds).map(|i| reactor.after(delay(i))));
                    start.elapsed()
                })
            });
        });
    }
    let reactor = Reactor::new().expect("a reactor");
    let mut timers: Vec<Timer> = (0..n).map(|i| reactor.after(spread(i))).collect();
    group.bench_function("pollmux reset later at random", |b| {
        let mut more = FAR + FAR;
        b.iter_custom(|iters| {
            each(iters, n, |rounds| {
                more += FAR;
                let start = Instant::now();
                order[..rounds].iter().for_each(|&i| {
                    black_box(timers[i].reset(more));
                });
                start.elapsed()
            })
        });
    });
    group.bench_function("pollmux cancel (drop) at random", |b| {
        b.iter_custom(|iters| {
            each(iters, n, |rounds| {
                timers.clear();
                timers.extend((0..n).map(|i| reactor.after(spread(i))));
                let mut slots: Vec<Option<Timer>> = timers.drain(..).map(Some).collect();
                let start = Instant::now();
                order[..rounds].iter().for_each(|&i| slots[i] = None);
                start.elapsed()
            })
        });
    });
    drop((timers, reactor));

    tokio_runtime().block_on(async {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut arm = |delay: Duration| {
            let mut sleep = Box::pin(tokio::time::sleep(delay));
            let _ = std::future::Future::poll(sleep.as_mut(), &mut cx);
            sleep
        };
        for (what, delay) in [
            ("equal", Box::new(|_| FAR) as Box<dyn Fn(usize) -> Duration>),
            ("random", Box::new(spread)),
        ] {
            let mut sleeps = Vec::with_capacity(n);
            group.bench_function(format!("tokio insert, {what}"), |b| {
                b.iter_custom(|iters| {
                    each(iters, n, |rounds| {
                        sleeps.clear();
                        let start = Instant::now();
                        sleeps.extend((0..rounds).map(|i| arm(delay(i))));
                        start.elapsed()
                    })
                });
            });
        }
        let mut sleeps: Vec<_> = (0..n).map(|i| arm(spread(i))).collect();
        group.bench_function("tokio reset later at random", |b| {
            let mut more = FAR + FAR;
            b.iter_custom(|iters| {
                each(iters, n, |rounds| {
                    more += FAR;
                    let start = Instant::now();
                    order[..rounds].iter().for_each(|&i| {
                        sleeps[i].as_mut().reset(tokio::time::Instant::now() + more);
                    });
                    start.elapsed()
                })
            });
        });
        group.bench_function("tokio cancel (drop) at random", |b| {
            b.iter_custom(|iters| {
                each(iters, n, |rounds| {
                    sleeps.clear();
                    let mut slots: Vec<_> = (0..n).map(|i| Some(arm(spread(i)))).collect();
                    let start = Instant::now();
                    order[..rounds].iter().for_each(|&i| slots[i] = None);
                    start.elapsed()
                })
            });
        });
    });
    group.finish();
}

/// Runs `iters` operations in rounds of at most `n`.
fn each(iters: u64, n: usize, mut round: impl FnMut(usize) -> Duration) -> Duration {
    let (mut left, mut total) = (iters as usize, Duration::ZERO);
    while left > 0 {
        let rounds = left.min(n);
        total += round(rounds);
        left -= rounds;
    }
    total
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    one_timer(&mut criterion);
    turn(&mut criterion);
    many(&mut criterion, 1_000);
    many(&mut criterion, 1_000_000);
    criterion.final_summary();
}

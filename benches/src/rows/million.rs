//! The workload of libuv's benchmark of a million timers: n timers, 1,000 to a millisecond, are
//! started, all fire, and are dropped. The figure is CPU time of the thread, because most of the
//! second is a sleep.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pollmux::{Callback, Events, Reactor, Source, Timer};
use tokio_util::time::DelayQueue;

use crate::measure::{Contestant, Run, Sample};
use crate::native::{self, IN_C, Peer};
use crate::raw::thread_cpu_time;
use crate::row::{Bound, Family, Scale, row};

const STEPS: [&str; 3] = ["start", "fire", "drop"];
const PEERS: [&str; 3] = ["libev", "libuv", "libevent"];
/// Peers with other guarantees. The first keeps no order within a ms, the second fires on other
/// threads.
const OTHERS: [&str; 2] = ["tokio-util DelayQueue", "Go AfterFunc"];

pub fn families() -> Vec<Family> {
    let mut rows = Vec::new();
    for (i, step) in STEPS.into_iter().enumerate() {
        let peers = PEERS.map(|peer| format!("{peer} {step}"));
        let others = OTHERS.map(|peer| format!("{peer} {step}"));
        let what = ["start a timer", "let it fire and take it", "drop it"][i];
        for (how, found_by) in [("wait", "`wait`"), ("callback", "callbacks")] {
            let about = format!(
                "A million timers, 1,000 to a ms: {what}. CPU time a timer, {found_by}; libev and \
                 the others call callbacks."
            );
            let ours = format!("pollmux {how} {step}");
            let mut spec = row(
                format!("million/{step}/{how}"),
                about,
                &ours,
                &peers.each_ref().map(|name| &**name),
            )
            .beside(&others.each_ref().map(|name| &**name));
            if step != "drop" {
                spec = spec.gate(Bound::Ratio(1.0 / 1.5)).goal(Bound::Ratio(1.0));
            }
            rows.push(spec);
        }
    }
    vec![Family::new(contestants, rows).slices((1, 1), (3, 9))]
}

fn contestants(scale: Scale) -> Vec<Contestant> {
    let n = scale.of(20_000, 1_000_000, 1_000_000);
    let mut all = vec![wait(n), callbacks(n), delay_queue(n)];
    for peer in IN_C {
        all.push(in_other(peer, peer.name(), n));
    }
    all.push(in_other(Peer::Go, "Go AfterFunc", n));
    all
}

fn in_other(peer: Peer, name: &str, n: usize) -> Contestant {
    native::contestant(peer, &three(name).each_ref().map(|name| &**name), "million", n)
}

fn three(name: &str) -> [String; 3] {
    STEPS.map(|step| format!("{name} {step}"))
}

/// Makes a contestant of three steps, each of which returns the input of the next one.
fn contestant<S: 'static, F: 'static>(
    name: &str,
    n: usize,
    start: impl Fn() -> S + 'static,
    fire: impl Fn(S) -> F + 'static,
    end: impl Fn(F) + 'static,
) -> Contestant {
    Contestant::several(&three(name).each_ref().map(|name| &**name), move |_: Run| {
        let a = thread_cpu_time();
        let started = start();
        let b = thread_cpu_time();
        let fired = fire(started);
        let c = thread_cpu_time();
        end(fired);
        let d = thread_cpu_time();
        let each = |spent: Duration| Sample::of(spent.as_nanos() as f64 / n as f64);
        vec![each(b - a), each(c - b), each(d - c)]
    })
}

/// Returns the delays: 1 ms a thousand times, then 2 ms a thousand times, and so on.
fn delays(n: usize) -> impl Iterator<Item = Duration> {
    (0..n as u64).map(|i| Duration::from_millis(i / 1_000 + 1))
}

fn wait(n: usize) -> Contestant {
    let reactor = Rc::new(Reactor::new().expect("a reactor"));
    let of = reactor.clone();
    let (spare, kept) = vector(n);
    contestant(
        "pollmux wait",
        n,
        move || {
            let begin = reactor.now();
            let mut timers: Vec<Timer> = spare.take();
            timers.extend((0..).zip(delays(n)).map(|(key, d)| reactor.at(begin + d).with_key(key)));
            timers
        },
        move |timers| {
            let (mut events, mut fired) = (Events::with_capacity(256), 0);
            while fired < n {
                of.wait(&mut events).expect("a wait");
                for event in &events {
                    let taken = timers[event.key() as usize].try_take();
                    fired += usize::from(taken.is_some());
                }
            }
            timers
        },
        move |mut timers| {
            timers.clear();
            kept.set(timers);
        },
    )
}

type Place<T> = Rc<Cell<Vec<T>>>;

/// Makes the place for a vector of `n` handles, twice. Like the timers of the peers in C, it exists
/// before the clock starts. After the first round its pages exist, too.
fn vector<T>(n: usize) -> (Place<T>, Place<T>) {
    let place = Rc::new(Cell::new(Vec::with_capacity(n)));
    (place.clone(), place)
}

fn callbacks(n: usize) -> Contestant {
    let reactor = Rc::new(Reactor::new().expect("a reactor"));
    let fired = Rc::new(Cell::new(0));
    let (of, counted) = (reactor.clone(), fired.clone());
    let (spare, kept) = vector(n);
    contestant(
        "pollmux callback",
        n,
        move || {
            fired.set(0);
            let begin = reactor.now();
            let mut callbacks: Vec<Callback> = spare.take();
            callbacks.extend(delays(n).map(|d| {
                let fired = fired.clone();
                reactor.call_at(begin + d, move |_| fired.set(fired.get() + 1))
            }));
            callbacks
        },
        move |callbacks| {
            let mut events = Events::with_capacity(16);
            let last = Duration::from_millis(n as u64 / 1_000 + 1);
            let end = of.now() + last;
            while counted.get() < n {
                let left = (end - of.now()).max(Duration::from_millis(1));
                of.wait_timeout(&mut events, left).expect("a wait");
            }
            callbacks
        },
        move |mut callbacks| {
            callbacks.clear();
            kept.set(callbacks);
        },
    )
}

/// A tokio-util contestant. Expired entries are taken by polling, between sleeps of tokio's driver.
fn delay_queue(n: usize) -> Contestant {
    let runtime = Rc::new(super::tokio_runtime());
    let of = runtime.clone();
    contestant(
        "tokio-util DelayQueue",
        n,
        move || {
            let _in = runtime.enter();
            let begin = tokio::time::Instant::now();
            let mut queue = DelayQueue::with_capacity(n);
            delays(n).for_each(|d| _ = queue.insert_at((), begin + d));
            queue
        },
        move |mut queue| {
            of.block_on(std::future::poll_fn(|cx: &mut Context<'_>| {
                loop {
                    match queue.poll_expired(cx) {
                        Poll::Ready(Some(_)) => {}
                        Poll::Ready(None) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }));
            queue
        },
        drop,
    )
}

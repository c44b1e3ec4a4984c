//! The workload of libuv's benchmark of a million timers: n timers, 1,000 to a millisecond, are
//! started, all fire, and are dropped. The figure is CPU time of the thread, because most of the
//! second is a sleep.
//!
//! libuv's program allocates its timers, looks at the clock and starts them. So its figure has the
//! page faults of timers and queue. Rows without `warm` measure that: each slice is a new process.
//! In rows with `warm` each contestant keeps its loop and its memory from slice to slice. Ours is a
//! reactor and a vector of handles, that of a peer in C is a loop and an array of timers.

use std::cell::Cell;
use std::env;
use std::process::Command;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pollmux::{Callback, Events, Reactor, Source, Timer};
use tokio_util::time::DelayQueue;

use crate::measure::{Contestant, Run, Sample};
use crate::native::{self, IN_C, Peer, Process};
use crate::raw::thread_cpu_time;
use crate::row::{Bound, Family, Scale, Spec, row};

const STEPS: [&str; 3] = ["start", "fire", "drop"];
/// Our two ways: the end of the names of rows, and the description.
const WAYS: [(&str, &str); 2] = [("wait", "`wait`"), ("callback", "callbacks")];
const PEERS: [&str; 3] = ["libev", "libuv", "libevent"];
/// Peers with other guarantees. The first keeps no order within a ms, the second fires on other
/// threads.
const OTHERS: [&str; 2] = ["tokio-util DelayQueue", "Go AfterFunc"];

pub fn families() -> Vec<Family> {
    let new = rows("", &OTHERS, |what, found_by| {
        format!(
            "A million timers, 1,000 to a ms, in a new process: {what}. CPU time a timer, page \
             faults included, as in libuv's program; {found_by}; libev and the others call \
             callbacks."
        )
    });
    let warm = rows("/warm", &[], |what, found_by| {
        format!(
            "The same in a loop that has done so before and keeps its memory, as its peers do: \
             {what}. CPU time a timer, no page faults; {found_by}."
        )
    });
    vec![
        Family::new(in_new_processes, new).slices((1, 1), (3, 9)),
        Family::new(kept, warm).slices((1, 1), (3, 9)),
    ]
}

/// Returns a row for each step and each of our ways.
fn rows(
    end: &str,
    others: &[&str],
    about: impl Fn(&str, &str) -> String + Copy,
) -> impl Iterator<Item = Spec> {
    let whats = ["start a timer", "let it fire and take it", "drop it"];
    STEPS.into_iter().zip(whats).flat_map(move |(step, what)| {
        WAYS.map(|(way, found_by)| {
            let of = |peers: &[&str]| -> Vec<String> {
                peers.iter().map(|peer| format!("{peer} {step}")).collect()
            };
            let mut spec = row(
                format!("million/{step}/{way}{end}"),
                about(what, found_by),
                &format!("pollmux {way} {step}"),
                &[],
            );
            (spec.peers, spec.beside) = (of(&PEERS), of(others));
            if step != "drop" {
                spec = spec.gate(Bound::Ratio(1.0 / 1.5)).goal(Bound::Ratio(1.0));
            }
            spec
        })
    })
}

fn timers(scale: Scale) -> usize {
    scale.of(20_000, 1_000_000, 1_000_000)
}

/// Contestants that keep their memory from slice to slice.
fn kept(scale: Scale) -> Vec<Contestant> {
    let n = timers(scale);
    let mut all = vec![wait(n), callbacks(n)];
    for peer in IN_C {
        let names = three(peer.name());
        all.push(native::contestant(peer, &names.each_ref().map(|name| &**name), "again", n));
    }
    all
}

/// Contestants that start a process for each slice.
fn in_new_processes(scale: Scale) -> Vec<Contestant> {
    let n = timers(scale);
    let mut all = Vec::new();
    for name in ["pollmux wait", "pollmux callback", OTHERS[0]] {
        all.push(of_steps(name, move |_| in_child(name, n)));
    }
    for (peer, name) in
        IN_C.map(|peer| (peer, peer.name())).into_iter().chain([(Peer::Go, OTHERS[1])])
    {
        all.push(match peer.program() {
            Ok(_) => of_steps(name, move |run| {
                let mut process = Process::start(peer).expect("a peer that starts");
                process.ask("million", n, run).into_iter().map(Sample::of).collect()
            }),
            Err(reason) => Contestant::absent(&three(name).each_ref().map(|name| &**name), reason),
        });
    }
    all
}

/// Runs one of our contestants in a new process, which prints its figures: [`run_once`].
fn in_child(name: &str, n: usize) -> Vec<Sample> {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new(program)
        .args(["--million", name, "--times", &n.to_string()])
        .output()
        .expect("this program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|n| Sample::of(n.parse().expect("a number"))).collect()
}

/// Runs a contestant once with `n` timers, for the child process `--million NAME --times N`, and
/// prints its figures.
pub fn run_once(name: &str, n: usize) {
    let mut contestant = match name {
        "pollmux wait" => wait(n),
        "pollmux callback" => callbacks(n),
        _ => delay_queue(n),
    };
    contestant.run(Run::Times(1)).iter().for_each(|sample| println!("{}", sample.value));
}

fn three(name: &str) -> [String; 3] {
    STEPS.map(|step| format!("{name} {step}"))
}

/// Makes a contestant with a name for each step.
fn of_steps(name: &str, run: impl FnMut(Run) -> Vec<Sample> + 'static) -> Contestant {
    Contestant::several(&three(name).each_ref().map(|name| &**name), run)
}

/// Makes a contestant of three steps, each of which returns the input of the next one.
fn contestant<S: 'static, F: 'static>(
    name: &str,
    n: usize,
    start: impl Fn() -> S + 'static,
    fire: impl Fn(S) -> F + 'static,
    end: impl Fn(F) + 'static,
) -> Contestant {
    of_steps(name, move |_| {
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

/// Returns the delays: 1 ms a thousand times, then 2 ms a thousand times, and so on. Computed as in
/// the C program.
fn delays(n: usize) -> impl Iterator<Item = Duration> {
    let mut delay = Duration::ZERO;
    (0..n).map(move |i| {
        if i % 1_000 == 0 {
            delay += Duration::from_millis(1);
        }
        delay
    })
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
/// before the clock starts. After the first slice its pages exist, too.
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

//! The hot paths of one thread under criterion, for a comparison of two versions of the crate:
//!
//! ```sh
//! cargo bench -p pollmux-bench -- --save-baseline before
//! cargo bench -p pollmux-bench -- --baseline before    # after a change
//! ```
//!
//! The report (`cargo run --release -p pollmux-bench`) measures the same paths beside the peers.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use pollmux::{Events, Reactor, Select, channel, select};

const HOUR: Duration = Duration::from_secs(3_600);

fn timers(c: &mut Criterion) {
    let reactor = Reactor::new().expect("a reactor");
    let timer = reactor.after(HOUR);
    c.bench_function("reset", |b| b.iter(|| timer.reset(black_box(HOUR))));
    let mut at = reactor.now() + HOUR;
    c.bench_function("reset_at, later", |b| {
        b.iter(|| {
            at += Duration::from_nanos(1);
            timer.reset_at(black_box(at))
        })
    });
    c.bench_function("after and drop", |b| b.iter(|| reactor.after(black_box(HOUR))));
}

fn messages(c: &mut Criterion) {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(64).expect("an open reactor");
    let (bare_tx, bare) = channel::bounded::<u64>(64);
    let heartbeat = reactor.every(HOUR).expect("a period");
    c.bench_function("send, recv", |b| {
        b.iter(|| {
            bare_tx.send(black_box(1)).expect("a receiver");
            bare.recv().expect("a message")
        })
    });
    c.bench_function("send, select!, restart", |b| {
        b.iter(|| {
            tx.send(black_box(1)).expect("a receiver");
            select! { reactor;
                recv(inbox) -> message => {
                    black_box(message.expect("a sender"));
                    heartbeat.restart();
                }
                recv(heartbeat) -> _ => unreachable!("an hour has passed"),
            }
        })
    });
    let mut events = Events::with_capacity(16);
    c.bench_function("send, wait, recv", |b| {
        b.iter(|| {
            tx.send(black_box(1)).expect("a receiver");
            reactor.wait(&mut events).expect("an open reactor");
            (events.len(), inbox.try_recv())
        })
    });
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    set.recv(&heartbeat);
    c.bench_function("send, Select, recv", |b| {
        b.iter(|| {
            tx.send(black_box(1)).expect("a receiver");
            set.wait().expect("an open reactor").recv(&inbox)
        })
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    timers(&mut criterion);
    messages(&mut criterion);
    criterion.final_summary();
}

//! One ready source among many: the cost of a turn when 2 to 10,000 channels are waited for, and
//! one has a message. Then bursts: all of them have one. crossbeam and calloop in the same run.
//!
//! `cargo bench -p pollmux-benches --bench select` (a filter may follow: `-- wait`). Gate: at most
//! 1.3 times as much among 10,000 as among 10. The messages go to one channel after the other; at
//! random, ten thousand channels show the caches more than the reactor.

mod common;

use std::time::Duration;

use calloop::EventLoop;
use calloop::channel::Event as ChannelEvent;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use pollmux::channel::Sender;
use pollmux::{Events, Inbox, Reactor, Select};

use common::shuffled;

const SIZES: [usize; 5] = [2, 10, 100, 1_000, 10_000];
/// The cases of a burst.
const BURSTS: [usize; 2] = [20, 2_000];

/// A turn: a send to one of them, and whatever finds and takes the message.
fn turns(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    order: &[usize],
    mut send: impl FnMut(usize),
    mut take: impl FnMut(usize),
) {
    let n = order.len();
    let mut next = order.iter().cycle();
    group.bench_function(BenchmarkId::new(name, n), |b| {
        b.iter(|| {
            let i = *next.next().unwrap();
            send(i);
            take(i);
        });
    });
}

fn in_turn(n: usize) -> Vec<usize> {
    (0..n).collect()
}

fn channels(reactor: &Reactor, n: usize) -> (Vec<Sender<u64>>, Vec<Inbox<u64>>) {
    (0..n)
        .map(|key| {
            let (tx, rx) = pollmux::channel::bounded(4);
            (tx, reactor.register_with(key as u64, rx).unwrap())
        })
        .unzip()
}

fn pollmux(group: &mut BenchmarkGroup<'_, WallTime>, how: &str, order: &[usize]) {
    let n = order.len();
    let reactor = Reactor::new().unwrap();
    let (senders, inboxes) = channels(&reactor, n);
    let mut events = Events::with_capacity(16);
    turns(
        group,
        &format!("pollmux wait{how}"),
        order,
        |i| senders[i].send(7).unwrap(),
        |i| {
            reactor.wait(&mut events).unwrap();
            let event = events.iter().next().unwrap();
            assert_eq!(event.key(), i as u64);
            assert_eq!(inboxes[i].try_recv(), Ok(7));
        },
    );

    let reactor = Reactor::new().unwrap();
    let (senders, inboxes) = channels(&reactor, n);
    let mut select = Select::new(&reactor);
    inboxes.iter().for_each(|inbox| _ = select.recv(inbox));
    turns(
        group,
        &format!("pollmux Select{how}"),
        order,
        |i| senders[i].send(7).unwrap(),
        |i| {
            let selected = select.wait().unwrap();
            assert_eq!(selected.index(), i);
            assert_eq!(selected.recv(&inboxes[i]), Some(Ok(7)));
        },
    );
}

fn crossbeam(group: &mut BenchmarkGroup<'_, WallTime>, n: usize) {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..n).map(|_| crossbeam_channel::bounded(4)).unzip();
    let mut select = crossbeam_channel::Select::new();
    receivers.iter().for_each(|receiver| _ = select.recv(receiver));
    turns(
        group,
        "crossbeam Select",
        &in_turn(n),
        |i| senders[i].send(7u64).unwrap(),
        |i| {
            let selected = select.select();
            assert_eq!(selected.index(), i);
            assert_eq!(selected.recv(&receivers[i]), Ok(7));
        },
    );
}

fn calloop(group: &mut BenchmarkGroup<'_, WallTime>, n: usize) {
    let mut outer = EventLoop::<u64>::try_new().unwrap();
    let senders: Vec<_> = (0..n)
        .map(|_| {
            let (tx, rx) = calloop::channel::sync_channel(4);
            let taken = outer.handle().insert_source(rx, |event, (), got| {
                if let ChannelEvent::Msg(message) = event {
                    *got += message;
                }
            });
            taken.map_err(|error| error.error).unwrap();
            tx
        })
        .collect();
    let mut got = 0;
    turns(
        group,
        "calloop",
        &in_turn(n),
        |i| senders[i].send(7u64).unwrap(),
        |_| {
            outer.dispatch(Some(Duration::ZERO), &mut got).unwrap();
            assert_eq!(std::mem::take(&mut got), 7);
        },
    );
}

/// Each of n ready cases: a send and a take.
fn burst(group: &mut BenchmarkGroup<'_, WallTime>, n: usize) {
    let reactor = Reactor::new().unwrap();
    let (senders, inboxes) = channels(&reactor, n);
    let mut select = Select::new(&reactor);
    inboxes.iter().for_each(|inbox| _ = select.recv(inbox));
    group.throughput(Throughput::Elements(n as u64));
    group.bench_function(BenchmarkId::new("pollmux Select, burst", n), |b| {
        b.iter(|| {
            senders.iter().for_each(|sender| sender.send(7).unwrap());
            for _ in 0..n {
                let selected = select.wait().unwrap();
                let index = selected.index();
                assert_eq!(selected.recv(&inboxes[index]), Some(Ok(7)));
            }
        });
    });
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..n).map(|_| crossbeam_channel::bounded(4)).unzip();
    let mut select = crossbeam_channel::Select::new();
    receivers.iter().for_each(|receiver| _ = select.recv(receiver));
    group.bench_function(BenchmarkId::new("crossbeam Select, burst", n), |b| {
        b.iter(|| {
            senders.iter().for_each(|sender| sender.send(7u64).unwrap());
            for _ in 0..n {
                let selected = select.select();
                let index = selected.index();
                assert_eq!(selected.recv(&receivers[index]), Ok(7));
            }
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = common::group(&mut criterion, "one ready among");
    for n in SIZES {
        pollmux(&mut group, "", &in_turn(n));
        pollmux(&mut group, ", at random", &shuffled(n));
        crossbeam(&mut group, n);
        if n <= 100 {
            calloop(&mut group, n); // an fd each, of which not every shell allows many
        }
    }
    group.finish();
    let mut group = common::group(&mut criterion, "all ready");
    BURSTS.into_iter().for_each(|n| burst(&mut group, n));
    group.finish();
    criterion.final_summary();
}

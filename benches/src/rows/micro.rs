//! Small operations on one thread, timed here and counted in instructions by `counted`.

use std::hint::black_box;
use std::time::Duration;

use pollmux::{Events, Reactor, Select, channel, select};

use crate::measure::{Contestant, time};
use crate::row::{Family, row};

const FAR: Duration = Duration::from_secs(3_600);
const CAPACITY: usize = 64;

/// The work, the contestant of ours, and its peers.
pub const WORKS: [(&str, &str, &str, &[&str]); 6] = [
    (
        "send+recv",
        "A send and a receive on one thread, capacity 64.",
        "pollmux",
        &["crossfire", "crossbeam", "flume", "kanal", "std"],
    ),
    (
        "unbounded",
        "The same with an unbounded channel.",
        "pollmux unbounded",
        &["crossfire unbounded", "crossbeam unbounded"],
    ),
    (
        "select!",
        "A send and a `select!` of an inbox and a live ticker.",
        "pollmux select!",
        &["crossbeam select! + tick"],
    ),
    ("reset", "`Timer::reset`, one live timer.", "pollmux reset", &[]),
    (
        "wait",
        "A send, a `wait` of two channels, and a receive.",
        "pollmux wait",
        &["crossbeam Select"],
    ),
    (
        "Select",
        "A send, a `Select` of two channels, and a receive.",
        "pollmux Select",
        &["crossbeam Select"],
    ),
];

pub fn families() -> Vec<Family> {
    let rows =
        WORKS.map(|(work, about, ours, peers)| row(format!("ops/{work}"), about, ours, peers));
    vec![Family::new(|_| contestants(), rows)]
}

/// A send and a receive on the ends of a channel.
macro_rules! send_and_receive {
    ($name:literal, $make:expr) => {{
        let (tx, rx) = $make;
        Contestant::ops($name, move || {
            tx.send(black_box(1)).expect("a receiver");
            black_box(rx.recv().expect("a sender"));
        })
    }};
}

pub fn contestants() -> Vec<Contestant> {
    vec![
        send_and_receive!("pollmux", channel::bounded::<u64>(CAPACITY)),
        send_and_receive!("crossfire", crossfire::mpsc::bounded_blocking::<u64>(CAPACITY)),
        send_and_receive!("crossbeam", crossbeam_channel::bounded::<u64>(CAPACITY)),
        send_and_receive!("flume", flume::bounded::<u64>(CAPACITY)),
        send_and_receive!("kanal", kanal::bounded::<u64>(CAPACITY)),
        send_and_receive!("std", std::sync::mpsc::sync_channel::<u64>(CAPACITY)),
        send_and_receive!("pollmux unbounded", channel::unbounded::<u64>()),
        send_and_receive!("crossfire unbounded", crossfire::mpsc::unbounded_blocking::<u64>()),
        send_and_receive!("crossbeam unbounded", crossbeam_channel::unbounded::<u64>()),
        pollmux_select(),
        crossbeam_select(),
        reset(),
        wait(),
        set(),
        crossbeam_set(),
    ]
}

fn pollmux_select() -> Contestant {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    let ticker = reactor.every(FAR).expect("a period");
    let handle = reactor.handle();
    Contestant::on("pollmux select!", &handle, move || {
        tx.send(black_box(1)).expect("a receiver");
        select! { reactor;
            recv(inbox) -> n => { black_box(n.expect("a sender")); },
            recv(ticker) -> _ => {},
        }
    })
}

fn crossbeam_select() -> Contestant {
    let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
    let ticker = crossbeam_channel::tick(FAR);
    Contestant::ops("crossbeam select! + tick", move || {
        tx.send(black_box(1)).expect("a receiver");
        crossbeam_channel::select! {
            recv(rx) -> n => { black_box(n.expect("a sender")); },
            recv(ticker) -> _ => {},
        }
    })
}

fn reset() -> Contestant {
    let reactor = Reactor::new().expect("a reactor");
    let timer = reactor.after(FAR);
    let handle = reactor.handle();
    Contestant::on("pollmux reset", &handle, move || {
        let _open = &reactor;
        black_box(timer.reset(black_box(FAR)));
    })
}

fn wait() -> Contestant {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    let (tx_too, inbox_too) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    let mut events = Events::with_capacity(16);
    let handle = reactor.handle();
    Contestant::on("pollmux wait", &handle, move || {
        let _open = (&tx_too, &inbox_too);
        tx.send(black_box(1)).expect("a receiver");
        reactor.wait(&mut events).expect("a wait");
        assert_eq!(events.len(), 1);
        black_box(inbox.try_recv().expect("a message"));
    })
}

fn set() -> Contestant {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    let (_tx, other) = reactor.channel::<u64>(CAPACITY).expect("a channel");
    Contestant::new("pollmux Select", move |run| {
        let mut select = Select::new(&reactor);
        let _open = &_tx;
        let first = select.recv(&inbox);
        select.recv(&other);
        time(run, || {
            tx.send(black_box(1)).expect("a receiver");
            let selected = select.wait().expect("a wait");
            assert_eq!(selected.index(), first);
            black_box(selected.recv(&inbox).expect("a message").expect("a sender"));
        })
    })
}

fn crossbeam_set() -> Contestant {
    let (tx, rx) = crossbeam_channel::bounded::<u64>(CAPACITY);
    let (_tx, other) = crossbeam_channel::bounded::<u64>(CAPACITY);
    Contestant::new("crossbeam Select", move |run| {
        let mut select = crossbeam_channel::Select::new();
        let _open = &_tx;
        let first = select.recv(&rx);
        select.recv(&other);
        time(run, || {
            tx.send(black_box(1)).expect("a receiver");
            let selected = select.select();
            assert_eq!(selected.index(), first);
            black_box(selected.recv(&rx).expect("a sender"));
        })
    })
}

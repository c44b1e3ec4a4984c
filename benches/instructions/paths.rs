//! The counted hot paths. Each function makes its sources, and then runs `turns` turns.

use std::cell::Cell;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::{self, Sender};
use pollmux::reactor::Spin;
use pollmux::sys::Interest;
use pollmux::{Events, Inbox, Reactor, Select, Ticker, select};

pub type Run = fn(u32);

/// The paths: name, turns of the longer run, and function.
pub const PATHS: [(&str, u32, Run); 20] = [
    ("send", 12_000, send),
    ("recv", 12_000, recv),
    ("send_recv", 12_000, send_and_recv),
    ("unbounded", 12_000, unbounded),
    ("select", 12_000, select_turn),
    ("select_restart", 12_000, select_and_restart),
    ("select_default", 12_000, select_with_default),
    ("reset", 12_000, reset),
    ("reset_at", 12_000, reset_at),
    ("restart", 12_000, restart),
    ("at", 12_000, at),
    ("call_at", 12_000, call_at),
    ("wait", 12_000, wait),
    ("wait_64", 12_000, wait_for_many),
    ("Select", 12_000, set),
    ("Select_64", 12_000, set_of_many),
    ("Select_burst", 12_000, burst),
    ("fd", 4_000, ready_fd),
    ("post", 12_000, post),
    ("tick", 600, tick),
];

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a reactor that never spins, and always makes the same choices.
fn reactor() -> Reactor {
    let reactor = Reactor::builder().spin(Spin::Off).build().expect("a reactor");
    reactor.seed(1);
    reactor
}

/// Returns a reactor with a channel, and a ticker that never ticks.
fn two_sources() -> (Reactor, Sender<u64>, Inbox<u64>, Ticker) {
    let reactor = reactor();
    let (tx, inbox) = reactor.channel(64).expect("a channel");
    let ticker = reactor.every(HOUR).expect("a period");
    (reactor, tx, inbox, ticker)
}

fn many(reactor: &Reactor, n: usize) -> Vec<(Sender<u64>, Inbox<u64>)> {
    (0..n).map(|_| reactor.channel(4).expect("a channel")).collect()
}

/// Returns an index from 0 to n - 1, in an order other than that of memory.
fn scattered(turn: u32, n: usize) -> usize {
    turn as usize * 7 % n
}

const ROOM: usize = 1 << 14;

fn send(turns: u32) {
    let (tx, rx) = channel::bounded(ROOM);
    (0..u64::from(turns)).for_each(|n| tx.send(black_box(n)).expect("room"));
    mem::forget((tx, rx)); // dropping the messages would be counted, too
}

fn recv(turns: u32) {
    let (tx, rx) = channel::bounded(ROOM);
    (0..ROOM as u64).for_each(|n| tx.send(n).expect("room"));
    (0..turns).for_each(|_| _ = black_box(rx.recv()));
    mem::forget((tx, rx));
}

fn send_and_recv(turns: u32) {
    let (tx, rx) = channel::bounded(64);
    for n in 0..u64::from(turns) {
        tx.send(black_box(n)).expect("a receiver");
        _ = black_box(rx.recv());
    }
}

fn unbounded(turns: u32) {
    let (tx, rx) = channel::unbounded();
    for n in 0..u64::from(turns) {
        tx.send(black_box(n)).expect("a receiver");
        _ = black_box(rx.recv());
    }
}

fn select_turn(turns: u32) {
    let (reactor, tx, inbox, ticker) = two_sources();
    for n in 0..u64::from(turns) {
        tx.send(black_box(n)).expect("a receiver");
        select! { reactor;
            recv(inbox) -> message => _ = black_box(message),
            recv(ticker) -> _ => unreachable!(),
        }
    }
}

fn select_and_restart(turns: u32) {
    let (reactor, tx, inbox, ticker) = two_sources();
    for n in 0..u64::from(turns) {
        tx.send(black_box(n)).expect("a receiver");
        select! { reactor;
            recv(inbox) -> message => {
                _ = black_box(message);
                ticker.restart();
            },
            recv(ticker) -> _ => unreachable!(),
        }
    }
}

fn select_with_default(turns: u32) {
    let (reactor, _tx, inbox, ticker) = two_sources();
    for n in 0..turns {
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            recv(ticker) -> _ => unreachable!(),
            default => _ = black_box(n),
        }
    }
}

fn reset(turns: u32) {
    let reactor = reactor();
    let timer = reactor.after(HOUR);
    (0..turns).for_each(|_| _ = black_box(timer.reset(black_box(HOUR))));
}

fn reset_at(turns: u32) {
    let reactor = reactor();
    let timer = reactor.after(HOUR);
    let due = reactor.now() + HOUR;
    for n in 0..turns {
        _ = black_box(timer.reset_at(black_box(due + Duration::from_nanos(n.into()))));
    }
}

fn restart(turns: u32) {
    let reactor = reactor();
    let ticker = reactor.every(HOUR).expect("a period");
    (0..turns).for_each(|_| _ = black_box(ticker.restart()));
}

/// Starts a thousand timers in the order of their deadlines, and drops them, again and again.
fn at(turns: u32) {
    let reactor = reactor();
    let due = reactor.now() + HOUR;
    let mut timers = Vec::with_capacity(1_000);
    for n in 0..turns {
        if timers.len() == timers.capacity() {
            timers.clear();
        }
        timers.push(reactor.at(black_box(due + Duration::from_nanos(n.into()))));
    }
}

fn call_at(turns: u32) {
    let reactor = reactor();
    let due = reactor.now() + HOUR;
    let calls = Rc::new(Cell::new(0));
    let mut callbacks = Vec::with_capacity(1_000);
    for n in 0..turns {
        if callbacks.len() == callbacks.capacity() {
            callbacks.clear();
        }
        let (at, calls) = (black_box(due + Duration::from_nanos(n.into())), calls.clone());
        callbacks.push(reactor.call_at(at, move |_| calls.set(calls.get() + 1)));
    }
}

fn wait(turns: u32) {
    let (reactor, tx, inbox, _ticker) = two_sources();
    let mut events = Events::with_capacity(16);
    for n in 0..u64::from(turns) {
        tx.send(n).expect("a receiver");
        reactor.wait(&mut events).expect("a wait");
        for event in &events {
            _ = black_box(event.key());
        }
        _ = black_box(inbox.try_recv());
    }
}

fn wait_for_many(turns: u32) {
    let reactor = reactor();
    let ends: Vec<_> = (0..64)
        .map(|key| {
            let (tx, rx) = channel::bounded(4);
            (tx, reactor.register_with(key, rx).expect("an inbox"))
        })
        .collect();
    let mut events = Events::with_capacity(16);
    for n in 0..turns {
        ends[scattered(n, 64)].0.send(n).expect("a receiver");
        reactor.wait(&mut events).expect("a wait");
        for event in &events {
            _ = black_box(ends[event.key() as usize].1.try_recv());
        }
    }
}

fn set(turns: u32) {
    let (reactor, tx, inbox, ticker) = two_sources();
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    set.recv(&ticker);
    for n in 0..u64::from(turns) {
        tx.send(n).expect("a receiver");
        let chosen = set.wait().expect("a case");
        _ = black_box(chosen.recv(&inbox));
    }
}

fn set_of_many(turns: u32) {
    let reactor = reactor();
    let ends = many(&reactor, 64);
    let mut set = Select::new(&reactor);
    ends.iter().for_each(|(_, inbox)| _ = set.recv(inbox));
    for n in 0..turns {
        ends[scattered(n, 64)].0.send(n.into()).expect("a receiver");
        let chosen = set.wait().expect("a case");
        let index = chosen.index();
        _ = black_box(chosen.recv(&ends[index].1));
    }
}

/// Handles bursts of 400 ready cases.
fn burst(turns: u32) {
    let reactor = reactor();
    let ends = many(&reactor, 400);
    let mut set = Select::new(&reactor);
    ends.iter().for_each(|(_, inbox)| _ = set.recv(inbox));
    for n in 0..turns / 400 {
        ends.iter().for_each(|(tx, _)| tx.send(n.into()).expect("a receiver"));
        for _ in &ends {
            let chosen = set.wait().expect("a case");
            let index = chosen.index();
            _ = black_box(chosen.recv(&ends[index].1));
        }
    }
}

/// Sends a byte through a socket, beside a ticker. The writes and reads are counted, too.
fn ready_fd(turns: u32) {
    let reactor = reactor();
    let (mut peer, socket) = UnixStream::pair().expect("two sockets");
    let socket = reactor.fd_nonblocking(socket, Interest::READABLE).expect("an fd");
    let ticker = reactor.every(HOUR).expect("a period");
    for _ in 0..turns {
        peer.write_all(&[1]).expect("room");
        select! { reactor;
            recv(socket) -> readiness => _ = black_box(readiness),
            recv(ticker) -> _ => unreachable!(),
        }
        let mut bytes = [0; 16];
        while let Ok(n) = socket.try_io(|mut socket| socket.read(&mut bytes)) {
            _ = black_box(n);
        }
    }
    let ended = socket.try_io(|mut socket| socket.read(&mut [0])).expect_err("no byte is left");
    assert_eq!(ended.kind(), ErrorKind::WouldBlock);
}

/// Posts a closure, and takes the turn that runs it.
fn post(turns: u32) {
    let reactor = reactor();
    let remote = reactor.remote();
    let (_tx, inbox) = reactor.channel::<u64>(4).expect("a channel");
    for _ in 0..turns {
        remote.post(|handle| _ = black_box(handle.is_closed())).expect("a reactor");
        select! { reactor;
            recv(inbox) -> _ => unreachable!(),
            default(Duration::ZERO) => {},
        }
    }
}

/// Sleeps until a tick.
fn tick(turns: u32) {
    let reactor = reactor();
    let ticker = reactor.every(Duration::from_millis(2)).expect("a period");
    for _ in 0..turns {
        select! { reactor; recv(ticker) -> tick => _ = black_box(tick) }
        ticker.restart();
    }
}

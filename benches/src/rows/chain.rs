//! A byte that goes round n socket pairs, as in the benchmark of libevent and libev. Each event
//! reads the byte, writes it on to the next pair, and re-arms the pair's timer.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pollmux::sys::{Interest, Readiness};
use pollmux::{Events, Fd, Reactor, Timer};

use crate::measure::{Contestant, time};
use crate::native::{self, IN_C};
use crate::raw;
use crate::row::{Bound, Family, row};

pub const PAIRS: usize = 1_000;
/// The timeout of the pairs' timers, which never fire.
const TIMEOUT: Duration = Duration::from_secs(10);
const WITHOUT: [&str; 3] = ["raw epoll", "mio", "polling"];

pub fn families() -> Vec<Family> {
    let peers = IN_C.map(|peer| peer.name());
    vec![
        Family::new(
            |_| contestants(),
            [
                row(
                    "chain/timers/1000",
                    "A byte goes round 1,000 socket pairs; each event re-arms the pair's timer.",
                    "pollmux with timers",
                    &peers,
                )
                .beside(&["raw epoll"]),
                row(
                    "chain/fds/1000",
                    "The same without timers.",
                    "pollmux without timers",
                    &WITHOUT,
                )
                .goal(Bound::Ratio(1.0 / 1.03)),
            ],
        )
        .slices((15, 40), (25, 61)),
    ]
}

fn contestants() -> Vec<Contestant> {
    if !raw::allow_fds(6 * PAIRS as u64 * 2 + 200) {
        let all = ["pollmux with timers", "pollmux without timers", "raw epoll", "mio", "polling"];
        return vec![Contestant::absent(&all, "the limit of open files is too low")];
    }
    let mut all = vec![pollmux(true), pollmux(false), raw_epoll(), mio(), polling()];
    let in_c = IN_C.map(|peer| native::contestant(peer, &[peer.name()], "chain", PAIRS));
    all.extend(in_c);
    all
}

fn pairs() -> (Vec<UnixStream>, Vec<UnixStream>) {
    let pair = |_| {
        let (a, b) = UnixStream::pair().expect("a pair of sockets");
        a.set_nonblocking(true).expect("an open socket");
        b.set_nonblocking(true).expect("an open socket");
        (a, b)
    };
    (0..PAIRS).map(pair).unzip()
}

fn next(i: usize) -> usize {
    if i + 1 == PAIRS { 0 } else { i + 1 }
}

/// Sends the bytes before the first event.
fn push(out: &[UnixStream]) {
    (&out[0]).write_all(b"x").expect("room for a byte");
}

pub fn pollmux(with_timers: bool) -> Contestant {
    let name = if with_timers { "pollmux with timers" } else { "pollmux without timers" };
    let reactor = Reactor::new().expect("a reactor");
    let (ins, outs) = pairs();
    let fds: Vec<Fd<UnixStream>> = (0..)
        .zip(ins)
        .map(|(key, io)| reactor.fd(io, Interest::READABLE).expect("a file").with_key(key))
        .collect();
    let timers: Vec<Timer> = match with_timers {
        true => (0..PAIRS).map(|_| reactor.after(TIMEOUT)).collect(),
        false => Vec::new(),
    };
    push(&outs);
    let mut events = Events::with_capacity(64);
    let handle = reactor.handle();
    Contestant::on(name, &handle, move || {
        reactor.wait(&mut events).expect("a wait");
        for event in &events {
            let i = event.key() as usize;
            let mut byte = [0; 1];
            fds[i].try_io(|mut io| io.read(&mut byte)).expect("a byte");
            // There can be one byte only: a later byte is a new event.
            fds[i].clear_readiness(Readiness::READABLE);
            (&outs[next(i)]).write_all(&byte).expect("room for a byte");
            if with_timers {
                timers[i].reset(TIMEOUT);
            }
        }
    })
}

pub fn raw_epoll() -> Contestant {
    let epoll = raw::epoll();
    let (ins, outs) = pairs();
    for (i, io) in ins.iter().enumerate() {
        assert_eq!(raw::add_number(&epoll, io.as_raw_fd(), raw::EDGE, i as u64), 0);
    }
    push(&outs);
    let mut events = [raw::Event { events: 0, u64: 0 }; 64];
    Contestant::ops("raw epoll", move || {
        let found = raw::wait(&epoll, &mut events, -1);
        for event in &events[..found.max(0) as usize] {
            let i = event.u64 as usize;
            let mut byte = [0; 1];
            (&ins[i]).read_exact(&mut byte).expect("a byte");
            (&outs[next(i)]).write_all(&byte).expect("room for a byte");
        }
    })
}

fn mio() -> Contestant {
    use mio::{Interest, Token, unix::SourceFd};
    let mut poll = mio::Poll::new().expect("a poll");
    let (ins, outs) = pairs();
    for (i, io) in ins.iter().enumerate() {
        let fd = io.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(i), Interest::READABLE).expect("a file");
    }
    push(&outs);
    let mut events = mio::Events::with_capacity(64);
    Contestant::ops("mio", move || {
        poll.poll(&mut events, None).expect("a wait");
        for event in &events {
            let i = event.token().0;
            let mut byte = [0; 1];
            (&ins[i]).read_exact(&mut byte).expect("a byte");
            (&outs[next(i)]).write_all(&byte).expect("room for a byte");
        }
    })
}

fn polling() -> Contestant {
    use polling::{Event, PollMode, Poller};
    let poller = Poller::new().expect("a poller");
    let (ins, outs) = pairs();
    Contestant::new("polling", move |run| {
        for (i, io) in ins.iter().enumerate() {
            raw::polling_add(&poller, io, Event::readable(i), PollMode::Edge);
        }
        push(&outs);
        let mut events = polling::Events::new();
        let sample = time(run, || {
            events.clear();
            poller.wait(&mut events, None).expect("a wait");
            for event in events.iter() {
                let i = event.key;
                let mut byte = [0; 1];
                (&ins[i]).read_exact(&mut byte).expect("a byte");
                (&outs[next(i)]).write_all(&byte).expect("room for a byte");
            }
        });
        // A byte may be in any pair. The pairs are read empty before the files go.
        for io in &ins {
            poller.delete(io).expect("a registration");
            let _ = (&mut &*io).read(&mut [0; 8]);
        }
        sample
    })
}

//! Uses mio's sources in the reactor's loop: the reverse of `embed_mio.rs`. `select!` waits through
//! the `mio::Poll`, and the events of the `Poll` are a source of the reactor.
//!
//! `cargo run --release -p pollmux-examples --example on_mio`

#[path = "../common/embedding.rs"]
mod embedding;

use std::io::{self, Read, Write};
use std::time::Instant;

use embedding::{Report, Work};
use mio::net::UnixStream;
use mio::{Interest, Poll, Token};
use pollmux::{Reactor, Source, driver::MioDriver, select};

/// The reactor's token in the `Poll`. No other source may use this token.
const REACTOR: Token = Token(0);
const SOCKET: Token = Token(1);

/// Runs `rounds` rounds, and returns a report of their costs.
pub fn run(rounds: u32) -> io::Result<Report> {
    let driver = MioDriver::new(Poll::new()?, REACTOR)?;
    let (registry, events) = (driver.registry()?, driver.events());
    let reactor = Reactor::with_driver(driver)?;
    let events = reactor.register(events)?;

    // Another thread writes to a source of mio. The other sources belong to the reactor.
    let (mut theirs, mut socket) = UnixStream::pair()?;
    registry.register(&mut socket, SOCKET, Interest::READABLE)?;
    let (asks, asked) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        asked.iter().for_each(|()| theirs.write_all(b"mio's").expect("the loop reads"));
    });
    let (tx, inbox) = reactor.channel::<u32>(1)?;
    let timer = reactor.timer();

    let begun = Instant::now();
    let mut late = std::time::Duration::ZERO;
    for round in 0..rounds {
        // The events come one after the other, so no event can hide a lost wake-up.
        asks.send(()).expect("the other thread runs");
        select! { reactor;
            recv(events) -> event => {
                assert!(event.token() == SOCKET && event.is_readable());
                let mut text = [0; 8];
                assert_eq!(socket.read(&mut text)?, 5);
                assert_eq!(socket.read(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            },
            recv(inbox) -> _ => unreachable!(),
            recv(timer) -> _ => unreachable!(),
        }
        timer.reset(std::time::Duration::from_micros(20));
        select! { reactor;
            recv(timer) -> due => late += reactor.now() - due,
            recv(events) -> event => unreachable!("{event:?}"),
        }
        tx.send(round).expect("a receiver");
        select! { reactor;
            recv(inbox) -> got => assert_eq!(got, Ok(round)),
            recv(events) -> event => unreachable!("{event:?}"),
        }
    }
    drop(asks);
    other.join().expect("no panic");
    let stats = reactor.stats();
    assert!(stats.waits <= 3 * u64::from(rounds) + 10, "the loop spins: {stats}");
    let report =
        Report { rounds, wakeups: stats.waits, took: begun.elapsed(), late: late / rounds.max(1) };

    // The peer has closed the socket.
    select! { reactor; recv(events) -> event => assert!(event.is_read_closed()) }
    let _ = events.try_take();
    // Run the work of the embedding examples on the same driver.
    let mut work = Work::begin(reactor, rounds)?;
    let mut found = pollmux::Events::with_capacity(4);
    while !work.is_over() {
        work.reactor.wait(&mut found)?;
        work.take()?;
    }
    work.end(None, 0)?;
    Ok(report)
}

fn main() -> io::Result<()> {
    run(1_000)?.print();
    Ok(())
}

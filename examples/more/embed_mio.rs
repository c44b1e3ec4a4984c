//! Embeds the reactor in a loop on mio as one of mio's sources.
//!
//! mio is edge-triggered, which works: the loop answers each event by a turn, and work that a turn
//! leaves undone causes another event.
//!
//! `cargo run --release -p pollmux-examples --example embed_mio`

#[path = "../common/embedding.rs"]
mod embedding;

use std::io;
use std::time::Duration;

use embedding::{Report, Work};
use mio::{Events, Interest, Poll, Token};
use pollmux::Reactor;

const REACTOR: Token = Token(7);

/// Runs `rounds` rounds, and returns a report of their costs.
pub fn run(rounds: u32) -> io::Result<Report> {
    let reactor = Reactor::new()?;
    let mut embedded = reactor.embed()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut embedded, REACTOR, Interest::READABLE)?;

    let mut events = Events::with_capacity(16);
    let mut work = Work::begin(reactor, rounds)?;
    let mut wakeups = 0;
    while !work.is_over() {
        poll.poll(&mut events, None)?;
        for event in &events {
            assert_eq!(event.token(), REACTOR);
            wakeups += 1;
            embedded.turn()?;
            work.take()?;
        }
    }
    let report = work.end(Some(&embedded), wakeups)?;

    // An idle reactor causes no event. The first poll takes an edge that was already there.
    poll.poll(&mut events, Some(Duration::ZERO))?;
    poll.poll(&mut events, Some(Duration::from_millis(5)))?;
    assert!(events.is_empty());
    poll.registry().deregister(&mut embedded)?;
    Ok(report)
}

fn main() -> io::Result<()> {
    run(1_000)?.print();
    Ok(())
}

//! Embeds the reactor in a loop on polling as one of its fds.
//!
//! `cargo run --release -p pollmux-examples --example embed_polling`

#[path = "../common/embedding.rs"]
mod embedding;

use std::io;
use std::time::Duration;

use embedding::{Report, Work};
use polling::{Event, Events, PollMode, Poller};
use pollmux::Reactor;

const REACTOR: usize = 7;

/// Runs `rounds` rounds, and returns a report of their costs.
#[allow(unsafe_code)]
pub fn run(rounds: u32) -> io::Result<Report> {
    let reactor = Reactor::new()?;
    let embedded = reactor.embed()?;
    let poller = Poller::new()?;
    // SAFETY: the fd is deleted from the poller below. On an error the poller, which is declared
    // later, is closed before the fd.
    unsafe { poller.add_with_mode(&embedded, Event::readable(REACTOR), PollMode::Level)? };

    let mut events = Events::new();
    let mut work = Work::begin(reactor, rounds)?;
    let mut wakeups = 0;
    while !work.is_over() {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            assert_eq!(event.key, REACTOR);
            wakeups += 1;
            embedded.turn()?;
            work.take()?;
        }
    }
    let report = work.end(Some(&embedded), wakeups)?;

    // An idle reactor causes no event.
    events.clear();
    poller.wait(&mut events, Some(Duration::from_millis(5)))?;
    assert!(events.is_empty());
    poller.delete(&embedded)?;
    Ok(report)
}

fn main() -> io::Result<()> {
    run(1_000)?.print();
    Ok(())
}

//! Embeds the reactor in calloop. A `Generic` source has the reactor's fd, and its callback runs a
//! turn.
//!
//! `cargo run --release -p pollmux-examples --example embed_calloop`

#[path = "../common/embedding.rs"]
mod embedding;

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use calloop::generic::Generic;
use calloop::{EventLoop, Interest, Mode, PostAction};
use embedding::{Report, Work};
use pollmux::{Embedded, Reactor};

struct State {
    embedded: Embedded,
    work: Work,
    wakeups: u64,
}

/// Runs `rounds` rounds, and returns a report of their costs.
pub fn run(rounds: u32) -> io::Result<Report> {
    let reactor = Reactor::new()?;
    let embedded = reactor.embed()?;
    let mut event_loop = EventLoop::<State>::try_new()?;
    // The source gets a duplicate fd, because the embedding is a part of the loop's state.
    let source = Generic::new(embedded.as_fd().try_clone_to_owned()?, Interest::READ, Mode::Level);
    let token = event_loop
        .handle()
        .insert_source(source, |_readiness, _fd, state| {
            state.wakeups += 1;
            state.embedded.turn()?;
            state.work.take()?;
            Ok(PostAction::Continue)
        })
        .map_err(|error| io::Error::other(error.to_string()))?;

    let mut state = State { embedded, work: Work::begin(reactor, rounds)?, wakeups: 0 };
    while !state.work.is_over() {
        event_loop.dispatch(None, &mut state)?;
    }
    let State { embedded, work, wakeups } = state;
    event_loop.handle().remove(token);
    work.end(Some(&embedded), wakeups)
}

fn main() -> io::Result<()> {
    run(1_000)?.print();
    // A loop without sources returns after its timeout.
    EventLoop::<()>::try_new()?.dispatch(Duration::from_millis(1), &mut ())?;
    Ok(())
}

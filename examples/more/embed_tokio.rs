//! Embeds the reactor in tokio by an `AsyncFd`. The runtime has one thread, because a reactor stays
//! on its thread.
//!
//! `cargo run --release -p pollmux-examples --example embed_tokio`

#[path = "../common/embedding.rs"]
mod embedding;

use std::io;
use std::time::Duration;

use embedding::{Report, Work};
use pollmux::Reactor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Runs `rounds` rounds, and returns a report of their costs.
pub fn run(rounds: u32) -> io::Result<Report> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?
        .block_on(work(rounds))
}

async fn work(rounds: u32) -> io::Result<Report> {
    let reactor = Reactor::new()?;
    // The newest tokio has an `unsafe` function in its place. Its condition holds here: the
    // embedding owns the fd for its whole life.
    #[allow(deprecated)]
    let embedded = AsyncFd::with_interest(reactor.embed()?, Interest::READABLE)?;
    let mut work = Work::begin(reactor, rounds)?;
    let mut wakeups = 0;
    while !work.is_over() {
        let mut guard = embedded.readable().await?;
        wakeups += 1;
        // Clear before the turn: work that the turn leaves undone makes the fd ready again.
        guard.clear_ready();
        guard.get_inner().turn()?;
        work.take()?;
    }
    let report = work.end(Some(embedded.get_ref()), wakeups)?;

    // An idle reactor causes no event. The first wait takes an edge that was already there.
    let short = Duration::from_millis(5);
    if let Ok(guard) = tokio::time::timeout(short, embedded.readable()).await {
        guard?.clear_ready();
    }
    assert!(tokio::time::timeout(short, embedded.readable()).await.is_err());
    Ok(report)
}

fn main() -> io::Result<()> {
    run(1_000)?.print();
    Ok(())
}

//! A heartbeat that every event puts off: it fires when no event has come for an interval. The
//! crate was written for this loop.
//!
//! `cargo run --release --example heartbeat` prints these lines, each at its time:
//! ```text
//!    200 ms  event
//!    600 ms  event
//!   1600 ms  heartbeat
//!   2600 ms  heartbeat
//! ```
//! The events come from another thread. `--help` lists the options.

#[path = "common/duration.rs"]
mod duration;

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, Command, value_parser};
use duration::duration;
use pollmux::{Reactor, Time, channel, select};

struct Args {
    interval: Duration,
    events: Vec<Duration>,
    beats: u64,
}

impl Args {
    fn parse() -> Args {
        let interval =
            Arg::new("interval").long("interval").value_parser(duration).default_value("1s");
        let events = Arg::new("events").long("events").value_parser(duration).value_delimiter(',');
        let beats = Arg::new("beats").long("beats").value_parser(value_parser!(u64).range(1..));
        let found =
            Command::new("heartbeat").about("A heartbeat that every event puts off").args([
                interval.help("Heartbeat after this long without an event"),
                events.default_value("200ms,600ms").help("Times of the events, from the start"),
                beats.default_value("2").help("Stop after this many heartbeats"),
            ]);
        let mut found = found.get_matches();
        Args {
            interval: found.remove_one("interval").unwrap(),
            events: found.remove_many("events").unwrap().collect(),
            beats: found.remove_one("beats").unwrap(),
        }
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let reactor = Reactor::new()?;
    let (events, inbox) = reactor.channel::<()>(64)?;
    let heartbeat = reactor.every(args.interval).unwrap_or_else(|error| {
        eprintln!("error: --interval: {error}");
        std::process::exit(2);
    });
    let start = Instant::now();
    let mut times = args.events;
    times.sort_unstable();
    thread::spawn(move || {
        for at in times {
            thread::sleep(at.saturating_sub(start.elapsed()));
            if events.send(()).is_err() {
                break;
            }
        }
    });

    let mut inbox = Some(inbox);
    let mut beats = 0;
    while beats < args.beats {
        select! { reactor;
            recv(inbox) -> event => match event {
                Ok(()) => {
                    heartbeat.restart();
                    line(start, "event")?;
                }
                // The senders are gone. A case of `None` is never ready.
                Err(channel::RecvError) => inbox = None,
            },
            recv(heartbeat) -> _tick => {
                beats += 1;
                line(start, "heartbeat")?;
            }
        }
    }
    Ok(())
}

fn line(start: Instant, what: &str) -> io::Result<()> {
    let since = Time::now() - Time::from(start);
    let mut out = io::stdout().lock();
    writeln!(out, "{:>6} ms  {what}", since.as_millis())?;
    out.flush()
}

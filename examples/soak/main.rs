//! Runs all kinds of sources in one loop for a given time, and checks their invariants.
//!
//! `cargo run --release --example soak -- --seconds 60` uses real time. The loop has channels of
//! every flavour, timers, tickers, callbacks, contexts, sockets, signals and child processes. Other
//! threads post closures and send requests. Short-lived channels and a second reactor take part,
//! too. The program prints a line each second and a verdict, and fails if an invariant was
//! violated. `parts/` has a file for each kind, which states the invariants.
//!
//! No check depends on the speed of the machine: the program only prints lateness.

#[path = "../common/mod.rs"]
mod common;
mod meter;
mod parts;
mod run;

use std::io::{self, Write};
use std::process::{self, ExitCode};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, value_parser};
use meter::{Held, Lateness, Meter};
use parts::{Keys, Part};
use pollmux::{Events, Reactor, Source};
use run::{LIMIT, Run};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

struct Args {
    seconds: u64,
    seed: u64,
}

impl Args {
    fn parse() -> Args {
        let seconds =
            Arg::new("seconds").long("seconds").value_parser(value_parser!(u64).range(1..));
        let seed = Arg::new("seed").long("seed").value_parser(value_parser!(u64));
        let about = "Runs all kinds of sources in one loop, and checks their invariants";
        let mut found = clap::Command::new("soak")
            .about(about)
            .args([
                seconds.default_value("60").help("The time in which the parts start new work"),
                seed.default_value("1").help("The seed of all random choices"),
            ])
            .get_matches();
        Args {
            seconds: found.remove_one("seconds").unwrap(),
            seed: found.remove_one("seed").unwrap(),
        }
    }
}

/// The interval at which the parts start new work.
const INTERVAL: Duration = Duration::from_millis(5);
/// The keys of the loop's own sources.
const OWN: Keys = Keys(usize::MAX >> 32);

fn main() -> io::Result<ExitCode> {
    let Args { seconds, seed } = Args::parse();
    let run = Run::new(seed);
    println!("soak: {seconds} s, seed {seed}");
    io::stdout().flush()?;
    // The first thread makes the standard library allocate memory that remains allocated.
    thread::spawn(|| {}).join().expect("an empty thread");
    let meter = Meter::new();
    let late = Rc::new(Lateness::default());
    let (counts, most) = soak(&run, Duration::from_secs(seconds), meter, &late)?;

    let quantile = |share| late.quantile(share);
    println!(
        "late: half within {:?}, 99 % within {:?}, 99.9 % within {:?}, all within {:?}",
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0)
    );
    println!("at most: {most}");
    let counts = counts.join(", ");
    Ok(match run.violations() {
        0 => {
            println!("soak: ok after {:.0} s, seed {seed}: {counts}", run.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        violations => {
            println!("soak: FAILED with {violations} violations, seed {seed}: {counts}");
            ExitCode::FAILURE
        }
    })
}

/// Runs the loop. Returns the counts of the parts, and the most resources that the process held.
fn soak(
    run: &Run,
    length: Duration,
    mut meter: Meter,
    late: &Rc<Lateness>,
) -> io::Result<(Vec<String>, Held)> {
    let reactor = Reactor::new()?;
    let turns = start_watchdog(run);
    let mut parts = parts::all(&reactor, run, late)?;
    let (interval, second) = (OWN.key(0), OWN.key(1));
    let interval = reactor.every(INTERVAL)?.with_key(interval);
    let second = reactor.every(Duration::from_secs(1))?.with_key(second);
    let warm = (length / 4).clamp(Duration::from_secs(1), Duration::from_secs(10));
    let mut events = Events::with_capacity(64);
    let mut ended: Option<Instant> = None;
    loop {
        turns.fetch_add(1, Ordering::Relaxed);
        reactor.wait(&mut events)?;
        for event in &events {
            let (part, index) = Keys::split(event.key());
            match parts.get_mut(part) {
                Some(part) => part.handle(&reactor, index)?,
                None if index == 0 => {
                    interval.try_take();
                    parts.iter_mut().try_for_each(|part| part.start_work(&reactor))?;
                }
                None => {
                    second.try_take();
                    parts.iter_mut().try_for_each(|part| part.check(&reactor))?;
                    print_progress(run, &parts, meter.read(run, run.elapsed() > warm), late)?;
                }
            }
        }
        match ended {
            None if run.elapsed() >= length => {
                run.end();
                ended = Some(Instant::now());
            }
            Some(ended) => {
                let missing: Vec<_> = parts.iter().filter_map(|part| part.missing()).collect();
                // After a violation a message may be lost, so the limit is shorter.
                let limit = if run.violations() == 0 { 2 * LIMIT } else { LIMIT / 6 };
                let is_too_late = ended.elapsed() > limit;
                run.check(!is_too_late, || format!("missing at the end: {}", missing.join("; ")));
                if missing.is_empty() || is_too_late {
                    break;
                }
            }
            None => {}
        }
    }
    parts.iter_mut().try_for_each(|part| part.check(&reactor))?;
    let spinning = reactor.stats().spinning;
    run.check(spinning == 0, || format!("{spinning} sources were found spinning"));
    let counts = parts.iter().map(|part| format!("{} {}", part.count(), part.name())).collect();
    println!("loop: {}", reactor.stats());
    drop((interval, second, events));
    if run.violations() == 0 {
        drop(parts);
    } else {
        // A thread may wait for a lost message, so joining the threads could block for ever.
        println!("the program does not wait for its threads");
        std::mem::forget(parts);
        return Ok((counts, meter.most()));
    }
    let live = reactor.stats().live;
    run.check(live == 0, || format!("{live} sources are left: {}", reactor.sources()));
    drop(reactor);
    Ok((counts, meter.finish(run)))
}

/// Prints one line of progress.
fn print_progress(
    run: &Run,
    parts: &[Box<dyn Part>],
    held: Held,
    late: &Lateness,
) -> io::Result<()> {
    let counts = parts.iter().map(|part| format!("{} {}", part.name(), short(part.count())));
    let counts: Vec<_> = counts.collect();
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>4.0} s  {}; {held}; late {:?}",
        run.elapsed().as_secs_f64(),
        counts.join(" "),
        late.quantile(0.99)
    )?;
    out.flush()
}

/// Formats a number in at most five characters.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// Starts a thread that ends the process if no turn ends for a long time. Returns the counter of
/// turns, which the loop must increment.
fn start_watchdog(run: &Run) -> Arc<AtomicU64> {
    let turns: Arc<AtomicU64> = Arc::default();
    let (weak, run) = (Arc::downgrade(&turns), run.clone());
    thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        while let Some(turns) = weak.upgrade() {
            let now = turns.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > 2 * LIMIT {
                run.violated(format!("no turn has ended for {:?}", 2 * LIMIT));
                println!("soak: FAILED: the loop is blocked");
                process::exit(1);
            }
            drop(turns);
            thread::sleep(Duration::from_millis(100));
        }
    });
    turns
}

//! The leak that every Go programmer makes once: a ticker made anew in each turn of a loop.
//! ```go
//! for {
//!     heartbeat := time.Tick(interval)
//!     select {
//!     case <-events:
//!     case <-heartbeat:
//!     }
//! }
//! ```
//! Before Go 1.23 none of these tickers ever went away, and the CPU that they took grew with every
//! turn.
//!
//! - `cargo run --release -p pollmux-examples --example leak`: the same loop here, for 100,000
//!   turns. A ticker goes with its scope, so nothing grows; the exit status is 1 if something does.
//! - `cargo run --release -p pollmux-examples --example leak -- --forget`: the tickers are kept on
//!   purpose, in two ways. *Forgotten* ones take memory and expire once: a tick that nobody
//!   receives is never followed by another. So it is with `select!`; a loop on `wait` would be told
//!   of that tick for ever. *Kept and received*, which is what Go's runtime did with them every
//!   period (`sendTime`, and armed again), they take the CPU. Both are plotted, and `sources()`
//!   says which line made them.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/duration.rs"]
mod duration;
mod meter;
mod plot;

use std::error::Error;
use std::mem;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;
use duration::duration;
use meter::{Log, Reading, Spent, Timed, Times};
use pollmux::channel::{self, TryRecvError};
use pollmux::{Events, Inbox, Reactor, Source, Ticker, reactor::Spin, select, sources::ZeroPeriod};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

#[derive(Parser)]
#[command(about = "A loop that makes a ticker in each turn, as it leaked in Go")]
struct Args {
    /// Turns to make, each with a ticker of its own
    #[arg(long, default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    turns: u64,
    /// The tickers' period [default: 5ms; with --forget 200ms]
    #[arg(long, value_parser = period)]
    period: Option<Duration>,
    /// Keep the tickers on purpose, and show what that costs
    #[arg(long)]
    forget: bool,
    /// How long each of the three loops of --forget takes: its messages come evenly spread; twice
    /// as long at most
    #[arg(long, default_value = "6s", value_parser = duration, requires = "forget")]
    during: Duration,
    /// Where the picture goes
    #[arg(long, default_value = "target/leak.svg", requires = "forget")]
    svg: PathBuf,
}

fn period(text: &str) -> std::result::Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(ZeroPeriod.to_string()),
        period => Ok(period),
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.forget { forget(&args) } else { flat(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The faulty loop: what becomes of a turn's ticker is `fate`'s business. Returns how often a
/// heartbeat came before a message.
fn faulty_loop(
    reactor: &Reactor,
    messages: &Inbox<()>,
    period: Duration,
    fate: impl Fn(Ticker),
    log: &Log<'_>,
    turns: u64,
) -> Result<u64> {
    let mut beats = 0;
    for turn in 1..=turns {
        let heartbeat = reactor.every(period)?;
        select! { reactor;
            recv(messages) -> message => message?,
            recv(heartbeat) -> _tick => beats += 1,
        }
        fate(heartbeat);
        log.turned(turn);
    }
    Ok(beats)
}

/// The loop with all its tickers, as Go's runtime had them: each is received when it is due, and so
/// armed again. A turn ends with a message, or a tick of its own ticker. At `limit` it gives up:
/// when the tickers leave no time for the messages.
fn receiving_loop(
    reactor: &Reactor,
    messages: &Inbox<()>,
    period: Duration,
    times: &Times,
    log: &Log<'_>,
    (turns, limit): (u64, Instant),
) -> Result<Vec<Ticker>> {
    let mut tickers: Vec<Ticker> = Vec::new();
    let mut events = Events::with_capacity(64);
    for turn in 1..=turns {
        let own = tickers.len() as u64;
        tickers.push(reactor.every(period)?.with_key(own));
        let mut over = false;
        while !over {
            times.expiring(|| reactor.wait(&mut events))?;
            for event in &events {
                // The messages have no number among them.
                if let Some(ticker) = tickers.get(event.key() as usize) {
                    over |= ticker.try_take().is_some() && event.key() == own;
                }
            }
            // Reported or not: with many ticks before them the turns would come to a stop.
            match messages.try_recv() {
                Ok(()) => over = true,
                Err(TryRecvError::Empty) => {}
                Err(error) => return Err(error.into()),
            }
        }
        log.turned(turn);
        if Instant::now() > limit {
            println!("\ngave up after {turn} turns: the tickers leave no time for the messages");
            log.end(turn);
            break;
        }
    }
    Ok(tickers)
}

// --- nothing grows

const WINDOWS: u64 = 10;

fn flat(args: &Args) -> Result<()> {
    let period = args.period.unwrap_or(Duration::from_millis(5));
    println!(
        "a ticker of {period:?} made in each turn, and dropped with its scope; {} turns",
        args.turns
    );
    println!();
    println!(
        "{:>9} {:>6} {:>11} {:>9} {:>5} {:>12} {:>14} {:>17}",
        "turns",
        "live",
        "heap bytes",
        "RSS KiB",
        "fds",
        "CPU us/turn",
        "syscalls/turn",
        "allocations/turn"
    );
    let times = Rc::new(Times::default());
    let reactor = Reactor::with_driver(Timed::new(times.clone())?)?;
    let (sender, messages) = reactor.channel(0)?; // unbuffered, as in Go
    let turns = args.turns;
    // Now and then the messages pause for so long that heartbeats come.
    let pause_every = (turns / 20).max(1);
    let producer = thread::spawn(move || {
        for n in 1.. {
            if n % pause_every == 0 {
                thread::sleep(period * 7 / 2);
            }
            if sender.send(()).is_err() {
                break;
            }
        }
    });
    let log = Log::new(&reactor, times, turns, WINDOWS);
    let beats = faulty_loop(&reactor, &messages, period, drop, &log, turns)?;

    let readings = log.into_readings();
    let unknown = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
    for (i, reading) in readings.iter().enumerate() {
        let fds = unknown(reading.fds.map(|n| n as u64));
        let (turns, live, bytes, rss) =
            (reading.turns, reading.stats.live, reading.bytes, unknown(reading.rss));
        print!("{turns:>9} {live:>6} {bytes:>11} {rss:>9} {fds:>5}");
        match i.checked_sub(1) {
            None => println!(),
            Some(before) => {
                let spent = reading.since(&readings[before]);
                println!(
                    " {:>12.2} {:>14.2} {:>17.3}",
                    spent.per_turn(spent.cpu.as_secs_f64() * 1e6),
                    spent.per_turn(spent.stats.syscalls() as f64),
                    spent.per_turn(spent.allocations as f64),
                );
            }
        }
    }
    println!();
    println!("{} messages and {beats} heartbeats", turns - beats);
    println!("{}", reactor.sources());
    check_flat(&readings)?;
    println!("flat: sources, heap, resident memory, fds, syscalls and CPU time");
    drop(messages);
    join(producer)?;
    Ok(())
}

/// Live sources and fds are counted exactly; the rest has limits that a leak of the smallest kind
/// passes by far, and noise does not reach. From the end of the first window on, when all is warm.
fn check_flat(readings: &[Reading]) -> std::result::Result<(), String> {
    /// Bytes: a leaked ticker takes 40 or more.
    const HEAP: usize = 64 << 10;
    /// KiB.
    const RSS: u64 = 4 << 10;
    /// An announced sleep, the wake-up, an alarm set, and one too early.
    const SYSCALLS: f64 = 6.0;
    let (warm, last) = (&readings[1], &readings[readings.len() - 1]);
    for reading in &readings[1..] {
        let at = format!("after {} turns", reading.turns);
        if reading.stats.live != warm.stats.live {
            return Err(format!(
                "{at} {} sources are live, not {}",
                reading.stats.live, warm.stats.live
            ));
        }
        if reading.fds != warm.fds {
            return Err(format!("{at} {:?} fds are open, not {:?}", reading.fds, warm.fds));
        }
        if reading.bytes > warm.bytes + HEAP {
            return Err(format!("{at} the heap has {} bytes, not {}", reading.bytes, warm.bytes));
        }
        if reading.rss > warm.rss.map(|rss| rss + RSS) {
            return Err(format!("{at} {:?} KiB are resident, not {:?}", reading.rss, warm.rss));
        }
    }
    let spent = last.since(warm);
    let syscalls = spent.per_turn(spent.stats.syscalls() as f64);
    if syscalls > SYSCALLS {
        return Err(format!("a turn makes {syscalls:.1} syscalls"));
    }
    // A neighbour's load makes one window or the other dear, not the last three threefold. What
    // grows with each turn is five times as dear there.
    let cpu = |pair: &[Reading]| {
        let spent = pair[1].since(&pair[0]);
        spent.per_turn(spent.cpu.as_secs_f64())
    };
    let windows: Vec<f64> = readings.windows(2).map(cpu).collect();
    let early = windows.iter().take(2).fold(20e-6, |most: f64, &cpu| most.max(cpu));
    let late = windows.iter().rev().take(3).fold(f64::MAX, |least, &cpu| least.min(cpu));
    if late > 3.0 * early {
        return Err(format!(
            "a turn took {:.1} us of CPU, and takes {:.1} now",
            early * 1e6,
            late * 1e6
        ));
    }
    Ok(())
}

fn join(producer: JoinHandle<()>) -> Result<()> {
    producer.join().map_err(|_| "the thread that sends has panicked".into())
}

// --- kept on purpose

/// A loop, and what is measured of it.
#[derive(Debug)]
pub struct Run {
    name: &'static str,
    /// The fate of its tickers.
    fate: &'static str,
    readings: Vec<Reading>,
}

impl Run {
    fn whole(&self) -> Spent {
        self.readings[self.readings.len() - 1].since(&self.readings[0])
    }

    /// Allocated since the start.
    fn bytes(&self, reading: &Reading) -> usize {
        reading.bytes.saturating_sub(self.readings[0].bytes)
    }
}

/// Points of a line in the picture; two of them are a line of the table.
const POINTS: u64 = 20;

/// The key that `wait` reports the messages by. Those of the tickers are their numbers.
const MESSAGES: u64 = u64::MAX;

fn forget(args: &Args) -> Result<()> {
    let period = args.period.unwrap_or(Duration::from_millis(200));
    println!(
        "a ticker of {period:?} made in each turn; {} turns, one message each, in {:?}; a thread \
         of its own sends",
        args.turns, args.during
    );
    let dropped = measure(args, "dropped", "with its scope", |reactor, messages, _, log| {
        faulty_loop(reactor, messages, period, drop, log, args.turns)
    })?;
    let forgotten = measure(args, "forgotten", "expires once", |reactor, messages, _, log| {
        faulty_loop(reactor, messages, period, mem::forget, log, args.turns)
    })?;
    let received =
        measure(args, "kept and received", "as Go did", |reactor, messages, times, log| {
            receiving_loop(
                reactor,
                messages,
                period,
                times,
                log,
                (args.turns, Instant::now() + 2 * args.during),
            )
        })?;
    let runs = [dropped, forgotten, received];
    plot::terminal(&runs);
    plot::svg(&args.svg, &runs, period)
        .map_err(|error| format!("{}: {error}", args.svg.display()))?;
    println!("\nthe picture: {}", args.svg.display());
    Ok(())
}

/// Runs a loop while a thread sends, says what it cost, and who made what it left behind.
fn measure<R>(
    args: &Args,
    name: &'static str,
    fate: &'static str,
    run: impl FnOnce(&Reactor, &Inbox<()>, &Times, &Log<'_>) -> Result<R>,
) -> Result<Run> {
    let times = Rc::new(Times::default());
    // Without spinning: the CPU time is to be that of the tickers.
    let reactor = Reactor::builder().spin(Spin::Off).build_with(Timed::new(times.clone())?)?;
    let (sender, receiver) = channel::bounded(1_024);
    let messages = reactor.register_with(MESSAGES, receiver)?;
    let (turns, during, start) = (args.turns, args.during, Instant::now());
    let producer = thread::spawn(move || {
        for n in 1u32.. {
            let at = during.mul_f64(f64::from(n) / turns as f64);
            thread::sleep(at.saturating_sub(start.elapsed()));
            if sender.send(()).is_err() {
                break;
            }
        }
    });
    let log = Log::new(&reactor, times.clone(), turns, POINTS);
    let left = run(&reactor, &messages, &times, &log)?;
    drop(messages);
    join(producer)?;
    let run = Run { name, fate, readings: log.into_readings() };
    print_run(&run);
    name_the_guilty(&reactor);
    drop(left);
    Ok(run)
}

fn print_run(run: &Run) {
    println!("\n{}: {}", run.name, run.fate);
    println!(
        "{:>9} {:>9} {:>9} {:>7} {:>13} {:>9} {:>11} {:>10} {:>10}",
        "turns",
        "live",
        "heap KiB",
        "CPU %",
        "epoll_wait %",
        "expiry %",
        "expired/s",
        "waits/s",
        "arms/s"
    );
    for window in run.readings.windows(3).step_by(2) {
        let (spent, end) = (window[2].since(&window[0]), &window[2]);
        let a_second = |n: u64| n as f64 / spent.wall.as_secs_f64();
        // Inside a select! the two cannot be told apart from here.
        let expiry = match spent.expiry {
            Duration::ZERO => "-".into(),
            expiry => format!("{:.1}", spent.percent(expiry)),
        };
        println!(
            "{:>9} {:>9} {:>9} {:>7.1} {:>13.1} {expiry:>9} {:>11.0} {:>10.0} {:>10.0}",
            end.turns,
            end.stats.live,
            run.bytes(end) >> 10,
            spent.percent(spent.cpu),
            spent.percent(spent.waited),
            a_second(spent.stats.expired),
            a_second(spent.stats.waits),
            a_second(spent.stats.arms),
        );
    }
    let (whole, end) = (run.whole(), &run.readings[run.readings.len() - 1]);
    let bytes = whole.per_turn(run.bytes(end) as f64);
    println!(
        "{} tickers made, {} expiries, {bytes:.0} bytes a ticker",
        whole.turns, whole.stats.expired
    );
}

/// Which line made most of what is still there.
fn name_the_guilty(reactor: &Reactor) {
    let sources = reactor.sources();
    println!("{sources}");
    if let Some(origin) = sources.by_origin().first() {
        let kind = origin.kind.map_or_else(|| "source".into(), |kind| kind.to_string());
        let place =
            origin.location.map_or_else(|| "?".into(), |at| format!("{}:{}", at.file(), at.line()));
        println!("{} {kind}s, created at {place}", origin.sources.len());
    }
}

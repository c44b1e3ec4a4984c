//! Shows a well-known leak of Go programs: a loop that makes a new ticker in each turn.
//! ```go
//! for {
//!     heartbeat := time.Tick(interval)
//!     select {
//!     case <-events:
//!     case <-heartbeat:
//!     }
//! }
//! ```
//! Before Go 1.23 these tickers lived for ever, and their CPU time grew with every turn.
//!
//! - `cargo run --release -p pollmux-examples --example leak`: runs the same loop here for 100,000
//!   turns. The end of a turn drops its ticker, so no value grows. If a value grows, the program
//!   fails.
//! - `cargo run --release -p pollmux-examples --example leak -- --forget`: keeps the tickers on
//!   purpose, in two ways. *Forgotten* tickers take memory and expire once, because an unreceived
//!   tick is not followed by another tick. A `select!` never reports these ticks. A loop on `wait`
//!   would report them in every turn. *Kept and received* tickers take CPU time in every period, as
//!   in Go's runtime. The program plots both, and `sources()` names the line that made the tickers.

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
#[command(about = "A loop that makes a ticker in each turn, which leaked in Go")]
struct Args {
    /// The number of turns, each with a ticker of its own
    #[arg(long, default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    turns: u64,
    /// The period of the tickers [default: 5ms; with --forget 200ms]
    #[arg(long, value_parser = period)]
    period: Option<Duration>,
    /// Keep the tickers on purpose, and show the costs
    #[arg(long)]
    forget: bool,
    /// The time of each of the three loops of --forget, at most twice as long
    #[arg(long, default_value = "6s", value_parser = duration, requires = "forget")]
    during: Duration,
    /// The file of the picture
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

/// Runs the faulty loop. `end` drops or keeps the ticker of a turn. Returns the number of
/// heartbeats that came before a message.
fn faulty_loop(
    reactor: &Reactor,
    messages: &Inbox<()>,
    period: Duration,
    end: impl Fn(Ticker),
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
        end(heartbeat);
        log.record(turn);
    }
    Ok(beats)
}

/// Runs the loop and keeps all its tickers, as Go's runtime did. The loop receives each due tick,
/// which arms the ticker again. A turn ends with a message or with a tick of its own ticker. At
/// `limit` the loop gives up, because the tickers leave no time for the messages.
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
                // The key of the messages is no ticker's number.
                if let Some(ticker) = tickers.get(event.key() as usize) {
                    over |= ticker.try_take().is_some() && event.key() == own;
                }
            }
            // Try without a report, because many ticks could delay the report of a message.
            match messages.try_recv() {
                Ok(()) => over = true,
                Err(TryRecvError::Empty) => {}
                Err(error) => return Err(error.into()),
            }
        }
        log.record(turn);
        if Instant::now() > limit {
            println!("\ngave up after {turn} turns: the tickers leave no time for the messages");
            log.end(turn);
            break;
        }
    }
    Ok(tickers)
}

// --- The loop that drops its tickers.

const WINDOWS: u64 = 10;

fn flat(args: &Args) -> Result<()> {
    let period = args.period.unwrap_or(Duration::from_millis(5));
    println!(
        "each turn makes a ticker of {period:?}, and drops the ticker at its end; {} turns",
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
    // The messages pause 20 times for so long that heartbeats come.
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

/// Checks that no value grows after the first window, which is the warm-up. The numbers of live
/// sources and fds must be equal. Other values have limits above the noise, and far below the
/// smallest leak.
fn check_flat(readings: &[Reading]) -> std::result::Result<(), String> {
    /// The most bytes of growth. A leaked ticker takes at least 40 bytes.
    const HEAP: usize = 64 << 10;
    /// The most KiB of growth.
    const RSS: u64 = 4 << 10;
    /// The most syscalls of a turn: a sleep, a wake-up, an armed kernel timer, and an early expiry.
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
    // Other load on the machine slows single windows, but not the last three windows by a factor
    // of three. A cost that grows with each turn is five times as high there.
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

// --- The loops that keep their tickers.

/// A loop and its measurements.
#[derive(Debug)]
pub struct Run {
    name: &'static str,
    /// The way in which the loop handles its tickers, for the tables and the picture.
    about: &'static str,
    readings: Vec<Reading>,
}

impl Run {
    fn whole(&self) -> Spent {
        self.readings[self.readings.len() - 1].since(&self.readings[0])
    }

    /// Returns the bytes that were allocated since the start.
    fn bytes(&self, reading: &Reading) -> usize {
        reading.bytes.saturating_sub(self.readings[0].bytes)
    }
}

/// The number of points of a line in the picture. Two points make a line of the table.
const POINTS: u64 = 20;

/// The key of the messages. The keys of the tickers are their numbers.
const MESSAGES: u64 = u64::MAX;

fn forget(args: &Args) -> Result<()> {
    let period = args.period.unwrap_or(Duration::from_millis(200));
    println!(
        "each turn makes a ticker of {period:?}; another thread sends a message for each of {} \
         turns in {:?}",
        args.turns, args.during
    );
    let dropped = measure(args, "dropped", "at the end of a turn", |reactor, messages, _, log| {
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

/// Runs a loop while a thread sends. Prints its costs, and the lines that made the live sources.
fn measure<R>(
    args: &Args,
    name: &'static str,
    about: &'static str,
    run: impl FnOnce(&Reactor, &Inbox<()>, &Times, &Log<'_>) -> Result<R>,
) -> Result<Run> {
    let times = Rc::new(Times::default());
    // The reactor must not spin, because the CPU time must be the tickers' time.
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
    let run = Run { name, about, readings: log.into_readings() };
    print_run(&run);
    print_origins(&reactor);
    drop(left);
    Ok(run)
}

fn print_run(run: &Run) {
    println!("\n{}: {}", run.name, run.about);
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
        // In a loop on `select!`, this program cannot measure the expiry alone.
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

/// Prints the live sources, and the line that made most of them.
fn print_origins(reactor: &Reactor) {
    let sources = reactor.sources();
    println!("{sources}");
    if let Some(origin) = sources.by_origin().first() {
        let kind = origin.kind.map_or_else(|| "source".into(), |kind| kind.to_string());
        let place =
            origin.location.map_or_else(|| "?".into(), |at| format!("{}:{}", at.file(), at.line()));
        println!("{} {kind}s, created at {place}", origin.sources.len());
    }
}

//! A chat server that sends each line of a client to all other clients.
//!
//! - `cargo run --release --example chat`: serves at 127.0.0.1:7008 until Ctrl-C or SIGTERM. At the
//!   end the server sends each client a last line. Connect with `nc 127.0.0.1 7008`.
//! - `cargo run --release --example chat -- --load 2000 --slow 200`: measures with 2,000 clients in
//!   another process. 200 of the clients never read. The program fails if a bound is broken.
//!
//! Known limits: clients are not informed about who enters and leaves. A client that floods the
//! room makes the server drop slower readers. A limit of lines a second for each client would help.

#[path = "../common/acceptor.rs"]
mod acceptor;
mod client;
#[path = "../common/lines.rs"]
mod lines;
mod load;
mod server;

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command, value_parser};
use load::Load;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use pollmux::{Reactor, channel, select};
use server::{Limits, Report, Server};

/// The bytes of memory for the server itself: code that runs for the first time, buffers, a thread.
const SERVER_MEMORY: usize = 4 << 20;
/// The bytes of memory for a client beside its queue: the fd, the timer and the unfinished line.
const CLIENT_MEMORY: usize = 4 << 10;

fn options() -> ArgMatches {
    let number = |name| Arg::new(name).long(name).value_parser(value_parser!(usize));
    let address = |name| Arg::new(name).long(name).value_parser(value_parser!(SocketAddr));
    let about = "A chat server, and a load that measures the server";
    let arguments = [
        address("listen").default_value("127.0.0.1:7008").help("The address of the server"),
        number("idle").default_value("600000").help("The ms after which a silent client is closed"),
        number("farewell")
            .default_value("2000")
            .help("The ms that clients have to close at the end"),
        number("queue").default_value("65536").help("The most bytes that may wait for a client"),
        number("load").help("Measure with this number of clients, at a free port"),
        number("slow").default_value("0").help("The clients of --load that never read"),
        number("speakers").default_value("100").help("The clients of --load that send lines"),
        number("rounds").default_value("60").help("The lines of each speaker"),
        // The server starts the process of the load with this option.
        address("at").hide(true),
    ];
    Command::new("chat").about(about).args(arguments).get_matches()
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options();
    let number = |name| *options.get_one::<usize>(name).unwrap();
    let limits = Limits {
        idle: Duration::from_millis(number("idle") as u64),
        queue: number("queue"),
        farewell: Duration::from_millis(number("farewell") as u64),
    };
    // Each client needs an fd. The soft limit is often 1,024, and the process may raise this limit.
    let (_, fds) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, fds, fds)?;
    let Some(&clients) = options.get_one("load") else {
        let server = Server::new(*options.get_one("listen").unwrap(), limits)?;
        println!("chat at {}, Ctrl-C ends it", server.address());
        let (_never, stop) = channel::bounded(1);
        println!("{}", server.run(stop)?);
        return Ok(());
    };
    #[allow(clippy::unnecessary_cast)] // signed on FreeBSD
    if clients as u64 + 100 > fds as u64 {
        return Err(format!("{clients} clients need more than the {fds} fds of a process").into());
    }
    let slow = number("slow").min(clients - 1);
    let speakers = number("speakers").clamp(1, clients - slow);
    let load = Load { clients, slow, speakers, rounds: number("rounds").max(1) };
    match options.get_one("at") {
        Some(&address) => Ok(load::run(address, load)?),
        None => measure(load, limits),
    }
}

/// Serves a load that runs in another process. So the memory of this process is the server's.
fn serve_a_load(load: Load, limits: Limits) -> io::Result<Report> {
    let server = Server::new(([127, 0, 0, 1], 0).into(), limits)?;
    let numbers = [load.clients, load.slow, load.speakers, load.rounds].map(|n| n.to_string());
    let mut command = process::Command::new(std::env::current_exe()?);
    command.args(["--at", &server.address().to_string()]);
    for (name, number) in ["--load", "--slow", "--speakers", "--rounds"].iter().zip(&numbers) {
        command.args([name, number.as_str()]);
    }
    let (stop, stopped) = channel::bounded(1);
    // The server's reactor stays on this thread. Another thread waits for the load.
    let waiter = thread::spawn(move || {
        let _stop = stop;
        let reactor = Reactor::new()?;
        let load = reactor.register(command.spawn()?)?;
        select! { reactor; recv(load) -> status => status }
    });
    let report = server.run(stopped)?;
    let status = waiter.join().map_err(|_| io::Error::other("the waiting thread panicked"))??;
    if status.success() {
        Ok(report)
    } else {
        Err(io::Error::other(format!("the load ended with {status}")))
    }
}

/// Returns the most memory that this program has had, in bytes.
fn peak_memory() -> io::Result<usize> {
    // `getrusage` would also count the memory of the process before it ran this program.
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        return peak.map(|kib| kib << 10).ok_or_else(|| io::Error::other("VmHWM is missing"));
    }
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1_024 };
    Ok(getrusage(UsageWho::RUSAGE_SELF)?.max_rss() as usize * unit)
}

fn measure(load: Load, limits: Limits) -> Result<(), Box<dyn Error>> {
    let before = peak_memory()?;
    let begin = Instant::now();
    let report = serve_a_load(load, limits)?;
    let (time, peak) = (begin.elapsed(), peak_memory()?);
    // A reader's queue holds one round at most. A queue may take twice the memory of its bytes.
    let readers = (load.clients - load.slow) * 2 * load.round_bytes().min(limits.queue);
    let queues = readers + load.slow * 2 * limits.queue;
    let bound = before + SERVER_MEMORY + load.clients * CLIENT_MEMORY + queues;
    let mib = |bytes: usize| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    println!("{report}");
    println!("{:>9} lines received in {time:.1?}", load.received());
    println!(
        "{:>9} peak RSS, {} before the load; the bound is {}",
        mib(peak),
        mib(before),
        mib(bound)
    );
    let broken = [
        ("a client was not accepted", report.clients as usize != load.clients),
        ("a line was lost", report.lines != load.lines() as u64),
        ("a slow reader stayed, or a fast reader was dropped", report.slow != load.slow as u64),
        ("a queue exceeded its limit", report.most_queued > limits.queue),
        ("the memory exceeded its bound", peak > bound),
    ];
    match broken.iter().find(|(_, is_broken)| *is_broken) {
        Some((bound, _)) => {
            println!("verdict: BROKEN: {bound}");
            process::exit(1);
        }
        None => println!("verdict: all bounds hold"),
    }
    Ok(())
}

//! A TCP echo server with an idle timeout for each connection, and a load that measures the server.
//!
//! - `cargo run --release --example echo`: serves at 127.0.0.1:7007 until Ctrl-C or SIGTERM.
//! - `cargo run --release --example echo -- --load 10000`: serves 10,000 connections at once from
//!   another process, and prints the costs of a connection and of a message. Ends by itself.
//! - `--threads 2`: runs two reactors. Each has a thread and a listener of its own
//!   (`SO_REUSEPORT`).

#[path = "../common/acceptor.rs"]
mod acceptor;
#[path = "../common/mod.rs"]
mod common;
mod load;
mod server;

use std::io;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, value_parser};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pollmux::{Reactor, Remote, Signal, channel, select};
use server::{Report, Server};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

struct Options {
    listen: SocketAddr,
    threads: u16,
    idle: u64,
    load: Option<usize>,
    messages: u64,
    at: Option<SocketAddr>,
    rude: bool,
}

impl Options {
    fn parse() -> Options {
        let listen = Arg::new("listen").long("listen").value_parser(value_parser!(SocketAddr));
        let threads =
            Arg::new("threads").long("threads").value_parser(value_parser!(u16).range(1..=64));
        let idle = Arg::new("idle").long("idle").value_parser(value_parser!(u64).range(1..));
        let load = Arg::new("load").long("load").value_parser(value_parser!(usize));
        let messages = Arg::new("messages").long("messages").value_parser(value_parser!(u64));
        let at = Arg::new("at").long("at").value_parser(value_parser!(SocketAddr));
        let rude = Arg::new("rude").long("rude").action(ArgAction::SetTrue);
        let found = clap::Command::new("echo").args([
            listen.default_value("127.0.0.1:7007").help("The address of the server"),
            threads
                .default_value("1")
                .help("The threads, each with a reactor and a listener of its own"),
            idle.default_value("60000")
                .value_name("MS")
                .help("The time after which a silent connection is closed"),
            load.value_name("CONNECTIONS")
                .help("Measure with this number of connections at once, at a free port"),
            messages
                .default_value("20")
                .help("The messages of 64 bytes over each connection, for --load"),
            // The server starts the process of the load with these options.
            at.hide(true),
            rude.hide(true),
        ]);
        let mut found = found.get_matches();
        Options {
            listen: found.remove_one("listen").unwrap(),
            threads: found.remove_one("threads").unwrap(),
            idle: found.remove_one("idle").unwrap(),
            load: found.remove_one("load"),
            messages: found.remove_one("messages").unwrap(),
            at: found.remove_one("at"),
            rude: found.get_flag("rude"),
        }
    }
}

/// Raises the soft limit of fds to the hard limit, and returns that limit.
#[allow(clippy::unnecessary_cast)] // signed on FreeBSD
fn raise_fd_limit() -> io::Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most as u64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let fds = raise_fd_limit()?;
    if let (Some(address), Some(connections)) = (options.at, options.load) {
        load::run(address, connections, options.messages, options.rude)?;
        return Ok(());
    }
    match options.load {
        Some(connections) if connections as u64 + 100 > fds => {
            Err(format!("{connections} connections need more than the {fds} fds of a process")
                .into())
        }
        Some(connections) => measure(connections, &options),
        None => serve(&options),
    }
}

/// The sender that stops a server, the remote of its reactor, and its thread.
type Serving = (channel::Sender<()>, Remote, thread::JoinHandle<io::Result<Report>>);

/// The servers: one for each thread.
struct Servers {
    address: SocketAddr,
    threads: Vec<Serving>,
}

impl Servers {
    fn start(address: SocketAddr, threads: u16, idle: Duration) -> io::Result<Servers> {
        let mut servers = Servers { address, threads: Vec::new() };
        for _ in 0..threads {
            let (stop, stopped) = channel::bounded(1);
            let (started, is_started) = channel::bounded(1);
            let address = servers.address;
            let thread = thread::spawn(move || {
                // A reactor stays on the thread that creates it.
                let server = match Server::new(address, idle, common::allocations) {
                    Ok(server) => server,
                    Err(error) => {
                        let _ = started.send(Err(io::Error::new(error.kind(), error.to_string())));
                        return Err(error);
                    }
                };
                let _ = started.send(Ok((server.address(), server.remote())));
                server.run(stopped)
            });
            // The first server may get any free port. The other servers share this port.
            let (address, remote) = is_started.recv().map_err(io::Error::other)??;
            servers.address = address;
            servers.threads.push((stop, remote, thread));
        }
        Ok(servers)
    }

    fn stop(self) -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        for (stop, _, thread) in self.threads {
            drop(stop);
            reports.push(thread.join().map_err(|_| io::Error::other("a server panicked"))??);
        }
        Ok(reports)
    }
}

fn serve(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let idle = Duration::from_millis(options.idle);
    println!("echo at {}, {} thread(s), Ctrl-C ends it", options.listen, options.threads);
    let reports = if options.threads == 1 {
        let mut server = Server::new(options.listen, idle, common::allocations)?;
        server.end_by_signals()?;
        let (_stop, stopped) = channel::bounded(1);
        vec![server.run(stopped)?]
    } else {
        let servers = Servers::start(options.listen, options.threads, idle)?;
        let reactor = Reactor::new()?;
        let signals = reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        select! { reactor; recv(signals) -> signal => println!("{signal}: good-bye") }
        servers.stop()?
    };
    reports.iter().for_each(|report| println!("{}", report.stats));
    Ok(())
}

/// Runs the load in another process, because one process has too few fds for both ends.
fn run_load(
    address: SocketAddr,
    connections: usize,
    messages: u64,
    rude: bool,
) -> io::Result<Duration> {
    let mut load = Command::new(std::env::current_exe()?);
    load.args(["--at", &address.to_string(), "--load", &connections.to_string()]);
    load.args(["--messages", &messages.to_string()]).args(rude.then_some("--rude"));
    let reactor = Reactor::new()?;
    let begin = Instant::now();
    let load = reactor.register(load.spawn()?)?;
    let timeout = reactor.after(Duration::from_secs(240));
    let status: ExitStatus = select! { reactor;
        recv(load) -> status => status?,
        recv(timeout) -> _ => {
            load.kill()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
    };
    if !status.success() {
        return Err(io::Error::other(format!("the load ended with {status}")));
    }
    Ok(begin.elapsed())
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count())
}

fn measure(connections: usize, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    let fds = open_fds();
    let sum = |reports: &[Report], f: fn(&Report) -> u64| reports.iter().map(f).sum::<u64>();
    let run = |messages: u64, rude: bool, idle: Duration| -> io::Result<(Vec<Report>, Duration)> {
        let servers = Servers::start(any_port, options.threads, idle)?;
        let wall = run_load(servers.address, connections, messages, rude)?;
        servers.threads.iter().try_for_each(|(_, remote, _)| server::wait_until_empty(remote))?;
        Ok((servers.stop()?, wall))
    };
    let minute = Duration::from_secs(60);
    println!(
        "{connections} connections at once, {} server thread(s), load from another process\n",
        options.threads
    );

    let (bare, bare_wall) = run(1, false, minute)?;
    let (busy, busy_wall) = run(options.messages + 1, false, minute)?;
    let cpu = |reports: &[Report]| reports.iter().map(|report| report.cpu).sum::<Duration>();
    let messages = sum(&busy, |r| r.messages) - sum(&bare, |r| r.messages);
    let per_message =
        cpu(&busy).saturating_sub(cpu(&bare)).as_secs_f64() * 1e6 / messages.max(1) as f64;
    let allocations = sum(&busy, |r| r.allocations) as i64 - sum(&bare, |r| r.allocations) as i64;
    println!("{:>44} {:>10}", "connections open at the same time", sum(&busy, |r| r.most_at_once));
    println!("{:>44} {:>10}", "messages", messages);
    println!(
        "{:>44} {:>10.2} us",
        "a connection with one message, CPU",
        cpu(&bare).as_secs_f64() * 1e6 / connections as f64
    );
    println!("{:>44} {:>10.2} us", "a message, CPU", per_message);
    println!(
        "{:>44} {:>10.2}",
        "allocations a message",
        allocations.max(0) as f64 / messages.max(1) as f64
    );
    let polled = |reports: &[Report]| sum(reports, |r| r.stats.syscalls());
    println!(
        "{:>44} {:>10.3}",
        "syscalls of the reactor a message",
        (polled(&busy) - polled(&bare)) as f64 / messages.max(1) as f64
    );
    println!(
        "{:>44} {:>10.0}",
        "messages a second, connecting included",
        messages as f64 / (busy_wall.saturating_sub(bare_wall)).as_secs_f64().max(1e-9)
    );
    for (i, report) in busy.iter().enumerate() {
        println!("\nthread {i}: {}", report.stats);
    }

    // One client in ten misbehaves. These clients leave early, half-close, reset or stall.
    let (rude, _) = run(3, true, Duration::from_secs(5))?;
    println!(
        "\nwith misbehaving clients: {} accepted, {} closed, {} failed, {} idle for too long",
        sum(&rude, |r| r.accepted),
        sum(&rude, |r| r.closed),
        sum(&rude, |r| r.failed),
        sum(&rude, |r| r.idle)
    );
    let ended = sum(&rude, |r| r.closed + r.failed + r.idle);
    let left = sum(&rude, |r| r.stats.live as u64);
    println!(
        "left behind: {} connections, {left} sources, {} fds",
        sum(&rude, |r| r.accepted) - ended,
        open_fds() as i64 - fds as i64
    );
    if ended != connections as u64 || left != 0 || open_fds() != fds {
        return Err("connections, sources or fds were left behind".into());
    }
    Ok(())
}

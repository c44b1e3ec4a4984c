//! Raft's leader election among threads, each with a reactor and one `select!`. Heartbeats postpone
//! the election timers. A missing heartbeat starts an election.
//!
//! `cargo run --release --example raft -- --nodes 5 --kill-leader` prints a timeline and ends by
//! itself. Contexts stop the nodes (`node.rs`). Each node has a context of its own, and one parent
//! context stops all nodes.
//!
//! `raft --listen 127.0.0.1:7001 --peers 127.0.0.1:7002,127.0.0.1:7003` runs one node, over TCP
//! (`tcp.rs`). Start the other two nodes in other processes. Then kill a process, or stop and
//! continue a process.
//!
//! `cargo run --release --example raft -- --search 10000 --bug` runs the same nodes through losses,
//! partitions and crashes in a `SimWorld` (`cluster.rs`). The search tries one seed after the other
//! until a history breaks a rule of Raft. Then it prints the seed and the history.

mod cluster;
mod node;
mod tcp;

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Arg, ArgAction, Command, value_parser};
use node::{Event, EventKind, Id, Message, Peer, Setup, Timing};
use pollmux::channel::{self, Receiver, Sender};
use pollmux::sim::Search;
use pollmux::{Canceller, Context, Reactor, Time, select};

struct Args {
    nodes: u64,
    kill_leader: bool,
    seed: Option<u64>,
    search: Option<u64>,
    bug: bool,
    trace: Option<PathBuf>,
    listen: Option<SocketAddr>,
    peers: Vec<SocketAddr>,
}

impl Args {
    fn parse() -> Args {
        let nodes = Arg::new("nodes").long("nodes").value_parser(value_parser!(u64).range(1..=9));
        let kill_leader = Arg::new("kill-leader").long("kill-leader").action(ArgAction::SetTrue);
        let seed = Arg::new("seed").long("seed").value_parser(value_parser!(u64));
        let search = Arg::new("search").long("search").value_parser(value_parser!(u64));
        let bug = Arg::new("bug").long("bug").action(ArgAction::SetTrue).requires("search");
        let trace = Arg::new("trace").long("trace").value_parser(value_parser!(PathBuf));
        let address = |name| Arg::new(name).long(name).value_parser(value_parser!(SocketAddr));
        let listen = address("listen").requires("peers");
        let peers = address("peers").requires("listen");
        let found = Command::new("raft").about("Raft's leader election among threads").args([
            nodes.default_value("3").help("The number of nodes"),
            kill_leader.help("Stop the first leader, so that the other nodes elect another leader"),
            seed.help("The seed of the election timeouts, which is random by default"),
            search.value_name("SEEDS").help(
                "Search this number of seeds, in virtual time, for a history that breaks a rule",
            ),
            bug.help("With --search: a crash forgets the node's vote"),
            trace
                .requires("search")
                .value_name("FILE")
                .help("With --search: write the found history as a Chrome trace"),
            listen
                .value_name("ADDRESS")
                .conflicts_with_all(["nodes", "kill-leader", "search"])
                .help("Run one node, over TCP, at this address"),
            peers
                .value_name("ADDRESSES")
                .value_delimiter(',')
                .help("With --listen: the addresses of the other nodes"),
        ]);
        let mut found = found.get_matches();
        Args {
            nodes: found.remove_one("nodes").unwrap(),
            kill_leader: found.get_flag("kill-leader"),
            seed: found.remove_one("seed"),
            search: found.remove_one("search"),
            bug: found.get_flag("bug"),
            trace: found.remove_one("trace"),
            listen: found.remove_one("listen"),
            peers: found.remove_many("peers").into_iter().flatten().collect(),
        }
    }
}

/// The time for which a leader leads before the program goes on.
const REIGN: Duration = Duration::from_millis(500);
/// The most time for the whole program.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    if let Some(seeds) = args.search {
        return search(seeds, args.bug, args.trace);
    }
    let seed = args.seed.unwrap_or_else(|| Time::now().as_nanos());
    if let Some(address) = args.listen {
        return listen(address, args.peers, seed);
    }
    if args.kill_leader && args.nodes < 3 {
        eprintln!("error: --kill-leader: {} nodes are too few to elect another leader", args.nodes);
        return Ok(ExitCode::from(2));
    }
    let nodes = args.nodes as usize;
    let reactor = Reactor::new()?;
    let (reports, events) = reactor.channel::<Event>(256)?;
    let (all, cancel_all) = Context::background().with_cancel();
    let start = Time::now();

    let ends: Vec<(Sender<Message>, Receiver<Message>)> =
        (0..nodes).map(|_| channel::bounded(256)).collect();
    let senders: Vec<_> = ends.iter().map(|(sender, _)| sender.clone()).collect();
    let mut cancellers: Vec<Canceller> = Vec::new();
    let mut threads = Vec::new();
    for (id, (_, inbox)) in ends.into_iter().enumerate() {
        let (context, canceller) = all.with_cancel();
        cancellers.push(canceller);
        let others = senders.iter().enumerate().filter(|(other, _)| *other != id);
        let peers: Vec<_> = others
            .map(|(other, sender)| (other, Box::new(sender.clone()) as Box<dyn Peer>))
            .collect();
        let reports = reports.clone();
        threads.push(thread::spawn(move || {
            let report = move |event| drop(reports.send(event));
            let (disk, timing) = Default::default();
            node::run(
                &Reactor::new()?,
                Setup { id, peers, inbox, disk, timing, seed, context, report },
            )
        }));
    }
    drop((senders, reports));

    let Timing { election, heartbeat } = Timing::default();
    println!(
        "nodes: {nodes}; a heartbeat every {heartbeat:?}, an election after {election:?} \
         without one"
    );
    let mut leaders: Vec<(Id, u64)> = Vec::new();
    let mut to_kill = args.kill_leader;
    let mut killed: Option<Id> = None;
    let reign = reactor.timer();
    let limit = reactor.after(LIMIT);
    let outcome = loop {
        select! { reactor;
            recv(events) -> event => {
                let Ok(event) = event else { break Err("every node has stopped") };
                print(start, &event)?;
                // A late report of the killed leader is no new leader.
                if matches!(event.kind, EventKind::Leads { .. }) && killed != Some(event.node) {
                    leaders.push((event.node, event.term));
                    reign.reset(REIGN);
                }
            },
            recv(reign) -> _ => match leaders.last() {
                Some(&(leader, _)) if to_kill => {
                    (to_kill, killed) = (false, Some(leader));
                    note(start, &format!("node {leader}  is killed"))?;
                    cancellers[leader].cancel();
                }
                _ => break Ok(()),
            },
            recv(limit) -> _ => break Err("no leader in time"),
        }
    };
    cancel_all.cancel(); // one call stops all nodes
    // The channel of reports ends when all nodes have ended.
    while let Ok(event) = select! { reactor; recv(events) -> event => event } {
        print(start, &event)?;
    }
    for thread in threads {
        thread.join().expect("no node panics")?;
    }
    match outcome {
        Ok(()) => {
            let story: Vec<_> =
                leaders.iter().map(|(node, term)| format!("node {node} in term {term}")).collect();
            println!("leaders: {}", story.join(", then "));
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            eprintln!("error: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs one node of a cluster. A node's id is the index of its address in the sorted list.
fn listen(address: SocketAddr, peers: Vec<SocketAddr>, seed: u64) -> io::Result<ExitCode> {
    let start = Time::now();
    let mut all = peers;
    all.push(address);
    all.sort_unstable();
    all.dedup();
    let id = all.iter().position(|other| *other == address).expect("the list has this address");
    // The program ends when its standard output is closed.
    let report = move |event| print(start, &event).expect("standard output");
    tcp::run((id, &all), (seed, Timing::default()), report)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs clusters in virtual time until a history breaks a rule.
fn search(seeds: u64, has_bug: bool, trace: Option<PathBuf>) -> io::Result<ExitCode> {
    let is_shown = io::stderr().is_terminal();
    let show = |done| {
        if is_shown && done % 100 == 0 {
            eprint!("\r{done} of {seeds} seeds");
        }
    };
    let found = Search::new(0..seeds).progress(show).run(|world| {
        let seed = world.seed();
        cluster::history(world, seed, has_bug).map(drop)
    });
    if is_shown {
        eprintln!(); // ends the line of the last count
    }
    match found {
        Ok(tried) => {
            println!("{tried} histories break no rule");
            Ok(ExitCode::SUCCESS)
        }
        Err(found) => {
            println!("{found}");
            if let Some(file) = trace {
                let history = found.shorter.as_ref().map_or(&found.history, |(_, history)| history);
                std::fs::write(file, history.to_chrome_trace())?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(start: Time, event: &Event) -> io::Result<()> {
    line(event.at - start, &event.to_string())
}

fn note(start: Time, text: &str) -> io::Result<()> {
    line(Time::now() - start, text)
}

fn line(since: Duration, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:>6} ms  {text}", since.as_millis())?;
    out.flush()
}

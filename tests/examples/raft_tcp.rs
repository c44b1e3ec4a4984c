//! Tests of the example `raft` in one process per node, over TCP. The other nodes replace a stopped
//! or killed leader, and a continued leader follows. The tests read the output of the processes.
//!
//! An election may start at any time, because any process may pause for a while. So a test repeats
//! a step if the leader had changed before the step.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::heartbeat::example;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The most time that a test waits for a line.
const TIMEOUT: Duration = Duration::from_secs(180);

#[derive(Clone, Debug, PartialEq)]
enum LineKind {
    Starts,
    Leads {
        votes: String,
    },
    Follows,
    Else,
    /// The process has ended.
    Ends,
}

#[derive(Clone, Debug)]
struct Line {
    node: usize,
    term: u64,
    kind: LineKind,
}

/// Parses a line such as `   176 ms  node 1  term 1  LEADS, by the votes of [0, 1]`.
fn parse(line: &str) -> Option<Line> {
    let mut parts = line.trim_start().split("  ").skip(1);
    let node = parts.next()?.strip_prefix("node ")?.parse().ok()?;
    let term = parts.next()?.strip_prefix("term ")?.parse().ok()?;
    let text = parts.next()?;
    let kind = match text.split_once(", by the votes of ") {
        Some(("LEADS", votes)) => LineKind::Leads { votes: votes.into() },
        _ if text == "starts" => LineKind::Starts,
        _ if text.starts_with("follows ") => LineKind::Follows,
        _ => LineKind::Else,
    };
    Some(Line { node, term, kind })
}

struct Cluster {
    nodes: Vec<Child>,
    lines: Receiver<Line>,
    /// The leaders' lines by term.
    leaders: BTreeMap<u64, Line>,
}

impl Cluster {
    /// Starts the first `running` of `all` nodes at free ports.
    fn start(running: usize, all: u16) -> (Cluster, Vec<u16>) {
        static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        let program = example("raft");
        loop {
            // These ports are below the range that the kernel assigns to connections.
            let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
            let base = 20_000 + (std::process::id() * 16 + attempt * 4) % 10_000;
            let ports: Vec<u16> = (0..all).map(|n| base as u16 + n).collect();
            let is_free = |&port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if !ports.iter().all(is_free) {
                continue;
            }
            let (sender, lines) = channel();
            let start = |node: usize| {
                let address = |port: &u16| format!("127.0.0.1:{port}");
                let others = ports.iter().filter(|port| **port != ports[node]);
                let others: Vec<String> = others.map(address).collect();
                let mut command = Command::new(&program);
                command.args(["--listen", &address(&ports[node]), "--peers", &others.join(",")]);
                let mut child = support::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
                let (sender, out) = (sender.clone(), child.stdout.take().unwrap());
                thread::spawn(move || {
                    for line in BufReader::new(out).lines().map_while(Result::ok) {
                        let line = parse(&line).unwrap_or_else(|| panic!("{line}"));
                        assert_eq!(line.node, node);
                        let _ = sender.send(line);
                    }
                    let _ = sender.send(Line { node, term: 0, kind: LineKind::Ends });
                });
                child
            };
            let nodes = (0..running).map(start).collect();
            let mut cluster = Cluster { nodes, lines, leaders: BTreeMap::new() };
            // Another program may have taken a port meanwhile.
            let begins = |line: &Line| matches!(line.kind, LineKind::Starts | LineKind::Ends);
            if (0..running).all(|_| cluster.wait(begins).kind == LineKind::Starts) {
                return (cluster, ports);
            }
        }
    }

    /// Waits for the next line that `is_wanted` accepts. Asserts that no term has two leaders.
    #[track_caller]
    fn wait(&mut self, is_wanted: impl Fn(&Line) -> bool) -> Line {
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the line comes in time");
            if matches!(line.kind, LineKind::Leads { .. }) {
                let before = self.leaders.insert(line.term, line.clone());
                assert!(before.is_none(), "two leaders: {before:?} and {line:?}");
            }
            if is_wanted(&line) {
                return line;
            }
        }
    }

    /// Waits for a leader in a term after `before`. Returns the line of the last leader.
    #[track_caller]
    fn leader_after(&mut self, before: u64) -> Line {
        loop {
            match self.leaders.last_key_value() {
                Some((term, line)) if *term > before => return line.clone(),
                _ => drop(self.wait(|line| matches!(line.kind, LineKind::Leads { .. }))),
            }
        }
    }

    fn signal(&self, node: usize, signal: Signal) {
        kill(Pid::from_raw(self.nodes[node].id() as i32), signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill().unwrap();
            node.wait().unwrap();
        }
    }
}

/// Returns true if `node` voted for this leader.
fn voted_for(line: &Line, node: usize) -> bool {
    let LineKind::Leads { votes } = &line.kind else { panic!("{line:?}") };
    votes.contains(&node.to_string())
}

#[test]
fn others_elect_when_a_leader_stops_or_dies() {
    let (mut cluster, _) = Cluster::start(3, 3);
    let mut leader = cluster.leader_after(0);
    loop {
        cluster.signal(leader.node, Signal::SIGSTOP);
        let next = cluster.leader_after(leader.term);
        cluster.signal(leader.node, Signal::SIGCONT);
        if voted_for(&next, leader.node) {
            leader = next; // this leader was elected before the stop
            continue;
        }
        let stopped = leader.node;
        let goes_on = |line: &Line| {
            let settles = matches!(line.kind, LineKind::Follows | LineKind::Leads { .. });
            line.node == stopped && line.term >= next.term && settles
        };
        let line = cluster.wait(goes_on);
        if line.kind == LineKind::Follows {
            break;
        }
        leader = line; // the node was elected again before a message of the other leader arrived
    }
    let killed = cluster.leader_after(0);
    cluster.signal(killed.node, Signal::SIGKILL);
    let mut next = cluster.leader_after(killed.term);
    while next.node == killed.node {
        next = cluster.leader_after(next.term); // this node was elected before the kill
    }
}

#[test]
fn frames_in_pieces_are_read_garbage_is_refused() {
    // The other nodes do not run, so the node receives only the test's frames.
    let (mut cluster, ports) = Cluster::start(1, 3);
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", ports[0])).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let frame = |from: u8, term: u64, body: u8| -> Vec<u8> {
        let from = u64::from(from).to_be_bytes();
        [&[0, 0, 0, 17], &from[..], &term.to_be_bytes(), &[body]].concat()
    };
    let heartbeat = 3;
    for garbage in [vec![0xff; 1_000_000], frame(1, 1 << 20, 9)] {
        let mut stream = connect();
        // The node closes the connection, perhaps before the write is complete.
        let _ = stream.write_all(&garbage);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    let mut stream = connect();
    for from in [1, 2] {
        // The terms are so far apart that no election can reach the next term.
        let term = u64::from(from) << 30;
        for piece in frame(from, term, heartbeat).chunks(1) {
            stream.write_all(piece).unwrap();
        }
        let line = cluster.wait(|line| line.kind == LineKind::Follows);
        assert_eq!(line.term, term);
    }
    // Two frames in one piece.
    let both = [frame(1, 1 << 40, heartbeat), frame(2, 1 << 41, heartbeat)].concat();
    stream.write_all(&both).unwrap();
    for term in [1 << 40, 1 << 41] {
        assert_eq!(cluster.wait(|line| line.kind == LineKind::Follows).term, term);
    }
    assert!(cluster.leaders.is_empty(), "one node of three was elected");
}

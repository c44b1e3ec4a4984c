//! The example `raft` in processes of their own, over TCP: who is stopped or killed is replaced,
//! and who goes on follows. The test reads what the processes print.
//!
//! An election may come at any time, because any process may stand still for a while. So a scene
//! whose leader was none any more is played again.

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

/// The most time that a fact may take.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Debug, PartialEq)]
enum What {
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
    what: What,
}

/// Takes `   176 ms  node 1  term 1  LEADS, by the votes of [0, 1]` apart.
fn parse(line: &str) -> Option<Line> {
    let mut parts = line.trim_start().split("  ").skip(1);
    let node = parts.next()?.strip_prefix("node ")?.parse().ok()?;
    let term = parts.next()?.strip_prefix("term ")?.parse().ok()?;
    let text = parts.next()?;
    let what = match text.split_once(", by the votes of ") {
        Some(("LEADS", votes)) => What::Leads { votes: votes.into() },
        _ if text == "starts" => What::Starts,
        _ if text.starts_with("follows ") => What::Follows,
        _ => What::Else,
    };
    Some(Line { node, term, what })
}

struct Cluster {
    nodes: Vec<Child>,
    lines: Receiver<Line>,
    /// By term.
    leaders: BTreeMap<u64, Line>,
}

impl Cluster {
    /// Begins `running` of `all` nodes, at ports that nothing else has.
    fn start(running: usize, all: u16) -> (Cluster, Vec<u16>) {
        static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
        let program = example("raft");
        loop {
            // Below those that the kernel gives to connections.
            let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed);
            let base = 20_000 + (std::process::id() * 16 + attempt * 4) % 10_000;
            let ports: Vec<u16> = (0..all).map(|n| base as u16 + n).collect();
            let is_free = |&port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if !ports.iter().all(is_free) {
                continue;
            }
            let (tell, lines) = channel();
            let start = |node: usize| {
                let address = |port: &u16| format!("127.0.0.1:{port}");
                let others = ports.iter().filter(|port| **port != ports[node]);
                let others: Vec<String> = others.map(address).collect();
                let mut command = Command::new(&program);
                command.args(["--listen", &address(&ports[node]), "--peers", &others.join(",")]);
                let mut child = support::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
                let (tell, out) = (tell.clone(), child.stdout.take().unwrap());
                thread::spawn(move || {
                    for line in BufReader::new(out).lines().map_while(Result::ok) {
                        let line = parse(&line).unwrap_or_else(|| panic!("{line}"));
                        assert_eq!(line.node, node);
                        let _ = tell.send(line);
                    }
                    let _ = tell.send(Line { node, term: 0, what: What::Ends });
                });
                child
            };
            let nodes = (0..running).map(start).collect();
            let mut cluster = Cluster { nodes, lines, leaders: BTreeMap::new() };
            // Another program may have taken a port meanwhile.
            let begins = |line: &Line| matches!(line.what, What::Starts | What::Ends);
            if (0..running).all(|_| cluster.wait(begins).what == What::Starts) {
                return (cluster, ports);
            }
        }
    }

    /// The next line that is wanted. No term has two leaders.
    #[track_caller]
    fn wait(&mut self, is_wanted: impl Fn(&Line) -> bool) -> Line {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the line comes in time");
            if matches!(line.what, What::Leads { .. }) {
                let before = self.leaders.insert(line.term, line.clone());
                assert!(before.is_none(), "two leaders: {before:?} and {line:?}");
            }
            if is_wanted(&line) {
                return line;
            }
        }
    }

    /// The last leader, in a term after `before`.
    #[track_caller]
    fn leader_after(&mut self, before: u64) -> Line {
        loop {
            match self.leaders.last_key_value() {
                Some((term, line)) if *term > before => return line.clone(),
                _ => drop(self.wait(|line| matches!(line.what, What::Leads { .. }))),
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

/// Did the stopped or killed node have a part in this election?
fn had_a_part(line: &Line, node: usize) -> bool {
    let What::Leads { votes } = &line.what else { panic!("{line:?}") };
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
        if had_a_part(&next, leader.node) {
            leader = next; // elected before the stop
            continue;
        }
        let stopped = leader.node;
        let goes_on = |line: &Line| {
            let settles = matches!(line.what, What::Follows | What::Leads { .. });
            line.node == stopped && line.term >= next.term && settles
        };
        let line = cluster.wait(goes_on);
        if line.what == What::Follows {
            break;
        }
        leader = line; // it was elected again, before it had heard of the other
    }
    let killed = cluster.leader_after(0);
    cluster.signal(killed.node, Signal::SIGKILL);
    let mut next = cluster.leader_after(killed.term);
    while next.node == killed.node {
        next = cluster.leader_after(next.term); // elected before the kill
    }
}

#[test]
fn a_frame_in_pieces_is_heard_and_garbage_is_not() {
    // The others are not there: what comes is ours.
    let (mut cluster, ports) = Cluster::start(1, 3);
    let dial = || {
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
        let mut stream = dial();
        // The node closes, perhaps before all is written.
        let _ = stream.write_all(&garbage);
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    let mut stream = dial();
    for from in [1, 2] {
        // So far apart that no election comes in between.
        let term = u64::from(from) << 30;
        for piece in frame(from, term, heartbeat).chunks(1) {
            stream.write_all(piece).unwrap();
        }
        let line = cluster.wait(|line| line.what == What::Follows);
        assert_eq!(line.term, term);
    }
    // Two frames in one piece.
    let both = [frame(1, 1 << 40, heartbeat), frame(2, 1 << 41, heartbeat)].concat();
    stream.write_all(&both).unwrap();
    for term in [1 << 40, 1 << 41] {
        assert_eq!(cluster.wait(|line| line.what == What::Follows).term, term);
    }
    assert!(cluster.leaders.is_empty(), "one of three leads nobody");
}

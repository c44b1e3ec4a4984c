//! The nodes of the example `raft` in a `SimWorld`: a thousand histories with losses, delays, overtaking messages, partitions, crashes and restarts, in none of which a term has two leaders.
//!
//! A history is its seed. `cargo test --release --test raft_sim -- --nocapture` prints how much faster than the clock they pass.

// The example uses what this file does not.
#[allow(dead_code)]
#[path = "../examples/raft/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use node::{Disk, Event, Id, Message, Peer, Setup, Term, What};
use pollmux::channel::{self, Receiver};
use pollmux::{Context, Link, SimWorld, Time, WorldStats};

const SEEDS: u64 = 1_000;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a history is made of, from its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct Cluster {
    world: SimWorld,
    seed: u64,
    names: Vec<String>,
    /// From, to.
    links: BTreeMap<(Id, Id), Link<Message>>,
    disks: Vec<Disk>,
    trace: Arc<Mutex<Vec<Event>>>,
}

impl Cluster {
    fn new(seed: u64, nodes: usize) -> Cluster {
        let world = SimWorld::new(seed);
        let names: Vec<String> = (0..nodes).map(|id| format!("node {id}")).collect();
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..nodes).map(|_| channel::unbounded()).unzip();
        let pairs =
            (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let links = pairs
            .map(|(from, to)| ((from, to), world.link(&names[from], &names[to], senders[to].clone())))
            .collect();
        let disks = vec![(); nodes].into_iter().map(|()| Disk::default()).collect();
        let cluster = Cluster { world, seed, names, links, disks, trace: Arc::default() };
        inboxes.into_iter().enumerate().for_each(|(id, inbox)| cluster.start(id, inbox));
        cluster
    }

    fn start(&self, id: Id, inbox: Receiver<Message>) {
        let link = |(&(from, to), link): (&(Id, Id), &Link<Message>)| {
            (from == id).then(|| (to, Box::new(link.clone()) as Box<dyn Peer>))
        };
        let (trace, disk, seed) = (self.trace.clone(), self.disks[id].clone(), self.seed);
        let peers = self.links.iter().filter_map(link).collect();
        self.world.spawn(&self.names[id], move |reactor| {
            let report = move |event| trace.lock().unwrap().push(event);
            let (timing, context) = (Default::default(), Context::background());
            node::run(&reactor, Setup { id, peers, inbox, disk, timing, seed, context, report }).unwrap();
        });
    }

    /// A crash: all is lost but the ballot.
    fn crash(&self, id: Id) {
        assert!(self.world.kill(&self.names[id]));
    }

    fn restart(&self, id: Id) {
        let (sender, inbox) = channel::unbounded();
        for (&(_, to), link) in &self.links {
            if to == id {
                link.reconnect(sender.clone());
            }
        }
        self.start(id, inbox);
    }

    fn set_loss(&self, probability: f64) {
        self.links.values().for_each(|link| link.set_loss(probability));
    }

    fn set_delay(&self, slowest: Duration) {
        self.links.values().for_each(|link| link.set_delay(ms(1)..=slowest));
    }

    fn run_for(&mut self, d: Duration) {
        self.world.run_for(d).unwrap_or_else(|deadlock| panic!("seed {}: {deadlock}", self.seed));
    }

    /// The leader that all nodes agree on.
    fn leader(&self) -> Option<(Id, Term)> {
        let trace = self.trace.lock().unwrap();
        // A vote may come after the leader was heard, when messages overtake each other.
        let is_vote = |event: &&Event| matches!(event.what, What::VotesFor(_));
        let term = trace.iter().map(|event| event.term).max()?;
        let last =
            |id: Id| trace.iter().rev().filter(move |event| event.node == id).find(|event| !is_vote(event));
        let lasts: Vec<&Event> = (0..self.names.len()).filter_map(last).collect();
        let leader = lasts.iter().position(|event| matches!(event.what, What::Leads { .. }))?;
        let agrees = |event: &&Event| event.node == leader || event.what == What::Follows(leader);
        let agreed = lasts.iter().all(|event| event.term == term && agrees(event));
        agreed.then_some((leader, term))
    }

    /// The rules that no history may break.
    fn check(&self) {
        let (seed, trace) = (self.seed, self.trace.lock().unwrap());
        let mut leaders: BTreeMap<Term, Id> = BTreeMap::new();
        let mut votes: BTreeMap<(Id, Term), Id> = BTreeMap::new();
        for Event { node, term, what, .. } in trace.iter() {
            match what {
                What::Leads { votes: by } => {
                    let other = leaders.insert(*term, *node);
                    assert!(other.is_none(), "seed {seed}: {node} and {other:?} lead in term {term}");
                    assert!(by.len() * 2 > self.names.len(), "seed {seed}: {by:?} is no majority");
                    for voter in by {
                        let vote = votes.get(&(*voter, *term));
                        assert_eq!(vote, Some(node), "seed {seed}: the vote of {voter} in term {term}");
                    }
                }
                What::VotesFor(candidate) => {
                    let before = votes.insert((*node, *term), *candidate);
                    assert!(before.is_none(), "seed {seed}: {node} votes twice in term {term}");
                }
                What::Stands => {
                    let before = votes.insert((*node, *term), *node);
                    assert!(before.is_none(), "seed {seed}: {node} stands where it has voted, term {term}");
                }
                What::Follows(leader) => {
                    assert_eq!(leaders.get(term), Some(leader), "seed {seed}: {node} in term {term}");
                }
                What::Starts | What::StepsDown | What::Stops => {}
            }
        }
    }
}

/// What a history comes to.
#[derive(Debug, PartialEq)]
struct History {
    trace: Vec<Event>,
    end: Time,
    stats: WorldStats,
    terms: usize,
}

fn history(seed: u64) -> History {
    let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let nodes = if seed % 4 == 0 { 5 } else { 3 };
    let mut cluster = Cluster::new(seed, nodes);
    // In some a message may outlive the election that it belongs to.
    let slowest = if seed % 5 == 0 { ms(500) } else { ms(1 + dice.below(40)) };
    cluster.set_delay(slowest);
    cluster.links.values().for_each(|link| link.set_reordering(seed % 2 == 0));
    cluster.set_loss(dice.below(30) as f64 / 100.0);
    cluster.run_for(ms(300 + dice.below(700)));

    for _ in 0..2 {
        // Some are parted from the rest, which may be the majority or not, with the leader or without; and one crashes.
        let side: Vec<&str> =
            cluster.names.iter().map(String::as_str).filter(|_| dice.below(2) == 0).collect();
        cluster.world.partition(&[&side]);
        cluster.run_for(ms(200 + dice.below(400)));
        let crashed = (dice.below(2) == 0).then(|| dice.below(nodes as u64) as Id);
        if let Some(id) = crashed {
            cluster.crash(id);
        }
        cluster.run_for(ms(200 + dice.below(400)));
        if let Some(id) = crashed {
            cluster.restart(id);
        }
    }

    cluster.world.heal();
    cluster.set_loss(0.0);
    cluster.set_delay(ms(20));
    let healed = cluster.world.now();
    while cluster.leader().is_none() {
        cluster.run_for(ms(50));
        assert!(
            cluster.world.now() - healed < Duration::from_secs(10),
            "seed {seed}: no leader after healing"
        );
    }
    cluster.check();
    let trace = cluster.trace.lock().unwrap().clone();
    let terms = trace.iter().filter(|event| matches!(event.what, What::Leads { .. })).count();
    History { trace, end: cluster.world.now(), stats: cluster.world.stats(), terms }
}

#[test]
fn a_thousand_histories_have_no_term_with_two_leaders_and_a_leader_after_healing() {
    let start = Instant::now();
    let (simulated, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let (terms, lost, handovers) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        // Worlds know nothing of each other.
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    let history = history(seed);
                    simulated.fetch_add((history.end - Time::ZERO).as_millis() as u64, Ordering::Relaxed);
                    terms.fetch_add(history.terms as u64, Ordering::Relaxed);
                    lost.fetch_add(history.stats.links.lost, Ordering::Relaxed);
                    handovers.fetch_add(history.stats.handovers, Ordering::Relaxed);
                }
            });
        }
    });
    let (simulated, real) = (simulated.into_inner() as f64 / 1e3, start.elapsed().as_secs_f64());
    println!(
        "{SEEDS} histories: {simulated:.0} s simulated in {real:.1} s, {:.0} times as fast; {} leaders, {} messages lost, {} handovers",
        simulated / real,
        terms.into_inner(),
        lost.into_inner(),
        handovers.into_inner(),
    );
}

#[test]
fn the_same_seed_is_the_same_history_and_another_one_is_another() {
    for seed in 0..20 {
        let first = history(seed);
        assert_eq!(first, history(seed), "seed {seed}");
        assert_ne!(first.trace, history(seed + SEEDS).trace, "seed {seed}");
    }
}

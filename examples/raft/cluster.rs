//! Runs clusters of nodes in a `SimWorld` with losses, delays, reordering, partitions, crashes and
//! restarts. The seed decides all faults. Checks the rules that no history may break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pollmux::channel::{self, Receiver};
use pollmux::{
    Context, SimWorld, Time,
    sim::{Link, WorldStats},
};

use crate::node::{self, Disk, Event, EventKind, Id, Message, Peer, Setup, Term};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A generator of random numbers, seeded by the history's seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct Cluster<'w> {
    world: &'w mut SimWorld,
    seed: u64,
    /// If true, a crash loses the node's vote, as a disk without a flush does.
    has_bug: bool,
    names: Vec<String>,
    /// The links by the ids of the sender and the receiver.
    links: BTreeMap<(Id, Id), Link<Message>>,
    disks: Vec<Disk>,
    trace: Arc<Mutex<Vec<Event>>>,
}

impl<'w> Cluster<'w> {
    fn new(world: &'w mut SimWorld, seed: u64, nodes: usize, has_bug: bool) -> Cluster<'w> {
        let names: Vec<String> = (0..nodes).map(|id| format!("node {id}")).collect();
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..nodes).map(|_| channel::unbounded()).unzip();
        let pairs = (0..nodes)
            .flat_map(|from| (0..nodes).map(move |to| (from, to)))
            .filter(|(from, to)| from != to);
        let link = |from: &str, to: &str, channel: &channel::Sender<Message>| {
            world.link(from, to, channel.clone()).with_text()
        };
        let links = pairs
            .map(|(from, to)| ((from, to), link(&names[from], &names[to], &senders[to])))
            .collect();
        let disks = vec![(); nodes].into_iter().map(|()| Disk::default()).collect();
        let cluster = Cluster { world, seed, has_bug, names, links, disks, trace: Arc::default() };
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
            node::run(&reactor, Setup { id, peers, inbox, disk, timing, seed, context, report })
                .unwrap();
        });
    }

    /// Crashes a node, which loses all its state except the ballot.
    fn crash(&self, id: Id) {
        assert!(self.world.kill(&self.names[id]));
        if self.has_bug {
            self.disks[id].lock().unwrap_or_else(PoisonError::into_inner).voted_for = None;
        }
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

    fn run_for(&mut self, d: Duration) -> Result<(), String> {
        self.world.run_for(d).map_err(|deadlock| deadlock.to_string())?;
        self.check()
    }

    /// Returns the leader that all nodes agree on, and its term.
    fn leader(&self) -> Option<(Id, Term)> {
        let trace = self.trace.lock().unwrap();
        // With reordered messages, a node may vote after its first heartbeat of the leader.
        let is_vote = |event: &&Event| matches!(event.kind, EventKind::VotesFor(_));
        let term = trace.iter().map(|event| event.term).max()?;
        let last = |id: Id| {
            trace.iter().rev().filter(move |event| event.node == id).find(|event| !is_vote(event))
        };
        let lasts: Vec<&Event> = (0..self.names.len()).filter_map(last).collect();
        let leader =
            lasts.iter().position(|event| matches!(event.kind, EventKind::Leads { .. }))?;
        let agrees =
            |event: &&Event| event.node == leader || event.kind == EventKind::Follows(leader);
        let agreed = lasts.iter().all(|event| event.term == term && agrees(event));
        agreed.then_some((leader, term))
    }

    /// Checks the rules that no history may break.
    fn check(&self) -> Result<(), String> {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut leaders: BTreeMap<Term, Id> = BTreeMap::new();
        let mut votes: BTreeMap<(Id, Term), Id> = BTreeMap::new();
        let rule = |holds: bool, text: String| if holds { Ok(()) } else { Err(text) };
        for Event { node, term, kind, .. } in trace.iter() {
            match kind {
                EventKind::Leads { votes: by } => {
                    let other = leaders.insert(*term, *node);
                    rule(other.is_none(), format!("{node} and {other:?} lead in term {term}"))?;
                    rule(by.len() * 2 > self.names.len(), format!("{by:?} is no majority"))?;
                    for voter in by {
                        let vote = votes.get(&(*voter, *term));
                        rule(vote == Some(node), format!("the vote of {voter} in term {term}"))?;
                    }
                }
                EventKind::VotesFor(candidate) => {
                    let before = votes.insert((*node, *term), *candidate);
                    // The search must find the deliberate bug by its effect: two leaders.
                    let once = before.is_none() || self.has_bug;
                    rule(once, format!("{node} votes twice in term {term}"))?;
                }
                EventKind::StartsElection => {
                    let before = votes.insert((*node, *term), *node);
                    rule(
                        before.is_none(),
                        format!("{node} starts an election in term {term} after its vote"),
                    )?;
                }
                EventKind::Follows(leader) => {
                    let is_led = leaders.get(term) == Some(leader);
                    rule(is_led, format!("{node} follows {leader} in term {term}"))?;
                }
                EventKind::Starts | EventKind::StepsDown | EventKind::Stops => {}
            }
        }
        Ok(())
    }
}

/// The result of a history.
#[derive(Debug, PartialEq)]
pub struct History {
    pub trace: Vec<Event>,
    pub end: Time,
    pub stats: WorldStats,
    /// The number of elected leaders.
    pub terms: usize,
}

/// Runs the history of `seed` in `world`. An error names the rule that the history breaks.
pub fn history(world: &mut SimWorld, seed: u64, has_bug: bool) -> Result<History, String> {
    let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let nodes = if seed % 4 == 0 { 5 } else { 3 };
    let mut cluster = Cluster::new(world, seed, nodes, has_bug);
    // With one seed in five, a message may arrive after the end of its election.
    let slowest = if seed % 5 == 0 { ms(500) } else { ms(1 + random.below(40)) };
    cluster.set_delay(slowest);
    cluster.links.values().for_each(|link| link.set_reordering(seed % 2 == 0));
    cluster.set_loss(random.below(30) as f64 / 100.0);
    cluster.run_for(ms(300 + random.below(700)))?;

    for _ in 0..2 {
        // A partition separates some nodes. Either side may be the majority, and either side may
        // have the leader. Then one node may crash.
        let side: Vec<&str> =
            cluster.names.iter().map(String::as_str).filter(|_| random.below(2) == 0).collect();
        cluster.world.partition(&[&side]);
        cluster.run_for(ms(200 + random.below(400)))?;
        let crashed = (random.below(2) == 0).then(|| random.below(nodes as u64) as Id);
        if let Some(id) = crashed {
            cluster.crash(id);
        }
        cluster.run_for(ms(200 + random.below(400)))?;
        if let Some(id) = crashed {
            cluster.restart(id);
        }
    }

    cluster.world.heal();
    cluster.set_loss(0.0);
    cluster.set_delay(ms(20));
    let healed = cluster.world.now();
    while cluster.leader().is_none() {
        cluster.run_for(ms(50))?;
        if cluster.world.now() - healed > Duration::from_secs(10) {
            return Err("no leader after healing".to_owned());
        }
    }
    let trace = cluster.trace.lock().unwrap().clone();
    let terms = trace.iter().filter(|event| matches!(event.kind, EventKind::Leads { .. })).count();
    Ok(History { trace, end: cluster.world.now(), stats: cluster.world.stats(), terms })
}

//! Whole clusters of nodes in a `SimWorld`: losses, delays, overtaking messages, partitions,
//! crashes and restarts, all from one seed, and the rules that no history may break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pollmux::channel::{self, Receiver};
use pollmux::{
    Context, SimWorld, Time,
    sim::{Link, WorldStats},
};

use crate::node::{self, Disk, Event, Id, Message, Peer, Setup, Term, What};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The parts of a history, from its seed.
struct Dice(u64);

impl Dice {
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
    /// A crash forgets for whom the node has voted: the disk was not flushed.
    has_bug: bool,
    names: Vec<String>,
    /// From, to.
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

    /// A crash: all is lost but the ballot.
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

    /// The leader that all nodes agree on.
    fn leader(&self) -> Option<(Id, Term)> {
        let trace = self.trace.lock().unwrap();
        // A vote may come after the leader was heard, when messages overtake each other.
        let is_vote = |event: &&Event| matches!(event.what, What::VotesFor(_));
        let term = trace.iter().map(|event| event.term).max()?;
        let last = |id: Id| {
            trace.iter().rev().filter(move |event| event.node == id).find(|event| !is_vote(event))
        };
        let lasts: Vec<&Event> = (0..self.names.len()).filter_map(last).collect();
        let leader = lasts.iter().position(|event| matches!(event.what, What::Leads { .. }))?;
        let agrees = |event: &&Event| event.node == leader || event.what == What::Follows(leader);
        let agreed = lasts.iter().all(|event| event.term == term && agrees(event));
        agreed.then_some((leader, term))
    }

    /// The rules that no history may break.
    fn check(&self) -> Result<(), String> {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut leaders: BTreeMap<Term, Id> = BTreeMap::new();
        let mut votes: BTreeMap<(Id, Term), Id> = BTreeMap::new();
        let rule = |holds: bool, text: String| if holds { Ok(()) } else { Err(text) };
        for Event { node, term, what, .. } in trace.iter() {
            match what {
                What::Leads { votes: by } => {
                    let other = leaders.insert(*term, *node);
                    rule(other.is_none(), format!("{node} and {other:?} lead in term {term}"))?;
                    rule(by.len() * 2 > self.names.len(), format!("{by:?} is no majority"))?;
                    for voter in by {
                        let vote = votes.get(&(*voter, *term));
                        rule(vote == Some(node), format!("the vote of {voter} in term {term}"))?;
                    }
                }
                What::VotesFor(candidate) => {
                    let before = votes.insert((*node, *term), *candidate);
                    // The deliberate bug is to be found by its harm: two leaders.
                    let once = before.is_none() || self.has_bug;
                    rule(once, format!("{node} votes twice in term {term}"))?;
                }
                What::Stands => {
                    let before = votes.insert((*node, *term), *node);
                    rule(
                        before.is_none(),
                        format!("{node} stands where it has voted, term {term}"),
                    )?;
                }
                What::Follows(leader) => {
                    let is_led = leaders.get(term) == Some(leader);
                    rule(is_led, format!("{node} follows {leader} in term {term}"))?;
                }
                What::Starts | What::StepsDown | What::Stops => {}
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
    /// The number of leaders.
    pub terms: usize,
}

/// The history of a seed in a world of that seed. An error names the rule that it breaks.
pub fn history(world: &mut SimWorld, seed: u64, has_bug: bool) -> Result<History, String> {
    let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let nodes = if seed % 4 == 0 { 5 } else { 3 };
    let mut cluster = Cluster::new(world, seed, nodes, has_bug);
    // In some a message may outlive the election that it belongs to.
    let slowest = if seed % 5 == 0 { ms(500) } else { ms(1 + dice.below(40)) };
    cluster.set_delay(slowest);
    cluster.links.values().for_each(|link| link.set_reordering(seed % 2 == 0));
    cluster.set_loss(dice.below(30) as f64 / 100.0);
    cluster.run_for(ms(300 + dice.below(700)))?;

    for _ in 0..2 {
        // Some are parted from the rest, which may be the majority or not, with the leader or
        // without; and one crashes.
        let side: Vec<&str> =
            cluster.names.iter().map(String::as_str).filter(|_| dice.below(2) == 0).collect();
        cluster.world.partition(&[&side]);
        cluster.run_for(ms(200 + dice.below(400)))?;
        let crashed = (dice.below(2) == 0).then(|| dice.below(nodes as u64) as Id);
        if let Some(id) = crashed {
            cluster.crash(id);
        }
        cluster.run_for(ms(200 + dice.below(400)))?;
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
    let terms = trace.iter().filter(|event| matches!(event.what, What::Leads { .. })).count();
    Ok(History { trace, end: cluster.world.now(), stats: cluster.world.stats(), terms })
}

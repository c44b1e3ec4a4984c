//! A node of Raft, as far as leader election goes: terms, votes and heartbeats, in one `select!`.
//!
//! After Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm", sections 5.1
//! and 5.2. There is no log, so every candidate is up to date. The node knows neither threads nor
//! sockets nor what clock it is on: it gets a reactor, an inbox and its peers.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pollmux::channel::{Receiver, Sender};
use pollmux::{Context, Reactor, Ticker, Time, Timer, select, sim::Link};

pub type Id = usize;
pub type Term = u64;

/// The messages between nodes. Every message has its sender's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: Id,
    pub term: Term,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Vote for me.
    RequestVote,
    /// True: you have my vote.
    Vote(bool),
    /// I lead.
    Heartbeat,
    /// I have heard it: by the term a leader learns that it leads no more.
    Heard,
}

/// The way to another node. Sending never waits, and may come to nothing.
pub trait Peer: Send {
    fn send(&self, message: Message);
}

impl Peer for Sender<Message> {
    fn send(&self, message: Message) {
        let _ = self.try_send(message); // one that is down hears nothing
    }
}

impl Peer for Link<Message> {
    fn send(&self, message: Message) {
        Link::send(self, message);
    }
}

/// The state that a node must not forget when it crashes. It is written before any node hears of
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    pub term: Term,
    pub voted_for: Option<Id>,
}

/// Where the ballot is kept: what a file would be.
pub type Disk = Arc<Mutex<Ballot>>;

#[derive(Clone, Debug)]
pub struct Timing {
    /// A follower that hears nothing for such a time stands for election. Random, so that mostly
    /// one is first.
    pub election: RangeInclusive<Duration>,
    /// The interval at which a leader says that it leads.
    pub heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing { election: ms(150)..=ms(300), heartbeat: ms(50) }
    }
}

/// The reports of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Time,
    pub node: Id,
    pub term: Term,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Starts,
    Stands,
    VotesFor(Id),
    Leads { votes: Vec<Id> },
    Follows(Id),
    StepsDown,
    Stops,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}  term {}  ", self.node, self.term)?;
        match &self.what {
            What::Starts => f.write_str("starts"),
            What::Stands => f.write_str("has heard no leader and stands for election"),
            What::VotesFor(candidate) => write!(f, "votes for node {candidate}"),
            What::Leads { votes } => write!(f, "LEADS, by the votes of {votes:?}"),
            What::Follows(leader) => write!(f, "follows node {leader}"),
            What::StepsDown => f.write_str("steps down: there is a later term"),
            What::Stops => f.write_str("stops"),
        }
    }
}

/// All that a node is given.
pub struct Setup<R> {
    pub id: Id,
    /// Every other node, by its id.
    pub peers: Vec<(Id, Box<dyn Peer>)>,
    pub inbox: Receiver<Message>,
    pub disk: Disk,
    pub timing: Timing,
    pub seed: u64,
    /// The node runs until this ends.
    pub context: Context,
    pub report: R,
}

enum Role {
    /// Of this leader, if it has been heard of.
    Follower(Option<Id>),
    Candidate(BTreeSet<Id>),
    Leader,
}

struct Node<'r, R> {
    reactor: &'r Reactor,
    id: Id,
    peers: Vec<(Id, Box<dyn Peer>)>,
    disk: Disk,
    role: Role,
    /// Armed unless it leads.
    election: Timer,
    /// Ticks while it leads.
    heartbeat: Ticker,
    timing: Timing,
    random: u64,
    report: R,
}

/// Runs a node until its context ends.
pub fn run<R: FnMut(Event)>(reactor: &Reactor, setup: Setup<R>) -> io::Result<()> {
    let Setup { id, peers, inbox, disk, timing, seed, context, report } = setup;
    let mut inbox = Some(reactor.register(inbox)?);
    let done = reactor.done(&context);
    let heartbeat = reactor.every(timing.heartbeat)?;
    heartbeat.stop();
    let random = (seed ^ (id as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let election = reactor.timer();
    let role = Role::Follower(None);
    let mut node =
        Node { reactor, id, peers, disk, role, election, heartbeat, timing, random, report };
    node.tell(What::Starts);
    node.await_leader();
    loop {
        select! { reactor;
            recv(inbox) -> message => match message {
                Ok(message) => node.receive(message),
                Err(_) => inbox = None, // nobody is left to hear from
            },
            recv(node.election) -> _ => node.stand(),
            recv(node.heartbeat) -> _ => node.broadcast(Body::Heartbeat),
            recv(done) -> _ => break,
        }
    }
    node.tell(What::Stops);
    Ok(())
}

impl<R: FnMut(Event)> Node<'_, R> {
    fn ballot(&self) -> Ballot {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, ballot: Ballot) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = ballot;
    }

    fn tell(&mut self, what: What) {
        let event = Event { at: self.reactor.now(), node: self.id, term: self.ballot().term, what };
        (self.report)(event);
    }

    fn send(&self, to: Id, body: Body) {
        let message = Message { from: self.id, term: self.ballot().term, body };
        if let Some((_, peer)) = self.peers.iter().find(|(id, _)| *id == to) {
            peer.send(message);
        }
    }

    fn broadcast(&self, body: Body) {
        self.peers.iter().for_each(|(to, _)| self.send(*to, body));
    }

    fn is_majority(&self, votes: usize) -> bool {
        votes * 2 > self.peers.len() + 1
    }

    /// Puts the election off by a random time.
    fn await_leader(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (least, most) = (*self.timing.election.start(), *self.timing.election.end());
        let nanos = (most - least).as_nanos() as u64;
        self.election.reset(least + Duration::from_nanos(self.random % (nanos + 1)));
    }

    /// Nobody has led for an election's time.
    fn stand(&mut self) {
        self.write(Ballot { term: self.ballot().term + 1, voted_for: Some(self.id) });
        self.role = Role::Candidate(BTreeSet::new());
        self.tell(What::Stands);
        self.await_leader();
        self.broadcast(Body::RequestVote);
        self.count(self.id);
    }

    fn count(&mut self, voter: Id) {
        let Role::Candidate(votes) = &mut self.role else { return };
        votes.insert(voter);
        let votes: Vec<Id> = votes.iter().copied().collect();
        if self.is_majority(votes.len()) {
            self.role = Role::Leader;
            self.election.stop();
            self.heartbeat.restart();
            self.tell(What::Leads { votes });
            self.broadcast(Body::Heartbeat);
        }
    }

    fn receive(&mut self, Message { from, term, body }: Message) {
        if term > self.ballot().term {
            self.enter(term);
        }
        let current = term == self.ballot().term;
        match body {
            Body::RequestVote => self.vote(from, current),
            Body::Vote(granted) => {
                if current && granted {
                    self.count(from);
                }
            }
            Body::Heartbeat => {
                if current {
                    self.follow(from);
                }
                self.send(from, Body::Heard);
            }
            Body::Heard => {} // the term was the news
        }
    }

    /// A later term has begun: whatever this node was, in that term it follows, and has not voted.
    fn enter(&mut self, term: Term) {
        self.write(Ballot { term, voted_for: None });
        if let Role::Leader = self.role {
            self.heartbeat.stop();
            self.tell(What::StepsDown);
            self.await_leader();
        }
        self.role = Role::Follower(None);
    }

    fn vote(&mut self, candidate: Id, current: bool) {
        let ballot = self.ballot();
        let granted = current && ballot.voted_for.is_none_or(|voted_for| voted_for == candidate);
        if granted {
            self.write(Ballot { voted_for: Some(candidate), ..ballot });
            if ballot.voted_for.is_none() {
                self.tell(What::VotesFor(candidate));
            }
            self.await_leader();
        }
        self.send(candidate, Body::Vote(granted));
    }

    fn follow(&mut self, leader: Id) {
        let known = matches!(self.role, Role::Follower(Some(known)) if known == leader);
        if !known {
            self.role = Role::Follower(Some(leader));
            self.tell(What::Follows(leader));
        }
        self.await_leader();
    }
}

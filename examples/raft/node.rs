//! The leader election of a Raft node: terms, votes and heartbeats, in one `select!`.
//!
//! The source is Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm",
//! sections 5.1 and 5.2. There is no log, so every candidate is up to date. A node gets a reactor,
//! an inbox and its peers. Its code works with any threads, sockets and clocks.

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

/// A message between nodes. Every message has its sender's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub from: Id,
    pub term: Term,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The sender is a candidate, and requests a vote.
    RequestVote,
    /// The answer to a request for a vote. True grants the vote.
    Vote(bool),
    /// The sender is the leader.
    Heartbeat,
    /// The answer to a heartbeat. Its term may tell an old leader that a later term has begun.
    Ack,
}

/// A connection to another node. `send` never blocks, and may lose the message.
pub trait Peer: Send {
    fn send(&self, message: Message);
}

impl Peer for Sender<Message> {
    fn send(&self, message: Message) {
        let _ = self.try_send(message); // a message to a stopped node is lost
    }
}

impl Peer for Link<Message> {
    fn send(&self, message: Message) {
        Link::send(self, message);
    }
}

/// The state that a node must keep when it crashes. A node writes its ballot before it sends the
/// message that depends on the ballot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    pub term: Term,
    pub voted_for: Option<Id>,
}

/// The storage of the ballot, in the place of a file.
pub type Disk = Arc<Mutex<Ballot>>;

#[derive(Clone, Debug)]
pub struct Timing {
    /// The range of the random time after which a follower without heartbeats starts an election.
    /// Random times make it likely that one node is first.
    pub election: RangeInclusive<Duration>,
    /// The interval at which a leader sends heartbeats.
    pub heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let ms = Duration::from_millis;
        Timing { election: ms(150)..=ms(300), heartbeat: ms(50) }
    }
}

/// A report of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Time,
    pub node: Id,
    pub term: Term,
    pub kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    Starts,
    StartsElection,
    VotesFor(Id),
    Leads { votes: Vec<Id> },
    Follows(Id),
    StepsDown,
    Stops,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}  term {}  ", self.node, self.term)?;
        match &self.kind {
            EventKind::Starts => f.write_str("starts"),
            EventKind::StartsElection => {
                f.write_str("received no heartbeat and starts an election")
            }
            EventKind::VotesFor(candidate) => write!(f, "votes for node {candidate}"),
            EventKind::Leads { votes } => write!(f, "LEADS, by the votes of {votes:?}"),
            EventKind::Follows(leader) => write!(f, "follows node {leader}"),
            EventKind::StepsDown => f.write_str("steps down: there is a later term"),
            EventKind::Stops => f.write_str("stops"),
        }
    }
}

/// The parameters of a node.
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
    /// A follower of this leader, if the node knows the leader.
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
    /// Armed unless the node leads.
    election: Timer,
    /// Ticks while the node leads.
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
    node.emit(EventKind::Starts);
    node.reset_election_timer();
    loop {
        select! { reactor;
            recv(inbox) -> message => match message {
                Ok(message) => node.receive(message),
                Err(_) => inbox = None, // no other node can send any more
            },
            recv(node.election) -> _ => node.start_election(),
            recv(node.heartbeat) -> _ => node.broadcast(Body::Heartbeat),
            recv(done) -> _ => break,
        }
    }
    node.emit(EventKind::Stops);
    Ok(())
}

impl<R: FnMut(Event)> Node<'_, R> {
    fn ballot(&self) -> Ballot {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_ballot(&self, ballot: Ballot) {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = ballot;
    }

    fn emit(&mut self, kind: EventKind) {
        let event = Event { at: self.reactor.now(), node: self.id, term: self.ballot().term, kind };
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

    /// Arms the election timer with a random time.
    fn reset_election_timer(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (least, most) = (*self.timing.election.start(), *self.timing.election.end());
        let nanos = (most - least).as_nanos() as u64;
        self.election.reset(least + Duration::from_nanos(self.random % (nanos + 1)));
    }

    /// Starts an election with this node as the candidate.
    fn start_election(&mut self) {
        self.write_ballot(Ballot { term: self.ballot().term + 1, voted_for: Some(self.id) });
        self.role = Role::Candidate(BTreeSet::new());
        self.emit(EventKind::StartsElection);
        self.reset_election_timer();
        self.broadcast(Body::RequestVote);
        self.count_vote(self.id);
    }

    fn count_vote(&mut self, voter: Id) {
        let Role::Candidate(votes) = &mut self.role else { return };
        votes.insert(voter);
        let votes: Vec<Id> = votes.iter().copied().collect();
        if self.is_majority(votes.len()) {
            self.role = Role::Leader;
            self.election.stop();
            self.heartbeat.restart();
            self.emit(EventKind::Leads { votes });
            self.broadcast(Body::Heartbeat);
        }
    }

    fn receive(&mut self, Message { from, term, body }: Message) {
        if term > self.ballot().term {
            self.enter_term(term);
        }
        let current = term == self.ballot().term;
        match body {
            Body::RequestVote => self.vote(from, current),
            Body::Vote(granted) => {
                if current && granted {
                    self.count_vote(from);
                }
            }
            Body::Heartbeat => {
                if current {
                    self.follow(from);
                }
                self.send(from, Body::Ack);
            }
            Body::Ack => {} // only the term matters
        }
    }

    /// Enters a later term as a follower that has not voted.
    fn enter_term(&mut self, term: Term) {
        self.write_ballot(Ballot { term, voted_for: None });
        if let Role::Leader = self.role {
            self.heartbeat.stop();
            self.emit(EventKind::StepsDown);
            self.reset_election_timer();
        }
        self.role = Role::Follower(None);
    }

    fn vote(&mut self, candidate: Id, current: bool) {
        let ballot = self.ballot();
        let granted = current && ballot.voted_for.is_none_or(|voted_for| voted_for == candidate);
        if granted {
            self.write_ballot(Ballot { voted_for: Some(candidate), ..ballot });
            if ballot.voted_for.is_none() {
                self.emit(EventKind::VotesFor(candidate));
            }
            self.reset_election_timer();
        }
        self.send(candidate, Body::Vote(granted));
    }

    fn follow(&mut self, leader: Id) {
        let known = matches!(self.role, Role::Follower(Some(known)) if known == leader);
        if !known {
            self.role = Role::Follower(Some(leader));
            self.emit(EventKind::Follows(leader));
        }
        self.reset_election_timer();
    }
}

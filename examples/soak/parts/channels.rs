//! Runs threads that send into channels of every flavour and post closures.
//!
//! The loop receives each message once, in the order of its thread. Each post runs once, in the
//! order of its thread, and before later messages of the thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pollmux::channel::{self, RecvError, SendTimeoutError, Sender, TryRecvError, TrySendError};
use pollmux::{Handle, Inbox, Remote, select};

use super::{Keys, Part};
use crate::run::{Run, Token};

const FLAVOURS: [(&str, Option<usize>); 4] = [
    ("bounded(64)", Some(64)),
    ("bounded(1)", Some(1)),
    ("rendezvous", Some(0)),
    ("unbounded", None),
];
const SENDERS: usize = 3;
/// The number of messages in an unbounded channel at which its senders pause for longer.
const FULL: usize = 20_000;

struct Message {
    from: usize,
    number: u64,
    /// The number of earlier posts of the thread.
    posts: u64,
    _token: Token,
}

/// The receiving end of one flavour.
struct Lane {
    name: &'static str,
    inbox: Option<Inbox<Message>>,
    /// The next number of each sender.
    next: [u64; SENDERS],
    /// The number of posts of each sender that have run.
    posts: Arc<[AtomicU64; SENDERS]>,
    /// The number of posts that each sender has made, known at the end of the sender.
    posted: [u64; SENDERS],
    threads: Vec<JoinHandle<(u64, u64)>>,
}

pub struct Channels {
    run: Run,
    lanes: Vec<Lane>,
    received: u64,
}

impl Channels {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> io::Result<Channels> {
        let mut lanes = Vec::new();
        for (index, (name, capacity)) in FLAVOURS.into_iter().enumerate() {
            let (sender, receiver) = match capacity {
                Some(capacity) => channel::bounded(capacity),
                None => channel::unbounded(),
            };
            let posts: Arc<[AtomicU64; SENDERS]> = Arc::default();
            let threads = (0..SENDERS).map(|from| {
                let feeder = Feeder {
                    run: run.clone(),
                    from,
                    who: 100 + (index * SENDERS + from) as u64,
                    sender: sender.clone(),
                    remote: reactor.remote(),
                    ran: posts.clone(),
                };
                thread::spawn(|| feeder.send_all())
            });
            lanes.push(Lane {
                name,
                threads: threads.collect(),
                inbox: Some(reactor.register_with(keys.key(index), receiver)?),
                next: [0; SENDERS],
                posts,
                posted: [0; SENDERS],
            });
        }
        Ok(Channels { run: run.clone(), lanes, received: 0 })
    }

    /// Checks a received message. If `in_turn` is true, a turn has run all earlier posts.
    fn received(&mut self, lane: usize, message: Result<Message, RecvError>, in_turn: bool) {
        let (run, lane) = (&self.run, &mut self.lanes[lane]);
        let Ok(Message { from, number, posts, .. }) = message else { return lane.end(run) };
        let (name, expected) = (lane.name, lane.next[from]);
        run.check(number == expected, || {
            format!("{name}: message {number} of thread {from} came instead of {expected}")
        });
        let ran = lane.posts[from].load(Ordering::Relaxed);
        run.check(!in_turn || ran >= posts, || {
            format!("{name}: message {number} of thread {from} came before post {posts}")
        });
        lane.next[from] = number + 1;
        self.received += 1;
    }

    /// Runs a `select!` over all flavours. Returns false if no channel was ready.
    fn turn(&mut self, reactor: &Handle) -> bool {
        let wait = Duration::from_micros(100);
        let (lane, message) = select! { reactor;
            recv(self.lanes[0].inbox) -> message => (0, message),
            recv(self.lanes[1].inbox) -> message => (1, message),
            recv(self.lanes[2].inbox) -> message => (2, message),
            recv(self.lanes[3].inbox) -> message => (3, message),
            default(wait) => return false,
        };
        self.received(lane, message, true);
        true
    }
}

impl Lane {
    /// Handles the end of a channel. Checks that all sent messages were received.
    fn end(&mut self, run: &Run) {
        let name = self.name;
        self.inbox = None;
        run.check(run.is_over(), || format!("{name}: the end came before the senders ended"));
        for (from, thread) in self.threads.drain(..).enumerate() {
            let Ok((sent, posted)) = thread.join() else {
                run.violated(format!("{name}: thread {from} panicked"));
                continue;
            };
            let received = self.next[from];
            run.check(received == sent, || {
                format!("{name}: {received} of {sent} messages of thread {from} came")
            });
            self.posted[from] = posted;
        }
    }

    /// Returns the number of posts of ended threads that have not run.
    fn posts_left(&self) -> u64 {
        let ran = self.posts.iter().map(|ran| ran.load(Ordering::Relaxed));
        ran.zip(self.posted).map(|(ran, posted)| posted.saturating_sub(ran)).sum()
    }
}

impl Part for Channels {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn count(&self) -> u64 {
        self.received
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        for _ in 0..256 {
            let Some(inbox) = &self.lanes[index].inbox else { break };
            match inbox.try_recv() {
                Ok(message) => self.received(index, Ok(message), false),
                Err(TryRecvError::Empty) => break,
                // The posts before the end run in the next turn.
                Err(TryRecvError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        for _ in 0..16 {
            if self.lanes.iter().all(|lane| lane.inbox.is_none()) || !self.turn(reactor) {
                break;
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let open = |lane: &Lane| lane.inbox.is_some().then(|| format!("the end of {}", lane.name));
        let unrun = |lane: &Lane| {
            let left = lane.posts_left();
            (left > 0).then(|| format!("{left} posts beside {}", lane.name))
        };
        self.lanes.iter().find_map(|lane| open(lane).or_else(|| unrun(lane)))
    }
}

/// The state of a sending thread.
struct Feeder {
    run: Run,
    from: usize,
    who: u64,
    sender: Sender<Message>,
    remote: Remote,
    ran: Arc<[AtomicU64; SENDERS]>,
}

impl Feeder {
    /// Sends until the run is over. Returns the numbers of messages and posts.
    fn send_all(self) -> (u64, u64) {
        let mut random = self.run.random(self.who);
        let (mut sent, mut posted) = (0, 0);
        while !self.run.is_over() {
            for _ in 0..=random.below(64) {
                if random.one_in(8) {
                    self.post(posted);
                    posted += 1;
                }
                let token = self.run.token();
                let message =
                    Message { from: self.from, number: sent, posts: posted, _token: token };
                self.send(message, random.below(3));
                sent += 1;
            }
            let is_full = self.sender.capacity().is_none() && self.sender.len() > FULL;
            let pause = Duration::from_micros(if is_full { 20_000 } else { 2_000 });
            thread::sleep(random.duration(pause));
        }
        (sent, posted)
    }

    fn post(&self, number: u64) {
        let (run, ran, from, token) =
            (self.run.clone(), self.ran.clone(), self.from, self.run.token());
        let posted = self.remote.post(move |_| {
            let _token = token;
            let expected = ran[from].swap(number + 1, Ordering::Relaxed);
            run.check(number == expected, || {
                format!("post {number} of thread {from} ran instead of {expected}")
            });
        });
        self.run.check(posted.is_ok(), || "a post was refused".into());
    }

    /// Sends by the method with the number `way`.
    fn send(&self, mut message: Message, way: u64) {
        loop {
            let result = match way {
                0 => self.sender.try_send(message).map_err(|error| match error {
                    TrySendError::Full(message) => Some(message),
                    TrySendError::Disconnected(_) => None,
                }),
                1 => {
                    let sent = self.sender.send_timeout(message, Duration::from_micros(300));
                    sent.map_err(|error| match error {
                        SendTimeoutError::Timeout(message) => Some(message),
                        SendTimeoutError::Disconnected(_) => None,
                    })
                }
                _ => self.sender.send(message).map_err(|_| None),
            };
            match result {
                Ok(()) => return,
                Err(Some(same)) => message = same,
                Err(None) => return self.run.violated("the receiver is gone".into()),
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

//! Sends messages to a second reactor on another thread, which sends the messages back.
//!
//! The other loop sleeps without a deadline, so a lost wake-up would stop the loop. From time to
//! time the other thread replaces its reactor, and registers the same channels again.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Handle, Inbox, Outbox, Reactor, Select, Source, select};

use super::{Keys, Part};
use crate::run::{LIMIT, Random, Run, Token};

/// The most messages on their way.
const MAX_WINDOW: u64 = 64;

type Message = (u64, Token);

pub struct Peer {
    run: Run,
    random: Random,
    /// The most messages on their way. With a window of one, no later message hides a lost wake-up.
    window: u64,
    outbox: Option<Outbox<Message>>,
    inbox: Inbox<Message>,
    sent: u64,
    received: u64,
    /// The time at which the last message came back.
    last: Instant,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Peer {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> io::Result<Peer> {
        let (there, from_us) = channel::bounded(16);
        let (to_us, back) = channel::bounded(0);
        let random = run.random(500);
        Ok(Peer {
            run: run.clone(),
            random: run.random(keys.0 as u64),
            window: 1,
            outbox: Some(reactor.register_with(keys.key(1), there)?),
            inbox: reactor.register_with(keys.key(0), back)?,
            sent: 0,
            received: 0,
            last: Instant::now(),
            thread: Some(thread::spawn(move || send_back_all(random, from_us, to_us))),
        })
    }

    fn received(&mut self, number: u64) {
        let expected = self.received;
        self.run.check(number == expected, || {
            format!("message {number} came back instead of {expected}")
        });
        self.received = number + 1;
        self.last = Instant::now();
    }
}

impl Part for Peer {
    fn name(&self) -> &'static str {
        "echoes"
    }

    fn count(&self) -> u64 {
        self.received
    }

    fn handle(&mut self, _: &Handle, _: usize) -> io::Result<()> {
        while let Ok((number, _)) = self.inbox.try_recv() {
            self.received(number);
        }
        Ok(())
    }

    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        if self.run.is_over() && self.sent == self.received {
            self.outbox = None;
        }
        if self.sent == self.received {
            self.last = Instant::now();
            self.window = if self.random.one_in(2) { 1 } else { MAX_WINDOW };
        }
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let mut back = Vec::new();
        while !self.run.is_over() && self.sent - self.received < self.window {
            let message = (self.sent, self.run.token());
            select! { reactor;
                send(outbox, message) -> sent => {
                    self.run.check(sent.is_ok(), || "the other reactor is gone".into());
                    self.sent += 1;
                }
                recv(self.inbox) -> message => back.extend(message.map(|(number, _)| number)),
                default => break,
            }
        }
        back.into_iter().for_each(|number| self.received(number));
        Ok(())
    }

    fn check(&mut self, _: &Handle) -> io::Result<()> {
        let (sent, received) = (self.sent, self.received);
        self.run.check(sent == received || self.last.elapsed() < LIMIT, || {
            format!("the other reactor is blocked: {received} of {sent} messages came back")
        });
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let left = self.sent - self.received;
        (self.outbox.is_some()).then(|| format!("{left} messages from the other reactor"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.outbox = None;
        let ended = self.thread.take().map(JoinHandle::join);
        let is_fine = matches!(ended, None | Some(Ok(Ok(()))));
        self.run.check(is_fine, || format!("the other reactor ended with {ended:?}"));
    }
}

/// Sends all messages back, until the sender is gone.
fn send_back_all(
    mut random: Random,
    mut from: Receiver<Message>,
    mut to: Sender<Message>,
) -> io::Result<()> {
    loop {
        let reactor = Reactor::new()?;
        let (inbox, outbox) = (reactor.register(from)?, reactor.register(to)?);
        for _ in 0..random.below(4_000) {
            let message = if random.one_in(2) {
                select! { reactor; recv(inbox) -> message => message }
            } else {
                receive(&reactor, &inbox)?
            };
            let Ok(message) = message else { return Ok(()) };
            if random.one_in(2) {
                select! { reactor; send(outbox, message) -> _ => {} }
            } else {
                let mut set = Select::new(&reactor);
                set.send(&outbox);
                let _ = set.wait()?.send(&outbox, message);
            }
        }
        (from, to) = (inbox.into_inner(), outbox.into_inner());
    }
}

/// Receives through a `Select`.
fn receive<S: Source>(reactor: &Reactor, source: &S) -> io::Result<S::Item> {
    let mut set = Select::new(reactor);
    set.recv(source);
    loop {
        if let Some(item) = set.wait()?.recv(source) {
            return Ok(item);
        }
    }
}

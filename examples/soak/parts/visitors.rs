//! Registers short-lived channels, which a thread fills. The loop drops a channel at its end or
//! earlier.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use pollmux::channel::{self, SendError, Sender, TryRecvError};
use pollmux::{Handle, Inbox};

use super::{Keys, Part};
use crate::run::{Random, Run, Token};

const VISITORS: usize = 8;

type Message = (u64, Token);

struct Visitor {
    inbox: Inbox<Message>,
    /// The number of messages that the thread sends.
    messages: u64,
    received: u64,
    /// The number of messages after which the loop drops the receiver.
    limit: u64,
}

struct Job {
    sender: Sender<Message>,
    messages: u64,
    limit: u64,
}

pub struct Visitors {
    run: Run,
    random: Random,
    keys: Keys,
    visitors: [Option<Visitor>; VISITORS],
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    gone: u64,
}

impl Visitors {
    pub fn new(run: &Run, keys: Keys) -> Visitors {
        let (jobs, inbox) = mpsc::channel();
        let shared = run.clone();
        Visitors {
            run: run.clone(),
            random: run.random(keys.0 as u64),
            keys,
            visitors: [const { None }; VISITORS],
            jobs: Some(jobs),
            thread: Some(thread::spawn(move || send_all(&shared, inbox))),
            gone: 0,
        }
    }

    fn begin(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        let Some(jobs) = &self.jobs else { return Ok(()) };
        let (sender, receiver) = match self.random.below(6) {
            5 => channel::unbounded(),
            capacity => channel::bounded(capacity as usize),
        };
        let messages = self.random.below(40);
        let limit = if self.random.one_in(4) { self.random.below(40) } else { u64::MAX };
        let inbox = reactor.register_with(self.keys.key(index), receiver)?;
        let sent = jobs.send(Job { sender, messages, limit }).is_ok();
        self.run.check(sent, || "the thread of the visitors has ended".into());
        self.visitors[index] = Some(Visitor { inbox, messages, received: 0, limit });
        Ok(())
    }
}

impl Part for Visitors {
    fn name(&self) -> &'static str {
        "visitors"
    }

    fn count(&self) -> u64 {
        self.gone
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        let Some(visitor) = &mut self.visitors[index] else { return Ok(()) };
        let is_over = loop {
            if visitor.received >= visitor.limit {
                break true;
            }
            match visitor.inbox.try_recv() {
                Ok((number, _)) => {
                    let expected = visitor.received;
                    self.run.check(number == expected, || {
                        format!("message {number} of a visitor came instead of {expected}")
                    });
                    visitor.received = number + 1;
                }
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => {
                    let (received, messages) = (visitor.received, visitor.messages);
                    self.run.check(received == messages, || {
                        format!("{received} of {messages} messages of a visitor came")
                    });
                    break true;
                }
            }
        };
        if is_over {
            self.visitors[index] = None;
            self.gone += 1;
        }
        Ok(())
    }

    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        if self.run.is_over() {
            self.jobs = None;
            return Ok(());
        }
        for index in 0..VISITORS {
            if self.visitors[index].is_none() {
                self.begin(reactor, index)?;
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let left = self.visitors.iter().flatten().count();
        (left > 0).then(|| format!("{left} visitors"))
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.visitors = [const { None }; VISITORS];
        self.jobs = None;
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        self.run.check(joined, || "the thread of the visitors panicked".into());
    }
}

/// Sends the messages of each job, and drops the sender.
fn send_all(run: &Run, jobs: mpsc::Receiver<Job>) {
    for Job { sender, messages, limit } in jobs {
        for number in 0..messages {
            let Err(SendError((given_back, _))) = sender.send((number, run.token())) else {
                continue;
            };
            run.check(given_back == number && number >= limit, || {
                format!("sending message {number} returned message {given_back}")
            });
            break;
        }
    }
}

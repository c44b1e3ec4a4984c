//! The work of the reactor in the examples of embedding, for any outer loop. In each round a
//! message from another thread, bytes for a socket and a timer arrive, once each.
//!
//! The three events arrive one after the other, so a lost wake-up leaves the loop asleep for ever.
//! In every fourth round the events arrive together.
#![allow(dead_code)] // Each example uses a part of it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pollmux::sys::Interest;
use pollmux::{Embedded, Fd, Inbox, Reactor, Time, Timer, select};

/// The delay that the timer is set to.
const DELAY: Duration = Duration::from_micros(20);

const MESSAGE: usize = 0;
const BYTES: usize = 1;
const TIMER: usize = 2;

/// The reactor, what it waits for, and the other thread.
pub struct Work {
    pub reactor: Reactor,
    inbox: Inbox<u32>,
    socket: Fd<UnixStream>,
    timer: Timer,
    asks: Option<mpsc::Sender<[bool; 2]>>,
    other: Option<thread::JoinHandle<()>>,
    rounds: u32,
    /// The number of finished steps.
    step: u32,
    /// The events that are still to come in this step.
    awaited: [bool; 3],
    messages: u32,
    begun: Instant,
    /// The sum of the lateness of the timer.
    late: Duration,
    fired: u32,
}

/// The counts of an outer loop.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub rounds: u32,
    /// The number of times that the reactor woke the outer loop.
    pub wakeups: u64,
    pub took: Duration,
    /// The lateness of the timer, on average.
    pub late: Duration,
}

impl Work {
    /// Begins the first round.
    pub fn begin(reactor: Reactor, rounds: u32) -> io::Result<Work> {
        let (tx, inbox) = reactor.channel(4)?;
        let (mut theirs, ours) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = reactor.fd(ours, Interest::READABLE)?;
        let (asks, asked) = mpsc::channel::<[bool; 2]>();
        let other = thread::spawn(move || {
            let mut n = 0;
            for [message, bytes] in asked {
                if message {
                    tx.send(n).expect("the loop goes on");
                    n += 1;
                }
                if bytes {
                    theirs.write_all(b"four").expect("the loop goes on");
                }
            }
        });
        let timer = reactor.timer();
        let mut work = Work {
            reactor,
            inbox,
            socket,
            timer,
            asks: Some(asks),
            other: Some(other),
            rounds,
            step: 0,
            awaited: [false; 3],
            messages: 0,
            begun: Instant::now(),
            late: Duration::ZERO,
            fired: 0,
        };
        work.next();
        Ok(work)
    }

    /// Takes the items of the ready sources after a turn. Returns true if all rounds are over.
    pub fn take(&mut self) -> io::Result<bool> {
        loop {
            select! { self.reactor;
                recv(self.inbox) -> message => {
                    assert_eq!(message, Ok(self.messages));
                    self.messages += 1;
                    self.arrived(MESSAGE);
                },
                recv(self.socket) -> _readiness => self.read()?,
                recv(self.timer) -> due => {
                    let now = Time::now();
                    assert!(now >= due, "early");
                    self.late += now - due;
                    self.fired += 1;
                    self.arrived(TIMER);
                },
                default => return Ok(self.is_over()),
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 8];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(n) => {
                    assert_eq!(&buffer[..n], b"four");
                    self.arrived(BYTES);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn arrived(&mut self, what: usize) {
        assert!(std::mem::replace(&mut self.awaited[what], false), "{what} came twice");
        if !self.awaited.contains(&true) {
            self.next();
        }
    }

    /// Asks for the events of the next step.
    fn next(&mut self) {
        let (round, step) = (self.step / 3, self.step % 3);
        if round == self.rounds {
            return;
        }
        let all = round % 4 == 3;
        self.step += if all { 3 } else { 1 };
        self.awaited = [0, 1, 2].map(|one| all || one == step);
        if self.awaited[TIMER] {
            self.timer.reset(DELAY);
        }
        if self.awaited[MESSAGE] || self.awaited[BYTES] {
            let asks = self.asks.as_ref().expect("not the last round");
            asks.send([self.awaited[MESSAGE], self.awaited[BYTES]])
                .expect("the other thread lives");
        }
    }

    pub fn is_over(&self) -> bool {
        self.step == 3 * self.rounds && !self.awaited.contains(&true)
    }

    /// Runs the last turns. Asserts that each event arrived, and that the outer loop was not woken
    /// too often.
    pub fn end(mut self, embedded: Option<&Embedded>, wakeups: u64) -> io::Result<Report> {
        assert!(self.is_over());
        let took = self.begun.elapsed();
        drop(self.asks.take());
        self.other.take().expect("taken only here").join().expect("no panic");
        if let Some(embedded) = embedded {
            // A turn finds the ends of the channel and of the socket. The next turn finds nothing.
            drop((self.inbox, self.socket));
            embedded.turn()?;
            assert_eq!(embedded.turn()?, 0);
        }
        let rounds = u64::from(self.rounds);
        assert_eq!(u64::from(self.messages), rounds);
        // Each arrival costs one wake-up, and the turn after it, which finds nothing, another one.
        // Arming the timer costs one turn. More wake-ups would be a spin.
        assert!(wakeups <= 7 * rounds + 50, "{wakeups} wake-ups in {rounds} rounds");
        Ok(Report { rounds: self.rounds, wakeups, took, late: self.late / self.fired.max(1) })
    }
}

impl Report {
    pub fn print(&self) {
        let each = self.wakeups as f64 / f64::from(self.rounds);
        println!(
            "{} rounds in {:.1?}, {each:.2} wake-ups each, timers late by {:.1?} on average",
            self.rounds, self.took, self.late
        );
    }
}

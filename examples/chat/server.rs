//! The room: one thread, one reactor. Each line of a client goes to all others.
//!
//! **A client that reads too slowly is dropped.** The other way would be to stop reading from those
//! who speak until it has caught up; but then one slow reader would silence the room. So each
//! client has a queue of bounded length, and one whose queue is full is closed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::channel::Receiver;
use pollmux::sys::Interest;
use pollmux::{Events, Reactor, Signal, Signals, Source};
use socket2::SockRef;

use super::acceptor::Acceptor;
use super::client::Client;

/// Connections that are accepted in a row, before it is the clients' turn.
const ACCEPTS: u32 = 16;
/// The kernel's buffer for a client. What waits there is bounded, too.
const SEND_BUFFER: usize = 64 << 10;

// A key is one of these kinds and the number of the client, or 0.
const LISTENER: u32 = 0;
const SIGNALS: u32 = 1;
const STOP: u32 = 2;
const DEADLINE: u32 = 3;
const STREAM: u32 = 4;
const IDLE: u32 = 5;

/// The limits of one client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A client that says nothing for so long is closed.
    pub idle: Duration,
    /// The bytes that may wait for a client.
    pub queue: usize,
    /// The time that clients have, at the end, to read what waits for them.
    pub farewell: Duration,
}

/// The counts of all that happened in the room.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub clients: u32,
    pub lines: u64,
    /// Clients that were closed because they read too slowly.
    pub slow: u64,
    /// Clients that were closed because they said nothing.
    pub idle: u64,
    /// The most bytes that waited for one client.
    pub most_queued: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9} clients", self.clients)?;
        writeln!(f, "{:>9} of them read too slowly, and {} were idle", self.slow, self.idle)?;
        writeln!(f, "{:>9} lines", self.lines)?;
        write!(f, "{:>9} bytes at most waited for a client", self.most_queued)
    }
}

pub struct Server {
    reactor: Reactor,
    /// `None` when the room closes.
    acceptor: Option<Acceptor>,
    address: SocketAddr,
    signals: Signals,
    /// The clients by their numbers, which are not used again.
    clients: BTreeMap<u32, Client>,
    /// Clients that something has been said to in this turn.
    unflushed: Vec<u32>,
    limits: Limits,
    report: Report,
}

impl Server {
    pub fn new(address: SocketAddr, limits: Limits) -> io::Result<Server> {
        let reactor = Reactor::new()?;
        let acceptor = Acceptor::new(&reactor, address, (LISTENER, 0))?;
        let signals = reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        Ok(Server {
            address: acceptor.address()?,
            acceptor: Some(acceptor),
            signals: signals.with_key((SIGNALS, 0)),
            reactor,
            clients: BTreeMap::new(),
            unflushed: Vec::new(),
            limits,
            report: Report::default(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal comes or the sender of `stop` is gone. Then it tells the clients so,
    /// and waits until they have read that and closed, or until the farewell is over.
    pub fn run(mut self, stop: Receiver<()>) -> io::Result<Report> {
        let stop = self.reactor.register_with((STOP, 0), stop)?;
        let deadline = self.reactor.timer().with_key((DEADLINE, 0));
        let mut events = Events::with_capacity(256);
        while self.acceptor.is_some() || !self.clients.is_empty() {
            self.reactor.wait(&mut events)?;
            for event in &events {
                match event.split_key() {
                    (LISTENER, _) => self.accept(),
                    (SIGNALS | STOP, _) => {
                        while let Some(signal) = self.signals.try_take() {
                            println!("{signal}: good-bye");
                        }
                        let _ = stop.try_recv();
                        if self.acceptor.take().is_some() {
                            deadline.reset(self.limits.farewell);
                            self.clients.retain(|_, client| {
                                client.say_good_bye(b"* the room closes\n").is_ok()
                            });
                        }
                    }
                    (DEADLINE, _) => return Ok(self.report),
                    (STREAM, number) => self.client(number),
                    (IDLE, number) => self.send_away(number),
                    other => unreachable!("no source has the key {other:?}"),
                }
            }
            self.flush();
        }
        Ok(self.report)
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS {
            let Some(stream) = self.acceptor.as_ref().and_then(Acceptor::accept) else { return };
            if let Err(error) = self.open(stream) {
                eprintln!("a new client: {error}");
            }
        }
    }

    fn open(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?; // lines are small, and do not wait for each other
        SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        let number = self.report.clients + 1;
        let stream = self.reactor.fd_nonblocking(stream, Interest::READABLE)?;
        let stream = stream.with_key((STREAM, number));
        let idle = self.reactor.after(self.limits.idle).with_key((IDLE, number));
        let mut client = Client::new(number, stream, idle, self.limits.queue);
        client.say(format!("* welcome, you are {number}\n").as_bytes());
        self.clients.insert(number, client);
        self.unflushed.push(number);
        self.report.clients = number;
        Ok(())
    }

    fn send_away(&mut self, number: u32) {
        let Some(mut client) = self.clients.remove(&number) else { return };
        self.report.idle += 1;
        // The client may not hear that. It is closed in any case.
        let _ = client.say_good_bye(b"* idle for too long\n");
    }

    /// Handles an event of a client, whose connection may end by that.
    fn client(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut said = Vec::new();
        let stays = client.hear(&mut said).and_then(|stays| client.flush().map(|()| stays));
        if !said.is_empty() {
            // Putting a timer off is two stores: no syscall.
            client.idle.reset_at(self.reactor.now() + self.limits.idle);
        }
        if !matches!(stays, Ok(true)) {
            self.clients.remove(&number);
        }
        if !said.is_empty() && self.acceptor.is_some() {
            self.report.lines += said.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.say_to_others(number, &said);
        }
    }

    /// Puts `text` into the queues of all but one. It is written at the end of the turn, with all
    /// else that is said until then. Those whose queue is full are closed.
    fn say_to_others(&mut self, speaker: u32, text: &[u8]) {
        let Server { clients, unflushed, report, .. } = self;
        clients.retain(|&number, client| {
            if number == speaker {
                return true;
            }
            if client.queued() == 0 {
                unflushed.push(number);
            }
            let fits = client.say(text);
            report.slow += u64::from(!fits);
            report.most_queued = report.most_queued.max(client.queued());
            fits
        });
    }

    fn flush(&mut self) {
        for number in std::mem::take(&mut self.unflushed) {
            if self.clients.get_mut(&number).is_some_and(|client| client.flush().is_err()) {
                self.clients.remove(&number);
            }
        }
    }
}

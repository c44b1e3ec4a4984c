//! The room: one thread, one reactor. Each line of a client goes to all others.
//!
//! **The server drops a client that reads too slowly.** If the server stopped reading from the
//! speakers instead, one slow reader would silence the room. So each client has a queue of bounded
//! length, and the server closes a client whose queue is full.

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

/// The most connections that are accepted in a row, so that open clients get their turn.
const ACCEPTS: u32 = 16;
/// The size of the kernel's buffer for a client, which bounds the bytes that wait there.
const SEND_BUFFER: usize = 64 << 10;

// A key is a pair: one of these kinds, and the number of the client or 0.
const LISTENER: u32 = 0;
const SIGNALS: u32 = 1;
const STOP: u32 = 2;
const DEADLINE: u32 = 3;
const STREAM: u32 = 4;
const IDLE: u32 = 5;

/// The limits of one client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time after which a silent client is closed.
    pub idle: Duration,
    /// The most bytes that may wait for a client.
    pub queue: usize,
    /// The time that clients have at the end to read their queues.
    pub farewell: Duration,
}

/// The counts of the room's events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub clients: u32,
    pub lines: u64,
    /// The clients that were closed because they read too slowly.
    pub slow: u64,
    /// The clients that were closed because they sent nothing.
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
    /// The clients whose queues got their first bytes in this turn.
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

    /// Serves until a signal comes or the sender of `stop` is gone. Then the server sends all
    /// clients a last line. Returns when all clients have closed, or when the farewell is over.
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
                                client.close_with(b"* the room closes\n").is_ok()
                            });
                        }
                    }
                    (DEADLINE, _) => return Ok(self.report),
                    (STREAM, number) => self.handle_client(number),
                    (IDLE, number) => self.close_idle(number),
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
        stream.set_nodelay(true)?; // small lines must not wait for each other
        SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        let number = self.report.clients + 1;
        let stream = self.reactor.fd_nonblocking(stream, Interest::READABLE)?;
        let stream = stream.with_key((STREAM, number));
        let idle = self.reactor.after(self.limits.idle).with_key((IDLE, number));
        let mut client = Client::new(number, stream, idle, self.limits.queue);
        client.enqueue(format!("* welcome, you are {number}\n").as_bytes());
        self.clients.insert(number, client);
        self.unflushed.push(number);
        self.report.clients = number;
        Ok(())
    }

    fn close_idle(&mut self, number: u32) {
        let Some(mut client) = self.clients.remove(&number) else { return };
        self.report.idle += 1;
        // The client may miss this line. The server closes the client in any case.
        let _ = client.close_with(b"* idle for too long\n");
    }

    /// Handles an event of a client. The client's connection may end.
    fn handle_client(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let mut text = Vec::new();
        let stays = client.read_lines(&mut text).and_then(|stays| client.flush().map(|()| stays));
        if !text.is_empty() {
            // Postponing a timer costs two stores and no syscall.
            client.idle.reset_at(self.reactor.now() + self.limits.idle);
        }
        if !matches!(stays, Ok(true)) {
            self.clients.remove(&number);
        }
        if !text.is_empty() && self.acceptor.is_some() {
            self.report.lines += text.iter().filter(|&&byte| byte == b'\n').count() as u64;
            self.broadcast(number, &text);
        }
    }

    /// Puts `text` into the queues of all clients except the speaker. The end of the turn writes
    /// the queues. Closes each client whose queue is full.
    fn broadcast(&mut self, speaker: u32, text: &[u8]) {
        let Server { clients, unflushed, report, .. } = self;
        clients.retain(|&number, client| {
            if number == speaker {
                return true;
            }
            if client.queued() == 0 {
                unflushed.push(number);
            }
            let fits = client.enqueue(text);
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

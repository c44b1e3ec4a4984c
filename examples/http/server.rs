//! The server: one thread, one reactor, and for each connection a socket and one timer.
//!
//! The timer is armed again when the connection enters another phase, and after each answer. So a
//! request has one deadline, however slowly its bytes come.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::channel::Receiver;
use pollmux::sys::{Interest, Readiness};
use pollmux::{Events, Fd, Handle, Reactor, Signal, Signals, Source, Time, Timer};

use super::acceptor::Acceptor;
use super::exchange::Exchange;

/// The most connections that are accepted in a row, and the most reads of one connection in a row.
/// So other connections get their turn.
const MAX_IN_A_ROW: u32 = 16;

// A key is a pair: one of these kinds, and the number of the connection or 0.
const LISTENER: u32 = 0;
const SIGNALS: u32 = 1;
const STOP: u32 = 2;
const STREAM: u32 = 3;
const DEADLINE: u32 = 4;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most time between two requests of a connection.
    pub idle: Duration,
    /// The most time from the first to the last byte of a request, and the most time in which the
    /// client must take the answer.
    pub request: Duration,
}

/// The counts of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub connections: u32,
    pub answers: u64,
    /// The number of turns of the reactor.
    pub turns: u64,
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next request.
    Idle,
    /// The rest of a request.
    Reading,
    /// Room in the socket for the rest of an answer.
    Writing,
    /// The end of the stream. Closing earlier could destroy the last answer on its way.
    Closing,
}

struct Connection {
    stream: Fd<TcpStream>,
    exchange: Exchange,
    deadline: Timer,
    /// The phase of the armed deadline, and the number of answers at the start of the phase.
    since: (Phase, u64),
    is_shut: bool,
}

impl Connection {
    fn new(
        reactor: &Handle,
        stream: TcpStream,
        number: u32,
        limits: Limits,
    ) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let stream = reactor.fd_nonblocking(stream, Interest::READABLE)?;
        Ok(Connection {
            stream: stream.with_key((STREAM, number)),
            exchange: Exchange::default(),
            deadline: reactor.after(limits.idle).with_key((DEADLINE, number)),
            since: (Phase::Idle, 0),
            is_shut: false,
        })
    }

    fn phase(&self) -> Phase {
        if self.exchange.is_over() {
            Phase::Closing
        } else if !self.exchange.output().is_empty() {
            Phase::Writing
        } else if self.exchange.has_begun() {
            Phase::Reading
        } else {
            Phase::Idle
        }
    }

    /// Reads and answers requests. Returns false if the connection has ended.
    fn read_and_answer(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut is_drained = false;
        for _ in 0..MAX_IN_A_ROW {
            if !self.flush()? {
                // The server reads no more before the client has taken its answers, so memory is
                // bounded.
                self.stream.set_interest(Interest::WRITABLE)?;
                return Ok(true);
            }
            self.stream.set_interest(Interest::READABLE)?;
            if is_drained {
                return Ok(true);
            }
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    // A read that did not fill the buffer has emptied the stream (epoll(7),
                    // question 9). Later bytes are a new event, so no read returns `WouldBlock`.
                    is_drained = n < buffer.len() && !self.stream.readiness().is_read_closed();
                    if is_drained {
                        self.stream.clear_readiness(Readiness::READABLE);
                    }
                    self.exchange.receive(&buffer[..n]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Sends the answers. Returns false if the client does not take all answers now.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.exchange.output().is_empty() {
            match self.stream.write(self.exchange.output()) {
                Ok(n) => self.exchange.sent(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.exchange.is_over() && !self.is_shut {
            self.stream.get_ref().shutdown(Shutdown::Write)?;
            self.is_shut = true;
        }
        Ok(true)
    }

    /// Arms the deadline if another phase or another request has begun.
    fn set_deadline(&mut self, now: Time, limits: Limits) {
        let current = (self.phase(), self.exchange.answered());
        if current != self.since {
            self.since = current;
            let is_idle = current.0 == Phase::Idle;
            self.deadline.reset_at(now + if is_idle { limits.idle } else { limits.request });
        }
    }
}

pub struct Server {
    reactor: Reactor,
    /// `None` when the server ends.
    acceptor: Option<Acceptor>,
    address: SocketAddr,
    signals: Option<Signals>,
    /// The connections by their numbers, which are not used again.
    connections: BTreeMap<u32, Connection>,
    report: Report,
    limits: Limits,
    buffer: Box<[u8]>,
}

impl Server {
    pub fn new(reactor: Reactor, address: SocketAddr, limits: Limits) -> io::Result<Server> {
        let acceptor = Acceptor::new(&reactor, address, (LISTENER, 0))?;
        Ok(Server {
            address: acceptor.address()?,
            acceptor: Some(acceptor),
            reactor,
            signals: None,
            connections: BTreeMap::new(),
            report: Report::default(),
            limits,
            buffer: vec![0; 16 << 10].into(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes Ctrl-C and SIGTERM end the server, too.
    #[allow(dead_code)] // the bench does not use signals
    pub fn end_by_signals(&mut self) -> io::Result<()> {
        let signals = self.reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        self.signals = Some(signals.with_key((SIGNALS, 0)));
        Ok(())
    }

    /// Serves until a signal comes, or the sender of `stop` is gone. Then the server answers the
    /// requests that have begun, and returns.
    pub fn run(mut self, stop: Receiver<()>) -> io::Result<Report> {
        let stop = self.reactor.register_with((STOP, 0), stop)?;
        let mut events = Events::with_capacity(256);
        while self.acceptor.is_some() || !self.connections.is_empty() {
            self.reactor.wait(&mut events)?;
            for event in &events {
                match event.split_key() {
                    (LISTENER, _) => self.accept(),
                    (SIGNALS | STOP, _) => {
                        let _ = (self.signals.as_ref().and_then(Source::try_take), stop.try_recv());
                        self.acceptor = None;
                        self.connections.retain(|_, connection| {
                            connection.exchange.finish();
                            connection.phase() != Phase::Idle
                        });
                    }
                    (kind @ (STREAM | DEADLINE), number) => {
                        self.handle_connection(number, kind == DEADLINE);
                    }
                    other => unreachable!("no source has the key {other:?}"),
                }
            }
        }
        self.report.turns = self.reactor.stats().turns;
        Ok(self.report)
    }

    fn accept(&mut self) {
        for _ in 0..MAX_IN_A_ROW {
            let Some(stream) = self.acceptor.as_ref().and_then(Acceptor::accept) else { return };
            self.report.connections += 1;
            let number = self.report.connections;
            match Connection::new(&self.reactor, stream, number, self.limits) {
                Ok(connection) => drop(self.connections.insert(number, connection)),
                Err(error) => eprintln!("a new connection: {error}"),
            }
        }
    }

    fn handle_connection(&mut self, number: u32, has_expired: bool) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (mut stays, before) = (true, connection.exchange.answered());
        if has_expired {
            connection.deadline.try_take();
            match connection.phase() {
                Phase::Reading => connection.exchange.fail("408 Request Timeout"),
                Phase::Idle | Phase::Writing | Phase::Closing => stays = false,
            }
        }
        stays = stays && matches!(connection.read_and_answer(&mut self.buffer), Ok(true));
        self.report.answers += connection.exchange.answered() - before;
        if stays {
            connection.set_deadline(self.reactor.now(), self.limits);
        } else {
            self.connections.remove(&number);
        }
    }
}

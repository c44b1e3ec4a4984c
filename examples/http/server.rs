//! The server: one thread, one reactor, and for each connection a socket and one timer.
//!
//! The timer is armed anew when the connection comes to another phase, and when a request has been
//! answered. So a request has one deadline, however slowly its bytes come.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::channel::Receiver;
use pollmux::sys::{Interest, Readiness};
use pollmux::{Events, Fd, Handle, Reactor, Signal, Signals, Source, Time, Timer};

use super::acceptor::Acceptor;
use super::exchange::Exchange;

/// Connections that are accepted in a row, and reads of one connection, before it is the turn of
/// others.
const IN_A_ROW: u32 = 16;

// A key is one of these kinds and the number of the connection, or 0.
const LISTENER: u32 = 0;
const SIGNALS: u32 = 1;
const STOP: u32 = 2;
const STREAM: u32 = 3;
const DEADLINE: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time between two requests of a connection.
    pub idle: Duration,
    /// The time from the first byte of a request to its last one, and for the client to take the
    /// answer.
    pub request: Duration,
}

/// The counts of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub connections: u32,
    pub answers: u64,
    /// Turns of the reactor.
    pub turns: u64,
}

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next request.
    Idle,
    /// The rest of a request.
    Reading,
    /// The client, which has to take its answer.
    Writing,
    /// The end of the stream. To close before it could destroy the last answer on its way.
    Closing,
}

struct Connection {
    stream: Fd<TcpStream>,
    exchange: Exchange,
    deadline: Timer,
    /// The phase that the deadline is for, and the number of answers at its begin.
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

    /// Reads and answers what has come. Returns false if the connection has ended.
    fn go_on(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut is_drained = false;
        for _ in 0..IN_A_ROW {
            if !self.flush()? {
                // Nothing is read before the client has taken its answers: memory is bounded.
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
                    // A read that did not fill the buffer has taken all (epoll(7), question 9).
                    // Later bytes are a new event. So no read has to find that nothing is left.
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

    /// Sends the answers. Returns false if the client does not take all of them now.
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

    /// Arms the deadline if another phase has begun, or another request.
    fn set_deadline(&mut self, now: Time, limits: Limits) {
        let now_in = (self.phase(), self.exchange.answered());
        if now_in != self.since {
            self.since = now_in;
            let is_idle = now_in.0 == Phase::Idle;
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

    /// Ends by Ctrl-C and SIGTERM, too.
    #[allow(dead_code)] // the bench does without
    pub fn end_by_signals(&mut self) -> io::Result<()> {
        let signals = self.reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        self.signals = Some(signals.with_key((SIGNALS, 0)));
        Ok(())
    }

    /// Serves until a signal comes, or the sender of `stop` is gone. Then the requests that have
    /// begun are answered.
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
                        self.connection(number, kind == DEADLINE);
                    }
                    other => unreachable!("no source has the key {other:?}"),
                }
            }
        }
        self.report.turns = self.reactor.stats().turns;
        Ok(self.report)
    }

    fn accept(&mut self) {
        for _ in 0..IN_A_ROW {
            let Some(stream) = self.acceptor.as_ref().and_then(Acceptor::accept) else { return };
            self.report.connections += 1;
            let number = self.report.connections;
            match Connection::new(&self.reactor, stream, number, self.limits) {
                Ok(connection) => drop(self.connections.insert(number, connection)),
                Err(error) => eprintln!("a new connection: {error}"),
            }
        }
    }

    fn connection(&mut self, number: u32, is_late: bool) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let (mut stays, before) = (true, connection.exchange.answered());
        if is_late {
            connection.deadline.try_take();
            match connection.phase() {
                Phase::Reading => connection.exchange.fail("408 Request Timeout"),
                Phase::Idle | Phase::Writing | Phase::Closing => stays = false,
            }
        }
        stays = stays && matches!(connection.go_on(&mut self.buffer), Ok(true));
        self.report.answers += connection.exchange.answered() - before;
        if stays {
            connection.set_deadline(self.reactor.now(), self.limits);
        } else {
            self.connections.remove(&number);
        }
    }
}

//! The server: one thread, one reactor, and for each connection an fd and an idle timer. A message
//! costs no allocation.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use pollmux::sys::{Interest, Readiness};
use pollmux::{
    Events, Fd, Handle, Inbox, Reactor, Remote, Signal, Signals, Source, Time, Timer, channel,
    reactor::Stats,
};
use socket2::{Domain, Socket, Type};

use super::acceptor::Acceptor;

/// The most reads of one connection in a row, so that other connections get their turn.
const READS: u32 = 16;
/// The most connections that are accepted in a row, so that a flood of new connections does not
/// starve open connections.
pub const ACCEPTS: u32 = 16;

// A key is a pair: one of these kinds, and the index of the connection or 0.
const LISTENER: u32 = 0;
const STOP: u32 = 1;
const SIGNALS: u32 = 2;
const STREAM: u32 = 3;
const IDLE: u32 = 4;
/// The number of sources of a server without connections and without signals: its listener, the
/// listener's timer, and `stop`.
const OWN_SOURCES: usize = 3;

/// The counts of a server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub accepted: u64,
    pub most_at_once: u64,
    pub messages: u64,
    /// The connections that the client closed without an error.
    pub closed: u64,
    /// The connections that were silent for too long.
    pub idle: u64,
    /// The connections that failed, in most cases by a reset.
    pub failed: u64,
    /// The CPU time of the thread.
    pub cpu: Duration,
    pub allocations: u64,
    pub stats: Stats,
}

struct Connection {
    stream: Fd<TcpStream>,
    idle: Timer,
    /// The bytes that the client has not taken yet. Meanwhile the server does not read from the
    /// client.
    unsent: Vec<u8>,
}

pub struct Server {
    reactor: Reactor,
    acceptor: Acceptor,
    address: SocketAddr,
    signals: Option<Signals>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    idle: Duration,
    buffer: Box<[u8]>,
    report: Report,
    allocations: fn() -> u64,
}

/// Returns a listener that shares its port with other listeners. The kernel distributes the
/// connections among the listeners.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

impl Server {
    /// Makes a server that listens at `address`. The server closes a connection that is silent for
    /// `idle`.
    pub fn new(
        address: SocketAddr,
        idle: Duration,
        allocations: fn() -> u64,
    ) -> io::Result<Server> {
        let reactor = Reactor::new()?;
        let acceptor = Acceptor::of(&reactor, listen(address)?, (LISTENER, 0))?;
        Ok(Server {
            address: acceptor.address()?,
            acceptor,
            reactor,
            signals: None,
            connections: Vec::new(),
            free: Vec::new(),
            idle,
            buffer: vec![0; 16 * 1024].into(),
            report: Report::default(),
            allocations,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the remote of the server's reactor, which posts closures while the server runs.
    pub fn remote(&self) -> Remote {
        self.reactor.remote()
    }

    /// Makes Ctrl-C and SIGTERM end the server, too.
    pub fn end_by_signals(&mut self) -> io::Result<()> {
        let signals = self.reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        self.signals = Some(signals.with_key((SIGNALS, 0)));
        Ok(())
    }

    /// Serves until a signal comes, `stop` has a message, or the senders of `stop` are gone. Then
    /// the server closes every connection.
    pub fn run(mut self, stop: pollmux::channel::Receiver<()>) -> io::Result<Report> {
        let stop: Inbox<()> = self.reactor.register_with((STOP, 0), stop)?;
        let mut events = Events::with_capacity(256);
        let (allocations, cpu) = ((self.allocations)(), cpu_time());
        'serving: loop {
            self.reactor.wait(&mut events)?;
            for event in &events {
                match event.split_key() {
                    (LISTENER, _) => self.accept()?,
                    (STOP, _) => break 'serving,
                    (SIGNALS, _) => {
                        if let Some(signal) = self.signals.as_ref().and_then(Source::try_take) {
                            println!("{signal}: good-bye");
                            break 'serving;
                        }
                    }
                    (STREAM, index) => self.echo(index)?,
                    (IDLE, index) => {
                        self.report.idle += 1;
                        self.close(index);
                    }
                    other => unreachable!("no source has the key {other:?}"),
                }
            }
        }
        drop(stop);
        self.connections.clear();
        self.report.cpu = cpu_time() - cpu;
        self.report.allocations = (self.allocations)() - allocations;
        let Server { reactor, acceptor, signals, mut report, .. } = self;
        drop((acceptor, signals));
        report.stats = reactor.stats();
        Ok(report)
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            let Some(stream) = self.acceptor.accept() else { return Ok(()) };
            self.open(stream)?;
        }
        // The listener is still ready: the next wait reports it again, after other events.
        Ok(())
    }

    fn open(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let (reactor, number) = (&self.reactor, index as u32);
        let stream = reactor.fd_nonblocking(stream, Interest::READABLE)?;
        self.connections[index] = Some(Connection {
            stream: stream.with_key((STREAM, number)),
            idle: reactor.at(reactor.now() + self.idle).with_key((IDLE, number)),
            unsent: Vec::new(),
        });
        self.report.accepted += 1;
        let open = (self.connections.len() - self.free.len()) as u64;
        self.report.most_at_once = self.report.most_at_once.max(open);
        Ok(())
    }

    fn echo(&mut self, index: u32) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index as usize] else { return Ok(()) };
        match connection.echo(&mut self.buffer, &mut self.report.messages) {
            Ok(true) => {
                // The turn's time is exact enough. Postponing a timer costs two stores.
                let now: Time = self.reactor.now();
                connection.idle.reset_at(now + self.idle);
                return Ok(());
            }
            Ok(false) => self.report.closed += 1,
            Err(_) => self.report.failed += 1,
        }
        self.close(index);
        Ok(())
    }

    fn close(&mut self, index: u32) {
        self.connections[index as usize] = None;
        self.free.push(index as usize);
    }
}

/// Waits until a server has no connections. A server notices a close later than the client closes,
/// so without this wait the final report could miss some closes.
pub fn wait_until_empty(server: &Remote) -> io::Result<()> {
    let (sender, live) = channel::bounded(1);
    loop {
        let sender = sender.clone();
        let send_count = move |reactor: &Handle| {
            let _ = sender.send(reactor.stats().live);
        };
        server.post(send_count).map_err(io::Error::other)?;
        if live.recv().map_err(io::Error::other)? <= OWN_SOURCES {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Connection {
    /// Reads and sends back bytes until the stream has no more. Returns false at the end of the
    /// stream.
    fn echo(&mut self, buffer: &mut [u8], messages: &mut u64) -> io::Result<bool> {
        for _ in 0..READS {
            if !self.unsent.is_empty() {
                let Some(sent) = none_if_blocked(self.stream.write(&self.unsent))? else {
                    self.stream.set_interest(Interest::WRITABLE)?;
                    return Ok(true);
                };
                self.unsent.drain(..sent);
                if self.unsent.is_empty() {
                    self.stream.set_interest(Interest::READABLE)?;
                }
                continue;
            }
            let Some(read) = none_if_blocked(self.stream.read(buffer))? else { return Ok(true) };
            if read == 0 {
                return Ok(false);
            }
            *messages += 1;
            // A read that did not fill the buffer has emptied the stream (epoll(7), question 9).
            // Later bytes are a new event. So the server needs no read that returns `WouldBlock`.
            let empty = read < buffer.len() && !self.stream.readiness().is_read_closed();
            if empty {
                self.stream.clear_readiness(Readiness::READABLE);
            }
            let sent = none_if_blocked(self.stream.write(&buffer[..read]))?.unwrap_or(0);
            self.unsent.extend_from_slice(&buffer[sent..read]);
            if empty && self.unsent.is_empty() {
                return Ok(true);
            }
        }
        // The stream is still ready: the next wait reports the stream again, after other events.
        Ok(true)
    }
}

/// Returns `None` if the operation would block.
fn none_if_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

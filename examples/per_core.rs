//! A server with a loop for each core. The loops share one address, and balance connections.
//!
//! Each loop has a thread, a reactor, and its own listener with `SO_REUSEPORT`. Linux spreads the
//! connections over the listeners by a hash. Other systems may give all connections to one
//! listener. So a loop that has more connections than another one gives new connections away: it
//! sends the `TcpStream` through a channel, and the other loop registers the stream. Besides these
//! channels, the loops share only their connection counts.
//!
//! The server answers each line with the number of the client's loop. At Ctrl-C or SIGTERM the
//! loops stop accepting. Each ends when its clients have gone, or after a grace period.
//!
//! `cargo run --release --example per_core -- --load 2000` starts clients and ends by itself.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::{Arg, Command, value_parser};
use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Canceller, Context, Events, Fd, Reactor, Signal, select, sys::Interest};
use socket2::{Domain, Socket, Type};

/// A loop gives new connections away if it has over this many more than another loop.
pub(crate) const SLACK: usize = 4;
/// The most streams on the way to a loop. Further streams stay where they were accepted.
const QUEUE: usize = 64;
/// The most reads or accepts for one event, so that other sources get their turn.
const ROUNDS: usize = 16;

pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) loops: usize,
    /// The number of loops that have a listener.
    pub(crate) listeners: usize,
    /// The time for which clients may stay when the server stops.
    pub(crate) grace: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) accepted: u64,
    /// Accepted connections that were given to another loop.
    pub(crate) given: u64,
    /// Connections that came from another loop.
    pub(crate) taken: u64,
    pub(crate) lines: u64,
}

/// All loops, each on its own thread.
pub(crate) struct Pool {
    pub(crate) address: SocketAddr,
    stop: Canceller,
    threads: Vec<JoinHandle<io::Result<Report>>>,
}

impl Pool {
    pub(crate) fn start(settings: Settings) -> io::Result<Pool> {
        let Settings { mut address, loops, listeners, grace } = settings;
        let builder = Reactor::builder(); // the settings of all reactors
        let (context, stop) = Context::background().with_cancel();
        let (streams, inboxes): (Vec<_>, Vec<_>) =
            (0..loops).map(|_| channel::bounded(QUEUE)).unzip();
        let neighbour = |streams| Neighbour { open: AtomicUsize::new(0), streams };
        let all: Arc<[Neighbour]> = streams.into_iter().map(neighbour).collect();
        let mut threads = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let listener = (index < listeners).then(|| listen(address)).transpose()?;
            if let Some(listener) = &listener {
                address = listener.local_addr()?; // the first one finds a port
            }
            let (all, context, builder) = (all.clone(), context.clone(), builder.clone());
            threads.push(thread::spawn(move || {
                let reactor = builder.build()?;
                let (connections, report) = Default::default();
                let it = Loop { index, all, reactor, connections, next: FIRST, report };
                it.run(inbox, listener, &context, grace)
            }));
        }
        Ok(Pool { address, stop, threads })
    }

    /// Makes all loops stop accepting.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all loops have ended.
    pub(crate) fn join(self) -> io::Result<Vec<Report>> {
        let join = |thread: JoinHandle<_>| thread.join().expect("no loop panics");
        self.threads.into_iter().map(join).collect()
    }
}

/// Makes a listener that shares its address with others.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    Ok(socket.into())
}

/// A loop as the other loops see it.
struct Neighbour {
    /// The connections of the loop, and those on the way to it.
    open: AtomicUsize,
    streams: Sender<TcpStream>,
}

struct Loop {
    index: usize,
    all: Arc<[Neighbour]>,
    reactor: Reactor,
    /// The connections, by key.
    connections: HashMap<u64, Connection>,
    next: u64,
    report: Report,
}

struct Connection {
    stream: Fd<TcpStream>,
    unsent: Vec<u8>,
}

const LISTENER: u64 = 0;
const INBOX: u64 = 1;
const STOP: u64 = 2;
const GRACE: u64 = 3;
/// The key of the first connection.
const FIRST: u64 = 4;

impl Loop {
    fn run(
        mut self,
        inbox: Receiver<TcpStream>,
        listener: Option<TcpListener>,
        context: &Context,
        grace: Duration,
    ) -> io::Result<Report> {
        let inbox = self.reactor.register_with(INBOX, inbox)?;
        let mut stop = Some(self.reactor.done(context).with_key(STOP));
        let grace_is_over = self.reactor.timer().with_key(GRACE);
        let register = |it| self.reactor.fd_nonblocking(it, Interest::READABLE);
        let mut listening = listener.map(register).transpose()?.map(|it| it.with_key(LISTENER));
        let mut events = Events::with_capacity(256);
        while stop.is_some() || self.all[self.index].open.load(Ordering::Acquire) > 0 {
            self.reactor.wait(&mut events)?;
            for event in &events {
                match event.key() {
                    LISTENER => listening.iter().try_for_each(|it| self.accept(it))?,
                    INBOX => {
                        for stream in inbox.drain(ROUNDS) {
                            self.report.taken += 1;
                            self.open(stream)?;
                        }
                    }
                    STOP => {
                        (stop, listening) = (None, None);
                        grace_is_over.reset(grace);
                    }
                    GRACE => return Ok(self.report), // closes the connections that are left
                    key => {
                        let Some(connection) = self.connections.get_mut(&key) else { continue };
                        let went = connection.answer(self.index, &mut self.report.lines);
                        if !went.unwrap_or(false) {
                            self.connections.remove(&key);
                            self.all[self.index].open.fetch_sub(1, Ordering::Release);
                        }
                    }
                }
            }
        }
        Ok(self.report)
    }

    fn accept(&mut self, listener: &Fd<TcpListener>) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let stream = match listener.try_io(TcpListener::accept) {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error), // the example `echo` waits when fds are short
            };
            self.report.accepted += 1;
            let open = |it: &&Neighbour| it.open.load(Ordering::Relaxed);
            let own = &self.all[self.index];
            let other = self.all.iter().min_by_key(open).unwrap_or(own);
            if open(&own) > open(&other) + SLACK {
                other.open.fetch_add(1, Ordering::Release);
                let Err(refused) = other.streams.try_send(stream) else {
                    self.report.given += 1;
                    continue;
                };
                other.open.fetch_sub(1, Ordering::Release);
                own.open.fetch_add(1, Ordering::Release);
                self.open(refused.into_inner())?;
            } else {
                own.open.fetch_add(1, Ordering::Release);
                self.open(stream)?;
            }
        }
        Ok(()) // still ready: the next wait says so
    }

    fn open(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let stream = self.reactor.fd_nonblocking(stream, Interest::READABLE)?.with_key(self.next);
        self.connections.insert(self.next, Connection { stream, unsent: Vec::new() });
        self.next += 1;
        Ok(())
    }
}

impl Connection {
    /// Reads lines and answers them. Stops reading while an answer waits for room. Returns false
    /// when the client has closed the connection.
    fn answer(&mut self, index: usize, lines: &mut u64) -> io::Result<bool> {
        let mut buffer = [0; 4_096];
        for _ in 0..ROUNDS {
            let writes = !self.unsent.is_empty();
            let done = if writes {
                self.stream.write(&self.unsent)
            } else {
                self.stream.read(&mut buffer)
            };
            match done {
                Ok(0) => return Ok(false),
                Ok(n) if writes => drop(self.unsent.drain(..n)),
                Ok(n) => {
                    let new = buffer[..n].iter().filter(|byte| **byte == b'\n').count();
                    *lines += new as u64;
                    self.unsent.extend(format!("loop {index}\n").repeat(new).bytes());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let wanted = if writes { Interest::WRITABLE } else { Interest::READABLE };
                    self.stream.set_interest(wanted)?;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true) // still ready: the next wait says so
    }
}

/// Asks `times` times. Returns the number of the loop that answered last.
pub(crate) fn ask(stream: &TcpStream, times: usize) -> io::Result<usize> {
    let mut answers = BufReader::new(stream).lines();
    let mut index = 0;
    for _ in 0..times {
        (&*stream).write_all(b"who?\n")?;
        let answer = answers.next().ok_or(ErrorKind::UnexpectedEof)??;
        index =
            answer.strip_prefix("loop ").and_then(|n| n.parse().ok()).ok_or(ErrorKind::Other)?;
    }
    Ok(index)
}

fn main() -> io::Result<()> {
    let number = |name| Arg::new(name).long(name).value_parser(value_parser!(usize));
    let listen = Arg::new("listen").long("listen").value_parser(value_parser!(SocketAddr));
    let mut found = Command::new("per_core").about("A server with a loop for each core").args([
        listen.default_value("127.0.0.1:0"),
        number("loops").help("Number of loops; default: one for each core"),
        number("load").value_name("CLIENTS").help("Start this many clients, then end"),
    ]);
    let mut found = found.get_matches_mut();
    let cores = || thread::available_parallelism().map_or(1, |cores| cores.get());
    let loops = found.remove_one("loops").unwrap_or_else(cores).max(1);
    let (address, grace) = (found.remove_one("listen").unwrap(), Duration::from_secs(5));
    let pool = Pool::start(Settings { address, loops, listeners: loops, grace })?;
    println!("{loops} loops at {}", pool.address);
    match found.remove_one::<usize>("load") {
        Some(clients) => {
            let connect = |_| TcpStream::connect(pool.address);
            let clients = (0..clients).map(connect).collect::<io::Result<Vec<_>>>()?;
            clients.iter().try_for_each(|client| ask(client, 3).map(drop))?;
        }
        None => {
            let reactor = Reactor::new()?;
            let signals = reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
            select! { reactor; recv(signals) -> signal => println!("{signal}") }
        }
    }
    pool.stop();
    for (index, Report { accepted, given, taken, lines }) in pool.join()?.iter().enumerate() {
        println!("loop {index}: {accepted} accepted, {given} given, {taken} taken, {lines} lines");
    }
    Ok(())
}

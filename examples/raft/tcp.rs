//! The way from node to node when each is a process of its own: TCP, and a loop beside the node's.
//!
//! Every process dials all the others, and sends on the connections that it dialled. It hears on
//! those that it accepted. A message is a frame: its length, and then the message. What cannot be
//! sent at once waits in a buffer with a bound; beyond that it is lost, which Raft allows. A
//! connection that fails is dialled again, after a time that doubles. The ballot is in memory: a
//! process that was killed must not come back at its address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use pollmux::channel::{self, Sender};
use pollmux::{Context, Events, Fd, Inbox, Reactor, Signal, Source, Timer, sys::Interest};
use socket2::{Domain, Socket, Type};

use crate::node::{self, Body, Disk, Event, Id, Message, Setup, Timing};

/// The length of a message, and of its frame: length, sender, term, body.
const LENGTH: [u8; 4] = 17_u32.to_be_bytes();
const FRAME: usize = 4 + 8 + 8 + 1;
const BODIES: [Body; 5] =
    [Body::RequestVote, Body::Vote(false), Body::Vote(true), Body::Heartbeat, Body::Heard];
/// Messages in a queue, and bytes that wait for a slow peer.
const QUEUE: usize = 64;
const UNSENT: usize = 4_096;
/// The first and the longest time between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

fn encode(Message { from, term, body }: Message) -> Vec<u8> {
    let body = BODIES.iter().position(|other| *other == body).expect("all are there") as u8;
    [&LENGTH[..], &(from as u64).to_be_bytes(), &term.to_be_bytes(), &[body]].concat()
}

/// Takes the next message off the front. `None` if that is not whole.
fn decode(bytes: &mut Vec<u8>) -> io::Result<Option<Message>> {
    let Some(frame) = bytes.first_chunk::<FRAME>() else { return Ok(None) };
    let number = |at| u64::from_be_bytes(*frame[at..].first_chunk().expect("eight bytes"));
    let (from, term, body) = (number(4) as Id, number(12), BODIES.get(usize::from(frame[20])));
    let body = *body.filter(|_| frame.starts_with(&LENGTH)).ok_or(ErrorKind::InvalidData)?;
    bytes.drain(..FRAME);
    Ok(Some(Message { from, term, body }))
}

/// The way to a peer. Its sources have keys in this order: queue, stream, timer.
struct Peer {
    address: SocketAddr,
    queue: Inbox<Message>,
    stream: Option<Fd<TcpStream>>,
    connected: bool,
    unsent: Vec<u8>,
    dial: Timer,
    backoff: Duration,
}

impl Peer {
    fn dial(&mut self, reactor: &Reactor, key: u64) -> io::Result<()> {
        self.dial.try_take();
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            begun => begun?,
        }
        self.stream = Some(reactor.fd(socket.into(), Interest::WRITABLE)?.with_key(key));
        Ok(())
    }

    /// Forgets the connection, and dials again later.
    fn hang_up(&mut self) {
        (self.stream, self.connected) = (None, false);
        self.unsent.clear();
        self.dial.reset(self.backoff);
        self.backoff = (2 * self.backoff).min(BACKOFF.1);
    }

    /// The stream is connected, writable, or at its end.
    fn go_on(&mut self) -> io::Result<()> {
        let ready = |stream: &&mut Fd<_>| self.connected || stream.readiness().is_writable();
        let Some(stream) = self.stream.as_mut().filter(ready) else { return Ok(()) };
        if !self.connected {
            // The kernel may have connected the socket with itself, for want of a listener.
            let is_own = stream.get_ref().peer_addr()? == stream.get_ref().local_addr()?;
            if is_own || stream.get_ref().take_error()?.is_some() {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            (self.connected, self.backoff) = (true, BACKOFF.0);
        }
        while !self.unsent.is_empty() {
            let Some(sent) = unless_it_blocks(stream.write(&self.unsent))? else { break };
            self.unsent.drain(..sent);
        }
        if unless_it_blocks(stream.read(&mut [0]))?.is_some() {
            return Err(ErrorKind::ConnectionReset.into()); // the end: a peer says nothing here
        }
        let room = self.unsent.is_empty();
        stream.set_interest(if room { Interest::READABLE } else { Interest::BOTH })
    }

    /// Takes the messages that the node has to send. Returns false when the node has ended.
    fn take(&mut self) -> bool {
        for message in self.queue.drain(QUEUE) {
            if self.connected && self.unsent.len() < UNSENT {
                self.unsent.extend(encode(message));
            }
        }
        !self.queue.is_disconnected()
    }
}

/// A connection that was accepted, and the part of a message that has come.
type Heard = (Fd<TcpStream>, Vec<u8>);

/// Takes some of what has come. If there is more the next wait says so.
fn hear((stream, bytes): &mut Heard, node: &Sender<Message>) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    let Some(read) = unless_it_blocks(stream.read(&mut buffer))? else { return Ok(()) };
    let read = NonZero::new(read).ok_or(ErrorKind::UnexpectedEof)?;
    bytes.extend_from_slice(&buffer[..read.get()]);
    while let Some(message) = decode(bytes)? {
        let _ = node.try_send(message); // a node that is slow loses some
    }
    Ok(())
}

fn unless_it_blocks<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    let blocks = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    if blocks { Ok(None) } else { done.map(Some) }
}

/// Keys. A peer has three. Behind them come those of the connections that are heard.
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const PEERS: u64 = 2;

/// Runs the node with this id until a signal comes. `all` are the addresses, its own among them.
pub fn run(
    (id, all): (Id, &[SocketAddr]),
    (seed, timing): (u64, Timing),
    report: impl FnMut(Event) + Send + 'static,
) -> io::Result<()> {
    let reactor = Reactor::new()?;
    let listener = reactor.fd_nonblocking(TcpListener::bind(all[id])?, Interest::READABLE)?;
    let listener = listener.with_key(LISTENER);
    let _signals = reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?.with_key(SIGNALS);
    let (to_node, inbox) = channel::bounded(QUEUE);
    let (mut ways, mut peers): (Vec<(Id, Box<dyn node::Peer>)>, _) = (Vec::new(), Vec::new());
    let mut heard_keys = PEERS;
    for (other, &address) in all.iter().enumerate().filter(|(other, _)| *other != id) {
        let (way, queue) = channel::bounded::<Message>(QUEUE);
        ways.push((other, Box::new(way)));
        let queue = reactor.register_with(heard_keys, queue)?;
        let dial = reactor.after(Duration::ZERO).with_key(heard_keys + 2);
        let (stream, connected, unsent, backoff) = (None, false, Vec::new(), BACKOFF.0);
        peers.push(Peer { address, queue, stream, connected, unsent, dial, backoff });
        heard_keys += 3;
    }
    // A peer needs one. One that has gone and dials again may need two for some time.
    let mut heard: Vec<Option<Heard>> = (0..4 * all.len()).map(|_| None).collect();
    let (context, stop) = Context::background().with_cancel();
    let setup =
        Setup { id, peers: ways, inbox, disk: Disk::default(), timing, seed, context, report };
    let node = thread::spawn(move || node::run(&Reactor::new()?, setup));
    let mut events = Events::with_capacity(64);
    let mut running = true;
    while running {
        reactor.wait(&mut events)?;
        for event in &events {
            match event.key() {
                SIGNALS => running = false,
                LISTENER => {
                    let accepted = unless_it_blocks(listener.try_io(TcpListener::accept))?;
                    // Where there are too many, this one is closed: its peer dials again.
                    let free = heard.iter().position(Option::is_none);
                    if let (Some((stream, _)), Some(at)) = (accepted, free) {
                        let stream = reactor.fd_nonblocking(stream, Interest::READABLE)?;
                        heard[at] = Some((stream.with_key(heard_keys + at as u64), Vec::new()));
                    }
                }
                key if key < heard_keys => {
                    let peer = &mut peers[((key - PEERS) / 3) as usize];
                    let dials = (key - PEERS) % 3 == 2;
                    running &= peer.take();
                    let begun = if dials { peer.dial(&reactor, key - 1) } else { Ok(()) };
                    begun.and_then(|()| peer.go_on()).unwrap_or_else(|_| peer.hang_up());
                }
                key => {
                    let heard = &mut heard[(key - heard_keys) as usize];
                    drop(heard.take_if(|heard| hear(heard, &to_node).is_err()));
                }
            }
        }
    }
    stop.cancel();
    node.join().expect("the node does not panic")
}

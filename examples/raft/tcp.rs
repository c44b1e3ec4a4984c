//! Connects nodes in different processes by TCP, in a loop beside the node's loop.
//!
//! Every process connects to all other processes. A process sends on the connections that it
//! opened, and receives on the connections that it accepted. A frame is a length and a message.
//! Unsent bytes wait in a bounded buffer. A full buffer loses messages, which Raft allows. After a
//! failure a process connects again, after a time that doubles. The ballot is in memory, so a
//! killed process must not start again at its address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use pollmux::channel::{self, Sender};
use pollmux::{Context, Events, Fd, Inbox, Reactor, Signal, Source, Timer, sys::Interest};
use socket2::{Domain, Socket, Type};

use crate::node::{self, Body, Disk, Event, Id, Message, Setup, Timing};

/// The length of a message, as the first bytes of a frame.
const LENGTH: [u8; 4] = 17_u32.to_be_bytes();
/// The bytes of a frame: length, sender, term and body.
const FRAME: usize = 4 + 8 + 8 + 1;
const BODIES: [Body; 5] =
    [Body::RequestVote, Body::Vote(false), Body::Vote(true), Body::Heartbeat, Body::Ack];
/// The most messages in a queue.
const QUEUE: usize = 64;
/// The number of unsent bytes at which further messages to a slow peer are lost.
const UNSENT: usize = 4_096;
/// The first and the longest time between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

fn encode(Message { from, term, body }: Message) -> Vec<u8> {
    let body = BODIES.iter().position(|other| *other == body).expect("BODIES is complete") as u8;
    [&LENGTH[..], &(from as u64).to_be_bytes(), &term.to_be_bytes(), &[body]].concat()
}

/// Removes the first message from `bytes`. Returns `None` if the message is incomplete.
fn decode(bytes: &mut Vec<u8>) -> io::Result<Option<Message>> {
    let Some(frame) = bytes.first_chunk::<FRAME>() else { return Ok(None) };
    let number = |at| u64::from_be_bytes(*frame[at..].first_chunk().expect("eight bytes"));
    let (from, term, body) = (number(4) as Id, number(12), BODIES.get(usize::from(frame[20])));
    let body = *body.filter(|_| frame.starts_with(&LENGTH)).ok_or(ErrorKind::InvalidData)?;
    bytes.drain(..FRAME);
    Ok(Some(Message { from, term, body }))
}

/// The connection to a peer. The keys of its sources follow each other: queue, stream, timer.
struct Peer {
    address: SocketAddr,
    queue: Inbox<Message>,
    stream: Option<Fd<TcpStream>>,
    connected: bool,
    unsent: Vec<u8>,
    reconnect: Timer,
    backoff: Duration,
}

impl Peer {
    fn connect(&mut self, reactor: &Reactor, key: u64) -> io::Result<()> {
        self.reconnect.try_take();
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

    /// Closes the connection, and arms the timer that connects again.
    fn disconnect(&mut self) {
        (self.stream, self.connected) = (None, false);
        self.unsent.clear();
        self.reconnect.reset(self.backoff);
        self.backoff = (2 * self.backoff).min(BACKOFF.1);
    }

    /// Handles an event of the stream: finishes the connect, writes unsent bytes, finds the end.
    fn handle_stream(&mut self) -> io::Result<()> {
        let ready = |stream: &&mut Fd<_>| self.connected || stream.readiness().is_writable();
        let Some(stream) = self.stream.as_mut().filter(ready) else { return Ok(()) };
        if !self.connected {
            // Without a listener at the address, the kernel may connect the socket with itself.
            let is_own = stream.get_ref().peer_addr()? == stream.get_ref().local_addr()?;
            if is_own || stream.get_ref().take_error()?.is_some() {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            (self.connected, self.backoff) = (true, BACKOFF.0);
        }
        while !self.unsent.is_empty() {
            let Some(sent) = none_if_blocked(stream.write(&self.unsent))? else { break };
            self.unsent.drain(..sent);
        }
        if none_if_blocked(stream.read(&mut [0]))?.is_some() {
            return Err(ErrorKind::ConnectionReset.into()); // a peer sends no bytes, only the end
        }
        let room = self.unsent.is_empty();
        stream.set_interest(if room { Interest::READABLE } else { Interest::BOTH })
    }

    /// Encodes the messages that the node sends. Returns false when the node has ended.
    fn take_messages(&mut self) -> bool {
        for message in self.queue.drain(QUEUE) {
            if self.connected && self.unsent.len() < UNSENT {
                self.unsent.extend(encode(message));
            }
        }
        !self.queue.is_disconnected()
    }
}

/// An accepted connection, and the bytes of an incomplete message.
type Incoming = (Fd<TcpStream>, Vec<u8>);

/// Reads once, and sends the messages to the node. If bytes remain, the next wait reports the
/// stream again.
fn receive((stream, bytes): &mut Incoming, node: &Sender<Message>) -> io::Result<()> {
    let mut buffer = [0; 1_024];
    let Some(read) = none_if_blocked(stream.read(&mut buffer))? else { return Ok(()) };
    let read = NonZero::new(read).ok_or(ErrorKind::UnexpectedEof)?;
    bytes.extend_from_slice(&buffer[..read.get()]);
    while let Some(message) = decode(bytes)? {
        let _ = node.try_send(message); // a slow node loses messages
    }
    Ok(())
}

/// Returns `None` if the operation would block.
fn none_if_blocked<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    let blocks = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    if blocks { Ok(None) } else { done.map(Some) }
}

// The keys of the sources. Each peer has three keys from `PEERS` on. Then follow the keys of the
// accepted connections.
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const PEERS: u64 = 2;

/// Runs the node `id` until a signal comes. `all` has the addresses of all nodes.
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
    let (mut senders, mut peers): (Vec<(Id, Box<dyn node::Peer>)>, _) = (Vec::new(), Vec::new());
    let mut next_key = PEERS;
    for (other, &address) in all.iter().enumerate().filter(|(other, _)| *other != id) {
        let (sender, queue) = channel::bounded::<Message>(QUEUE);
        senders.push((other, Box::new(sender)));
        let queue = reactor.register_with(next_key, queue)?;
        let reconnect = reactor.after(Duration::ZERO).with_key(next_key + 2);
        let (stream, connected, unsent, backoff) = (None, false, Vec::new(), BACKOFF.0);
        peers.push(Peer { address, queue, stream, connected, unsent, reconnect, backoff });
        next_key += 3;
    }
    let incoming_keys = next_key;
    // A peer needs one connection. A peer that connects again may need two for some time.
    let mut incoming: Vec<Option<Incoming>> = (0..4 * all.len()).map(|_| None).collect();
    let (context, stop) = Context::background().with_cancel();
    let setup =
        Setup { id, peers: senders, inbox, disk: Disk::default(), timing, seed, context, report };
    let node = thread::spawn(move || node::run(&Reactor::new()?, setup));
    let mut events = Events::with_capacity(64);
    let mut running = true;
    while running {
        reactor.wait(&mut events)?;
        for event in &events {
            match event.key() {
                SIGNALS => running = false,
                LISTENER => {
                    let accepted = none_if_blocked(listener.try_io(TcpListener::accept))?;
                    // If no place is free, this drops the connection, and the peer connects again.
                    let free = incoming.iter().position(Option::is_none);
                    if let (Some((stream, _)), Some(at)) = (accepted, free) {
                        let stream = reactor.fd_nonblocking(stream, Interest::READABLE)?;
                        let stream = stream.with_key(incoming_keys + at as u64);
                        incoming[at] = Some((stream, Vec::new()));
                    }
                }
                key if key < incoming_keys => {
                    let peer = &mut peers[((key - PEERS) / 3) as usize];
                    let is_timer = (key - PEERS) % 3 == 2;
                    running &= peer.take_messages();
                    let begun = if is_timer { peer.connect(&reactor, key - 1) } else { Ok(()) };
                    begun.and_then(|()| peer.handle_stream()).unwrap_or_else(|_| peer.disconnect());
                }
                key => {
                    let place = &mut incoming[(key - incoming_keys) as usize];
                    drop(place.take_if(|incoming| receive(incoming, &to_node).is_err()));
                }
            }
        }
    }
    stop.cancel();
    node.join().expect("the node does not panic")
}

//! The load: many connections on one thread. Most clients are polite, and some misbehave.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Events, Fd, Reactor, Source};
use socket2::SockRef;

const MESSAGE: [u8; 64] = *b"To be sent, to come back, and to be sent again, as it was sent.\n";
/// The time after which the load fails. No load takes as long.
const LIMIT: Duration = Duration::from_secs(170);
const TIMEOUT: u64 = u64::MAX >> 1;

/// The behavior of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Sends each message after the message before has come back, and then closes.
    Polite,
    /// Closes while an answer is on its way.
    Drops,
    /// Shuts down its sending side, and then reads the answer to its last message.
    HalfCloses,
    /// Resets the connection.
    Resets,
    /// Sends nothing, and waits until the server closes the connection.
    Stalls,
}

/// The counts of a load: its connections, its answered messages, and its clients by behavior.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub connections: u64,
    pub messages: u64,
    pub polite: u64,
    pub dropped: u64,
    pub half_closed: u64,
    pub reset: u64,
    pub stalled: u64,
}

struct Client {
    stream: Fd<TcpStream>,
    behavior: Behavior,
    /// The number of messages that the client still has to send.
    left: u64,
    /// The bytes of the current message that have not come back.
    missing: usize,
}

/// Opens `connections` at once, sends `messages` over each connection, and closes the connections.
/// If `rude` is true, one client in ten misbehaves.
pub fn run(
    address: SocketAddr,
    connections: usize,
    messages: u64,
    rude: bool,
) -> io::Result<Outcome> {
    let reactor = Reactor::new()?;
    let mut clients = Vec::with_capacity(connections);
    for i in 0..connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let behavior = match i % 40 {
            10 if rude => Behavior::Drops,
            20 if rude => Behavior::HalfCloses,
            30 if rude => Behavior::Resets,
            39 if rude => Behavior::Stalls,
            _ => Behavior::Polite,
        };
        let stream = reactor.fd(stream, Interest::READABLE)?.with_key(i as u64);
        clients.push(Some(Client { stream, behavior, left: messages, missing: 0 }));
    }
    let mut outcome = Outcome { connections: connections as u64, ..Outcome::default() };
    let mut open = connections;
    for slot in &mut clients {
        if let Some(client) = slot {
            if !client.send_next()? {
                outcome.count(client.behavior);
                *slot = None;
                open -= 1;
            }
        }
    }
    let timeout = reactor.after(LIMIT).with_key(TIMEOUT);
    let mut events = Events::with_capacity(256);
    while open > 0 {
        reactor.wait(&mut events)?;
        for event in &events {
            if event.key() == TIMEOUT {
                timeout.try_take();
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("{open} clients are still waiting"),
                ));
            }
            let slot = &mut clients[event.key() as usize];
            let Some(client) = slot else { continue };
            if !client.receive(&mut outcome.messages)? {
                outcome.count(client.behavior);
                *slot = None;
                open -= 1;
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn count(&mut self, behavior: Behavior) {
        *match behavior {
            Behavior::Polite => &mut self.polite,
            Behavior::Drops => &mut self.dropped,
            Behavior::HalfCloses => &mut self.half_closed,
            Behavior::Resets => &mut self.reset,
            Behavior::Stalls => &mut self.stalled,
        } += 1;
    }
}

impl Client {
    /// Sends the next message, if there is one. Returns true if the connection stays open.
    fn send_next(&mut self) -> io::Result<bool> {
        if self.behavior == Behavior::Stalls {
            return Ok(true);
        }
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        // The socket has room for a small message, because the message before has come back.
        (&self.stream).write_all(&MESSAGE)?;
        self.missing = MESSAGE.len();
        match self.behavior {
            Behavior::Drops => return Ok(false),
            Behavior::Resets => {
                // Closing the socket then discards all bytes on their way, and sends a reset.
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Behavior::HalfCloses => {
                self.left = 0;
                self.stream.get_ref().shutdown(Shutdown::Write)?;
            }
            Behavior::Polite | Behavior::Stalls => {}
        }
        Ok(true)
    }

    /// Reads the echo, and counts complete messages. Returns true if the connection stays open.
    fn receive(&mut self, messages: &mut u64) -> io::Result<bool> {
        let mut buffer = [0; MESSAGE.len()];
        loop {
            let read = match (&self.stream).read(&mut buffer[..self.missing.max(1)]) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            if read == 0 {
                let expected = self.missing == 0
                    && matches!(self.behavior, Behavior::HalfCloses | Behavior::Stalls);
                return if expected { Ok(false) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            let from = MESSAGE.len() - self.missing;
            if self.missing == 0 || buffer[..read] != MESSAGE[from..from + read] {
                return Err(io::Error::new(ErrorKind::InvalidData, "the echo differs"));
            }
            self.missing -= read;
            if self.missing == 0 {
                *messages += 1;
                if self.behavior == Behavior::Polite && !self.send_next()? {
                    return Ok(false);
                }
            }
        }
    }
}

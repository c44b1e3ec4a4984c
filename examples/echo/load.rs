//! The load: many connections from one thread, most of them well-behaved, some on purpose not.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Events, Fd, Reactor, Source};
use socket2::SockRef;

const MESSAGE: [u8; 64] = *b"To be sent, to come back, and to be sent again, as it was sent.\n";
/// Longer than anything here takes: what is not done then is not going to be.
const TOO_LONG: Duration = Duration::from_secs(170);
const TIMEOUT: u64 = u64::MAX >> 1;

/// The behavior of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Sends its messages, one after the other has come back, and closes.
    Polite,
    /// Leaves in the middle of an answer.
    Drops,
    /// Says that it has nothing more to say, and hears the answer to its last message.
    HalfCloses,
    /// Resets the connection.
    Resets,
    /// Says nothing, and waits for the server to lose patience.
    Stalls,
}

/// Returns true if all bytes came back as they were sent. The check is not a part of the load.
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
    manners: Manners,
    left: u64,
    /// Bytes of the present message that have not come back.
    missing: usize,
}

/// Opens `connections` at once, sends `messages` over each, and closes them. With `rude` one in ten
/// misbehaves.
pub fn attack(
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
        let manners = match i % 40 {
            10 if rude => Manners::Drops,
            20 if rude => Manners::HalfCloses,
            30 if rude => Manners::Resets,
            39 if rude => Manners::Stalls,
            _ => Manners::Polite,
        };
        let stream = reactor.fd(stream, Interest::READABLE)?.with_key(i as u64);
        clients.push(Some(Client { stream, manners, left: messages, missing: 0 }));
    }
    let mut outcome = Outcome { connections: connections as u64, ..Outcome::default() };
    let mut open = connections;
    for slot in &mut clients {
        if let Some(client) = slot {
            if !client.speak()? {
                outcome.count(client.manners);
                *slot = None;
                open -= 1;
            }
        }
    }
    let timeout = reactor.after(TOO_LONG).with_key(TIMEOUT);
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
            if !client.hear(&mut outcome.messages)? {
                outcome.count(client.manners);
                *slot = None;
                open -= 1;
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn count(&mut self, manners: Manners) {
        *match manners {
            Manners::Polite => &mut self.polite,
            Manners::Drops => &mut self.dropped,
            Manners::HalfCloses => &mut self.half_closed,
            Manners::Resets => &mut self.reset,
            Manners::Stalls => &mut self.stalled,
        } += 1;
    }
}

impl Client {
    /// Sends the next message, if there is one. Returns whether the connection stays open.
    fn speak(&mut self) -> io::Result<bool> {
        if self.manners == Manners::Stalls {
            return Ok(true);
        }
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        // So small a message always finds room: the one before has come back.
        (&self.stream).write_all(&MESSAGE)?;
        self.missing = MESSAGE.len();
        match self.manners {
            Manners::Drops => return Ok(false),
            Manners::Resets => {
                // Closing then throws away what is under way, and says so.
                SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Manners::HalfCloses => {
                self.left = 0;
                self.stream.get_ref().shutdown(Shutdown::Write)?;
            }
            Manners::Polite | Manners::Stalls => {}
        }
        Ok(true)
    }

    fn hear(&mut self, messages: &mut u64) -> io::Result<bool> {
        let mut buffer = [0; MESSAGE.len()];
        loop {
            let read = match (&self.stream).read(&mut buffer[..self.missing.max(1)]) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            if read == 0 {
                let expected = self.missing == 0
                    && matches!(self.manners, Manners::HalfCloses | Manners::Stalls);
                return if expected { Ok(false) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            let from = MESSAGE.len() - self.missing;
            if self.missing == 0 || buffer[..read] != MESSAGE[from..from + read] {
                return Err(io::Error::new(ErrorKind::InvalidData, "something else came back"));
            }
            self.missing -= read;
            if self.missing == 0 {
                *messages += 1;
                if self.manners == Manners::Polite && !self.speak()? {
                    return Ok(false);
                }
            }
        }
    }
}

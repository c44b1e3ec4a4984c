//! The load: many clients on one thread. Some of the clients never read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Events, Fd, Reactor};
use socket2::SockRef;

/// The time after which the load fails. No load takes as long.
const LIMIT: Duration = Duration::from_secs(170);
/// The text of each line.
const TEXT: &str =
    "The quick brown fox jumps over the lazy watchdog, and the lazy watchdog does not mind.";

/// The size of a load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: usize,
    /// The number of clients that never read.
    pub slow: usize,
    /// The number of clients that send one line in each round.
    pub speakers: usize,
    pub rounds: usize,
}

impl Load {
    /// Returns the number of lines that all speakers send.
    pub fn lines(&self) -> usize {
        self.rounds * self.speakers
    }

    /// Returns the number of lines that all readers receive. A speaker does not receive its own
    /// line.
    pub fn received(&self) -> usize {
        self.lines() * (self.clients - self.slow - 1)
    }

    /// Returns the most bytes that a reader receives in one round.
    pub fn round_bytes(&self) -> usize {
        self.speakers * (TEXT.len() + 10)
    }
}

/// Connects, and waits for the welcome line. After that line the client receives all lines.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(stream)
}

/// Runs the load. A round ends when all readers have received its lines. So no reader is behind by
/// more than one round, and the room has no reason to drop a reader.
pub fn run(address: SocketAddr, load: Load) -> io::Result<()> {
    let reactor = Reactor::new()?;
    let mut slow = Vec::new(); // open until the end, and never read
    for _ in 0..load.slow {
        let stream = connect(address)?;
        SockRef::from(&stream).set_recv_buffer_size(4 << 10)?;
        slow.push(stream);
    }
    let mut readers = Vec::new();
    for key in 0..load.clients - load.slow {
        let stream = reactor.fd_nonblocking(connect(address)?, Interest::READABLE)?;
        readers.push(stream.with_key(key as u64));
    }
    let mut events = Events::with_capacity(256);
    let end = reactor.now() + LIMIT;
    for _ in 0..load.rounds {
        for mut speaker in &readers[..load.speakers] {
            writeln!(speaker, "{TEXT}")?;
        }
        let mut missing = load.received() / load.rounds;
        while missing > 0 {
            let left = end.duration_since(reactor.now());
            reactor.wait_timeout(&mut events, left)?;
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            for event in &events {
                let lines = count_lines(&readers[event.key() as usize])?;
                missing = missing.checked_sub(lines).ok_or(ErrorKind::InvalidData)?;
            }
        }
    }
    drop(slow);
    Ok(())
}

/// Reads all bytes that are there, and returns the number of lines.
fn count_lines(mut stream: &Fd<TcpStream>) -> io::Result<usize> {
    let (mut buffer, mut lines) = ([0; 16 << 10], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => lines += buffer[..n].iter().filter(|&&byte| byte == b'\n').count(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(lines),
            Err(error) => return Err(error),
        }
    }
}

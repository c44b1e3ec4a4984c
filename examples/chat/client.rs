//! One client: its stream, its idle timer, and the queue of bytes that it has not read yet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};

use pollmux::sys::Interest;
use pollmux::{Fd, Timer};

use super::lines::Lines;

/// The most reads of one client in a row, so that other clients get their turn.
const READS: u32 = 4;
/// The longest line in bytes. A longer line is split.
const LINE: usize = 1_024;
/// The bytes of memory that an empty queue keeps.
const KEPT: usize = 512;

pub struct Client {
    /// The number that names the client in the room.
    number: u32,
    stream: Fd<TcpStream>,
    pub idle: Timer,
    lines: Lines,
    /// The bytes that the client has not taken yet.
    queue: VecDeque<u8>,
    /// The most bytes that may wait in the queue.
    limit: usize,
    /// The queue holds the last bytes for the client.
    is_closing: bool,
}

impl Client {
    pub fn new(number: u32, stream: Fd<TcpStream>, idle: Timer, limit: usize) -> Client {
        let (lines, queue) = (Lines::new(LINE), VecDeque::new());
        Client { number, stream, idle, lines, queue, limit, is_closing: false }
    }

    /// Appends the client's new lines to `text`, with the client's number before each line.
    /// Returns false at the end of the stream.
    pub fn read_lines(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = [0; 4_096];
        for _ in 0..READS {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => self.lines.push(&buffer[..n], |line| {
                    text.extend_from_slice(format!("<{}> ", self.number).as_bytes());
                    text.extend_from_slice(line);
                    text.push(b'\n');
                }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The stream is still ready: the next wait reports the stream again, after the others.
        Ok(true)
    }

    /// Puts `text` into the queue. Returns false if the queue has no room, because the client reads
    /// too slowly.
    pub fn enqueue(&mut self, text: &[u8]) -> bool {
        if self.queue.len() + text.len() > self.limit {
            // The client may read fast enough after a long turn. The next flush returns any error.
            let _ = self.flush();
        }
        let fits = self.queue.len() + text.len() <= self.limit;
        if fits {
            self.queue.extend(text);
        }
        fits
    }

    /// Returns the number of bytes in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Writes as much of the queue as the client takes now. If bytes remain, asks for an event when
    /// the stream has room again.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let (first, second) = self.queue.as_slices();
            match self.stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(n) => drop(self.queue.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.stream.set_interest(Interest::BOTH);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.queue.shrink_to(KEPT);
        if self.is_closing {
            self.stream.get_ref().shutdown(Shutdown::Write)?;
        }
        // With an empty queue, a writable stream needs no event.
        self.stream.set_interest(Interest::READABLE)
    }

    /// Sends `text` as the last line. After that line the client sees the end of the stream.
    pub fn close_with(&mut self, text: &[u8]) -> io::Result<()> {
        self.enqueue(text);
        self.is_closing = true;
        self.flush()
    }
}

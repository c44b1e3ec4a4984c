//! One client: its stream, its idle timer, and what it has not read yet.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};

use pollmux::sys::Interest;
use pollmux::{Fd, Timer};

use super::lines::Lines;

/// Reads of one client in a row, before it is the others' turn.
const READS: u32 = 4;
/// A longer line is cut.
const LINE: usize = 1_024;
/// The memory that a queue keeps when it is empty.
const KEPT: usize = 512;

pub struct Client {
    /// The name of the client in the room.
    number: u32,
    stream: Fd<TcpStream>,
    pub idle: Timer,
    lines: Lines,
    /// Bytes that the client has not taken yet.
    queue: VecDeque<u8>,
    /// The bytes that may wait in the queue.
    limit: usize,
    /// There is nothing more to say.
    is_over: bool,
}

impl Client {
    pub fn new(number: u32, stream: Fd<TcpStream>, idle: Timer, limit: usize) -> Client {
        let (lines, queue) = (Lines::new(LINE), VecDeque::new());
        Client { number, stream, idle, lines, queue, limit, is_over: false }
    }

    /// Adds the lines that have come to `said`, with the client's number. Returns false at the end
    /// of the stream.
    pub fn hear(&mut self, said: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = [0; 4_096];
        for _ in 0..READS {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => self.lines.push(&buffer[..n], |line| {
                    said.extend_from_slice(format!("<{}> ", self.number).as_bytes());
                    said.extend_from_slice(line);
                    said.push(b'\n');
                }),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // The stream is still ready: the next wait reports it again, after the others.
        Ok(true)
    }

    /// Puts `text` into the queue. Returns false if there is no room: the client reads too slowly.
    pub fn say(&mut self, text: &[u8]) -> bool {
        if self.queue.len() + text.len() > self.limit {
            // Perhaps the client reads well, and the turn was long. An error comes again.
            let _ = self.flush();
        }
        let fits = self.queue.len() + text.len() <= self.limit;
        if fits {
            self.queue.extend(text);
        }
        fits
    }

    /// The bytes that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Writes as much of the queue as the client takes now, and asks for more room if that was not
    /// all.
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
        if self.is_over {
            self.stream.get_ref().shutdown(Shutdown::Write)?;
        }
        // While there is nothing to write, room is no event.
        self.stream.set_interest(Interest::READABLE)
    }

    /// Says `text` as the last thing: when it is written the client sees the end of the stream.
    pub fn say_good_bye(&mut self, text: &[u8]) -> io::Result<()> {
        self.say(text);
        self.is_over = true;
        self.flush()
    }
}

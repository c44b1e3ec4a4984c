//! Writes to socket pairs, and checks that the same bytes come out.
//!
//! The loop has both ends of half of the pairs. A blocking thread writes to the other pairs. After
//! some time a new pair replaces each pair.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pollmux::sys::{Interest, Mode};
use pollmux::{Fd, Handle, Source};

use super::{Keys, Part};
use crate::run::{Random, Run};

const PAIRS: usize = 8;
/// The most reads or writes of one socket in a row.
const ROUNDS: usize = 16;

/// Returns the byte at this position of every stream.
fn byte_at(place: u64) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

struct Pair {
    /// The writing end. `None` after its close, and `None` if the thread has this end.
    writer: Option<Fd<UnixStream>>,
    reader: Fd<UnixStream>,
    written: u64,
    read: u64,
    /// The number of bytes that the loop has to write in all.
    goal: u64,
    is_closing: bool,
    /// Receives the number of bytes that the thread has written.
    total: Option<mpsc::Receiver<u64>>,
}

/// A stream for the writing thread, and the number of bytes to write.
struct Job {
    stream: UnixStream,
    bytes: u64,
    total: mpsc::Sender<u64>,
}

pub struct Sockets {
    run: Run,
    random: Random,
    keys: Keys,
    pairs: Vec<Option<Pair>>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Sockets {
    pub fn new(reactor: &Handle, run: &Run, keys: Keys) -> io::Result<Sockets> {
        let (jobs, inbox) = mpsc::channel();
        let shared = run.clone();
        let mut sockets = Sockets {
            run: run.clone(),
            random: run.random(keys.0 as u64),
            keys,
            pairs: Vec::new(),
            jobs: Some(jobs),
            thread: Some(thread::spawn(move || write_all(&shared, inbox))),
            buffer: vec![0; 16 * 1024],
            bytes: 0,
        };
        for index in 0..PAIRS {
            let pair = sockets.open(reactor, index)?;
            sockets.pairs.push(Some(pair));
        }
        Ok(sockets)
    }

    fn open(&mut self, reactor: &Handle, index: usize) -> io::Result<Pair> {
        let (ours, theirs) = UnixStream::pair()?;
        let mode = if self.random.one_in(4) { Mode::Level } else { Mode::Edge };
        theirs.set_nonblocking(true)?;
        let reader = reactor.fd_with_mode(theirs, Interest::READABLE, mode)?;
        let reader = reader.with_key(self.keys.key(2 * index));
        let (mut writer, mut total) = (None, None);
        if index % 2 == 0 {
            let ours = reactor.fd_nonblocking(ours, Interest::NONE)?;
            writer = Some(ours.with_key(self.keys.key(2 * index + 1)));
        } else {
            let (sender, receiver) = mpsc::channel();
            let job = Job { stream: ours, bytes: self.random.below(1 << 17), total: sender };
            let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
            self.run.check(sent, || "the thread that writes has ended".into());
            total = Some(receiver);
        }
        Ok(Pair { writer, reader, written: 0, read: 0, goal: 0, is_closing: false, total })
    }

    /// Writes until all bytes are written or the socket is full.
    fn write(&mut self, index: usize) -> io::Result<()> {
        let Some(pair) = &mut self.pairs[index] else { return Ok(()) };
        let Some(writer) = &mut pair.writer else { return Ok(()) };
        for _ in 0..ROUNDS {
            if pair.written == pair.goal {
                writer.set_interest(Interest::NONE)?;
                break;
            }
            let len = (pair.goal - pair.written).min(self.buffer.len() as u64) as usize;
            for (place, byte) in (pair.written..).zip(&mut self.buffer[..len]) {
                *byte = byte_at(place);
            }
            match writer.write(&self.buffer[..len]) {
                Ok(written) => pair.written += written as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if pair.is_closing && pair.written == pair.goal {
            pair.writer = None;
        }
        Ok(())
    }

    /// Reads the bytes that are there. Returns true at the end of the stream.
    fn read(&mut self, index: usize) -> io::Result<bool> {
        let Some(pair) = &mut self.pairs[index] else { return Ok(false) };
        for _ in 0..ROUNDS {
            let read = match pair.reader.read(&mut self.buffer) {
                Ok(0) => return Ok(true),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let is_right =
                (pair.read..).map(byte_at).zip(&self.buffer[..read]).all(|(a, b)| a == *b);
            let place = pair.read;
            self.run.check(is_right, || format!("a wrong byte in {read} bytes after {place}"));
            pair.read += read as u64;
            self.bytes += read as u64;
        }
        Ok(false)
    }

    fn closed(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        let Some(pair) = self.pairs[index].take() else { return Ok(()) };
        let total = match &pair.total {
            Some(total) => total.recv().unwrap_or(u64::MAX),
            None => pair.written,
        };
        self.run.check(pair.writer.is_none() && pair.read == total, || {
            format!("of {total} bytes {} were read before the end", pair.read)
        });
        drop(pair);
        if !self.run.is_over() {
            self.pairs[index] = Some(self.open(reactor, index)?);
        }
        Ok(())
    }
}

impl Part for Sockets {
    fn name(&self) -> &'static str {
        "bytes"
    }

    fn count(&self) -> u64 {
        self.bytes
    }

    fn handle(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        if index % 2 == 1 {
            // Even an end without interest reports that its peer has closed.
            if let Some(Pair { writer: Some(writer), .. }) = &self.pairs[index / 2] {
                writer.try_take();
            }
            return self.write(index / 2);
        }
        if self.read(index / 2)? {
            self.closed(reactor, index / 2)?;
        }
        Ok(())
    }

    fn start_work(&mut self, _: &Handle) -> io::Result<()> {
        for index in 0..PAIRS {
            let Some(pair) = &mut self.pairs[index] else { continue };
            let Some(writer) = &pair.writer else { continue };
            if pair.is_closing || pair.read != pair.goal {
                continue;
            }
            pair.is_closing = self.run.is_over() || self.random.one_in(40);
            pair.goal += self.random.below(1 << 14);
            writer.set_interest(Interest::WRITABLE)?;
        }
        if self.run.is_over() {
            self.jobs = None;
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let left = self.pairs.iter().flatten().count();
        (left > 0).then(|| format!("the ends of {left} sockets"))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.pairs.clear();
        self.jobs = None;
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        self.run.check(joined, || "the thread that writes panicked".into());
    }
}

/// Writes the bytes of each job in pieces, sends their number, and closes the stream.
fn write_all(run: &Run, jobs: mpsc::Receiver<Job>) {
    let mut random = run.random(300);
    for Job { mut stream, bytes, total } in jobs {
        let mut written = 0;
        while written < bytes {
            let len = (1 + random.below(8_192)).min(bytes - written);
            let piece: Vec<u8> = (written..written + len).map(byte_at).collect();
            if stream.write_all(&piece).is_err() {
                return; // the loop has dropped its end
            }
            written += len;
        }
        let _ = total.send(written);
        drop(stream);
        thread::sleep(random.duration(Duration::from_millis(4)));
    }
}

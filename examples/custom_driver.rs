//! A complete driver of your own, on `poll(2)`. This call has no edges, no timer, and keeps no list
//! of fds between calls.
//!
//! - The waker is a socket among the fds. `poll` is level-triggered, so the driver empties the
//!   socket after each wake-up.
//! - A deadline is the timeout of the wait, in ns (on macOS in ms). The driver never shortens it.
//! - A `Vec` keeps a duplicate of each fd, because a driver only borrows the fd in `register`.
//! - The driver refuses edges. The reactor then uses one-shot reports.
//!
//! The driver has no fd that stands for all fds, so a reactor on it cannot be embedded. A wait is
//! O(fds), as `poll(2)` is.
//!
//! `cargo run --release --example custom_driver`

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use libc::{c_short, pollfd};
use pollmux::driver::{Clock, Driver, ReadyFds, Syscalls, Wait, Wake, WakeWindow};
use pollmux::sys::{Interest, Mode, Readiness, Time};

/// Waits through `poll(2)`.
#[derive(Debug)]
pub struct PollDriver {
    waker: Arc<Waker>,
    fds: Vec<Watched>,
    syscalls: Syscalls,
}

#[derive(Debug)]
struct Watched {
    id: u64,
    fd: OwnedFd,
    /// The number of the user's fd. No fd may be registered twice.
    number: RawFd,
    interest: Interest,
    mode: Mode,
    /// The fd is one-shot, and was reported.
    done: bool,
}

/// A socket pair. Each wake-up writes a byte at one end.
#[derive(Debug)]
struct Waker {
    into: UnixStream,
    out: UnixStream,
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        match (&self.into).write(&[1]) {
            // A full socket is readable, so it ends the wait already.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

impl Waker {
    fn new() -> io::Result<Waker> {
        let (into, out) = UnixStream::pair()?;
        into.set_nonblocking(true)?;
        out.set_nonblocking(true)?;
        Ok(Waker { into, out })
    }

    fn clear(&self) {
        // A byte that is left only ends the next wait early.
        let _ = (&self.out).read(&mut [0; 64]);
    }
}

impl PollDriver {
    /// Makes a driver, with three syscalls. Fails with the system's error.
    pub fn new() -> io::Result<PollDriver> {
        Ok(PollDriver {
            waker: Arc::new(Waker::new()?),
            fds: Vec::new(),
            syscalls: Syscalls::default(),
        })
    }

    fn find(&mut self, id: u64) -> io::Result<usize> {
        self.fds
            .iter()
            .position(|watched| watched.id == id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn poll(&mut self, timeout: Option<Duration>, ready: &mut ReadyFds) -> io::Result<()> {
        // The waker is the first of the list.
        let mut list = vec![to_poll(self.waker.out.as_fd(), libc::POLLIN)];
        list.extend(self.fds.iter().filter(|watched| !watched.done).map(Watched::to_poll));
        match poll(&mut list, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?, // after an interruption the reactor waits again
        };
        let found: Vec<c_short> = list.iter().map(|fd| fd.revents).collect();
        if found[0] != 0 {
            self.waker.clear();
        }
        let looked_at = self.fds.iter_mut().filter(|watched| !watched.done);
        for (watched, &flags) in looked_at.zip(&found[1..]) {
            if flags != 0 {
                ready.push(watched.id, readiness(flags));
                watched.done = watched.mode == Mode::OneShot;
            }
        }
        Ok(())
    }
}

impl Watched {
    fn to_poll(&self) -> pollfd {
        let wanted = [
            (self.interest.is_readable(), libc::POLLIN | POLLRDHUP),
            (self.interest.is_writable(), libc::POLLOUT),
            (self.interest.is_priority(), libc::POLLPRI),
        ];
        let flags = wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flags)| flags);
        to_poll(self.fd.as_fd(), flags.fold(0, |all, one| all | one))
    }
}

fn to_poll(fd: BorrowedFd<'_>, events: c_short) -> pollfd {
    pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
}

/// The peer will write no more. macOS has only `POLLHUP` for this.
#[cfg(not(target_vendor = "apple"))]
const POLLRDHUP: c_short = libc::POLLRDHUP;
#[cfg(target_vendor = "apple")]
const POLLRDHUP: c_short = 0;

/// Calls `poll(2)`. The timeout is in milliseconds, rounded up, and at most 24 days. After that the
/// reactor waits again.
#[cfg(target_vendor = "apple")]
#[allow(unsafe_code)]
fn poll(list: &mut [pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let millis = |timeout: Duration| timeout.as_nanos().div_ceil(1_000_000).try_into();
    let timeout = timeout.map_or(-1, |timeout| millis(timeout).unwrap_or(libc::c_int::MAX));
    // SAFETY: the list lives as long as the call.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), list.len() as _, timeout) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Calls `ppoll(2)`, which has a timeout in nanoseconds.
#[cfg(not(target_vendor = "apple"))]
#[allow(unsafe_code)]
fn poll(list: &mut [pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        // The clock cannot reach a longer time.
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the list and the timeout live as long as the call. No signal mask is given.
    let ready =
        unsafe { libc::ppoll(list.as_mut_ptr(), list.len() as _, timeout, std::ptr::null()) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Translates the flags of `poll`. An error or an end counts as readable and writable: the next
/// read or write returns it.
fn readiness(flags: c_short) -> Readiness {
    let (read, write) = (Readiness::READABLE, Readiness::WRITABLE);
    let meanings = [
        (libc::POLLIN, read),
        (libc::POLLOUT, write),
        (libc::POLLPRI, Readiness::PRIORITY),
        (POLLRDHUP, read | Readiness::READ_CLOSED),
        (libc::POLLHUP, read | write | Readiness::READ_CLOSED | Readiness::WRITE_CLOSED),
        (libc::POLLERR, read | write | Readiness::ERROR),
    ];
    let found =
        meanings.into_iter().filter(|(flag, _)| flags & flag != 0).map(|(_, meaning)| meaning);
    found.fold(Readiness::NONE, |all, one| all | one)
}

impl Driver for PollDriver {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        match how {
            // The wait may last until `latest`. The kernel adds some µs.
            Wait::Block => {
                self.syscalls.waits += 1;
                self.poll(deadline.map(|deadline| deadline.latest - Time::now()), ready)
            }
            Wait::Poll => {
                self.syscalls.polls += 1;
                self.poll(Some(Duration::ZERO), ready)
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Monotonic
    }

    fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let number = fd.as_raw_fd();
        without_edges(mode)?;
        if self.fds.iter().any(|watched| watched.number == number) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let fd = fd.try_clone_to_owned()?;
        self.fds.push(Watched { id, fd, number, interest, mode, done: false });
        Ok(())
    }

    fn modify(
        &mut self,
        _: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        without_edges(mode)?;
        let at = self.find(id)?;
        let watched = &mut self.fds[at];
        (watched.interest, watched.mode, watched.done) = (interest, mode, false);
        Ok(())
    }

    fn deregister(&mut self, _: BorrowedFd<'_>, id: u64) -> io::Result<()> {
        let at = self.find(id)?;
        self.fds.swap_remove(at);
        Ok(())
    }

    fn syscalls(&self) -> Syscalls {
        self.syscalls
    }
}

fn without_edges(mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Level | Mode::OneShot => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "poll(2) has no edges")),
    }
}

fn main() -> io::Result<()> {
    use pollmux::{Reactor, select};

    let reactor = Reactor::with_driver(PollDriver::new()?)?;
    let (tx, inbox) = reactor.channel::<u32>(4)?;
    let ticker = reactor.every(Duration::from_millis(5))?;
    let (mut theirs, ours) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut socket = reactor.fd(ours, Interest::READABLE)?;
    let other = std::thread::spawn(move || -> io::Result<()> {
        for n in 0..3 {
            std::thread::sleep(Duration::from_millis(7));
            tx.send(n).map_err(|_| io::ErrorKind::BrokenPipe)?;
            theirs.write_all(b"some bytes")?;
        }
        Ok(())
    });

    let (mut messages, mut bytes, mut ticks) = (0, 0, 0);
    let mut buffer = [0; 64];
    let (mut sending, mut writing) = (true, true);
    while sending || writing || ticks < 3 {
        select! { reactor;
            recv(sending.then_some(&inbox)) -> message => match message {
                Ok(_) => messages += 1,
                Err(_) => sending = false,
            },
            recv(writing.then_some(&socket)) -> _readiness => loop {
                match socket.read(&mut buffer) {
                    Ok(0) => break writing = false,
                    Ok(n) => bytes += n,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            },
            recv(ticker) -> tick => {
                assert!(Time::now() >= tick.scheduled);
                ticks += 1;
            },
        }
    }
    other.join().expect("no panic")?;
    println!("{messages} messages, {bytes} bytes, {ticks} ticks; {}", reactor.stats());
    assert_eq!((messages, bytes), (3, 30));
    Ok(())
}

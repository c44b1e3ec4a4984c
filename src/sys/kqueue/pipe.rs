//! A pipe as a flag, for signal handlers, and for wakers of a kqueue without `EVFILT_USER`.
//!
//! Quirks handled here:
//! - Only a write makes a new edge. A pipe without reads becomes full, and is then emptied.
//! - macOS has no `pipe2`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};

use super::super::{INTERRUPTIONS, call, has_fd, uninterrupted};

/// An fd that any thread raises, also in a signal handler: a pipe here. A waiter for edges need not
/// lower the flag.
#[derive(Debug)]
pub(crate) struct Flag {
    reader: File,
    writer: File,
}

impl Flag {
    /// Makes a flag that is not raised (non-blocking, close-on-exec). One syscall, five on macOS.
    pub(crate) fn new() -> io::Result<Flag> {
        let (reader, writer) = pipe()?;
        Ok(Flag { reader: reader.into(), writer: writer.into() })
    }

    /// Makes the fd readable, as a new edge. One syscall, retried when a signal interrupts it.
    pub(crate) fn raise(&self) -> io::Result<()> {
        let mut left = INTERRUPTIONS;
        loop {
            match uninterrupted(|| (&self.writer).write(&[1])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && left > 0 => {
                    left -= 1;
                    self.lower();
                }
                wrote => return wrote.map(drop),
            }
        }
    }

    /// Makes the pipe not readable. Two syscalls or more. An error shows in the write that follows.
    pub(crate) fn lower(&self) {
        while uninterrupted(|| (&self.reader).read(&mut [0; 512])).is_ok_and(|n| n > 0) {}
    }
}

has_fd!(Flag, reader);

fn own(fds: [libc::c_int; 2]) -> (OwnedFd, OwnedFd) {
    // SAFETY: the kernel just gave both to the caller, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) }
}

#[cfg(not(apple))]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` is a valid place for the two fds that the call writes.
    call("pipe2", || unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    Ok(own(fds))
}

#[cfg(apple)]
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use std::os::fd::AsRawFd;
    let mut fds = [0; 2];
    // SAFETY: `fds` is a valid place for the two fds that the call writes.
    call("pipe", || unsafe { libc::pipe(fds.as_mut_ptr()) })?;
    let pipe = own(fds);
    for fd in [&pipe.0, &pipe.1] {
        // SAFETY: the fd is open, and the calls take no pointer.
        call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: as above.
        call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    }
    Ok(pipe)
}

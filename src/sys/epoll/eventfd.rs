//! Wakers on Linux: an eventfd, as an fd of its own or as the waker of a poller.
//!
//! Quirks handled here:
//! - An edge-triggered eventfd needs no `read`: every write is a new edge, and writes that no wait
//!   has seen coalesce.
//! - A counter that is never read is full after 2^64 - 2 wakes. Then `write` gives `EAGAIN`, so the
//!   counter is read once and written again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::super::{INTERRUPTIONS, Watch, call, has_fd, uninterrupted};
use super::{Poller, syscall};

#[derive(Debug)]
pub(crate) struct Waker {
    flag: Flag,
}

impl Waker {
    pub(crate) fn new(poller: &Poller, id: u64) -> io::Result<Waker> {
        let flag = Flag::new()?;
        poller.register(flag.as_fd(), Watch::for_edges(id))?;
        Ok(Waker { flag })
    }

    #[inline(always)] // see Notify::wake
    pub(crate) fn wake(&self) -> io::Result<()> {
        self.flag.raise()
    }

    pub(crate) fn retire(&self, poller: &Poller) {
        let _ = poller.deregister(self.flag.as_fd());
    }
}

/// An fd that any thread raises, also in a signal handler: an eventfd here. A waiter for edges need
/// not lower the flag.
#[derive(Debug)]
pub(crate) struct Flag {
    file: File,
}

impl Flag {
    /// Makes a flag that is not raised (non-blocking, close-on-exec). One syscall.
    pub(crate) fn new() -> io::Result<Flag> {
        // SAFETY: the call takes no pointers.
        let fd = call("eventfd2", || unsafe {
            libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)
        })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(Flag { file: unsafe { OwnedFd::from_raw_fd(fd) }.into() })
    }

    /// Makes the fd readable, as a new edge. One syscall, retried when a signal interrupts it.
    #[inline(always)] // see Notify::wake
    pub(crate) fn raise(&self) -> io::Result<()> {
        self.add(1)
    }

    #[inline(always)] // see Notify::wake
    fn add(&self, n: u64) -> io::Result<()> {
        match syscall::write(self.file.as_fd(), n) {
            Err(error) => self.add_again(n, error),
            Ok(_) => Ok(()),
        }
    }

    /// Retries after a failed attempt to add.
    #[cold]
    fn add_again(&self, n: u64, first: io::Error) -> io::Result<()> {
        let (mut first, mut left) = (Some(first), INTERRUPTIONS);
        loop {
            let write = || first.take().map_or_else(|| syscall::write(self.file.as_fd(), n), Err);
            match uninterrupted(write) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && left > 0 => {
                    left -= 1;
                    self.lower();
                }
                wrote => return wrote.map(drop),
            }
        }
    }

    /// Makes the fd not readable. One syscall. An error shows in the write that follows.
    pub(crate) fn lower(&self) {
        let _ = (&self.file).read(&mut [0; 8]);
    }
}

has_fd!(Flag, file);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::epoll::Events;
    use std::time::Duration;

    #[test]
    fn a_full_counter_still_wakes() {
        let poller = Poller::new().unwrap();
        let waker = Waker::new(&poller, 1).unwrap();
        let mut events = Events::with_capacity(2);
        waker.flag.add(u64::MAX - 1).unwrap();
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 1);
        waker.wake().unwrap();
        poller.wait(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events.len(), 1);
    }
}

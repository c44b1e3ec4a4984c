//! The flag `O_NONBLOCK` of a file, with which its reads and writes never block.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::Fd;
use crate::sys::Mode;
use crate::sys::blocking::{is_nonblocking, never_blocks, set_nonblocking};

impl<T: AsFd> Fd<T> {
    /// Returns true if reads and writes of the file do not block. One syscall.
    ///
    /// # Errors
    /// The system's error.
    pub fn is_nonblocking(&self) -> io::Result<bool> {
        is_nonblocking(self.as_fd())
    }

    /// Makes reads and writes of the file return at once with `WouldBlock` (`true`), or block
    /// (`false`).
    ///
    /// [Clones of the fd and other processes](Fd#blocking-files) share the flag. The flag stays
    /// when the `Fd` is dropped or taken apart.
    ///
    /// `false` is for the modes [`Level`](Mode::Level) and [`OneShot`](Mode::OneShot). Read the
    /// file once for each report then.
    ///
    /// # Errors
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput) for `false` with [`Mode::Edge`], as the
    ///   registration of a blocking file does: take the file back first.
    /// - [`NotConnected`](io::ErrorKind::NotConnected) in a forked child, which shares the flag
    ///   with its parent.
    /// - Otherwise the system's error.
    ///
    /// # Cost
    /// Two syscalls. One if the flag is set so already.
    ///
    /// ```
    /// use pollmux::sys::{Interest, Mode};
    /// use pollmux::Reactor;
    /// use std::io::{ErrorKind, Read};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::new()?;
    /// let (_theirs, ours) = UnixStream::pair()?; // blocking
    /// let mut ours = reactor.fd_with_mode(ours, Interest::READABLE, Mode::Level)?;
    /// assert!(!ours.is_nonblocking()?);
    /// ours.set_nonblocking(true)?;
    /// assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.slot.check_process()?;
        let fd = self.as_fd();
        let waits_for_edges = self.mode == Mode::Edge && !self.slot.is_inert();
        if !nonblocking && waits_for_edges && !never_blocks(fd) {
            return Err(blocking(fd, "would be", "take the file back with into_inner() first"));
        }
        set_nonblocking(fd, nonblocking)
    }
}

/// Fails for a file whose reads would block the loop.
pub(super) fn check_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_nonblocking(fd)? || never_blocks(fd) {
        return Ok(());
    }
    let remedy = "call set_nonblocking(true) first, or register it with fd_nonblocking(), which \
                  does so,";
    Err(blocking(fd, "is", remedy))
}

#[cold]
fn blocking(fd: BorrowedFd<'_>, is: &str, remedy: &str) -> io::Error {
    let text = format!(
        "the file {is} blocking (fd {}), so that a read with nothing to read would stop the whole \
         loop: {remedy} or register it with fd_with_mode() and Mode::Level",
        fd.as_raw_fd()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

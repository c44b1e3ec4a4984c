//! Files that are closed before their poller could be told.
//!
//! epoll knows a file by its number and the open file. When a clone keeps the file open, the close
//! of the number does not take the file out. Afterwards no call can take it out, because that needs
//! the number. So the file is kept open, under its number if possible, until the poller can be
//! told.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::call;

/// A file that is still in the poller of a driver that waits at this moment.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// A clone, which has the number itself once it is [parked](Self::park). `None` when the
    /// process had no fds left.
    file: Option<OwnedFd>,
    number: RawFd,
    /// The id of its registration.
    pub(crate) id: u64,
}

impl Leaving {
    /// Keeps the file of `fd` open. One syscall.
    pub(crate) fn new(fd: BorrowedFd<'_>, id: u64) -> Leaving {
        Leaving { file: duplicate(fd, 0).ok(), number: fd.as_raw_fd(), id }
    }

    /// Takes the number, if it is free, so that no other file gets it. One syscall, two if the
    /// number is in use.
    pub(crate) fn park(&mut self) {
        let Some(file) = self.file.as_ref().filter(|file| file.as_raw_fd() != self.number) else {
            return;
        };
        if let Ok(parked) = duplicate(file.as_fd(), self.number) {
            if parked.as_raw_fd() == self.number {
                self.file = Some(parked);
            }
        }
    }

    /// Calls `f` with the number.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
        self.park();
        match &self.file {
            Some(file) if file.as_raw_fd() == self.number => f(file.as_fd()),
            // SAFETY: the number is not -1. It is in use, most likely by the file itself: by
            // whoever lent it to the source. If it was closed meanwhile, or is another file's, the
            // kernel finds nothing to take out: nothing can be registered while the driver waits.
            _ => f(unsafe { BorrowedFd::borrow_raw(self.number) }),
        }
    }
}

/// A clone with the first free number from `least`.
pub(crate) fn duplicate(fd: BorrowedFd<'_>, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the fd is open, and the call takes no pointer.
    let fd =
        call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the kernel just returned `fd` to us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_closed_fds_number_is_borrowed_if_free() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let number = ours.as_raw_fd();
        // In use: it is the file's own.
        let mut leaving = Leaving::new(ours.as_fd(), 1);
        leaving.park();
        leaving.with(|fd| assert_eq!(fd.as_raw_fd(), number));
        assert_ne!(leaving.file.as_ref().unwrap().as_raw_fd(), number);
        // Free, unless another test was faster.
        drop(ours);
        leaving.park();
        leaving.with(|fd| assert_eq!(fd.as_raw_fd(), number));
    }
}

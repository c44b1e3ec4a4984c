//! Files that are closed before they could be taken out of their poller.
//!
//! epoll knows a file by its number and the open file. If a clone keeps the file open, closing the
//! number does not take the file out of the poller. Afterwards no call can take the file out,
//! because the call needs the number. So the file stays open, under its number if possible, until
//! the call can be made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::call;

/// A closed file that is still in the poller of a driver, which is waiting.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// A clone of the file, under the same number once it is [parked](Self::park). `None` if the
    /// process had no free fd.
    file: Option<OwnedFd>,
    number: RawFd,
    /// The id of the file's registration.
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
            // SAFETY: the number is not -1. It is in use, most likely by the file's owner, who
            // lent it to the source. If it was closed meanwhile, or is another file's, the kernel
            // finds no registration: no file can be registered while the driver waits.
            _ => f(unsafe { BorrowedFd::borrow_raw(self.number) }),
        }
    }
}

/// Makes a clone of the fd with the first free number from `least` on.
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
        // The number is in use by the file.
        let mut leaving = Leaving::new(ours.as_fd(), 1);
        leaving.park();
        leaving.with(|fd| assert_eq!(fd.as_raw_fd(), number));
        assert_ne!(leaving.file.as_ref().unwrap().as_raw_fd(), number);
        // The number is free, unless another test has taken it.
        drop(ours);
        leaving.park();
        leaving.with(|fd| assert_eq!(fd.as_raw_fd(), number));
    }
}

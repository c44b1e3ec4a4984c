//! Wakers on Linux: an eventfd; as an fd of its own, or as that of a poller.
//!
//! Quirks handled here:
//! - Registered edge-triggered it needs no `read`: every write is a new edge, and writes nobody
//!   waited for coalesce.
//! - Never read, its counter is full after 2^64 - 2 wakes and `write` says `EAGAIN`: then it is
//!   read once and written again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::errors::of_creation;
use super::{Interest, Mode, Poller, check};

/// Wakes a [`Poller`] from any thread: an eventfd here.
///
/// It belongs to one poller, where each wake-up is an event under its id that needs no reading;
/// those that nobody waited for coalesce. One that has not been waited for goes with the waker.
///
/// ```
/// use pollmux::sys::{PollEvents, Poller, Waker};
///
/// let poller = Poller::new()?;
/// let waker = Waker::new(&poller, 7)?;
/// let mut events = PollEvents::with_capacity(8);
/// std::thread::scope(|scope| {
///     scope.spawn(|| waker.wake());
///     poller.wait(&mut events, None)
/// })?;
/// assert_eq!(events.iter().next().map(|e| e.id()), Some(7));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Waker {
    flag: Flag,
}

impl Waker {
    /// Creates a waker of `poller` that is reported under `id`. Two syscalls. Fails as
    /// [`Poller::new`] does.
    pub fn new(poller: &Poller, id: u64) -> io::Result<Waker> {
        let new = || {
            let flag = Flag::new()?;
            poller.register(&flag, id, Interest::READABLE, Mode::Edge)?;
            Ok(Waker { flag })
        };
        new().map_err(|error| of_creation(error, "a waker"))
    }

    /// Makes the poller's current or next wait return. One syscall, retried when a signal
    /// interrupts it.
    #[inline]
    pub fn wake(&self) -> io::Result<()> {
        self.flag.raise()
    }

    /// Wakes `poller`, whose it is, no longer: from now on nothing comes of a wake-up. One syscall.
    pub(crate) fn retire(&self, poller: &Poller) {
        let _ = poller.deregister(&self.flag);
    }
}

/// An fd that is raised from any thread, also by a signal handler: an eventfd here. For who waits
/// for edges it need not be lowered.
#[derive(Debug)]
pub(super) struct Flag {
    fd: OwnedFd,
}

impl Flag {
    /// One that is not raised (non-blocking, close-on-exec). One syscall.
    pub(super) fn new() -> io::Result<Flag> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(Flag { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Makes it readable, and this a new edge. One syscall, retried when a signal interrupts it.
    #[inline]
    pub(super) fn raise(&self) -> io::Result<()> {
        self.add(1)
    }

    fn add(&self, n: u64) -> io::Result<()> {
        loop {
            let bytes = n.to_ne_bytes();
            // SAFETY: the buffer is valid for its 8 bytes.
            let wrote = unsafe {
                libc::write(self.fd.as_raw_fd(), bytes.as_ptr().cast::<libc::c_void>(), bytes.len())
            };
            if wrote == bytes.len() as isize {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => self.lower(),
                _ => return Err(error),
            }
        }
    }

    /// Makes it not readable. One syscall. Whatever goes wrong shows in the write that follows.
    pub(super) fn lower(&self) {
        let mut bytes = [0u8; 8];
        // SAFETY: the buffer is valid for its 8 bytes.
        unsafe {
            libc::read(self.fd.as_raw_fd(), bytes.as_mut_ptr().cast::<libc::c_void>(), bytes.len())
        };
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::PollEvents as Events;
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

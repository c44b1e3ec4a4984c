//! What other crates' pollers ask for that only `unsafe` can give.

#[cfg(feature = "mio")]
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(feature = "polling")]
use std::{io, mem::ManuallyDrop, os::fd::AsFd, sync::Arc};

#[cfg(feature = "polling")]
use super::Poller;

/// The `Poll`'s own fd.
#[cfg(feature = "mio")]
pub(crate) fn mio_fd(poll: &mio::Poll) -> BorrowedFd<'_> {
    // SAFETY: the fd is open as long as the `Poll`, which is borrowed for as long as the result.
    unsafe { BorrowedFd::borrow_raw(poll.as_raw_fd()) }
}

/// Something around a poller of ours that is in one of theirs for as long as this lives.
#[cfg(feature = "polling")]
#[derive(Debug)]
pub(crate) struct InPoller<T: AsRef<Poller>> {
    poller: ManuallyDrop<Arc<polling::Poller>>,
    io: T,
}

#[cfg(feature = "polling")]
impl<T: AsRef<Poller>> InPoller<T> {
    /// Adds `io`, which owns its poller. One syscall.
    pub(crate) fn add(
        poller: Arc<polling::Poller>,
        io: T,
        interest: polling::Event,
        mode: polling::PollMode,
    ) -> io::Result<InPoller<T>> {
        // SAFETY: the fd has to be deleted from the poller before it is closed. `io` owns it and is
        // owned by us from here on, is nowhere replaced, and our `drop` deletes it before `io`
        // goes.
        unsafe { poller.add_with_mode(&io.as_ref().as_fd(), interest, mode) }?;
        Ok(InPoller { poller: ManuallyDrop::new(poller), io })
    }

    pub(crate) fn poller(&self) -> &Arc<polling::Poller> {
        &self.poller
    }

    pub(crate) fn get(&self) -> &T {
        &self.io
    }

    /// Not to be replaced.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }
}

#[cfg(feature = "polling")]
impl<T: AsRef<Poller>> Drop for InPoller<T> {
    fn drop(&mut self) {
        // A forked child leaves the parent's registration alone, and the poller, whose own drop
        // would take the parent's timer and notifier out.
        if self.io.as_ref().is_here() {
            // It can only fail if somebody else has deleted it.
            let _ = self.poller.delete(self.io.as_ref().as_fd());
            // SAFETY: nobody uses the poller after this drop.
            unsafe { ManuallyDrop::drop(&mut self.poller) };
        }
    }
}

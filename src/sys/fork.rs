//! Forks without exec, and a test if an object was made in another process.
//!
//! A forked child has a copy of the memory and shares the open files. An epoll set, a timerfd and
//! an eventfd are then one object for both processes, and the parent sees changes of the child. A
//! child does not inherit a kqueue: its number is free in the child, and another file may get it.
//!
//! A handler of `pthread_atfork` adds one to a counter in each child. A [`Birth`] is the count at
//! which an object was made, so a comparison tells whether the object is this process's own. A
//! child made by a raw system call (`clone`, `SYS_fork`) runs no such handler, so it is not
//! counted.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::has_fd;

/// The number of forks between this process and the one that started the program.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// The hook that each child calls on its only thread, before `fork` returns.
static HOOK: OnceLock<fn()> = OnceLock::new();

/// The process in which an object was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u32);

impl Birth {
    /// Every process, for objects that are only memory.
    pub(crate) const ANYWHERE: Birth = Birth(u32::MAX);

    /// Returns this process. Counts forks from the first call on.
    pub(crate) fn here() -> Birth {
        let _ = start_counting(); // without memory for a handler forks are not counted
        Birth(count())
    }

    /// Returns true in the process in which the object was made.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.0 == count() || self == Birth::ANYWHERE
    }
}

/// Calls `hook` in each forked child, on its only thread. The hook must neither lock nor allocate.
pub(crate) fn on_fork(hook: fn()) {
    let _ = HOOK.set(hook);
}

/// Returns true in a child that was forked after the first [`Birth`].
pub(crate) fn is_child() -> bool {
    count() > 0
}

/// Counts forks from the first call on. Fails only if memory is short.
pub(crate) fn start_counting() -> io::Result<()> {
    static COUNTED: AtomicBool = AtomicBool::new(false);
    if COUNTED.load(Ordering::Acquire) {
        return Ok(());
    }
    // Two threads may both come here. Then each fork counts twice, which does no harm.
    // SAFETY: `child` is a function of the right type that lives as long as the program. It locks
    // nothing and allocates nothing, as a child of a process with threads must not.
    let failed = unsafe { libc::pthread_atfork(None, None, Some(child)) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    COUNTED.store(true, Ordering::Release);
    Ok(())
}

/// Returns the number of counted forks before this process. A signal handler may call this.
#[inline]
pub(crate) fn count() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

extern "C" fn child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    if let Some(hook) = HOOK.get() {
        hook();
    }
}

/// Returns the error of a kernel object that a forked child cannot use.
#[cold]
#[cfg_attr(not(kqueue), allow(dead_code))]
pub(crate) fn inherited() -> io::Error {
    let text =
        "this poller, timer or waker was made before a fork, by the parent process: make a new one";
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// The fd of a poller. On epoll a forked child closes its copy, which does not affect the parent.
/// On kqueue the child has no copy, and does not close the number.
#[derive(Debug)]
pub(crate) struct PollerFd {
    fd: ManuallyDrop<OwnedFd>,
    birth: Birth,
}

impl PollerFd {
    pub(crate) fn new(fd: OwnedFd) -> PollerFd {
        PollerFd { fd: ManuallyDrop::new(fd), birth: Birth::here() }
    }

    /// Returns true in the process in which the poller was made.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.birth.is_here()
    }
}

impl Drop for PollerFd {
    fn drop(&mut self) {
        if cfg!(epoll) || self.birth.is_here() {
            // SAFETY: the fd is not used after this drop.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

has_fd!(PollerFd, fd);

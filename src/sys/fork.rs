//! Forks without exec: a test if an object was made in another process.
//!
//! A forked child has a copy of the memory and shares the open files. An epoll set, a timerfd and
//! an eventfd are then one object for both processes: what the child changes, the parent sees. A
//! kqueue is not inherited at all: its number is free in the child, and may be another file's.
//!
//! A handler of `pthread_atfork` adds one to a counter in each child. A [`Birth`] is the count at
//! which an object was made, so a comparison tells whether the object is this process's own. A
//! child made by a raw system call (`clone`, `SYS_fork`) runs no such handler and is not seen.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::has_fd;

/// The number of forks between this process and the one that started the program.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// Called in each child, on the thread that forked, before `fork` returns there.
static HOOK: OnceLock<fn()> = OnceLock::new();

/// The process that something was made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth(u32);

impl Birth {
    /// At home in every process: for what is memory only.
    pub(crate) const ANYWHERE: Birth = Birth(u32::MAX);

    /// This process. Counts forks from the first call on.
    pub(crate) fn here() -> Birth {
        let _ = start_counting(); // without memory for that, forks are not seen
        Birth(count())
    }

    /// Returns true in the process that this was made in.
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        self.0 == count() || self == Birth::ANYWHERE
    }
}

/// Has `hook` called in each forked child, on its only thread. It must neither lock nor allocate.
pub(crate) fn on_fork(hook: fn()) {
    let _ = HOOK.set(hook);
}

/// Returns true in a child that was forked after the first [`Birth`].
pub(crate) fn is_child() -> bool {
    count() > 0
}

/// Counts forks from the first call on. Fails for want of memory only.
pub(crate) fn start_counting() -> io::Result<()> {
    static COUNTED: AtomicBool = AtomicBool::new(false);
    if COUNTED.load(Ordering::Acquire) {
        return Ok(());
    }
    // Two threads may both get here: then each fork counts twice, which is as good.
    // SAFETY: `child` is a function of the right type that lives as long as the program. It locks
    // nothing and allocates nothing, as a child of a process with threads must not.
    let failed = unsafe { libc::pthread_atfork(None, None, Some(child)) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    COUNTED.store(true, Ordering::Release);
    Ok(())
}

/// Returns how many forks were counted on the way to this process. A signal handler may call it.
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

/// The error of a kernel object that a forked child cannot use.
#[cold]
#[cfg_attr(not(kqueue), allow(dead_code))]
pub(crate) fn inherited() -> io::Error {
    let text =
        "this poller, timer or waker was made before a fork, by the parent process: make a new one";
    io::Error::new(io::ErrorKind::NotConnected, text)
}

/// The fd of a poller. A forked child closes its copy, which on epoll leaves the parent's alone; a
/// kqueue has no copy there, and its number is left alone.
#[derive(Debug)]
pub(crate) struct PollerFd {
    fd: ManuallyDrop<OwnedFd>,
    birth: Birth,
}

impl PollerFd {
    pub(crate) fn new(fd: OwnedFd) -> PollerFd {
        PollerFd { fd: ManuallyDrop::new(fd), birth: Birth::here() }
    }

    /// Returns true in the process that this was made in.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.birth.is_here()
    }
}

impl Drop for PollerFd {
    fn drop(&mut self) {
        if cfg!(epoll) || self.birth.is_here() {
            // SAFETY: nobody uses the fd after this drop.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

has_fd!(PollerFd, fd);

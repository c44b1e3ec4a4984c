//! The poller on Linux: a thin, safe epoll.
//!
//! Quirks handled here:
//! - `epoll_wait` takes milliseconds and its timeout has slack (0.1 %, at least 50 µs). A timed [`Poller::wait`] therefore uses
//!   `epoll_pwait2` (Linux 5.11), and where the kernel lacks it (`ENOSYS`) or a sandbox forbids it (`EPERM`), `epoll_wait`
//!   with the time rounded **up**. For exact deadlines there is [`OsTimer`].
//! - The epoll key is (file, fd): a duplicated fd keeps firing after `close`. Deregister before closing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Interest, Mode, OsTimer, Time, check};

/// A kernel object that waits for many fds at once: an epoll instance here.
///
/// Each registered fd carries an `id` that comes back with its events. All calls take `&self`; the kernel serialises them.
///
/// ```
/// use pollmux::sys::{Events, Interest, Mode, Poller};
/// use std::{io::Write, os::unix::net::UnixStream};
///
/// let poller = Poller::new()?;
/// let (mut ours, theirs) = UnixStream::pair()?;
/// poller.register(&theirs, 7, Interest::READABLE, Mode::Edge)?;
/// ours.write_all(b"hello")?;
/// let mut events = Events::with_capacity(8);
/// poller.wait(&mut events, None)?;
/// assert_eq!(events.iter().next().map(|e| e.id()), Some(7));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Whether [`arm_and_wait`](Self::arm_and_wait) is one syscall.
    pub const ARMS_IN_WAIT: bool = false;

    /// Creates an epoll instance (`EPOLL_CLOEXEC`). One syscall; fails with the system's error, for instance `EMFILE`.
    pub fn new() -> io::Result<Poller> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(Poller { epoll: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Adds `fd` under `id`. One syscall. Fails with `EEXIST` when `fd` is there already and `EPERM` when its file cannot be polled.
    pub fn register(&self, fd: impl AsFd, id: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), id, interest, mode)
    }

    /// Replaces id, interest and mode of a registered `fd`, and re-arms a one-shot. One syscall. Fails with `ENOENT` when `fd` is not there.
    pub fn modify(&self, fd: impl AsFd, id: u64, interest: Interest, mode: Mode) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), id, interest, mode)
    }

    /// Takes `fd` out; do it before the fd is closed. One syscall. Fails with `ENOENT` when `fd` is not there.
    pub fn deregister(&self, fd: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), 0, Interest::NONE, Mode::Level)
    }

    fn control(
        &self,
        op: libc::c_int,
        fd: BorrowedFd<'_>,
        id: u64,
        interest: Interest,
        mode: Mode,
    ) -> io::Result<()> {
        let mut flags = match mode {
            Mode::Level => 0,
            Mode::Edge => libc::EPOLLET,
            Mode::OneShot => libc::EPOLLONESHOT,
        };
        if interest.is_readable() {
            flags |= libc::EPOLLIN | libc::EPOLLRDHUP;
        }
        if interest.is_writable() {
            flags |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event { events: flags as u32, u64: id };
        // SAFETY: both fds are open for the length of the call and `event` is a valid epoll_event.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), op, fd.as_raw_fd(), &mut event) })?;
        Ok(())
    }

    /// Waits until something is ready or `timeout` is over; `None` waits for ever, zero only looks. One syscall.
    ///
    /// `events` is replaced; it stays empty when the time ran out. Fails with [`io::ErrorKind::Interrupted`] when a signal came first:
    /// the caller knows its deadline and can wait for the rest.
    #[inline(always)]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        events.ready = 0;
        let n = match timeout {
            None => self.wait_ms(events, -1),
            Some(Duration::ZERO) => self.wait_ms(events, 0),
            Some(timeout) => self.wait_timed(events, timeout),
        };
        events.ready = check(n)? as usize;
        Ok(())
    }

    /// [`OsTimer::arm`], then [`wait`](Self::wait): two syscalls here, one on kqueue.
    ///
    /// When it fails with [`io::ErrorKind::Interrupted`] the timer is armed; with any other error count on nothing.
    #[inline(always)]
    pub fn arm_and_wait(
        &self,
        timer: &OsTimer,
        deadline: Time,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        timer.arm(deadline)?;
        self.wait(events, timeout)
    }

    #[inline(always)]
    fn wait_ms(&self, events: &mut Events, ms: libc::c_int) -> libc::c_int {
        // SAFETY: the buffer is valid for `capacity` events, and the kernel writes at most that many.
        unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.list.as_mut_ptr(),
                events.list.len() as libc::c_int,
                ms,
            )
        }
    }

    fn wait_timed(&self, events: &mut Events, timeout: Duration) -> libc::c_int {
        static NO_PWAIT2: AtomicBool = AtomicBool::new(false);
        if !NO_PWAIT2.load(Ordering::Relaxed) {
            match self.pwait2(events, timeout) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    NO_PWAIT2.store(true, Ordering::Relaxed);
                }
                Err(_) => return -1,
                Ok(n) => return n,
            }
        }
        self.wait_ms(events, round_up_to_ms(timeout))
    }

    fn pwait2(&self, events: &mut Events, timeout: Duration) -> io::Result<libc::c_int> {
        let timeout = super::timespec(timeout);
        // SAFETY: the buffer is valid for `capacity` events, `timeout` for the length of the call, and a null signal mask is
        // allowed (its size is then ignored).
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                events.list.as_mut_ptr(),
                events.list.len() as libc::c_int,
                &timeout as *const libc::timespec,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        check(n as libc::c_int)
    }
}

/// Milliseconds that are never less than `timeout`.
fn round_up_to_ms(timeout: Duration) -> libc::c_int {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    ms.try_into().unwrap_or(libc::c_int::MAX)
}

impl AsFd for Poller {
    /// The epoll fd itself: readable, for an outer poller, while this one has events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// The buffer that [`Poller::wait`] fills. Allocates once, when made.
pub struct Events {
    list: Box<[libc::epoll_event]>,
    ready: usize,
}

impl Events {
    /// A buffer for `capacity` events a wait, from 1 to `i32::MAX`; values outside are brought into that range.
    pub fn with_capacity(capacity: usize) -> Events {
        let capacity = capacity.clamp(1, i32::MAX as usize);
        Events { list: vec![libc::epoll_event { events: 0, u64: 0 }; capacity].into_boxed_slice(), ready: 0 }
    }

    /// What the last wait found.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.list[..self.ready].iter().map(|e| Event { id: e.u64, flags: e.events })
    }

    /// How many events the last wait found.
    #[inline]
    pub fn len(&self) -> usize {
        self.ready
    }

    /// Whether the last wait found nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ready == 0
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One fd that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    id: u64,
    flags: u32,
}

impl Event {
    /// The id that the fd was registered under.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A read would not block: data, end of file, a hang-up or an error.
    pub fn is_readable(&self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// A write would not block: room, a hang-up or an error.
    pub fn is_writable(&self) -> bool {
        self.has(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR)
    }

    /// The fd has an error to be fetched.
    pub fn is_error(&self) -> bool {
        self.has(libc::EPOLLERR)
    }

    /// The peer closed its writing half, or the whole connection.
    pub fn is_hang_up(&self) -> bool {
        self.has(libc::EPOLLRDHUP | libc::EPOLLHUP)
    }

    fn has(&self, flags: libc::c_int) -> bool {
        self.flags & flags as u32 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ms_fallback_never_wakes_early() {
        assert_eq!(round_up_to_ms(Duration::from_nanos(1)), 1);
        assert_eq!(round_up_to_ms(Duration::from_millis(7)), 7);
        assert_eq!(round_up_to_ms(Duration::from_micros(7_001)), 8);
        assert_eq!(round_up_to_ms(Duration::MAX), libc::c_int::MAX);
    }
}

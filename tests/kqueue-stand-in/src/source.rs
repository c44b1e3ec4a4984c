//! The source of a knote, for each filter: the fd in the epoll set, and the data of an event.

use std::os::raw::{c_int, c_uint};
use std::time::Duration;

use crate::abi::*;
use crate::signal::Listener;

/// The fd of a knote in the epoll set, level-triggered unless the knote asks for edges.
#[derive(Debug)]
pub(crate) enum Source {
    /// The caller's fd.
    Read {
        fd: c_int,
        socket: bool,
    },
    /// An epoll of its own with the caller's fd in it. The kqueue's epoll can have the caller's fd
    /// only once, and has it for reading.
    Write {
        fd: c_int,
        socket: bool,
        inner: Fd,
    },
    Timer {
        timerfd: Fd,
        wall: bool,
    },
    /// An eventfd that is non-zero while `triggered` is true.
    User {
        eventfd: Fd,
        triggered: bool,
    },
    /// An eventfd that counts the signal. The listener is dropped first.
    Signal {
        _listener: Listener,
        eventfd: Fd,
    },
    Process {
        pidfd: Fd,
    },
}

/// The data of an event that its knote does not have.
pub(crate) struct EventData {
    pub(crate) flags: u16,
    pub(crate) fflags: c_uint,
    pub(crate) data: isize,
}

impl Source {
    pub(crate) fn new(change: &kevent) -> Result<Source, Errno> {
        match change.filter {
            EVFILT_READ | EVFILT_WRITE => {
                let fd = c_int::try_from(change.ident).map_err(|_| Errno(libc::EBADF))?;
                if change.fflags != 0 {
                    return Err(Errno(libc::EINVAL));
                }
                let socket = is_socket(fd)?;
                if change.filter == EVFILT_READ {
                    return Ok(Source::Read { fd, socket });
                }
                let inner = epoll()?;
                add(inner.0, fd, libc::EPOLLOUT, 0)?;
                Ok(Source::Write { fd, socket, inner })
            }
            EVFILT_TIMER => {
                let wall = change.fflags & NOTE_ABSOLUTE != 0;
                let source = Source::Timer { timerfd: timerfd(wall)?, wall };
                source.set(change, change.flags & EV_ONESHOT != 0)?;
                Ok(source)
            }
            EVFILT_USER => {
                let mut source = Source::User { eventfd: eventfd()?, triggered: false };
                source.trigger(change.fflags & NOTE_TRIGGER != 0);
                Ok(source)
            }
            EVFILT_SIGNAL => {
                let eventfd = eventfd()?;
                Ok(Source::Signal { _listener: Listener::new(change.ident, eventfd.0)?, eventfd })
            }
            EVFILT_PROC => {
                let pid = libc::pid_t::try_from(change.ident).map_err(|_| Errno(libc::ESRCH))?;
                if change.fflags != NOTE_EXIT {
                    return Err(Errno(libc::EINVAL));
                }
                // SAFETY: the call takes no pointers.
                let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int;
                let no_process =
                    |error| if error == Errno(libc::EINVAL) { Errno(libc::ESRCH) } else { error };
                Ok(Source::Process { pidfd: Fd::new(pidfd).map_err(no_process)? })
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    /// Returns the fd for the epoll set.
    pub(crate) fn fd(&self) -> c_int {
        match self {
            Source::Read { fd, .. } => *fd,
            Source::Write { inner, .. } => inner.0,
            Source::Timer { timerfd, .. } => timerfd.0,
            Source::User { eventfd, .. } | Source::Signal { eventfd, .. } => eventfd.0,
            Source::Process { pidfd } => pidfd.0,
        }
    }

    /// Returns the events for the epoll set. `EV_CLEAR` means an edge only for fds of the caller. A
    /// read resets the other sources.
    pub(crate) fn interest(&self, flags: u16) -> c_int {
        let edge = if flags & EV_CLEAR != 0 { libc::EPOLLET } else { 0 };
        match self {
            Source::Read { .. } => libc::EPOLLIN | libc::EPOLLRDHUP | edge,
            Source::Write { .. } => libc::EPOLLIN | edge,
            _ => libc::EPOLLIN,
        }
    }

    /// Sets or restarts a timer.
    fn set(&self, change: &kevent, oneshot: bool) -> Result<(), Errno> {
        let Source::Timer { timerfd, wall } = self else { return Ok(()) };
        let value = duration(change)?;
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec =
            libc::timespec { tv_sec: value.as_secs() as _, tv_nsec: value.subsec_nanos() as _ };
        let interval = if oneshot || *wall { zero } else { spec };
        let spec = libc::itimerspec { it_interval: interval, it_value: spec };
        let flags = if *wall { libc::TFD_TIMER_ABSTIME } else { 0 };
        // SAFETY: `spec` is valid, and a null old value is allowed.
        check(unsafe { libc::timerfd_settime(timerfd.0, flags, &spec, std::ptr::null_mut()) })?;
        Ok(())
    }

    fn trigger(&mut self, on: bool) {
        let Source::User { eventfd, triggered } = self else { return };
        if on && !*triggered {
            eventfd.raise();
        } else if !on && *triggered {
            eventfd.take();
        }
        *triggered = on;
    }

    /// Applies a change to the source of an existing knote, `kept`. Returns true if the source has
    /// another fd now.
    pub(crate) fn touch(&mut self, kept: &mut kevent, change: &kevent) -> Result<bool, Errno> {
        match self {
            Source::Timer { wall, .. } if change.flags & EV_ADD != 0 => {
                duration(change)?;
                let (was, is) = (*wall, change.fflags & NOTE_ABSOLUTE != 0);
                if was != is {
                    // The clock of a timerfd cannot be changed.
                    *self = Source::Timer { timerfd: timerfd(is)?, wall: is };
                }
                self.set(change, kept.flags & EV_ONESHOT != 0)?;
                (kept.fflags, kept.data) = (change.fflags, change.data);
                Ok(was != is)
            }
            Source::User { triggered, .. } => {
                let (flags, wanted) =
                    (kept.fflags & NOTE_FFLAGSMASK, change.fflags & NOTE_FFLAGSMASK);
                kept.fflags = match change.fflags & NOTE_FFCTRLMASK {
                    NOTE_FFAND => flags & wanted,
                    NOTE_FFOR => flags | wanted,
                    NOTE_FFCOPY => wanted,
                    _ => flags,
                };
                kept.data = change.data;
                let on = *triggered || change.fflags & NOTE_TRIGGER != 0;
                // A pitfall of the kernels: EV_CLEAR in a change clears the event, and with it a
                // trigger in the same change.
                let clears = change.flags & EV_CLEAR != 0;
                if clears {
                    (kept.fflags, kept.data) = (0, 0);
                }
                self.trigger(on && !clears);
                Ok(false)
            }
            Source::Read { .. } | Source::Write { .. } if change.fflags != 0 => {
                Err(Errno(libc::EINVAL))
            }
            _ => Ok(false),
        }
    }

    /// Returns the data of an event that epoll has reported, or `None` if the event is over, for
    /// instance because another thread has taken it.
    pub(crate) fn event_data(&mut self, knote: &kevent, epoll: c_int) -> Option<EventData> {
        let (mut flags, mut fflags) = (0, 0);
        let data = match self {
            Source::Read { fd, socket } => {
                if epoll & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0 {
                    flags |= EV_EOF;
                }
                if *socket && epoll & libc::EPOLLERR != 0 {
                    fflags = libc::EIO as c_uint;
                }
                readable(*fd)
            }
            Source::Write { fd, socket, inner } => {
                let epoll = look(inner.0)?;
                if epoll & (libc::EPOLLHUP | libc::EPOLLERR) != 0 {
                    flags |= EV_EOF;
                }
                if *socket && epoll & libc::EPOLLERR != 0 {
                    fflags = libc::EIO as c_uint;
                }
                writable(*fd, *socket)
            }
            Source::Timer { timerfd, .. } => {
                fflags = knote.fflags;
                timerfd.take()? as isize
            }
            Source::User { triggered, .. } => {
                if !*triggered {
                    return None;
                }
                fflags = knote.fflags & NOTE_FFLAGSMASK;
                if knote.flags & EV_CLEAR != 0 {
                    self.trigger(false);
                }
                knote.data
            }
            Source::Signal { eventfd, .. } => eventfd.take()? as isize,
            Source::Process { pidfd } => {
                (flags, fflags) = (EV_EOF | EV_ONESHOT, NOTE_EXIT);
                status(pidfd.0)
            }
        };
        Some(EventData { flags, fflags, data })
    }
}

/// Puts `fd` into an epoll set.
pub(crate) fn add(epoll: c_int, fd: c_int, interest: c_int, token: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: interest as u32, u64: token };
    // SAFETY: `event` is a valid epoll_event.
    check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
    Ok(())
}

fn epoll() -> Result<Fd, Errno> {
    // SAFETY: the call takes no pointers.
    Fd::new(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// Polls an epoll set with one fd, and returns its events.
fn look(epoll: c_int) -> Option<c_int> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` is a valid place for one epoll_event.
    let n = unsafe { libc::epoll_wait(epoll, &mut event, 1, 0) };
    (n == 1).then_some(event.events as c_int)
}

fn eventfd() -> Result<Fd, Errno> {
    // SAFETY: the call takes no pointers.
    Fd::new(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

fn timerfd(wall: bool) -> Result<Fd, Errno> {
    let clock = if wall { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
    // SAFETY: the call takes no pointers.
    Fd::new(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
}

/// Returns the requested time of a timer, at least 1 ns, because zero would disarm it.
fn duration(change: &kevent) -> Result<Duration, Errno> {
    let data = u64::try_from(change.data).map_err(|_| Errno(libc::EINVAL))?;
    let duration = match change.fflags & !NOTE_ABSOLUTE {
        0 => Duration::from_millis(data),
        NOTE_SECONDS => Duration::from_secs(data),
        NOTE_USECONDS => Duration::from_micros(data),
        NOTE_NSECONDS => Duration::from_nanos(data),
        _ => return Err(Errno(libc::EINVAL)),
    };
    Ok(duration.max(Duration::from_nanos(1)))
}

fn is_socket(fd: c_int) -> Result<bool, Errno> {
    // SAFETY: an all-zero stat is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is a valid place for the one stat that the call writes.
    check(unsafe { libc::fstat(fd, &mut stat) })?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFSOCK)
}

fn ioctl(fd: c_int, request: libc::Ioctl) -> Option<isize> {
    let mut n: c_int = 0;
    // SAFETY: the requests used here write one int.
    (unsafe { libc::ioctl(fd, request, &mut n) } == 0).then_some(n as isize)
}

fn option(fd: c_int, name: c_int) -> Option<isize> {
    let (mut n, mut len): (c_int, libc::socklen_t) = (0, size_of::<c_int>() as _);
    // SAFETY: `n` and `len` are valid places for an int and its length.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, (&raw mut n).cast(), &mut len) };
    (result == 0).then_some(n as isize)
}

/// Returns the number of readable bytes, or one for a connection to accept and for an event.
fn readable(fd: c_int) -> isize {
    if option(fd, libc::SO_ACCEPTCONN) == Some(1) {
        1
    } else {
        ioctl(fd, libc::FIONREAD).unwrap_or(1)
    }
}

/// Returns the room for writing, in bytes.
fn writable(fd: c_int, socket: bool) -> isize {
    let room = if socket {
        Some(option(fd, libc::SO_SNDBUF).unwrap_or(1) - ioctl(fd, libc::TIOCOUTQ).unwrap_or(0))
    } else {
        // SAFETY: the call takes no pointers.
        let size = unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) };
        (size >= 0).then(|| size as isize - ioctl(fd, libc::FIONREAD).unwrap_or(0))
    };
    room.unwrap_or(1).max(0)
}

/// Returns the status of an ended process in the format of `wait`, and leaves the process a zombie.
/// The status of a process that is not our child is zero.
fn status(pidfd: c_int) -> isize {
    // SAFETY: an all-zero siginfo_t is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: `info` is a valid place for the one siginfo_t that the call writes.
    if unsafe { libc::waitid(libc::P_PIDFD, pidfd as _, &mut info, options) } == -1 {
        return 0;
    }
    // SAFETY: waitid fills the fields of a SIGCHLD.
    let status = unsafe { info.si_status() };
    (match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }) as isize
}

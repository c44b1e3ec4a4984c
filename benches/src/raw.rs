//! The calls of libc with as little code around them as possible. The benches compare everything
//! else with this floor.
//!
//! The calls are `unsafe` as libc declares them.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use pollmux::Time;

pub type Event = libc::epoll_event;
pub const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;
pub const LEVEL: u32 = libc::EPOLLIN as u32;

fn own(fd: i32) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just returned `fd`, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn events() -> [Event; 16] {
    [Event { events: 0, u64: 0 }; 16]
}

pub fn epoll() -> OwnedFd {
    // SAFETY: takes no pointers.
    own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

pub fn eventfd() -> OwnedFd {
    // SAFETY: takes no pointers.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

pub fn timerfd() -> OwnedFd {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: takes no pointers.
    own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })
}

/// Makes an epoll with an eventfd in it.
pub fn pair(flags: u32) -> (OwnedFd, OwnedFd) {
    let (epoll, eventfd) = (epoll(), eventfd());
    assert_eq!(add(&epoll, &eventfd, flags), 0);
    (epoll, eventfd)
}

pub fn add(epoll: &OwnedFd, fd: &OwnedFd, flags: u32) -> i32 {
    control(epoll, libc::EPOLL_CTL_ADD, fd, flags)
}

pub fn modify(epoll: &OwnedFd, fd: &OwnedFd, flags: u32) -> i32 {
    control(epoll, libc::EPOLL_CTL_MOD, fd, flags)
}

fn control(epoll: &OwnedFd, operation: i32, fd: &OwnedFd, flags: u32) -> i32 {
    let mut event = Event { events: flags, u64: 1 };
    // SAFETY: both fds are open, and `event` is valid for the call.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }
}

#[inline]
pub fn wait(epoll: &OwnedFd, events: &mut [Event], ms: i32) -> i32 {
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, ms) }
}

#[inline]
pub fn pwait2(epoll: &OwnedFd, events: &mut [Event], timeout: Duration) -> i64 {
    let timeout = timespec(timeout);
    let (fd, len) = (epoll.as_raw_fd(), events.len() as i32);
    // SAFETY: the buffer is valid for its length, `timeout` for the call, and a null mask is
    // allowed.
    unsafe {
        let mask = ptr::null::<libc::sigset_t>();
        libc::syscall(libc::SYS_epoll_pwait2, fd, events.as_mut_ptr(), len, &timeout, mask, 0usize)
    }
}

fn timespec(d: Duration) -> libc::timespec {
    libc::timespec { tv_sec: d.as_secs() as libc::time_t, tv_nsec: d.subsec_nanos() as _ }
}

#[inline]
pub fn settime(timerfd: &OwnedFd, at: Time) -> i32 {
    let value = libc::itimerspec {
        it_interval: timespec(Duration::ZERO),
        it_value: timespec(at - Time::ZERO),
    };
    // SAFETY: `value` is valid for the call, and a null old value is allowed.
    unsafe {
        libc::timerfd_settime(timerfd.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &value, ptr::null_mut())
    }
}

#[inline]
pub fn write(eventfd: &OwnedFd) -> isize {
    let one = 1u64;
    // SAFETY: the buffer is valid for its 8 bytes.
    unsafe { libc::write(eventfd.as_raw_fd(), (&raw const one).cast(), 8) }
}

#[inline]
pub fn read(eventfd: &OwnedFd) -> isize {
    let mut value = 0u64;
    // SAFETY: the buffer is valid for its 8 bytes.
    unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut value).cast(), 8) }
}

#[inline]
pub fn getppid() -> i32 {
    // SAFETY: the call takes no arguments and always succeeds.
    unsafe { libc::getppid() }
}

#[inline]
pub fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: `now` is a valid place for the one timespec that the call writes.
    unsafe { libc::clock_gettime(id, &mut now) };
    now
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub fn rdtsc() -> u64 {
    // SAFETY: every x86_64 CPU has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Returns the CPU time that the calling thread has used.
pub fn thread_cpu_time() -> Duration {
    let used = clock(libc::CLOCK_THREAD_CPUTIME_ID);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Pins the calling thread to a core, if the machine has that core.
pub fn pin_to(core: usize) {
    // SAFETY: a cpu_set_t is plain bits, all zero is the empty set, and the call only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Raises the limit of open files to `n`, if it is lower. Returns false if the system refuses that.
pub fn allow_fds(n: u64) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return false;
        }
        if limit.rlim_cur >= n {
            return true;
        }
        limit.rlim_cur = n;
        limit.rlim_max = limit.rlim_max.max(n);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
    }
}

/// Adds a file to an epoll, under a number that the caller chooses.
pub fn add_number(epoll: &OwnedFd, fd: i32, flags: u32, number: u64) -> i32 {
    let mut event = Event { events: flags, u64: number };
    // SAFETY: both fds are open, and `event` is valid for the call.
    unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }
}

/// Adds a file to a poller of polling.
pub fn polling_add(
    poller: &polling::Poller,
    io: &std::os::unix::net::UnixStream,
    event: polling::Event,
    mode: polling::PollMode,
) {
    // SAFETY: the caller deletes the file before it closes it.
    unsafe { poller.add_with_mode(io, event, mode) }.expect("a file");
}

/// Sleeps by `clock_nanosleep` until an absolute time. Returns false if a signal has ended the
/// sleep.
pub fn sleep_until(at: Time) -> bool {
    let at = timespec(at - Time::ZERO);
    // SAFETY: `at` is valid for the call, and a null remainder is allowed.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &at, ptr::null_mut()) == 0
    }
}

//! The system calls of a turn that sleeps, made without libc.
//!
//! Quirks handled here:
//! - The kernel overwrites the CPU's return predictor. So a function that is open across a system
//!   call returns by a mispredicted jump, which takes 16 to 50 ns (AMD EPYC, Linux 6.18;
//!   `docs/EXPERIMENTS.md`). libc's function for the call is such a function. On x86_64 the caller
//!   therefore contains the instruction. Elsewhere libc makes the call.
//! - The kernel returns the negative errno, and libc returns -1 and sets `errno`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::timespec::{Itimerspec, Timespec};

/// Waits for events, for at most `ms`. A `ms` of -1 waits for ever.
#[inline(always)]
pub(super) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    ms: libc::c_int,
) -> io::Result<usize> {
    let (epoll, list, len) = (epoll.as_raw_fd(), events.as_mut_ptr(), events.len());
    // SAFETY: the buffer is valid for `len` events, and the kernel writes at most that many.
    unsafe {
        #[cfg(in_place)]
        return result(syscall(
            libc::SYS_epoll_wait,
            [epoll as usize, list as usize, len, ms as usize, 0, 0],
        ));
        #[cfg(not(in_place))]
        result(libc::epoll_wait(epoll, list, len as libc::c_int, ms) as isize)
    }
}

/// Waits as [`epoll_wait`] does, with a timeout in ns.
#[inline(always)]
pub(super) fn epoll_pwait2(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: &Timespec,
) -> io::Result<usize> {
    let (epoll, list, len) = (epoll.as_raw_fd(), events.as_mut_ptr(), events.len());
    let timeout: *const Timespec = timeout;
    // SAFETY: the buffer is valid for `len` events, `timeout` for the length of the call, and a
    // null signal mask is allowed (its size is then ignored).
    unsafe {
        #[cfg(in_place)]
        return result(syscall(
            libc::SYS_epoll_pwait2,
            [epoll as usize, list as usize, len, timeout as usize, 0, 0],
        ));
        #[cfg(not(in_place))]
        result(libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll,
            list,
            len as libc::c_int,
            timeout,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        ) as isize)
    }
}

/// Writes a number to an fd.
#[inline(always)]
pub(super) fn write(fd: BorrowedFd<'_>, number: u64) -> io::Result<usize> {
    let (fd, bytes, len) = (fd.as_raw_fd(), &raw const number, size_of::<u64>());
    // SAFETY: the number is valid for the length of the call, which only reads it.
    unsafe {
        #[cfg(in_place)]
        return result(syscall(libc::SYS_write, [fd as usize, bytes as usize, len, 0, 0, 0]));
        #[cfg(not(in_place))]
        result(libc::write(fd, bytes.cast(), len))
    }
}

/// Arms a timerfd. libc must have the kernel's layout of the struct.
#[inline(always)]
pub(super) fn timerfd_settime(
    fd: BorrowedFd<'_>,
    flags: libc::c_int,
    value: &Itimerspec,
) -> io::Result<()> {
    let (fd, value): (_, *const Itimerspec) = (fd.as_raw_fd(), value);
    // SAFETY: the fd is open, and `value` is valid for the length of the call, which only reads it.
    // A null old value is allowed.
    let armed = unsafe {
        #[cfg(in_place)]
        let armed = syscall(
            libc::SYS_timerfd_settime,
            [fd as usize, flags as usize, value as usize, 0, 0, 0],
        );
        #[cfg(not(in_place))]
        let armed = libc::timerfd_settime(fd, flags, value.cast(), std::ptr::null_mut()) as isize;
        armed
    };
    result(armed).map(drop)
}

/// Makes a system call.
///
/// # Safety
/// The arguments must be valid for the call.
#[cfg(in_place)]
#[inline(always)]
unsafe fn syscall(number: libc::c_long, [a, b, c, d, e, f]: [usize; 6]) -> isize {
    let answer;
    // SAFETY: by the contract. The instruction changes rax, rcx, r11 and the memory that the call
    // writes. The compiler assumes that all memory has changed.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Turns the kernel's answer into a result.
#[inline(always)]
fn result(answer: isize) -> io::Result<usize> {
    if answer >= 0 { Ok(answer as usize) } else { Err(error(answer)) }
}

#[cold]
#[inline(never)]
fn error(answer: isize) -> io::Error {
    if cfg!(in_place) {
        io::Error::from_raw_os_error(-answer as i32)
    } else {
        io::Error::last_os_error()
    }
}

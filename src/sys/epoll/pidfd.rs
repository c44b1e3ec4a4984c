//! The end of a child process as an fd, on Linux: a pidfd (5.3).
//!
//! Quirks handled here:
//! - The fd is readable once the process has ended, and stays readable. There is nothing to read.
//!   `waitpid` gives the status.
//! - An fd that is made from a pid stands for the right process only if nobody has waited for that
//!   process. The caller checks that before and after.
//! - Containers refuse the call by a seccomp filter, with an errno of their choice (`EPERM`
//!   mostly).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::super::has_fd;
use super::super::process::refused;

/// The errors that the kernel itself gives for a `pidfd_open`. Any other error comes from a filter.
const ERRORS: [libc::c_int; 6] =
    [libc::EINVAL, libc::EMFILE, libc::ENFILE, libc::ENODEV, libc::ENOMEM, libc::ESRCH];

#[derive(Debug)]
pub(crate) struct ProcessFd {
    fd: OwnedFd,
}

impl ProcessFd {
    pub(crate) fn new(pid: u32) -> io::Result<ProcessFd> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            let error = io::Error::last_os_error();
            let of_the_kernel = error.raw_os_error().is_some_and(|errno| ERRORS.contains(&errno));
            return Err(if of_the_kernel { error } else { refused("pidfd_open", &error) });
        }
        // SAFETY: the kernel just returned `fd` to us and nobody else has it.
        Ok(ProcessFd { fd: unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) } })
    }

    /// Sends a signal. Returns `None` if the system or a filter refuses the call as unknown.
    pub(crate) fn signal(&self, signal: i32) -> Option<io::Result<()>> {
        let (call, fd) = (libc::SYS_pidfd_send_signal, self.fd.as_raw_fd());
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: without signal info the call reads no memory.
        if unsafe { libc::syscall(call, fd, signal, info, 0) } == 0 {
            return Some(Ok(()));
        }
        let error = io::Error::last_os_error();
        (error.raw_os_error() != Some(libc::ENOSYS)).then_some(Err(error))
    }

    pub(crate) fn is_ending(&self) -> bool {
        false
    }
}

has_fd!(ProcessFd, fd);

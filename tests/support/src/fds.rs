//! The limit of fds, the flag of a file, and a pidfd.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, rlim_t, setrlimit};

/// Sets the soft limit of fds of this process, and returns the former limit.
#[allow(clippy::unnecessary_cast)] // signed on FreeBSD
pub fn set_fd_limit(limit: u64) -> u64 {
    let (former, most) = getrlimit(RLIMIT_NOFILE).unwrap();
    setrlimit(RLIMIT_NOFILE, limit as rlim_t, most).unwrap();
    former as u64
}

/// Raises the soft limit to `n` fds, or as far as the hard limit allows.
#[allow(clippy::unnecessary_cast)]
pub fn allow_fds(n: u64) {
    let (now, most) = getrlimit(RLIMIT_NOFILE).unwrap();
    if (now as u64) < n {
        set_fd_limit(n.min(most as u64));
    }
}

/// Sets or clears `O_NONBLOCK` of any file and its clones.
pub fn set_nonblocking(fd: impl AsFd, on: bool) {
    // The call is the same for each kind of file, but std has it for sockets only.
    let clone = UnixStream::from(fd.as_fd().try_clone_to_owned().unwrap());
    clone.set_nonblocking(on).unwrap();
}

/// Opens a pidfd of a child.
#[allow(unsafe_code)]
#[cfg(target_os = "linux")]
pub fn pidfd(child: &std::process::Child) -> std::os::fd::OwnedFd {
    // SAFETY: the call takes two numbers, and no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call has just made the fd, and no other code has it.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) }
}

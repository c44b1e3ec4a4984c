//! The test for files whose reads or writes may block.
//!
//! `O_NONBLOCK` belongs to the open file, not to the fd: clones of the fd and processes that
//! inherited it share the flag.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::FileTypeExt;

use super::call;

/// Returns true if the file is non-blocking. One syscall.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(flags(fd)? & libc::O_NONBLOCK != 0)
}

/// Sets or clears the flag. Two syscalls, or one if the flag is so already.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let before = flags(fd)?;
    let flags = if on { before | libc::O_NONBLOCK } else { before & !libc::O_NONBLOCK };
    if flags != before {
        // SAFETY: the fd is open, and the call takes no pointer.
        call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) })?;
    }
    Ok(())
}

fn flags(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: the fd is open, and the call takes no pointer.
    call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
}

/// Returns true for a file for which `O_NONBLOCK` has no meaning. A read of a regular file, a
/// folder or a block device never waits for another party, and a poller has no `read`. Makes a few
/// syscalls, which need no other fd. Allocates.
pub(crate) fn never_blocks(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the fd is open for as long as it is borrowed, and this `File` does not close it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd.as_raw_fd()) });
    let kind = file.metadata();
    let on_disk =
        |kind: std::fs::FileType| kind.is_file() || kind.is_dir() || kind.is_block_device();
    kind.is_ok_and(|kind| on_disk(kind.file_type())) || has_no_read(fd)
}

/// Returns true for a poller, a process and an io_uring.
fn has_no_read(fd: BorrowedFd<'_>) -> bool {
    #[cfg(kqueue)]
    if super::kqueue::is_kqueue(fd) {
        return true;
    }
    cfg!(linux) && has_telling_name(fd)
}

/// Returns true for an epoll instance, a process and an io_uring on Linux.
fn has_telling_name(fd: BorrowedFd<'_>) -> bool {
    // These files have no type of their own, but a name.
    let Ok(name) = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())) else {
        return false;
    };
    let name = name.to_string_lossy();
    let name = name.strip_prefix("anon_inode:").unwrap_or(&name);
    name == "[eventpoll]"
        || name == "[io_uring]"
        || name == "[pidfd]"
        || name.starts_with("pidfd:[")
}

//! kqueue on Linux, for tests: `kqueue` and `kevent` as a shared library, on epoll, timerfd,
//! eventfd and pidfd.
//!
//! Written from what kqueue(2) of FreeBSD documents, and where that leaves a choice, like the
//! strictest of the systems. `tests/documented.rs` has a test for each of its sentences that counts
//! here. What makes it a better stand-in than the libkqueue of the distributions: its kqueue is an
//! epoll fd and can be waited for itself, and a change that fails ends a call that would wait, as
//! in every kernel.
//!
//! It also stands before libc's `close`, because a kqueue notices when an fd of it is closed, and
//! has fds of its own that must go with it.
//!
//! Not here: vnodes and other filters, `NOTE_LOWAT`, `NOTE_FORK` and `NOTE_EXEC`, kqueues under a
//! second number (`dup`). Which error a socket has is not told (`EIO` for each), because to ask
//! Linux for it is to take it away.
//!
//! With `KQUEUE_STAND_IN_LOG=file` each call of `kevent` appends a line to the file, with what it
//! changes and whether it may wait: what strace would show of a kernel's kqueue.

mod abi;
mod log;
mod queue;
mod registry;
mod signal;
mod source;

use std::os::raw::c_int;
use std::time::Duration;

pub use abi::*;

use abi::{Errno, set_errno};
use queue::Timeout;

/// Makes a kqueue and gives its fd, or -1 and `errno`. It is close-on-exec.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue() -> c_int {
    answer(registry::create())
}

/// Says, by being there, that a kqueue of this library can be waited for itself. pollmux's build
/// looks for the name.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue_nests() {}

/// Applies changes, then waits for events: kqueue(2). The number of events, or -1 and `errno`.
///
/// # Safety
/// `changes` must be valid for reads of `nchanges` kevents, `events` for writes of `nevents`, and
/// `timeout` null or valid. The same array may be given for both.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kevent(
    kq: c_int,
    changes: *const kevent,
    nchanges: c_int,
    events: *mut kevent,
    nevents: c_int,
    timeout: *const libc::timespec,
) -> c_int {
    let (Ok(nchanges), Ok(nevents)) = (usize::try_from(nchanges), usize::try_from(nevents)) else {
        return answer(Err(Errno(libc::EINVAL)));
    };
    if (nchanges > 0 && changes.is_null()) || (nevents > 0 && events.is_null()) {
        return answer(Err(Errno(libc::EFAULT)));
    }
    // Read before anything is written, as both may be the same array.
    // SAFETY: the caller vouches for `nchanges` kevents.
    let changes: Vec<kevent> = (0..nchanges).map(|n| unsafe { changes.add(n).read() }).collect();
    let timeout = if timeout.is_null() {
        Timeout::Never
    } else {
        // SAFETY: the caller vouches for it.
        let timeout = unsafe { timeout.read() };
        match (u64::try_from(timeout.tv_sec), u32::try_from(timeout.tv_nsec)) {
            (Ok(s), Ok(ns)) if ns < 1_000_000_000 => Timeout::After(Duration::new(s, ns)),
            _ => return answer(Err(Errno(libc::EINVAL))),
        }
    };
    log::call(&changes, nevents, timeout);
    let Some(queue) = registry::find(kq) else { return answer(Err(Errno(libc::EBADF))) };
    let found = match queue.kevent(&changes, nevents, timeout) {
        Ok(found) => found,
        Err(error) => return answer(Err(error)),
    };
    for (n, event) in found.iter().enumerate() {
        // SAFETY: the caller vouches for `nevents` kevents, and there are no more than that.
        unsafe { events.add(n).write(*event) };
    }
    found.len() as c_int
}

/// libc's `close`, after taking the fd out of the kqueues that know it.
#[unsafe(no_mangle)]
pub extern "C" fn close(fd: c_int) -> c_int {
    registry::closing(fd);
    abi::close(fd)
}

fn answer(result: Result<c_int, Errno>) -> c_int {
    result.unwrap_or_else(|Errno(errno)| {
        set_errno(errno);
        -1
    })
}

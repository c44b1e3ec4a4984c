//! A kqueue on Linux, for tests: a shared library with `kqueue` and `kevent`, on epoll, timerfd,
//! eventfd and pidfd.
//!
//! The library follows kqueue(2) of FreeBSD. If the manual leaves a choice, the library behaves
//! like the strictest of the systems. `tests/documented.rs` has a test for each sentence of the
//! manual that pollmux relies on. The library has two advantages over libkqueue. Its kqueue is an
//! epoll fd, so other pollers can wait for it. A change that fails ends a call that would wait, as
//! in every kernel.
//!
//! The library also replaces libc's `close`. A kqueue must forget an fd that is closed, and a
//! closed kqueue must close its inner fds.
//!
//! The library has no vnodes and no other filters, no `NOTE_LOWAT`, `NOTE_FORK` and `NOTE_EXEC`,
//! and no kqueues under a second number (`dup`). It reports each socket error as `EIO`, because
//! asking Linux for the error would clear it.
//!
//! With `KQUEUE_STAND_IN_LOG=file` each call of `kevent` appends a line to the file. The line has
//! the changes and shows if the call may wait, as strace shows calls of a kernel's kqueue.

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

/// Makes a kqueue and returns its fd, or -1 and `errno`. The fd is close-on-exec.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue() -> c_int {
    answer(registry::create())
}

/// Shows by its name that other pollers can wait for a kqueue of this library. pollmux's build
/// script looks for the symbol.
#[unsafe(no_mangle)]
pub extern "C" fn kqueue_nests() {}

/// Applies changes and then waits for events, as kqueue(2) says. Returns the number of events, or
/// -1 and `errno`.
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
    // All changes are read before an event is written, because both may be the same array.
    // SAFETY: the caller vouches for `nchanges` kevents.
    let changes: Vec<kevent> = (0..nchanges).map(|n| unsafe { changes.add(n).read() }).collect();
    let timeout = if timeout.is_null() {
        Timeout::Never
    } else {
        // SAFETY: the caller vouches for the timeout.
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

/// Takes the fd out of the kqueues that watch it, and then closes it. Replaces libc's `close`.
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

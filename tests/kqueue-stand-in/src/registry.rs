//! The kqueues of the process by their fds, and their reaction to a closed fd.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::raw::c_int;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, PoisonError, RwLock, RwLockWriteGuard};

use crate::abi::{self, Errno, check};
use crate::queue::Queue;

static QUEUES: RwLock<Queues> = RwLock::new(BTreeMap::new());

/// A bit for each fd that is a kqueue or is in a kqueue. Other fds are closed without a lock.
static KNOWN: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024];

fn bit(fd: c_int) -> Option<(&'static AtomicU64, u64)> {
    let fd = usize::try_from(fd).ok()?;
    Some((KNOWN.get(fd / 64)?, 1 << (fd % 64)))
}

/// Sets the bit of `fd`, before it goes into a kqueue or becomes a kqueue. `closing` always looks
/// for fds without a bit.
pub(crate) fn mark(fd: c_int) {
    if let Some((word, bit)) = bit(fd) {
        word.fetch_or(bit, Ordering::SeqCst);
    }
}

type Queues = BTreeMap<c_int, Arc<Queue>>;

thread_local! {
    /// The lock, which this thread holds during a `fork`. So it is free in the child.
    static HELD: Cell<Option<RwLockWriteGuard<'static, Queues>>> = const { Cell::new(None) };
}

/// Takes the lock before a `fork`.
extern "C" fn forks() {
    HELD.set(Some(QUEUES.write().unwrap_or_else(PoisonError::into_inner)));
}

/// Releases the lock after a `fork`, in the parent.
extern "C" fn has_forked() {
    HELD.take();
}

/// Closes all kqueues in a child made by `fork`, which does not inherit them.
extern "C" fn forked() {
    let Some(mut queues) = HELD.take() else { return };
    for kq in std::mem::take(&mut *queues).into_keys() {
        abi::close(kq);
    }
}

pub(crate) fn create() -> Result<c_int, Errno> {
    static FORKS: Once = Once::new();
    // SAFETY: the functions have the right type, and the library is never unloaded.
    FORKS.call_once(|| unsafe {
        libc::pthread_atfork(Some(forks), Some(has_forked), Some(forked));
    });
    // SAFETY: the call takes no pointers.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    mark(epoll);
    QUEUES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(epoll, Arc::new(Queue::new(epoll)));
    Ok(epoll)
}

pub(crate) fn find(kq: c_int) -> Option<Arc<Queue>> {
    QUEUES.read().unwrap_or_else(PoisonError::into_inner).get(&kq).cloned()
}

/// Takes `fd` out of all kqueues before it is closed.
pub(crate) fn closing(fd: c_int) {
    match bit(fd) {
        Some((word, bit)) if word.fetch_and(!bit, Ordering::SeqCst) & bit == 0 => return,
        None if fd < 0 => return,
        _ => {}
    }
    let gone = QUEUES.write().unwrap_or_else(PoisonError::into_inner).remove(&fd);
    drop(gone); // closes its inner fds, unless another thread waits with the kqueue
    let others: Vec<_> =
        QUEUES.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    for queue in others {
        queue.forget(fd);
    }
}

//! The lock for making and dropping signal sets, the name of the process, and signal masks.
//!
//! A forked child may have a copy of the lock whose holder exists only in the parent. So the lock
//! carries its holder's process, and counts as free in another process.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::{INTERRUPTIONS, fork};
use super::names::FAULTS;

/// Returns a name of this process. A pid alone may name another process in another namespace, or at
/// another time.
pub(super) fn process() -> u64 {
    // SAFETY: the call has no arguments, and cannot fail.
    let pid = unsafe { libc::getpid() };
    u64::from(fork::count()) << 32 | u64::from(pid as u32)
}

/// Returns true for a name that [`process`] gave before a fork, in the child.
pub(super) fn is_forked_from(process: u64) -> bool {
    (process >> 32) as u32 != fork::count()
}

/// The name of the holder's process, or 0.
static LOCK: AtomicU64 = AtomicU64::new(0);

/// The lock for all changes of actions. Its holder makes a few syscalls. No handler runs on the
/// holder's thread, so a stopped handler never holds the lock.
pub(super) struct Locked {
    /// The former mask, or `None` if a filter refuses to change the mask.
    mask: Option<libc::sigset_t>,
    pub(super) process: u64,
}

impl Locked {
    pub(super) fn new() -> Locked {
        let mask = swap_mask(Some(&all_but_faults()));
        let process = process();
        let mut looks = 0_u32;
        loop {
            let holder = LOCK.load(Ordering::Relaxed);
            // A holder in another process is a thread of the parent during the fork. It does not
            // exist here, and its unfinished changes do no harm (`install`, `restore`).
            let (order, failed) = (Ordering::Acquire, Ordering::Relaxed);
            let swap = || LOCK.compare_exchange_weak(holder, process, order, failed);
            if holder != process && swap().is_ok() {
                return Locked { mask, process };
            }
            looks += 1;
            match looks {
                0..32 => std::hint::spin_loop(),
                32..64 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

impl Locked {
    /// Returns true if the thread blocked this signal before.
    pub(super) fn is_blocked(&self, signal: i32) -> bool {
        self.mask.is_some_and(|mask| is_member(&mask, signal))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        LOCK.store(0, Ordering::Release);
        if let Some(mask) = &self.mask {
            let _ = (0..INTERRUPTIONS).find(|_| swap_mask(Some(mask)).is_some());
        }
    }
}

pub(super) fn all_but_faults() -> libc::sigset_t {
    let mut mask = no_signals();
    // SAFETY: the mask is valid, and the numbers are signals: no call fails.
    unsafe {
        libc::sigfillset(&mut mask);
        for fault in FAULTS {
            libc::sigdelset(&mut mask, fault);
        }
    }
    mask
}

fn no_signals() -> libc::sigset_t {
    // SAFETY: a sigset_t is numbers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Sets or reads this thread's mask, and returns the former mask. Returns `None` if a filter of
/// syscalls refuses the call.
pub(super) fn swap_mask(new: Option<&libc::sigset_t>) -> Option<libc::sigset_t> {
    let mut before = no_signals();
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null, which changes nothing, or valid for the length of the call, as is
    // `before`.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, new, &mut before) };
    (failed == 0).then_some(before)
}

pub(super) fn is_member(mask: &libc::sigset_t, signal: i32) -> bool {
    // SAFETY: the mask is valid for the length of the call.
    unsafe { libc::sigismember(mask, signal) == 1 }
}

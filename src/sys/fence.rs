//! An asymmetric fence: free on the side that is hot, a syscall on the side that is about to sleep anyway.
//!
//! Two threads each write one variable and then read the other's; at least one of them must see the other's write. That takes a
//! full fence between write and read on both sides, and a full fence costs as much as the rest of a `recv`. With
//! `membarrier(PRIVATE_EXPEDITED)` the rare side, [`heavy`], makes *every* running thread of the process pass a full fence, so
//! the frequent side, [`light`], need only keep the compiler from reordering (Linux 4.14; `membarrier(2)`, "Expedited").
//!
//! Where the kernel has no membarrier both sides use a real fence. Which of the two it is gets decided once, before the first
//! `light`, and never changes: [`init`].

use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

const UNKNOWN: u8 = 0;
const SYMMETRIC: u8 = 1;
const ASYMMETRIC: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Decides the mode. Called once for each channel, before its ends exist; two syscalls the first time only. In a process with several threads the second takes milliseconds, which is why it is
/// not left to the first who blocks.
pub(crate) fn init() {
    if MODE.load(Ordering::Relaxed) == UNKNOWN {
        let found = if membarrier::supported() && membarrier::register() { ASYMMETRIC } else { SYMMETRIC };
        // Two threads may both get here; they find the same.
        MODE.store(found, Ordering::Release);
    }
}

/// The frequent side. A load and a predicted branch, no fence instruction, where the kernel helps.
#[inline(always)]
pub(crate) fn light() {
    if MODE.load(Ordering::Relaxed) == ASYMMETRIC {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The rare side: about 3 µs and one syscall.
///
/// Returns false when the kernel refused after having promised. Then the caller must not trust that a `light` side saw its
/// write, and looks again after a while instead.
pub(crate) fn heavy() -> bool {
    fence(Ordering::SeqCst);
    MODE.load(Ordering::Relaxed) != ASYMMETRIC || membarrier::expedited()
}

#[cfg(linux)]
mod membarrier {
    /// `MEMBARRIER_CMD_*`, linux/membarrier.h.
    const QUERY: libc::c_int = 0;
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    fn membarrier(command: libc::c_int) -> libc::c_long {
        // SAFETY: membarrier takes no pointers and changes no memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    pub(super) fn supported() -> bool {
        let commands = libc::c_long::from(PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED);
        let answer = membarrier(QUERY);
        answer >= 0 && answer & commands == commands
    }

    pub(super) fn register() -> bool {
        membarrier(REGISTER_PRIVATE_EXPEDITED) == 0
    }

    pub(super) fn expedited() -> bool {
        membarrier(PRIVATE_EXPEDITED) == 0
    }
}

#[cfg(not(linux))]
mod membarrier {
    pub(super) fn supported() -> bool {
        false
    }
    pub(super) fn register() -> bool {
        false
    }
    pub(super) fn expedited() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// The litmus test of the module's first paragraph, many times over, with the two sides made to meet in the middle. (Without either fence this
    /// fails within a second on x86.)
    #[test]
    fn one_of_the_two_sides_always_sees_the_other() {
        init();
        let rounds = 20_000;
        let (x, y) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (go, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let saw = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    let mut spins = 0;
                    while go.load(Ordering::Acquire) != round {
                        spins += 1;
                        // On one core the other side gets its turn only so.
                        if spins % 1_000 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
                    }
                    x.store(round, Ordering::Relaxed);
                    light();
                    saw.store(y.load(Ordering::Relaxed), Ordering::Relaxed);
                    done.store(round, Ordering::Release);
                }
            });
            for round in 1..=rounds {
                go.store(round, Ordering::Release);
                for _ in 0..round % 64 {
                    std::hint::spin_loop();
                }
                y.store(round, Ordering::Relaxed);
                assert!(heavy());
                let here = x.load(Ordering::Relaxed);
                while done.load(Ordering::Acquire) != round {
                    std::thread::yield_now();
                }
                assert!(
                    here == round || saw.load(Ordering::Relaxed) == round,
                    "round {round}: neither saw the other"
                );
            }
        });
    }
}

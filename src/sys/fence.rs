//! An asymmetric fence, which is free on the frequent side, and costs the side that is about to
//! sleep one syscall.
//!
//! Two threads each write one variable and then read the other's variable. At least one of them
//! must see the other's write. That takes a full fence between write and read on both sides, and a
//! full fence costs as much as the rest of a `recv`. With `membarrier(PRIVATE_EXPEDITED)` the rare
//! side, [`heavy`], makes *every* running thread of the process pass a full fence. Then the
//! frequent side, [`light`], need only keep the compiler from reordering (Linux 4.14;
//! `membarrier(2)`, "Expedited").
//!
//! If membarrier is missing or refused, both sides use a real fence. The mode is decided once for
//! the process, before the first `light` of a channel, and never changes ([`init`]). A filter of
//! syscalls holds for one thread, so two threads that initialise may find different modes. The
//! first one that stores its mode decides.
//!
//! `POLLMUX_FENCES=symmetric` at build time (cfg `symmetric`) makes both sides real fences
//! everywhere. That is for tests of the symmetric mode on a kernel that has membarrier.

use std::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

const UNKNOWN: u8 = 0;
const SYMMETRIC: u8 = 1;
const ASYMMETRIC: u8 = 2;

static MODE: Mode = Mode::new();

/// The mode of the fences, which is decided once.
struct Mode(AtomicU8);

impl Mode {
    const fn new() -> Mode {
        Mode(AtomicU8::new(UNKNOWN))
    }

    #[inline(always)]
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the mode. If there is none yet, the first of all callers decides by its `find`.
    fn decided(&self, find: impl FnOnce() -> u8) -> u8 {
        match self.get() {
            UNKNOWN => {
                let found = find();
                let before =
                    self.0.compare_exchange(UNKNOWN, found, Ordering::AcqRel, Ordering::Acquire);
                before.err().unwrap_or(found)
            }
            mode => mode,
        }
    }
}

fn find() -> u8 {
    if membarrier::supported() && membarrier::register() && membarrier::expedited() {
        ASYMMETRIC
    } else {
        SYMMETRIC
    }
}

/// Decides the mode. Each channel calls this once, before its ends exist. The first call makes
/// three syscalls. In a process with several threads the second syscall takes milliseconds, so the
/// call must come before the first thread blocks.
pub(crate) fn init() {
    MODE.decided(find);
}

/// Returns true if the other threads' side may use a compiler fence, because membarrier works and
/// is registered. The answer never changes.
#[inline]
pub(crate) fn is_asymmetric() -> bool {
    MODE.decided(find) == ASYMMETRIC
}

/// Makes the fence of the frequent side. In the asymmetric mode this is a load and a predicted
/// branch, without a fence instruction.
#[inline(always)]
pub(crate) fn light() {
    if MODE.get() == ASYMMETRIC {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// Makes the fence of the rare side: one syscall of about 3 µs in the asymmetric mode, otherwise a
/// full fence.
///
/// Returns false if the kernel refused, for instance because a filter came after [`init`]. Then a
/// [`light`] side may have missed the caller's write, and the caller must look again after a while.
pub(crate) fn heavy() -> bool {
    fence(Ordering::SeqCst);
    !is_asymmetric() || membarrier::expedited()
}

mod membarrier {
    /// The commands `MEMBARRIER_CMD_*` of linux/membarrier.h.
    const QUERY: libc::c_int = 0;
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

    #[cfg(all(linux, not(symmetric)))]
    fn membarrier(command: libc::c_int) -> libc::c_long {
        // SAFETY: membarrier takes no pointers and changes no memory.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
    }

    #[cfg(any(not(linux), symmetric))]
    fn membarrier(_: libc::c_int) -> libc::c_long {
        -1
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::{Duration, Instant};

    #[test]
    fn the_first_decision_fixes_the_mode() {
        for (first, last) in [(ASYMMETRIC, SYMMETRIC), (SYMMETRIC, ASYMMETRIC)] {
            let mode = Mode::new();
            // The other thread decides while this one still asks the kernel.
            let seen = mode.decided(|| {
                assert_eq!(mode.decided(|| first), first);
                last
            });
            assert_eq!((seen, mode.get()), (first, first));
            assert_eq!(mode.decided(|| unreachable!()), first);
        }
    }

    #[test]
    fn a_symmetric_build_has_symmetric_fences() {
        init();
        assert_eq!(is_asymmetric(), MODE.get() == ASYMMETRIC);
        assert!(!(cfg!(symmetric) && is_asymmetric()));
        assert!(heavy());
    }

    /// A filter of syscalls may come after the fences were set up. It holds for one thread.
    #[cfg(all(linux, not(symmetric)))]
    #[test]
    fn a_refused_heavy_fence_returns_false() {
        init();
        let refusing = || {
            refuse_membarrier()
                .inspect_err(|error| eprintln!("skipped: no seccomp here: {error}"))
                .ok()?;
            // A new decision would find another mode, but the old mode stays.
            Some((find(), is_asymmetric(), heavy()))
        };
        let before = is_asymmetric();
        if let Some(there) = std::thread::spawn(refusing).join().unwrap() {
            assert_eq!(there, (SYMMETRIC, before, !before));
        }
        assert!(heavy());
    }

    /// Makes membarrier fail with `EPERM` in the calling thread.
    #[cfg(all(linux, not(symmetric)))]
    fn refuse_membarrier() -> std::io::Result<()> {
        use super::super::check;
        let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        let error = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the syscall
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_membarrier as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, error),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        let [none, one] = [0, 1 as libc::c_ulong];
        // SAFETY: the call takes no pointers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) })?;
        // SAFETY: `filter` and its program are valid for the length of the call, which copies them.
        super::super::check(unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter)
        })?;
        Ok(())
    }

    /// Repeats the litmus test of the module's docs, with both sides at the same time. Without one
    /// of the fences this test fails within a second on x86.
    #[test]
    fn at_least_one_side_sees_the_other() {
        init();
        // All rounds take half a second without the syscall, and too long with it.
        let (rounds, least) = (500_000, 20_000);
        let end = Instant::now() + Duration::from_secs(1);
        const OVER: usize = usize::MAX;
        let (x, y) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (go, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let saw = AtomicUsize::new(0);
        let mut refused = 0;
        let both_missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=rounds {
                    let mut spins = 0_u32;
                    loop {
                        match go.load(Ordering::Acquire) {
                            OVER => return,
                            there if there == round => break,
                            _ => spins = spins.wrapping_add(1),
                        }
                        // On one core only a yield lets the other side run.
                        if spins % 1_000 == 0 {
                            std::thread::yield_now();
                        } else {
                            std::hint::spin_loop();
                        }
                    }
                    x.store(round, Ordering::Relaxed);
                    light();
                    saw.store(y.load(Ordering::Relaxed), Ordering::Relaxed);
                    done.store(round, Ordering::Release);
                }
            });
            let in_time = |&round: &usize| round <= least || Instant::now() < end;
            let missed = (1..=rounds).take_while(in_time).find(|&round| {
                go.store(round, Ordering::Release);
                for _ in 0..round % 64 {
                    std::hint::spin_loop();
                }
                y.store(round, Ordering::Relaxed);
                refused += usize::from(!heavy());
                let here = x.load(Ordering::Relaxed);
                while done.load(Ordering::Acquire) != round {
                    std::thread::yield_now();
                }
                here != round && saw.load(Ordering::Relaxed) != round
            });
            go.store(OVER, Ordering::Release);
            missed
        });
        assert_eq!(both_missed, None, "neither side saw the other in this round");
        assert_eq!(refused, 0, "the kernel has refused a supported membarrier");
    }
}

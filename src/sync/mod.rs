//! Atomics, cells and locks for the code that several threads share: the standard library's, or
//! loom's when its models run (`RUSTFLAGS="--cfg loom" cargo test --release --lib`).
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | atomics, fences, locks, short waits |
//! | `blocking.rs` | the guard that forbids a thread to block |
//! | `random.rs` | the random generator |

mod blocking;
mod random;

pub(crate) use self::blocking::{Guard, forbid_blocking, forbid_sleep, set_guard, strand};
pub(crate) use self::random::Random;

#[cfg(all(loom, test))]
pub(crate) use self::model::*;
#[cfg(not(all(loom, test)))]
pub(crate) use self::real::*;

use std::sync::{LockResult, PoisonError, TryLockError};

/// A lock that ignores poisoning: no code panics half way through a change under it.
#[derive(Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(Inner::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        unpoisoned(self.0.lock())
    }

    pub(crate) fn into_inner(self) -> T {
        unpoisoned(self.0.into_inner())
    }

    /// Takes the lock if nobody has it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the lock if it is free within about 4 µs.
    pub(crate) fn lock_briefly(&self) -> Option<MutexGuard<'_, T>> {
        let mut guard = self.try_lock();
        if guard.is_none() {
            wait_briefly(100, || self.try_lock().is_some_and(|free| guard.replace(free).is_none()));
        }
        guard
    }
}

/// The guard of a lock, or its value, also if a thread has panicked under the lock.
#[inline]
pub(crate) fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(all(loom, test)))]
mod real {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Condvar, MutexGuard, RwLock};
    pub(crate) use std::thread;

    pub(crate) use crate::sys::fence::{
        heavy as heavy_fence, init as init_fences, light as light_fence,
    };
    pub(super) use std::sync::Mutex as Inner;
    use std::sync::atomic::AtomicU8;

    /// `SeqCst` loads and stores need no fence between them; loom's do.
    #[inline(always)]
    pub(crate) fn full_fence() {}

    pub(crate) use std::sync::atomic::fence;

    /// The sender's fence between a stamp and the look at the receiver's request.
    ///
    /// The receiver's [`settle_fence`] is the other side. AArch64 orders the two by itself, because
    /// both are `SeqCst` there ([`STAMP`]); x86 would need a locked instruction.
    #[inline(always)]
    pub(crate) fn publish_fence() {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// The order of a claim before what follows it: a `SeqCst` read-modify-write has it.
    #[inline(always)]
    pub(crate) fn claim_fence() {}

    /// The order of the store that publishes a message.
    pub(crate) const STAMP: Ordering =
        if cfg!(target_arch = "aarch64") { Ordering::SeqCst } else { Ordering::Release };

    /// The receiver's fence between its request and a second look at a message that is coming.
    ///
    /// After it a message is visible, or its sender sees the request. Returns false if that is not
    /// sure, because there is no membarrier: then look again in a moment. One syscall, about 3 µs.
    #[cold]
    pub(crate) fn settle_fence() -> bool {
        if cfg!(target_arch = "aarch64") {
            fence(Ordering::SeqCst);
            return true;
        }
        crate::sys::fence::is_asymmetric() && heavy_fence()
    }

    /// Looks up to `rounds` times if it `is_over`, some 40 ns each. Looks once where the other
    /// thread needs our core.
    pub(crate) fn wait_briefly(rounds: u32, mut is_over: impl FnMut() -> bool) -> bool {
        let rounds = if several_cores() { rounds } else { 0 };
        for _ in 0..rounds {
            if is_over() {
                return true;
            }
            std::hint::spin_loop();
        }
        is_over()
    }

    /// A moment before looking again, when there is something better to do than to wait on: short,
    /// and never the rest of a time slice.
    #[inline]
    pub(crate) fn spin() {
        std::hint::spin_loop();
    }

    /// Lets another thread run that is about to make what we wait for true.
    pub(crate) fn yield_to_others() {
        thread::yield_now();
    }

    /// Waiting awake, for what another thread is just about to do: a little longer each time, and
    /// then by leaving the core to it. There are no such waits where one core must do for both.
    pub(crate) struct Backoff(u32);

    impl Backoff {
        /// Doubling waits, some 60 instructions in all; then rests.
        const SPINS: u32 = 6;
        const RESTS: u32 = 10;

        pub(crate) fn new() -> Backoff {
            Backoff(if several_cores() { 0 } else { Self::SPINS + Self::RESTS })
        }

        /// Waits a moment. False when it has been tried often enough, and it is time to sleep.
        pub(crate) fn pause(&mut self) -> bool {
            match self.0 {
                step if step < Self::SPINS => (0..1 << step).for_each(|_| spin()),
                step if step < Self::SPINS + Self::RESTS => thread::yield_now(),
                _ => return false,
            }
            self.0 += 1;
            true
        }
    }

    /// Returns true if the first thread to ask could use several cores. No thread waits for that
    /// one.
    fn several_cores() -> bool {
        const ONE: u8 = 1;
        const SEVERAL: u8 = 2;
        static CORES: AtomicU8 = AtomicU8::new(0);
        match CORES.load(Ordering::Relaxed) {
            0 => {
                let several = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
                let cores = if several { SEVERAL } else { ONE };
                // Of several threads the first one decides.
                let decided =
                    CORES.compare_exchange(0, cores, Ordering::Relaxed, Ordering::Relaxed);
                decided.err().unwrap_or(cores) == SEVERAL
            }
            cores => cores == SEVERAL,
        }
    }

    /// `std::cell::UnsafeCell` with loom's interface. Comes to be as zeroed memory
    /// (`channel/tail.rs`).
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(all(loom, test))]
mod model {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::fence;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use loom::sync::{Condvar, MutexGuard, RwLock};
    pub(crate) use loom::thread;

    pub(super) use loom::sync::Mutex as Inner;

    /// loom takes `SeqCst` loads and stores for weaker ones, but knows fences.
    pub(crate) fn full_fence() {
        fence(Ordering::SeqCst);
    }

    thread_local! {
        /// True while a model runs without membarrier. (All threads of a model share one thread.)
        pub(crate) static REFUSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    /// Runs a model in which membarrier is refused.
    pub(crate) fn without_membarrier(model: impl Fn() + Send + Sync + 'static) {
        REFUSED.set(true);
        loom::model(model);
        REFUSED.set(false);
    }

    pub(crate) const STAMP: Ordering = Ordering::Release;

    /// loom takes a claim for a weaker one. With membarrier [`publish_fence`] is enough of a fence.
    pub(crate) fn claim_fence() {
        if REFUSED.get() {
            full_fence();
        }
    }

    /// With membarrier, a full fence: what the compiler fence becomes when the receiver's is run.
    pub(crate) fn publish_fence() {
        if !REFUSED.get() {
            full_fence();
        }
    }

    pub(crate) fn settle_fence() -> bool {
        full_fence();
        !REFUSED.get()
    }

    pub(crate) fn wait_briefly(_: u32, mut is_over: impl FnMut() -> bool) -> bool {
        is_over()
    }

    /// The asymmetric fence is modelled by what it stands for.
    pub(crate) fn light_fence() {
        full_fence();
    }

    pub(crate) fn heavy_fence() -> bool {
        full_fence();
        true
    }

    pub(crate) fn init_fences() {}

    pub(crate) fn yield_to_others() {
        thread::yield_now();
    }

    /// The models are about sleeping.
    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Backoff {
            Backoff
        }

        pub(crate) fn pause(&mut self) -> bool {
            false
        }
    }
}

/// Keeps what different threads write on different cache lines. 128 bytes: x86 fetches lines in
/// pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

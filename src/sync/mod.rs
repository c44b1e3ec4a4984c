//! Atomics, cells and locks for code that several threads share. They are those of the standard
//! library, or those of loom in its models (`RUSTFLAGS="--cfg loom" cargo test --release --lib`).
//!
//! | file | |
//! |---|---|
//! | `mod.rs` | atomics, fences, locks |
//! | `blocking.rs` | the guard that forbids a thread to block |
//! | `random.rs` | the random generator |
//! | `waiting.rs` | short waits |

mod blocking;
mod random;
mod waiting;

pub(crate) use self::blocking::{Guard, forbid_blocking, forbid_sleep, set_guard, strand};
pub(crate) use self::random::Random;
pub(crate) use self::waiting::*;

#[cfg(all(loom, test))]
pub(crate) use self::model::*;
#[cfg(not(all(loom, test)))]
pub(crate) use self::real::*;

use std::sync::{LockResult, PoisonError, TryLockError};

/// A lock that ignores poisoning, because no code panics during a change under the lock.
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

    /// Takes the lock if it is free.
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

/// Returns the guard of a lock, or its value, also after a panic under the lock.
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

    pub(crate) use std::sync::atomic::fence;

    /// The sender's fence between its stamp and its read of the receiver's request.
    ///
    /// The receiver's [`settle_fence`] is the other side. AArch64 orders the two by itself, because
    /// both are `SeqCst` there ([`STAMP`]); x86 would need a locked instruction.
    #[inline(always)]
    pub(crate) fn publish_fence() {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Orders a claim before the operations after it. A `SeqCst` read-modify-write has this order.
    #[inline(always)]
    pub(crate) fn claim_fence() {}

    /// The order of the store that publishes a message.
    pub(crate) const STAMP: Ordering =
        if cfg!(target_arch = "aarch64") { Ordering::SeqCst } else { Ordering::Release };

    /// The receiver's fence between its request and a second look at a message that is coming.
    ///
    /// After the fence a message is visible, or its sender sees the request. Returns false without
    /// membarrier, which cannot ensure this. Then look again in a moment. The fence costs one
    /// syscall of about 3 µs.
    #[cold]
    pub(crate) fn settle_fence() -> bool {
        if cfg!(target_arch = "aarch64") {
            fence(Ordering::SeqCst);
            return true;
        }
        crate::sys::fence::is_asymmetric() && heavy_fence()
    }

    /// `std::cell::UnsafeCell` with loom's interface. A cell may be made as zeroed memory
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
    use loom::sync::atomic;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::{Condvar, MutexGuard, RwLock};
    pub(crate) use loom::thread;

    pub(super) use loom::sync::Mutex as Inner;

    /// An atomic of loom whose `SeqCst` operations are in one order. loom treats such operations as
    /// weaker ones, but supports fences. So this type puts a fence between a `SeqCst` write and the
    /// thread's next `SeqCst` read. Weaker operations get no fence.
    ///
    /// Such a fence also orders weaker operations, and so may hide a fault. Usually the fence is
    /// right before the read, where it hides few weak reads. With `LOOM_EARLY_FENCES=1` the fence
    /// is right after the write, where it hides few missing fences between the two.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct InOrder<A>(A);

    pub(crate) type AtomicBool = InOrder<atomic::AtomicBool>;
    pub(crate) type AtomicPtr<T> = InOrder<atomic::AtomicPtr<T>>;
    pub(crate) type AtomicU64 = InOrder<atomic::AtomicU64>;
    pub(crate) type AtomicUsize = InOrder<atomic::AtomicUsize>;

    loom::thread_local! {
        /// True if no fence has followed the last `SeqCst` write.
        static OWES_FENCE: std::cell::Cell<bool> = std::cell::Cell::new(false);
    }

    pub(crate) fn fence(order: Ordering) {
        let _ = OWES_FENCE.try_with(|owes| owes.set(owes.get() && order != Ordering::SeqCst));
        atomic::fence(order);
    }

    fn before_read(order: Ordering) {
        if order == Ordering::SeqCst && OWES_FENCE.try_with(std::cell::Cell::get).unwrap_or(true) {
            fence(order);
        }
    }

    fn after_write(order: Ordering) {
        static EARLY: std::sync::LazyLock<bool> =
            std::sync::LazyLock::new(|| std::env::var_os("LOOM_EARLY_FENCES").is_some());
        if order == Ordering::SeqCst {
            if *EARLY {
                fence(order);
            } else {
                let _ = OWES_FENCE.try_with(|owes| owes.set(true));
            }
        }
    }

    macro_rules! in_order {
        ($([$($of:tt)*] $atomic:ty, $value:ty: $($operation:ident)*, $($exchange:ident)*;)*) => {$(
            impl<$($of)*> InOrder<$atomic> {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    InOrder(<$atomic>::new(value))
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    before_read(order);
                    self.0.load(order)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, order);
                    after_write(order);
                }

                $(#[track_caller]
                pub(crate) fn $exchange(
                    &self,
                    now: $value,
                    new: $value,
                    order: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    before_read(order);
                    let result = self.0.$exchange(now, new, order, failed);
                    result.inspect(|_| after_write(order))
                })*

                $(#[track_caller]
                pub(crate) fn $operation(&self, value: $value, order: Ordering) -> $value {
                    before_read(order);
                    let before = self.0.$operation(value, order);
                    after_write(order);
                    before
                })*
            }
        )*};
    }

    in_order! {
        [] atomic::AtomicBool, bool: swap,;
        [T] atomic::AtomicPtr<T>, *mut T: swap, compare_exchange;
        [] atomic::AtomicU64, u64: swap fetch_add fetch_sub fetch_and fetch_or,
            compare_exchange compare_exchange_weak;
        [] atomic::AtomicUsize, usize: swap fetch_add fetch_sub,;
    }

    impl InOrder<atomic::AtomicU64> {
        /// Loads the value, and tries exchanges until one succeeds or `f` returns `None`, as in
        /// std.
        #[track_caller]
        pub(crate) fn fetch_update(
            &self,
            order: Ordering,
            failed: Ordering,
            mut f: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            let mut now = self.load(failed);
            while let Some(new) = f(now) {
                match self.compare_exchange_weak(now, new, order, failed) {
                    Err(other) => now = other,
                    done => return done,
                }
            }
            Err(now)
        }
    }

    /// A thread of a model, which the drop joins. Declare it after the values that the thread
    /// needs, so that they live until the thread has ended.
    pub(crate) struct Joined<R>(Option<thread::JoinHandle<R>>);

    pub(crate) fn spawn<R: 'static>(f: impl FnOnce() -> R + 'static) -> Joined<R> {
        Joined(Some(thread::spawn(f)))
    }

    impl<R> Joined<R> {
        pub(crate) fn join(mut self) -> std::thread::Result<R> {
            self.0.take().expect("joined once").join()
        }
    }

    impl<R> Drop for Joined<R> {
        fn drop(&mut self) {
            if let Some(thread) = self.0.take().filter(|_| !std::thread::panicking()) {
                thread.join().unwrap();
            }
        }
    }

    /// The kind of fences in a model. (In a build `sys/fence.rs` chooses the kind.)
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fences {
        /// Every fence is a full fence.
        Full,
        /// The frequent sides have compiler fences, and membarrier works.
        Asymmetric,
        /// The kernel has no membarrier.
        Symmetric,
        /// The kernel refuses membarrier, which has worked before.
        Refused,
    }

    thread_local! {
        /// The kind of fences. All threads of a model run on one system thread.
        static FENCES: std::cell::Cell<Fences> = const { std::cell::Cell::new(Fences::Full) };
    }

    /// Runs a model with fences of this kind.
    pub(crate) fn with_fences(fences: Fences, model: impl Fn() + Send + Sync + 'static) {
        FENCES.set(fences);
        loom::model(model);
        FENCES.set(Fences::Full);
    }

    pub(crate) fn without_membarrier(model: impl Fn() + Send + Sync + 'static) {
        with_fences(Fences::Symmetric, model);
    }

    /// A `SeqCst` read-modify-write has this fence. An `InOrder` has it only before the next
    /// `SeqCst` read, which is too late for a model without [`publish_fence`].
    pub(crate) fn claim_fence() {
        if FENCES.get() != Fences::Full {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) const STAMP: Ordering = Ordering::Release;

    pub(crate) fn publish_fence() {
        match FENCES.get() {
            Fences::Full => fence(Ordering::SeqCst),
            Fences::Asymmetric => membarrier::light(),
            Fences::Symmetric | Fences::Refused => {}
        }
    }

    pub(crate) fn settle_fence() -> bool {
        FENCES.get() != Fences::Symmetric && heavy_fence()
    }

    pub(crate) fn light_fence() {
        match FENCES.get() {
            Fences::Full | Fences::Symmetric => fence(Ordering::SeqCst),
            Fences::Asymmetric => membarrier::light(),
            Fences::Refused => {}
        }
    }

    pub(crate) fn heavy_fence() -> bool {
        fence(Ordering::SeqCst);
        if FENCES.get() == Fences::Asymmetric {
            membarrier::heavy();
        }
        FENCES.get() != Fences::Refused
    }

    pub(crate) fn init_fences() {}

    /// membarrier as a fence on every thread, which takes effect at the thread's compiler fence.
    ///
    /// The light side sees all operations before the heavy side, or the other way round. Two light
    /// sides order nothing, like two compiler fences.
    mod membarrier {
        use loom::sync::atomic::{AtomicUsize, Ordering};

        loom::lazy_static! {
            static ref LIGHT: AtomicUsize = AtomicUsize::new(0);
            static ref HEAVY: AtomicUsize = AtomicUsize::new(0);
        }

        pub(super) fn light() {
            LIGHT.fetch_or(0, Ordering::Release);
            HEAVY.fetch_or(0, Ordering::Acquire);
        }

        pub(super) fn heavy() {
            HEAVY.fetch_or(0, Ordering::Release);
            LIGHT.fetch_or(0, Ordering::Acquire);
        }
    }

    /// Memory that other threads find by a pointer, which loom does not track. A model fails if a
    /// thread uses the memory without synchronizing with its maker, or frees it too early.
    pub(crate) struct Born(UnsafeCell<()>);

    impl Born {
        pub(crate) fn new() -> Born {
            Born(UnsafeCell::new(()))
        }

        pub(crate) fn used(&self) {
            self.0.with(|_| ());
        }

        pub(crate) fn freed(&self) {
            self.0.with_mut(|_| ());
        }
    }
}

/// A value on cache lines of its own, because different threads write its neighbours. The alignment
/// is 128 bytes, because x86 fetches lines in pairs.
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

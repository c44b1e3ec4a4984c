//! Busy waits of some microseconds. Threads of the models never wait like this.

#[cfg(all(loom, test))]
pub(crate) use self::model::*;
#[cfg(not(all(loom, test)))]
pub(crate) use self::real::*;

/// The time in ns for which a receiver that waits looks at the slot of its next message only. The
/// peer of a busy pair answers within this time: a cache line takes 25 to 280 ns from core to core,
/// and an answer moves two. A message out of turn and the end of a channel are seen this much
/// later.
pub(crate) const WATCH: u64 = 2_000;

#[cfg(not(all(loom, test)))]
mod real {
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    /// Looks between two readings of the clock.
    const LOOKS: u32 = 8;

    /// Calls `is_over` up to `rounds` times, some 40 ns apart, until it returns true. On one core
    /// it calls only once, because the other thread needs the core.
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

    /// Looks until it `is_over`, or for about `nanos`. Looks once where the other thread needs our
    /// core.
    pub(crate) fn watch(nanos: u64, is_over: impl Fn() -> bool) -> bool {
        if !several_cores() {
            return is_over();
        }
        let begin = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if is_over() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() >= Duration::from_nanos(nanos) {
                return is_over();
            }
        }
    }

    /// Waits so many hints, some 10 to 50 ns each. Does not wait where the other thread needs our
    /// core.
    pub(crate) fn pause(hints: u32) {
        let hints = if several_cores() { hints } else { 0 };
        (0..hints).for_each(|_| std::hint::spin_loop());
    }

    /// Pauses for a moment before the next look. The pause is short, and never gives the core away.
    #[inline]
    pub(crate) fn spin() {
        std::hint::spin_loop();
    }

    /// Lets another thread run, whose step this thread waits for.
    pub(crate) fn yield_to_others() {
        thread::yield_now();
    }

    /// Lets other threads run for `nap`, while virtual time stands still.
    pub(crate) fn rest(nap: std::time::Duration) {
        thread::sleep(nap);
    }

    /// A busy wait for a step of another thread. Each pause is longer, and later pauses give the
    /// core away. On one core there are no such waits.
    pub(crate) struct Backoff(u32);

    impl Backoff {
        /// The number of doubling pauses, some 60 instructions in all. Then the thread yields.
        const SPINS: u32 = 6;
        const RESTS: u32 = 10;

        #[inline]
        pub(crate) fn new() -> Backoff {
            Backoff(0)
        }

        /// The waits behind a [`watch`], which takes the place of the spins.
        pub(crate) fn behind_watch() -> Backoff {
            Backoff(if several_cores() { Self::SPINS } else { Self::SPINS + Self::RESTS })
        }

        /// Waits a moment. False when it has been tried often enough, and it is time to sleep.
        pub(crate) fn pause(&mut self) -> bool {
            match self.0 {
                0 if !several_cores() => return false,
                step if step < Self::SPINS => (0..1 << step).for_each(|_| spin()),
                step if step < Self::SPINS + Self::RESTS => thread::yield_now(),
                _ => return false,
            }
            self.0 += 1;
            true
        }
    }

    /// Returns true if the first thread that called this could use several cores. No thread waits
    /// for the first one.
    fn several_cores() -> bool {
        const ONE: u8 = 1;
        const SEVERAL: u8 = 2;
        static CORES: AtomicU8 = AtomicU8::new(0);
        match CORES.load(Ordering::Relaxed) {
            0 => {
                let several = thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
                let cores = if several { SEVERAL } else { ONE };
                // The first of several threads decides.
                let decided =
                    CORES.compare_exchange(0, cores, Ordering::Relaxed, Ordering::Relaxed);
                decided.err().unwrap_or(cores) == SEVERAL
            }
            cores => cores == SEVERAL,
        }
    }
}

#[cfg(all(loom, test))]
mod model {
    use loom::thread;

    pub(crate) fn wait_briefly(_: u32, mut is_over: impl FnMut() -> bool) -> bool {
        is_over()
    }

    pub(crate) fn pause(_: u32) {}

    pub(crate) fn watch(_: u64, is_over: impl Fn() -> bool) -> bool {
        is_over()
    }

    pub(crate) fn yield_to_others() {
        thread::yield_now();
    }

    pub(crate) fn rest(_: std::time::Duration) {
        thread::yield_now();
    }

    /// A wait without pauses, because the models test sleeps.
    pub(crate) struct Backoff;

    impl Backoff {
        pub(crate) fn new() -> Backoff {
            Backoff
        }

        pub(crate) fn behind_watch() -> Backoff {
            Backoff
        }

        pub(crate) fn pause(&mut self) -> bool {
            false
        }
    }
}

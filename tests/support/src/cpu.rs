//! CPU time of this thread, which is independent of the load of the machine.
use std::time::Duration;

/// Returns the CPU time of this thread.
#[allow(unsafe_code)]
pub fn thread_cpu_time() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid place for the one timespec that the call writes.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    assert_eq!(result, 0);
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

/// Returns the result of `f`, and the CPU time of the call.
pub fn timed<R>(f: impl FnOnce() -> R) -> (R, Duration) {
    let start = thread_cpu_time();
    let result = f();
    (result, thread_cpu_time() - start)
}

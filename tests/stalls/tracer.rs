//! Stops one thread of another process at random instructions.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollmux::Time;

use crate::places::Stack;
use crate::watch::Random;

/// A stopped thread is stepped by at most so many instructions, from where the interrupt found it.
const STEPS: u64 = 400;
/// An instruction that takes longer is a syscall that blocks.
const STEP: Duration = Duration::from_millis(20);
/// A thread that cannot be stopped for so long hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time in which a thread stood still, and the place.
pub struct Stop {
    pub begin: u64,
    pub end: u64,
    pub stack: Stack,
}

/// A traced thread. All calls must come from the thread that made this.
pub struct Tracee {
    process: u32,
    thread: Pid,
    stopped: bool,
    random: Random,
}

/// The thread has ended, or its process.
#[derive(Debug)]
pub struct Gone;

impl Tracee {
    /// Begins to trace a thread, which runs on. Fails where that is not allowed.
    pub fn seize(process: u32, thread: i32, seed: u64) -> Result<Tracee, Errno> {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, Options::PTRACE_O_EXITKILL)?;
        Ok(Tracee { process, thread, stopped: false, random: Random::new(seed) })
    }

    /// Waits until the thread has stopped. Returns false if it runs on for `limit`.
    fn await_stop(&mut self, limit: Duration) -> Result<bool, Gone> {
        let begin = Instant::now();
        let mut looks = 0;
        loop {
            match waitpid(self.thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..)) => {
                    self.stopped = true;
                    return Ok(true);
                }
                // A signal of its own: it gets the signal.
                Ok(WaitStatus::Stopped(_, signal)) => {
                    ptrace::cont(self.thread, signal).map_err(|_| Gone)?;
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                _ => return Err(Gone),
            }
            if begin.elapsed() >= limit {
                return Ok(false);
            }
            looks += 1;
            match looks {
                0..100 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn interrupt(&mut self) -> Result<(), Gone> {
        ptrace::interrupt(self.thread).map_err(|_| Gone)?;
        if self.await_stop(PATIENCE)? { Ok(()) } else { Err(Gone) }
    }

    fn go_on(&mut self) -> Result<(), Gone> {
        self.stopped = false;
        ptrace::cont(self.thread, None).map_err(|_| Gone)
    }

    /// Lets the thread run for `d`.
    pub fn run(&mut self, d: Duration) -> Result<(), Gone> {
        let end = Instant::now() + d;
        if self.stopped {
            self.go_on()?;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // An interrupt that came too late for its step stops the thread once more.
            if self.await_stop(left.min(Duration::from_millis(2)))? {
                self.go_on()?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Lets the thread run for some ms, stops it somewhere, and holds it for `d`.
    pub fn stop_somewhere(&mut self, d: Duration) -> Result<Stop, Gone> {
        let run = Duration::from_micros(2_000 + self.random.below(4_000));
        self.run(run)?;
        self.interrupt()?;
        for _ in 0..self.random.below(STEPS) {
            self.stopped = false;
            ptrace::step(self.thread, None).map_err(|_| Gone)?;
            if !self.await_stop(STEP)? {
                self.interrupt()?;
                break;
            }
        }
        let begin = Time::now().as_nanos();
        let stack = Stack::of(self.process, self.thread);
        std::thread::sleep(d);
        let end = Time::now().as_nanos();
        self.go_on()?;
        Ok(Stop { begin, end, stack })
    }

    /// Ends the tracing.
    pub fn release(mut self) -> Result<(), Gone> {
        self.run(Duration::from_millis(20))?;
        self.interrupt()?;
        ptrace::detach(self.thread, None).map_err(|_| Gone)
    }
}

//! Stops one thread of another process at random instructions.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollmux::Time;

use crate::stalls::places::{Stack, pointers, words};
use support::Random;

/// The limits of the steps inside a send. A limit is chosen at random.
const STEPS: [u64; 3] = [60, 400, 2000];
/// The limit of all steps, with those between two sends.
const ALL_STEPS: u64 = 5_000;
/// The part of the stack that is searched for a send, in bytes.
const DEPTH: usize = 96 << 10;
/// The return address of a send is in this many bytes of `sending`.
const LENGTH: usize = 256;
/// An instruction that takes longer is a syscall that blocks.
const STEP: Duration = Duration::from_millis(20);
/// A thread that begins no send for this long is blocked.
const SEND: Duration = Duration::from_millis(20);
/// The call in `sending` is among this many instructions. Code without optimisation has more.
const PROLOGUE: u64 = 64;
/// A thread that cannot be stopped for this long hangs in the kernel.
const PATIENCE: Duration = Duration::from_secs(300);

/// The time and the place of a stop.
pub struct Stop {
    pub begin: u64,
    pub end: u64,
    pub stack: Stack,
    /// True if the thread was sending; `None` where that cannot be known.
    pub sending: Option<bool>,
}

/// A traced thread. All calls must come from the thread that made this.
pub struct Tracee {
    process: u32,
    thread: Pid,
    /// The memory of the process, and the address of `sending`.
    memory: Option<File>,
    sending: usize,
    /// The place of the return address into `sending`, which is the same in each send.
    frame: Option<u64>,
    stopped: bool,
    random: Random,
}

/// The thread or its process has ended.
#[derive(Debug)]
pub struct Gone;

impl Tracee {
    /// Starts to trace a thread, which keeps running. Fails where tracing is not allowed.
    ///
    /// The thread is in a send while a return address in the function at `sending` is on its stack.
    pub fn seize(process: u32, thread: i32, sending: usize, seed: u64) -> nix::Result<Tracee> {
        let thread = Pid::from_raw(thread);
        ptrace::seize(thread, Options::PTRACE_O_EXITKILL)?;
        let memory = File::open(format!("/proc/{process}/mem")).ok();
        let random = Random::new(seed);
        Ok(Tracee { process, thread, memory, sending, frame: None, stopped: false, random })
    }

    /// Waits until the thread has stopped. Returns false if the thread runs for `limit`.
    fn await_stop(&mut self, limit: Duration) -> Result<bool, Gone> {
        let begin = Instant::now();
        let mut looks = 0;
        loop {
            match waitpid(self.thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..)) => {
                    self.stopped = true;
                    return Ok(true);
                }
                // Pass the thread's own signal on.
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

    /// Returns true if the stopped thread is inside a send.
    fn is_sending(&mut self) -> Option<bool> {
        let (_, stack) = pointers(self.thread)?;
        let memory = self.memory.as_ref()?;
        let code = self.sending as u64..(self.sending + LENGTH) as u64;
        if let Some(at) = self.frame {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, at).ok()?;
            return Some(stack <= at && code.contains(&u64::from_ne_bytes(word)));
        }
        let mut bytes = vec![0; DEPTH];
        let len = memory.read_at(&mut bytes, stack).ok()?;
        let found = words(&bytes[..len]).position(|word| code.contains(&word));
        self.frame = found.map(|index| stack + 8 * index as u64);
        Some(found.is_some())
    }

    fn resume(&mut self) -> Result<(), Gone> {
        self.stopped = false;
        ptrace::cont(self.thread, None).map_err(|_| Gone)
    }

    /// Lets the thread run for `d`.
    pub fn run(&mut self, d: Duration) -> Result<(), Gone> {
        let end = Instant::now() + d;
        if self.stopped {
            self.resume()?;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // An interrupt that came too late for its step stops the thread once more.
            if self.await_stop(left.min(Duration::from_millis(2)))? {
                self.resume()?;
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }

    /// Sets or removes a breakpoint of the processor at the beginning of `sending`. Other threads
    /// do not see this breakpoint. Returns false where breakpoints cannot be set.
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn set_breakpoint(&self, set: bool) -> bool {
        let at = |register: usize| {
            let register = std::mem::offset_of!(libc::user, u_debugreg) + 8 * register;
            register as nix::sys::ptrace::AddressType
        };
        let address = if set { self.sending as i64 } else { 0 };
        let write = |register, value| ptrace::write_user(self.thread, at(register), value).is_ok();
        // Disable, set the address, and enable: bit 0 enables the first breakpoint, of an
        // instruction.
        write(7, 0) && write(0, address) && (!set || write(7, 1))
    }

    #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
    fn set_breakpoint(&self, _: bool) -> bool {
        false
    }

    /// Resumes a thread that has stopped outside a send, and stops it at the begin of its next
    /// send. Without breakpoints the thread runs for one instruction. Returns false if the thread
    /// begins no send.
    fn advance(&mut self) -> Result<bool, Gone> {
        if !self.set_breakpoint(true) {
            return self.step();
        }
        self.resume()?;
        let arrived = self.await_stop(SEND)?;
        if !arrived {
            self.interrupt()?;
        }
        self.set_breakpoint(false);
        // Step from the first instruction of `sending` to the call in it.
        for _ in 0..PROLOGUE {
            if !arrived || self.is_sending() != Some(false) {
                break;
            }
            if !self.step()? {
                return Ok(false);
            }
        }
        Ok(arrived)
    }

    /// Lets the thread run for one instruction. Returns false if that is a blocking syscall.
    fn step(&mut self) -> Result<bool, Gone> {
        self.stopped = false;
        ptrace::step(self.thread, None).map_err(|_| Gone)?;
        let stepped = self.await_stop(STEP)?;
        if !stepped {
            self.interrupt()?;
        }
        Ok(stepped)
    }

    /// Lets the thread run for some ms, stops it at a random place, and holds it for `d`.
    pub fn stop_somewhere(&mut self, d: Duration) -> Result<Stop, Gone> {
        let run = Duration::from_micros(2_000 + self.random.below(4_000));
        self.run(run)?;
        self.interrupt()?;
        let most = STEPS[self.random.below(3) as usize];
        let mut steps = self.random.below(most);
        for _ in 0..ALL_STEPS {
            let continues = if self.is_sending() == Some(false) {
                self.advance()?
            } else if steps == 0 {
                break;
            } else {
                steps -= 1;
                self.step()?
            };
            if !continues {
                break;
            }
        }
        let sending = self.is_sending();
        let begin = Time::now().as_nanos();
        let stack = Stack::of(self.process, self.thread);
        std::thread::sleep(d);
        let end = Time::now().as_nanos();
        self.resume()?;
        Ok(Stop { begin, end, stack, sending })
    }

    /// Ends the tracing.
    pub fn release(mut self) -> Result<(), Gone> {
        self.run(Duration::from_millis(20))?;
        self.interrupt()?;
        ptrace::detach(self.thread, None).map_err(|_| Gone)
    }
}

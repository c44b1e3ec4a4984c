//! Syscalls that fail on request.
//!
//! A seccomp filter asks another thread of this process about each syscall of the tested thread and
//! of the threads that it starts. The other thread counts the calls, and makes some of them fail.
//! The filter needs no privileges, and ends with the tested thread.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::{io, mem, thread};

/// The failure of some calls of a syscall.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The number of the syscall: `libc::SYS_epoll_ctl`.
    pub call: libc::c_long,
    /// The error that the calls get.
    pub errno: i32,
    /// The number of the first call that fails, from 1.
    pub first: u64,
    /// The number of calls in a row that fail.
    pub times: u64,
}

/// The syscalls of the tested thread.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Calls>);

#[derive(Debug, Default)]
struct Calls {
    faults: Vec<Fault>,
    counted: BTreeMap<libc::c_long, u64>,
    failed: u64,
}

impl Faults {
    /// Runs `f` on a thread whose syscalls have these faults. Fails if the kernel has no such
    /// filters.
    pub fn run<R: Send>(faults: &[Fault], f: impl FnOnce(&Faults) -> R + Send) -> io::Result<R> {
        let faults = Faults(Mutex::new(Calls { faults: faults.to_vec(), ..Calls::default() }));
        let (ask, asked) = channel::<OwnedFd>();
        thread::scope(|scope| {
            scope.spawn(|| faults.answer(asked));
            let tested = || -> io::Result<R> {
                ask.send(install()?).expect("the thread that answers");
                drop(ask);
                Ok(f(&faults))
            };
            scope.spawn(tested).join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Removes all faults.
    pub fn stop(&self) {
        self.calls().faults.clear();
    }

    /// Returns the number of calls of each syscall, by its number.
    pub fn counted(&self) -> BTreeMap<libc::c_long, u64> {
        self.calls().counted.clone()
    }

    /// Returns the number of calls that have failed because of a fault.
    pub fn failed(&self) -> u64 {
        self.calls().failed
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the error of this call, or 0.
    fn decide(&self, data: &libc::seccomp_data) -> i32 {
        let call = libc::c_long::from(data.nr);
        if [libc::SYS_read, libc::SYS_write].contains(&call) && is_std(data.args[0]) {
            return 0;
        }
        let mut calls = self.calls();
        let n = calls.counted.entry(call).or_default();
        *n += 1;
        let n = *n;
        let fails = |fault: &&Fault| {
            fault.call == call && n.checked_sub(fault.first).is_some_and(|nth| nth < fault.times)
        };
        let errno = calls.faults.iter().find(fails).map_or(0, |fault| fault.errno);
        calls.failed += u64::from(errno != 0);
        errno
    }

    /// Answers the filter until no thread has the filter.
    #[allow(unsafe_code)]
    fn answer(&self, asked: Receiver<OwnedFd>) {
        let Ok(listener) = asked.recv() else { return };
        while is_asked(listener.as_raw_fd()) {
            // SAFETY: the struct has only numbers, for which zero is a value.
            let mut asks: libc::seccomp_notif = unsafe { mem::zeroed() };
            let (fd, receive) = (listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV);
            // SAFETY: `asks` is a valid place, all zero, for what the call writes.
            if unsafe { libc::ioctl(fd, receive, &raw mut asks) } != 0 {
                continue; // that call was interrupted
            }
            let error = self.decide(&asks.data);
            let mut answer = libc::seccomp_notif_resp {
                id: asks.id,
                val: 0,
                error: -error,
                flags: if error == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 },
            };
            // SAFETY: `answer` is valid for the length of the call. The kernel ignores an answer to
            // a call that was interrupted meanwhile.
            unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
        }
    }
}

/// Returns true for fds that belong to the standard library, which reads the limits of the process
/// and prints panics.
fn is_std(fd: u64) -> bool {
    let name = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    fd <= 2 || name.is_ok_and(|name| name.is_absolute())
}

/// Waits for a question of the filter. Returns false if no more can come.
#[allow(unsafe_code)]
fn is_asked(listener: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: listener, events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is valid for the length of the call.
    unsafe { libc::poll(&mut poll, 1, -1) };
    poll.revents & (libc::POLLHUP | libc::POLLERR) == 0
}

/// Calls that the filter allows: of threads, memory, locks and sockets, and calls that cannot fail.
const FREE: &[libc::c_long] = &[
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_recvfrom,
    libc::SYS_rseq,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_socketpair,
    libc::SYS_tgkill,
    // A question about this call would have no answer: the other thread gets the listener only
    // afterwards.
    libc::SYS_seccomp,
];

/// Makes the filter ask about every other syscall of this thread.
#[allow(unsafe_code)]
fn install() -> io::Result<OwnedFd> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = mem::offset_of!(libc::seccomp_data, nr) as u32;
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number)];
    for &call in FREE {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let [none, one] = [0, 1 as libc::c_ulong];
    // SAFETY: the call takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: `filter` and its program are valid for the length of the call, which copies them.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const filter) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned the fd, and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

//! Turns the arguments into a seccomp filter, and runs the command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{io, mem};

/// The syscalls that can be refused, by their names in libc.
macro_rules! named {
    ($($constant:ident)*) => { &[$((stringify!($constant), libc::$constant)),*] };
}
const SYSCALLS: &[(&str, libc::c_long)] = named! {
    SYS_clock_gettime SYS_close_range SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_epoll_pwait2
    SYS_eventfd2 SYS_futex SYS_getpriority SYS_membarrier SYS_memfd_create SYS_pidfd_open SYS_pipe2
    SYS_ppoll SYS_prctl SYS_rseq SYS_sched_yield SYS_signalfd4 SYS_statx SYS_timerfd_create
    SYS_timerfd_gettime SYS_timerfd_settime
};

/// Syscalls that libc has for some architectures only, or not yet.
const MORE: &[(&str, libc::c_long)] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
    ("SYS_epoll_wait", libc::SYS_epoll_wait),
    #[cfg(any(target_arch = "x86_64", target_arch = "x86", target_arch = "arm"))]
    ("SYS_poll", libc::SYS_poll),
    #[cfg(all(target_pointer_width = "32", not(target_arch = "mips")))]
    ("SYS_clock_gettime64", 403),
    #[cfg(all(target_pointer_width = "32", not(target_arch = "mips")))]
    ("SYS_timerfd_settime64", 411),
];

const ERRORS: &[(&str, i32)] = &[
    ("EPERM", libc::EPERM),
    ("ENOSYS", libc::ENOSYS),
    ("EACCES", libc::EACCES),
    ("EINTR", libc::EINTR),
    ("EINVAL", libc::EINVAL),
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("ENOMEM", libc::ENOMEM),
    ("ENOSPC", libc::ENOSPC),
];

/// `AUDIT_ARCH_*` of linux/audit.h, for the architecture of this build.
const ARCHITECTURE: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else if cfg!(target_arch = "x86") {
    0x4000_0003
} else if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else if cfg!(target_arch = "arm") {
    0x4000_0028
} else if cfg!(target_arch = "riscv64") {
    0xc000_00f3
} else {
    0
};

/// Becomes the command, without the syscalls. Returns only on an error.
pub(crate) fn run(arguments: &[OsString]) -> String {
    let split = arguments.iter().position(|argument| argument == "--");
    let (refused, command) = match split.map(|at| (&arguments[..at], &arguments[at + 1..])) {
        Some((refused, [program, rest @ ..])) if !refused.is_empty() => (refused, (program, rest)),
        _ => return "usage: refuse SYSCALL[=ERROR].. -- COMMAND..".into(),
    };
    let refused = match refused.iter().map(|argument| parse(&argument.to_string_lossy())).collect()
    {
        Ok(refused) => refused,
        Err(error) => return error,
    };
    if let Err(error) = install(program(refused)) {
        return format!("the kernel takes no filter: {error}");
    }
    let (program, rest) = command;
    let error = Command::new(program).args(rest).exec();
    format!("{}: {error}", program.to_string_lossy())
}

/// Parses the number of a syscall, and its error.
fn parse(argument: &str) -> Result<(u32, i32), String> {
    let (name, error) = argument.split_once('=').unwrap_or((argument, "ENOSYS"));
    let all = SYSCALLS.iter().chain(MORE);
    let number = all.clone().find(|(known, _)| known.strip_prefix("SYS_") == Some(name));
    let Some((_, number)) = number else {
        let known: Vec<_> = all.map(|(known, _)| known.trim_start_matches("SYS_")).collect();
        return Err(format!("{name} is no known syscall; the known ones are: {}", known.join(" ")));
    };
    let error = match ERRORS.iter().find(|(known, _)| *known == error) {
        Some((_, number)) => *number,
        None => match error.parse() {
            Ok(number @ 1..4096) => number,
            _ => return Err(format!("{error} is no known error, nor a number of an error")),
        },
    };
    Ok((*number as u32, error))
}

fn step(code: u32, jump_true: u8, jump_false: u8, operand: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k: operand }
}

fn program(refused: Vec<(u32, i32)>) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let mut program = Vec::new();
    if ARCHITECTURE != 0 {
        program.push(step(LOAD, 0, 0, mem::offset_of!(libc::seccomp_data, arch) as u32));
        program.push(step(IF_EQUAL, 1, 0, ARCHITECTURE));
        program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(LOAD, 0, 0, mem::offset_of!(libc::seccomp_data, nr) as u32));
    for (number, error) in refused {
        program.push(step(IF_EQUAL, 0, 1, number));
        program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    }
    program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    program
}

/// Makes `program` the filter of this thread, which is the only one, and of the programs that it
/// executes.
fn install(mut program: Vec<libc::sock_filter>) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let [none, one] = [0, 1 as libc::c_ulong];
    // SAFETY: the call takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, none, none, none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: `filter` and its program are valid for the length of the call, which copies them.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

//! Runs a command in which some syscalls fail: `refuse membarrier=EPERM pidfd_open -- cargo test`.
//!
//! Each argument before `--` is the name of a syscall, with the error that it shall have. Without
//! one the error is `ENOSYS`, as on a kernel that lacks the call. The rest is the command. The
//! refusal holds for the command and all of its children, and for nothing else on the machine: it
//! is a seccomp filter.
//!
//! Needs no privileges, and Linux with seccomp. Programs of another architecture than this one's,
//! for instance 32-bit ones, are not held up: build it for theirs.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod filter;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let error = filter::run(&arguments);
    eprintln!("refuse: {error}");
    ExitCode::from(2)
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("refuse: only Linux can refuse syscalls");
    ExitCode::from(2)
}

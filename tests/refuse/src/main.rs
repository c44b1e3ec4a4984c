//! Runs a command in which some syscalls fail: `refuse membarrier=EPERM pidfd_open -- cargo test`.
//!
//! Each argument before `--` names a syscall and its error. Without an error it is `ENOSYS`, as on
//! a kernel without the syscall. The other arguments are the command. The refusal is a seccomp
//! filter. The filter affects only the command and its children.
//!
//! The program needs no privileges, but Linux with seccomp. The filter does not affect programs of
//! another architecture, for instance 32-bit programs. For these, build `refuse` for their
//! architecture.

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

//! A command under `refuse` gets the requested errors, and no others.
#![cfg(target_os = "linux")]

use std::io;
use std::process::{Command, Output};

/// Runs the test `probe` of this file under the refusal of `syscalls`.
fn refuse(syscalls: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_refuse"));
    command.args(syscalls).arg("--").arg(std::env::current_exe().unwrap());
    command.args(["--exact", "probe", "--ignored", "--nocapture"]).output().unwrap()
}

fn probed(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.split_once("probed: ")).expect("no probe").1.to_string()
}

/// Returns the error of a syscall with wrong arguments. The syscall itself does nothing.
fn error_of(number: libc::c_long) -> String {
    // SAFETY: the arguments are a bad command, clock, fd or pid for each of these syscalls.
    let result = unsafe { libc::syscall(number, -1, -1, 0, 0, 0, 0) };
    let error = io::Error::last_os_error().raw_os_error();
    match error.filter(|_| result == -1) {
        Some(libc::ENOSYS) => "ENOSYS".into(),
        Some(libc::EPERM) => "EPERM".into(),
        Some(error) => format!("{error}"),
        None => "no error".into(),
    }
}

#[test]
#[ignore = "the other tests run it in a child"]
fn probe() {
    let calls = [libc::SYS_membarrier, libc::SYS_pidfd_open, libc::SYS_timerfd_create];
    println!("probed: {}", calls.map(error_of).join(" "));
}

#[test]
fn each_syscall_fails_as_requested() {
    let invalid = libc::EINVAL.to_string();
    let untouched = format!("{invalid} {invalid} {invalid}");
    assert_eq!(probed(refuse(&["statx"])), untouched);
    assert_eq!(probed(refuse(&["membarrier"])), format!("ENOSYS {invalid} {invalid}"));
    assert_eq!(probed(refuse(&["pidfd_open=EPERM"])), format!("{invalid} EPERM {invalid}"));
    let all = ["membarrier=EPERM", "timerfd_create=71", "pidfd_open=ENOSYS"];
    assert_eq!(probed(refuse(&all)), "EPERM ENOSYS 71");
}

#[test]
fn wrong_arguments_run_no_command() {
    for (wrong, names) in
        [("membarier", "membarier"), ("membarrier=ENOSYST", "ENOSYST"), ("statx=0", "0")]
    {
        let output = refuse(&[wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(names), "{text}");
    }
    assert_eq!(refuse(&[]).status.code(), Some(2));
}

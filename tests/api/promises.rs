//! Each promise of docs/PROMISES.md is a test here. `cargo test --test api -- promises --nocapture`
//! lists each promise with its tests, and runs those of this binary in a child process.
//!
//! A full run of the suite runs these tests directly, so a promise then only checks its section.
//! `tests/examples/documents.rs` checks that the tests exist.

use std::fmt::Write;
use std::process::Stdio;

use support::{again, sections, spawn, watchdog};

const DOCUMENT: &str = include_str!("../../docs/PROMISES.md");

macro_rules! promises {
    ($($name:ident: $heading:literal,)*) => {
        $(#[test] fn $name() { holds($heading) })*
        const HEADINGS: &[&str] = &[$($heading),*];
    };
}

promises! {
    never_early: "Never early",
    bounded_lateness: "Bounded lateness",
    no_stale_value: "No stale value",
    ticks_are_not_lost: "Ticks are not lost",
    no_lost_wake_up: "No lost wake-up",
    each_message_once_in_order: "Each message once, in order",
    a_stopped_sender_blocks_no_loop: "A stopped sender blocks no loop",
    quiet_when_idle: "Quiet when idle",
    no_allocation_and_no_syscall: "No allocation and no syscall on the hot paths",
    no_leak: "No leak",
    bounded_memory: "Bounded memory",
    values_are_dropped_once: "Values are dropped once",
    panics: "Panics",
    failing_drivers: "Failing drivers",
    failing_system_calls: "Failing system calls",
    forks: "Forks",
    sources_that_outlive_their_reactor: "Sources that outlive their reactor",
}

#[test]
fn each_promise_is_a_test() {
    let headings: Vec<_> = sections(DOCUMENT).into_iter().map(|(heading, _)| heading).collect();
    assert_eq!(headings, HEADINGS);
}

/// The name of a test in this binary, or the command that runs a test of another binary.
fn place(test: &str) -> Result<String, String> {
    let (path, name) = test.split_once(".rs::").expect("a file and a test");
    match path.split_once('/').expect("a folder") {
        ("api", module) => Ok(format!("{module}::{name}")),
        ("src", file) if file.ends_with("models") => {
            Err(format!("RUSTFLAGS=\"--cfg loom\" cargo test --release --lib -- {name}"))
        }
        ("src", _) => Err(format!("cargo test --lib -- {name}")),
        (binary, _) => Err(format!("cargo test --test {binary} -- {name}")),
    }
}

fn holds(heading: &str) {
    let sections = sections(DOCUMENT);
    let section = sections.iter().find(|(other, _)| *other == heading);
    let (_, tests) = section.unwrap_or_else(|| panic!("docs/PROMISES.md has no \"{heading}\""));
    assert!(!tests.is_empty(), "no test holds \"{heading}\"");
    if !std::env::args().skip(1).any(|word| word.starts_with("promises")) {
        return;
    }
    let (mut list, mut own) = (format!("\n{heading}\n"), Vec::new());
    for test in tests {
        match place(test) {
            Ok(name) => own.push(name),
            Err(command) => writeln!(list, "  {test}\n    {command}").expect("a string"),
        }
    }
    if let Some((first, others)) = own.split_first() {
        let _watchdog = watchdog();
        let mut command = again(first);
        command.args(others).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn(&mut command).wait_with_output().expect("the child process runs");
        let out = String::from_utf8_lossy(&child.stdout);
        let err = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "\"{heading}\" does not hold:\n{out}\n{err}");
        for name in &own {
            // Some tests exist for one backend only.
            let ran = out.contains(&format!("test {name} ... "));
            writeln!(list, "  {}  {name}", if ran { "ok" } else { "--" }).expect("a string");
        }
        assert!(list.contains("  ok  "), "no test of \"{heading}\" ran:\n{list}");
    }
    print!("{list}");
}

//! Tests of the example `supervisor`: the program, and its pauses.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::program::Program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{ms, secs};

/// Runs the supervisor until it ends. Returns the printed lines, without the ids of processes, and
/// the exit code.
fn supervise(args: &[&str]) -> (Vec<String>, Option<i32>) {
    let mut program = Program::start("supervisor", args);
    let mut lines = program.rest();
    lines.retain(|line| !line.contains(": process "));
    (lines, program.wait().code())
}

/// A supervised program that prints `up`, and runs `trap` when a signal comes.
struct Waiting {
    program: Program,
    process: Pid,
}

impl Waiting {
    fn start(args: &[&str], trap: &str) -> Waiting {
        let line = format!("trap '{trap}' TERM; echo up; while :; do sleep 0.01; done");
        let mut program = Program::start("supervisor", &[args, &[&line]].concat());
        let first = program.line();
        let id = first.strip_prefix("0: process ").expect("the process");
        assert_eq!(program.line(), "0 | up");
        Waiting { program, process: Pid::from_raw(id.parse().unwrap()) }
    }
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn output_comes_in_lines_before_a_good_end() {
    let (mut lines, code) =
        supervise(&["echo one; echo two >&2; printf three", "printf a; echo b; exit 0"]);
    lines.sort();
    let expected =
        ["0 ! two", "0 | one", "0 | three", "0: exit status: 0", "1 | ab", "1: exit status: 0"];
    assert_eq!((lines, code), (expected.map(String::from).into(), Some(0)));
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn much_output_is_complete_before_the_end() {
    let (lines, code) = supervise(&["i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"]);
    let expected = (0..20_000).map(|i| format!("0 | {i}"));
    assert!(lines.iter().cloned().eq(expected.chain(["0: exit status: 0".into()])));
    assert_eq!(code, Some(0));
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn failed_programs_restart_after_doubling_pauses() {
    let args = ["--backoff", "10ms", "--most", "40ms", "--stable", "9999s", "--retries", "4"];
    let (lines, code) = supervise(&[&args[..], &["echo run; exit 3"]].concat());
    let pauses = ["again in 10ms", "again in 20ms", "again in 40ms", "again in 40ms", "given up"];
    let expected: Vec<String> = pauses
        .iter()
        .flat_map(|then| ["0 | run".into(), format!("0: exit status: 3, {then}")])
        .collect();
    assert_eq!((lines, code), (expected, Some(1)));
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn giving_a_program_up_stops_the_others() {
    let args = ["--retries", "0", "--grace", "9999s"];
    let (lines, code) = supervise(&[&args[..], &["exec sleep 9999", "exit 1"]].concat());
    let last = "0: signal: 15 (SIGTERM)".to_string();
    assert_eq!((lines, code), (vec!["1: exit status: 1, given up".into(), last], Some(1)));
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn a_signal_terminates_the_programs() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut waiting = Waiting::start(&["--grace", "9999s"], "echo bye; exit 7");
        waiting.program.signal(signal);
        let expected = [&format!("{signal}: good-bye"), "0 | bye", "0: exit status: 7"];
        assert_eq!(waiting.program.rest(), expected, "the supervisor started the program again");
        assert_eq!(waiting.program.wait().code(), Some(0));
    }
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn a_remaining_program_is_killed_after_the_grace() {
    let mut waiting = Waiting::start(&["--grace", "100ms"], "echo no");
    waiting.program.signal(Signal::SIGTERM);
    let mut lines = waiting.program.rest();
    lines.retain(|line| line != "0 | no"); // on a busy machine this line may be missing
    assert_eq!(lines, ["SIGTERM: good-bye", "0: signal: 9 (SIGKILL)"]);
    assert_eq!(waiting.program.wait().code(), Some(1));
    assert!(kill(waiting.process, None).is_err(), "the process still runs");
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn a_signal_ends_a_pause() {
    let mut program =
        Program::start("supervisor", &["--backoff", "9999s", "--most", "9999s", "exit 1"]);
    assert!(program.line().starts_with("0: process "));
    assert_eq!(program.line(), "0: exit status: 1, again in 9999s");
    program.signal(Signal::SIGTERM);
    assert_eq!(program.rest(), ["SIGTERM: good-bye"]);
    assert_eq!(program.wait().code(), Some(0));
}

#[cfg_attr(flat, ignore = "this build cannot wait for processes")]
#[test]
fn the_supervisor_ignores_children_of_a_program() {
    let (lines, code) = supervise(&["sleep 9999 & echo $!; printf end"]);
    let child = lines[0].strip_prefix("0 | ").expect("the child of the program");
    let child = Pid::from_raw(child.parse().unwrap());
    assert!(kill(child, Signal::SIGKILL).is_ok(), "the child does not run any more");
    assert_eq!(lines[1..], ["0 | end", "0: exit status: 0"]);
    assert_eq!(code, Some(0));
}

#[test]
fn pauses_double_up_to_a_bound() {
    let mut backoff = Backoff::new(ms(100), secs(1), secs(60));
    let mut pauses = |ran: &[Duration]| -> Vec<u128> {
        ran.iter().map(|&ran| backoff.next(ran).as_millis()).collect()
    };
    assert_eq!(pauses(&[ms(1); 6]), [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!(pauses(&[secs(60), secs(59)]), [100, 200], "a stable run must reset the pause");
    assert_eq!(pauses(&[ms(1); 100])[99], 1_000);
    assert_eq!(backoff.failures(), 102);
    assert_eq!(Backoff::new(Duration::MAX, Duration::MAX, secs(1)).next(ms(1)), Duration::MAX);
}

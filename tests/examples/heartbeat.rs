//! Tests of the programs `heartbeat`, `hotpath`, `raft` and `sim_world`: their output, and their
//! messages for wrong arguments.
//!
//! A line of `heartbeat` may never come before its time. On an idle machine a line is a millisecond
//! or two late. Other tests run at the same time, so up to [`LATE_MS`] are accepted. A test repeats
//! a run whose lines came later or in another order, until [`TIMEOUT`] is over.
//!
//! `cargo test` builds the examples first. If this file runs alone, [`example`] builds an example
//! that is missing or older than its sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

const LATE_MS: u64 = 250;
const TIMEOUT: Duration = Duration::from_secs(120);

/// Returns the path of an example's program, next to the folder of this test's program. Builds the
/// program if it is missing or old.
pub fn example(name: &str) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::env::current_exe().expect("the test's own path");
    let profile = this.parent().and_then(Path::parent).expect("target/profile/deps/test");
    let program = profile.join("examples").join(name);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = package.join("examples");
    let sources = [
        package.join("src"),
        examples.join("common"),
        examples.join(name),
        examples.join(format!("{name}.rs")),
    ];
    let newest = sources.iter().filter_map(|path| last_change(path)).max();
    if last_change(&program).is_none_or(|built| newest.is_some_and(|newest| newest > built)) {
        let profile_name = match profile.file_name().and_then(|name| name.to_str()) {
            None | Some("debug") => "dev",
            Some(name) => name,
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--example", name, "--profile", profile_name, "--target-dir"])
            .arg(profile.parent().expect("target/profile"))
            .current_dir(package)
            .stdin(Stdio::null())
            .output()
            .expect("cargo");
        assert!(
            built.status.success(),
            "{name} was not built: {}",
            String::from_utf8_lossy(&built.stderr)
        );
    }
    assert!(program.is_file(), "{} is missing", program.display());
    program
}

/// Returns the time of the last change of a file, or of the newest file in a folder.
fn last_change(path: &Path) -> Option<SystemTime> {
    if path.is_dir() {
        fs::read_dir(path).ok()?.filter_map(|entry| last_change(&entry.ok()?.path())).max()
    } else {
        fs::metadata(path).ok()?.modified().ok()
    }
}

pub fn run(name: &str, args: &[&str]) -> Output {
    Command::new(example(name)).args(args).stdin(Stdio::null()).output().expect("the example runs")
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Parses `   200 ms  event`: a number right-aligned in six columns, ` ms  `, and a text.
fn parse(line: &str) -> Option<(u64, &str)> {
    let (number, text) = line.split_once(" ms  ")?;
    let ms: u64 = number.trim_start().parse().ok()?;
    (format!("{ms:>6} ms  {text}") == line).then_some((ms, text))
}

/// Runs `heartbeat`, and asserts that the program prints exactly `expected`, and no line early.
fn prints(args: &[&str], expected: &[(u64, &str)]) {
    let begin = Instant::now();
    let mut last = String::new();
    while begin.elapsed() < TIMEOUT {
        let output = run("heartbeat", args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
        let lines: Vec<(u64, &str)> = stdout
            .lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} has a wrong format")))
            .collect();
        assert!(stdout.ends_with('\n'));
        let names =
            |lines: &[(u64, &str)]| lines.iter().map(|line| line.1.to_string()).collect::<Vec<_>>();
        if names(&lines) == names(expected) {
            let pairs = || lines.iter().zip(expected);
            for (&(ms, text), &(due, _)) in pairs() {
                assert!(ms >= due, "{text}, due at {due} ms, came at {ms} ms:\n{stdout}");
            }
            if pairs().all(|((ms, _), (due, _))| *ms <= due + LATE_MS) {
                return;
            }
        }
        last = stdout;
    }
    panic!(
        "{args:?}: no run in {TIMEOUT:?} printed {expected:?} in time; the last run \
         printed\n{last}"
    );
}

#[test]
fn heartbeat_prints_the_lines_of_the_readme() {
    prints(&[], &[(200, "event"), (600, "event"), (1600, "heartbeat"), (2600, "heartbeat")]);
}

#[test]
fn the_interval_and_events_set_the_times() {
    prints(
        &["--interval", "100ms", "--events", "20ms,60ms", "--beats", "2"],
        &[(20, "event"), (60, "event"), (160, "heartbeat"), (260, "heartbeat")],
    );
}

#[test]
fn events_have_any_order_and_any_unit() {
    prints(
        &["--interval=100000us", "--events=60000000ns,20ms", "--beats=1"],
        &[(20, "event"), (60, "event"), (160, "heartbeat")],
    );
}

#[test]
fn more_beats_stay_on_the_grid() {
    prints(
        &["--interval", "100ms", "--events", "0ms", "--beats", "5"],
        &[
            (0, "event"),
            (100, "heartbeat"),
            (200, "heartbeat"),
            (300, "heartbeat"),
            (400, "heartbeat"),
            (500, "heartbeat"),
        ],
    );
}

/// Asserts that `heartbeat` ends with exit status 2, an empty stdout, and a message on stderr that
/// contains all of `parts`.
#[track_caller]
fn refuses(args: &[&str], parts: &[&str]) {
    let output = run("heartbeat", args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: no {part:?} in {stderr:?}");
    }
    assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
}

#[test]
fn an_interval_of_zero_is_refused() {
    refuses(&["--interval", "0s"], &["--interval", "must not be zero"]);
}

#[test]
fn an_interval_that_is_no_duration_is_refused() {
    refuses(&["--interval", "abc"], &["--interval", "abc", "a whole number must come first"]);
    refuses(&["--interval", "-1s"], &["-1"]);
    refuses(&["--interval", ""], &["--interval"]);
    refuses(&["--interval", "5"], &["--interval", "the unit is missing"]);
    refuses(&["--interval", "99999999999999999999s"], &["--interval"]);
    refuses(&["--interval", "18446744074s"], &["--interval", "584 years"]);
}

#[test]
fn events_that_are_no_durations_are_refused() {
    refuses(&["--events", "1x"], &["--events", "unknown unit `x`"]);
    refuses(&["--events", "20ms,abc"], &["--events", "abc"]);
}

#[test]
fn zero_beats_are_refused() {
    refuses(&["--beats", "0"], &["--beats", "0"]);
    refuses(&["--beats", "many"], &["--beats", "many"]);
}

#[test]
fn an_unknown_flag_is_refused() {
    refuses(&["--no-such-flag"], &["--no-such-flag"]);
    refuses(&["word"], &["word"]);
}

#[test]
fn help_lists_the_options() {
    let output = run("heartbeat", &["--help"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
    let help = text(&output.stdout);
    for option in ["--interval", "--events", "--beats"] {
        assert!(help.contains(option), "{help}");
    }
}

#[test]
fn hotpath_turns_need_no_allocation_or_syscall() {
    let output = run("hotpath", &["--turns", "20000"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
    let value = |label: &str| {
        let found = stdout.lines().find_map(|line| line.trim().strip_prefix(label));
        found.unwrap_or_else(|| panic!("no {label:?} in {stdout}")).trim().to_string()
    };
    assert_eq!(value("allocations a turn"), "0", "{stdout}");
    assert_eq!(value("syscalls a turn"), "0", "{stdout}");
}

/// Runs `raft`, and asserts that the program succeeds and that each line of its timeline has a
/// time. Returns the time and the text of the lines that contain `part`.
fn raft(args: &[&str], part: &str) -> Vec<(u64, String)> {
    let output = run("raft", args);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("nodes: ") && lines[lines.len() - 1].starts_with("leaders: node "),
        "{stdout}"
    );
    let timeline = &lines[1..lines.len() - 1];
    let timeline = timeline
        .iter()
        .map(|line| parse(line).unwrap_or_else(|| panic!("{line:?} has a wrong format")));
    timeline
        .filter(|(_, text)| text.contains(part))
        .map(|(ms, text)| (ms, text.to_string()))
        .collect()
}

#[test]
fn raft_replaces_a_killed_leader() {
    for nodes in ["3", "5"] {
        let timeline = raft(&["--nodes", nodes, "--kill-leader"], "");
        let at = |part: &str| timeline.iter().position(|(_, text)| text.contains(part));
        let killed = at("is killed").expect("a leader is killed");
        let leader = |line: &(u64, String)| {
            line.1.contains("LEADS").then(|| line.1.split("  term").next().unwrap().to_string())
        };
        let first: Vec<String> = timeline[..killed].iter().filter_map(leader).collect();
        let then: Vec<String> = timeline[killed..].iter().filter_map(leader).collect();
        let victim = timeline[killed].1.split("  is").next().unwrap();
        assert_eq!(first.last().map(String::as_str), Some(victim), "{timeline:?}");
        assert!(then.iter().any(|node| node != victim), "no other node leads: {timeline:?}");
    }
}

#[test]
fn raft_elects_a_leader_of_one_node() {
    assert!(!raft(&[], "LEADS").is_empty());
    assert_eq!(raft(&["--nodes", "1"], "LEADS").len(), 1);
}

#[test]
fn raft_refuses_wrong_numbers_of_nodes() {
    for args in [&["--nodes", "2", "--kill-leader"][..], &["--nodes", "0"], &["--nodes", "10"]] {
        let output = run("raft", args);
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(2), ""),
            "{args:?}"
        );
        assert!(text(&output.stderr).starts_with("error: "), "{args:?}");
    }
}

#[test]
fn a_seed_decides_a_simulated_week() {
    let week = |args: &[&str]| {
        let output = run("sim_world", args);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
        for part in ["is cut off", "is silent", "is back", "sensor 2", "604800 s simulated in"] {
            assert!(stdout.contains(part), "no {part:?} in {stdout}");
        }
        // The last line has the real time.
        let lines: Vec<String> = stdout.lines().map(String::from).collect();
        lines[..lines.len() - 1].to_vec()
    };
    assert_eq!(week(&["--seed", "3"]), week(&["--seed", "3"]));
    assert_ne!(week(&["--seed", "3"]), week(&["--seed", "4"]));
}

#[test]
fn the_format_of_a_line_is_exact() {
    assert_eq!(parse("   200 ms  event"), Some((200, "event")));
    assert_eq!(parse("  1600 ms  heartbeat"), Some((1600, "heartbeat")));
    assert_eq!(parse("200 ms  event"), None);
    assert_eq!(parse("   200 ms event"), None);
    assert_eq!(parse("    200 ms  event"), None);
}

//! Counts the instructions of each hot path with callgrind, and compares them with `counts.txt`.
//!
//! - `cargo bench -p pollmux-instructions` counts every path, and fails if a count is above its
//!   bound.
//! - `.. -- select wait` counts two paths.
//! - `.. -- --write` counts every path, and writes the counts of this toolchain to `counts.txt`.
//!
//! Each path runs twice under callgrind, once with more turns. The difference of the counts,
//! divided by the difference in turns, is the cost of a turn without its set-up. The count does not
//! depend on the speed or the load of the machine.
//!
//! `counts.txt` has the counts of one toolchain. With that toolchain a count may be 3 % higher.
//! With another version of rustc a count may be 15 % higher, because another compiler makes other
//! code. Counts of another architecture are printed and not compared.
//!
//! The exit status is 0, or 1 if a count is above its bound, or 77 without valgrind.

mod paths;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use paths::{PATHS, Run};

const COUNTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");
/// The allowed excess over the recorded count, with the same toolchain and with another one.
const SAME: f64 = 0.03;
const OTHER: f64 = 0.15;
/// The number of tries. The kernel or the time changes the count of some paths, so a count above
/// its bound is repeated, and the lowest count is compared.
const TRIES: usize = 3;
const NO_VALGRIND: u8 = 77;
/// The argument before the turns of a child, and the word before the toolchain in `counts.txt`.
const CHILD: &str = "--run";
const TOOLCHAIN: &str = "# rustc ";

fn main() -> ExitCode {
    let mut args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == CHILD) {
        let turns = args[2].parse().expect("a number of turns");
        run(&args[1])(turns);
        return ExitCode::SUCCESS;
    }
    let mut took = |flag: &str| {
        let before = args.len();
        args.retain(|arg| arg != flag);
        args.len() < before
    };
    let (measures, writes) = (took("--bench"), took("--write"));
    if !measures || cfg!(debug_assertions) {
        println!("A test run, which counts nothing. `cargo bench` counts.");
        PATHS.iter().for_each(|(_, turns, run)| run(turns / 100 + 1));
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is missing, so nothing is counted.");
        return ExitCode::from(NO_VALGRIND);
    }
    let known = Known::read();
    let toolchain = toolchain();
    let allowed = known.allowance(&toolchain);
    match allowed {
        Some(SAME) => println!("{toolchain}, as in counts.txt: a count may be 3 % higher"),
        Some(_) => {
            println!("{toolchain}, counts.txt has {}: a count may be 15 % higher", known.toolchain)
        }
        None => {
            println!("{toolchain}, counts.txt has {}: the counts are not compared", known.toolchain)
        }
    }
    let chosen: Vec<&str> = PATHS
        .iter()
        .map(|&(name, ..)| name)
        .filter(|name| args.is_empty() || args.iter().any(|arg| arg == name))
        .collect();
    let bound = |name: &str| {
        let known = known.count(name).filter(|_| !writes)?;
        Some(known * (1.0 + allowed?))
    };
    let counts = count_all(&chosen, bound);
    if writes {
        known.with(&toolchain, &counts).write();
    }
    let failed = counts.iter().filter(|(name, count)| !judge(name, *count, bound(name))).count();
    println!("{} paths counted, {failed} above their bounds", counts.len());
    if counts.is_empty() || failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints the line of a path, and returns true if the count is within its bound.
fn judge(name: &str, count: f64, bound: Option<f64>) -> bool {
    let (holds, says) = match bound {
        Some(bound) if count > bound => (false, format!("ABOVE {bound:.1}")),
        Some(bound) => (true, format!("at most {bound:.1}")),
        None => (true, "no bound".into()),
    };
    println!("{name:>16} {count:>9.1} {says}");
    holds
}

/// Counts the paths, on all cores at once.
fn count_all<'n>(
    names: &[&'n str],
    bound: impl Fn(&str) -> Option<f64> + Sync,
) -> Vec<(&'n str, f64)> {
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(&name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = count(name, bound(name));
            counts.lock().expect("no panic").push((name, count));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let mut counts = counts.into_inner().expect("no panic");
    counts.sort_by_key(|(name, _)| names.iter().position(|other| other == name));
    counts
}

/// Counts the instructions of a turn of this path.
fn count(name: &str, bound: Option<f64>) -> f64 {
    let longer = PATHS.iter().find(|path| path.0 == name).expect("a path").1;
    let shorter = longer / 5;
    let mut lowest = f64::INFINITY;
    for _ in 0..TRIES {
        let spent = collected(name, longer) - collected(name, shorter);
        lowest = lowest.min(spent / f64::from(longer - shorter));
        if bound.is_none_or(|bound| lowest <= bound) {
            break;
        }
    }
    lowest
}

/// Runs the path in callgrind, and returns the instructions of the whole program.
fn collected(name: &str, turns: u32) -> f64 {
    let program = env::current_exe().expect("the path of this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([CHILD, name, &turns.to_string()])
        .output()
        .expect("valgrind");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} in callgrind: {}\n{said}", output.status);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, n)| n.trim().parse().ok()).expect("a line of callgrind's: `Collected`")
}

fn run(name: &str) -> Run {
    PATHS.iter().find(|path| path.0 == name).expect("a path").2
}

/// Returns the version of rustc and its target: `1.95.0 x86_64-unknown-linux-gnu`.
fn toolchain() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().expect("rustc");
    let said = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
    format!("{} {}", field("release: "), field("host: "))
}

/// The content of `counts.txt`.
struct Known {
    toolchain: String,
    counts: Vec<(String, f64)>,
}

impl Known {
    fn read() -> Known {
        let text = fs::read_to_string(Path::new(COUNTS)).unwrap_or_default();
        let toolchain = text.lines().find_map(|line| line.strip_prefix(TOOLCHAIN));
        let counts = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, count) = line.split_once(' ').expect("a path and its count");
            (name.into(), count.trim().parse().expect("a count"))
        });
        Known { toolchain: toolchain.unwrap_or("none").into(), counts: counts.collect() }
    }

    fn count(&self, name: &str) -> Option<f64> {
        self.counts.iter().find(|known| known.0 == name).map(|known| known.1)
    }

    /// Returns the allowed excess of a count of `toolchain` over the recorded count, or `None` if
    /// the counts cannot be compared.
    fn allowance(&self, toolchain: &str) -> Option<f64> {
        let target =
            |toolchain: &str| toolchain.split_once(' ').map(|(_, target)| target.to_owned());
        if self.toolchain == toolchain {
            Some(SAME)
        } else {
            (target(&self.toolchain)? == target(toolchain)?).then_some(OTHER)
        }
    }

    /// Returns the content with these counts in place of the old counts.
    fn with(&self, toolchain: &str, counts: &[(&str, f64)]) -> Known {
        let merged = PATHS.iter().filter_map(|&(name, ..)| {
            let new = counts.iter().find(|count| count.0 == name).map(|count| count.1);
            Some((name.to_owned(), new.or_else(|| self.count(name))?))
        });
        Known { toolchain: toolchain.into(), counts: merged.collect() }
    }

    fn write(&self) {
        let mut text = format!(
            "# Instructions of a turn, counted by `cargo bench -p pollmux-instructions`.\n\
             {TOOLCHAIN}{}\n",
            self.toolchain
        );
        for (name, count) in &self.counts {
            writeln!(text, "{name} {count:.1}").expect("room");
        }
        fs::write(COUNTS, text).expect("a file that can be written");
    }
}

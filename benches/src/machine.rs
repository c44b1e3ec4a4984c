//! The machine of a report, as the files of the system describe it.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::native::Peer;

/// The facts of this machine that decide the speed of the rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub kernel: String,
    pub cpu: String,
    /// The cores that this process may use.
    pub cores: usize,
    pub hypervisor: bool,
    pub clock_source: String,
    pub governor: String,
    /// Each vulnerability of the CPU, with its mitigation.
    pub mitigations: Vec<(String, String)>,
    pub timer_slack_ns: Option<u64>,
    pub rustc: String,
    /// The commit of the measured tree, with a plus if files were changed since.
    pub commit: String,
    pub date: String,
    /// The peers and their versions.
    pub versions: Vec<(String, String)>,
}

/// The crates that are peers.
const CRATES: [&str; 12] = [
    "async-io",
    "calloop",
    "crossbeam-channel",
    "crossfire",
    "flume",
    "kanal",
    "mio",
    "polling",
    "pollmux",
    "tokio",
    "tokio-util",
    "monoio",
];

impl Machine {
    pub fn new() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of = |name: &str| {
            cpuinfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':'))
                .map(|(_, value)| value.trim().to_string())
        };
        let system = "/sys/devices/system";
        Machine {
            kernel: first_line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            cpu: of("model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            hypervisor: of("flags").is_some_and(|flags| flags.contains(" hypervisor")),
            clock_source: first_line(&format!(
                "{system}/clocksource/clocksource0/current_clocksource"
            ))
            .unwrap_or_else(unknown),
            governor: first_line(&format!("{system}/cpu/cpu0/cpufreq/scaling_governor"))
                .unwrap_or("none".into()),
            mitigations: mitigations(&format!("{system}/cpu/vulnerabilities")),
            timer_slack_ns: first_line("/proc/self/timerslack_ns")
                .and_then(|text| text.parse().ok()),
            rustc: env!("RUSTC_VERSION").to_string(),
            commit: commit(),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_else(unknown),
            versions: versions(),
        }
    }
}

fn unknown() -> String {
    "unknown".into()
}

fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().next()?.trim().to_string())
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn commit() -> String {
    let Some(commit) = said("git", &["rev-parse", "--short", "HEAD"]) else { return unknown() };
    // Changes of the report do not change the measured code.
    let changed = said("git", &["status", "--porcelain", "--", "../src", "../Cargo.toml", "src"]);
    if changed.is_some_and(|list| !list.is_empty()) { format!("{commit}+") } else { commit }
}

fn mitigations(folder: &str) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut all: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().to_string();
            Some((name, first_line(path.to_str()?)?))
        })
        .filter(|(_, state)| state != "Not affected")
        .collect();
    all.sort();
    all
}

/// Returns the versions of the lock file, and those of the libraries in C and Go.
fn versions() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut name = "";
    for line in include_str!("../../Cargo.lock").lines() {
        let value = |line: &'static str, key: &str| {
            line.strip_prefix(key).map(|rest| rest.trim_matches('"')).unwrap_or("")
        };
        if line.starts_with("name = ") {
            name = value(line, "name = ");
        } else if line.starts_with("version = ") && CRATES.contains(&name) {
            let version = value(line, "version = ");
            // monoio contains an old mio.
            if (name, version.starts_with("0.")) != ("mio", true) {
                all.push((name.to_string(), version.to_string()));
            }
        }
    }
    for peer in [Peer::Libev, Peer::Libuv, Peer::Libevent, Peer::Go] {
        if let Some(version) = peer.version() {
            all.push((peer.name().to_string(), version));
        }
    }
    all
}

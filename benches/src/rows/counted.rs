//! Rows of counts instead of times: instructions by callgrind, syscalls by strace, and the turns of
//! an idle reactor. The tools run this program, which then makes one operation so many times.

use std::env;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use pollmux::{Events, Reactor};

use super::{chain, kernel, micro, rearm, turn};
use crate::measure::{Contestant, Measured, Run};
use crate::native::{self, Peer};
use crate::row::{Bound, Family, Scale, Task, row};

/// The gate and the goal in instructions, in the order of `micro::WORKS`.
const INSTRUCTIONS: [Option<[f64; 2]>; 6] = [
    Some([142.0, 130.0]),
    None,
    Some([267.0, 230.0]),
    Some([79.0, 70.0]),
    Some([831.0, 350.0]),
    Some([1_073.0, 350.0]),
];

/// The work, the contestant of ours, its peers, and gate and goal. Each name is a group and a
/// contestant in it.
#[allow(clippy::type_complexity)]
const SYSCALLS: [(&str, &str, &str, &[&str], Option<[f64; 2]>); 6] = [
    (
        "rearm",
        "Put a timer off: syscalls.",
        "timer:reset_at(Time)",
        &["timer:tokio, instant given", "timer:async-io, instant given"],
        Some([0.0, 0.0]),
    ),
    (
        "awake",
        "A message that finds the loop awake, and a heartbeat put off: syscalls.",
        "turn:pollmux select! + restart",
        &["turn:crossbeam select! + a new after", "turn:tokio select! + Sleep::reset"],
        Some([0.0, 0.0]),
    ),
    (
        "wake",
        "A sleep ended by a message: syscalls.",
        "wake:pollmux select!",
        &["wake:raw"],
        Some([2.0, 2.0]),
    ),
    ("tick", "A tick: syscalls.", "tick:pollmux select!", &["tick:raw"], Some([2.0, 1.0])),
    (
        "tick-slack",
        "A tick that may be 50 µs late: syscalls.",
        "tick:pollmux with slack",
        &["tick:raw epoll_pwait2"],
        Some([1.0, 1.0]),
    ),
    (
        "timed-wait",
        "A wake-up, and a wait with a timeout that finds it: syscalls.",
        "timed:pollmux::sys",
        &["timed:mio", "timed:polling"],
        Some([2.0, 2.0]),
    ),
];

pub fn families() -> Vec<Family> {
    let instructions = micro::WORKS.into_iter().zip(INSTRUCTIONS).map(|(work, targets)| {
        let (work, about, ours, peers) = work;
        let spec = row(format!("instructions/{work}"), about, ours, peers).unit("instructions");
        match targets {
            Some([gate, goal]) => spec.gate(Bound::Value(gate)).goal(Bound::Value(goal)),
            None => spec,
        }
    });
    let chain = row(
        "instructions/chain",
        "An event of the chain over 1,000 socket pairs, timers re-armed, without the kernel's.",
        "pollmux with timers",
        &["libev", "libuv", "libevent"],
    )
    .beside(&["raw epoll"]);
    let syscalls = SYSCALLS.map(|(work, about, ours, peers, targets)| {
        let spec = row(format!("syscalls/{work}"), about, ours, peers).unit("syscalls");
        match targets {
            Some([gate, goal]) => spec.gate(Bound::Value(gate)).goal(Bound::Value(goal)),
            None => spec,
        }
    });
    let idle = row(
        "idle/10000",
        "10,000 idle timers and channels: returns of `epoll_wait` in 10 s, as strace sees it.",
        "pollmux",
        &[],
    );
    vec![
        Family::own(|task| count(task, "callgrind", callgrind), instructions),
        Family::own(
            chain_instructions,
            [chain.unit("instructions").gate(Bound::Ratio(1.0)).goal(Bound::Ratio(1.0))],
        ),
        Family::own(|task| count(task, "strace", strace), syscalls),
        Family::own(
            |task| vec![idle_returns(task.scale)],
            [idle.unit("returns").gate(Bound::Value(0.0)).goal(Bound::Value(0.0))],
        ),
    ]
}

/// Returns the contestant of this name, for the child process `--count NAME --times N`.
pub fn contestant(name: &str) -> Contestant {
    let (group, name) = name.split_once(':').unwrap_or(("ops", name));
    let all = match group {
        "ops" => micro::contestants(),
        "timer" => rearm::in_rust(),
        "turn" => turn::in_rust(),
        "wake" => kernel::wakes(),
        "tick" => kernel::near_ticks(),
        "timed" => kernel::timed_waits(),
        _ => vec![chain::pollmux(true), chain::raw_epoll()],
    };
    let found = all.into_iter().find(|contestant| contestant.has(&|has| has == name));
    found.unwrap_or_else(|| panic!("no contestant is called {group}:{name}"))
}

/// The reason why a smoke run counts only one contestant: a run in callgrind takes seconds.
const ONE_IS_ENOUGH: &str = "a smoke run counts one contestant";

/// Counts each wanted contestant by the difference of two runs, so that the setup does not count.
fn count(
    task: &mut Task<'_>,
    tool: &str,
    run: fn(&str, u64) -> Result<f64, String>,
) -> Vec<Measured> {
    let micro = micro::WORKS.iter().flat_map(|(_, _, ours, peers)| [&[*ours], *peers].concat());
    let calls = SYSCALLS.iter().flat_map(|(_, _, ours, peers, _)| [&[*ours], *peers].concat());
    let mut names: Vec<&str> = match tool {
        "strace" => calls.collect(),
        _ => micro.collect(),
    };
    names.sort_unstable();
    names.dedup();
    let (few, many) = match tool {
        "strace" => task.scale.of((10, 110), (200, 2_200), (1_000, 11_000)),
        // Within some 1,000 readings a reactor finds that the CPU counter is slow under callgrind.
        _ => task.scale.of((10, 110), (3_000, 13_000), (5_000, 55_000)),
    };
    let mut all = Vec::new();
    for name in names.into_iter().filter(|name| (task.wanted)(name)) {
        (task.progress)();
        if task.scale == Scale::Smoke && !all.is_empty() {
            all.push(Measured::absent(name, ONE_IS_ENOUGH));
            continue;
        }
        all.push(difference(name, few, many, |times| run(name, times)));
    }
    all
}

fn difference(
    name: &str,
    few: u64,
    many: u64,
    run: impl Fn(u64) -> Result<f64, String>,
) -> Measured {
    let counted = run(few).and_then(|few| Ok((few, run(many)?)));
    match counted {
        // Runs differ a little, so a count is rounded to a tenth.
        Ok((a, b)) => {
            let each = (b - a) / (many - few) as f64;
            Measured::new(name, vec![(each * 10.0).round().abs() / 10.0])
        }
        Err(reason) => Measured::absent(name, &reason),
    }
}

fn this_program(command: &mut Command, name: &str, times: u64) -> Result<(), String> {
    let path = env::current_exe().map_err(|error| error.to_string())?;
    command.arg(path).args(["--count", name, "--times", &times.to_string()]);
    Ok(())
}

fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind
}

/// Returns the number of instructions that callgrind has collected.
fn collected(stderr: &[u8]) -> Result<f64, String> {
    let said = String::from_utf8_lossy(stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| "callgrind has counted nothing".to_string())
}

fn callgrind(name: &str, times: u64) -> Result<f64, String> {
    let mut command = valgrind();
    this_program(&mut command, name, times)?;
    let output = command.output().map_err(|_| "no valgrind on PATH".to_string())?;
    collected(&output.stderr)
}

/// Returns the number of calls that strace has counted in all threads.
fn strace(name: &str, times: u64) -> Result<f64, String> {
    let file = env::temp_dir().join(format!("pollmux-bench-strace-{}", std::process::id()));
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(&file);
    this_program(&mut command, name, times)?;
    let output = command.output().map_err(|_| "no strace on PATH".to_string())?;
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    let total = text.lines().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.ok_or_else(|| match output.status.success() {
        true => "strace has counted nothing".to_string(),
        false => "strace may not trace here".to_string(),
    })
}

fn chain_instructions(task: &mut Task<'_>) -> Vec<Measured> {
    let (few, many) = task.scale.of((100, 1_100), (1_000, 11_000), (1_000, 21_000));
    let ours = difference("pollmux with timers", few, many, |times| {
        callgrind("chain:pollmux with timers", times)
    });
    let mut all = vec![ours];
    if task.scale != Scale::Smoke {
        let raw = |times| callgrind("chain:raw epoll", times);
        all.push(difference("raw epoll", few, many, raw));
    }
    for peer in native::IN_C {
        (task.progress)();
        if task.scale == Scale::Smoke {
            all.push(Measured::absent(peer.name(), ONE_IS_ENOUGH));
            continue;
        }
        all.push(difference(peer.name(), few, many, |times| in_c(peer, times)));
    }
    all
}

fn in_c(peer: Peer, times: u64) -> Result<f64, String> {
    let program = peer.program()?;
    let mut child = valgrind()
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|_| "no valgrind on PATH".to_string())?;
    let line = native::command("chain", chain::PAIRS, Run::Times(times));
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(line.as_bytes()).map_err(|error| error.to_string())?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    collected(&output.stderr)
}

// Idle.

/// Sleeps with 10,000 live timers and channels, in the child process `--idle MILLIS`.
pub fn idle(millis: u64) {
    let reactor = Reactor::new().expect("a reactor");
    let far = Duration::from_secs(100_000);
    let timers: Vec<_> = (0..10_000).map(|_| reactor.after(far)).collect();
    let channels: Vec<_> = (0..10_000).map(|_| reactor.channel::<u64>(1).unwrap()).collect();
    let mut events = Events::with_capacity(16);
    let before = reactor.stats();
    reactor.wait_timeout(&mut events, Duration::from_millis(millis)).expect("a wait");
    // The end of the timeout is the one return that is expected.
    let during = reactor.stats() - before;
    println!("{}", during.waits.saturating_sub(1));
    drop((timers, channels));
}

/// Counts the lines of strace that begin in the middle of the sleep: a sleep that is ended begins
/// another one. Without strace, uses the reactor's own counts.
fn idle_returns(scale: Scale) -> Measured {
    let millis = scale.of(1_000, 10_000, 10_000u64);
    let file = env::temp_dir().join(format!("pollmux-bench-idle-{}", std::process::id()));
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return Measured::absent("pollmux", &error.to_string()),
    };
    let millis_text = millis.to_string();
    let traced = Command::new("strace")
        .args(["-f", "-ttt", "-o"])
        .arg(&file)
        .arg(&program)
        .args(["--idle", &millis_text])
        .output();
    let text = fs::read_to_string(&file).unwrap_or_default();
    let _ = fs::remove_file(&file);
    // Each line has a thread's number and the time.
    let at = |line: &str| line.split_whitespace().nth(1)?.parse::<f64>().ok();
    let times: Vec<f64> = text.lines().filter_map(at).collect();
    let returns = match (traced, times.last()) {
        (Ok(_), Some(end)) => {
            let (begin, margin) = (end - millis as f64 / 1e3, 0.1 * millis as f64 / 1e3);
            let middle = begin + margin..end - margin;
            times.iter().filter(|time| middle.contains(time)).count() as f64
        }
        _ => {
            let said = Command::new(program).args(["--idle", &millis_text]).output();
            let text = said.map(|output| String::from_utf8_lossy(&output.stdout).to_string());
            match text.unwrap_or_default().trim().parse() {
                Ok(returns) => returns,
                Err(_) => return Measured::absent("pollmux", "the child has said nothing"),
            }
        }
    };
    Measured::new("pollmux", vec![returns])
}

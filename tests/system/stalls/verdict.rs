//! Runs the traced program and judges its log.

use std::collections::BTreeMap;
use std::time::Duration;

use pollmux::Time;
use support::setting;

use crate::stalls::child::{Program, alone, is_child, skip};
use crate::stalls::places::{Names, Stack};
use crate::stalls::program::{self, Flavour, Loop};
use crate::stalls::tracer::{Gone, Stop, Tracee};

/// A tick that is late by this much during a stop counts, in ns.
const LATE: u64 = 5_000_000;
/// The loop must take less of a core than this during all stops, in percent. Without optimisation
/// the ticks alone take half of 10 %.
const CPU: f64 = if cfg!(debug_assertions) { 20.0 } else { 10.0 };

/// Returns the number of stops that a run makes.
pub fn rounds() -> u64 {
    setting("POLLMUX_STALL_ROUNDS", 1)
}

/// A tick in the log of the loop; times in ns.
#[derive(Clone, Copy)]
struct Tick {
    due: u64,
    came: u64,
    cpu: u64,
    /// The total time in which the loop was ready but had no core.
    delay: u64,
    /// The number of messages that the bystander's channel had given.
    side: u64,
}

impl Tick {
    fn parse(line: &str) -> Option<Tick> {
        let mut numbers = line.strip_prefix("tick ")?.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Tick { due: next()?, came: next()?, cpu: next()?, delay: next()?, side: next()? })
    }
}

/// The loop's behaviour during one stop.
struct Outcome {
    /// The latest tick, in ns.
    late: u64,
    /// True if no message of the bystander came, although the loop had ticks or should have had.
    silent: bool,
    /// The CPU time of the loop, in ns, and the wall time that it covers.
    cpu: u64,
    time: u64,
}

impl Outcome {
    /// Returns true if the loop used a core for more than half of the time.
    fn spun(&self) -> bool {
        self.cpu > self.time / 2
    }
}

/// Returns the loop's behaviour from `begin` to `end`, as the log shows it.
fn outcome(ticks: &[Tick], (begin, end): (u64, u64)) -> Outcome {
    let overlap = |tick: &Tick| tick.came.min(end).saturating_sub(tick.due.max(begin));
    let late = ticks.windows(2).map(|pair| {
        let without_a_core = pair[1].delay - pair[0].delay;
        overlap(&pair[1]).saturating_sub(without_a_core)
    });
    let late = late.max().unwrap_or(0);
    let inside = |tick: &&Tick| (begin + LATE..=end).contains(&tick.came);
    let first = ticks.iter().find(inside);
    let last = ticks.iter().rfind(inside);
    let silent = first.zip(last).is_none_or(|(first, last)| first.side == last.side);
    // The ticks inside, or the ticks around the stop if there are none inside.
    let before = ticks.iter().rfind(|tick| tick.came <= begin);
    let after = ticks.iter().find(|tick| tick.came >= end);
    let whole = |pair: &(&Tick, &Tick)| pair.1.came - pair.0.came > (end - begin) / 2;
    let pair = first.zip(last).filter(whole).or(before.zip(after));
    let (cpu, time) = pair.map_or((0, 1), |(a, b)| (b.cpu - a.cpu, b.came - a.came));
    Outcome { late, silent, cpu, time }
}

/// The outcome of one run of the program.
struct Run {
    stops: Vec<(Stack, Outcome)>,
    /// The number of stops inside a send.
    sending: usize,
    late: usize,
    silent: usize,
    spun: usize,
    worst: u64,
    cpu: f64,
}

/// The reason why the test cannot measure.
type Skip = String;

/// Runs the program once, with stops or without.
fn run(name: &str, stopping: bool, seed: u64, bystander: bool) -> Result<Run, Skip> {
    let hold = Duration::from_millis(setting("POLLMUX_STALL_MS", 30));
    let mut program = Program::begin(name);
    let line = program.next_line().unwrap_or_else(|| panic!("{name}: the child did not start"));
    let numbers = line.strip_prefix("stopped ").and_then(|line| line.split_once(' '));
    let (thread, sending) = numbers.unwrap_or_else(|| panic!("{name}: {line}"));
    let (thread, sending) = (thread.parse().unwrap(), sending.parse().unwrap());
    let tracee = Tracee::seize(program.id(), thread, sending, seed);
    let mut tracee = tracee.map_err(|error| format!("ptrace is refused: {error}"))?;
    let mut rounds = (0..rounds()).map(|_| {
        if stopping {
            return tracee.stop_somewhere(hold);
        }
        let begin = Time::now().as_nanos();
        tracee.run(hold)?;
        let (end, stack) = (Time::now().as_nanos(), Stack::none());
        Ok(Stop { begin, end, stack, sending: None })
    });
    let stops: Result<Vec<Stop>, Gone> = rounds.by_ref().collect();
    drop(rounds);
    let released = tracee.release();
    let (Ok(stops), Ok(())) = (stops, released) else { panic!("{name}: the child has died") };
    program.finish();
    let mut ticks = Vec::new();
    loop {
        match program.next_line() {
            Some(line) if line == "end" => break,
            Some(line) => {
                ticks.push(Tick::parse(&line).unwrap_or_else(|| panic!("{name}: {line}")));
            }
            None => panic!("{name}: the child hangs, or lost a message: see above"),
        }
    }
    let sending = stops.iter().filter(|stop| stop.sending == Some(true)).count();
    let judged = stops.into_iter().map(|stop| {
        let mut outcome = outcome(&ticks, (stop.begin, stop.end));
        outcome.silent &= bystander;
        (stop.stack, outcome)
    });
    let stops: Vec<_> = judged.collect();
    let outcomes = || stops.iter().map(|(_, outcome)| outcome);
    let late = outcomes().filter(|outcome| outcome.late >= LATE).count();
    let silent = outcomes().filter(|outcome| outcome.silent).count();
    let spun = outcomes().filter(|outcome| outcome.spun()).count();
    let worst = outcomes().map(|outcome| outcome.late).max().unwrap_or(0);
    let (cpu, time): (u64, u64) =
        outcomes().fold((0, 0), |(cpu, time), one| (cpu + one.cpu, time + one.time));
    let cpu = cpu as f64 * 100.0 / time.max(1) as f64;
    Ok(Run { stops, sending, late, silent, spun, worst, cpu })
}

impl Run {
    fn describe(&self) -> String {
        let Run { late, silent, spun, cpu, .. } = self;
        let (stops, worst) = (self.stops.len(), self.worst as f64 / 1e6);
        let lateness = format!("{late} late (worst {worst:.1} ms)");
        format!("of {stops} {lateness}, {silent} silent, {spun} spun, CPU {cpu:.1} %")
    }

    /// Returns true if the run is no worse than a run without stops.
    fn is_like(&self, late: usize, silent: usize) -> bool {
        self.late <= late && self.silent <= silent && self.spun == 0 && self.cpu < CPU
    }

    /// Prints the sender's places of the stops in which the loop was late or spun, or the bystander
    /// silent.
    fn print_places(&self, name: &str) {
        let is_bad = |one: &Outcome| one.late >= LATE || one.spun() || one.silent;
        let bad = self.stops.iter().filter(|(_, one)| is_bad(one));
        let names = Names::of(bad.clone().map(|(stack, _)| stack));
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (stack, one) in bad {
            let what = match (one.spun(), one.late >= LATE) {
                (true, _) => "spun",
                (_, true) => "late",
                _ => "silent",
            };
            *places.entry(format!("{what}: {}", names.describe(stack))).or_default() += 1;
        }
        for (place, count) in &places {
            eprintln!("stalls: {name}:   {count} {place}");
        }
    }
}

/// The body of each test. In the child it runs the traced program.
pub fn judge(name: &str, flavour: Flavour, how: Loop) {
    if is_child(name) {
        return program::run(flavour, how);
    }
    let _alone = alone();
    let bystander = how != Loop::Bare;
    let runs = setting("POLLMUX_STALL_RUNS", 5);
    let mut said = Vec::new();
    for seed in 1..=runs {
        let stopped = match run(name, true, seed, bystander) {
            Ok(run) => run,
            Err(reason) => return skip(name, &reason),
        };
        let sending = stopped.sending;
        eprintln!("stalls: {name}: {}, {sending} inside a send", stopped.describe());
        if stopped.is_like(0, 0) {
            return;
        }
        let Ok(free) = run(name, false, seed, bystander) else { return };
        eprintln!("stalls: {name}:   without stops {}", free.describe());
        if stopped.is_like(free.late, free.silent) {
            return;
        }
        stopped.print_places(name);
        said.push(format!("{}; without stops {}", stopped.describe(), free.describe()));
    }
    panic!("{name}: each of {runs} runs failed:\n{}", said.join("\n"));
}

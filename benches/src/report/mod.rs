//! The report: the rows of a run, in all their forms.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::floor::Line;
use crate::machine::Machine;
use crate::measure::Measured;
use crate::row::{Figure, Row, Scale, Text};

pub mod html;
pub mod markdown;
pub mod plots;

/// The results of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The version of the format, which changes when a field changes its meaning.
    pub version: u32,
    /// "quick" or "full"; the figures of "smoke" mean nothing.
    pub scale: Text,
    pub seconds: f64,
    pub machine: Machine,
    pub floor: Vec<Line>,
    pub rows: Vec<Row>,
    /// The lateness of timers in ns: the delay, the contestant, and the percentiles from 0 to 100.
    pub lateness: Vec<(String, String, Vec<f64>)>,
}

impl Report {
    pub fn new(scale: Scale) -> Report {
        let scale = scale.of("smoke", "quick", "full").into();
        Report {
            version: 1,
            scale,
            seconds: 0.0,
            machine: Machine::new(),
            floor: Vec::new(),
            rows: Vec::new(),
            lateness: Vec::new(),
        }
    }

    /// Keeps the samples of the last row if a histogram needs them.
    pub fn keep_samples(&mut self, measured: &[Measured]) {
        let Some(row) = self.rows.last().filter(|row| row.work.starts_with("lateness/")) else {
            return;
        };
        let delay = row.work.rsplit('/').next().unwrap_or("").to_string();
        let samples = measured.iter().filter(|found| !found.samples.is_empty());
        self.lateness.extend(
            samples.map(|found| (delay.clone(), found.name.clone(), percentiles(&found.samples))),
        );
    }

    /// Adds the rows of another run on the same machine, which replace rows of the same names.
    pub fn add(&mut self, other: Report) {
        self.seconds += other.seconds;
        self.rows.retain(|row| other.rows.iter().all(|new| new.work != row.work));
        self.lateness.retain(|(delay, ..)| other.lateness.iter().all(|(new, ..)| new != delay));
        self.rows.extend(other.rows);
        self.lateness.extend(other.lateness);
        if self.floor.is_empty() {
            self.floor = other.floor;
        }
    }

    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    /// Returns one line with the number of rows that meet their targets.
    pub fn summary(&self) -> String {
        let count = |met: &str| self.rows.iter().filter(|row| row.met == met).count();
        format!(
            "{} rows in {:.0} s: {} meet their goal, {} their gate, {} meet neither, {} have no \
             target, {} were skipped",
            self.rows.len(),
            self.seconds,
            count("goal"),
            count("gate"),
            count("no"),
            count("none"),
            count("skipped")
        )
    }
}

/// The groups of rows: the first part of their names, and their titles.
const GROUPS: [(&str, &str); 15] = [
    ("timer", "One timer"),
    ("timers", "Many timers"),
    ("turn", "A turn on one thread"),
    ("kernel", "A turn through the kernel"),
    ("sys", "The layer `pollmux::sys`"),
    ("million", "A million timers that all fire"),
    ("chain", "A chain of socket pairs"),
    ("ops", "Small operations"),
    ("channels", "One ready among many channels"),
    ("threads", "Between threads: throughput"),
    ("trip", "Between threads: round trips"),
    ("lateness", "Lateness"),
    ("http", "An HTTP request"),
    ("instructions", "Instructions"),
    ("syscalls", "Syscalls"),
];

/// Returns the rows, group by group.
fn groups(rows: &[Row]) -> Vec<(&str, &str, Vec<&Row>)> {
    let mut all: Vec<(&str, &str, Vec<&Row>)> = Vec::new();
    for row in rows {
        let group = row.work.split('/').next().unwrap_or("");
        match all.iter_mut().find(|(name, ..)| *name == group) {
            Some((_, _, rows)) => rows.push(row),
            None => {
                let known = GROUPS.iter().find(|(name, _)| *name == group);
                all.push((group, known.map_or("Idle sources", |(_, about)| about), vec![row]));
            }
        }
    }
    all
}

impl Report {
    /// Returns the facts of the machine, line by line.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let machine = &self.machine;
        let list = |pairs: &[(String, String)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| format!("{name} {value}")).collect();
            if pairs.is_empty() { "none".to_string() } else { pairs.join("; ") }
        };
        vec![
            ("date", machine.date.clone()),
            ("commit", machine.commit.clone()),
            ("run", format!("{}, {:.0} s", self.scale, self.seconds)),
            (
                "CPU",
                format!(
                    "{}, {} cores{}",
                    machine.cpu,
                    machine.cores,
                    if machine.hypervisor { ", virtual" } else { "" }
                ),
            ),
            ("kernel", machine.kernel.clone()),
            ("clock source", machine.clock_source.clone()),
            ("frequency governor", machine.governor.clone()),
            ("mitigations", list(&machine.mitigations)),
            (
                "timer slack",
                machine.timer_slack_ns.map_or("unknown".into(), |ns| format!("{ns} ns")),
            ),
            ("compiler", machine.rustc.clone()),
            ("versions", list(&machine.versions)),
        ]
    }

    /// Returns a line for each row that is slower than its best peer or misses its target.
    fn slower(&self) -> Vec<String> {
        let rows = self.rows.iter().filter_map(|row| {
            let is_slower = row.ratio.is_some_and(|ratio| ratio < 0.995);
            if !is_slower && row.met != "no" {
                return None;
            }
            let value = with_unit(row.value?, &row.unit);
            let beside = match (&row.peer, row.peer_value, row.ratio) {
                (Some(peer), Some(x), Some(ratio)) => {
                    format!(" beside {peer}, {} ({ratio:.2}x)", with_unit(x, &row.unit))
                }
                _ => String::new(),
            };
            let gate = target(row.gate_ratio, row.gate_value, &row.unit);
            let goal = target(row.goal_ratio, row.goal_value, &row.unit);
            let misses = match &*row.met {
                "no" if gate == "-" => format!("; misses its goal of {goal}"),
                "no" => format!("; misses its gate of {gate}"),
                "gate" => format!("; meets its gate of {gate}"),
                _ => String::new(),
            };
            Some(format!("`{}`: {value}{beside}{misses}.", row.work))
        });
        rows.collect()
    }

    /// Returns each missing peer or tool, once for each reason.
    fn absent(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for figure in self.rows.iter().flat_map(|row| &row.figures) {
            if let Some(reason) = &figure.absent {
                let pair = (figure.name.clone(), reason.clone());
                if !all.contains(&pair) {
                    all.push(pair);
                }
            }
        }
        all
    }
}

impl Row {
    /// Returns the allocations and syscalls of one operation, if they were counted.
    fn counted(&self) -> String {
        let count = |n: Option<f64>, what: &str| n.map(|n| format!("{} {what}", trimmed(n)));
        let all = [count(self.allocs, "allocs"), count(self.syscalls, "syscalls")];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() { "-".into() } else { all.join(", ") }
    }
}

/// Returns the percentiles from 0 to 100.
fn percentiles(samples: &[f64]) -> Vec<f64> {
    use hdrhistogram::Histogram;
    // The plot has latenesses up to a minute, with a precision of 1 %.
    let mut late =
        Histogram::<u64>::new_with_max(60_000_000_000, 2).expect("bounds that hdrhistogram takes");
    samples.iter().for_each(|ns| late.saturating_record(ns.max(10.0) as u64));
    (0..=100).map(|percent| late.value_at_quantile(f64::from(percent) / 100.0) as f64).collect()
}

/// Formats a number with at most two digits after the point, and no zeros at the end.
pub fn trimmed(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Formats a number with three significant digits.
pub fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => {
            let digits = format!("{:.0}", x);
            let (sign, digits) = digits.strip_prefix('-').map_or(("", &*digits), |d| ("-", d));
            let mut out = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i) % 3 == 0 {
                    out.push(',');
                }
                out.push(digit);
            }
            format!("{sign}{out}")
        }
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 0.01 || a == 0.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}

pub fn or_dash(x: Option<f64>) -> String {
    x.map_or("-".into(), number)
}

/// Formats a target, as a ratio or in the row's unit.
pub fn target(ratio: Option<f64>, value: Option<f64>, unit: &str) -> String {
    match (ratio, value) {
        (Some(ratio), _) => format!("{ratio:.2}x"),
        (_, Some(value)) => with_unit(value, unit),
        _ => "-".into(),
    }
}

/// Formats a value with a unit that suits its size.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "ns" if value >= 1e6 => format!("{} ms", number(value / 1e6)),
        "ns" if value >= 1e4 => format!("{} µs", number(value / 1e3)),
        _ => format!("{} {unit}", number(value)),
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { kind, what, ns, q1, q3, .. } = self;
        let [ns, q1, q3] = [ns, q1, q3].map(|x| or_dash(*x));
        write!(f, "{kind:10}{what:50}{ns:>10} ns [{q1} to {q3}]")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.work, self.about)?;
        for figure in &self.figures {
            writeln!(f, "  {figure} {}", self.unit)?;
        }
        match &self.skipped {
            Some(reason) => writeln!(f, "  skipped: {reason}"),
            None => writeln!(
                f,
                "  ratio {}, gate {}, goal {}: {}",
                self.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x")),
                target(self.gate_ratio, self.gate_value, &self.unit),
                target(self.goal_ratio, self.goal_value, &self.unit),
                self.met
            ),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            if self.role == "beside" { format!("({})", self.name) } else { self.name.clone() };
        write!(f, "{name:34}")?;
        match &self.absent {
            Some(reason) => write!(f, "not here: {reason};"),
            None => write!(
                f,
                "{:>9} [{} to {}], allocations {}, syscalls {};",
                or_dash(self.value),
                or_dash(self.q1),
                or_dash(self.q3),
                self.allocs.map_or("-".into(), trimmed),
                self.syscalls.map_or("-".into(), trimmed)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_rise_to_the_largest() {
        let all = percentiles(&[1_000.0, 2_000.0, 4_000.0]);
        assert!(all.len() == 101 && all.is_sorted());
        assert!((all[100] - 4_000.0).abs() < 100.0 && (all[50] - 2_000.0).abs() < 100.0);
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let all = [0.0, 0.00123, 0.456, 1.234, 12.34, 123.4, 1234.5, 1234567.0, -1234.0];
        let texts = all.map(number);
        let right =
            ["0.00", "0.0012", "0.46", "1.23", "12.3", "123", "1,234", "1,234,567", "-1,234"];
        assert_eq!(texts, right);
    }
}

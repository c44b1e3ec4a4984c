//! The report as Markdown: `docs/BENCHMARKS.md`.

use std::fmt::Write;

use super::{Report, groups, number, or_dash, plots, target, with_unit};
use crate::row::Row;

const METHOD: &str = include_str!("method.md");

pub fn page(report: &Report) -> String {
    let mut out = String::from(METHOD);
    machine(&mut out, report);
    floor(&mut out, report);
    rows(&mut out, report);
    slower(&mut out, report);
    absent(&mut out, report);
    out
}

fn machine(out: &mut String, report: &Report) {
    out.push_str("\n## The machine of this run\n\n| | |\n|---|---|\n");
    for (what, value) in report.facts() {
        let _ = writeln!(out, "| {what} | {value} |");
    }
}

fn floor(out: &mut String, report: &Report) {
    if report.floor.is_empty() {
        return;
    }
    out.push_str("\n## The floor\n\nWhat the system itself costs. `-- --only floor`\n\n");
    out.push_str("| | median | quartiles |\n|---|---|---|\n");
    for line in report.floor.iter().filter(|line| line.kind != "lateness") {
        let (ns, q1, q3) = (or_dash(line.ns), or_dash(line.q1), or_dash(line.q3));
        let _ = writeln!(out, "| {} | {ns} ns | {q1} to {q3} |", line.what);
    }
    out.push_str(
        "\nHow late the kernel's timers are:\n\n| timer, after | p50 | p99 |\n|---|---|---|\n",
    );
    for line in report.floor.iter().filter(|line| line.kind == "lateness") {
        let late = |ns: Option<f64>| ns.map_or("-".into(), |ns| format!("{} µs", number(ns / 1e3)));
        let _ = writeln!(out, "| {} | {} | {} |", line.what, late(line.ns), late(line.p99));
    }
}

fn rows(out: &mut String, report: &Report) {
    out.push_str("\n## The rows\n\nEach heading has the argument that measures its rows.\n");
    let plots = plots::all(report);
    for (group, about, rows) in groups(&report.rows) {
        let _ = writeln!(out, "\n### {about}: `-- --only {group}/`\n");
        out.push_str("| row | work | pollmux | best peer | ratio | gate, goal | met | counted |\n");
        out.push_str("|---|---|---|---|---|---|---|---|\n");
        for row in rows {
            let _ = writeln!(out, "{}", table_line(row));
        }
        for plot in plots.iter().filter(|plot| plot.name.split('-').next() == Some(group)) {
            let _ = writeln!(out, "\n![{}](plots/{}.svg)", plot.title, plot.name);
        }
    }
}

fn table_line(row: &Row) -> String {
    let unit = &*row.unit;
    let ours = match &row.skipped {
        Some(reason) => format!("skipped: {reason}"),
        None => row.value.map_or("-".into(), |value| with_unit(value, unit)),
    };
    let peer = match (&row.peer, row.peer_value) {
        (Some(peer), Some(value)) => format!("{peer}: {}", with_unit(value, unit)),
        _ => "-".into(),
    };
    let ratio = row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x"));
    let targets = match (row.gate_ratio, row.gate_value, row.goal_ratio, row.goal_value) {
        (None, None, None, None) => "-".to_string(),
        (gate, gate_value, goal, goal_value) => {
            format!("{}, {}", target(gate, gate_value, unit), target(goal, goal_value, unit))
        }
    };
    let met = if row.met == "no" { "**no**" } else { &*row.met };
    let about = &row.about;
    let counted = row.counted();
    format!(
        "| {} | {about} | {ours} | {peer} | {ratio} | {targets} | {met} | {counted} |",
        row.work
    )
}

fn slower(out: &mut String, report: &Report) {
    out.push_str("\n## What is slower, or falls short\n\n");
    let slower: Vec<String> = report.slower();
    if slower.is_empty() {
        out.push_str("Nothing in this run.\n");
    }
    for line in slower {
        let _ = writeln!(out, "- {line}");
    }
}

fn absent(out: &mut String, report: &Report) {
    out.push_str("\n## What was not here\n\n");
    let absent = report.absent();
    if absent.is_empty() {
        out.push_str("All peers and tools were here.\n");
    }
    for (name, reason) in absent {
        let _ = writeln!(out, "- {name}: {reason}");
    }
}

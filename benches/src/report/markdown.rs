//! The report as Markdown: `docs/BENCHMARKS.md`.

use std::fmt::Write;

use super::{Report, groups, number, or_dash, plots, target, with_unit};
use crate::row::Row;

const METHOD: &str = include_str!("method.md");
const EXAMPLES: &str = include_str!("examples.md");

pub fn page(report: &Report) -> String {
    let mut out = String::from(METHOD);
    machine(&mut out, report);
    floor(&mut out, report);
    rows(&mut out, report);
    slower(&mut out, report);
    absent(&mut out, report);
    out.push_str(EXAMPLES);
    out
}

fn machine(out: &mut String, report: &Report) {
    out.push_str("\n## The machine of this run\n\n");
    for (what, value) in report.facts() {
        item(out, &format!("{what}: {value}"));
    }
}

/// The width of a line.
const COLUMNS: usize = 100;

/// Writes an item of a list, wrapped to [`COLUMNS`]. Code stays in one line.
fn item(out: &mut String, text: &str) {
    let (mut column, mut in_code, mut word) = (1, false, String::new());
    out.push('-');
    let mut put = |word: &mut String| {
        let width = word.chars().count();
        if column + 1 + width > COLUMNS {
            out.push_str("\n ");
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + width;
        word.clear();
    };
    for c in text.chars() {
        in_code ^= c == '`';
        if c == ' ' && !in_code {
            put(&mut word);
        } else {
            word.push(c);
        }
    }
    put(&mut word);
    out.push('\n');
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
        out.push_str("| row | pollmux | best peer | ratio | gate | goal | met |\n");
        out.push_str("|---|---|---|---|---|---|---|\n");
        rows.iter().for_each(|row| table_line(out, row));
        out.push('\n');
        rows.iter().for_each(|row| item(out, &note(row)));
        for plot in plots.iter().filter(|plot| plot.name.split('-').next() == Some(group)) {
            let _ = writeln!(out, "\n![{}](plots/{}.svg)", plot.title, plot.name);
        }
    }
}

fn table_line(out: &mut String, row: &Row) {
    let value = |x: Option<f64>| x.map_or("-".into(), |x| with_unit(x, &row.unit));
    let ratio = row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x"));
    let gate = target(row.gate_ratio, row.gate_value, &row.unit);
    let goal = target(row.goal_ratio, row.goal_value, &row.unit);
    let met = if row.met == "no" { "**no**" } else { &*row.met };
    let (ours, peer) = (value(row.value), value(row.peer_value));
    let line = format!("| {} | {ours} | {peer} | {ratio} | {gate} | {goal} | {met} |", row.work);
    // The unit of counts is in the row only once.
    let unit = format!(" {}", row.unit);
    let line = if row.unit == "ns" { line } else { line.replacen(&unit, "", 9) };
    let _ = writeln!(out, "{line}");
}

/// Returns the text below the table.
fn note(row: &Row) -> String {
    let mut text = format!("`{}`: {}", row.work, row.about);
    if let Some(reason) = &row.skipped {
        let _ = write!(text, " Skipped: {reason}.");
    }
    if row.unit != "ns" {
        let _ = write!(text, " In {}.", row.unit);
    }
    if let Some(peer) = &row.peer {
        let _ = write!(text, " Best peer: {peer}.");
    }
    let counted = row.counted();
    if counted != "-" {
        let _ = write!(text, " {counted}.");
    }
    text
}

fn slower(out: &mut String, report: &Report) {
    out.push_str("\n## What is slower, or falls short\n\n");
    let slower: Vec<String> = report.slower();
    if slower.is_empty() {
        out.push_str("Nothing in this run.\n");
    }
    for line in slower {
        item(out, &line);
    }
}

fn absent(out: &mut String, report: &Report) {
    out.push_str("\n## What was not here\n\n");
    let absent = report.absent();
    if absent.is_empty() {
        out.push_str("All peers and tools were here.\n");
    }
    for (name, reason) in absent {
        item(out, &format!("{name}: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_wrapped_outside_of_code() {
        let mut out = String::new();
        item(&mut out, &format!("{} `a b c d`", "x".repeat(92)));
        assert_eq!(out, format!("- {}\n  `a b c d`\n", "x".repeat(92)));
        out.clear();
        item(&mut out, &"word ".repeat(60));
        assert!(out.lines().all(|line| line.len() <= COLUMNS) && out.lines().count() == 4);
    }
}

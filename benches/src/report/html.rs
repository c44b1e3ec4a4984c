//! The report as one page that needs no other file.

use std::fmt::Write;

use super::{Report, groups, number, or_dash, plots, target, trimmed, with_unit};
use crate::row::{Figure, Row};

const STYLE: &str = include_str!("style.css");
const METHOD: &str = include_str!("method.md");

pub fn page(report: &Report) -> String {
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n");
    out.push_str("<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n");
    out.push_str("<title>pollmux beside its peers</title>\n<style>\n");
    out.push_str(STYLE);
    out.push_str("</style>\n</head>\n<body>\n<h1>pollmux beside its peers</h1>\n");
    let _ = writeln!(out, "<p>{}</p>", escape(&format!("{}.", report.summary())));
    machine(&mut out, report);
    method(&mut out);
    rows(&mut out, report);
    floor(&mut out, report);
    list(&mut out, "What is slower, or falls short", report.slower());
    let absent = report.absent().into_iter().map(|(name, reason)| format!("{name}: {reason}"));
    list(&mut out, "What was not here", absent.collect());
    out.push_str("</body>\n</html>\n");
    out
}

fn machine(out: &mut String, report: &Report) {
    out.push_str("<h2>The machine</h2>\n<table>\n");
    for (what, value) in report.facts() {
        let _ = writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(what), escape(&value));
    }
    out.push_str("</table>\n");
}

/// Writes the items of the method, from the Markdown.
fn method(out: &mut String) {
    out.push_str("<h2>Method</h2>\n<ul>\n");
    let section = METHOD.split("## Method").nth(1).unwrap_or("");
    let list = section.split("\n\n").find(|part| part.trim_start().starts_with("- "));
    for item in list.unwrap_or("").trim_start().trim_start_matches("- ").split("\n- ") {
        let text = item.split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "<li>{}</li>", inline(&text));
    }
    out.push_str("</ul>\n");
}

/// Converts code and bold text of Markdown.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = escape(part);
        if i % 2 == 1 {
            let _ = write!(out, "<code>{part}</code>");
        } else {
            for (i, part) in part.split("**").enumerate() {
                let _ =
                    if i % 2 == 1 { write!(out, "<b>{part}</b>") } else { write!(out, "{part}") };
            }
        }
    }
    out
}

fn rows(out: &mut String, report: &Report) {
    let plots = plots::all(report);
    for (group, about, rows) in groups(&report.rows) {
        let _ = writeln!(out, "<h2 id=\"{group}\">{}</h2>", escape(about));
        let _ = writeln!(
            out,
            "<p><code>cargo run --release -p pollmux-bench -- --only {group}/</code></p>"
        );
        for plot in plots.iter().filter(|plot| plot.name.split('-').next() == Some(group)) {
            let caption = escape(&plot.title);
            let _ = writeln!(
                out,
                "<figure>{}<figcaption>{caption}</figcaption></figure>",
                themed(&plot.svg)
            );
        }
        out.push_str(
            "<table>\n<tr><th>row</th><th>pollmux</th><th>best peer</th><th>ratio</th>\
             <th>gate</th><th>goal</th><th>met</th><th>counted</th></tr>\n",
        );
        rows.into_iter().for_each(|row| table_lines(out, row));
        out.push_str("</table>\n");
    }
}

/// Replaces the colours of a plot by those of the page.
fn themed(svg: &str) -> String {
    svg.replace("fill=\"#FFFFFF\"", "fill=\"none\"")
        .replace("stroke=\"#FFFFFF\"", "stroke=\"none\"")
        .replace("fill=\"#000000\"", "fill=\"currentColor\"")
        .replace("stroke=\"#000000\"", "stroke=\"currentColor\"")
        .replace("stroke=\"#F0F0F0\"", "stroke=\"var(--light)\"")
        .replace("stroke=\"#D7D7D7\"", "stroke=\"var(--line)\"")
}

fn table_lines(out: &mut String, row: &Row) {
    let unit = &*row.unit;
    let value = |x: Option<f64>| x.map_or("-".into(), |x| with_unit(x, unit));
    let ours = row.skipped.as_ref().map_or(value(row.value), |why| format!("skipped: {why}"));
    let peer = match (&row.peer, row.peer_value) {
        (Some(peer), Some(x)) => format!("{peer}: {}", with_unit(x, unit)),
        _ => "-".into(),
    };
    let _ = writeln!(
        out,
        "<tr><td><details><summary><b>{}</b><br>{}</summary>{}</details></td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{}</td><td>{}</td><td class=\"{met}\">{met}</td><td>{}</td></tr>",
        escape(&row.work),
        inline(&row.about),
        figures(&row.figures, unit),
        escape(&ours),
        escape(&peer),
        row.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x")),
        target(row.gate_ratio, row.gate_value, unit),
        target(row.goal_ratio, row.goal_value, unit),
        escape(&row.counted()),
        met = row.met,
    );
}

fn figures(figures: &[Figure], unit: &str) -> String {
    let mut out = format!(
        "<table><tr><th></th><th>median, {unit}</th><th>quartiles</th><th>allocations</th></tr>"
    );
    for figure in figures {
        let name = match &*figure.role {
            "beside" => format!("({})", figure.name),
            _ => figure.name.clone(),
        };
        let _ = match &figure.absent {
            Some(reason) => write!(
                out,
                "<tr><td>{}</td><td colspan=\"3\">not here: {}</td></tr>",
                escape(&name),
                escape(reason)
            ),
            None => write!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{} to {}</td><td>{}</td></tr>",
                escape(&name),
                or_dash(figure.value),
                or_dash(figure.q1),
                or_dash(figure.q3),
                figure.allocs.map_or("-".into(), trimmed)
            ),
        };
    }
    out.push_str("</table>");
    out
}

fn floor(out: &mut String, report: &Report) {
    if report.floor.is_empty() {
        return;
    }
    out.push_str("<h2>The floor</h2>\n<table>\n<tr><th></th><th>median</th><th>quartiles</th>");
    out.push_str("<th>p99</th></tr>\n");
    for line in &report.floor {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{} ns</td><td>{} to {}</td><td>{}</td></tr>",
            escape(&line.what),
            or_dash(line.ns),
            or_dash(line.q1),
            or_dash(line.q3),
            line.p99.map_or(String::new(), number)
        );
    }
    out.push_str("</table>\n");
}

fn list(out: &mut String, title: &str, items: Vec<String>) {
    let _ = writeln!(out, "<h2>{title}</h2>\n<ul>");
    if items.is_empty() {
        out.push_str("<li>Nothing.</li>\n");
    }
    for item in items {
        let _ = writeln!(out, "<li>{}</li>", inline(&item));
    }
    out.push_str("</ul>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_inside_a_line_becomes_html() {
        assert_eq!(inline("a **b** `c<d`"), "a <b>b</b> <code>c&lt;d</code>");
    }
}

//! Measures pollmux, its peers and the system, and writes the report.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

mod counting;
mod measure;
mod raw;
mod report;
mod row;
mod rows;

use report::Report;
use row::{Scale, Spec};

/// Measures pollmux beside its peers and the raw syscalls of this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Takes less than 6 minutes instead of half an hour
    #[arg(long)]
    quick: bool,
    /// Shows that everything runs, in a few seconds; the figures mean nothing
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Measures only the rows whose name contains this; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Prints the names of the rows
    #[arg(long)]
    list: bool,
    /// Writes machine, floor and rows as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let scale = match (args.smoke, args.quick) {
        (true, _) => Scale::Smoke,
        (_, true) => Scale::Quick,
        _ => Scale::Full,
    };
    let families = rows::all();
    let chosen = |spec: &Spec| {
        args.only.is_empty() || args.only.iter().any(|name| spec.work.contains(name.as_str()))
    };
    if args.list {
        let mut out = io::stdout().lock();
        for spec in families.iter().flat_map(|family| &family.rows).filter(|spec| chosen(spec)) {
            writeln!(out, "{:32} {}", spec.work, spec.about)?;
        }
        return Ok(());
    }
    let bar = ProgressBar::new(families.len() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {wide_msg}");
    bar.set_style(style.expect("a template that indicatif takes"));
    let begin = Instant::now();
    let mut report = Report::new(scale);
    for family in &families {
        let specs: Vec<&Spec> = family.rows.iter().filter(|spec| chosen(spec)).collect();
        if let Some(first) = specs.first() {
            bar.set_message(first.work.clone());
            let measured = family.measure(scale, &specs, &mut || bar.tick());
            for spec in specs {
                let row = spec.fill(&measured);
                bar.suspend(|| print!("{row}"));
                report.rows.push(row);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.seconds = begin.elapsed().as_secs_f64();
    if let Some(path) = args.json {
        fs::write(path, report.json())?;
    }
    println!("{}", report.summary());
    Ok(())
}

//! Measures pollmux, its peers and the system, and writes the report.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

mod counting;
mod floor;
mod machine;
mod measure;
mod native;
mod raw;
mod report;
mod row;
mod rows;

use measure::Run;
use report::Report;
use row::{Family, Scale, Spec};

/// Measures pollmux beside its peers and the raw syscalls of this machine.
///
/// Prints each row as soon as it is measured. The rows of one family are measured together. Compare
/// only rows of the same family, because the speed of the machine drifts.
#[derive(Debug, Parser)]
struct Args {
    /// Takes less than 6 minutes instead of 20
    #[arg(long)]
    quick: bool,
    /// Checks in half a minute that everything runs; the figures mean nothing
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
    /// Writes the report as one page that needs no other file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Writes the report as Markdown: `docs/BENCHMARKS.md`
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Writes the plots as SVG files: `docs/plots`
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Takes the rows from JSON files of earlier runs and measures nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "smoke", "only"])]
    from: Vec<PathBuf>,
    /// Runs one operation `--times` times, for a tool that counts
    #[arg(long, hide = true, value_name = "CONTESTANT", requires = "times")]
    count: Option<String>,
    #[arg(long, hide = true)]
    times: Option<u64>,
    /// Runs one contestant of the rows `million` once, with `--times` timers
    #[arg(long, hide = true, value_name = "CONTESTANT", requires = "times")]
    million: Option<String>,
    /// Sleeps with 10,000 idle sources, for a tool that counts
    #[arg(long, hide = true, value_name = "MILLIS")]
    idle: Option<u64>,
}

impl Args {
    fn scale(&self) -> Scale {
        match (self.smoke, self.quick) {
            (true, _) => Scale::Smoke,
            (_, true) => Scale::Quick,
            _ => Scale::Full,
        }
    }

    fn chooses(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if let (Some(name), Some(times)) = (&args.count, args.times) {
        rows::counted::contestant(name).run(Run::Times(times));
        return Ok(());
    }
    if let (Some(name), Some(timers)) = (&args.million, args.times) {
        rows::million::run_once(name, timers as usize);
        return Ok(());
    }
    if let Some(millis) = args.idle {
        rows::counted::idle(millis);
        return Ok(());
    }
    let families = rows::all();
    if args.list {
        let mut out = io::stdout().lock();
        for spec in families.iter().flat_map(|family| &family.rows) {
            if args.chooses(&spec.work) {
                writeln!(out, "{:28} {}", spec.work, spec.about)?;
            }
        }
        return Ok(());
    }
    let report = match read_all(&args.from)? {
        Some(report) => report,
        None => measure_all(&args, &families),
    };
    native::clean_up();
    if let Some(path) = &args.json {
        fs::write(path, report.json())?;
    }
    if let Some(path) = &args.html {
        fs::write(path, report::html::page(&report))?;
    }
    if let Some(path) = &args.markdown {
        fs::write(path, report::markdown::page(&report))?;
    }
    if let Some(folder) = &args.svg {
        fs::create_dir_all(folder)?;
        for plot in report::plots::all(&report) {
            fs::write(folder.join(format!("{}.svg", plot.name)), plot.svg)?;
        }
    }
    println!("{}", report.summary());
    Ok(())
}

/// Reads reports and merges them. Returns `None` if there is no file. The machine is that of the
/// first file.
fn read_all(files: &[PathBuf]) -> io::Result<Option<Report>> {
    let mut all: Option<Report> = None;
    for file in files {
        let report: Report = serde_json::from_slice(&fs::read(file)?)?;
        match &mut all {
            Some(all) => all.add(report),
            None => all = Some(report),
        }
    }
    Ok(all)
}

fn measure_all(args: &Args, families: &[Family]) -> Report {
    let scale = args.scale();
    // The bar is drawn only between slices, because a thread that draws would disturb the rows.
    // Without a terminal nothing is drawn.
    let bar = ProgressBar::new(families.len() as u64 + 1);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {spinner} {wide_msg}");
    bar.set_style(style.expect("a template that indicatif takes"));
    let begin = Instant::now();
    let mut report = Report::new(scale);
    if args.chooses("floor") {
        bar.set_message("the floor");
        report.floor = floor::measure(scale, &mut || bar.tick());
        bar.suspend(|| report.floor.iter().for_each(|line| println!("{line}")));
    }
    bar.inc(1);
    for family in families {
        let specs: Vec<&Spec> =
            family.rows.iter().filter(|spec| args.chooses(&spec.work)).collect();
        if let Some(first) = specs.first() {
            bar.set_message(first.work.clone());
            let measured = family.measure(scale, &specs, &mut || bar.tick());
            for spec in specs {
                let row = spec.fill(&measured);
                bar.suspend(|| print!("{row}"));
                report.rows.push(row);
            }
            report.keep_samples(&measured);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.seconds = begin.elapsed().max(Duration::from_millis(1)).as_secs_f64();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(only: &[&str]) -> Vec<String> {
        let args = only.iter().flat_map(|name| ["--only", name]);
        let args = Args::parse_from(["pollmux-bench"].into_iter().chain(args));
        let all = rows::all().into_iter().flat_map(|family| family.rows);
        all.map(|spec| spec.work).filter(|name| args.chooses(name)).collect()
    }

    #[test]
    fn only_chooses_rows_by_parts_of_their_names() {
        assert!(chosen(&[]).len() > 100);
        assert_eq!(chosen(&["turn/heart"]), ["turn/heartbeat"]);
        assert_eq!(chosen(&["http/1"]), ["http/1", "http/16"]);
        assert_eq!(chosen(&["turn/recv", "kernel/wake"]), ["turn/recv_timeout", "kernel/wake"]);
        assert!(chosen(&["nothing of this name"]).is_empty());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}

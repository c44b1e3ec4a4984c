//! Examples of Go's timers and tickers, each beside the same program with this crate. A page shows
//! the Go code, its meaning, the code here, and the output.
//!
//! `cargo run --release --example from_go` runs all sections in less than a second, and asserts
//! every result. `-- --list` lists the sections, and `-- after tick` runs two sections. The folder
//! `sections/` has one file for each chapter. `tests/examples/from_go.rs` runs the sections, too.

use std::io;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

mod sections;

struct Args {
    names: Vec<String>,
    list: bool,
}

impl Args {
    fn parse() -> Args {
        let about =
            "Examples of Go's timers and tickers, each beside the same program with pollmux";
        let names = Arg::new("names").value_name("NAME").num_args(0..);
        let list = Arg::new("list").long("list").action(ArgAction::SetTrue);
        let found = Command::new("from_go").about(about).args([
            names.help("The sections or chapters to run, by the names of --list [default: all]"),
            list.help("List the sections without running them"),
        ]);
        let mut found = found.get_matches();
        let names = found.remove_many("names").map_or_else(Vec::new, Iterator::collect);
        Args { names, list: found.get_flag("list") }
    }
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let chosen = match sections::choose(&args.names) {
        Ok(chosen) => chosen,
        Err(name) => {
            eprintln!("error: no section or chapter is named `{name}`: see --list");
            return Ok(ExitCode::from(2));
        }
    };
    if args.list {
        print!("{}", sections::listing(&chosen));
        return Ok(ExitCode::SUCCESS);
    }
    for (chapter, section) in &chosen {
        print!("{}", sections::page(chapter, section));
        (section.code.run)()?;
        println!();
    }
    println!("{} sections ran, and all assertions hold.", chosen.len());
    Ok(ExitCode::SUCCESS)
}

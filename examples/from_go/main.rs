//! Go's timers and tickers, example by example: what the Go code does, what is written here in its
//! place, and what that prints.
//!
//! `cargo run --release --example from_go` runs all sections, in less than a second, and asserts
//! every result; `-- --list` names them; `-- after tick` runs two. They are in `sections/`, a file
//! a chapter, and `tests/examples/from_go.rs` runs them too.

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
        let about = "Go's timers and tickers, example by example, beside what is written here in \
                     their place";
        let names = Arg::new("names").value_name("NAME").num_args(0..);
        let list = Arg::new("list").long("list").action(ArgAction::SetTrue);
        let found = Command::new("from_go").about(about).args([
            names.help("Sections or chapters to run, as --list names them; all without"),
            list.help("List the sections and run none"),
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
            eprintln!("error: no section or chapter is named `{name}`: --list names them");
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
    println!("{} sections, and every result was as asserted.", chosen.len());
    Ok(ExitCode::SUCCESS)
}

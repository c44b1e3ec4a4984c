//! The chapters and their sections, and how they are printed.
//!
//! To add a section: a function `fn name() -> io::Result<()>` in a chapter's file, which prints
//! with `say!` and asserts what it finds, and a [`Section`] in the list at the head of that file.
//! The code shown is read from the file itself, so it is the code that runs. To add a
//! chapter: a file with a `CHAPTER`, and its name in [`CHAPTERS`].

use std::fmt::{self, Write};
use std::io;
use std::time::Duration;

/// `println!`, below the heading "Output".
macro_rules! say {
    ($($text:tt)*) => { $crate::sections::say(format_args!($($text)*)) };
}

/// The [`Code`] of a section: a function of the chapter's file, and the functions of that file to
/// be shown with it.
macro_rules! code {
    ($function:ident $(, with $($helper:ident),*)?) => {
        $crate::sections::Code {
            name: stringify!($function),
            run: $function,
            helpers: &[$($(stringify!($helper)),*)?],
        }
    };
}

pub mod cancelling;
pub mod draining;
pub mod goodtimer;
pub mod heartbeats;
pub mod loops;
pub mod stopping;
pub mod tickers;
pub mod timers;

/// In the order in which they are printed.
pub const CHAPTERS: &[Chapter] = &[
    heartbeats::CHAPTER,
    timers::CHAPTER,
    loops::CHAPTER,
    draining::CHAPTER,
    goodtimer::CHAPTER,
    tickers::CHAPTER,
    stopping::CHAPTER,
    cancelling::CHAPTER,
];

/// The sections of one file.
pub struct Chapter {
    /// The name on the command line: the file's name.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
    pub sections: &'static [Section],
}

/// One Go example, and ours.
pub struct Section {
    pub title: &'static str,
    /// The Go code, in brief.
    pub go: &'static str,
    /// The behavior of Go, and the difference here. Filled into lines when printed; an empty
    /// line parts paragraphs.
    pub meaning: &'static str,
    pub code: Code,
}

/// The code that a section shows and runs. Made by `code!`.
pub struct Code {
    /// The function's name, which the command line uses.
    pub name: &'static str,
    pub run: fn() -> io::Result<()>,
    /// Functions that are shown before this one.
    pub helpers: &'static [&'static str],
}

const WIDTH: usize = 100;
const INDENT: &str = "    ";

pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Prints lines of a section's output. Paths begin at the root, wherever this file is a module.
pub fn say(text: fmt::Arguments<'_>) {
    let above = file!().trim_end_matches("examples/from_go/sections/mod.rs");
    for line in text.to_string().replace(above, "").lines() {
        assert!(line.chars().count() + INDENT.len() <= WIDTH, "a line too long: {line}");
        println!("{INDENT}{line}");
    }
}

type Chosen = Vec<(&'static Chapter, &'static Section)>;

/// The sections that are named, or whose chapters are, in order; all of them when there are no
/// names. The error is a name that nothing has.
pub fn choose(names: &[String]) -> Result<Chosen, String> {
    let all =
        || CHAPTERS.iter().flat_map(|chapter| chapter.sections.iter().map(move |s| (chapter, s)));
    let has = |(chapter, section): &(&Chapter, &Section), name: &String| {
        name == chapter.name || name == section.code.name
    };
    match names.iter().find(|name| !all().any(|item| has(&item, name))) {
        Some(unknown) => Err(unknown.clone()),
        None => Ok(all()
            .filter(|item| names.is_empty() || names.iter().any(|name| has(item, name)))
            .collect()),
    }
}

/// The chapters, sections and titles of what was chosen.
pub fn listing(chosen: &Chosen) -> String {
    let mut out = String::new();
    let mut last = "";
    for (chapter, section) in chosen {
        if chapter.name != last {
            writeln!(out, "{}", chapter.name).unwrap();
            last = chapter.name;
        }
        writeln!(out, "{INDENT}{:<24}{}", section.code.name, section.title).unwrap();
    }
    out
}

/// Everything of a section but its output.
pub fn page(chapter: &Chapter, section: &Section) -> String {
    let Code { name, helpers, .. } = section.code;
    let mut out = String::new();
    writeln!(out, "{:=<WIDTH$}", format!("== {}: {} ", name, section.title)).unwrap();
    let mut part = |heading: &str, lines: Vec<String>| {
        writeln!(out, "{heading}").unwrap();
        for line in lines {
            writeln!(out, "{}", format!("{INDENT}{line}").trim_end()).unwrap();
        }
        out.push('\n');
    };
    part("Go", section.go.trim().lines().map(|line| line.replace('\t', INDENT)).collect());
    part("What it means", fill(section.meaning, WIDTH - INDENT.len()));
    let mut code = Vec::new();
    for helper in helpers {
        let (_, lines) = function(chapter.text, helper);
        code.extend(lines.iter().map(|line| line.to_string()));
        code.push(String::new());
    }
    let (at, lines) = function(chapter.text, name);
    let body = &lines[1..lines.len() - 1];
    let body = body.strip_suffix(&["    Ok(())"]).unwrap_or(body);
    code.extend(body.iter().map(|line| line.strip_prefix(INDENT).unwrap_or(line).to_string()));
    part(&format!("Here (examples/from_go/sections/{}.rs:{at})", chapter.name), code);
    writeln!(out, "Output").unwrap();
    out
}

/// The lines of a function of a formatted file, from its `fn` to its brace, and the number of the
/// first.
fn function<'t>(text: &'t str, name: &str) -> (usize, Vec<&'t str>) {
    let head = format!("fn {name}(");
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with(&head));
    let (at, first) =
        lines.next().unwrap_or_else(|| panic!("no function {name} in the chapter's text"));
    let mut found = vec![first];
    for (_, line) in lines {
        found.push(line);
        if line == "}" {
            break;
        }
    }
    (at + 1, found)
}

/// Breaks paragraphs into lines of `width` at most.
fn fill(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for paragraph in text.trim().split("\n\n") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

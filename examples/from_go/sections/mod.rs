//! The chapters and their sections, and the functions that print them.
//!
//! To add a section, write a function `fn name() -> io::Result<()>` in a chapter's file. The
//! function prints with `say!`, and asserts its results. Then add a [`Section`] to the list at the
//! head of that file. A page shows the code of the file itself, so the shown code is the code that
//! runs. To add a chapter, write a file with a `CHAPTER`, and add its name to [`CHAPTERS`].

use std::fmt::{self, Write};
use std::io;
use std::time::Duration;

/// Prints lines like `println!`, indented below the heading "Output".
macro_rules! say {
    ($($text:tt)*) => { $crate::sections::say(format_args!($($text)*)) };
}

/// Makes the [`Code`] of a section from a function of the chapter's file. `with` adds helper
/// functions of that file, which the page shows, too.
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

/// The chapters in the order of the pages.
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

/// A chapter: the sections of one file.
pub struct Chapter {
    /// The name of the chapter on the command line, which is the file's name.
    pub name: &'static str,
    /// The text of the file.
    pub text: &'static str,
    pub sections: &'static [Section],
}

/// A section: a Go example, and the same program with this crate.
pub struct Section {
    pub title: &'static str,
    /// The Go code, shortened.
    pub go: &'static str,
    /// The behavior of Go, and the difference here. An empty line separates paragraphs. The page
    /// breaks the text into lines.
    pub meaning: &'static str,
    pub code: Code,
}

/// The code that a section shows and runs. The macro `code!` makes this.
pub struct Code {
    /// The function's name, which is the section's name on the command line.
    pub name: &'static str,
    pub run: fn() -> io::Result<()>,
    /// The functions that the page shows before this function.
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

/// Prints lines of a section's output. Paths in the output start at the repository's root.
pub fn say(text: fmt::Arguments<'_>) {
    let above = file!().trim_end_matches("examples/from_go/sections/mod.rs");
    for line in text.to_string().replace(above, "").lines() {
        assert!(line.chars().count() + INDENT.len() <= WIDTH, "the line is too long: {line}");
        println!("{INDENT}{line}");
    }
}

type Chosen = Vec<(&'static Chapter, &'static Section)>;

/// Returns the sections with the given names, and the sections of chapters with these names.
/// Returns all sections if `names` is empty. The error is an unknown name.
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

/// Returns a list of the chosen chapters and sections, with titles.
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

/// Returns the page of a section without the output.
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
    part("Meaning", fill(section.meaning, WIDTH - INDENT.len()));
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

/// Returns the line number of a function in a formatted file, and the function's lines.
fn function<'t>(text: &'t str, name: &str) -> (usize, Vec<&'t str>) {
    let head = format!("fn {name}(");
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with(&head));
    let (at, first) =
        lines.next().unwrap_or_else(|| panic!("the chapter's file has no function {name}"));
    let mut found = vec![first];
    for (_, line) in lines {
        found.push(line);
        if line == "}" {
            break;
        }
    }
    (at + 1, found)
}

/// Breaks paragraphs into lines of at most `width` characters.
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

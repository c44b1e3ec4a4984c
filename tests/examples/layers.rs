//! Checks the architecture and the form of the sources. Imports point down only. `unsafe` stays in
//! the allowed layers and has a reason. Only `sys` uses libc. Lines have at most 100 columns, and a
//! file of `src` with more than 500 lines has a reason. A test name has at most eight words.
//!
//! The tests read the sources as text, and blank comments, strings and characters for the rules of
//! the architecture. A rule is a function from a file to its violations, so that tests can apply a
//! rule to a wrong file, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from top to bottom. A layer imports from itself and from the layers after it.
const LAYERS: [&str; 9] =
    ["select", "context", "sim", "sources", "reactor", "driver", "channel", "wake", "sys"];
/// The layers that may use `sync`, the atomics and locks that loom replaces. `sync` is beside the
/// layers, and uses `sys` only.
const SYNC_USERS: [&str; 7] = ["context", "sim", "sources", "channel", "reactor", "driver", "wake"];
/// The guide: documentation only, in no layer.
const GUIDE: &str = "guide";
/// The files and folders of `reactor/`, from top to bottom, by the same rule. `mod` is `mod.rs`.
const REACTOR: [&str; 41] = [
    "models",
    "mod",
    "one_thread",
    "slot",
    "embed",
    "listing",
    "builder",
    "remote",
    "wait",
    "events",
    "by_id",
    "turn",
    "spin",
    "tidy",
    "callbacks",
    "before_sleep",
    "fds",
    "channels",
    "fork",
    "core",
    "key",
    "stats",
    "parts/mod",
    "parts/channels",
    "parts/table",
    "parts/timers",
    "parts/heap",
    "parts/ready",
    "parts/slots",
    "parts/fds",
    "parts/mailbox",
    "parts/spinner",
    "parts/usage",
    "parts/counters",
    "parts/sites",
    "parts/asks",
    "parts/callbacks",
    "parts/clock",
    "parts/closure",
    "parts/timer_id",
    "parts/priority",
];
/// The layers that may hold `unsafe`.
const UNSAFE: [&str; 3] = ["sys", "channel", "reactor"];
/// The most lines between an `unsafe` and its reason above.
const REASON_WITHIN: usize = 6;
/// The most characters in a line.
const COLUMNS: usize = 100;
/// The most lines in a file of `src` without a reason.
const LINES: usize = 500;
/// The most words in the name of a test: the parts between underscores.
const WORDS: usize = 8;
/// The beginning of a comment at the top of a file that gives the reason for its length.
const LONGER: &str = "Longer than 500 lines: ";

struct File {
    /// The path relative to `src`, with slashes. For some rules the path is relative to the root.
    name: String,
    text: String,
    /// `text` with comments, strings and characters blanked. The line numbers are the same.
    code: String,
}

impl File {
    fn new(name: &str, text: &str) -> File {
        File { name: name.into(), text: text.into(), code: code_only(text) }
    }

    /// Returns the module path of the file: `reactor/timers.rs` is `["reactor", "timers"]`, and
    /// `lib.rs` is the root.
    fn module(&self) -> Vec<&str> {
        let stem = self.name.trim_end_matches(".rs");
        stem.split('/').filter(|part| !matches!(*part, "lib" | "mod")).collect()
    }

    fn layer(&self) -> Option<&str> {
        self.module().first().copied()
    }
}

fn sources() -> Vec<File> {
    let src = root().join("src");
    let files = files_below(&src, &src);
    assert!(files.len() > 10, "only {} sources were found", files.len());
    files
}

/// Returns all Rust files of this crate and of the crates beside it.
fn all_files() -> Vec<File> {
    let folders = ["src", "tests", "examples", "benches"];
    let mut files = vec![read(&root(), &root().join("build.rs"))];
    for folder in folders {
        let found = files_below(&root(), &root().join(folder));
        assert!(!found.is_empty(), "{folder} has no Rust file");
        files.extend(found);
    }
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(base: &Path, path: &Path) -> File {
    let name = path.strip_prefix(base).expect("below the base").to_string_lossy();
    File::new(&name.replace('\\', "/"), &fs::read_to_string(path).expect("a source file"))
}

/// Returns the Rust files in `folder` and below it, with names relative to `base`.
fn files_below(base: &Path, folder: &Path) -> Vec<File> {
    let (mut folders, mut files): (Vec<PathBuf>, Vec<File>) = (vec![folder.into()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(read(base, &path));
            }
        }
    }
    files
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Blanks comments, strings and character literals, and keeps the line breaks.
fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i) = (String::with_capacity(text.len()), 0);
    while i < chars.len() {
        let begin = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            ('r', '"' | '#') if begin == 0 || !is_word(at(begin - 1)) || at(begin - 1) == 'b' => {
                let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
                if at(i + 1 + hashes) != '"' {
                    out.push('r'); // a raw identifier
                    i += 1;
                    continue;
                }
                i += hashes + 2;
                let closes = |i: usize| at(i) == '"' && (i + 1..=i + hashes).all(|j| at(j) == '#');
                while i < chars.len() && !closes(i) {
                    i += 1;
                }
                i += 1 + hashes;
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                out.push(c);
                i += 1;
                continue;
            }
        }
        let end = i.min(chars.len());
        out.extend(chars[begin..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
    }
    out
}

/// Returns the positions of `word` as a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Returns the number of inline `mod name { .. }` that are open at `at`.
fn inline_depth(code: &str, at: usize) -> usize {
    let (mut open, mut modules, mut from) = (0usize, Vec::new(), 0);
    for (i, c) in code[..at].char_indices() {
        match c {
            '{' => {
                let head: Vec<&str> = code[from..i].split_whitespace().collect();
                if head.len() >= 2 && head[head.len() - 2] == "mod" {
                    modules.push(open);
                }
                open += 1;
                from = i + 1;
            }
            '}' => {
                open = open.saturating_sub(1);
                if modules.last() == Some(&open) {
                    modules.pop();
                }
                from = i + 1;
            }
            ';' => from = i + 1,
            _ => {}
        }
    }
    modules.len()
}

/// Returns the paths of the use tree at the beginning of `rest`. A list in braces has several.
fn paths(rest: &str) -> Vec<Vec<String>> {
    let rest = rest.trim_start();
    let Some(list) = rest.strip_prefix('{') else {
        let end = rest.find(|c: char| !is_word(c) && c != '*').unwrap_or(rest.len());
        let (name, more) = (rest[..end].to_string(), rest[end..].strip_prefix("::"));
        let tails = more.map_or_else(|| vec![Vec::new()], paths);
        return tails.into_iter().map(|tail| [vec![name.clone()], tail].concat()).collect();
    };
    let (mut found, mut depth, mut begin) = (Vec::new(), 0usize, 0);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.extend(paths(&list[begin..i]));
                begin = i + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found.retain(|path| path.iter().any(|name| !name.is_empty()));
    found
}

/// Returns the paths that the file names by `crate::..` or `super::..`, with their lines. The paths
/// start at the root of the crate.
fn imports(file: &File) -> Vec<(usize, Vec<String>)> {
    let code = &file.code;
    let mut found = Vec::new();
    let mut add = |at: usize, base: &[&str], rest: &str| {
        let whole = |path| base.iter().map(|name| name.to_string()).chain(path).collect();
        found.extend(paths(rest).into_iter().map(|path| (line_of(code, at), whole(path))));
    };
    // A macro names the crate's public items by `$crate`, so these are no imports.
    for at in words(code, "crate").filter(|&at| !code[..at].ends_with('$')) {
        if let Some(rest) = code[at + "crate".len()..].strip_prefix("::") {
            add(at, &[], rest);
        }
    }
    // Only the first `super` of a path counts.
    for at in words(code, "super").filter(|&at| !code[..at].ends_with("super::")) {
        let (mut rest, mut up) = (&code[at..], 0usize);
        while let Some(more) = rest.strip_prefix("super::") {
            (rest, up) = (more, up + 1);
        }
        let module = file.module();
        // Inside an inline module the first `super`s lead to the file's own module.
        let above = up.saturating_sub(inline_depth(code, at));
        if (1..=module.len()).contains(&above) {
            add(at, &module[..module.len() - above], rest);
        }
    }
    found
}

/// Returns the paths that the file names in `reactor/`, with their lines. The paths start there.
fn imports_in_reactor(file: &File) -> Vec<(usize, Vec<String>)> {
    let inside = |(line, path): (usize, Vec<String>)| match path.split_first() {
        Some((first, rest)) if first == "reactor" && !rest.is_empty() => {
            Some((line, rest.to_vec()))
        }
        _ => None,
    };
    imports(file).into_iter().filter_map(inside).collect()
}

/// Returns the file or folder in [`REACTOR`] to which a path in `reactor/` leads.
fn unit_of(path: &[String]) -> &'static str {
    let known = |name: &str| REACTOR.iter().copied().find(|&unit| unit == name);
    match path {
        [parts, name, ..] if parts == "parts" => {
            known(&format!("parts/{name}")).unwrap_or("parts/mod")
        }
        [parts] if parts == "parts" => "parts/mod",
        [name, ..] => known(name).unwrap_or("mod"),
        [] => "mod",
    }
}

fn wrong_imports_in_reactor(file: &File) -> Vec<String> {
    let module = file.module();
    let Some(("reactor", own)) = module.split_first().map(|(first, own)| (*first, own)) else {
        return Vec::new();
    };
    let own: Vec<String> = own.iter().map(|name| name.to_string()).collect();
    let rank = |unit: &str| REACTOR.iter().position(|&other| other == unit);
    let from = unit_of(&own);
    let at_home = own.is_empty() || from != "mod" && (from != "parts/mod" || own.len() == 1);
    let mut wrong = Vec::new();
    if !at_home {
        let text = "give the file a rank in tests/examples/layers.rs";
        wrong.push(format!("src/{}: {text}", file.name));
    }
    for (line, path) in imports_in_reactor(file) {
        let to = unit_of(&path);
        if to != from && rank(from) >= rank(to) {
            let path = path.join("::");
            wrong.push(format!(
                "src/{}:{line}: {from} imports {path} of {to}: import downwards only, and by the \
                 name of the file",
                file.name
            ));
        }
    }
    wrong
}

fn may_import(from: &str, to: &str) -> Result<(), &'static str> {
    let rank = |layer: &str| LAYERS.iter().position(|&l| l == layer);
    match (from, to) {
        _ if from == to => Ok(()),
        (_, "sync") if SYNC_USERS.contains(&from) => Ok(()),
        (_, "sync") => Err("only context, sim, channel, reactor, driver and wake use sync"),
        ("sync", "sys") => Ok(()),
        ("sync", _) => Err("sync uses sys only"),
        _ => match (rank(from), rank(to)) {
            (Some(from), Some(to)) if from < to => Ok(()),
            (Some(_), Some(_)) => Err("imports point down only"),
            (None, _) => Err("the file is in no layer: give it one in tests/examples/layers.rs"),
            (_, None) => Err("import from the item's module, not from the root's re-export"),
        },
    }
}

fn wrong_imports(file: &File) -> Vec<String> {
    // lib.rs re-exports from everywhere.
    let Some(layer) = file.layer().filter(|&layer| layer != GUIDE) else { return Vec::new() };
    let mut wrong = Vec::new();
    if layer != "sync" && !LAYERS.contains(&layer) {
        wrong.push(format!(
            "src/{}: the file is in no layer: give it one in tests/examples/layers.rs",
            file.name
        ));
    }
    for (line, path) in imports(file) {
        let to = &path[0];
        if let Err(why) = may_import(layer, to) {
            wrong.push(format!("src/{}:{line}: {layer} imports {to}: {why}", file.name));
        }
    }
    wrong
}

fn misplaced_unsafe(file: &File) -> Vec<String> {
    if file.layer().is_some_and(|layer| UNSAFE.contains(&layer)) {
        return Vec::new();
    }
    let at = |at| {
        format!(
            "src/{}:{}: only sys, channel and reactor may use unsafe",
            file.name,
            line_of(&file.code, at)
        )
    };
    words(&file.code, "unsafe").map(at).collect()
}

fn unexplained_unsafe(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let explained = |line: usize| {
        let from = line.saturating_sub(1 + REASON_WITHIN);
        lines[from..line].iter().any(|line| line.contains("SAFETY:"))
    };
    words(&file.code, "unsafe")
        .filter(|at| {
            let rest = file.code[at + "unsafe".len()..].trim_start();
            rest.starts_with('{') || rest.starts_with("impl")
        })
        .map(|at| line_of(&file.code, at))
        .filter(|&line| !explained(line))
        .map(|line| {
            format!(
                "src/{}:{line}: no SAFETY comment within {REASON_WITHIN} lines above",
                file.name
            )
        })
        .collect()
}

fn misplaced_libc(file: &File) -> Vec<String> {
    if file.layer() == Some("sys") {
        return Vec::new();
    }
    let at = |at| format!("src/{}:{}: only sys may use libc", file.name, line_of(&file.code, at));
    words(&file.code, "libc").map(at).collect()
}

fn wide_lines(file: &File) -> Vec<String> {
    let lines = (1..).zip(file.text.lines()).map(|(line, text)| (line, text.chars().count()));
    lines
        .filter(|&(_, width)| width > COLUMNS)
        .map(|(line, width)| {
            format!("{}:{line}: {width} columns are more than {COLUMNS}", file.name)
        })
        .collect()
}

fn long_test_names(file: &File) -> Vec<String> {
    let tests = file.code.match_indices("#[test]").filter_map(|(at, attribute)| {
        let rest = &file.code[at + attribute.len()..];
        let name = rest[words(rest, "fn").next()? + "fn".len()..].trim_start();
        Some((at, name.split(|c: char| !is_word(c)).next()?))
    });
    let count = |name: &str| name.split('_').filter(|word| !word.is_empty()).count();
    tests
        .map(|(at, name)| (line_of(&file.code, at), name, count(name)))
        .filter(|(.., count)| *count > WORDS)
        .map(|(line, name, count)| {
            format!("{}:{line}: the name {name} has {count} words, more than {WORDS}", file.name)
        })
        .collect()
}

fn unexplained_length(file: &File) -> Vec<String> {
    let count = file.text.lines().count();
    let top = file.text.lines().take_while(|line| line.is_empty() || line.starts_with("//"));
    let reason = |line: &str| {
        let text = line.trim_start_matches(['/', '!']).trim_start();
        text.strip_prefix(LONGER).is_some_and(|reason| !reason.trim().is_empty())
    };
    if count <= LINES || top.into_iter().any(reason) {
        return Vec::new();
    }
    let advice = format!("split the file, or write at its top: `//! {LONGER}<reason>.`");
    vec![format!("src/{}: {count} lines are more than {LINES}: {advice}", file.name)]
}

#[track_caller]
fn holds(rule: fn(&File) -> Vec<String>) {
    let wrong: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn imports_point_down_only() {
    holds(wrong_imports);
}

#[test]
fn imports_inside_the_reactor_point_down_only() {
    holds(wrong_imports_in_reactor);
    let sources = sources();
    let core = sources.iter().find(|file| file.name == "reactor/core.rs").expect("the file");
    assert!(imports_in_reactor(core).len() > 10, "the imports were not found");
    for unit in REACTOR {
        let is_there = |file: &File| {
            [format!("reactor/{unit}.rs"), format!("reactor/{unit}/mod.rs")].contains(&file.name)
        };
        assert!(sources.iter().any(is_there), "reactor/{unit} does not exist");
    }
}

/// Prints each import between files of `reactor/`, for a drawing.
#[test]
#[ignore = "prints the imports, and checks nothing"]
fn print_the_imports_of_the_reactor() {
    let mut edges = BTreeSet::new();
    for file in sources().iter().filter(|file| file.layer() == Some("reactor")) {
        let own: Vec<String> = file.module()[1..].iter().map(|name| name.to_string()).collect();
        let is_test = |path: &[String]| path.last().is_some_and(|name| name == "*");
        for (_, path) in imports_in_reactor(file).iter().filter(|(_, path)| !is_test(path)) {
            edges.insert((own.join("/"), path[..path.len().min(2)].join("/")));
        }
    }
    let to_file =
        |path: &str| unit_of(&path.split('/').map(String::from).collect::<Vec<_>>()).to_string();
    for (from, to) in &edges {
        let (from, to) = (to_file(from), to_file(to));
        if from != to {
            println!("import {from} {to}");
        }
    }
}

#[test]
fn unsafe_is_in_sys_channel_and_reactor_only() {
    holds(misplaced_unsafe);
}

#[test]
fn every_unsafe_has_a_reason() {
    holds(unexplained_unsafe);
}

#[test]
fn libc_is_used_in_sys_only() {
    holds(misplaced_libc);
}

#[test]
fn lines_have_at_most_100_columns() {
    let wrong: Vec<String> = all_files().iter().flat_map(wide_lines).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn test_names_have_at_most_eight_words() {
    let fuzz = files_below(&root(), &root().join("fuzz/src"));
    let files = all_files().into_iter().chain(fuzz);
    let wrong: Vec<String> = files.flat_map(|file| long_test_names(&file)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn source_files_have_at_most_500_lines() {
    holds(unexplained_length);
}

#[test]
fn the_rules_find_the_existing_imports() {
    let sources = sources();
    let imported_by = |name: &str| {
        let file = sources.iter().find(|file| file.name == name).expect("the file is there");
        imports(file).into_iter().map(|(_, mut path)| path.swap_remove(0)).collect::<Vec<_>>()
    };
    assert!(imported_by("reactor/mod.rs").contains(&"driver".to_string()));
    assert!(imported_by("sync/mod.rs").contains(&"sys".to_string()));
    let unsafe_blocks: usize = sources.iter().map(|file| words(&file.code, "unsafe").count()).sum();
    assert!(unsafe_blocks > 10, "only {unsafe_blocks} uses of unsafe were found");
}

/// Asserts the number of violations. A row has a file's name, its text and this number.
#[track_caller]
fn finds(rule: fn(&File) -> Vec<String>, rows: &[(&str, &str, usize)]) {
    for (name, text, wrong) in rows {
        assert_eq!(rule(&File::new(name, text)).len(), *wrong, "{name}: {text}");
    }
}

#[test]
fn an_upward_import_is_found() {
    let rows = [
        ("sys/epoll.rs", "use crate::driver::Wait;", 1),
        ("driver/mod.rs", "use crate::{\n    sys::{Time, Poller},\n    reactor::Handle,\n};", 1),
        ("channel/mod.rs", "fn f() { crate::reactor::closed(); }", 1),
        ("reactor/mod.rs", "use super::select::Cases;", 1),
        ("reactor/timers.rs", "use super::super::sources::Timer;", 1),
        ("reactor/timers.rs", "mod tests { use super::super::super::sources::Timer; }", 1),
        ("sources/timer.rs", "use crate::Handle;", 1),
        ("select/mod.rs", "use crate::sync::Mutex;", 1),
        ("wake/mod.rs", "use crate::channel::Sender;", 1),
        ("channel/mod.rs", "use crate::reactor::Handle;", 1),
        ("sync.rs", "use crate::reactor::Handle;", 1),
        ("elsewhere.rs", "", 1),
    ];
    finds(wrong_imports, &rows);
}

#[test]
fn a_wrong_import_inside_the_reactor_is_found() {
    let rows = [
        ("reactor/core.rs", "use super::turn::Blocked;", 1),
        ("reactor/core.rs", "use super::{fds, parts::{heap::{self, NEVER}, slots}};", 1),
        ("reactor/turn.rs", "use super::{Core, wait::Patience};", 2),
        ("reactor/turn.rs", "use super::core::Core;\nuse crate::reactor::Handle;", 1),
        ("reactor/parts/ready.rs", "use super::heap::Heap;", 1),
        ("reactor/parts/ready.rs", "use super::{slots::{Slots, record}, asks::Ask};", 0),
        ("reactor/parts/slots/record.rs", "use super::super::table::Table;", 1),
        ("reactor/parts/slots/record.rs", "use super::Slots; use super::super::fds;", 0),
        ("reactor/parts/asks.rs", "use super::counters::Count;", 1),
        ("reactor/parts/counters.rs", "use crate::reactor::parts::table::Table;", 1),
        ("reactor/slot/fd.rs", "use super::Slot; use crate::reactor::core::Core;", 0),
        ("reactor/embed.rs", "use super::slot::Slot;", 1),
        ("reactor/wait.rs", "mod tests { use super::*; use super::super::slot; }", 1),
        ("reactor/elsewhere.rs", "", 1),
        ("reactor/parts/elsewhere.rs", "", 1),
        ("sources/fd.rs", "use crate::reactor::Slot;", 0),
    ];
    finds(wrong_imports_in_reactor, &rows);
}

#[test]
fn a_downward_import_is_allowed() {
    let driver = "use super::ready::Ready; use crate::{sync::Mutex, driver::{Wait, Wake}};";
    let text =
        "//! use crate::driver::Wait;\n/* crate::select */ const A: &str = \"crate::select\";";
    let rows = [
        ("reactor/timers.rs", driver, 0),
        ("reactor/mod.rs", "mod tests { use super::select; use super::super::driver::Wait; }", 0),
        ("sync.rs", "mod real { pub(super) use super::anything; use crate::sys::fence; }", 0),
        ("sys/mod.rs", text, 0),
        ("sys/mod.rs", "macro_rules! m { () => { $crate::select!() } }", 0),
        ("lib.rs", "pub use crate::select::private;", 0),
    ];
    finds(wrong_imports, &rows);
}

#[test]
fn a_wrong_unsafe_or_libc_is_found() {
    let no_reason = "fn f() {\n    unsafe { g() }\n}\nunsafe impl Send for X {}";
    let too_far = format!("// SAFETY: far away\n{}unsafe {{ g() }}", "\n".repeat(REASON_WITHIN));
    let near = format!("// SAFETY: near\n{}unsafe {{ g() }}", "\n".repeat(REASON_WITHIN - 1));
    let file = "sys/epoll.rs";
    finds(unexplained_unsafe, &[(file, no_reason, 2), (file, &too_far, 1), (file, &near, 0)]);
    let rows = [
        ("select/mod.rs", "unsafe { g() }", 1),
        ("select/mod.rs", "#![deny(unsafe_code)] // no unsafe", 0),
        ("channel/ring.rs", "unsafe { g() }", 0),
    ];
    finds(misplaced_unsafe, &rows);
    let file = "driver/native.rs";
    finds(misplaced_libc, &[(file, "let fd = libc::dup(1);", 1), (file, "// as libc says", 0)]);
}

#[test]
fn a_line_of_101_columns_is_found() {
    let wrong = |text: &str| wide_lines(&File::new("tests/api/wait.rs", text));
    let (fits, wide) = ("x".repeat(COLUMNS), "x".repeat(COLUMNS + 1));
    assert_eq!(wrong(&format!("{fits}\n{fits}")), Vec::<String>::new());
    assert_eq!(
        wrong(&format!("{fits}\n{wide}\n{fits}\n{wide}")),
        [2, 4].map(|n| format!("tests/api/wait.rs:{n}: 101 columns are more than 100"))
    );
    // Comments and strings count. The width is in characters, not in bytes.
    assert_eq!(wrong(&format!("// {fits}")).len(), 1);
    assert_eq!(wrong(&format!("\"{fits}\"")).len(), 1);
    assert_eq!(wrong(&"µ".repeat(COLUMNS)).len(), 0);
    assert_eq!(wrong(&"µ".repeat(COLUMNS + 1)).len(), 1);
}

#[test]
fn a_test_name_of_nine_words_is_found() {
    let wrong = |text: &str| long_test_names(&File::new("tests/api/wait.rs", text));
    let (fits, long) = ("fn a_b_c_d_e_f_g_h() {}\n", "fn a_b_c_d_e_f_g_h_i() {}\n");
    assert_eq!(wrong(&format!("#[test]\n{fits}#[test]\n{fits}")), Vec::<String>::new());
    assert_eq!(
        wrong(&format!("#[test]\n{fits}\n#[test]\n{long}")),
        ["tests/api/wait.rs:4: the name a_b_c_d_e_f_g_h_i has 9 words, more than 8"]
    );
    // Attributes and comments may stand between. Other functions and macros have no limit.
    let between = "#[test]\n#[cfg_attr(flat, ignore = \"fn a\")]\n// fn a\n";
    assert_eq!(wrong(&format!("{between}{long}")).len(), 1);
    assert_eq!(wrong(&format!("{long}#[test]\nfn $name() {{}}\n// #[test]\n{long}")).len(), 0);
}

#[test]
fn a_file_of_501_lines_is_found() {
    let wrong = |top: &str, lines: usize| {
        let text = format!("{top}{}", "x\n".repeat(lines - top.lines().count()));
        unexplained_length(&File::new("sys/epoll.rs", &text)).len()
    };
    assert_eq!(wrong("", LINES), 0);
    assert_eq!(wrong("", LINES + 1), 1);
    assert_eq!(wrong("//! The poller.\n", LINES + 1), 1);
    // The reason is at the top, in the docs or in a comment, and is not empty.
    assert_eq!(wrong(&format!("//! The poller.\n//!\n//! {LONGER}it must.\n"), LINES + 1), 0);
    assert_eq!(wrong(&format!("// {LONGER}it must.\n\n//! The poller.\n"), LINES + 1), 0);
    assert_eq!(wrong(&format!("//! {LONGER}\n"), LINES + 1), 1);
    assert_eq!(wrong(&format!("use std::io;\n//! {LONGER}it must.\n"), LINES + 1), 1);
}

#[test]
fn code_only_keeps_only_the_code() {
    let text = "a /* b /* c */ d */ e // f\n\"g\\\" // h\" 'i' '\\'' r#\"j\"k\"# &'l m r#n \
                \"two\nlines\" o";
    let words: Vec<String> = code_only(text).split_whitespace().map(String::from).collect();
    assert_eq!(words, ["a", "e", "&'l", "m", "r#n", "o"]);
    assert_eq!(code_only(text).matches('\n').count(), text.matches('\n').count());
}

//! Checks the documents: they name tests, files and functions that exist, and keep their form.
//!
//! The tests read the documents as text. After a rename that forgets a document, a test fails and
//! prints the line to change.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use support::sections;

/// The documents, from the root of the repository.
const DOCUMENTS: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/DESIGN.md",
    "docs/PROMISES.md",
    "docs/BENCHMARKS.md",
    "docs/EXPERIMENTS.md",
    "docs/PLATFORMS.md",
    "tests/README.md",
];
/// The pages of the guide, below the root.
const GUIDE: &str = "src/guide";
/// The languages of code blocks that no doctest compiles.
const OTHER_LANGUAGES: [&str; 5] = ["text", "sh", "c", "python", "go"];
const RULES: usize = 31;
const COLUMNS: usize = 100;
const README_WORDS: usize = 1_200;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: impl AsRef<Path>) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    entries.map(|entry| entry.expect("an entry").path())
}

/// Returns `src` and every folder below `src`.
fn source_folders() -> Vec<PathBuf> {
    let mut folders = vec![root().join("src")];
    let mut next = 0;
    while next < folders.len() {
        folders.extend(entries(&folders[next].clone()).filter(|path| path.is_dir()));
        next += 1;
    }
    folders
}

fn source_files() -> Vec<PathBuf> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    source_folders().iter().flat_map(|folder| entries(folder)).filter(is_rust).collect()
}

/// Returns the text of all source files.
fn source_code() -> String {
    source_files().iter().map(read).collect()
}

/// Returns the texts between backticks, with their lines. Skips code blocks.
fn quoted(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut block) = (Vec::new(), false);
    for (line, text) in text.lines().enumerate() {
        if text.trim_start().starts_with("```") {
            block = !block;
        } else if !block {
            found.extend(text.split('`').skip(1).step_by(2).map(|quoted| (line + 1, quoted)));
        }
    }
    found
}

/// Returns true if `name` stands in `code` as a whole word.
fn has_word(code: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Parses `timers.rs::one_arm_gives_one_value` into a file and a test in this file.
fn named_test(quoted: &str) -> Option<(PathBuf, &str)> {
    let (file, name) = quoted.split_once(".rs::")?;
    let file = format!("{file}.rs");
    Some((if file.starts_with("src/") { file.into() } else { Path::new("tests").join(file) }, name))
}

fn names_missing_tests(document: &str, text: &str) -> Vec<String> {
    let is_missing = |quoted: &str| {
        let Some((file, name)) = named_test(quoted) else { return false };
        !fs::read_to_string(root().join(file)).is_ok_and(|code| has_word(&code, name))
    };
    let missing = quoted(text).into_iter().filter(|(_, quoted)| is_missing(quoted));
    missing.map(|(line, quoted)| format!("{document}:{line}: there is no {quoted}")).collect()
}

/// Reports missing files (`timers.rs`) and folders (`src/sys/`). Names may start at any folder of
/// the sources, the tests and the examples.
fn names_missing_files(document: &str, text: &str) -> Vec<String> {
    let is_name = |quoted: &str| {
        let is_plain = |c: char| c.is_alphanumeric() || "_-./".contains(c);
        quoted.chars().all(is_plain)
            && !quoted.contains("..")
            && (quoted.ends_with(".rs") || quoted.ends_with(".md") || quoted.ends_with('/'))
    };
    let mut folders = source_folders();
    folders.extend(
        ["", "tests", "tests/api", "tests/examples", "tests/system", "examples"]
            .map(|folder| root().join(folder)),
    );
    let is_there = |name: &str| folders.iter().any(|folder| folder.join(name).exists());
    let named = quoted(text).into_iter().filter(|(_, quoted)| is_name(quoted));
    let missing = named.filter(|(_, name)| !is_there(name));
    missing.map(|(line, name)| format!("{document}:{line}: there is no {name}")).collect()
}

/// Returns the words that follow `fn`, `pub` and `mod` in the code.
fn declared(code: &str) -> HashSet<&str> {
    let is_end = |c: char| !c.is_alphanumeric() && c != '_';
    let behind = ["fn ", "pub ", "mod "].map(|word| code.split(word).skip(1));
    behind.into_iter().flatten().filter_map(|rest| rest.split(is_end).next()).collect()
}

/// Reports missing functions, fields and modules, such as `Core::arm` and `select::run`.
fn names_missing_functions(document: &str, text: &str, code: &HashSet<&str>) -> Vec<String> {
    let is_missing = |quoted: &str| {
        let Some((owner, name)) = quoted.split_once("::") else { return false };
        let is_plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c == '_');
        let is_lower = name.starts_with(|c: char| c.is_lowercase());
        is_plain(owner) && is_plain(name) && is_lower && !code.contains(name)
    };
    let missing = quoted(text).into_iter().filter(|(_, quoted)| is_missing(quoted));
    missing.map(|(line, quoted)| format!("{document}:{line}: there is no {quoted}")).collect()
}

/// Reports links to missing files. A link starts at the folder of its document.
fn has_dead_links(document: &str, text: &str) -> Vec<String> {
    let folder = root().join(document).parent().expect("a document is in a folder").to_path_buf();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !folder.join(target).exists())
        .map(|target| format!("{document}: there is no {target}"))
        .collect()
}

fn has_long_lines(document: &str, text: &str) -> Vec<String> {
    let too_long = text.lines().enumerate().filter(|(_, line)| line.chars().count() > COLUMNS);
    too_long.map(|(line, _)| format!("{document}:{}: too many columns", line + 1)).collect()
}

/// Returns the code blocks, each with its line, its language and its lines without indentation.
fn code_blocks(text: &str) -> Vec<(usize, &str, String)> {
    let (mut blocks, mut open): (Vec<_>, Option<(_, _, String)>) = (Vec::new(), None);
    for (line, text) in text.lines().enumerate() {
        match (text.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((line + 1, language, String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((.., block))) => *block += &format!("{}\n", text.trim()),
            (None, None) => {}
        }
    }
    blocks
}

/// Reports blocks of Rust that no doctest runs and no example with other crates contains.
fn unquoted_blocks(document: &str, text: &str, examples: &[String]) -> Vec<String> {
    let is_quoted = |block: &str| examples.iter().any(|example| example.contains(block));
    let is_wrong = |(_, language, block): &(usize, &str, String)| match *language {
        "ignore" => !is_quoted(block),
        "" | "rust" => false,
        language => !OTHER_LANGUAGES.contains(&language),
    };
    let wrong = code_blocks(text).into_iter().filter(is_wrong);
    wrong.map(|(line, ..)| format!("{document}:{line}: no test runs or holds this block")).collect()
}

/// Returns the name and the text of each page of the guide.
fn pages() -> Vec<(String, String)> {
    let page = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".md")?.to_owned();
        Some((name, read(&path)))
    };
    entries(&root().join(GUIDE)).filter_map(page).collect()
}

/// Returns the texts of the examples in `examples/more`, without indentation.
fn examples_with_other_crates() -> Vec<String> {
    let files = entries(&root().join("examples/more")).filter(|path| path.is_file());
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned() + "\n").collect();
    files.map(|path| lines(&read(path))).collect()
}

#[track_caller]
fn holds(rule: impl Fn(&str, &str) -> Vec<String>) {
    let wrong: Vec<String> = DOCUMENTS.iter().flat_map(|name| rule(name, &read(name))).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn documents_name_tests_that_exist() {
    holds(names_missing_tests);
}

#[test]
fn documents_name_files_that_exist() {
    holds(names_missing_files);
    holds(has_dead_links);
}

#[test]
fn documents_name_functions_that_exist() {
    let code = source_code();
    let declared = declared(&code);
    holds(|document, text| names_missing_functions(document, text, &declared));
}

#[test]
fn documents_have_at_most_100_columns() {
    holds(has_long_lines);
}

#[test]
fn every_rule_has_a_test() {
    let (design, tests) = (read("docs/DESIGN.md"), read("tests/README.md"));
    let mut rule = 0;
    let mut tested = BTreeSet::new();
    for line in tests.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            [_, number, ..] if number.starts_with("**") => {
                rule = number.trim_matches('*').parse().expect("the number of a rule");
            }
            [_, "", test, ..] if named_test(test.trim_matches('`')).is_some() => {
                tested.insert(rule);
            }
            _ => {}
        }
    }
    for rule in 1..=RULES {
        let heading = format!("\n#### Rule {rule}: ");
        assert!(design.contains(&heading), "docs/DESIGN.md has no rule {rule}");
        assert!(tested.contains(&rule), "tests/README.md names no test of rule {rule}");
    }
}

/// Reports the sections with a `###` heading that name no test.
fn sections_without_tests(document: &str, text: &str) -> Vec<String> {
    let without = sections(text).into_iter().filter(|(_, tests)| tests.is_empty());
    without.map(|(heading, _)| format!("{document}: no test holds \"{heading}\"")).collect()
}

#[test]
fn every_promise_and_bound_names_a_test() {
    for (document, least) in [("docs/PROMISES.md", 15), ("SECURITY.md", 12)] {
        let text = read(document);
        let headings = sections(&text).len();
        assert!(headings >= least, "{document} has {headings} sections");
        assert_eq!(sections_without_tests(document, &text), Vec::<String>::new());
    }
    let promises = read("docs/PROMISES.md");
    let count = |text: &str| promises.lines().filter(|line| line.starts_with(text)).count();
    assert_eq!(count("### "), count("**Limits.**"), "a promise has no paragraph of limits");
}

#[test]
fn every_test_file_has_a_row() {
    let (text, tests) = (read("tests/README.md"), root().join("tests"));
    let has_row = |path: &Path| {
        let name = path.strip_prefix(&tests).expect("below the tests").to_string_lossy();
        let name = if path.is_dir() { format!("{name}/") } else { name.into_owned() };
        text.contains(&format!("\n| `{name}` |"))
    };
    let is_listed = |path: &Path| path.is_dir() || path.extension().is_some_and(|end| end == "rs");
    for path in entries(&tests).filter(|path| is_listed(path)) {
        assert!(has_row(&path), "no row for {}", path.display());
    }
    for folder in ["api", "examples", "model", "system"].map(|folder| tests.join(folder)) {
        let is_file = |path: &PathBuf| is_listed(path) && !path.ends_with("main.rs");
        for path in entries(&folder).filter(is_file) {
            assert!(has_row(&path), "no row for {}", path.display());
        }
    }
}

#[test]
fn the_readme_is_short() {
    let words = read("README.md").split_whitespace().count();
    assert!(words < README_WORDS, "{words} words");
}

#[test]
fn every_block_of_the_guide_is_tested() {
    let (pages, examples) = (pages(), examples_with_other_crates());
    let wrong = |(name, text): &(String, String)| {
        let name = format!("{GUIDE}/{name}.md");
        let rules = [names_missing_files(&name, text), has_long_lines(&name, text)];
        [rules.concat(), unquoted_blocks(&name, text, &examples)].concat()
    };
    assert!(pages.len() > 10, "the guide was not found");
    assert_eq!(pages.iter().flat_map(wrong).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(unquoted_blocks("README.md", &read("README.md"), &[]), Vec::<String>::new());
}

#[test]
fn the_front_page_lists_all_guide_pages() {
    let (front, list) = (read("src/lib.rs"), read(format!("{GUIDE}/mod.rs")));
    for (page, _) in pages() {
        assert!(list.contains(&format!("]({page})")), "the guide's list has no {page}");
        assert!(has_word(&front, &format!("guide::{page}")), "the front page has no {page}");
    }
}

/// Reports headings in docs with another spelling or order than elsewhere. Errors come first, then
/// panics, then costs.
fn has_other_headings(document: &str, text: &str) -> Vec<String> {
    const ORDER: [&str; 3] = ["Errors", "Panics", "Cost"];
    const WRONG: [&str; 6] = ["Error", "Panic", "Costs", "Example", "Examples", "Safe"];
    let (mut wrong, mut last) = (Vec::new(), 0);
    for (line, text) in (1..).zip(text.lines().map(str::trim_start)) {
        let Some(doc) = text.strip_prefix("///").or_else(|| text.strip_prefix("//!")) else {
            last = 0;
            continue;
        };
        let Some(heading) = doc.trim_start().strip_prefix("# ") else { continue };
        let rank = ORDER.iter().position(|&name| name == heading);
        if WRONG.contains(&heading) || rank.is_some_and(|rank| rank < last) {
            wrong.push(format!("{document}:{line}: the heading `{heading}`"));
        }
        last = rank.unwrap_or(last);
    }
    wrong
}

#[test]
fn docs_have_one_form() {
    let files = source_files().into_iter();
    let wrong =
        files.flat_map(|file| has_other_headings(&file.display().to_string(), &read(&file)));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_wrong_document_is_found() {
    let tests = |text| names_missing_tests("x.md", text).len();
    assert_eq!(tests("`examples/layers.rs::imports_point_down_only` `src/lib.rs::Reactor`"), 0);
    assert_eq!(tests("`examples/layers.rs::imports_point_down` `nowhere.rs::a_test`"), 2);
    assert_eq!(tests("```\n`nowhere.rs::a_test`\n```"), 0);

    let files = |text| names_missing_files("x.md", text).len();
    assert_eq!(files("`documents.rs` `src/sys/` `reactor/mod.rs` `nowhere.rs` `nowhere/`"), 2);
    let functions = |text| names_missing_functions("x.md", text, &declared("fn arm() {}")).len();
    assert_eq!(functions("`Core::arm` `Core::armed` `Interest::NONE` `a::b::c`"), 1);

    let sections = |text| sections_without_tests("x.md", text).len();
    assert_eq!(sections("## A\n### b\n- `a.rs::b`\n### c\n- **Your part:** `a.rs::b`\n## D"), 1);

    let blocks = |text| unquoted_blocks("x.md", text, &["a\nlet b = 1;\nc\n".to_string()]).len();
    assert_eq!(blocks("```ignore\n  let b = 1;\n```\n```\nlet x = 1;\n```\n```text\n```"), 0);
    assert_eq!(blocks("```ignore\n  let b = 2;\n```\n```rust,ignore\n```\n```no_run\n```"), 3);

    let headings = |text| has_other_headings("x.rs", text).len();
    assert_eq!(headings("/// # Errors\n/// # Cost\nfn f()\n/// # Errors\n/// # Memory"), 0);
    assert_eq!(headings("/// # Cost\n/// # Errors\n//! # Costs"), 2);

    let links = "[a](DESIGN.md) [b](../README.md#x) [c](README.md)";
    assert_eq!(has_dead_links("docs/x.md", links).len(), 1);
    assert_eq!(has_long_lines("x.md", &"é".repeat(COLUMNS)).len(), 0);
    assert_eq!(has_long_lines("x.md", &"é".repeat(COLUMNS + 1)).len(), 1);
}

//! The sections of a document, and the tests that they name.

/// Returns the sections that begin with `###`: each heading, and the tests of its list, such as
/// `api/timers.rs::one_arm_gives_one_value`.
pub fn sections(text: &str) -> Vec<(&str, Vec<&str>)> {
    let parts = text.split("\n## ").flat_map(|part| part.split("\n### ").skip(1));
    let listed =
        |line: &'_ str| line.strip_prefix("- `").is_some_and(|item| item.contains(".rs::"));
    parts
        .map(|section| {
            let (heading, body) = section.split_once('\n').unwrap_or((section, ""));
            let tests = body.lines().filter(|line| listed(line));
            (heading, tests.filter_map(|line| line.split('`').nth(1)).collect())
        })
        .collect()
}

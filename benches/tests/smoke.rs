//! Tests that the program runs, and that its report has every row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pollmux-bench");

fn names_of_rows() -> BTreeSet<String> {
    let output = Command::new(PROGRAM).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
}

/// Runs each contestant for a moment. The figures mean nothing.
#[test]
fn each_row_is_measured_or_gives_a_reason() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = |name: &str| folder.join(name);
    let status = Command::new(PROGRAM)
        .arg("--smoke")
        .arg("--json")
        .arg(file("report.json"))
        .arg("--html")
        .arg(file("report.html"))
        .arg("--markdown")
        .arg(file("report.md"))
        .arg("--svg")
        .arg(file("plots"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());

    let text = fs::read_to_string(file("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let found = rows.iter().map(|row| row["work"].as_str().unwrap().to_string()).collect();
    assert_eq!(names_of_rows(), found);
    for row in rows {
        assert!(row["value"].is_number() != row["skipped"].is_string(), "{row}");
        for figure in row["figures"].as_array().unwrap() {
            assert!(figure["value"].is_number() != figure["absent"].is_string(), "{row}");
        }
    }
    assert!(report["floor"].as_array().unwrap().len() > 20);

    let page = fs::read_to_string(file("report.html")).unwrap();
    let markdown = fs::read_to_string(file("report.md")).unwrap();
    for row in found_in(&report) {
        assert!(page.contains(&row) && markdown.contains(&row), "{row}");
    }
    // The page needs no other file, and the text names only plots that exist.
    assert!(!page.contains("src=") && !page.contains("href="));
    for part in markdown.split("](plots/").skip(1) {
        assert!(file("plots").join(part.split(')').next().unwrap()).exists(), "{part}");
    }
}

fn found_in(report: &serde_json::Value) -> impl Iterator<Item = String> {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().map(|row| row["work"].as_str().unwrap().to_string())
}

#[test]
fn only_measures_the_chosen_rows() {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("only.json");
    let status = Command::new(PROGRAM)
        .args(["--smoke", "--only", "ops/reset", "--only", "sys/look", "--json"])
        .arg(&json)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let mut rows: Vec<String> = found_in(&report).collect();
    rows.sort();
    assert_eq!(rows, ["ops/reset", "sys/look"]);
    assert!(report["floor"].as_array().unwrap().is_empty());
}

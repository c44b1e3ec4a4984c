//! Wrong cases of a `select!` do not compile, and the compiler says what is wrong with them.
//!
//! The wrong programs are the binaries of a small crate, written next to the build's other temporary files and checked by cargo once. So the test is not bound to how
//! one compiler prints its errors: each program has to fail with our words, and a right one has to pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// (name, the inside of `main` behind the preamble, what the compiler must say)
const WRONG: [(&str, &str, &str); 14] = [
    ("no_reactor", "select! { recv(inbox) -> _x => {} }", "a select! begins with the reactor"),
    ("nothing", "select! { reactor; }", "a select! needs at least one case"),
    ("no_item", "select! { reactor; recv(inbox) => {} }", "a recv case names what it receives"),
    (
        "no_value",
        "select! { reactor; send(outbox) -> _r => {} }",
        "a send case has an outbox, a value and a result",
    ),
    (
        "no_result",
        "select! { reactor; send(outbox, 1) => {} }",
        "a send case has an outbox, a value and a result",
    ),
    (
        "two_defaults",
        "select! { reactor; default => {} default => {} }",
        "a select! has at most one default case",
    ),
    (
        "default_and_timeout",
        "select! { reactor; recv(inbox) -> _x => {} default => {} default(Duration::ZERO) => {} }",
        "a select! has at most one default case",
    ),
    (
        "two_errors",
        "select! { reactor; recv(inbox) -> _x => {} error -> _e => {} error -> _e => {} }",
        "a select! has at most one error case",
    ),
    (
        "late_biased",
        "select! { reactor; recv(inbox) -> _x => {} biased; }",
        "`biased;` comes first in a select!",
    ),
    ("unknown", "select! { reactor; receive(inbox) -> _x => {} }", "not a case of a select!: `receive`"),
    ("not_a_source", "let five = 5; select! { reactor; recv(five) -> _x => {} }", "Source"),
    ("not_an_outbox", "select! { reactor; send(inbox, 1) -> _r => {} }", "Outgoing"),
    ("wrong_value", "select! { reactor; send(outbox, \"one\") -> _r => {} }", "mismatched types"),
    ("too_many", "@33@", "a select! has at most 32 recv and send cases"),
];

/// The same preamble with something right.
const RIGHT: &str = "select! { reactor; recv(inbox) -> _x => {} send(outbox, 1) -> _r => {} default => {} }";

const PREAMBLE: &str = "#![allow(unused)]
use pollmux::{Reactor, select};
use std::time::Duration;
fn main() {
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel::<i32>(1).unwrap();
    let outbox = reactor.register(tx).unwrap();
";

fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join(name), text).expect("a file");
}

fn project() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_errors");
    let manifest = format!(
        "[package]\nname = \"wrong\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\npollmux = {{ path = {root:?} }}\n[workspace]\n"
    );
    write(&folder, "Cargo.toml", &manifest);
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("the lock file");
    for (name, inside, _) in WRONG {
        let cases = "recv(inbox) -> _x => {} ".repeat(33);
        let inside = inside.replace("@33@", &format!("select! {{ reactor; {cases} }}"));
        write(&folder.join("src/bin"), &format!("{name}.rs"), &format!("{PREAMBLE}{inside}\n}}\n"));
    }
    write(&folder.join("src/bin"), "right.rs", &format!("{PREAMBLE}{RIGHT}\n}}\n"));
    folder
}

#[test]
fn a_wrong_case_is_a_readable_compile_error() {
    let folder = project();
    let check = |name: &str| {
        // `build`, not `check`: the number of cases is counted when the code is generated.
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--quiet", "--color=never", "--bin", name])
            .current_dir(&folder)
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .env_remove("RUSTFLAGS")
            .output()
            .expect("cargo runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (passed, said) = check("right");
    assert!(passed, "the right program does not compile:\n{said}");
    for (name, inside, expected) in WRONG {
        let (passed, said) = check(name);
        assert!(!passed, "{name} compiles: {inside}");
        assert!(said.contains(expected), "{name}: {inside}\ndoes not say `{expected}`, but:\n{said}");
    }
}

//! Tests of compile errors: a wrong `select!` does not compile, and the error names the mistake.
//!
//! The wrong programs are the modules of a small crate in the build's temporary folder, and cargo
//! checks the crate. Each wrong program must fail with our words, and the right program must pass.
//! So the test does not depend on the form of a compiler's errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wrong programs, in two lines each. The first line has a name and the expected words. The
/// second line is the body of `main` after the preamble.
const WRONG: &str = r#"
no_reactor: a select! begins with the reactor
    select! { recv(inbox) -> _x => {} }
nothing: a select! needs at least one case
    select! { reactor; }
no_item: a recv case names what it receives
    select! { reactor; recv(inbox) => {} }
no_value: a send case has an outbox, a value and a result
    select! { reactor; send(outbox) -> _r => {} }
no_result: a send case has an outbox, a value and a result
    select! { reactor; send(outbox, 1) => {} }
two_defaults: a select! has at most one default case
    select! { reactor; default => {} default => {} }
default_and_timeout: a select! has at most one default case
    select! { reactor; recv(inbox) -> _x => {} default => {} default(Duration::ZERO) => {} }
two_errors: a select! has at most one error case
    select! { reactor; recv(inbox) -> _x => {} error -> _e => {} error -> _e => {} }
late_biased: `biased;` comes first in a select!
    select! { reactor; recv(inbox) -> _x => {} biased; }
unknown: not a case of a select!: `receive`
    select! { reactor; receive(inbox) -> _x => {} }
tokios: not a case of a select!: `x`
    select! { reactor; x = inbox => {} }
else_case: not a case of a select!: `else`
    select! { reactor; recv(inbox) -> _x => {} else => {} }
no_comma: a comma stands behind an arm without braces
    select! { reactor; recv(inbox) -> x => drop(x) recv(inbox) -> _x => {} }
no_comma_behind_a_send: a comma stands behind an arm without braces
    select! { reactor; send(outbox, 1) -> x => drop(x) recv(inbox) -> _x => {} }
if_let: `if let` binds names that the case could not use
    select! { reactor; recv(inbox, if let Some(_) = Some(1)) -> _x => {} }
if_let_of_a_send: `if let` binds names that the case could not use
    select! { reactor; send(outbox, 1, if let Some(_) = Some(1)) -> _x => {} }
a_guard_behind_the_pattern: write recv(source, if condition)
    select! { reactor; recv(inbox) -> _x if true => {} default => {} }
a_guard_of_a_send_behind_the_pattern: send(outbox, value, if condition)
    select! { reactor; send(outbox, 1) -> _x if true => {} }
not_a_source: is not a source that a reactor can wait for
    let five = 5; select! { reactor; recv(five) -> _x => {} }
a_receiver: reactor.register(rx)?
    select! { reactor; recv(bare_rx) -> _x => {} }
a_receiver_among_others: `pollmux::channel::Receiver<i32>` is not a source
    select! { reactor; recv(inbox) -> _x => {} recv(bare_rx) -> _x => {} default => {} }
a_receiver_by_reference: reactor.register(rx)?
    select! { reactor; recv(&bare_rx) -> _x => {} }
a_receiver_perhaps: reactor.register(rx)?
    select! { reactor; recv(Some(bare_rx)) -> _x => {} }
a_receiver_alone: reactor.register(rx)?
    reactor.recv(&bare_rx);
a_receiver_in_a_set: reactor.register(rx)?
    pollmux::Select::new(&reactor).recv(&bare_rx);
a_duration_for_a_time: a duration from now: `reactor.now() + d`
    reactor.at(Duration::ZERO);
a_time_of_day: a time of day, as `SystemTime` is one: `reactor.wall_timer()?`
    reactor.timer().reset_at(std::time::SystemTime::now());
a_duration_for_a_deadline: `Duration` is not a point in time
    pollmux::Context::background().with_deadline(Duration::ZERO);
a_sender_in_a_set: points to no outbox: a send case cannot send through it
    pollmux::Select::new(&reactor).send(&bare_tx);
an_inbox_sent_in_a_set: an outbox: `select.send(&outbox)`
    pollmux::Select::new(&reactor).send(&inbox);
a_sender_received: in a case `send(outbox, value)`
    select! { reactor; recv(bare_tx) -> _x => {} }
an_outbox_received: is not a source that a reactor can wait for
    select! { reactor; recv(outbox) -> _x => {} }
a_duration: `reactor.after(d)`
    select! { reactor; recv(Duration::ZERO) -> _x => {} }
a_socket: reactor.fd(io, Interest::READABLE)?
    select! { reactor; recv(std::io::stdin()) -> _x => {} }
a_foreign_channel: `reactor.notifier()` makes a bell
    select! { reactor; recv(theirs) -> _x => {} }
a_result: a `Result`: unwrap it, or add `?`
    select! { reactor; recv(reactor.every(Duration::ZERO)) -> _x => {} }
not_an_outbox: is no outbox: a `send` case cannot send through it
    select! { reactor; send(inbox, 1) -> _r => {} }
a_sender: let outbox = reactor.register(tx)?
    select! { reactor; send(bare_tx, 1) -> _r => {} }
a_sender_perhaps: reactor.register(tx)?
    select! { reactor; send(Some(bare_tx), 1) -> _r => {} }
a_receiver_sent: in a case `recv(inbox)`
    select! { reactor; send(bare_rx, 1) -> _r => {} }
wrong_value: mismatched types
    select! { reactor; send(outbox, "one") -> _r => {} }
too_many: a select! has at most 32 recv and send cases
    @33@
registered_twice: cannot be registered with a reactor
    reactor.register(inbox);
registered_though_a_source: whatever else is a `Source` already: use it as it is
    reactor.register(reactor.timer());
no_arrow: in `recv(inbox)`: an arrow stands between the source and the item
    select! { reactor; recv(inbox) _x => {} }
an_equals_sign: an arrow stands between the source and the item
    select! { reactor; recv(inbox) = _x => {} }
arrows_the_wrong_way: between `->` and `=>`: recv(inbox) -> item
    select! { reactor; recv(inbox) => _x -> {} }
no_pattern: between `->` and `=>`: recv(inbox) -> item
    select! { reactor; recv(inbox) -> => {} }
no_arm_arrow: in `recv(inbox)`: a recv case is recv(source) -> pattern => arm
    select! { reactor; recv(inbox) -> _x {} }
no_arm: a recv case is recv(source) -> pattern => arm
    select! { reactor; recv(inbox) -> _x => }
no_arm_of_default: a case without an arm: write `=> {}`
    select! { reactor; default => }
no_parentheses: in parentheses: recv(inbox) -> item
    select! { reactor; recv inbox -> _x => {} }
no_parentheses_of_a_send: send(outbox, value) -> result
    select! { reactor; send outbox, 1 -> _x => {} }
no_source: a recv case has a source
    select! { reactor; recv() -> _x => {} }
two_sources: a recv case has one source, and perhaps a condition
    select! { reactor; recv(inbox, inbox) -> _x => {} }
two_values: a send case has an outbox, a value and a result
    select! { reactor; send(outbox, 1, 2) -> _x => {} }
comma_behind_the_reactor: begins with the reactor and a semicolon
    select! { reactor, recv(inbox) -> _x => {} }
biased_for_the_reactor: begins with the reactor, and `biased;` follows
    select! { biased; recv(inbox) -> _x => {} }
comma_behind_biased: `biased;` comes first in a select!
    select! { reactor; biased, recv(inbox) -> _x => {} }
semicolon: in `recv (inbox)`: separate cases by commas
    select! { reactor; recv(inbox) -> x => drop(x); recv(inbox) -> _x => {} }
semicolon_behind_a_send: in `send (outbox, 1)`: separate cases by commas
    select! { reactor; send(outbox, 1) -> x => drop(x); }
semicolon_behind_a_block: `;`: separate cases by commas
    select! { reactor; recv(inbox) -> _x => {}; recv(inbox) -> _x => {} }
semicolon_behind_default: `;`: separate cases by commas
    select! { reactor; default => drop(outbox); }
no_comma_behind_default: separate cases by commas
    select! { reactor; default => drop(outbox) recv(inbox) -> _x => {} }
two_commas: `,`: one comma separates two cases
    select! { reactor; recv(inbox) -> _x => {},, default => {} }
a_timeout: a timeout is the case default(timeout) => ..
    select! { reactor; recv(inbox) -> _x => {} timeout(Duration::ZERO) => {} }
an_after: a timeout is the case default(timeout) => ..
    select! { reactor; recv(inbox) -> _x => {} after(Duration::ZERO) -> _ => {} }
a_default_with_an_item: a default case receives nothing
    select! { reactor; default(Duration::ZERO) -> _x => {} }
a_default_with_two: default(timeout) => .. with one duration
    select! { reactor; default(Duration::ZERO, 1) => {} }
a_default_with_a_condition: a default case receives nothing, and has no condition
    select! { reactor; recv(inbox) -> _x => {} default if true => {} }
a_nameless_error: an error case names the error of the driver: error -> e => ..
    select! { reactor; recv(inbox) -> _x => {} error => {} }
an_error_in_parentheses: error -> e => ..
    select! { reactor; recv(inbox) -> _x => {} error(e) => {} }
an_underscore: default => .. is the case for when nothing is ready
    select! { reactor; recv(inbox) -> _x => {} _ => {} }
a_future: recv(source) -> x => ..
    select! { reactor; x = std::future::ready(1) => {} }
a_pattern_first: recv(source) -> Some (x) => ..
    select! { reactor; Some(x) = inbox => {} }
an_await: `std`; there are recv(source) -> item => .. for everything that gives items
    select! { reactor; std::future::ready(1).await => {} }
a_word_of_go: `case`: leave the word out
    select! { reactor; case recv(inbox) -> _x => {} }
accepts: not a case of a select!: `accept`; there are recv(source)
    select! { reactor; accept(inbox) -> _x => {} }
a_guard_behind_the_parentheses: a case has no `if` here: write recv(source, if condition)
    select! { reactor; recv(inbox) if true -> _x => {} }
a_guard_behind_a_comma: a case has no `if` here: write recv(source, if condition)
    select! { reactor; recv(inbox), if true -> _x => {} }
a_guard_without_a_comma: a case has no `if` here: write recv(source, if condition)
    select! { reactor; recv(inbox if true) -> _x => {} }
a_guard_of_a_send_without_a_comma: a case has no `if` here
    select! { reactor; send(outbox, 1 if true) -> _x => {} }
a_guard_that_is_no_bool: expected `bool`, found integer
    select! { reactor; recv(inbox, if 1) -> _x => {} }
no_reactor_yet: a `Result`: unwrap it, or add `?`
    select! { Reactor::new(); recv(inbox) -> _x => {} }
a_number_for_the_reactor: `{integer}` is not a reactor
    select! { 5; recv(inbox) -> _x => {} }
a_shared_reactor: an `Rc` or a `Box`: `*reactor`
    let reactor = std::rc::Rc::new(reactor); select! { reactor; recv(inbox) -> _x => {} }
a_remote_for_the_reactor: `Remote` is not a reactor
    select! { reactor.remote(); default => {} }
a_number_for_the_reactor_of_a_set: is not a reactor
    pollmux::Select::new(&5);
a_future_received: a future: poll it elsewhere
    select! { reactor; recv(std::future::ready(1)) -> _x => {} }
no_driver: is not a driver that a reactor can wait through
    Reactor::with_driver(5);
no_driver_yet: a `Result`: unwrap it, or add `?`
    Reactor::builder().build_with(pollmux::driver::Native::new());
no_waker: `{integer}` cannot wake a driver
    let waker: std::sync::Arc<dyn pollmux::driver::Wake> = std::sync::Arc::new(5);
no_clock: an `OsTimer` cannot be on the clock `u32`
    fn f(timer: pollmux::OsTimer<u32>) {}
no_verdict: does not say if a run has failed
    pollmux::SimWorld::search(0..2, |_| 5);
a_reactor_on_a_thread: let remote = reactor.remote()
    std::thread::spawn(move || drop(reactor));
a_handle_on_a_thread: a reactor, its handles and its sources stay on the reactor's thread
    let handle = reactor.handle(); std::thread::spawn(move || handle.now());
a_handle_shared_with_a_thread: let remote = reactor.remote()
    std::thread::scope(|scope| { scope.spawn(|| reactor.now()); });
a_handle_in_an_arc: let remote = reactor.remote()
    let handle = std::sync::Arc::new(reactor.handle()); std::thread::spawn(move || handle.now());
a_handle_in_a_message: let remote = reactor.remote()
    let (to, _) = pollmux::channel::bounded(1); std::thread::spawn(move || to.send(reactor));
an_inbox_on_a_thread: let remote = reactor.remote()
    std::thread::spawn(move || inbox.len());
an_outbox_in_a_post: let remote = reactor.remote()
    reactor.remote().post(move |_| drop(outbox));
a_timer_in_a_struct: let remote = reactor.remote()
    struct It(pollmux::Timer); let it = It(reactor.timer()); std::thread::spawn(|| drop({ it }));
a_reactor_in_a_static: let remote = reactor.remote()
    static REACTOR: std::sync::OnceLock<Reactor> = std::sync::OnceLock::new();
an_inbox_in_a_member: make the reactor there
    pollmux::SimWorld::new(1).spawn("a", move |_| { drop(inbox); Ok(()) });
a_shared_receiver: a channel has one receiver, on one thread at a time
    std::thread::scope(|scope| { scope.spawn(|| bare_rx.recv()); });
a_receiver_in_an_arc: bring the channel of another crate
    let rx = std::sync::Arc::new(bare_rx); std::thread::spawn(move || rx.recv());
"#;

/// Returns the name, the body of `main` and the expected words of each wrong program.
fn wrong() -> Vec<(&'static str, &'static str, &'static str)> {
    let lines: Vec<&str> = WRONG.trim().lines().collect();
    let program = |pair: &[&'static str]| {
        let (name, said) = pair[0].split_once(": ").expect("a name and the expected words");
        (name, pair[1].trim(), said)
    };
    lines.chunks(2).map(program).collect()
}

/// Private names, which a user can neither see nor look up.
const PRIVATE: [&str; 6] = ["Cases", "Sending<", "Pick", "Impossible", "Chunk", "Core"];

/// A right program with the same preamble.
const RIGHT: &str =
    "select! { reactor; recv(inbox) -> _x => {} send(outbox, 1) -> _r => {} default => {} }
    let n = wait_for!(reactor, inbox, Ok(_) | Err(_), 1 + 1);
    let n: u8 = wait_for!(reactor, inbox, _, { n });
    all_fragments!(reactor, inbox, outbox, n, { 2 }, 3, panic!());
    select! { reactor; recv(inbox) -> Ok(1 | 2) | Err(_) | Ok(_) => {} error -> _ | _ => {} }
    select! { reactor; send(outbox, 1) -> Ok(()) | Err(_) => {} }
    @32@";

/// Macros of a user that pass expressions, blocks and patterns to `select!` as fragments.
const MACROS: &str = "
macro_rules! wait_for {
    ($reactor:expr, $source:expr, $item:pat, $arm:expr) => {
        select! { $reactor; recv($source) -> $item => $arm }
    };
}
macro_rules! all_fragments {
    ($r:expr, $s:expr, $o:expr, $arm:expr, $block:block, $default:expr, $error:expr) => {
        select! { $r;
            recv($s) -> _ => $arm,
            recv($s) -> _ => $block
            send($o, 1) -> _ => $arm,
            send($o, 1) -> _ => $block,
            default => $default,
            error -> _ => $error,
        };
        select! { $r; recv($s) -> _ => $block default(Duration::ZERO) => $block };
        select! { $r; default => $block error -> _ => $block }
    };
}
";

/// A program with many lints, none of which may fire for the expansion of `select!`.
const PEDANTIC: &str = "#![deny(warnings, clippy::all, clippy::pedantic, clippy::nursery)]
//! A loop.
use pollmux::{Reactor, select};
use std::time::Duration;
fn main() -> std::io::Result<()> {
    let reactor = Reactor::new()?;
    let (tx, inbox) = reactor.channel::<i32>(1)?;
    let outbox = reactor.register(tx)?;
    let ticker = reactor.every(Duration::from_millis(1))?;
    loop {
        select! { reactor;
            recv(ticker) -> _tick => break,
            recv(inbox) -> _ => println!(\"a message\"),
            recv(inbox) -> Ok(_) | Err(_) => {}
            send(outbox, 1) -> _sent => {}
            default(Duration::ZERO) => {}
            error -> _error => {}
        }
    }
    let n = select! { reactor; biased;
        recv(inbox) -> n => n.unwrap_or(1),
        default => 2,
        error -> e => return Err(e),
    };
    println!(\"{n}\");
    Ok(())
}
";

const PREAMBLE: &str = "use pollmux::{Reactor, select};
use std::time::Duration;
fn main() {
    let reactor = Reactor::new().unwrap();
    let (tx, inbox) = reactor.channel::<i32>(1).unwrap();
    let outbox = reactor.register(tx).unwrap();
    let (bare_tx, bare_rx) = pollmux::channel::bounded::<i32>(1);
    let (_, theirs) = std::sync::mpsc::channel::<i32>();
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
    let cases = "recv(inbox) -> _x => {} ";
    let too_many = format!("select! {{ reactor; {} }}", cases.repeat(33));
    for (name, inside, _) in wrong() {
        let inside = inside.replace("@33@", &too_many);
        let text = format!("#![allow(unused)]\n{PREAMBLE}{inside}\n}}\n");
        write(&folder.join("src/bin/wrong"), &format!("{name}.rs"), &text);
    }
    let most = format!("select! {{ reactor; {} default => {{}} }}", cases.repeat(32));
    let right = RIGHT.replace("@32@", &most);
    write(
        &folder.join("src/bin"),
        "right.rs",
        &format!("#![allow(unused)]\n{MACROS}{PREAMBLE}{right}\n}}\n"),
    );
    write(&folder.join("src/bin"), "pedantic.rs", PEDANTIC);
    folder
}

/// Checks programs with cargo. Returns true if all programs pass, and the compiler's output.
fn cargo(folder: &Path, options: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO"))
        .args(options)
        .args(["--offline", "--quiet", "--color=never"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns true if the program was refused. Asserts that the error has the expected words.
fn has_said((name, inside, expected): &(&str, &str, &str), all: &str) -> bool {
    // A message has no empty line, and names its file.
    let file = format!("src/bin/wrong/{name}.rs:");
    let said: Vec<&str> = all.split("\n\n").filter(|text| text.contains(&file)).collect();
    let said = said.join("\n\n");
    if !said.contains("error") {
        return false;
    }
    assert!(said.contains(expected), "{name}: {inside}\nno `{expected}` in the error:\n{said}");
    let private = PRIVATE.iter().find(|private| said.contains(**private));
    assert_eq!(private, None, "{name}: {inside}\nthe error has a private name:\n{said}");
    true
}

#[test]
fn a_wrong_case_is_a_readable_compile_error() {
    let folder = project();
    let (passed, said) = cargo(&folder, &["check", "--bin", "right"]);
    assert!(passed, "the right program does not compile:\n{said}");
    // Errors of the macro hide errors of types. So programs without an error are checked again.
    let mut left = wrong();
    assert_eq!(left.len(), 106);
    while !left.is_empty() {
        let modules = left.iter().map(|(name, ..)| format!("mod {name};\n"));
        let main = modules.chain(["fn main() {}\n".into()]).collect::<String>();
        write(&folder.join("src/bin/wrong"), "main.rs", &main);
        let (_, all) = cargo(&folder, &["check", "--bin", "wrong"]);
        let before = left.len();
        left.retain(|wrong| !has_said(wrong, &all));
        assert!(left.len() < before, "these programs compile: {left:?}\n{all}");
    }
    // Skips the lints if clippy is not installed.
    if cargo(&folder, &["clippy", "--bin", "right"]).0 {
        let (passed, said) = cargo(&folder, &["clippy", "--bin", "pedantic"]);
        assert!(passed, "clippy complains about the macro:\n{said}");
    }
}

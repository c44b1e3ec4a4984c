//! Peers in other languages: small programs of our own, compiled when the report runs. Each is a
//! process that waits for commands between its slices.

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::measure::{Contestant, Run, Sample};

const C: &str = include_str!("peer.c");
const GO: &str = include_str!("peer.go");

/// A compiled peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Libev,
    Libuv,
    Libevent,
    Go,
}

pub const IN_C: [Peer; 3] = [Peer::Libev, Peer::Libuv, Peer::Libevent];

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Peer::Libev => "libev",
            Peer::Libuv => "libuv",
            Peer::Libevent => "libevent",
            Peer::Go => "Go",
        }
    }

    /// Returns the program, compiled if this run has not compiled it yet. The error says why it is
    /// missing.
    pub fn program(self) -> Result<PathBuf, String> {
        thread_local! {
            static BUILT: RefCell<Vec<(Peer, Result<PathBuf, String>)>> =
                const { RefCell::new(Vec::new()) };
        }
        let found = BUILT.with_borrow(|all| {
            all.iter().find(|(peer, _)| *peer == self).map(|(_, program)| program.clone())
        });
        found.unwrap_or_else(|| {
            let program = self.compile();
            BUILT.with_borrow_mut(|all| all.push((self, program.clone())));
            program
        })
    }

    fn compile(self) -> Result<PathBuf, String> {
        let folder = folder().map_err(|error| format!("no folder for it: {error}"))?;
        let program = folder.join(self.name());
        let (source, text) = match self {
            Peer::Go => (folder.join("peer.go"), GO),
            _ => (folder.join("peer.c"), C),
        };
        fs::write(&source, text).map_err(|error| error.to_string())?;
        let mut compiler = match self {
            Peer::Go => {
                let mut go = Command::new("go");
                go.args(["build", "-o"]).arg(&program).arg(&source);
                go
            }
            _ => {
                let (define, library) = match self {
                    Peer::Libev => ("-DLIBEV", "-lev"),
                    Peer::Libuv => ("-DLIBUV", "-luv"),
                    _ => ("-DLIBEVENT", "-levent"),
                };
                let mut cc = Command::new("cc");
                cc.args(["-O2", "-w", define, "-o"]).arg(&program).arg(&source).arg(library);
                cc
            }
        };
        if self == Peer::Go {
            go_is_recent()?;
        }
        let output = compiler.output().map_err(|error| format!("no compiler: {error}"))?;
        if output.status.success() {
            return Ok(program);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.contains("error") || line.contains("cannot"));
        Err(format!("it does not compile: {}", line.unwrap_or("no reason given")))
    }

    /// Returns the version of the library that the program is linked to, or of Go.
    pub fn version(self) -> Option<String> {
        if self == Peer::Go {
            return go_version().ok();
        }
        Some(Process::start(self).ok()?.say("version", 0, Run::Times(0)).trim().replace(' ', "."))
    }
}

fn go_version() -> Result<String, String> {
    let output = Command::new("go").arg("version").output();
    let output = output.map_err(|_| "no go on PATH".to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().nth(2).map(str::to_string).ok_or("go tells no version".into())
}

/// Checks the version of Go: timers changed in Go 1.23.
fn go_is_recent() -> Result<(), String> {
    let version = go_version()?;
    let minor: Option<u32> =
        version.strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    match minor {
        Some(minor) if minor < 23 => Err(format!("it is {version}, and 1.23 is needed")),
        _ => Ok(()),
    }
}

/// Returns a folder for this process, in the system's folder for temporary files.
fn folder() -> io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("pollmux-bench-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Removes the programs.
pub fn clean_up() {
    let _ = folder().and_then(fs::remove_dir_all);
}

/// A running peer.
pub struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(peer: Peer) -> Result<Process, String> {
        let program = peer.program()?;
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("it does not start: {error}"))?;
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Ok(Process { child, input, output })
    }

    /// Sends a command and returns the peer's answer. The peer sleeps until the next command.
    fn say(&mut self, word: &str, n: usize, run: Run) -> String {
        let line = command(word, n, run);
        self.input.write_all(line.as_bytes()).expect("a peer that reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("a peer that answers");
        answer
    }

    /// Sends a command and returns the numbers of the peer's answer.
    pub fn ask(&mut self, word: &str, n: usize, run: Run) -> Vec<f64> {
        let answer = self.say(word, n, run);
        let numbers: Vec<f64> =
            answer.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        assert!(!numbers.is_empty(), "a peer answered {word} with {answer:?}");
        numbers
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command line that a peer understands.
pub fn command(word: &str, n: usize, run: Run) -> String {
    match run {
        Run::For(slice) => format!("{word} {n} {} 0\n", slice.as_nanos()),
        Run::Times(times) => format!("{word} {n} 0 {times}\n"),
    }
}

/// Makes a contestant that a peer runs, with as many names as the peer answers with numbers.
pub fn contestant(peer: Peer, names: &[&str], word: &'static str, n: usize) -> Contestant {
    match Process::start(peer) {
        Ok(process) => with_process(&Rc::new(RefCell::new(process)), names, word, n),
        Err(reason) => Contestant::absent(names, reason),
    }
}

fn with_process(
    process: &Rc<RefCell<Process>>,
    names: &[&str],
    word: &'static str,
    n: usize,
) -> Contestant {
    let process = process.clone();
    Contestant::several(names, move |run| {
        process.borrow_mut().ask(word, n, run).into_iter().map(Sample::of).collect()
    })
}

/// Asks for `n` latenesses, each of which may take as long as it needs.
pub fn late(process: &mut Process, n: usize, delay: Duration) -> Vec<f64> {
    process.ask("late", n, Run::For(delay))
}

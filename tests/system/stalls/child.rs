//! Child processes, which run this test binary again, with one test and an environment variable.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use support::{again, spawn, test_name};

const REQUIRE: &str = "POLLMUX_STALL_REQUIRE";
const CHILD: &str = "POLLMUX_STALL_CHILD";
/// The prefix of each line that a child writes to its parent.
const PREFIX: &str = "stalls:";
/// A child that writes no line for this long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lets one test measure at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns true if this process is the child of the test `name`.
///
/// From then on a panic of any thread ends the process.
pub fn is_child(name: &str) -> bool {
    let child = std::env::var(CHILD).is_ok_and(|child| child == name);
    if child {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            print(panic);
            std::process::abort();
        }));
    }
    child
}

/// Prints that a test cannot measure here. Fails if the tests must not be skipped.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os(REQUIRE).is_none(), "{name}: {reason}");
    eprintln!("stalls: {name}: skipped: {reason}");
}

/// Writes a line to the parent.
pub fn report(line: impl std::fmt::Display) {
    println!("\n{PREFIX} {line}");
}

/// A running child. Its drop kills the process.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts the child of the test `name`.
    pub fn begin(name: &str) -> Program {
        let mut command = again(&test_name());
        command.env(CHILD, name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        support::thread::spawn(move || {
            let lines = out.lines().map_while(Result::ok);
            for line in lines {
                if let Some(said) = line.strip_prefix(PREFIX) {
                    let _ = tell.send(said.trim().into());
                }
            }
        });
        Program { child, lines }
    }

    /// Returns the next line that the child writes; `None` if the child has ended or hangs.
    pub fn next_line(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// Closes the child's input, which asks the child to finish.
    pub fn finish(&mut self) {
        drop(self.child.stdin.take());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

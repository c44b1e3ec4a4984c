//! Runs the program of an example beside a test.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use crate::heartbeat::example;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Watchdog, watchdog};

/// A running program and its output. Dropping it kills the program.
pub struct Program {
    _watchdog: Watchdog,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    #[track_caller]
    pub fn start(name: &str, args: &[&str]) -> Program {
        let mut command = Command::new(example(name));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = support::spawn(&mut command);
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Program { _watchdog: watchdog(), child, output }
    }

    /// Returns the next line that the program prints.
    pub fn line(&mut self) -> String {
        self.output.next().expect("the program prints another line").expect("text")
    }

    /// Returns the lines that the program prints until it ends.
    pub fn rest(&mut self) -> Vec<String> {
        self.output.by_ref().map(|line| line.expect("text")).collect()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the program runs");
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the program's status")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A program that the supervisor keeps running: its process, its output, and its next start.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{ChildProcess, Fd, Handle, Source, Time, Timer};

use super::backoff::Backoff;
use super::keys::{PROCESS, RESTART, STDERR, STDOUT};
use super::lines::Lines;

/// The longest line. A longer line is printed in pieces.
const LINE: usize = 4_096;
/// The most reads of a pipe in a row, so that other sources get their turn.
const READS: u32 = 16;

/// A pipe that a process writes its output to.
struct Output {
    pipe: Fd<File>,
    lines: Lines,
}

impl Output {
    fn new(reactor: &Handle, pipe: OwnedFd, key: (u32, u32)) -> io::Result<Output> {
        let pipe = File::from(pipe);
        let pipe = reactor.fd_nonblocking(pipe, Interest::READABLE)?.with_key(key);
        Ok(Output { pipe, lines: Lines::new(LINE) })
    }

    /// Calls `f` with each new line. Returns false at the end of the output.
    fn read(&mut self, mut f: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0; 4_096];
        for _ in 0..READS {
            match self.pipe.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => self.lines.push(&buffer[..n], &mut f),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // The pipe is still ready. The next wait reports the pipe again, after the other sources.
        true
    }
}

/// A running process.
struct Running {
    process: ChildProcess,
    since: Time,
    /// Standard output and standard error. `None` after their end.
    outputs: [Option<Output>; 2],
}

pub struct Job {
    number: u32,
    line: String,
    running: Option<Running>,
    restart: Timer,
    pub backoff: Backoff,
}

impl Job {
    /// Makes a job for the shell. Its timer is due at once, and starts it.
    pub fn new(reactor: &Handle, number: u32, line: String, backoff: Backoff) -> Job {
        let restart = reactor.after(Duration::ZERO).with_key((RESTART, number));
        Job { number, line, running: None, restart, backoff }
    }

    /// Returns true if the job runs, or will run again.
    pub fn is_alive(&self) -> bool {
        self.running.is_some() || self.restart.deadline().is_some()
    }

    pub fn process(&self) -> Option<&ChildProcess> {
        self.running.as_ref().map(|running| &running.process)
    }

    /// Starts the process. The caller counts an error as a failure of the job.
    pub fn start(&mut self, reactor: &Handle) -> io::Result<()> {
        self.restart.stop();
        let mut command = Command::new("sh");
        command.args(["-c", &self.line]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A process group of its own: Ctrl-C in the terminal reaches only the supervisor.
        let mut child = command.process_group(0).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = match reactor.register_with((PROCESS, self.number), child) {
            Ok(process) => process,
            Err(refused) => {
                // A process that is not registered must not run on.
                let error = io::Error::new(refused.error().kind(), refused.error().to_string());
                let mut child = refused.into_inner();
                child.kill().and_then(|()| child.wait())?;
                return Err(error);
            }
        };
        println!("{}: process {}", self.number, process.id());
        let output = |pipe: Option<OwnedFd>, kind| {
            pipe.map(|pipe| Output::new(reactor, pipe, (kind, self.number))).transpose()
        };
        let outputs = output(stdout.map(Into::into), STDOUT)
            .and_then(|stdout| Ok([stdout, output(stderr.map(Into::into), STDERR)?]))
            .inspect_err(|_| drop(process.kill()))?;
        self.running = Some(Running { process, since: reactor.now(), outputs });
        Ok(())
    }

    /// Prints the new lines of standard output (0) or standard error (1). At the end it also prints
    /// an unfinished line.
    pub fn print(&mut self, which: usize, is_end: bool) {
        let Some(running) = &mut self.running else { return };
        let Some(output) = &mut running.outputs[which] else { return };
        let (number, mark) = (self.number, ['|', '!'][which]);
        let print = |line: &[u8]| println!("{number} {mark} {}", String::from_utf8_lossy(line));
        if !output.read(print) || is_end {
            output.lines.finish(print);
            running.outputs[which] = None;
        }
    }

    /// Takes the status of a process that has ended, and the length of its run. Prints the rest of
    /// its output.
    pub fn end(&mut self, now: Time) -> Option<(io::Result<ExitStatus>, Duration)> {
        let status = self.process()?.try_take()?;
        // The pipes have the last output of the process. They may still be open in its children,
        // which the supervisor does not wait for.
        for which in [0, 1] {
            self.print(which, true);
        }
        let running = self.running.take()?;
        Some((status, now - running.since))
    }

    pub fn start_again_in(&self, pause: Duration) {
        self.restart.reset(pause);
    }

    pub fn never_start_again(&self) {
        self.restart.stop();
    }
}

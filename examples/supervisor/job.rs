//! A program that is kept running: its process, its output, and its next start.

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

/// A longer line is given in pieces.
const LINE: usize = 4_096;
/// Reads of one pipe in a row, before it is the others' turn.
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

    /// Gives the lines that have come to `f`. Returns false at the end.
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
        // The pipe is still ready: the next wait reports it again, after the others.
        true
    }
}

/// A process that runs.
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
    /// A job for the shell. It begins when its timer fires, which is at once.
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

    /// Starts the process. If that fails the job counts as failed.
    pub fn start(&mut self, reactor: &Handle) -> io::Result<()> {
        self.restart.stop();
        let mut command = Command::new("sh");
        command.args(["-c", &self.line]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: Ctrl-C on the terminal is for us, and we tell the process.
        let mut child = command.process_group(0).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let process = match reactor.register_with((PROCESS, self.number), child) {
            Ok(process) => process,
            Err(refused) => {
                // A process that nobody watches must not run on.
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

    /// Prints what has come from standard output (0) or standard error (1). At the end also a line
    /// that has begun.
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

    /// Takes the status of a process that has ended, and how long it ran. Its output up to then is
    /// printed.
    pub fn end(&mut self, now: Time) -> Option<(io::Result<ExitStatus>, Duration)> {
        let status = self.process()?.try_take()?;
        // The last output of the process is in the pipes. Its children may still have these open:
        // nobody waits for them.
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

//! Keeps programs running. The supervisor prints their output line by line. It starts a program
//! that fails again, after a pause that doubles. A signal stops all programs.
//!
//! `cargo run --release --example supervisor -- 'exec ping localhost' 'sleep 3; exit 1'`
//!
//! - Each argument is a line for the shell. With `exec` the program itself gets the signals.
//! - A program that exits with status 0 is done. A program that fails starts again, up to
//!   `--retries` times in a row.
//! - On SIGTERM and Ctrl-C the programs get SIGTERM, and after `--grace` SIGKILL. Both go through
//!   the fd of the process, so they never reach another process with the same number.
//! - The exit status is 0 if all programs ended well or within the grace time. It is 1 if a program
//!   was given up or killed.

mod backoff;
#[path = "../common/duration.rs"]
mod duration;
mod job;
#[path = "../common/lines.rs"]
mod lines;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use backoff::Backoff;
use clap::{Arg, ArgMatches, Command, value_parser};
use job::Job;
use pollmux::{Events, Reactor, Signal, Source, Timer};

/// The kinds of keys. The other half of a key is the number of the job.
mod keys {
    pub const SIGNALS: u32 = 0;
    pub const GRACE: u32 = 1;
    pub const PROCESS: u32 = 2;
    pub const STDOUT: u32 = 3;
    pub const STDERR: u32 = 4;
    pub const RESTART: u32 = 5;
}

fn options() -> ArgMatches {
    let time = |name| Arg::new(name).long(name).value_parser(duration::duration);
    let retries = Arg::new("retries").long("retries").value_parser(value_parser!(u32));
    Command::new("supervisor")
        .about("Keeps programs running")
        .args([
            time("backoff").default_value("100ms").help("The pause after the first failure"),
            time("most").default_value("10s").help("The longest pause"),
            time("stable").default_value("10s").help("A run of this length resets the pauses"),
            time("grace").default_value("5s").help("The time between SIGTERM and SIGKILL"),
            retries.default_value("10").help("Failures in a row until the supervisor gives up"),
            Arg::new("lines").required(true).num_args(1..).help("Lines for the shell"),
        ])
        .get_matches()
}

struct Supervisor {
    reactor: Reactor,
    jobs: Vec<Job>,
    grace: Timer,
    patience: Duration,
    retries: u32,
    is_stopping: bool,
    /// True if a program was given up or killed.
    has_failed: bool,
}

impl Supervisor {
    fn run(mut self) -> io::Result<bool> {
        let signals = self.reactor.signals(&[Signal::INTERRUPT, Signal::TERMINATE])?;
        let signals = signals.with_key((keys::SIGNALS, 0));
        let mut events = Events::new();
        while self.jobs.iter().any(Job::is_alive) {
            self.reactor.wait(&mut events)?;
            for event in &events {
                let (kind, number) = event.split_key();
                match kind {
                    keys::SIGNALS => {
                        if let Some(signal) = signals.try_take() {
                            println!("{signal}: good-bye");
                            self.stop()?;
                        }
                    }
                    keys::GRACE => {
                        self.grace.try_take();
                        self.has_failed = true;
                        for process in self.jobs.iter().filter_map(Job::process) {
                            process.kill()?;
                        }
                    }
                    keys::PROCESS => self.ended(number)?,
                    keys::STDOUT => self.jobs[number as usize].print(0, false),
                    keys::STDERR => self.jobs[number as usize].print(1, false),
                    keys::RESTART => self.start(number)?,
                    other => unreachable!("no source has the kind {other}"),
                }
            }
        }
        Ok(!self.has_failed)
    }

    fn start(&mut self, number: u32) -> io::Result<()> {
        if let Err(error) = self.jobs[number as usize].start(&self.reactor) {
            self.failed(number, &error.to_string(), Duration::ZERO)?;
        }
        Ok(())
    }

    fn ended(&mut self, number: u32) -> io::Result<()> {
        let job = &mut self.jobs[number as usize];
        let Some((status, ran)) = job.end(self.reactor.now()) else { return Ok(()) };
        let status = status?;
        if status.success() || self.is_stopping {
            println!("{number}: {status}");
            return Ok(());
        }
        self.failed(number, &status.to_string(), ran)
    }

    fn failed(&mut self, number: u32, how: &str, ran: Duration) -> io::Result<()> {
        let job = &mut self.jobs[number as usize];
        let pause = job.backoff.next(ran);
        if job.backoff.failures() > self.retries {
            println!("{number}: {how}, given up");
            self.has_failed = true;
            return self.stop();
        }
        println!("{number}: {how}, again in {pause:?}");
        job.start_again_in(pause);
        Ok(())
    }

    /// Asks all processes to end. Kills those that still run after the grace time.
    fn stop(&mut self) -> io::Result<()> {
        if self.is_stopping {
            return Ok(());
        }
        self.is_stopping = true;
        self.grace.reset(self.patience);
        for job in &self.jobs {
            job.never_start_again();
            if let Some(process) = job.process() {
                process.signal(Signal::TERMINATE)?;
            }
        }
        Ok(())
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = options();
    let time = |name| *options.get_one::<Duration>(name).unwrap();
    let backoff = Backoff::new(time("backoff"), time("most"), time("stable"));
    let reactor = Reactor::new()?;
    let lines = options.get_many::<String>("lines").unwrap().cloned();
    let jobs = (0..).zip(lines).map(|(i, line)| Job::new(&reactor, i, line, backoff)).collect();
    let supervisor = Supervisor {
        jobs,
        grace: reactor.timer().with_key((keys::GRACE, 0)),
        patience: time("grace"),
        retries: *options.get_one("retries").unwrap(),
        is_stopping: false,
        has_failed: false,
        reactor,
    };
    Ok(if supervisor.run()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

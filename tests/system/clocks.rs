//! Timers while the process is stopped, while the machine is suspended, and when the time of day is
//! set. The docs of `Timer` and `Ticker` state the rules.
//!
//! A stop is real: the parent stops a child in the middle of a `select!`. A time namespace
//! simulates a suspend: its `CLOCK_BOOTTIME` is an hour ahead, as after an hour of suspend. The
//! tests do not set the time of day, because it belongs to the machine. The tests check that no
//! timer is on that clock.

use std::io::{BufRead, BufReader, Read};
#[cfg(epoll)]
use std::process::Command;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use pollmux::{Reactor, Time, select};
#[cfg(epoll)]
use support::alone;
use support::{again, ms, spawn, test_name, watchdog};

const CHILD: &str = "POLLMUX_CLOCKS_CHILD";
/// The prefix of a child's report.
const REPORT: &str = "report of the child:";

/// A delay with seconds to spare, both before the stop and during it.
const LONG: Duration = Duration::from_secs(6);

fn is_child(name: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|child| child == name)
}

fn report(numbers: &[u64]) {
    let numbers = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    println!("\n{REPORT} {numbers}");
}

/// The test `name`, which runs again in a child that can be stopped.
struct Stoppable {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Stoppable {
    fn new(name: &str) -> Stoppable {
        let mut command = again(&test_name());
        command.env(CHILD, name).stdout(Stdio::piped());
        let mut child = spawn(&mut command);
        let output = BufReader::new(child.stdout.take().unwrap());
        Stoppable { child, output }
    }

    /// Returns the numbers of the child's next report.
    fn read_report(&mut self) -> Vec<u64> {
        for line in self.output.by_ref().lines().map_while(Result::ok) {
            if let Some((_, numbers)) = line.split_once(REPORT) {
                return numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
            }
        }
        panic!("the child ended without a report: {:?}", self.child.wait());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Stops the child, most likely in its sleep, and returns when the child is stopped.
    fn stop(&self) {
        thread::sleep(ms(300));
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let status = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    fn resume(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn finish(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        // Kill the child if the test fails. The child may have ended.
        let _ = self.child.kill();
    }
}

fn sleep_until(t: Time) {
    while Time::now() < t {
        thread::sleep(t - Time::now());
    }
}

#[test]
fn a_timer_is_due_right_after_a_stop() {
    let _watchdog = watchdog();
    let name = "a_timer_is_due_right_after_a_stop";
    if is_child(name) {
        let reactor = Reactor::new().unwrap();
        let timer = reactor.after(LONG);
        report(&[timer.deadline().unwrap().as_nanos()]);
        select! { reactor; recv(timer) -> due => report(&[due.as_nanos(), Time::now().as_nanos()]) }
        return;
    }
    let mut child = Stoppable::new(name);
    let deadline = Time::from_nanos(child.read_report()[0]);
    child.stop();
    // The child has not run since the stop.
    let left = deadline - Time::now();
    sleep_until(deadline + ms(100));
    let continued = Time::now();
    child.resume();
    let reported = child.read_report();
    let (due, fired) = (Time::from_nanos(reported[0]), Time::from_nanos(reported[1]));
    assert_eq!(due, deadline);
    assert!(fired >= deadline, "early");
    // With a clock that stands still during a stop, at least this time would be left.
    let late = fired - continued;
    assert!(late < left, "{late:?} after the process was resumed, with {left:?} left at the stop");
    child.finish();
}

#[test]
fn a_ticker_has_one_tick_after_a_stop() {
    let _watchdog = watchdog();
    let name = "a_ticker_has_one_tick_after_a_stop";
    let period = ms(100);
    if is_child(name) {
        let reactor = Reactor::new().unwrap();
        let start = reactor.now();
        let ticker = reactor.every_at(start, period).unwrap();
        report(&[start.as_nanos()]);
        let mut due = start;
        loop {
            select! { reactor; recv(ticker) -> tick => {
                // Each tick is on the grid, after the instants that the last tick counted as
                // missed.
                assert_eq!(tick.scheduled, due);
                let missed = tick.missed as u32;
                due += period * (missed + 1);
                assert!(due - period <= Time::now(), "ticks counted that are not due");
                if missed > 0 {
                    report(&[tick.scheduled.as_nanos(), tick.missed]);
                }
            }}
        }
    }
    let mut child = Stoppable::new(name);
    let start = Time::from_nanos(child.read_report()[0]);
    child.stop();
    let stopped = Time::now();
    let continued = stopped + period * 30;
    sleep_until(continued);
    child.resume();
    // A slow machine may miss other ticks, but only one report covers the whole stop.
    loop {
        let reported = child.read_report();
        let (scheduled, missed) = (Time::from_nanos(reported[0]), reported[1]);
        let last = scheduled + period * missed as u32;
        assert!(scheduled >= start && last < Time::now());
        if last + period > continued {
            assert!(scheduled < stopped + period, "the stop was reported in pieces: {reported:?}");
            assert!(missed >= 28, "{missed} missed in 30 periods");
            break;
        }
    }
    child.child.kill().unwrap();
    let _ = child.child.wait();
}

#[test]
fn the_time_of_a_reactor_is_monotonic() {
    use nix::time::{ClockId, clock_gettime};
    if cfg!(target_vendor = "apple") {
        return; // the clock of `Instant` is a different clock there
    }
    let raw = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        Time::ZERO + Duration::from(now)
    };
    let reactor = Reactor::new().unwrap();
    for _ in 0..1_000 {
        let before = raw();
        let (now, turn) = (Time::now(), reactor.now());
        let after = raw();
        assert!(before <= now && now <= after, "{before} {now} {after}");
        assert!(turn <= after, "{turn} {after}");
    }
}

/// Linux lists the clock of each timer in `/proc`.
#[test]
#[cfg(epoll)]
fn only_wall_timers_use_the_settable_clock() {
    fn clocks() -> Vec<u32> {
        let mut clocks = Vec::new();
        for info in std::fs::read_dir("/proc/self/fdinfo").unwrap() {
            // The list contains the fd of the directory itself, which is closed by now.
            let info = std::fs::read_to_string(info.unwrap().path()).unwrap_or_default();
            let clock = info.lines().find_map(|line| line.strip_prefix("clockid:"));
            clocks.extend(clock.map(|clock| clock.trim().parse::<u32>().unwrap()));
        }
        clocks.sort_unstable();
        clocks
    }
    let [wall, monotonic, boot] =
        [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME]
            .map(|clock| clock as u32);
    alone!();
    assert_eq!(clocks(), []);
    let reactor = Reactor::new().unwrap();
    let (timer, ticker) = (reactor.after(ms(1)), reactor.every(ms(1)).unwrap());
    let callback = reactor.call_after(ms(1), |_| {});
    select! { reactor; recv(timer) -> _ => {} }
    select! { reactor; recv(ticker) -> _ => {} }
    let deadline = pollmux::Context::background().with_timeout(ms(1));
    let done = reactor.done(&deadline.0);
    select! { reactor; recv(done) -> _ => {} }
    assert_eq!(clocks(), [monotonic]);
    let _own = reactor.os_timer().unwrap();
    assert_eq!(clocks(), [monotonic; 2]);
    let _boot = reactor.boot_timer().unwrap();
    assert_eq!(clocks(), [monotonic, monotonic, boot]);
    let _wall = reactor.wall_timer().unwrap();
    assert_eq!(clocks(), [wall, monotonic, monotonic, boot]);
    drop(callback);
}

/// Runs the test `name` again under unshare(1) with these options, and `numbers` in the
/// environment. Returns false and prints the reason if this is impossible here.
#[cfg(epoll)]
fn with_other_clocks(name: &str, options: &[&str], numbers: &[u64]) -> bool {
    let unshare = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().and_then(Child::wait_with_output)
    };
    let reason = match unshare(Command::new("unshare").arg("--time").args(options).arg("true")) {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Some(format!("unshare: {error}")),
    };
    if let Some(reason) = reason {
        eprintln!("{name}: skipped, no time namespace: {reason}");
        return false;
    }
    let numbers = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("unshare");
    command.arg("--time").args(options).arg(std::env::current_exe().unwrap());
    command
        .args([&*test_name(), "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .env(REPORT, numbers);
    let output = unshare(&mut command).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    true
}

#[cfg(epoll)]
fn numbers_from_parent() -> Vec<u64> {
    let numbers = std::env::var(REPORT).unwrap();
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
#[cfg(epoll)]
fn a_suspend_counts_for_boot_timers_only() {
    use pollmux::sys::BootTime;
    let _watchdog = watchdog();
    let name = "a_suspend_counts_for_boot_timers_only";
    let half_an_hour = Duration::from_secs(1_800);
    if is_child(name) {
        let (mono, boot) = (
            Time::from_nanos(numbers_from_parent()[0]),
            BootTime::from_nanos(numbers_from_parent()[1]),
        );
        let reactor = Reactor::new().unwrap();
        let (timer, boot_timer) = (reactor.at(mono), reactor.boot_timer().unwrap());
        boot_timer.reset_at(boot).unwrap();
        select! { reactor; biased;
            recv(timer) -> _ => panic!("the timer's clock ran during the suspend"),
            recv(boot_timer) -> due => {
                assert!(due == boot && BootTime::now() - boot > half_an_hour / 2);
            }
        }
        assert_eq!(timer.deadline(), Some(mono));
        assert!(Time::now() < mono);
        return;
    }
    // The deadlines are computed before the suspend, which takes an hour.
    let deadlines =
        [(Time::now() + half_an_hour).as_nanos(), (BootTime::now() + half_an_hour).as_nanos()];
    with_other_clocks(name, &["--boottime", "3600"], &deadlines);
}

#[test]
#[cfg(epoll)]
fn a_clock_far_ahead_fires_no_timer_early() {
    let _watchdog = watchdog();
    let name = "a_clock_far_ahead_fires_no_timer_early";
    if is_child(name) {
        assert!(Time::now().as_nanos() > numbers_from_parent()[0]);
        let reactor = Reactor::new().unwrap();
        let ticker = reactor.every(ms(2)).unwrap();
        for _ in 0..20 {
            let deadline = Time::now() + ms(1);
            let timer = reactor.at(deadline);
            select! { reactor;
                recv(timer) -> due => assert!(due == deadline && Time::now() >= due),
            }
            select! { reactor; recv(ticker) -> tick => assert!(Time::now() >= tick.scheduled) }
        }
        return;
    }
    // The clock is three years ahead.
    with_other_clocks(name, &["--monotonic", "100000000"], &[100_000_000_000_000_000]);
}

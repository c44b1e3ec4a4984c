//! A kernel timer that could not be armed is not taken for armed.
//!
//! Each scenario runs in a child under strace, which lets some calls of `timerfd_settime` fail.
//! Without strace, or where it may not trace, the tests are skipped, unless
//! `POLLMUX_REQUIRE_STRACE=1` is set: then they fail.
#![cfg(epoll)]

use std::process::{Command, Stdio};
use std::time::Duration;

use pollmux::sys::{self, Interest, Mode, Poller};
use pollmux::{Events, Reactor, Time, select};
use support::watch::dog;

const CHILD: &str = "POLLMUX_INTERRUPTED_CHILD";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs the scenario of this name in a child in which these arms fail.
fn run(scenario: &str, error: &str, when: &str) {
    let calls = "?timerfd_settime,?timerfd_settime64";
    let strace = |program: &str| {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={error}:when={when}")]);
        command.arg(program).stdin(Stdio::null());
        command
    };
    if !strace("true").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("POLLMUX_REQUIRE_STRACE").is_none(), "no strace");
        return eprintln!("skipped: strace cannot be used");
    }
    let _dog = dog();
    let exe = std::env::current_exe().unwrap();
    let mut command = strace(exe.to_str().unwrap());
    command
        .args(["interrupted::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, scenario);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("scenario over"),
        "{scenario} {error} {when}: {output:?}"
    );
}

#[test]
fn child() {
    let Ok(name) = std::env::var(CHILD) else { return };
    let _dog = dog();
    let reactor = Reactor::new().unwrap();
    match &*name {
        "sleeps" => sleeps(&reactor),
        "embedded" => embedded(&reactor),
        "os_timer" => os_timer(&reactor),
        "fails" => fails(&reactor),
        "never" => never(&reactor),
        _ => panic!("no scenario {name}"),
    }
    println!("scenario over");
}

fn sleeps(reactor: &Reactor) {
    for _ in 0..4 {
        let timer = reactor.after(ms(5));
        select! { reactor; recv(timer) -> at => assert!(reactor.now() >= at) }
    }
    let _timer = reactor.after(ms(5));
    reactor.wait(&mut Events::with_capacity(1)).unwrap();
    let start = Time::now();
    reactor.sleep_blocking(ms(5)).unwrap();
    assert!(Time::now() - start >= ms(5));
}

fn embedded(reactor: &Reactor) {
    let inner = reactor.embed().unwrap();
    let outer = Poller::new().unwrap();
    outer.register(&inner, 0, Interest::READABLE, Mode::Level).unwrap();
    for _ in 0..4 {
        let timer = reactor.after(ms(5));
        while timer.deadline().is_some() {
            outer.wait(&mut sys::PollEvents::with_capacity(1), None).unwrap();
            // What could not be armed is an error, and the fd stays readable: another turn comes.
            let _ = inner.turn();
            let _ = reactor.try_recv(&timer).unwrap();
        }
    }
}

fn os_timer(reactor: &Reactor) {
    let timer = reactor.os_timer().unwrap();
    for _ in 0..4 {
        timer.reset(ms(5)).unwrap();
        select! { reactor; recv(timer) -> _ => {} }
    }
}

/// Errors that are no interruptions are told once each, and nothing is lost.
fn fails(reactor: &Reactor) {
    let timer = reactor.after(ms(5));
    let error = reactor.recv(&timer).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(12), "{error}"); // ENOMEM
    assert!(reactor.recv(&timer).unwrap() <= Time::now());
}

/// No arm succeeds: each wait says so, and none hangs.
fn never(reactor: &Reactor) {
    for _ in 0..3 {
        let timer = reactor.after(Duration::from_secs(3_600));
        assert!(reactor.recv(&timer).unwrap_err().to_string().contains("not armed"));
    }
}

#[test]
fn an_interrupted_arm_is_made_again() {
    for when in ["1", "2", "1+2", "1..10"] {
        run("sleeps", "EINTR", when);
        run("embedded", "EINTR", when);
    }
    run("embedded", "EINTR", "1..40");
    for when in ["1", "2", "1+2"] {
        run("os_timer", "EINTR", when);
    }
}

#[test]
fn arms_that_never_succeed_are_an_error() {
    run("never", "EINTR", "1+");
}

#[test]
fn an_arm_that_fails_is_an_error_and_tried_again() {
    run("fails", "ENOMEM", "1");
}

//! `stats()` agrees with strace, and both agree with the documentation.
//!
//! Each test runs one scenario in a child, this same program, under strace. The child writes a mark
//! to `/dev/null` before and after the scenario. So the log contains neither the child's start nor
//! its output. The child prints the `stats()` of the scenario. The log between the marks must
//! agree: every `epoll_wait`, every `timerfd_settime`, every `write` to an eventfd, by any thread,
//! and no `read` of an eventfd or timerfd.
//!
//! Stats and log must agree in every run. The number of sleeps also depends on the scheduler: a
//! loop that runs late need not sleep for its tick. So the tests check the cost of a sleep. A run
//! without a sleep is repeated.
//!
//! On kqueue the stand-in (tests/kqueue-stand-in) writes the log, a line for each `kevent`. There
//! an arm is no call of its own, because it goes with the next wait.
//!
//! Without strace, without the right to trace, or with another kqueue the tests are skipped. With
//! `POLLMUX_REQUIRE_STRACE=1` they fail instead.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pollmux::sys::Interest;
use pollmux::{Events, Reactor, Select, channel, reactor::Stats, select};
use support::{HOUR, thread};

const CHILD: &str = "POLLMUX_STRACE_CHILD";
const REQUIRE: &str = "POLLMUX_REQUIRE_STRACE";
/// The variable with the path of the stand-in's log.
const LOG: &str = "KQUEUE_STAND_IN_LOG";
const BEGIN: &str = "pollmux: the scenario begins";
const END: &str = "pollmux: the scenario ends";
/// The prefix of the child's line of counts.
const STATS_PREFIX: &str = "pollmux stats:";
/// Runs are repeated for at most this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The traced calls. A `?` allows for an architecture or a strace without the call.
const CALLS: &str =
    "trace=?epoll_wait,?epoll_pwait,?epoll_pwait2,?timerfd_settime,?timerfd_settime64,?write,?read";

/// The number of calls of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// `epoll_wait` and its variants, with and without a sleep; `kevent` with room for events.
    epoll_waits: u64,
    /// Also the timers in the changes of a `kevent`.
    settimes: u64,
    /// `write` to an eventfd; triggers in the changes of a `kevent`.
    wakes: u64,
    /// `read` of an eventfd or a timerfd.
    reads: u64,
}

// ---- The scenarios, which run in the child.

/// Runs a scenario between the two marks, and returns the counts of `stats()`.
type Scenario = fn() -> Stats;

const SCENARIOS: [(&str, Scenario); 13] = [
    ("messages", messages),
    ("messages by other calls", messages_by_other_calls),
    ("ready sockets", ready_sockets),
    ("ticks", ticks),
    ("wakes", wakes),
    ("later resets", later_resets),
    ("heartbeat", heartbeat),
    ("idle", idle),
    ("defaults", defaults),
    ("embedded", embedded),
    ("embedded resets", embedded_resets),
    ("lazy ticks", || lazy_ticks(ENOUGH)),
    ("nearly lazy ticks", || lazy_ticks(TOO_LITTLE)),
];

const TICKS: u64 = 20;
/// A slack above the delay of the kernel's timeouts, and a slack below it.
const ENOUGH: Duration = Duration::from_millis(5);
const TOO_LITTLE: Duration = Duration::from_micros(10);
const WAKES: u64 = 20;
const EVENTS: u64 = 20;
const READY: u64 = 100;
const BEATS: u64 = 2;
const EMBEDDED_TURNS: u64 = 50;

/// Runs `scenario` between the two marks, and returns what `stats()` has counted meanwhile.
fn between_marks(reactor: &Reactor, scenario: impl FnOnce(&Reactor)) -> Stats {
    // Without a log of the stand-in, strace logs the marks.
    let path = std::env::var_os(LOG).unwrap_or_else(|| "/dev/null".into());
    let mut log =
        File::options().append(true).create(true).open(path).expect("the log, or /dev/null");
    let mut mark =
        |line: &str| log.write_all(format!("{line}\n").as_bytes()).expect("a write to it");
    mark(BEGIN);
    let before = reactor.stats();
    scenario(reactor);
    let spent = reactor.stats() - before;
    mark(END);
    spent
}

/// Turns that find a message, and restart a heartbeat each.
fn messages() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let heartbeat = reactor.every(HOUR).expect("a period");
    between_marks(&reactor, |reactor| {
        for n in 0..10_000 {
            tx.send(n).expect("a receiver");
            select! { reactor;
                recv(inbox) -> message => {
                    assert_eq!(message, Ok(n));
                    heartbeat.restart();
                },
                recv(heartbeat) -> _ => unreachable!(),
            }
        }
    })
}

/// Messages that `wait`, `Select`, an inbox and a bare receiver find.
fn messages_by_other_calls() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let (bare_tx, bare) = channel::bounded::<u64>(8);
    let (endless_tx, endless) = channel::unbounded::<u64>();
    let timer = reactor.after(HOUR);
    let mut events = Events::new();
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    set.recv(&timer);
    between_marks(&reactor, |reactor| {
        for n in 0..1_000 {
            tx.send(n).expect("a receiver");
            reactor.wait(&mut events).expect("a wait");
            assert_eq!((events.len(), inbox.try_recv()), (1, Ok(n)));
            tx.send(n).expect("a receiver");
            let chosen = set.wait().expect("a case");
            assert_eq!(chosen.recv(&inbox), Some(Ok(n)));
            bare_tx.send(n).expect("a receiver");
            endless_tx.send(n).expect("a receiver");
            assert_eq!((bare.recv(), endless.recv()), (Ok(n), Ok(n)));
            assert!(timer.reset(HOUR));
        }
    })
}

/// Turns with a ready socket, beside a timer that is reset to a later time.
fn ready_sockets() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (mut theirs, ours) = UnixStream::pair().expect("a pair");
    let socket =
        reactor.fd_nonblocking(ours, Interest::READABLE).expect("a socket can be waited for");
    let timer = reactor.after(HOUR);
    let stats = between_marks(&reactor, |reactor| {
        for _ in 0..READY {
            theirs.write_all(b"hello").expect("room");
            select! { reactor; recv(socket) -> _ => {}, recv(timer) -> _ => unreachable!() }
            assert_eq!(socket.try_io(|mut io| io.read(&mut [0; 8])).expect("bytes"), 5);
            assert!(socket.try_io(|mut io| io.read(&mut [0; 8])).is_err());
            assert!(timer.reset(HOUR));
        }
    });
    drop(socket);
    stats
}

/// Lets the driver measure the delay of the kernel's timeouts, once, before its second tick.
fn measured(reactor: Reactor) -> Reactor {
    let timer = reactor.timer();
    for _ in 0..3 {
        timer.reset(Duration::from_millis(2));
        select! { reactor; recv(timer) -> _ => {} }
    }
    drop(timer);
    reactor
}

/// Ticks only.
fn ticks() -> Stats {
    let reactor = measured(Reactor::new().expect("a reactor"));
    let ticker = reactor.every(Duration::from_millis(10)).expect("a period");
    between_marks(&reactor, |reactor| {
        for _ in 0..TICKS {
            select! { reactor; recv(ticker) -> _ => {} }
        }
    })
}

/// Ticks with slack.
fn lazy_ticks(slack: Duration) -> Stats {
    let reactor = Reactor::builder().slack(slack).build().expect("a reactor");
    let reactor = measured(reactor);
    let ticker = reactor.every(Duration::from_millis(10)).expect("a period");
    between_marks(&reactor, |reactor| {
        for _ in 0..TICKS {
            select! { reactor; recv(ticker) -> _ => {} }
        }
    })
}

/// Sleeps that a message from another thread ends.
fn wakes() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let (ask, asked) = mpsc::channel::<()>();
    let other = tx.clone();
    let sender = thread::spawn(move || {
        for () in asked {
            thread::sleep(Duration::from_millis(5)); // by then the reactor sleeps
            other.send(1).expect("a receiver");
        }
    });
    between_marks(&reactor, |reactor| {
        for _ in 0..WAKES {
            ask.send(()).expect("the other thread");
            select! { reactor; recv(inbox) -> message => assert_eq!(message, Ok(1)) }
        }
        drop(ask);
        sender.join().expect("no panic"); // so that its last write has been made
    })
}

/// Resets to later times, and turns that find nothing due.
fn later_resets() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let timers: Vec<_> = (0..100).map(|_| reactor.after(HOUR)).collect();
    between_marks(&reactor, |reactor| {
        for round in 1..=100 {
            timers.iter().for_each(|timer| assert!(timer.reset(HOUR + Duration::from_secs(round))));
            select! { reactor; recv(timers[0]) -> _ => unreachable!(), default => {} }
        }
    })
}

/// The loop of the example `heartbeat`. First each event from another thread restarts the
/// heartbeat, which may not tick, however late the events are. Then the heartbeat ticks.
fn heartbeat() -> Stats {
    let reactor = measured(Reactor::new().expect("a reactor"));
    let (tx, inbox) = reactor.channel::<()>(64).expect("a channel");
    let heartbeat = reactor.every(HOUR).expect("a period");
    between_marks(&reactor, |reactor| {
        let other = tx.clone();
        let sender = thread::spawn(move || {
            for _ in 0..EVENTS {
                thread::sleep(Duration::from_millis(5));
                other.send(()).expect("a receiver");
            }
        });
        for _ in 0..EVENTS {
            select! { reactor;
                recv(inbox) -> _ => heartbeat.restart(),
                recv(heartbeat) -> _ => unreachable!(),
            };
        }
        sender.join().expect("no panic");
        heartbeat.reset(Duration::from_millis(50)).expect("a period");
        for _ in 0..BEATS {
            select! { reactor; recv(inbox) -> _ => unreachable!(), recv(heartbeat) -> _ => {} }
        }
    })
}

/// Two seconds with many armed timers and open channels, without an event.
fn idle() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let _timers: Vec<_> =
        (0..10_000).map(|i| reactor.after(HOUR + Duration::from_secs(i))).collect();
    let channels: Vec<_> =
        (0..10_000).map(|_| reactor.channel::<u8>(1).expect("a channel")).collect();
    between_marks(&reactor, |reactor| {
        select! { reactor;
            recv(channels[0].1) -> _ => unreachable!(),
            default(Duration::from_secs(2)) => {},
        }
    })
}

/// Turns that find nothing and do not block.
fn defaults() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (_tx, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let timer = reactor.after(HOUR);
    between_marks(&reactor, |reactor| {
        for _ in 0..10_000 {
            select! { reactor;
                recv(inbox) -> _ => unreachable!(),
                recv(timer) -> _ => unreachable!(),
                default => {}
            }
        }
    })
}

/// Messages to an embedded reactor. For each message a wake-up makes the fd readable, and a turn
/// finds the channel. A second turn is requested because the message is left, and finds nothing.
fn embedded() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let (tx, inbox) = reactor.channel::<u64>(8).expect("a channel");
    let inner = reactor.embed().expect("an fd");
    between_marks(&reactor, |reactor| {
        for n in 0..EMBEDDED_TURNS {
            tx.send(n).expect("a receiver");
            assert_eq!(inner.turn().expect("a turn"), 1);
            select! { reactor;
                recv(inbox) -> message => assert_eq!(message, Ok(n)),
                default => unreachable!(),
            }
            assert_eq!(inner.turn().expect("a turn"), 0);
        }
    })
}

/// Turns of an embedded reactor with an fd, and with timers reset to a later time before each turn.
fn embedded_resets() -> Stats {
    let reactor = Reactor::new().expect("a reactor");
    let timers: Vec<_> = (0..100).map(|_| reactor.after(HOUR)).collect();
    let ticker = reactor.every(HOUR).expect("a period");
    let (_theirs, ours) = UnixStream::pair().expect("a pair");
    let socket =
        reactor.fd_nonblocking(ours, Interest::READABLE).expect("a socket can be waited for");
    let inner = reactor.embed().expect("an fd");
    let stats = between_marks(&reactor, |_| {
        for round in 1..=EMBEDDED_TURNS {
            timers.iter().for_each(|timer| assert!(timer.reset(HOUR + Duration::from_secs(round))));
            assert!(ticker.restart());
            assert_eq!(inner.turn().expect("a turn"), 0);
        }
    });
    drop(socket);
    stats
}

/// Not a test: in the child it runs the scenario that the environment names.
#[test]
fn child() {
    let Ok(name) = std::env::var(CHILD) else { return };
    let scenario = SCENARIOS.into_iter().find(|(scenario, _)| *scenario == name);
    let stats = scenario.expect("the name of a scenario").1();
    println!(
        "\n{STATS_PREFIX} {} {} {} {} {}",
        stats.waits,
        stats.polls,
        stats.arms,
        stats.wakes,
        stats.syscalls()
    );
}

// ---- strace and its log.

/// Returns the part of the log between the two marks.
fn between(log: &str) -> Result<&str, String> {
    let begin = log.find(BEGIN).and_then(|at| Some(at + log[at..].find('\n')? + 1));
    let end = log.find(END).and_then(|at| Some(log[..at].rfind('\n')? + 1));
    match (begin, end) {
        (Some(begin), Some(end)) if begin <= end => Ok(&log[begin..end]),
        _ => Err(format!("the two marks are not in the log:\n{log}")),
    }
}

/// Counts the calls. A call that another thread's call interrupts has two lines, `.. <unfinished
/// ...>` and `<... resumed>`. The first line counts.
fn count(log: &str) -> Counts {
    let mut counts = Counts::default();
    for line in log.lines() {
        // `1234 call(3<file>, ...`: the thread comes first.
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let on = |kind: &str| arguments.split(',').next().is_some_and(|fd| fd.contains(kind));
        match name {
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => counts.epoll_waits += 1,
            "timerfd_settime" | "timerfd_settime64" => counts.settimes += 1,
            "write" if on("[eventfd") => counts.wakes += 1,
            "read" if on("[eventfd") || on("[timerfd") => counts.reads += 1,
            _ => {}
        }
    }
    counts
}

/// [`count`] for the log of the stand-in, and the number of calls. A line is `kevent timer:add,
/// room for 16, waits`.
fn count_kevents(log: &str) -> (Counts, u64) {
    let mut counts = Counts::default();
    for line in log.lines() {
        counts.epoll_waits += u64::from(!line.ends_with("returns"));
        counts.settimes += line.matches(" timer:add").count() as u64;
        counts.wakes += line.matches(" user:trigger").count() as u64;
    }
    (counts, log.lines().count() as u64)
}

/// Returns the reason why strace cannot be used, if there is one.
fn no_strace() -> Option<String> {
    if cfg!(kqueue) {
        return cfg!(any(flat, not(linux))).then(|| "this kqueue logs nothing".into());
    }
    let tried = Command::new("strace")
        .args(["-f", "-y", "-e", CALLS, "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .output();
    match tried {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Some("strace is not installed".into())
        }
        Err(error) => Some(format!("strace cannot be run: {error}")),
        Ok(output) if !output.status.success() => Some(format!(
            "strace may not trace here: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Ok(_) => None,
    }
}

/// Returns true, and prints why, if the tests are skipped.
fn skipped() -> bool {
    let Some(why) = no_strace() else { return false };
    assert!(
        std::env::var_os(REQUIRE).is_none_or(|value| value != "1"),
        "{REQUIRE} is set, but {why}"
    );
    println!("skipped: {why}");
    true
}

/// Runs the scenario once. Returns the child's `stats()`, the counts of the log, and the log.
fn traced(scenario: &str) -> (ChildStats, Counts, String) {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = format!("strace-{}-{}.log", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(run);
    let this = std::env::current_exe().expect("the test's own path");
    let mut command = Command::new(if cfg!(epoll) { "strace".as_ref() } else { this.as_os_str() });
    if cfg!(epoll) {
        command
            .args(["-f", "-y", "-s", "64", "-e", CALLS, "-e", "signal=none", "-o"])
            .arg(&path)
            .arg(&this);
    } else {
        command.env(LOG, &path);
    }
    let output = command
        .args(["--exact", "strace::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, scenario)
        .stdin(Stdio::null())
        .output()
        .expect("strace runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{scenario}: {stdout}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let numbers = stdout
        .lines()
        .find_map(|line| line.strip_prefix(STATS_PREFIX))
        .expect("the child's line of counts");
    let numbers: Vec<u64> =
        numbers.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    let [waits, polls, arms, wakes, syscalls] = numbers[..] else { panic!("{stdout}") };
    let log = fs::read_to_string(&path).expect("the log");
    fs::remove_file(&path).expect("the log can go");
    let log = between(&log).unwrap_or_else(|error| panic!("{scenario}: {error}"));
    if cfg!(epoll) {
        assert_eq!(syscalls, waits + polls + arms + wakes);
        return (ChildStats { waits, polls, arms, wakes }, count(log), log.to_string());
    }
    let (counts, calls) = count_kevents(log);
    assert_eq!(
        calls, syscalls,
        "{scenario}: the stand-in on the left, stats() on the right; its log:\n{log}"
    );
    assert_eq!(calls, waits + polls + wakes, "{scenario}: an arm was a call of its own:\n{log}");
    (ChildStats { waits, polls, arms, wakes }, counts, log.to_string())
}

/// The `Stats` that a child has printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ChildStats {
    waits: u64,
    polls: u64,
    arms: u64,
    wakes: u64,
}

/// Runs the scenario. `stats()` and strace must agree each time, and one run must be as `promised`.
#[track_caller]
fn stats_agree(scenario: &str, promised: impl Fn(Counts) -> bool) {
    if skipped() {
        return;
    }
    let begin = Instant::now();
    loop {
        let (stats, seen, log) = traced(scenario);
        let counted = Counts {
            epoll_waits: stats.waits + stats.polls,
            settimes: stats.arms,
            wakes: stats.wakes,
            reads: 0,
        };
        assert_eq!(
            counted, seen,
            "{scenario}: stats() on the left, strace on the right; its log:\n{log}"
        );
        if promised(seen) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{scenario}: not as promised; the last run: {seen:?}");
    }
}

/// Returns counts with these waits only.
fn waits(seen: Counts) -> Counts {
    Counts { epoll_waits: seen.epoll_waits, ..Counts::default() }
}

#[test]
fn turns_that_find_messages_make_no_syscall() {
    stats_agree("messages", |seen| seen == Counts::default());
}

#[test]
fn buffered_messages_make_no_syscall() {
    stats_agree("messages by other calls", |seen| seen == Counts::default());
}

/// The timer is set once, before the first wait that may sleep.
#[test]
fn a_ready_fd_costs_one_syscall() {
    stats_agree("ready sockets", |seen| {
        seen == Counts { settimes: seen.settimes.min(1), ..waits(seen) }
            && seen.epoll_waits == READY
    });
}

/// One wait for each tick, and on kqueue an arm that goes with the wait.
fn one_for_each_tick(seen: Counts) -> bool {
    let arms = if cfg!(kqueue) { seen.epoll_waits } else { 0 };
    (1..=TICKS).contains(&seen.epoll_waits) && seen == Counts { settimes: arms, ..waits(seen) }
}

#[test]
fn a_tick_makes_one_syscall() {
    stats_agree("ticks", one_for_each_tick);
}

// On kqueue every tick arms.
#[cfg(epoll)]
#[test]
fn a_tick_with_much_slack_makes_one_syscall() {
    stats_agree("lazy ticks", one_for_each_tick);
}

#[test]
fn a_tick_with_little_slack_makes_one_syscall() {
    stats_agree("nearly lazy ticks", one_for_each_tick);
}

#[test]
fn a_woken_sleep_makes_two_syscalls() {
    // A sleep that is announced and then cancelled, because the message is there, costs only the
    // wake-up.
    stats_agree("wakes", |seen| {
        (1..=seen.wakes).contains(&seen.epoll_waits)
            && seen == Counts { wakes: seen.wakes.min(WAKES), ..waits(seen) }
    });
}

#[test]
fn a_later_reset_makes_no_syscall() {
    stats_agree("later resets", |seen| seen == Counts::default());
}

/// An event costs its wake-up. The timer is set once for all events, and once for each tick.
#[test]
fn a_heartbeat_arms_for_ticks_only() {
    stats_agree("heartbeat", |seen| {
        let arms = BEATS + 1;
        seen.settimes <= arms && seen.wakes <= EVENTS && seen.epoll_waits <= seen.wakes + arms
    });
}

/// One wait, and one timer that ends it.
#[test]
fn idle_timers_and_channels_cost_no_wake_up() {
    stats_agree("idle", |seen| seen == Counts { epoll_waits: 1, settimes: 1, ..Counts::default() });
}

#[test]
fn a_default_makes_no_syscall() {
    stats_agree("defaults", |seen| seen == Counts::default());
}

/// Each message costs two polls and two wake-ups. The second wake-up is the reactor's own, for the
/// message that is left.
#[test]
fn an_embedded_reactor_counts_its_syscalls() {
    let promised =
        Counts { epoll_waits: 2 * EMBEDDED_TURNS, wakes: 2 * EMBEDDED_TURNS, ..Counts::default() };
    stats_agree("embedded", |seen| seen == promised);
}

#[test]
fn an_embedded_turn_with_later_resets_only_polls() {
    let promised = Counts { epoll_waits: EMBEDDED_TURNS, ..Counts::default() };
    stats_agree("embedded resets", |seen| seen == promised);
}

#[test]
fn kevents_in_a_log_are_counted() {
    let log = "kevent user:trigger, room for 0, returns\n\
               kevent timer:add, room for 16, waits\n\
               kevent timer:delete, room for 0, returns\n\
               kevent, room for 16, looks\n";
    assert_eq!(count_kevents(log), (Counts { epoll_waits: 2, settimes: 1, wakes: 1, reads: 0 }, 4));
}

#[test]
fn calls_between_the_marks_are_counted() {
    let log = format!(
        "7 write(4<anon_inode:[eventfd]>, \"\\1\\0\\0\\0\\0\\0\\0\\0\", 8) = 8\n\
         7 write(3</dev/null>, \"{BEGIN}\", 28) = 28\n\
         7 timerfd_settime(5<anon_inode:[timerfd]>, TFD_TIMER_ABSTIME, {{}}, NULL) = 0\n\
         7 epoll_wait(6<anon_inode:[eventpoll]>,  <unfinished ...>\n\
         8 write(4<anon_inode:[eventfd]>, \"\\1\\0\\0\\0\\0\\0\\0\\0\", 8 <unfinished ...>\n\
         7 <... epoll_wait resumed>[{{events=EPOLLIN}}], 16, -1) = 1\n\
         8 <... write resumed>) = 8\n\
         7 epoll_pwait2(6<anon_inode:[eventpoll]>, [], 16, {{}}, NULL, 0) = 0\n\
         7 write(1</dev/pts/0>, \"[eventfd\", 8) = 8\n\
         7 read(5<anon_inode:[timerfd]>, \"\", 8) = 8\n\
         7 read(9</etc/hosts>, \"\", 8) = 8\n\
         7 write(3</dev/null>, \"{END}\", 26) = 26\n\
         7 epoll_wait(6<anon_inode:[eventpoll]>, [], 16, 0) = 0\n"
    );
    let counts = count(between(&log).expect("both marks"));
    assert_eq!(counts, Counts { epoll_waits: 2, settimes: 1, wakes: 1, reads: 1 });
    assert!(between("7 epoll_wait(6<anon_inode:[eventpoll]>, [], 16, 0) = 0").is_err());
}

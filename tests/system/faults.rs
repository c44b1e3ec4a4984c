//! Syscalls that fail: each call succeeds without the syscall, or gives an error that names cause
//! and remedy. No event is lost, no fd stays open, and after the fault everything works again.
//!
//! Each scenario runs once without a fault, which lists its syscalls. Then each of these syscalls
//! fails with each of its errors. The first calls fail one by one, then the last call alone, then
//! all calls until the scenario has seen the error. [`ERRORS`] must have a row for each syscall, so
//! a new syscall is noticed here.
//!
//! The tests are skipped where the kernel has no such filters. With `POLLMUX_REQUIRE_STRACE=1` they
//! fail instead.
#![cfg(all(target_os = "linux", target_pointer_width = "64", not(flat)))]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use libc::{EACCES, EAGAIN, EINTR, EINVAL, EMFILE, ENFILE, ENOMEM, ENOSPC, ENOSYS, EPERM};
use pollmux::driver::Native;
use pollmux::sys::{self, Interest, Mode, Poller};
use pollmux::{Events, Reactor, Select, Signal, Source, Time};
use support::{Fault, Faults, alone, ms, pair, setting, spawn};

/// The errors of each syscall, from the kernel, from a limit and from a filter.
const ERRORS: &[(libc::c_long, &[i32])] = &[
    #[cfg(epoll)]
    (libc::SYS_epoll_create1, &[EMFILE, ENFILE, ENOMEM, EPERM, ENOSYS]),
    #[cfg(kqueue)] // errors of `kqueue` and of `EV_ADD`
    (libc::SYS_epoll_create1, &[EMFILE, ENFILE, ENOMEM]),
    (libc::SYS_epoll_ctl, &[ENOSPC, ENOMEM, EINTR]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, &[EINTR, ENOMEM, EPERM, ENOSYS]),
    (libc::SYS_epoll_pwait, &[EINTR, ENOMEM, EPERM, ENOSYS]),
    (libc::SYS_epoll_pwait2, &[EINTR, EPERM, ENOSYS, EACCES]),
    (libc::SYS_pipe2, &[EMFILE, ENFILE, ENOMEM]),
    (libc::SYS_eventfd2, &[EMFILE, ENFILE, ENOMEM, EPERM, ENOSYS]),
    (libc::SYS_timerfd_create, &[EMFILE, ENFILE, ENOMEM, EPERM, ENOSYS]),
    (libc::SYS_timerfd_settime, &[EINTR, ENOMEM, EPERM, ENOSYS]),
    (libc::SYS_read, &[EINTR, EAGAIN]),
    (libc::SYS_write, &[EINTR, EAGAIN, EPERM]),
    (libc::SYS_fcntl, &[EMFILE, EPERM, EINTR]),
    (libc::SYS_pidfd_open, &[EMFILE, ENFILE, ENOMEM, EPERM, ENOSYS, EACCES]),
    (libc::SYS_waitid, &[EINTR, EPERM, ENOSYS]),
    (libc::SYS_wait4, &[EINTR]),
    (libc::SYS_rt_sigaction, &[EPERM, EINTR]),
    (libc::SYS_rt_sigprocmask, &[EPERM]),
    (libc::SYS_prctl, &[EINVAL, EPERM]),
    (libc::SYS_getpriority, &[EPERM, ENOSYS]),
    (libc::SYS_sched_getscheduler, &[EPERM, ENOSYS]),
    // The crate calls this once in a process. `.ci/run` runs tests without it.
    (libc::SYS_membarrier, &[]),
    // Calls of std, for the kind of a file and the number of cores.
    (libc::SYS_statx, &[ENOSYS]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, &[EPERM]),
    (libc::SYS_readlinkat, &[EPERM]),
    (libc::SYS_openat, &[EMFILE, EACCES]),
];

/// Returns true for a syscall of the crate. The kqueue stand-in makes other calls; it passes on
/// only the errors of its `epoll_create1` and `epoll_pwait2`.
fn is_tried(call: libc::c_long) -> bool {
    const WITH_KQUEUE: [libc::c_long; 8] = [
        libc::SYS_epoll_create1,
        libc::SYS_epoll_pwait2,
        libc::SYS_fcntl,
        libc::SYS_pipe2,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_wait4,
        libc::SYS_waitid,
    ];
    cfg!(epoll) || WITH_KQUEUE.contains(&call)
}

/// Returns the words that an error must contain, for its cause and its remedy.
fn words(errno: i32) -> &'static [&'static str] {
    match errno {
        EMFILE => &["RLIMIT_NOFILE", "raise"],
        ENFILE => &["fs.file-max", "raise"],
        ENOMEM => &["memory limit", "raise"],
        ENOSPC => &["fs.epoll.max_user_watches", "raise"],
        EPERM | ENOSYS | EACCES => &["seccomp", "allow"],
        EINTR => &["interrupted again and again"],
        _ => &["(os error"],
    }
}

/// A scenario under a fault.
struct FaultRun<'a> {
    faults: &'a Faults,
    fault: Option<Fault>,
    errors: Cell<u64>,
    /// A child process that ends with its input. No child is started under a fault.
    child: RefCell<Option<Child>>,
}

impl FaultRun<'_> {
    /// The number of errors in a row before the fault is removed.
    const PATIENCE: u64 = 3;

    /// Calls `f` until it succeeds.
    #[track_caller]
    fn retry<R, E: Into<Box<dyn Error>>>(&self, mut f: impl FnMut() -> Result<R, E>) -> R {
        loop {
            match f() {
                Ok(done) => return done,
                Err(error) => self.check_error(&*error.into()),
            }
        }
    }

    /// Checks that an error is that of the fault, and that there are no more errors than failed
    /// calls.
    #[track_caller]
    fn check_error(&self, error: &(dyn Error + 'static)) {
        let said = error.to_string();
        let Some(fault) = self.fault else { panic!("error without a fault: {said}") };
        for word in words(fault.errno) {
            assert!(said.contains(word), "{fault:?}: `{said}` does not contain `{word}`");
        }
        self.errors.set(self.errors.get() + 1);
        assert!(
            self.errors.get() <= self.faults.failed(),
            "{fault:?}: more errors than failed calls"
        );
        if self.errors.get() >= FaultRun::PATIENCE {
            self.faults.stop();
        }
    }

    /// Calls `f` of `pollmux::sys`, which gives some errors unchanged, until `f` succeeds.
    #[track_caller]
    fn retry_sys<R>(&self, mut f: impl FnMut() -> io::Result<R>) -> R {
        let raw = |error: &io::Error| {
            let errno = self.fault.map(|fault| fault.errno);
            errno.filter(|_| error.raw_os_error() == errno)
        };
        self.retry(|| f().map_err(|e| raw(&e).map_or(e, |n| io::Error::other(words(n).join(" ")))))
    }

    fn reactor(&self) -> Reactor {
        self.retry(Reactor::new)
    }
}

type Scenario = (&'static str, fn(&FaultRun<'_>));

const SCENARIOS: &[Scenario] = &[
    ("creations", creations),
    ("sleeps", sleeps),
    ("lazy sleeps", lazy_sleeps),
    ("messages", messages),
    ("fds", fds),
    ("files", files),
    ("embedded", embedded),
    ("os timers", os_timers),
    ("signals", signals),
    ("child", child),
];

fn creations(tested: &FaultRun<'_>) {
    drop(tested.retry(Native::new));
    let reactor = tested.reactor();
    drop(tested.retry(|| reactor.os_timer()));
    drop(tested.retry(|| sys::SignalSet::new(&[libc::SIGUSR1])));
    let poller = tested.retry(Poller::new);
    drop(tested.retry(|| sys::Waker::new(&poller, 1)));
    drop(tested.retry(|| sys::PollerTimer::new(&poller, 2)));
    drop(tested.retry(|| sys::TimerFd::new(sys::TimerClock::Wall)));
}

/// Sleeps in every way. No sleep ends early.
fn sleeps(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let timer = reactor.after(ms(1));
    let due = tested.retry(|| reactor.recv(&timer));
    assert!(Time::now() >= due);
    let timer = reactor.after(ms(1));
    let mut events = Events::with_capacity(1);
    while !timer.is_ready() {
        tested.retry(|| reactor.wait(&mut events));
    }
    let start = Time::now();
    tested.retry(|| reactor.sleep_blocking(ms(1)));
    assert!(Time::now() - start >= ms(1));
    let timer = reactor.after(ms(1));
    let mut set = Select::new(&reactor);
    set.recv(&timer);
    tested.retry(|| set.wait().map(|selected| selected.recv(&timer).is_some()));
    assert_eq!(tested.retry(|| reactor.recv_timeout(&timer, ms(1))), None);
    let called = Rc::new(Cell::new(0));
    let count = called.clone();
    reactor.call_after(ms(1), move |_| count.set(count.get() + 1)).detach();
    while called.get() == 0 {
        tested.retry(|| reactor.sleep_blocking(ms(1)));
    }
    assert_eq!(called.get(), 1);
}

/// Sleeps that a timeout of the kernel may end.
fn lazy_sleeps(tested: &FaultRun<'_>) {
    let reactor = tested.retry(|| Reactor::builder().slack(ms(1)).build());
    for _ in 0..3 {
        let timer = reactor.after(ms(1));
        let due = tested.retry(|| reactor.recv(&timer));
        assert!(Time::now() >= due);
    }
    let poller = tested.retry(Poller::new);
    let start = Time::now();
    let mut found = sys::PollEvents::with_capacity(1);
    while Time::now() - start < ms(1) {
        tested.retry_sys(|| poller.wait(&mut found, Some(ms(1))));
    }
}

/// Another thread sends messages and posts to a sleeping loop. Each comes once and in order.
fn messages(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let remote = reactor.remote();
    let posted = Rc::new(Cell::new(0));
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..4 {
                thread::sleep(Duration::from_micros(300)); // by then the loop sleeps
                remote.post(|_| ()).unwrap();
                tx.send(n).unwrap();
            }
        });
        for n in 0..4 {
            let got = tested.retry(|| reactor.recv(&inbox));
            assert_eq!(got, Ok(n));
            posted.set(posted.get() + 1);
        }
    });
    assert!(tested.retry(|| reactor.recv(&inbox)).is_err());
}

/// Sockets: each written byte is read, despite errors of the registration.
fn fds(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    for mode in [Mode::Edge, Mode::Level, Mode::OneShot] {
        let (mut theirs, ours) = pair();
        let fd = tested.retry(|| {
            reactor.fd_with_mode(&ours, Interest::READABLE, mode).map_err(|e| e.to_string())
        });
        for n in 0..2 {
            tested.retry(|| theirs.write_all(&[n]).or_else(ignore_spurious));
            let mut byte = [0];
            while tested.retry(|| fd.try_io(|io| (&**io).read(&mut byte)).or_else(ignore_spurious))
                == 0
            {
                tested.retry(|| reactor.recv(&fd));
            }
            assert_eq!(byte, [n]);
            if mode == Mode::OneShot {
                tested.retry(|| fd.rearm());
            }
        }
        tested.retry(|| fd.set_interest(Interest::BOTH));
        assert!(tested.retry(|| reactor.recv(&fd)).is_writable());
        drop(fd);
        assert_eq!(tested.retry(|| reactor.recv_timeout(&reactor.timer(), ms(0))), None);
    }
}

/// Ignores the kernel's own `EAGAIN` and `EINTR` of the test's reads and writes.
fn ignore_spurious<R: Default>(error: io::Error) -> io::Result<R> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(R::default()),
        _ => Err(error),
    }
}

/// The flags of a file: a blocking file is refused, or made non-blocking.
fn files(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    let refused = loop {
        let refused = reactor.fd(&ours, Interest::READABLE).map(drop).unwrap_err();
        if refused.error().kind() == ErrorKind::InvalidInput {
            break refused.to_string();
        }
        tested.check_error(&io::Error::from(refused));
    };
    assert!(refused.contains("the file is blocking"), "{refused}");
    // With another file: after an injected failure of its removal the first may be registered.
    let (_theirs, ours) = UnixStream::pair().unwrap();
    drop(
        tested
            .retry(|| reactor.fd_nonblocking(&ours, Interest::READABLE).map_err(|e| e.to_string())),
    );
    assert_eq!((&ours).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A reactor in an outer loop. Its fd is readable whenever a turn is due.
fn embedded(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let inner = tested.retry(|| reactor.embed());
    let outer = tested.retry(Poller::new);
    tested.retry_sys(|| outer.register(&inner, 0, Interest::READABLE, Mode::Level));
    let timer = reactor.after(ms(1));
    tx.send(1).unwrap();
    let mut got = 0;
    let mut events = sys::PollEvents::with_capacity(1);
    while got < 1 || timer.deadline().is_some() {
        tested.retry_sys(|| outer.wait(&mut events, None));
        // After an error the fd stays readable.
        let _ = inner.turn().inspect_err(|error| tested.check_error(error));
        got += tested.retry(|| reactor.try_recv(&inbox)).map_or(0, |got| got.unwrap());
        tested.retry(|| reactor.try_recv(&timer));
    }
    assert_eq!(got, 1);
}

fn os_timers(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let timer = tested.retry(|| reactor.os_timer());
    tested.retry(|| timer.reset(ms(1)));
    let due = tested.retry(|| reactor.recv(&timer));
    assert!(Time::now() >= due);
    tested.retry(|| timer.reset(Duration::from_secs(3_600)));
    assert!(tested.retry(|| timer.stop()));
    assert_eq!(tested.retry(|| reactor.recv_timeout(&timer, ms(1))), None);
    let timer = tested.retry(|| reactor.wall_timer());
    tested.retry(|| timer.reset(ms(1)));
    while tested.retry(|| reactor.recv(&timer)).is_err() {} // an error says that the clock was set
}

fn signals(tested: &FaultRun<'_>) {
    use nix::sys::signal::{SIGUSR1, SIGWINCH, kill};
    use nix::unistd::getpid;
    let reactor = tested.reactor();
    for _ in 0..2 {
        let signals = tested.retry(|| reactor.signals(&[Signal::USER1, Signal::WINDOW_CHANGE]));
        for number in [SIGUSR1, SIGWINCH] {
            kill(getpid(), number).unwrap();
            assert_eq!(tested.retry(|| reactor.recv(&signals)), Signal(number as i32));
        }
    }
}

fn child(tested: &FaultRun<'_>) {
    let reactor = tested.reactor();
    let mut child = tested.child.take().expect("a child");
    let input = child.stdin.take();
    let process = loop {
        match reactor.register(child) {
            Ok(process) => break process,
            Err(failed) => {
                tested.check_error(&failed);
                child = failed.into_inner();
            }
        }
    };
    assert_eq!(tested.retry(|| reactor.recv_timeout(&process, ms(1))).map(drop), None);
    drop(input);
    let status = tested.retry(|| reactor.recv(&process).and_then(|status| status));
    assert!(status.success());
}

/// Lists the open fds, without the fd that reads the list.
fn open_fds() -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let target = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        Some(format!("{} {:?}", path.display(), std::fs::read_link(&path).ok()?))
    };
    list.filter_map(target).collect()
}

/// Runs a scenario under a fault. Returns the number of calls of each syscall.
fn run(&(name, scenario): &Scenario, fault: Option<Fault>) -> BTreeMap<libc::c_long, u64> {
    const MOST: u64 = 20_000;
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut command = Command::new("cat");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let before = open_fds();
    let child = (name == "child").then(|| spawn(command));
    let run = Faults::run(fault.as_slice(), move |faults| {
        let (errors, child) = (Cell::new(0), RefCell::new(child));
        scenario(&FaultRun { faults, fault, errors, child });
        faults.stop();
        faults.counted()
    });
    let counted = run.unwrap();
    // A handler on another thread may hold the fd of a dropped set for a moment.
    let start = Instant::now();
    let mut after = open_fds();
    while after.len() != before.len() && start.elapsed() < PATIENCE {
        std::thread::sleep(ms(1));
        after = open_fds();
    }
    assert_eq!(after.len(), before.len(), "{name} {fault:?}: {before:#?} {after:#?}");
    let all: u64 = counted.values().sum();
    assert!(all < MOST, "{name} {fault:?}: {all} syscalls: {counted:?}");
    counted
}

/// Returns true, and prints why, if the kernel has no filters that ask.
fn skipped() -> bool {
    let Err(error) = Faults::run(&[], |_| ()) else { return false };
    let required = std::env::var("POLLMUX_REQUIRE_STRACE").is_ok_and(|value| value == "1");
    assert!(!required, "POLLMUX_REQUIRE_STRACE is set, but no filter of syscalls asks: {error}");
    println!("skipped: no filter of syscalls asks here: {error}");
    true
}

#[test]
fn each_syscall_may_fail_with_each_error() {
    alone!();
    if skipped() {
        return;
    }
    // More rounds would take a core from the other tests. `.ci/run` has a step for them.
    let most = setting("POLLMUX_SYSCALL_ROUNDS", 1);
    let mut runs = 0;
    for scenario in SCENARIOS {
        run(scenario, None); // makes what is made once in a process
        let counted = run(scenario, None);
        for (call, count) in counted.into_iter().filter(|(call, _)| is_tried(*call)) {
            let row = ERRORS.iter().find(|(known, _)| *known == call);
            let Some((_, errors)) = row else { panic!("{}: no row for {call}", scenario.0) };
            // A loop that no write can wake sleeps on until the next sender tries.
            let for_ever = if call == libc::SYS_write { 3 } else { u64::MAX };
            for &errno in *errors {
                // Fail the first calls, the last call, and all calls.
                for first in (1..count).take(most as usize).chain([count]) {
                    run(scenario, Some(Fault { call, errno, first, times: 1 }));
                    if first == 1 || most > 1 {
                        run(scenario, Some(Fault { call, errno, first, times: for_ever }));
                    }
                    runs += 1;
                }
            }
        }
    }
    println!("{runs} runs under a fault");
}

/// The clock is set, and arming the timer again fails.
#[cfg(epoll)]
#[test]
fn a_wall_timer_rearm_failure_is_repeated() {
    alone!();
    if skipped() {
        return;
    }
    let set = Fault { call: libc::SYS_read, errno: libc::ECANCELED, first: 1, times: 1 };
    let refused = Fault { call: libc::SYS_timerfd_settime, errno: EPERM, first: 2, times: 3 };
    let run = Faults::run(&[set, refused], |_| {
        let reactor = Reactor::new().unwrap();
        let timer = reactor.wall_timer().unwrap();
        timer.reset(ms(1)).unwrap();
        for _ in 0..3 {
            assert!(reactor.recv(&timer).unwrap().is_err());
        }
        let due = timer.deadline().expect("a deadline");
        while reactor.recv(&timer).unwrap().is_err() {}
        assert!(std::time::SystemTime::now() >= due && timer.deadline().is_none());
    });
    run.unwrap();
}

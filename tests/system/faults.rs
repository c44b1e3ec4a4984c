//! Syscalls that fail: each call works without, or gives an error that names cause and remedy.
//! Nothing is lost, no fd stays open, and when the fault is gone everything goes on.
//!
//! Each scenario runs once without a fault, which tells the syscalls that it makes. Then each of
//! these syscalls fails with each of its errors: one call alone, the first ones in turn and the
//! last, and all calls until the scenario has heard of it. [`ERRORS`] must have a row for each
//! syscall, so a new one is noticed here.
//!
//! Where the kernel has no such filters the tests are skipped, unless `POLLMUX_REQUIRE_STRACE=1` is
//! set: then they fail.
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

/// The errors of each syscall: of the kernel, of a limit, and of a filter.
const ERRORS: &[(libc::c_long, &[i32])] = &[
    #[cfg(epoll)]
    (libc::SYS_epoll_create1, &[EMFILE, ENFILE, ENOMEM, EPERM, ENOSYS]),
    #[cfg(kqueue)] // that of a `kqueue`, or of an `EV_ADD`
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
    // Asked once in a process; `.ci/run` runs the tests of what waits without it.
    (libc::SYS_membarrier, &[]),
    // std's, for the kind of a file and the number of cores.
    (libc::SYS_statx, &[ENOSYS]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, &[EPERM]),
    (libc::SYS_readlinkat, &[EPERM]),
    (libc::SYS_openat, &[EMFILE, EACCES]),
];

/// Returns true for a syscall of the crate. The library that stands for kqueue makes others, and
/// passes the errors of its `epoll_create1` and its `epoll_pwait2` on.
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

/// The words in which an error tells its cause and its remedy.
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
struct Trouble<'a> {
    faults: &'a Faults,
    fault: Option<Fault>,
    heard: Cell<u64>,
    /// A child process that ends with its input: none begins under a fault.
    child: RefCell<Option<Child>>,
}

impl Trouble<'_> {
    /// Errors that a call may have one after the other before the fault goes away.
    const PATIENCE: u64 = 3;

    /// Calls `f` until it succeeds.
    #[track_caller]
    fn over<R, E: Into<Box<dyn Error>>>(&self, mut f: impl FnMut() -> Result<R, E>) -> R {
        loop {
            match f() {
                Ok(done) => return done,
                Err(error) => self.hear(&*error.into()),
            }
        }
    }

    /// An error must be that of the fault, and no more come than calls fail.
    #[track_caller]
    fn hear(&self, error: &(dyn Error + 'static)) {
        let said = error.to_string();
        let Some(fault) = self.fault else { panic!("an error without a fault: {said}") };
        for word in words(fault.errno) {
            assert!(said.contains(word), "{fault:?}: `{said}` does not say `{word}`");
        }
        self.heard.set(self.heard.get() + 1);
        assert!(
            self.heard.get() <= self.faults.failed(),
            "{fault:?}: more errors than failed calls"
        );
        if self.heard.get() >= Trouble::PATIENCE {
            self.faults.stop();
        }
    }

    /// Calls `f` of the thin layer, which tells some errors as they are, until it succeeds.
    #[track_caller]
    fn thin<R>(&self, mut f: impl FnMut() -> io::Result<R>) -> R {
        let raw = |error: &io::Error| {
            let errno = self.fault.map(|fault| fault.errno);
            errno.filter(|_| error.raw_os_error() == errno)
        };
        self.over(|| f().map_err(|e| raw(&e).map_or(e, |n| io::Error::other(words(n).join(" ")))))
    }

    fn reactor(&self) -> Reactor {
        self.over(Reactor::new)
    }
}

type Scenario = (&'static str, fn(&Trouble<'_>));

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

fn creations(trouble: &Trouble<'_>) {
    drop(trouble.over(Native::new));
    let reactor = trouble.reactor();
    drop(trouble.over(|| reactor.os_timer()));
    drop(trouble.over(|| sys::SignalSet::new(&[libc::SIGUSR1])));
    let poller = trouble.over(Poller::new);
    drop(trouble.over(|| sys::Waker::new(&poller, 1)));
    drop(trouble.over(|| sys::PollerTimer::new(&poller, 2)));
    drop(trouble.over(|| sys::TimerFd::new(sys::TimerClock::Wall)));
}

/// Every way to sleep, of which none ends early.
fn sleeps(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let timer = reactor.after(ms(1));
    let due = trouble.over(|| reactor.recv(&timer));
    assert!(Time::now() >= due);
    let timer = reactor.after(ms(1));
    let mut events = Events::with_capacity(1);
    while !timer.is_ready() {
        trouble.over(|| reactor.wait(&mut events));
    }
    let start = Time::now();
    trouble.over(|| reactor.sleep_blocking(ms(1)));
    assert!(Time::now() - start >= ms(1));
    let timer = reactor.after(ms(1));
    let mut set = Select::new(&reactor);
    set.recv(&timer);
    trouble.over(|| set.wait().map(|selected| selected.recv(&timer).is_some()));
    assert_eq!(trouble.over(|| reactor.recv_timeout(&timer, ms(1))), None);
    let called = Rc::new(Cell::new(0));
    let count = called.clone();
    reactor.call_after(ms(1), move |_| count.set(count.get() + 1)).detach();
    while called.get() == 0 {
        trouble.over(|| reactor.sleep_blocking(ms(1)));
    }
    assert_eq!(called.get(), 1);
}

/// Sleeps that a timeout of the kernel may end.
fn lazy_sleeps(trouble: &Trouble<'_>) {
    let reactor = trouble.over(|| Reactor::builder().slack(ms(1)).build());
    for _ in 0..3 {
        let timer = reactor.after(ms(1));
        let due = trouble.over(|| reactor.recv(&timer));
        assert!(Time::now() >= due);
    }
    let poller = trouble.over(Poller::new);
    let start = Time::now();
    let mut found = sys::PollEvents::with_capacity(1);
    while Time::now() - start < ms(1) {
        trouble.thin(|| poller.wait(&mut found, Some(ms(1))));
    }
}

/// Messages and posts of another thread to a loop that sleeps: each comes once and in order.
fn messages(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let remote = reactor.remote();
    let posted = Rc::new(Cell::new(0));
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..4 {
                thread::sleep(Duration::from_micros(300)); // the loop sleeps by then
                remote.post(|_| ()).unwrap();
                tx.send(n).unwrap();
            }
        });
        for n in 0..4 {
            let got = trouble.over(|| reactor.recv(&inbox));
            assert_eq!(got, Ok(n));
            posted.set(posted.get() + 1);
        }
    });
    assert!(trouble.over(|| reactor.recv(&inbox)).is_err());
}

/// Sockets: what is written is read, whatever the registration went through.
fn fds(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    for mode in [Mode::Edge, Mode::Level, Mode::OneShot] {
        let (mut theirs, ours) = pair();
        let fd = trouble.over(|| {
            reactor.fd_with_mode(&ours, Interest::READABLE, mode).map_err(|e| e.to_string())
        });
        for n in 0..2 {
            trouble.over(|| theirs.write_all(&[n]).or_else(again));
            let mut byte = [0];
            while trouble.over(|| fd.try_io(|io| (&**io).read(&mut byte)).or_else(again)) == 0 {
                trouble.over(|| reactor.recv(&fd));
            }
            assert_eq!(byte, [n]);
            if mode == Mode::OneShot {
                trouble.over(|| fd.rearm());
            }
        }
        trouble.over(|| fd.set_interest(Interest::BOTH));
        assert!(trouble.over(|| reactor.recv(&fd)).is_writable());
        drop(fd);
        assert_eq!(trouble.over(|| reactor.recv_timeout(&reactor.timer(), ms(0))), None);
    }
}

/// The kernel's own `EAGAIN` and `EINTR`, of a read or a write that is not the crate's.
fn again<R: Default>(error: io::Error) -> io::Result<R> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(R::default()),
        _ => Err(error),
    }
}

/// The flags of a file: a blocking one is refused, or made non-blocking.
fn files(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    let refused = loop {
        let refused = reactor.fd(&ours, Interest::READABLE).map(drop).unwrap_err();
        if refused.error().kind() == ErrorKind::InvalidInput {
            break refused.to_string();
        }
        trouble.hear(&io::Error::from(refused));
    };
    assert!(refused.contains("the file is blocking"), "{refused}");
    // Of another file: a kernel never refuses to take one out.
    let (_theirs, ours) = UnixStream::pair().unwrap();
    drop(
        trouble
            .over(|| reactor.fd_nonblocking(&ours, Interest::READABLE).map_err(|e| e.to_string())),
    );
    assert_eq!((&ours).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A reactor in an outer loop, whose fd tells whenever a turn is due.
fn embedded(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let (tx, inbox) = reactor.channel(4).unwrap();
    let inner = trouble.over(|| reactor.embed());
    let outer = trouble.over(Poller::new);
    trouble.thin(|| outer.register(&inner, 0, Interest::READABLE, Mode::Level));
    let timer = reactor.after(ms(1));
    tx.send(1).unwrap();
    let mut got = 0;
    let mut events = sys::PollEvents::with_capacity(1);
    while got < 1 || timer.deadline().is_some() {
        trouble.thin(|| outer.wait(&mut events, None));
        // An error asks for another turn.
        let _ = inner.turn().inspect_err(|error| trouble.hear(error));
        got += trouble.over(|| reactor.try_recv(&inbox)).map_or(0, |got| got.unwrap());
        trouble.over(|| reactor.try_recv(&timer));
    }
    assert_eq!(got, 1);
}

fn os_timers(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let timer = trouble.over(|| reactor.os_timer());
    trouble.over(|| timer.reset(ms(1)));
    let due = trouble.over(|| reactor.recv(&timer));
    assert!(Time::now() >= due);
    trouble.over(|| timer.reset(Duration::from_secs(3_600)));
    assert!(trouble.over(|| timer.stop()));
    assert_eq!(trouble.over(|| reactor.recv_timeout(&timer, ms(1))), None);
    let timer = trouble.over(|| reactor.wall_timer());
    trouble.over(|| timer.reset(ms(1)));
    while trouble.over(|| reactor.recv(&timer)).is_err() {} // the clock was set
}

fn signals(trouble: &Trouble<'_>) {
    use nix::sys::signal::{SIGUSR1, SIGWINCH, kill};
    use nix::unistd::getpid;
    let reactor = trouble.reactor();
    for _ in 0..2 {
        let signals = trouble.over(|| reactor.signals(&[Signal::USER1, Signal::WINDOW_CHANGE]));
        for number in [SIGUSR1, SIGWINCH] {
            kill(getpid(), number).unwrap();
            assert_eq!(trouble.over(|| reactor.recv(&signals)), Signal(number as i32));
        }
    }
}

fn child(trouble: &Trouble<'_>) {
    let reactor = trouble.reactor();
    let mut child = trouble.child.take().expect("a child");
    let input = child.stdin.take();
    let process = loop {
        match reactor.register(child) {
            Ok(process) => break process,
            Err(failed) => {
                trouble.hear(&failed);
                child = failed.into_inner();
            }
        }
    };
    assert_eq!(trouble.over(|| reactor.recv_timeout(&process, ms(1))).map(drop), None);
    drop(input);
    let status = trouble.over(|| reactor.recv(&process).and_then(|status| status));
    assert!(status.success());
}

/// The open fds, but for the one that reads the list.
fn open_fds() -> Vec<String> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let target = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        Some(format!("{} {:?}", path.display(), std::fs::read_link(&path).ok()?))
    };
    list.filter_map(target).collect()
}

/// Runs a scenario under a fault. Returns how often each syscall was called.
fn run(&(name, scenario): &Scenario, fault: Option<Fault>) -> BTreeMap<libc::c_long, u64> {
    const MOST: u64 = 20_000;
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut command = Command::new("cat");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::null());
    let before = open_fds();
    let child = (name == "child").then(|| spawn(command));
    let run = Faults::run(fault.as_slice(), move |faults| {
        let (heard, child) = (Cell::new(0), RefCell::new(child));
        scenario(&Trouble { faults, fault, heard, child });
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

/// Returns true if the kernel has no filters that ask, and says so.
fn skipped() -> bool {
    let Err(error) = Faults::run(&[], |_| ()) else { return false };
    let required = std::env::var("POLLMUX_REQUIRE_STRACE").is_ok_and(|value| value == "1");
    assert!(!required, "POLLMUX_REQUIRE_STRACE is set, but no filter of syscalls asks: {error}");
    println!("skipped: no filter of syscalls asks here: {error}");
    true
}

#[test]
fn each_syscall_may_fail_with_each_of_its_errors() {
    alone!();
    if skipped() {
        return;
    }
    // More of them take a core from the other tests: `.ci/run` has a step for them.
    let most = setting("POLLMUX_SYSCALL_ROUNDS", 1);
    let mut runs = 0;
    for scenario in SCENARIOS {
        run(scenario, None); // What is made once for the whole process.
        let counted = run(scenario, None);
        for (call, count) in counted.into_iter().filter(|(call, _)| is_tried(*call)) {
            let row = ERRORS.iter().find(|(known, _)| *known == call);
            let Some((_, errors)) = row else { panic!("{}: no row for {call}", scenario.0) };
            // A loop that nothing can wake sleeps on, until the next sender tries.
            let for_ever = if call == libc::SYS_write { 3 } else { u64::MAX };
            for &errno in *errors {
                // The first calls, the last one, and all.
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

/// The clock is set, and the timer cannot be armed again for that.
#[cfg(epoll)]
#[test]
fn a_wall_timer_that_is_not_armed_again_says_so_again() {
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

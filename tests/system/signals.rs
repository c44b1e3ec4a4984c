//! Signals as sources. A process has one disposition for each signal, so each test that checks a
//! disposition has its own process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pollmux::sys::SignalSet;
use pollmux::{Events, Signal, reactor::SourceKind, select};
use support::{Random, alone, rounds, set_nonblocking, thread};

/// Keeps some signals caught until the process ends. Another thread may still have to take a signal
/// when a test drops its set. That signal must not end the process.
fn keep_signals_caught() {
    let reactor = support::reactor();
    std::mem::forget(reactor.signals(&[Signal::USER1, Signal::USER2, Signal::HANGUP]).unwrap());
    std::mem::forget(reactor);
}

/// Runs the rest of the test in a process of its own, with a reactor of this name.
macro_rules! alone_with {
    ($reactor:ident) => {
        alone!();
        keep_signals_caught();
        let $reactor = support::reactor();
    };
}

fn send(signal: Signal) {
    let signal = nix::sys::signal::Signal::try_from(signal.0).unwrap();
    nix::sys::signal::kill(nix::unistd::getpid(), signal).unwrap();
}

/// Sends the signal to this thread. The signal has been handled when the call returns.
fn raise(signal: Signal) {
    let signal = nix::sys::signal::Signal::try_from(signal.0).unwrap();
    nix::sys::signal::raise(signal).unwrap();
}

/// Returns a line of the status of this process or thread, as a hexadecimal number.
fn status(path: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    number_of(&text, field)
}

fn number_of(status: &str, field: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

const fn bit(signal: Signal) -> u64 {
    1 << (signal.0 - 1)
}

#[test]
fn a_signal_ends_a_sleep_once() {
    alone_with!(reactor);
    let signals = reactor.signals(&[Signal::USER1, Signal::USER2]).unwrap();
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(5)); // by then the loop mostly sleeps
        send(Signal::USER2);
    });
    select! { reactor; recv(signals) -> signal => assert_eq!(signal, Signal::USER2) }
    select! { reactor;
        recv(signals) -> signal => panic!("{signal}"),
        default(Duration::from_millis(5)) => {}
    }
}

#[test]
fn pending_signals_are_reported_once_each() {
    alone_with!(reactor);
    // No other test sends these signals to the process.
    let signals =
        reactor.signals(&[Signal::QUIT, Signal::ALARM, Signal::HANGUP]).unwrap().with_key(5);
    for signal in [Signal::QUIT, Signal::QUIT, Signal::HANGUP, Signal::ALARM] {
        raise(signal);
    }
    let mut events = Events::with_capacity(2);
    let mut got = Vec::new();
    while got.len() < 3 {
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.iter().next().unwrap().key(), 5);
        got.extend(reactor.try_recv(&signals).unwrap());
    }
    assert_eq!(got, [Signal::HANGUP, Signal::QUIT, Signal::ALARM]); // sorted by number
    reactor.try_wait(&mut events).unwrap();
    assert!(events.is_empty(), "the set stayed ready without a signal");
    assert_eq!(reactor.recv_timeout(&signals, Duration::from_millis(5)).unwrap(), None);
}

/// The interrupted thread may be about to read the error of its last call.
#[test]
fn a_handler_preserves_errno() {
    alone_with!(reactor);
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    assert!(std::fs::File::open("/there/is/no/such/file").is_err());
    // On kqueue this is more than the pipe holds.
    for _ in 0..if cfg!(epoll) { 100 } else { 70_000 } {
        raise(Signal::USER1);
        assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::NotFound);
    }
    assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1);
}

#[test]
fn a_burst_of_signals_loses_none() {
    alone_with!(reactor);
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    // Each signal is answered before the next, so none may be lost.
    let (tx, rx) = std::sync::mpsc::channel();
    let _sender = support::aside(move || {
        for _ in 0..2_000 {
            send(Signal::USER1);
            rx.recv().unwrap();
        }
    });
    for _ in 0..2_000 {
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1);
        tx.send(()).unwrap();
    }
}

#[test]
fn every_set_of_every_reactor_gets_a_signal() {
    alone!();
    keep_signals_caught();
    let (a, b) = (support::reactor(), support::reactor());
    let sets =
        [a.signals(&[Signal::USER1]).unwrap(), a.signals(&[Signal::USER1, Signal::USER2]).unwrap()];
    let other = b.signals(&[Signal::USER1]).unwrap();
    send(Signal::USER1);
    for set in &sets {
        assert_eq!(a.recv(set).unwrap(), Signal::USER1);
    }
    assert_eq!(b.recv(&other).unwrap(), Signal::USER1);
    drop(sets);
    send(Signal::USER1);
    assert_eq!(b.recv(&other).unwrap(), Signal::USER1);
}

/// The handlers' stack has room for two frames if registers are wide. Without a mask, each signal
/// would interrupt the handler of the signal before it.
#[test]
fn simultaneous_signals_do_not_overflow_the_stack() {
    use nix::sys::signal::{SIGBUS, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP};
    use nix::sys::signal::{SigSet, Signal as Number, raise};
    alone!();
    keep_signals_caught();
    // SIGCONT is left out, because it discards the stop signals.
    let but = [SIGKILL, SIGSTOP, SIGCONT, SIGSEGV, SIGBUS, SIGFPE, SIGILL];
    let all: Vec<_> = Number::iterator().filter(|signal| !but.contains(signal)).collect();
    let reactor = support::reactor();
    let mut numbers: Vec<_> = all.iter().map(|&signal| Signal(signal as i32)).collect();
    numbers.sort();
    let signals = reactor.signals(&numbers).unwrap();
    for _ in 0..100 {
        let set: SigSet = all.iter().copied().collect();
        set.thread_block().unwrap();
        all.iter().for_each(|&signal| raise(signal).unwrap());
        set.thread_unblock().unwrap(); // all signals come now
        for &number in &numbers {
            assert_eq!(reactor.recv(&signals).unwrap(), number);
        }
    }
}

/// The last of these signals has the number 64, the last bit of a word.
#[cfg(target_os = "linux")]
#[test]
fn every_real_time_signal_can_be_watched() {
    alone_with!(reactor);
    let numbers: Vec<_> = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(Signal).collect();
    assert_eq!(numbers.last(), Some(&Signal(64)));
    let signals = reactor.signals(&numbers).unwrap();
    for number in &numbers {
        // The processes of a user share the queue of these signals, which may be full for a while.
        while let Err(error) = signal_hook::low_level::raise(number.0) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            thread::sleep(Duration::from_millis(1));
        }
    }
    for &number in &numbers {
        assert_eq!(reactor.recv(&signals).unwrap(), number);
    }
}

#[test]
fn masks_and_children_are_not_affected() {
    alone!();
    keep_signals_caught();
    let of_child = || {
        let output =
            Command::new("cat").arg("/proc/self/status").stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // A shell ignores SIGINT for background programs. Here SIGINT is caught, so children have
        // the default action.
        let watched = bit(Signal::TERMINATE) | bit(Signal::INTERRUPT) | bit(Signal::CHILD);
        ["SigBlk:", "SigIgn:", "SigCgt:"].map(|field| {
            number_of(&text, field) & if field == "SigIgn:" { !watched } else { u64::MAX }
        })
    };
    let (mask, before) = (status("/proc/thread-self/status", "SigBlk:"), of_child());
    let reactor = support::reactor();
    let signals = reactor.signals(&[Signal::TERMINATE, Signal::INTERRUPT, Signal::CHILD]).unwrap();
    assert_eq!(status("/proc/thread-self/status", "SigBlk:"), mask);
    let caught = status("/proc/self/status", "SigCgt:");
    assert!(caught & bit(Signal::TERMINATE) != 0 && caught & bit(Signal::INTERRUPT) != 0);
    assert_eq!(of_child(), before);
    assert_eq!(reactor.recv(&signals).unwrap(), Signal::CHILD);

    // SIGTERM ends a child.
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    Command::new("kill").args(["-TERM", &sleeper.id().to_string()]).status().unwrap();
    assert!(!sleeper.wait().unwrap().success());
}

#[test]
fn dropping_the_last_set_restores_the_disposition() {
    alone!();
    keep_signals_caught();
    let caught = || status("/proc/self/status", "SigCgt:") & bit(Signal::ALARM) != 0;
    assert!(!caught());
    let reactor = support::reactor();
    let first = reactor.signals(&[Signal::ALARM, Signal::ALARM]).unwrap();
    let second = reactor.signals(&[Signal::ALARM]).unwrap();
    assert!(caught());
    drop(first);
    assert!(caught());
    drop(second);
    assert!(!caught());
    for _ in 0..1_000 {
        drop(reactor.signals(&[Signal::ALARM]).unwrap());
    }
    assert_eq!((caught(), reactor.stats().live), (false, 0));
    let lowest = std::fs::File::open("/dev/null").unwrap();
    assert!(lowest.as_raw_fd() < 500, "fds were leaked");
}

#[test]
#[allow(unsafe_code)]
fn a_removed_handler_is_reinstalled_by_new_sets() {
    use nix::sys::signal::{SIGWINCH, SigHandler, signal};
    alone_with!(reactor);
    let first = reactor.signals(&[Signal::WINDOW_CHANGE]).unwrap();
    // SAFETY: the default action is no handler, which could do something forbidden.
    unsafe { signal(SIGWINCH, SigHandler::SigDfl) }.unwrap();
    raise(Signal::WINDOW_CHANGE);
    assert_eq!(reactor.try_recv(&first).unwrap(), None);
    let second = reactor.signals(&[Signal::WINDOW_CHANGE]).unwrap();
    raise(Signal::WINDOW_CHANGE);
    for signals in [&first, &second] {
        assert_eq!(reactor.recv(signals).unwrap(), Signal::WINDOW_CHANGE);
    }
}

#[test]
fn handlers_of_others_are_called_too() {
    alone!();
    keep_signals_caught();
    let (first, number) = (signal_hook::consts::SIGVTALRM, signal_hook::consts::SIGXCPU);
    let others = |signal| {
        let (told, times) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        signal_hook::flag::register_usize(signal, told.clone(), 1).unwrap();
        move || {
            let told = told.swap(0, Ordering::SeqCst);
            times.fetch_add(told, Ordering::SeqCst) + told
        }
    };
    let raise = |signal| signal_hook::low_level::raise(signal).unwrap();
    let reactor = support::reactor();
    // Install their handler, ours, and ours again.
    let told = others(first);
    for round in 0..3 {
        let signals = reactor.signals(&[Signal(first)]).unwrap();
        raise(first);
        assert_eq!((reactor.recv(&signals).unwrap(), told()), (Signal(first), 2 * round + 1));
        drop(signals);
        raise(first);
        assert_eq!(told(), 2 * round + 2);
    }
    // Install our handler, theirs, and ours again. Our handler must not call itself.
    let signals = reactor.signals(&[Signal(number)]).unwrap();
    let told = others(number);
    raise(number);
    assert_eq!((reactor.recv(&signals).unwrap(), told()), (Signal(number), 1));
    drop(signals);
    raise(number);
    assert_eq!(told(), 2);
    for round in 0..3 {
        let signals = reactor.signals(&[Signal(number)]).unwrap();
        raise(number);
        assert_eq!((reactor.recv(&signals).unwrap(), told()), (Signal(number), 3 + round));
    }
}

#[test]
#[allow(unsafe_code)]
fn a_blocked_call_is_restarted() {
    alone_with!(reactor);
    let signals = reactor.signals(&[Signal::WINDOW_CHANGE]).unwrap();
    let (mut theirs, mut ours) = UnixStream::pair().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        // SAFETY: the call has no conditions.
        tell.send(unsafe { libc::pthread_self() } as usize).unwrap();
        ours.read(&mut [0])
    });
    let reading = told.recv().unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(1)); // by then the thread mostly blocks
        // SAFETY: the thread has not been joined.
        assert_eq!(unsafe { libc::pthread_kill(reading as libc::pthread_t, libc::SIGWINCH) }, 0);
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::WINDOW_CHANGE);
    }
    theirs.write_all(b"x").unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 1);
}

#[test]
#[allow(unsafe_code)]
fn a_foreign_handler_keeps_its_flags() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, sigaction};
    extern "C" fn theirs(_: libc::c_int) {}
    alone!();
    keep_signals_caught();
    let number = Signal(libc::SIGXFSZ);
    // SAFETY: the handler does nothing, or is the previous action.
    let set_action = |action| unsafe { sigaction(Number::SIGXFSZ, &action) }.unwrap();
    let reactor = support::reactor();
    let (usual, ours) = (SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SaFlags::SA_SIGINFO);
    let table = [
        (SigHandler::SigDfl, SaFlags::empty(), usual),
        (SigHandler::SigIgn, SaFlags::SA_NODEFER, usual),
        (SigHandler::Handler(theirs), SaFlags::empty(), SaFlags::empty()),
        (SigHandler::Handler(theirs), SaFlags::SA_RESTART, SaFlags::SA_RESTART),
        (SigHandler::Handler(theirs), SaFlags::SA_ONSTACK, SaFlags::SA_ONSTACK),
        (
            SigHandler::Handler(theirs),
            SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER,
            SaFlags::empty(),
        ),
    ];
    for (handler, flags, expected) in table {
        let before = set_action(SigAction::new(handler, flags, SigSet::empty()));
        let signals = reactor.signals(&[number]).unwrap();
        let caught = set_action(before);
        set_action(caught);
        let looked_at = usual | ours | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
        assert_eq!(caught.flags() & looked_at, expected | ours, "{handler:?} {flags:?}");
        // The handler masks all other signals except faults.
        assert!(
            caught.mask().contains(Number::SIGUSR2) && !caught.mask().contains(Number::SIGSEGV)
        );
        drop(signals);
        set_action(before);
    }
}

#[test]
fn sets_may_change_during_a_stream_of_signals() {
    alone_with!(reactor);
    let stays = reactor.signals(&[Signal::USER2]).unwrap();
    let rain = thread::spawn(|| (0..20_000).for_each(|_| send(Signal::USER2)));
    while !rain.is_finished() {
        let other = support::reactor();
        let comes = other.signals(&[Signal::USER2]).unwrap();
        other.recv_timeout(&comes, Duration::from_micros(50)).unwrap();
    }
    rain.join().unwrap();
    assert_eq!(reactor.recv(&stays).unwrap(), Signal::USER2);
}

#[test]
fn uncatchable_signals_are_refused_without_side_effects() {
    alone_with!(reactor);
    let caught = status("/proc/self/status", "SigCgt:");
    let refused =
        [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
    for number in refused.into_iter().chain([0, -1, 65, 1_000]) {
        let error = reactor.signals(&[Signal::USER1, Signal(number)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
    assert_eq!((status("/proc/self/status", "SigCgt:"), reactor.stats().live), (caught, 0));
    // The C library reserves signal 33, but not signal 63.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let error = reactor.signals(&[Signal::ALARM, Signal(33)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(status("/proc/self/status", "SigCgt:"), caught);
        let last = reactor.signals(&[Signal(63)]).unwrap();
        assert_eq!(status("/proc/self/status", "SigCgt:"), caught | bit(Signal(63)));
        drop(last);
        assert_eq!(status("/proc/self/status", "SigCgt:"), caught);
    }
    let refused = support::without_fds().signals(&[Signal::USER1]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    assert_eq!(status("/proc/self/status", "SigCgt:"), caught);
}

#[test]
fn a_set_outlives_its_reactor_inert() {
    alone_with!(reactor);
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    send(Signal::USER1);
    reactor.recv(&signals).unwrap();
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.fired), (Some(SourceKind::Signals), 1));
    let handle = reactor.handle();
    drop(reactor);
    send(Signal::USER1); // the signal is still caught and discarded
    drop(signals);
    assert_eq!(handle.signals(&[Signal::USER1]).unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn names_of_signals_are_displayed() {
    assert_eq!(
        format!("{} {:?} {}", Signal::INTERRUPT, Signal::TERMINATE, Signal(63)),
        "SIGINT SIGTERM Signal(63)"
    );
}

/// Runs `body` in a forked child, and returns the child's exit status.
#[allow(unsafe_code)]
fn forked(body: impl FnOnce() -> i32) -> ExitStatus {
    // SAFETY: the C library makes `fork` safe for the locks, memory and threads that the bodies
    // use.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
        // SAFETY: the call ends the process.
        unsafe { libc::_exit(code) };
    }
    let (mut status, begin) = (0, Instant::now());
    loop {
        // SAFETY: `status` is a valid place for the call to write to.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 if begin.elapsed() > Duration::from_secs(120) => {
                // SAFETY: the call takes no pointers, and the child has not been waited for.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                panic!("the forked child hangs");
            }
            0 => thread::sleep(Duration::from_micros(200)),
            ended => {
                assert_eq!(ended, pid);
                return ExitStatus::from_raw(status);
            }
        }
    }
}

fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A thread that is blocked in the handler of a set, inside its write.
struct StuckHandler {
    reader: File,
    thread: thread::JoinHandle<()>,
}

impl StuckHandler {
    fn begin(set: &SignalSet) -> StuckHandler {
        let reader = File::from(set.as_fd().try_clone_to_owned().unwrap());
        let mut writer = StuckHandler::writer(&reader);
        // Fill the file, so that the next write blocks.
        if cfg!(epoll) {
            writer.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        } else {
            while writer.write(&[0]).is_ok() {}
        }
        set_nonblocking(&writer, false);
        let thread = thread::spawn(|| raise(Signal::USER1));
        while !set.is_pending() {
            thread::yield_now();
        }
        StuckHandler { reader, thread }
    }

    /// Returns the writing end. An eventfd has one file for both ends.
    fn writer(reader: &File) -> File {
        let name = |fd: &Path| std::fs::read_link(fd).ok();
        let same = name(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd())));
        if cfg!(epoll) {
            return reader.try_clone().unwrap();
        }
        let ends = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        let writes = |path: &Path| {
            let number = path.file_name().unwrap().to_str().unwrap();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_ACCMODE == libc::O_WRONLY
        };
        let end = ends.into_iter().find(|path| name(path) == same && writes(path)).unwrap();
        let number: i32 = end.file_name().unwrap().to_str().unwrap().parse().unwrap();
        #[allow(unsafe_code)]
        // SAFETY: the set keeps the fd open.
        let end = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        end.try_clone_to_owned().unwrap().into()
    }

    fn resume(mut self) {
        // After this read a pipe has room for one more write.
        let mut room = vec![0; if cfg!(epoll) { 8 } else { 4096 }];
        assert!(self.reader.read(&mut room).unwrap() > 0);
        self.thread.join().unwrap();
    }
}

#[test]
fn no_set_waits_for_a_stuck_handler() {
    alone!();
    let number = Signal::USER1.0;
    let open = fds();
    for round in 0..3 {
        let set = SignalSet::new(&[number]).unwrap();
        let stuck = StuckHandler::begin(&set);
        let reactor = support::reactor();
        // Make sets for the same signal and another signal, which comes meanwhile.
        let both = [Signal::USER1, Signal::USER2];
        drop(reactor.signals(&both).unwrap());
        let signals = reactor.signals(&both).unwrap();
        raise(Signal::USER2);
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER2);
        drop((signals, reactor));
        assert_eq!(set.take(), Some(number));
        if round == 0 {
            stuck.resume();
            drop(set);
        } else {
            drop(set);
            // A set that is made meanwhile must not get the other set's write.
            let next = (round == 2).then(|| SignalSet::new(&[number]).unwrap());
            stuck.resume();
            assert_eq!(next.and_then(|next| next.take()), None);
        }
        assert_eq!(fds(), open, "the handler must close the fd of a dropped set");
    }
}

#[test]
fn a_signal_racing_a_drop_is_not_lost() {
    alone!();
    let (mut told, mut acted) = (0, 0);
    for seed in 0..rounds(500) {
        let status = forked(|| {
            let mut random = Random::new(seed);
            let set = SignalSet::new(&[Signal::USER1.0]).unwrap();
            let (mut here, mut there) = (random.below(5_000), random.below(1_000));
            let go = Arc::new(AtomicUsize::new(0));
            let went = go.clone();
            let sender = thread::spawn(move || {
                went.store(1, Ordering::SeqCst);
                while went.load(Ordering::SeqCst) != 2 {
                    std::hint::spin_loop();
                }
                spin(&mut there);
                send(Signal::USER1);
            });
            while go.load(Ordering::SeqCst) != 1 {
                thread::yield_now();
            }
            go.store(2, Ordering::SeqCst);
            spin(&mut here);
            let told = set.take() == Some(Signal::USER1.0);
            drop(set);
            sender.join().unwrap();
            i32::from(!told)
        });
        match (status.code(), status.signal()) {
            (Some(0), None) => told += 1,
            (None, Some(signal)) if signal == Signal::USER1.0 => acted += 1,
            _ => panic!("round {seed}, {told} told, {acted} acted: the signal was lost: {status}"),
        }
    }
    println!("{told} told, {acted} acted");
}

fn spin(times: &mut u64) {
    while *times > 0 {
        std::hint::spin_loop();
        *times -= 1;
    }
}

#[test]
fn a_dropped_set_raises_untaken_signals_again() {
    alone!();
    let number = Signal::USER1.0;
    let set = || SignalSet::new(&[number]).unwrap();
    let dies = |body: &dyn Fn()| {
        let status = forked(|| {
            body();
            0
        });
        assert!(status.signal() == Some(number) || status.code() == Some(0), "{status}");
        status.signal().is_some()
    };
    assert!(dies(&|| {
        let set = set();
        raise(Signal::USER1);
        drop(set);
    }));
    assert!(!dies(&|| {
        let set = set();
        raise(Signal::USER1);
        assert_eq!(set.take(), Some(number));
        drop(set);
    }));
    // Both sets got the signal and one took it, in both orders of the drops.
    for first in [true, false] {
        assert!(!dies(&|| {
            let (takes, never_looks) = (set(), set());
            raise(Signal::USER1);
            assert_eq!(takes.take(), Some(number));
            let (a, b) = if first { (takes, never_looks) } else { (never_looks, takes) };
            drop(a);
            assert_eq!(b.is_pending(), first, "a taken signal must not be reported again");
            drop(b);
        }));
    }
    // Neither set took the signal.
    assert!(dies(&|| {
        let sets = [set(), set()];
        raise(Signal::USER1);
        drop(sets);
    }));
    // One set took the first signal; no set took the second.
    assert!(dies(&|| {
        let (a, b) = (set(), set());
        raise(Signal::USER1);
        assert_eq!(a.take(), Some(number));
        raise(Signal::USER1);
        drop(a);
        drop(b);
    }));
    // When the older set is dropped, a set younger than the signal gets it.
    assert!(!dies(&|| {
        let old = set();
        raise(Signal::USER1);
        let young = set();
        assert!(!young.is_pending());
        drop(old);
        assert_eq!(young.take(), Some(number));
    }));
    // The signal was ignored, or its previous handler was called: the drop has nothing to do.
    assert!(!dies(&|| {
        set_action(libc::SIG_IGN);
        let set = set();
        raise(Signal::USER1);
        drop(set);
    }));
    assert!(!dies(&|| {
        set_action(count_call as *const () as usize);
        let set = set();
        raise(Signal::USER1);
        drop(set);
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        raise(Signal::USER1);
        assert_eq!(CALLS.load(Ordering::SeqCst), 2);
    }));
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_call(_: libc::c_int) {
    CALLS.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn count_call_too(_: libc::c_int) {
    CALLS.fetch_add(1, Ordering::SeqCst);
}

/// Sets the action of SIGUSR1, and returns the previous action.
#[allow(unsafe_code)]
fn set_action(action: usize) -> usize {
    // SAFETY: all zeros is a sigaction: no flags, an empty mask.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    new.sa_sigaction = action;
    // SAFETY: both are valid for the length of the call, and the handlers add to an atomic.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &new, &mut old) }, 0);
    old.sa_sigaction
}

#[test]
fn a_previous_handler_gets_each_signal_once() {
    alone!();
    set_action(count_call as *const () as usize);
    let rain = thread::spawn(|| (0..30_000).for_each(|_| raise(Signal::USER1)));
    while !rain.is_finished() {
        let set = SignalSet::new(&[Signal::USER1.0]).unwrap();
        set.take();
    }
    rain.join().unwrap();
    assert_eq!(CALLS.load(Ordering::SeqCst), 30_000);
}

#[test]
fn a_handler_installed_meanwhile_is_kept() {
    alone!();
    let handlers = [count_call, count_call_too].map(|handler| handler as *const () as usize);
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = 5_000;
    let other = {
        let turn = turn.clone();
        thread::spawn(move || {
            let mut random = Random::new(2);
            for round in 0..turns {
                let mut looks = 0_u64;
                while turn.load(Ordering::SeqCst) != 2 * round + 1 {
                    looks += 1;
                    if looks % 1_000 == 0 {
                        thread::yield_now();
                    }
                }
                spin(&mut random.below(150));
                set_action(handlers[1]);
                turn.store(2 * round + 2, Ordering::SeqCst);
            }
        })
    };
    let mut random = Random::new(1);
    for round in 0..turns {
        // Remove our handler of the last round.
        set_action(libc::SIG_DFL);
        drop(SignalSet::new(&[Signal::USER1.0]).unwrap());
        set_action(handlers[0]);
        turn.store(2 * round + 1, Ordering::SeqCst);
        spin(&mut random.below(150));
        drop(SignalSet::new(&[Signal::USER1.0]).unwrap());
        while turn.load(Ordering::SeqCst) != 2 * round + 2 {
            thread::yield_now();
        }
        assert_eq!(set_action(libc::SIG_DFL), handlers[1], "round {round}");
    }
    other.join().unwrap();
}

#[test]
fn a_signal_is_taken_by_one_thread() {
    alone!();
    keep_signals_caught();
    let set = SignalSet::new(&[Signal::USER1.0]).unwrap();
    let (round, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = rounds(5_000) as usize;
    let wait_for = |place: &AtomicUsize, value| {
        let mut looks = 0_u64;
        while place.load(Ordering::SeqCst) != value {
            looks += 1;
            if looks % 1_000 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for now in 1..=rounds {
                wait_for(&round, 2 * now - 1);
                taken.fetch_add(set.take().iter().count(), Ordering::SeqCst);
                round.store(2 * now, Ordering::SeqCst);
            }
        });
        for now in 1..=rounds {
            raise(Signal::USER1);
            round.store(2 * now - 1, Ordering::SeqCst);
            spin(&mut (now as u64 % 32));
            taken.fetch_add(set.take().iter().count(), Ordering::SeqCst);
            wait_for(&round, 2 * now);
        }
    });
    assert_eq!(taken.load(Ordering::SeqCst), rounds);
}

#[test]
fn a_blocked_signal_is_a_helpful_error() {
    use nix::sys::signal::{SigSet, Signal as Number};
    alone!();
    keep_signals_caught();
    let caught = status("/proc/self/status", "SigCgt:");
    let looks = move || {
        let reactor = support::reactor();
        let mask = status("/proc/thread-self/status", "SigBlk:");
        let error = reactor.signals(&[Signal::QUIT, Signal::TERMINATE]).unwrap_err();
        let text = error.to_string();
        for part in ["SIGTERM", "blocked", "SIG_UNBLOCK"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(status("/proc/self/status", "SigCgt:"), caught, "a signal was caught");
        assert_eq!(status("/proc/thread-self/status", "SigBlk:"), mask, "the mask was changed");
        assert_eq!(reactor.stats().live, 0);
        // Follow the advice of the error.
        SigSet::from(Number::SIGTERM).thread_unblock().unwrap();
        let signals = reactor.signals(&[Signal::QUIT, Signal::TERMINATE]).unwrap();
        raise(Signal::TERMINATE);
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::TERMINATE);
    };
    // Test a mask that the thread set itself, and an inherited mask.
    thread::spawn(move || {
        SigSet::from(Number::SIGTERM).thread_block().unwrap();
        thread::spawn(looks).join().unwrap();
        looks();
    })
    .join()
    .unwrap();
}

/// Returns the child's copy of `set`. The child drops the copy.
#[allow(unsafe_code)]
fn copy_of(set: &SignalSet) -> SignalSet {
    // SAFETY: the child leaves by `_exit`, and never drops the original.
    unsafe { std::ptr::read(set) }
}

#[test]
fn a_forked_child_waits_for_no_handler() {
    alone!();
    let number = Signal::USER1.0;
    let set = SignalSet::new(&[number]).unwrap();
    let stuck = StuckHandler::begin(&set);
    let status = forked(|| {
        let before = fds();
        drop(copy_of(&set));
        assert_eq!(
            fds(),
            before - if cfg!(epoll) { 1 } else { 2 },
            "the child's copy was not closed"
        );
        let own = SignalSet::new(&[number]).unwrap();
        raise(Signal::USER1);
        assert_eq!(own.take(), Some(number));
        0
    });
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(set.take(), Some(number));
    stuck.resume();
}

#[test]
fn a_forked_child_has_the_old_actions() {
    alone!();
    let number = Signal::USER1.0;
    let set = SignalSet::new(&[number, Signal::CHILD.0, Signal::TERMINATE.0]).unwrap();
    let nothing_came = || {
        // The set gets a SIGCHLD for each child that ends.
        while set.is_pending() {
            assert_eq!(set.take(), Some(Signal::CHILD.0));
        }
    };
    // The copy gives nothing, and the child's drop does not send untaken signals again.
    raise(Signal::TERMINATE);
    let status = forked(|| {
        assert!(!set.is_pending() && set.take().is_none());
        drop(copy_of(&set));
        0
    });
    assert_eq!(status.code(), Some(0), "{status}");
    while set.take() != Some(Signal::TERMINATE.0) {}
    // The child has the default action, with and without the copy and its own set.
    for (drops, makes) in [(false, false), (true, false), (false, true), (true, true)] {
        let status = forked(|| {
            if drops {
                drop(copy_of(&set));
            }
            if makes {
                let own = SignalSet::new(&[number]).unwrap();
                send(Signal::USER1);
                assert_eq!(own.take(), Some(number));
            }
            raise(Signal::CHILD); // the default action does nothing
            raise(Signal::USER1);
            0
        });
        assert_eq!(status.signal(), Some(number), "{status}");
        nothing_came();
    }
    // A grandchild has the default action, too.
    let status = forked(|| {
        let status = forked(|| {
            raise(Signal::USER1);
            0
        });
        status.signal().unwrap_or(0)
    });
    assert_eq!(status.code(), Some(number), "{status}");
    // No child writes to the parent's fd.
    nothing_came();
    drop(set);
    set_action(count_call as *const () as usize);
    let set = SignalSet::new(&[number]).unwrap();
    let mut eventfd = File::from(set.as_fd().try_clone_to_owned().unwrap());
    let status = forked(|| {
        (0..3).for_each(|_| raise(Signal::USER1));
        CALLS.load(Ordering::SeqCst) as i32
    });
    assert_eq!(status.code(), Some(3), "the previous handler must be called: {status}");
    let nothing = eventfd.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "the child wrote to the fd");
    assert!(!set.is_pending());
}

#[test]
fn forks_during_new_and_drop_never_hang() {
    alone!();
    let number = Signal::USER1.0;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    drop(SignalSet::new(&[number, Signal::USER2.0]).unwrap());
                }
            });
        }
        for round in 0..400 {
            let status = forked(|| {
                let set = SignalSet::new(&[number]).unwrap();
                raise(Signal::USER1);
                assert_eq!(set.take(), Some(number));
                drop(set);
                raise(Signal::USER1);
                0
            });
            assert_eq!(status.signal(), Some(number), "round {round}: {status}");
        }
        over.store(true, Ordering::SeqCst);
    });
}

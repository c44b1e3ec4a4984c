//! Signals as sources. A process has one disposition for each signal, so the tests of this file take turns.

#[path = "common/watch.rs"]
mod watch;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once};
use std::thread;
use std::time::Duration;

use pollmux::{Events, Reactor, Signal, Sim, SourceKind, select};
use rustix::process::{getpid, kill_process};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// One test at a time. A signal that another thread of the process still has to take, when a test has dropped its set, must not end the process: somebody catches them all the
/// time, but the one whose disposition is looked at.
fn alone() -> MutexGuard<'static, ()> {
    static BACKSTOP: Once = Once::new();
    BACKSTOP.call_once(|| {
        let reactor = Reactor::new().unwrap();
        std::mem::forget(reactor.signals(&[Signal::USER1, Signal::USER2, Signal::HANGUP]).unwrap());
        std::mem::forget(reactor);
    });
    ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn send(signal: Signal) {
    let signal = rustix::process::Signal::from_named_raw(signal.0).unwrap();
    kill_process(getpid(), signal).unwrap();
}

/// To this thread: it has come when the call returns, and not on another thread a moment later.
fn raise(signal: Signal) {
    let signal = nix::sys::signal::Signal::try_from(signal.0).unwrap();
    nix::sys::signal::raise(signal).unwrap();
}

/// A line of this process's, or this thread's, status, as a number in hex.
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
fn a_signal_ends_a_sleep_and_is_taken_once() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let signals = reactor.signals(&[Signal::USER1, Signal::USER2]).unwrap();
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(5)); // while the loop sleeps, most of the time
        send(Signal::USER2);
    });
    select! { reactor; recv(signals) -> signal => assert_eq!(signal, Signal::USER2) }
    select! { reactor; recv(signals) -> signal => panic!("{signal}"), default(Duration::from_millis(5)) => {} }
}

#[test]
fn several_are_all_there_and_one_that_comes_twice_is_there_once() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    // Which no other test sends to the process.
    let signals = reactor.signals(&[Signal::QUIT, Signal::ALARM, Signal::HANGUP]).unwrap().with_key(5);
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
    assert_eq!(got, [Signal::HANGUP, Signal::QUIT, Signal::ALARM]); // by number
    reactor.try_wait(&mut events).unwrap();
    assert!(events.is_empty(), "it stays ready for nothing");
    assert_eq!(reactor.recv_timeout(&signals, Duration::from_millis(5)).unwrap(), None);
}

/// The thread that is interrupted may be about to look at the error of its last call.
#[test]
fn a_handler_leaves_the_error_of_the_last_call_alone() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    assert!(std::fs::File::open("/there/is/no/such/file").is_err());
    // More than a pipe holds, where it is one.
    for _ in 0..if cfg!(epoll) { 100 } else { 70_000 } {
        raise(Signal::USER1);
        assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::NotFound);
    }
    assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1);
}

#[test]
fn a_burst_is_never_lost() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    // Each one is answered before the next is sent: none may be missing.
    let (tx, rx) = std::sync::mpsc::channel();
    let sender = thread::spawn(move || {
        for _ in 0..2_000 {
            send(Signal::USER1);
            rx.recv().unwrap();
        }
    });
    for _ in 0..2_000 {
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::USER1);
        tx.send(()).unwrap();
    }
    sender.join().unwrap();
}

#[test]
fn several_reactors_and_sets_are_each_told() {
    let (_alone, _dog) = (alone(), watch::dog());
    let (a, b) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let sets = [a.signals(&[Signal::USER1]).unwrap(), a.signals(&[Signal::USER1, Signal::USER2]).unwrap()];
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

/// The stack on which handlers run has room for two frames, if registers are wide: each that came would interrupt the handler of the one before.
#[test]
fn many_that_come_at_one_instant_overflow_no_stack() {
    use nix::sys::signal::{SIGBUS, SIGCONT, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP};
    use nix::sys::signal::{SigSet, Signal as Number, raise};
    let (_alone, _dog) = (alone(), watch::dog());
    // SIGCONT takes back those that stop.
    let but = [SIGKILL, SIGSTOP, SIGCONT, SIGSEGV, SIGBUS, SIGFPE, SIGILL];
    let all: Vec<_> = Number::iterator().filter(|signal| !but.contains(signal)).collect();
    let reactor = Reactor::new().unwrap();
    let mut numbers: Vec<_> = all.iter().map(|&signal| Signal(signal as i32)).collect();
    numbers.sort();
    let signals = reactor.signals(&numbers).unwrap();
    for _ in 0..100 {
        let set: SigSet = all.iter().copied().collect();
        set.thread_block().unwrap();
        all.iter().for_each(|&signal| raise(signal).unwrap());
        set.thread_unblock().unwrap(); // now they come, all of them
        for &number in &numbers {
            assert_eq!(reactor.recv(&signals).unwrap(), number);
        }
    }
}

/// The last of them has the number 64, the last bit of a word.
#[cfg(target_os = "linux")]
#[test]
fn every_real_time_signal_can_be_watched() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let numbers: Vec<_> = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(Signal).collect();
    assert_eq!(numbers.last(), Some(&Signal(64)));
    let signals = reactor.signals(&numbers).unwrap();
    for number in &numbers {
        // The processes of a user share a queue of these, which may be full for a while.
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
fn no_mask_is_touched_and_children_start_as_they_would_have() {
    let (_alone, _dog) = (alone(), watch::dog());
    let of_child = || {
        let output = Command::new("cat").arg("/proc/self/status").stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // A shell ignores SIGINT for what it runs in the background; caught here it has the default action in children.
        let watched = bit(Signal::TERMINATE) | bit(Signal::INTERRUPT) | bit(Signal::CHILD);
        ["SigBlk:", "SigIgn:", "SigCgt:"]
            .map(|field| number_of(&text, field) & if field == "SigIgn:" { !watched } else { u64::MAX })
    };
    let (mask, before) = (status("/proc/thread-self/status", "SigBlk:"), of_child());
    let reactor = Reactor::new().unwrap();
    let signals = reactor.signals(&[Signal::TERMINATE, Signal::INTERRUPT, Signal::CHILD]).unwrap();
    assert_eq!(status("/proc/thread-self/status", "SigBlk:"), mask);
    let caught = status("/proc/self/status", "SigCgt:");
    assert!(caught & bit(Signal::TERMINATE) != 0 && caught & bit(Signal::INTERRUPT) != 0);
    assert_eq!(of_child(), before);
    assert_eq!(reactor.recv(&signals).unwrap(), Signal::CHILD);

    // A child that is told to end does.
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    Command::new("kill").args(["-TERM", &sleeper.id().to_string()]).status().unwrap();
    assert!(!sleeper.wait().unwrap().success());
}

#[test]
fn the_last_one_dropped_restores_what_was() {
    let (_alone, _dog) = (alone(), watch::dog());
    let caught = || status("/proc/self/status", "SigCgt:") & bit(Signal::ALARM) != 0;
    assert!(!caught());
    let reactor = Reactor::new().unwrap();
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
    assert!(lowest.as_raw_fd() < 500, "they are closed");
}

#[test]
#[allow(unsafe_code)]
fn a_handler_that_somebody_took_away_is_put_back_by_the_next_one() {
    use nix::sys::signal::{SIGWINCH, SigHandler, signal};
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let first = reactor.signals(&[Signal::WINDOW_CHANGE]).unwrap();
    // SAFETY: there is no handler that could do something forbidden.
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
fn handlers_of_others_are_told_too_whoever_came_first() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (_alone, _dog) = (alone(), watch::dog());
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
    let reactor = Reactor::new().unwrap();
    // Theirs, ours, and ours again.
    let told = others(first);
    for round in 0..3 {
        let signals = reactor.signals(&[Signal(first)]).unwrap();
        raise(first);
        assert_eq!((reactor.recv(&signals).unwrap(), told()), (Signal(first), 2 * round + 1));
        drop(signals);
        raise(first);
        assert_eq!(told(), 2 * round + 2);
    }
    // Ours, theirs, and ours again: what ours calls must not end in ours.
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
fn a_thread_that_is_blocked_in_a_call_goes_on() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
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
        thread::sleep(Duration::from_millis(1)); // it is blocked by then, mostly
        // SAFETY: the thread has not been joined.
        assert_eq!(unsafe { libc::pthread_kill(reading as libc::pthread_t, libc::SIGWINCH) }, 0);
        assert_eq!(reactor.recv(&signals).unwrap(), Signal::WINDOW_CHANGE);
    }
    theirs.write_all(b"x").unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), 1);
}

#[test]
#[allow(unsafe_code)]
fn a_handler_of_others_has_the_stack_and_the_restarts_that_it_asked_for_and_no_more() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal as Number, sigaction};
    extern "C" fn theirs(_: libc::c_int) {}
    let _alone = alone();
    let number = Signal(libc::SIGXFSZ);
    // SAFETY: the handler does nothing, or is what was there.
    let put = |action| unsafe { sigaction(Number::SIGXFSZ, &action) }.unwrap();
    let reactor = Reactor::new().unwrap();
    let (usual, ours) = (SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SaFlags::SA_SIGINFO);
    let table = [
        (SigHandler::SigDfl, SaFlags::empty(), usual),
        (SigHandler::SigIgn, SaFlags::SA_NODEFER, usual),
        (SigHandler::Handler(theirs), SaFlags::empty(), SaFlags::empty()),
        (SigHandler::Handler(theirs), SaFlags::SA_RESTART, SaFlags::SA_RESTART),
        (SigHandler::Handler(theirs), SaFlags::SA_ONSTACK, SaFlags::SA_ONSTACK),
        (SigHandler::Handler(theirs), SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER, SaFlags::empty()),
    ];
    for (handler, flags, expected) in table {
        let before = put(SigAction::new(handler, flags, SigSet::empty()));
        let signals = reactor.signals(&[number]).unwrap();
        let caught = put(before);
        put(caught);
        let looked_at = usual | ours | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
        assert_eq!(caught.flags() & looked_at, expected | ours, "{handler:?} {flags:?}");
        // The others wait, but for faults.
        assert!(caught.mask().contains(Number::SIGUSR2) && !caught.mask().contains(Number::SIGSEGV));
        drop(signals);
        put(before);
    }
}

#[test]
fn watchers_come_and_go_while_signals_rain() {
    let (_alone, _dog) = (alone(), watch::dog());
    let reactor = Reactor::new().unwrap();
    let stays = reactor.signals(&[Signal::USER2]).unwrap();
    let rain = thread::spawn(|| (0..20_000).for_each(|_| send(Signal::USER2)));
    while !rain.is_finished() {
        let other = Reactor::new().unwrap();
        let comes = other.signals(&[Signal::USER2]).unwrap();
        other.recv_timeout(&comes, Duration::from_micros(50)).unwrap();
    }
    rain.join().unwrap();
    assert_eq!(reactor.recv(&stays).unwrap(), Signal::USER2);
}

#[test]
fn what_cannot_be_caught_is_refused_and_nothing_is() {
    let _alone = alone();
    let reactor = Reactor::new().unwrap();
    let caught = status("/proc/self/status", "SigCgt:");
    let refused = [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
    for number in refused.into_iter().chain([0, -1, 65, 1_000]) {
        let error = reactor.signals(&[Signal::USER1, Signal(number)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&number.to_string()), "{error}");
    }
    assert_eq!((status("/proc/self/status", "SigCgt:"), reactor.stats().live), (caught, 0));
    // The C library keeps this one for itself; the last one that there is it does not.
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
    let simulated = Reactor::with_driver(Sim::new()).unwrap();
    assert_eq!(simulated.signals(&[Signal::USER1]).unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(status("/proc/self/status", "SigCgt:"), caught);
}

#[test]
fn they_are_listed_and_outlive_their_reactor_inert() {
    let _alone = alone();
    let reactor = Reactor::new().unwrap();
    let signals = reactor.signals(&[Signal::USER1]).unwrap();
    send(Signal::USER1);
    reactor.recv(&signals).unwrap();
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.fired), (Some(SourceKind::Signals), 1));
    let handle = reactor.handle();
    drop(reactor);
    send(Signal::USER1); // still caught: nobody hears it
    drop(signals);
    assert_eq!(handle.signals(&[Signal::USER1]).unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn names_are_shown() {
    assert_eq!(
        format!("{} {:?} {}", Signal::INTERRUPT, Signal::TERMINATE, Signal(63)),
        "SIGINT SIGTERM Signal(63)"
    );
}

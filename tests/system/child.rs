//! Child processes as sources.

// The module is empty where a kqueue cannot be nested (build.rs).
#![cfg(not(flat))]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Events, Reactor, Signal, Sim, Source, reactor::SourceKind, select};
use support::{alone, watchdog};

fn shell(script: &str) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_childs_exit_ends_a_sleep_once() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let child = reactor.register(shell("read line; exit 7")).unwrap();
    assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    let mut child = child;
    drop(child.get_mut().stdin.take());
    let status = reactor.recv(&child).unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
    assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    // The child has been waited for, so it is no zombie. Another process's child may have its
    // number.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let ours = format!("PPid:\t{}\n", std::process::id());
    assert!(!status.is_ok_and(|status| status.contains("State:\tZ") && status.contains(&ours)));
}

#[test]
fn a_child_that_exited_before_registration_is_ready() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = shell("exit 0");
    let mut end = String::new();
    child.stdout.take().unwrap().read_to_string(&mut end).unwrap();
    let child = reactor.register(child).unwrap();
    assert!(reactor.recv(&child).unwrap().unwrap().success());
}

#[test]
fn a_hundred_children_are_distinguished() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let children: Vec<_> = (0..100u64)
        .map(|i| {
            reactor
                .register_with(
                    i,
                    Command::new("sh").args(["-c", &format!("exit {i}")]).spawn().unwrap(),
                )
                .unwrap()
        })
        .collect();
    let mut events = Events::with_capacity(8);
    let mut ended = [false; 100];
    while ended.contains(&false) {
        reactor.wait(&mut events).unwrap();
        for event in &events {
            let i = event.key() as usize;
            if let Some(status) = reactor.try_recv(&children[i]).unwrap() {
                assert_eq!(status.unwrap().code(), Some(i as i32));
                assert!(!std::mem::replace(&mut ended[i], true), "child {i} ended twice");
            }
        }
    }
}

#[test]
fn a_killed_child_reports_the_signal() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let child = reactor.register(Command::new("sleep").arg("60").spawn().unwrap()).unwrap();
    let timeout = reactor.after(Duration::from_millis(5));
    let status = loop {
        select! { reactor;
            recv(child) -> status => break status.unwrap(),
            recv(timeout) -> _ => child.kill().unwrap(),
        }
    };
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn a_signal_reaches_only_the_running_child() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = reactor
        .register(shell("trap 'echo told; exit 7' USR1; echo; while :; do read x; done"))
        .unwrap();
    let mut said = BufReader::new(child.get_mut().stdout.take().unwrap()).lines();
    said.next().unwrap().unwrap(); // the trap is set now
    assert_eq!(child.signal(Signal(1_000)).unwrap_err().kind(), ErrorKind::InvalidInput);
    child.signal(Signal(0)).unwrap(); // signal 0 only checks the process
    child.signal(Signal::USER1).unwrap();
    drop(child.get_mut().stdin.take()); // a shell in `read` runs its trap only now
    assert_eq!(said.next().unwrap().unwrap(), "told");
    assert_eq!(reactor.recv(&child).unwrap().unwrap().code(), Some(7));
    // The status is known, so the number may belong to another process.
    child.signal(Signal::TERMINATE).unwrap();
    child.kill().unwrap();
    // A process that has exited and whose status was not taken.
    let child = reactor.register(shell("read line")).unwrap();
    child.kill().unwrap();
    while !child.is_ready() {
        support::turn(&reactor);
    }
    child.signal(Signal::TERMINATE).unwrap();
    assert_eq!(reactor.recv(&child).unwrap().unwrap().signal(), Some(9));
}

#[cfg(epoll)]
#[test]
fn a_signal_never_reaches_a_reused_pid() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = reactor.register(shell("read line")).unwrap();
    drop(child.get_mut().stdin.take());
    wait_elsewhere(child.id());
    let Some(mut other) = reuse(child.id(), sleeper) else {
        eprintln!("skipped: only root may choose a process id");
        return;
    };
    for sent in [child.signal(Signal::TERMINATE), child.kill()] {
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::NotFound);
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(other.try_wait().unwrap().is_none(), "the other process was signalled");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_childs_pipes_and_exit_are_awaited_together() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = reactor.register(shell("cat")).unwrap();
    let mut input = child.get_mut().stdin.take().unwrap();
    let output = child.get_mut().stdout.take().unwrap();
    let mut output = reactor.fd_nonblocking(output, Interest::READABLE).unwrap();
    input.write_all(b"through the pipe").unwrap();
    drop(input);
    let (mut text, mut status, mut eof) = (Vec::new(), None, false);
    let mut buffer = [0; 64];
    while status.is_none() || !eof {
        select! { reactor;
            recv(if eof { None } else { Some(&output) }) -> _ => match
                output.get_mut().read(&mut buffer)
            {
                Ok(0) => eof = true,
                Ok(n) => text.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    output.clear_readiness(pollmux::sys::Readiness::ALL);
                }
                Err(error) => panic!("{error}"),
            },
            recv(child) -> ended => status = Some(ended.unwrap()),
        }
    }
    assert!(status.unwrap().success());
    assert_eq!(text, b"through the pipe");
}

#[test]
fn a_deregistered_child_keeps_running() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let child = reactor.register(shell("read line; exit 3")).unwrap();
    let mut child = child.into_inner();
    assert_eq!(reactor.stats().live, 0);
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_refused_child_is_returned_and_can_register() {
    let _watchdog = watchdog();
    let failed = support::without_fds().register(shell("read line; exit 0")).unwrap_err();
    assert_eq!(failed.error().kind(), std::io::ErrorKind::Unsupported);
    let reactor = support::reactor();
    let mut child = failed.into_inner();
    drop(child.stdin.take());
    let child = reactor.register(child).unwrap();
    let child = child.with_key(8);
    assert!(reactor.recv(&child).unwrap().unwrap().success());
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.key, info.fired, child.key()), (Some(SourceKind::Child), 8, 1, 8));
    drop(reactor);
    drop(child);
}

/// Returns a child that `Child::wait` has waited for.
fn waited(code: i32) -> Child {
    let mut child = Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code));
    child
}

/// Takes the status of a child, as code that waits for every child would.
#[allow(unsafe_code)]
fn wait_elsewhere(pid: u32) {
    // SAFETY: a null status is allowed.
    assert_eq!(unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) }, pid as i32);
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_child_waited_for_is_ready_at_once() {
    alone!();
    let open = open_fds();
    for reactor in [support::reactor(), Reactor::with_driver(Sim::new()).unwrap()] {
        let by_try_wait = {
            let mut child = shell("exit 4");
            while child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            child
        };
        for (child, code) in [(waited(3), 3), (by_try_wait, 4)] {
            let child = reactor.register_with(7, child).unwrap();
            let mut events = Events::with_capacity(2);
            reactor.try_wait(&mut events).unwrap();
            assert_eq!(events.iter().map(|event| event.key()).collect::<Vec<_>>(), [7]);
            let status = reactor.try_recv(&child).unwrap().expect("at once").unwrap();
            assert_eq!(status.code(), Some(code));
            // The status is given once.
            assert!(reactor.try_recv(&child).unwrap().is_none());
            reactor.try_wait(&mut events).unwrap();
            assert!(events.is_empty());
            assert_eq!(
                child.into_inner().wait().unwrap().code(),
                Some(code),
                "the child must still know its status"
            );
        }
        // In a `select!`, and dropped without a receive.
        let child = reactor.register(waited(5)).unwrap();
        select! { reactor;
            recv(child) -> status => assert_eq!(status.unwrap().code(), Some(5)),
        }
        drop(reactor.register(waited(6)).unwrap());
        assert_eq!(reactor.stats().live, 1);
    }
    assert_eq!(open_fds(), open);
}

fn sleeper() -> Child {
    Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap()
}

/// Starts another process with the number of a former child. Only root may choose the number.
#[cfg(target_os = "linux")]
fn reuse(pid: u32, begin: impl Fn() -> Child) -> Option<Child> {
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut child = begin();
        if child.id() == pid {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

#[cfg(target_os = "linux")]
#[test]
fn a_reused_pid_is_never_watched() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = waited(9);
    let Some(mut other) = reuse(child.id(), sleeper) else {
        eprintln!("skipped: only root may choose a process id");
        child.wait().unwrap();
        return;
    };
    let child = reactor.register(child).unwrap();
    assert_eq!(child.id(), other.id());
    let status = reactor.try_recv(&child).unwrap().expect("at once").unwrap();
    assert_eq!(status.code(), Some(9));
    // The other process runs, and its own `Child` waits for it.
    assert!(other.try_wait().unwrap().is_none());
    let other_too = reactor.register(shell("read line; exit 2")).unwrap();
    other.kill().unwrap();
    assert_eq!(reactor.recv(&reactor.register(other).unwrap()).unwrap().unwrap().signal(), Some(9));
    assert!(reactor.try_recv(&child).unwrap().is_none());
    drop(other_too);
}

#[test]
fn a_status_taken_elsewhere_is_an_error() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let assert_status_taken = |error: &io::Error, pid: u32| {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = error.to_string();
        for part in [&pid.to_string(), "other code", "SIGCHLD"] {
            assert!(text.contains(part), "{text}");
        }
    };
    let child = shell("exit 1");
    wait_elsewhere(child.id());
    let failed = reactor.register(child).map(drop).unwrap_err();
    let pid = failed.error().to_string();
    let child = failed.into_inner();
    assert!(pid.contains(&child.id().to_string()));
    assert_status_taken(reactor.register(child).map(drop).unwrap_err().error(), read_pid(&pid));
    assert_eq!(reactor.stats().live, 0);

    // The status is taken after the registration.
    let mut child = reactor.register(shell("read line")).unwrap();
    drop(child.get_mut().stdin.take());
    wait_elsewhere(child.id());
    // The number belongs to no child, so `kill` fails.
    assert_status_taken(&child.kill().unwrap_err(), child.id());
    assert_status_taken(&child.signal(Signal::TERMINATE).unwrap_err(), child.id());
    let error = reactor.recv(&child).unwrap().unwrap_err();
    assert_status_taken(&error, child.id());
    assert!(
        reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none(),
        "the error was given twice"
    );
}

/// Returns the number in a message.
fn read_pid(text: &str) -> u32 {
    text.split(' ').find_map(|word| word.parse().ok()).unwrap()
}

#[test]
#[allow(unsafe_code)]
fn ignoring_sigchld_makes_the_exit_an_error() {
    alone!();
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let reactor = support::reactor();
    let mut child = reactor.register(shell("read line; exit 1")).unwrap();
    assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    drop(child.get_mut().stdin.take());
    let error = reactor.recv(&child).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_wait_while_registered_gives_the_status() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let mut child = reactor.register(shell("exit 8")).unwrap();
    assert_eq!(child.get_mut().wait().unwrap().code(), Some(8));
    child.kill().unwrap();
    assert_eq!(reactor.recv(&child).unwrap().unwrap().code(), Some(8));
}

#[test]
#[allow(unsafe_code)]
fn a_stopped_child_has_not_exited() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let child = reactor.register(sleeper()).unwrap();
    for signal in [libc::SIGSTOP, libc::SIGCONT, libc::SIGSTOP] {
        // SAFETY: the call takes no pointers, and the child has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    }
    child.kill().unwrap();
    assert_eq!(reactor.recv(&child).unwrap().unwrap().signal(), Some(libc::SIGKILL));
}

/// Makes the kernel refuse `pidfd_open` to this thread.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[allow(unsafe_code)]
fn refuse_pidfds(errno: i32) {
    let step = |code: u32, jump_true, jump_false, k| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    let number = libc::SYS_pidfd_open as u32;
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the number of the syscall
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the calls take numbers, and a program that is valid for the length of the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0), 0);
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[test]
fn a_refused_pidfd_is_unsupported() {
    let _watchdog = watchdog();
    for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP] {
        let mut child = shell("read line; exit 6");
        // On a thread of its own, because the filter stays on the thread.
        let thread = support::thread::spawn(move || {
            refuse_pidfds(errno);
            let reactor = support::reactor();
            let failed = reactor.register(child).map(drop).unwrap_err();
            assert_eq!(failed.error().kind(), ErrorKind::Unsupported, "{failed}");
            let text = failed.to_string();
            for part in ["seccomp", "Signal::CHILD", "try_wait"] {
                assert!(text.contains(part), "{text}");
            }
            child = failed.into_inner();
            assert!(child.try_wait().unwrap().is_none(), "the child must come back and run");
            assert_eq!(child.wait().unwrap().code(), Some(6));
            // A known status needs no pidfd.
            let child = reactor.register(child).unwrap();
            assert_eq!(reactor.try_recv(&child).unwrap().unwrap().unwrap().code(), Some(6));
            // A child that has exited needs no pidfd either.
            let mut child = shell("exit 5");
            let mut end = String::new();
            child.stdout.take().unwrap().read_to_string(&mut end).unwrap();
            loop {
                match reactor.register(child) {
                    Ok(child) => {
                        let status = reactor.try_recv(&child).unwrap().unwrap().unwrap();
                        break assert_eq!(status.code(), Some(5));
                    }
                    Err(failed) => child = failed.into_inner(), // the child is about to exit
                }
            }
            assert_eq!(reactor.stats().live, 1);
        });
        thread.join().unwrap();
    }
}

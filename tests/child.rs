//! Child processes as sources.

// Where no kqueue can be waited for (build.rs) there is nothing to test.
#![cfg(not(flat))]

#[path = "common/watch.rs"]
mod watch;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Events, Reactor, Sim, SourceKind, select};

fn shell(script: &str) -> Child {
    Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_end_of_a_child_ends_a_sleep_and_is_given_once() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
    let child = reactor.register(shell("read line; exit 7")).unwrap();
    assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    let mut child = child;
    drop(child.get_mut().stdin.take());
    let status = reactor.recv(&child).unwrap().unwrap();
    assert_eq!(status.code(), Some(7));
    assert!(reactor.recv_timeout(&child, Duration::from_millis(5)).unwrap().is_none());
    // No zombie: it has been waited for.
    assert!(!std::path::Path::new(&format!("/proc/{}", child.id())).exists());
}

#[test]
fn one_that_has_ended_before_it_was_registered_is_ready() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
    let mut child = shell("exit 0");
    let mut end = String::new();
    child.stdout.take().unwrap().read_to_string(&mut end).unwrap();
    let child = reactor.register(child).unwrap();
    assert!(reactor.recv(&child).unwrap().unwrap().success());
}

#[test]
fn a_hundred_children_are_each_told_apart() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
    let children: Vec<_> = (0..100u64)
        .map(|i| {
            reactor
                .register_with(i, Command::new("sh").args(["-c", &format!("exit {i}")]).spawn().unwrap())
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
fn a_killed_child_tells_the_signal() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
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
fn its_pipes_and_its_end_are_waited_for_together() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
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
            recv(if eof { None } else { Some(&output) }) -> _ => match output.get_mut().read(&mut buffer) {
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
fn taken_back_or_dropped_the_child_runs_on() {
    let _dog = watch::dog();
    let reactor = Reactor::new().unwrap();
    let child = reactor.register(shell("read line; exit 3")).unwrap();
    let mut child = child.into_inner();
    assert_eq!(reactor.stats().live, 0);
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));

    let child = reactor.register(child).map(drop).unwrap_err();
    assert!(child.error().raw_os_error().is_some(), "a process that was waited for is gone: {child}");
    assert_eq!(child.into_inner().wait().unwrap().code(), Some(3), "and it came back");
}

#[test]
fn a_driver_without_fds_gives_it_back_and_it_is_listed_by_others() {
    let _dog = watch::dog();
    let simulated = Reactor::with_driver(Sim::new()).unwrap();
    let failed = simulated.register(shell("exit 0")).unwrap_err();
    assert_eq!(failed.error().kind(), std::io::ErrorKind::Unsupported);
    let reactor = Reactor::new().unwrap();
    let child = reactor.register(failed.into_inner()).unwrap();
    let child = child.with_key(8);
    assert!(reactor.recv(&child).unwrap().unwrap().success());
    let sources = reactor.sources();
    let info = sources.iter().next().unwrap();
    assert_eq!((info.kind, info.key, info.fired, child.key()), (Some(SourceKind::Child), 8, 1, 8));
    drop(reactor);
    drop(child);
}

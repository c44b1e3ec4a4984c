//! Checks error messages. An error names the object, its creation site and the remedy, and keeps
//! the system's error.

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{
    Reactor, Select, driver::Native, driver::foreign::EventsId,
    driver::foreign::Queue as ForeignQueue, select,
};
use support::{Hooked, Hooks, alone, refusing_fds, set_fd_limit, spawn};

/// Returns a reactor whose driver refuses fds with an error of the system.
fn refusing(errno: i32) -> Reactor {
    refusing_fds(move || io::Error::from_raw_os_error(errno))
}

fn socket() -> UnixStream {
    let (socket, _) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Returns the system's error number of an error, or of one of its sources.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(errno);
        }
        next = error.source();
    }
    None
}

#[track_caller]
fn assert_says(error: &dyn std::fmt::Display, texts: &[&str]) {
    let said = error.to_string();
    for text in texts {
        assert!(said.contains(text), "`{said}` does not say `{text}`");
    }
}

#[test]
fn duplicate_fd_errors_name_the_first_registration() {
    let reactor = Reactor::new().unwrap();
    let socket = socket();
    let fd = socket.as_raw_fd();
    let (first, line) = (reactor.fd(&socket, Interest::READABLE).unwrap(), line!());
    let texts = [
        &*format!("fd {fd} at"),
        &*format!("tests/api/errors.rs:{line}:"),
        "registered already",
        "try_clone",
    ];
    let again = reactor.fd(&socket, Interest::READABLE).unwrap_err();
    assert_says(&again, &texts);
    assert_eq!(
        (again.error().kind(), errno(again.error())),
        (ErrorKind::AlreadyExists, Some(libc::EEXIST))
    );
    // The `io::Error` has the same text.
    let again = io::Error::from(again);
    assert_says(&again, &texts);
    assert_eq!((again.kind(), errno(&again)), (ErrorKind::AlreadyExists, Some(libc::EEXIST)));
    // The error names the source that has the fd now.
    drop(first);
    let (second, line) = (reactor.fd(&socket, Interest::READABLE).unwrap(), line!());
    assert_says(
        &reactor.fd(&socket, Interest::READABLE).unwrap_err(),
        &[&*format!("tests/api/errors.rs:{line}:")],
    );
    let clone = socket.try_clone().unwrap();
    assert!(reactor.fd(&clone, Interest::READABLE).is_ok());
    drop(second);
}

#[test]
fn a_full_epoll_names_its_limit() {
    let reactor = refusing(libc::ENOSPC);
    let socket = socket();
    let failed = reactor.fd(&socket, Interest::READABLE).unwrap_err();
    let texts = ["fs.epoll.max_user_watches", "raise", &*format!("fd {}", socket.as_raw_fd())];
    assert_says(&failed, &texts);
    assert_eq!(
        (failed.error().kind(), errno(failed.error())),
        (ErrorKind::StorageFull, Some(libc::ENOSPC))
    );
    assert_says(&io::Error::from(failed), &texts);
    // Sources with internal fds report the same limit.
    assert_says(&reactor.signals(&[pollmux::Signal::USER1]).unwrap_err(), &texts[..2]);
    if let Err(error) = reactor.os_timer() {
        if error.kind() != ErrorKind::Unsupported {
            assert_says(&error, &texts[..2]);
        }
    }
}

#[test]
fn errors_without_free_fds_name_the_limit() {
    let causes = [
        (libc::EMFILE, "RLIMIT_NOFILE"),
        (libc::ENFILE, "fs.file-max"),
        (libc::ENOMEM, "memory limit"),
    ];
    for (number, limit) in causes {
        let failed = refusing(number).fd(socket(), Interest::READABLE).unwrap_err();
        assert_says(&failed, &[limit, "raise"]);
        // Callers that decide by the system's error still find the number.
        assert_eq!(failed.error().raw_os_error(), Some(number));
        // An `io::Error`, as `?` makes it, has the same text.
        let failed = io::Error::from(failed);
        assert_says(&failed, &[limit, "raise"]);
        assert_eq!(errno(&failed), Some(number));
        // Sources with internal fds report the same limit.
        let failed = refusing(number).signals(&[pollmux::Signal::USER1]).unwrap_err();
        assert_says(&failed, &[limit, "raise"]);
        assert_eq!(errno(&failed), Some(number));
        match refusing(number).os_timer() {
            Err(failed) if failed.kind() == ErrorKind::Unsupported => {}
            made => assert_says(&made.unwrap_err(), &[limit, "raise"]),
        }
    }
}

/// Returns the open fds, without the fd that reads the list.
#[cfg(all(target_os = "linux", not(flat)))]
fn open_fds() -> Vec<u64> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = list.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    let mut fds: Vec<u64> = numbers.collect();
    fds.retain(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    fds.sort_unstable();
    fds
}

#[cfg(all(target_os = "linux", not(flat)))]
type Made = Result<Box<dyn std::any::Any>, Box<dyn Error>>;

/// Makes each fd that `make` opens fail in turn, and then lets `make` succeed.
#[cfg(all(target_os = "linux", not(flat)))]
fn check_without_fds(name: &str, make: &dyn Fn() -> Made) {
    const MOST: usize = 6;
    // The first call opens the fds that the process opens once.
    drop(make().unwrap());
    let before = open_fds();
    let free: Vec<u64> = (0..).filter(|fd| !before.contains(fd)).take(MOST + 1).collect();
    let mut failures = 0;
    for limit in free {
        let former = set_fd_limit(limit);
        let made = make();
        set_fd_limit(former);
        match made {
            Ok(made) => drop(made),
            Err(error) => {
                failures += 1;
                assert_says(&error, &["RLIMIT_NOFILE", "raise", "close some"]);
                assert_eq!(errno(&*error), Some(libc::EMFILE), "{name}");
            }
        }
        assert_eq!(open_fds(), before, "{name}");
    }
    let takes_none = cfg!(kqueue) && matches!(name, "sys::Waker" | "sys::PollerTimer");
    assert!(failures > 0 || takes_none, "{name} opens no fd");
    assert!(failures <= MOST, "{name} opens more fds than {MOST}");
    drop(make().expect(name));
    assert_eq!(open_fds(), before, "{name}");
}

#[test]
#[cfg(all(target_os = "linux", not(flat)))]
fn creation_without_free_fds_leaks_nothing() {
    alone!();
    use pollmux::sys;
    fn made<T: 'static>(made: io::Result<T>) -> Made {
        Ok(Box::new(made?))
    }
    let poller = sys::Poller::new().unwrap();
    let reactor = Reactor::new().unwrap();
    let (end, input) = UnixStream::pair().unwrap();
    let child = |_| {
        let mut command = std::process::Command::new("cat");
        command.stdin(std::os::fd::OwnedFd::from(input.try_clone().unwrap()));
        spawn(command.stdout(std::process::Stdio::null()))
    };
    let children: Vec<std::process::Child> = (0..10).map(child).collect();
    let pid = children[0].id();
    let children = std::cell::RefCell::new(children);
    let signals = [pollmux::Signal::USER1, pollmux::Signal::USER2];
    let number = libc::SIGUSR1;
    check_without_fds("Reactor", &|| made(Reactor::new()));
    check_without_fds("Builder", &|| made(Reactor::builder().build()));
    check_without_fds("Native", &|| made(Native::new()));
    check_without_fds("embed", &|| made(reactor.embed()));
    #[cfg(feature = "mio")]
    {
        use pollmux::driver::MioDriver;
        let token = mio::Token(0);
        check_without_fds("MioDriver", &|| {
            // Without an fd for the `Poll`, the driver itself cannot be tested, so this makes a
            // `Native`.
            let Ok(poll) = mio::Poll::new() else { return made(Native::new()) };
            made(MioDriver::new(poll, token))
        });
        let driver = MioDriver::new(mio::Poll::new().unwrap(), token).unwrap();
        check_without_fds("MioDriver::registry", &|| made(driver.registry()));
    }
    #[cfg(feature = "polling")]
    {
        use pollmux::driver::PollingDriver;
        let poller = std::sync::Arc::new(polling::Poller::new().unwrap());
        check_without_fds("PollingDriver", &|| made(PollingDriver::new(poller.clone(), 0)));
    }
    check_without_fds("os_timer", &|| made(reactor.os_timer()));
    if cfg!(epoll) {
        check_without_fds("boot_timer", &|| made(reactor.boot_timer()));
    }
    check_without_fds("wall_timer", &|| made(reactor.wall_timer()));
    check_without_fds("signals", &|| made(reactor.signals(&signals)));
    check_without_fds("sys::Poller", &|| made(sys::Poller::new()));
    check_without_fds("sys::Waker", &|| made(sys::Waker::new(&poller, 1)));
    check_without_fds("sys::PollerTimer", &|| made(sys::PollerTimer::new(&poller, 2)));
    check_without_fds("sys::TimerFd", &|| made(sys::TimerFd::new(sys::TimerClock::Monotonic)));
    check_without_fds("sys::SignalSet", &|| made(sys::SignalSet::new(&[number])));
    if sys::ProcessFd::new(pid).is_ok() {
        check_without_fds("sys::ProcessFd", &|| made(sys::ProcessFd::new(pid)));
        check_without_fds("child", &|| {
            Ok(Box::new(reactor.register(children.borrow_mut().pop().unwrap())?))
        });
    }
    drop(end); // ends the children
}

/// Lists the public functions that may open fds, by their return types. Add a new function to the
/// test above.
#[test]
#[cfg(target_os = "linux")]
fn every_function_that_opens_fds_is_tested() {
    const NO_FDS: [&str; 10] =
        ["(", "Option<", "R>", "C::", "S::", "bool", "usize", "Expiry", "Selected<", "libc::"];
    let mut found = std::collections::BTreeSet::new();
    let mut folders = vec![std::path::PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for function in text.split("pub fn ").skip(1) {
                let signature = function.split(" {\n").next().unwrap();
                let Some((_, made)) = signature.rsplit_once("-> io::Result<") else { continue };
                if !NO_FDS.iter().any(|none| made.starts_with(none)) {
                    let name = signature.split(['(', '<']).next().unwrap();
                    found.insert(format!("{name} {}", made.split(['>', '<']).next().unwrap()));
                }
            }
        }
    }
    let tested = [
        "boot_timer OsTimer",
        "build Reactor",
        "build_with Reactor", // takes a driver that exists already
        "embed Embedded",
        "new MioDriver",
        "new Native",
        "new Poller",
        "new PollerTimer",
        "new PollingDriver",
        "new ProcessFd",
        "new Reactor",
        "new SignalSet",
        "new TimerFd",
        "new Waker",
        "os_timer OsTimer",
        "registry Registry",
        "signals Signals",
        "wall_timer OsTimer",
        "with_batch Native",
        "with_driver Reactor", // takes a driver that exists already
    ];
    assert_eq!(Vec::from_iter(&found), tested.each_ref());
}

#[test]
fn regular_file_errors_name_the_fd() {
    let reactor = Reactor::new().unwrap();
    for file in [File::open("Cargo.toml").unwrap(), File::open("src").unwrap()] {
        let fd = file.as_raw_fd();
        let Err(failed) = reactor.fd(file, Interest::READABLE) else {
            if cfg!(epoll) {
                panic!("epoll accepted a regular file");
            }
            continue;
        };
        if cfg!(epoll) {
            assert_says(&failed, &[&*format!("fd {fd}"), "epoll cannot wait for a regular file"]);
            assert_eq!(
                (failed.error().kind(), errno(&failed)),
                (ErrorKind::Unsupported, Some(libc::EPERM))
            );
        }
    }
}

#[test]
fn registering_a_closed_fd_names_the_problem() {
    let failed = refusing(libc::EBADF).fd(socket(), Interest::READABLE).unwrap_err();
    assert_says(&failed, &["is not open"]);
    assert_eq!(errno(&failed), Some(libc::EBADF));
}

/// On kqueue a change registers the file again, so there is no error.
#[test]
#[cfg(epoll)]
fn an_fd_closed_behind_its_source_is_named() {
    let reactor = Reactor::new().unwrap();
    let (mut fd, line) = (reactor.fd(socket(), Interest::READABLE).unwrap(), line!());
    drop(std::mem::replace(fd.get_mut(), socket()));
    let failed = fd.set_interest(Interest::WRITABLE).unwrap_err();
    let number = fd.get_ref().as_raw_fd();
    let at = format!("fd {number}, registered at tests/api/errors.rs:{line}:");
    assert_says(&failed, &[&at, "is not registered any more", "Drop the source"]);
    assert_eq!((failed.kind(), errno(&failed)), (ErrorKind::NotFound, Some(libc::ENOENT)));
}

#[test]
fn blocking_file_errors_name_the_fd() {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let fd = stream.as_raw_fd();
    let failed = Reactor::new().unwrap().fd(stream, Interest::READABLE).unwrap_err();
    assert_says(&failed, &[&*format!("the file is blocking (fd {fd})"), "set_nonblocking(true)"]);
}

#[test]
fn other_errors_keep_the_system_error() {
    let failed = refusing(libc::ENOMEM).fd(socket(), Interest::READABLE).unwrap_err();
    assert_eq!(failed.error().raw_os_error(), Some(libc::ENOMEM));
}

/// A driver with a queue of foreign events.
struct WithEvents(ForeignQueue<u32>);

impl Hooks<Native> for WithEvents {
    fn has_events(&self, _: &Native, events: EventsId) -> bool {
        self.0.id() == events
    }
}

#[test]
fn duplicate_event_queues_name_the_first_registration() {
    let queue = ForeignQueue::with_capacity(1);
    let (first, second) = (queue.events(), queue.events());
    let reactor = Reactor::with_driver(Hooked(Native::new().unwrap(), WithEvents(queue))).unwrap();
    let (inbox, line) = (reactor.register(first).unwrap(), line!());
    let failed = reactor.register(second).unwrap_err();
    assert_says(&failed, &["registered already", &*format!("tests/api/errors.rs:{line}:")]);
    assert_eq!(failed.error().kind(), ErrorKind::AlreadyExists);
    drop(inbox);
    assert!(reactor.register(failed.into_inner()).is_ok());
}

#[test]
fn foreign_source_errors_match_the_call() {
    let (reactor, other) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let (tx, inbox) = other.channel(1).unwrap();
    tx.send(1).unwrap();
    let timer = other.after(Duration::from_secs(3600));
    let errors = [
        reactor.recv(&inbox).map(drop).unwrap_err(),
        reactor.recv_timeout(&inbox, Duration::from_secs(1)).map(drop).unwrap_err(),
        reactor.try_recv(&inbox).map(drop).unwrap_err(),
        reactor.recv(&timer).map(drop).unwrap_err(),
        reactor.recv_timeout(&timer, Duration::from_secs(1)).map(drop).unwrap_err(),
        reactor.try_recv(&timer).map(drop).unwrap_err(),
        reactor.recv(&Some(&inbox)).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_says(&error, &["the source is one of another reactor"]);
        assert!(
            !error.to_string().contains("select!") && error.kind() == ErrorKind::InvalidInput,
            "{error}"
        );
    }
    // A `select!` names its case, and a `Select` names the index.
    select! { reactor;
        recv(inbox) -> _ => panic!("the foreign inbox was received from"),
        error -> e => assert_says(&e, &["case 1 of the select! is a source of another reactor"]),
    }
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    assert_says(&set.wait().unwrap_err(), &["case 0 of the Select is a source of another reactor"]);
    assert_eq!(other.recv(&inbox).unwrap(), Ok(1));
    drop(other);
    assert_says(&reactor.recv(&inbox).unwrap_err(), &["the source is one of another reactor"]);
}

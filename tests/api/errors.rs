//! Errors name the thing, the line that made it where there is one, and the remedy; and keep what
//! the system said.

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

/// A reactor whose driver refuses fds with an error of the system.
fn refusing(errno: i32) -> Reactor {
    refusing_fds(move || io::Error::from_raw_os_error(errno))
}

fn socket() -> UnixStream {
    let (socket, _) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The system's error that an error, or one of its sources, is.
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
fn says(error: &dyn std::fmt::Display, texts: &[&str]) {
    let said = error.to_string();
    for text in texts {
        assert!(said.contains(text), "`{said}` does not say `{text}`");
    }
}

#[test]
fn a_second_registration_names_the_fd_and_the_first_line() {
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
    says(&again, &texts);
    assert_eq!(
        (again.error().kind(), errno(again.error())),
        (ErrorKind::AlreadyExists, Some(libc::EEXIST))
    );
    // As an `io::Error` it says the same.
    let again = io::Error::from(again);
    says(&again, &texts);
    assert_eq!((again.kind(), errno(&again)), (ErrorKind::AlreadyExists, Some(libc::EEXIST)));
    // The line is that of the source that has the fd now.
    drop(first);
    let (second, line) = (reactor.fd(&socket, Interest::READABLE).unwrap(), line!());
    says(
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
    says(&failed, &texts);
    assert_eq!(
        (failed.error().kind(), errno(failed.error())),
        (ErrorKind::StorageFull, Some(libc::ENOSPC))
    );
    says(&io::Error::from(failed), &texts);
    // So do the sources with fds of their own.
    says(&reactor.signals(&[pollmux::Signal::USER1]).unwrap_err(), &texts[..2]);
    if let Err(error) = reactor.os_timer() {
        if error.kind() != ErrorKind::Unsupported {
            says(&error, &texts[..2]);
        }
    }
}

#[test]
fn want_of_fds_names_the_limit() {
    let causes = [
        (libc::EMFILE, "RLIMIT_NOFILE"),
        (libc::ENFILE, "fs.file-max"),
        (libc::ENOMEM, "memory limit"),
    ];
    for (number, limit) in causes {
        let failed = refusing(number).fd(socket(), Interest::READABLE).unwrap_err();
        says(&failed, &[limit, "raise"]);
        // The system's own, for who decides by it.
        assert_eq!(failed.error().raw_os_error(), Some(number));
        // An `io::Error`, as `?` makes it, says the same.
        let failed = io::Error::from(failed);
        says(&failed, &[limit, "raise"]);
        assert_eq!(errno(&failed), Some(number));
        // So do the sources with fds of their own.
        let failed = refusing(number).signals(&[pollmux::Signal::USER1]).unwrap_err();
        says(&failed, &[limit, "raise"]);
        assert_eq!(errno(&failed), Some(number));
        match refusing(number).os_timer() {
            Err(failed) if failed.kind() == ErrorKind::Unsupported => {}
            made => says(&made.unwrap_err(), &[limit, "raise"]),
        }
    }
}

/// The open fds, but for the one that reads the list.
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

/// Lets `make` fail for want of each of its fds, and then succeed.
#[cfg(all(target_os = "linux", not(flat)))]
fn starve(name: &str, make: &dyn Fn() -> Made) {
    const MOST: usize = 6;
    // What is made once for the whole process.
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
                says(&error, &["RLIMIT_NOFILE", "raise", "close some"]);
                assert_eq!(errno(&*error), Some(libc::EMFILE), "{name}");
            }
        }
        assert_eq!(open_fds(), before, "{name}");
    }
    let takes_none = cfg!(kqueue) && matches!(name, "sys::Waker" | "sys::PollerTimer");
    assert!(failures > 0 || takes_none, "{name} takes no fd");
    assert!(failures <= MOST, "{name} takes more fds than {MOST}");
    drop(make().expect(name));
    assert_eq!(open_fds(), before, "{name}");
}

#[test]
#[cfg(all(target_os = "linux", not(flat)))]
fn a_creation_without_fds_names_the_limit_and_leaks_nothing() {
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
    starve("Reactor", &|| made(Reactor::new()));
    starve("Builder", &|| made(Reactor::builder().build()));
    starve("Native", &|| made(Native::new()));
    starve("embed", &|| made(reactor.embed()));
    #[cfg(feature = "mio")]
    {
        use pollmux::driver::MioDriver;
        let token = mio::Token(0);
        starve("MioDriver", &|| {
            // Without a `Poll` there is nothing to ask for, and no fd for others either.
            let Ok(poll) = mio::Poll::new() else { return made(Native::new()) };
            made(MioDriver::new(poll, token))
        });
        let driver = MioDriver::new(mio::Poll::new().unwrap(), token).unwrap();
        starve("MioDriver::registry", &|| made(driver.registry()));
    }
    #[cfg(feature = "polling")]
    {
        use pollmux::driver::PollingDriver;
        let poller = std::sync::Arc::new(polling::Poller::new().unwrap());
        starve("PollingDriver", &|| made(PollingDriver::new(poller.clone(), 0)));
    }
    starve("os_timer", &|| made(reactor.os_timer()));
    if cfg!(epoll) {
        starve("boot_timer", &|| made(reactor.boot_timer()));
    }
    starve("wall_timer", &|| made(reactor.wall_timer()));
    starve("signals", &|| made(reactor.signals(&signals)));
    starve("sys::Poller", &|| made(sys::Poller::new()));
    starve("sys::Waker", &|| made(sys::Waker::new(&poller, 1)));
    starve("sys::PollerTimer", &|| made(sys::PollerTimer::new(&poller, 2)));
    starve("sys::TimerFd", &|| made(sys::TimerFd::new(sys::TimerClock::Monotonic)));
    starve("sys::SignalSet", &|| made(sys::SignalSet::new(&[number])));
    if sys::ProcessFd::new(pid).is_ok() {
        starve("sys::ProcessFd", &|| made(sys::ProcessFd::new(pid)));
        starve("child", &|| Ok(Box::new(reactor.register(children.borrow_mut().pop().unwrap())?)));
    }
    drop(end); // and so the children end
}

/// The public functions that may open fds, by the types that they return. A new one belongs into
/// the test above.
#[test]
#[cfg(target_os = "linux")]
fn each_function_that_may_open_fds_is_starved() {
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
    let starved = [
        "boot_timer OsTimer",
        "build Reactor",
        "build_with Reactor", // of a driver that is there
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
        "with_driver Reactor", // as above
    ];
    assert_eq!(Vec::from_iter(&found), starved.each_ref());
}

#[test]
fn a_file_that_cannot_be_waited_for_says_what_to_do() {
    let reactor = Reactor::new().unwrap();
    for file in [File::open("Cargo.toml").unwrap(), File::open("src").unwrap()] {
        let fd = file.as_raw_fd();
        let Err(failed) = reactor.fd(file, Interest::READABLE) else {
            if cfg!(epoll) {
                panic!("epoll waits for no file");
            }
            continue;
        };
        if cfg!(epoll) {
            says(&failed, &[&*format!("fd {fd}"), "epoll cannot wait for a regular file"]);
            assert_eq!(
                (failed.error().kind(), errno(&failed)),
                (ErrorKind::Unsupported, Some(libc::EPERM))
            );
        }
    }
}

#[test]
fn a_closed_fd_is_named() {
    let failed = refusing(libc::EBADF).fd(socket(), Interest::READABLE).unwrap_err();
    says(&failed, &["is not open"]);
    assert_eq!(errno(&failed), Some(libc::EBADF));
}

/// On kqueue a change registers the file anew.
#[test]
#[cfg(epoll)]
fn a_file_closed_under_its_source_is_named() {
    let reactor = Reactor::new().unwrap();
    let (mut fd, line) = (reactor.fd(socket(), Interest::READABLE).unwrap(), line!());
    drop(std::mem::replace(fd.get_mut(), socket()));
    let failed = fd.set_interest(Interest::WRITABLE).unwrap_err();
    let number = fd.get_ref().as_raw_fd();
    let at = format!("fd {number}, registered at tests/api/errors.rs:{line}:");
    says(&failed, &[&at, "is not registered any more", "Drop the source"]);
    assert_eq!((failed.kind(), errno(&failed)), (ErrorKind::NotFound, Some(libc::ENOENT)));
}

#[test]
fn a_blocking_file_is_named() {
    let (stream, _peer) = UnixStream::pair().unwrap();
    let fd = stream.as_raw_fd();
    let failed = Reactor::new().unwrap().fd(stream, Interest::READABLE).unwrap_err();
    says(&failed, &[&*format!("the file is blocking (fd {fd})"), "set_nonblocking(true)"]);
}

#[test]
fn other_errors_are_the_systems_own() {
    let failed = refusing(libc::ENOMEM).fd(socket(), Interest::READABLE).unwrap_err();
    assert_eq!(failed.error().raw_os_error(), Some(libc::ENOMEM));
}

/// Has events of its own.
struct WithEvents(ForeignQueue<u32>);

impl Hooks<Native> for WithEvents {
    fn has_events(&self, _: &Native, events: EventsId) -> bool {
        self.0.id() == events
    }
}

#[test]
fn a_second_registration_of_events_names_the_first_line() {
    let queue = ForeignQueue::with_capacity(1);
    let (first, second) = (queue.events(), queue.events());
    let reactor = Reactor::with_driver(Hooked(Native::new().unwrap(), WithEvents(queue))).unwrap();
    let (inbox, line) = (reactor.register(first).unwrap(), line!());
    let failed = reactor.register(second).unwrap_err();
    says(&failed, &["registered already", &*format!("tests/api/errors.rs:{line}:")]);
    assert_eq!(failed.error().kind(), ErrorKind::AlreadyExists);
    drop(inbox);
    assert!(reactor.register(failed.into_inner()).is_ok());
}

#[test]
fn a_foreign_source_is_refused_in_the_callers_words() {
    let (reactor, other) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let (tx, inbox) = other.channel(1).unwrap();
    tx.send(1).unwrap();
    let timer = other.after(Duration::from_secs(3600));
    let told = [
        reactor.recv(&inbox).map(drop).unwrap_err(),
        reactor.recv_timeout(&inbox, Duration::from_secs(1)).map(drop).unwrap_err(),
        reactor.try_recv(&inbox).map(drop).unwrap_err(),
        reactor.recv(&timer).map(drop).unwrap_err(),
        reactor.recv_timeout(&timer, Duration::from_secs(1)).map(drop).unwrap_err(),
        reactor.try_recv(&timer).map(drop).unwrap_err(),
        reactor.recv(&Some(&inbox)).map(drop).unwrap_err(),
    ];
    for error in told {
        says(&error, &["the source is one of another reactor"]);
        assert!(
            !error.to_string().contains("select!") && error.kind() == ErrorKind::InvalidInput,
            "{error}"
        );
    }
    // Where there is a select!, its case is named, and a Select names its index.
    select! { reactor;
        recv(inbox) -> _ => panic!("received"),
        error -> e => says(&e, &["case 1 of the select! is a source of another reactor"]),
    }
    let mut set = Select::new(&reactor);
    set.recv(&inbox);
    says(&set.wait().unwrap_err(), &["case 0 of the Select is a source of another reactor"]);
    assert_eq!(other.recv(&inbox).unwrap(), Ok(1));
    drop(other);
    says(&reactor.recv(&inbox).unwrap_err(), &["the source is one of another reactor"]);
}

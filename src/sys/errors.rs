//! Errors of the system whose own text misleads or names no remedy.

use std::error::Error;
use std::io;
use std::os::fd::RawFd;
use std::panic::Location;

/// An error with a text of this crate. Its source is the system's error.
#[derive(Debug)]
struct Explained {
    text: String,
    system: io::Error,
}

impl_fmt!(Display, [] Explained, |it, f| f.write_str(&it.text));

impl Error for Explained {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.system)
    }
}

fn explained(kind: io::ErrorKind, text: String, system: io::Error) -> io::Error {
    io::Error::new(kind, Explained { text, system })
}

/// Says why the poller refused `fd`. `holder` is the line that has registered `fd` before.
#[cold]
pub(crate) fn of_registration(
    error: io::Error,
    fd: RawFd,
    holder: Option<&'static Location<'static>>,
) -> io::Error {
    let kind = error.kind();
    match error.raw_os_error() {
        Some(libc::EEXIST) => {
            let at = holder.map_or(String::new(), |at| format!(" at {at}"));
            let text = format!(
                "this fd is registered already: fd {fd}{at}. Drop that source first, or register a \
                 clone of the file (`try_clone`)"
            );
            explained(io::ErrorKind::AlreadyExists, text, error)
        }
        Some(libc::EPERM) => {
            let text = format!(
                "fd {fd} cannot be waited for: epoll cannot wait for a regular file, a folder or \
                 /dev/null, which are always ready: read and write it without waiting, or on \
                 another thread"
            );
            explained(io::ErrorKind::Unsupported, text, error)
        }
        Some(libc::EBADF) => {
            let text = format!("fd {fd} is not open: register the file before it is closed");
            explained(kind, text, error)
        }
        Some(libc::ENOSPC) => {
            let text = format!("no room in epoll for fd {fd}: {}", remedy(&error).unwrap_or(""));
            explained(kind, text, error)
        }
        _ => error,
    }
}

/// Says why the poller refused another interest in `fd`, and names the remedy. `holder` is the line
/// that registered `fd`.
#[cold]
pub(crate) fn of_change(
    error: io::Error,
    fd: RawFd,
    holder: Option<&'static Location<'static>>,
) -> io::Error {
    let at = holder.map_or(String::new(), |at| format!(", registered at {at}"));
    match error.raw_os_error() {
        Some(libc::EBADF | libc::ENOENT) => {
            let text = format!(
                "fd {fd}{at}, is not registered any more ({error}): something has closed its \
                 number. Drop the source, and let nothing else close its file"
            );
            explained(error.kind(), text, error)
        }
        _ => with_text("cannot change the registration of fd ", &format!("{fd}{at}"), error),
    }
}

/// Names a system call that was always interrupted, or that a sandbox forbids. Other errors stay as
/// they are.
#[cold]
pub(crate) fn of_call(error: io::Error, call: &str) -> io::Error {
    match error.raw_os_error() {
        // The kind differs from that of an interrupted wait, which is no failure.
        Some(libc::EINTR) => {
            let text = format!("{call} was interrupted again and again: nothing was done");
            explained(io::ErrorKind::ResourceBusy, text, error)
        }
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => {
            let cause = cause_of_refusal(&error);
            let text = format!("this system refuses {call} ({error}): {cause}; allow {call}");
            explained(error.kind(), text, error)
        }
        _ => error,
    }
}

/// Returns the likely cause of an error that the kernel itself does not have.
pub(crate) fn cause_of_refusal(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel does not have it, or a seccomp filter hides it",
        _ => "most likely a seccomp filter of the container forbids it",
    }
}

/// Names an object that could not be made, the exhausted limit, and the remedy. Other errors stay
/// as they are.
#[cold]
pub(crate) fn of_creation(error: io::Error, what: &str) -> io::Error {
    with_text("cannot make ", what, error)
}

/// Says that a kernel timer could not be armed, and names the remedy. Other errors stay as they
/// are.
#[cold]
pub(crate) fn of_arm(error: io::Error) -> io::Error {
    with_text("cannot arm ", "a kernel timer", error)
}

/// Says why a reactor could not wait, and names the remedy. Other errors stay as they are.
#[cold]
pub(crate) fn of_wait(error: io::Error) -> io::Error {
    const CALL: &str = if cfg!(epoll) { "epoll_wait" } else { "kevent" };
    of_call(with_text("the reactor cannot wait", "", error), CALL)
}

fn with_text(doing: &str, what: &str, error: io::Error) -> io::Error {
    let Some(remedy) = remedy(&error) else { return error };
    explained(error.kind(), format!("{doing}{what}: {error}: {remedy}"), error)
}

/// Adds the remedy to an error of a registration, if there is one.
#[cold]
pub(crate) fn with_remedy(error: io::Error) -> io::Error {
    with_text("the registration failed", "", error)
}

/// Returns the remedy for an error whose text names only the fault.
pub(crate) fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EMFILE) => Some(
            "the process has as many fds as RLIMIT_NOFILE allows: raise that limit (ulimit -n), \
             or close some",
        ),
        Some(libc::ENFILE) => {
            Some("the system has as many open files as it allows: on Linux raise fs.file-max")
        }
        Some(libc::ENOMEM) => Some(
            "the kernel has no memory for it: close some fds, or raise the memory limit of the \
             process's group",
        ),
        Some(libc::ENOSPC) => Some(
            "this user has as many registrations as fs.epoll.max_user_watches allows: raise that \
             limit (sysctl), or register fewer fds",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_creation_names_cause_and_remedy() {
        let causes = [
            (libc::EMFILE, "RLIMIT_NOFILE"),
            (libc::ENFILE, "fs.file-max"),
            (libc::ENOMEM, "memory limit"),
        ];
        for (errno, limit) in causes {
            let system = io::Error::from_raw_os_error(errno);
            let (kind, cause) = (system.kind(), system.to_string());
            let error = of_creation(system, "a thing");
            let text = error.to_string();
            assert!(text.starts_with(&format!("cannot make a thing: {cause}: ")), "{text}");
            assert!(text.contains(limit) && text.contains("raise"), "{text}");
            assert_eq!(error.kind(), kind);
            let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
            assert_eq!(source.and_then(io::Error::raw_os_error), Some(errno));
            // The text has the remedy once, also if other code adds it again.
            assert_eq!(of_creation(error, "another thing").to_string(), text);
        }
        let other = of_creation(io::Error::from_raw_os_error(libc::EPERM), "a thing");
        assert_eq!(other.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_refused_call_is_named() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES] {
            let text = of_call(io::Error::from_raw_os_error(errno), "a_call").to_string();
            assert!(text.starts_with("this system refuses a_call"), "{text}");
            assert!(text.contains("seccomp") && text.ends_with("; allow a_call"), "{text}");
        }
        let busy = of_call(io::Error::from_raw_os_error(libc::EINTR), "a_call");
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        let other = of_call(io::Error::from_raw_os_error(libc::EBADF), "a_call");
        assert_eq!(other.raw_os_error(), Some(libc::EBADF));
    }
}

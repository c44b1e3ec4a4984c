//! Child processes by number: their end as an fd, and a test if they were waited for. A number
//! belongs to a child until the child has been waited for. Then the kernel may give it to another
//! process.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};

use super::errors::{cause_of_refusal, of_call, of_creation};
use super::{backend, has_fd, shows_fd, uninterrupted};

/// An fd that is readable when a process has ended: a pidfd, or a kqueue with an `EVFILT_PROC`.
///
/// ```
/// use pollmux::sys::{Interest, Mode, PollEvents, Poller, ProcessFd};
/// use std::process::Command;
///
/// # if !Poller::NESTS { return Ok(()); } // no such fd on this poller
/// let mut child = Command::new("sleep").arg("60").spawn()?;
/// let process = ProcessFd::new(child.id())?;
/// let poller = Poller::new()?;
/// poller.register(&process, 1, Interest::READABLE, Mode::Edge)?;
/// process.signal(15)?; // SIGTERM
/// poller.wait(&mut PollEvents::with_capacity(1), None)?;
/// assert!(!child.wait()?.success());
/// # std::io::Result::Ok(())
/// ```
pub struct ProcessFd {
    fd: backend::ProcessFd,
    pid: u32,
}

impl ProcessFd {
    /// Opens the process `pid`, a child that has not been waited for (close-on-exec). One syscall,
    /// three on kqueue.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the kernel has no pidfds, no kqueue can be waited for,
    /// or a sandbox refuses the call. Otherwise those of [`Poller::new`](super::Poller::new).
    pub fn new(pid: u32) -> io::Result<ProcessFd> {
        let made = backend::ProcessFd::new(pid);
        made.map(|fd| ProcessFd { fd, pid })
            .map_err(|error| of_creation(error, "an fd for the end of a child process"))
    }

    /// Sends the process a signal, by its number. Zero only checks that a signal could be sent. One
    /// syscall, on kqueue two.
    ///
    /// # Errors
    /// `ESRCH` if the process has been waited for. Another process that has its number by now does
    /// not get the signal. (On kqueue a child of this process may get it.)
    /// [`io::ErrorKind::InvalidInput`] if there is no signal with this number.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let sent = self.fd.signal(signal).unwrap_or_else(|| by_number(self.pid, signal));
        sent.map_err(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => {
                let text = format!("there is no signal {signal}");
                io::Error::new(io::ErrorKind::InvalidInput, text)
            }
            _ => error,
        })
    }

    /// Returns true if the fd has reported the end, and the process may have no status yet. Never
    /// true on epoll. On kqueue one syscall, until there is a status.
    pub(crate) fn is_ending(&self) -> bool {
        self.fd.is_ending()
    }
}

shows_fd!(ProcessFd);
has_fd!(ProcessFd, fd);

/// Sends a signal to a child of this process that has not been waited for.
fn by_number(pid: u32, signal: i32) -> io::Result<()> {
    if !cfg!(target_os = "openbsd") && !is_unwaited(pid) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the call takes no pointers.
    super::check(unsafe { libc::kill(pid as libc::pid_t, signal) }).map(drop)
}

/// Returns true if `pid` is a child of this process that has not been waited for. One syscall,
/// which neither waits nor takes the status. Returns false on a system that cannot tell (OpenBSD
/// with the declarations of libc).
pub(crate) fn is_unwaited(pid: u32) -> bool {
    #[cfg(target_os = "openbsd")]
    {
        let _ = pid;
        false
    }
    #[cfg(not(target_os = "openbsd"))]
    {
        // SAFETY: a siginfo_t is numbers and addresses, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        // SAFETY: `info` is a valid place for the one siginfo_t that the call writes.
        let waitid =
            || super::check(unsafe { libc::waitid(libc::P_PID, pid as _, &mut info, options) });
        uninterrupted(waitid).is_ok()
    }
}

/// Returns the status of a child that has ended. One syscall.
pub(crate) fn try_wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    uninterrupted(|| child.try_wait()).map_err(|error| of_call(error, "waitpid"))
}

/// Returns true if the error says that a process is not, or no longer, a child of this process.
pub(crate) fn is_no_child(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECHILD)
}

/// Returns true if the error says that the process does not exist, or no longer.
pub(crate) fn is_no_process(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// Returns the error for a process that a sandbox refuses to wait for. The kernel itself does not
/// have that error.
#[cold]
pub(super) fn refused(call: &str, error: &io::Error) -> io::Error {
    let cause = cause_of_refusal(error);
    let text = format!(
        "this system does not let the process wait for children by {call} ({error}): {cause}; \
         allow {call}, or wait for Signal::CHILD and ask Child::try_wait then"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

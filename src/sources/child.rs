//! Child processes: their end, as a source.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};

use super::{Internals, IntoSource, RegisterError, Signal, Source, common};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::{
    Interest, Mode, ProcessFd, Readiness, is_no_child, is_no_process, is_unwaited, try_wait,
};

/// A child process, registered with a reactor: a source of its [`ExitStatus`], once.
///
/// Made by [`Handle::register`] from a [`Child`]. It is ready when the process has ended. Taking
/// the status waits for the process (`waitpid`), so that no zombie is left. A child that is dropped
/// before its end runs on, as a dropped `Child` does. No signal handler is involved.
///
/// A `Child` whose status is known already, because `wait` or `try_wait` has returned it, is ready
/// at once and gives that status. The reactor does not use its number, which may be another
/// process's by now.
///
/// Leave the waiting to the reactor. Where other code waits for all children (`waitpid(-1, ..)`),
/// or `SIGCHLD` is ignored, the status is lost. Then the item, or the registration, is an error of
/// kind [`NotFound`](io::ErrorKind::NotFound). After any other error the source stays ready, and
/// the next take asks again.
///
/// A child that reads its stdin to the end does not end while that pipe is open. The `Child` holds
/// the pipe: close it by `drop(child.get_mut().stdin.take())`. (`Child::wait` does so itself.)
///
/// The output of the child is another source. Take the pipe, and register the pipe with
/// [`fd_nonblocking`](Handle::fd_nonblocking). The child's end of the pipe stays blocking.
///
/// **In virtual time** the child still runs in real time. A reactor on a [`Sim`](crate::Sim) looks
/// for its end before each jump of the clock, and does not wait for the end. So a timeout beside
/// the child comes first, unless the `Sim` has some [grace](crate::Sim::grace). A member of a
/// [`SimWorld`](crate::SimWorld) cannot register a child that still runs: the error says so.
///
#[cfg_attr(flat, doc = "```no_run")]
#[cfg_attr(not(flat), doc = "```")]
/// use pollmux::{Reactor, select, sys::Interest};
/// use std::io::Read;
/// use std::process::{Command, Stdio};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let mut command = Command::new("sh");
/// command.args(["-c", "echo hello; exit 3"]).stdout(Stdio::piped());
/// let mut child = reactor.register(command.spawn()?)?;
/// let output = child.get_mut().stdout.take().unwrap();
/// let mut output = reactor.fd_nonblocking(output, Interest::READABLE)?;
/// let timeout = reactor.after(Duration::from_secs(10));
/// select! { reactor;
///     recv(child) -> status => assert_eq!(status?.code(), Some(3)),
///     recv(timeout) -> _ => child.kill()?,
/// }
/// let mut text = String::new();
/// output.read_to_string(&mut text)?; // all of it: the child has ended
/// assert_eq!(text, "hello\n");
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the child process leaves its end unnoticed"]
pub struct ChildProcess {
    /// `None` only while the child is taken out.
    child: RefCell<Option<Child>>,
    /// `None` for a child whose status was known when it was registered.
    process: Option<ProcessFd>,
    slot: Slot,
    /// The status has been given and the process is waited for no longer: that it was reaped would
    /// be another event (Linux 6.9).
    over: Cell<bool>,
}

impl IntoSource for Child {
    type Registered = ChildProcess;

    /// Registers the child.
    ///
    /// # Errors
    /// - [`io::ErrorKind::Unsupported`] where the system cannot wait for processes: Linux before
    ///   5.3, a seccomp filter that refuses `pidfd_open`, libkqueue. So too if the driver waits for
    ///   no fds.
    /// - [`NotFound`](io::ErrorKind::NotFound) if other code has waited for the child.
    /// - Otherwise the system's error.
    ///
    /// # Cost
    /// Four syscalls, on kqueue six. One for a child whose status is known.
    #[track_caller]
    fn register(
        self,
        handle: &Handle,
        key: Option<u64>,
    ) -> Result<ChildProcess, RegisterError<Self>> {
        let (mut child, slot) = handle.slot_for(self, SourceKind::Child, key)?;
        match open(&mut child, &slot) {
            Ok(process) => {
                let over = Cell::new(process.is_none());
                Ok(ChildProcess { child: RefCell::new(Some(child)), process, slot, over })
            }
            Err(error) => Err(RegisterError::new(child, error)),
        }
    }
}

/// Begins to wait for the end of the child. Returns `None` if its status is known, and the child is
/// ready.
fn open(child: &mut Child, slot: &Slot) -> io::Result<Option<ProcessFd>> {
    // The number may belong to no process, or to another one, so it is not used.
    if !is_unwaited(child.id()) && has_status(child)? {
        slot.found_by_driver();
        return Ok(None);
    }
    let process = ProcessFd::new(child.id());
    if let Ok(process) = &process {
        slot.register_fd(process.as_fd(), Interest::READABLE, Mode::Edge)?;
    }
    // If the child was waited for, the number may belong to another child by now. The number is
    // sure only while the child runs.
    let known = has_status(child);
    if !matches!(known, Ok(false)) {
        if let Ok(process) = &process {
            let _ = slot.deregister_fd(process.as_fd());
        }
        known?;
        slot.found_by_driver();
        return Ok(None);
    }
    process.map(Some)
}

/// Returns true if `try_wait` has the status, so that the child was waited for.
fn has_status(child: &mut Child) -> io::Result<bool> {
    match try_wait(child) {
        Ok(status) => Ok(status.is_some()),
        Err(error) => Err(lost(child, error)),
    }
}

/// Explains the error of a `try_wait`.
#[cold]
fn lost(child: &Child, error: io::Error) -> io::Error {
    if is_no_child(&error) { status_is_lost(child, &error) } else { error }
}

#[cold]
fn status_is_lost(child: &Child, error: &io::Error) -> io::Error {
    let text = format!(
        "the status of process {} is lost ({error}): other code has waited for it, or SIGCHLD is \
         ignored; leave the waiting to the reactor, or to Child::wait",
        child.id()
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// The reason why the child is there.
const TAKEN: &str = "only `into_inner` takes the child";

impl ChildProcess {
    fn with<R>(&self, f: impl FnOnce(&mut Child) -> R) -> R {
        f(self.child.borrow_mut().as_mut().expect(TAKEN))
    }

    fn deregister(&self) {
        if !self.over.replace(true) {
            if let Some(process) = &self.process {
                let _ = self.slot.deregister_fd(process.as_fd());
            }
        }
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.with(|child| child.id())
    }

    /// Ends the process at once (SIGKILL), as [`Child::kill`] does. Its status comes as usual.
    ///
    /// # Errors
    /// The errors of [`signal`](Self::signal).
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal(crate::sys::signals::KILL))
    }

    /// Sends the process a signal: [`Signal::TERMINATE`] asks it to end. Does nothing to a process
    /// that has ended.
    ///
    /// The signal goes through the fd that stands for the process. So another process that has the
    /// number by now does not get the signal. (On kqueue a child of this process that has the
    /// number may get it.)
    ///
    /// # Errors
    /// - [`NotFound`](io::ErrorKind::NotFound) if other code has waited for the process.
    /// - [`InvalidInput`](io::ErrorKind::InvalidInput) if there is no such signal.
    /// - The system's error if the process belongs to another user by now.
    ///
    /// # Cost
    /// One syscall, on kqueue two.
    ///
    #[cfg_attr(flat, doc = "```no_run")]
    #[cfg_attr(not(flat), doc = "```")]
    /// use pollmux::{Reactor, Signal, select};
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let child = reactor.register(Command::new("sleep").arg("60").spawn()?)?;
    /// child.signal(Signal::TERMINATE)?;
    /// let patience = reactor.after(Duration::from_secs(10));
    /// select! { reactor;
    ///     recv(child) -> status => println!("{}", status?),
    ///     recv(patience) -> _ => child.kill()?,
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(process) = &self.process else { return Ok(()) };
        match process.signal(signal.0) {
            // The child was waited for. The status is known, unless other code has taken it.
            // Another child may have the number now.
            Err(error) if is_no_process(&error) => self.with(|child| {
                if is_unwaited(child.id()) {
                    return Err(status_is_lost(child, &error));
                }
                has_status(child).map(drop)
            }),
            sent => sent,
        }
    }

    /// The child, for its pipes.
    pub fn get_mut(&mut self) -> &mut Child {
        self.child.get_mut().as_mut().expect(TAKEN)
    }

    /// Takes the child back. The reactor no longer waits for its end. One syscall.
    ///
    #[cfg_attr(flat, doc = "```no_run")]
    #[cfg_attr(not(flat), doc = "```")]
    /// use pollmux::Reactor;
    /// use std::process::Command;
    ///
    /// let reactor = Reactor::new()?;
    /// let child = reactor.register(Command::new("true").spawn()?)?;
    /// let number = child.id();
    /// let mut child = child.into_inner();
    /// assert_eq!(child.id(), number);
    /// assert!(child.wait()?.success());
    /// # std::io::Result::Ok(())
    /// ```
    pub fn into_inner(self) -> Child {
        self.child.take().expect(TAKEN)
    }
}

common!([] ChildProcess, |it| id: it.id());

impl Source for ChildProcess {
    type Item = io::Result<ExitStatus>;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn try_take(&self) -> Option<Self::Item> {
        if !self.slot.is_ready() {
            return None;
        }
        let wait = |child: &mut Child| try_wait(child).map_err(|error| lost(child, error));
        let status = self.with(wait).transpose();
        if let Some(got) = &status {
            self.slot.count();
            // The next take repeats a failed call, unless the status is lost.
            if got.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::NotFound) {
                return status;
            }
            self.deregister();
        } else if self.process.as_ref().is_some_and(ProcessFd::is_ending) {
            return None; // The status is a moment away.
        }
        self.slot.forget_readiness(Readiness::ALL);
        status
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.deregister();
    }
}

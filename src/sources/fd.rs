//! Fds: sockets, pipes, terminals, and all other files that the system can wait for.
//!
//! The kernel reports *changes* (edge-triggered), and the slot remembers them. All reading and
//! writing goes through [`Fd::try_io`], which finds out that the fd is not ready any more. So a
//! source stays ready until it has been drained, as with a level-triggered poller. A turn that
//! finds a ready source makes no syscall for that.
//!
//! Longer than 500 lines: more than half of them are docs with examples.

mod blocking;
mod read_write;
mod register;

use std::cell::Cell;
use std::fmt::Debug;
use std::io;
#[cfg(doc)]
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::{Internals, Source, keyed};
#[cfg(doc)]
use crate::reactor::Handle;
use crate::reactor::Slot;
use crate::sys::{Interest, Mode, Readiness};

/// A file that a reactor waits for: anything [`AsFd`]. Made by [`Handle::fd`].
///
/// An `Fd` reads and writes as its file does: a [`ChildStdout`](std::process::ChildStdout) and a
/// [`ChildStdin`](std::process::ChildStdin), too. A reference to an `Fd` does so if a reference to
/// the file does, as with sockets and [`File`](std::fs::File).
///
/// As a [`Source`] it gives its [`Readiness`]. With [`Mode::Edge`], the default, it stays ready
/// until a read or a write meets [`WouldBlock`](io::ErrorKind::WouldBlock). That counts for reads
/// and writes through [`try_io`](Self::try_io), and through [`Read`] and [`Write`] of this type.
/// **Read or write until `WouldBlock`, or come back.**
///
/// | mode | ready again |
/// |---|---|
/// | `Edge` | at once, until `try_io` meets `WouldBlock`; then when something changes |
/// | `Level` | when the poller is looked at the next time and the file still is ready |
/// | `OneShot` | after [`rearm`](Self::rearm) or [`set_interest`](Self::set_interest) |
///
/// In `Level` mode each report that is taken, or after which the file is read or written, costs a
/// syscall.
///
/// # Blocking files
/// In `Edge` mode the file must be non-blocking: only `WouldBlock` says that nothing is left, and
/// a blocking read would stop the whole loop instead. [`Handle::fd`] therefore refuses a blocking
/// file. There are three ways out:
/// - `set_nonblocking(true)`, which sockets of the standard library have. A stream that
///   [`accept`](std::net::TcpListener::accept) gives is blocking, even from a non-blocking
///   listener.
/// - [`Handle::fd_nonblocking`], which sets the flag.
///   [`set_nonblocking`](Self::set_nonblocking) does so later.
/// - [`Handle::fd_with_mode`] with `Level` or `OneShot`. Read **once** for each report then.
///
/// The flag (`O_NONBLOCK`) belongs to the open file. Clones of the fd (`try_clone`) and processes
/// that inherited it share the flag, and see `WouldBlock`, too, once it is set. That is why `fd`
/// does not set it silently. A terminal, and a pipe on stdin or stdout, is shared with other
/// programs in most cases: use `Level` there.
///
/// Files that never block need no flag: epoll instances and kqueues, such as the loop of another
/// library; processes (pidfds); an io_uring. All other files do, also a timerfd, an eventfd, a
/// signalfd and inotify.
///
/// # Standard input
/// [`Stdin`](std::io::Stdin) has a buffer. A read of a line fills the buffer with all bytes that
/// wait. The next line is then in the buffer and not in the pipe. So the poller finds nothing, and
/// the loop sleeps with a line in the buffer. There are two ways:
/// - Register a clone of the fd as a [`File`](std::fs::File), which has no buffer.
/// - Register `stdin()`, and take **all** of its buffer for each report.
///
/// ```no_run
/// use pollmux::sys::{Interest, Mode};
/// use pollmux::{Reactor, select};
/// use std::fs::File;
/// use std::io::{BufRead, Read, stdin};
/// use std::os::fd::AsFd;
///
/// let reactor = Reactor::new()?;
/// let clone = File::from(stdin().as_fd().try_clone_to_owned()?);
/// let mut input = reactor.fd_with_mode(clone, Interest::READABLE, Mode::Level)?;
/// let mut buffer = [0; 4096];
/// select! { reactor; recv(input) -> _ => {} }
/// let n = input.read(&mut buffer)?; // one read for a report; 0 is the end
/// println!("{}", String::from_utf8_lossy(&buffer[..n]));
/// drop(input);
///
/// let input = reactor.fd_with_mode(stdin(), Interest::READABLE, Mode::Level)?;
/// select! { reactor; recv(input) -> _ => {} }
/// input.try_io(|stdin| {
///     let mut stdin = stdin.lock();
///     let all = stdin.fill_buf()?; // one read, because the buffer is empty
///     println!("{}", String::from_utf8_lossy(all));
///     let n = all.len();
///     stdin.consume(n);
///     Ok(n)
/// })?;
/// # std::io::Result::Ok(())
/// ```
/// The same holds for every reader with a buffer, such as a [`BufReader`](std::io::BufReader)
/// around an `Fd`. Look into the buffer before you wait.
///
/// # Interest, and loops that spin
/// A ready source ends every wait until the loop reads, writes or changes the interest. So ask only
/// for what the loop is about to do:
/// - `WRITABLE` only while there are bytes to write. A file has room nearly always.
/// - `READABLE` only while there is room for the input. Otherwise a server that cannot write an
///   answer, and stops reading, gets the same report again and again.
///
/// Change the interest with [`set_interest`](Self::set_interest), which costs at most a syscall the
/// first time. After 1,000 reports without a read, a write or a change, [`Handle::sources`] marks
/// the source as [spinning](crate::reactor::SourceInfo::spinning), and names its line.
///
/// With [`Interest::NONE`] the source is quiet. The poller reports a hang-up or an error unasked,
/// and the reactor reports it once. Ask for `READABLE` again, and the reactor finds the bytes that
/// wait. [`Interest::PRIORITY`] alone is the same, beside the urgent data.
///
/// # Stop reading
/// `set_interest(Interest::NONE)` pushes back: the kernel's buffers fill, and then the peer's
/// writes block. Nothing is lost, and memory stays bounded. Ask for `READABLE` again when there is
/// room, and the reactor reports the bytes that wait. In `Edge` mode neither costs a syscall after
/// the first time. The same stops a listener from accepting. (A loop that has only `select!` may
/// leave the interest as it is and write `recv(ours, if held.is_none())`.)
///
/// ```
/// use pollmux::{Reactor, Sim, channel, select, sys::Interest};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use std::time::Duration;
///
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let (mut theirs, ours) = UnixStream::pair()?;
/// let mut ours = reactor.fd_nonblocking(ours, Interest::READABLE)?;
/// theirs.write_all(&[7; 10])?;
/// drop(theirs);
///
/// let (work, jobs) = reactor.channel::<u8>(2)?; // two jobs wait, and one is held
/// let worker = reactor.every(Duration::from_secs(1))?;
/// let (mut held, mut done) = (None, 0);
/// while done < 10 {
///     select! { reactor;
///         recv(ours) -> _ => while ours.interest().is_readable() {
///             let mut job = [0];
///             match ours.read(&mut job) {
///                 Ok(1) => if let Err(full) = work.try_send(job[0]) {
///                     held = Some(full.into_inner());
///                     ours.set_interest(Interest::NONE)?; // stop
///                 },
///                 Ok(_) => ours.set_interest(Interest::NONE)?, // the end
///                 Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
///                 Err(error) => return Err(error),
///             }
///         },
///         recv(worker) -> _ => {
///             done += jobs.try_iter().count();
///             if let Some(job) = held.take() {
///                 work.try_send(job).unwrap();
///                 ours.set_interest(Interest::READABLE)?; // go on
///             }
///         }
///     }
/// }
/// assert_eq!(reactor.now().as_nanos(), 5_000_000_000); // two jobs in each second
/// # std::io::Result::Ok(())
/// ```
///
/// # Connecting
/// The standard library has no connect that returns at once. Two crates have one:
/// `mio::net::TcpStream::connect`, and the `connect` of a non-blocking `socket2::Socket`, whose
/// error `EINPROGRESS` means that the connect has begun. Register the socket with `WRITABLE`
/// **after** that. At its report `take_error` says if the connect has failed.
/// `examples/more/connect.rs` does both, with a timeout, and accepts.
///
/// A socket that has not begun to connect, or to listen, counts as hung up in the kernel.
/// [`readiness`](Self::readiness) remembers that.
///
/// # Closing
/// The drop of an `Fd`, and [`into_inner`](Self::into_inner), take the file out of the poller
/// before it is closed. No event of the file comes afterwards, whichever file gets its number.
///
/// ```
/// use pollmux::{Reactor, select, sys::Interest};
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
///
/// let reactor = Reactor::new()?;
/// let (mut theirs, ours) = UnixStream::pair()?;
/// ours.set_nonblocking(true)?;
/// let mut ours = reactor.fd(ours, Interest::READABLE)?;
/// theirs.write_all(b"hello")?;
/// drop(theirs);
///
/// let mut text = Vec::new();
/// let mut buffer = [0; 16];
/// 'reading: loop {
///     select! { reactor;
///         recv(ours) -> readiness => {
///             assert!(readiness.is_readable());
///             loop {
///                 match ours.read(&mut buffer) {
///                     Ok(0) => break 'reading,
///                     Ok(n) => text.extend_from_slice(&buffer[..n]),
///                     Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
///                     Err(error) => return Err(error),
///                 }
///             }
///         }
///     }
/// }
/// assert_eq!(text, b"hello");
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the Fd closes the file"]
pub struct Fd<T: AsFd> {
    /// The file, or `None` while the `Fd` is taken apart.
    io: Option<T>,
    slot: Slot,
    interest: Cell<Interest>,
    /// The readiness outside of the interest that [`clear_readiness`](Self::clear_readiness) has
    /// cleared. The poller must be asked for it anew.
    unknown: Cell<Readiness>,
    /// The interest at the poller. It includes all earlier interests, so that asking again needs no
    /// syscall.
    reported: Cell<Interest>,
    mode: Mode,
}

/// Returns the readiness that `interest` asks for.
fn asked(interest: Interest) -> Readiness {
    let (r, w, p) = (interest.is_readable(), interest.is_writable(), interest.is_priority());
    let one = |on: bool, readiness| if on { readiness } else { Readiness::NONE };
    one(r, Readiness::READABLE) | one(w, Readiness::WRITABLE) | one(p, Readiness::PRIORITY)
}

/// The reason why the field `io` has the file.
const TAKEN: &str = "only `into_inner` and the drop take the file";

impl<T: AsFd> Fd<T> {
    fn io(&self) -> &T {
        self.io.as_ref().expect(TAKEN)
    }

    /// The file.
    ///
    /// If you read or write the file past this type and meet `WouldBlock`, call
    /// [`clear_readiness`](Self::clear_readiness). Otherwise the source stays ready.
    ///
    /// ```
    /// use pollmux::{Reactor, sys::Interest};
    /// use std::net::TcpListener;
    ///
    /// let reactor = Reactor::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let listener = reactor.fd_nonblocking(listener, Interest::READABLE)?;
    /// println!("listening at {}", listener.get_ref().local_addr()?);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn get_ref(&self) -> &T {
        self.io()
    }

    /// The file, mutably. If you put another file in its place, the reactor does not wait for that
    /// file. Close the old one then.
    pub fn get_mut(&mut self) -> &mut T {
        self.io.as_mut().expect(TAKEN)
    }

    /// Takes the file back. The reactor no longer waits for the file. One syscall.
    pub fn into_inner(mut self) -> T {
        self.deregister();
        self.io.take().expect(TAKEN)
    }

    fn deregister(&self) {
        if let Some(io) = &self.io {
            // There is nobody to tell, and a file that is not in the poller needs no more.
            let _ = self.slot.deregister_fd(io.as_fd());
        }
    }

    /// The known readiness of the file. No syscall.
    pub fn readiness(&self) -> Readiness {
        self.slot.readiness()
    }

    /// Calls `f` with the file. If `f` fails with [`WouldBlock`](io::ErrorKind::WouldBlock), the
    /// file counts as not ready until the poller says otherwise.
    ///
    /// With interest in several things `WouldBlock` does not say which of them is meant. Then the
    /// reactor asks the poller about all of them, by a syscall. [`try_io_for`](Self::try_io_for)
    /// saves that.
    ///
    /// # Errors
    /// The errors of `f`.
    ///
    /// ```
    /// use pollmux::{Reactor, Source, sys::Interest};
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::new()?;
    /// let (mut theirs, ours) = UnixStream::pair()?;
    /// let ours = reactor.fd_nonblocking(ours, Interest::BOTH)?;
    /// theirs.write_all(b"hello")?;
    /// reactor.recv(&ours)?;
    /// let mut buffer = [0; 16];
    /// let read = ours.try_io_for(Interest::READABLE, |mut stream| stream.read(&mut buffer))?;
    /// assert_eq!(&buffer[..read], b"hello");
    /// assert_eq!(ours.try_io(|mut stream| stream.write(b"bye"))?, 3);
    /// assert!(ours.is_ready()); // until a call meets `WouldBlock`
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_io<R>(&self, f: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.try_io_for(self.interest.get(), f)
    }

    /// [`try_io`](Self::try_io) for one thing: reading, writing or urgent data, as `interest` says.
    ///
    /// # Errors
    /// The errors of `f`.
    pub fn try_io_for<R>(
        &self,
        interest: Interest,
        f: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let result = f(self.io());
        self.noted(interest, result)
    }

    /// Notes the outcome of an operation of this interest, and returns it.
    #[inline(always)] // else a result of every size is moved
    fn noted<R>(&self, interest: Interest, result: io::Result<R>) -> io::Result<R> {
        match &result {
            Ok(_) => self.progressed(),
            Err(error) => self.failed(interest, error),
        }
        result
    }

    #[cold]
    fn failed(&self, interest: Interest, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.would_block(interest);
        }
    }

    /// Notes that bytes were read or written.
    #[inline]
    fn progressed(&self) {
        self.slot.progressed();
        if self.mode == Mode::Level && self.slot.is_ready() {
            // The known readiness is older than the operation.
            let _ = self.ask(self.reported.get());
        }
    }

    fn would_block(&self, interest: Interest) {
        self.slot.note_open(interest);
        match interest {
            // The poller has no other interest, so the operation has fetched a reported error.
            _ if interest == self.reported.get() && interest.is_single() => {
                self.forget(Readiness::ALL)
            }
            Interest::READABLE => self.forget(Readiness::READABLE | Readiness::ERROR),
            Interest::WRITABLE => self.forget(Readiness::WRITABLE | Readiness::ERROR),
            Interest::PRIORITY => self.forget(Readiness::PRIORITY | Readiness::ERROR),
            // If the poller refuses, its state stays, and the source stays ready.
            _ => drop(self.ask(self.reported.get())),
        }
    }

    /// Marks the file as not ready for `readiness`.
    ///
    /// ```
    /// use pollmux::sys::{Interest, Readiness};
    /// use pollmux::{Reactor, Source};
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::new()?;
    /// let (mut theirs, ours) = UnixStream::pair()?;
    /// let mut ours = reactor.fd_nonblocking(ours, Interest::READABLE)?;
    /// theirs.write_all(b"hello")?;
    /// reactor.recv(&ours)?;
    /// let stream = ours.get_mut(); // past the `Fd`
    /// while stream.read(&mut [0; 16]).is_ok() {} // until `WouldBlock`
    /// ours.clear_readiness(Readiness::READABLE);
    /// assert!(!ours.is_ready());
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// You may clear readiness outside of the [interest](Self::interest), too. Nothing is lost:
    /// [`set_interest`](Self::set_interest) asks the poller about that, by a syscall.
    pub fn clear_readiness(&self, readiness: Readiness) {
        self.unknown.set(self.unknown.get() | readiness.without(asked(self.interest.get())));
        self.forget(readiness);
    }

    #[inline]
    fn forget(&self, readiness: Readiness) {
        // This call returns no error. The driver's next wait reports the fault, and until then the
        // source keeps its readiness.
        if !self.slot.is_told_once() {
            self.slot.forget_readiness(readiness);
        } else {
            let _ = self.ask(self.reported.get());
        }
    }

    /// The interest that the reactor waits for.
    pub fn interest(&self) -> Interest {
        self.interest.get()
    }

    /// Changes the interest from now on.
    ///
    /// # Errors
    /// The system's error, and in a forked child. Then nothing has changed.
    ///
    /// # Cost
    /// With [`Mode::Edge`] a syscall the first time that you ask for something, and none after
    /// that: the reactor keeps the known readiness. With the other modes one syscall, and the
    /// reactor finds out the readiness anew.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        // A driver without edges reports once, so it gets only the present interest.
        let edges = self.mode == Mode::Edge && !self.slot.is_told_once();
        let unknown = !(self.unknown.get() & asked(interest)).is_empty();
        if !edges || unknown || !self.reported.get().contains(interest) {
            let kept = if edges { self.reported.get() } else { Interest::NONE };
            self.ask(kept | interest)?;
        }
        if self.mode == Mode::OneShot {
            self.slot.retell();
        }
        self.interest.set(interest);
        self.slot.want(interest, self.mode);
        Ok(())
    }

    /// Asks the poller once more. For [`Mode::OneShot`], and for code that would rather ask than
    /// try. One syscall. [`Handle::fd_with_mode`] has an example.
    ///
    /// # Errors
    /// The system's error, and in a forked child.
    pub fn rearm(&self) -> io::Result<()> {
        self.ask(self.reported.get())?;
        self.slot.retell();
        Ok(())
    }

    fn ask(&self, interest: Interest) -> io::Result<()> {
        self.slot.reregister_fd(self.io().as_fd(), interest, self.mode)?;
        self.unknown.set(Readiness::NONE);
        self.reported.set(interest);
        Ok(())
    }
}

keyed!([T: AsFd] Fd<T>, slot);

impl<T: AsFd> Source for Fd<T> {
    type Item = Readiness;

    #[inline]
    fn is_ready(&self) -> bool {
        self.slot.is_ready()
    }

    fn try_take(&self) -> Option<Readiness> {
        if !self.slot.is_ready() {
            return None;
        }
        let readiness = self.readiness();
        self.slot.report_fd();
        match self.mode {
            Mode::Edge => {}
            // The report is taken, and the poller is asked again later.
            Mode::OneShot => self.slot.forget_readiness(Readiness::ALL),
            // An end outside of the interest is reported once, and needs no further poll.
            Mode::Level if self.slot.is_ready() => self.forget(Readiness::ALL),
            Mode::Level => {}
        }
        Some(readiness)
    }

    #[inline]
    fn internals(&self) -> Internals<'_> {
        Internals::of(&self.slot)
    }
}

impl<T: AsFd> Drop for Fd<T> {
    fn drop(&mut self) {
        self.deregister();
        drop(self.io.take());
        self.slot.closed_fd();
    }
}

impl<T: AsFd> AsFd for Fd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io().as_fd()
    }
}

impl<T: AsFd> AsRawFd for Fd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl_debug!([T: AsFd + Debug] Fd<T>, |it|
    io: *it.io(), interest: it.interest.get(), mode: it.mode, readiness: it.readiness(),
    inert: it.slot.is_inert()
);

//! Fds: sockets, pipes, terminals, whatever the system can wait for.
//!
//! The kernel reports *changes* (edge-triggered), and the slot remembers them. All reading and
//! writing goes through [`Fd::try_io`], which finds out that the fd is not ready any more. So a
//! source stays ready until it has been drained, as with a level-triggered poller. A turn that
//! finds a ready source makes no syscall for that.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::{Internals, RegisterError, Source, keyed};
use crate::reactor::{Handle, Slot, SourceKind};
use crate::sys::blocking::{is_nonblocking, never_blocks, set_nonblocking};
use crate::sys::{Interest, Mode, Readiness};

/// A file that a reactor waits for: anything [`AsFd`]. Made by [`Handle::fd`].
///
/// As a [`Source`] it gives its [`Readiness`]. With [`Mode::Edge`], the default, it stays ready
/// until something done through [`try_io`](Self::try_io), or through [`Read`] and [`Write`] of this
/// type, says [`WouldBlock`](io::ErrorKind::WouldBlock): **do so until it does, or come back**.
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
///   [`accept`](std::net::TcpListener::accept) gives is blocking, whatever the listener is.
/// - [`Handle::fd_nonblocking`], which sets the flag.
/// - [`Handle::fd_with_mode`] with `Level` or `OneShot`. Read **once** for each report then.
///
/// The flag (`O_NONBLOCK`) belongs to the open file. Clones of the fd (`try_clone`) and processes
/// that inherited it share the flag, and see `WouldBlock`, too, once it is set. That is why `fd`
/// does not set it silently. A terminal, and a pipe on stdin or stdout, is shared with other
/// programs in most cases: use `Level` there.
///
/// The flag has no meaning for files that never block, and is not asked of them: epoll instances
/// and kqueues, such as the loop of another library; processes (pidfds); an io_uring. It is asked
/// of everything else, also of a timerfd, an eventfd, a signalfd and inotify.
///
/// # Interest, and loops that spin
/// A ready source ends every wait until something is done about it. So ask for what the loop is
/// about to do, and for nothing else:
/// - `WRITABLE` only while there is something to write. A file has room nearly always.
/// - `READABLE` only while there is room for what is read. A server that cannot write an answer,
///   and stops reading, would be told of each request that waits, again and again.
///
/// Change this with [`set_interest`](Self::set_interest), which costs a syscall the first time at
/// most. [`Handle::sources`] marks a source as [spinning](crate::reactor::SourceInfo::spinning)
/// that was reported 1,000 times without a read, a write or a change, and says which line made it.
///
/// With [`Interest::NONE`] the source is quiet. What the poller tells unasked, a hang-up or an
/// error, is reported once. What waits to be read is found when `READABLE` is asked for again.
/// [`Interest::PRIORITY`] alone is the same, beside the urgent data.
///
/// A socket is registered after it has begun to connect, or to listen: before that the kernel takes
/// it for hung up, and [`readiness`](Self::readiness) remembers so.
///
/// Dropping it, and [`into_inner`](Self::into_inner), take the file out of the poller before it is
/// closed: no event of it comes afterwards, whatever gets its number.
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
    /// `None` only while it is taken apart.
    io: Option<T>,
    slot: Slot,
    interest: Cell<Interest>,
    /// The readiness outside of the interest that [`clear_readiness`](Self::clear_readiness) has
    /// cleared: the poller has to be asked about that anew.
    unknown: Cell<Readiness>,
    /// The interest that the poller has: all that was ever asked for, so that asking for it again
    /// is no syscall.
    reported: Cell<Interest>,
    mode: Mode,
}

impl Handle {
    /// Waits for `io`, a non-blocking file that can be polled, edge-triggered. Three syscalls: one
    /// looks at the flag, one registers, and one comes when the [`Fd`] is dropped.
    ///
    /// ```
    /// use pollmux::{Reactor, sys::Interest};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let reactor = Reactor::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let _client = TcpStream::connect(listener.local_addr()?)?;
    /// let (stream, _) = listener.accept()?; // blocking
    /// let refused = reactor.fd(stream, Interest::READABLE).unwrap_err();
    /// assert_eq!(refused.error().kind(), std::io::ErrorKind::InvalidInput);
    /// let stream = refused.into_inner();
    /// stream.set_nonblocking(true)?;
    /// let stream = reactor.fd(stream, Interest::READABLE)?;
    /// # drop(stream);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// The error gives `io` back, and says what to do. Its [kind](io::Error::kind) is
    /// - `InvalidInput` when the file is [blocking](Fd#blocking-files),
    /// - `AlreadyExists` when this fd is registered already; the text names the fd and the line
    ///   that did so,
    /// - `Unsupported` when its file cannot be waited for (on epoll a regular file, which is always
    ///   ready), or the driver waits for no fds,
    /// - `StorageFull` when the user has as many registrations as `fs.epoll.max_user_watches`
    ///   allows,
    /// - else the system's.
    ///
    /// Of these, [`source`](std::error::Error::source) gives the system's own error, with its
    /// [`raw_os_error`](io::Error::raw_os_error). All others are the system's errors themselves.
    #[track_caller]
    pub fn fd<T: AsFd>(&self, io: T, interest: Interest) -> Result<Fd<T>, RegisterError<T>> {
        self.fd_with_mode(io, interest, Mode::Edge)
    }

    /// Makes `io` non-blocking and waits for it as [`fd`](Self::fd) does. One syscall more, and two
    /// more if the file was blocking.
    ///
    /// Clones of the fd and other processes share the flag, which stays set when the [`Fd`] is
    /// dropped or taken apart: see [`Fd`](Fd#blocking-files). A failed registration leaves the
    /// flag alone.
    ///
    /// ```
    /// use pollmux::{Reactor, select, sys::Interest};
    /// use std::io::{Read, Write};
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// let reactor = Reactor::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let listener = reactor.fd_nonblocking(listener, Interest::READABLE)?;
    /// let mut client = TcpStream::connect(listener.get_ref().local_addr()?)?;
    /// client.write_all(b"hello")?;
    /// select! { reactor; recv(listener) -> _ => {} }
    /// let (stream, _) = listener.try_io(|listener| listener.accept())?;
    /// let mut stream = reactor.fd_nonblocking(stream, Interest::READABLE)?;
    /// select! { reactor; recv(stream) -> _ => {} }
    /// let mut text = [0; 8];
    /// assert_eq!(stream.read(&mut text)?, 5);
    /// assert_eq!(stream.read(&mut text).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn fd_nonblocking<T: AsFd>(
        &self,
        io: T,
        interest: Interest,
    ) -> Result<Fd<T>, RegisterError<T>> {
        let fd = self.register_fd(io, interest, Mode::Edge)?;
        match set_nonblocking(fd.as_fd()) {
            Ok(()) => Ok(fd),
            Err(error) => Err(RegisterError::new(fd.into_inner(), error)),
        }
    }

    /// [`fd`](Self::fd) that is reported in another way. With [`Mode::Level`] and
    /// [`Mode::OneShot`] the file may be [blocking](Fd#blocking-files), and its flag is not looked
    /// at.
    #[track_caller]
    pub fn fd_with_mode<T: AsFd>(
        &self,
        io: T,
        interest: Interest,
        mode: Mode,
    ) -> Result<Fd<T>, RegisterError<T>> {
        let fd = self.register_fd(io, interest, mode)?;
        let looked = if mode == Mode::Edge { check_nonblocking(fd.as_fd()) } else { Ok(()) };
        match looked.err() {
            Some(error) => Err(RegisterError::new(fd.into_inner(), error)),
            None => Ok(fd),
        }
    }

    #[track_caller]
    fn register_fd<T: AsFd>(
        &self,
        io: T,
        interest: Interest,
        mode: Mode,
    ) -> Result<Fd<T>, RegisterError<T>> {
        let (io, slot) = self.slot_for(io, SourceKind::Fd, None)?;
        match slot.register_fd(io.as_fd(), interest, mode) {
            Ok(()) => Ok(Fd {
                io: Some(io),
                slot,
                interest: Cell::new(interest),
                unknown: Cell::new(Readiness::NONE),
                reported: Cell::new(interest),
                mode,
            }),
            Err(error) => Err(RegisterError::new(io, error)),
        }
    }
}

/// The readiness that `interest` asks for.
fn asked(interest: Interest) -> Readiness {
    let (r, w, p) = (interest.is_readable(), interest.is_writable(), interest.is_priority());
    let one = |on: bool, readiness| if on { readiness } else { Readiness::NONE };
    one(r, Readiness::READABLE) | one(w, Readiness::WRITABLE) | one(p, Readiness::PRIORITY)
}

/// Fails for a file that stops the loop when there is nothing to read.
fn check_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    if is_nonblocking(fd)? || never_blocks(fd) { Ok(()) } else { Err(blocking(fd)) }
}

#[cold]
fn blocking(fd: BorrowedFd<'_>) -> io::Error {
    let text = format!(
        "the file is blocking (fd {}), so that a read with nothing to read would stop the whole \
         loop: call set_nonblocking(true) first, or register it with fd_nonblocking(), which does \
         so, or with fd_with_mode() and Mode::Level",
        fd.as_raw_fd()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The reason why the file is there.
const TAKEN: &str = "only `into_inner` and the drop take the file";

impl<T: AsFd> Fd<T> {
    fn io(&self) -> &T {
        self.io.as_ref().expect(TAKEN)
    }

    /// The file.
    ///
    /// If you read or write the file past this type and meet `WouldBlock`, call
    /// [`clear_readiness`](Self::clear_readiness). Otherwise the source stays ready.
    pub fn get_ref(&self) -> &T {
        self.io()
    }

    /// The file. A file that is put in its place is not waited for, and the old one has to be
    /// closed.
    pub fn get_mut(&mut self) -> &mut T {
        self.io.as_mut().expect(TAKEN)
    }

    /// Takes the file back; the reactor waits for it no longer. One syscall.
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
    /// With interest in several things `WouldBlock` does not say which one is meant. Then the
    /// poller is asked about all of them, by a syscall. [`try_io_for`](Self::try_io_for) saves
    /// that.
    pub fn try_io<R>(&self, f: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        self.try_io_for(self.interest.get(), f)
    }

    /// [`try_io`](Self::try_io) for what `interest` says only: one of reading, writing and urgent
    /// data.
    pub fn try_io_for<R>(
        &self,
        interest: Interest,
        f: impl FnOnce(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let result = f(self.io());
        match &result {
            Ok(_) => self.progressed(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.would_block(interest),
            Err(_) => {}
        }
        result
    }

    /// Notes that bytes were read or written.
    fn progressed(&self) {
        self.slot.progressed();
        if self.mode == Mode::Level && self.slot.is_ready() {
            // The known readiness is of the time before.
            let _ = self.ask(self.reported.get());
        }
    }

    #[cold]
    fn would_block(&self, interest: Interest) {
        match interest {
            // Nothing else was asked for: an error that came with it has been fetched.
            _ if interest == self.reported.get() && interest.is_single() => {
                self.forget(Readiness::ALL)
            }
            Interest::READABLE => self.forget(Readiness::READABLE | Readiness::ERROR),
            Interest::WRITABLE => self.forget(Readiness::WRITABLE | Readiness::ERROR),
            Interest::PRIORITY => self.forget(Readiness::PRIORITY | Readiness::ERROR),
            // A poller that refuses keeps what it knew: then the source stays ready.
            _ => drop(self.ask(self.reported.get())),
        }
    }

    /// Marks the file as not ready for this.
    ///
    /// Clearing what is not in the [interest](Self::interest) loses nothing:
    /// [`set_interest`](Self::set_interest) asks the poller about it, by a syscall.
    pub fn clear_readiness(&self, readiness: Readiness) {
        self.unknown.set(self.unknown.get() | readiness.without(asked(self.interest.get())));
        self.forget(readiness);
    }

    fn forget(&self, readiness: Readiness) {
        // Nobody can be told of an error. The driver's next wait says what is wrong with it, and
        // until then the source stays as ready as it was.
        if !self.slot.is_told_once() {
            self.slot.forget_readiness(readiness);
        } else {
            let _ = self.ask(self.reported.get());
        }
    }

    /// The interest that is waited for.
    pub fn interest(&self) -> Interest {
        self.interest.get()
    }

    /// Changes the interest from now on. On an error nothing has changed.
    ///
    /// With [`Mode::Edge`] this is a syscall the first time that something is asked for, and none
    /// after that: the known readiness stays known. With the other modes it is one syscall, and the
    /// readiness is found out anew.
    pub fn set_interest(&self, interest: Interest) -> io::Result<()> {
        // A driver without edges reports once: only what is wanted.
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

    /// Asks the poller once more: for [`Mode::OneShot`], and for those who would rather ask than
    /// try. One syscall.
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
            // All was told, and the poller is asked again later.
            Mode::OneShot => self.slot.forget_readiness(Readiness::ALL),
            // An end that nobody asked for is told once, and no reason to ask again.
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

macro_rules! read_and_write {
    ($($fd:ty),*) => {$(
        impl<T: AsFd> Read for $fd
        where
            for<'a> &'a T: Read,
        {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.try_io_for(Interest::READABLE, |mut io| io.read(buffer))
            }
            fn read_vectored(&mut self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
                self.try_io_for(Interest::READABLE, |mut io| io.read_vectored(buffers))
            }
        }

        impl<T: AsFd> Write for $fd
        where
            for<'a> &'a T: Write,
        {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                self.try_io_for(Interest::WRITABLE, |mut io| io.write(buffer))
            }
            fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
                self.try_io_for(Interest::WRITABLE, |mut io| io.write_vectored(buffers))
            }
            fn flush(&mut self) -> io::Result<()> {
                self.try_io_for(Interest::WRITABLE, |mut io| io.flush())
            }
        }
    )*};
}

read_and_write!(&Fd<T>, Fd<T>);

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

//! The registration of a file with a reactor.

use std::cell::Cell;
use std::os::fd::AsFd;

use super::Fd;
use super::blocking::check_nonblocking;
use crate::reactor::{Handle, SourceKind};
use crate::sources::RegisterError;
use crate::sys::blocking::set_nonblocking;
use crate::sys::{Interest, Mode, Readiness};

impl Handle {
    /// Waits for `io`, a non-blocking file that can be polled, edge-triggered.
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
    /// # Errors
    /// The error gives `io` back, and says what to do. Its [kind](std::io::Error::kind) is
    /// - `InvalidInput` when the file is [blocking](Fd#blocking-files),
    /// - `AlreadyExists` when this fd is registered already; the text names the fd, and the line
    ///   that registered the fd,
    /// - `Unsupported` when the system cannot wait for the file (on epoll a regular file, which is
    ///   always ready), or the driver waits for no fds,
    /// - `StorageFull` when the user has as many registrations as `fs.epoll.max_user_watches`
    ///   allows,
    /// - otherwise the kind of the system's error.
    ///
    /// For the kinds named here [`source`](std::error::Error::source) gives the system's own error,
    /// with its [`raw_os_error`](std::io::Error::raw_os_error). All others are the system's errors
    /// themselves.
    ///
    /// # Cost
    /// Three syscalls: one looks at the flag, one registers, and one comes with the drop of the
    /// [`Fd`].
    #[track_caller]
    pub fn fd<T: AsFd>(&self, io: T, interest: Interest) -> Result<Fd<T>, RegisterError<T>> {
        self.fd_with_mode(io, interest, Mode::Edge)
    }

    /// Makes `io` non-blocking and waits for it as [`fd`](Self::fd) does.
    ///
    /// Clones of the fd and other processes share the flag. The flag stays set when the [`Fd`] is
    /// dropped or taken apart: see [`Fd`](Fd#blocking-files).
    ///
    /// # Errors
    /// The errors of [`fd`](Self::fd), but for `InvalidInput`. A failed registration leaves the
    /// flag alone.
    ///
    /// # Cost
    /// One syscall more than [`fd`](Self::fd), and two more if the file was blocking.
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
        match set_nonblocking(fd.as_fd(), true) {
            Ok(()) => Ok(fd),
            Err(error) => Err(RegisterError::new(fd.into_inner(), error)),
        }
    }

    /// Waits for `io` as [`fd`](Self::fd) does, with reports of another mode. With [`Mode::Level`]
    /// and [`Mode::OneShot`] the file may be [blocking](Fd#blocking-files).
    ///
    /// # Errors
    /// The errors of [`fd`](Self::fd).
    ///
    /// ```
    /// use pollmux::sys::{Interest, Mode};
    /// use pollmux::{Reactor, select};
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let reactor = Reactor::new()?;
    /// let (mut theirs, ours) = UnixStream::pair()?; // blocking
    /// let mut ours = reactor.fd_with_mode(ours, Interest::READABLE, Mode::OneShot)?;
    /// theirs.write_all(b"hello")?;
    /// select! { reactor; recv(ours) -> _ => assert_eq!(ours.read(&mut [0; 16])?, 5) }
    /// ours.rearm()?; // the next report
    /// # std::io::Result::Ok(())
    /// ```
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

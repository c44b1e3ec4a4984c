//! A listener in a loop that pauses when the system has no more fds.

#![allow(dead_code)] // each example uses a part

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use pollmux::sys::Interest;
use pollmux::{Fd, Handle, Source, Timer};

/// The pause after an `accept` that failed.
pub const PAUSE: Duration = Duration::from_millis(100);

pub struct Acceptor {
    listener: Fd<TcpListener>,
    again: Timer,
}

impl Acceptor {
    /// Listens at `address`. The listener and the end of a pause are reported under `key`.
    pub fn new(
        reactor: &Handle,
        address: impl ToSocketAddrs,
        key: (u32, u32),
    ) -> io::Result<Acceptor> {
        Acceptor::of(reactor, TcpListener::bind(address)?, key)
    }

    /// Accepts from `listener`, which listens already.
    pub fn of(reactor: &Handle, listener: TcpListener, key: (u32, u32)) -> io::Result<Acceptor> {
        Ok(Acceptor {
            listener: reactor.fd_nonblocking(listener, Interest::READABLE)?.with_key(key),
            again: reactor.timer().with_key(key),
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.get_ref().local_addr()
    }

    /// Returns the next connection, if there is one now. Call this up to some limit for each event.
    /// If more connections wait, the next `wait` reports the listener again.
    pub fn accept(&self) -> Option<TcpStream> {
        if self.again.try_take().is_some() {
            self.listen(Interest::READABLE);
        }
        loop {
            match self.listener.try_io(|listener| listener.accept()) {
                Ok((stream, _)) => return Some(stream),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return None,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        // Most likely there are no fds left. The connection stays in the backlog,
                        // and no event would report it again.
                        eprintln!("accept: {error}");
                        self.listen(Interest::NONE);
                        self.again.reset(PAUSE);
                        return None;
                    }
                },
            }
        }
    }

    fn listen(&self, interest: Interest) {
        if let Err(error) = self.listener.set_interest(interest) {
            eprintln!("the listener: {error}");
        }
    }
}

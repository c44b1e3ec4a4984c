//! A connect that does not block the loop, with `socket2` and with `mio::net`, and a listener that
//! accepts all that wait.
//!
//! The standard library has no connect that returns at once. With either crate it takes a few
//! lines, and the socket is registered as any other.
//!
//! `cargo run -p pollmux-examples --example connect`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use pollmux::{Fd, Reactor, select, sys::Interest};
use socket2::{Domain, Socket, Type};

/// Begins to connect, with `socket2`. The stream is the standard library's.
pub fn connect(reactor: &Reactor, to: SocketAddr) -> io::Result<Fd<TcpStream>> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(reactor.fd(socket.into(), Interest::WRITABLE)?),
    }
}

/// Begins to connect, with `mio`. Its streams are non-blocking from the start.
pub fn connect_by_mio(reactor: &Reactor, to: SocketAddr) -> io::Result<Fd<mio::net::TcpStream>> {
    Ok(reactor.fd(mio::net::TcpStream::connect(to)?, Interest::WRITABLE)?)
}

/// Waits until the connection is there. `take_error` is the stream's.
///
/// A loop with more to do has the first two cases among its others.
pub fn finish<T: AsFd>(
    reactor: &Reactor,
    stream: &Fd<T>,
    timeout: Duration,
    take_error: impl FnOnce(&T) -> io::Result<Option<io::Error>>,
) -> io::Result<()> {
    select! { reactor;
        recv(stream) -> _ => {}
        default(timeout) => return Err(ErrorKind::TimedOut.into()),
    }
    match take_error(stream.get_ref())? {
        Some(error) => Err(error),
        None => stream.set_interest(Interest::READABLE),
    }
}

/// Accepts all that wait. In edge mode the listener is not reported again before `WouldBlock`.
pub fn accept_all(reactor: &Reactor, from: &Fd<TcpListener>) -> io::Result<Vec<Fd<TcpStream>>> {
    let mut all = Vec::new();
    loop {
        match from.try_io(|listener| listener.accept()) {
            // A stream that is accepted is blocking, even from a non-blocking listener.
            Ok((stream, _)) => all.push(reactor.fd_nonblocking(stream, Interest::READABLE)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// Greets over this connection, and hears the greeting at the other end.
fn greet<T: AsFd + Write>(
    reactor: &Reactor,
    listener: &Fd<TcpListener>,
    mut stream: Fd<T>,
) -> io::Result<String> {
    stream.write_all(b"hello")?;
    drop(stream);
    select! { reactor; recv(listener) -> _ => {} }
    let mut text = String::new();
    for mut accepted in accept_all(reactor, listener)? {
        let mut buffer = [0; 16];
        loop {
            match accepted.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => text.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    select! { reactor; recv(accepted) -> _ => {} }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(text)
}

/// Connects both ways, and to a port where nobody listens. Returns what was heard, and the error.
pub fn run() -> io::Result<(Vec<String>, io::Error)> {
    let reactor = Reactor::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let listener = reactor.fd_nonblocking(listener, Interest::READABLE)?;
    let timeout = Duration::from_secs(60);

    let stream = connect(&reactor, address)?;
    finish(&reactor, &stream, timeout, TcpStream::take_error)?;
    let mut heard = vec![greet(&reactor, &listener, stream)?];

    let stream = connect_by_mio(&reactor, address)?;
    finish(&reactor, &stream, timeout, mio::net::TcpStream::take_error)?;
    heard.push(greet(&reactor, &listener, stream)?);

    // Bound and not listening. Some systems know so at once.
    let closed = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let nobody = closed.local_addr()?.as_socket().expect("an address of TCP");
    let refused = connect(&reactor, nobody)
        .and_then(|stream| finish(&reactor, &stream, timeout, TcpStream::take_error));
    Ok((heard, refused.expect_err("nobody listens")))
}

fn main() -> io::Result<()> {
    let (heard, refused) = run()?;
    println!("socket2: {}, mio: {}, nobody: {refused}", heard[0], heard[1]);
    Ok(())
}

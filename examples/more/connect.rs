//! Connects without blocking the loop, with `socket2` and with `mio::net`. A listener accepts all
//! waiting connections.
//!
//! The standard library has no connect that returns at once. With either crate such a connect takes
//! a few lines. The socket is registered like any other fd.
//!
//! `cargo run -p pollmux-examples --example connect`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use pollmux::{Fd, Reactor, select, sys::Interest};
use socket2::{Domain, Socket, Type};

/// Starts a connect with `socket2`. The stream has the type of the standard library.
pub fn connect(reactor: &Reactor, to: SocketAddr) -> io::Result<Fd<TcpStream>> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(reactor.fd(socket.into(), Interest::WRITABLE)?),
    }
}

/// Starts a connect with `mio`, whose streams are non-blocking from the start.
pub fn connect_by_mio(reactor: &Reactor, to: SocketAddr) -> io::Result<Fd<mio::net::TcpStream>> {
    Ok(reactor.fd(mio::net::TcpStream::connect(to)?, Interest::WRITABLE)?)
}

/// Waits until the connect has finished. `take_error` is the method of the stream.
///
/// A loop with other sources has the first two cases in its own `select!`.
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

/// Accepts all waiting connections, until `WouldBlock`. Only then does edge mode report the
/// listener again.
pub fn accept_all(reactor: &Reactor, from: &Fd<TcpListener>) -> io::Result<Vec<Fd<TcpStream>>> {
    let mut all = Vec::new();
    loop {
        match from.try_io(|listener| listener.accept()) {
            // An accepted stream is blocking, even from a non-blocking listener.
            Ok((stream, _)) => all.push(reactor.fd_nonblocking(stream, Interest::READABLE)?),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// Sends a greeting over `stream`, and returns the greeting that the listener's side receives.
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

/// Connects both ways, and to a port without a listener. Returns the received greetings and the
/// error.
pub fn run() -> io::Result<(Vec<String>, io::Error)> {
    let reactor = Reactor::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let listener = reactor.fd_nonblocking(listener, Interest::READABLE)?;
    let timeout = Duration::from_secs(60);

    let stream = connect(&reactor, address)?;
    finish(&reactor, &stream, timeout, TcpStream::take_error)?;
    let mut received = vec![greet(&reactor, &listener, stream)?];

    let stream = connect_by_mio(&reactor, address)?;
    finish(&reactor, &stream, timeout, mio::net::TcpStream::take_error)?;
    received.push(greet(&reactor, &listener, stream)?);

    // This socket is bound, and does not listen. Some systems refuse the connect at once.
    let closed = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = closed.local_addr()?.as_socket().expect("an address of TCP");
    let refused = connect(&reactor, address)
        .and_then(|stream| finish(&reactor, &stream, timeout, TcpStream::take_error));
    Ok((received, refused.expect_err("the socket does not listen")))
}

fn main() -> io::Result<()> {
    let (received, refused) = run()?;
    println!("socket2: {}, mio: {}, no listener: {refused}", received[0], received[1]);
    Ok(())
}

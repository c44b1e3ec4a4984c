//! The CPU time of the server's thread for an HTTP request, beside the same handler on mio, tokio
//! and monoio.
//!
//! One thread is the load: it writes a request, or 16, on each connection and then reads all
//! answers. Another thread serves. It handles its input by `Exchange` of the example `http`, which
//! knows no sockets. On pollmux the server is that of the example, with its deadlines; the others
//! have no deadlines. All read once and write once for each event. By default an idle reactor looks
//! for a while before it sleeps, and that is CPU time, too.
//!
//! The time is that of `CLOCK_THREAD_CPUTIME_ID` from the first accept to the last close. It
//! includes the server's syscalls, and not the load.

#[path = "../../../examples/common/acceptor.rs"]
mod acceptor;
#[allow(dead_code)]
#[path = "../../../examples/http/exchange.rs"]
mod exchange;
#[path = "../../../examples/http/parse.rs"]
mod parse;
#[path = "../../../examples/http/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use exchange::Exchange;
use mio::{Interest, Token};
use pollmux::channel::{self, Receiver};
use pollmux::{Reactor, reactor::Spin};
use server::{Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::measure::{Contestant, Sample};
use crate::raw::thread_cpu_time;
use crate::row::{Family, Scale, row};

const CONNECTIONS: usize = 64;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
/// The buffer that a server reads into.
const BUFFER: usize = 16 << 10;
/// Sends its address, and serves until all connections of the load are closed.
type Serve = fn(mpsc::Sender<SocketAddr>, usize, Receiver<()>) -> io::Result<()>;
const CONTESTANTS: [(&str, Serve); 6] = [
    ("mio", on_mio),
    ("pollmux", on_pollmux),
    ("pollmux, Spin::Off", without_spin),
    ("tokio", on_tokio),
    ("monoio, epoll", on_monoio_epoll),
    ("monoio, io_uring", on_monoio_uring),
];

pub fn families() -> Vec<Family> {
    [1, 16].into_iter().map(family).collect()
}

fn family(pipeline: usize) -> Family {
    let about = format!("An HTTP request, {pipeline} at once on each of 64 connections, CPU time.");
    let peers = ["mio", "tokio", "monoio, epoll", "monoio, io_uring"];
    Family::new(
        move |scale| contestants(scale, pipeline),
        [
            row(format!("http/{pipeline}"), about, "pollmux", &peers),
            row(
                format!("http/spin-off/{pipeline}"),
                "The same on a reactor that sleeps at once when it has nothing to do.",
                "pollmux, Spin::Off",
                &peers,
            ),
        ]
        .map(|spec| spec.ratios(1.0 / 1.1, 1.0)),
    )
    .slices((1, 1), (5, 9))
}

fn contestants(scale: Scale, pipeline: usize) -> Vec<Contestant> {
    let requests = if pipeline == 1 {
        scale.of(200, 20_000, 60_000)
    } else {
        scale.of(2_000, 200_000, 600_000)
    };
    let rounds = (requests / CONNECTIONS / pipeline).max(1);
    let contestant = |(name, serve): (&str, Serve)| {
        if name.ends_with("io_uring") && !monoio::utils::detect_uring() {
            return Contestant::absent(&[name], "this kernel refuses io_uring");
        }
        Contestant::new(name, move |_| {
            let cpu = measure(serve, CONNECTIONS, rounds, pipeline).expect("a server that runs");
            Sample::of(cpu.as_nanos() as f64 / (rounds * CONNECTIONS * pipeline) as f64)
        })
    };
    CONTESTANTS.into_iter().map(contestant).collect()
}

/// Measures the CPU time of a server's thread for this load.
fn measure(
    serve: Serve,
    connections: usize,
    rounds: usize,
    pipeline: usize,
) -> io::Result<Duration> {
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = channel::bounded(1);
    let server = thread::spawn(move || {
        let begin = thread_cpu_time();
        let result = serve(tell, connections, stopped);
        (result, thread_cpu_time() - begin)
    });
    let address = told.recv().map_err(io::Error::other)?;
    load(address, connections, rounds, pipeline)?;
    drop(stop);
    let (result, cpu) = server.join().map_err(|_| io::Error::other("the server panicked"))?;
    result.map(|()| cpu)
}

fn load(address: SocketAddr, connections: usize, rounds: usize, pipeline: usize) -> io::Result<()> {
    let (requests, answers) = (REQUEST.repeat(pipeline), ANSWER.repeat(pipeline));
    let connect = |_| TcpStream::connect(address).and_then(|s| s.set_nodelay(true).map(|()| s));
    let mut streams = (0..connections).map(connect).collect::<io::Result<Vec<_>>>()?;
    let mut found = vec![0; answers.len()];
    for _ in 0..rounds {
        for stream in &mut streams {
            stream.write_all(requests.as_bytes())?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut found)?;
            if found != answers.as_bytes() {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }
    Ok(())
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn tell_address(tell: &mpsc::Sender<SocketAddr>, address: SocketAddr) -> io::Result<()> {
    tell.send(address).map_err(io::Error::other)
}

fn on_pollmux(tell: mpsc::Sender<SocketAddr>, _: usize, stop: Receiver<()>) -> io::Result<()> {
    serve(Reactor::new()?, tell, stop)
}

fn without_spin(tell: mpsc::Sender<SocketAddr>, _: usize, stop: Receiver<()>) -> io::Result<()> {
    serve(Reactor::builder().spin(Spin::Off).build()?, tell, stop)
}

fn serve(reactor: Reactor, tell: mpsc::Sender<SocketAddr>, stop: Receiver<()>) -> io::Result<()> {
    let limits = Limits { idle: Duration::from_secs(60), request: Duration::from_secs(10) };
    let server = Server::new(reactor, any_port(), limits)?;
    tell_address(&tell, server.address())?;
    server.run(stop).map(drop)
}

fn on_mio(tell: mpsc::Sender<SocketAddr>, connections: usize, _: Receiver<()>) -> io::Result<()> {
    const LISTENER: Token = Token(0);
    let mut poll = mio::Poll::new()?;
    let mut listener = mio::net::TcpListener::bind(any_port())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    tell_address(&tell, listener.local_addr()?)?;
    let mut open: BTreeMap<Token, (mio::net::TcpStream, Exchange)> = BTreeMap::new();
    let (mut accepted, mut buffer) = (0, vec![0; BUFFER]);
    let mut events = mio::Events::with_capacity(256);
    while accepted < connections || !open.is_empty() {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                loop {
                    let mut stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    };
                    accepted += 1;
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(accepted), interest)?;
                    open.insert(Token(accepted), (stream, Exchange::default()));
                }
            } else if let Some((stream, exchange)) = open.get_mut(&event.token()) {
                if !go_on(stream, exchange, event.is_read_closed(), &mut buffer)? {
                    let (mut stream, _) = open.remove(&event.token()).expect("it is there");
                    poll.registry().deregister(&mut stream)?;
                }
            }
        }
    }
    Ok(())
}

/// Reads and answers the input. Returns false at the end of the stream. As in the example, a read
/// that did not fill the buffer has taken all.
fn go_on(
    stream: &mut mio::net::TcpStream,
    exchange: &mut Exchange,
    is_read_closed: bool,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let mut is_drained = false;
    loop {
        while !exchange.output().is_empty() {
            match stream.write(exchange.output()) {
                Ok(n) => exchange.sent(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        if is_drained {
            return Ok(true);
        }
        match stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                is_drained = n < buffer.len() && !is_read_closed;
                exchange.receive(&buffer[..n]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

fn on_tokio(tell: mpsc::Sender<SocketAddr>, connections: usize, _: Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(any_port()).await?;
        tell_address(&tell, listener.local_addr()?)?;
        let mut tasks = Vec::with_capacity(connections);
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tasks.push(tokio::spawn(async move {
                let (mut exchange, mut buffer) = (Exchange::default(), vec![0; BUFFER]);
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return io::Result::Ok(()),
                        n => exchange.receive(&buffer[..n]),
                    }
                    while !exchange.output().is_empty() {
                        let n = stream.write(exchange.output()).await?;
                        exchange.sent(n);
                    }
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

fn on_monoio_epoll(
    tell: mpsc::Sender<SocketAddr>,
    connections: usize,
    _: Receiver<()>,
) -> io::Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().build()?;
    runtime.block_on(serve_on_monoio(tell, connections))
}

fn on_monoio_uring(
    tell: mpsc::Sender<SocketAddr>,
    connections: usize,
    _: Receiver<()>,
) -> io::Result<()> {
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build()?;
    runtime.block_on(serve_on_monoio(tell, connections))
}

/// Serves on monoio. monoio owns its buffers while it reads and writes, so the output is copied
/// into one of them.
async fn serve_on_monoio(tell: mpsc::Sender<SocketAddr>, connections: usize) -> io::Result<()> {
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    let listener = monoio::net::TcpListener::bind(any_port())?;
    tell_address(&tell, listener.local_addr()?)?;
    let mut tasks = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.push(monoio::spawn(async move {
            let (mut exchange, mut buffer) = (Exchange::default(), vec![0; BUFFER]);
            let mut answers = Vec::new();
            loop {
                let (result, read) = stream.read(buffer).await;
                buffer = read;
                match result? {
                    0 => return io::Result::Ok(()),
                    n => exchange.receive(&buffer[..n]),
                }
                while !exchange.output().is_empty() {
                    answers.clear();
                    answers.extend_from_slice(exchange.output());
                    let (result, written) = stream.write_all(answers).await;
                    answers = written;
                    exchange.sent(result?);
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(())
}

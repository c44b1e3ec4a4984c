//! An HTTP request, CPU time of the server's thread, beside the same handler on mio and tokio.
//!
//! `cargo bench -p pollmux-benches --bench http` takes about a minute, `-- --quick` ten
//! seconds.
//!
//! One thread is the load: it writes a request, or 16, on each connection and then reads all
//! answers. Another thread serves. It handles what has come by `Exchange` of the example `http`,
//! which knows no sockets. On pollmux it is the server of the example, with its deadlines; the
//! servers on mio and tokio have none. All read once and write once for each event. By default a
//! reactor that has nothing to do looks for a while before it sleeps, which is CPU time, too; "no
//! spin" is the same server without that.
//!
//! The time is that of `CLOCK_THREAD_CPUTIME_ID` from the first accept to the last close: syscalls
//! count, the load does not. The contestants take turns, and each begins a round in turn: **only
//! ratios count**.

mod common;

#[path = "../examples/common/acceptor.rs"]
mod acceptor;
#[allow(dead_code)]
#[path = "../examples/http/exchange.rs"]
mod exchange;
#[path = "../examples/http/parse.rs"]
mod parse;
#[path = "../examples/http/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use common::{Scale, median, verdict};
use exchange::Exchange;
use mio::{Interest, Token};
use pollmux::channel::{self, Receiver};
use pollmux::{Reactor, reactor::Spin};
use server::{Limits, Server};
use support::timed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Parser)]
#[command(about = "HTTP requests on pollmux, mio and tokio: CPU time of the server's thread")]
struct Args {
    /// Ten seconds instead of a minute
    #[arg(long)]
    quick: bool,
    /// Connections at once
    #[arg(long, default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=500))]
    connections: u64,
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
/// The buffer that a server reads into.
const BUFFER: usize = 16 << 10;
/// The bound on pollmux beside mio.
const GATE: f64 = 1.10;

/// Tells its address, and serves until all connections of the load are closed.
type Serve = fn(mpsc::Sender<SocketAddr>, usize, Receiver<()>) -> io::Result<()>;
const CONTESTANTS: [(&str, Serve); 4] =
    [("mio", on_mio), ("pollmux", on_pollmux), ("no spin", without_spin), ("tokio", on_tokio)];

fn main() -> io::Result<()> {
    let args = Args::parse_from(common::arguments());
    let scale = Scale::new(args.quick);
    let connections = args.connections as usize;
    println!("{connections} connections; µs of CPU a request\n");
    println!("{:>10} {:>9}   run 1   run 2   run 3  median   beside mio", "pipeline", "");
    for (pipeline, requests) in
        [(1, scale.of(2_000, 40_000, 300_000)), (16, scale.of(10_000, 400_000, 3_000_000))]
    {
        let rounds = (requests / connections / pipeline).max(1);
        let mut costs = vec![Vec::new(); CONTESTANTS.len()];
        for run in 0..3 {
            for i in 0..CONTESTANTS.len() {
                let i = (i + run) % CONTESTANTS.len();
                let cpu = measure(CONTESTANTS[i].1, connections, rounds, pipeline)?;
                costs[i].push(cpu.as_secs_f64() * 1e6 / (rounds * connections * pipeline) as f64);
            }
        }
        let ratio = |i: usize| median((0..3).map(|run| costs[i][run] / costs[0][run]));
        for (i, (name, _)) in CONTESTANTS.iter().enumerate() {
            let runs: String = costs[i].iter().map(|cost| format!("{cost:>8.3}")).collect();
            let middle = median(costs[i].iter().copied());
            println!("{pipeline:>10} {name:>9}{runs}{middle:>8.3} {:>10.2}x", ratio(i));
        }
        let met = |i| if scale == Scale::Trial { "-" } else { verdict(ratio(i) <= GATE) };
        println!("{:>10} at most {GATE}x mio: {}, without spin {}\n", "", met(1), met(2));
    }
    Ok(())
}

/// CPU time of a server's thread for this load.
fn measure(
    serve: Serve,
    connections: usize,
    rounds: usize,
    pipeline: usize,
) -> io::Result<Duration> {
    let (tell, told) = mpsc::channel();
    let (stop, stopped) = channel::bounded(1);
    let server = thread::spawn(move || timed(|| serve(tell, connections, stopped)));
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

/// Reads and answers what has come. Returns false at the end of the stream. As in the example, a
/// read that did not fill the buffer has taken all.
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

//! An HTTP/1.1 server with keep-alive, pipelining, and a deadline for each step of a client.
//!
//! `cargo run --release --example http`, then `curl -v http://127.0.0.1:7009/` and
//! `curl -d hello http://127.0.0.1:7009/echo`. Ctrl-C and SIGTERM end the server after it has
//! answered the requests that have begun.
//!
//! `cargo run --release -p pollmux-bench -- --only http` compares this server with the same handler
//! on mio and tokio.
//!
//! Known limits: a body needs a `Content-Length`. The server refuses a `Transfer-Encoding` with 501
//! and an `Expect` with 417. Answers have no `Date`, and there is no TLS.

#[path = "../common/acceptor.rs"]
mod acceptor;
#[path = "../common/duration.rs"]
mod duration;
mod exchange;
mod parse;
mod server;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Arg, Command, value_parser};
use pollmux::{Reactor, channel};
use server::{Limits, Report, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let time = |name| Arg::new(name).long(name).value_parser(duration::duration);
    let listen = Arg::new("listen").long("listen").value_parser(value_parser!(SocketAddr));
    let options = Command::new("http").about("An HTTP/1.1 server").args([
        listen.default_value("127.0.0.1:7009").help("The address of the server"),
        time("idle")
            .default_value("60s")
            .help("The most time between two requests of a connection"),
        time("request").default_value("10s").help("The most time for a request to arrive"),
    ]);
    let options = options.get_matches();
    let duration = |name| *options.get_one::<Duration>(name).unwrap();
    let limits = Limits { idle: duration("idle"), request: duration("request") };
    let mut server = Server::new(Reactor::new()?, *options.get_one("listen").unwrap(), limits)?;
    server.end_by_signals()?;
    println!("http at {}, Ctrl-C ends it", server.address());
    let (_never, stop) = channel::bounded(1);
    let Report { connections, answers, turns } = server.run(stop)?;
    println!("good-bye after {connections} connections, {answers} answers, {turns} turns");
    Ok(())
}

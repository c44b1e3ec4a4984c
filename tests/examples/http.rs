//! Tests of the example `http`: its parser, its answers without sockets, and the program.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::exchange::Exchange;
use crate::parse::{MAX_BODY, MAX_HEAD, Request, Stop, parse};
use crate::program::Program;
use nix::sys::signal::Signal;
use support::{ms, secs};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const BYE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";

/// Returns a request with the header fields `fields`.
fn with(fields: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_request_has_its_parts() {
    let text = with("Content-Length: 3\r\nX:y\r\n") + "abcGET";
    let request = Request { method: b"POST", target: b"/echo", body: b"abc", keep_alive: true };
    assert_eq!(parse(text.as_bytes()), Ok((request, text.len() - 3)));
    for n in 0..text.len() - 3 {
        assert_eq!(parse(&text.as_bytes()[..n]), Err(Stop::Incomplete), "{n} bytes");
    }
    let keeps = |text: &str| parse(text.as_bytes()).unwrap().0.keep_alive;
    assert!(!keeps(LAST));
    assert!(!keeps(&with("connection: x, CLOSE\r\n")));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(!keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    assert!(keeps(&with("Connection: keep-alive, closed\r\n")));
}

#[test]
fn a_bad_request_has_its_status() {
    let long = format!("X: {}\r\n", "x".repeat(MAX_HEAD));
    let large = format!("Content-Length: {}\r\n", MAX_BODY + 1);
    let rows = [
        ("400", "GET /\r\n\r\n".into()),
        ("400", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("400", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("400", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("400", "GET / HTTP/1.1\nHost: a\n\n".into()),
        ("400", "GET / http/1.1\r\nHost: a\r\n\r\n".into()),
        ("505", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        ("400", "GET / HTTP/1.1\r\n\r\n".into()), // no host
        ("400", with("Host: b\r\n")),
        ("400", with("X : y\r\n")),
        ("400", with(" X: y\r\n")),
        ("400", with(": y\r\n")),
        ("400", with("no colon\r\n")),
        ("400", with("X: a\0b\r\n")),
        ("400", with("Content-Length: -1\r\n")),
        ("400", with("Content-Length: +1\r\n")),
        ("400", with("Content-Length:\r\n")),
        ("400", with("Content-Length: 1\r\ncontent-length: 1\r\n")),
        ("413", with(&large)),
        ("413", with("Content-Length: 99999999999999999999999999\r\n")),
        ("417", with("Expect: 100-continue\r\n")),
        ("431", with(&long)),
        ("501", with("Transfer-Encoding: chunked\r\n")),
        ("501", with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
    ];
    for (status, text) in rows {
        match parse(text.as_bytes()) {
            Err(Stop::Bad(found)) if found.starts_with(status) => {}
            other => panic!("expected {status}, found {other:?} for {text:.60?}"),
        }
    }
}

/// Returns all output of an exchange that receives `pieces`.
fn answers(pieces: &[&str]) -> String {
    let (mut exchange, mut out) = (Exchange::default(), Vec::new());
    for piece in pieces {
        exchange.receive(piece.as_bytes());
        while !exchange.output().is_empty() {
            let n = exchange.output().len().min(7); // a socket may take a part only
            out.extend_from_slice(&exchange.output()[..n]);
            exchange.sent(n);
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let echo = with("Content-Length: 4\r\n") + "\r\n\r\n";
    let head = GET.replace("GET", "HEAD");
    let echoed = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\r\n\r\n";
    let expected = [HELLO, echoed, &HELLO[..HELLO.len() - 6], BYE].concat();
    let all = [GET, &echo, &head, LAST, GET].concat();
    assert_eq!(answers(&[&all]), expected, "the exchange answered after its last request");
    let bytes: Vec<&str> = (0..all.len()).map(|i| &all[i..i + 1]).collect();
    assert_eq!(answers(&bytes), expected);
    assert_eq!(answers(&["\r\n", GET, "\r", "\n", GET]), [HELLO, HELLO].concat());
}

#[test]
fn other_paths_and_methods_have_their_status() {
    for (begin, status) in [
        ("GET /?x=/echo", "200 OK"),
        ("GET /nowhere", "404 Not Found"),
        ("DELETE /", "405 Method Not Allowed\r\nContent-Length: 0\r\nAllow: GET, HEAD\r\n"),
        ("GET /echo", "405 Method Not Allowed\r\nContent-Length: 0\r\nAllow: POST\r\n"),
    ] {
        let answer = answers(&[begin, " HTTP/1.1\r\nHost: a\r\n\r\n"]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[test]
fn a_bad_request_ends_the_exchange() {
    let bad = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(answers(&[GET, "nonsense\r\n", GET]), [HELLO, bad].concat());
}

#[test]
fn requests_wait_while_answers_are_unsent() {
    let mut exchange = Exchange::default();
    exchange.receive(GET.repeat(100_000).as_bytes());
    let waiting = exchange.output().len();
    assert!((60_000..70_000).contains(&waiting), "{waiting} bytes");
    assert_eq!(exchange.answered(), (waiting / HELLO.len()) as u64);
    let mut sent = 0;
    while !exchange.output().is_empty() {
        sent += exchange.output().len();
        exchange.sent(exchange.output().len());
    }
    assert_eq!((exchange.answered(), sent), (100_000, 100_000 * HELLO.len()));
}

/// Starts the program at a free port. Returns the program and its address.
fn serve(args: &[&str]) -> (Program, String) {
    let mut program = Program::start("http", &[&["--listen", "127.0.0.1:0"], args].concat());
    let line = program.line();
    let address = line.strip_prefix("http at ").and_then(|rest| rest.split(',').next());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).into();
    (program, address)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(secs(120))).unwrap(); // a missing answer fails the test
    stream
}

fn send(mut stream: &TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Reads the next answer, and asserts that it equals `answer`.
#[track_caller]
fn expect(mut stream: &TcpStream, answer: &str) {
    let mut found = vec![0; answer.len()];
    stream.read_exact(&mut found).unwrap();
    assert_eq!(String::from_utf8_lossy(&found), answer);
}

/// Reads all bytes until the end of the stream.
fn rest(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn connections_stay_open_until_one_side_closes() {
    let (_program, address) = serve(&[]);
    let client = connect(&address);
    for _ in 0..3 {
        send(&client, GET);
        expect(&client, HELLO);
    }
    send(&client, &GET.repeat(50));
    expect(&client, &HELLO.repeat(50));
    send(&client, LAST);
    assert_eq!(rest(&client), BYE);
    // A client that half-closes still receives the answers to its requests.
    let client = connect(&address);
    send(&client, &GET.repeat(3));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client), HELLO.repeat(3));
}

#[test]
fn a_refused_body_does_not_destroy_the_answer() {
    let (_program, address) = serve(&[]);
    let client = connect(&address);
    send(&client, &(with("Content-Length: 1000000\r\n") + &"x".repeat(1_000_000)));
    assert!(rest(&client).starts_with("HTTP/1.1 413 Content Too Large\r\n"));
}

#[test]
fn a_slow_request_times_out() {
    // Wall time: on a busy machine the bytes may come late. Then the test runs again with a longer
    // deadline.
    let times_out = |deadline: u64| {
        let (_program, address) = serve(&["--request", &format!("{deadline}ms")]);
        let mut client = connect(&address);
        send(&client, GET);
        expect(&client, HELLO);
        client.set_read_timeout(Some(ms(deadline / 10))).unwrap();
        // A byte from time to time does not postpone the deadline.
        for _ in 0..30 {
            let mut found = [0; 12];
            match client.read_exact(&mut found) {
                Ok(()) => return found == *b"HTTP/1.1 408",
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let _ = client.write_all(b"G"); // the next read returns any error
        }
        false
    };
    assert!([200, 1_500, 9_000].into_iter().any(times_out));
}

#[test]
fn idle_connections_are_closed_without_an_answer() {
    // Wall time: on a busy machine the client may seem idle before its request. Then the test runs
    // again with a longer idle time.
    let closes = |idle: &str| {
        let (_program, address) = serve(&["--idle", idle]);
        let mut client = connect(&address);
        let mut answer = String::new();
        let end =
            client.write_all(GET.as_bytes()).and_then(|()| client.read_to_string(&mut answer));
        assert_eq!(rest(&connect(&address)), "", "a client that sent no byte got an answer");
        end.is_ok() && answer == HELLO
    };
    assert!(["200ms", "3s", "25s"].into_iter().any(closes));
}

#[test]
fn a_client_must_take_answers_before_sending_more() {
    let (mut program, address) = serve(&["--request", "3600s"]);
    let mut client = connect(&address);
    client.set_write_timeout(Some(ms(300))).unwrap();
    let echo = with("Content-Length: 16000\r\n") + &"x".repeat(16_000);
    let (two, mut sent) = (echo.repeat(2), 0);
    while let Ok(n) = client.write(&two.as_bytes()[sent % echo.len()..]) {
        sent += n;
        assert!(sent < 256 << 20, "the server buffers for a client that does not read");
    }
    // The server serves another client meanwhile.
    let other = connect(&address);
    send(&other, LAST);
    assert_eq!(rest(&other), BYE);
    drop(other);
    // The server answers all complete requests when the client reads.
    client.shutdown(Shutdown::Write).unwrap();
    let (answers, answer) = (rest(&client), answers(&[&echo]));
    assert_eq!(answers.len(), sent / echo.len() * answer.len());
    program.signal(Signal::SIGTERM);
    let line = program.line();
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let ["good-bye", "after", "2", "connections", count, "answers", turns, "turns"] = words[..]
    else {
        panic!("{line}")
    };
    let [count, turns] = [count, turns].map(|number| number.parse::<usize>().unwrap());
    assert_eq!(count, sent / echo.len() + 1);
    // The server slept while the client took no answers.
    assert!(turns < 8 * count + 500, "the server spins: {turns} turns for {count} requests");
}

#[test]
fn clients_that_take_no_answers_are_closed() {
    let (_program, address) = serve(&["--request", "300ms"]);
    let mut client = connect(&address);
    let many = GET.repeat(1_000);
    // The loop ends by a reset, because the server closes the connection with unread requests.
    while client.write_all(many.as_bytes()).is_ok() {}
}

#[test]
fn begun_requests_are_answered_after_a_signal() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut program, address) = serve(&["--request", "3600s", "--idle", "3600s"]);
        let (idle, busy) = (connect(&address), connect(&address));
        for client in [&idle, &busy] {
            send(client, GET);
            expect(client, HELLO);
        }
        // The two requests come together. So after the first answer the second request has begun.
        send(&busy, &[GET, &GET[..9]].concat());
        expect(&busy, HELLO);
        program.signal(signal);
        assert_eq!(rest(&idle), "");
        send(&busy, &GET[9..]);
        assert_eq!(rest(&busy), BYE);
        drop(busy);
        assert!(program.line().starts_with("good-bye after 2 connections, 4 answers, "));
        assert_eq!(program.wait().code(), Some(0));
    }
}

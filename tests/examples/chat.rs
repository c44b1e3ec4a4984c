//! Tests of the example `chat`, which run the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use crate::heartbeat::{run, text};
use crate::lines::Lines;
use crate::program::Program;
use nix::sys::signal::Signal;
use support::{ms, secs, watchdog};

/// A running server at a free port.
struct Room {
    program: Program,
    address: String,
}

impl Room {
    fn open(args: &[&str]) -> Room {
        let mut program = Program::start("chat", &[&["--listen", "127.0.0.1:0"], args].concat());
        let line = program.line();
        let address = line.strip_prefix("chat at ").and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).into();
        Room { program, address }
    }

    /// Connects the next client. Returns when the client is in the room.
    fn enter(&self, number: u64) -> Client {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(secs(120))).unwrap(); // a missing line fails the test
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.receive(), format!("* welcome, you are {number}"));
        client
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads the next line, which is empty at the end of the stream.
    fn receive(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().into()
    }
}

#[test]
fn a_line_goes_to_all_others() {
    let room = Room::open(&[]);
    let (mut a, mut b, mut c) = (room.enter(1), room.enter(2), room.enter(3));
    a.send("hello\n");
    for other in [&mut b, &mut c] {
        assert_eq!(other.receive(), "<1> hello");
    }
    // A line may come in pieces, and several lines may come at once.
    b.send("one, ");
    c.send("x\r\n");
    assert_eq!([a.receive(), b.receive()], ["<3> x", "<3> x"]);
    b.send("two\nthree\n\nfour");
    for other in [&mut a, &mut c] {
        assert_eq!(
            [other.receive(), other.receive(), other.receive()],
            ["<2> one, two", "<2> three", "<2>"]
        );
    }
    drop(b); // the last line of `b` is unfinished
    a.send("5\n");
    assert_eq!(c.receive(), "<1> 5");
    c.send("6\n");
    assert_eq!(a.receive(), "<3> 6", "a client received its own line");
}

#[test]
fn a_signal_closes_the_room() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        // The program ends because all clients have left, not because the farewell is over.
        let mut room = Room::open(&["--farewell", "3600000"]);
        let (mut a, mut b) = (room.enter(1), room.enter(2));
        a.send("last words\n");
        assert_eq!(b.receive(), "<1> last words");
        room.program.signal(signal);
        for client in [&mut a, &mut b] {
            assert_eq!([client.receive(), client.receive()], ["* the room closes", ""]);
        }
        drop((a, b));
        assert_eq!(room.program.line(), format!("{signal}: good-bye"));
        let rest = room.program.rest().join(" ");
        let words: Vec<_> = rest.split_whitespace().take(2).collect();
        assert_eq!(words, ["2", "clients"], "{rest}");
        assert_eq!(room.program.wait().code(), Some(0));
        assert!(TcpStream::connect(&room.address).is_err());
    }
}

#[test]
fn the_room_closes_despite_a_remaining_client() {
    let mut room = Room::open(&["--farewell", "100"]);
    let client = room.enter(1); // this client neither reads nor closes
    room.program.signal(Signal::SIGTERM);
    assert_eq!(room.program.wait().code(), Some(0));
    drop(client);
}

#[test]
fn a_silent_client_is_closed_a_speaker_stays() {
    // Wall time: on a busy machine the speaker may seem silent, too. Then the test runs again with
    // a longer idle time.
    let stays = |idle: u64| {
        let room = Room::open(&["--idle", &idle.to_string()]);
        let (mut speaker, mut silent) = (room.enter(1), room.enter(2));
        let begin = Instant::now();
        while begin.elapsed() < ms(2 * idle) {
            if speaker.0.get_mut().write_all(b"x\n").is_err() {
                return false;
            }
            thread::sleep(ms(idle / 20));
        }
        let mut heard = Vec::new();
        silent.0.read_to_end(&mut heard).unwrap();
        assert!(heard.ends_with(b"* idle for too long\n"));
        // The speaker receives the next line, and was not closed.
        room.enter(3).send("still there?\n");
        let mut line = String::new();
        speaker.0.read_line(&mut line).is_ok() && line == "<3> still there?\n"
    };
    assert!([200, 3_000, 25_000].into_iter().any(stays));
}

#[test]
fn a_slow_reader_is_closed_others_receive_all() {
    let room = Room::open(&["--queue", "5000"]);
    let (mut slow, mut speaker, mut reader) = (room.enter(1), room.enter(2), room.enter(3));
    let line = "x".repeat(1_000);
    // The lines are more than the kernel keeps for a client. Each line goes out after the reader
    // has received the line before.
    for _ in 0..8_000 {
        speaker.send(&format!("{line}\n"));
        assert_eq!(reader.receive(), format!("<2> {line}"));
    }
    let mut heard = Vec::new();
    let end = slow.0.read_to_end(&mut heard);
    assert!(
        end.is_ok_and(|n| n < 8_000_000),
        "the room kept all lines for a client that never read"
    );
}

#[test]
fn a_reader_that_pauses_receives_all() {
    let room = Room::open(&["--queue", "100000000"]);
    let (mut pauses, mut speaker, mut reader) = (room.enter(1), room.enter(2), room.enter(3));
    let line = |n: usize| format!("{n} {}", "x".repeat(1_000));
    const LINES: usize = 4_000; // more than the kernel keeps for a client
    for n in 0..LINES {
        speaker.send(&format!("{}\n", line(n)));
        assert_eq!(reader.receive(), format!("<2> {}", line(n)));
    }
    for n in 0..LINES {
        assert_eq!(pauses.receive(), format!("<2> {}", line(n)));
    }
}

/// Runs the load with `args`. Returns the printed text, and true if the load succeeded.
fn load(args: &[&str]) -> (String, bool) {
    let small = ["--load", "60", "--slow", "6", "--speakers", "54", "--rounds", "100"];
    let output = run("chat", &[&small, args].concat());
    (text(&output.stdout), output.status.success())
}

#[cfg_attr(flat, ignore = "the load is a process, and this build cannot wait for processes")]
#[test]
fn slow_readers_cost_bounded_memory() {
    let _watchdog = watchdog();
    let (printed, success) = load(&["--queue", "10000"]);
    assert!(success && printed.contains("verdict: all bounds hold"), "{printed}");
    assert!(printed.contains(" 6 of them read too slowly"), "{printed}");
}

#[cfg_attr(flat, ignore = "the load is a process, and this build cannot wait for processes")]
#[test]
fn a_queue_without_bound_fails_the_verdict() {
    let _watchdog = watchdog();
    let (printed, success) = load(&["--queue", "1000000000"]);
    assert!(!success && printed.contains("verdict: BROKEN: a slow reader"), "{printed}");
}

#[test]
fn pieces_are_joined_into_lines() {
    let split = |limit: usize, pieces: &[&str]| {
        let (mut lines, mut found) = (Lines::new(limit), Vec::new());
        for piece in pieces {
            lines
                .push(piece.as_bytes(), |line| found.push(String::from_utf8(line.into()).unwrap()));
        }
        lines.finish(|line| found.push(format!("{}..", String::from_utf8(line.into()).unwrap())));
        found
    };
    assert_eq!(split(9, &["a", "b\nc", "\n\nd\r\n", "e"]), ["ab", "c", "", "d", "e.."]);
    assert_eq!(split(3, &["abc\nabcd\n", "ab", "cdefg\n"]), ["abc", "abc", "d", "abc", "def", "g"]);
    assert_eq!(split(3, &["abc", "\n", "abc"]), ["abc", "abc.."]);
}

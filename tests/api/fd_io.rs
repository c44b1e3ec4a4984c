//! Checks reads and writes through `Fd`, the `O_NONBLOCK` flag, connecting, and back-pressure.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use pollmux::sys::{Interest, Mode};
use pollmux::{Fd, Handle, Reactor, Source, select};
use socket2::{Domain, Socket, Type};
use support::{
    again, close, no_new_processes, pair, reactor, simulated, spawn, test_name, watchdog,
};

/// Registers a file. Edge mode needs a non-blocking file.
fn register<T: AsFd>(reactor: &Reactor, io: T, interest: Interest, mode: Mode) -> Fd<T> {
    match mode {
        Mode::Edge => reactor.fd_nonblocking(io, interest),
        mode => reactor.fd_with_mode(io, interest, mode),
    }
    .unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn ready<T: AsFd>(reactor: &Reactor, fd: &Fd<T>) {
    reactor.recv(fd).unwrap();
}

#[track_caller]
fn not_ready<T: AsFd>(reactor: &Reactor, fd: &Fd<T>) {
    select! { reactor;
        recv(fd) -> readiness => panic!("{readiness:?}"),
        default(Duration::from_millis(5)) => {}
    }
}

#[track_caller]
fn fails<R: std::fmt::Debug>(kind: ErrorKind, result: io::Result<R>) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

/// Writes two words to `input` and reads them from `output`, a few bytes at a time. Then closes
/// `input`, which must end `output`.
fn check_transfer<W: AsFd + Write, R: AsFd + Read>(
    reactor: &Reactor,
    mut input: Fd<W>,
    mut output: Fd<R>,
    mode: Mode,
) {
    for word in [b"hello", b"again"] {
        ready(reactor, &input);
        input.write_all(word).unwrap();
        input.flush().unwrap();
        let mut text = Vec::new();
        while text.len() < word.len() {
            ready(reactor, &output);
            let mut buffer = [0; 2];
            let read = match mode {
                Mode::Edge => output.read(&mut buffer),
                _ => output.read_vectored(&mut [io::IoSliceMut::new(&mut buffer)]),
            };
            text.extend_from_slice(&buffer[..read.unwrap()]);
        }
        assert_eq!(text, word);
        if mode == Mode::Edge {
            fails(ErrorKind::WouldBlock, output.read(&mut [0]));
            assert!(!output.is_ready());
        }
        not_ready(reactor, &output);
    }
    close(input);
    ready(reactor, &output);
    assert_eq!(output.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn child_pipes_can_be_read_and_written() {
    let _watchdog = watchdog();
    for mode in [Mode::Edge, Mode::Level] {
        let reactor = reactor();
        let mut child = spawn(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input: ChildStdin = child.stdin.take().unwrap();
        let output: ChildStdout = child.stdout.take().unwrap();
        let input = register(&reactor, input, Interest::WRITABLE, mode);
        let output = register(&reactor, output, Interest::READABLE, mode);
        check_transfer(&reactor, input, output, mode);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn pipes_can_be_read_and_written() {
    let _watchdog = watchdog();
    for mode in [Mode::Edge, Mode::Level] {
        let reactor = reactor();
        let (output, input) = nix::unistd::pipe().unwrap();
        let input = register(&reactor, File::from(input), Interest::WRITABLE, mode);
        let output = register(&reactor, File::from(output), Interest::READABLE, mode);
        check_transfer(&reactor, input, output, mode);
    }
}

#[test]
fn terminals_can_be_read_and_written() {
    let _watchdog = watchdog();
    for mode in [Mode::Edge, Mode::Level] {
        let reactor = reactor();
        let pty = openpty(None, None).unwrap();
        let mut raw = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &raw).unwrap();
        let mut terminal = register(&reactor, File::from(pty.slave), Interest::READABLE, mode);
        let mut user = File::from(pty.master);
        user.write_all(b"key").unwrap();
        let mut text = [0; 3];
        for byte in &mut text {
            ready(&reactor, &terminal);
            terminal.read_exact(std::slice::from_mut(byte)).unwrap();
        }
        assert_eq!(&text, b"key");
        if mode == Mode::Edge {
            fails(ErrorKind::WouldBlock, terminal.read(&mut [0]));
        }
        not_ready(&reactor, &terminal);
        terminal.write_all(b"echo").unwrap();
        let mut text = [0; 4];
        user.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"echo");
    }
}

/// A file that reads and writes only by `&mut`, and whose first calls are interrupted.
struct Stateful {
    io: UnixStream,
    interruptions: u32,
}

impl Stateful {
    fn interrupted(&mut self) -> io::Result<()> {
        match self.interruptions {
            0 => Ok(()),
            _ => {
                self.interruptions -= 1;
                Err(ErrorKind::Interrupted.into())
            }
        }
    }
}

impl AsFd for Stateful {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Read for Stateful {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted()?;
        self.io.read(buffer)
    }
}

impl Write for Stateful {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.interrupted()?;
        self.io.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.interrupted()
    }
}

#[test]
fn an_interrupted_call_keeps_the_readiness() {
    let reactor = reactor();
    let (mut theirs, io) = pair();
    let stateful = Stateful { io, interruptions: 1 };
    let mut ours = reactor.fd(stateful, Interest::BOTH).unwrap();
    theirs.write_all(b"ab").unwrap();
    ready(&reactor, &ours);
    fails(ErrorKind::Interrupted, ours.read(&mut [0]));
    assert!(ours.is_ready());
    // Functions that repeat interrupted reads also repeat reads of an `Fd`.
    ours.get_mut().interruptions = 3;
    ours.read_exact(&mut [0; 2]).unwrap();
    ours.get_mut().interruptions = 1;
    fails(ErrorKind::Interrupted, ours.flush());
    assert!(ours.is_ready());
    ours.get_mut().interruptions = 3;
    ours.write_all(b"c").unwrap();
    ours.set_interest(Interest::READABLE).unwrap();
    fails(ErrorKind::WouldBlock, ours.read(&mut [0]));
    assert!(!ours.is_ready());
}

#[test]
fn a_full_pipe_is_not_ready_for_writing() {
    let _watchdog = watchdog();
    let reactor = reactor();
    let mut child = spawn(Command::new("sleep").arg("600").stdin(Stdio::piped()));
    let mut input =
        reactor.fd_nonblocking(child.stdin.take().unwrap(), Interest::WRITABLE).unwrap();
    ready(&reactor, &input);
    let chunk = [b'x'; 4096];
    let error = loop {
        if let Err(error) = input.write(&chunk) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    not_ready(&reactor, &input);
    drop(input);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn fd_forwards_read_and_write() {
    fn reads<T: Read>() {}
    fn writes<T: Write>() {}
    reads::<Fd<ChildStdout>>();
    writes::<Fd<ChildStdin>>();
    reads::<Fd<&UnixStream>>();
    writes::<Fd<&UnixStream>>();
    reads::<Fd<Box<UnixStream>>>();
    reads::<Fd<Arc<File>>>();
    reads::<Fd<io::Stdin>>();
    reads::<Fd<io::StdinLock<'_>>>();
    writes::<Fd<io::Stdout>>();
    reads::<&Fd<UnixStream>>();
    writes::<&Fd<UnixStream>>();
    writes::<&Fd<ChildStdin>>();
}

// The `O_NONBLOCK` flag.

#[test]
fn a_level_fd_can_change_the_flag() {
    let reactor = reactor();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    let mut clone = ours.try_clone().unwrap();
    for mode in [Mode::Level, Mode::OneShot] {
        let ours = reactor.fd_with_mode(&ours, Interest::READABLE, mode).unwrap();
        for _ in 0..2 {
            assert!(!ours.is_nonblocking().unwrap());
            ours.set_nonblocking(true).unwrap();
            ours.set_nonblocking(true).unwrap();
            assert!(ours.is_nonblocking().unwrap());
            fails(ErrorKind::WouldBlock, clone.read(&mut [0]));
            ours.set_nonblocking(false).unwrap();
        }
    }
}

#[test]
fn an_fd_in_edge_mode_refuses_to_block() {
    let reactor = reactor();
    for register in [Handle::fd, Handle::fd_nonblocking] {
        let (_theirs, ours) = pair();
        let fd = register(&reactor, ours, Interest::READABLE).unwrap();
        fd.set_nonblocking(true).unwrap();
        let refused = fd.set_nonblocking(false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        for part in ["would stop the whole loop", "into_inner()", "Mode::Level"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
        assert!(fd.is_nonblocking().unwrap());
        let mut file = fd.into_inner();
        fails(ErrorKind::WouldBlock, file.read(&mut [0]));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn never_blocking_files_may_have_any_flag() {
    let reactor = reactor();
    let mut child = spawn(&mut Command::new("true"));
    let process: Fd<OwnedFd> = reactor.fd(support::pidfd(&child), Interest::READABLE).unwrap();
    process.set_nonblocking(true).unwrap();
    process.set_nonblocking(false).unwrap();
    child.wait().unwrap();
}

#[test]
fn the_flag_can_change_without_a_reactor() {
    let (reactor, (_theirs, ours)) = (reactor(), pair());
    let ours = reactor.fd(ours, Interest::READABLE).unwrap();
    drop(reactor);
    ours.set_nonblocking(false).unwrap();
    assert!(!ours.is_nonblocking().unwrap());
}

// Buffers.

const READS: &str = "POLLMUX_TEST_READS_STDIN";

/// The child program, whose stdin is tested: `again` with this variable set.
fn reads_stdin() {
    let reactor = reactor();
    let input = reactor.fd_with_mode(io::stdin(), Interest::READABLE, Mode::Level).unwrap();
    ready(&reactor, &input);
    let mut line = String::new();
    input.try_io(|stdin| stdin.read_line(&mut line)).unwrap();
    assert_eq!(line, "one\n");
    // The second line is in the buffer, which no poller sees.
    not_ready(&reactor, &input);
    let take_all = || {
        let take_all = |stdin: &io::Stdin| {
            let mut stdin = stdin.lock();
            let all = stdin.fill_buf()?.to_vec();
            stdin.consume(all.len());
            Ok(all)
        };
        input.try_io(take_all).unwrap()
    };
    assert_eq!(take_all(), b"two\n");
    println!("\nthree");
    ready(&reactor, &input);
    assert_eq!(take_all(), b"three\nfour\n");
    not_ready(&reactor, &input);
    drop(input);

    let file = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut input = reactor.fd_with_mode(file, Interest::READABLE, Mode::Level).unwrap();
    println!("\nfive");
    let mut text = Vec::new();
    while text.len() < 8 {
        ready(&reactor, &input);
        let mut buffer = [0; 3];
        let n = input.read(&mut buffer).unwrap();
        text.extend_from_slice(&buffer[..n]);
    }
    assert_eq!(text, b"five\nsix");
    not_ready(&reactor, &input);
    println!("\nend");
    ready(&reactor, &input);
    assert_eq!(input.read(&mut [0]).unwrap(), 0);
    assert!(!input.is_nonblocking().unwrap());
}

#[test]
fn lines_buffered_in_stdin_make_nothing_ready() {
    let _watchdog = watchdog();
    if std::env::var_os(READS).is_some() {
        return reads_stdin();
    }
    let mut command = again(&test_name());
    command.env(READS, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = spawn(&mut command);
    let mut input = child.stdin.take();
    input.as_mut().unwrap().write_all(b"one\ntwo\n").unwrap();
    for line in io::BufReader::new(child.stdout.take().unwrap()).lines() {
        match line.unwrap().as_str() {
            "three" => input.as_mut().unwrap().write_all(b"three\nfour\n").unwrap(),
            "five" => input.as_mut().unwrap().write_all(b"five\nsix").unwrap(),
            "end" => {
                let _alone = no_new_processes();
                input = None;
            }
            _ => {}
        }
    }
    assert!(child.wait().unwrap().success());
}

// Connecting and back-pressure.

/// Returns a socket that has begun to connect, or an immediate error.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

#[test]
fn a_finished_connect_is_writable() {
    let _watchdog = watchdog();
    let reactor = reactor();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = reactor.fd_nonblocking(listener, Interest::READABLE).unwrap();
    let ours = reactor.fd(connect(address).unwrap(), Interest::WRITABLE).unwrap();
    ready(&reactor, &ours);
    assert!(ours.get_ref().take_error().unwrap().is_none());
    assert_eq!(ours.get_ref().peer_addr().unwrap(), address);
    ours.set_interest(Interest::READABLE).unwrap();
    ready(&reactor, &listener);
    let (mut theirs, _) = listener.try_io(|listener| listener.accept()).unwrap();
    fails(ErrorKind::WouldBlock, listener.try_io(|listener| listener.accept()));
    not_ready(&reactor, &ours);
    theirs.write_all(b"x").unwrap();
    ready(&reactor, &ours);
}

#[test]
fn a_refused_connect_reports_its_error() {
    let _watchdog = watchdog();
    let reactor = reactor();
    // The socket is bound, so that no other test has the port, but does not listen.
    let closed = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    closed.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let error = match connect(closed.local_addr().unwrap().as_socket().unwrap()) {
        Err(at_once) => at_once,
        Ok(stream) => {
            let stream = reactor.fd(stream, Interest::WRITABLE).unwrap();
            ready(&reactor, &stream);
            stream.get_ref().take_error().unwrap().expect("the refused socket has no error")
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[test]
fn an_unanswered_connect_is_not_ready() {
    let (sim, reactor) = simulated();
    let busy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    busy.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    busy.listen(0).unwrap();
    let address = busy.local_addr().unwrap().as_socket().unwrap();
    // The backlog has room for one or two connections.
    let begun: Vec<_> = (0..4).map(|_| connect(address).unwrap()).collect();
    let last = reactor.fd(begun.last().unwrap(), Interest::WRITABLE).unwrap();
    let timeout = reactor.after(Duration::from_secs(5));
    select! { reactor;
        recv(last) -> readiness => panic!("{readiness:?}"),
        recv(timeout) -> due => assert_eq!(due, sim.now()),
    }
}

#[test]
fn a_paused_reader_loses_nothing() {
    let (_, reactor) = simulated();
    let (mut client, ours) = pair();
    let mut ours = reactor.fd(ours, Interest::READABLE).unwrap();
    // The worker takes a chunk each second, and its channel has room for two.
    let (work, jobs) = reactor.channel::<Vec<u8>>(2).unwrap();
    let worker = reactor.every(Duration::from_secs(1)).unwrap();
    let (mut sent, mut got) = (Vec::new(), Vec::new());
    let (mut held, mut reports, mut reads, mut full) = (None, 0, 0, false);
    loop {
        select! { reactor;
            recv(ours) -> _ => {
                reports += 1;
                while held.is_none() && ours.interest().is_readable() {
                    let mut chunk = vec![0; 4096];
                    match ours.read(&mut chunk) {
                        Ok(0) => ours.set_interest(Interest::NONE).unwrap(),
                        Ok(n) => {
                            reads += 1;
                            chunk.truncate(n);
                            if let Err(error) = work.try_send(chunk) {
                                held = Some(error.into_inner());
                                ours.set_interest(Interest::NONE).unwrap();
                            }
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            break;
                        }
                    }
                }
            }
            recv(worker) -> _ => {
                let taken = jobs.try_recv();
                let nothing = taken.is_err() && held.is_none();
                got.extend(taken.into_iter().flatten());
                if let Some(chunk) = held.take() {
                    work.try_send(chunk).unwrap();
                    ours.set_interest(Interest::READABLE).unwrap();
                }
                if nothing && full {
                    break;
                }
                // The client fills the sockets once, and then shuts down its writing side.
                while !full {
                    let chunk = [sent.len() as u8 / 3; 1000];
                    match client.write(&chunk) {
                        Ok(n) => sent.extend_from_slice(&chunk[..n]),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            client.shutdown(Shutdown::Write).unwrap();
                            full = true;
                        }
                    }
                }
            }
        }
    }
    assert!(sent.len() > 8_000, "{} bytes", sent.len());
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    // Each resumed read costs a report, and the end of the stream one or two reports.
    assert!(reports <= reads + 4, "{reports} reports of {reads} reads");
    assert_eq!(reactor.stats().spinning, 0);
}

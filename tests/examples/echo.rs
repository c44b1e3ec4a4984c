//! Tests of the example `echo` with polite and with misbehaving clients. Every message comes back,
//! and the server leaves no source behind.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::acceptor::PAUSE;
use crate::load;
use crate::server::{self, Report, Server, wait_until_empty};
use pollmux::{Handle, Remote, channel, reactor::Stats};
use support::{HOUR, alone, set_fd_limit, watchdog};

/// Runs a server while `f` runs. `f` gets the server's address and remote.
fn served(idle: Duration, f: impl FnOnce(SocketAddr, &Remote)) -> Report {
    let (stop, stopped) = channel::bounded(1);
    let (started, is_started) = channel::bounded(1);
    let server = thread::spawn(move || {
        let server = Server::new(([127, 0, 0, 1], 0).into(), idle, support::allocations).unwrap();
        started.send((server.address(), server.remote())).unwrap();
        server.run(stopped).unwrap()
    });
    let (address, remote) = is_started.recv().unwrap();
    f(address, &remote);
    drop(stop);
    server.join().unwrap()
}

#[test]
fn every_message_returns_and_none_allocates() {
    let _watchdog = watchdog();
    let few = served(HOUR, |address, remote| {
        load::run(address, 100, 5, false).unwrap();
        wait_until_empty(remote).unwrap();
    });
    let many = served(HOUR, |address, remote| {
        let outcome = load::run(address, 100, 105, false).unwrap();
        assert_eq!((outcome.messages, outcome.polite), (10_500, 100));
        wait_until_empty(remote).unwrap();
    });
    assert_eq!((few.messages, many.messages), (500, 10_500));
    assert_eq!((many.accepted, many.closed, many.failed, many.idle), (100, 100, 0, 0));
    assert!(
        many.allocations <= few.allocations + 5,
        "{} allocations, {} with few messages",
        many.allocations,
        few.allocations
    );
    assert_eq!(many.stats.live, 0);
    // Each connection costs one registration and one removal, for any number of messages.
    assert_eq!(many.stats.controls, few.stats.controls);
    // At most the first idle timer arms the kernel timer, when the server sleeps.
    assert!(many.stats.arms <= 1, "postponed idle timers armed the kernel: {:?}", many.stats);
}

#[test]
fn drops_half_closes_and_resets_leave_nothing() {
    let _watchdog = watchdog();
    let report = served(HOUR, |address, remote| {
        // Five loads at once, each so small that no client stalls.
        let outcomes = thread::scope(|scope| {
            let load = || load::run(address, 39, 3, true).unwrap();
            [(); 5].map(|()| scope.spawn(load)).map(|load| load.join().unwrap())
        });
        for outcome in outcomes {
            assert_eq!(
                (outcome.dropped, outcome.half_closed, outcome.reset, outcome.stalled),
                (1, 1, 1, 0)
            );
        }
        wait_until_empty(remote).unwrap();
    });
    assert_eq!((report.accepted, report.idle), (195, 0));
    assert_eq!(report.closed + report.failed, 195, "{report:?}");
    assert_eq!(report.stats.live, 0);
}

#[test]
fn stalled_clients_are_closed() {
    let _watchdog = watchdog();
    let report = served(Duration::from_millis(300), |address, remote| {
        // The other clients close at once. With a slow server some of these may seem to stall, too.
        let outcome = load::run(address, 200, 0, true).unwrap();
        assert_eq!((outcome.stalled, outcome.messages), (5, 0));
        wait_until_empty(remote).unwrap();
    });
    assert_eq!(report.accepted, 200);
    assert!(report.idle >= 5, "{report:?}");
    assert_eq!(report.closed + report.failed + report.idle, 200, "{report:?}");
    assert_eq!(report.stats.live, 0);
}

#[test]
fn a_client_must_read_before_sending_more() {
    let _watchdog = watchdog();
    let byte = |i: usize| (i % 251) as u8;
    let report = served(HOUR, |address, _| {
        const TOO_MUCH: usize = 256 << 20; // more than the kernel buffers
        let mut client = TcpStream::connect(address).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let text: Vec<u8> = (0..251 * 256).map(byte).collect();
        let mut sent = 0;
        while let Ok(n) = client.write(&text[sent % 251..]) {
            sent += n;
            assert!(sent < TOO_MUCH, "the server buffers for a client that does not read");
        }
        // The server serves another client meanwhile.
        load::run(address, 1, 1, false).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (mut echo, mut some) = (Vec::new(), [0; 1 << 16]);
        while echo.len() < sent {
            match client.read(&mut some) {
                Ok(n) if n > 0 => echo.extend_from_slice(&some[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                ended => panic!("{ended:?} after {} of {sent} bytes", echo.len()),
            }
        }
        assert!(echo.iter().enumerate().all(|(i, &found)| found == byte(i)));
        assert_eq!(
            client.read(&mut some).unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "the server sent more than the echo"
        );
        client.shutdown(Shutdown::Write).unwrap();
        client.set_read_timeout(None).unwrap();
        assert_eq!(client.read(&mut some).unwrap(), 0);
    });
    assert_eq!((report.accepted, report.idle, report.failed), (2, 0, 0));
    // The server slept while the client was blocked, and while there was no work.
    let Stats { turns, waits, .. } = report.stats;
    assert!(
        turns <= 2 * report.messages + 100,
        "the server spins, with {turns} turns and {waits} waits: {report:?}"
    );
}

#[test]
fn active_clients_stay_connected() {
    let _watchdog = watchdog();
    let speaks = |address, idle: Duration, remote: &Remote| {
        // These clients come one after the other, so the server has one connection at a time.
        for _ in 0..5 {
            load::run(address, 1, 1, false)?;
            wait_until_empty(remote)?;
        }
        let mut client = TcpStream::connect(address)?;
        let start = Instant::now();
        while start.elapsed() < 2 * idle {
            client.write_all(b"x")?;
            client.read_exact(&mut [0])?;
        }
        std::io::Result::Ok(())
    };
    // Wall time: on a busy machine the client may seem silent. Then the test runs again with a
    // longer idle time.
    let idle_times = [300, 3_000, 25_000].map(Duration::from_millis);
    let undisturbed = idle_times.into_iter().find_map(|idle| {
        let mut result = Ok(());
        let report = served(idle, |address, remote| result = speaks(address, idle, remote));
        (result.is_ok() && report.idle == 0).then_some(report)
    });
    let report = undisturbed.expect("an active client is not closed as idle");
    assert_eq!((report.accepted, report.idle, report.failed), (6, 0, 0));
    assert_eq!(report.most_at_once, 1, "{report:?}");
    let Stats { turns, .. } = report.stats;
    assert!(turns <= report.messages + 100, "{turns} turns for {} messages", report.messages);
}

#[test]
#[cfg_attr(all(kqueue, target_os = "linux"), ignore = "a timer of the kqueue library needs an fd")]
fn a_server_without_fds_accepts_again_later() {
    alone!();
    set_fd_limit(64);
    let start = Instant::now();
    let report = served(HOUR, |address, remote| {
        // Two posts make sure that the server has closed the short-lived fds of its start.
        for _ in 0..2 {
            let (sender, has_run) = mpsc::channel();
            remote.post(move |_| sender.send(()).unwrap()).unwrap();
            has_run.recv().unwrap();
        }
        let mut spare: Vec<_> =
            std::iter::from_fn(|| UdpSocket::bind("127.0.0.1:0").ok()).collect();
        spare.pop();
        let mut first = TcpStream::connect(address).unwrap(); // this takes the last fd
        first.write_all(b"x").unwrap();
        first.set_read_timeout(Some(3 * PAUSE)).unwrap();
        assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(spare);
        first.set_read_timeout(None).unwrap();
        first.read_exact(&mut [0]).unwrap();
        load::run(address, 3, 1, false).unwrap(); // later connections work, too
    });
    assert_eq!((report.accepted, report.failed), (4, 0));
    let pauses = start.elapsed().as_millis() / PAUSE.as_millis();
    assert!(u128::from(report.stats.turns) < 100 + 4 * pauses, "spins: {:?}", report.stats);
}

type Turns = mpsc::Sender<(usize, bool)>;

/// Sends one item for each of the server's next turns: the number of its sources, and true if the
/// client has got an answer. Sends the client to `back` when one answer is still unread.
fn watch_turns(
    server: &Remote,
    turns: u32,
    mut client: TcpStream,
    items: Turns,
    back: mpsc::Sender<TcpStream>,
) {
    let again = server.clone();
    let record = move |reactor: &Handle| {
        let answered = client.peek(&mut [0]).is_ok();
        let _ = items.send((reactor.stats().live, answered));
        if turns > 0 {
            if answered {
                client.read_exact(&mut [0]).unwrap();
                client.write_all(b"x").unwrap();
            }
            watch_turns(&again, turns - 1, client, items, back);
        } else {
            back.send(client).unwrap();
        }
    };
    server.post(record).unwrap();
}

#[test]
fn a_flood_of_connections_starves_no_open_one() {
    let _watchdog = watchdog();
    const FLOOD: usize = 100;
    let report = served(HOUR, |address, remote| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap(); // the server has accepted the client
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        remote
            .post(move |_| {
                held.send(()).unwrap();
                let _ = released.recv();
            })
            .unwrap();
        is_held.recv().unwrap();
        // The server is blocked meanwhile. Its first turns find all these connections.
        let flood: Vec<_> = (0..FLOOD).map(|_| TcpStream::connect(address).unwrap()).collect();
        client.write_all(b"x").unwrap();
        client.set_nonblocking(true).unwrap();
        let (items, watched) = mpsc::channel();
        let (back, given_back) = mpsc::channel();
        watch_turns(remote, 50, client, items, back);
        drop(release);
        let turns: Vec<_> = watched.iter().collect();
        // The client reads its last answer, because closing with unread bytes would be a reset.
        let mut client = given_back.recv().unwrap();
        client.set_nonblocking(false).unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        let accepted = turns.windows(2).map(|turn| (turn[1].0 - turn[0].0) / 2);
        let most = accepted.clone().max().unwrap();
        assert!(most <= server::ACCEPTS as usize, "{most} accepted in one turn");
        assert_eq!(accepted.sum::<usize>(), FLOOD);
        // The client sends a byte in one turn, and gets the answer in the turn after.
        let busy = FLOOD / server::ACCEPTS as usize;
        let answers = turns[..busy + 2].iter().filter(|turn| turn.1).count();
        assert!(answers >= busy / 2, "{answers} answers in {busy} turns of accepting: {turns:?}");
        drop(flood);
    });
    assert_eq!((report.accepted, report.failed), (FLOOD as u64 + 1, 0));
}

#[test]
fn a_server_that_is_stopped_closes_its_connections() {
    let _watchdog = watchdog();
    let mut clients = Vec::new();
    let report = served(HOUR, |address, _| {
        clients = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        load::run(address, 1, 1, false).unwrap(); // the server has accepted all others by then
    });
    assert_eq!((report.accepted, report.stats.live), (21, 0));
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

//! The echo server of the example, under polite and under rude clients: every message comes back,
//! and nothing is left behind.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::acceptor::PAUSE;
use crate::load;
use crate::server::{self, Report, Server, wait_until_all_have_gone};
use pollmux::{Handle, Remote, channel, reactor::Stats};
use support::{HOUR, alone, dog, set_fd_limit};

/// Serves while `f` runs, which may ask the server, too.
fn served(idle: Duration, f: impl FnOnce(SocketAddr, &Remote)) -> Report {
    let (stop, stopped) = channel::bounded(1);
    let (told, tell) = channel::bounded(1);
    let server = thread::spawn(move || {
        let server = Server::new(([127, 0, 0, 1], 0).into(), idle, support::allocations).unwrap();
        told.send((server.address(), server.remote())).unwrap();
        server.run(stopped).unwrap()
    });
    let (address, remote) = tell.recv().unwrap();
    f(address, &remote);
    drop(stop);
    server.join().unwrap()
}

/// Longer than any test takes.
#[test]
fn every_message_comes_back_and_none_allocates() {
    let _dog = dog();
    let few = served(HOUR, |address, remote| {
        load::attack(address, 100, 5, false).unwrap();
        wait_until_all_have_gone(remote).unwrap();
    });
    let many = served(HOUR, |address, remote| {
        let outcome = load::attack(address, 100, 105, false).unwrap();
        assert_eq!((outcome.messages, outcome.polite), (10_500, 100));
        wait_until_all_have_gone(remote).unwrap();
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
    // One registration and one removal each, however many messages.
    assert_eq!(many.stats.controls, few.stats.controls);
    // At most the first idle timer arms the kernel's, and that only if the server ever finds
    // nothing to do.
    assert!(many.stats.arms <= 1, "idle timers that are put off cost no syscall: {:?}", many.stats);
}

#[test]
fn clients_that_leave_half_close_and_reset_leave_nothing_behind() {
    let _dog = dog();
    let report = served(HOUR, |address, remote| {
        // As many as have nobody among them who stalls, five times at once.
        let outcomes = thread::scope(|scope| {
            let attack = || load::attack(address, 39, 3, true).unwrap();
            [(); 5].map(|()| scope.spawn(attack)).map(|attack| attack.join().unwrap())
        });
        for outcome in outcomes {
            assert_eq!(
                (outcome.dropped, outcome.half_closed, outcome.reset, outcome.stalled),
                (1, 1, 1, 0)
            );
        }
        wait_until_all_have_gone(remote).unwrap();
    });
    assert_eq!((report.accepted, report.idle), (195, 0));
    assert_eq!(report.closed + report.failed, 195, "{report:?}");
    assert_eq!(report.stats.live, 0);
}

#[test]
fn clients_that_stall_are_closed_and_leave_nothing_behind() {
    let _dog = dog();
    let report = served(Duration::from_millis(300), |address, remote| {
        // The others go at once: where the server is slow some of them may seem to stall, too.
        let outcome = load::attack(address, 200, 0, true).unwrap();
        assert_eq!((outcome.stalled, outcome.messages), (5, 0));
        wait_until_all_have_gone(remote).unwrap();
    });
    assert_eq!(report.accepted, 200);
    assert!(report.idle >= 5, "{report:?}");
    assert_eq!(report.closed + report.failed + report.idle, 200, "{report:?}");
    assert_eq!(report.stats.live, 0);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_until_it_does() {
    let _dog = dog();
    let byte = |i: usize| (i % 251) as u8;
    let report = served(HOUR, |address, _| {
        const MORE: usize = 256 << 20; // than the kernel keeps on the way
        let mut client = TcpStream::connect(address).unwrap();
        client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let text: Vec<u8> = (0..251 * 256).map(byte).collect();
        let mut sent = 0;
        while let Ok(n) = client.write(&text[sent % 251..]) {
            sent += n;
            assert!(sent < MORE, "the server keeps what the client does not take");
        }
        // The others are served meanwhile.
        load::attack(address, 1, 1, false).unwrap();
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
            "there is no more"
        );
        client.shutdown(Shutdown::Write).unwrap();
        client.set_read_timeout(None).unwrap();
        assert_eq!(client.read(&mut some).unwrap(), 0);
    });
    assert_eq!((report.accepted, report.idle, report.failed), (2, 0, 0));
    // While it was blocked, and when there was nothing to do, it slept.
    let Stats { turns, waits, .. } = report.stats;
    assert!(
        turns <= 2 * report.messages + 100,
        "{turns} turns, {waits} waits: it spins; {report:?}"
    );
}

#[test]
fn whoever_speaks_stays_and_those_who_come_one_after_another_are_one_at_once() {
    let _dog = dog();
    let speaks = |address, idle: Duration, remote: &Remote| {
        for _ in 0..5 {
            load::attack(address, 1, 1, false)?;
            wait_until_all_have_gone(remote)?;
        }
        let mut client = TcpStream::connect(address)?;
        let start = Instant::now();
        while start.elapsed() < 2 * idle {
            client.write_all(b"x")?;
            client.read_exact(&mut [0])?;
        }
        std::io::Result::Ok(())
    };
    // Wall time: a machine that keeps one of the two from its core for longer than the server has
    // patience gets a server with more.
    let patience = [300, 3_000, 25_000].map(Duration::from_millis);
    let undisturbed = patience.into_iter().find_map(|idle| {
        let mut result = Ok(());
        let report = served(idle, |address, remote| result = speaks(address, idle, remote));
        (result.is_ok() && report.idle == 0).then_some(report)
    });
    let report = undisturbed.expect("a client that speaks is not taken for idle");
    assert_eq!((report.accepted, report.idle, report.failed), (6, 0, 0));
    assert_eq!(report.most_at_once, 1, "{report:?}");
    let Stats { turns, .. } = report.stats;
    assert!(turns <= report.messages + 100, "{turns} turns for {} messages", report.messages);
}

#[test]
#[cfg_attr(all(kqueue, target_os = "linux"), ignore = "a timer of the library is an fd, too")]
fn a_server_without_fds_accepts_again_when_there_are_some() {
    alone!();
    set_fd_limit(64);
    let start = Instant::now();
    let report = served(HOUR, |address, remote| {
        // Nothing that the server opens for a moment at its start is to be freed later.
        for _ in 0..2 {
            let (say, said) = mpsc::channel();
            remote.post(move |_| say.send(()).unwrap()).unwrap();
            said.recv().unwrap();
        }
        let mut spare: Vec<_> =
            std::iter::from_fn(|| UdpSocket::bind("127.0.0.1:0").ok()).collect();
        spare.pop();
        let mut first = TcpStream::connect(address).unwrap(); // the last fd that there was
        first.write_all(b"x").unwrap();
        first.set_read_timeout(Some(3 * PAUSE)).unwrap();
        assert_eq!(first.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(spare);
        first.set_read_timeout(None).unwrap();
        first.read_exact(&mut [0]).unwrap();
        load::attack(address, 3, 1, false).unwrap(); // and from now on as ever
    });
    assert_eq!((report.accepted, report.failed), (4, 0));
    let pauses = start.elapsed().as_millis() / PAUSE.as_millis();
    assert!(u128::from(report.stats.turns) < 100 + 4 * pauses, "it spins: {:?}", report.stats);
}

type Turns = mpsc::Sender<(usize, bool)>;

/// Tells, in each of the server's next turns, how many sources it has and whether a client has got
/// an answer. Gives the client back when one answer is still to be read.
fn watch_turns(
    server: &Remote,
    turns: u32,
    mut client: TcpStream,
    tell: Turns,
    back: mpsc::Sender<TcpStream>,
) {
    let again = server.clone();
    let look = move |reactor: &Handle| {
        let answered = client.peek(&mut [0]).is_ok();
        let _ = tell.send((reactor.stats().live, answered));
        if turns > 0 {
            if answered {
                client.read_exact(&mut [0]).unwrap();
                client.write_all(b"x").unwrap();
            }
            watch_turns(&again, turns - 1, client, tell, back);
        } else {
            back.send(client).unwrap();
        }
    };
    server.post(look).unwrap();
}

#[test]
fn a_flood_of_connections_starves_no_open_one() {
    let _dog = dog();
    const FLOOD: usize = 100;
    let report = served(HOUR, |address, remote| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap(); // it is accepted
        let (held, is_held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        remote
            .post(move |_| {
                held.send(()).unwrap();
                let _ = released.recv();
            })
            .unwrap();
        is_held.recv().unwrap();
        // The server stands still meanwhile. Its first turns find all of this.
        let flood: Vec<_> = (0..FLOOD).map(|_| TcpStream::connect(address).unwrap()).collect();
        client.write_all(b"x").unwrap();
        client.set_nonblocking(true).unwrap();
        let (tell, told) = mpsc::channel();
        let (back, given_back) = mpsc::channel();
        watch_turns(remote, 50, client, tell, back);
        drop(release);
        let turns: Vec<_> = told.iter().collect();
        // To close a connection with something unread would be a failure to the server.
        let mut client = given_back.recv().unwrap();
        client.set_nonblocking(false).unwrap();
        client.read_exact(&mut [0]).unwrap();
        drop(client);
        let accepted = turns.windows(2).map(|turn| (turn[1].0 - turn[0].0) / 2);
        let most = accepted.clone().max().unwrap();
        assert!(most <= server::ACCEPTS as usize, "{most} accepted in one turn");
        assert_eq!(accepted.sum::<usize>(), FLOOD);
        // A turn answers, and the next one is asked by what the client says then.
        let busy = FLOOD / server::ACCEPTS as usize;
        let answers = turns[..busy + 2].iter().filter(|turn| turn.1).count();
        assert!(answers >= busy / 2, "{answers} answers in {busy} turns of accepting: {turns:?}");
        drop(flood);
    });
    assert_eq!((report.accepted, report.failed), (FLOOD as u64 + 1, 0));
}

#[test]
fn a_server_that_is_stopped_closes_its_connections() {
    let _dog = dog();
    let mut clients = Vec::new();
    let report = served(HOUR, |address, _| {
        clients = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        load::attack(address, 1, 1, false).unwrap(); // the others have been accepted by then
    });
    assert_eq!((report.accepted, report.stats.live), (21, 0));
    for mut client in clients {
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

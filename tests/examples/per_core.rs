//! Tests of the example `per_core`. A connection goes to the loop with the fewest connections.
//! Every line is answered, and a stop lets clients finish.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::server_per_core::{Pool, Report, SLACK, Settings, ask};
use support::{HOUR, watchdog};

fn start(loops: usize, listeners: usize, grace: Duration) -> Pool {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Pool::start(Settings { address, loops, listeners, grace }).unwrap()
}

/// Connects a client, and waits for an answer. Returns the client and the index of its loop.
fn connect(pool: &Pool) -> (TcpStream, usize) {
    let stream = TcpStream::connect(pool.address).unwrap();
    let index = ask(&stream, 2).unwrap();
    (stream, index)
}

fn sum(reports: &[Report], count: impl Fn(&Report) -> u64) -> u64 {
    reports.iter().map(count).sum()
}

#[test]
fn a_busy_loop_hands_connections_over() {
    let _watchdog = watchdog();
    let pool = start(3, 1, HOUR);
    // The clients connect one after the other, so the accepting loop knows all counts.
    let clients: Vec<_> = (0..60).map(|_| connect(&pool)).collect();
    let served = [0, 1, 2].map(|index| clients.iter().filter(|(_, by)| *by == index).count());
    let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
    assert!(most - least <= SLACK + 1, "{served:?}");
    // A client stays in its loop.
    for (stream, index) in &clients {
        assert_eq!(ask(stream, 1).unwrap(), *index);
    }
    pool.stop();
    drop(clients);
    let reports = pool.join().unwrap();
    assert_eq!((reports[0].accepted, sum(&reports, |it| it.accepted)), (60, 60));
    assert_eq!(reports[0].given, (served[1] + served[2]) as u64);
    assert_eq!((reports[1].taken, reports[2].taken), (served[1] as u64, served[2] as u64));
    assert_eq!(sum(&reports, |it| it.lines), 60 * 3);
}

#[test]
fn every_loop_listens_at_one_address() {
    let _watchdog = watchdog();
    let pool = start(4, 4, HOUR);
    let clients = || (0..50).map(|_| connect(&pool)).collect::<Vec<_>>();
    let clients = std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(clients));
        threads.map(|thread| thread.join().unwrap())
    });
    pool.stop();
    drop(clients);
    let reports = pool.join().unwrap();
    assert_eq!((sum(&reports, |it| it.accepted), sum(&reports, |it| it.lines)), (200, 400));
    assert_eq!(sum(&reports, |it| it.given), sum(&reports, |it| it.taken));
}

#[test]
fn a_stop_lets_clients_finish() {
    let _watchdog = watchdog();
    let pool = start(2, 2, HOUR);
    let (stream, index) = connect(&pool);
    pool.stop();
    // Wait until the listeners are closed.
    while TcpStream::connect(pool.address).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(ask(&stream, 100).unwrap(), index);
    drop(stream);
    assert_eq!(sum(&pool.join().unwrap(), |it| it.lines), 102);
}

#[test]
fn clients_that_stay_are_closed_after_the_grace() {
    let _watchdog = watchdog();
    let pool = start(2, 2, Duration::from_millis(10));
    let (mut stream, _) = connect(&pool);
    pool.stop();
    pool.join().unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
}

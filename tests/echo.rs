//! The echo server of the example, under polite and under rude clients: every message comes back, and nothing is left behind.

#[path = "../examples/common/mod.rs"]
mod common;
#[path = "../examples/echo/load.rs"]
mod load;
#[path = "../examples/echo/server.rs"]
#[allow(dead_code)] // the example ends by signals, too
mod server;
#[path = "common/watch.rs"]
mod watch;

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use pollmux::channel;
use server::{Report, Server};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

/// Serves while `f` runs.
fn served(idle: Duration, f: impl FnOnce(SocketAddr)) -> Report {
    let (stop, stopped) = channel::bounded(1);
    let (told, tell) = channel::bounded(1);
    let server = thread::spawn(move || {
        let server = Server::new(([127, 0, 0, 1], 0).into(), idle, common::allocations).unwrap();
        told.send(server.address()).unwrap();
        server.run(stopped).unwrap()
    });
    f(tell.recv().unwrap());
    drop(stop);
    server.join().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn every_message_comes_back_and_none_allocates() {
    let _dog = watch::dog();
    let few = served(MINUTE, |address| {
        load::attack(address, 100, 5, false).unwrap();
    });
    let many = served(MINUTE, |address| {
        let outcome = load::attack(address, 100, 105, false).unwrap();
        assert_eq!((outcome.messages, outcome.polite), (10_500, 100));
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
    // At most the first idle timer arms the kernel's, and that only if the server ever finds nothing to do.
    assert!(many.stats.arms <= 1, "idle timers that are put off cost no syscall: {:?}", many.stats);
}

#[test]
fn clients_that_leave_half_close_reset_and_stall_leave_nothing_behind() {
    let _dog = watch::dog();
    let report = served(Duration::from_millis(300), |address| {
        let outcome = load::attack(address, 200, 3, true).unwrap();
        assert_eq!((outcome.dropped, outcome.half_closed, outcome.reset, outcome.stalled), (5, 5, 5, 5));
    });
    assert_eq!((report.accepted, report.idle), (200, 5));
    assert_eq!(report.closed + report.failed + report.idle, 200, "{report:?}");
    assert_eq!(report.stats.live, 0);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_until_it_does() {
    use std::io::{Read, Write};
    let _dog = watch::dog();
    let report = served(MINUTE, |address| {
        let mut reading = TcpStream::connect(address).unwrap();
        let mut writing = reading.try_clone().unwrap();
        const LENGTH: usize = 16 << 20; // more than the kernel keeps on the way
        let writer = thread::spawn(move || {
            let text: Vec<u8> = (0..LENGTH).map(|i| (i % 251) as u8).collect();
            writing.write_all(&text).unwrap();
            writing.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut echo = Vec::new();
        reading.read_to_end(&mut echo).unwrap();
        writer.join().unwrap();
        assert!(echo.len() == LENGTH && echo.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
    });
    assert_eq!((report.closed, report.failed), (1, 0));
}

#[test]
fn a_server_that_is_stopped_closes_its_connections() {
    let _dog = watch::dog();
    let mut clients = Vec::new();
    let report = served(MINUTE, |address| {
        clients = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        load::attack(address, 1, 1, false).unwrap(); // the others have been accepted by then
    });
    assert_eq!((report.accepted, report.stats.live), (21, 0));
    for mut client in clients {
        assert!(matches!(std::io::Read::read(&mut client, &mut [0; 1]), Ok(0) | Err(_)));
    }
}

//! Tests of the example `connect`: both ways to connect, and a refused connection.

#[path = "../connect.rs"]
#[allow(dead_code)]
mod connect;

use support::watchdog;

#[test]
fn both_ways_connect_and_report_a_refusal() {
    let _watchdog = watchdog();
    let (received, refused) = connect::run().unwrap();
    assert_eq!(received, ["hello", "hello"]);
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

//! The example `connect`: both ways to connect, and a refusal.

#[path = "../connect.rs"]
#[allow(dead_code)]
mod connect;

use support::dog;

#[test]
fn both_ways_connect_and_a_refusal_is_told() {
    let _dog = dog();
    let (heard, refused) = connect::run().unwrap();
    assert_eq!(heard, ["hello", "hello"]);
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

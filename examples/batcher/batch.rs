//! Collects items into batches. A batch goes out when it is full, when it is old, or at the end.
//!
//! This file uses no threads and no real time, so its tests run in virtual time
//! (`tests/examples/batcher.rs`).

use std::io;
use std::time::Duration;

use pollmux::{Handle, Inbox, select};

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The number of items that make a batch full.
    pub size: usize,
    /// The age of the oldest item that makes a batch old. The age counts from the time at which the
    /// loop receives the item.
    pub age: Duration,
}

/// The reason why a batch goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Full,
    Old,
    /// All senders are gone.
    Last,
}

/// Gives the items to `flush` in batches, in order, until all senders are gone.
///
/// `flush` runs on the loop's thread. The loop receives nothing meanwhile: the channel fills, and
/// its senders wait.
pub fn run<T>(
    reactor: &Handle,
    items: &Inbox<T>,
    limits: Limits,
    mut flush: impl FnMut(Vec<T>, Reason),
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(limits.size);
    let age = reactor.timer(); // armed while the batch has items
    loop {
        let reason = select! { reactor;
            biased; // an old batch goes out even while items keep coming
            recv(age) -> _ => Reason::Old,
            recv(items) -> item => match item {
                Ok(item) => {
                    if batch.is_empty() {
                        age.reset(limits.age);
                    }
                    batch.push(item);
                    if batch.len() < limits.size {
                        continue;
                    }
                    age.stop(); // an empty batch must not wake the loop
                    Reason::Full
                }
                Err(_) => Reason::Last,
            },
            error -> error => return Err(error),
        };
        if !batch.is_empty() {
            flush(std::mem::replace(&mut batch, Vec::with_capacity(limits.size)), reason);
        }
        if reason == Reason::Last {
            return Ok(());
        }
    }
}

//! Collects items from several threads into batches. A batch goes out when it is full, when its
//! oldest item is old, and at the end.
//!
//! `cargo run --release --example batcher -- --size 100 --age 20ms`
//!
//! Each line of the output is a batch. The last line has the totals. The loop is in `batch.rs`.

mod batch;
#[path = "../common/duration.rs"]
mod duration;

use std::io;
use std::thread;
use std::time::Duration;

use batch::{Limits, Reason};
use clap::{Arg, Command, value_parser};
use pollmux::Reactor;

struct Options {
    producers: u64,
    items: u64,
    limits: Limits,
}

impl Options {
    fn parse() -> Options {
        let number = || value_parser!(u64).range(1..=1_000_000);
        let producers = Arg::new("producers").long("producers").value_parser(number());
        let items = Arg::new("items").long("items").value_parser(number());
        let size = Arg::new("size").long("size").value_parser(number());
        let age = Arg::new("age").long("age").value_parser(duration::duration);
        let about = "Collects items into batches by size and by age";
        let found = Command::new("batcher").about(about).args([
            producers.default_value("3").help("Threads that make items"),
            items.default_value("500").help("Items of each thread"),
            size.default_value("100").help("Items that make a batch full"),
            age.default_value("20ms").help("Age of the oldest item that makes a batch old"),
        ]);
        let mut found = found.get_matches();
        let size: u64 = found.remove_one("size").unwrap();
        let age = found.remove_one("age").unwrap();
        Options {
            producers: found.remove_one("producers").unwrap(),
            items: found.remove_one("items").unwrap(),
            limits: Limits { size: size as usize, age },
        }
    }
}

fn main() -> io::Result<()> {
    let Options { producers, items, limits } = Options::parse();
    let reactor = Reactor::new()?;
    // A producer waits while 1,000 items are in the channel, so memory is bounded.
    let (sender, inbox) = reactor.channel(1_000)?;
    for producer in 0..producers {
        let sender = sender.clone();
        thread::spawn(move || {
            for item in 0..items {
                if item % 150 == 149 {
                    thread::sleep(Duration::from_millis(50)); // some batches grow old
                }
                if sender.send((producer, item)).is_err() {
                    return; // the loop is gone
                }
            }
        });
    }
    drop(sender); // the inbox ends when the producers drop their senders

    let (mut total, mut batches) = (0, 0);
    batch::run(&reactor, &inbox, limits, |batch, reason| {
        total += batch.len();
        batches += 1;
        let reason = match reason {
            Reason::Full => "full",
            Reason::Old => "old",
            Reason::Last => "last",
        };
        println!("{:>6} items, {reason}", batch.len());
    })?;
    println!("{total} items in {batches} batches");
    Ok(())
}

//! Tests of the example `batcher`: its loop in virtual time, and the program.

use std::time::Duration;

use crate::batch::{self, Limits, Reason};
use crate::heartbeat::{run, text};
use pollmux::{CallbackContext, Time};
use support::{at, ms, simulated};

/// A batch: the time at which the batch went out, its items, and the reason.
type Out = (Time, Vec<u32>, Reason);

/// Runs the loop in virtual time, and returns the batches. `script` has the times, in ms, at which
/// items are sent. The senders are gone after the last item.
fn batches(size: usize, age: Duration, script: &[(u64, &[u32])]) -> Vec<Out> {
    let (sim, reactor) = simulated();
    let (sender, inbox) = reactor.channel(1_000).unwrap();
    for &(when, items) in script {
        let (sender, items) = (sender.clone(), items.to_vec());
        // The callback holds a sender until it has run.
        let send = move |_: &CallbackContext| {
            items.iter().for_each(|&item| sender.try_send(item).unwrap())
        };
        reactor.call_at(at(when), send).detach();
    }
    drop(sender);
    let mut out = Vec::new();
    let flush = |batch, reason| out.push((sim.now(), batch, reason));
    batch::run(&reactor, &inbox, Limits { size, age }, flush).unwrap();
    out
}

#[test]
fn a_full_batch_goes_out_at_once() {
    let out = batches(3, ms(50), &[(10, &[1, 2]), (20, &[3, 4, 5, 6, 7]), (30, &[])]);
    let (second, last) = (vec![4, 5, 6], vec![7]);
    let expected = [
        (at(20), vec![1, 2, 3], Reason::Full),
        (at(20), second, Reason::Full),
        (at(30), last, Reason::Last),
    ];
    assert_eq!(out, expected);
}

#[test]
fn the_oldest_item_decides_the_age() {
    // Later items do not postpone the batch, and the next batch has an age of its own.
    let out = batches(9, ms(50), &[(10, &[1]), (30, &[2]), (59, &[3]), (80, &[4]), (1_000, &[])]);
    let expected = [(at(60), vec![1, 2, 3], Reason::Old), (at(130), vec![4], Reason::Old)];
    assert_eq!(out, expected);
}

#[test]
fn a_full_batch_stops_the_age_timer() {
    // The age of the first batch would end at 60 ms.
    let out = batches(2, ms(50), &[(10, &[1, 2]), (40, &[3]), (1_000, &[])]);
    let expected = [(at(10), vec![1, 2], Reason::Full), (at(90), vec![3], Reason::Old)];
    assert_eq!(out, expected);
}

#[test]
fn old_batches_go_out_before_waiting_items() {
    let (sim, reactor) = simulated();
    let (sender, inbox) = reactor.channel(100).unwrap();
    (0..100).for_each(|item| sender.try_send(item).unwrap());
    drop(sender);
    let mut sizes = Vec::new();
    batch::run(&reactor, &inbox, Limits { size: 10, age: ms(0) }, |batch, reason| {
        sizes.push((batch.len(), reason));
        sim.advance(ms(1));
    })
    .unwrap();
    // With an age of zero each item is old on arrival, so each batch has one item.
    assert_eq!(sizes, [(1, Reason::Old); 100]);
}

#[test]
fn a_day_of_items_stays_in_order() {
    let minutes: Vec<[u32; 1]> = (0..24 * 60).map(|minute| [minute]).collect();
    let script: Vec<_> = (0..).map(|n| n * 60_000).zip(minutes.iter().map(|m| &m[..])).collect();
    let out = batches(100, ms(600_000), &script);
    // A batch spans ten minutes, so it has ten or eleven items. The last batch has the rest.
    assert!(out.iter().rev().skip(1).all(|(_, batch, reason)| {
        (batch.len(), *reason) == (10, Reason::Old) || (batch.len(), *reason) == (11, Reason::Old)
    }));
    let items: Vec<u32> = out.into_iter().flat_map(|(_, batch, _)| batch).collect();
    assert_eq!(items, (0..24 * 60).collect::<Vec<_>>());
}

#[test]
fn the_program_writes_every_item_once() {
    let output = run("batcher", &["--producers", "2", "--items", "200", "--size", "30"]);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}");
    let (batches, total) = printed.trim_end().rsplit_once('\n').expect("several lines");
    let mut sum = 0;
    for line in batches.lines() {
        let (size, reason) = line.trim_start().split_once(" items, ").expect("a batch");
        let size: usize = size.parse().expect("a number");
        let fits = if reason == "full" { size == 30 } else { (1..30).contains(&size) };
        assert!(fits && ["full", "old", "last"].contains(&reason), "{line}");
        sum += size;
    }
    assert_eq!(total, format!("400 items in {} batches", batches.lines().count()));
    assert_eq!(sum, 400);
}

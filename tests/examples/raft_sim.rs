//! Tests of the example `raft` in a `SimWorld`: histories with losses, delays, reordering,
//! partitions, crashes and restarts. No history has two leaders in one term.
//!
//! A seed decides a history. `cargo test --release --test examples raft_sim -- --nocapture` prints
//! the ratio of simulated time to real time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::cluster::{self, history};
use pollmux::{SimWorld, Time};
use support::rounds;

/// Returns the number of seeds that a test tries.
fn seeds() -> u64 {
    rounds(250)
}

#[test]
fn no_history_has_two_leaders_in_one_term() {
    let start = Instant::now();
    let (simulated, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let (terms, lost, handovers) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        // Worlds are independent, so two threads can run histories.
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds() {
                        return;
                    }
                    let history = history(&mut SimWorld::new(seed), seed, false)
                        .unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
                    simulated.fetch_add(
                        (history.end - Time::ZERO).as_millis() as u64,
                        Ordering::Relaxed,
                    );
                    terms.fetch_add(history.terms as u64, Ordering::Relaxed);
                    lost.fetch_add(history.stats.links.lost, Ordering::Relaxed);
                    handovers.fetch_add(history.stats.handovers, Ordering::Relaxed);
                }
            });
        }
    });
    let (simulated, real) = (simulated.into_inner() as f64 / 1e3, start.elapsed().as_secs_f64());
    println!(
        "{} histories: {simulated:.0} s simulated in {real:.1} s, {:.0} times as fast; \
         {} leaders, {} messages lost, {} handovers",
        seeds(),
        simulated / real,
        terms.into_inner(),
        lost.into_inner(),
        handovers.into_inner(),
    );
}

#[test]
fn a_seed_decides_the_history() {
    let run = |seed| history(&mut SimWorld::new(seed), seed, false).unwrap();
    for seed in 0..20 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        assert_ne!(first.trace, run(seed + 1_000).trace, "seed {seed}");
    }
}

#[test]
fn a_search_finds_a_vote_lost_by_crash() {
    let found = SimWorld::search(0..10_000, |world| {
        let seed = world.seed();
        cluster::history(world, seed, true).map(drop)
    })
    .unwrap_err();
    assert!(found.text.contains(" lead in term "), "{found}");
    assert!(!found.unsteady);
    assert!(found.to_string().contains(&format!("seed {} fails", found.seed)));
    let (choices, shorter) = found.shorter.as_ref().unwrap();
    assert!(*choices < found.choices && !shorter.is_empty(), "{found}");
    let history = found.history.to_string();
    for part in ["sent       node", "delivered  node", "is killed", "runs", "partition"] {
        assert!(history.contains(part), "no {part:?} in {history}");
    }
    // The seed fails again with the bug, and passes without the bug.
    let again = cluster::history(&mut SimWorld::new(found.seed), found.seed, true);
    assert_eq!(again.unwrap_err(), found.text);
    cluster::history(&mut SimWorld::new(found.seed), found.seed, false).unwrap();
}

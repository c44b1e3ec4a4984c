//! The nodes of the example `raft` in a `SimWorld`: histories with losses, delays, overtaking
//! messages, partitions, crashes and restarts, in none of which a term has two leaders.
//!
//! A history is its seed. `cargo test --release --test examples raft_sim -- --nocapture` prints how
//! much faster than the clock they pass.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use crate::cluster::{self, history};
use pollmux::{SimWorld, Time};
use support::rounds;

/// Returns the number of seeds that are tried.
fn seeds() -> u64 {
    rounds(250)
}

#[test]
fn histories_have_no_term_with_two_leaders_and_a_leader_after_healing() {
    let start = Instant::now();
    let (simulated, next) = (AtomicU64::new(0), AtomicU64::new(0));
    let (terms, lost, handovers) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        // Worlds know nothing of each other.
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
fn the_same_seed_is_the_same_history_and_another_one_is_another() {
    let of = |seed| history(&mut SimWorld::new(seed), seed, false).unwrap();
    for seed in 0..20 {
        let first = of(seed);
        assert_eq!(first, of(seed), "seed {seed}");
        assert_ne!(first.trace, of(seed + 1_000).trace, "seed {seed}");
    }
}

#[test]
fn a_search_finds_a_vote_that_a_crash_forgets() {
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
    // The seed does it again, and not without the bug.
    let again = cluster::history(&mut SimWorld::new(found.seed), found.seed, true);
    assert_eq!(again.unwrap_err(), found.text);
    cluster::history(&mut SimWorld::new(found.seed), found.seed, false).unwrap();
}

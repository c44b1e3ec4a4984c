//! The jobs of `worker_pool.rs`: each is done once, and none waits for a busy worker.

#[path = "../worker_pool.rs"]
#[allow(dead_code)]
mod worker_pool;

use support::dog;

#[test]
fn a_long_job_holds_up_no_other() {
    let _dog = dog();
    for workers in [2, 3, 8] {
        // The long job ends when all the others are done.
        let (mut results, counts) = worker_pool::run(workers, 1_000).unwrap();
        assert_eq!(results.pop(), Some((0, 0)));
        results.sort_unstable();
        assert!(results.into_iter().eq((1..1_000).map(|n| (n, n * n))));
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (workers, 1_000));
        assert!(counts.contains(&1), "the worker with the long job did others: {counts:?}");
    }
}

//! Tests of the example `worker_pool`: each job is done once, and no job waits for a busy worker.

#[path = "../worker_pool.rs"]
#[allow(dead_code)]
mod worker_pool;

use support::watchdog;

#[test]
fn a_long_job_delays_no_other_job() {
    let _watchdog = watchdog();
    for workers in [2, 3, 8] {
        // The long job ends when all other jobs are done.
        let (mut results, counts) = worker_pool::run(workers, 1_000).unwrap();
        assert_eq!(results.pop(), Some((0, 0)));
        results.sort_unstable();
        assert!(results.into_iter().eq((1..1_000).map(|n| (n, n * n))));
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (workers, 1_000));
        assert!(counts.contains(&1), "the worker of the long job did other jobs: {counts:?}");
    }
}

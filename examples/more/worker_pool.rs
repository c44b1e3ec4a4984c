//! A pool of workers that share their jobs: one queue with many receivers, and a loop for each
//! worker.
//!
//! A channel of this crate has one receiver, so the queue is crossbeam's. flume's or a list behind
//! a mutex would do as well. Each worker has a bell in its loop. Whoever sends a job rings all
//! bells afterwards: a loop that sleeps wakes up, and a loop that is at work hears the bell when
//! its job is done. The first one takes the job, and the others find nothing. So no job waits for a
//! worker that has a long one, and each worker has timers and other sources beside the jobs.
//!
//! A bell that has been rung, or whose loop is awake, costs a send no syscall. One that sleeps
//! costs one.
//!
//! `cargo run --release -p pollmux-examples --example worker_pool`

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::TryRecvError;
use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Notifier, Reactor, select};

/// The sending end of the queue, for any thread. The workers end when all of these are gone.
#[derive(Clone)]
struct Jobs<T> {
    // In this order: the bells ring when the sender is gone.
    queue: crossbeam_channel::Sender<T>,
    bells: Bells,
}

#[derive(Clone)]
struct Bells(Vec<Notifier>);

impl Bells {
    fn ring(&self) {
        self.0.iter().for_each(Notifier::notify);
    }
}

impl Drop for Bells {
    fn drop(&mut self) {
        self.ring();
    }
}

impl<T> Jobs<T> {
    fn send(&self, job: T) -> Result<(), crossbeam_channel::SendError<T>> {
        let sent = self.queue.send(job);
        self.bells.ring();
        sent
    }
}

enum Job {
    Square(u64),
    /// Takes as long as all the others together: until the other end is dropped.
    Long(Receiver<()>),
}

/// The number of a job, and its result.
type Done = (u64, u64);

/// Works until there are no more jobs. Returns the number of jobs done.
fn work(
    queue: crossbeam_channel::Receiver<(u64, Job)>,
    bells: Sender<Notifier>,
    done: Sender<Done>,
) -> io::Result<u64> {
    let reactor = Reactor::new()?;
    let (bell, notified) = reactor.notifier();
    bells.send(bell).expect("the pool waits for all bells");
    let jobs = notified.receiving(|| match queue.try_recv() {
        Err(TryRecvError::Empty) => None, // another worker has taken it
        job => Some(job.ok()),            // `None` at the end
    });
    let idle = reactor.every(Duration::from_secs(10))?;
    let mut count = 0;
    loop {
        select! { reactor;
            recv(jobs) -> job => match job {
                Some((number, job)) => {
                    let result = match job {
                        Job::Square(n) => n * n,
                        Job::Long(others) => others.recv().map_or(0, |()| 1),
                    };
                    count += 1;
                    idle.restart();
                    if done.send((number, result)).is_err() {
                        return Ok(count); // nobody wants results any more
                    }
                }
                None => return Ok(count),
            },
            recv(idle) -> _ => println!("{:?} has had nothing to do", thread::current().id()),
        }
    }
}

/// Has `workers` do `count` jobs, the first of which is long. Returns the results in the order in
/// which they came, and the number of jobs that each worker did.
pub fn run(workers: usize, count: u64) -> io::Result<(Vec<Done>, Vec<u64>)> {
    assert!(workers > 1 && count > 0, "one worker at least has the short jobs");
    let reactor = Reactor::new()?;
    let (done, results) = reactor.channel(64)?;
    let (queue, shared) = crossbeam_channel::unbounded();
    let (ring, bells) = channel::bounded(workers);
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (shared, ring, done) = (shared.clone(), ring.clone(), done.clone());
            thread::spawn(move || work(shared, ring, done))
        })
        .collect();
    drop((ring, done));
    let jobs = Jobs { queue, bells: Bells(bells.iter().take(workers).collect()) };

    // The queue is unbounded. A window bounds it: a result lets the next job go.
    let (last, long) = channel::bounded(1);
    let mut last = Some(last);
    let mut long = Some(long);
    let mut next = 0..count;
    let job = |number: u64| (number, long.take().map_or(Job::Square(number), Job::Long));
    let mut more = next.by_ref().map(job);
    let mut jobs = Some(jobs);
    let mut got = Vec::new();
    let mut window = 2 * workers;
    while (got.len() as u64) < count {
        if let Some(pool) = &jobs {
            let batch: Vec<_> = more.by_ref().take(std::mem::take(&mut window)).collect();
            let sent = batch.into_iter().all(|job| pool.send(job).is_ok());
            assert!(sent, "all workers have ended");
        }
        if got.len() as u64 == count - 1 {
            last = None; // the long job is the only one left
            jobs = None; // and there are no more
        }
        select! { reactor;
            recv(results) -> result => match result {
                Ok(result) => {
                    got.push(result);
                    window += 1;
                }
                Err(_) => return Err(io::Error::other("all workers have ended")),
            },
        }
    }
    drop((last, jobs));
    let join = |thread: thread::JoinHandle<_>| thread.join().expect("no worker panics");
    let counts = threads.into_iter().map(join).collect::<io::Result<_>>()?;
    Ok((got, counts))
}

fn main() -> io::Result<()> {
    let (results, counts) = run(4, 10_000)?;
    println!("{} results; the long job was number {}", results.len(), results.len());
    for (worker, count) in counts.iter().enumerate() {
        println!("worker {worker} did {count} jobs");
    }
    Ok(())
}

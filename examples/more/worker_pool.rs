//! A pool of workers with one shared queue. Each worker has a thread and a loop.
//!
//! A channel of this crate has one receiver, so the queue is a channel of crossbeam. A channel of
//! flume or a list behind a mutex works as well. Each worker has a `Notifier` in its loop. The
//! sender of a job notifies all workers. A sleeping loop wakes up, and a busy loop sees the
//! notification after its job. The first worker takes the job, and the other workers find an empty
//! queue. So no job waits for a worker with a long job. Each worker can have timers and other
//! sources.
//!
//! Notifying a sleeping loop costs one syscall. Notifying any other loop costs no syscall.
//!
//! `cargo run --release -p pollmux-examples --example worker_pool`

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::TryRecvError;
use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Notifier, Reactor, select};

/// The sending end of the queue, for any thread. The workers end when all clones are gone.
#[derive(Clone)]
struct Jobs<T> {
    // The order matters: `notifiers` is dropped after the sender, so the workers see the end.
    queue: crossbeam_channel::Sender<T>,
    notifiers: Notifiers,
}

#[derive(Clone)]
struct Notifiers(Vec<Notifier>);

impl Notifiers {
    fn notify_all(&self) {
        self.0.iter().for_each(Notifier::notify);
    }
}

impl Drop for Notifiers {
    fn drop(&mut self) {
        self.notify_all();
    }
}

impl<T> Jobs<T> {
    fn send(&self, job: T) -> Result<(), crossbeam_channel::SendError<T>> {
        let sent = self.queue.send(job);
        self.notifiers.notify_all();
        sent
    }
}

enum Job {
    Square(u64),
    /// Ends when all other jobs are done and the sender is dropped.
    Long(Receiver<()>),
}

/// The number of a job, and its result.
type Done = (u64, u64);

/// Works until there are no more jobs. Returns the number of jobs done.
fn work(
    queue: crossbeam_channel::Receiver<(u64, Job)>,
    notifiers: Sender<Notifier>,
    done: Sender<Done>,
) -> io::Result<u64> {
    let reactor = Reactor::new()?;
    let (notifier, notified) = reactor.notifier();
    notifiers.send(notifier).expect("the pool waits for all notifiers");
    let jobs = notified.receiving(|| match queue.try_recv() {
        Err(TryRecvError::Empty) => None, // another worker has taken the job
        job => Some(job.ok()),            // `None` at the end of the queue
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
                        return Ok(count); // the receiver of results is gone
                    }
                }
                None => return Ok(count),
            },
            recv(idle) -> _ => println!("{:?} is idle", thread::current().id()),
        }
    }
}

/// Runs `count` jobs on `workers` workers. The first job is long. Returns the results in the order
/// of their arrival, and the number of jobs of each worker.
pub fn run(workers: usize, count: u64) -> io::Result<(Vec<Done>, Vec<u64>)> {
    assert!(workers > 1 && count > 0, "the long job needs a worker of its own");
    let reactor = Reactor::new()?;
    let (done, results) = reactor.channel(64)?;
    let (queue, shared) = crossbeam_channel::unbounded();
    let (sender, notifiers) = channel::bounded(workers);
    let threads: Vec<_> = (0..workers)
        .map(|_| {
            let (shared, sender, done) = (shared.clone(), sender.clone(), done.clone());
            thread::spawn(move || work(shared, sender, done))
        })
        .collect();
    drop((sender, done));
    let jobs = Jobs { queue, notifiers: Notifiers(notifiers.iter().take(workers).collect()) };

    // A window bounds the unbounded queue: each result allows another job.
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
            last = None; // ends the long job, the only remaining job
            jobs = None; // ends the queue
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

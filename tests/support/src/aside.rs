//! Threads beside a test that end before the test does.

use std::thread::{self, JoinHandle, panicking};
use std::time::Duration;

/// Joins its thread when it is dropped, and panics if the thread has panicked.
#[derive(Debug)]
pub struct Aside(Option<JoinHandle<()>>);

/// Runs `work` on another thread until the guard is dropped.
pub fn aside(work: impl FnOnce() + Send + 'static) -> Aside {
    begin(Box::new(work))
}

/// Runs `work` on another thread after `delay`: most likely the test is blocked by then.
pub fn later(delay: Duration, work: impl FnOnce() + Send + 'static) -> Aside {
    begin(Box::new(move || {
        thread::sleep(delay);
        work();
    }))
}

fn begin(work: Box<dyn FnOnce() + Send>) -> Aside {
    Aside(Some(thread::spawn(work)))
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A failed test does not join, because the thread may wait for the test.
        if !panicking() {
            self.0.take().unwrap().join().unwrap();
        }
    }
}

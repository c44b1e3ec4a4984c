//! A thread beside the test, which ends before the test does.

use std::thread::{self, JoinHandle, panicking};
use std::time::Duration;

/// Joins its thread when it is dropped, and panics if that has panicked.
#[derive(Debug)]
pub struct Aside(Option<JoinHandle<()>>);

/// Runs `work` on another thread until the guard is dropped.
pub fn aside(work: impl FnOnce() + Send + 'static) -> Aside {
    begin(Box::new(work))
}

/// Runs `work` on another thread when `delay` is over: most likely the test is blocked then.
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
        // A test that fails waits for nobody: the thread may wait for the test.
        if !panicking() {
            self.0.take().unwrap().join().unwrap();
        }
    }
}

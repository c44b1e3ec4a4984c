//! `std::thread` with a `spawn` that is compiled once, and not for each closure. The closures'
//! threads were a quarter of the code of the tests.

use std::any::Any;
use std::marker::PhantomData;
pub use std::thread::*;

type Anything = Box<dyn Any + Send>;

/// As [`std::thread::JoinHandle`].
#[derive(Debug)]
pub struct JoinHandle<T>(std::thread::JoinHandle<Anything>, PhantomData<fn() -> T>);

/// As [`std::thread::spawn`].
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    JoinHandle(spawn_boxed(Box::new(|| Box::new(f()))), PhantomData)
}

fn spawn_boxed(f: Box<dyn FnOnce() -> Anything + Send>) -> std::thread::JoinHandle<Anything> {
    std::thread::spawn(f)
}

impl<T: 'static> JoinHandle<T> {
    /// As [`std::thread::JoinHandle::join`].
    pub fn join(self) -> Result<T> {
        let Ok(value) = self.0.join()?.downcast() else { unreachable!("spawn has made it a T") };
        Ok(*value)
    }

    /// As [`std::thread::JoinHandle::thread`].
    pub fn thread(&self) -> &Thread {
        self.0.thread()
    }

    /// As [`std::thread::JoinHandle::is_finished`].
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

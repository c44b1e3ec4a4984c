//! A source that is never ready.

use std::marker::PhantomData;

use super::{Internals, Source};

/// A source that is never ready. Made by [`never()`], which has an example.
pub struct Never<T>(PhantomData<fn() -> T>);

/// Makes a source that is never ready, for a case that has nothing to wait for.
///
/// ```
/// use pollmux::{Reactor, never, select};
///
/// let reactor = Reactor::new()?;
/// let nothing = never::<u32>();
/// select! { reactor;
///     recv(nothing) -> number => println!("{number}"),
///     default => {}
/// }
/// # std::io::Result::Ok(())
/// ```
pub const fn never<T>() -> Never<T> {
    Never(PhantomData)
}

impl<T> Clone for Never<T> {
    fn clone(&self) -> Never<T> {
        *self
    }
}

impl<T> Copy for Never<T> {}

impl_fmt!(Debug, [T] Never<T>, |_, f| f.write_str("Never"));

impl<T> Source for Never<T> {
    type Item = T;

    fn is_ready(&self) -> bool {
        false
    }

    fn try_take(&self) -> Option<T> {
        None
    }

    fn internals(&self) -> Internals<'_> {
        Internals::default().without_look()
    }
}

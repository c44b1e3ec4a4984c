//! Cancellers, which end a context.

use std::error::Error;

use super::Context;

/// The canceller of a [`Context`], for any thread. Clones cancel the same context.
///
/// ```
/// use pollmux::Context;
///
/// let (context, canceller) = Context::background().with_cancel();
/// let other = canceller.clone();
/// assert!(other.cancel()); // this call has ended the context
/// assert!(!canceller.cancel());
/// assert!(context.err().is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Canceller {
    pub(super) context: Context,
}

impl Canceller {
    /// Ends the context and all contexts that were made from it. Returns true if this call ended
    /// the context, and false if it had ended already.
    ///
    /// # Cost
    /// Linear in the number of contexts below. At most one syscall for each sleeping reactor that
    /// waits for one of them.
    pub fn cancel(&self) -> bool {
        self.context.cancel(None)
    }

    /// [Cancels](Self::cancel) with a reason: an error, or a text. The [`cause`](Context::cause) of
    /// all contexts that this call ends has the reason. Allocates the reason.
    ///
    /// ```
    /// use pollmux::Context;
    ///
    /// let (context, canceller) = Context::background().with_cancel();
    /// let (child, _) = context.with_cancel();
    /// canceller.cancel_with("the disk is full");
    /// assert_eq!(child.cause().unwrap().to_string(), "the disk is full");
    /// ```
    pub fn cancel_with(&self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.context.cancel(Some(reason.into().into()))
    }

    /// Makes a guard that cancels when it is dropped.
    ///
    /// ```
    /// use pollmux::Context;
    ///
    /// let (context, canceller) = Context::background().with_cancel();
    /// {
    ///     let _guard = canceller.drop_guard();
    ///     // .. whatever this block leaves by
    /// }
    /// assert!(context.err().is_some());
    /// ```
    pub fn drop_guard(self) -> CancelGuard {
        CancelGuard { canceller: Some(self) }
    }
}

/// A guard that cancels a [`Context`] when it is dropped. Made by [`Canceller::drop_guard`].
///
/// ```
/// use pollmux::Context;
///
/// let (context, canceller) = Context::background().with_cancel();
/// let guard = canceller.drop_guard();
/// // .. all went well
/// let canceller = guard.disarm();
/// assert_eq!(context.err(), None);
/// # drop(canceller);
/// ```
#[must_use = "dropping the guard cancels the context"]
#[derive(Debug)]
pub struct CancelGuard {
    canceller: Option<Canceller>,
}

impl CancelGuard {
    /// Disarms the guard, and gives the canceller back.
    pub fn disarm(mut self) -> Canceller {
        match self.canceller.take() {
            Some(canceller) => canceller,
            None => unreachable!("only this and drop take it"),
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(canceller) = &self.canceller {
            canceller.cancel();
        }
    }
}

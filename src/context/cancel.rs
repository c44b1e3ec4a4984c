//! Cancellers, which end a context.

use std::error::Error;

use super::Context;

/// Cancels a [`Context`], from any thread. Clones cancel the same one.
#[derive(Clone, Debug)]
pub struct Canceller {
    pub(super) context: Context,
}

impl Canceller {
    /// Ends the context and all that were made from it. Returns true if this call ended the
    /// context, and false if it had ended already.
    ///
    /// Linear in the number of contexts below it; at most one syscall for each reactor that sleeps
    /// and waits for one of them.
    pub fn cancel(&self) -> bool {
        self.context.cancel(None)
    }

    /// [`cancel`](Self::cancel) with a reason: an error, or a text. It is the
    /// [`cause`](Context::cause) of all contexts that this call ends. Allocates the reason.
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

    /// Cancels when it is dropped.
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

/// Cancels a [`Context`] when it is dropped; made by [`Canceller::drop_guard`].
#[must_use = "dropping the guard cancels the context"]
#[derive(Debug)]
pub struct CancelGuard {
    canceller: Option<Canceller>,
}

impl CancelGuard {
    /// Cancels nothing any more, and gives the canceller back.
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

//! A callback after the end of a context.

use std::time::Duration;

use super::Context;
use super::hook::Hook;
use crate::reactor::{CallbackContext, CallbackFn, Handle, Slot, SourceKind};
use crate::sources::keyed;
use crate::wake::Bell;

/// A callback that runs when a [`Context`] has ended. Made by [`Handle::after_cancel`].
///
/// The drop [stops](Self::stop) it. [`detach`](Self::detach) leaves it to the reactor.
///
/// ```
/// use pollmux::{Context, Reactor};
/// use std::time::Duration;
///
/// let reactor = Reactor::new()?;
/// let (context, canceller) = Context::background().with_cancel();
/// let kept = reactor.after_cancel(&context, |_| println!("never"));
/// assert!(kept.is_pending() && kept.stop());
/// reactor.after_cancel(&context, |handle| println!("{handle:?}")).detach();
/// canceller.cancel();
/// reactor.sleep_blocking(Duration::ZERO)?; // a turn runs the second one
/// assert_eq!(reactor.stats().called, 1);
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping the callback cancels it: keep it, or call `detach`"]
pub struct AfterCancel {
    /// The slot has the closure, and the closure has the bell at the context.
    slot: Slot,
    context: Context,
}

impl Handle {
    /// Runs `f` on this reactor once `context` has ended: inside a `select!`, `wait` or `turn`,
    /// which then goes on waiting. If the context has ended already, `f` runs in the next turn.
    /// Go's `AfterFunc`.
    ///
    /// `f` runs before the loop receives a message that was sent after the cancellation. `f` may
    /// use the reactor, and also wait through the reactor. If the reactor is dropped before the
    /// end, so is `f`. [`sources`](Self::sources) lists a callback.
    ///
    /// # Panics
    /// When the context has a deadline on another clock than the reactor's, as [`done`](Self::done)
    /// does.
    ///
    /// # Cost
    /// Allocates the closure, and a bell at the context. A call does not allocate.
    ///
    /// ```
    /// use pollmux::{Context, Reactor, select};
    /// use std::time::{Duration, Instant};
    ///
    /// let reactor = Reactor::new()?;
    /// let (context, canceller) = Context::background().with_cancel();
    /// let cleanup = reactor.after_cancel(&context, |_| println!("cancelled"));
    /// canceller.cancel();
    /// select! { reactor; default => {} } // a turn
    /// assert!(!cleanup.stop()); // it has run
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn after_cancel(
        &self,
        context: &Context,
        f: impl FnOnce(&Handle) + 'static,
    ) -> AfterCancel {
        self.check_clock(context);
        // Ends a context whose deadline has passed, so that ended contexts run their callbacks in
        // the order of these calls.
        context.err();
        let slot = Slot::new(self, SourceKind::Callback);
        slot.notify().prepare_callback(slot.number());
        // From here on a canceller may make the callback due.
        let hook = Hook::new(context, Bell::for_callback(slot.notify().clone(), slot.number()));
        let limit = context.limit().filter(|_| !hook.is_ended() && !self.is_closed());
        let bell = hook.bell.clone();
        let mut last = Some((hook, f));
        slot.set_callback_once(
            bell,
            CallbackFn::new(move |cx: &CallbackContext<'_>| {
                let Some((hook, f)) = last.take() else { return };
                hook.settle();
                drop(hook);
                f(cx.handle());
            }),
        );
        if let Some(limit) = limit {
            slot.be_exact();
            slot.arm(limit.at);
        }
        AfterCancel { slot, context: context.clone() }
    }
}

impl AfterCancel {
    /// Takes the closure away. Returns true if the closure had neither run nor been stopped. It
    /// never runs then.
    pub fn stop(&self) -> bool {
        self.slot.drop_callback()
    }

    /// Lets the callback run up to `slack` late after a deadline, as
    /// [`Done::slack`](super::Done::slack) does.
    pub fn slack(self, slack: Duration) -> AfterCancel {
        self.slot.set_slack(slack);
        self
    }

    /// Returns true if the closure has neither run nor been stopped.
    pub fn is_pending(&self) -> bool {
        self.slot.has_callback()
    }

    /// Leaves the closure to the reactor.
    pub fn detach(self) {
        self.slot.detach_callback();
    }
}

impl_debug!([] AfterCancel, |it| context: it.context, pending: it.is_pending());

keyed!(listed AfterCancel);

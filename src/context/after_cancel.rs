//! A callback that a reactor runs after the end of a context.

use std::fmt;
use std::time::Duration;

use super::Context;
use super::end_bell::EndBell;
use crate::reactor::{Handle, Slot, SourceKind};
use crate::wake::Bell;

/// Something that a reactor is to do when a [`Context`] has ended; made by
/// [`Handle::after_cancel`].
///
/// Dropping it is [`stop`](Self::stop); [`detach`](Self::detach) leaves it alone.
#[must_use = "dropping the callback cancels it: keep it, or call `detach`"]
pub struct AfterCancel {
    /// It has the callback, and the callback the bell that hangs at the context.
    slot: Slot,
    context: Context,
}

impl Handle {
    /// Has `f` run on this reactor once `context` has ended, by whatever it ends: inside a
    /// `select!`, `wait` or `turn`, which then goes on waiting. If the context has ended already
    /// that is the next turn. Go's `AfterFunc`.
    ///
    /// It runs before a message is received that was sent after the cancellation. `f` may do as it
    /// likes, also wait on the reactor. It goes with the reactor if the context does not end
    /// before. Allocates the callback and the bell that hangs at the context; running it does not.
    /// [`sources`](Self::sources) lists it as a callback.
    ///
    /// # Panics
    /// When the context has a deadline on another clock than the reactor's, as [`done`](Self::done)
    /// does.
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
        // A deadline that has passed is a cancellation like another, and those come in the order of
        // these calls.
        context.err();
        let slot = Slot::new(self, SourceKind::Callback);
        slot.notify().prepare_callback(slot.number());
        // From here on a canceller, if it comes first, makes the callback due.
        let end = EndBell::new(context, Bell::for_callback(slot.notify().clone(), slot.number()));
        let limit = context.limit().filter(|_| !end.is_ended() && !self.is_closed());
        let bell = end.bell.clone();
        let mut last = Some((end, f));
        slot.set_callback_once(
            bell,
            Box::new(move |cx| {
                let Some((end, f)) = last.take() else { return };
                end.settle();
                drop(end);
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
    /// Drops the callback. Returns true if that prevented it from running: it had neither begun nor
    /// been stopped.
    pub fn stop(&self) -> bool {
        self.slot.drop_callback()
    }

    /// Lets the callback run late after a deadline, by `slack` at the most, as
    /// [`Done::slack`](super::Done::slack) does.
    pub fn slack(self, slack: Duration) -> AfterCancel {
        self.slot.set_slack(slack);
        self
    }

    /// Returns true if the callback has neither run nor been stopped.
    pub fn is_pending(&self) -> bool {
        self.slot.has_callback()
    }

    /// Leaves it to the reactor.
    pub fn detach(self) {
        self.slot.detach_callback();
    }
}

impl fmt::Debug for AfterCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterCancel")
            .field("context", &self.context)
            .field("pending", &self.is_pending())
            .finish()
    }
}

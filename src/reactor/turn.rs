//! The loop: a turn looks at what is due, calls closures, and blocks in the driver.
//!
//! ```text
//!  begin_turn ─► look ─► the caller's sources ─► something: the turn is over
//!                 ▲                └─► nothing: block ─► drive ─┐
//!                 └─────────────────────────────────────────────┘
//! ```

use std::cell::RefMut;
use std::io;
use std::rc::Rc;

use super::before_sleep::BeforeSleep;
use super::callbacks::Again;
use super::core::{Core, Driving, busy};
use super::parts::counters::add;
use super::parts::heap::NEVER;
use super::parts::slots::{Node, State};
use super::parts::usage::is_sparse;
use super::spin::Looks;
use crate::driver::{Wait, WakeWindow};
use crate::sync::{Ordering, fence, rest, settle_fence};
use crate::sys::Time;

/// Entries of the heap that are looked at before the callbacks among them are counted.
const PIECE: u32 = 512;

/// The outcome of [`Core::block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The driver's wait ended, or there was a reason not to begin it.
    Ended,
    /// The given time is over, and everything that was due within it is ready or has been called. A
    /// message may have come since the caller looked, if the thread was kept from its core.
    TimedOut,
}

impl Core {
    /// Begins a turn. Afterwards every due source is ready, unless more than a
    /// [budget](super::parts::heap::Heap::budget) of entries stand before it. The closures that
    /// were due have been called.
    #[inline]
    pub(crate) fn begin_turn(self: &Rc<Core>) {
        add(&self.counters.turns, 1);
        self.clock.awake();
        self.timers.put_off.set(false);
        self.look();
    }

    #[inline(always)]
    pub(crate) fn look(self: &Rc<Core>) {
        self.clock.forget_reading();
        let due = self.timers.next_due.get();
        if due != NEVER {
            self.expire_due(due);
        }
        if self.turn_work.get() || self.notify.is_posted() {
            self.do_turn_work();
        } else {
            self.poll_fds_of_turn();
        }
    }

    /// Makes the sources ready whose time has come, if the first key is due.
    #[inline(always)]
    fn expire_due(&self, due: u64) {
        if self.clock.is_due(due) {
            self.expire(self.clock.now());
        }
    }

    /// Runs the posts that came during the turn, and collects their messages. For a wait.
    #[cold]
    #[inline(never)]
    pub(crate) fn run_posts_and_collect(self: &Rc<Core>, unlisted: impl Iterator<Item = u64>) {
        self.run_posts_before(self.ready_tokens().chain(unlisted));
        self.collect(crate::wake::Request::Mark);
    }

    /// Looks after a sleep that may last until `until`. Returns true if that time is over: then
    /// each callback that is due has been called once.
    #[inline(never)]
    pub(crate) fn looks_for_the_last_time(self: &Rc<Core>, until: Option<Time>) -> bool {
        let end = until.filter(|until| self.clock.is_due(until.as_nanos()));
        match end {
            Some(end) => self.look_at_last(end),
            None => self.look(),
        }
        end.is_some()
    }

    /// [`look`](Self::look) when the time is over: calls once each callback that is due, and that
    /// the turn has not called since `end`.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_last(self: &Rc<Core>, end: Time) {
        if self.callbacks.live.get() == 0 {
            return self.look();
        }
        self.clock.refresh();
        self.expire_all();
        self.poll_fds();
        let has_work = self.turn_work.get() || self.notify.is_posted();
        if has_work && self.run_batch(usize::MAX, Again::Before(end)) {
            self.settle_behind();
        }
    }

    #[inline(never)]
    pub(super) fn do_turn_work(self: &Rc<Core>) {
        if self.memory.untidy.get() {
            self.tidy();
        }
        self.poll_fds_of_turn();
        if self.notify.is_posted() || self.table.borrow().callbacks.len() > 0 {
            self.run_posts_and_callbacks(Again::Yes);
        } else {
            self.settle_turn_work();
        }
    }

    /// [`look`](Self::look) of a call that must not wait, while its messages wait for posts. A
    /// callback that has run in the call, and is armed with zero, is left to the next turn.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_behind_posts(self: &Rc<Core>) {
        self.clock.forget_reading();
        let due = self.timers.next_due.get();
        if due != NEVER {
            self.expire_due(due);
        }
        self.poll_fds();
        self.run_posts_and_callbacks(Again::No);
    }

    /// Decides if the next turn begins with callbacks or memory to handle.
    pub(super) fn settle_turn_work(&self) {
        let due = self.table.borrow().callbacks.len() > 0;
        self.turn_work.set(due || self.memory.untidy.get());
    }

    #[inline(never)]
    pub(super) fn expire(&self, now: Time) {
        self.expire_some(now, u32::MAX);
    }

    /// [`expire`](Self::expire) that touches at most `most` entries.
    #[inline]
    pub(super) fn expire_some(&self, now: Time, most: u32) {
        let table = &mut *self.table.borrow_mut();
        let budget = table.heap.budget().min(most);
        let done = table.heap.expire(
            &table.slots,
            &mut table.ready,
            &mut table.callbacks,
            now.as_nanos(),
            budget,
        );
        add(&self.counters.expired, u64::from(done.fired));
        add(&self.counters.cleaned, u64::from(done.cleaned));
        if self.timers.put_off.replace(false) {
            add(&self.counters.coalesced, u64::from(done.steps));
        }
        if table.callbacks.len() > 0 {
            self.turn_work.set(true);
        }
        if is_sparse(table.heap.usage()) {
            self.set_untidy();
        }
        self.timers.next_due.set(table.heap.first());
        let first = table.heap.first();
        let backlog = first != NEVER && self.clock.was_due(first);
        self.timers.set_behind(backlog);
    }

    /// Moves every source that is due at the turn's reading to the ready list or the list of calls,
    /// however many stale entries stand before it. Unbounded: only for a call that answers
    /// "nothing" next.
    #[cold]
    #[inline(never)]
    pub(super) fn expire_all(&self) {
        let now = self.clock.now();
        while self.timers.next_due.get() <= now.as_nanos() && self.timers.next_due.get() != NEVER {
            self.expire(now);
        }
        self.timers.set_behind(false);
    }

    /// Does the work that the turn has left undone, before a select or a wait says that no source
    /// is ready. Returns true if there was some, so that the caller has to look at its sources
    /// again.
    ///
    /// Looks at every stale entry that stands before a due timer, at some 100 to 400 ns each. Runs
    /// the callbacks that are due, and the posts of other threads: up to a batch of each in all.
    ///
    /// A select asks its own cases for their deadlines, and needs this call only if there are
    /// callbacks: `everything` is for a wait.
    #[inline]
    pub(crate) fn catches_up(self: &Rc<Core>, everything: bool) -> bool {
        let backlog = self.is_behind() && (everything || self.callbacks.live.get() > 0);
        // Posts over the batch are left to the next turn. Posts that came meanwhile belong to this
        // turn.
        let owed = backlog || (self.is_pressed() && !self.mailbox.left.get());
        if owed {
            self.catch_up();
        }
        owed
    }

    #[cold]
    #[inline(never)]
    pub(super) fn catch_up(self: &Rc<Core>) {
        if !self.is_behind() {
            return self.run_posts_and_callbacks(Again::Yes);
        }
        let (called, most) = (self.called_in_turn(), self.callbacks.batch);
        let now = self.clock.now();
        while self.timers.next_due.get() <= now.as_nanos() && self.timers.next_due.get() != NEVER {
            if called + self.table.borrow().callbacks.len() >= most {
                break;
            }
            self.expire_some(now, PIECE);
        }
        if self.run_batch(most.saturating_sub(called), Again::No) {
            self.settle_behind();
        }
    }

    /// Calls each callback that is due and was not called in this turn, however many. Runs up to a
    /// batch of posts. For a sleep that ends without having slept.
    pub(super) fn finish_callbacks(self: &Rc<Core>) {
        if self.callbacks.live.get() == 0 || !(self.is_behind() || self.has_due_callbacks()) {
            self.catches_up(true);
        } else if self.may_run_callbacks() {
            self.expire_all();
            if self.run_batch(usize::MAX, Again::No) {
                self.settle_behind();
            }
        }
    }

    /// Makes every due source ready, for a wait that says "nothing" next.
    #[inline]
    pub(crate) fn expire_backlog(&self) {
        if self.is_behind() {
            self.expire_all();
        }
    }

    /// Returns true if the timer of this record is due, and has not been moved to the ready list.
    #[inline]
    pub(super) fn is_overdue(&self, node: &Node) -> bool {
        self.is_behind() && self.is_past(node)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn is_past(&self, node: &Node) -> bool {
        let deadline = node.deadline.get();
        node.state.get() == State::Armed && deadline != NEVER && self.clock.was_due(deadline)
    }

    /// Returns true if due timers may be missing in the ready list.
    #[inline]
    pub(crate) fn is_behind(&self) -> bool {
        self.timers.is_behind()
    }

    /// Settles after callbacks or posts that may have armed due sources. Such a source is ready
    /// then, and such a callback is left to the next turn.
    pub(super) fn settle_behind(&self) {
        let due = self.timers.next_due.get();
        if due != NEVER && !self.is_behind() && self.clock.is_due(due) {
            self.expire(self.clock.now());
        }
    }

    /// Blocks until the driver reports an event, or `until`. The caller looks at its sources in any
    /// case.
    ///
    /// `publish` runs after `sleeping` is set: in it the sources ask to be told. `looks` follow.
    #[inline(always)] // see Notify::wake
    pub(crate) fn block(
        self: &Rc<Core>,
        until: Option<Time>,
        publish: impl FnOnce(&mut BeforeSleep<'_>) -> io::Result<()>,
        looks: impl Looks,
    ) -> io::Result<Blocked> {
        let end = until.filter(|until| self.clock.is_due(until.as_nanos()));
        if let Some(end) = end {
            // The last look may have been long before that. The sources publish all the same.
            // Otherwise two parties of a rendezvous would never meet, if their timeouts are shorter
            // than a turn.
            self.look_at_last(end);
            if self.closed.get() {
                return Err(self.gone());
            }
        } else if self.is_kept_awake(until) {
            self.fds.stayed_awake();
            return Ok(Blocked::Ended);
        }
        let is_over = end.is_some();
        if self.driving.try_borrow_mut().is_err() {
            // The sleep that is under way belongs to the driver, which calls us.
            return if is_over { Ok(Blocked::TimedOut) } else { Err(busy()) };
        }
        // Ends the sleep if a source or the driver panics.
        let sleep = Asleep(self);
        if !is_over && self.outer.embedded.get() {
            self.clear_self_wake()?;
        }
        let until = until.unwrap_or(Time::MAX);
        if !is_over && self.spinner.begins() && self.spin(until, &looks) {
            std::mem::forget(sleep);
            self.request_turn_after_poll();
            return Ok(Blocked::Ended);
        }
        self.notify.open_ticket();
        self.notify.sleep();
        self.sleep.napping.set(false);
        let mut blocking = BeforeSleep { core: self, awake: false, deadline: until };
        let published = publish(&mut blocking);
        fence(Ordering::SeqCst);
        let BeforeSleep { awake, deadline, .. } = blocking;
        self.sleep.coming.set(false);
        let stays =
            is_over || published.is_err() || awake || self.has_mark_or_post() || looks.closely();
        let slept = if stays {
            if !is_over {
                self.fds.stayed_awake();
            }
            Ok(())
        } else if self.sleep.coming.get() || self.is_unsure() {
            self.sleep_with_something_coming(deadline, &looks)
        } else {
            self.drive(self.sleep_until(deadline), Wait::Block)
        };
        std::mem::forget(sleep);
        self.clock.slept();
        self.awake();
        self.request_turn_after_poll();
        published.and(slept)?;
        Ok(if is_over { Blocked::TimedOut } else { Blocked::Ended })
    }

    /// Takes step 5 of the wake protocol, and sleeps: a message was claimed and not written.
    #[cold]
    #[inline(never)]
    pub(super) fn sleep_with_something_coming(
        &self,
        until: Time,
        looks: &impl Looks,
    ) -> io::Result<()> {
        let sure = settle_fence() && !self.is_unsure();
        if self.has_mark_or_post() || looks.closely() {
            self.sleep.nap.take();
            self.fds.stayed_awake();
            return Ok(());
        }
        if sure && !self.clock.is_virtual() {
            return self.drive(self.sleep_until(until), Wait::Block);
        }
        let nap = self.sleep.nap.borrow_mut().next();
        if self.clock.is_virtual() {
            // Virtual time must not advance before the message has come.
            rest(nap);
            return Ok(());
        }
        let until = until.min(self.clock.refresh() + nap);
        self.drive(self.sleep_until(until), Wait::Block)
    }

    /// Notes that a source has found a message that is claimed and not written.
    #[inline]
    pub(crate) fn note_coming(&self) {
        self.sleep.coming.set(true);
    }

    /// Returns true if a mark, a post or a wake-up is pending. A part of step 4 of the wake
    /// protocol.
    #[inline]
    pub(super) fn has_mark_or_post(&self) -> bool {
        self.notify.is_marked()
            || (self.notify.is_posted() && (self.may_run_callbacks() || self.notify.is_woken()))
    }

    /// Ends a sleep. Returns true if a thread has woken us from it.
    pub(super) fn awake(&self) -> bool {
        let woken = self.notify.awake();
        add(&self.counters.wakes, u64::from(woken));
        woken
    }

    /// Clears our own wake-up for the outer loop, which would end this sleep at once. The sleep
    /// raises it again.
    #[cold]
    pub(super) fn clear_self_wake(&self) -> io::Result<()> {
        if self.awake() { self.drive(None, Wait::Poll) } else { Ok(()) }
    }

    /// Lets the driver wait. Afterwards the fds that it found ready are ready.
    #[inline(always)] // see Notify::wake
    pub(super) fn drive(&self, deadline: Option<WakeWindow>, how: Wait) -> io::Result<()> {
        let mut drive = self.begin_drive()?;
        // No closure, which would be one more open frame.
        let waited = match drive.driving() {
            Driving { driver: Some(driver), ready } => driver.wait(deadline, how, ready),
            _ => return Err(self.gone()),
        };
        drive.end();
        std::mem::forget(drive);
        self.looked(how == Wait::Block);
        waited.or_else(unless_interrupted)
    }

    /// Arms the driver for an outer loop, which sleeps on its fd.
    pub(super) fn arm_driver(&self, deadline: Option<WakeWindow>) -> io::Result<()> {
        let mut left = 16; // times that an interrupted arm is made again
        loop {
            let mut drive = self.begin_drive()?;
            let driver = drive.driving().driver.as_mut().ok_or_else(|| self.gone())?;
            match deadline.map_or(Ok(()), |at| driver.arm(at)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && left > 0 => left -= 1,
                armed => return armed,
            }
        }
    }

    /// Begins a call of the driver, which may use the reactor and drop it.
    #[inline(always)] // see Notify::wake
    fn begin_drive(&self) -> io::Result<Drive<'_>> {
        self.check_process()?;
        let Ok(driving) = self.driving.try_borrow_mut() else { return Err(busy()) };
        Ok(Drive { core: self, driving: Some(driving) })
    }
}

/// Treats an interrupted wait like one that found no event, in whichever way its driver reports it.
#[cold]
fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// A sleep that a panic may end. Its drop sets the party awake.
struct Asleep<'a>(&'a Core);

impl Drop for Asleep<'_> {
    #[cold]
    fn drop(&mut self) {
        let core = self.0;
        core.clock.slept();
        core.awake();
        core.notify.set_everywhere(false);
        core.request_turn_after_poll();
    }
}

/// A wait of the driver. Its events are delivered, also when the wait panics.
struct Drive<'a> {
    core: &'a Core,
    driving: Option<RefMut<'a, Driving>>,
}

impl Drive<'_> {
    #[inline(always)]
    fn driving(&mut self) -> &mut Driving {
        match &mut self.driving {
            Some(driving) => driving,
            None => unreachable!("it is there until the drop"),
        }
    }
}

impl Drive<'_> {
    #[inline(always)]
    fn end(&mut self) {
        let Some(mut driving) = self.driving.take() else { return };
        if let (true, Some(driver)) = (self.core.fds.has_leaving(), &mut driving.driver) {
            self.core.let_leave(&mut **driver);
        }
        if !driving.ready.is_empty() {
            self.core.deliver(&mut driving.ready);
        }
        if self.core.closed.get() {
            // The reactor was dropped meanwhile.
            let driver = driving.driver.take();
            drop(driving);
            drop(driver);
        }
    }
}

impl Drop for Drive<'_> {
    #[cold]
    fn drop(&mut self) {
        self.end();
    }
}

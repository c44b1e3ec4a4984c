//! `wait`: the loop without the macro, for any number of sources, each with a key of the user's.

use std::io;
use std::iter;
use std::rc::Rc;
use std::time::Duration;

use super::before_sleep::BeforeSleep;
use super::core::{Core, Handle, ReactorTable};
use super::events::Events;
use super::parts::ready::Ready;
use super::parts::slots::State;
use super::turn::Blocked;
use crate::sys::Time;
use crate::wake::Request;

impl Handle {
    /// Waits until at least one source of this reactor is ready, and reports up to the capacity of
    /// `events` of them.
    ///
    /// Timers come in the order in which they become due, and equal deadlines in arming order.
    ///
    /// The next wait reports a source again until it is drained. Drain a timer or a ticker by
    /// taking its expiry, or by a stop or a reset. Drain an inbox by receiving all its messages,
    /// and at its end the error. So **drain or drop every source that is reported**: a loop that
    /// ignores one never sleeps again. [`Stats::spinning`](crate::reactor::Stats::spinning) counts
    /// such sources, and [`sources`](Self::sources) names the lines that made them.
    ///
    /// Three kinds of events come once only, so handle every event of the batch:
    /// - an [`Fd`](crate::Fd) in one-shot mode;
    /// - the end of an `Fd` without interest in reading or writing;
    /// - an [`Outbox`](crate::Outbox) whose `try_send` found the channel full, when there is room
    ///   or the receiver is gone.
    ///
    /// **Shares**: a source takes at most one place of a batch. When more sources are ready than
    /// fit, the next wait begins with the rest, and the reported sources go behind them. So no
    /// source fills every batch, and each is reported in its turn. Take a bounded share of a source
    /// at its event, too: [`Inbox::drain`](crate::Inbox::drain). Sources of a higher
    /// [`Priority`](crate::Priority) come first.
    ///
    /// [`Remote::wake`](crate::Remote::wake) ends the wait, perhaps with no event. Callbacks and
    /// posted closures run during the wait; they do not end it.
    ///
    /// # Errors
    /// When the driver fails, or when the reactor has been dropped. No event is lost then.
    ///
    /// # Cost
    /// O(ready). No allocation, and no syscall when a source is ready.
    ///
    /// ```
    /// use pollmux::{Events, Reactor, channel};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, rx) = channel::bounded(8);
    /// let inbox = reactor.register_with(1, rx)?;
    /// let timeout = reactor.after(Duration::from_secs(60)).with_key(2);
    /// tx.send("job").unwrap();
    ///
    /// let mut events = Events::with_capacity(16);
    /// reactor.wait(&mut events)?;
    /// for event in &events {
    ///     match event.key() {
    ///         1 => inbox.try_iter().for_each(|job| assert_eq!(job, "job")),
    ///         2 => panic!("no job in time"),
    ///         _ => unreachable!(),
    ///     }
    /// }
    /// # drop(timeout);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wait(&self, events: &mut Events) -> io::Result<()> {
        self.wait_until(events, Patience::Endless)
    }

    /// [Waits](Self::wait) for at most `timeout`, and then ends without events. It reports all
    /// sources that are due by then. Stale entries cost as much as in [`try_wait`](Self::try_wait).
    ///
    /// # Errors
    /// The errors of [`wait`](Self::wait).
    ///
    /// ```
    /// use pollmux::{Events, Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let second = Duration::from_secs(1);
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let (_tx, _inbox) = reactor.channel::<u32>(1)?;
    /// let mut events = Events::new();
    /// reactor.wait_timeout(&mut events, second)?;
    /// assert!(events.is_empty()); // nothing for a second
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wait_timeout(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        self.wait_until(events, Patience::of(self, timeout))
    }

    /// Reports the sources that are ready now, as [`wait`](Self::wait) does, and does not sleep.
    /// The report is empty only if no source is ready or due.
    ///
    /// # Errors
    /// The errors of [`wait`](Self::wait).
    ///
    /// # Cost
    /// No syscall when a source is ready. Otherwise one that looks at the fds, if there are any.
    ///
    /// Timers that were stopped or put off leave stale entries in the queue. If such entries stand
    /// before a timer that may be due, the call puts all of them right first. That takes up to
    /// 0.4 µs for each, and so 0.4 s in the worst case of a million.
    ///
    /// ```
    /// use pollmux::{Events, Reactor};
    ///
    /// let reactor = Reactor::new()?;
    /// let (tx, inbox) = reactor.channel_with(7, 1)?;
    /// let mut events = Events::new();
    /// reactor.try_wait(&mut events)?;
    /// assert!(events.is_empty());
    /// tx.send("hello").unwrap();
    /// reactor.try_wait(&mut events)?;
    /// assert!(events.iter().map(|event| event.key()).eq([inbox.key()]));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn try_wait(&self, events: &mut Events) -> io::Result<()> {
        self.wait_until(events, Patience::None)
    }

    /// Sleeps for `d`, and runs callbacks and posted closures meanwhile. Sources that become ready
    /// meanwhile stay ready.
    ///
    /// The call returns after `d`, never before, and when the callbacks that were due by then have
    /// run. At the end it calls each due callback once. A callback that is armed with zero
    /// meanwhile belongs to the next turn.
    ///
    /// On a virtual clock callbacks that arm themselves or each other with zero would hold the
    /// time. After 100 rounds of callbacks at one instant the clock goes on to the next deadline.
    ///
    /// # Errors
    /// When the driver fails, or when the reactor has been dropped.
    ///
    /// # Cost
    /// The end costs as much as [`try_wait`](Self::try_wait) for stale entries.
    ///
    /// ```
    /// use pollmux::{Reactor, Sim};
    /// use std::time::Duration;
    ///
    /// let reactor = Reactor::with_driver(Sim::new())?;
    /// let second = Duration::from_secs(1);
    /// reactor.call_after(second, |cx| println!("called at {:?}", cx.scheduled())).detach();
    /// reactor.sleep_blocking(Duration::from_secs(2))?;
    /// assert_eq!(reactor.stats().called, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn sleep_blocking(&self, d: Duration) -> io::Result<()> {
        let core = &self.core;
        let patience = Patience::of(self, d);
        core.begin_turn();
        loop {
            if core.closed.get() {
                return Err(core.gone());
            }
            let Patience::Until(until) = patience else {
                core.finish_callbacks();
                return if core.closed.get() { Err(core.gone()) } else { core.yield_turn() };
            };
            if let Blocked::TimedOut = core.block(Some(until), |_| Ok(()), || false)? {
                return Ok(());
            }
            core.collect(Request::Wake);
            if core.looks_for_the_last_time(Some(until)) {
                return if core.closed.get() { Err(core.gone()) } else { Ok(()) };
            }
        }
    }

    fn wait_until(&self, events: &mut Events, patience: Patience) -> io::Result<()> {
        let core = &self.core;
        events.tokens.clear();
        if !events.from.as_ref().is_some_and(|from| from.is_same(self)) {
            events.from = Some(self.clone());
        }
        core.begin_turn();
        if core.prioritised.get() > 0 {
            return self.wait_by_priority(events, patience);
        }
        self.wait_in_turn::<false>(events, patience)
    }

    /// [`wait_in_turn`](Self::wait_in_turn) when a source has a priority. A copy of its own, so
    /// that a wait without priorities pays nothing.
    #[cold]
    #[inline(never)]
    fn wait_by_priority(&self, events: &mut Events, patience: Patience) -> io::Result<()> {
        self.wait_in_turn::<true>(events, patience)
    }

    /// Finishes a wait, after the turn has begun.
    #[inline(always)]
    fn wait_in_turn<const BY_PRIORITY: bool>(
        &self,
        events: &mut Events,
        mut patience: Patience,
    ) -> io::Result<()> {
        let core = &self.core;
        let mut caught_up = false;
        loop {
            if caught_up {
                core.expire_backlog();
            }
            core.collect(Request::Mark);
            let pressed = core.is_pressed() && core.has_ready();
            if pressed {
                // The sources may have been asked before the collected messages were sent.
                core.run_posts_and_collect(iter::empty());
            }
            if core.closed.get() {
                return Err(core.gone());
            }
            let woken = core.sleep.woken.replace(false);
            let report = if BY_PRIORITY { Core::report_by_priority } else { Core::report };
            if report(core, events) || woken {
                if pressed {
                    events.tokens.retain(|&token| !core.take_report_back(token));
                }
                if woken || !events.tokens.is_empty() {
                    return Ok(());
                }
            }
            let until = match core.after_nothing(patience, &mut caught_up, || self.catches_up()) {
                Next::Look => continue,
                Next::End => return Ok(()),
                Next::Sleep(until) => until,
            };
            let blocked = self.block_everywhere(until)?;
            if blocked == Blocked::TimedOut || core.looks_for_the_last_time(until) {
                patience = Patience::None;
            }
            // Callbacks have run, and may have set the first priority.
            if !BY_PRIORITY && core.prioritised.get() > 0 {
                return self.wait_by_priority(events, patience);
            }
        }
    }

    /// Blocks for every registered channel, so that the senders of a rendezvous may meet its
    /// receiver.
    #[inline(always)] // see Notify::answer
    fn block_everywhere(&self, until: Option<Time>) -> io::Result<Blocked> {
        let core = &self.core;
        let asks = core.asks_near();
        let publish = |_: &mut BeforeSleep<'_>| {
            asks.ask();
            core.notify.set_everywhere(true);
            Ok(())
        };
        let blocked = core.block(until, publish, || core.has_ready() | core.has_near_news());
        if asks.are_made() {
            core.notify.set_everywhere(false);
        }
        blocked
    }

    /// Does the work that the turn has left undone. Returns true if there was some.
    #[cold]
    #[inline(never)]
    fn catches_up(&self) -> bool {
        self.core.catches_up(true) | self.core.looks_once_more()
    }
}

/// The longest sleep of a select or a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// No sleep: `default`.
    None,
    /// Until this time: `default(timeout)`.
    Until(Time),
    /// For ever.
    Endless,
}

/// The next step of a wait, or of a `Select`, that has found no ready source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// One more look.
    Look,
    /// The end, without a ready source.
    End,
    /// A sleep, until this time at the latest.
    Sleep(Option<Time>),
}

impl Patience {
    /// Makes the patience of a wait. Reads the clock before the sources are read, so that a wait
    /// that ends without a source has lasted at least `timeout`.
    #[inline]
    pub(crate) fn of(handle: &Handle, timeout: Duration) -> Patience {
        // The reading may be a little late, so a timeout of zero would become longer than zero.
        if timeout.is_zero() {
            Patience::None
        } else {
            Patience::Until(handle.core.clock.now_or_later() + timeout)
        }
    }
}

impl Core {
    /// Decides on the step after a look that has found no source. `catches_up` does the work that
    /// the turn has left undone, and returns true if there was some. `caught_up` notes that it did.
    #[inline]
    pub(crate) fn after_nothing(
        self: &Rc<Core>,
        patience: Patience,
        caught_up: &mut bool,
        catches_up: impl FnOnce() -> bool,
    ) -> Next {
        match patience {
            Patience::Until(until) => Next::Sleep(Some(until)),
            Patience::Endless => Next::Sleep(None),
            Patience::None if self.take_held() => {
                self.look_behind_posts();
                Next::Look
            }
            Patience::None if !*caught_up && catches_up() => {
                *caught_up = true;
                Next::Look
            }
            Patience::None => Next::End,
        }
    }

    /// Reports as many ready sources as fit. The reported sources go behind the others.
    fn report(&self, events: &mut Events) -> bool {
        self.take_out_told();
        let table = &mut *self.table.borrow_mut();
        let (mut least, mut next) = (i32::MAX, table.ready.first());
        while let Some(slot) = next.filter(|_| events.tokens.len() < events.capacity) {
            let chunk = table.slots.chunk(slot);
            least = least.min(chunk.node(slot).count_down());
            events.tokens.push(chunk.token(slot));
            next = Ready::behind(chunk.node(slot));
        }
        if least <= 0 {
            self.use_up_all(table, &events.tokens);
        }
        let fits = events.tokens.len();
        if fits < table.ready.len() {
            table.ready.rotate(&table.slots, fits);
            self.channels.borrow().look_first_at(events.tokens[0] as u32);
        }
        fits > 0
    }

    /// [`report`](Self::report) when a source has a priority.
    fn report_by_priority(&self, events: &mut Events) -> bool {
        self.take_out_told();
        let table = &mut *self.table.borrow_mut();
        let (slots, tokens) = (&table.slots, &mut events.tokens);
        let token = |slot: u32| slots.chunk(slot).token(slot);
        let priority = |slot: u32| slots.chunk(slot).priority(slot);
        tokens.extend(table.by_priority().take(events.capacity).map(token));
        let is_full = tokens.len() < table.ready.len();
        if let (true, Some(longest), [_, .., last]) =
            (is_full, table.ready.first(), &mut tokens[..])
        {
            // Keeps a place for the source that has waited longest, so that no source starves. That
            // source comes first of its priority. If it is not in the batch, the batch has higher
            // priorities only.
            if priority(longest) < priority(*last as u32) {
                *last = token(longest);
            }
        }
        for &token in &*tokens {
            slots.node(token as u32).count_down();
        }
        self.use_up_all(table, tokens);
        if is_full {
            self.channels.borrow().look_first_at(tokens[0] as u32);
            tokens.iter().for_each(|&token| table.ready.put_last(&table.slots, token as u32));
        }
        !tokens.is_empty()
    }

    /// Returns true if a reported source has to wait for posts: the report does not count.
    #[cold]
    fn take_report_back(&self, token: u64) -> bool {
        let held = self.is_held(token);
        if let (true, Some((chunk, slot))) = (held, self.table.borrow().slots.find(token)) {
            let left = &chunk.node(slot).pos;
            left.set(left.get().wrapping_add(1));
        }
        held
    }

    /// Notes that a select chose the source of this token, and took no item from it.
    pub(crate) fn picked_nothing(&self, token: u64) {
        let table = &mut *self.table.borrow_mut();
        let Some(slot) = table.slots.resolve(token) else { return };
        self.channels.borrow().look_near(table);
        if table.slots.node(slot).state.get() == State::Ready {
            self.count_report(table, slot);
        }
    }

    /// Counts a report of a ready source to a select, as [`report`](Self::report) does for a wait.
    /// The count begins again when the user does something about the source.
    pub(super) fn count_report(&self, table: &ReactorTable, slot: u32) {
        if table.slots.node(slot).count_down() <= 0 {
            self.use_up(table, slot);
        }
    }

    /// [`use_up`](Self::use_up) for each of these sources that has no report left.
    #[cold]
    #[inline(never)]
    fn use_up_all(&self, table: &ReactorTable, tokens: &[u64]) {
        for slot in tokens.iter().filter_map(|&token| table.slots.resolve(token)) {
            if table.slots.node(slot).pos.get() as i32 <= 0 {
                self.use_up(table, slot);
            }
        }
    }
}

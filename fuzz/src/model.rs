//! The model of a reactor: lists of deadlines, queues and flags that follow docs/DESIGN.md.
//!
//! If the rules leave a choice open, the library chooses, and the model checks that the choice is
//! allowed. Virtual time makes the rest exact. A blocking call ends at the first instant at which
//! one of its cases is ready. A callback is called at its deadline.

use std::collections::{BTreeSet, VecDeque};

use pollmux::MissedTickBehavior;

use crate::ops::{ALARMS, CHANNELS, CONTEXTS, Case, DONES, NEVER, TICKERS, TIMERS};

/// The lateness in ns up to which a `Delay` ticker keeps its grid.
const TOLERANCE: u64 = 5_000_000;

pub type Checked<T = ()> = Result<T, String>;

macro_rules! fail {
    ($($format:tt)*) => { return Err(format!($($format)*)) };
}
macro_rules! ensure {
    ($condition:expr, $($format:tt)*) => { if !$condition { fail!($($format)*) } };
}
pub(crate) use {ensure, fail};

/// A timer, a ticker or a callback.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    pub alive: bool,
    /// The deadline that is pending, or has passed without a receive.
    pub deadline: Option<u64>,
    /// The number of the last arm.
    seq: u64,
    /// The deadline of the last arm.
    last: u64,
    pub period: u64,
    pub behavior: MissedTickBehavior,
    pub fired: u64,
    pub key: u64,
    pub detached: bool,
    running: bool,
    /// The batch of closures with the last arm, if the batch belongs to this operation.
    inside: Option<u64>,
    /// The time of the last arm.
    armed: u64,
    /// The first operation that found the alarm due, or zero.
    found: u64,
    /// The number of stops, resets and takes.
    pub changes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receiving {
    #[default]
    Gone,
    Bare,
    Inbox,
}

#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub id: u32,
    /// The number of the last post before the message, if both came from outside a closure.
    pub behind: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// The capacity, or `None` for an unbounded channel.
    pub capacity: Option<usize>,
    pub queue: VecDeque<Message>,
    pub senders: usize,
    pub outbox: Option<u64>,
    /// True if the outbox has found the channel full, and has not reported room since.
    pub asks: bool,
    pub receiving: Receiving,
    pub key: u64,
    /// True if this inbox has returned the end.
    pub over: bool,
    /// The permits of forgotten choices.
    pub permits: usize,
    /// The number of receives.
    pub changes: u64,
}

impl Channel {
    pub fn is_ended(&self) -> bool {
        self.queue.is_empty() && self.senders == 0 && self.outbox.is_none()
    }

    pub fn has_room(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.queue.len() + self.permits < capacity)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Cancelled,
    Deadline,
}

#[derive(Clone, Debug)]
pub struct Node {
    parent: Option<usize>,
    pub limit: u64,
    end: Option<End>,
}

#[derive(Clone, Debug)]
pub struct Done {
    pub node: usize,
    pub key: u64,
    pub over: bool,
}

/// A request that waits for the next turn.
#[derive(Clone, Debug)]
pub enum Posted {
    Closure { number: u64, operation: u64 },
    Stop { alarm: usize, life: u64, operation: u64 },
    Reset { alarm: usize, life: u64, at: u64, period: u64, operation: u64 },
}

impl Posted {
    fn operation(&self) -> u64 {
        match self {
            Posted::Closure { operation, .. }
            | Posted::Stop { operation, .. }
            | Posted::Reset { operation, .. } => *operation,
        }
    }
}

/// The sources that a call waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// All sources, for `wait`.
    Everything,
    /// No source, for a sleep.
    Nothing,
    These(Vec<Case>),
}

#[derive(Clone, Debug)]
struct Turn {
    awaited: Awaited,
    /// The end of the timeout, or `NEVER`.
    until: u64,
    /// True inside a closure, where a turn runs no closures.
    nested: bool,
    /// The callbacks that this turn may not call again, with the times of their calls. The list
    /// begins anew when the time moves, or when a batch begins and no case is ready. Calls after
    /// the end of the timeout stay in the list.
    called: Vec<(usize, u64)>,
    /// The start of the present batch. An alarm that expires later belongs to the next batch.
    since: u64,
    /// The start of the present batch, or the end of its last post.
    begun: u64,
    /// True if a post has begun the present look.
    fresh: bool,
    /// True if a post has run. A second batch may follow in the same turn.
    posts: bool,
    operation: u64,
}

impl Turn {
    fn has_called(&self, i: usize) -> bool {
        self.called.iter().any(|&(called, _)| called == i)
    }

    /// Allows another call of each callback that was called before the end of the timeout.
    fn may_call_again(&mut self) {
        self.called.retain(|&(_, at)| at >= self.until);
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub now: u64,
    /// The bound of the lateness of the driver's waits.
    pub late: u64,
    pub alarms: [Alarm; ALARMS],
    pub channels: [Channel; CHANNELS],
    pub nodes: Vec<Node>,
    pub contexts: [Option<usize>; CONTEXTS],
    pub dones: [Option<Done>; DONES],
    pub posted: VecDeque<Posted>,
    pub posts: u64,
    /// The number of the last post from outside a closure.
    pub last_post: u64,
    arms: u64,
    batch: u64,
    operation: u64,
    keys: u64,
    turns: Vec<Turn>,
    /// The number of nested closures that run.
    pub depth: usize,
    /// True if a wake-up was requested, and no `wait` has returned since.
    pub woken: bool,
    /// True if a closure of the present turn requested a wake-up, which may end the next wait.
    pub woken_inside: bool,
    /// Values that must not have been dropped yet.
    pub values: BTreeSet<u32>,
    pub calls: u64,
}

impl Model {
    pub fn key(&mut self) -> u64 {
        self.keys += 1;
        self.keys
    }

    pub fn after(&self, d: u64) -> u64 {
        self.now.saturating_add(d)
    }

    // --- Alarms.

    pub fn is_ticker(i: usize) -> bool {
        (TIMERS..TIMERS + TICKERS).contains(&i)
    }

    pub fn is_callback(i: usize) -> bool {
        i >= TIMERS + TICKERS
    }

    pub fn is_due(&self, i: usize) -> bool {
        let alarm = &self.alarms[i];
        alarm.alive && alarm.deadline.is_some_and(|at| at <= self.now && at != NEVER)
    }

    pub fn make(&mut self, i: usize, period: u64, behavior: MissedTickBehavior) {
        let (key, changes) = (self.key(), self.alarms[i].changes + 1);
        self.alarms[i] = Alarm { alive: true, period, behavior, key, changes, ..Alarm::default() };
    }

    /// Arms an alarm. Returns true if that took a deadline or an unreceived expiry away (rule 2).
    pub fn arm(&mut self, i: usize, at: u64) -> bool {
        self.arms += 1;
        let inside = (self.depth > 0).then_some(self.batch);
        let alarm = &mut self.alarms[i];
        alarm.armed = self.now;
        (alarm.seq, alarm.last, alarm.inside, alarm.found) = (self.arms, at, inside, 0);
        alarm.changes += 1;
        alarm.deadline.replace(at).is_some()
    }

    pub fn stop(&mut self, i: usize) -> bool {
        self.alarms[i].changes += 1;
        self.alarms[i].deadline.take().is_some()
    }

    pub fn reset(&mut self, i: usize, d: u64) -> bool {
        if Model::is_ticker(i) {
            self.alarms[i].period = d;
        }
        self.arm(i, self.after(d))
    }

    /// Resumes a ticker. The next tick is at the first point of the old grid from now on.
    pub fn resume(&mut self, i: usize) -> bool {
        let alarm = &self.alarms[i];
        if alarm.deadline.is_some() {
            return false;
        }
        let steps = self.now.saturating_sub(alarm.last).div_ceil(alarm.period);
        let at = alarm.last.saturating_add(steps.saturating_mul(alarm.period));
        self.arm(i, at);
        true
    }

    pub fn drop_alarm(&mut self, i: usize) {
        self.stop(i);
        self.alarms[i].alive = false;
    }

    /// Frees a detached callback that does not run and has no pending deadline.
    pub fn release_detached(&mut self, i: usize) {
        let alarm = &mut self.alarms[i];
        if alarm.detached && !alarm.running && alarm.deadline.is_none() {
            alarm.alive = false;
        }
    }

    /// Takes an expiry, and returns its scheduled time and the number of missed ticks.
    pub fn take(&mut self, i: usize) -> Checked<(u64, u64)> {
        ensure!(self.is_due(i), "alarm {i} gave a value and is not due: {:?}", self.alarms[i]);
        let alarm = &mut self.alarms[i];
        let scheduled = alarm.deadline.take().unwrap_or(NEVER);
        alarm.fired += 1;
        alarm.changes += 1;
        if !Model::is_ticker(i) {
            return Ok((scheduled, 0));
        }
        let (period, late) = (alarm.period, self.now - scheduled);
        let grid = |n: u64| scheduled.saturating_add(period.saturating_mul(n));
        let (missed, next) = match alarm.behavior {
            MissedTickBehavior::Skip => (late / period, grid(late / period + 1)),
            MissedTickBehavior::Burst => (0, grid(1)),
            MissedTickBehavior::Delay if late < period && late <= TOLERANCE => (0, grid(1)),
            _ => (late / period, self.now.saturating_add(period)),
        };
        self.arm(i, next);
        Ok((scheduled, missed))
    }

    // --- Contexts.

    pub fn ended(&self, node: usize) -> Option<End> {
        self.ended_at(node, self.now)
    }

    fn ended_at(&self, node: usize, t: u64) -> Option<End> {
        let node = &self.nodes[node];
        node.end.or((node.limit <= t && node.limit != NEVER).then_some(End::Deadline))
    }

    pub fn make_context(&mut self, parent: Option<usize>, limit: u64) -> usize {
        let end = parent.and_then(|parent| self.ended(parent));
        let limit = parent.map_or(limit, |parent| self.nodes[parent].limit.min(limit));
        self.nodes.push(Node { parent, limit, end });
        self.nodes.len() - 1
    }

    /// Cancels a context. Only the first end of a context counts (rule 21).
    pub fn cancel(&mut self, node: usize) -> bool {
        if self.ended(node).is_some() {
            return false;
        }
        for i in 0..self.nodes.len() {
            let mut above = Some(i);
            while let Some(other) = above.filter(|&other| other != node) {
                above = self.nodes[other].parent;
            }
            if above.is_some() && self.nodes[i].end.is_none() {
                self.nodes[i].end = Some(self.ended(i).unwrap_or(End::Cancelled));
            }
        }
        true
    }

    // --- Ready sources.

    pub fn is_ready(&self, case: Case) -> bool {
        match case {
            Case::Timer(i) => self.is_due(i),
            Case::Ticker(i) => self.is_due(TIMERS + i),
            Case::Inbox(c) => {
                let channel = &self.channels[c];
                channel.receiving == Receiving::Inbox
                    && (!channel.queue.is_empty() || channel.is_ended())
            }
            Case::Send(c) => {
                let channel = &self.channels[c];
                channel.outbox.is_some()
                    && (channel.receiving == Receiving::Gone || channel.has_room())
            }
            Case::Done(i) => {
                self.dones[i].as_ref().is_some_and(|done| self.ended(done.node).is_some())
            }
        }
    }

    /// Returns the first instant from now on at which the case is ready without further operations.
    fn ready_from(&self, case: Case) -> u64 {
        if self.is_ready(case) {
            return self.now;
        }
        match case {
            Case::Timer(i) => self.alarms[i].deadline.unwrap_or(NEVER),
            Case::Ticker(i) => self.alarms[TIMERS + i].deadline.unwrap_or(NEVER),
            Case::Done(i) => self.dones[i].as_ref().map_or(NEVER, |d| self.nodes[d.node].limit),
            Case::Inbox(_) | Case::Send(_) => NEVER,
        }
    }

    /// Returns every source that `wait` may report. An end that was taken is not among them.
    pub fn reportable(&self) -> impl Iterator<Item = Case> + '_ {
        let channels = (0..CHANNELS).filter(|&c| {
            let channel = &self.channels[c];
            channel.receiving == Receiving::Inbox && !(channel.is_ended() && channel.over)
        });
        let dones = (0..DONES).filter(|&i| self.dones[i].as_ref().is_some_and(|d| !d.over));
        let outboxes = (0..CHANNELS).filter(|&c| self.channels[c].asks);
        (0..TIMERS)
            .filter(|&i| self.alarms[i].alive)
            .map(Case::Timer)
            .chain((0..TICKERS).filter(|&i| self.alarms[TIMERS + i].alive).map(Case::Ticker))
            .chain(channels.map(Case::Inbox))
            .chain(dones.map(Case::Done))
            .chain(outboxes.map(Case::Send))
    }

    pub fn key_of(&self, case: Case) -> u64 {
        match case {
            Case::Timer(i) => self.alarms[i].key,
            Case::Ticker(i) => self.alarms[TIMERS + i].key,
            Case::Inbox(c) => self.channels[c].key,
            Case::Send(c) => self.channels[c].outbox.unwrap_or(0),
            Case::Done(i) => self.dones[i].as_ref().map_or(0, |done| done.key),
        }
    }

    /// Returns the number of stops, resets and takes, each of which voids a report.
    pub fn changes(&self, case: Case) -> u64 {
        match case {
            Case::Timer(i) => self.alarms[i].changes,
            Case::Ticker(i) => self.alarms[TIMERS + i].changes,
            Case::Inbox(c) => self.channels[c].changes,
            Case::Send(_) | Case::Done(_) => 0,
        }
    }

    /// Returns the rank of a timer in `wait`, or `None` if an earlier operation has found it due.
    pub fn rank(&self, case: Case) -> Option<(u64, u64)> {
        let i = match case {
            Case::Timer(i) => i,
            Case::Ticker(i) => TIMERS + i,
            _ => return None,
        };
        let alarm = &self.alarms[i];
        let is_new = alarm.found == 0 && alarm.inside.is_none();
        is_new.then_some((alarm.deadline?, alarm.seq))
    }

    fn awaited_from(&self, awaited: &Awaited) -> u64 {
        let first = |cases: &mut dyn Iterator<Item = Case>| {
            cases.map(|case| self.ready_from(case)).min().unwrap_or(NEVER)
        };
        match awaited {
            Awaited::Everything => first(&mut self.reportable()),
            Awaited::Nothing => NEVER,
            Awaited::These(cases) => first(&mut cases.iter().copied()),
        }
    }

    /// Returns the deadlines that the reactor may have armed.
    fn armed(&self) -> impl Iterator<Item = u64> + '_ {
        let limits = self.dones.iter().flatten().filter(|done| !done.over);
        self.alarms
            .iter()
            .filter(|alarm| alarm.alive)
            .filter_map(|alarm| alarm.deadline)
            .chain(limits.map(|done| self.nodes[done.node].limit))
            .filter(|&at| at != NEVER)
    }

    /// Returns true if only ended contexts have this deadline.
    fn is_of_ended_contexts(&self, at: u64) -> bool {
        let node = |done: &Done| &self.nodes[done.node];
        let mut others = self.alarms.iter().filter(|alarm| alarm.alive);
        let mut open = self.dones.iter().flatten().map(node).filter(|node| node.end.is_none());
        !others.any(|alarm| alarm.deadline == Some(at)) && !open.any(|node| node.limit == at)
    }

    // --- Turns.

    /// Begins a turn. `until` is `NEVER` for an endless wait.
    pub fn begin(&mut self, awaited: Awaited, until: u64) {
        let nested = self.depth > 0;
        if !nested {
            self.operation += 1;
            self.batch += 1;
            self.alarms.iter_mut().for_each(|alarm| alarm.inside = None);
        }
        let (operation, since) = (self.operation, self.now);
        self.turns.push(Turn {
            since,
            begun: since,
            fresh: false,
            awaited,
            until,
            nested,
            called: Vec::new(),
            posts: false,
            operation,
        });
    }

    fn turn(&self) -> Checked<&Turn> {
        self.turns.last().ok_or_else(|| "a closure runs and no turn is under way".to_owned())
    }

    fn with_turn<R>(&mut self, f: impl FnOnce(&mut Turn) -> R) -> Option<R> {
        self.turns.last_mut().map(f)
    }

    /// Runs the requests of other threads, in the order in which they were made.
    fn do_requests(&mut self) {
        while let Some(Posted::Stop { .. } | Posted::Reset { .. }) = self.posted.front() {
            // An alarm that a request arms with zero belongs to the next batch, as in a post.
            self.depth += 1;
            match self.posted.pop_front() {
                Some(Posted::Stop { alarm: i, life, .. })
                    if self.alarms[i].alive && self.alarms[i].key == life =>
                {
                    self.stop(i);
                    self.release_detached(i);
                }
                Some(Posted::Reset { alarm: i, life, at, period, .. })
                    if self.alarms[i].alive && self.alarms[i].key == life =>
                {
                    if Model::is_ticker(i) {
                        self.alarms[i].period = period;
                    }
                    self.arm(i, at);
                }
                _ => {}
            }
            self.depth -= 1;
        }
    }

    /// Moves the time to `observed`, which the virtual clock shows. The reactor has slept until
    /// then.
    fn advance_to(&mut self, observed: u64) -> Checked {
        self.advance(observed, self.late > 0)
    }

    /// Moves the time to `observed`. If `spurious` is true, the sleep may end without a deadline.
    fn advance(&mut self, observed: u64, spurious: bool) -> Checked {
        let nested = self.turn()?.nested;
        if !nested {
            self.do_requests();
        }
        if observed == self.now {
            return Ok(());
        }
        ensure!(observed > self.now, "the clock went back from {} to {observed}", self.now);
        let turn = self.turn()?.clone();
        let late = self.late;
        // The deadline of a wait that was late by as much as possible.
        let asked = observed.saturating_sub(late.saturating_sub(1)).max(self.now);
        ensure!(
            turn.until >= asked,
            "the sleep ended at {observed}, after its timeout at {}",
            turn.until
        );
        let ready = self.awaited_from(&turn.awaited);
        ensure!(
            ready >= asked,
            "the sleep from {} until {observed} passed a case that was ready at {ready}",
            self.now
        );
        if !nested {
            ensure!(self.posted.is_empty(), "the sleep left requests and posts: {:?}", self.posted);
            for i in (0..ALARMS).filter(|&i| Model::is_callback(i)) {
                let alarm = &self.alarms[i];
                ensure!(
                    !alarm.alive || alarm.deadline.unwrap_or(NEVER) >= asked,
                    "the sleep from {} until {observed} passed callback {i}: {alarm:?}",
                    self.now
                );
            }
        }
        ensure!(
            spurious || turn.until == observed || self.armed().any(|at| at == observed),
            "the sleep ended at {observed}, where no deadline is"
        );
        self.now = observed;
        self.batch += u64::from(!nested);
        self.with_turn(|turn| {
            turn.called.clear();
            (turn.since, turn.begun, turn.fresh) = (observed, observed, false);
        });
        Ok(())
    }

    /// Records that a posted closure is about to run.
    pub fn post_begins(&mut self, number: u64, observed: u64) -> Checked {
        self.advance_to(observed)?;
        ensure!(!self.turn()?.nested, "a nested select has run a post");
        match self.posted.pop_front() {
            Some(Posted::Closure { number: first, .. }) if first == number => {}
            other => fail!("post {number} runs before {other:?}"),
        }
        // If no case is ready, the post begins another look, which may call all callbacks again.
        let (found, now) = (self.is_found()?, self.now);
        self.with_turn(|turn| {
            if !found && (now < turn.until || turn.since < turn.until) {
                turn.may_call_again();
                (turn.since, turn.fresh) = (now, true);
            }
            turn.posts = true;
        });
        self.depth += 1;
        Ok(())
    }

    pub fn post_ends(&mut self) {
        let now = self.now;
        self.with_turn(|turn| turn.begun = now);
        self.depth -= 1;
    }

    fn is_found(&self) -> Checked<bool> {
        Ok(self.awaited_from(&self.turn()?.awaited) <= self.now)
    }

    /// Returns a callback that is due in the present batch and was not called.
    fn owed(&self) -> Option<usize> {
        let turn = self.turns.last()?;
        let since = Some(turn.since);
        let called = |i: &usize| turn.has_called(*i);
        (0..ALARMS).filter(|&i| Model::is_callback(i)).filter(|i| !called(i)).find(|&i| {
            let due = self.is_due(i) && self.alarms[i].deadline <= since;
            // After the end of the timeout a closure arms a callback for the next turn.
            let is_next = self.alarms[i].armed >= turn.until;
            due && self.alarms[i].inside.is_none_or(|batch| batch < self.batch && !is_next)
        })
    }

    /// Records that a callback is about to be called.
    pub fn call_begins(&mut self, i: usize, scheduled: u64, observed: u64) -> Checked {
        self.advance_to(observed)?;
        let operation = self.turn()?.operation;
        ensure!(!self.turn()?.nested, "a nested select has called callback {i}");
        ensure!(
            self.posted.iter().all(|posted| posted.operation() >= operation),
            "callback {i} was called before {:?}",
            self.posted
        );
        ensure!(
            self.is_due(i),
            "callback {i} was called before its deadline: {:?}",
            self.alarms[i]
        );
        let deadline = self.alarms[i].deadline;
        ensure!(
            deadline == Some(scheduled),
            "callback {i} got the deadline {scheduled} instead of {deadline:?}"
        );
        if self.alarms[i].inside == Some(self.batch) || scheduled > self.turn()?.begun {
            // The callback was armed or became due in the last batch, so a new batch begins.
            if let Some(owed) = self.owed().filter(|_| !self.turns.iter().any(|turn| turn.fresh)) {
                fail!("a batch ended without the due callback {owed}");
            }
            if self.is_found()? {
                ensure!(
                    self.turn()?.posts,
                    "callback {i} was called a turn early: a case is ready"
                );
            } else {
                self.with_turn(Turn::may_call_again);
            }
            self.batch += 1;
            let now = self.now;
            self.with_turn(|turn| {
                turn.begun = now;
                if !std::mem::take(&mut turn.fresh) {
                    turn.since = now;
                }
            });
        }
        ensure!(!self.turn()?.has_called(i), "callback {i} was called twice in one turn");
        let rank = |alarm: &Alarm| (alarm.deadline, alarm.seq);
        for j in (0..ALARMS).filter(|&j| Model::is_callback(j) && j != i && self.is_due(j)) {
            let (mine, other) = (&self.alarms[i], &self.alarms[j]);
            let is_of_batch = other.inside.is_none_or(|batch| batch < self.batch);
            // The order is free for callbacks that an earlier turn has found due.
            let (a, b) = (
                mine.inside.is_some() || mine.found > 0,
                other.inside.is_some() || other.found > 0,
            );
            ensure!(
                !is_of_batch || a || b || rank(mine) < rank(other),
                "callback {i} was called before callback {j}: {mine:?}, {other:?}"
            );
        }
        let alarm = &mut self.alarms[i];
        alarm.deadline = None;
        alarm.fired += 1;
        alarm.changes += 1;
        alarm.running = true;
        let now = self.now;
        self.with_turn(|turn| turn.called.push((i, now)));
        self.depth += 1;
        self.calls += 1;
        Ok(())
    }

    /// Records that the callback with the key `life` has returned.
    pub fn call_ends(&mut self, i: usize, life: u64) {
        self.depth -= 1;
        if self.alarms[i].key == life {
            self.alarms[i].running = false;
            self.release_detached(i);
        }
    }

    /// Checks the rules for every end of a turn.
    fn ends(&mut self, observed: u64) -> Checked {
        self.advance_to(observed)?;
        let turn = self.turn()?;
        if turn.nested {
            return Ok(());
        }
        let operation = turn.operation;
        ensure!(
            self.posted.iter().all(|posted| posted.operation() >= operation),
            "a turn ended with pending posts: {:?}",
            self.posted
        );
        if let Some(i) = self.owed() {
            fail!("a turn ended without the due callback {i}: {:?}", self.alarms[i]);
        }
        Ok(())
    }

    fn over(&mut self) {
        self.turns.pop();
        let operation = self.operation;
        for i in 0..ALARMS {
            if self.is_due(i) && self.alarms[i].found == 0 {
                self.alarms[i].found = operation.max(1);
            }
        }
    }

    /// Records that a turn has ended with `case`.
    pub fn end_with(&mut self, case: Case, observed: u64) -> Checked {
        self.ends(observed)?;
        ensure!(self.is_ready(case), "the chosen {case:?} is not ready");
        self.over();
        Ok(())
    }

    /// Records that a turn has ended by its timeout. None of its cases may be ready.
    pub fn end_with_nothing(&mut self, observed: u64) -> Checked {
        self.ends(observed)?;
        let (turn, found) = (self.turn()?.clone(), self.is_found()?);
        ensure!(
            turn.until <= self.now,
            "the timeout ended at {} instead of {}",
            self.now,
            turn.until
        );
        ensure!(!found, "the timeout ended while a case is ready");
        self.over();
        Ok(())
    }

    /// Records that a turn has failed because no event can come any more.
    pub fn end_in_deadlock(&mut self, observed: u64) -> Checked {
        self.ends(observed)?;
        let (turn, found) = (self.turn()?.clone(), self.is_found()?);
        ensure!(!found, "a deadlock while a case is ready");
        ensure!(turn.until == NEVER, "a deadlock in spite of the timeout {}", turn.until);
        // No source waits for the deadline of a context that has ended.
        let next = self.armed().find(|&at| at > self.now && !self.is_of_ended_contexts(at));
        ensure!(next.is_none(), "a deadlock in spite of the deadline {next:?}");
        ensure!(
            turn.nested || self.posted.is_empty(),
            "a deadlock with pending posts: {:?}",
            self.posted
        );
        self.over();
        Ok(())
    }

    /// Records the end of a `wait`, and returns the sources that it may report. Only a timeout or a
    /// wake-up ends a wait without events.
    pub fn end_wait(&mut self, observed: u64, reported: usize) -> Checked<Vec<Case>> {
        self.ends(observed)?;
        let found: Vec<_> = self.reportable().filter(|&case| self.is_ready(case)).collect();
        let inside = std::mem::take(&mut self.woken_inside);
        if reported == 0 && !std::mem::replace(&mut self.woken, inside) {
            let until = self.turn()?.until;
            ensure!(
                until <= self.now,
                "wait ended without events at {} instead of {until}",
                self.now
            );
            ensure!(found.is_empty(), "wait ended without events while these are ready: {found:?}");
        }
        Ok(found)
    }

    pub fn wait_is_over(&mut self) {
        self.over();
    }

    /// Records that the turn has failed with the driver.
    pub fn end_by_failure(&mut self, observed: u64) -> Checked {
        self.advance(observed, true)?;
        self.over();
        Ok(())
    }

    /// Records that a panic in a closure has ended the turn.
    pub fn end_by_panic(&mut self) {
        self.over();
    }

    // --- Channels.

    /// Records a message in the channel, where each message and each permit takes room (rule 12).
    pub fn sent(&mut self, c: usize, id: u32) {
        let behind = if self.depth > 0 { 0 } else { self.last_post };
        self.channels[c].queue.push_back(Message { id, behind });
        self.values.insert(id);
    }

    /// Takes the first message or the end, and compares it with `got`.
    pub fn receive(&mut self, c: usize, got: Option<u32>) -> Checked<Option<Message>> {
        let channel = &mut self.channels[c];
        channel.changes += 1;
        let first = channel.queue.pop_front();
        ensure!(
            first.map(|message| message.id) == got,
            "channel {c} gave {got:?} instead of {first:?}"
        );
        if let Some(message) = first {
            self.values.remove(&message.id);
        } else {
            ensure!(channel.is_ended(), "channel {c} gave its end too early");
            channel.over = true;
        }
        Ok(first)
    }

    /// Checks that the posts before a received message, of the same thread, have run.
    pub fn check_posts_before(&self, message: Option<Message>) -> Checked {
        let Some(message) = message.filter(|_| self.depth == 0) else { return Ok(()) };
        for posted in &self.posted {
            if let Posted::Closure { number, .. } = posted {
                ensure!(
                    *number > message.behind,
                    "message {} came before post {number}",
                    message.id
                );
            }
        }
        Ok(())
    }

    pub fn drop_receiver(&mut self, c: usize) {
        let channel = &mut self.channels[c];
        channel.receiving = Receiving::Gone;
        for message in std::mem::take(&mut channel.queue) {
            self.values.remove(&message.id);
        }
    }

    pub fn operation(&self) -> u64 {
        self.operation
    }
}

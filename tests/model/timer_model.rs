//! The whole timer interface against a model. On a virtual clock, the model keeps timers, tickers
//! and callbacks as a list of deadlines.
//!
//! Both sides do the same operations. A callback runs in the middle of a wait and tells the model
//! about its call. The model first advances through the time until then; then both sides do the
//! callback's operations. So the model always knows the armed, the ready and the due sources. The
//! model predicts every sleep to the nanosecond: until the least of all deadlines plus their slack.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{
    Callback, CallbackContext, Events, Handle, MissedTickBehavior, Reactor, Remote, Select,
    Selected, Sim, Source, Tick, Ticker, Time, Timer,
    reactor::{TimerError, TimerId},
    select,
};
use proptest::collection::vec;
use proptest::prelude::*;

use support::{keys, ms, simulated};

/// A time in ns that never comes.
const NEVER: u64 = u64::MAX;
/// The number of calls in which a callback does its operations. Later calls do nothing.
const ACTIVE_CALLS: u32 = 3;
/// The most sources that callbacks may make in one run. With more than the timer queue visits for
/// one sleep, the sleep would end too early.
const MADE_IN_CALLS: usize = 16;
/// The delay in ns that `Delay` tolerates.
const TOLERANCE: u64 = 5_000_000;

// ---- The operations.

#[derive(Clone, Copy, Debug)]
enum Kind {
    Timer,
    Ticker(MissedTickBehavior),
    Callback,
    Detached,
}

#[derive(Clone, Copy, Debug)]
enum When {
    /// From now.
    In(u64),
    /// Since the origin; most often in the past.
    At(u64),
    /// This long before or after the current deadline, or from now without a deadline.
    Earlier(u64),
    Later(u64),
    Never,
}

/// The index of a source among all that were made. In a callback the index may mean the callback
/// itself.
type Which = usize;

#[derive(Clone, Debug)]
enum Op {
    Create(Kind, When, Option<u64>, Vec<Op>),
    Unarmed,
    Reset(Which, u64),
    ResetNever(Which),
    ResetAt(Which, When),
    Stop(Which),
    Resume(Which),
    Restart(Which),
    RestartAt(Which, When),
    Behavior(Which, MissedTickBehavior),
    Slack(Which, u64),
    Drop(Which),
    Detach(Which),
    StopById(Which),
    ResetById(Which, u64),
    ResetAtById(Which, When),
    StopRemotely(Which),
    ResetRemotely(Which, u64),
    Advance(u64),
    TryWait(usize, u8),
    // Operations that may block. A callback does not do these.
    Wait(usize, u8),
    WaitTimeout(usize, u64),
    SelectDefault(Which, Which),
    SelectBlocking(Which, Which),
    SelectTimeout(Which, Which, u64),
    SetTry(Vec<Which>),
    SetWait(Vec<Which>),
    SetTimeout(Vec<Which>, u64),
    Sleep(u64),
}

fn when() -> impl Strategy<Value = When> {
    // Few distinct times, so that ties are common.
    prop_oneof![
        6 => (0..10u64).prop_map(When::In),
        2 => (0..60u64).prop_map(When::At),
        1 => Just(When::At(0)),
        2 => (0..8u64).prop_map(When::Earlier),
        3 => (0..8u64).prop_map(When::Later),
        1 => Just(When::Never),
    ]
}

fn behavior() -> impl Strategy<Value = MissedTickBehavior> {
    use MissedTickBehavior::*;
    prop_oneof![Just(Skip), Just(Burst), Just(Delay)]
}

fn advance() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => 0..10u64,
        2 => 10..2_000u64,
        // Close to the delay that `Delay` tolerates.
        1 => TOLERANCE - 20..TOLERANCE + 20,
    ]
    .prop_map(Op::Advance)
}

/// Operations that callbacks do, too.
fn inner_op() -> impl Strategy<Value = Op> {
    let which = any::<Which>;
    let d = 0..10u64;
    prop_oneof![
        3 => create(Just(Vec::new())),
        1 => Just(Op::Unarmed),
        6 => (which(), d.clone()).prop_map(|(i, d)| Op::Reset(i, d)),
        1 => which().prop_map(Op::ResetNever),
        8 => (which(), when()).prop_map(|(i, t)| Op::ResetAt(i, t)),
        4 => which().prop_map(Op::Stop),
        3 => which().prop_map(Op::Resume),
        3 => which().prop_map(Op::Restart),
        2 => (which(), when()).prop_map(|(i, t)| Op::RestartAt(i, t)),
        1 => (which(), behavior()).prop_map(|(i, b)| Op::Behavior(i, b)),
        2 => (which(), 0..12u64).prop_map(|(i, d)| Op::Slack(i, d)),
        2 => which().prop_map(Op::Drop),
        1 => which().prop_map(Op::Detach),
        2 => which().prop_map(Op::StopById),
        2 => (which(), d.clone()).prop_map(|(i, d)| Op::ResetById(i, d)),
        2 => (which(), when()).prop_map(|(i, t)| Op::ResetAtById(i, t)),
        1 => which().prop_map(Op::StopRemotely),
        2 => (which(), d).prop_map(|(i, d)| Op::ResetRemotely(i, d)),
        6 => advance(),
        6 => (1..6usize, any::<u8>()).prop_map(|(capacity, take)| Op::TryWait(capacity, take)),
    ]
}

fn create(calls: impl Strategy<Value = Vec<Op>>) -> impl Strategy<Value = Op> {
    let kind = prop_oneof![
        3 => Just(Kind::Timer),
        3 => behavior().prop_map(Kind::Ticker),
        3 => Just(Kind::Callback),
        1 => Just(Kind::Detached),
    ];
    let slack = prop_oneof![3 => Just(None), 1 => (0..12u64).prop_map(Some)];
    (kind, when(), slack, calls)
        .prop_map(|(kind, when, slack, calls)| Op::Create(kind, when, slack, calls))
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<Which>;
    let some = || vec(any::<Which>(), 1..5);
    let d = 0..12u64;
    prop_oneof![
        12 => create(vec(inner_op(), 0..5)),
        40 => inner_op(),
        6 => (1..6usize, any::<u8>()).prop_map(|(capacity, take)| Op::Wait(capacity, take)),
        3 => (1..6usize, d.clone()).prop_map(|(capacity, d)| Op::WaitTimeout(capacity, d)),
        3 => (which(), which()).prop_map(|(i, j)| Op::SelectDefault(i, j)),
        3 => (which(), which()).prop_map(|(i, j)| Op::SelectBlocking(i, j)),
        3 => (which(), which(), d.clone()).prop_map(|(i, j, d)| Op::SelectTimeout(i, j, d)),
        2 => some().prop_map(Op::SetTry),
        2 => some().prop_map(Op::SetWait),
        2 => (some(), d.clone()).prop_map(|(some, d)| Op::SetTimeout(some, d)),
        3 => d.prop_map(Op::Sleep),
    ]
}

// ---- The model.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pending {
    Nothing,
    /// The deadline and the number of the arm.
    Armed(u64, u64),
    /// A turn found the source due: it is ready to be taken, or to be called.
    Expired(u64),
}

#[derive(Clone, Debug)]
struct Entry {
    kind: Kind,
    alive: bool,
    pending: Pending,
    /// The last armed deadline.
    last: u64,
    period: u64,
    behavior: MissedTickBehavior,
    slack: Option<u64>,
    detached: bool,
    running: bool,
}

#[derive(Clone, Copy, Debug)]
enum Post {
    Stop(usize),
    Reset(usize, u64, u64),
}

/// The sources that end a wait.
#[derive(Clone, Debug, Default, PartialEq)]
enum Awaited {
    Anything,
    #[default]
    Nothing,
    These(Vec<usize>),
}

#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    /// The slack of the reactor.
    slack: u64,
    entries: Vec<Entry>,
    ready: VecDeque<usize>,
    calls: VecDeque<usize>,
    /// Calls left in the current batch: the first calls of `calls`.
    batch: usize,
    /// The batch, or a post, may have armed a source that is already due.
    settles: bool,
    /// The requests of the mailbox, by slot. Later requests for a slot join the first.
    posts: VecDeque<(u32, Vec<Post>)>,
    arms: u64,
    put_off: bool,
    /// A source became due in the middle of a wait. Then the model does not predict whether the
    /// next sleep counts as coalesced.
    uncertain: bool,
    coalesced: u64,
    called: u64,
    expired: u64,
    stale: u64,
    awaited: Awaited,
    until: u64,
    /// A wait with a timeout polls once more after the timeout.
    polls_again: bool,
    /// The wait has done this poll.
    timed_out: bool,
    /// The callbacks of this turn, with the turn's reading of the clock. A callback called after
    /// the end of the time is not called again.
    called_now: Vec<(usize, u64)>,
    /// The calls that the current batch leaves to the next turn.
    put_off_calls: Vec<usize>,
    /// A sleep of zero calls, at its end, the due callbacks that its turn did not call. True until
    /// then.
    finishes: bool,
}

impl Entry {
    fn is_callback(&self) -> bool {
        matches!(self.kind, Kind::Callback | Kind::Detached)
    }

    fn is_ticker(&self) -> bool {
        matches!(self.kind, Kind::Ticker(_))
    }

    fn deadline(&self) -> Option<u64> {
        match self.pending {
            Pending::Nothing => None,
            Pending::Armed(deadline, _) | Pending::Expired(deadline) => Some(deadline),
        }
    }
}

impl Model {
    fn new(slack: u64) -> Model {
        Model { slack, until: NEVER, ..Model::default() }
    }

    fn live(&self) -> usize {
        self.entries.iter().filter(|entry| entry.alive).count()
    }

    fn create(&mut self, kind: Kind, slack: Option<u64>, period: u64) -> usize {
        let behavior = match kind {
            Kind::Ticker(behavior) => behavior,
            _ => MissedTickBehavior::Skip,
        };
        self.entries.push(Entry {
            kind,
            alive: true,
            pending: Pending::Nothing,
            last: 0,
            period,
            behavior,
            slack,
            detached: matches!(kind, Kind::Detached),
            running: false,
        });
        self.entries.len() - 1
    }

    /// Disarms a source. Returns true if it was pending. A callback leaves the current batch; if it
    /// becomes due again meanwhile, it belongs to the next batch.
    fn clear(&mut self, i: usize) -> bool {
        self.ready.retain(|&ready| ready != i);
        if let Some(place) = self.calls.iter().position(|&called| called == i) {
            self.calls.remove(place);
            self.batch -= usize::from(place < self.batch);
        }
        std::mem::replace(&mut self.entries[i].pending, Pending::Nothing) != Pending::Nothing
    }

    fn arm(&mut self, i: usize, deadline: u64) -> bool {
        self.arms += 1;
        let was = self.clear(i);
        self.entries[i].pending = Pending::Armed(deadline, self.arms);
        self.entries[i].last = deadline;
        was
    }

    /// Releases a detached source that is not pending.
    fn release_detached(&mut self, i: usize) {
        let entry = &mut self.entries[i];
        if entry.detached && !entry.running && entry.pending == Pending::Nothing {
            entry.alive = false;
        }
    }

    fn release(&mut self, i: usize) {
        self.clear(i);
        self.entries[i].alive = false;
    }

    fn stop_by_id(&mut self, i: usize) -> Result<bool, TimerError> {
        if !self.entries[i].alive {
            return Err(TimerError::Dead);
        }
        let was = self.clear(i);
        self.release_detached(i);
        Ok(was)
    }

    fn reset_by_id(&mut self, i: usize, t: u64, period: Option<u64>) -> Result<bool, TimerError> {
        if self.entries[i].is_ticker() && period == Some(0) {
            return Err(TimerError::ZeroPeriod);
        }
        if !self.entries[i].alive {
            return Err(TimerError::Dead);
        }
        if let Some(period) = period.filter(|_| self.entries[i].is_ticker()) {
            self.entries[i].period = period;
        }
        Ok(self.arm(i, t))
    }

    /// The first step of any turn, in a callback too. Due sources expire, in the order of deadlines
    /// and of arming.
    fn expire(&mut self) {
        self.expire_until(self.now);
    }

    fn expire_until(&mut self, t: u64) {
        let mut due: Vec<_> = (0..self.entries.len())
            .filter_map(|i| match self.entries[i].pending {
                Pending::Armed(deadline, arm) if deadline <= t && deadline != NEVER => {
                    Some((deadline, arm, i))
                }
                _ => None,
            })
            .collect();
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        if std::mem::replace(&mut self.put_off, false) {
            self.coalesced += due.windows(2).filter(|pair| pair[0].0 < pair[1].0).count() as u64;
        }
        self.expired += due.len() as u64;
        for (deadline, _, i) in due {
            self.entries[i].pending = Pending::Expired(deadline);
            let list =
                if self.entries[i].is_callback() { &mut self.calls } else { &mut self.ready };
            list.push_back(i);
        }
    }

    /// A turn outside callbacks. Afterwards a batch of calls is due.
    fn turn(&mut self) {
        self.expire();
        for post in std::mem::take(&mut self.posts).into_iter().flat_map(|(_, posts)| posts) {
            self.uncertain = true;
            let done = match post {
                Post::Stop(i) => self.stop_by_id(i),
                Post::Reset(i, t, d) => self.reset_by_id(i, t, Some(d)),
            };
            self.stale += u64::from(done.is_err());
            self.settles = true;
        }
        self.batch = self.calls.len();
        self.put_off_calls.clear();
        self.settles |= self.batch > 0;
        self.settle();
    }

    /// At the end of a batch the sources that it has armed expire. Due callbacks belong to the next
    /// batch.
    fn settle(&mut self) {
        if self.settles && self.batch_is_over() {
            self.settles = false;
            self.batch = 0;
            // New calls go behind those that nested selects have found meanwhile.
            let is_new = |i: &usize| !self.put_off_calls.contains(i);
            let (new, put_off): (Vec<_>, Vec<_>) = self.calls.iter().copied().partition(is_new);
            self.calls = new.into_iter().chain(put_off).collect();
            self.expire();
        }
    }

    fn batch_is_over(&self) -> bool {
        self.batch == 0 || self.calls.iter().all(|i| self.put_off_calls.contains(i))
    }

    /// Adds a request of another thread, for the timer in this slot.
    fn post(&mut self, slot: u32, post: Post) {
        match self.posts.iter_mut().find(|place| place.0 == slot) {
            Some((_, posts)) => posts.push(post),
            None => self.posts.push_back((slot, vec![post])),
        }
    }

    /// The last turn of a wait: another batch, without the callbacks in `called_now`.
    fn finish(&mut self) {
        self.turn();
        let (again, new): (Vec<_>, Vec<_>) = self
            .calls
            .iter()
            .partition(|&&i| self.called_now.iter().any(|&(called, _)| called == i));
        self.batch = new.len();
        self.put_off_calls.clone_from(&again);
        self.calls = new.into_iter().chain(again).collect();
        self.settle();
    }

    /// Returns true if a turn would have work other than ready sources.
    fn has_turn_work(&self) -> bool {
        let due = |entry: &Entry| match entry.pending {
            Pending::Armed(d, _) => d <= self.now && d != NEVER,
            _ => false,
        };
        self.entries.iter().any(due) || !self.calls.is_empty() || !self.posts.is_empty()
    }

    fn found(&self) -> bool {
        match &self.awaited {
            Awaited::Anything => !self.ready.is_empty(),
            Awaited::Nothing => false,
            Awaited::These(these) => these.iter().any(|i| self.ready.contains(i)),
        }
    }

    /// Returns the end of a sleep that begins now: the least of all deadlines plus their slack.
    fn sleep_until(&mut self) -> u64 {
        let armed = self.entries.iter().filter_map(|entry| match entry.pending {
            Pending::Armed(deadline, _) => {
                Some((deadline, deadline.saturating_add(entry.slack.unwrap_or(self.slack))))
            }
            _ => None,
        });
        let (earliest, latest) = armed
            .fold((self.until, self.until), |(e, l), (deadline, last)| {
                (e.min(deadline), l.min(last))
            });
        self.put_off = earliest < latest;
        latest
    }

    /// Returns true if the reactor slept although a source was due, within the slack of all due
    /// sources. This happens when a callback took long: the loop uses the time that it read before.
    fn has_overslept(&mut self, observed: u64) -> bool {
        if !self.calls.is_empty() || self.sleep_until() <= self.now {
            self.put_off = false;
            return false;
        }
        let mut awake = self.clone();
        awake.turn();
        awake.found() || awake.advance_until(observed).is_err()
    }

    /// Advances turn by turn through the time in which the reactor has slept.
    fn advance_until(&mut self, observed: u64) -> Result<(), TestCaseError> {
        self.settle();
        while self.now < observed {
            prop_assert!(self.batch_is_over(), "not called: {:?}", self.calls);
            prop_assert!(
                !self.found(),
                "slept until {} although {:?} was ready",
                observed,
                self.ready
            );
            // The origin of time needs no reading of the clock. But a post may have removed the
            // source again.
            self.expire_until(0);
            if !self.posts.is_empty() {
                self.turn();
                continue;
            }
            prop_assert!(
                !self.found(),
                "slept until {} although {:?} was due",
                observed,
                self.ready
            );
            prop_assert!(self.now < self.until, "slept until {} and not {}", observed, self.until);
            if self.has_turn_work() && !self.has_overslept(observed) {
                self.turn();
                continue;
            }
            self.now = self.sleep_until();
            prop_assert!(self.now <= observed, "woke at {} and not at {}", observed, self.now);
            // The poll at the end of the time is the last poll.
            self.timed_out |= self.now >= self.until;
            self.turn();
        }
        Ok(())
    }

    /// The reactor is about to call `i`, which was due at `scheduled`.
    fn called(
        &mut self,
        i: usize,
        scheduled: u64,
        observed: u64,
        reading: u64,
    ) -> Result<(), TestCaseError> {
        self.advance_until(observed)?;
        if self.batch_is_over() {
            prop_assert!(!self.found(), "called a callback although {:?} was ready", self.ready);
            let over = self.now >= self.until;
            let finishes = over && std::mem::take(&mut self.finishes);
            let may_poll = !over || finishes || (self.polls_again && !self.timed_out);
            prop_assert!(may_poll, "called after the end of the wait");
            self.timed_out |= over;
            if over {
                let until = self.until;
                self.called_now.retain(|&(_, reading)| finishes || reading >= until);
                self.finish();
            } else {
                self.called_now.clear();
                self.turn();
            }
            // A post may have made a source due.
            if self.batch == 0 && self.has_turn_work() && !over {
                self.turn();
            }
        }
        prop_assert_eq!(self.calls.pop_front(), Some(i));
        prop_assert_eq!(self.entries[i].pending, Pending::Expired(scheduled));
        prop_assert!(scheduled <= self.now);
        self.batch -= 1;
        self.called += 1;
        self.called_now.push((i, reading));
        self.entries[i].pending = Pending::Nothing;
        self.entries[i].running = true;
        Ok(())
    }

    fn begin(&mut self, awaited: Awaited, until: u64, polls_again: bool) {
        (self.awaited, self.until) = (awaited, until);
        (self.polls_again, self.timed_out, self.put_off) = (polls_again, false, false);
        self.finishes = self.awaited == Awaited::Nothing && until <= self.now;
        self.called_now.clear();
        self.turn();
    }

    /// Ends the wait. The wait must have a reason to end, or else it must have failed. Returns true
    /// if the wait found a source.
    fn end(&mut self, observed: u64, failed: Option<io::ErrorKind>) -> Result<bool, TestCaseError> {
        self.settle();
        self.advance_until(observed)?;
        loop {
            prop_assert!(self.batch_is_over(), "not called: {:?}", self.calls);
            if self.found() {
                prop_assert_eq!(failed, None);
                return Ok(true);
            }
            if self.now >= self.until {
                prop_assert_eq!(failed, None);
                if std::mem::take(&mut self.finishes) && !self.calls.is_empty() {
                    self.finish();
                    prop_assert_eq!(self.batch, 0, "not called: {:?}", self.calls);
                }
                if self.polls_again && !self.timed_out {
                    self.turn();
                    // The last poll calls no callback that was called after the end of the time.
                    let until = self.until;
                    let was_called = |&i: &usize| {
                        self.called_now.iter().any(|&(called, at)| called == i && at >= until)
                    };
                    if self.calls.iter().all(was_called) {
                        self.put_off_calls = self.calls.iter().copied().collect();
                        self.settle();
                    }
                    prop_assert!(self.batch_is_over(), "not called: {:?}", self.calls);
                }
                return Ok(self.found());
            }
            if self.has_turn_work() {
                self.turn();
                continue;
            }
            prop_assert_eq!(self.sleep_until(), NEVER, "the wait ended without a reason");
            prop_assert_eq!(failed, Some(io::ErrorKind::Deadlock));
            return Ok(false);
        }
    }

    /// Returns the report of `wait`. Sources that do not fit come first in the next report.
    fn report(&mut self, capacity: usize) -> Vec<usize> {
        let fits = capacity.min(self.ready.len());
        let reported = self.ready.iter().copied().take(fits).collect();
        if fits < self.ready.len() {
            self.ready.rotate_left(fits);
        }
        reported
    }

    fn take(&mut self, i: usize) -> Option<Tick> {
        let Pending::Expired(scheduled) = self.entries[i].pending else { return None };
        self.clear(i);
        let scheduled_at = Time::from_nanos(scheduled);
        if !self.entries[i].is_ticker() {
            return Some(Tick { scheduled: scheduled_at, missed: 0 });
        }
        let Entry { period, behavior, .. } = self.entries[i];
        let late = self.now - scheduled;
        let grid = |n: u64| scheduled.saturating_add(period.saturating_mul(n));
        let (missed, next) = match behavior {
            MissedTickBehavior::Skip => (late / period, grid(late / period + 1)),
            MissedTickBehavior::Burst => (0, grid(1)),
            MissedTickBehavior::Delay if late < period && late <= TOLERANCE => (0, grid(1)),
            _ => (late / period, self.now.saturating_add(period)),
        };
        self.arm(i, next);
        Some(Tick { scheduled: scheduled_at, missed })
    }

    /// Resumes a ticker, which ticks at the first point of its grid that is not in the past.
    fn resume(&mut self, i: usize) -> bool {
        if self.entries[i].pending != Pending::Nothing {
            return false;
        }
        let Entry { last, period, .. } = self.entries[i];
        let steps = self.now.saturating_sub(last).div_ceil(period);
        self.arm(i, last.saturating_add(steps.saturating_mul(period)));
        true
    }
}

// ---- The reactor.

enum Real {
    Timer(Timer),
    Ticker(Ticker),
    Callback(Callback),
}

struct World {
    sim: Sim,
    handle: Handle,
    remote: Remote,
    model: RefCell<Model>,
    /// `None` if the source was dropped or detached.
    reals: RefCell<Vec<Option<Rc<Real>>>>,
    /// The cases of the current select. A callback must not drop them.
    held: RefCell<Vec<usize>>,
    ids: RefCell<Vec<TimerId>>,
    made_in_calls: Cell<usize>,
    /// The first error that a callback has found.
    callback_error: RefCell<Option<TestCaseError>>,
}

fn t(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn d(nanos: u64) -> Duration {
    if nanos == NEVER { Duration::MAX } else { Duration::from_nanos(nanos) }
}

impl Real {
    fn timer(&self) -> Option<&Timer> {
        if let Real::Timer(timer) = self { Some(timer) } else { None }
    }

    fn ticker(&self) -> Option<&Ticker> {
        if let Real::Ticker(ticker) = self { Some(ticker) } else { None }
    }

    fn take(&self) -> Option<Tick> {
        self.timer().and_then(Timer::try_take).map(once).or_else(|| self.ticker()?.try_take())
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Real::Timer(timer) => timer.deadline(),
            Real::Ticker(ticker) => ticker.deadline(),
            Real::Callback(callback) => callback.deadline(),
        }
    }

    fn is_ready(&self) -> bool {
        self.timer().is_some_and(Source::is_ready) || self.ticker().is_some_and(Source::is_ready)
    }
}

fn once(scheduled: Time) -> Tick {
    Tick { scheduled, missed: 0 }
}

type Checked = Result<(), TestCaseError>;

impl World {
    fn new(slack: u64) -> (Reactor, Rc<World>) {
        let sim = Sim::new();
        let reactor = Reactor::builder().slack(d(slack)).build_with(sim.clone()).unwrap();
        let world = World {
            sim,
            handle: reactor.handle(),
            remote: reactor.remote(),
            model: RefCell::new(Model::new(slack)),
            reals: RefCell::default(),
            held: RefCell::default(),
            ids: RefCell::default(),
            made_in_calls: Cell::new(0),
            callback_error: RefCell::default(),
        };
        (reactor, Rc::new(world))
    }

    fn observed(&self) -> u64 {
        self.sim.now().as_nanos()
    }

    fn resolve(&self, when: When, i: Option<usize>) -> u64 {
        let model = self.model.borrow();
        let base = i.and_then(|i| model.entries[i].deadline()).filter(|&base| base != NEVER);
        let base = base.unwrap_or(model.now);
        match when {
            When::In(d) => model.now + d,
            When::At(t) => t,
            When::Earlier(d) => base.saturating_sub(d),
            When::Later(d) => base.saturating_add(d),
            When::Never => NEVER,
        }
    }

    /// Returns the slot of a timer, from its id: `TimerId(reactor:slot.generation)`.
    fn slot(&self, i: usize) -> u32 {
        let id = format!("{:?}", self.ids.borrow()[i]);
        let slot = id.split([':', '.']).nth(1).and_then(|slot| slot.parse().ok());
        slot.unwrap_or_else(|| panic!("no slot in {id}"))
    }

    /// Returns the chosen source among all that were made.
    fn pick(&self, which: Which, me: Option<usize>) -> Option<usize> {
        let count = self.ids.borrow().len();
        match me {
            Some(me) if which % 3 == 0 => Some(me),
            _ => (count > 0).then(|| which / 3 % count),
        }
    }

    /// Calls `f` with the user's handle of a source, unless it was dropped.
    fn with<R>(&self, i: usize, f: impl FnOnce(&Real) -> R) -> Option<R> {
        let real = self.reals.borrow()[i].clone();
        real.as_deref().map(f)
    }

    /// Calls `f` with the user's handle of a source, if it is a ticker.
    fn with_ticker<R>(&self, i: usize, f: impl FnOnce(&Ticker) -> R) -> Option<R> {
        self.with(i, |real| real.ticker().map(f)).flatten()
    }

    /// Takes the user's handle of a source, unless a select holds it.
    fn take_real(&self, i: usize) -> Option<Real> {
        let mut reals = self.reals.borrow_mut();
        if self.held.borrow().contains(&i) {
            None
        } else {
            reals[i].take().and_then(Rc::into_inner)
        }
    }

    fn create(self: &Rc<World>, kind: Kind, when: When, slack: Option<u64>, calls: &[Op]) {
        let at = self.resolve(when, None);
        // A ticker ticks every `period` from now on, or from `at` on.
        let (now, period) =
            (self.model.borrow().now, if at == NEVER { NEVER } else { at % 12 + 1 });
        let i = self.model.borrow_mut().create(kind, slack, period);
        let key = i as u64;
        let (real, id) = match kind {
            Kind::Timer => {
                let timer = match when {
                    When::In(after) => self.handle.after(d(after)),
                    When::Never => self.handle.after(Duration::MAX),
                    _ => self.handle.at(t(at)),
                };
                let timer = slack
                    .into_iter()
                    .fold(timer.with_key(key), |timer, slack| timer.slack(d(slack)));
                let id = timer.id();
                (Some(Real::Timer(timer)), id)
            }
            Kind::Ticker(behavior) => {
                let ticker = match when {
                    When::In(_) | When::Never => self.handle.every(d(period)).unwrap(),
                    _ => self.handle.every_at(t(at), d(period)).unwrap(),
                };
                let ticker = ticker.with_key(key).missed_tick_behavior(behavior);
                let ticker = slack.into_iter().fold(ticker, |ticker, slack| ticker.slack(d(slack)));
                let id = ticker.id();
                (Some(Real::Ticker(ticker)), id)
            }
            Kind::Callback | Kind::Detached => {
                let (world, calls, active) =
                    (self.clone(), calls.to_vec(), Cell::new(ACTIVE_CALLS));
                let f = move |cx: &CallbackContext<'_>| world.call(i, cx, &calls, &active);
                let callback = match when {
                    When::In(after) => self.handle.call_after(d(after), f),
                    When::Never => self.handle.call_after(Duration::MAX, f),
                    _ => self.handle.call_at(t(at), f),
                };
                let callback =
                    slack.into_iter().fold(callback, |callback, slack| callback.slack(d(slack)));
                let id = callback.id();
                match kind {
                    Kind::Detached => {
                        assert_eq!(callback.detach(), id);
                        (None, id)
                    }
                    _ => (Some(Real::Callback(callback)), id),
                }
            }
        };
        let first = match (kind, when) {
            (Kind::Ticker(_), When::In(_) | When::Never) => now.saturating_add(period),
            _ => at,
        };
        self.model.borrow_mut().arm(i, first);
        self.reals.borrow_mut().push(real.map(Rc::new));
        self.ids.borrow_mut().push(id);
    }

    /// The body of each callback.
    fn call(
        self: &Rc<World>,
        i: usize,
        firing: &CallbackContext<'_>,
        calls: &[Op],
        active: &Cell<u32>,
    ) {
        let scheduled = firing.scheduled().as_nanos();
        let reading = self.handle.now().as_nanos();
        let called = self.model.borrow_mut().called(i, scheduled, self.observed(), reading);
        let result = called.and_then(|()| {
            prop_assert_eq!(firing.id(), self.ids.borrow()[i]);
            if active.get() == 0 {
                return Ok(());
            }
            active.set(active.get() - 1);
            self.model.borrow_mut().uncertain |= !calls.is_empty();
            calls.iter().try_for_each(|op| self.run(op, Some((i, firing))))
        });
        let mut model = self.model.borrow_mut();
        model.entries[i].running = false;
        model.release_detached(i);
        if let Err(error) = result {
            self.callback_error.borrow_mut().get_or_insert(error);
        }
    }

    /// Takes from a source, and compares with the model.
    fn take(&self, i: usize) -> Checked {
        let got = self.with(i, Real::take).flatten();
        let expected = self.model.borrow_mut().take(i);
        prop_assert_eq!(got, expected);
        prop_assert!(got.is_some());
        Ok(())
    }

    fn check_events(&self, events: &Events, capacity: usize, take: u8) -> Checked {
        let expected = self.model.borrow_mut().report(capacity);
        prop_assert_eq!(keys(events), expected.iter().map(|&i| i as u64).collect::<Vec<_>>());
        for (n, i) in expected.into_iter().enumerate() {
            if take >> (n % 8) & 1 == 1 {
                self.take(i)?;
            }
        }
        Ok(())
    }

    /// Fails if a callback has found an error.
    fn check_callbacks(&self) -> Checked {
        self.callback_error.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Compares the choice of a biased select with the model.
    fn check_choice(&self, cases: &[usize], found: bool, got: Option<Tick>) -> Checked {
        let chosen = cases.iter().copied().find(|i| found && self.model.borrow().ready.contains(i));
        let expected = chosen.and_then(|i| self.model.borrow_mut().take(i));
        prop_assert_eq!(got, expected);
        Ok(())
    }

    /// Runs a wait, and compares with the model.
    fn wait<R>(
        &self,
        awaited: Awaited,
        patience: Option<u64>,
        wait: impl FnOnce() -> io::Result<R>,
    ) -> Result<(bool, Option<R>), TestCaseError> {
        let until = patience.map_or(NEVER, |d| self.model.borrow().now.saturating_add(d));
        self.model.borrow_mut().begin(awaited, until, patience.is_some_and(|d| d > 0));
        let result = wait();
        self.check_callbacks()?;
        let failed = result.as_ref().err().map(io::Error::kind);
        let found = self.model.borrow_mut().end(self.observed(), failed)?;
        Ok((found, result.ok()))
    }

    /// Runs a turn that does not block. In a callback the turn makes no calls.
    fn poll<R>(&self, nested: bool, poll: impl FnOnce() -> R) -> Result<R, TestCaseError> {
        if nested {
            self.model.borrow_mut().expire();
            return Ok(poll());
        }
        self.model.borrow_mut().begin(Awaited::Nothing, NEVER, false);
        let result = poll();
        self.check_callbacks()?;
        self.model.borrow_mut().settle();
        prop_assert_eq!(self.observed(), self.model.borrow().now, "a poll slept");
        prop_assert!(
            self.model.borrow().batch_is_over(),
            "not called: {:?}",
            self.model.borrow().calls
        );
        Ok(result)
    }

    fn run(self: &Rc<World>, op: &Op, caller: Option<(usize, &CallbackContext<'_>)>) -> Checked {
        let me = caller.map(|(me, _)| me);
        // Returns the callback's context if the source is the caller.
        let firing = |i: usize| caller.filter(|&(me, _)| me == i).map(|(_, firing)| firing);
        let pick = |which: Which| self.pick(which, me);
        let pick_real = |which| pick(which).and_then(|i| Some((i, self.take_real(i)?)));
        let model = || self.model.borrow_mut();
        let now = self.model.borrow().now;
        let handle = &self.handle;
        match *op {
            Op::Create(kind, when, slack, ref calls) => {
                if me.is_some() {
                    if self.made_in_calls.get() == MADE_IN_CALLS {
                        return Ok(());
                    }
                    self.made_in_calls.set(self.made_in_calls.get() + 1);
                }
                self.create(kind, when, slack, calls);
            }
            Op::Unarmed if me.is_none() => {
                let i = model().create(Kind::Timer, None, 0);
                let timer = handle.timer().with_key(i as u64);
                self.ids.borrow_mut().push(timer.id());
                self.reals.borrow_mut().push(Some(Rc::new(Real::Timer(timer))));
            }
            Op::Unarmed => {}
            Op::Advance(by) => {
                model().now += by;
                self.sim.advance(d(by));
            }
            Op::Reset(which, _) | Op::ResetNever(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let after = if let Op::Reset(_, after) = *op { after } else { NEVER };
                let ticker = self.model.borrow().entries[i].is_ticker();
                let got = match firing(i) {
                    Some(firing) => Some(firing.reset(d(after))),
                    None => self.with(i, |real| match real {
                        Real::Timer(timer) => timer.reset(d(after)),
                        Real::Callback(callback) => callback.reset(d(after)),
                        Real::Ticker(ticker) => ticker.reset(d(after)).unwrap_or(false),
                    }),
                };
                // A callback that was dropped in its own call does nothing.
                let expected = got.filter(|_| self.model.borrow().entries[i].alive).map(|_| {
                    if ticker && after == 0 {
                        return false;
                    }
                    if ticker {
                        model().entries[i].period = after;
                    }
                    model().arm(i, now.saturating_add(after))
                });
                prop_assert_eq!(got.unwrap_or(false), expected.unwrap_or(false));
            }
            Op::ResetAt(which, when) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let at = self.resolve(when, Some(i));
                let got = match firing(i) {
                    Some(firing) => Some(firing.reset_at(t(at))),
                    None => self.with(i, |real| match real {
                        Real::Timer(timer) => timer.reset_at(t(at)),
                        Real::Callback(callback) => callback.reset_at(t(at)),
                        Real::Ticker(ticker) => ticker.restart_at(t(at)),
                    }),
                };
                let expected = got
                    .filter(|_| self.model.borrow().entries[i].alive)
                    .map(|_| model().arm(i, at));
                prop_assert_eq!(got.unwrap_or(false), expected.unwrap_or(false));
            }
            Op::Stop(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let got = match firing(i) {
                    Some(firing) => Some(firing.stop()),
                    None => self.with(i, |real| match real {
                        Real::Timer(timer) => timer.stop(),
                        Real::Callback(callback) => callback.stop(),
                        Real::Ticker(ticker) => ticker.stop(),
                    }),
                };
                if let Some(got) = got {
                    prop_assert_eq!(got, model().clear(i));
                }
            }
            Op::Resume(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                if let Some(got) = self.with_ticker(i, Ticker::resume) {
                    prop_assert_eq!(got, model().resume(i));
                }
            }
            Op::Restart(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                if let Some(got) = self.with_ticker(i, Ticker::restart) {
                    let next = now.saturating_add(self.model.borrow().entries[i].period);
                    prop_assert_eq!(got, model().arm(i, next));
                }
            }
            Op::RestartAt(which, when) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let at = self.resolve(when, Some(i));
                if let Some(got) = self.with_ticker(i, |ticker| ticker.restart_at(t(at))) {
                    prop_assert_eq!(got, model().arm(i, at));
                }
            }
            Op::Behavior(which, behavior) => {
                let Some(i) = pick(which) else { return Ok(()) };
                self.with_ticker(i, |ticker| ticker.set_missed_tick_behavior(behavior));
                if self.with(i, |_| ()).is_some() {
                    model().entries[i].behavior = behavior;
                }
            }
            Op::Slack(which, slack) => {
                let Some((i, real)) = pick_real(which) else { return Ok(()) };
                model().entries[i].slack = Some(slack);
                let real = match real {
                    Real::Timer(timer) => Real::Timer(timer.slack(d(slack))),
                    Real::Ticker(ticker) => Real::Ticker(ticker.slack(d(slack))),
                    Real::Callback(callback) => Real::Callback(callback.slack(d(slack))),
                };
                self.reals.borrow_mut()[i] = Some(Rc::new(real));
            }
            Op::Drop(which) => {
                let Some((i, real)) = pick_real(which) else { return Ok(()) };
                model().release(i);
                drop(real);
            }
            Op::Detach(which) => {
                let Some((i, real)) = pick_real(which) else { return Ok(()) };
                match real {
                    Real::Callback(callback) => {
                        prop_assert_eq!(callback.detach(), self.ids.borrow()[i]);
                        model().entries[i].detached = true;
                        model().release_detached(i);
                    }
                    other => self.reals.borrow_mut()[i] = Some(Rc::new(other)),
                }
            }
            Op::StopById(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let got = handle.stop_timer(self.ids.borrow()[i]);
                prop_assert_eq!(got, model().stop_by_id(i));
            }
            Op::ResetById(which, after) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let got = handle.reset_timer(self.ids.borrow()[i], d(after));
                prop_assert_eq!(got, model().reset_by_id(i, now + after, Some(after)));
            }
            Op::ResetAtById(which, when) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let at = self.resolve(when, Some(i));
                let got = handle.reset_timer_at(self.ids.borrow()[i], t(at));
                prop_assert_eq!(got, model().reset_by_id(i, at, None));
            }
            Op::StopRemotely(which) => {
                let Some(i) = pick(which) else { return Ok(()) };
                prop_assert_eq!(self.remote.stop(self.ids.borrow()[i]), Ok(()));
                model().post(self.slot(i), Post::Stop(i));
            }
            Op::ResetRemotely(which, after) => {
                let Some(i) = pick(which) else { return Ok(()) };
                let got = self.remote.reset(self.ids.borrow()[i], d(after));
                if self.model.borrow().entries[i].is_ticker() && after == 0 {
                    prop_assert_eq!(got, Err(TimerError::ZeroPeriod));
                } else {
                    prop_assert_eq!(got, Ok(()));
                    model().post(self.slot(i), Post::Reset(i, now + after, after));
                }
            }
            Op::TryWait(capacity, take) => {
                let mut events = Events::with_capacity(capacity);
                self.poll(me.is_some(), || handle.try_wait(&mut events))?.unwrap();
                self.check_events(&events, capacity, take)?;
            }
            _ if me.is_some() => unreachable!("a callback does not block"),
            Op::Wait(capacity, take) => {
                let mut events = Events::with_capacity(capacity);
                self.wait(Awaited::Anything, None, || handle.wait(&mut events))?;
                self.check_events(&events, capacity, take)?;
            }
            Op::WaitTimeout(capacity, after) => {
                let mut events = Events::with_capacity(capacity);
                let wait = || handle.wait_timeout(&mut events, d(after));
                self.wait(Awaited::Anything, Some(after), wait)?;
                self.check_events(&events, capacity, u8::MAX)?;
            }
            Op::Sleep(after) => {
                self.wait(Awaited::Nothing, Some(after), || handle.sleep_blocking(d(after)))?;
            }
            Op::SelectDefault(a, b) | Op::SelectBlocking(a, b) | Op::SelectTimeout(a, b, _) => {
                self.with_cases(&[a, b], |cases, reals| self.select(op, cases, reals))?;
            }
            Op::SetTry(ref which) | Op::SetWait(ref which) | Op::SetTimeout(ref which, _) => {
                self.with_cases(which, |cases, reals| {
                    if cases.is_empty() { Ok(()) } else { self.set(op, cases, reals) }
                })?;
            }
        }
        Ok(())
    }

    /// Calls `f` with those sources that can be cases of a select.
    fn with_cases(
        &self,
        which: &[Which],
        f: impl FnOnce(&[usize], &[Rc<Real>]) -> Checked,
    ) -> Checked {
        let mut cases = Vec::new();
        for i in which.iter().filter_map(|&which| self.pick(which, None)) {
            let entry = &self.model.borrow().entries[i];
            if entry.alive && !entry.is_callback() && !cases.contains(&i) {
                cases.push(i);
            }
        }
        let reals: Vec<Rc<Real>> =
            cases.iter().filter_map(|&i| self.reals.borrow()[i].clone()).collect();
        *self.held.borrow_mut() = cases.clone();
        let result = f(&cases, &reals);
        self.held.borrow_mut().clear();
        result
    }

    /// Runs a biased `select!` of up to two sources.
    fn select(&self, op: &Op, cases: &[usize], reals: &[Rc<Real>]) -> Checked {
        let (a, b) = (reals.first(), reals.get(1));
        let ((a1, a2), (b1, b2)) = (parts(a), parts(b));
        let handle = &self.handle;
        let awaited = Awaited::These(cases.to_vec());
        let (found, got) = match *op {
            Op::SelectDefault(..) => (
                true,
                Some(self.poll(false, || {
                    select! { handle; biased;
                        recv(a1) -> due => Some(once(due)),
                        recv(a2) -> tick => Some(tick),
                        recv(b1) -> due => Some(once(due)),
                        recv(b2) -> tick => Some(tick),
                        default => None,
                    }
                })?),
            ),
            Op::SelectTimeout(_, _, after) => self.wait(awaited, Some(after), || {
                Ok(select! { handle; biased;
                    recv(a1) -> due => Some(once(due)),
                    recv(a2) -> tick => Some(tick),
                    recv(b1) -> due => Some(once(due)),
                    recv(b2) -> tick => Some(tick),
                    default(d(after)) => None,
                    error -> error => return Err(error),
                })
            })?,
            _ => self.wait(awaited, None, || {
                Ok(select! { handle; biased;
                    recv(a1) -> due => Some(once(due)),
                    recv(a2) -> tick => Some(tick),
                    recv(b1) -> due => Some(once(due)),
                    recv(b2) -> tick => Some(tick),
                    error -> error => return Err(error),
                })
            })?,
        };
        self.check_choice(cases, found, got.flatten())
    }

    /// Runs a biased `Select` of any size.
    fn set(&self, op: &Op, cases: &[usize], reals: &[Rc<Real>]) -> Checked {
        let mut set = Select::biased(&self.handle);
        for real in reals {
            match &**real {
                Real::Timer(timer) => set.recv(timer),
                Real::Ticker(ticker) => set.recv(ticker),
                Real::Callback(_) => unreachable!("no source"),
            };
        }
        let awaited = Awaited::These(cases.to_vec());
        let received = |chosen: Selected<'_>| match &*reals[chosen.index()] {
            Real::Timer(timer) => chosen.recv(timer).map(once),
            Real::Ticker(ticker) => chosen.recv(ticker),
            Real::Callback(_) => None,
        };
        let (found, got) = match *op {
            Op::SetTry(_) => {
                let got =
                    self.poll(false, || set.try_wait().map(|chosen| chosen.and_then(received)))?;
                (true, got.ok())
            }
            Op::SetTimeout(_, after) => {
                let wait = || Ok(set.wait_timeout(d(after))?.and_then(received));
                self.wait(awaited, Some(after), wait)?
            }
            _ => self.wait(awaited, None, || Ok(received(set.wait()?)))?,
        };
        self.check_choice(cases, found, got.flatten())
    }

    /// Compares everything that can be read without a turn.
    fn check(&self) -> Checked {
        let stats = self.handle.stats();
        let (mut model, reals, ids) =
            (self.model.borrow_mut(), self.reals.borrow(), self.ids.borrow());
        if std::mem::replace(&mut model.uncertain, false) {
            model.coalesced = stats.coalesced;
        }
        for (i, entry) in model.entries.iter().enumerate() {
            prop_assert_eq!(self.handle.is_live(ids[i]), entry.alive, "{}: {:?}", i, entry);
            let Some(real) = &reals[i] else { continue };
            prop_assert_eq!(
                real.deadline().map(Time::as_nanos),
                entry.deadline(),
                "{}: {:?}",
                i,
                entry
            );
            let ready = !entry.is_callback() && matches!(entry.pending, Pending::Expired(_));
            prop_assert_eq!(real.is_ready(), ready, "{}: {:?}", i, entry);
            if let Real::Ticker(ticker) = &**real {
                prop_assert_eq!(ticker.period(), Duration::from_nanos(entry.period));
            }
        }
        prop_assert_eq!(stats.live, model.live());
        let counts = (stats.expired, stats.called, stats.coalesced, stats.stale);
        prop_assert_eq!(counts, (model.expired, model.called, model.coalesced, model.stale));
        Ok(())
    }
}

/// Returns a case for each type.
fn parts(real: Option<&Rc<Real>>) -> (Option<&Timer>, Option<&Ticker>) {
    (real.and_then(|real| real.timer()), real.and_then(|real| real.ticker()))
}

fn run(slack: u64, ops: &[Op]) -> Checked {
    let (reactor, world) = World::new(slack);
    for op in ops {
        world.run(op, None)?;
        world.check()?;
    }
    // At the end all armed sources fire, in order.
    for op in [
        Op::Advance(10_000),
        Op::TryWait(3, u8::MAX),
        Op::TryWait(1_000, u8::MAX),
        Op::Sleep(10_000),
    ] {
        world.run(&op, None)?;
        world.check()?;
    }
    drop(reactor);
    prop_assert_eq!(Rc::strong_count(&world), 1, "the reactor's drop must drop the closures");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Each value that arrives is due and unstopped, in order, and comes once. No value is missing.
    /// Every result and every sleep is as predicted.
    #[test]
    fn timers_tickers_and_callbacks_match_the_model(
        slack in prop_oneof![2 => Just(0), 1 => 1..20u64],
        ops in vec(op(), 1..60),
    ) {
        run(slack, &ops)?;
    }
}

// Faults that the model has found.

#[test]
fn a_callback_found_due_is_called_before_sleeping() {
    let (sim, reactor) = simulated();
    let clock = sim.clone();
    let _slow = reactor.call_after(ms(10), move |cx| {
        clock.advance(ms(5));
        cx.try_wait(&mut Events::with_capacity(1)).unwrap();
    });
    let (clock, at) = (sim.clone(), Rc::new(Cell::new(Time::ZERO)));
    let called = at.clone();
    let _other = reactor.call_after(ms(11), move |_| called.set(clock.now()));
    reactor.sleep_blocking(ms(1_000)).unwrap();
    assert_eq!(at.get(), Time::ZERO + ms(15));
}

#[test]
fn a_callback_reset_to_zero_fires_next_turn() {
    let calls = |reactor: &Reactor, sleep| {
        let mut left = 5;
        let _again = reactor.call_after(Duration::ZERO, move |cx| {
            left -= 1;
            if left > 0 {
                cx.reset_at(Time::ZERO);
            }
        });
        reactor.sleep_blocking(sleep).unwrap();
        reactor.stats().called
    };
    assert_eq!(calls(&simulated().1, ms(50)), 5);
    // Real time, with longer and longer sleeps: a busy machine may delay the thread until the sleep
    // ends.
    assert!([50, 500, 5_000, 50_000].iter().any(|&n| calls(&Reactor::new().unwrap(), ms(n)) == 5));
}

#[test]
fn a_callback_after_the_timeout_is_called_later() {
    let callback = |ops| Op::Create(Kind::Callback, When::In(0), None, ops);
    // Multiples of three mean the callback itself.
    let first = callback(vec![Op::Reset(12, 3), Op::Advance(3)]);
    let second =
        callback(vec![Op::ResetAtById(21, When::At(0)), Op::Advance(4), Op::TryWait(1, 0)]);
    // The second callback is called 1 ns before the end, and the first after the end. Then only the
    // second is called again.
    run(0, &[first, Op::Advance(5), second, Op::Sleep(8)]).unwrap();
}

/// The first callback runs at 13, after the end of the sleep. Then it is due again at 16.
#[test]
fn a_late_sleep_calls_a_callback_once() {
    use self::{Kind::*, Op::*, When::*};
    let ops = [
        Create(Timer, In(0), None, vec![]),
        Create(Timer, In(0), None, vec![]),
        Create(Timer, At(0), None, vec![]),
        ResetNever(0),
        Create(Callback, In(0), None, vec![ResetById(1024362909408606609, 3), Advance(3)]),
        Create(Callback, In(1), None, vec![TryWait(1, 0), Advance(10)]),
        Sleep(4),
    ];
    run(0, &ops).unwrap();
}

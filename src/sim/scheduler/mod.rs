//! The scheduler of a simulated world: one of several threads has the turn, on one virtual clock.
//!
//! The thread with the turn runs until its reactor blocks. Inside [`Driver::wait`] that thread then
//! chooses the next step:
//!
//! 1. If a member was killed, that member ends.
//! 2. Otherwise a member that can go on runs, or the first due message arrives. The seed chooses. A
//!    member can go on if it was woken, if its deadline has come, or if it has not begun.
//! 3. If there is neither, the clock jumps to the next deadline or message, and step 2 follows.
//! 4. Without a deadline or message before the end of the run, the turn goes back to the caller.
//!
//! Wake-ups and messages come only from the thread with the turn, so a seed makes one history.
//!
//! # The end of a member
//! A member keeps the turn until its thread-locals are destroyed, because their drops may send.
//! [`Exit`] is destroyed last, because it was set first. It gives the turn to the caller, which
//! joins the thread and then chooses the next step. So no code of an ended member runs beside
//! another member, also if a system destroys thread-locals in another order.
//!
//! # Locks
//! The scheduler holds `state` while it chooses, and never while user code runs. A thread that
//! holds `woken` takes no other lock.
//!
//! [`Driver::wait`]: crate::driver::Driver::wait
//! [`Exit`]: super::member::Exit
//!
//! Longer than 500 lines: nearly all of the file is one type behind one lock, and each step relies
//! on the state that the other steps leave.

mod delivery;
mod drift;
mod state;
mod woken;

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

pub(super) use self::delivery::{Delivery, Fate, quietly};
pub(super) use self::drift::Drift;
pub(super) use self::state::{Body, End, Stuck};
use self::state::{Phase, Record, State};
pub(super) use self::woken::Flag;
use self::woken::Woken;
use super::history::{Happening, History};
use super::member::{Driven, Life, MemberDriver, may_panic, waits_for};
use crate::driver::VirtualClock;
use crate::sync::{Condvar, Mutex, MutexGuard, unpoisoned};
use crate::sys::Time;

/// The number of a member, which is never used again.
pub(super) type Id = usize;

/// The number of the thread that called `run`, `kill` or `close`.
const CALLER: Id = usize::MAX;

/// The times that a killed member may catch its unwinding, or wait while it unwinds.
const PATIENCE: u32 = 100;

/// The number of polls at one instant that may find nothing.
const POLLS: u32 = 1_000_000;

/// The scheduler of a world. The docs of the module describe it.
pub(super) struct Scheduler {
    clock: VirtualClock,
    /// The thread with the turn.
    holder: AtomicUsize,
    state: Mutex<State>,
    /// Signals that a caller is done, or that a member has ended.
    changed: Condvar,
    woken: Arc<Woken>,
    recording: AtomicBool,
}

/// The payload that unwinds a killed member, without a call of the panic hook.
pub(super) struct Killed;

/// The ways in which a member gives up its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The member sleeps until it is woken, or until this time on its own clock.
    Until(Time),
    /// The other members that can go on run first.
    Yield,
    /// Any member that can go on runs, perhaps the same one.
    Poll,
}

thread_local! {
    /// The schedulers whose turn this thread has, or whose run this thread drives.
    static TURNS: RefCell<Vec<*const Scheduler>> = const { RefCell::new(Vec::new()) };
}

impl Scheduler {
    pub(super) fn new(seed: u64, start: Time, budget: u64) -> Scheduler {
        Scheduler {
            clock: VirtualClock::new(start),
            holder: AtomicUsize::new(CALLER),
            state: Mutex::new(State::new(seed, budget)),
            changed: Condvar::new(),
            woken: Arc::default(),
            recording: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// Returns the number of times that the turn went to another thread.
    pub(super) fn handovers(&self) -> u64 {
        self.lock().handovers
    }

    /// Returns the number of choices that chance has made.
    pub(super) fn choices(&self) -> u64 {
        let state = self.lock();
        state.choices.min(state.budget)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn random(&self) -> u64 {
        self.lock().random.next()
    }

    /// Returns a random number for the network, or `None` when no choices are left.
    pub(super) fn choice(&self) -> Option<u64> {
        self.lock().choice()
    }

    pub(super) fn record(&self) {
        self.recording.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Adds a happening to the history, if one is recorded.
    pub(super) fn note(&self, what: impl FnOnce() -> Happening) {
        if self.recording.load(Ordering::Relaxed) {
            let what = what();
            self.lock().history.push((self.clock.now(), what));
        }
    }

    fn note_in(&self, state: &mut State, what: impl FnOnce() -> Happening) {
        if self.recording.load(Ordering::Relaxed) {
            state.history.push((self.clock.now(), what()));
        }
    }

    pub(super) fn history(&self) -> History {
        History::new(self.lock().history.clone())
    }

    /// Adds a message that the thread with the turn settles at `at`. Messages of one instant come
    /// in the order of `tie`. Messages with the same `tie` come in the order of these calls.
    pub(super) fn post(&self, at: Time, tie: u64, delivery: Delivery) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return delivery.settle(Fate::Lost);
        }
        state.posted += 1;
        let key = (at, tie, state.posted);
        state.deliveries.insert(key, delivery);
    }

    /// Takes the messages on their way through these links.
    pub(super) fn recall(&self, link: impl Fn(usize) -> bool) -> Vec<Delivery> {
        let deliveries = &mut self.lock().deliveries;
        let keys: Vec<_> = deliveries
            .iter()
            .filter(|(_, delivery)| link(delivery.link))
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| deliveries.remove(key)).collect()
    }

    /// Returns true if a member has or had this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.lock().known.contains(name)
    }

    /// Adds a member, which begins in its first turn. The error has the reason, and the body that
    /// did not begin.
    pub(super) fn spawn(
        self: &Arc<Scheduler>,
        name: &str,
        ppm: i64,
        body: Life,
    ) -> Result<(), (String, Life)> {
        let mut state = self.lock();
        if state.closed {
            return Err(("the SimWorld is gone".into(), body));
        }
        let is_live = |record: &Record| &*record.name == name && !record.killed;
        if state.members.values().any(is_live) {
            return Err((format!("a member `{name}` is running already"), body));
        }
        let name = match state.known.get(name) {
            Some(name) => name.clone(),
            None => {
                let name: Arc<str> = name.into();
                state.known.insert(name.clone());
                name
            }
        };
        let id = state.next_id;
        state.next_id += 1;
        let now = self.clock.now();
        let clock = if ppm == 0 { self.clock.clone() } else { VirtualClock::new(now) };
        let flag = Arc::new(Flag { set: AtomicBool::new(false), id, list: self.woken.clone() });
        let driven = Driven {
            scheduler: self.clone(),
            id,
            name: name.clone(),
            flag: flag.clone(),
            clock: clock.clone(),
        };
        let body: Body = Box::new(move || MemberDriver::live(driven, body));
        let record = Record {
            name,
            phase: Phase::New,
            flag,
            body: Arc::new(Mutex::new(Some(body))),
            thread: None,
            killed: false,
            paused: false,
            is_able: false,
            asked: false,
            waits_for: Vec::new(),
            clock: Drift { clock, origin: now, ppm },
            unwound: 0,
            refused: 0,
        };
        state.members.insert(id, record);
        state.make_able(id);
        Ok(())
    }

    /// Kills the members that `which` names, and returns their number. Each member unwinds where it
    /// waits.
    ///
    /// If the caller has the turn, the members end as soon as the caller blocks. Otherwise they
    /// have ended when this call returns, perhaps driven by another thread's call.
    ///
    /// # Panics
    /// When a member panics while it unwinds, with the same payload.
    pub(super) fn kill(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut state = self.lock();
        // Another kill of these members may not have ended. It has ended when this call returns.
        let victims: Vec<Id> = state.those(|record| which(&record.name));
        let mut killed = 0;
        for &id in &victims {
            let Some(record) = state.members.get_mut(&id) else { continue };
            if !std::mem::replace(&mut record.killed, true) {
                let name = record.name.clone();
                killed += 1;
                state.doomed.insert(id);
                self.note_in(&mut state, || Happening::Member(name, "is killed"));
            }
        }
        if self.has_turn() {
            return killed;
        }
        while victims.iter().any(|id| state.members.contains_key(id)) {
            if state.driven {
                state = self.wait_for_change(state);
                continue;
            }
            state.ending = true;
            state = self.drive(state);
            state.ending = false;
            if let End::Panic(cause) = std::mem::take(&mut state.end) {
                drop(state);
                panic::resume_unwind(cause);
            }
        }
        killed
    }

    /// Ends the world: kills all members, loses all messages on their way, and refuses new ones.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        if self.has_turn() {
            self.kill(|_| true);
        } else {
            let over = |this: &Scheduler| {
                this.kill(|_| true);
                let mut state = this.lock();
                while state.driven {
                    state = this.wait_for_change(state);
                }
                state.members.is_empty()
            };
            loop {
                let mut is_over = false;
                quietly(|| is_over = over(self));
                if is_over {
                    break;
                }
            }
        }
        for delivery in self.recall(|_| true) {
            delivery.settle(Fate::Lost);
        }
    }

    /// Lets the members run until `limit`.
    pub(super) fn run(&self, limit: Time) -> End {
        assert!(!self.has_turn(), "pollmux: a SimWorld cannot be run by one of its own members");
        let mut state = self.lock();
        while state.driven {
            state = self.wait_for_change(state);
        }
        state.limit = limit;
        let mut state = self.drive(state);
        std::mem::take(&mut state.end)
    }

    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        unpoisoned(self.changed.wait(state))
    }

    /// Hands the turn over for a caller, waits for the turn, and joins members that end.
    fn drive<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.driven = true;
        state.asked = None;
        state.caller = Some(thread::current());
        self.begin_turns();
        loop {
            self.hand_over(state, CALLER, None);
            self.await_turn(CALLER);
            state = self.lock();
            let Some(id) = state.leaving.take() else { break };
            let thread = state.members.get_mut(&id).and_then(|record| record.thread.take());
            drop(state);
            if let Some(thread) = thread {
                let _ = thread.join(); // the panic hook has printed its panic
            }
            state = self.lock();
            state.remove(id);
            self.changed.notify_all();
        }
        let _ = TURNS.try_with(|turns| turns.borrow_mut().pop());
        state.driven = false;
        self.changed.notify_all();
        state
    }

    /// Records that the calling thread has the turn, or drives a run. Its calls must not wait for
    /// others.
    pub(super) fn begin_turns(&self) {
        let _ = TURNS.try_with(|turns| turns.borrow_mut().push(self));
    }

    fn has_turn(&self) -> bool {
        // A thread whose locals are destroyed never waits.
        TURNS
            .try_with(|turns| turns.borrow().iter().any(|&turn| std::ptr::eq(turn, self)))
            .unwrap_or(true)
    }

    fn await_turn(&self, me: Id) {
        while self.holder.load(Ordering::Acquire) != me {
            thread::park();
        }
    }

    /// Gives up the turn of a member. A killed member unwinds, or gets an error if it must not
    /// unwind.
    pub(super) fn block(&self, me: Id, pause: Pause) -> io::Result<()> {
        let mut state = self.lock();
        let Some(record) = state.members.get_mut(&me) else { return Err(left()) };
        if record.phase == Phase::Left {
            return Err(left());
        }
        if !record.killed {
            let was_woken = record.flag.set.swap(false, Ordering::AcqRel);
            if was_woken && matches!(pause, Pause::Until(_)) {
                return Ok(());
            }
            let now = self.clock.now();
            let until = match pause {
                Pause::Until(t) => record.clock.world(t),
                Pause::Yield | Pause::Poll => now,
            };
            record.phase = Phase::Blocked(until);
            if let Pause::Until(_) = pause {
                if until < Time::MAX && !record.paused {
                    state.timers.insert((until, me));
                }
            } else {
                state.polls += 1;
                if state.polls > POLLS {
                    state.polls = 0;
                    let name = state.members[&me].name.clone();
                    state.set_running(me);
                    drop(state);
                    return spins(&name);
                }
            }
            if pause == Pause::Poll {
                state.make_able(me);
            }
            let last = (pause == Pause::Yield && !state.members[&me].paused).then_some(me);
            self.hand_over(state, me, last);
            self.await_turn(me);
            state = self.lock();
            while state.members.get(&me).is_some_and(|record| record.asked) {
                drop(state);
                let waits_for = waits_for();
                state = self.lock();
                if let Some(record) = state.members.get_mut(&me) {
                    (record.waits_for, record.asked) = (waits_for, false);
                }
                self.hand_over(state, me, None);
                self.await_turn(me);
                state = self.lock();
            }
        }
        let Some(record) = state.members.get_mut(&me) else { return Err(left()) };
        if !record.killed {
            return Ok(());
        }
        let name = record.name.clone();
        if !may_panic() {
            record.refused += 1;
            let refused = record.refused;
            drop(state);
            if refused > PATIENCE {
                self.strand(me, Some("waits again and again while it unwinds"));
            }
            let text = format!("the member `{name}` of a SimWorld has been killed");
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        }
        record.unwound += 1;
        let unwound = record.unwound;
        drop(state);
        if unwound > PATIENCE {
            self.strand(me, Some("catches its unwinding again and again"));
        }
        panic::resume_unwind(Box::new(Killed))
    }

    /// Ends a member whose thread cannot unwind: the thread sleeps for ever, with all that it
    /// holds.
    ///
    /// `why` becomes an error of the run.
    pub(super) fn strand(&self, me: Id, why: Option<&str>) -> ! {
        let mut state = self.lock();
        if let Some(record) = state.remove(me) {
            let unexpected = "would panic while it unwinds";
            if let Some(why) = why.or((!record.killed).then_some(unexpected)) {
                let (name, killed) = (&record.name, if record.killed { "killed " } else { "" });
                let text = format!(
                    "pollmux: the {killed}member `{name}` of a SimWorld {why}: its thread is left \
                     asleep, with all that it holds"
                );
                state.end = End::Panic(Box::new(text));
            }
            let name = record.name.clone();
            self.note_in(&mut state, || Happening::Member(name, "is left asleep for ever"));
            self.changed.notify_all();
            self.hand_over(state, me, None);
        } else {
            drop(state);
        }
        loop {
            thread::park();
        }
    }

    /// Ends a member's thread, which the caller then joins.
    pub(super) fn leave(&self, me: Id, panicked: Option<Box<dyn Any + Send>>) {
        let mut state = self.lock();
        let Some(name) = state.members.get(&me).map(|record| record.name.clone()) else { return };
        let end = if panicked.is_some() { "PANICS" } else { "has ended" };
        self.note_in(&mut state, || Happening::Member(name, end));
        if let Some(cause) = panicked {
            state.end = End::Panic(cause);
        }
        if let Some(record) = state.members.get_mut(&me) {
            record.phase = Phase::Left;
        }
        state.leaving = Some(me);
        state.handovers += 1;
        let caller = state.caller.clone();
        self.holder.store(CALLER, Ordering::Release);
        drop(state);
        if let Some(caller) = caller {
            caller.unpark();
        }
    }

    /// Pauses or resumes a member. Returns false if the member was so already.
    pub(super) fn pause(&self, name: &str, paused: bool) -> bool {
        let mut state = self.lock();
        let found =
            state.members.iter().find(|(_, record)| &*record.name == name && !record.killed);
        let Some((&id, record)) = found else { return false };
        if record.paused == paused {
            return false;
        }
        let (phase, name) = (record.phase, record.name.clone());
        let is_woken = record.flag.set.load(Ordering::Acquire);
        if let Some(record) = state.members.get_mut(&id) {
            record.paused = paused;
        }
        match phase {
            Phase::Blocked(until) if paused => {
                state.timers.remove(&(until, id));
            }
            Phase::Blocked(until) if is_woken || until <= self.clock.now() => state.make_able(id),
            Phase::Blocked(until) if until < Time::MAX => {
                state.timers.insert((until, id));
            }
            Phase::New if !paused => state.make_able(id),
            _ => {}
        }
        let verb = if paused { "is paused" } else { "is resumed" };
        self.note_in(&mut state, || Happening::Member(name, verb));
        true
    }

    /// Chooses the next member and gives it the turn. The member `me` may be chosen again.
    fn hand_over(&self, state: MutexGuard<'_, State>, me: Id, last: Option<Id>) {
        let (mut state, next) = self.next(state, last);
        let asked = state.members.get(&next).is_some_and(|record| record.asked);
        let mut is_new = false;
        if !asked && next != CALLER {
            is_new = state.members[&next].phase == Phase::New;
            let name = state.set_running(next);
            let clock = &state.members[&next].clock;
            if clock.ppm != 0 {
                clock.clock.advance_to(clock.at(self.clock.now()));
            }
            if next != me || is_new {
                self.note_in(&mut state, || Happening::Member(name, "runs"));
            }
        }
        if next == me {
            return;
        }
        state.handovers += 1;
        self.holder.store(next, Ordering::Release);
        if is_new {
            return self.start(state, next);
        }
        let thread = match state.members.get(&next) {
            Some(record) => record.thread.as_ref().map(|thread| thread.thread().clone()),
            None => state.caller.clone(),
        };
        drop(state);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// Starts the thread of a member that has the turn.
    fn start(&self, mut state: MutexGuard<'_, State>, id: Id) {
        let record = &state.members[&id];
        let body = record.body.clone();
        let take = move || {
            let body = body.lock().take();
            if let Some(body) = body {
                body();
            }
        };
        // The thread takes the lock before it ends, so the handle is stored before the join.
        match thread::Builder::new().name(record.name.to_string()).spawn(take) {
            Ok(thread) => {
                if let Some(record) = state.members.get_mut(&id) {
                    record.thread = Some(thread);
                }
            }
            Err(error) => {
                let record = state.remove(id);
                let text = format!("pollmux: no thread for a member of a SimWorld: {error}");
                state.end = End::Panic(Box::new(text));
                let caller = state.caller.clone();
                self.holder.store(CALLER, Ordering::Release);
                drop(state);
                quietly(|| drop(record));
                if let Some(caller) = caller {
                    caller.unpark();
                }
            }
        }
    }

    /// Chooses the next step, as the docs of the module say. `last` goes on only if no other member
    /// can.
    fn next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut last: Option<Id>,
    ) -> (MutexGuard<'a, State>, Id) {
        loop {
            if let End::Panic(_) = state.end {
                state.put_back(last);
                return (state, CALLER);
            }
            if let Some(&id) = state.doomed.first() {
                state.put_back(last.take());
                if state.members.get(&id).is_some_and(|record| record.phase == Phase::New) {
                    // The member never begins, and its body is dropped in its turn.
                    let record = state.remove(id);
                    drop(state);
                    quietly(|| drop(record));
                    state = self.lock();
                    self.changed.notify_all();
                    continue;
                }
                return (state, id);
            }
            if state.ending {
                state.put_back(last);
                return (state, CALLER);
            }
            if let Some(asked) = &mut state.asked {
                let Some(id) = asked.pop_front() else {
                    state.asked = None;
                    state.end = state.deadlock();
                    return (state, CALLER);
                };
                if let Some(record) = state.members.get_mut(&id) {
                    record.asked = true;
                    return (state, id);
                }
                continue;
            }
            let now = self.clock.now();
            let woken = std::mem::take(&mut *self.woken.0.lock());
            for id in woken {
                state.make_able_if_woken(id);
            }
            while let Some(&(until, id)) = state.timers.first() {
                if until > now {
                    break;
                }
                state.timers.pop_first();
                state.make_able(id);
            }
            let is_due =
                state.deliveries.first_key_value().is_some_and(|((at, _, _), _)| *at <= now);
            let members = state.able.len();
            match members + usize::from(is_due) {
                0 => {}
                count => {
                    let nth = state.pick(count, is_due);
                    if nth < members {
                        let id = state.able.swap_remove(nth);
                        if !state.goes_on(id, now) {
                            continue;
                        }
                        state.put_back(last);
                        return (state, id);
                    }
                    state.put_back(last.take());
                    if let Some((_, delivery)) = state.deliveries.pop_first() {
                        drop(state);
                        delivery.settle(Fate::Arrives);
                        state = self.lock();
                    }
                    continue;
                }
            }
            if let Some(id) = last {
                return (state, id);
            }
            let next = match state.next_due() {
                Some(next) => next,
                None if state.members.is_empty() => {
                    state.end = End::Over;
                    return (state, CALLER);
                }
                None => {
                    let blocked = |record: &Record| matches!(record.phase, Phase::Blocked(_));
                    state.asked = Some(state.those(blocked));
                    continue;
                }
            };
            self.clock.advance_to(next.min(state.limit));
            state.polls = 0;
            if next > state.limit {
                state.end = End::Limit;
                return (state, CALLER);
            }
        }
    }
}

#[cold]
fn left() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the member has left its SimWorld")
}

/// Fails for a member that polls without end, which stops the time.
#[cold]
fn spins(name: &str) -> io::Result<()> {
    let text = format!(
        "pollmux: the member `{name}` of a SimWorld spins: it has polled {POLLS} times at one \
         instant, and no time passes while it does: wait for something, or for some time"
    );
    if may_panic() {
        panic!("{text}");
    }
    Err(io::Error::new(io::ErrorKind::Deadlock, text))
}

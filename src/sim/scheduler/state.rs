//! The state of the scheduler: its members, the messages on their way, and the random generator.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, Thread};

use super::Id;
use super::delivery::Delivery;
use super::drift::Drift;
use super::woken::Flag;
use crate::sim::history::Happening;
use crate::sim::member::WaitsFor;
use crate::sync::{Mutex, Random};
use crate::sys::Time;

/// The body of a member, which runs on its thread.
pub(in crate::sim) type Body = Box<dyn FnOnce() + Send>;

/// A member that has not ended.
pub(super) struct Record {
    pub(super) name: Arc<str>,
    pub(super) phase: Phase,
    pub(super) flag: Arc<Flag>,
    /// The body, until the member has begun.
    pub(super) body: Arc<Mutex<Option<Body>>>,
    pub(super) thread: Option<JoinHandle<()>>,
    pub(super) killed: bool,
    pub(super) paused: bool,
    /// True if the member is in `able`.
    pub(super) is_able: bool,
    pub(super) asked: bool,
    pub(super) waits_for: Vec<WaitsFor>,
    pub(super) clock: Drift,
    /// The number of times that the killed member was unwound.
    pub(super) unwound: u32,
    /// The number of waits that failed while the killed member unwinds.
    pub(super) refused: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The member has not begun.
    New,
    /// The member has the turn.
    Running,
    /// The member waits in its driver, until it is woken or until this time.
    Blocked(Time),
    /// The member has ended, and its thread has destroyed its thread-locals.
    Left,
}

/// The reason why a run has come back.
#[derive(Default)]
pub(in crate::sim) enum End {
    /// Every member has returned.
    #[default]
    Over,
    /// The time limit is reached.
    Limit,
    /// These members wait, and no deadline or message is left.
    Deadlock(Vec<Stuck>),
    /// A member has panicked.
    Panic(Box<dyn Any + Send>),
}

/// A member that waits for an event that cannot come.
pub(in crate::sim) struct Stuck {
    pub(in crate::sim) name: Arc<str>,
    pub(in crate::sim) until: Time,
    pub(in crate::sim) paused: bool,
    pub(in crate::sim) waits_for: Vec<WaitsFor>,
}

/// The state behind the lock.
#[derive(Default)]
pub(super) struct State {
    /// The members that have not ended.
    pub(super) members: BTreeMap<Id, Record>,
    pub(super) next_id: Id,
    /// The names of all present and former members.
    pub(super) known: BTreeSet<Arc<str>>,
    /// The members that can go on. Some may have been paused or killed since.
    pub(super) able: Vec<Id>,
    /// The deadlines of the blocked members that are not paused.
    pub(super) timers: BTreeSet<(Time, Id)>,
    /// The killed members that have not ended.
    pub(super) doomed: BTreeSet<Id>,
    /// True if a thread is in `run`, `kill` or `close`.
    pub(super) driven: bool,
    pub(super) caller: Option<Thread>,
    /// The member whose thread is to be joined.
    pub(super) leaving: Option<Id>,
    /// The members that must report their sources, or `None` without a report.
    pub(super) asked: Option<VecDeque<Id>>,
    /// The end of the run. Later deadlines and messages wait for the next run.
    pub(super) limit: Time,
    /// True if only killed members run.
    pub(super) ending: bool,
    /// True if the world has ended.
    pub(super) closed: bool,
    pub(super) end: End,
    /// The messages on their way, by arrival, a random number, and the order of sending.
    pub(super) deliveries: BTreeMap<(Time, u64, u64), Delivery>,
    pub(super) posted: u64,
    /// The generator of all random choices.
    pub(super) random: Random,
    /// The number of choices so far. Only the first `budget` choices are random.
    pub(super) choices: u64,
    pub(super) budget: u64,
    pub(super) handovers: u64,
    /// The number of polls since the clock has moved.
    pub(super) polls: u32,
    pub(super) history: Vec<(Time, Happening)>,
}

impl State {
    pub(super) fn new(seed: u64, budget: u64) -> State {
        State { random: Random::new(seed), budget, ..State::default() }
    }

    /// Returns the members for which `which` is true, in the order in which they were added.
    pub(super) fn those<C: FromIterator<Id>>(&self, which: impl Fn(&Record) -> bool) -> C {
        self.members.iter().filter(|(_, record)| which(record)).map(|(&id, _)| id).collect()
    }

    pub(super) fn choice(&mut self) -> Option<u64> {
        self.choices += 1;
        let random = self.random.next();
        (self.choices <= self.budget).then_some(random)
    }

    /// Returns one of `count` numbers, all with the same chance. When no random choices are left, a
    /// due message is first, which is the last number, and then the member that has waited longest.
    pub(super) fn pick(&mut self, count: usize, is_due: bool) -> usize {
        let first = if is_due { count - 1 } else { 0 };
        match count {
            1 => 0,
            _ => self.choice().map_or(first, |random| (random % count as u64) as usize),
        }
    }

    pub(super) fn make_able(&mut self, id: Id) {
        if let Some(record) = self.members.get_mut(&id) {
            if !std::mem::replace(&mut record.is_able, true) {
                self.able.push(id);
            }
        }
    }

    pub(super) fn make_able_if_woken(&mut self, id: Id) {
        let Some(record) = self.members.get(&id) else { return };
        if matches!(record.phase, Phase::Blocked(_)) && record.flag.set.load(Ordering::Acquire) {
            self.make_able(id);
        }
    }

    /// Makes a member able that has let others run first.
    pub(super) fn put_back(&mut self, last: Option<Id>) {
        if let Some(id) = last {
            self.make_able(id);
        }
    }

    /// Returns true if a member that was taken from `able` can still go on.
    pub(super) fn goes_on(&mut self, id: Id, now: Time) -> bool {
        let Some(record) = self.members.get_mut(&id) else { return false };
        record.is_able = false;
        !record.paused
            && match record.phase {
                Phase::New => true,
                Phase::Blocked(until) => until <= now || record.flag.set.load(Ordering::Acquire),
                Phase::Running | Phase::Left => false,
            }
    }

    /// Gives a member the turn, and returns its name.
    pub(super) fn set_running(&mut self, id: Id) -> Arc<str> {
        let record = self.members.get_mut(&id).expect("the next member has a record");
        if let Phase::Blocked(until) = record.phase {
            self.timers.remove(&(until, id));
        }
        record.phase = Phase::Running;
        // The turn finds the event that has woken the member.
        record.flag.set.store(false, Ordering::Release);
        record.name.clone()
    }

    /// Removes the record of a member.
    pub(super) fn remove(&mut self, id: Id) -> Option<Record> {
        let record = self.members.remove(&id)?;
        self.doomed.remove(&id);
        if let Phase::Blocked(until) = record.phase {
            self.timers.remove(&(until, id));
        }
        if record.is_able {
            self.able.retain(|&able| able != id);
        }
        Some(record)
    }

    /// Returns the next deadline or arrival. `MAX` stands for never.
    pub(super) fn next_due(&self) -> Option<Time> {
        let deadline = self.timers.first().map(|(until, _)| *until);
        let delivery = self.deliveries.first_key_value().map(|((at, _, _), _)| *at);
        deadline.into_iter().chain(delivery).min().filter(|&t| t < Time::MAX)
    }

    /// Makes the report of the members that wait.
    pub(super) fn deadlock(&mut self) -> End {
        let stuck = self.members.values_mut().map(|record| Stuck {
            name: record.name.clone(),
            until: match record.phase {
                Phase::Blocked(until) => until,
                Phase::New | Phase::Running | Phase::Left => Time::MAX,
            },
            paused: record.paused,
            waits_for: std::mem::take(&mut record.waits_for),
        });
        End::Deadlock(stuck.collect())
    }
}

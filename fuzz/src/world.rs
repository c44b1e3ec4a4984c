//! Applies each operation to the library and to the model, and compares both.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use pollmux::channel::{self, Receiver, RecvError, SendError, Sender, TryRecvError, TrySendError};
use pollmux::context::{Cause, ContextError, Done};
use pollmux::reactor::{SourceKind, Stats, TimerError, TimerId};
use pollmux::{
    Callback, CallbackContext, Canceller, Context, Events, Handle, Inbox, Outbox, Reactor, Remote,
    Select, Sim, Source, Tick, Ticker, Time, Timer, select,
};

use support::faulty::{Faults, faulty};

use crate::model::{self, Awaited, Checked, End, Model, Posted, Receiving, ensure, fail};
use crate::ops::{
    ALARMS, CALLBACKS, CHANNELS, CONTEXTS, Case, DONES, Finish, Mode, NEVER, Op, Program, Step,
    TICKERS, TIMERS, When,
};

/// The number of calls in which a callback runs its operations. Later calls run none.
const ACTIVE_CALLS: u32 = 3;
/// The number of values in one run.
const VALUES: usize = 4_096;

pub type Coverage = BTreeMap<&'static str, u64>;

thread_local! {
    /// The world of the present run, for closures, which must be `'static` or `Send`.
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The payload of a panic that an operation causes.
struct Injected;

/// A value whose drops are counted.
pub struct Value {
    id: u32,
    drops: Arc<[AtomicU8]>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops[self.id as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
enum Receives {
    #[default]
    Gone,
    Bare(Receiver<Value>),
    Inbox(Rc<Inbox<Value>>),
}

#[derive(Default)]
struct Reals {
    timers: [Option<Rc<Timer>>; TIMERS],
    tickers: [Option<Rc<Ticker>>; TICKERS],
    callbacks: [Option<Rc<Callback>>; CALLBACKS],
    ids: [Option<TimerId>; ALARMS],
    /// The values in the closures of the callbacks.
    closures: [Option<u32>; ALARMS],
    senders: [Vec<Sender<Value>>; CHANNELS],
    outboxes: [Option<Rc<Outbox<Value>>>; CHANNELS],
    receives: [Receives; CHANNELS],
    contexts: [Option<(Context, Canceller)>; CONTEXTS],
    dones: [Option<Rc<Done>>; DONES],
}

struct World {
    sim: Sim,
    handle: Handle,
    remote: Remote,
    model: RefCell<Model>,
    reals: RefCell<Reals>,
    values: Cell<u32>,
    drops: Arc<[AtomicU8]>,
    stats: Cell<Stats>,
    /// The first difference in a closure.
    wrong: RefCell<Option<String>>,
    coverage: RefCell<Coverage>,
    /// True if each operation is printed before it runs.
    traces: bool,
}

/// A source that a case holds during a wait.
#[derive(Clone)]
enum Held {
    Timer(Rc<Timer>),
    Ticker(Rc<Ticker>),
    Inbox(Rc<Inbox<Value>>),
    Done(Rc<Done>),
    Send(Rc<Outbox<Value>>),
}

/// One of the three kinds, if the alarm is live and not detached.
type Alarm = (Option<Rc<Timer>>, Option<Rc<Ticker>>, Option<Rc<Callback>>);

/// The item of a case.
enum Item {
    Time(Time),
    Tick(Tick),
    Message(Result<Value, RecvError>),
    Cause(Cause),
    Sent(u32, Result<(), SendError<Value>>),
    /// No item, because the chosen case was abandoned.
    Nothing,
}

enum Outcome {
    Got(Case, Item),
    TimedOut,
    Failed(io::ErrorKind),
}

/// The place of an operation: in the program or in a closure.
#[derive(Clone, Copy)]
enum Place<'a> {
    Top,
    Post,
    Callback(usize, &'a CallbackContext<'a>),
}

fn time(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn duration(nanos: u64) -> Duration {
    if nanos == NEVER { Duration::MAX } else { Duration::from_nanos(nanos) }
}

/// Runs a program. The error names the difference between the library and the model.
pub fn run(program: &Program) -> (Checked, Coverage) {
    let sim = Sim::new();
    let choices = Rc::new(RefCell::new(VecDeque::new()));
    let made = match &program.faults {
        None => Reactor::with_driver(sim.clone()),
        Some(faults) => {
            let driver = Faults::by(choices.clone()).late(faults.late).failing(faults.fails);
            Reactor::with_driver(faulty(sim.clone(), driver))
        }
    };
    let reactor = match made {
        Ok(reactor) => reactor,
        Err(error) => return (Err(error.to_string()), Coverage::new()),
    };
    reactor.seed(program.seed);
    let mut model = Model::default();
    model.late = program.faults.as_ref().map_or(0, |faults| faults.late);
    let world = Rc::new(World {
        sim,
        handle: reactor.handle(),
        remote: reactor.remote(),
        model: RefCell::new(model),
        reals: RefCell::default(),
        values: Cell::new(0),
        drops: (0..VALUES).map(|_| AtomicU8::new(0)).collect(),
        stats: Cell::new(reactor.stats()),
        wrong: RefCell::default(),
        coverage: RefCell::default(),
        traces: std::env::var_os("FUZZ_TRACE").is_some(),
    });
    WORLD.set(Some(world.clone()));
    let mut result = Ok(());
    for (n, op) in program.ops.iter().enumerate() {
        if world.values.get() as usize > VALUES - 64 {
            break;
        }
        if let Some(faults) = &program.faults {
            *choices.borrow_mut() = faults.choices[n].clone().into();
        }
        result = world.top(op).map_err(|text| format!("operation {n}, {op:?} => {text}"));
        if result.is_err() {
            break;
        }
    }
    choices.borrow_mut().clear();
    if result.is_ok() {
        result =
            world.finish(reactor, program.ending).map_err(|text| format!("at the end: {text}"));
    } else {
        // A second panic must not hide the first difference.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(reactor)));
    }
    WORLD.set(None);
    let coverage = world.coverage.take();
    if result.is_err() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    }
    (result, coverage)
}

/// Runs `f` in a closure, unless a difference was found before.
fn in_world(f: impl FnOnce(&Rc<World>) -> Checked) {
    let Some(world) = WORLD.with_borrow(Clone::clone) else { return };
    if world.wrong.borrow().is_some() {
        return;
    }
    if let Err(text) = f(&world) {
        *world.wrong.borrow_mut() = Some(text);
    }
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("a panic: {}", text.unwrap_or("of another type"))
}

impl World {
    fn hit(&self, what: &'static str) {
        *self.coverage.borrow_mut().entry(what).or_default() += 1;
    }

    fn observed(&self) -> u64 {
        self.sim.now().as_nanos()
    }

    fn value(&self) -> Value {
        let id = self.values.get();
        self.values.set(id + 1);
        Value { id, drops: self.drops.clone() }
    }

    fn resolve(&self, when: When) -> u64 {
        let model = self.model.borrow();
        match when {
            When::In(d) => model.after(d),
            When::At(t) => t,
            When::With(i, d) => model.alarms[i].deadline.unwrap_or(model.now).saturating_add(d),
            When::Never => NEVER,
        }
    }

    /// Runs one operation of the program, and then all checks.
    fn top(self: &Rc<World>, op: &Op) -> Checked {
        let done = catch_unwind(AssertUnwindSafe(|| self.run(op, Place::Top)));
        match done {
            Ok(result) => {
                // A closure has found its difference first.
                if let Some(text) = self.wrong.take() {
                    return Err(text);
                }
                result?;
            }
            Err(payload) if payload.is::<Injected>() => {
                if let Some(text) = self.wrong.take() {
                    return Err(text);
                }
                self.hit("-> panic through a turn");
                let mut model = self.model.borrow_mut();
                model.end_by_panic();
                model.channels.iter_mut().for_each(|channel| channel.permits = 0);
            }
            Err(payload) => {
                let first = self.wrong.take().map(|text| format!("{text}; then "));
                return Err(first.unwrap_or_default() + &text_of(&*payload));
            }
        }
        self.check()
    }

    fn run(self: &Rc<World>, op: &Op, place: Place<'_>) -> Checked {
        self.hit(op.kind());
        if self.traces {
            eprintln!("{:>6} {op:?}", self.observed());
        }
        let i = |i: &usize| match place {
            // Callbacks often change themselves.
            Place::Callback(me, _) if *i < 2 => me,
            _ => *i,
        };
        match op {
            Op::MakeTimer(i, when) => self.make_timer(*i, Some(*when)),
            Op::MakeUnarmed(i) => self.make_timer(*i, None),
            Op::MakeTicker(i, when, period, behavior) => {
                self.make_ticker(*i, *when, *period, *behavior)
            }
            Op::MakeCallback(i, when, acts, detached) => {
                self.make_callback(*i, *when, acts, *detached)
            }
            Op::Reset(a, d) => self.reset(i(a), *d, place),
            Op::ResetAt(a, when) => self.reset_at(i(a), self.resolve(*when), place),
            Op::Stop(a) => self.stop(i(a), place),
            Op::Resume(a) => self.with_ticker(*a, |ticker, i| {
                let (got, expected) = (ticker.resume(), self.model.borrow_mut().resume(i));
                ensure!(got == expected, "resume gives {got}");
                Ok(())
            }),
            Op::Restart(a) => self.with_ticker(*a, |ticker, i| {
                let period = self.model.borrow().alarms[i].period;
                let (got, expected) = (ticker.restart(), self.model.borrow_mut().reset(i, period));
                ensure!(got == expected, "restart gives {got}");
                Ok(())
            }),
            Op::Behavior(a, behavior) => self.with_ticker(*a, |ticker, i| {
                ticker.set_missed_tick_behavior(*behavior);
                self.model.borrow_mut().alarms[i].behavior = *behavior;
                Ok(())
            }),
            Op::Drop(a) => {
                self.drop_alarm(i(a));
                Ok(())
            }
            Op::Detach(a) => {
                self.detach(TIMERS + TICKERS + a % CALLBACKS);
                Ok(())
            }
            Op::StopById(a) => self.stop_by_id(i(a)),
            Op::ResetById(a, d) => {
                let at = self.resolve(When::In(*d));
                self.reset_by_id(i(a), Some(*d), at)
            }
            Op::ResetAtById(a, when) => self.reset_by_id(i(a), None, self.resolve(*when)),
            Op::AskStop(a, thread) => self.ask(*a, None, *thread),
            Op::AskReset(a, d, thread) => self.ask(*a, Some(*d), *thread),
            Op::Take(a) => self.take(i(a)),
            Op::MakeChannel(c, capacity) => {
                self.make_channel(*c, *capacity);
                Ok(())
            }
            Op::TrySend(c, thread) => self.try_send(*c, *thread),
            Op::SendThroughOutbox(c) => self.send_through_outbox(*c),
            Op::CloneSender(c) => {
                let mut reals = self.reals.borrow_mut();
                let senders = &mut reals.senders[*c];
                if let (Some(sender), true) = (senders.first().cloned(), senders.len() < 4) {
                    senders.push(sender);
                    self.model.borrow_mut().channels[*c].senders += 1;
                }
                Ok(())
            }
            Op::DropSender(c) => {
                if let Some(sender) = { self.reals.borrow_mut().senders[*c].pop() } {
                    drop(sender);
                    self.model.borrow_mut().channels[*c].senders -= 1;
                }
                Ok(())
            }
            Op::RegisterSender(c) => self.register_sender(*c),
            Op::UnregisterSender(c) => {
                if let Some(outbox) = self.take_outbox(*c) {
                    let sender = outbox.into_inner();
                    self.reals.borrow_mut().senders[*c].push(sender);
                    let channel = &mut self.model.borrow_mut().channels[*c];
                    (channel.outbox, channel.senders) = (None, channel.senders + 1);
                }
                Ok(())
            }
            Op::DropOutbox(c) => {
                if self.take_outbox(*c).is_some() {
                    self.model.borrow_mut().channels[*c].outbox = None;
                }
                Ok(())
            }
            Op::RegisterReceiver(c) => self.register_receiver(*c),
            Op::UnregisterReceiver(c) => {
                let receives = self.take_receives(*c);
                let receives = match receives {
                    Receives::Inbox(inbox) => match Rc::try_unwrap(inbox) {
                        Ok(inbox) => {
                            self.model.borrow_mut().channels[*c].receiving = Receiving::Bare;
                            Receives::Bare(inbox.into_inner())
                        }
                        Err(inbox) => Receives::Inbox(inbox),
                    },
                    other => other,
                };
                self.reals.borrow_mut().receives[*c] = receives;
                Ok(())
            }
            Op::DropReceiver(c) => {
                self.drop_receiver(*c);
                Ok(())
            }
            Op::TryRecv(c) => self.try_recv(*c).map(drop),
            Op::Drain(c, n) => {
                for _ in 0..*n {
                    if !self.try_recv(*c)? {
                        break;
                    }
                }
                Ok(())
            }
            Op::MakeContext(x, parent, when) => self.make_context(*x, *parent, *when),
            Op::Cancel(x, thread) => self.cancel(*x, *thread),
            Op::DropContext(x) => {
                self.model.borrow_mut().contexts[*x] = None;
                let context = { self.reals.borrow_mut().contexts[*x].take() };
                drop(context);
                Ok(())
            }
            Op::MakeDone(i, x) => {
                self.make_done(*i, *x);
                Ok(())
            }
            Op::DropDone(i) => {
                self.drop_done(*i);
                Ok(())
            }
            Op::Post(acts, thread) => self.post(acts, *thread, matches!(place, Place::Top)),
            Op::Wake(on_thread) => {
                let remote = self.remote.clone();
                if *on_thread {
                    self.hit("by a thread");
                    join(thread::spawn(move || remote.wake()))?;
                } else {
                    remote.wake();
                }
                let model = &mut *self.model.borrow_mut();
                model.woken = true;
                model.woken_inside |= model.depth > 0;
                Ok(())
            }
            Op::Advance(d) => {
                if let Place::Top = place {
                    let to = self.model.borrow().after(*d);
                    self.sim.advance(duration(*d));
                    self.model.borrow_mut().now = to;
                }
                Ok(())
            }
            Op::Select { cases, mode, biased, reversed, finish } => {
                self.select(cases, *mode, *biased, *reversed, *finish)
            }
            Op::Receive(case, mode) => self.receive(*case, *mode),
            Op::Wait { capacity, mode, take, meanwhile } => {
                self.wait(*capacity, *mode, *take, meanwhile.as_deref(), place)
            }
            Op::Sleep(d) => {
                if let Place::Top = place {
                    self.begin(Awaited::Nothing, Mode::For(*d));
                    if let Err(error) = self.handle.sleep_blocking(duration(*d)) {
                        return self.failed(error.kind());
                    }
                    self.model.borrow_mut().end_with_nothing(self.observed())?;
                }
                Ok(())
            }
            Op::Session { biased, cases, steps } => self.session(*biased, cases, steps),
            Op::Panic => Ok(()),
        }
    }

    // --- Timers, tickers and callbacks.

    /// Drops the old alarm. Returns false if a select holds it, or no handle is left.
    fn replaces(&self, i: usize) -> bool {
        self.drop_alarm(i);
        !self.model.borrow().alarms[i].alive
    }

    fn make_timer(&self, i: usize, when: Option<When>) -> Checked {
        let at = when.map(|when| self.resolve(when));
        if !self.replaces(i) {
            return Ok(());
        }
        let model = &mut *self.model.borrow_mut();
        model.make(i, 0, Default::default());
        let timer = match (when, at) {
            (Some(When::In(d)), _) => self.handle.after(duration(d)),
            (_, Some(at)) => self.handle.at(time(at)),
            _ => self.handle.timer(),
        };
        at.map(|at| model.arm(i, at));
        let timer = timer.with_key(model.alarms[i].key);
        let reals = &mut *self.reals.borrow_mut();
        reals.ids[i] = Some(timer.id());
        reals.timers[i] = Some(Rc::new(timer));
        Ok(())
    }

    fn make_ticker(
        &self,
        i: usize,
        when: When,
        period: u64,
        behavior: pollmux::MissedTickBehavior,
    ) -> Checked {
        if period == 0 {
            self.hit("-> zero period");
            let made = self.handle.every(Duration::ZERO);
            ensure!(made.is_err(), "a ticker with a zero period");
            return Ok(());
        }
        let (j, at) = (TIMERS + i, self.resolve(when));
        if !self.replaces(j) {
            return Ok(());
        }
        let model = &mut *self.model.borrow_mut();
        model.make(j, period, behavior);
        let (ticker, first) = match when {
            When::In(_) => (self.handle.every(duration(period)), model.after(period)),
            _ => (self.handle.every_at(time(at), duration(period)), at),
        };
        let Ok(ticker) = ticker else { fail!("no ticker: {ticker:?}") };
        model.arm(j, first);
        let ticker = ticker.missed_tick_behavior(behavior).with_key(model.alarms[j].key);
        let reals = &mut *self.reals.borrow_mut();
        reals.ids[j] = Some(ticker.id());
        reals.tickers[i] = Some(Rc::new(ticker));
        Ok(())
    }

    fn make_callback(&self, i: usize, when: When, acts: &[Op], detached: bool) -> Checked {
        let (j, at) = (TIMERS + TICKERS + i, self.resolve(when));
        if !self.replaces(j) {
            return Ok(());
        }
        let value = self.value();
        let id = value.id;
        let life = {
            let mut model = self.model.borrow_mut();
            model.make(j, 0, Default::default());
            model.arm(j, at);
            model.values.insert(id);
            model.alarms[j].key
        };
        let (acts, mut calls): (Rc<[Op]>, u32) = (acts.into(), 0);
        let call = move |context: &CallbackContext<'_>| {
            let _held = &value;
            calls += 1;
            let acts = if calls <= ACTIVE_CALLS { &*acts } else { &[] };
            let mut panics = false;
            in_world(|world| {
                panics = world.called(j, life, context, acts)?;
                Ok(())
            });
            if panics {
                resume_unwind(Box::new(Injected));
            }
        };
        let callback = match when {
            When::In(d) => self.handle.call_after(duration(d), call),
            _ => self.handle.call_at(time(at), call),
        };
        {
            let reals = &mut *self.reals.borrow_mut();
            reals.ids[j] = Some(callback.id());
            reals.closures[j] = Some(id);
            reals.callbacks[i] = Some(Rc::new(callback));
        }
        if detached {
            self.detach(j);
        }
        Ok(())
    }

    fn called(
        self: &Rc<World>,
        i: usize,
        life: u64,
        context: &CallbackContext<'_>,
        acts: &[Op],
    ) -> Checked<bool> {
        self.hit("-> callback called");
        let scheduled = context.scheduled().as_nanos();
        self.model.borrow_mut().call_begins(i, scheduled, self.observed())?;
        ensure!(self.model.borrow().alarms[i].key == life, "a dead callback {i} was called");
        let panics = self.acts(acts, Place::Callback(i, context))?;
        self.model.borrow_mut().call_ends(i, life);
        self.forget_closures();
        Ok(panics)
    }

    /// Runs the operations of a closure. Returns true if a panic ends the closure.
    fn acts(self: &Rc<World>, acts: &[Op], place: Place<'_>) -> Checked<bool> {
        for act in acts {
            if *act == Op::Panic {
                self.hit(act.kind());
                return Ok(true);
            }
            self.run(act, place).map_err(|text| format!("in a closure, {act:?} => {text}"))?;
        }
        Ok(false)
    }

    /// Records that the closures of dead callbacks have been dropped.
    fn forget_closures(&self) {
        let model = &mut *self.model.borrow_mut();
        let reals = &mut *self.reals.borrow_mut();
        for i in (0..ALARMS).filter(|&i| !model.alarms[i].alive) {
            if let Some(id) = reals.closures[i].take() {
                model.values.remove(&id);
            }
        }
    }

    fn drop_alarm(&self, i: usize) {
        fn unique<T>(real: &mut Option<Rc<T>>) -> Option<T> {
            let only = real.take_if(|real| Rc::strong_count(real) == 1)?;
            Rc::into_inner(only)
        }
        let mut reals = self.reals.borrow_mut();
        let dropped: (Option<Timer>, Option<Ticker>, Option<Callback>) = match i {
            _ if i < TIMERS => (unique(&mut reals.timers[i]), None, None),
            _ if Model::is_ticker(i) => (None, unique(&mut reals.tickers[i - TIMERS]), None),
            _ => (None, None, unique(&mut reals.callbacks[i - TIMERS - TICKERS])),
        };
        drop(reals);
        if !matches!(dropped, (None, None, None)) {
            drop(dropped);
            self.model.borrow_mut().drop_alarm(i);
            self.forget_closures();
        }
    }

    fn detach(&self, i: usize) {
        let callback = {
            let real = &mut self.reals.borrow_mut().callbacks[i - TIMERS - TICKERS];
            real.take_if(|real| Rc::strong_count(real) == 1).and_then(Rc::into_inner)
        };
        if let Some(callback) = callback {
            callback.detach();
            let mut model = self.model.borrow_mut();
            model.alarms[i].detached = true;
            model.release_detached(i);
            drop(model);
            self.forget_closures();
            self.hit("-> detached");
        }
    }

    fn real(&self, i: usize) -> Alarm {
        let reals = self.reals.borrow();
        match i {
            _ if i < TIMERS => (reals.timers[i].clone(), None, None),
            _ if Model::is_ticker(i) => (None, reals.tickers[i - TIMERS].clone(), None),
            _ => (None, None, reals.callbacks[i - TIMERS - TICKERS].clone()),
        }
    }

    fn with_ticker(&self, a: usize, f: impl FnOnce(&Ticker, usize) -> Checked) -> Checked {
        let i = TIMERS + a % TICKERS;
        match self.real(i).1 {
            Some(ticker) => f(&ticker, i),
            None => Ok(()),
        }
    }

    fn reset(&self, i: usize, d: u64, place: Place<'_>) -> Checked {
        let got = match (self.real(i), place) {
            ((_, Some(ticker), _), _) if d == 0 => {
                ensure!(ticker.reset(Duration::ZERO).is_err(), "a zero period is no error");
                return Ok(());
            }
            ((Some(timer), ..), _) => timer.reset(duration(d)),
            ((_, Some(ticker), _), _) => ticker.reset(duration(d)).is_ok_and(|was| was),
            (_, Place::Callback(me, context)) if me == i && self.is_alive(i) => {
                context.reset(duration(d))
            }
            ((.., Some(callback)), _) => callback.reset(duration(d)),
            _ => return Ok(()),
        };
        let expected = self.model.borrow_mut().reset(i, d);
        ensure!(got == expected, "reset gives {got}");
        self.hit(if got { "-> reset: true" } else { "-> reset: false" });
        Ok(())
    }

    fn is_alive(&self, i: usize) -> bool {
        self.model.borrow().alarms[i].alive
    }

    fn reset_at(&self, i: usize, at: u64, place: Place<'_>) -> Checked {
        let t = time(at);
        let got = match (self.real(i), place) {
            ((Some(timer), ..), _) => timer.reset_at(t),
            ((_, Some(ticker), _), _) => ticker.restart_at(t),
            (_, Place::Callback(me, context)) if me == i && self.is_alive(i) => context.reset_at(t),
            ((.., Some(callback)), _) => callback.reset_at(t),
            _ => return Ok(()),
        };
        let expected = self.model.borrow_mut().arm(i, at);
        ensure!(got == expected, "reset_at gives {got}");
        Ok(())
    }

    fn stop(&self, i: usize, place: Place<'_>) -> Checked {
        let got = match (self.real(i), place) {
            ((Some(timer), ..), _) => timer.stop(),
            ((_, Some(ticker), _), _) => ticker.stop(),
            (_, Place::Callback(me, context)) if me == i && self.is_alive(i) => context.stop(),
            ((.., Some(callback)), _) => callback.stop(),
            _ => return Ok(()),
        };
        let expected = self.model.borrow_mut().stop(i);
        ensure!(got == expected, "stop gives {got}");
        self.hit(if got { "-> stop: true" } else { "-> stop: false" });
        Ok(())
    }

    fn stop_by_id(&self, i: usize) -> Checked {
        let Some(id) = self.reals.borrow().ids[i] else { return Ok(()) };
        let got = self.handle.stop_timer(id);
        let model = &mut *self.model.borrow_mut();
        let expected = if model.alarms[i].alive {
            let was = model.stop(i);
            if was {
                model.release_detached(i);
            }
            Ok(was)
        } else {
            self.hit("-> dead id");
            Err(TimerError::Dead)
        };
        ensure!(got == expected, "stop_timer gives {got:?} instead of {expected:?}");
        Ok(())
    }

    /// Resets an alarm by its id: by `reset_timer` with a `period`, otherwise by `reset_timer_at`.
    fn reset_by_id(&self, i: usize, period: Option<u64>, at: u64) -> Checked {
        let Some(id) = self.reals.borrow().ids[i] else { return Ok(()) };
        let got = match period {
            Some(d) => self.handle.reset_timer(id, duration(d)),
            None => self.handle.reset_timer_at(id, time(at)),
        };
        let model = &mut *self.model.borrow_mut();
        let expected = if Model::is_ticker(i) && period == Some(0) {
            Err(TimerError::ZeroPeriod)
        } else if model.alarms[i].alive {
            if let (Some(period), true) = (period, Model::is_ticker(i)) {
                model.alarms[i].period = period;
            }
            Ok(model.arm(i, at))
        } else {
            self.hit("-> dead id");
            Err(TimerError::Dead)
        };
        ensure!(got == expected, "by id: {got:?} instead of {expected:?}");
        Ok(())
    }

    /// Requests a reset through the `Remote` with a `period`, otherwise a stop.
    fn ask(&self, i: usize, period: Option<u64>, on_thread: bool) -> Checked {
        let Some(id) = self.reals.borrow().ids[i] else { return Ok(()) };
        let remote = self.remote.clone();
        let ask = move || match period {
            Some(d) => remote.reset(id, duration(d)),
            None => remote.stop(id),
        };
        let got = if on_thread {
            self.hit("by a thread");
            join(thread::spawn(ask))?
        } else {
            ask()
        };
        if Model::is_ticker(i) && period == Some(0) {
            ensure!(got == Err(TimerError::ZeroPeriod), "a zero period: {got:?}");
            return Ok(());
        }
        let model = &mut *self.model.borrow_mut();
        let (alarm, life, operation) = (i, model.alarms[i].key, model.operation());
        if got == Err(TimerError::Dead) {
            ensure!(!model.alarms[i].alive, "the request fails, and the alarm is live");
            return Ok(());
        }
        ensure!(got.is_ok(), "a request fails: {got:?}");
        let posted = match period {
            Some(d) => Posted::Reset { alarm, life, at: model.after(d), period: d, operation },
            None => Posted::Stop { alarm, life, operation },
        };
        model.posted.push_back(posted);
        Ok(())
    }

    /// Takes an expiry without a turn. Only an expiry that a turn has found is there.
    fn take(&self, i: usize) -> Checked {
        let item = match self.real(i) {
            (Some(timer), ..) => timer.try_take().map(Item::Time),
            (_, Some(ticker), _) => ticker.try_take().map(Item::Tick),
            _ => return Ok(()),
        };
        match item {
            Some(item) => self.taken(self.case_of(i), item),
            None => Ok(()),
        }
    }

    fn case_of(&self, i: usize) -> Case {
        if i < TIMERS { Case::Timer(i) } else { Case::Ticker(i - TIMERS) }
    }

    // --- Channels.

    fn make_channel(&self, c: usize, capacity: Option<usize>) {
        {
            let reals = self.reals.borrow();
            let held = reals.outboxes[c].as_ref().is_some_and(|real| Rc::strong_count(real) > 1)
                || matches!(&reals.receives[c], Receives::Inbox(i) if Rc::strong_count(i) > 1);
            if held {
                return;
            }
        }
        let old = {
            let reals = &mut *self.reals.borrow_mut();
            let receives = std::mem::take(&mut reals.receives[c]);
            (std::mem::take(&mut reals.senders[c]), reals.outboxes[c].take(), receives)
        };
        drop(old);
        let (sender, receiver) = match capacity {
            Some(capacity) => channel::bounded(capacity),
            None => channel::unbounded(),
        };
        {
            let reals = &mut *self.reals.borrow_mut();
            reals.senders[c].push(sender);
            reals.receives[c] = Receives::Bare(receiver);
            let model = &mut *self.model.borrow_mut();
            model.drop_receiver(c);
            let changes = model.channels[c].changes + 1;
            model.channels[c] = model::Channel {
                capacity,
                senders: 1,
                receiving: Receiving::Bare,
                changes,
                ..Default::default()
            };
        }
        // Most channels are registered.
        let n = self.values.get();
        if !n.is_multiple_of(4) {
            let _ = self.register_receiver(c);
        }
        if !n.is_multiple_of(3) {
            self.reals.borrow_mut().senders[c].extend_from_within(..);
            self.model.borrow_mut().channels[c].senders += 1;
            let _ = self.register_sender(c);
        }
    }

    fn try_send(&self, c: usize, on_thread: bool) -> Checked {
        let Some(sender) = self.reals.borrow().senders[c].last().cloned() else { return Ok(()) };
        let value = self.value();
        let id = value.id;
        let sent = if on_thread {
            self.hit("by a thread");
            join(thread::spawn(move || sender.try_send(value)))?
        } else {
            sender.try_send(value)
        };
        self.check_sent(c, id, sent)
    }

    fn send_through_outbox(&self, c: usize) -> Checked {
        let Some(outbox) = self.reals.borrow().outboxes[c].clone() else { return Ok(()) };
        let value = self.value();
        let id = value.id;
        let sent = outbox.try_send(value);
        if matches!(sent, Err(TrySendError::Full(_))) {
            let channel = &mut self.model.borrow_mut().channels[c];
            channel.asks = channel.capacity != Some(0);
        }
        self.check_sent(c, id, sent)
    }

    fn check_sent(&self, c: usize, id: u32, sent: Result<(), TrySendError<Value>>) -> Checked {
        let model = &mut *self.model.borrow_mut();
        let channel = &model.channels[c];
        match sent {
            Ok(()) => {
                ensure!(channel.receiving != Receiving::Gone, "sent, and the receiver is gone");
                ensure!(channel.has_room(), "sent without room: {channel:?}");
                model.sent(c, id);
                self.hit("-> sent");
            }
            Err(TrySendError::Full(value)) => {
                ensure!(channel.receiving != Receiving::Gone, "full, and the receiver is gone");
                ensure!(!channel.has_room(), "full in spite of room: {channel:?}");
                ensure!(value.id == id, "another value came back");
                self.hit("-> full");
            }
            Err(TrySendError::Disconnected(value)) => {
                ensure!(
                    channel.receiving == Receiving::Gone,
                    "the send fails, and the receiver is live"
                );
                ensure!(value.id == id, "another value came back");
                self.hit("-> receiver gone");
            }
        }
        Ok(())
    }

    fn register_sender(&self, c: usize) -> Checked {
        let sender = {
            let reals = &mut *self.reals.borrow_mut();
            if reals.outboxes[c].is_some() {
                return Ok(());
            }
            let Some(sender) = reals.senders[c].pop() else { return Ok(()) };
            sender
        };
        let key = self.model.borrow_mut().key();
        let Ok(outbox) = self.handle.register(sender) else { fail!("not registered") };
        self.reals.borrow_mut().outboxes[c] = Some(Rc::new(outbox.with_key(key)));
        let channel = &mut self.model.borrow_mut().channels[c];
        (channel.outbox, channel.senders) = (Some(key), channel.senders - 1);
        channel.asks = false;
        Ok(())
    }

    fn take_outbox(&self, c: usize) -> Option<Outbox<Value>> {
        let real = &mut self.reals.borrow_mut().outboxes[c];
        let outbox = real.take_if(|real| Rc::strong_count(real) == 1).and_then(Rc::into_inner)?;
        self.model.borrow_mut().channels[c].asks = false;
        Some(outbox)
    }

    fn register_receiver(&self, c: usize) -> Checked {
        let receiver = match self.take_receives(c) {
            Receives::Bare(receiver) => receiver,
            other => {
                self.reals.borrow_mut().receives[c] = other;
                return Ok(());
            }
        };
        let key = self.model.borrow_mut().key();
        let Ok(inbox) = self.handle.register_with(key, receiver) else { fail!("not registered") };
        self.reals.borrow_mut().receives[c] = Receives::Inbox(Rc::new(inbox));
        let channel = &mut self.model.borrow_mut().channels[c];
        (channel.receiving, channel.key, channel.over) = (Receiving::Inbox, key, false);
        Ok(())
    }

    fn take_receives(&self, c: usize) -> Receives {
        std::mem::take(&mut self.reals.borrow_mut().receives[c])
    }

    fn drop_receiver(&self, c: usize) {
        match self.take_receives(c) {
            Receives::Inbox(inbox) if Rc::strong_count(&inbox) > 1 => {
                self.reals.borrow_mut().receives[c] = Receives::Inbox(inbox);
            }
            receives => {
                drop(receives);
                self.model.borrow_mut().drop_receiver(c);
            }
        }
    }

    /// Receives without waiting. Returns true if there was a message.
    fn try_recv(&self, c: usize) -> Checked<bool> {
        let receives = self.take_receives(c);
        let received = match &receives {
            Receives::Gone => return Ok(false),
            Receives::Bare(receiver) => receiver.try_recv(),
            Receives::Inbox(inbox) => inbox.try_recv(),
        };
        self.reals.borrow_mut().receives[c] = receives;
        let model = &mut *self.model.borrow_mut();
        match received {
            Ok(value) => {
                self.hit("-> received");
                model.receive(c, Some(value.id)).map(|_| true)
            }
            Err(TryRecvError::Disconnected) => {
                self.hit("-> end");
                model.receive(c, None).map(|_| false)
            }
            Err(TryRecvError::Empty) => {
                let channel = &model.channels[c];
                ensure!(channel.queue.is_empty(), "empty in spite of {:?}", channel.queue);
                ensure!(!channel.is_ended(), "empty, and the channel has ended");
                Ok(false)
            }
        }
    }

    // --- Contexts.

    fn make_context(&self, x: usize, parent: Option<usize>, when: Option<When>) -> Checked {
        let at = when.map_or(NEVER, |when| self.resolve(when));
        let (of, node) = match parent {
            Some(parent) => {
                let context = self.reals.borrow().contexts[parent].as_ref().map(|c| c.0.clone());
                let Some(context) = context else { return Ok(()) };
                (context, self.model.borrow().contexts[parent])
            }
            None => (self.handle.context(), None),
        };
        let made = match when {
            None => of.with_cancel(),
            Some(When::In(d)) => of.with_timeout(duration(d)),
            Some(_) => of.with_deadline(time(at)),
        };
        let model = &mut *self.model.borrow_mut();
        let node = model.make_context(node, at);
        model.contexts[x] = Some(node);
        let old = self.reals.borrow_mut().contexts[x].replace(made);
        drop(old);
        Ok(())
    }

    fn cancel(&self, x: usize, on_thread: bool) -> Checked {
        let Some(canceller) = self.reals.borrow().contexts[x].as_ref().map(|c| c.1.clone()) else {
            return Ok(());
        };
        let got = if on_thread {
            self.hit("by a thread");
            join(thread::spawn(move || canceller.cancel()))?
        } else {
            canceller.cancel()
        };
        let model = &mut *self.model.borrow_mut();
        let Some(node) = model.contexts[x] else { return Ok(()) };
        let expected = model.cancel(node);
        ensure!(got == expected, "cancel gives {got}");
        Ok(())
    }

    fn make_done(&self, i: usize, x: usize) {
        self.drop_done(i);
        let reals = &mut *self.reals.borrow_mut();
        let (Some((context, _)), None) = (&reals.contexts[x], &reals.dones[i]) else { return };
        let model = &mut *self.model.borrow_mut();
        let (key, Some(node)) = (model.key(), model.contexts[x]) else { return };
        reals.dones[i] = Some(Rc::new(self.handle.done(context).with_key(key)));
        model.dones[i] = Some(model::Done { node, key, over: false });
    }

    fn drop_done(&self, i: usize) {
        let done = self.reals.borrow_mut().dones[i].take_if(|real| Rc::strong_count(real) == 1);
        if done.is_some() {
            drop(done);
            self.model.borrow_mut().dones[i] = None;
        }
    }

    // --- Posts.

    fn post(&self, acts: &[Op], on_thread: bool, outside: bool) -> Checked {
        let value = self.value();
        let (number, id) = {
            let model = &mut *self.model.borrow_mut();
            model.posts += 1;
            if outside {
                model.last_post = model.posts;
            }
            model.values.insert(value.id);
            let (number, operation) = (model.posts, model.operation());
            model.posted.push_back(Posted::Closure { number, operation });
            (number, value.id)
        };
        let acts = acts.to_vec();
        let post = move |_: &Handle| {
            let mut panics = false;
            in_world(|world| {
                world.hit("-> post run");
                world.model.borrow_mut().post_begins(number, world.observed())?;
                panics = world.acts(&acts, Place::Post)?;
                let model = &mut *world.model.borrow_mut();
                model.post_ends();
                model.values.remove(&id);
                Ok(())
            });
            drop(value);
            if panics {
                resume_unwind(Box::new(Injected));
            }
        };
        let remote = self.remote.clone();
        let posted = if on_thread {
            self.hit("by a thread");
            join(thread::spawn(move || remote.post(post).is_ok()))?
        } else {
            remote.post(post).is_ok()
        };
        ensure!(posted, "a post is refused");
        Ok(())
    }

    // --- Turns.

    fn begin(&self, awaited: Awaited, mode: Mode) -> u64 {
        let mut model = self.model.borrow_mut();
        let until = match mode {
            Mode::Endless => NEVER,
            Mode::Now => model.now,
            Mode::For(d) => model.after(d),
        };
        model.begin(awaited, until);
        until
    }

    fn held(&self, case: Case) -> Option<Held> {
        let reals = self.reals.borrow();
        match case {
            Case::Timer(i) => reals.timers[i].clone().map(Held::Timer),
            Case::Ticker(i) => reals.tickers[i].clone().map(Held::Ticker),
            Case::Inbox(c) => match &reals.receives[c] {
                Receives::Inbox(inbox) => Some(Held::Inbox(inbox.clone())),
                _ => None,
            },
            Case::Send(c) => reals.outboxes[c].clone().map(Held::Send),
            Case::Done(i) => reals.dones[i].clone().map(Held::Done),
        }
    }

    /// Compares the item of a chosen case with that of the model.
    fn taken(&self, case: Case, item: Item) -> Checked {
        let model = &mut *self.model.borrow_mut();
        match (case, item) {
            (Case::Timer(i), Item::Time(got)) => {
                let (scheduled, _) = model.take(i)?;
                ensure!(got == time(scheduled), "the timer gives {got:?} instead of {scheduled}");
                self.hit("-> timer");
            }
            (Case::Ticker(i), Item::Tick(got)) => {
                let (scheduled, missed) = model.take(TIMERS + i)?;
                let expected = Tick { scheduled: time(scheduled), missed };
                ensure!(got == expected, "{got:?} instead of {expected:?}");
                self.hit("-> tick");
            }
            (Case::Inbox(c), Item::Message(got)) => {
                let message = model.receive(c, got.as_ref().ok().map(|value| value.id))?;
                self.hit(if got.is_ok() { "-> message" } else { "-> end" });
                return model.check_posts_before(message);
            }
            (Case::Done(i), Item::Cause(got)) => {
                let Some(done) = &mut model.dones[i] else { fail!("no done {i}") };
                done.over = true;
                let node = done.node;
                let expected = model.ended(node).map(error_of);
                ensure!(Some(got.error()) == expected, "{got:?} instead of {expected:?}");
                self.hit("-> done");
            }
            (Case::Send(c), Item::Sent(id, got)) => {
                let gone = model.channels[c].receiving == Receiving::Gone;
                match got {
                    Ok(()) => {
                        ensure!(!gone, "sent, and the receiver is gone");
                        model.sent(c, id);
                        self.hit("-> sent by a case");
                    }
                    Err(SendError(value)) => {
                        ensure!(gone, "a permit did not send to a live receiver");
                        ensure!(value.id == id, "another value came back");
                        self.hit("-> receiver gone");
                    }
                }
            }
            (Case::Send(_), Item::Nothing) => self.hit("-> permit given back"),
            (_, Item::Nothing) => self.hit("-> choice given up"),
            _ => fail!("{case:?} gave another kind of item"),
        }
        Ok(())
    }

    fn ended(&self, outcome: Outcome) -> Checked {
        let observed = self.observed();
        let deadlock = |kind: io::ErrorKind| kind == io::ErrorKind::Deadlock;
        match outcome {
            Outcome::Got(case, item) => {
                self.model.borrow_mut().end_with(case, observed)?;
                self.taken(case, item)
            }
            Outcome::TimedOut => {
                self.hit("-> nothing");
                self.model.borrow_mut().end_with_nothing(observed)
            }
            Outcome::Failed(kind) if deadlock(kind) => {
                self.hit("-> deadlock");
                self.model.borrow_mut().end_in_deadlock(observed)
            }
            Outcome::Failed(kind) => self.failed(kind),
        }
    }

    /// Records that the call has failed with its driver, which loses nothing.
    fn failed(&self, kind: io::ErrorKind) -> Checked {
        ensure!(kind == io::ErrorKind::Other, "the call fails with {kind:?}");
        self.hit("-> failure of the driver");
        self.model.borrow_mut().end_by_failure(self.observed())
    }

    fn select(
        self: &Rc<World>,
        cases: &[Case],
        mode: Mode,
        biased: bool,
        reversed: bool,
        finish: Finish,
    ) -> Checked {
        let mut slots = Slots::default();
        let mut order: Vec<Case> = Vec::new();
        for &case in cases {
            let placed = self.held(case).is_some_and(|held| slots.place(case, held));
            if placed {
                order.push(case);
            }
        }
        self.begin(Awaited::These(order), mode);
        let outcome = slots.choose(self, mode, biased, reversed, finish);
        if let (Outcome::Got(chosen, _), true) = (&outcome, biased) {
            // No earlier case may be ready in the model's state before the choice.
            let mut model = self.model.borrow().clone();
            model.end_with(*chosen, self.observed())?;
            let before = slots.cases(reversed).take_while(|case| case != chosen);
            for case in before {
                ensure!(!model.is_ready(case), "biased: {chosen:?}, and {case:?} is ready");
            }
        }
        drop(slots);
        self.ended(outcome)
    }

    fn receive(&self, case: Case, mode: Mode) -> Checked {
        let Some(held) = self.held(case) else { return Ok(()) };
        if let Held::Send(_) = held {
            return Ok(());
        }
        self.begin(Awaited::These(vec![case]), mode);
        let outcome = match &held {
            Held::Timer(source) => self.receive_from(case, &**source, mode, Item::Time),
            Held::Ticker(source) => self.receive_from(case, &**source, mode, Item::Tick),
            Held::Inbox(source) => self.receive_from(case, &**source, mode, Item::Message),
            Held::Done(source) => self.receive_from(case, &**source, mode, Item::Cause),
            Held::Send(_) => return Ok(()),
        };
        drop(held);
        self.ended(outcome)
    }

    fn receive_from<S: Source>(
        &self,
        case: Case,
        source: &S,
        mode: Mode,
        item: fn(S::Item) -> Item,
    ) -> Outcome {
        let got = match mode {
            Mode::Endless => self.handle.recv(source).map(Some),
            Mode::Now => self.handle.try_recv(source),
            Mode::For(d) => self.handle.recv_timeout(source, duration(d)),
        };
        match got {
            Ok(Some(got)) => Outcome::Got(case, item(got)),
            Ok(None) => Outcome::TimedOut,
            Err(error) => Outcome::Failed(error.kind()),
        }
    }

    fn wait(
        self: &Rc<World>,
        capacity: usize,
        mode: Mode,
        take: u8,
        meanwhile: Option<&Op>,
        place: Place<'_>,
    ) -> Checked {
        self.begin(Awaited::Everything, mode);
        let mut events = Events::with_capacity(capacity);
        let waited = match mode {
            Mode::Endless => self.handle.wait(&mut events),
            Mode::Now => self.handle.try_wait(&mut events),
            Mode::For(d) => self.handle.wait_timeout(&mut events, duration(d)),
        };
        let observed = self.observed();
        if let Err(error) = waited {
            drop(events);
            return self.ended(Outcome::Failed(error.kind()));
        }
        let keys: Vec<u64> = events.iter().map(|event| event.key()).collect();
        ensure!(keys.len() == events.len(), "{} of {} events have a key", keys.len(), events.len());
        let reported = {
            let mut model = self.model.borrow_mut();
            let found = model.end_wait(observed, keys.len())?;
            self.hit(if keys.is_empty() { "-> nothing" } else { "-> events" });
            let mut reported = Vec::new();
            for &key in &keys {
                let case = found.iter().copied().find(|&case| model.key_of(case) == key);
                let Some(case) = case else { fail!("source {key} was reported: {found:?}") };
                ensure!(!reported.contains(&case), "{case:?} was reported twice");
                reported.push(case);
                if let Case::Send(c) = case {
                    model.channels[c].asks = false;
                    self.hit("-> room");
                }
            }
            if !keys.is_empty() {
                let expected = capacity.min(found.len());
                ensure!(
                    keys.len() == expected,
                    "{reported:?} were reported, and these are ready: {found:?}"
                );
            }
            let ranks: Vec<_> = reported.iter().filter_map(|&case| model.rank(case)).collect();
            ensure!(ranks.is_sorted(), "not in the order of deadlines: {reported:?}, {ranks:?}");
            if keys.len() < found.len() && !keys.is_empty() {
                let least = ranks.last();
                let left = found.iter().filter(|case| !reported.contains(case));
                let before =
                    left.filter_map(|&case| model.rank(case)).find(|rank| Some(rank) < least);
                ensure!(before.is_none() || ranks.len() < keys.len(), "left out: {before:?}");
            }
            let changes: Vec<_> = reported
                .iter()
                .map(|&case| (case, model.key_of(case), model.changes(case)))
                .collect();
            model.wait_is_over();
            changes
        };
        // Iterates over the events, handles some of them, and runs operations in between.
        let mut left = reported.iter();
        for (n, event) in events.iter().enumerate() {
            let key = event.key();
            let case = loop {
                let Some(&(case, expected, changes)) = left.next() else {
                    fail!("the iteration gives source {key}, whose event is void")
                };
                if expected == key {
                    break case;
                }
                self.may_be_skipped(case, expected, changes)?;
            };
            {
                let model = self.model.borrow();
                ensure!(model.key_of(case) == key, "the iteration gives {case:?}, which is gone");
                ensure!(model.is_ready(case), "the iteration gives {case:?}, which is not ready");
            }
            if take >> (n % 8) & 1 == 1 {
                self.take_event(case)?;
            }
            if let (0, Some(op)) = (n, meanwhile) {
                self.run(op, place)?;
            }
        }
        for &(case, key, changes) in left {
            self.may_be_skipped(case, key, changes)?;
        }
        Ok(())
    }

    fn may_be_skipped(&self, case: Case, key: u64, changes: u64) -> Checked {
        let model = self.model.borrow();
        let same = model.key_of(case) == key && model.changes(case) == changes;
        // Reading the keys has reported the room.
        let over = match case {
            Case::Done(i) => model.dones[i].as_ref().is_none_or(|done| done.over),
            case => matches!(case, Case::Send(_)),
        };
        ensure!(
            !same || over || !model.is_ready(case),
            "the iteration leaves out {case:?}, which is ready"
        );
        self.hit("-> event skipped");
        Ok(())
    }

    /// Handles an event as a user does. A reported source must be ready.
    fn take_event(&self, case: Case) -> Checked {
        let item = match self.held(case) {
            Some(Held::Timer(timer)) => timer.try_take().map(Item::Time),
            Some(Held::Ticker(ticker)) => ticker.try_take().map(Item::Tick),
            Some(Held::Done(done)) => done.try_take().map(Item::Cause),
            Some(Held::Inbox(_)) => {
                let Case::Inbox(c) = case else { return Ok(()) };
                return self.try_recv(c).map(drop);
            }
            Some(Held::Send(_)) => {
                let Case::Send(c) = case else { return Ok(()) };
                return self.send_through_outbox(c);
            }
            _ => None,
        };
        match item {
            Some(item) => self.taken(case, item),
            None => fail!("the reported {case:?} gave nothing"),
        }
    }

    // --- Select.

    fn session(self: &Rc<World>, biased: bool, cases: &[usize], steps: &[Step]) -> Checked {
        let all = (0..TIMERS)
            .map(Case::Timer)
            .chain((0..TICKERS).map(Case::Ticker))
            .chain((0..CHANNELS).map(Case::Inbox))
            .chain((0..DONES).map(Case::Done))
            .chain((0..CHANNELS).map(Case::Send));
        let pool: Vec<(Case, Held)> =
            all.filter_map(|case| Some((case, self.held(case)?))).collect();
        let mut select =
            if biased { Select::biased(&self.handle) } else { Select::new(&self.handle) };
        let mut chosen: Vec<Option<(Case, &Held)>> = Vec::new();
        let result = (|| {
            for &n in cases {
                add_case(&pool, &mut select, &mut chosen, n)?;
            }
            for step in steps {
                match step {
                    Step::Add(n) => add_case(&pool, &mut select, &mut chosen, *n)?,
                    Step::Remove(index) => {
                        let was = chosen.get_mut(*index).and_then(Option::take).is_some();
                        // A permit that a removed case still holds stays until the next wait.
                        ensure!(select.remove(*index) == was, "remove gives {}", !was);
                        self.hit("Select: remove");
                    }
                    Step::Do(op) => self.run(op, Place::Top)?,
                    Step::Choose(mode, finish) => {
                        self.choose(&mut select, &chosen, *mode, *finish, biased)?;
                    }
                }
                ensure!(select.len() == chosen.iter().flatten().count(), "len() is wrong");
            }
            Ok(())
        })();
        drop(select);
        self.model.borrow_mut().channels.iter_mut().for_each(|channel| channel.permits = 0);
        result
    }

    fn choose(
        &self,
        select: &mut Select<'_>,
        cases: &[Option<(Case, &Held)>],
        mode: Mode,
        finish: Finish,
        biased: bool,
    ) -> Checked {
        // The wait gives forgotten permits back.
        self.model.borrow_mut().channels.iter_mut().for_each(|channel| channel.permits = 0);
        let live: Vec<Case> = cases.iter().flatten().map(|(case, _)| *case).collect();
        if live.is_empty() {
            ensure!(select.try_wait().is_err(), "an empty Select is no error");
            self.hit("-> empty Select");
            return Ok(());
        }
        self.begin(Awaited::These(live), mode);
        let selected = match mode {
            Mode::Endless => select.wait().map(Some),
            Mode::Now => select.try_wait(),
            Mode::For(d) => select.wait_timeout(duration(d)),
        };
        let selected = match selected {
            Ok(Some(selected)) => selected,
            Ok(None) => return self.ended(Outcome::TimedOut),
            Err(error) => return self.ended(Outcome::Failed(error.kind())),
        };
        let index = selected.index();
        let Some(Some((case, held))) = cases.get(index) else { fail!("no case {index}") };
        let case = *case;
        self.model.borrow_mut().end_with(case, self.observed())?;
        if biased {
            let model = self.model.borrow();
            for (before, _) in cases[..index].iter().flatten() {
                ensure!(!model.is_ready(*before), "biased: {case:?}, and {before:?} is ready");
            }
        }
        let item = match (finish, held) {
            (Finish::Complete, Held::Timer(source)) => selected.recv(&**source).map(Item::Time),
            (Finish::Complete, Held::Ticker(source)) => selected.recv(&**source).map(Item::Tick),
            (Finish::Complete, Held::Inbox(source)) => selected.recv(&**source).map(Item::Message),
            (Finish::Complete, Held::Done(source)) => selected.recv(&**source).map(Item::Cause),
            (Finish::Complete, Held::Send(outbox)) => {
                let value = self.value();
                Some(Item::Sent(value.id, selected.send(outbox, value)))
            }
            (Finish::Abandon, _) => {
                drop(selected);
                Some(Item::Nothing)
            }
            (Finish::Forget, _) => {
                std::mem::forget(selected);
                let mut model = self.model.borrow_mut();
                if let Case::Send(c) = case
                    && model.channels[c].receiving != Receiving::Gone
                {
                    model.channels[c].permits += 1;
                }
                self.hit("-> Selected forgotten");
                return Ok(());
            }
        };
        match item {
            Some(item) => self.taken(case, item),
            None => fail!("the chosen {case:?} gave nothing"),
        }
    }

    // --- Checks.

    /// Compares the state that is visible without a turn.
    fn check(&self) -> Checked {
        self.forget_closures();
        let model = self.model.borrow();
        let reals = self.reals.borrow();
        for id in 0..self.values.get() {
            let drops = self.drops[id as usize].load(Ordering::Relaxed);
            let expected = u8::from(!model.values.contains(&id));
            ensure!(drops == expected, "value {id} was dropped {drops} times");
        }
        let mut live = Vec::new();
        for (i, alarm) in model.alarms.iter().enumerate() {
            let deadline = alarm.deadline.map(time);
            let real = self.real(i);
            let (got, ready) = match &real {
                (Some(timer), ..) => (timer.deadline(), timer.is_ready()),
                (_, Some(ticker), _) => (ticker.deadline(), ticker.is_ready()),
                (.., Some(callback)) => (callback.deadline(), false),
                _ => (deadline, false),
            };
            ensure!(
                got == deadline,
                "the deadline of alarm {i} is {got:?} instead of {deadline:?}"
            );
            ensure!(!ready || model.is_due(i), "alarm {i} is ready and not due");
            if let Some(id) = reals.ids[i] {
                let got = self.handle.is_live(id);
                ensure!(got == alarm.alive, "alarm {i} is live: {got}");
            }
            if alarm.alive {
                let kind = match i {
                    _ if i < TIMERS => SourceKind::Timer,
                    _ if Model::is_ticker(i) => SourceKind::Ticker,
                    _ => SourceKind::Callback,
                };
                let period = Model::is_ticker(i).then(|| Duration::from_nanos(alarm.period));
                live.push((kind, alarm.key, reals.ids[i], deadline, period, Some(alarm.fired)));
            }
        }
        for (c, channel) in model.channels.iter().enumerate() {
            if channel.receiving == Receiving::Inbox {
                live.push((SourceKind::Inbox, channel.key, None, None, None, None));
            }
            if let Some(key) = channel.outbox {
                live.push((SourceKind::Outbox, key, None, None, None, None));
            }
            let (len, full, gone, over) = match (&reals.receives[c], reals.senders[c].first()) {
                (Receives::Inbox(inbox), _) => {
                    (inbox.len(), inbox.is_full(), false, inbox.is_disconnected())
                }
                (Receives::Bare(receiver), _) => {
                    (receiver.len(), receiver.is_full(), false, receiver.is_disconnected())
                }
                (_, Some(sender)) => (sender.len(), false, sender.is_disconnected(), false),
                _ => continue,
            };
            ensure!(gone == (channel.receiving == Receiving::Gone), "channel {c}: gone {gone}");
            let closed = channel.senders == 0 && channel.outbox.is_none();
            ensure!(gone || over == closed, "channel {c}: disconnected {over}");
            if !gone {
                ensure!(len == channel.queue.len(), "channel {c} has {len}: {channel:?}");
                ensure!(full != channel.has_room(), "channel {c} is full: {full}, {channel:?}");
            }
        }
        for done in model.dones.iter().flatten() {
            live.push((SourceKind::Context, done.key, None, None, None, None));
        }
        for (x, context) in reals.contexts.iter().enumerate() {
            let (Some((context, _)), Some(node)) = (context, model.contexts[x]) else { continue };
            let (got, expected) = (context.err(), model.ended(node).map(error_of));
            ensure!(got == expected, "context {x}: {got:?} instead of {expected:?}");
            let limit = model.nodes[node].limit;
            let expected = (limit != NEVER).then(|| time(limit));
            ensure!(context.deadline() == expected, "context {x}: not until {expected:?}");
        }
        self.check_sources(live)?;
        self.check_stats(&model)
    }

    #[expect(clippy::type_complexity, reason = "a row of a table")]
    fn check_sources(
        &self,
        mut live: Vec<(
            SourceKind,
            u64,
            Option<TimerId>,
            Option<Time>,
            Option<Duration>,
            Option<u64>,
        )>,
    ) -> Checked {
        let sources = self.handle.sources();
        ensure!(
            sources.len() == live.len(),
            "sources() has {}: {sources}; {live:?}",
            sources.len()
        );
        for info in &sources {
            let same = live.iter().position(|row| match row.2 {
                Some(id) => info.id == Some(id),
                None => info.key == row.1,
            });
            let Some(n) = same else { fail!("sources() has {info:?}") };
            let (kind, key, _, deadline, period, fired) = live.swap_remove(n);
            ensure!(info.kind == Some(kind), "a {kind} is listed: {info:?}");
            ensure!(kind == SourceKind::Callback || info.key == key, "key {key}: {info:?}");
            ensure!(
                kind == SourceKind::Context || info.deadline == deadline,
                "deadline {deadline:?}: {info:?}"
            );
            ensure!(info.period == period, "period {period:?}: {info:?}");
            ensure!(fired.is_none_or(|fired| fired == info.fired), "fired {fired:?}: {info:?}");
            ensure!(info.location.is_some(), "no line: {info:?}");
        }
        Ok(())
    }

    fn check_stats(&self, model: &Model) -> Checked {
        let (before, now) = (self.stats.replace(self.handle.stats()), self.stats.get());
        let counts = |s: &Stats| {
            [
                s.turns,
                s.waits,
                s.polls,
                s.arms,
                s.controls,
                s.wakes,
                s.expired,
                s.cleaned,
                s.called,
                s.coalesced,
                s.stale,
                s.spins,
                s.spinning,
            ]
        };
        let grows = counts(&before).iter().zip(counts(&now)).all(|(before, now)| *before <= now);
        ensure!(grows, "counts went back: {before} {now}");
        ensure!(now.called >= model.calls, "{} calls: {now}", model.calls);
        Ok(())
    }

    // --- The end.

    /// Drops everything in one of several orders, and checks the sources that outlive the reactor.
    fn finish(self: &Rc<World>, reactor: Reactor, ending: u8) -> Checked {
        match ending % 3 {
            0 => {
                self.hit("end: sources first");
                self.drop_all();
                drop(reactor);
            }
            1 => {
                self.hit("end: reactor first");
                drop(reactor);
                self.check_inert()?;
                self.drop_all();
            }
            _ => {
                self.hit("end: reactor in a post");
                let reactor = RefCell::new(Some(reactor));
                WORLD.with_borrow(|_| ());
                // The callback holds the reactor that it drops.
                let slot = Rc::new(reactor);
                let inner = slot.clone();
                let call = self
                    .handle
                    .call_after(Duration::ZERO, move |_| drop(inner.borrow_mut().take()));
                self.model.borrow_mut().posted.clear();
                *self.wrong.borrow_mut() = Some(String::new());
                let slept = catch_unwind(AssertUnwindSafe(|| self.handle.sleep_blocking(ms(1))));
                drop(call);
                drop(slot);
                ensure!(
                    slept.is_err() || slept.is_ok_and(|slept| slept.is_err()),
                    "a sleep goes on after the drop of its reactor"
                );
                self.wrong.take();
                ensure!(self.handle.is_closed(), "the handle of a dropped reactor is not closed");
                self.drop_all();
            }
        }
        for id in 0..self.values.get() {
            let drops = self.drops[id as usize].load(Ordering::Relaxed);
            ensure!(drops == 1, "value {id} was dropped {drops} times");
        }
        Ok(())
    }

    fn drop_all(&self) {
        let reals = std::mem::take(&mut *self.reals.borrow_mut());
        drop(reals);
    }

    /// Checks that sources that outlive the reactor are inert, and stored closures gone (rule 20).
    fn check_inert(&self) -> Checked {
        let reals = self.reals.borrow();
        for timer in reals.timers.iter().flatten() {
            ensure!(!timer.reset(Duration::ZERO) && !timer.stop(), "a dead timer is armed");
            ensure!(timer.deadline().is_none(), "a dead timer has a deadline");
            ensure!(timer.try_take().is_none(), "a dead timer fires");
            ensure!(self.handle.try_recv(timer).is_err(), "a dead reactor receives");
        }
        for ticker in reals.tickers.iter().flatten() {
            ensure!(!ticker.restart() && !ticker.stop(), "a dead ticker is armed");
            ensure!(ticker.try_take().is_none(), "a dead ticker ticks");
        }
        for callback in reals.callbacks.iter().flatten() {
            ensure!(!callback.reset(Duration::ZERO), "a dead callback is armed");
        }
        for id in reals.ids.iter().flatten() {
            ensure!(self.handle.stop_timer(*id) == Err(TimerError::Dead), "a dead id is live");
        }
        for id in reals.closures.iter().flatten() {
            let drops = self.drops[*id as usize].load(Ordering::Relaxed);
            ensure!(drops == 1, "the closure with value {id} was not dropped");
        }
        ensure!(self.remote.post(|_| {}).is_err(), "a dead reactor takes a post");
        let mut events = Events::with_capacity(4);
        ensure!(self.handle.try_wait(&mut events).is_err(), "a dead reactor waits");
        ensure!(self.handle.sources().is_empty(), "a dead reactor has sources");
        let (_sender, receiver) = channel::bounded::<u8>(1);
        ensure!(self.handle.register(receiver).is_err(), "a dead reactor takes a source");
        // Channels go on without the reactor.
        let model = self.model.borrow();
        for (c, channel) in model.channels.iter().enumerate() {
            if let Receives::Inbox(inbox) = &reals.receives[c] {
                for message in &channel.queue {
                    let got = inbox.try_recv().map(|value| value.id);
                    ensure!(got == Ok(message.id), "a dead inbox gives {got:?}");
                }
            }
        }
        Ok(())
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn error_of(end: End) -> ContextError {
    match end {
        End::Cancelled => ContextError::Cancelled,
        End::Deadline => ContextError::DeadlineExceeded,
    }
}

fn join<T>(thread: thread::JoinHandle<T>) -> Checked<T> {
    thread.join().map_err(|payload| text_of(&*payload))
}

/// Adds a case for a source of the pool.
fn add_case<'a>(
    pool: &'a [(Case, Held)],
    select: &mut Select<'a>,
    chosen: &mut Vec<Option<(Case, &'a Held)>>,
    n: usize,
) -> Checked {
    if pool.is_empty() {
        return Ok(());
    }
    let (case, held) = &pool[n % pool.len()];
    let index = held.add_to(select);
    if index == chosen.len() {
        ensure!(chosen.iter().all(Option::is_some), "a removed index is not used again");
        chosen.push(None);
    }
    ensure!(matches!(chosen.get(index), Some(None)), "index {index} is taken");
    chosen[index] = Some((*case, held));
    Ok(())
}

impl Held {
    fn add_to<'a>(&'a self, select: &mut Select<'a>) -> usize {
        match self {
            Held::Timer(source) => select.recv(&**source),
            Held::Ticker(source) => select.recv(&**source),
            Held::Inbox(source) => select.recv(&**source),
            Held::Done(source) => select.recv(&**source),
            Held::Send(outbox) => select.send(&**outbox),
        }
    }
}

/// The cases of a `select!`, as many of each kind as the macro below has.
#[derive(Default)]
struct Slots {
    timers: [Option<Rc<Timer>>; 2],
    ticker: Option<Rc<Ticker>>,
    inboxes: [Option<Rc<Inbox<Value>>>; 2],
    done: Option<Rc<Done>>,
    outboxes: [Option<Rc<Outbox<Value>>>; 2],
    /// The cases in the order of the macro.
    named: [Option<Case>; 8],
}

impl Slots {
    /// Puts a case into a free place of its kind. Returns false if there is none.
    fn place(&mut self, case: Case, held: Held) -> bool {
        fn fill<T>(slots: &mut [Option<T>], held: T) -> Option<usize> {
            let n = slots.iter().position(Option::is_none)?;
            slots[n] = Some(held);
            Some(n)
        }
        let n = match held {
            Held::Timer(held) => fill(&mut self.timers, held),
            Held::Ticker(held) => fill(std::slice::from_mut(&mut self.ticker), held).map(|n| n + 2),
            Held::Inbox(held) => fill(&mut self.inboxes, held).map(|n| n + 3),
            Held::Done(held) => fill(std::slice::from_mut(&mut self.done), held).map(|n| n + 5),
            Held::Send(held) => fill(&mut self.outboxes, held).map(|n| n + 6),
        };
        if let Some(n) = n {
            self.named[n] = Some(case);
        }
        n.is_some()
    }

    fn cases(&self, reversed: bool) -> impl Iterator<Item = Case> {
        let mut named: Vec<_> = self.named.iter().flatten().copied().collect();
        if reversed {
            named.reverse();
        }
        named.into_iter()
    }

    fn got(&self, n: usize, item: Item) -> Outcome {
        match self.named[n] {
            Some(case) => Outcome::Got(case, item),
            None => panic!("the absent case {n} was chosen"),
        }
    }

    fn choose(
        &self,
        world: &World,
        mode: Mode,
        biased: bool,
        reversed: bool,
        finish: Finish,
    ) -> Outcome {
        let last = Cell::new(0);
        let chosen = catch_unwind(AssertUnwindSafe(|| {
            self.chosen(world, mode, biased, reversed, finish, &last)
        }));
        match chosen {
            Ok(outcome) => outcome,
            // The value of a send case has panicked, and no callback.
            Err(payload) if payload.is::<Injected>() && last.get() > 0 => {
                self.got(last.get(), Item::Nothing)
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    fn chosen(
        &self,
        world: &World,
        mode: Mode,
        biased: bool,
        reversed: bool,
        finish: Finish,
        last: &Cell<usize>,
    ) -> Outcome {
        let Slots { timers: [t0, t1], ticker, inboxes: [i0, i1], done, outboxes: [o0, o1], .. } =
            self;
        let (handle, id) = (&world.handle, Cell::new(0));
        macro_rules! value {
            ($n:literal) => {
                match finish {
                    Finish::Complete => {
                        let value = world.value();
                        id.set(value.id);
                        value
                    }
                    Finish::Abandon => return self.got($n, Item::Nothing),
                    Finish::Forget => {
                        last.set($n);
                        resume_unwind(Box::new(Injected))
                    }
                }
            };
        }
        let got = |n, item| self.got(n, item);
        let sent = |n, result| self.got(n, Item::Sent(id.get(), result));
        macro_rules! forwards {
            ([$($biased:tt)*] $($default:tt)*) => {
                select! { handle; $($biased)*
                    recv(t0) -> t => got(0, Item::Time(t)),
                    recv(t1) -> t => got(1, Item::Time(t)),
                    recv(ticker) -> tick => got(2, Item::Tick(tick)),
                    recv(i0) -> message => got(3, Item::Message(message)),
                    recv(i1) -> message => got(4, Item::Message(message)),
                    recv(done) -> cause => got(5, Item::Cause(cause)),
                    send(o0, value!(6)) -> result => sent(6, result),
                    send(o1, value!(7)) -> result => sent(7, result),
                    $($default)*
                    error -> error => Outcome::Failed(error.kind()),
                }
            };
        }
        macro_rules! backwards {
            ([$($biased:tt)*] $($default:tt)*) => {
                select! { handle; $($biased)*
                    send(o1, value!(7)) -> result => sent(7, result),
                    send(o0, value!(6)) -> result => sent(6, result),
                    recv(done) -> cause => got(5, Item::Cause(cause)),
                    recv(i1) -> message => got(4, Item::Message(message)),
                    recv(i0) -> message => got(3, Item::Message(message)),
                    recv(ticker) -> tick => got(2, Item::Tick(tick)),
                    recv(t1) -> t => got(1, Item::Time(t)),
                    recv(t0) -> t => got(0, Item::Time(t)),
                    $($default)*
                    error -> error => Outcome::Failed(error.kind()),
                }
            };
        }
        macro_rules! either {
            ($($all:tt)*) => {
                if reversed { backwards!($($all)*) } else { forwards!($($all)*) }
            };
        }
        match (mode, biased) {
            (Mode::Endless, true) => either!([biased;]),
            (Mode::Endless, false) => either!([]),
            (Mode::Now, true) => either!([biased;] default => Outcome::TimedOut,),
            (Mode::Now, false) => either!([] default => Outcome::TimedOut,),
            (Mode::For(d), true) => {
                either!([biased;] default(duration(d)) => Outcome::TimedOut,)
            }
            (Mode::For(d), false) => either!([] default(duration(d)) => Outcome::TimedOut,),
        }
    }
}

//! The baton of a simulated world: several threads, each with a reactor, of which one runs at a time, on one virtual clock.
//!
//! Who has the baton runs until its reactor blocks. Inside [`Driver::wait`] it then looks who is next, on its own thread, and most often hands over
//! to another, or keeps the baton:
//!
//! 1. a member that was killed: it ends;
//! 2. what is due by now is delivered;
//! 3. any member that can go on: it was woken, its deadline has come, or it has not begun. Which one the seed decides;
//! 4. nobody can: the clock jumps to the next deadline or delivery, and so on from 2;
//! 5. there is none, or it is behind the end of the run: the baton goes back to who called [`Baton::run`].
//!
//! Wake-ups and messages come only from who has the baton, so a seed makes one history. The one lock is held while deciding, never while anybody else's code runs.

use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use super::{Clock, Deadline, Driver, ReadyFds, VirtualClock, Wait, Wake};
use crate::sync::set_blocking_hook;
use crate::sys::Time;

/// The number of who called `run`.
const CALLER: usize = usize::MAX;

/// See the module's text.
pub(crate) struct Baton {
    clock: VirtualClock,
    /// Who has the baton.
    holder: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    members: Vec<Member>,
    caller: Option<Thread>,
    /// The run ends before what comes later than this.
    limit: Time,
    /// Nobody runs but who is killed.
    ending: bool,
    /// The world is over.
    closed: bool,
    end: End,
    deliveries: BTreeMap<(Time, u64), Delivery>,
    posted: u64,
    /// The state of the generator behind all that is left to chance.
    random: u64,
    handovers: u64,
}

type Delivery = Box<dyn FnOnce() + Send>;

struct Member {
    name: Arc<str>,
    phase: Phase,
    woken: Arc<Flag>,
    /// Known once the thread has been made, which is before it is anybody's turn.
    thread: Option<Thread>,
    killed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has not begun.
    New,
    /// Has the baton.
    Running,
    /// In its driver, until woken or until then.
    Blocked(Time),
    Over,
}

/// Why a run has come back.
pub(crate) enum End {
    /// Every member has returned.
    Over,
    /// The time is over.
    Limit,
    /// Nothing is due anywhere: these wait.
    Deadlock(Vec<(Arc<str>, Time)>),
    /// A member has panicked.
    Panic(Box<dyn std::any::Any + Send>),
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) -> io::Result<()> {
        self.0.store(true, Ordering::Release);
        Ok(())
    }
}

/// What a killed member is unwound with: the panic hook is not called for it.
struct Killed;

/// The blocking hook of a member's thread.
///
/// # Panics
/// Always: a call that blocks here would stop the whole world.
#[cold]
#[track_caller]
fn refuse_to_block(name: &str, call: &str) {
    panic!(
        "pollmux: `{call}` would block, and with the member `{name}` the whole SimWorld: \
         register the end with the member's reactor and wait for it in a select!"
    );
}

impl Baton {
    pub(crate) fn new(seed: u64, start: Time) -> Baton {
        let state = State {
            members: Vec::new(),
            caller: None,
            limit: Time::ZERO,
            ending: false,
            closed: false,
            end: End::Over,
            deliveries: BTreeMap::new(),
            posted: 0,
            random: seed,
            handovers: 0,
        };
        Baton { clock: VirtualClock::new(start), holder: AtomicUsize::new(CALLER), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    /// How often the baton went to another thread.
    pub(crate) fn handovers(&self) -> u64 {
        self.lock().handovers
    }

    /// splitmix64, after Vigna.
    pub(crate) fn random(&self) -> u64 {
        self.lock().random()
    }

    /// Has `delivery` run at `at` by whoever then has the baton. In the order of `at`, equal ones in that of these calls.
    pub(crate) fn post(&self, at: Time, delivery: Delivery) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return drop(delivery);
        }
        state.posted += 1;
        let key = (at, state.posted);
        state.deliveries.insert(key, delivery);
    }

    /// Whether a member has this name, whatever it does.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.lock().members.iter().any(|member| &*member.name == name)
    }

    /// Adds a member, which begins when it is its turn: `body` runs on a thread of its own. `None`: one of this name is still there.
    pub(crate) fn spawn(
        self: &Arc<Baton>,
        name: &str,
        body: impl FnOnce(MemberDriver) + Send + 'static,
    ) -> Option<thread::JoinHandle<()>> {
        let (name, woken): (Arc<str>, Arc<Flag>) = (name.into(), Arc::default());
        let mut state = self.lock();
        assert!(!state.closed, "pollmux: the SimWorld is gone");
        if state.members.iter().any(|member| member.name == name && member.phase != Phase::Over) {
            return None;
        }
        let number = state.members.len();
        let driver = MemberDriver { baton: self.clone(), number, woken: woken.clone() };
        let builder = thread::Builder::new().name(name.to_string());
        let called = name.clone();
        let spawned =
            builder.spawn(move || driver.live(called, body)).expect("a thread for a member of the world");
        let thread = Some(spawned.thread().clone());
        state.members.push(Member { name, phase: Phase::New, woken, thread, killed: false });
        Some(spawned)
    }

    /// Kills the members that `which` names: each ends, unwinding, where it waits. By the caller of `run` at once, by a member as soon as that blocks. How many there were.
    ///
    /// # Panics
    /// With what one of them panics with on its way out.
    pub(crate) fn kill(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut state = self.lock();
        let mut killed = 0;
        for member in &mut state.members {
            if member.phase != Phase::Over && which(&member.name) {
                killed += usize::from(!std::mem::replace(&mut member.killed, true));
            }
        }
        if self.holder.load(Ordering::Acquire) == CALLER && state.doomed().is_some() {
            state.ending = true;
            self.pass(state);
            let mut state = self.lock();
            state.ending = false;
            let end = std::mem::replace(&mut state.end, End::Over);
            drop(state);
            if let End::Panic(cause) = end {
                panic::resume_unwind(cause);
            }
        }
        killed
    }

    /// The world is over: kills everybody, forgets what has not been delivered, and takes nothing more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        while panic::catch_unwind(AssertUnwindSafe(|| self.kill(|_| true))).is_err() {}
        let deliveries = std::mem::take(&mut self.lock().deliveries);
        drop(deliveries);
    }

    /// Lets the members run until `limit`.
    pub(crate) fn run(&self, limit: Time) -> End {
        let mut state = self.lock();
        state.limit = limit;
        self.pass(state);
        std::mem::replace(&mut self.lock().end, End::Over)
    }

    /// The caller hands the baton over, and waits until it is back.
    fn pass(&self, mut state: MutexGuard<'_, State>) {
        state.caller = Some(thread::current());
        self.hand_over(state, CALLER);
        self.await_baton(CALLER);
    }

    fn await_baton(&self, me: usize) {
        while self.holder.load(Ordering::Acquire) != me {
            thread::park();
        }
    }

    /// A member waits until it is woken, or until then; if it has been killed it unwinds. False: it was unwinding already.
    fn block(&self, me: usize, until: Time) -> bool {
        let mut state = self.lock();
        if !state.members[me].killed {
            state.members[me].phase = Phase::Blocked(until);
            self.hand_over(state, me);
            self.await_baton(me);
            state = self.lock();
        }
        if !state.members[me].killed {
            return true;
        }
        drop(state);
        if thread::panicking() {
            return false;
        }
        panic::resume_unwind(Box::new(Killed))
    }

    /// Finds out who is next and gives it the baton; it may be who hands over.
    fn hand_over(&self, state: MutexGuard<'_, State>, me: usize) {
        let (mut state, next) = self.next(state);
        if let Some(member) = state.members.get_mut(next) {
            member.phase = match member.phase {
                Phase::New => Phase::New,
                _ => Phase::Running,
            };
        }
        if next == me {
            return;
        }
        state.handovers += 1;
        let thread = match state.members.get(next) {
            Some(member) => member.thread.clone(),
            None => state.caller.clone(),
        };
        self.holder.store(next, Ordering::Release);
        drop(state);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }

    /// The steps of the module's text.
    fn next<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, usize) {
        loop {
            if let End::Panic(_) = state.end {
                return (state, CALLER);
            }
            if let Some(number) = state.doomed() {
                return (state, number);
            }
            if state.ending {
                return (state, CALLER);
            }
            let now = self.clock.now();
            if let Some(delivery) = state.due(now) {
                drop(state);
                delivery();
                state = self.lock();
                continue;
            }
            if let Some(number) = state.choose(now) {
                return (state, number);
            }
            let next = match state.next_due() {
                Some(next) => next,
                None => {
                    state.end = state.standstill();
                    return (state, CALLER);
                }
            };
            self.clock.advance_to(next.min(state.limit));
            if next > state.limit {
                state.end = End::Limit;
                return (state, CALLER);
            }
        }
    }
}

impl State {
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn due(&mut self, now: Time) -> Option<Delivery> {
        let first = self.deliveries.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// The first one that was killed and is still there.
    fn doomed(&self) -> Option<usize> {
        self.members.iter().position(|member| member.killed && member.phase != Phase::Over)
    }

    /// One of those that can go on.
    fn choose(&mut self, now: Time) -> Option<usize> {
        let able = |member: &Member| match member.phase {
            Phase::New => true,
            Phase::Blocked(until) => until <= now || member.woken.0.load(Ordering::Acquire),
            Phase::Running | Phase::Over => false,
        };
        let count = self.members.iter().filter(|member| able(member)).count();
        let nth = match count {
            0 => return None,
            1 => 0,
            _ => (self.random() % count as u64) as usize,
        };
        self.members.iter().enumerate().filter(|(_, member)| able(member)).nth(nth).map(|(number, _)| number)
    }

    /// The next deadline or delivery. `MAX` is never.
    fn next_due(&self) -> Option<Time> {
        let deadlines = self.members.iter().filter_map(|member| match member.phase {
            Phase::Blocked(until) => Some(until),
            _ => None,
        });
        let delivery = self.deliveries.first_key_value().map(|((at, _), _)| *at);
        deadlines.chain(delivery).min().filter(|&t| t < Time::MAX)
    }

    fn standstill(&self) -> End {
        let waiting: Vec<_> = self
            .members
            .iter()
            .filter_map(|member| match member.phase {
                Phase::Blocked(until) => Some((member.name.clone(), until)),
                _ => None,
            })
            .collect();
        if waiting.is_empty() { End::Over } else { End::Deadlock(waiting) }
    }
}

/// The driver of a member of a [`SimWorld`](crate::SimWorld): while it waits the others run, and the clock is the world's.
///
/// For a reactor of your own making: [`WorldHandle::spawn_with_driver`](crate::WorldHandle::spawn_with_driver).
pub struct MemberDriver {
    baton: Arc<Baton>,
    number: usize,
    woken: Arc<Flag>,
}

impl MemberDriver {
    /// The life of a member's thread.
    fn live(self, name: Arc<str>, body: impl FnOnce(MemberDriver)) {
        let (baton, number) = (self.baton.clone(), self.number);
        baton.await_baton(number);
        set_blocking_hook(Some(Box::new(move |call| refuse_to_block(&name, call))));
        let killed = {
            let mut state = baton.lock();
            state.members[number].phase = Phase::Running;
            state.members[number].killed
        };
        // What the body holds goes while it is our turn, also when it is never called.
        let outcome = panic::catch_unwind(AssertUnwindSafe(move || {
            if !killed {
                body(self)
            }
        }));
        let mut state = baton.lock();
        state.members[number].phase = Phase::Over;
        if let Err(cause) = outcome {
            if !cause.is::<Killed>() {
                state.end = End::Panic(cause);
            }
        }
        baton.hand_over(state, number);
    }

    fn block(&mut self, until: Time) -> io::Result<()> {
        if self.woken.0.swap(false, Ordering::AcqRel) || self.baton.block(self.number, until) {
            // What has woken it meanwhile is found by the turn that follows.
            self.woken.0.store(false, Ordering::Release);
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotConnected, "the member has been killed"))
    }
}

impl Driver for MemberDriver {
    fn wait(&mut self, deadline: Option<Deadline>, how: Wait, _: &mut ReadyFds) -> io::Result<()> {
        match how {
            Wait::Block => self.block(deadline.map_or(Time::MAX, |deadline| deadline.latest)),
            Wait::Poll => {
                self.woken.0.store(false, Ordering::Release);
                Ok(())
            }
            Wait::Arm => Ok(()),
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.woken.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Virtual(self.baton.clock.clone())
    }
}

impl std::fmt::Debug for MemberDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberDriver").field("number", &self.number).finish_non_exhaustive()
    }
}

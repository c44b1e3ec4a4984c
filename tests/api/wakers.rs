//! Calls of a driver's waker: one for each sleep, more after a failed call, and one by another
//! thread while a call does not return.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pollmux::{
    Events, Inbox, Reactor, Select, Sim, Time, channel,
    driver::{Driver, Wake},
    select,
};
use support::{HOUR, Hooked, Hooks, Waiting, thread, watchdog};

type Step = Box<dyn FnOnce() + Send>;

/// A waker that fails `left` times before it wakes.
struct FailsFirst {
    waker: Arc<dyn Wake>,
    left: AtomicU32,
}

impl Wake for FailsFirst {
    fn wake(&self) -> io::Result<()> {
        let take = |left: u32| left.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(io::Error::other("the waker fails")),
            Err(_) => self.waker.wake(),
        }
    }
}

/// A driver in virtual time whose waker fails at first. A thread runs `step` during the first
/// sleep. A lost wake-up lets the sleep last an hour.
struct FailingWaker {
    waker: Arc<FailsFirst>,
    step: Option<Step>,
}

impl Hooks<Sim> for FailingWaker {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() {
            if let Some(step) = self.step.take() {
                thread::spawn(step).join().unwrap();
            }
        }
        waiting.by(sim)
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.waker.clone()
    }
}

/// Makes a reactor whose waker fails `failures` times. Another thread runs the step of `prepare`
/// during the sleep, and `sleep` must end at once.
fn assert_woken<S>(
    failures: u32,
    prepare: impl FnOnce(&Reactor) -> (Step, S),
    sleep: impl FnOnce(&Reactor, S),
) {
    let sim = Sim::new();
    let waker = Arc::new(FailsFirst { waker: sim.waker(), left: AtomicU32::new(failures) });
    // The step needs the reactor, so it comes after the driver.
    let (give, given) = std::sync::mpsc::channel::<Step>();
    let step: Step = Box::new(move || (given.recv().unwrap())());
    let driver = Hooked(sim.clone(), FailingWaker { waker, step: Some(step) });
    let reactor = Reactor::with_driver(driver).unwrap();
    let (step, state) = prepare(&reactor);
    give.send(step).unwrap();
    let _limit = reactor.after(HOUR);
    sleep(&reactor, state);
    assert_eq!(sim.now(), Time::ZERO, "{failures} failures");
}

/// The number of failures, and of triggers. A trigger makes up to four attempts. After four
/// failures the next trigger wakes the reactor.
const CASES: [(u32, usize); 7] = [(1, 1), (2, 1), (3, 1), (3, 10), (4, 2), (8, 3), (4, 10)];

#[test]
fn messages_end_a_sleep_after_failed_wake_ups() {
    let _watchdog = watchdog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let (tx, inbox) = reactor.channel::<usize>(16).unwrap();
            let step: Step = Box::new(move || (0..times).for_each(|n| tx.send(n).unwrap()));
            (step, inbox)
        };
        assert_woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(0)) }
        });
        assert_woken(failures, prepare, |reactor, inbox| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!((events.len(), inbox.try_recv()), (1, Ok(0)));
        });
        assert_woken(failures, prepare, |reactor, inbox| {
            let mut select = Select::new(reactor);
            select.recv(&inbox);
            assert_eq!(select.wait().unwrap().recv(&inbox), Some(Ok(0)));
        });
    }
}

#[test]
fn disconnection_ends_a_sleep_after_failed_wake_ups() {
    let _watchdog = watchdog();
    for failures in [1, 2] {
        let prepare = |reactor: &Reactor| {
            let (tx, inbox) = reactor.channel::<usize>(16).unwrap();
            let step: Step = Box::new(move || drop(tx));
            (step, inbox)
        };
        assert_woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> end => assert!(end.is_err()) }
        });
    }
}

#[test]
fn a_post_runs_after_failed_wake_ups() {
    let _watchdog = watchdog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let remote = reactor.remote();
            let (tx, inbox) = reactor.channel::<usize>(16).unwrap();
            let step: Step = Box::new(move || {
                for n in 0..times {
                    let tx = tx.clone();
                    remote.post(move |_| tx.send(n).unwrap()).unwrap();
                }
            });
            (step, inbox)
        };
        assert_woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(0)) }
        });
    }
}

#[test]
fn a_remote_wakes_after_failed_wake_ups() {
    let _watchdog = watchdog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let remote = reactor.remote();
            let step: Step = Box::new(move || (0..times).for_each(|_| remote.wake()));
            (step, ())
        };
        assert_woken(failures, prepare, |reactor, ()| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert!(events.is_empty());
        });
    }
}

#[test]
fn a_notification_ends_a_sleep_after_failures() {
    let _watchdog = watchdog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let (notifier, notified) = reactor.notifier();
            let step: Step = Box::new(move || (0..times).for_each(|_| notifier.notify()));
            (step, notified)
        };
        assert_woken(failures, prepare, |reactor, notified| {
            select! { reactor; recv(notified) -> () => {} }
        });
        assert_woken(failures, prepare, |reactor, notified| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!((events.len(), reactor.try_recv(&notified).unwrap()), (1, Some(())));
        });
    }
}

#[test]
fn a_cancellation_ends_a_sleep_after_failures() {
    let _watchdog = watchdog();
    for failures in [1, 2] {
        let prepare = |reactor: &Reactor| {
            let (context, canceller) = reactor.context().with_cancel();
            let step: Step = Box::new(move || _ = canceller.cancel());
            (step, reactor.done(&context))
        };
        assert_woken(failures, prepare, |reactor, done| {
            select! { reactor; recv(done) -> _ => {} }
        });
        assert_woken(failures, prepare, |reactor, done| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), 1);
            drop(done);
        });
    }
}

#[test]
fn room_ends_a_sleep_after_failed_wake_ups() {
    let _watchdog = watchdog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let (tx, rx) = channel::bounded::<usize>(times);
            (0..times).for_each(|n| tx.send(n).unwrap());
            let step: Step = Box::new(move || {
                (0..times).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
                std::mem::forget(rx);
            });
            (step, reactor.register(tx).unwrap())
        };
        assert_woken(failures, prepare, |reactor, outbox| {
            select! { reactor; send(outbox, 2) -> sent => assert!(sent.is_ok()) }
        });
    }
}

#[test]
fn another_source_retries_failed_wake_ups() {
    let _watchdog = watchdog();
    let wait = |reactor: &Reactor| {
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 2);
    };
    let prepare = |reactor: &Reactor| {
        let (tx, inbox) = reactor.channel::<u32>(1).unwrap();
        let (notifier, notified) = reactor.notifier();
        let step: Step = Box::new(move || {
            tx.send(1).unwrap();
            notifier.notify();
        });
        (step, (inbox, notified))
    };
    assert_woken(4, prepare, |reactor, _sources| wait(reactor));
    let prepare = |reactor: &Reactor| {
        let ((step, sources), remote) = (prepare(reactor), reactor.remote());
        let step: Step = Box::new(move || {
            step();
            remote.wake();
        });
        (step, sources)
    };
    assert_woken(8, prepare, |reactor, _sources| wait(reactor));
}

/// The state that the test and the reactor's thread share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asleep: bool,
    /// The test has ended the sleep.
    ended_by_test: bool,
    /// The calls of the waker.
    calls: u32,
    /// The first call of the waker blocks while this is true.
    held: bool,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_until(&self, is: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !is(state)).unwrap());
    }

    fn calls(&self) -> u32 {
        self.state.lock().unwrap().calls
    }
}

impl Wake for Shared {
    fn wake(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let is_first = state.calls == 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| is_first && state.held).unwrap());
        Ok(())
    }
}

/// A driver that ignores its waker, and sleeps until the test ends the sleep.
struct IgnoresWaker(Arc<Shared>);

impl Hooks<Sim> for IgnoresWaker {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if !waiting.blocks() {
            return waiting.by(sim);
        }
        self.0.change(|state| state.asleep = true);
        self.0.wait_until(|state| state.ended_by_test);
        Ok(())
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.0.clone()
    }
}

/// Sleeps until the inbox has a message.
type Sleep = fn(&Reactor, &Inbox<u32>);

const SLEEPS: [Sleep; 3] = [
    |reactor, inbox| select! { reactor; recv(inbox) -> n => assert!(n.is_ok()) },
    |reactor, inbox| {
        let mut events = Events::with_capacity(4);
        reactor.wait(&mut events).unwrap();
        assert!(inbox.try_recv().is_ok());
    },
    |reactor, inbox| {
        let mut select = Select::new(reactor);
        select.recv(inbox);
        assert!(select.wait().unwrap().recv(inbox).unwrap().is_ok());
    },
];

/// Gives the reactor work, from any thread.
type Trigger = Box<dyn Fn() + Send + Sync>;

/// Runs `test` while a reactor sleeps. The first trigger sends a message to the inbox that the
/// reactor waits for.
fn while_asleep(held: bool, test: impl Fn(&Shared, &[Trigger])) {
    for sleep in SLEEPS {
        let shared = Arc::<Shared>::default();
        shared.change(|state| state.held = held);
        let (give, given) = std::sync::mpsc::channel();
        let driver_shared = shared.clone();
        let _reactor = support::aside(move || {
            let reactor =
                Reactor::with_driver(Hooked(Sim::new(), IgnoresWaker(driver_shared))).unwrap();
            let (tx, inbox) = reactor.channel::<u32>(1_000).unwrap();
            let (other, _other_inbox) = reactor.channel::<u32>(1_000).unwrap();
            let (notifier, _notified) = reactor.notifier();
            let (remote, poster) = (reactor.remote(), reactor.remote());
            let triggers: [Trigger; 5] = [
                Box::new(move || tx.send(1).unwrap()),
                Box::new(move || other.send(1).unwrap()),
                Box::new(move || notifier.notify()),
                Box::new(move || remote.wake()),
                Box::new(move || poster.post(|_| {}).unwrap()),
            ];
            give.send(triggers).unwrap();
            sleep(&reactor, &inbox);
        });
        let triggers = given.recv().unwrap();
        shared.wait_until(|state| state.asleep);
        test(&shared, &triggers);
        shared.change(|state| state.ended_by_test = true);
    }
}

#[test]
fn one_wake_up_ends_a_sleep() {
    let _watchdog = watchdog();
    while_asleep(false, |shared, triggers| {
        thread::scope(|scope| scope.spawn(&triggers[0]).join().unwrap());
        assert_eq!(shared.calls(), 1);
        for n in 0..50 {
            thread::scope(|scope| scope.spawn(&triggers[n % triggers.len()]).join().unwrap());
        }
        thread::scope(|scope| (0..50).for_each(|n| _ = scope.spawn(&triggers[n % triggers.len()])));
        assert_eq!(shared.calls(), 1, "a sleep that has ended needs no further wake-up");
    });
}

/// A driver that runs triggers during each sleep.
struct TriggersInSleep(Arc<Mutex<Vec<Trigger>>>, Arc<Shared>);

impl Hooks<Sim> for TriggersInSleep {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() {
            self.0.lock().unwrap().iter().for_each(|trigger| trigger());
        }
        waiting.by(sim)
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.1.clone()
    }
}

/// Rule 14: the request of a `select!` is for its own sleep, and that of a registration for one
/// sleep. Where channels are few, a registration makes no request.
#[test]
fn sources_outside_a_select_end_one_sleep() {
    for (other_channels, ended) in [(0, 0), (40, 1)] {
        let (triggers, shared) = (Arc::<Mutex<Vec<Trigger>>>::default(), Arc::<Shared>::default());
        let driver = Hooked(Sim::new(), TriggersInSleep(triggers.clone(), shared.clone()));
        let reactor = Reactor::with_driver(driver).unwrap();
        let other_channels: Vec<_> =
            (0..other_channels).map(|_| reactor.channel::<u32>(1).unwrap()).collect();
        let (tx, inbox) = reactor.channel::<u32>(100).unwrap();
        let (notifier, notified) = reactor.notifier();
        let mut unused: Vec<Trigger> =
            vec![Box::new(move || tx.send(1).unwrap()), Box::new(move || notifier.notify())];
        for _ in 0..2 {
            triggers.lock().unwrap().append(&mut unused);
            (0..10).for_each(|_| reactor.sleep_blocking(Duration::from_millis(1)).unwrap());
            assert_eq!(shared.calls(), ended);
            // The `select!` takes everything, and makes new requests.
            unused.append(&mut triggers.lock().unwrap());
            for _ in 0..20 {
                select! { reactor;
                    recv(inbox) -> _ => {},
                    recv(notified) -> () => {},
                    default(Duration::from_millis(1)) => {}
                }
            }
        }
        drop(other_channels);
    }
}

#[test]
fn a_blocked_wake_up_is_made_once_more() {
    let _watchdog = watchdog();
    for second in 0..5 {
        while_asleep(true, |shared, triggers| {
            let mut calls = [0; 4];
            thread::scope(|scope| {
                let send = |n: usize| {
                    scope.spawn(&triggers[n % triggers.len()]).join().unwrap();
                    shared.calls()
                };
                let first = scope.spawn(&triggers[0]);
                // The first call of the waker has begun and does not return.
                shared.wait_until(|state| state.calls == 1);
                calls[0] = send(second);
                calls[1] = send(3);
                calls[2] = (0..20).map(send).max().unwrap();
                shared.change(|state| state.held = false);
                first.join().unwrap();
                calls[3] = shared.calls();
            });
            // No `select!` has asked for wake-ups of its other sources.
            assert!(calls[0] == 2 || matches!(second, 1 | 2), "trigger {second}: {calls:?} calls");
            assert_eq!(calls[1..], [2; 3], "trigger {second}: a third call was made");
        });
    }
}

//! How often a waker is called: once for each sleep, again when a call has failed, and by another
//! thread when a call does not return.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pollmux::{
    Events, Inbox, Reactor, Select, Sim, Time, channel,
    driver::{Driver, Wake},
    select,
};
use support::{HOUR, Hooked, Hooks, Waiting, dog, thread};

type Step = Box<dyn FnOnce() + Send>;

/// Fails some times, and then wakes.
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

/// Virtual time: a wake-up that is lost lets it go on for an hour.
struct Flaky {
    waker: Arc<FailsFirst>,
    step: Option<Step>,
}

impl Hooks<Sim> for Flaky {
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

/// A reactor whose waker fails `failures` times; another thread does what `step` returns while the
/// reactor sleeps, and `sleep` must end at once.
fn woken<S>(
    failures: u32,
    prepare: impl FnOnce(&Reactor) -> (Step, S),
    sleep: impl FnOnce(&Reactor, S),
) {
    let sim = Sim::new();
    let waker = Arc::new(FailsFirst { waker: sim.waker(), left: AtomicU32::new(failures) });
    // The step is known only when the reactor is there.
    let (give, given) = std::sync::mpsc::channel::<Step>();
    let step: Step = Box::new(move || (given.recv().unwrap())());
    let driver = Hooked(sim.clone(), Flaky { waker, step: Some(step) });
    let reactor = Reactor::with_driver(driver).unwrap();
    let (step, state) = prepare(&reactor);
    give.send(step).unwrap();
    let _limit = reactor.after(HOUR);
    sleep(&reactor, state);
    assert_eq!(sim.now(), Time::ZERO, "{failures} failures");
}

/// Failures, and how often there is news: three attempts follow a failure at once. After four
/// failures the next news makes the wake-up.
const CASES: [(u32, usize); 7] = [(1, 1), (2, 1), (3, 1), (3, 10), (4, 2), (8, 3), (4, 10)];

#[test]
fn a_message_is_heard_after_failed_wake_ups() {
    let _dog = dog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let (tx, inbox) = reactor.channel::<usize>(16).unwrap();
            let step: Step = Box::new(move || (0..times).for_each(|n| tx.send(n).unwrap()));
            (step, inbox)
        };
        woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(0)) }
        });
        woken(failures, prepare, |reactor, inbox| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!((events.len(), inbox.try_recv()), (1, Ok(0)));
        });
        woken(failures, prepare, |reactor, inbox| {
            let mut select = Select::new(reactor);
            select.recv(&inbox);
            assert_eq!(select.wait().unwrap().recv(&inbox), Some(Ok(0)));
        });
    }
}

#[test]
fn a_last_message_and_an_end_are_heard_after_failures() {
    let _dog = dog();
    for failures in [1, 2] {
        let prepare = |reactor: &Reactor| {
            let (tx, inbox) = reactor.channel::<usize>(16).unwrap();
            let step: Step = Box::new(move || drop(tx));
            (step, inbox)
        };
        woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> end => assert!(end.is_err()) }
        });
    }
}

#[test]
fn a_post_is_run_after_failed_wake_ups() {
    let _dog = dog();
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
        woken(failures, prepare, |reactor, inbox| {
            select! { reactor; recv(inbox) -> n => assert_eq!(n, Ok(0)) }
        });
    }
}

#[test]
fn a_wake_up_by_remote_is_made_after_failures() {
    let _dog = dog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let remote = reactor.remote();
            let step: Step = Box::new(move || (0..times).for_each(|_| remote.wake()));
            (step, ())
        };
        woken(failures, prepare, |reactor, ()| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert!(events.is_empty());
        });
    }
}

#[test]
fn a_bell_is_heard_after_failed_wake_ups() {
    let _dog = dog();
    for (failures, times) in CASES {
        let prepare = |reactor: &Reactor| {
            let (notifier, notified) = reactor.notifier();
            let step: Step = Box::new(move || (0..times).for_each(|_| notifier.notify()));
            (step, notified)
        };
        woken(failures, prepare, |reactor, notified| {
            select! { reactor; recv(notified) -> () => {} }
        });
        woken(failures, prepare, |reactor, notified| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!((events.len(), reactor.try_recv(&notified).unwrap()), (1, Some(())));
        });
    }
}

#[test]
fn a_cancellation_is_told_after_failed_wake_ups() {
    let _dog = dog();
    for failures in [1, 2] {
        let prepare = |reactor: &Reactor| {
            let (context, canceller) = reactor.context().with_cancel();
            let step: Step = Box::new(move || _ = canceller.cancel());
            (step, reactor.done(&context))
        };
        woken(failures, prepare, |reactor, done| {
            select! { reactor; recv(done) -> _ => {} }
        });
        woken(failures, prepare, |reactor, done| {
            let mut events = Events::with_capacity(4);
            reactor.wait(&mut events).unwrap();
            assert_eq!(events.len(), 1);
            drop(done);
        });
    }
}

#[test]
fn room_is_told_to_a_send_case_after_failures() {
    let _dog = dog();
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
        woken(failures, prepare, |reactor, outbox| {
            select! { reactor; send(outbox, 2) -> sent => assert!(sent.is_ok()) }
        });
    }
}

#[test]
fn news_of_another_source_retries_failed_wake_ups() {
    let _dog = dog();
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
    woken(4, prepare, |reactor, _sources| wait(reactor));
    let prepare = |reactor: &Reactor| {
        let ((step, sources), remote) = (prepare(reactor), reactor.remote());
        let step: Step = Box::new(move || {
            step();
            remote.wake();
        });
        (step, sources)
    };
    woken(8, prepare, |reactor, _sources| wait(reactor));
}

/// What the test and the reactor's thread know of each other.
#[derive(Default)]
struct Bed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asleep: bool,
    /// The test ends the sleep.
    over: bool,
    /// Calls of the waker.
    calls: u32,
    /// The first call of the waker waits for this.
    held: bool,
}

impl Bed {
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

impl Wake for Bed {
    fn wake(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let is_first = state.calls == 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| is_first && state.held).unwrap());
        Ok(())
    }
}

/// Lets a driver sleep until the test ends that, whatever its waker is told.
struct Sleeper(Arc<Bed>);

impl Hooks<Sim> for Sleeper {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if !waiting.blocks() {
            return waiting.by(sim);
        }
        self.0.change(|state| state.asleep = true);
        self.0.wait_until(|state| state.over);
        Ok(())
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.0.clone()
    }
}

/// Sleeps until there is a message in an inbox.
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

/// News for the reactor from any thread.
type News = Box<dyn Fn() + Send + Sync>;

/// Calls `test` while a reactor sleeps. It gets ways to send the reactor news: a message for the
/// inbox that the reactor waits for is the first.
fn while_asleep(held: bool, test: impl Fn(&Bed, &[News])) {
    for sleep in SLEEPS {
        let bed = Arc::<Bed>::default();
        bed.change(|state| state.held = held);
        let (give, given) = std::sync::mpsc::channel();
        let driver_bed = bed.clone();
        let _reactor = support::aside(move || {
            let reactor = Reactor::with_driver(Hooked(Sim::new(), Sleeper(driver_bed))).unwrap();
            let (tx, inbox) = reactor.channel::<u32>(1_000).unwrap();
            let (other, _other_inbox) = reactor.channel::<u32>(1_000).unwrap();
            let (notifier, _notified) = reactor.notifier();
            let (remote, poster) = (reactor.remote(), reactor.remote());
            let news: [News; 5] = [
                Box::new(move || tx.send(1).unwrap()),
                Box::new(move || other.send(1).unwrap()),
                Box::new(move || notifier.notify()),
                Box::new(move || remote.wake()),
                Box::new(move || poster.post(|_| {}).unwrap()),
            ];
            give.send(news).unwrap();
            sleep(&reactor, &inbox);
        });
        let news = given.recv().unwrap();
        bed.wait_until(|state| state.asleep);
        test(&bed, &news);
        bed.change(|state| state.over = true);
    }
}

#[test]
fn a_sleep_is_ended_by_one_wake_up() {
    let _dog = dog();
    while_asleep(false, |bed, news| {
        thread::scope(|scope| scope.spawn(&news[0]).join().unwrap());
        assert_eq!(bed.calls(), 1);
        for n in 0..50 {
            thread::scope(|scope| scope.spawn(&news[n % news.len()]).join().unwrap());
        }
        thread::scope(|scope| (0..50).for_each(|n| _ = scope.spawn(&news[n % news.len()])));
        assert_eq!(bed.calls(), 1, "a sleep that has ended needs no further wake-up");
    });
}

/// Gives news while the reactor sleeps.
struct Speaker(Arc<Mutex<Vec<News>>>, Arc<Bed>);

impl Hooks<Sim> for Speaker {
    fn wait(&mut self, sim: &mut Sim, mut waiting: Waiting<'_>) -> io::Result<()> {
        if waiting.blocks() {
            self.0.lock().unwrap().iter().for_each(|news| news());
        }
        waiting.by(sim)
    }

    fn waker(&self, _: &Sim) -> Arc<dyn Wake> {
        self.1.clone()
    }
}

/// Rule 14: the request of a `select!` serves for its sleep, and that of a registration once. Where
/// channels are few a registration asks for nothing.
#[test]
fn what_no_select_mentions_ends_one_sleep_at_most() {
    for (beside, ended) in [(0, 0), (40, 1)] {
        let (news, bed) = (Arc::<Mutex<Vec<News>>>::default(), Arc::<Bed>::default());
        let driver = Hooked(Sim::new(), Speaker(news.clone(), bed.clone()));
        let reactor = Reactor::with_driver(driver).unwrap();
        let beside: Vec<_> = (0..beside).map(|_| reactor.channel::<u32>(1).unwrap()).collect();
        let (tx, inbox) = reactor.channel::<u32>(100).unwrap();
        let (notifier, notified) = reactor.notifier();
        let mut tell: Vec<News> =
            vec![Box::new(move || tx.send(1).unwrap()), Box::new(move || notifier.notify())];
        for _ in 0..2 {
            news.lock().unwrap().append(&mut tell);
            (0..10).for_each(|_| reactor.sleep_blocking(Duration::from_millis(1)).unwrap());
            assert_eq!(bed.calls(), ended);
            // All is taken, and asked for again.
            tell.append(&mut news.lock().unwrap());
            for _ in 0..20 {
                select! { reactor;
                    recv(inbox) -> _ => {},
                    recv(notified) -> () => {},
                    default(Duration::from_millis(1)) => {}
                }
            }
        }
        drop(beside);
    }
}

#[test]
fn a_wake_up_that_stands_still_is_made_once_more() {
    let _dog = dog();
    for second in 0..5 {
        while_asleep(true, |bed, news| {
            let mut calls = [0; 4];
            thread::scope(|scope| {
                let send = |n: usize| {
                    scope.spawn(&news[n % news.len()]).join().unwrap();
                    bed.calls()
                };
                let first = scope.spawn(&news[0]);
                // The first call of the waker has begun, and does not return.
                bed.wait_until(|state| state.calls == 1);
                calls[0] = send(second);
                calls[1] = send(3);
                calls[2] = (0..20).map(send).max().unwrap();
                bed.change(|state| state.held = false);
                first.join().unwrap();
                calls[3] = bed.calls();
            });
            // Nobody has asked a `select!` for news of its other sources.
            assert!(calls[0] == 2 || matches!(second, 1 | 2), "news {second}: {calls:?} calls");
            assert_eq!(calls[1..], [2; 3], "news {second}: calls after the second thread's");
        });
    }
}

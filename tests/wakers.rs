//! A waker that fails is called again at once.

#[path = "common/watch.rs"]
mod watch;

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pollmux::{
    Clock, Deadline, Driver, Events, Reactor, ReadyFds, Select, Sim, Time, Wait, Wake, channel, select,
};
use watch::dog;

type Step = Box<dyn FnOnce() + Send>;

/// Virtual time: a wake-up that is lost lets it go on for an hour.
struct Flaky {
    sim: Sim,
    waker: Arc<FailsFirst>,
    step: RefCell<Option<Step>>,
}

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

impl Driver for Flaky {
    fn wait(&mut self, deadline: Option<Deadline>, how: Wait, ready: &mut ReadyFds) -> io::Result<()> {
        if let (Wait::Block, Some(step)) = (how, self.step.take()) {
            thread::spawn(step).join().unwrap();
        }
        self.sim.wait(deadline, how, ready)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn clock(&self) -> Clock {
        self.sim.clock()
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A reactor whose waker fails `failures` times; another thread does what `step` returns while the
/// reactor sleeps, and `sleep` must end at once.
fn woken<S>(failures: u32, prepare: impl FnOnce(&Reactor) -> (Step, S), sleep: impl FnOnce(&Reactor, S)) {
    let sim = Sim::new();
    let waker = Arc::new(FailsFirst { waker: sim.waker(), left: AtomicU32::new(failures) });
    // The step is known only when the reactor is there.
    let (give, given) = std::sync::mpsc::channel::<Step>();
    let step: Step = Box::new(move || (given.recv().unwrap())());
    let driver = Flaky { sim: sim.clone(), waker, step: RefCell::new(Some(step)) };
    let reactor = Reactor::with_driver(driver).unwrap();
    let (step, state) = prepare(&reactor);
    give.send(step).unwrap();
    let _limit = reactor.after(HOUR);
    sleep(&reactor, state);
    assert_eq!(sim.now(), Time::ZERO, "{failures} failures");
}

/// Failures, and how often there is news: three attempts follow a failure at once.
const CASES: [(u32, usize); 4] = [(1, 1), (2, 1), (3, 1), (3, 10)];

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
    for failures in [1, 2] {
        let prepare = |reactor: &Reactor| {
            let (tx, rx) = channel::bounded::<u32>(1);
            tx.send(1).unwrap();
            let step: Step = Box::new(move || {
                assert_eq!(rx.recv(), Ok(1));
                std::mem::forget(rx);
            });
            (step, reactor.register(tx).unwrap())
        };
        woken(failures, prepare, |reactor, outbox| {
            select! { reactor; send(outbox, 2) -> sent => assert!(sent.is_ok()) }
        });
    }
}

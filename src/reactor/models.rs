//! The loom models of what a [`Remote`] asks of a loop: every interleaving of a few threads, up to
//! a number of preemptions (`channel/models.rs` says how to run them).
//!
//! The reactor is the real one, on a driver that can only sleep and be woken. A post or a wake that
//! is lost shows as a deadlock, which loom reports.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::{Events, Reactor, Remote};
use crate::driver::{Clock, Driver, ReadyFds, VirtualClock, Wait, Wake, WakeWindow};
use crate::sync::Ordering;
use crate::sys::Time;
pub(crate) use crate::wake::models::Bed;
use crate::wake::models::{models, spawn};

/// A driver that sleeps in a [`Bed`]. Its virtual clock never moves.
struct Sleeper {
    bed: Arc<Bed>,
    clock: VirtualClock,
    /// Stands for the fd of an outer loop, which here sleeps in the bed itself.
    fd: File,
}

impl Driver for Sleeper {
    fn wait(&mut self, _: Option<WakeWindow>, how: Wait, _: &mut ReadyFds) -> io::Result<()> {
        match how {
            Wait::Block => self.bed.sleep(),
            Wait::Poll => self.bed.look(),
        }
        Ok(())
    }

    fn arm(&mut self, _: WakeWindow) -> io::Result<()> {
        Ok(())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.bed.clone()
    }

    fn clock(&self) -> Clock {
        Clock::Virtual(self.clock.clone())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}

pub(crate) fn reactor() -> (Reactor, Arc<Bed>) {
    let bed = Bed::new();
    let fd = File::open("/dev/null").unwrap();
    let driver = Sleeper { bed: bed.clone(), clock: VirtualClock::new(Time::ZERO), fd };
    (Reactor::with_driver(driver).unwrap(), bed)
}

/// The posts that ran, in order. Only the reactor's thread touches it.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u32>>>);

impl Log {
    fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Posts that `n` is to be noted; the one that makes it `all` ends the wait.
    fn post(&self, remote: &Remote, n: u32, all: usize) {
        let (log, again) = (self.clone(), remote.clone());
        let noted = remote.post(move |_| {
            log.0.lock().unwrap().push(n);
            if log.len() == all {
                again.wake();
            }
        });
        assert!(noted.is_ok());
    }
}

fn wait_for(reactor: &Reactor, log: &Log, expected: &[&[u32]]) {
    let mut events = Events::with_capacity(1);
    reactor.wait(&mut events).unwrap();
    let noted = log.take();
    assert_eq!(noted.len(), expected.iter().map(|one| one.len()).sum::<usize>(), "{noted:?}");
    for one in expected {
        assert!(noted.iter().filter(|n| one.contains(n)).eq(one.iter()), "not in order: {noted:?}");
    }
}

models! {
    fn posts_against_a_sleep() {
        let (reactor, bed) = reactor();
        let (remote, log) = (reactor.remote(), Log::default());
        let note = log.clone();
        let poster = thread::spawn(move || [1, 2].map(|n| note.post(&remote, n, 2)));
        wait_for(&reactor, &log, &[&[1, 2]]);
        poster.join().unwrap();
        // One for each sleep: no more than were announced.
        assert!(bed.wakes.load(Relaxed) <= 3);
    }

    fn posts_of_two_threads_against_a_sleep() {
        let (reactor, _) = reactor();
        let log = Log::default();
        let _posters = [1, 2].map(|n| {
            let (remote, note) = (reactor.remote(), log.clone());
            spawn(move || note.post(&remote, n, 2))
        });
        wait_for(&reactor, &log, &[&[1], &[2]]);
    }

    fn a_wake_against_a_wait_and_what_was_done_before_it_is_seen() {
        let (reactor, _) = reactor();
        let (remote, done) = (reactor.remote(), Arc::new(AtomicUsize::new(0)));
        let theirs = done.clone();
        let _waker = spawn(move || {
            theirs.store(1, Ordering::Relaxed);
            remote.wake();
        });
        let mut events = Events::with_capacity(1);
        reactor.wait(&mut events).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }

    fn two_wakes_against_waits() {
        let (reactor, _) = reactor();
        let done = Arc::new(AtomicUsize::new(0));
        let _wakers = [(); 2].map(|()| {
            let (remote, theirs) = (reactor.remote(), done.clone());
            spawn(move || {
                theirs.fetch_add(1, Ordering::Relaxed);
                remote.wake();
            })
        });
        let mut events = Events::with_capacity(1);
        // Two may be seen as one, but not before both were made.
        while done.load(Ordering::Relaxed) < 2 {
            reactor.wait(&mut events).unwrap();
        }
    }

    fn a_wake_against_a_sleep_for_a_source_of_the_users_own() {
        let (reactor, _) = reactor();
        let raised = Arc::new(AtomicUsize::new(0));
        let _raisers = [(); 2].map(|()| {
            let (remote, theirs) = (reactor.remote(), raised.clone());
            spawn(move || {
                theirs.fetch_add(1, Ordering::Release);
                remote.wake();
            })
        });
        let core = reactor.core.clone();
        // As `select!`: looks, and sleeps until there is a reason to look again.
        core.begin_turn();
        let is_ready = || raised.load(Ordering::Acquire) == 2;
        while !is_ready() {
            core.block(None, |_| Ok(()), is_ready).unwrap();
            core.look();
        }
    }

    fn a_post_and_a_wake_against_a_wait() {
        let (reactor, _) = reactor();
        let log = Log::default();
        let (remote, note) = (reactor.remote(), log.clone());
        let poster = thread::spawn(move || note.post(&remote, 1, usize::MAX));
        let remote = reactor.remote();
        let waker = thread::spawn(move || remote.wake());
        let mut events = Events::with_capacity(1);
        // Whichever comes first, neither takes the other away.
        reactor.wait(&mut events).unwrap();
        poster.join().unwrap();
        waker.join().unwrap();
        reactor.try_wait(&mut events).unwrap();
        assert_eq!(log.take(), [1]);
    }

    fn a_post_and_a_wake_against_embedded_turns() {
        let (reactor, bed) = reactor();
        let inner = reactor.embed().unwrap();
        let log = Log::default();
        let (remote, note) = (reactor.remote(), log.clone());
        let _poster = spawn(move || [1, 2].map(|n| note.post(&remote, n, usize::MAX)));
        let mut noted = Vec::new();
        while noted.len() < 2 {
            bed.sleep(); // the outer loop
            inner.turn().unwrap();
            noted.extend(log.take());
        }
        assert_eq!(noted, [1, 2]);
    }

    fn posts_during_a_select_inside_a_callback_are_run_after_it() {
        let (reactor, _) = reactor();
        let log = Log::default();
        let (remote, note) = (reactor.remote(), log.clone());
        let raised = Arc::new(AtomicUsize::new(0));
        let theirs = raised.clone();
        let poster = thread::spawn(move || {
            note.post(&remote, 1, 1);
            theirs.store(1, Ordering::Release);
            remote.wake();
        });
        let (source, noted) = (Rc::new(raised), log.clone());
        let callback = reactor.call_after(std::time::Duration::ZERO, move |cx| {
            let (is_ready, before) = (|| source.load(Ordering::Acquire) == 1, noted.len());
            while !is_ready() {
                cx.core.block(None, |_| Ok(()), is_ready).unwrap();
                cx.core.look();
            }
            assert_eq!(noted.len(), before);
        });
        // The wake may end a wait before the turn that runs the post.
        while log.len() == 0 {
            reactor.wait(&mut Events::with_capacity(1)).unwrap();
        }
        poster.join().unwrap();
        drop(callback);
    }

    fn a_post_against_the_reactors_drop_is_run_dropped_or_given_back() {
        let (reactor, _) = reactor();
        let (remote, token) = (reactor.remote(), Arc::new(()));
        let held = token.clone();
        let poster = thread::spawn(move || match remote.post(move |_| drop(held)) {
            Ok(()) => {}
            Err(back) => {
                assert!(remote.is_closed());
                drop(back);
            }
        });
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        drop(reactor);
        poster.join().unwrap();
        assert_eq!(Arc::strong_count(&token), 1);
    }

    fn the_last_of_the_requests_for_one_timer_is_done() {
        let (reactor, _) = reactor();
        let timer = reactor.timer();
        let id = timer.id();
        let askers = [(); 2].map(|()| {
            let remote = reactor.remote();
            thread::spawn(move || {
                remote.stop(id).unwrap();
                remote.reset(id, std::time::Duration::ZERO).unwrap();
            })
        });
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        reactor.try_wait(&mut Events::with_capacity(1)).unwrap();
        // Each stop has a reset of its thread behind it.
        assert!(timer.deadline().is_some());
    }

    fn a_request_that_joins_another_one_is_not_lost() {
        let (reactor, _) = reactor();
        let timer = reactor.timer();
        let id = timer.id();
        let remote = reactor.remote();
        remote.stop(id).unwrap();
        let _asker = spawn(move || remote.reset(id, std::time::Duration::ZERO).unwrap());
        // A lost request is a deadlock.
        let mut events = Events::with_capacity(1);
        reactor.wait(&mut events).unwrap();
        assert_eq!(events.len(), 1);
    }

    fn a_request_behind_a_closure_is_done_after_it() {
        let (reactor, _) = reactor();
        let timer = reactor.timer();
        let id = timer.id();
        let (remote, log) = (reactor.remote(), Log::default());
        remote.stop(id).unwrap();
        let note = log.clone();
        let _asker = spawn(move || {
            let look = move |handle: &super::Handle| {
                let is_armed = handle.sources().iter().any(|source| source.deadline.is_some());
                note.0.lock().unwrap().push(u32::from(is_armed));
            };
            assert!(remote.post(look).is_ok());
            remote.reset(id, std::time::Duration::ZERO).unwrap();
        });
        // The timer ends the wait. The closure has come before.
        reactor.wait(&mut Events::with_capacity(1)).unwrap();
        assert_eq!(log.take(), [0], "the reset was done before the closure");
    }
}

//! The loom models of bells, and the bed in which other models sleep.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --lib models` runs all
//! models. A lost wake-up shows as a deadlock, which loom reports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};

use super::{Bell, Look, Notify, Probe, Request, Wake};
use crate::sync::{Ordering, fence};

pub(crate) use crate::sync::{Joined, spawn};
pub(crate) use crate::sys::models;

/// The slot of a registered channel in these models.
pub(crate) const SLOT: u32 = 7;

/// A waker on which a thread of a model can sleep.
pub(crate) struct Bed {
    woken: Mutex<bool>,
    changed: Condvar,
    pub(crate) wakes: Count,
}

impl Wake for Bed {
    fn wake(&self) -> io::Result<()> {
        self.wakes.fetch_add(1, Relaxed);
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
        Ok(())
    }
}

impl Bed {
    pub(crate) fn new() -> Arc<Bed> {
        Arc::new(Bed { woken: Mutex::new(false), changed: Condvar::new(), wakes: Count::new(0) })
    }

    pub(crate) fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }

    /// Takes a pending wake-up.
    pub(crate) fn look(&self) {
        *self.woken.lock().unwrap() = false;
    }
}

pub(crate) fn party() -> (Arc<Notify>, Arc<Bed>) {
    let bed = Bed::new();
    (Arc::new(Notify::new(bed.clone())), bed)
}

/// Takes the marks, and returns true if there was one.
pub(crate) fn collect(notify: &Notify) -> bool {
    let mut marked = false;
    if notify.is_marked() {
        notify.take_marks(|slot| {
            assert_eq!(slot, SLOT);
            marked = true;
        });
    }
    marked
}

/// Makes a bell, a value, and two threads that change the value before they ring.
fn ringers(
    notify: &Arc<Notify>,
) -> (Arc<Bell>, Arc<loom::sync::atomic::AtomicUsize>, [Joined<()>; 2]) {
    notify.prepare(SLOT);
    let bell = Arc::new(Bell::new(notify.clone(), SLOT));
    let done = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
    let ringers = [(); 2].map(|()| {
        let (bell, done) = (bell.clone(), done.clone());
        spawn(move || {
            done.fetch_add(1, Ordering::Relaxed);
            bell.ring();
        })
    });
    (bell, done, ringers)
}

models! {
    fn a_select_sees_the_writes_before_a_ring() {
        let (notify, bed) = party();
        let (bell, done, _ringers) = ringers(&notify);
        let mut seen = 0;
        while seen < 2 {
            if bell.hear() {
                seen = done.load(Ordering::Relaxed);
                continue;
            }
            notify.sleep();
            bell.ask(Request::Wake);
            fence(Ordering::SeqCst);
            if !bell.is_rung() {
                bed.sleep();
            }
            notify.awake();
            bell.unask();
        }
    }

    fn a_wait_sees_the_writes_before_a_ring() {
        let (notify, bed) = party();
        let (bell, done, _ringers) = ringers(&notify);
        let (mut seen, mut ready) = (0, bell.ask_and_look(Request::Mark) == Look::Ready);
        while seen < 2 {
            if ready {
                bell.silence();
                if bell.hear() {
                    seen = done.load(Ordering::Relaxed);
                }
                ready = seen < 2 && bell.ask_and_look(Request::Mark) == Look::Ready;
                continue;
            }
            notify.sleep();
            fence(Ordering::SeqCst);
            if !notify.is_marked() {
                bed.sleep();
            }
            notify.awake();
            ready = collect(&notify) && bell.look_or_ask(Some(Request::Mark)) == Look::Ready;
        }
    }
}

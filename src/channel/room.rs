//! The threads, reactors and outboxes that wait for room in a channel that is full.
//!
//! Nobody waits for the lock: its holder may stall. A receiver that has made room notes the
//! wake-ups that it owes, and makes them if it gets the lock. If not, the holder makes them when it
//! gives the lock back. A sender that does not get the lock naps instead of registering.
//! Wakers are called without the lock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use crate::wake::{Bell, Notify};

/// The waiters for room. The module's text describes them.
#[repr(C)]
pub(super) struct Room {
    /// The number of waiters. Written under the lock. The receiver reads it after each message.
    waiting: AtomicUsize,
    /// Slots that have become free, and for which no waiter was woken.
    freed: AtomicUsize,
    /// Wake-ups that the list owes. Written under the lock.
    owed: AtomicUsize,
    list: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    /// Threads, in the order in which they came. As many are woken as slots have become free.
    threads: VecDeque<Waiter>,
    threads_owed: usize,
    /// Reactors and outboxes. When there is room all of them are woken and forgotten: each may
    /// choose another case.
    reactors: VecDeque<Waiter>,
    reactors_owed: usize,
}

/// A party that waits for room.
#[derive(Clone)]
pub(super) enum Waiter {
    /// A thread in a blocking send.
    Thread(Arc<Notify>),
    /// A reactor that sleeps with a send case.
    Reactor(Arc<Notify>),
    /// An outbox, whose reactor has other things to do meanwhile.
    Outbox(Arc<Bell>),
}

impl Waiter {
    fn is(&self, other: &Waiter) -> bool {
        match (self, other) {
            (Waiter::Thread(one), Waiter::Thread(other)) => Arc::ptr_eq(one, other),
            (Waiter::Reactor(one), Waiter::Reactor(other)) => Arc::ptr_eq(one, other),
            (Waiter::Outbox(one), Waiter::Outbox(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Returns false if the wake-up has failed.
    fn wake(&self) -> bool {
        match self {
            Waiter::Thread(party) | Waiter::Reactor(party) => party.wake(),
            Waiter::Outbox(bell) => bell.ring(),
        }
    }
}

/// The end of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The registration was taken back.
    Unwoken,
    /// Its wake-up has been made, or is being made.
    Woken,
    /// The list is in use: the registration stays, and takes a wake-up that another waiter needs.
    InUse,
}

impl Waiters {
    fn among(&mut self, waiter: &Waiter) -> &mut VecDeque<Waiter> {
        match waiter {
            Waiter::Thread(_) => &mut self.threads,
            Waiter::Reactor(_) | Waiter::Outbox(_) => &mut self.reactors,
        }
    }

    /// Takes out the next waiter to be woken.
    fn pop(&mut self) -> Option<Waiter> {
        if self.threads_owed > 0 {
            self.threads_owed -= 1;
            let thread = self.threads.pop_front();
            if thread.is_some() {
                return thread;
            }
            self.threads_owed = 0;
        }
        self.reactors_owed = self.reactors_owed.min(self.reactors.len());
        self.reactors_owed = self.reactors_owed.checked_sub(1)?;
        self.reactors.pop_front()
    }
}

impl Room {
    pub(super) fn new() -> Room {
        Room {
            waiting: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
            owed: AtomicUsize::new(0),
            list: Mutex::default(),
        }
    }

    /// Returns true if a party may wait. The receiver asks after it has moved the head.
    #[inline(always)]
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) != 0
    }

    /// [`is_awaited`](Self::is_awaited), in one order with the caller's fence.
    pub(super) fn is_awaited_now(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Changes the list, unless another thread holds its lock for long.
    fn change<R>(&self, change: impl FnOnce(&mut Waiters) -> R) -> Option<R> {
        let mut list = self.list.lock_briefly()?;
        let result = change(&mut list);
        self.release(list);
        self.serve();
        Some(result)
    }

    fn release(&self, list: MutexGuard<'_, Waiters>) {
        self.waiting.store(list.threads.len() + list.reactors.len(), Ordering::SeqCst);
        self.owed.store(list.threads_owed + list.reactors_owed, Ordering::SeqCst);
        drop(list);
    }

    /// Registers a waiter. A fence and a look at the room must follow. Returns false if the list is
    /// in use: the caller then looks again in a moment.
    pub(super) fn enter(&self, waiter: Waiter) -> bool {
        self.change(|list| list.among(&waiter).push_back(waiter)).is_some()
    }

    /// Takes one registration back.
    pub(super) fn leave(&self, waiter: &Waiter) -> Left {
        let find = |list: &mut Waiters| {
            let waiters = list.among(waiter);
            let at = waiters.iter().position(|other| other.is(waiter));
            at.and_then(|at| waiters.remove(at))
        };
        match self.change(find) {
            Some(Some(_)) => Left::Unwoken, // dropped without the lock
            Some(None) => Left::Woken,
            None => Left::InUse,
        }
    }

    /// Wakes `n` threads, and every reactor and outbox that waits.
    pub(super) fn wake(&self, n: usize) {
        self.freed.fetch_add(n, Ordering::SeqCst);
        self.serve();
    }

    /// Makes the wake-ups that are owed, unless another thread has the lock, which then makes them.
    fn serve(&self) {
        loop {
            // Either the holder of the lock sees the wake-ups that we owe, or we find the lock
            // free.
            fence(Ordering::SeqCst);
            if self.freed.load(Ordering::SeqCst) == 0 && self.owed.load(Ordering::SeqCst) == 0 {
                return;
            }
            let Some(mut list) = self.list.try_lock() else { return };
            let freed = self.freed.swap(0, Ordering::SeqCst);
            if freed > 0 {
                list.threads_owed = list.threads_owed.saturating_add(freed).min(list.threads.len());
                list.reactors_owed = list.reactors.len();
            }
            let next = list.pop();
            self.release(list);
            if let Some(waiter) = next {
                // After a failed wake-up the next receive tries again. A registration that stays
                // when its reactor goes on costs one needless wake-up.
                if !waiter.wake() {
                    self.enter(waiter);
                }
            }
        }
    }
}

/// For tests: a thread that is stalled with the list.
#[cfg(all(test, not(loom)))]
impl<T> super::Sender<T> {
    pub(crate) fn hold_room(&self) -> impl Drop {
        self.tail().state().room.list.lock()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wake::testing::{Counting, party};

    fn sleeper() -> (Arc<Notify>, Arc<Counting>) {
        let (notify, wakes) = party();
        notify.sleep();
        (notify, wakes)
    }

    #[test]
    fn as_many_threads_wake_as_slots_are_free() {
        let (room, sleepers) = (Room::new(), [sleeper(), sleeper(), sleeper()]);
        sleepers.iter().for_each(|(notify, _)| assert!(room.enter(Waiter::Thread(notify.clone()))));
        room.wake(2);
        assert_eq!(sleepers.each_ref().map(|(_, wakes)| wakes.count()), [1, 1, 0]);
        assert_eq!(room.leave(&Waiter::Thread(sleepers[0].0.clone())), Left::Woken);
        assert_eq!(room.leave(&Waiter::Thread(sleepers[2].0.clone())), Left::Unwoken);
        assert!(!room.is_awaited());
    }

    #[test]
    fn every_reactor_wakes_for_one_slot() {
        let (room, sleepers) = (Room::new(), [sleeper(), sleeper()]);
        sleepers
            .iter()
            .for_each(|(notify, _)| assert!(room.enter(Waiter::Reactor(notify.clone()))));
        room.wake(1);
        assert_eq!(sleepers.each_ref().map(|(_, wakes)| wakes.count()), [1, 1]);
    }

    #[test]
    fn a_list_in_use_holds_up_nobody() {
        let (room, (first, first_wakes), (second, second_wakes)) =
            (Room::new(), sleeper(), sleeper());
        assert!(room.enter(Waiter::Thread(first.clone())));
        let list = room.list.lock();
        assert!(!room.enter(Waiter::Thread(second.clone())));
        assert_eq!(room.leave(&Waiter::Thread(first.clone())), Left::InUse);
        room.wake(1);
        assert_eq!(first_wakes.count(), 0);
        // The holder makes the wake-ups that are owed when it gives the list back.
        room.release(list);
        room.serve();
        assert_eq!((first_wakes.count(), second_wakes.count()), (1, 0));
    }
}

//! The loom models of `slots.rs`: a handler against the end of its set, at every instruction.
//! `channel/models.rs` says how to run them.

use loom::thread;

/// The atomics of `slots.rs`.
mod atomics {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
}
#[allow(dead_code)] // The models do not use all of it.
#[path = "slots.rs"]
mod slots;

use self::atomics::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use self::slots::{COUNT, Raise, Slot, Table, bit};
use crate::sys::models;

const SIGNAL: i32 = 1;
const PROCESS: u64 = 7;

/// An fd that checks that it is closed once, and never raised afterwards.
struct Fd(&'static AtomicUsize);

impl Raise for Fd {
    fn raise(&self) {
        assert_eq!(self.0.load(Ordering::Acquire), 0, "raised after it was closed");
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        assert_eq!(self.0.fetch_add(1, Ordering::AcqRel), 0, "closed twice");
    }
}

/// Returns a table, which is never freed, as in a build.
fn table() -> &'static Table<Fd> {
    Box::leak(Box::new(Table {
        head: AtomicPtr::new(std::ptr::null_mut()),
        births: AtomicU64::new(0),
        arrived: std::array::from_fn::<_, COUNT, _>(|_| AtomicU64::new(0)),
        taken: std::array::from_fn::<_, COUNT, _>(|_| AtomicU64::new(0)),
    }))
}

fn set(table: &'static Table<Fd>) -> (&'static Slot<Fd>, &'static AtomicUsize) {
    let closed: &AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
    let slot = table.claim(Fd(closed), PROCESS);
    table.watch(slot, SIGNAL);
    (slot, closed)
}

/// Runs a handler. Returns true if a set got the signal, and false if the signal must take its old
/// action.
fn come(table: &'static Table<Fd>) -> bool {
    table.arrive(SIGNAL);
    table.deliver(SIGNAL, PROCESS).is_ok()
}

models! {
    fn a_signal_is_taken_or_left_once() {
        let table = table();
        let (slot, closed) = set(table);
        let handler = thread::spawn(move || come(table));
        let taken = table.take(slot).is_some();
        let left = slot.retire() & bit(SIGNAL) != 0;
        let told = handler.join().unwrap();
        // The signal is taken, or left to the owner, or left to the handler, but only one of these.
        assert_eq!(u8::from(taken) + u8::from(left) + u8::from(!told), 1);
        assert_eq!(left, left && !table.is_taken(SIGNAL), "a signal that is left was not taken");
        assert_eq!(closed.load(Ordering::Acquire), 1, "the last party to leave closes the fd");
    }

    fn two_handlers_against_the_end_lose_nothing() {
        let table = table();
        let (slot, closed) = set(table);
        let handlers = [(); 2].map(|()| thread::spawn(move || come(table)));
        let left = slot.retire() & bit(SIGNAL) != 0;
        let told = handlers.map(|handler| handler.join().unwrap());
        // A signal that comes twice before a take is reported once.
        assert!(left || told != [true; 2]);
        assert_eq!(closed.load(Ordering::Acquire), 1);
    }

    fn a_slot_is_reused_beside_an_old_handler() {
        let table = table();
        let (slot, closed) = set(table);
        let handler = thread::spawn(move || come(table));
        let left = slot.retire() & bit(SIGNAL) != 0;
        let (other, other_closed) = set(table);
        let told = handler.join().unwrap();
        let taken = table.take(other).is_some();
        assert_eq!(u8::from(taken) + u8::from(left) + u8::from(!told), 1);
        assert_eq!(other.retire(), 0);
        assert_eq!(closed.load(Ordering::Acquire) + other_closed.load(Ordering::Acquire), 2);
    }

    fn a_new_set_takes_over_beside_a_handler() {
        let table = table();
        // There are two slots, and the handler visits the free one first.
        let (old, _) = set(table);
        let (gone, _) = set(table);
        gone.retire();
        let handler = thread::spawn(move || come(table));
        let (new, _) = set(table);
        let left = old.retire() & bit(SIGNAL) != 0;
        let told = handler.join().unwrap();
        assert!(told, "one of the two sets always exists");
        if left && !table.is_taken(SIGNAL) {
            table.hand_on(SIGNAL, PROCESS);
        }
        assert_eq!(table.take(new), Some(SIGNAL));
        assert_eq!(table.take(new), None);
    }

    fn a_new_set_gets_no_taken_signal() {
        let table = table();
        // There are two slots, and the handler visits that of the old set first.
        let (gone, _) = set(table);
        let (old, _) = set(table);
        gone.retire();
        let handler = thread::spawn(move || come(table));
        let taken = table.take(old).is_some();
        if taken {
            let (young, _) = set(table);
            assert_eq!(old.retire(), 0);
            assert!(handler.join().unwrap());
            assert_eq!(table.take(young), None);
        } else {
            assert!(handler.join().unwrap());
        }
    }

    fn two_takers_get_one_signal_once() {
        let table = table();
        let (slot, _) = set(table);
        assert!(come(table));
        let other = thread::spawn(move || table.take(slot).is_some());
        let here = table.take(slot).is_some();
        assert!(here != other.join().unwrap());
        assert!(table.is_taken(SIGNAL));
    }

    fn a_signal_during_a_take_is_never_lost() {
        let table = table();
        let (slot, _) = set(table);
        assert!(come(table));
        let handler = thread::spawn(move || come(table));
        assert_eq!(table.take(slot), Some(SIGNAL));
        assert!(handler.join().unwrap());
        // The first take may have taken both.
        let again = table.take(slot).is_some();
        assert!(again || !slot.is_pending());
        assert_eq!(slot.retire(), 0);
    }

    fn a_taken_signal_is_never_given_back() {
        let table = table();
        let (takes, _) = set(table);
        let (never_looks, _) = set(table);
        let handler = thread::spawn(move || come(table));
        let taken = table.take(takes).is_some();
        assert!(handler.join().unwrap());
        let last = never_looks.retire() & bit(SIGNAL) != 0;
        assert!(last);
        assert_eq!(table.is_taken(SIGNAL), taken);
    }
}

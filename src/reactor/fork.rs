//! Forks without exec: in a child the reactors of the parent are inert.
//!
//! A reactor lives on one thread, and a child has only the thread that forked. So each thread lists
//! its reactors, and the handler that runs in the child marks them closed. Every turn, source and
//! handle then finds a reactor that is gone, at no cost to the turns of the parent.
//! [`Core::check_process`] compares the counter of forks before a call of the driver, for a fork
//! that met the list in use.
//!
//! [`Notify`](crate::wake::Notify), which other threads hold, compares the counter itself.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::rc::{Rc, Weak};

use super::core::{Core, closed};
use super::parts::heap::NEVER;
use crate::sys::fork;

thread_local! {
    /// The reactors of this thread. (Without a destructor, the first use allocates nothing.)
    static HERE: RefCell<ManuallyDrop<Vec<Weak<Core>>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Lists a new reactor.
pub(super) fn enter(core: &Rc<Core>) {
    fork::on_fork(disown_all);
    HERE.with(|here| here.borrow_mut().push(Rc::downgrade(core)));
}

/// Takes a reactor off the list.
pub(super) fn leave(core: &Rc<Core>) {
    HERE.with(|here| {
        let here = &mut **here.borrow_mut();
        here.retain(|other| !std::ptr::eq(other.as_ptr(), Rc::as_ptr(core)));
        if here.is_empty() {
            *here = Vec::new();
        }
    });
}

/// In a child, on its only thread: the parent's reactors are inert from now on.
fn disown_all() {
    HERE.with(|here| {
        let Ok(here) = here.try_borrow() else { return };
        here.iter().filter_map(Weak::upgrade).for_each(|core| core.disown());
    });
}

impl Core {
    /// Makes the reactor inert, as one that has been dropped. Frees nothing.
    fn disown(&self) {
        self.forked.set(true);
        self.closed.set(true);
        self.outer.embedded.set(false);
        self.turn_work.set(false);
        self.timers.next_due.set(NEVER);
        if let Ok(mut table) = self.table.try_borrow_mut() {
            table.make_idle();
        }
    }

    /// Fails in a forked child, before anything is done to what the parent has.
    #[inline]
    pub(super) fn check_process(&self) -> io::Result<()> {
        if self.notify.is_at_home() {
            return Ok(());
        }
        if !self.closed.get() {
            self.disown();
        }
        Err(self.gone())
    }

    /// The error of everything that needs a reactor which has been dropped, or is the parent
    /// process's.
    #[cold]
    pub(crate) fn gone(&self) -> io::Error {
        if !self.forked.get() {
            return closed();
        }
        let text = format!(
            "the reactor made at {} belongs to the parent process, and this one is a forked child: \
             make a reactor of its own here, after the fork, with Reactor::new()",
            self.made_at
        );
        io::Error::new(io::ErrorKind::NotConnected, text)
    }
}

/// The text of an error that has no reactor to ask.
#[cold]
pub(super) fn gone_or_forked() -> &'static str {
    if fork::is_child() {
        "the reactor has been dropped, or belongs to the parent process: this one is a forked child"
    } else {
        "the reactor has been dropped"
    }
}

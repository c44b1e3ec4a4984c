//! The waker of a kqueue: `EVFILT_USER`, or a pipe.
//!
//! Quirks handled here:
//! - On FreeBSD, NetBSD, OpenBSD and DragonFly `NOTE_TRIGGER` together with `EV_CLEAR` clears the
//!   event, and the wake-up is lost. So only the registration has `EV_CLEAR`.
//! - A trigger overwrites `udata`, so each trigger has the id.
//! - NetBSD before 10 and OpenBSD before 7.8 do not have the filter and return `EINVAL`. There the
//!   waker is a pipe (`pipe.rs`).
//! - With libkqueue before 2.7 no thread may call `kevent` while another thread waits with that
//!   kqueue. There the waker is a pipe, too.

use std::io;
use std::os::fd::AsFd;

use super::super::Watch;
use super::super::kevent::{EV_ADD, EV_CLEAR, EV_DELETE, Filter};
use super::abi::{Kevent, NOTE_TRIGGER, Raw, change_if_there};
use super::{Flag, Poller};

#[derive(Debug)]
pub(crate) struct Waker {
    poller: Poller,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    User { ident: usize, id: u64 },
    Pipe(Flag),
}

impl Waker {
    pub(crate) fn new(poller: &Poller, id: u64) -> io::Result<Waker> {
        let user = if cfg!(flat) { None } else { Some(Waker::user(poller, id)) };
        match user {
            Some(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                Waker::pipe(poller, id)
            }
            Some(made) => made,
            None => Waker::pipe(poller, id),
        }
    }

    fn user(poller: &Poller, id: u64) -> io::Result<Waker> {
        let ident = {
            let book = &mut *poller.book();
            book.wakers += 1;
            book.wakers
        };
        poller.change(&[user(ident, EV_ADD | EV_CLEAR, 0, id)])?;
        Ok(Waker { poller: poller.clone(), kind: Kind::User { ident, id } })
    }

    fn pipe(poller: &Poller, id: u64) -> io::Result<Waker> {
        let flag = Flag::new()?;
        poller.register(flag.as_fd(), Watch::for_edges(id))?;
        Ok(Waker { poller: poller.clone(), kind: Kind::Pipe(flag) })
    }

    #[inline]
    pub(crate) fn wake(&self) -> io::Result<()> {
        match &self.kind {
            // The filter is gone if the waker has retired.
            Kind::User { ident, id } => {
                change_if_there(&self.poller.queue.kq, user(*ident, 0, NOTE_TRIGGER, *id))
            }
            Kind::Pipe(flag) => flag.raise(),
        }
    }

    pub(crate) fn retire(&self, poller: &Poller) {
        debug_assert!(self.poller.is(poller));
        self.leave();
    }

    fn leave(&self) {
        // The book may have been locked by another thread when the process forked.
        if !self.poller.is_here() {
            return;
        }
        // A failure leaves an event that no thread triggers, or means that the event is gone.
        let _ = match &self.kind {
            Kind::User { ident, id } => self.poller.change(&[user(*ident, EV_DELETE, 0, *id)]),
            Kind::Pipe(flag) => self.poller.deregister(flag.as_fd()),
        };
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.leave();
    }
}

fn user(ident: usize, flags: u32, fflags: u32, id: u64) -> Raw {
    Raw::new(Kevent { ident, filter: Filter::User, flags, fflags, data: 0, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::kqueue::Events;
    use std::time::Duration;

    const KINDS: [fn(&Poller, u64) -> io::Result<Waker>; 2] = [Waker::user, Waker::pipe];

    fn look(poller: &Poller, events: &mut Events) -> Vec<u64> {
        poller.wait(events, Some(Duration::ZERO)).unwrap();
        events.iter().map(|event| event.id()).collect()
    }

    #[test]
    fn unawaited_wakes_coalesce_for_each_kind() {
        for make in KINDS {
            let poller = Poller::new().unwrap();
            let waker = make(&poller, u64::MAX).unwrap();
            let mut events = Events::with_capacity(4);
            assert!(look(&poller, &mut events).is_empty());
            for _ in 0..3 {
                for _ in 0..3 {
                    waker.wake().unwrap();
                }
                assert_eq!(look(&poller, &mut events), [u64::MAX]);
                assert!(look(&poller, &mut events).is_empty());
            }
        }
    }

    #[test]
    fn each_kind_ends_a_wait_of_another_thread() {
        for make in if cfg!(flat) { &KINDS[1..] } else { &KINDS } {
            let poller = Poller::new().unwrap();
            let waker = make(&poller, 1).unwrap();
            std::thread::scope(|scope| {
                let (woken, wait) = std::sync::mpsc::channel();
                let poller = &poller;
                scope.spawn(move || {
                    let mut events = Events::with_capacity(4);
                    for _ in 0..1_000 {
                        poller.wait(&mut events, None).unwrap();
                        woken.send(events.len()).unwrap();
                    }
                });
                for _ in 0..1_000 {
                    waker.wake().unwrap();
                    assert_eq!(wait.recv_timeout(Duration::from_secs(60)), Ok(1));
                }
            });
        }
    }

    #[test]
    fn a_full_pipe_still_wakes() {
        let poller = Poller::new().unwrap();
        let waker = Waker::pipe(&poller, 1).unwrap();
        let mut events = Events::with_capacity(2);
        for _ in 0..200_000 {
            waker.wake().unwrap();
        }
        assert_eq!(look(&poller, &mut events), [1]);
        waker.wake().unwrap();
        assert_eq!(look(&poller, &mut events), [1]);
    }

    #[test]
    fn a_dropped_waker_leaves_nothing_behind() {
        for make in KINDS {
            let poller = Poller::new().unwrap();
            let mut events = Events::with_capacity(2);
            let waker = make(&poller, 1).unwrap();
            waker.wake().unwrap();
            waker.retire(&poller);
            waker.wake().unwrap();
            assert!(look(&poller, &mut events).is_empty());
            let waker = make(&poller, 1).unwrap();
            waker.wake().unwrap();
            drop(waker);
            assert!(look(&poller, &mut events).is_empty());
            let waker = make(&poller, 2).unwrap();
            waker.wake().unwrap();
            assert_eq!(look(&poller, &mut events), [2]);
        }
    }
}

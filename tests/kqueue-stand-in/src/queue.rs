//! A kqueue: the knotes, their changes, and the wait.
//!
//! Each knote has a token that is never used again. An event of the epoll set names the token, and
//! the lock protects the lookup of the event's data. So an event is void if another thread has
//! deleted, disabled or taken its knote in the meantime. A waiting call does not hold the lock.

use std::collections::HashMap;
use std::os::raw::{c_int, c_short};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::abi::*;
use crate::registry::mark;
use crate::source::{Source, add};

/// The timeout of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timeout {
    Never,
    After(Duration),
}

/// The most events that one call returns.
const BATCH: usize = 4_096;

type Key = (c_short, usize);

#[derive(Debug)]
pub(crate) struct Queue {
    /// The epoll fd, which the caller owns and closes.
    epoll: c_int,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    knotes: HashMap<Key, Knote>,
    keys: HashMap<u64, Key>,
    tokens: u64,
}

#[derive(Debug)]
struct Knote {
    /// The kevent as it was added and changed.
    kept: kevent,
    token: u64,
    enabled: bool,
    source: Source,
}

impl Queue {
    pub(crate) fn new(epoll: c_int) -> Queue {
        Queue { epoll, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn kevent(
        &self,
        changes: &[kevent],
        room: usize,
        timeout: Timeout,
    ) -> Result<Vec<kevent>, Errno> {
        let answers = self.apply(changes, room)?;
        if !answers.is_empty() || room == 0 {
            return Ok(answers);
        }
        self.wait(room, timeout)
    }

    /// Applies changes, and returns errors and requested receipts as events. If `room` has no place
    /// for an error, the call fails with it and makes no later changes.
    fn apply(&self, changes: &[kevent], room: usize) -> Result<Vec<kevent>, Errno> {
        let mut answers = Vec::new();
        if changes.is_empty() {
            return Ok(answers);
        }
        let state = &mut *self.state();
        for change in changes {
            let errno = match self.change(state, change) {
                Ok(()) if change.flags & EV_RECEIPT == 0 => continue,
                Ok(()) => 0,
                Err(error) if answers.len() >= room => return Err(error),
                Err(Errno(errno)) => errno,
            };
            if answers.len() < room {
                answers.push(kevent {
                    flags: change.flags | EV_ERROR,
                    data: errno as isize,
                    ..*change
                });
            }
        }
        Ok(answers)
    }

    fn change(&self, state: &mut State, change: &kevent) -> Result<(), Errno> {
        let key = (change.filter, change.ident);
        let Some(knote) = state.knotes.get_mut(&key) else {
            if change.flags & EV_ADD == 0 || change.flags & EV_DELETE != 0 {
                // A closed fd and an unknown filter have other errors than a missing knote.
                return Err(Errno(if known(change.filter) { libc::ENOENT } else { libc::EINVAL }));
            }
            return self.create(state, change);
        };
        if change.flags & EV_DELETE != 0 {
            self.remove(state, key);
            return Ok(());
        }
        let enabled = knote.enabled;
        let another = knote.source.touch(&mut knote.kept, change)?;
        knote.kept.udata = change.udata;
        if another && enabled {
            // The former fd left the set when it was closed.
            self.watch(knote)?;
        }
        if change.flags & EV_DISABLE != 0 {
            self.set_enabled(knote, false)
        } else if change.flags & (EV_ENABLE | EV_ADD) != 0 {
            self.set_enabled(knote, true)
        } else {
            Ok(())
        }
    }

    fn create(&self, state: &mut State, change: &kevent) -> Result<(), Errno> {
        let mut kept = *change;
        kept.flags &= EV_ONESHOT | EV_CLEAR | EV_DISPATCH;
        match change.filter {
            EVFILT_TIMER | EVFILT_SIGNAL => kept.flags |= EV_CLEAR,
            EVFILT_USER => kept.fflags &= NOTE_FFLAGSMASK,
            EVFILT_READ | EVFILT_WRITE if change.ident as c_int == self.epoll => {
                return Err(Errno(libc::EINVAL));
            }
            _ => {}
        }
        let source = Source::new(change)?;
        if let Source::Read { fd, .. } | Source::Write { fd, .. } = source {
            mark(fd);
        }
        state.tokens += 1;
        let mut knote = Knote { kept, token: state.tokens, enabled: false, source };
        if change.flags & EV_DISABLE == 0 {
            self.set_enabled(&mut knote, true)?;
        }
        let key = (change.filter, change.ident);
        state.keys.insert(knote.token, key);
        state.knotes.insert(key, knote);
        Ok(())
    }

    fn watch(&self, knote: &Knote) -> Result<(), Errno> {
        add(self.epoll, knote.source.fd(), knote.source.interest(knote.kept.flags), knote.token)
    }

    fn unwatch(&self, knote: &Knote) {
        // SAFETY: the call takes no pointer. It may fail if the fd is closed, which is out of the
        // set by then.
        unsafe {
            libc::epoll_ctl(
                self.epoll,
                libc::EPOLL_CTL_DEL,
                knote.source.fd(),
                std::ptr::null_mut(),
            )
        };
    }

    fn set_enabled(&self, knote: &mut Knote, enabled: bool) -> Result<(), Errno> {
        if knote.enabled != enabled {
            if enabled {
                self.watch(knote)?;
            } else {
                self.unwatch(knote);
            }
            knote.enabled = enabled;
        }
        Ok(())
    }

    fn remove(&self, state: &mut State, key: Key) {
        if let Some(knote) = state.knotes.remove(&key) {
            state.keys.remove(&knote.token);
            if knote.enabled {
                self.unwatch(&knote);
            }
        }
    }

    /// Removes the knotes of `fd`, which is about to be closed.
    pub(crate) fn forget(&self, fd: c_int) {
        let state = &mut *self.state();
        for filter in [EVFILT_READ, EVFILT_WRITE] {
            self.remove(state, (filter, fd as usize));
        }
    }

    fn wait(&self, room: usize, timeout: Timeout) -> Result<Vec<kevent>, Errno> {
        // As in a kernel, fewer events than the caller has room for mean that no more are pending.
        let mut list = vec![libc::epoll_event { events: 0, u64: 0 }; room.min(BATCH)];
        let until = match timeout {
            Timeout::Never => None,
            Timeout::After(timeout) => Instant::now().checked_add(timeout),
        };
        let mut rest = match timeout {
            Timeout::After(timeout) if until.is_some() => Some(timeout),
            _ => None,
        };
        loop {
            let n = pwait(self.epoll, &mut list, rest)?;
            let mut found = self.collect(&list[..n]);
            if n == list.len() && (1..n).contains(&found.len()) {
                // Some events of the set were void.
                let room = n - found.len();
                let more = pwait(self.epoll, &mut list[..room], Some(Duration::ZERO)).unwrap_or(0);
                found.extend(self.collect(&list[..more]));
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                // A call with a zero timeout polls again if another thread has taken all events,
                // because there may be more.
                if left.is_zero() && (n == 0 || rest != Some(Duration::ZERO)) {
                    return Ok(found);
                }
                rest = Some(left);
            }
        }
    }

    fn collect(&self, list: &[libc::epoll_event]) -> Vec<kevent> {
        let mut found = Vec::new();
        if list.is_empty() {
            return found;
        }
        let state = &mut *self.state();
        for event in list {
            let Some(&key) = state.keys.get(&{ event.u64 }) else { continue };
            let Some(knote) = state.knotes.get_mut(&key) else { continue };
            if !knote.enabled {
                continue;
            }
            let Some(said) = knote.source.event_data(&knote.kept, event.events as c_int) else {
                continue;
            };
            let flags = knote.kept.flags | said.flags;
            found.push(kevent { flags, fflags: said.fflags, data: said.data, ..knote.kept });
            if flags & EV_ONESHOT != 0 {
                self.remove(state, key);
            } else if flags & EV_DISPATCH != 0 {
                // The knote only leaves the set, which cannot fail.
                let _ = self.set_enabled(knote, false);
            }
        }
        found
    }
}

fn known(filter: c_short) -> bool {
    [EVFILT_READ, EVFILT_WRITE, EVFILT_PROC, EVFILT_SIGNAL, EVFILT_TIMER, EVFILT_USER]
        .contains(&filter)
}

/// Calls `epoll_pwait2` with a timeout in ns. `None` waits without end.
fn pwait(
    epoll: c_int,
    list: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> Result<usize, Errno> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as _,
    });
    let pointer =
        timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const libc::timespec);
    let mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: `list` is valid for writes of its length, the timeout null or valid, and a null mask
    // is allowed.
    let n = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll,
            list.as_mut_ptr(),
            list.len() as c_int,
            pointer,
            mask,
            0usize,
        )
    };
    match check(n as c_int) {
        Err(Errno(libc::ENOSYS | libc::EPERM)) => wait_ms(epoll, list, timeout),
        n => n.map(|n| n as usize),
    }
}

/// Calls `epoll_wait`, for kernels without `epoll_pwait2`. The timeout is rounded up.
fn wait_ms(
    epoll: c_int,
    list: &mut [libc::epoll_event],
    timeout: Option<libc::timespec>,
) -> Result<usize, Errno> {
    let ms = timeout.map_or(-1, |timeout| {
        let ms =
            i128::from(timeout.tv_sec) * 1_000 + i128::from(timeout.tv_nsec).div_euclid(1_000_000);
        let more = timeout.tv_nsec % 1_000_000 != 0;
        c_int::try_from(ms + i128::from(more)).unwrap_or(c_int::MAX)
    });
    // SAFETY: `list` is valid for writes of its length.
    let n = check(unsafe { libc::epoll_wait(epoll, list.as_mut_ptr(), list.len() as c_int, ms) })?;
    Ok(n as usize)
}

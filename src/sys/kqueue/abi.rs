//! `struct kevent` and the two calls. Only this file has their widths and numbers, which differ
//! from system to system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::super::errors::of_call;
use super::super::fork::{self, PollerFd};
use super::super::kevent::{Filter, System};
use super::super::time::timespec;
use super::super::{call, check, uninterrupted};

#[cfg(not(linux))]
use libc as os;

/// The declarations of libkqueue, which libc does not have.
#[cfg(linux)]
mod os {
    use libc::{c_int, c_short, c_uint, c_ushort, c_void, timespec};

    #[derive(Clone, Copy)]
    #[repr(C)]
    pub(super) struct kevent {
        pub(super) ident: usize,
        pub(super) filter: c_short,
        pub(super) flags: c_ushort,
        pub(super) fflags: c_uint,
        pub(super) data: isize,
        pub(super) udata: *mut c_void,
    }
    const _: () = assert!(size_of::<usize>() != 8 || size_of::<kevent>() == 32);

    pub(super) const EVFILT_READ: c_short = -1;
    pub(super) const EVFILT_WRITE: c_short = -2;
    pub(super) const EVFILT_PROC: c_short = -5;
    pub(super) const EVFILT_TIMER: c_short = -7;
    pub(super) const EVFILT_USER: c_short = -11;
    pub(super) const NOTE_TRIGGER: c_uint = 0x0100_0000;
    pub(super) const NOTE_EXIT: c_uint = 0x8000_0000;

    unsafe extern "C" {
        pub(super) fn kqueue() -> c_int;
        pub(super) fn kevent(
            kq: c_int,
            changes: *const kevent,
            nchanges: c_int,
            events: *mut kevent,
            nevents: c_int,
            timeout: *const timespec,
        ) -> c_int;
    }
}

#[cfg(not(linux))]
const _: () = {
    use super::super::kevent as bits;
    assert!(libc::EV_ADD as u32 == bits::EV_ADD && libc::EV_DELETE as u32 == bits::EV_DELETE);
    assert!(
        libc::EV_DISABLE as u32 == bits::EV_DISABLE && libc::EV_ONESHOT as u32 == bits::EV_ONESHOT
    );
    assert!(libc::EV_CLEAR as u32 == bits::EV_CLEAR && libc::EV_RECEIPT as u32 == bits::EV_RECEIPT);
    assert!(
        libc::EV_DISPATCH as u32 == bits::EV_DISPATCH && libc::EV_ERROR as u32 == bits::EV_ERROR
    );
    assert!(libc::EV_EOF as u32 == bits::EV_EOF);
};

/// An id is stored in `udata`, which is a pointer.
const _: () = assert!(size_of::<usize>() == 8, "on kqueue pollmux runs on 64-bit systems only");

pub(super) const NOTE_TRIGGER: u32 = os::NOTE_TRIGGER;
pub(super) const NOTE_EXIT: u32 = os::NOTE_EXIT;

#[cfg(target_os = "freebsd")]
pub(super) const SYSTEM: System = System::FreeBsd;
#[cfg(apple)]
pub(super) const SYSTEM: System = System::Apple;
#[cfg(target_os = "netbsd")]
pub(super) const SYSTEM: System = System::NetBsd;
#[cfg(target_os = "openbsd")]
pub(super) const SYSTEM: System = System::OpenBsd;
#[cfg(target_os = "dragonfly")]
pub(super) const SYSTEM: System = System::DragonFly;
#[cfg(linux)]
pub(super) const SYSTEM: System = System::Libkqueue;

/// A kevent in the layout of the system.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Raw(os::kevent);

// SAFETY: `udata` is a number of this crate, and no code uses it as a pointer.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

/// A kevent in types that are the same everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kevent {
    pub(super) ident: usize,
    pub(super) filter: Filter,
    pub(super) flags: u32,
    pub(super) fflags: u32,
    pub(super) data: i64,
    pub(super) id: u64,
}

impl Raw {
    pub(super) const EMPTY: Raw = {
        // SAFETY: a kevent is numbers and a pointer, for all of which zero is a value.
        Raw(unsafe { std::mem::zeroed() })
    };

    pub(super) fn new(kevent: Kevent) -> Raw {
        let mut raw = Raw::EMPTY;
        raw.0.ident = kevent.ident;
        raw.0.filter = match kevent.filter {
            Filter::Read => os::EVFILT_READ,
            Filter::Write => os::EVFILT_WRITE,
            Filter::Timer => os::EVFILT_TIMER,
            Filter::User => os::EVFILT_USER,
            Filter::Process => os::EVFILT_PROC,
        };
        raw.0.flags = kevent.flags as _;
        raw.0.fflags = kevent.fflags;
        raw.0.data = kevent.data as _;
        raw.0.udata = kevent.id as usize as _;
        raw
    }

    /// Converts the kevent. Returns `None` for an unknown filter.
    pub(super) fn read(&self) -> Option<Kevent> {
        // On macOS the struct is packed, so the fields are copied.
        let raw = self.0;
        let filter = match raw.filter {
            os::EVFILT_READ => Filter::Read,
            os::EVFILT_WRITE => Filter::Write,
            os::EVFILT_TIMER => Filter::Timer,
            os::EVFILT_USER => Filter::User,
            os::EVFILT_PROC => Filter::Process,
            _ => return None,
        };
        Some(Kevent {
            ident: raw.ident,
            filter,
            flags: raw.flags as u32,
            fflags: raw.fflags,
            data: raw.data as i64,
            id: raw.udata as usize as u64,
        })
    }
}

/// Makes a kqueue, close-on-exec. (A child made by `fork` does not inherit it anyway.)
pub(super) fn kqueue() -> io::Result<PollerFd> {
    // SAFETY: the call takes no arguments.
    let fd = call("kqueue", || unsafe { os::kqueue() })?;
    // SAFETY: the kernel just returned `fd` to us and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the fd is open, and the call takes no pointer.
    call("fcntl", || unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(PollerFd::new(fd))
}

/// Applies `changes`, waits for up to `events.len()` events, and returns their number. Does not
/// wait if `events` is empty.
pub(super) fn kevent(
    kq: &PollerFd,
    changes: &[Raw],
    events: &mut [Raw],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    if !kq.is_here() {
        return Err(fork::inherited());
    }
    kevent_of(kq.as_fd(), changes, events, timeout)
}

/// Applies changes. Fails at the first change that fails, and makes no later changes. Fetches no
/// events.
pub(super) fn change(kq: &PollerFd, changes: &[Raw]) -> io::Result<()> {
    at_once(kq, changes, &mut []).map(drop)
}

/// Calls [`kevent`] without a wait, and repeats an interrupted call.
pub(super) fn at_once(kq: &PollerFd, changes: &[Raw], events: &mut [Raw]) -> io::Result<usize> {
    uninterrupted(|| kevent(kq, changes, events, Some(Duration::ZERO))).map_err(|error| {
        // Any other error is that of a change.
        if error.raw_os_error() == Some(libc::EINTR) { of_call(error, "kevent") } else { error }
    })
}

/// Applies a change to a filter. A missing filter is no error.
pub(super) fn change_if_there(kq: &PollerFd, raw: Raw) -> io::Result<()> {
    match change(kq, &[raw]) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        changed => changed,
    }
}

/// Calls [`kevent`] for an fd that may be no kqueue of this crate.
pub(super) fn kevent_of(
    kq: BorrowedFd<'_>,
    changes: &[Raw],
    events: &mut [Raw],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let timeout = timeout.map(timespec);
    let timeout =
        timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const libc::timespec);
    // SAFETY: `Raw` is a kevent. `changes` is valid for reads and `events` for writes of the given
    // lengths. `timeout` is null or valid for the length of the call.
    let n = unsafe {
        os::kevent(
            kq.as_raw_fd(),
            changes.as_ptr().cast(),
            changes.len() as _,
            events.as_mut_ptr().cast(),
            events.len() as _,
            timeout,
        )
    };
    Ok(check(n)? as usize)
}

/// Returns the release of the system from `uname`.
pub(super) fn release() -> String {
    // SAFETY: a utsname is arrays of characters, for which zero is a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a valid place for the one utsname that the call writes.
    if unsafe { libc::uname(&mut name) } == -1 {
        return String::new();
    }
    name.release.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect()
}

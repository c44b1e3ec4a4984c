//! libkqueue's `struct kevent` and constants, and wrappers of libc calls.

use std::os::raw::{c_int, c_short, c_uint, c_ushort, c_void};

/// One change, or one event.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct kevent {
    /// The identifier, unique among those of its filter.
    pub ident: usize,
    /// The filter: `EVFILT_*`.
    pub filter: c_short,
    /// The flags: `EV_*`.
    pub flags: c_ushort,
    /// The flags of the filter: `NOTE_*`.
    pub fflags: c_uint,
    /// The data of the filter.
    pub data: isize,
    /// The data of the caller.
    pub udata: *mut c_void,
}

// SAFETY: the library never dereferences `udata`.
unsafe impl Send for kevent {}

macro_rules! numbers {
    ($($name:ident: $type:ty = $value:expr;)*) => {
        $(#[allow(missing_docs)] pub const $name: $type = $value;)*
    };
}

numbers! {
    EVFILT_READ: c_short = -1;
    EVFILT_WRITE: c_short = -2;
    EVFILT_PROC: c_short = -5;
    EVFILT_SIGNAL: c_short = -6;
    EVFILT_TIMER: c_short = -7;
    EVFILT_USER: c_short = -11;

    EV_ADD: c_ushort = 0x1;
    EV_DELETE: c_ushort = 0x2;
    EV_ENABLE: c_ushort = 0x4;
    EV_DISABLE: c_ushort = 0x8;
    EV_ONESHOT: c_ushort = 0x10;
    EV_CLEAR: c_ushort = 0x20;
    EV_RECEIPT: c_ushort = 0x40;
    EV_DISPATCH: c_ushort = 0x80;
    EV_ERROR: c_ushort = 0x4000;
    EV_EOF: c_ushort = 0x8000;

    NOTE_TRIGGER: c_uint = 0x0100_0000;
    NOTE_FFNOP: c_uint = 0;
    NOTE_FFAND: c_uint = 0x4000_0000;
    NOTE_FFOR: c_uint = 0x8000_0000;
    NOTE_FFCOPY: c_uint = 0xc000_0000;
    NOTE_FFCTRLMASK: c_uint = 0xc000_0000;
    NOTE_FFLAGSMASK: c_uint = 0x00ff_ffff;

    NOTE_SECONDS: c_uint = 0x1;
    NOTE_USECONDS: c_uint = 0x2;
    NOTE_NSECONDS: c_uint = 0x4;
    NOTE_ABSOLUTE: c_uint = 0x8;

    NOTE_EXIT: c_uint = 0x8000_0000;
}

/// An error of a syscall, as its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

pub(crate) fn errno() -> c_int {
    // SAFETY: the address is that of the thread's own errno.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Returns the result of a libc call, or its errno if the call returned -1.
pub(crate) fn check(result: c_int) -> Result<c_int, Errno> {
    if result == -1 { Err(Errno(errno())) } else { Ok(result) }
}

/// Calls the kernel's `close`.
pub(crate) fn close(fd: c_int) -> c_int {
    // SAFETY: the caller owns the fd, or acts for its owner.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// An fd of the library's own.
#[derive(Debug)]
pub(crate) struct Fd(pub(crate) c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.0);
    }
}

impl Fd {
    pub(crate) fn new(made: c_int) -> Result<Fd, Errno> {
        check(made).map(Fd)
    }

    /// Reads the count of a timerfd or an eventfd. Returns `None` if the count is zero.
    pub(crate) fn take(&self) -> Option<u64> {
        let mut count = 0u64;
        // SAFETY: `count` is a valid place for 8 bytes.
        let n = unsafe { libc::read(self.0, (&raw mut count).cast(), 8) };
        (n == 8).then_some(count)
    }

    /// Adds one to an eventfd. A full eventfd stays full.
    pub(crate) fn raise(&self) {
        raise(self.0);
    }
}

/// Adds one to an eventfd, for a signal handler.
pub(crate) fn raise(eventfd: c_int) {
    let one = 1u64;
    // SAFETY: `one` is valid for its 8 bytes.
    unsafe { libc::write(eventfd, (&raw const one).cast(), 8) };
}

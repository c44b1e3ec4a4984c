//! The counts of the system calls that a driver makes.

use std::ops::Add;

/// The syscalls of a driver since it was made. [`Stats`](crate::reactor::Stats) has the sum.
///
/// ```
/// use pollmux::driver::Syscalls;
///
/// let mut syscalls = Syscalls::default();
/// syscalls.waits += 1;
/// assert_eq!((syscalls + syscalls).waits, 2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Syscalls {
    /// Waits that may sleep: `epoll_wait` or `kevent` with a timeout.
    pub waits: u64,
    /// Looks that never sleep: `epoll_wait` or `kevent` with timeout zero.
    pub polls: u64,
    /// Deadlines given to the kernel: `timerfd_settime`, or a change for `kevent`.
    pub arms: u64,
    /// Arms that went with a wait, and so were no syscall of their own: on kqueue.
    pub joined: u64,
    /// Registrations, changes and removals of fds: `epoll_ctl` or `kevent`.
    pub controls: u64,
}

impl Add for Syscalls {
    type Output = Syscalls;
    fn add(self, other: Syscalls) -> Syscalls {
        Syscalls {
            waits: self.waits + other.waits,
            polls: self.polls + other.polls,
            arms: self.arms + other.arms,
            joined: self.joined + other.joined,
            controls: self.controls + other.controls,
        }
    }
}

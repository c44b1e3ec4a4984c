//! Child processes by number. A number is a child's only until somebody has waited for the child:
//! then the kernel may give the number to another process.

/// Returns true if `pid` is a child of this process that has not been waited for. One syscall,
/// which neither waits nor takes the status. False on a system that cannot say (OpenBSD as libc has
/// it).
pub(crate) fn is_unwaited(pid: u32) -> bool {
    #[cfg(target_os = "openbsd")]
    {
        let _ = pid;
        false
    }
    #[cfg(not(target_os = "openbsd"))]
    {
        // SAFETY: a siginfo_t is numbers and addresses, for which zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        // SAFETY: `info` is a valid place for the one siginfo_t that the call writes.
        unsafe { libc::waitid(libc::P_PID, pid as _, &mut info, options) == 0 }
    }
}

/// Returns true if the error says that a process is no child of this one, or no longer.
pub(crate) fn is_no_child(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECHILD)
}

/// The error of a process that the system refuses to wait for, where the kernel itself has no such
/// error: something stands in between.
#[cold]
pub(super) fn refused(call: &str, error: &std::io::Error) -> std::io::Error {
    let cause = match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel does not have it, or a seccomp filter hides it",
        _ => "most likely a seccomp filter of the container forbids it",
    };
    let text = format!(
        "this system does not let the process wait for children by {call} ({error}): {cause}; \
         allow {call}, or wait for Signal::CHILD and ask Child::try_wait then"
    );
    std::io::Error::new(std::io::ErrorKind::Unsupported, text)
}

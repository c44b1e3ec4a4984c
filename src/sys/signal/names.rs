//! The numbers of signals, which differ between systems, their names, and the signals that no set
//! watches.

use std::io;

pub(crate) use libc::{
    SIGALRM as ALARM, SIGCHLD as CHILD, SIGHUP as HANGUP, SIGINT as INTERRUPT, SIGKILL as KILL,
    SIGPIPE as PIPE, SIGQUIT as QUIT, SIGTERM as TERMINATE, SIGUSR1 as USER1, SIGUSR2 as USER2,
    SIGWINCH as WINDOW_CHANGE,
};

/// Returns the name of a signal that programs wait for.
pub(crate) fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        HANGUP => "SIGHUP",
        INTERRUPT => "SIGINT",
        QUIT => "SIGQUIT",
        TERMINATE => "SIGTERM",
        USER1 => "SIGUSR1",
        USER2 => "SIGUSR2",
        CHILD => "SIGCHLD",
        ALARM => "SIGALRM",
        WINDOW_CHANGE => "SIGWINCH",
        PIPE => "SIGPIPE",
        _ => return None,
    })
}

/// The faults of the running instruction, which cannot be watched or delayed.
pub(super) const FAULTS: [i32; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// Fails for a number that no set watches.
pub(crate) fn can_be_caught(signal: i32) -> io::Result<()> {
    let refused = [libc::SIGKILL, libc::SIGSTOP].contains(&signal) || FAULTS.contains(&signal);
    if !(1..65).contains(&signal) || refused {
        let text = format!("signal {} cannot be watched", named(signal));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// Returns the number of a signal, and its name if it has one.
fn named(signal: i32) -> String {
    match name(signal) {
        Some(name) => format!("{signal} ({name})"),
        None => signal.to_string(),
    }
}

#[cold]
pub(super) fn is_blocked(signal: i32) -> io::Error {
    let text = format!(
        "signal {} is blocked in this thread, by a mask that was set here or inherited, and would \
         not be told: unblock it first with pthread_sigmask(SIG_UNBLOCK, ..)",
        named(signal)
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

//! The log of the calls, if the environment asks for it. A line reads
//! `kevent timer:add user:trigger, room for 16, waits`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use crate::abi::*;
use crate::queue::Timeout;

pub(crate) fn call(changes: &[kevent], nevents: usize, timeout: Timeout) {
    static LOG: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os("KQUEUE_STAND_IN_LOG")?;
        Some(File::options().append(true).create(true).open(path).expect("the log of the stand-in"))
    };
    let Some(mut log) = LOG.get_or_init(open).as_ref() else { return };
    let mut line = String::from("kevent");
    for change in changes {
        let filter = match change.filter {
            EVFILT_READ => "read",
            EVFILT_WRITE => "write",
            EVFILT_PROC => "proc",
            EVFILT_SIGNAL => "signal",
            EVFILT_TIMER => "timer",
            EVFILT_USER => "user",
            _ => "unknown",
        };
        let what = match change.flags {
            flags if flags & EV_DELETE != 0 => "delete",
            flags if flags & EV_DISABLE != 0 => "disable",
            flags if flags & EV_ADD != 0 => "add",
            flags if flags & EV_ENABLE != 0 => "enable",
            _ if change.filter == EVFILT_USER && change.fflags & NOTE_TRIGGER != 0 => "trigger",
            _ => "touch",
        };
        let _ = write!(line, " {filter}:{what}");
    }
    let how = match timeout {
        _ if nevents == 0 => "returns",
        Timeout::After(Duration::ZERO) => "looks",
        _ => "waits",
    };
    let _ = writeln!(line, ", room for {nevents}, {how}");
    // A single write keeps the lines of several threads apart.
    log.write_all(line.as_bytes()).expect("a line in the log of the stand-in");
}

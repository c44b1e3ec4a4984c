//! Child processes for tests, and a watchdog for tests that hang.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::panic::Location;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

/// Ends the process when the test that holds this hangs. A lost wake-up shows only as a hang.
#[derive(Debug)]
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

const PATIENCE: Duration = Duration::from_secs(600);

/// Returns a [`Watchdog`] of ten minutes. On a busy machine ten thousand rounds between threads
/// take several minutes.
#[track_caller]
pub fn watchdog() -> Watchdog {
    let place = Location::caller();
    let (alive, gone) = channel::<()>();
    std::thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = gone.recv_timeout(PATIENCE) {
            // `eprintln!` does not help, because the test harness captures it.
            let _ = writeln!(
                io::stderr(),
                "the test at {place} has hung for {PATIENCE:?}: most likely a lost wake-up"
            );
            std::process::abort();
        }
    });
    Watchdog(alive)
}

const CHILD: &str = "POLLMUX_TEST_CHILD";

/// Returns the name of the calling test, from the name of its thread.
pub fn test_name() -> String {
    std::thread::current().name().expect("the thread of a test has a name").to_owned()
}

/// Returns a command that runs the test `name` again, in its own process. The words of
/// `POLLMUX_RUNNER` come first, such as the emulator of another machine.
pub fn again(name: &str) -> Command {
    let runner = std::env::var("POLLMUX_RUNNER").unwrap_or_default();
    let this = std::env::current_exe().unwrap();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}

/// Runs the rest of the calling test in its own process, where nothing else changes fds, limits,
/// memory or signal handlers.
#[macro_export]
macro_rules! alone {
    () => {
        let Some(_watchdog) = $crate::run_alone() else { return };
    };
}

/// Runs the calling test in its own process, and fails if the child fails. In the child this
/// returns a watchdog at once.
#[track_caller]
pub fn run_alone() -> Option<Watchdog> {
    let name = test_name();
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return Some(watchdog());
    }
    let mut command = again(&name);
    command.env(CHILD, &name).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(&mut command).wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "the child of {name} failed: {}\n{out}\n{err}", child.status);
    print!("{out}");
    eprint!("{err}");
    // A wrong name would run no test and succeed.
    assert!(out.contains("1 passed"), "{name} is not the name of the test:\n{out}");
    None
}

static SPAWNS: RwLock<()> = RwLock::new(());

/// Starts a process, unless [`no_new_processes`] forbids it.
pub fn spawn(command: &mut Command) -> Child {
    let _birth = SPAWNS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Keeps processes from starting meanwhile. A new process has copies of all open files until it
/// runs its program, so a file that is closed meanwhile stays open.
pub fn no_new_processes() -> RwLockWriteGuard<'static, ()> {
    SPAWNS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a file while no process starts, so that no new process has a copy.
pub fn close(file: impl Sized) {
    let _alone = no_new_processes();
    drop(file);
}

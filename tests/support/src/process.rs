//! A process of its own for a test, and a watchdog for one that hangs.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::panic::Location;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

/// Ends the process when the test that holds this hangs. A lost wake-up shows as that and as
/// nothing else.
#[derive(Debug)]
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

const PATIENCE: Duration = Duration::from_secs(600);

/// A [`Watchdog`] that barks after ten minutes: on a machine with much else to do ten thousand
/// rounds between threads take several.
#[track_caller]
pub fn dog() -> Watchdog {
    let place = Location::caller();
    let (alive, gone) = channel::<()>();
    std::thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = gone.recv_timeout(PATIENCE) {
            // Not `eprintln!`, which the test harness would keep to itself.
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

/// The calling test, as the test program knows it. Its thread has that name.
pub fn test_name() -> String {
    std::thread::current().name().expect("the thread of a test has a name").to_owned()
}

/// A command that runs the test `name` again, in a process of its own. The words of
/// `POLLMUX_RUNNER` come first: the emulator of another machine.
pub fn again(name: &str) -> Command {
    let runner = std::env::var("POLLMUX_RUNNER").unwrap_or_default();
    let this = std::env::current_exe().unwrap();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([this.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    command
}

/// Runs the rest of the calling test in a process of its own, where nothing else changes fds,
/// limits, memory or signal handlers.
#[macro_export]
macro_rules! alone {
    () => {
        let Some(_dog) = $crate::go_on_alone() else { return };
    };
}

/// Runs the calling test in a process of its own, and fails if it fails there. In that process this
/// returns a watchdog at once.
#[track_caller]
pub fn go_on_alone() -> Option<Watchdog> {
    let name = test_name();
    if std::env::var(CHILD).is_ok_and(|child| child == name) {
        return Some(dog());
    }
    let mut command = again(&name);
    command.env(CHILD, &name).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn(&mut command).wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "the child of {name} failed: {}\n{out}\n{err}", child.status);
    print!("{out}");
    eprint!("{err}");
    // A wrong name would run no test at all and succeed.
    assert!(out.contains("1 passed"), "{name} is not the name of the test:\n{out}");
    None
}

static BIRTHS: RwLock<()> = RwLock::new(());

/// Begins a process, when [`no_births`] allows it.
pub fn spawn(command: &mut Command) -> Child {
    let _birth = BIRTHS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Lets no process begin meanwhile. A new process has all files of this one until it runs its
/// program, and what is closed meanwhile is open still.
pub fn no_births() -> RwLockWriteGuard<'static, ()> {
    BIRTHS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a file for good: no new process has it, either.
pub fn close(file: impl Sized) {
    let _alone = no_births();
    drop(file);
}

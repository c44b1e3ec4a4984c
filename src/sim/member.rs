//! The life of a member: its thread, its driver, its guard, and the sources it waits for.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::panic::{self, AssertUnwindSafe, Location};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use super::scheduler::{Flag, Id, Killed, Pause, Scheduler};
use crate::driver::{Clock, Driver, ReadyFds, VirtualClock, Wait, Wake, WakeWindow};
use crate::reactor::{Handle, SourceKind};
use crate::sync::{Guard, set_guard};
use crate::sys::{Interest, Mode, Time};

/// The driver of a member of a [`SimWorld`](crate::SimWorld), on the world's clock. While it waits
/// the other members run.
///
/// For a member that makes its own reactor:
/// [`WorldHandle::spawn_with_driver`](crate::sim::WorldHandle::spawn_with_driver).
///
/// ```
/// use pollmux::{Reactor, SimWorld, sim::MemberDriver};
/// use std::time::Duration;
///
/// let mut world = SimWorld::new(1);
/// let member = world.spawn_with_driver("member", |driver: MemberDriver| {
///     let reactor = Reactor::builder().slack(Duration::from_secs(1)).build_with(driver).unwrap();
///     reactor.seed(1);
///     let timer = reactor.after(Duration::from_secs(10));
///     reactor.recv(&timer).unwrap();
/// });
/// world.run()?;
/// assert!(member.take().is_some());
/// # Ok::<(), pollmux::sim::Deadlock>(())
/// ```
pub struct MemberDriver {
    driven: Driven,
    /// The turn belongs to the thread.
    not_send: PhantomData<Rc<()>>,
}

/// The data of a member for its thread.
pub(super) struct Driven {
    pub(super) scheduler: Arc<Scheduler>,
    pub(super) id: Id,
    pub(super) name: Arc<str>,
    pub(super) flag: Arc<Flag>,
    pub(super) clock: VirtualClock,
}

/// Ends the turn of a member's thread. The drop is the last of the thread's locals.
pub(super) struct Exit {
    scheduler: Arc<Scheduler>,
    id: Id,
    panicked: Option<Box<dyn Any + Send>>,
}

impl Drop for Exit {
    fn drop(&mut self) {
        self.scheduler.leave(self.id, self.panicked.take());
    }
}

thread_local! {
    /// The end of the turn. It is set first, and so destroyed last.
    static EXIT: RefCell<Option<Exit>> = const { RefCell::new(None) };
    /// The member's reactor, if the world has made it.
    static REACTOR: RefCell<Option<Handle>> = const { RefCell::new(None) };
    /// True after the body, while thread-locals are dropped. A panic of such a drop aborts.
    static BODY_IS_OVER: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if a panic would unwind this thread, and not abort the process.
pub(super) fn may_panic() -> bool {
    !thread::panicking() && !BODY_IS_OVER.get()
}

/// Panics because of a wrong call. Does nothing if the thread must not panic.
#[track_caller]
pub(super) fn misuse(text: &str) {
    if may_panic() {
        panic!("pollmux: {text}");
    }
}

/// Sets the reactor whose sources the member on this thread waits for.
pub(super) fn set_reactor(handle: Handle) {
    let _ = REACTOR.try_with(|place| place.replace(Some(handle)));
}

/// The sources that a member of a world waits for and that one line made. A part of a
/// [`WaitingMember`](crate::sim::WaitingMember). [`Deadlock`](crate::sim::Deadlock) has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitsFor {
    /// The kind of the sources.
    pub kind: Option<SourceKind>,
    /// The line that made them.
    pub location: Option<&'static Location<'static>>,
    /// The number of sources.
    pub count: usize,
}

/// Returns the live sources of the member's reactor, by the line that made them.
pub(super) fn waits_for() -> Vec<WaitsFor> {
    let handle = REACTOR.try_with(|place| place.borrow().clone()).ok().flatten();
    let Some(handle) = handle else { return Vec::new() };
    let sources = handle.sources();
    let origin = |origin: &crate::reactor::SourceOrigin<'_>| WaitsFor {
        kind: origin.kind,
        location: origin.location,
        count: origin.sources.len(),
    };
    sources.by_origin().iter().map(origin).collect()
}

/// Keeps a member from blocking outside of its reactor.
struct Warden {
    scheduler: Arc<Scheduler>,
    id: Id,
    name: Arc<str>,
}

impl Guard for Warden {
    #[cold]
    fn call(&self, call: &str, at: &'static Location<'static>) {
        let name = &self.name;
        misuse(&format!(
            "`{call}` would block at {at}, and with the member `{name}` the whole SimWorld: \
             register the end with the member's reactor and wait for it in a select!"
        ));
    }

    #[cold]
    fn sleep(&self, made_at: &'static Location<'static>) -> io::Error {
        let name = &self.name;
        let text = format!(
            "the reactor made at {made_at} would block in real time, and with the member `{name}` \
             the \
             whole SimWorld: use the reactor that the member was given"
        );
        io::Error::new(io::ErrorKind::Unsupported, text)
    }

    fn strand(&self) {
        if !may_panic() {
            self.scheduler.strand(self.id, None);
        }
    }
}

/// The body of a member, boxed so that other code is compiled only once.
pub(super) type Life = Box<dyn FnOnce(MemberDriver) + Send>;

impl MemberDriver {
    /// Runs a member on its thread, which has the turn.
    pub(super) fn live(driven: Driven, body: Life) {
        let Driven { scheduler, id, name, .. } = &driven;
        let (scheduler, id, name) = (scheduler.clone(), *id, name.clone());
        EXIT.with(|exit| {
            exit.replace(Some(Exit { scheduler: scheduler.clone(), id, panicked: None }));
        });
        scheduler.begin_turns();
        set_guard(Some(Rc::new(Warden { scheduler, id, name })));
        let driver = MemberDriver { driven, not_send: PhantomData };
        let outcome = panic::catch_unwind(AssertUnwindSafe(move || body(driver)));
        BODY_IS_OVER.set(true);
        if let Err(cause) = outcome {
            if !cause.is::<Killed>() {
                EXIT.with(|exit| {
                    if let Some(exit) = &mut *exit.borrow_mut() {
                        exit.panicked = Some(cause);
                    }
                });
            }
        }
    }
}

impl Driver for MemberDriver {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        _: &mut ReadyFds,
    ) -> io::Result<()> {
        let Driven { scheduler, id, clock, .. } = &self.driven;
        let pause = match how {
            Wait::Block => match deadline.map_or(Time::MAX, |deadline| deadline.latest) {
                latest if latest <= clock.now() => Pause::Yield,
                latest => Pause::Until(latest),
            },
            Wait::Poll => Pause::Poll,
        };
        scheduler.block(*id, pause)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.driven.flag.clone()
    }

    fn register(&mut self, _: BorrowedFd<'_>, _: u64, _: Interest, _: Mode) -> io::Result<()> {
        let text = format!(
            "the member `{}` of a SimWorld cannot wait for fds, signals and children: what comes \
             from outside has no place in a history that repeats. Use the channels of links, or \
             test one reactor on a `Sim`",
            self.driven.name
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }

    fn yields(&self) -> bool {
        true
    }

    fn clock(&self) -> Clock {
        Clock::Virtual(self.driven.clock.clone())
    }
}

impl_debug!([] MemberDriver, |it| name: it.driven.name);

//! Measures the cost of a turn: ns, allocations and syscalls.
//!
//! - `cargo run --release --example hotpath -- --turns 1000000` measures a turn on one thread:
//!   send, select, `restart`.
//! - `cargo run --release --example hotpath -- --kernel` measures turns that go through the kernel.
//!   Each runs beside the raw syscalls that it needs, in alternating rounds of one process. The
//!   ratio is the median of the rounds' ratios.

mod common;
#[path = "common/poke.rs"]
mod poke;

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, Command, value_parser};
use common::allocations;
use poke::Poke;
use pollmux::sys::{PollEvents, Poller, Waker};
use pollmux::{
    Inbox, Reactor, Time, channel,
    driver::Native,
    reactor::{Spin, Stats},
    select,
};

#[global_allocator]
static ALLOCATOR: common::Counting = common::Counting;

struct Args {
    turns: u64,
    kernel: bool,
}

impl Args {
    fn parse() -> Args {
        let turns = Arg::new("turns").long("turns").value_parser(value_parser!(u64).range(1..));
        let kernel = Arg::new("kernel").long("kernel").action(ArgAction::SetTrue);
        let found =
            Command::new("hotpath").about("Measures the cost of a turn of the reactor").args([
                turns.default_value("1000000").help("Turns to make"),
                kernel.help("Measure turns that go through the kernel, beside raw syscalls"),
            ]);
        let mut found = found.get_matches();
        Args { turns: found.remove_one("turns").unwrap(), kernel: found.get_flag("kernel") }
    }
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if args.kernel { kernel(args.turns) } else { user_space(args.turns) }
}

/// Counts time, allocations and syscalls from its creation on.
struct Meter<'a> {
    reactor: &'a Reactor,
    stats: Stats,
    allocations: u64,
    start: Instant,
}

struct Spent {
    nanos: f64,
    allocations: f64,
    syscalls: f64,
}

impl<'a> Meter<'a> {
    fn new(reactor: &'a Reactor) -> Meter<'a> {
        Meter { reactor, stats: reactor.stats(), allocations: allocations(), start: Instant::now() }
    }

    /// Returns the cost of one of `turns` turns.
    fn per(&self, turns: u64) -> Spent {
        let nanos = self.start.elapsed().as_nanos() as f64 / turns as f64;
        let allocations = (allocations() - self.allocations) as f64 / turns as f64;
        let syscalls = (self.reactor.stats() - self.stats).syscalls() as f64 / turns as f64;
        Spent { nanos, allocations, syscalls }
    }
}

fn user_space(turns: u64) -> io::Result<()> {
    let reactor = Reactor::new()?;
    let (tx, inbox) = reactor.channel::<u64>(64)?;
    let heartbeat = reactor.every(Duration::from_millis(500))?;
    let mut beats = 0u64;
    let mut turn = |n: u64| {
        tx.try_send(n).expect("an empty channel");
        select! { reactor;
            recv(inbox) -> event => {
                assert!(event.is_ok());
                heartbeat.restart();
            },
            recv(heartbeat) -> _tick => {
                // The process was stopped for half a second. The message is still in the channel.
                beats += 1;
                assert!(inbox.try_recv().is_ok());
            },
        }
    };
    (0..turns.min(10_000)).for_each(&mut turn); // warm-up
    let meter = Meter::new(&reactor);
    (0..turns).for_each(&mut turn);
    let spent = meter.per(turns);
    println!("one thread: send, select, restart a heartbeat of 500 ms; {turns} turns");
    println!("  ns a turn           {:>8.1}", spent.nanos);
    println!("  allocations a turn  {:>8}", spent.allocations);
    println!("  syscalls a turn     {:>8}", spent.syscalls);
    println!("  heartbeats          {beats:>8}");
    println!("  {}", reactor.stats());
    Ok(())
}

fn kernel(turns: u64) -> io::Result<()> {
    println!("turns that go through the kernel, beside the raw syscalls that they need");
    println!(
        "{:<58} {:>9} {:>9} {:>6} {:>7} {:>9}",
        "", "raw ns", "ours ns", "ratio", "allocs", "syscalls"
    );
    wake(turns.min(200_000))?;
    tick(turns.min(20_000), Duration::from_micros(1))?;
    tick(turns.min(20_000), Duration::from_micros(50))?;
    tick(turns.min(4_000), Duration::from_micros(500))?;
    round_trip(turns.min(40_000))
}

const ROUNDS: u64 = 21;

/// Runs `raw` and `ours` in alternating rounds, and prints one line.
fn compare(
    what: &str,
    turns: u64,
    reactor: &Reactor,
    mut raw: impl FnMut() -> io::Result<()>,
    mut ours: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let turns = (turns / ROUNDS).max(1);
    let (mut raws, mut all, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut allocations, mut syscalls) = (0.0, 0.0);
    for round in 0..=ROUNDS {
        let start = Instant::now();
        for _ in 0..turns {
            raw()?;
        }
        let raw_ns = start.elapsed().as_nanos() as f64 / turns as f64;
        let meter = Meter::new(reactor);
        for _ in 0..turns {
            ours()?;
        }
        let spent = meter.per(turns);
        if round > 0 {
            raws.push(raw_ns);
            all.push(spent.nanos);
            ratios.push(spent.nanos / raw_ns);
            allocations += spent.allocations / ROUNDS as f64;
            syscalls += spent.syscalls / ROUNDS as f64;
        }
    }
    println!(
        "{what:<58} {:>9.0} {:>9.0} {:>6.3} {allocations:>7.2} {syscalls:>9.2}",
        median(&mut raws),
        median(&mut all),
        median(&mut ratios)
    );
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// An epoll with an eventfd and a timerfd, as in the reactor, used through libc's functions.
struct Raw {
    epoll: OwnedFd,
    waker: Arc<OwnedFd>,
    timer: OwnedFd,
    events: [libc::epoll_event; 4],
}

#[allow(unsafe_code)]
impl Raw {
    fn new() -> io::Result<Raw> {
        let own = |fd: libc::c_int| match fd {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel just returned `fd`, and no other code owns it.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        };
        let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK);
        // SAFETY: the calls take no pointers.
        let (epoll, waker, timer) = unsafe {
            let waker = libc::eventfd(0, libc::EFD_NONBLOCK);
            (libc::epoll_create1(0), waker, libc::timerfd_create(clock, flags))
        };
        let (epoll, waker, timer) = (own(epoll)?, own(waker)?, own(timer)?);
        let mut event =
            libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        for fd in [&waker, &timer] {
            let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
            // SAFETY: the fds are open, and `event` is valid for the call.
            check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        }
        Ok(Raw { epoll, waker: Arc::new(waker), timer, events: [event; 4] })
    }

    fn wake(waker: &OwnedFd) -> io::Result<()> {
        let one = 1u64;
        // SAFETY: the number is valid for the call, which only reads it.
        let wrote = unsafe { libc::write(waker.as_raw_fd(), (&raw const one).cast(), 8) };
        check(wrote as libc::c_int)
    }

    fn wait(&mut self) -> io::Result<()> {
        let (epoll, list, len) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr(), 4);
        // SAFETY: the list has room for `len` events.
        check(unsafe { libc::epoll_wait(epoll, list, len, -1) })
    }

    fn wait_until(&mut self, at: Time) -> io::Result<()> {
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let at = at - Time::ZERO;
        let value = libc::timespec { tv_sec: at.as_secs() as _, tv_nsec: at.subsec_nanos().into() };
        let value = libc::itimerspec { it_interval: zero, it_value: value };
        let (timer, flags, none) =
            (self.timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME, std::ptr::null_mut());
        // SAFETY: `value` is valid for the call, and a null old value is allowed.
        check(unsafe { libc::timerfd_settime(timer, flags, &value, none) })?;
        self.wait()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn wake(turns: u64) -> io::Result<()> {
    let sender = Rc::new(OnceCell::new());
    let reactor = Reactor::with_driver(Poke { native: Native::new()?, sender: sender.clone() })?;
    let (tx, inbox) = reactor.channel::<u64>(64)?;
    assert!(sender.set(tx).is_ok());
    let heartbeat = reactor.every(Duration::from_secs(1_000))?;
    let mut raw = Raw::new()?;
    let poller = Poller::new()?;
    let (waker, mut events) = (Waker::new(&poller, 0)?, PollEvents::with_capacity(4));
    compare(
        "pollmux::sys: write + epoll_wait",
        turns,
        &reactor,
        || {
            Raw::wake(&raw.waker)?;
            raw.wait()
        },
        || {
            waker.wake()?;
            poller.wait(&mut events, None)
        },
    )?;
    compare(
        "(a) a sleep ended by a message: write + epoll_wait",
        turns,
        &reactor,
        || {
            Raw::wake(&raw.waker)?;
            raw.wait()
        },
        || {
            select! { reactor;
                recv(inbox) -> event => assert_eq!(event, Ok(1)),
                recv(heartbeat) -> _tick => {},
            }
            Ok(())
        },
    )
}

fn tick(turns: u64, period: Duration) -> io::Result<()> {
    let reactor = Reactor::new()?;
    let (timer, mut raw) = (reactor.timer(), Raw::new()?);
    compare(
        &format!("(b) a tick of {period:?}: clock + timerfd_settime + epoll_wait"),
        turns,
        &reactor,
        || raw.wait_until(Time::now() + period),
        || {
            timer.reset(period);
            select! { reactor; recv(timer) -> _due => {} }
            Ok(())
        },
    )
}

/// Keeps this thread on core number `core`, if the machine has that core. The placement of two
/// threads matters more than their code.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn pin_to(core: usize) {
    // SAFETY: a cpu_set_t is plain bits, all zero is the empty set, and the call only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

#[cfg(not(target_os = "linux"))]
fn pin_to(_: usize) {}

/// Measures a round trip between two threads on two cores, which both sleep between messages.
fn round_trip(turns: u64) -> io::Result<()> {
    let reactor = Reactor::builder().spin(Spin::Off).build()?;
    let (pong_tx, inbox) = reactor.channel::<u64>(8)?;
    let (ping_tx, ping_rx) = mpsc::sync_channel::<channel::Sender<u64>>(1);
    let (to_other, other_rx) = channel::bounded::<u64>(8);
    pin_to(0);
    let ours = thread::spawn(move || -> io::Result<()> {
        pin_to(1);
        let reactor = Reactor::builder().spin(Spin::Off).build()?;
        let inbox = reactor.register(other_rx)?;
        let pong = ping_rx.recv().map_err(io::Error::other)?;
        loop {
            let n = select! { reactor; recv(inbox) -> n => n };
            match n {
                Ok(n) => pong.send(n).map_err(io::Error::other)?,
                Err(_) => return Ok(()),
            }
        }
    });
    ping_tx.send(pong_tx).map_err(io::Error::other)?;

    let (mut here, there) = (Raw::new()?, Raw::new()?);
    let (wake_here, wake_there) = (here.waker.clone(), there.waker.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let raw = thread::spawn(move || -> io::Result<()> {
        pin_to(1);
        let mut there = there;
        loop {
            there.wait()?;
            if stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            Raw::wake(&wake_here)?;
        }
    });
    let receive = |inbox: &Inbox<u64>| select! { reactor; recv(inbox) -> n => n };
    compare(
        "round trip to another thread, both parked",
        turns,
        &reactor,
        || {
            Raw::wake(&wake_there)?;
            here.wait()
        },
        || {
            to_other.send(7).map_err(io::Error::other)?;
            receive(&inbox).map_err(io::Error::other)?;
            Ok(())
        },
    )?;
    stop.store(true, Ordering::SeqCst);
    Raw::wake(&wake_there)?;
    drop(to_other);
    let join = |thread: thread::JoinHandle<io::Result<()>>| thread.join().expect("no panic");
    join(raw)?;
    join(ours)
}

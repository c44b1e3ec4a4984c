//! The traced program: a loop, and its senders, the first of which is stopped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use pollmux::channel::{self, Receiver, RecvTimeoutError, Sender};
use pollmux::sys::{self, Interest, Mode, Poller};
use pollmux::{
    Context, Events, Inbox, Reactor, Select, Source, Ticker, Time, context::Done, sources::Never,
};
use pollmux::{never, select};

use crate::stalls::child::report;
use support::{Random, thread, thread_cpu_time, watchdog};

/// The work of the stopped thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    Bounded1,
    Bounded16,
    Large,
    Unbounded,
    Rendezvous,
    SendCase,
    SendCaseRendezvous,
    Post,
    Notify,
    Attached,
    Timers,
    Cancel,
}

/// The loop's way to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    SelectMacro,
    Wait,
    SelectSet,
    Embedded,
    Bare,
}

/// The sender that is stopped.
const STOPPED: usize = 0;
/// A sender with the same work that sends seldom.
const COMPANION: usize = 1;
/// The sender with its own channel.
const BYSTANDER: usize = 2;

const PERIOD: Duration = Duration::from_millis(1);
/// The stopped sender is ahead of the loop by at most this many messages. A backlog would keep the
/// loop busy.
const WINDOW: u64 = 16;

const STACK: usize = 16 << 20;

const TICK: u64 = 1;
const MAIN: u64 = 2;
const SIDE: u64 = 3;
const DONE: u64 = 4;

/// The state that the threads of the program share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    sent: [AtomicU64; 3],
    got: [AtomicU64; 3],
    /// The number of senders that run.
    live: AtomicU64,
    /// The counts that the notifying threads have set before `notify`.
    notified_counts: [AtomicU64; 2],
    /// True just before the last reset of the timer.
    last_reset: AtomicBool,
    fired: AtomicU64,
    /// Kept so that the bystander's channel does not disconnect.
    kept: OnceLock<Sender<u64>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Takes the `n`th message of a sender.
    fn receive(&self, who: usize, n: u64) {
        assert_eq!(self.got[who].load(SeqCst), n, "sender {who}: lost or out of order");
        self.got[who].store(n + 1, SeqCst);
    }

    fn is_complete(&self) -> bool {
        (0..3).all(|who| self.got[who].load(SeqCst) == self.sent[who].load(SeqCst))
    }
}

#[derive(Clone, Copy)]
struct Message<const N: usize>([u64; N]);

impl<const N: usize> Message<N> {
    fn new(who: usize, n: u64) -> Message<N> {
        let mut words = [n; N];
        words[0] = who as u64;
        Message(words)
    }

    fn receive(self, shared: &Shared) {
        assert!(self.0[1] == self.0[N / 2] && self.0[1] == self.0[N - 1], "a torn message");
        shared.receive(self.0[0] as usize, self.0[1]);
    }
}

/// The log of the loop, one line a tick.
struct Log {
    shared: Arc<Shared>,
    lines: Vec<[u64; 5]>,
    schedstat: Option<File>,
    over_since: Option<Instant>,
}

impl Log {
    fn new(shared: &Arc<Shared>) -> Log {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        Log { shared: shared.clone(), lines: Vec::new(), schedstat, over_since: None }
    }

    /// Returns the time in which this thread was ready but had no core, in ns.
    fn delay(&self) -> u64 {
        let mut text = [0; 96];
        let len = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok());
        let text = std::str::from_utf8(&text[..len.unwrap_or(0)]).unwrap_or("");
        text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
    }

    fn tick(&mut self, due: Time) {
        let (cpu, delay) = (thread_cpu_time().as_nanos() as u64, self.delay());
        let side = self.shared.got[BYSTANDER].load(SeqCst);
        self.lines.push([due.as_nanos(), Time::now().as_nanos(), cpu, delay, side]);
    }

    /// Returns true if all senders have ended and all messages have come.
    fn is_over(&mut self) -> bool {
        let shared = &self.shared;
        if !shared.is_over() || shared.live.load(SeqCst) > 0 {
            return false;
        }
        let since = *self.over_since.get_or_insert_with(Instant::now);
        let (sent, got) = (&shared.sent, &shared.got);
        let lost = since.elapsed() >= Duration::from_secs(120);
        assert!(!lost, "lost: {sent:?} sent, {got:?} received");
        shared.is_complete()
    }

    fn print(&self) {
        for [due, came, cpu, delay, side] in &self.lines {
            report(format_args!("tick {due} {came} {cpu} {delay} {side}"));
        }
        report("end");
    }
}

/// Spins for `d`, so that the thread is in its own code and not in the kernel.
fn spin(d: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < d {
        std::hint::spin_loop();
    }
}

/// The thread of the stopped sender, and the address of its `sending`.
type Stopped = (i32, usize);

/// Calls `send`. The thread is in a send while this function is on the stack.
#[inline(never)]
fn sending<F: FnMut(u64)>(send: &mut F, n: u64) {
    send(n);
    // prevents a tail call, which would remove this function from the stack
    std::hint::black_box(());
}

/// Starts a sender's thread. There `make` makes the closure, which gets the number of each send.
fn sender<F, M>(shared: &Arc<Shared>, who: usize, make: M) -> Stopped
where
    F: FnMut(u64),
    M: FnOnce() -> F + Send + 'static,
{
    let shared = shared.clone();
    shared.live.fetch_add(1, SeqCst);
    let (tell, id) = mpsc::channel();
    let body = move || {
        let mut send = make();
        tell.send(nix::unistd::gettid().as_raw()).unwrap();
        let mut random = Random::new(who as u64 + 1);
        let mut n = 0;
        while !shared.is_over() {
            if who == STOPPED && n >= shared.got[who].load(SeqCst) + WINDOW {
                std::hint::spin_loop();
                continue;
            }
            shared.sent[who].store(n + 1, SeqCst);
            sending(&mut send, n);
            n += 1;
            match random.below(16) {
                _ if who != STOPPED => thread::sleep(Duration::from_millis(3)),
                // meanwhile the loop falls asleep
                0 => spin(Duration::from_micros(random.below(60))),
                _ => {}
            }
        }
        drop(send);
        shared.live.fetch_sub(1, SeqCst);
    };
    thread::Builder::new().stack_size(STACK).spawn(body).unwrap();
    (id.recv().unwrap(), sending::<F> as fn(&mut F, u64) as usize)
}

/// Runs the program until the parent ends its input.
pub fn run(flavour: Flavour, how: Loop) {
    let _watchdog = watchdog();
    // Without optimisation large messages need a large stack.
    let body = move || run_here(flavour, how);
    thread::Builder::new().stack_size(STACK).spawn(body).unwrap().join().unwrap();
}

fn run_here(flavour: Flavour, how: Loop) {
    let shared = Arc::new(Shared::default());
    let over = shared.clone();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        over.over.store(true, SeqCst);
    });
    match flavour {
        Flavour::Bounded1 => messages::<8>(shared, how, channel::bounded(1), false),
        Flavour::Bounded16 => messages::<8>(shared, how, channel::bounded(16), false),
        Flavour::Large => messages::<512>(shared, how, channel::bounded(4), false),
        Flavour::Unbounded => messages::<8>(shared, how, channel::unbounded(), false),
        Flavour::Rendezvous => messages::<8>(shared, how, channel::bounded(0), false),
        Flavour::SendCase => messages::<8>(shared, how, channel::bounded(4), true),
        Flavour::SendCaseRendezvous => messages::<8>(shared, how, channel::bounded(0), true),
        Flavour::Post => posts(shared, how),
        Flavour::Notify => notifications(shared, how),
        Flavour::Attached => attached(shared, how),
        Flavour::Timers => timers(shared, how),
        Flavour::Cancel => cancels(shared, how),
    }
}

/// Makes the reactor, its ticker, and the bystander's inbox.
fn reactor_with_bystander(shared: &Arc<Shared>) -> (Reactor, Ticker, Inbox<u64>) {
    let reactor = Reactor::new().unwrap();
    let ticker = reactor.every(PERIOD).unwrap().with_key(TICK);
    let (tx, rx) = channel::bounded(64);
    let side = reactor.register_with(SIDE, rx).unwrap();
    shared.kept.set(tx.clone()).unwrap();
    sender(shared, BYSTANDER, || move |n| tx.send(n).unwrap());
    (reactor, ticker, side)
}

fn messages<const N: usize>(
    shared: Arc<Shared>,
    how: Loop,
    (tx, rx): (Sender<Message<N>>, Receiver<Message<N>>),
    by_select: bool,
) {
    let kept = tx.clone(); // prevents a disconnection
    let other = tx.clone();
    sender(&shared, COMPANION, || move |n| other.send(Message::new(COMPANION, n)).unwrap());
    let begin = |shared: &Arc<Shared>| {
        if !by_select {
            return sender(shared, STOPPED, || move |n| tx.send(Message::new(STOPPED, n)).unwrap());
        }
        sender(shared, STOPPED, || {
            let reactor = Reactor::new().unwrap();
            let outbox = reactor.register(tx).unwrap();
            move |n| {
                select! { reactor;
                    send(outbox, Message::new(STOPPED, n)) -> sent => sent.unwrap(),
                }
            }
        })
    };
    if how == Loop::Bare {
        bare(&shared, &rx, begin(&shared));
    } else {
        let (reactor, ticker, side) = reactor_with_bystander(&shared);
        let inbox = reactor.register_with(MAIN, rx).unwrap();
        let receive = |message: Result<Message<N>, _>| message.unwrap().receive(&shared);
        let stopped = begin(&shared);
        drive(&shared, how, &reactor, (ticker, inbox, side), stopped, receive);
    }
    drop(kept);
}

fn posts(shared: Arc<Shared>, how: Loop) {
    let (reactor, ticker, side) = reactor_with_bystander(&shared);
    let post = |who: usize| {
        let (remote, shared) = (reactor.remote(), shared.clone());
        move || {
            move |n| {
                let shared = shared.clone();
                remote.post(move |_| shared.receive(who, n)).unwrap();
            }
        }
    };
    sender(&shared, COMPANION, post(COMPANION));
    let stopped = sender(&shared, STOPPED, post(STOPPED));
    let nothing: Never<()> = never();
    drive(&shared, how, &reactor, (ticker, nothing, side), stopped, |()| unreachable!());
}

fn notifications(shared: Arc<Shared>, how: Loop) {
    let (reactor, ticker, side) = reactor_with_bystander(&shared);
    let (notifier, notified) = reactor.notifier();
    let notified = notified.with_key(MAIN);
    let ring = |who: usize| {
        let (notifier, shared) = (notifier.clone(), shared.clone());
        move || {
            move |n| {
                shared.notified_counts[who].store(n + 1, SeqCst);
                notifier.notify();
            }
        }
    };
    sender(&shared, COMPANION, ring(COMPANION));
    let stopped = sender(&shared, STOPPED, ring(STOPPED));
    drive(&shared, how, &reactor, (ticker, notified, side), stopped, |()| {
        for who in [STOPPED, COMPANION] {
            shared.got[who].store(shared.notified_counts[who].load(SeqCst), SeqCst);
        }
    });
}

/// Sends through another crate's channel, with an attached notifier.
fn attached(shared: Arc<Shared>, how: Loop) {
    let (reactor, ticker, side) = reactor_with_bystander(&shared);
    let (notifier, notified) = reactor.notifier();
    // Two counters are the channel. Another crate's channel would have stalls of its own.
    let tx = notifier.attach(shared.clone());
    let source = notified.with_key(MAIN).receiving(|| {
        let waits =
            |who: usize| shared.notified_counts[who].load(SeqCst) > shared.got[who].load(SeqCst);
        [STOPPED, COMPANION].into_iter().find(|&who| waits(who))
    });
    let send = |who: usize| {
        let tx = tx.clone();
        move || move |n| tx.with(|counters| counters.notified_counts[who].store(n + 1, SeqCst))
    };
    sender(&shared, COMPANION, send(COMPANION));
    let stopped = sender(&shared, STOPPED, send(STOPPED));
    drive(&shared, how, &reactor, (ticker, source, side), stopped, |who| {
        shared.receive(who, shared.got[who].load(SeqCst));
    });
}

fn timers(shared: Arc<Shared>, how: Loop) {
    let (reactor, ticker, side) = reactor_with_bystander(&shared);
    let timer = reactor.timer().with_key(MAIN);
    let id = timer.id();
    let reset = |who: usize| {
        let (remote, shared) = (reactor.remote(), shared.clone());
        move || {
            let mut random = Random::new(7);
            move |n| {
                // Wait a little for the loop. A stopped sender delays no other: this sets only the
                // pace.
                let fired = shared.fired.load(SeqCst);
                match random.below(8) {
                    0 => remote.stop(id).unwrap(),
                    1 => remote.reset(id, Duration::from_secs(3600)).unwrap(),
                    _ => {
                        remote.reset(id, Duration::ZERO).unwrap();
                        let begin = Instant::now();
                        while shared.fired.load(SeqCst) == fired
                            && begin.elapsed() < Duration::from_micros(200)
                        {
                            std::hint::spin_loop();
                        }
                    }
                }
                shared.got[who].store(n + 1, SeqCst);
            }
        }
    };
    sender(&shared, COMPANION, reset(COMPANION));
    let stopped = sender(&shared, STOPPED, reset(STOPPED));
    let last = reactor.remote();
    let control = shared.clone();
    // The fourth sender resets after all others. The loop must see this reset.
    control.live.fetch_add(1, SeqCst);
    thread::spawn(move || {
        while !control.is_over() || control.live.load(SeqCst) > 1 {
            thread::sleep(PERIOD);
        }
        control.sent[STOPPED].fetch_add(1, SeqCst);
        control.last_reset.store(true, SeqCst);
        last.reset(id, Duration::ZERO).unwrap();
        control.live.fetch_sub(1, SeqCst);
    });
    drive(&shared, how, &reactor, (ticker, timer, side), stopped, |_| {
        shared.fired.fetch_add(1, SeqCst);
        if shared.last_reset.swap(false, SeqCst) {
            shared.got[STOPPED].fetch_add(1, SeqCst);
        }
    });
}

fn cancels(shared: Arc<Shared>, how: Loop) {
    let (reactor, ticker, side) = reactor_with_bystander(&shared);
    let (root, _canceller) = Context::background().with_cancel();
    let (tx, rx) = channel::bounded::<Context>(64);
    let inbox = reactor.register_with(MAIN, rx).unwrap();
    let kept = tx.clone();
    let stopped = sender(&shared, STOPPED, || {
        let mut random = Random::new(3);
        move |_| {
            let (context, canceller) = root.with_cancel();
            tx.send(context).unwrap();
            spin(Duration::from_micros(random.below(40))); // until the loop waits for the context
            canceller.cancel();
        }
    });
    let contexts = RefCell::new(VecDeque::new());
    let receive = |context: Result<Context, _>| contexts.borrow_mut().push_back(context.unwrap());
    let next = || contexts.borrow_mut().pop_front();
    drive_with(&shared, how, &reactor, (ticker, inbox, side), stopped, receive, Some(&next));
    drop(kept);
}

fn drive<S: Source>(
    shared: &Arc<Shared>,
    how: Loop,
    reactor: &Reactor,
    sources: (Ticker, S, Inbox<u64>),
    stopped: Stopped,
    receive: impl FnMut(S::Item),
) {
    drive_with(shared, how, reactor, sources, stopped, receive, None);
}

/// Runs the loop. `next` gives the next context to wait for.
fn drive_with<S: Source>(
    shared: &Arc<Shared>,
    how: Loop,
    reactor: &Reactor,
    (ticker, main, side): (Ticker, S, Inbox<u64>),
    stopped: Stopped,
    mut receive: impl FnMut(S::Item),
    next: Option<&dyn Fn() -> Option<Context>>,
) {
    let mut log = Log::new(shared);
    let bystander = |n: Result<u64, _>| shared.receive(BYSTANDER, n.unwrap());
    let cancelled = || shared.receive(STOPPED, shared.got[STOPPED].load(SeqCst));
    report(format_args!("stopped {} {}", stopped.0, stopped.1));
    let mut done: Option<Done> = None; // The next context that will be cancelled.
    let mut events = Events::with_capacity(8);
    let mut embedded = (how == Loop::Embedded).then(|| {
        let (inner, outer) = (reactor.embed().unwrap(), Poller::new().unwrap());
        outer.register(&inner, 0, Interest::READABLE, Mode::Level).unwrap();
        (inner, outer, sys::PollEvents::with_capacity(4))
    });
    let mut ticked = true;
    while !ticked || !log.is_over() {
        ticked = false;
        if done.is_none() {
            let context = next.and_then(|next| next());
            done = context.map(|context| reactor.done(&context).with_key(DONE));
        }
        let mut ended = false;
        match how {
            Loop::SelectMacro => select! { reactor;
                recv(ticker) -> tick => {
                    log.tick(tick.scheduled);
                    ticked = true;
                },
                recv(main) -> item => receive(item),
                recv(side) -> n => bystander(n),
                recv(done) -> _ => ended = true,
            },
            Loop::Wait => {
                reactor.wait(&mut events).unwrap();
                for event in events.iter() {
                    match event.key() {
                        TICK => {
                            ticker.try_take().into_iter().for_each(|tick| log.tick(tick.scheduled));
                            ticked = true;
                        }
                        MAIN => (0..WINDOW).map_while(|_| main.try_take()).for_each(&mut receive),
                        SIDE => (0..WINDOW).map_while(|_| side.try_take()).for_each(bystander),
                        DONE => ended |= done.try_take().is_some(),
                        key => unreachable!("{key}"),
                    }
                }
            }
            // The set is used until the next tick, or until there is a context to wait for.
            Loop::SelectSet => {
                let mut set = Select::new(reactor);
                let (on_tick, on_main, on_side, on_done) =
                    (set.recv(&ticker), set.recv(&main), set.recv(&side), set.recv(&done));
                while !ticked && !ended {
                    let chosen = set.wait().unwrap();
                    let index = chosen.index();
                    if index == on_tick {
                        log.tick(chosen.recv(&ticker).unwrap().scheduled);
                        ticked = true;
                    } else if index == on_main {
                        chosen.recv(&main).into_iter().for_each(&mut receive);
                    } else if index == on_side {
                        bystander(chosen.recv(&side).unwrap());
                    } else {
                        assert_eq!(index, on_done);
                        ended = chosen.recv(&done).is_some();
                    }
                    if next.is_some() && done.is_none() {
                        break;
                    }
                }
            }
            Loop::Embedded => {
                let (inner, outer, events) = embedded.as_mut().unwrap();
                outer.wait(events, None).unwrap();
                inner.turn().unwrap();
                let mut more = true;
                while more && !ended {
                    select! { reactor;
                        recv(ticker) -> tick => {
                            log.tick(tick.scheduled);
                            ticked = true;
                        },
                        recv(main) -> item => receive(item),
                        recv(side) -> n => bystander(n),
                        recv(done) -> _ => ended = true,
                        default => more = false,
                    }
                }
            }
            Loop::Bare => unreachable!("this loop has no reactor"),
        }
        if ended {
            cancelled();
            done = None;
        }
    }
    log.print();
}

/// Runs a loop without a reactor, whose timeouts are the ticks.
fn bare<const N: usize>(shared: &Arc<Shared>, rx: &Receiver<Message<N>>, stopped: Stopped) {
    let mut log = Log::new(shared);
    report(format_args!("stopped {} {}", stopped.0, stopped.1));
    let mut due = Time::now() + PERIOD;
    while !log.is_over() {
        match rx.recv_timeout(due.duration_since(Time::now())) {
            Ok(message) => message.receive(shared),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => unreachable!("the channel has senders"),
        }
        let now = Time::now();
        if now >= due {
            log.tick(due);
            due = now + PERIOD;
        }
    }
    log.print();
}

//! One core: a loop under `SCHED_FIFO`, and two normal senders that run only while the loop sleeps.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use pollmux::channel::{self, Receiver, Sender};
use pollmux::{Events, Handle, Reactor, Select, Source, Time, never, select, sources::Never};

use crate::stalls::child::{Program, alone, is_child, report, skip};
use crate::stalls::verdict::rounds;
use support::{Random, thread};

/// Each tick stops a sender at a random instruction.
const PERIOD: Duration = Duration::from_micros(150);
/// The loop runs for this long, times the number of stops of the other tests.
const LENGTH: Duration = Duration::from_millis(50);
/// The worst receive, the worst tick and the worst turn must be below this.
const LIMIT: Duration = Duration::from_millis(10);
/// Any thread may be stalled once, so a test fails only if each of these runs fails.
const RUNS: usize = 5;
/// The most receives in a row. With more the kernel takes the loop's core away.
const BURST: u64 = 64;

const TICK: u64 = 1;
const MAIN: u64 = 2;

type Message = [u8; 64];

/// A message with a destructor. The drop of a receiver visits only such messages.
struct Parcel(Message);

impl Drop for Parcel {
    fn drop(&mut self) {
        std::hint::black_box(&self.0);
    }
}

/// The loop's way to receive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Waits for the tick, then receives by `try_take`, which is an inbox's `try_recv`.
    TryRecv,
    /// Waits for the tick, then receives by `select!` with `default`.
    Default,
    SelectMacro,
    Wait,
    SelectSet,
    /// Without a reactor: `recv_timeout` for the length of a tick, then `try_recv`.
    Bare,
    /// Sleeps for the length of a tick, then drops the receiver and continues with a new channel.
    Drop,
}

impl Way {
    /// Returns the longest time between two messages of a sender, in us.
    fn gap(self) -> u64 {
        match self {
            Way::TryRecv | Way::Default | Way::Drop => 20,
            _ => 200, // each message wakes the loop
        }
    }
}

#[derive(Clone, Copy)]
enum Flavour {
    Bounded,
    Unbounded,
    Rendezvous,
    Post,
    Notify,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    ended: AtomicU64,
    sent: AtomicU64,
    got: AtomicU64,
}

/// Makes the calling thread run before all normal threads.
#[allow(unsafe_code)]
fn use_fifo_scheduling() -> io::Result<()> {
    // SAFETY: all zero is a valid `sched_param`, which has more fields on some systems.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: the thread is the calling one, and `param` is valid for the length of the call.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Pins this thread, and the threads that it starts, to one core.
fn pin_to_one_core() -> io::Result<()> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let is_ours = |&core: &usize| all.is_set(core).is_ok_and(|is_set| is_set);
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).rfind(is_ours).expect("a core"))?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Starts two senders. Each spins for up to `gap` us between two messages, so that the loop sleeps.
fn senders<F: FnMut() + Send + 'static>(shared: &Arc<Shared>, gap: u64, make: impl Fn() -> F) {
    for seed in 1..=2 {
        let (shared, mut send) = (shared.clone(), make());
        thread::spawn(move || {
            let mut random = Random::new(seed);
            while !shared.over.load(SeqCst) {
                let ahead = shared.sent.load(SeqCst).wrapping_sub(shared.got.load(SeqCst));
                if ahead as i64 >= BURST as i64 {
                    std::hint::spin_loop();
                    continue;
                }
                shared.sent.fetch_add(1, SeqCst);
                send();
                let (begin, gap) = (Instant::now(), Duration::from_micros(random.below(gap)));
                while begin.elapsed() < gap {
                    std::hint::spin_loop();
                }
            }
            drop(send);
            shared.ended.fetch_add(1, SeqCst);
        });
    }
}

/// The longest times, in ns.
#[derive(Default)]
struct Worst {
    receive: u64,
    tick: u64,
    /// One turn of the loop, which waits at most for the next tick.
    turn: u64,
    ticks: u64,
    received: u64,
}

impl Worst {
    fn tick(&mut self, due: Time) {
        self.ticks += 1;
        self.tick = self.tick.max(Time::now().duration_since(due).as_nanos() as u64);
    }

    fn receive<R>(&mut self, f: impl FnOnce() -> Option<R>) -> Option<R> {
        let begin = Time::now();
        let item = f();
        self.receive = self.receive.max(Time::now().duration_since(begin).as_nanos() as u64);
        self.received += u64::from(item.is_some());
        item
    }
}

/// The program of the child.
fn program(flavour: Flavour, way: Way) {
    if let Err(error) = pin_to_one_core() {
        return report(format_args!("skipped, no core of its own: {error}"));
    }
    let shared = Arc::new(Shared::default());
    let reactor = Reactor::new().unwrap();
    let gap = way.gap();
    match flavour {
        Flavour::Bounded if way == Way::Drop => drops(&shared, || channel::bounded(16)),
        Flavour::Unbounded if way == Way::Drop => drops(&shared, channel::unbounded),
        Flavour::Bounded => messages(&shared, &reactor, way, channel::bounded(16)),
        Flavour::Unbounded => messages(&shared, &reactor, way, channel::unbounded()),
        Flavour::Rendezvous => messages(&shared, &reactor, way, channel::bounded(0)),
        Flavour::Post => {
            senders(&shared, gap, || {
                let (remote, shared) = (reactor.remote(), shared.clone());
                move || {
                    let shared = shared.clone();
                    let count = move |_: &Handle| _ = shared.got.fetch_add(1, SeqCst);
                    remote.post(count).unwrap();
                }
            });
            let nothing: Never<()> = never();
            drive(&shared, &reactor, way, &nothing, false);
        }
        Flavour::Notify => {
            let (notifier, notified) = reactor.notifier();
            senders(&shared, gap, || {
                let (notifier, shared) = (notifier.clone(), shared.clone());
                move || {
                    notifier.notify();
                    shared.got.fetch_add(1, SeqCst); // one wake-up may stand for several calls
                }
            });
            drive(&shared, &reactor, way, &notified.with_key(MAIN), false);
        }
    }
}

fn messages(
    shared: &Arc<Shared>,
    reactor: &Reactor,
    way: Way,
    (tx, rx): (Sender<Message>, Receiver<Message>),
) {
    senders(shared, way.gap(), || {
        let tx = tx.clone();
        move || tx.send([7; 64]).unwrap()
    });
    if way == Way::Bare {
        bare(shared, &rx);
    } else {
        let inbox = reactor.register_with(MAIN, rx).unwrap();
        drive(shared, reactor, way, &inbox, true);
    }
    drop(tx); // keep the sender until now, or the loop sees a disconnection
}

/// Switches to `SCHED_FIFO`, runs `turn` for some time, and reports the longest times.
fn measure(shared: &Shared, mut turn: impl FnMut(&mut Worst)) {
    if let Err(error) = use_fifo_scheduling() {
        return report(format_args!("skipped, SCHED_FIFO is refused: {error}"));
    }
    let mut worst = Worst::default();
    let (begin, length) = (Instant::now(), LENGTH * rounds().min(40) as u32);
    while begin.elapsed() < length {
        let begin = Time::now();
        turn(&mut worst);
        worst.turn = worst.turn.max(Time::now().duration_since(begin).as_nanos() as u64);
    }
    let Worst { receive, tick, turn: longest, ticks, received } = worst;
    report(format_args!("worst {receive} {tick} {longest} {ticks} {received}"));
    shared.over.store(true, SeqCst);
    while shared.ended.load(SeqCst) < 2 {
        turn(&mut worst); // a sender that waits for room continues
    }
}

/// Runs the loop. With `counted` each item is a message that was sent.
fn drive<S: Source>(shared: &Shared, reactor: &Reactor, way: Way, main: &S, counted: bool) {
    let ticker = reactor.every(PERIOD).unwrap().with_key(TICK);
    let mut events = Events::with_capacity(4);
    let mut set = Select::new(reactor);
    let (on_tick, _on_main) = (set.recv(&ticker), set.recv(main));
    let got = |n: usize| {
        if counted {
            shared.got.fetch_add(n as u64, SeqCst);
        }
    };
    measure(shared, |worst| match way {
        Way::TryRecv | Way::Default => {
            select! { reactor; recv(ticker) -> tick => worst.tick(tick.scheduled) }
            let take = || match way {
                Way::TryRecv => main.try_take(),
                _ => select! { reactor; recv(main) -> item => Some(item), default => None },
            };
            got((0..BURST).map_while(|_| worst.receive(take)).count());
        }
        Way::SelectMacro => select! { reactor;
            recv(ticker) -> tick => worst.tick(tick.scheduled),
            recv(main) -> _ => {
                worst.received += 1;
                got(1);
            },
        },
        Way::Wait => {
            reactor.wait(&mut events).unwrap();
            for event in events.iter() {
                if event.key() == TICK {
                    ticker.try_take().into_iter().for_each(|tick| worst.tick(tick.scheduled));
                } else {
                    got((0..BURST).map_while(|_| worst.receive(|| main.try_take())).count());
                }
            }
        }
        Way::SelectSet => {
            let chosen = set.wait().unwrap();
            if chosen.index() == on_tick {
                worst.tick(chosen.recv(&ticker).unwrap().scheduled);
            } else {
                got(usize::from(worst.receive(|| chosen.recv(main)).is_some()));
            }
        }
        Way::Bare | Way::Drop => unreachable!("this way has no reactor"),
    });
}

/// Runs a loop without a reactor, whose timeouts are the ticks.
fn bare(shared: &Shared, rx: &Receiver<Message>) {
    measure(shared, |worst| {
        let due = Time::now() + PERIOD;
        let first = rx.recv_timeout(PERIOD);
        let first = usize::from(first.inspect_err(|_| worst.tick(due)).is_ok());
        worst.received += first as u64;
        let more = (0..BURST).map_while(|_| worst.receive(|| rx.try_recv().ok()));
        shared.got.fetch_add((first + more.count()) as u64, SeqCst);
    });
}

/// Runs a loop that drops receivers.
fn drops(shared: &Arc<Shared>, make: fn() -> (Sender<Parcel>, Receiver<Parcel>)) {
    let (tx, mut rx) = make();
    let current = Arc::new(Mutex::new(tx));
    senders(shared, Way::Drop.gap(), || {
        let current = current.clone();
        let mut tx = current.lock().unwrap().clone();
        move || {
            if tx.try_send(Parcel([7; 64])).is_err() {
                tx = current.lock().unwrap().clone();
            }
        }
    });
    measure(shared, |worst| {
        thread::sleep(PERIOD);
        let (tx, next) = make();
        *current.lock().unwrap() = tx;
        worst.receive(|| {
            drop(std::mem::replace(&mut rx, next));
            Some(())
        });
        shared.got.store(shared.sent.load(SeqCst), SeqCst);
    });
}

/// The body of each test. In the child it runs the program.
fn judge(name: &str, flavour: Flavour, way: Way) {
    if is_child(name) {
        return program(flavour, way);
    }
    let _alone = alone();
    let mut said = Vec::new();
    for _ in 0..RUNS {
        let program = Program::begin(name);
        let Some(line) = program.next_line() else { panic!("{name}: the child hangs or has died") };
        if let Some(reason) = line.strip_prefix("skipped, ") {
            return skip(name, reason);
        }
        let numbers = line.strip_prefix("worst ").unwrap_or_else(|| panic!("{name}: {line}"));
        let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let [receive, tick, turn, ticks, got] = numbers[..] else { panic!("{name}: {line}") };
        let [receive, tick, turn] = [receive, tick, turn].map(Duration::from_nanos);
        let worst = format!("receive {receive:.1?}, tick {tick:.1?}, turn {turn:.1?}");
        let line = format!("worst {worst}; {ticks} ticks, {got} received");
        eprintln!("stalls: {name}: {line}");
        if receive.max(tick).max(turn) < LIMIT {
            return;
        }
        said.push(line);
    }
    panic!("{name}: each of {RUNS} runs failed:\n{}", said.join("\n"));
}

/// Makes a test for each flavour of sender and way of receiving.
macro_rules! tests {
    ($($name:ident: $flavour:ident by $way:ident;)+) => {$(
        #[test]
        fn $name() {
            judge(concat!("one_core::", stringify!($name)), Flavour::$flavour, Way::$way);
        }
    )+};
}

tests! {
    receiver_drops_promptly_beside_preempted_bounded_senders: Bounded by Drop;
    receiver_drops_promptly_beside_preempted_unbounded_senders: Unbounded by Drop;
    try_recv_is_prompt_beside_preempted_bounded_senders: Bounded by TryRecv;
    try_recv_is_prompt_beside_preempted_unbounded_senders: Unbounded by TryRecv;
    try_recv_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by TryRecv;
    default_is_prompt_beside_preempted_bounded_senders: Bounded by Default;
    default_is_prompt_beside_preempted_unbounded_senders: Unbounded by Default;
    default_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by Default;
    bare_loop_is_prompt_beside_preempted_bounded_senders: Bounded by Bare;
    bare_loop_is_prompt_beside_preempted_unbounded_senders: Unbounded by Bare;
    bare_loop_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by Bare;
    select_macro_is_prompt_beside_preempted_bounded_senders: Bounded by SelectMacro;
    select_macro_is_prompt_beside_preempted_unbounded_senders: Unbounded by SelectMacro;
    select_macro_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by SelectMacro;
    select_macro_is_prompt_beside_preempted_posters: Post by SelectMacro;
    select_macro_is_prompt_beside_preempted_notifiers: Notify by SelectMacro;
    wait_is_prompt_beside_preempted_bounded_senders: Bounded by Wait;
    wait_is_prompt_beside_preempted_unbounded_senders: Unbounded by Wait;
    wait_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by Wait;
    wait_is_prompt_beside_preempted_posters: Post by Wait;
    wait_is_prompt_beside_preempted_notifiers: Notify by Wait;
    select_set_is_prompt_beside_preempted_bounded_senders: Bounded by SelectSet;
    select_set_is_prompt_beside_preempted_unbounded_senders: Unbounded by SelectSet;
    select_set_is_prompt_beside_preempted_rendezvous_senders: Rendezvous by SelectSet;
}

//! One ready channel among many, and bursts in which all of them are ready.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pollmux::channel::Sender;
use pollmux::{Events, Inbox, Reactor, Select};

use crate::measure::{Contestant, Run, shuffled, time};
use crate::raw;
use crate::report::number;
use crate::row::{Bound, Family, row};

/// The number of channels, with the gate and the goal for `wait` in ns. Without a gate the goal is
/// crossbeam's time.
pub const SIZES: [(usize, Option<f64>, f64); 4] =
    [(2, None, 50.0), (10, None, 50.0), (1_000, Some(100.0), 80.0), (10_000, Some(850.0), 300.0)];
const BURSTS: [usize; 2] = [20, 2_000];
const PEERS: [&str; 3] = ["crossbeam Select", "flume Selector", "calloop"];

pub fn families() -> Vec<Family> {
    let one = SIZES.into_iter().map(|(n, gate, goal)| {
        let all = number(n as f64);
        let about = format!("A message to one of {all} channels at random, found by");
        let gate = gate.map_or(Bound::Ratio(1.0), Bound::Value);
        Family::new(
            move |_| one_ready(n),
            [
                row(format!("channels/wait/{n}"), format!("{about} `wait`."), "wait", &PEERS)
                    .gate(gate)
                    .goal(Bound::Value(goal)),
                row(format!("channels/Select/{n}"), format!("{about} `Select`."), "Select", &PEERS),
            ],
        )
    });
    let bursts = BURSTS.into_iter().map(|n| {
        let about = format!("Each of {} ready cases in `Select`, with its send.", number(n as f64));
        let spec = row(format!("channels/burst/{n}"), about, "Select", &PEERS[..1]);
        Family::new(move |_| burst(n), [spec.gate(Bound::Value(100.0)).goal(Bound::Value(60.0))])
    });
    one.chain(bursts).collect()
}

/// Makes a contestant of turns: a send to one of the channels, and the code that finds and takes
/// the message.
fn turns(name: &str, order: Vec<usize>, mut turn: impl FnMut(usize) + 'static) -> Contestant {
    let mut next = 0;
    Contestant::ops(name, move || {
        turn(order[next]);
        next = if next + 1 == order.len() { 0 } else { next + 1 };
    })
}

fn channels(reactor: &Reactor, n: usize) -> (Vec<Sender<u64>>, Vec<Inbox<u64>>) {
    (0..n)
        .map(|key| {
            let (tx, rx) = pollmux::channel::bounded(4);
            (tx, reactor.register_with(key as u64, rx).unwrap())
        })
        .unzip()
}

fn one_ready(n: usize) -> Vec<Contestant> {
    let order = shuffled(n);
    let wait = {
        let reactor = Reactor::new().unwrap();
        let (senders, inboxes) = channels(&reactor, n);
        let mut events = Events::with_capacity(16);
        turns("wait", order.clone(), move |i| {
            senders[i].send(7).unwrap();
            reactor.wait(&mut events).unwrap();
            let event = events.iter().next().unwrap();
            assert_eq!(event.key(), i as u64);
            assert_eq!(inboxes[i].try_recv(), Ok(7));
        })
    };
    // A set borrows its inboxes, so each slice makes a set.
    let select = {
        let reactor = Reactor::new().unwrap();
        let (senders, inboxes) = channels(&reactor, n);
        let order = order.clone();
        Contestant::new("Select", move |run| {
            let mut select = Select::new(&reactor);
            inboxes.iter().for_each(|inbox| _ = select.recv(inbox));
            let mut next = order.iter().cycle();
            let mut turn = || {
                let i = *next.next().unwrap();
                senders[i].send(7).unwrap();
                let selected = select.wait().unwrap();
                assert_eq!(selected.index(), i);
                assert_eq!(selected.recv(&inboxes[i]), Some(Ok(7)));
            };
            warm(&mut turn);
            time(run, turn)
        })
    };
    let crossbeam = {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..n).map(|_| crossbeam_channel::bounded(4)).unzip();
        let order = order.clone();
        Contestant::new("crossbeam Select", move |run| {
            let mut select = crossbeam_channel::Select::new();
            receivers.iter().for_each(|receiver| _ = select.recv(receiver));
            let mut next = order.iter().cycle();
            let mut turn = || {
                let i = *next.next().unwrap();
                senders[i].send(7u64).unwrap();
                let selected = select.select();
                assert_eq!(selected.index(), i);
                assert_eq!(selected.recv(&receivers[i]), Ok(7));
            };
            warm(&mut turn);
            time(run, turn)
        })
    };
    vec![wait, select, crossbeam, flume_selector(order.clone()), calloop(order)]
}

/// Makes turns before the clock starts, for objects that were made anew.
fn warm(turn: &mut impl FnMut()) {
    time(Run::For(Duration::from_micros(500)), turn);
}

/// A flume contestant. A selector of flume is made for one wait.
fn flume_selector(order: Vec<usize>) -> Contestant {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        order.iter().map(|_| flume::bounded::<u64>(4)).unzip();
    turns("flume Selector", order, move |i| {
        senders[i].send(7).unwrap();
        let selector = receivers
            .iter()
            .fold(flume::Selector::new(), |selector, rx| selector.recv(rx, |message| message));
        assert_eq!(selector.wait(), Ok(7));
    })
}

/// A calloop contestant. Each channel of calloop has an eventfd.
fn calloop(order: Vec<usize>) -> Contestant {
    let n = order.len();
    if !raw::allow_fds(n as u64 + 100) {
        return Contestant::absent(&["calloop"], "the limit of open files is too low");
    }
    let mut events = calloop::EventLoop::<u64>::try_new().unwrap();
    let senders: Vec<_> = (0..n)
        .map(|_| {
            let (tx, rx) = calloop::channel::sync_channel(4);
            let taken = events.handle().insert_source(rx, |event, (), got| {
                if let calloop::channel::Event::Msg(message) = event {
                    *got += message;
                }
            });
            taken.map_err(|error| error.error).unwrap();
            tx
        })
        .collect();
    let got = Rc::new(Cell::new(0));
    turns("calloop", order, move |i| {
        senders[i].send(7u64).unwrap();
        let mut sum = got.take();
        events.dispatch(Some(Duration::ZERO), &mut sum).unwrap();
        assert_eq!(sum, 7);
    })
}

fn burst(n: usize) -> Vec<Contestant> {
    let reactor = Reactor::new().unwrap();
    let (senders, inboxes) = channels(&reactor, n);
    let ours = Contestant::new("Select", move |run| {
        let mut select = Select::new(&reactor);
        inboxes.iter().for_each(|inbox| _ = select.recv(inbox));
        let mut turn = || {
            senders.iter().for_each(|sender| sender.send(7).unwrap());
            for _ in 0..n {
                let selected = select.wait().unwrap();
                let index = selected.index();
                assert_eq!(selected.recv(&inboxes[index]), Some(Ok(7)));
            }
        };
        warm(&mut turn);
        time(run, turn).share(n)
    });
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..n).map(|_| crossbeam_channel::bounded(4)).unzip();
    let crossbeam = Contestant::new("crossbeam Select", move |run| {
        let mut select = crossbeam_channel::Select::new();
        receivers.iter().for_each(|receiver| _ = select.recv(receiver));
        let mut turn = || {
            senders.iter().for_each(|sender| sender.send(7u64).unwrap());
            for _ in 0..n {
                let selected = select.select();
                let index = selected.index();
                assert_eq!(selected.recv(&receivers[index]), Ok(7));
            }
        };
        warm(&mut turn);
        time(run, turn).share(n)
    });
    vec![ours, crossbeam]
}

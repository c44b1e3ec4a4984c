//! Room in a channel as an event. An outbox whose `try_send` finds the channel full requests room.
//! `wait` reports the room once.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use pollmux::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use pollmux::reactor::SourceKind;
use pollmux::sys::Interest;
use pollmux::{Events, Fd, Inbox, Outbox, Reactor, Select, SimWorld, select};
use support::{
    Random, at, keys, ms, pair, ready_keys, rounds, scripted_reactor, simulated, thread, wait_keys,
    wait_keys_for, watchdog,
};

const OUTBOX: u64 = 7;

/// A channel of this capacity, full of zeros, whose outbox has requested room.
#[track_caller]
fn requesting_room(
    reactor: &Reactor,
    capacity: usize,
) -> (Outbox<u32>, Receiver<u32>, Sender<u32>) {
    let (tx, rx) = bounded(capacity);
    let sender = tx.clone();
    let outbox = reactor.register_with(OUTBOX, tx).unwrap();
    (0..capacity).for_each(|_| outbox.try_send(0).unwrap());
    assert_eq!(outbox.try_send(1), Err(TrySendError::Full(1)));
    (outbox, rx, sender)
}

#[test]
fn room_is_reported_once_after_a_full_send() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = requesting_room(&reactor, 2);
    for _ in 0..3 {
        assert_eq!(ready_keys(&reactor), []);
        rx.try_recv().unwrap();
        let mut events = Events::new();
        reactor.wait(&mut events).unwrap();
        let event = events.iter().next().unwrap();
        assert_eq!((event.key(), event.kind()), (OUTBOX, SourceKind::Outbox));
        assert!(event.readiness().is_empty());
        // The outbox has not requested room again: no further room is reported.
        assert_eq!(ready_keys(&reactor), []);
        rx.try_recv().unwrap();
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!([1, 2].map(|n| outbox.try_send(n)), [Ok(()); 2]);
        assert_eq!(ready_keys(&reactor), []);
        // Several failed sends are one request.
        (0..5).for_each(|_| assert!(outbox.try_send(3).is_err()));
    }
}

#[test]
fn room_older_than_the_wait_is_reported() {
    let (_sim, reactor) = simulated();
    let (_outbox, rx, _tx) = requesting_room(&reactor, 1);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn room_that_another_sender_took_is_not_reported() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, tx) = requesting_room(&reactor, 1);
    for _ in 0..3 {
        rx.try_recv().unwrap();
        tx.try_send(5).unwrap();
        assert_eq!(ready_keys(&reactor), []);
    }
    rx.try_recv().unwrap();
    // A wait reports room, and another sender takes the room before the loop reads the event.
    for asks_again in [false, true] {
        let mut events = Events::new();
        reactor.try_wait(&mut events).unwrap();
        tx.try_send(6).unwrap();
        assert!(!asks_again || outbox.try_send(7).is_err());
        assert_eq!((keys(&events), ready_keys(&reactor)), (vec![], vec![]));
        rx.try_recv().unwrap();
    }
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn a_full_send_after_the_report_requests_again() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, tx) = requesting_room(&reactor, 1);
    for _ in 0..3 {
        rx.try_recv().unwrap();
        let mut events = Events::new();
        reactor.try_wait(&mut events).unwrap();
        assert_eq!(keys(&events), [OUTBOX]);
        tx.try_send(5).unwrap();
        assert!(outbox.try_send(7).is_err());
        assert_eq!(ready_keys(&reactor), []);
    }
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn an_unread_room_event_is_reported_again() {
    let (_sim, reactor) = simulated();
    let (_outbox, rx, _tx) = requesting_room(&reactor, 1);
    rx.try_recv().unwrap();
    let mut events = Events::new();
    for _ in 0..3 {
        reactor.try_wait(&mut events).unwrap();
        assert_eq!(events.len(), 1);
    }
    // Printing the events does not consume them.
    assert!(format!("{events:?}").contains("Outbox"));
    assert_eq!(keys(&events), [OUTBOX]);
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_dropped_receiver_is_reported_once() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = requesting_room(&reactor, 1);
    drop(rx);
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
    assert_eq!(outbox.try_send(1), Err(TrySendError::Disconnected(1)));
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_returned_permit_is_room() {
    let (_sim, reactor) = simulated();
    let (tx, _rx) = bounded(1);
    let outbox = reactor.register_with(OUTBOX, tx.clone()).unwrap();
    let other = Reactor::new().unwrap();
    let holder = other.register(tx).unwrap();
    let mut select = Select::new(&other);
    select.send(&holder);
    let permit = select.wait().unwrap();
    assert!(outbox.try_send(1).is_err());
    assert_eq!(ready_keys(&reactor), []);
    drop(permit);
    assert_eq!((ready_keys(&reactor), outbox.try_send(1)), (vec![OUTBOX], Ok(())));
}

#[test]
fn room_has_the_outbox_s_key() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = bounded(1);
    let outbox = reactor.register(tx).unwrap();
    assert!(outbox.try_send(0).is_ok() && outbox.try_send(1).is_err());
    rx.try_recv().unwrap();
    assert!(outbox.key() >= 1 << 63);
    assert_eq!(ready_keys(&reactor), [outbox.key()]);
    // A key that is given later is reported too.
    assert!(outbox.try_send(0).is_ok() && outbox.try_send(1).is_err());
    let outbox = outbox.with_key((3, 4));
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [outbox.key()]);
    assert_eq!(outbox.key(), 3 << 32 | 4);
}

#[test]
fn only_try_send_of_an_outbox_requests_room() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = bounded(1);
    let outbox = reactor.register_with(OUTBOX, tx).unwrap();
    outbox.try_send(0).unwrap();
    assert!(outbox.sender().try_send(1).is_err());
    select! { reactor; send(outbox, 1) -> _ => unreachable!(), default => {} }
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), []);
    // A channel without a limit is never full.
    let (tx, _rx) = unbounded();
    let endless = reactor.register_with(8, tx).unwrap();
    (0..10_000).for_each(|n| endless.try_send(n).unwrap());
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_rendezvous_channel_reports_no_room() {
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (tx, rx) = bounded(0);
    let outbox = reactor.register_with(OUTBOX, tx).unwrap();
    assert_eq!(outbox.try_send(1), Err(TrySendError::Full(1)));
    let receiver = thread::spawn(move || rx.recv());
    assert_eq!(wait_keys_for(&reactor, ms(10)), []);
    // A send case meets the blocked receiver.
    select! { reactor; send(outbox, 2) -> sent => sent.unwrap() }
    assert_eq!(receiver.join().unwrap(), Ok(2));
}

/// The driver's script makes room during the sleep.
#[test]
fn room_ends_a_sleep_with_one_wake_up() {
    let _watchdog = watchdog();
    for capacity in [1, 5] {
        let (_, reactor, script) = scripted_reactor();
        let (outbox, rx, _tx) = requesting_room(&reactor, capacity);
        let rx = Rc::new(rx);
        for round in 1..=20 {
            let receiver = rx.clone();
            script.on_sleep(move || {
                assert_eq!(receiver.try_iter().count(), capacity);
                Ok(())
            });
            assert_eq!(wait_keys(&reactor), [OUTBOX]);
            assert_eq!((script.sleeps(), script.wakes()), (round, round));
            (0..capacity).for_each(|n| outbox.try_send(n as u32).unwrap());
            assert!(outbox.try_send(9).is_err());
        }
        // A loop that is awake needs no wake-up.
        assert_eq!(rx.try_iter().count(), capacity);
        assert_eq!((ready_keys(&reactor), script.wakes()), (vec![OUTBOX], 20));
    }
}

#[test]
fn a_full_channel_lets_the_loop_sleep() {
    let (sim, reactor, script) = scripted_reactor();
    let (_outbox, _rx, _tx) = requesting_room(&reactor, 1);
    assert_eq!(wait_keys_for(&reactor, ms(5)), []);
    assert_eq!((script.sleeps(), sim.now()), (1, at(5)));
}

/// Room ends at most one sleep of a `select!` that does not mention the outbox.
#[test]
fn room_ends_at_most_one_select_sleep() {
    let (_, reactor, script) = scripted_reactor();
    let (outbox, rx, _tx) = requesting_room(&reactor, 2);
    assert_eq!(ready_keys(&reactor), []);
    let rx = Rc::new(rx);
    for _ in 0..5 {
        let receiver = rx.clone();
        script.on_sleep(move || {
            assert_eq!(receiver.try_iter().count(), 2);
            Ok(())
        });
        let timer = reactor.after(ms(1));
        select! { reactor; recv(timer) -> _ => {} }
        assert!([(); 2].iter().all(|()| outbox.try_send(0).is_ok()));
    }
    assert!(script.wakes() <= 1, "{} wake-ups", script.wakes());
    assert_eq!(ready_keys(&reactor), []);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn a_send_case_keeps_the_request() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = requesting_room(&reactor, 1);
    rx.try_recv().unwrap();
    select! { reactor; send(outbox, 1) -> sent => sent.unwrap() }
    // The select takes the room. The request stays.
    assert_eq!(ready_keys(&reactor), []);
    rx.try_recv().unwrap();
    let mut select = Select::new(&reactor);
    select.send(&outbox);
    select.wait().unwrap().send(&outbox, 2).unwrap();
    assert_eq!(ready_keys(&reactor), []);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn a_dropped_outbox_withdraws_its_request() {
    for drop_outbox in [drop, |outbox: Outbox<u32>| drop(outbox.into_inner())] {
        let (_, reactor, script) = scripted_reactor();
        let (outbox, rx, tx) = requesting_room(&reactor, 1);
        assert_eq!(ready_keys(&reactor), []);
        drop_outbox(outbox);
        // The timer takes the slot of the outbox.
        let timer = reactor.after(ms(1)).with_key(1);
        let rx = Rc::new(rx);
        let receiver = rx.clone();
        script.on_sleep(move || {
            receiver.try_recv().unwrap();
            Ok(())
        });
        assert_eq!((wait_keys(&reactor), script.wakes()), (vec![1], 0));
        drop((timer, tx));
    }
}

#[test]
fn an_outbox_outlives_its_reactor() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = requesting_room(&reactor, 1);
    drop(reactor);
    rx.try_recv().unwrap();
    assert_eq!(outbox.try_send(1), Ok(()));
    assert_eq!(outbox.try_send(2), Err(TrySendError::Full(2)));
    drop(outbox);
    assert!(rx.try_iter().eq([1]));
}

#[test]
fn a_callback_may_request_room() {
    let (sim, reactor) = simulated();
    let (outbox, rx, _tx) = requesting_room(&reactor, 1);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
    let outbox = Rc::new(outbox);
    let sender = outbox.clone();
    reactor.call_after(ms(1), move |_| assert!(sender.try_send(1).is_ok())).detach();
    let sender = outbox.clone();
    reactor.call_after(ms(2), move |_| assert!(sender.try_send(2).is_err())).detach();
    reactor.call_after(ms(3), move |_| assert_eq!(rx.try_recv(), Ok(1))).detach();
    assert_eq!((wait_keys(&reactor), sim.now()), (vec![OUTBOX], at(3)));
}

#[cfg(not(flat))]
#[test]
fn room_makes_the_embedded_fd_readable() {
    use pollmux::sys::{Mode, PollEvents, Poller};

    let _watchdog = watchdog();
    for mode in [Mode::Level, Mode::Edge] {
        let reactor = support::reactor();
        let embedded = reactor.embed().unwrap();
        let poller = Poller::new().unwrap();
        poller.register(&embedded, 0, Interest::READABLE, mode).unwrap();
        let mut events = PollEvents::with_capacity(8);
        let mut has_event = |timeout| {
            poller.wait(&mut events, timeout).unwrap();
            !events.is_empty()
        };
        let (outbox, rx, _tx) = requesting_room(&reactor, 1);
        while has_event(Some(ms(0))) {
            embedded.turn().unwrap();
        }
        for n in 0..3 {
            rx.try_recv().unwrap();
            assert!(has_event(None));
            assert_eq!(embedded.turn().unwrap(), 1);
            assert_eq!(ready_keys(&reactor), [OUTBOX]);
            assert_eq!(embedded.turn().unwrap(), 0);
            while has_event(Some(ms(0))) {
                assert_eq!(embedded.turn().unwrap(), 0);
            }
            outbox.try_send(n).unwrap();
            assert!(outbox.try_send(n).is_err());
        }
        // Room that is free at the request is work for a turn, too.
        rx.try_recv().unwrap();
        assert!(has_event(None));
        assert_eq!((embedded.turn().unwrap(), ready_keys(&reactor)), (1, vec![OUTBOX]));
    }
}

/// The wait ends at the instant of the receive.
#[test]
fn world_members_report_room_to_each_other() {
    let _watchdog = watchdog();
    let mut world = SimWorld::new(3);
    let (tx, rx) = bounded(1);
    world.spawn("receiver", move |reactor| {
        for n in 0..20u64 {
            support::sleep(&reactor, ms(10));
            assert_eq!(rx.try_recv(), Ok(n));
        }
    });
    world.spawn("sender", move |reactor| {
        let outbox = reactor.register_with(OUTBOX, tx).unwrap();
        for n in 0..20u64 {
            if outbox.try_send(n).is_err() {
                assert_eq!(wait_keys(&reactor), [OUTBOX]);
                assert_eq!(reactor.now(), at(10 * n));
                outbox.try_send(n).unwrap();
            }
        }
    });
    world.run().unwrap();
    assert_eq!(world.now(), at(200));
}

#[test]
fn four_outboxes_with_many_threads_miss_no_room() {
    const OUTBOXES: usize = 4;
    let _watchdog = watchdog();
    let each = rounds(3_000) as u32;
    let reactor = support::reactor();
    let mut receivers = Vec::new();
    let outboxes: Vec<_> = (0..OUTBOXES)
        .map(|n| {
            let (tx, rx) = bounded(1 + n / 2);
            // A rival takes room away now and then.
            let rival = tx.clone();
            thread::spawn(move || (0..each).step_by(7).for_each(|_| rival.send(u32::MAX).unwrap()));
            receivers.push(thread::spawn(move || {
                let ours = rx.iter().filter(|&message| message != u32::MAX);
                assert!(ours.eq(0..each));
            }));
            Some(reactor.register_with((1, n as u32), tx).unwrap())
        })
        .collect();
    let mut outboxes: Vec<_> = outboxes.into_iter().map(|outbox| (outbox, 0)).collect();
    /// Sends until the channel is full. Returns true when every number was sent.
    fn send(outbox: &Outbox<u32>, next: &mut u32, end: u32) -> bool {
        while *next < end && outbox.try_send(*next).is_ok() {
            *next += 1;
        }
        *next == end
    }
    let mut events = Events::with_capacity(2);
    let mut left = OUTBOXES;
    let mut work: Vec<usize> = (0..OUTBOXES).collect();
    loop {
        for n in work.drain(..) {
            let (outbox, next) = &mut outboxes[n];
            if outbox.as_ref().is_some_and(|outbox| send(outbox, next, each)) {
                *outbox = None;
                left -= 1;
            }
        }
        if left == 0 {
            break;
        }
        reactor.wait(&mut events).unwrap();
        work.extend(events.iter().map(|event| event.split_key().1 as usize));
    }
    receivers.into_iter().for_each(|receiver| receiver.join().unwrap());
}

/// A server of sockets whose two workers are slower than its clients.
struct Server {
    reactor: Reactor,
    clients: Vec<Client>,
    workers: Vec<Outbox<Job>>,
    /// The jobs that the workers had no room for. The server does not read from their clients.
    held: Vec<VecDeque<Job>>,
    most_held: usize,
    gate: Option<Sender<()>>,
    reports: usize,
    requests: usize,
}

struct Client {
    stream: Fd<UnixStream>,
    answered: usize,
    /// True while the server does not read from the client. Events of the client's end still come.
    held: bool,
}

/// The client's number, and the byte that the client sent.
type Job = (u32, u8);

const CLIENT: u32 = 0;
const WORKER: u32 = 1;
const ANSWERS: u32 = 2;
const JOBS: usize = 400;

impl Server {
    fn run(&mut self, answers: &Inbox<Job>) {
        let mut events = Events::with_capacity(16);
        let mut open = self.clients.len();
        while open > 0 {
            self.reactor.wait(&mut events).unwrap();
            for event in &events {
                match (event.split_key(), event.kind()) {
                    ((CLIENT, client), SourceKind::Fd) => self.read(client),
                    ((WORKER, worker), SourceKind::Outbox) => self.send_held(worker as usize),
                    ((ANSWERS, _), SourceKind::Inbox) => {
                        for (client, byte) in answers.try_iter() {
                            let client = &mut self.clients[client as usize];
                            // A client that does not read blocks this loop. The test's clients
                            // read.
                            while let Err(error) = client.stream.get_ref().write_all(&[byte]) {
                                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                            }
                            client.answered += 1;
                            open -= usize::from(client.answered == JOBS);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn read(&mut self, number: u32) {
        let client = &mut self.clients[number as usize];
        if client.held {
            return;
        }
        let mut byte = [0];
        match client.stream.try_io(|mut stream| stream.read(&mut byte)) {
            Ok(0) => client.stream.set_interest(Interest::NONE).unwrap(),
            Ok(_) => {
                let worker = number as usize % self.workers.len();
                if let Err(full) = self.workers[worker].try_send((number, byte[0])) {
                    self.held[worker].push_back(full.into_inner());
                    client.stream.set_interest(Interest::NONE).unwrap();
                    client.held = true;
                    self.requests += 1;
                    self.gate = None;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.most_held = self.most_held.max(self.held.iter().map(VecDeque::len).sum());
    }

    /// Sends the held jobs of a worker that has room.
    fn send_held(&mut self, worker: usize) {
        self.reports += 1;
        while let Some(job) = self.held[worker].pop_front() {
            if let Err(full) = self.workers[worker].try_send(job) {
                self.held[worker].push_front(full.into_inner());
                self.requests += 1;
                return;
            }
            let client = &mut self.clients[job.0 as usize];
            client.stream.set_interest(Interest::READABLE).unwrap();
            client.held = false;
        }
    }
}

#[test]
fn a_server_applies_back_pressure_to_its_clients() {
    const CLIENTS: u32 = 12;
    let _watchdog = watchdog();
    let reactor = support::reactor();
    let (answer, answers) = reactor.channel_with((ANSWERS, 0), 1_000).unwrap();
    // The workers begin when one of their channels has been full.
    let (gate, shut) = bounded::<()>(1);
    let shut = Arc::new(Mutex::new(shut));
    let workers = (0..2).map(|n| {
        let (tx, rx) = bounded::<Job>(1 + n as usize);
        let shut = shut.clone();
        let (answer, mut random) = (answer.clone(), Random::new(u64::from(n)));
        thread::spawn(move || {
            assert!(shut.lock().unwrap().recv().is_err());
            for (client, byte) in rx {
                if random.below(8) == 0 {
                    std::thread::sleep(ms(1) / 20);
                }
                answer.send((client, byte.wrapping_add(1))).unwrap();
            }
        });
        reactor.register_with((WORKER, n), tx).unwrap()
    });
    let workers: Vec<_> = workers.collect();
    let mut theirs = Vec::new();
    let clients = (0..CLIENTS).map(|n| {
        let (ours, mut their) = pair();
        their.set_nonblocking(false).unwrap();
        let mut sending = their.try_clone().unwrap();
        theirs.push(thread::spawn(move || {
            (0..JOBS).for_each(|n| sending.write_all(&[n as u8]).unwrap());
            sending.shutdown(Shutdown::Write).unwrap();
        }));
        theirs.push(thread::spawn(move || {
            let mut answers = vec![0; JOBS];
            their.read_exact(&mut answers).unwrap();
            assert!(answers.iter().zip(1..).all(|(&answer, n)| answer == n as u8));
        }));
        let stream = reactor.fd(ours, Interest::READABLE).unwrap().with_key((CLIENT, n));
        Client { stream, answered: 0, held: false }
    });
    let clients = clients.collect();
    let held = vec![VecDeque::new(); 2];
    let gate = Some(gate);
    let mut server =
        Server { reactor, clients, workers, held, most_held: 0, gate, reports: 0, requests: 0 };
    server.run(&answers);
    assert!(server.most_held <= CLIENTS as usize, "the server holds more than one job of a client");
    assert!(
        server.reports <= server.requests,
        "{} reports, {} requests",
        server.reports,
        server.requests
    );
    assert!(server.reports > 0);
    theirs.into_iter().for_each(|their| their.join().unwrap());
}

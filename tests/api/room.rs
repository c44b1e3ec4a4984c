//! Room in a channel as an event: a full `try_send` of an outbox asks for it, and `wait` tells of
//! it once.

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
    Random, at, dog, keys, ms, pair, ready_keys, rounds, scripted_reactor, simulated, thread,
    wait_keys, wait_keys_for,
};

const OUTBOX: u64 = 7;

/// A channel of this capacity, full of zeros, whose outbox has asked for room.
#[track_caller]
fn asking(reactor: &Reactor, capacity: usize) -> (Outbox<u32>, Receiver<u32>, Sender<u32>) {
    let (tx, rx) = bounded(capacity);
    let sender = tx.clone();
    let outbox = reactor.register_with(OUTBOX, tx).unwrap();
    (0..capacity).for_each(|_| outbox.try_send(0).unwrap());
    assert_eq!(outbox.try_send(1), Err(TrySendError::Full(1)));
    (outbox, rx, sender)
}

#[test]
fn room_is_told_once_after_a_full_send() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = asking(&reactor, 2);
    for _ in 0..3 {
        assert_eq!(ready_keys(&reactor), []);
        rx.try_recv().unwrap();
        let mut events = Events::new();
        reactor.wait(&mut events).unwrap();
        let event = events.iter().next().unwrap();
        assert_eq!((event.key(), event.kind()), (OUTBOX, SourceKind::Outbox));
        assert!(event.readiness().is_empty());
        // Told, and not asked again: neither the rest of the room nor more of it is news.
        assert_eq!(ready_keys(&reactor), []);
        rx.try_recv().unwrap();
        assert_eq!(ready_keys(&reactor), []);
        assert_eq!([1, 2].map(|n| outbox.try_send(n)), [Ok(()); 2]);
        assert_eq!(ready_keys(&reactor), []);
        // Asking several times is asking once.
        (0..5).for_each(|_| assert!(outbox.try_send(3).is_err()));
    }
}

#[test]
fn room_is_found_that_came_before_the_wait() {
    let (_sim, reactor) = simulated();
    let (_outbox, rx, _tx) = asking(&reactor, 1);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
}

#[test]
fn room_that_another_sender_took_is_not_told() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, tx) = asking(&reactor, 1);
    for _ in 0..3 {
        rx.try_recv().unwrap();
        tx.try_send(5).unwrap();
        assert_eq!(ready_keys(&reactor), []);
    }
    rx.try_recv().unwrap();
    // Found, but gone again before the loop comes to the event.
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
fn a_full_send_after_the_report_asks_again() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, tx) = asking(&reactor, 1);
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
fn an_event_that_the_loop_did_not_come_to_is_told_later() {
    let (_sim, reactor) = simulated();
    let (_outbox, rx, _tx) = asking(&reactor, 1);
    rx.try_recv().unwrap();
    let mut events = Events::new();
    for _ in 0..3 {
        reactor.try_wait(&mut events).unwrap();
        assert_eq!(events.len(), 1);
    }
    // To print the events does not use them up.
    assert!(format!("{events:?}").contains("Outbox"));
    assert_eq!(keys(&events), [OUTBOX]);
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_receiver_that_goes_is_told_once() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = asking(&reactor, 1);
    drop(rx);
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
    assert_eq!(outbox.try_send(1), Err(TrySendError::Disconnected(1)));
    assert_eq!(ready_keys(&reactor), []);
}

#[test]
fn a_permit_given_back_is_room() {
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
fn without_a_key_room_has_the_default_one() {
    let (_sim, reactor) = simulated();
    let (tx, rx) = bounded(1);
    let outbox = reactor.register(tx).unwrap();
    assert!(outbox.try_send(0).is_ok() && outbox.try_send(1).is_err());
    rx.try_recv().unwrap();
    assert!(outbox.key() >= 1 << 63);
    assert_eq!(ready_keys(&reactor), [outbox.key()]);
    // A key that is given late counts.
    assert!(outbox.try_send(0).is_ok() && outbox.try_send(1).is_err());
    let outbox = outbox.with_key((3, 4));
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [outbox.key()]);
    assert_eq!(outbox.key(), 3 << 32 | 4);
}

#[test]
fn only_the_outbox_itself_asks() {
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
fn a_rendezvous_tells_of_no_room() {
    let _dog = dog();
    let reactor = support::reactor();
    let (tx, rx) = bounded(0);
    let outbox = reactor.register_with(OUTBOX, tx).unwrap();
    assert_eq!(outbox.try_send(1), Err(TrySendError::Full(1)));
    let receiver = thread::spawn(move || rx.recv());
    assert_eq!(wait_keys_for(&reactor, ms(10)), []);
    // A send case meets the receiver that blocks.
    select! { reactor; send(outbox, 2) -> sent => sent.unwrap() }
    assert_eq!(receiver.join().unwrap(), Ok(2));
}

/// Room that comes while the reactor sleeps, by the driver's script.
#[test]
fn a_sleep_is_ended_by_one_wake_up() {
    let _dog = dog();
    for capacity in [1, 5] {
        let (_, reactor, script) = scripted_reactor();
        let (outbox, rx, _tx) = asking(&reactor, capacity);
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
        // A loop that is awake is woken by nobody.
        assert_eq!(rx.try_iter().count(), capacity);
        assert_eq!((ready_keys(&reactor), script.wakes()), (vec![OUTBOX], 20));
    }
}

#[test]
fn a_full_channel_lets_the_loop_sleep() {
    let (sim, reactor, script) = scripted_reactor();
    let (_outbox, _rx, _tx) = asking(&reactor, 1);
    assert_eq!(wait_keys_for(&reactor, ms(5)), []);
    assert_eq!((script.sleeps(), sim.now()), (1, at(5)));
}

/// A `select!` that does not mention the outbox is woken once, at most, by its room.
#[test]
fn a_select_takes_no_notice_of_room() {
    let (_, reactor, script) = scripted_reactor();
    let (outbox, rx, _tx) = asking(&reactor, 2);
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
fn a_send_case_goes_on_beside_the_request() {
    let (_sim, reactor) = simulated();
    let (outbox, rx, _tx) = asking(&reactor, 1);
    rx.try_recv().unwrap();
    select! { reactor; send(outbox, 1) -> sent => sent.unwrap() }
    // The room is gone, and the request stays.
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
fn an_outbox_that_goes_takes_its_request_back() {
    for goes in [drop, |outbox: Outbox<u32>| drop(outbox.into_inner())] {
        let (_, reactor, script) = scripted_reactor();
        let (outbox, rx, tx) = asking(&reactor, 1);
        assert_eq!(ready_keys(&reactor), []);
        goes(outbox);
        // Its slot is another source's.
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
    let (outbox, rx, _tx) = asking(&reactor, 1);
    drop(reactor);
    rx.try_recv().unwrap();
    assert_eq!(outbox.try_send(1), Ok(()));
    assert_eq!(outbox.try_send(2), Err(TrySendError::Full(2)));
    drop(outbox);
    assert!(rx.try_iter().eq([1]));
}

#[test]
fn a_callback_may_ask_for_room() {
    let (sim, reactor) = simulated();
    let (outbox, rx, _tx) = asking(&reactor, 1);
    rx.try_recv().unwrap();
    assert_eq!(ready_keys(&reactor), [OUTBOX]);
    let outbox = Rc::new(outbox);
    let asked = outbox.clone();
    reactor.call_after(ms(1), move |_| assert!(asked.try_send(1).is_ok())).detach();
    let asked = outbox.clone();
    reactor.call_after(ms(2), move |_| assert!(asked.try_send(2).is_err())).detach();
    reactor.call_after(ms(3), move |_| assert_eq!(rx.try_recv(), Ok(1))).detach();
    assert_eq!((wait_keys(&reactor), sim.now()), (vec![OUTBOX], at(3)));
}

#[cfg(not(flat))]
#[test]
fn room_makes_the_fd_of_an_embedded_reactor_readable() {
    use pollmux::sys::{Mode, PollEvents, Poller};

    let _dog = dog();
    for mode in [Mode::Level, Mode::Edge] {
        let reactor = support::reactor();
        let embedded = reactor.embed().unwrap();
        let poller = Poller::new().unwrap();
        poller.register(&embedded, 0, Interest::READABLE, mode).unwrap();
        let mut ups = PollEvents::with_capacity(8);
        let mut is_up = |timeout| {
            poller.wait(&mut ups, timeout).unwrap();
            !ups.is_empty()
        };
        let (outbox, rx, _tx) = asking(&reactor, 1);
        while is_up(Some(ms(0))) {
            embedded.turn().unwrap();
        }
        for n in 0..3 {
            rx.try_recv().unwrap();
            assert!(is_up(None));
            assert_eq!(embedded.turn().unwrap(), 1);
            assert_eq!(ready_keys(&reactor), [OUTBOX]);
            assert_eq!(embedded.turn().unwrap(), 0);
            while is_up(Some(ms(0))) {
                assert_eq!(embedded.turn().unwrap(), 0);
            }
            outbox.try_send(n).unwrap();
            assert!(outbox.try_send(n).is_err());
        }
        // Room that is there when the outbox asks is work for a turn, too.
        rx.try_recv().unwrap();
        assert!(is_up(None));
        assert_eq!((embedded.turn().unwrap(), ready_keys(&reactor)), (1, vec![OUTBOX]));
    }
}

/// Room is told at the instant of the receive.
#[test]
fn members_of_a_world_tell_each_other_of_room() {
    let _dog = dog();
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
fn no_room_is_missed_with_several_threads_and_outboxes() {
    const OUTBOXES: usize = 4;
    let _dog = dog();
    let each = rounds(3_000) as u32;
    let reactor = support::reactor();
    let mut receivers = Vec::new();
    let outboxes: Vec<_> = (0..OUTBOXES)
        .map(|n| {
            let (tx, rx) = bounded(1 + n / 2);
            // A competitor takes room away now and then.
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
    /// Sends until the channel is full. Returns true when all was sent.
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

/// A server of sockets with two workers that are slower than its clients.
struct Server {
    reactor: Reactor,
    clients: Vec<Client>,
    workers: Vec<Outbox<Job>>,
    /// Jobs that their workers had no room for, and whose clients are not read from.
    held: Vec<VecDeque<Job>>,
    most_held: usize,
    gate: Option<Sender<()>>,
    told: usize,
    asked: usize,
}

struct Client {
    stream: Fd<UnixStream>,
    answered: usize,
    /// The client is not read from, though its end is told.
    held: bool,
}

/// The client, and what it has sent.
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
                            // A client that does not read holds up this loop; ours read.
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
                    self.asked += 1;
                    self.gate = None;
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.most_held = self.most_held.max(self.held.iter().map(VecDeque::len).sum());
    }

    /// There is room for the jobs of this worker.
    fn send_held(&mut self, worker: usize) {
        self.told += 1;
        while let Some(job) = self.held[worker].pop_front() {
            if let Err(full) = self.workers[worker].try_send(job) {
                self.held[worker].push_front(full.into_inner());
                self.asked += 1;
                return;
            }
            let client = &mut self.clients[job.0 as usize];
            client.stream.set_interest(Interest::READABLE).unwrap();
            client.held = false;
        }
    }
}

#[test]
fn a_server_pushes_back_from_its_sockets_to_its_workers() {
    const CLIENTS: u32 = 12;
    let _dog = dog();
    let reactor = support::reactor();
    let (answer, answers) = reactor.channel_with((ANSWERS, 0), 1_000).unwrap();
    // The workers begin when one of them was full.
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
        Server { reactor, clients, workers, held, most_held: 0, gate, told: 0, asked: 0 };
    server.run(&answers);
    assert!(server.most_held <= CLIENTS as usize, "a client waits with one job");
    assert!(server.told <= server.asked, "{} reports, {} asked", server.told, server.asked);
    assert!(server.told > 0);
    theirs.into_iter().for_each(|their| their.join().unwrap());
}

//! Sources of other pollers: mio and polling, in the same `select!` and `wait` as ours.

use std::cell::RefCell;
use std::io::{Read, Write};
#[cfg(feature = "mio")]
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

#[cfg(feature = "mio")]
use mio::unix::SourceFd;
use pollmux::{Events, Reactor, Source, driver::foreign::Events as ForeignEvents, select};

use crate::{assert_quiet, key_list, ms};
use support::{Random, allow_fds, thread, watchdog};

/// Foreign sources on a driver, by the operations that mio and polling share.
trait ForeignSources {
    type Event: 'static;
    /// Adds a foreign source under `key`, and returns the peer.
    fn add(&self, key: usize) -> UnixStream;
    /// Reads the bytes of the source, and waits for its next event.
    fn read_and_rearm(&self, key: usize);
    fn key(event: &Self::Event) -> usize;
}

fn find<S>(streams: &mut [(usize, S)], key: usize) -> &mut S {
    &mut streams.iter_mut().find(|(other, _)| *other == key).expect("a source of that key").1
}

fn read_all(stream: &mut impl Read) {
    let mut buffer = [0; 16];
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

#[cfg(feature = "mio")]
struct OnMio {
    registry: mio::Registry,
    streams: RefCell<Vec<(usize, UnixStream)>>,
}

#[cfg(feature = "mio")]
impl ForeignSources for OnMio {
    type Event = mio::event::Event;

    fn add(&self, key: usize) -> UnixStream {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (fd, token) = (ours.as_raw_fd(), mio::Token(key));
        self.registry.register(&mut SourceFd(&fd), token, mio::Interest::READABLE).unwrap();
        self.streams.borrow_mut().push((key, ours));
        theirs
    }

    fn read_and_rearm(&self, key: usize) {
        read_all(find(&mut self.streams.borrow_mut(), key));
    }

    fn key(event: &mio::event::Event) -> usize {
        assert!(event.is_readable());
        event.token().0
    }
}

#[cfg(feature = "polling")]
struct OnPolling {
    poller: std::sync::Arc<polling::Poller>,
    streams: RefCell<Vec<(usize, UnixStream)>>,
}

#[cfg(feature = "polling")]
impl ForeignSources for OnPolling {
    type Event = polling::Event;

    #[allow(unsafe_code)]
    fn add(&self, key: usize) -> UnixStream {
        let (theirs, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        // SAFETY: `drop` deletes the fd before the fd is closed.
        unsafe { self.poller.add(&ours, polling::Event::readable(key)) }.unwrap();
        self.streams.borrow_mut().push((key, ours));
        theirs
    }

    fn read_and_rearm(&self, key: usize) {
        let mut streams = self.streams.borrow_mut();
        let ours = find(&mut streams, key);
        read_all(ours);
        self.poller.modify(&*ours, polling::Event::readable(key)).unwrap();
    }

    fn key(event: &polling::Event) -> usize {
        assert!(event.readable);
        event.key
    }
}

#[cfg(feature = "polling")]
impl Drop for OnPolling {
    fn drop(&mut self) {
        self.streams.borrow().iter().for_each(|(_, ours)| self.poller.delete(ours).unwrap());
    }
}

macro_rules! all_tests_on {
    ($new:ident) => {
        tests_on! { $new:
            one_select_serves_foreign_and_own_sources
            wait_reports_foreign_events_by_key
            events_beyond_the_buffer_arrive_once_each
            untaken_events_stay_and_nothing_spins
            events_without_a_source_are_dropped
            a_busy_loop_sees_foreign_events
            foreign_events_outlive_their_reactor_inert
        }
    };
}

#[cfg(feature = "mio")]
mod foreign_on_mio {
    use super::*;

    pub fn new() -> (OnMio, Reactor, pollmux::driver::foreign::Events<mio::event::Event>) {
        let driver =
            pollmux::driver::MioDriver::new(mio::Poll::new().unwrap(), mio::Token(usize::MAX))
                .unwrap();
        let theirs = OnMio { registry: driver.registry().unwrap(), streams: RefCell::default() };
        let events = driver.events();
        (theirs, Reactor::with_driver(driver).unwrap(), events)
    }

    all_tests_on!(new);
}

#[cfg(feature = "polling")]
mod foreign_on_polling {
    use super::*;

    pub fn new() -> (OnPolling, Reactor, pollmux::driver::foreign::Events<polling::Event>) {
        let driver =
            pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), 9_999).unwrap();
        let theirs = OnPolling { poller: driver.poller().clone(), streams: RefCell::default() };
        let events = driver.events();
        (theirs, Reactor::with_driver(driver).unwrap(), events)
    }

    all_tests_on!(new);

    #[test]
    fn a_pollers_notification_is_ignored() {
        let _watchdog = watchdog();
        let (theirs, reactor, events) = new();
        let events = reactor.register(events).unwrap();
        theirs.poller.notify().unwrap();
        assert_quiet(&reactor, &events);
    }

    #[test]
    fn the_pollers_own_key_is_refused() {
        let error =
            pollmux::driver::PollingDriver::new(polling::Poller::new().unwrap(), usize::MAX)
                .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

/// A constructor of foreign sources, the reactor, and its events for them.
type NewForeign<T> = fn() -> (T, Reactor, ForeignEvents<<T as ForeignSources>::Event>);

fn one_select_serves_foreign_and_own_sources<T: ForeignSources>(new: NewForeign<T>) {
    let (theirs, reactor, events) = new();
    let events = reactor.register(events).unwrap();
    let mut streams: Vec<_> = (0..3).map(|key| theirs.add(key)).collect();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let ticker = reactor.every(ms(1)).unwrap();
    let other = thread::spawn(move || {
        let mut random = Random::new(1);
        for n in 0..600 {
            streams[n % 3].write_all(b"x").unwrap();
            tx.send(n).unwrap();
            random.pause();
        }
        (tx, streams)
    });
    let (mut seen, mut messages, mut ticks) = ([0; 3], 0, 0);
    while messages < 600 || seen.contains(&0) || ticks < 3 {
        select! { reactor;
            recv(events) -> event => {
                let key = T::key(&event);
                seen[key] += 1;
                theirs.read_and_rearm(key);
            },
            recv(inbox) -> got => { assert_eq!(got, Ok(messages)); messages += 1; },
            recv(ticker) -> _ => ticks += 1,
        }
    }
    drop(other.join().unwrap());
}

fn wait_reports_foreign_events_by_key<T: ForeignSources>(new: NewForeign<T>) {
    let (theirs, reactor, events) = new();
    let events = reactor.register_with(77, events).unwrap();
    let mut stream = theirs.add(3);
    let timer = reactor.after(ms(1)).with_key(78);
    let mut found = Events::with_capacity(4);
    reactor.wait(&mut found).unwrap();
    assert_eq!(key_list(&found), [78]);
    assert!(timer.try_take().is_some());
    stream.write_all(b"x").unwrap();
    for _ in 0..2 {
        reactor.wait(&mut found).unwrap();
        assert_eq!(key_list(&found), [77]);
    }
    assert_eq!(events.try_iter().map(|event| T::key(&event)).collect::<Vec<_>>(), [3]);
    reactor.wait_timeout(&mut found, ms(1)).unwrap();
    assert!(found.is_empty());
    let info = reactor.sources();
    let info = info.iter().find(|info| info.key == 77).unwrap();
    assert_eq!((info.kind, info.fired), (Some(pollmux::reactor::SourceKind::ForeignInbox), 1));
}

fn events_beyond_the_buffer_arrive_once_each<T: ForeignSources>(new: NewForeign<T>) {
    allow_fds(30_000);
    const COUNT: usize = 700;
    let (theirs, reactor, events) = new();
    let events = reactor.register(events).unwrap();
    let mut streams: Vec<_> = (0..COUNT).map(|key| theirs.add(key)).collect();
    for _ in 0..2 {
        streams.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
        let mut seen = vec![0; COUNT];
        for _ in 0..COUNT {
            let key = select! { reactor; recv(events) -> event => T::key(&event) };
            seen[key] += 1;
            theirs.read_and_rearm(key);
            assert!(events.len() <= 256);
        }
        assert!(seen.iter().all(|&n| n == 1));
        assert_quiet(&reactor, &events);
    }
}

fn untaken_events_stay_and_nothing_spins<T: ForeignSources>(new: NewForeign<T>) {
    allow_fds(30_000);
    const COUNT: usize = 600;
    let (theirs, reactor, events) = new();
    let mut streams: Vec<_> = (0..COUNT).map(|key| theirs.add(key)).collect();
    let (tx, inbox) = reactor.channel(1).unwrap();
    let timer = reactor.timer();
    // Write before the registration, and then without a case for the events.
    streams[..300].iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
    // A loop that is late for the deadline polls no fds. After a sleep it has found the events.
    while reactor.stats().waits == 0 {
        timer.reset(ms(1));
        select! { reactor; recv(timer) -> _ => {} }
    }
    assert_quiet(&reactor, &inbox);
    let events = reactor.register(events).unwrap();
    assert!(events.is_ready() && (1..=256).contains(&events.len()));
    streams[300..].iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
    assert_quiet(&reactor, &inbox);
    assert!(events.len() <= 256);
    // Meanwhile the loop waits for its own sources.
    let sender = thread::spawn(move || {
        thread::sleep(ms(1));
        tx.send(1).unwrap();
        tx
    });
    select! { reactor; recv(inbox) -> got => assert_eq!(got, Ok(1)) }
    let mut seen = vec![0; COUNT];
    for _ in 0..COUNT {
        select! { reactor; recv(events) -> event => seen[T::key(&event)] += 1 }
    }
    assert!(seen.iter().all(|&n| n == 1));
    assert_quiet(&reactor, &events);
    drop(sender.join().unwrap());
}

fn events_without_a_source_are_dropped<T: ForeignSources>(new: NewForeign<T>) {
    let (theirs, reactor, events) = new();
    let mut streams: Vec<_> = (0..10).map(|key| theirs.add(key)).collect();
    let timer = reactor.after(ms(1));
    drop(events);
    for _ in 0..3 {
        streams.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
        timer.reset(ms(1));
        select! { reactor; recv(timer) -> _ => {} }
        assert_quiet(&reactor, &timer);
    }
}

fn a_busy_loop_sees_foreign_events<T: ForeignSources>(new: NewForeign<T>) {
    let (theirs, reactor, events) = new();
    let events = reactor.register(events).unwrap();
    let mut stream = theirs.add(4);
    let (tx, inbox) = reactor.channel(1).unwrap();
    stream.write_all(b"x").unwrap();
    let mut seen = false;
    while !seen {
        let _ = tx.try_send(());
        select! { reactor;
            recv(inbox) -> _ => {},
            recv(events) -> event => seen = T::key(&event) == 4,
        }
    }
}

fn foreign_events_outlive_their_reactor_inert<T: ForeignSources>(new: NewForeign<T>) {
    let (theirs, reactor, events) = new();
    let inbox = reactor.register(events).unwrap();
    let mut stream = theirs.add(1);
    stream.write_all(b"x").unwrap();
    let timer = reactor.after(ms(1));
    select! { reactor; recv(timer) -> _ => {} }
    drop(reactor);
    assert!(!inbox.is_ready() && inbox.try_take().is_none());
}

//! Receives from three kinds of channels and a ticker in one `select!`. The channels are from the
//! standard library, from crossbeam and from this crate.
//!
//! A channel of another crate needs a `Notifier`. The sender is attached to the `Notifier`, which
//! notifies the loop after each send. The receiver becomes a source that calls `try_recv` after a
//! notification. No message is lost. Several notifications before a turn wake the loop at most
//! once.
//!
//! `cargo run --release -p pollmux-examples --example bring_your_own`

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use pollmux::{Reactor, select};

const MESSAGES: u32 = 3;

fn main() -> std::io::Result<()> {
    let reactor = Reactor::new()?;
    let (ours, inbox) = reactor.channel::<u32>(16)?;

    let (std_tx, std_rx) = mpsc::channel::<u32>();
    let (notifier, notified) = reactor.notifier();
    let std_tx = notifier.attach(std_tx);
    let std_source = notified.receiving(|| match std_rx.try_recv() {
        Err(mpsc::TryRecvError::Empty) => None,
        message => Some(message.ok()),
    });

    let (crossbeam_tx, crossbeam_rx) = crossbeam_channel::bounded::<u32>(16);
    let (notifier, notified) = reactor.notifier();
    let crossbeam_tx = notifier.attach(crossbeam_tx);
    let crossbeam_source = notified.receiving(|| match crossbeam_rx.try_recv() {
        Err(crossbeam_channel::TryRecvError::Empty) => None,
        message => Some(message.ok()),
    });

    let every = Duration::from_millis(20);
    let senders = [
        thread::spawn(move || {
            for n in 0..MESSAGES {
                thread::sleep(every);
                ours.send(n).expect("the loop receives");
            }
        }),
        thread::spawn(move || {
            for n in 0..MESSAGES {
                thread::sleep(every);
                std_tx.with(|tx| tx.send(n)).expect("the loop receives");
            }
        }),
        thread::spawn(move || {
            for n in 0..MESSAGES {
                thread::sleep(every);
                crossbeam_tx.with(|tx| tx.send(n)).expect("the loop receives");
            }
        }),
    ];

    let ticker = reactor.every(Duration::from_millis(25))?;
    let (mut inbox, mut std_source, mut crossbeam_source) =
        (Some(inbox), Some(std_source), Some(crossbeam_source));
    // A finished channel's case becomes `None`, which is never ready.
    while inbox.is_some() || std_source.is_some() || crossbeam_source.is_some() {
        select! { reactor;
            recv(inbox) -> message => match message {
                Ok(n) => println!("pollmux    {n}"),
                Err(_) => inbox = None,
            },
            recv(std_source) -> message => match message {
                Some(n) => println!("std        {n}"),
                None => std_source = None,
            },
            recv(crossbeam_source) -> message => match message {
                Some(n) => println!("crossbeam  {n}"),
                None => crossbeam_source = None,
            },
            recv(ticker) -> _tick => println!("tick"),
        }
    }
    for sender in senders {
        sender.join().expect("no sender panics");
    }
    println!("{}", reactor.stats());
    Ok(())
}

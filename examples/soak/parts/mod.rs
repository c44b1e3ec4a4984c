//! The parts of the soak. Each part has sources in the same reactor, and most parts have threads.

mod callbacks;
mod channels;
mod children;
mod contexts;
mod peer;
mod requests;
mod signals;
mod sockets;
mod tickers;
mod timers;
mod visitors;

use std::io;
use std::rc::Rc;

use pollmux::Handle;

use crate::meter::Lateness;
use crate::run::Run;

/// A part: the sources of one kind, and their work.
///
/// The keys of the sources are made by [`Keys`]. All methods run on the loop's thread.
pub trait Part {
    fn name(&self) -> &'static str;

    /// Returns the counts of the part so far, for the progress line.
    fn count(&self) -> u64;

    /// Drains the source with this index after a wait has reported it.
    fn handle(&mut self, reactor: &Handle, index: usize) -> io::Result<()>;

    /// Called every few milliseconds. Starts new work unless the run is over.
    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        let _ = reactor;
        Ok(())
    }

    /// Called once a second and at the end. Checks that no source is overdue.
    fn check(&mut self, reactor: &Handle) -> io::Result<()> {
        let _ = reactor;
        Ok(())
    }

    /// Returns a text about unfinished work, or `None` if all work is complete.
    fn missing(&self) -> Option<String>;
}

/// Makes the keys of one part from its number and the index of a source.
#[derive(Clone, Copy)]
pub struct Keys(pub usize);

impl Keys {
    pub fn key(self, index: usize) -> u64 {
        (self.0 as u64) << 32 | index as u64
    }

    /// Returns the number of the part, and the index of the source.
    pub fn split(key: u64) -> (usize, usize) {
        ((key >> 32) as usize, key as u32 as usize)
    }
}

/// Returns all parts. The index of a part in the list is the number in its keys.
pub fn all(reactor: &Handle, run: &Run, late: &Rc<Lateness>) -> io::Result<Vec<Box<dyn Part>>> {
    Ok(vec![
        Box::new(channels::Channels::new(reactor, run, Keys(0))?),
        Box::new(timers::Timers::new(reactor, run, Keys(1), late)),
        Box::new(tickers::Tickers::new(reactor, run, Keys(2), late)?),
        Box::new(callbacks::Callbacks::new(run, late)),
        Box::new(requests::Requests::new(reactor, run, Keys(4))),
        Box::new(contexts::Contexts::new(reactor, run, Keys(5))),
        Box::new(sockets::Sockets::new(reactor, run, Keys(6))?),
        Box::new(signals::SignalBursts::new(reactor, run, Keys(7))?),
        Box::new(children::Children::new(run, Keys(8))),
        Box::new(visitors::Visitors::new(run, Keys(9))),
        Box::new(peer::Peer::new(reactor, run, Keys(10))?),
    ])
}

//! The parts of the soak: each has sources in the one reactor, and mostly threads that feed them.

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

/// A part: what the loop does with the sources of one kind.
///
/// Its sources have keys of [`Keys`]. Everything here runs on the loop's thread.
pub trait Part {
    fn name(&self) -> &'static str;

    /// Returns the counts of the part so far, for the progress line.
    fn count(&self) -> u64;

    /// Drains the source with this index, which a wait has reported.
    fn serve(&mut self, reactor: &Handle, index: usize) -> io::Result<()>;

    /// Called every few milliseconds: begins something, unless the run is over.
    fn stir(&mut self, reactor: &Handle) -> io::Result<()> {
        let _ = reactor;
        Ok(())
    }

    /// Called once a second and at the end: nothing may be overdue.
    fn look(&mut self, reactor: &Handle) -> io::Result<()> {
        let _ = reactor;
        Ok(())
    }

    /// Says what the part still waits for. `None` when it has begun nothing that is not complete.
    fn missing(&self) -> Option<String>;
}

/// The keys of one part: its number and the index of a source.
#[derive(Clone, Copy)]
pub struct Keys(pub usize);

impl Keys {
    pub fn key(self, index: usize) -> u64 {
        (self.0 as u64) << 32 | index as u64
    }

    /// The number of the part, and the index.
    pub fn split(key: u64) -> (usize, usize) {
        ((key >> 32) as usize, key as u32 as usize)
    }
}

/// All parts; the place of each in the list is the number in its keys.
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

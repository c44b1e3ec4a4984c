//! A driver that ends the sleep of its own reactor with a message.

use std::cell::OnceCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use pollmux::channel::Sender;
use pollmux::driver::{Clock, Driver, Native, ReadyFds, Syscalls, Wait, Wake, WakeWindow};

/// A driver that sends a message when its reactor begins to sleep, after all checks. So a turn has
/// both syscalls of a wake-up, but needs no other thread.
pub struct Poke {
    pub native: Native,
    /// Empty until the channel is made.
    pub sender: Rc<OnceCell<Sender<u64>>>,
}

impl Driver for Poke {
    fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        if let (Wait::Block, Some(sender)) = (how, self.sender.get()) {
            sender.try_send(1).map_err(io::Error::other)?;
        }
        self.native.wait(deadline, how, ready)
    }
    fn waker(&self) -> Arc<dyn Wake> {
        self.native.waker()
    }
    fn clock(&self) -> Clock {
        self.native.clock()
    }
    fn syscalls(&self) -> Syscalls {
        self.native.syscalls()
    }
}

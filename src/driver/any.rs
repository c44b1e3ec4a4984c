//! A driver as a reactor keeps it.

use std::any::Any;
use std::io;
use std::ops::{Deref, DerefMut};

use super::{Driver, Native, ReadyFds, Wait, WakeWindow};

/// Any driver. A reactor calls the wait of the system's own without a table of functions. So that
/// wait stands in place where the loop sleeps (`sys/epoll/syscall.rs` says why).
pub(crate) enum AnyDriver {
    Native(Box<Native>),
    Other(Box<dyn Driver>),
}

impl AnyDriver {
    pub(crate) fn of(driver: impl Driver + 'static) -> AnyDriver {
        let mut driver = Some(driver);
        match (&mut driver as &mut dyn Any).downcast_mut::<Option<Native>>() {
            Some(native) => AnyDriver::Native(Box::new(native.take().expect("it is there"))),
            None => AnyDriver::Other(Box::new(driver.expect("it is there"))),
        }
    }

    /// Waits as [`Driver::wait`] does.
    #[inline(always)] // see Notify::wake
    pub(crate) fn wait(
        &mut self,
        deadline: Option<WakeWindow>,
        how: Wait,
        ready: &mut ReadyFds,
    ) -> io::Result<()> {
        match self {
            AnyDriver::Native(native) => native.wait(deadline, how, ready),
            AnyDriver::Other(driver) => driver.wait(deadline, how, ready),
        }
    }
}

impl Deref for AnyDriver {
    type Target = dyn Driver;
    fn deref(&self) -> &Self::Target {
        match self {
            AnyDriver::Native(native) => &**native,
            AnyDriver::Other(driver) => &**driver,
        }
    }
}

impl DerefMut for AnyDriver {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            AnyDriver::Native(native) => &mut **native,
            AnyDriver::Other(driver) => &mut **driver,
        }
    }
}

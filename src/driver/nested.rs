//! The common part of the drivers on other crates' pollers: a [`Native`](super::Native) inside,
//! which the other poller waits for.

/// Implements [`Driver`](super::Driver) for a type with the fields `native`, `queue` and
/// `syscalls`, and a method `poll(timeout, ready)` that waits with the other poller. `$fd` borrows
/// that poller's fd.
macro_rules! nested_driver {
    ($driver:ty, $fd:expr) => {
        impl Driver for $driver {
            fn wait(
                &mut self,
                deadline: Option<WakeWindow>,
                how: Wait,
                ready: &mut ReadyFds,
            ) -> io::Result<()> {
                if !self.queue.is_empty() {
                    return self.native.wait(deadline, how, ready);
                }
                match how {
                    Wait::Block => {
                        self.native.may_sleep()?;
                        if let Some(deadline) = deadline {
                            self.native.arm(deadline)?;
                        }
                        self.syscalls.waits += 1;
                        self.poll(None, ready)
                    }
                    Wait::Poll => {
                        self.syscalls.polls += 1;
                        self.poll(Some(Duration::ZERO), ready)
                    }
                }
            }

            fn arm(&mut self, deadline: WakeWindow) -> io::Result<()> {
                self.native.arm(deadline)
            }

            fn register(
                &mut self,
                fd: BorrowedFd<'_>,
                id: u64,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<()> {
                self.native.register(fd, id, interest, mode)
            }

            fn modify(
                &mut self,
                fd: BorrowedFd<'_>,
                id: u64,
                interest: Interest,
                mode: Mode,
            ) -> io::Result<()> {
                self.native.modify(fd, id, interest, mode)
            }

            fn deregister(&mut self, fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
                self.native.deregister(fd, id)
            }

            fn waker(&self) -> Arc<dyn Wake> {
                self.native.waker()
            }

            fn clock(&self) -> Clock {
                self.native.clock()
            }

            fn as_fd(&self) -> Option<BorrowedFd<'_>> {
                let fd: fn(&Self) -> BorrowedFd<'_> = $fd;
                Some(fd(self))
            }

            fn has_events(&self, events: EventsId) -> bool {
                self.queue.id() == events
            }

            fn syscalls(&self) -> Syscalls {
                self.syscalls + self.native.syscalls()
            }
        }
    };
}
pub(super) use nested_driver;

//! Reading and writing through an [`Fd`], which notes `WouldBlock`.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use super::Fd;
use crate::sys::Interest;

macro_rules! read_and_write {
    ($fd:ty, |$it:ident| $io:expr, [$($read:tt)*], [$($write:tt)*]) => {
        impl<T: AsFd> Read for $fd where $($read)* {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let $it = &mut *self;
                let read = $io.read(buffer);
                self.noted(Interest::READABLE, read)
            }
            fn read_vectored(&mut self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
                let $it = &mut *self;
                let read = $io.read_vectored(buffers);
                self.noted(Interest::READABLE, read)
            }
        }

        impl<T: AsFd> Write for $fd where $($write)* {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                let $it = &mut *self;
                let written = $io.write(buffer);
                self.noted(Interest::WRITABLE, written)
            }
            fn write_vectored(&mut self, buffers: &[io::IoSlice<'_>]) -> io::Result<usize> {
                let $it = &mut *self;
                let written = $io.write_vectored(buffers);
                self.noted(Interest::WRITABLE, written)
            }
            fn flush(&mut self) -> io::Result<()> {
                let $it = &mut *self;
                let flushed = $io.flush();
                self.noted(Interest::WRITABLE, flushed)
            }
        }
    };
}

// Each file of the standard library that implements `Read` for a reference also implements `Read`.
read_and_write!(Fd<T>, |it| it.get_mut(), [T: Read], [T: Write]);
read_and_write!(&Fd<T>, |it| it.io(), [for<'a> &'a T: Read], [for<'a> &'a T: Write]);

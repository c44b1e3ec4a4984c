/// The switch of the mutants. The switch allocates nothing, and makes a syscall only to record.
pub(crate) mod mutant_switch {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
    static ACTIVE: AtomicU32 = AtomicU32::new(u32::MAX);
    static REACHED: [AtomicBool; 8192] = [const { AtomicBool::new(false) }; 8192];

    fn init() -> u32 {
        // SAFETY: the names end in NUL, and no thread changes the environment.
        let number = unsafe {
            let value = libc::getenv(c"MUTANT".as_ptr());
            if value.is_null() { 0 } else { libc::atoi(value) as u32 }
        };
        ACTIVE.store(number, Relaxed);
        number
    }

    /// Returns true if `number` is the mutant of this run. `MUTANT=-2` records the reached mutants.
    #[inline]
    pub(crate) fn on(number: u32) -> bool {
        let mut active = ACTIVE.load(Relaxed);
        if active == u32::MAX {
            active = init();
        }
        if active == u32::MAX - 1 {
            record(number);
        }
        active == number
    }

    #[cold]
    fn record(number: u32) {
        if REACHED[number as usize].swap(true, Relaxed) {
            return;
        }
        // SAFETY: the path is a C string of the environment, and the bytes are those of a number.
        unsafe {
            let error = *libc::__errno_location();
            let path = libc::getenv(c"MUTANT_REACHED".as_ptr());
            let fd = libc::open(path, libc::O_WRONLY | libc::O_APPEND | libc::O_CLOEXEC);
            libc::write(fd, (&raw const number).cast(), 4);
            libc::close(fd);
            *libc::__errno_location() = error;
        }
    }
}

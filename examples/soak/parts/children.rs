//! Starts child processes. Each end is reported once, with the child's own status.

use std::io::{self, ErrorKind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pollmux::{ChildProcess, Handle, Source};

use super::{Keys, Part};
use crate::run::{Random, Run};

/// The most children at one time.
const MAX_CHILDREN: usize = 4;
/// The least time between two starts.
const PAUSE: Duration = Duration::from_millis(40);

struct Slot {
    child: ChildProcess,
    code: i32,
}

pub struct Children {
    run: Run,
    random: Random,
    keys: Keys,
    slots: [Option<Slot>; MAX_CHILDREN],
    last: Instant,
    ended: u64,
    /// Some systems cannot wait for processes.
    is_supported: bool,
}

impl Children {
    pub fn new(run: &Run, keys: Keys) -> Children {
        Children {
            run: run.clone(),
            random: run.random(keys.0 as u64),
            keys,
            slots: [const { None }; MAX_CHILDREN],
            last: Instant::now(),
            ended: 0,
            is_supported: true,
        }
    }

    fn begin(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        let code = self.random.below(100) as i32;
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exit {code}")]).stdin(Stdio::null());
        match reactor.register_with(self.keys.key(index), command.spawn()?) {
            Ok(child) => self.slots[index] = Some(Slot { child, code }),
            Err(refused) if refused.error().kind() == ErrorKind::Unsupported => {
                self.is_supported = false;
                refused.into_inner().wait()?;
            }
            Err(refused) => return Err(refused.into()),
        }
        Ok(())
    }
}

impl Part for Children {
    fn name(&self) -> &'static str {
        "children"
    }

    fn count(&self) -> u64 {
        self.ended
    }

    fn handle(&mut self, _: &Handle, index: usize) -> io::Result<()> {
        let Some(slot) = &self.slots[index] else { return Ok(()) };
        if let Some(status) = slot.child.try_take() {
            let (code, expected) = (status?.code(), slot.code);
            self.run.check(code == Some(expected), || {
                format!("a child ended with {code:?} instead of {expected}")
            });
            self.run.check(slot.child.try_take().is_none(), || "a child ended twice".into());
            self.slots[index] = None;
            self.ended += 1;
        }
        Ok(())
    }

    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        let is_time = !self.run.is_over() && self.last.elapsed() >= PAUSE;
        let free = self.slots.iter().position(Option::is_none);
        if let (true, true, Some(index)) = (is_time, self.is_supported, free) {
            self.last = Instant::now();
            self.begin(reactor, index)?;
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        let left = self.slots.iter().flatten().count();
        (left > 0).then(|| format!("the ends of {left} children"))
    }
}

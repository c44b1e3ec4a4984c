//! The code places of stopped threads, for people to read. No verdict depends on them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use nix::unistd::Pid;

/// The part of the stack that is read, in bytes.
const DEPTH: usize = 6 << 10;
/// The most functions in a line.
const NAMES: usize = 4;

/// Addresses in the test binary: the instruction, and possible return addresses.
///
/// The binary has no frame pointers, so each word of the stack that points into its code counts. A
/// word may be left over from an earlier call.
pub struct Stack {
    addresses: Vec<u64>,
    /// True if the instruction is in a library or in the kernel.
    outside: bool,
}

/// Returns the start of the binary in the process's memory, and the range of its code.
fn code(process: u32) -> Option<(u64, u64, u64)> {
    let binary = fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let binary = binary.to_str()?;
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let mut base = None;
    for line in maps.lines().filter(|line| line.ends_with(binary)) {
        let (from, rest) = line.split_once('-')?;
        let from = u64::from_str_radix(from, 16).ok()?;
        let base = *base.get_or_insert(from);
        let (to, rest) = rest.split_once(' ')?;
        if rest.starts_with("r-x") {
            return Some((base, from, u64::from_str_radix(to, 16).ok()?));
        }
    }
    None
}

/// Returns the instruction pointer and the stack pointer.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub fn pointers(thread: Pid) -> Option<(u64, u64)> {
    nix::sys::ptrace::getregs(thread).ok().map(|registers| (registers.rip, registers.rsp))
}

#[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
pub fn pointers(_: Pid) -> Option<(u64, u64)> {
    None
}

impl Stack {
    pub fn none() -> Stack {
        Stack { addresses: Vec::new(), outside: true }
    }

    /// Reads the stack of a stopped thread.
    pub fn of(process: u32, thread: Pid) -> Stack {
        Stack::read(process, thread).unwrap_or_else(Stack::none)
    }

    fn read(process: u32, thread: Pid) -> Option<Stack> {
        let (instruction, stack) = pointers(thread)?;
        let (base, from, to) = code(process)?;
        let mut bytes = vec![0; DEPTH];
        let len =
            File::open(format!("/proc/{process}/mem")).ok()?.read_at(&mut bytes, stack).ok()?;
        let words = words(&bytes[..len]);
        // A return address comes after its call.
        let addresses = std::iter::once(instruction).chain(words.map(|word| word.wrapping_sub(1)));
        let inside = addresses.filter(|address| (from..to).contains(address));
        let outside = !(from..to).contains(&instruction);
        Some(Stack { addresses: inside.map(|address| address - base).collect(), outside })
    }
}

/// Returns the words of a piece of the stack.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
}

/// Returns the name without type arguments.
fn short(name: &str) -> String {
    let mut depth = 0;
    let mut short = String::new();
    for (at, c) in name.char_indices() {
        match c {
            '<' if at > 0 => depth += 1,
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => short.push(c),
            _ => {}
        }
    }
    short
}

/// Names for addresses, from `addr2line` if it is installed.
pub struct Names(HashMap<u64, Vec<String>>);

impl Names {
    pub fn of<'a>(stacks: impl IntoIterator<Item = &'a Stack>) -> Names {
        let addresses = stacks.into_iter().flat_map(|stack| &stack.addresses);
        let mut all: Vec<u64> = addresses.copied().collect();
        all.sort_unstable();
        all.dedup();
        let Ok(binary) = std::env::current_exe() else { return Names(HashMap::new()) };
        let mut names: HashMap<u64, Vec<String>> = HashMap::new();
        for some in all.chunks(2_000) {
            let mut command = Command::new("addr2line");
            command.args(["-a", "-f", "-C", "-i", "-e"]).arg(&binary);
            command.args(some.iter().map(|address| format!("{address:#x}")));
            let Ok(output) = command.output() else { break };
            let text = String::from_utf8_lossy(&output.stdout);
            let mut at = 0;
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                if let Some(address) = line.strip_prefix("0x") {
                    at = u64::from_str_radix(address, 16).unwrap_or(0);
                    continue;
                }
                let place = lines.next().unwrap_or("");
                // Keep files of the crate. The lines of library files do not help.
                let here = concat!(env!("CARGO_MANIFEST_DIR"), "/");
                let file = place.strip_prefix(here).unwrap_or("");
                let file = file.split(' ').next().unwrap_or(file);
                names.entry(at).or_default().push(format!("{} {file}", short(line)));
            }
        }
        Names(names)
    }

    fn lines<'a>(&'a self, stack: &'a Stack) -> impl Iterator<Item = &'a String> {
        stack.addresses.iter().filter_map(|address| self.0.get(address)).flatten()
    }

    /// Returns the functions, the innermost first.
    pub fn describe(&self, stack: &Stack) -> String {
        let mut names: Vec<&str> = Vec::new();
        if stack.outside {
            names.push("(outside)");
        }
        // Stop at the test's own code: the callers are the same each time.
        let of_test = |name: &&String| name.starts_with("stalls::program::sending");
        for name in self.lines(stack).take_while(|name| !of_test(name)) {
            let name = name.strip_prefix("pollmux::").unwrap_or(name);
            let ours = ["src/", "Mutex", "malloc"].iter().any(|part| name.contains(part));
            if ours && !names.contains(&name) && names.len() < NAMES {
                names.push(name);
            }
        }
        if names.is_empty() { "(no address)".into() } else { names.join(" < ") }
    }
}

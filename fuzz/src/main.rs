//! Runs random inputs on stable Rust:
//! `cargo run --release --manifest-path fuzz/Cargo.toml -- --runs 100000`.
//! At the first difference the runner prints the operations and ends with status 1.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pollmux_fuzz::ops::HEADER;
use pollmux_fuzz::{Coverage, Target};

/// The number of runs begun so far, for the watchdog.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// The input of the present run.
static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Options {
    target: Target,
    runs: u64,
    seconds: u64,
    seed: u64,
    /// The most operations in one input.
    most: usize,
    input: Option<String>,
    /// The file for a shrunk input.
    output: Option<String>,
    keep_going: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        target: Target::Ops,
        runs: u64::MAX,
        seconds: u64::MAX,
        seed: 1,
        most: 60,
        input: None,
        output: None,
        keep_going: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--keep-going" {
            options.keep_going = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match &*name {
            "--target" => {
                options.target = match &*value {
                    "ops" => Target::Ops,
                    "faults" => Target::Faults,
                    "worlds" => Target::Worlds,
                    _ => return Err(format!("no such target: {value}")),
                }
            }
            "--runs" => options.runs = number()?,
            "--seconds" => options.seconds = number()?,
            "--seed" => options.seed = number()?,
            "--operations" => options.most = number()?.max(1) as usize,
            "--input" => options.input = Some(value),
            "--output" => options.output = Some(value),
            _ => return Err(format!("no such option: {name}")),
        }
    }
    if options.runs == u64::MAX && options.seconds == u64::MAX {
        options.runs = 100_000;
    }
    Ok(options)
}

/// A SplitMix64 generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Returns the input of one run, which depends only on the seed and the number of the run.
fn generate(target: Target, seed: u64, n: u64, most: usize) -> Vec<u8> {
    let mut random = Random(seed ^ n.wrapping_mul(0xd134_2543_de82_ef95));
    let length = HEADER + (1 + random.next() as usize % most) * target.chunk();
    let mut bytes: Vec<u8> = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn fails(target: Target, bytes: &[u8]) -> Option<String> {
    target.run(bytes).0.err()
}

/// Removes operations and then clears bytes of an input that fails, as long as it still fails.
fn shrink(target: Target, mut bytes: Vec<u8>) -> Vec<u8> {
    let (chunk, fails) = (target.chunk(), |bytes: &[u8]| fails(target, bytes));
    let mut size = (bytes.len() - HEADER).div_ceil(chunk) / 2;
    while size > 0 {
        let mut at = 0;
        while HEADER + at * chunk < bytes.len() {
            let begin = HEADER + at * chunk;
            let end = (begin + size * chunk).min(bytes.len());
            let without = [&bytes[..begin], &bytes[end..]].concat();
            if fails(&without).is_some() {
                bytes = without;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    // Removes single operations, then clears bytes. A zero byte decodes to the simplest choice.
    for _ in 0..2 {
        let mut at = HEADER;
        while at < bytes.len() {
            let end = (at + chunk).min(bytes.len());
            let without = [&bytes[..at], &bytes[end..]].concat();
            if fails(&without).is_some() {
                bytes = without;
            } else {
                at += chunk;
            }
        }
        for i in 0..bytes.len() {
            let byte = std::mem::take(&mut bytes[i]);
            if byte != 0 && fails(&bytes).is_none() {
                bytes[i] = byte;
            }
        }
    }
    bytes
}

fn print_failure(target: Target, bytes: &[u8], text: &str) {
    println!("{}  {text}", target.describe(bytes));
}

fn print_coverage(coverage: &Coverage) {
    for (what, count) in coverage {
        println!("{count:>12}  {what}");
    }
}

/// Ends the process when no run has begun for a minute.
fn watch(target: Target, output: Option<String>) {
    std::thread::spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(Duration::from_secs(60));
            let begun = BEGUN.load(Ordering::Relaxed);
            if begun == last {
                let input = INPUT.lock().map(|input| input.clone()).unwrap_or_default();
                println!("run {begun} hangs");
                if let Some(path) = output {
                    let _ = std::fs::write(path, &input);
                }
                print_failure(target, &input, "no progress for a minute");
                std::process::exit(2);
            }
            last = begun;
        }
    });
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    // A panic of the library is a difference, whose message goes into the report.
    std::panic::set_hook(Box::new(|info| {
        if std::env::var_os("FUZZ_PANICS").is_some() {
            eprintln!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        }
    }));
    let target = options.target;
    if let Some(path) = &options.input {
        let Ok(bytes) = std::fs::read(path) else {
            eprintln!("{path} cannot be read");
            return ExitCode::from(2);
        };
        return match fails(target, &bytes) {
            Some(text) => {
                print_failure(target, &bytes, &text);
                ExitCode::FAILURE
            }
            None => {
                print_failure(target, &bytes, "no difference");
                ExitCode::SUCCESS
            }
        };
    }
    watch(target, options.output.clone());
    let begin = Instant::now();
    let (mut runs, mut operations) = (0, 0);
    let mut coverage = Coverage::new();
    let mut differences: BTreeMap<String, u64> = BTreeMap::new();
    while runs < options.runs && begin.elapsed().as_secs() < options.seconds {
        let bytes = generate(target, options.seed, runs, options.most);
        if let Ok(mut input) = INPUT.lock() {
            input.clone_from(&bytes);
        }
        BEGUN.fetch_add(1, Ordering::Relaxed);
        let (result, covered) = target.run(&bytes);
        runs += 1;
        operations += (bytes.len() - HEADER) / target.chunk();
        covered.into_iter().for_each(|(what, count)| *coverage.entry(what).or_default() += count);
        if let Err(text) = result {
            // With `--keep-going` only the first difference of each kind is printed.
            let kind = text.rsplit(" => ").next().unwrap_or_default();
            let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
            let times = differences.entry(kind).or_default();
            *times += 1;
            if *times > 1 {
                continue;
            }
            println!("run {runs} of seed {} differs, after {operations} operations", options.seed);
            println!("  {text}");
            let shrunk = shrink(target, bytes);
            BEGUN.fetch_add(1, Ordering::Relaxed);
            let text = fails(target, &shrunk).unwrap_or_default();
            println!("shrunk:");
            print_failure(target, &shrunk, &text);
            if let Some(path) = &options.output
                && let Err(error) = std::fs::write(path, &shrunk)
            {
                eprintln!("{path}: {error}");
            }
            if !options.keep_going {
                return ExitCode::FAILURE;
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    print_coverage(&coverage);
    for (kind, times) in &differences {
        println!("{times:>12}  differences: {kind}");
    }
    let all: u64 = differences.values().sum();
    println!(
        "seed {}: {runs} runs, {operations} operations, {:.0} a second, {all} differences",
        options.seed,
        operations as f64 / seconds
    );
    if all == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

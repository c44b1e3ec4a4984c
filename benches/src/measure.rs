//! The measurement of time: contestants that take turns, slice by slice, and their medians.

use std::time::{Duration, Instant};

use pollmux::Handle;

use crate::counting::allocations;

/// The length of one slice of a contestant.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    For(Duration),
    /// The number of operations, for tools that count instructions or syscalls.
    Times(u64),
}

/// The cost of one operation in one slice.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The cost in the unit of the row, mostly ns.
    pub value: f64,
    pub allocs: Option<f64>,
    pub syscalls: Option<f64>,
}

impl Sample {
    pub fn of(value: f64) -> Sample {
        Sample { value, allocs: None, syscalls: None }
    }

    /// Returns the share of one of `n` operations.
    pub fn share(self, n: usize) -> Sample {
        let each = |x: f64| x / n as f64;
        Sample {
            value: each(self.value),
            allocs: self.allocs.map(each),
            syscalls: self.syscalls.map(each),
        }
    }
}

/// Counts the operations of one slice: `while meter.goes_on() { operation }`.
#[derive(Debug)]
pub struct Meter {
    run: Run,
    /// The number of operations before the clock starts.
    warm: u64,
    done: u64,
    next_look: u64,
    /// The start of the clock, the operations before it, and the allocations until then.
    begin: Option<(Instant, u64, u64)>,
    spent: Duration,
    made: u64,
}

/// The number of operations between two readings of the clock.
const LOOK: u64 = 256;

impl Meter {
    pub fn new(run: Run) -> Meter {
        Meter::warmed(run, 2 * LOOK)
    }

    /// Makes a meter that lets `warm` operations pass before the clock starts.
    pub fn warmed(run: Run, warm: u64) -> Meter {
        let warm = if let Run::Times(_) = run { 0 } else { warm };
        Meter { run, warm, done: 0, next_look: 0, begin: None, spent: Duration::ZERO, made: 0 }
    }

    /// Returns true if another operation is to follow.
    #[inline(always)]
    pub fn goes_on(&mut self) -> bool {
        if self.done < self.next_look {
            self.done += 1;
            return true;
        }
        self.look()
    }

    #[cold]
    fn look(&mut self) -> bool {
        let now = Instant::now();
        let Some((begin, before, made)) = self.begin else {
            if self.done >= self.warm {
                self.begin = Some((now, self.done, allocations()));
            }
            return self.one_more();
        };
        (self.spent, self.made) = (now - begin, allocations() - made);
        match self.run {
            Run::For(slice) if self.spent < slice => self.one_more(),
            Run::Times(n) if self.done - before < n => self.one_more(),
            _ => false,
        }
    }

    fn one_more(&mut self) -> bool {
        self.next_look = match self.run {
            Run::For(_) => self.done + LOOK,
            Run::Times(n) => self.done + n.min(LOOK),
        };
        self.done += 1;
        true
    }

    pub fn sample(&self) -> Sample {
        let (_, before, _) = self.begin.expect("a meter that ran");
        let n = (self.done - before) as f64;
        Sample {
            value: self.spent.as_nanos() as f64 / n,
            allocs: Some(self.made as f64 / n),
            syscalls: None,
        }
    }
}

/// Times an operation.
pub fn time(run: Run, operation: impl FnMut()) -> Sample {
    timed(run, operation).0
}

/// Times an operation in batches that grow until one batch takes a sixteenth of the slice. The
/// second value is the number of operations.
fn timed(run: Run, mut operation: impl FnMut()) -> (Sample, u64) {
    let mut n = 0u64;
    let made = allocations();
    let begin = Instant::now();
    let spent = match run {
        Run::Times(times) => {
            n = times;
            (0..times).for_each(|_| operation());
            begin.elapsed()
        }
        Run::For(slice) => {
            let mut batch = 1;
            loop {
                (0..batch).for_each(|_| operation());
                n += batch;
                let spent = begin.elapsed();
                if spent >= slice {
                    break spent;
                }
                if n == batch * 2 - 1 && spent * 16 < slice {
                    batch *= 2; // this was the first batch of its size
                }
            }
        }
    };
    let made = allocations() - made;
    let sample = Sample {
        value: spent.as_nanos() as f64 / n as f64,
        allocs: Some(made as f64 / n as f64),
        syscalls: None,
    };
    (sample, n)
}

type Runner = Box<dyn FnMut(Run) -> Vec<Sample>>;

/// One way to do the work of a family. Its name is unique in the family. A contestant that gives
/// several samples at once has as many names.
pub struct Contestant {
    pub names: Vec<String>,
    runner: Result<Runner, String>,
}

impl Contestant {
    pub fn new(name: &str, mut run: impl FnMut(Run) -> Sample + 'static) -> Contestant {
        Contestant::several(&[name], move |how| vec![run(how)])
    }

    pub fn several(names: &[&str], run: impl FnMut(Run) -> Vec<Sample> + 'static) -> Contestant {
        let names = names.iter().map(|name| name.to_string()).collect();
        Contestant { names, runner: Ok(Box::new(run)) }
    }

    /// Makes a contestant of an operation that the slice repeats.
    pub fn ops(name: &str, mut operation: impl FnMut() + 'static) -> Contestant {
        Contestant::new(name, move |run| time(run, &mut operation))
    }

    /// Makes a contestant of an operation on a reactor, which counts its syscalls.
    pub fn on(name: &str, reactor: &Handle, mut operation: impl FnMut() + 'static) -> Contestant {
        let reactor = reactor.clone();
        Contestant::new(name, move |run| {
            let before = reactor.stats();
            let (mut sample, n) = timed(run, &mut operation);
            let made = (reactor.stats() - before).syscalls();
            sample.syscalls = Some(made as f64 / n as f64);
            sample
        })
    }

    /// Makes a contestant that cannot run here, with the reason.
    pub fn absent(names: &[&str], reason: impl Into<String>) -> Contestant {
        let names = names.iter().map(|name| name.to_string()).collect();
        Contestant { names, runner: Err(reason.into()) }
    }

    pub fn has(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| wanted(name))
    }

    pub fn run(&mut self, how: Run) -> Vec<Sample> {
        self.runner.as_mut().map_or_else(|_| Vec::new(), |run| run(how))
    }
}

/// The samples of one contestant.
#[derive(Clone, Debug)]
pub struct Measured {
    pub name: String,
    /// The samples: one for each round, or one for each timed event.
    pub samples: Vec<f64>,
    pub allocs: Option<f64>,
    pub syscalls: Option<f64>,
    pub absent: Option<String>,
}

impl Measured {
    pub fn new(name: &str, samples: Vec<f64>) -> Measured {
        let name = name.to_string();
        Measured { name, samples, allocs: None, syscalls: None, absent: None }
    }

    pub fn absent(name: &str, reason: &str) -> Measured {
        Measured { absent: Some(reason.to_string()), ..Measured::new(name, Vec::new()) }
    }

    /// Returns the quartiles, or `None` if there is no sample.
    pub fn quartiles(&self) -> Option<[f64; 3]> {
        quartiles(&self.samples)
    }

    pub fn median(&self) -> Option<f64> {
        self.quartiles().map(|[_, median, _]| median)
    }
}

/// Runs the contestants round by round. Each round begins with another contestant. The round before
/// the first one does not count.
pub fn in_turn(
    contestants: &mut [Contestant],
    slice: Duration,
    rounds: usize,
    mut progress: impl FnMut(),
) -> Vec<Measured> {
    let mut all: Vec<Vec<Vec<Sample>>> =
        contestants.iter().map(|c| vec![Vec::new(); c.names.len()]).collect();
    for round in 0..=rounds {
        for i in 0..contestants.len() {
            let i = (i + round) % contestants.len();
            let run = Run::For(if round == 0 { slice / 4 } else { slice });
            let samples = contestants[i].run(run);
            if round > 0 {
                samples.into_iter().zip(&mut all[i]).for_each(|(sample, all)| all.push(sample));
            }
            progress();
        }
    }
    let mut measured = Vec::new();
    for (contestant, all) in contestants.iter().zip(all) {
        for (name, samples) in contestant.names.iter().zip(all) {
            let counted = |of: fn(&Sample) -> Option<f64>| median(samples.iter().filter_map(of));
            measured.push(Measured {
                name: name.clone(),
                samples: samples.iter().map(|sample| sample.value).collect(),
                allocs: counted(|sample| sample.allocs),
                syscalls: counted(|sample| sample.syscalls),
                absent: contestant.runner.as_ref().err().cloned(),
            });
        }
    }
    measured
}

pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().collect();
    quartiles(&values).map(|[_, median, _]| median)
}

/// Returns the three quartiles, with linear interpolation between the samples.
pub fn quartiles(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some([0.25, 0.5, 0.75].map(|q| {
        let at = q * last as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
    }))
}

/// Returns the numbers from 0 to n - 1 in a shuffled order, which is the same in each run.
pub fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut x = 0x2545_f491_4f6c_dd1du64;
    for i in (1..n).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        order.swap(i, (x % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate_between_samples() {
        assert_eq!(quartiles(&[]), None);
        assert_eq!(quartiles(&[7.0]), Some([7.0; 3]));
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), Some([1.75, 2.5, 3.25]));
        assert_eq!(quartiles(&[5.0, 1.0, 2.0, 3.0, 4.0]), Some([2.0, 3.0, 4.0]));
    }

    #[test]
    fn a_run_of_times_counts_its_operations() {
        for times in [1, 255, 256, 257, 5_000] {
            let mut n = 0;
            time(Run::Times(times), || n += 1);
            assert_eq!(n, times);
            let (mut meter, mut n) = (Meter::new(Run::Times(times)), 0);
            while meter.goes_on() {
                n += 1;
            }
            assert!((times..times + LOOK).contains(&n), "{n} of {times}");
            assert!(meter.sample().value.is_finite());
        }
    }

    #[test]
    fn contestants_take_turns_and_keep_their_samples() {
        let mut contestants = [
            Contestant::new("a", |_| Sample::of(1.0)),
            Contestant::several(&["b", "c"], |_| vec![Sample::of(2.0), Sample::of(3.0)]),
            Contestant::absent(&["d"], "it is not here"),
        ];
        let measured = in_turn(&mut contestants, Duration::ZERO, 3, || {});
        let found: Vec<_> = measured.iter().map(|m| (&*m.name, m.median())).collect();
        assert_eq!(found, [("a", Some(1.0)), ("b", Some(2.0)), ("c", Some(3.0)), ("d", None)]);
        assert_eq!(measured[1].samples.len(), 3);
        assert_eq!(measured[3].absent.as_deref(), Some("it is not here"));
    }
}

//! A search through many seeds, one after the other or in parallel, until one fails.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::history::History;
use super::world::SimWorld;
use crate::sync::Mutex;

/// The number of lines of a history that a failure prints. The value has all lines.
const LINES: usize = 200;

/// A search for a seed that fails. [`SimWorld::search`] is a search with default settings.
///
/// ```
/// use pollmux::sim::{Search, SimWorld};
///
/// let tried = Search::new(0..8).threads(2).progress(|n| println!("{n} seeds")).run(|world| {
///     let member = world.spawn("member", |reactor| reactor.now());
///     world.run().unwrap(); // a panic is a failure, too
///     assert_eq!(member.take(), Some(world.now()));
/// });
/// assert_eq!(tried.unwrap(), 8);
/// ```
pub struct Search<'a> {
    seeds: Range<u64>,
    threads: usize,
    progress: Option<Box<dyn Fn(u64) + Sync + 'a>>,
}

/// The result of a run: `()`, which fails by a panic only, or a `Result`, whose error is a failure,
/// too. For the closure of [`Search::run`]. [`SimWorld::search`] and [`Search`] have examples.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say if a run has failed",
    label = "neither `()` nor a `Result<(), E>`",
    note = "end the closure with `;`, or with a `Result<(), E>` whose error can be displayed"
)]
pub trait Verdict {
    /// Returns the text of the failure, and `None` for a success.
    fn failure(self) -> Option<String>;
}

impl Verdict for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Verdict for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// The first seed that failed, with its failure and its history. `Display` and `Debug` print a
/// report. [`SimWorld::search`] has an example.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailingSeed {
    /// The seed: `SimWorld::new(seed)` fails in the same way.
    pub seed: u64,
    /// The panic or the error.
    pub text: String,
    /// The history of the run.
    pub history: History,
    /// The number of choices that the seed made.
    pub choices: u64,
    /// A smaller number of choices with which the run still fails, and the history of that run. The
    /// text of the failure is the same but for its numbers. [`SimWorld::with_choices`] repeats the
    /// run.
    pub shorter: Option<(u64, History)>,
    /// The seed did not fail again: the code depends on something that the seed does not decide.
    pub unsteady: bool,
}

impl SimWorld {
    /// Runs `body` in a world for each seed, on all cores, until a seed fails. Returns how many
    /// seeds were tried.
    ///
    /// # Errors
    /// The least seed that fails: by a panic, or by an error that `body` returns. The search runs
    /// that seed again, to record its history and to find a shorter one.
    ///
    /// ```
    /// use pollmux::{SimWorld, channel, sim::FailingSeed};
    ///
    /// // Two senders race: in some seeds "b" is first.
    /// let failure: FailingSeed = SimWorld::search(0..100, |world| {
    ///     let (tx, rx) = channel::unbounded();
    ///     for name in ["a", "b"] {
    ///         let tx = tx.clone();
    ///         world.spawn(name, move |_| tx.send(name).unwrap());
    ///     }
    ///     world.run().map_err(|deadlock| deadlock.to_string())?;
    ///     if rx.try_recv() == Ok("a") { Ok(()) } else { Err("b was first".to_string()) }
    /// })
    /// .unwrap_err();
    /// assert_eq!(failure.text, "b was first");
    /// assert!(failure.history.to_string().contains("b runs"));
    /// ```
    pub fn search<V: Verdict>(
        seeds: Range<u64>,
        body: impl Fn(&mut SimWorld) -> V + Sync,
    ) -> Result<u64, FailingSeed> {
        Search::new(seeds).run(body)
    }
}

impl<'a> Search<'a> {
    /// Makes a search of these seeds, on as many threads as there are cores.
    pub fn new(seeds: Range<u64>) -> Search<'a> {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Search { seeds, threads, progress: None }
    }

    /// Sets the number of threads that search, at least one. Each world has the threads of its
    /// members besides.
    pub fn threads(mut self, n: usize) -> Search<'a> {
        self.threads = n.max(1);
        self
    }

    /// Calls `progress` after each seed, with the number of seeds done. The call comes on any of
    /// the threads.
    pub fn progress(mut self, progress: impl Fn(u64) + Sync + 'a) -> Search<'a> {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Searches, as [`SimWorld::search`] does.
    ///
    /// # Errors
    /// The least seed that fails.
    pub fn run<V: Verdict>(
        self,
        body: impl Fn(&mut SimWorld) -> V + Sync,
    ) -> Result<u64, FailingSeed> {
        let Range { start, end } = self.seeds;
        let (next, done) = (AtomicU64::new(start), AtomicU64::new(0));
        // The least seed that failed. No seed above it is begun.
        let least = AtomicU64::new(u64::MAX);
        let failure: Mutex<Option<(u64, String)>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end || seed >= least.load(Ordering::Relaxed) {
                            return;
                        }
                        if let Some(text) = run(&mut SimWorld::new(seed), &body) {
                            least.fetch_min(seed, Ordering::Relaxed);
                            let mut failure = failure.lock();
                            if failure.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *failure = Some((seed, text));
                            }
                        }
                        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                        if let Some(progress) = &self.progress {
                            progress(done);
                        }
                    }
                });
            }
        });
        match failure.into_inner() {
            Some((seed, text)) => Err(explain(seed, text, &body)),
            None => Ok(done.into_inner()),
        }
    }
}

/// Runs one world, and returns the text of its failure.
fn run<V: Verdict>(
    world: &mut SimWorld,
    body: &(impl Fn(&mut SimWorld) -> V + Sync),
) -> Option<String> {
    match panic::catch_unwind(AssertUnwindSafe(|| body(world).failure())) {
        Ok(failure) => failure,
        Err(cause) => Some(text_of(&*cause)),
    }
}

fn text_of(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// Records the history of a seed that fails, and searches for fewer choices that fail, too.
fn explain<V: Verdict>(
    seed: u64,
    text: String,
    body: &(impl Fn(&mut SimWorld) -> V + Sync),
) -> FailingSeed {
    let recorded = |budget| {
        let mut world = SimWorld::with_choices(seed, budget);
        world.record();
        let failure = run(&mut world, body);
        let same =
            failure.is_some_and(|failure| without_numbers(&failure) == without_numbers(&text));
        (same, world.choices(), world.history())
    };
    let (again, choices, history) = recorded(u64::MAX);
    let mut shorter = None;
    if again {
        // Finds the least number of choices that fails, if all greater numbers fail. Otherwise the
        // search
        // finds some number that fails.
        let (mut passes, mut fails) = (0, choices);
        while passes < fails {
            let middle = passes + (fails - passes) / 2;
            let (same, _, history) = recorded(middle);
            if same {
                fails = middle;
                shorter = Some((middle, history));
            } else {
                passes = middle + 1;
            }
        }
    }
    FailingSeed { seed, text, history, choices, shorter, unsteady: !again }
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl fmt::Display for FailingSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails: {}", self.seed, self.text)?;
        if self.unsteady {
            writeln!(
                f,
                "It did not fail again: the code uses a real clock, threads or randomness."
            )?;
        }
        let history = match &self.shorter {
            Some((choices, history)) => {
                writeln!(
                    f,
                    "The first {choices} of its {} choices suffice: \
                     SimWorld::with_choices({}, {choices}).",
                    self.choices, self.seed
                )?;
                history
            }
            None => &self.history,
        };
        let lines = history.to_string();
        let count = lines.lines().count();
        let skipped = count.saturating_sub(LINES);
        if skipped > 0 {
            writeln!(f, "({skipped} lines of {count} before these)")?;
        }
        lines.lines().skip(skipped).try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl_fmt!(Debug, [] FailingSeed, |it, f| fmt::Display::fmt(it, f));
impl Error for FailingSeed {}

impl_debug!([] Search<'_>, |it| seeds: it.seeds, threads: it.threads);

//! Runs tickers. The ticks and the missed points of a grid together equal the passed periods.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use pollmux::{Handle, MissedTickBehavior, Select, Source, Tick, Ticker, Time};

use super::{Keys, Part};
use crate::meter::Lateness;
use crate::run::{READING, Random, Run};

struct Grid {
    ticker: Ticker,
    is_burst: bool,
    first: Time,
    period: Duration,
    /// The number of points of the grid that were received or counted as missed.
    passed: u64,
}

impl Grid {
    /// Returns the first point of the grid that was not counted.
    fn next(&self) -> Time {
        Time::from_nanos(self.first.as_nanos() + self.passed * self.period.as_nanos() as u64)
    }

    fn ticked(&mut self, run: &Run, tick: Tick) -> Duration {
        let (expected, Tick { scheduled, missed }) = (self.next(), tick);
        run.check(scheduled == expected, || {
            let period = self.period;
            format!("a tick of {period:?} is for {scheduled:?} instead of {expected:?}")
        });
        run.check(missed == 0 || !self.is_burst, || format!("a burst missed {missed} ticks"));
        self.passed += missed;
        let late = run.check_due("a tick", self.next());
        self.passed += 1;
        late
    }
}

pub struct Tickers {
    run: Run,
    random: Random,
    late: Rc<Lateness>,
    grids: Vec<Grid>,
    ticks: u64,
}

impl Tickers {
    pub fn new(
        reactor: &Handle,
        run: &Run,
        keys: Keys,
        late: &Rc<Lateness>,
    ) -> io::Result<Tickers> {
        let kinds =
            [(1_000, false), (3_700, false), (10_000, false), (5_000, true), (20_000, true)];
        let mut grids = Vec::new();
        for (index, (micros, is_burst)) in kinds.into_iter().enumerate() {
            let (period, first) = (Duration::from_micros(micros), Time::now());
            let ticker = reactor.every_at(first, period)?.with_key(keys.key(index));
            if is_burst {
                ticker.set_missed_tick_behavior(MissedTickBehavior::Burst);
            }
            grids.push(Grid { ticker, is_burst, first, period, passed: 0 });
        }
        let (random, late) = (run.random(keys.0 as u64), late.clone());
        Ok(Tickers { run: run.clone(), random, late, grids, ticks: 0 })
    }

    fn ticked(&mut self, index: usize, tick: Tick) {
        let late = self.grids[index].ticked(&self.run, tick);
        self.late.note(late);
        self.ticks += 1;
    }

    /// Restarts a ticker, which starts a new grid.
    fn restart(&mut self, index: usize) {
        let grid = &mut self.grids[index];
        let before = Time::now();
        grid.ticker.restart();
        let (after, first) = (Time::now() + READING, grid.ticker.deadline());
        let is_right = first
            .is_some_and(|first| before + grid.period <= first && first <= after + grid.period);
        self.run.check(is_right, || format!("a restarted ticker is armed for {first:?}"));
        grid.first = first.unwrap_or(after);
        grid.passed = 0;
    }
}

impl Part for Tickers {
    fn name(&self) -> &'static str {
        "ticks"
    }

    fn count(&self) -> u64 {
        self.ticks
    }

    fn handle(&mut self, reactor: &Handle, index: usize) -> io::Result<()> {
        match self.grids[index].ticker.try_take() {
            Some(tick) => self.ticked(index, tick),
            None => self.run.violated("a reported ticker gave no tick".into()),
        }
        if self.grids[index].is_burst {
            // With one tick for each wait a slow loop would fall behind.
            while let Some(tick) = reactor.try_recv(&self.grids[index].ticker)? {
                self.ticked(index, tick);
            }
        }
        Ok(())
    }

    /// Sometimes waits through a `Select` of all tickers, and sometimes starts a new grid.
    fn start_work(&mut self, reactor: &Handle) -> io::Result<()> {
        if self.random.one_in(8) {
            let mut set = Select::new(reactor);
            for grid in &self.grids {
                set.recv(&grid.ticker);
            }
            let wait = self.random.duration(Duration::from_millis(1));
            let mut found = None;
            if let Some(chosen) = set.wait_timeout(wait)? {
                let index = chosen.index();
                found = chosen.recv(&self.grids[index].ticker).map(|tick| (index, tick));
                self.run.check(found.is_some(), || "a chosen ticker gave no tick".into());
            }
            drop(set);
            if let Some((index, tick)) = found {
                self.ticked(index, tick);
            }
        }
        if self.random.one_in(200) {
            let index = self.random.index(self.grids.len());
            self.restart(index);
        }
        Ok(())
    }

    fn check(&mut self, reactor: &Handle) -> io::Result<()> {
        for index in 0..self.grids.len() {
            let now = Time::now();
            while self.grids[index].next() <= now {
                let Some(tick) = reactor.try_recv(&self.grids[index].ticker)? else {
                    let (next, period) = (self.grids[index].next(), self.grids[index].period);
                    self.run.violated(format!(
                        "a ticker of {period:?} has no tick for {next:?}, {:?} ago",
                        now.duration_since(next)
                    ));
                    break;
                };
                self.ticked(index, tick);
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<String> {
        None
    }
}

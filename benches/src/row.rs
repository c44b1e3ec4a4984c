//! Families of contestants, the rows that compare them, and a row of the JSON file.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measure::{Contestant, Measured, in_turn, quartiles};

/// The amount of measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Checks that everything runs. The figures mean nothing.
    Smoke,
    Quick,
    Full,
}

impl Scale {
    pub fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Scale::Smoke => smoke,
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }
}

/// The arguments of a family that does not run in slices.
pub struct Task<'a> {
    pub scale: Scale,
    /// A test for the names of contestants that are needed.
    pub wanted: &'a dyn Fn(&str) -> bool,
    /// A callback that the family calls from time to time.
    pub progress: &'a mut dyn FnMut(),
}

type Own = dyn Fn(&mut Task<'_>) -> Vec<Measured>;

pub enum How {
    /// Contestants take turns in slices of this length, for this number of rounds. The pairs are
    /// for the quick and the full run.
    Slices {
        slice: (Duration, Duration),
        rounds: (usize, usize),
        make: Box<dyn Fn(Scale) -> Vec<Contestant>>,
    },
    /// A function of the family measures the contestants.
    Own(Box<Own>),
}

/// Contestants that do the same work, and the rows of their figures.
pub struct Family {
    pub how: How,
    pub rows: Vec<Spec>,
}

impl Family {
    /// Makes a family that measures each contestant for about `seconds` in the quick run.
    pub fn new(
        make: impl Fn(Scale) -> Vec<Contestant> + 'static,
        rows: impl IntoIterator<Item = Spec>,
    ) -> Family {
        Family {
            how: How::Slices {
                slice: (Duration::from_millis(10), Duration::from_millis(30)),
                rounds: (11, 41),
                make: Box::new(make),
            },
            rows: rows.into_iter().collect(),
        }
    }

    pub fn own(
        run: impl Fn(&mut Task<'_>) -> Vec<Measured> + 'static,
        rows: impl IntoIterator<Item = Spec>,
    ) -> Family {
        Family { how: How::Own(Box::new(run)), rows: rows.into_iter().collect() }
    }

    /// Sets the length of slices in ms, and the rounds. The pairs are for the quick and the full
    /// run.
    pub fn slices(mut self, ms: (u64, u64), times: (usize, usize)) -> Family {
        if let How::Slices { slice, rounds, .. } = &mut self.how {
            *slice = (Duration::from_millis(ms.0), Duration::from_millis(ms.1));
            *rounds = times;
        }
        self
    }

    pub fn measure(
        &self,
        scale: Scale,
        chosen: &[&Spec],
        progress: &mut dyn FnMut(),
    ) -> Vec<Measured> {
        let wanted = |name: &str| {
            chosen.iter().any(|spec| {
                spec.ours == name
                    || spec.peers.iter().any(|peer| peer == name)
                    || spec.beside.iter().any(|other| other == name)
            })
        };
        match &self.how {
            How::Slices { slice, rounds, make } => {
                let mut contestants = make(scale);
                contestants.retain(|contestant| contestant.has(&wanted));
                let (slice, rounds) = match scale {
                    Scale::Smoke => (Duration::from_micros(200), 1),
                    Scale::Quick => (slice.0, rounds.0),
                    Scale::Full => (slice.1, rounds.1),
                };
                in_turn(&mut contestants, slice, rounds, progress)
            }
            How::Own(run) => run(&mut Task { scale, wanted: &wanted, progress }),
        }
    }
}

/// A bound on a row.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// The least ratio of the best peer's figure to ours.
    Ratio(f64),
    /// The greatest value of our figure.
    Value(f64),
    /// Our figure is at most the peer's plus a tenth of it, or plus this value, whichever is more,
    /// and plus the [doubt](doubt) in both. For samples that are far apart: few of them prove
    /// nothing.
    TenthOr(f64),
}

/// The specification of a row.
#[derive(Clone, Debug)]
pub struct Spec {
    pub work: String,
    /// The row's description: one plain sentence.
    pub about: String,
    pub unit: &'static str,
    pub ours: String,
    pub peers: Vec<String>,
    /// Contestants that are shown but are no peers, such as a floor or another method of pollmux.
    pub beside: Vec<String>,
    pub gate: Option<Bound>,
    pub goal: Option<Bound>,
}

/// Makes a row without targets.
pub fn row(work: impl Into<String>, about: impl Into<String>, ours: &str, peers: &[&str]) -> Spec {
    Spec {
        work: work.into(),
        about: about.into(),
        unit: "ns",
        ours: ours.into(),
        peers: peers.iter().map(|peer| peer.to_string()).collect(),
        beside: Vec::new(),
        gate: None,
        goal: None,
    }
}

impl Spec {
    /// Sets the ratio that must be met, and the ratio to reach.
    pub fn ratios(self, gate: f64, goal: f64) -> Spec {
        self.gate(Bound::Ratio(gate)).goal(Bound::Ratio(goal))
    }
    pub fn gate(mut self, bound: Bound) -> Spec {
        self.gate = Some(bound);
        self
    }
    pub fn goal(mut self, bound: Bound) -> Spec {
        self.goal = Some(bound);
        self
    }
    pub fn unit(mut self, unit: &'static str) -> Spec {
        self.unit = unit;
        self
    }
    pub fn beside(mut self, others: &[&str]) -> Spec {
        self.beside = others.iter().map(|other| other.to_string()).collect();
        self
    }

    /// Makes the row from the figures of its family.
    pub fn fill(&self, all: &[Measured]) -> Row {
        let of = |name: &String| all.iter().find(|measured| measured.name == *name);
        let ours = of(&self.ours).filter(|ours| !ours.samples.is_empty());
        let peers: Vec<&Measured> = self.peers.iter().filter_map(of).collect();
        let best = peers
            .iter()
            .filter(|peer| peer.median().is_some())
            .min_by(|a, b| f64::total_cmp(&a.median().unwrap(), &b.median().unwrap()));
        let value = ours.and_then(|ours| ours.median());
        let peer_value = best.and_then(|peer| peer.median());
        let ratio = value.zip(peer_value).map(|(ours, peer)| over(peer, ours));
        let is_time = self.unit == "ns";
        let skipped = match (of(&self.ours), ours) {
            (_, Some(_)) => None,
            (Some(Measured { absent: Some(reason), .. }), None) => Some(reason.clone()),
            _ => Some("it was not measured".to_string()),
        };
        let doubt = ours.zip(best).map_or(0.0, |(ours, peer)| doubt(ours, peer));
        let met =
            |bound: Option<Bound>| bound.and_then(|bound| bound.is_met(value, peer_value, doubt));
        let met = match (met(self.gate), met(self.goal)) {
            _ if value.is_none() => "skipped",
            (_, Some(true)) => "goal",
            (Some(true), _) => "gate",
            (Some(false), _) | (None, Some(false)) => "no",
            (None, None) => "none",
        };
        let figure = |measured: &Measured, role: &'static str| Figure {
            name: measured.name.clone(),
            role: Text::Borrowed(role),
            value: measured.median(),
            q1: measured.quartiles().map(|q| q[0]),
            q3: measured.quartiles().map(|q| q[2]),
            allocs: measured.allocs,
            syscalls: measured.syscalls,
            absent: measured.absent.clone(),
        };
        let beside = self.beside.iter().filter_map(of).map(|m| figure(m, "beside"));
        let by_round = ours.zip(best).map(|(ours, peer)| {
            let pairs = ours.samples.iter().zip(&peer.samples);
            pairs.map(|(ours, peer)| over(*peer, *ours)).collect::<Vec<_>>()
        });
        let ratios = by_round.and_then(|ratios| quartiles(&ratios));
        Row {
            work: self.work.clone(),
            about: self.about.clone(),
            unit: self.unit.into(),
            value,
            peer_value,
            pollmux_ns: value.filter(|_| is_time),
            peer: best.map(|peer| peer.name.clone()),
            peer_ns: peer_value.filter(|_| is_time),
            ratio,
            ratio_q1: ratios.map(|q| q[0]),
            ratio_q3: ratios.map(|q| q[2]),
            gate_ratio: self.gate.and_then(|bound| bound.ratio(peer_value)),
            goal_ratio: self.goal.and_then(|bound| bound.ratio(peer_value)),
            gate_value: self.gate.and_then(Bound::value),
            goal_value: self.goal.and_then(Bound::value),
            met: met.into(),
            allocs: ours.and_then(|ours| ours.allocs),
            syscalls: ours.and_then(|ours| ours.syscalls),
            figures: ours
                .map(|ours| figure(ours, "pollmux"))
                .into_iter()
                .chain(peers.iter().map(|peer| figure(peer, "peer")))
                .chain(beside)
                .collect(),
            skipped,
        }
    }
}

/// Returns the doubt in the difference of two medians: the half of its interval of 95 %.
fn doubt(ours: &Measured, peer: &Measured) -> f64 {
    let half = |samples: &[f64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        // The ranks between which the median is in 95 % of all cases.
        let (middle, last) = (sorted.len() as f64 / 2.0, sorted.len() - 1);
        let away = 0.98 * (sorted.len() as f64).sqrt();
        let rank = |rank: f64| (rank.round().max(0.0) as usize).min(last);
        (sorted[rank(middle + away)] - sorted[rank(middle - away)]) / 2.0
    };
    half(&ours.samples).hypot(half(&peer.samples))
}

/// Returns how many times as much the peer takes. Two zeros give 1.
fn over(peer: f64, ours: f64) -> f64 {
    if peer == ours { 1.0 } else { peer / ours }
}

impl Bound {
    fn is_met(self, ours: Option<f64>, peer: Option<f64>, doubt: f64) -> Option<bool> {
        match self {
            Bound::Value(most) => Some(ours? <= most),
            Bound::TenthOr(more) => Some(ours? - doubt <= peer? + (peer? / 10.0).max(more)),
            _ => Some(over(peer?, ours?) >= self.ratio(peer)?),
        }
    }

    /// Returns the bound as a ratio of the peer's figure to ours.
    fn ratio(self, peer: Option<f64>) -> Option<f64> {
        match self {
            Bound::Ratio(ratio) => Some(ratio),
            Bound::Value(_) => None,
            Bound::TenthOr(more) => peer.map(|peer| peer / (peer + (peer / 10.0).max(more))),
        }
    }

    fn value(self) -> Option<f64> {
        if let Bound::Value(value) = self { Some(value) } else { None }
    }
}

/// A text of the program, or a text from a JSON file.
pub type Text = Cow<'static, str>;

/// A row of the report in the format of the JSON file. `docs/BENCHMARKS.md` describes the fields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub work: String,
    pub about: String,
    pub unit: Text,
    pub value: Option<f64>,
    pub peer_value: Option<f64>,
    pub pollmux_ns: Option<f64>,
    pub peer: Option<String>,
    pub peer_ns: Option<f64>,
    pub ratio: Option<f64>,
    pub ratio_q1: Option<f64>,
    pub ratio_q3: Option<f64>,
    pub gate_ratio: Option<f64>,
    pub goal_ratio: Option<f64>,
    pub gate_value: Option<f64>,
    pub goal_value: Option<f64>,
    /// "goal", "gate" or "no"; "none" without a target, "skipped" without a figure.
    pub met: Text,
    pub allocs: Option<f64>,
    pub syscalls: Option<f64>,
    /// The figures of pollmux, of each peer, and of the contestants beside them.
    pub figures: Vec<Figure>,
    pub skipped: Option<String>,
}

/// The figures of one contestant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// "pollmux", "peer" or "beside".
    pub role: Text,
    pub value: Option<f64>,
    pub q1: Option<f64>,
    pub q3: Option<f64>,
    pub allocs: Option<f64>,
    pub syscalls: Option<f64>,
    /// The reason why the contestant did not run here.
    pub absent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Vec<Measured> {
        vec![
            Measured { allocs: Some(0.0), syscalls: Some(2.0), ..Measured::new("us", vec![10.0]) },
            Measured::new("slow", vec![90.0]),
            Measured::new("fast", vec![10.0, 30.0]),
            Measured::absent("gone", "no header"),
        ]
    }

    fn spec() -> Spec {
        row("a/b", "Does it.", "us", &["slow", "fast", "gone"])
    }

    fn met(spec: Spec) -> Text {
        spec.fill(&figures()).met
    }

    #[test]
    fn a_row_compares_with_the_best_peer() {
        let row = spec().fill(&figures());
        assert_eq!((row.peer.as_deref(), row.peer_ns), (Some("fast"), Some(20.0)));
        assert_eq!((row.pollmux_ns, row.ratio, &*row.met), (Some(10.0), Some(2.0), "none"));
        assert_eq!((row.allocs, row.syscalls), (Some(0.0), Some(2.0)));
        let absent: Vec<_> = row.figures.iter().filter_map(|f| f.absent.as_deref()).collect();
        assert_eq!((row.figures.len(), absent), (4, vec!["no header"]));
    }

    #[test]
    fn bounds_are_met_as_goal_gate_or_not() {
        assert_eq!(met(spec().ratios(1.5, 2.0)), "goal");
        assert_eq!(met(spec().ratios(2.0, 3.0)), "gate");
        assert_eq!(met(spec().ratios(2.1, 3.0)), "no");
        assert_eq!(met(spec().gate(Bound::Value(10.0)).goal(Bound::Value(9.0))), "gate");
        assert_eq!(met(spec().goal(Bound::Value(9.0))), "no");
        assert_eq!(met(spec().gate(Bound::TenthOr(1.0))), "gate");
        let none = row("a/b", "Does it.", "us", &["gone"]).ratios(1.0, 1.0).fill(&figures());
        assert_eq!((&*none.met, none.ratio), ("none", None));
    }

    #[test]
    fn a_tenth_or_more_becomes_a_ratio() {
        let ratio = |peer| Bound::TenthOr(1.0).ratio(Some(peer)).unwrap();
        assert!((ratio(5.0) - 5.0 / 6.0).abs() < 1e-9);
        assert!((ratio(100.0) - 100.0 / 110.0).abs() < 1e-9);
    }

    #[test]
    fn few_samples_fail_no_bound_of_a_tenth() {
        let met = |n: i32, ours: f64| {
            let spread = |middle: f64| (0..n).map(|i| middle + f64::from(i % 61 - 30)).collect();
            let all = [Measured::new("us", spread(ours)), Measured::new("fast", spread(80.0))];
            spec().gate(Bound::TenthOr(1.0)).fill(&all).met
        };
        assert_eq!([met(61, 95.0), met(610, 95.0), met(61, 120.0)], ["gate", "no", "no"]);
    }

    #[test]
    fn a_row_that_was_not_measured_says_why() {
        let row = row("a/b", "Does it.", "gone", &["fast"]).ratios(1.0, 1.0).fill(&figures());
        assert_eq!((&*row.met, row.skipped.as_deref()), ("skipped", Some("no header")));
    }

    #[test]
    fn json_rows_have_the_promised_fields() {
        let row = serde_json::to_value(spec().fill(&figures())).unwrap();
        let fields = [
            "work",
            "pollmux_ns",
            "peer",
            "peer_ns",
            "ratio",
            "gate_ratio",
            "goal_ratio",
            "met",
            "allocs",
            "syscalls",
            "unit",
        ];
        fields.iter().for_each(|field| assert!(row.get(field).is_some(), "{field} is missing"));
        let bytes = serde_json::to_value(spec().unit("bytes").fill(&figures())).unwrap();
        assert_eq!((&bytes["value"], bytes["pollmux_ns"].is_null()), (&10.0.into(), true));
    }
}

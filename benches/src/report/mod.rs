//! The report: what was measured, in all its forms.

use std::fmt;

use serde::Serialize;

use crate::row::{Figure, Row, Scale};

/// Everything that one run has found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Changes when a field changes its meaning.
    pub version: u32,
    /// "quick" or "full"; the figures of "smoke" mean nothing.
    pub scale: &'static str,
    pub seconds: f64,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn new(scale: Scale) -> Report {
        let scale = scale.of("smoke", "quick", "full");
        Report { version: 1, scale, seconds: 0.0, rows: Vec::new() }
    }

    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    /// One line: how many rows meet their targets.
    pub fn summary(&self) -> String {
        let count = |met: &str| self.rows.iter().filter(|row| row.met == met).count();
        format!(
            "{} rows in {:.0} s: {} meet their goal, {} their gate, {} meet neither, {} have no \
             target, {} were skipped",
            self.rows.len(),
            self.seconds,
            count("goal"),
            count("gate"),
            count("no"),
            count("none"),
            count("skipped")
        )
    }
}

/// Three digits that count.
pub fn number(x: f64) -> String {
    match x.abs() {
        a if a >= 100.0 => {
            let digits = format!("{:.0}", x);
            let (sign, digits) = digits.strip_prefix('-').map_or(("", &*digits), |d| ("-", d));
            let mut out = String::new();
            for (i, digit) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i) % 3 == 0 {
                    out.push(',');
                }
                out.push(digit);
            }
            format!("{sign}{out}")
        }
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 0.01 || a == 0.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    }
}

pub fn or_dash(x: Option<f64>) -> String {
    x.map_or("-".into(), number)
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.work, self.about)?;
        for figure in &self.figures {
            writeln!(f, "  {figure} {}", self.unit)?;
        }
        let target = |ratio: Option<f64>, value: Option<f64>| match (ratio, value) {
            (Some(ratio), _) => format!("{ratio:.2}x"),
            (_, Some(value)) => format!("{} {}", number(value), self.unit),
            _ => "-".into(),
        };
        match &self.skipped {
            Some(reason) => writeln!(f, "  skipped: {reason}"),
            None => writeln!(
                f,
                "  ratio {}, gate {}, goal {}: {}",
                self.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x")),
                target(self.gate_ratio, self.gate_value),
                target(self.goal_ratio, self.goal_value),
                self.met
            ),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            if self.role == "beside" { format!("({})", self.name) } else { self.name.clone() };
        write!(f, "{name:34}")?;
        match &self.absent {
            Some(reason) => write!(f, "not here: {reason};"),
            None => write!(
                f,
                "{:>9} [{} to {}], allocations {}, syscalls {};",
                or_dash(self.value),
                or_dash(self.q1),
                or_dash(self.q3),
                or_dash(self.allocs),
                or_dash(self.syscalls)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        let all = [0.0, 0.00123, 0.456, 1.234, 12.34, 123.4, 1234.5, 1234567.0, -1234.0];
        let texts = all.map(number);
        let right =
            ["0.00", "0.0012", "0.46", "1.23", "12.3", "123", "1,234", "1,234,567", "-1,234"];
        assert_eq!(texts, right);
    }
}

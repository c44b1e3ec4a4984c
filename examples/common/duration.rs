//! The form of a duration on the command line.

use std::time::Duration;

/// A number and a unit: `1s`, `200ms`, `50us`, `7ns`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end]
        .parse()
        .map_err(|_| "a whole number must come first, as in 200ms".to_string())?;
    let nanos = match &text[end..] {
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" => 1_000,
        "ns" => 1,
        "" => return Err("the unit is missing: s, ms, us or ns".into()),
        unit => return Err(format!("unknown unit `{unit}`: there are s, ms, us and ns")),
    };
    number
        .checked_mul(nanos)
        .map(Duration::from_nanos)
        .ok_or_else(|| "that is more than 584 years".into())
}

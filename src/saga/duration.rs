//! Durations as people write them: a whole number and a unit, such as `500ms`, `30s`, `15m`, `2h`
//! or `1d`. Definitions and settings share this form.

use std::time::Duration;

/// The units, longest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration; `None` where it is not of this form or longer than 2^64 ms.
pub fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let count: u64 = number.parse().ok()?;
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Writes a duration in the longest unit that needs no fraction, as [`parse`] reads it. What is
/// below a millisecond is cut off.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let fitting = UNITS.into_iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms));
    let (unit, unit_ms) = fitting.unwrap_or(("ms", 1));
    format!("{}{unit}", ms / unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written() {
        for (text, ms) in
            [("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(format(Duration::from_millis(ms)), text);
        }
        assert_eq!(format(Duration::from_millis(90_000)), "90s");
        assert_eq!(parse(&format(Duration::ZERO)), Some(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "30 s",
            "30S",
            "1h30m",
            "30s ",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}

//! Values that flags take: text in, value or the wanted form out.

use std::time::Duration;

use crate::free_space::parse_size;

/// The longest duration that is believed.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Reads `25s`, `1m30s`, `1.5h`, `500ms`, `2d`, or bare seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wanted = || "expected a duration, for example `25s`, `1m30s` or `500ms`".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wanted());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(number_end);
        let unit_end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            // Only a number that stands alone goes without a unit: `1m30` may mean anything.
            "" if number.len() == text.trim().len() => 1.0,
            _ => return Err(wanted()),
        };
        let number: f64 = number.parse().map_err(|_| wanted())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wanted())?;
        total = total.checked_add(part).ok_or_else(wanted)?;
        rest = behind.trim_start();
    }
    // Far beyond any use, and far from where the clock's own type ends.
    if total > LONGEST { Err("it is longer than 10 years".to_owned()) } else { Ok(total) }
}

/// `OLD=NEW`: one tag for another, or for none.
pub(super) fn parse_replacement(text: &str) -> Result<(String, String), String> {
    let (old, new) = text.split_once('=').ok_or("write it as OLD=NEW")?;
    if old.is_empty() {
        return Err("there is no tag before the `=`".to_owned());
    }
    Ok((old.to_owned(), new.to_owned()))
}

/// A duration that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if duration.is_zero() { Err("it must be longer than zero".to_owned()) } else { Ok(duration) }
}

/// Requests a second: zero or more.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("expected a number of requests a second, or 0 for no limit".to_owned()),
    }
}

/// The smallest spool: commits are a small part of it, and each waits for the disk.
const SMALLEST_SPOOL: u64 = 1_000_000;

/// The smallest limit of records: the first one of most files is smaller.
const SMALLEST_RECORD: u64 = 1_000;

/// A size that is worth pausing for.
pub(super) fn parse_spool(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < SMALLEST_SPOOL { Err("it must be at least 1MB".to_owned()) } else { Ok(size) }
}

/// A limit of records. With one of 0, every file would be damaged from its beginning.
pub(super) fn parse_record(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < SMALLEST_RECORD { Err("it must be at least 1kB".to_owned()) } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("25s", 25_000),
            ("1m30s", 90_000),
            ("1h 30min", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("30", 30_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", " ", "s", "5x", "-5s", "1m30", "1..5s", ".", "5 s", "1e400", "99999999999999999999d", "5s,"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn rates_are_numbers_from_zero() {
        assert_eq!(parse_rate("0"), Ok(0.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for bad in ["-1", "NaN", "inf", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_spool_is_not_too_small() {
        assert_eq!(parse_spool("1MB"), Ok(1_000_000));
        assert!(parse_spool("999kB").is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".{0,20}") {
            let _ = (parse_duration(&text), parse_rate(&text));
        }
    }
}

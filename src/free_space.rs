//! How much room a file system has, and how much of it is to stay free: the disk is shared with whoever trains.
//!
//! Knows nothing of what is written. Where the system does not tell, there is room.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How much is to stay free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFree {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the file system.
    Percent(f64),
}

impl Default for MinFree {
    fn default() -> Self {
        Self::Percent(5.0)
    }
}

impl FromStr for MinFree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else { return parse_size(text).map(Self::Bytes) };
        match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
            _ => Err("expected a percentage from 0% to 100%".to_owned()),
        }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => formatter.write_str(&size(*bytes)),
            Self::Percent(percent) => write!(formatter, "{percent} %"),
        }
    }
}

/// Less is free than is to stay free.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the disk of `{}` has only {} free, and {minimum} {} to stay free", directory.display(), size(*free), if matches!(minimum, MinFree::Percent(_)) { "of it are" } else { "are" })]
pub struct LowSpace {
    /// A directory on it.
    pub directory: PathBuf,
    /// Bytes that are free.
    pub free: u64,
    /// How much is to stay free.
    pub minimum: MinFree,
}

/// Says so where writing `more` bytes below a directory, which need not exist yet, would leave less than is to stay free.
pub fn check(directory: &Path, minimum: MinFree, more: u64) -> Result<(), LowSpace> {
    let Some((free, total)) = room_at(directory) else { return Ok(()) };
    let wanted = match minimum {
        MinFree::Bytes(bytes) => bytes,
        MinFree::Percent(percent) => (total as f64 * percent / 100.0) as u64,
    };
    // Nothing to keep free: then what is written decides itself whether there is room.
    if wanted == 0 || free.saturating_sub(more) >= wanted {
        return Ok(());
    }
    Err(LowSpace { directory: directory.to_owned(), free, minimum })
}

/// Bytes that a user may still write, and all bytes, of the file system of the nearest directory that exists.
#[cfg(unix)]
fn room_at(directory: &Path) -> Option<(u64, u64)> {
    let absolute = std::path::absolute(directory).ok()?;
    let there = absolute.ancestors().find_map(|ancestor| rustix::fs::statvfs(ancestor).ok())?;
    // Some network file systems know nothing of themselves.
    let known = there.f_blocks > 0;
    known.then(|| (there.f_bavail.saturating_mul(there.f_frsize), there.f_blocks.saturating_mul(there.f_frsize)))
}

#[cfg(not(unix))]
fn room_at(_directory: &Path) -> Option<(u64, u64)> {
    None
}

/// The units of sizes, without `B`. A letter alone counts in steps of 1024.
const UNITS: [(&str, u32); 5] = [("k", 1), ("m", 2), ("g", 3), ("t", 4), ("p", 5)];

/// Reads `500MB`, `10GiB`, `1.5 TB`, `10G`, or bare bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wanted = || "expected a size, for example `500MB` or `10GiB`".to_owned();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| wanted())?;
    let unit = unit.trim().to_ascii_lowercase();
    let of = |letter: &str, step: f64| {
        UNITS.iter().find(|(unit, _)| *unit == letter).map(|(_, power)| step.powi(*power as i32))
    };
    let factor = match unit.as_str() {
        "" | "b" => Some(1.0),
        unit => match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
            (Some(letter), _) => of(letter, 1024.0),
            (None, Some(letter)) => of(letter, 1000.0),
            (None, None) => of(unit, 1024.0),
        },
    };
    let bytes = number * factor.ok_or_else(wanted)?;
    // Far beyond any disk, and far from where integers end.
    if bytes > 1e18 { Err("it is larger than any disk".to_owned()) } else { Ok(bytes as u64) }
}

/// A size as people read it.
fn size(bytes: u64) -> String {
    let steps: [(f64, &str); 4] = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match steps.iter().find(|(step, _)| bytes as f64 >= *step) {
        Some((step, unit)) => format!("{:.1} {unit}", bytes as f64 / step),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("500MB", 500_000_000),
            ("10GiB", 10 << 30),
            ("1.5 TB", 1_500_000_000_000),
            ("10G", 10 << 30),
            ("16m", 16 << 20),
            ("7", 7),
            ("64 kB", 64_000),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GB", "-1GB", "1..5GB", "10XB", "10 GB free", "9999999PB", "5%", "ib"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_to_stay_free_is_a_size_or_a_part() {
        assert_eq!("5%".parse(), Ok(MinFree::Percent(5.0)));
        assert_eq!("99.5 %".parse(), Ok(MinFree::Percent(99.5)));
        assert_eq!("20GB".parse(), Ok(MinFree::Bytes(20_000_000_000)));
        for bad in ["101%", "-1%", "%", "NaN%", "some"] {
            assert!(bad.parse::<MinFree>().is_err(), "{bad}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn the_disk_is_asked() {
        let here = tempfile::tempdir().unwrap();
        let later = here.path().join("not/yet/there");
        assert_eq!(check(&later, MinFree::Bytes(0), u64::MAX), Ok(()));
        assert_eq!(check(&later, MinFree::Bytes(1), 0), Ok(()));
        let low = check(&later, MinFree::Bytes(1_000_000_000_000_000_000), 0).unwrap_err();
        assert!(
            low.to_string().contains("has only")
                && low.to_string().ends_with("free, and 1000000.0 TB are to stay free"),
            "{low}"
        );
        assert!(check(&later, MinFree::Bytes(1), u64::MAX).is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".{0,20}") {
            let _ = (parse_size(&text), text.parse::<MinFree>());
        }
    }
}

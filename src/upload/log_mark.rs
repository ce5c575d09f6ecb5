//! What a log looks like before a position: enough to see that another log stands in its place.
//!
//! A log only grows, or is cut back to before its exit, which is never before an acknowledged position; so the bytes before
//! that position stay as they are for as long as it is the same log. One that was set aside and made anew may begin with
//! the same records, which is why the bytes just before the position count too: each row there holds its own number.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::LogPosition;

/// This many bytes at the beginning of the log, and as many before the position.
const WINDOW: u64 = 4096;

/// The looks of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogMark {
    position: LogPosition,
    crc32c: u32,
}

impl LogMark {
    /// The looks of a log before a position; `None` when it cannot be read so far.
    pub(crate) fn of(log: &Path, position: LogPosition) -> Option<Self> {
        let crc32c = checksum(log, position.0).ok()?;
        (position.0 > 0).then_some(Self { position, crc32c })
    }

    /// Whether a log looks like that. One that cannot be read is no other log; whoever reads it will say so.
    pub(crate) fn is_of(&self, log: &Path) -> bool {
        match checksum(log, self.position.0) {
            Ok(crc32c) => crc32c == self.crc32c,
            Err(error) => error.kind() != io::ErrorKind::UnexpectedEof,
        }
    }
}

fn checksum(log: &Path, position: u64) -> io::Result<u32> {
    let mut file = File::open(log)?;
    let mut crc = 0;
    for from in [0, position.saturating_sub(WINDOW)] {
        let wanted = WINDOW.min(position - from);
        let mut bytes = Vec::with_capacity(wanted as usize);
        file.seek(SeekFrom::Start(from))?;
        if (&mut file).take(wanted).read_to_end(&mut bytes)? as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        crc = crc32c::crc32c_append(crc, &bytes);
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_log_that_grew_is_the_same_and_one_that_differs_anywhere_near_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let bytes: Vec<u8> = (0..20_000_u32).map(|number| (number / 7) as u8).collect();
        for position in [1, 100, 4096, 5000, 19_999, 20_000] {
            std::fs::write(&path, &bytes).unwrap();
            let mark = LogMark::of(&path, LogPosition(position)).unwrap();
            assert!(mark.is_of(&path));
            std::fs::write(&path, [&*bytes, &[1, 2, 3]].concat()).unwrap();
            assert!(mark.is_of(&path), "it grew");
            std::fs::write(&path, &bytes[..position as usize]).unwrap();
            assert!(mark.is_of(&path), "it was cut back to the position");
            std::fs::write(&path, &bytes[..position as usize - 1]).unwrap();
            assert!(!mark.is_of(&path), "it is shorter");
            for at in [0, position as usize - 1] {
                let mut other = bytes.clone();
                other[at] ^= 1;
                std::fs::write(&path, &other).unwrap();
                assert!(!mark.is_of(&path), "byte {at} of {position}");
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(LogMark::of(&path, LogPosition(0)), None);
        assert_eq!(LogMark::of(&path, LogPosition(20_001)), None);
        assert_eq!(LogMark::of(&directory.path().join("none"), LogPosition(1)), None);
    }
}

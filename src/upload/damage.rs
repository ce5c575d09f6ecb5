//! What of a log is damaged: how much, where, and how many records that cost. Pure.
//!
//! Writers number their records, so the numbers around a damaged place tell how many are missing there. Nobody can tell
//! what was in them.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::model::{Count, LogPosition};

/// So many places are named.
const NAMED: usize = 24;

/// All damage of a log so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Damage {
    /// The first places, from byte to byte, and what was wrong there.
    places: Vec<(u64, u64, String)>,
    count: u64,
    bytes: u64,
    /// Records that are missing between intact ones.
    records: u64,
    /// Places behind the latest intact record.
    pending: u64,
    /// The number of the latest intact record.
    latest: u64,
}

impl Damage {
    /// These bytes are no record.
    pub(crate) fn add(&mut self, from: LogPosition, to: LogPosition, why: &str) {
        if self.places.len() < NAMED {
            self.places.push((from.0, to.0, why.to_owned()));
        }
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(to.0.saturating_sub(from.0));
        self.pending = self.pending.saturating_add(1);
    }

    /// An intact record has this number; 0 is none.
    pub(crate) fn pass(&mut self, number: u64) {
        if self.pending > 0 {
            let missing = if number == 0 { 0 } else { number.saturating_sub(self.latest.saturating_add(1)) };
            // A number that cannot be believed must not make millions of it: no record is smaller than its head.
            self.records = self.records.saturating_add(missing.min(self.bytes / 7).max(self.pending));
            self.pending = 0;
        }
        if number > 0 {
            self.latest = number;
        }
    }

    /// How many records are lost, and where; `None` where nothing is damaged.
    pub(crate) fn report(&self) -> Option<Count> {
        let (from, to, why) = self.places.first()?;
        let mut first = format!("{why} at byte {from}, up to byte {to}");
        for (from, to, _) in self.places.iter().skip(1) {
            let _ = write!(first, ", {from} to {to}");
        }
        let unnamed = self.count.saturating_sub(self.places.len() as u64);
        if unnamed > 0 {
            let _ = write!(first, " and {unnamed} more places");
        }
        let _ = write!(first, "; {} bytes in all", self.bytes);
        Some(Count { count: self.records.saturating_add(self.pending), first })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn numbers_tell_how_many_records_are_missing() {
        let mut damage = Damage::default();
        (1..=10).for_each(|number| damage.pass(number));
        assert_eq!(damage.report(), None);
        damage.add(LogPosition(100), LogPosition(32768), "a checksum that does not match");
        damage.pass(14);
        let report = damage.report().unwrap();
        assert_eq!(report.count, 3);
        assert_eq!(report.first, "a checksum that does not match at byte 100, up to byte 32768; 32668 bytes in all");
        damage.add(LogPosition(40000), LogPosition(65536), "zeros");
        damage.add(LogPosition(65536), LogPosition(70000), "zeros");
        assert_eq!(damage.report().unwrap().count, 5, "as long as nobody knows, a place is a record");
        damage.pass(15);
        assert_eq!(damage.report().unwrap().count, 5);
        damage.add(LogPosition(70010), LogPosition(70100), "zeros");
        damage.pass(u64::MAX);
        assert!(damage.report().unwrap().count < 20_000);
        assert!(damage.report().unwrap().first.contains(", 40000 to 65536, 65536 to 70000, 70010 to 70100;"));
    }
}

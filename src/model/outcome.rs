//! What became of the input: counted by reason, with the first place it happened.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why something that is in the files is not a value on the server.
///
/// A closed list, so that the screen, the JSON output and the exit code always agree about each of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkippedReason {
    /// A kind of data that is not carried, by its name (`images`, `text`, a plugin's name…).
    Kind(String),
    /// A filter that the user gave left it out.
    LeftOut,
    /// A restart of the training wrote its step again, and the user wants only the later values.
    Superseded,
    /// An event file that was not read, because the user's filters leave out its TB run.
    LeftOutFile,
    /// A record whose checksum or content is wrong; what follows it was read.
    DamagedRecord,
    /// The rest of a file behind a length that cannot be believed.
    DamagedFile,
    /// A file that could not be opened or read.
    Unreadable,
    /// A file that does not hold any more what was read of it: what it holds now cannot be told from that.
    Rewritten,
    /// A file that is shorter than what was read of it. All that is left in it was read.
    Shrunk,
    /// The unfinished last record of a file: normal while it grows.
    IncompleteTail,
    /// A value of a known kind that makes no sense (wrong shape, wrong size).
    BadValue,
    /// More images in one value than W&B shows; all of them were carried.
    NotShown,
    /// A history line above W&B's limit.
    RowTooLarge,
    /// A run file that could not be uploaded, or is not there.
    File,
    /// An artifact that could not be uploaded.
    Artifact,
    /// Files that were to be attached to runs, of which there are none for any run.
    NoFiles,
    /// A record of a log that is newer than this program.
    UnknownRecord,
    /// A histogram with more bins than W&B takes, which were put together: its weight is all there.
    Rebinned,
}

impl SkippedReason {
    /// Whether whole data of the files is missing on the server although nobody asked for that: exit code 3.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Kind(_)
            | Self::DamagedRecord
            | Self::DamagedFile
            | Self::Unreadable
            | Self::Rewritten
            | Self::BadValue
            | Self::RowTooLarge
            | Self::File
            | Self::Artifact
            | Self::NoFiles => true,
            Self::LeftOut
            | Self::LeftOutFile
            | Self::NotShown
            | Self::Superseded
            | Self::Shrunk
            | Self::IncompleteTail
            | Self::UnknownRecord
            | Self::Rebinned => false,
        }
    }
}

impl fmt::Display for SkippedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Kind(kind) => return write!(formatter, "{kind}: not carried"),
            Self::LeftOut => "left out by a filter",
            Self::Superseded => "superseded by a restart",
            Self::LeftOutFile => "event file left out by `--include` or `--exclude`",
            Self::DamagedRecord => "damaged record",
            Self::DamagedFile => "damaged file",
            Self::Unreadable => "file that cannot be read",
            Self::Rewritten => "file that no longer holds what was read of it",
            Self::Shrunk => "file shorter than what was read of it",
            Self::IncompleteTail => "unfinished last record",
            Self::BadValue => "value that makes no sense",
            Self::NotShown => "more images in one value than the 108 that W&B shows",
            Self::RowTooLarge => "row above W&B's size limit",
            Self::File => "file that could not be uploaded",
            Self::Artifact => "artifact that could not be uploaded",
            Self::NoFiles => "`--artifact` that finds no file of any run",
            Self::UnknownRecord => "record of a newer W&B client",
            Self::Rebinned => "histogram with more than 512 bins, put together to 512",
        };
        formatter.write_str(text)
    }
}

/// How often something was skipped, and where it was first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many values, records or files.
    pub count: u64,
    /// The first place, in words a person can find it by (file, byte, tag).
    pub first: String,
}

/// All that was skipped, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Skips(BTreeMap<SkippedReason, Count>);

/// What became of the values of one kind. `read` is the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KindCount {
    /// Values in the files.
    pub read: u64,
    /// Values that went into rows or config.
    pub sent: u64,
    /// Values that were kept as files of the run, because W&B has nothing nearer.
    pub kept: u64,
    /// Values that the user's filters left out.
    pub left_out: u64,
    /// Values that could not be carried.
    pub lost: u64,
}

impl KindCount {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.sent += other.sent;
        self.kept += other.kept;
        self.left_out += other.left_out;
        self.lost += other.lost;
    }
}

/// What became of all values, by the name of their kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Kinds(BTreeMap<String, KindCount>);

/// So many kinds are counted by their own names. Plugins may be called anything.
const MAX_KINDS: usize = 1000;

/// What all others are called.
const OTHER_KINDS: &str = "others";

impl Kinds {
    /// The counts of a kind.
    pub fn of(&mut self, kind: &str) -> &mut KindCount {
        let kind = if self.0.len() < MAX_KINDS || self.0.contains_key(kind) { kind } else { OTHER_KINDS };
        self.0.entry(kind.to_owned()).or_default()
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            self.of(kind).add(count);
        }
    }

    /// Whether no value was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All kinds together.
    pub fn sum(&self) -> KindCount {
        self.0.values().fold(KindCount::default(), |sum, count| KindCount {
            read: sum.read + count.read,
            sent: sum.sent + count.sent,
            kept: sum.kept + count.kept,
            left_out: sum.left_out + count.left_out,
            lost: sum.lost + count.lost,
        })
    }

    /// Each kind with its counts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &KindCount)> {
        self.0.iter().map(|(kind, count)| (kind.as_str(), count))
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// In words.
    pub reason: String,
    /// How many values, records or files.
    pub count: u64,
    /// The first place it happened.
    pub first: String,
    /// Whether this makes the run partial (exit code 3).
    pub loss: bool,
}

impl Skips {
    /// Counts `count` more. `first` is asked only when this reason is new.
    pub fn add(&mut self, reason: SkippedReason, count: u64, first: impl FnOnce() -> String) {
        if count > 0 {
            self.0.entry(reason).or_insert_with(|| Count { count: 0, first: shortened(first()) }).count += count;
        }
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (reason, count) in &other.0 {
            self.add(reason.clone(), count.count, || count.first.clone());
        }
    }

    /// Whether anything that counts as lost is among them.
    pub fn any_loss(&self) -> bool {
        self.0.keys().any(SkippedReason::is_loss)
    }

    /// Whether nothing was skipped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&SkippedReason, &Count)> {
        self.0.iter()
    }

    /// The lines of the report.
    pub fn report(&self) -> Vec<Skipped> {
        let line = |(reason, count): (&SkippedReason, &Count)| Skipped {
            reason: reason.to_string(),
            count: count.count,
            first: count.first.clone(),
            loss: reason.is_loss(),
        };
        self.0.iter().map(line).collect()
    }
}

/// A place may name a tag, and tags may be a megabyte long: as much of it as a person reads.
pub fn shortened(mut place: String) -> String {
    const LONGEST: usize = 1000;
    if place.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| place.is_char_boundary(*end));
        place.truncate(end.unwrap_or_default());
        place.push('…');
    }
    place
}

impl FromIterator<(SkippedReason, Count)> for Skips {
    fn from_iter<I: IntoIterator<Item = (SkippedReason, Count)>>(counts: I) -> Self {
        let mut skips = Self::default();
        for (reason, count) in counts {
            skips.add(reason, count.count, || count.first);
        }
        skips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_logs_choose_does_not_make_reports_long() {
        let mut skips = Skips::default();
        skips.add(SkippedReason::BadValue, 1, || "ä".repeat(1 << 20));
        skips.add(SkippedReason::File, 1, || "short".to_owned());
        let firsts: Vec<usize> = skips.report().iter().map(|line| line.first.len()).collect();
        assert_eq!(firsts, [1003, 5]);
        let mut kinds = Kinds::default();
        for number in 0..5000 {
            kinds.of(&format!("plugin {number}")).read += 1;
        }
        kinds.of("plugin 7").read += 1;
        assert_eq!((kinds.iter().count(), kinds.sum().read), (MAX_KINDS + 1, 5001));
        assert_eq!((kinds.of("plugin 7").read, kinds.of(OTHER_KINDS).read), (2, 4000));
    }
}

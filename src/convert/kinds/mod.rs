//! What a value that is not a scalar becomes: the nearest W&B type, a file of the run, or config.
//!
//! One file a kind. Pure: a value and the key that it has in the run go in, a cell of a history row and the files that it
//! speaks of come out. Encoded images, sound and graphs stay slices of the record that they were read from. Does not
//! know rows, steps that came before, or where files are kept.

mod audio;
mod custom_scalars;
mod graphs;
mod histograms;
mod hparams;
mod images;
mod mesh;
mod npy;
mod pr_curves;
mod tensors;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use bytes::Bytes;
use foldhash::quality::FixedState;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::convert::kinds::mesh::{MeshPart, assemble};

use crate::model::{FileCategory, Histogram, Json, KindCount, Number, SkippedReason};
use crate::tfevents::event::Value;
use crate::tfevents::{Point, ValueKind};

/// What one value becomes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Carried {
    /// The cell of the history row, under the tag's key; `None` when nothing of the value belongs into a row.
    pub cell: Option<Cell>,
    /// Files that must be there before anything speaks of them.
    pub files: Vec<CarriedFile>,
    /// Config values, each at its path of keys.
    pub config: Vec<(Vec<String>, Json)>,
    /// Whether a training session says that it ended, and how.
    pub session: Option<SessionEnd>,
    /// Things a person should know although nothing is lost, such as bins that were put together.
    pub notes: Vec<SkippedReason>,
}

/// A cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// A number.
    Number(Number),
    /// The bins of a histogram.
    Histogram(Histogram),
    /// A value as history holds it.
    Json(Json),
    /// A part of a body; the parts of one row are put together when the row is whole, by [`assemble`].
    MeshPart(Box<MeshPart>),
}

/// A file of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedFile {
    /// Path below the run's `files/`, with `/`: safe on every file system whatever the logs hold, and the same for equal
    /// content of one kind.
    pub path: String,
    /// What it holds.
    pub content: Bytes,
    /// What it is for.
    pub category: FileCategory,
}

/// How a session of a hyperparameter sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionEnd {
    /// It finished.
    Finished,
    /// It failed.
    Failed,
}

/// A value that makes no sense: counted, with this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub String);

impl BadValue {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The tag, as the writer called it.
    pub tag: &'a str,
    /// The key that the tag has in the run's history.
    pub key: &'a str,
    /// The TensorBoard step.
    pub step: i64,
    /// What the names of its files are made from.
    pub names: Names,
}

/// What the names of files are made from. Both give names of the same length, and one name to equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// The SHA-256 of their content, as history tells it.
    Sha256,
    /// A hash that says nothing outside of this process: enough to count different files, in a tenth of the time.
    Passing,
}

/// Carries a point that is no scalar, under the key that its tag has in the run.
pub fn carry_point(point: &Point, key: &str, step: i64, names: Names) -> Result<Carried, BadValue> {
    match &point.value {
        Some(value) => carry(&Subject { tag: &point.tag, key, step, names }, &point.kind, value),
        None => Err(BadValue::new("no value")),
    }
}

/// The name that values of a kind are counted under. What should have been a scalar is counted as one.
pub fn counted_as(kind: &ValueKind) -> &str {
    match kind {
        ValueKind::Bad(_) => ValueKind::Scalar.name(),
        kind => kind.name(),
    }
}

/// The name of the metric that a value belongs to, where that is not the key of its tag: a part of a body belongs to the
/// body.
pub fn metric_of(point: &Point, key: &str) -> Option<String> {
    match (&point.kind, &point.value) {
        (ValueKind::Mesh, Some(value)) => {
            mesh::body_key(&Subject { tag: &point.tag, key, step: 0, names: Names::Sha256 }, value)
        }
        _ => None,
    }
}

/// Carries a value of any kind but a scalar.
pub fn carry(subject: &Subject<'_>, kind: &ValueKind, value: &Value) -> Result<Carried, BadValue> {
    match kind {
        ValueKind::Images => images::carry(subject, value),
        ValueKind::Audio => audio::carry(subject, value),
        ValueKind::Histograms => histograms::carry(subject, value),
        ValueKind::Text => text::carry(subject, value),
        ValueKind::PrCurves => pr_curves::carry(subject, value),
        ValueKind::Mesh => mesh::carry(subject, value),
        ValueKind::HParams => hparams::carry(subject, value),
        ValueKind::CustomScalars => custom_scalars::carry(subject, value),
        ValueKind::Graphs => graphs::carry(subject, value),
        ValueKind::OldHistograms | ValueKind::Tensors | ValueKind::Plugin(_) => tensors::carry(subject, kind, value),
        ValueKind::Scalar => Err(BadValue::new("a scalar without a number")),
        ValueKind::Bad(why) => Err(BadValue::new(why.to_string())),
    }
}

impl Carried {
    /// Counts a value that was read, by what became of it.
    pub fn count(carried: &Result<Self, BadValue>, count: &mut KindCount) {
        count.read += 1;
        match carried {
            Ok(carried) if carried.is_kept() => count.kept += 1,
            Ok(_) => count.sent += 1,
            Err(_) => count.lost += 1,
        }
    }

    /// Whether the value is only kept as files of the run, because W&B has nothing nearer.
    pub fn is_kept(&self) -> bool {
        self.cell.is_none() && self.config.is_empty() && self.session.is_none() && !self.files.is_empty()
    }

    /// Drops all but the first of files that are the same.
    fn with_each_file_once(mut self) -> Self {
        let mut paths = BTreeSet::new();
        self.files.retain(|file| paths.insert(file.path.clone()));
        self
    }
}

impl CarriedFile {
    /// A media file in the directory of its kind, named after its content: equal content has one name.
    fn media(directory: &str, extension: &str, content: Bytes, names: Names) -> (Self, Digested) {
        let digested = Digested::of(&content, names);
        let name = digested.sha256.get(..20).unwrap_or_default();
        let path = format!("media/{directory}/{name}.{extension}");
        (Self { path, content, category: FileCategory::Media }, digested)
    }

    /// A file that is kept as it is because W&B has no type for it: below `tensorboard/`, by kind and tag.
    fn kept(kind: &str, tag: &str, extension: &str, content: Bytes, names: Names) -> Self {
        let digested = Digested::of(&content, names);
        let digest = digested.sha256.get(..12).unwrap_or_default();
        let path = format!("tensorboard/{}/{}-{digest}.{extension}", safe_name(kind), safe_name(tag));
        Self { path, content, category: FileCategory::Other }
    }
}

/// What history says of a file: its digest and its size.
struct Digested {
    /// Lowercase hex.
    sha256: String,
    /// Bytes.
    size: u64,
}

impl Digested {
    fn of(content: &[u8], names: Names) -> Self {
        let mut sha256 = String::with_capacity(64);
        match names {
            Names::Sha256 => Sha256::digest(content).iter().for_each(|byte| {
                // Writing to a string cannot fail.
                let _ = write!(sha256, "{byte:02x}");
            }),
            Names::Passing => {
                let _ = write!(sha256, "{:016x}{:048}", FixedState::default().hash_one(content), 0);
            }
        }
        Self { sha256, size: content.len() as u64 }
    }
}

/// The members that every single media file has in history.
fn media_value(kind: &str, file: &CarriedFile, digested: &Digested) -> BTreeMap<String, Json> {
    BTreeMap::from([
        ("_type".to_owned(), Json::from(kind)),
        ("path".to_owned(), Json::from(file.path.as_str())),
        ("sha256".to_owned(), Json::from(digested.sha256.as_str())),
        ("size".to_owned(), Json::from(i64::try_from(digested.size).unwrap_or(i64::MAX))),
    ])
}

/// A name from a log as one part of a path: letters, digits, `.`, `-` and `_` of it, never longer than 80 bytes, and
/// never a name that means something to a file system.
fn safe_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let safe: String = name.chars().map(plain).take(80).collect();
    if safe.trim_matches('.').is_empty() { format!("_{safe}") } else { safe }
}

/// So many bytes from a place on; `None` where there are fewer.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A text from a log, which need not be UTF-8.
fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_parts_of_paths() {
        for (name, expected) in [
            ("train/loss", "train_loss"),
            ("..", "_.."),
            ("", "_"),
            ("a\0b", "a_b"),
            ("ä", "_"),
            ("x.y-z_1", "x.y-z_1"),
        ] {
            assert_eq!(safe_name(name), expected);
        }
        assert_eq!(safe_name(&"x".repeat(1 << 20)).len(), 80);
    }

    #[test]
    fn equal_content_has_one_name() {
        let (file, digested) = CarriedFile::media("images", "png", Bytes::from_static(b"x"), Names::Sha256);
        assert_eq!(file.path, "media/images/2d711642b726b0440162.png");
        assert_eq!((digested.size, digested.sha256.len()), (1, 64));
    }

    #[test]
    fn passing_names_tell_content_apart_and_are_as_long() {
        let named = |content: &'static str, names| CarriedFile::media("images", "png", Bytes::from(content), names);
        let paths: Vec<String> = ["x", "y", "x"].iter().map(|content| named(content, Names::Passing).0.path).collect();
        assert_eq!((paths[0] == paths[1], &paths[0]), (false, &paths[2]));
        let [(lasting, digest), (passing, hash)] = [Names::Sha256, Names::Passing].map(|names| named("x", names));
        assert_eq!((lasting.path.len(), digest.sha256.len()), (passing.path.len(), hash.sha256.len()));
    }
}

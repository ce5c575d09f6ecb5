//! What stands beside the event files and becomes files of the run: side files are copied when they changed, and the
//! event files themselves are linked when that was asked for.
//!
//! Looked at in the first pass, now and then while the run grows, and when it ends.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::checkpoint::SideMark;
use crate::convert::filters::KindName;
use crate::listings::Listings;
use crate::model::SkippedReason;
use crate::recorder::reasons::place_of_file;
use crate::recorder::{End, Pass, RecordError, Recorder, locked};
use crate::side_files::{self, SideFile, SideFiles, SideKind, safe_path};
use crate::survey::PlannedSource;

/// A growing run is not looked at more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Looking takes at most this part of the time: a run may have thousands of directories.
const SHARE: u32 = 50;

/// What a process remembers between two looks.
#[derive(Debug)]
pub(super) struct Side {
    save_events: bool,
    /// What the directories held when the run was planned: the first look goes by that.
    walked: Arc<Listings>,
    /// When to look again; at once when it was never done.
    next_look: Option<Instant>,
    /// What could not be taken was counted already.
    told: HashSet<PathBuf>,
}

impl Side {
    pub(super) fn new(save_events: bool, walked: Arc<Listings>) -> Self {
        Self { save_events, walked, next_look: None, told: HashSet::new() }
    }
}

impl Recorder {
    /// Copies side files that are new or changed, and links event files. What was taken is named in the log with the
    /// next files. `between` is asked after each file whether to go on; returns what it said.
    pub(super) fn keep_beside(
        &mut self,
        planned: &[PlannedSource],
        end: End,
        pass: &mut Pass,
        between: &mut dyn FnMut(&mut Self, &Pass) -> Result<bool, RecordError>,
    ) -> Result<bool, RecordError> {
        let began = Instant::now();
        if !matches!(end, End::Exit(_)) && self.side.next_look.is_some_and(|next| began < next) {
            return Ok(true);
        }
        let walked = std::mem::take(&mut self.side.walked);
        let found = side_files_of(planned, &walked);
        for (path, why) in found.left {
            if self.side.told.insert(path.clone()) {
                pass.skips.add(SkippedReason::File, 1, || place_of_file(&path, &why));
            }
        }
        for file in found.files {
            self.keep_side_file(file, pass)?;
            if !between(self, pass)? {
                return Ok(false);
            }
        }
        if self.side.save_events {
            planned.iter().try_for_each(|source| self.link_events(source))?;
        }
        self.side.next_look = Some(Instant::now() + LOOK_INTERVAL.max(began.elapsed() * SHARE));
        Ok(true)
    }

    fn keep_side_file(&mut self, file: SideFile, pass: &mut Pass) -> Result<(), RecordError> {
        let mark = mark(&file);
        if self.checkpoint.side_files.get(&file.path) == Some(&mark) {
            return Ok(());
        }
        if !self.filter.takes(kind_of(&file)) {
            let count = pass.kinds.of(file.kind.name());
            count.read += 1;
            count.left_out += 1;
            pass.skips.add(SkippedReason::LeftOut, 1, || format!("`{}`", file.source.display()));
            // Options that decide what is carried stay the same, so it need not be looked at again until it changes.
            self.dirty = true;
            self.checkpoint.side_files.insert(file.path, mark);
            return Ok(());
        }
        let copied = locked(&self.beside).files.copy(&file.source, &file.path, file.size)?;
        let count = pass.kinds.of(file.kind.name());
        match copied {
            Ok(()) => {
                count.read += 1;
                count.kept += 1;
                self.dirty = true;
                self.checkpoint.side_files.insert(file.path, mark);
            }
            Err(error) => {
                if self.side.told.insert(file.source.clone()) {
                    count.read += 1;
                    count.lost += 1;
                    let first = || format!("`{}`: {error}", file.source.display());
                    pass.skips.add(SkippedReason::Unreadable, 1, first);
                }
            }
        }
        Ok(())
    }

    /// The event files of a run have the same places to each other below its `files/`: that is a directory that
    /// TensorBoard can show, and where W&B looks for it.
    fn link_events(&mut self, source: &PlannedSource) -> Result<(), RecordError> {
        // A file that has just gone has no real path; its link leads where it was.
        let Ok(target) = fs::canonicalize(&source.path) else { return Ok(()) };
        let path = safe_path(source.label.split('/').filter(|part| !part.is_empty()).map(OsStr::new));
        let named = self.checkpoint.saved_events.contains(&path);
        locked(&self.beside).files.link(&target, &path, named)?;
        if !named {
            self.dirty = true;
            self.checkpoint.saved_events.insert(path);
        }
        Ok(())
    }
}

/// All side files of the sources' directories, of which some were listed before.
pub fn side_files_of(planned: &[PlannedSource], listings: &Listings) -> SideFiles {
    let mut all = SideFiles::default();
    for (directory, label) in directories_of(planned) {
        let found = side_files::find(&directory, &label, listings);
        all.files.extend(found.files);
        all.left.extend(found.left);
    }
    all
}

/// The kind that a filter knows a side file by.
pub fn kind_of(file: &SideFile) -> KindName {
    match file.kind {
        SideKind::Projector => KindName::Projector,
        SideKind::Profile => KindName::Profile,
    }
}

fn mark(file: &SideFile) -> SideMark {
    let modified = file.modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    SideMark { size: file.size, modified_ns: u64::try_from(modified.as_nanos()).unwrap_or_default() }
}

/// The directories of the sources, with their places below the experiment, and the experiment's own: profiles and
/// projectors often lie there although all event files lie in `train/` and `validation/`.
fn directories_of(planned: &[PlannedSource]) -> BTreeMap<PathBuf, String> {
    let mut directories = BTreeMap::new();
    let mut whole: BTreeSet<&Path> = BTreeSet::new();
    for source in planned {
        let Some(directory) = source.path.parent() else { continue };
        directories.insert(directory.to_owned(), source.directory.clone());
        let parts: Vec<&str> = source.directory.split('/').filter(|part| !part.is_empty()).collect();
        // The label is the tail of the path, unless the file was named through a link.
        let mut above = directory;
        let all_match = parts.iter().rev().all(|part| {
            let matches = above.file_name().is_some_and(|name| name.to_string_lossy() == *part);
            above = above.parent().unwrap_or(Path::new(""));
            matches
        });
        if all_match {
            whole.insert(above);
        }
    }
    for directory in whole {
        directories.entry(directory.to_owned()).or_default();
    }
    directories
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::convert::keys::KeyRule;
    use crate::convert::run_id::Fingerprint;
    use crate::model::WallTime;

    #[test]
    fn the_experiments_own_directory_is_one_of_them() {
        let source = |path: &str, label: &str| PlannedSource {
            path: PathBuf::from(path),
            label: label.to_owned(),
            directory: label.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned(),
            file_name: String::new(),
            fingerprint: Fingerprint::of(b""),
            first_due: WallTime::default(),
            size: 0,
            modified: UNIX_EPOCH,
            identity: (0, 0),
            rule: KeyRule::default(),
            from_tf2_writer: false,
        };
        let check = |sources: &[PlannedSource], expected: &[(&str, &str)]| {
            let found = directories_of(sources);
            let found: Vec<(&str, &str)> =
                found.iter().map(|(path, label)| (path.to_str().unwrap(), label.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(
            &[source("logs/exp/train/f", "train/f"), source("logs/exp/validation/f", "validation/f")],
            &[("logs/exp", ""), ("logs/exp/train", "train"), ("logs/exp/validation", "validation")],
        );
        check(&[source("logs/exp/f", "f")], &[("logs/exp", "")]);
        check(&[source("link/f", "train/f")], &[("link", "train")]);
    }
}

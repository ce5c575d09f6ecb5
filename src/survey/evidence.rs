//! What the beginning of a directory's files shows of how they were made.
//!
//! Reads each file once, and goes on where it stopped while more may decide something: at most
//! [`BEGINNING`] bytes. Does not know what follows from it; that is the business of the layout.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::convert::layout::{Evidence, Session};
use crate::model::WallTime;
use crate::tfevents::{EventFile, EventFileInfo, FilePosition, Next, TagTable, ValueKind};

/// How much of a file is read to see how it was made, in bytes.
const BEGINNING: u64 = 1 << 20;

/// Sessions say so with their first values: this many are looked at once a second tag is there.
const FIRST_VALUES: usize = 256;

const EXPERIMENT: &str = "_hparams_/experiment";
const SESSION_START: &str = "_hparams_/session_start_info";
const SESSION_END: &str = "_hparams_/session_end_info";

/// What is known of files, by path.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    known: HashMap<PathBuf, Beginning>,
    /// Of files that were open anyway, until it is known whether they matter.
    ahead: HashMap<PathBuf, Beginning>,
}

/// What is known of one file.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    identity: (u64, u64),
    /// Size of the file when it was looked at last.
    size: u64,
    shown: Shown,
    /// Where to read on, and with which tags; `None` when more would change nothing.
    more: Option<Box<(FilePosition, TagTable)>>,
}

/// What values show, in the order they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shown {
    values: usize,
    tags: Tags,
    /// What begins a file that `add_hparams` writes: experiment, start and end, in this order.
    experiment: bool,
    start: bool,
    end: bool,
    /// Whether there is anything but descriptions of an experiment.
    more_than_described: bool,
    /// The first values were not such a beginning, or something followed that `add_hparams` does not write.
    in_several_goes: bool,
    /// Tags of metrics that came behind such a beginning.
    metrics: BTreeSet<Arc<str>>,
}

/// The tags of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Tags {
    /// There is no value yet.
    #[default]
    NoneYet,
    /// All values are of this tag.
    One(Arc<str>),
    /// There are several, and that is final.
    Several,
}

impl Tags {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoneYet, tags) | (tags, Self::NoneYet) => tags,
            (Self::One(a), Self::One(b)) if a == b => Self::One(a),
            _ => Self::Several,
        }
    }
}

impl Beginnings {
    /// Reads what is new at the beginning of some files.
    pub(super) fn read<'a>(&mut self, files: impl Iterator<Item = &'a EventFileInfo>) {
        let mut work: Vec<(&EventFileInfo, Option<Beginning>)> = Vec::new();
        for file in files {
            let known = self.known.remove(&file.path).or_else(|| self.ahead.remove(&file.path)).filter(|known| {
                // A file that is shorter than before may have been written anew.
                known.identity == (file.dev, file.inode) && known.size <= file.size
            });
            match known {
                Some(known) if known.more.is_none() || known.size == file.size => {
                    self.known.insert(file.path.clone(), known);
                }
                known => work.push((file, known)),
            }
        }
        let read = |(file, known): (&EventFileInfo, Option<Beginning>)| {
            let mut beginning = known.unwrap_or_else(Beginning::nothing_yet);
            (beginning.identity, beginning.size) = ((file.dev, file.inode), file.size);
            beginning.read_on(&file.path);
            (file.path.clone(), beginning)
        };
        let read: Vec<(PathBuf, Beginning)> = work.into_par_iter().map(read).collect();
        self.known.extend(read);
    }

    /// Takes beginnings that were read ahead of being asked for, in the place of earlier ones.
    pub(super) fn read_ahead(&mut self, beginnings: impl Iterator<Item = (PathBuf, Beginning)>) {
        self.ahead = beginnings.collect();
    }

    /// What the files of one directory show together; `None` while that cannot be said, because a writer has only begun.
    /// They must have been [read](Self::read). `started` is when the first event of all happened.
    pub(super) fn of_directory(&self, files: &[EventFileInfo], started: WallTime) -> Option<Evidence> {
        let shown = || files.iter().filter_map(|file| Some(&self.known.get(&file.path)?.shown));
        if !shown().any(|shown| shown.values > 0) || shown().any(Shown::is_in_the_middle) {
            return None;
        }
        Some(self.so_far(files, started))
    }

    /// The same, as far as it can be said.
    pub(super) fn so_far(&self, files: &[EventFileInfo], started: WallTime) -> Evidence {
        let shown = || files.iter().filter_map(|file| Some(&self.known.get(&file.path)?.shown));
        let tags = shown().fold(Tags::NoneYet, |tags, shown| tags.and(shown.tags.clone()));
        let in_one_go = || shown().filter(|shown| shown.values > 0).all(Shown::is_in_one_go);
        Evidence {
            only_tag: if let Tags::One(tag) = tags { Some(tag.to_string()) } else { None },
            is_bare: shown().all(|shown| !shown.more_than_described),
            session: shown().any(|shown| shown.start).then(|| Session {
                is_claimed: false,
                started,
                in_one_go: in_one_go(),
            }),
        }
    }

    /// Whether writers have described an experiment, and nothing more yet. Files that were not read show nothing.
    pub(super) fn only_describe(&self, files: &[EventFileInfo]) -> bool {
        let shown = || files.iter().filter_map(|file| Some(&self.known.get(&file.path)?.shown));
        shown().any(|shown| shown.values > 0) && shown().all(|shown| !shown.more_than_described)
    }

    /// How many files are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets files that are not there any more.
    pub(super) fn keep(&mut self, is_there: impl Fn(&Path) -> bool) {
        self.known.retain(|path, _| is_there(path));
    }
}

impl Beginning {
    fn nothing_yet() -> Self {
        Self { more: Some(Box::default()), ..Self::default() }
    }

    /// The beginning of a file that is open at its start.
    pub(super) fn of(info: &EventFileInfo, file: EventFile) -> Self {
        let (identity, size) = ((info.dev, info.inode), info.size);
        let mut beginning = Self { identity, size, ..Self::nothing_yet() };
        beginning.read_on_from(|_| Ok(file));
        beginning
    }

    fn read_on(&mut self, path: &Path) {
        self.read_on_from(|position| EventFile::open(path, position));
    }

    fn read_on_from(&mut self, open: impl FnOnce(&FilePosition) -> io::Result<EventFile>) {
        let Some(mut more) = self.more.take() else { return };
        let (position, tags) = &mut *more;
        // A file that cannot be read is no evidence for anything.
        let Ok(mut file) = open(position) else { return self.shown.give_up() };
        while file.offset() < BEGINNING && !self.shown.says_enough() {
            match file.next_event(tags) {
                Ok(Next::Event) => {
                    for point in &file.event().points {
                        self.shown.take(&point.tag, &point.kind);
                    }
                }
                Ok(Next::BadRecord { .. }) => {}
                Ok(Next::NothingYet | Next::Incomplete { .. } | Next::Zeros { .. }) => {
                    *position = file.position();
                    self.more = Some(more);
                    return;
                }
                Ok(Next::BadLength { .. }) => return,
                Err(_) => return self.shown.give_up(),
            }
        }
        // Enough was read, or too much for something that was written in one go.
        self.shown.in_several_goes |= !self.shown.says_enough();
        self.shown.metrics = BTreeSet::new();
    }
}

impl Shown {
    fn take(&mut self, tag: &Arc<str>, kind: &ValueKind) {
        self.values += 1;
        self.tags = std::mem::take(&mut self.tags).and(Tags::One(tag.clone()));
        let began = self.experiment && self.start && self.end;
        match (&**tag, kind) {
            (EXPERIMENT, ValueKind::HParams) => {
                self.in_several_goes |= self.experiment || self.more_than_described;
                self.experiment = true;
                return;
            }
            (SESSION_START, ValueKind::HParams) => {
                self.in_several_goes |= !self.experiment || self.start || self.end;
                self.start = true;
            }
            (SESSION_END, ValueKind::HParams) => {
                self.in_several_goes |= !self.start || self.end;
                self.end = true;
            }
            (_, ValueKind::Scalar) if began && !self.in_several_goes => {
                self.in_several_goes = !self.metrics.insert(tag.clone());
            }
            _ => self.in_several_goes = true,
        }
        self.more_than_described = true;
    }

    /// Whether more values would change nothing.
    fn says_enough(&self) -> bool {
        self.tags == Tags::Several && self.in_several_goes && (self.start || self.values >= FIRST_VALUES)
    }

    /// Whether the values are those of a writer that is in the middle of a session in one go.
    fn is_in_the_middle(&self) -> bool {
        self.experiment && !self.end && !self.in_several_goes
    }

    fn is_in_one_go(&self) -> bool {
        self.experiment && self.start && self.end && !self.in_several_goes
    }

    fn give_up(&mut self) {
        *self = Self {
            values: 1,
            tags: Tags::Several,
            more_than_described: true,
            in_several_goes: true,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[&str]) -> Shown {
        let mut shown = Shown::default();
        for value in values {
            let kind = if value.starts_with("_hparams_") { ValueKind::HParams } else { ValueKind::Scalar };
            shown.take(&Arc::from(*value), &kind);
        }
        shown
    }

    #[test]
    fn what_add_hparams_writes_is_known_by_its_order() {
        let whole = [EXPERIMENT, SESSION_START, SESSION_END, "hparam/loss", "hparam/accuracy"];
        for length in 1..3 {
            assert!(shown(&whole[..length]).is_in_the_middle(), "{length}");
        }
        for length in 3..=whole.len() {
            let shown = shown(&whole[..length]);
            assert!(shown.is_in_one_go() && !shown.is_in_the_middle() && !shown.says_enough(), "{length}");
        }
        for other in [
            // A metric a second time: its writer trains.
            &[EXPERIMENT, SESSION_START, SESSION_END, "loss", "loss"][..],
            &[EXPERIMENT, SESSION_START, SESSION_END, "_hparams_/other"],
            &["loss", EXPERIMENT, SESSION_START, SESSION_END],
            &[SESSION_START, "loss", SESSION_END],
            &[EXPERIMENT, SESSION_START, "loss", SESSION_END],
        ] {
            let shown = shown(other);
            assert!(!shown.is_in_one_go() && !shown.is_in_the_middle() && shown.start, "{other:?}");
            assert!(shown.says_enough(), "{other:?}");
        }
    }

    #[test]
    fn a_description_alone_is_no_data() {
        assert!(!shown(&[EXPERIMENT, EXPERIMENT]).more_than_described);
        assert!(shown(&[EXPERIMENT, "loss"]).more_than_described);
        assert!(shown(&[EXPERIMENT]).is_in_the_middle());
    }
}

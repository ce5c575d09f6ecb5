//! What there is to upload of a log, and what servers acknowledged of it before: looked at, and nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use url::Url;

use crate::artifact::{Attachment, Found};
use crate::model::{Count, Json, LogPosition, SkippedReason, Skips};
use crate::proto::wandb_internal::files_item::PolicyType;
use crate::proto::wandb_internal::record::RecordType;
use crate::state_file::place::StatePlace;
use crate::upload::batch::{BatchBuilder, Pushed};
use crate::upload::files::{FilesPlace, inside};
use crate::upload::fold::{Fold, Policy, RunParameters, is_uploaded_once};
use crate::upload::job::Overrides;
use crate::upload::state::{Base, UploadState, state_path};
use crate::upload::upsert;
use crate::wandb_format::{Entry, EntryKind, LogError, LogReader, Next};

/// A log as an upload would find it.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// The id in its run record; empty when it holds none.
    pub run_id: String,
    /// As the log says; empty: the server's default.
    pub entity: String,
    /// As the log says; empty: the server's default.
    pub project: String,
    /// The name that people see.
    pub name: String,
    /// Empty: none.
    pub group: String,
    /// History lines.
    pub rows: u64,
    /// Size of the config's text, in bytes.
    pub config_bytes: u64,
    /// The files that the run wants to keep.
    pub files: Vec<FileOutlook>,
    /// The places of the artifacts that it records.
    pub artifacts: Vec<LogPosition>,
    /// The exit code, if the log ends with one.
    pub exit: Option<i32>,
    /// What of it is not carried, without its files.
    pub skips: Skips,
    /// Places where bytes are no record, in words.
    pub damage: Vec<String>,
    /// Where a record begins that is not whole.
    pub incomplete: Option<LogPosition>,
}

/// A file of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOutlook {
    /// Path below the run's `files/`.
    pub path: String,
    /// Size in bytes; `None` when it is not there, or not a file.
    pub size: Option<u64>,
    /// The end of the record that names it last.
    pub named_at: LogPosition,
    /// Whether it is uploaded once, and never looked at again.
    pub once: bool,
}

/// What a server acknowledged of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Entity, project and id as the server named them; empty before the first contact.
    pub run_path: String,
    /// History lines.
    pub rows: u64,
    /// Files, by their path below the run's `files/`, without those that are uploaded once.
    pub files: BTreeSet<String>,
    /// Files that could not be uploaded.
    pub failed: BTreeSet<String>,
    /// The places of the artifacts in the log that are there.
    pub artifacts: BTreeSet<LogPosition>,
    /// How far the log was acknowledged.
    pub position: LogPosition,
    /// The exit code with which the run is finished there.
    pub finished: Option<i32>,
    /// What the files looked like of which something else was attached, by its key.
    looks: BTreeMap<String, String>,
}

impl Acknowledged {
    /// Whether the server has a file that the log names.
    pub fn has(&self, file: &FileOutlook) -> bool {
        let by_position = file.once && file.named_at <= self.position && !self.failed.contains(&file.path);
        by_position || self.files.contains(&file.path)
    }

    /// Whether the server has the version that these files make.
    pub fn has_attached(&self, attachment: &Attachment, found: &Found) -> bool {
        let known = self.looks.get(&attachment.key());
        known.is_some_and(|known| found.look().is_ok_and(|look| look == *known))
    }
}

impl Outlook {
    /// Reads a log up to `limit`, and looks for the files that it names. `each` sees every intact record.
    pub fn read(
        log: &Path,
        (files_dir, links): FilesPlace<'_>,
        limit: Option<LogPosition>,
        mut each: impl FnMut(&Entry<'_>),
    ) -> Result<Self, LogError> {
        let mut outlook = Self::default();
        // All lines are counted, and none is kept.
        let mut builder = BatchBuilder::new(Fold::default(), Base::default(), u64::MAX);
        let mut files = BTreeMap::new();
        let mut reader = LogReader::open(log)?;
        reader.set_limit(limit);
        loop {
            match reader.next()? {
                Next::Entry(entry) => {
                    each(&entry);
                    if let EntryKind::Record(record) = &entry.kind
                        && let RecordType::Files(named) = &**record
                    {
                        let named = named.files.iter();
                        files.extend(named.map(|file| (file.path.clone(), (entry.end, file.policy()))));
                    }
                    if builder.push(&entry) == Pushed::Full {
                        drop(builder.finish());
                        // An empty batch has room for any one entry.
                        let _ = builder.push(&entry);
                    }
                }
                Next::End => break,
                Next::Incomplete { at } => {
                    outlook.incomplete = Some(at);
                    break;
                }
                Next::Damaged { from, to, why } => {
                    builder.damaged(from, to, why);
                    outlook.damage.push(format!("bytes {} to {}: {why}", from.0, to.0));
                }
            }
        }
        outlook.take(&builder.finish().after);
        outlook.files =
            files.into_iter().map(|(path, (end, policy))| look_at(path, end, policy, (files_dir, links))).collect();
        Ok(outlook)
    }

    fn take(&mut self, fold: &Fold) {
        let run = fold.run.clone().unwrap_or_default();
        (self.run_id, self.entity, self.project) = (run.run_id, run.entity, run.project);
        (self.name, self.group) = (run.display_name, run.group);
        self.rows = fold.history_lines;
        self.artifacts.clone_from(&fold.artifacts);
        self.config_bytes = text_length(&fold.whole_config());
        self.exit = fold.exit.map(|exit| exit.code);
        self.skips = fold.skips();
    }

    /// Files that the log names and that are not there: an upload would miss them.
    pub fn missing(&self) -> Skips {
        let missing: Vec<&FileOutlook> = self.files.iter().filter(|file| file.size.is_none()).collect();
        let count = missing.len() as u64;
        let first = missing.first().map(|file| format!("`{}` is not there", file.path));
        first.map(|first| (SkippedReason::File, Count { count, first })).into_iter().collect()
    }

    /// What the server acknowledged that an upload would go to.
    pub fn acknowledged(&self, state: &StatePlace, server: &Url, overrides: &Overrides) -> Option<Acknowledged> {
        let own = RunParameters {
            entity: self.entity.clone(),
            project: self.project.clone(),
            run_id: self.run_id.clone(),
            ..RunParameters::default()
        };
        acknowledged(&state_path(state, server, &upsert::target(&own, overrides)))
    }
}

/// What all servers acknowledged of a log, in the order of the states' names.
pub fn all_acknowledged(state: &StatePlace) -> Vec<Acknowledged> {
    state.uploads().iter().filter_map(|path| acknowledged(path)).collect()
}

/// A state that cannot be read is no reason not to look at the log; an upload would say so.
fn acknowledged(path: &Path) -> Option<Acknowledged> {
    let state = UploadState::load(path).ok()??;
    let run = state.run.unwrap_or_default();
    let parts = [run.entity, run.project, run.run_id];
    Some(Acknowledged {
        run_path: if parts.iter().all(String::is_empty) { String::new() } else { parts.join("/") },
        rows: state.fold.history_lines,
        files: state.sent.files.into_keys().collect(),
        failed: state.sent.failed_files,
        artifacts: state.sent.artifacts.into_iter().filter(|(_, note)| note.is_there()).map(|(at, _)| at).collect(),
        position: state.fold.position,
        finished: state.sent.finished,
        looks: state.sent.attached.into_iter().map(|(key, note)| (key, note.look)).collect(),
    })
}

fn look_at(path: String, named_at: LogPosition, policy: PolicyType, (files_dir, links): FilesPlace<'_>) -> FileOutlook {
    let metadata = inside(files_dir, &path, links).and_then(|local| local.metadata().ok());
    FileOutlook {
        size: metadata.filter(|metadata| metadata.is_file()).map(|metadata| metadata.len()),
        named_at,
        once: policy == PolicyType::Now && is_uploaded_once(&path, Policy::Now),
        path,
    }
}

fn text_length(json: &Json) -> u64 {
    let mut text = Vec::new();
    json.write(&mut text);
    text.len() as u64
}

//! What a server is to hold of a run: its logs read to their ends, and what is kept of logs that were deleted. Nothing is
//! changed, and no lock is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::RunName;
use crate::cleaned::Cleaned;
use crate::model::{Json, LogPosition, SkippedReason, Skips};
use crate::proto::wandb_internal::record::RecordType;
use crate::proto::wandb_internal::{ArtifactRecord, FilesRecord};
use crate::state_file::lock::who_holds;
use crate::state_file::place::StatePlace;
use crate::upload::batch::{BatchBuilder, MAX_LINE, Pushed, row};
use crate::upload::cursor::first_run;
use crate::upload::files::{GENERATED, inside};
use crate::upload::fold::{Fold, Inherited, Policy, RunParameters, is_uploaded_once};
use crate::upload::job::Links;
use crate::upload::job::Overrides;
use crate::upload::state::{ArtifactNote, Base, Target, UploadState, state_path};
use crate::upload::upsert;
use crate::verify::{Expected, ExpectedArtifact, ExpectedFile};
use crate::wandb_format::{EntryKind, HistoryLines, LogError, LogReader, Next, first_step};

/// A log of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLog {
    /// The `run-ID.wandb`; it may have been deleted after it arrived.
    pub log: PathBuf,
    /// Where its state is kept.
    pub state: StatePlace,
    /// How far it counts; `None` is to its end.
    pub limit: Option<LogPosition>,
}

/// What a server is to hold of a run.
#[derive(Debug, Default)]
pub struct RunContents {
    /// As the server named it, or as it would be asked for.
    pub name: RunName,
    /// What people see.
    pub display_name: String,
    /// What is compared.
    pub expected: Expected,
    /// What of the logs cannot be on any server.
    pub skips: Skips,
    /// Whether this server acknowledged anything of it.
    pub was_sent: bool,
    /// Versions of artifacts that are not compared, because the logs hold only parts of them.
    pub parts_of_artifacts: u64,
    locks: Vec<PathBuf>,
    links: Links,
}

impl RunContents {
    /// Reads the logs of one run, in the order of their start.
    pub fn read(logs: &[RunLog], server: &Url, overrides: &Overrides, links: Links) -> Result<Self, LogError> {
        let mut contents = Self { links, ..Self::default() };
        let mut before = None;
        for log in logs {
            before = Some(contents.add(log, server, overrides, before)?);
        }
        Ok(contents)
    }

    /// A run of which only the number of rows is known.
    pub fn counted(name: RunName, display_name: String, rows: u64) -> Self {
        let expected = Expected { rows_before: rows, ..Expected::default() };
        Self { name, display_name, expected, ..Self::default() }
    }

    /// Who works on the run now, if it can be told: another process that records or uploads it.
    pub fn held_by(&self) -> Option<String> {
        self.locks.iter().find_map(|lock| who_holds(lock))
    }

    fn add(
        &mut self,
        log: &RunLog,
        server: &Url,
        overrides: &Overrides,
        before: Option<Before>,
    ) -> Result<Before, LogError> {
        // A note that cannot be read says nothing; the log, if there is one, does.
        let cleaned = Cleaned::load(&log.state).ok().flatten();
        if let (Some(limit), Ok(metadata)) = (log.limit, log.log.metadata())
            && metadata.len() < limit.0
        {
            return Err(LogError::Shorter { length: metadata.len(), position: limit.0 });
        }
        let is_there = log.log.is_file() && log.limit != Some(LogPosition(0));
        let own = match &cleaned {
            Some(cleaned) => RunParameters {
                entity: cleaned.entity.clone(),
                project: cleaned.project.clone(),
                run_id: cleaned.run_id.clone(),
                ..RunParameters::default()
            },
            None => first_run(&log.log, log.limit, &CancellationToken::new())?.unwrap_or_default(),
        };
        let target = upsert::target(&own, overrides);
        let path = state_path(&log.state, server, &target);
        self.locks.extend([path.with_extension("lock"), log.state.writer_lock()]);
        let state = UploadState::load(&path).ok().flatten();
        let is_of = |state: &UploadState| state.mark.is_none_or(|mark| cleaned.is_some() || mark.is_of(&log.log));
        let state = state.filter(is_of).unwrap_or_default();
        self.was_sent |= state.run.is_some();
        self.name = name_of(target, &state);

        let rewinds = own.rewind_to();
        let base = match (state.run.as_ref(), &before) {
            (Some(run), _) => run.base,
            (None, Some(before)) if rewinds.is_none() => before.base_of_next(&log.log),
            (None, _) => {
                let rewound = rewinds.map(|step| (step as i64).saturating_add(1));
                Base { first_step: first_step(&log.log).or(rewound).unwrap_or_default(), ..Base::default() }
            }
        };
        if let Some(step) = rewinds {
            self.expected.rows.rewind(step);
        }
        let mut fold = Fold::default();
        let mut rows_gone = 0;
        if let Some(cleaned) = &cleaned {
            // The state may have lines of the new log in it already; of the old ones there are as many as the note says.
            rows_gone = cleaned.rows;
            fold.inherit(inherited(&state.fold, true));
            fold.inherit_metrics(&state.fold);
            self.add_what_was_sent(&state);
        } else if let Some(before) = &before {
            fold.inherit(inherited(&before.fold, rewinds.is_none()));
        }
        let mut after = state.fold.clone();
        if is_there {
            after = self.read_log(log, fold, base, &state)?;
        } else if cleaned.is_some() {
            self.expected.exit = state.sent.finished;
        }
        for (key, note) in &state.sent.attached {
            self.expected.artifacts.extend(attached(key, &note.digest));
        }
        self.take(&after, &state, base);
        let own = match (is_there, cleaned.is_some()) {
            (false, _) => 0,
            (true, true) => self.expected.rows.count(),
            (true, false) => after.history_lines,
        };
        let total = base.history + rows_gone + own;
        self.expected.rows_before = total.saturating_sub(self.expected.rows.count());
        Ok(Before { total, base, fold: after })
    }

    fn read_log(&mut self, log: &RunLog, fold: Fold, base: Base, state: &UploadState) -> Result<Fold, LogError> {
        let files_dir = log.log.parent().unwrap_or(Path::new(".")).join("files");
        // All lines are counted, and none is kept in batches.
        let mut builder = BatchBuilder::new(fold, base, u64::MAX);
        let mut reader = LogReader::open(&log.log)?;
        reader.set_limit(log.limit);
        let (mut lines, mut line, mut latest) = (HistoryLines::default(), Vec::new(), None);
        let mut files = BTreeMap::new();
        loop {
            match reader.next()? {
                Next::Entry(entry) => {
                    match &entry.kind {
                        EntryKind::History(bytes) => {
                            let made = row(&mut lines, bytes, base.least_step(latest), &mut line);
                            if line.len() <= MAX_LINE {
                                latest = made.step.or(latest);
                                self.expected.rows.push(made.step, &line);
                            }
                        }
                        EntryKind::Record(record) => match &**record {
                            RecordType::Files(named) => files.extend(policies(named)),
                            RecordType::Artifact(artifact) => self.add_artifact(artifact),
                            _ => {}
                        },
                        EntryKind::Summary(_) | EntryKind::Unknown(_) => {}
                    }
                    if builder.push(&entry) == Pushed::Full {
                        drop(builder.finish());
                        // An empty batch has room for any one entry.
                        let _ = builder.push(&entry);
                    }
                }
                Next::End => break,
                Next::Incomplete { at } => {
                    self.skips.add(SkippedReason::IncompleteTail, 1, || format!("at byte {}", at.0));
                    break;
                }
                Next::Damaged { from, to, why } => builder.damaged(from, to, why),
            }
        }
        let fold = builder.finish().after;
        self.skips.merge(&fold.skips());
        let last = fold.exit.or(fold.passed_exit);
        let exit = last.filter(|exit| !exit.not_complete).map(|exit| exit.code);
        // A log without an exit may have been closed by whoever sent it.
        self.expected.exit = exit.or(state.sent.finished);
        self.add_files(files, &files_dir, state, last.is_some() || self.expected.exit.is_some());
        Ok(fold)
    }

    fn add_files(&mut self, named: BTreeMap<String, Policy>, files_dir: &Path, state: &UploadState, ended: bool) {
        for (path, policy) in named {
            if policy == Policy::End && !ended {
                continue;
            }
            let local = inside(files_dir, &path, self.links).filter(|local| local.is_file());
            let size = local.as_ref().and_then(|local| local.metadata().ok()).map(|metadata| metadata.len());
            let changes = !ended && !is_uploaded_once(&path, policy);
            let size = size.or_else(|| state.sent.files.get(&path).map(|mark| mark.size));
            self.expected.files.insert(path, ExpectedFile { local, size, md5: None, changes });
        }
    }

    /// What is known of files and artifacts of logs that were deleted.
    fn add_what_was_sent(&mut self, state: &UploadState) {
        for (path, mark) in &state.sent.files {
            self.expected.files.insert(path.clone(), ExpectedFile { size: Some(mark.size), ..ExpectedFile::default() });
        }
        for note in state.sent.artifacts.values() {
            if let ArtifactNote::Done(id) = note {
                self.expected.artifacts.push(ExpectedArtifact { id: Some(id.clone()), ..ExpectedArtifact::default() });
            }
        }
    }

    fn add_artifact(&mut self, record: &ArtifactRecord) {
        if !record.finalize || record.incremental_beta1 || !record.distributed_id.is_empty() {
            self.parts_of_artifacts += 1;
            return;
        }
        let (kind, name, digest) = (record.r#type.clone(), record.name.clone(), record.digest.clone());
        let artifact = ExpectedArtifact { kind, name, digest, id: None };
        if !self.expected.artifacts.contains(&artifact) {
            self.expected.artifacts.push(artifact);
        }
    }

    /// What the run is after a log.
    fn take(&mut self, fold: &Fold, state: &UploadState, base: Base) {
        let run = fold.run.clone().unwrap_or_default();
        if !run.display_name.is_empty() {
            self.display_name = run.display_name;
        }
        // One that is too large is not sent, and that is said when it is.
        self.expected.summary = match state.sent.summary_too_large {
            Some(_) => Json::object(),
            None => fold.summary().into_owned(),
        };
        self.expected.config = fold.whole_config();
        self.expected.events = base.events + fold.events_lines;
        self.expected.console = base.console + fold.console.count();
        if self.expected.exit.is_none() {
            return;
        }
        // These are made anew by whoever ends the run, so their content is that client's.
        let environment = fold.environment().is_some();
        for path in GENERATED {
            let is_made = match path {
                "wandb-metadata.json" => environment,
                "output.log" => !fold.console.is_empty(),
                _ => true,
            };
            let is_named = self.expected.files.get(path).is_some_and(|file| file.local.is_some());
            if is_made && !is_named {
                let size = state.sent.files.get(path).map(|mark| mark.size);
                self.expected.files.insert(path.to_owned(), ExpectedFile { size, ..ExpectedFile::default() });
            }
        }
    }
}

/// What is known of a run after one of its logs.
struct Before {
    total: u64,
    base: Base,
    fold: Fold,
}

impl Before {
    /// Where a log begins that goes on with the run, when nothing is known of its upload.
    fn base_of_next(&self, log: &Path) -> Base {
        let next = self.fold.implied_step().map_or(0, |step| step.saturating_add(1));
        Base {
            history: self.total,
            events: self.base.events + self.fold.events_lines,
            console: self.base.console + self.fold.console.count(),
            first_step: first_step(log).unwrap_or(next),
        }
    }
}

fn name_of(target: Target, state: &UploadState) -> RunName {
    match &state.run {
        Some(run) => RunName { entity: run.entity.clone(), project: run.project.clone(), run_id: run.run_id.clone() },
        None => RunName { entity: target.entity, project: target.project, run_id: target.run_id },
    }
}

fn inherited(fold: &Fold, with_summary: bool) -> Inherited {
    let summary = if with_summary { fold.summary().into_owned() } else { Json::default() };
    Inherited { config: fold.whole_config(), summary }
}

/// What was attached, by its key: `kind:name=files`.
fn attached(key: &str, digest: &str) -> Option<ExpectedArtifact> {
    let (kind, rest) = key.split_once(':')?;
    let (name, _) = rest.split_once('=')?;
    Some(ExpectedArtifact { kind: kind.to_owned(), name: name.to_owned(), digest: digest.to_owned(), id: None })
}

fn policies(named: &FilesRecord) -> impl Iterator<Item = (String, Policy)> {
    use crate::proto::wandb_internal::files_item::PolicyType;
    named.files.iter().map(|file| {
        let policy = match file.policy() {
            PolicyType::Now => Policy::Now,
            PolicyType::Live => Policy::Live,
            PolicyType::End => Policy::End,
        };
        (file.path.clone(), policy)
    })
}

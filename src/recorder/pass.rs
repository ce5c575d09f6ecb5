//! A pass: the sources of a run are read and merged, and rows appended, with a commit now and then.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::checkpoint::SourceCheckpoint;
use crate::convert::filters::KindName;
use crate::convert::merge::Merge;
use crate::convert::restarts::Restarts;
use crate::convert::rows::SourceRow;
use crate::model::{Kinds, LogPosition, RowValue, Skips};
use crate::recorder::places::places_of;
use crate::recorder::source::{Shared, Source};
use crate::recorder::{RecordError, Recorder, ToScan, Written, find_superseded, locked};
use crate::survey::PlannedSource;
use crate::tfevents::{EventFile, Next, TagTable, ValueKind};

/// Rows between two commits of a long pass. A commit costs an `fsync`; a crash costs reading this many rows again.
pub(super) const ROWS_PER_COMMIT: u64 = 100_000;

/// Rows between two questions whether to go on.
pub(super) const ROWS_PER_QUESTION: u64 = 4096;

/// How a pass ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The last row of a step stays open: its writer may be in the middle of it.
    KeepRow,
    /// The open row is closed: nothing came for a while.
    CloseRow,
    /// The run ends with this exit code.
    Exit(i32),
}

/// A row that waits for more values of its step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRow<'a> {
    /// The file that it is read from.
    pub path: &'a Path,
    /// When its first value was read.
    pub opened: Instant,
    /// When its file last had anything new.
    pub grown: Instant,
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pass {
    /// Events read, of any kind.
    pub events: u64,
    /// What became of the values, by kind.
    pub kinds: Kinds,
    /// Files of the run that were written.
    pub files: Written,
    /// Rows appended.
    pub rows: u64,
    /// Bytes read from event files.
    pub bytes: u64,
    /// By how much the log grew.
    pub log_bytes: u64,
    /// What was not carried.
    pub skips: Skips,
    /// What earlier processes could not carry of the same files: it is not there yet.
    pub known: Skips,
}

impl Pass {
    /// Adds another pass.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.kinds.merge(&other.kinds);
        self.files.files += other.files.files;
        self.files.bytes += other.files.bytes;
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.log_bytes += other.log_bytes;
        self.skips.merge(&other.skips);
        self.known.merge(&other.known);
    }
}

impl Recorder {
    /// Reads what is new in the sources, to the end of what is there now. `committed` is called after each commit with
    /// the position up to which the log may be read. `go_on` is asked now and then, and told how far the pass is; a pass
    /// that is told to stop commits what it has.
    ///
    /// What it did comes back also when it fails: all that was committed before.
    pub fn pass(
        &mut self,
        planned: &[PlannedSource],
        end: End,
        committed: impl FnMut(LogPosition),
        go_on: impl Fn(&Pass) -> bool,
    ) -> (Pass, Result<(), RecordError>) {
        let mut pass = Pass::default();
        let result = self.unless_broken(|this| this.pass_into(&mut pass, planned, end, committed, go_on));
        // A dry run commits nothing.
        let end = if self.dry_run { self.sink.position().0.0 } else { self.checkpoint.position.0 };
        pass.log_bytes = end.saturating_sub(self.counted_to);
        self.counted_to = end;
        (pass, result)
    }

    fn pass_into(
        &mut self,
        pass: &mut Pass,
        planned: &[PlannedSource],
        end: End,
        mut committed: impl FnMut(LogPosition),
        go_on: impl Fn(&Pass) -> bool,
    ) -> Result<(), RecordError> {
        let ready = self.ready_sources(planned, end);
        // Sources that cannot be resumed right after their last row, because an event was split between two rows.
        let mut split = ready.iter().filter(|source| source.resume_at.is_none()).count();
        let mut merge = Merge::new(ready);
        // What was appended since the last commit.
        let mut since = Appended::default();
        let mut unasked = 0;
        let mut result = Ok(());
        let mut stopped = false;
        // What cannot be read is counted; what fails is writing the files that rows speak of.
        while let Some((index, row)) = merge.next_row().unwrap_or_else(|error| {
            result = Err(error);
            None
        }) {
            if let Some(source) = merge.source_mut(index) {
                let (was_known, is_known) = source.take(row.resume_at);
                split -= usize::from(!was_known);
                split += usize::from(!is_known);
            }
            if row.values.is_empty() {
                // Nothing could be made of the parts of its body, or much was read without any row.
                unasked = ROWS_PER_QUESTION;
            } else {
                unasked += 1;
                since.add(&row);
                result = self.write_row(row);
            }
            let due = since.rows >= ROWS_PER_COMMIT || self.is_due();
            if result.is_ok() && split == 0 && due {
                merge.sources_mut().iter_mut().for_each(|source| self.checkpoint_source(source));
                result = self.commit(&mut committed);
                if result.is_ok() {
                    since.count(pass);
                    self.count_files(pass);
                    merge.sources_mut().iter_mut().for_each(|source| source.count_taken(pass));
                    unasked = ROWS_PER_QUESTION;
                }
            }
            if result.is_ok() && split == 0 && unasked >= ROWS_PER_QUESTION {
                unasked = 0;
                let bytes = merge.sources_mut().iter().map(|source| source.bytes()).sum();
                stopped = !go_on(&Pass { bytes, rows: pass.rows + since.rows, ..Pass::default() });
            }
            if stopped || result.is_err() {
                break;
            }
        }
        let mut of_sources = Pass::default();
        for mut source in merge.into_sources() {
            if result.is_err() {
                pass.known.merge(&source.take_known());
                continue;
            }
            source.end_pass(&mut of_sources, !stopped);
            self.checkpoint_source(&mut source);
            // A pass that was stopped drops what it had read ahead; then the checkpoint says where to read on.
            if !stopped {
                self.sources.push(source);
            }
        }
        result?;
        if !stopped {
            stopped = !self.keep_beside(planned, end, &mut of_sources, &mut |this, of_sources| {
                Ok(!this.is_due() || {
                    this.commit(&mut committed)?;
                    since.count(pass);
                    go_on(&Pass { bytes: of_sources.bytes, rows: pass.rows, ..Pass::default() })
                })
            })?;
        }
        if matches!(end, End::Exit(_)) && !stopped {
            self.record_attachments(&mut of_sources)?;
        }
        // Whatever is written has its place before the exit record.
        self.write_beside()?;
        if let (End::Exit(code), false) = (end, stopped) {
            self.exit(if code == 0 { self.session_code() } else { code })?;
        }
        self.commit(&mut committed)?;
        since.count(pass);
        self.count_files(pass);
        pass.merge(&of_sources);
        Ok(())
    }

    fn count_files(&self, pass: &mut Pass) {
        let Written { files, bytes } = locked(&self.beside).files.take_count();
        pass.files.files += files;
        pass.files.bytes += bytes;
    }

    /// Reads all there is, if filters leave out all of it; `None` as soon as anything is not. For a dry run.
    pub fn pass_if_all_is_left_out(&mut self, planned: &[PlannedSource]) -> Option<Pass> {
        let mut pass = Pass::default();
        let mut merge = Merge::new(self.ready_sources(planned, End::CloseRow));
        while let Some((index, row)) = merge.next_row().ok()? {
            if !row.values.is_empty() {
                return None;
            }
            merge.source_mut(index)?.take(row.resume_at);
        }
        for mut source in merge.into_sources() {
            source.end_pass(&mut pass, true);
            source.count_hindrance(true, &mut pass.skips);
            self.checkpoint_source(&mut source);
        }
        // Files beside the events alone make a run only where they were asked for.
        if [KindName::Projector, KindName::Profile].into_iter().any(|kind| self.filter.asks_for(kind)) {
            self.keep_beside(planned, End::CloseRow, &mut pass, &mut |_, _| Ok(true)).ok()?;
        }
        let sum = pass.kinds.sum();
        (sum.left_out > 0 && sum.left_out == sum.read).then_some(pass)
    }

    /// The sources of a pass: those that are known go on where they were, in the order that breaks ties.
    fn ready_sources(&mut self, planned: &[PlannedSource], end: End) -> Vec<Source> {
        let mut known: HashMap<usize, Source> = self.sources.drain(..).map(|source| (source.index, source)).collect();
        let indexes = places_of(&mut self.checkpoint.sources, planned, goes_on);
        let mut ready: Vec<Source> = Vec::with_capacity(planned.len());
        for (plan, index) in planned.iter().zip(indexes) {
            let Some(checkpoint) = self.checkpoint.sources.get(index) else { continue };
            let mut source = known.remove(&index).unwrap_or_else(|| {
                // The names of the first look count, whatever path named the files this time.
                let directory = checkpoint.directory();
                let saved = self.checkpoint.tags.get(directory);
                let tags = self
                    .tags
                    .entry(directory.to_owned())
                    .or_insert_with(|| Arc::new(Mutex::new(saved.cloned().unwrap_or_default())));
                let shared = Shared {
                    axes: self.axes.clone(),
                    tags: tags.clone(),
                    beside: self.beside.clone(),
                    filter: self.filter.clone(),
                    open_files: self.open_files.clone(),
                    max_record: self.max_record,
                };
                let mut source = Source::new(index, plan, checkpoint, shared);
                if !self.begun.insert(index) {
                    // A pass that was stopped let it go.
                    source.forget_known();
                }
                source
            });
            source.start_pass(plan, end);
            ready.push(source);
        }
        if self.checkpoint.shape.restarts == Restarts::Purge {
            self.purge(planned, &mut ready);
        }
        // Files that are gone keep their place: a file may come back. But no row waits for that.
        for mut source in known.into_values() {
            if source.has_open_row() && source.is_gone() {
                source.end_here();
                ready.push(source);
            } else {
                self.sources.push(source);
            }
        }
        ready.sort_by(|a, b| a.tie_break().cmp(&b.tie_break()));
        ready
    }

    /// Tells the sources, which stand in the order of the plan, what later starts superseded. What was recorded before
    /// stays: then the steps of the restart are steps that were passed already.
    fn purge(&self, planned: &[PlannedSource], ready: &mut [Source]) {
        if ready.iter().all(Source::has_nothing_new) {
            return;
        }
        let files: Vec<ToScan<'_>> = planned
            .iter()
            .zip(&*ready)
            .filter_map(|(plan, source)| Some(ToScan { plan, rule: &self.checkpoint.sources.get(source.index)?.rule }))
            .collect();
        for (source, superseded) in ready.iter_mut().zip(find_superseded(&files, &self.axes, self.max_record)) {
            source.set_superseded(superseded);
        }
    }

    fn checkpoint_source(&mut self, source: &mut Source) {
        for metric in source.take_new_metrics() {
            if !self.converter.state().steps.contains_key(&*metric) {
                self.checkpoint.other_keys.insert(metric.to_string());
            }
        }
        self.checkpoint.session = source.session().or(self.checkpoint.session);
        let Some(saved) = self.checkpoint.sources.get_mut(source.index) else { return };
        if let Some(position) = source.position() {
            let lost = source.lost();
            self.dirty |= saved.position != position || saved.lost != lost;
            saved.position = position;
            saved.lost = lost;
            saved.latest = source.latest();
            saved.seen_size = source.recorded_size();
        }
    }
}

/// Rows that were appended, and the scalars in them.
#[derive(Default)]
struct Appended {
    rows: u64,
    scalars: u64,
}

impl Appended {
    fn add(&mut self, row: &SourceRow) {
        self.rows += 1;
        self.scalars += row.values.iter().filter(|(_, value)| matches!(value, RowValue::Number(_))).count() as u64;
    }

    /// They were committed.
    fn count(&mut self, pass: &mut Pass) {
        let Self { rows, scalars } = std::mem::take(self);
        pass.rows += rows;
        if scalars > 0 {
            let counted = pass.kinds.of(ValueKind::Scalar.name());
            counted.read += scalars;
            counted.sent += scalars;
        }
    }
}

/// Whether a file goes on where another one was read to, which had another name.
fn goes_on(source: &SourceCheckpoint, plan: &PlannedSource) -> bool {
    let position = &source.position;
    if position.offset == 0 {
        return true;
    }
    let is_long_enough = position.before.is_some() || plan.size >= source.seen_size;
    let mut tags = TagTable::default();
    is_long_enough
        && EventFile::open(&plan.path, position)
            .and_then(|mut file| file.next_event(&mut tags).map(|next| (file, next)))
            .and_then(|(mut file, next)| Ok(next != Next::NothingYet || !file.is_too_short()?))
            .unwrap_or(false)
}

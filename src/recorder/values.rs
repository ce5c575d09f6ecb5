//! The values of one event, on their way into a row: files are written, config is set aside, and all is counted.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::convert::kinds::{Carried, Cell, Names, SessionEnd, assemble, carry_point, counted_as};
use crate::convert::rows::{RowBuilder, SourceRow};
use crate::model::{Json, Kinds, SkippedReason, Skips};
use crate::recorder::RecordError;
use crate::recorder::reasons::place_of_value;
use crate::recorder::run_files::RunFiles;
use crate::tfevents::{SourceEvent, ValueKind};

/// What stands beside the rows of a run: shared by its sources.
#[derive(Debug)]
pub(super) struct Beside {
    /// Files that rows speak of.
    pub(super) files: RunFiles,
    /// Config that is to be written before the next commit.
    pub(super) config: Vec<(Vec<String>, Json)>,
}

/// What became of the values of one source in a pass.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// All but scalars, which are counted when their rows are written.
    pub(super) kinds: Kinds,
    /// How the training session says that it ended.
    pub(super) session: Option<SessionEnd>,
}

impl Values {
    /// The cells of an event that holds more than scalars, of those values that are `taken`.
    pub(super) fn cells(
        &mut self,
        event: &SourceEvent,
        taken: Option<&[bool]>,
        path: &Path,
        rows: &mut RowBuilder,
        beside: &Mutex<Beside>,
        skips: &mut Skips,
    ) -> Result<Vec<(Arc<str>, Cell)>, RecordError> {
        let mut cells = Vec::with_capacity(event.points.len());
        let is_taken = |index: usize| taken.is_none_or(|taken| taken.get(index) == Some(&true));
        for (_, point) in event.points.iter().enumerate().filter(|(index, _)| is_taken(*index)) {
            if let Some(number) = point.number {
                cells.push((point.tag.clone(), Cell::Number(number)));
                continue;
            }
            let first = |why: &dyn std::fmt::Display| place_of_value(path, event.at, &point.tag, why);
            let carried = carry_point(point, &rows.key(&point.tag), event.step.0, Names::Sha256);
            Carried::count(&carried, self.kinds.of(counted_as(&point.kind)));
            let Carried { cell, files, config, session, notes } = match carried {
                Ok(carried) => carried,
                Err(why) => {
                    skips.add(SkippedReason::BadValue, 1, || first(&why));
                    continue;
                }
            };
            for note in notes {
                skips.add(note, 1, || first(&"carried all the same"));
            }
            self.session = session.or(self.session);
            let mut beside = beside.lock().unwrap_or_else(PoisonError::into_inner);
            for file in files {
                beside.files.put(file)?;
            }
            beside.config.extend(config);
            cells.extend(cell.map(|cell| (point.tag.clone(), cell)));
        }
        Ok(cells)
    }

    /// Puts together what came in parts, now that the row is whole.
    /// `kinds` is where they were counted.
    pub(super) fn finish(
        &mut self,
        row: &mut SourceRow,
        path: &Path,
        beside: &Mutex<Beside>,
        kinds: &mut Kinds,
        skips: &mut Skips,
    ) -> Result<(), RecordError> {
        for assembled in assemble(std::mem::take(&mut row.parts)) {
            match assembled.body {
                Ok((value, files)) => {
                    let mut beside = beside.lock().unwrap_or_else(PoisonError::into_inner);
                    for file in files {
                        beside.files.put(file)?;
                    }
                    // A body may have the name of another metric, or of the axis.
                    let mut key = assembled.key;
                    while *key == *row.axis || row.values.iter().any(|(known, _)| *key == **known) {
                        key.push_str("/body");
                    }
                    row.values.push((key.into(), value.into()));
                }
                Err(why) => {
                    let count = kinds.of(ValueKind::Mesh.name());
                    count.sent = count.sent.saturating_sub(assembled.parts);
                    count.lost += assembled.parts;
                    skips.add(SkippedReason::BadValue, assembled.parts, || {
                        format!("`{}`: `{}` at step {}: {why}", path.display(), assembled.key, row.axis_value)
                    });
                }
            }
        }
        Ok(())
    }
}

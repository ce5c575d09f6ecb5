//! Runs whose log was deleted because all of it had arrived: what their state says of them.

use std::path::Path;

use serde::Serialize;

use super::log::UploadSeen;
use super::seen::SeenAs;
use crate::checkpoint::Checkpoint;
use crate::cleaned::Cleaned;
use crate::commands::ui::{RunReport, RunState};
use crate::state_file::place::StateHome;
use crate::upload::all_acknowledged;

/// A run directory without a log.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "cleaned")]
pub(crate) struct CleanedSeen {
    #[serde(flatten)]
    pub(crate) seen_as: SeenAs,
    /// How many logs were deleted, and the rows that they held.
    pub(crate) logs: u32,
    pub(crate) rows: u64,
    pub(crate) exit_code: Option<i32>,
    pub(crate) uploads: Vec<UploadSeen>,
}

/// Reads the state of a run; `None` where it cannot be read.
pub(crate) fn look_at_cleaned(directory: &Path, state: &StateHome) -> Option<CleanedSeen> {
    let place = state.of(directory);
    let note = Cleaned::load(&place).ok()??;
    // Only runs of ours have one.
    let checkpoint = Checkpoint::load(&place).ok().flatten();
    let description = checkpoint.as_ref().map(|checkpoint| checkpoint.description.clone()).unwrap_or_default();
    Some(CleanedSeen {
        seen_as: SeenAs {
            source: directory.display().to_string(),
            run_id: note.run_id,
            name: description.name,
            group: description.group,
            entity: note.entity,
            project: note.project,
        },
        logs: note.logs,
        rows: note.rows,
        exit_code: checkpoint.and_then(|checkpoint| checkpoint.ending).map(|ending| ending.code),
        uploads: all_acknowledged(&place).into_iter().map(|known| UploadSeen::new(known, None)).collect(),
    })
}

impl CleanedSeen {
    /// What `sync` says of a run that it leaves out because there is nothing to send.
    pub(crate) fn report(self) -> RunReport {
        let SeenAs { source, run_id, name, group, entity, project } = self.seen_as;
        let path = self.uploads.into_iter().map(|upload| upload.run_path).find(|path| !path.is_empty());
        RunReport {
            run_path: path.unwrap_or_else(|| format!("{entity}/{project}/{run_id}")),
            name,
            group: Some(group).filter(|group| !group.is_empty()),
            dir: Some(source.clone()),
            state: RunState::Skipped,
            ..RunReport::new(source, run_id)
        }
    }
}

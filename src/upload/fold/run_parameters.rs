//! What describes a run, from its run records.

use serde::{Deserialize, Serialize};

use crate::proto::wandb_internal::RunRecord;
use crate::upload::fold::nanoseconds;

/// What describes a run. Empty is unset.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct RunParameters {
    pub(crate) run_id: String,
    pub(crate) entity: String,
    pub(crate) project: String,
    pub(crate) group: String,
    pub(crate) job_type: String,
    pub(crate) display_name: String,
    pub(crate) notes: String,
    pub(crate) tags: Vec<String>,
    pub(crate) sweep: String,
    pub(crate) host: String,
    pub(crate) commit: String,
    pub(crate) repository: String,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start_time: Option<i64>,
    /// It goes on with a run of before, if there is one.
    #[serde(default)]
    pub(crate) resume: bool,
    /// The run and the step behind which it goes on in its own way; the same run is one that is wound back.
    #[serde(default)]
    pub(crate) branch: Option<(String, f64)>,
}

impl RunParameters {
    /// The step that the run is to be wound back to, where the log says so.
    pub(crate) fn rewind_to(&self) -> Option<f64> {
        self.branch.as_ref().filter(|(run, _)| *run == self.run_id).map(|(_, step)| *step)
    }

    /// Takes over what a record says. A later one may be filled in part.
    pub(super) fn apply(&mut self, record: &RunRecord) {
        let git = record.git.clone().unwrap_or_default();
        for (place, value) in [
            (&mut self.run_id, &record.run_id),
            (&mut self.entity, &record.entity),
            (&mut self.project, &record.project),
            (&mut self.group, &record.run_group),
            (&mut self.job_type, &record.job_type),
            (&mut self.display_name, &record.display_name),
            (&mut self.notes, &record.notes),
            (&mut self.sweep, &record.sweep_id),
            (&mut self.host, &record.host),
            (&mut self.commit, &git.commit),
            (&mut self.repository, &git.remote_url),
        ] {
            if !value.is_empty() {
                place.clone_from(value);
            }
        }
        if !record.tags.is_empty() {
            self.tags.clone_from(&record.tags);
        }
        self.start_time = record.start_time.as_ref().map(nanoseconds).or(self.start_time);
        self.resume |= record.resume;
        if let Some(point) = &record.branch_point {
            self.branch = Some((point.run.clone(), point.value));
        }
    }
}

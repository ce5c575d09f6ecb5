//! What a run is called, where it is sent and what its config says: what was asked for, laid over what is recorded.

use crate::checkpoint::Description;
use crate::cleaned::Cleaned;
use crate::convert::config;
use crate::convert::summaries::SummaryRule;
use crate::model::{Host, Json, RunInfo, RunUpdate};
use crate::recorder::numbers::numbers_of;
use crate::recorder::{RecordError, Recorder};
use crate::wandb_format::unmark_synced;

/// A run as it is described now: what was asked for, and the default for what was not.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// Used when the run is new.
    pub default: Description,
    /// Values that were asked for: they also change a run that is there already.
    pub asked: AskedDescription,
    /// What files and flags say of its config.
    pub config: Json,
}

/// The parts of a description that were asked for.
#[derive(Debug, Clone, Default)]
pub struct AskedDescription {
    /// `--run-name`
    pub name: Option<String>,
    /// `--group`
    pub group: Option<String>,
    /// `--job-type`
    pub job_type: Option<String>,
    /// `--notes`
    pub notes: Option<String>,
    /// `--tags`
    pub tags: Option<Vec<String>>,
    /// `--entity`
    pub entity: Option<String>,
    /// `--project`
    pub project: Option<String>,
}

impl AskedDescription {
    /// Replaces what was asked for.
    pub fn apply(&self, description: &mut Description) {
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut description.name, &self.name);
        set(&mut description.group, &self.group);
        set(&mut description.job_type, &self.job_type);
        set(&mut description.notes, &self.notes);
        if let Some(tags) = &self.tags {
            description.tags.clone_from(tags);
        }
    }
}

impl Recorder {
    /// Takes other rules for the summary. The rows stay what they are; what the summary says of them is read from the log.
    pub(super) fn summarize_anew(&mut self, rules: &[SummaryRule]) -> Result<(), RecordError> {
        if Cleaned::is_there(&self.place) {
            return Err(RecordError::RowsAreGone);
        }
        self.checkpoint.summaries = rules.to_vec();
        self.dirty = true;
        let metrics = self.converter.metrics_summarized_anew(rules);
        let mut numbers = Default::default();
        if !metrics.is_empty() && !self.dry_run {
            self.reopen()?;
            numbers = numbers_of(&self.log, self.checkpoint.position, metrics)
                .map_err(|source| RecordError::Log { path: self.log.clone(), source })?;
        }
        let mut updates = Vec::new();
        self.converter.summarize_anew(rules.to_vec(), numbers, |update| updates.push(update));
        updates.iter().try_for_each(|update| self.write(update))
    }

    /// Remembers where the run is to be sent from now on. Nothing of the log changes, but it is not whole there.
    pub(super) fn set_target(&mut self, asked: &AskedDescription) -> Result<(), RecordError> {
        let mut target = self.checkpoint.target();
        for (place, asked) in [(&mut target.entity, &asked.entity), (&mut target.project, &asked.project)] {
            if let Some(asked) = asked {
                place.clone_from(asked);
            }
        }
        if target == self.checkpoint.target() {
            return Ok(());
        }
        self.checkpoint.target = Some(target);
        self.dirty = true;
        if !self.dry_run && std::mem::take(&mut self.marked) {
            unmark_synced(&self.log).map_err(|source| RecordError::Io { path: self.log.clone(), source })?;
        }
        Ok(())
    }

    /// Lays config from files and flags over what was written of it, with the next commit. What is there already is not
    /// written again, and what is not in it any more stays.
    pub fn set_config(&mut self, mut config: Json) -> Result<(), RecordError> {
        self.masked.extend(config::mask(&mut config));
        let new = config::changes(&self.checkpoint.config, &config);
        if new.is_empty() {
            return Ok(());
        }
        self.unless_broken(|this| {
            this.reopen()?;
            config::lay_over(&mut this.checkpoint.config, config);
            this.write(&RunUpdate::Config(new))
        })
    }

    pub(super) fn run_info(&self) -> RunInfo {
        let Description { name, group, job_type, notes, tags, entity, project } = self.checkpoint.description.clone();
        RunInfo {
            id: self.checkpoint.run_id.clone(),
            entity,
            project,
            name,
            group,
            job_type,
            notes,
            tags,
            start_time: self.checkpoint.state.started_at,
            host: Host(self.checkpoint.host.clone()),
        }
    }
}

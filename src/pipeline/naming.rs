//! How runs are named, as flags and environment say, and where they are sent.

use crate::checkpoint::{Checkpoint, Description, Target};
use crate::convert::template::Template;
use crate::model::{Json, is_forbidden_in_project};
use crate::recorder::{AskedDescription, Described};
use crate::settings::SingleRun;
use crate::survey::PlannedRun;
use crate::upload::Overrides;

/// How runs are named, as flags and environment say.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// `--run-id`
    pub run_id: Option<Template>,
    /// `--run-name`
    pub name: Option<Template>,
    /// `--group`, `WANDB_RUN_GROUP`
    pub group: Option<Template>,
    /// `--job-type`, `WANDB_JOB_TYPE`
    pub job_type: Option<Template>,
    /// `--notes`
    pub notes: Option<Template>,
    /// `--tags`, `WANDB_TAGS`
    pub tags: Option<Vec<Template>>,
    /// `--project`, `WANDB_PROJECT`
    pub project: Option<Template>,
    /// `--entity`, `WANDB_ENTITY`
    pub entity: String,
    /// `WANDB_RUN_ID`, `WANDB_NAME` and `WANDB_NOTES`: only when exactly one run is made.
    pub single: SingleRun,
    /// `--config`, `--config-file` and `--no-config-files`
    pub config: GivenConfig,
}

/// Config that does not come from the logs.
#[derive(Debug, Clone, Default)]
pub struct GivenConfig {
    /// What flags say, and files that flags name.
    pub values: Json,
    /// The names of these files, the nearest first.
    pub files: Vec<String>,
    /// Whether config files are looked for beside the event files.
    pub discover: bool,
}

/// The project of runs for which none was chosen; the official client's.
pub const DEFAULT_PROJECT: &str = "uncategorized";

impl Naming {
    /// The project of a run.
    pub fn project(&self, plan: &PlannedRun) -> String {
        self.chosen_project(plan).map_or_else(|| DEFAULT_PROJECT.to_owned(), |(_, project)| project)
    }

    /// The text that the template gives for a run, and the name of the project that is made of it.
    pub(crate) fn chosen_project(&self, plan: &PlannedRun) -> Option<(String, String)> {
        let text = self.project.as_ref()?.expand(plan.place());
        let project = project_name(&text);
        (!project.is_empty()).then_some((text, project))
    }

    pub(crate) fn described(&self, plan: &PlannedRun, single: Option<&SingleRun>, config: Json) -> Described {
        let place = plan.place();
        let expand = |template: &Option<Template>| template.as_ref().map(|template| template.expand(place));
        let asked = AskedDescription {
            // A run without a name would be called what the server makes up.
            name: expand(&self.name).filter(|name| !name.trim().is_empty()).or_else(|| single?.name.clone()),
            group: expand(&self.group),
            job_type: expand(&self.job_type),
            notes: expand(&self.notes).or_else(|| single?.notes.clone()),
            tags: self.tags.as_ref().map(|tags| tags.iter().map(|tag| tag.expand(place)).collect()),
            entity: Some(self.entity.clone()).filter(|entity| !entity.is_empty()),
            project: self.project.as_ref().map(|_| self.project(plan)),
        };
        let default = Description {
            name: plan.name(),
            group: plan.group(),
            entity: self.entity.clone(),
            project: self.project(plan),
            ..Description::default()
        };
        Described { default, asked, config }
    }
}

/// W&B forbids some characters in the names of projects; they become `-`.
fn project_name(text: &str) -> String {
    let text = text.trim();
    // No name at all in a URL.
    let is_dots = matches!(text, "." | "..");
    let allowed = |c: char| if is_dots || is_forbidden_in_project(c) { '-' } else { c };
    text.chars().map(allowed).take(128).collect()
}

/// What was chosen instead of what a log of ours names.
pub fn chosen_target(checkpoint: &Checkpoint) -> Overrides {
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    match checkpoint.target.clone() {
        Some(Target { entity, project }) => {
            Overrides { entity: some(entity), project: some(project), ..Overrides::default() }
        }
        None => Overrides::default(),
    }
}

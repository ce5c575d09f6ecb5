//! Which runs are here: of event files, through what was recorded of them, and of logs.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::api::RunName;
use crate::checkpoint::{Checkpoint, SourceCheckpoint};
use crate::cleaned::{self, Cleaned};
use crate::cli::VerifyArgs;
use crate::commands::error::{CommandError, ExitCode, IoContext as _};
use crate::commands::import::say_unreadable;
use crate::commands::session;
use crate::commands::sync::overrides_of;
use crate::commands::ui::{Ui, counted};
use crate::model::{RunId, SkippedReason};
use crate::pipeline::{Planned, Recording, RunToVerify, Unrecorded, id_of, runs_of_logs};
use crate::recorder::RecordError;
use crate::settings::Settings;
use crate::state_file::place::StateHome;
use crate::survey::{PlannedRun, PlannedSource, Survey};
use crate::upload::{Links, Overrides, RunContents, RunLog};
use crate::verify::{Finding, What};
use crate::wandb_format::{RunDir, find_logs_beside};

/// All runs below the paths, and the exit code for what could not be looked at.
pub(super) fn find(
    arguments: &VerifyArgs,
    settings: &Settings,
    ui: &Ui,
) -> Result<(Vec<RunToVerify>, ExitCode), CommandError> {
    let first = arguments.paths.first().cloned().unwrap_or_default();
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "wandb");
    let directories: Vec<PathBuf> = arguments.paths.iter().filter(|path| !is_log(path)).cloned().collect();
    let shape = session::shape(settings)?;
    let mut survey = Survey::new(&shape, settings.runs.generation);
    let mut found = survey.look(&directories).context("look at", &first)?;
    let mut skips = say_unreadable(&found, ui);
    session::warn_of_idle_patterns(&found.idle_patterns, ui);
    let recording = session::recording(settings, true, found.runs.len(), ui)?;
    let folded = recording.folded();
    if !folded.is_empty() {
        found.runs = survey.look_knowing(&directories, &folded).context("look at", &first)?.runs;
    }
    let (plans, refused) = recording.assign(found.runs);
    for (directory, error) in &refused {
        ui.warn_of(&session::no_id(directory, error));
    }
    let mut runs = of_plans(&plans, &recording, settings, ui);

    let logs = find_logs_beside(&arguments.paths, &found.listings);
    for (path, error) in &logs.failed {
        ui.warning(format!("cannot look at `{}`: {error}", path.display()));
        skips.add(SkippedReason::Unreadable, 1, || path.display().to_string());
    }
    let state = session::state_home(settings);
    let gone = cleaned::find(&arguments.paths, &state, &found.listings);
    if !(logs.logs.is_empty() && gone.is_empty()) {
        let overrides = overrides_of(arguments.id.as_deref(), settings)?;
        // Runs of event files were found by these already.
        let known: HashSet<PathBuf> = runs.iter().flat_map(|run| &run.logs).filter_map(real_directory).collect();
        let is_new = |log: &RunLog| real_directory(log).is_none_or(|directory| !known.contains(&directory));
        let of_logs = of_logs(logs.logs, gone, &state, &overrides, session::links(arguments.links));
        runs.extend(of_logs.into_iter().filter(|run| run.logs.iter().all(is_new)));
    }
    let code = match (refused.is_empty(), skips.any_loss()) {
        (false, _) => ExitCode::Usage,
        (true, true) => ExitCode::Partial,
        (true, false) => ExitCode::Success,
    };
    Ok((runs, code))
}

/// A log may be gone; its directory is not.
fn real_directory(log: &RunLog) -> Option<PathBuf> {
    log.log.parent()?.canonicalize().ok()
}

/// Runs of logs, and of run directories whose log was deleted after it arrived.
pub(in crate::commands) fn of_logs(
    logs: Vec<PathBuf>,
    gone: Vec<PathBuf>,
    state: &StateHome,
    overrides: &Overrides,
    links: Links,
) -> Vec<RunToVerify> {
    let cleaned = gone.into_iter().filter_map(|directory| {
        let note = Cleaned::load(&state.of(&directory)).ok().flatten()?;
        Some(RunDir::new(directory, RunId::new(note.run_id).ok()?).log())
    });
    let logs = logs.into_iter().chain(cleaned).collect();
    runs_of_logs(logs, state, overrides).into_iter().map(|run| RunToVerify { links, ..run }).collect()
}

/// Runs of event files.
pub(in crate::commands) fn of_plans(
    plans: &[PlannedRun],
    recording: &Recording,
    settings: &Settings,
    ui: &Ui,
) -> Vec<RunToVerify> {
    let state = session::state_home(settings);
    let look = |plan: &PlannedRun| {
        let planned = recording.planned(plan)?;
        if planned.recorded.is_none()
            && let Some(left_out) = recording.left_out(plan)
        {
            ui.note(format!("left out by filters: `{}`", left_out.name));
            return Ok(None);
        }
        let new = Unrecorded::of(&planned, &recording.options)?;
        Ok::<_, RecordError>(Some(match &planned.recorded {
            Some((directory, checkpoint)) => recorded(&planned, directory, checkpoint, new, &state),
            None => not_recorded(&planned, new),
        }))
    };
    let looked = plans.par_iter().filter_map(|plan| match look(plan) {
        Ok(run) => run,
        Err(error) => Some(RunToVerify {
            source: plan.directory.clone(),
            without_log: Some(Err(error.to_string())),
            ..RunToVerify::default()
        }),
    });
    looked.collect()
}

/// A run that was never recorded here may have been sent from elsewhere: then its rows are there.
fn not_recorded(planned: &Planned<'_>, new: Unrecorded) -> RunToVerify {
    let Planned { plan, id, description, .. } = planned;
    let (entity, project) = (description.entity.clone(), description.project.clone());
    let name = RunName { entity, project, run_id: id.to_string() };
    let contents = RunContents::counted(name, description.name.clone(), new.rows);
    let source = plan.directory.clone();
    RunToVerify { source, without_log: Some(Ok(contents)), skips: new.skips, ..RunToVerify::default() }
}

/// A run that was recorded here: its log, and what of its event files is not in there.
fn recorded(
    planned: &Planned<'_>,
    directory: &Path,
    checkpoint: &Checkpoint,
    new: Unrecorded,
    state: &StateHome,
) -> RunToVerify {
    let log = RunLog {
        log: RunDir::new(directory, checkpoint.run_id.clone()).log(),
        state: state.of(directory),
        limit: Some(checkpoint.position),
    };
    let chosen = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let overrides = Overrides {
        entity: chosen(&planned.description.entity),
        project: chosen(&planned.description.project),
        ..Overrides::default()
    };
    RunToVerify {
        source: planned.plan.directory.clone(),
        logs: vec![log],
        overrides,
        links: Links::default(),
        without_log: None,
        not_recorded: what_is_new(planned.plan, checkpoint, &new).into_iter().collect(),
        skips: new.skips,
    }
}

/// What of the event files was written since they were recorded. Bytes alone say nothing: they may be damage, or the
/// beginning of a record.
fn what_is_new(plan: &PlannedRun, checkpoint: &Checkpoint, new: &Unrecorded) -> Option<Finding> {
    if new.rows == 0 && new.values == 0 {
        return None;
    }
    let has_more = |source: &&PlannedSource| {
        let same = |known: &SourceCheckpoint| known.fingerprint == source.fingerprint;
        let named = |known: &&SourceCheckpoint| same(known) && known.file_name == source.file_name;
        let known = checkpoint.sources.iter().find(named);
        known.is_none_or(|known| known.seen_size < source.size)
    };
    let files: Vec<&PlannedSource> = plan.sources.iter().filter(has_more).collect();
    let place = match files.as_slice() {
        [] => plan.directory.display().to_string(),
        [only] => only.path.display().to_string(),
        [first, others @ ..] => {
            format!("{} and {} more", first.path.display(), counted(others.len() as u64, "file"))
        }
    };
    let what = if new.rows > 0 { counted(new.rows, "row") } else { counted(new.values, "value") };
    Some(Finding { what: What::EventFile, name: place, why: format!("{what} not recorded yet") })
}

/// The id in the name of a log, for runs of which nothing else is known.
pub(super) fn id_in_name(log: &Path) -> String {
    id_of(log).map(|id| id.to_string()).unwrap_or_default()
}

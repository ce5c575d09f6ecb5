//! `inspect`: show runs, tags, steps, sizes and damage; write nothing.
//!
//! Event files are shown as the runs that they would make, logs of the run datastore as the runs that they are.

mod cleaned;
mod events;
mod limits;
mod log;
mod seen;
mod show;
mod summary;
mod tags;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use crate::cleaned::find as find_cleaned;
use crate::cli::InspectArgs;
use crate::commands::error::{CommandError, ExitCode, IoContext as _};
use crate::commands::import::{ignored, say_unreadable};
use crate::commands::session;
use crate::commands::ui::{Ui, named, printable};
use crate::convert::axes::Axes;
use crate::pipeline::Planned;
use crate::recorder::RecordError;
use crate::settings::Settings;
use crate::survey::{Found, PlannedRun, Survey};
use crate::upload::Links;
use crate::wandb_format::find_logs_beside;

pub(super) use cleaned::look_at_cleaned;
use events::look_at_run;
pub(super) use log::{LogSeen, look_at_log};
use seen::RunSeen;
use summary::SummarySeen;

/// Runs or logs that are looked at before they are shown, so that a million of them are not held at once.
const AT_ONCE: usize = 256;

/// Runs the command.
pub(super) fn run(arguments: &InspectArgs, settings: &Settings, ui: &Arc<Ui>) -> Result<ExitCode, CommandError> {
    session::check_paths(&arguments.paths)?;
    let shape = session::shape(settings)?;
    let first = arguments.paths.first().cloned().unwrap_or_default();
    let directories: Vec<PathBuf> = arguments.paths.iter().filter(|path| !is_log(path)).cloned().collect();
    let mut survey = Survey::new(&shape, settings.runs.generation);
    let mut found = survey.look(&directories).context("look at", &first)?;
    let logs = find_logs_beside(&arguments.paths, &found.listings);
    let state = session::state_home(settings);
    let gone = find_cleaned(&arguments.paths, &state, &found.listings);
    if found.runs.is_empty() && logs.logs.is_empty() && gone.is_empty() {
        return Err(nothing_found(&arguments.paths, &found));
    }
    for (path, error) in &logs.failed {
        ui.warning(format!("cannot look at `{}`: {error}", path.display()));
    }
    let mut summary = SummarySeen::default();
    summary.add_skips(&say_unreadable(&found, ui));
    session::warn_of_idle_patterns(&found.idle_patterns, ui);
    let recording = session::recording(settings, true, found.runs.len(), ui)?;
    let folded = recording.folded();
    if !folded.is_empty() {
        found.runs = survey.look_knowing(&directories, &folded).context("look at", &first)?.runs;
    }
    let (runs, refused) = recording.assign(std::mem::take(&mut found.runs));
    for (directory, error) in &refused {
        ui.warn_of(&session::no_id(directory, error));
    }
    let axes = Arc::new(Axes::new(&shape.axes));
    let mut keys = BTreeSet::new();
    let look = |plans: &[PlannedRun]| -> Vec<Result<(RunSeen, String), RecordError>> {
        let look = |planned: Planned<'_>| {
            let run = look_at_run(&planned, &recording.options, &axes);
            let text = said(ui, &run, || show::run(&run));
            (run, text)
        };
        plans.par_iter().map(|plan| recording.planned(plan).map(look)).collect()
    };
    let mut tell = |seen: Vec<Result<(RunSeen, String), RecordError>>| {
        let mut all = String::new();
        for run in seen {
            match run {
                Ok((mut run, text)) => {
                    keys.append(&mut run.judged);
                    for tag in &run.tags {
                        if !keys.contains(&tag.key) {
                            keys.insert(tag.key.clone());
                        }
                    }
                    summary.add_run(&run);
                    all.push_str(&text);
                }
                Err(error) => {
                    ui.warn_of(&CommandError::new(ExitCode::Failed, "cannot look at a run").caused_by(&error))
                }
            }
        }
        ui.data(&all);
    };
    // Those that were looked at are shown while the next ones are looked at.
    let mut seen = Vec::new();
    for plans in runs.chunks(AT_ONCE) {
        seen = rayon::join(|| look(plans), || tell(std::mem::take(&mut seen))).0;
    }
    tell(seen);
    for logs in logs.logs.chunks(AT_ONCE) {
        let seen: Vec<LogSeen> = logs.par_iter().map(|log| look_at_log(log, &state, Links::default())).collect();
        for log in seen {
            summary.add_log(&log);
            show(ui, &log, || show::log(&log));
        }
    }
    for seen in gone.iter().filter_map(|directory| look_at_cleaned(directory, &state)) {
        summary.cleaned += 1;
        show(ui, &seen, || show::cleaned(&seen));
    }
    if !keys.is_empty() {
        session::warn_of_idle_globs(settings, &keys, ui);
    }
    let code = summary.finish();
    show(ui, &summary, || show::summary(&summary));
    Ok(ExitCode::combine([code].into_iter().chain((!logs.failed.is_empty()).then_some(ExitCode::Partial))))
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wandb")
}

/// Prints an object for machines, or a text for people.
fn show(ui: &Ui, seen: &impl Serialize, text: impl FnOnce() -> String) {
    ui.data(&said(ui, seen, text));
}

/// What is printed of it.
fn said(ui: &Ui, seen: &impl Serialize, text: impl FnOnce() -> String) -> String {
    if ui.is_json() {
        let mut line = serde_json::to_string(seen).unwrap_or_default();
        line.push('\n');
        line
    } else {
        printable(&text()).into_owned()
    }
}

/// The error for paths in which nothing could be looked at.
fn nothing_found(paths: &[PathBuf], found: &Found) -> CommandError {
    if let Some((path, why)) = found.unreadable.first() {
        let error = CommandError::new(ExitCode::Failed, format!("nothing can be read in {}", named(paths)));
        return error.hint(format!("`{}`: {why}", path.display()));
    }
    let error = CommandError::new(ExitCode::NothingFound, format!("nothing to inspect in {}", named(paths)));
    error.hint(format!("files named `*tfevents*` and `*.wandb` are looked for{}", ignored(found)))
}

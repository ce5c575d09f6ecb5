//! `import`: read all that is there, record it, upload it unless offline, end.

use std::path::PathBuf;
use std::sync::Arc;

use crate::api::GivingUp;
use crate::cli::{ImportArgs, Mode};
use crate::commands::attach;
use crate::commands::error::{CommandError, ExitCode, IoContext as _};
use crate::commands::session::{self, Stop};
use crate::commands::ui::{Ui, counted, named};
use crate::commands::verify;
use crate::model::Skips;
use crate::pipeline::{self, Watcher};
use crate::settings::Settings;
use crate::survey::{Found, Survey};
use crate::wandb_format::find_logs;

/// Runs the command; `typed` is its command line behind the program's name.
pub(super) fn run(
    arguments: &ImportArgs,
    typed: &[String],
    settings: &Settings,
    ui: &Arc<Ui>,
) -> Result<ExitCode, CommandError> {
    if settings.mode.value == Mode::Disabled {
        ui.note("W&B is disabled: nothing was read, written or sent");
        return Ok(ExitCode::Success);
    }
    verify::check(arguments.verify, settings)?;
    attach::check(&arguments.artifacts)?;
    let shape = session::shape(settings)?;
    let client = if arguments.dry_run { None } else { session::client(settings, GivingUp::Together, ui)? };
    session::check_paths(&arguments.paths)?;
    let first = arguments.paths.first().cloned().unwrap_or_default();
    let mut survey = Survey::new(&shape, settings.runs.generation);
    let mut found = survey.look(&arguments.paths).context("look at", &first)?;
    let outside = say_unreadable(&found, ui);
    session::warn_of_idle_patterns(&found.idle_patterns, ui);
    if found.runs.is_empty() {
        return Err(nothing_found(&arguments.paths, &found));
    }
    session::check_project_chosen(settings, found.runs.len())?;
    let recording = session::recording(settings, arguments.dry_run, found.runs.len(), ui)?;
    let folded = recording.folded();
    if !folded.is_empty() {
        found = survey.look_knowing(&arguments.paths, &folded).context("look at", &first)?;
    }
    let (runs, refused) = recording.assign(found.runs);
    if let Some((directory, error)) = refused.first() {
        return Err(session::no_id(directory, error));
    }
    let again = session::same_command(typed);
    let reporter = session::reporter(ui, settings, session::destination(settings, arguments.dry_run), Some(again));
    reporter.skip(&outside);
    reporter.found(0, runs.len(), 0);
    reporter.expect_bytes(runs.iter().flat_map(|run| &run.sources).map(|source| source.size).sum());

    let runtime = session::start_runtime()?;
    let watcher: Arc<dyn Watcher> = reporter.clone();
    let uploads = client.map(|client| session::uploads(&runtime, client, settings, &watcher));
    let stop = Stop::listen(&runtime, settings.max_duration, uploads.as_ref())?;
    pipeline::import(&runs, &recording, &arguments.artifacts, uploads.as_ref(), &stop.token, &watcher);
    if let Some(uploads) = &uploads {
        runtime.block_on(uploads.finish(None));
    }
    let keys = reporter.keys();
    // Where every run was refused, nobody knows what a glob would match.
    if !keys.is_empty() {
        session::warn_of_idle_globs(settings, &keys, ui);
    }
    reporter.say_idle(&arguments.artifacts);
    let verified = verify::afterwards(arguments.verify, settings, uploads.as_ref(), (&runtime, &stop), ui, || {
        // Read anew: it knows the runs that were made just now.
        let recording = session::recording(settings, true, runs.len(), ui)?;
        Ok(verify::of_plans(&runs, &recording, settings, ui))
    })?;
    Ok(reporter.finish("imported", stop.exit_code().into_iter().chain(verified)))
}

/// Names what could not be read, and counts it and what was not to be read.
pub(super) fn say_unreadable(found: &Found, ui: &Ui) -> Skips {
    for (path, why) in &found.unreadable {
        ui.warning(format!("cannot read `{}`: {why}", path.display()));
    }
    session::outside(&found.unreadable, &found.waiting, &found.left_out)
}

/// The end of the hint where nothing was found: what else is there.
pub(super) fn ignored(found: &Found) -> String {
    match found.other_files {
        0 => String::new(),
        1 => "; 1 file with another name was ignored".to_owned(),
        other => format!("; {} with other names were ignored", counted(other, "file")),
    }
}

/// The error for paths without any event file.
fn nothing_found(paths: &[PathBuf], found: &Found) -> CommandError {
    if let Some((path, why)) = found.unreadable.first() {
        let error = CommandError::new(ExitCode::Failed, format!("nothing can be read in {}", named(paths)));
        return error.hint(format!("`{}`: {why}", path.display()));
    }
    let error = CommandError::new(ExitCode::NothingFound, format!("nothing to import in {}", named(paths)));
    if let (left_out @ 1.., []) = (found.left_out.len() as u64, found.waiting.as_slice()) {
        return error.hint(format!("`--include` and `--exclude` leave out {}", counted(left_out, "event file")));
    }
    if let waiting @ 1.. = found.waiting.len() as u64 {
        let files = counted(waiting, "event file");
        return error.hint(format!("{files} whose writer has only begun: wait for it, or use `wandb-bridge watch`"));
    }
    match find_logs(paths).logs.len() as u64 {
        0 => error.hint(format!("files named `*tfevents*` are looked for in all subdirectories{}", ignored(found))),
        logs => {
            let logs = counted(logs, "log");
            error.hint(format!("there is no event file, but {logs} of W&B runs: `wandb-bridge sync` uploads them"))
        }
    }
}

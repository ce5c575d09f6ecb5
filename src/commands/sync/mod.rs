//! `sync`: upload runs that are in the run datastore already, ours or any W&B client's, once or as they grow.

mod live;
mod plan;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Runtime;

use crate::api::{ApiClient, GivingUp, project_url};
use crate::cleaned::{self, Cleaned};
use crate::cli::{Mode, SyncArgs};
use crate::commands::attach;
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::inspect::look_at_cleaned;
use crate::commands::session::{self, Stop};
use crate::commands::ui::{Destination, Report, Ui, counted, named};
use crate::commands::verify;
use crate::convert::template::{Template, TemplateError};
use crate::listings::Listings;
use crate::model::RunId;
use crate::pipeline::{self, Uploads, Watcher};
use crate::settings::{Setting, Settings, check_project};
use crate::state_file::place::StateHome;
use crate::upload::Overrides;
use crate::wandb_format::{find_logs, is_synced};

/// Runs the command.
pub(super) fn run(
    arguments: &SyncArgs,
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
    let overrides = overrides(arguments, settings)?;
    let giving_up = if arguments.live { GivingUp::Alone } else { GivingUp::Together };
    let client = match if arguments.dry_run { None } else { session::client(settings, giving_up, ui)? } {
        Some(client) if arguments.live => return live::run(arguments, typed, settings, &overrides, client, ui),
        client => client,
    };
    session::check_paths(&arguments.paths)?;
    let paths = if arguments.paths.is_empty() { vec![settings.wandb_dir.clone()] } else { arguments.paths.clone() };
    let found = find_logs(&paths);
    let state = session::state_home(settings);
    let mut chosen = choose(found.logs, &state, arguments);
    if arguments.newest_first {
        chosen.logs.sort_by_cached_key(|log| std::cmp::Reverse(time_of(log)));
    }
    let gone = cleaned::find(&paths, &state, &Listings::default());
    if chosen.found == 0 && gone.is_empty() {
        return Err(nothing_found(&paths, &found.failed));
    }
    for (path, error) in &found.failed {
        ui.warning(format!("cannot look at `{}`: {error}", path.display()));
    }
    let not_looked_at = (!found.failed.is_empty()).then_some(ExitCode::Partial);
    for (count, what, flag) in
        [(chosen.left_out.len() as u64, "synced", "--include-synced"), (chosen.online, "online", "--include-online")]
    {
        if count > 0 {
            ui.note(format!("left out: {} ({what} already; `{flag}` takes them too)", counted(count, "run")));
        }
    }
    if !gone.is_empty() {
        let count = counted(gone.len() as u64, "run");
        ui.note(format!("left out: {count} (cleaned: all of it arrived, and the log was deleted here)"));
        for seen in gone.iter().filter_map(|directory| look_at_cleaned(directory, &state)) {
            ui.report(&Report::Run(seen.report()));
        }
    }
    let reporter = session::reporter(
        ui,
        settings,
        destination(settings, &overrides, arguments.dry_run),
        Some(session::same_command(typed)),
    );
    reporter.found(0, chosen.logs.len(), 0);
    let artifacts = &arguments.artifacts;
    let of_left_out = chosen.left_out.iter().map(|log| attach::of_left_out(artifacts, log, &state));
    let Some(client) = client else {
        let (links, left_out) = (session::links(arguments.links), of_left_out.flatten().collect());
        return Ok(plan::show(&chosen.logs, &overrides, (artifacts, left_out), links, not_looked_at, settings, ui));
    };
    let runtime = session::start_runtime()?;
    let watcher: Arc<dyn Watcher> = reporter.clone();
    let uploads = uploads(&runtime, client, arguments, settings, &watcher);
    let stop = Stop::listen(&runtime, settings.max_duration, Some(&uploads))?;
    pipeline::sync(chosen.logs.clone(), &overrides, arguments.stale_after, artifacts, &uploads, &watcher);
    runtime.block_on(uploads.finish(None));
    of_left_out.for_each(|attached| reporter.left_out(&attached));
    reporter.say_idle(artifacts);
    let verified = verify::afterwards(arguments.verify, settings, Some(&uploads), (&runtime, &stop), ui, || {
        // What was said to be synced before may be gone by now, and what was cleaned just now is gone here.
        let logs = chosen.logs.into_iter().chain(chosen.left_out).filter(|log| log.is_file()).collect();
        let gone = cleaned::find(&paths, &state, &Listings::default());
        Ok(verify::of_logs(logs, gone, &state, &overrides, session::links(arguments.links)))
    })?;
    Ok(reporter.finish("synced", stop.exit_code().into_iter().chain(not_looked_at).chain(verified)))
}

fn uploads(
    runtime: &Arc<Runtime>,
    client: ApiClient,
    arguments: &SyncArgs,
    settings: &Settings,
    watcher: &Arc<dyn Watcher>,
) -> Uploads {
    let staging: Vec<PathBuf> = arguments.staging.iter().chain(&settings.staging_dir).cloned().collect();
    session::uploads(runtime, client, settings, watcher)
        .following(session::links(arguments.links))
        .staged_in(&staging)
        .accepting_losses(arguments.accept_losses)
}

/// What was chosen for this program replaces what the logs say; the official client's variables are for the process that
/// trains.
fn overrides(arguments: &SyncArgs, settings: &Settings) -> Result<Overrides, CommandError> {
    let (job_type, replace_tags) = (arguments.job_type.clone(), arguments.replace_tags.clone());
    Ok(Overrides { job_type, replace_tags, ..overrides_of(arguments.id.as_deref(), settings)? })
}

/// Where logs go, as far as it was chosen.
pub(super) fn overrides_of(id: Option<&str>, settings: &Settings) -> Result<Overrides, CommandError> {
    let for_us = |setting: &Option<Setting<String>>| setting.as_ref().filter(|setting| setting.is_for_us()).cloned();
    let entity = for_us(&settings.entity).map(|setting| setting.value);
    let project = match for_us(&settings.project) {
        Some(setting) => Some(plain_project(&setting)?),
        None => None,
    };
    let run_id = match id.map(RunId::new) {
        Some(Err(error)) => return Err(CommandError::new(ExitCode::Usage, format!("`--id` cannot be used: {error}"))),
        Some(Ok(id)) => Some(id.to_string()),
        None => None,
    };
    Ok(Overrides { entity, project, run_id, ..Overrides::default() })
}

/// A log knows nothing of the directory that it was made from, so there is nothing that placeholders could stand for.
fn plain_project(setting: &Setting<String>) -> Result<String, CommandError> {
    let usage = |why: String| CommandError::new(ExitCode::Usage, format!("{} cannot be used: {why}", setting.source));
    let template: Template = setting.value.parse().map_err(|error: TemplateError| usage(error.to_string()))?;
    let Some(project) = template.literal() else {
        let why = format!("`{}` holds a placeholder, and logs have no directories to fill it in", setting.value);
        return Err(usage(why).hint("name one project, or none: each log names its own"));
    };
    check_project(project).map_err(usage)?;
    Ok(project.to_owned())
}

/// Where the runs go, as far as it was typed: otherwise each log says it for its own run.
fn destination(settings: &Settings, overrides: &Overrides, dry_run: bool) -> Destination {
    if dry_run {
        return Destination::Nowhere;
    }
    let app_url = &settings.server.app_url;
    Destination::Server(match (&overrides.entity, &overrides.project) {
        (Some(entity), Some(project)) => project_url(app_url, entity, project),
        (None, Some(project)) => format!("{app_url}, project `{project}`"),
        (Some(entity), None) => format!("{app_url}, entity `{entity}`"),
        (None, None) => app_url.clone(),
    })
}

struct Chosen {
    logs: Vec<PathBuf>,
    found: usize,
    /// Those that are marked as synced.
    left_out: Vec<PathBuf>,
    online: u64,
}

/// The official client's choice: runs that are marked as synced, and runs that were recorded online, are left out.
fn choose(found: Vec<PathBuf>, state: &StateHome, arguments: &SyncArgs) -> Chosen {
    let mut chosen = Chosen { logs: Vec::new(), found: found.len(), left_out: Vec::new(), online: 0 };
    for log in found {
        // The mark of a run that was cleaned stays, for the official client's sake, although it may have grown since.
        let is_whole = |log: &Path| is_synced(log) && !Cleaned::is_there(&state.of_log(log));
        if is_whole(&log) && !arguments.include_synced {
            chosen.left_out.push(log);
        } else if !is_offline(&log) && !arguments.include_online {
            chosen.online += 1;
        } else {
            chosen.logs.push(log);
        }
    }
    chosen
}

fn is_offline(log: &Path) -> bool {
    let says_offline =
        |directory: &Path| directory.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"offline-"));
    let Some(directory) = log.parent() else { return false };
    // Only a link, or a path without a name, has to be followed to where it leads, which takes a step for each of its parts.
    if says_offline(directory) && !directory.is_symlink() {
        return true;
    }
    directory.canonicalize().is_ok_and(|real| says_offline(&real))
}

/// The time in the name of a log's directory, which sorts as it is. Where there is none, the name.
fn time_of(log: &Path) -> String {
    let name =
        log.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_prefix("offline-").map_or(name.clone(), str::to_owned)
}

fn nothing_found(paths: &[PathBuf], failed: &[(PathBuf, io::Error)]) -> CommandError {
    let is_unreadable =
        |error: &io::Error| !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound);
    if let Some((path, error)) = failed.iter().find(|(_, error)| is_unreadable(error)) {
        let trouble = CommandError::new(ExitCode::Failed, format!("nothing can be read in {}", named(paths)));
        return trouble.hint(format!("`{}`: {error}", path.display()));
    }
    CommandError::new(ExitCode::NothingFound, format!("no runs to sync in {}", named(paths)))
        .hint("name a `wandb` folder, a run directory or a `.wandb` file; for event files use `wandb-bridge import`")
}

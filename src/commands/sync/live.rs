//! `sync --live`: the same, and go on as runs grow and appear.

use std::sync::Arc;

use crate::api::ApiClient;
use crate::cli::SyncArgs;
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::session;
use crate::commands::sync::{choose, destination, uploads};
use crate::commands::ui::Ui;
use crate::pipeline::{LiveOptions, Signal, Signals, Stopping, Watcher, open_many_files, sync_live};
use crate::settings::Settings;
use crate::upload::Overrides;
use crate::wandb_format::find_logs;

/// Runs the command. Paths need not exist yet.
pub(super) fn run(
    arguments: &SyncArgs,
    typed: &[String],
    settings: &Settings,
    overrides: &Overrides,
    client: ApiClient,
    ui: &Arc<Ui>,
) -> Result<ExitCode, CommandError> {
    let paths = if arguments.paths.is_empty() { vec![settings.wandb_dir.clone()] } else { arguments.paths.clone() };
    let destination = destination(settings, overrides, false);
    let reporter = session::reporter(ui, settings, destination, Some(session::same_command(typed)));
    let runtime = session::start_runtime()?;
    let watcher: Arc<dyn Watcher> = reporter.clone();
    let uploads = uploads(&runtime, client, arguments, settings, &watcher);
    let until = settings.max_duration.map(|limit| tokio::time::Instant::now() + limit);
    let stopping = Stopping::new(until.map(|until| until + arguments.drain));
    let options = LiveOptions {
        poll: arguments.poll,
        until_idle: arguments.until_idle,
        stale_after: arguments.stale_after,
        drain: arguments.drain,
        until,
    };
    let end = runtime.block_on(async {
        let signals = Signals::listen(false)
            .map_err(|error| CommandError::new(ExitCode::Failed, "cannot listen for signals").caused_by(&error))?;
        open_many_files();
        stopping.heed(signals, None, arguments.drain, Some(uploads.cancel().clone()));
        let find = || choose(find_logs(&paths).logs, uploads.state(), arguments).logs;
        Ok::<_, CommandError>(sync_live(find, options, overrides, &uploads, &stopping, &watcher).await)
    })?;
    let code = match stopping.second_signal() {
        Some(Signal::Interrupt) => Some(ExitCode::Interrupted),
        Some(_) => Some(ExitCode::Terminated),
        None if end.time_limit => Some(ExitCode::TimeLimit),
        None if !end.delivered => Some(ExitCode::Temporary),
        None => None,
    };
    Ok(reporter.finish("synced", code))
}

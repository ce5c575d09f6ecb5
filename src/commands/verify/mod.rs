//! `verify`: is everything that is here also there? Writes nothing, here or there.

mod here;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiClient, Class, GivingUp};
use crate::cli::{AlsoVerify, Mode, VerifyArgs};
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::session::{self, Stop};
use crate::commands::ui::{Ui, named};
use crate::pipeline::{RunToVerify, RunVerified, Uploads, VerifyError, verify};
use crate::settings::Settings;

pub(super) use here::{of_logs, of_plans};
use report::{RunReport, Summary};

/// Refuses `--verify` where nothing is sent.
pub(super) fn check(flags: AlsoVerify, settings: &Settings) -> Result<(), CommandError> {
    if flags.verify && settings.mode.value == Mode::Offline {
        return Err(CommandError::new(ExitCode::Usage, "`--verify` asks the server, so it cannot be used offline")
            .hint("use `wandb-bridge verify` after `wandb-bridge sync`"));
    }
    Ok(())
}

/// Looks for what a command has just sent. One that was cut short says so anyway.
pub(super) fn afterwards(
    flags: AlsoVerify,
    settings: &Settings,
    uploads: Option<&Uploads>,
    (runtime, stop): (&Runtime, &Stop),
    ui: &Arc<Ui>,
    runs: impl FnOnce() -> Result<Vec<RunToVerify>, CommandError>,
) -> Result<Option<ExitCode>, CommandError> {
    let Some(uploads) = uploads.filter(|_| flags.verify && stop.exit_code().is_none()) else { return Ok(None) };
    // The same one: it knows whether the server was there.
    let client = uploads.api().clone();
    let wait = flags.wait.unwrap_or_default();
    let verifying = Verifying { client, at_once: settings.transfers, wait, shows_all: false };
    let summary = verifying.run(runs()?, runtime, &stop.token, ui);
    ui.note(summary.text());
    Ok(Some(summary.code()))
}

/// Runs the command.
pub(super) fn run(arguments: &VerifyArgs, settings: &Settings, ui: &Arc<Ui>) -> Result<ExitCode, CommandError> {
    if settings.mode.value == Mode::Disabled {
        ui.note("W&B is disabled: nothing was read, written or sent");
        return Ok(ExitCode::Success);
    }
    let Some(client) = session::client(settings, GivingUp::Together, ui)? else {
        return Err(CommandError::new(ExitCode::Usage, "`verify` asks the server, so the mode must be `online`"));
    };
    session::check_paths(&arguments.paths)?;
    let (runs, code) = here::find(arguments, settings, ui)?;
    if runs.is_empty() {
        return Err(nothing_found(&arguments.paths));
    }
    let runtime = session::start_runtime()?;
    let stop = Stop::listen(&runtime, settings.max_duration, None)?;
    let client = Arc::new(client);
    let verifying = Verifying { client, at_once: settings.transfers, wait: arguments.wait, shows_all: true };
    let mut summary = verifying.run(runs, &runtime, &stop.token, ui);
    let code = ExitCode::combine([summary.code(), code].into_iter().chain(stop.exit_code()));
    summary.exit_code = code.number();
    if ui.is_json() {
        ui.data(&format!("{}\n", serde_json::to_string(&summary).unwrap_or_default()));
    } else {
        ui.note(summary.text());
    }
    Ok(code)
}

/// How runs are looked for.
struct Verifying {
    client: Arc<ApiClient>,
    at_once: u16,
    wait: Duration,
    /// Whether runs of which nothing is missing are shown too.
    shows_all: bool,
}

impl Verifying {
    /// Looks for runs, and shows what came of each as it is done.
    fn run(self, runs: Vec<RunToVerify>, runtime: &Runtime, cancel: &CancellationToken, ui: &Arc<Ui>) -> Summary {
        let api = self.client;
        let mut summary = Summary::default();
        let mut key_refused = false;
        runtime.block_on(verify(runs, &api, self.at_once.into(), self.wait, cancel, |run| {
            let report = RunReport::new(&run, api.app_url());
            summary.add(&run, &report);
            if let Some(trouble) = trouble(&run) {
                let is_about_key = trouble.code == ExitCode::Authentication;
                summary.codes.push(trouble.code);
                if !(is_about_key && std::mem::replace(&mut key_refused, is_about_key)) {
                    ui.warn_of(&trouble);
                }
                if is_about_key {
                    return;
                }
            }
            report.show(self.shows_all, ui);
        }));
        summary
    }
}

/// What a person reads when a run could not be looked for.
fn trouble(run: &RunVerified) -> Option<CommandError> {
    let error = run.error.as_ref()?;
    let cannot =
        |code: ExitCode| CommandError::new(code, format!("cannot verify `{}`", run.source.display())).caused_by(error);
    Some(match error {
        VerifyError::Api(error) => match error.class() {
            Class::Auth => CommandError::new(ExitCode::Authentication, "W&B did not accept the API key")
                .caused_by(error)
                .hint("set `WANDB_API_KEY`"),
            Class::Temporary | Class::Cancelled => cannot(ExitCode::Temporary).hint("try again later"),
            _ => cannot(ExitCode::Failed),
        },
        VerifyError::Log { .. } => cannot(ExitCode::Partial),
        VerifyError::Broken(_) => cannot(ExitCode::Failed),
    })
}

fn nothing_found(paths: &[PathBuf]) -> CommandError {
    CommandError::new(ExitCode::NothingFound, format!("no runs to verify in {}", named(paths)))
        .hint("name event files, a `wandb` folder, a run directory or a `.wandb` file")
}

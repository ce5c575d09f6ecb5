//! `watch`: record what is there, and go on as files grow and appear; with `-- CMD`, beside a command and as long as it.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Runtime;

use crate::api::GivingUp;
use crate::cli::{Mode, WatchArgs};
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::reporter::deadline;
use crate::commands::session;
use crate::commands::ui::Ui;
use crate::pipeline::{
    RunningCommand, Signal, Signals, Stopping, WatchEnd, WatchOptions, Watcher, open_many_files, watch,
};
use crate::settings::{Setting, Settings, Source};
use crate::survey::Survey;

/// How the command ends: with an exit code of ours, or with that of the command that ran beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Ours.
    Own(ExitCode),
    /// The command's, which is not 0.
    Command(i32),
}

impl Ended {
    /// With what else there is to say. The command's own code says more than any of ours.
    pub(super) fn and(self, more: ExitCode) -> Self {
        match self {
            Self::Own(code) => Self::Own(ExitCode::combine([code, more])),
            Self::Command(code) => Self::Command(code),
        }
    }

    /// The exit code of the process.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Own(code) => code.number(),
            // The system cuts it to a byte as well; what would become 0 must not.
            Self::Command(code) => u8::try_from(code & 0xFF).ok().filter(|code| *code != 0).unwrap_or(1),
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &WatchArgs, settings: &Settings, ui: &Arc<Ui>) -> Result<Ended, CommandError> {
    let beside = !arguments.command.is_empty();
    if settings.mode.value == Mode::Disabled {
        if beside {
            return run_command_only(&arguments.command);
        }
        ui.note("W&B is disabled: nothing was read, written or sent");
        return Ok(Ended::Own(ExitCode::Success));
    }
    if let (true, Some(rank)) = (beside, &settings.other_rank) {
        ui.note(format!("only the process of rank 0 records; this is rank {} by `{}`", rank.rank, rank.variable));
        return run_command_only(&arguments.command);
    }
    match prepare(arguments, settings, ui) {
        Ok(prepared) => prepared.run(arguments, ui),
        Err(error) if beside && error.code != ExitCode::Usage => run_without_recording(&arguments.command, error, ui),
        Err(error) => Err(error),
    }
}

/// Runs the command although nothing can be recorded, and says why nothing is.
pub(super) fn run_without_recording(command: &[OsString], error: CommandError, ui: &Ui) -> Result<Ended, CommandError> {
    ui.warn_of(&error);
    ui.warning("the command is run, and nothing is recorded");
    match run_command_only(command)? {
        Ended::Own(ExitCode::Success) => Ok(Ended::Own(error.code)),
        ended => Ok(ended),
    }
}

/// Only runs the command, and passes signals on to it.
pub(super) fn run_command_only(command: &[OsString]) -> Result<Ended, CommandError> {
    let runtime = session::start_runtime()?;
    runtime.block_on(async {
        let mut signals = listen(true)?;
        let running = start(command)?;
        loop {
            tokio::select! {
                code = running.wait() => return Ok(ended(code)),
                signal = signals.next() => running.pass_on(signal),
            }
        }
    })
}

fn ended(code: i32) -> Ended {
    if code == 0 { Ended::Own(ExitCode::Success) } else { Ended::Command(code) }
}

fn start(command: &[OsString]) -> Result<RunningCommand, CommandError> {
    RunningCommand::start(command).map_err(|error| {
        let name = command.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        CommandError::new(ExitCode::Usage, format!("cannot run `{name}`"))
            .caused_by(&error)
            .hint("check the command behind `--`")
    })
}

fn listen(for_a_command: bool) -> Result<Signals, CommandError> {
    Signals::listen(for_a_command)
        .map_err(|error| CommandError::new(ExitCode::Failed, "cannot listen for signals").caused_by(&error))
}

/// All that is needed before the first look.
struct Prepared {
    settings: Settings,
    runtime: Arc<Runtime>,
    survey: Survey,
    recording: crate::pipeline::Recording,
    client: Option<crate::api::ApiClient>,
    /// There was no key, and no mode was asked for: recorded offline, which is not what the user wanted.
    for_want_of_a_key: bool,
}

fn prepare(arguments: &WatchArgs, settings: &Settings, ui: &Arc<Ui>) -> Result<Prepared, CommandError> {
    let mut settings = settings.clone();
    let for_want_of_a_key = !arguments.dry_run && session::no_key(&settings) && !settings.mode.was_asked_for();
    if for_want_of_a_key {
        ui.warning(NO_KEY);
        settings.mode = Setting { value: Mode::Offline, source: settings.mode.source.clone() };
    }
    let shape = session::shape(&settings)?;
    let client = if arguments.dry_run { Ok(None) } else { session::client(&settings, GivingUp::Alone, ui) };
    let client = client.map_err(|mut error| {
        // A proxy or a certificate that is wrong is no reason not to train.
        if !arguments.command.is_empty() && error.code == ExitCode::Usage {
            error.code = ExitCode::Failed;
        }
        error
    })?;
    // How many runs there will be is not known yet; several directories mean several runs.
    let recording = session::recording(&settings, arguments.dry_run, arguments.paths.len(), ui);
    let recording = recording.map_err(|mut error| {
        // Neither is a variable that names a config file which is not there.
        let named = settings.runs.config_files.as_ref();
        if !arguments.command.is_empty() && named.is_some_and(|files| matches!(files.source, Source::Variable(_))) {
            error.code = ExitCode::Failed;
        }
        error
    })?;
    let survey = Survey::new(&shape, settings.runs.generation);
    Ok(Prepared { runtime: session::start_runtime()?, settings, survey, recording, client, for_want_of_a_key })
}

const NO_KEY: &str = "there is no API key, so runs are recorded offline; set `WANDB_API_KEY`, or say `--mode offline`";

impl Prepared {
    fn run(self, arguments: &WatchArgs, ui: &Arc<Ui>) -> Result<Ended, CommandError> {
        let Self { settings, runtime, survey, recording, client, for_want_of_a_key } = self;
        let reporter = session::reporter(ui, &settings, session::destination(&settings, arguments.dry_run), None);
        let watcher: Arc<dyn Watcher> = reporter.clone();
        let uploads = client.map(|client| session::uploads(&runtime, client, &settings, &watcher));
        let until = deadline(settings.max_duration);
        let stopping = Stopping::new(until.map(|until| until + arguments.drain));
        let (ending, command_code) = runtime.block_on(async {
            // Signals first: none may end us while the command runs on.
            let signals = listen(!arguments.command.is_empty())?;
            let command_started = Some(SystemTime::now()).filter(|_| !arguments.command.is_empty());
            let command = match arguments.command.as_slice() {
                [] => None,
                command => Some(start(command)?),
            };
            open_many_files();
            let cancel = uploads.as_ref().map(|uploads| uploads.cancel().clone());
            stopping.heed(signals, command.clone(), arguments.drain, cancel);
            let options = WatchOptions {
                paths: arguments.paths.clone(),
                poll: arguments.poll,
                until_idle: arguments.until_idle,
                stale_after: arguments.stale_after,
                new_only: arguments.new_only,
                drain: arguments.drain,
                until,
                command_started,
                most_runs: session::most_runs(&settings).filter(|_| !arguments.dry_run),
            };
            let ending =
                watch(&options, survey, &recording, uploads.as_ref(), command.as_ref(), &stopping, &watcher).await;
            let code = match &command {
                // After a time limit it goes on without us.
                Some(command) => command.wait().await,
                None => 0,
            };
            Ok::<_, CommandError>((ending, code))
        })?;
        session::warn_of_idle_globs(&settings, &reporter.keys(), ui);
        session::warn_of_idle_patterns(&ending.idle_patterns, ui);
        reporter.skip(&session::outside(&ending.unreadable, &ending.waiting, &ending.left_out));
        let mut codes = Vec::new();
        if let WatchEnd::TooManyRuns(runs) = ending.end
            && let Err(error) = session::check_project_chosen(&settings, runs)
        {
            codes.push(error.code);
            ui.error(&error);
        }
        match ending.cut_short {
            Some(Signal::Interrupt) => codes.push(ExitCode::Interrupted),
            Some(_) => codes.push(ExitCode::Terminated),
            None if ending.end == WatchEnd::TimeLimit => codes.push(ExitCode::TimeLimit),
            None if !ending.delivered => codes.push(ExitCode::Temporary),
            None => {}
        }
        if for_want_of_a_key {
            codes.push(ExitCode::Partial);
        }
        let code = reporter.finish("watched", codes);
        if for_want_of_a_key {
            ui.warning(NO_KEY);
        }
        Ok(if command_code == 0 { Ended::Own(code) } else { Ended::Command(command_code) })
    }
}

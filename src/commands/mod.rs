//! The commands: what each does with settings and paths, and how it ends.

mod artifact;
mod attach;
pub mod error;
mod import;
mod inspect;
mod reporter;
mod session;
mod sync;
pub mod ui;
mod verify;
mod watch;

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use clap::CommandFactory as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{self, ArtifactAction, ArtifactArgs, Cli, Command, ParseError, WatchArgs};
use crate::settings::{Environment, Output, Settings};
use error::{CommandError, ExitCode};
use ui::Ui;
use watch::Ended;

/// Runs the program: command line and environment in, exit code out.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // No flag takes a key, so a command line may be shown.
    let typed: Vec<String> = arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (cli, wrong_variable) = match cli::parse(arguments, |name| environment.get(name).map(ToOwned::to_owned)) {
        Ok(cli) => (cli, None),
        Err(ParseError::Variable { variable, why, cli }) => {
            (*cli, Some(CommandError::new(ExitCode::Usage, format!("`{variable}` cannot be used: {why}"))))
        }
        Err(ParseError::CommandLine(error)) => {
            // Help goes to stdout, errors to stderr; when those are closed there is nobody left to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(ExitCode::Usage.number());
        }
    };
    let output = Output::resolve(&cli.command, environment);
    let ui = Arc::new(Ui::new(&output));
    log_to_stderr(output.verbose, environment);
    let ended = match (wrong_variable, Settings::resolve(&cli, environment)) {
        (None, Ok(settings)) => {
            settings.warnings.iter().for_each(|warning| ui.warning(warning));
            dispatch(cli.command, &typed, &settings, &ui)
        }
        (None, Err(error)) if error.is_in_the_command_line() => Err(error.into()),
        (Some(error), _) => without_settings(&cli.command, error, &ui),
        (None, Err(error)) => without_settings(&cli.command, error.into(), &ui),
    };
    let ended = ended.unwrap_or_else(|error| {
        ui.error(&error);
        Ended::Own(error.code)
    });
    ended.and(ui.exit_code()).number()
}

/// Whatever is wrong with W&B, training goes on: `watch -- CMD` runs its command unless the command line is wrong.
fn without_settings(command: &Command, error: CommandError, ui: &Ui) -> Result<Ended, CommandError> {
    match command {
        Command::Watch(WatchArgs { command, .. }) if !command.is_empty() => {
            watch::run_without_recording(command, error, ui)
        }
        _ => Err(error),
    }
}

fn dispatch(command: Command, typed: &[String], settings: &Settings, ui: &Arc<Ui>) -> Result<Ended, CommandError> {
    match command {
        Command::Import(arguments) => import::run(&arguments, typed, settings, ui).map(Ended::Own),
        Command::Watch(arguments) => watch::run(&arguments, settings, ui),
        Command::Sync(arguments) => sync::run(&arguments, typed, settings, ui).map(Ended::Own),
        Command::Artifact(ArtifactArgs { action: ArtifactAction::Put(arguments) }) => {
            artifact::put(&arguments, typed, settings, ui).map(Ended::Own)
        }
        Command::Verify(arguments) => verify::run(&arguments, settings, ui).map(Ended::Own),
        Command::Inspect(arguments) => inspect::run(&arguments, settings, ui).map(Ended::Own),
        Command::Completions(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "wandb-bridge", &mut script);
            ui.data(&String::from_utf8_lossy(&script));
            Ok(Ended::Own(ExitCode::Success))
        }
    }
}

/// Logs what happens inside, for bug reports: as often as `-v` was given, or what `WANDB_BRIDGE_LOG` says, such as
/// `debug` or `wandb_bridge::upload=trace,hyper=info`. What a user must see goes through [`Ui`] instead.
fn log_to_stderr(verbose: u8, environment: &Environment) {
    let directives = match (environment.get("WANDB_BRIDGE_LOG").and_then(|directives| directives.to_str()), verbose) {
        (Some(directives), _) => directives,
        (None, 0) => return,
        (None, 1) => "wandb_bridge=info",
        (None, 2) => "wandb_bridge=debug",
        (None, _) => "wandb_bridge=trace",
    };
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(io::stderr);
    // In tests there may be a subscriber already.
    let _ = lines.finish().with(targets(directives)).try_init();
}

/// A directive that cannot be used costs only itself.
fn targets(directives: &str) -> Targets {
    let is_usable = |directive: &&str| !directive.is_empty() && directive.parse::<Targets>().is_ok();
    let usable: Vec<&str> = directives.split(',').map(str::trim).filter(is_usable).collect();
    // No text at all would mean everything.
    if usable.is_empty() { Targets::new() } else { usable.join(",").parse().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn what_is_logged() {
        let says = |directives: &str, target: &str| {
            let targets = targets(directives);
            let most = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
            most.into_iter().find(|level| targets.would_enable(target, level))
        };
        assert_eq!(says("debug", "hyper"), Some(Level::DEBUG));
        assert_eq!(says("wandb_bridge=info", "wandb_bridge::upload"), Some(Level::INFO));
        assert_eq!(says("wandb_bridge=info", "hyper"), None);
        assert_eq!(
            says("warn,hyper=much,wandb_bridge::upload=trace", "wandb_bridge::upload::fold"),
            Some(Level::TRACE)
        );
        assert_eq!(says("warn,hyper=much,wandb_bridge::upload=trace", "hyper"), Some(Level::WARN));
        assert_eq!(says("", "wandb_bridge"), None);
    }
}

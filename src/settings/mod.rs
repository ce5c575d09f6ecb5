//! Settings: the one reader of environment and files.
//!
//! For each setting the first of these that has it wins: flag, `WANDB_BRIDGE_X`, `WANDB_X`, the workspace's W&B settings
//! file, the user's W&B settings file, default. Everything comes out typed and checked, with its source, so that an error
//! can name the place where a person has to change something.
//!
//! Resolving is a function of the command line, an [`Environment`] and the files that these two name. Nothing here talks
//! to the network or prints: warnings are handed on as text.

mod environment;
mod error;
mod files;
mod key;
mod netrc;
mod server;
mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::{Cli, Command, DataArgs, Layout, Mode, OnConflict, Restarts, RunArgs, TargetArgs};
use crate::convert::config::ConfigFlag;
use crate::convert::run_filter::RunFilter;
use crate::free_space::MinFree;
use crate::model::RunId;

pub use environment::Environment;
pub use error::SettingsError;
pub use key::KeyLookup;
pub use server::Server;
pub use value::{Setting, Source, check_project};

use files::SettingsFiles;
use value::Lookup;

/// How many runs and files are uploaded at once when nobody says.
const TRANSFERS: u16 = 8;
/// How often a failed request is tried again when nobody says; the official client's number.
const RETRIES: u32 = 20;

/// How much may wait for the server on disk when nobody says.
const MAX_SPOOL: u64 = 10 << 30;

/// All that a command needs to know, typed and checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether to upload, and who asked for that.
    pub mode: Setting<Mode>,
    /// The server and the way to it.
    pub server: Server,
    /// The API key, as far as there is one. Not looked for unless the mode is online.
    pub key: KeyLookup,
    /// The user or team that was asked for.
    pub entity: Option<Setting<String>>,
    /// The project that was asked for; where [`Setting::is_template`], its text may hold placeholders.
    pub project: Option<Setting<String>>,
    /// The `wandb` folder: relative when `--dir` is.
    pub wandb_dir: PathBuf,
    /// Where the state of runs lies, if not beside them: relative when `--state-dir` is.
    pub state_dir: Option<PathBuf>,
    /// Whether to go on where locks do not work.
    pub no_lock: bool,
    /// What a run is, and what it is called.
    pub runs: RunShape,
    /// Which data a run holds, and how it is shown.
    pub data: DataArgs,
    /// What the environment says about a run, valid only if exactly one run is made.
    pub single_run: SingleRun,
    /// How many runs and files are uploaded at once.
    pub transfers: u16,
    /// How often a failed request is tried again.
    pub retries: u32,
    /// The wait before a second try; others are up to 60 times as long.
    pub retry_wait: Duration,
    /// What happens to a run whose id holds something else on the server.
    pub on_conflict: OnConflict,
    /// When to stop, resumable.
    pub max_duration: Option<Duration>,
    /// How many bytes of log and media may wait to be acknowledged.
    pub max_spool: u64,
    /// How much of the disk is to stay free.
    pub min_free: MinFree,
    /// Whether what was acknowledged is deleted here.
    pub clean: bool,
    /// Where the official client keeps copies of the files of artifacts on this machine, if anywhere.
    pub staging_dir: Option<PathBuf>,
    /// Requests a second over all runs, as the user says; 0 is no limit.
    pub requests_per_second: Option<f64>,
    /// What to say, and how.
    pub output: Output,
    /// Set where this process is not the first of its job.
    pub other_rank: Option<Rank>,
    /// What a person should hear before anything else. Nothing in here holds a key.
    pub warnings: Vec<String>,
}

/// What a run is, and what it is called. Texts may hold placeholders where [`Setting::is_template`].
#[derive(Debug, Clone, Default)]
pub struct RunShape {
    /// Which directories make one run.
    pub layout: Layout,
    /// Directories for which this template gives the same text make one run.
    pub join: Option<String>,
    /// Template of the run id.
    pub run_id: Option<String>,
    /// Template of the name.
    pub run_name: Option<String>,
    /// Group.
    pub group: Option<Setting<String>>,
    /// Job type.
    pub job_type: Option<Setting<String>>,
    /// Tags.
    pub tags: Option<Setting<Vec<String>>>,
    /// Template of the notes.
    pub notes: Option<String>,
    /// Whether the event files themselves become files of their runs.
    pub save_events: bool,
    /// Config values, a later one over an earlier one.
    pub config: Vec<ConfigFlag>,
    /// Config files for all runs, a later one over an earlier one.
    pub config_files: Option<Setting<Vec<PathBuf>>>,
    /// Whether config files beside the event files are left alone.
    pub no_config_files: bool,
    /// Which TB runs are read.
    pub filter: RunFilter,
    /// 0 unless fresh runs beside the old ones were asked for.
    pub generation: u32,
}

/// Settings of the official client that describe the one run of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SingleRun {
    /// `WANDB_RUN_ID`
    pub id: Option<RunId>,
    /// `WANDB_NAME`
    pub name: Option<String>,
    /// `WANDB_NOTES`
    pub notes: Option<String>,
}

/// What to say, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Output {
    /// JSON lines on stdout.
    pub json: bool,
    /// Only warnings and errors.
    pub quiet: bool,
    /// How much to log, from 0.
    pub verbose: u8,
    /// Whether colors are allowed; that stderr is a terminal is for the screen to find out.
    pub color: bool,
}

/// The place of this process among those of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rank {
    /// The variable that says so.
    pub variable: &'static str,
    /// Never 0.
    pub rank: u64,
}

impl Settings {
    /// Puts flags, environment and files together.
    pub fn resolve(cli: &Cli, environment: &Environment) -> Result<Self, SettingsError> {
        let command = &cli.command;
        let mut warnings = Vec::new();
        let target = command.target();
        let on_conflict = target.on_conflict;
        let disk = command.disk();
        let network = command.network().cloned().unwrap_or_default();
        let dir = root_dir(&target, environment);
        let wandb_dir = wandb_dir(&dir, environment);
        let state_dir = command.state().state_dir.map(|dir| environment.expand_home(&dir));
        let lookup = Lookup { cli, environment, files: &SettingsFiles::default() };
        check_directory(&dir, || lookup.flag_or_variable(target.dir.is_some(), "--dir", "WANDB_DIR"), environment)?;
        if let Some(dir) = &state_dir {
            check_directory(dir, || lookup.flag("--state-dir"), environment)?;
        }
        let files = SettingsFiles::read(environment, &wandb_dir, &mut warnings);
        let lookup = Lookup { files: &files, ..lookup };
        let uses_server = command.uses_server();

        let mode = if uses_server {
            mode(command, &target, &lookup, &mut warnings)?
        } else {
            Setting::default_of(Mode::Offline)
        };
        let server = if uses_server { Server::resolve(&network, &lookup, &mut warnings)? } else { Server::default() };
        let key = match mode.value {
            Mode::Online => key::look_up(&server, &lookup, &mut warnings)?,
            Mode::Offline | Mode::Disabled => KeyLookup::Missing { host: server.netloc().to_owned() },
        };
        let entity = lookup.find(target.entity, "--entity", "ENTITY", "entity")?;
        let project = lookup.find(target.project, "--project", "PROJECT", "project")?;
        if let Some(project) = &project {
            value::check_project_setting(project)?;
        }
        let runs = command.runs().cloned();
        let data = command.data().cloned().unwrap_or_default();
        if matches!(command, Command::Watch(_)) && data.restarts == Restarts::Purge {
            let why = "rows that are on the server cannot be taken back, so `purge` is for `import` into a new run";
            return Err(SettingsError::Value { source: lookup.flag("--restarts"), why: why.to_owned() });
        }
        let single_run =
            if runs.is_some() { SingleRun::resolve(&lookup, &mut warnings)? } else { SingleRun::default() };
        Ok(Self {
            mode,
            server,
            key,
            entity,
            project,
            wandb_dir,
            state_dir,
            no_lock: command.state().no_lock,
            runs: RunShape::resolve(runs.unwrap_or_default(), &lookup)?,
            data,
            single_run,
            transfers: network.transfers.unwrap_or(TRANSFERS),
            retries: network.retries.unwrap_or(RETRIES),
            retry_wait: network.retry_wait.unwrap_or(Duration::from_secs(1)),
            on_conflict,
            max_duration: network.max_duration,
            max_spool: disk.max_spool.unwrap_or(MAX_SPOOL),
            min_free: disk.min_free.unwrap_or_default(),
            clean: disk.clean,
            staging_dir: staging_dir(environment),
            requests_per_second: network.tpslimit,
            output: Output::resolve(command, environment),
            other_rank: other_rank(environment),
            warnings,
        })
    }
}

impl Output {
    /// What to say, and how. Never fails, so that a failure of [`Settings::resolve`] can be shown in the right way.
    pub fn resolve(command: &Command, environment: &Environment) -> Self {
        let arguments = command.output();
        let switched_on =
            |name| environment.get(name).and_then(|value| crate::cli::boolean(value.to_str()?)) == Some(true);
        let silent = arguments.verbose == 0 && (switched_on("WANDB_SILENT") || switched_on("WANDB_QUIET"));
        Self {
            json: arguments.json,
            quiet: arguments.quiet || silent,
            verbose: arguments.verbose,
            color: environment.get("NO_COLOR").is_none()
                && environment.get("TERM").is_none_or(|terminal| terminal != "dumb"),
        }
    }
}

impl RunShape {
    fn resolve(arguments: RunArgs, lookup: &Lookup<'_>) -> Result<Self, SettingsError> {
        let typed_tags = Some(arguments.tags.join(",")).filter(|tags| !tags.is_empty());
        let tags = lookup.find(typed_tags, "--tags", "TAGS", "run_tags")?.map(value::split_tags).transpose()?;
        Ok(Self {
            layout: arguments.layout,
            join: arguments.join,
            run_id: arguments.run_id,
            run_name: arguments.run_name,
            group: lookup.find(arguments.group, "--group", "RUN_GROUP", "run_group")?,
            job_type: lookup.find(arguments.job_type, "--job-type", "JOB_TYPE", "run_job_type")?,
            tags,
            notes: arguments.notes,
            save_events: arguments.save_events,
            config: arguments.config,
            config_files: (!arguments.config_files.is_empty()).then(|| Setting {
                value: arguments.config_files.iter().map(|file| lookup.environment.expand_home(file)).collect(),
                source: lookup.flag("--config-file"),
            }),
            no_config_files: arguments.no_config_files,
            filter: RunFilter { include: arguments.include, exclude: arguments.exclude },
            generation: arguments.generation,
        })
    }
}

impl SingleRun {
    fn resolve(lookup: &Lookup<'_>, warnings: &mut Vec<String>) -> Result<Self, SettingsError> {
        for ignored in ["WANDB_RESUME", "WANDB_SWEEP_ID"] {
            if lookup.environment.get(ignored).is_some() {
                warnings.push(format!("`{ignored}` is ignored: it is for the process that trains"));
            }
        }
        let id = lookup.variable("RUN_ID")?.map(|id| {
            RunId::new(id.value).map_err(|error| SettingsError::Value { source: id.source, why: error.to_string() })
        });
        let text = |name| Ok(lookup.variable(name)?.map(|setting| setting.value));
        Ok(Self { id: id.transpose()?, name: text("NAME")?, notes: text("NOTES")? })
    }

    /// What to say when these do not apply because `runs` runs are made; `None` when nothing is set.
    pub fn ignored_warning(&self, runs: usize) -> Option<String> {
        let names: Vec<&str> = [
            (self.id.is_some(), "`WANDB_RUN_ID`"),
            (self.name.is_some(), "`WANDB_NAME`"),
            (self.notes.is_some(), "`WANDB_NOTES`"),
        ]
        .into_iter()
        .filter_map(|(is_set, name)| is_set.then_some(name))
        .collect();
        let (last, others) = names.split_last()?;
        let (subject, verb) = match others {
            [] => ((*last).to_owned(), "is"),
            others => (format!("{} and {last}", others.join(", ")), "are"),
        };
        Some(format!("{subject} {verb} ignored: one run has an id, a name and notes, and here are {runs}"))
    }
}

/// Where the `wandb` folder lies: `--dir`, `WANDB_DIR`, or the working directory.
fn root_dir(target: &TargetArgs, environment: &Environment) -> PathBuf {
    let dir = target.dir.clone().or_else(|| environment.get("WANDB_DIR").map(PathBuf::from));
    dir.map(|dir| environment.expand_home(&dir)).unwrap_or_default()
}

/// Refuses what is there and no directory; one that is not there yet is made when it is needed.
fn check_directory(path: &Path, source: impl Fn() -> Source, environment: &Environment) -> Result<(), SettingsError> {
    let is_refused = match std::fs::metadata(environment.at(path)) {
        Ok(metadata) => !metadata.is_dir(),
        // Something above it is a file.
        Err(error) => error.kind() == std::io::ErrorKind::NotADirectory,
    };
    let why = || format!("`{}` is not a directory", path.display());
    if is_refused { Err(SettingsError::Value { source: source(), why: why() }) } else { Ok(()) }
}

/// The official client uses `.wandb` where that exists.
fn wandb_dir(dir: &Path, environment: &Environment) -> PathBuf {
    let hidden = dir.join(".wandb");
    if environment.at(&hidden).is_dir() { hidden } else { dir.join("wandb") }
}

/// Where the official client keeps copies of the files of artifacts until they are sent.
fn staging_dir(environment: &Environment) -> Option<PathBuf> {
    let set = |name: &str| environment.get(name).map(|value| environment.expand_home(Path::new(value)));
    let data = || {
        if cfg!(target_os = "macos") {
            environment.in_home("Library/Application Support")
        } else if cfg!(windows) {
            set("LOCALAPPDATA").map(|data| data.join("wandb"))
        } else {
            set("XDG_DATA_HOME").or_else(|| environment.in_home(".local/share"))
        }
    };
    let data = set("WANDB_DATA_DIR").or_else(|| data().map(|data| data.join("wandb")))?;
    Some(environment.at(&data).join("artifacts/staging"))
}

fn mode(
    command: &Command,
    target: &TargetArgs,
    lookup: &Lookup<'_>,
    warnings: &mut Vec<String>,
) -> Result<Setting<Mode>, SettingsError> {
    let uploads_anyway = matches!(command, Command::Sync(_) | Command::Artifact(_) | Command::Verify(_));
    if let Some(value) = target.mode {
        let source = lookup.flag("--mode");
        return match (uploads_anyway && value == Mode::Offline, &source) {
            (true, Source::Flag(_)) if matches!(command, Command::Artifact(_)) => Err(SettingsError::OfflineArtifact),
            (true, Source::Flag(_)) => Err(SettingsError::OfflineSync),
            (true, _) => Ok(Setting { value: Mode::Online, source }),
            (false, _) => Ok(Setting { value, source }),
        };
    }
    let Some(found) = lookup.find(None, "--mode", "MODE", "mode")? else {
        return Ok(Setting::default_of(Mode::Online));
    };
    let value = match found.value.as_str() {
        "online" | "run" => Mode::Online,
        "offline" | "dryrun" => Mode::Offline,
        "disabled" => Mode::Disabled,
        "shared" => {
            warnings.push(format!("mode `shared` from {} is for processes that train; `online` is used", found.source));
            Mode::Online
        }
        other => {
            let why = format!("`{other}` is none of `online`, `offline` and `disabled`");
            return Err(SettingsError::Value { source: found.source, why });
        }
    };
    // These are requests to upload, and the variable stands there for the process that trains.
    let value = if uploads_anyway && value == Mode::Offline { Mode::Online } else { value };
    Ok(Setting { value, source: found.source })
}

fn other_rank(environment: &Environment) -> Option<Rank> {
    ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"].into_iter().find_map(|variable| {
        let rank = environment.get(variable)?.to_str()?.trim().parse().ok()?;
        (rank != 0).then_some(Rank { variable, rank })
    })
}

#[cfg(test)]
mod tests;

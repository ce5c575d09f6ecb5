//! What can be typed: commands and flags, as data. Flags that several commands have are in `groups`.
//!
//! Promises that a line which parses is well formed in itself, and that every flag can also be set by a variable
//! (see [`parse`]). Knows neither the process's environment, nor files, nor what a command does. No flag takes a key:
//! command lines are seen by every user of a machine.

mod artifact;
mod groups;
mod values;
mod variables;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::convert::artifact_rule::ArtifactRule;
use clap::{Args, Parser, Subcommand};

pub use artifact::{ArtifactAction, ArtifactArgs, PutArgs};
pub use groups::{
    DataArgs, DiskArgs, Layout, Mode, NetworkArgs, OnConflict, OutputArgs, Restarts, RunArgs, StateArgs, TargetArgs,
};
pub use values::parse_duration;
pub(crate) use variables::boolean;
pub(crate) use variables::flag_variable;
pub use variables::{ParseError, parse};
pub use verify::{AlsoVerify, VerifyArgs};

const AFTER_HELP: &str = "\
Each `--some-flag` can be set as `WANDB_BRIDGE_SOME_FLAG`. Behind flags and these come the official client's variables, \
such as `WANDB_BASE_URL`, `WANDB_ENTITY` and `WANDB_PROJECT`, and then its settings files. The API key is taken from \
`WANDB_API_KEY` or netrc, never from a flag.";

/// The whole command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "wandb-bridge",
    version,
    about = "Bring TensorBoard event files and W&B run logs to a W&B server: every point, on the right axis, once",
    after_help = AFTER_HELP,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The `WANDB_BRIDGE_…` variables whose values stand in for flags that were not typed.
    #[arg(skip)]
    pub variables: Vec<String>,
}

/// One command each.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Read all event files that are there, record their runs, upload them, end
    Import(ImportArgs),
    /// Import, and go on as files grow and appear
    Watch(WatchArgs),
    /// Upload runs that are already in the run datastore, ours or any W&B client's
    Sync(SyncArgs),
    /// Show runs, tags, steps and damage without writing anything
    Inspect(InspectArgs),
    /// Upload files as artifacts
    Artifact(ArtifactArgs),
    /// Compare what is here with what the server holds
    Verify(VerifyArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `import PATH…`
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// Directories or event files to read
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Read and convert, but neither write nor upload
    #[arg(long)]
    pub dry_run: bool,
    /// Attach files to each run as an artifact; GLOB is looked for below the run's own directory, NAME may hold placeholders;
    /// may be repeated
    #[arg(long = "artifact", value_name = "TYPE:NAME=GLOB")]
    pub artifacts: Vec<ArtifactRule>,
    /// Whether to look afterwards if all is there.
    #[command(flatten)]
    pub verify: AlsoVerify,
    /// What a run is, and what it is called.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Which data a run holds, and how it is shown.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where runs go.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where the state of runs lies.
    #[command(flatten)]
    pub state: StateArgs,
    /// How much of the disk is taken.
    #[command(flatten)]
    pub disk: DiskArgs,
    /// How hard to try.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `watch [PATH…] [-- CMD…]`
#[derive(Debug, Clone, Args)]
pub struct WatchArgs {
    /// Directories or event files to watch; one that does not exist yet is waited for
    #[arg(
        value_name = "PATH",
        required_unless_present = "command",
        default_value_if("command", clap::builder::ArgPredicate::IsPresent, ".")
    )]
    pub paths: Vec<PathBuf>,
    /// Run this command, pass signals on to it, and end when it ends
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
    /// Look at the files this often [default: 1s, on network file systems 10s]
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration, help_heading = "Watching")]
    pub poll: Option<Duration>,
    /// End when nothing new came for this long, counted from the first event
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration, help_heading = "Watching")]
    pub until_idle: Option<Duration>,
    /// Take a run for ended when its newest event is this old at first look
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h", help_heading = "Watching")]
    pub stale_after: Duration,
    /// Leave out runs that have ended already
    #[arg(long, help_heading = "Watching")]
    pub new_only: bool,
    /// Spend at most this long on sending what is left after SIGINT or SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "25s", help_heading = "Watching")]
    pub drain: Duration,
    /// Read and convert, but neither write nor upload
    #[arg(long)]
    pub dry_run: bool,
    /// What a run is, and what it is called.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Which data a run holds, and how it is shown.
    #[command(flatten)]
    pub data: DataArgs,
    /// Where runs go.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where the state of runs lies.
    #[command(flatten)]
    pub state: StateArgs,
    /// How much of the disk is taken.
    #[command(flatten)]
    pub disk: DiskArgs,
    /// How hard to try.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `sync [PATH…]`
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    /// Run directories, `.wandb` files, or folders that hold them [default: the `wandb` folder under `--dir`]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Also take runs that were recorded online
    #[arg(long)]
    pub include_online: bool,
    /// Also take runs that are marked as synced
    #[arg(long)]
    pub include_synced: bool,
    /// Begin with the newest runs, not with the oldest
    #[arg(long)]
    pub newest_first: bool,
    /// Take a log without an exit for that of a run that died when it has not grown for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h")]
    pub stale_after: Duration,
    /// Send to this run; several logs become one run, in the order of their start
    #[arg(long, value_name = "ID", help_heading = "Destination")]
    pub id: Option<String>,
    /// Replace the job type
    #[arg(long, value_name = "TYPE", help_heading = "Destination")]
    pub job_type: Option<String>,
    /// Replace tags; a tag that becomes nothing is left out
    #[arg(long, value_name = "OLD=NEW", value_parser = values::parse_replacement, value_delimiter = ',', help_heading = "Destination")]
    pub replace_tags: Vec<(String, String)>,
    /// Go on as runs grow and appear, until a signal
    #[arg(long, conflicts_with = "dry_run", help_heading = "Following")]
    pub live: bool,
    /// Look at the runs this often
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration, default_value = "1s", requires = "live", help_heading = "Following")]
    pub poll: Duration,
    /// End when nothing new came for this long, counted from the first run
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration, requires = "live", help_heading = "Following")]
    pub until_idle: Option<Duration>,
    /// Spend at most this long on sending what is left after SIGINT or SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "25s", requires = "live", help_heading = "Following")]
    pub drain: Duration,
    /// Show what would be uploaded, and upload nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Attach files to each run as an artifact; GLOB is looked for below the directory that the run was imported from, or in
    /// the run's `files`; NAME may hold placeholders; may be repeated
    #[arg(long = "artifact", value_name = "TYPE:NAME=GLOB", conflicts_with = "live")]
    pub artifacts: Vec<ArtifactRule>,
    /// Which links are followed.
    #[command(flatten)]
    pub links: LinkArgs,
    /// Also look for files of recorded artifacts in this folder, where the staging folder of the machine that recorded them
    /// was copied to; may be repeated
    #[arg(long, value_name = "DIR")]
    pub staging: Vec<PathBuf>,
    /// Mark runs as synced although something of them can never be sent: it is reported once
    #[arg(long)]
    pub accept_losses: bool,
    /// Delete the log and the files of each run once it is finished and all of it was acknowledged
    #[arg(long)]
    pub clean: bool,
    /// Whether to look afterwards if all is there.
    #[command(flatten)]
    pub verify: AlsoVerify,
    /// Where runs go.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where the state of runs lies.
    #[command(flatten)]
    pub state: StateArgs,
    /// How hard to try.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which links among the files of runs are followed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LinkArgs {
    /// Take files that are links to any regular file outside of the run, hidden ones too
    #[arg(long, conflicts_with = "no_follow_links")]
    pub follow_links: bool,
    /// Take no file that is a link to outside of the run [default: those to files that are neither hidden nor the system's]
    #[arg(long)]
    pub no_follow_links: bool,
}

/// `inspect PATH…`
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Directories, event files, run directories or `.wandb` files to look at
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Show runs as they would be made in this folder's `wandb`, or were made before [env: WANDB_DIR] [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Look for the state of runs in this directory [default: beside each run]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Show runs in this project; a template [env: WANDB_PROJECT] [default: uncategorized]
    #[arg(short, long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// What a run is, and what it is called.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Which data a run holds, and how it is shown.
    #[command(flatten)]
    pub data: DataArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `completions SHELL`
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell to write for
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

impl Command {
    /// The flags about runs, where the command has them.
    pub fn runs(&self) -> Option<&RunArgs> {
        match self {
            Self::Import(arguments) => Some(&arguments.runs),
            Self::Watch(arguments) => Some(&arguments.runs),
            Self::Inspect(arguments) => Some(&arguments.runs),
            Self::Verify(arguments) => Some(&arguments.runs),
            Self::Sync(_) | Self::Artifact(_) | Self::Completions(_) => None,
        }
    }

    /// The flags about data, where the command has them.
    pub fn data(&self) -> Option<&DataArgs> {
        match self {
            Self::Import(arguments) => Some(&arguments.data),
            Self::Watch(arguments) => Some(&arguments.data),
            Self::Inspect(arguments) => Some(&arguments.data),
            Self::Verify(arguments) => Some(&arguments.data),
            Self::Sync(_) | Self::Artifact(_) | Self::Completions(_) => None,
        }
    }

    /// The flags about the destination.
    pub fn target(&self) -> TargetArgs {
        match self {
            Self::Import(arguments) => arguments.target.clone(),
            Self::Watch(arguments) => arguments.target.clone(),
            Self::Sync(arguments) => arguments.target.clone(),
            Self::Artifact(ArtifactArgs { action: ArtifactAction::Put(arguments) }) => arguments.target.clone(),
            Self::Inspect(arguments) => {
                let (dir, project) = (arguments.dir.clone(), arguments.project.clone());
                TargetArgs { dir, project, ..TargetArgs::default() }
            }
            Self::Verify(arguments) => arguments.target(),
            Self::Completions(_) => TargetArgs::default(),
        }
    }

    /// The flags about the state.
    pub fn state(&self) -> StateArgs {
        match self {
            Self::Import(arguments) => arguments.state.clone(),
            Self::Watch(arguments) => arguments.state.clone(),
            Self::Sync(arguments) => arguments.state.clone(),
            Self::Inspect(arguments) => StateArgs { state_dir: arguments.state_dir.clone(), ..StateArgs::default() },
            Self::Verify(arguments) => StateArgs { state_dir: arguments.state_dir.clone(), ..StateArgs::default() },
            Self::Artifact(_) | Self::Completions(_) => StateArgs::default(),
        }
    }

    /// The flags about the disk.
    pub fn disk(&self) -> DiskArgs {
        match self {
            Self::Import(arguments) => arguments.disk,
            Self::Watch(arguments) => arguments.disk,
            Self::Sync(arguments) => DiskArgs { clean: arguments.clean, ..DiskArgs::default() },
            Self::Artifact(_) | Self::Inspect(_) | Self::Verify(_) | Self::Completions(_) => DiskArgs::default(),
        }
    }

    /// Whether the command may talk to a server.
    pub fn uses_server(&self) -> bool {
        self.network().is_some()
    }

    /// The flags about the network, where the command has them.
    pub fn network(&self) -> Option<&NetworkArgs> {
        match self {
            Self::Import(arguments) => Some(&arguments.network),
            Self::Watch(arguments) => Some(&arguments.network),
            Self::Sync(arguments) => Some(&arguments.network),
            Self::Artifact(ArtifactArgs { action: ArtifactAction::Put(arguments) }) => Some(&arguments.network),
            Self::Verify(arguments) => Some(&arguments.network),
            Self::Inspect(_) | Self::Completions(_) => None,
        }
    }

    /// The flags about what is said.
    pub fn output(&self) -> OutputArgs {
        match self {
            Self::Import(arguments) => arguments.output,
            Self::Watch(arguments) => arguments.output,
            Self::Sync(arguments) => arguments.output,
            Self::Artifact(ArtifactArgs { action: ArtifactAction::Put(arguments) }) => arguments.output,
            Self::Inspect(arguments) => arguments.output,
            Self::Verify(arguments) => arguments.output,
            Self::Completions(_) => OutputArgs::default(),
        }
    }
}

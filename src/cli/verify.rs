//! `verify`, and the flags by which `import` and `sync` do the same when they are done.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::parse_duration;
use super::{DataArgs, LinkArgs, NetworkArgs, OutputArgs, RunArgs, TargetArgs};

/// `verify PATH…`
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Event files, run directories, `.wandb` files, or folders that hold them
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Ask again for this long before anything is called missing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "0s")]
    pub wait: Duration,
    /// Look for the run under this id; several logs are one run, in the order of their start
    #[arg(long, value_name = "ID", help_heading = "Destination")]
    pub id: Option<String>,
    /// Look for runs of this user or team [env: WANDB_ENTITY] [default: where they were sent]
    #[arg(short, long, value_name = "ENTITY", help_heading = "Destination")]
    pub entity: Option<String>,
    /// Look for runs in this project; a template for event files [env: WANDB_PROJECT] [default: where they were sent]
    #[arg(short, long, value_name = "PROJECT", help_heading = "Destination")]
    pub project: Option<String>,
    /// Event files were recorded in this folder's `wandb` [env: WANDB_DIR] [default: .]
    #[arg(long, value_name = "DIR", help_heading = "State")]
    pub dir: Option<PathBuf>,
    /// Look for the state of runs in this directory [default: beside each run]
    #[arg(long, value_name = "DIR", help_heading = "State")]
    pub state_dir: Option<PathBuf>,
    /// Which links are followed, as `sync` was told.
    #[command(flatten)]
    pub links: LinkArgs,
    /// What a run is, and what it is called.
    #[command(flatten)]
    pub runs: RunArgs,
    /// Which data a run holds, and how it is shown.
    #[command(flatten)]
    pub data: DataArgs,
    /// How hard to try.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

impl VerifyArgs {
    /// Where runs went.
    pub(super) fn target(&self) -> TargetArgs {
        let (entity, project, dir) = (self.entity.clone(), self.project.clone(), self.dir.clone());
        TargetArgs { entity, project, dir, ..TargetArgs::default() }
    }
}

/// Flags of commands that upload.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Verifying")]
pub struct AlsoVerify {
    /// When all is sent, look whether it is there, as `verify` does
    #[arg(long, conflicts_with = "dry_run")]
    pub verify: bool,
    /// Ask again for this long before anything is called missing
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "verify")]
    pub wait: Option<Duration>,
}

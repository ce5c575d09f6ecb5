//! `artifact put`: what can be typed after it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{NetworkArgs, OutputArgs, TargetArgs, values};
use crate::convert::config::ConfigFlag;
use crate::convert::globs::MetricGlob;

/// `artifact …`
#[derive(Debug, Clone, Args)]
pub struct ArtifactArgs {
    /// What to do with artifacts.
    #[command(subcommand)]
    pub action: ArtifactAction,
}

/// What to do with artifacts.
#[derive(Debug, Clone, Subcommand)]
pub enum ArtifactAction {
    /// Upload files as a version of an artifact, each content once
    Put(PutArgs),
}

/// `artifact put NAME PATH…`
#[derive(Debug, Clone, Args)]
pub struct PutArgs {
    /// The name of the artifact; its version is given out by the server
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Files, which go in under their names, and directories, which go in with all that is below them
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Set the type of the artifact, such as `model` or `dataset`
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "dataset")]
    pub kind: String,
    /// Let this name stand for the version; may be repeated [default: latest]
    #[arg(short, long = "alias", value_name = "ALIAS")]
    pub aliases: Vec<String>,
    /// Tag the version; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Describe the version
    #[arg(short, long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Set a value of the version's metadata, typed as in YAML; dots in KEY nest; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub metadata: Vec<ConfigFlag>,
    /// Let the server delete the version after this long, for example `30d`
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub ttl: Option<Duration>,
    /// Attach the version to this run, which must be there [default: a run of its own]
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Leave out files whose path in the artifact matches GLOB; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<MetricGlob>,
    /// Hash the files and show what the version would be, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Where the artifact goes.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How hard to try.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// What to say, and how.
    #[command(flatten)]
    pub output: OutputArgs,
}

//! Flags that several commands have in common, by what they are about.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::values;
use crate::convert::axes::AxisRule;
use crate::convert::config::ConfigFlag;
use crate::convert::filters::{KindName, Moment};
use crate::convert::globs::MetricGlob;
use crate::convert::run_filter::RunPattern;
use crate::convert::summaries::SummaryRule;
use crate::free_space::MinFree;

/// Where runs go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Destination")]
pub struct TargetArgs {
    /// Send to this user or team [env: WANDB_ENTITY] [default: the key's own]
    #[arg(short, long, value_name = "ENTITY")]
    pub entity: Option<String>,
    /// Send to this project; `import` and `watch` take a template [env: WANDB_PROJECT] [default: uncategorized]
    #[arg(short, long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Choose whether to upload [env: WANDB_MODE] [default: online]
    #[arg(long, value_name = "MODE", value_enum)]
    pub mode: Option<Mode>,
    /// Keep the `wandb` folder in this directory [env: WANDB_DIR] [default: .]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Choose what happens to a run whose id holds other rows on the server, or none of those that were sent
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub on_conflict: OnConflict,
}

/// Where the state of runs lies.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "State")]
pub struct StateArgs {
    /// Keep what is known of each run in this directory [default: beside each run]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Go on where the file system has no working locks: then see to it that no other process works on the same runs
    #[arg(long)]
    pub no_lock: bool,
}

/// How much of the disk is taken.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Disk")]
pub struct DiskArgs {
    /// Pause reading while so much log and media wait to be acknowledged, over all runs [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_spool)]
    pub max_spool: Option<u64>,
    /// Record nothing more when less than this would stay free on the disk [default: 5%]
    #[arg(long, value_name = "SIZE|PERCENT")]
    pub min_free: Option<MinFree>,
    /// Delete media when they are acknowledged, and a run's log once it is finished and acknowledged
    #[arg(long)]
    pub clean: bool,
}

/// How hard to try.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Upload this many runs and files at once [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub transfers: Option<u16>,
    /// Try a failed request again up to this many times [default: 20]
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// Wait this long before the second try; further ones wait up to 60 times as long [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration, hide = true)]
    pub retry_wait: Option<Duration>,
    /// Stop after this long; the next start goes on from there
    #[arg(long, value_name = "DURATION", value_parser = values::positive_duration)]
    pub max_duration: Option<Duration>,
    /// Make at most this many requests a second, 0 for no limit [default: as many as the server takes]
    #[arg(long, value_name = "N", value_parser = values::parse_rate)]
    pub tpslimit: Option<f64>,
    /// Trust the certificates in this PEM file too [env: SSL_CERT_FILE, REQUESTS_CA_BUNDLE]
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
}

/// What to say, and how.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print one JSON object a line to stdout: each run as it ends, the summary last
    #[arg(long)]
    pub json: bool,
    /// Print nothing but warnings and errors [env: WANDB_SILENT, WANDB_QUIET]
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log what happens inside; twice for each request, three times for each record
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// What a run is, and what it is called.
///
/// The text of templates is passed on as it was typed: their placeholders are the business of the run layout.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Runs")]
pub struct RunArgs {
    /// Choose which directories make one run
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t)]
    pub layout: Layout,
    /// Join directories for which this gives the same text into one run
    #[arg(long, value_name = "TEMPLATE")]
    pub join: Option<String>,
    /// Set the run id [placeholders here and below: {path} {dir} {parent} {root} {1} {2} …]
    #[arg(long, value_name = "TEMPLATE")]
    pub run_id: Option<String>,
    /// Name the run
    #[arg(long, value_name = "TEMPLATE")]
    pub run_name: Option<String>,
    /// Put the run into a group [env: WANDB_RUN_GROUP]
    #[arg(long, value_name = "TEMPLATE")]
    pub group: Option<String>,
    /// Set the job type [env: WANDB_JOB_TYPE]
    #[arg(long, value_name = "TEMPLATE")]
    pub job_type: Option<String>,
    /// Tag the run; give several with commas or by repeating the flag [env: WANDB_TAGS]
    #[arg(long, value_name = "TEMPLATE,…", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Describe the run
    #[arg(long, value_name = "TEMPLATE")]
    pub notes: Option<String>,
    /// Upload the event files themselves too, for the TensorBoard that W&B hosts
    #[arg(long)]
    pub save_events: bool,
    /// Set a config value, typed as in YAML; dots in KEY nest; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub config: Vec<ConfigFlag>,
    /// Take config from this YAML or JSON file, for all runs; may be repeated, the last one wins
    #[arg(long = "config-file", value_name = "FILE")]
    pub config_files: Vec<PathBuf>,
    /// Do not look for config files beside the event files
    #[arg(long)]
    pub no_config_files: bool,
    /// Read only the TB runs that match GLOB, a path below PATH such as `*/train`; may be repeated
    #[arg(long = "include", value_name = "GLOB")]
    pub include: Vec<RunPattern>,
    /// Leave out the TB runs that match GLOB; may be repeated
    #[arg(long = "exclude", value_name = "GLOB")]
    pub exclude: Vec<RunPattern>,
    /// Make fresh runs beside those of an earlier generation
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub generation: u32,
}

/// Which data a run holds, and how it is shown. Globs match the whole final name of a metric, and `*` crosses `/`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Put the metrics that match GLOB on the step axis NAME; may be repeated
    #[arg(long = "axis", value_name = "GLOB=NAME")]
    pub axes: Vec<AxisRule>,
    /// Summarize the metrics that match GLOB by min, max, mean, last, first or none; may be repeated
    #[arg(long = "summary", value_name = "GLOB=WHAT,…")]
    pub summaries: Vec<SummaryRule>,
    /// Choose what happens to steps that a restarted training wrote again (`purge`: `import` only)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub restarts: Restarts,
    /// Take only metrics that match GLOB; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub tags_include: Vec<MetricGlob>,
    /// Leave out metrics that match GLOB; may be repeated
    #[arg(long, value_name = "GLOB")]
    pub tags_exclude: Vec<MetricGlob>,
    /// Take only these kinds of data: scalars, images, audio, text, …
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub kinds: Vec<KindName>,
    /// Take only events at or after this time: `2026-07-14`, `2026-07-14T08:30:00Z`, `2d` ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Take only events before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Believe records of event files up to this size; a longer one ends its file as damaged [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_record)]
    pub max_record: Option<u64>,
}

/// What happens to steps that a restarted training wrote again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Restarts {
    /// Every value is kept
    #[default]
    Keep,
    /// Only those that were written last are taken
    Purge,
}

/// Whether runs are uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Record and upload
    Online,
    /// Record; `sync` uploads later
    Offline,
    /// Do nothing at all
    Disabled,
}

/// What happens to a run whose id holds something else on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OnConflict {
    /// It is left alone, and counted as skipped
    Skip,
    /// It is uploaded under another id, the same one each time
    NewId,
    /// Its rows are sent behind those that are there
    Append,
    /// It fails, and nothing is sent
    #[default]
    Fail,
}

/// Which directories make one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Layout {
    /// Directories of one experiment (`train`, `val`, …) make one run
    #[default]
    Auto,
    /// Every directory with event files is a run
    PerDirectory,
    /// All that lies under one PATH is one run
    Single,
}

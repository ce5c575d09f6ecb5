//! What the commands that record or upload have in common: from settings to the two halves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::{ApiClient, ApiOptions, GivingUp, Outage, Proxies, RetryPolicy, Timeouts, project_url};
use crate::checkpoint::Shape;
use crate::cli::{self, LinkArgs, Mode};
use crate::commands::error::{CommandError, ExitCode, IoContext as _};
use crate::commands::reporter::Reporter;
use crate::commands::ui::{Destination, Totals, Ui, command_line};
use crate::config_files;
use crate::convert::config;
use crate::convert::filters::{Filter, Filters};
use crate::convert::layout::Layout;
use crate::convert::restarts::Restarts;
use crate::convert::template::Template;
use crate::model::{Json, SkippedReason, Skips};
use crate::pipeline::{
    DEFAULT_PROJECT, GivenConfig, Naming, Recording, Signal, Signals, Uploads, Watcher, open_many_files, runtime,
};
use crate::recorder::{RecordError, RecordOptions};
use crate::settings::{Setting, Settings, SettingsError};
use crate::state_file::lock::Locking;
use crate::state_file::place::StateHome;
use crate::tfevents::record::DEFAULT_LIMIT;
use crate::upload::{Links, OnConflict};

/// A server with more runs than this in a project that nobody chose is a mess that somebody has to clean up.
const RUNS_WITHOUT_PROJECT: usize = 20;

/// Options that decide about rows, from settings.
pub(super) fn shape(settings: &Settings) -> Result<Shape, CommandError> {
    let layout = match settings.runs.layout {
        cli::Layout::Auto => Layout::Auto,
        cli::Layout::PerDirectory => Layout::PerDirectory,
        cli::Layout::Single => Layout::Single,
    };
    let data = &settings.data;
    Ok(Shape {
        layout,
        join: template("--join", settings.runs.join.as_deref())?,
        axes: data.axes.clone(),
        restarts: match data.restarts {
            cli::Restarts::Keep => Restarts::Keep,
            cli::Restarts::Purge => Restarts::Purge,
        },
        filters: Filters {
            tags_include: data.tags_include.clone(),
            tags_exclude: data.tags_exclude.clone(),
            kinds: data.kinds.iter().copied().collect(),
            since: data.since.clone(),
            until: data.until.clone(),
        },
        runs: settings.runs.filter.clone(),
    })
}

/// Names of runs, from settings.
pub(super) fn naming(settings: &Settings) -> Result<Naming, CommandError> {
    let runs = &settings.runs;
    let tags = runs.tags.as_ref().map(|tags| {
        let own = |text: &String| if tags.is_template() { text.clone() } else { Template::escape(text) };
        tags.value.iter().map(|tag| template_of("--tags", &own(tag))).collect::<Result<Vec<_>, _>>()
    });
    Ok(Naming {
        config: given_config(settings)?,
        run_id: template("--run-id", runs.run_id.as_deref())?,
        name: template("--run-name", runs.run_name.as_deref())?,
        group: setting_template("--group", runs.group.as_ref())?,
        job_type: setting_template("--job-type", runs.job_type.as_ref())?,
        notes: template("--notes", runs.notes.as_deref())?,
        tags: tags.transpose()?,
        project: setting_template("--project", settings.project.as_ref())?,
        entity: settings.entity.as_ref().map(|entity| entity.value.clone()).unwrap_or_default(),
        single: settings.single_run.clone(),
    })
}

/// Config from flags, and from the files that flags name. The name of such a file is all that is told of its place.
fn given_config(settings: &Settings) -> Result<GivenConfig, CommandError> {
    let runs = &settings.runs;
    let mut given = GivenConfig { values: Json::object(), files: Vec::new(), discover: !runs.no_config_files };
    for path in runs.config_files.iter().flat_map(|files| &files.value) {
        let config = config_files::read(path).map_err(|error| {
            let message = format!("cannot use the config file `{}`", path.display());
            CommandError::new(ExitCode::Usage, message).caused_by(&error)
        })?;
        config::lay_over(&mut given.values, config);
        given.files.insert(0, path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    for flag in &runs.config {
        given.values.set_path(&flag.path, flag.value.clone());
    }
    Ok(given)
}

fn template(flag: &str, text: Option<&str>) -> Result<Option<Template>, CommandError> {
    text.map(|text| template_of(flag, text)).transpose()
}

/// Braces mean something in our own flags only, not in the official client's variables.
fn setting_template(flag: &str, setting: Option<&Setting<String>>) -> Result<Option<Template>, CommandError> {
    let text = setting
        .map(|setting| if setting.is_template() { setting.value.clone() } else { Template::escape(&setting.value) });
    template(flag, text.as_deref())
}

fn template_of(flag: &str, text: &str) -> Result<Template, CommandError> {
    text.parse().map_err(|error| CommandError::new(ExitCode::Usage, format!("{flag}: {error}")))
}

/// Where runs are recorded, with what was recorded before.
pub(super) fn recording(settings: &Settings, dry_run: bool, runs: usize, ui: &Ui) -> Result<Recording, CommandError> {
    let shape = shape(settings)?;
    let options = RecordOptions {
        filter: Arc::new(Filter::new(&shape.filters, &jiff::ZonedDateTime::now())),
        shape,
        summaries: settings.data.summaries.clone(),
        max_record: settings.data.max_record.unwrap_or(DEFAULT_LIMIT),
        generation: settings.runs.generation,
        state: state_home(settings),
        save_events: settings.runs.save_events,
        dry_run,
    };
    let mut naming = naming(settings)?;
    if runs != 1 {
        if let Some(warning) = naming.single.ignored_warning(runs) {
            ui.warn_once(&warning.clone(), || warning);
        }
        naming.single = Default::default();
    }
    let (mut recording, errors) =
        Recording::new(settings.wandb_dir.clone(), options, naming).context("look at", &settings.wandb_dir)?;
    recording.min_free = settings.min_free;
    for error in errors {
        ui.warn_of(
            &CommandError::new(ExitCode::Failed, "a run that was recorded before cannot be read").caused_by(&error),
        );
    }
    Ok(recording)
}

/// Where the state of runs lies.
pub(super) fn state_home(settings: &Settings) -> StateHome {
    let locking = if settings.no_lock { Locking::WherePossible } else { Locking::Required };
    StateHome { directory: settings.state_dir.clone(), locking }
}

/// A client of the server, if the mode is online. Without a key that is an error.
pub(super) fn client(
    settings: &Settings,
    giving_up: GivingUp,
    ui: &Arc<Ui>,
) -> Result<Option<ApiClient>, CommandError> {
    if settings.mode.value != Mode::Online {
        return Ok(None);
    }
    let key = settings.key.require()?.clone();
    let server = &settings.server;
    let url = |text: &str| {
        // Not shown: it may hold a password.
        Url::parse(text).map_err(|error| {
            CommandError::new(ExitCode::Usage, "the address of the server or of a proxy is not a URL").caused_by(&error)
        })
    };
    let proxy = |text: &Option<String>| text.as_deref().map(url).transpose();
    let mut timeouts = Timeouts::default();
    if let Some(timeout) = server.http_timeout {
        timeouts.graphql = timeout;
    }
    let options = ApiOptions {
        app_url: server.app_url.clone(),
        retry: RetryPolicy {
            retries: settings.retries,
            wait_min: settings.retry_wait,
            wait_max: settings.retry_wait.saturating_mul(60),
        },
        giving_up,
        timeouts,
        ca_files: server.certificate_files.clone(),
        proxies: Proxies {
            http: proxy(&server.http_proxy)?,
            https: proxy(&server.https_proxy)?,
            except: server.no_proxy.clone(),
        },
        requests_per_second: settings.requests_per_second,
        username: server.username.clone(),
        email: server.user_email.clone(),
        ..ApiOptions::new(url(&server.base_url)?, key)
    };
    let client = ApiClient::new(options).map_err(|error| {
        let trouble = CommandError::new(ExitCode::Usage, "the connection cannot be set up").caused_by(&error);
        if server.certificate_files.is_empty() {
            return trouble;
        }
        trouble.hint("`--ca-cert`, `SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE` name PEM files of certificates")
    });
    let ui = ui.clone();
    Ok(Some(client?.telling(move |outage| match outage {
        // Also when it is to be quiet: that it waits, and for what, is no matter of taste.
        Outage::Begins { error, retries } => {
            ui.warning(format!("{error}; each request is tried again, up to {retries} times (`--retries`)"));
        }
        Outage::Ends => ui.note("the server answers again"),
    })))
}

/// Whether the error is that there is no key at all.
pub(super) fn no_key(settings: &Settings) -> bool {
    settings.mode.value == Mode::Online && matches!(settings.key.require(), Err(SettingsError::NoKey { .. }))
}

/// How many runs may be made at once: a project that is nobody's is not filled with many.
pub(super) fn most_runs(settings: &Settings) -> Option<usize> {
    (settings.project.is_none() && settings.mode.value == Mode::Online).then_some(RUNS_WITHOUT_PROJECT)
}

/// A pattern that matches nothing is a misspelled pattern.
pub(super) fn warn_of_idle_patterns(patterns: &[String], ui: &Ui) {
    for pattern in patterns {
        ui.warning(format!("`{pattern}` matches no TB run"));
    }
}

/// Counts event files of which no run was made: those that cannot be read, those whose writers have only begun, and those
/// that filters leave out.
pub(super) fn outside(unreadable: &[(PathBuf, String)], waiting: &[PathBuf], left_out: &[PathBuf]) -> Skips {
    let mut skips = Skips::default();
    for (path, why) in unreadable {
        skips.add(SkippedReason::Unreadable, 1, || format!("`{}`: {why}", path.display()));
    }
    if let Some(first) = waiting.first() {
        let count = waiting.len() as u64;
        skips.add(SkippedReason::IncompleteTail, count, || format!("`{}`: its writer has only begun", first.display()));
    }
    if let Some(first) = left_out.first() {
        skips.add(SkippedReason::LeftOutFile, left_out.len() as u64, || format!("`{}`", first.display()));
    }
    skips
}

/// Refuses to fill the project that is nobody's with many runs.
pub(super) fn check_project_chosen(settings: &Settings, runs: usize) -> Result<(), CommandError> {
    if most_runs(settings).is_none_or(|most| runs <= most) {
        return Ok(());
    }
    let message = format!("{runs} runs would go to the project `{DEFAULT_PROJECT}`, because none was chosen");
    Err(CommandError::new(ExitCode::Usage, message).hint("choose one with `-p NAME`, or with `WANDB_PROJECT`"))
}

/// A glob that matches nothing is a misspelled one: each such is said. `keys` are all keys that were met.
pub(super) fn warn_of_idle_globs(settings: &Settings, keys: &BTreeSet<String>, ui: &Ui) {
    let data = &settings.data;
    let warn = |flag: &str, text: &dyn std::fmt::Display, is_match: &dyn Fn(&str) -> bool| {
        if !keys.iter().any(|key| is_match(key)) {
            ui.warning(format!("`{flag} {text}` matches no metric"));
        }
    };
    for rule in &data.axes {
        warn("--axis", rule, &|key| rule.is_match(key));
    }
    for rule in &data.summaries {
        warn("--summary", rule, &|key| rule.is_match(key));
    }
    for (flag, globs) in [("--tags-include", &data.tags_include), ("--tags-exclude", &data.tags_exclude)] {
        for glob in globs {
            warn(flag, &glob.as_str(), &|key| glob.is_match(key));
        }
    }
}

/// What a person reads when `--run-id` gives an experiment no id of its own.
pub(super) fn no_id(directory: &Path, error: &RecordError) -> CommandError {
    let message = format!("`{}` gets no run id of its own", directory.display());
    let trouble = CommandError::new(ExitCode::Usage, message).caused_by(error);
    match error {
        RecordError::SameId(_) => {
            trouble.hint("put `{path}` into `--run-id`, and `{root}` too where there are several PATHs")
        }
        _ => trouble.hint("choose another `--run-id`, such as one with `{path}`"),
    }
}

/// Refuses paths that do not exist.
pub(super) fn check_paths(paths: &[PathBuf]) -> Result<(), CommandError> {
    for path in paths {
        if let Err(error) = std::fs::metadata(path) {
            let message = format!("cannot look at `{}`", path.display());
            return Err(CommandError::new(ExitCode::Usage, message).caused_by(&error).hint("check the path"));
        }
    }
    Ok(())
}

/// Where runs of these settings go, for the first lines.
pub(super) fn destination(settings: &Settings, dry_run: bool) -> Destination {
    if dry_run {
        return Destination::Nowhere;
    }
    if settings.mode.value != Mode::Online {
        return Destination::Folder(settings.wandb_dir.display().to_string());
    }
    let app_url = &settings.server.app_url;
    let entity = settings.entity.as_ref().map(|entity| entity.value.as_str());
    let template = setting_template("--project", settings.project.as_ref()).ok().flatten();
    let project = template.as_ref().map_or(Some(DEFAULT_PROJECT), Template::literal);
    Destination::Server(match (entity, project) {
        (Some(entity), Some(project)) => project_url(app_url, entity, project),
        (None, Some(project)) => format!("{app_url}, project `{project}`"),
        // One for each value of the template: each run's address says which.
        (Some(entity), None) => format!("{app_url}/{entity}, projects `{}`", template_text(settings)),
        (None, None) => format!("{app_url}, projects `{}`", template_text(settings)),
    })
}

fn template_text(settings: &Settings) -> &str {
    settings.project.as_ref().map_or("", |project| project.value.as_str())
}

/// The reporter of a command.
pub(super) fn reporter(
    ui: &Arc<Ui>,
    settings: &Settings,
    destination: Destination,
    again: Option<String>,
) -> Arc<Reporter> {
    let mut totals = Totals::new(settings.wandb_dir.clone());
    (totals.dry_run, totals.again) = (destination == Destination::Nowhere, again);
    Reporter::new(ui.clone(), destination, &settings.server.app_url, totals)
}

/// The command line as it was typed, to be typed again.
pub(super) fn same_command(typed: &[String]) -> String {
    command_line(["wandb-bridge"].into_iter().chain(typed.iter().map(String::as_str)))
}

/// The uploads of a command.
pub(super) fn uploads(
    runtime: &Arc<Runtime>,
    client: ApiClient,
    settings: &Settings,
    watcher: &Arc<dyn Watcher>,
) -> Uploads {
    let on_conflict = match settings.on_conflict {
        cli::OnConflict::Skip => OnConflict::Skip,
        cli::OnConflict::NewId => OnConflict::NewId,
        cli::OnConflict::Append => OnConflict::Append,
        cli::OnConflict::Fail => OnConflict::Fail,
    };
    Uploads::new(runtime.clone(), client, settings.transfers, state_home(settings), watcher.clone())
        .keeping(settings.max_spool, settings.clean)
        .on_conflict(on_conflict)
}

/// What becomes of links among the files of runs.
pub(super) fn links(links: LinkArgs) -> Links {
    match (links.follow_links, links.no_follow_links) {
        (true, _) => Links::Always,
        (_, true) => Links::Never,
        _ => Links::Saved,
    }
}

/// The runtime of a command.
pub(super) fn start_runtime() -> Result<Arc<Runtime>, CommandError> {
    runtime().map_err(|error| CommandError::new(ExitCode::Failed, "cannot start").caused_by(&error))
}

/// What can cut `import` and `sync` short: a signal, or the time limit.
#[derive(Debug)]
pub(super) struct Stop {
    /// Cancelled when the command is to end now.
    pub(super) token: CancellationToken,
    code: Arc<AtomicU8>,
}

impl Stop {
    /// Listens on the runtime. `uploads` are cancelled with it; a second signal ends the process at once.
    pub(super) fn listen(
        runtime: &Runtime,
        limit: Option<Duration>,
        uploads: Option<&Uploads>,
    ) -> Result<Self, CommandError> {
        let (token, code) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)));
        open_many_files();
        let _context = runtime.enter();
        let mut signals = Signals::listen(false)
            .map_err(|error| CommandError::new(ExitCode::Failed, "cannot listen for signals").caused_by(&error))?;
        let uploads = uploads.map(|uploads| uploads.cancel().clone());
        let (stop, why) = (token.clone(), code.clone());
        runtime.spawn(async move {
            let limit = async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            let number = tokio::select! {
                () = limit => ExitCode::TimeLimit.number(),
                signal = signals.next() => signal.exit_code(),
            };
            why.store(number, Ordering::Relaxed);
            stop.cancel();
            if let Some(uploads) = uploads {
                uploads.cancel();
            }
            let second = signals.next().await;
            std::process::exit(i32::from(second.exit_code()));
        });
        Ok(Self { token, code })
    }

    /// Why the command was cut short, if it was.
    pub(super) fn exit_code(&self) -> Option<ExitCode> {
        match self.code.load(Ordering::Relaxed) {
            0 => None,
            code if code == ExitCode::TimeLimit.number() => Some(ExitCode::TimeLimit),
            code if code == Signal::Interrupt.exit_code() => Some(ExitCode::Interrupted),
            _ => Some(ExitCode::Terminated),
        }
    }
}

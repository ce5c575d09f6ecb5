//! `artifact put`: files and directories, from a job, as a version of an artifact.
//!
//! Everything is hashed before anything is sent, so a file that cannot be read, or that somebody writes to, leaves nothing
//! behind on the server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::api::{Class, GivingUp, artifact_url};
use crate::artifact::{
    CollectError, Found, HashError, Manifest, Multipart, NameError, check_alias, check_name, check_tag, check_type,
    collect,
};
use crate::cli::{Mode, PutArgs};
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::session::{self, Stop};
use crate::commands::ui::{Ui, counted, named, size};
use crate::model::{Json, Number, RunId};
use crate::pipeline::DEFAULT_PROJECT;
use crate::settings::{Settings, check_project};
use crate::upload::{Manner, PutArtifact, PutError, PutRequest, put_artifact};

/// The most that the official client takes.
const METADATA_KEYS: usize = 100;

/// What `--json` prints.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "artifact")]
struct Report {
    name: String,
    artifact_type: String,
    /// `v3`; none in a dry run.
    version: Option<String>,
    /// entity/project/name:version
    path: Option<String>,
    /// The server's id.
    id: Option<String>,
    digest: String,
    aliases: Vec<String>,
    url: Option<String>,
    /// entity/project/id of the run that it belongs to.
    run_path: Option<String>,
    files: u64,
    bytes: u64,
    files_sent: u64,
    bytes_sent: u64,
    /// Whether the server had this version before.
    was_there: bool,
    left_out: Vec<LeftOutReport>,
    exit_code: u8,
}

#[derive(Debug, Serialize)]
struct LeftOutReport {
    path: String,
    reason: &'static str,
}

/// Runs the command.
pub(super) fn put(
    arguments: &PutArgs,
    typed: &[String],
    settings: &Settings,
    ui: &Arc<Ui>,
) -> Result<ExitCode, CommandError> {
    if settings.mode.value == Mode::Disabled {
        ui.note("W&B is disabled: nothing was read, written or sent");
        return Ok(ExitCode::Success);
    }
    let request = request(arguments, settings)?;
    let client = if arguments.dry_run { None } else { session::client(settings, GivingUp::Together, ui)? };
    session::check_paths(&arguments.paths)?;
    let found = collect(&arguments.paths, &|name| !arguments.exclude.iter().any(|glob| glob.is_match(name)))
        .map_err(|error| cannot_collect(&error))?;
    if found.files.is_empty() {
        return Err(nothing_found(&arguments.paths, &found));
    }
    let manifest = hash(&found)?;
    let code = if found.left_out.is_empty() { ExitCode::Success } else { ExitCode::Partial };
    let mut report = Report {
        name: request.name.clone(),
        artifact_type: request.kind.clone(),
        digest: manifest.digest(),
        aliases: request.aliases.clone(),
        files: manifest.entries.len() as u64,
        bytes: manifest.size(),
        left_out: left_out(&found),
        exit_code: code.number(),
        ..Report::default()
    };
    say_left_out(&found, ui);
    let Some(client) = client else {
        show_plan(&report, &manifest, ui);
        return Ok(code);
    };
    let client = Arc::new(client);
    let runtime = session::start_runtime()?;
    let stop = Stop::listen(&runtime, settings.max_duration, None)?;
    ui.note(format!("putting {}, {}", counted(report.files, "file"), size(report.bytes)));
    let manner = Manner { transfers: settings.transfers.into(), multipart: Multipart::default() };
    let request = PutRequest { manifest, ..request };
    let put = runtime.block_on(put_artifact(&client, request, manner, &stop.token));
    let put = put.map_err(|error| trouble(&error, arguments, &stop, &session::same_command(typed)))?;
    report.fill(&put, client.app_url());
    show(&report, ui);
    Ok(code)
}

/// What was typed, checked before anything is read.
fn request(arguments: &PutArgs, settings: &Settings) -> Result<PutRequest, CommandError> {
    let usage = |what: &str, why: &dyn std::fmt::Display| {
        CommandError::new(ExitCode::Usage, format!("{what} cannot be used: {why}"))
    };
    let named = |what: &str, checked: Result<(), NameError>| checked.map_err(|error| usage(what, &error));
    let name = arguments.name.as_str();
    named("the name", check_name(name)).map_err(|error| match name.split_once([':', '/']) {
        Some(_) => error.hint("the server gives out versions; choose entity and project with `-e` and `-p`"),
        None => error,
    })?;
    named("`--type`", check_type(&arguments.kind, name))?;
    let aliases = if arguments.aliases.is_empty() { vec!["latest".to_owned()] } else { arguments.aliases.clone() };
    aliases.iter().try_for_each(|alias| named("`--alias`", check_alias(alias)))?;
    arguments.tags.iter().try_for_each(|tag| named("`--tag`", check_tag(tag)))?;
    let mut metadata = Json::object();
    for flag in &arguments.metadata {
        metadata.set_path(&flag.path, flag.value.clone());
    }
    if !is_finite(&metadata) {
        return Err(usage("`--metadata`", &"the server takes neither `NaN` nor the infinities"));
    }
    let keys = metadata.as_object().map_or(0, BTreeMap::len);
    if keys > METADATA_KEYS {
        return Err(usage("`--metadata`", &format_args!("{keys} keys are more than {METADATA_KEYS}")));
    }
    let run = arguments.run.as_deref().map(RunId::new).transpose().map_err(|error| usage("`--run`", &error))?;
    let project = settings.project.as_ref().map_or(DEFAULT_PROJECT, |project| project.value.as_str());
    check_project(project).map_err(|why| usage("the project", &why))?;
    if project.contains(['{', '}']) {
        return Err(usage(
            "the project",
            &format_args!("`{project}` holds a placeholder, which nothing here fills in"),
        ));
    }
    Ok(PutRequest {
        entity: settings.entity.as_ref().map(|entity| entity.value.clone()),
        project: project.to_owned(),
        run,
        name: name.to_owned(),
        kind: arguments.kind.clone(),
        description: arguments.description.clone().unwrap_or_default(),
        metadata: if keys == 0 { String::new() } else { metadata.to_string() },
        aliases,
        tags: arguments.tags.clone(),
        // The server counts whole seconds.
        ttl_seconds: arguments.ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX)),
        manifest: Manifest::default(),
    })
}

fn is_finite(json: &Json) -> bool {
    match json {
        Json::Number(Number::F64(number)) => number.is_finite(),
        Json::Number(Number::F32(number)) => number.is_finite(),
        Json::Array(items) => items.iter().all(is_finite),
        Json::Object(members) => members.values().all(is_finite),
        _ => true,
    }
}

fn hash(found: &Found) -> Result<Manifest, CommandError> {
    found.manifest().map_err(|error| {
        let failed = |code| CommandError::new(code, error.to_string());
        match &error {
            HashError::Changed(_) => failed(ExitCode::Temporary).hint("try again when nobody writes to it any more"),
            HashError::Read { source, .. } => failed(ExitCode::Failed).caused_by(source),
            HashError::TooLarge { .. } => failed(ExitCode::Failed),
        }
    })
}

fn cannot_collect(error: &CollectError) -> CommandError {
    match error {
        CollectError::Twice { .. } => CommandError::new(ExitCode::Usage, error.to_string())
            .hint("put them into one directory, under different names, and name that"),
        CollectError::Read { source, .. } => CommandError::new(ExitCode::Failed, error.to_string()).caused_by(source),
        CollectError::Unnamed(error) => CommandError::new(ExitCode::Usage, "the name cannot be used").caused_by(error),
        CollectError::Name(_) => CommandError::new(ExitCode::Failed, error.to_string())
            .hint("rename it, or leave it out with `--exclude` of the directory that it is in"),
    }
}

fn nothing_found(paths: &[PathBuf], found: &Found) -> CommandError {
    let error = CommandError::new(ExitCode::NothingFound, format!("there are no files to put in {}", named(paths)));
    match found.left_out.first() {
        Some(first) => {
            error.hint(format!("`{}` and the like are left out: {}", first.path.display(), first.why.text()))
        }
        None => error,
    }
}

fn left_out(found: &Found) -> Vec<LeftOutReport> {
    let report =
        |out: &crate::artifact::LeftOut| LeftOutReport { path: out.path.display().to_string(), reason: out.why.text() };
    found.left_out.iter().map(report).collect()
}

fn say_left_out(found: &Found, ui: &Ui) {
    let mut reasons = BTreeMap::new();
    for out in &found.left_out {
        reasons.entry(out.why).or_insert((0_u64, &out.path)).0 += 1;
    }
    for (why, (count, first)) in reasons {
        ui.warning(format!("left out: {}, {count} in all, the first is `{}`", why.text(), first.display()));
    }
}

/// What a person reads when the version is not there.
fn trouble(error: &PutError, arguments: &PutArgs, stop: &Stop, again: &str) -> CommandError {
    let resumes = format!("only what is missing is sent by: {again}");
    let cannot = |code: ExitCode| CommandError::new(code, format!("cannot put `{}`", arguments.name)).caused_by(error);
    match (error.class(), stop.exit_code()) {
        (Some(Class::Cancelled), Some(code)) => {
            CommandError::new(code, format!("`{}` is not whole on the server yet", arguments.name)).hint(resumes)
        }
        (Some(Class::Auth), _) => {
            let refused = CommandError::new(ExitCode::Authentication, "W&B did not accept the API key");
            refused.caused_by(error).hint("set `WANDB_API_KEY`")
        }
        (Some(Class::Temporary | Class::Cancelled), _) => cannot(ExitCode::Temporary).hint(resumes),
        (Some(_), _) => cannot(ExitCode::Failed),
        (None, _) => cannot(ExitCode::Usage).hint("check `--run`, `-p` and `-e`, or upload the run first"),
    }
}

impl Report {
    fn fill(&mut self, put: &PutArtifact, app_url: &str) {
        let number = put.version.number.unwrap_or_default();
        let version = format!("v{number}");
        self.path = Some(format!("{}/{}/{}:{version}", put.entity, put.project, self.name));
        self.url = Some(artifact_url(app_url, &put.entity, &put.project, &self.artifact_type, &self.name, number));
        self.run_path = Some(format!("{}/{}/{}", put.entity, put.project, put.run_id));
        self.version = Some(version);
        self.id = Some(put.uploaded.id.clone());
        self.aliases.clone_from(&put.version.aliases);
        (self.files_sent, self.bytes_sent) = (put.uploaded.files, put.uploaded.bytes);
        self.was_there = put.uploaded.was_there;
    }
}

fn show(report: &Report, ui: &Ui) {
    if report.was_there {
        ui.note("the server had this version already: nothing was sent");
    } else {
        let others = if report.files_sent < report.files { "; the server had the others" } else { "" };
        let (sent, all) = (report.files_sent, counted(report.files, "file"));
        ui.note(format!("sent {sent} of {all}, {}{others}", size(report.bytes_sent)));
    }
    if ui.is_json() {
        ui.data(&format!("{}\n", serde_json::to_string(report).unwrap_or_default()));
    } else {
        let version = report.version.as_deref().unwrap_or_default();
        ui.data(&format!("{}:{version}\n{}\n", report.name, report.url.as_deref().unwrap_or_default()));
    }
}

fn show_plan(report: &Report, manifest: &Manifest, ui: &Ui) {
    if ui.is_json() {
        ui.data(&format!("{}\n", serde_json::to_string(report).unwrap_or_default()));
        return;
    }
    for (name, entry) in &manifest.entries {
        ui.data(&crate::commands::ui::printable(&format!("{name}  {}\n", size(entry.size))));
    }
    ui.note(format!(
        "{} would be put, {}, digest {}; nothing was sent",
        counted(report.files, "file"),
        size(report.bytes),
        report.digest
    ));
}

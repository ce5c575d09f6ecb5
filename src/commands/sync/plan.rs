//! `sync --dry-run`: what would be sent of each log, and what a server acknowledged before. Nothing is changed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use url::Url;

use crate::artifact::Attached;
use crate::commands::attach::Finds;
use crate::commands::error::ExitCode;
use crate::commands::inspect::{LogSeen, look_at_log};
use crate::commands::session;
use crate::commands::ui::{AttachedReport, Ui, counted, grouped, on_one_line, printable, size};
use crate::convert::artifact_rule::ArtifactRule;
use crate::model::{LogPosition, Skipped, SkippedReason, Skips};
use crate::pipeline::attachments_of_log;
use crate::settings::Settings;
use crate::state_file::place::StateHome;
use crate::upload::{Acknowledged, FileOutlook, Links, Overrides};

/// A log as `sync` would upload it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "run")]
struct Planned {
    source: String,
    run_id: String,
    /// entity/project/id, with what is known of the first two.
    run_path: String,
    name: String,
    /// Rows to send, and those that the server acknowledged.
    rows: u64,
    rows_acknowledged: u64,
    /// Files to send, and those that the server has.
    files: u64,
    file_bytes: u64,
    files_acknowledged: u64,
    files_missing: Vec<String>,
    /// Versions of artifacts to send, and those that the server has.
    artifacts: u64,
    artifacts_acknowledged: u64,
    exit_code: Option<i32>,
    /// Whether the run is finished on the server.
    finished: bool,
    skipped: Vec<Skipped>,
    /// What would be attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attached: Vec<AttachedReport>,
    #[serde(skip)]
    attachments: Vec<Attached>,
    #[serde(skip)]
    skips: Skips,
}

/// All logs together.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "summary")]
struct Summary {
    runs: u64,
    rows: u64,
    rows_acknowledged: u64,
    files: u64,
    file_bytes: u64,
    artifacts: u64,
    artifacts_acknowledged: u64,
    skipped: Vec<Skipped>,
    exit_code: u8,
}

/// Shows what would be sent. `left_out` is what rules find of runs that are left out, `more` an exit code that the command
/// itself knows of.
pub(super) fn show(
    logs: &[impl AsRef<Path> + Sync],
    overrides: &Overrides,
    (artifacts, left_out): (&[ArtifactRule], Vec<Attached>),
    links: Links,
    more: Option<ExitCode>,
    settings: &Settings,
    ui: &Ui,
) -> ExitCode {
    let server = Url::parse(&settings.server.base_url).ok();
    let state = session::state_home(settings);
    let plans: Vec<Planned> = logs
        .par_iter()
        .map(|log| {
            let log = log.as_ref();
            let place = state.of_log(log);
            let seen = look_at_log(log, &state, links);
            let overrides = overrides.clone().or(seen.chosen.clone());
            let acknowledged = server.as_ref().and_then(|server| seen.outlook.acknowledged(&place, server, &overrides));
            let attached = attach(artifacts, log, &state, acknowledged.as_ref());
            Planned::new(seen, acknowledged, attached, &overrides)
        })
        .collect();
    let (mut summary, mut skips, mut finds) = (Summary::default(), Skips::default(), Finds::default());
    for plan in &plans {
        summary.add(plan);
        skips.merge(&plan.skips);
        finds.add(&plan.attachments);
        if ui.is_json() {
            ui.data(&format!("{}\n", serde_json::to_string(plan).unwrap_or_default()));
        } else {
            ui.data(&printable(&plan.text()));
        }
    }
    finds.add(&left_out);
    let (idle, notes) = finds.idle(artifacts);
    skips.merge(&idle);
    for skipped in idle.report() {
        ui.warning(format!("{}: {}", skipped.reason, skipped.first));
    }
    ui.notes(&notes);
    let loss = skips.any_loss().then_some(ExitCode::Partial);
    let code = ExitCode::combine(loss.into_iter().chain(more));
    summary.skipped = skips.report();
    summary.exit_code = code.number();
    if ui.is_json() {
        ui.data(&format!("{}\n", serde_json::to_string(&summary).unwrap_or_default()));
    } else {
        ui.note(summary.text());
    }
    code
}

/// What would be attached to a run, and what of it would not.
fn attach(
    rules: &[ArtifactRule],
    log: &Path,
    state: &StateHome,
    acknowledged: Option<&Acknowledged>,
) -> (Vec<Attached>, Skips) {
    let (mut all, mut skips) = (Vec::new(), Skips::default());
    for attachment in attachments_of_log(rules, log, state) {
        match attachment.find() {
            Ok(found) => {
                let mut attached = Attached::new(&attachment, &found);
                attached.known = acknowledged.is_some_and(|known| known.has_attached(&attachment, &found));
                for out in found.left_out {
                    skips.add(SkippedReason::File, 1, || format!("`{}`: {}", out.path.display(), out.why.text()));
                }
                all.push(attached);
            }
            Err(error) => skips.add(SkippedReason::Artifact, 1, || format!("`{}`: {error}", attachment.name)),
        }
    }
    (all, skips)
}

impl Planned {
    fn new(
        seen: LogSeen,
        acknowledged: Option<Acknowledged>,
        (attached, attach_skips): (Vec<Attached>, Skips),
        overrides: &Overrides,
    ) -> Self {
        let there: HashSet<&str> =
            acknowledged.iter().flat_map(|acknowledged| &acknowledged.files).map(String::as_str).collect();
        let is_there = |file: &FileOutlook| acknowledged.as_ref().is_some_and(|acknowledged| acknowledged.has(file));
        let to_send: Vec<u64> =
            seen.outlook.files.iter().filter(|file| !is_there(file)).filter_map(|file| file.size).collect();
        let once = seen.outlook.files.iter().filter(|file| file.once && is_there(file)).count();
        let has_artifact = |at: &&LogPosition| acknowledged.as_ref().is_some_and(|known| known.artifacts.contains(at));
        let artifacts_there = seen.outlook.artifacts.iter().filter(has_artifact).count();
        let rows_acknowledged = acknowledged.as_ref().map_or(0, |acknowledged| acknowledged.rows);
        let chosen = |over: &Option<String>, own: &str| over.clone().unwrap_or_else(|| own.to_owned());
        let mut skips = seen.skips;
        skips.merge(&attach_skips);
        let named = acknowledged.as_ref().map(|known| known.run_path.clone()).filter(|path| !path.is_empty());
        Self {
            run_path: named.unwrap_or_else(|| {
                let (entity, project) = (&overrides.entity, &overrides.project);
                let parts = [
                    chosen(entity, &seen.seen_as.entity),
                    chosen(project, &seen.seen_as.project),
                    seen.seen_as.run_id.clone(),
                ];
                parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
            }),
            rows: seen.rows.saturating_sub(rows_acknowledged),
            rows_acknowledged,
            files: to_send.len() as u64,
            file_bytes: to_send.iter().sum(),
            artifacts: (seen.outlook.artifacts.len() - artifacts_there) as u64,
            artifacts_acknowledged: artifacts_there as u64,
            files_acknowledged: (there.len() + once) as u64,
            finished: acknowledged.as_ref().is_some_and(|acknowledged| acknowledged.finished.is_some()),
            source: seen.seen_as.source,
            run_id: seen.seen_as.run_id,
            name: seen.seen_as.name,
            files_missing: seen.files_missing,
            exit_code: seen.exit_code,
            attached: attached.iter().filter(|attached| attached.files > 0).map(AttachedReport::from).collect(),
            attachments: attached,
            skipped: skips.report(),
            skips,
        }
    }

    /// Writing to a string cannot fail.
    fn text(&self) -> String {
        let path = on_one_line(&self.run_path);
        let mut text = format!("{}\n  run {path}", on_one_line(&self.source));
        if !self.name.is_empty() {
            let _ = write!(text, " `{}`", on_one_line(&self.name));
        }
        let _ =
            write!(text, ": {} to send, {} acknowledged", counted(self.rows, "row"), grouped(self.rows_acknowledged));
        if self.files > 0 {
            let _ = write!(text, "; {} to send, {}", counted(self.files, "file"), size(self.file_bytes));
        }
        if self.artifacts > 0 {
            let _ = write!(text, "; {} to send", counted(self.artifacts, "artifact"));
        }
        let _ = match (self.finished, self.exit_code) {
            (true, _) => writeln!(text, "; finished on the server"),
            (false, Some(code)) => writeln!(text, "; ended with exit code {code}"),
            (false, None) => writeln!(text, "; not ended"),
        };
        self.attached.iter().for_each(|artifact| text.push_str(&artifact.line()));
        for skipped in &self.skipped {
            let _ = writeln!(
                text,
                "  {} × {}, first: {}",
                grouped(skipped.count),
                skipped.reason,
                on_one_line(&skipped.first)
            );
        }
        text
    }
}

impl Summary {
    fn add(&mut self, plan: &Planned) {
        self.runs += 1;
        self.rows += plan.rows;
        self.rows_acknowledged += plan.rows_acknowledged;
        self.files += plan.files;
        self.file_bytes += plan.file_bytes;
        self.artifacts += plan.artifacts;
        self.artifacts_acknowledged += plan.artifacts_acknowledged;
    }

    fn text(&self) -> String {
        let artifacts = match self.artifacts {
            0 => String::new(),
            count => format!(", {}", counted(count, "artifact")),
        };
        format!(
            "to send: {} of {}, {} of {}{artifacts}; {} acknowledged before",
            counted(self.rows, "row"),
            counted(self.runs, "run"),
            counted(self.files, "file"),
            size(self.file_bytes),
            counted(self.rows_acknowledged, "row")
        )
    }
}

//! What is shown of a run that was looked for: lines for a person, an object for a program.

use std::fmt::Write as _;

use serde::Serialize;

use crate::api::run_url;
use crate::commands::error::ExitCode;
use crate::commands::ui::{Ui, counted, grouped, on_one_line, printable};
use crate::commands::verify::here::id_in_name;
use crate::model::Skipped;
use crate::pipeline::{RunVerified, Standing};
use crate::verify::{Compared, Finding, What};

/// A run.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "verify")]
pub(super) struct RunReport {
    source: String,
    run_id: String,
    /// entity/project/id, with what is known of the first two.
    run_path: String,
    name: String,
    url: Option<String>,
    /// `complete`, `running`, `incomplete`, `missing` or `unknown`.
    state: &'static str,
    compared: Compared,
    /// What is missing or differs.
    missing: Vec<Finding>,
    /// So much more is missing.
    missing_more: u64,
    /// What of the files can be on no server.
    skipped: Vec<Skipped>,
    /// Versions of artifacts that were not compared, because the logs hold only parts of them.
    parts_of_artifacts: u64,
    /// The process that records or uploads the run now.
    held_by: Option<String>,
    error: Option<String>,
}

/// All runs.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub(in crate::commands) struct Summary {
    runs: u64,
    complete: u64,
    running: u64,
    incomplete: u64,
    missing: u64,
    unknown: u64,
    rows: u64,
    rows_exact: u64,
    pub(super) exit_code: u8,
    #[serde(skip)]
    pub(super) codes: Vec<ExitCode>,
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Complete => "complete",
        Standing::Running => "running",
        Standing::Incomplete => "incomplete",
        Standing::Missing => "missing",
        Standing::Unknown => "unknown",
    }
}

impl RunReport {
    pub(super) fn new(run: &RunVerified, app_url: &str) -> Self {
        let name = &run.contents.name;
        let parts = [name.entity.as_str(), &name.project, &name.run_id];
        let is_there = !matches!(run.standing, Standing::Missing | Standing::Unknown);
        Self {
            source: run.source.display().to_string(),
            run_id: if name.run_id.is_empty() { id_in_name(&run.source) } else { name.run_id.clone() },
            run_path: parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
            name: run.contents.display_name.clone(),
            url: is_there.then(|| run_url(app_url, &name.entity, &name.project, &name.run_id)),
            state: word(run.standing),
            compared: run.verdict.compared.clone(),
            missing: run.verdict.findings.clone(),
            missing_more: run.verdict.more,
            skipped: run.contents.skips.report(),
            parts_of_artifacts: run.contents.parts_of_artifacts,
            held_by: run.held_by.clone(),
            error: run.error.as_ref().map(ToString::to_string),
        }
    }

    /// Shows it, if there is something to see or all are to be shown.
    pub(super) fn show(&self, shows_all: bool, ui: &Ui) {
        if ui.is_json() {
            ui.data(&format!("{}\n", serde_json::to_string(self).unwrap_or_default()));
        } else if shows_all || !self.missing.is_empty() {
            ui.data(&printable(&self.text()));
        }
    }

    /// Writing to a string cannot fail.
    fn text(&self) -> String {
        let path = if self.run_path.is_empty() { &self.source } else { &self.run_path };
        let mut text = format!("{}: {}", on_one_line(path), self.state);
        if !self.name.is_empty() {
            let _ = write!(text, " `{}`", on_one_line(&self.name));
        }
        text.push('\n');
        let _ = writeln!(text, "  from `{}`", on_one_line(&self.source));
        if self.url.is_some() {
            let _ = writeln!(text, "  compared: {}", in_words(&self.compared));
        }
        for finding in &self.missing {
            let (name, why) = (on_one_line(&finding.name), on_one_line(&finding.why));
            let _ = writeln!(text, "  {} {name}: {why}", heading(finding.what));
        }
        if self.missing_more > 0 {
            let _ = writeln!(text, "  and {} more", grouped(self.missing_more));
        }
        for skipped in &self.skipped {
            let (count, reason, first) = (grouped(skipped.count), &skipped.reason, on_one_line(&skipped.first));
            let _ = writeln!(text, "  in the files: {count} × {reason}, first: {first}");
        }
        if self.parts_of_artifacts > 0 {
            let _ = writeln!(text, "  not compared: {}", counted(self.parts_of_artifacts, "part") + " of artifacts");
        }
        if let Some(holder) = &self.held_by {
            let _ = writeln!(text, "  it is being worked on by {holder}");
        }
        text
    }
}

fn heading(what: What) -> &'static str {
    match what {
        What::Run => "run",
        What::EventFile => "event file",
        What::Rows => "row",
        What::Summary => "summary",
        What::Config => "config",
        What::Events => "system metrics",
        What::Console => "console",
        What::File => "file",
        What::Artifact => "artifact",
        What::End => "end",
    }
}

/// What was compared exactly, and what by its number or size only.
fn in_words(compared: &Compared) -> String {
    let Compared { rows, summary_keys, config_keys, files, files_by_size, artifacts, events, console, .. } = compared;
    let mut exactly = Vec::new();
    let mut by_number = Vec::new();
    let mut add = |exact: u64, all: u64, what: &str| {
        if exact > 0 {
            exactly.push(counted(exact, what));
        }
        if all > exact {
            by_number.push(counted(all - exact, what));
        }
    };
    add(rows.exact, rows.here, "row");
    add(*summary_keys, 0, "summary value");
    add(*config_keys, 0, "config value");
    add(artifacts.exact, artifacts.there, "artifact version");
    add(0, events.here, "metrics line");
    add(0, console.here, "console line");
    add(files.exact, files.exact, "file");
    let mut parts = Vec::new();
    if !exactly.is_empty() {
        parts.push(format!("{} exactly", exactly.join(", ")));
    }
    if !by_number.is_empty() {
        parts.push(format!("{} by number", by_number.join(", ")));
    }
    if *files_by_size > 0 {
        parts.push(format!("{} by size", counted(*files_by_size, "file")));
    }
    let by_name = files.there.saturating_sub(files.exact + files_by_size);
    if by_name > 0 {
        parts.push(format!("{} by name", counted(by_name, "file")));
    }
    if parts.is_empty() { "nothing but that it is there".to_owned() } else { parts.join("; ") }
}

impl Summary {
    pub(super) fn add(&mut self, run: &RunVerified, report: &RunReport) {
        self.runs += 1;
        *match run.standing {
            Standing::Complete => &mut self.complete,
            Standing::Running => &mut self.running,
            Standing::Incomplete => &mut self.incomplete,
            Standing::Missing => &mut self.missing,
            Standing::Unknown => &mut self.unknown,
        } += 1;
        self.rows += report.compared.rows.here;
        self.rows_exact += report.compared.rows.exact;
        if !run.verdict.is_whole() || run.contents.skips.any_loss() {
            self.codes.push(ExitCode::Partial);
        }
    }

    /// What the command ends with.
    pub(in crate::commands) fn code(&self) -> ExitCode {
        ExitCode::combine(self.codes.iter().copied())
    }

    /// The last line.
    pub(in crate::commands) fn text(&self) -> String {
        let all = counted(self.runs, "run");
        let mut text = format!("verified {all}: {} complete", grouped(self.complete));
        for (count, what) in [
            (self.running, "running"),
            (self.incomplete, "incomplete"),
            (self.missing, "missing"),
            (self.unknown, "could not be told"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {} {what}", grouped(count));
            }
        }
        let (exact, rows) = (grouped(self.rows_exact), counted(self.rows, "row"));
        let _ = write!(text, "; {exact} of {rows} compared exactly");
        text
    }
}

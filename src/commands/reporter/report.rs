//! What is said of one run when it ends, and of one that would be recorded. Pure.

use std::fmt::Write as _;

use crate::artifact::Attached;
use crate::commands::error::{CommandError, ExitCode};
use crate::commands::reporter::trouble::{AGAIN, record_trouble, upload_trouble};
use crate::commands::ui::{AttachedReport, RunReport, RunState, counted, grouped, on_one_line, size};
use crate::model::Skips;
use crate::pipeline::{Recorded, RunEnd};
use crate::upload::{RunState as Uploaded, UploadOutcome};

/// A run's object, what was skipped of it, and what a person must hear.
pub(super) fn report(run: &RunEnd) -> (RunReport, Skips, Option<CommandError>) {
    let mut skips = Skips::default();
    let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut report = RunReport::new(run.source.display().to_string(), id);
    report.attached = attached_of(run).iter().filter(|attached| attached.files > 0).map(AttachedReport::from).collect();
    if let Some(recorded) = &run.recorded {
        skips.merge(&recorded.pass.skips);
        report.name.clone_from(&recorded.name);
        report.group = Some(recorded.group.clone()).filter(|group| !group.is_empty());
        report.dir = Some(recorded.directory.display().to_string());
        report.rows = recorded.pass.rows;
        report.kinds.clone_from(&recorded.pass.kinds);
        report.events = report.kinds.sum().sent;
        report.run_files = recorded.pass.files.files;
        report.run_file_bytes = recorded.pass.files.bytes;
        report.log_bytes = recorded.pass.log_bytes;
    }
    if let Some(left_out) = &run.left_out {
        report.state = RunState::Skipped;
        report.name.clone_from(&left_out.name);
        report.kinds.clone_from(&left_out.pass.kinds);
        skips.merge(&left_out.pass.skips);
    }
    let mut trouble = None;
    if let Some(uploaded) = &run.uploaded {
        trouble = add_upload(&mut report, run, uploaded);
        skips.merge(&uploaded.skips);
        if report.state == RunState::Synced && skips.any_loss() {
            report.state = RunState::Partial;
        }
    }
    if let Some(error) = &run.record_error {
        report.state = RunState::Failed;
        trouble = Some(record_trouble(error, &run.source));
    }
    report.error = trouble.as_ref().map(|trouble| {
        [trouble.message.as_str()]
            .into_iter()
            .chain(trouble.causes.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(": ")
    });
    let mut all = skips.clone();
    if let Some(recorded) = &run.recorded {
        all.merge(&recorded.pass.known);
        // What was damaged before this pass is not on the server after it either.
        if report.state == RunState::Synced && recorded.pass.known.any_loss() {
            report.state = RunState::Partial;
        }
    }
    report.skipped = all.report();
    (report, skips, trouble)
}

/// What there was of what is to be attached to a run.
pub(super) fn attached_of(run: &RunEnd) -> &[Attached] {
    let recorded = run.recorded.as_ref().map(|recorded| recorded.attached.as_slice());
    recorded.or(run.uploaded.as_ref().map(|uploaded| uploaded.attached.as_slice())).unwrap_or_default()
}

fn add_upload(report: &mut RunReport, run: &RunEnd, uploaded: &UploadOutcome) -> Option<CommandError> {
    if report.run_id.is_empty() {
        report.run_id.clone_from(&uploaded.run_id);
    }
    report.run_path = format!("{}/{}/{}", uploaded.entity, uploaded.project, uploaded.run_id);
    if report.name.is_empty() {
        report.name.clone_from(&uploaded.display_name);
    }
    report.url = Some(uploaded.url.clone()).filter(|url| !url.is_empty());
    report.files = uploaded.files_sent;
    report.artifacts = uploaded.artifacts_sent;
    if run.recorded.is_none() {
        report.rows = uploaded.rows_sent;
        report.group = Some(uploaded.group.clone()).filter(|group| !group.is_empty());
        report.dir = run.source.parent().map(|directory| directory.display().to_string());
    }
    match &uploaded.state {
        Uploaded::Synced => report.state = RunState::Synced,
        Uploaded::Partial => {
            report.state = RunState::Partial;
            return uploaded.later.as_ref().map(|error| {
                let what = format!("cannot upload all files of `{}` now", run.source.display());
                CommandError::new(ExitCode::Temporary, what).caused_by(error).hint(AGAIN)
            });
        }
        Uploaded::Running => report.state = RunState::Running,
        Uploaded::Skipped(error) => {
            report.state = RunState::Skipped;
            let trouble = CommandError::new(ExitCode::Success, format!("`{}` is skipped", run.source.display()));
            return Some(trouble.caused_by(error));
        }
        Uploaded::Failed(error) => {
            report.state = RunState::Failed;
            return Some(upload_trouble(error, &run.source));
        }
    }
    None
}

/// What a dry run says of a run: what it would be called, and what is new since it was recorded last.
pub(super) fn planned(report: &RunReport, recorded: &Recorded) -> String {
    let mut text = format!("{} ({})", on_one_line(&report.name), report.run_id);
    if let Some(group) = &report.group {
        let _ = write!(text, ", group {}", on_one_line(group));
    }
    let _ = writeln!(text, ", project {}", on_one_line(&recorded.project));
    let _ = writeln!(text, "  from `{}`: {}", on_one_line(&report.source), counted(recorded.files, "file"));
    if recorded.rows_before > 0 {
        let _ = writeln!(
            text,
            "  recorded before in `{}`: {}",
            on_one_line(&recorded.directory.display().to_string()),
            counted(recorded.rows_before, "row")
        );
    }
    let kinds: Vec<String> = report
        .kinds
        .iter()
        .filter(|(_, count)| count.read > 0)
        .map(|(kind, count)| {
            let fates = [(count.kept, "kept as files"), (count.left_out, "left out"), (count.lost, "lost")];
            let fates =
                fates.iter().filter(|(count, _)| *count > 0).map(|(n, fate)| format!(", {} {fate}", grouped(*n)));
            format!("{} {}{}", grouped(count.read), on_one_line(kind), fates.collect::<String>())
        })
        .collect();
    if kinds.is_empty() {
        text.push_str("  nothing new\n");
    } else {
        let _ = writeln!(
            text,
            "  new: {}, {} of log; {}",
            counted(report.rows, "row"),
            size(report.log_bytes),
            kinds.join("; ")
        );
    }
    report.attached.iter().for_each(|artifact| text.push_str(&artifact.line()));
    if report.run_files > 0 {
        let _ = writeln!(text, "  new files: {}, {}", grouped(report.run_files), size(report.run_file_bytes));
    }
    text
}

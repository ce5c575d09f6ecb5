//! What `inspect` says to people. Pure.

use std::fmt::Write as _;

use super::cleaned::CleanedSeen;
use super::limits::{Estimate, Limits};
use super::log::{LogSeen, UploadSeen};
use super::seen::{RunSeen, SessionSeen, TagSeen};
use super::summary::SummarySeen;
use crate::commands::ui::{counted, grouped, on_one_line, size};
use crate::convert::axes::DEFAULT_AXIS;
use crate::convert::kinds::SessionEnd;
use crate::model::Skipped;

/// Columns do not grow beyond this for one long name.
const WIDEST: usize = 60;

/// A run that event files would make. Writing to a string cannot fail, here and below.
pub(super) fn run(run: &RunSeen) -> String {
    let mut text = format!("{} ({})", on_one_line(&run.seen_as.name), run.seen_as.run_id);
    if !run.seen_as.group.is_empty() {
        let _ = write!(text, ", group {}", on_one_line(&run.seen_as.group));
    }
    let _ = write!(text, ", project {}", on_one_line(&run.seen_as.project));
    let _ = writeln!(
        text,
        "\n  from `{}`: {}, {}, {}, {}",
        on_one_line(&run.seen_as.source),
        counted(run.files.len() as u64, "file"),
        counted(run.events, "event"),
        counted(run.rows, "row"),
        size(run.bytes)
    );
    if let Some(dir) = &run.dir {
        let _ = writeln!(text, "  recorded before in `{dir}`: {}", counted(run.rows_recorded, "row"));
    }
    if run.copy {
        text.push_str("  begins like another directory, so its own name is part of its id\n");
    }
    files(run, &mut text);
    tags(&run.tags, &mut text);
    if let Some(session) = &run.session {
        let _ = writeln!(text, "  session: {}", session_words(session));
    }
    if !run.config.is_empty() {
        let _ = writeln!(text, "  config: {}", on_one_line(&run.config.join(", ")));
    }
    if run.run_files > 0 {
        let _ = writeln!(text, "  {} of the run, {}", counted(run.run_files, "file"), size(run.run_file_bytes));
    }
    limits(&run.limits, &mut text);
    skipped(&run.skipped, &mut text);
    text.push('\n');
    text
}

fn files(run: &RunSeen, text: &mut String) {
    let width = width(run.files.iter().map(|file| file.path.as_str()));
    for file in &run.files {
        let path = on_one_line(&file.path);
        let _ = write!(text, "  {path:width$}  {:>9}  {:>12}", size(file.bytes), counted(file.events, "event"));
        if let Some(compression) = file.compression {
            let _ = write!(text, ", {compression} of {}", size(file.uncompressed_bytes));
        }
        if let Some(writer) = &file.writer {
            let _ = write!(text, ", by {}", on_one_line(writer));
        }
        text.push('\n');
        for damage in &file.damage {
            let _ = writeln!(text, "    damaged: {}", on_one_line(damage));
        }
    }
}

fn tags(tags: &[TagSeen], text: &mut String) {
    let key_width = width(tags.iter().map(|tag| tag.key.as_str()));
    let kind_width = width(tags.iter().map(|tag| tag.kind.as_str()));
    let encodings: Vec<String> = tags.iter().map(|tag| tag.encodings.join(", ")).collect();
    let encoding_width = width(encodings.iter().map(String::as_str));
    for (tag, encoding) in tags.iter().zip(&encodings) {
        let _ = write!(
            text,
            "  {:key_width$}  {:kind_width$}  {encoding:encoding_width$}  {:>9}, steps {} to {}, {}",
            on_one_line(&tag.key),
            on_one_line(&tag.kind),
            counted(tag.points, "point"),
            tag.first_step,
            tag.last_step,
            times(tag.first_time, tag.last_time)
        );
        if tag.axis != DEFAULT_AXIS {
            let _ = write!(text, ", on {}", on_one_line(&tag.axis));
        }
        if tag.nan > 0 {
            let _ = write!(text, ", {} NaN", grouped(tag.nan));
        }
        text.push('\n');
    }
}

fn session_words(session: &SessionSeen) -> String {
    let mut words = Vec::new();
    if session.starts > 0 {
        words.push(format!("{} started", grouped(session.starts)));
    }
    if session.stops > 0 {
        words.push(format!("{} stopped", grouped(session.stops)));
    }
    match session.end {
        Some(SessionEnd::Finished) => words.push("finished".to_owned()),
        Some(SessionEnd::Failed) => words.push("failed".to_owned()),
        None if words.is_empty() => words.push("of no known state".to_owned()),
        None => {}
    }
    words.join(", ")
}

/// A log of the run datastore.
pub(super) fn log(log: &LogSeen) -> String {
    let source = on_one_line(&log.seen_as.source);
    let mut text = format!("{source}\n  {}, run {}", size(log.bytes), on_one_line(&log.seen_as.run_id));
    if !log.seen_as.name.is_empty() {
        let _ = write!(text, " `{}`", on_one_line(&log.seen_as.name));
    }
    if !log.seen_as.group.is_empty() {
        let _ = write!(text, ", group {}", on_one_line(&log.seen_as.group));
    }
    if !log.seen_as.project.is_empty() {
        let _ = write!(text, ", project {}", on_one_line(&log.seen_as.project));
    }
    let _ = match log.exit_code {
        Some(code) => writeln!(text, ", ended with exit code {code}"),
        None => writeln!(text, ", not ended"),
    };
    match log.counts_to {
        Some(0) => text.push_str("  recorded by this program, and cut short before anything of it counted\n"),
        Some(position) if position < log.bytes => {
            let _ = writeln!(text, "  recorded by this program; it counts up to byte {position}");
        }
        Some(_) => text.push_str("  recorded by this program\n"),
        None => {}
    }
    let records: Vec<String> = log.records.iter().map(|(kind, count)| format!("{} {kind}", grouped(*count))).collect();
    let _ = writeln!(text, "  records: {}", records.join(", "));
    let width = width(log.keys.iter().map(|key| key.key.as_str()));
    for key in &log.keys {
        let _ = write!(text, "  {:width$}  {:>9}", key.key, counted(key.points, "point"));
        if key.nan > 0 {
            let _ = write!(text, ", {} NaN", grouped(key.nan));
        }
        text.push('\n');
    }
    if let (Some(first), Some(last)) = (log.first_step, log.last_step) {
        let _ = write!(text, "  {}, steps {first} to {last}", counted(log.rows, "row"));
        if let (Some(first), Some(last)) = (log.first_time, log.last_time) {
            let _ = write!(text, ", {}", times(first, last));
        }
        text.push('\n');
    }
    if log.files > 0 {
        let missing = log.files_missing.len() as u64;
        let _ = write!(text, "  {}, {}", counted(log.files, "file"), size(log.file_bytes));
        if missing > 0 {
            let _ = write!(text, ", {} not there", grouped(missing));
        }
        text.push('\n');
    }
    let artifacts = [
        (log.artifacts, "artifact", "recorded"),
        (log.artifacts_used, "artifact", "used"),
        (log.artifacts_linked, "artifact", "linked"),
    ];
    for (count, what, how) in artifacts.into_iter().filter(|(count, ..)| *count > 0) {
        let _ = writeln!(text, "  {} {how}", counted(count, what));
    }
    uploads(&log.uploads, &mut text);
    if log.synced {
        text.push_str("  marked as synced\n");
    }
    for damage in &log.damage {
        let _ = writeln!(text, "  damaged: {damage}");
    }
    limits(&log.limits, &mut text);
    skipped(&log.skipped, &mut text);
    text.push('\n');
    text
}

fn uploads(uploads: &[UploadSeen], text: &mut String) {
    for upload in uploads {
        let _ = write!(text, "  on a server as `{}`: {}", upload.run_path, counted(upload.rows, "row"));
        for (count, what) in [(upload.files, "file"), (upload.artifacts, "artifact")] {
            if count > 0 {
                let _ = write!(text, ", {}", counted(count, what));
            }
        }
        text.push_str(if upload.exit_code.is_some() { ", finished there\n" } else { "\n" });
    }
}

/// A run directory without a log.
pub(super) fn cleaned(run: &CleanedSeen) -> String {
    let mut text = format!("{}\n  run {}", run.seen_as.source, run.seen_as.run_id);
    for (what, value) in [("", &run.seen_as.name), ("group ", &run.seen_as.group), ("project ", &run.seen_as.project)] {
        if !value.is_empty() {
            let _ = write!(text, ", {what}{}", on_one_line(value));
        }
    }
    let _ = match run.exit_code {
        Some(code) => writeln!(text, ", ended with exit code {code}"),
        None => writeln!(text),
    };
    let _ = writeln!(
        text,
        "  all of it arrived, and was deleted here: {} with {}",
        counted(u64::from(run.logs), "log"),
        counted(run.rows, "row")
    );
    uploads(&run.uploads, &mut text);
    text.push('\n');
    text
}

/// All together.
pub(super) fn summary(summary: &SummarySeen) -> String {
    let mut parts = Vec::new();
    if summary.runs > 0 {
        parts.push(counted(summary.runs, "run"));
    }
    if summary.logs > 0 {
        parts.push(counted(summary.logs, "log"));
    }
    parts.push(counted(summary.files, "file"));
    parts.push(counted(summary.rows, "row"));
    parts.push(size(summary.bytes));
    let mut text = format!("in all: {}\n", parts.join(", "));
    for (kind, seen) in &summary.kinds {
        let count = seen.count;
        let fates: Vec<String> =
            [(count.kept, "kept as files"), (count.left_out, "left out"), (count.lost, "not carried")]
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{} {what}", grouped(*count)))
                .collect();
        let _ = write!(text, "  {kind}: {}, {}", counted(count.read, "value"), size(seen.bytes));
        if !fates.is_empty() {
            let _ = write!(text, " ({})", fates.join(", "));
        }
        text.push('\n');
    }
    if summary.runs > 0 {
        let _ = writeln!(text, "  {}", cost(&summary.estimate));
    }
    limits(&summary.limits, &mut text);
    text
}

/// What an import from nothing would take.
pub(super) fn cost(estimate: &Estimate) -> String {
    format!(
        "an import takes about {} of disk, {} of them logs, and uploads {} before compression in {}",
        size(estimate.disk_bytes),
        size(estimate.log_bytes),
        size(estimate.upload_bytes),
        counted(estimate.requests, "request")
    )
}

fn limits(limits: &Limits, text: &mut String) {
    for broken in limits.iter() {
        let _ = write!(
            text,
            "  W&B's limit: {} {}, here up to {}, first: {}",
            grouped(broken.allowed),
            broken.limit,
            grouped(broken.most),
            on_one_line(&broken.first)
        );
        if broken.count > 1 {
            let _ = write!(text, ", {} in all", grouped(broken.count));
        }
        text.push_str(if broken.loss { "; what is above it is refused\n" } else { "\n" });
    }
}

fn skipped(skipped: &[Skipped], text: &mut String) {
    for skipped in skipped {
        let _ =
            writeln!(text, "  {} × {}, first: {}", grouped(skipped.count), skipped.reason, on_one_line(&skipped.first));
    }
}

/// The width of a column, in characters.
fn width<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0).min(WIDEST)
}

/// `2026-07-14 08:00:00 to 2026-07-14 08:05:12`, in UTC; the day of the second one only where it is another.
fn times(first: f64, last: f64) -> String {
    let (first, last) = (time(first), time(last));
    let same_day = first.split(' ').next() == last.split(' ').next();
    match last.split_once(' ').filter(|_| same_day) {
        Some((_, clock)) => format!("{first} to {clock}"),
        None => format!("{first} to {last}"),
    }
}

fn time(seconds: f64) -> String {
    // What is no time in any calendar is shown as the number that it is.
    let whole = seconds.floor();
    let timestamp = (whole.abs() < 1e12).then(|| jiff::Timestamp::from_second(whole as i64).ok()).flatten();
    timestamp.map_or_else(|| format!("{seconds} s"), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc() {
        assert_eq!(times(1_784_016_000.5, 1_784_016_060.0), "2026-07-14 08:00:00 to 08:01:00");
        assert_eq!(times(0.0, 86_400.0), "1970-01-01 00:00:00 to 1970-01-02 00:00:00");
        assert_eq!(times(1e300, f64::MAX).matches(" s").count(), 2);
    }
}

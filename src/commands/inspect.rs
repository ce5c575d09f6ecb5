//! `inspect`: show runs, tags, steps and damage; write nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use crate::cli::InspectArgs;
use crate::commands::error::{CommandError, ExitCode, IoContext as _};
use crate::commands::session;
use crate::commands::ui::{Ui, counted, grouped, printable, size};
use crate::model::{Skipped, SkippedReason, Skips};
use crate::pipeline::id_of;
use crate::proto::wandb_internal::record::RecordType;
use crate::settings::Settings;
use crate::survey::{PlannedRun, PlannedSource, Survey};
use crate::tfevents::{EventFile, FilePosition, Next, TagTable, ValueKind};
use crate::wandb_format::{EntryKind, LogReader, Next as NextEntry, find_logs};

/// Runs the command.
pub(super) fn run(arguments: &InspectArgs, settings: &Settings, ui: &Arc<Ui>) -> Result<ExitCode, CommandError> {
    session::check_paths(&arguments.paths)?;
    let shape = session::shape(settings)?;
    let naming = session::naming(settings)?;
    let first = arguments.paths.first().cloned().unwrap_or_default();
    let directories: Vec<PathBuf> = arguments.paths.iter().filter(|path| !is_log(path)).cloned().collect();
    let found = Survey::new(&shape, settings.runs.generation).look(&directories).context("look at", &first)?;
    let logs = find_logs(&arguments.paths).logs;
    if found.runs.is_empty() && logs.is_empty() {
        let paths: Vec<String> = arguments.paths.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(CommandError::new(ExitCode::NothingFound, format!("nothing to inspect in {}", paths.join(", ")))
            .hint(format!(
                "files named `*tfevents*` and `*.wandb` are looked for; {} with other names {} ignored",
                counted(found.other_files, "file"),
                if found.other_files == 1 { "was" } else { "were" }
            )));
    }
    for (path, why) in &found.unreadable {
        ui.warning(format!("cannot read `{}`: {why}", path.display()));
    }
    session::warn_of_idle_patterns(&found.idle_patterns, ui);
    if !found.left_out.is_empty() {
        let count = found.left_out.len() as u64;
        ui.note(format!("`--include` and `--exclude` leave out {}", counted(count, "event file")));
    }
    let mut damaged = !found.unreadable.is_empty();
    let mut show = |seen: Seen| {
        damaged |= seen.damaged;
        if ui.is_json() {
            ui.data(&format!("{}\n", seen.json));
        } else {
            ui.data(&printable(&seen.text));
        }
    };
    // In pieces, so that a million runs are not held until the last was read.
    for plans in found.runs.chunks(256) {
        let seen: Vec<Seen> = plans.par_iter().map(|plan| look_at_run(plan, &naming)).collect();
        seen.into_iter().for_each(&mut show);
    }
    for log in &logs {
        show(look_at_log(log));
    }
    Ok(if damaged { ExitCode::Partial } else { ExitCode::Success })
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wandb")
}

/// What there is to show of one thing.
struct Seen {
    json: String,
    text: String,
    damaged: bool,
}

/// A run as event files would make it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "run")]
struct RunSeen<'a> {
    source: String,
    run_id: String,
    name: String,
    group: String,
    project: String,
    files: Vec<FileSeen<'a>>,
    events: u64,
    bytes: u64,
    tags: BTreeMap<String, TagSeen>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Serialize)]
struct FileSeen<'a> {
    path: &'a str,
    bytes: u64,
    events: u64,
}

/// One tag of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct TagSeen {
    kind: String,
    points: u64,
    nan: u64,
    first_step: i64,
    last_step: i64,
    first_time: f64,
    last_time: f64,
}

fn look_at_run(plan: &PlannedRun, naming: &crate::pipeline::Naming) -> Seen {
    let mut tags: BTreeMap<String, TagSeen> = BTreeMap::new();
    let mut skips = Skips::default();
    let mut tables: BTreeMap<&str, TagTable> = BTreeMap::new();
    let mut files = Vec::with_capacity(plan.sources.len());
    for source in &plan.sources {
        let table = tables.entry(&source.directory).or_default();
        let mut by_tag = Vec::new();
        let events = match read_file(source, table, &mut by_tag, &mut skips) {
            Ok(events) => events,
            Err(error) => {
                skips.add(SkippedReason::Unreadable, 1, || format!("`{}`: {error}", source.path.display()));
                0
            }
        };
        for (tag, seen) in by_tag.into_iter().flatten() {
            merge(&mut tags, source.rule.key(&tag), seen);
        }
        files.push(FileSeen { path: &source.label, bytes: source.size, events });
    }
    let place = plan.place();
    let run = RunSeen {
        source: plan.directory.display().to_string(),
        run_id: plan.id.to_string(),
        name: naming.name.as_ref().map_or_else(|| plan.name(), |name| name.expand(place)),
        group: naming.group.as_ref().map_or_else(|| plan.group(), |group| group.expand(place)),
        project: naming.project(plan),
        events: files.iter().map(|file| file.events).sum(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        tags,
        skipped: skips.report(),
    };
    let damaged = skips.iter().any(|(reason, _)| reason.is_loss() && !matches!(reason, SkippedReason::Kind(_)));
    Seen { json: serde_json::to_string(&run).unwrap_or_default(), text: run_text(&run), damaged }
}

/// Reads a file to its end; the number of its events.
fn read_file(
    source: &PlannedSource,
    table: &mut TagTable,
    tags: &mut Vec<Option<(Arc<str>, TagSeen)>>,
    skips: &mut Skips,
) -> std::io::Result<u64> {
    let mut file = EventFile::open(&source.path, &FilePosition::default())?;
    let mut events = 0;
    let path = source.path.display();
    loop {
        match file.next_event(table)? {
            Next::Event => {
                events += 1;
                let event = file.event();
                let (step, time) = (event.step.0, event.wall_time.seconds());
                for point in &event.points {
                    let index = point.tag_id.index();
                    if index >= tags.len() {
                        tags.resize(index + 1, None);
                    }
                    let Some(place) = tags.get_mut(index) else { continue };
                    let fresh = || TagSeen {
                        kind: point.kind.name().to_owned(),
                        points: 0,
                        nan: 0,
                        first_step: step,
                        last_step: step,
                        first_time: time,
                        last_time: time,
                    };
                    let (_, tag) = place.get_or_insert_with(|| (point.tag.clone(), fresh()));
                    tag.points += 1;
                    tag.nan += u64::from(point.number.is_some_and(|number| number.is_nan()));
                    tag.first_step = tag.first_step.min(step);
                    tag.last_step = tag.last_step.max(step);
                    tag.first_time = tag.first_time.min(time);
                    tag.last_time = tag.last_time.max(time);
                    if let ValueKind::Bad(why) = &point.kind {
                        skips.add(SkippedReason::BadValue, 1, || {
                            format!("`{path}` at byte {}: `{}`: {why}", event.at, point.tag)
                        });
                    } else if point.kind != ValueKind::Scalar {
                        skips.add(SkippedReason::Kind(point.kind.name().to_owned()), 1, || {
                            format!("`{path}` at byte {}: `{}`", event.at, point.tag)
                        });
                    }
                }
            }
            Next::BadRecord { at, why } => {
                skips.add(SkippedReason::DamagedRecord, 1, || format!("`{path}` at byte {at}: {why}"))
            }
            Next::BadLength { at, why } => {
                skips.add(SkippedReason::DamagedFile, 1, || format!("`{path}` from byte {at}: {why}"));
                return Ok(events);
            }
            Next::Incomplete { bytes } => {
                let at = file.offset();
                skips.add(SkippedReason::IncompleteTail, 1, || {
                    format!("`{path}` at byte {at}: {bytes} bytes of it are there")
                });
                return Ok(events);
            }
            Next::NothingYet | Next::Zeros { .. } => return Ok(events),
        }
    }
}

fn merge(tags: &mut BTreeMap<String, TagSeen>, key: String, seen: TagSeen) {
    match tags.get_mut(&key) {
        None => {
            tags.insert(key, seen);
        }
        Some(tag) => {
            tag.points += seen.points;
            tag.nan += seen.nan;
            tag.first_step = tag.first_step.min(seen.first_step);
            tag.last_step = tag.last_step.max(seen.last_step);
            tag.first_time = tag.first_time.min(seen.first_time);
            tag.last_time = tag.last_time.max(seen.last_time);
        }
    }
}

fn run_text(run: &RunSeen<'_>) -> String {
    let mut text = format!("{} ({})", run.name, run.run_id);
    // Writing to a string cannot fail, here and below.
    if !run.group.is_empty() {
        let _ = write!(text, ", group {}", run.group);
    }
    let _ = writeln!(
        text,
        "\n  from `{}`: {}, {}, {}",
        run.source,
        counted(run.files.len() as u64, "file"),
        counted(run.events, "event"),
        size(run.bytes)
    );
    let width = run.tags.keys().map(|key| key.chars().count()).max().unwrap_or(0).min(60);
    for (key, tag) in &run.tags {
        let _ = write!(
            text,
            "  {key:width$}  {:12} {:>10} points, steps {} to {}",
            tag.kind,
            grouped(tag.points),
            tag.first_step,
            tag.last_step
        );
        if tag.nan > 0 {
            let _ = write!(text, ", {} NaN", grouped(tag.nan));
        }
        text.push('\n');
    }
    skipped_text(&run.skipped, &mut text);
    text.push('\n');
    text
}

fn skipped_text(skipped: &[Skipped], text: &mut String) {
    for skipped in skipped {
        let _ = writeln!(text, "  {} × {}, first: {}", grouped(skipped.count), skipped.reason, skipped.first);
    }
}

/// A log of the run datastore.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "log")]
struct LogSeen {
    source: String,
    run_id: String,
    bytes: u64,
    records: BTreeMap<&'static str, u64>,
    exit_code: Option<i32>,
    skipped: Vec<Skipped>,
}

fn look_at_log(log: &Path) -> Seen {
    let mut skips = Skips::default();
    let mut seen = LogSeen {
        source: log.display().to_string(),
        run_id: id_of(log).map(|id| id.to_string()).unwrap_or_default(),
        bytes: std::fs::metadata(log).map(|metadata| metadata.len()).unwrap_or_default(),
        records: BTreeMap::new(),
        exit_code: None,
        skipped: Vec::new(),
    };
    if let Err(error) = read_log(log, &mut seen, &mut skips) {
        skips.add(SkippedReason::Unreadable, 1, || format!("`{}`: {error}", log.display()));
    }
    seen.skipped = skips.report();
    let mut text = format!("{}\n  {}, run {}", seen.source, size(seen.bytes), seen.run_id);
    let ending = match seen.exit_code {
        Some(code) => format!("ended with exit code {code}"),
        None => "not ended".to_owned(),
    };
    let _ = writeln!(text, ", {ending}");
    for (kind, count) in &seen.records {
        let _ = writeln!(text, "  {kind:12} {:>10}", grouped(*count));
    }
    skipped_text(&seen.skipped, &mut text);
    text.push('\n');
    Seen { json: serde_json::to_string(&seen).unwrap_or_default(), text, damaged: skips.any_loss() }
}

fn read_log(log: &Path, seen: &mut LogSeen, skips: &mut Skips) -> Result<(), crate::wandb_format::LogError> {
    let mut reader = LogReader::open(log)?;
    loop {
        match reader.next()? {
            NextEntry::Entry(entry) => {
                seen.exit_code = None;
                let kind = match &entry.kind {
                    EntryKind::History(_) => "history",
                    EntryKind::Record(record) => {
                        if let RecordType::Exit(exit) = &**record {
                            seen.exit_code = Some(exit.exit_code);
                        }
                        kind_name(record)
                    }
                    EntryKind::Unknown(number) => {
                        skips.add(SkippedReason::UnknownRecord, 1, || {
                            format!("record kind {number} at byte {}", entry.start.0)
                        });
                        continue;
                    }
                };
                *seen.records.entry(kind).or_insert(0) += 1;
            }
            NextEntry::End => return Ok(()),
            NextEntry::Incomplete { at } => {
                skips.add(SkippedReason::IncompleteTail, 1, || format!("at byte {}", at.0));
                return Ok(());
            }
            NextEntry::Damaged { from, to, why } => {
                skips.add(SkippedReason::DamagedRecord, 1, || format!("bytes {} to {}: {why}", from.0, to.0));
            }
        }
    }
}

/// What people call a kind of record.
fn kind_name(record: &RecordType) -> &'static str {
    match record {
        RecordType::History(_) => "history",
        RecordType::Summary(_) => "summary",
        RecordType::Output(_) | RecordType::OutputRaw(_) | RecordType::OutputLogger(_) => "console",
        RecordType::Config(_) => "config",
        RecordType::Files(_) => "files",
        RecordType::Stats(_) => "stats",
        RecordType::Artifact(_) | RecordType::UseArtifact(_) | RecordType::NoopLinkArtifact(_) => "artifact",
        RecordType::Tbrecord(_) => "tensorboard",
        RecordType::Alert(_) => "alert",
        RecordType::Telemetry(_) => "telemetry",
        RecordType::Metric(_) => "metric",
        RecordType::Run(_) => "run",
        RecordType::Exit(_) => "exit",
        RecordType::Final(_) | RecordType::Footer(_) | RecordType::Header(_) => "envelope",
        RecordType::Preempting(_) => "preempting",
        RecordType::Environment(_) => "environment",
    }
}

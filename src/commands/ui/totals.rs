//! What became of all runs together: the sums behind the last lines, the summary and the exit code.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{RunReport, RunState, SummaryReport};
use super::text::{command_line, counted, elapsed, grouped, size};
use crate::commands::error::ExitCode;
use crate::model::{Kinds, SkippedReason, Skips};

/// How many run directories are named one by one.
const NAMED_DIRS: usize = 3;

/// Sums over the runs of a command.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Bytes of input that were read.
    pub bytes: u64,
    /// Where the runs went: the addresses of the projects, when anything was sent.
    pub destinations: BTreeSet<String>,
    /// The `wandb` folder.
    pub wandb_dir: PathBuf,
    /// Whether nothing was to be written or sent.
    pub dry_run: bool,
    /// The command that tries again what did not work. Without it, logs that are there are named for `sync`.
    pub again: Option<String>,
    runs: u64,
    synced: u64,
    partial: u64,
    failed: u64,
    offline: u64,
    running: u64,
    skipped_runs: u64,
    rows: u64,
    files: u64,
    artifacts: u64,
    run_files: u64,
    run_file_bytes: u64,
    log_bytes: u64,
    /// Values of runs that the server has.
    sent: u64,
    /// Values of runs that only their logs have.
    recorded: u64,
    kinds: Kinds,
    skips: Skips,
    /// What earlier passes could not carry of the same files, and is not there yet.
    known: Skips,
    /// Run directories that hold something the server does not have.
    waiting: Vec<String>,
    /// Failed runs that have no directory to try again from.
    without_dir: u64,
    /// How each run ended last, by id and source, and whether it had a directory: a run that goes on after its end ends
    /// again.
    ended: HashMap<(String, String), (RunState, bool)>,
}

impl Totals {
    /// Sums for runs that are recorded in a `wandb` folder.
    pub fn new(wandb_dir: PathBuf) -> Self {
        Self { wandb_dir, ..Self::default() }
    }

    /// Adds a run that ended. `skips` is what `run.skipped` reports.
    pub fn add(&mut self, run: &RunReport, skips: &Skips) {
        let has_directory = run.dir.is_some();
        match self.ended.insert((run.run_id.clone(), run.source.clone()), (run.state, has_directory)) {
            Some((before, had_directory)) => {
                *self.count(before) -= 1;
                if before == RunState::Failed && !had_directory {
                    self.without_dir -= 1;
                }
                self.waiting.retain(|waiting| run.dir.as_ref() != Some(waiting));
            }
            None => self.runs += 1,
        }
        *self.count(run.state) += 1;
        match run.state {
            RunState::Synced | RunState::Partial | RunState::Running => self.sent += run.events,
            RunState::Failed | RunState::Offline => self.recorded += run.events,
            // Because of what the server holds: it was recorded all the same.
            RunState::Skipped if run.error.is_some() => self.recorded += run.events,
            RunState::Skipped => {}
        }
        self.rows += run.rows;
        self.files += run.files;
        self.artifacts += run.artifacts;
        self.run_files += run.run_files;
        self.run_file_bytes += run.run_file_bytes;
        self.log_bytes += run.log_bytes;
        self.kinds.merge(&run.kinds);
        self.skips.merge(skips);
        // What is partial without an error is damaged in the files: sending it again does not help.
        let can_be_sent = match run.state {
            RunState::Failed | RunState::Offline => true,
            RunState::Partial => run.error.is_some(),
            RunState::Synced | RunState::Running | RunState::Skipped => false,
        };
        match &run.dir {
            Some(dir) if can_be_sent => self.waiting.push(dir.clone()),
            None if run.state == RunState::Failed => self.without_dir += 1,
            _ => {}
        }
    }

    fn count(&mut self, state: RunState) -> &mut u64 {
        match state {
            RunState::Synced => &mut self.synced,
            RunState::Partial => &mut self.partial,
            RunState::Running => &mut self.running,
            RunState::Failed => &mut self.failed,
            RunState::Offline => &mut self.offline,
            RunState::Skipped => &mut self.skipped_runs,
        }
    }

    /// Adds what was skipped outside of any run, such as a file that could not be opened.
    pub fn add_skips(&mut self, skips: &Skips) {
        self.skips.merge(skips);
    }

    /// Whether a run ended before in this process.
    pub fn has(&self, run: &RunReport) -> bool {
        self.ended.contains_key(&(run.run_id.clone(), run.source.clone()))
    }

    /// Adds what earlier passes could not carry of the same files.
    pub fn add_known(&mut self, known: &Skips) {
        self.known.merge(known);
    }

    fn all_skips(&self) -> Skips {
        let mut all = self.skips.clone();
        all.merge(&self.known);
        all
    }

    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// What these runs alone make of the exit code. That there were none is for the command to judge.
    pub fn exit_code(&self) -> ExitCode {
        let succeeded = self.runs - self.failed;
        if self.runs > 0 && succeeded == 0 {
            ExitCode::Failed
        } else if self.failed > 0 || self.partial > 0 || self.skips.any_loss() || self.known.any_loss() {
            ExitCode::Partial
        } else {
            ExitCode::Success
        }
    }

    /// The last object of `--json`.
    pub fn summary(&self, took: Duration, code: ExitCode) -> SummaryReport {
        SummaryReport {
            runs: self.runs,
            rows: self.rows,
            events: self.sent + self.recorded,
            bytes: self.bytes,
            kinds: self.kinds.clone(),
            files: self.files,
            artifacts: self.artifacts,
            run_files: self.run_files,
            run_file_bytes: self.run_file_bytes,
            log_bytes: self.log_bytes,
            skipped: self.all_skips().report(),
            synced: self.synced,
            partial: self.partial,
            failed: self.failed,
            offline: self.offline,
            running: self.running,
            skipped_runs: self.skipped_runs,
            seconds: (took.as_secs_f64() * 1000.0).round() / 1000.0,
            exit_code: code.number(),
        }
    }
}

/// The last lines of a command. `verb` is what it did: `imported`, `watched`, `synced`.
pub fn last_lines(totals: &Totals, verb: &str, took: Duration) -> Vec<String> {
    let would = if totals.dry_run { "would have " } else { "" };
    let all = counted(totals.runs, "run");
    let runs = match totals.failed {
        0 => all,
        failed => format!("{} of {all}", grouped(totals.runs - failed)),
    };
    let rows = counted(totals.rows, "row");
    let mut lines = vec![format!("{would}{verb} {runs}, {rows} in {}", elapsed(took))];
    lines.extend(account(totals));
    if totals.dry_run && totals.log_bytes > 0 {
        let mut line = format!("would be written: {} of logs", size(totals.log_bytes));
        if totals.run_files > 0 {
            line.push_str(&format!(", {} of {}", counted(totals.run_files, "file"), size(totals.run_file_bytes)));
        }
        lines.push(line);
    }
    lines.extend(places(totals));
    lines.extend(retry(totals));
    lines
}

/// Read = sent + kept as file + left out + lost, and each reason with the first place it happened.
fn account(totals: &Totals) -> Vec<String> {
    let (mut left_out, mut lost) = (0, 0);
    for (reason, count) in totals.skips.iter() {
        if reason.is_loss() {
            lost += count.count;
        } else if matches!(reason, SkippedReason::LeftOut | SkippedReason::Superseded) {
            left_out += count.count;
        }
    }
    let parts = [
        (totals.sent, "sent"),
        (totals.recorded, if totals.dry_run { "to be sent" } else { "recorded here" }),
        (totals.kinds.sum().kept, "kept as files"),
        (left_out, "left out"),
        (lost, "lost"),
    ];
    let read: u64 = parts.iter().map(|(count, _)| count).sum();
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", grouped(*count)))
        .collect();
    let mut lines = Vec::new();
    if read > 0 {
        lines.push(format!("read {} = {}", counted(read, "value"), parts.join(" + ")));
    }
    for (reason, count) in totals.skips.iter() {
        lines.push(format!("  {} × {reason}, first: {}", grouped(count.count), count.first));
    }
    for (reason, count) in totals.known.iter() {
        lines.push(format!("  {} × {reason} in an earlier pass, first: {}", grouped(count.count), count.first));
    }
    lines
}

/// What is on the server, and what is only here.
fn places(totals: &Totals) -> Vec<String> {
    let mut lines = Vec::new();
    let counts: Vec<String> =
        [(totals.synced, "complete"), (totals.partial, "partial"), (totals.running, "still running")]
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", grouped(*count)))
            .collect();
    if let (Some(first), false) = (totals.destinations.first(), counts.is_empty()) {
        let counts = counts.join(", ");
        lines.push(match totals.destinations.len() {
            1 => format!("on the server: {counts} at {first}"),
            projects => format!("on the server: {counts} in {} projects, such as {first}", grouped(projects as u64)),
        });
    }
    match totals.waiting.as_slice() {
        [] => {}
        [dir] => lines.push(format!("waiting here: 1 run in `{dir}`")),
        dirs => lines.push(format!("waiting here: {} in {}", counted(dirs.len() as u64, "run"), folder_of(dirs))),
    }
    if totals.without_dir > 0 {
        lines.push(format!("not recorded: {}", counted(totals.without_dir, "run")));
    }
    if totals.skipped_runs > 0 {
        lines.push(format!("left out: {}", counted(totals.skipped_runs, "run")));
    }
    lines
}

/// The folder that run directories lie in, or one of them where that differs: `sync` takes runs from anywhere.
fn folder_of(dirs: &[String]) -> String {
    let mut folders = dirs.iter().map(|dir| Path::new(dir).parent().unwrap_or_else(|| Path::new("")));
    let first = folders.next().unwrap_or_else(|| Path::new(""));
    let and_others = if folders.all(|folder| folder == first) { "" } else { " and other places" };
    let first = if first.as_os_str().is_empty() { Path::new(".") } else { first };
    format!("`{}`{and_others}", first.display())
}

/// The exact commands that try again, or upload what was recorded offline.
fn retry(totals: &Totals) -> Vec<String> {
    let tried = totals.failed > 0 || totals.partial > 0;
    let something = !totals.waiting.is_empty() || totals.without_dir > 0;
    match &totals.again {
        // Only the command itself knows all of what it was asked for: another project, another folder.
        Some(again) if tried && something => return vec![format!("to try again: `{again}`")],
        _ => {}
    }
    let mut lines = Vec::new();
    if !totals.waiting.is_empty() {
        let wandb_dir = totals.wandb_dir.to_string_lossy();
        let command = if totals.waiting.len() <= NAMED_DIRS {
            command_line(["wandb-bridge", "sync"].into_iter().chain(totals.waiting.iter().map(String::as_str)))
        } else if wandb_dir == "wandb" {
            "wandb-bridge sync".to_owned()
        } else {
            command_line(["wandb-bridge", "sync", wandb_dir.as_ref()])
        };
        let what = if tried { "to try again" } else { "to upload" };
        lines.push(format!("{what}: `{command}`"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Count;

    fn run(id: &str, state: RunState) -> RunReport {
        RunReport {
            run_path: format!("me/p/{id}"),
            name: id.to_owned(),
            dir: Some(format!("wandb/offline-run-20260714_000000-{id}")),
            rows: 1000,
            events: 2000,
            files: 1,
            state,
            ..RunReport::new(format!("logs/{id}"), id.to_owned())
        }
    }

    fn totals(states: &[RunState]) -> Totals {
        let mut totals = Totals::new("wandb".into());
        for (index, state) in states.iter().enumerate() {
            totals.add(&run(&format!("r{index}"), *state), &Skips::default());
        }
        totals
    }

    fn lines(totals: &Totals) -> String {
        last_lines(totals, "imported", Duration::from_millis(12_300)).join("\n")
    }

    #[test]
    fn all_sent() {
        let mut all = totals(&[RunState::Synced, RunState::Synced]);
        all.destinations.insert("https://wandb.ai/me/p".to_owned());
        insta::assert_snapshot!(lines(&all), @r"
        imported 2 runs, 2 000 rows in 12.3 s
        read 4 000 values = 4 000 sent
        on the server: 2 complete at https://wandb.ai/me/p
        ");
        assert_eq!(all.exit_code(), ExitCode::Success);
    }

    #[test]
    fn offline_names_the_command_that_uploads() {
        insta::assert_snapshot!(lines(&totals(&[RunState::Offline])), @r"
        imported 1 run, 1 000 rows in 12.3 s
        read 2 000 values = 2 000 recorded here
        waiting here: 1 run in `wandb/offline-run-20260714_000000-r0`
        to upload: `wandb-bridge sync wandb/offline-run-20260714_000000-r0`
        ");
        insta::assert_snapshot!(lines(&totals(&[RunState::Offline; 4])), @r"
        imported 4 runs, 4 000 rows in 12.3 s
        read 8 000 values = 8 000 recorded here
        waiting here: 4 runs in `wandb`
        to upload: `wandb-bridge sync`
        ");
        let mut elsewhere = Totals::new("/data/my runs/wandb".into());
        for id in ["a", "b", "c", "d"] {
            let dir = Some(format!("/data/my runs/wandb/offline-run-{id}"));
            elsewhere.add(&RunReport { dir, ..run(id, RunState::Offline) }, &Skips::default());
        }
        assert!(lines(&elsewhere).contains("waiting here: 4 runs in `/data/my runs/wandb`\n"), "{}", lines(&elsewhere));
        insta::assert_snapshot!(lines(&elsewhere).lines().last().unwrap_or_default(), @"to upload: `wandb-bridge sync '/data/my runs/wandb'`");
        let mut dry = Totals { dry_run: true, ..Totals::default() };
        dry.add(&RunReport { dir: None, ..run("r", RunState::Offline) }, &Skips::default());
        insta::assert_snapshot!(lines(&dry), @r"
        would have imported 1 run, 1 000 rows in 12.3 s
        read 2 000 values = 2 000 to be sent
        ");
    }

    #[test]
    fn what_is_missing_is_accounted_for() {
        let skips: Skips = [
            (SkippedReason::DamagedRecord, Count { count: 3, first: "`logs/r1/events` at byte 88064".to_owned() }),
            (SkippedReason::LeftOut, Count { count: 5, first: "tag `lr`".to_owned() }),
            (SkippedReason::IncompleteTail, Count { count: 1, first: "`logs/r1/events` at byte 99000".to_owned() }),
        ]
        .into_iter()
        .collect();
        let mut some = totals(&[RunState::Synced, RunState::Running, RunState::Skipped]);
        some.destinations.insert("https://wandb.ai/me/p".to_owned());
        some.add(&run("bad", RunState::Partial), &skips);
        some.add(&run("gone", RunState::Failed), &Skips::default());
        some.add(&RunReport { dir: None, rows: 0, events: 0, ..run("never", RunState::Failed) }, &Skips::default());
        some.again = Some("wandb-bridge import logs".to_owned());
        insta::assert_snapshot!(lines(&some), @r"
        imported 4 of 6 runs, 5 000 rows in 12.3 s
        read 8 008 values = 6 000 sent + 2 000 recorded here + 5 left out + 3 lost
          5 × left out by a filter, first: tag `lr`
          3 × damaged record, first: `logs/r1/events` at byte 88064
          1 × unfinished last record, first: `logs/r1/events` at byte 99000
        on the server: 1 complete, 1 partial, 1 still running at https://wandb.ai/me/p
        waiting here: 1 run in `wandb/offline-run-20260714_000000-gone`
        not recorded: 1 run
        left out: 1 run
        to try again: `wandb-bridge import logs`
        ");
        assert_eq!(some.exit_code(), ExitCode::Partial);
        let summary = some.summary(Duration::from_micros(1_234_567), some.exit_code());
        assert_eq!((summary.runs, summary.failed, summary.exit_code, summary.seconds), (6, 2, 3, 1.235));
    }

    #[test]
    fn a_run_that_ends_twice_is_one_run() {
        let mut twice = totals(&[RunState::Failed, RunState::Synced]);
        twice.add(&run("r0", RunState::Synced), &Skips::default());
        let summary = twice.summary(Duration::ZERO, twice.exit_code());
        assert_eq!((summary.runs, summary.synced, summary.failed, summary.rows), (2, 2, 0, 3000));
        assert!(!lines(&twice).contains("waiting"), "{}", lines(&twice));

        // Nor is one that could not be recorded at first, and was then.
        let mut later = Totals::default();
        for _ in 0..2 {
            later.add(&RunReport { dir: None, ..run("r", RunState::Failed) }, &Skips::default());
        }
        assert!(lines(&later).contains("not recorded: 1 run"), "{}", lines(&later));
        later.add(&run("r", RunState::Synced), &Skips::default());
        assert!(!lines(&later).contains("not recorded"), "{}", lines(&later));
    }

    #[test]
    fn several_places_are_not_one() {
        let mut several = totals(&[RunState::Synced, RunState::Synced]);
        several.destinations.extend(["https://wandb.ai/me/p", "https://wandb.ai/me/q"].map(str::to_owned));
        for (id, dir) in [("a", "a/wandb/offline-run-1"), ("b", "b/wandb/offline-run-2")] {
            several.add(&RunReport { dir: Some(dir.to_owned()), ..run(id, RunState::Failed) }, &Skips::default());
        }
        let lines = lines(&several);
        assert!(lines.contains("2 complete in 2 projects, such as https://wandb.ai/me/p\n"), "{lines}");
        assert!(lines.contains("waiting here: 2 runs in `a/wandb` and other places\n"), "{lines}");
    }

    #[test]
    fn damage_that_was_said_before_is_said_again() {
        let mut again = totals(&[RunState::Synced]);
        let first = "`a` at byte 3".to_owned();
        again.add_known(&[(SkippedReason::DamagedRecord, Count { count: 2, first })].into_iter().collect());
        insta::assert_snapshot!(lines(&again), @r"
        imported 1 run, 1 000 rows in 12.3 s
        read 2 000 values = 2 000 sent
          2 × damaged record in an earlier pass, first: `a` at byte 3
        ");
        assert_eq!(again.exit_code(), ExitCode::Partial);
        assert_eq!(again.summary(Duration::ZERO, ExitCode::Partial).skipped.len(), 1);
    }

    #[test]
    fn exit_codes_of_runs() {
        use RunState::*;
        for (states, code) in [
            (&[][..], ExitCode::Success),
            (&[Failed, Failed], ExitCode::Failed),
            (&[Failed, Synced], ExitCode::Partial),
            (&[Partial], ExitCode::Partial),
            (&[Offline, Skipped, Running], ExitCode::Success),
        ] {
            assert_eq!(totals(states).exit_code(), code, "{states:?}");
        }
        let mut lossy = totals(&[Synced]);
        lossy.add_skips(&[(SkippedReason::Unreadable, Count { count: 1, first: String::new() })].into_iter().collect());
        assert_eq!(lossy.exit_code(), ExitCode::Partial);
    }
}

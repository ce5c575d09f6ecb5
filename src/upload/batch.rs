//! Entries of a log into the content of requests. Pure.
//!
//! A batch holds at most [`MAX_BYTES`] of lines, and always its first line. However entries are cut into batches, the same
//! lines go to the same offsets, because an offset is the number of lines before it and nothing else.

use crate::api::file_stream::Lines;
use crate::model::{LogPosition, SkippedReason};
use crate::proto::wandb_internal::AlertRecord;
use crate::proto::wandb_internal::record::RecordType;
use crate::upload::console::{ConsoleLine, Printed};
use crate::upload::fold::{Change, Fold, printed_text};
use crate::upload::state::Base;
use crate::wandb_format::{Entry, EntryKind, HistoryLine, HistoryLines};

/// How many bytes of lines go into one request, as in the official client.
pub(crate) const MAX_BYTES: usize = 10 << 20;

/// W&B's limit for one line.
pub(crate) const MAX_LINE: usize = MAX_BYTES - (100 << 10);

/// How much log one batch may cover, even when nothing of it becomes lines: what a batch costs is bounded.
const MAX_LOG: u64 = 64 << 20;

/// How many files that are uploaded once one batch names: what is done again after a crash is bounded.
const MAX_FILES: usize = 1000;

/// The content of one request, and what is known once it was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    /// New history lines.
    pub(crate) history: Lines,
    /// New lines of system metrics.
    pub(crate) events: Lines,
    /// How many bytes these lines have.
    pub(crate) bytes: usize,
    /// Files that are uploaded once, named by these entries.
    pub(crate) media: Vec<String>,
    /// Console lines that are new or changed.
    pub(crate) console: Vec<ConsoleLine>,
    /// The number of the first of them.
    pub(crate) console_from: u64,
    /// What somebody is to be told.
    pub(crate) alerts: Vec<LoggedAlert>,
    /// Whether the process said that it is about to be stopped.
    pub(crate) preempting: bool,
    /// The run after all entries of this batch.
    pub(crate) after: Fold,
    /// Nothing followed in the log when this batch was made.
    pub(crate) at_end: bool,
    /// The log ended within a record.
    pub(crate) incomplete: bool,
}

/// An alert and its place in the log.
#[derive(Debug, Clone)]
pub(crate) struct LoggedAlert {
    /// How many alerts are before it.
    pub(crate) number: u64,
    /// How many rows are before it.
    pub(crate) rows: u64,
    pub(crate) alert: AlertRecord,
}

impl Batch {
    /// Whether there is anything that only this batch carries.
    pub(crate) fn has_lines(&self) -> bool {
        self.history.count > 0 || self.events.count > 0 || !self.console.is_empty() || self.preempting
    }
}

/// Whether an entry found a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    /// It is in.
    Taken,
    /// The batch is full: finish it, then push the same entry again.
    Full,
}

/// Makes batches, one after the other.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    fold: Fold,
    history: Lines,
    events: Lines,
    printed: Printed,
    alerts: Vec<LoggedAlert>,
    bytes: usize,
    preempting: bool,
    entries: u64,
    from: u64,
    base: Base,
    /// Rows below this number are on the server already.
    resend_from: u64,
    line: Vec<u8>,
    lines: HistoryLines,
    /// The `_step` of the latest row of this batch.
    step: Option<i64>,
}

impl BatchBuilder {
    /// Goes on after `fold`. What `base` says of the server is not of this log; rows of ours below `resend_from` are counted
    /// but not sent.
    pub(crate) fn new(fold: Fold, base: Base, resend_from: u64) -> Self {
        let mut builder = Self {
            history: Lines::default(),
            events: Lines::default(),
            printed: Printed::default(),
            alerts: Vec::new(),
            bytes: 0,
            preempting: false,
            entries: 0,
            from: fold.position.0,
            base,
            resend_from,
            line: Vec::new(),
            lines: HistoryLines::default(),
            step: None,
            fold,
        };
        builder.start();
        builder
    }

    /// The end of what was pushed.
    pub(crate) fn position(&self) -> LogPosition {
        self.fold.position
    }

    /// Reading begins again at [`BatchBuilder::position`], which is before any exit but one that was passed.
    pub(crate) fn forget_exit(&mut self) {
        self.fold.exit = self.fold.passed_exit;
    }

    /// Notes that what lies between is no record.
    pub(crate) fn damaged(&mut self, from: LogPosition, to: LogPosition, why: &str) {
        // Behind an exit there is nothing to lose.
        if self.fold.exit.is_none() {
            self.fold.damage.add(from, to, why);
            self.fold.position = to;
        }
    }

    /// Adds one entry.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) -> Pushed {
        let long = entry.end.0.saturating_sub(self.from) > MAX_LOG || self.fold.fresh.len() >= MAX_FILES;
        if self.entries > 0 && long {
            return Pushed::Full;
        }
        match &entry.kind {
            EntryKind::History(bytes) => {
                let latest = self.step.or(self.fold.implied_step());
                let row = row(&mut self.lines, bytes, self.base.least_step(latest), &mut self.line);
                if self.line.len() > MAX_LINE {
                    self.skip(SkippedReason::RowTooLarge, 1, entry, &format!("a row of {} bytes", self.line.len()));
                } else if self.is_full_for(self.line.len()) {
                    return Pushed::Full;
                } else {
                    if self.fold.history_lines >= self.resend_from {
                        self.history.push(&self.line);
                        self.bytes += self.line.len();
                    } else {
                        self.history.offset += 1;
                    }
                    self.fold.history_lines += 1;
                    self.step = row.step.or(self.step);
                }
                self.skip(SkippedReason::BadValue, row.skipped, entry, "a value that is not JSON, in a row");
            }
            EntryKind::Summary(record) => {
                let bad = self.fold.apply_summary(record);
                self.skip(SkippedReason::BadValue, bad, entry, "a summary value that is not JSON");
            }
            EntryKind::Record(record) if printed_text(record).is_some() => {
                if self.is_full_for(printed_text(record).map_or(0, str::len)) {
                    return Pushed::Full;
                }
                self.fold.print(record, &mut self.printed);
            }
            EntryKind::Record(record) => match self.fold.apply(record, &mut self.line) {
                Change::Nothing => {}
                Change::Alert => {
                    if let RecordType::Alert(alert) = &**record {
                        let (number, rows) = (self.fold.alerts - 1, self.fold.history_lines);
                        self.alerts.push(LoggedAlert { number, rows, alert: alert.clone() });
                    }
                }
                Change::Event => {
                    if self.line.len() > MAX_LINE {
                        self.skip(SkippedReason::RowTooLarge, 1, entry, "a sample of system metrics");
                    } else if self.is_full_for(self.line.len()) {
                        return Pushed::Full;
                    } else {
                        self.events.push(&self.line);
                        self.bytes += self.line.len();
                        self.fold.events_lines += 1;
                    }
                }
                Change::Preempting => self.preempting = true,
                Change::Artifact => self.fold.artifacts.push(entry.start),
                Change::Skipped(reason, count, what) => self.skip(reason, count, entry, what),
            },
            EntryKind::Unknown(number) => {
                self.skip(SkippedReason::UnknownRecord, 1, entry, &format!("a record of type {number}"));
            }
        }
        self.fold.damage.pass(entry.number);
        match behind_exit(&entry.kind) {
            Behind::Nothing => {}
            Behind::Late => self.fold.passed_exit = self.fold.exit,
            Behind::WentOn => (self.fold.exit, self.fold.passed_exit) = (None, None),
        }
        // What was taken behind an exit is not taken again, so the exit is remembered with it.
        if self.fold.exit.is_none() || self.fold.passed_exit.is_some() {
            self.fold.position = entry.end;
        }
        self.entries += 1;
        Pushed::Taken
    }

    /// Takes what was pushed as one batch.
    pub(crate) fn finish(&mut self) -> Batch {
        if let Some(step) = self.step.take() {
            self.fold.imply_step(step);
        }
        let history = std::mem::take(&mut self.history);
        let events = std::mem::take(&mut self.events);
        let bytes = std::mem::take(&mut self.bytes) + self.printed.bytes();
        let (console_from, console) = std::mem::take(&mut self.printed).finish(&self.fold.console);
        let console_from = console_from + self.base.console;
        let batch = Batch {
            history,
            events,
            bytes,
            media: std::mem::take(&mut self.fold.fresh),
            console,
            console_from,
            alerts: std::mem::take(&mut self.alerts),
            preempting: std::mem::take(&mut self.preempting),
            after: self.fold.clone(),
            at_end: false,
            incomplete: false,
        };
        self.start();
        batch
    }

    fn start(&mut self) {
        self.history = Lines::at(self.base.history + self.fold.history_lines);
        self.events = Lines::at(self.base.events + self.fold.events_lines);
        self.from = self.fold.position.0;
        self.entries = 0;
    }

    fn is_full_for(&self, size: usize) -> bool {
        let bytes = self.bytes + self.printed.bytes();
        bytes > 0 && bytes + size > MAX_BYTES
    }

    fn skip(&mut self, reason: SkippedReason, count: u64, entry: &Entry<'_>, what: &str) {
        if count > 0 {
            self.fold.skip(reason, count, || format!("{what} at byte {}", entry.start.0));
        }
    }
}

/// Makes the line of a history record. It takes a line number when it is at most [`MAX_LINE`] long.
pub(crate) fn row(lines: &mut HistoryLines, record: &[u8], least: Option<i64>, line: &mut Vec<u8>) -> HistoryLine {
    line.clear();
    lines.append_from(record, least, line)
}

/// What an entry means behind an exit.
enum Behind {
    /// Nothing: there is no need to pass the exit.
    Nothing,
    /// It belongs to the run, which has ended all the same. The official core writes what it learns late of the machine, and
    /// system metrics, wherever they happen to come.
    Late,
    /// The run went on.
    WentOn,
}

fn behind_exit(kind: &EntryKind<'_>) -> Behind {
    match kind {
        EntryKind::Record(record) => match **record {
            RecordType::Exit(_) | RecordType::Final(_) | RecordType::Footer(_) | RecordType::Header(_) => {
                Behind::Nothing
            }
            RecordType::Run(_) | RecordType::History(_) | RecordType::Preempting(_) => Behind::WentOn,
            _ => Behind::Late,
        },
        EntryKind::Summary(_) => Behind::Late,
        EntryKind::History(_) | EntryKind::Unknown(_) => Behind::WentOn,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::*;
    use crate::api::file_stream::Content;
    use crate::model::{Json, Number};
    use crate::proto::wandb_internal as proto;
    use crate::upload::cursor::Cursor;
    use crate::upload::job::{Close, LogEnd};
    use crate::wandb_format::LogWriter;

    fn whole() -> LogEnd {
        LogEnd::whole(Close::Fail(1))
    }

    /// One record of a log in a test.
    #[derive(Debug, Clone)]
    enum Step {
        Row(usize),
        Stats,
        Config(u8, u8),
        Summary(u8, u8),
        Metric(u8),
        Console,
        File(u8),
        Telemetry(u8),
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::prelude::*;
        prop_oneof![
            4 => (0..3000_usize).prop_map(Step::Row),
            1 => Just(Step::Stats),
            1 => (0..5_u8, any::<u8>()).prop_map(|(key, value)| Step::Config(key, value)),
            1 => (0..5_u8, any::<u8>()).prop_map(|(key, value)| Step::Summary(key, value)),
            1 => (0..5_u8).prop_map(Step::Metric),
            1 => Just(Step::Console),
            1 => (0..5_u8).prop_map(Step::File),
            1 => (1..60_u8).prop_map(Step::Telemetry),
        ]
    }

    fn record(step: &Step, number: usize) -> RecordType {
        let key = |key: u8| format!("key{key}");
        match *step {
            Step::Row(size) => {
                let item = |key: &str, value: String| proto::HistoryItem {
                    nested_key: vec![key.to_owned()],
                    value_json: value,
                    ..proto::HistoryItem::default()
                };
                let text = format!("\"{}\"", "x".repeat(size));
                let item = vec![item("_step", number.to_string()), item("text", text)];
                RecordType::History(proto::HistoryRecord { item, ..proto::HistoryRecord::default() })
            }
            Step::Stats => RecordType::Stats(proto::StatsRecord {
                timestamp: Some(proto::Timestamp { seconds: 1_000 + number as i64, nanos: 500_000_000 }),
                item: vec![proto::StatsItem { key: "cpu".to_owned(), value_json: "1.5".to_owned() }],
                ..proto::StatsRecord::default()
            }),
            Step::Config(name, value) => RecordType::Config(proto::ConfigRecord {
                update: vec![proto::ConfigItem {
                    key: key(name),
                    value_json: value.to_string(),
                    ..proto::ConfigItem::default()
                }],
                ..proto::ConfigRecord::default()
            }),
            Step::Summary(name, value) => RecordType::Summary(proto::SummaryRecord {
                update: vec![proto::SummaryItem {
                    key: key(name),
                    value_json: value.to_string(),
                    ..proto::SummaryItem::default()
                }],
                ..proto::SummaryRecord::default()
            }),
            Step::Metric(name) => {
                RecordType::Metric(proto::MetricRecord { name: key(name), ..proto::MetricRecord::default() })
            }
            Step::Console => RecordType::OutputRaw(proto::OutputRawRecord::default()),
            Step::File(name) => RecordType::Files(proto::FilesRecord {
                files: vec![proto::FilesItem { path: key(name), ..proto::FilesItem::default() }],
            }),
            Step::Telemetry(number) => RecordType::Telemetry(proto::TelemetryRecord {
                cli_version: number.to_string(),
                ..proto::TelemetryRecord::default()
            }),
        }
    }

    fn run_record() -> RecordType {
        RecordType::Run(proto::RunRecord {
            run_id: "r".to_owned(),
            start_time: Some(proto::Timestamp { seconds: 1_000, nanos: 0 }),
            ..proto::RunRecord::default()
        })
    }

    /// Writes a log; returns the end of each of its records.
    fn write(path: &Path, records: impl IntoIterator<Item = RecordType>) -> Vec<LogPosition> {
        let mut writer = LogWriter::create(path).unwrap();
        let mut ends = Vec::new();
        for record in records {
            writer.append(record).unwrap();
            ends.push(writer.position());
        }
        writer.flush().unwrap();
        ends
    }

    /// What a server would hold: every line put at its offset, and the fold.
    #[derive(Debug, Default, PartialEq)]
    struct Held {
        history: Vec<String>,
        events: Vec<String>,
    }

    impl Held {
        fn take(&mut self, batch: &Batch) {
            let content = Content { history: Some(&batch.history), events: Some(&batch.events), ..Content::default() };
            let body: serde_json::Value = serde_json::from_slice(&content.body()).unwrap();
            for (file, held) in [("wandb-history.jsonl", &mut self.history), ("wandb-events.jsonl", &mut self.events)] {
                let chunk = &body["files"][file];
                let Some(lines) = chunk["content"].as_array() else { continue };
                assert_eq!(chunk["offset"].as_u64(), Some(held.len() as u64), "no gap, nothing twice");
                held.extend(lines.iter().map(|line| line.as_str().unwrap().to_owned()));
            }
        }
    }

    /// Everything a fold says, but for how often it changed.
    fn says(fold: &Fold) -> String {
        let Fold { position, history_lines, events_lines, run, files, .. } = fold;
        let counts = (position, history_lines, events_lines);
        format!("{counts:?} {run:?} {files:?} {} {} {:?}", fold.config_json(), fold.summary(), fold.skips())
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(60))]
        #[test]
        fn however_a_log_is_cut_the_same_lines_go_to_the_same_offsets(
            steps in proptest::collection::vec(step(), 1..40),
            cuts in proptest::num::u64::ANY,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let log = directory.path().join("log");
            let records = steps.iter().enumerate().map(|(number, step)| record(step, number));
            let ends = write(&log, std::iter::once(run_record()).chain(records));

            let mut at_once = Held::default();
            let batch = Cursor::new(log.clone(), Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
            assert!(batch.at_end && !batch.incomplete);
            at_once.take(&batch);

            // The same in pieces, each time from a state that was written down and read again.
            let mut pieces = Held::default();
            let mut state = Fold::default();
            for (index, end) in ends.iter().enumerate() {
                if cuts >> (index % 64) & 1 == 1 || index + 1 == ends.len() {
                    let batch = Cursor::new(log.clone(), state, Base::default(), 0).next_batch(LogEnd { position: Some(*end), ..whole() }).unwrap();
                    pieces.take(&batch);
                    let kept = serde_json::to_string(&batch.after).unwrap();
                    state = serde_json::from_str(&kept).unwrap();
                }
            }
            proptest::prop_assert_eq!(&at_once, &pieces);
            proptest::prop_assert_eq!(says(&batch.after), says(&state));
            let rows = steps.iter().filter(|step| matches!(step, Step::Row(_))).count();
            proptest::prop_assert_eq!(at_once.history.len(), rows);
        }
    }

    #[test]
    fn a_batch_holds_ten_megabytes_and_always_its_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let sizes = [4 << 20, 4 << 20, 4 << 20, MAX_LINE - 30, 10, MAX_LINE];
        let rows = sizes.iter().enumerate().map(|(number, size)| record(&Step::Row(*size), number));
        write(&log, std::iter::once(run_record()).chain(rows));
        let mut cursor = Cursor::new(log, Fold::default(), Base::rows(7), 0);
        let mut held = Vec::new();
        loop {
            let batch = cursor.next_batch(whole()).unwrap();
            held.push((batch.history.offset, batch.history.count));
            assert!(batch.bytes <= MAX_BYTES, "{}", batch.bytes);
            if batch.at_end {
                let skips: Vec<_> = batch.after.skips().iter().map(|(reason, _)| reason.clone()).collect();
                assert_eq!(skips, [SkippedReason::RowTooLarge]);
                break;
            }
        }
        assert_eq!(held, [(7, 2), (9, 1), (10, 2)]);
    }

    #[test]
    fn rows_that_are_there_already_are_counted_but_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let rows = (0..5).map(|number| record(&Step::Row(1), number));
        write(&log, std::iter::once(run_record()).chain(rows));
        let batch = Cursor::new(log, Fold::default(), Base::default(), 3).next_batch(whole()).unwrap();
        assert_eq!((batch.history.offset, batch.history.count, batch.after.history_lines), (3, 2, 5));
    }

    #[test]
    fn a_position_never_passes_an_exit_unless_the_run_went_on() {
        let exit = |exit_code| RecordType::Exit(proto::RunExitRecord { exit_code, ..Default::default() });
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let records = [run_record(), record(&Step::Row(1), 0), exit(3), RecordType::Footer(proto::FooterRecord {})];
        let ends = write(&log, records.clone());
        let batch = Cursor::new(log, Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
        assert_eq!(batch.after.exit.map(|exit| exit.code), Some(3));
        assert_eq!(batch.after.position, ends[1]);

        let log = directory.path().join("resumed");
        let ends = write(&log, records.into_iter().chain([record(&Step::Row(1), 1)]));
        let batch = Cursor::new(log, Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
        assert_eq!(batch.after.exit, None);
        assert_eq!((batch.after.position, batch.history.count), (ends[4], 2));
    }

    #[test]
    fn what_comes_late_is_taken_once_and_leaves_the_exit_as_it_is() {
        let exit = RecordType::Exit(proto::RunExitRecord { exit_code: 3, ..Default::default() });
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let records = [run_record(), record(&Step::Row(1), 0), exit, record(&Step::Stats, 4)];
        let ends = write(&log, records.clone());
        let batch = Cursor::new(log.clone(), Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
        assert_eq!((batch.events.count, batch.after.position), (1, ends[3]));
        // A later process reads on behind it, and knows how the run ended.
        let saved: Fold = serde_json::from_str(&serde_json::to_string(&batch.after).unwrap()).unwrap();
        let again = Cursor::new(log, saved.clone(), Base::default(), 1).next_batch(whole()).unwrap();
        assert_eq!((again.events.count, again.after.events_lines), (0, 1));
        assert_eq!(again.after.exit.map(|exit| exit.code), Some(3));

        let log = directory.path().join("resumed");
        write(&log, records.into_iter().chain([record(&Step::Row(1), 1)]));
        let batch = Cursor::new(log, saved, Base::default(), 1).next_batch(whole()).unwrap();
        assert_eq!((batch.after.exit, batch.history.count), (None, 1));
    }

    #[test]
    fn system_metrics_are_lines_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        write(&log, [run_record(), record(&Step::Stats, 4)]);
        let batch = Cursor::new(log, Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
        let mut held = Held::default();
        held.take(&batch);
        let expected = r#"{"_runtime":4.5,"_timestamp":1004.5,"_wandb":true,"system.cpu":1.5}"#;
        assert_eq!(held.events, [expected]);
    }

    #[test]
    fn the_last_step_is_in_the_summary_even_if_nobody_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        write(&log, [run_record(), record(&Step::Row(1), 0), record(&Step::Row(1), 9)]);
        let batch = Cursor::new(log, Fold::default(), Base::default(), 0).next_batch(whole()).unwrap();
        assert_eq!(*batch.after.summary(), Json::from([("_step", Json::from(Number::I64(9)))]));
        assert_eq!(batch.after.revisions.summary, 1);
    }
}

//! What `--json` prints: one object for each run as it ends, one for the whole command last.
//!
//! Scripts depend on these fields, which `docs/json.md` lists. Add some; never rename or remove one.

use serde::Serialize;

use super::text::{counted, on_one_line, size};
use crate::artifact::Attached;
use crate::model::{Kinds, Skipped};

/// One line of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Report {
    /// A run ended.
    Run(RunReport),
    /// The command ended.
    Summary(SummaryReport),
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    /// The directory or log that it was read from, as it was named.
    pub source: String,
    /// The run's id.
    pub run_id: String,
    /// entity/project/id, with what is known of the first two.
    pub run_path: String,
    /// The name that people see.
    pub name: String,
    /// The group, where there is one.
    pub group: Option<String>,
    /// The run directory, where there is one.
    pub dir: Option<String>,
    /// The run's page, when the server has it.
    pub url: Option<String>,
    /// History rows that this command recorded or sent.
    pub rows: u64,
    /// Values of event files that this command carried into these rows; skipped ones are counted below instead.
    pub events: u64,
    /// What became of the values of event files, by kind.
    #[serde(skip_serializing_if = "Kinds::is_empty")]
    pub kinds: Kinds,
    /// Run files that this command sent.
    pub files: u64,
    /// Run files that this command recorded, or would record in a dry run.
    pub run_files: u64,
    /// Their bytes.
    pub run_file_bytes: u64,
    /// By how many bytes the log grew, or would grow.
    pub log_bytes: u64,
    /// In a dry run, the rows that were recorded before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows_before: Option<u64>,
    /// Artifacts of the log that this command brought.
    pub artifacts: u64,
    /// What was attached because of `--artifact`, or would be in a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<AttachedReport>,
    /// What was skipped, by reason; damage of earlier passes too, as long as it is in the files.
    pub skipped: Vec<Skipped>,
    /// How far it came.
    pub state: RunState,
    /// Why it came no further.
    pub error: Option<String>,
}

impl RunReport {
    /// A run of which nothing is known yet, and with which nothing was done.
    pub fn new(source: String, run_id: String) -> Self {
        Self {
            source,
            run_id,
            run_path: String::new(),
            name: String::new(),
            group: None,
            dir: None,
            url: None,
            rows: 0,
            events: 0,
            kinds: Kinds::default(),
            files: 0,
            run_files: 0,
            run_file_bytes: 0,
            log_bytes: 0,
            rows_before: None,
            artifacts: 0,
            attached: Vec::new(),
            skipped: Vec::new(),
            state: RunState::Offline,
            error: None,
        }
    }
}

/// A version of an artifact that was made of files beside a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedReport {
    /// The artifact's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many files it has.
    pub files: u64,
    /// How many bytes these have.
    pub bytes: u64,
    /// Whether it is the version that was recorded, or sent, before.
    pub known: bool,
}

impl From<&Attached> for AttachedReport {
    fn from(attached: &Attached) -> Self {
        let Attached { kind, name, files, bytes, known, .. } = attached.clone();
        Self { kind, name, files, bytes, known }
    }
}

impl AttachedReport {
    /// What a dry run says of it.
    pub fn line(&self) -> String {
        let known = if self.known { "; known already" } else { "" };
        format!(
            "  artifact `{}` ({}): {}, {}{known}\n",
            on_one_line(&self.name),
            on_one_line(&self.kind),
            counted(self.files, "file"),
            size(self.bytes)
        )
    }
}

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Recorded, because nobody wanted it uploaded.
    Offline,
    /// All of it is acknowledged by the server.
    Synced,
    /// Something that was whole in the files is not on the server.
    Partial,
    /// It did not get anywhere.
    Failed,
    /// Left out: not chosen, or done already.
    Skipped,
    /// All that is there is acknowledged, and more is expected.
    Running,
}

/// What became of the whole command.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SummaryReport {
    /// All runs.
    pub runs: u64,
    /// Their rows.
    pub rows: u64,
    /// Their values.
    pub events: u64,
    /// Bytes of input that were read.
    pub bytes: u64,
    /// What became of the values of event files, by kind.
    #[serde(skip_serializing_if = "Kinds::is_empty")]
    pub kinds: Kinds,
    /// Run files that were sent.
    pub files: u64,
    /// Artifacts of logs that were brought.
    pub artifacts: u64,
    /// Run files that were recorded, or would be in a dry run.
    pub run_files: u64,
    /// Their bytes.
    pub run_file_bytes: u64,
    /// By how many bytes the logs grew, or would grow.
    pub log_bytes: u64,
    /// What was skipped, by reason, over all runs.
    pub skipped: Vec<Skipped>,
    /// Runs in this state.
    pub synced: u64,
    /// Runs in this state.
    pub partial: u64,
    /// Runs in this state.
    pub failed: u64,
    /// Runs in this state.
    pub offline: u64,
    /// Runs in this state.
    pub running: u64,
    /// Runs in the state `skipped`: they are among `runs`, unlike those that were done before.
    pub skipped_runs: u64,
    /// How long it took.
    pub seconds: f64,
    /// What the program ends with.
    pub exit_code: u8,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_fields_are_those_of_the_design() {
        let skipped =
            vec![Skipped { reason: "damaged record".to_owned(), count: 1, first: "f at 3".to_owned(), loss: true }];
        let run = RunReport {
            source: "logs/a".to_owned(),
            run_id: "ab12".to_owned(),
            run_path: "me/p/ab12".to_owned(),
            name: "a".to_owned(),
            group: None,
            dir: Some("wandb/offline-run-20260714_000000-ab12".to_owned()),
            url: None,
            rows: 2,
            events: 3,
            kinds: Kinds::default(),
            files: 0,
            run_files: 0,
            run_file_bytes: 0,
            log_bytes: 5,
            rows_before: None,
            artifacts: 0,
            attached: Vec::new(),
            skipped: skipped.clone(),
            state: RunState::Partial,
            error: None,
        };
        insta::assert_snapshot!(serde_json::to_string(&Report::Run(run)).unwrap(), @r#"{"type":"run","source":"logs/a","run_id":"ab12","run_path":"me/p/ab12","name":"a","group":null,"dir":"wandb/offline-run-20260714_000000-ab12","url":null,"rows":2,"events":3,"files":0,"run_files":0,"run_file_bytes":0,"log_bytes":5,"artifacts":0,"skipped":[{"reason":"damaged record","count":1,"first":"f at 3","loss":true}],"state":"partial","error":null}"#);
        let summary = SummaryReport {
            runs: 1,
            rows: 2,
            events: 3,
            kinds: Kinds::default(),
            bytes: 4,
            files: 0,
            artifacts: 0,
            run_files: 0,
            run_file_bytes: 0,
            log_bytes: 5,
            skipped,
            synced: 0,
            partial: 1,
            failed: 0,
            offline: 0,
            running: 0,
            skipped_runs: 0,
            seconds: 1.5,
            exit_code: 3,
        };
        insta::assert_snapshot!(serde_json::to_string(&Report::Summary(summary)).unwrap(), @r#"{"type":"summary","runs":1,"rows":2,"events":3,"bytes":4,"files":0,"artifacts":0,"run_files":0,"run_file_bytes":0,"log_bytes":5,"skipped":[{"reason":"damaged record","count":1,"first":"f at 3","loss":true}],"synced":0,"partial":1,"failed":0,"offline":0,"running":0,"skipped_runs":0,"seconds":1.5,"exit_code":3}"#);
    }
}

//! All runs and logs together: the last object of `--json`, and the last lines.

use std::collections::BTreeMap;

use serde::Serialize;

use super::limits::{Estimate, Limits};
use super::log::LogSeen;
use super::seen::{KindSeen, RunSeen};
use crate::commands::error::ExitCode;
use crate::model::{Skipped, Skips};

/// All together.
#[derive(Debug, Default, Serialize)]
#[serde(tag = "type", rename = "summary")]
pub(super) struct SummarySeen {
    pub(super) runs: u64,
    pub(super) logs: u64,
    /// Runs whose log was deleted after it had arrived.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) cleaned: u64,
    pub(super) files: u64,
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) kinds: BTreeMap<String, KindSeen>,
    pub(super) limits: Limits,
    /// What an import of the runs takes, if nothing of them is recorded yet.
    pub(super) estimate: Estimate,
    pub(super) skipped: Vec<Skipped>,
    pub(super) exit_code: u8,
    #[serde(skip)]
    skips: Skips,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl SummarySeen {
    pub(super) fn add_run(&mut self, run: &RunSeen) {
        self.runs += 1;
        self.files += run.files.len() as u64;
        self.events += run.events;
        self.rows += run.rows;
        self.bytes += run.bytes;
        for (kind, seen) in &run.kinds {
            let sum = self.kinds.entry(kind.clone()).or_default();
            sum.count.add(&seen.count);
            sum.bytes += seen.bytes;
        }
        self.estimate.add(&run.estimate);
        self.limits.merge(&run.limits);
        self.skips.merge(&run.skips);
    }

    pub(super) fn add_log(&mut self, log: &LogSeen) {
        self.logs += 1;
        self.files += 1;
        self.rows += log.rows;
        self.bytes += log.bytes;
        self.limits.merge(&log.limits);
        self.skips.merge(&log.skips);
    }

    /// Adds what was skipped outside of any run.
    pub(super) fn add_skips(&mut self, skips: &Skips) {
        self.skips.merge(skips);
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> ExitCode {
        let code = if self.skips.any_loss() { ExitCode::Partial } else { ExitCode::Success };
        self.skipped = self.skips.report();
        self.exit_code = code.number();
        code
    }
}

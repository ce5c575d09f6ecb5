//! Rows of all sources become the updates of one run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::convert::keys::metric_name;
use crate::convert::rows::SourceRow;
use crate::model::{Exit, Json, MetricDefinition, Number, Row, RowValue, RunUpdate, SummaryItem};

/// What must be known to go on with a run: saved with every commit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunState {
    /// How many rows the log holds: the `_step` of the next one.
    pub rows: u64,
    /// Wall time of the run's first event, seconds since the Unix epoch.
    pub started_at: f64,
    /// The longest `_runtime` so far, in seconds.
    pub runtime: f64,
    /// Every metric that is defined, with its axis.
    pub metrics: BTreeMap<String, String>,
}

/// Turns merged rows into updates: definitions before first use, rows counted, the summary kept.
#[derive(Debug)]
pub struct RunConverter {
    state: RunState,
    summary: HashMap<Arc<str>, Last>,
    /// Keys whose summary value is newer than the last SummaryRecord.
    changed: Vec<Arc<str>>,
    last_timestamp: f64,
    repeated: u64,
}

#[derive(Debug)]
struct Last {
    value: RowValue,
    highest_step: i64,
    changed: bool,
    /// Whether its axis is known to the run.
    defined: bool,
}

impl RunConverter {
    /// Goes on from a saved state, or from a default one with `started_at` set.
    pub fn new(state: RunState) -> Self {
        Self { state, summary: HashMap::new(), changed: Vec::new(), last_timestamp: 0.0, repeated: 0 }
    }

    /// What to save with a commit.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Values, in this process, at a step that is not above an earlier one of the same metric: restarts, several
    /// writers, or a writer that gives no steps. They are rows all the same, but a chart shows them twice.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Gives a row its place in the run.
    pub fn row(&mut self, row: SourceRow, mut out: impl FnMut(RunUpdate)) {
        for (key, number) in &row.values {
            self.value(key, number, &row, &mut out);
        }
        let runtime = (row.timestamp - self.state.started_at).clamp(0.0, f64::MAX);
        self.state.runtime = self.state.runtime.max(runtime);
        self.last_timestamp = row.timestamp;
        let index = self.state.rows;
        self.state.rows += 1;
        out(RunUpdate::Row(Row {
            index,
            timestamp: row.timestamp,
            runtime,
            axis_value: row.axis_value,
            axis: row.axis,
            values: row.values,
        }));
    }

    fn value(&mut self, key: &Arc<str>, value: &RowValue, row: &SourceRow, out: &mut impl FnMut(RunUpdate)) {
        if let Some(last) = self.summary.get_mut(key) {
            last.value.clone_from(value);
            if row.axis_value <= last.highest_step {
                self.repeated += 1;
            } else {
                last.highest_step = row.axis_value;
            }
            if !last.changed {
                last.changed = true;
                self.changed.push(key.clone());
            }
            if last.defined || !matches!(value, RowValue::Number(_)) {
                return;
            }
            last.defined = true;
        } else {
            let defined = matches!(value, RowValue::Number(_));
            let last = Last { value: value.clone(), highest_step: row.axis_value, changed: true, defined };
            self.summary.insert(key.clone(), last);
            self.changed.push(key.clone());
            if !defined {
                return;
            }
        }
        self.define(key, row, out);
    }

    /// Numbers are charted on their axis; what is no number has no axis to be charted on.
    #[cold]
    fn define(&mut self, key: &Arc<str>, row: &SourceRow, out: &mut impl FnMut(RunUpdate)) {
        if self.state.metrics.contains_key(&**key) {
            return;
        }
        if !self.state.metrics.contains_key(&*row.axis) {
            self.state.metrics.insert(row.axis.to_string(), String::new());
            out(RunUpdate::Metric(MetricDefinition { name: Arc::from(metric_name(&row.axis)), step_metric: None }));
        }
        self.state.metrics.insert(key.to_string(), row.axis.to_string());
        out(RunUpdate::Metric(MetricDefinition {
            name: Arc::from(metric_name(key)),
            step_metric: Some(row.axis.clone()),
        }));
    }

    /// The summary values that changed since the last commit; `None` when no row came. A log carries them because
    /// `wandb sync` computes no summary from history.
    pub fn commit(&mut self) -> Option<RunUpdate> {
        if self.changed.is_empty() {
            return None;
        }
        let mut items = Vec::with_capacity(self.changed.len() + 4);
        for key in self.changed.drain(..) {
            if let Some(last) = self.summary.get_mut(&key) {
                last.changed = false;
                items.push(SummaryItem { path: vec![key.to_string()], value: last.value.to_json() });
            }
        }
        let last_step = i64::try_from(self.state.rows).unwrap_or(i64::MAX) - 1;
        let own = |key: &str, value: Json| SummaryItem { path: vec![key.to_owned()], value };
        items.push(own("_step", Json::from(last_step)));
        items.push(own("_timestamp", Json::Number(Number::F64(self.last_timestamp))));
        items.push(own("_runtime", Json::Number(Number::F64(self.state.runtime))));
        items.push(SummaryItem {
            path: vec!["_wandb".to_owned(), "runtime".to_owned()],
            value: Json::from(i64::from(self.whole_seconds())),
        });
        Some(RunUpdate::Summary(items))
    }

    /// How the run ends, if it ends now.
    pub fn exit(&self, code: i32) -> Exit {
        Exit { code, runtime: self.whole_seconds() }
    }

    fn whole_seconds(&self) -> i32 {
        // Saturates: a run of more than 68 years has a broken clock somewhere.
        self.state.runtime as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;

    fn row(step: i64, timestamp: f64, values: &[(&str, f32)]) -> SourceRow {
        SourceRow {
            axis: Arc::from("global_step"),
            axis_value: step,
            timestamp,
            order: WallTime::new(timestamp).expect("finite"),
            values: values.iter().map(|(key, value)| (Arc::from(*key), Number::F32(*value).into())).collect(),
            parts: Vec::new(),
            events: 1,
            resume_at: None,
        }
    }

    #[test]
    fn definitions_come_once_and_before_use() {
        let mut converter = RunConverter::new(RunState { started_at: 100.0, ..RunState::default() });
        let mut updates = Vec::new();
        converter.row(row(5, 101.0, &[("a.b", 1.0)]), |update| updates.push(update));
        converter.row(row(6, 102.5, &[("a.b", 2.0), ("c", 3.0)]), |update| updates.push(update));
        let print = |update: &RunUpdate| match update {
            RunUpdate::Metric(metric) => format!("{} on {:?}", metric.name, metric.step_metric.as_deref()),
            RunUpdate::Row(row) => format!("row {} at {}", row.index, row.runtime),
            other => format!("{other:?}"),
        };
        assert_eq!(
            updates.iter().map(print).collect::<Vec<_>>(),
            [
                "global_step on None",
                "a\\.b on Some(\"global_step\")",
                "row 0 at 1",
                "c on Some(\"global_step\")",
                "row 1 at 2.5",
            ]
        );
        // A later process defines nothing again.
        let mut later = RunConverter::new(converter.state().clone());
        let mut updates = Vec::new();
        later.row(row(7, 90.0, &[("c", 1.0)]), |update| updates.push(update));
        assert_eq!(updates.iter().map(print).collect::<Vec<_>>(), ["row 2 at 0"]);
    }

    #[test]
    fn the_summary_holds_what_changed() {
        let mut converter = RunConverter::new(RunState::default());
        converter.row(row(1, 3.5, &[("a", 1.0), ("b", f32::NAN)]), drop);
        converter.row(row(2, 4.0, &[("a", 2.0)]), drop);
        let print = |update: Option<RunUpdate>| match update {
            Some(RunUpdate::Summary(items)) => {
                items.iter().map(|item| format!("{}={}", item.path.join("."), item.value)).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        assert_eq!(print(converter.commit()), "a=2 b=NaN _step=1 _timestamp=4 _runtime=4 _wandb.runtime=4");
        assert_eq!(print(converter.commit()), "None");
        converter.row(row(2, 5.0, &[("a", 3.0)]), drop);
        assert_eq!(print(converter.commit()), "a=3 _step=2 _timestamp=5 _runtime=5 _wandb.runtime=5");
        assert_eq!(converter.repeated(), 1);
        assert_eq!(converter.exit(0), Exit { code: 0, runtime: 5 });
    }
}

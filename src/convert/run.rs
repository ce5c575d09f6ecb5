//! Rows of all sources become the updates of one run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::convert::keys::metric_name;
use crate::convert::rows::SourceRow;
use crate::convert::summaries::{Running, SummaryRule, wanted};
use crate::model::{Exit, Json, MetricDefinition, MetricSummary, Number, Row, RowValue, RunUpdate, SummaryItem};

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
    /// The highest step of every key that rows hold.
    #[serde(default)]
    pub steps: BTreeMap<String, i64>,
    /// The numbers of the metrics whose summary is more than the latest value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub summaries: BTreeMap<String, Running>,
}

/// Turns merged rows into updates: definitions before first use, rows counted, the summary kept.
#[derive(Debug)]
pub struct RunConverter {
    state: RunState,
    rules: Vec<SummaryRule>,
    summary: HashMap<Arc<str>, Last>,
    /// Keys whose summary value is newer than the last SummaryRecord.
    changed: Vec<Arc<str>>,
    last_timestamp: f64,
    repeated: u64,
}

#[derive(Debug)]
struct Last {
    value: RowValue,
    /// All numbers so far, where the summary is more than the latest value.
    running: Option<Box<(MetricSummary, Running)>>,
    highest_step: i64,
    changed: bool,
    /// Whether its axis is known to the run.
    defined: bool,
}

impl RunConverter {
    /// Goes on from a saved state, or from a default one with `started_at` set. `rules` are those by which the state was
    /// made.
    pub fn new(state: RunState, rules: Vec<SummaryRule>) -> Self {
        Self { state, rules, summary: HashMap::new(), changed: Vec::new(), last_timestamp: 0.0, repeated: 0 }
    }

    /// The metrics of which other rules want another summary.
    pub fn metrics_summarized_anew(&self, rules: &[SummaryRule]) -> Vec<String> {
        let metrics = self.state.metrics.iter().filter(|(_, axis)| !axis.is_empty()).map(|(key, _)| key);
        metrics.filter(|key| wanted(&self.rules, key) != wanted(rules, key)).cloned().collect()
    }

    /// Takes other rules for the summary. `numbers` are all numbers so far of the metrics for which that makes a
    /// difference. Nothing was read in this process yet.
    pub fn summarize_anew(
        &mut self,
        rules: Vec<SummaryRule>,
        numbers: BTreeMap<String, Running>,
        mut out: impl FnMut(RunUpdate),
    ) {
        self.rules = rules;
        let mut items = Vec::with_capacity(numbers.len());
        for (key, running) in numbers {
            let summary = wanted(&self.rules, &key);
            let axis = self.state.metrics.get(&key).map(|axis| Arc::from(axis.as_str()));
            let name = Arc::from(metric_name(&key));
            out(RunUpdate::Metric(MetricDefinition { name, step_metric: axis, summary, anew: true }));
            // A null takes the value out.
            items.push(SummaryItem { path: vec![key.clone()], value: running.value(summary).unwrap_or_default() });
            match summary {
                Some(_) => self.state.summaries.insert(key, running),
                None => self.state.summaries.remove(&key),
            };
        }
        if !items.is_empty() {
            out(RunUpdate::Summary(items));
        }
    }

    /// What to save with a commit.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Values, read in this process, at a step that is not above an earlier one of the same metric: restarts, several
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
            last.take(value);
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
            let highest = self.state.steps.get(&**key).copied();
            self.repeated += u64::from(highest.is_some_and(|highest| row.axis_value <= highest));
            let running = wanted(&self.rules, key)
                .map(|wanted| Box::new((wanted, self.state.summaries.get(&**key).cloned().unwrap_or_default())));
            let highest_step = highest.map_or(row.axis_value, |highest| highest.max(row.axis_value));
            let mut last = Last { value: value.clone(), running, highest_step, changed: true, defined };
            last.take(value);
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
            let name = Arc::from(metric_name(&row.axis));
            out(RunUpdate::Metric(MetricDefinition { name, step_metric: None, summary: None, anew: false }));
        }
        self.state.metrics.insert(key.to_string(), row.axis.to_string());
        out(RunUpdate::Metric(MetricDefinition {
            name: Arc::from(metric_name(key)),
            step_metric: Some(row.axis.clone()),
            summary: wanted(&self.rules, key),
            anew: false,
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
                set(&mut self.state.steps, &key, last.highest_step);
                if let Some(running) = &last.running {
                    set(&mut self.state.summaries, &key, running.1.clone());
                }
                if let Some(value) = last.summary() {
                    items.push(SummaryItem { path: vec![key.to_string()], value });
                }
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

impl Last {
    fn take(&mut self, value: &RowValue) {
        self.value.clone_from(value);
        if let (Some(running), RowValue::Number(number)) = (&mut self.running, value) {
            running.1.add(*number);
        }
    }

    /// What the summary holds; `None` where it is to hold nothing. What is no number has a latest value only.
    fn summary(&self) -> Option<Json> {
        match (&self.running, &self.value) {
            (Some(running), RowValue::Number(_)) => running.1.value(Some(running.0)),
            (Some(running), RowValue::Histogram(_) | RowValue::Json(_)) if running.0.none => None,
            _ => Some(self.value.to_json()),
        }
    }
}

/// Most keys are there already, and need no new text.
fn set<T>(map: &mut BTreeMap<String, T>, key: &str, value: T) {
    match map.get_mut(key) {
        Some(place) => *place = value,
        None => drop(map.insert(key.to_owned(), value)),
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
        let mut converter = RunConverter::new(RunState { started_at: 100.0, ..RunState::default() }, Vec::new());
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
        let mut later = RunConverter::new(converter.state().clone(), Vec::new());
        let mut updates = Vec::new();
        later.row(row(7, 90.0, &[("c", 1.0)]), |update| updates.push(update));
        assert_eq!(updates.iter().map(print).collect::<Vec<_>>(), ["row 2 at 0"]);
    }

    #[test]
    fn the_summary_holds_what_changed() {
        let mut converter = RunConverter::new(RunState::default(), Vec::new());
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
        // A later process knows which steps were passed.
        let mut later = RunConverter::new(converter.state().clone(), Vec::new());
        later.row(row(2, 6.0, &[("a", 4.0), ("c", 1.0)]), drop);
        later.row(row(3, 6.0, &[("a", 4.0)]), drop);
        assert_eq!(later.repeated(), 1);
    }

    #[test]
    fn rules_shape_the_summary_and_its_definition() {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a rule")).collect::<Vec<_>>();
        let print = |update: &RunUpdate| match update {
            RunUpdate::Metric(metric) => format!("define {}{:?}", metric.name, metric.summary.map(|wanted| wanted.min)),
            RunUpdate::Summary(items) => items.iter().map(|item| format!("{}={} ", item.path[0], item.value)).collect(),
            other => format!("{other:?}"),
        };
        let first = rules(&["a=min,max", "b=none"]);
        let mut converter = RunConverter::new(RunState::default(), first.clone());
        let mut updates = Vec::new();
        converter.row(row(1, 1.0, &[("a", 3.0), ("b", 1.0), ("c", 1.0)]), |update| updates.push(update));
        let expected = ["define global_stepNone", "define aSome(true)", "define bSome(false)", "define cNone"];
        assert_eq!(updates.iter().take(4).map(print).collect::<Vec<_>>(), expected);
        let summary = print(&converter.commit().expect("a summary"));
        assert!(summary.starts_with(r#"a={"max":3,"min":3} c=1 _step"#), "{summary}");

        // Another process goes on.
        let mut converter = RunConverter::new(converter.state().clone(), first);
        converter.row(row(2, 2.0, &[("a", 5.0)]), drop);
        let summary = print(&converter.commit().expect("a summary"));
        assert!(summary.starts_with(r#"a={"max":5,"min":3} _step"#), "{summary}");

        // And a third wants something else.
        let other = rules(&["b=min", "c=none"]);
        let mut converter = RunConverter::new(converter.state().clone(), rules(&["a=min,max", "b=none"]));
        assert_eq!(converter.metrics_summarized_anew(&other), ["a", "b", "c"]);
        let running = |values: &[f32]| {
            let mut running = Running::default();
            values.iter().for_each(|value| running.add(Number::F32(*value)));
            running
        };
        let numbers = [("a", [3.0, 5.0].as_slice()), ("b", &[1.0]), ("c", &[1.0])];
        let numbers = numbers.into_iter().map(|(key, values)| (key.to_owned(), running(values))).collect();
        let mut updates = Vec::new();
        converter.summarize_anew(other, numbers, |update| updates.push(update));
        let expected = ["define aNone", "define bSome(true)", "define cSome(false)", r#"a=5 b={"min":1} c=null "#];
        assert_eq!(updates.iter().map(print).collect::<Vec<_>>(), expected);
        assert_eq!(converter.state().summaries.keys().collect::<Vec<_>>(), ["b", "c"]);
    }
}

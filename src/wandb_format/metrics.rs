//! What metric records say together, in the form that a run's config carries it (`_wandb.m`).
//!
//! Promises the official client's list but for its order, which there is arbitrary and here sorted. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::Json;
use crate::proto::wandb_internal::{MetricRecord, MetricSummary};

/// A fold of metric records. Serialized, it can be kept between two uploads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Metrics {
    exact: BTreeMap<String, Definition>,
    globs: BTreeMap<String, Definition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Definition {
    #[serde(skip_serializing_if = "String::is_empty")]
    step: String,
    /// Numbers of the options that are on.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    options: BTreeSet<u8>,
    /// Numbers of the summaries that are wanted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    summary: BTreeSet<u8>,
    #[serde(skip_serializing_if = "is_zero")]
    goal: i32,
}

impl Metrics {
    /// Adds a record: it is merged with what is known of its metric, or replaces that when it says so.
    pub fn add(&mut self, record: &MetricRecord) {
        // Older clients wrote what they made of a glob themselves. The glob says it, and the server makes the same of it.
        if record.expanded_from_glob {
            return;
        }
        let (metrics, name) = match (record.name.as_str(), record.glob_name.as_str()) {
            ("", "") => return,
            ("", glob) => (&mut self.globs, glob),
            (name, _) => (&mut self.exact, name),
        };
        let definition = metrics.entry(name.to_owned()).or_default();
        if record.control.is_some_and(|control| control.overwrite) {
            *definition = Definition::default();
        }
        definition.merge(record);
    }

    /// Whether nothing was defined.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    /// The value of `_wandb.m`. The axis of every metric has an entry, whether it was defined or not.
    pub fn to_json(&self) -> Json {
        let undefined = Definition::default();
        // A metric and a glob of the same name have only one place, and the metric comes first.
        let mut entries: BTreeMap<&str, (&Definition, Kind)> = BTreeMap::new();
        for (name, definition) in &self.exact {
            entries.insert(name, (definition, Kind::Exact));
        }
        for (name, definition) in &self.globs {
            entries.entry(name).or_insert((definition, Kind::Glob));
        }
        for definition in
            self.exact.values().chain(self.globs.values()).filter(|definition| !definition.step.is_empty())
        {
            entries.entry(&definition.step).or_insert((&undefined, Kind::Exact));
        }
        let index: BTreeMap<&str, i64> = entries.keys().copied().zip(1..).collect();
        let encode = |(name, (definition, kind)): (&&str, &(&Definition, Kind))| {
            let numbers = |numbers: &BTreeSet<u8>| {
                Json::Array(numbers.iter().map(|number| Json::from(i64::from(*number))).collect())
            };
            let mut members = BTreeMap::new();
            let number_of_name = match kind {
                Kind::Exact => "1",
                Kind::Glob => "2",
            };
            members.insert(number_of_name.to_owned(), Json::from(*name));
            if let Some(index) = index.get(definition.step.as_str()).filter(|_| !definition.step.is_empty()) {
                members.insert("5".to_owned(), Json::from(*index));
            }
            members.insert("6".to_owned(), numbers(&definition.options));
            members.insert("7".to_owned(), numbers(&definition.summary));
            if definition.goal != 0 {
                members.insert("8".to_owned(), Json::from(i64::from(definition.goal)));
            }
            Json::Object(members)
        };
        Json::Array(entries.iter().map(encode).collect())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Exact,
    Glob,
}

const STEP_SYNC: u8 = 1;
const HIDDEN: u8 = 2;
const DEFINED: u8 = 3;
const NO_SUMMARY: u8 = 6;

impl Definition {
    fn merge(&mut self, record: &MetricRecord) {
        let options = record.options.unwrap_or_default();
        let on = [(STEP_SYNC, options.step_sync), (HIDDEN, options.hidden), (DEFINED, !record.name.is_empty())];
        self.options.extend(on.iter().filter(|(_, on)| *on).map(|(number, _)| *number));
        if !record.step_metric.is_empty() {
            self.step.clone_from(&record.step_metric);
        }
        if let Some(summary) = &record.summary {
            // Everything accumulates but this one, which the latest record decides.
            self.summary.remove(&NO_SUMMARY);
            self.summary.extend(wanted(summary));
        }
        if record.goal != 0 {
            self.goal = record.goal;
        }
    }
}

/// `best` and `copy` are obsolete and ignored.
fn wanted(summary: &MetricSummary) -> impl Iterator<Item = u8> {
    let wanted = [
        (1, summary.min),
        (2, summary.max),
        (3, summary.mean),
        (5, summary.last),
        (NO_SUMMARY, summary.none),
        (8, summary.first),
    ];
    wanted.into_iter().filter(|(_, on)| *on).map(|(number, _)| number)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(goal: &i32) -> bool {
    *goal == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proto::wandb_internal::{MetricControl, MetricOptions};

    fn exact(name: &str, step: &str) -> MetricRecord {
        let options = Some(MetricOptions { defined: true, ..MetricOptions::default() });
        MetricRecord { name: name.into(), step_metric: step.into(), options, ..MetricRecord::default() }
    }

    fn check(records: &[MetricRecord], expected: &str) {
        let mut metrics = Metrics::default();
        assert!(metrics.is_empty());
        for record in records {
            let kept = serde_json::to_string(&metrics).unwrap();
            metrics = serde_json::from_str(&kept).unwrap();
            metrics.add(record);
        }
        assert_eq!(metrics.to_json().to_string(), expected);
    }

    #[test]
    fn an_axis_has_an_entry_of_its_own() {
        check(
            &[exact("z", "global_step"), exact("a", "global_step")],
            r#"[{"1":"a","5":2,"6":[3],"7":[]},{"1":"global_step","6":[],"7":[]},{"1":"z","5":2,"6":[3],"7":[]}]"#,
        );
        check(&[], "[]");
        check(&[MetricRecord { step_metric: "x".into(), ..MetricRecord::default() }], "[]");
    }

    #[test]
    fn globs_are_told_apart() {
        let hidden =
            MetricRecord { options: Some(MetricOptions { hidden: true, ..Default::default() }), ..exact("epoch", "") };
        let glob = MetricRecord {
            glob_name: "val/*".into(),
            step_metric: "epoch".into(),
            options: Some(MetricOptions { step_sync: true, ..Default::default() }),
            summary: Some(MetricSummary { min: true, ..Default::default() }),
            ..MetricRecord::default()
        };
        check(&[hidden, glob], r#"[{"1":"epoch","6":[2,3],"7":[]},{"2":"val/*","5":1,"6":[1],"7":[1]}]"#);
    }

    #[test]
    fn definitions_add_up_until_one_starts_anew() {
        let summary = |summary: MetricSummary| MetricRecord { summary: Some(summary), ..exact("a", "") };
        let min = || summary(MetricSummary { min: true, none: true, ..Default::default() });
        let max = || summary(MetricSummary { max: true, best: true, ..Default::default() });
        let goal = MetricRecord { goal: 1, ..exact("a", "") };
        check(&[min()], r#"[{"1":"a","6":[3],"7":[1,6]}]"#);
        check(&[min(), goal.clone(), max()], r#"[{"1":"a","6":[3],"7":[1,2],"8":1}]"#);
        let anew = MetricRecord { control: Some(MetricControl { overwrite: true }), ..max() };
        check(&[min(), goal, anew], r#"[{"1":"a","6":[3],"7":[2]}]"#);
    }
}

//! What the server is to hold of a run: its config and its summary, with what it had before the log.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::model::{Json, json_text};
use crate::upload::fold::Fold;

/// What a run had that is continued. What the log says itself comes before it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Inherited {
    /// The config, not wrapped.
    #[serde(with = "json_text")]
    pub(crate) config: Json,
    /// The summary.
    #[serde(with = "json_text")]
    pub(crate) summary: Json,
}

impl Fold {
    /// The whole config, each value wrapped as the server wants it.
    pub(crate) fn config_json(&self) -> Json {
        let Json::Object(members) = self.whole_config() else { return Json::object() };
        let wrap = |(key, value)| (key, Json::from([("value", value)]));
        Json::Object(members.into_iter().map(wrap).collect())
    }

    /// The config with our `_wandb` in it, not wrapped.
    pub(crate) fn whole_config(&self) -> Json {
        let mut config = self.config.clone();
        if let Json::Object(before) = &self.inherited.config {
            for (key, value) in before {
                if key == "_wandb" {
                    for chart in ["viz", "visualize", "mask/class_labels"] {
                        if let (Some(value), None) = (value.get(chart), config.get(key).and_then(|own| own.get(chart)))
                        {
                            config.set_path(&[key, chart], value.clone());
                        }
                    }
                } else if config.get(key).is_none() {
                    config.set_path(&[key.as_str()], value.clone());
                }
            }
        }
        let mut set = |key: &str, value: Json| config.set_path(&["_wandb", key], value);
        // Without `t` a run counts as never started.
        set("t", self.telemetry.to_json());
        set("m", self.metrics.to_json());
        for (key, value) in
            [("cli_version", self.telemetry.cli_version()), ("python_version", self.telemetry.python_version())]
        {
            if let Some(value) = value {
                set(key, Json::from(value));
            }
        }
        if let Some(environment) = self.environment() {
            let run_id = self.run.as_ref().map_or("", |run| run.run_id.as_str());
            let writer = environment.get("writerId").and_then(Json::as_str).unwrap_or(run_id).to_owned();
            config.set_path(&["_wandb", "e", &writer], environment);
        }
        config
    }

    /// The whole summary.
    pub(crate) fn summary(&self) -> Cow<'_, Json> {
        let mut summary = Cow::Borrowed(&self.summary);
        if let Json::Object(before) = &self.inherited.summary {
            for (key, value) in before {
                if self.summary.get(key).is_none() {
                    summary.to_mut().set_path(&[key.as_str()], value.clone());
                }
            }
        }
        let step = self.implied_step.map(Json::from).filter(|step| summary.get("_step") != Some(step));
        if let Some(step) = step {
            summary.to_mut().set_path(&["_step"], step);
        }
        summary
    }

    /// What the run had before.
    pub(crate) fn inherit(&mut self, inherited: Inherited) {
        self.inherited = inherited;
        self.revisions.config += 1;
        self.revisions.summary += 1;
    }

    /// Takes over the metrics that logs before this one defined, where it is only the end of what one process recorded.
    pub(crate) fn inherit_metrics(&mut self, before: &Self) {
        self.metrics.clone_from(&before.metrics);
    }

    /// The environment; `None` when the log says nothing about it.
    pub(crate) fn environment(&self) -> Option<Json> {
        Some(self.environment.to_json()).filter(|environment| *environment != Json::object())
    }
}

//! Are two runs the same, but for what must differ because two programs uploaded them?
//!
//! Pure but for config.yaml, which Python reads. Numbers are compared by value, never by how they were written.

use std::collections::{BTreeMap, BTreeSet};

use wandb_bridge::model::{Json, Number};

use super::python::script;
use super::server::RunSnapshot;

/// What is compared besides history, events, summary, config, exit code and descriptions.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Console lines, without the times in them.
    pub console: bool,
    pub files: bool,
    pub alerts: bool,
    /// Telemetry features that only one of the uploaders sets. 76 is the official sync.
    pub ignored_features: BTreeSet<i64>,
    /// Modules and environments in the telemetry that only one of the uploaders knows, by their numbers.
    pub ignored_telemetry: BTreeSet<i64>,
    /// Files that only one of the uploaders makes.
    pub ignored_files: BTreeSet<String>,
}

impl Default for Compared {
    fn default() -> Self {
        Self {
            console: false,
            files: true,
            alerts: true,
            ignored_features: BTreeSet::from([76]),
            ignored_telemetry: BTreeSet::new(),
            ignored_files: BTreeSet::new(),
        }
    }
}

/// Tells the first difference that there is between two runs.
pub fn same_run(a: &RunSnapshot, b: &RunSnapshot) -> Result<(), String> {
    same_run_but_for(a, b, &Compared::default())
}

/// The same, with a say in what is compared.
pub fn same_run_but_for(a: &RunSnapshot, b: &RunSnapshot, compared: &Compared) -> Result<(), String> {
    same("display name", &a.display_name, &b.display_name)?;
    same("group", &a.group, &b.group)?;
    same("job type", &a.job_type, &b.job_type)?;
    same("notes", &a.notes, &b.notes)?;
    same("tags", &a.tags, &b.tags)?;
    same("host", &a.host, &b.host)?;
    same("sweep", &a.sweep, &b.sweep)?;
    same("commit and repository", &(&a.commit, &a.repo), &(&b.commit, &b.repo))?;
    same_lines("history", &a.history, &b.history)?;
    same_lines("events", &a.events, &b.events)?;
    same_members("summary", &a.summary_value(), &b.summary_value())?;
    let config = |run: &RunSnapshot| steady_config(run.config_value(), compared);
    same_members("config", &config(a), &config(b))?;
    same("complete", &a.complete, &b.complete)?;
    same("exit code", &a.exit_code, &b.exit_code)?;
    same("status", &a.status, &b.status)?;
    if compared.console {
        let console = |run: &RunSnapshot| run.console.iter().map(|line| without_time(line)).collect::<Vec<_>>();
        same("console", &console(a), &console(b))?;
    }
    if compared.alerts {
        let alerts = |run: &RunSnapshot| run.alerts.iter().map(|alert| format!("{alert:?}")).collect::<Vec<_>>();
        same("alerts", &alerts(a), &alerts(b))?;
    }
    if compared.files {
        same_files(a, b, compared)?;
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b { Ok(()) } else { Err(format!("{what} differs:\n  {a:?}\n  {b:?}")) }
}

fn same_lines(what: &str, a: &[String], b: &[String]) -> Result<(), String> {
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        let value = |line: &str| Json::parse(line).map_err(|error| format!("{what} line {index}: {error}"));
        same_members(&format!("{what} line {index}"), &value(a)?, &value(b)?)?;
    }
    same(&format!("number of {what} lines"), &a.len(), &b.len())
}

/// The texts of values are compared: whole floats and integers have the same text, and NaN equals itself.
fn same_members(what: &str, a: &Json, b: &Json) -> Result<(), String> {
    if let (Some(a), Some(b)) = (a.as_object(), b.as_object()) {
        for key in a.keys().chain(b.keys()) {
            match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => same_members(&format!("{what}, `{key}`"), a, b)?,
                (Some(a), None) => return Err(format!("{what}: only the first has `{key}`: {a}")),
                (None, b) => {
                    return Err(format!("{what}: only the second has `{key}`: {}", b.cloned().unwrap_or_default()));
                }
            }
        }
        return Ok(());
    }
    same(what, &a.to_string(), &b.to_string())
}

/// The config without its shells, less what each uploader says of itself, and with lists in a steady order.
pub fn steady_config(config: Json, compared: &Compared) -> Json {
    let Json::Object(mut config) = config else { return config };
    if let Some(Json::Object(own)) = config.get_mut("_wandb") {
        own.remove("cli_version");
        if let Some(Json::Object(environments)) = own.get("e") {
            // The keys are ids of uploads, the values are what was recorded.
            let environments = sorted(environments.values().cloned().collect());
            own.insert("e".to_owned(), environments);
        }
        if let Some(Json::Object(telemetry)) = own.get_mut("t") {
            telemetry.remove("12");
            for (key, list) in telemetry.iter_mut() {
                if let Json::Array(items) = list {
                    let numbers = match key.as_str() {
                        "1" | "2" | "8" => &compared.ignored_telemetry,
                        "3" => &compared.ignored_features,
                        _ => &BTreeSet::new(),
                    };
                    let ignored = |item: &Json| matches!(item, Json::Number(Number::I64(it)) if numbers.contains(it));
                    *list = sorted(items.iter().filter(|item| !ignored(item)).cloned().collect());
                }
            }
            telemetry.retain(|_, value| *value != Json::Array(Vec::new()));
        }
        if let Some(Json::Array(metrics)) = own.get("m") {
            let metrics = steady_metrics(metrics);
            own.insert("m".to_owned(), metrics);
        }
    }
    Json::Object(config)
}

/// Metric definitions may come in any order, and refer to each other by place: here they do by name.
fn steady_metrics(metrics: &[Json]) -> Json {
    let name = |metric: &Json| metric.get("1").or_else(|| metric.get("2")).cloned().unwrap_or_default();
    let steady = |metric: &Json| {
        let Json::Object(mut members) = metric.clone() else { return metric.clone() };
        if let Some(Json::Number(Number::I64(place))) = members.get("5") {
            let axis = usize::try_from(*place - 1).ok().and_then(|place| metrics.get(place));
            members.insert("5".to_owned(), axis.map_or_else(|| Json::from("nothing"), name));
        }
        for list in ["6", "7"] {
            if let Some(Json::Array(items)) = members.get(list) {
                let items = sorted(items.clone());
                members.insert(list.to_owned(), items);
            }
        }
        Json::Object(members)
    };
    sorted(metrics.iter().map(steady).collect())
}

fn sorted(mut items: Vec<Json>) -> Json {
    items.sort_by_key(Json::to_string);
    Json::Array(items)
}

/// `[ERROR ]<time> text` without the time.
fn without_time(line: &str) -> String {
    let (level, rest) = line.strip_prefix("ERROR ").map_or(("", line), |rest| ("ERROR ", rest));
    format!("{level}{}", rest.split_once(' ').map_or("", |(_, text)| text))
}

fn same_files(a: &RunSnapshot, b: &RunSnapshot, compared: &Compared) -> Result<(), String> {
    let names = |run: &RunSnapshot| {
        run.files.keys().filter(|name| !compared.ignored_files.contains(*name)).cloned().collect::<BTreeSet<_>>()
    };
    same("names of files", &names(a), &names(b))?;
    for name in names(a) {
        let value = |run: &RunSnapshot| -> Result<Option<Json>, String> {
            Ok(match name.as_str() {
                "wandb-summary.json" | "wandb-metadata.json" => {
                    let value = Json::parse(&run.files[&name].text());
                    Some(value.map_err(|error| format!("`{name}`: {error}"))?)
                }
                "config.yaml" => Some(steady_config(without_shells(yaml(&run.files[&name].text())), compared)),
                _ => None,
            })
        };
        match (value(a)?, value(b)?) {
            (Some(first), Some(second)) => same_members(&format!("`{name}`"), &first, &second)?,
            _ => same(&format!("sha256 of `{name}`"), &a.files[&name].sha256, &b.files[&name].sha256)?,
        }
    }
    Ok(())
}

fn without_shells(config: Json) -> Json {
    let Json::Object(members) = config else { return config };
    Json::Object(
        members
            .into_iter()
            .map(|(key, shell)| (key, shell.get("value").cloned().unwrap_or_default()))
            .collect::<BTreeMap<_, _>>(),
    )
}

/// Reads YAML as JSON values.
pub fn yaml(text: &str) -> Json {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Json::parse(&script("yaml_to_json.py").arg(file.path()).run().ok().stdout).unwrap()
}

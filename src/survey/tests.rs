//! Directories as writers leave them, looked at.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use super::*;
use crate::proto::tensorboard::{Event, Summary, SummaryMetadata, event, summary, summary_metadata};
use crate::tfevents::write::write_event;

const EXPERIMENT: &str = "_hparams_/experiment";
/// What `add_hparams` writes.
const SESSION: &[&str] = &[EXPERIMENT, "_hparams_/session_start_info", "_hparams_/session_end_info", "hparam/loss"];

struct Logs(tempfile::TempDir);

impl Logs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(below)
    }

    /// Appends values to the one file of a directory; a new file begins with its version. The number is the second
    /// of the first event.
    fn write(&self, directory: &str, second: u32, tags: &[&str]) -> PathBuf {
        let path = self.path(directory).join(format!("events.out.tfevents.{:010}.h", second));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = Vec::new();
        if !path.exists() {
            let what = Some(event::What::FileVersion("brain.Event:2".into()));
            write_event(&mut bytes, &Event { wall_time: f64::from(second), what, ..Event::default() });
        }
        for tag in tags {
            let plugin = if tag.starts_with("_hparams_") { "hparams" } else { "" };
            let plugin_data = Some(summary_metadata::PluginData {
                plugin_name: plugin.into(),
                ..summary_metadata::PluginData::default()
            });
            let value = summary::Value {
                tag: (*tag).to_owned().into(),
                metadata: Some(SummaryMetadata { plugin_data, ..SummaryMetadata::default() }),
                value: plugin.is_empty().then_some(summary::value::Value::SimpleValue(1.0)),
                ..summary::Value::default()
            };
            let what = Some(event::What::Summary(Summary { value: vec![value] }));
            write_event(&mut bytes, &Event { wall_time: f64::from(second), what, ..Event::default() });
        }
        OpenOptions::new().create(true).append(true).open(&path).unwrap().write_all(&bytes).unwrap();
        path
    }

    fn look(&self) -> Found {
        self.look_with(&Shape::default())
    }

    fn look_with(&self, shape: &Shape) -> Found {
        Survey::new(shape, 0).look(&[self.path("")]).unwrap()
    }
}

/// `name in group: label…` for each run; the name of the temporary root is `~`.
fn runs(found: &Found) -> Vec<String> {
    let show = |run: &PlannedRun| {
        let directories: Vec<&str> = run.sources.iter().map(|source| source.directory.as_str()).collect();
        format!("{} in {}: {}", run.name(), run.group(), directories.join(" ")).replace(&run.root, "~")
    };
    found.runs.iter().map(show).collect()
}

fn filter(include: &[&str], exclude: &[&str]) -> Shape {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Shape { runs: RunFilter { include: patterns(include), exclude: patterns(exclude) }, ..Shape::default() }
}

#[test]
fn a_session_before_the_first_value_belongs_to_its_writer() {
    let logs = Logs::new();
    logs.write("run", 1, &[]);
    logs.write("run/1.5", 2, SESSION);
    assert_eq!(runs(&logs.look()), ["run in :  1.5"]);
    let id = logs.look().runs[0].id.clone();
    logs.write("run", 1, &["loss", "loss"]);
    assert_eq!(runs(&logs.look()), ["run in :  1.5"]);
    assert_eq!(logs.look().runs[0].id, id);
}

#[test]
fn sessions_of_a_writer_without_data_are_runs_of_their_own() {
    let logs = Logs::new();
    logs.write("sweep", 1, &[]);
    for (name, second) in [("2.5", 2), ("3.5", 3), ("10.5", 10)] {
        logs.write(&format!("sweep/{name}"), second, SESSION);
    }
    let found = logs.look();
    assert_eq!(runs(&found), ["sweep/10.5 in sweep: ", "sweep/2.5 in sweep: .. ", "sweep/3.5 in sweep: "]);
    // The first has the same id when it is looked at alone, and when its parent is.
    let alone = Survey::new(&Shape::default(), 0).look(&[logs.path("sweep/2.5")]).unwrap();
    assert_eq!(alone.runs[0].id, found.runs[1].id);
    let below = Survey::new(&Shape::default(), 0).look(&[logs.path("sweep")]).unwrap();
    assert_eq!(below.runs[1].id, found.runs[1].id);
    assert_eq!(below.runs.iter().map(PlannedRun::name).collect::<Vec<_>>(), ["sweep/10.5", "sweep/2.5", "sweep/3.5"]);
    assert!(below.runs.iter().all(|run| run.group() == "sweep"));
}

#[test]
fn an_experiment_described_in_the_root() {
    let logs = Logs::new();
    let described = logs.write("", 1, &[EXPERIMENT]);
    // Alone it makes no run: its sessions will.
    let found = logs.look();
    assert_eq!((found.runs.len(), found.waiting), (0, vec![described]));
    for name in ["run-0", "run-1"] {
        logs.write(name, 2, &["_hparams_/session_start_info", "accuracy", "accuracy"]);
    }
    assert_eq!(runs(&logs.look()), ["~/run-0 in ~: .. ", "~/run-1 in ~: "]);
    assert_eq!(logs.look().waiting, [""; 0].map(PathBuf::from));
    // And data makes it one.
    logs.write("", 1, &["best"]);
    assert_eq!(runs(&logs.look()), ["~ in : ", "~/run-0 in ~: ", "~/run-1 in ~: "]);
}

#[test]
fn a_writer_that_has_only_begun_waits() {
    let logs = Logs::new();
    logs.write("run", 1, &["loss"]);
    let session = logs.write("run/1.5", 2, &[]);
    let mut survey = Survey::new(&Shape::default(), 0);
    let mut look = || survey.look(&[logs.path("")]).unwrap();
    for tag in SESSION.iter().take(3) {
        let found = look();
        assert_eq!((runs(&found), found.waiting), (vec!["run in : ".to_owned()], vec![session.clone()]), "{tag}");
        logs.write("run/1.5", 2, &[tag]);
    }
    assert_eq!(runs(&look()), ["run in :  1.5"]);
    // A later session is a run of its own, and so is a run below that trains.
    logs.write("run/2.5", 3, SESSION);
    logs.write("run/other", 4, &[SESSION, SESSION].concat());
    assert_eq!(runs(&look()), ["run in :  1.5", "run/2.5 in run: ", "run/other in run: "]);
}

#[test]
fn the_beginning_is_read_on_where_it_stopped() {
    let logs = Logs::new();
    logs.write("run", 1, &["loss"]);
    logs.write("run/loss_a", 2, &["loss"]);
    let mut survey = Survey::new(&Shape::default(), 0);
    let mut look = || survey.look(&[logs.path("")]).unwrap();
    assert_eq!(look().runs.len(), 1);
    logs.write("run/loss_a", 2, &["loss"; 300]);
    assert_eq!(look().runs.len(), 1);
    logs.write("run/loss_a", 2, &["other"]);
    assert_eq!(look().runs.len(), 2);
}

#[test]
fn what_is_gone_is_forgotten() {
    let logs = Logs::new();
    logs.write("a", 1, &["loss"]);
    logs.write("a/b", 1, &["loss"]);
    let mut survey = Survey::new(&Shape::default(), 0);
    survey.look(&[logs.path("")]).unwrap();
    assert_eq!(survey.peeked.len(), 2);
    fs::remove_dir_all(logs.path("a")).unwrap();
    survey.look(&[logs.path("")]).unwrap();
    assert_eq!((survey.peeked.len(), survey.beginnings.len()), (0, 0));
}

#[test]
fn the_order_of_paths_changes_nothing() {
    let logs = Logs::new();
    logs.write("exp", 1, &["loss"]);
    logs.write("exp/train", 2, &["loss", "lr"]);
    let file = logs.write("other/run", 3, &["loss"]);
    let look = |paths: &[PathBuf]| {
        let found = Survey::new(&Shape::default(), 0).look(paths).unwrap();
        let mut runs: Vec<_> = found.runs.iter().map(|run| (run.name(), run.id.clone(), run.sources.len())).collect();
        runs.sort();
        runs
    };
    let paths = [logs.path("exp/train"), logs.path("exp"), file, logs.path("other")];
    let forward = look(&paths);
    assert_eq!(forward.iter().map(|run| (run.0.as_str(), run.2)).collect::<Vec<_>>(), [("exp", 2), ("other/run", 1)]);
    let mut backward = paths.to_vec();
    backward.reverse();
    assert_eq!(look(&backward), forward);
}

#[test]
fn filters_change_neither_names_nor_ids() {
    let logs = Logs::new();
    logs.write("exp/train", 1, &["loss"]);
    logs.write("exp/validation", 2, &["loss"]);
    let left_out = logs.write("other", 3, &["loss"]);
    let all = logs.look();
    assert_eq!(runs(&all), ["exp in : train validation", "other in : "]);
    let found = logs.look_with(&filter(&[], &["*/train", "other", "absent*"]));
    assert_eq!(runs(&found), ["exp in : validation"]);
    assert_eq!(found.runs[0].id, all.runs[0].id);
    assert_eq!(found.runs[0].tb_runs, ["exp/train", "exp/validation"]);
    assert_eq!(found.left_out.len(), 2);
    assert!(found.left_out.contains(&left_out));
    assert_eq!(found.idle_patterns, ["--exclude absent*"]);
    assert_eq!(runs(&logs.look_with(&filter(&["oth?r"], &[]))), ["other in : "]);
}

#[test]
fn runs_are_joined_across_roots_and_by_a_text_only() {
    let logs = Logs::new();
    for (directory, second) in [("x/logs/a-1", 1), ("x/logs/b", 2), ("y/logs/a-1", 3), ("y/logs/a-2", 4)] {
        logs.write(directory, second, &["loss"]);
    }
    let look = |join: &str| {
        let shape = Shape { join: Some(join.parse().unwrap()), ..Shape::default() };
        Survey::new(&shape, 0).look(&[logs.path("x/logs"), logs.path("y/logs")]).unwrap()
    };
    let labels = |found: &Found| {
        found
            .runs
            .iter()
            .map(|run| run.sources.iter().map(|source| source.directory.clone()).collect())
            .collect::<Vec<Vec<_>>>()
    };
    let all = look("all");
    assert_eq!(labels(&all), [["x/logs/a-1", "x/logs/b", "y/logs/a-1", "y/logs/a-2"]]);
    assert_eq!(all.runs[0].name(), "all");
    let by_directory = look("{path}");
    assert_eq!(labels(&by_directory), [vec!["x/logs/a-1", "y/logs/a-1"], vec!["b"], vec!["a-2"]]);
    // What the template says nothing about is not joined.
    let second = look("{2}");
    assert_eq!(second.runs.len(), 4);
    assert_eq!(second.runs[1].name(), "b");
}

//! Run ids: the same for the same logs, whatever path named them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::support::bridge::{Call, Place};
use crate::support::events::Writer;
use crate::support::official::copy_tree;

/// Ids by the directory that they were made from.
#[track_caller]
fn ids(call: Call) -> BTreeMap<String, String> {
    let ended = call.args(["--json", "--mode", "offline", "--dry-run"]).run().ok();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    ended.json_runs().iter().map(|run| (text(&run["source"]), text(&run["run_id"]))).collect()
}

/// Names by `import` with these paths, from that directory.
#[track_caller]
fn import(place: &Place, directory: &Path, paths: &[&str]) -> BTreeMap<String, String> {
    ids(place.call(["import"]).args(paths).directory(directory))
}

#[test]
fn the_path_does_not_matter() {
    let place = Place::new();
    place.fixture("torch", "logs");
    place.fixture("keras/epochs", "logs/keras");
    let here = place.path("");
    let logs = place.path("logs");
    let all = import(&place, &here, &["logs"]);
    assert_eq!(all.len(), 7);
    let children: Vec<String> =
        ["add_scalars", "keras", "ppo", "precise", "restarted"].map(|name| format!("logs/{name}")).into();
    let children: Vec<&str> = children.iter().map(String::as_str).collect();
    assert_eq!(import(&place, &here, &children), all);
    assert_eq!(import(&place, &logs, &["."]), all);
    assert_eq!(import(&place, &here, &["./logs/../logs/"]), all);
    assert_eq!(import(&place, &logs.join("ppo"), &[".."]), all);
    assert_eq!(import(&place, &here, &["logs", "logs/ppo"]), all);
    assert_eq!(import(&place, &here, &[logs.to_str().unwrap()]), all);
    for directory in ["add_scalars", "keras", "ppo/seed0", "precise", "restarted"] {
        let path = logs.join(directory);
        let one = import(&place, &here, &[path.to_str().unwrap()]);
        assert_eq!(one.len(), 1, "{directory}");
        assert_eq!(one.values().next(), all.get(path.to_str().unwrap()), "{directory}");
        assert_eq!(import(&place, &path, &["."]), one, "{directory}");
    }
    // A link to it, and the same logs elsewhere.
    std::os::unix::fs::symlink(&logs, place.path("link")).unwrap();
    let through_link: Vec<String> = import(&place, &here, &["link"]).into_values().collect();
    assert_eq!(through_link, all.values().cloned().collect::<Vec<_>>());
    fs::rename(&logs, place.path("moved")).unwrap();
    let moved: Vec<String> = import(&place, &here, &["moved"]).into_values().collect();
    assert_eq!(moved, all.values().cloned().collect::<Vec<_>>());
}

#[test]
fn names_do_not_depend_on_the_path_either() {
    let place = Place::new();
    place.fixture("torch/ppo", "logs/ppo");
    let names = |paths: &[&str], directory: &str| -> Vec<(String, Option<String>)> {
        let call = place.call(["import", "--json", "--mode", "offline", "--dry-run"]);
        let ended = call.args(paths).directory(&place.path(directory)).run().ok();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        ended.json_runs().iter().map(|run| (text(&run["name"]).unwrap(), text(&run["group"]))).collect()
    };
    let named = |name: &str, group: Option<&str>| (name.to_owned(), group.map(str::to_owned));
    assert_eq!(names(&["logs"], "")[0], named("ppo/seed0", Some("ppo")));
    assert_eq!(names(&["."], "logs")[0], named("ppo/seed0", Some("ppo")));
    assert_eq!(names(&["."], "logs/ppo")[0], named("seed0", None));
    assert_eq!(names(&["."], "logs/ppo/seed0"), [named("seed0", None)]);
}

#[test]
fn a_hundred_writers_that_began_together_are_a_hundred_runs() {
    let place = Place::new();
    let name = |number: usize| format!("logs/exp{number:03}");
    for number in 0..100 {
        // Same host, same second, same first record: only the directories differ.
        let mut writer = Writer::create(&place.path(&name(number)), "events.out.tfevents.1784016000.trainer-0");
        writer.scalars("loss", [(0, number as f32)]);
    }
    let here = place.path("");
    let all = import(&place, &here, &["logs"]);
    let distinct: BTreeSet<&String> = all.values().collect();
    assert_eq!((all.len(), distinct.len()), (100, 100));
    let path = place.path(&name(42));
    assert_eq!(import(&place, &here, &[&name(42)]).get(path.to_str().unwrap()), all.get(path.to_str().unwrap()));
    assert_eq!(import(&place, &path, &["."]).get(path.to_str().unwrap()), all.get(path.to_str().unwrap()));
    let some = import(&place, &here, &[&name(3), &name(4)]);
    assert!(some.iter().all(|(source, id)| all.get(source) == Some(id)));

    // Recorded, they stay a hundred, and each goes on by itself.
    let ended = place.import_offline(["logs"]).args(["--json", "-p", "p"]).run().ok();
    assert_eq!(ended.json_summary()["rows"], 100);
    assert!(ended.stderr.contains("begins like another directory"), "{}", ended.stderr);
    assert_eq!(place.logs().len(), 100);
    let ended = place.import_offline([name(42)]).arg("--json").run().ok();
    assert_eq!((ended.json_summary()["rows"].as_u64(), place.logs().len()), (Some(0), 100));
    let mut writer = Writer::create(&place.path("new"), "events.out.tfevents.1784016000.trainer-0");
    writer.scalars("loss", [(0, 42.0), (1, 0.5)]);
    fs::copy(writer.path(), place.path(&name(42)).join("events.out.tfevents.1784016000.trainer-0")).unwrap();
    let ended = place.import_offline(["logs"]).arg("--json").run().ok();
    assert_eq!((ended.json_summary()["rows"].as_u64(), place.logs().len()), (Some(1), 100));
}

#[test]
fn a_copy_that_appears_later_is_a_run_of_its_own() {
    let place = Place::new();
    let original = place.fixture("torch/ppo/seed0", "logs/original");
    let first = place.import_offline(["logs"]).arg("--json").run().ok();
    copy_tree(&original, &place.path("logs/copy"));
    let second = place.import_offline(["logs"]).arg("--json").run().ok();
    let rows = |ended: &crate::support::bridge::Ended, name: &str| {
        ended.json_runs().iter().find(|run| run["name"] == name).map(|run| (run["run_id"].clone(), run["rows"].clone()))
    };
    let (id, all) = rows(&first, "original").unwrap();
    // The run that is there goes on under the id that it has; the copy is new.
    assert_eq!(rows(&second, "original"), Some((id.clone(), 0.into())), "{}", second.stdout);
    let (other, copied) = rows(&second, "copy").unwrap();
    assert!(other != id && copied == all);
    let third = place.import_offline(["logs"]).arg("--json").run().ok();
    assert_eq!((third.json_summary()["rows"].as_u64(), place.logs().len()), (Some(0), 2));
}

#[test]
fn copies_in_different_places_keep_their_ids() {
    let place = Place::new();
    place.fixture("torch/ppo/seed0", "logs/a/run");
    place.fixture("torch/ppo/seed0", "logs/b/run");
    let here = place.path("");
    let all = import(&place, &here, &["logs"]);
    assert_eq!(all.values().collect::<BTreeSet<_>>().len(), 2);
    // Recorded as a whole, each is found again when it is named alone.
    place.import_offline(["logs"]).run().ok();
    for path in ["logs/a", "logs/b/run"] {
        let ended = place.import_offline([path]).arg("--json").run().ok();
        assert_eq!((ended.json_summary()["rows"].as_u64(), place.logs().len()), (Some(0), 2), "{path}");
    }
}

/// Whether a directory moved, or was copied, is told by whether it is still where it was.
#[test]
fn a_copy_that_is_taken_for_the_run_is_told() {
    let place = Place::new();
    let original = place.fixture("torch/ppo/seed0", "logs/exp");
    let says = |path: &str| place.import_offline([path]).run().ok().stderr.contains("is taken for the same run");
    assert!(!says("logs") && !says("logs/exp"));
    copy_tree(&original, &place.path("elsewhere/exp"));
    assert!(says("elsewhere"));
    assert_eq!(place.logs().len(), 1);
    // Both at once are two runs, as it says.
    assert!(!says("."));
    assert_eq!(place.logs().len(), 2);

    let place = Place::new();
    place.fixture("torch/ppo/seed0", "logs/exp");
    let says = |path: &str| place.import_offline([path]).run().ok().stderr.contains("is taken for the same run");
    assert!(!says("logs"));
    fs::rename(place.path("logs"), place.path("moved")).unwrap();
    assert!(!says("moved"));
    assert_eq!(place.logs().len(), 1);
}

#[test]
fn an_id_can_be_chosen() {
    let place = Place::new();
    place.fixture("torch/ppo", "logs");
    let ended = place.import_offline(["logs"]).args(["--run-id", "mine-{dir}", "--json"]).run().ok();
    let ids: Vec<_> = ended.json_runs().iter().map(|run| run["run_id"].clone()).collect();
    assert_eq!(ids, ["mine-seed0", "mine-seed1", "mine-seed2"]);
    let ended = place.import_offline(["logs"]).args(["--run-id", "mine-{dir}", "--json"]).run().ok();
    assert_eq!((ended.json_summary()["rows"].as_u64(), place.logs().len()), (Some(0), 3));

    // What stands in a path, and cannot stand in an id, is spelled otherwise.
    let below = Place::new();
    below.fixture("torch/ppo/seed0", "logs/a/C:");
    below.fixture("torch/ppo/seed1", "logs/a/s");
    let ended = below.import_offline(["logs"]).args(["--run-id", "{path}", "--json"]).run().ok();
    let ids: Vec<_> = ended.json_runs().iter().map(|run| run["run_id"].clone()).collect();
    assert_eq!(ids, ["a-C-", "a-s"]);
    let ended = below.import_offline(["logs"]).args(["--run-id", "{9}"]).run().code(2);
    assert!(ended.stderr.contains("logs/a/C:` gets no run id of its own"), "{}", ended.screen());
    let ended = below.import_offline(["logs/a/s"]).args(["--run-id", "a/s"]).run().code(2);
    assert!(ended.stderr.contains("`a/s` cannot be a run id"), "{}", ended.screen());

    // The variable counts for one run only.
    let ended =
        Place::new().import_offline([place.path("logs/seed0")]).env("WANDB_RUN_ID", "one").arg("--json").run().ok();
    assert_eq!(ended.json_runs()[0]["run_id"], "one");
    let ended = Place::new().import_offline([place.path("logs")]).env("WANDB_RUN_ID", "one").arg("--json").run().ok();
    assert!(ended.json_runs().iter().all(|run| run["run_id"] != "one"));
    assert!(ended.stderr.contains("WANDB_RUN_ID"), "{}", ended.stderr);
}

//! People's habits come out as the runs that they expect: what frameworks leave on disk, and sweeps however they are
//! written.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wandb_bridge::model::{Json, Number};

use crate::support::bridge::{Place, fixture_path};
use crate::support::events::{Writer, scalar};
use crate::support::python;
use crate::support::server::{FakeServer, RunSnapshot};

/// All runs of a folder, by name.
fn imported(place: &Place, folder: &Path) -> Vec<RunSnapshot> {
    let server = FakeServer::start();
    place.import(&server, [folder]).run();
    server.assert_content();
    let mut runs = server.runs();
    runs.sort_by(|a, b| a.display_name.cmp(&b.display_name));
    runs
}

/// The metrics of a run, and the axes that they lie on.
fn keys(run: &RunSnapshot) -> BTreeSet<String> {
    let rows = run.history_rows();
    let keys = rows.iter().filter_map(Json::as_object).flat_map(|row| row.keys().cloned());
    keys.filter(|key| !key.starts_with('_')).collect()
}

/// What one folder of the fixtures becomes: for each run its name and group, and some metrics of every run.
#[track_caller]
fn check(folder: &str, expected: &[(&str, &str)], metrics: &[&str]) -> Vec<RunSnapshot> {
    let runs = imported(&Place::new(), &fixture_path(&format!("habits/{folder}")));
    let found: Vec<(&str, &str)> =
        runs.iter().map(|run| (run.display_name.as_str(), run.group.as_deref().unwrap_or_default())).collect();
    assert_eq!(found, expected, "{folder}");
    for run in &runs {
        let keys = keys(run);
        for metric in metrics {
            assert!(keys.contains(*metric), "{folder}: {} holds {keys:?}", run.display_name);
        }
    }
    runs
}

fn config(run: &RunSnapshot, key: &str) -> Json {
    run.config_value().get(key).cloned().unwrap_or_else(|| panic!("{}: `{key}` in {}", run.display_name, run.config))
}

/// As it is read back: what has no fraction is an integer.
fn number(value: f64) -> Json {
    Json::parse(&Json::Number(Number::F64(value)).to_string()).unwrap()
}

/// The last value of a metric, as the summary has it.
#[track_caller]
fn summary(run: &RunSnapshot, key: &str) -> f64 {
    let summary = run.summary_value();
    let value = summary.get(key).unwrap_or_else(|| panic!("{}: `{key}` in {:?}", run.display_name, run.summary));
    value.to_string().parse().unwrap()
}

/// A sweep of 20: each has the config of its place, with types, and its own last metric.
#[track_caller]
fn check_sweep(runs: &[&RunSnapshot], group: &str, amp_is_a_number: bool, metric: &str) {
    assert_eq!(runs.len(), 20);
    for (trial, run) in runs.iter().enumerate() {
        let trial = u32::try_from(trial).unwrap();
        assert_eq!(run.group.as_deref(), Some(group), "{}", run.display_name);
        assert_eq!(config(run, "lr"), number(0.1 / (f64::from(trial) + 1.0)), "{}", run.display_name);
        assert_eq!(config(run, "layers"), number(f64::from(1 + trial % 4)));
        assert_eq!(config(run, "optimizer"), Json::from(["sgd", "adam"][trial as usize % 2]));
        let amp = trial % 3 == 0;
        let expected = if amp_is_a_number { number(f64::from(u8::from(amp))) } else { Json::Bool(amp) };
        assert_eq!(config(run, "amp"), expected, "{}", run.display_name);
        assert!((summary(run, metric) - (0.5 + f64::from(trial) / 40.0)).abs() < 0.01, "{}", run.display_name);
    }
}

#[test]
fn lightning() {
    let versions = [("lightning_logs/version_0", "lightning_logs"), ("lightning_logs/version_1", "lightning_logs")];
    let metrics = ["train_loss", "val_loss", "hp_metric", "epoch", "parts/loss/near", "parts/loss/far"];
    let runs = check("lightning", &versions, &metrics);
    for (run, lr) in runs.iter().zip([0.1, 0.01]) {
        assert_eq!(config(run, "lr"), number(lr));
        assert_eq!(config(run, "optimizer"), Json::from("sgd"));
        assert!(!keys(run).contains("parts/loss"), "{:?}", keys(run));
    }
}

#[test]
fn keras_with_its_callbacks() {
    let metrics = ["train/epoch_loss", "validation/epoch_loss", "epoch"];
    let runs = check("keras", &[("fit-0", ""), ("fit-1", "")], &metrics);
    for (run, units) in runs.iter().zip([4.0, 8.0]) {
        assert_eq!(config(run, "num_units"), number(units));
        assert_eq!(config(run, "optimizer"), Json::from("sgd"));
    }
}

#[test]
fn stable_baselines3() {
    let metrics = ["rollout/ep_rew_mean", "train/entropy_loss", "time/fps"];
    let runs = check("stable_baselines3", &[("A2C_1", ""), ("A2C_2", "")], &metrics);
    for run in &runs {
        assert_eq!(config(run, "algorithm"), Json::from("A2C"));
        assert_eq!(config(run, "gamma"), number(0.99));
    }
}

#[test]
fn the_trainer_of_hugging_face() {
    let name = "out/runs/Jul14_08-00-00_trainer-0";
    check("hf_trainer", &[(name, "out/runs")], &["train/loss", "eval/loss", "train/epoch"]);
}

#[test]
fn accelerate_says_its_config_before_the_first_value() {
    let runs = check("accelerate", &[("finetune", "")], &["loss"]);
    assert_eq!(config(&runs[0], "lr"), number(0.1));
    assert_eq!(config(&runs[0], "optimizer"), Json::from("adamw"));
    assert_eq!(runs[0].column("loss").len(), 10);
}

#[test]
fn twenty_sessions_of_the_hparams_api() {
    let names: Vec<String> = (0..20).map(|session| format!("tuning/run-{session}")).collect();
    let mut expected: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "tuning")).collect();
    expected.sort_unstable();
    let runs = check("hp_tf2", &expected, &["accuracy"]);
    for (session, name) in names.iter().enumerate() {
        let run = runs.iter().find(|run| run.display_name == *name).unwrap();
        let at = f64::from(u32::try_from(session).unwrap());
        assert_eq!(config(run, "num_units"), number([4.0, 8.0, 16.0, 32.0][session % 4]), "{name}");
        assert_eq!(config(run, "dropout"), number(0.1 + at / 50.0), "{name}");
        assert_eq!(config(run, "optimizer"), Json::from(["adam", "sgd"][session % 2]), "{name}");
        assert_eq!(config(run, "nesterov"), Json::Bool(session % 3 == 0), "{name}");
        assert!((summary(run, "accuracy") - (0.5 + at / 40.0)).abs() < 1e-6, "{name}");
    }
    // What the parent describes is kept once, with the first of them.
    let described = |run: &&RunSnapshot| run.files.keys().any(|path| path.starts_with("tensorboard/hparams/"));
    let with_description: Vec<&str> = runs.iter().filter(described).map(|run| run.display_name.as_str()).collect();
    assert_eq!(with_description, ["tuning/run-0"]);
}

#[test]
fn twenty_calls_of_add_hparams_by_torch() {
    let runs = imported(&Place::new(), &fixture_path("habits/add_hparams"));
    let (trained, sweep): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.display_name == "trained");
    let mut sweep: Vec<&RunSnapshot> = sweep;
    sweep.sort_by_key(|run| {
        run.display_name.rsplit('/').next().and_then(|name| name.parse().ok()).map(|time: f64| time as i64)
    });
    // torch says a bool as a number.
    check_sweep(&sweep, "sweep", true, "hparam/accuracy");
    // The session of a run with values is its config and summary, and hides none of its values.
    let [trained] = trained.as_slice() else { panic!("{} runs `trained`", trained.len()) };
    assert_eq!((trained.group.as_deref(), config(trained, "lr")), (None, number(0.1)));
    assert_eq!(trained.column("loss").len(), 11);
    assert!((summary(trained, "hparam/accuracy") - 0.9).abs() < 1e-6);
    assert!((summary(trained, "loss") - 0.25).abs() < 1e-6);
}

#[test]
fn sweeps_by_tensorboardx() {
    let place = Place::new();
    let logs = place.path("logs");
    fs::create_dir(&logs).unwrap();
    python::script("sweeps.py").directory(&logs).run().ok();
    let runs = imported(&place, &logs);
    for folder in ["writers", "one_writer"] {
        let names: Vec<String> = (0..20).map(|trial| format!("{folder}/trial_{trial:02}")).collect();
        let sweep: Vec<&RunSnapshot> = runs.iter().filter(|run| names.contains(&run.display_name)).collect();
        check_sweep(&sweep, folder, false, "accuracy");
    }
    let names: Vec<&str> =
        runs.iter().map(|run| run.display_name.as_str()).filter(|name| name.starts_with("trained")).collect();
    assert_eq!((runs.len(), names), (43, vec!["trained", "trained/second", "trained/third"]));
    let trained = runs.iter().find(|run| run.display_name == "trained").unwrap();
    assert_eq!((trained.column("accuracy").len(), config(trained, "amp")), (6, Json::Bool(true)));
}

#[test]
fn filters_leave_out_what_they_name_and_say_it() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    for directory in ["exp/train", "exp/validation", "other", "scratch/a", "scratch/b"] {
        Writer::new(&logs.join(directory)).scalars("loss", (0..3).map(|step| (step, 1.0)));
    }
    let call = || place.import(&server, ["logs"]);
    let ended =
        call().args(["--exclude", "scratch/*", "--include", "*", "--exclude", "nothing*"]).arg("--json").run().ok();
    let mut names: Vec<String> = server.runs().into_iter().map(|run| run.display_name).collect();
    names.sort();
    assert_eq!(names, ["exp", "other"]);
    assert!(ended.stderr.contains("`--exclude nothing*` matches no TB run"), "{}", ended.stderr);
    let skipped = &ended.json_summary()["skipped"][0];
    assert_eq!((skipped["count"].as_u64(), skipped["loss"].as_bool()), (Some(2), Some(false)), "{skipped}");
    assert!(skipped["reason"].as_str().unwrap().contains("--exclude"), "{skipped}");

    // To leave out whole other runs changes nothing about those that are there; to leave out a part of one does.
    call().args(["--exclude", "scratch/*", "--exclude", "other"]).run().ok();
    let ended = call().args(["--exclude", "*/validation"]).run();
    assert!(ended.stderr.contains("`exp`") || ended.stderr.contains("exp"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--exclude") && ended.stderr.contains("--generation"), "{}", ended.stderr);
    let exp = server.runs().into_iter().find(|run| run.display_name == "exp").unwrap();
    assert_eq!(exp.column("validation/loss").len(), 3);
    // And what is left out altogether is nothing to import.
    let ended = call().args(["--exclude", "*"]).run().code(9);
    assert!(ended.stderr.contains("leave out 5 event files"), "{}", ended.stderr);
}

#[test]
fn a_session_that_comes_later_is_where_one_pass_would_put_it() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    let fixture = |from: &str, to: &str| {
        let to = logs.join(to);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(fixture_path(&format!("habits/add_hparams/{from}"))).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_file() {
                fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
            }
        }
    };
    let names = || {
        let mut names: Vec<String> = server.runs().into_iter().map(|run| run.display_name).collect();
        names.sort();
        names
    };
    fixture("trained", "trained");
    place.import(&server, ["logs"]).run();
    assert_eq!(names(), ["trained"]);
    fixture("trained/final", "trained/final");
    place.import(&server, ["logs"]).run();
    assert_eq!(names(), ["trained"]);
    let trained = server.runs().remove(0);
    assert_eq!((trained.column("loss").len(), config(&trained, "lr")), (11, number(0.1)));
    // Although it began before the other one.
    let sessions = fs::read_dir(fixture_path("habits/add_hparams/sweep")).unwrap();
    let mut sessions = sessions.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect::<Vec<_>>();
    sessions.sort();
    let first = sessions[0].file_name().unwrap().to_str().unwrap();
    fixture(&format!("sweep/{first}"), "trained/again");
    let mut later = Writer::create(&logs.join("trained"), "events.out.tfevents.1784019999.trainer-0.1.0");
    later.append(&[scalar(20, "loss", 0.5)]);
    place.import(&server, ["logs"]).run();
    assert_eq!(names(), ["trained", "trained/again"]);
    let trained = server.runs().into_iter().find(|run| run.display_name == "trained").unwrap();
    assert_eq!(trained.column("loss").len(), 12);
}

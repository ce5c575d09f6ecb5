//! Config and names: what files and flags say arrives typed and nested, the nearest wins, credentials do not leave the
//! machine, and a second pass changes what describes a run without a row of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use wandb_bridge::model::Json;
use wandb_bridge::proto::tensorboard::dynamic_value::Kind;
use wandb_bridge::proto::tensorboard::session_start_info::Entry;
use wandb_bridge::proto::tensorboard::summary_metadata::PluginData;
use wandb_bridge::proto::tensorboard::{
    DynamicStruct, DynamicValue, Event, HParamsPluginData, SessionStartInfo, Summary, SummaryMetadata, dynamic_struct,
    event, h_params_plugin_data, summary,
};

use crate::import::{changes, named, names};
use crate::support::bridge::Place;
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::events::Writer;
use crate::support::official::{copy_tree, official_sync};
use crate::support::server::FakeServer;

const KEY: &str = "0123456789abcdef0123456789abcdef01234567";
const COMMIT: &str = "fedcba9876543210fedcba9876543210fedcba98";

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn experiment(directory: &Path) {
    Writer::new(directory).scalars("loss", [(1, 0.5), (2, 0.25)]);
}

/// The config of a run but for W&B's own notes.
fn config(server: &FakeServer, name: &str) -> String {
    match named(server, name).config_value() {
        Json::Object(mut members) => {
            members.remove("_wandb");
            Json::Object(members).to_string()
        }
        other => other.to_string(),
    }
}

fn config_files(server: &FakeServer, name: &str) -> String {
    let config = named(server, name).config_value();
    config.get("_wandb").and_then(|own| own.get("bridge")?.get("config_files")).unwrap_or(&Json::Null).to_string()
}

#[test]
fn files_of_an_experiment_and_above_are_its_config() {
    let (place, server) = (Place::new(), FakeServer::start());
    experiment(&place.path("logs/lightning/version_0"));
    write(&place.path("logs/lightning/version_0/hparams.yaml"), "lr: 1e-3\nmodel: !!python/tuple [64, 32]\n");
    experiment(&place.path("logs/lightning/version_1"));
    write(&place.path("logs/lightning/version_1/hparams.yaml"), "lr: .nan\nopt: {name: adam, eps: 1.0e-08}\n");
    experiment(&place.path("logs/hydra/0/tb/train"));
    experiment(&place.path("logs/hydra/0/tb/validation"));
    write(&place.path("logs/hydra/0/.hydra/config.yaml"), "seed: 1\nmodel:\n  depth: 2\n");
    write(&place.path("logs/hydra/0/tb/args.json"), "{\"model\": {\"depth\": 3, \"bias\": NaN}}");
    // It stands beside all of them, so it is nobody's.
    write(&place.path("logs/config.yaml"), "shared: true\n");
    let ended = place.import(&server, [place.path("logs")]).arg("-v").run().ok();
    server.assert_content();
    assert_eq!(config(&server, "lightning/version_0"), r#"{"lr":0.001,"model":[64,32]}"#);
    assert_eq!(config(&server, "lightning/version_1"), r#"{"lr":NaN,"opt":{"eps":1e-8,"name":"adam"}}"#);
    assert_eq!(config(&server, "hydra/0/tb"), r#"{"model":{"bias":NaN,"depth":3},"seed":1}"#);
    assert_eq!(config_files(&server, "hydra/0/tb"), r#"["hydra/0/tb/args.json","hydra/0/.hydra/config.yaml"]"#);
    assert!(ended.stderr.contains("hydra/0/.hydra/config.yaml"), "{}", ended.stderr);

    let (place_2, without) = (Place::new(), FakeServer::start());
    place_2.import(&without, [place.path("logs")]).arg("--no-config-files").run().ok();
    for name in names(&without) {
        assert_eq!((config(&without, &name), config_files(&without, &name)), ("{}".to_owned(), "null".to_owned()));
    }
}

#[test]
fn flags_are_nearer_than_files_and_a_second_pass_changes_only_them() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs.join("a"));
    write(&logs.join("a/params.json"), r#"{"lr": 1, "model": {"depth": 1, "width": 1}, "seed": 1}"#);
    let file = place.path("more.yaml");
    write(&file, "lr: 2\nmodel: {depth: 2}\n");
    let import = || place.import(&server, [&logs]);
    import().arg("--config-file").arg(&file).args(["--config", "model.depth=3", "--config", "tags=[a, 1]"]).run().ok();
    let expected = r#"{"lr":2,"model":{"depth":3,"width":1},"seed":1,"tags":["a",1]}"#;
    assert_eq!(config(&server, "a"), expected);
    assert_eq!(config_files(&server, "a"), r#"["more.yaml","a/params.json"]"#);
    let rows = named(&server, "a").history;

    // The same again changes nothing.
    let before = changes(&server).len();
    import().arg("--config-file").arg(&file).args(["--config", "model.depth=3", "--config", "tags=[a, 1]"]).run().ok();
    assert_eq!(changes(&server).len(), before);

    // Another value replaces only itself, in a run that had ended.
    import().arg("--config-file").arg(&file).args(["--config", "model.depth=4", "--config", "new=yes"]).run().ok();
    let expected = r#"{"lr":2,"model":{"depth":4,"width":1},"new":true,"seed":1,"tags":["a",1]}"#;
    assert_eq!(config(&server, "a"), expected);
    let run = named(&server, "a");
    assert_eq!((run.history, run.exit_code, run.resent_lines), (rows, Some(0), 0));
    server.assert_content();
}

#[test]
fn official_client_brings_the_same_config() {
    let (place, online, official) = (Place::new(), FakeServer::start(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs);
    write(
        &logs.join("hparams.yaml"),
        "a.b: 1\n'': x\nnan: .nan\nlist: [1, {x: 2}]\nempty: {}\nn: null\nd: {e: {f: 9223372036854775807}}\n",
    );
    let options = ["--config", "list.x=1", "--config", "ключ=ü"];
    place.import(&online, [&logs]).args(options).run().ok();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(&place.path("out/wandb"), copy.path());
    for log in crate::support::official::logs_below(copy.path()) {
        // Remains of our own upload are not the official client's business.
        fs::remove_file(log.with_extension("wandb.synced")).unwrap();
    }
    official_sync(copy.path(), &official);
    let (ours, theirs) = (named(&online, "logs"), named(&official, "logs"));
    same_run_but_for(&ours, &theirs, &Compared::default()).unwrap();
    assert_eq!(config(&online, "logs"), config(&official, "logs"));
    assert!(config(&online, "logs").contains("ключ"));
}

#[test]
fn credentials_do_not_leave_the_machine() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs);
    let yaml = format!(
        "wandb:\n  api_key: {KEY}\nx: [{KEY}]\ndb: postgres://me:hunter2@db/x\ngit_commit: {COMMIT}\nmax_tokens: 5\n"
    );
    write(&logs.join("config.yaml"), &yaml);
    let ended = place.import(&server, [&logs]).args(["--config", "password=hunter2"]).run().ok();
    let expected = format!(
        r#"{{"db":"postgres://***@db/x","git_commit":"{COMMIT}","max_tokens":5,"password":"***","wandb":{{"api_key":"***"}},"x":["***"]}}"#
    );
    assert_eq!(config(&server, "logs"), expected);
    assert!(ended.stderr.contains("are masked: `db`, `password`, `wandb.api_key`, `x`"), "{}", ended.stderr);
    // Neither the log nor our state holds them.
    let mut directories = vec![place.path("out")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(content) = fs::read(&path) {
                let text = String::from_utf8_lossy(&content);
                assert!(!text.contains("hunter2"), "{}", path.display());
                assert!(!text.contains(KEY), "{}", path.display());
            }
        }
    }
}

#[test]
fn nothing_of_the_importing_machine_leaves_it() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs.join("a/train"));
    experiment(&logs.join("a/validation"));
    write(&logs.join("a/hparams.yaml"), "lr: 1\n");
    write(&place.path("more.yaml"), "seed: 1\n");
    let import = place.import(&server, [&logs]).env("USER", "somebody").env("HOSTNAME", "this-machine");
    import.arg("--config-file").arg(place.path("more.yaml")).args(["--config", "x=1"]).run().ok();
    let run = named(&server, "a");
    let metadata = run.files["wandb-metadata.json"].text();
    let metadata = Json::parse(&metadata).unwrap();
    let keys: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["host", "program", "startedAt"]);
    assert_eq!(metadata.get("host"), Some(&Json::from("trainer-0")));
    assert_eq!(config_files(&server, "a"), r#"["more.yaml","a/hparams.yaml"]"#);
    // All that the server holds and all that it was asked, and neither this machine nor a place on it.
    let mut all = server.dump();
    all.extend(server.requests().iter().map(|request| format!("{request:?}")));
    all.extend(run.files.values().map(|file| file.text()));
    let here = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let here = Some(here.trim()).filter(|name| name.len() > 4).unwrap_or("this-machine");
    let root = place.path("");
    for secret in
        [root.to_str().unwrap(), root.file_name().unwrap().to_str().unwrap(), "somebody", "this-machine", here]
    {
        assert!(!all.contains(secret), "`{secret}`: {all}");
    }
    assert!(all.contains("trainer-0") && all.contains("hparams.yaml"));
}

#[test]
fn a_config_file_that_says_nothing_is_named_and_stops_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs);
    write(&logs.join("hparams.yaml"), "a: [1\nb: 2\n");
    write(&logs.join("args.json"), r#"{"lr": 1}"#);
    let ended = place.import(&server, [&logs]).run().ok();
    assert!(ended.stderr.contains("hparams.yaml` is left out: not YAML"), "{}", ended.stderr);
    assert_eq!(config(&server, "logs"), r#"{"lr":1}"#);

    // One that was named in the command line must be there, and whole.
    for (arguments, words) in [
        (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
        (["--config-file", "logs/hparams.yaml"], "not YAML"),
        (["--config", "lr"], "KEY=VALUE"),
        (["--config", "_wandb.t=1"], "W&B's own"),
    ] {
        let ended = place.import(&server, [&logs]).args(arguments).run().code(2);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_project_for_each_folder() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    for folder in ["vision", "a#b", "a%b"] {
        experiment(&logs.join(folder).join("run"));
    }
    let import = place.call(["import", "--dir", "out", "-p", "{1}"]).arg(&logs).server(&server);
    let ended = import.run().ok();
    let mut projects: Vec<String> = server.runs().into_iter().map(|run| run.project).collect();
    projects.sort();
    assert_eq!(projects, ["a-b", "a-b", "vision"]);
    assert_eq!(ended.stderr.matches("are one project in W&B, `a-b`").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("projects `{1}`"), "{}", ended.stderr);
}

#[test]
fn sync_goes_where_it_is_told_and_a_log_names_the_project_that_was_chosen_last() {
    let place = Place::new();
    let logs = place.path("logs");
    experiment(&logs);
    place.import_offline([&logs]).args(["-p", "first"]).run().ok();
    let ended = place.import_offline([&logs]).args(["-p", "second", "-e", "team"]).run().ok();
    assert!(ended.stderr.contains("the project is now `second`; the logs still name `first`"), "{}", ended.stderr);
    let server = FakeServer::start();
    place.sync(&server).run().ok();
    let projects =
        |server: &FakeServer| server.runs().into_iter().map(|run| (run.entity, run.project)).collect::<Vec<_>>();
    assert_eq!(projects(&server), [("team".to_owned(), "second".to_owned())]);

    let sync = |server: &FakeServer| place.sync(server).arg("--include-synced");
    let server = FakeServer::start();
    sync(&server).env("WANDB_BRIDGE_PROJECT", "third").env("WANDB_BRIDGE_ENTITY", "us").run().ok();
    assert_eq!(projects(&server), [("us".to_owned(), "third".to_owned())]);
    let server = FakeServer::start();
    sync(&server).env("WANDB_PROJECT", "fourth").run().ok();
    assert_eq!(projects(&server), [("team".to_owned(), "second".to_owned())]);
    let server = FakeServer::start();
    let ended = place.import_offline([&logs]).args(["-p", "{x}"]).run().code(2);
    assert!(ended.stderr.contains("`{x}`, which is none of"), "{}", ended.stderr);
    sync(&server).args(["-p", "{{x}}"]).run().ok();
    assert_eq!(projects(&server), [("team".to_owned(), "{x}".to_owned())]);
    for project in ["{dir}", "{", "a/b"] {
        let ended = sync(&FakeServer::start()).args(["-p", project]).run().code(2);
        assert!(ended.stderr.contains("`--project` cannot be used"), "{}", ended.stderr);
    }
}

/// What starts a session of a hyperparameter sweep.
fn session(hparams: Vec<(&'static str, Kind)>) -> Event {
    let entry =
        |(key, kind): (&'static str, Kind)| Entry { key: key.into(), value: Some(DynamicValue { kind: Some(kind) }) };
    let start = SessionStartInfo { hparams: hparams.into_iter().map(entry).collect(), ..SessionStartInfo::default() };
    let content = HParamsPluginData { version: 0, data: Some(h_params_plugin_data::Data::SessionStartInfo(start)) };
    let plugin_data = PluginData { plugin_name: "hparams".into(), content: content.encode_to_vec().into() };
    let value = summary::Value {
        tag: "_hparams_/session_start_info".into(),
        metadata: Some(SummaryMetadata { plugin_data: Some(plugin_data), ..SummaryMetadata::default() }),
        ..summary::Value::default()
    };
    Event { what: Some(event::What::Summary(Summary { value: vec![value] })), ..Event::default() }
}

#[test]
fn files_are_nearer_than_events() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    let mut writer = Writer::new(&logs);
    let nested = |key: &'static str| dynamic_struct::Entry {
        key: key.into(),
        value: Some(DynamicValue { kind: Some(Kind::Number(7.0)) }),
    };
    writer.append(&[session(vec![
        ("lr", Kind::Number(0.5)),
        ("seed", Kind::Number(3.0)),
        ("hf_token", Kind::String("hf_secret123".into())),
        ("model", Kind::Struct(DynamicStruct { fields: vec![nested("depth"), nested("width")] })),
    ])]);
    writer.scalars("loss", [(1, 0.5)]);
    write(&logs.join("hparams.yaml"), "lr: 1\nmodel: {depth: 2}\n");
    let ended = place.import(&server, [&logs]).run().ok();
    assert_eq!(config(&server, "logs"), r#"{"hf_token":"***","lr":1,"model":{"depth":2,"width":7},"seed":3}"#);
    assert!(ended.stderr.contains("are masked: `hf_token`"), "{}", ended.stderr);
    // What came in another process is no nearer.
    writer.append(&[session(vec![("lr", Kind::Number(0.25)), ("late", Kind::Bool(true))])]);
    writer.scalars("loss", [(2, 0.25)]);
    fs::remove_file(logs.join("hparams.yaml")).unwrap();
    place.import(&server, [&logs]).run().ok();
    assert_eq!(
        config(&server, "logs"),
        r#"{"hf_token":"***","late":true,"lr":1,"model":{"depth":2,"width":7},"seed":3}"#
    );
    server.assert_content();
}

#[test]
fn a_config_file_that_comes_late_is_read_before_a_watched_run_ends() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.path("logs");
    experiment(&logs);
    let watch = place.call(["watch", "--dir", "out", "-p", "p", "--poll", "50ms", "--until-idle", "1s"]);
    let watch = watch.args(["--stale-after", "80000h"]).arg(&logs).server(&server).spawn();
    server.wait_until(Duration::from_secs(60), |world| world.runs.values().any(|run| !run.history.is_empty()));
    write(&logs.join("hparams.yaml"), "lr: 1\n");
    watch.wait().ok();
    assert_eq!(config(&server, "logs"), r#"{"lr":1}"#);
    let run = named(&server, "logs");
    assert_eq!((run.history.len(), run.exit_code), (2, Some(0)));
}

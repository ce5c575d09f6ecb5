//! `import`: all that is in the files arrives, once, also when they grow, when they are damaged, and when it is run again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use wandb_bridge::model::Json;
use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::wandb_format::{EntryKind, LogReader, Next};

use crate::support::bridge::{Place, fixture_path, id_of};
use crate::support::compare::{Compared, same_run, same_run_but_for};
use crate::support::events::{START, Writer};
use crate::support::fixtures::{FOLDERS, check_run};
use crate::support::official::{copy_tree, official_sync};
use crate::support::server::{FakeServer, Fault, RequestRecord, Route, RunSnapshot, RunStatus};

/// The run with that name.
#[track_caller]
pub(crate) fn named(server: &FakeServer, name: &str) -> RunSnapshot {
    let mut runs: Vec<RunSnapshot> = server.runs().into_iter().filter(|run| run.display_name == name).collect();
    assert_eq!(runs.len(), 1, "runs named `{name}` among {:?}", names(server));
    runs.remove(0)
}

pub(crate) fn names(server: &FakeServer) -> Vec<String> {
    let mut names: Vec<String> = server.runs().into_iter().map(|run| run.display_name).collect();
    names.sort();
    names
}

/// What changes something on a server.
pub(crate) fn changes(server: &FakeServer) -> Vec<RequestRecord> {
    let reads = ["Viewer", "ServerInfo", "RunResumeStatus", "RunStatus"];
    let is_read = |request: &RequestRecord| {
        request.operation.as_deref().is_some_and(|name| reads.contains(&name) || name.contains("Query"))
    };
    server.requests().into_iter().filter(|request| !is_read(request)).collect()
}

/// Kind by kind what records a log holds, in order, history and summary left out.
fn kinds(log: &Path) -> Vec<&'static str> {
    let mut reader = LogReader::open(log).unwrap();
    let mut kinds = Vec::new();
    loop {
        match reader.next().unwrap() {
            Next::Entry(entry) => kinds.push(match &entry.kind {
                EntryKind::History(_) => "history",
                EntryKind::Summary(_) => "summary",
                EntryKind::Record(record) => match &**record {
                    RecordType::Exit(_) => "exit",
                    RecordType::Run(_) => "run",
                    _ => "other",
                },
                EntryKind::Unknown(_) => "unknown",
            }),
            Next::End => return kinds,
            Next::Incomplete { .. } | Next::Damaged { .. } => panic!("`{}` is damaged", log.display()),
        }
    }
}

/// A log has one exit record, and it is the last.
#[track_caller]
fn check_exit_is_last(log: &Path) {
    let kinds = kinds(log);
    assert_eq!(kinds.iter().filter(|kind| **kind == "exit").count(), 1);
    assert_eq!(kinds.last(), Some(&"exit"));
}

fn skipped(line: &Value) -> BTreeMap<String, (u64, bool)> {
    let entries = line["skipped"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let reason = entry["reason"].as_str().unwrap().to_owned();
            (reason, (entry["count"].as_u64().unwrap(), entry["loss"].as_bool().unwrap()))
        })
        .collect()
}

#[test]
fn every_point_of_every_fixture_arrives() {
    let mut trouble = Vec::new();
    for (folder, expected) in FOLDERS {
        let (place, server) = (Place::new(), FakeServer::start());
        let ended = place.import(&server, [fixture_path(folder)]).arg("--json").run();
        server.assert_content();
        let expected_names: Vec<&str> = expected.iter().map(|run| run.name).collect();
        assert_eq!(names(&server), expected_names, "{folder}: {}", ended.stderr);
        let lines = ended.json_runs();
        for (run, line) in expected.iter().zip(&lines) {
            let what = format!("{folder}, {}", run.name);
            let contents = run.contents(folder);
            let there = named(&server, run.name);
            if let Err(why) = check_run(&there, &contents) {
                trouble.push(format!("{what}: {why}"));
            }
            let scalars = contents.files.iter().map(Vec::len).sum::<usize>();
            if run.scalars > 0 && run.scalars != scalars {
                trouble.push(format!("{what}: {scalars} scalars, not {}", run.scalars));
            }
            assert_eq!(there.group.as_deref(), run.group, "{what}");
            // A suffix of the file's name cannot be told from the host's domain.
            let host = if run.name == "tensors" { "trainer-0.suffix" } else { "trainer-0" };
            assert_eq!(there.host.as_deref(), Some(host), "{what}");
            assert_eq!((there.status, there.exit_code), (RunStatus::Finished, Some(0)), "{what}");
            assert_eq!((there.upserts, there.resent_lines), (1, 0), "{what}");
            let started = contents.start.unwrap();
            let metadata = there.files.get("wandb-metadata.json").unwrap().text();
            let metadata: Value = serde_json::from_str(&metadata).unwrap();
            let said = metadata["startedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            assert!((said.as_microsecond() as f64 / 1e6 - started).abs() < 1e-5, "{what}: {said}, not {started}");

            assert_eq!(line["name"], run.name);
            assert_eq!(line["run_path"], format!("tester/p/{}", there.id));
            assert_eq!(line["rows"], there.history.len(), "{what}");
            let mut kinds = contents.others.clone();
            kinds.insert("scalars".to_owned(), scalars as u64);
            let counts = line["kinds"].as_object().unwrap();
            let read = counts.iter().map(|(kind, count)| (kind.clone(), count["read"].as_u64().unwrap())).collect();
            assert_eq!(kinds, read, "{what}");
            let sent: u64 = counts.values().map(|count| count["sent"].as_u64().unwrap()).sum();
            assert_eq!(line["events"], sent, "{what}");
            assert_eq!(counts["scalars"]["sent"], scalars, "{what}");
            // Bins that were put together are told, and are no loss.
            let lost: Vec<_> = skipped(line).into_iter().filter(|(_, (_, loss))| *loss).collect();
            assert_eq!((lost, &line["state"]), (Vec::new(), &"synced".into()), "{what}");
        }
        assert_eq!(ended.code, Some(0), "{folder}: {}", ended.stderr);
    }
    assert_eq!(trouble, Vec::<String>::new());
}

#[test]
fn a_second_import_sends_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = fixture_path("showcase");
    place.import(&server, [&logs]).run().ok();
    let before = (server.runs().iter().map(|run| run.history.len()).sum::<usize>(), changes(&server).len());
    let files: Vec<_> = place.logs().iter().map(|log| fs::read(log).unwrap()).collect();
    let ended = place.import(&server, [&logs]).arg("--json").run().ok();
    assert_eq!((server.runs().iter().map(|run| run.history.len()).sum::<usize>(), changes(&server).len()), before);
    assert_eq!(files, place.logs().iter().map(|log| fs::read(log).unwrap()).collect::<Vec<_>>());
    assert_eq!(ended.json_summary()["rows"], 0);
    assert!(ended.json_runs().iter().all(|run| run["state"] == "synced"), "{}", ended.stdout);
    server.assert_content();
}

#[test]
fn offline_and_then_sync_is_the_same_as_online() {
    let (online, offline) = (Place::new(), Place::new());
    let (server, later) = (FakeServer::start(), FakeServer::start());
    for folder in ["showcase", "torch", "mixed"] {
        online.import(&server, [fixture_path(folder)]).run();
        offline.import_offline([fixture_path(folder)]).args(["-p", "p"]).run();
    }
    let ended = offline.sync(&later).arg("--json").run().ok();
    assert_eq!(ended.json_runs().len(), server.runs().len());
    for (a, b) in server.runs().iter().zip(later.runs()) {
        assert_eq!(a.id, b.id);
        assert_eq!(same_run(a, &b), Ok(()), "{}", a.display_name);
        assert_eq!(a.project, b.project);
    }
    later.assert_content();
    // And once more: all of it is marked as synced.
    let before = changes(&later).len();
    offline.sync(&later).run().ok();
    offline.sync(&later).arg("--include-synced").run().ok();
    assert_eq!(changes(&later).len(), before);
}

#[test]
fn disabled_touches_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("showcase", "logs");
    let listing = || crate::support::official::logs_below(&place.path("")).len();
    for command in [&["import", "logs"][..], &["watch", "logs", "--until-idle", "1s"], &["sync"], &["sync", "logs"]] {
        for by_variable in [false, true] {
            let call = place.call(command).args(["--dir", "out"]).server(&server);
            let call = if by_variable { call.env("WANDB_MODE", "disabled") } else { call.args(["--mode", "disabled"]) };
            let ended = call.run();
            if by_variable && command[0] == "sync" && ended.code == Some(9) {
                // `sync` is an explicit request, which a variable for training does not stop.
                continue;
            }
            let ended = ended.ok();
            assert_eq!(ended.stdout, "");
            assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        }
    }
    assert!(!place.path("out").exists() && logs.exists());
    assert_eq!((server.requests().len(), listing()), (0, 0));
}

/// Grows the file of a finished run, and imports again.
#[test]
fn a_finished_run_that_grew_goes_on() {
    let (place, server, official) = (Place::new(), FakeServer::start(), FakeServer::start());
    let logs = place.path("logs");
    let mut writer = Writer::new(&logs.join("exp"));
    writer.scalars("loss", (0..10).map(|step| (step, 1.0 / step as f32)));
    place.import(&server, [&logs]).run().ok();
    let first = named(&server, "exp");
    assert_eq!((first.history.len(), first.status), (10, RunStatus::Finished));
    check_exit_is_last(&place.log());

    writer.scalars("loss", (10..15).map(|step| (step, 0.5))).scalars("accuracy", [(14, 0.75)]);
    place.import(&server, [&logs]).run().ok();
    let run = named(&server, "exp");
    assert_eq!(run.history.len(), 15);
    assert_eq!(run.history[..10], first.history[..]);
    assert_eq!((run.status, run.exit_code, run.upserts, run.resent_lines), (RunStatus::Finished, Some(0), 2, 0));
    assert_eq!(run.summary_value().get("accuracy"), Some(&Json::parse("0.75").unwrap()));
    check_exit_is_last(&place.log());
    server.assert_content();

    // Offline growth, sent by `sync`.
    writer.scalars("loss", [(20, 0.25)]);
    place.import_offline([&logs]).run().ok();
    assert_eq!(named(&server, "exp").history.len(), 15);
    check_exit_is_last(&place.log());
    let ended = place.sync(&server).arg("--json").run().ok();
    assert_eq!(ended.json_runs()[0]["rows"], 1, "{}", ended.stdout);
    let run = named(&server, "exp");
    assert_eq!((run.history.len(), run.status, run.upserts), (16, RunStatus::Finished, 3));
    server.assert_content();

    // The whole log is still what the official client can sync.
    copy_tree(&place.path("out"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &official);
    official.assert_content();
    let theirs = official.run(&run.id).unwrap();
    let compared = Compared { files: false, ..Compared::default() };
    assert_eq!(same_run_but_for(&run, &theirs, &compared), Ok(()));
}

#[test]
fn other_places_get_the_whole_run() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = fixture_path("showcase");
    place.import(&server, [&logs]).run().ok();
    let first = server.runs();
    let before = changes(&server).len();
    place.call(["import", "--dir", "out", "-p", "other"]).arg(&logs).server(&server).run().ok();
    let runs = server.runs();
    assert_eq!(runs.len(), 6);
    for run in &first {
        let other = server.run_in("other", &run.id).unwrap();
        assert_eq!(same_run(run, &other), Ok(()));
        assert_eq!(server.run_in("p", &run.id).unwrap().history, run.history);
    }
    let touched_first = changes(&server)[before..].iter().any(|request| request.path.contains("/p/"));
    assert!(!touched_first);
    // Both are up to date now.
    let after = changes(&server).len();
    place.import(&server, [&logs]).run().ok();
    place.call(["import", "--dir", "out", "-p", "other"]).arg(&logs).server(&server).run().ok();
    assert_eq!(changes(&server).len(), after);
    // Another server is another place too.
    let second = FakeServer::start();
    place.import(&second, [&logs]).run().ok();
    for run in &first {
        assert_eq!(same_run(run, &second.run(&run.id).unwrap()), Ok(()));
    }
    server.assert_content();
    second.assert_content();
}

#[test]
fn a_generation_is_a_fresh_run_beside() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("torch/ppo", "ppo");
    place.import(&server, [&logs]).run().ok();
    let first = server.runs();
    place.import(&server, [&logs]).args(["--generation", "1"]).run().ok();
    let runs = server.runs();
    assert_eq!((first.len(), runs.len()), (3, 6));
    for old in &first {
        let fresh = runs.iter().find(|run| run.id != old.id && run.display_name == old.display_name).unwrap();
        assert_eq!(same_run(old, fresh), Ok(()));
    }
    // Each generation has its own way of making rows, and goes on by itself.
    let before = changes(&server).len();
    place.import(&server, [&logs]).args(["--generation", "1"]).run().ok();
    place.import(&server, [&logs]).run().ok();
    assert_eq!(changes(&server).len(), before);
    place.import(&server, [&logs]).args(["--generation", "2", "--axis", "*=frame"]).run().ok();
    let runs = server.runs();
    assert_eq!(runs.len(), 9);
    assert_eq!(runs.iter().filter(|run| !run.column("frame").is_empty()).count(), 3);
    server.assert_content();
}

#[test]
fn options_that_make_rows_cannot_change() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("torch/ppo", "ppo");
    place.import(&server, [&logs]).run().ok();
    let before = (changes(&server).len(), place.logs().iter().map(|log| fs::read(log).unwrap()).collect::<Vec<_>>());
    for (flag, value) in [("--axis", "*=frame"), ("--layout", "single"), ("--join", "{dir}")] {
        let ended = place.import(&server, [&logs]).args([flag, value]).run().code(2);
        assert!(ended.stderr.contains("--generation"), "{}", ended.stderr);
        assert!(ended.stderr.contains(flag), "{flag}: {}", ended.stderr);
        let now = (changes(&server).len(), place.logs().iter().map(|log| fs::read(log).unwrap()).collect::<Vec<_>>());
        assert!(now == before, "{flag} touched something");
    }
}

#[test]
fn options_that_describe_can_change() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = place.fixture("torch/ppo", "ppo");
    place.import(&server, [&logs]).run().ok();
    let before = server.runs();
    let described = ["--run-name", "run {dir}", "--group", "{root}", "--tags", "a,b {1}", "--notes", "from {path}"];
    place.import(&server, [&logs]).args(described).run().ok();
    for (before, run) in before.iter().zip(server.runs()) {
        let dir = &before.display_name;
        assert_eq!(run.display_name, format!("run {dir}"));
        assert_eq!(run.group.as_deref(), Some("ppo"));
        assert_eq!(run.tags, ["a".to_owned(), format!("b {dir}")]);
        assert_eq!(run.notes.as_deref(), Some(format!("from {dir}").as_str()));
        assert_eq!(run.history, before.history);
        assert_eq!((run.upserts, run.status, run.exit_code), (2, RunStatus::Finished, Some(0)));
    }
    place.logs().iter().for_each(|log| check_exit_is_last(log));
    // What was not asked for again stays.
    let changed = changes(&server).len();
    place.import(&server, [&logs]).run().ok();
    place.import(&server, [&logs]).args(described).run().ok();
    assert_eq!(changes(&server).len(), changed);
    server.assert_content();
}

#[test]
fn join_and_layouts() {
    let server = FakeServer::start();
    let import = |project: &str, arguments: &[&str]| {
        let place = Place::new();
        place.fixture("torch/ppo", "logs/ppo");
        place.fixture("keras/epochs", "logs/epochs");
        place.call(["import", "logs", "-p", project]).args(arguments).server(&server).run().ok();
        let mut runs: Vec<_> = server.runs().into_iter().filter(|run| run.project == project).collect();
        runs.sort_by(|a, b| a.display_name.cmp(&b.display_name));
        runs
    };
    let rows = |run: &RunSnapshot| run.history.len();

    let joined = import("join", &["--join", "{1}"]);
    assert_eq!(joined.iter().map(|run| run.display_name.as_str()).collect::<Vec<_>>(), ["epochs", "ppo"]);
    let ppo = &joined[1];
    assert_eq!(ppo.column("global_step").len(), 120);
    let times: Vec<f64> = ppo.column("_timestamp").iter().map(|time| time.to_string().parse().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let apart = import("apart", &["--layout", "per-directory"]);
    let names: Vec<&str> = apart.iter().map(|run| run.display_name.as_str()).collect();
    assert_eq!(names, ["epochs/train", "epochs/validation", "ppo/seed0", "ppo/seed1", "ppo/seed2"]);
    assert!(!apart[0].column("epoch_loss").is_empty());

    let single = import("single", &["--layout", "single"]);
    assert_eq!(single.iter().map(|run| run.display_name.as_str()).collect::<Vec<_>>(), ["logs"]);
    assert_eq!(rows(&single[0]), apart.iter().map(rows).sum::<usize>());
    assert!(!single[0].column("epochs/train/epoch_loss").is_empty());
    server.assert_content();
}

#[test]
fn axes_can_be_chosen() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("exp"));
    writer.scalars("val/loss", [(1, 0.5), (2, 0.25)]).scalars("loss", [(10, 1.0)]);
    let ended = place.import(&server, ["exp"]).args(["--axis", "val/*=epoch", "--axis", "nothing*=x"]).run().ok();
    assert!(ended.stderr.contains("`--axis nothing*=x` matches no metric"), "{}", ended.stderr);
    let run = named(&server, "exp");
    assert_eq!(run.column("epoch"), [1, 2].map(Json::from));
    assert_eq!(run.column("global_step"), [10].map(Json::from));
    let metrics = run.config_value().get("_wandb").unwrap().get("m").unwrap().to_string();
    assert_eq!(
        metrics,
        r#"[{"1":"epoch","6":[3],"7":[]},{"1":"global_step","6":[3],"7":[]},{"1":"loss","5":2,"6":[3],"7":[]},{"1":"val/loss","5":1,"6":[3],"7":[]}]"#
    );
}

#[test]
fn damage_is_counted_and_loses_nothing_else() {
    let (place, server) = (Place::new(), FakeServer::start());
    let ended = place.import(&server, [fixture_path("damaged")]).arg("--json").run().code(3);
    server.assert_content();
    let (record, file, tail) = (("damaged record", true), ("damaged file", true), ("unfinished last record", false));
    type Expected<'a> = (&'a str, u64, &'a [(&'a str, bool)]);
    let expected: &[Expected] = &[
        ("bad_length_checksum", 60, &[file]),
        ("flipped_payload_byte", 119, &[record]),
        ("torn_middle", 60, &[record, file]),
        ("truncated_tail", 119, &[tail]),
        ("zero_filled_tail", 120, &[]),
    ];
    let runs = ended.json_runs();
    assert_eq!(runs.len(), expected.len());
    for (run, (name, scalars, skips)) in runs.iter().zip(expected) {
        assert_eq!((run["name"].as_str(), run["events"].as_u64()), (Some(*name), Some(*scalars)));
        let skips: BTreeMap<_, _> = skips.iter().map(|(reason, loss)| ((*reason).to_owned(), (1, *loss))).collect();
        assert_eq!(skipped(run), skips, "{name}");
        let loss = skips.values().any(|(_, loss)| *loss);
        assert_eq!(run["state"], if loss { "partial" } else { "synced" }, "{name}");
        let there = named(&server, name);
        let values: usize = ["rollout/ep_rew_mean", "rollout/ep_len_mean", "train/value_loss"]
            .iter()
            .map(|key| there.column(key).len())
            .sum();
        assert_eq!((values as u64, there.status), (*scalars, RunStatus::Finished), "{name}");
    }
    let summary = ended.json_summary();
    assert_eq!((summary["partial"].as_u64(), summary["synced"].as_u64()), (Some(3), Some(2)));
    // Files with nothing whole in them make no run, but they are counted.
    assert_eq!(skipped(&summary)["unfinished last record"], (3, false));

    // Each by itself has the code that its loss asks for.
    for (name, code) in [("truncated_tail", 0), ("zero_filled_tail", 0), ("flipped_payload_byte", 3), ("empty", 9)] {
        let place = Place::new();
        place.import_offline([fixture_path("damaged").join(name)]).run().code(code);
    }
}

#[test]
fn the_tail_that_was_unfinished_is_read_when_it_is_whole() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("exp"));
    writer.scalars("loss", (0..4).map(|step| (step, 0.5)));
    let whole = fs::read(writer.path()).unwrap();
    fs::write(writer.path(), &whole[..whole.len() - 5]).unwrap();
    let ended = place.import(&server, ["exp"]).arg("--json").run().ok();
    assert_eq!(skipped(&ended.json_summary())["unfinished last record"], (1, false));
    assert_eq!(named(&server, "exp").history.len(), 3);
    fs::write(writer.path(), &whole).unwrap();
    place.import(&server, ["exp"]).run().ok();
    assert_eq!(named(&server, "exp").column("global_step"), [0, 1, 2, 3].map(Json::from));
    server.assert_content();
}

#[test]
fn new_files_of_a_known_run_go_on_in_it() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut first = Writer::create(&place.path("logs/exp"), "events.out.tfevents.1784016000.trainer-0.1.0");
    first.scalars("loss", (0..3).map(|step| (step, 0.5)));
    place.import(&server, ["logs"]).run().ok();
    // A restart, and a file with an older name that appears late.
    let mut second = Writer::create(&place.path("logs/exp"), "events.out.tfevents.1784016900.trainer-0.2.0");
    second.now = START + 900.0;
    second.scalars("loss", (3..5).map(|step| (step, 0.5)));
    let mut older = Writer::create(&place.path("logs/exp"), "events.out.tfevents.1784015000.trainer-0.0.0");
    older.now = START - 1000.0;
    older.scalars("early", [(0, 1.0)]);
    place.import(&server, ["logs"]).run().ok();
    let run = named(&server, "exp");
    assert_eq!((run.column("loss").len(), run.column("early").len(), run.upserts), (5, 1, 2));
    check_exit_is_last(&place.log());
    server.assert_content();
}

#[test]
fn one_lost_run_stops_no_other() {
    for fault in [
        Fault::status(Route::graphql("UpsertBucket"), 404),
        Fault::status(Route::graphql("UpsertBucket"), 410),
        Fault::status(Route::graphql("UpsertBucket"), 409).body(r#"{"errors":[{"message":"run x was deleted"}]}"#),
        Fault::status(Route::FileStream, 404),
        Fault::status(Route::FileStream, 409),
    ] {
        let (place, server) = (Place::new(), FakeServer::start());
        let text = format!("{fault:?}");
        server.fault(fault);
        let ended = place.import(&server, [fixture_path("torch/ppo")]).arg("--json").run();
        assert_eq!(ended.code, Some(3), "{text}\n{}", ended.stderr);
        let states: Vec<String> =
            ended.json_runs().iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
        assert_eq!(states.iter().filter(|state| *state == "failed").count(), 1, "{text} {states:?}");
        assert_eq!(states.iter().filter(|state| *state == "synced").count(), 2, "{text} {states:?}");
        let failed = ended.json_runs().into_iter().find(|run| run["state"] == "failed").unwrap();
        assert!(failed["error"].is_string(), "{text}");
        server.assert_content();
        // When the server has changed its mind, the same command brings the rest.
        place.import(&server, [fixture_path("torch/ppo")]).run().ok();
        assert_eq!(server.runs().iter().map(|run| run.column("global_step").len()).sum::<usize>(), 120, "{text}");
    }
}

#[test]
fn json_lines_add_up() {
    let (place, server) = (Place::new(), FakeServer::start());
    let ended = place.import(&server, [fixture_path("mixed"), fixture_path("torch")]).arg("--json").run().ok();
    let lines = ended.json();
    let summary = ended.json_summary();
    let runs = ended.json_runs();
    assert_eq!(lines.len(), runs.len() + 1);
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for run in &runs {
        let wanted = [
            "type",
            "source",
            "run_id",
            "run_path",
            "name",
            "group",
            "dir",
            "url",
            "rows",
            "events",
            "kinds",
            "files",
            "run_files",
            "run_file_bytes",
            "log_bytes",
            "artifacts",
            "skipped",
            "state",
            "error",
        ];
        assert_eq!(fields(run), wanted);
        let dir = run["dir"].as_str().unwrap();
        assert!(place.path(dir).join(format!("run-{}.wandb", run["run_id"].as_str().unwrap())).is_file(), "{dir}");
        assert!(Path::new(run["source"].as_str().unwrap()).is_dir());
        let id = run["run_id"].as_str().unwrap();
        assert_eq!(run["url"], format!("{}/tester/p/runs/{id}", server.url()));
    }
    let wanted = [
        "type",
        "runs",
        "rows",
        "events",
        "bytes",
        "kinds",
        "files",
        "artifacts",
        "run_files",
        "run_file_bytes",
        "log_bytes",
        "skipped",
        "synced",
        "partial",
        "failed",
        "offline",
        "running",
        "skipped_runs",
        "seconds",
        "exit_code",
    ];
    assert_eq!(fields(&summary), wanted);
    let sum = |field: &str| runs.iter().map(|run| run[field].as_u64().unwrap()).sum::<u64>();
    let count = |state: &str| runs.iter().filter(|run| run["state"] == state).count() as u64;
    for field in ["rows", "events", "files"] {
        assert_eq!(summary[field].as_u64(), Some(sum(field)), "{field}");
    }
    for state in ["synced", "partial", "failed", "offline", "running"] {
        assert_eq!(summary[state].as_u64(), Some(count(state)), "{state}");
    }
    assert_eq!((summary["runs"].as_u64(), summary["exit_code"].as_i64()), (Some(runs.len() as u64), Some(0)));
    let mut skips: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    for (reason, (count, loss)) in runs.iter().flat_map(skipped) {
        let entry = skips.entry(reason).or_insert((0, loss));
        entry.0 += count;
    }
    assert_eq!(skipped(&summary), skips);
    let size = |path: &Path| {
        let mut all = Vec::new();
        files_below(path, &mut all);
        all.iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>()
    };
    assert_eq!(summary["bytes"].as_u64(), Some(size(&fixture_path("mixed")) + size(&fixture_path("torch"))));
    // The same, recorded only.
    let ended = Place::new().import_offline([fixture_path("torch")]).arg("--json").run().ok();
    assert_eq!((ended.json_summary()["offline"].as_u64(), ended.json_summary()["synced"].as_u64()), (Some(6), Some(0)));
    assert!(ended.json_runs().iter().all(|run| run["url"].is_null() && run["state"] == "offline"));
}

fn files_below(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, into) } else { into.push(path) }
    }
}

#[test]
fn a_dry_run_writes_and_sends_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let ended = place.import(&server, [fixture_path("showcase")]).args(["--dry-run", "--json"]).run().ok();
    assert_eq!((ended.json_summary()["runs"].as_u64(), ended.json_summary()["events"].as_u64()), (Some(3), Some(580)));
    assert!(!place.path("out").exists());
    assert_eq!(server.requests().len(), 0);
    // After a real import there is nothing new to count.
    place.import(&server, [fixture_path("showcase")]).run().ok();
    let before = changes(&server).len();
    let ended = place.import(&server, [fixture_path("showcase")]).args(["--dry-run", "--json"]).run().ok();
    assert_eq!(ended.json_summary()["events"].as_u64(), Some(0));
    assert_eq!(changes(&server).len(), before);
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_input() {
    let peak = |events: i64| {
        let place = Place::new();
        let mut writer = Writer::new(&place.path("exp"));
        writer.scalars("a tag with a name of some length", (0..events).map(|step| (step, step as f32)));
        let size = fs::metadata(writer.path()).unwrap().len();
        let (ended, peak) = place.import_offline(["exp"]).spawn().wait_and_measure();
        ended.ok();
        assert_eq!(id_of(&place.log()).len(), 10);
        (size, peak)
    };
    let ((small, small_peak), (large, large_peak)) = (peak(30_000), peak(300_000));
    let (more_input, more_memory) = (large - small, large_peak.saturating_sub(small_peak));
    assert!(more_memory < more_input / 2, "{more_input} bytes more input took {more_memory} bytes more memory");
}

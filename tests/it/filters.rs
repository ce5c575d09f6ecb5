//! Filters, restarts and summaries: what is left out is counted and is no loss, and what stays is where it was asked to be.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wandb_bridge::model::Json;
use wandb_bridge::proto::tensorboard::session_log::SessionStatus;
use wandb_bridge::proto::tensorboard::{Event, SessionLog, event};

use crate::support::bridge::{Call, Ended, Place, fixture_path};
use crate::support::events::{START, Writer, scalar};
use crate::support::server::{FakeServer, RunSnapshot};

/// The counts of one kind in the summary: read, sent, left out.
fn counts(ended: &Ended, kind: &str) -> [u64; 3] {
    let counts = &ended.json_summary()["kinds"][kind];
    ["read", "sent", "left_out"].map(|what| counts[what].as_u64().unwrap_or_default())
}

/// Every kind adds up.
#[track_caller]
fn check_sums(ended: &Ended) {
    for (kind, counts) in ended.json_summary()["kinds"].as_object().unwrap() {
        let count = |what: &str| counts[what].as_u64().unwrap();
        assert_eq!(count("read"), count("sent") + count("kept") + count("left_out") + count("lost"), "{kind}");
    }
}

fn only_run(server: &FakeServer) -> RunSnapshot {
    server.assert_content();
    let mut runs = server.runs();
    assert_eq!(runs.len(), 1);
    runs.remove(0)
}

fn column(run: &RunSnapshot, key: &str) -> Vec<String> {
    run.column(key).iter().map(Json::to_string).collect()
}

fn summary(run: &RunSnapshot, key: &str) -> Value {
    serde_json::from_str(&run.summary_value().get(key).map_or("null".to_owned(), Json::to_string)).unwrap()
}

/// Two tags with a value each second: `train/loss` and `val/loss`, three of each, and one of `lr`.
fn write_three(place: &Place) {
    let mut writer = Writer::new(&place.path("logs/exp"));
    for step in 0..3 {
        let points = [scalar(step, "train/loss", 1.0), scalar(step, "val/loss", 2.0)];
        writer.append(&points);
    }
    writer.scalars("lr", [(3, 0.5)]);
}

#[test]
fn tags_are_included_and_excluded_by_their_final_names() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_three(&place);
    let filters = ["--tags-include", "*loss", "--tags-exclude", "train/*", "--tags-exclude", "nothing/*", "--json"];
    let ended = place.import(&server, [place.path("logs")]).args(filters).run().ok();
    assert_eq!(counts(&ended, "scalars"), [7, 3, 4]);
    check_sums(&ended);
    let run = only_run(&server);
    assert_eq!((run.history.len(), column(&run, "val/loss").len()), (3, 3));
    assert!(column(&run, "train/loss").is_empty() && column(&run, "lr").is_empty());
    assert!(ended.stderr.contains("`--tags-exclude nothing/*` matches no metric"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("matches no metric").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("read 7 values = 3 sent + 4 left out"), "{}", ended.stderr);
    let skipped = &ended.json_summary()["skipped"];
    assert_eq!(
        (&skipped[0]["reason"], &skipped[0]["count"], &skipped[0]["loss"]),
        (&json!("left out by a filter"), &json!(4), &json!(false))
    );

    // What was left out before is not taken for a misspelled glob when there is nothing new.
    let again = place.import(&server, [place.path("logs")]).args(filters).run().ok();
    assert_eq!(again.stderr.matches("matches no metric").count(), 1, "{}", again.stderr);
    assert_eq!(only_run(&server).history.len(), 3);
}

#[test]
fn every_kind_of_glob_option_that_matches_nothing_is_said() {
    let place = Place::new();
    write_three(&place);
    let options = [
        "--axis",
        "a=epoch",
        "--axis",
        "lr=batch",
        "--summary",
        "b=min",
        "--summary",
        "*=last",
        "--tags-include",
        "c",
        "--tags-include",
        "l*",
        "--tags-exclude",
        "d",
    ];
    let ended = place.import_offline([place.path("logs")]).args(options).run().ok();
    for idle in ["--axis a=epoch", "--summary b=min", "--tags-include c", "--tags-exclude d"] {
        assert!(ended.stderr.contains(&format!("`{idle}` matches no metric")), "{}", ended.stderr);
    }
    assert_eq!(ended.stderr.matches("matches no metric").count(), 4, "{}", ended.stderr);
}

#[test]
fn axes_are_chosen_by_the_first_rule() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_three(&place);
    let options = ["--axis", "val/*=epoch", "--axis", "*loss=batch"];
    place.import(&server, [place.path("logs")]).args(options).run().ok();
    let run = only_run(&server);
    assert_eq!(column(&run, "epoch"), ["0", "1", "2"]);
    assert_eq!(column(&run, "batch"), ["0", "1", "2"]);
    assert_eq!(column(&run, "global_step"), ["3"]);
}

#[test]
fn times_choose_events() {
    let (place, server) = (Place::new(), FakeServer::start());
    // The version event is at START; then one event each second.
    Writer::new(&place.path("logs/exp")).scalars("loss", (1..10).map(|step| (step, 1.0)));
    let time = |seconds: i64| jiff::Timestamp::from_second(START as i64 + seconds).unwrap().to_string();
    let (since, until) = (time(3), time(6));
    let filters = ["--since", &since, "--until", &until, "--json"];
    let ended = place.import(&server, [place.path("logs")]).args(filters).run().ok();
    assert_eq!(counts(&ended, "scalars"), [9, 3, 6]);
    assert_eq!(column(&only_run(&server), "global_step"), ["3", "4", "5"]);
}

#[test]
fn a_run_of_which_nothing_is_wanted_is_not_made() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut old = Writer::new(&place.path("logs/old"));
    old.now = jiff::Timestamp::now().as_second() as f64 - 10.0 * 86_400.0;
    old.scalars("loss", [(0, 1.0), (1, 1.0)]);
    let mut new = Writer::new(&place.path("logs/new"));
    new.now = jiff::Timestamp::now().as_second() as f64;
    new.scalars("loss", [(0, 2.0)]);
    let import = |filters: &[&str]| {
        let call = place.import(&server, [place.path("logs")]).args(filters).args(["--restarts", "keep", "--json"]);
        call.run().ok()
    };
    let ended = import(&["--since", "2d"]);
    check_sums(&ended);
    assert_eq!(counts(&ended, "scalars"), [3, 1, 2]);
    let states: Vec<(Value, Value)> =
        ended.json_runs().iter().map(|run| (run["name"].clone(), run["state"].clone())).collect();
    assert_eq!(states, [(json!("new"), json!("synced")), (json!("old"), json!("skipped"))]);
    assert_eq!(only_run(&server).display_name, "new");
    assert!(ended.stderr.contains("left out: 1 run"), "{}", ended.stderr);
    assert_eq!(place.logs().len(), 1);
}

#[test]
fn a_watch_makes_no_run_of_what_is_too_old() {
    let place = Place::new();
    let mut old = Writer::new(&place.path("logs/old"));
    old.scalars("loss", [(0, 1.0)]);
    let long_ago = SystemTime::now() - Duration::from_secs(86_400 * 400);
    File::options().append(true).open(old.path()).unwrap().set_modified(long_ago).unwrap();
    let mut new = Writer::new(&place.path("logs/new"));
    new.now = jiff::Timestamp::now().as_second() as f64;
    new.scalars("loss", [(0, 2.0)]).scalars("lr", [(1, 2.0)]);
    let watch = place.call(["watch", "--dir", "out", "--mode", "offline", "--json", "--until-idle", "500ms"]);
    let filters = ["--since", "300d", "--tags-exclude", "lr"];
    let ended = watch.args(filters).arg(place.path("logs")).run().ok();
    assert_eq!(counts(&ended, "scalars"), [2, 1, 1]);
    assert_eq!(place.logs().len(), 1);
    assert!(ended.stderr.contains("left out"), "{}", ended.stderr);
}

#[test]
fn kinds_are_chosen_by_name() {
    let place = Place::new();
    let logs = fixture_path("tf1/supervisor");
    let import = |place: &Place, kinds: &str| {
        place.import_offline([&logs]).args(["--json", "-p", "p", "--kinds", kinds]).run().ok()
    };
    let all = place.call(["import", "--dry-run", "--json"]).arg(&logs).run();
    let read = all.json_summary()["kinds"].clone();
    let others: u64 = read
        .as_object()
        .unwrap()
        .iter()
        .filter(|(kind, _)| *kind != "scalars")
        .map(|(_, count)| count["read"].as_u64().unwrap())
        .sum();
    assert!(others > 0 && read["scalars"]["read"].as_u64().unwrap() > 0, "{read}");

    let ended = import(&place, "scalars");
    check_sums(&ended);
    for (kind, count) in ended.json_summary()["kinds"].as_object().unwrap() {
        assert_eq!(count["read"], read[kind]["read"], "{kind}");
        let left_out = if kind == "scalars" { json!(0) } else { count["read"].clone() };
        assert_eq!((&count["left_out"], &count["lost"]), (&left_out, &json!(0)), "{kind}");
    }
    // No file is written for what is left out.
    let media = |place: &Place| place.logs()[0].parent().unwrap().join("files");
    assert!(!media(&place).join("media").exists() && !media(&place).join("tensorboard").exists());

    let text_only = Place::new();
    let ended = import(&text_only, "text");
    check_sums(&ended);
    assert_eq!(counts(&ended, "scalars")[1], 0);
}

#[test]
fn other_filters_on_a_second_pass_touch_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    write_three(&place);
    let import = |filters: &[&str]| place.import(&server, [place.path("logs")]).args(filters);
    let first = ["--tags-exclude", "lr", "--kinds", "text,scalars", "--since", "2026-07-01"];
    import(&first).run().ok();
    let before = (fs::read(place.log()).unwrap(), server.requests().len());
    let refused = |filters: &[&str], named: &[&str]| {
        let ended = import(filters).run().code(2);
        for flag in named {
            assert!(ended.stderr.contains(flag), "{flag}: {}", ended.stderr);
        }
        assert!(ended.stderr.contains("--generation 1"), "{}", ended.stderr);
        assert_eq!(fs::read(place.log()).unwrap(), before.0);
    };
    refused(&[], &["--tags-exclude", "--kinds", "--since"]);
    refused(&["--tags-exclude", "lr", "--kinds", "text,scalars", "--since", "2026-07-02"], &["--since"]);
    refused(
        &["--tags-include", "*", "--until", "1d", "--restarts", "purge"],
        &["--tags-include", "--until", "--restarts"],
    );
    // The same kinds in another order are the same.
    import(&["--tags-exclude", "lr", "--kinds", "scalars,text", "--since", "2026-07-01"]).run().ok();
    import(&["--generation", "1"]).run().ok();
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn bodies_are_named_as_they_are_in_the_run() {
    let place = Place::new();
    let import = |out: &str, filters: &[&str]| {
        let call = place.call(["import", "--mode", "offline", "--json", "--dir", out]).args(filters);
        call.arg(fixture_path("every_kind/torch")).run()
    };
    let all = counts(&import("all", &[]), "mesh");
    assert!(all[0] > 0 && all[1] == all[0], "{all:?}");
    let body = import("some", &["--kinds", "mesh", "--tags-include", "body"]).ok();
    let [_, sent, others] = counts(&body, "mesh");
    assert!(sent > 0 && others > 0 && sent + others == all[0], "{sent} and {others} of {all:?}");
    assert!(!body.stderr.contains("matches no metric"), "{}", body.stderr);
    let none = import("none", &["--kinds", "mesh", "--tags-exclude", "body"]).ok();
    assert_eq!(counts(&none, "mesh"), [all[0], others, sent]);
    assert!(!none.stderr.contains("matches no metric"), "{}", none.stderr);
    // And `inspect` says the same before.
    let call = place.call(["inspect", "--json", "--kinds", "mesh", "--tags-exclude", "body"]);
    let seen = call.arg(fixture_path("every_kind/torch")).run().ok();
    let left_out = |line: &Value| line["kinds"]["mesh"]["left_out"].as_u64().unwrap_or_default();
    assert_eq!(seen.json_runs().iter().map(left_out).sum::<u64>(), sent);
    assert!(!seen.stderr.contains("matches no metric"), "{}", seen.stderr);
}

#[test]
fn files_beside_event_files_are_kinds_too() {
    let place = Place::new();
    Writer::new(&place.path("logs/exp")).scalars("loss", [(0, 1.0)]);
    let profile = place.path("logs/exp/plugins/profile/1");
    fs::create_dir_all(&profile).unwrap();
    fs::write(profile.join("host.xplane.pb"), "x").unwrap();
    let ended = place.import_offline([place.path("logs")]).args(["--kinds", "scalars", "--json"]).run().ok();
    check_sums(&ended);
    assert_eq!((counts(&ended, "profile"), counts(&ended, "scalars")), ([1, 0, 1], [1, 1, 0]));
    assert!(!place.log().parent().unwrap().join("files/tensorboard").exists());
}

fn session_start(step: i64) -> Event {
    let log = SessionLog { status: SessionStatus::Start.into(), ..SessionLog::default() };
    Event { step, what: Some(event::What::SessionLog(log)), ..Event::default() }
}

/// A training that was cut short twice: once it says where it goes on, once it only begins a new file.
fn write_restarts(place: &Place) {
    let mut first = Writer::create(&place.path("logs/exp"), "events.out.tfevents.1784016000.a");
    first.scalars("loss", (0..5).map(|step| (step, 1.0)));
    first.append(&[session_start(3)]);
    first.scalars("loss", (3..8).map(|step| (step, 2.0)));
    let mut second = Writer::create(&place.path("logs/exp"), "events.out.tfevents.1784016900.a");
    second.now = first.now + 60.0;
    second.scalars("loss", (6..9).map(|step| (step, 3.0)));
}

#[test]
fn superseded_steps_are_kept_or_purged() {
    let (kept, purged) = (Place::new(), Place::new());
    let (server, other) = (FakeServer::start(), FakeServer::start());
    write_restarts(&kept);
    write_restarts(&purged);
    let ended = kept.import(&server, [kept.path("logs")]).arg("--json").run().ok();
    assert_eq!(counts(&ended, "scalars"), [13, 13, 0]);
    assert!(ended.stderr.contains("4 values at steps that their metric had passed already"), "{}", ended.stderr);

    let purge = |json: &str| purged.import(&other, [purged.path("logs")]).args(["--restarts", "purge", json]);
    let ended = purge("--json").run().ok();
    assert_eq!(counts(&ended, "scalars"), [13, 9, 4]);
    let skipped = &ended.json_summary()["skipped"];
    assert_eq!((&skipped[0]["reason"], &skipped[0]["loss"]), (&json!("superseded by a restart"), &json!(false)));
    assert!(!ended.stderr.contains("passed already"), "{}", ended.stderr);
    let run = only_run(&other);
    assert_eq!(column(&run, "global_step"), (0..9).map(|step| step.to_string()).collect::<Vec<_>>());
    assert_eq!(column(&run, "loss"), ["1", "1", "1", "2", "2", "2", "3", "3", "3"]);

    // What was recorded cannot be taken back: a later restart is said.
    let ended = purge("--json").run().ok();
    assert_eq!(ended.json_summary()["rows"], 0);
    let mut third = Writer::create(&purged.path("logs/exp"), "events.out.tfevents.1784017900.a");
    third.now = START + 10_000.0;
    third.scalars("loss", (7..10).map(|step| (step, 4.0)));
    let ended = purge("--json").run().ok();
    assert_eq!(ended.json_summary()["rows"], 3);
    assert!(ended.stderr.contains("2 values at steps that their metric had passed already"), "{}", ended.stderr);
}

#[test]
fn purging_is_refused_where_rows_are_sent_at_once() {
    let place = Place::new();
    write_restarts(&place);
    let watch =
        |call: Call| call.args(["--mode", "offline", "--dir", "out", "--until-idle", "1s"]).arg(place.path("logs"));
    let ended = watch(place.call(["watch", "--restarts", "purge"])).run().code(2);
    assert!(ended.stderr.contains("`--restarts`") && ended.stderr.contains("`import`"), "{}", ended.stderr);
    assert!(place.logs().is_empty());
    let ended = watch(place.call(["watch"]).env("WANDB_BRIDGE_RESTARTS", "purge")).run().code(2);
    assert!(ended.stderr.contains("`WANDB_BRIDGE_RESTARTS`"), "{}", ended.stderr);
}

#[test]
fn summaries_go_on_from_pass_to_pass() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/exp"));
    let import = |rules: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--summary", rule]);
        place.import(&server, [place.path("logs")]).args(rules).run().ok();
        only_run(&server)
    };
    let rules = ["loss=min,max,mean,first,last", "hidden=none"];
    writer.scalars("loss", [(0, 3.0), (1, 1.0)]).scalars("hidden", [(2, 1.0)]).scalars("plain", [(2, 1.0)]);
    let run = import(&rules);
    assert_eq!(summary(&run, "loss"), json!({"min": 1, "max": 3, "mean": 2, "first": 3, "last": 1}));
    assert_eq!((summary(&run, "hidden"), summary(&run, "plain")), (json!(null), json!(1)));
    writer.scalars("loss", [(3, 5.0)]);
    let run = import(&rules);
    assert_eq!(summary(&run, "loss"), json!({"min": 1, "max": 5, "mean": 3, "first": 3, "last": 5}));
    assert_eq!(run.config_value().get("_wandb").unwrap().get("m").unwrap().to_string(), METRICS);

    // Other rules only describe: the rows stay, and what they say of the past is read from the log.
    let run = import(&["*=max"]);
    assert_eq!(run.history.len(), 4);
    assert_eq!(summary(&run, "loss"), json!({"max": 5}));
    assert_eq!((summary(&run, "hidden"), summary(&run, "plain")), (json!({"max": 1}), json!({"max": 1})));
    // Without any, nothing changes.
    writer.scalars("loss", [(4, 4.0)]);
    let run = import(&[]);
    assert_eq!((run.history.len(), summary(&run, "loss")), (5, json!({"max": 5})));
    let run = import(&["loss=none"]);
    assert_eq!((summary(&run, "loss"), summary(&run, "plain")), (json!(null), json!(1)));
    assert_eq!(run.history.len(), 5);
}

const METRICS: &str = concat!(
    r#"[{"1":"global_step","6":[3],"7":[]},{"1":"hidden","5":1,"6":[3],"7":[6]},"#,
    r#"{"1":"loss","5":1,"6":[3],"7":[1,2,3,5,8]},{"1":"plain","5":1,"6":[3],"7":[]}]"#
);

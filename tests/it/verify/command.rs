//! The command itself: exit codes, what it prints, waiting, and `--verify` of others.

use std::fs;

use super::{line, lines, missing, scalars, verify};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, Fault, Route, Storm};

#[test]
fn exit_codes_tell_why() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 3);
    place.call(["verify"]).arg(&logs).env("WANDB_BASE_URL", server.url()).run().code(4);
    let refused = place.call(["verify"]).arg(&logs).server(&server).env("WANDB_API_KEY", "x".repeat(40)).run();
    assert!(refused.code(4).stderr.contains("did not accept the API key"));
    fs::create_dir(place.path("empty")).unwrap();
    place.call(["verify", "empty"]).server(&server).run().code(9);
    place.call(["verify", "nothing"]).server(&server).run().code(2);
    place.call(["verify", "--mode", "offline"]).arg(&logs).server(&server).run().code(2);
    let offline = place.call(["verify"]).arg(&logs).server(&server).env("WANDB_MODE", "offline");
    offline.run().code(3);
    let disabled = place.call(["verify"]).arg(&logs).server(&server).env("WANDB_MODE", "disabled");
    assert_eq!(disabled.run().ok().stdout, "");

    server.fault(Fault::status(Route::AnyGraphql, 503).times(100));
    let down = place.call(["verify", "--retries", "1", "--retry-wait", "1ms"]).arg(&logs).server(&server);
    assert!(down.run().code(5).stderr.contains("try again later"));
}

#[test]
fn a_row_that_comes_late_is_waited_for() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.import(&server, [&logs]).run().ok();
    let run = server.runs().pop().unwrap();
    server.lose_history(&run.id, 4);
    // Without patience it is missing.
    assert_eq!(missing(&line(&verify(&place, &server, &[&logs]).run().code(3))), ["rows _step 4: missing"]);
    let asked = server.operations("Run").len();
    let waiting = verify(&place, &server, &[&logs]).args(["--wait", "2m"]).spawn();
    server.wait_until(std::time::Duration::from_secs(60), |world| {
        let looks = world.requests.iter().filter(|request| request.operation.as_deref() == Some("Run"));
        looks.count() > asked
    });
    server.append_history(&run.id, &run.history[4]);
    assert_eq!(line(&waiting.wait().ok())["state"], "complete");
}

#[test]
fn a_person_reads_what_is_missing_and_how_it_was_compared() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.import(&server, [&logs]).run().ok();
    let id = server.runs().pop().unwrap().id;
    let human = || place.call(["verify", "--dir", "out", "-p", "p"]).arg(&logs).server(&server).run();
    let whole = human().ok();
    assert!(whole.stdout.starts_with(&format!("tester/p/{id}: complete `run`\n")), "{}", whole.stdout);
    assert!(whole.stdout.contains("  compared: 5 rows, "), "{}", whole.stdout);
    let last = "verified 1 run: 1 complete; 5 of 5 rows compared exactly\n";
    assert!(whole.stderr.ends_with(last), "{}", whole.stderr);
    server.lose_history(&id, 4);
    let lacking = human().code(3);
    assert!(lacking.stdout.contains("\n  row _step 4: missing\n"), "{}", lacking.stdout);
    assert!(lacking.stderr.contains("verified 1 run: 0 complete, 1 incomplete;"), "{}", lacking.stderr);
}

#[test]
fn the_summary_comes_last() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.import(&server, [&logs]).run().ok();
    let ended = verify(&place, &server, &[&logs]).run().ok();
    let summary = ended.json_summary();
    for (field, value) in
        [("runs", 1), ("complete", 1), ("missing", 0), ("rows", 5), ("rows_exact", 5), ("exit_code", 0)]
    {
        assert_eq!(summary[field], value, "{field}");
    }
}

#[test]
fn nothing_is_written_here_or_there() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.import(&server, [&logs]).run().ok();
    let disk = || {
        let mut all = Vec::new();
        let mut directories = vec![place.path("out"), place.path("logs")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => directories.push(path),
                    false => all.push((fs::read(&path).unwrap(), path)),
                }
            }
        }
        all.sort();
        all
    };
    let (before, asked) = (disk(), server.requests().len());
    for paths in [["logs", "out"], ["out/wandb", "logs/run"]] {
        let paths = paths.map(|path| place.path(path));
        let ended = verify(&place, &server, &[&paths[0], &paths[1]]).run().ok();
        // By its event files and by its log it is one run.
        assert_eq!(lines(&ended).len(), 1);
    }
    assert!(disk() == before);
    let requests = server.requests().split_off(asked);
    let operations: Vec<_> = requests.iter().filter_map(|request| request.operation.as_deref()).collect();
    assert_eq!(operations.len(), requests.len());
    assert_eq!(operations, ["Run"; 2], "a small run is one request");
    server.assert_content();
}

#[test]
fn bad_weather_is_waited_for() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 7000);
    place.fixture("every_kind", "logs/kinds");
    place.import(&server, [&logs]).run();
    let in_calm = lines(&verify(&place, &server, &[&logs]).run());
    server.storm(Storm::new(7, 40));
    let in_storm = lines(&verify(&place, &server, &[&logs]).args(["--retry-wait", "1ms"]).run());
    let sorted = |mut lines: Vec<serde_json::Value>| {
        lines.sort_by_key(|line| line["run_id"].to_string());
        lines
    };
    assert!(in_calm.iter().all(|line| line["state"] == "complete"));
    assert_eq!(sorted(in_storm), sorted(in_calm));
}

#[test]
fn a_run_that_another_process_uploads_is_said_to_be() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    let gate = crate::support::server::Gate::default();
    server.fault(Fault::stall(Route::FileStream, &gate));
    let importing = place.import(&server, [&logs]).spawn();
    server.wait_until(std::time::Duration::from_secs(60), |world| {
        world.requests.iter().any(|request| request.path.ends_with("/file_stream"))
    });
    let line = line(&verify(&place, &server, &[&logs]).run().code(3));
    let holder = line["held_by"].as_str().unwrap();
    assert!(holder.starts_with(&format!("process {} on ", importing.id())), "{holder}");
    gate.open();
    importing.wait().ok();
}

#[test]
fn import_verifies_what_it_sent() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = scalars(&place, 5);
    place.fixture("every_kind/torch", "logs/media");
    let ended = place.import(&server, [&logs]).args(["--verify", "--json"]).run().ok();
    assert_eq!(lines(&ended).len(), 2);
    assert_eq!(ended.json_summary()["exit_code"], 0);
    let id = ended.json_runs().iter().find(|run| run["name"] == "run").unwrap()["run_id"].as_str().unwrap().to_owned();
    server.edit(&id, |run| drop(run.history.remove(2)));
    let before = server.stream_requests(&id).len();
    let again = place.import(&server, [&logs]).args(["--verify", "--json"]).run().code(3);
    let found: Vec<String> = lines(&again).iter().flat_map(missing).collect();
    assert_eq!(
        (found, again.json_summary()["exit_code"].as_u64()),
        (vec!["rows _step 2: missing".to_owned()], Some(3))
    );
    assert_eq!(server.stream_requests(&id).len(), before);

    let clean = place.import(&server, [&logs]).args(["--verify", "--clean", "--json"]).run().code(3);
    assert_eq!((lines(&clean).len(), place.logs().len()), (2, 0));
    place.import(&server, [&logs]).args(["--verify", "--mode", "offline"]).run().code(2);
}

#[test]
fn sync_verifies_what_it_sent() {
    let (place, server) = (Place::new(), FakeServer::start());
    place.fixture("wandb_clients", "out/wandb");
    let sync = |more: &[&str]| place.sync(&server).args(["--verify", "--json"]).args(more).run();
    place.call(["sync", "out/wandb/0.19.11"]).server(&server).run().ok();
    let all = ["out/wandb/0.16.6", "out/wandb/0.19.11"];
    // What was synced before is verified, too.
    let ended = sync(&all).ok();
    assert_eq!((lines(&ended).len(), ended.json_summary()["synced"].as_u64()), (2, Some(1)));
    server.edit("v0_19_11", |run| drop(run.files.remove("now.txt")));
    let found: Vec<String> = lines(&sync(&all).code(3)).iter().flat_map(missing).collect();
    assert_eq!(found, ["file now.txt: missing"]);
    let cleaned = sync(&[&all[..], &["--include-synced", "--clean"]].concat());
    assert_eq!(lines(&cleaned).len(), 2);
}

//! What processes print arrives as a terminal would show it, line by line, the same as by the official client.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::bridge::Place;
use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, end_at_exit, logs_below, official_sync};
use crate::support::python::script;
use crate::support::server::{FakeServer, Fault, Route, RunSnapshot};

/// Records the runs of `record_console.py` below a place, and returns their `wandb` folder.
fn record(place: &Place) -> PathBuf {
    let directory = place.path("recorded");
    std::fs::create_dir(&directory).unwrap();
    script("record_console.py").arg(&directory).run().ok();
    let folder = directory.join("wandb");
    logs_below(&folder).iter().for_each(|log| end_at_exit(log));
    folder
}

/// The texts of console lines, without level and time.
fn texts(run: &RunSnapshot) -> Vec<&str> {
    run.console
        .iter()
        .map(|line| line.trim_start_matches("ERROR ").split_once(' ').map_or("", |(_, text)| text))
        .collect()
}

fn sync(place: &Place, folder: &Path, server: &FakeServer) {
    place.call(["sync", "--include-synced"]).arg(folder).server(server).run().ok();
    server.assert_content();
}

#[test]
fn what_is_printed_arrives_the_same_by_either_client() {
    let place = Place::new();
    let folder = record(&place);
    let (ours, theirs) = (FakeServer::start(), FakeServer::start());
    copy_tree(&folder, &place.path("copy"));
    official_sync(&place.path("copy"), &theirs);
    sync(&place, &folder, &ours);
    assert_eq!(ours.runs().len(), 5);
    for run in ours.runs() {
        let other = theirs.run(&run.id).unwrap();
        if run.id == "emulated" {
            // What the client emulated itself is in records that the official core passes over.
            assert_eq!(other.console, [""; 0]);
            assert_eq!(texts(&run), ["4 of 5", "finished", "bad"]);
            assert_eq!(run.files["output.log"].text(), "4 of 5\nfinished\nbad\n");
            continue;
        }
        let compared = Compared { console: true, ..Compared::default() };
        assert_eq!(same_run_but_for(&run, &other, &compared), Ok(()), "{}", run.id);
        assert_eq!(run.files.contains_key("output.log"), run.id != "nothing");
    }
    let run = ours.run("bars").unwrap();
    assert_eq!(run.console.len(), texts(&run).len());
    assert!(texts(&run).contains(&"100%|██████████| 100/100 [00:100<00:00, 9.9it/s]"), "{:?}", run.console);
    assert!(texts(&run).contains(&"outer: 3/3") && texts(&run).contains(&"inner: 4/4 "), "{:?}", run.console);
    assert!(run.console[0].starts_with("ERROR 20"), "{:?}", run.console);
    let many = ours.run("many").unwrap();
    assert!(many.console.len() > 100);
}

#[test]
fn lines_are_structured_where_the_server_says_so() {
    let place = Place::new();
    let folder = record(&place);
    let server = FakeServer::builder().feature("STRUCTURED_CONSOLE_LOGS").start();
    sync(&place, &folder, &server);
    let lines: Vec<Value> =
        server.run("parts").unwrap().console.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["content"], "one two three");
    assert_eq!((&lines[1]["content"], &lines[1]["level"]), (&Value::from("ONE TWO THREE"), &Value::from("error")));
    assert!(lines.iter().all(|line| line["ts"].as_str().unwrap().starts_with("20")));
}

#[test]
fn a_process_that_begins_again_knows_the_lines_that_may_still_change() {
    let place = Place::new();
    let folder = record(&place);
    let undisturbed = FakeServer::start();
    copy_tree(&folder, &place.path("copy"));
    sync(&place, &place.path("copy"), &undisturbed);

    // The log grows while it is synced again and again; the process ends every time, and once an answer is lost.
    let log = logs_below(&folder).into_iter().find(|log| log.ends_with("run-many.wandb")).unwrap();
    let whole = std::fs::read(&log).unwrap();
    let server = FakeServer::start();
    for part in 1..=8 {
        std::fs::write(&log, &whole[..whole.len() * part / 8]).unwrap();
        if part == 4 {
            server.fault(Fault::reset(Route::FileStream).applied());
            place.call(["sync", "--retries", "0"]).arg(&log).server(&server).run().code(5);
        }
        place.call(["sync"]).arg(&log).server(&server).run().ok();
    }
    server.assert_content();
    let (run, expected) = (server.run("many").unwrap(), undisturbed.run("many").unwrap());
    assert_eq!(run.console, expected.console);
    assert_eq!(run.files["output.log"].sha256, expected.files["output.log"].sha256);
}

#[test]
fn alerts_are_sent_once() {
    let place = Place::new();
    let directory = place.path("recorded");
    std::fs::create_dir(&directory).unwrap();
    script("record_variants.py").arg(&directory).arg("alert").run().ok();
    let log = logs_below(&directory).into_iter().find(|log| log.ends_with("run-alert.wandb")).unwrap();
    // A page of something in between refuses nothing for good.
    let server = FakeServer::start();
    server.fault(Fault::html(Route::graphql("NotifyScriptableRunAlert"), 200).always());
    place.call(["sync"]).arg(&log).server(&server).run().code(1);
    assert_eq!(server.run("alert").unwrap().alerts.len(), 0);
    server.behave();
    place.call(["sync"]).arg(&log).server(&server).run().ok();
    assert_eq!(server.run("alert").unwrap().alerts.len(), 1);
    std::fs::remove_dir_all(log.parent().unwrap().join(".wandb-bridge")).unwrap();
    let server = FakeServer::start();
    // The server has taken the alert, and then the rows do not get through.
    server.fault(Fault::status(Route::FileStream, 500).always());
    place.call(["sync", "--include-synced", "--retries", "0"]).arg(&log).server(&server).run().code(5);
    assert_eq!(server.run("alert").unwrap().alerts.len(), 1);
    server.behave();
    for _ in 0..2 {
        place.call(["sync", "--include-synced"]).arg(&log).server(&server).run().ok();
    }
    // Nor is it sent again when it is forgotten what was sent.
    std::fs::remove_dir_all(log.parent().unwrap().join(".wandb-bridge")).unwrap();
    place.call(["sync", "--include-synced"]).arg(&log).server(&server).run().ok();
    server.assert_content();
    let alerts = server.run("alert").unwrap().alerts;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
}

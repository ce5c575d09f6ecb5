//! Many runs at once: in parallel, each for itself, and the second time without a word to the server.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::logs::{exit, printed, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, RunStatus};

/// So many small runs; the variable is for a machine with time.
fn runs(default: usize) -> usize {
    std::env::var("WANDB_BRIDGE_BULK_RUNS").ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn make(folder: &Path, count: usize) {
    for number in 0..count {
        let id = format!("r{number}");
        let rows = (0..20).map(|step| row(step, 20));
        let log = run_directory(folder, number, &id);
        write(&log, std::iter::once(run_record("p", &id)).chain(rows).chain([printed("hello\n"), exit(0)]));
    }
}

#[test]
fn one_bad_run_stops_no_other() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    let count = runs(100);
    make(&folder, count);
    // One is no log, one names no run, one is cut off in its middle.
    fs::write(folder.join("offline-run-20260101_000003-r3/run-r3.wandb"), "something else").unwrap();
    write(&run_directory(&folder, 70_000, "nobody"), [row(0, 1)]);
    let cut = folder.join("offline-run-20260101_000005-r5/run-r5.wandb");
    fs::File::options().write(true).open(&cut).unwrap().set_len(800).unwrap();

    let ended = place.call(["sync", "--json", "--transfers", "16"]).arg(&folder).server(&server).run().code(3);
    server.assert_content();
    let good: Vec<_> = server.runs().into_iter().filter(|run| run.id != "r5").collect();
    assert_eq!(good.len(), count - 2);
    for run in &good {
        assert_eq!((run.history.len(), run.console.len(), run.status), (20, 1, RunStatus::Finished), "{}", run.id);
    }
    assert_eq!(server.run("r5").unwrap().status, RunStatus::Running);
    let failed: BTreeSet<String> = ended
        .json_runs()
        .iter()
        .filter(|run| run["state"] == "failed")
        .map(|run| run["source"].as_str().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect();
    assert_eq!(failed, ["run-nobody.wandb".to_owned(), "run-r3.wandb".to_owned()].into(), "{}", ended.stderr);
    for name in ["run-nobody.wandb", "run-r3.wandb"] {
        let warnings = ended.stderr.lines().filter(|line| line.starts_with("warning: ") && line.contains(name));
        assert_eq!(warnings.count(), 1, "{}", ended.stderr);
    }

    // Nothing is new: nothing is sent, not even a question.
    let requests = server.requests().len();
    place.call(["sync"]).arg(&folder).server(&server).run();
    assert_eq!(server.requests().len(), requests, "{:?}", server.requests().last());
    fs::remove_dir_all(folder.join("offline-run-20260101_000003-r3")).unwrap();
    fs::remove_dir_all(folder.join("offline-run-20260101_192640-nobody")).unwrap();
    // What was cut off is whole now.
    make_whole(&folder, &cut);
    place.call(["sync"]).arg(&folder).server(&server).run().ok();
    server.assert_content();
    let run = server.run("r5").unwrap();
    assert_eq!((run.history.len(), run.status), (20, RunStatus::Finished));
    place.call(["sync"]).arg(&folder).server(&server).run().ok();
}

fn make_whole(folder: &Path, log: &Path) {
    fs::remove_file(log).unwrap();
    let rows = (0..20).map(|step| row(step, 20));
    assert_eq!(run_directory(folder, 5, "r5"), log);
    write(log, std::iter::once(run_record("p", "r5")).chain(rows).chain([printed("hello\n"), exit(0)]));
}

#[test]
fn the_newest_runs_are_first_when_asked_for() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    make(&folder, 40);
    place.call(["sync", "--newest-first", "--transfers", "1"]).arg(&folder).server(&server).run().ok();
    let mut opened: Vec<String> = server
        .operations("UpsertBucket")
        .iter()
        .filter_map(|request| request.variables.as_ref()?["name"].as_str().map(str::to_owned))
        .collect();
    opened.dedup();
    let newest_first: Vec<String> = (0..40).rev().map(|number| format!("r{number}")).collect();
    assert_eq!(opened, newest_first);
}

/// A small run is one batch: it is looked for, opened, its files are asked for once, and its lines bring its end.
#[test]
fn a_small_run_takes_four_questions() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    make(&folder, 5);
    place.call(["sync"]).arg(&folder).server(&server).run().ok();
    server.assert_content();
    for (name, count) in [("RunResumeStatus", 5), ("UpsertBucket", 5), ("CreateRunFiles", 5)] {
        assert_eq!(server.operations(name).len(), count, "{name}");
    }
    for run in server.runs() {
        assert_eq!((run.history.len(), run.status), (20, RunStatus::Finished), "{}", run.id);
        assert_eq!(server.stream_requests(&run.id).len(), 1, "{}", run.id);
        assert!(run.files.contains_key("wandb-summary.json") && run.files.contains_key("output.log"), "{}", run.id);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_number_of_runs() {
    let peak = |count: usize| {
        let (place, server) = (Place::new(), FakeServer::start());
        make(&place.path("wandb"), count);
        let (ended, peak) =
            place.call(["sync", "--quiet"]).arg(place.path("wandb")).server(&server).spawn().wait_and_measure();
        ended.ok();
        assert_eq!(server.runs().len(), count);
        peak
    };
    let (few, many) = (peak(20), peak(runs(1000)));
    eprintln!("{few} bytes for 20 runs, {many} for many");
    assert!(many < few + (12 << 20), "{few} bytes for 20 runs, {many} for many");
}

#[test]
fn what_is_typed_replaces_what_logs_say() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    make(&folder, 1);
    let mut record = run_record("p", "tagged");
    if let wandb_bridge::proto::wandb_internal::record::RecordType::Run(run) = &mut record {
        run.tags = ["old", "kept", "gone"].map(str::to_owned).to_vec();
        run.job_type = "recorded".to_owned();
    }
    let log = run_directory(&folder, 9, "tagged");
    write(&log, [record, row(0, 1), exit(0)]);
    let typed = ["sync", "--id", "other", "-p", "q", "--job-type", "typed", "--replace-tags", "old=new,gone="];
    place.call(typed).arg(&log).server(&server).run().ok();
    server.assert_content();
    let run = server.run_in("q", "other").unwrap();
    assert_eq!((run.job_type.as_deref(), run.tags.as_slice()), (Some("typed"), &["new".to_owned(), "kept".into()][..]));
    place.call(["sync", "--replace-tags", "nothing"]).arg(&log).server(&server).run().code(2);
    place.call(["sync", "--id", "a/b"]).arg(&log).server(&server).run().code(2);
}

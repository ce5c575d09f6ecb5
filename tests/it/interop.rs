//! What this program writes and uploads is what W&B's own client and TensorBoard's own reader make of the same files.
//!
//! `ours`: logs of ours, synced by the official client. `theirs`: logs of the official client, read and synced by us.
//! `scalars`: event files, read by TensorBoard. All of it through the real binary, against servers on the loopback.

mod bridge;
mod ours;
mod scalars;
mod theirs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use wandb_bridge::model::{Json, Number};

use crate::support::compare::{Compared, same_run_but_for};
use crate::support::official::{copy_tree, logs_below, official_sync_unchecked};
use crate::support::server::{FakeServer, RunSnapshot};
use bridge::bridge;

/// The folder of event files by real writers.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Runs by id.
type Runs = BTreeMap<String, RunSnapshot>;

/// All fixtures as one online import brings them to a server; done once for all tests.
fn imported_online() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let server = FakeServer::start();
        let import = bridge(["import"]).arg(fixtures()).args(["-p", "fixtures", "--dir"]).arg(directory.path());
        // Some of the fixtures are damaged, and some hold kinds that are not carried: that is told by exit code 3.
        import.server(&server).run().ends_with(3);
        runs_of(&server)
    })
}

/// The runs of a server that has nothing to complain about.
#[track_caller]
fn runs_of(server: &FakeServer) -> Runs {
    server.assert_content();
    let runs = server.runs();
    let count = runs.len();
    let by_id: Runs = runs.into_iter().map(|run| (run.id.clone(), run)).collect();
    assert_eq!(by_id.len(), count, "every run has an id of its own");
    by_id
}

/// What the official client makes of a copy of all logs in a `wandb` folder. It is to finish all but those of `failing`.
#[track_caller]
fn official_runs(folder: &Path, failing: &[&str]) -> Runs {
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("wandb");
    copy_tree(folder, &copy);
    let logs = logs_below(&copy).len();
    let server = FakeServer::start();
    let output = official_sync_unchecked(&copy, &server, &["-n", "8"]).ok();
    // Its exit code says nothing.
    let finished = output.stderr.matches("Finished syncing").count();
    assert_eq!(finished + failing.len(), logs, "the official client did not finish:\n{}", output.stderr);
    runs_of(&server)
}

/// Panics unless both hold the same runs, and tells every difference.
#[track_caller]
fn assert_same_runs(first: &Runs, second: &Runs, compared: &Compared) {
    let ids = |runs: &Runs| runs.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(ids(first), ids(second));
    assert!(!first.is_empty());
    let difference = |(id, run): (&String, &RunSnapshot)| {
        let result = same_run_but_for(run, &second[id], compared);
        result.err().map(|difference| format!("{id} (`{}`): {difference}", run.display_name))
    };
    let differences: Vec<String> = first.iter().filter_map(difference).collect();
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), first.len(), differences.join("\n"));
}

/// The runs as the official client sends them: it loses the sign of a zero, and it makes a double of a whole number beyond
/// the i64s.
fn with_official_numbers(mut runs: Runs) -> Runs {
    fn walk(value: &mut Json) {
        match value {
            Json::Number(Number::F64(number)) if *number == 0.0 => *value = Json::from(0),
            Json::Number(Number::U64(number)) => *value = Json::Number(Number::F64(*number as f64)),
            Json::Array(items) => items.iter_mut().for_each(walk),
            Json::Object(members) => members.values_mut().for_each(walk),
            _ => {}
        }
    }
    let plain = |text: &str| {
        let mut value = Json::parse(text).unwrap();
        walk(&mut value);
        value.to_string()
    };
    for run in runs.values_mut() {
        run.history.iter_mut().for_each(|line| *line = plain(line));
        run.summary = run.summary.as_deref().map(plain);
        if let Some(file) = run.files.get_mut("wandb-summary.json") {
            file.bytes = Some(plain(&file.text()).into());
        }
    }
    runs
}

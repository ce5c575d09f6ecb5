//! What the official client does, for comparison: it records runs, and it syncs logs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use wandb_bridge::proto::wandb_internal::record::RecordType;
use wandb_bridge::wandb_format::{EntryKind, LogReader, Next};

use super::python::{Output, script, wandb};
use super::server::FakeServer;

/// Records a rich run offline, below a directory that must be empty, and returns its log.
///
/// The run is `offl1` in project `interop`. Its config and history are nested, with `NaN` and the infinities, a step that
/// jumps, metrics with a step metric, a glob and summaries, console output on both streams, tags, notes, group, alert, a
/// saved file and media. `extra` may hold `--table` and `--artifact`, which make artifacts, and other options of
/// `scripts/record_run.py`.
pub fn official_offline_run_with(directory: &Path, extra: &[&str]) -> PathBuf {
    let call = script("record_run.py").args(["--id", "offl1", "--mode", "offline"]).args(extra);
    // Staged artifact files must still be there when the log is synced.
    call.directory(directory).home(&directory.join("home")).run().ok();
    logs_below(directory).pop().unwrap()
}

/// Records a rich run offline, without artifacts.
pub fn official_offline_run(directory: &Path) -> PathBuf {
    official_offline_run_with(directory, &[])
}

/// Cuts off what happens to stand behind the exit of a log: the official client writes some things late, and reads none of
/// them there. This program does, so the two are compared by logs that end with their exit.
pub fn end_at_exit(log: &Path) {
    let mut reader = LogReader::open(log).unwrap();
    while let Next::Entry(entry) = reader.next().unwrap() {
        if let EntryKind::Record(record) = entry.kind
            && matches!(*record, RecordType::Exit(_))
        {
            File::options().write(true).open(log).unwrap().set_len(entry.end.0).unwrap();
            return;
        }
    }
}

/// Records the same run online.
pub fn official_online_run(directory: &Path, server: &FakeServer, extra: &[&str]) -> Output {
    let call = script("record_run.py").args(["--id", "onl1", "--mode", "online"]).args(extra);
    call.directory(directory).home(&directory.join("home")).server(server).run().ok()
}

/// Uploads a log, or all logs below a directory, with the official client, whether or not they were synced before.
///
/// It writes into the run's directory, so a test that goes on to use the log gives it a copy (see [`copy_tree`]). Its exit
/// code says nothing; so this panics unless the client says that it finished.
#[track_caller]
pub fn official_sync(log_or_directory: &Path, server: &FakeServer) -> Output {
    let output = official_sync_unchecked(log_or_directory, server, &[]).ok();
    let finished = output.stderr.contains("Finished syncing") && !output.stderr.contains("ERROR");
    assert!(finished, "the official client did not finish:\n{}", output.stderr);
    output
}

/// Lets the official client sync, and does not judge.
pub fn official_sync_unchecked(log_or_directory: &Path, server: &FakeServer, extra: &[&str]) -> Output {
    let call = wandb().args(["sync", "--yes", "--include-online", "--include-synced"]).args(extra);
    call.arg(log_or_directory).server(server).run()
}

/// All logs below a directory, in the order of their paths.
pub fn logs_below(directory: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            logs.extend(logs_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "wandb") {
            logs.push(path);
        }
    }
    logs.sort();
    logs
}

/// Copies a directory and all that is in it. Links to files become files, links to directories are left out.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() && !path.is_symlink() {
            copy_tree(&path, &place);
        } else if path.is_file() {
            fs::copy(&path, &place).unwrap();
        }
    }
}

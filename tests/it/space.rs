//! The disk is shared with whoever trains: little of it is taken, and given back, and nothing is lost for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sha2::Digest as _;
use wandb_bridge::model::Json;
use wandb_bridge::proto::tensorboard::summary::{Image, Value, value};
use wandb_bridge::proto::tensorboard::{Event, Summary, event};

use crate::import::named;
use crate::support::bridge::{Call, Place, Running};
use crate::support::events::Writer;
#[cfg(target_os = "linux")]
use crate::support::faults::Share;
use crate::support::official::copy_tree;
use crate::support::python::wandb;
use crate::support::server::{
    FakeServer, Fault, Gate, Options, RequestRecord, Route, RunSnapshot, RunStatus, World, hex,
};

/// How large a picture is.
const PICTURE: usize = 128 << 10;
const MB: u64 = 1_000_000;
/// What is waited for comes in a second or two; a busy machine may need longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How much media the larger tests make: `WANDB_BRIDGE_TEST_MEDIA_MB=10000` makes 10 GB.
fn media() -> u64 {
    std::env::var("WANDB_BRIDGE_TEST_MEDIA_MB").map_or(96, |text| text.parse().unwrap()) * MB
}

/// A picture of one pixel that has no equal: a comment that nothing compresses, because it stands there as it is.
fn picture(seed: u64) -> Bytes {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let content = [kind.as_slice(), data].concat();
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(&content);
        png.extend(crc32fast::hash(&content).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]);
    let mut comment = format!("Comment\0{seed}").into_bytes();
    comment.resize(PICTURE, b' ');
    chunk(b"tEXt", &comment);
    chunk(b"IDAT", &[0x78, 0x01, 0x01, 0x02, 0x00, 0xfd, 0xff, 0x00, 0x00, 0x00, 0x02, 0x00, 0x01]);
    chunk(b"IEND", &[]);
    png.into()
}

fn image(step: i64, picture: Bytes) -> Event {
    let image = Image { height: 1, width: 1, colorspace: 1, encoded_image_string: picture };
    let value = Value { tag: "picture".into(), value: Some(value::Value::Image(image)), ..Value::default() };
    Event { step, what: Some(event::What::Summary(Summary { value: vec![value] })), ..Event::default() }
}

/// Pictures that were written, by their digests: how often each.
type Written = BTreeMap<String, usize>;

/// Appends pictures to a run, and says which. `first` numbers them.
fn pictures(writer: &mut Writer, first: u64, count: u64) -> Written {
    let mut written = Written::new();
    for number in first..first + count {
        let picture = picture(number);
        *written.entry(hex(&sha2::Sha256::digest(&picture))).or_default() += 1;
        writer.append(&[image(number as i64, picture)]);
    }
    written
}

/// Each picture is on the server, once, and a row speaks of each.
#[track_caller]
fn check_pictures(run: &RunSnapshot, written: &Written) {
    check_media(run, written);
    assert_eq!(run.resent_lines, 0);
}

#[track_caller]
fn check_media(run: &RunSnapshot, written: &Written) {
    let rows = run.column("picture");
    let total: usize = written.values().sum();
    assert_eq!(rows.len(), total, "rows of {}", run.display_name);
    let mut there = Written::new();
    for row in &rows {
        let Some(Json::Array(paths)) = row.get("filenames") else { panic!("{row}") };
        let path = paths[0].as_str().unwrap();
        let file = run.files.get(path).unwrap_or_else(|| panic!("`{path}` is not there"));
        *there.entry(file.sha256.clone()).or_default() += 1;
    }
    assert!(there == *written, "other pictures of {}", run.display_name);
}

/// The bytes of all files below, as far as they stay there while this looks.
fn size_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { size_below(&entry.path()) } else { metadata.len() })
        })
        .sum()
}

/// A server that looks at a directory at each request, and the most that it saw there.
fn measuring(place: &Place) -> (FakeServer, Arc<AtomicU64>) {
    let server = Options { keep_bytes: 1 << 10, ..Options::default() }.start();
    let most = Arc::new(AtomicU64::new(0));
    let (path, seen) = (place.path("out"), most.clone());
    server.before_each(move || {
        seen.fetch_max(size_below(&path), Ordering::Relaxed);
    });
    (server, most)
}

/// What a run directory holds, by path.
fn contents(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(below) = directories.pop() {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
#[cfg(target_os = "linux")]
fn much_media_passes_through_a_small_spool() {
    const SPOOL: u64 = 8 * MB;
    let place = Place::new();
    let (server, most) = measuring(&place);
    let each = media() / 2 / PICTURE as u64;
    let mut written = Vec::new();
    for (run, name) in [(0, "a"), (1, "b")] {
        let mut writer = Writer::new(&place.path(&format!("logs/{name}")));
        written.push((name, pictures(&mut writer, run * each, each)));
    }
    let call = place.import(&server, ["logs"]).args(["--max-spool", "8MB", "--clean", "--json"]);
    let (ended, memory) = call.spawn().wait_and_measure();
    let ended = ended.ok();
    eprintln!("{} MB passed through; {} MB of memory at most", media() / MB, memory / MB);
    assert!(memory < 192 << 20, "{memory} bytes of memory");
    for (name, written) in &written {
        let run = named(&server, name);
        check_pictures(&run, written);
        assert_eq!(run.status, RunStatus::Finished);
    }
    server.assert_content();
    let most = most.load(Ordering::Relaxed);
    // Besides: the state, and what is written while the directory is looked at; and the logs, which stay until their runs
    // are finished.
    let logs = 2 * each * 400;
    eprintln!("{most} bytes on disk at once");
    assert!(most <= SPOOL + SPOOL / 4 + logs, "{most} bytes at once, of {}", media());
    assert!(most > SPOOL / 4, "{most}: nothing was measured");
    assert_eq!(ended.json_summary()["synced"], 2);
}

/// Bytes of media that the server has taken.
fn taken(world: &World) -> u64 {
    let is_taken = |request: &&RequestRecord| request.path.starts_with("/storage/") && request.status == Some(200);
    world.requests.iter().filter(is_taken).map(|request| request.bytes as u64).sum()
}

#[test]
fn reading_waits_for_a_server_that_takes_its_time() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    let written = pictures(&mut Writer::new(&place.path("logs/a")), 0, 200);
    server.fault(Fault::delay(Route::Storage, Duration::from_millis(20)).always());
    let mut running = place.import(&server, ["logs"]).args(["--max-spool", "4MB"]).spawn();
    let mut most = 0;
    while running.is_running() {
        // In this order: what is taken in between is not counted.
        let there = size_below(&place.path("out"));
        most = most.max(there.saturating_sub(server.look(taken)));
        std::thread::sleep(Duration::from_millis(1));
    }
    running.wait().ok();
    check_pictures(&named(&server, "a"), &written);
    assert!(size_below(&place.path("out")) > 20 * MB, "without `--clean` all of it stays");
    assert!(most <= 5 * MB, "{most} bytes waited at once");
    assert!(most > MB, "{most}: nothing was measured");
}

/// What is free on the disk falls below what is to stay free, when half of the media are there.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_in_mid_run_stops_the_recording_and_it_goes_on_later() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    const ARGUMENTS: [&str; 5] = ["--max-spool", "4MB", "--min-free", "5%", "--json"];
    let share = Share::new(&place.path("logs"));
    let written = pictures(&mut Writer::new(&place.path("logs/a")), 0, 100);
    let import = || place.import(&server, ["logs"]).args(ARGUMENTS).envs(share.variables());
    share.says("free=500000000");
    let gate = Gate::default();
    server.fault(Fault::stall(Route::Storage, &gate).always());
    let running = import().spawn();
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.path.starts_with("/storage/")));
    share.says("free=40000000");
    gate.open();
    let ended = running.wait().code(5);
    assert!(ended.stderr.contains("has only 40.0 MB free, and 5 % of it are to stay free"), "{}", ended.stderr);
    let rows = named(&server, "a").history.len();
    assert!(0 < rows && rows < 100, "{rows} rows arrived");
    assert!(size_below(&place.path("out")) <= 5 * MB);
    // As long as there is no room nothing more is read; then it goes on.
    import().run().code(5);
    share.says("free=500000000");
    server.behave();
    import().run().ok();
    check_pictures(&named(&server, "a"), &written);
    server.assert_content();
    // Where nothing is new, nothing is written, so there is room enough.
    share.says("free=40000000");
    assert_eq!(import().run().ok().json_runs()[0]["state"], "synced");
    Writer::create(&place.path("logs/a"), "events.out.tfevents.1784026000.trainer.1.0").scalars("loss", points(0, 1));
    import().run().code(5);
}

#[test]
fn a_server_that_is_away_fills_no_disk() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    let mut written = Vec::new();
    for (run, name) in [(0, "a"), (1, "b"), (2, "c")] {
        let mut writer = Writer::new(&place.path(&format!("logs/{name}")));
        written.push((name, pictures(&mut writer, run * 100, 100)));
    }
    server.fault(Fault::status(Route::FileStream, 500).always());
    let arguments = ["--max-spool", "4MB", "--retries", "0", "--json"];
    let ended = place.import(&server, ["logs"]).args(arguments).run().code(5);
    assert!(size_below(&place.path("out")) <= 5 * MB, "{}", size_below(&place.path("out")));
    assert!(ended.json_runs().iter().all(|run| run["state"] == "failed"), "{}", ended.stdout);
    server.behave();
    place.import(&server, ["logs"]).args(["--max-spool", "4MB"]).run().ok();
    for (name, written) in &written {
        check_pictures(&named(&server, name), written);
        assert_eq!(named(&server, name).status, RunStatus::Finished);
    }
    server.assert_content();
}

#[test]
fn a_run_that_the_server_refuses_does_not_stop_the_others() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    let written = pictures(&mut Writer::new(&place.path("logs/good")), 0, 100);
    pictures(&mut Writer::new(&place.path("logs/bad")), 1000, 100);
    // A first, small import, so that the run is known; then the server says no to its lines.
    let ids = place.call(["import", "--dry-run", "--json", "logs"]).run().ok().json_runs();
    let bad = ids.iter().find(|run| run["name"] == "bad").unwrap()["run_id"].as_str().unwrap().to_owned();
    server.fault(Fault::status(Route::FileStreamOf(bad), 404).always());
    let ended = place.import(&server, ["logs"]).args(["--max-spool", "4MB", "--json"]).run();
    assert_ne!(ended.code, Some(0), "{}", ended.stderr);
    check_pictures(&named(&server, "good"), &written);
    assert_eq!(named(&server, "good").status, RunStatus::Finished);
    let bad = ended.json_runs().into_iter().find(|run| run["name"] == "bad").unwrap();
    assert_eq!(bad["state"], "failed");
}

#[test]
fn a_full_disk_stops_the_recording_and_it_goes_on_later() {
    for offline in [false, true] {
        let place = Place::new();
        let (server, _) = measuring(&place);
        let written = pictures(&mut Writer::new(&place.path("logs/a")), 0, 20);
        let call =
            || if offline { place.import_offline(["logs"]).args(["-p", "p"]) } else { place.import(&server, ["logs"]) };
        for minimum in ["900PB", "100%"] {
            let ended = call().args(["--min-free", minimum, "--json"]).run().code(5);
            assert!(
                ended.stderr.contains("are to stay free") && ended.stderr.contains("--min-free"),
                "{}",
                ended.stderr
            );
            assert_eq!(ended.json_summary()["failed"], 1);
            assert!(place.logs().is_empty(), "nothing was written");
        }
        call().args(["--min-free", "0"]).run().ok();
        if offline {
            place.sync(&server).run().ok();
        }
        check_pictures(&named(&server, "a"), &written);
    }
}

#[test]
fn one_cannot_ask_for_nonsense() {
    let place = Place::new();
    for arguments in [
        ["--max-spool", "10kB"],
        ["--max-spool", "much"],
        ["--max-record", "0"],
        ["--min-free", "120%"],
        ["--min-free", "-1"],
    ] {
        place.call(["import", "x"]).args(arguments).run().code(2);
    }
}

/// The one run directory below `out/`.
#[track_caller]
fn run_directory(place: &Place) -> PathBuf {
    let is_run = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("offline-run-");
    let mut found: Vec<PathBuf> =
        fs::read_dir(place.path("out/wandb")).unwrap().map(|entry| entry.unwrap().path()).filter(is_run).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.pop().unwrap()
}

/// The one run holds the values from 0 up to `count`, in this order, each once.
#[track_caller]
fn check_values(server: &FakeServer, count: i64) {
    let run = named(server, "a");
    let values: Vec<String> = run.column("loss").iter().map(ToString::to_string).collect();
    let expected: Vec<String> = (0..count).map(|value| value.to_string()).collect();
    assert_eq!(values, expected);
    let steps: Vec<String> = run.column("_step").iter().map(ToString::to_string).collect();
    assert_eq!(steps, expected);
    assert_eq!(run.summary_value().get("loss").unwrap().to_string(), (count - 1).to_string());
    assert_eq!(run.rewritten_lines, 0);
    server.assert_content();
}

fn points(from: i64, to: i64) -> impl Iterator<Item = (i64, f32)> {
    (from..to).map(|step| (step, step as f32))
}

#[test]
fn a_cleaned_run_is_known_to_be_on_the_server() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 10));
    let first = place.import(&server, ["logs"]).args(["--clean", "--json"]).run().ok();
    check_values(&server, 10);
    let directory = run_directory(&place);
    let id = first.json_runs()[0]["run_id"].as_str().unwrap().to_owned();
    let left: Vec<String> = contents(&directory).into_iter().filter(|path| !path.contains("upload-")).collect();
    let synced = format!("run-{id}.wandb.synced");
    let state = ["checkpoint.json", "cleaned.json", "writer.lock"].map(|name| format!(".wandb-bridge/{name}"));
    assert_eq!(left, state.into_iter().chain([synced]).collect::<Vec<_>>());

    let requests = server.requests().len();
    for clean in [&["--json", "--clean"][..], &["--json"]] {
        let again = place.import(&server, ["logs"]).args(clean).run().ok();
        assert_eq!(again.json_runs()[0]["state"], "synced");
        assert_eq!(again.json_runs()[0]["rows"], 0);
    }
    let synced = place.sync(&server).run().ok();
    assert!(synced.stderr.contains("1 run (cleaned"), "{}", synced.stderr);
    let synced = place.sync(&server).arg("--json").run().ok();
    let path = format!("tester/p/{id}");
    let run = &synced.json_runs()[0];
    let expected = ["a", &id, &path, "skipped"].map(serde_json::Value::from);
    assert_eq!(["name", "run_id", "run_path", "state"].map(|field| run[field].clone()), expected);
    assert_eq!(synced.json_summary()["runs"], 0);
    // What is known is in the state alone.
    let screen = place.call(["inspect", "out"]).run().ok().stdout;
    assert!(screen.contains("all of it arrived, and was deleted here: 1 log with 10 rows\n"), "{screen}");
    assert!(screen.contains(&format!("on a server as `{path}`: 10 rows, 3 files, finished there\n")), "{screen}");
    let seen = place.call(["inspect", "--json"]).arg(&directory).run().ok().json();
    assert_eq!((&seen[0]["type"], &seen[0]["rows"], &seen[1]["cleaned"]), (&"cleaned".into(), &10.into(), &1.into()));
    assert_eq!(server.requests().len(), requests, "nothing new, so nothing is sent");
    assert!(place.logs().is_empty());
}

#[test]
fn a_cleaned_run_that_grows_goes_on_where_it_was() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 10));
    place.import(&server, ["logs"]).arg("--clean").run().ok();
    // A second log, which stays; then it is appended to.
    writer.scalars("loss", points(10, 15));
    place.import(&server, ["logs"]).run().ok();
    check_values(&server, 15);
    writer.scalars("loss", points(15, 20));
    place.import(&server, ["logs"]).run().ok();
    check_values(&server, 20);
    assert_eq!(place.logs().len(), 1);
    // It is cleaned although nothing is new, and grows again, offline first.
    place.import(&server, ["logs"]).arg("--clean").run().ok();
    assert!(place.logs().is_empty());
    writer.scalars("loss", points(20, 23));
    place.import_offline(["logs"]).args(["-p", "p"]).run().ok();
    check_values(&server, 20);
    // The official client would send this log from line 0 on.
    assert!(place.log().with_extension("wandb.synced").exists());
    place.sync(&server).arg("--clean").run().ok();
    check_values(&server, 23);
    assert!(place.logs().is_empty());
    let run = named(&server, "a");
    assert_eq!((run.status, run.resent_lines), (RunStatus::Finished, 0));
}

#[test]
fn what_was_cleaned_is_not_there_for_another_place() {
    let (place, server, other) = (Place::new(), FakeServer::start(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 10));
    place.import(&server, ["logs"]).arg("--clean").run().ok();
    writer.scalars("loss", points(10, 12));
    let ended = place.import(&other, ["logs"]).run().code(1);
    assert!(ended.stderr.contains("10 rows before it") && ended.stderr.contains("hint:"), "{}", ended.stderr);
    assert!(other.runs().is_empty());
    // The first place still gets what is new.
    place.import(&server, ["logs"]).run().ok();
    check_values(&server, 12);
    // And the other one gets all of it in a directory of its own.
    let arguments = ["import", "logs", "--dir", "elsewhere", "-p", "p"];
    place.call(arguments).server(&other).run().ok();
    check_values(&other, 12);
}

/// A process may end between any two steps of cleaning; what it leaves is made here, by hand.
#[test]
fn cleaning_that_was_cut_short_is_ended_by_whoever_comes_next() {
    const STEPS: usize = 6;
    for step in 0..STEPS {
        for next in ["import", "grown", "sync"] {
            let (place, server) = (Place::new(), FakeServer::start());
            let mut writer = Writer::new(&place.path("logs/a"));
            writer.scalars("loss", points(0, 10));
            place.import(&server, ["logs"]).run().ok();
            let directory = run_directory(&place);
            copy_tree(&directory, &place.path("before"));
            place.import(&server, ["logs"]).arg("--clean").run().ok();
            copy_tree(&directory, &place.path("after"));
            let state = |of: &str, name: &str| fs::read(place.path(&format!("{of}/.wandb-bridge/{name}"))).unwrap();
            fs::remove_dir_all(&directory).unwrap();
            copy_tree(&place.path(if step < 5 { "before" } else { "after" }), &directory);
            let note = String::from_utf8(state("after", "cleaned.json")).unwrap();
            let under_way = note.replace("\"under_way\":false", "\"under_way\":true");
            assert_ne!(note, under_way);
            if step > 0 {
                fs::write(directory.join(".wandb-bridge/cleaned.json"), under_way).unwrap();
            }
            if step > 1 {
                fs::write(directory.join(".wandb-bridge/checkpoint.json"), state("after", "checkpoint.json")).unwrap();
            }
            if step > 2 && step < 5 {
                fs::remove_file(place.log()).unwrap();
            }
            if step == 4 {
                fs::remove_dir_all(directory.join("files")).unwrap();
            }
            match next {
                "import" => drop(place.import(&server, ["logs"]).arg("--clean").run().ok()),
                "sync" => drop(place.sync(&server).args(["--clean", "--include-synced"]).run().ok()),
                _ => {
                    writer.scalars("loss", points(10, 12));
                    place.import(&server, ["logs"]).arg("--clean").run().ok();
                }
            }
            check_values(&server, if next == "grown" { 12 } else { 10 });
            writer.scalars(
                "loss",
                points(12, 13).map(|(step, value)| if next == "grown" { (step, value) } else { (10, 10.0) }),
            );
            place.import(&server, ["logs"]).arg("--clean").run().ok();
            check_values(&server, if next == "grown" { 13 } else { 11 });
            assert!(place.logs().is_empty(), "step {step}, {next}");
            assert!(!directory.join("files").exists());
        }
    }
}

/// The program is killed at one request after the other, while media come and go.
#[test]
#[cfg(unix)]
fn killed_while_media_come_and_go() {
    use rustix::process::{Pid, Signal, kill_process};
    use std::sync::OnceLock;
    let mut kills = 0;
    for at in (2..60).step_by(5) {
        let place = Place::new();
        let (server, _) = measuring(&place);
        let mut writer = Writer::new(&place.path("logs/a"));
        let written = pictures(&mut writer, 0, 24);
        let (process, seen) = (Arc::new(OnceLock::<Pid>::new()), AtomicU64::new(0));
        let victim = process.clone();
        server.before_each(move || {
            if seen.fetch_add(1, Ordering::Relaxed) == at {
                let _ = kill_process(*victim.wait(), Signal::KILL);
            }
        });
        let running = place.import(&server, ["logs"]).args(["--max-spool", "1MB", "--clean"]).spawn();
        let _ = process.set(Pid::from_raw(running.id().try_into().unwrap()).unwrap());
        kills += usize::from(running.wait().code.is_none());
        let ended = place.import(&server, ["logs"]).args(["--max-spool", "1MB", "--clean"]).run();
        assert_eq!(ended.code, Some(0), "killed at request {at}:\n{}", ended.stderr);
        let run = named(&server, "a");
        let rows: usize = run.history.len();
        assert_eq!(rows, 24, "killed at request {at}");
        check_media(&run, &written);
        assert_eq!(run.status, RunStatus::Finished);
        assert!(!run_directory(&place).join("files").exists());
        server.assert_content();
    }
    assert!(kills >= 8, "{kills} times");
}

/// `watch logs`, looking often.
fn watch(place: &Place, server: &FakeServer) -> Call {
    place.call(["watch", "logs", "--dir", "out", "-p", "p", "--poll", "50ms"]).server(server)
}

fn row_count(world: &World) -> usize {
    world.runs.values().map(|run| run.history.len()).sum()
}

#[cfg(unix)]
fn interrupt(running: &Running) {
    let process = rustix::process::Pid::from_raw(running.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
}

#[test]
fn much_media_passes_through_the_small_spool_of_a_watch() {
    const SPOOL: u64 = 8 * MB;
    let place = Place::new();
    let (server, most) = measuring(&place);
    let mut written = Vec::new();
    for (run, name) in [(0, "a"), (1, "b"), (2, "c")] {
        let mut writer = Writer::new(&place.path(&format!("logs/{name}")));
        written.push((name, pictures(&mut writer, run * 120, 120)));
    }
    watch(&place, &server).args(["--until-idle", "1s", "--max-spool", "8MB", "--clean"]).run().ok();
    for (name, written) in &written {
        check_pictures(&named(&server, name), written);
        assert_eq!(named(&server, name).status, RunStatus::Finished);
    }
    server.assert_content();
    let most = most.load(Ordering::Relaxed);
    assert!(most <= SPOOL + SPOOL / 4, "{most} bytes at once");
}

#[test]
#[cfg(unix)]
fn a_watch_that_waits_for_room_heeds_signals() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    let written = pictures(&mut Writer::new(&place.path("logs/a")), 0, 100);
    let gate = Gate::default();
    server.fault(Fault::stall(Route::Storage, &gate).always());
    let running = watch(&place, &server).args(["--max-spool", "2MB", "--drain", "500ms"]).spawn();
    server.wait_until(LIMIT, |world| world.requests.iter().any(|request| request.path.starts_with("/storage/")));
    interrupt(&running);
    running.wait().code(5);
    assert!(size_below(&place.path("out")) <= 2 * MB);
    server.behave();
    gate.open();
    watch(&place, &server).args(["--until-idle", "1s", "--max-spool", "2MB"]).run().ok();
    check_media(&named(&server, "a"), &written);
    server.assert_content();
}

#[test]
fn a_watch_records_nothing_on_a_disk_that_is_full() {
    let place = Place::new();
    let (server, _) = measuring(&place);
    let written = pictures(&mut Writer::new(&place.path("logs/a")), 0, 20);
    let ended = watch(&place, &server).args(["--until-idle", "1s", "--min-free", "900PB"]).run().code(5);
    assert_eq!(ended.stderr.matches("are to stay free").count(), 1, "{}", ended.stderr);
    assert!(place.logs().is_empty());
    watch(&place, &server).args(["--until-idle", "1s", "--min-free", "0"]).run().ok();
    check_pictures(&named(&server, "a"), &written);
}

#[test]
#[cfg(unix)]
fn a_watch_goes_on_with_a_cleaned_run_and_cleans_it_again() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 10));
    place.import(&server, ["logs"]).arg("--clean").run().ok();
    for (from, to) in [(10, 15), (15, 16)] {
        let running = watch(&place, &server).args(["--clean", "--stale-after", "3650d"]).spawn();
        writer.scalars("loss", points(from, to));
        server.wait_until(LIMIT, |world| row_count(world) == to as usize);
        interrupt(&running);
        running.wait().ok();
        check_values(&server, to);
        assert!(place.logs().is_empty());
    }
    assert_eq!(named(&server, "a").status, RunStatus::Finished);
}

#[test]
fn the_official_client_leaves_what_was_cleaned_alone() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalars("loss", points(0, 10));
    place.import(&server, ["logs"]).arg("--clean").run().ok();
    let lines = named(&server, "a").history;
    let directory = run_directory(&place);
    for grown in [false, true] {
        if grown {
            writer.scalars("loss", points(10, 12));
            place.import_offline(["logs"]).run().ok();
        }
        let output = wandb().args(["sync", "--yes"]).arg(place.path("out/wandb")).server(&server).run();
        assert!(!output.stderr.contains("Finished syncing"), "{}", output.stderr);
        assert_eq!(named(&server, "a").history, lines);
    }
    // It counts as a run that was synced.
    let output = wandb().args(["clean", "--force", "--min-hours=-100"]).directory(&place.path("out")).run();
    assert!(!directory.exists(), "{} {}", output.stdout, output.stderr);
}

//! Files that do not stay what and where they were: replaced, shrunk, renamed, moved, removed, copied anew.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use super::harness::*;
use super::{assert_holds, events, seconds, skipped, start};
use crate::support::server::{FakeServer, RunStatus};

const NAME: &str = "events.out.tfevents.1700000000.host.1.0";

/// A file with values of one tag; another `start` gives another first record.
fn file(start: f64, tag: &str, steps: std::ops::Range<i64>) -> Vec<u8> {
    [first_record(start), events(tag, &seconds(start, steps))].concat()
}

/// Writes a file where it lies, so that it stays the same one for the file system.
fn in_place(path: &Path, bytes: &[u8]) {
    OpenOptions::new().write(true).truncate(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Shows that everything was looked at meanwhile: another run arrives.
fn look(server: &FakeServer, place: &Place, name: &str) {
    Writer::at(&place.path(&format!("logs/{name}")), now(), name).scalar(0, "loss", 0.0);
    wait_for_points(server, name, "loss", 1);
}

/// A place with one run of five values, and its file.
fn one_run() -> (FakeServer, Place, std::path::PathBuf) {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    fs::create_dir(place.path("logs/exp")).unwrap();
    let path = place.path("logs/exp").join(NAME);
    fs::write(&path, file(start(), "loss", 0..5)).unwrap();
    (server, place, path)
}

#[test]
fn another_file_in_its_place_is_read_from_its_beginning() {
    type Replace = fn(&Path, &[u8]);
    let ways: [(&str, Replace); 4] = [
        ("in place", in_place),
        ("after it was emptied", |path, bytes| {
            in_place(path, b"");
            append(path, bytes);
        }),
        ("removed and made anew", |path, bytes| {
            fs::remove_file(path).unwrap();
            fs::write(path, bytes).unwrap();
        }),
        ("moved over it", |path, bytes| {
            let beside = path.with_file_name("new");
            fs::write(&beside, bytes).unwrap();
            fs::rename(beside, path).unwrap();
        }),
    ];
    for (way, replace) in ways {
        // Shorter, as long, and longer.
        for count in [2, 5, 50] {
            let (server, place, path) = one_run();
            // What stays beside it keeps the run.
            let beside = Writer::at(&place.path("logs/exp"), start(), "beside").scalar(0, "beside", 0.0).path.clone();
            let watching = place.watch(&server, "--json");
            wait_for_points(&server, "exp", "loss", 5);
            let other = start() + 1000.0;
            replace(&path, &file(other, "more", 0..count));
            wait_for_points(&server, "exp", "more", count as usize);
            append(&path, &events("more", &seconds(other, count..count + 3)));
            wait_for_points(&server, "exp", "more", count as usize + 3);
            let ended = watching.interrupt().end();
            ended.assert_code(0);
            let said =
                ["was replaced by another file", "is gone", "is shorter"].iter().any(|text| ended.err.contains(text));
            assert!(said, "{way}, {count}: {}", ended.err);
            assert_eq!(skipped(&ended), [], "{way}, {count}");
            // Nothing of either is lost, and nothing is there twice, for the next process too.
            for _ in 0..2 {
                assert_holds(&server, "exp", "loss", &seconds(start_of(&server), 0..5));
                assert_holds(&server, "exp", "more", &seconds(other, 0..count + 3));
                assert_eq!(server.runs().len(), 1, "{way}, {count}");
                place.bridge("import logs -p p").online(&server).run().assert_code(0);
            }
            assert!(beside.exists());
        }
    }
}

#[test]
fn a_training_that_begins_anew_in_its_directory_is_another_run() {
    let (server, place, path) = one_run();
    let watching = place.watch(&server, "--json");
    wait_for_points(&server, "exp", "loss", 5);
    let other = start() + 1000.0;
    fs::remove_file(&path).unwrap();
    fs::write(&path, file(other, "loss", 0..50)).unwrap();
    server.wait_until(LIMIT, |world| world.runs.values().any(|run| run.history.len() == 50));
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(skipped(&ended), []);
    let mut rows: Vec<usize> = server.runs().iter().map(|run| run.history.len()).collect();
    rows.sort_unstable();
    assert_eq!(rows, [5, 50]);
    assert!(server.runs().iter().all(|run| run.status == RunStatus::Finished && run.display_name == "exp"));
    server.assert_content();
}

/// When the first file of the run began.
fn start_of(server: &FakeServer) -> f64 {
    super::cells(&the_run(server, "exp"), "loss")[0].2
}

#[test]
fn a_copy_that_is_made_again_and_again_is_one_file() {
    // `rsync` and its kin: under another name first, or over the old copy.
    type Copy = fn(&Path, &[u8]);
    let ways: [(&str, Copy); 4] = [
        ("a hidden name first", |path, bytes| {
            let hidden = path.with_file_name(format!(".{NAME}.x7Qk2a"));
            fs::write(&hidden, &bytes[..bytes.len() / 2]).unwrap();
            std::thread::yield_now();
            append(&hidden, &bytes[bytes.len() / 2..]);
            fs::rename(hidden, path).unwrap();
        }),
        ("in place", in_place),
        ("emptied first", |path, bytes| {
            in_place(path, b"");
            bytes.chunks(100).for_each(|chunk| append(path, chunk));
        }),
        ("appended to", |path, bytes| {
            let there = fs::metadata(path).map_or(0, |metadata| metadata.len() as usize);
            append(path, &bytes[there..]);
        }),
    ];
    for (way, copy) in ways {
        let (server, place, path) = one_run();
        let (start, watching) = (start(), place.watch(&server, "--json"));
        in_place(&path, &file(start, "loss", 0..1));
        for count in [3, 10, 11, 40] {
            copy(&path, &file(start, "loss", 0..count));
            wait_for_points(&server, "exp", "loss", count as usize);
        }
        // As it was.
        copy(&path, &file(start, "loss", 0..40));
        look(&server, &place, "beacon");
        let ended = watching.interrupt().end();
        ended.assert_code(0);
        assert_eq!(skipped(&ended), [], "{way}");
        assert_holds(&server, "exp", "loss", &seconds(start, 0..40));
        assert_eq!(server.runs().len(), 2, "{way}");
    }
}

#[test]
fn a_hidden_copy_that_is_on_its_way_is_no_file() {
    let (server, place, path) = one_run();
    let watching = place.watch(&server, "--json");
    wait_for_points(&server, "exp", "loss", 5);
    let start = start_of(&server);
    let hidden = path.with_file_name(format!(".{NAME}.x7Qk2a"));
    fs::write(&hidden, file(start, "loss", 0..50)).unwrap();
    look(&server, &place, "beacon");
    fs::rename(hidden, path).unwrap();
    wait_for_points(&server, "exp", "loss", 50);
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(skipped(&ended), []);
    assert_holds(&server, "exp", "loss", &seconds(start, 0..50));
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn a_file_that_gets_its_name_at_the_end_is_one_file() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let start = start();
    let [temporary, path] = [format!("{NAME}.partial"), NAME.to_owned()].map(|name| place.path("logs/exp").join(name));
    fs::create_dir(place.path("logs/exp")).unwrap();
    let watching = place.watch(&server, "--json");
    fs::write(&temporary, file(start, "loss", 0..10)).unwrap();
    wait_for_points(&server, "exp", "loss", 10);
    fs::rename(&temporary, &path).unwrap();
    append(&path, &events("loss", &seconds(start, 10..20)));
    wait_for_points(&server, "exp", "loss", 20);
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(skipped(&ended), []);
    assert_holds(&server, "exp", "loss", &seconds(start, 0..20));

    // The same between two processes: it is turned away under another name, and a new file takes its own.
    fs::rename(&path, path.with_file_name(format!("{NAME}.old"))).unwrap();
    fs::write(&path, file(start + 500.0, "loss", 20..25)).unwrap();
    append(&path.with_file_name(format!("{NAME}.old")), &events("loss", &seconds(start, 40..41)));
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    let expected = [seconds(start, 0..20), seconds(start, 40..41), seconds(start + 500.0, 20..25)].concat();
    assert_holds(&server, "exp", "loss", &expected);
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn a_file_with_another_name_and_the_same_beginning_is_another_file() {
    let (server, place, path) = one_run();
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    let start = start_of(&server);
    // Its first record is the same by accident, and it does not hold what was read.
    fs::remove_file(&path).unwrap();
    let other = [first_record(start), events("loss", &seconds(start + 7.0, 0..30))].concat();
    fs::write(path.with_file_name("events.out.tfevents.1700000000.other"), other).unwrap();
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    assert_holds(&server, "exp", "loss", &[seconds(start, 0..5), seconds(start + 7.0, 0..30)].concat());
}

#[test]
fn a_directory_that_is_renamed_stays_one_run() {
    let (server, place, path) = one_run();
    let watching = place.watch(&server, "--json");
    wait_for_points(&server, "exp", "loss", 5);
    let start = start_of(&server);
    fs::rename(place.path("logs/exp"), place.path("logs/renamed")).unwrap();
    append(&place.path("logs/renamed").join(NAME), &events("loss", &seconds(start, 5..8)));
    wait_for_points(&server, "exp", "loss", 8);
    // Out of what is watched, and in again.
    fs::rename(place.path("logs/renamed"), place.path("elsewhere")).unwrap();
    append(&place.path("elsewhere").join(NAME), &events("loss", &seconds(start, 8..9)));
    look(&server, &place, "beacon");
    fs::rename(place.path("elsewhere"), place.path("logs/exp")).unwrap();
    append(&path, &events("loss", &seconds(start, 9..10)));
    wait_for_points(&server, "exp", "loss", 10);
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_says("is gone; what was read of it stays");
    assert_eq!(skipped(&ended), []);
    assert_holds(&server, "exp", "loss", &seconds(start, 0..10));
    assert_eq!(server.runs().len(), 2);
    assert_eq!(the_run(&server, "exp").status, RunStatus::Finished);
}

#[test]
fn a_file_that_was_cut_off_is_told_and_loses_nothing() {
    let (server, place, path) = one_run();
    let whole = fs::read(&path).unwrap();
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    let start = start_of(&server);
    in_place(&path, &whole[..whole.len() / 2]);
    let ended = place.bridge("import logs -p p --json").online(&server).run();
    ended.assert_code(0);
    let skips = skipped(&ended);
    let [(reason, 1, false, first)] = skips.as_slice() else { panic!("{skips:?}") };
    assert_eq!(reason, "file shorter than what was read of it");
    assert!(first.contains(NAME) && first.contains(&format!("{} bytes were read", whole.len())), "{first}");
    // It comes back as it was, and goes on.
    in_place(&path, &whole);
    append(&path, &events("loss", &seconds(start, 5..7)));
    let ended = place.bridge("import logs -p p --json").online(&server).run();
    assert_eq!((ended.code, skipped(&ended)), (Some(0), Vec::new()));
    assert_holds(&server, "exp", "loss", &seconds(start, 0..7));
}

#[test]
fn a_file_that_was_cut_off_and_goes_on_otherwise_is_a_loss() {
    let (server, place, path) = one_run();
    let whole = fs::read(&path).unwrap();
    let start = start_of_file(&whole);
    place.bridge("import logs -p p").online(&server).run().assert_code(0);
    // The last value is taken away, and others follow, so that every record begins where one did.
    let one = events("loss", &seconds(start, 4..5)).len();
    in_place(&path, &whole[..whole.len() - one]);
    append(&path, &events("loss", &seconds(start + 0.5, 4..8)));
    for command in ["import logs -p p --json", "watch logs --poll 50ms --until-idle 300ms -p p --json"] {
        let ended = place.bridge(command).online(&server).run();
        ended.assert_code(3);
        let skips = skipped(&ended);
        let [(reason, 1, true, first)] = skips.as_slice() else { panic!("{skips:?}") };
        assert_eq!(reason, "file that no longer holds what was read of it");
        assert!(first.contains(NAME) && first.contains(&format!("before byte {}", whole.len())), "{first}");
        assert_holds(&server, "exp", "loss", &seconds(start, 0..5));
    }
    // A fresh run has all that is there.
    place.bridge("import logs -p p2 --generation 1").online(&server).run().assert_code(0);
    let run = server.runs().into_iter().find(|run| run.project == "p2").unwrap();
    let times: Vec<f64> = super::cells(&run, "loss").iter().map(|cell| cell.2).collect();
    let expected = [seconds(start, 0..4), seconds(start + 0.5, 4..8)].concat();
    assert_eq!(times, expected.iter().map(|point| point.1).collect::<Vec<_>>());
}

fn start_of_file(bytes: &[u8]) -> f64 {
    // Field 1 of an event, behind the header of its record.
    f64::from_le_bytes(bytes[13..21].try_into().unwrap())
}

#[test]
fn a_file_that_vanishes_as_it_is_found_is_no_loss_for_a_watch() {
    let (server, place, path) = one_run();
    let watching = place.watch(&server, "--json");
    wait_for_points(&server, "exp", "loss", 5);
    let start = start_of(&server);
    for round in 0..30 {
        // Some are seen, and some are not there any more when they are to be read.
        let brief = path.with_file_name(format!("events.out.tfevents.17000001{round:02}.brief"));
        fs::write(&brief, file(start + f64::from(round), "brief", 0..1)).unwrap();
        if round % 3 == 0 {
            look(&server, &place, &format!("beacon{round}"));
        }
        fs::remove_file(brief).unwrap();
    }
    append(&path, &events("loss", &seconds(start, 5..6)));
    wait_for_points(&server, "exp", "loss", 6);
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(skipped(&ended), []);
    assert_holds(&server, "exp", "loss", &seconds(start, 0..6));
}

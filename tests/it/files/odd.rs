//! What only looks like an event file, what cannot be read, and names that nobody expects.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::harness::*;
use super::{assert_holds, events, seconds, skipped, start};
use crate::support::server::FakeServer;

const NAME: &str = "events.out.tfevents.1700000000.host.1.0";

fn file(start: f64, tag: &str, steps: std::ops::Range<i64>) -> Vec<u8> {
    [first_record(start), events(tag, &seconds(start, steps))].concat()
}

/// Both ways of reading what is there.
const COMMANDS: [&str; 2] =
    ["import logs -p p --json", "watch logs --poll 50ms --until-idle 300ms --tpslimit 0 -p p --json"];

#[test]
fn links_lead_to_each_file_once() {
    for command in COMMANDS {
        let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
        for directory in ["logs/exp", "logs/linked", "outside"] {
            fs::create_dir(place.path(directory)).unwrap();
        }
        fs::write(place.path("logs/exp").join(NAME), file(start, "loss", 0..5)).unwrap();
        fs::write(place.path("outside").join(NAME), file(start + 100.0, "loss", 0..3)).unwrap();
        // Beside the file itself, to a file outside, and to a directory in which it lies.
        symlink(place.path("logs/exp").join(NAME), place.path("logs/exp/latest.tfevents")).unwrap();
        symlink(place.path("outside").join(NAME), place.path("logs/linked").join(NAME)).unwrap();
        symlink(place.path("logs/exp"), place.path("logs/same")).unwrap();
        symlink(place.path("logs"), place.path("logs/exp/loop")).unwrap();
        let ended = place.bridge(command).online(&server).run();
        ended.assert_code(0);
        assert_eq!(skipped(&ended), []);
        assert_holds(&server, "exp", "loss", &seconds(start, 0..5));
        assert_holds(&server, "linked", "loss", &seconds(start + 100.0, 0..3));
        assert_eq!(server.runs().len(), 2);
    }
}

#[test]
fn what_cannot_be_read_is_told_by_name_and_hides_nothing() {
    for command in COMMANDS {
        let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
        let directory = place.path("logs/exp");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(NAME), file(start, "loss", 0..5)).unwrap();
        symlink(place.path("nowhere"), directory.join("a.dangling.tfevents")).unwrap();
        symlink(directory.join("b.loop.tfevents"), directory.join("b.loop.tfevents")).unwrap();
        // A regular file of which no byte can be read, for nobody.
        symlink("/proc/self/mem", directory.join("c.failing.tfevents")).unwrap();
        let expected = if cfg!(target_os = "linux") { 3 } else { 2 };
        let ended = place.bridge(command).online(&server).run();
        ended.assert_code(3);
        let skips = skipped(&ended);
        let [(reason, count, true, first)] = skips.as_slice() else { panic!("{command}: {skips:?}") };
        assert_eq!((reason.as_str(), *count), ("file that cannot be read", expected), "{command}: {}", ended.err);
        assert!(first.contains("a.dangling.tfevents"), "{first}");
        for name in ["a.dangling.tfevents", "b.loop.tfevents", "c.failing.tfevents"].iter().take(expected as usize) {
            assert!(ended.err.contains(name), "{name}: {}", ended.err);
        }
        assert_holds(&server, "exp", "loss", &seconds(start, 0..5));
    }
}

#[test]
fn a_file_without_permission_is_read_by_those_who_may() {
    for command in COMMANDS {
        let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
        for name in ["exp", "closed"] {
            fs::create_dir(place.path(&format!("logs/{name}"))).unwrap();
        }
        let (locked, closed) =
            (place.path("logs/exp/events.out.tfevents.1700000009.locked"), place.path("logs/closed"));
        fs::write(place.path("logs/exp").join(NAME), file(start, "loss", 0..5)).unwrap();
        fs::write(&locked, file(start + 50.0, "locked", 0..5)).unwrap();
        fs::write(closed.join(NAME), file(start + 70.0, "closed", 0..5)).unwrap();
        for path in [&locked, &closed] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        let ended = place.bridge(command).online(&server).run();
        assert_holds(&server, "exp", "loss", &seconds(start, 0..5));
        if rustix::process::geteuid().is_root() {
            ended.assert_code(0);
            assert_holds(&server, "exp", "locked", &seconds(start + 50.0, 0..5));
            assert_holds(&server, "closed", "closed", &seconds(start + 70.0, 0..5));
        } else {
            ended.assert_code(3).assert_says("locked").assert_says("closed");
            assert_eq!(skipped(&ended).iter().map(|skip| (skip.1, skip.2)).collect::<Vec<_>>(), [(2, true)]);
        }
        fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn what_is_no_file_blocks_nobody_and_is_no_loss() {
    for command in COMMANDS {
        let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
        let directory = place.path("logs/exp");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(NAME), file(start, "loss", 0..5)).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = directory.join("a.pipe.tfevents");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        symlink(&pipe, directory.join("b.link-to-pipe.tfevents")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.join("c.socket.tfevents")).unwrap();
        for (index, device) in ["null", "zero", "tty"].iter().enumerate() {
            symlink(format!("/dev/{device}"), directory.join(format!("d{index}.tfevents"))).unwrap();
        }
        // Directories with the name of an event file are directories.
        fs::create_dir(directory.join("e.tfevents")).unwrap();
        fs::create_dir_all(place.path("logs/f.tfevents.d/deep")).unwrap();
        fs::write(place.path("logs/f.tfevents.d/deep").join(NAME), file(start + 9.0, "loss", 0..2)).unwrap();
        let ended = place.bridge(command).online(&server).run();
        ended.assert_code(0);
        assert_eq!(skipped(&ended), []);
        assert_holds(&server, "exp", "loss", &seconds(start, 0..5));
        assert_holds(&server, "f.tfevents.d/deep", "loss", &seconds(start + 9.0, 0..2));
    }
}

#[test]
fn names_may_be_anything() {
    let long = "x".repeat(200);
    let names: [(&[u8], String); 4] = [
        (b"bytes \xff\xfe", "bytes %FF%FE".to_owned()),
        (b"red \x1b[31m and\nnew line", "red \x1b[31m and\nnew line".to_owned()),
        (long.as_bytes(), long.clone()),
        ("schön ☃ $HOME `x` \"q\" \\".as_bytes(), "schön ☃ $HOME `x` \"q\" \\".to_owned()),
    ];
    for command in COMMANDS {
        let (server, place, start) = (FakeServer::start(), Place::with_logs(), start());
        for (index, (name, _)) in names.iter().enumerate() {
            let directory = place.path("logs").join(OsStr::from_bytes(name));
            fs::create_dir(&directory).unwrap();
            let file_name = [b"tfevents.", &name[..name.len().min(100)]].concat();
            let mut bytes = file(start + index as f64, "loss", 0..5);
            // Something to be told of each file.
            let end = bytes.len();
            bytes[end - 1] ^= 1;
            fs::write(directory.join(OsStr::from_bytes(&file_name)), bytes).unwrap();
        }
        let ended = place.bridge(command).online(&server).run();
        ended.assert_code(3);
        assert!(!ended.err.contains('\x1b') && !ended.out.contains('\x1b'), "{}", ended.err);
        assert!(ended.err.lines().all(|line| !line.starts_with("new line")), "{}", ended.err);
        assert_eq!(
            skipped(&ended).iter().map(|skip| (skip.0.as_str(), skip.1)).collect::<Vec<_>>(),
            [("damaged record", 4)]
        );
        for (index, (_, name)) in names.iter().enumerate() {
            assert_holds(&server, name, "loss", &seconds(start + index as f64, 0..4));
        }
        assert_eq!(server.runs().len(), names.len());
        // Their names in the file system are found again.
        let again = place.bridge(command).online(&server).run();
        again.assert_code(3);
        assert_eq!(server.runs().iter().map(|run| run.history.len()).sum::<usize>(), 4 * names.len());
    }
}

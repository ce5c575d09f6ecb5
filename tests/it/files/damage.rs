//! One damaged file beside a whole one, in every way that is known: what is intact arrives, and what is not is told.

use std::fs;

use wandb_bridge::tfevents::crc::masked_crc;
use wandb_bridge::tfevents::write::write_record;

use super::harness::*;
use super::{Point, assert_holds, events, seconds, skipped, start};
use crate::support::server::FakeServer;

const NAME: &str = "events.out.tfevents.1700000000.host.1.0";

/// A damaged file.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// What is intact in it.
    intact: Vec<Point>,
    /// Reason, loss, and what the first place says beside the file.
    skipped: Option<(&'static str, bool, String)>,
}

/// A file of ten values, and where each of its records starts; the first one is the version.
struct Whole {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    points: Vec<Point>,
}

fn whole(start: f64) -> Whole {
    let points = seconds(start, 0..10);
    let (mut bytes, mut starts) = (first_record(start), vec![0]);
    for point in &points {
        starts.push(bytes.len());
        bytes.extend(events("loss", &[*point]));
    }
    Whole { bytes, starts, points }
}

impl Whole {
    /// The value with that step is not intact, and neither are those behind it.
    fn before(&self, step: usize) -> Vec<Point> {
        self.points[..step].to_vec()
    }

    fn without(&self, step: usize) -> Vec<Point> {
        self.points.iter().copied().filter(|point| point.0 != step as i64).collect()
    }

    /// Where the value with that step lies.
    fn at(&self, step: usize) -> usize {
        self.starts[step + 1]
    }

    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        bytes
    }

    /// With another length in the header of a record, and the right checksum of it.
    fn with_length(&self, step: usize, length: u64) -> Vec<u8> {
        self.with(|bytes| {
            let at = self.at(step);
            bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&masked_crc(&length.to_le_bytes()).to_le_bytes());
        })
    }
}

fn cases(start: f64) -> Vec<Case> {
    let whole = whole(start);
    let end = whole.bytes.len();
    let last = whole.at(9);
    let case = |name, bytes, intact, skipped| Case { name, bytes, intact, skipped };
    let tail = |at: usize, bytes: usize| {
        Some(("unfinished last record", false, format!("at byte {at}: {bytes} bytes of it are there")))
    };
    let record = |at: usize, why: &str| Some(("damaged record", true, format!("at byte {at}: {why}")));
    let file = |at: usize, why: &str| Some(("damaged file", true, format!("from byte {at}: {why}")));
    let unreadable = |why: &str| Some(("file that cannot be read", true, why.to_owned()));
    let zeros = |count: usize| whole.with(|bytes| bytes.resize(end + count, 0));
    vec![
        case("whole", whole.bytes.clone(), whole.points.clone(), None),
        case("cut in its last checksum", whole.bytes[..end - 3].to_vec(), whole.before(9), tail(last, end - last - 3)),
        case("cut in its last header", whole.bytes[..last + 5].to_vec(), whole.before(9), tail(last, 5)),
        case("cut in the middle", whole.bytes[..whole.at(4) + 20].to_vec(), whole.before(4), tail(whole.at(4), 20)),
        case(
            "a byte of a payload is another",
            whole.with(|bytes| bytes[whole.at(4) + 13] ^= 1),
            whole.without(4),
            record(whole.at(4), "payload checksum mismatch"),
        ),
        case(
            "a checksum of a payload is another",
            whole.with(|bytes| bytes[whole.at(5) - 1] ^= 1),
            whole.without(4),
            record(whole.at(4), "payload checksum mismatch"),
        ),
        case(
            "a whole record that is no event",
            [&whole.bytes[..whole.at(4)], &framed(b"\xff\xff\xff"), &whole.bytes[whole.at(4)..]].concat(),
            whole.points.clone(),
            record(whole.at(4), ""),
        ),
        case(
            "a byte of a length is another",
            whole.with(|bytes| bytes[whole.at(4) + 6] ^= 1),
            whole.before(4),
            file(whole.at(4), "length checksum mismatch"),
        ),
        case(
            "a checksum of a length is another",
            whole.with(|bytes| bytes[whole.at(4) + 8] ^= 1),
            whole.before(4),
            file(whole.at(4), "length checksum mismatch"),
        ),
        case(
            "a length with its checksum that no record has",
            whole.with_length(4, 1 << 40),
            whole.before(4),
            file(whole.at(4), "record of 1099511627776 bytes is above the limit of 1073741824 bytes"),
        ),
        // Its end may still come.
        case(
            "a length with its checksum behind the end",
            whole.with_length(4, 1 << 20),
            whole.before(4),
            tail(whole.at(4), end - whole.at(4)),
        ),
        case("zeros at its end", zeros(5000), whole.points.clone(), None),
        case("fewer zeros than a header at its end", zeros(7), whole.points.clone(), tail(end, 7)),
        case(
            "a hole of zeros",
            whole.with(|bytes| bytes[whole.at(4)..whole.at(5)].fill(0)),
            whole.before(4),
            file(whole.at(4), "zeros in place of a record, and data behind them"),
        ),
        case(
            "its first record is damaged",
            whole.with(|bytes| bytes[13] ^= 1),
            whole.points.clone(),
            record(0, "payload checksum mismatch"),
        ),
        case(
            "no byte at all",
            Vec::new(),
            Vec::new(),
            Some(("unfinished last record", false, "only begun".to_owned())),
        ),
        case("only zeros", vec![0; 1000], Vec::new(), Some(("unfinished last record", false, "only begun".to_owned()))),
        case(
            "garbage",
            b"Not an event file but a letter to somebody.".to_vec(),
            Vec::new(),
            unreadable("damaged at byte 0: length checksum mismatch"),
        ),
        case(
            "garbage before whole records",
            [b"garbage".as_slice(), &whole.bytes].concat(),
            Vec::new(),
            unreadable("damaged at byte 0: length checksum mismatch"),
        ),
    ]
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_record(&mut bytes, payload);
    bytes
}

/// The damaged file comes first by its name and its times, the whole one later.
fn lay_out(place: &Place, case: &Case, start: f64) -> Vec<Point> {
    let directory = place.path("logs/exp");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(NAME), &case.bytes).unwrap();
    let later = seconds(start + 100.0, 0..5);
    let bytes = [first_record(start + 100.0), events("accuracy", &later)].concat();
    fs::write(directory.join("events.out.tfevents.1700000100.host.1.1"), bytes).unwrap();
    later
}

#[track_caller]
fn check(case: &Case, ended: &Ended, server: &FakeServer, later: &[Point]) {
    let name = case.name;
    let is_loss = case.skipped.as_ref().is_some_and(|skipped| skipped.1);
    assert_eq!(ended.code, Some(if is_loss { 3 } else { 0 }), "{name}:\n{}", ended.err);
    assert_holds(server, "exp", "loss", &case.intact);
    assert_holds(server, "exp", "accuracy", later);
    let found = skipped(ended);
    match &case.skipped {
        None => assert_eq!(found, [], "{name}"),
        Some((reason, loss, text)) => {
            let [(found_reason, 1, found_loss, first)] = found.as_slice() else { panic!("{name}: {found:?}") };
            assert_eq!((found_reason.as_str(), found_loss), (*reason, loss), "{name}");
            assert!(first.contains(NAME) && first.contains(text.as_str()), "{name}: `{first}` without `{text}`");
            // Whoever reads the screen is told as well.
            assert!(ended.err.contains(first), "{name}: {}", ended.err);
        }
    }
}

#[test]
fn what_is_intact_beside_damage_is_imported() {
    let start = start();
    for case in cases(start) {
        let (server, place) = (FakeServer::start(), Place::with_logs());
        let later = lay_out(&place, &case, start);
        let ended = place.bridge("import logs -p p --json").online(&server).run();
        check(&case, &ended, &server, &later);
        // Once more: nothing is sent again, and what is damaged still is.
        let again = place.bridge("import logs -p p --json").online(&server).run();
        let is_tail = |skipped: &(_, bool, String)| !skipped.1 && !skipped.2.contains("only begun");
        // A record that may still be written to its end is told by who reads up to it.
        let is_told_again = !case.skipped.as_ref().is_some_and(is_tail);
        let case = if is_told_again { case } else { Case { skipped: None, ..case } };
        check(&case, &again, &server, &later);
        // In both ways the same, recorded first and uploaded later.
        let (offline, synced) = (Place::with_logs(), FakeServer::start());
        lay_out(&offline, &case, start);
        let ended = offline.bridge("import logs -p p --mode offline").run();
        assert_eq!(ended.code, again.code, "{}: {}", case.name, ended.err);
        offline.bridge("sync").online(&synced).run().assert_code(0);
        assert_eq!(the_run(&synced, "exp").history.len(), the_run(&server, "exp").history.len());
    }
}

#[test]
fn what_is_intact_beside_damage_is_watched() {
    let start = start();
    for case in cases(start) {
        let (server, place) = (FakeServer::start(), Place::with_logs());
        let later = lay_out(&place, &case, start);
        let ended = place.watch(&server, "--json --until-idle 300ms").end();
        check(&case, &ended, &server, &later);
    }
}

/// Every file grows by a few bytes at a time, through all of its damage.
#[test]
#[cfg(unix)]
fn damage_that_comes_bit_by_bit_is_no_other() {
    let cases = cases(start());
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let directory = |index: usize| place.path(&format!("logs/exp{index:02}"));
    for (index, _) in cases.iter().enumerate() {
        fs::create_dir(directory(index)).unwrap();
        fs::write(directory(index).join(NAME), b"").unwrap();
    }
    let watching = place.watch(&server, "--json --tpslimit 0");
    for part in 1..=8 {
        for (index, case) in cases.iter().enumerate() {
            let bytes = &case.bytes[..case.bytes.len() * part / 8];
            append_to(&directory(index).join(NAME), bytes);
        }
        // What another run delivers meanwhile shows that all of them were looked at.
        let beacon = format!("beacon{part}");
        Writer::at(&place.path(&format!("logs/{beacon}")), now(), &beacon).scalar(0, "loss", 0.0);
        wait_for_points(&server, &beacon, "loss", 1);
    }
    watching.interrupt().end().assert_code(3);
    for (index, case) in cases.iter().enumerate().filter(|(_, case)| !case.intact.is_empty()) {
        // What begins with a damaged record makes its run with the next.
        assert_holds(&server, &format!("exp{index:02}"), "loss", &case.intact);
    }
}

/// Appends what a file does not have yet.
#[cfg(unix)]
fn append_to(path: &std::path::Path, bytes: &[u8]) {
    use std::io::Write as _;
    let there = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&bytes[there..]).unwrap();
}

/// What a crash of the machine leaves behind: zeros that a writer then writes over.
#[test]
#[cfg(unix)]
fn zeros_that_are_written_over_are_read() {
    use std::os::unix::fs::FileExt as _;
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let start = start();
    let points = seconds(start, 0..20);
    let bytes = [first_record(start), events("loss", &points)].concat();
    fs::create_dir(place.path("logs/exp")).unwrap();
    let path = place.path("logs/exp").join(NAME);
    let file = fs::File::create(&path).unwrap();
    file.set_len(100_000).unwrap();
    let watching = place.watch(&server, "--json");
    let mut written = 0;
    for (count, end) in [(5, bytes.len() / 3), (10, bytes.len() * 2 / 3), (20, bytes.len())] {
        file.write_at(&bytes[written..end], written as u64).unwrap();
        written = end;
        wait_for_points(&server, "exp", "loss", count);
    }
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(skipped(&ended), []);
    assert_holds(&server, "exp", "loss", &points);
}

//! One function for each kind of bytes that others write and this program reads: what the fuzz targets call, and what
//! `cargo test` calls with every file of `corpus/` and with mutations of them.
//!
//! Each promises to return on any bytes, without a panic and without much memory, and checks on the way what must hold of
//! all input. Uses nothing but the public API of the rooms. This file is compiled into the test binary too, by its path.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use wandb_bridge::checkpoint::Checkpoint;
use wandb_bridge::convert::axes::Axes;
use wandb_bridge::convert::config::{self, Format};
use wandb_bridge::convert::keys::KeyRule;
use wandb_bridge::convert::kinds::{CarriedFile, Cell, Names, assemble, carry_point};
use wandb_bridge::convert::rows::{Resume, RowBuilder, SourceRow};
use wandb_bridge::convert::run::{RunConverter, RunState};
use wandb_bridge::model::{Json, LogPosition, RunUpdate};
use wandb_bridge::state_file::place::StateHome;
use wandb_bridge::tfevents::write::write_record;
use wandb_bridge::tfevents::{EventFile, FilePosition, Next, TagTable};
use wandb_bridge::upload::{Links, Outlook, all_acknowledged};
use wandb_bridge::wandb_format::{EntryKind, HistoryLines, LogReader, LogWriter, RecordEncoder, config_yaml};

/// The longest record that is believed here: a short input says nothing about longer ones.
const LIMIT: u64 = 1 << 20;

/// A function that takes any bytes.
pub type Entry = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Entry); 8] = [
    ("event_file", event_file),
    ("compressed", compressed),
    ("event", event),
    ("wandb_log", wandb_log),
    ("wandb_record", wandb_record),
    ("state", state),
    ("config", config_file),
    ("json", json),
];

/// An event file as it is on disk, plain or compressed.
pub fn event_file(bytes: &[u8]) {
    Scratch::with("events.out.tfevents.1.host", bytes, read_events);
}

/// A compressed stream that a checksum would keep from being looked into: its bytes are records, put into a gzip or zlib
/// stream that is cut or damaged where the first bytes say.
pub fn compressed(bytes: &[u8]) {
    let [form, cut, at, with, content @ ..] = bytes else { return };
    let mut stream = match form % 3 {
        0 => gzip(content),
        1 => [gzip(&content[..content.len() / 2]), gzip(&content[content.len() / 2..])].concat(),
        _ => zlib(content),
    };
    let place = |byte: u8, length: usize| length * usize::from(byte) / 255;
    if *with != 0 && !stream.is_empty() {
        let at = place(*at, stream.len() - 1);
        stream[at] ^= with;
    }
    if *cut != 0 {
        stream.truncate(place(*cut, stream.len()));
    }
    Scratch::with("events.out.tfevents.1.host", &stream, read_events);
}

/// Payloads of records with good checksums: each is as long as the two bytes before it say.
pub fn event(bytes: &[u8]) {
    let mut file = Vec::new();
    pieces(bytes).for_each(|payload| write_record(&mut file, payload));
    Scratch::with("events.out.tfevents.1.host", &file, read_events);
    pieces(bytes).take(8).for_each(both_ways_agree);
}

/// Scalars are read in place, and whatever is unusual goes to prost: so does the same event with a field that nobody
/// knows behind it, which changes nothing of what it says.
fn both_ways_agree(payload: &[u8]) {
    const UNKNOWN: [u8; 3] = [0x98, 0x06, 0]; // Field 99, the number 0.
    let Some(event) = only_event(payload) else { return };
    assert_eq!(Some(event), only_event(&[payload, &UNKNOWN].concat()), "both ways say the same of {payload:02x?}");
}

/// What a file says that holds one event; `None` where it is none.
fn only_event(payload: &[u8]) -> Option<String> {
    let (mut content, mut said) = (Vec::new(), None);
    write_record(&mut content, payload);
    Scratch::with("events.out.tfevents.1.host", &content, |path| {
        let Ok(mut file) = EventFile::open(path, &FilePosition::default()) else { return };
        if let Ok(Next::Event) = file.next_event(&mut TagTable::default()) {
            let event = file.event();
            let points = event.points.iter().map(|point| (&point.tag, point.number, &point.kind));
            said = Some(format!("{:?} {:?} {:?}", event.wall_time, event.step, points.collect::<Vec<_>>()));
        }
    });
    said
}

/// A log as it is on disk.
pub fn wandb_log(bytes: &[u8]) {
    read_log(bytes);
}

/// Records of a log in good chunks: each is as long as the two bytes before it say.
pub fn wandb_record(bytes: &[u8]) {
    Scratch::with("seed", &[], |scratch| {
        let path = scratch.with_file_name("run-x.wandb");
        let Ok(mut writer) = LogWriter::create(&path) else { return };
        let appended = pieces(bytes).try_for_each(|body| writer.append_encoded(body));
        if appended.and_then(|()| writer.flush()).is_ok() {
            read_log(&fs::read(&path).unwrap_or_default());
        }
        let _ = fs::remove_file(&path);
    });
}

/// State of ours: the checkpoint of a run and what was uploaded of it.
pub fn state(bytes: &[u8]) {
    Scratch::with(".wandb-bridge/checkpoint.json", bytes, |path| {
        let Some(state_directory) = path.parent() else { return };
        let Some(directory) = state_directory.parent() else { return };
        let place = StateHome::default().of(directory);
        if let Ok(Some(checkpoint)) = Checkpoint::load(&place) {
            let _ = checkpoint.target();
            assert!(checkpoint.sources.iter().all(|source| source.label.starts_with(source.directory())));
            let mut converter = RunConverter::new(checkpoint.state.clone(), checkpoint.summaries.clone());
            let mut updates = Updates::default();
            let mut names = BTreeMap::new();
            for source in &checkpoint.sources {
                let mut rows = RowBuilder::new(source.rule.clone(), Arc::new(Axes::new(&[])), true, source.latest);
                names.insert(rows.key(&Arc::from("loss")), ());
            }
            updates.take_all(&mut converter);
            // What was read can be written, and is the same then.
            let text = |checkpoint: &Checkpoint| serde_json::to_string(checkpoint).unwrap_or_default();
            if checkpoint.save(&place).is_ok() {
                let again = Checkpoint::load(&place).ok().flatten();
                assert_eq!(again.as_ref().map(text), Some(text(&checkpoint)), "state is read as it was written");
            }
        }
        let upload = state_directory.join("upload-0.json");
        if fs::write(&upload, bytes).is_ok() {
            let _ = all_acknowledged(&place);
        }
        let _ = fs::remove_file(upload);
    });
}

/// A config file of a run, as YAML and as JSON.
pub fn config_file(bytes: &[u8]) {
    for format in [Format::Yaml, Format::Json] {
        let Ok(mut config) = config::parse(bytes, format) else { continue };
        let _ = config::mask(&mut config);
        let text = config.to_string();
        let again = Json::parse(&text).map(|json| json.to_string());
        assert_eq!(again.as_ref(), Ok(&text), "a config is read as it was written");
        let _ = config_yaml(&config);
        let _ = config::leaves(&[], &config);
    }
}

/// JSON as W&B writes it.
pub fn json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = Json::parse(text);
    assert_eq!(parsed.is_ok(), Json::check(text).is_ok(), "both ways agree");
    if let Ok(value) = parsed {
        let written = value.to_string();
        assert!(written.len() <= value.size(), "no value is longer than it was thought to be");
        let again = Json::parse(&written).map(|json| json.to_string());
        assert_eq!(again, Ok(written), "a value is read as it was written");
    }
}

/// Reads an event file to its end and converts all that is in it.
fn read_events(path: &Path) {
    let Ok(file) = EventFile::open(path, &FilePosition::default()) else { return };
    let mut file = file.with_limit(LIMIT);
    let mut tags = TagTable::default();
    let mut rows = RowBuilder::new(KeyRule::default(), Arc::new(Axes::new(&[])), true, None);
    let mut converter = RunConverter::new(RunState::default(), Vec::new());
    let (mut closed, mut updates) = (VecDeque::new(), Updates::default());
    loop {
        let before = Resume { offset: file.offset(), wall_time: file.wall_time(), before: file.before() };
        let Ok(next) = file.next_event(&mut tags) else { break };
        match next {
            Next::Event => {
                let event = file.event();
                let mut cells = Vec::new();
                for point in &event.points {
                    if let Some(number) = point.number {
                        cells.push((point.tag.clone(), Cell::Number(number)));
                        continue;
                    }
                    let Ok(carried) = carry_point(point, &rows.key(&point.tag), event.step.0, Names::Sha256) else {
                        continue;
                    };
                    check_files(&carried.files);
                    updates.take(&RunUpdate::Config(carried.config));
                    cells.extend(carried.cell.map(|cell| (point.tag.clone(), cell)));
                }
                rows.push(event.wall_time, event.step, cells.into_iter(), before, &mut closed);
            }
            Next::BadRecord { .. } => assert!(file.offset() > before.offset, "a damaged record is passed"),
            Next::NothingYet | Next::Incomplete { .. } | Next::BadLength { .. } | Next::Zeros { .. } => break,
        }
        for row in closed.drain(..) {
            updates.take_row(row, &mut converter);
        }
    }
    let here = Resume { offset: file.offset(), ..Resume::default() };
    if let Some(row) = rows.close(here) {
        updates.take_row(row, &mut converter);
    }
    updates.take_all(&mut converter);
}

/// Names of files that come from logs are one safe path, and not a long one.
fn check_files(files: &[CarriedFile]) {
    for file in files {
        let path = Path::new(&file.path);
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?} leads elsewhere");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
        assert!(file.path.chars().all(plain) && file.path.len() <= 400, "{path:?} is no plain name");
        assert!(file.path.split('/').all(|part| part.len() <= 200), "{path:?} is too long a name");
    }
}

/// Updates on their way to the lines that a server would get.
#[derive(Default)]
struct Updates {
    encoder: RecordEncoder,
    body: Vec<u8>,
    log: Vec<Vec<u8>>,
    lines: HistoryLines,
    line: Vec<u8>,
}

impl Updates {
    fn take_row(&mut self, mut row: SourceRow, converter: &mut RunConverter) {
        for assembled in assemble(std::mem::take(&mut row.parts)) {
            if let Ok((value, files)) = assembled.body {
                check_files(&files);
                if *assembled.key != *row.axis && row.values.iter().all(|(key, _)| **key != *assembled.key) {
                    row.values.push((assembled.key.into(), value.into()));
                }
            }
        }
        let mut updates = Vec::new();
        converter.row(row, |update| updates.push(update));
        updates.iter().for_each(|update| self.take(update));
    }

    fn take_all(&mut self, converter: &mut RunConverter) {
        if let Some(update) = converter.commit() {
            self.take(&update);
        }
        self.take(&RunUpdate::Exit(converter.exit(0)));
        // All of it is a log that can be read again, entry by entry.
        let records = std::mem::take(&mut self.log);
        Scratch::with("seed", &[], |scratch| {
            let path = scratch.with_file_name("run-y.wandb");
            let Ok(mut writer) = LogWriter::create(&path) else { return };
            let written = records.iter().try_for_each(|body| writer.append_encoded(body));
            if written.and_then(|()| writer.flush()).is_ok() {
                let mut entries = 0;
                let outlook = Outlook::read(&path, (scratch, Links::Saved), None, |_| entries += 1);
                let outlook = outlook.unwrap_or_default();
                assert_eq!((entries, outlook.damage.len()), (records.len(), 0), "what we write can be read");
            }
            let _ = fs::remove_file(&path);
        });
    }

    fn take(&mut self, update: &RunUpdate) {
        self.encoder.encode(update, &mut self.body);
        self.log.push(self.body.clone());
        let RunUpdate::Row(row) = update else { return };
        // Field 2 of the record is the row.
        let mut log = vec![b':', b'W', b'&', b'B', 0xE1, 0xBE, 0];
        log.extend(chunks(&self.body));
        let Ok(mut reader) = LogReader::new(Cursor::new(log), LogPosition(0)) else { return };
        if let Ok(wandb_bridge::wandb_format::Next::Entry(entry)) = reader.next()
            && let EntryKind::History(history) = entry.kind
        {
            self.line.clear();
            let made = self.lines.append(history, &mut self.line);
            let text = std::str::from_utf8(&self.line).unwrap_or_default();
            let value = Json::parse(text);
            let members = value.as_ref().ok().and_then(Json::as_object).map(BTreeMap::len);
            // Counter, time, runtime and axis stand beside the values.
            assert_eq!(members, Some(row.values.len() + 4), "every value of a row is in its line: {text}");
            assert_eq!(made.skipped, 0, "a row of ours can be read: {text}");
        }
    }
}

/// One record in chunks of a log, behind the header.
fn chunks(mut body: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 32 << 10;
    let mut out = Vec::new();
    let mut begins = true;
    loop {
        let room = BLOCK - (out.len() + 7) % BLOCK;
        if room < 7 {
            out.resize(out.len() + room, 0);
            continue;
        }
        let length = body.len().min(room - 7);
        let (now, later) = body.split_at(length);
        let kind = match (begins, later.is_empty()) {
            (true, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
            (false, true) => 4,
        };
        let content = [&[kind], now].concat();
        out.extend(crc32fast::hash(&content).to_le_bytes());
        out.extend(u16::try_from(length).unwrap_or_default().to_le_bytes());
        out.extend(content);
        if later.is_empty() {
            return out;
        }
        (body, begins) = (later, false);
    }
}

/// Reads a log to its end as an upload would, also when half of it is all that counts.
fn read_log(bytes: &[u8]) {
    for limit in [None, Some(LogPosition(bytes.len() as u64 / 2))] {
        let Ok(mut reader) = LogReader::new(Cursor::new(bytes), LogPosition(0)) else { return };
        reader.set_limit(limit);
        let (mut lines, mut line) = (HistoryLines::default(), Vec::new());
        let mut reached = LogPosition(0);
        loop {
            use wandb_bridge::wandb_format::Next;
            let Ok(next) = reader.next() else { break };
            match next {
                Next::Entry(entry) => {
                    assert!(entry.start >= reached && entry.end > entry.start, "entries follow each other");
                    assert!(limit.is_none_or(|limit| entry.end <= limit), "nothing behind the limit counts");
                    reached = entry.end;
                    if let EntryKind::History(history) = entry.kind {
                        line.clear();
                        lines.append(history, &mut line);
                        let text = std::str::from_utf8(&line).unwrap_or("not UTF-8");
                        assert!(Json::parse(text).is_ok_and(|json| json.as_object().is_some()), "no line: {text}");
                        assert!(!line.contains(&b'\n'), "one line: {text}");
                    }
                }
                Next::Damaged { from, to, .. } => {
                    assert!(to > from && from >= reached, "damage is passed");
                    reached = to;
                }
                Next::End | Next::Incomplete { .. } => break,
            }
        }
    }
    Scratch::with("run-x.wandb", bytes, |path| {
        let files = path.with_file_name("files");
        if let Ok(outlook) = Outlook::read(path, (&files, Links::Saved), None, |_| {}) {
            assert!(outlook.files.iter().all(|file| file.size.is_none()), "there is no file in {files:?}");
        }
    });
}

/// Cuts bytes into pieces: each is as long as the two bytes before it say, or as there is.
fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        bytes = rest;
        Some(piece)
    })
}

/// The inverse of what `event` and `wandb_record` do: for making seeds.
pub fn pieced<B: AsRef<[u8]>>(payloads: impl IntoIterator<Item = B>) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in payloads {
        let payload = payload.as_ref();
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        out.extend(length.to_le_bytes());
        out.extend(&payload[..length.into()]);
    }
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// A directory of this process for files that are read once: in memory, where the system has such a place.
struct Scratch;

impl Scratch {
    fn with(name: &str, content: &[u8], work: impl FnOnce(&Path)) {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let directory = parent.join(format!("wandb-bridge-fuzz-{}-{number}", std::process::id()));
        let path: PathBuf = directory.join(name);
        let made = path.parent().map(fs::create_dir_all);
        if matches!(made, Some(Ok(()))) && fs::write(&path, content).is_ok() {
            work(&path);
        }
        let _ = fs::remove_file(&path);
    }
}

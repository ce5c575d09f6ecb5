//! Walks over the entries of a `.wandb` log, also while somebody writes it, and also when parts of it are damaged.
//!
//! Promises that every intact record is yielded once and in order, that bytes which are not part of an intact record are
//! reported unless they are the unfinished end, and that no byte at or behind the limit is looked at. What lies at the
//! end is read from the file anew at each call, so a growing log needs no reopening. Memory is bounded by the largest
//! record that is really there. Does not know what records mean.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use prost::Message;

use crate::model::LogPosition;
use crate::proto::wandb_internal::Record;
use crate::proto::wandb_internal::record::RecordType;
use crate::wandb_format::block::{
    BLOCK, CHUNK_HEAD, Chunk, LOG_HEADER, LogError, check_header, chunk_at, chunk_start, next_block,
};
use crate::wandb_format::wire::{Fields, Value};

/// How much is read from the file at once, at most: whole blocks. Most logs are small, so it begins with one block.
const WINDOW: usize = 8 * BLOCK as usize;

/// Larger records are taken for damage. Protobuf itself ends at 2 GiB.
const MAX_RECORD: usize = 1 << 30;

/// An open log, positioned before an entry.
#[derive(Debug)]
pub struct LogReader<R = File> {
    source: R,
    /// Nothing at or behind this byte is read.
    limit: u64,
    /// Where the next record begins, or would.
    at: u64,
    /// Whether the bytes before `at` were reported as damaged and the search for an intact record is not over.
    recovering: bool,
    /// Where the source ended when that search reached its end: `at` may be the next block, which is not there yet.
    searched_to: u64,
    window: Vec<u8>,
    window_start: u64,
    /// How much of `window` is filled. Less than all of it: the source ended there when it was read.
    window_filled: usize,
    /// A record of several chunks, put together.
    record: Vec<u8>,
}

/// What comes next in a log.
#[derive(Debug)]
pub enum Next<'a> {
    /// An intact record.
    Entry(Entry<'a>),
    /// The log ends at a record boundary, or only zeros follow. There may be more later.
    End,
    /// The log ends within a record. It may be whole later: the next call looks at it again.
    Incomplete {
        /// Where the record begins.
        at: LogPosition,
    },
    /// These bytes are no record. The next call goes on behind them.
    Damaged {
        /// Where the damaged record begins.
        from: LogPosition,
        /// Where reading goes on: an intact record, or the end.
        to: LogPosition,
        /// What is wrong at `from`.
        why: &'static str,
    },
}

/// An intact record and its place.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Where its first chunk begins.
    pub start: LogPosition,
    /// Where its last chunk ends.
    pub end: LogPosition,
    /// Its number: writers count their records from 1. 0 where none is said.
    pub number: u64,
    /// What it holds.
    pub kind: EntryKind<'a>,
}

/// What an entry holds.
#[derive(Debug)]
pub enum EntryKind<'a> {
    /// A history row: the bytes of a `HistoryRecord`, for [`HistoryLines`](crate::wandb_format::HistoryLines).
    History(&'a [u8]),
    /// What changed in the summary: the bytes of a `SummaryRecord`, for [`apply_summary`](crate::wandb_format::apply_summary).
    Summary(&'a [u8]),
    /// Any other record.
    Record(Box<RecordType>),
    /// The record of a newer client, by the number of its field; 0 where a record holds nothing at all.
    Unknown(u32),
}

impl LogReader<File> {
    /// Opens a log at its first entry.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        Self::open_at(path, LogPosition(0))
    }

    /// Opens a log at an entry. Fails when the log is shorter than that.
    pub fn open_at(path: &Path, position: LogPosition) -> Result<Self, LogError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let reader = Self::new(file, position)?;
        if length < position.0 {
            return Err(LogError::Shorter { length, position: position.0 });
        }
        Ok(reader)
    }
}

impl<R: Read + Seek> LogReader<R> {
    /// Reads from any source.
    pub fn new(mut source: R, position: LogPosition) -> Result<Self, LogError> {
        let mut first = Vec::new();
        source.seek(SeekFrom::Start(0))?;
        (&mut source).take(LOG_HEADER.len() as u64).read_to_end(&mut first)?;
        check_header(&first)?;
        Ok(Self {
            source,
            limit: u64::MAX,
            at: position.0.max(LOG_HEADER.len() as u64),
            recovering: false,
            searched_to: u64::MAX,
            window: Vec::new(),
            window_start: 0,
            window_filled: 0,
            record: Vec::new(),
        })
    }

    /// Takes `limit` for the end of the log from now on.
    pub fn set_limit(&mut self, limit: Option<LogPosition>) {
        self.limit = limit.map_or(u64::MAX, |limit| limit.0);
        self.forget();
    }

    /// Where the next entry begins, or would.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.at.min(self.searched_to))
    }

    /// Reads on. After [`Next::End`] and [`Next::Incomplete`] it may be called again when there is more.
    #[expect(
        clippy::should_implement_trait,
        reason = "an entry borrows from the reader, which an iterator's item cannot"
    )]
    pub fn next(&mut self) -> Result<Next<'_>, LogError> {
        let found = match self.find()? {
            // Somebody may be writing there this very moment: only what is damaged twice is damaged.
            Found::Damaged { torn: true, .. } => {
                self.forget();
                self.find()?
            }
            found => found,
        };
        let (start, end, payload) = match found {
            Found::Record { start, end, payload } => (start, end, payload),
            Found::End => {
                self.forget();
                return Ok(Next::End);
            }
            Found::Incomplete { at } => {
                self.forget();
                return Ok(Next::Incomplete { at: LogPosition(at) });
            }
            Found::Damaged { from, search, why, .. } => {
                self.recovering = true;
                self.at = self.search(search)?;
                self.searched_to = self.source.seek(SeekFrom::End(0))?.min(self.limit);
                return Ok(Next::Damaged { from: LogPosition(from), to: self.position(), why });
            }
        };
        self.recovering = false;
        self.searched_to = u64::MAX;
        self.at = end;
        let bytes = match payload {
            Payload::Window(range) => self.window.get(range).unwrap_or_default(),
            Payload::Assembled => &self.record,
        };
        Ok(match entry_kind(bytes) {
            Some((number, kind)) => {
                Next::Entry(Entry { start: LogPosition(start), end: LogPosition(end), number, kind })
            }
            None => Next::Damaged {
                from: LogPosition(start),
                to: LogPosition(end),
                why: "a record that is not valid protobuf",
            },
        })
    }

    /// Finds the record at `at`.
    fn find(&mut self) -> Result<Found, LogError> {
        let mut start = chunk_start(self.at);
        let mut at = start;
        // Whether the chunk at `at` continues a record.
        let mut within = false;
        self.record.clear();
        loop {
            let in_block = (at % BLOCK) as usize;
            let chunk = chunk_at(self.block(at)?, in_block);
            let (kind, length) = match chunk {
                Chunk::Whole(kind, length) => (kind, length),
                Chunk::Cut | Chunk::Zero if self.block_with_data(at)?.is_none() => {
                    return Ok(if within { Found::Incomplete { at: start } } else { Found::End });
                }
                Chunk::Cut => return Ok(Found::Incomplete { at: start }),
                Chunk::Zero => {
                    return Ok(Found::Damaged {
                        from: start,
                        search: at,
                        torn: true,
                        why: "zeros in place of a record",
                    });
                }
                Chunk::Damaged(why) => return Ok(Found::Damaged { from: start, search: at, torn: true, why }),
            };
            let end = at + (CHUNK_HEAD + length) as u64;
            if kind.begins() == within {
                if !within && self.recovering {
                    // The rest of a record that was reported already.
                    at = chunk_start(end);
                    start = at;
                    continue;
                }
                let search = if within { at } else { chunk_start(end) };
                let why = if within { "a record without its end" } else { "a record without its beginning" };
                return Ok(Found::Damaged { from: start, search, torn: false, why });
            }
            let from = (at - self.window_start) as usize + CHUNK_HEAD;
            let range = from..from + length;
            if kind.begins() && kind.ends() {
                return Ok(Found::Record { start, end, payload: Payload::Window(range) });
            }
            if self.record.len() + length > MAX_RECORD {
                let why = "a record above 1 GiB";
                return Ok(Found::Damaged { from: start, search: chunk_start(end), torn: false, why });
            }
            self.record.extend_from_slice(self.window.get(range).unwrap_or_default());
            if kind.ends() {
                return Ok(Found::Record { start, end, payload: Payload::Assembled });
            }
            within = true;
            at = chunk_start(end);
        }
    }

    /// Where the first intact beginning of a record at or behind `at` lies; the end where there is none.
    fn search(&mut self, mut at: u64) -> Result<u64, LogError> {
        loop {
            match chunk_at(self.block(at)?, (at % BLOCK) as usize) {
                Chunk::Whole(kind, _) if kind.begins() => return Ok(at),
                Chunk::Whole(_, length) => at = chunk_start(at + (CHUNK_HEAD + length) as u64),
                Chunk::Cut => return Ok(at),
                Chunk::Zero => match self.block_with_data(at)? {
                    Some(block) => at = block.max(next_block(at)),
                    None => return Ok(at),
                },
                Chunk::Damaged(_) => at = next_block(at),
            }
        }
    }

    /// The first block that holds something else than zeros at or behind `at`.
    fn block_with_data(&mut self, mut at: u64) -> Result<Option<u64>, LogError> {
        loop {
            let block = self.block(at)?;
            let rest = block.get((at % BLOCK) as usize..).unwrap_or_default();
            // Many gigabytes may be reserved: comparing pieces takes a fraction of looking at each byte.
            static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
            if !rest.chunks(ZEROS.len()).all(|piece| ZEROS.starts_with(piece)) {
                return Ok(Some(at - at % BLOCK));
            }
            if (block.len() as u64) < BLOCK {
                return Ok(None);
            }
            at = next_block(at);
        }
    }

    /// As much of the block around `at` as there is.
    fn block(&mut self, at: u64) -> Result<&[u8], LogError> {
        let start = at - at % BLOCK;
        let inside = start.checked_sub(self.window_start).is_some_and(|offset| {
            let filled = self.window_filled as u64;
            offset + BLOCK <= filled || (offset <= filled && filled > 0 && filled < self.window.len() as u64)
        });
        if !inside {
            self.fill(start)?;
        }
        let from = (start - self.window_start) as usize;
        let to = self.window_filled.min(from + BLOCK as usize);
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    fn fill(&mut self, start: u64) -> Result<(), LogError> {
        if self.window.len() < WINDOW {
            self.window = vec![0; (2 * self.window.len()).max(BLOCK as usize)];
        }
        self.window_start = start;
        self.window_filled = 0;
        let room = self.window.len();
        let want = usize::try_from(self.limit.saturating_sub(start)).unwrap_or(room).min(room);
        self.source.seek(SeekFrom::Start(start))?;
        while let Some(rest) = self.window.get_mut(self.window_filled..want).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(count) => self.window_filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes the next look at any block a look at the source.
    fn forget(&mut self) {
        self.window_filled = 0;
    }
}

enum Found {
    Record {
        start: u64,
        end: u64,
        payload: Payload,
    },
    End,
    Incomplete {
        at: u64,
    },
    Damaged {
        from: u64,
        /// Where the search for an intact record begins.
        search: u64,
        /// Whether a write that is under way can look like this.
        torn: bool,
        why: &'static str,
    },
}

enum Payload {
    Window(Range<usize>),
    Assembled,
}

/// The number of a record, and what it holds; `None` when it is not a message.
fn entry_kind(payload: &[u8]) -> Option<(u64, EntryKind<'_>)> {
    let mut record_number = 0;
    let mut kind = EntryKind::Unknown(0);
    let mut known = false;
    for field in Fields::new(payload) {
        let (number, value) = field.ok()?;
        match (number, value) {
            (2, Value::Bytes(history)) => (kind, known) = (EntryKind::History(history), true),
            // The official client writes one with each row.
            (3, Value::Bytes(summary)) => (kind, known) = (EntryKind::Summary(summary), true),
            (4..=13 | 17 | 18 | 20..=27, Value::Bytes(_)) => (kind, known) = (EntryKind::Unknown(number), true),
            (1, Value::Varint(number)) => record_number = number,
            // Control, uuid and info stand beside the record type, as the number does.
            (1 | 16 | 19 | 200, _) => {}
            (_, Value::Bytes(_)) if !known => kind = EntryKind::Unknown(number),
            _ => {}
        }
    }
    let kind = match kind {
        EntryKind::Unknown(_) if known => {
            let record = Record::decode(payload).ok()?.record_type?;
            EntryKind::Record(Box::new(record))
        }
        kind => kind,
    };
    Some((record_number, kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::fs;
    use std::io::Cursor;

    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;
    use crate::proto::wandb_internal::RunExitRecord;
    use crate::wandb_format::wire::put_bytes;
    use crate::wandb_format::writer::LogWriter;

    /// A record whose history is `size` bytes of this value.
    fn row(value: u8, size: usize) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(2, &vec![value; size], &mut body);
        body
    }

    /// A log of rows of these sizes, and the positions of its entries' ends.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::create(&path).unwrap();
        let mut ends = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            writer.append_encoded(&row(index as u8, *size)).unwrap();
            ends.push(writer.position().0);
        }
        writer.flush().unwrap();
        (fs::read(&path).unwrap(), ends)
    }

    /// The rest of a log in words: `value*size` for rows, and how it goes on behind damage.
    fn read(reader: &mut LogReader<Cursor<Vec<u8>>>) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let before = reader.position();
            match reader.next().unwrap() {
                Next::Entry(Entry { kind: EntryKind::History(bytes), start, end, .. }) => {
                    assert!(before <= start && start < end);
                    seen.push(format!("{}*{}", bytes.first().copied().unwrap_or_default(), bytes.len()));
                }
                Next::Entry(entry) => seen.push(format!("{:?}", entry.kind)),
                Next::Damaged { from, to, why } => {
                    assert!(from < to, "{from:?} {to:?}");
                    seen.push(format!("{}..{}: {why}", from.0, to.0));
                }
                Next::Incomplete { at } => {
                    seen.push(format!("incomplete at {}", at.0));
                    return seen;
                }
                Next::End => return seen,
            }
        }
    }

    fn check(bytes: &[u8], expected: &[&str]) {
        let mut reader = LogReader::new(Cursor::new(bytes.to_vec()), LogPosition(0)).unwrap();
        assert_eq!(read(&mut reader), expected);
    }

    #[test]
    fn rows_are_lent_and_other_records_are_decoded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::create(&path).unwrap();
        writer.append_encoded(&row(7, 3)).unwrap();
        let exit = RecordType::Exit(RunExitRecord { exit_code: 3, ..RunExitRecord::default() });
        writer.append(exit.clone()).unwrap();
        let mut newer = Vec::new();
        crate::wandb_format::wire::put_varint(40 << 3 | 2, &mut newer);
        newer.push(0);
        writer.append_encoded(&newer).unwrap();
        writer.append_encoded(&[]).unwrap();
        writer.sync().unwrap();

        let mut reader = LogReader::open(&path).unwrap();
        assert!(matches!(
            reader.next().unwrap(),
            Next::Entry(Entry { start: LogPosition(7), kind: EntryKind::History([7, 7, 7]), .. })
        ));
        let after_row = reader.position();
        match reader.next().unwrap() {
            Next::Entry(Entry { kind: EntryKind::Record(record), .. }) => assert_eq!(*record, exit),
            other => panic!("{other:?}"),
        }
        assert!(matches!(reader.next().unwrap(), Next::Entry(Entry { kind: EntryKind::Unknown(40), .. })));
        assert!(matches!(reader.next().unwrap(), Next::Entry(Entry { kind: EntryKind::Unknown(0), .. })));
        assert!(matches!(reader.next().unwrap(), Next::End));
        assert_eq!(reader.position(), writer.position());

        let mut reader = LogReader::open_at(&path, after_row).unwrap();
        assert!(matches!(reader.next().unwrap(), Next::Entry(Entry { kind: EntryKind::Record(_), .. })));
        let beyond = LogPosition(writer.position().0 + 1);
        assert!(matches!(LogReader::open_at(&path, beyond), Err(LogError::Shorter { .. })));
    }

    #[test]
    fn nothing_behind_the_limit_is_read() {
        let (bytes, ends) = log(&[10, 40_000, 10]);
        let mut reader = LogReader::new(Cursor::new(bytes), LogPosition(0)).unwrap();
        reader.set_limit(Some(LogPosition(ends[0])));
        assert_eq!(read(&mut reader), ["0*10"]);
        reader.set_limit(Some(LogPosition(ends[1] - 1)));
        assert_eq!(read(&mut reader), [format!("incomplete at {}", ends[0])]);
        reader.set_limit(Some(LogPosition(ends[1])));
        assert_eq!(read(&mut reader), ["1*40000"]);
        reader.set_limit(None);
        assert_eq!(read(&mut reader), ["2*10"]);
    }

    #[test]
    fn zeros_at_the_end_are_the_end() {
        let (mut bytes, ends) = log(&[10, 20]);
        bytes.resize(100_000, 0);
        let mut reader = LogReader::new(Cursor::new(bytes), LogPosition(0)).unwrap();
        assert_eq!(read(&mut reader), ["0*10", "1*20"]);
        assert_eq!(reader.position().0, ends[1]);
        // The writer comes back and goes on where the zeros begin.
        let (longer, _) = log(&[10, 20, 30]);
        *reader.source.get_mut() = longer;
        assert_eq!(read(&mut reader), ["2*30"]);
    }

    #[test]
    fn zeros_between_records_are_reported() {
        let (mut bytes, ends) = log(&[10, 80_000, 10]);
        bytes[ends[0] as usize..65536].fill(0);
        let why = format!("{}..{}: zeros in place of a record", ends[0], ends[1]);
        check(&bytes, &["0*10", &why, "2*10"]);
        // Also where they stand instead of a record's later chunks.
        let (mut bytes, ends) = log(&[10, 80_000, 10]);
        bytes[32768..65536].fill(0);
        let why = format!("{}..{}: zeros in place of a record", ends[0], ends[1]);
        check(&bytes, &["0*10", &why, "2*10"]);
    }

    #[test]
    fn damage_ends_at_the_next_block() {
        let sizes = [10, 30_000, 10, 3_000, 10, 40_000, 10];
        let (mut bytes, ends) = log(&sizes);
        bytes[ends[0] as usize + 100] ^= 1;
        // Record 3 begins in the first block, so 4 is the first that begins in a later one.
        let why = format!("{}..{}: checksum mismatch", ends[0], ends[3]);
        check(&bytes, &["0*10", &why, "4*10", "5*40000", "6*10"]);
        // The last block: nothing follows that could be found, but reading goes on when more comes.
        let (mut bytes, ends) = log(&sizes);
        bytes[ends[5] as usize + 8] ^= 1;
        let why = format!("{}..{}: checksum mismatch", ends[5], ends[6]);
        check(&bytes, &["0*10", "1*30000", "2*10", "3*3000", "4*10", "5*40000", &why]);
    }

    #[test]
    fn a_record_that_its_writer_never_ended_is_damaged() {
        // A client was killed within a record; what a block further on begins anew is whole.
        let (first, ends) = log(&[10, 100_000]);
        // The first record of this one fills its first block.
        let (second, _) = log(&[32768 - 7 - 7 - 2 - 4, 7, 8]);
        let bytes = [&first[..32768], &second[32768..]].concat();
        let why = format!("{}..32768: a record without its end", ends[0]);
        check(&bytes, &["0*10", &why, "1*7", "2*8"]);
    }

    #[test]
    fn bytes_that_are_no_record_cost_only_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = LogWriter::create(&path).unwrap();
        writer.append_encoded(&[0x12, 0x05]).unwrap();
        // Field 17, the run, whose name is not UTF-8.
        writer.append_encoded(&[0x8a, 0x01, 0x03, 0x0a, 0x01, 0xff]).unwrap();
        writer.append_encoded(&row(2, 2)).unwrap();
        writer.flush().unwrap();
        let why = "a record that is not valid protobuf";
        check(&fs::read(&path).unwrap(), &[&format!("7..18: {why}"), &format!("18..33: {why}"), "2*2"]);
    }

    #[test]
    fn a_file_that_is_no_log_is_refused() {
        assert!(matches!(LogReader::new(Cursor::new(vec![]), LogPosition(0)), Err(LogError::NoHeader { length: 0 })));
        let other = Cursor::new(b"{\"a\": 1}".to_vec());
        assert!(matches!(LogReader::new(other, LogPosition(0)), Err(LogError::WrongHeader { .. })));
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        let size = prop_oneof![0..60_usize, 32_720..32_770_usize, 60_000..70_000_usize];
        proptest::collection::vec(size, 1..12)
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]

        /// However a log grows, the same entries come.
        #[test]
        fn a_growing_log_gives_the_same_entries(
            sizes in sizes(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let (bytes, ends) = log(&sizes);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| 7 + cut.index(bytes.len() - 6)).collect();
            cuts.sort_unstable();
            let mut reader = LogReader::new(Cursor::new(bytes[..7].to_vec()), LogPosition(0)).unwrap();
            let mut seen = Vec::new();
            for cut in cuts.into_iter().chain([bytes.len()]) {
                *reader.source.get_mut() = bytes[..cut].to_vec();
                seen.extend(read(&mut reader).into_iter().filter(|entry| !entry.starts_with("incomplete")));
                let whole = ends.iter().filter(|end| **end <= cut as u64).count();
                proptest::prop_assert_eq!(seen.len(), whole);
            }
            let expected: Vec<_> = sizes.iter().enumerate()
                .map(|(index, size)| format!("{}*{size}", if *size == 0 { 0 } else { index }))
                .collect();
            proptest::prop_assert_eq!(seen, expected);
        }

        /// One wrong byte costs at most the records that begin in its block, or reach into it.
        #[test]
        fn a_wrong_byte_leaves_the_other_blocks_alone(
            sizes in sizes(),
            place in any::<proptest::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let (mut bytes, ends) = log(&sizes);
            let place = 7 + place.index(bytes.len() - 7);
            bytes[place] ^= flip;
            let mut reader = LogReader::new(Cursor::new(bytes), LogPosition(0)).unwrap();
            let seen = read(&mut reader);
            let block = place as u64 / BLOCK;
            for (index, size) in sizes.iter().enumerate() {
                let start = index.checked_sub(1).map_or(7, |before| chunk_start(ends[before]));
                let untouched = ends[index] <= place as u64 || start / BLOCK > block;
                let row = format!("{}*{size}", if *size == 0 { 0 } else { index });
                proptest::prop_assert!(!untouched || seen.contains(&row), "{row} of {seen:?}");
            }
        }

        #[test]
        fn any_bytes_are_entries_and_damage(
            bytes in proptest::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..4000),
            start in 0..100_000_u64,
        ) {
            let mut log = LOG_HEADER.to_vec();
            log.extend_from_slice(&bytes);
            log.resize(log.len().max(33_000), 0);
            log.extend_from_slice(&bytes);
            for at in [0, start] {
                let mut reader = LogReader::new(Cursor::new(log.clone()), LogPosition(at)).unwrap();
                proptest::prop_assert!(read(&mut reader).len() <= log.len());
            }
        }
    }
}

//! Files that grow, are cut anywhere, or are damaged: each whole record comes once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{self, File};
use std::io::Write;

use flate2::Compression as Level;
use flate2::write::{GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::*;
use crate::tfevents::crc::masked_crc;
use crate::tfevents::write::write_record;

/// A file that grows.
struct Growing {
    path: std::path::PathBuf,
    file: File,
    _directory: TempDir,
}

impl Growing {
    fn new(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tfevents");
        let mut file = File::create(&path).unwrap();
        file.write_all(bytes).unwrap();
        Self { path, file, _directory: directory }
    }

    fn reader(&self) -> RecordReader {
        RecordReader::open(&self.path, 0).unwrap()
    }
}

fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    payloads.iter().for_each(|payload| write_record(&mut bytes, payload));
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Reads until the end as it is now.
fn drain(reader: &mut RecordReader, into: &mut Vec<Vec<u8>>) -> Read {
    loop {
        match reader.next_record().unwrap() {
            Read::Record(payload) => into.push(payload.to_vec()),
            other => return other,
        }
    }
}

#[test]
fn a_file_that_grows_is_read_on() {
    let payloads = [b"one".to_vec(), b"".to_vec(), b"three".to_vec()];
    let bytes = framed(&payloads);
    let mut growing = Growing::new(b"");
    let mut reader = growing.reader();
    let mut read = Vec::new();
    assert_eq!(drain(&mut reader, &mut read), Read::NothingYet);
    growing.file.write_all(&bytes[..25]).unwrap();
    assert_eq!(drain(&mut reader, &mut read), Read::Incomplete { bytes: 6 });
    assert_eq!(reader.offset(), 19);
    growing.file.write_all(&bytes[25..]).unwrap();
    assert_eq!(drain(&mut reader, &mut read), Read::NothingYet);
    assert_eq!(read, payloads);
    assert_eq!(reader.offset(), bytes.len() as u64);
}

#[test]
fn damage_is_skipped_where_the_framing_allows() {
    let mut bytes = framed(&[b"one".to_vec(), b"two".to_vec(), b"three".to_vec(), b"four".to_vec()]);
    bytes[19 + 13] ^= 1;
    bytes[19 + 19 + 21] ^= 1;
    let growing = Growing::new(&bytes);
    let mut reader = growing.reader();
    let mut read = Vec::new();
    assert_eq!(drain(&mut reader, &mut read), Read::BadPayload { at: 19 });
    let Read::BadLength { at: 59, why: LengthError::Checksum { .. } } = drain(&mut reader, &mut read) else { panic!() };
    assert_eq!(read, [b"one".to_vec(), b"three".to_vec()]);
    // The place is read anew: here it was mended meanwhile.
    bytes[19 + 19 + 21] ^= 1;
    fs::write(&growing.path, &bytes).unwrap();
    assert_eq!(drain(&mut reader, &mut read), Read::NothingYet);
    assert_eq!(read.last(), Some(&b"four".to_vec()));
}

#[test]
fn zeros_are_a_tail_until_something_follows_them() {
    let record = framed(&[b"one".to_vec()]);
    let mut bytes = record.clone();
    bytes.extend(vec![0; 2_000_000]);
    let growing = Growing::new(&bytes);
    let mut reader = growing.reader();
    let mut read = Vec::new();
    assert_eq!(drain(&mut reader, &mut read), Read::Zeros { at: 19 });
    assert_eq!(drain(&mut reader, &mut read), Read::Zeros { at: 19 });
    // The writer goes on in what it had preallocated.
    bytes[19..38].copy_from_slice(&record);
    fs::write(&growing.path, &bytes).unwrap();
    assert_eq!(drain(&mut reader, &mut read), Read::Zeros { at: 38 });
    assert_eq!(read.len(), 2);
    bytes.push(1);
    fs::write(&growing.path, &bytes).unwrap();
    assert_eq!(drain(&mut reader, &mut read), Read::BadLength { at: 38, why: LengthError::Hole });
}

#[test]
fn claimed_lengths_take_no_memory() {
    let length = DEFAULT_LIMIT.to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend([1; 100]);
    let growing = Growing::new(&bytes);
    let mut reader = growing.reader();
    assert_eq!(reader.next_record().unwrap(), Read::Incomplete { bytes: 112 });
    assert!(reader.chunk.try_into_mut().unwrap().capacity() < 1 << 20);
    let mut reader = growing.reader().with_limit(1000);
    let why = LengthError::TooLong { length: DEFAULT_LIMIT, limit: 1000 };
    assert_eq!(reader.next_record().unwrap(), Read::BadLength { at: 0, why });
}

#[test]
fn long_records_come_in_whole() {
    let payloads: Vec<Vec<u8>> = [10, 3_000_000, 10, 700_000, 0].iter().map(|&length| vec![7; length]).collect();
    let growing = Growing::new(&framed(&payloads));
    let mut read = Vec::new();
    assert_eq!(drain(&mut growing.reader(), &mut read), Read::NothingYet);
    assert!(read == payloads);
    // Payloads that are held on to stay what they are.
    let mut reader = growing.reader();
    let held: Vec<Read> = (0..payloads.len()).map(|_| reader.next_record().unwrap()).collect();
    for (held, payload) in held.into_iter().zip(payloads) {
        assert!(held == Read::Record(payload.into()));
    }
}

#[test]
fn bombs_are_cut_at_the_record_limit() {
    // 64 MiB of zeros in 64 kB, framed as one record that is above the limit, and as a tail of zeros.
    let mut bytes = Vec::new();
    write_record(&mut bytes, &vec![0; 64 << 20]);
    let growing = Growing::new(&gzip(&bytes));
    let mut reader = growing.reader().with_limit(1 << 20);
    assert!(matches!(reader.next_record().unwrap(), Read::BadLength { why: LengthError::TooLong { .. }, .. }));
    let growing = Growing::new(&gzip(&vec![0; 64 << 20]));
    assert_eq!(growing.reader().next_record().unwrap(), Read::Zeros { at: 0 });
}

#[test]
fn a_record_is_not_much_larger_than_the_file_it_is_compressed_in() {
    let record = |length: usize| {
        let mut bytes = framed(&[b"one".to_vec()]);
        write_record(&mut bytes, &vec![0; length]);
        Growing::new(&gzip(&bytes))
    };
    let growing = record(100 << 20);
    let mut reader = growing.reader();
    assert!(matches!(reader.next_record().unwrap(), Read::Record(_)));
    let limit = COMPRESSED_LIMIT + fs::metadata(&growing.path).unwrap().len() * COMPRESSED_RATIO;
    assert!(limit < 100 << 20, "{limit}");
    let why = LengthError::TooLong { length: 100 << 20, limit };
    assert_eq!(reader.next_record().unwrap(), Read::BadLength { at: 19, why });
    let growing = record(60 << 20);
    let mut reader = growing.reader();
    assert!(matches!(reader.next_record().unwrap(), Read::Record(_)));
    assert!(matches!(reader.next_record().unwrap(), Read::Record(_)));
    // What is not compressed is there, whatever it holds.
    let mut bytes = Vec::new();
    write_record(&mut bytes, &vec![0; 100 << 20]);
    assert!(matches!(Growing::new(&bytes).reader().next_record().unwrap(), Read::Record(_)));
}

#[test]
fn damaged_compression_ends_the_file() {
    let mut bytes = gzip(&framed(&[vec![1; 100]]));
    bytes.extend(b"not gzip");
    let growing = Growing::new(&bytes);
    let mut reader = growing.reader();
    assert!(matches!(reader.next_record().unwrap(), Read::Record(_)));
    let bad = Read::BadLength { at: 116, why: LengthError::Compression };
    assert_eq!(reader.next_record().unwrap(), bad);
    assert_eq!(reader.next_record().unwrap(), bad);
}

#[test]
fn offsets_behind_the_end_are_waited_for() {
    for bytes in [framed(&[b"one".to_vec()]), gzip(&framed(&[b"one".to_vec()]))] {
        let growing = Growing::new(&bytes);
        let mut reader = RecordReader::open(&growing.path, 1000).unwrap();
        assert_eq!(reader.next_record().unwrap(), Read::NothingYet);
        assert_eq!(reader.offset(), 1000);
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_a_file_is_an_error_and_does_not_block() {
    let directory = tempfile::tempdir().unwrap();
    assert!(RecordReader::open(directory.path(), 0).is_err());
    let pipe = directory.path().join("tfevents");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    assert!(RecordReader::open(&pipe, 0).is_err());
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Plain,
    Gzip,
    TwoMembers,
    Zlib,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However the bytes arrive, and wherever reading stops and starts, the same records come.
    #[test]
    fn cuts_do_not_matter(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..8),
        cuts in proptest::collection::vec((any::<Index>(), 0_u8..4), 0..6),
        form in prop::sample::select(vec![Form::Plain, Form::Gzip, Form::TwoMembers, Form::Zlib]),
    ) {
        let plain = framed(&payloads);
        let bytes = match form {
            Form::Plain => plain.clone(),
            Form::Gzip => gzip(&plain),
            Form::TwoMembers => {
                let (first, second) = plain.split_at(plain.len() / 3);
                [gzip(first), gzip(second)].concat()
            }
            Form::Zlib => zlib(&plain),
        };
        let mut cuts: Vec<(usize, u8)> = cuts.iter().map(|(cut, how)| (cut.index(bytes.len() + 1), *how)).collect();
        cuts.push((bytes.len(), 0));
        cuts.sort_unstable();
        let mut growing = Growing::new(b"");
        let mut reader = growing.reader();
        let mut read = Vec::new();
        let mut written = 0;
        for (cut, how) in cuts {
            growing.file.write_all(&bytes[written..cut]).unwrap();
            written = cut;
            let end = drain(&mut reader, &mut read);
            prop_assert!(matches!(end, Read::NothingYet | Read::Incomplete { .. }), "{:?}", end);
            prop_assert!(written < bytes.len() || end == Read::NothingYet, "{:?}", end);
            match how {
                1 => reader.suspend(),
                2 => reader = RecordReader::open(&growing.path, reader.offset()).unwrap(),
                _ => {}
            }
        }
        prop_assert_eq!(read, payloads);
        prop_assert_eq!(reader.offset(), plain.len() as u64);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        head in prop::sample::select(vec![vec![], vec![0x1f, 0x8b, 8, 0], vec![0x78, 0x9c], framed(&[vec![1; 20]])]),
    ) {
        let growing = Growing::new(&[head, bytes].concat());
        let mut reader = growing.reader();
        for _ in 0..20 {
            let before = reader.offset();
            match reader.next_record().unwrap() {
                Read::Record(_) | Read::BadPayload { .. } => prop_assert!(reader.offset() > before),
                _ => prop_assert_eq!(reader.offset(), before),
            }
        }
    }
}

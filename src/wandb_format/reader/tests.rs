//! Logs that are whole, grow, or are damaged anywhere: each intact record comes once, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::Cursor;

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::*;
use crate::proto::wandb_internal::RunExitRecord;
use crate::proto::wandb_internal::record::RecordType;
use crate::wandb_format::entry::EntryKind;
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

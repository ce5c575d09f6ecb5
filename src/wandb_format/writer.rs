//! Appends records to a `.wandb` log.
//!
//! Promises that what lies before [`LogWriter::position`] is, after [`LogWriter::sync`], a log that every W&B client
//! reads, and that a log cut back to any such position and continued is byte for byte the log that was never cut.
//! Allocates nothing for a record that is encoded already. Does not know when a commit is due, takes no lock, and does not sync the directory that
//! a new log lies in.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use prost::Message;

use crate::model::LogPosition;
use crate::proto::wandb_internal::Record;
use crate::proto::wandb_internal::record::RecordType;
use crate::wandb_format::block::{BLOCK, CHUNK_HEAD, ChunkKind, LOG_HEADER, LogError, check_header, chunk_start};

/// How much is kept in memory before it goes to the operating system.
const BUFFER: usize = 256 * 1024;

/// An open log. Dropping it loses what was not flushed.
#[derive(Debug)]
pub struct LogWriter {
    /// `None`: what is appended goes nowhere, and only the length of the log is known.
    file: Option<File>,
    /// What follows byte `written` of the file. After a failed write it is kept, to be written to the same place again.
    buffer: Vec<u8>,
    written: u64,
    next_num: i64,
}

impl LogWriter {
    /// Makes a new log that holds no record. Fails when the file exists.
    pub fn create(path: &Path) -> Result<Self, LogError> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // At once, so that nobody ever finds a log without its header while this process lives.
        file.write_all(&LOG_HEADER)?;
        Ok(Self::at(Some(file), LOG_HEADER.len() as u64, 1))
    }

    /// Opens a log to go on at `position`: what lies behind it is cut off. `next_num` numbers the next record.
    pub fn open_at(path: &Path, position: LogPosition, next_num: i64) -> Result<Self, LogError> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut first = Vec::new();
        (&mut file).take(LOG_HEADER.len() as u64).read_to_end(&mut first)?;
        check_header(&first)?;
        let length = file.metadata()?.len();
        let position = position.0.max(LOG_HEADER.len() as u64);
        if length < position {
            return Err(LogError::Shorter { length, position });
        }
        file.set_len(position)?;
        Ok(Self::at(Some(file), position, next_num))
    }

    /// Goes on at `position` of a log that is not touched.
    pub fn nowhere(position: LogPosition, next_num: i64) -> Self {
        Self::at(None, position.0.max(LOG_HEADER.len() as u64), next_num)
    }

    fn at(file: Option<File>, written: u64, next_num: i64) -> Self {
        Self { file, buffer: Vec::new(), written, next_num }
    }

    /// Appends a record. Rows have a quicker way: [`Self::append_encoded`].
    pub fn append(&mut self, record: RecordType) -> Result<(), LogError> {
        let record = Record { record_type: Some(record), ..Record::default() };
        self.append_encoded(&record.encode_to_vec())
    }

    /// Appends a record that is in protobuf form already, but for its number.
    ///
    /// An error is about handing earlier bytes to the operating system; the record itself is kept, and [`Self::flush`]
    /// may be tried again.
    pub fn append_encoded(&mut self, body: &[u8]) -> Result<(), LogError> {
        let mut number = [0_u8; 11];
        let number = encode_number(self.next_num, &mut number);
        self.next_num = self.next_num.wrapping_add(1);
        self.frame(number, body);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// The end of the last record, whether it was flushed or not.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.end())
    }

    /// The number of the next record.
    pub fn next_num(&self) -> i64 {
        self.next_num
    }

    /// Hands everything to the operating system, so that other processes see it.
    pub fn flush(&mut self) -> Result<(), LogError> {
        if !self.buffer.is_empty() {
            if let Some(file) = &mut self.file {
                file.seek(SeekFrom::Start(self.written))?;
                file.write_all(&self.buffer)?;
            }
            self.written = self.end();
            self.buffer.clear();
        }
        Ok(())
    }

    /// Flushes, and waits until it would survive a power failure.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Cuts `first` and then `second`, together one record, into chunks.
    fn frame(&mut self, mut first: &[u8], mut second: &[u8]) {
        let mut begins = true;
        loop {
            let start = chunk_start(self.end());
            self.buffer.resize((start - self.written) as usize, 0);
            let room = (BLOCK - start % BLOCK) as usize - CHUNK_HEAD;
            let length = room.min(first.len() + second.len());
            let ends = length == first.len() + second.len();
            let head = self.buffer.len();
            self.buffer.extend_from_slice(&[0, 0, 0, 0]);
            // At most 32761, the room in a block.
            self.buffer.extend_from_slice(&(length as u16).to_le_bytes());
            self.buffer.push(ChunkKind::of(begins, ends).byte());
            let (now, later) = first.split_at(length.min(first.len()));
            let (rest, further) = second.split_at(length - now.len());
            self.buffer.extend_from_slice(now);
            self.buffer.extend_from_slice(rest);
            let checksum = crc32fast::hash(&self.buffer[head + CHUNK_HEAD - 1..]);
            self.buffer[head..head + 4].copy_from_slice(&checksum.to_le_bytes());
            if ends {
                return;
            }
            (first, second, begins) = (later, further, false);
        }
    }
}

/// Field 1 of a record.
fn encode_number(number: i64, out: &mut [u8; 11]) -> &[u8] {
    let mut value = number as u64;
    out[0] = 0x08;
    let mut length = 1;
    while value >= 0x80 {
        out[length] = (value as u8) | 0x80;
        value >>= 7;
        length += 1;
    }
    out[length] = value as u8;
    &out[..=length]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_log_of_one_record_is_the_known_vector() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run-a.wandb");
        LogWriter::create(&path).unwrap();
        assert_eq!(hex(&fs::read(&path).unwrap()), "3a572642e1be00");
        let mut writer = LogWriter::open_at(&path, LogPosition(0), 13).unwrap();
        writer.append_encoded(&[]).unwrap();
        assert_eq!(writer.position(), LogPosition(16));
        assert_eq!(writer.next_num(), 14);
        assert_eq!(fs::metadata(&path).unwrap().len(), 7);
        writer.sync().unwrap();
        assert_eq!(hex(&fs::read(&path).unwrap()), "3a572642e1be009045eb48020001080d");
    }

    #[test]
    fn an_existing_log_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run-a.wandb");
        LogWriter::create(&path).unwrap();
        assert!(matches!(LogWriter::create(&path), Err(LogError::Io(_))));
        assert!(matches!(
            LogWriter::open_at(&path, LogPosition(8), 1),
            Err(LogError::Shorter { length: 7, position: 8 })
        ));
        fs::write(&path, "something else").unwrap();
        assert!(matches!(LogWriter::open_at(&path, LogPosition(7), 1), Err(LogError::WrongHeader { .. })));
    }

    #[test]
    fn numbers_are_varints() {
        for number in [1, 127, 128, 300, i64::MAX, -1] {
            let mut out = [0; 11];
            let mut expected = vec![0x08];
            crate::wandb_format::wire::put_varint(number as u64, &mut expected);
            assert_eq!(encode_number(number, &mut out), expected);
        }
    }

    /// A log of records of these sizes, cut and opened again after each record that `cut` names.
    fn write(path: &Path, sizes: &[usize], cut: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut writer = LogWriter::create(path).unwrap();
        for (index, size) in sizes.iter().enumerate() {
            writer.append_encoded(&vec![index as u8; *size]).unwrap();
            if cut(index) {
                let (position, next) = (writer.position(), writer.next_num());
                // Lost: a record that no checkpoint covers.
                writer.append_encoded(&[9; 40_000]).unwrap();
                writer.flush().unwrap();
                writer = LogWriter::open_at(path, position, next).unwrap();
            }
        }
        writer.flush().unwrap();
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    }

    #[test]
    fn a_full_block_ends_without_padding_and_seven_bytes_hold_an_empty_chunk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        // The first block has 32761 bytes: head, number (2 bytes) and this body fill it exactly.
        let exact = 32768 - 7 - 7 - 2;
        assert_eq!(write(&path, &[exact], |_| false).len(), 32768);
        // Seven bytes are left: a first chunk without payload stands in them.
        let bytes = write(&path, &[exact - 7, 3], |_| false);
        assert_eq!(bytes.len(), 32768 + 7 + 5);
        assert_eq!(&bytes[32768 - 3..32768], [0, 0, 2]);
        assert_eq!(bytes[32768 + 6], 4);
        // Six bytes are left: zeros.
        let bytes = write(&path, &[exact - 6, 3], |_| false);
        assert_eq!(&bytes[32768 - 6..32768], [0; 6]);
        assert_eq!(bytes[32768 + 6], 1);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(40))]
        #[test]
        fn a_log_that_was_cut_and_continued_is_the_same(
            sizes in proptest::collection::vec(
                proptest::prop_oneof![0..40_usize, 32_730..32_770_usize, 60_000..140_000_usize], 1..10),
            cuts in proptest::num::u16::ANY,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("log");
            let whole = write(&path, &sizes, |_| false);
            let pieces = write(&path, &sizes, |index| cuts >> index & 1 == 1);
            proptest::prop_assert!(whole == pieces);
        }
    }
}

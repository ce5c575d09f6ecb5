//! Reads the records of one event file, also while it grows.
//!
//! Promises: every whole record is delivered once, wherever the file ended when it was looked at; memory grows only with
//! bytes that really came; payloads are slices of what was read, not copies. A record that is not whole is a normal
//! answer, and a later call goes on. Does not know what is in a payload.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};

use crate::tfevents::inflate::Compression;
use crate::tfevents::input::{Input, InputError};
use crate::tfevents::record::{DEFAULT_LIMIT, FOOTER, Frame, HEADER, LengthError, frame};

/// How much is read at first. Most files of most directories are small, and thousands may be open.
const FIRST_READ: usize = 16 << 10;
/// How much is read at once from a file that has more.
const LARGE_READ: usize = 512 << 10;

/// The longest payload that is believed of a compressed file, beside a multiple of the file's own size: a few bytes can
/// decompress to a record of a gigabyte.
const COMPRESSED_LIMIT: u64 = 64 << 20;
/// That multiple. Deflate reaches a thousand with zeros; graphs and other text of real files stay below thirty.
const COMPRESSED_RATIO: u64 = 64;

/// A position in one event file and the bytes that were read ahead of it.
///
/// Offsets count uncompressed bytes; in a file that is not compressed they are offsets in the file.
pub struct RecordReader {
    input: Input,
    /// Bytes of the file; `at` of them are done with.
    chunk: Bytes,
    at: usize,
    /// Offset in the file of the next record: of `chunk[at]`.
    offset: u64,
    /// The bytes before `chunk`, where they are known.
    before_chunk: Option<[u8; 4]>,
    limit: u64,
    read_size: usize,
    /// Zeros were seen to reach from this offset to the end of a file of this size.
    zeros: Option<(u64, u64)>,
}

/// What came next. Only `Record` and `BadPayload` move the reader on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The payload of a whole record with good checksums.
    Record(Bytes),
    /// The file ends here, on a record boundary. Ask again when it has grown.
    NothingYet,
    /// The file ends within a record. Ask again when it has grown.
    Incomplete {
        /// How many bytes of the record are there; 0 when a compressed stream breaks off between records.
        bytes: u64,
    },
    /// A record whose payload is damaged. It is skipped; ask for the next.
    BadPayload {
        /// Where it starts.
        at: u64,
    },
    /// The file cannot be read beyond this record. Asking again reads the place anew, which helps only where a network
    /// file system showed bytes too early.
    BadLength {
        /// Where it starts.
        at: u64,
        /// What is wrong.
        why: LengthError,
    },
    /// Nothing but zeros from here to the end of the file: the tail of a crash or of a preallocated file. Ask again
    /// when the file has changed.
    Zeros {
        /// Where they start.
        at: u64,
    },
}

/// [`Read`], with the payload still in the reader.
pub(crate) enum Found {
    Record(Range<usize>),
    Other(Read),
}

impl RecordReader {
    /// Opens a file at an offset that [`offset`](Self::offset) gave before, or at 0.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        Self::open_behind(path, offset, None)
    }

    /// The same, for a file in which these bytes must stand before the offset. Reading fails with [`Rewritten`] where
    /// others do.
    ///
    /// [`Rewritten`]: crate::tfevents::Rewritten
    pub fn open_behind(path: &Path, offset: u64, before: Option<[u8; 4]>) -> io::Result<Self> {
        Ok(Self {
            input: Input::open(path, offset, before)?,
            chunk: Bytes::new(),
            at: 0,
            offset,
            before_chunk: before,
            limit: DEFAULT_LIMIT,
            read_size: FIRST_READ,
            zeros: None,
        })
    }

    /// Changes the longest payload that is believed.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Where the next record starts.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes before [`offset`](Self::offset): the end of a record, which tells it from any other. `None` where they are
    /// not known, or mean nothing because the file is compressed.
    pub fn before(&self) -> Option<[u8; 4]> {
        match self.input.compression() {
            Some(Compression::None) => self.before_at(),
            Some(_) => None,
            None => self.before_chunk,
        }
    }

    /// How long the file is now, on disk.
    pub fn size_on_disk(&mut self) -> io::Result<u64> {
        self.input.size_on_disk()
    }

    /// The file's path, as it was given.
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// How the file is compressed; known once something was read of it.
    pub fn compression(&self) -> Option<Compression> {
        self.input.compression()
    }

    /// Lets go of the file and of all memory; the next read opens the file again, by its path, and goes on.
    ///
    /// Of a compressed file, all before the offset is then decompressed again.
    pub fn suspend(&mut self) {
        let before = self.before();
        self.forget_chunk();
        self.read_size = FIRST_READ;
        self.input.seek(self.offset, before);
    }

    /// Reads the next record.
    pub fn next_record(&mut self) -> io::Result<Read> {
        Ok(match self.find()? {
            Found::Record(range) => Read::Record(self.payload(range)),
            Found::Other(read) => read,
        })
    }

    /// Finds the next record and leaves it where it is.
    #[inline]
    pub(crate) fn find(&mut self) -> io::Result<Found> {
        loop {
            match frame(self.rest(), self.limit) {
                Frame::Record { payload, consumed } => {
                    let start = self.at;
                    self.at += consumed;
                    self.offset += consumed as u64;
                    return Ok(Found::Record(start + payload.start..start + payload.end));
                }
                other => {
                    if let Some(read) = self.unusual(&other)? {
                        return Ok(Found::Other(read));
                    }
                }
            }
        }
    }

    /// The bytes of a payload that [`find`](Self::find) has just found.
    #[inline]
    pub(crate) fn payload_slice(&self, range: Range<usize>) -> &[u8] {
        self.chunk.get(range).unwrap_or_default()
    }

    /// The same, to keep.
    pub(crate) fn payload(&self, range: Range<usize>) -> Bytes {
        if range.end <= self.chunk.len() { self.chunk.slice(range) } else { Bytes::new() }
    }

    fn rest(&self) -> &[u8] {
        self.chunk.get(self.at..).unwrap_or_default()
    }

    /// Deals with anything but a whole record; `None` when it is worth looking again.
    #[cold]
    fn unusual(&mut self, frame: &Frame) -> io::Result<Option<Read>> {
        let at = self.offset;
        match *frame {
            Frame::Record { .. } => Ok(None),
            Frame::Incomplete { need } if need > COMPRESSED_LIMIT && need > self.limit_by_size()? => {
                let (length, limit) = (need.saturating_sub((HEADER + FOOTER) as u64), self.limit_by_size()?);
                Ok(Some(self.unusable(LengthError::TooLong { length, limit })))
            }
            Frame::Incomplete { need } => match self.fill(need) {
                Ok(0) => Ok(Some(self.end())),
                Ok(_) => Ok(None),
                Err(InputError::Io(error)) => Err(error),
                Err(InputError::Damaged) => Ok(Some(self.unusable(LengthError::Compression))),
            },
            Frame::BadPayload { consumed } => {
                self.at += consumed;
                self.offset += consumed as u64;
                Ok(Some(Read::BadPayload { at }))
            }
            Frame::BadLength(why) => Ok(Some(self.unusable(why))),
            Frame::Zeros => self.zeros().map(Some),
        }
    }

    fn before_at(&self) -> Option<[u8; 4]> {
        match self.at.checked_sub(4) {
            Some(start) => self.chunk.get(start..self.at)?.try_into().ok(),
            // No record is shorter than that.
            None => self.before_chunk,
        }
    }

    fn forget_chunk(&mut self) {
        self.before_chunk = self.before_at();
        self.chunk = Bytes::new();
        self.at = 0;
    }

    /// What a record may have by the size of the file that it is compressed in.
    fn limit_by_size(&mut self) -> io::Result<u64> {
        Ok(match self.input.compression() {
            None | Some(Compression::None) => u64::MAX,
            Some(Compression::Gzip | Compression::Zlib) => {
                COMPRESSED_LIMIT.saturating_add(self.input.size_on_disk()?.saturating_mul(COMPRESSED_RATIO))
            }
        })
    }

    /// Reads more behind what is there and returns how much came.
    fn fill(&mut self, need: u64) -> Result<usize, InputError> {
        self.before_chunk = self.before_at();
        // The old memory is used again unless somebody still holds a payload in it.
        let mut buffer = match std::mem::take(&mut self.chunk).try_into_mut() {
            Ok(mut buffer) => {
                buffer.advance(self.at.min(buffer.len()));
                buffer
            }
            Err(chunk) => BytesMut::from(chunk.get(self.at..).unwrap_or_default()),
        };
        self.at = 0;
        // A long record doubles the memory as it comes in. What it claims to need is only an upper bound.
        let missing = usize::try_from(need).unwrap_or(usize::MAX).saturating_sub(buffer.len());
        let at_most = missing.min(buffer.len()).max(self.read_size);
        let result = self.input.read(&mut buffer, at_most);
        self.chunk = buffer.freeze();
        if result.as_ref().is_ok_and(|&count| count == at_most) {
            self.read_size = (self.read_size * 2).min(LARGE_READ);
        }
        result
    }

    /// The file ended.
    fn end(&mut self) -> Read {
        let bytes = self.rest().len() as u64;
        self.read_size = FIRST_READ;
        if bytes > 0 || self.input.is_cut() {
            return Read::Incomplete { bytes };
        }
        self.forget_chunk();
        Read::NothingYet
    }

    fn unusable(&mut self, why: LengthError) -> Read {
        self.suspend();
        Read::BadLength { at: self.offset, why }
    }

    /// Finds out whether zeros go on to the end of the file.
    fn zeros(&mut self) -> io::Result<Read> {
        let at = self.offset;
        let size = self.input.size_on_disk()?;
        if self.zeros != Some((at, size)) {
            let mut only_zeros = all_zeros(self.rest());
            let mut buffer = BytesMut::new();
            while only_zeros {
                buffer.clear();
                self.input.skip_hole();
                match self.input.read(&mut buffer, LARGE_READ) {
                    Ok(0) => break,
                    Ok(_) => only_zeros = all_zeros(&buffer),
                    Err(InputError::Io(error)) => {
                        self.suspend();
                        return Err(error);
                    }
                    Err(InputError::Damaged) => return Ok(self.unusable(LengthError::Compression)),
                }
            }
            if !only_zeros {
                return Ok(self.unusable(LengthError::Hole));
            }
            self.zeros = Some((at, size));
        }
        // A writer that goes on writes over them, so they must be read again.
        self.suspend();
        Ok(Read::Zeros { at })
    }
}

/// Compares with a block of zeros, which takes a fraction of looking at each byte: tails may have many gigabytes.
fn all_zeros(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
    bytes.chunks(ZEROS.len()).all(|chunk| ZEROS.starts_with(chunk))
}

#[cfg(test)]
mod tests {
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
        let Read::BadLength { at: 59, why: LengthError::Checksum { .. } } = drain(&mut reader, &mut read) else {
            panic!()
        };
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
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
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
}

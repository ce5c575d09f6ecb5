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

    /// Goes back to the first record.
    pub(crate) fn rewind(&mut self) {
        if self.offset != self.at as u64 {
            self.chunk = Bytes::new();
            self.input.seek(0, None);
        }
        (self.at, self.offset, self.before_chunk) = (0, 0, None);
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
mod tests;

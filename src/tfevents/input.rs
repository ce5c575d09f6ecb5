//! The bytes of one event file, decompressed, from any offset on, while the file may grow.
//!
//! The thin edge to the file system: opens, seeks and reads. Never reads more than it was asked for. Knows compression,
//! but no records.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::BytesMut;

use crate::tfevents::inflate::{Compression, Damaged, Inflate};
use crate::tfevents::record::{Frame, HEADER, frame};

/// How much compressed data is read at once.
const COMPRESSED_READ: usize = 64 << 10;

/// One event file as a stream of uncompressed bytes.
pub(crate) struct Input {
    path: PathBuf,
    /// Uncompressed offset of the next byte to deliver.
    offset: u64,
    open: Option<Open>,
    /// Bytes that are there but too few to tell what they are.
    undecided: u64,
    /// Once the file was long enough to tell.
    compression: Option<Compression>,
    /// What must stand before `offset` of a file that is not compressed.
    before: Option<[u8; 4]>,
}

struct Open {
    file: File,
    stream: Option<Stream>,
}

enum Stream {
    Plain,
    Compressed(Box<Compressed>),
}

impl Stream {
    fn compression(&self) -> Compression {
        match self {
            Self::Plain => Compression::None,
            Self::Compressed(compressed) => compressed.inflate.compression(),
        }
    }
}

struct Compressed {
    inflate: Inflate,
    /// Read from the file and not decompressed yet.
    input: Vec<u8>,
    used: usize,
}

/// Why no bytes came.
#[derive(Debug)]
pub(crate) enum InputError {
    Io(io::Error),
    /// Compressed data that makes no sense.
    Damaged,
}

/// What stands in a file is not what was read of it.
///
/// It comes within an [`io::Error`]: whoever reads on from a position that knows what stood before it must be ready for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was written anew: before byte {0} stands something else than was read there")]
pub struct Rewritten(pub u64);

impl From<io::Error> for InputError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damaged> for InputError {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

impl Input {
    pub(crate) fn open(path: &Path, offset: u64, before: Option<[u8; 4]>) -> io::Result<Self> {
        let mut input = Self { path: path.to_owned(), offset, open: None, undecided: 0, compression: None, before };
        input.open = Some(input.opened()?);
        Ok(input)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Goes to another uncompressed offset, before which these bytes must stand, and lets go of the file; the next read
    /// opens it again.
    pub(crate) fn seek(&mut self, offset: u64, before: Option<[u8; 4]>) {
        (self.offset, self.before) = (offset, before);
        self.open = None;
    }

    /// The size of the file on disk.
    pub(crate) fn size_on_disk(&mut self) -> io::Result<u64> {
        match &self.open {
            Some(open) => Ok(open.file.metadata()?.len()),
            None => Ok(std::fs::metadata(&self.path)?.len()),
        }
    }

    /// Whether bytes are there that cannot be delivered before more follow.
    pub(crate) fn is_cut(&self) -> bool {
        let cut = |open: &Open| match &open.stream {
            Some(Stream::Compressed(compressed)) => !compressed.inflate.is_whole(),
            Some(Stream::Plain) | None => false,
        };
        self.undecided > 0 || self.open.as_ref().is_some_and(cut)
    }

    /// Passes over what the file system says was never written and reads as zeros: nothing of a compressed file, and
    /// nothing where it does not say.
    pub(crate) fn skip_hole(&mut self) {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        if let Some(Open { file, stream: Some(Stream::Plain) }) = &self.open {
            use rustix::fs::{SeekFrom, seek};
            let next = match seek(file, SeekFrom::Data(self.offset)) {
                Ok(next) => next,
                Err(rustix::io::Errno::NXIO) => file.metadata().map_or(self.offset, |metadata| metadata.len()),
                Err(_) => self.offset,
            };
            let next = next.max(self.offset);
            if seek(file, SeekFrom::Start(next)).is_ok() {
                self.offset = next;
            }
        }
    }

    /// Appends up to `at_most` bytes and returns how many; 0 is the end as it is now, and a later call may get more.
    ///
    /// After an error of the file system the file is opened again by the next call: the handle may be stale.
    pub(crate) fn read(&mut self, out: &mut BytesMut, at_most: usize) -> Result<usize, InputError> {
        let result = self.read_open(out, at_most);
        if matches!(result, Err(InputError::Io(_))) {
            self.open = None;
        }
        result
    }

    fn read_open(&mut self, out: &mut BytesMut, at_most: usize) -> Result<usize, InputError> {
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let opened = self.opened()?;
                self.open.insert(opened)
            }
        };
        let (stream, delivered) = match &mut open.stream {
            Some(stream) => (stream, 0),
            None => {
                let began = match self.offset {
                    0 if at_most >= HEADER => begin_at_start(&mut open.file, out, at_most)?,
                    offset => begin(&mut open.file, offset, self.before)?,
                };
                match began {
                    Begin::Undecided(bytes) => {
                        self.undecided = bytes;
                        return Ok(0);
                    }
                    Begin::Stream(stream, delivered) => {
                        self.undecided = 0;
                        self.compression = Some(stream.compression());
                        (open.stream.insert(stream), delivered)
                    }
                }
            }
        };
        let count = match stream {
            _ if delivered > 0 => delivered,
            Stream::Plain => read_into(&mut open.file, out, at_most)?,
            Stream::Compressed(compressed) => compressed.read(&mut open.file, out, at_most)?,
        };
        self.offset += count as u64;
        // After an error of the file system it is opened again at an offset of which that is not known.
        self.before = None;
        Ok(count)
    }

    fn opened(&self) -> io::Result<Open> {
        Ok(Open { file: open_file(&self.path)?, stream: None })
    }
}

/// Opens a regular file.
pub(crate) fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe that carries the name of an event file must not block us; regular files do not care.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

impl Compressed {
    fn read(&mut self, file: &mut File, out: &mut BytesMut, at_most: usize) -> Result<usize, InputError> {
        let start = out.len();
        loop {
            let input = self.input.get(self.used..).unwrap_or_default();
            self.used += self.inflate.run(input, out, at_most)?;
            if out.len() > start {
                return Ok(out.len() - start);
            }
            self.input.clear();
            self.used = 0;
            if file.take(COMPRESSED_READ as u64).read_to_end(&mut self.input)? == 0 {
                return Ok(0);
            }
        }
    }
}

enum Begin {
    /// The stream, and how many of its bytes were delivered already.
    Stream(Stream, usize),
    Undecided(u64),
}

/// The same at the start of the file: the first bytes tell what it is and are the first of its content.
fn begin_at_start(file: &mut File, out: &mut BytesMut, at_most: usize) -> io::Result<Begin> {
    file.seek(SeekFrom::Start(0))?;
    let start = out.len();
    let mut count = read_into(file, out, at_most)?;
    // Few bytes are all there are, or the first of more.
    while (1..HEADER).contains(&count) {
        match read_into(file, out, at_most - count)? {
            0 => break,
            more => count += more,
        }
    }
    let first = out.split_off(start);
    let stream = match sniff(first.get(..HEADER).unwrap_or(&first)) {
        None => return Ok(Begin::Undecided(count as u64)),
        Some(Compression::None) => {
            out.unsplit(first);
            return Ok(Begin::Stream(Stream::Plain, count));
        }
        Some(compression) => Compressed { inflate: Inflate::new(compression), input: first.to_vec(), used: 0 },
    };
    Ok(Begin::Stream(Stream::Compressed(Box::new(stream)), 0))
}

/// Finds out what the file is and goes to the offset in it.
fn begin(file: &mut File, offset: u64, before: Option<[u8; 4]>) -> Result<Begin, InputError> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::with_capacity(HEADER);
    file.take(HEADER as u64).read_to_end(&mut head)?;
    let compression = match sniff(&head) {
        None => return Ok(Begin::Undecided(head.len() as u64)),
        Some(Compression::None) => {
            let Some(start) = offset.checked_sub(4) else {
                file.seek(SeekFrom::Start(offset))?;
                return Ok(Begin::Stream(Stream::Plain, 0));
            };
            file.seek(SeekFrom::Start(start))?;
            let mut there = Vec::with_capacity(4);
            file.take(4).read_to_end(&mut there)?;
            if there.len() < 4 {
                // The file shrank. Beginning anew next time finds out whether it has grown back.
                return Ok(Begin::Undecided(0));
            }
            if before.is_some_and(|before| *there != before) {
                return Err(io::Error::new(ErrorKind::InvalidData, Rewritten(offset)).into());
            }
            return Ok(Begin::Stream(Stream::Plain, 0));
        }
        Some(compression) => compression,
    };
    file.seek(SeekFrom::Start(0))?;
    let mut compressed = Box::new(Compressed {
        inflate: Inflate::new(compression),
        input: Vec::with_capacity(COMPRESSED_READ),
        used: 0,
    });
    let mut skipped = BytesMut::new();
    let mut left = offset;
    while left > 0 {
        let at_most = usize::try_from(left).unwrap_or(usize::MAX).min(COMPRESSED_READ);
        let count = compressed.read(file, &mut skipped, at_most)?;
        if count == 0 {
            // The file shrank. Beginning anew next time finds out whether it has grown back.
            return Ok(Begin::Undecided(0));
        }
        skipped.clear();
        left -= count as u64;
    }
    Ok(Begin::Stream(Stream::Compressed(compressed), 0))
}

/// Tells compressed files by their first bytes; `None` while there are too few of them.
fn sniff(head: &[u8]) -> Option<Compression> {
    let compression = match head {
        [] => return None,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Compression::Zlib,
        [0x1f] | [0x78] => return None,
        _ => return Some(Compression::None),
    };
    if head.len() < HEADER {
        return None;
    }
    // A record can have a length that looks like one of these, but not by accident the checksum as well.
    match frame(head, u64::MAX) {
        Frame::BadLength(_) => Some(compression),
        _ => Some(Compression::None),
    }
}

fn read_into(file: &mut File, out: &mut BytesMut, at_most: usize) -> io::Result<usize> {
    let start = out.len();
    out.resize(start.saturating_add(at_most), 0);
    let result = loop {
        match file.read(out.get_mut(start..).unwrap_or_default()) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    out.truncate(start + result.as_ref().copied().unwrap_or(0));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tfevents::write::write_record;

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0, 0];
        assert_eq!(sniff(&gzip), Some(Compression::Gzip));
        assert_eq!(sniff(&gzip[..11]), None);
        assert_eq!(sniff(&[0x78, 0x9c, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), Some(Compression::Zlib));
        assert_eq!(sniff(&[0x1f]), None);
        assert_eq!(sniff(&[0x1f, 0]), Some(Compression::None));
        assert_eq!(sniff(&[]), None);
        // Records whose length begins like the magic numbers.
        for length in [0x8b1f, 0x0178, 0x9c78] {
            let mut bytes = Vec::new();
            write_record(&mut bytes, &vec![0; length]);
            assert_eq!(sniff(&bytes[..HEADER]), Some(Compression::None), "{length}");
        }
    }
}

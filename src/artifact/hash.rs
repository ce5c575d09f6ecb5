//! Digests of files, each read once, many at a time.
//!
//! A digest is of one state of a file: what it was is noted, and a file that changes while it is read is an error that
//! names it. What was hashed and what is uploaded later are compared by that note.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};
use rayon::prelude::*;

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// Enough to see that a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// In bytes.
    pub size: u64,
    modified_ns: u128,
    /// Device, number and time of the last change of the file itself, where the system knows them.
    identity: (u64, u64, i64, i64),
}

/// A file that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// The base64 of its MD5.
    pub digest: String,
    /// What it was then.
    pub mark: Mark,
}

/// A part of a large file, as it is uploaded by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
    /// Its MD5.
    pub md5: [u8; 16],
}

/// When and how a file is uploaded in parts. The default is the official client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multipart {
    /// Files from this size on are uploaded in parts.
    pub from: u64,
    /// The size of a part.
    pub part: u64,
    /// No file has more parts than this: larger ones have larger parts.
    pub most_parts: u64,
    /// Larger files are refused.
    pub largest: u64,
}

impl Default for Multipart {
    fn default() -> Self {
        Self { from: 2 << 30, part: 100 << 20, most_parts: 10_000, largest: 5 << 40 }
    }
}

/// A file that cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It cannot be read: say so.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody writes to it: try again when that is over.
    #[error("`{}` changed while it was read", .0.display())]
    Changed(PathBuf),
    /// No store takes it.
    #[error("`{}` has {size} bytes, more than the {largest} that are possible", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        size: u64,
        /// In bytes.
        largest: u64,
    },
}

impl Mark {
    /// What a file is now.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl Mark {
    /// Feeds it to a hash.
    pub(super) fn feed(&self, hash: &mut impl Digest) {
        let (device, number, changed, changed_ns) = self.identity;
        hash.update(self.size.to_le_bytes());
        hash.update(self.modified_ns.to_le_bytes());
        hash.update(device.to_le_bytes());
        hash.update(number.to_le_bytes());
        hash.update(changed.to_le_bytes());
        hash.update(changed_ns.to_le_bytes());
    }
}

impl From<&Metadata> for Mark {
    fn from(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let identity = Default::default();
        Self { size: metadata.len(), modified_ns: modified.map_or(0, |time| time.as_nanos()), identity }
    }
}

/// The digest of bytes: the base64 of their MD5.
pub fn md5_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(Md5::digest(bytes))
}

/// Hashes many files, in their order. The first error ends it.
pub fn hash_files(paths: &[PathBuf]) -> Result<Vec<Hashed>, HashError> {
    paths.par_iter().map(|path| hash_file(path)).collect()
}

/// Hashes one file.
pub fn hash_file(path: &Path) -> Result<Hashed, HashError> {
    stable(path, |file, mark| {
        let mut hash = Md5::new();
        let read = feed(file, u64::MAX, &mut hash)?;
        Ok((read == mark.size).then(|| Hashed { digest: BASE64_STANDARD.encode(hash.finalize()), mark: *mark }))
    })
}

impl Multipart {
    /// The size of the parts of a file; `None` when it is uploaded as one.
    pub fn part_size(&self, size: u64) -> Option<u64> {
        if size < self.from || self.part == 0 {
            return None;
        }
        if size < self.part.saturating_mul(self.most_parts) {
            return Some(self.part);
        }
        Some(size.div_ceil(self.most_parts.max(1)).next_multiple_of(4096))
    }
}

/// The parts of a file; none when it is uploaded as one. `mark` is what it was when it was hashed.
pub fn hash_parts(path: &Path, mark: Mark, how: &Multipart) -> Result<Vec<Part>, HashError> {
    if mark.size > how.largest {
        return Err(HashError::TooLarge { path: path.to_owned(), size: mark.size, largest: how.largest });
    }
    let Some(length) = how.part_size(mark.size) else { return Ok(Vec::new()) };
    let count = mark.size.div_ceil(length);
    (0..count)
        .into_par_iter()
        .map(|index| {
            let (offset, size) = (index * length, length.min(mark.size - index * length));
            stable(path, |file, now| {
                let mut hash = Md5::new();
                file.seek(SeekFrom::Start(offset))?;
                let read = feed(file, size, &mut hash)?;
                let same = read == size && *now == mark;
                Ok(same.then(|| Part { number: index + 1, offset, size, md5: hash.finalize().into() }))
            })
        })
        .collect()
}

/// Reads a file that must be the same before and behind it. `None` from `read` says that it is not.
fn stable<T>(path: &Path, read: impl FnOnce(&mut File, &Mark) -> io::Result<Option<T>>) -> Result<T, HashError> {
    let failed = |source| HashError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mark = Mark::from(&file.metadata().map_err(failed)?);
    let result = read(&mut file, &mark).map_err(failed)?;
    // By its name too: a file that was replaced is another one.
    let after = [Mark::from(&file.metadata().map_err(failed)?), Mark::of(path).map_err(failed)?];
    match result {
        Some(result) if after.iter().all(|after| *after == mark) => Ok(result),
        _ => Err(HashError::Changed(path.to_owned())),
    }
}

fn feed(file: &mut File, most: u64, hash: &mut Md5) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut file = file.take(most);
    let mut total = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                hash.update(piece.get(..read).unwrap_or_default());
                total += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_bytes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x");
        std::fs::write(&path, "x").expect("written");
        let hashed = hash_file(&path).expect("hashed");
        assert_eq!((hashed.digest.as_str(), hashed.mark.size), ("ndTkYSaMgDT1yFZOFVxnpg==", 1));
        assert_eq!(md5_base64(b"x"), hashed.digest);
        std::fs::write(&path, vec![7; PIECE * 2 + 1]).expect("written");
        assert_eq!(hash_file(&path).expect("hashed").digest, md5_base64(&vec![7; PIECE * 2 + 1]));
        assert!(matches!(hash_file(&directory.path().join("none")), Err(HashError::Read { .. })));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x");
        let check = |change: &dyn Fn()| {
            std::fs::write(&path, "before").expect("written");
            let read = stable(&path, |_, _| {
                change();
                Ok(Some(()))
            });
            assert!(matches!(&read, Err(HashError::Changed(changed)) if *changed == path), "{read:?}");
        };
        check(&|| std::fs::write(&path, "before and more").expect("written"));
        check(&|| {
            // Replaced by another with the same content.
            std::fs::write(directory.path().join("new"), "before").expect("written");
            std::fs::rename(directory.path().join("new"), &path).expect("renamed");
        });
    }

    #[test]
    fn parts_are_of_the_size_that_the_official_client_makes() {
        let how = Multipart::default();
        for (size, part) in [
            (0, None),
            ((2 << 30) - 1, None),
            (2 << 30, Some(100 << 20)),
            ((100 << 20) * 10_000 - 1, Some(100 << 20)),
            // Measured: ceil(size / 10,000), rounded up to whole pages.
            ((100 << 20) * 10_000, Some(104_857_600)),
            ((100 << 20) * 10_000 + 1, Some(104_861_696)),
            (5 << 40, Some(549_756_928)),
        ] {
            assert_eq!(how.part_size(size), part, "{size}");
            assert!(part.is_none_or(|part| size.div_ceil(part) <= 10_000), "{size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parts_cover_a_file(size in 0_usize..5000, part in 1_u64..900) {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("x");
            let content: Vec<u8> = (0..size).map(|index| (index * 7 % 251) as u8).collect();
            std::fs::write(&path, &content).expect("written");
            let how = Multipart { from: 1000, part, most_parts: 10_000, largest: 4000 };
            let mark = Mark::of(&path).expect("a mark");
            match hash_parts(&path, mark, &how) {
                Err(error) => {
                    let too_large = matches!(error, HashError::TooLarge { .. });
                    proptest::prop_assert!(too_large && size > 4000);
                }
                Ok(parts) if size < 1000 => proptest::prop_assert!(parts.is_empty()),
                Ok(parts) => {
                    let mut end = 0;
                    for (index, part) in parts.iter().enumerate() {
                        proptest::prop_assert_eq!((part.number, part.offset), (index as u64 + 1, end));
                        end += part.size;
                        let bytes = content.get(part.offset as usize..end as usize).unwrap_or_default();
                        proptest::prop_assert_eq!(part.md5, <[u8; 16]>::from(Md5::digest(bytes)));
                    }
                    proptest::prop_assert_eq!(end, size as u64);
                }
            }
        }
    }
}

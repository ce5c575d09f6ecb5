//! Reads the trace of `disk.c`.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Something that was done to the disk. Files are named by their inode: names change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    Create { path: PathBuf, inode: u64 },
    Length { inode: u64, length: u64 },
    Write { inode: u64, offset: u64, bytes: Vec<u8> },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    Directory { path: PathBuf },
    Link { path: PathBuf, target: PathBuf },
    SyncFile { inode: u64 },
    SyncDirectory { path: PathBuf },
    SyncAll,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { inode, offset, bytes } => {
                write!(formatter, "Write {{ inode: {inode}, offset: {offset}, {} bytes }}", bytes.len())
            }
            other => write!(formatter, "{other:?}"),
        }
    }
}

/// A trace may end within a record, but for the last one all must be whole.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let numbers: Vec<u64> = head[2..].split(' ').map(|number| number.parse().unwrap()).collect();
        let (a, b, first, second) = (numbers[0], numbers[1], numbers[2] as usize, numbers[3] as usize);
        let body = &bytes[end + 1..];
        if body.len() < first + second + 1 {
            break;
        }
        let text = &body[..first];
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        operations.push(match head.as_bytes()[0] {
            b'C' => Operation::Create { path: path(text), inode: a },
            b'T' => Operation::Length { inode: a, length: b },
            b'W' => Operation::Write { inode: a, offset: b, bytes: text.to_vec() },
            b'R' => Operation::Rename { from: path(text), to: path(&body[first..first + second]) },
            b'U' => Operation::Remove { path: path(text) },
            b'M' => Operation::Directory { path: path(text) },
            b'L' => Operation::Link { path: path(text), target: path(&body[first..first + second]) },
            b'S' => Operation::SyncFile { inode: a },
            b'D' => Operation::SyncDirectory { path: path(text) },
            b'A' => Operation::SyncAll,
            other => panic!("an operation called {}", other as char),
        });
        bytes = &body[first + second + 1..];
    }
    operations
}

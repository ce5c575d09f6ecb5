//! Finds TB runs below a root, by TensorBoard's rules, and looks at the first record of a file.
//!
//! A file is an event file when its name contains `tfevents` and it is a regular file, also behind a link. A directory
//! with event files is a TB run, at any level. Links to directories are followed, but each real directory is looked at
//! once: under its real name when it lies below the root, so that loops end and nothing counts twice. W&B's run
//! directories and our own state are never entered: the event files in them are copies. Names need not be UTF-8.
//!
//! Reads directories and the states of files, and with [`peek`] one record. Does not know what makes a W&B run.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use crate::listings::Listings;
use crate::model::WallTime;
use crate::tfevents::event::Event;
use crate::tfevents::input::open_file;
use crate::tfevents::reader::{Read, RecordReader};
use crate::tfevents::source::EventFile;
use crate::tfevents::walk::{Known, walk};

/// What is below a root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovery {
    /// Sorted by relative path.
    pub runs: Vec<TbRun>,
    /// How many directories were read.
    pub directories: usize,
    /// How many files have other names.
    pub other_files: u64,
    /// What could not be looked at, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// The names in the directories that were read, below the root as it was given.
    pub listings: Listings,
}

/// A directory with event files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TbRun {
    /// The root as it was given, and the way from there.
    pub directory: PathBuf,
    /// The way from the root; empty for the root itself.
    pub relative: PathBuf,
    /// Sorted by the bytes of their names. May be empty: a profile makes a run that has no events.
    pub files: Vec<EventFileInfo>,
}

/// An event file as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFileInfo {
    /// The directory and the name.
    pub path: PathBuf,
    /// The name.
    pub name: OsString,
    /// Size on disk.
    pub size: u64,
    /// When it was changed last, where the file system says.
    pub modified: Option<SystemTime>,
    /// The device; 0 where there is none.
    pub dev: u64,
    /// The file's number on the device; 0 where there is none.
    pub inode: u64,
}

/// The first whole record of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstRecord {
    /// Where it starts: not 0 when records before it are damaged.
    pub at: u64,
    /// Its payload.
    pub payload: Bytes,
    /// The time of its event; `None` when it has none, or is no event.
    pub wall_time: Option<WallTime>,
}

/// Looks below a root, which may also be an event file itself. Fails only when the root cannot be looked at.
pub fn discover(root: &Path) -> io::Result<Discovery> {
    discover_knowing(root, &|_| None)
}

/// The same. Of files that are `known` well enough the file system is not asked.
pub fn discover_knowing(root: &Path, known: Known<'_>) -> io::Result<Discovery> {
    let metadata = fs::metadata(root)?;
    if metadata.is_dir() { walk(root, known) } else { Ok(single_file(root, &metadata)) }
}

/// How long a file is and when it was written last, as its open handle says: a network file system asks its server when
/// a file is opened, and may have an old answer otherwise.
pub fn ask_anew(path: &Path) -> io::Result<(u64, SystemTime)> {
    let metadata = open_file(path)?.metadata()?;
    Ok((metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
}

/// Reads the first whole record of a file; `None` while there is none. An error of kind `InvalidData` says that the
/// file is damaged so that there never will be one.
pub fn peek(path: &Path) -> io::Result<Option<FirstRecord>> {
    first_record(&mut RecordReader::open(path, 0)?)
}

/// The same, and the file from its start on: it is opened once.
pub fn peek_and_open(path: &Path) -> io::Result<(Option<FirstRecord>, EventFile)> {
    let mut reader = RecordReader::open(path, 0)?;
    let first = first_record(&mut reader)?;
    Ok((first, EventFile::over(reader)?))
}

fn first_record(reader: &mut RecordReader) -> io::Result<Option<FirstRecord>> {
    loop {
        let at = reader.offset();
        match reader.next_record()? {
            Read::Record(payload) => {
                // The payload is a slice of more that was read; what is kept is only itself.
                let payload = Bytes::copy_from_slice(&payload);
                let wall_time = Event::decode(payload.clone()).ok().and_then(|event| event.wall_time);
                return Ok(Some(FirstRecord { at, payload, wall_time }));
            }
            Read::BadPayload { .. } => {}
            Read::NothingYet | Read::Incomplete { .. } | Read::Zeros { .. } => return Ok(None),
            Read::BadLength { at, why } => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("damaged at byte {at}: {why}")));
            }
        }
    }
}

/// Whether TensorBoard takes a file of this name for an event file. Not those whose name begins with a dot: no writer makes
/// them, but `rsync` does, of files that are on their way.
pub fn is_event_file_name(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.windows(8).any(|window| window == b"tfevents") && !name.starts_with(b".")
}

/// A file that only says: this directory is a run. The profiler leaves it.
pub(super) fn is_marker_name(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(b".profile-empty")
}

fn single_file(path: &Path, metadata: &Metadata) -> Discovery {
    let name = path.file_name().unwrap_or_default();
    if !metadata.is_file() || !is_event_file_name(name) {
        return Discovery { other_files: 1, ..Discovery::default() };
    }
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let files = if is_marker_name(name) { Vec::new() } else { vec![file_info(path.to_owned(), name, metadata)] };
    Discovery { runs: vec![TbRun { directory, relative: PathBuf::new(), files }], ..Discovery::default() }
}

pub(super) fn file_info(path: PathBuf, name: &OsStr, metadata: &Metadata) -> EventFileInfo {
    let (dev, inode) = device_and_inode(metadata);
    let modified = metadata.modified().ok();
    EventFileInfo { path, name: name.to_owned(), size: metadata.len(), modified, dev, inode }
}

#[cfg(unix)]
pub(super) fn device_and_inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(super) fn device_and_inode(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::proto::tensorboard::Event as ProtoEvent;
    use crate::tfevents::write::write_event;

    /// Makes files; what ends in a slash is a directory.
    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let place = root.path().join(path);
            fs::create_dir_all(if path.ends_with('/') { &place } else { place.parent().unwrap() }).unwrap();
            if !path.ends_with('/') {
                fs::write(&place, b"").unwrap();
            }
        }
        root
    }

    /// `directory: file file` for each run.
    fn runs(root: &Path) -> Vec<String> {
        let show = |run: &TbRun| {
            let names: Vec<_> = run.files.iter().map(|file| file.name.to_string_lossy().into_owned()).collect();
            format!("{}: {}", run.relative.display(), names.join(" "))
        };
        discover(root).unwrap().runs.iter().map(show).collect()
    }

    #[test]
    fn runs_are_directories_with_event_files_at_any_level() {
        let root = tree(&[
            "b.tfevents.2",
            "a.tfevents.10",
            "x/y/z.tfevents",
            "x/notes.txt",
            "e/",
            "n.txt",
            "p/1.tfevents.profile-empty",
        ]);
        assert_eq!(runs(root.path()), [": a.tfevents.10 b.tfevents.2", "p: ", "x/y: z.tfevents"]);
        let found = discover(root.path()).unwrap();
        assert_eq!(found.other_files, 2);
        assert_eq!(found.runs[2].directory, root.path().join("x/y"));
        assert_eq!(found.runs[2].files[0].path, root.path().join("x/y/z.tfevents"));
        assert_eq!(found.unreadable, []);
        let names = |directory: &str| found.listings.names(&root.path().join(directory)).unwrap();
        assert_eq!(names("x"), ["notes.txt", "y"]);
        assert_eq!(names("e"), [""; 0]);
    }

    #[test]
    fn a_root_may_be_a_file_and_must_exist() {
        let root = tree(&["a.tfevents", "b.tfevents", "n.txt"]);
        assert_eq!(runs(&root.path().join("a.tfevents")), [": a.tfevents"]);
        assert_eq!(discover(&root.path().join("n.txt")).unwrap().other_files, 1);
        assert_eq!(discover(&root.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn wandb_directories_are_not_entered() {
        let root = tree(&[
            "exp/a.tfevents",
            "exp/wandb/run-1-x/files/a.tfevents",
            "exp/.wandb/latest-run/a.tfevents",
            "offline-run-1-y/run-y.wandb",
            "offline-run-1-y/files/a.tfevents",
            // Their logs were deleted after they had arrived; the state of one lies elsewhere.
            "offline-run-2-y/.wandb-bridge/cleaned.json",
            "offline-run-2-y/files/a.tfevents",
            "offline-run-3-y/run-y.wandb.synced",
            "offline-run-3-y/files/a.tfevents",
            ".wandb-bridge/a.tfevents",
            // These only sound like it.
            "wandb/exp/a.tfevents",
            "run-7/a.tfevents",
        ]);
        symlink(root.path().join("offline-run-1-y"), root.path().join("link")).unwrap();
        let elsewhere = tree(&["run-z/run-z.wandb", "run-z/a.tfevents"]);
        symlink(elsewhere.path().join("run-z"), root.path().join("other")).unwrap();
        assert_eq!(runs(root.path()), ["exp: a.tfevents", "run-7: a.tfevents", "wandb/exp: a.tfevents"]);
    }

    #[test]
    fn each_real_directory_is_one_run() {
        let elsewhere = tree(&["deep/a.tfevents"]);
        let root = tree(&["z/exp/a.tfevents"]);
        let at = |path: &str| root.path().join(path);
        symlink(at("z/exp"), at("a")).unwrap();
        symlink(root.path(), at("z/loop")).unwrap();
        symlink(elsewhere.path(), at("m")).unwrap();
        symlink(elsewhere.path().join("deep"), at("n")).unwrap();
        symlink(elsewhere.path(), elsewhere.path().join("deep/loop")).unwrap();
        symlink(at("nowhere"), at("broken")).unwrap();
        assert_eq!(runs(root.path()), ["m/deep: a.tfevents", "z/exp: a.tfevents"]);
        // The root itself may be reached by a link.
        symlink(root.path(), elsewhere.path().join("root")).unwrap();
        assert_eq!(runs(&elsewhere.path().join("root")).len(), 2);
    }

    #[test]
    fn each_file_of_a_directory_counts_once() {
        let root = tree(&["b.tfevents", "c.tfevents"]);
        let at = |path: &str| root.path().join(path);
        symlink(at("b.tfevents"), at("a.latest.tfevents")).unwrap();
        fs::hard_link(at("c.tfevents"), at("d.tfevents")).unwrap();
        fs::create_dir(at("e.tfevents.d")).unwrap();
        symlink(at("nowhere"), at("f.tfevents")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("g.tfevents"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(runs(root.path()), [": b.tfevents c.tfevents"]);
        let found = discover(root.path()).unwrap();
        assert_eq!(found.unreadable.len(), 1);
        assert_eq!(found.unreadable[0].0, at("f.tfevents"));
    }

    #[test]
    fn names_need_not_be_utf8() {
        let root = tree(&[]);
        for name in [b"\xff".as_slice(), b"\xfe"] {
            let directory = root.path().join(OsStr::from_bytes(name));
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join(OsStr::from_bytes(b"tfevents.\xff")), b"").unwrap();
        }
        let found = discover(root.path()).unwrap();
        let relative: Vec<&[u8]> = found.runs.iter().map(|run| run.relative.as_os_str().as_bytes()).collect();
        assert_eq!(relative, [b"\xfe", b"\xff"]);
        assert_eq!(found.runs[0].files[0].name.as_bytes(), b"tfevents.\xff");
    }

    #[test]
    fn the_first_record_is_waited_for() {
        let root = tree(&["tfevents"]);
        let path = root.path().join("tfevents");
        let mut bytes = Vec::new();
        write_event(&mut bytes, &ProtoEvent { wall_time: 7.0, ..Default::default() });
        let record = bytes.len();
        write_event(&mut bytes, &ProtoEvent { wall_time: 8.0, ..Default::default() });
        for cut in 0..record {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(peek(&path).unwrap(), None);
        }
        fs::write(&path, &bytes).unwrap();
        let first = peek(&path).unwrap().unwrap();
        assert_eq!((first.at, first.wall_time), (0, WallTime::new(7.0)));
        bytes[13] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let first = peek(&path).unwrap().unwrap();
        assert_eq!((first.at, first.wall_time), (record as u64, WallTime::new(8.0)));
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(peek(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

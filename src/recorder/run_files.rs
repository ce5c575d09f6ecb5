//! The files of a run that its rows speak of: written before the rows, durable before the checkpoint, named in the log.
//!
//! A path stands for its content, so what was written in this process is not written again. What an earlier process
//! wrote may be torn, and is written anew when it comes again. Knows nothing of what the files hold.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::convert::kinds::CarriedFile;
use crate::model::FileCategory;
use crate::recorder::RecordError;
use crate::state_file::durable::{CAN_SYNC_FILE_SYSTEMS, sync_file_system};
use crate::state_file::sync_directory;

/// How many bytes, and how many files, may wait for a commit.
const BYTES_PER_COMMIT: u64 = 64 << 20;
const FILES_PER_COMMIT: usize = 1000;

/// From this many files on, the whole file system is asked once to keep what it was given.
const ONE_BY_ONE: usize = 16;

/// The files of one run, as far as this process wrote them.
#[derive(Debug)]
pub(super) struct RunFiles {
    /// The run's `files/`.
    directory: PathBuf,
    dry_run: bool,
    /// Paths that were written by this process.
    written: HashSet<String>,
    directories: HashSet<PathBuf>,
    /// Written, but not durable yet.
    unsynced: Vec<PathBuf>,
    unsynced_bytes: u64,
    /// Written, but not named in the log yet.
    unnamed: Vec<(String, FileCategory)>,
    /// Files and bytes that were written since they were last asked for.
    count: Written,
    /// Bytes that were written since the beginning.
    total: Arc<AtomicU64>,
}

/// How much was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

impl RunFiles {
    /// Files below `directory`, which is made when the first of them comes. A dry run only counts them.
    pub(super) fn new(directory: PathBuf, dry_run: bool) -> Self {
        Self {
            directory,
            dry_run,
            written: HashSet::new(),
            directories: HashSet::new(),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            unnamed: Vec::new(),
            count: Written::default(),
            total: Arc::default(),
        }
    }

    /// Writes a file, unless it is there already.
    pub(super) fn put(&mut self, file: CarriedFile) -> Result<(), RecordError> {
        if self.written.contains(&file.path) {
            return Ok(());
        }
        let path = self.directory.join(&file.path);
        if !self.dry_run {
            self.write(&path, &file.content).map_err(|source| RecordError::Io { path: path.clone(), source })?;
        }
        self.unsynced.push(path);
        self.unsynced_bytes += file.content.len() as u64;
        self.count.files += 1;
        self.count.bytes += file.content.len() as u64;
        self.total.fetch_add(file.content.len() as u64, Ordering::Relaxed);
        self.written.insert(file.path.clone());
        self.unnamed.push((file.path, file.category));
        Ok(())
    }

    /// Copies a file, in the place of what may be there. The reason comes back when the source cannot be read.
    pub(super) fn copy(&mut self, source: &Path, path: &str, size: u64) -> Result<Result<(), io::Error>, RecordError> {
        if !self.dry_run {
            let to = self.directory.join(path);
            let failed = |source| RecordError::Io { path: to.clone(), source };
            let part = self.part(&to).map_err(failed)?;
            if let Err(error) = fs::copy(source, &part) {
                // A part that stays is overwritten by the next one.
                let _ = fs::remove_file(&part);
                // Either end may have failed; the run goes on without a source that cannot be read.
                return match File::open(source) {
                    Err(unreadable) => Ok(Err(unreadable)),
                    Ok(_) => Err(failed(error)),
                };
            }
            fs::rename(part, &to).map_err(failed)?;
            self.unsynced.push(to);
            self.unsynced_bytes += size;
        }
        self.count.files += 1;
        self.count.bytes += size;
        self.total.fetch_add(size, Ordering::Relaxed);
        self.unnamed.push((path.to_owned(), FileCategory::Other));
        Ok(Ok(()))
    }

    /// Lets a path lead to a file that stays where it is. Nothing happens where it does already and is `named`.
    pub(super) fn link(&mut self, target: &Path, path: &str, named: bool) -> Result<(), RecordError> {
        if !self.dry_run {
            let to = self.directory.join(path);
            let leads_there = fs::read_link(&to).is_ok_and(|known| known == target);
            if !leads_there {
                let failed = |source| RecordError::Io { path: to.clone(), source };
                let part = self.part(&to).map_err(failed)?;
                match fs::remove_file(&part) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                lead_to(target, &part).and_then(|()| fs::rename(&part, &to)).map_err(failed)?;
            }
        }
        if !named {
            self.unnamed.push((path.to_owned(), FileCategory::Growing));
        }
        Ok(())
    }

    /// Written and then moved to its name, so that no name ever stands for a part of its content.
    fn write(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let part = self.part(path)?;
        fs::write(&part, content)?;
        fs::rename(part, path)
    }

    /// The name under which a file is made, in a directory that is there.
    fn part(&mut self, path: &Path) -> io::Result<PathBuf> {
        if let Some(directory) = path.parent()
            && !self.directories.contains(directory)
        {
            fs::create_dir_all(directory)?;
            self.directories.insert(directory.to_owned());
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        Ok(path.with_file_name(name))
    }

    /// The files that the log does not name yet.
    pub(super) fn take_unnamed(&mut self) -> Vec<(String, FileCategory)> {
        std::mem::take(&mut self.unnamed)
    }

    /// Whether so much was written that it should be committed.
    pub(super) fn are_due(&self) -> bool {
        self.unsynced_bytes >= BYTES_PER_COMMIT || self.unsynced.len() >= FILES_PER_COMMIT
    }

    /// Bytes that wait for a commit.
    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// Bytes that were written since the beginning; goes up as they are.
    pub(super) fn written_bytes(&self) -> Arc<AtomicU64> {
        self.total.clone()
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), RecordError> {
        if self.dry_run {
            self.are_durable();
            return Ok(());
        }
        let failed = |path: &Path, source| RecordError::Io { path: path.to_owned(), source };
        if self.unsynced.len() > ONE_BY_ONE && CAN_SYNC_FILE_SYSTEMS {
            let synced = File::open(&self.directory).and_then(|directory| sync_file_system(&directory));
            synced.map_err(|error| failed(&self.directory, error))?;
            self.unsynced.clear();
        }
        let mut directories: HashSet<&Path> = HashSet::new();
        for path in &self.unsynced {
            match File::open(path).and_then(|file| file.sync_all()) {
                // An upload of this very content in an earlier process was acknowledged, and it is cleaned away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                synced => synced.map_err(|error| failed(path, error))?,
            }
            let inside = path.ancestors().skip(1).take_while(|directory| directory.starts_with(&self.directory));
            directories.extend(inside);
        }
        for directory in directories {
            sync_directory(directory).map_err(|error| failed(directory, error))?;
        }
        self.are_durable();
        Ok(())
    }

    /// What was written has become durable by other means.
    pub(super) fn are_durable(&mut self) {
        self.unsynced.clear();
        self.unsynced_bytes = 0;
    }

    /// How much was written since this was asked last.
    pub(super) fn take_count(&mut self) -> Written {
        std::mem::take(&mut self.count)
    }
}

/// Makes a link.
#[cfg(unix)]
fn lead_to(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Makes a second name: symbolic links need a privilege where there is no Unix.
#[cfg(not(unix))]
fn lead_to(target: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(target, link)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn file(path: &str, content: &'static str) -> CarriedFile {
        CarriedFile { path: path.to_owned(), content: content.into(), category: FileCategory::Media }
    }

    #[test]
    fn equal_content_is_written_once_and_named_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = RunFiles::new(directory.path().join("files"), false);
        files.put(file("media/images/a.png", "1")).unwrap();
        files.put(file("media/images/a.png", "1")).unwrap();
        files.put(file("media/images/b.png", "22")).unwrap();
        files.sync().unwrap();
        let names: Vec<String> = files.take_unnamed().into_iter().map(|(path, _)| path).collect();
        assert_eq!(names, ["media/images/a.png", "media/images/b.png"]);
        assert_eq!(files.take_count(), Written { files: 2, bytes: 3 });
        assert_eq!(fs::read(directory.path().join("files/media/images/b.png")).unwrap(), b"22");
        assert_eq!(fs::read_dir(directory.path().join("files/media/images")).unwrap().count(), 2, "no parts are left");
    }

    #[test]
    fn a_dry_run_writes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = RunFiles::new(directory.path().join("files"), true);
        files.put(file("media/images/a.png", "1")).unwrap();
        files.sync().unwrap();
        assert_eq!(files.take_count(), Written { files: 1, bytes: 1 });
        assert!(!directory.path().join("files").exists());
    }
}

//! The walk below a root: each directory is read once, many of them side by side.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::tfevents::discover::{
    Discovery, EventFileInfo, TbRun, device_and_inode, file_info, is_event_file_name, is_marker_name,
};

/// Of files that are known well enough the file system is not asked.
pub type Known<'a> = &'a (dyn Fn(&Path) -> Option<EventFileInfo> + Sync);

/// Directories that are read before what they hold is put together, so that what a million of them hold is not there
/// twice.
const AT_ONCE: usize = 4096;

/// Walks below a directory.
pub(super) fn walk(root: &Path, known: Known<'_>) -> io::Result<Discovery> {
    fs::read_dir(root)?;
    let mut walk = Walk { root, found: Discovery::default(), visited: HashSet::new(), links: VecDeque::new(), known };
    walk.directories(Place { directory: root.to_owned(), is_link: false });
    // Real directories come first, so that a link to one of them finds it known.
    let real_root = fs::canonicalize(root)?;
    while let Some(link) = walk.links.pop_front() {
        walk.follow(link, &real_root);
    }
    let mut found = walk.found;
    found.runs.sort_by(|a, b| a.relative.as_os_str().cmp(b.relative.as_os_str()));
    found.unreadable.sort();
    Ok(found)
}

struct Walk<'a> {
    root: &'a Path,
    found: Discovery,
    visited: HashSet<Identity>,
    /// Links to directories that are still to be followed.
    links: VecDeque<PathBuf>,
    known: Known<'a>,
}

/// A directory that is to be read.
struct Place {
    directory: PathBuf,
    is_link: bool,
}

/// A directory that was read.
struct Seen {
    identity: Identity,
    /// Whether there were entries to be read.
    is_read: bool,
    names: Vec<OsString>,
    /// The event files, where it is a TB run.
    run: Option<Vec<EventFileInfo>>,
    other_files: u64,
    directories: Vec<PathBuf>,
    /// Links to directories.
    links: Vec<PathBuf>,
    unreadable: Vec<(PathBuf, String)>,
}

/// An entry of a directory.
struct Entry {
    name: OsString,
    kind: EntryKind,
    /// As the directory says; 0 where it does not.
    inode: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Directory,
    File,
    Link,
    Other,
}

impl Walk<'_> {
    /// Looks at a directory and all real directories below it, level by level.
    fn directories(&mut self, start: Place) {
        let mut level = vec![start];
        while !level.is_empty() {
            let mut below = Vec::new();
            for places in level.chunks(AT_ONCE) {
                let (root, known) = (self.root, self.known);
                let seen: Vec<_> = places.par_iter().map(|place| Seen::look(place, root, known)).collect();
                for (place, seen) in places.iter().zip(seen) {
                    match seen {
                        Ok(seen) => below.extend(self.take(&place.directory, seen)),
                        Err(error) => self.found.unreadable.push((place.directory.clone(), error.to_string())),
                    }
                }
            }
            level = below;
        }
    }

    /// Takes in what a directory holds, unless it was there before. Returns the directories in it.
    fn take(&mut self, directory: &Path, seen: Seen) -> impl Iterator<Item = Place> + use<> {
        let is_new = self.visited.insert(seen.identity);
        let mut directories = Vec::new();
        if is_new {
            let found = &mut self.found;
            found.directories += 1;
            found.other_files += seen.other_files;
            found.unreadable.extend(seen.unreadable);
            if let Some(files) = seen.run {
                let relative = directory.strip_prefix(self.root).unwrap_or(directory).to_owned();
                found.runs.push(TbRun { directory: directory.to_owned(), relative, files });
            }
            if seen.is_read {
                found.listings.insert(directory.to_owned(), seen.names);
            }
            self.links.extend(seen.links);
            directories = seen.directories;
        }
        directories.into_iter().map(|directory| Place { directory, is_link: false })
    }

    /// Follows a link to a directory, unless that is known or lies below the root under its own name.
    fn follow(&mut self, link: PathBuf, real_root: &Path) {
        match fs::canonicalize(&link) {
            Ok(real) if real.starts_with(real_root) => {}
            Ok(_) => self.directories(Place { directory: link, is_link: true }),
            Err(error) => self.found.unreadable.push((link, error.to_string())),
        }
    }
}

impl Seen {
    fn look(place: &Place, root: &Path, known: Known<'_>) -> io::Result<Self> {
        let directory = &place.directory;
        let mut seen = Self {
            identity: identity(directory, &fs::metadata(directory)?),
            is_read: false,
            names: Vec::new(),
            run: None,
            other_files: 0,
            directories: Vec::new(),
            links: Vec::new(),
            unreadable: Vec::new(),
        };
        let entries = match entries(directory) {
            Ok(entries) => entries,
            Err(error) => {
                seen.unreadable(directory.clone(), &error);
                return Ok(seen);
            }
        };
        seen.is_read = true;
        // The root was asked for by name, whatever it is.
        if directory == root || !is_foreign(&real_name(place), &entries) {
            seen.files(directory, &entries, known);
            for entry in &entries {
                let below = || directory.join(&entry.name);
                match entry.kind {
                    EntryKind::Directory => seen.directories.push(below()),
                    EntryKind::Link if fs::metadata(below()).is_ok_and(|metadata| metadata.is_dir()) => {
                        seen.links.push(below());
                    }
                    EntryKind::Link | EntryKind::File | EntryKind::Other => {}
                }
            }
        }
        seen.names = entries.into_iter().map(|entry| entry.name).collect();
        Ok(seen)
    }

    /// Takes in the event files of the directory.
    fn files(&mut self, directory: &Path, entries: &[Entry], known: Known<'_>) {
        let mut run = false;
        let mut files: Vec<(bool, EventFileInfo)> = Vec::new();
        for entry in entries.iter().filter(|entry| entry.kind != EntryKind::Directory) {
            if !is_event_file_name(&entry.name) {
                self.other_files += u64::from(entry.kind == EntryKind::File);
                continue;
            }
            let path = directory.join(&entry.name);
            let is_plain = entry.kind == EntryKind::File && !is_marker_name(&entry.name);
            let known = if is_plain { known(&path) } else { None };
            if let Some(known) = known.filter(|known| known.inode == entry.inode) {
                run = true;
                files.push((false, known));
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => {
                    run = true;
                    if !is_marker_name(&entry.name) {
                        files.push((entry.kind == EntryKind::Link, file_info(path, &entry.name, &metadata)));
                    }
                }
                Ok(metadata) => self.other_files += u64::from(!metadata.is_dir()),
                // It was there a moment ago, and is none of the run's files any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound && entry.kind != EntryKind::Link => {}
                Err(error) => self.unreadable(path, &error),
            }
        }
        self.run = run.then(|| each_once(files));
    }

    fn unreadable(&mut self, path: PathBuf, error: &io::Error) {
        self.unreadable.push((path, error.to_string()));
    }
}

/// Drops what is the same file as another one of the directory under a second name; links give way.
fn each_once(mut files: Vec<(bool, EventFileInfo)>) -> Vec<EventFileInfo> {
    files.sort_by(|(link_a, a), (link_b, b)| (link_a, &a.name).cmp(&(link_b, &b.name)));
    let mut seen = HashSet::new();
    files.retain(|(_, file)| file.inode == 0 || seen.insert((file.dev, file.inode)));
    let mut files: Vec<EventFileInfo> = files.into_iter().map(|(_, file)| file).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

#[cfg(unix)]
fn inode_of(entry: &fs::DirEntry) -> u64 {
    std::os::unix::fs::DirEntryExt::ino(entry)
}

#[cfg(not(unix))]
fn inode_of(_: &fs::DirEntry) -> u64 {
    0
}

fn entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let kind = match entry.file_type()? {
            kind if kind.is_dir() => EntryKind::Directory,
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_symlink() => EntryKind::Link,
            _ => EntryKind::Other,
        };
        Ok(Entry { name: entry.file_name(), kind, inode: inode_of(&entry) })
    };
    let mut entries = fs::read_dir(directory)?.map(entry).collect::<io::Result<Vec<Entry>>>()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The directory's own name, also when it was reached through a link.
fn real_name(place: &Place) -> OsString {
    let real = if place.is_link { fs::canonicalize(&place.directory).ok() } else { None };
    real.as_deref().unwrap_or(&place.directory).file_name().unwrap_or_default().to_owned()
}

/// Whether a directory is W&B's or our own.
fn is_foreign(name: &OsStr, entries: &[Entry]) -> bool {
    let is_run = |name: &[u8]| name.starts_with(b"run-") || name.starts_with(b"offline-run-");
    let any = |test: &dyn Fn(&[u8]) -> bool| entries.iter().any(|entry| test(entry.name.as_encoded_bytes()));
    match name.as_encoded_bytes() {
        b".wandb-bridge" => true,
        b"wandb" | b".wandb" => any(&|entry| is_run(entry) || entry == b"latest-run"),
        // A log that was deleted after it had arrived leaves its mark or our state.
        name if is_run(name) => any(&|entry| {
            entry == b".wandb-bridge" || [&b".wandb"[..], b".wandb.synced"].iter().any(|end| entry.ends_with(end))
        }),
        _ => false,
    }
}

/// What a directory is, whatever leads to it.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(_: &Path, metadata: &Metadata) -> Identity {
    device_and_inode(metadata)
}

#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path, _: &Metadata) -> Identity {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

//! What a disk holds after a loss of power: all that was synced, and of the rest whatever chance left.
//!
//! The strict reading of POSIX. The content of a file lasts when the file was synced; a name lasts when its directory was
//! synced; neither says anything of the other. What was not synced may be there, not be there, or be there in part: content
//! by blocks of 512 bytes, with zeros or what was there before in place of blocks that did not make it; names in the order
//! in which their directory changed. `syncfs` makes everything last.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use super::chance::Chance;
use super::trace::Operation;

const BLOCK: usize = 512;

/// A directory tree, as it is and as far as it lasts.
#[derive(Debug, Clone)]
pub struct Image {
    root: PathBuf,
    /// By path. The root's parent is among them: it holds the name of the root.
    directories: BTreeMap<PathBuf, Directory>,
    files: Vec<File>,
    /// Which file has an inode now. Inodes of files that are gone are given out again.
    inodes: HashMap<u64, usize>,
}

#[derive(Debug, Clone, Default)]
struct Directory {
    /// The names that last.
    durable: BTreeMap<OsString, Entry>,
    /// What was done since.
    pending: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File(usize),
    Directory,
    Link(PathBuf),
}

#[derive(Debug, Clone)]
enum Change {
    Add(OsString, Entry),
    Remove(OsString),
    Rename(OsString, OsString),
}

#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Edit>,
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Image {
    /// The tree as it is, all of it durable.
    pub(super) fn of(root: &Path) -> Self {
        let mut image =
            Self { root: root.to_owned(), directories: BTreeMap::new(), files: Vec::new(), inodes: HashMap::new() };
        let parent = image.directories.entry(root.parent().unwrap().to_owned()).or_default();
        if root.exists() {
            parent.durable.insert(root.file_name().unwrap().to_owned(), Entry::Directory);
            image.read(root);
        }
        image
    }

    fn read(&mut self, path: &Path) {
        let mut directory = Directory::default();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let (kind, path) = (entry.file_type().unwrap(), entry.path());
            let known = if kind.is_symlink() {
                Entry::Link(fs::read_link(&path).unwrap())
            } else if kind.is_dir() {
                self.read(&path);
                Entry::Directory
            } else {
                self.inodes.insert(entry.metadata().unwrap().ino(), self.files.len());
                self.files.push(File { durable: fs::read(&path).unwrap(), pending: Vec::new() });
                Entry::File(self.files.len() - 1)
            };
            directory.durable.insert(entry.file_name(), known);
        }
        self.directories.insert(path.to_owned(), directory);
    }

    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, inode } => {
                self.inodes.insert(*inode, self.files.len());
                self.files.push(File::default());
                self.change(path, |name| Change::Add(name, Entry::File(0)), Some(self.files.len() - 1));
            }
            Operation::Write { inode, offset, bytes } => {
                let file = self.inodes[inode];
                self.files[file].pending.push(Edit::Write(*offset as usize, bytes.clone()));
            }
            Operation::Length { inode, length } => {
                let file = self.inodes[inode];
                self.files[file].pending.push(Edit::Length(*length as usize));
            }
            Operation::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "a name that moves to another directory needs a larger model");
                let to = to.file_name().unwrap().to_owned();
                self.change(from, |name| Change::Rename(name, to), None);
            }
            Operation::Remove { path } => self.change(path, Change::Remove, None),
            Operation::Directory { path } => {
                self.directories.insert(path.clone(), Directory::default());
                self.change(path, |name| Change::Add(name, Entry::Directory), None);
            }
            Operation::Link { path, target } => {
                self.change(path, |name| Change::Add(name, Entry::Link(target.clone())), None);
            }
            Operation::SyncFile { inode } => {
                let file = self.inodes[inode];
                self.files[file].sync();
            }
            Operation::SyncDirectory { path } => self.directories.get_mut(path).unwrap().sync(),
            Operation::SyncAll => {
                self.directories.values_mut().for_each(Directory::sync);
                self.files.iter_mut().for_each(File::sync);
            }
        }
    }

    fn change(&mut self, path: &Path, change: impl FnOnce(OsString) -> Change, file: Option<usize>) {
        let mut change = change(path.file_name().unwrap().to_owned());
        if let (Change::Add(_, Entry::File(number)), Some(file)) = (&mut change, file) {
            *number = file;
        }
        self.directories.get_mut(path.parent().unwrap()).unwrap().pending.push(change);
    }

    /// Replaces the real tree by what the power left of it.
    pub fn lose_power(&self, chance: &mut Chance) {
        if self.root.exists() {
            fs::remove_dir_all(&self.root).unwrap();
        }
        let names = self.directories[self.root.parent().unwrap()].after(chance);
        if names.contains_key(self.root.file_name().unwrap()) {
            self.write(&self.root, chance);
        }
    }

    fn write(&self, path: &Path, chance: &mut Chance) {
        fs::create_dir(path).unwrap();
        for (name, entry) in self.directories[path].after(chance) {
            let path = path.join(name);
            match entry {
                Entry::File(number) => fs::write(path, self.files[number].after(chance)).unwrap(),
                Entry::Directory => self.write(&path, chance),
                Entry::Link(target) => symlink(target, path).unwrap(),
            }
        }
    }

    /// Panics if the real tree is not what the trace says: then the trace has missed something.
    pub fn assert_traced(&self) {
        let mut now = self.clone();
        now.directories.values_mut().for_each(Directory::sync);
        now.files.iter_mut().for_each(File::sync);
        now.assert_is(&self.root);
    }

    fn assert_is(&self, path: &Path) {
        let real = Self::of(path);
        let known = |image: &Self, at: &Path| -> BTreeMap<OsString, String> {
            let names = image.directories.get(at).map(|directory| directory.durable.clone()).unwrap_or_default();
            let tell = |entry: Entry| match entry {
                Entry::File(number) => {
                    format!("{} bytes: {:x?}", image.files[number].durable.len(), image.files[number].durable)
                }
                other => format!("{other:?}"),
            };
            names.into_iter().map(|(name, entry)| (name, tell(entry))).collect()
        };
        for directory in real.directories.keys().filter(|directory| directory.starts_with(path)) {
            assert_eq!(known(self, directory), known(&real, directory), "in {}", directory.display());
        }
    }
}

impl Directory {
    fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        pending.into_iter().for_each(|change| make(&mut self.durable, change));
    }

    /// The names after a loss of power.
    fn after(&self, chance: &mut Chance) -> BTreeMap<OsString, Entry> {
        let mut names = self.durable.clone();
        let kept = some_of(self.pending.len(), chance);
        self.pending[..kept].iter().cloned().for_each(|change| make(&mut names, change));
        names
    }
}

fn make(names: &mut BTreeMap<OsString, Entry>, change: Change) {
    match change {
        Change::Add(name, entry) => {
            names.insert(name, entry);
        }
        Change::Remove(name) => {
            names.remove(&name);
        }
        Change::Rename(from, to) => {
            let entry = names.remove(&from).unwrap();
            names.insert(to, entry);
        }
    }
}

impl File {
    fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        pending.iter().for_each(|edit| change(&mut self.durable, edit));
    }

    /// The content after a loss of power.
    fn after(&self, chance: &mut Chance) -> Vec<u8> {
        let mut whole = self.durable.clone();
        let kept = some_of(self.pending.len(), chance);
        self.pending[..kept].iter().for_each(|edit| change(&mut whole, edit));
        let mut left = self.durable.clone();
        left.resize(whole.len(), 0);
        let every = 1 + chance.below(4);
        for (at, block) in whole.chunks(BLOCK).enumerate() {
            if every == 1 || !chance.one_in(every) {
                left[at * BLOCK..at * BLOCK + block.len()].copy_from_slice(block);
            }
        }
        // The length, too, may have been written before or after the blocks; what lasts stays.
        if kept > 0 && chance.one_in(2) && whole.len() > self.durable.len() {
            let blocks = (whole.len() - self.durable.len()) / BLOCK + 1;
            let shorter = left.len().saturating_sub(chance.below(blocks as u64 + 1) as usize * BLOCK);
            left.truncate(shorter.max(self.durable.len()));
        }
        left
    }
}

fn change(content: &mut Vec<u8>, edit: &Edit) {
    match edit {
        Edit::Write(offset, bytes) => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
        Edit::Length(length) => content.resize(*length, 0),
    }
}

/// None, all, or any number in between.
fn some_of(count: usize, chance: &mut Chance) -> usize {
    match chance.below(4) {
        0 => 0,
        1 => count,
        _ => chance.below(count as u64 + 1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tree that the power may leave of some operations, as names and contents.
    fn left(operations: &[Operation]) -> Vec<String> {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("disk");
        let mut image = Image::of(&root);
        let here = |path: &Path| root.join(path);
        for operation in operations {
            image.apply(&match operation.clone() {
                Operation::Create { path, inode } => Operation::Create { path: here(&path), inode },
                Operation::Rename { from, to } => Operation::Rename { from: here(&from), to: here(&to) },
                Operation::Directory { .. } => Operation::Directory { path: root.clone() },
                Operation::SyncDirectory { path } if path.as_os_str().is_empty() => {
                    Operation::SyncDirectory { path: root.clone() }
                }
                Operation::SyncDirectory { .. } => Operation::SyncDirectory { path: place.path().to_owned() },
                other => other,
            });
        }
        let mut seen = std::collections::BTreeSet::new();
        let mut chance = Chance::new(1);
        for _ in 0..400 {
            image.lose_power(&mut chance);
            let mut tree = String::new();
            for entry in fs::read_dir(&root).into_iter().flatten() {
                let path = entry.unwrap().path();
                tree += &format!("{}={:?} ", path.file_name().unwrap().display(), fs::read_to_string(&path).unwrap());
            }
            seen.insert(if root.exists() { format!("/ {tree}") } else { String::new() });
        }
        seen.into_iter().collect()
    }

    #[test]
    fn what_was_not_synced_may_be_lost_and_what_was_may_not() {
        let (file, other) = (PathBuf::from("a.tmp"), PathBuf::from("a"));
        let made = [
            Operation::Directory { path: PathBuf::new() },
            Operation::Create { path: file.clone(), inode: 7 },
            Operation::Write { inode: 7, offset: 0, bytes: b"new".to_vec() },
        ];
        assert_eq!(left(&made), ["", "/ ", "/ a.tmp=\"\" ", "/ a.tmp=\"\\0\\0\\0\" ", "/ a.tmp=\"new\" "]);
        let name = [Operation::SyncDirectory { path: "..".into() }, Operation::SyncDirectory { path: "".into() }];
        let synced = [Operation::SyncFile { inode: 7 }];
        let renamed = [Operation::Rename { from: file, to: other }];
        let named = [made.as_slice(), &name].concat();
        assert_eq!(left(&named), ["/ a.tmp=\"\" ", "/ a.tmp=\"\\0\\0\\0\" ", "/ a.tmp=\"new\" "]);
        let whole = [named.as_slice(), &synced, &renamed].concat();
        assert_eq!(left(&whole), ["/ a.tmp=\"new\" ", "/ a=\"new\" "]);
        assert_eq!(left(&[whole.as_slice(), &name].concat()), ["/ a=\"new\" "]);
        let early = [named.as_slice(), &renamed, &name].concat();
        assert_eq!(left(&early), ["/ a=\"\" ", "/ a=\"\\0\\0\\0\" ", "/ a=\"new\" "]);
    }
}

//! Small state on disk: versioned JSON, replaced atomically, so that a reader sees the old state or the new one.
//!
//! Writing: a temporary file beside it, `fsync`, rename, `fsync` of the directory. A crash at any moment leaves a whole
//! file. Nothing is believed about a file that another version wrote: it is refused in words.

pub mod durable;
pub mod lock;
pub mod place;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use durable::Durability;

/// The version that this program writes and reads.
const VERSION: u32 = 1;

/// Why a state file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be read.
    #[error("cannot read the state file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written: a full or read-only disk. The old state still stands.
    #[error("cannot write the state file `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what this program wrote.
    #[error("the state file `{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A newer program wrote it: use that one.
    #[error("the state file `{}` has version {version}; this program knows version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl StateFileError {
    /// What was read cannot be what this program wrote, although it has its form.
    pub fn implausible(path: &Path, why: &str) -> Self {
        Self::Damaged { path: path.to_owned(), source: serde::de::Error::custom(why) }
    }
}

#[derive(Deserialize)]
struct JustVersion {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    // Not flattened into this: serde would read maps with numbers for keys as maps with texts for keys.
    state: T,
}

/// Reads a state; `None` when there is no such file.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateFileError::Read { path: path.to_owned(), source }),
    };
    let damaged = |source| StateFileError::Damaged { path: path.to_owned(), source };
    let JustVersion { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != VERSION {
        return Err(StateFileError::Version { path: path.to_owned(), version });
    }
    serde_json::from_slice::<Versioned<T>>(&text).map(|file| Some(file.state)).map_err(damaged)
}

/// Replaces a state. When this returns, the new state survives a loss of power.
pub fn save<T: Serialize>(path: &Path, state: &T) -> Result<(), StateFileError> {
    save_by(path, state, &Durability::Each)
}

/// The same, made to last in that way.
pub fn save_by<T: Serialize>(path: &Path, state: &T, durability: &Durability) -> Result<(), StateFileError> {
    write(path, state, |text| replace_by(path, text, durability))
}

/// Replaces a state and does not wait for the disk: for what is found out again where a loss of power takes it, which may
/// leave it damaged.
pub fn save_without_waiting<T: Serialize>(path: &Path, state: &T) -> Result<(), StateFileError> {
    write(path, state, |text| swap(path, text, |_| Ok(())))
}

fn write<T: Serialize>(
    path: &Path,
    state: &T,
    replace: impl FnOnce(&[u8]) -> io::Result<()>,
) -> Result<(), StateFileError> {
    let text = serde_json::to_vec(&Versioned { version: VERSION, state }).map_err(io::Error::from);
    let written = text.and_then(|text| replace(&text));
    written.map_err(|source| StateFileError::Write { path: path.to_owned(), source })
}

/// Replaces a file's content atomically and durably.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, content, &Durability::Each)
}

/// Makes a file, or replaces its content atomically, unless it is the same: for what can be made again, so that a loss of
/// power may take it, and is, should this process die in the middle of it.
pub fn write_anew(path: &Path, content: &[u8]) -> io::Result<()> {
    match File::create_new(path) {
        Ok(mut file) => return file.write_all(content).inspect_err(|_| drop(fs::remove_file(path))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let is_same = path.metadata().is_ok_and(|metadata| metadata.len() == content.len() as u64)
        && fs::read(path).is_ok_and(|there| there == content);
    if is_same { Ok(()) } else { swap(path, content, |_| Ok(())) }
}

fn replace_by(path: &Path, content: &[u8], durability: &Durability) -> io::Result<()> {
    swap(path, content, |file| durability.file(file))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => durability.directory(parent),
        None => Ok(()),
    }
}

fn swap(path: &Path, content: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    finish(&file)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Makes a directory and those above it that are missing, durably: what is kept in them must be found again.
pub fn create_directories(directory: &Path) -> io::Result<()> {
    let above = directory.parent().unwrap_or(Path::new(""));
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    if directory.is_dir() {
        return Ok(());
    }
    create_directories(above)?;
    match fs::create_dir(directory) {
        // Another process is as quick.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        made => made?,
    }
    sync_directory(above)
}

/// Makes the entries of a directory durable, where the system and the file system can.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(directory)?.sync_all() {
        // Some network file systems have no such thing.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        rows: u64,
    }

    #[test]
    fn state_is_replaced_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        assert!(matches!(load::<State>(&path), Ok(None)));
        for rows in [1, 2] {
            save(&path, &State { rows }).expect("saved");
            assert_eq!(load(&path).expect("read"), Some(State { rows }));
        }
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "no temporary file stays");
    }

    #[test]
    fn directories_are_made_with_those_above() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("a/b/c");
        for _ in 0..2 {
            create_directories(&deep).expect("made");
            assert!(deep.is_dir());
        }
        fs::write(directory.path().join("file"), "").expect("written");
        create_directories(&directory.path().join("file/d")).expect_err("a file is in the way");
        create_directories(&directory.path().join("file")).expect_err("a file is in the way");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        for text in ["", "{", "{\"version\":1}", "[]"] {
            fs::write(&path, text).expect("written");
            assert!(matches!(load::<State>(&path), Err(StateFileError::Damaged { .. })), "{text}");
        }
        fs::write(&path, "{\"version\":2,\"state\":{\"rows\":1}}").expect("written");
        assert!(matches!(load::<State>(&path), Err(StateFileError::Version { version: 2, .. })));
    }
}

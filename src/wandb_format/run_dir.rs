//! Run directories: where logs lie, what they are called, and the marks beside them.
//!
//! Promises the official client's names, that no existing directory is ever taken for a new run, and that a run is found
//! by its id alone. Paths need not be UTF-8. Does not read logs, and knows nothing of what is uploaded beyond the mark
//! that says so.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::civil::DateTime;
use rayon::prelude::*;

use crate::listings::Listings;
use crate::model::{Json, Number, RunId};

/// The W&B folder below a root: `.wandb` where that exists already, `wandb` otherwise.
pub fn wandb_dir(root: &Path) -> PathBuf {
    let hidden = root.join(".wandb");
    if hidden.is_dir() { hidden } else { root.join("wandb") }
}

/// A run's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
    id: RunId,
}

impl RunDir {
    /// Names a directory as the run's. Looks at nothing.
    pub fn new(path: impl Into<PathBuf>, id: RunId) -> Self {
        Self { path: path.into(), id }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The run's log, `run-ID.wandb`.
    pub fn log(&self) -> PathBuf {
        self.path.join(log_name(&self.id))
    }

    /// The run's files. The official `wandb sync` needs this folder even when it is empty.
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// What programs wrote about their work on the run.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }
}

/// Makes the directory of a new offline run: `offline-run-YYYYMMDD_HHMMSS-ID`, with `-1`, `-2`… where that is taken.
///
/// `now` is the local time of its creation. The log itself is not made.
pub fn create_offline(wandb_dir: &Path, now: DateTime, id: &RunId) -> io::Result<RunDir> {
    fs::create_dir_all(wandb_dir)?;
    let name = format!("offline-run-{}-{id}", now.strftime("%Y%m%d_%H%M%S"));
    let mut suffix = 0_u32;
    loop {
        let path = wandb_dir.join(if suffix == 0 { name.clone() } else { format!("{name}-{suffix}") });
        match fs::create_dir(&path) {
            Ok(()) => {
                let made = RunDir::new(path, id.clone());
                fs::create_dir(made.files())?;
                fs::create_dir(made.logs())?;
                return Ok(made);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && suffix < u32::MAX => suffix += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Points `latest-run` at a run directory, by a relative link that is replaced at once. Does nothing where there are no
/// symbolic links.
pub fn point_latest_run_at(run: &RunDir) -> io::Result<()> {
    let (Some(parent), Some(name)) = (run.path.parent(), run.path.file_name()) else { return Ok(()) };
    #[cfg(unix)]
    {
        let fresh = parent.join(format!("latest-run.{}", std::process::id()));
        // A process of the same id may have died here.
        let _ = fs::remove_file(&fresh);
        std::os::unix::fs::symlink(name, &fresh)?;
        let replaced = fs::rename(&fresh, parent.join("latest-run"));
        if replaced.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        replaced
    }
    #[cfg(not(unix))]
    {
        let _ = (parent, name);
        Ok(())
    }
}

/// The run directories of a W&B folder, by run id.
#[derive(Debug, Clone, Default)]
pub struct RunDirIndex {
    wandb_dir: PathBuf,
    /// Names of directories by what follows the time in them, with and without a suffix that could be one of collision.
    names: HashMap<String, Vec<String>>,
}

impl RunDirIndex {
    /// Reads the folder once. A folder that does not exist is an empty one.
    pub fn read(wandb_dir: &Path) -> io::Result<Self> {
        let mut index = Self { wandb_dir: wandb_dir.to_owned(), names: HashMap::new() };
        let entries = match fs::read_dir(wandb_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index),
            entries => entries?,
        };
        for entry in entries {
            index.add(&entry?.file_name());
        }
        Ok(index)
    }

    /// The run's directories: those that hold its log. More than one where it was recorded several times; the oldest
    /// first.
    pub fn find(&self, id: &RunId) -> Vec<RunDir> {
        let mut found = self.named(id);
        found.retain(|dir| dir.log().is_file());
        found
    }

    /// The directories that are named like the run's, whatever they hold; the oldest first.
    pub fn named(&self, id: &RunId) -> Vec<RunDir> {
        let names = self.names.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let mut named: Vec<RunDir> =
            names.iter().map(|name| RunDir::new(self.wandb_dir.join(name), id.clone())).collect();
        named.sort_by_cached_key(by_time);
        named
    }

    /// All directories that are named like a run's, whatever they hold.
    pub fn paths(&self) -> Vec<PathBuf> {
        let names: std::collections::BTreeSet<&String> = self.names.values().flatten().collect();
        names.into_iter().map(|name| self.wandb_dir.join(name)).collect()
    }

    /// Adds a directory that was made since.
    pub fn insert(&mut self, dir: &RunDir) {
        if let Some(name) = dir.path.file_name() {
            self.add(name);
        }
    }

    /// A name that is not UTF-8 holds no run id.
    fn add(&mut self, name: &OsStr) {
        let Some((name, id)) = name.to_str().and_then(|name| Some((name, id_in_name(name)?))) else { return };
        if let Some(shorter) = without_suffix(id) {
            self.names.entry(shorter.to_owned()).or_default().push(name.to_owned());
        }
        self.names.entry(id.to_owned()).or_default().push(name.to_owned());
    }
}

/// The mark that a log was uploaded whole: an empty file beside it.
pub fn synced_marker(log: &Path) -> PathBuf {
    beside(log, ".synced")
}

/// Whether a log bears the mark.
pub fn is_synced(log: &Path) -> bool {
    synced_marker(log).exists()
}

/// Sets the mark.
pub fn mark_synced(log: &Path) -> io::Result<()> {
    fs::File::create(synced_marker(log)).map(drop)
}

/// Takes the mark away; it is no error when there is none.
pub fn unmark_synced(log: &Path) -> io::Result<()> {
    match fs::remove_file(synced_marker(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The `_step` with which a log began when it was uploaded first, if it was. The official client notes it beside the log,
/// in `.syncstate`, and so do we: whoever uploads the log again gives its rows the same steps.
pub fn first_step(log: &Path) -> Option<i64> {
    let text = fs::read_to_string(beside(log, ".syncstate")).ok()?;
    match Json::parse(&text).ok()?.get("starting_step")? {
        Json::Number(Number::I64(step)) => Some(*step),
        _ => None,
    }
}

/// Notes the first `_step` of a log, unless there is a note already: the first one stands.
pub fn mark_first_step(log: &Path, step: i64) -> io::Result<()> {
    let text = format!(r#"{{"starting_step":{step},"starting_runtime":0}}"#);
    match fs::File::create_new(beside(log, ".syncstate")) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn beside(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The logs below some paths.
#[derive(Debug, Default)]
pub struct FoundLogs {
    /// Each log once, in the order of the paths, and by name below each.
    pub logs: Vec<PathBuf>,
    /// Paths that could not be looked at, given or below those that were; and files that were given, and that no log is
    /// called like.
    pub failed: Vec<(PathBuf, io::Error)>,
}

/// Finds the logs that paths stand for.
///
/// A file `*.wandb` is one. A directory stands for the `*.wandb` in it and those in the run directories in it or, without
/// any in it, for those one level down; and for those in the W&B folder in it. The same file under two names (`latest-run`) is one log.
pub fn find_logs<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> FoundLogs {
    find_logs_beside(paths, &Listings::default())
}

/// The same. Directories that are known to hold no log are not read.
pub fn find_logs_beside<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, listings: &Listings) -> FoundLogs {
    let mut found = FoundLogs::default();
    let mut seen = HashSet::new();
    for path in paths {
        let path = path.as_ref();
        match logs_of(path, listings, &mut found.failed) {
            Ok(logs) => {
                let is_new = |log: &PathBuf| file_identity(log).is_none_or(|file| seen.insert(file));
                found.logs.extend(logs.into_iter().filter(is_new));
            }
            Err(error) => found.failed.push((path.to_owned(), error)),
        }
    }
    found
}

fn logs_of(path: &Path, listings: &Listings, failed: &mut Vec<(PathBuf, io::Error)>) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_file() {
        return if is_log_name(path) {
            Ok(vec![path.to_owned()])
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a `.wandb` file"))
        };
    }
    let (mut logs, mut dirs) = list(path)?;
    if !logs.is_empty() {
        // A run directory, whose own directories hold the run's files; or a folder in which a log was left lying about.
        dirs.retain(|dir| dir.file_name().and_then(OsStr::to_str).and_then(id_in_name).is_some());
        logs.extend(logs_in_each(&dirs, failed));
    } else {
        let real = if listings.is_empty() { None } else { path.canonicalize().ok() };
        let may_hold_logs = |dir: &PathBuf| {
            let real = real.as_deref().zip(dir.file_name()).map(|(real, name)| real.join(name));
            !real.is_some_and(|real| listings.lacks(&real, |name| is_log_name(Path::new(name))))
        };
        logs = logs_in_each(&dirs.into_iter().filter(may_hold_logs).collect::<Vec<_>>(), failed);
    }
    for name in ["wandb", ".wandb"] {
        let inner = path.join(name);
        if inner.is_dir() {
            let (direct, dirs) = list(&inner)?;
            logs.extend(direct);
            logs.extend(logs_in_each(&dirs, failed));
        }
    }
    Ok(logs)
}

/// A directory that is gone by now holds nothing for us; what one holds that cannot be read, nobody knows.
fn logs_in_each(dirs: &[PathBuf], failed: &mut Vec<(PathBuf, io::Error)>) -> Vec<PathBuf> {
    let listed: Vec<io::Result<(Vec<PathBuf>, Vec<PathBuf>)>> = dirs.par_iter().map(|dir| list(dir)).collect();
    let mut logs = Vec::new();
    for (dir, listed) in dirs.iter().zip(listed) {
        match listed {
            Ok((found, _)) => logs.extend(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed.push((dir.clone(), error)),
        }
    }
    logs
}

/// The logs and the directories in a directory, each sorted by name. Hidden directories are left out. Links come last, so
/// that a log is known by its own place.
fn list(dir: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut logs, mut dirs) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let mut kind = entry.file_type()?;
        let is_link = kind.is_symlink();
        if is_link {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            kind = metadata.file_type();
        }
        if kind.is_dir() {
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                dirs.push((is_link, path));
            }
        } else if kind.is_file() && is_log_name(&path) {
            logs.push((is_link, path));
        }
    }
    let sorted = |mut paths: Vec<(bool, PathBuf)>| {
        paths.sort();
        paths.into_iter().map(|(_, path)| path).collect()
    };
    Ok((sorted(logs), sorted(dirs)))
}

fn is_log_name(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("wandb"))
}

fn log_name(id: &RunId) -> String {
    format!("run-{id}.wandb")
}

#[cfg(unix)]
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn file_identity(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// What follows the time in the name of a run directory: the run's id, and perhaps a suffix.
fn id_in_name(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("offline-").unwrap_or(name).strip_prefix("run-")?;
    let (time, id) = rest.split_at_checked("YYYYMMDD_HHMMSS-".len())?;
    let is_time = time.bytes().enumerate().all(|(index, byte)| match index {
        8 => byte == b'_',
        15 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    (is_time && !id.is_empty()).then_some(id)
}

/// The id without what may be the suffix of a collision.
fn without_suffix(id: &str) -> Option<&str> {
    let (shorter, suffix) = id.rsplit_once('-')?;
    let is_suffix = !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit());
    (is_suffix && !shorter.is_empty()).then_some(shorter)
}

/// Orders directories of one run by their time, whether they were made online or offline.
fn by_time(dir: &RunDir) -> OsString {
    let name = dir.path.file_name().unwrap_or_default();
    name.to_str().and_then(|name| name.strip_prefix("offline-")).map_or_else(|| name.to_owned(), OsString::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn id(text: &str) -> RunId {
        RunId::new(text).unwrap()
    }

    fn time() -> DateTime {
        DateTime::constant(2026, 1, 2, 3, 4, 5, 678)
    }

    fn touch(path: impl AsRef<Path>) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn new_runs_never_share_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let wandb = wandb_dir(root.path());
        assert_eq!(wandb, root.path().join("wandb"));
        let first = create_offline(&wandb, time(), &id("abc")).unwrap();
        assert_eq!(first.path(), wandb.join("offline-run-20260102_030405-abc"));
        assert_eq!(first.log(), first.path().join("run-abc.wandb"));
        assert!(first.files().is_dir() && first.logs().is_dir());
        let names: Vec<_> = (0..2)
            .map(|_| create_offline(&wandb, time(), &id("abc")).unwrap().path().file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["offline-run-20260102_030405-abc-1", "offline-run-20260102_030405-abc-2"]);

        fs::create_dir(root.path().join(".wandb")).unwrap();
        assert_eq!(wandb_dir(root.path()), root.path().join(".wandb"));
    }

    #[test]
    fn a_run_is_found_by_its_id_alone() {
        let root = tempfile::tempdir().unwrap();
        let wandb = root.path();
        assert!(RunDirIndex::read(&wandb.join("none")).unwrap().find(&id("a")).is_empty());
        for path in [
            "offline-run-20260102_030405-a/run-a.wandb",
            "run-20250102_030405-a/run-a.wandb",
            "offline-run-20260102_030405-a-1/run-a.wandb",
            // The id of another run ends like a suffix.
            "offline-run-20260101_030405-a-1/run-a-1.wandb",
            // No log of that run.
            "offline-run-20260103_030405-a/other",
            "offline-run-2026_030405-a/run-a.wandb",
            "latest-run/run-a.wandb",
        ] {
            touch(wandb.join(path));
        }
        let mut index = RunDirIndex::read(wandb).unwrap();
        let found = |index: &RunDirIndex, text: &str| -> Vec<String> {
            let names = index.find(&id(text)).into_iter();
            names.map(|dir| dir.path().file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let expected = ["run-20250102_030405-a", "offline-run-20260102_030405-a", "offline-run-20260102_030405-a-1"];
        assert_eq!(found(&index, "a"), expected);
        assert_eq!(found(&index, "a-1"), ["offline-run-20260101_030405-a-1"]);
        assert!(found(&index, "b").is_empty());

        let fresh = create_offline(wandb, time(), &id("b")).unwrap();
        touch(fresh.log());
        index.insert(&fresh);
        assert_eq!(index.find(&id("b")), [fresh]);
    }

    #[test]
    fn the_mark_stands_beside_the_log() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("run-a.wandb");
        unmark_synced(&log).unwrap();
        assert!(!is_synced(&log));
        mark_synced(&log).unwrap();
        assert!(root.path().join("run-a.wandb.synced").is_file() && is_synced(&log));
        unmark_synced(&log).unwrap();
        assert!(!is_synced(&log));
    }

    #[cfg(unix)]
    #[test]
    fn latest_run_is_a_relative_link() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let dir = create_offline(root.path(), time(), &id(name)).unwrap();
            point_latest_run_at(&dir).unwrap();
            let target = fs::read_link(root.path().join("latest-run")).unwrap();
            assert_eq!(target, dir.path().file_name().unwrap());
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }

    #[test]
    fn logs_are_found_below_a_path() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let a = root.join("wandb/offline-run-20260102_030405-a/run-a.wandb");
        let b = root.join("wandb/run-20260102_030405-b/run-b.wandb");
        for path in [&a, &b, &root.join("wandb/.hidden/run-c.wandb"), &root.join("other/deep/run-d.wandb")] {
            touch(path);
        }
        touch(root.join("wandb/offline-run-20260102_030405-a/files/output.log"));
        point_latest_run_at(&RunDir::new(b.parent().unwrap(), id("b"))).unwrap();
        let check = |path: &str, expected: &[&PathBuf]| {
            let found = find_logs([root.join(path)]);
            assert_eq!(found.logs.iter().collect::<Vec<_>>(), expected, "{path}");
            assert!(found.failed.is_empty());
        };
        check("wandb", &[&a, &b]);
        check("", &[&a, &b]);
        check("wandb/offline-run-20260102_030405-a", &[&a]);
        check("wandb/offline-run-20260102_030405-a/run-a.wandb", &[&a]);
        check("wandb/offline-run-20260102_030405-a/files", &[]);

        // One that lies about hides no runs, and what a run saved is no log of its own.
        let stray = root.join("wandb/run-x.wandb");
        for path in [&stray, &root.join("wandb/offline-run-20260102_030405-a/files/run-y.wandb")] {
            touch(path);
        }
        check("wandb", &[&stray, &a, &b]);
        check("", &[&stray, &a, &b]);
        check("wandb/offline-run-20260102_030405-a", &[&a]);
        fs::remove_file(&stray).unwrap();

        let found = find_logs([root.join("wandb"), b.clone(), root.join("none"), root.join("wandb/latest-run")]);
        assert_eq!(found.logs, [a, b]);
        assert_eq!(found.failed.len(), 1);
        assert_eq!(found.failed[0].1.kind(), io::ErrorKind::NotFound);
        // What is not to be read may hold a run, and is said.
        #[cfg(unix)]
        if !rustix::process::geteuid().is_root() {
            use std::os::unix::fs::PermissionsExt as _;
            let closed = root.join("wandb/run-20260102_030405-closed");
            fs::create_dir(&closed).unwrap();
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
            for path in ["wandb", ""] {
                assert_eq!(find_logs([root.join(path)]).failed[0].0, closed);
            }
            fs::remove_dir(&closed).unwrap();
        }
        let output = root.join("wandb/offline-run-20260102_030405-a/files/output.log");
        assert_eq!(find_logs([output]).failed[0].1.kind(), io::ErrorKind::InvalidInput);
    }
}

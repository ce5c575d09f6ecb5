//! The files of a run: which are due, what we write ourselves, and their upload.
//!
//! A file that is missing or refused is counted and left out; it never keeps rows from arriving. What was uploaded is
//! remembered by size and time, so a second pass sends only what changed.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::api::{ApiClient, ApiError, Bucket, Class};
use crate::state_file::write_anew;
use crate::upload::console_file::{self, OUTPUT_LOG};
use crate::upload::contents::RunLog;
use crate::upload::fold::{Fold, Policy, is_uploaded_once};
use crate::upload::job::Links;
use crate::upload::seat::Seat;
use crate::upload::state::{FileMark, Sent};
use crate::wandb_format::{config_yaml, pretty};

/// How many files are asked for in one `CreateRunFiles`.
const FILES_PER_REQUEST: usize = 100;

/// How many files of one run are on their way at once.
const AT_ONCE: usize = 8;

/// What this program makes is kept in memory until it is sent where it is no longer than this, in bytes.
const SMALL: usize = 64 << 10;

/// The run's `files/`, and what becomes of links in it.
pub(crate) type FilesPlace<'a> = (&'a Path, Links);

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) path: String,
    local: PathBuf,
    mark: FileMark,
    /// What is in it, where that is at hand.
    content: Option<Bytes>,
}

/// A file that this program made.
#[derive(Debug)]
pub(crate) struct Generated {
    pub(crate) path: &'static str,
    /// What was written, where it is small.
    content: Option<Bytes>,
    pub(crate) written: io::Result<()>,
}

/// What is due, and what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) due: Vec<Due>,
    /// Not there, not a file, or a path that leads out of the run.
    pub(crate) missing: Vec<String>,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Uploaded {
    pub(crate) done: Vec<(String, FileMark)>,
    pub(crate) failed: Vec<String>,
    /// Why some of those failed, where trying again later helps.
    pub(crate) later: Option<ApiError>,
}

impl Plan {
    /// Adds what is not in it yet.
    pub(crate) fn add(&mut self, more: Self) {
        let known: BTreeSet<String> = self.due.iter().map(|due| due.path.clone()).collect();
        self.due.extend(more.due.into_iter().filter(|due| !known.contains(&due.path)));
        self.missing.extend(more.missing);
    }
}

impl Due {
    /// Its size in bytes, when it was looked at.
    pub(crate) fn size(&self) -> u64 {
        self.mark.size
    }
}

/// Those of some files that were acknowledged as they are now, and that stay as they are: they may go. Deletes them, and
/// returns those that are uploaded once.
pub(crate) fn delete_acknowledged(paths: &[String], fold: &Fold, sent: &Sent, directory: &Path) -> Vec<String> {
    let mut once = Vec::new();
    for path in paths {
        let is_once = !fold.files.contains_key(path) && is_uploaded_once(path, Policy::Now);
        let stays = is_once || fold.files.get(path) == Some(&Policy::Now);
        let Some(known) = sent.files.get(path).filter(|_| stays) else { continue };
        if is_once {
            once.push(path.clone());
        }
        // Nothing is deleted through a link, whatever may be read through it.
        let own = |local: &PathBuf| is_in_run(directory, local);
        let Some(local) = inside(directory, path, Links::Saved).filter(own) else { continue };
        // A path of media stands for its content, so whoever wrote it again wrote the same.
        let is_content = path.starts_with("media/");
        let is_known = |now: FileMark| now == *known || (is_content && now.size == known.size);
        if local.metadata().is_ok_and(|metadata| metadata.is_file() && is_known(FileMark::from(&metadata)))
            && let Err(error) = std::fs::remove_file(&local)
        {
            debug!(%path, %error, "not deleted");
        }
    }
    once
}

/// The files that are to be uploaded at once and were not looked at yet.
pub(crate) fn plan_now(fold: &Fold, sent: &Sent, place: FilesPlace<'_>) -> Plan {
    let new = fold.files.iter().filter(|(path, policy)| {
        **policy != Policy::End && !sent.files.contains_key(*path) && !sent.failed_files.contains(*path)
    });
    plan(new.map(|(path, _)| path.as_str()), sent, place)
}

/// The files that a batch names and that are uploaded once, as far as an earlier try has not done so.
pub(crate) fn plan_media(media: &[String], sent: &Sent, place: FilesPlace<'_>) -> Plan {
    let new: BTreeSet<&str> = media
        .iter()
        .map(String::as_str)
        .filter(|path| !sent.files.contains_key(*path) && !sent.failed_files.contains(*path))
        .collect();
    plan(new.into_iter(), sent, place)
}

/// The files that are uploaded as they change, and did since they were uploaded. Those that failed wait for the end.
pub(crate) fn plan_live(fold: &Fold, sent: &Sent, place: FilesPlace<'_>) -> Vec<Due> {
    let live = fold.files.iter().filter(|(path, policy)| {
        **policy == Policy::Live && sent.files.contains_key(*path) && !sent.failed_files.contains(*path)
    });
    plan(live.map(|(path, _)| path.as_str()), sent, place).due
}

/// All files of the run that changed since they were uploaded, or could not be.
pub(crate) fn plan_again(fold: &Fold, again: &[&str], sent: &Sent, place: FilesPlace<'_>) -> Plan {
    let paths: BTreeSet<&str> =
        fold.files.keys().chain(&sent.failed_files).map(String::as_str).chain(again.iter().copied()).collect();
    plan(paths.into_iter(), sent, place)
}

/// The same, with what this program made.
pub(crate) fn plan_at_end(fold: &Fold, generated: Vec<Generated>, sent: &Sent, place: FilesPlace<'_>) -> Plan {
    // One that could not be written is missing, or is an old one that is better than none.
    let paths: Vec<&str> = generated.iter().map(|made| made.path).collect();
    let mut plan = plan_again(fold, &paths, sent, place);
    for made in generated.into_iter().filter(|made| made.written.is_ok()) {
        if let Some(due) = plan.due.iter_mut().find(|due| due.path == made.path) {
            due.content = made.content.filter(|content| content.len() as u64 == due.mark.size);
        }
    }
    plan
}

fn plan<'a>(paths: impl Iterator<Item = &'a str>, sent: &Sent, (directory, links): FilesPlace<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut folders = OwnFolders::new(directory);
    for path in paths {
        let looked = || inside(directory, path, links).and_then(|local| Some((local.metadata().ok()?, local)));
        match folders.plain_file(path).or_else(looked) {
            Some((metadata, local)) if metadata.is_file() => {
                let mark = FileMark::from(&metadata);
                if sent.files.get(path) != Some(&mark) {
                    plan.due.push(Due { path: path.to_owned(), local, mark, content: None });
                }
            }
            // What was uploaded before it went is not missing there.
            _ if sent.files.contains_key(path) => {}
            _ => plan.missing.push(path.to_owned()),
        }
    }
    plan
}

/// Writes the files that every run has, and says what became of each. `logs` are those of the run, this one last, each with
/// the position up to which it is read.
pub(crate) fn write_generated(fold: &Fold, logs: &[RunLog], directory: &Path) -> Vec<Generated> {
    let mut summary = Vec::new();
    fold.summary().write(&mut summary);
    let mut files =
        vec![("wandb-summary.json", summary), ("config.yaml", config_yaml(&fold.whole_config()).into_bytes())];
    if let Some(environment) = fold.environment() {
        files.push(("wandb-metadata.json", pretty(&environment).into_bytes()));
    }
    let made = std::fs::create_dir_all(directory).map_err(|error| error.kind());
    let is_home = || is_own_folder(directory) || stays_at_home(directory, directory);
    let made = made.and_then(|()| is_home().then_some(()).ok_or(io::ErrorKind::NotADirectory));
    let write = |(path, content): (&'static str, Vec<u8>)| {
        let written = made.map_err(io::Error::from).and_then(|()| write_anew(&directory.join(path), &content));
        Generated { path, content: (content.len() <= SMALL).then(|| content.into()), written }
    };
    let mut written: Vec<_> = files.into_iter().map(write).collect();
    let is_first = logs.len() <= 1;
    if !(fold.console.is_empty() && is_first) {
        match made.map_err(io::Error::from).and_then(|()| console_file::write(logs, directory)) {
            Ok(false) => {}
            result => written.push(Generated { path: OUTPUT_LOG, content: None, written: result.map(drop) }),
        }
    }
    written
}

/// The files that this program makes of what a log says.
pub(crate) const GENERATED: [&str; 4] = ["wandb-summary.json", "config.yaml", "wandb-metadata.json", OUTPUT_LOG];

/// Uploads files. Fails only for what concerns more than these files.
pub(crate) async fn upload(
    api: &Arc<ApiClient>,
    run: &Bucket,
    due: Vec<Due>,
    seat: &Arc<Seat>,
) -> Result<Uploaded, ApiError> {
    let mut result = Uploaded::default();
    for some in due.chunks(FILES_PER_REQUEST) {
        let names: Vec<String> = some.iter().map(|file| file.path.clone()).collect();
        let targets = match api.create_run_files(run, &names, &**seat).await {
            Ok(targets) => targets,
            Err(error) if matches!(error.class(), Class::Rejected | Class::Temporary | Class::Protocol) => {
                warn!(%error, run = %run.run_id, "no place for files");
                result.failed.extend(names);
                result.later = result.later.or(Some(error).filter(helps_to_wait));
                continue;
            }
            Err(error) => return Err(error),
        };
        let headers = Arc::new(targets.headers);
        let mut going = JoinSet::new();
        // By task: one that ends in a way that it must not has no words of its own.
        let mut paths = HashMap::new();
        let mut waiting = some.iter();
        loop {
            while going.len() < AT_ONCE
                && let Some(file) = waiting.next()
            {
                let Some(Some(url)) = targets.urls.get(&file.path).cloned() else {
                    warn!(file = %file.path, run = %run.run_id, "the server does not want this file");
                    result.failed.push(file.path.clone());
                    continue;
                };
                let (api, file, headers, seat) = (api.clone(), file.clone(), headers.clone(), seat.clone());
                let path = file.path.clone();
                let task = going.spawn(async move {
                    let put = match file.content.clone() {
                        Some(content) => {
                            let size = content.len() as u64;
                            api.put_bytes(&url, &headers, content, &*seat).await.map(|()| size)
                        }
                        None => api.put_file(&url, &headers, &file.local, &*seat).await,
                    };
                    (file, put)
                });
                paths.insert(task.id(), path);
            }
            match going.join_next().await {
                None => break,
                Some(Ok((file, Ok(size)))) => {
                    debug!(file = %file.path, size, "uploaded");
                    // What grew meanwhile is looked at again.
                    result.done.push((file.path, FileMark { size, ..file.mark }));
                }
                Some(Ok((_, Err(ApiError::Cancelled)))) => return Err(ApiError::Cancelled),
                Some(Ok((file, Err(error)))) => {
                    warn!(file = %file.path, run = %run.run_id, %error, "not uploaded");
                    result.failed.push(file.path);
                    result.later = result.later.or(Some(error).filter(helps_to_wait));
                }
                Some(Err(error)) => {
                    warn!(%error, run = %run.run_id, "the upload of a file broke off");
                    result.failed.extend(paths.remove(&error.id()));
                }
            }
        }
    }
    Ok(result)
}

fn helps_to_wait(error: &ApiError) -> bool {
    error.class() == Class::Temporary
}

/// The place of a run file on disk; `None` for a path that leads out of the directory, or to a link that is not followed.
pub(crate) fn inside(directory: &Path, path: &str, links: Links) -> Option<PathBuf> {
    let local = safe_path(directory, path)?;
    (stays_at_home(directory, &local) && (links != Links::Never || stays_in_run(directory, &local))
        || is_followed(directory, &local, path, links))
    .then_some(local)
}

/// The directories of a run, and whether they really lie in it.
struct OwnFolders<'a> {
    directory: &'a Path,
    known: HashMap<PathBuf, bool>,
}

impl<'a> OwnFolders<'a> {
    fn new(directory: &'a Path) -> Self {
        Self { directory, known: HashMap::new() }
    }

    /// A file that is no link, in a directory of the run, whatever becomes of links. `None` says nothing.
    fn plain_file(&mut self, path: &str) -> Option<(Metadata, PathBuf)> {
        let local = safe_path(self.directory, path)?;
        let metadata = local.symlink_metadata().ok().filter(Metadata::is_file)?;
        self.is_own(local.parent()?).then_some((metadata, local))
    }

    /// Whether no link leads to a folder below the run's `files/`.
    fn is_own(&mut self, folder: &Path) -> bool {
        if let Some(is_own) = self.known.get(folder) {
            return *is_own;
        }
        let is_below = folder == self.directory || folder.parent().is_some_and(|above| self.is_own(above));
        let is_own = is_below && is_own_folder(folder);
        self.known.insert(folder.to_owned(), is_own);
        is_own
    }
}

/// Whether a directory in a directory of the run is in the run too: it is no link.
fn is_own_folder(directory: &Path) -> bool {
    directory.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// The place of a run file below a directory, unless its path leads out of that by its words.
fn safe_path(directory: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let safe = !path.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    safe.then(|| directory.join(relative))
}

/// Whether a link to outside of the run is to be followed: it is the file itself, not a directory on the way, and leads to
/// a regular file.
///
/// A log from elsewhere must not make anybody upload their own keys, so by default what is hidden or the system's own is not
/// meant. `wandb.save` makes a link to each file that it saves, wherever that is, so all others are.
fn is_followed(directory: &Path, local: &Path, path: &str, links: Links) -> bool {
    let is_link = local.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    // Media are copies, whoever made them.
    if links == Links::Never || !is_link || path.starts_with("media/") {
        return false;
    }
    if !local.parent().is_some_and(|parent| is_in_run(directory, parent)) {
        return false;
    }
    let Ok(real) = local.canonicalize() else { return false };
    real.is_file() && (links == Links::Always || !is_private(directory, &real))
}

/// Whether a real path is hidden, seen from the run, a key by its name, or the system's own.
fn is_private(directory: &Path, real: &Path) -> bool {
    const OF_THE_SYSTEM: [&str; 6] = ["/etc", "/proc", "/sys", "/dev", "/run", "/boot"];
    const KEYS: [&str; 5] = ["pem", "key", "p12", "pfx", "kdbx"];
    let run = run_of(directory).unwrap_or_default();
    let common = run.components().zip(real.components()).take_while(|(a, b)| a == b).count();
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    let is_key = real.extension().is_some_and(|extension| KEYS.iter().any(|key| extension.eq_ignore_ascii_case(key)));
    is_key || real.components().skip(common).any(hidden) || OF_THE_SYSTEM.iter().any(|system| real.starts_with(system))
}

/// A path with the reason why it is not sent, where that is a link.
pub(crate) fn explained(directory: &Path, path: &str, links: Links) -> String {
    let is_link = directory.join(path).symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if !is_link || inside(directory, path, links).is_some() {
        return path.to_owned();
    }
    let hint =
        if links == Links::Always || path.starts_with("media/") { "" } else { "; `--follow-links` sends such files" };
    format!("`{path}` is a link to outside of the run{hint}")
}

/// Whether what a path really leads to lies in the directory of the run whose `files/` is given.
fn is_in_run(directory: &Path, local: &Path) -> bool {
    let real = (run_of(directory), local.canonicalize());
    matches!(real, (Some(run), Ok(real)) if real.starts_with(&run))
}

fn run_of(directory: &Path) -> Option<PathBuf> {
    directory.parent().filter(|run| !run.as_os_str().is_empty()).unwrap_or(Path::new(".")).canonicalize().ok()
}

/// Whether what a path leads to, if it is there, lies in the run, or is an event file of it.
fn stays_in_run(directory: &Path, local: &Path) -> bool {
    let is_event_file = local.file_name().is_some_and(|name| name.to_string_lossy().contains("tfevents"));
    is_event_file || is_in_run(directory, local) || local.canonicalize().is_err()
}

/// Whether what a path really leads to belongs to the run whose `files/` is given. What is not there does no harm.
fn stays_at_home(directory: &Path, local: &Path) -> bool {
    let Ok(real) = local.canonicalize() else { return true };
    let Some(run) = run_of(directory) else { return false };
    let is_event_file = |name: &str| name.contains("tfevents") && local.file_name().is_some_and(|local| local == name);
    if real.starts_with(&run) || real.file_name().and_then(|name| name.to_str()).is_some_and(is_event_file) {
        return true;
    }
    let folder = run.parent().filter(|folder| folder.ends_with("wandb") || folder.ends_with(".wandb"));
    let below = folder.and_then(Path::parent).and_then(|home| real.strip_prefix(home).ok());
    let hidden = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b".");
    below.is_some_and(|below| !below.components().any(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let directory = Path::new("run/files");
        assert_eq!(inside(directory, "media/a.png", Links::Saved), Some(PathBuf::from("run/files/media/a.png")));
        for path in ["", "/etc/passwd", "../secret", "a/../../b", "."] {
            assert_eq!(inside(directory, path, Links::Always), None, "{path}");
        }
    }

    /// Folders of the run are asked once for all files in them; that must not change which files are sent.
    #[cfg(unix)]
    #[test]
    fn files_behind_a_linked_folder_are_the_same_files() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().expect("a directory");
        let make = |folder: &Path| {
            std::fs::create_dir_all(folder.join("images")).expect("made");
            ["a", "images/b", "images/c"]
                .iter()
                .for_each(|name| std::fs::write(folder.join(name), "x").expect("written"));
        };
        let files = |run: &str| {
            let files = place.path().join(run).join("files");
            std::fs::create_dir_all(&files).expect("made");
            files
        };
        let (plain, linked, deep, away) = (files("plain"), files("linked"), files("deep"), files("away"));
        make(&plain.join("media"));
        make(&linked.with_file_name("kept"));
        symlink("../kept", linked.join("media")).expect("linked");
        make(&deep.join("media"));
        std::fs::rename(deep.join("media/images"), deep.with_file_name("images")).expect("moved");
        symlink("../../images", deep.join("media/images")).expect("linked");
        make(&place.path().join("elsewhere"));
        symlink("../../elsewhere", away.join("media")).expect("linked");

        let media = ["media/a", "media/images/b", "media/images/c", "media/images/gone"].map(str::to_owned);
        for links in [Links::Never, Links::Saved, Links::Always] {
            let names = |files: &Path| {
                let Plan { due, missing } = plan_media(&media, &Sent::default(), (files, links));
                (due.into_iter().map(|due| due.path).collect::<Vec<_>>(), missing)
            };
            let all = (media[..3].to_vec(), media[3..].to_vec());
            for run in [&plain, &linked, &deep] {
                assert_eq!(names(run), all, "{links:?} {}", run.display());
            }
            let of_others = names(&away).0;
            assert!(links != Links::Never || of_others.is_empty(), "{of_others:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_below_the_place_where_the_run_was_started() {
        use std::os::unix::fs::symlink;
        let place = tempfile::tempdir().expect("a directory");
        let home = place.path().join("home");
        let files = home.join("wandb/offline-run-1/files");
        std::fs::create_dir_all(&files).expect("made");
        std::fs::create_dir_all(home.join(".ssh")).expect("made");
        std::fs::create_dir_all(place.path().join("far")).expect("made");
        std::fs::create_dir_all(files.join("media")).expect("made");
        symlink("/dev/null", files.join("device")).expect("linked");
        for file in [
            "secret",
            "far/model.pt",
            "far/server.key",
            "home/model.pt",
            "home/.ssh/key",
            "home/wandb/offline-run-1/note",
        ] {
            std::fs::write(place.path().join(file), "x").expect("written");
        }
        for (name, to) in [
            ("hidden", "home/.ssh/key"),
            ("saved", "home/model.pt"),
            ("own", "home/wandb/offline-run-1/note"),
            ("far", "far/model.pt"),
            ("key", "far/server.key"),
            ("media/far", "far/model.pt"),
            ("gone", "nothing"),
            ("folder", ""),
        ] {
            symlink(place.path().join(to), files.join(name)).expect("linked");
        }
        for (path, is_inside) in [
            ("saved", true),
            ("own", true),
            ("gone", true),
            ("far", true),
            ("key", false),
            ("media/far", false),
            ("device", false),
            ("hidden", false),
            ("folder/secret", false),
            ("folder/home/model.pt", true),
        ] {
            assert_eq!(inside(&files, path, Links::Saved).is_some(), is_inside, "{path}");
        }
        let choices =
            |path: &str| [Links::Never, Links::Saved, Links::Always].map(|links| inside(&files, path, links).is_some());
        for path in ["saved", "far", "own"] {
            assert_eq!(choices(path), [path == "own", true, true], "{path}");
        }
        assert_eq!((choices("hidden"), choices("device")), ([false, false, true], [false; 3]));
        assert!(explained(&files, "key", Links::Saved).contains("is a link to outside of the run; `--follow-links`"));
        assert_eq!(explained(&files, "far", Links::Saved), "far");
        // What is acknowledged may be deleted, but not through a link.
        let mut fold = Fold::default();
        let mut sent = Sent::default();
        let paths = ["saved", "folder/home/model.pt", "plain"].map(str::to_owned);
        std::fs::write(files.join("plain"), "x").expect("written");
        for path in &paths {
            let metadata = files.join(path).metadata().expect("there");
            fold.files.insert(path.clone(), Policy::Now);
            sent.files.insert(path.clone(), FileMark::from(&metadata));
        }
        delete_acknowledged(&paths, &fold, &sent, &files);
        assert!(home.join("model.pt").is_file() && files.join("saved").is_file() && !files.join("plain").exists());
        // Elsewhere than in a `wandb` folder nobody knows where the run was started.
        let other = place.path().join("home/run/files");
        std::fs::create_dir_all(&other).expect("made");
        symlink(home.join("model.pt"), other.join("saved")).expect("linked");
        assert_eq!(inside(&other, "saved", Links::Never), None);
        // Nothing is written through a link, either.
        let linked = place.path().join("home/run2");
        std::fs::create_dir_all(&linked).expect("made");
        symlink(place.path(), linked.join("files")).expect("linked");
        let written = write_generated(&Fold::default(), &[], &linked.join("files"));
        assert!(written.iter().all(|made| made.written.is_err()), "{written:?}");
        assert!(!place.path().join("config.yaml").exists());
    }

    #[test]
    fn what_was_uploaded_is_due_again_only_when_it_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a"), "1").expect("written");
        std::fs::create_dir(directory.path().join("d")).expect("made");
        let mut fold = Fold::default();
        for path in ["a", "d", "gone", "../a"] {
            fold.files.insert(path.to_owned(), Policy::Now);
        }
        fold.files.insert("late".to_owned(), Policy::End);
        let mut sent = Sent::default();
        let first = plan_now(&fold, &sent, (directory.path(), Links::Saved));
        assert_eq!(first.due.iter().map(|due| due.path.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(first.missing, ["../a", "d", "gone"]);
        sent.files.insert("a".to_owned(), first.due[0].mark);
        sent.failed_files.extend(first.missing);
        assert_eq!(plan_now(&fold, &sent, (directory.path(), Links::Saved)), Plan::default());
        assert_eq!(plan_again(&fold, &[], &sent, (directory.path(), Links::Saved)).due, []);
        assert_eq!(plan_live(&fold, &sent, (directory.path(), Links::Saved)), []);
        std::fs::write(directory.path().join("a"), "12").expect("written");
        assert_eq!(
            plan_live(&fold, &sent, (directory.path(), Links::Saved)),
            [],
            "it is not one that is uploaded again and again"
        );
        std::fs::write(directory.path().join("late"), "").expect("written");
        let last = plan_again(&fold, &["config.yaml"], &sent, (directory.path(), Links::Saved));
        assert_eq!(last.due.iter().map(|due| due.path.as_str()).collect::<Vec<_>>(), ["a", "late"]);
        assert_eq!(last.missing, ["../a", "config.yaml", "d", "gone"]);
    }

    #[test]
    fn what_grows_is_due_again_while_the_run_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("events");
        std::fs::write(&path, "1").expect("written");
        let mut fold = Fold::default();
        fold.files.insert("events".to_owned(), Policy::Live);
        let mut sent = Sent::default();
        assert_eq!(
            plan_live(&fold, &sent, (directory.path(), Links::Saved)),
            [],
            "the first upload is not this one's business"
        );
        let first = plan_now(&fold, &sent, (directory.path(), Links::Saved));
        assert_eq!(first.due.len(), 1);
        sent.files.insert("events".to_owned(), first.due[0].mark);
        assert_eq!(plan_live(&fold, &sent, (directory.path(), Links::Saved)), []);
        std::fs::write(&path, "12").expect("written");
        assert_eq!(plan_now(&fold, &sent, (directory.path(), Links::Saved)), Plan::default());
        assert_eq!(plan_live(&fold, &sent, (directory.path(), Links::Saved)).len(), 1);
        assert_eq!(plan_again(&fold, &[], &sent, (directory.path(), Links::Saved)).due.len(), 1);
        sent.failed_files.insert("events".to_owned());
        assert_eq!(plan_live(&fold, &sent, (directory.path(), Links::Saved)), []);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(
            plan_again(&fold, &[], &sent, (directory.path(), Links::Saved)),
            Plan::default(),
            "it is there, if not the newest"
        );
    }
}

//! The files of a run: which are due, what we write ourselves, and their upload.
//!
//! A file that is missing or refused is counted and left out; it never keeps rows from arriving. What was uploaded is
//! remembered by size and time, so a second pass sends only what changed.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::api::{ApiClient, ApiError, Bucket, Class};
use crate::state_file::replace;
use crate::upload::fold::{Fold, Policy};
use crate::upload::state::{FileMark, Sent};
use crate::wandb_format::{config_yaml, pretty};

/// How many files are asked for in one `CreateRunFiles`.
const FILES_PER_REQUEST: usize = 100;

/// How many files of one run are on their way at once.
const AT_ONCE: usize = 8;

/// A file that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) path: String,
    local: PathBuf,
    mark: FileMark,
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
}

impl Due {
    /// Its size in bytes, when it was looked at.
    pub(crate) fn size(&self) -> u64 {
        self.mark.size
    }
}

/// Those of some files that were acknowledged as they are now, and that stay as they are: they may go. Deletes them.
pub(crate) fn delete_acknowledged(paths: &[String], fold: &Fold, sent: &Sent, directory: &Path) {
    for path in paths {
        let Some(known) = sent.files.get(path).filter(|_| fold.files.get(path) == Some(&Policy::Now)) else { continue };
        let Some(local) = inside(directory, path) else { continue };
        // A path of media stands for its content, so whoever wrote it again wrote the same.
        let is_content = path.starts_with("media/");
        let is_known = |now: FileMark| now == *known || (is_content && now.size == known.size);
        if local.metadata().is_ok_and(|metadata| metadata.is_file() && is_known(mark(&metadata)))
            && let Err(error) = std::fs::remove_file(&local)
        {
            debug!(%path, %error, "not deleted");
        }
    }
}

/// The files that are to be uploaded at once and were not looked at yet.
pub(crate) fn plan_now(fold: &Fold, sent: &Sent, directory: &Path) -> Plan {
    let new = fold.files.iter().filter(|(path, policy)| {
        **policy != Policy::End && !sent.files.contains_key(*path) && !sent.failed_files.contains(*path)
    });
    plan(new.map(|(path, _)| path.as_str()), sent, directory)
}

/// The files that are uploaded as they change, and did since they were uploaded. Those that failed wait for the end.
pub(crate) fn plan_live(fold: &Fold, sent: &Sent, directory: &Path) -> Vec<Due> {
    let live = fold.files.iter().filter(|(path, policy)| {
        **policy == Policy::Live && sent.files.contains_key(*path) && !sent.failed_files.contains(*path)
    });
    plan(live.map(|(path, _)| path.as_str()), sent, directory).due
}

/// All files of the run that changed since they were uploaded.
pub(crate) fn plan_at_end(fold: &Fold, generated: &[&str], sent: &Sent, directory: &Path) -> Plan {
    let paths: BTreeSet<&str> = fold.files.keys().map(String::as_str).chain(generated.iter().copied()).collect();
    plan(paths.into_iter(), sent, directory)
}

fn plan<'a>(paths: impl Iterator<Item = &'a str>, sent: &Sent, directory: &Path) -> Plan {
    let mut plan = Plan::default();
    for path in paths {
        let metadata = inside(directory, path).and_then(|local| Some((local.metadata().ok()?, local)));
        match metadata {
            Some((metadata, local)) if metadata.is_file() => {
                let mark = mark(&metadata);
                if sent.files.get(path) != Some(&mark) {
                    plan.due.push(Due { path: path.to_owned(), local, mark });
                }
            }
            // What was uploaded before it went is not missing there.
            _ if sent.files.contains_key(path) => {}
            _ => plan.missing.push(path.to_owned()),
        }
    }
    plan
}

/// Writes the files that every run has. Returns the paths that were written; what could not be written is left out.
pub(crate) fn write_generated(fold: &Fold, directory: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let mut summary = Vec::new();
    fold.summary().write(&mut summary);
    let mut files =
        vec![("wandb-summary.json", summary), ("config.yaml", config_yaml(&fold.whole_config()).into_bytes())];
    if let Some(environment) = fold.environment() {
        files.push(("wandb-metadata.json", pretty(&environment).into_bytes()));
    }
    let made = std::fs::create_dir_all(directory).map_err(|error| error.kind());
    let write = |(path, content): (&'static str, Vec<u8>)| {
        (path, made.map_err(io::Error::from).and_then(|()| replace(&directory.join(path), &content)))
    };
    files.into_iter().map(write).collect()
}

/// The files that this program makes of what a log says.
pub(crate) const GENERATED: [&str; 3] = ["wandb-summary.json", "config.yaml", "wandb-metadata.json"];

/// Uploads files. Fails only for what concerns more than these files.
pub(crate) async fn upload(
    api: &Arc<ApiClient>,
    run: &Bucket,
    due: Vec<Due>,
    cancel: &CancellationToken,
) -> Result<Uploaded, ApiError> {
    let mut result = Uploaded::default();
    for some in due.chunks(FILES_PER_REQUEST) {
        let names: Vec<String> = some.iter().map(|file| file.path.clone()).collect();
        let targets = match api.create_run_files(run, &names, cancel).await {
            Ok(targets) => targets,
            Err(error) if matches!(error.class(), Class::Rejected | Class::Temporary | Class::Protocol) => {
                warn!(%error, run = %run.run_id, "no place for files");
                result.failed.extend(names);
                continue;
            }
            Err(error) => return Err(error),
        };
        let headers = Arc::new(targets.headers);
        let mut going = JoinSet::new();
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
                let (api, file, headers, cancel) = (api.clone(), file.clone(), headers.clone(), cancel.clone());
                going.spawn(async move {
                    let put = api.put_file(&url, &headers, &file.local, &cancel).await;
                    (file, put)
                });
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
                }
                Some(Err(error)) => warn!(%error, "an upload ended early"),
            }
        }
    }
    Ok(result)
}

/// The place of a run file on disk; `None` for a path that leads out of the directory.
pub(crate) fn inside(directory: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let safe = !path.is_empty() && relative.components().all(|part| matches!(part, Component::Normal(_)));
    safe.then(|| directory.join(relative))
}

fn mark(metadata: &Metadata) -> FileMark {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    FileMark { size: metadata.len(), modified_ns: modified.map(|time| time.as_nanos() as u64).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let directory = Path::new("run/files");
        assert_eq!(inside(directory, "media/a.png"), Some(PathBuf::from("run/files/media/a.png")));
        for path in ["", "/etc/passwd", "../secret", "a/../../b", "."] {
            assert_eq!(inside(directory, path), None, "{path}");
        }
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
        let first = plan_now(&fold, &sent, directory.path());
        assert_eq!(first.due.iter().map(|due| due.path.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(first.missing, ["../a", "d", "gone"]);
        sent.files.insert("a".to_owned(), first.due[0].mark);
        sent.failed_files.extend(first.missing);
        assert_eq!(plan_now(&fold, &sent, directory.path()), Plan::default());
        assert_eq!(plan_at_end(&fold, &[], &sent, directory.path()).due, []);
        assert_eq!(plan_live(&fold, &sent, directory.path()), []);
        std::fs::write(directory.path().join("a"), "12").expect("written");
        assert_eq!(plan_live(&fold, &sent, directory.path()), [], "it is not one that is uploaded again and again");
        std::fs::write(directory.path().join("late"), "").expect("written");
        let last = plan_at_end(&fold, &["config.yaml"], &sent, directory.path());
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
        assert_eq!(plan_live(&fold, &sent, directory.path()), [], "the first upload is not this one's business");
        let first = plan_now(&fold, &sent, directory.path());
        assert_eq!(first.due.len(), 1);
        sent.files.insert("events".to_owned(), first.due[0].mark);
        assert_eq!(plan_live(&fold, &sent, directory.path()), []);
        std::fs::write(&path, "12").expect("written");
        assert_eq!(plan_now(&fold, &sent, directory.path()), Plan::default());
        assert_eq!(plan_live(&fold, &sent, directory.path()).len(), 1);
        assert_eq!(plan_at_end(&fold, &[], &sent, directory.path()).due.len(), 1);
        sent.failed_files.insert("events".to_owned());
        assert_eq!(plan_live(&fold, &sent, directory.path()), []);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(plan_at_end(&fold, &[], &sent, directory.path()), Plan::default(), "it is there, if not the newest");
    }
}

//! Where the files of a recorded version are looked for.
//!
//! A log names them by the paths that they had where it was written: copies in the official client's staging folder, or the
//! files themselves. Whoever copies run directories to another machine brings the staging folder along at best, and to
//! another place. So where there is no such file, the ends of its path are tried below folders in which it may lie now,
//! the long ones first. What is found there counts only if it is what was recorded, by size and digest: a wrong guess costs
//! a read, and sends nothing.

use std::path::{Component, Path, PathBuf};

/// How far above a log's own directory its neighbors are looked for: the `wandb` folder, and the folder that holds it.
const ABOVE: usize = 2;

/// Folders in which recorded files may lie now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// In these a file may lie under its mere name.
    folders: Vec<PathBuf>,
    /// Those around the log. Too much has the same name there, so some of the path has to be there too.
    near: Vec<PathBuf>,
}

impl Places {
    /// The folders around a log, and before them `folders`, in which files may lie under their mere names.
    pub fn of_log(log: &Path, folders: Vec<PathBuf>) -> Self {
        let directory = log.parent().unwrap_or(log);
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        Self { folders, near: directory.ancestors().take(1 + ABOVE).map(Path::to_owned).collect() }
    }

    /// All folders.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().chain(&self.near).map(PathBuf::as_path)
    }

    /// The paths at which a recorded file may lie: first the recorded one, then the more likely ones.
    pub fn candidates(&self, recorded: &Path) -> impl Iterator<Item = PathBuf> + use<'_> {
        let parts = parts(recorded);
        // One that began where the run was recorded is known whole.
        let least = if recorded.is_absolute() || is_of_windows(recorded) { 2 } else { parts.len().min(2) };
        let ends = move |folder: &Path, least: usize, parts: &[String]| -> Vec<PathBuf> {
            (0..(parts.len() + 1).saturating_sub(least.max(1)))
                .map(|from| parts.iter().skip(from).fold(folder.to_owned(), |path, part| path.join(part)))
                .collect()
        };
        let in_folders = parts.clone();
        let folders = self.folders.iter().flat_map(move |folder| ends(folder, 1, &in_folders));
        let near = self.near.iter().flat_map(move |folder| ends(folder, least, &parts));
        std::iter::once(recorded.to_owned()).chain(folders).chain(near)
    }
}

fn is_of_windows(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    matches!(bytes, [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic()) || bytes.starts_with(br"\\")
}

/// The names in a path that may be put behind another folder: they cannot lead out of it.
fn parts(path: &Path) -> Vec<String> {
    let text = path.to_string_lossy();
    let text = if is_of_windows(path) { text.replace('\\', "/").into() } else { text };
    let mut parts = Vec::new();
    for component in Path::new(&*text).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => parts.clear(),
            _ => {}
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(recorded: &str) -> Vec<String> {
        let near = vec![PathBuf::from("/l/wandb"), PathBuf::from("/l")];
        let places = Places { folders: vec![PathBuf::from("/given")], near };
        places.candidates(Path::new(recorded)).map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn ends_of_the_path_are_tried_the_long_ones_first() {
        assert_eq!(
            candidates("/d/staging/tmp1"),
            [
                "/d/staging/tmp1",
                "/given/d/staging/tmp1",
                "/given/staging/tmp1",
                "/given/tmp1",
                "/l/wandb/d/staging/tmp1",
                "/l/wandb/staging/tmp1",
                "/l/d/staging/tmp1",
                "/l/staging/tmp1",
            ]
        );
        // Relative to where the run was recorded.
        assert_eq!(candidates("a.txt"), ["a.txt", "/given/a.txt", "/l/wandb/a.txt", "/l/a.txt"]);
        let of_windows = candidates(r"C:\staging\tmp1");
        assert!(of_windows.contains(&"/given/tmp1".to_owned()) && of_windows.contains(&"/l/staging/tmp1".to_owned()));
    }

    #[test]
    fn nothing_leads_out_of_a_folder() {
        for recorded in ["/a/../../etc/x", "../../etc/x", "/..", "", "/"] {
            for path in candidates(recorded).iter().skip(1) {
                assert!(path.starts_with("/given/") || path.starts_with("/l/"), "{recorded}: {path}");
                assert!(!path.contains(".."), "{recorded}: {path}");
            }
        }
    }

    #[test]
    fn a_log_is_looked_around() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path().canonicalize().expect("a path");
        let run = root.join("wandb/offline-run-1");
        std::fs::create_dir_all(&run).expect("made");
        let places = Places::of_log(&run.join("run-1.wandb"), Vec::new());
        assert_eq!(places.all().collect::<Vec<_>>(), [&*run, &*root.join("wandb"), &*root]);
    }
}

//! Config files of runs: which of them are there, and what they say.
//!
//! Reads small regular files and nothing else, and never follows a link out of the root that was given: what lies there
//! was not given. What cannot be read or understood is named and left out; the run goes on without it. What the texts mean
//! is decided by [`convert::config`](crate::convert::config).

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::convert::config::{self, ConfigError, ConfigPlaces, FILE_NAMES, Format, LARGEST_FILE};
use crate::listings::Listings;
use crate::model::Json;

/// Why a config file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a regular file.
    #[error("it is not a file")]
    NotAFile,
    /// A link to somewhere else.
    #[error("it is a link to a place outside of the logs")]
    Outside,
    /// Larger than any config.
    #[error("it has {0} bytes, more than the {LARGEST_FILE} that a config file may have")]
    TooLarge(u64),
    /// Its content is no config.
    #[error(transparent)]
    Content(#[from] ConfigError),
}

/// What the files of one run say.
#[derive(Debug, Default)]
pub struct FoundConfig {
    /// All of them together, the nearest on top.
    pub config: Json,
    /// The files that were read, the nearest first: their paths below the root.
    pub files: Vec<String>,
    /// Files that say nothing, and why.
    pub unreadable: Vec<(PathBuf, ConfigFileError)>,
}

/// Reads the config files that lie in these places. Those that the listings lack are not looked for.
pub fn discover(places: &ConfigPlaces, listings: &Listings) -> FoundConfig {
    let mut found = FoundConfig { config: Json::object(), ..FoundConfig::default() };
    let mut layers = Vec::new();
    for directory in &places.directories {
        for name in FILE_NAMES {
            if listings.lacks_path(directory, Path::new(name)) {
                continue;
            }
            let path = directory.join(name);
            match read_inside(&path, directory, &places.root) {
                Ok(config) => {
                    let below = path.strip_prefix(&places.root).unwrap_or(Path::new(name));
                    found.files.push(below.to_string_lossy().into_owned());
                    layers.push(config);
                }
                Err(ConfigFileError::Io(error)) if is_absence(&error) => {}
                Err(error) => found.unreadable.push((path, error)),
            }
        }
    }
    for layer in layers.into_iter().rev() {
        config::lay_over(&mut found.config, layer);
    }
    found
}

/// Reads one config file, wherever it lies.
pub fn read(path: &Path) -> Result<Json, ConfigFileError> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(ConfigFileError::NotAFile);
    }
    // A file that grows is read no further than that, either.
    let mut content = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    let size = metadata.len().max(content.len() as u64);
    if size > LARGEST_FILE {
        return Err(ConfigFileError::TooLarge(size));
    }
    Ok(config::parse(&content, Format::of(path))?)
}

/// The directory itself may be reached by a link, as event files may; the file may not.
fn read_inside(path: &Path, directory: &Path, root: &Path) -> Result<Json, ConfigFileError> {
    // Most are not there, and asking for that is cheap.
    path.symlink_metadata()?;
    let real = path.canonicalize()?;
    let inside = |place: &Path| real.starts_with(place);
    if !inside(root) && !directory.canonicalize().is_ok_and(|directory| inside(&directory)) {
        return Err(ConfigFileError::Outside);
    }
    read(path)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (directory, root)
    }

    fn places(root: &Path, directories: &[&str]) -> ConfigPlaces {
        let directories = directories.iter().map(|directory| root.join(directory)).collect();
        ConfigPlaces { root: root.to_owned(), directories }
    }

    #[test]
    fn nearest_files_win_value_by_value() {
        let (_directory, root) = tree(&[
            ("a/b/hparams.yaml", "lr: 1\nmodel: {depth: 2}\n"),
            ("a/b/config.json", r#"{"lr": 2, "seed": 7}"#),
            ("a/b/.hydra/config.yaml", "seed: 8\nmodel: {width: 5}\n"),
            ("a/params.json", r#"{"lr": 3, "model": {"depth": 9, "name": "m"}, "root": true}"#),
        ]);
        let found = discover(&places(&root, &["a/b", "a", "."]), &Listings::default());
        assert_eq!(
            found.config.to_string(),
            r#"{"lr":1,"model":{"depth":2,"name":"m","width":5},"root":true,"seed":7}"#
        );
        assert_eq!(found.files, ["a/b/hparams.yaml", "a/b/config.json", "a/b/.hydra/config.yaml", "a/params.json"]);
        assert!(found.unreadable.is_empty(), "{:?}", found.unreadable);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_counts() {
        let (_directory, root) = tree(&[
            ("hparams.yaml", "a: [\n"),
            ("config.json", r#"{"lr": 2}"#),
            ("params.json", "[1, 2]"),
            ("elsewhere/secret.json", r#"{"key": 1}"#),
            ("logs/args.json", "{}"),
        ]);
        fs::create_dir(root.join("config.yml")).unwrap();
        fs::write(root.join("args.yaml"), vec![b' '; LARGEST_FILE as usize + 1]).unwrap();
        let found = discover(&places(&root, &["."]), &Listings::default());
        assert_eq!(found.config.to_string(), r#"{"lr":2}"#);
        let reasons: Vec<String> = found
            .unreadable
            .iter()
            .map(|(path, why)| format!("{}: {why}", path.file_name().unwrap().to_string_lossy()))
            .collect();
        assert_eq!(reasons.len(), 4, "{reasons:?}");
        for (reason, words) in
            reasons.iter().zip(["hparams.yaml: not YAML", "not a file", "holds a list", "4194305 bytes"])
        {
            assert!(reason.contains(words), "{reason}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_link_leads_out_of_the_root() {
        use std::os::unix::fs::symlink;
        let (_directory, root) = tree(&[
            ("elsewhere/secret.json", r#"{"key": 1}"#),
            ("elsewhere/run/hparams.yaml", "c: 1\n"),
            ("logs/shared.yaml", "a: 1\n"),
            ("logs/run/args.json", "{}"),
        ]);
        symlink(root.join("elsewhere/secret.json"), root.join("logs/run/config.json")).unwrap();
        symlink("../shared.yaml", root.join("logs/run/config.yaml")).unwrap();
        symlink(root.join("elsewhere/run"), root.join("logs/link")).unwrap();
        let logs = root.join("logs");
        let found = discover(&places(&logs, &["run"]), &Listings::default());
        assert_eq!(found.config.to_string(), r#"{"a":1}"#);
        assert!(matches!(found.unreadable.as_slice(), [(_, ConfigFileError::Outside)]));
        // A directory that is a link is followed, as it is for event files.
        assert_eq!(discover(&places(&logs, &["link"]), &Listings::default()).config.to_string(), r#"{"c":1}"#);
    }
}

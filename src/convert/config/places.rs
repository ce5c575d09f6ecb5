//! Where the config files of a run may lie: names and directories, the nearest first.
//!
//! The experiment's own directory counts, and each directory above it, up to the root that was given, as long as no other
//! run lies in it: what stands beside many experiments was not written for this one. Pure: paths in, paths out.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// How a config file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON, with NaN and infinities as bare words.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// By the name of a file; anything but `.json` is YAML, of which JSON is a part.
    pub fn of(path: &Path) -> Self {
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json { Self::Json } else { Self::Yaml }
    }
}

/// Paths of config files below a directory; of two that say the same, the earlier one wins.
pub const FILE_NAMES: [&str; 13] = [
    "hparams.yaml",
    "hparams.yml",
    "hparams.json",
    "config.yaml",
    "config.yml",
    "config.json",
    "params.yaml",
    "params.yml",
    "params.json",
    "args.yaml",
    "args.yml",
    "args.json",
    ".hydra/config.yaml",
];

/// The directories that may hold config files of one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigPlaces {
    /// Nothing outside of it is read, wherever a link points. Empty: there are no places.
    pub root: PathBuf,
    /// The nearest first.
    pub directories: Vec<PathBuf>,
}

/// Where a run lies.
#[derive(Debug, Clone, Copy)]
pub struct RunDirectories<'a> {
    /// The root that it was found under.
    pub root: &'a Path,
    /// Its experiments' directories; more than one when they were joined.
    pub experiments: &'a [PathBuf],
}

impl ConfigPlaces {
    /// The places of each of all runs that are there.
    pub fn of_all(runs: &[RunDirectories<'_>]) -> Vec<Self> {
        // Which run lies in a directory; `None` where several do.
        let mut tenants: HashMap<&Path, Option<usize>> = HashMap::new();
        for (index, run) in runs.iter().enumerate() {
            for directory in run.experiments.iter().flat_map(|experiment| up_to(run.root, experiment)) {
                let tenant = tenants.entry(directory).or_insert(Some(index));
                if *tenant != Some(index) {
                    *tenant = None;
                }
            }
        }
        let places = |(index, run): (usize, &RunDirectories<'_>)| {
            let mut directories: Vec<&Path> = Vec::new();
            for experiment in run.experiments {
                let alone =
                    |directory: &&Path| *directory == experiment || tenants.get(directory) == Some(&Some(index));
                directories.extend(up_to(run.root, experiment).take_while(alone));
            }
            // Deeper is nearer. Of joined experiments the later one is the one that went on.
            directories.reverse();
            directories.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
            directories.dedup();
            directories.retain(|directory| !is_in_run_directory(directory));
            Self { root: run.root.to_owned(), directories: directories.into_iter().map(Path::to_owned).collect() }
        };
        runs.iter().enumerate().map(places).collect()
    }
}

/// A directory and those above it, up to the root.
fn up_to<'a>(root: &'a Path, directory: &'a Path) -> impl Iterator<Item = &'a Path> {
    directory.ancestors().take_while(move |above| above.starts_with(root))
}

/// Whether the directory lies in one that a W&B client keeps a run in: its `config.yaml` is a copy of what was sent.
fn is_in_run_directory(directory: &Path) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    directory.components().any(|component| {
        let name = component.as_os_str().to_string_lossy();
        let name = name.strip_prefix("offline-").unwrap_or(&name);
        let time = name.strip_prefix("run-").and_then(|rest| rest.split_once('-')).map(|(time, _)| time);
        time.and_then(|time| time.split_once('_')).is_some_and(|(day, time)| digits(day, 8) && digits(time, 6))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(runs: &[(&str, &[&str])], expected: &[&[&str]]) {
        let paths: Vec<Vec<PathBuf>> =
            runs.iter().map(|(_, experiments)| experiments.iter().map(PathBuf::from).collect()).collect();
        let runs: Vec<RunDirectories<'_>> = runs
            .iter()
            .zip(&paths)
            .map(|((root, _), experiments)| RunDirectories { root: Path::new(root), experiments })
            .collect();
        let places: Vec<Vec<PathBuf>> =
            ConfigPlaces::of_all(&runs).into_iter().map(|places| places.directories).collect();
        let expected: Vec<Vec<PathBuf>> =
            expected.iter().map(|places| places.iter().map(PathBuf::from).collect()).collect();
        assert_eq!(places, expected);
    }

    #[test]
    fn directories_above_count_while_no_other_run_lies_in_them() {
        check(&[("/logs", &["/logs"])], &[&["/logs"]]);
        check(&[("/logs", &["/logs/a/b"])], &[&["/logs/a/b", "/logs/a", "/logs"]]);
        check(
            &[("/logs", &["/logs/a/tb"]), ("/logs", &["/logs/b/tb"])],
            &[&["/logs/a/tb", "/logs/a"], &["/logs/b/tb", "/logs/b"]],
        );
        // An experiment above another keeps its own.
        check(&[("/logs", &["/logs/a"]), ("/logs", &["/logs/a/b"])], &[&["/logs/a"], &["/logs/a/b"]]);
        // Roots that lie in each other.
        check(
            &[("/logs", &["/logs/x/a"]), ("/logs/x", &["/logs/x/b/c"])],
            &[&["/logs/x/a"], &["/logs/x/b/c", "/logs/x/b"]],
        );
    }

    #[test]
    fn joined_experiments_are_one_run() {
        check(
            &[("/logs", &["/logs/job/1", "/logs/job/2"]), ("/logs", &["/logs/other"])],
            &[&["/logs/job/2", "/logs/job/1", "/logs/job"], &["/logs/other"]],
        );
    }

    #[test]
    fn run_directories_of_clients_are_left_alone() {
        check(&[("/w", &["/w/wandb/run-20240102_030405-abc/files/tb"])], &[&["/w/wandb", "/w"]]);
        check(&[("/w/offline-run-20240102_030405-abc", &["/w/offline-run-20240102_030405-abc"])], &[&[]]);
        check(&[("/w", &["/w/run-1-x"])], &[&["/w/run-1-x", "/w"]]);
    }

    #[test]
    fn formats_go_by_name() {
        assert_eq!(Format::of(Path::new("a/params.JSON")), Format::Json);
        assert_eq!(Format::of(Path::new("a/.hydra/config.yaml")), Format::Yaml);
        assert_eq!(Format::of(Path::new("settings")), Format::Yaml);
    }
}

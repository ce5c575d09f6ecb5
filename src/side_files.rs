//! Files that TensorBoard reads beside event files: what the embedding projector shows, and profiles.
//!
//! Finds them for one TB run and says where they go among the files of a W&B run. A file is found only inside the TB
//! run's directory, whatever links and configurations say; names become safe and stay readable, and files that refer to
//! each other keep their places to each other. The search is bounded. Copies nothing, and does not know what a run is.
//!
//! The projector: `projector_config.pbtxt`, in the run's directory or in that of its plugin, with the files that it
//! names, and `STEP/TAG/` as torch and tensorboardX write it. A checkpoint that a configuration names is a model, not a
//! file of TensorBoard's, and is not taken. Profiles: all of `plugins/profile/`, and the traces of torch's profiler.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::listings::Listings;

/// What a side file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SideKind {
    /// The embedding projector.
    Projector,
    /// The profiler.
    Profile,
}

impl SideKind {
    /// The word for it on the screen and in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Projector => "projector",
            Self::Profile => "profile",
        }
    }
}

/// A file beside event files, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFile {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes, below the run's `files/`: safe on every file system.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written, where the file system says.
    pub modified: Option<SystemTime>,
    /// What it is for.
    pub kind: SideKind,
}

/// The side files of a TB run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SideFiles {
    /// Sorted by path.
    pub files: Vec<SideFile>,
    /// What belongs to the run and is not among them, and why.
    pub left: Vec<(PathBuf, String)>,
}

/// No TB run has more of them; what is more is not looked at.
const MAX_FILES: usize = 10_000;

/// How deep a profile may lie below its directory.
const MAX_DEPTH: usize = 8;

/// A configuration is a few lines for each embedding.
const MAX_CONFIG: u64 = 4 << 20;

const CONFIG: &str = "projector_config.pbtxt";

const PLUGINS: &str = "plugins";

/// Looks for side files of the TB run in `directory`. `label` is its place below its experiment, with `/`. The directory is
/// not read where the listings know it.
pub fn find(directory: &Path, label: &str, listings: &Listings) -> SideFiles {
    let beside = match listings.names(directory) {
        Some(names) => names.iter().map(|name| directory.join(name)).collect(),
        None => entries(directory),
    };
    let mut search = Search { directory, real: OnceCell::new(), label, found: BTreeMap::new(), left: Vec::new() };
    search.projector(&beside);
    search.profile(&beside);
    SideFiles { files: search.found.into_values().collect(), left: search.left }
}

/// A path of a log as a path of the run's files: each part safe on every file system, and readable where it was safe.
pub fn safe_path<'a>(parts: impl IntoIterator<Item = &'a OsStr>) -> String {
    parts.into_iter().map(safe_part).collect::<Vec<_>>().join("/")
}

/// A part that had to be changed ends with a digest of what it was, so that no two parts become one.
fn safe_part(part: &OsStr) -> String {
    const LONGEST: usize = 100;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '=' | ',' | '@');
    let text = part.to_string_lossy();
    let safe = !text.trim_matches('.').is_empty() && text.len() <= LONGEST && text.chars().all(plain);
    if safe && part.to_str().is_some() {
        return text.into_owned();
    }
    let mut name: String = text.chars().map(|c| if plain(c) { c } else { '_' }).take(LONGEST - 9).collect();
    name.push('-');
    for byte in Sha256::digest(part.as_encoded_bytes()).iter().take(4) {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

struct Search<'a> {
    directory: &'a Path,
    /// The same without links, once that is asked for: most runs have no side files.
    real: OnceCell<PathBuf>,
    label: &'a str,
    /// By run path.
    found: BTreeMap<String, SideFile>,
    left: Vec<(PathBuf, String)>,
}

impl Search<'_> {
    /// `beside` are the entries of the directory, as for the others.
    fn projector(&mut self, beside: &[PathBuf]) {
        let places = [(CONFIG, ""), (PLUGINS, "plugins/org_tensorflow_tensorboard_projector")];
        for (_, place) in places.into_iter().filter(|(entry, _)| is_among(beside, entry)) {
            let directory = self.directory.join(place);
            let config = directory.join(CONFIG);
            if !config.is_file() {
                continue;
            }
            self.take(SideKind::Projector, &config, Path::new(""));
            let named = match read_config(&config) {
                Ok(text) => named_files(&text),
                Err(error) => {
                    self.left.push((config, error.to_string()));
                    continue;
                }
            };
            for name in named {
                self.take(SideKind::Projector, &directory.join(name), Path::new(""));
            }
        }
        // A configuration that was written anew may have forgotten what an earlier one named.
        let is_step = |name: &OsStr| {
            let name = name.as_encoded_bytes();
            name.len() >= 5 && name.iter().all(u8::is_ascii_digit)
        };
        for step in directories(beside.to_vec(), is_step) {
            for tag in directories(entries(&step), |_| true) {
                for name in ["tensors.tsv", "metadata.tsv", "sprite.png"] {
                    self.take(SideKind::Projector, &tag.join(name), Path::new(""));
                }
            }
        }
    }

    fn profile(&mut self, beside: &[PathBuf]) {
        let below = Path::new("plugins/profile");
        let mut waiting = Vec::new();
        if is_among(beside, PLUGINS) {
            waiting.push((self.directory.join(below), 0));
        }
        while let Some((directory, depth)) = waiting.pop() {
            if self.is_full(&directory) {
                continue;
            }
            if depth > MAX_DEPTH {
                self.left.push((directory, format!("it lies more than {MAX_DEPTH} directories deep in a profile")));
                continue;
            }
            let listed = match list(&directory) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    self.left.push((directory, error.to_string()));
                    continue;
                }
                listed => listed.unwrap_or_default(),
            };
            for path in listed {
                let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
                if is_directory && !is_foreign(&path) {
                    waiting.push((path, depth + 1));
                } else if !is_directory {
                    self.take(SideKind::Profile, &path, below);
                }
            }
        }
        for path in beside {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.ends_with(b".pt.trace.json") || name.ends_with(b".pt.trace.json.gz") {
                self.take(SideKind::Profile, path, Path::new(""));
            }
        }
    }

    /// Takes a file, if it is one and lies inside. Its place in the run is that below `below`.
    fn take(&mut self, kind: SideKind, path: &Path, below: &Path) {
        // What is not there is not there yet.
        let Ok(real) = fs::canonicalize(path) else { return };
        let Ok(metadata) = fs::metadata(&real) else { return };
        let inside = self.real.get_or_init(|| fs::canonicalize(self.directory).unwrap_or_default());
        let Ok(real_relative) = real.strip_prefix(inside) else {
            return self.left.push((path.to_owned(), "it lies outside of the run's directory".to_owned()));
        };
        if !metadata.is_file() {
            return;
        }
        // The name by which others refer to it, where that is one.
        let named = path.strip_prefix(self.directory).ok().and_then(normalized);
        let relative = named.as_deref().unwrap_or(real_relative);
        let relative = relative.strip_prefix(below).unwrap_or(relative);
        let label = self.label.split('/').filter(|part| !part.is_empty()).map(OsStr::new);
        let path = format!("tensorboard/{}/{}", kind.name(), safe_path(label.chain(relative.iter())));
        if self.found.contains_key(&path) || self.is_full(&real) {
            return;
        }
        let file = SideFile { source: real, path, size: metadata.len(), modified: metadata.modified().ok(), kind };
        self.found.insert(file.path.clone(), file);
    }

    /// Whether there are as many as may be; that is said once.
    fn is_full(&mut self, next: &Path) -> bool {
        let full = self.found.len() >= MAX_FILES;
        let why = || format!("there are more than {MAX_FILES} files beside the event files");
        if full && self.left.last().is_none_or(|(_, last)| *last != why()) {
            self.left.push((next.to_owned(), why()));
        }
        full
    }
}

/// The real directories among these entries.
fn directories(mut entries: Vec<PathBuf>, wanted: impl Fn(&OsStr) -> bool) -> Vec<PathBuf> {
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    entries.retain(|path| wanted(path.file_name().unwrap_or_default()) && is_directory(path) && !is_foreign(path));
    entries
}

/// Whether one of these entries has this name.
fn is_among(entries: &[PathBuf], name: &str) -> bool {
    entries.iter().any(|path| path.file_name().is_some_and(|found| found == name))
}

/// What is in a directory, by name; nothing where it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    list(directory).unwrap_or_default()
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether a directory is W&B's or our own.
fn is_foreign(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default();
    let is_log = |path: PathBuf| path.extension().is_some_and(|extension| extension == "wandb");
    [".wandb-bridge", ".wandb", "wandb"].iter().any(|own| name == *own) || entries(directory).into_iter().any(is_log)
}

/// A relative path without `.` and `..`; `None` when it leads out.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => normal.push(part),
            Component::CurDir => {}
            Component::ParentDir if normal.pop() => {}
            _ => return None,
        }
    }
    Some(normal)
}

fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_CONFIG).read_to_end(&mut text)?;
    Ok(text)
}

/// The files that a ProjectorConfig in protobuf's text format names: all `NAME: "TEXT"` of these names, however deep.
fn named_files(text: &[u8]) -> Vec<String> {
    const NAMES: [&[u8]; 4] = [b"tensor_path", b"metadata_path", b"bookmarks_path", b"image_path"];
    let mut found = Vec::new();
    let mut name: &[u8] = b"";
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        match first {
            b'#' => {
                let line = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                rest = rest.get(line..).unwrap_or_default();
            }
            b'"' | b'\'' => {
                let (value, behind) = quoted(after, first);
                if NAMES.contains(&name) && !value.is_empty() {
                    found.push(String::from_utf8_lossy(&value).into_owned());
                }
                rest = behind;
            }
            byte if is_word(&byte) => {
                let length = rest.iter().take_while(|byte| is_word(byte)).count();
                (name, rest) = rest.split_at_checked(length).unwrap_or_default();
            }
            // A colon and white space may stand between the name and its text, and nothing else.
            byte => {
                if byte != b':' && !byte.is_ascii_whitespace() {
                    name = b"";
                }
                rest = after;
            }
        }
    }
    found
}

/// A text up to its closing quote, and what is behind it.
fn quoted(text: &[u8], quote: u8) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == quote {
            break;
        }
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let Some((&escaped, after)) = rest.split_first() else { break };
        rest = after;
        match escaped {
            b'n' => value.push(b'\n'),
            b't' => value.push(b'\t'),
            b'r' => value.push(b'\r'),
            b'0'..=b'7' => {
                // Up to three octal digits: one byte of a text that is not ASCII.
                let more = rest.iter().take(2).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                let (digits, after) = rest.split_at_checked(more).unwrap_or_default();
                let code =
                    digits.iter().fold(u16::from(escaped - b'0'), |code, digit| code * 8 + u16::from(digit - b'0'));
                #[expect(clippy::cast_possible_truncation, reason = "what is above a byte is malformed anyway")]
                value.push(code as u8);
                rest = after;
            }
            other => value.push(other),
        }
    }
    (value, rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn paths(found: &SideFiles) -> Vec<&str> {
        found.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn what_torch_leaves_is_found() {
        let config = "embeddings {\n  tensor_name: \"a/b:00003\"\n  tensor_path: \"00003/a%2fb/tensors.tsv\"\n}\n";
        let root = tree(&[
            ("projector_config.pbtxt", config),
            ("00003/a%2fb/tensors.tsv", "1\t2\n"),
            ("00003/a%2fb/metadata.tsv", "x\n"),
            ("00001/forgotten/tensors.tsv", "1\n"),
            ("host_1.1700.pt.trace.json.gz", "{}"),
            ("123/a/tensors.tsv", "too few digits"),
            ("notes.txt", ""),
        ]);
        let found = find(root.path(), "train", &Listings::default());
        assert_eq!(
            paths(&found),
            [
                "tensorboard/profile/train/host_1.1700.pt.trace.json.gz",
                "tensorboard/projector/train/00001/forgotten/tensors.tsv",
                "tensorboard/projector/train/00003/a_2fb-126463b0/metadata.tsv",
                "tensorboard/projector/train/00003/a_2fb-126463b0/tensors.tsv",
                "tensorboard/projector/train/projector_config.pbtxt",
            ]
        );
        assert_eq!(found.left, []);
        let file = &found.files[2];
        assert_eq!((file.size, file.kind), (2, SideKind::Projector));
        assert_eq!(fs::read(&file.source).unwrap(), b"x\n");
    }

    #[test]
    fn what_plugins_keep_is_found() {
        let config = "embeddings { metadata_path: 'm.tsv' sprite { image_path: \"../../s.png\" } }";
        let root = tree(&[
            ("plugins/org_tensorflow_tensorboard_projector/projector_config.pbtxt", config),
            ("plugins/org_tensorflow_tensorboard_projector/m.tsv", ""),
            ("s.png", ""),
            ("plugins/profile/2024_01_01/host.xplane.pb", ""),
            ("plugins/profile/2024_01_01/wandb/run-1/x", "not ours to take"),
            ("plugins/profile/run-2/run-2.wandb", "a log"),
        ]);
        assert_eq!(
            paths(&find(root.path(), "", &Listings::default())),
            [
                "tensorboard/profile/2024_01_01/host.xplane.pb",
                "tensorboard/projector/plugins/org_tensorflow_tensorboard_projector/m.tsv",
                "tensorboard/projector/plugins/org_tensorflow_tensorboard_projector/projector_config.pbtxt",
                "tensorboard/projector/s.png",
            ]
        );
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_taken_from_outside() {
        use std::os::unix::fs::symlink;
        let elsewhere = tree(&[("secret.tsv", "s"), ("deep/more.pb", "")]);
        let outside = elsewhere.path().join("secret.tsv");
        let config = format!(
            "embeddings {{ tensor_path: \"{}\" metadata_path: \"../x.tsv\" bookmarks_path: \"link.tsv\" }}\n\
             embeddings {{ tensor_path: \"near.tsv\" metadata_path: \"gone.tsv\" }}",
            outside.display()
        );
        let root = tree(&[("run/projector_config.pbtxt", &config), ("x.tsv", ""), ("run/real.tsv", "")]);
        let run = root.path().join("run");
        symlink(&outside, run.join("link.tsv")).unwrap();
        symlink("real.tsv", run.join("near.tsv")).unwrap();
        fs::create_dir_all(run.join("plugins/profile")).unwrap();
        symlink(elsewhere.path().join("deep"), run.join("plugins/profile/deep")).unwrap();
        symlink(&run, run.join("plugins/profile/loop")).unwrap();
        let found = find(&run, "", &Listings::default());
        assert_eq!(paths(&found), ["tensorboard/projector/near.tsv", "tensorboard/projector/projector_config.pbtxt"]);
        let left: Vec<_> = found.left.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(left, ["secret.tsv", "x.tsv", "link.tsv", "deep"]);
    }

    #[test]
    fn what_lies_too_deep_is_said() {
        let deep = format!("plugins/profile/{}", "d/".repeat(MAX_DEPTH + 1));
        let near = format!("plugins/profile/{}", "d/".repeat(MAX_DEPTH));
        let root = tree(&[(&format!("{deep}lost.pb"), ""), (&format!("{near}found.pb"), "")]);
        let found = find(root.path(), "", &Listings::default());
        assert_eq!(found.files.len(), 1, "{found:?}");
        assert_eq!(found.left.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), [root.path().join(deep)]);
    }

    #[test]
    fn configurations_name_files() {
        let check = |text: &str, expected: &[&str]| assert_eq!(named_files(text.as_bytes()), expected, "{text}");
        check("tensor_path: \"a\" # metadata_path: \"b\"\nsprite{image_path:'c'}", &["a", "c"]);
        check("model_checkpoint_path: \"a\" tensor_name: \"metadata_path: 'b'\"", &[]);
        check(r#"metadata_path: "\303\244\\\"x\t""#, &["ä\\\"x\t"]);
        check("metadata_path: \"a", &["a"]);
        check("metadata_path { x: 1 } \"a\"", &[]);
        check("metadata_path: \"", &[]);
        check("\\", &[]);
    }

    #[test]
    fn parts_of_paths_are_safe_and_stay_apart() {
        for part in ["a.pb", "00003", "2024_01-01", "x+y=z,@"] {
            assert_eq!(safe_part(OsStr::new(part)), part);
        }
        for part in ["..", "", "a b", "a%2fb", "ä", &"x".repeat(1000)] {
            let safe = safe_part(OsStr::new(part));
            assert!(safe.len() <= 100 && safe.is_ascii() && safe != part && !safe.contains(['/', ' ', '%']), "{safe}");
        }
        assert_ne!(safe_part(OsStr::new("a b")), safe_part(OsStr::new("a_b")));
        assert_ne!(safe_part(OsStr::new("a b")), safe_part(OsStr::new("a/b")));
    }

    proptest::proptest! {
        #[test]
        fn any_configuration_is_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = named_files(&bytes);
        }
    }
}

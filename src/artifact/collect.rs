//! Which files go into an artifact, and under which paths.
//!
//! A file goes in under its name, a directory with all that is below it, without its own name. Links are followed as long
//! as they stay below the directory that was named: what they lead out to was not meant, and may be a secret. Whatever is
//! left out for that, or is no file at all, is told.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::artifact::NameError;

/// The files of an artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where each lies, by its path in the artifact.
    pub files: BTreeMap<String, PathBuf>,
    /// What does not go in.
    pub left_out: Vec<LeftOut>,
}

/// Something that does not go in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub why: WhyLeftOut,
}

/// Why something does not go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyLeftOut {
    /// A link to something outside of the directory.
    LeadsOut,
    /// A link to nothing.
    LeadsNowhere,
    /// A link to a directory that it is in itself.
    Loop,
    /// A socket, a pipe, a device.
    NotAFile,
}

impl WhyLeftOut {
    /// In words, of several.
    pub fn text(self) -> &'static str {
        match self {
            Self::LeadsOut => "links that lead out of the directory",
            Self::LeadsNowhere => "links that lead nowhere",
            Self::Loop => "links that lead back to where they are",
            Self::NotAFile => "things that are neither files nor directories",
        }
    }
}

/// Files that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Something cannot be looked at: say so.
    #[error("cannot look at `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name that no text can hold: have it renamed.
    #[error("the name of `{}` is not UTF-8", .0.display())]
    Name(PathBuf),
    /// The artifact itself has no name that can be used: have it named differently.
    #[error("the name of the artifact cannot be used")]
    Unnamed(#[source] NameError),
    /// Two files want the same path: have one of them named differently.
    #[error("both `{}` and `{}` would be `{name}` in the artifact", first.display(), second.display())]
    Twice {
        /// The path in the artifact.
        name: String,
        /// A file.
        first: PathBuf,
        /// Another file.
        second: PathBuf,
    },
}

/// Finds the files below paths. `keep` is asked with the path in the artifact; what it refuses is not told of.
pub fn collect(paths: &[PathBuf], keep: &dyn Fn(&str) -> bool) -> Result<Found, CollectError> {
    let mut walk = Walk { found: Found::default(), keep, enter: None };
    for path in paths {
        let failed = |source| CollectError::Read { path: path.clone(), source };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            walk.root(path)?;
        } else {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_str().ok_or_else(|| CollectError::Name(path.clone()))?;
            walk.add(name.to_owned(), path.clone())?;
        }
    }
    Ok(walk.found)
}

/// Which directories are entered, by their places and their paths in the artifact.
type Enter<'a> = dyn Fn(&Path, &str) -> bool + 'a;

/// Finds the files below one directory that `keep` takes, in those directories that `enter` takes. A link to a directory that would be entered, if it did not lead out, is told of.
pub fn collect_below(directory: &Path, keep: &dyn Fn(&str) -> bool, enter: &Enter<'_>) -> Result<Found, CollectError> {
    let mut walk = Walk { found: Found::default(), keep, enter: Some(enter) };
    walk.root(directory)?;
    Ok(walk.found)
}

/// The real place of a path below a directory; `None` when it leads out of it, or there is nothing.
pub fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let (root, real) = (fs::canonicalize(root).ok()?, fs::canonicalize(path).ok()?);
    real.starts_with(root).then_some(real)
}

struct Walk<'a> {
    found: Found,
    keep: &'a dyn Fn(&str) -> bool,
    /// Which directories are entered; all, where nothing is said.
    enter: Option<&'a Enter<'a>>,
}

/// A directory on the way down.
struct Place {
    path: PathBuf,
    /// Its path in the artifact.
    name: String,
    real: Rc<Path>,
    /// The real directories that it is in, for links that lead back.
    above: Vec<Rc<Path>>,
}

impl Walk<'_> {
    fn root(&mut self, path: &Path) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { path: path.to_owned(), source };
        let root: Rc<Path> = fs::canonicalize(path).map_err(failed)?.into();
        self.directory(path, &root)
    }

    fn enters(&self, path: &Path, name: &str) -> bool {
        self.enter.is_none_or(|enter| enter(path, name))
    }

    /// Whether a link that is not followed is to be told of.
    fn is_wanted(&self, link: &Path, name: &str) -> bool {
        (self.keep)(name) || self.enter.is_some_and(|enter| link.is_dir() && enter(link, name))
    }

    fn directory(&mut self, path: &Path, root: &Rc<Path>) -> Result<(), CollectError> {
        let first = Place { path: path.to_owned(), name: String::new(), real: root.clone(), above: Vec::new() };
        let mut waiting = vec![first];
        while let Some(place) = waiting.pop() {
            let failed = |source| CollectError::Read { path: place.path.clone(), source };
            for entry in fs::read_dir(&place.path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|source| CollectError::Read { path: path.clone(), source })?;
                let file_name = entry.file_name();
                let own = file_name.to_string_lossy();
                let name = if place.name.is_empty() { own.to_string() } else { format!("{}/{own}", place.name) };
                if file_name.to_str().is_none() {
                    // Whatever it is called, it is nobody's business where it does not go in.
                    let wanted = if kind.is_dir() { self.enters(&path, &name) } else { self.is_wanted(&path, &name) };
                    if wanted {
                        return Err(CollectError::Name(path));
                    }
                    continue;
                }
                if kind.is_dir() {
                    if self.enters(&path, &name) {
                        waiting.push(place.below(path, name, place.real.join(&file_name).into()));
                    }
                } else if kind.is_file() {
                    self.add(name, path)?;
                } else if self.enter.is_none() && !(self.keep)(&name) {
                    // The user knows of it.
                } else if kind.is_symlink() {
                    match follow(&path, root, &place) {
                        Ok(Target::File) => self.add(name, path)?,
                        Ok(Target::Directory(real)) if self.enters(&path, &name) => {
                            waiting.push(place.below(path, name, real));
                        }
                        Ok(Target::Directory(_)) => {}
                        Err(why) if self.is_wanted(&path, &name) => self.found.left_out.push(LeftOut { path, why }),
                        Err(_) => {}
                    }
                } else if (self.keep)(&name) {
                    self.found.left_out.push(LeftOut { path, why: WhyLeftOut::NotAFile });
                }
            }
        }
        self.found.left_out.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    fn add(&mut self, name: String, path: PathBuf) -> Result<(), CollectError> {
        if !(self.keep)(&name) {
            return Ok(());
        }
        match self.found.files.get(&name) {
            Some(first) if *first != path => Err(CollectError::Twice { name, first: first.clone(), second: path }),
            _ => {
                self.found.files.insert(name, path);
                Ok(())
            }
        }
    }
}

impl Place {
    fn below(&self, path: PathBuf, name: String, real: Rc<Path>) -> Self {
        let above = self.above.iter().cloned().chain([self.real.clone()]).collect();
        Self { path, name, real, above }
    }
}

enum Target {
    File,
    Directory(Rc<Path>),
}

fn follow(link: &Path, root: &Path, place: &Place) -> Result<Target, WhyLeftOut> {
    let real = fs::canonicalize(link).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => WhyLeftOut::LeadsNowhere,
        _ => WhyLeftOut::Loop,
    })?;
    if !real.starts_with(root) {
        return Err(WhyLeftOut::LeadsOut);
    }
    let metadata = fs::metadata(&real).map_err(|_| WhyLeftOut::LeadsNowhere)?;
    if metadata.is_file() {
        return Ok(Target::File);
    }
    if !metadata.is_dir() {
        return Err(WhyLeftOut::NotAFile);
    }
    // The directories above may have been reached by links, so each is compared by its real name.
    if place.above.iter().chain([&place.real]).any(|above| above.starts_with(&real)) {
        return Err(WhyLeftOut::Loop);
    }
    Ok(Target::Directory(real.into()))
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::symlink;

    use super::*;

    fn names(found: &Found) -> Vec<&str> {
        found.files.keys().map(String::as_str).collect()
    }

    fn left_out(found: &Found, root: &Path) -> Vec<(String, WhyLeftOut)> {
        let short = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        found.left_out.iter().map(|out| (short(&out.path), out.why)).collect()
    }

    #[test]
    fn directories_go_in_with_all_that_is_below_them_and_files_by_their_names() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("model");
        fs::create_dir_all(root.join("a/b")).unwrap();
        for path in ["model/a/b/deep", "model/top", "model/.hidden", "report.txt"] {
            fs::write(place.path().join(path), path).unwrap();
        }
        let found = collect(&[root.clone(), place.path().join("report.txt")], &|_| true).unwrap();
        assert_eq!(names(&found), [".hidden", "a/b/deep", "report.txt", "top"]);
        assert_eq!(found.files["a/b/deep"], root.join("a/b/deep"));
        assert_eq!(
            names(&collect(std::slice::from_ref(&root), &|name| !name.starts_with("a/")).unwrap()),
            [".hidden", "top"]
        );
        // The same file twice is one; another under its path is refused.
        assert_eq!(names(&collect(&[root.join("top"), root.join("top")], &|_| true).unwrap()), ["top"]);
        fs::write(place.path().join("top"), "other").unwrap();
        let twice = collect(&[root, place.path().join("top")], &|_| true);
        assert!(matches!(&twice, Err(CollectError::Twice { name, .. }) if name == "top"), "{twice:?}");
    }

    #[test]
    fn links_are_followed_inside_only() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        fs::create_dir(place.path().join("outside")).unwrap();
        fs::write(root.join("real/file"), "1").unwrap();
        fs::write(place.path().join("outside/secret"), "2").unwrap();
        symlink("real/file", root.join("to-file")).unwrap();
        symlink("real", root.join("to-directory")).unwrap();
        symlink("../outside/secret", root.join("out-file")).unwrap();
        symlink("../../outside", root.join("real/out-directory")).unwrap();
        symlink("nothing", root.join("nowhere")).unwrap();
        symlink("..", root.join("real/up")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let found = collect(std::slice::from_ref(&root), &|_| true).unwrap();
        assert_eq!(names(&found), ["real/file", "to-directory/file", "to-file"]);
        let expected = [
            ("circle", WhyLeftOut::Loop),
            ("nowhere", WhyLeftOut::LeadsNowhere),
            ("out-file", WhyLeftOut::LeadsOut),
            ("real/out-directory", WhyLeftOut::LeadsOut),
            ("real/up", WhyLeftOut::Loop),
            ("to-directory/out-directory", WhyLeftOut::LeadsOut),
            ("to-directory/up", WhyLeftOut::Loop),
        ];
        assert_eq!(left_out(&found, &root), expected.map(|(path, why)| (path.to_owned(), why)));
        assert_eq!(collect(std::slice::from_ref(&root), &|name| name.contains("file")).unwrap().left_out.len(), 1);
        // What was named itself is meant, wherever it leads.
        let found = collect(&[root.join("out-file")], &|_| true).unwrap();
        assert_eq!((names(&found), found.left_out.len()), (vec!["out-file"], 0));
    }

    #[test]
    fn a_name_that_is_no_text_matters_only_where_it_goes_in() {
        use std::os::unix::ffi::OsStrExt as _;
        let place = tempfile::tempdir().unwrap();
        let odd = place.path().join("odd").join(std::ffi::OsStr::from_bytes(b"\xff.pt"));
        fs::create_dir(place.path().join("odd")).unwrap();
        fs::create_dir(place.path().join(std::ffi::OsStr::from_bytes(b"\xfe"))).unwrap();
        for path in [&odd, &place.path().join("model.pt"), &place.path().join("notes")] {
            fs::write(path, "").unwrap();
        }
        let below = |keep: &dyn Fn(&str) -> bool, enter: &Enter<'_>| collect_below(place.path(), keep, enter);
        let found = below(&|name| name == "model.pt", &|_, name| name == "odd").unwrap();
        assert_eq!(names(&found), ["model.pt"]);
        let taken = below(&|name| name.ends_with(".pt"), &|_, name| name == "odd");
        assert!(matches!(&taken, Err(CollectError::Name(path)) if *path == odd), "{taken:?}");
        assert!(matches!(below(&|_| false, &|_, _| true), Err(CollectError::Name(_))));
        fs::remove_dir(place.path().join(std::ffi::OsStr::from_bytes(b"\xfe"))).unwrap();
        // As the command's hint says: `--exclude` of its directory.
        let found = collect(&[place.path().to_owned()], &|name| !name.starts_with("odd/")).unwrap();
        assert_eq!(names(&found), ["model.pt", "notes"]);
    }

    #[test]
    fn what_is_no_file_is_told() {
        let place = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.path().join("socket")).unwrap();
        let found = collect(&[place.path().to_owned()], &|_| true).unwrap();
        assert_eq!(left_out(&found, place.path()), [("socket".to_owned(), WhyLeftOut::NotAFile)]);
        assert!(found.files.is_empty());
    }
}

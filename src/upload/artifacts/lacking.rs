//! The files of a recorded version on this machine: found where they were or where they may be now, or known to be lacking.
//!
//! A log may be older than the files that it names, may come from another machine, and may speak of files that were never
//! its own. Only what has the recorded size and digest is the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::{HashError, Mark, Places, hash_file};
use crate::upload::state::FileMark;

/// How many files are named in one sentence.
const NAMED: usize = 3;

/// A file without which a version cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LackingFile {
    /// Its path in the artifact.
    pub name: String,
    /// Where it was when it was recorded.
    pub path: PathBuf,
    /// In bytes, as it was recorded.
    pub size: u64,
    /// What is there instead.
    pub why: WhyLacking,
}

/// What is there in place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyLacking {
    /// Nothing.
    Gone,
    /// Another content.
    Differs,
    /// Nobody knows: why it cannot be read.
    Unreadable(String),
}

/// All files that a version lacks. At least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// In the order of their names.
    pub files: Vec<LackingFile>,
    /// The folders in which they were looked for besides.
    pub places: Vec<PathBuf>,
}

impl fmt::Display for WhyLacking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => formatter.write_str("is not there"),
            Self::Differs => formatter.write_str("is another one by now"),
            Self::Unreadable(why) => write!(formatter, "cannot be read: {why}"),
        }
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.files.len();
        let what = if count == 1 { "file is" } else { "files are" };
        write!(formatter, "{count} {what} not here as recorded: ")?;
        for (number, LackingFile { name, path, why, .. }) in self.files.iter().take(NAMED).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(formatter, "{comma}`{name}` (`{}` {why})", path.display())?;
        }
        if count > NAMED {
            write!(formatter, ", and {} more", count - NAMED)?;
        }
        let places: Vec<String> = self.places.iter().map(|place| format!("`{}`", place.display())).collect();
        if !places.is_empty() {
            write!(formatter, "; looked for in {} too, and `--staging` names other folders", places.join(", "))?;
        }
        Ok(())
    }
}

/// The file that was recorded, wherever it is.
pub(super) fn find(
    recorded: &Path,
    (digest, size): (&str, u64),
    places: &Places,
) -> Result<(PathBuf, Mark), WhyLacking> {
    let mut why = WhyLacking::Gone;
    for path in places.candidates(recorded) {
        match read(&path, digest, size) {
            Ok(mark) => return Ok((path, mark)),
            // What is wrong with the file itself is more than that there is none elsewhere.
            Err(found) if why == WhyLacking::Gone && path == recorded => why = found,
            Err(_) => {}
        }
    }
    Err(why)
}

/// Whether there may be something at one of the places of a file that was not there when it was looked for last: then
/// `seen` was what it found at the recorded place.
pub(crate) fn may_be_here(recorded: &Path, size: u64, seen: Option<FileMark>, places: &Places) -> bool {
    places.candidates(recorded).any(|path| {
        let metadata = path.metadata().ok().filter(|metadata| metadata.is_file() && fits(metadata.len(), size));
        let is_new = |metadata: &std::fs::Metadata| path != recorded || seen != Some(FileMark::from(metadata));
        metadata.is_some_and(|metadata| is_new(&metadata)) && std::fs::File::open(&path).is_ok()
    })
}

/// Whether a file of this length can be the one whose size was recorded. Old clients recorded none.
fn fits(length: u64, recorded: u64) -> bool {
    recorded == 0 || length == recorded
}

fn read(path: &Path, digest: &str, size: u64) -> Result<Mark, WhyLacking> {
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => WhyLacking::Gone,
        _ => WhyLacking::Unreadable(error.to_string()),
    };
    let metadata = path.metadata().map_err(wrong)?;
    if !metadata.is_file() {
        return Err(WhyLacking::Unreadable("it is no file".to_owned()));
    }
    if !fits(metadata.len(), size) {
        return Err(WhyLacking::Differs);
    }
    match hash_file(path) {
        Ok(hashed) if hashed.digest == digest => Ok(hashed.mark),
        Ok(_) => Err(WhyLacking::Differs),
        Err(HashError::Read { source, .. }) => Err(wrong(source)),
        Err(error) => Err(WhyLacking::Unreadable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::artifact::md5_base64;

    #[test]
    fn only_the_recorded_content_is_the_file() {
        let place = tempfile::tempdir().unwrap();
        let moved = place.path().join("moved");
        std::fs::create_dir(&moved).unwrap();
        let places = Places::of_log(&place.path().join("none/a/b/run-1.wandb"), vec![moved.clone()]);
        let recorded = place.path().join("staging/tmp1");
        let digest = md5_base64(b"content");
        let find = |size: u64| find(&recorded, (&digest, size), &places).map(|(path, _)| path);
        let may_be_here = |seen| may_be_here(&recorded, 7, seen, &places);

        assert_eq!((find(7), may_be_here(None)), (Err(WhyLacking::Gone), false));
        std::fs::write(moved.join("tmp1"), "another").unwrap();
        assert_eq!((find(7), may_be_here(None)), (Err(WhyLacking::Gone), true));
        std::fs::write(moved.join("tmp1"), "content").unwrap();
        assert_eq!((find(7), find(0), may_be_here(None)), (Ok(moved.join("tmp1")), Ok(moved.join("tmp1")), true));
        assert_eq!(find(8), Err(WhyLacking::Gone));

        std::fs::create_dir(place.path().join("staging")).unwrap();
        std::fs::write(&recorded, "other content").unwrap();
        assert_eq!(find(7), Ok(moved.join("tmp1")));
        std::fs::remove_file(moved.join("tmp1")).unwrap();
        assert_eq!((find(7), may_be_here(None)), (Err(WhyLacking::Differs), false));
        std::fs::write(&recorded, "c0ntent").unwrap();
        let seen = FileMark::from(&recorded.metadata().unwrap());
        assert_eq!((find(7), may_be_here(Some(seen))), (Err(WhyLacking::Differs), false));
        assert!(may_be_here(Some(FileMark { modified_ns: 0, ..seen })));
        std::fs::remove_file(&recorded).unwrap();
        std::fs::create_dir(&recorded).unwrap();
        assert!(matches!(find(7), Err(WhyLacking::Unreadable(_))) && !may_be_here(None));
    }

    #[test]
    fn all_are_told_in_one_sentence() {
        let file =
            |name: &str, why| LackingFile { name: name.to_owned(), path: PathBuf::from("/s/tmp1"), size: 7, why };
        let unreadable = WhyLacking::Unreadable("denied".to_owned());
        let one = Lacking { files: vec![file("a", WhyLacking::Gone)], places: vec!["/x".into(), "/y".into()] };
        assert_eq!(
            one.to_string(),
            "1 file is not here as recorded: `a` (`/s/tmp1` is not there); looked for in `/x`, `/y` too, and `--staging` \
             names other folders"
        );
        let files = ["b", "c", "d"].map(|name| file(name, unreadable.clone()));
        let files = [file("a", WhyLacking::Differs)].into_iter().chain(files).collect();
        assert_eq!(
            Lacking { files, places: Vec::new() }.to_string(),
            "4 files are not here as recorded: `a` (`/s/tmp1` is another one by now), `b` (`/s/tmp1` cannot be read: \
             denied), `c` (`/s/tmp1` cannot be read: denied), and 1 more"
        );
    }
}

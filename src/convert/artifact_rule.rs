//! `--artifact 'TYPE:NAME=GLOB'`: which files beside a run become versions of which artifact. Pure.

use globset::{GlobBuilder, GlobMatcher};

use crate::convert::template::{Template, TemplateError};

/// One rule, as it was typed.
#[derive(Debug, Clone)]
pub struct ArtifactRule {
    /// All of it.
    pub text: String,
    /// The type of the artifact.
    pub kind: String,
    /// Its name.
    pub name: Template,
    /// The files that go in.
    pub files: FileGlob,
}

/// A text that is no such rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A part is missing.
    #[error("write it as TYPE:NAME=GLOB, such as `model:{{path}}-weights=checkpoints/*.pt`")]
    Form,
    /// The name holds a placeholder that means nothing.
    #[error(transparent)]
    Name(#[from] TemplateError),
    /// The glob cannot be used.
    #[error("`{glob}` cannot be used: {why}")]
    Glob {
        /// The glob.
        glob: String,
        /// Why not.
        why: String,
    },
}

/// A glob over paths below a directory: `*` stays within a name, `**` crosses `/`. What matches a directory takes all that
/// is below it.
#[derive(Debug, Clone)]
pub struct FileGlob {
    whole: GlobMatcher,
    /// The glob for each name on the way; none where its parts cannot be told apart at the slashes.
    names: Vec<GlobMatcher>,
}

impl FileGlob {
    /// The glob, without what does not count.
    pub fn as_str(&self) -> &str {
        self.whole.glob().glob()
    }

    /// Whether it takes the file at a path, with `/` between its parts.
    pub fn takes(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        ends.filter_map(|end| path.get(..end)).any(|part| self.whole.is_match(part))
    }

    /// Whether it may take anything below the directory at a path.
    pub fn may_take_below(&self, path: &str) -> bool {
        let mut names = self.names.iter();
        for part in path.split('/') {
            match names.next() {
                // It takes the directory itself, or something is said of it that only the whole path tells.
                None => return true,
                Some(name) if name.glob().glob() == "**" => return true,
                Some(name) if !name.is_match(part) => return false,
                Some(_) => {}
            }
        }
        true
    }
}

impl std::str::FromStr for FileGlob {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why: &str| RuleError::Glob { glob: text.to_owned(), why: why.to_owned() };
        let glob = text.trim_start_matches("./").trim_end_matches('/');
        if glob.is_empty() {
            return Err(bad("it is empty; `**` takes everything"));
        }
        if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
            return Err(bad("it is looked for below the directory of each run, and leads out of it"));
        }
        let compile = |glob: &str| {
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            built.map(|glob| glob.compile_matcher()).map_err(|error| bad(&error.kind().to_string()))
        };
        let whole = compile(glob)?;
        let names = if glob.contains(['{', '[', '\\']) {
            Vec::new()
        } else {
            glob.split('/').map(compile).collect::<Result<_, _>>()?
        };
        Ok(Self { whole, names })
    }
}

impl std::str::FromStr for ArtifactRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = text.split_once(':').ok_or(RuleError::Form)?;
        let (name, glob) = rest.split_once('=').ok_or(RuleError::Form)?;
        if kind.is_empty() || name.is_empty() {
            return Err(RuleError::Form);
        }
        Ok(Self { text: text.to_owned(), kind: kind.to_owned(), name: name.parse()?, files: glob.parse()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn rules_have_three_parts() {
        let rule: ArtifactRule = "model:{path}-best=ckpt/a=1.pt".parse().unwrap();
        assert_eq!((rule.kind.as_str(), rule.files.takes("ckpt/a=1.pt")), ("model", true));
        for bad in ["", "model", "model:", "model:x", ":x=*", "model:=*"] {
            assert_eq!(bad.parse::<ArtifactRule>().unwrap_err(), RuleError::Form, "{bad}");
        }
        assert!(matches!("m:{what}=*".parse::<ArtifactRule>(), Err(RuleError::Name(_))));
        for bad in ["m:x=", "m:x=./", "m:x=/etc/*", "m:x=../*", "m:x=a/../b", "m:x=["] {
            assert!(matches!(bad.parse::<ArtifactRule>(), Err(RuleError::Glob { .. })), "{bad}");
        }
    }

    #[test]
    fn globs_take_files_and_whole_directories() {
        let taken = |glob: &str| {
            let glob: FileGlob = glob.parse().unwrap();
            let all = ["a.pt", "ckpt/b.pt", "ckpt/deep/c.pt", "report.txt"];
            all.into_iter().filter(|path| glob.takes(path)).collect::<Vec<_>>()
        };
        assert_eq!(taken("*.pt"), ["a.pt"]);
        assert_eq!(taken("**/*.pt"), ["a.pt", "ckpt/b.pt", "ckpt/deep/c.pt"]);
        assert_eq!(taken("./ckpt/"), ["ckpt/b.pt", "ckpt/deep/c.pt"]);
        assert_eq!(taken("ckpt/*"), ["ckpt/b.pt", "ckpt/deep/c.pt"]);
        assert_eq!(taken("ckpt/*.pt"), ["ckpt/b.pt"]);
        assert_eq!(taken("{a,ckpt/b}.pt"), ["a.pt", "ckpt/b.pt"]);
        assert_eq!(taken("**").len(), 4);
    }

    #[test]
    fn directories_are_entered_where_something_may_be() {
        let enters = |glob: &str, path: &str| glob.parse::<FileGlob>().unwrap().may_take_below(path);
        for (glob, path, expected) in [
            ("ckpt/*.pt", "ckpt", true),
            ("ckpt/*.pt", "other", false),
            ("ckpt/*/x", "ckpt/a", true),
            ("ckpt/*/x", "ckpt/a/y", false),
            ("*.pt", "a", false),
            ("**/*.pt", "a/b/c", true),
            ("a/**", "a/b", true),
            ("a/**", "b", false),
            ("a", "a/b/c", true),
            ("{a/b,c}/d", "z", true),
        ] {
            assert_eq!(enters(glob, path), expected, "{glob} {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_is_never_missed(glob in "[ab*/]{1,8}", path in "[ab]{1,2}(/[ab]{1,2}){0,3}") {
            if let Ok(glob) = glob.parse::<FileGlob>()
                && glob.takes(&path)
            {
                for (at, _) in path.match_indices('/') {
                    proptest::prop_assert!(glob.may_take_below(&path[..at]), "{path} at {at}");
                }
            }
        }
    }
}

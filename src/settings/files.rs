//! The W&B settings files: `~/.config/wandb/settings`, and `settings` in the `wandb` folder.
//!
//! Written by `wandb login`, `wandb init`, `wandb offline`. INI with one section, `[default]`. A file that cannot be read
//! gives a warning and counts as empty, as for the official client; so does one that is not there, without the warning.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use configparser::ini::Ini;

use super::environment::Environment;
use super::value::{Setting, Source};

/// Far above what any settings file has.
const MAX_SIZE: u64 = 1 << 20;

/// The settings of both files, with the file that each comes from.
#[derive(Debug, Default)]
pub(super) struct SettingsFiles(BTreeMap<String, Setting<String>>);

impl SettingsFiles {
    /// Reads the user's file and then the workspace's, which wins.
    pub(super) fn read(environment: &Environment, wandb_dir: &Path, warnings: &mut Vec<String>) -> Self {
        let user = match environment.get("WANDB_CONFIG_DIR") {
            Some(dir) => Some(environment.at(&environment.expand_home(Path::new(dir))).join("settings")),
            None => environment.in_home(".config/wandb/settings"),
        };
        let mut settings = BTreeMap::new();
        for path in user.into_iter().chain([environment.at(&wandb_dir.join("settings"))]) {
            let shown = environment.show(&path);
            let parsed = match read_text(&path) {
                Ok(text) => parse(&text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(error.to_string()),
            };
            match parsed {
                Ok(parsed) => settings.extend(
                    parsed
                        .into_iter()
                        .map(|(key, value)| (key, Setting { value, source: Source::File(shown.clone()) })),
                ),
                Err(why) => warnings.push(format!("the settings in `{shown}` are ignored: {why}")),
            }
        }
        Self(settings)
    }

    pub(super) fn get(&self, key: &str) -> Option<Setting<String>> {
        self.0.get(key).cloned()
    }
}

/// Reads a small text file, and refuses a large one before it takes memory.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {MAX_SIZE} bytes")));
    }
    Ok(text)
}

/// The section `[default]`. Values that are empty count as not set.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut ini = Ini::new();
    // As in Python's parser, which writes these files: `#` inside a value is part of it, and `%%` is a `%`.
    ini.set_inline_comment_symbols(Some(&[]));
    let sections = ini.read(text.to_owned())?;
    let section = sections.into_iter().find_map(|(name, section)| (name == "default").then_some(section));
    let values =
        section.unwrap_or_default().into_iter().filter_map(|(key, value)| Some((key, value?.replace("%%", "%"))));
    Ok(values.filter(|(_, value)| !value.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    #[test]
    fn the_default_section_is_read() {
        check(
            "[default]\nentity = me\nBase_URL: http://localhost:8080\n\n",
            &[("base_url", "http://localhost:8080"), ("entity", "me")],
        );
        check(
            "# a comment\n[other]\nentity = you\n[default]\nproject = a#b;c 100%%\nmode =\n",
            &[("project", "a#b;c 100%")],
        );
        check("", &[]);
    }

    #[test]
    fn a_broken_file_says_where() {
        assert!(parse("[default\nentity = me").is_err_and(|why| why.contains("line 1")));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]=:;#%a\\n ]{0,40}") {
            let _ = parse(&text);
        }
    }
}

//! One setting: its value, where it comes from, and the order of the places that may have it.

use std::fmt;

use super::environment::Environment;
use super::error::SettingsError;
use super::files::SettingsFiles;
use crate::cli::{Cli, flag_variable};
use crate::model::is_forbidden_in_project;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A flag that was typed.
    Flag(&'static str),
    /// A variable.
    Variable(String),
    /// A file, as it is shown.
    File(String),
    /// Nobody chose.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(formatter, "`{name}`"),
            Self::Variable(name) => write!(formatter, "`{name}`"),
            Self::File(path) => write!(formatter, "`{path}`"),
            Self::Default => formatter.write_str("the default"),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
}

impl<T> Setting<T> {
    /// A value that nobody chose.
    pub(super) fn default_of(value: T) -> Self {
        Self { value, source: Source::Default }
    }

    /// Whether somebody chose it.
    pub fn was_asked_for(&self) -> bool {
        self.source != Source::Default
    }

    /// Whether it was chosen for this program, by a flag or by the variable that stands in for one, and not for the
    /// process that trains. Only that overrides what a log says of itself.
    pub fn is_for_us(&self) -> bool {
        match &self.source {
            Source::Flag(_) => true,
            Source::Variable(name) => name.starts_with("WANDB_BRIDGE_"),
            Source::File(_) | Source::Default => false,
        }
    }

    /// Whether its text may hold placeholders. The official client knows none, so in its variables braces are braces.
    pub fn is_template(&self) -> bool {
        self.is_for_us()
    }
}

/// The places that may have a setting, in their order.
#[derive(Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) cli: &'a Cli,
    pub(super) environment: &'a Environment,
    pub(super) files: &'a SettingsFiles,
}

impl Lookup<'_> {
    /// Finds a setting: flag, variables, files. `key` is its name in a settings file.
    pub(super) fn find(
        &self,
        typed: Option<String>,
        flag: &'static str,
        variable: &str,
        key: &str,
    ) -> Result<Option<Setting<String>>, SettingsError> {
        if let Some(value) = typed.filter(|value| !value.is_empty()) {
            return Ok(Some(Setting { value, source: self.flag(flag) }));
        }
        Ok(self.variable(variable)?.or_else(|| self.files.get(key)))
    }

    /// Where the value of a flag comes from: it was typed, or its variable is set.
    pub(super) fn flag(&self, flag: &'static str) -> Source {
        let variable = flag_variable(flag);
        if self.cli.variables.contains(&variable) { Source::Variable(variable) } else { Source::Flag(flag) }
    }

    /// Where a value comes from that has a flag, and else a variable of the official client's.
    pub(super) fn flag_or_variable(&self, is_flag: bool, flag: &'static str, variable: &str) -> Source {
        if is_flag { self.flag(flag) } else { Source::Variable(variable.to_owned()) }
    }

    /// Finds a setting that has no flag in `WANDB_BRIDGE_X` or `WANDB_X`.
    pub(super) fn variable(&self, name: &str) -> Result<Option<Setting<String>>, SettingsError> {
        for prefix in ["WANDB_BRIDGE_", "WANDB_"] {
            let name = format!("{prefix}{name}");
            let Some(value) = self.environment.get(&name) else { continue };
            let source = Source::Variable(name);
            return match value.to_str() {
                Some(value) => Ok(Some(Setting { value: value.to_owned(), source })),
                None => Err(SettingsError::Value { source, why: "it is not UTF-8".to_owned() }),
            };
        }
        Ok(None)
    }
}

/// Checks the name of a project by W&B's rules; says what is wrong.
pub fn check_project(name: &str) -> Result<(), String> {
    if name.trim().is_empty() {
        return Err("the name of a project cannot be empty".to_owned());
    }
    if name.chars().count() > 128 {
        return Err(format!("the name of a project has at most 128 characters, this one has {}", name.chars().count()));
    }
    if matches!(name, "." | "..") {
        return Err(format!("the name of a project cannot be `{name}`"));
    }
    match name.chars().find(|c| is_forbidden_in_project(*c)) {
        Some(refused) if refused.is_control() => {
            Err(format!("the name of a project cannot hold control characters, as `{}` does", name.escape_debug()))
        }
        Some(refused) => Err(format!("the name of a project cannot hold `{refused}`, as `{name}` does")),
        None => Ok(()),
    }
}

/// A template is checked when its placeholders are filled in.
pub(super) fn check_project_setting(project: &Setting<String>) -> Result<(), SettingsError> {
    if project.is_template() && project.value.contains('{') {
        return Ok(());
    }
    check_project(&project.value).map_err(|why| SettingsError::Value { source: project.source.clone(), why })
}

/// Splits a list of tags at its commas.
pub(super) fn split_tags(list: Setting<String>) -> Result<Setting<Vec<String>>, SettingsError> {
    let tags: Vec<String> =
        list.value.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
    let may_shrink = |tag: &str| list.is_template() && tag.contains('{');
    if let Some(long) = tags.iter().find(|tag| tag.chars().count() > 64 && !may_shrink(tag)) {
        let why = format!("a tag has at most 64 characters, `{long}` has {}", long.chars().count());
        return Err(SettingsError::Value { source: list.source, why });
    }
    Ok(Setting { value: tags, source: list.source })
}

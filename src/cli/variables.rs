//! Parsing, with a variable behind every flag.
//!
//! `--until-idle 5m` and `WANDB_BRIDGE_UNTIL_IDLE=5m` mean the same, and a flag that is typed wins. This is done for all
//! flags at once, by giving the variables to clap as defaults, so that no flag can be forgotten. The variables come in as
//! a function: nothing here looks at the process's environment.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory as _, FromArgMatches as _};

use super::Cli;

/// A command line that could not be parsed.
#[derive(Debug)]
pub enum ParseError {
    /// What was typed is wrong, or asks for help: print it and end with its exit code.
    CommandLine(clap::Error),
    /// What was typed is right and a variable is not. `cli` is what it means without any variables, for a `watch -- CMD`
    /// that has to run its command whatever else is wrong.
    Variable {
        /// The name of the variable.
        variable: String,
        /// Why it was refused, in one line.
        why: String,
        /// The command line alone.
        cli: Box<Cli>,
    },
}

/// Parses a command line. `variable` gives the value of an environment variable, `None` for one that is not set.
pub fn parse<I, T>(arguments: I, variable: impl Fn(&str) -> Option<OsString>) -> Result<Cli, ParseError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    // First without variables, so that whatever fails then is known to come from one of them.
    let matches = Cli::command().try_get_matches_from(&arguments).map_err(ParseError::CommandLine)?;
    let typed = read(matches.clone()).map_err(ParseError::CommandLine)?;
    let refused = |variable: String, why: String| ParseError::Variable { variable, why, cli: Box::new(typed.clone()) };

    let mut command = Cli::command();
    let names = typed_commands(&matches);
    let Some(subcommand) = names.iter().try_fold(&mut command, |command, name| command.find_subcommand_mut(name))
    else {
        return Ok(typed);
    };
    if names.is_empty() {
        return Ok(typed);
    }
    let mut set: Vec<(clap::Id, String)> = Vec::new();
    let flags: Vec<Arg> = subcommand.get_arguments().cloned().collect();
    for flag in &flags {
        let Some(name) = variable_name(flag) else { continue };
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
        let value = value_for(flag, value).map_err(|why| refused(name.clone(), why))?;
        *subcommand = std::mem::take(subcommand).mut_arg(flag.get_id(), |flag| flag.default_value(value));
        set.push((flag.get_id().clone(), name));
    }
    let with_variables = command.try_get_matches_from(&arguments).and_then(|matches| {
        let from_variable =
            |id: &clap::Id| innermost(&matches).value_source(id.as_str()) == Some(ValueSource::DefaultValue);
        let variables = set.into_iter().filter(|(id, _)| from_variable(id)).map(|(_, name)| name).collect();
        Ok(Cli { variables, ..read(matches)? })
    });
    with_variables.map_err(|error| {
        let culprit = flags.iter().find(|flag| is_about(&error, flag)).and_then(variable_name);
        refused(culprit.unwrap_or_else(|| "WANDB_BRIDGE_…".to_owned()), first_line(&error))
    })
}

/// The commands that were typed, from the outside in: `artifact`, `put`.
fn typed_commands(matches: &clap::ArgMatches) -> Vec<String> {
    let mut names = Vec::new();
    let mut matches = matches;
    while let Some((name, inner)) = matches.subcommand() {
        names.push(name.to_owned());
        matches = inner;
    }
    names
}

/// What was typed for the innermost command.
fn innermost(matches: &clap::ArgMatches) -> &clap::ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

fn read(mut matches: clap::ArgMatches) -> Result<Cli, clap::Error> {
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Cli::command()))
}

/// The variable behind a flag. Paths have none, and neither has `--help`.
fn variable_name(flag: &Arg) -> Option<String> {
    let asks_for_text =
        matches!(flag.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version);
    let long = flag.get_long().filter(|_| !asks_for_text)?;
    Some(flag_variable(long))
}

/// `--until-idle` or `until-idle` → `WANDB_BRIDGE_UNTIL_IDLE`
pub(crate) fn flag_variable(long: &str) -> String {
    format!("WANDB_BRIDGE_{}", long.trim_start_matches('-').to_ascii_uppercase().replace('-', "_"))
}

/// Switches take the words that the official client takes; everything else is left to the flag's own parser.
fn value_for(flag: &Arg, value: OsString) -> Result<OsString, String> {
    if !matches!(flag.get_action(), ArgAction::SetTrue) {
        return Ok(value);
    }
    match value.to_str().and_then(boolean) {
        Some(true) => Ok("true".into()),
        Some(false) => Ok("false".into()),
        None => Err(format!("`{}` is neither `true` nor `false`", value.display())),
    }
}

/// The words that the official client takes for yes and no.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn is_about(error: &clap::Error, flag: &Arg) -> bool {
    let Some(long) = flag.get_long() else { return false };
    let names_it = |text: &str| text.split([' ', '=']).next().and_then(|name| name.strip_prefix("--")) == Some(long);
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => names_it(text),
        Some(ContextValue::Strings(texts)) => texts.iter().any(|text| names_it(text)),
        _ => false,
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::time::Duration;

    use super::super::{Command, Layout, Mode};
    use super::*;

    fn parse_line(line: &str, variables: &[(&str, &str)]) -> Result<Cli, ParseError> {
        let arguments = std::iter::once("wandb-bridge").chain(line.split_whitespace());
        parse(arguments, |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn check_refused(line: &str, words: &[&str]) {
        match parse_line(line, &[]) {
            Err(ParseError::CommandLine(error)) => {
                assert_eq!(error.exit_code(), 2, "{line}");
                let text = error.to_string();
                assert!(words.iter().all(|word| text.contains(word)), "{line}: {text}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_malformed_axis_names_flag_value_and_form() {
        check_refused("import logs --axis epoch", &["--axis", "'epoch'", "GLOB=NAME"]);
        check_refused("import logs --axis [=epoch", &["--axis", "'[=epoch'", "GLOB=NAME", "not a glob"]);
    }

    #[test]
    fn malformed_filters_name_flag_value_and_form() {
        check_refused("import logs --summary loss", &["--summary", "'loss'", "GLOB=WHAT"]);
        check_refused("import logs --summary loss=avg", &["--summary", "`avg`", "`mean`"]);
        check_refused("watch logs --tags-include [", &["--tags-include", "not a glob"]);
        check_refused("inspect logs --tags-exclude {a", &["--tags-exclude", "not a glob"]);
        check_refused("import logs --kinds scalars,pictures", &["--kinds", "`pictures`", "`images`", "`plugins`"]);
        check_refused("import logs --since yesterday", &["--since", "`yesterday`", "2d"]);
        check_refused("import logs --restarts drop", &["--restarts", "keep", "purge"]);
    }

    #[test]
    fn filters_have_variables_too() {
        let variables = [
            ("WANDB_BRIDGE_KINDS", "text,scalars"),
            ("WANDB_BRIDGE_TAGS_INCLUDE", "{a,b}*"),
            ("WANDB_BRIDGE_TAGS_EXCLUDE", "a/*"),
            ("WANDB_BRIDGE_SUMMARY", "a*=min,max"),
            ("WANDB_BRIDGE_SINCE", "2 days"),
            ("WANDB_BRIDGE_UNTIL", "2026-07-14"),
            ("WANDB_BRIDGE_RESTARTS", "purge"),
        ];
        for command in ["import", "watch", "inspect"] {
            let cli = parse_line(&format!("{command} logs"), &variables).unwrap();
            let data = cli.command.data().unwrap();
            assert_eq!((data.kinds.len(), data.summaries.len(), data.restarts), (2, 1, super::super::Restarts::Purge));
            assert_eq!((data.tags_include[0].as_str(), data.tags_exclude[0].as_str()), ("{a,b}*", "a/*"));
            assert_eq!(data.since.as_ref().map(ToString::to_string).as_deref(), Some("2 days"));
            assert!(data.until.is_some());
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        check_refused("import", &["PATH"]);
        check_refused("watch", &["PATH"]);
        check_refused("import logs --mode sometimes", &["--mode", "online", "offline", "disabled"]);
        check_refused("watch logs --poll 0s", &["--poll", "longer than zero"]);
        check_refused("watch logs --drain soon", &["--drain", "25s"]);
        check_refused("import logs --transfers 0", &["--transfers"]);
        check_refused("import logs -q -v", &["--quiet"]);
        check_refused("import logs --api-key x", &["--api-key"]);
    }

    #[test]
    fn tags_are_separated_by_commas_and_repeated() {
        let cli = parse_line("import logs --tags a,b --tags c --axis val/*=epoch --axis x=y", &[]).unwrap();
        let Command::Import(import) = cli.command else { panic!() };
        assert_eq!(import.runs.tags, ["a", "b", "c"]);
        assert_eq!(import.data.axes.len(), 2);
        assert_eq!(import.runs.layout, Layout::Auto);
    }

    #[test]
    fn what_follows_two_dashes_is_the_command() {
        let watch = |line: &str| match parse_line(line, &[]).unwrap().command {
            Command::Watch(watch) => watch,
            other => panic!("{other:?}"),
        };
        let both = watch("watch logs more --new-only -- python train.py --poll 3");
        assert_eq!(both.paths, [std::path::Path::new("logs"), std::path::Path::new("more")]);
        assert_eq!(both.command, ["python", "train.py", "--poll", "3"]);
        assert_eq!(
            (both.poll, both.stale_after, both.drain),
            (None, Duration::from_secs(3600), Duration::from_secs(25))
        );
        assert_eq!(watch("watch -- make").paths, [std::path::Path::new(".")]);
    }

    #[test]
    fn every_flag_has_a_variable_and_a_typed_flag_wins() {
        let variables = [
            ("WANDB_BRIDGE_UNTIL_IDLE", "5m"),
            ("WANDB_BRIDGE_STALE_AFTER", "2h"),
            ("WANDB_BRIDGE_JSON", "yes"),
            ("WANDB_BRIDGE_NEW_ONLY", "off"),
            ("WANDB_BRIDGE_TAGS", "a,b"),
            ("WANDB_BRIDGE_MODE", "offline"),
            ("WANDB_BRIDGE_VERBOSE", "2"),
            ("WANDB_BRIDGE_PROJECT", ""),
        ];
        let cli = parse_line("watch logs --stale-after 3h", &variables).unwrap();
        let Command::Watch(watch) = &cli.command else { panic!() };
        assert_eq!(watch.until_idle, Some(Duration::from_secs(300)));
        assert_eq!(watch.stale_after, Duration::from_secs(10_800));
        assert_eq!((watch.output.json, watch.new_only, watch.output.verbose), (true, false, 2));
        assert_eq!(watch.runs.tags, ["a", "b"]);
        assert_eq!(watch.target.mode, Some(Mode::Offline));
        assert_eq!(watch.target.project, None);
        assert!(!cli.variables.contains(&"WANDB_BRIDGE_STALE_AFTER".to_owned()));
        assert!(cli.variables.contains(&"WANDB_BRIDGE_UNTIL_IDLE".to_owned()));
    }

    #[test]
    fn variables_of_other_commands_do_not_matter() {
        assert!(
            parse_line("import logs", &[("WANDB_BRIDGE_NEW_ONLY", "maybe"), ("WANDB_BRIDGE_POLL", "soon")]).is_ok()
        );
        assert!(parse_line("completions bash", &[("WANDB_BRIDGE_JSON", "maybe")]).is_ok());
    }

    #[test]
    fn a_wrong_variable_is_told_from_a_wrong_command_line() {
        for (variable, value) in [
            ("WANDB_BRIDGE_POLL", "soon"),
            ("WANDB_BRIDGE_JSON", "maybe"),
            ("WANDB_BRIDGE_AXIS", "epoch"),
            ("WANDB_BRIDGE_MODE", "sometimes"),
        ] {
            match parse_line("watch logs -- make", &[(variable, value)]) {
                Err(ParseError::Variable { variable: named, why, cli }) => {
                    assert_eq!(named, variable);
                    assert!(why.contains(value), "{why}");
                    assert!(matches!(cli.command, Command::Watch(watch) if watch.command == ["make"]));
                }
                other => panic!("{variable}: {other:?}"),
            }
        }
    }
}

//! netrc: where `wandb login` keeps keys.
//!
//! The machine is the base URL's host with its port, as it is written there. `default` entries apply. Nothing of the
//! file's content is ever shown, not even the word at which parsing stopped: it may be half a password.

use std::io;
use std::path::PathBuf;

use netrc::Netrc;

use super::environment::Environment;
use super::files::read_text;
use super::value::{Setting, Source};

/// Finds the key for a machine. What is wrong with the file is a warning and counts as no key.
pub(super) fn find_key(
    environment: &Environment,
    machine: &str,
    warnings: &mut Vec<String>,
) -> Option<Setting<String>> {
    let path = place(environment)?;
    let shown = environment.show(&path);
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            warnings.push(format!("`{shown}` cannot be read: {error}"));
            return None;
        }
    };
    match password(&text, machine) {
        Ok(Some(key)) if key.is_empty() => {
            warnings.push(format!("`{shown}` has an entry for `{machine}` without a password"));
            None
        }
        Ok(key) => key.map(|value| Setting { value, source: Source::File(shown) }),
        Err(NotNetrc) => {
            warnings.push(format!("`{shown}` is ignored: it is not a well-formed netrc file"));
            None
        }
    }
}

/// The file holds something that netrc does not have.
#[derive(Debug, PartialEq, Eq)]
struct NotNetrc;

fn password(text: &str, machine: &str) -> Result<Option<String>, NotNetrc> {
    // A line that is only a comment may hold any words; the parser would stumble over them.
    let text: String =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    let mut netrc: Netrc = text.parse().map_err(|_| NotNetrc)?;
    let entry = netrc.hosts.remove(machine).or_else(|| netrc.hosts.remove("default"));
    Ok(entry.map(|entry| entry.password))
}

/// `$NETRC`, else the first of `~/.netrc` and `~/_netrc` that is there.
fn place(environment: &Environment) -> Option<PathBuf> {
    match environment.get("NETRC") {
        Some(path) => Some(environment.at(&environment.expand_home(path.as_ref()))),
        None => {
            [".netrc", "_netrc"].into_iter().filter_map(|name| environment.in_home(name)).find(|path| path.exists())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, machine: &str, expected: Option<&str>) {
        assert_eq!(password(text, machine), Ok(expected.map(str::to_owned)), "{text}");
    }

    #[test]
    fn entries_are_found_by_host_and_port() {
        let text =
            "machine api.wandb.ai\n  login user\n  password one\nmachine localhost:8080 login user password two\n";
        check(text, "api.wandb.ai", Some("one"));
        check(text, "localhost:8080", Some("two"));
        check(text, "localhost", None);
        check("", "localhost", None);
    }

    #[test]
    fn default_applies_to_the_rest() {
        let text = "machine a login user password one\ndefault login user password two\n";
        check(text, "a", Some("one"));
        check(text, "b", Some("two"));
    }

    #[test]
    fn real_files_are_untidy() {
        check(
            "# machine a password zero\n#machine b password zero\n\nmachine a password one\n\n  # the old key\n",
            "a",
            Some("one"),
        );
        check("machine a\r\n\tlogin user\r\n\tpassword one\r\n", "a", Some("one"));
        check("machine \"a\" login user password 'x' account y", "a", Some("'x'"));
        check("machine a password \"one\\\"\" # mine", "a", Some("one\""));
        check("macdef init\ncd /pub\n# in it\nget x\n\nmachine a password one", "a", Some("one"));
        check("machine a login user", "a", Some(""));
        check("machine b password two machine a password one", "a", Some("one"));
    }

    #[test]
    fn what_is_not_netrc_is_refused() {
        assert_eq!(password("machine a secret", "a"), Err(NotNetrc));
        assert_eq!(password("password one", "a"), Err(NotNetrc));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "(machine|default|macdef|password|login|#|\"|\\\\|a|\n| ){0,30}") {
            let _ = password(&text, "a");
        }
    }
}

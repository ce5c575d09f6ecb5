//! How numbers, sizes, times, paths and commands are written for people. Pure functions.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// `1 284 003`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `1 run`, `1 284 runs`; `noun` takes an `s`.
pub fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// `` `a`, `b` ``; of many paths, as a shell makes of `*`, the first ones.
pub fn named(paths: &[PathBuf]) -> String {
    const MOST: usize = 5;
    let mut names: Vec<String> = paths.iter().take(MOST).map(|path| format!("`{}`", path.display())).collect();
    if let more @ 1.. = paths.len().saturating_sub(MOST) {
        names.push(format!("and {} more", grouped(more as u64)));
    }
    names.join(", ")
}

/// `812 B`, `1.4 MB`, powers of 1000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        // As it will be printed: 999.96 kB is 1.0 MB.
        if value < 999.95 || unit == "TB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{bytes} B")
}

/// `0.4 s`, `12.3 s`, `2 min 5 s`, `1 h 2 min`.
pub fn elapsed(duration: Duration) -> String {
    let tenths = duration.as_millis().div_ceil(50) / 2;
    if tenths < 600 {
        return format!("{}.{} s", tenths / 10, tenths % 10);
    }
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// Joins words of a command so that a shell reads the same words.
pub fn command_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(shell_word).collect::<Vec<_>>().join(" ")
}

fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// A text that stays on its line: what follows a line break in a name must not look like something that we say.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.contains('\n') { Cow::Owned(text.replace('\n', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A text in which nothing moves the cursor or changes colors: names in logs are written by others.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_harmful) { Cow::Owned(text.replace(is_harmful, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The same JSON, in which nothing does so either, although nothing is lost: such characters stand in strings alone,
/// where they can be escaped.
pub(super) fn escaped(json: &str) -> Cow<'_, str> {
    if !json.contains(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if is_harmful(c) {
            // Writing to a string cannot fail. All of these are below U+10000.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (2110, "2 110"), (1_284_003, "1 284 003")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18 446 744 073 709 551 615");
        assert_eq!((counted(1, "run"), counted(0, "run")), ("1 run".to_owned(), "0 runs".to_owned()));
    }

    #[test]
    fn the_first_of_many_paths_are_named() {
        let paths = |count: usize| (0..count).map(|index| PathBuf::from(format!("p{index}"))).collect::<Vec<_>>();
        assert_eq!(named(&paths(2)), "`p0`, `p1`");
        assert_eq!(named(&paths(7)), "`p0`, `p1`, `p2`, `p3`, `p4`, and 2 more");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (1_400_000, "1.4 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744.1 TB");
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (440, "0.4 s"),
            (12_345, "12.3 s"),
            (59_999, "0 min 59 s"),
            (125_000, "2 min 5 s"),
            (3_725_000, "1 h 2 min"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn commands_can_be_pasted() {
        assert_eq!(command_line(["wandb-bridge", "sync", "wandb/a"]), "wandb-bridge sync wandb/a");
        assert_eq!(command_line(["a b", "it's", "", "$x", "*"]), r"'a b' 'it'\''s' '' '$x' '*'");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(printable("plain é\n"), "plain é\n");
        assert_eq!(escaped("{\"a\u{9b}\":\"\u{202e}é\"}\n"), "{\"a\\u009b\":\"\\u202eé\"}\n");
        assert_eq!(printable("a\x1b[2Jb\rc\u{202e}"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}");
    }
}

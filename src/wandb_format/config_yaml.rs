//! A run's config as the text of its `config.yaml`.
//!
//! Promises that readers of YAML 1.1 (PyYAML) and of YAML 1.2 read back the same values: nothing is written plain that
//! either could take for something else. Pure.

use crate::model::json::write_string;
use crate::model::{Json, Number};

/// The text of `config.yaml`: each top-level key of the config holds a map with the one key `value`.
pub fn config_yaml(config: &Json) -> String {
    let mut out = String::new();
    match config.as_object() {
        Some(members) if !members.is_empty() => {
            for (key, value) in members {
                write_key(key, 0, &mut out);
                new_line(INDENT, &mut out);
                out.push_str("value:");
                write_member(value, INDENT, &mut out);
                out.push('\n');
            }
        }
        _ => out.push_str("{}\n"),
    }
    out
}

const INDENT: usize = 4;

/// Readers give up on a simple key that is longer than 1024 characters.
const LONGEST_SIMPLE_KEY: usize = 1000;

/// Writes a value that stands alone behind `- `, where `indent` is the column behind that.
fn write_value(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(members) if !members.is_empty() => {
            for (index, (key, member)) in members.iter().enumerate() {
                if index > 0 {
                    new_line(indent, out);
                }
                write_key(key, indent, out);
                write_member(member, indent, out);
            }
        }
        Json::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    new_line(indent, out);
                }
                out.push_str("- ");
                write_value(item, indent + 2, out);
            }
        }
        scalar => write_scalar(scalar, out),
    }
}

/// Writes a value behind its key, which stands at column `indent`.
fn write_member(value: &Json, indent: usize, out: &mut String) {
    let is_block = match value {
        Json::Object(members) => !members.is_empty(),
        Json::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        new_line(indent + INDENT, out);
        write_value(value, indent + INDENT, out);
    } else {
        out.push(' ');
        write_scalar(value, out);
    }
}

fn write_key(key: &str, indent: usize, out: &mut String) {
    let start = out.len();
    write_text(key, out);
    if out.len() - start > LONGEST_SIMPLE_KEY {
        out.insert_str(start, "? ");
        new_line(indent, out);
    }
    out.push(':');
}

fn new_line(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_scalar(value: &Json, out: &mut String) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Number(number) => write_number(*number, out),
        Json::String(text) => write_text(text, out),
        // Only the empty ones come here.
        Json::Array(_) => out.push_str("[]"),
        Json::Object(_) => out.push_str("{}"),
    }
}

/// YAML 1.1 takes a number for a float only with a point in it, and with a sign in its exponent.
fn write_number(number: Number, out: &mut String) {
    let mut text = Vec::new();
    number.write_json(&mut text);
    let text = String::from_utf8_lossy(&text);
    match (text.as_ref(), text.split_once('e')) {
        ("NaN", _) => out.push_str(".nan"),
        ("Infinity", _) => out.push_str(".inf"),
        ("-Infinity", _) => out.push_str("-.inf"),
        (plain, None) => out.push_str(plain),
        (_, Some((mantissa, exponent))) => {
            out.push_str(mantissa);
            out.push_str(if mantissa.contains('.') { "e" } else { ".0e" });
            out.push_str(if exponent.starts_with(['-', '+']) { "" } else { "+" });
            out.push_str(exponent);
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    let mut quoted = Vec::new();
    write_string(text, &mut quoted);
    for character in String::from_utf8_lossy(&quoted).chars() {
        match character {
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}' => {
                out.push(character);
            }
            '\u{10000}'.. => out.push(character),
            // Readers refuse these, or take them for line breaks.
            _ => out.push_str(&format!("\\u{:04x}", u32::from(character))),
        }
    }
}

/// Whether no reader takes the text, written without quotes, for anything else.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn check(json: &str, expected: &str) {
        assert_eq!(config_yaml(&Json::parse(json).unwrap()), expected);
    }

    #[test]
    fn every_key_holds_its_value() {
        check(r#"{"lr":0.1,"a":"b"}"#, "a:\n    value: b\nlr:\n    value: 0.1\n");
        check("{}", "{}\n");
    }

    #[test]
    fn maps_and_lists_are_blocks() {
        check(
            r#"{"_wandb":{"m":[{"1":"loss","6":[3],"7":[]},[1,[2]],{}],"t":{"3":[2,4]}}}"#,
            "_wandb:\n    value:\n        m:\n            - \"1\": loss\n              \"6\":\n                  - 3\n              \
             \"7\": []\n            - - 1\n              - - 2\n            - {}\n        t:\n            \"3\":\n                - 2\n                - 4\n",
        );
    }

    #[test]
    fn floats_are_floats_to_every_reader() {
        check(r#"{"a":NaN}"#, "a:\n    value: .nan\n");
        check(r#"{"a":-Infinity}"#, "a:\n    value: -.inf\n");
        check(r#"{"a":1e-20}"#, "a:\n    value: 1.0e-20\n");
        check(r#"{"a":1.5e300}"#, "a:\n    value: 1.5e+300\n");
    }

    #[test]
    fn texts_stay_texts() {
        for (text, expected) in [
            ("plain-text_1.x/y", "plain-text_1.x/y"),
            ("1", "\"1\""),
            ("", "\"\""),
            ("Yes", "\"Yes\""),
            ("null", "\"null\""),
            ("~", "\"~\""),
            (".nan", "\".nan\""),
            ("2020-01-01", "\"2020-01-01\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("ä", "\"ä\""),
            ("line\nbreak", "\"line\\nbreak\""),
            ("\u{7f}\u{85}\u{2028}\u{feff}\0", "\"\\u007f\\u0085\\u2028\\ufeff\\u0000\""),
        ] {
            let mut out = String::new();
            write_text(text, &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_very_long_key_is_marked_as_one() {
        let key = "k".repeat(1001);
        check(&format!("{{\"{key}\":1}}"), &format!("? {key}\n:\n    value: 1\n"));
    }
}

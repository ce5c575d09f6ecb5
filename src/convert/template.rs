//! Templates in which the place of an experiment can be spelled: `{path}`, `{dir}`, `{parent}`, `{root}`, `{1}`….

use serde::{Deserialize, Serialize};

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Path,
    Dir,
    Parent,
    Root,
    /// The n-th part of the path, from 1.
    Nth(usize),
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that means nothing.
    #[error(
        "`{template}` holds `{{{placeholder}}}`, which is none of `{{path}}`, `{{dir}}`, `{{parent}}`, `{{root}}`, `{{1}}`, `{{2}}`… (write `{{{{` for a brace)"
    )]
    Placeholder {
        /// The text.
        template: String,
        /// What stands between the braces.
        placeholder: String,
    },
    /// A brace that opens or closes no placeholder.
    #[error("`{template}` holds a single `{brace}` (write `{brace}{brace}` for a brace)")]
    Brace {
        /// The text.
        template: String,
        /// The brace.
        brace: char,
    },
}

/// Where an experiment lies.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The real name of the root.
    pub root: &'a str,
    /// Path parts below the root; none when the root is the experiment.
    pub path: &'a [String],
}

impl Place<'_> {
    /// The path below the root, or the root's own name when it is the experiment.
    pub fn name(&self) -> String {
        if self.path.is_empty() { self.root.to_owned() } else { self.path.join("/") }
    }

    /// The path of the parent below the root; empty when there is none.
    pub fn parent(&self) -> String {
        self.path.split_last().map(|(_, parent)| parent.join("/")).unwrap_or_default()
    }
}

impl std::str::FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            let doubled = from.starts_with("{{") || from.starts_with("}}");
            let end =
                if doubled { Some(2) } else { from.find('}').map(|end| end + 1).filter(|_| from.starts_with('{')) };
            let token = from.get(..end.unwrap_or(1)).unwrap_or(from);
            rest = from.get(token.len()..).unwrap_or_default();
            if doubled {
                plain.push_str(token.get(1..).unwrap_or_default());
                continue;
            }
            if end.is_none() {
                let brace = if from.starts_with('{') { '{' } else { '}' };
                return Err(TemplateError::Brace { template: text.to_owned(), brace });
            }
            let name = token.trim_matches(['{', '}']);
            let part = match name {
                "path" => Part::Path,
                "dir" => Part::Dir,
                "parent" => Part::Parent,
                "root" => Part::Root,
                _ => match name.parse() {
                    Ok(number) if number > 0 => Part::Nth(number),
                    _ => {
                        let (template, placeholder) = (text.to_owned(), name.to_owned());
                        return Err(TemplateError::Placeholder { template, placeholder });
                    }
                },
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl Template {
    /// The text for one experiment. A path part that is not there is empty.
    pub fn expand(&self, place: Place<'_>) -> String {
        self.expand_spelled(place, str::to_owned)
    }

    /// The same, with what placeholders stand for spelled in another way. What was typed stays as it is.
    pub fn expand_spelled(&self, place: Place<'_>, spell: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Path => out.push_str(&spell(&place.name())),
                Part::Dir => out.push_str(&spell(place.path.last().map_or(place.root, String::as_str))),
                Part::Parent => out.push_str(&spell(&place.parent())),
                Part::Root => out.push_str(&spell(place.root)),
                Part::Nth(number) => out.push_str(&spell(place.path.get(number - 1).map_or("", String::as_str))),
            }
        }
        out
    }

    /// The text, when it is the same for all experiments.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The template of a text in which braces mean nothing.
    pub fn escape(text: &str) -> String {
        text.replace('{', "{{").replace('}', "}}")
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, path: &[&str], expected: &str) {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        let template: Template = template.parse().expect("a template");
        assert_eq!(template.expand(Place { root: "logs", path: &path }), expected);
    }

    #[test]
    fn placeholders_are_filled_in() {
        check("{root}: {path} in {parent} as {dir}", &["a", "b", "c"], "logs: a/b/c in a/b as c");
        check("{1}-{3}-{4}.", &["a", "b", "c"], "a-c-.");
        check("{{{path}}}", &["a"], "{a}");
        check("{path}|{dir}|{parent}", &[], "logs|logs|");
        check("plain", &["a"], "plain");
        check("", &["a"], "");
    }

    #[test]
    fn texts_without_placeholders_are_literal() {
        for (text, literal) in [("a{{b}}", Some("a{b}")), ("", Some("")), ("{dir}", None), ("a{1}", None)] {
            let template: Template = text.parse().expect("a template");
            assert_eq!(template.literal(), literal);
        }
    }

    #[test]
    fn unknown_placeholders_are_refused() {
        for bad in ["{}", "{x}", "{path", "path}", "{0}", "{-1}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
        for (bad, brace) in [("x{", '{'), ("{path", '{'), ("x}", '}'), ("{path}}", '}')] {
            let error = TemplateError::Brace { template: bad.to_owned(), brace };
            assert_eq!(bad.parse::<Template>(), Err(error));
        }
    }
}

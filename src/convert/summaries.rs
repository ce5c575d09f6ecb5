//! What the summary holds of a metric: its last value, or what `--summary` asks for, as the official client computes it.
//!
//! Pure. A summary can be gone on with from what is saved of it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::convert::globs::{BadGlob, MetricGlob};
use crate::model::{Json, MetricSummary, Number};

/// A rule about the summary of metrics: `GLOB=min,max,…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SummaryRule {
    glob: MetricGlob,
    summary: MetricSummary,
}

/// Why a text is not a summary rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SummaryRuleError {
    /// There is no `=`, or nothing on one side of it.
    #[error("`{0}` is not of the form GLOB=WHAT, such as `val/loss=min,last`")]
    Form(String),
    /// The part before the `=` is not a glob.
    #[error(transparent)]
    Glob(#[from] BadGlob),
    /// A word behind the `=` that means nothing.
    #[error("`{0}` is none of `min`, `max`, `mean`, `last`, `first` and `none`")]
    What(String),
    /// A word that official clients know and no longer heed.
    #[error("`{0}` has no effect any more in W&B: say `min`, `max` or `last`")]
    Obsolete(String),
}

impl SummaryRule {
    /// Whether it says anything about a metric.
    pub fn is_match(&self, key: &str) -> bool {
        self.glob.is_match(key)
    }
}

impl FromStr for SummaryRule {
    type Err = SummaryRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (glob, what) = text
            .rsplit_once('=')
            .filter(|(glob, what)| !glob.is_empty() && !what.is_empty())
            .ok_or_else(|| SummaryRuleError::Form(text.to_owned()))?;
        let mut summary = MetricSummary::default();
        for word in what.split(',') {
            match word.trim() {
                "min" => summary.min = true,
                "max" => summary.max = true,
                "mean" => summary.mean = true,
                "last" => summary.last = true,
                "first" => summary.first = true,
                "none" => summary.none = true,
                "best" | "copy" => return Err(SummaryRuleError::Obsolete(word.trim().to_owned())),
                other => return Err(SummaryRuleError::What(other.to_owned())),
            }
        }
        Ok(Self { glob: glob.parse()?, summary })
    }
}

impl fmt::Display for SummaryRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MetricSummary { min, max, mean, last, first, none } = self.summary;
        let words = [(min, "min"), (max, "max"), (mean, "mean"), (last, "last"), (first, "first"), (none, "none")];
        let words: Vec<&str> = words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
        write!(formatter, "{}={}", self.glob.as_str(), words.join(","))
    }
}

impl TryFrom<String> for SummaryRule {
    type Error = SummaryRuleError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SummaryRule> for String {
    fn from(rule: SummaryRule) -> Self {
        rule.to_string()
    }
}

/// What the rules want of a metric: the first that matches says it. `None` where none does.
pub fn wanted(rules: &[SummaryRule], key: &str) -> Option<MetricSummary> {
    rules.iter().find(|rule| rule.is_match(key)).map(|rule| rule.summary)
}

/// The numbers of a metric so far, as far as its summary may need them.
///
/// Computed as the official client does from the history that it is given: with doubles, in which a single has the value
/// of its shortest text. A NaN makes minimum, maximum and mean NaN for good.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
pub struct Running {
    first: Option<Number>,
    last: Option<Number>,
    min: f64,
    max: f64,
    total: f64,
    count: u64,
}

impl Running {
    /// Adds the next number.
    pub fn add(&mut self, number: Number) {
        let value = double(number);
        if self.count == 0 {
            (self.min, self.max) = (value, value);
        } else {
            (self.min, self.max) = (lower(self.min, value), -lower(-self.max, -value));
        }
        self.total += value;
        self.count += 1;
        self.first = self.first.or(Some(number));
        self.last = Some(number);
    }

    /// The value that the summary holds; `None` where it is to hold none.
    pub fn value(&self, wanted: Option<MetricSummary>) -> Option<Json> {
        let last = Json::Number(self.last?);
        let Some(wanted) = wanted else { return Some(last) };
        if wanted.none {
            return None;
        }
        let double = |value: f64| Some(Json::Number(Number::F64(value)));
        let mean = || double(self.total / self.count as f64);
        let members = [
            ("min", wanted.min.then(|| double(self.min))),
            ("max", wanted.max.then(|| double(self.max))),
            ("mean", wanted.mean.then(mean)),
            ("last", wanted.last.then(|| Some(last.clone()))),
            ("first", wanted.first.then(|| self.first.map(Json::Number))),
        ];
        let members: BTreeMap<String, Json> =
            members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.flatten()?))).collect();
        Some(if members.is_empty() { last } else { Json::Object(members) })
    }
}

/// The smaller of two; NaN when one is; negative zero is smaller than zero.
fn lower(one: f64, other: f64) -> f64 {
    if one.is_nan() || other.is_nan() {
        f64::NAN
    } else if other < one || (other == one && other.is_sign_negative()) {
        other
    } else {
        one
    }
}

/// The number that a reader of its text has.
fn double(number: Number) -> f64 {
    match number {
        Number::F32(value) if value.is_finite() && value.fract() != 0.0 => {
            zmij::Buffer::new().format_finite(value).parse().unwrap_or(f64::from(value))
        }
        Number::F32(value) => f64::from(value),
        Number::F64(value) => value,
        Number::I64(value) => value as f64,
        Number::U64(value) => value as f64,
    }
}

/// As text: JSON has no NaN, and a number that is not what it was would show.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    first: String,
    last: String,
    min: String,
    max: String,
    total: String,
    count: u64,
}

impl From<Running> for Saved {
    fn from(running: Running) -> Self {
        let number = |number: Option<Number>| number.map(|number| Json::Number(number).to_string()).unwrap_or_default();
        let double = |value: f64| Json::Number(Number::F64(value)).to_string();
        Self {
            first: number(running.first),
            last: number(running.last),
            min: double(running.min),
            max: double(running.max),
            total: double(running.total),
            count: running.count,
        }
    }
}

impl TryFrom<Saved> for Running {
    type Error = String;

    fn try_from(saved: Saved) -> Result<Self, String> {
        let number = |text: &str| match Json::parse(text) {
            Ok(Json::Number(number)) => Ok(number),
            _ => Err(format!("`{text}` is no number")),
        };
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        let double = |text: &str| number(text).map(double);
        Ok(Self {
            first: optional(&saved.first)?,
            last: optional(&saved.last)?,
            min: double(&saved.min)?,
            max: double(&saved.max)?,
            total: double(&saved.total)?,
            count: saved.count,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn rule(text: &str) -> SummaryRule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_checked_when_parsed() {
        for (bad, why) in [
            ("loss", "GLOB=WHAT"),
            ("=min", "GLOB=WHAT"),
            ("loss=", "GLOB=WHAT"),
            ("[=min", "not a glob"),
            ("loss=min,avg", "`avg` is none of `min`"),
            ("loss=min,", "`` is none of"),
            ("loss=best", "`best` has no effect"),
            ("loss=copy", "`copy` has no effect"),
        ] {
            let error = bad.parse::<SummaryRule>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert_eq!(rule("a=b/*=last, min").to_string(), "a=b/*=min,last");
        let rules = [rule("val/*=min"), rule("*=max")];
        assert!(wanted(&rules, "val/loss").is_some_and(|wanted| wanted.min && !wanted.max));
        assert!(wanted(&rules, "loss").is_some_and(|wanted| wanted.max));
        assert_eq!(wanted(&rules[..1], "loss"), None);
    }

    /// Numbers are f32s but for those with a letter behind them: `d` doubles, `i` integers.
    fn check(numbers: &[&str], what: &str, expected: &str) {
        let mut running = Running::default();
        for text in numbers {
            running.add(match text.split_at(text.len() - 1) {
                (number, "d") => Number::F64(number.parse().unwrap()),
                (number, "i") => Number::I64(number.parse().unwrap()),
                _ => Number::F32(text.parse().unwrap()),
            });
            // After every number a new process.
            running = serde_json::from_str(&serde_json::to_string(&running).unwrap()).unwrap();
        }
        let wanted = (!what.is_empty()).then(|| rule(&format!("*={what}")).summary);
        let value = running.value(wanted);
        assert_eq!(value.map_or("nothing".to_owned(), |value| value.to_string()), expected, "{numbers:?} {what}");
    }

    #[test]
    fn summaries_are_those_of_the_official_client() {
        let all = "min,max,mean,last,first";
        check(&["0.5", "0.1", "0.3"], "", "0.3");
        check(&["0.5", "0.1", "0.3"], "min", r#"{"min":0.1}"#);
        check(&["0.5", "0.25", "1"], all, r#"{"first":0.5,"last":1,"max":1,"mean":0.5833333333333334,"min":0.25}"#);
        // The mean of the texts, not of the singles.
        check(&["0.1", "0.2"], "mean", r#"{"mean":0.15000000000000002}"#);
        check(&["1", "nan", "3"], all, r#"{"first":1,"last":3,"max":NaN,"mean":NaN,"min":NaN}"#);
        check(
            &["inf", "1", "-inf"],
            all,
            r#"{"first":Infinity,"last":-Infinity,"max":Infinity,"mean":NaN,"min":-Infinity}"#,
        );
        check(&["0", "-0"], "min,max", r#"{"max":0,"min":-0.0}"#);
        check(&["-0", "0"], "min,max", r#"{"max":0,"min":-0.0}"#);
        check(&["9007199254740993i"], "last,max", r#"{"last":9007199254740993,"max":9007199254740992}"#);
        check(&["0.1d", "3.4028235e+38"], "first,last", r#"{"first":0.1,"last":3.4028235e+38}"#);
        check(&["1", "2"], "none", "nothing");
        check(&["1", "2"], "none,min", "nothing");
        check(&[], all, "nothing");
    }
}

//! One run: what is expected against what was found.

use std::collections::{BTreeMap, HashMap};

use crate::api::ArtifactState;
use crate::model::Json;
use crate::verify::rows::Kept;
use crate::verify::values::{Difference, count, differences};
use crate::verify::{Counts, Expected, ExpectedFile, Found, Verdict, What};

/// How many keys of a row are named.
const NAMED_KEYS: usize = 3;

/// Compares a run that is there.
pub fn compare(expected: &Expected, found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    rows(expected, found, &mut verdict);
    let parsed = |text: &str| Json::parse(text).unwrap_or_default();
    summary(&expected.summary, &parsed(&found.run.summary), &mut verdict);
    config(&expected.config, &unwrapped(parsed(&found.run.config)), &mut verdict);
    verdict.compared.events =
        by_number(What::Events, "lines of system metrics", expected.events, found.run.events_lines, &mut verdict);
    verdict.compared.console =
        by_number(What::Console, "console lines", expected.console, found.run.console_lines, &mut verdict);
    files(expected, found, &mut verdict);
    artifacts(expected, found, &mut verdict);
    if let Some(code) = expected.exit
        && matches!(found.run.state.as_str(), "running" | "pending" | "preempting")
    {
        verdict.add(What::End, format!("exit code {code}"), format!("the run is {} there", found.run.state));
    }
    verdict
}

fn rows(expected: &Expected, found: &Found, verdict: &mut Verdict) {
    let rows = &expected.rows;
    let (here, there) = (expected.all_rows(), found.run.history_lines);
    verdict.compared.rows = Counts { here, there, exact: rows.kept() };
    verdict.compared.last_step = (rows.last_step(), found.run.last_step);
    let mut missing = 0;
    for (page, lines) in rows.pages().iter().zip(&found.rows) {
        missing += page_rows(page, lines, verdict);
    }
    let unexplained = here.saturating_sub(there).saturating_sub(missing);
    if unexplained > 0 {
        let why = format!("{there} of {here} rows are there; these are among those that are only counted");
        verdict.add(What::Rows, format!("{unexplained} rows"), why);
    } else if missing == 0
        && let (Some(last), Some(last_there)) = (rows.last_step(), found.run.last_step)
        && last_there < last
    {
        verdict.add(What::Rows, format!("_step {last}"), format!("the last `_step` there is {last_there}"));
    }
}

/// Compares the rows of one range. Returns how many are missing.
fn page_rows(page: &[&Kept], lines: &[String], verdict: &mut Verdict) -> u64 {
    let mut by_step: HashMap<i64, Vec<Json>> = HashMap::new();
    for row in lines.iter().filter_map(|line| Json::parse(line).ok()) {
        if let Some(step) = row.get("_step").and_then(step) {
            by_step.entry(step).or_default().push(row);
        }
    }
    let mut gap: Option<(i64, i64, u64)> = None;
    let mut missing = 0;
    for row in page {
        let Some(there) = by_step.get(&row.step) else {
            missing += 1;
            let (_, to, count) = gap.get_or_insert((row.step, row.step, 0));
            (*to, *count) = (row.step, *count + 1);
            continue;
        };
        tell_gap(gap.take(), verdict);
        let here = Json::parse(&row.line).unwrap_or_default();
        let best = there.iter().map(|there| differences(&here, there)).min_by_key(Vec::len).unwrap_or_default();
        if !best.is_empty() {
            verdict.add(What::Rows, format!("_step {}", row.step), in_words(&best));
        }
    }
    tell_gap(gap, verdict);
    missing
}

fn tell_gap(gap: Option<(i64, i64, u64)>, verdict: &mut Verdict) {
    match gap {
        Some((from, _, 1)) => verdict.add(What::Rows, format!("_step {from}"), "missing"),
        Some((from, to, count)) => verdict.add(What::Rows, format!("_step {from} to {to}"), format!("{count} missing")),
        None => {}
    }
}

fn in_words(differences: &[Difference]) -> String {
    let named = differences.iter().take(NAMED_KEYS).map(|it| format!("`{}` {}", it.key, it.why));
    let mut text = named.collect::<Vec<_>>().join("; ");
    if differences.len() > NAMED_KEYS {
        text.push_str(&format!("; and {} keys more", differences.len() - NAMED_KEYS));
    }
    text
}

fn step(json: &Json) -> Option<i64> {
    let text = json.to_string();
    // Some servers tell it as a double, which cannot hold every step.
    text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|step| step as i64))
}

fn summary(here: &Json, there: &Json, verdict: &mut Verdict) {
    verdict.compared.summary_keys = count(here);
    for Difference { key, why } in differences(here, there) {
        verdict.add(What::Summary, key, why);
    }
}

/// What people and programs say of the run, and the metrics that it defines. What uploaders say of themselves is theirs.
fn config(here: &Json, there: &Json, verdict: &mut Verdict) {
    let plain = |config: &Json| {
        let members = config.as_object().into_iter().flatten();
        Json::Object(
            members.filter(|(key, _)| *key != "_wandb").map(|(key, value)| (key.clone(), value.clone())).collect(),
        )
    };
    for Difference { key, why } in differences(&plain(here), &plain(there)) {
        verdict.add(What::Config, key, why);
    }
    let (defined, defined_there) = (definitions(here), definitions(there));
    verdict.compared.config_keys = count(&plain(here)) + defined.len() as u64;
    for (name, definition) in defined {
        let why = match defined_there.get(&name) {
            None => "its definition is missing",
            Some(other) if !definition.is_same_value(other) => "it is defined otherwise there",
            Some(_) => continue,
        };
        verdict.add(What::Config, format!("metric {name}"), why);
    }
}

/// The definitions of metrics by name, with the name of the step metric instead of its place in the list.
fn definitions(config: &Json) -> BTreeMap<String, Json> {
    let Some(Json::Array(list)) = config.get("_wandb").and_then(|own| own.get("m")) else { return BTreeMap::new() };
    let name = |metric: &Json| metric.get("1").or_else(|| metric.get("2")).and_then(Json::as_str).map(str::to_owned);
    let by_name = |metric: &Json| {
        let Json::Object(mut members) = metric.clone() else { return None };
        if let Some(place) = members.get("5").and_then(step) {
            let axis = usize::try_from(place - 1).ok().and_then(|place| list.get(place)).and_then(name);
            members.insert("5".to_owned(), Json::from(axis.unwrap_or_default()));
        }
        for sorted in ["6", "7"] {
            if let Some(Json::Array(items)) = members.get_mut(sorted) {
                items.sort_by_key(Json::to_string);
            }
        }
        Some((name(metric)?, Json::Object(members)))
    };
    list.iter().filter_map(by_name).collect()
}

/// The config without its `{"value": …}` shells.
fn unwrapped(config: Json) -> Json {
    let Json::Object(members) = config else { return config };
    let plain = members.into_iter().map(|(key, shell)| (key, shell.get("value").cloned().unwrap_or(shell)));
    Json::Object(plain.collect())
}

fn by_number(what: What, name: &str, here: u64, there: u64, verdict: &mut Verdict) -> Counts {
    if there < here {
        verdict.add(what, format!("{} {name}", here - there), format!("{there} of {here} are there"));
    }
    Counts { here, there, exact: 0 }
}

fn files(expected: &Expected, found: &Found, verdict: &mut Verdict) {
    verdict.compared.files = Counts { here: expected.files.len() as u64, ..Counts::default() };
    for (path, file) in &expected.files {
        let Some(there) = found.files.get(path) else {
            verdict.add(What::File, path.clone(), "missing");
            continue;
        };
        verdict.compared.files.there += 1;
        let ExpectedFile { size, md5, changes, .. } = file;
        if let Some(size) = size.filter(|size| *size != there.size) {
            if !changes {
                verdict.add(What::File, path.clone(), format!("{} bytes there, and {size} here", there.size));
            }
            continue;
        }
        match (md5, &there.md5) {
            (Some(here), Some(there)) if !is_same_digest(here, there) => {
                if !changes {
                    verdict.add(What::File, path.clone(), "its content differs");
                }
            }
            (Some(_), Some(_)) => verdict.compared.files.exact += 1,
            _ => verdict.compared.files_by_size += u64::from(size.is_some()),
        }
    }
}

/// Stores tell digests in base64, or in hex.
fn is_same_digest(base64: &str, told: &str) -> bool {
    use base64::Engine as _;
    let bytes = || base64::prelude::BASE64_STANDARD.decode(base64).unwrap_or_default();
    base64 == told || bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>() == told.to_ascii_lowercase()
}

fn artifacts(expected: &Expected, found: &Found, verdict: &mut Verdict) {
    verdict.compared.artifacts = Counts { here: expected.artifacts.len() as u64, ..Counts::default() };
    for (artifact, there) in expected.artifacts.iter().zip(&found.artifacts) {
        let name = match artifact.name.as_str() {
            "" => artifact.id.clone().unwrap_or_default(),
            name => name.to_owned(),
        };
        match there.as_ref().map(|version| &version.state) {
            Some(ArtifactState::Committed) => {
                verdict.compared.artifacts.there += 1;
                verdict.compared.artifacts.exact += u64::from(!artifact.digest.is_empty());
            }
            Some(state) => verdict.add(What::Artifact, name, format!("it is {state:?} there, and not committed")),
            None => verdict.add(What::Artifact, name, "missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::api::{RunFacts, RunFile, VersionFacts};
    use crate::verify::{ExpectedArtifact, Rows};

    fn line(step: i64) -> String {
        format!(r#"{{"_step":{step},"loss":{}}}"#, step * 10)
    }

    /// A run of so many rows with one of everything, and a server that has all of it.
    fn both(count: i64) -> (Expected, Found) {
        let mut rows = Rows::default();
        (0..count).for_each(|step| rows.push(Some(step), line(step).as_bytes()));
        let json = |text: &str| Json::parse(text).unwrap();
        let file = ExpectedFile { size: Some(1), md5: Some("ndTkYSaMgDT1yFZOFVxnpg==".into()), ..Default::default() };
        let artifact =
            ExpectedArtifact { kind: "t".into(), name: "a".into(), digest: "d".into(), ..Default::default() };
        let ranges = rows.ranges();
        let expected = Expected {
            rows,
            summary: json(r#"{"loss":3,"deep":{"er":1}}"#),
            config: json(r#"{"lr":0.1,"_wandb":{"m":[{"1":"loss","5":2,"6":[3,1]},{"1":"epoch"}],"t":{"1":[5]}}}"#),
            events: 2,
            console: 3,
            files: [("f".to_owned(), file)].into(),
            artifacts: vec![artifact],
            exit: Some(0),
            ..Expected::default()
        };
        let found = Found {
            run: RunFacts {
                state: "finished".into(),
                history_lines: count as u64,
                last_step: Some(count - 1),
                events_lines: 2,
                console_lines: 3,
                summary: r#"{"loss":3.0,"deep.er":1,"more":1}"#.into(),
                config: r#"{"lr":{"value":0.1},"_wandb":{"value":{"m":[{"1":"epoch"},{"1":"loss","5":1,"6":[1,3]}]}}}"#
                    .into(),
                ..RunFacts::default()
            },
            rows: ranges.iter().map(|range| (range.from..range.to).map(line).collect()).collect(),
            files: [("f".to_owned(), RunFile { path: "f".into(), size: 1, md5: None })].into(),
            artifacts: vec![Some(VersionFacts { state: ArtifactState::Committed, digest: "d".into() })],
        };
        (expected, found)
    }

    fn told(expected: &Expected, found: &Found) -> Vec<String> {
        let verdict = compare(expected, found);
        verdict.findings.iter().map(|it| format!("{:?} {}: {}", it.what, it.name, it.why)).collect()
    }

    #[test]
    fn what_is_there_is_no_finding() {
        let (expected, mut found) = both(7);
        let verdict = compare(&expected, &found);
        assert!(verdict.is_whole(), "{:?}", verdict.findings);
        let compared = verdict.compared;
        assert_eq!((compared.rows, compared.last_step), (Counts { here: 7, there: 7, exact: 7 }, (Some(6), Some(6))));
        assert_eq!((compared.summary_keys, compared.config_keys), (2, 3));
        assert_eq!((compared.files.exact, compared.files_by_size, compared.artifacts.exact), (0, 1, 1));
        for md5 in ["ndTkYSaMgDT1yFZOFVxnpg==", "9dd4e461268c8034f5c8564e155c67a6"] {
            found.files.get_mut("f").unwrap().md5 = Some(md5.into());
            assert_eq!(compare(&expected, &found).compared.files.exact, 1, "{md5}");
        }
    }

    #[test]
    fn steps_are_told_apart_also_where_a_double_cannot() {
        let (mut expected, mut found) = both(0);
        let steps = [(1 << 53) + 1, i64::MAX];
        steps.iter().for_each(|step| expected.rows.push(Some(*step), format!(r#"{{"_step":{step}}}"#).as_bytes()));
        (found.run.history_lines, found.run.last_step) = (2, Some(i64::MAX));
        found.rows = vec![steps.iter().map(|step| format!(r#"{{"_step":{step}}}"#)).collect()];
        assert_eq!(told(&expected, &found), [""; 0]);
        // Some servers tell them so.
        assert_eq!(step(&Json::parse("12.0").unwrap()), Some(12));
    }

    #[test]
    fn each_thing_that_is_missing_is_told_once() {
        let check = |spoil: &dyn Fn(&mut Found), expected_text: &[&str]| {
            let (expected, mut found) = both(7);
            spoil(&mut found);
            assert_eq!(told(&expected, &found), expected_text);
        };
        check(&|found| drop(found.rows[0].pop()), &["Rows _step 6: missing"]);
        check(&|found| drop(found.rows[0].drain(2..5)), &["Rows _step 2 to 4: 3 missing"]);
        check(
            &|found| found.rows[0][3] = line(3).replace("30", "31"),
            &["Rows _step 3: `loss` is 31 there, and 30 here"],
        );
        check(
            &|found| {
                found.rows[0].pop();
                found.run.history_lines = 5;
                found.run.last_step = Some(5);
            },
            &[
                "Rows _step 6: missing",
                "Rows 1 rows: 5 of 7 rows are there; these are among those that are only counted",
            ],
        );
        check(&|found| found.run.last_step = Some(3), &["Rows _step 6: the last `_step` there is 3"]);
        check(&|found| found.run.summary = r#"{"loss":3}"#.into(), &["Summary deep.er: missing"]);
        check(
            &|found| found.run.config = found.run.config.replace("0.1", "0.2").replace("[1,3]", "[1]"),
            &["Config lr: is 0.2 there, and 0.1 here", "Config metric loss: it is defined otherwise there"],
        );
        check(&|found| found.run.events_lines = 1, &["Events 1 lines of system metrics: 1 of 2 are there"]);
        check(&|found| found.run.console_lines = 0, &["Console 3 console lines: 0 of 3 are there"]);
        check(&|found| found.files.clear(), &["File f: missing"]);
        check(&|found| found.files.get_mut("f").unwrap().size = 9, &["File f: 9 bytes there, and 1 here"]);
        check(&|found| found.files.get_mut("f").unwrap().md5 = Some("other".into()), &["File f: its content differs"]);
        check(&|found| found.artifacts[0] = None, &["Artifact a: missing"]);
        check(
            &|found| found.artifacts[0].as_mut().unwrap().state = ArtifactState::Pending,
            &["Artifact a: it is Pending there, and not committed"],
        );
        check(&|found| found.run.state = "running".into(), &["End exit code 0: the run is running there"]);
    }

    #[test]
    fn rows_in_the_middle_of_a_large_run_are_counted() {
        let (expected, mut found) = both(10_000);
        assert_eq!(told(&expected, &found), [""; 0]);
        assert_eq!(compare(&expected, &found).compared.rows, Counts { here: 10_000, there: 10_000, exact: 6000 });
        found.run.history_lines -= 3;
        let why = "9997 of 10000 rows are there; these are among those that are only counted";
        assert_eq!(told(&expected, &found), [format!("Rows 3 rows: {why}")]);
    }

    #[test]
    fn lists_and_names_stay_short() {
        let (mut expected, found) = both(1);
        expected.summary.set_path(&["k".repeat(1 << 20)], Json::from(1));
        assert!(told(&expected, &found)[0].len() < 1100);
        let (expected, mut found) = both(400);
        found.rows[0].iter_mut().for_each(|row| *row = row.replace("loss", "other"));
        let verdict = compare(&expected, &found);
        assert_eq!((verdict.findings.len() as u64 + verdict.more, verdict.more), (400, 350));
        assert_eq!(verdict.findings[0].why, "`loss` missing");
    }

    #[test]
    fn files_that_go_on_changing_are_only_to_be_there() {
        let (mut expected, mut found) = both(1);
        expected.files.get_mut("f").unwrap().changes = true;
        found.files.get_mut("f").unwrap().size = 9;
        assert_eq!(told(&expected, &found), [""; 0]);
        found.files.clear();
        assert_eq!(told(&expected, &found), ["File f: missing"]);
    }
}

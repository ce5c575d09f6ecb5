//! Config files beside event files that are made to explode.

use std::fmt::Write as _;
use std::fs;

use super::{begun, check_good, check_peak, import};
use crate::support::bridge::Place;

fn with_config(name: &str, content: &[u8]) -> (crate::support::bridge::Ended, u64) {
    let place = Place::new();
    begun(&place);
    fs::write(place.path("exp").join(name), content).unwrap();
    import(&place)
}

/// A config file says nothing, is named, and stops nothing.
fn check_left_out(name: &str, content: &[u8], why: &str) {
    let (ended, peak) = with_config(name, content);
    check_peak(peak);
    check_good(&ended, 3);
    assert!(ended.stderr.contains(name) && ended.stderr.contains(why), "{name}: {}", ended.stderr);
    let _ = ended.ok();
}

#[test]
fn aliases_that_multiply() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let above = format!("*a{}", level - 1);
        let _ = writeln!(laughs, "a{level}: &a{level} [{}]", [above.as_str(); 9].join(", "));
    }
    check_left_out("hparams.yaml", laughs.as_bytes(), "more than 100000 values");
    let mut merges = "b0: &b0 {x: 1, y: 2}\n".to_owned();
    for level in 1..60 {
        let _ = writeln!(merges, "b{level}: &b{level} {{<<: [*b{0}, *b{0}], k{level}: *b{0}}}", level - 1);
    }
    check_left_out("config.yaml", merges.as_bytes(), "more than 100000 values");
    check_left_out("config.yaml", b"a: &a [*a]\n", "refers to itself");
}

#[test]
fn nesting_and_size() {
    check_left_out("config.yaml", "[".repeat(1 << 20).as_bytes(), "limit exceeded");
    check_left_out("config.yaml", "- ".repeat(1 << 20).as_bytes(), "deep");
    check_left_out("config.json", "{\"a\":".repeat(1 << 18).as_bytes(), "nested too deeply");
    check_left_out("config.json", &vec![b' '; 5 << 20], "more than the 4194304");
    check_left_out("args.json", b"\xff\xfe{}", "not UTF-8");
}

#[test]
fn what_may_stand_there_stands_there() {
    let key = "k".repeat(1 << 20);
    let text = format!("{key}: 1\n? |\n  a\n  b\n: 2\n\"\\e[2J\": 3\n../x: 4\n_wandb: {{a: 1}}\nnan: .nan\n");
    let (ended, peak) = with_config("config.yaml", text.as_bytes());
    check_peak(peak);
    check_good(&ended, 3);
    let _ = ended.ok();
}

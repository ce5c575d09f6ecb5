//! Tags may be called anything: each keeps its values, and none of them leads anywhere.

use std::collections::BTreeMap;

use serde_json::Value;
use wandb_bridge::proto::tensorboard::summary::Image;
use wandb_bridge::proto::tensorboard::summary::value::Value as Data;
use wandb_bridge::proto::tensorboard::{Summary, TensorProto, event};

use super::{check_peak, checked, import, kind, value, values};
use crate::support::bridge::Place;
use crate::support::events::{Writer, scalar};
use crate::support::server::FakeServer;

fn odd_tags() -> Vec<String> {
    let mut tags: Vec<String> = [
        "..",
        "../..",
        "../../../../etc/passwd",
        "/",
        "/abs/olute",
        "a//b",
        "a/./b",
        "a/../b",
        "a\\b",
        "C:\\x",
        "CON",
        "nul.txt",
        "aux",
        "a\0b",
        "\0",
        " ",
        " a ",
        "a.",
        "a.b.c",
        ".hidden",
        "\n",
        "a\nb",
        "\r\n",
        "\t",
        "\u{1b}[2J\u{1b}[31m",
        "\u{7}",
        "\u{9b}31m",
        "\u{202e}evil",
        "\u{feff}",
        "😀/🚀",
        "é",
        "e\u{301}",
        "_step",
        "_timestamp",
        "_runtime",
        "_wandb",
        "__run_graph__",
        "global_step",
        "epoch",
        "step",
        "%s%n",
        "${HOME}",
        "$(id)",
        "`id`",
        "'; drop table",
        "\"",
        "{\"a\":1}",
        "<script>",
        "a/b",
        "a_b",
        "a b",
        "a-b",
        "tb/_step",
        "*",
        "?",
        "[x]",
        "~",
        "-rf",
        "null",
        "NaN",
        "key\u{0}\u{1}\u{1f}",
        "\u{ffff}",
    ]
    .map(str::to_owned)
    .to_vec();
    tags.push("long/".repeat(200_000) + "tag");
    tags
}

#[test]
fn every_tag_keeps_its_values() {
    let (place, server) = (Place::new(), FakeServer::start());
    let mut writer = Writer::new(&place.path("exp"));
    let tags = odd_tags();
    for (index, tag) in tags.iter().enumerate() {
        writer.scalars(tag, [(i64::try_from(index).unwrap(), index as f32)]);
    }
    let (ended, peak) = checked(&place, place.import(&server, ["exp"]).arg("--json"));
    check_peak(peak);
    assert_eq!(kind(&ended, "scalars"), [tags.len() as u64, tags.len() as u64, 0, 0], "{}", ended.stderr);
    let _ = ended.ok();
    let run = &server.runs()[0];
    let keys: BTreeMap<String, Value> = run
        .history
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap())
        .flat_map(|row| {
            let own = |key: &str| matches!(key, "_step" | "_timestamp" | "_runtime" | "global_step");
            let mut own_values: Vec<_> = row.into_iter().filter(|(key, _)| !own(key)).collect();
            assert_eq!(own_values.len(), 1, "{own_values:?}");
            own_values.pop()
        })
        .collect();
    // `tb/_step` is what `_step` is called, too: they are two values of one metric, in rows of their own.
    assert_eq!((run.history.len(), keys.len()), (tags.len(), tags.len() - 1));
    for (index, tag) in tags.iter().enumerate().filter(|(_, tag)| !tag.contains("_step")) {
        let key = if tag.starts_with('_') { format!("tb/{tag}") } else { tag.clone() };
        assert!(
            keys.get(&key)
                .or_else(|| keys.get(&format!("tb/{tag}")))
                .is_some_and(|value| value.as_f64() == Some(index as f64)),
            "{key:?}"
        );
    }
    server.assert_content();
}

#[test]
fn the_screen_stays_clean() {
    let place = Place::new();
    let mut writer = Writer::new(&place.path("exp"));
    for tag in odd_tags() {
        writer.scalars(&tag, [(1, 1.0)]);
        // One that makes no sense, so that its tag is named.
        writer.append(&[values(1, vec![value(tag, "text", Some(Data::Image(Image::default())))])]);
    }
    let _ = checked(&place, place.import_offline(["exp"])).0.code(3);
    let _ = checked(&place, place.call(["inspect", "exp"])).0;
    let _ = checked(&place, place.call(["inspect", "--json", "exp"])).0;
    let _ = checked(&place, place.call(["inspect", "out"])).0;
}

#[test]
fn files_of_odd_tags_have_plain_names_and_all_survive() {
    let place = Place::new();
    let mut writer = Writer::new(&place.path("exp"));
    let mut count = 0;
    for (index, tag) in odd_tags().into_iter().enumerate() {
        // No two hold the same, and many names are the same once they are made safe.
        let numbers = TensorProto { dtype: 2, double_val: vec![index as f64, 1.0], ..TensorProto::default() };
        let shape = wandb_bridge::proto::tensorboard::TensorShapeProto {
            dim: vec![wandb_bridge::proto::tensorboard::tensor_shape_proto::Dim { size: 2, ..Default::default() }],
            unknown_rank: false,
        };
        let tensor = TensorProto { tensor_shape: Some(shape), ..numbers };
        writer.append(&[values(1, vec![value(tag.clone(), "../p", Some(Data::Tensor(tensor)))])]);
        let image = Image { encoded_image_string: format!("no image {index}").into(), ..Image::default() };
        writer.append(&[values(1, vec![value(tag, "", Some(Data::Image(image)))])]);
        count += 1;
    }
    let (ended, peak) = import(&place);
    check_peak(peak);
    assert_eq!((kind(&ended, "../p"), kind(&ended, "images")), ([count, 0, count, 0], [count, 0, count, 0]));
    let files = super::below(&place.log().parent().unwrap().join("files/tensorboard"));
    assert_eq!(files.len() as u64, 2 * count);
}

/// Memory grows with the names that are there, and with nothing else.
#[test]
fn very_many_distinct_tags() {
    let default = 100_000;
    let tags: u64 = std::env::var("WANDB_BRIDGE_MANY_TAGS").ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let place = Place::new();
    let mut writer = Writer::new(&place.path("exp"));
    // Nine of ten at one step, so that a single row would be far too large.
    for first in (0..tags).step_by(1000) {
        let events: Vec<_> = (first..(first + 1000).min(tags))
            .map(|tag| {
                scalar(if tag < tags * 9 / 10 { 7 } else { tag.cast_signed() }, &format!("tag number {tag:0>100}"), 1.0)
            })
            .collect();
        writer.append(&events);
    }
    let (ended, peak) = import(&place);
    assert_eq!(kind(&ended, "scalars"), [tags, tags, 0, 0], "{}", ended.stderr);
    let summary = ended.ok().json_summary();
    assert_eq!(summary["skipped"], Value::Array(Vec::new()));
    // One row each for the tags at steps of their own; those at one step have more than one.
    assert!(summary["rows"].as_u64().unwrap() > tags / 10 + 1, "{summary}");
    assert!(peak < super::BOUND + tags * PER_TAG, "{} MiB", peak >> 20);
}

/// What a tag with a name of a hundred bytes takes: in the table, in rows, in the summary, in the state that is saved.
const PER_TAG: u64 = 3 << 10;

/// All values of one event lie in one row, unless W&B would not take it.
#[test]
fn one_event_with_very_many_values() {
    let place = Place::new();
    let mut writer = Writer::new(&place.path("exp"));
    let value = |tag: u32| {
        let event = scalar(1, &format!("tag number {tag:0>200}"), 1.0);
        let Some(event::What::Summary(Summary { value })) = event.what else { unreachable!() };
        value.into_iter().next().unwrap()
    };
    writer.append(&[values(1, (0..60_000).map(value).collect())]);
    let (ended, _) = import(&place);
    assert_eq!(kind(&ended, "scalars"), [60_000, 60_000, 0, 0]);
    assert_eq!(ended.ok().json_summary()["rows"].as_u64(), Some(2));
}

//! What W&B has no type for: kept as files of the run, whole, and no row speaks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{WRITERS, expected_files, imported, read_by_tensorboard, rows, tags};
use crate::support::bridge::fixture_path;
use crate::support::server::{RunSnapshot, StoredFile};

/// The files of a run below `tensorboard/KIND/`.
fn kept<'a>(run: &'a RunSnapshot, kind: &str) -> BTreeMap<&'a str, &'a StoredFile> {
    let start = format!("tensorboard/{kind}/");
    let below = run.files.iter().filter(|(path, _)| path.starts_with(&start));
    below.map(|(path, file)| (path.as_str(), file)).collect()
}

#[test]
fn graphs_are_kept_byte_for_byte() {
    let mut count = 0;
    for writer in WRITERS {
        let read = &read_by_tensorboard()[writer];
        let mut wanted: BTreeSet<_> = expected_files(&read["graphs"]).into_iter().collect();
        for point in read["tags"].as_object().unwrap().values().flat_map(|points| points.as_array().unwrap()) {
            if point["kind"] == "graphs" {
                wanted.extend(expected_files(&point["strings"]));
            }
        }
        let there = kept(&imported().runs[writer], "graphs");
        let found: BTreeSet<_> = there.values().map(|file| (file.sha256.clone(), file.size)).collect();
        assert_eq!(found, wanted, "{writer}: {there:?}");
        count += there.len();
    }
    assert_eq!(count, 10);
    // A Keras model is JSON that can be opened.
    let model = kept(&imported().runs["tf2"], "graphs").into_iter().find(|(path, _)| path.ends_with(".json"));
    let model: Value = serde_json::from_str(&model.unwrap().1.text()).unwrap();
    assert_eq!(model["config"]["name"], "small");
}

#[test]
fn layouts_of_custom_scalars_can_be_read() {
    for tag in tags("custom_scalars", 4) {
        let there = kept(tag.run, "custom_scalars");
        assert_eq!(there.len(), 1, "{}", tag.what);
        let (path, file) = there.into_iter().next().unwrap();
        assert!(path.ends_with(".json"), "{path}");
        let layout: Value = serde_json::from_str(&file.text()).unwrap();
        let categories = tag.points[0]["layout"]["category"].as_array().unwrap();
        assert_eq!(layout["categories"].as_array().unwrap().len(), categories.len(), "{layout}");
        for (there, wanted) in layout["categories"].as_array().unwrap().iter().zip(categories) {
            assert_eq!(there["title"], wanted["title"], "{}", tag.what);
            for (there, wanted) in there["charts"].as_array().unwrap().iter().zip(wanted["chart"].as_array().unwrap()) {
                assert_eq!(there["title"], wanted["title"], "{}", tag.what);
                let lines = there.get("multiline").unwrap_or(&there["margin"]);
                let wanted = wanted.get("multiline").map_or(&wanted["margin"]["series"], |lines| &lines["tag"]);
                assert_eq!(lines, wanted, "{}", tag.what);
            }
        }
    }
}

#[test]
fn tensors_can_be_opened() {
    for tag in tags("tensors", 3) {
        let there = kept(tag.run, "tensors");
        assert_eq!(there.len(), 1, "{}", tag.what);
        let (path, file) = there.into_iter().next().unwrap();
        assert!(path.ends_with(".npy"), "{path}");
        let bytes = file.bytes.as_ref().unwrap();
        // Magic, version 1.0, length of the header, the header, and the numbers.
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "{}", tag.what);
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let (header, data) = bytes[10..].split_at(length);
        let header = String::from_utf8(header.to_vec()).unwrap();
        assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
        assert!(header.contains("(2, 3)") && (10 + length).is_multiple_of(64), "{header}");
        assert_eq!((&tag.points[0]["dtype"], &tag.points[0]["shape"]), (&json!("DT_FLOAT"), &json!([2, 3])));
        let numbers: Vec<f32> = data.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        let rows: Vec<&[f32]> = numbers.chunks(3).collect();
        assert_eq!(json!(rows), tag.points[0]["values"], "{}", tag.what);
    }
}

#[test]
fn what_nobody_knows_is_kept() {
    for tag in tags("acme_board", 4) {
        let there = kept(tag.run, "acme_board");
        let value = there.iter().find(|(path, _)| path.ends_with(".json")).unwrap().1;
        assert_eq!(value.text(), "\"what only acme reads\"", "{}", tag.what);
        // Those of tensorboardX and torch have something in their metadata, too.
        let about: Vec<_> = there.iter().filter(|(path, _)| path.ends_with(".plugin.pb")).collect();
        let of_tensorflow = tag.what.starts_with("tf");
        assert_eq!(about.len(), usize::from(!of_tensorflow), "{}: {there:?}", tag.what);
        assert!(about.iter().all(|(_, file)| file.bytes.as_deref() == Some(b"\x01")), "{}", tag.what);
    }
    let old = kept(&imported().runs["tf1"], "obsolete_histograms");
    assert_eq!(old.values().map(|file| file.bytes.as_deref().unwrap()).collect::<Vec<_>>(), [b"\x01\x02"]);
}

#[test]
fn what_an_experiment_declares_is_kept() {
    let run = &imported().runs["tf2"];
    let there = kept(run, "hparams");
    assert_eq!(there.len(), 1, "{there:?}");
    let experiment: Value = serde_json::from_str(&there.into_values().next().unwrap().text()).unwrap();
    let read = &read_by_tensorboard()["tf2"]["tags"]["_hparams_/experiment"][0]["experiment"];
    let names =
        |infos: &Value| -> Vec<Value> { infos.as_array().unwrap().iter().map(|info| info["name"].clone()).collect() };
    assert_eq!(names(&experiment["hparams"]), names(&read["hparam_infos"]), "{experiment}");
    assert_eq!(experiment["metrics"][0]["tag"], read["metric_infos"][0]["name"]["tag"], "{experiment}");
}

#[test]
fn files_beside_the_events_are_kept_byte_for_byte() {
    for writer in WRITERS {
        let run = &imported().runs[writer];
        let mut wanted = BTreeMap::new();
        below(&fixture_path("every_kind").join(writer), &mut |path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.contains("tfevents") {
                wanted.insert(name.to_owned(), fs::read(path).unwrap());
            }
        });
        assert!(wanted.len() >= 4, "{wanted:?}");
        let mut there = kept(run, "profile");
        there.extend(kept(run, "projector"));
        let there: BTreeMap<String, Vec<u8>> = there
            .into_iter()
            .map(|(path, file)| (path.rsplit('/').next().unwrap().to_owned(), file.bytes.as_ref().unwrap().to_vec()))
            .collect();
        assert_eq!(there, wanted, "{writer}");
    }
}

fn below(directory: &Path, see: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { below(&path, see) } else { see(&path) }
    }
}

/// No row holds a key of what was kept, and every file beside the media is accounted for.
#[test]
fn nothing_else_is_there() {
    const KINDS: [&str; 9] = [
        "acme_board",
        "custom_scalars",
        "graphs",
        "hparams",
        "images",
        "obsolete_histograms",
        "profile",
        "projector",
        "tensors",
    ];
    const OWN: [&str; 3] = ["config.yaml", "wandb-metadata.json", "wandb-summary.json"];
    for (name, run) in &imported().runs {
        for path in run.files.keys() {
            let mut parts = path.split('/');
            let known = match parts.next().unwrap() {
                "tensorboard" => KINDS.contains(&parts.next().unwrap()),
                "media" => ["audio", "html", "images", "object3D", "table", "videos"].contains(&parts.next().unwrap()),
                own => OWN.contains(&own),
            };
            assert!(known, "{name}: {path}");
        }
        let never =
            ["graph", "acme", "own", "tensor", "keras", "traced", "_hparams_", "custom_scalars", "old histogram"];
        for row in rows(run) {
            for key in row.as_object().unwrap().keys() {
                let words: Vec<&str> = key.split('/').collect();
                assert!(!words.iter().any(|word| never.contains(word)), "{name}: `{key}` in {row}");
            }
        }
    }
}

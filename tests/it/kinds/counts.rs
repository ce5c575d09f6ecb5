//! Read = sent + kept as file + left out + lost, kind by kind, and what was read is what the files hold.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{imported, read_by_tensorboard};

/// Kind → values in all files, as TensorBoard counts them.
fn counted_by_tensorboard() -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, count) in read_by_tensorboard().values().flat_map(|run| run["counts"].as_object().unwrap()) {
        *counts.entry(kind.clone()).or_default() += count.as_u64().unwrap();
    }
    // Files beside the events, counted by hand: two of a profiler's in each directory; of the projector's a configuration
    // and labels, and by tensorboardX and torch a table and a sprite, too.
    counts.extend([("profile".to_owned(), 4 * 2), ("projector".to_owned(), 4 * 2 + 2 * 2)]);
    counts
}

fn of(count: &Value, what: &str) -> u64 {
    count[what].as_u64().unwrap()
}

#[test]
fn every_value_is_accounted_for() {
    // Nothing is lost.
    let summary = imported().ended.clone().ok().json_summary();
    let kinds = summary["kinds"].as_object().unwrap();
    let read: BTreeMap<String, u64> = kinds.iter().map(|(kind, count)| (kind.clone(), of(count, "read"))).collect();
    assert_eq!(read, counted_by_tensorboard());
    for (kind, count) in kinds {
        let sum: u64 = ["sent", "kept", "left_out", "lost"].iter().map(|what| of(count, what)).sum();
        assert_eq!(of(count, "read"), sum, "{kind}: {count}");
        assert_eq!((of(count, "left_out"), of(count, "lost")), (0, 0), "{kind}: {count}");
        let kept = match kind.as_str() {
            "acme_board" | "custom_scalars" | "graphs" | "obsolete_histograms" | "tensors" => sum,
            "profile" | "projector" => sum,
            // What is no picture.
            "images" => 1,
            // What experiments declare.
            "hparams" => 3,
            _ => 0,
        };
        assert_eq!(of(count, "kept"), kept, "{kind}: {count}");
    }
    let sent: u64 = kinds.values().map(|count| of(count, "sent")).sum();
    assert_eq!(summary["events"].as_u64(), Some(sent));
}

#[test]
fn the_summary_is_the_sum_of_the_runs() {
    let ended = &imported().ended;
    let mut sums: BTreeMap<(String, &str), u64> = BTreeMap::new();
    for line in ended.json_runs() {
        assert_eq!(line["state"], "synced", "{line}");
        for (kind, count) in line["kinds"].as_object().unwrap() {
            for what in ["read", "sent", "kept", "left_out", "lost"] {
                *sums.entry((kind.clone(), what)).or_default() += of(count, what);
            }
        }
    }
    let summary = ended.json_summary();
    for ((kind, what), sum) in sums {
        assert_eq!(of(&summary["kinds"][&kind], what), sum, "{kind}: {what}");
    }
    // More bins than W&B shows are told, and are no loss.
    let skipped = summary["skipped"].as_array().unwrap();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert_eq!((skipped[0]["count"].as_u64(), skipped[0]["loss"].as_bool()), (Some(10), Some(false)), "{skipped:?}");
}

#[test]
fn the_files_that_were_sent_are_counted() {
    for line in imported().ended.json_runs() {
        let run = &imported().runs[line["name"].as_str().unwrap()];
        assert_eq!(line["files"], run.files.len(), "{line}");
    }
    let all: usize = imported().runs.values().map(|run| run.files.len()).sum();
    assert_eq!(imported().ended.json_summary()["files"], all);
}

#[test]
fn the_last_lines_tell_the_same() {
    let sums = |what: &str| -> u64 {
        imported().ended.json_summary()["kinds"].as_object().unwrap().values().map(|count| of(count, what)).sum()
    };
    let stderr = &imported().ended.stderr;
    let line = stderr.lines().find(|line| line.contains("kept as files")).unwrap_or_else(|| panic!("{stderr}"));
    for (what, word) in [("sent", "sent"), ("kept", "kept as files")] {
        assert!(line.contains(&format!("{} {word}", sums(what))), "{line}");
    }
    assert!(line.contains(&sums("read").to_string()), "{line}");
}

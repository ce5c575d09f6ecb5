//! Damaged logs: all that is whole arrives, and what is lost is named.

use std::collections::BTreeSet;
use std::fs;

use wandb_bridge::model::Json;
use wandb_bridge::wandb_format::{EntryKind, LogReader, Next};

use super::logs::{exit, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, RunStatus};

const BLOCK: u64 = 32768;

#[test]
fn a_log_with_twenty_damaged_blocks_among_a_thousand() {
    let place = Place::new();
    let log = run_directory(&place.path("wandb"), 0, "damaged");
    let rows = 16_500_u64;
    let records = (0..rows).map(|step| row(step, 1500 + (step * 37 % 1000) as usize));
    write(&log, std::iter::once(run_record("p", "damaged")).chain(records).chain([exit(0)]));
    let mut bytes = fs::read(&log).unwrap();
    let blocks = bytes.len() as u64 / BLOCK;
    assert!(blocks >= 1000, "{blocks} blocks");
    // Not the first, in which the run is described, nor the last.
    let damaged: BTreeSet<u64> = (1..=20).map(|number| number * (blocks / 21)).collect();

    // The rows that touch no damaged block are whole.
    let mut whole = BTreeSet::new();
    let mut reader = LogReader::open(&log).unwrap();
    let mut step = 0_i64;
    while let Next::Entry(entry) = reader.next().unwrap() {
        if matches!(entry.kind, EntryKind::History(_)) {
            if !(entry.start.0 / BLOCK..=(entry.end.0 - 1) / BLOCK).any(|block| damaged.contains(&block)) {
                whole.insert(step);
            }
            step += 1;
        }
    }
    for (number, block) in damaged.iter().enumerate() {
        let at = usize::try_from(block * BLOCK).unwrap();
        match number % 3 {
            // A flipped bit at its beginning, a length that cannot be, and a block of zeros.
            0 => bytes[at + 20] ^= 1,
            1 => bytes[at + 4..at + 6].fill(0xff),
            _ => bytes[at..at + 32768].fill(0),
        }
    }
    fs::write(&log, &bytes).unwrap();

    let server = FakeServer::start();
    let ended = place.call(["sync", "--json"]).arg(place.path("wandb")).server(&server).run().code(3);
    server.assert_content();
    let run = server.run("damaged").unwrap();
    assert_eq!((run.status, run.exit_code), (RunStatus::Finished, Some(0)));
    let arrived: BTreeSet<String> = run.column("_step").iter().map(Json::to_string).collect();
    let missing: Vec<_> = whole.iter().filter(|step| !arrived.contains(&step.to_string())).collect();
    assert_eq!(missing, Vec::<&i64>::new(), "of {} whole rows", whole.len());
    let lost = rows - run.history.len() as u64;
    assert!((20..20 * 25).contains(&lost), "{lost}");
    let skipped = &ended.json_runs()[0]["skipped"][0];
    assert_eq!((&skipped["reason"], &skipped["count"]), (&"damaged record".into(), &lost.into()), "{skipped}");
    let first = skipped["first"].as_str().unwrap();
    assert!(first.ends_with(" bytes in all") && first.matches(" to ").count() == 20, "{first}");

    // Looking at it shows the same.
    let inspected = place.call(["inspect", "--json"]).arg(&log).run();
    let shown = inspected.json().into_iter().find(|line| line["type"] == "log").unwrap();
    assert_eq!(shown["damage"].as_array().unwrap().len(), 20, "{shown}");
    assert_eq!(shown["skipped"][0], *skipped);
}

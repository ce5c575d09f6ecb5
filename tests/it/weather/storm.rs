//! Weather by chance: any request may fail, and any answer may be lost. Whatever happens, it ends well when it is calm.

use super::{assert_all_is_there, import, in_calm, three_runs};
use crate::support::bridge::Place;
use crate::support::server::{FakeServer, Storm};

/// `WANDB_BRIDGE_TEST_STORMS` asks for more, and `WANDB_BRIDGE_TEST_SEED` for a certain one first.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn after_any_storm_everything_is_there_once() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let first = number("WANDB_BRIDGE_TEST_SEED", 1);
    for seed in first..first + number("WANDB_BRIDGE_TEST_STORMS", 12) {
        eprintln!("storm with the seed {seed}");
        let (place, server) = (Place::new(), FakeServer::start());
        server.storm(Storm::new(seed, 15 + seed % 4 * 15));
        let retries = ["0", "1", "3"][seed as usize % 3];
        for start in 0..4 {
            let ended = import(&place, &server, &logs).args(["--retries", retries]).run();
            // A file that did not arrive, a run that did not, or all is well.
            let code = ended.code.unwrap();
            assert!([0, 1, 3, 5].contains(&code), "seed {seed}, start {start}: {}", ended.stderr);
            let states: Vec<String> =
                ended.json_runs().iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
            assert_eq!(code == 0, states.iter().all(|state| state == "synced"), "seed {seed}: {states:?}");
        }
        server.behave();
        import(&place, &server, &logs).run().ok();
        assert_all_is_there(&server, &calm, &format!("seed {seed}"));
    }
}

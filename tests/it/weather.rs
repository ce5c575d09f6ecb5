//! Bad weather between the program and its server: whatever happens, every row arrives once, and the program says truly
//! what does not.
//!
//! What a server holds after the weather is compared with what another one holds that had none.

mod absent;
mod conflicts;
mod fleet;
mod rate;
mod storm;
mod table;

use std::path::PathBuf;

use crate::support::bridge::{Call, Place};
use crate::support::compare::same_run;
use crate::support::events::Writer;
use crate::support::server::FakeServer;

/// Rows of each run of [`three_runs`].
const ROWS: usize = 30;

/// Three runs, the last one with media.
fn three_runs(place: &Place) -> PathBuf {
    for name in ["a", "b"] {
        let file = format!("events.out.tfevents.1784016000.trainer-{name}.1.0");
        let points = (0..ROWS as i64).map(|step| (step, 1.0 / (step + 1) as f32));
        Writer::create(&place.path("logs").join(name), &file).scalars("loss", points);
    }
    place.fixture("every_kind/torch", "logs/media");
    place.path("logs")
}

/// What a server without weather holds of the same logs.
fn in_calm(logs: &PathBuf) -> FakeServer {
    let (place, server) = (Place::new(), FakeServer::start());
    place.import(&server, [logs]).run();
    server
}

/// An import that does not wait long before it tries again.
fn import(place: &Place, server: &FakeServer, logs: &PathBuf) -> Call {
    place.import(server, [logs]).args(["--retry-wait", "1ms", "--json"])
}

/// Both servers hold the same, and nobody did what a client must not do.
#[track_caller]
fn assert_all_is_there(server: &FakeServer, calm: &FakeServer, what: &str) {
    let ids = |server: &FakeServer| server.runs().into_iter().map(|run| run.id).collect::<Vec<_>>();
    assert_eq!(ids(server), ids(calm), "{what}");
    for expected in calm.runs() {
        let run = server.run(&expected.id).unwrap();
        assert_eq!(run.history, expected.history, "{what}: {}", run.display_name);
        assert_eq!(same_run(&run, &expected), Ok(()), "{what}: {}", run.display_name);
        assert_eq!(run.rewritten_lines, 0, "{what}");
    }
    let violations = server.violations();
    assert!(violations.is_empty(), "{what}: {violations:?}");
}

/// The id of the run with that name.
fn id_of(calm: &FakeServer, name: &str) -> String {
    calm.runs().into_iter().find(|run| run.display_name == name).unwrap().id
}

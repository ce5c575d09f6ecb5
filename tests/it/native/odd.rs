//! Logs that are whole, and odd in what they name or where they lie.

use wandb_bridge::proto::wandb_internal as proto;
use wandb_bridge::proto::wandb_internal::record::RecordType;

use super::logs::{exit, printed, row, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::server::FakeServer;

/// A control character does not survive in an address: the rows would come to the project that is called like the rest.
#[test]
fn a_project_that_no_address_can_hold_is_refused() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    for (number, project) in ["pro\tject", "project", "pro\nject", "a %&é /b"].into_iter().enumerate() {
        let id = format!("r{number}");
        write(&run_directory(&folder, number, &id), [run_record(project, &id), row(0, 1), exit(0)]);
    }
    let ended = place.call(["sync", "--json"]).arg(&folder).server(&server).run().code(3);
    assert!(ended.stderr.contains(r"names the project `pro\tject`"), "{}", ended.screen());
    assert!(ended.stderr.contains("choose another with `-e` or `-p`"), "{}", ended.screen());
    let mut there: Vec<(String, usize)> =
        server.runs().into_iter().map(|run| (run.project.clone(), run.history.len())).collect();
    there.sort();
    assert_eq!(there, [("a %&é /b".to_owned(), 1), ("project".to_owned(), 1)]);

    place.call(["sync", "-p", "other"]).arg(&folder).server(&server).run().ok();
    assert_eq!(server.run_in("other", "r0").unwrap().history.len(), 1);
}

#[test]
fn a_log_that_was_left_lying_about_hides_no_run() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    write(&run_directory(&folder, 0, "a"), [run_record("p", "a"), row(0, 1), exit(0)]);
    write(&folder.join("run-b.wandb"), [run_record("p", "b"), row(0, 1), exit(0)]);
    place.call(["sync", "--include-online"]).arg(&folder).server(&server).run().ok();
    assert_eq!(server.runs().len(), 2);
}

/// The run as it was wound back holds nothing of what was printed before, however many logs follow.
#[test]
fn a_log_behind_a_rewound_one_does_not_bring_back_what_was_printed_before() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    let wound_back = |record: RecordType| {
        let RecordType::Run(run) = record else { unreachable!() };
        let branch_point = proto::BranchPoint { run: "a".to_owned(), value: 0.0, metric: "_step".to_owned() };
        RecordType::Run(proto::RunRecord { branch_point: Some(branch_point), ..run })
    };
    let run = || run_record("p", "a");
    write(&run_directory(&folder, 0, "a"), [run(), row(0, 1), row(1, 1), printed("before\n"), exit(0)]);
    write(&run_directory(&folder, 1, "a"), [wound_back(run()), row(1, 1), printed("wound back\n"), exit(0)]);
    write(&run_directory(&folder, 2, "a"), [run(), row(2, 1), printed("behind\n"), exit(0)]);
    place.call(["sync"]).arg(&folder).server(&server).run().ok();
    assert_eq!(server.run("a").unwrap().files["output.log"].text(), "wound back\nbehind\n");
}

/// What was printed before is on the server in one file, which the next log's upload replaces.
#[test]
fn what_cleaned_logs_printed_stays_in_the_file_of_the_run() {
    let (place, server) = (Place::new(), FakeServer::start());
    let folder = place.path("wandb");
    let segment = |number: usize| {
        let printed = printed(&format!("segment {number}\n"));
        let row = row(number as u64, 1 + number);
        write(&run_directory(&folder, number, "a"), [run_record("p", "a"), row, printed, exit(0)]);
    };
    let output = || server.run("a").unwrap().files["output.log"].text().to_owned();
    let sync = || place.call(["sync", "--clean"]).arg(&folder).server(&server).run().ok();
    segment(0);
    segment(1);
    sync();
    assert_eq!(output(), "segment 0\nsegment 1\n");
    // They are gone here, and the run goes on where they ended.
    assert_eq!(crate::support::official::logs_below(&folder).len(), 0);
    for number in 2..4 {
        segment(number);
        sync();
    }
    assert_eq!(output(), "segment 0\nsegment 1\nsegment 2\nsegment 3\n");
    assert_eq!(server.run("a").unwrap().history.len(), 4);
    server.assert_content();
}

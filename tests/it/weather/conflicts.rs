//! A run whose id holds something else on the server: lost state, other writers, deleted runs, and what the user chose.

use std::fs;
use std::path::Path;

use super::{ROWS, assert_all_is_there, id_of, import, in_calm, three_runs};
use crate::import::named;
use crate::support::bridge::{Ended, Place};
use crate::support::official::{copy_tree, logs_below, official_sync};
use crate::support::server::{FakeServer, Fault, Route, RunStatus};

/// Forgets what was acknowledged, and keeps what was recorded.
fn lose_state(directory: &Path) {
    for log in logs_below(directory) {
        let state = log.parent().unwrap().join(".wandb-bridge");
        for entry in fs::read_dir(&state).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("upload-") {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

/// One run, `a`, on a server where somebody else wrote to it after it was uploaded, and where its state is lost.
fn disputed() -> (Place, FakeServer, String) {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    place.import(&server, ["logs/a"]).run().ok();
    let id = server.runs()[0].id.clone();
    server.append_history(&id, r#"{"_step":1000,"loss":7}"#);
    lose_state(&place.path("out"));
    (place, server, id)
}

fn sync(place: &Place, server: &FakeServer, what: &str) -> Ended {
    place.sync(server).args(["--include-synced", "--json", "--on-conflict", what]).run()
}

#[test]
fn an_import_on_a_fresh_machine_adds_nothing() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let (place, server) = (Place::new(), FakeServer::start());
    import(&place, &server, &logs).run().ok();
    let fresh = Place::new();
    import(&fresh, &server, &logs).run().ok();
    assert_all_is_there(&server, &calm, "a fresh machine");
    assert!(server.runs().iter().all(|run| run.resent_lines == 0));
    lose_state(&place.path("out"));
    import(&place, &server, &logs).run().ok();
    assert_all_is_there(&server, &calm, "a lost state");
    assert!(server.runs().iter().all(|run| run.resent_lines == 0));
}

#[test]
fn a_state_that_is_lost_in_mid_way_costs_nothing() {
    let inputs = Place::new();
    let logs = three_runs(&inputs);
    let calm = in_calm(&logs);
    let (place, server) = (Place::new(), FakeServer::start());
    // The lines arrive, and nobody hears of it.
    server.fault(Fault::reset(Route::FileStream).applied().always());
    import(&place, &server, &logs).args(["--retries", "0"]).run().code(5);
    server.behave();
    import(&Place::new(), &server, &logs).run().ok();
    assert_all_is_there(&server, &calm, "a state lost in mid-way");
}

#[test]
fn what_is_not_ours_is_left_alone_unless_the_user_says_otherwise() {
    let (place, server, id) = disputed();
    let before = server.run(&id).unwrap();
    for (what, code, state) in [("fail", 1, "failed"), ("skip", 0, "skipped")] {
        let ended = sync(&place, &server, what).code(code);
        let run = &ended.json_runs()[0];
        assert_eq!(run["state"], state);
        assert!(run["error"].as_str().unwrap().contains("something else wrote to this run"), "{run}");
        let now = server.run(&id).unwrap();
        assert_eq!((&now.history, now.upserts), (&before.history, before.upserts), "{what}");
    }
    let ended = sync(&place, &server, "fail").code(1);
    for word in ["--generation", "--on-conflict new-id", "append", "skip"] {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn another_id_is_the_same_one_each_time() {
    let (place, server, id) = disputed();
    let theirs = server.run(&id).unwrap().history;
    let other = format!("{id}-2");
    for round in 0..3 {
        sync(&place, &server, "new-id").ok();
        let run = server.run(&other).unwrap();
        assert_eq!((run.history.len(), run.status, run.resent_lines), (ROWS, RunStatus::Finished, 0), "{round}");
        assert_eq!(server.run(&id).unwrap().history, theirs);
        assert_eq!(server.runs().len(), 2);
        // Also where nobody remembers: its own lines are found there.
        if round == 1 {
            lose_state(&place.path("out"));
        }
    }
    // What it was is remembered: no choice is needed any more.
    sync(&place, &server, "fail").ok();
    assert_eq!(server.runs().len(), 2);
    server.assert_content();
}

#[test]
fn rows_are_appended_once() {
    let (place, server, id) = disputed();
    let theirs = server.run(&id).unwrap().history;
    for round in 0..3 {
        sync(&place, &server, "append").ok();
        let now = server.run(&id).unwrap().history;
        assert_eq!(now.len(), theirs.len() + ROWS, "{round}");
        assert_eq!(now[..theirs.len()], theirs);
        assert_eq!(now[theirs.len()..], theirs[..ROWS]);
        if round == 1 {
            lose_state(&place.path("out"));
        }
    }
}

/// Two more rows come for the run `a`.
fn two_more_rows(place: &Place) {
    let file = "events.out.tfevents.1784016000.trainer-a.1.0";
    let mut more = crate::support::events::Writer::create(&place.path("scratch"), file);
    more.now += 1000.0;
    more.scalars("loss", [(100, 1.0), (101, 2.0)]);
    let bytes = fs::read(more.path()).unwrap();
    // Behind the version event, which is there already.
    let behind = 12 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 4;
    let path = place.path("logs/a").join(file);
    let old = fs::read(&path).unwrap();
    fs::write(&path, [&old[..], &bytes[behind..]].concat()).unwrap();
}

#[test]
fn a_run_that_was_deleted_and_made_again_is_not_gone_on_with() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let watch_part = |code: i32, what: &str| {
        place.import(&server, ["logs/a"]).args(["--on-conflict", what, "--json"]).run().code(code)
    };
    watch_part(0, "fail");
    let id = server.runs()[0].id.clone();
    let all = server.run(&id).unwrap().history;
    server.forget_run(&id);
    // More comes, so the run is opened again.
    two_more_rows(&place);

    let ended = watch_part(1, "fail");
    assert!(ended.stderr.contains("deleted") && ended.stderr.contains("--generation"), "{}", ended.stderr);
    assert!(server.run(&id).unwrap().history.is_empty());
    watch_part(1, "fail");
    assert_eq!(watch_part(0, "skip").json_runs()[0]["state"], "skipped");
    watch_part(0, "append");
    let run = server.run(&id).unwrap();
    assert_eq!((run.history.len(), &run.history[..ROWS], run.status), (ROWS + 2, &all[..], RunStatus::Finished));
    assert!(run.files.contains_key("config.yaml"));
    server.assert_content();
}

#[test]
fn rows_that_the_server_lost_are_sent_again_and_leave_no_gap() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let import = || place.import(&server, ["logs/a"]).args(["--json"]).run();
    import().ok();
    let id = server.runs()[0].id.clone();
    let all = server.run(&id).unwrap().history;
    server.lose_history(&id, 10);
    two_more_rows(&place);
    import().ok();
    let run = server.run(&id).unwrap();
    assert_eq!((run.history.len(), &run.history[..ROWS], run.status), (ROWS + 2, &all[..], RunStatus::Finished));
    assert_eq!((run.resent_lines, run.rewritten_lines), (0, 0));
    server.assert_content();
}

#[test]
fn rows_that_the_server_lost_and_that_are_not_here_any_more_are_a_conflict() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let import =
        |arguments: &[&str]| place.import(&server, ["logs/a"]).args(["--json", "--clean"]).args(arguments).run();
    import(&[]).ok();
    let id = server.runs()[0].id.clone();
    server.lose_history(&id, 10);
    let before = server.run(&id).unwrap().history;
    two_more_rows(&place);
    for what in ["fail", "append", "new-id"] {
        let ended = import(&["--on-conflict", what]).code(1);
        let error = ended.json_runs()[0]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("cannot be sent again from here"), "{what}: {error}");
    }
    assert_eq!(server.run(&id).unwrap().history, before);
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn what_people_changed_on_the_page_stays() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    let import = |arguments: &[&str]| place.import(&server, ["logs/a"]).args(arguments).run().ok();
    server.fault(Fault::status(Route::FileStream, 500).always());
    place.import(&server, ["logs/a"]).args(["--retries", "0", "--notes", "from here"]).run().code(5);
    server.behave();
    let id = server.runs()[0].id.clone();
    server.edit(&id, |run| {
        run.display_name = "mine".to_owned();
        run.notes = Some("my notes".to_owned());
        run.tags = vec!["good".to_owned()];
        run.group = Some("my group".to_owned());
    });
    let check = |notes: &str| {
        let run = server.run(&id).unwrap();
        assert_eq!((run.display_name.as_str(), run.group.as_deref()), ("mine", Some("my group")));
        assert_eq!((run.notes.as_deref(), &run.tags), (Some(notes), &vec!["good".to_owned()]));
    };
    import(&[]);
    check("my notes");
    // Nor does a machine that knows nothing of it.
    lose_state(&place.path("out"));
    import(&[]);
    check("my notes");
    // What is asked for anew is sent, and only that.
    import(&["--notes", "new"]);
    check("new");
}

#[test]
fn the_official_client_first_and_then_we_add_nothing() {
    let (place, server) = (Place::new(), FakeServer::start());
    let logs = three_runs(&place);
    let calm = in_calm(&logs);
    place.import_offline([&logs]).args(["-p", "p"]).run();
    copy_tree(&place.path("out"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &server);
    let before = server.runs();
    sync(&place, &server, "fail").ok();
    for run in &before {
        let now = server.run(&run.id).unwrap();
        assert_eq!(now.history, run.history, "{}", run.display_name);
        assert_eq!((now.resent_lines, now.history.len()), (0, calm.run(&run.id).unwrap().history.len()));
    }
    server.assert_content();
    assert_eq!(named(&server, "a").id, id_of(&calm, "a"));
}

#[test]
fn we_first_and_then_the_official_client_is_its_affair() {
    let (place, server) = (Place::new(), FakeServer::start());
    three_runs(&place);
    place.import_offline([place.path("logs/a")]).args(["-p", "p"]).run().ok();
    sync(&place, &server, "fail").ok();
    let id = server.runs()[0].id.clone();
    // It sends all rows again, behind those that are there, because it is told to take synced runs too: that doubles them.
    copy_tree(&place.path("out"), &place.path("copy"));
    official_sync(&place.path("copy/wandb"), &server);
    assert_eq!(server.run(&id).unwrap().history.len(), 2 * ROWS);
    // We add nothing to that, as long as we know what we sent; otherwise it is a conflict, and is said.
    sync(&place, &server, "fail").ok();
    lose_state(&place.path("out"));
    sync(&place, &server, "fail").code(1);
    assert_eq!(server.run(&id).unwrap().history.len(), 2 * ROWS);
}

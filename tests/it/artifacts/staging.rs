//! Files of recorded artifacts that are not where they were: found where they were moved to, or told, and sent when they can
//! be.

use std::fs;
use std::path::PathBuf;

use super::logs::{held, record, sync};
use crate::support::bridge::Place;
use crate::support::python::inline;
use crate::support::server::{Artifact, FakeServer};

fn staging(place: &Place) -> PathBuf {
    place.path("staging/.local/share/wandb/artifacts/staging")
}

/// The versions that are whole.
fn versions(server: &FakeServer) -> Vec<String> {
    let name = |artifact: &Artifact| Some(format!("{}:v{}", artifact.name, artifact.version?));
    let mut names: Vec<String> = server.look(|world| world.artifacts.iter().filter_map(name).collect());
    names.sort();
    names
}

/// The run, as another machine has it: the folder that holds its `wandb` folder, and nothing of where it was.
fn moved() -> (Place, PathBuf, PathBuf) {
    let place = Place::new();
    let run = record(&place);
    fs::rename(staging(&place), place.path("staged")).unwrap();
    fs::rename(place.path("work"), place.path("laptop")).unwrap();
    let run = place.path("laptop").join(run.strip_prefix(place.path("work")).unwrap());
    (place, run, PathBuf::from("staged"))
}

#[test]
fn a_staging_folder_that_was_moved_is_found() {
    let whole = {
        let (place, server) = (Place::new(), FakeServer::start());
        let run = record(&place);
        sync(&place, &server, &run).run().ok();
        held(&server)
    };
    assert!(whole.len() >= 6, "{whole:#?}");
    let (place, run, staged) = moved();
    let call = |server: &FakeServer| place.call(["sync", "--include-synced"]).arg(&run).server(server);

    let server = FakeServer::start();
    let ended = call(&server).run().code(3);
    // Which file of which artifact, what is wrong with it, where it was, and where else it was looked for.
    let was = staging(&place).display().to_string();
    let told = |ended: &crate::support::bridge::Ended| {
        let line = ended.stderr.lines().find(|line| line.contains("first: `data`:")).unwrap_or_default().to_owned();
        for part in [
            "2 files are not here as recorded: `deep/ü b.bin` (`",
            &format!("{was}/"),
            "is not there), ",
            "looked for in `",
            &format!("`{}`", place.path("laptop").display()),
            "home/.local/share/wandb/artifacts/staging`",
            "`--staging` names other folders",
        ] {
            assert!(line.contains(part), "{part}: {}", ended.stderr);
        }
    };
    told(&ended);
    // It costs nothing to say it again.
    let requests = server.requests().len();
    told(&call(&server).run().code(3));
    assert_eq!(server.requests().len(), requests);

    call(&server).arg("--staging").arg(&staged).run().ok();
    server.assert_content();
    // What was begun in vain for one of them is left to the server.
    assert_eq!(versions(&server), whole.keys().cloned().collect::<Vec<_>>());

    // A folder of its own on this machine, or beside the log, needs no flag.
    let check = |at: &str, variable: Option<&str>| {
        let at = place.path(at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::rename(place.path("staged"), &at).unwrap();
        let server = FakeServer::start();
        let call = call(&server);
        let call = match variable {
            Some(value) => call.env("WANDB_DATA_DIR", value),
            None => call,
        };
        call.run().ok();
        server.assert_content();
        assert_eq!(held(&server), whole);
        fs::rename(&at, place.path("staged")).unwrap();
    };
    check("laptop/artifacts/staging", None);
    check("laptop/wandb/staging", None);
    check("home/.local/share/wandb/artifacts/staging", None);
    check("data/artifacts/staging", Some("data"));
}

/// Records versions of `model` in one run, each with files of these contents, and returns the staged copy of the first file
/// of the first version.
fn record_versions(place: &Place, versions: &str) -> PathBuf {
    let program = "
import json, sys, wandb
run = wandb.init(mode='offline', project='p', id='two')
copies = []
for contents in json.loads(sys.argv[1]):
    artifact = wandb.Artifact('model', type='model')
    for content in contents:
        with artifact.new_file(content) as file:
            file.write(content)
        copies.append(artifact.manifest.entries[content].local_path)
    run.log_artifact(artifact)
run.finish()
print(copies[0])";
    let recorded = inline(program).arg(versions).directory(&place.path("")).home(&place.path("staging")).run().ok();
    recorded.stdout.lines().last().unwrap().into()
}

#[test]
fn a_version_whose_file_changed_is_told_at_no_cost_until_the_file_is_back() {
    let (place, server) = (Place::new(), FakeServer::start());
    let one = record_versions(&place, r#"[["one"], ["two"]]"#);
    fs::write(&one, "0ne").unwrap();
    let sync = |arguments: &[&str]| place.call(["sync"]).args(arguments).server(&server).run();
    let told = "× artifact that could not be uploaded, first: `model`: 1 file is not here as recorded: `one` (`";
    let first = sync(&[]).code(3);
    assert!(first.stderr.contains(told) && first.stderr.contains("is another one by now)"), "{}", first.stderr);
    assert_eq!(versions(&server), ["model:v0"]);
    // The newer one is there. The older one is told again, and nobody is asked.
    let requests = server.requests().len();
    let again = sync(&["--json"]).code(3);
    assert_eq!((again.json()[0]["state"].as_str(), server.requests().len()), (Some("partial"), requests));
    // The loss is accepted: it is told once more, and then the run is left out.
    let accepted = sync(&["--accept-losses"]).code(3);
    assert!(accepted.stderr.contains(told), "{}", accepted.stderr);
    let left_out = sync(&[]).ok();
    assert!(left_out.stderr.contains("left out: 1 run (synced already"), "{}", left_out.stderr);
    assert_eq!(server.requests().len(), requests);
    // What was recorded is there again.
    fs::write(&one, "one").unwrap();
    sync(&["--include-synced"]).ok();
    server.assert_content();
    assert_eq!(versions(&server), ["model:v0", "model:v1"]);
}

#[test]
fn what_came_with_a_newer_version_makes_an_older_one_whole() {
    let (place, server) = (Place::new(), FakeServer::start());
    fs::remove_file(record_versions(&place, r#"[["one"], ["one", "two"]]"#)).unwrap();
    place.call(["sync"]).server(&server).run().ok();
    server.assert_content();
    assert_eq!(held(&server).len(), 2);
}

//! Files that `wandb.save` made links of.

use std::fs;
use std::os::unix::fs::symlink;

use wandb_bridge::proto::wandb_internal as proto;
use wandb_bridge::proto::wandb_internal::record::RecordType;

use super::logs::{exit, run_directory, run_record, write};
use crate::support::bridge::Place;
use crate::support::server::FakeServer;

#[test]
fn saved_files_are_followed_wherever_they_are_unless_they_are_hidden() {
    for (flags, code, expected) in [
        (&[][..], 3, &["model.pt"][..]),
        (&["--follow-links"], 0, &["hidden", "model.pt"]),
        (&["--no-follow-links"], 3, &[]),
    ] {
        let (place, server) = (Place::new(), FakeServer::start());
        fs::create_dir_all(place.path("scratch/.cache")).unwrap();
        let log = run_directory(&place.path("work/wandb"), 1, "saved");
        for (name, to) in [("model.pt", "scratch/model.pt"), ("hidden", "scratch/.cache/hidden")] {
            fs::write(place.path(to), to).unwrap();
            symlink(place.path(to), log.parent().unwrap().join("files").join(name)).unwrap();
        }
        let file = |path: &str| proto::FilesItem { path: path.to_owned(), ..proto::FilesItem::default() };
        let files = RecordType::Files(proto::FilesRecord { files: ["model.pt", "hidden"].map(file).to_vec() });
        write(&log, [run_record("p", "saved"), files, exit(0)]);
        place.call(["sync", "--dry-run"]).args(flags).arg(&log).server(&server).run().code(code);
        let ended = place.call(["sync"]).args(flags).arg(&log).server(&server).run().code(code);
        let run = server.run("saved").unwrap();
        let sent: Vec<&str> =
            run.files.keys().map(String::as_str).filter(|name| ["hidden", "model.pt"].contains(name)).collect();
        assert_eq!(sent, expected, "{flags:?}");
        let said = ended.stderr.contains("`hidden` is a link to outside of the run; `--follow-links` sends such files");
        assert_eq!(said, code == 3, "{flags:?}: {}", ended.stderr);
        // `verify` looks at what was sent by the same rule, and no farther.
        let verify = || place.call(["verify"]).args(flags).arg(&log).server(&server).run();
        verify().code(code);
        fs::write(place.path("scratch/.cache/hidden"), "SCRATCH/.cache/hidden").unwrap();
        verify().code(3);
    }
}

//! Directories that grow: values, files, runs and paths that appear while the program runs.

use std::fs;

use super::harness::*;
use crate::support::bridge::fixture_path;
use crate::support::server::{FakeServer, RunStatus};

#[test]
fn values_files_and_runs_arrive_while_it_runs() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut a = Writer::new(&place.path("logs/a"));
    a.scalar(0, "loss", 0.0);
    wait_for_points(&server, "a", "loss", 1);
    a.scalar(1, "loss", 1.0);
    wait_for_points(&server, "a", "loss", 2);

    let mut second = Writer::at(&place.path("logs/a"), now() + 2.0, "host.1.1");
    second.scalar(7, "accuracy", 7.0);
    let mut b = Writer::new(&place.path("logs/deep/b"));
    b.steps("loss", 0..3);
    wait_for_points(&server, "a", "accuracy", 1);
    wait_for_points(&server, "deep/b", "loss", 3);
    a.scalar(2, "loss", 2.0);
    second.scalar(8, "accuracy", 8.0);
    b.steps("loss", 3..5);
    wait_for_points(&server, "a", "loss", 3);
    wait_for_points(&server, "a", "accuracy", 2);
    wait_for_points(&server, "deep/b", "loss", 5);
    assert!(server.runs().iter().all(|run| run.status == RunStatus::Running));

    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
    assert_finished(&server, "a", "accuracy", &steps(7..9));
    assert_finished(&server, "deep/b", "loss", &steps(0..5));
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn values_of_one_step_are_one_row() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    let bytes: Vec<u8> = ["loss", "accuracy", "lr"].iter().flat_map(|tag| writer.event(5, tag, 5.0)).collect();
    writer.raw(&bytes);
    wait_for_points(&server, "a", "lr", 1);
    watching.interrupt().end().assert_code(0);
    assert_eq!(the_run(&server, "a").history.len(), 1);
}

#[test]
fn a_record_that_is_cut_waits_for_its_rest() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    let cut = writer.scalar(0, "loss", 0.0).event(1, "loss", 1.0);
    wait_for_points(&server, "a", "loss", 1);
    // Within the length, within the payload, and before the last checksum is whole.
    let mut written = 0;
    for end in [3, 20, cut.len() - 2] {
        writer.raw(&cut[written..end]);
        written = end;
        // What another run delivers meanwhile shows that the cut record was looked at.
        let name = format!("b{end}");
        Writer::new(&place.path(&format!("logs/{name}"))).scalar(0, "loss", 0.0);
        wait_for_points(&server, &name, "loss", 1);
        assert_eq!(server.look(|world| points(named(world, "a").unwrap(), "loss")).len(), 1);
    }
    writer.raw(&cut[cut.len() - 2..]).scalar(2, "loss", 2.0);
    wait_for_points(&server, "a", "loss", 3);
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_never_says("unfinished");
    assert_finished(&server, "a", "loss", &steps(0..3));
}

#[test]
fn a_record_that_stays_cut_is_said_at_the_end() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let mut writer = Writer::new(&place.path("logs/a"));
    let cut = writer.scalar(0, "loss", 0.0).event(1, "loss", 1.0);
    writer.raw(&cut[..20]);
    let ended = place.watch(&server, "--until-idle 300ms").end();
    ended.assert_code(0).assert_says("1 × unfinished last record");
    assert_finished(&server, "a", "loss", &steps(0..1));
}

#[test]
fn a_late_file_with_an_older_name_belongs_to_the_same_run() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.scalar(0, "loss", 0.0);
    wait_for_points(&server, "a", "loss", 1);
    let mut older = Writer::at(&place.path("logs/a"), now() - 600.0, "host.0.0");
    older.steps("warmup", 0..2);
    wait_for_points(&server, "a", "warmup", 2);
    writer.scalar(1, "loss", 1.0);
    wait_for_points(&server, "a", "loss", 2);
    watching.interrupt().end().assert_code(0);

    // The same holds for the next process, which sees both at once.
    writer.scalar(2, "loss", 2.0);
    older.steps("warmup", 2..3);
    let watching = place.watch(&server, "");
    wait_for_points(&server, "a", "warmup", 3);
    wait_for_points(&server, "a", "loss", 3);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..3));
    assert_finished(&server, "a", "warmup", &steps(0..3));
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn an_experiment_that_joins_later_and_began_earlier_is_not_refused() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "--join {1} --run-id j-{1}");
    Writer::new(&place.path("logs/a/run")).steps("loss", 0..3);
    wait_for_points(&server, "a", "loss", 3);
    Writer::at(&place.path("logs/a/before"), now() - 600.0, "host.0.0").steps("warmup", 0..2);
    server.wait_until(LIMIT, |world| world.runs.values().any(|run| points(run, "warmup").len() == 2));
    watching.interrupt().end().assert_code(0);
    assert_eq!(server.runs().len(), 1);
}

#[test]
fn writers_in_one_directory_do_not_hide_each_other() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let directory = place.path("logs/a");
    let mut writers: Vec<Writer> = (0..4).map(|index| Writer::at(&directory, now(), &format!("host{index}"))).collect();
    for step in 0..20 {
        for (index, writer) in writers.iter_mut().enumerate() {
            // The later ones are faster.
            for part in 0..=index as i64 {
                writer.steps(&format!("loss{index}"), step * 4 + part..step * 4 + part + 1);
            }
        }
    }
    for index in 0..4 {
        wait_for_points(&server, "a", &format!("loss{index}"), 20 * (index + 1));
    }
    watching.interrupt().end().assert_code(0);
    for index in 0..4 {
        let expected: Vec<(i64, f64)> = steps(0..80).into_iter().filter(|(step, _)| step % 4 <= index).collect();
        assert_finished(&server, "a", &format!("loss{index}"), &expected);
    }
}

#[test]
fn a_quiet_writer_is_not_kept_waiting_by_a_busy_one() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let _watching = place.watch(&server, "");
    let mut busy = Writer::new(&place.path("logs/busy"));
    let mut quiet = Writer::new(&place.path("logs/quiet"));
    quiet.scalar(0, "loss", 0.0);
    // It never pauses until the quiet one's value is there.
    let arrived = |server: &FakeServer| {
        server.look(|world| named(world, "quiet").is_some_and(|run| points(run, "loss").len() == 1))
    };
    let started = std::time::Instant::now();
    for step in 0.. {
        if arrived(&server) {
            break;
        }
        assert!(started.elapsed() < LIMIT, "it never arrived");
        busy.scalar(step, "loss", 0.0);
        std::thread::yield_now();
    }
    server.assert_content();
}

#[test]
fn what_grew_beside_something_new_is_not_forgotten() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    // Looks are so rare that only hints, and the end, make it read.
    let watching = place.bridge("watch logs --poll 1h -p p").online(&server).start();
    let mut a = Writer::new(&place.path("logs/a"));
    a.scalar(0, "loss", 0.0);
    wait_for_points(&server, "a", "loss", 1);
    for index in 1..6 {
        a.scalar(index, "loss", index as f32);
        let name = format!("b{index}");
        Writer::new(&place.path(&format!("logs/{name}"))).scalar(0, "loss", 0.0);
        // A directory may be faster than its notifications; then the next file brings the hint.
        a.raw(&[]);
    }
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..6));
    assert_eq!(server.runs().len(), 6);
}

#[test]
fn a_path_that_does_not_exist_yet_is_waited_for_and_said_once() {
    let (server, place) = (FakeServer::start(), Place::new());
    let watching = place.bridge("watch out/exp/logs other --poll 50ms -p p").online(&server).start();
    watching.wait_for("waiting for `out/exp/logs`, `other` to appear");
    Writer::new(&place.path("out/exp/logs/a")).scalar(0, "loss", 0.0);
    wait_for_points(&server, "a", "loss", 1);
    Writer::new(&place.path("other")).scalar(0, "loss", 0.0);
    wait_for_points(&server, "other", "loss", 1);
    let ended = watching.interrupt().end();
    ended.assert_code(0);
    assert_eq!(ended.err.matches("waiting for").count(), 1, "{}", ended.err);
    assert_eq!(server.runs().len(), 2);
}

#[test]
fn a_shrunk_file_is_said_and_its_run_goes_on() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..10);
    wait_for_points(&server, "a", "loss", 10);
    fs::OpenOptions::new().write(true).open(&writer.path).unwrap().set_len(100).unwrap();
    watching.wait_for("is shorter than before");
    let mut next = Writer::at(&place.path("logs/a"), now() + 2.0, "host.1.1");
    next.steps("loss", 10..12);
    wait_for_points(&server, "a", "loss", 12);
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..12));
}

#[test]
fn a_file_that_is_gone_is_said_and_its_run_goes_on() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let mut writer = Writer::new(&place.path("logs/a"));
    writer.steps("loss", 0..2);
    wait_for_points(&server, "a", "loss", 2);
    let mut next = Writer::at(&place.path("logs/a"), now() + 2.0, "host.1.1");
    next.steps("loss", 2..3);
    wait_for_points(&server, "a", "loss", 3);
    fs::remove_file(&writer.path).unwrap();
    watching.wait_for("is gone; what was read of it stays");
    next.steps("loss", 3..4);
    wait_for_points(&server, "a", "loss", 4);
    fs::remove_dir_all(place.path("logs")).unwrap();
    watching.wait_for("waiting for `logs` to appear");
    watching.interrupt().end().assert_code(0);
    assert_finished(&server, "a", "loss", &steps(0..4));
}

#[test]
fn a_file_that_is_replaced_by_a_longer_copy_goes_on_and_by_another_is_said() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    let source = place.path("elsewhere");
    let mut writer = Writer::new(&source);
    let copy = place.path("logs/a").join(writer.path.file_name().unwrap());
    fs::create_dir(place.path("logs/a")).unwrap();
    let replace = |from: &std::path::Path| {
        fs::copy(from, place.path("logs/.partial")).unwrap();
        fs::rename(place.path("logs/.partial"), &copy).unwrap();
    };
    for step in 0..3 {
        writer.steps("loss", step..step + 1);
        replace(&writer.path);
        wait_for_points(&server, "a", "loss", step as usize + 1);
    }
    // Another writer's file under the same name, longer than what was there.
    let mut other = Writer::at(&place.path("third"), now() + 5.0, "host.1.0");
    other.steps("other", 0..50);
    Writer::at(&place.path("logs/a"), now() + 9.0, "host.1.1").steps("loss", 3..4);
    wait_for_points(&server, "a", "loss", 4);
    replace(&other.path);
    watching.wait_for("was replaced by another file");
    wait_for_points(&server, "a", "other", 50);
    let ended = watching.interrupt().end();
    ended.assert_code(0).assert_never_says("damaged");
    assert_eq!(ended.err.matches("was replaced").count(), 1, "{}", ended.err);
    assert_finished(&server, "a", "loss", &steps(0..4));
    assert_finished(&server, "a", "other", &steps(0..50));
}

#[test]
fn more_runs_grow_than_files_may_usually_be_open() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    for index in 0..60 {
        Writer::at(&place.path(&format!("logs/r{index:02}")), now(), &format!("host{index}")).steps("loss", 0..3);
    }
    let few = place.bridge_with_few_files(100, "watch logs --poll 50ms -p p --tpslimit 0 --until-idle 300ms");
    few.online(&server).run().assert_code(0).assert_says("60 complete");
    for index in 0..60 {
        assert_finished(&server, &format!("r{index:02}"), "loss", &steps(0..3));
    }
}

#[test]
fn a_dry_run_writes_and_sends_nothing() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    Writer::new(&place.path("logs/a")).steps("loss", 0..3);
    let before = place.tree();
    let ended = place.watch(&server, "--dry-run --until-idle 300ms").end();
    ended.assert_code(0).assert_says("dry run: nothing is written or uploaded").assert_says("3 values = 3 to be sent");
    assert_eq!(place.tree(), before);
    assert!(server.requests().is_empty());

    // The same without a key: nobody needs one for this.
    let ended = place.bridge("watch logs --dry-run --until-idle 300ms").run();
    ended.assert_code(0).assert_never_says("API key");
    assert_eq!(place.tree(), before);
}

#[test]
fn sessions_that_appear_belong_where_one_pass_puts_them() {
    let (server, place) = (FakeServer::start(), Place::with_logs());
    let watching = place.watch(&server, "");
    // A writer that has only begun, and the session that it says first: its config.
    let mut writer = Writer::new(&place.path("logs/a"));
    let session = |name: &str, fixture: &str| {
        let directory = fixture_path("habits/add_hparams").join(fixture);
        let file = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_file());
        let (to, file) = (place.path("logs/a").join(name), file.unwrap());
        fs::create_dir(&to).unwrap();
        (to.join(file.file_name().unwrap()), fs::read(&file).unwrap())
    };
    let (path, bytes) = session("1.5", "trained/final");
    // Cut within what says that it is one: until all of that is there, it makes no run.
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    writer.scalar(0, "loss", 1.0);
    wait_for_points(&server, "a", "loss", 1);
    fs::write(&path, &bytes).unwrap();
    wait_for_points(&server, "a", "hparam/accuracy", 1);
    writer.scalar(1, "loss", 1.0);
    let sweep = fs::read_dir(fixture_path("habits/add_hparams/sweep")).unwrap().map(|entry| entry.unwrap().file_name());
    let other = sweep.map(|name| name.into_string().unwrap()).filter(|name| !name.contains("tfevents")).min().unwrap();
    let (path, bytes) = session("2.5", &format!("sweep/{other}"));
    fs::write(&path, &bytes).unwrap();
    wait_for_points(&server, "a/2.5", "hparam/accuracy", 1);
    watching.interrupt().end().assert_code(0);
    let (a, other) = (the_run(&server, "a"), the_run(&server, "a/2.5"));
    assert_eq!((a.group.as_deref(), other.group.as_deref(), server.runs().len()), (None, Some("a"), 2));
    for (run, optimizer) in [(&a, "adam"), (&other, "sgd")] {
        assert!(run.config.contains(&format!(r#""optimizer":{{"value":"{optimizer}"}}"#)), "{}", run.config);
    }
    // Two of its own, and one of its session.
    assert_eq!(points(&a, "loss").len(), 3);
}
